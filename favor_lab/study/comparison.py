"""Is one better than the other? Paired differences of evaluations on the same images, with intervals.

Two policies that answer the same images share what is hard about them, so their difference is known far better than
either accuracy: compare image by image, never one interval with another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from favor_lab.study.evaluation import Evaluation


def paired_gains(before: Sequence[Evaluation], after: Sequence[Evaluation]) -> np.ndarray:
    """What each image gained in each of S runs: (S, M) of -1 (lost), 0 (same verdict) and 1 (gained). One evaluation
    before serves all the runs after it. Raises ValueError unless all are of the same images, in order."""
    if len(before) not in (1, len(after)) or not after:
        raise ValueError(f"{len(before)} evaluations before and {len(after)} after: one before, or one for each after")
    if len({tuple(answer.source for answer in evaluation.answers) for evaluation in [*before, *after]}) > 1:
        message = "these evaluations are not of the same images in the same order, so they cannot be paired"
        raise ValueError(f"{message}: evaluate both on the same list of examples")
    old, new = (np.array([[a.correct for a in e.answers] for e in side], dtype=int) for side in (before, after))
    return new - old  # (S, M)


@lru_cache(maxsize=8)
def redraws(runs: int, images: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each run (draws, S) and each image (draws, M) is drawn; cached, since a table asks for it often."""
    random = np.random.default_rng(seed)
    counts = (random.multinomial(many, np.full(many, 1 / many), size=draws) for many in (runs, images))
    of_runs, of_images = (count.astype(np.min_scalar_type(count.max())) for count in counts)
    return of_runs, of_images


def whole_numbers(table: np.ndarray, copies: int) -> tuple[np.ndarray, float]:
    """(numbers, unit): whole numbers with table = numbers / unit, of which any `copies` sum to less than 2^53.

    A float holds such a sum exactly, so it is the same in any order of addition, whichever kernel the BLAS chooses.
    Counts and shares (2/3, 5/8) are exact, by their common denominator. Any other table is rounded to the finest power
    of two that fits, an error of at most `copies` 2^-52 of its largest value.

    >>> whole_numbers(np.array([0.5, -1 / 3]), copies=4)
    (array([ 3., -2.]), 6.0)
    """
    largest = float(np.abs(table).max())
    if largest == 0 or not math.isfinite(largest):
        return table, 1.0
    unit: float = 1
    for value in np.unique(table).tolist():
        share = Fraction(value).limit_denominator(1000)
        unit = math.lcm(int(unit), share.denominator)
        if abs(float(share) - value) > 1e-12 * largest or unit * largest * copies >= 2**53:
            unit = math.ldexp(1, min(1000, 52 - math.frexp(largest * copies)[1]))
            break
    return np.round(table * float(unit)), float(unit)


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, draws: int = 10_000, seed: int = 0, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of (S, M) values: runs and images are both redrawn (Efron, 1979; both
    at once as in Owen, 2007, "The pigeonhole bootstrap"). With S = 1 it says nothing about other runs.

    The sums are exact (`whole_numbers`), so the same values have the same interval on every machine.
    weights: (S, M), for a weighted mean; 0 where a value does not exist (a response without a statement has no share
    of true ones), which may then be NaN.

    >>> [round(bound, 3) for bound in bootstrap_interval(np.eye(4))]
    [0.0, 0.5]
    >>> bootstrap_interval([1.0, np.nan, 1.0], weights=[3, 0, 1])
    (1.0, 1.0)
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"need (runs, images) values, at least one of them, got the shape {values.shape}")
    of_runs, of_images = (counts.astype(float) for counts in redraws(*values.shape, draws, seed))

    def totals(table: np.ndarray) -> np.ndarray:
        numbers, unit = whole_numbers(table, values.size)
        return np.einsum("ds,sm,dm->d", of_runs, numbers, of_images, optimize=True) / unit  # (draws,)

    if weights is None:
        means = totals(values) / values.size
    else:
        weights = np.broadcast_to(np.asarray(weights, dtype=float), values.shape)
        if not (weights >= 0).all() or not weights.any():
            raise ValueError("weights must not be negative, and one at least must be above 0")
        drawn = totals(weights)
        means = (totals(np.where(weights > 0, values, 0.0) * weights) / np.where(drawn > 0, drawn, np.nan))[drawn > 0]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def sign_test(gained: int, lost: int) -> float:
    """Two-sided p-value that as many or more changes point one way by chance (McNemar's test, exact).

    >>> round(sign_test(9, 1), 4), sign_test(5, 5), sign_test(0, 0)
    (0.0215, 1.0, 1.0)
    """
    changes, fewer = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(math.comb(changes, k) for k in range(fewer + 1)) / 2**changes)


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two accuracies: means over runs and images, as shares."""

    difference: float  #: accuracy after less accuracy before
    interval: tuple[float, float]  #: 95 % bootstrap interval of the difference
    gained: float  #: images that became right, per run
    lost: float  #: images that became wrong, per run
    runs: int
    images: int

    def summary(self) -> str:
        """The difference in points, and how many images changed sides."""
        points, low, high = (rounded(100 * share, signed=True) for share in (self.difference, *self.interval))
        changes = f"of {self.images} images {self.gained:g} became right, {self.lost:g} wrong"
        return f"{points} points (95 % interval {low} to {high}); {changes}"


def compare(before: Evaluation | Sequence[Evaluation], after: Evaluation | Sequence[Evaluation]) -> Comparison:
    """How much better `after` is than `before`, image by image; either may be a list of runs (seeds). Raises ValueError
    for evaluations of different images."""
    sides = [list(side) if isinstance(side, Sequence) else [side] for side in (before, after)]
    gains = paired_gains(*sides)
    gained, lost = (gains == 1).sum(axis=1).mean(), (gains == -1).sum(axis=1).mean()
    return Comparison(float(gains.mean()), bootstrap_interval(gains), float(gained), float(lost), *gains.shape)
