"""Where labelled images come from: the four drawn sets, and anybody's folder of images sorted by label.

Nothing is read or drawn before it is asked for: an `ActivityData` lists `Record`s, and `read` opens one.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from . import pocket
from .fewshot import Example

# Scenes per label that each split of a pocket set offers. A scene costs nothing until it is drawn.
POCKET_POOLS = {"train": 256, "validation": 64, "test": 256}

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
# The names that a split's folder may have.
FOLDER_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
# Files that belong beside images and are no images.
COMPANIONS = {"metadata.csv", "metadata.jsonl", "truth.jsonl", "readme.md", "readme.txt", "license"}


@dataclass(frozen=True)
class Record:
    """An image that is not read yet: its label, and its path or generator key."""

    label: str
    source: str


@dataclass(frozen=True)
class ActivityData:
    """Labelled images by split; "train" is always there, "validation" and "test" where the data has them.

    name     the set's name, or the folder's path
    labels   all labels, in a fixed order
    splits   split name -> records, in a fixed order
    open     source -> image, fully loaded; raises ValueError with the source for an image that cannot be used
    folders  label -> its folder's name ("riding a bike" -> "riding_a_bike"); empty for drawn sets
    """

    name: str
    labels: list[str]
    splits: dict[str, list[Record]]
    open: Callable[[str], Image.Image]
    folders: dict[str, str] = field(default_factory=dict)

    def read(self, record: Record) -> Example:
        """The record's image, fully read. Raises ValueError with the source when that is impossible."""
        return Example(self.open(record.source), record.label, record.source)


def load_activities(name: str, root: str | Path | None = None) -> ActivityData:
    """The labelled data called `name`: a pocket set, or "folder" for the images sorted by label under `root`.

    A folder is `<root>/<label>/<image>` or `<root>/{train,validation,test}/<label>/<image>`; suffixes in any
    case, hidden files left out. A label is its folder's name with spaces for underscores; `folders` of the
    result maps it back. Files that are no images or lie deeper are named in one warning.

    Raises ValueError (unknown name, no usable layout, a label without images, two folders that read as
    one label), FileNotFoundError or NotADirectoryError.

    >>> load_activities("cartoon").splits["test"][9]
    Record(label='riding a bike', source='cartoon/test/000009')
    """
    if name == "folder":
        if root is None:
            raise ValueError('"folder" needs root, the directory of <label>/<image> or train/<label>/<image>')
        return _load_folder(Path(root))
    if name not in pocket.SETS:
        raise ValueError(f"unknown set {name!r}; valid names: {', '.join((*pocket.SETS, 'folder'))}")
    if root is not None:
        raise ValueError(f"{name!r} is drawn and takes no root; images on disk are the set 'folder'")
    return _load_pocket(name)


def _load_pocket(name: str) -> ActivityData:
    labels = list(pocket.ACTIVITIES)
    splits = {
        split: [Record(labels[i % len(labels)], f"{name}/{split}/{i:06d}") for i in range(pool * len(labels))]
        for split, pool in POCKET_POOLS.items()
    }
    return ActivityData(name, labels, splits, open=lambda source: pocket.scene_from_source(source).image)


def _load_folder(root: Path) -> ActivityData:
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"not a folder: {root}")
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
    shown = ", ".join([str(path.relative_to(root)) for path in unused[:5]] + ["..."] * (len(unused) > 5))
    labels = _readable_labels(root, files, shown)
    if unused:
        warnings.warn(f"{root}: {len(unused)} not used (no image, or not in <label>/): {shown}", stacklevel=3)
    splits = {
        split: [Record(labels[name], str(path)) for name, paths in images.items() for path in paths]
        for split, images in files.items()
    }
    folders = {label: name for name, label in sorted(labels.items(), key=lambda pair: pair[1])}
    return ActivityData(str(root), list(folders), splits, open_image, folders)


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
    first: dict[str, str] = {}
    for name, label in labels.items():
        # What an answer may differ in and still be right, two labels must not differ in alone.
        twin = first.setdefault(re.sub(r"[\s.-]+", " ", label).strip().casefold(), name)
        if twin != name:
            raise ValueError(f"{root}: {twin!r} and {name!r} read as one label; rename or merge them")
    return labels


def open_image(path: str) -> Image.Image:
    """The image file at `path`, fully decoded and turned upright by its EXIF data (first frame, any mode).

    Raises ValueError with the path for a file that is missing, empty, truncated or no image.
    """
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("the file is empty (0 bytes)")
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)  # always a copy, so decoded in full
    except Exception as fault:  # decoders of broken files raise nearly anything
        raise ValueError(f"{path}: cannot be read as an image: {fault}") from fault


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
