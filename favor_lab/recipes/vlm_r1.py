"""VLM-R1: a graded reward in place of right or wrong, which pays for saying more than one sees unless that has a price.

Source: Shen et al., VLM-R1, arXiv 2504.07615; its code om-ai-lab/VLM-R1 was read, qwen_module.py and grpo_jsonl.py.
Equation, of its detection score: 0.7 * mean overlap over what there is to find + 0.3 * (1 - (missed + false alarms) /
2), the last two as shares. Published: G 8, beta 0.04, 2 epochs, a reward on the form beside it. Its code also has a
variant that is charged for the length of the list of boxes: naming many was the first way in which the score was
hacked.

Deviations:
1. What there is to find are the statements that are true of the drawn scene; an overlap is 1 or 0.
2. `price` (0, as published; 1 mends it): each false statement costs as much as `price` true ones earn, down to -1.
3. Without a statement the score is 0, not the 0.15 that the published formula gives to an empty list: no false alarm.
4. The right answer is paid as well, 1, as the form is; published, the score is all there is to learn from.
5. The KL penalty stays as it is set: 0.04 is the default here too.

Open to, at price 0: a list of all statements earns 0.85, more than honest reasoning that misses one of five. At price 1
it earns -0.55, less than silence; a guess is worth making where it is more likely right than wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.recipes.facts import Facts, facts_of, priced_recall
from favor_lab.recipes.recipe import Recipe


def detection_score(facts: Facts, price: float = 0.0) -> float:
    """VLM-R1's detection score of one response's statements, at most 1; 0.0 without a statement.

    >>> facts = Facts(true=("standing", "arms down"), false=("dog nearby",), scene=("standing", "arms down", "a", "b"))
    >>> [round(detection_score(facts, price), 3) for price in (0.0, 1.0)]
    [0.525, 0.35]
    """
    missed, false_alarms = 1 - facts.recall, 1 - facts.precision  # without a statement, both 1
    return 0.7 * priced_recall(facts, price) + 0.3 * (1 - (missed + false_alarms) / 2)


def graded_reward(
    completions: Sequence[Completion], source: Sequence[str], graded: float = 1.0, price: float = 0.0, **columns: Any
) -> list[float]:
    """graded * `detection_score` of each completion. ValueError for an image that is no drawn scene, and for a negative
    coefficient."""
    check_number("graded", graded)
    check_number("price", price)
    if not graded:
        return no_reward(completions)
    return [graded * detection_score(facts, price) for facts in facts_of(completions, source, "graded_reward")]


VLM_R1 = Recipe(
    "vlm-r1",
    "VLM-R1: a graded score of the statements is paid too, as published (hackable); price=1 mends it",
    "Shen et al., VLM-R1, arXiv 2504.07615, code",
    coefficients={"graded": 1.0},
    steps={"rewards": (accuracy_reward, format_reward, graded_reward)},
    cost="none",
)
