"""Progress of something that takes a while: a bar in a terminal or a notebook, a line per tenth in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from favor_lab.terminal import is_terminal, print_line, shown

LINES = 10  # at most, per run through a log file


def progress_bar(
    iterable: Iterable[Any] | None = None,
    desc: str | None = None,
    total: int | None = None,
    *,
    unit: str = "it",
    initial: int = 0,
    leave: bool = True,
    show: bool = True,
) -> Any:
    """tqdm's bar where standard error is a terminal or the code runs in a notebook; `ProgressLines` everywhere else.

    The parameters are tqdm's, but for show: False for nothing at all.
    """
    from tqdm import auto, std

    in_notebook = auto.notebook_tqdm is not std.tqdm
    if show and not in_notebook and not is_terminal(sys.stderr):
        return ProgressLines(iterable, desc, total, unit=unit, initial=initial)

    class Bar(auto.tqdm):
        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            super().set_postfix_str(shown(s), refresh)

    return Bar(iterable, desc, total, unit=unit, initial=initial, leave=leave, disable=not show)


class ProgressLines:
    """Progress as lines on standard error, one per tenth of the whole. It is used as a tqdm bar is.

    >>> import contextlib
    >>> with contextlib.redirect_stderr(sys.stdout):
    ...     for _ in ProgressLines(range(12), "check", unit="image", clock=lambda: 0.0):
    ...         pass  # doctest: +ELLIPSIS
    check: 2 of 12 images, 0:00
    check: 3 of 12 images, 0:00
    ...
    check: 12 of 12 images, 0:00
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        *,
        unit: str = "it",
        initial: int = 0,
        clock: Any = time.monotonic,
    ):
        self.iterable, self.desc, self.unit, self.n = iterable, desc, unit, initial
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.postfix, self._clock, self._start = "", clock, clock()

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable or ():
            yield item
            self.update()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        """Text for the end of the next line."""
        self.postfix = shown(text)

    def update(self, n: int = 1) -> None:
        """n more are done; a line, if with them another tenth is done."""
        before, self.n = self.n, self.n + n
        if self.total and LINES * before // self.total < LINES * self.n // self.total:
            print_line(str(self), sys.stderr)

    def __str__(self) -> str:
        minutes, seconds = divmod(int(self._clock() - self._start), 60)
        start = f"{self.desc}: " if self.desc else ""
        parts = [f"{start}{self.n} of {self.total} {self.unit}s", f"{minutes}:{seconds:02}", self.postfix]
        return ", ".join(filter(None, parts))
