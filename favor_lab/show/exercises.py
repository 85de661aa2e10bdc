"""Checks of a notebook's exercises, run in the cell below the student's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def check(name: str, *answers: Any) -> Callable[[Callable[..., None]], str]:
    """A decorator that runs a check on an exercise's answers at once and prints the verdict: passed, not answered yet,
    or what the first failing assert says. The decorated name becomes the verdict, a string.

    >>> def double(x):
    ...     return x + 2
    >>> @check("5.1", double)
    ... def verdict(double):
    ...     assert double(2) == 4, "twice 2 is 4"
    ...     assert double(3) == 6, "twice 3 is 6: is 2 added?"
    Exercise 5.1, not yet: twice 3 is 6: is 2 added?
    """

    def run(test: Callable[..., None]) -> str:
        try:
            test(*answers)
        except NotImplementedError:
            verdict = f"Exercise {name} has no answer yet."
        except AssertionError as error:
            verdict = f"Exercise {name}, not yet: {error}"
        except Exception as error:  # what the answer raises is a part of the verdict
            verdict = f"Exercise {name}, not yet: your code raises {type(error).__name__}: {error}"
        else:
            verdict = f"Exercise {name} passed."
        print(verdict)
        return verdict

    return run
