"""Where labelled images come from: the four drawn sets, the public sets, and anybody's folder sorted by label.

Nothing is read or drawn before it is asked for: an `ActivityData` lists `Record`s, and `read` opens one. The layouts
of the public sets are in `public`, what is known of them in `catalogue`.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from . import pocket
from .catalogue import PUBLIC, fold
from .fewshot import Example

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the stored image

# Scenes per label that each split of a pocket set offers. A scene costs nothing until it is drawn.
POCKET_POOLS = {"train": 256, "validation": 64, "test": 256}

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
MAX_ASPECT_RATIO = 200  # as in Qwen2-VL's own resizing
# The names that a split's folder may have.
FOLDER_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
# Files that belong beside images and are no images.
COMPANIONS = {"metadata.csv", "metadata.jsonl", "truth.jsonl", "readme.md", "readme.txt", "license"}


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
    result maps it back. Files that are no images or lie deeper are named in one warning.

    The public sets are "stanford40", "har15", "ucf101" and "ppmi", in the layouts that `catalogue` describes; nothing
    is ever downloaded. For them:

    person_crop  stanford40: crop to the annotated person, widened on each side by this share of the box's width and
                 height and clipped to the image; None: the whole image
    carve_seed   decides which images of "train" become the test set where there is no official one (har15)
    exclude      images to leave out, by their paths relative to `root`, as `favor-lab data` names them

    Raises ValueError (unknown name, no usable layout, a label without images, two folders that read as one label;
    for a public set: everything in its lists that training would trip over, at once), FileNotFoundError or
    NotADirectoryError.

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
    data, unused = read_folder(root, exclude)
    if unused:
        shown = _some(root, unused)
        warnings.warn(f"{root}: {len(unused)} not used (no image, or not in <label>/): {shown}", stacklevel=3)
    return data


def read_folder(root: Path, exclude: Collection[str] = ()) -> tuple[ActivityData, list[Path]]:
    """The images sorted by label under `root` without those in `exclude`, and what lies there and is not used.

    Raises as `load_activities` does for "folder".
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
    unused = [path for path in unused if path.name.lower() not in COMPANIONS]
    _refuse_names(root, [path for images in files.values() for paths in images.values() for path in paths])
    found = {path.relative_to(root).as_posix() for images in files.values() for p in images.values() for path in p}
    check_exclude(str(root), exclude, found)
    files = {
        split: {name: [p for p in paths if p.relative_to(root).as_posix() not in exclude] for name, paths in i.items()}
        for split, i in files.items()
    }
    labels = _readable_labels(root, files, _some(root, unused))
    splits = {
        split: [Record(labels[name], str(path)) for name, paths in images.items() for path in paths]
        for split, images in files.items()
    }
    folders = {label: name for name, label in sorted(labels.items(), key=lambda pair: pair[1])}
    return ActivityData(str(root), list(folders), splits, open_image, folders), unused


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


def shown(path: object) -> str:
    """A path that any terminal can print: bytes that are not UTF-8 as backslash escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def utf8(name: str) -> bool:
    """Whether a file's name can be written in UTF-8, as reports and records are."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_names(root: Path, paths: Sequence[Path]) -> None:
    bad = [shown(path.relative_to(root)) for path in paths if not utf8(str(path.relative_to(root)))]
    if bad:
        raise ValueError(f"{root}: names that are not UTF-8, rename them: {', '.join(bad)}")


def _some(root: Path, paths: Sequence[Path]) -> str:
    return ", ".join([shown(path.relative_to(root)) for path in paths[:5]] + ["..."] * (len(paths) > 5))


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
    if "train" not in dict(found):
        raise ValueError(f"{root} holds {', '.join(path.name for _, path in found)} but no train folder")
    unused += [path for path in named if path not in {path for _, path in found}]
    return sorted(found, key=lambda pair: list(FOLDER_SPLITS.values()).index(pair[0]))


def _images(folder: Path, unused: list[Path]) -> list[Path]:
    images: list[Path] = []
    for path in _visible(folder):
        (images if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() else unused).append(path)
    return images


def _readable_labels(root: Path, files: dict[str, dict[str, list[Path]]], shown: str) -> dict[str, str]:
    """Folder name -> label. ValueError where a folder cannot be a label, or two would be one."""
    names = sorted({name for images in files.values() for name in images})
    empty = [name for name in names if not any(images.get(name) for images in files.values())]
    if not names or empty == names:
        found = ", ".join(empty) or shown or "nothing"
        raise ValueError(f"{root}: no images in <label>/<image> or train/<label>/<image>; found: {found}")
    if empty:
        raise ValueError(f"{root}: no images in {', '.join(map(repr, empty))}; fill or remove these folders")
    labels = {name: " ".join(name.replace("_", " ").split()) for name in names}
    if mute := [name for name, label in labels.items() if not fold(label)]:
        raise ValueError(f"{root}: {', '.join(map(repr, mute))} has neither a letter nor a digit: rename it")
    first: dict[str, str] = {}
    for name, label in labels.items():
        # What an answer may differ in and still be right, two labels must not differ in alone.
        twin = first.setdefault(fold(label), name)
        if twin != name:
            raise ValueError(f"{root}: {twin!r} and {name!r} read as one label; rename or merge them")
    return labels


def open_image(path: str, box: Box | None = None, margin: float = 0.0) -> Image.Image:
    """The image file at `path`, fully decoded and turned upright by its EXIF data (first frame, any mode).

    With a box only that part: widened on each side by `margin` times its width and height, clipped to the image.
    Raises ValueError with the path for a file that is missing, empty, truncated or no image, and for a box that lies
    outside the image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read as an image: {fault}") from fault
    return decode_image(data, path, box, margin)


def decode_image(data: bytes, source: str, box: Box | None = None, margin: float = 0.0) -> Image.Image:
    """As `open_image`, for the bytes of a file; `source` is named in errors."""
    with _naming(source, data), Image.open(BytesIO(data)) as image:
        part = image if box is None else image.crop(pixel_box(box, image.size, margin))
        check_shape(part.size)
        return ImageOps.exif_transpose(part)  # always a copy, so decoded in full


def image_header(data: bytes, source: str) -> tuple[str, tuple[int, int]]:
    """Format, as Pillow names it, and (width, height) from the header of a file's bytes; errors as `open_image`."""
    with _naming(source, data), Image.open(BytesIO(data)) as image:
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
def _naming(source: str, data: bytes) -> Iterator[None]:
    """Turns whatever goes wrong with an image file into a ValueError with its source."""
    try:
        if not data:
            raise ValueError("the file is empty (0 bytes)")
        if data.startswith(b"version https://git-lfs"):
            raise ValueError("a Git LFS pointer, not the file itself; `git lfs pull` brings it")
        yield
    except UnidentifiedImageError as fault:
        raise ValueError(f"{source}: cannot be read as an image: no format that Pillow knows") from fault
    except Exception as fault:  # decoders of broken files raise nearly anything
        raise ValueError(f"{source}: cannot be read as an image: {fault}") from fault


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
