"""Images in parquet files, as the Hugging Face Hub keeps image sets: a row holds a label and the bytes of a file."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from .sources import decode_image


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turns whatever pyarrow raises into a ValueError of one line."""
    try:
        yield
    except Exception as fault:  # its own kinds, OSError and others
        raise ValueError(f"{what}: {' '.join(str(fault).split())}") from fault


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """The names of a column's labels in the metadata that `datasets` writes; None where it has none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


class ParquetImages:
    """Images of parquet files by "path#row". One group of rows is held at a time, so reading in order is fast.

    Raises ImportError without pyarrow (`pip install 'favor-lab[lab]'` brings it with `datasets`).
    """

    def __init__(self) -> None:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as fault:
            raise ImportError("parquet files need pyarrow: pip install 'favor-lab[lab]'") from fault
        self._parquet, self._lock = parquet, threading.Lock()
        self._files: dict[str, Any] = {}
        self._held: tuple[str, int] | None = None
        self._rows: list[Any] = []

    def labels(self, path: Path, order: list[str]) -> list[str]:
        """The label name of each row; numbers by the names in the file's own metadata, or by `order` without any.

        Raises ValueError for a file that is no parquet or lacks the columns image and labels.
        """
        file = self._file(str(path))
        columns = file.schema_arrow.names
        column = next((name for name in ("labels", "label") if name in columns), None)
        if "image" not in columns or column is None:
            raise ValueError(f"must have the columns image and labels; it has {', '.join(columns)}")
        names = _class_names(file.schema_arrow.metadata or {}, column) or order
        with _naming("cannot be read as parquet"):
            values = file.read(columns=[column]).column(column).to_pylist()
        return [
            names[v] if isinstance(v, int) and 0 <= v < len(names) else v if isinstance(v, str) else f"number {v}"
            for v in values
        ]

    def read_bytes(self, source: str) -> bytes:
        """The image file in a row. Raises ValueError with the source where there is none."""
        path, _, row = source.rpartition("#")
        with self._lock:
            file, group, first = self._file(path), 0, 0
            while first + (size := file.metadata.row_group(group).num_rows) <= int(row):
                group, first = group + 1, first + size
            if self._held != (path, group):
                with _naming(f"{source}: cannot be read as parquet"):
                    self._rows = file.read_row_group(group, columns=["image"]).column("image").to_pylist()
                self._held = (path, group)
            cell = self._rows[int(row) - first]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise ValueError(f"{source}: the row holds no image")
        return data

    def open(self, source: str) -> Image.Image:
        """The image in a row, as `open_image` gives one."""
        return decode_image(self.read_bytes(source), source)

    def _file(self, path: str) -> Any:
        if path not in self._files:
            with _naming("cannot be read as parquet"):
                with open(path, "rb") as file:
                    pointer = file.read(23) == b"version https://git-lfs"
                if pointer:
                    raise ValueError("a Git LFS pointer, not the file itself; `git lfs pull` brings it")
                self._files[path] = self._parquet.ParquetFile(path)
        return self._files[path]
