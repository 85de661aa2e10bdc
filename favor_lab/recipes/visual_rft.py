"""Visual-RFT's rewards as its code published them: a substring match either way, and tags that may be empty.

Source: Liu et al., Visual-RFT, arXiv 2503.01785; its released code was read.
Equation: reward = 1[the label is in the answer, or the answer in the label] + 1[both pairs of tags are there].
They pay for saying nothing: train with them only to see that.

Deviations:
1. None in the two rewards. The strict accuracy is recorded beside them, with weight 0.
2. Settings, G = 8 among them, are those of plain GRPO, which follow Visual-RFT where they can at this size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from favor_lab.activities.labels import refuse_string
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts
from favor_lab.recipes.recipe import Recipe

PUBLISHED_FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


def published_reward(completions: Sequence[Completion], label: Sequence[str], **columns: Any) -> list[float]:
    """Accuracy as Visual-RFT's code published it (arXiv 2503.01785): 1.0 where the label is part of the answer **or the
    answer part of the label**, without case, spaces and underscores; without a tag the whole text is the answer.

    It pays for saying nothing. Never train with it but to see that:

    >>> published_reward(["", "<answer></answer>", "<answer>n</answer>", "running or reading"], ["reading"] * 4)
    [1.0, 1.0, 1.0, 1.0]
    """
    refuse_string("label", label)
    scores = []
    for text, gold in zip(completion_texts(completions), label, strict=True):
        found = re.search("<answer>(.*?)</answer>", text)  # the dot stops at a line break, as published
        answer, wanted = (re.sub("[ _]", "", part.strip()).lower() for part in (found[1] if found else text, gold))
        scores.append(float(wanted in answer or answer in wanted))
    return scores


def published_format(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """Format as Visual-RFT's code published it: both pairs of tags, which may be empty.

    >>> published_format(["<think></think><answer></answer>", "<answer>reading</answer>"])
    [1.0, 0.0]
    """
    return [float(PUBLISHED_FORM.fullmatch(text) is not None) for text in completion_texts(completions)]


VISUAL_RFT = Recipe(
    "visual-rft",
    "the published substring reward and format are paid (the strict accuracy is recorded)",
    "Liu et al., Visual-RFT, arXiv 2503.01785, code",
    settings={"reward_weights": (1.0, 1.0, 0.0)},
    steps={"rewards": (published_reward, published_format, accuracy_reward)},
    cost="none",
)
