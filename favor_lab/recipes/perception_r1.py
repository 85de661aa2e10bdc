"""Perception-R1: facts of the image that the reasoning states are paid, and repetition costs.

Source: Xiao et al., Perception-R1, arXiv 2506.07218 (not the one of 2504.07954). The run script and reward file of
tongxiao2002/Perception-R1 were read; the formula is known from notes of others, the paper itself was not read.
Equation: r = a * form + b * accuracy + gamma * (share of the annotated facts that a judge finds in the response) -
penalty * (1 - different / all sequences of n words). Published: gamma 0.7, penalty 2, n 20, no KL penalty, G 8, a text
model of 32B as the judge (one of 7B was hacked to below the start).

Deviations:
1. The facts are what is true of the drawn scene, and the judge is a rule: the statement, word for word.
2. a and b were not found: 1 and 1, the weights of plain GRPO.
3. n is 4, as our responses have some 15 words and not hundreds; 20 would never find a repetition.
4. `price` (0, as published; 1 mends it): a false statement costs as much as `price` true ones earn, down to -1.
5. The settings, beta among them, are those of plain GRPO.

Open to, at price 0: a list of all statements has the full share, whatever the image shows; it repeats nothing, so the
penalty does not see it. Statements that no rule knows cost nothing then; at price 1 they cost as false ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from favor_lab.arguments import check_count, check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, format_reward, no_reward
from favor_lab.recipes.facts import statement_scores
from favor_lab.recipes.recipe import Recipe


def repeated_share(text: str, ngram: int = 4) -> float:
    """The share of a text's sequences of `ngram` words that have occurred before; 0.0 for a text without one.

    >>> repeated_share("one hand, one hand, one hand,", ngram=2), repeated_share("one hand", ngram=3)
    (0.6, 0.0)
    """
    words = text.split()
    sequences = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def perception_reward(
    completions: Sequence[Completion], source: Sequence[str], gamma: float = 0.7, price: float = 0.0, **columns: Any
) -> list[float]:
    """gamma * the share of the scene's facts that each completion states, false ones priced: -gamma to gamma.
    ValueError for an image that is no drawn scene, and for a negative coefficient."""
    check_number("gamma", gamma)
    check_number("price", price)
    if not gamma:
        return no_reward(completions)
    return [gamma * score for score in statement_scores(completions, source, price, "perception_reward")]


def repetition_reward(
    completions: Sequence[Completion], penalty: float = 2.0, ngram: int = 4, **columns: Any
) -> list[float]:
    """-penalty * `repeated_share` of each completion, whatever it shows. ValueError for a negative penalty, or for
    sequences of less than a word.

    >>> repetition_reward(["a b a b a b", "a b c d e f"], penalty=2.0, ngram=2)
    [-1.2, 0.0]
    """
    check_number("penalty", penalty)
    check_count("ngram", ngram, least=1)
    return [0.0 - penalty * repeated_share(text, ngram) for text in completion_texts(completions)]


PERCEPTION_R1 = Recipe(
    "perception-r1",
    "Perception-R1: stated facts are paid, as published (hackable; price=1 mends it), repetition costs",
    "Xiao et al., Perception-R1, arXiv 2506.07218, code",
    coefficients={"gamma": 0.7, "penalty": 2.0},
    steps={"rewards": (accuracy_reward, format_reward, perception_reward, repetition_reward)},
    cost="none",
)
