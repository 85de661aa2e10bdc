"""One record per optimiser step: what the loop yields, and what logs, plots and the dashboard read. Plain data without
torch, so that a saved run can be read and plotted quickly."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from favor_lab.files import jsonable


@dataclass
class StepRecord:
    """What happened in one optimiser step. None where a number does not exist (the KL when beta is 0). Means over rows
    and tokens are over the whole step, whatever the micro-batch; rewards, lengths and labels are those of the sampled
    rows, before `select`."""

    step: int  # 1 after the first optimiser step
    loss: float | None = None  # the value that was minimised
    reward: float | None = None  # mean weighted sum of the rewards
    rewards: dict[str, float] = field(default_factory=dict)  # mean of each reward by name
    reward_spread: float | None = None  # mean over groups of the std of the summed reward
    flat_groups: float | None = None  # share of groups without spread: they teach nothing
    kl: float | None = None  # mean k3 estimate per token, nats
    entropy: float | None = None  # mean entropy per token of the sampling distribution, nats
    clip_share: float | None = None  # share of tokens whose gradient the clip removed
    sampling_gap: float | None = None  # largest difference between a log-probability when sampled and when scored
    length_mean: float | None = None  # tokens per completion, its end token included
    length_min: int | None = None
    length_max: int | None = None
    truncated: float | None = None  # share of completions without an end token
    grad_norm: float | None = None  # before clipping
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
        return jsonable(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StepRecord:
        """
        >>> StepRecord.from_dict(StepRecord(step=3, loss=0.5).to_dict()) == StepRecord(step=3, loss=0.5)
        True
        """
        return cls(**values)
