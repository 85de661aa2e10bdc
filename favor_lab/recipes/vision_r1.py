"""Vision-R1: paid for precise and for complete reasoning, by a criterion that becomes stricter during the training.

Source: Zhan et al., Vision-R1, arXiv 2503.18013 (the paper was read; two other papers have the same short name).
Equation: reward = f(precision) + f(recall), beside a reward on the form; f(x) = 1 for x >= high, 0 for x < low, else x.
Published: (low, high) = (0.5, 0.75), and (0.75, 0.9) from the middle of the training on; beta 0.2. Its ablation (mAP):
no training 40.2, never strict 39.9, strict from 1/3 on 41.5, from 1/2 on 42.1; for the weaker of two models, never
strict was the best (`switch` = 1).

Deviations:
1. Boxes become statements: precision is the share of the reasoning's statements that are true of the drawn scene,
   recall the share of what is true of it that the reasoning states. A statement is true or not, so the published bar on
   the overlap of boxes has no counterpart, and a scene of 2 to 5 statements makes few different shares.
2. The right answer and the form are paid beside it, 1 each; published, there is no answer but the boxes.
3. The settings, beta among them, are those of plain GRPO.

Open to: a list of all statements has the full recall, so it earns 1 of 2, as much as one true statement alone. Nothing
but `max_new_tokens` stands against that. A stricter criterion makes more groups flat: it teaches a weak policy nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import ArgumentError, check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.recipes.facts import facts_of
from favor_lab.recipes.recipe import Recipe

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context

EARLY, LATE = (0.5, 0.75), (0.75, 0.9)  # (low, high), published


def refined(share: float, low: float, high: float) -> float:
    """A share (0 to 1) by the criterion: nothing below `low`, everything from `high` on, itself between them.

    >>> [refined(share, 0.5, 0.75) for share in (0.49, 0.5, 0.74, 0.75)]
    [0.0, 0.5, 0.74, 1.0]
    """
    return 1.0 if share >= high else share if share >= low else 0.0


def bars(progress: float, switch: float = 0.5) -> tuple[float, float]:
    """(low, high) at this point of the training, progress 0 to 1: the strict ones from `switch` on, never at 1.

    >>> bars(0.49), bars(0.5), bars(0.99, switch=1.0)
    ((0.5, 0.75), (0.75, 0.9), (0.5, 0.75))
    """
    return EARLY if progress < switch else LATE


def criterion_reward(
    completions: Sequence[Completion],
    source: Sequence[str],
    context: Context,
    criterion: float = 1.0,
    switch: float = 0.5,
    **columns: Any,
) -> list[float]:
    """criterion * (f(precision) + f(recall)) of each completion's statements, 0 to 2 * criterion. ValueError for an
    image that is no drawn scene, for a negative `criterion`, and for a `switch` outside 0..1."""
    check_number("criterion", criterion)
    if not 0 <= switch <= 1:
        raise ArgumentError("switch", f"switch is {switch}, but must be a share of the training, from 0 to 1")
    if not criterion:
        return no_reward(completions)
    low, high = bars(context.progress, switch)
    facts = facts_of(completions, source, "criterion_reward")
    return [criterion * (refined(one.precision, low, high) + refined(one.recall, low, high)) for one in facts]


VISION_R1 = Recipe(
    "vision-r1",
    "Vision-R1: precise and complete reasoning is paid, by a criterion that becomes stricter",
    "Zhan et al., Vision-R1, arXiv 2503.18013",
    coefficients={"criterion": 1.0},
    steps={"rewards": (accuracy_reward, format_reward, criterion_reward)},
    cost="none",
)
