"""ViCrit: first find the one statement about the image that does not hold, then name the activity.

Source: Wang et al., ViCrit, arXiv 2506.10128, the paper. Equation: 0.9 where the answer is the wrong span of a true
caption in which one noun phrase was replaced, plus 0.1 for the form; the advantage is the reward minus the mean of its
group. Published: 875,000 items from 384,000 captions as a training of its own, Qwen2.5-VL of 7B and 72B; the answer may
repeat some of the words around the span.

Deviations:
1. The captions are what is true of a drawn scene, at most `statements` = 4 of it in any order; one is replaced by a
   false one of its kind (legs, hands, thing in use, in a hand, nearby). Other images are refused: nothing is known of
   them.
2. The task takes the first `proxy` = 0.5 of one training, then the run's own question follows: our own choice, so that
   runs of equal length compare. With `proxy` at 0 it is plain GRPO.
3. The answer must be the statement and nothing else: one that may be longer would be paid for repeating the list.
4. Form and answer are both worth 1, and the advantage is divided by the group's std, as in plain GRPO; reward_weights
   and scale="none" give the published ones.
5. Every statement of a list is replaced equally often, so a policy without eyes finds 1 / (number of statements). It
   can do better where the true ones contradict the false one ("cup at the mouth" beside "hands together").
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from favor_lab.activities.world.catalogue import HAND_POSITIONS, IN_A_HAND, IS_NEARBY, LEGS, USES
from favor_lab.grpo.rewards import format_reward
from favor_lab.recipes.facts import true_statements
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.tasks import Task, make_task, stage_at, task_reward
from favor_lab.vlm.prompts import ask_false_statement
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context

KINDS = tuple(map(tuple, (LEGS.values(), HAND_POSITIONS, USES.values(), IN_A_HAND.values(), IS_NEARBY.values())))


def with_a_false_one(true: Sequence[str], dice: Random, most: int = 4) -> tuple[list[str], str]:
    """At most `most` of the true statements in any order, one of them replaced by a false one of its kind; and that
    one. What is in use is not said to be in a hand or nearby instead: that would be half true. ValueError for a list
    of fewer than two.

    >>> with_a_false_one(("standing", "hand at the ear", "phone at the ear"), Random(1))
    (['sitting', 'phone at the ear', 'hand at the ear'], 'sitting')
    """
    statements = dice.sample(list(true), min(int(most), len(true)))
    if len(statements) < 2:
        raise ValueError(f"a list of {len(statements)} leaves nothing to choose: set `statements` to 2 at least")
    place = dice.randrange(len(statements))
    kind = next(kind for kind in KINDS if statements[place] in kind)
    things = [statement.removesuffix(" in a hand").removesuffix(" nearby") for statement in kind]
    rivals = [s for s, thing in zip(kind, things, strict=True) if s not in true and not any(thing in t for t in true)]
    statements[place] = dice.choice(rivals)
    return statements, statements[place]


def false_statement_task(examples: Sequence[Example], context: Context, statements: int, recipe: str) -> Task:
    """Which statement does not hold; ValueError, which names the recipe, for an image that is no drawn scene."""

    def ask(example: Example, dice: Random, coin: bool) -> tuple[str, str]:
        (true,) = true_statements([example.source], recipe)
        listed, false = with_a_false_one(true, dice, statements)
        return ask_false_statement(listed, context.question.style), false

    return make_task(examples, context, ask)


def criticise_first(
    examples: Sequence[Example], *, context: Context, proxy: float = 0.5, statements: int = 4, **settings: Any
) -> Question:
    """What this step asks: for the false statement in the first part of the training, `proxy` of it, then the run's
    own question."""
    if stage_at(context.progress, proxy):
        return context.question
    return false_statement_task(examples, context, statements, "vicrit")


VICRIT = Recipe(
    "vicrit",
    "ViCrit: first which statement does not hold, then the question itself",
    "Wang et al., ViCrit, arXiv 2506.10128",
    coefficients={"proxy": 0.5},
    steps={"question": criticise_first, "rewards": (task_reward, format_reward)},
    cost="none",
)
