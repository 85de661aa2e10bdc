"""RLOO: a completion is compared with the mean of the others of its group, which does not contain itself.

Source: Ahmadian et al., Back to basics, arXiv 2402.14740; verl (core_algos.py) and TRL's documentation were read.
Equation: A_i = r_i - mean over j != i of r_j = G / (G - 1) * (r_i - mean of the group): Dr. GRPO's advantage times a
constant, under which Adam hardly changes. Published: G of 2 or 4, beta 0.03, no clip and no std.

Deviations:
1. The KL penalty stays in the loss, with the beta that is set; published, it is a part of the reward.
2. The paper's gradient is of log p of the whole completion, a sum over its tokens; here that sum is divided by the
   constant max_new_tokens (how="dr_grpo"), so that losses compare with those of `dr-grpo`.
3. A group that has lost rows has its own G. The clip acts only with more than one update per rollout.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from favor_lab.grpo.advantages import group_advantages
from favor_lab.recipes.recipe import Recipe


def rloo_advantages(rewards: Tensor, **settings: Any) -> Tensor:
    """Each reward less the mean of the others in its group: (B, G) -> (B, G). NaN, an absent row, does not count, and
    has an advantage of 0. Source: arXiv 2402.14740.

    >>> import torch
    >>> rloo_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, torch.nan, torch.nan]]), scale="none")
    tensor([[ 1.0000, -0.3333, -0.3333, -0.3333],
            [ 1.0000, -1.0000,  0.0000,  0.0000]])
    """
    count = (~rewards.isnan()).sum(dim=1, keepdim=True)  # (B, 1)
    return group_advantages(rewards, **settings) * (count / (count - 1).clamp(min=1))  # (B, G)


RLOO = Recipe(
    "rloo",
    "RLOO: compared with the mean of the others of the group; not divided by a std",
    "Ahmadian et al., Back to basics, arXiv 2402.14740",
    settings={"how": "dr_grpo", "scale": "none"},
    steps={"advantages": rloo_advantages},
    cost="none",
)
