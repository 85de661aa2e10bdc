"""A few labelled images a class: who trains, who validates, who tests.

The task of few-shot activity recognition: `shots` training images for each label, and images of the same
labels that training never sees. Which images test and validate depends neither on `shots` nor on `seed`;
`seed` chooses the training images alone, and more shots with one seed contain the fewer.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from .sources import ActivityData, Record


@dataclass(frozen=True)
class Example:
    """One image with its label; `source` (a path or a generator key) appears in every error about it."""

    image: Image.Image
    label: str
    source: str


@dataclass(frozen=True)
class FewShot:
    """Three disjoint lists of examples and the closed list of labels they are named from.

    Each list takes the labels in turn: `train[: len(labels)]` is one image of each label.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: list[str]


def few_shot(dataset: ActivityData, shots: int, seed: int = 0, validation: int = 2, test: int = 8) -> FewShot:
    """`shots` training, `validation` and `test` images for each label of `dataset`, read and checked.

    A split of its own ("test", "validation") is drawn from when `dataset` has one; otherwise these images are
    set aside from "train" first, so that no training image is ever one of them.

    Raises ValueError for counts that make no sense, for labels with too few images (all of them, with what
    is there and what is needed), and for images that cannot be used: unreadable ones, and pairs with the
    same pixels (all of them, by name).

    >>> from favor_lab.activities import load_activities
    >>> shots = few_shot(load_activities("sketch"), shots=1, validation=0, test=1)
    >>> len(shots.labels), len(shots.train), len(shots.validation), len(shots.test)
    (16, 16, 0, 16)
    """
    for name, count, least in (("shots", shots, 1), ("validation", validation, 0), ("test", test, 0)):
        if count < least:
            raise ValueError(f"{name} counts images per label and must be at least {least}, not {count}")
    counts = {"test": test, "validation": validation, "train": shots}
    _check_counts(dataset, counts)
    examples = _read_all(dataset, _select(dataset, counts, seed))
    return FewShot(examples["train"], examples["validation"], examples["test"], list(dataset.labels))


def _pool(dataset: ActivityData, part: str) -> str:
    """The split that a part is drawn from."""
    return part if part in dataset.splits else "train"


def _check_counts(dataset: ActivityData, counts: dict[str, int]) -> None:
    """ValueError that names every label with fewer images than its split has to give."""
    shortages = []
    for split, records in dataset.splits.items():
        parts = {part: count for part, count in counts.items() if count and _pool(dataset, part) == split}
        needed, terms = sum(parts.values()), " + ".join(f"{count} {part}" for part, count in parts.items())
        available = Counter(record.label for record in records)
        shortages += [
            f"{label!r} has {available[label]} in {split}, needs {needed} ({terms})"
            for label in dataset.labels
            if available[label] < needed
        ]
    if shortages:
        raise ValueError(
            f"{dataset.name}: too few images: {'; '.join(shortages)}. Add images or ask for fewer per label."
        )


def _select(dataset: ActivityData, counts: dict[str, int], seed: int) -> dict[str, list[Record]]:
    """`counts[part]` records per label for each part, labels in turn; each part takes from what is left."""
    per_label: dict[str, list[list[Record]]] = {part: [] for part in counts}
    for label in dataset.labels:
        left = {split: [r for r in records if r.label == label] for split, records in dataset.splits.items()}
        for part, count in counts.items():
            pool = left[_pool(dataset, part)]
            # A generator for each choice, so that only its part and label (training: and the seed) move it.
            random.Random(f"{part} {label} {seed if part == 'train' else ''}").shuffle(pool)
            per_label[part].append(pool[:count])
            del pool[:count]
    return {part: list(chain(*zip(*lists, strict=True))) for part, lists in per_label.items()}


def _read_all(dataset: ActivityData, records: dict[str, list[Record]]) -> dict[str, list[Example]]:
    """Reads every selected image, and refuses all unusable ones and all repeated ones at once."""
    examples: dict[str, list[Example]] = {part: [] for part in records}
    first: dict[bytes, str] = {}
    faults = []
    for part, chosen in records.items():
        for record in chosen:
            try:
                example = dataset.read(record)
            except (OSError, ValueError) as fault:
                faults.append(str(fault))
                continue
            here = f"{record.source} ({part}, {record.label!r})"
            twin = first.setdefault(_fingerprint(example.image), here)
            if twin != here:
                faults.append(f"the same image twice: {twin} and {here}; keep one of them")
            examples[part].append(example)
    if faults:
        total = sum(map(len, records.values()))
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ValueError(f"{dataset.name}: {count} in {total} images:\n  " + "\n  ".join(faults))
    return examples


def _fingerprint(image: Image.Image) -> bytes:
    """Equal for images with equal pixels, whatever files they come from."""
    header = repr((image.mode, image.size, image.getpalette())).encode()
    return hashlib.sha256(header + image.tobytes()).digest()
