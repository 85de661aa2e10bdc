"""AEPO: up to three answers, ranked; fewer answers and a better rank of the right one are worth more.

Source: Liu et al., InfiGUI-G1, arXiv 2508.05731; its reward in the code of volcengine/verl, and notes on the paper.
Equation: of N answers the k-th is the first right one: 1 / sqrt(N k), which is 1; 0.71, 0.50; 0.58, 0.41, 0.33 for N of
1, 2, 3; -1 / N if none is right. Total: that plus 1 for the form; -1 for a malformed or degenerate response.
Published: the answers are points on a screen, degenerate are three on one line; any N, 1.6 to 2 on average.

Deviations:
1. Names of labels in place of points. Degenerate are a name that comes twice and one that is not in the list.
2. At most `most` = 3 names, as the prompt says: without a limit, all labels in random order would be paid more than one
   name that is right half of the time. With `most` at 0 it is plain GRPO.
3. Only the training asks for several. Evaluation asks for one name, as always; the records' counts of right labels
   count responses that name one.
4. The advantage removes the mean of the group, so -1 / N matters only next to better rows: in a group without a right
   answer, long lists are preferred to short ones, which is the exploration that is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from favor_lab.activities.labels import normalise_label, refuse_string
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, extract_answer, format_reward
from favor_lab.recipes.recipe import Recipe
from favor_lab.vlm.prompts import ask_several
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context

MOST = 3  # names that `ask_several` asks for


@dataclass(frozen=True)
class SeveralNames(Question):
    """Which activity it is, in up to three names."""

    def text(self, example: Example) -> str:
        """The user's turn, after the image, for one example."""
        return ask_several(self.labels, self.style)


def ask_for_several(examples: Sequence[Example], *, context: Context, most: int = MOST, **settings: Any) -> Question:
    """The question for up to three names; with `most` at 0 the run's own. ValueError for more than three, and for
    labels with a comma, at which answers are cut."""
    if not 0 <= most <= MOST:
        raise ValueError(
            f"most is {most}: the prompt asks for up to {MOST} names; take 1 to {MOST}, or 0 for plain GRPO"
        )
    question = context.question
    if not most:
        return question
    with_comma = next((label for label in context.shots.labels if "," in label), None)
    if with_comma is not None:
        raise ValueError(f"aepo cuts an answer at its commas, but the label {with_comma!r} has one: rename it")
    return SeveralNames(question.labels, question.style)


def ranked_names(text: str, labels: Sequence[str] | None, most: int = MOST, style: str = "think") -> list[str] | None:
    """The names of an answer, normalised, the best first. None for no answer, more than `most` names, a name twice, an
    empty one, and one that is not in the list (of an open vocabulary there is none: any name will do).

    >>> [ranked_names(f"<answer>{answer}</answer>", ["reading", "phoning"]) for answer in
    ...  ("Phoning, reading", "reading, Reading.", "reading, flying", "reading,", "reading or phoning")]
    [['phoning', 'reading'], None, None, None, None]
    """
    names = [normalise_label(name) for name in (extract_answer(text, style) or "").split(",")]
    allowed = names if labels is None else [normalise_label(label) for label in labels]
    good = len(names) <= most and len(set(names)) == len(names) and all(name and name in allowed for name in names)
    return names if good else None


def efficiency(names: Sequence[str], right: str) -> float:
    """1 / sqrt(N k) for N names of which the k-th is the right one, else -1 / N.

    >>> [round(efficiency(names, "b"), 3) for names in ("b", "ba", "ab", "abc", "a", "ac", "acd")]
    [1.0, 0.707, 0.5, 0.408, -1.0, -0.5, -0.333]
    """
    count = len(names)
    return 1 / math.sqrt(count * (names.index(right) + 1)) if right in names else -1 / count


def aepo_reward(
    completions: Sequence[Completion], label: Sequence[str], context: Context, most: int = MOST, **columns: Any
) -> list[float]:
    """`efficiency` of a well-formed response; together with `format_reward` a malformed one is -1 in all. With `most`
    at 0 it is `accuracy_reward`.

    Two names are worth more than one where p2 > 0.793 p1 - 0.5, with p1 and p2 their chances of being right: always
    below p1 = 0.63. So an unsure policy is paid for lists, as is meant, and a sure one for a single name.
    """
    if not most:
        return accuracy_reward(completions, label, context.question.style)
    refuse_string("label", label)
    scores, style = [], context.question.style
    forms = format_reward(completions, style)
    for text, gold, form in zip(completion_texts(completions), label, forms, strict=True):
        names = ranked_names(text, context.labels, most, style) if form else None
        scores.append(-1 - form if names is None else efficiency(names, normalise_label(gold)))
    return scores


AEPO = Recipe(
    "aepo",
    "AEPO: up to three ranked answers, 1 / sqrt(N k) where the k-th of N is right",
    "Liu et al., InfiGUI-G1, arXiv 2508.05731",
    coefficients={"most": MOST},
    steps={"question": ask_for_several, "rewards": (aepo_reward, format_reward)},
    cost="none",
)
