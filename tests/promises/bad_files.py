"""Bad images, bad lists and bad folders: how each is handled, and proof that none passes silently.

    python tests/promises/bad_files.py

Each kind damages a good set of images, stored on disk as users store theirs. The set is then read as `favor-lab train`
reads it before it trains: listed, shots and test images drawn, each of them decoded and turned into the vision
tower's input. A kind is refused, by an error that names the file and the reason, or it is handled as documented.
Last, `favor-lab train` itself is run on ten bad files. The exit status is 1 if any of this fails. No loader
unpacks an archive: only lists and tables can have paths that leave the folder. Noise in the middle of a JPEG, which no
decoder notices, is not among the kinds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from favor_lab import cli
from favor_lab.activities import few_shot, load_activities
from favor_lab.activities.images import prepare_image
from favor_lab.runs import run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # helpers of the tests, for a run as a script

import trees
from pictures import picture

LABELS = ("fishing", "reading", "running")
HUB = "har15 of the Hub"
BAD = "train/reading/bad"  # of the folder: it replaces one of two training images of its label


@dataclass(frozen=True)
class Found:
    """The result for a set: the images as the tower gets them, by file name, and the messages; or the error."""

    images: dict[str, Image.Image] = field(default_factory=dict)
    messages: str = ""
    error: str = ""

    def pixel(self, x: int = 0, y: int = 0) -> tuple[int, ...]:
        (image,) = (image for source, image in self.images.items() if BAD in Path(source).as_posix())
        return image.getpixel((x, y))


@dataclass(frozen=True)
class Kind:
    """How a set is damaged, and the required result: parts of the error, or a property of the images read."""

    name: str
    spoil: Callable[[Path], object]
    refused: tuple[str, ...] = ()
    handled: Callable[[Found], bool] | None = None
    means: str = ""  # in words, for kinds that are handled
    data: str = "folder"


def good_folder(root: Path) -> Path:
    """Two training and two test images of three labels."""
    for number, (split, label, name) in enumerate(
        (split, label, name) for split in ("train", "test") for label in LABELS for name in ("a", "bad")
    ):
        if not (split == "train" and label == "reading" and name == "bad"):
            picture(root / split / label / f"{name}.png", number, size=(40, 30))
    return root


SETS = {
    "folder": good_folder,
    "har15": lambda root: trees.har15_kaggle(root),
    "ucf101": lambda root: trees.ucf101(root),
    "stanford40": lambda root: trees.stanford40(root),
    "stanford40 by its boxes": lambda root: trees.stanford40(root),
    "ppmi": lambda root: trees.ppmi(root),
    HUB: lambda root: trees.har15_hub(root),
}


def read_as_training_does(data: str, root: Path) -> Found:
    """List, draw, decode and convert; the result includes errors and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            crop = 0.1 if "boxes" in data else None
            shots = few_shot(load_activities(data.split()[0], root, person_crop=crop), shots=2, validation=0, test=2)
        except (ValueError, OSError) as error:
            return Found(messages=warned(caught), error=str(error))
        # No error may occur after this point: a policy would already have been loaded.
        images = {example.source: prepare_image(example) for example in [*shots.train, *shots.test]}
    return Found(images, warned(caught))


def warned(caught: list[warnings.WarningMessage]) -> str:
    return "\n".join(str(warning.message) for warning in caught)


# ------------------------------------------------------------------------------------------------------------ spoiling


def encoded(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or Image.effect_noise((60, 50), 90).convert("RGB")).save(file, form, **options)
    return file.getvalue()


def half(form: str) -> bytes:
    whole = encoded(form)
    return whole[: len(whole) // 2]


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header declares this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def half_of_the_rows() -> bytes:
    """A PNG whose compressed data end early, all checksums right."""
    whole = png_that_says(40, 40)
    rows = b"".join(b"\0" + bytes(120) for _ in range(20))
    body = b"IDAT" + zlib.compress(rows)
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    return whole[:start] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + whole[end:]


def bad(suffix: str, content: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda root: trees.write(root / f"{BAD}{suffix}", content() if callable(content) else content)


def palette() -> bytes:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    return encoded("PNG", image, transparency=1)  # colour 1, all of it, is transparent


def sixteen_bits() -> bytes:
    ramp = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    return encoded("PNG", Image.fromarray(ramp))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees, clockwise
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 40, 10))  # red at the top, which is on the right after the rotation
    return encoded("PNG", image, exif=exif)


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    return encoded(form, frames[0], save_all=True, append_images=frames[1:], lossless=True)


def link(target: str) -> Callable[[Path], object]:
    return lambda root: (root / f"{BAD}.png").symlink_to(root / target)


def bytes_in_name(root: Path) -> None:
    folder = os.fsencode(root / "train" / "reading")
    Path(os.fsdecode(folder + b"/caf\xe9.png")).write_bytes(encoded("PNG"))


def no_permission(root: Path) -> None:
    """A file without read permission or, since root may read all, one that fails when it is read."""
    path = trees.write(root / f"{BAD}.png", encoded("PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        path.symlink_to("/proc/self/mem")


def same_as_a_test_image(name: str, again: str = "") -> Callable[[Path], object]:
    """Once more among the training images; again: in a file of its own, in this mode."""

    def spoil(root: Path) -> None:
        twin, form = (root / "test/reading/a.png").read_bytes(), Path(name).suffix[1:]
        trees.write(
            root / f"train/reading/{name}",
            encoded(form, Image.open(io.BytesIO(twin)).convert(again)) if again else twin,
        )

    return spoil


def grey_twins(root: Path) -> None:
    """A grey test image, and in 16 bits for 8 among the training images."""
    with Image.open(root / "test/reading/a.png") as image:
        grey = image.convert("L")
    grey.save(root / "test/reading/a.png")
    trees.write(root / f"{BAD}.png", encoded("PNG", Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)))


def flipped(form: str, place: float | bytes) -> bytes:
    """An image with one wrong bit: at a share of its bytes, or in a text that it has."""
    text = PngImagePlugin.PngInfo()
    text.add_text("title", "a photograph")
    content = bytearray(encoded(form, pnginfo=text))
    content[content.index(place) if isinstance(place, bytes) else int(place * len(content))] ^= 1
    return bytes(content)


def careless(content: Callable[[], bytes]) -> Callable[[Path], object]:
    """Written as bad.img, and read while Pillow's global flag is set; the flag is what it was when that is over."""

    def spoil(root: Path) -> None:
        trees.write(root / f"{BAD}.png", content()).rename(root / f"{BAD}.img.png")
        ImageFile.LOAD_TRUNCATED_IMAGES = True

    return spoil


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times more."""
    whole = encoded("JPEG", Image.new("L", (2000, 2000), 128), progressive=True)
    return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * count + whole[-2:]


def chunks(count: int) -> bytes:
    """A PNG with `count` chunks that nobody knows."""
    whole = encoded("PNG")
    return whole[:33] + (b"\0\0\0\0prVt" + struct.pack(">I", zlib.crc32(b"prVt"))) * count + whole[33:]


def rename(old: str, new: str) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        trees.write(root / f"{BAD}.png", encoded("PNG"))
        for split in ("train", "test"):
            (root / split / old).rename(root / split / new)

    return spoil


def beside(*names: str) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        trees.write(root / f"{BAD}.png", encoded("PNG"))
        for name in names:
            trees.write(root / "train/reading" / name, b"\x00\x05\x16\x07 no image")

    return spoil


def line(file: str, *lines: str, first: str | None = None) -> Callable[[Path], object]:
    """More lines at the end of a list, or another first line."""
    return lambda root: trees.edit_lines(
        root / file, lambda old: [old[0] if first is None else first, *old[1:], *lines]
    )


def label_twice(root: Path) -> None:
    """Every row has two labels, of which the first is another one."""
    trees.edit_lines(root / CSV, lambda old: [f"{old[0]},label", *(row.replace(",", ",texting,") for row in old[1:])])


def recoded(file: str, encoding: str) -> Callable[[Path], object]:
    return lambda root: trees.write(root / file, (root / file).read_text().encode(encoding))


def split_with(*rows: list[object]) -> Callable[[Path], object]:
    return lambda root: trees.edit_split(root, lambda table: table["train"].extend(rows))


def bad_folders(root: Path) -> None:
    """Five of them, and a name that is not UTF-8."""
    for name in ("fighting", "jumping"):
        (root / "train" / name).mkdir()
    for number, name in enumerate(("Reading_", "--", "RUNNING")):
        picture(root / "train" / name / "a.png", 90 + number)
    bytes_in_name(root)


def many(count: int) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        picture(root / f"{BAD}.png", 99)
        for k in range(count):
            trees.write(root / ("train", "test")[k % 2] / f"label {k // 4:02d}" / f"{k}.png", b"")

    return spoil


def ten_at_once(root: Path) -> None:
    for k, label in enumerate(LABELS):
        for name in ("a", "bad"):
            for split in ("train", "test"):
                if (split, label, name) not in {("train", LABELS[0], "a"), ("test", LABELS[0], "a")}:
                    (root / split / label / f"{name}.png").unlink(missing_ok=True)
                    trees.write(root / split / label / f"{name}.jpg", (b"", b"<html>", half("JPEG"))[k])


def broken_rows(root: Path) -> None:
    blobs = [trees.photo(root / f"photos/{k}.jpg").read_bytes() for k in range(15)]
    trees.parquet(root / "data/train-00000-of-00001.parquet", [*blobs, *[b"no image"] * 9], [0, 9, 14] * 8)


def cells(*images: object) -> Callable[[Path], object]:
    """A parquet file whose image cells are these, with the other labels in turn."""

    def spoil(root: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        whole = [{"bytes": trees.photo(root / f"photos/{k}.jpg").read_bytes(), "path": ""} for k in range(6)]
        table = pyarrow.table({"image": [*whole, *images], "labels": [0] * (len(whole) + len(images))})
        pyarrow.parquet.write_table(table, root / PARQUET)

    return spoil


def near(pixel: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 8 for a, b in zip(pixel, expected, strict=True))


WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)
CSV, SPLIT, LIST = "Training_set.csv", "split_zhou_UCF101.json", "ImageSplits/train.txt"
PARQUET = "data/train-00000-of-00001.parquet"
VIOLIN = "norm_image/play_instrument/violin/train"
ENTITIES = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;">]><annotation><object>&c;</object></annotation>'
KINDS = [
    Kind("a truncated JPEG", bad(".jpg", lambda: half("JPEG")), ("bad.jpg", "truncated")),
    Kind("a truncated PNG", bad(".png", lambda: half("PNG")), ("bad.png", "truncated")),
    Kind("a PNG with half of its rows", bad(".png", half_of_the_rows), ("bad.png", "cut off")),
    Kind("a PNG with one wrong bit in its pixels", bad(".png", lambda: flipped("PNG", 0.5)),
         ("bad.png", "the checksum of its chunk 'IDAT' is wrong")),
    Kind("a PNG with one wrong bit in its metadata", bad(".png", lambda: flipped("PNG", b"a photograph")),
         ("bad.png", "the checksum of its chunk 'tEXt' is wrong")),
    Kind("a JPEG that ends, with its mark, half way", bad(".jpg", lambda: half("JPEG") + b"\xff\xd9"),
         ("bad.jpg", "cut off")),
    *(Kind(f"half of a {form}, where other code lets truncated files pass", careless(lambda form=form: half(form)),
           ("bad.img", "cannot be read as an image")) for form in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")),
    Kind("a file that is larger than memory", lambda root: os.truncate(bad(".png", b"")(root), 30 * 10**9),
         ("bad.png", "it has 30.0 GB")),
    Kind("a JPEG of a thousand scans", bad(".jpg", lambda: scans(1000)), ("bad.jpg", "scans of 2000 x 2000 pixels")),
    Kind("a PNG of 200 000 chunks", bad(".png", lambda: chunks(200_000)), ("bad.png", "more than 100000 chunks")),
    Kind("no bytes", bad(".jpg", b""), ("bad.jpg", "empty (0 bytes)")),
    Kind("a page of text called .jpg", bad(".jpg", b"<html>404</html>"), ("bad.jpg", "it is none of JPEG")),
    Kind(
        "the pointer that Git LFS leaves", bad(".png", b"version https://git-lfs.github.com/spec/v1\nsize 9"),
        ("bad.png", "git lfs pull"),
    ),
    Kind("PostScript called .jpg", bad(".jpg", lambda: encoded("EPS")), ("bad.jpg", "it is none of JPEG")),
    Kind("EXIF data that cannot be read", bad(".jpg", lambda: encoded("JPEG", exif=b"Exif\0\0spoilt")),
         ("bad.jpg", "EXIF")),
    Kind("values that are not finite", bad(".tif", lambda: encoded("TIFF", Image.new("F", (9, 9), float("nan")))),
         ("bad.tif", "not finite")),
    Kind("a decompression bomb that Pillow lets pass",
         bad(".png", lambda: encoded("PNG", Image.new("1", (12000, 12000)))),
         ("bad.png", "12000 x 12000")),
    Kind("a decompression bomb", bad(".png", png_that_says(60000, 60000)), ("bad.png", "decompression bomb")),
    Kind("20 000 x 3", bad(".png", lambda: encoded("PNG", Image.new("L", (20000, 3)))), ("bad.png", "20000 x 3")),
    Kind("a file that cannot be read", no_permission, ("bad.png: cannot be read",)),
    Kind("a pipe called .png", lambda root: os.mkfifo(root / f"{BAD}.png"), ("bad.png", "a pipe")),
    Kind("a bad file whose name has escape codes", bad("\n\x1b[2J\u202e.png", b""),
         ("bad\\n\\x1b[2J\\u202e.png: cannot be read",)),
    Kind("a name that is not UTF-8", bytes_in_name, ("caf\\udce9.png", "not UTF-8")),
    Kind("a test image among the training images", same_as_a_test_image("bad.png"), ("bad.png", "a.png", "same")),
    Kind("the same, in another format", same_as_a_test_image("bad.bmp", again="RGB"), ("bad.bmp", "a.png", "same")),
    Kind("an image under two labels", lambda root: trees.write(
        root / f"{BAD}.png", (root / "train/running/a.png").read_bytes()),
         ("bad.png", "running/a.png", "same image under two labels")),
    Kind("the same, with a channel that hides nothing", same_as_a_test_image("bad.png", again="RGBA"),
         ("bad.png", "a.png", "same")),
    Kind("the same, in 16 bits", grey_twins, ("bad.png", "a.png", "same")),
    Kind("a symbolic link in a circle", link(f"{BAD}.png"), ("bad.png", "a link that leads nowhere or in a circle")),
    Kind("a symbolic link to nowhere", link("gone.png"), ("bad.png", "a link that leads nowhere or in a circle")),
    Kind("a folder that leads back into itself", lambda root: (root / "train/deeper").symlink_to(root / "train"),
         ("'deeper'", "no images")),
    Kind("a folder called .png", lambda root: (root / f"{BAD}.png").mkdir(), ("bad.png", "it is a folder")),
    Kind("a label without images", lambda root: (root / "train/fighting").mkdir(), ("'fighting'", "no images")),
    Kind("two labels that read as one", rename("running", "Reading_"), ("'Reading_'", "'reading'", "one label")),
    Kind("a label of signs alone", rename("running", "_-_"), ("'_-_'", "neither a letter")),
    Kind("bad names of folders and files", bad_folders, ("6 faults", "'fighting'", "'jumping'", "'Reading_'", "'--'",
                                                         "'RUNNING'", "caf\\udce9.png")),
    Kind("ten bad files", ten_at_once,
         ("10 faults", *(f"{label}/{name}.jpg" for label in LABELS[1:] for name in ("a", "bad")))),
    Kind("24 bad files", many(24), ("24 faults in 36 images", "... and 4 more")),
    Kind("a PNG called .jpg", bad(".jpg", lambda: encoded("PNG", Image.new("RGB", (9, 9), RED))),
         handled=lambda result: result.pixel() == RED, means="read by its content"),
    Kind("a suffix in capitals", bad(".PNG", lambda: encoded("PNG", Image.new("RGB", (9, 9), RED))),
         handled=lambda result: result.pixel() == RED, means="read"),
    Kind("CMYK", bad(".jpg", lambda: encoded("JPEG", Image.new("CMYK", (20, 20), (0, 255, 255, 0)))),
         handled=lambda result: near(result.pixel(), RED), means="turned into RGB"),
    Kind("a palette with transparency", bad(".png", palette),
         handled=lambda result: result.pixel() == WHITE, means="laid on white"),
    Kind("half-transparent", bad(".png", lambda: encoded("PNG", Image.new("RGBA", (9, 9), (255, 0, 0, 128)))),
         handled=lambda result: near(result.pixel(), (255, 127, 127)), means="laid on white"),
    Kind("grey and half-transparent", bad(".png", lambda: encoded("PNG", Image.new("LA", (9, 9), (0, 128)))),
         handled=lambda result: near(result.pixel(), (127, 127, 127)), means="laid on white"),
    Kind("two pictures in a JPEG, as phones write", bad(".jpg", lambda: animated("MPO")),
         handled=lambda result: near(result.pixel(), RED), means="the first one"),
    Kind("16 bits", bad(".png", sixteen_bits), means="scaled to 8 bits",
         handled=lambda result: near(result.pixel(), (0, 0, 0)) and near(result.pixel(x=20, y=15), (132, 132, 132))
         and near(result.pixel(x=39, y=29), WHITE)),
    Kind("one bit", bad(".png", lambda: encoded("PNG", Image.new("1", (9, 9), 1))),
         handled=lambda result: result.pixel() == WHITE, means="black and white"),
    Kind("an animated GIF", bad(".gif", lambda: animated("GIF")),
         handled=lambda result: near(result.pixel(), RED), means="its first frame"),
    Kind("an animated WebP", bad(".webp", lambda: animated("WEBP")),
         handled=lambda result: near(result.pixel(), RED), means="its first frame"),
    Kind("turned by EXIF", bad(".png", turned), means="turned upright",
         handled=lambda result: (result.pixel(x=19, y=5), result.pixel(x=0, y=5)) == (RED, BLUE)),
    Kind("1 x 1", bad(".png", lambda: encoded("PNG", Image.new("RGB", (1, 1), RED))),
         handled=lambda result: result.pixel() == RED, means="read, enlarged by the processor"),
    Kind("a name with a line break and markup", bad("<b>\n&amp;.png", lambda: encoded("PNG")),
         handled=lambda result: len(result.images) == 12, means="read; reports escape it"),
    Kind("what systems leave behind", beside(".DS_Store", "._a.png", ".hidden.jpg", "Thumbs.db", "desktop.ini"),
         handled=lambda result: len(result.images) == 12 and not result.messages, means="left out"),
    Kind("files that are no images", beside("b.avif", "notes.txt"), means="left out, in one warning",
         handled=lambda result: len(result.images) == 12
         and all(name in result.messages for name in ("b.avif", "notes.txt", "AVIF: `magick"))),
    Kind("a CSV without a column", line(CSV, first="filename,class"), (CSV, "line 1", "column label"), data="har15"),
    Kind("a CSV with a column twice", label_twice, (CSV, "line 1", "twice"), data="har15"),
    Kind("a CSV in UTF-8 with a mark", recoded(CSV, "utf-8-sig"), means="read", data="har15",
         handled=lambda result: len(result.images) == 12),
    Kind("a CSV in Latin-1", lambda root: trees.write(root / CSV, (root / CSV).read_bytes() + b"caf\xe9.jpg,calling"),
         (f"{CSV} line 26", "UTF-8"), data="har15"),
    Kind("a CSV in UTF-16", recoded(CSV, "utf-16"), (CSV, "UTF-8"), data="har15"),
    Kind("a CSV of torn rows", line(CSV, "Image_7.jpg", "a.jpg,calling,x"), ("line 26", "line 27"), data="har15"),
    Kind("a CSV that lists what is not there", line(CSV, "Image_99.jpg,calling"), ("Image_99.jpg", "no such file"),
         data="har15"),
    Kind("a CSV that climbs out", line(CSV, "../../secret.jpg,calling"), ("secret.jpg", "no path of the form"),
         data="har15"),
    Kind("a CSV with an absolute path", line(CSV, "/etc/secret.jpg,calling"), ("secret.jpg", "no path of the form"),
         data="har15"),
    Kind("a CSV of ten bad rows", line(CSV, *(f"Image_{k}.jpg,calling" for k in range(90, 100))),
         ("10 faults", *(f"Image_{k}.jpg" for k in range(90, 100))), data="har15"),
    Kind("a CSV with an image twice", line(CSV, "Image_1.jpg,calling"), ("Image_1.jpg", "listed again"), data="har15"),
    Kind("a set that is still packed", lambda root: ((root / CSV).unlink(), trees.write(root / "archive.zip", b"PK")),
         (CSV, "unpack archive.zip first"), data="har15"),
    Kind("a JSON split that breaks off", lambda root: trees.write(root / SPLIT, b'{"train": [["a'), (SPLIT,),
         data="ucf101"),
    Kind("a JSON split of another shape", lambda root: trees.write(root / SPLIT, json.dumps({"train": {"a": 1}})),
         (SPLIT,), data="ucf101"),
    Kind("a JSON split with a list twice",
         lambda root: trees.write(root / SPLIT, '{"train": [],' + (root / SPLIT).read_text()[1:]),
         (SPLIT, "'train' is there twice"), data="ucf101"),
    Kind("a JSON split of 100 000 brackets", lambda root: trees.write(root / SPLIT, "[" * 100_000),
         (SPLIT, "no JSON"), data="ucf101"),
    Kind("a JSON split of ten bad entries", split_with(*([f"Diving/{k}.jpg", 25, "Diving"] for k in range(10))),
         ("10 faults", *(f"Diving/{k}.jpg" for k in range(10))), data="ucf101"),
    Kind("a JSON split that climbs out", split_with(["../../secret.jpg", 21, "Cliff_Diving"]), ("secret.jpg",),
         data="ucf101"),
    Kind("a JSON split with an absolute path", split_with(["/etc/passwd.jpg", 21, "Cliff_Diving"]), ("passwd.jpg",),
         data="ucf101"),
    Kind("a JSON split with a test image in train",
         lambda root: trees.edit_split(root, lambda table: table["train"].append(table["test"][0])),
         ("listed",), data="ucf101"),
    Kind("a list of images that climbs out", line(LIST, "../secret_001.jpg"), ("secret_001.jpg", "no path of the form"),
         data="stanford40"),
    Kind("a list with a test image in train", line(LIST, "reading_003.jpg"), ("reading_003.jpg is listed in test",),
         data="stanford40"),
    Kind("an annotation with entities", lambda root: trees.write(root / "XMLAnnotations/reading_001.xml", ENTITIES),
         ("reading_001.xml", "entities are not read"), data="stanford40 by its boxes"),
    Kind("a broken link in a set without lists", lambda root: (root / VIOLIN / "bad.jpg").symlink_to("gone"),
         (f"{VIOLIN}/bad.jpg", "a link that leads nowhere"), data="ppmi"),
    Kind("no image in a set without lists", lambda root: trees.write(root / VIOLIN / "bad.avif", b"x"),
         handled=lambda result: f"{VIOLIN}/bad.avif" in result.messages and bool(result.images), data="ppmi",
         means="left out, in one warning"),
    Kind("parquet rows that are no images", broken_rows, (f"{PARQUET}#", "it is none of JPEG"), data=HUB),
    Kind("parquet rows that point to files", cells(*[{"bytes": None, "path": "/etc/passwd"}] * 6),
         (f"{PARQUET}#", "the row holds no image"), data=HUB),
    Kind("parquet rows without a label", lambda root: trees.parquet(root / PARQUET, [b"x"] * 4, [0, None, 99, -1]),
         (f"{PARQUET} row 1", f"{PARQUET} row 2", f"{PARQUET} row 3"), data=HUB),
    Kind("a parquet file that breaks off",
         lambda root: trees.write(root / PARQUET, (root / PARQUET).read_bytes()[:900]),
         (PARQUET, "cannot be read as parquet"), data=HUB),
]  # fmt: skip


def trial(kind: Kind, root: Path) -> tuple[bool, str]:
    """Whether a kind is handled as required, and the result in one line: warnings, then the error."""
    SETS[kind.data](root)
    try:
        kind.spoil(root)
        result = read_as_training_does(kind.data, root)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    message = f"{result.error} (warned: {result.messages})" if result.messages else result.error
    message = re.sub(r" in ROOT|ROOT: |ROOT/| \(`favor-lab data.*?`[^)]*\)", "", message.replace(str(root), "ROOT"))
    line = " ".join(message.split())
    if kind.handled is None:
        named = all(part in result.error for part in kind.refused)
        return bool(result.error) and named, line or "PASSED SILENTLY"
    return not result.error and kind.handled(result), line or f"{len(result.images)} images read"


def met_by_a_run(root: Path) -> tuple[bool, str]:
    """Whether `favor-lab train` names ten bad files at once and stops before it loads a policy, and what it says."""
    ten_at_once(good_folder(root / "images"))
    arguments = ["train", "--data", "folder", "--root", str(root / "images"), "--shots", "2", "--test", "2"]
    loaded, output, load = [], io.StringIO(), run.open_policy
    run.open_policy = lambda *_: loaded.append(True) or sys.exit("a policy was loaded")
    try:
        with contextlib.redirect_stderr(output):
            status = cli.main([*arguments, "--out", str(root / "run")])
    finally:
        run.open_policy = load
    named = output.getvalue().count("cannot be read as an image")
    return (status, named, loaded) == (2, 10, []), f"{named} of 10 files named, no policy loaded"


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    met = 0
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            good, came = trial(kind, Path(folder))
        met += good
        must = f"handled: {kind.means}" if kind.handled else "refused"
        print(f"{'ok' if good else 'WRONG':<6}{kind.name:<44}{must:<42}{came[:110]}")
    with tempfile.TemporaryDirectory() as folder:
        good, came = met_by_a_run(Path(folder))
    print(f"{'ok' if good else 'WRONG':<6}{'favor-lab train with ten bad files':<44}{'refused':<42}{came}")
    print(f"{met} of {len(KINDS)} kinds named or handled")
    return int(met != len(KINDS) or not good)


if __name__ == "__main__":
    sys.exit(main())
