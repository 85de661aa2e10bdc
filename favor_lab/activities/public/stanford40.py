"""Stanford 40 Actions: a list of file names per split, one XML annotation per image."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath

from favor_lab.activities.faults import shown
from favor_lab.activities.images import pixel_box
from favor_lab.activities.public.annotations import read_box
from favor_lab.activities.listing import Listing, Row


def read(listing: Listing) -> list[Row]:
    """The rows of the official lists; without ImageSplits, all images as "train"."""
    listing.folders, listing.form = {"JPEGImages"}, "JPEGImages/<action>_NNN.jpg"
    if not listing.has_folder("JPEGImages"):
        return []
    if not (listing.root / "ImageSplits").is_dir():
        listing.listed, listing.carved = False, True
        listing.note = (
            "ImageSplits is missing, so these are not the official splits: a part of each label was set aside as a "
            "test set. Stanford40_ImageSplits.zip has the official ones"
        )
        listing.note_fault("split", "ImageSplits", listing.note)
        return [_row("train", path.split("/")[1], "JPEGImages") for path in listing.image_files("JPEGImages")]
    rows: list[Row] = []
    for split in ("train", "test"):
        path = f"ImageSplits/{split}.txt"
        lists = [f"ImageSplits/{action}_{split}.txt" for action in listing.labels]
        lists = [name for name in lists if (listing.root / name).exists()]
        if lists and not (listing.root / path).exists():
            listing.note_fault("list", path, "is missing; the lists of the single actions are used")
            rows += [_row(split, line, where) for name in lists for line, where in listing.lines(name)]
        else:
            split_rows = [_row(split, line, where) for line, where in listing.lines(path)]
            _compare_lists(listing, path, split_rows, lists)
            rows += split_rows
    _check_actions(listing, rows)
    return rows


def _row(split: str, file: str, where: str) -> Row:
    """The row of a file name; its label is the name without its last _NNN."""
    return Row(split, f"JPEGImages/{file}", re.sub(r"_\d+\.\w+$", "", file), where)


def _compare_lists(listing: Listing, path: str, rows: list[Row], lists: list[str]) -> None:
    """Notes where a list of a single action contradicts the list of the split at `path`, which is the one in use."""
    for name in lists:
        action = PurePosixPath(name).name.rpartition("_")[0]
        single = {f"JPEGImages/{line}" for line, _ in listing.lines(name, fatal=False)}
        differ = sorted(single ^ {row.path for row in rows if row.name == action})
        if differ:
            listing.note_fault("list", name, f"differs from {path}, which is used, in {', '.join(map(shown, differ))}")


def _check_actions(listing: Listing, rows: list[Row]) -> None:
    """Notes where actions.txt (a header, then name and number of images with tabs between) contradicts the lists."""
    path = "ImageSplits/actions.txt"
    if not (listing.root / path).exists():
        listing.note_fault("list", path, "is missing, so its counts could not be compared")
        return
    counts = Counter(row.name for row in rows)
    for number, (line, where) in enumerate(listing.lines(path, fatal=False)):
        name, *rest = line.split()
        if number == 0 and not (rest and rest[-1].isdigit()):
            continue  # the header
        if name not in listing.labels:
            listing.note_fault("label", where, f"{name!r} is no label of stanford40")
        elif not (rest and rest[-1].isdigit()):
            listing.note_fault("list", where, f"{line!r} must be an action and its number of images")
        elif counts[name] != int(rest[-1]):
            listing.note_fault("count", where, f"{name} has {rest[-1]} images here, {counts[name]} in the lists")


def add_boxes(listing: Listing) -> None:
    """Give each record its person's box; missing and unusable annotations become faults."""
    if not (listing.root / "XMLAnnotations").is_dir():
        listing.fault("box", "XMLAnnotations", f"there is no such folder in {listing.root}, so no person boxes")
        return
    names = {label: name for name, label in listing.labels.items()}
    for records in listing.splits.values():
        for i, record in enumerate(records):
            path = listing.path_of(record.source)
            xml = f"XMLAnnotations/{PurePosixPath(path).stem}.xml"
            try:
                box, size = read_box(listing.root / xml, names[record.label])
                if size is not None:
                    listing.sizes[path] = size
                    pixel_box(box, size)
                records[i] = replace(record, box=box)
            except FileNotFoundError:
                listing.fault("box", xml, f"is missing: no person's box for {path}", cure=(path,))
            except (ValueError, OSError) as fault:
                listing.fault("box", xml, str(fault), cure=(path,))
