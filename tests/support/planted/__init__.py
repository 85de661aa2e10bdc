"""Wrong answers to the labs' exercises, the classic mistakes: the checks must reject each, and say what to look at."""

from typing import NamedTuple


class Wrong(NamedTuple):
    """One wrong answer."""

    mistake: str  #: what is wrong, in a few words, for the table
    answer: str  #: source that stands in place of the whole solution cell
    hint: str  #: regular expression for what the check's message must say


def changed(source: str, old: str, new: str) -> str:
    """A right answer with one mistake put in; ValueError unless `old` stands in it exactly once."""
    if source.count(old) != 1:
        raise ValueError(f"{old!r} stands {source.count(old)} times in the answer, not once")
    return source.replace(old, new)
