"""A labelled set of images that are not read yet: records by split, and the names of their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from PIL import Image

from favor_lab.activities.images import Box, Example, read_example
from favor_lab.activities.labels import check_labels, normalise_label

# What a split may be called, in any case -> the name that it has here; the same names as in imagefolder of `datasets`.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = {name: split for split, names in SPLIT_NAMES.items() for name in names}
SPLITS_ARE_CALLED = "splits are called " + "; ".join(" or ".join(names) for names in SPLIT_NAMES.values())


@dataclass(frozen=True)
class Record:
    """An image that is not read yet: its label, its path or generator key, and the part of it that is meant.

    source  a path, "path.parquet#row", "name/split#row" or a generator key
    box     left, top, right, bottom in pixels of the image as it is stored; None: the full image
    """

    label: str
    source: str
    box: Box | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ActivityData:
    """Labelled images by split; "train" is always there, "validation" and "test" where the data has them.

    name     the set's name, or the folder's path
    labels   all labels, in a fixed order
    splits   split name -> records, in a fixed order
    open     source -> image, fully loaded (with a box: that part of it); ValueError with the source if unusable
    folders  label -> the data's own name for it, of a folder or class ("riding a bike" -> "riding_a_bike"); empty for
             drawn sets
    """

    name: str
    labels: list[str]
    splits: dict[str, list[Record]]
    open: Callable[..., Image.Image]
    folders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_labels(self.labels, f"{self.name}: ")

    def read(self, record: Record) -> Example:
        """The record's image, read and checked; a large one is not kept, but read again whenever it is asked for.
        Raises ValueError with the source when that is impossible."""
        place = (record.source,) if record.box is None else (record.source, record.box)
        return read_example(partial(self.open, *place), record.label, record.source)

    def original(self, label: str) -> str:
        """The name that the data itself has for a label. Raises ValueError for an unknown label."""
        if label not in self.labels:
            raise ValueError(f"{self.name} has no label {label!r}; its labels are {', '.join(self.labels)}")
        return self.folders.get(label, label)

    def label_of(self, name: str) -> str:
        """The label for one of the data's own names, or for a label in other case or punctuation; never for a part.
        Raises ValueError for an unknown name and for one that could be two labels.

        >>> from favor_lab import load_activities
        >>> load_activities("cartoon").label_of("Riding_a_Bike")
        'riding a bike'
        """
        own = normalise_label(name)
        names = {label: (label, self.folders.get(label, label)) for label in self.labels}
        matches = {label for label, spellings in names.items() if own in map(normalise_label, spellings)}
        if len(matches) != 1:
            what = f"could be {' or '.join(map(repr, sorted(matches)))}" if matches else "is none of its names"
            raise ValueError(f"{self.name}: {name!r} {what}; its labels are {', '.join(self.labels)}")
        return matches.pop()


def spaced(name: str) -> str:
    """A folder's or a class's name as a label: spaces for underscores.

    >>> spaced("riding_a_bike")
    'riding a bike'
    """
    return " ".join(name.replace("_", " ").split())


def readable(name: str) -> str:
    """A public set's own name as a label: spaces for underscores, lower case except for abbreviations.

    >>> readable("riding_a_bike"), readable("Apply_Eye_Makeup"), readable("watching_TV")
    ('riding a bike', 'apply eye makeup', 'watching TV')
    """
    return " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in spaced(name).split())
