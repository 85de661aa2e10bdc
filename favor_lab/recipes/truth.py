"""This project's own reward for drawn scenes, whose truth is known: the share of true statements in the reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from favor_lab.activities.labels import refuse_string
from favor_lab.activities.world import is_pocket_source
from favor_lab.grpo.rewards import Completion, completion_texts
from favor_lab.responses import judge_statements


def truth_reward(completions: Sequence[Completion], source: Sequence[str], **columns: Any) -> list[float]:
    """Share of the statements in the reasoning that are true of the scene; 0.0 without a statement.

    For drawn scenes only, whose truth is known. ValueError for any other image.

    >>> text = "<think>phone at the ear. dancing.</think><answer>phoning</answer>"
    >>> truth_reward([text, ""], ["cartoon/test/00006"] * 2)
    [0.5, 0.0]
    """
    refuse_string("source", source)
    unknown = next((name for name in source if not is_pocket_source(name)), None)
    if unknown is not None:
        raise ValueError(f"truth_reward knows the truth of drawn scenes only, not of {unknown}")
    texts = completion_texts(completions)
    judged = [judge_statements(text, name) for text, name in zip(texts, source, strict=True)]
    return [true / stated if stated else 0.0 for stated, true in judged]
