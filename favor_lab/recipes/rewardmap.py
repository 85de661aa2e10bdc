"""RewardMap: easier questions first, and for the last one a dense reward of what the reasoning gets right.

Source: Feng et al., RewardMap, arXiv 2510.02240; code fscdc/RewardMap, reason_map.py and rl_dataset.py. Equation:
w (10 accuracy + 0.5 detail); detail, for the last question alone and at most 10: 1 to 4 points for each right part of
the route, -5 for each leg too many; w = 1, 1.2 or 1.5 by the map's difficulty, 0.5 more with transfers. Published:
true or false, then counting, then the route, never shuffled; 4 completions, KL 0.01.

Deviations:
1. detail is (true statements - `price` x other ones) / (what is true of the scene), at least -1 and at most 1, and
   worth `detail` = 0.5 beside the 1 of the answer: the published 5 beside 10. The price of 1 is our own: a statement is
   worth making if it is more likely true than not.
2. No w. Divided by the group's std, a factor of all rewards of a prompt cancels; it would act with scale="none" alone,
   and partly through the format reward, which has no factor. tests/recipes/test_questions.py shows both.
3. Stages of one training, by its steps: `yes_no` = 0.2, `false_statement` = 0.2 in place of counting, then the run's
   own question; our own shares (the published ones follow from the sizes of the data). With the three at 0 it is plain
   GRPO.
4. Drawn scenes only, because of the statements; and a style with reasoning, in which they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.rewards import Completion, format_reward, no_reward
from favor_lab.recipes.facts import check_reasoning, statement_scores
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.tasks import Task, stage_at, task_reward, yes_no_task
from favor_lab.recipes.vicrit import false_statement_task
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context


def staged(
    examples: Sequence[Example],
    *,
    context: Context,
    yes_no: float = 0.2,
    false_statement: float = 0.2,
    statements: int = 4,
    **settings: Any,
) -> Question:
    """What this step asks: yes or no in the first part of the training, `yes_no` of it; for the false statement in the
    next part, `false_statement` of it; then the run's own question."""
    stage = stage_at(context.progress, yes_no, false_statement)
    if stage == 0:
        return yes_no_task(examples, context)
    return false_statement_task(examples, context, statements, "rewardmap") if stage == 1 else context.question


def detail_reward(
    completions: Sequence[Completion],
    source: Sequence[str],
    context: Context,
    detail: float = 0.5,
    price: float = 1.0,
    **columns: Any,
) -> list[float]:
    """`detail` times `statement_scores`, for the run's own question; 0.0 in the stages before it. ValueError for a
    weight below 0, and for a style without reasoning."""
    if detail < 0:
        raise ValueError(f"detail is {detail}: true statements must not cost anything; take 0 or more")
    if not detail or isinstance(context.question, Task):
        return no_reward(completions)
    check_reasoning(context.question, "rewardmap")
    return [detail * score for score in statement_scores(completions, source, price, "rewardmap")]


REWARDMAP = Recipe(
    "rewardmap",
    "RewardMap: easier questions first, then true statements in the reasoning are paid too, false ones cost",
    "Feng et al., RewardMap, arXiv 2510.02240",
    coefficients={"detail": 0.5, "yes_no": 0.2, "false_statement": 0.2},
    steps={"question": staged, "rewards": (task_reward, format_reward, detail_reward)},
    cost="none",
)
