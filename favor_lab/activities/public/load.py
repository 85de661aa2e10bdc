"""From rows of a public set to its records: each reader gives rows, which are checked here, in one place for all."""

from __future__ import annotations

import difflib
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

from favor_lab.activities.data import ActivityData, Record
from favor_lab.activities.faults import shown, utf8
from favor_lab.activities.labels import label_faults
from favor_lab.activities.listing import Listing, Row, climbs, has_image_suffix
from favor_lab.activities.public import har15, ppmi, stanford40, ucf101
from favor_lab.activities.public.catalogue import PUBLIC, PublicSet

READERS = {"stanford40": stanford40.read, "har15": har15.read, "ucf101": ucf101.read, "ppmi": ppmi.read}
ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|[a-z]+://")  # how a path of another computer begins
CARVED_SHARE = 4  # a quarter of the smallest label is set aside where there is no test set


def load_public(name: str, root: Path, margin: float | None, carve_seed: int, exclude: Collection[str]) -> ActivityData:
    """A public set as `load_activities` describes it; `margin` is its `person_crop`.

    Raises ValueError with all faults that training would fail on. Warns of splits that are not the official ones, of
    labels without any image and, in sets without lists, of unused files.
    """
    listing = read_listing(name, root, margin is not None, carve_seed, exclude)
    listing.refuse()
    present = {record.label for records in listing.splits.values() for record in records}
    absent = [label for label in listing.labels.values() if label not in present]
    notes = [listing.note] * bool(listing.note)
    if not listing.listed and (unused := listing.unused("no image, or not in its place")):
        notes.append(unused)
    if absent:
        notes.append(f"{len(absent)} of {len(listing.labels)} labels have no image: {', '.join(absent)}")
    if notes:
        warnings.warn(f"{listing.title}: {'; '.join(notes)}", stacklevel=3)
    names = {label: own for own, label in listing.labels.items() if label in present}
    opener = partial(listing.open, margin=margin) if margin is not None else listing.open
    title = f"{name} (carved test set)" if listing.note else name
    return ActivityData(title, list(names), listing.splits, opener, names)


def read_listing(name: str, root: Path, boxes: bool, carve_seed: int, exclude: Collection[str]) -> Listing:
    """Everything that the folder of a public set holds and lacks; no image is opened.

    `boxes` reads the person boxes of stanford40 as well. Raises ValueError for an unknown set, for two labels that
    would read alike and for an `exclude` that names no image, FileNotFoundError or NotADirectoryError for the root.
    """
    if name not in PUBLIC:
        raise ValueError(f"unknown public set {name!r}; valid names: {', '.join(PUBLIC)}")
    listing = Listing(name, root, f"{name} in {root}", readable_labels(PUBLIC[name]))
    rows = READERS[name](listing)
    curable = {path for fault in listing.faults for path in fault.cure}
    exclude = listing.check_exclude(exclude, {shown(row.path) for row in rows} | curable)
    listing.faults = [fault for fault in listing.faults if exclude.isdisjoint(fault.cure)]
    _fill(listing, rows, exclude)
    if listing.carved and listing.splits.get("train"):
        _carve(listing, carve_seed)
    order = ("train", "validation", "test")
    listing.splits = {split: listing.splits[split] for split in order if split in listing.splits}
    if boxes and name == "stanford40":
        stanford40.add_boxes(listing)
    if not listing.places("layout"):
        if not listing.splits.get("train") and not any(fault.fatal for fault in listing.faults):
            listing.fault("layout", ".", "there are no training images")
        listing.find_untrained()
    return listing


def readable_labels(facts: PublicSet) -> dict[str, str]:
    """The set's own names -> labels. Raises ValueError where two would read as one label.

    >>> readable_labels(PUBLIC["stanford40"])["throwing_frisby"]
    'throwing frisbee'
    """
    for name, what in label_faults(facts.labels).items():
        raise ValueError(f"{facts.title}: {name!r} {what}")
    return facts.labels


def _fill(listing: Listing, rows: list[Row], exclude: Collection[str]) -> None:
    """Sort good rows into splits; every bad one becomes a fault, and every file that no row names a note."""
    rows = [row for row in rows if shown(row.path) not in exclude]
    entries = {row.path: True for row in rows} if listing.packed else listing.entries(listing.folders)
    folded = {path.casefold(): path for path in entries}
    wrong = _rows_with_folders(listing, rows, entries)
    rows = [row for row in rows if row not in wrong]
    first: dict[str, Row] = {}
    for row in rows:
        fault = _row_fault(listing, row, first.setdefault(row.path, row))
        if fault is None and not entries.get(row.path):
            claim = f"listed in {row.where}, but " if listing.listed else ""
            fault = ("missing", row.path, f"{claim}{_absence(listing.root, row.path, entries, folded)}")
        if fault is not None:
            listing.fault(*fault, cure=(row.path,))
        else:
            record = Record(listing.labels[row.name], str(listing.root / row.path))
            listing.splits.setdefault(row.split, []).append(record)
    if listing.places("layout") or wrong:  # without a list everything would be unlisted
        return
    for path in sorted(path for path in entries.keys() - first if shown(path) not in exclude):
        image = has_image_suffix(path)
        if not utf8(path):
            what = "the name is not UTF-8; rename the file" if image else "is not used; its name is not UTF-8"
            listing.fault("name", path, what, fatal=image and not listing.listed)
        else:
            what = "lies there, but no list names it" if listing.listed else "is no image file and is not used"
            listing.note_unused(path, what)


def _rows_with_folders(listing: Listing, rows: list[Row], entries: dict[str, bool]) -> set[Row]:
    """The rows of lists that were written with another computer's folders, if they are many or half of a list: one
    fault for each list says how a row must look. Their paths are never opened, and to exclude them would be no cure."""
    head, depth = listing.form.split("/")[0] + "/", listing.form.count("/")
    wrong: dict[str, list[tuple[Row, str, str]]] = {}  # list -> row, the path as it is written, the path of that file
    for row in rows if listing.listed and not listing.packed else ():
        written = row.path.removeprefix(head)
        parts = re.split(r"[/\\]+", written)
        if len(parts) <= depth and ":" not in written:
            continue
        file = head + "/".join(parts[-depth:])
        if ABSOLUTE.match(written) or entries.get(file):
            wrong.setdefault(_list_of(row), []).append((row, written, file))
    lengths = Counter(map(_list_of, rows))
    wrong = {name: several for name, several in wrong.items() if len(several) >= max(2, min(3, lengths[name] / 2))}
    for list_name, several in wrong.items():
        absolute = all(ABSOLUTE.match(written) for _, written, _ in several)
        what = f"{len(several)} names {'are absolute paths' if absolute else 'have folders that do not belong there'}"
        first, written, file = next((item for item in several if entries.get(item[2])), several[0])
        place = "is there" if entries.get(file) else "is not there either"
        cure = f"strip the folders, so that this row names {shown(file.removeprefix(head))!r}"
        listing.fault("path", list_name, f"{what}, as in {first.where}: {shown(written)!r}. {file} {place}: {cure}")
    return {row for several in wrong.values() for row, _, _ in several}


def _list_of(row: Row) -> str:
    """The list that a row stands in."""
    return row.where.rpartition(" line ")[0] or row.where.split(" ")[0]


def _row_fault(listing: Listing, row: Row, earlier: Row) -> tuple[str, str, str] | None:
    """(kind, where, what) of a row that is wrong whatever lies on disk; `earlier` is the first row of its path."""
    if earlier is not row:
        same = (row.split, row.name) == (earlier.split, earlier.name)
        claim = "again" if same else f"in {row.split} as {row.name!r}"
        before = f"{earlier.where} has it in {earlier.split} as {earlier.name!r}"
        return "list", row.where, f"{shown(row.path)} is listed {claim}; {before}"
    if climbs(row.path) or row.path.count("/") != listing.form.count("/"):
        return "path", row.where, f"{row.path!r} is no path of the form {listing.form}"
    if row.name not in listing.labels:
        close = difflib.get_close_matches(row.name, listing.labels, 1, 0.8)
        hint = f"; is it {close[0]!r}?" if close else ""
        return "label", row.where, f"{row.name!r} ({shown(row.path)}) is no label of {listing.name}{hint}"
    return None


def _absence(root: Path, path: str, entries: dict[str, bool], folded: dict[str, str]) -> str:
    """Why a listed path is no file."""
    if path in entries:
        link = "a link that leads nowhere or in a circle" if (root / path).is_symlink() else "no file"
        return f"it is {'a folder' if (root / path).is_dir() else link}"
    if path.casefold() in folded:
        return f"the file's name is written otherwise: {shown(folded[path.casefold()])}"
    return "there is no such file"


def _carve(listing: Listing, seed: int) -> None:
    """Move equally many records of each label from train to test, chosen by a hash of seed and path alone."""
    records = listing.splits["train"]
    counts = Counter(record.label for record in records)
    size = max(1, min(counts.values()) // CARVED_SHARE)
    if single := [repr(label) for label, count in counts.items() if count < 2]:
        listing.fault("label", "train", f"one image is too few to train and to test: {', '.join(single)}")
        return

    def rank(record: Record) -> str:
        return hashlib.sha256(f"{seed} {listing.path_of(record.source)}".encode()).hexdigest()

    ranked = sorted(records, key=rank)
    test = {r.source for label in counts for r in [r for r in ranked if r.label == label][:size]}
    listing.splits["train"] = [record for record in records if record.source not in test]
    listing.splits["test"] = [record for record in records if record.source in test]
