"""From tensors to a StepRecord's fields: what was sampled, how it was rewarded, and a few completions to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from favor_lab.grpo.support.checkpoints import Batch, TrainingState
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.rollout import Rollout
from favor_lab.grpo.support.settings import GRPOSettings

if TYPE_CHECKING:
    from favor_lab.vlm.processing import PromptBatch


def length_facts(rollout: Rollout) -> dict[str, Any]:
    """The record's fields about the lengths of these rows."""
    lengths = rollout.lengths
    mean, shortest, longest = lengths.float().mean().item(), int(lengths.min()), int(lengths.max())
    return {"length_mean": mean, "length_min": shortest, "length_max": longest}


def summarise(rollout: Rollout, totals: Tensor) -> dict[str, Any]:
    """The record's fields about the rewards and the lengths of these rows; totals: their summed rewards (N,)."""
    return length_facts(rollout) | {
        "rewards": {name: values.mean().item() for name, values in rollout.rewards.items()},
        "reward": totals.mean().item(),
        "truncated": rollout.truncated.float().mean().item(),
    }


def count_right(
    labels: Sequence[str], right: Sequence[bool], right_so_far: dict[str, int]
) -> dict[str, dict[str, int]]:
    """How often the right answer was sampled for each label: what is never sampled is never rewarded.

    >>> count_right(["reading", "reading"], [True, False], {"reading": 5})
    {'reading': {'completions': 2, 'right': 1, 'right_so_far': 6}}
    """
    counts: dict[str, dict[str, int]] = {}
    for label, is_right in zip(labels, right, strict=True):
        start = {"completions": 0, "right": 0, "right_so_far": right_so_far.get(label, 0)}
        count = counts.setdefault(label, start)
        count["completions"] += 1
        count["right"] += is_right
        count["right_so_far"] += is_right
    return counts


def sample_rows(
    rollout: Rollout, totals: Tensor, advantages: Tensor, prompts: PromptBatch, count: int
) -> list[dict[str, Any]]:
    """The first completions that the loss is taken over, with their rewards and advantage (the row's mean where an
    advantage is given per token). All tensors are on the CPU."""
    samples, truncated = [], rollout.truncated.tolist()
    for i, b in enumerate(rollout.groups.tolist()[:count]):
        advantage = advantages[i] if advantages.dim() == 1 else advantages[i][rollout.mask[i]].mean()
        rewards = {name: values[i].item() for name, values in rollout.rewards.items()}
        sample = {"source": prompts.sources[b], "label": prompts.labels[b], "group": b, "text": rollout.texts[i]}
        sample |= {"rewards": rewards, "reward": totals[i].item(), "advantage": advantage.item()}
        samples.append(sample | {"origin": rollout.origin[i], "truncated": truncated[i]})
    return samples


def report(
    state: TrainingState,
    batch: Batch,
    measured: dict[str, float],
    seconds: dict[str, float],
    settings: GRPOSettings,
    prompts: PromptBatch,
) -> StepRecord:
    """Count the step as done, and write its record."""
    rollout, advantages = batch.rollout.cpu(), batch.advantages.cpu()
    update = state.step % settings.updates_per_rollout
    state.step += 1
    state.batch = batch if state.step % settings.updates_per_rollout else None
    state.right_so_far |= {label: count["right_so_far"] for label, count in batch.facts["labels"].items()}
    own_fields = ("loss", "entropy", "sampling_gap", "grad_norm", "learning_rate")
    metrics = {name: value for name, value in measured.items() if name not in own_fields}
    clips = [metrics[name] for name in ("clip_low", "clip_high") if name in metrics]
    facts: dict[str, Any] = {name: measured.get(name) for name in own_fields} | batch.facts
    facts |= {"kl": metrics.get("kl") if settings.beta else None, "clip_share": sum(clips) if clips else None}
    facts |= {"rows": len(rollout), "tokens": int(rollout.mask.sum()), "update": update}
    totals = rollout.total_rewards(settings.reward_weights)  # (N,)
    samples = sample_rows(rollout, totals, advantages, prompts, settings.log_rows)
    return StepRecord(state.step, seconds=seconds, metrics=metrics, samples=samples, **facts)
