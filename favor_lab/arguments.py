"""Values that can only go wrong: one line that names the argument, before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from numbers import Real
from typing import Any

MOST = 2**31 - 1  # a larger count is a slip
LARGEST = 1e18  # its square is still a float32
SEEDS = (-(2**63), 2**64 - 1)  # torch takes these


class ArgumentError(ValueError):
    """A value that can only go wrong. name: of the argument; the command line puts its option before the message."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


def check_count(name: str, value: Any, least: int = 0, most: int = MOST) -> None:
    """ArgumentError unless the value is a whole number from `least` to `most`.

    >>> check_count("steps", 0, least=1)
    Traceback (most recent call last):
    ...
    favor_lab.arguments.ArgumentError: steps is 0, but must be above 0
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentError(name, f"{name} is {value!r}, but must be a whole number")
    if value < least:
        needed = {0: "must not be negative", 1: "must be above 0"}.get(least, f"must be at least {least}")
        raise ArgumentError(name, f"{name} is {value}, but {needed}")
    if value > most:
        raise ArgumentError(name, f"{name} is {value}, but must be at most {most}")


def check_number(name: str, value: Any, positive: bool = False, negative: bool = False) -> None:
    """ArgumentError unless the value is a finite number, not beyond 1e18, and not negative unless `negative` says so.

    >>> check_number("beta", float("nan"))
    Traceback (most recent call last):
    ...
    favor_lab.arguments.ArgumentError: beta is nan, but must be a finite number, at most 1e+18
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(name, f"{name} is {value!r}, but must be a number")
    number: Any = value
    if positive and number <= 0:
        raise ArgumentError(name, f"{name} is {value}, but must be above 0")
    if number < 0 and not negative:
        raise ArgumentError(name, f"{name} is {value}, but must not be negative")
    if not abs(number) <= LARGEST:  # NaN is not
        raise ArgumentError(name, f"{name} is {value}, but must be a finite number, at most {LARGEST:g}")


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """ArgumentError unless the value is one of the choices."""
    if value not in choices:
        raise ArgumentError(name, f"unknown {name} {value!r}; valid: {', '.join(map(str, choices))}")


def check_list(name: str, values: Any) -> None:
    """ArgumentError for a string where a list is meant, for an empty list, and for one that has a value twice.

    >>> check_list("labels", "reading")
    Traceback (most recent call last):
    ...
    favor_lab.arguments.ArgumentError: labels is the string 'reading', but must be a list: ['reading']
    """
    if isinstance(values, str | bytes):
        raise ArgumentError(name, f"{name} is the string {values!r}, but must be a list: [{values!r}]")
    if not isinstance(values, Sequence):
        raise ArgumentError(name, f"{name} is {values!r}, but must be a list")
    if not values:
        raise ArgumentError(name, f"{name} is empty, but must name one at least")
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ArgumentError(name, f"{name} has {twice[0]!r} twice")
