"""What the loop needs that is not GRPO: optional arguments, seeds, the order of the images, the learning rate, a
clock, and signals (Ctrl-C, SIGTERM)."""

from __future__ import annotations

import functools
import inspect
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from favor_lab.grpo.memory import is_out_of_memory, out_of_memory
from favor_lab.grpo.records import GRPOSettings


def ask(function: Callable[..., Any], *arguments: Any, **offered: Any) -> Any:
    """Call a step with its arguments, and with those of the offered ones that it names (all, if it has **kwargs).

    >>> def scaled(rewards, eps=0):
    ...     return rewards + eps
    >>> ask(scaled, 1, eps=2, seed=3), ask(functools.partial(scaled, eps=5), 1, eps=2, seed=3)
    (3, 6)
    """
    fixed = function.keywords if isinstance(function, functools.partial) else {}
    taken = {name: value for name, value in offered.items() if name not in fixed and accepts(function, name)}
    return function(*arguments, **taken)


def accepts(function: Callable[..., Any], *names: str) -> bool:
    """Whether a function has a parameter of one of these names, or takes any keyword.

    >>> accepts(ask, "function"), accepts(accepts, "seed", "names"), accepts(seed_for, "seed")
    (True, True, False)
    """
    parameters = inspect.signature(function).parameters
    return any(name in parameters for name in names) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


LARGEST = 1e18  # of a reward: the sum of squares of a group of them is still a float32


def check_scores(name: str, scores: Iterable[Any], count: int) -> list[Any]:
    """What a reward function gave, as a list. ValueError, with its name, unless it is `count` finite numbers that are
    small enough to have a spread.

    >>> check_scores("format_reward", [1.0, None], 2)
    Traceback (most recent call last):
    ...
    ValueError: reward function format_reward gave None for row 1; 2 finite numbers, none beyond 1e+18, are needed
    """
    scores = list(scores)
    bad = [row for row, score in enumerate(scores) if score is None or not abs(score) <= LARGEST]
    if bad or len(scores) != count:
        problem = f"{scores[bad[0]]} for row {bad[0]}" if bad else f"{len(scores)} numbers"
        needed = f"{count} finite numbers, none beyond {LARGEST:g}, are needed"
        raise ValueError(f"reward function {name} gave {problem}; {needed}")
    return scores


def seed_for(*parts: Any) -> int:
    """A seed from anything printable, the same on every machine.

    >>> seed_for(0, "rollout", 1) == seed_for(0, "rollout", 1) != seed_for(0, "rollout", 2)
    True
    """
    return random.Random("/".join(map(str, parts))).getrandbits(63)


def draw(labels: Sequence[str], turn: int, count: int, seed: int) -> list[int]:
    """Indices of the images of one rollout: number `turn * count` to `(turn + 1) * count` of an endless order in
    which every image comes once an epoch and the labels take turns, both shuffled anew each epoch.

    >>> labels = ["reading", "running", "fishing"] * 2
    >>> turns = [draw(labels, turn, 3, seed=0) for turn in (0, 1)]
    >>> [sorted(labels[i] for i in turn) for turn in turns]
    [['fishing', 'reading', 'running'], ['fishing', 'reading', 'running']]
    >>> sorted(turns[0] + turns[1])
    [0, 1, 2, 3, 4, 5]
    """
    places = range(turn * count, (turn + 1) * count)
    orders = {epoch: epoch_order(labels, epoch, seed) for epoch in {place // len(labels) for place in places}}
    return [orders[place // len(labels)][place % len(labels)] for place in places]


def epoch_order(labels: Sequence[str], epoch: int, seed: int) -> list[int]:
    """All indices once, one image of each label after another."""
    shuffler = random.Random(seed_for(seed, "epoch", epoch))
    piles = [[i for i, label in enumerate(labels) if label == name] for name in sorted(set(labels))]
    for pile in piles:
        shuffler.shuffle(pile)
    order: list[int] = []
    while piles:
        shuffler.shuffle(piles)  # the labels in a new order each time
        order += [pile.pop() for pile in piles]
        piles = [pile for pile in piles if pile]
    return order


def learning_rate(step: int, settings: GRPOSettings) -> float:
    """Learning rate of optimiser step `step`, counted from 0: up to the peak, then down, never 0.

    >>> [learning_rate(step, GRPOSettings(steps=4, warmup_steps=2, learning_rate=1.0)) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    climb = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    done = max(0, step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)  # 0 to below 1
    fall = {"linear": 1 - done, "constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
    return settings.learning_rate * climb * fall


class Clock:
    """Wall time by phase; an error about a number, or about memory, in a phase is given its step and phase.

    lower: says what to lower when the phase that it is given runs out of memory.

    >>> with Clock(7, torch.device("cpu"))("loss"):
    ...     raise FloatingPointError("the loss is nan")
    Traceback (most recent call last):
    ...
    FloatingPointError: step 7, phase loss: the loss is nan
    """

    def __init__(self, step: int, device: torch.device, lower: Callable[[str], str] | None = None):
        self.step, self.device, self.lower = step, device, lower
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}, phase {phase}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(error, self.step, phase, self.device, self.lower) from error
        if self.device.type == "cuda":  # work there is queued: wait, so that each phase is charged its own
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


@contextmanager
def uninterrupted() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C (SIGINT) and SIGTERM while the block runs; the function that it yields, called afterwards, raises
    the delayed signals. A second Ctrl-C interrupts at once.

    Only signals with a Python handler are delayed. So SIGINT stays ignored where it is, as for a run in the background,
    and SIGTERM ends the process at once unless the program has a handler for it.

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
