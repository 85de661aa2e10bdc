"""Person boxes in the XML annotations of Stanford 40 (the layout of PASCAL VOC); the files are not trusted."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from favor_lab.activities.data import fold
from favor_lab.activities.images import Box, file_bytes


class _PlainBuilder(ElementTree.TreeBuilder):
    """Refuses document type declarations, and with them every internal or external entity (XXE, entity expansion)."""

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
        root = ElementTree.fromstring(file_bytes(path), parser=ElementTree.XMLParser(target=_PlainBuilder()))
    except ElementTree.ParseError as fault:
        raise ValueError(f"is no XML: {fault}") from fault
    people = [(item.findtext("action", "").strip(), item.find("bndbox")) for item in root.iter("object")]
    if not people:
        raise ValueError("has no <object>, so no person")
    boxes = [_corners(box) for name, box in people if fold(name) in (fold(action), "")]
    if not boxes:
        raise ValueError(f"is about {', '.join(sorted({name for name, _ in people}))!r}, not {action!r}")
    size = [_number(root.find("size"), side) for side in ("width", "height")] if root.find("size") is not None else []
    largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return largest, (int(size[0]), int(size[1])) if size else None


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
