"""What goes into a training run and what comes out of it: settings, and one record per optimiser step.

Plain data, without torch: the command line's help and the plots of a saved run read this and nothing heavier.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from favor_lab.vlm.prompts import STYLES

HOWS = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo")  # to aggregate token losses: see `losses.aggregate`
LEVELS = ("token", "sequence")  # of the ratio: see `losses.grpo_loss`
SCALES = ("group", "batch", "none")  # of advantages: see `advantages.group_advantages`
DECODINGS = ("auto", "static", "graph", "plain")  # ways to sample: see `vlm.fast.decoding`
SCHEDULES = ("linear", "constant", "cosine")  # of the learning rate: see `mechanics.learning_rate`

# What may change when a run is resumed; any other setting would make it another run.
FREE = {"steps", "micro_batch", "gradient_checkpointing", "offload_tower", "decoding", "log_rows"}
POSITIVE = ("steps", "prompts_per_step", "max_new_tokens", "temperature", "learning_rate", "updates_per_rollout")
NOT_NEGATIVE = ("beta", "clip", "eps", "warmup_steps", "micro_batch", "max_grad_norm", "log_rows", "weight_decay")


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
    learning_rate: float = option(
        1e-3, "peak learning rate of AdamW (own choice, for LoRA on the pocket policy; Visual-RFT: 1e-6, all weights)"
    )
    schedule: str = option("linear", "decay of the learning rate to 0 at the end (Visual-RFT: linear)", SCHEDULES)
    warmup_steps: int = option(0, "steps in which the learning rate climbs to its peak (Visual-RFT)")
    weight_decay: float = option(0.0, "weight decay of AdamW (TRL 1.16)")
    max_grad_norm: float = option(1.0, "gradient norm above which the gradient is scaled down, 0: never (TRL 1.16)")
    beta: float = option(0.04, "weight of the KL penalty, 0: no reference pass (GRPO paper, Visual-RFT)")
    clip: float = option(0.2, "the ratio earns nothing beyond 1 +- clip (value: TRL 1.16)")
    clip_high: float | None = option(
        None, "upper clip where it differs from the lower, 0.28 in DAPO (GRPO paper: same)"
    )
    how: str = option("grpo", "aggregation of the token losses (GRPO paper, Visual-RFT; TRL 1.16: dapo)", HOWS)
    level: str = option("token", "one ratio a token, or one a sequence as in GSPO (GRPO paper: token)", LEVELS)
    scale: str = option("group", "what advantages are divided by: the std of the group, of the batch, or 1", SCALES)
    unbiased: bool = option(True, "std with n - 1, not n (Visual-RFT, TRL 1.16)")
    eps: float = option(1e-4, "added to the std (Visual-RFT, TRL 1.16)")
    updates_per_rollout: int = option(1, "optimiser steps on each rollout; at 1 no clip can act (Visual-RFT, TRL 1.16)")
    micro_batch: int = option(0, "completions per forward and backward, to bound memory, 0: all; changes no result")
    decoding: str = option(
        "auto", "decoding: plain, static or graph (CUDA); auto: the fastest of them here; the same tokens", DECODINGS
    )
    gradient_checkpointing: bool = option(
        False, "compute activations again in the backward pass, to bound memory; changes no result (TRL 1.16: on)"
    )
    offload_tower: bool = option(False, "move the vision tower to the CPU once every image is encoded")
    skip_flat_groups: bool = option(False, "leave groups without spread out of the loss (GRPO paper: kept)")
    reward_weights: tuple[float, ...] | None = option(None, "weight of each reward in the sum (Visual-RFT: all 1)")
    log_rows: int = option(8, "completions kept in each record (own choice: the first group)")
    seed: int = option(0, "seed of the order of the images and of the sampling")

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(
                f"group_size is {self.group_size}, but must be at least 2: "
                "a completion is compared with the others of its group"
            )
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0")
        for name in NOT_NEGATIVE:
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
    sampling_gap: float | None = None  # largest difference between a log-probability when sampled and when scored
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
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # label -> completions, right, right_so_far
    samples: list[dict[str, Any]] = field(default_factory=list)  # a few completions, with rewards and advantage

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
