"""Anybody's images in a folder sorted by label, with or without splits. No image is opened here."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from favor_lab.activities.data import SPLITS, ActivityData, Record, label_faults, spaced
from favor_lab.activities.faults import Fault, all_at_once, shown, some, utf8
from favor_lab.activities.images import IMAGE_SUFFIXES, open_image

# Files that belong beside images and are no images.
COMPANIONS = {
    "metadata.csv", "metadata.jsonl", "truth.jsonl", "readme.md", "readme.txt", "license", "thumbs.db", "desktop.ini",
}  # fmt: skip

Files = dict[str, dict[str, list[Path]]]  # split -> folder name -> images


def load_folder(root: Path, exclude: Collection[str] = ()) -> ActivityData:
    """The set "folder" as `load_activities` describes it."""
    data, unused, faults = read_folder(root, exclude)
    if faults:
        raise ValueError(all_at_once(str(root), faults, f" (`favor-lab data folder --root {root}` lists all)"))
    if unused:
        warnings.warn(f"{root}: {len(unused)} not used (no image, or not in <label>/): {some(unused)}", stacklevel=3)
    return data


def read_folder(root: Path, exclude: Collection[str] = ()) -> tuple[ActivityData, list[str], list[Fault]]:
    """The images sorted by label under `root` without those in `exclude`; the entries that are not used; and what is
    wrong with layout, names and labels.

    Raises ValueError for an `exclude` that names no image, FileNotFoundError or NotADirectoryError for the root.
    """
    check_root(root)
    files: Files = {}
    unused: list[Path] = []
    for split, branch in _split_folders(root, unused):
        images = files.setdefault(split, {})
        for folder in _visible(branch):
            if not folder.is_dir():
                unused.append(folder)
                continue
            paths = images.setdefault(folder.name, [])
            for path in _visible(folder):
                (paths if path.suffix.lower() in IMAGE_SUFFIXES else unused).append(path)
    names = {path: path.relative_to(root).as_posix() for i in files.values() for paths in i.values() for path in paths}
    exclude = {shown(path) for path in exclude}
    check_exclude(str(root), exclude, set(map(shown, names.values())))
    files = {
        split: {folder: [p for p in paths if shown(names[p]) not in exclude] for folder, paths in i.items()}
        for split, i in files.items()
    }
    unused_names = [shown(path.relative_to(root).as_posix()) for path in unused if path.name.lower() not in COMPANIONS]
    labels = {folder: spaced(folder) for images in files.values() for folder in images}
    faults = _layout_faults(files, unused_names) + _folder_faults(files, labels)
    for name in names.values():
        if not utf8(name) and shown(name) not in exclude:
            faults.append(Fault("name", shown(name), "the name is not UTF-8; rename it", cure=(shown(name),)))
    splits = {
        split: [Record(labels[folder], str(path)) for folder, paths in images.items() for path in paths]
        for split, images in files.items()
    }
    folders = {label: folder for folder, label in sorted(labels.items(), key=lambda pair: (pair[1], pair[0]))}
    return ActivityData(str(root), list(folders), splits, open_image, folders), unused_names, faults


def check_root(root: Path) -> None:
    """FileNotFoundError or NotADirectoryError unless there is a folder at `root`."""
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"not a folder: {root}")


def check_exclude(name: str, exclude: Collection[str], images: Collection[str]) -> None:
    """ValueError that lists names in `exclude` that are no image: a typing error must not keep an image in."""
    unknown = sorted(set(exclude) - set(images))
    if unknown:
        raise ValueError(f"{name} has no image {', '.join(map(repr, unknown))} to exclude (paths relative to its root)")


def _visible(folder: Path) -> list[Path]:
    """The folder's entries by name, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _split_folders(root: Path, unused: list[Path]) -> list[tuple[str, Path]]:
    """(split, folder) for each split's folder; ("train", root) where the labels lie directly under root."""
    splits = {path: SPLITS.get(path.name.lower()) for path in _visible(root)}
    # A folder "train" that holds images is a label (the vehicle); one that holds folders is a split.
    folders = [
        (split, path)
        for path, split in splits.items()
        if split and path.is_dir() and any(child.is_dir() for child in _visible(path))
    ]
    if not folders:
        return [("train", root)]
    unused += [path for path in splits if path not in {path for _, path in folders}]
    return sorted(folders, key=lambda pair: list(SPLITS.values()).index(pair[0]))


def _layout_faults(files: Files, unused: Sequence[str]) -> list[Fault]:
    """No images at all, or none to train with."""
    if not any(paths for images in files.values() for paths in images.values()):
        folders = sorted({shown(folder) for images in files.values() for folder in images})
        present = ", ".join(folders) or some(unused) or "nothing"
        return [Fault("layout", ".", f"no images in <label>/<image> or train/<label>/<image>; found: {present}")]
    if "train" not in files:
        return [Fault("layout", ".", f"holds {', '.join(files)} but no train folder")]
    return []


def _folder_faults(files: Files, labels: dict[str, str]) -> list[Fault]:
    """Folders without images, and those that cannot be a label or that fold to the label of another."""
    filled = {folder for images in files.values() for folder, paths in images.items() if paths}
    wrong = label_faults({folder: labels[folder] for folder in sorted(labels)})
    faults = []
    for folder in sorted(labels):
        if filled and folder not in filled:  # where all are empty it is a fault of the layout
            faults.append(Fault("label", repr(folder), "no images in this folder; fill or remove it"))
        if folder in wrong:
            faults.append(Fault("label", repr(folder), wrong[folder]))
    return faults
