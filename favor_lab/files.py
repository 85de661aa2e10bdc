"""Files: atomic writes (a temporary file in the same folder, fsync, then os.replace), JSON and JSON lines."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

Done = TypeVar("Done")

WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.6)  # seconds until a held file is tried again
HELD = {errno.EACCES, errno.EPERM, errno.EBUSY}
# what file systems of networks and in user space answer to fsync, above all of folders; EIO is a broken disk
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EISDIR, errno.EACCES, errno.EPERM}


def data_path(*parts: str) -> Path:
    """A file or folder of `data/`: inside the installed package, or beside the package in a checkout.

    >>> data_path("pocket-qwen2-vl", "config.json").is_file()
    True
    """
    package = Path(__file__).resolve().parent
    inside = package / "data"
    return (inside if inside.is_dir() else package.parent / "data").joinpath(*parts)


def patiently(do: Callable[..., Done], *arguments: Any, **options: Any) -> Done:
    """Call a function of files, again and again for two seconds while another program holds the file: on Windows a
    virus scanner or an indexer that looks at what was just written, on network folders their server."""
    for seconds in WAITS:
        try:
            return do(*arguments, **options)
        except OSError as error:
            if error.errno not in HELD:
                raise
        time.sleep(seconds)
    return do(*arguments, **options)


def sync(handle: int) -> None:
    """Wait until what was written to an open file or folder is on the disk (fsync), if its file system can do that."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
        _say_that_nothing_is_synced()


@functools.cache  # once is enough
def _say_that_nothing_is_synced() -> None:
    warnings.warn("this file system cannot flush: after a power cut, the newest files may be missing", stacklevel=2)


def flush(path: str | Path) -> None:
    """Wait until a file, or the list of files of a folder, is on the disk; see `sync`."""
    is_folder = Path(path).is_dir()
    if is_folder and os.name != "posix":
        return  # a folder cannot be opened there
    try:
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows flushes what it may write alone
    except PermissionError:
        if not is_folder:
            raise
        _say_that_nothing_is_synced()  # a folder that may be written to, but not be read
        return
    try:
        sync(handle)
    finally:
        os.close(handle)


def put_in_place(unfinished: Path, path: Path) -> None:
    """Move a finished file to its place with os.replace, over an older file if there is one; flush before and after."""
    patiently(flush, unfinished)
    patiently(os.replace, unfinished, path)
    flush(path.parent)


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a file atomically: if anything interrupts the writing, the older file stays as it was.

    Text is UTF-8; an unpaired surrogate, which UTF-8 cannot encode, becomes an escape that JSON reads back.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        put_in_place(unfinished, path)
    finally:
        patiently(unfinished.unlink, missing_ok=True)
    return path


# -------------------------------------------------------------------------------------------------------------- JSON


def jsonable(value: Any) -> Any:
    """Dataclasses, paths, arrays and tensors as JSON types; NaN and infinity, which JSON lacks, become None.

    >>> jsonable({"loss": float("nan"), "where": Path("runs")})
    {'loss': None, 'where': 'runs'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def write_json(path: str | Path, data: Any) -> Path:
    """Write data as indented JSON, atomically; see `jsonable` for what is converted."""
    return write_whole(path, json.dumps(jsonable(data), indent=1, ensure_ascii=False) + "\n")


def append_json_line(path: str | Path, data: Any) -> None:
    """Append one line of JSON to a file; it is on the disk when this returns."""
    utf8 = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    with patiently(open, path, "a", **utf8) as file:
        file.write(json.dumps(jsonable(data), ensure_ascii=False) + "\n")
        file.flush()
        sync(file.fileno())


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, [] if there is no such file; reading stops at an incomplete line, which a
    machine leaves when it dies while writing."""
    rows: list[dict[str, Any]] = []
    for line in Path(path).read_text(encoding="utf-8").split("\n") if Path(path).exists() else []:  # not U+2028
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
