"""The settings (hyperparameters) of a training run, as frozen dataclasses: `TrainSettings` for everything that trains,
`GRPOSettings` for GRPO. The line under each field documents it here, in an editor, and in the command line's help.
Plain data without torch: the command line's help and the plots of a saved run need nothing heavier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from favor_lab.arguments import SEEDS, ArgumentError, check_choice, check_count, check_number

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Style = Literal["think", "answer", "answer-first"]  # of the response: see `vlm.prompts`
How = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo"]  # to aggregate token losses: see `losses.aggregate`
Level = Literal["token", "sequence"]  # of the ratio: see `losses.grpo_loss`
Scale = Literal["group", "batch", "none"]  # of advantages: see `advantages.group_advantages`
Decoding = Literal["auto", "static", "graph", "compiled", "plain"]  # how to sample: see `vlm.fast.decoding`
Scoring = Literal["packed", "plain"]  # how to score: see `sampling.score_completions`
Schedule = Literal["linear", "constant", "cosine"]  # of the learning rate: see `schedule.learning_rate`

HOWS, LEVELS, SCALES, DECODINGS = map(get_args, (How, Level, Scale, Decoding))

#: Settings that may differ when a run is resumed: they bound memory or say how long, and change no result.
RESUMABLE_CHANGES = {"steps", "micro_batch", "gradient_checkpointing", "offload_tower", "decoding", "log_rows"}
POSITIVE = {"steps", "prompts_per_step", "max_new_tokens", "temperature", "learning_rate", "updates_per_rollout"}
MOST_ROWS = 2**20  #: completions of a step; more fit on no machine


@dataclass(frozen=True)
class TrainSettings:
    """Settings that every way of training uses, supervised fine-tuning included. Each default states where it comes
    from; "own choice" was set on the pocket policy."""

    steps: int = 100
    """Optimiser steps (own choice; Visual-RFT: 200)."""
    prompts_per_step: int = 4
    """B, prompts per step (own choice; Visual-RFT: 16)."""
    max_new_tokens: int = 64
    """Longest completion in tokens (own choice; Visual-RFT: 256)."""
    open_vocabulary: bool = False
    """Ask without a list of labels (Visual-RFT: without; CLS-RL: with)."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW (own choice, for LoRA on the pocket policy; Visual-RFT: 1e-6, all weights)."""
    schedule: Schedule = "linear"
    """Decay of the learning rate to 0 at the end (Visual-RFT: linear)."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises to its peak (Visual-RFT)."""
    weight_decay: float = 0.0
    """Weight decay of AdamW (TRL 1.16)."""
    max_grad_norm: float = 1.0
    """Gradient norm above which the gradient is scaled down; 0: never (TRL 1.16)."""
    micro_batch: int = 0
    """Completions per forward and backward pass, to bound memory; 0: all. Changes no result."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, to bound memory. Changes no result (TRL 1.16: on)."""
    seed: int = 0
    """Seed of the order of the images and of the sampling."""

    def __post_init__(self) -> None:
        """ValueError for a value that is out of range, or is none of the choices.

        >>> TrainSettings(schedule="step")
        Traceback (most recent call last):
        ...
        favor_lab.arguments.ArgumentError: unknown schedule 'step'; valid: linear, constant, cosine
        """
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if name == "seed":
                check_count(name, value, *SEEDS)
            elif kind is int:
                check_count(name, value, least=int(name in POSITIVE))
            elif kind is float or (name == "clip_high" and value is not None):
                check_number(name, value, positive=name in POSITIVE)
            elif kind is bool:
                check_choice(name, value, (True, False))
            elif get_origin(kind) is Literal:
                check_choice(name, value, get_args(kind))
        if self.warmup_steps > self.steps:
            what = f"warmup_steps is {self.warmup_steps}, but the run has {self.steps} steps"
            raise ArgumentError("warmup_steps", f"{what}: the learning rate would never reach its peak")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """The settings of a saved run: of GRPO if they have its fields, else of supervised fine-tuning.

        >>> [type(TrainSettings.from_dict(values)).__name__ for values in ({"steps": 3}, {"group_size": 4})]
        ['TrainSettings', 'GRPOSettings']
        """
        return (GRPOSettings if "group_size" in values else TrainSettings)(**values)


@dataclass(frozen=True)
class GRPOSettings(TrainSettings):
    """Settings of GRPO. Each default states where it comes from; "own choice" was set on the pocket policy."""

    group_size: int = 8
    """G, completions per prompt (Visual-RFT)."""
    temperature: float = 1.0
    """Sampling temperature; scoring uses it too (Visual-RFT)."""
    style: Style = "think"
    """Style of the response: reasoning and answer, the answer alone, or the answer and then reasoning."""
    beta: float = 0.04
    """Weight of the KL penalty; 0: no reference pass (GRPO paper, Visual-RFT)."""
    clip: float = 0.2
    """The ratio earns nothing beyond 1 +- clip (value: TRL 1.16)."""
    clip_high: float | None = None
    """Upper clip where it differs from the lower, 0.28 in DAPO (GRPO paper: same)."""
    how: How = "grpo"
    """Aggregation of the token losses (GRPO paper, Visual-RFT; TRL 1.16: dapo)."""
    level: Level = "token"
    """One ratio per token, or one per sequence as in GSPO (GRPO paper: token)."""
    scale: Scale = "group"
    """What advantages are divided by: the std of the group, of the batch, or 1."""
    unbiased: bool = True
    """Std with n - 1, not n (Visual-RFT, TRL 1.16)."""
    eps: float = 1e-4
    """Added to the std (Visual-RFT, TRL 1.16)."""
    updates_per_rollout: int = 1
    """Optimiser steps per rollout; at 1 no clip can act (Visual-RFT, TRL 1.16)."""
    skip_flat_groups: bool = False
    """Leave groups without spread out of the loss (GRPO paper: kept)."""
    reward_weights: tuple[float, ...] | None = None
    """Weight of each reward in the sum (Visual-RFT: all 1)."""
    coefficients: Mapping[str, float | int | bool | str | None] = field(default_factory=dict)
    """Coefficients of a recipe, or of steps of your own, by the name of the parameter that takes them."""
    decoding: Decoding = "auto"
    """Decoding: plain, static or graph (CUDA); auto: the fastest of them here. The same tokens."""
    scoring: Scoring = "packed"
    """Scoring: packed (every token once), or plain (transformers' own forward pass, slower; the same to rounding)."""
    offload_tower: bool = False
    """Move the vision tower to the CPU once every image is encoded."""
    log_rows: int = 8
    """Completions kept in each record (own choice: the first group)."""

    def __post_init__(self) -> None:
        """
        >>> GRPOSettings(group_size=1)
        Traceback (most recent call last):
        ...
        favor_lab.arguments.ArgumentError: group_size is 1, but must be at least 2: a
        completion is compared with the others of its group
        """
        super().__post_init__()
        if self.group_size < 2:
            why = "a completion is compared with the others of its group"
            raise ArgumentError("group_size", f"group_size is {self.group_size}, but must be at least 2: {why}")
        if (rows := self.prompts_per_step * self.group_size) > MOST_ROWS:
            product = f"{self.prompts_per_step} prompts_per_step x {self.group_size} = {rows} completions"
            raise ArgumentError("group_size", f"group_size is too large: {product} fit on no machine")
        if self.clip_high is not None and self.clip_high < self.clip:
            message = f"clip_high is {self.clip_high}, but must not be below clip, which is {self.clip}"
            raise ArgumentError("clip_high", message)
        if self.how == "cispo" and self.level == "sequence":
            message = "level is 'sequence', but how='cispo' weighs each token by its own ratio"
            raise ArgumentError("level", f"{message}: take level='token', or another how")
        if self.reward_weights is not None:
            check_reward_weights(self.reward_weights)  # a list, as read from a file, becomes the tuple it was
            object.__setattr__(self, "reward_weights", tuple(self.reward_weights))
        if not isinstance(self.coefficients, Mapping):
            raise ArgumentError("coefficients", f"coefficients is {self.coefficients!r}, but must be a dictionary")
        for name, value in self.coefficients.items():
            if isinstance(value, float) and not math.isfinite(value):
                message = f"coefficients have {name}={value}, but must be finite numbers"
                raise ArgumentError("coefficients", message)


def check_reward_weights(weights: Any) -> None:
    """ArgumentError unless the weights are finite numbers, of which one is not 0.

    >>> check_reward_weights([0.0, 0.0])
    Traceback (most recent call last):
    ...
    favor_lab.arguments.ArgumentError: reward_weights are all 0, so nothing would be learned
    """
    if isinstance(weights, str) or not isinstance(weights, Sequence) or not weights:
        message = f"reward_weights is {weights!r}, but must be a list of numbers, one per reward"
        raise ArgumentError("reward_weights", message)
    for weight in weights:
        check_number("reward_weights", weight, negative=True)
    if not any(weights):
        raise ArgumentError("reward_weights", "reward_weights are all 0, so nothing would be learned")


def changed_settings(settings: DataclassInstance) -> dict[str, Any]:
    """The settings (or the options of a command) that differ from their defaults, by name.

    >>> changed_settings(GRPOSettings(beta=0.5, steps=3))
    {'steps': 3, 'beta': 0.5}
    """
    defaults = vars(type(settings)())
    return {name: value for name, value in vars(settings).items() if value != defaults[name]}
