"""Credit by segment: the answer's tokens are credited with the accuracy, all other tokens with the format. Our own.

Source: none. This is no published method but an exercise of this project on which tokens a reward is about; Vision-SR1
(arXiv 2508.19652, read in notes) gives two rewards to two parts of a response in a similar way.
Equation: with A_k = w_k (r_k - mean_k) / (std_k + eps) of each reward k over the group (its statistic first), token t
has the advantage A_accuracy inside the answer, and the sum of all other A_k outside it (the factor per token after).
`split` mixes that with plain GRPO: (1 - split) A + split A_t.

Deviations:
1. From nothing published: what follows are choices.
2. Each reward is divided by its own std, and its weight multiplies after that: before, it would cancel.
3. The answer is what `responses.response_spans` says: the label and its closing tag, without the last `>`. A completion
   without an answer is credited with the format alone.
4. The loss still divides by all tokens of a row: the shorter the answer, the smaller the gradient of the accuracy. A KL
   penalty acts on all tokens.

What it is open to: **reasoning is never credited for the answer that it leads to**, nor blamed. It may become any text
of the right form, and the answer may learn to do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages, to_groups
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import answer_tokens
from favor_lab.recipes.views import by_group

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context

ACCURACY = "accuracy_reward"


def by_segment(inside: Tensor, answer: Tensor, rest: Tensor) -> Tensor:
    """Advantages of tokens (B, G, L): `answer` (B, G) where `inside` (B, G, L) is 1, `rest` (B, G) where it is 0.

    >>> by_segment(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([[2.0, -2.0]]), torch.tensor([[0.5, -0.5]]))
    tensor([[[ 0.5000,  2.0000],
             [-0.5000, -0.5000]]])
    """
    return inside * answer[..., None] + (1 - inside) * rest[..., None]


def credit_advantages(rewards: Tensor, *, context: Context, split: float = 1.0, **settings: Any) -> Tensor:
    """`group_advantages` of each reward, (B, G), at the tokens that it is about: (B, G, L). ValueError for a split
    outside 0..1, and without a reward of the name accuracy_reward."""
    if not 0 <= split <= 1:
        raise ValueError(f"split is {split}, but must be a share from 0 (plain GRPO) to 1")
    plain, rollout = group_advantages(rewards, **settings), context.rollout  # (B, G)
    if rollout is None or not split:
        return plain
    if ACCURACY not in rollout.rewards:
        names = ", ".join(rollout.rewards)
        raise ValueError(f"credit by segment needs a reward named {ACCURACY} beside {names}: name one so, or split=0")
    weights = context.settings.reward_weights or [1.0] * len(rollout.rewards)
    answer, rest = torch.zeros_like(plain), torch.zeros_like(plain)  # (B, G) each
    for weight, (name, values) in zip(weights, rollout.rewards.items(), strict=True):
        part = weight * group_advantages(to_groups(values, rollout.groups)[0], **settings)  # (B, G)
        (answer if name == ACCURACY else rest).add_(part)
    inside = by_group(answer_tokens(rollout, context).to(plain.dtype), rollout.groups)  # (B, G, L)
    return (1 - split) * plain[..., None] + split * by_segment(inside, answer, rest)


CREDIT = Recipe(
    "credit",
    "credit by segment (our own): accuracy at the answer's tokens, format at all others",
    "this project's own, not published; compare Vision-SR1, arXiv 2508.19652",
    coefficients={"split": 1.0},
    steps={"advantages": credit_advantages},
    cost="none",
)
