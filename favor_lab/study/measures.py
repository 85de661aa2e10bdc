"""Measures of a set of responses, one number per response: right, well formed, true, consistent, long.

Each measure turns an `Evaluation` into values and weights, (M,) each, of its responses; the weight is 0 where it does
not apply. Several seeds of one cell are stacked to (S, M), and their weighted mean has an interval over seeds and
images, paired between two methods where both answered the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from favor_lab.study.comparison import bootstrap_interval
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.reasoning import read_reasoning
from favor_lab.study.rounding import rounded

Value = tuple[float, float]  # a response's value, and its weight
SURE = 0.75  # a policy that abstains answers where at least so many of its samples agree


def _true(answer: Answered) -> Value:
    return answer.true_statements / max(answer.statements, 1), float(answer.statements)


def _consistent(answer: Answered) -> Value:
    """Whether the answer is one that the reasoning leads to, by the fixed rule of `read_reasoning`."""
    agrees = read_reasoning(answer.text).agrees(answer.answer) if answer.statements else None
    return float(bool(agrees)), float(agrees is not None)


def _reached(answer: Answered) -> Value:
    return float(answer.label in answer.sampled), float(bool(answer.sampled))


def _sure(answer: Answered) -> Value:
    return float(answer.agreement >= SURE), float(bool(answer.sampled))


def _right_when_sure(answer: Answered) -> Value:
    return answer.majority_right, float(bool(answer.sampled) and answer.agreement >= SURE)


def _brier(answer: Answered) -> Value:
    return (answer.agreement - answer.majority_right) ** 2, float(bool(answer.sampled))


def _words(answer: Answered) -> Value:
    return float(len(answer.text.replace("<", " <").replace(">", "> ").split())), 1.0


#: name -> (what it is, its value for a response); shares, but for the length
MEASURES: dict[str, tuple[str, Callable[[Answered], Value]]] = {
    "right": ("right answers", lambda answer: (float(answer.correct), 1.0)),
    "well formed": ("well-formed responses", lambda answer: (float(answer.well_formed), 1.0)),
    "true": ("true statements", _true),
    "consistent": ("answers that their reasoning leads to", _consistent),
    "sampled right": ("right answers, sampled", lambda answer: (answer.sampled_right, float(bool(answer.sampled)))),
    "reached": ("images with a right answer among the sampled ones", _reached),
    "majority right": ("right majorities of the sampled answers", lambda a: (a.majority_right, float(bool(a.sampled)))),
    "sure": (f"images where {SURE:.0%} of the sampled answers agree", _sure),
    "right when sure": ("right majorities among these", _right_when_sure),
    "brier": ("(share that agrees - right majority) ** 2: calibration, lower is better", _brier),
    "words": ("words and tags a response", _words),
}


@dataclass(frozen=True)
class Measured:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def percent(self, signed: bool = False) -> str:
        """
        >>> Measured(0.7709, 0.7, 0.8).percent(), Measured(-0.031, -0.05, 0.01).percent(signed=True)
        ('77.1 (70.0 to 80.0)', '-3.1 (-5.0 to +1.0)')
        """
        return self.number(signed, 100)

    def number(self, signed: bool = False, unit: float = 1) -> str:
        """
        >>> Measured(5.25, 5, 5.5).number()
        '5.2 (5.0 to 5.5)'
        """
        mean, low, high = (rounded(unit * part, signed=signed) for part in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"


def values(runs: Sequence[Evaluation], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights (S, M) of S evaluations of the same M images. ValueError for an unknown measure or for
    evaluations of different images."""
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r}; the measures are {', '.join(MEASURES)}")
    if len({tuple(answer.source for answer in run.answers) for run in runs}) != 1:
        raise ValueError("the evaluations are not of the same images in the same order, so they cannot be stacked")
    value_of = MEASURES[measure][1]
    pairs = np.array([[value_of(answer) for answer in run.answers] for run in runs])  # (S, M, 2)
    return pairs[..., 0], pairs[..., 1]


def measure(runs: Sequence[Evaluation], name: str) -> Measured | None:
    """The mean of a measure over the responses of some seeds; None where no response has it."""
    return mean_of(*values(runs, name))


def mean_of(numbers: np.ndarray, weights: np.ndarray) -> Measured | None:
    """Weighted mean of (S, M) numbers with its interval over both; None where nothing has a weight."""
    if not weights.any():
        return None
    known = np.where(weights > 0, numbers, 0.0)
    return Measured(float(np.average(known, weights=weights)), *bootstrap_interval(known, weights=weights))


def difference(before: Sequence[Evaluation], after: Sequence[Evaluation], name: str) -> Measured | None:
    """How much a measure changes, image by image and seed by seed; one evaluation before serves every one after. Only
    responses count where both sides have the measure; None where there is none. ValueError where the numbers of
    evaluations do not fit."""
    (old, old_weights), (new, new_weights) = values(before, name), values(after, name)
    if len(old) not in (1, len(new)):
        raise ValueError(f"{len(old)} evaluations before and {len(new)} after: one before, or one for each after")
    both = (np.minimum(old_weights, new_weights) > 0).astype(float)
    return mean_of(new - old, np.broadcast_to(both, new.shape))
