"""One image: read from a file or from bytes, checked, turned upright, made RGB; and the example that it is part of."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from favor_lab.activities.faults import shown

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the stored image

FORMATS = {  # no other decoder is run, whatever a file claims to be; one more, HEIC, where pillow-heif is installed
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "BMP": (".bmp",), "GIF": (".gif",),
    "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
}  # fmt: skip
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
READS_HEIC = importlib.util.find_spec("pillow_heif") is not None
IMAGE_SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
IMAGE_SUFFIXES |= set(HEIC_SUFFIXES) if READS_HEIC else set()
UNREAD_SUFFIXES = {*HEIC_SUFFIXES, ".avif", ".jxl"} - IMAGE_SUFFIXES  # of images that must be converted first
# What is not read: suffixes, the first of which stands for the others -> what it is, and what turns it into images.
_MAGICK = "`magick mogrify -format {to} *{suffix}` converts it"
CONVERSIONS = {
    HEIC_SUFFIXES: "HEIC, as iPhones write it: `pip install 'favor-lab[heic]'` reads it, or "
    + _MAGICK.format(to="jpg", suffix=".heic"),
    (".avif", ".avifs"): "AVIF: " + _MAGICK.format(to="png", suffix=".avif"),
    (".jxl",): "JPEG XL: " + _MAGICK.format(to="png", suffix=".jxl"),
    (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"): "a camera's raw data: "
    + _MAGICK.format(to="jpg", suffix=".dng"),
    (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp"): "a video: `ffmpeg -i FILE -vf "
    "fps=1 FILE_%03d.jpg` takes one image per second (keep the images of one video in one split)",
}
MAX_SCANNED = 2 * 10**9  # pixels in all scans of a progressive JPEG: 22 scans of the largest image; 10 are usual
JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]", re.DOTALL)
ADAM7 = (  # the seven passes of an interlaced PNG: first column and row, steps
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
MAX_ASPECT_RATIO = 200  # as in Qwen2-VL's own resizing
LFS_POINTER = b"version https://git-lfs"  # how a file begins whose content Git LFS has not fetched


@dataclass(frozen=True)
class Example:
    """One image with its label; `source` (a path or a generator key) appears in every error about it."""

    image: Image.Image
    label: str
    source: str


Picture = str | os.PathLike | Image.Image | Example  # what an image can be given as


def as_example(picture: Picture, name: str = "image") -> Example:
    """A picture as an Example without a label: a path is read and is the source; an image in memory has this name."""
    if isinstance(picture, Example):
        return picture
    if isinstance(picture, Image.Image):
        return Example(picture, "", name)
    return Example(open_image(os.fspath(picture)), "", os.fspath(picture))


def file_bytes(path: str | Path) -> bytes:
    """The content of a file. OSError for a folder, a broken link or a pipe (reading one might never end)."""
    if os.path.islink(path) and not os.path.exists(path):
        raise OSError("it is a link that leads nowhere or in a circle")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"it is a {'folder' if os.path.isdir(path) else 'device or a pipe'}, not a file")
    return Path(path).read_bytes()


def is_lfs_pointer(path: str | Path) -> bool:
    """Whether a file is the pointer that Git LFS leaves in its place."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def conversion(name: str) -> str:
    """What a file that is no readable image is by its suffix, and what converts it; empty for another suffix.

    >>> conversion("reading/IMG_1.AVIF")
    'AVIF: `magick mogrify -format png *.avif` converts it'
    """
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return ""
    return next((what for suffixes, what in CONVERSIONS.items() if suffix in suffixes), "")


def _suffix_by_content(data: bytes) -> str:
    """The suffix of a file that is none of `FORMATS` by its first bytes, as far as `CONVERSIONS` knows it, or empty."""
    if (
        data[4:8] == b"ftyp"
    ):  # ISO media: a size, "ftyp", the main brand, a version, and the brands it is compatible with
        end = min(int.from_bytes(data[:4], "big"), 256)
        brands = {data[place : place + 4] for place in (8, *range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return ".avif"
        return ".heic" if brands & {b"mif1", b"msf1"} or any(b[:3] in (b"hei", b"hev") for b in brands) else ".mp4"
    if data[:4] == b"\x1aE\xdf\xa3" or (data[:4], data[8:12]) == (b"RIFF", b"AVI "):
        return ".mkv"
    return ".jxl" if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL " else ""


def open_image(path: str, box: Box | None = None, margin: float = 0.0) -> Image.Image:
    """The image file at `path`, fully decoded and turned upright by its EXIF data (first frame, any mode).

    The content decides the format, not the suffix: JPEG, PNG, BMP, GIF, WebP or TIFF, and HEIC where pillow-heif is
    installed (`pip install 'favor-lab[heic]'`). With a box only that part, widened and clipped as in `pixel_box`.

    Raises ValueError with the path for a file that is missing, empty, truncated, of another format (for HEIC, AVIF,
    JPEG XL and videos with what converts them), larger than Pillow's `MAX_IMAGE_PIXELS` or too narrow, with EXIF data
    that cannot be read or pixels that are not finite, and for a box outside the image. Damage that a decoder hides
    (noise in the middle of a JPEG) is not detected.
    """
    try:
        data = file_bytes(path)
    except OSError as fault:
        raise ValueError(f"{shown(path)}: cannot be read as an image: {fault.strerror or fault}") from fault
    return decode_image(data, path, box, margin)


def decode_image(data: bytes, source: str, box: Box | None = None, margin: float = 0.0) -> Image.Image:
    """As `open_image`, for the bytes of a file; `source` is named in errors."""
    with _opened(data, source) as image:
        part = image if box is None else image.crop(pixel_box(box, image.size, margin))
        check_shape(part.size)
        part.load()
        if image.format == "PNG":
            check_png_rows(data)
        try:
            upright = ImageOps.exif_transpose(part)
            upright.getexif()  # some formats parse the copy's EXIF data again
        except SyntaxError as fault:
            raise ValueError(f"its EXIF data are spoilt ({fault}); save it without them") from fault
        if upright.mode == "F" and not np.isfinite(np.asarray(upright)).all():
            raise ValueError("it has values that are not finite")
        return upright


def image_header(data: bytes, source: str) -> tuple[str, tuple[int, int]]:
    """Format, as Pillow names it, and (width, height) from the header of a file's bytes; errors as `open_image`."""
    with _opened(data, source) as image:
        check_shape(image.size)
        return str(image.format), image.size


def check_shape(size: tuple[int, int]) -> None:
    """ValueError for an image without pixels or too narrow to be resized as Qwen2-VL does.

    >>> check_shape((20000, 3))
    Traceback (most recent call last):
    ...
    ValueError: one side is more than 200 times the other (20000 x 3)
    """
    if min(size) == 0:
        raise ValueError("it has no pixels")
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise ValueError(f"one side is more than {MAX_ASPECT_RATIO} times the other ({size[0]} x {size[1]})")


def _scans(data: bytes) -> list[int]:
    """Where the scans of a JPEG begin. A progressive JPEG of a few bytes may have thousands, each of all pixels."""
    places, place = [], 2
    while (marker := JPEG_MARKER.search(data, place)) and marker[0] != b"\xff\xd9":
        if marker[0] == b"\xff\xda":
            places.append(marker.start())
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # after the segment
    return places


def check_png_rows(data: bytes) -> None:
    """ValueError for a PNG whose compressed data end before its last row, which a decoder leaves black."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    expected = 0
    for left, top, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0  # one byte per row names its filter
    decoder, place, size = zlib.decompressobj(), 8, 0
    with suppress(zlib.error):  # the image's own decoder has said what it cannot read
        while place + 8 <= len(data):
            length, name = struct.unpack(">I4s", data[place : place + 8])
            waiting = data[place + 8 : place + 8 + length] if name == b"IDAT" else b""
            while waiting:
                size += len(decoder.decompress(waiting, 2**20))
                waiting = decoder.unconsumed_tail
            place += 12 + length
    if size < expected:
        raise ValueError(f"it is cut off: {size} of {expected} bytes of its pixels are there")


@contextmanager
def _opened(data: bytes, source: str) -> Iterator[Image.Image]:
    """The image in a file's bytes, not decoded yet; every error about it becomes a ValueError with `source`."""
    try:
        if not data:
            raise ValueError("the file is empty (0 bytes)")
        if data.startswith(LFS_POINTER):
            raise ValueError("a Git LFS pointer, not the file itself; `git lfs pull` brings it")
        foreign = _suffix_by_content(data)
        if what := conversion(f"file{foreign}"):
            raise ValueError(f"it is {what}")
        with Image.open(BytesIO(data), formats=_heic_format() if foreign else list(FORMATS)) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"{image.width} x {image.height} pixels may be a decompression bomb; make it smaller")
            if image.info.get("progressive") and len(scans := _scans(data)) * image.width * image.height > MAX_SCANNED:
                raise ValueError(
                    f"{len(scans)} scans of {image.width} x {image.height} pixels; save it as a usual JPEG"
                )
            yield image
    except UnidentifiedImageError as fault:
        what = "damaged HEIC" if _suffix_by_content(data) else f"none of {', '.join(FORMATS)}"
        raise ValueError(f"{shown(source)}: cannot be read as an image: it is {what}") from fault
    except Exception as fault:  # decoders of broken files raise nearly anything
        raise ValueError(f"{shown(source)}: cannot be read as an image: {fault}") from fault


def _heic_format() -> list[str]:
    """Pillow's name of the format HEIC, after its decoder was registered."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return ["HEIF"]


def pixel_box(box: Box, size: tuple[int, int], margin: float = 0.0) -> tuple[int, int, int, int]:
    """The integer pixel box that covers `box`, widened on each side by `margin` times its width and height and clipped
    to an image of (width, height). Raises ValueError for a box that has no pixel of the image.

    >>> pixel_box((10, 20, 30.5, 40), size=(100, 42), margin=0.5)
    (0, 10, 41, 42)
    """
    left, top, right, bottom = box
    if not (left < min(right, size[0]) and top < min(bottom, size[1]) and right > 0 and bottom > 0):
        raise ValueError(f"the box {box} lies outside the image of {size[0]} x {size[1]} pixels")
    wide, high = margin * (right - left), margin * (bottom - top)
    corner = max(0, math.floor(left - wide)), max(0, math.floor(top - high))
    return *corner, min(size[0], math.ceil(right + wide)), min(size[1], math.ceil(bottom + high))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as upright 8-bit RGB: EXIF rotation applied, transparency composited on white, 16-bit and float
    intensities scaled to 0..255 (float: white is the first of 1, 255, 65535 and the maximum that covers all values).

    >>> to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.new("I;16", (2, 2), 65535)).getpixel((0, 0))
    (255, 255, 255)
    """
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # I;16 and its byte orders, I (32-bit integers), F (float)
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has values that are not finite")
        whites = (65535,) if "16" in image.mode else (255, 65535) if image.mode == "I" else (1, 255, 65535)
        white = next((white for white in whites if values.max() <= white), values.max())
        image = Image.fromarray((values.clip(0) * (255 / white)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def prepare_image(example: Example) -> Image.Image:
    """The example's image as upright RGB, or a ValueError that names its source."""
    try:
        check_shape(example.image.size)
        return to_rgb(example.image)
    except Exception as error:  # PIL's plugins raise many kinds for damaged files
        raise ValueError(f"cannot use the image {example.source}: {error}") from error


def fingerprint(image: Image.Image) -> bytes:
    """A hash that is equal for images of equal size and pixels, in whatever file format they are stored. Greyscale and
    palette images are compared as RGB; images with transparency or more than 8 bits as they are.

    >>> grey = Image.new("L", (2, 2), 9)
    >>> fingerprint(grey) == fingerprint(grey.convert("RGB")), fingerprint(grey) == fingerprint(grey.resize((1, 4)))
    (True, False)
    """
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr") and "transparency" not in image.info:
        image = image.convert("RGB")
    header = repr((image.mode, image.size, image.getpalette())).encode()
    return hashlib.sha256(header + image.tobytes()).digest()
