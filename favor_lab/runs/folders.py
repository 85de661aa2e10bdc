"""New run folders: of several runs that start together, each gets one of its own, or is told that it is taken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from favor_lab.files import locked
from favor_lab.study.run_folder import RunFolder


@contextmanager
def new_run_folder(out: Path | None, default: Path) -> Iterator[RunFolder]:
    """A new run folder, held by this run: `out` or, without it, the default path, with a number if that is taken. It is
    removed again if nothing was written to it."""
    path = out or make_new(default)
    try:
        RunFolder.create(path)
        with locked(path):
            yield RunFolder.create(path)  # once more: another run may have begun and ended there in between
    finally:
        with suppress(OSError):
            Path(path).rmdir()  # only if it is empty


def make_new(path: Path) -> Path:
    """Make the folder or, if it exists, the first of path-2, path-3 ... that does not: of several processes each gets
    one of its own."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    for i in itertools.count(1):
        candidate = path if i == 1 else path.with_name(f"{path.name}-{i}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        except OSError:
            pass  # `RunFolder.create` says why
        return candidate
    raise AssertionError
