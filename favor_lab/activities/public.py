"""The public sets as they lie on disk: Stanford 40, HAR-15, UCF101 middle frames, PPMI.

Each reader turns its layout into rows (split, path, the set's own label name, where that is written) and faults; what
rows must satisfy is checked in one place, for all sets. A `Listing` holds everything that was found, right and wrong:
`load_public` refuses it when training would trip over something, `checks.check_folder` reports all of it.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from .annotations import read_box
from .catalogue import PUBLIC, PublicSet, fold
from .faults import Fault, all_at_once, shown, utf8
from .parquet import ParquetImages
from .sources import (
    IMAGE_SUFFIXES,
    ActivityData,
    Record,
    check_exclude,
    check_root,
    file_bytes,
    open_image,
    pixel_box,
    some,
)

CARVED_SHARE = 4  # one in so many images of the smallest label is set aside where there is no test set
SPLITS = ("train", "validation", "test")
COMPANION = re.compile(r"readme|licen[cs]e|thumbs\.db|desktop\.ini|__macosx", re.IGNORECASE)


class Row(NamedTuple):
    """One image that a set claims to have: `path` relative to the root, `name` its label as the set writes it."""

    split: str
    path: str
    name: str
    where: str


@dataclass
class Listing:
    """What a folder holds, before any image is opened.

    labels  the set's own name -> label, in the set's order
    splits  split -> records, as in `ActivityData`
    faults  everything wrong so far
    sizes   path of an image -> (width, height) that its annotation gives, where it gives one
    carved  whether a test set was set aside from train, since there is no official one
    note    how the splits differ from the official ones; empty: they are those
    open, read_bytes   source -> image, source -> content of its file

    What readers say of their layout: the `folders` that hold images, the `form` of an image's path, whether the set
    has lists (else: every image in a folder belongs to it), and whether rows are `packed` in files of many.
    """

    name: str
    root: Path
    labels: dict[str, str]
    splits: dict[str, list[Record]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    carved: bool = False
    note: str = ""
    open: Callable[..., Image.Image] = open_image
    read_bytes: Callable[[str], bytes] = file_bytes
    folders: set[str] = field(default_factory=set)
    form: str = ""
    listed: bool = True
    packed: bool = False

    def fault(self, kind: str, where: object, what: str, fatal: bool = True, cure: tuple[str, ...] = ()) -> None:
        """Add a fault."""
        self.faults.append(Fault(kind, shown(where), what, fatal, tuple(map(shown, cure))))

    def path_of(self, source: str) -> str:
        """A record's source as it is named to people: relative to the root."""
        return shown(Path(source).relative_to(self.root).as_posix())


def load_public(
    name: str, root: Path, person_crop: float | None = None, carve_seed: int = 0, exclude: Collection[str] = ()
) -> ActivityData:
    """A public set as `load_activities` describes it.

    Raises ValueError with all the faults of its lists that training would trip over. Warns where the splits are not
    the official ones, where labels of the set have no image at all and, in sets without lists, of unused files.
    """
    listing = read_listing(name, root, person_crop is not None, carve_seed, exclude)
    if fatal := [fault for fault in listing.faults if fault.fatal]:
        raise ValueError(all_at_once(f"{name} in {root}", fatal, f" (`favor-lab data {name} --root {root}` lists all)"))
    present = {record.label for records in listing.splits.values() for record in records}
    absent = [label for label in listing.labels.values() if label not in present]
    notes = [listing.note] * bool(listing.note)
    if unused := [fault.where for fault in listing.faults if fault.kind == "unlisted" and not listing.listed]:
        notes.append(f"{len(unused)} not used (no image, or not in its place): {some(unused)}")
    if absent:
        notes.append(f"{len(absent)} of {len(listing.labels)} labels have no image: {', '.join(absent)}")
    if notes:
        warnings.warn(f"{name} in {root}: {'; '.join(notes)}", stacklevel=3)
    names = {label: own for own, label in listing.labels.items() if label in present}
    opener = partial(listing.open, margin=person_crop) if person_crop is not None else listing.open
    title = f"{name} (carved test set)" if listing.note else name
    return ActivityData(title, list(names), listing.splits, opener, names)


def read_listing(
    name: str, root: Path, boxes: bool = False, carve_seed: int = 0, exclude: Collection[str] = ()
) -> Listing:
    """Everything that the folder of a public set holds and lacks; no image is opened.

    `boxes` reads the person boxes of stanford40 as well. Raises ValueError for an unknown set, for two labels that
    would read alike and for an `exclude` that names no image, FileNotFoundError or NotADirectoryError for the root.
    """
    if name not in PUBLIC:
        raise ValueError(f"unknown public set {name!r}; valid names: {', '.join(PUBLIC)}")
    check_root(root)
    listing = Listing(name, root, readable_labels(PUBLIC[name]))
    rows = READERS[name](listing)
    curable = {path for fault in listing.faults for path in fault.cure}
    exclude = {shown(path) for path in exclude}
    check_exclude(f"{name} in {root}", exclude, {shown(row.path) for row in rows} | curable)
    listing.faults = [fault for fault in listing.faults if not set(fault.cure) & set(exclude)]
    _fill(listing, rows, exclude)
    if listing.carved and listing.splits.get("train"):
        _carve(listing, carve_seed)
    listing.splits = {name: listing.splits[name] for name in SPLITS if name in listing.splits}
    if boxes:
        _add_boxes(listing)
    _check_training(listing)
    return listing


def readable_labels(known: PublicSet) -> dict[str, str]:
    """The set's own names -> labels. Raises ValueError where two would read as one label.

    >>> readable_labels(PUBLIC["stanford40"])["throwing_frisby"]
    'throwing frisbee'
    """
    first: dict[str, str] = {}
    for name, label in known.labels.items():
        twin = first.setdefault(fold(label), name)
        if twin != name:
            raise ValueError(f"{known.title}: {twin!r} and {name!r} read as one label, {label!r}")
    return known.labels


# ------------------------------------------------------------------------------------------------- rows become records


def _fill(listing: Listing, rows: list[Row], exclude: Collection[str]) -> None:
    """Sorts good rows into splits; every bad one becomes a fault."""
    rows = [row for row in rows if shown(row.path) not in exclude]
    present = {row.path: True for row in rows} if listing.packed else _present(listing, listing.folders)
    folded = {path.casefold(): path for path in present}
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(row.path, row)
        fault = _fault_of_row(listing, row, earlier)
        if fault is None and not present.get(row.path):
            claim = f"listed in {row.where}, but " if listing.listed else ""
            what = f"{claim}{_absence(listing.root, row.path, present, folded)}"
            fault = ("missing", row.path, what)
        if fault is not None:
            listing.fault(*fault, cure=(row.path,))
        else:
            record = Record(listing.labels[row.name], str(listing.root / row.path))
            listing.splits.setdefault(row.split, []).append(record)
    if not any(fault.kind == "layout" for fault in listing.faults):  # without a list everything would be unlisted
        unlisted = sorted(present.keys() - first.keys())
        _note_unlisted(listing, [path for path in unlisted if shown(path) not in exclude])


def _fault_of_row(listing: Listing, row: Row, earlier: Row) -> tuple[str, str, str] | None:
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


def _note_unlisted(listing: Listing, paths: list[str]) -> None:
    for path in paths:
        image = PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
        if not utf8(path):
            what = "the name is not UTF-8; rename the file" if image else "is not used; its name is not UTF-8"
            listing.fault("name", path, what, fatal=image and not listing.listed)
        elif listing.listed:
            listing.fault("unlisted", path, "lies there, but no list names it", fatal=False)
        else:
            listing.fault("unlisted", path, "is no image file and is not used", fatal=False)


def climbs(path: str) -> bool:
    """Whether a path that a list gives could lead out of the folder that it is relative to.

    >>> [climbs(path) for path in ("a/b.jpg", "../b.jpg", "/etc/b.jpg", "a/../../b.jpg", "C:/b.jpg", "a\\\\b.jpg", "")]
    [False, True, True, True, True, True, True]
    """
    parts = path.split("/")
    return any(part in ("", ".", "..") for part in parts) or any(letter in path for letter in "\\:\0")


def _present(listing: Listing, folders: Collection[str]) -> dict[str, bool]:
    """Visible entries of these folders -> whether each is a file (a link to one is)."""
    found: dict[str, bool] = {}
    for folder in sorted(folders):
        if not (listing.root / folder).is_dir():
            continue
        for entry in os.scandir(listing.root / folder):
            if not entry.name.startswith(".") and not COMPANION.match(entry.name):
                found[f"{folder}/{entry.name}"] = _is_file(entry)
    return found


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a circle of links
        return False


def _absence(root: Path, path: str, present: dict[str, bool], folded: dict[str, str]) -> str:
    """Why a listed path is no file."""
    if path in present:
        link = "a link that leads nowhere or in a circle" if (root / path).is_symlink() else "no file"
        return f"it is {'a folder' if (root / path).is_dir() else link}"
    if path.casefold() in folded:
        return f"the file's name is written otherwise: {shown(folded[path.casefold()])}"
    return "there is no such file"


def _carve(listing: Listing, seed: int) -> None:
    """Moves as many records of each label from train to test, chosen by a hash of seed and path alone."""
    counts = Counter(record.label for record in listing.splits["train"])
    size = max(1, min(counts.values()) // CARVED_SHARE)
    few = [f"{label!r}" for label, count in counts.items() if count < 2]
    if few:
        listing.fault("label", "train", f"one image is too few to train and to test: {', '.join(few)}")
        return

    def rank(record: Record) -> str:
        return hashlib.sha256(f"{seed} {listing.path_of(record.source)}".encode()).hexdigest()

    test: set[str] = set()
    for label in counts:
        test |= {r.source for r in sorted((r for r in listing.splits["train"] if r.label == label), key=rank)[:size]}
    everything = listing.splits["train"]
    listing.splits["train"] = [record for record in everything if record.source not in test]
    listing.splits["test"] = [record for record in everything if record.source in test]


def _check_training(listing: Listing) -> None:
    """Every label of some split must be one that can be learnt."""
    if any(fault.kind == "layout" for fault in listing.faults):
        return
    trained = {record.label for record in listing.splits.get("train", [])}
    if not trained and not any(fault.fatal for fault in listing.faults):
        listing.fault("layout", ".", "there are no training images")
    for split, records in listing.splits.items():
        for label in dict.fromkeys(record.label for record in records if record.label not in trained):
            listing.fault("label", split, f"{label!r} has images here, but none in train")


# ---------------------------------------------------------------------------------------------------- lists and folders


def _need_folder(listing: Listing, name: str) -> bool:
    """Whether the root has this folder; a fault with a hint if it has not."""
    if (listing.root / name).is_dir():
        return True
    listing.fault("layout", name, f"there is no such folder in {listing.root}{_hint(listing.root, name)}")
    return False


def _hint(root: Path, name: str) -> str:
    """Where the missing thing may be: one folder further in, or still packed."""
    inside = [path for path in sorted(root.iterdir()) if (path / name).exists()]
    if inside:
        return f"; {inside[0]} has it: is that the root?"
    packed = [path.name for path in sorted(root.iterdir()) if path.suffix.lower() in {".zip", ".tar", ".gz", ".rar"}]
    return f"; unpack {', '.join(packed)} first" if packed else ""


def _text(listing: Listing, path: str, fatal: bool = True) -> str | None:
    """A list's text without byte order mark; None and a fault where it cannot be read as UTF-8."""
    try:
        data = file_bytes(listing.root / path)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        kind = "layout" if fatal else "list"
        listing.fault(kind, f"{path} line {line}", "is not UTF-8 text; save the list as UTF-8", fatal)
    except OSError as fault:
        kind = "layout" if fatal else "list"
        listing.fault(kind, path, f"cannot be read: {fault.strerror or fault}{_hint(listing.root, path)}", fatal)
    return None


def _lines(listing: Listing, path: str, fatal: bool = True) -> Iterator[tuple[str, str]]:
    """(line, "path line N") for each line of a list that is not blank."""
    for number, line in enumerate((_text(listing, path, fatal) or "").splitlines(), start=1):
        if line.strip():
            yield line.strip(), f"{path} line {number}"


# --------------------------------------------------------------------------------------------------------- stanford 40


def _stanford40(listing: Listing) -> list[Row]:
    listing.folders, listing.form = {"JPEGImages"}, "JPEGImages/<action>_NNN.jpg"
    if not _need_folder(listing, "JPEGImages"):
        return []
    if not (listing.root / "ImageSplits").is_dir():
        listing.listed, listing.carved = False, True
        listing.note = (
            "ImageSplits is missing, so these are not the official splits: a part of each label was set aside as a "
            "test set. Stanford40_ImageSplits.zip has the official ones"
        )
        listing.fault("split", "ImageSplits", listing.note, fatal=False)
        return [
            _stanford_row("train", path.split("/")[1], "JPEGImages") for path in _image_files(listing, "JPEGImages")
        ]
    rows: list[Row] = []
    for split in ("train", "test"):
        path = f"ImageSplits/{split}.txt"
        single = [f"ImageSplits/{action}_{split}.txt" for action in listing.labels]
        lists = [name for name in single if (listing.root / name).exists()]
        if lists and not (listing.root / path).exists():
            listing.fault("list", path, "is missing; the lists of the single actions are used", fatal=False)
            rows += [_stanford_row(split, line, where) for name in lists for line, where in _lines(listing, name)]
        else:
            whole = [_stanford_row(split, line, where) for line, where in _lines(listing, path)]
            _compare_lists(listing, path, whole, lists)
            rows += whole
    _check_actions(listing, rows)
    return rows


def _stanford_row(split: str, file: str, where: str) -> Row:
    """The row of a file name; its label is the name without its last _NNN."""
    return Row(split, f"JPEGImages/{file}", re.sub(r"_\d+\.\w+$", "", file), where)


def _compare_lists(listing: Listing, path: str, rows: list[Row], lists: list[str]) -> None:
    """Notes where the lists of single actions contradict the whole list, which is the one that is used."""
    for name in lists:
        action = PurePosixPath(name).name.rpartition("_")[0]
        single = {f"JPEGImages/{line}" for line, _ in _lines(listing, name, fatal=False)}
        differ = sorted(single ^ {row.path for row in rows if row.name == action})
        if differ:
            what = f"differs from {path}, which is used, in {', '.join(map(shown, differ))}"
            listing.fault("list", name, what, fatal=False)


def _check_actions(listing: Listing, rows: list[Row]) -> None:
    """Notes where actions.txt (a header, then name and number of images, parted by tabs) disagrees with the lists."""
    path = "ImageSplits/actions.txt"
    if not (listing.root / path).exists():
        listing.fault("list", path, "is missing, so its counts could not be compared", fatal=False)
        return
    counts = Counter(row.name for row in rows)
    for number, (line, where) in enumerate(_lines(listing, path, fatal=False)):
        name, *rest = line.split()
        if number == 0 and not (rest and rest[-1].isdigit()):
            continue  # the header
        if name not in listing.labels:
            listing.fault("label", where, f"{name!r} is no label of stanford40", fatal=False)
        elif not (rest and rest[-1].isdigit()):
            listing.fault("list", where, f"{line!r} must be an action and its number of images", fatal=False)
        elif counts[name] != int(rest[-1]):
            listing.fault(
                "count", where, f"{name} has {rest[-1]} images here, {counts[name]} in the lists", fatal=False
            )


def _add_boxes(listing: Listing) -> None:
    """Gives each record its person's box; missing and unusable annotations become faults."""
    if listing.name != "stanford40" or not (listing.root / "XMLAnnotations").is_dir():
        listing.fault("box", "XMLAnnotations", f"there is no such folder in {listing.root}, so no person boxes")
        return
    names = {label: own for own, label in listing.labels.items()}
    for records in listing.splits.values():
        for i, record in enumerate(records):
            path = listing.path_of(record.source)
            xml = f"XMLAnnotations/{PurePosixPath(path).stem}.xml"
            try:
                box, size = read_box(listing.root / xml, names[record.label])
                if size is not None:
                    listing.sizes[path] = size
                    pixel_box(box, size)
                records[i] = Record(record.label, record.source, box)
            except FileNotFoundError:
                listing.fault("box", xml, f"is missing: no person's box for {path}", cure=(path,))
            except (ValueError, OSError) as fault:
                listing.fault("box", xml, str(fault), cure=(path,))


# -------------------------------------------------------------------------------------------------------------- har 15


def _har15(listing: Listing) -> list[Row]:
    listing.carved = True
    if (listing.root / "Training_set.csv").exists():
        return _kaggle(listing)
    files = {split: _parquet_files(listing.root, split) for split in ("train", "test")}
    if files["train"]:
        return _hub(listing, files)
    what = "neither this (Kaggle) nor data/train-*.parquet (Hub) is in"
    listing.fault("layout", "Training_set.csv", f"{what} {listing.root}{_hint(listing.root, 'Training_set.csv')}")
    return []


def _kaggle(listing: Listing) -> list[Row]:
    listing.folders, listing.form = {"train"}, "train/<file>"
    if (listing.root / "test").is_dir() or (listing.root / "Testing_set.csv").exists():
        what = "the published test labels are not real and are not used; a test set is carved out of train"
        listing.fault("split", "test", what, fatal=False)
    table = list(_table(listing, "Training_set.csv", ("filename", "label")))
    if not _need_folder(listing, "train"):
        return []
    return [Row("train", f"train/{file}", name, where) for (file, name), where in table]


def _table(listing: Listing, path: str, columns: tuple[str, ...]) -> Iterator[tuple[list[str], str]]:
    """(the cells of these columns, "path line N") for each row of a CSV file; what is wrong with it becomes faults."""
    text = _text(listing, path)
    if text is None:
        return
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(table, [])]
        lacking = [column for column in columns if column not in header]
        if double := [column for column in columns if header.count(column) > 1]:
            listing.fault("layout", f"{path} line 1", f"has the column {' and '.join(double)} twice")
            return
        if lacking:
            what = f"lacks the column {' and '.join(lacking)}; its first line is {','.join(header)[:80]!r}"
            listing.fault("layout", f"{path} line 1", what)
            return
        for cells in table:
            where = f"{path} line {table.line_num}"
            if len(cells) == len(header):
                yield [cells[header.index(column)].strip() for column in columns], where
            elif cells:
                listing.fault("list", where, f"has {len(cells)} columns, the first line {len(header)}")
    except csv.Error as fault:
        listing.fault("list", f"{path} line {table.line_num}", f"is no CSV: {fault}")


def _parquet_files(root: Path, split: str) -> list[Path]:
    """A split's files as the Hub has them: data/train-*.parquet, or default/train/*.parquet where it converted them."""
    patterns = (f"data/{split}-*.parquet", f"default/{split}/*.parquet", f"{split}-*.parquet")
    return next((files for pattern in patterns if (files := sorted(root.glob(pattern)))), [])


def _hub(listing: Listing, files: dict[str, list[Path]]) -> list[Row]:
    reader = ParquetImages()
    listing.packed, listing.form = True, f"{files['train'][0].relative_to(listing.root).as_posix()}#row"
    listing.open, listing.read_bytes = reader.open, reader.read_bytes
    rows: list[Row] = []
    for path in files["train"]:
        name = path.relative_to(listing.root).as_posix()
        try:
            labels = reader.labels(path, list(listing.labels))
        except ValueError as fault:
            listing.fault("layout", name, str(fault))
            continue
        rows += [Row("train", f"{name}#{i}", label, f"{name} row {i}") for i, label in enumerate(labels)]
    if files["test"]:
        what = "the published test labels are not real and are not used; a test set is carved out of train"
        listing.fault("split", files["test"][0].relative_to(listing.root), what, fatal=False)
    return rows


# -------------------------------------------------------------------------------------------------------------- ucf 101


def _ucf101(listing: Listing) -> list[Row]:
    images, path = "UCF-101-midframes", "split_zhou_UCF101.json"
    listing.form = f"{images}/<Class_Name>/<file>"
    text = _text(listing, path)
    if not _need_folder(listing, images) or text is None:
        return []
    listing.folders = {f"{images}/{folder}" for folder in _folders(listing, images)}
    try:
        table = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as fault:
        listing.fault("layout", path, f"is no JSON: {fault}")
        return []
    rows: list[Row] = []
    indices: dict[str, int] = {}
    classes: dict[int, str] = {}
    for key, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        entries = table.get(key) if isinstance(table, dict) else None
        if not isinstance(entries, list):
            listing.fault("layout", path, f'must be an object with a list "{key}" of [path, index, name]')
            continue
        for number, entry in enumerate(entries):
            where = f"{path} {key}[{number}]"
            if not _is_entry(entry):
                listing.fault("list", where, f"is {shown(json.dumps(entry))[:80]}, not [path, index, name]")
                continue
            file, index, name = entry
            if not climbs(file) and file.count("/") == 1 and file.split("/")[0] != name:
                what = f"{shown(file)!r} must lie in the folder of its class, {shown(name)}/"
                listing.fault("label", where, what, cure=(f"{images}/{file}",))
                continue
            if indices.setdefault(name, index) != index or classes.setdefault(index, name) != name:
                listing.fault("list", where, f"[{index}, {name!r}] contradicts an earlier entry: one index a class")
            rows.append(Row(split, f"{images}/{file}", name, where))
    return rows


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; ValueError for a key that it has twice, of which Python would take the last."""
    if double := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {', '.join(map(repr, double))} is there twice")
    return dict(pairs)


def _is_entry(entry: object) -> bool:
    """Whether an entry is [path, index, name], both of them text that can be a file's name."""
    if not isinstance(entry, list) or [type(part) for part in entry] != [str, int, str]:
        return False
    return utf8(entry[0]) and utf8(entry[2])


# ---------------------------------------------------------------------------------------------------------------- ppmi


def _ppmi(listing: Listing) -> list[Row]:
    listing.listed, listing.form = False, "norm_image/<verb>_instrument/<instrument>/<split>/<file>"
    rows: list[Row] = []
    if not _need_folder(listing, "norm_image"):
        return rows
    known = {name.replace("/", " "): name for name in listing.labels}
    for verb in ("play_instrument", "with_instrument"):
        base = f"norm_image/{verb}"
        for instrument in _folders(listing, base) if _need_folder(listing, base) else ():
            spelt = re.sub(r"[\s_-]+", "", instrument).casefold()  # frenchhorn, french_horn, French Horn
            name = known.get(f"{verb} {spelt}", f"{verb}/{instrument}")
            for split in _folders(listing, f"{base}/{instrument}"):
                folder = f"{base}/{instrument}/{split}"
                if split not in ("train", "test"):
                    listing.fault("unlisted", folder, "is neither train nor test and is not used", fatal=False)
                    continue
                listing.folders.add(folder)
                rows += [Row(split, path, name, folder) for path in _image_files(listing, folder)]
    return rows


def _folders(listing: Listing, path: str) -> list[str]:
    """Visible folders in a folder, by name; files beside them become notes."""
    found = []
    for entry in sorted(os.scandir(listing.root / path), key=lambda entry: entry.name):
        if entry.name.startswith(".") or COMPANION.match(entry.name):
            continue
        if (listing.root / path / entry.name).is_dir():
            found.append(entry.name)
        else:
            listing.fault("unlisted", f"{path}/{entry.name}", "lies beside the folders and is not used", fatal=False)
    return found


def _image_files(listing: Listing, folder: str) -> list[str]:
    """Paths of what is called an image in a folder, by name, without those whose names are not UTF-8."""
    present = sorted(_present(listing, [folder]))
    return [path for path in present if utf8(path) and PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES]


READERS: dict[str, Callable[[Listing], list[Row]]] = {
    "stanford40": _stanford40,
    "har15": _har15,
    "ucf101": _ucf101,
    "ppmi": _ppmi,
}
