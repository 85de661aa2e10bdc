"""Where labelled images come from: the four drawn sets, the public sets, and anybody's folder sorted by label.

Nothing is read or drawn before it is asked for: an `ActivityData` lists `Record`s, and `read` opens one. The layouts
of the public sets are in `public`, what is known of them in `catalogue`.
"""

from __future__ import annotations

import json
import math
import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from . import pocket
from .catalogue import PUBLIC, fold
from .faults import Fault, all_at_once, shown, utf8
from .fewshot import Example

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the stored image

# Scenes per label that each split of a pocket set offers. A scene costs nothing until it is drawn.
POCKET_POOLS = {"train": 256, "validation": 64, "test": 256}

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # no other decoder is run, whatever a file claims to be
MAX_ASPECT_RATIO = 200  # as in Qwen2-VL's own resizing
# The names that a split's folder may have.
FOLDER_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
# Files that belong beside images and are no images.
COMPANIONS = {
    "metadata.csv", "metadata.jsonl", "truth.jsonl", "readme.md", "readme.txt", "license", "thumbs.db", "desktop.ini",
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """An image that is not read yet: its label, its path or generator key, and the part of it that is meant.

    source  a path, "path.parquet#row", or a generator key
    box     left, top, right, bottom in pixels of the image as it is stored; None: all of it
    """

    label: str
    source: str
    box: Box | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ActivityData:
    """Labelled images by split; "train" is always there, "validation" and "test" where the data has them.

    name     the set's name, or the folder's path
    labels   all labels, in a fixed order
    splits   split name -> records, in a fixed order
    open     source -> image, fully loaded (source, box -> that part of it, for records with a box);
             raises ValueError with the source for an image that cannot be used
    folders  label -> the name that the data itself has for it ("riding a bike" -> "riding_a_bike", a folder's name
             or a public set's class name); empty for drawn sets
    """

    name: str
    labels: list[str]
    splits: dict[str, list[Record]]
    open: Callable[..., Image.Image]
    folders: dict[str, str] = field(default_factory=dict)

    def read(self, record: Record) -> Example:
        """The record's image, fully read. Raises ValueError with the source when that is impossible."""
        image = self.open(record.source) if record.box is None else self.open(record.source, record.box)
        return Example(image, record.label, record.source)

    def original(self, label: str) -> str:
        """The name that the data itself has for a label. Raises ValueError for what is no label."""
        if label not in self.labels:
            raise ValueError(f"{self.name} has no label {label!r}; its labels are {', '.join(self.labels)}")
        return self.folders.get(label, label)

    def label_of(self, name: str) -> str:
        """The label for one of the data's own names, or for a label in other case or punctuation; never for a part.

        Raises ValueError for an unknown name and for one that could be two labels.

        >>> load_activities("cartoon").label_of("Riding_a_Bike")
        'riding a bike'
        """
        found = {label for label in self.labels if fold(name) in {fold(label), fold(self.folders.get(label, label))}}
        if len(found) != 1:
            what = f"could be {' or '.join(map(repr, sorted(found)))}" if found else "is none of its names"
            raise ValueError(f"{self.name}: {name!r} {what}; its labels are {', '.join(self.labels)}")
        return found.pop()


def load_activities(
    name: str,
    root: str | Path | None = None,
    *,
    person_crop: float | None = None,
    carve_seed: int = 0,
    exclude: Collection[str] = (),
) -> ActivityData:
    """The labelled data called `name`: a pocket set, a public set under `root`, or "folder", any images under `root`.

    A folder is `<root>/<label>/<image>` or `<root>/{train,validation,test}/<label>/<image>`; suffixes in any
    case, hidden files left out. A label is its folder's name with spaces for underscores; `folders` of the
    result maps it back. Files with another suffix and what lies deeper are named in one warning. What has an image's
    suffix is an image: a broken link, a folder or a pipe of such a name is refused when it is read.

    The public sets are "stanford40", "har15", "ucf101" and "ppmi", in the layouts that `catalogue` describes; nothing
    is ever downloaded. For them:

    person_crop  stanford40: crop to the annotated person, widened on each side by this share of the box's width and
                 height and clipped to the image; None: the whole image
    carve_seed   decides which images of "train" become the test set where there is no official one (har15)
    exclude      images to leave out, by their paths relative to `root`, as `favor-lab data` names them

    Raises ValueError (unknown name; everything in the folder's layout, lists, names and labels that training would trip
    over, at once: labels without images, folders that read as one label, paths that climb out ...), FileNotFoundError
    or NotADirectoryError. What is wrong with images themselves `few_shot` says, again at once, of those that it draws;
    `favor-lab data NAME --root ROOT` says it of all.

    >>> load_activities("cartoon").splits["test"][9]
    Record(label='riding a bike', source='cartoon/test/000009')
    """
    valid = (*pocket.SETS, *PUBLIC, "folder")
    if name not in valid:
        raise ValueError(f"unknown set {name!r}; valid names: {', '.join(valid)}")
    if person_crop is not None and name != "stanford40":
        raise ValueError(f"{name!r} has no person boxes, so person_crop must be None; 'stanford40' has them")
    if person_crop is not None and not 0 <= person_crop < math.inf:
        raise ValueError(f"person_crop is a share of the box's size and must be at least 0, not {person_crop}")
    if name in pocket.SETS:
        if root is not None or exclude:
            raise ValueError(f"{name!r} is drawn and takes no root and no exclude; images on disk are the set 'folder'")
        return _load_pocket(name)
    if root is None:
        where = f"see `favor-lab data {name}`" if name in PUBLIC else "the directory of <label>/<image> or train/..."
        raise ValueError(f"{name!r} needs root, the folder that it lies in: {where}")
    if name in PUBLIC:
        from .public import load_public

        return load_public(name, Path(root), person_crop, carve_seed, exclude)
    return _load_folder(Path(root), exclude)


def _load_pocket(name: str) -> ActivityData:
    labels = list(pocket.ACTIVITIES)
    splits = {
        split: [Record(labels[i % len(labels)], f"{name}/{split}/{i:06d}") for i in range(pool * len(labels))]
        for split, pool in POCKET_POOLS.items()
    }
    return ActivityData(name, labels, splits, open=lambda source: pocket.scene_from_source(source).image)


def _load_folder(root: Path, exclude: Collection[str] = ()) -> ActivityData:
    data, unused, faults = read_folder(root, exclude)
    if faults:
        raise ValueError(all_at_once(str(root), faults, f" (`favor-lab data folder --root {root}` lists all)"))
    if unused:
        warnings.warn(f"{root}: {len(unused)} not used (no image, or not in <label>/): {some(unused)}", stacklevel=3)
    return data


def read_folder(root: Path, exclude: Collection[str] = ()) -> tuple[ActivityData, list[str], list[Fault]]:
    """The images sorted by label under `root` without those in `exclude`; what lies there and is not used; and what is
    wrong with layout, names and labels. No image is opened.

    Raises ValueError for an `exclude` that names no image, FileNotFoundError or NotADirectoryError for the root.
    """
    check_root(root)
    files: dict[str, dict[str, list[Path]]] = {}  # split -> folder name -> images
    unused: list[Path] = []
    for split, branch in _split_folders(root, unused):
        images = files.setdefault(split, {})
        for folder in _visible(branch):
            if folder.is_dir():
                images.setdefault(folder.name, []).extend(_images(folder, unused))
            else:
                unused.append(folder)
    names = {path: path.relative_to(root).as_posix() for i in files.values() for paths in i.values() for path in paths}
    exclude = {shown(path) for path in exclude}
    check_exclude(str(root), exclude, set(map(shown, names.values())))
    files = {
        split: {folder: [p for p in paths if shown(names[p]) not in exclude] for folder, paths in i.items()}
        for split, i in files.items()
    }
    left = [shown(path.relative_to(root).as_posix()) for path in unused if path.name.lower() not in COMPANIONS]
    labels = {folder: " ".join(folder.replace("_", " ").split()) for images in files.values() for folder in images}
    faults = _layout_faults(files, left) + _label_faults(files, labels)
    for name in names.values():
        if not utf8(name) and shown(name) not in exclude:
            faults.append(Fault("name", shown(name), "the name is not UTF-8; rename it", cure=(shown(name),)))
    splits = {
        split: [Record(labels[folder], str(path)) for folder, paths in images.items() for path in paths]
        for split, images in files.items()
    }
    folders = {label: folder for folder, label in sorted(labels.items(), key=lambda pair: (pair[1], pair[0]))}
    return ActivityData(str(root), list(folders), splits, open_image, folders), left, faults


def check_root(root: Path) -> None:
    """FileNotFoundError or NotADirectoryError unless there is a folder at `root`."""
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"not a folder: {root}")


def check_exclude(name: str, exclude: Collection[str], found: Collection[str]) -> None:
    """ValueError that lists what is to be left out and is not there: a typing error must not keep an image in."""
    unknown = sorted(set(exclude) - set(found))
    if unknown:
        raise ValueError(f"{name} has no image {', '.join(map(repr, unknown))} to exclude (paths relative to its root)")


def some(paths: Sequence[str]) -> str:
    """The first five of many paths."""
    return ", ".join([*paths[:5], *["..."] * (len(paths) > 5)])


def _visible(folder: Path) -> list[Path]:
    """The folder's entries by name, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _split_folders(root: Path, unused: list[Path]) -> list[tuple[str, Path]]:
    """(split, folder) for each split's folder; ("train", root) where the labels lie directly under root."""
    named = {path: FOLDER_SPLITS.get(path.name.lower()) for path in _visible(root)}
    # A folder "train" that holds images is a label (the vehicle); one that holds folders is a split.
    found = [
        (split, path)
        for path, split in named.items()
        if split and path.is_dir() and any(child.is_dir() for child in _visible(path))
    ]
    if not found:
        return [("train", root)]
    unused += [path for path in named if path not in {path for _, path in found}]
    return sorted(found, key=lambda pair: list(FOLDER_SPLITS.values()).index(pair[0]))


def _images(folder: Path, unused: list[Path]) -> list[Path]:
    images: list[Path] = []
    for path in _visible(folder):
        (images if path.suffix.lower() in IMAGE_SUFFIXES else unused).append(path)
    return images


def _layout_faults(files: dict[str, dict[str, list[Path]]], unused: Sequence[str]) -> list[Fault]:
    """No images at all, or none to train with."""
    if not any(paths for images in files.values() for paths in images.values()):
        folders = sorted({shown(folder) for images in files.values() for folder in images})
        found = ", ".join(folders) or some(unused) or "nothing"
        return [Fault("layout", ".", f"no images in <label>/<image> or train/<label>/<image>; found: {found}")]
    if "train" not in files:
        return [Fault("layout", ".", f"holds {', '.join(files)} but no train folder")]
    return []


def _label_faults(files: dict[str, dict[str, list[Path]]], labels: dict[str, str]) -> list[Fault]:
    """Folders that cannot be a label, and those that would be one with another."""
    filled = {folder for images in files.values() for folder, paths in images.items() if paths}
    faults = []
    first: dict[str, str] = {}
    for folder in sorted(labels):
        # What an answer may differ in and still be right, two labels must not differ in alone.
        twin = first.setdefault(fold(labels[folder]), folder)
        if filled and folder not in filled:  # all of them empty: a fault of the layout
            faults.append(Fault("label", repr(folder), "no images in this folder; fill or remove it"))
        if not fold(labels[folder]):
            faults.append(Fault("label", repr(folder), "has neither a letter nor a digit; rename it"))
        elif twin != folder:
            faults.append(Fault("label", repr(folder), f"reads as one label with {twin!r}; rename or merge them"))
    return faults


def file_bytes(path: str | Path) -> bytes:
    """The content of a file. OSError where there is none: a folder, a broken link, a pipe (which might never end)."""
    if os.path.islink(path) and not os.path.exists(path):
        raise OSError("it is a link that leads nowhere or in a circle")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"it is a {'folder' if os.path.isdir(path) else 'device or a pipe'}, not a file")
    return Path(path).read_bytes()


def open_image(path: str, box: Box | None = None, margin: float = 0.0) -> Image.Image:
    """The image file at `path`, fully decoded and turned upright by its EXIF data (first frame, any mode).

    Its content says what it is, not its suffix. With a box only that part: widened on each side by `margin` times its
    width and height, clipped to the image.
    Raises ValueError with the path for a file that is missing, empty, truncated, none of `FORMATS`, larger than
    Pillow's `MAX_IMAGE_PIXELS` or too narrow, with EXIF data that cannot be read or pixels that are not finite, and
    for a box that lies outside the image. What a decoder makes up for (noise in the middle of a JPEG) is not found.
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
        try:
            upright = ImageOps.exif_transpose(part)
            upright.getexif()  # of a copy some formats read it anew
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
    """ValueError for an image that is too narrow to be resized as Qwen2-VL does.

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
    """The image in a file's bytes, not decoded yet; whatever goes wrong with it becomes a ValueError with `source`."""
    try:
        if not data:
            raise ValueError("the file is empty (0 bytes)")
        if data.startswith(b"version https://git-lfs"):
            raise ValueError("a Git LFS pointer, not the file itself; `git lfs pull` brings it")
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"{image.width} x {image.height} pixels may be a decompression bomb; make it smaller")
            yield image
    except UnidentifiedImageError as fault:
        raise ValueError(f"{shown(source)}: cannot be read as an image: it is none of {', '.join(FORMATS)}") from fault
    except Exception as fault:  # decoders of broken files raise nearly anything
        raise ValueError(f"{shown(source)}: cannot be read as an image: {fault}") from fault


def pixel_box(box: Box, size: tuple[int, int], margin: float = 0.0) -> tuple[int, int, int, int]:
    """The whole pixels of a box, widened by `margin` times its width and height a side and clipped to (width, height).

    Raises ValueError for a box that has no pixel of the image.

    >>> pixel_box((10, 20, 30.5, 40), size=(100, 42), margin=0.5)
    (0, 10, 41, 42)
    """
    left, top, right, bottom = box
    if not (left < min(right, size[0]) and top < min(bottom, size[1]) and right > 0 and bottom > 0):
        raise ValueError(f"the box {box} lies outside the image of {size[0]} x {size[1]} pixels")
    wide, high = margin * (right - left), margin * (bottom - top)
    return (
        max(0, math.floor(left - wide)),
        max(0, math.floor(top - high)),
        min(size[0], math.ceil(right + wide)),
        min(size[1], math.ceil(bottom + high)),
    )


def export_folder(
    set_name: str, directory: str | Path, splits: Sequence[str] = ("train", "test"), per_label: int = 4
) -> list[Path]:
    """Draws the first `per_label` scenes of each label into `<directory>/<split>/<label>/NNN.png`.

    `load_activities("folder", directory)` and the imagefolder of `datasets` read the result. `truth.jsonl`
    beside the splits has for each file its label, its generator key and the statements that are true of it.
    Returns the images' paths. Raises ValueError for an unknown set or split and for a count that the pool
    does not hold, FileExistsError for a directory that is not empty.
    """
    directory = Path(directory)
    if set_name not in pocket.SETS:
        raise ValueError(f"unknown set {set_name!r}; valid names: {', '.join(pocket.SETS)}")
    for split in splits:
        if split not in POCKET_POOLS:
            raise ValueError(f"unknown split {split!r}; valid names: {', '.join(POCKET_POOLS)}")
        if not 1 <= per_label <= POCKET_POOLS[split]:
            raise ValueError(f"per_label must be 1 to {POCKET_POOLS[split]} for {split}, not {per_label}")
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty; name a new folder or remove what it holds")
    paths, truth = [], []
    labels = len(pocket.ACTIVITIES)
    for split in splits:
        for index, record in enumerate(_load_pocket(set_name).splits[split][: per_label * labels]):
            scene = pocket.scene_from_source(record.source)
            path = directory / split / record.label.replace(" ", "_") / f"{index // labels:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene.image.save(path, optimize=True)
            paths.append(path)
            line = {"file": path.relative_to(directory).as_posix(), "label": record.label}
            truth.append(line | {"source": record.source, "statements": list(scene.truth.statements)})
    lines = "".join(json.dumps(line) + "\n" for line in truth)
    (directory / "truth.jsonl").write_text(lines, encoding="utf-8")
    return paths
