"""Which activities fit a reasoning, by a fixed rule over its statements: no image, no policy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from favor_lab.activities.labels import refuse_string
from favor_lab.activities.world.catalogue import ACTIVITIES, ALL_PLANS, HANDS, LEGS, USES, hand_statements
from favor_lab.grpo.rewards import normalise_label
from favor_lab.responses import reasoning_statements

#: statements about legs, hands or the thing in use; statements about things nearby fit every activity
TELLING = frozenset([*LEGS.values(), *HANDS.values(), *USES.values(), "arms down", "both hands up"])


@functools.cache
def expected_statements() -> dict[str, frozenset[str]]:
    """The statements about legs, hands and the thing in use that each activity of the drawn world may show.

    >>> sorted(expected_statements()["running"])
    ['arms swinging', 'long stride']
    """
    return {
        activity: frozenset(
            [LEGS[legs] for legs in plan.legs]
            + [statement for spots in plan.hands for statement in hand_statements(spots)]
            + ([USES[plan.use]] if plan.use else [])
        )
        for activity, plan in ALL_PLANS.items()
    }


@dataclass(frozen=True)
class Reading:
    """What the rule concludes from a reasoning: see `read_reasoning`."""

    telling: tuple[str, ...]  #: the statements about legs, hands or the thing in use
    best: tuple[str, ...]  #: activities that may show most of them
    compatible: tuple[str, ...]  #: activities that may show all of them: `best`, or none

    def agrees(self, answer: str | None) -> bool | None:
        """Whether an answer is among the best; None without an answer or without a telling statement."""
        if answer is None or not self.telling:
            return None
        return normalise_label(answer) in map(normalise_label, self.best)


def read_reasoning(text: str, labels: Sequence[str] = ACTIVITIES) -> Reading:
    """Which activities of the drawn world fit a response's reasoning, by its statements alone.

    An activity scores a point for each statement about legs, hands or the thing in use that its definition admits;
    things nearby do not count. Raises ValueError for labels that are not activities of the drawn world.

    >>> read_reasoning("<think>standing, hands together, tree nearby</think><answer>reading</answer>").best
    ('applauding',)
    >>> read_reasoning("<think>sitting. phone at the ear. cup at the mouth</think>").best
    ('drinking', 'phoning')
    """
    refuse_string("labels", labels)
    expected = expected_statements()
    unknown_labels = [label for label in labels if label not in expected]
    if unknown_labels or not labels:
        known = ", ".join(expected)
        raise ValueError(f"the rule knows the drawn world's activities only, not {unknown_labels}: {known}")
    telling = [statement for statement in reasoning_statements(text) if statement in TELLING]
    points = {label: sum(statement in expected[label] for statement in telling) for label in labels}
    best = tuple(label for label in labels if points[label] == max(points.values())) if telling else ()
    return Reading(tuple(telling), best, tuple(label for label in best if points[label] == len(telling)))
