"""Signals: a step counts entirely or not at all, also when Ctrl-C or SIGTERM comes while the weights are updated."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C (SIGINT) and SIGTERM while the block runs; the function that it yields, called afterwards, raises
    the delayed signals. A second Ctrl-C interrupts at once. Only signals with a Python handler are delayed: SIGINT
    stays ignored where it is, as for a run in the background, and SIGTERM without a handler ends the process at once.

    >>> with uninterrupted() as raise_delayed:
    ...     print("the weights change")
    the weights change
    >>> raise_delayed()
    """
    delayed: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # only the main thread gets signals
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}

    def delay(number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in delayed:
            handlers[number](number, frame)
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
