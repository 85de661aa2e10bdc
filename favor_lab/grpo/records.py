"""What goes into a training run and what comes out of it: settings and one record per optimiser step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import SCALES, is_flat, spread, to_groups
from favor_lab.grpo.losses import HOWS, LEVELS
from favor_lab.grpo.rewards import is_right
from favor_lab.grpo.sampling import Rollout
from favor_lab.vlm.prompts import STYLES

if TYPE_CHECKING:
    from favor_lab.vlm.processing import PromptBatch

SCHEDULES = ("linear", "constant", "cosine")


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A settings field with the line that documents it, here and in the command line's help."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class GRPOSettings:
    """Settings of `train`. Each default states where it comes from; "own choice" was set on the pocket policy.

    >>> GRPOSettings(group_size=1)
    Traceback (most recent call last):
    ...
    ValueError: group_size is 1, but must be at least 2: a completion is compared with the others of its group
    """

    steps: int = option(100, "optimiser steps (own choice; Visual-RFT: 200)")
    prompts_per_step: int = option(4, "B, prompts in a step (own choice; Visual-RFT: 16)")
    group_size: int = option(8, "G, completions per prompt (Visual-RFT)")
    max_new_tokens: int = option(64, "most tokens of a completion (own choice; Visual-RFT: 256)")
    temperature: float = option(1.0, "sampling temperature; scoring uses it too (Visual-RFT)")
    style: str = option("think", "response style: reasoning and answer, or the answer alone", STYLES)
    open_vocabulary: bool = option(False, "ask without a list of labels (Visual-RFT: without; CLS-RL: with)")
    learning_rate: float = option(2e-4, "peak learning rate of AdamW (own choice, for LoRA)")
    schedule: str = option(
        "linear", "decay of the learning rate to 0 at the end (Visual-RFT: linear)", SCHEDULES
    )
    warmup_steps: int = option(0, "steps in which the learning rate climbs to its peak (Visual-RFT)")
    weight_decay: float = option(0.0, "weight decay of AdamW (TRL 1.16)")
    max_grad_norm: float = option(
        1.0, "gradient norm above which the gradient is scaled down, 0: never (TRL 1.16)"
    )
    beta: float = option(0.04, "weight of the KL penalty, 0: no reference pass (GRPO paper, Visual-RFT)")
    clip: float = option(0.2, "the ratio earns nothing beyond 1 +- clip (GRPO paper, TRL 1.16)")
    clip_high: float | None = option(
        None, "upper clip where it differs from the lower, 0.28 in DAPO (GRPO paper: same)"
    )
    how: str = option(
        "grpo", "aggregation of the token losses (GRPO paper, Visual-RFT; TRL 1.16: dapo)", HOWS
    )
    level: str = option(
        "token", "one ratio a token, or one a sequence as in GSPO (GRPO paper: token)", LEVELS
    )
    scale: str = option(
        "group", "what advantages are divided by: the std of the group, of the batch, or 1", SCALES
    )
    unbiased: bool = option(True, "std with n - 1, not n (Visual-RFT, TRL 1.16)")
    eps: float = option(1e-4, "added to the std (Visual-RFT, TRL 1.16)")
    updates_per_rollout: int = option(
        1, "optimiser steps on each rollout; at 1 no clip can act (Visual-RFT, TRL 1.16)"
    )
    micro_batch: int = option(
        0, "completions per forward and backward, to bound memory, 0: all; changes no result"
    )
    skip_flat_groups: bool = option(False, "leave groups without spread out of the loss (GRPO paper: kept)")
    reward_weights: tuple[float, ...] | None = option(
        None, "weight of each reward in the sum (Visual-RFT: all 1)"
    )
    log_rows: int = option(8, "completions kept in each record (own choice: the first group)")
    seed: int = option(0, "seed of the order of the images and of the sampling")

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(
                f"group_size is {self.group_size}, but must be at least 2: "
                "a completion is compared with the others of its group"
            )
        for name in (
            "steps",
            "prompts_per_step",
            "max_new_tokens",
            "temperature",
            "learning_rate",
            "updates_per_rollout",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0")
        for name in (
            "beta",
            "clip",
            "eps",
            "warmup_steps",
            "micro_batch",
            "max_grad_norm",
            "log_rows",
            "weight_decay",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must not be negative")
        for name, spec in self.__dataclass_fields__.items():
            choices = spec.metadata["choices"]
            if choices and getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; valid: {', '.join(choices)}")
        if self.reward_weights is not None:  # a list, as read back from a file, becomes the tuple it was
            object.__setattr__(self, "reward_weights", tuple(self.reward_weights))


@dataclass
class StepRecord:
    """What happened in one optimiser step. None where a number does not exist (the KL when beta is 0).

    Means over rows and tokens are over the whole step, whatever the micro-batch; rewards, lengths and labels are those
    of the sampled rows, before `select`.
    """

    step: int  # 1 after the first optimiser step
    loss: float | None = None  # what was minimised
    reward: float | None = None  # mean weighted sum of the rewards
    rewards: dict[str, float] = field(default_factory=dict)  # mean of each reward by name
    reward_spread: float | None = None  # mean over groups of the std of the summed reward
    flat_groups: float | None = None  # share of groups without spread: they teach nothing
    kl: float | None = None  # mean k3 estimate a token, nats
    entropy: float | None = None  # mean entropy a token of the sampling distribution, nats
    clip_share: float | None = None  # share of tokens whose gradient the clip took away
    sampling_gap: float | None = (
        None  # largest difference between a log-probability when sampled and when scored
    )
    length_mean: float | None = None  # tokens a completion, its end token included
    length_min: int | None = None
    length_max: int | None = None
    truncated: float | None = None  # share of completions without an end token
    grad_norm: float | None = None  # before it was clipped
    learning_rate: float | None = None
    rows: int = 0  # completions that the loss was taken over
    tokens: int = 0  # their tokens
    update: int = 0  # 0 for the first optimiser step on a rollout
    seconds: dict[str, float] = field(default_factory=dict)  # wall time by phase
    metrics: dict[str, float] = field(default_factory=dict)  # all the parts of the loss by name
    labels: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # label -> completions, right, right_so_far
    samples: list[dict[str, Any]] = field(
        default_factory=list
    )  # a few completions, with rewards and advantage

    def to_dict(self) -> dict[str, Any]:
        """For `json.dumps`: a number that JSON lacks (NaN, infinity) becomes None.

        >>> StepRecord(step=1, kl=float("nan"), rewards={"accuracy": 0.5}).to_dict()["kl"] is None
        True
        """
        return _jsonable(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StepRecord:
        """
        >>> StepRecord.from_dict(StepRecord(step=3, loss=0.5).to_dict()) == StepRecord(step=3, loss=0.5)
        True
        """
        return cls(**values)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def count_right(
    texts: Sequence[str], labels: Sequence[str], right_so_far: dict[str, int]
) -> dict[str, dict[str, int]]:
    """How often the right answer was sampled for each label: what is never sampled is never rewarded.

    >>> count_right(["<answer>reading</answer>", "<answer>fishing</answer>"], ["reading"] * 2, {"reading": 5})
    {'reading': {'completions': 2, 'right': 1, 'right_so_far': 6}}
    """
    counts: dict[str, dict[str, int]] = {}
    for text, label in zip(texts, labels, strict=True):
        start = {"completions": 0, "right": 0, "right_so_far": right_so_far.get(label, 0)}
        count = counts.setdefault(label, start)
        count["completions"] += 1
        count["right"] += is_right(text, label)
        count["right_so_far"] += is_right(text, label)
    return counts


def some_samples(
    rollout: Rollout,
    scores: dict[str, Tensor],
    totals: Tensor,
    advantages: Tensor,
    prompts: PromptBatch,
    rows: int,
) -> list[dict[str, Any]]:
    """The first completions that the loss is taken over, with what they earned (a row's mean where an advantage is
    given a token)."""
    samples = []
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
                "truncated": bool(rollout.truncated[i]),
            }
        )
    return samples
