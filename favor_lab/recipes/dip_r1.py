"""DIP-R1: inspect before answering: paid for true statements where the group is unsure, and for precision and recall.

Source: Park et al., DIP-R1, arXiv 2505.23179: the abstract alone; neither formulas nor constants were found. This is a
reading, not a reproduction. In the abstract's words a response understands the scene, looks at what is ambiguous, and
answers; its three rewards are on that form, on looking (guided by variance), and on a weighted precision and recall.
Equations, our own: v(s) = 4 p (1 - p), p the share of the group that states s; look = (sum of v over true statements
made - sum of v over false ones) / sum of v over what is true, from -1 to 1; detect = w * precision + (1 - w) * recall.

Deviations:
1. Everything above is our choice: the variance is that of the group's statements, since a statement that half of the
   group makes is one of which the policy is unsure. `look` = 0.5, `detect` = 1, `precision` w = 0.5.
2. Inspecting is the reasoning, answering the answer: the form is ours, of two parts and not of three.
3. What is detected are the statements that are true of a drawn scene, in place of people in a crowd.

Open to: where the whole group makes the same statements v is 0, and looking earns nothing, right or wrong. A list of
all statements has full recall: detect pays about half for it, less than for one true statement of a scene of three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from favor_lab.arguments import ArgumentError, check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.recipes.facts import Facts, facts_of
from favor_lab.recipes.recipe import Recipe


def look_scores(group: Sequence[Facts]) -> list[float]:
    """How far each response of one group looked where the group is unsure, -1 to 1.

    >>> scene = ("standing", "arms down")
    >>> group = [Facts(("standing",), (), scene), Facts((), ("sitting",), scene), Facts((), (), scene)]
    >>> look_scores(group)
    [1.0, -1.0, 0.0]
    """
    counts = Counter(s for facts in group for s in (*facts.true, *facts.false))
    variance = {s: 4 * n / len(group) * (1 - n / len(group)) for s, n in counts.items()}
    scores = []
    for facts in group:
        known = sum(variance.get(s, 0.0) for s in facts.scene)
        looked = sum(variance[s] for s in facts.true) - sum(variance[s] for s in facts.false)
        scores.append(max(-1.0, looked / known if known else -1.0 if looked < 0 else 0.0))
    return scores


def look_reward(
    completions: Sequence[Completion], source: Sequence[str], groups: Sequence[int], look: float = 0.5, **columns: Any
) -> list[float]:
    """look * `look_scores` of each completion in its group. ValueError for an image that is no drawn scene, and for a
    negative coefficient."""
    check_number("look", look)
    rewards = no_reward(completions)
    facts = facts_of(completions, source, "look_reward") if look else []
    for group in dict.fromkeys(groups) if look else ():
        rows = [row for row, other in enumerate(groups) if other == group]
        for row, score in zip(rows, look_scores([facts[row] for row in rows]), strict=True):
            rewards[row] = look * score
    return rewards


def detect_reward(
    completions: Sequence[Completion],
    source: Sequence[str],
    detect: float = 1.0,
    precision: float = 0.5,
    **columns: Any,
) -> list[float]:
    """detect * (precision * share of the statements that are true + (1 - precision) * share of the scene that is
    stated). ValueError as for `look_reward`, and for a `precision` outside 0..1."""
    check_number("detect", detect)
    if not 0 <= precision <= 1:
        raise ArgumentError("precision", f"precision is {precision}, but must be a weight, from 0 to 1")
    if not detect:
        return no_reward(completions)
    facts = facts_of(completions, source, "detect_reward")
    return [detect * (precision * one.precision + (1 - precision) * one.recall) for one in facts]


DIP_R1 = Recipe(
    "dip-r1",
    "DIP-R1: inspect, then answer; precision, recall and unsure statements are paid (a reading)",
    "Park et al., DIP-R1, arXiv 2505.23179 (abstract)",
    coefficients={"look": 0.5, "detect": 1.0},
    steps={"rewards": (accuracy_reward, format_reward, look_reward, detect_reward)},
    cost="none",
)
