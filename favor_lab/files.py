"""Files: atomic writes (a temporary file in the same folder, fsync, then os.replace), locks, JSON and JSON lines."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

Done = TypeVar("Done")

WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.6)  # seconds until a held file is tried again
HELD = {errno.EACCES, errno.EPERM, errno.EBUSY}
# what file systems of networks and in user space answer to fsync, above all of folders; EIO is a broken disk
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EISDIR, errno.EACCES, errno.EPERM}

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

UNFINISHED = re.compile(r".+\.[0-9]+\.tmp|\.tmp[A-Za-z0-9]{6}")
LOCK = ".lock"  # the file of a folder that is locked
IS_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # by another one; other numbers: no locks here
DEVICES = re.compile(r"(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]) *(\..*)?", re.IGNORECASE)  # Windows' own names
SIGNS = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$')  # that no name has there, or that it drops


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


def check_name(path: str | Path) -> None:
    """ValueError unless a new folder of this name is good for all that write there: safetensors writes to names in
    UTF-8 alone, and Windows has names of devices and signs that no name has."""
    text, parts = str(path), Path(path).parts[bool(Path(path).anchor) :]
    if text.encode(errors="ignore").decode() != text:
        raise ValueError(f"{text!r} is not UTF-8, which files of weights need: name another place")
    for part in parts if os.name == "nt" else ():
        if part != ".." and (DEVICES.fullmatch(part) or SIGNS.search(part)):
            raise ValueError(f"{text}: Windows has no files called {part!r}: name another place")


def quoted(path: str | Path) -> str:
    """A path as one word of a command that can be pasted into this system's shell.

    >>> quoted("runs/mine"), quoted("my runs")
    ('runs/mine', "'my runs'")
    """
    return shlex.quote(str(path)) if os.name == "posix" else subprocess.list2cmdline([str(path)])


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


def sweep(folder: str | Path) -> None:
    """Remove what writers that were killed left in a folder: their unfinished files, and those of safetensors."""
    for leftover in (*Path(folder).glob("*.tmp"), *Path(folder).glob(".tmp*")):
        if UNFINISHED.fullmatch(leftover.name) and leftover.is_file():
            leftover.unlink()


def digest(path: str | Path) -> str:
    """SHA-256 of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -------------------------------------------------------------------------------------------------------------- locks


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, while the block runs, so that nobody else who asks writes into it.

    The lock is that of the operating system on the file `.lock`, which holds the process id and is removed afterwards.
    It ends with its process, however that ends: after a kill the folder is free again.
    Raises BlockingIOError, with the process id, if the folder is held. Where the file system has no locks, a warning
    says so and the block runs.
    """
    path = Path(folder) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, is_posix = _take(path), os.name == "posix"
    try:
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        if not is_posix:
            os.close(handle)  # Windows removes no open file
        with suppress(OSError):
            path.unlink()
        if is_posix:
            os.close(handle)  # only now: the file that was removed is this one


def _take(path: Path) -> int:
    """Open and lock the file."""
    for _ in range(10):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise type(error)(f"cannot write to the folder {path.parent}: {error.strerror}") from error
        try:
            _lock(handle)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass  # whoever held it removed it between the two lines: try again
        except OSError as error:
            if error.errno not in IS_HELD:
                missing = f"the file system of {path.parent} has no locks ({error.strerror})"
                warnings.warn(f"{missing}: see to it that nothing else writes there", stacklevel=4)
                return handle
            holder = os.read(handle, 20).decode(errors="replace") or "that has just started"
            os.close(handle)
            busy = f"{path.parent} is in use by process {holder}"
            raise BlockingIOError(f"{busy}: wait until that one has ended, or name another folder") from None
        os.close(handle)
    raise BlockingIOError(f"{path.parent} is in use: other processes take it again and again")


def _lock(handle: int) -> None:
    """Lock an open file at once, for this handle alone; OSError if another has it, or if there are no locks."""
    if sys.platform == "win32":
        os.lseek(handle, 2**30, os.SEEK_SET)  # a byte far behind the text: others can still read that
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
    """The rows of a file of JSON lines, [] if there is no such file; without an incomplete last line, which a machine
    leaves when it dies while writing. ValueError, with the number of the line, for any other damage."""
    rows: list[dict[str, Any]] = []
    *lines, last = Path(path).read_bytes().split(b"\n") if Path(path).exists() else [b""]  # not at U+2028
    for number, line in enumerate([*lines, last] if last else lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it holds no object")
            rows.append(row)
        except ValueError as error:
            if number > len(lines):  # no line end: it was being written
                break
            raise ValueError(f"line {number} of {path} is damaged: {error}") from error
    return rows
