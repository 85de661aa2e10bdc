"""TTRV: without labels, an answer is paid by how many others of its group agree with it.

Source: Singh et al., TTRV, arXiv 2510.06783 (paper read, equations 2 to 7); code dd00697/TTRV, ttt_metrics.py, read.
Equation, for answer a of a group of G: r = n(a) / G - alpha * H, H the entropy of the group's answers. In the code H is
divided by the log of the number of different answers, and alpha = 0.75. Published: 32 votes of which 16 are trained on,
T 1, KL 0.001, 20 unlabelled test images of a data set.

The term with H is the same for every row of a group, so the group's mean takes it away again: for any alpha the
advantages are those of the frequency alone (only scale="batch" sees it, in the std). The paper reports gains from it
all the same; its equation 2 does not explain them. An entropy alone, without the frequency, teaches nothing at all.

Deviations:
1. Every row votes and is trained on. An empty or malformed answer does not vote and has frequency 0.
2. The form is paid as well, 1: it needs no label, and an answer that cannot be read cannot vote.
3. `votes` is the share of the vote against the label: 1, as published, reads no label; 0 is plain GRPO.
4. Where test images are trained on, a result must say so; this library trains on `shots.train` alone.

Open to: agreeing. The rich get richer, right or wrong, and one answer to every image has the full reward.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from favor_lab.activities.labels import normalise_label
from favor_lab.arguments import ArgumentError, check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, extract_answer, format_reward
from favor_lab.recipes.recipe import Recipe


def answer_shares(answers: Sequence[str | None]) -> list[float]:
    """How many of a group's answers are the same, as a share of the group; 0.0 for None, which does not vote.

    >>> answer_shares(["reading", "reading", "running", None])
    [0.5, 0.5, 0.25, 0.0]
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return [counts[answer] / len(answers) if answer is not None else 0.0 for answer in answers]


def answer_entropy(answers: Sequence[str | None]) -> float:
    """Entropy of the votes, as a share of its largest value: 0 where all agree (or nobody votes), 1 where as many are
    for each answer.

    >>> answer_entropy(["a", "a", "b", "b"]), answer_entropy(["a", "a", None]), round(answer_entropy("aaab"), 3)
    (1.0, 0.0, 0.811)
    """
    counts = Counter(answer for answer in answers if answer is not None)
    shares = [count / counts.total() for count in counts.values()]
    return -sum(p * math.log(p) for p in shares) / math.log(len(shares)) if len(shares) > 1 else 0.0


def vote_reward(
    completions: Sequence[Completion],
    groups: Sequence[int],
    label: Sequence[str] | None = None,
    votes: float = 1.0,
    alpha: float = 0.75,
    style: str = "think",
    **columns: Any,
) -> list[float]:
    """votes * (frequency of the answer in its group - alpha * entropy of the group) + (1 - votes) * accuracy, -alpha to
    1 for each completion. `groups`: of each row; style: see `extract_answer`. Labels are read below votes = 1 alone.
    ValueError for `votes` outside 0..1, a negative `alpha`, and labels that are needed and not there."""
    check_number("alpha", alpha)
    if not 0 <= votes <= 1:
        raise ArgumentError("votes", f"votes is {votes}, but must be the share of the vote, from 0 to 1")
    if votes < 1 and label is None:
        raise ValueError(f"votes={votes} leaves a share to the labels, but there are none: pass them, or votes=1")
    texts = completion_texts(completions)
    right = accuracy_reward(texts, label, style) if label is not None and votes < 1 else [0.0] * len(texts)
    if not votes:
        return right
    answers = [extract_answer(text, style) for text in texts]
    names = [None if answer is None else normalise_label(answer) or None for answer in answers]
    rewards = list(right)
    for group in dict.fromkeys(groups):
        rows = [row for row, other in enumerate(groups) if other == group]
        own = [names[row] for row in rows]
        for row, share in zip(rows, answer_shares(own), strict=True):
            rewards[row] = votes * (share - alpha * answer_entropy(own)) + (1 - votes) * right[row]
    return rewards


TTRV = Recipe(
    "ttrv",
    "TTRV: no labels; an answer is paid by how many of its group agree with it",
    "Singh et al., TTRV, arXiv 2510.06783",
    coefficients={"votes": 1.0},
    steps={"rewards": (vote_reward, format_reward)},
    cost="none",
)
