"""Names as imprecise as on the web, and the lists that offer them.

Eight activities are mostly named right, the other eight mostly carry a name of their nearest confusion, and some names
are random. A list calls each activity by one of its names; some of its entries are invented words, so that reading the
list, and not knowing it, is what answers the question.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from favor_lab.activities.world import ACTIVITIES, NAMES, NONE_OF_THESE

NEIGHBOUR = {
    "applauding": "waving hands",
    "climbing": "writing on a board",
    "drinking": "phoning",
    "fishing": "shooting an arrow",
    "holding an umbrella": "phoning",
    "jumping": "running",
    "phoning": "drinking",
    "pushing a cart": "walking the dog",
    "reading": "taking photos",
    "riding a bike": "running",
    "running": "jumping",
    "shooting an arrow": "fishing",
    "taking photos": "reading",
    "walking the dog": "pushing a cart",
    "waving hands": "applauding",
    "writing on a board": "reading",
}
WELL_NAMED = (
    "climbing",
    "fishing",
    "holding an umbrella",
    "jumping",
    "pushing a cart",
    "riding a bike",
    "running",
    "walking the dog",
)
# invented words: an onset, a vowel and a coda for each syllable
ONSETS = "b br c ch cl cr d dr f fl fr g gl gr h j k l m n p ph pl pr qu r".split()
ONSETS += "s sc sh sk sl sm sn sp st str sw t th tr tw v w wh y z".split()
VOWELS = "a e i o u a e i o u ai ea ee oa oo ou".split()
CODAS = ["", "", "", *"n r s l ng sh th st nd rt p d b ll".split()]


@dataclass(frozen=True)
class Rates:
    """How often an activity is named right, how often by its neighbour; the rest is random."""

    known: tuple[float, float] = (0.66, 0.20)  # seen in an image, one of `WELL_NAMED`
    confused: tuple[float, float] = (0.27, 0.48)  # seen, one of the others
    read: tuple[float, float] = (0.88, 0.06)  # read of in a text

    def of(self, label: str, read: bool = False) -> tuple[float, float]:
        return self.read if read else self.known if label in WELL_NAMED else self.confused


LOOSE, LOOSER = Rates(), Rates((0.60, 0.26), (0.20, 0.58))
FIXED = Rates((0.98, 0.02), (0.02, 0.98))  # nearly always the same mistakes


def loose_activity(
    label: str, r: Random, among: tuple[str, ...] = ACTIVITIES, read: bool = False, rates: Rates = LOOSE
) -> str:
    """An activity as people on the web would take it for, one of those offered."""
    right, neighbour = rates.of(label, read)
    while True:
        dice = r.random()
        name = label if dice < right else NEIGHBOUR[label] if dice < right + neighbour else r.choice(ACTIVITIES)
        if name in among:
            return name


def invented_name(r: Random) -> str:
    """One to three words that nobody has met: names to be read, not known.

    >>> invented_name(Random(2))
    'creas'
    """
    words = []
    for _ in range(r.choice((1, 2, 2, 3))):
        words.append("".join(r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS) for _ in range(r.choice((1, 1, 2)))))
    if r.random() < 0.6:
        words[0] += "ing"
    return " ".join(words)


@dataclass(frozen=True)
class Offer:
    """A list of names: which activity each entry stands for, None for an invented name and for "none of these"."""

    entries: dict[str, str | None]

    @property
    def names(self) -> list[str]:
        return list(self.entries)

    @property
    def activities(self) -> dict[str, str]:
        """Activity -> its entry."""
        return {activity: name for name, activity in self.entries.items() if activity}

    @property
    def invented(self) -> list[str]:
        return [name for name, activity in self.entries.items() if not activity and name != NONE_OF_THESE]


def offer(label: str | None, size: int, invented: int, r: Random) -> Offer:
    """A list of `size` names in any order that mostly holds an activity (`label`); `invented` of them nobody has met.

    Without the activity, at least one entry is invented or "none of these".
    """
    if size >= len(ACTIVITIES):
        chosen = list(ACTIVITIES)
    else:
        there = label is not None and r.random() < 0.88
        others = r.sample([activity for activity in ACTIVITIES if activity != label], size - invented - there)
        chosen = [label, *others] if there and label else others
    by_label = size >= len(ACTIVITIES) or r.random() < 0.5
    names = {activity if by_label else r.choice(NAMES[activity]): activity for activity in chosen}
    entries: dict[str, str | None] = {**names, **dict.fromkeys(invented_name(r) for _ in range(size - len(names)))}
    missing = label not in chosen
    if r.random() < (0.5 if missing else 0.08) or missing and size <= len(names):
        entries[NONE_OF_THESE] = None
    shuffled = list(entries.items())
    r.shuffle(shuffled)
    return Offer(dict(shuffled))


def loose_entry(label: str | None, offered: Offer, r: Random, read: bool = False, rates: Rates = LOOSE) -> str:
    """The entry of a list that a loose description of an activity picks. Of a scene that shows none (`label` None), or
    none of the list's: "none of these" where that is offered, otherwise an entry that is not known to be wrong."""
    activities = offered.activities
    if label in activities:
        if offered.invented and r.random() < 0.04:
            return r.choice(offered.invented)
        return activities[loose_activity(label, r, tuple(activities), read, rates)]
    if NONE_OF_THESE in offered.entries and r.random() < 0.9:
        return NONE_OF_THESE
    if label and NEIGHBOUR[label] in activities and r.random() < rates.of(label, read)[1]:
        return activities[NEIGHBOUR[label]]
    return r.choice(offered.invented or offered.names)
