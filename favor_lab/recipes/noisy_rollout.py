"""NoisyRollout: half of each group answers a noisy image, all of it is learnt under the clean one.

Source: Liu et al., NoisyRollout, arXiv 2504.13055; code NUS-TRAIL/NoisyRollout, image_aug.py and the Geometry3K script.
Equation: noise step alpha_t = alpha_0 * (1 - 1 / (1 + exp(-lambda * (t - gamma) / t_max))), alpha_0 = 500 of 1000 steps
of a diffusion's forward process, lambda = 30, gamma = 40 of t_max = 60 training steps. Published: one group of clean
and noisy completions, as many of each, with one mean and std; the loss, its old log-probabilities included, is of the
clean image; no KL penalty, the vision tower frozen.

Deviations:
1. The noisy completions are half of the group of G, not G more: a step has as many rows as a plain one. Of an odd G,
   the larger half is clean.
2. `midpoint` is gamma / t_max, 2/3 of whatever the training's length is.
3. Below noise step 1 (the last eighth of the training) the whole group is sampled from the clean image; published, half
   of it from noise of less than a colour value.
4. The noise is added at the size that the vision tower sees. alpha_0 is `strength` = 300, not 500: the pocket policy's
   accuracy falls from 0.44 to 0.38 there, which is the moderate distortion that is asked for; at 500 it says that there
   is nothing to see.
5. The settings, beta among them, are those of plain GRPO.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from favor_lab.grpo.sampling import sample_groups
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.views import changed_prompts, noisy

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def annealed(strength: float, progress: float, steepness: float = 30.0, midpoint: float = 2 / 3) -> int:
    """The noise step at this point of the training (progress 0 to 1): a sigmoid from `strength` to 0.

    >>> [annealed(500, progress) for progress in (0.0, 0.5, 2 / 3, 0.75, 1.0)]
    [499, 496, 250, 37, 0]
    """
    return int(strength * (1 - 1 / (1 + math.exp(-steepness * (progress - midpoint)))))


def noisy_sample(
    policy: Policy,
    prompts: PromptBatch,
    *,
    group_size: int,
    context: Context,
    strength: float = 300.0,
    steepness: float = 30.0,
    midpoint: float = 2 / 3,
    **settings: Any,
) -> Rollout:
    """`sample_groups`, half of each group from a noisy view of its image; costs the encoding of the noisy images, and
    their prompts once more. Clean rows come first in a group; the loop scores and rewards every row as one of
    `prompts`. The log-probabilities of noisy rows, which belong to another image, are left out: NaN."""
    step, count = annealed(strength, context.progress, steepness, midpoint), len(prompts)
    if step == 0:
        return sample_groups(policy, prompts, group_size, **settings)
    view = changed_prompts(context, lambda image: noisy(image, step, context.generator))
    features, images = prompts.image_features + view.image_features, prompts.images + view.images
    both = replace(prompts[[*range(count), *range(count)]], image_features=features, images=images)
    half = (group_size + 1) // 2
    rollout = sample_groups(policy, both, half, **settings)  # one loop: all clean rows, then all noisy ones
    is_noisy = rollout.groups >= count  # (N,)
    logps = rollout.logps.masked_fill(is_noisy[:, None] & rollout.mask, torch.nan)  # (N, L)
    origin = ["sampled, noisy image" if row else "sampled" for row in is_noisy.tolist()]
    groups = rollout.groups % count
    rollout = replace(rollout, logps=logps, origin=origin, groups=groups, group_size=group_size)
    surplus = is_noisy.cpu() & (
        torch.arange(len(rollout)) % half >= group_size - half
    )  # of an odd G, one in each group
    order = groups.cpu().argsort(stable=True)  # (N,)
    return rollout.rows(order[~surplus[order]])


NOISY_ROLLOUT = Recipe(
    "noisy-rollout",
    "NoisyRollout: half of each group answers a noisy image, all is learnt under the clean one",
    "Liu et al., NoisyRollout, arXiv 2504.13055",
    coefficients={"strength": 300.0},
    steps={"sample": noisy_sample},
    cost="the noisy images encoded, prompts read twice",
)
