"""Affordance-R1: a sum of six rewards with unit weights, as a lesson in weights: what is easy to earn comes first.

Source: Wang et al., Affordance-R1, arXiv 2508.06206; code hq-King/Affordance-R1, verl/utils/reward_score/aff_r1.py,
read.
Equation: reward = form (0 or 1) + fields that are filled in (up to 3) + matched predictions / max(predicted, there) (up
to 3) + no sentence twice (1) + the affordance named (1) + as many predictions as there are (1). Published: all weights
1.

6 of the 10 points need no look at the image, and the right answer is 1 of them. A response that always says the same,
in good form, with a guess in each field, has more than a right answer with empty reasoning. Weigh them anew:
`reward_weights=(1, 1, 0.1, 1, 0.1, 0.1)` in the order below.

Deviations:
1. Fields are the slots of a drawn scene (posture, hands, thing) of which the reasoning speaks; predictions are its
   statements. A match of boxes and points, three terms there, is one here: 3 * true / max(stated, true of the scene).
2. The affordance is the activity: the right answer, and not a text that is similar enough.
3. A sentence is a statement, and the form is ours: reasoning, then the answer, without a second thought between them.
4. `others` = 1 weighs the four terms beside the right answer and the form: 0 is plain GRPO.

Open to: see above; this recipe is here to show it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, format_reward, no_reward
from favor_lab.recipes.facts import SLOT_OF, SLOTS, facts_of
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import split_response


def fields_reward(
    completions: Sequence[Completion], source: Sequence[str], others: float = 1.0, **columns: Any
) -> list:
    """others * the number of slots of which each reasoning speaks, truly or not: 0 to 3.

    >>> fields_reward(["<think>standing, sitting, one hand up</think>"], ["cartoon/test/000006"])
    [2.0]
    """
    check_number("others", others)
    if not others:
        return no_reward(completions)
    facts = facts_of(completions, source, "fields_reward")
    return [others * len({SLOT_OF.get(s) for s in (*one.true, *one.false)} & set(SLOTS)) for one in facts]


def matches_reward(
    completions: Sequence[Completion], source: Sequence[str], others: float = 1.0, **columns: Any
) -> list[float]:
    """others * 3 * true statements / max(stated, true of the scene) of each completion: 0 to 3."""
    if not others:
        return no_reward(completions)
    facts = facts_of(completions, source, "matches_reward")
    return [others * 3 * len(one.true) / max(len(one.true) + len(one.false), len(one.scene)) for one in facts]


def no_repeat_reward(completions: Sequence[Completion], others: float = 1.0, **columns: Any) -> list[float]:
    """others where each reasoning states something, and nothing twice; else 0.

    >>> no_repeat_reward(["<think>standing, Standing</think>", "<think>standing</think>", "<think> </think>"])
    [0.0, 1.0, 0.0]
    """
    reasoning = [split_response(text)[0] or "" for text in completion_texts(completions)]
    pieces = [[p for piece in re.split(r"[.,;\n]", text.casefold()) if (p := piece.strip())] for text in reasoning]
    return [others * float(0 < len(stated) == len(set(stated))) for stated in pieces]


def count_reward(
    completions: Sequence[Completion], source: Sequence[str], others: float = 1.0, **columns: Any
) -> list[float]:
    """others where each reasoning makes as many different statements as are true of its scene, truly or not; else 0."""
    if not others:
        return no_reward(completions)
    facts = facts_of(completions, source, "count_reward")
    return [others * float(len(one.true) + len(one.false) == len(one.scene)) for one in facts]


AFFORDANCE_R1 = Recipe(
    "affordance-r1",
    "Affordance-R1: six rewards with unit weights, of which the right answer is one",
    "Wang et al., Affordance-R1, arXiv 2508.06206, code",
    coefficients={"others": 1.0},
    steps={"rewards": (
        accuracy_reward, format_reward, fields_reward, matches_reward, no_repeat_reward, count_reward
    )},
    cost="none",
)  # fmt: skip
