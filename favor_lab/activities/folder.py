"""Anybody's images in a folder sorted by label, with or without splits. No image is opened here."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

from favor_lab.activities.data import SPLITS, ActivityData, Record, label_faults, spaced
from favor_lab.activities.faults import shown, some, utf8
from favor_lab.activities.images import open_image
from favor_lab.activities.listing import Listing, has_image_suffix, visible

# Files that belong beside images and are no images.
COMPANIONS = {
    "metadata.csv", "metadata.jsonl", "truth.jsonl", "readme.md", "readme.txt", "license", "thumbs.db", "desktop.ini",
}  # fmt: skip


def load_folder(root: Path, exclude: Collection[str]) -> ActivityData:
    """The set "folder" as `load_activities` describes it."""
    listing = read_folder(root, exclude)
    listing.refuse()
    if unused := listing.places("unlisted"):
        warnings.warn(f"{root}: {len(unused)} not used (no image, or not in <label>/): {some(unused)}", stacklevel=3)
    folders = {label: folder for folder, label in listing.labels.items()}
    return ActivityData(str(root), list(folders), listing.splits, open_image, folders)


def read_folder(root: Path, exclude: Collection[str]) -> Listing:
    """The images sorted by label under `root` without those in `exclude`, what is not used, and what is wrong with
    layout, names and labels.

    Raises ValueError for an `exclude` that names no image, FileNotFoundError or NotADirectoryError for the root.
    """
    listing = Listing("folder", root, str(root))
    unused: list[Path] = []
    files: dict[tuple[str, str], list[str]] = {}  # (split, folder of a label) -> paths of images, relative to the root
    for split, branch in _split_folders(root, unused):
        listing.splits.setdefault(split, [])
        for entry in visible(branch):
            if not entry.is_dir():
                unused.append(entry)
                continue
            paths = files.setdefault((split, entry.name), [])
            for path in visible(entry):
                if has_image_suffix(path.name):
                    paths.append(path.relative_to(root).as_posix())
                else:
                    unused.append(path)
    for path in unused:
        if path.name.lower() not in COMPANIONS:
            name = path.relative_to(root).as_posix()
            listing.note_fault("unlisted", name, "is no image, or does not lie in <label>/")
    exclude = listing.check_exclude(exclude, {shown(path) for paths in files.values() for path in paths})
    files = {key: [path for path in paths if shown(path) not in exclude] for key, paths in files.items()}
    labels = {folder: spaced(folder) for _, folder in files}
    listing.labels = dict(sorted(labels.items(), key=lambda pair: (pair[1], pair[0])))
    for (split, folder), paths in files.items():
        listing.splits[split] += [Record(labels[folder], str(root / path)) for path in paths]
    _find_faults(listing, files)
    return listing


def _split_folders(root: Path, unused: list[Path]) -> list[tuple[str, Path]]:
    """(split, folder) for each split's folder; ("train", root) where the labels lie directly under root."""
    splits = {path: SPLITS.get(path.name.lower()) for path in visible(root)}
    # A folder "train" that holds images is a label (the vehicle); one that holds folders is a split.
    folders = [
        (split, path)
        for path, split in splits.items()
        if split and path.is_dir() and any(child.is_dir() for child in visible(path))
    ]
    if not folders:
        return [("train", root)]
    unused += [path for path in splits if path not in {path for _, path in folders}]
    return sorted(folders, key=lambda pair: list(SPLITS.values()).index(pair[0]))


def _find_faults(listing: Listing, files: dict[tuple[str, str], list[str]]) -> None:
    """No images at all or none to train with, folders that cannot be a label, and names that are not UTF-8."""
    folders = sorted(listing.labels)
    filled = {folder for (_, folder), paths in files.items() if paths}
    if not filled:
        present = ", ".join(sorted(set(map(shown, folders)))) or some(listing.places("unlisted")) or "nothing"
        what = f"no images in <label>/<image> or train/<label>/<image>; found: {present}"
        listing.fault("layout", ".", what)
    elif "train" not in listing.splits:
        listing.fault("layout", ".", f"holds {', '.join(listing.splits)} but no train folder")
    wrong = label_faults({folder: listing.labels[folder] for folder in folders})
    for folder in folders:
        if filled and folder not in filled:  # where all are empty it is a fault of the layout
            listing.fault("label", repr(folder), "no images in this folder; fill or remove it")
        if folder in wrong:
            listing.fault("label", repr(folder), wrong[folder])
    for path in (path for paths in files.values() for path in paths):
        if not utf8(path):
            listing.fault("name", path, "the name is not UTF-8; rename it", cure=(path,))
