"""HAR-15, as Kaggle has it (a CSV file and images) or as the Hub has it (parquet files with the images in them).

The published test labels are not real and are never used: `read_listing` sets a test set aside from train.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from favor_lab.activities.images import check_file, decode_image, is_lfs_pointer
from favor_lab.activities.listing import Listing, Row

UNREAL_LABELS = "the published test labels are not real and are not used; a test set is carved out of train"


def read(listing: Listing) -> list[Row]:
    """The rows of whichever of the two layouts is there."""
    listing.carved = True
    if (listing.root / "Training_set.csv").exists():
        listing.folders, listing.form = {"train"}, "train/<file>"
        if (listing.root / "test").is_dir() or (listing.root / "Testing_set.csv").exists():
            listing.note_fault("split", "test", UNREAL_LABELS)
        rows = list(_rows(listing, "Training_set.csv"))
        return rows if listing.has_folder("train") else []
    if files := _parquet_files(listing.root, "train"):
        return _hub(listing, files)
    what = "neither this (Kaggle) nor data/train-*.parquet (Hub) is in"
    listing.fault("layout", "Training_set.csv", f"{what} {listing.root}{listing.hint('Training_set.csv')}")
    return []


def _rows(listing: Listing, path: str) -> Iterator[Row]:
    """The rows of a CSV file with the columns filename and label; what is wrong with it becomes faults."""
    text, columns = listing.text(path), ("filename", "label")
    if text is None:
        return
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(table, [])]
        if duplicates := [column for column in columns if header.count(column) > 1]:
            listing.fault("layout", f"{path} line 1", f"has the column {' and '.join(duplicates)} twice")
            return
        if missing := [column for column in columns if column not in header]:
            what = f"lacks the column {' and '.join(missing)}; its first line is {','.join(header)[:80]!r}"
            listing.fault("layout", f"{path} line 1", what)
            return
        for cells in table:
            where = f"{path} line {table.line_num}"
            if len(cells) == len(header):
                file, name = (cells[header.index(column)].strip() for column in columns)
                yield Row("train", f"train/{file}", name, where)
            elif cells:
                listing.fault("list", where, f"has {len(cells)} columns, the first line {len(header)}")
    except csv.Error as fault:
        listing.fault("list", f"{path} line {table.line_num}", f"is no CSV: {fault}")


def _parquet_files(root: Path, split: str) -> list[Path]:
    """A split's files as the Hub has them: data/train-*.parquet, or default/train/*.parquet where it converted them."""
    patterns = (f"data/{split}-*.parquet", f"default/{split}/*.parquet", f"{split}-*.parquet")
    return next((files for pattern in patterns if (files := sorted(root.glob(pattern)))), [])


@dataclass(frozen=True)
class Cells:
    """The images in parquet files: path of a file -> its column of images. Worker processes can be sent it."""

    columns: dict[str, Any] = field(default_factory=dict)

    def read_bytes(self, source: str) -> bytes:
        path, _, row = source.rpartition("#")
        cell = self.columns[path][int(row)].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell  # a path in a cell is never opened
        if not isinstance(data, bytes):
            raise ValueError(f"{source}: the row holds no image")
        return data

    def open(self, source: str) -> Image.Image:
        return decode_image(self.read_bytes(source), source)


def _hub(listing: Listing, files: list[Path]) -> list[Row]:
    cells = Cells()
    listing.packed, listing.form = True, f"{files[0].relative_to(listing.root).as_posix()}#row"
    listing.read_bytes, listing.open = cells.read_bytes, cells.open
    rows: list[Row] = []
    for path in files:
        name = path.relative_to(listing.root).as_posix()
        try:
            cells.columns[str(path)], labels = _read_parquet(path, list(listing.labels))
        except ValueError as fault:
            listing.fault("layout", name, str(fault))
            continue
        rows += [Row("train", f"{name}#{i}", label, f"{name} row {i}") for i, label in enumerate(labels)]
    if unused := _parquet_files(listing.root, "test"):
        listing.note_fault("split", unused[0].relative_to(listing.root), UNREAL_LABELS)
    return rows


def _read_parquet(path: Path, order: list[str]) -> tuple[Any, list[str]]:
    """The column of images and each row's label name: numbers by the names in the file's own metadata, or by `order`.

    The file is read as it is, not converted into the cache of `datasets`. ValueError for a file that is no parquet or
    lacks the columns image and labels, ImportError without pyarrow.
    """
    try:
        from pyarrow import parquet
    except ImportError as fault:
        raise ImportError("parquet files need pyarrow: pip install 'favor-lab[lab]'") from fault
    try:
        check_file(path)
        if is_lfs_pointer(path):
            raise ValueError("a Git LFS pointer, not the file itself; `git lfs pull` brings it")
        table = parquet.read_table(path)
    except Exception as fault:  # pyarrow's own kinds, OSError and others
        raise ValueError(f"cannot be read as parquet: {' '.join(str(fault).split())}") from fault
    column = next((name for name in ("labels", "label") if name in table.column_names), None)
    if "image" not in table.column_names or column is None:
        raise ValueError(f"must have the columns image and labels; it has {', '.join(table.column_names)}")
    try:
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        names = None
    names = list(map(str, names)) if isinstance(names, list) else order
    labels = [
        names[v] if isinstance(v, int) and 0 <= v < len(names) else v if isinstance(v, str) else f"number {v}"
        for v in table.column(column).to_pylist()
    ]
    return table.column("image"), labels
