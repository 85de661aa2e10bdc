"""What outlives a step, and its form on disk: one file a checkpoint, put in place in one move, so that whatever ends a
save leaves the previous ones whole.

The order of the images and the random numbers of a step are functions of (seed, step), so there is no sampler position
and no generator state to keep: from the same state the loop goes on exactly as it would have.

The file is safetensors: numbers and JSON, nothing that could run when it is read. A digest of all of it tells damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from favor_lab.files import put_in_place
from favor_lab.grpo.records import GRPOSettings
from favor_lab.grpo.sampling import Rollout

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

KEEP = 2  # the newest, and one to fall back on


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
    images: dict[str, str] = field(default_factory=dict)  # source -> fingerprint of the images trained on
    right_so_far: dict[str, int] = field(default_factory=dict)  # label -> right answers sampled
    memory: dict[str, Any] = field(default_factory=dict)
    batch: Batch | None = None  # a rollout that has updates left

    def out_of_range(self) -> list[str]:
        """Names of the trainable parameters that hold a NaN or an infinity, or whose norm overflows."""
        weights = {name: weight.detach() for name, weight in self.policy.trainable_parameters()}
        if torch.nn.utils.get_total_norm(weights.values()).isfinite():  # one number to wait for where all is well
            return []
        return [name for name, weight in weights.items() if not weight.norm().isfinite()] or list(weights)

    @classmethod
    def start(cls, policy: Policy, settings: GRPOSettings) -> TrainingState:
        """The state before the first step. ValueError for a policy without trainable parameters."""
        parameters = [parameter for _, parameter in policy.trainable_parameters()]
        if not parameters:
            raise ValueError(f"the policy {policy.name} has no trainable parameters: load it with a lora_rank above 0")
        decay, rate = settings.weight_decay, settings.learning_rate
        return cls(policy, settings, torch.optim.AdamW(parameters, lr=rate, weight_decay=decay))


def file_of(directory: str | Path, step: int) -> Path:
    """
    >>> file_of("run", 10).name
    'step-000010.safetensors'
    """
    return Path(directory) / f"step-{step:06}.safetensors"


def checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(Path(directory).glob("step-*.safetensors"), key=lambda path: int(path.stem[5:]), reverse=True)


def save_checkpoint(directory: str | Path, state: TrainingState) -> Path:
    """Write the state to `directory`/step-NNNNNN.safetensors and return that path; the last two are kept.

    Nothing is replaced before the new file is whole on the disk. OSError, with what is still there, where it cannot be
    written; TypeError for something in `memory` that is neither a number, a string, a tensor, nor made of them;
    FloatingPointError for weights that are out of range: they are not worth a good checkpoint's place.
    """
    if bad := state.out_of_range():
        raise FloatingPointError(
            f"the weights after step {state.step} are out of range in {len(bad)} parameters, the first {bad[0]}: "
            f"they were not saved to {directory}"
        )
    directory = Path(directory)
    path = file_of(directory, state.step)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    tensors: dict[str, Tensor] = {}
    content = {
        "parameters": {name: parameter.detach() for name, parameter in state.policy.trainable_parameters()},
        "optimiser": state.optimiser.state_dict(),
        "settings": asdict(state.settings),
        "batch": None if state.batch is None else asdict(state.batch),
        **{name: getattr(state, name) for name in ("step", "images", "right_so_far", "memory")},
    }
    plan = json.dumps({name: packed(value, name, tensors) for name, value in content.items()})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, {"state": plan, "sha256": digest(plan, tensors)})
        with safe_open(unfinished, "pt") as file:  # what cannot be opened must not take the place of what can
            file.metadata()
        put_in_place(unfinished, path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        left = ", ".join(str(old) for old in checkpoints(directory)) or "there is no earlier one"
        raise OSError(
            f"the checkpoint of step {state.step} cannot be written to {directory}: {error}; still whole: {left}"
        ) from error
    for old in checkpoints(directory):
        if old not in checkpoints(directory)[:KEEP] or int(old.stem[5:]) > state.step:  # of a course left behind
            old.unlink()
    for killed in directory.glob("step-*.tmp"):
        killed.unlink()
    return path


def packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Plain data as JSON has it, with each tensor put into `tensors` under its place's name; `unpacked` reads it."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # no two of them may share memory
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, packed(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [packed(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]
        return {type(value).__name__: items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"a checkpoint cannot hold {name}, a {type(value).__name__}: numbers, strings, tensors, and lists "
        "and dictionaries of them can be kept"
    )


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """
    >>> tensors = {}
    >>> unpacked(json.loads(json.dumps(packed({"a": (1, None), 2: [0.5]}, "", tensors))), tensors)
    {'a': (1, None), 2: [0.5]}
    """
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "tensor":
        return tensors[items]
    if kind == "dict":
        return {key: unpacked(item, tensors) for key, item in items}
    return (tuple if kind == "tuple" else list)(unpacked(item, tensors) for item in items)


def digest(plan: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the plan, and of each tensor's name, type, shape and bytes."""
    found = hashlib.sha256(plan.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU. ValueError for a file that is none, or is damaged."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest(said["state"], tensors) != said["sha256"]:
            raise ValueError("its bytes are not those that were written")
        return {name: unpacked(value, tensors) for name, value in json.loads(said["state"]).items()}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of a training run, or is damaged: {error}") from error


def newest(directory: str | Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint that is whole, and its content; a warning names those that are not."""
    found = checkpoints(directory)
    if not found:
        raise FileNotFoundError(f"no checkpoint to resume from: {directory} has no step-*.safetensors")
    damage = []
    for path in found:
        try:
            content = read(path)
        except ValueError as error:
            damage.append(str(error))
            continue
        if damage:
            warnings.warn(f"{'; '.join(damage)}; going on from {path}", stacklevel=3)
        return path, content
    raise ValueError("; ".join(damage))


def load_checkpoint(directory: str | Path, policy: Policy) -> TrainingState:
    """The state saved last in `directory`; the trainable parameters of `policy` are set to the saved ones.

    Where the newest file is damaged, a warning says so and the one before it is taken.
    FileNotFoundError without a checkpoint; ValueError where all are damaged, or for one that fits another policy.
    """
    path, content = newest(directory)
    saved, settings, batch = (content.pop(name) for name in ("parameters", "settings", "batch"))
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
    state.optimiser.load_state_dict(content.pop("optimiser"))  # to where its parameters are
    if batch is not None:
        batch = on_device(batch, policy.device)
        state.batch = Batch(**{**batch, "rollout": Rollout(**batch["rollout"])})
    state.memory = on_device(content.pop("memory"), policy.device)
    for name, value in content.items():
        setattr(state, name, value)
    return state


def on_device(value: Any, device: torch.device) -> Any:
    """Plain data with its tensors there."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    return type(value)(on_device(item, device) for item in value) if isinstance(value, list | tuple) else value
