"""A few labelled images per class: which ones train, which validate, which test.

`shots` training images for each label, and images of the same labels that training never sees. Which images test and
validate depends neither on `shots` nor on `seed`. `seed` chooses the training images alone; with one seed, more shots
include the images of fewer shots. Two harder tasks are selections as well: labels that were not in training
(`base_to_new`), and another set's images with that set's labels (`cross_dataset`).
"""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import chain

from favor_lab.activities.data import ActivityData, Record
from favor_lab.activities.faults import all_at_once, shown
from favor_lab.activities.images import Example
from favor_lab.activities.labels import check_labels, normalise_label, refuse_string


@dataclass(frozen=True)
class FewShot:
    """Three disjoint lists of examples and the closed list of their labels.

    In each list the labels alternate: `train[: len(labels)]` is one image of each label.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: list[str]

    def __post_init__(self) -> None:
        check_labels(self.labels)


@dataclass(frozen=True)
class Transfer:
    """Train on `source`, test on `target`, whose `train` and `validation` are empty; no image is in both.

    `overlap` maps labels of the source to the same labels of the target, see `label_overlap`.
    """

    source: FewShot
    target: FewShot
    overlap: dict[str, str]


def few_shot(dataset: ActivityData, shots: int, seed: int = 0, validation: int = 2, test: int = 8) -> FewShot:
    """`shots` training, `validation` and `test` images for each label of `dataset`, read and checked.

    "test" and "validation" images come from a split of that name when `dataset` has one; otherwise they are set aside
    from "train" first, so that no training image is ever one of them.

    An image with the pixels of one that is already drawn (a duplicate, as `images.fingerprint` compares them) is passed
    over, in a warning, and the next one of its label is drawn in its place: no part has an image twice, and no image of
    one part is in another. This changes no selection without duplicates. Of an image under two labels only a person can
    say which is right: it is an error that names both. `favor-lab data` lists the duplicates of a whole set, and
    `exclude` of `load_activities` leaves images out.

    Raises ValueError for counts out of range, for labels with too few images, with duplicates or without them (all of
    them, with the existing and the needed number), and for unreadable images and images under two labels (how many, the
    first 20 by name).

    >>> from favor_lab import load_activities
    >>> shots = few_shot(load_activities("sketch"), shots=1, validation=0, test=1)
    >>> len(shots.labels), len(shots.train), len(shots.validation), len(shots.test)
    (16, 16, 0, 16)
    """
    for name, count, least in (("shots", shots, 1), ("validation", validation, 0), ("test", test, 0)):
        if isinstance(count, bool) or not hasattr(count, "__index__") or count < least:
            raise ValueError(f"{name} counts images per label and must be at least {least}, not {count}")
    return _draw(dataset, {"test": test, "validation": validation, "train": shots}, seed)


def base_to_new(
    dataset: ActivityData, shots: int, seed: int = 0, validation: int = 2, test: int = 8, label_seed: int | None = None
) -> Transfer:
    """Train on half of the labels (base), test on them and on the other half (new); each half has its own label list.

    As in CoCoOp (Zhou et al., CVPR 2022, arXiv 2203.05557; `subsample_classes` of its code): the first ceil(n / 2)
    labels in the set's order are base, the others new; with `label_seed` the halves are drawn, each in the set's order.
    Test images are those of `few_shot` for the same labels. The harmonic mean usually sums up the two accuracies.

    Raises ValueError for fewer than two labels and as `few_shot` does.

    >>> from favor_lab import load_activities
    >>> halves = base_to_new(load_activities("sketch"), shots=1, validation=0, test=1)
    >>> len(halves.source.train), len(halves.target.train), len(halves.target.test), halves.overlap
    (8, 0, 8, {})
    """
    if len(dataset.labels) < 2:
        raise ValueError(f"{dataset.name} has {len(dataset.labels)} label: two halves need at least two")
    order = list(dataset.labels)
    if label_seed is not None:
        random.Random(f"base {label_seed}").shuffle(order)
    base = set(order[: math.ceil(len(order) / 2)])
    source_shots = few_shot(restrict(dataset, base), shots, seed, validation, test)
    return _transfer(source_shots, restrict(dataset, set(order) - base), seed, test, dataset.name)


def cross_dataset(
    source: ActivityData, target: ActivityData, shots: int, seed: int = 0, validation: int = 2, test: int = 8
) -> Transfer:
    """Train on `source`, test on `target`, each with its own label list; `overlap` has the labels that both share.

    As in CoCoOp's cross-dataset transfer, only the test images of `target` are used. Raises ValueError as `few_shot`
    does, and for images of `source` that `target` tests on (how many, and the first 20 by name).
    """
    source_shots = few_shot(source, shots, seed, validation, test)
    return _transfer(source_shots, target, seed, test, f"{source.name} and {target.name}")


def restrict(dataset: ActivityData, labels: Collection[str]) -> ActivityData:
    """The part of `dataset` with these labels, in its own order. Raises ValueError for unknown labels."""
    refuse_string("labels", labels)
    if unknown := [label for label in labels if label not in dataset.labels]:
        raise ValueError(f"{dataset.name} has no label {', '.join(map(repr, sorted(unknown)))}")
    return replace(
        dataset,
        labels=[label for label in dataset.labels if label in labels],
        splits={name: [r for r in records if r.label in labels] for name, records in dataset.splits.items()},
        folders={label: name for label, name in dataset.folders.items() if label in labels},
    )


def label_overlap(source: Collection[str], target: Collection[str]) -> dict[str, str]:
    """Label of `source` -> the label of `target` that is the same except for case and punctuation, never a part of it.

    >>> label_overlap(["diving", "playing guitar"], ["cliff diving", "Playing_Guitar"])
    {'playing guitar': 'Playing_Guitar'}
    """
    same = {normalise_label(label): label for label in target}
    return {label: same[normalise_label(label)] for label in source if normalise_label(label) in same}


def _transfer(source: FewShot, dataset: ActivityData, seed: int, test: int, name: str) -> Transfer:
    """`source` with test images of `dataset`; ValueError for leakage: images of the source that are tested on."""
    target = _draw(dataset, {"test": test, "validation": 0, "train": 0}, seed)
    source_images = {example.content: example for example in source.train + source.validation}
    pairs = [(source_images.get(example.content), example) for example in target.test]
    faults = [
        f"{shown(twin.source)} ({twin.label!r}) is {shown(tested.source)} ({tested.label!r}, test)"
        for twin, tested in pairs
        if twin is not None
    ]
    if faults:
        raise ValueError(
            all_at_once(
                name,
                faults,
                " (images that are learnt from and tested on; leave one of each pair out with exclude or --exclude)",
            )
        )
    return Transfer(source, target, label_overlap(source.labels, target.labels))


def _draw(dataset: ActivityData, counts: dict[str, int], seed: int) -> FewShot:
    """`counts[part]` images per label for each part, read and checked: test, validation, then training images. One
    ValueError names all unusable images, and duplicates that leave a label with too few images."""
    check_counts(dataset, counts)
    draw = _Draw(dataset)
    left = {
        label: {split: [r for r in records if r.label == label] for split, records in dataset.splits.items()}
        for label in dataset.labels
    }
    for part, count in counts.items():
        for label, pools in left.items():
            # Each choice has its own generator, so that it depends on part and label alone (training: and the seed).
            pool = pools[part if part in pools else "train"]
            random.Random(f"{part} {label} {seed if part == 'train' else ''}").shuffle(pool)
        for _ in range(count):  # in turn, so that fewer shots are the beginning of more, whatever is passed over
            for label, pools in left.items():
                draw.take(part, label, pools[part if part in pools else "train"])
    draw.finish(sum(counts.values()) * len(dataset.labels))
    return FewShot(draw.examples["train"], draw.examples["validation"], draw.examples["test"], list(dataset.labels))


def check_counts(dataset: ActivityData, counts: dict[str, int]) -> None:
    """ValueError that names every label with fewer images than its split has to give."""
    shortages = []
    for split, records in dataset.splits.items():
        served = [part for part in counts if split == (part if part in dataset.splits else "train")]
        parts = {part: counts[part] for part in served if counts[part]}
        needed, terms = sum(parts.values()), " + ".join(f"{count} {part}" for part, count in parts.items())
        available = Counter(record.label for record in records)
        shortages += [
            f"{label!r} has {available[label]} in {split}, needs {needed} ({terms})"
            for label in dataset.labels
            if available[label] < needed
        ]
    if shortages:
        message = f"{dataset.name}: too few images: {'; '.join(shortages)}. Add images or ask for fewer per label."
        raise ValueError(message)


class _Draw:
    """The images that are drawn from a set so far, and what is wrong with them."""

    def __init__(self, dataset: ActivityData) -> None:
        self.dataset = dataset
        self.examples: dict[str, list[Example]] = {part: [] for part in ("train", "validation", "test")}
        self.first: dict[bytes, tuple[str, str]] = {}  # content -> label, and the image as errors name it
        self.faults: list[str] = []
        self.contradictions = 0  # of the faults: images under two labels
        self.passed_over: dict[str, list[str]] = {}  # label -> its duplicates
        self.short: dict[str, None] = {}  # labels that have not enough images without duplicates

    def take(self, part: str, label: str, pool: list[Record]) -> None:
        """Move the first record of the pool that is no duplicate to `part`; one that cannot be read is a fault."""
        while pool:
            record = pool.pop(0)
            try:
                example = self.dataset.read(record)
                content = example.content
            except (OSError, ValueError) as fault:
                self.faults.append(str(fault))
                return
            here = f"{shown(record.source)} ({part}, {record.label!r})"
            if content not in self.first:
                self.first[content] = label, here
                self.examples[part].append(example)
                return
            twin_label, twin = self.first[content]
            if twin_label != label:
                self.contradictions += 1
                which = "find out which is right and leave the other out"
                self.faults.append(f"the same image under two labels: {twin} and {here}; {which}")
                return
            self.passed_over.setdefault(label, []).append(f"the same image twice: {twin} and {here}; keep one of them")
        self.short[label] = None

    def finish(self, count: int) -> None:
        """ValueError for everything that is wrong with `count` images; a warning of duplicates that were passed over.
        Both name the cure."""
        twins = list(chain(*self.passed_over.values()))
        cure = "`favor-lab data` with --decode --write-exclude FILE lists duplicates, --exclude FILE leaves them out"
        short = chain(*(self.passed_over.get(label, []) for label in self.short))
        faults = [*self.faults, *short]
        if faults:
            advice = f" (without duplicates too few images are left; {cure})" if self.short else ""
            if self.contradictions and not self.short:
                advice = f" ({cure})"
            raise ValueError(all_at_once(self.dataset.name, faults, f" in {count} images{advice}"))
        if twins:
            first = " | ".join(twins[:3]) + (f" | ... and {len(twins) - 3} more" if len(twins) > 3 else "")
            what = f"{len(twins)} duplicate{'s' * (len(twins) > 1)} passed over, others of their label drawn: {first}"
            warnings.warn(f"{self.dataset.name}: {what}. {cure}", stacklevel=4)
