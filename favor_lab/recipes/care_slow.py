"""GRPO-CARE as published: a bonus where the policy's slow average, reading the reasoning, is as sure of a right answer.

Source: Chen et al., GRPO-CARE, arXiv 2506.16141; code TencentARC/GRPO-CARE, grpo_trainer_ref_ema.py, read.
Equations: p_i = min(0.95, exp(mean over the answer's tokens of log pi_slow)), with image, question and reasoning before
them; S = rows with acc_i > 0.1 and acc_i >= the group's mean; bonus_i = 0.5 * acc_i where i is in S and p_i >= mean
over S of p - margin. Published: margin 0.01 (or 0), slow = 0.995 * slow + 0.005 * policy every 10 of 1000 steps, no KL
penalty (the slow pass takes the place of the reference's). `care` asks the policy itself, the image covered.

Deviations:
1. `decay` = 0.95 at every step, as a run has 100 steps. The slow weights begin as those that training begins with.
2. Only rows with reasoning and, after it, an answer are in S.
3. The group is the prompt's; published, that of the device.
4. The settings, beta among them, are those of plain GRPO.

Open to: a homogeneous group has the bonus as a whole, which teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.arguments import ArgumentError, check_number
from favor_lab.grpo.advantages import to_groups
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, format_reward
from favor_lab.recipes.care import check_reasons_first
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import part_masks

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context


def care_bonus(confidence: Tensor, right: Tensor, groups: Tensor, bonus: float = 0.5, margin: float = 0.01) -> Tensor:
    """GRPO-CARE's bonus of each row from the slow reference's confidence in its answer, its accuracy, its group: (N,).

    >>> confidence, right = torch.tensor([0.9, 0.5, 0.99, 0.2]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    >>> care_bonus(confidence, right, torch.tensor([0, 0, 0, 1]))
    tensor([0.5000, 0.0000, 0.0000, 0.5000])
    """
    (accuracy, place), capped = to_groups(right, groups), to_groups(confidence.clamp(max=0.95), groups)[0]  # (B, G)
    accurate = (accuracy > 0.1) & (accuracy >= accuracy.nanmean(dim=1, keepdim=True))  # (B, G)
    mean = capped.masked_fill(~accurate, torch.nan).nanmean(dim=1, keepdim=True)  # (B, 1), NaN where none is
    return bonus * right * (accurate & (capped >= mean - margin))[place]


@torch.no_grad()
def slow_confidence_reward(
    completions: Sequence[Completion], label: Sequence[str], groups: Sequence[int], context: Context,
    bonus: float = 0.5, margin: float = 0.01, **columns: Any,
) -> list[float]:  # fmt: skip
    """`care_bonus` of each completion, 0 or `bonus`; costs a scoring pass. ValueError for a negative coefficient, in
    a style other than "think", and where the rows are not those that the context has."""
    check_number("bonus", bonus)
    check_number("margin", margin)
    texts = completion_texts(completions)
    if not bonus:
        return [0.0] * len(texts)
    check_reasons_first(context, "slow_confidence_reward")
    policy, rollout = context.policy, context.rollout
    if rollout is None or rollout.texts != texts:
        raise ValueError("slow_confidence_reward scores context.rollout, which has other rows: set it before rewarding")
    own = {name: weight.detach() for name, weight in policy.trainable_parameters()}
    if "slow" not in context.state:  # nothing was learnt yet; `keep_slowly` begins with these
        context.cache["start"] = {name: weight.float().clone() for name, weight in own.items()}
    slow = {name: value.to(own[name].dtype) for name, value in context.state.get("slow", {}).items()}
    logps, masks = context.logps(rollout, weights=slow).cpu(), part_masks(policy, rollout)  # (N, L)
    none = torch.zeros_like(rollout.mask, device="cpu")
    answer, reasoning = masks.get("answer", none), masks.get("reasoning", none)  # (N, L)
    confidence = ((logps * answer).sum(dim=1) / answer.sum(dim=1).clamp(min=1)).exp()  # (N,)
    right = torch.tensor(accuracy_reward(completions, label)) * (answer.any(dim=1) & reasoning.any(dim=1))  # (N,)
    return care_bonus(confidence, right, torch.tensor(groups), bonus, margin).tolist()


@torch.no_grad()
def keep_slowly(context: Context, bonus: float = 0.5, decay: float = 0.95) -> None:
    """After a step: slow = decay * slow + (1 - decay) * policy, over the trainable weights by name, in float32, in
    `context.state`. ValueError for a decay outside 0..1."""
    if not 0 <= decay <= 1:
        raise ArgumentError("decay", f"decay is {decay}, but must be the share of the slow weights that stays, 0 to 1")
    if bonus:
        slow = context.state.get("slow") or context.cache.get("start")
        if slow is None:
            raise ValueError("keep_slowly has no weights to begin with: slow_confidence_reward has not been asked")
        now = {name: weight.float() for name, weight in context.policy.trainable_parameters()}
        context.state["slow"] = {name: value.lerp(now[name], 1 - decay) for name, value in slow.items()}


CARE_SLOW = Recipe(
    "care-slow",
    "GRPO-CARE as published: a bonus where a slow average of the policy confirms the right answer",
    "Chen et al., GRPO-CARE, arXiv 2506.16141, code",
    coefficients={"bonus": 0.5},
    steps={"rewards": (accuracy_reward, format_reward, slow_confidence_reward), "after_step": keep_slowly},
    cost="a pass without gradient, a second copy of the trainable weights",
)
