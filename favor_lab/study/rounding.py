"""Numbers as text, rounded so that no tie depends on the machine."""

from __future__ import annotations

from decimal import Decimal
from typing import Any


def rounded(number: Any, digits: int = 1, signed: bool = False) -> str:
    """A number with this many decimals; ties go to the even digit, as in `round` and IEEE 754.

    A share of images is often a tie: 92 of 320 are 28.75 %, but `100 * (92 / 320)` is 28.749999999999996 in floats,
    where the order of the operations decides. So the number is first rounded to nine decimals.

    >>> f"{100 * (92 / 320):.1f}", rounded(100 * (92 / 320)), rounded(28.75), rounded(86.25)
    ('28.7', '28.8', '28.8', '86.2')
    >>> rounded(-1.25, signed=True), rounded(-1e-17, signed=True), rounded(0.125, 2)
    ('-1.2', '+0.0', '0.12')
    """
    exact = Decimal(f"{number:.9f}") + 0  # + 0: no negative zero
    return f"{exact:{'+' if signed else ''}.{digits}f}"


def percent(share: Any) -> str:
    """A share as it is printed, or a dash where there is none.

    >>> percent(0.7709), percent(None)
    ('77.1 %', '-')
    """
    return "-" if share is None else f"{rounded(100 * share)} %"
