"""Signals: a step counts entirely or not at all, also when Ctrl-C, SIGTERM or SIGHUP comes, once or several times,
while the weights are updated."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def uninterrupted() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C (SIGINT), SIGTERM and SIGHUP while the block runs, however often they come: half an update must not
    be saved. The function that it yields, called afterwards, raises the delayed signals. Only signals with a Python
    handler are delayed: SIGINT stays ignored where it is, as for a run in the background, and SIGTERM without a handler
    ends the process at once.

    >>> with uninterrupted() as raise_delayed:
    ...     print("the weights change")
    the weights change
    >>> raise_delayed()
    """
    delayed: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # only the main thread gets signals
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}

    def delay(number: int, frame: Any) -> None:
        delayed.append(number)

    def raise_delayed() -> None:
        for number in delayed:
            signal.raise_signal(number)

    for number in handlers:
        signal.signal(number, delay)
    try:
        yield raise_delayed
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
