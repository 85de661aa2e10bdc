"""GRPO-CARE's idea: pay for reasoning that by itself leads to the answer, where the answer is right.

Source: Chen et al., GRPO-CARE, arXiv 2506.16141; code TencentARC/GRPO-CARE, grpo_trainer_ref_ema.py, was read.
Equation: bonus_i = accuracy_i * p_i, p_i = exp(mean over the answer's tokens of log pi(token | reasoning, no image)).
Published: bonus_i = 0.5 * accuracy_i where p_i is at least the mean of the right rows less a margin, else 0; p_i is at
most 0.95, under a slow average of the policy's weights (0.995 every 10 steps), with the image; no KL penalty.

Deviations:
1. The bonus is p_i itself, not yes or no by comparison: a group that is consistent throughout has no advantage of it.
2. The policy itself is asked, not a slow average of it, and with the whole image in one colour: what it sees there
   cannot stand in for what the reasoning says.
3. The KL penalty stays as it is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from favor_lab.activities.covering import covered, fill_colour
from favor_lab.activities.images import Example
from favor_lab.activities.labels import refuse_string
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import part_masks

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context


def check_reasons_first(context: Context, who: str) -> None:
    """ValueError, naming who asks, for a style in which no reasoning precedes the answer."""
    if (style := context.question.style) != "think":
        raise ValueError(f"{who} asks how far reasoning leads to the answer, but style={style!r} has none before it")


def consistency_reward(completions: Sequence[Completion], context: Context, **columns: Any) -> list[float]:
    """How far the reasoning alone leads to the answer: the policy's probability of its own answer after its own
    reasoning, with the whole image in one colour; the geometric mean over the answer's tokens. 0.0 without reasoning or
    answer. Works for any image; costs a scoring pass and the encoding of the covered images. ValueError in a style
    other than "think"."""
    refuse_string("completions", completions)
    policy, rollout = context.policy, context.rollout
    if rollout is None:
        raise ValueError("consistency_reward is asked before anything was sampled")
    check_reasons_first(context, "consistency_reward")
    blank = []
    for example in context.examples:
        image = example.image.convert("RGB")
        blank_image = covered(image, (0, 0, *image.size), fill_colour(image))
        blank.append(Example(blank_image, example.label, example.source))
    with torch.no_grad():
        logps = context.logps(rollout, context.encode(blank)).cpu()  # (N, L)
    masks = part_masks(policy, rollout)
    none = torch.zeros_like(rollout.mask, device="cpu")
    answer, reasoning = masks.get("answer", none), masks.get("reasoning", none)  # (N, L)
    mean = (logps * answer).sum(dim=1) / answer.sum(dim=1).clamp(min=1)  # (N,)
    both = answer.any(dim=1) & reasoning.any(dim=1)  # (N,)
    return (mean.exp() * both).tolist()


def right_consistency_reward(
    completions: Sequence[Completion], label: Sequence[str], context: Context, **columns: Any
) -> list[float]:
    """`consistency_reward` of the right answers, 0.0 for the others, as GRPO-CARE gates its bonus: so that a wrong
    answer earns nothing by reasoning that argues for it."""
    right, scores = accuracy_reward(completions, label), consistency_reward(completions, context)
    return [score * reward for score, reward in zip(scores, right, strict=True)]


CARE = Recipe(
    "care",
    "reasoning that leads to the answer is paid too, where the answer is right",
    "GRPO-CARE, arXiv 2506.16141",
    steps={"rewards": (accuracy_reward, format_reward, right_consistency_reward)},
    cost="the covered images encoded, a pass without gradient",
)
