"""ReFine-RFT: each reward is normalised by itself over the group before they are summed, and short reasoning is paid.

Source: Zhu, Su and Liu, Can textual reasoning improve the performance of MLLMs on fine-grained visual classification?,
arXiv 2601.06993: abstract and project page alone. This is a reading of two sentences, not a reproduction.
Equation: A_i = sum over rewards k of w_k * (r_ik - mean_k) / std_k, where plain GRPO sums first and normalises the sum.
Published in what was read: rewards on form, accuracy, length of the reasoning, and two of other models; no constants.

What it changes: a scale of a reward no longer matters, only its weight; and a reward that one row of eight has earned
counts as much as one that differs in every row. A reward that is the same in a whole group says nothing, as before.

Deviations:
1. All constants are our own: weights of 1, `budget` = 12 words, about what the pocket policy writes.
2. The reward on the length is budget / words, at most 1, and 0 for no reasoning at all: else the shortest way were
   none.
3. No rewards by other models (an embedding, a judge).
4. `apart` = 1 mixes the two ways of normalising: 0, with `budget` = 0, is plain GRPO.
5. The KL penalty stays as it is set.

Open to: one word of reasoning, which has the full reward on its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from favor_lab.activities.labels import is_blank
from favor_lab.arguments import ArgumentError, check_number
from favor_lab.grpo.advantages import group_advantages, to_groups
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, format_reward
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import split_response

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context


def length_reward(completions: Sequence[Completion], budget: float = 12.0, **columns: Any) -> list[float]:
    """budget / words of the reasoning, at most 1; 0.0 without reasoning. A budget of 0 words: 0.0 for all.

    >>> length_reward(["<think>one hand up</think>", "<think> </think>", "<think>a b c d e f</think>"], budget=3)
    [1.0, 0.0, 0.5]
    """
    check_number("budget", budget)
    reasoning = [split_response(text)[0] or "" for text in completion_texts(completions)]
    return [0.0 if is_blank(text) else min(1.0, budget / max(1, len(text.split()))) for text in reasoning]


def summed_apart(rewards: Sequence[Tensor], weights: Sequence[float], **settings: Any) -> Tensor:
    """The sum of the advantages of each reward by itself: tables (B, G), NaN for absent rows, and a weight each.

    >>> import torch
    >>> right, form = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[10.0, 10.0, 0.0, 0.0]])
    >>> summed_apart([right, form], [1.0, 1.0], eps=0.0)
    tensor([[ 2.3660,  0.3660, -1.3660, -1.3660]])
    """
    parts = [weight * group_advantages(table, **settings) for weight, table in zip(weights, rewards, strict=True)]
    return sum(parts[1:], start=parts[0])


def refined_advantages(
    rewards: Tensor,
    *,
    context: Context,
    apart: float = 1.0,
    reward_weights: tuple[float, ...] | None = None,
    **settings: Any,
) -> Tensor:
    """apart * `summed_apart` + (1 - apart) * `group_advantages` of the sum: (B, G) -> (B, G). ValueError for `apart`
    outside 0..1."""
    if not 0 <= apart <= 1:
        raise ArgumentError("apart", f"apart is {apart}, but must be a share, from 0 to 1")
    together, rollout = group_advantages(rewards, **settings), context.rollout
    if not apart or rollout is None:
        return together
    tables = [to_groups(values, rollout.groups)[0] for values in context.rewards.values()]  # (B, G) each
    each = summed_apart(tables, reward_weights or (1.0,) * len(tables), **settings)
    return apart * each + (1 - apart) * together


REFINE_RFT = Recipe(
    "refine-rft",
    "ReFine-RFT: each reward normalised by itself, short reasoning paid (a reading of its abstract)",
    "Zhu, Su and Liu, ReFine-RFT, arXiv 2601.06993 (abstract)",
    coefficients={"apart": 1.0, "budget": 12.0},
    steps={"rewards": (accuracy_reward, format_reward, length_reward), "advantages": refined_advantages},
    cost="none",
)
