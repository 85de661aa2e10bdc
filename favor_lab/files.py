"""Files that are whole or not there: written beside their place, brought to the disk, and put there in one move."""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: str | Path) -> None:
    """See that a file, or a folder's list of files, is on the disk and not on its way there."""
    if Path(path).is_dir() and os.name != "posix":
        return  # a folder cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_in_place(unfinished: Path, path: Path) -> None:
    """Move a finished file to its place, over an older one if there is one; both moves are on the disk afterwards."""
    flush(unfinished)
    os.replace(unfinished, path)
    flush(path.parent)


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a file; whatever ends the writing leaves the older one as it was.

    Text is UTF-8; half a surrogate pair, which UTF-8 has no bytes for, becomes an escape that JSON reads back.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        put_in_place(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
