"""This project's own reward for drawn scenes, whose truth is known: the share of true statements in the reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from favor_lab.grpo.rewards import Completion
from favor_lab.recipes.facts import facts_of


def truth_reward(completions: Sequence[Completion], source: Sequence[str], **columns: Any) -> list[float]:
    """Share of the statements in the reasoning that are true of the scene; 0.0 without a statement.

    For drawn scenes only, whose truth is known. ValueError for any other image.

    >>> text = "<think>phone at the ear. dancing.</think><answer>phoning</answer>"
    >>> truth_reward([text, ""], ["cartoon/test/00006"] * 2)
    [0.5, 0.0]
    """
    return [facts.precision for facts in facts_of(completions, source, "truth_reward")]
