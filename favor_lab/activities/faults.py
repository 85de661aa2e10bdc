"""Everything that is wrong with a set on disk, in one message that any terminal can print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from favor_lab.terminal import shown as shown  # each of the faults names its file so

MOST_NAMED = 20  # faults that an error lists; `favor-lab data` lists all


@dataclass(frozen=True)
class Fault:
    """Something wrong with a set's folder."""

    kind: str  # its category, a key of `checks.KINDS`
    where: str  # file, or list and line, relative to the root
    what: str  # what is wrong there, and what to do
    fatal: bool = True  # whether training would fail because of it
    cure: tuple[str, ...] = ()  # images whose exclusion would cure it, relative to the root

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def all_at_once(name: str, faults: Sequence[object], note: str = "") -> str:
    """One message for all faults of a set: how many, one line for each of the first 20, and how many more.

    >>> print(all_at_once("mine", [f"{i}.png: the file is empty" for i in range(22)], " in 30 images"))
    ... # doctest: +ELLIPSIS
    mine: 22 faults in 30 images:
      0.png: the file is empty
    ...
      19.png: the file is empty
      ... and 2 more
    """
    lines = [str(fault) for fault in faults[:MOST_NAMED]]
    if len(faults) > MOST_NAMED:
        lines.append(f"... and {len(faults) - MOST_NAMED} more")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{name}: {count}{note}:\n  " + "\n  ".join(lines)


def some(paths: Sequence[str]) -> str:
    """The first five of many paths."""
    return ", ".join(paths[:5]) + ", ..." * (len(paths) > 5)


def utf8(name: str) -> bool:
    """Whether a file's name can be written in UTF-8, as reports and records are."""
    return name.encode(errors="ignore").decode() == name
