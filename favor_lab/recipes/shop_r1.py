"""Shop-R1: what is hard to say is paid more than what is easy, so that the easy part alone is no way out.

Source: Zhang et al., Shop-R1, arXiv 2507.17842; known from notes of others, neither paper nor code was read.
Equation: r = 0.5 * form + 0.3 * right type of action + DARS * (overlap of the text, ROUGE-L) + 0.005 * self-certainty,
DARS being the difficulty-aware reward scaling: 1000, on the text alone. Published: these weights, and a KL penalty of
0.001.

Only the scale of one term against another, within a group, acts. One number for all terms of a prompt is divided out
again with the group's std: "more weight for hard images" does nothing to GRPO. And because it is divided by the std,
1000 is not a thousand times the step: it makes every other term invisible, in each group where the hard one differs.

Deviations:
1. The easy part is the posture, which a few guesses get right: `easy` = 0.3 where exactly one is stated, and true. The
   hard part are the hands, the thing and what is nearby; their overlap is Dice's, 2 * both / (stated + true), over
   statements, as their order says nothing.
2. `dars` = 3 (own choice): hard statements that are all right outweigh answer and form, and do not hide them.
3. The right answer and the form are paid 1 each, as in plain GRPO.
4. No self-certainty: it pays for being sure, right or wrong, and needs whole distributions.
5. The KL penalty stays as it is set.

Open to: the mean of many guesses. All statements together have an overlap of about 0.1, below one true one alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.recipes.facts import SLOT_OF, Facts, facts_of
from favor_lab.recipes.recipe import Recipe


def easy_and_hard(facts: Facts) -> tuple[float, float]:
    """Whether one posture is stated and true (0 or 1), and Dice's overlap of all other statements (0 to 1).

    >>> easy_and_hard(Facts(true=("standing", "arms down"), false=("dog nearby",), scene=("standing", "arms down")))
    (1.0, 0.6666666666666666)
    """
    hard_true, hard_false, hard_scene = (
        [s for s in part if SLOT_OF.get(s) != "posture"] for part in (facts.true, facts.false, facts.scene)
    )
    postures = len(facts.true) + len(facts.false) - len(hard_true) - len(hard_false)
    easy = float(postures == 1 and len(facts.true) > len(hard_true))
    return easy, 2 * len(hard_true) / max(1, len(hard_true) + len(hard_false) + len(hard_scene))


def scaled_reward(
    completions: Sequence[Completion], source: Sequence[str], dars: float = 3.0, easy: float = 0.3, **columns: Any
) -> list[float]:
    """easy * (right posture) + dars * (overlap of the other statements) of each completion, 0 to easy + dars.
    ValueError for an image that is no drawn scene, and for a negative coefficient."""
    check_number("dars", dars)
    check_number("easy", easy)
    if not dars and not easy:
        return no_reward(completions)
    parts = map(easy_and_hard, facts_of(completions, source, "scaled_reward"))
    return [easy * one + dars * other for one, other in parts]


SHOP_R1 = Recipe(
    "shop-r1",
    "Shop-R1: what is hard to say of a scene is paid more than what is easy",
    "Zhang et al., Shop-R1, arXiv 2507.17842 (from notes of others)",
    coefficients={"dars": 3.0, "easy": 0.3},
    steps={"rewards": (accuracy_reward, format_reward, scaled_reward)},
    cost="none",
)
