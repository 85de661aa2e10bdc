"""One image: read from a file or from bytes, checked, turned upright, made RGB; and the example that it is part of."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from favor_lab.activities.faults import shown
from favor_lab.activities.formats import check_jpeg_rows, check_parts, check_png_rows, check_scans, only_complete_files

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
HELD_PIXELS = 2**19  # of an image that is kept decoded, 1.5 MB; a photograph of 12 megapixels would be 36 MB
ORIENTATION = ExifTags.Base.Orientation
MAX_FILE = 6 * 10**8  # bytes: 16 bits for each colour of as many pixels as an image may have
MAX_ASPECT_RATIO = 200  # as in Qwen2-VL's own resizing
LFS_POINTER = b"version https://git-lfs"  # how a file begins whose content Git LFS has not fetched


@dataclass(frozen=True)
class LargeImage:
    """An image that is not kept decoded: it is read again whenever it is asked for."""

    reader: Callable[[], Image.Image]
    source: str
    size: tuple[int, int]
    content: bytes  # its fingerprint

    def read(self) -> Image.Image:
        """The image. Raises ValueError if it can no longer be read, or has other pixels than when it was read first."""
        image = self.reader()
        if fingerprint(image) != self.content:
            raise ValueError(f"{shown(self.source)}: the image has changed since it was first read")
        return image


class ImageField:
    """The field `image` of an Example: the image that it was given, or what a LargeImage reads anew each time."""

    def __get__(self, example: Example | None, owner: type | None = None) -> Image.Image:
        if example is None:
            raise AttributeError("image")  # of the class: no default
        image = vars(example)["image"]
        return image.read() if isinstance(image, LargeImage) else image

    def __set__(self, example: Example, image: Image.Image | LargeImage) -> None:
        vars(example)["image"] = image


@dataclass(frozen=True)
class Example:
    """One image with its label; `source` (a path or a generator key) appears in every error about it."""

    image: Image.Image
    label: str
    source: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image, which is not read for it."""
        return vars(self)["image"].size

    @property
    def content(self) -> bytes:
        """The fingerprint of the image. Raises ValueError, with the source, for one that cannot be used."""
        image = vars(self)["image"]
        return image.content if isinstance(image, LargeImage) else _digest(prepare_image(self))


Example.image = ImageField()  # type: ignore[assignment]  # for whoever reads it, it is the image in any case
Picture = str | os.PathLike | Image.Image | Example  # what an image can be given as


def read_example(reader: Callable[[], Image.Image], label: str, source: str) -> Example:
    """The example of an image that `reader` reads; one of more than `HELD_PIXELS` is not kept, and is read again."""
    image = reader()
    if image.width * image.height <= HELD_PIXELS:
        return Example(image, label, source)
    large: Any = LargeImage(reader, source, image.size, fingerprint(image))
    return Example(large, label, source)


def as_example(picture: Picture, name: str = "image") -> Example:
    """A picture as an Example without a label: a path is read and is the source; an image in memory has this name."""
    if isinstance(picture, Example):
        return picture
    if isinstance(picture, Image.Image):
        return Example(picture, "", name)
    path = os.fspath(picture)
    return read_example(partial(open_image, path), "", path)


def file_bytes(path: str | Path) -> bytes:
    """The content of a file. OSError as `check_file`, and for a file that is larger than any image, before it is
    read."""
    size = check_file(path)
    if size > MAX_FILE:
        raise OSError(f"it has {size / 1e9:.1f} GB; a file of more than {MAX_FILE / 1e9:.1f} GB is not read")
    with open(path, "rb") as file:
        return file.read(size)


def check_file(path: str | Path) -> int:
    """The size of a file, in bytes. OSError for a folder, a broken link or a pipe (reading one might never end)."""
    if os.path.islink(path) and not os.path.exists(path):
        raise OSError("it is a link that leads nowhere or in a circle")
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(f"it is a {'folder' if os.path.isdir(path) else 'device or a pipe'}, not a file")
    return about.st_size


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
        elif image.format in ("JPEG", "MPO"):
            check_jpeg_rows(data, image)
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
        check_parts(data)
        with (
            only_complete_files(),
            Image.open(BytesIO(data), formats=_heic_format() if foreign else list(FORMATS)) as image,
        ):
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"{image.width} x {image.height} pixels may be a decompression bomb; make it smaller")
            check_scans(data, image.size)
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
    return image if image.mode == "RGB" else image.convert("RGB")  # in any case a new image


def prepare_image(example: Example) -> Image.Image:
    """The example's image as upright RGB, or a ValueError that names its source."""
    try:
        check_shape(example.image.size)
        return to_rgb(example.image)
    except Exception as error:  # PIL's plugins raise many kinds for damaged files
        raise ValueError(f"cannot use the image {example.source}: {error}") from error


def fingerprint(image: Image.Image) -> bytes:
    """A hash that is equal for images that look the same to a policy: of equal size and pixels as upright 8-bit RGB
    (`to_rgb`). File format, compression without loss, metadata, palettes, an alpha channel that hides nothing and 16
    bits for 8 make no difference; a JPEG of the same photograph, another size or another crop does.

    >>> grey = Image.new("L", (2, 2), 9)
    >>> fingerprint(grey) == fingerprint(grey.convert("RGBA")), fingerprint(grey) == fingerprint(grey.resize((1, 4)))
    (True, False)
    """
    plain = image.mode == "RGB" and not image.has_transparency_data and image.getexif().get(ORIENTATION, 1) == 1
    return _digest(image if plain else to_rgb(image))


def _digest(rgb: Image.Image) -> bytes:
    digest = hashlib.sha256(repr((rgb.mode, rgb.size, None)).encode())  # as earlier runs have saved it
    for top in range(0, rgb.height, 256):  # not a copy of all pixels
        digest.update(rgb.crop((0, top, rgb.width, min(top + 256, rgb.height))).tobytes())
    return digest.digest()
