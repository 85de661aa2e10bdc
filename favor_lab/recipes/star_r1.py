"""STAR-R1: partial credit for posture, hands and thing, with a price on listing guesses and on silence.

Source: Li et al., STAR-R1, arXiv 2505.15804: abstract, and a public review that ends before the penalties; not the
paper.
Equation, per predicted change (object, attribute, value): 5 if all three are right, 1.5 for object and attribute, 0.5
for the object alone; less a penalty for listing too much and one for predicting too little. Published: the three
credits. The sizes of the penalties are in nothing that we found; the code repository has a README alone. `extra` and
`silent` are our own numbers.

Deviations:
1. What is predicted are the statements of the reasoning, by slot: posture, hands, thing. In a slot of the scene a true
   statement earns 5, a wrong one alone 1.5: the right slot with a wrong value. A third step, 0.5, has no counterpart.
2. `extra` = 2: each further wrong statement in a slot costs 2. A second guess of probability p is worth 3.5 p, and the
   first one is at least as likely, so p is at most 1/2: from 1.75 on, a second guess never pays.
3. `silent` = 1: a slot of the scene of which nothing is said costs 1. A slot that the scene does not have costs `extra`
   per statement: it has nothing that could be right.
4. The sum is divided by 5 * slots of the scene, so that all right is 1, as the right answer and the form are.

Open to: 0.3 for three wrong guesses in three slots, more than for silence. Statements about things nearby, and words
that are no statement, neither earn nor cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.recipes.facts import SLOT_OF, SLOTS, Facts, facts_of
from favor_lab.recipes.recipe import Recipe

ALL_RIGHT, WRONG_VALUE = 5.0, 1.5  # published credits


def slot_credit(true: int, wrong: int, exists: bool, extra: float = 2.0, silent: float = 1.0) -> float:
    """The credit of one slot in which so many true and wrong statements are made; exists: in the scene.

    >>> [slot_credit(*counts, exists=True) for counts in ((1, 0), (1, 1), (0, 1), (0, 2), (0, 0))]
    [5.0, 3.0, 1.5, -0.5, -1.0]
    >>> slot_credit(0, 1, exists=False), slot_credit(0, 0, exists=False)
    (-2.0, 0.0)
    """
    if not exists:
        return 0.0 - extra * wrong
    if true:
        return ALL_RIGHT - extra * wrong
    return WRONG_VALUE - extra * (wrong - 1) if wrong else -silent


def partial_credit(facts: Facts, extra: float = 2.0, silent: float = 1.0) -> float:
    """The credits of a response's slots, as a share of those for saying all rightly: at most 1. A scene without slots
    (nobody is there) gives 0, less what is said of a person.

    >>> facts = Facts(true=("standing",), false=("arms down",), scene=("standing", "hand at the ear", "dog nearby"))
    >>> partial_credit(facts)
    0.65
    """
    true, wrong, scene = ([SLOT_OF.get(s) for s in part] for part in (facts.true, facts.false, facts.scene))
    credit = sum(slot_credit(true.count(s), wrong.count(s), s in scene, extra, silent) for s in SLOTS)
    return credit / (ALL_RIGHT * max(1, len(set(scene) & set(SLOTS))))


def partial_reward(
    completions: Sequence[Completion],
    source: Sequence[str],
    partial: float = 1.0,
    extra: float = 2.0,
    silent: float = 1.0,
    **columns: Any,
) -> list[float]:
    """partial * `partial_credit` of each completion. ValueError for an image that is no drawn scene, and for a negative
    coefficient."""
    for name, value in (("partial", partial), ("extra", extra), ("silent", silent)):
        check_number(name, value)
    if not partial:
        return no_reward(completions)
    return [partial * partial_credit(facts, extra, silent) for facts in facts_of(completions, source, "partial_reward")]


STAR_R1 = Recipe(
    "star-r1",
    "STAR-R1: partial credit for posture, hands and thing; guesses listed, and silence, cost",
    "Li et al., STAR-R1, arXiv 2505.15804 (credits; the penalties are our own)",
    coefficients={"partial": 1.0},
    steps={"rewards": (accuracy_reward, format_reward, partial_reward)},
    cost="none",
)
