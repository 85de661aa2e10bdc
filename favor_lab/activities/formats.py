"""What Pillow leaves unchecked in a file: that a JPEG or PNG is complete and a PNG undamaged, that neither has so
many parts that reading it takes minutes, and that no global setting of Pillow lets truncated files pass."""

from __future__ import annotations

import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageFile

MAX_SCANNED = 10**9  # pixels in all scans of a JPEG: 11 scans of the largest image; 10 are usual, 3 s at most
MAX_SCANS, MAX_SEGMENTS, MAX_CHUNKS = 1000, 1000, 100_000  # of a JPEG, twice; of a PNG
PNG = b"\x89PNG\r\n\x1a\n"
SCAN, END = b"\xff\xda", b"\xff\xd9"
JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]", re.DOTALL)
ADAM7 = (  # the seven passes of an interlaced PNG: first column and row, steps
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def check_parts(data: bytes) -> None:
    """ValueError for a JPEG or PNG of so many parts that its header is read for minutes, and for a damaged PNG."""
    if data.startswith(b"\xff\xd8"):
        jpeg_scans(data)
    elif data.startswith(PNG):
        for _ in png_chunks(data):
            pass


def check_scans(data: bytes, size: tuple[int, int]) -> None:
    """ValueError for a JPEG with so many scans, each of all its pixels, that it is decoded for minutes."""
    if not data.startswith(b"\xff\xd8"):
        return
    scans = jpeg_scans(data)
    if scans > min(MAX_SCANS, MAX_SCANNED // (size[0] * size[1])) and scans > 1:
        raise ValueError(f"{scans} scans of {size[0]} x {size[1]} pixels; save it as a usual JPEG")


def jpeg_scans(data: bytes) -> int:
    """Number of scans of a JPEG, which a file of a few bytes may have by the thousand. ValueError for too many other
    segments; each scan may bring along ten, such as tables."""
    scans = 0
    for segments, (marker, _) in enumerate(jpeg_markers(data), start=1):
        scans += marker == SCAN
        if segments - 10 * scans > MAX_SEGMENTS:
            raise ValueError(f"it has more than {MAX_SEGMENTS} segments of metadata; save it without them")
    return scans


def jpeg_markers(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The markers of a JPEG's segments and where they stand, up to the end of its image."""
    place = 2
    while marker := JPEG_MARKER.search(data, place):
        yield marker[0], marker.start()
        if marker[0] == END:
            return
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # after the segment


def check_jpeg_rows(data: bytes, image: Image.Image) -> None:
    """ValueError for a JPEG whose last scan ends before its last row, which a decoder leaves grey without a word: with
    other bytes after that end, the rows would be others."""
    corner = image.getpixel((image.width - 1, image.height - 1))
    if not {127, 128}.issuperset(corner if isinstance(corner, tuple) else (corner,)):
        return
    *_, (marker, end) = jpeg_markers(data)
    if marker == END:
        more = data[:end].rstrip(b"\xff") + bytes(range(1, 255)) * 4 + END
        with Image.open(BytesIO(more), formats=["JPEG"]) as longer:
            if longer.tobytes() != image.tobytes():
                raise ValueError("it is cut off: it ends before its last row")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of each chunk of a PNG up to its end or to the end of the file. ValueError for a wrong checksum
    and for too many chunks."""
    view, place = memoryview(data), len(PNG)
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack(">I4s", data[place : place + 8].ljust(8, b"\0"))
        if place + 12 + length > len(data):  # cut off: the decoder says so
            return
        content, checksum = view[place + 8 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        if zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise ValueError(f"it is damaged: the checksum of its chunk {name.decode('latin-1')!r} is wrong")
        yield name, content
        if name == b"IEND":
            return
        place += 12 + length
    raise ValueError(f"it has more than {MAX_CHUNKS} chunks; save it again")


def check_png_rows(data: bytes) -> None:
    """ValueError for a PNG whose compressed data end before its last row, which a decoder leaves black, or are damaged
    after it."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    expected = 0
    for left, top, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0  # one byte per row names its filter
    decoder, size = zlib.decompressobj(), 0
    try:
        for name, waiting in png_chunks(data):
            while name == b"IDAT" and waiting and not decoder.eof and size <= expected:  # what comes after is not used
                size += len(decoder.decompress(waiting, 2**20))
                waiting = memoryview(decoder.unconsumed_tail)
    except zlib.error as fault:
        raise ValueError(f"its pixels are damaged ({fault})") from fault
    if size < expected:
        raise ValueError(f"it is cut off: {size} of {expected} bytes of its pixels are there")


class _Strict:
    """How many threads decode, and what Pillow's flag was before the first of them."""

    lock, threads, before = threading.Lock(), 0, False


@contextmanager
def only_complete_files() -> Iterator[None]:
    """Truncated files are errors inside the block, whatever other code has set Pillow's LOAD_TRUNCATED_IMAGES to, for
    all threads; it is set again when the last thread leaves."""
    with _Strict.lock:
        if not _Strict.threads:
            _Strict.before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _Strict.threads += 1
    try:
        yield
    finally:
        with _Strict.lock:
            _Strict.threads -= 1
            if not _Strict.threads:
                ImageFile.LOAD_TRUNCATED_IMAGES = _Strict.before
