"""ViSurf: the label's own response is one more row of each group, compared and learnt like the sampled ones.

Source: Liu et al., ViSurf, arXiv 2510.10606; read: its abstract, and notes of others with the equations. No code read.
Equation: group {y, o_1 .. o_G}, A = (r - mean) / std over all G + 1 rows; loss = GRPO's, a mean over G + 1 rows.
Published, on the reward of y, the label's row: y is written in the form of the policy's own answers; it has no
reasoning, so its format reward is 0; smoothing: where max_j r(o_j) >= r(y), r(y) := mean_j r(o_j), so that y has the
advantage 0. Not found: G and the weights of the rewards.

With 0/1 rewards, G = 8 and a std with n, y has the advantage 2.83 in a group without a right completion (a wrong one
has -0.35), 1.87 with one right of 8, 0.89 with four. With smoothing it acts in groups without a right one alone: as SFT
of weight sqrt(G), on exactly the groups that teach GRPO nothing. Without it, expect the label to be memorised.

Deviations:
1. Smoothing compares accuracy alone: is there a right completion in the group? Compared as published, on the sum of
   accuracy and format, a wrong well-formed completion has as many points (1) as a bare label, and would silence the
   label's row in exactly the groups that it is for.
2. form="own": the label stands behind the reasoning of the group's first well-formed completion, and earns the format's
   points; a group without one gets no label's row. form="bare" is the published row without reasoning, which teaches
   not to reason; with equal weights of accuracy and format it has as many points as a wrong well-formed row, and is
   nothing beside those: set reward_weights=(2, 1), say. The reasoning of "own" may be wrong: answer_only=True gives the
   label's row its advantage at the tokens of the answer alone (a KL penalty acts on all tokens).
3. control="drop" leaves the label's row out where the group has a right completion: there it is GRPO bit for bit.
   "smooth", as published, still enlarges the others' advantages by sqrt(G / (G - 1)), 1.07 at G = 8 (std with n - 1).
   "naive" leaves r(y) as it is.
4. label_weight multiplies the advantage of the label's row, after the group's statistic; published: 1.
5. The old log-probabilities of the label's row are the current policy's: its ratio starts at 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.sampling import join
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import answer_tokens, label_rows, of_origin, rewarded, right_rows
from favor_lab.recipes.views import by_group

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context

CONTROLS = ("smooth", "naive", "drop")


def smoothed(labelled: Rollout, rollout: Rollout, solved: Tensor) -> Rollout:
    """The label's rows, in solved groups with the mean of their group's rewards in place of their own; solved: (n,)
    bool. Each named reward is smoothed by itself, so that their weighted sum is too."""
    member = labelled.groups[:, None] == rollout.groups  # (n, N)
    rewards = {}
    for name, values in labelled.rewards.items():
        mean = (member * rollout.rewards[name]).sum(dim=1) / member.sum(dim=1)  # (n,)
        rewards[name] = torch.where(solved, mean, values)
    return replace(labelled, rewards=rewards)


def visurf_select(
    rollout: Rollout, *, context: Context, label_weight: float = 1.0, control: str = "smooth", form: str = "own"
) -> Rollout:
    """The rows of the step, and for each group a row with the right answer (`rows.label_rows`). ValueError for an
    unknown control or form, and for a negative weight."""
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r} of the label's row; the controls are {', '.join(CONTROLS)}")
    if label_weight < 0:
        raise ValueError(f"label_weight is {label_weight}, but must not be negative: it would unlearn the label")
    if not label_weight:
        return rollout
    labelled = rewarded(label_rows(rollout, context, form), context)
    solved = torch.isin(labelled.groups, rollout.groups[right_rows(rollout, context)])  # (n,)
    if control == "drop":
        labelled = labelled.rows(~solved)
    elif control == "smooth":
        labelled = smoothed(labelled, rollout, solved)
    return join(rollout, labelled)


def visurf_advantages(
    rewards: Tensor, *, context: Context, label_weight: float = 1.0, answer_only: bool = False, **settings: Any
) -> Tensor:
    """`group_advantages` (B, G + 1), times `label_weight` in the label's rows; as (B, G + 1, L) where that, or
    `answer_only`, changes anything. The group's statistic comes first, the factors after it."""
    advantages, rollout = group_advantages(rewards, **settings), context.rollout
    if rollout is None or not (answer_only or label_weight != 1):
        return advantages
    is_label = of_origin(rollout, "label")[:, None]  # (N, 1)
    if not bool(is_label.any()):
        return advantages
    tokens = answer_tokens(rollout, context) if answer_only else rollout.mask  # (N, L)
    factors = torch.where(is_label, label_weight * tokens, rollout.mask.to(advantages.dtype))  # (N, L)
    return advantages[..., None] * by_group(factors, rollout.groups)


VISURF = Recipe(
    "visurf",
    "ViSurf: the label's own response is one more row of each group",
    "Liu et al., ViSurf, arXiv 2510.10606",
    coefficients={"label_weight": 1.0},
    steps={"select": visurf_select, "advantages": visurf_advantages},
    cost="one row more per prompt in the loss",
)
