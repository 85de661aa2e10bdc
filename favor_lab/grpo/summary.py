"""From tensors to a StepRecord's fields: what was sampled, how it was judged, and a few completions to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import is_flat, spread, to_groups
from favor_lab.grpo.losses import MAX_LOG_RATIO
from favor_lab.grpo.records import GRPOSettings, StepRecord
from favor_lab.grpo.rewards import is_right
from favor_lab.grpo.sampling import Rollout

if TYPE_CHECKING:
    from favor_lab.vlm.processing import PromptBatch


EXPLODED = 1000  # times the norm at which gradients are clipped


def weighted_sum(scores: dict[str, Tensor], weights: Sequence[float] | None) -> Tensor:
    """The rewards of each row as one number: (N,). All weights are 1 if there are none.

    >>> weighted_sum({"accuracy": torch.tensor([1.0, 0.0]), "format": torch.tensor([1.0, 1.0])}, (1.0, 0.5))
    tensor([1.5000, 0.5000])
    """
    weights = weights or (1.0,) * len(scores)
    if len(weights) != len(scores):
        raise ValueError(f"reward_weights has {len(weights)} numbers for {len(scores)} rewards: {', '.join(scores)}")
    return torch.stack([w * values for w, values in zip(weights, scores.values(), strict=True)]).sum(dim=0)  # (N,)


def describe(
    rollout: Rollout,
    scores: dict[str, Tensor],
    labels: Sequence[str],
    settings: GRPOSettings,
    right_so_far: dict[str, int],
) -> dict[str, Any]:
    """The record's fields about what was sampled (rows of other origin left out): rewards, groups, lengths, labels.

    labels: gold label of each prompt of the step.
    """
    own = torch.tensor([origin == "sampled" for origin in rollout.origin], device=rollout.mask.device)
    own = own if own.any() else ~own
    sampled, totals = rollout.rows(own), weighted_sum(scores, settings.reward_weights)[own]
    table = to_groups(totals, sampled.groups)[0]  # (B, G)
    lengths = sampled.lengths.float()
    return {
        "rewards": {name: values[own].mean().item() for name, values in scores.items()},
        "reward": totals.mean().item(),
        "reward_spread": spread(table, settings.unbiased).mean().item(),
        "flat_groups": is_flat(table).float().mean().item(),
        "length_mean": lengths.mean().item(),
        "length_min": int(lengths.min()),
        "length_max": int(lengths.max()),
        "truncated": sampled.truncated.float().mean().item(),
        "labels": count_right(sampled.texts, [labels[b] for b in sampled.groups.tolist()], right_so_far),
    }


def count_right(texts: Sequence[str], labels: Sequence[str], right_so_far: dict[str, int]) -> dict[str, dict[str, int]]:
    """How often the right answer was sampled for each label: what is never sampled is never rewarded.

    >>> count_right(["<answer>reading</answer>", "<answer>fishing</answer>"], ["reading"] * 2, {"reading": 5})
    {'reading': {'completions': 2, 'right': 1, 'right_so_far': 6}}
    """
    counts: dict[str, dict[str, int]] = {}
    for text, label in zip(texts, labels, strict=True):
        start = {"completions": 0, "right": 0, "right_so_far": right_so_far.get(label, 0)}
        count, right = counts.setdefault(label, start), is_right(text, label)
        count["completions"] += 1
        count["right"] += right
        count["right_so_far"] += right
    return counts


def troubles(record: StepRecord, settings: GRPOSettings) -> dict[str, str]:
    """What in a step deserves a look although every number is one, by kind.

    >>> troubles(StepRecord(step=1, flat_groups=1.0, grad_norm=0.2), GRPOSettings())
    {'flat groups': 'no group differs in its rewards: this step can teach nothing but closeness to the reference'}
    """
    found, norm = {}, record.grad_norm or 0.0
    if record.flat_groups == 1.0:
        found["flat groups"] = (
            "no group differs in its rewards: this step can teach nothing but closeness to the reference"
        )
    if cut := record.metrics.get("bounded", 0.0):
        found["bounded"] = (
            f"{cut:.0f} log-ratios were cut at {MAX_LOG_RATIO:g}: the policy has gone far from its reference, "
            "and ratio and KL are no more than bounds"
        )
    if norm > EXPLODED * (settings.max_grad_norm or 1.0):
        found["gradient"] = f"the gradient's norm is {norm:.3g}; the steps before it may have been too large"
    if record.truncated == 1.0:
        found["truncated"] = f"no completion ends within max_new_tokens={settings.max_new_tokens}"
    return found


def some_samples(
    rollout: Rollout, scores: dict[str, Tensor], totals: Tensor, advantages: Tensor, prompts: PromptBatch, rows: int
) -> list[dict[str, Any]]:
    """The first completions that the loss is taken over, with what they earned (a row's mean where an advantage is
    given a token)."""
    samples, truncated = [], rollout.truncated.tolist()
    for i, b in enumerate(rollout.groups.tolist()[:rows]):
        advantage = advantages[i] if advantages.dim() == 1 else advantages[i][rollout.mask[i]].mean()
        samples.append(
            {
                "source": prompts.sources[b],
                "label": prompts.labels[b],
                "group": b,
                "text": rollout.texts[i],
                "rewards": {name: values[i].item() for name, values in scores.items()},
                "reward": totals[i].item(),
                "advantage": advantage.item(),
                "origin": rollout.origin[i],
                "truncated": truncated[i],
            }
        )
    return samples
