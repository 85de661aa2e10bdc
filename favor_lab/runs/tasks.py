"""Tasks of the study: what a cell learns from and is tested on, where that is not simply all labels of a set."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from favor_lab.activities import base_to_new, few_shot, load_activities
from favor_lab.activities.data import ActivityData
from favor_lab.activities.fewshot import FewShot
from favor_lab.activities.images import Example

BASE_TO_NEW = "base-to-new"
#: names without a meaning, one for each of the sixteen drawn activities, in their order
MEANINGLESS = (
    "dolam", "feru", "gabin", "hosk", "jelto", "kivar", "lumo", "mesk",
    "nadri", "opel", "pirun", "quast", "rovi", "selm", "tavo", "wenk",
)  # fmt: skip
Tests = dict[str, tuple[list[Example], list[str]]]  # by ending of the set's name: test images, labels in the prompt


@dataclass(frozen=True)
class Task:
    """What is learnt and tested in place of all labels of a set."""

    about: str
    images: Callable[[ActivityData, int, int, int], tuple[FewShot, Tests]]  #: of a set, shots, seed, test images


def base_and_new(
    data: ActivityData, shots: int, seed: int, test: int, label_seed: int | None = None
) -> tuple[FewShot, Tests]:
    """Half of the labels are learnt; each half is tested by itself."""
    halves = base_to_new(data, shots, seed, validation=0, test=test, label_seed=label_seed)
    parts = {"": halves.source, ", new labels": halves.target}
    return halves.source, {name: (part.test, part.labels) for name, part in parts.items()}


def new_activities(data: ActivityData, shots: int, seed: int, test: int) -> tuple[FewShot, Tests]:
    """The activities of a drawn set that no pre-training has named. ValueError for a set without them."""
    new = few_shot(load_activities(f"{data.name}-new"), shots, seed, validation=0, test=test)
    return new, {"": (new.test, new.labels)}


def renamed(data: ActivityData, shots: int, seed: int, test: int) -> tuple[FewShot, Tests]:
    """All labels under names without a meaning: nothing but the shots says what they stand for."""
    own = few_shot(data, shots, seed, validation=0, test=test)
    if len(own.labels) > len(MEANINGLESS):
        raise ValueError(f"{data.name} has {len(own.labels)} labels, and there are {len(MEANINGLESS)} names for them")
    names = dict(zip(own.labels, MEANINGLESS, strict=False))
    train, test_images = ([replace(e, label=names[e.label]) for e in part] for part in (own.train, own.test))
    other = FewShot(train, [], test_images, list(names.values()))
    return other, {"": (other.test, other.labels)}


def noisy_labels(data: ActivityData, shots: int, seed: int, test: int, share: float = 0.25) -> tuple[FewShot, Tests]:
    """All labels, a share of the training images under a wrong one, each of another label."""
    own = few_shot(data, shots, seed, validation=0, test=test)
    dice, train = random.Random(f"noisy labels {seed}"), list(own.train)
    for place in sorted(dice.sample(range(len(train)), round(share * len(train)))):
        wrong = dice.choice([label for label in own.labels if label != train[place].label])
        train[place] = replace(train[place], label=wrong)
    return replace(own, train=train), {"": (own.test, own.labels)}


def imbalanced(data: ActivityData, shots: int, seed: int, test: int) -> tuple[FewShot, Tests]:
    """As many training images as with `shots` for each label, but one for each label of one half (by the seed)
    and the rest for the others."""
    own = few_shot(data, 2 * shots - 1, seed, validation=0, test=test)
    labels = list(own.labels)
    random.Random(f"imbalanced {seed}").shuffle(labels)
    rare, kept = set(labels[: len(labels) // 2]), list[Example]()
    for example in own.train:
        if example.label not in rare or example.label not in {other.label for other in kept}:
            kept.append(example)
    return replace(own, train=kept), {"": (own.test, own.labels)}


TASKS = {
    BASE_TO_NEW: Task("half of the labels learnt; the others: new", base_and_new),
    "base-to-new-2": Task("another half of the labels learnt", partial(base_and_new, label_seed=2)),
    "base-to-new-3": Task("a third choice of half of the labels", partial(base_and_new, label_seed=3)),
    "new-activities": Task("four activities that no pre-training has named", new_activities),
    "renamed": Task("all labels under names without a meaning", renamed),
    "noisy-labels": Task("one training image in four under a wrong label", noisy_labels),
    "imbalanced": Task("half of the labels have one training image each, the others the rest", imbalanced),
}
