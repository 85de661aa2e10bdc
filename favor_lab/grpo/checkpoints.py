"""What outlives a step, and its form on disk: one file, replaced in one move, so that an interrupted save leaves the
previous one whole.

The order of the images and the random numbers of a step are functions of (seed, step), so there is no sampler position
and no generator state to keep: from the same state the loop goes on exactly as it would have.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.records import GRPOSettings
from favor_lab.grpo.sampling import Rollout

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

FILE = "checkpoint.pt"


@dataclass
class Batch:
    """One rollout after the first three steps, ready for the loss (again and again, if `updates_per_rollout` says so).

    rewards: by name, (N,) each; advantages: (N,) or (N, L); old_logps: (N, L), NaN until the first scoring fills it in;
    ref_logps: (N, L) or None; facts: the record's fields about this rollout.
    """

    rollout: Rollout
    rewards: dict[str, Tensor]
    advantages: Tensor
    old_logps: Tensor
    ref_logps: Tensor | None
    facts: dict[str, Any]


@dataclass
class TrainingState:
    """Everything that outlives a step. Make one and give it to `train(..., resume=state)` to be able to save it:

        state = TrainingState.start(policy, settings)
        for record in train(policy, shots, settings, resume=state):
            save_checkpoint("run", state)

    It is whole whenever `train` does not run, also after Ctrl-C: a step counts entirely or not at all.
    `memory` is for steps of one's own: tensors, numbers, strings, and lists and dictionaries of them.
    """

    policy: Policy
    settings: GRPOSettings
    optimiser: torch.optim.Optimizer
    step: int = 0
    sources: list[str] = field(default_factory=list)  # the images trained on
    right_so_far: dict[str, int] = field(default_factory=dict)  # label -> right answers sampled
    memory: dict[str, Any] = field(default_factory=dict)
    batch: Batch | None = None  # a rollout that has updates left

    @classmethod
    def start(cls, policy: Policy, settings: GRPOSettings) -> TrainingState:
        """The state before the first step. ValueError for a policy without trainable parameters."""
        parameters = [parameter for _, parameter in policy.trainable_parameters()]
        if not parameters:
            raise ValueError(f"the policy {policy.name} has no trainable parameters: load it with a lora_rank above 0")
        decay, rate = settings.weight_decay, settings.learning_rate
        return cls(policy, settings, torch.optim.AdamW(parameters, lr=rate, weight_decay=decay))


def save_checkpoint(directory: str | Path, state: TrainingState) -> Path:
    """Write the state to `directory`/checkpoint.pt and return that path; an older one there is replaced in one move."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path, unfinished = directory / FILE, directory / f"{FILE}.{os.getpid()}.tmp"
    content = {
        "parameters": {name: parameter.detach() for name, parameter in state.policy.trainable_parameters()},
        "optimiser": state.optimiser.state_dict(),
        "settings": asdict(state.settings),
        "batch": None if state.batch is None else asdict(state.batch),
        **{name: getattr(state, name) for name in ("step", "sources", "right_so_far", "memory")},
    }
    try:
        torch.save(content, unfinished)
        torch.load(unfinished, map_location="meta", weights_only=True)  # what cannot be read must not replace what can
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load_checkpoint(directory: str | Path, policy: Policy) -> TrainingState:
    """The state saved in `directory`; the trainable parameters of `policy` are set to the saved ones.

    FileNotFoundError without a checkpoint; ValueError for a file that is none, or that fits another policy.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint to resume from: {path} does not exist")
    try:
        content = torch.load(path, map_location=policy.device, weights_only=True)
        saved, settings, batch = content.pop("parameters"), content.pop("settings"), content.pop("batch")
    except (RuntimeError, EOFError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a checkpoint of a training run, or is damaged: {error}") from error
    own = dict(policy.trainable_parameters())
    unlike = sorted(
        name
        for name in saved.keys() | own.keys()
        if name not in saved or name not in own or saved[name].shape != own[name].shape
    )
    if unlike:
        raise ValueError(
            f"{path} fits another policy than {policy.name}: {unlike[0]} is missing or has another shape "
            f"({len(unlike)} parameters in all); load the policy with the run's name and lora_rank"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])
    state = TrainingState.start(policy, GRPOSettings(**settings))
    state.optimiser.load_state_dict(content.pop("optimiser"))
    state.batch = None if batch is None else Batch(**{**batch, "rollout": Rollout(**batch["rollout"])})
    for name, value in content.items():
        setattr(state, name, value)
    return state
