"""UCF101 middle frames: one JSON file with a list of [path, index, name] per split."""

from __future__ import annotations

import json
from collections import Counter

from favor_lab.activities.faults import shown, utf8
from favor_lab.activities.listing import Listing, Row, climbs

IMAGES, SPLIT_FILE = "UCF-101-midframes", "split_zhou_UCF101.json"


def read(listing: Listing) -> list[Row]:
    """The rows of the split file; entries of the wrong form or class become faults."""
    listing.form = f"{IMAGES}/<Class_Name>/<file>"
    text = listing.text(SPLIT_FILE)
    if not listing.has_folder(IMAGES) or text is None:
        return []
    listing.folders = {f"{IMAGES}/{folder}" for folder in listing.subfolders(IMAGES)}
    try:
        table = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as fault:
        listing.fault("layout", SPLIT_FILE, f"is no JSON: {fault}")
        return []
    rows: list[Row] = []
    indices: dict[str, int] = {}
    classes: dict[int, str] = {}
    for key, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        entries = table.get(key) if isinstance(table, dict) else None
        if not isinstance(entries, list):
            listing.fault("layout", SPLIT_FILE, f'must be an object with a list "{key}" of [path, index, name]')
            continue
        for number, entry in enumerate(entries):
            where = f"{SPLIT_FILE} {key}[{number}]"
            of_right_types = isinstance(entry, list) and [type(part) for part in entry] == [str, int, str]
            if not (of_right_types and utf8(entry[0]) and utf8(entry[2])):
                listing.fault("list", where, f"is {shown(json.dumps(entry))[:80]}, not [path, index, name]")
                continue
            file, index, name = entry
            if not climbs(file) and file.count("/") == 1 and file.split("/")[0] != name:
                what = f"{shown(file)!r} must lie in the folder of its class, {shown(name)}/"
                listing.fault("label", where, what, cure=(f"{IMAGES}/{file}",))
                continue
            if indices.setdefault(name, index) != index or classes.setdefault(index, name) != name:
                listing.fault("list", where, f"[{index}, {name!r}] contradicts an earlier entry: one index a class")
            rows.append(Row(split, f"{IMAGES}/{file}", name, where))
    return rows


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; ValueError for a duplicate key, of which Python would use the last."""
    if duplicates := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {', '.join(map(repr, duplicates))} is there twice")
    return dict(pairs)
