"""LLaVA-Critic-R1: first learn which of two answers fits the image better, then name the activity.

Source: Wang et al., LLaVA-Critic-R1, arXiv 2509.00676; only the abstract and reviews of it were read. Equation: 1 for
the preferred answer, plus the form. Published: 40,000 pairs of answers with a preference, Qwen2.5-VL-7B. The weights of
the two rewards and what is done about the order of the answers were not to be had: both are our own choice here.

Deviations:
1. The two answers are the right label and another one of the run, so that no preference has to be collected; it works
   for any image. Published are whole responses, whose difference is smaller.
2. The right one stands first for half of the images of each step: "always the first" earns half, as guessing.
3. The task takes the first `proxy` = 0.5 of one training, then the run's own question follows. With `proxy` at 0 it is
   plain GRPO.
4. Nothing is done at test time; the published gain of choosing among 128 responses is no part of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.rewards import format_reward
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.tasks import Task, make_task, other_label, stage_at, task_reward
from favor_lab.vlm.prompts import ask_better
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from random import Random

    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context


def better_task(examples: Sequence[Example], context: Context) -> Task:
    """Which of two labels fits better, to be answered by "1" or "2": each is right for half of the images."""

    def ask(example: Example, dice: Random, coin: bool) -> tuple[str, str]:
        pair = example.label, other_label(example, context, dice)
        first, second = pair if coin else pair[::-1]
        return ask_better(first, second, context.question.style), "1" if coin else "2"

    return make_task(examples, context, ask)


def compare_first(examples: Sequence[Example], *, context: Context, proxy: float = 0.5, **settings: Any) -> Question:
    """What this step asks: for the better answer in the first part of the training, `proxy` of it, then the run's own
    question."""
    return context.question if stage_at(context.progress, proxy) else better_task(examples, context)


CRITIC = Recipe(
    "critic",
    "LLaVA-Critic-R1: first which of two answers fits better, then the question itself",
    "Wang et al., LLaVA-Critic-R1, arXiv 2509.00676",
    coefficients={"proxy": 0.5},
    steps={"question": compare_first, "rewards": (task_reward, format_reward)},
    cost="none",
)
