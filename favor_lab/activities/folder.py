"""Anybody's images in a folder sorted by label, with or without splits. No image is opened here."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Collection
from itertools import chain
from pathlib import Path

from favor_lab.activities.data import SPLITS, SPLITS_ARE_CALLED, ActivityData, Record, spaced
from favor_lab.activities.faults import shown, some, utf8
from favor_lab.activities.images import conversion, open_image
from favor_lab.activities.labels import label_faults
from favor_lab.activities.listing import (
    COMPANION,
    Listing,
    folders_below,
    has_image_suffix,
    holds_images,
    packed_in,
    set_in,
    subfolders_of,
    visible,
)

# Files that belong beside images and are no images.
COMPANIONS = {"metadata.csv", "metadata.jsonl", "truth.jsonl"}

LISTS = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".parquet"}  # what a list of labels may be


def load_folder(root: Path, exclude: Collection[str]) -> ActivityData:
    """The set "folder" as `load_activities` describes it."""
    listing = read_folder(root, exclude)
    listing.refuse()
    if unused := listing.unused("no image, or not in <label>/"):
        warnings.warn(f"{root}: {unused}", stacklevel=3)
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
        if path.name.lower() not in COMPANIONS and not (COMPANION.match(path.name) and path.is_file()):
            listing.note_unused(path.relative_to(root).as_posix(), _why_unused(root, path))
    exclude = listing.check_exclude(exclude, {shown(path) for paths in files.values() for path in paths})
    files = {key: [path for path in paths if shown(path) not in exclude] for key, paths in files.items()}
    # Accents are spelt in two ways: macOS writes another one than Windows and Linux. Both are one label.
    labels = {folder: spaced(unicodedata.normalize("NFC", folder)) for _, folder in files}
    listing.labels = dict(sorted(labels.items(), key=lambda pair: (pair[1], pair[0])))
    for (split, folder), paths in files.items():
        listing.splits[split] += [Record(labels[folder], str(root / path)) for path in paths]
    _find_faults(listing, files)
    return listing


def _why_unused(root: Path, path: Path) -> str:
    """Why a file or folder is not used."""
    if path.parent == root and path.is_dir():  # beside the folders of the splits
        if path.name.lower() in SPLITS and holds_images(path):
            return "is not used: its images do not lie in <label>/, so that they have no label"
        if any(map(holds_images, subfolders_of(path))):
            return f"is not used: {SPLITS_ARE_CALLED}"
    return "is no image, or does not lie in <label>/"


def _split_folders(root: Path, unused: list[Path]) -> list[tuple[str, Path]]:
    """(split, folder) for each split's folder; ("train", root) where the labels lie directly under root."""
    splits = {path: SPLITS.get(path.name.lower()) for path in visible(root)}
    # A folder "train" that holds images is a label (the vehicle); one that holds folders is a split. One that holds
    # both is a split, but beside labels, and without a folder that is clearly a split, a label.
    folders = [(split, path) for path, split in splits.items() if split and path.is_dir() and subfolders_of(path)]
    has_labels = any(split is None and path.is_dir() and holds_images(path) for path, split in splits.items())
    if not folders or (has_labels and all(holds_images(path) for _, path in folders)):
        return [("train", root)]
    unused += [path for path in splits if path not in {path for _, path in folders}]
    return sorted(folders, key=lambda pair: list(SPLITS.values()).index(pair[0]))


def _find_faults(listing: Listing, files: dict[tuple[str, str], list[str]]) -> None:
    """No images at all or none to train with, folders that cannot be a label, and names that are not UTF-8."""
    folders = sorted(listing.labels)
    filled = {folder for (_, folder), paths in files.items() if paths}
    split_names = [folder for folder in sorted(filled) if folder.lower() in SPLITS]
    other_set = filled == {"JPEGImages"} and set_in(listing.root) == "stanford40"
    if not filled or other_set:
        present = ", ".join(sorted(set(map(shown, folders)))) or some(listing.places("unlisted")) or "nothing"
        what = f"no images in <label>/<image> or train/<label>/<image>; found: {present}"
        listing.fault("layout", ".", f"{what}{_convertible(listing)}{_layout_hint(listing.root)}")
    elif "train" not in listing.splits:
        listing.fault("layout", ".", f"holds {', '.join(listing.splits)} but no train folder; {SPLITS_ARE_CALLED}")
    elif len({SPLITS[folder.lower()] for folder in split_names}) > 1 or set(split_names) == filled:
        lists = some([path.name for path in visible(listing.root) if path.suffix.lower() in LISTS])
        what = f"{' and '.join(split_names)}: images directly in a folder of a split, which says no label; "
        what += f"labels are in a list{f' ({lists})' if lists else ''}? `--data har15` reads Training_set.csv with the "
        what += "columns filename and label; sort other images into train/<label>/<image>; rename labels called so"
        listing.fault("layout", ".", what)
    spellings = {unicodedata.normalize("NFC", folder): folder for folder in reversed(folders)}
    wrong = label_faults({folder: listing.labels[folder] for folder in reversed(spellings.values())})
    for folder in folders:
        if filled and not other_set and folder not in filled:  # where all are empty it is a fault of the layout
            what = f"no images in this folder; fill or remove it{_inside(listing, folder)}"
            listing.fault("label", repr(folder), what)
        if folder in wrong:
            listing.fault("label", repr(folder), wrong[folder])
    for path in (path for paths in files.values() for path in paths):
        if not utf8(path):
            listing.fault("name", path, "the name is not UTF-8; rename it", cure=(path,))


def _layout_hint(root: Path) -> str:
    """What to do where no image lies in <label>/: another set, or a root further in or out; an archive."""
    if (public := set_in(root)) not in ("", "folder"):
        return f"; the root holds what `--data {public}` reads"
    sets: dict[Path, str] = {}
    for path in chain.from_iterable(folders_below(root)):
        if sets.keys().isdisjoint(path.parents) and (name := set_in(path)):
            sets[path] = name
    if len(sets) == 1:
        ((path, name),) = sets.items()
        public = "" if name == "folder" else f" (of `--data {name}`)"
        return f"; {shown(path)} has it: is that the root{public}?"
    if sets:
        names = some([shown(path.relative_to(root).as_posix()) for path in sets])
        return f"; {names} have images in <label>/: is one of them the root, or a split? {SPLITS_ARE_CALLED}"
    if holds_images(root):
        return "; images lie directly in it: sort them into a folder per label, or name the folder above as the root"
    return packed_in(root)


def _convertible(listing: Listing, folder: str = "") -> str:
    """The first file that could be converted to an image, of a label's folder or of all, and how."""
    for fault in listing.faults:
        if (kind := conversion(fault.where)) and folder in ("", Path(fault.where).parent.name):
            return f"; {fault.where} is {kind}"
    return ""


def _inside(listing: Listing, folder: str) -> str:
    """What lies in a label's folder that has no image in it: images in a folder further in, or files to convert."""
    holders = [branch / folder for branch in (listing.root, *subfolders_of(listing.root)) if (branch / folder).is_dir()]
    if deeper := next((path for holder in holders for path in subfolders_of(holder) if holds_images(path)), None):
        return f"; images lie deeper, in {shown(deeper.relative_to(listing.root).as_posix())}: move them up"
    return _convertible(listing, folder)
