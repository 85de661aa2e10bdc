"""Stanford 40 Actions: a list of file names per split, one XML annotation (the layout of PASCAL VOC) per image."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from favor_lab.activities.faults import shown
from favor_lab.activities.images import LFS_POINTER, Box, file_bytes, pixel_box
from favor_lab.activities.labels import normalise_label
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
        of_actions = (f"ImageSplits/{action}_{split}.txt" for action in listing.labels)
        lists = [name for name in of_actions if (listing.root / name).exists()]
        if lists and not (listing.root / path).exists():
            listing.note_fault("list", path, "is missing; the lists of the single actions are used")
            rows += [_row(split, line, where) for name in lists for line, where in listing.lines(name)]
        else:
            split_rows = [_row(split, line, where) for line, where in listing.lines(path)]
            rows += split_rows
            if listing.places("layout"):  # there is nothing to compare with
                continue
            for name in lists:  # notes where the list of a single action contradicts the list that is used
                single = {f"JPEGImages/{line}" for line, _ in listing.lines(name, fatal=False)}
                if name in listing.places("list"):  # it cannot be read
                    continue
                action = PurePosixPath(name).name.rpartition("_")[0]
                differ = sorted(single ^ {row.path for row in split_rows if row.name == action})
                if differ:
                    paths = ", ".join(map(shown, differ))
                    listing.note_fault("list", name, f"differs from {path}, which is used, in {paths}")
    if not listing.places("layout"):
        _check_actions(listing, rows)
    return rows


def _row(split: str, file: str, where: str) -> Row:
    """The row of a file name; its label is the name without its last _NNN."""
    return Row(split, f"JPEGImages/{file}", re.sub(r"_\d+\.\w+$", "", file), where)


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


class _PlainBuilder(ElementTree.TreeBuilder):
    """Files are not trusted: refuses document type declarations, and with them every entity (XXE, entity expansion)."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"declares a document type ({name}), which annotations do not need: entities are not read")


def read_box(path: Path, action: str) -> tuple[Box, tuple[int, int] | None]:
    """The box of the person who does `action`, and the (width, height) that the annotation gives for the image.

    Of several people the one whose action is `action` (or is not given), of several such the largest. Numbers are used
    as they are written (whether pixels are counted from 0 or from 1 is not documented: an edge may be one pixel off).
    Raises ValueError for a file that is no such annotation.
    """
    try:
        if path.stat().st_size > 1_000_000:
            raise ValueError("is larger than 1 MB: no annotation of a person")
        data = file_bytes(path)
        if data.startswith(LFS_POINTER):
            raise ValueError("is a Git LFS pointer, not the annotation; `git lfs pull` brings it")
        root = ElementTree.fromstring(data, parser=ElementTree.XMLParser(target=_PlainBuilder()))
    except ElementTree.ParseError as fault:
        raise ValueError(f"is no XML: {fault}") from fault
    people = [(item.findtext("action", "").strip(), item.find("bndbox")) for item in root.iter("object")]
    if not people:
        raise ValueError("has no <object>, so no person")
    boxes = [_corners(box) for name, box in people if normalise_label(name) in (normalise_label(action), "")]
    if not boxes:
        raise ValueError(f"is about {', '.join(sorted({name for name, _ in people}))!r}, not {action!r}")
    element = root.find("size")
    size = None if element is None else (int(_number(element, "width")), int(_number(element, "height")))
    largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return largest, size


def _corners(element: ElementTree.Element | None) -> Box:
    """left, top, right, bottom by their names: the files have xmax before xmin."""
    left, top, right, bottom = (_number(element, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    if not (left < right and top < bottom):
        raise ValueError(f"has an empty box: x from {left:g} to {right:g}, y from {top:g} to {bottom:g}")
    return left, top, right, bottom


def _number(element: ElementTree.Element | None, name: str) -> float:
    text = "" if element is None else element.findtext(name, "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"has {text!r} as <{name}>, not a number")
    return value
