"""TempSamp-R1: a response with the label in place of one sampled completion, its advantage anchored to the others'.

Source: Li et al., TempSamp-R1, arXiv 2509.18056, equations 2 to 4; code ZhangZikun6666/TempSamp-R1, timelens_reward.py
and core_algos.py (it has the mix and the shaping, not the anchoring). Equation, r_G being the label's row: mean and std
over the G - 1 sampled rows, A_G = lambda * max_i A_i. Shaping instead: r := tau + a1 ln(r - tau + 1) from tau on, below
it tau - (exp(a2 (tau - r)) - 1) / (exp(a2) - 1), with mean and std over all G rows, the label's included.
Published: lambda = 1.2, tau = 0.8, a1 = 0.01, a2 = 1; G = 4 (8 in the main table and in the code), so one row less is
sampled. Ablation (R1@0.5 on Charades): GRPO 68.9, the label mixed in without control 63.0, anchored 70.7, shaped 72.1.

Deviations:
1. floor: the least advantage of the label's row where no sampled completion is right. Our own choice, as is its value,
   1, one std. A group of equal rewards has max_i A_i = 0: published anchoring alone never helps a class that is never
   solved. floor=0 is the published rule. With scale="none" advantages are smaller: lower the floor with them.
2. shaped: the name of the reward to shape, one of 0 to 1, as the code shapes the IoU and not the format; "" is off.
   **It does nothing to two-valued rewards** such as accuracy_reward: any two values have the same advantages (alone; in
   a sum with the format, accuracy weighs 0.72 as much). It needs a graded one, such as truth_reward. Where it is on,
   anchor and floor are off, as published.
3. form: as in `visurf`. Published: first the answer alone, then reasoning in a second epoch. A group that gets no
   label's row has G - 1 rows.
4. The setting of 80 % of the reward for the label ("downscale") is left out.
5. The old log-probabilities of the label's row are the current policy's: its ratio starts at 1, as in the code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages, to_groups
from favor_lab.grpo.sampling import join, sample_groups
from favor_lab.grpo.support.rollout import weighted_sum
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import label_rows, of_origin, right_rows

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def shaped_reward(rewards: Tensor, threshold: float = 0.8, above: float = 0.01, below: float = 1.0) -> Tensor:
    """Rewards of 0 to 1, of any shape, flattened from `threshold` on and steepened below it: equation 4. above: a1;
    below: a2.

    >>> shaped_reward(torch.tensor([0.0, 0.4, 0.8, 1.0]))
    tensor([0.0868, 0.5138, 0.8000, 0.8018])
    """
    flat = threshold + above * (rewards - threshold).clamp(min=0).log1p()
    steep = threshold - torch.expm1(below * (threshold - rewards)) / math.expm1(below)
    return torch.where(rewards >= threshold, flat, steep)


def anchored(advantages: Tensor, is_label: Tensor, least: Tensor, anchor: float = 1.2) -> Tensor:
    """Advantages (B, G); in the label's rows, which `is_label` (B, G) marks, `anchor` times the group's largest, and at
    least `least` (B, 1).

    >>> table = torch.tensor([[1.5, -0.5, 0.0], [0.0, 0.0, 0.0]])
    >>> anchored(table, torch.tensor([[False, False, True]] * 2), torch.tensor([[0.0], [1.0]]))
    tensor([[ 1.5000, -0.5000,  1.8000],
            [ 0.0000,  0.0000,  1.0000]])
    """
    return torch.where(is_label, (anchor * advantages.amax(dim=1, keepdim=True)).maximum(least), advantages)


def tempsamp_sample(
    policy: Policy, prompts: PromptBatch, *, group_size: int, context: Context, anchor: float = 1.2,
    floor: float = 1.0, shaped: str = "", form: str = "own", **settings: Any,
) -> Rollout:  # fmt: skip
    """`sample_groups` of one completion less, and in its place a row with the right answer (`rows.label_rows`).
    ValueError for an unknown form, and for a negative anchor or floor."""
    if anchor < 0 or floor < 0:
        raise ValueError(
            f"anchor is {anchor} and floor {floor}, but must not be negative: they would unlearn the label"
        )
    if not (anchor or floor or shaped):
        return sample_groups(policy, prompts, group_size, **settings)
    rollout = sample_groups(policy, prompts, group_size - 1, **settings)
    return join(rollout, label_rows(rollout, context, form))


def tempsamp_advantages(
    rewards: Tensor, *, context: Context, anchor: float = 1.2, floor: float = 1.0, shaped: str = "",
    threshold: float = 0.8, **settings: Any,
) -> Tensor:  # fmt: skip
    """`group_advantages` (B, G) of the sampled rows, and the label's anchored to them; or, with `shaped`, of all rows
    after `shaped_reward`. ValueError for a `shaped` that is no reward of the run."""
    rollout = context.rollout
    if shaped and shaped not in context.rewards:
        raise ValueError(f"shaped is {shaped!r}, which is no reward of this run: {', '.join(context.rewards)}")
    if rollout is not None and shaped:
        named = {**rollout.rewards, shaped: shaped_reward(rollout.rewards[shaped], threshold)}
        totals = weighted_sum(named, context.settings.reward_weights)  # (N,)
        rewards = to_groups(totals, rollout.groups)[0]  # (B, G)
    if rollout is None or shaped or "label" not in rollout.origin:
        return group_advantages(rewards, **settings)
    label, right = of_origin(rollout, "label"), right_rows(rollout, context)  # (N,) each
    is_label = to_groups(label.float(), rollout.groups)[0] == 1  # (B, G)
    is_solved = (to_groups((right & ~label).float(), rollout.groups)[0] == 1).any(dim=1, keepdim=True)  # (B, 1)
    advantages = group_advantages(rewards.masked_fill(is_label, torch.nan), **settings)  # (B, G), the label's left out
    return anchored(advantages, is_label, floor * ~is_solved, anchor)


TEMPSAMP = Recipe(
    "tempsamp",
    "TempSamp-R1: the label's response in place of one sampled row, its advantage anchored to theirs",
    "Li et al., TempSamp-R1, arXiv 2509.18056",
    coefficients={"anchor": 1.2, "floor": 1.0},
    steps={"sample": tempsamp_sample, "advantages": tempsamp_advantages},
    cost="none",
)
