"""What a step's number alone decides: its seeds, its images, its learning rate. A checkpoint need not hold them, and a
resumed run is identical to one without interruption."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from favor_lab.grpo.support.settings import TrainSettings


def seed_for(*parts: Any) -> int:
    """A seed from anything printable, the same on every machine.

    >>> seed_for(0, "rollout", 1) == seed_for(0, "rollout", 1) != seed_for(0, "rollout", 2)
    True
    """
    return random.Random("/".join(map(str, parts))).getrandbits(63)


def draw(labels: Sequence[str], rollout: int, count: int, seed: int) -> list[int]:
    """Indices of the `count` images of rollout number `rollout`, counted from 0. Every image comes once per epoch;
    epochs are reshuffled; within an epoch the labels alternate.

    >>> labels = ["reading", "running", "fishing"] * 2
    >>> drawn = [draw(labels, rollout, 3, seed=0) for rollout in (0, 1)]
    >>> [sorted(labels[i] for i in indices) for indices in drawn]
    [['fishing', 'reading', 'running'], ['fishing', 'reading', 'running']]
    >>> sorted(drawn[0] + drawn[1])
    [0, 1, 2, 3, 4, 5]
    """
    places = range(rollout * count, (rollout + 1) * count)  # in the sequence of all epochs, one after another
    orders = {epoch: epoch_order(labels, epoch, seed) for epoch in {place // len(labels) for place in places}}
    return [orders[place // len(labels)][place % len(labels)] for place in places]


def epoch_order(labels: Sequence[str], epoch: int, seed: int) -> list[int]:
    """All indices once, shuffled, the labels alternating."""
    shuffler = random.Random(seed_for(seed, "epoch", epoch))
    by_label = [[i for i, label in enumerate(labels) if label == name] for name in sorted(set(labels))]
    for indices in by_label:
        shuffler.shuffle(indices)
    order: list[int] = []
    while by_label := list(filter(None, by_label)):
        shuffler.shuffle(by_label)  # the labels in a new order each time
        order += [indices.pop() for indices in by_label]
    return order


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning rate of optimiser step `step`, counted from 0: a linear warm-up, then a decay that never reaches 0.

    >>> [learning_rate(step, TrainSettings(steps=4, warmup_steps=2, learning_rate=1.0)) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    progress = max(0, step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)  # 0 to below 1
    decay = {"linear": 1 - progress, "constant": 1.0, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return settings.learning_rate * warmup * decay[settings.schedule]
