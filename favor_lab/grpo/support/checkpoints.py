"""What outlives a step, and its form on disk: one file per checkpoint, written atomically, so that whatever interrupts
a save leaves the previous ones valid.

The order of the images and the random numbers of a step are functions of (seed, step), so there is no sampler position
and no generator state to save: from the same state the loop goes on identically. The file is safetensors: tensors and
JSON, nothing that could run when it is read. A SHA-256 digest detects damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from favor_lab.files import patiently, put_in_place, sweep
from favor_lab.grpo.support.adamw import adamw, check_precision, exact_weights
from favor_lab.grpo.support.rollout import Rollout
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, TrainSettings
from favor_lab.vlm.adapters import adapter_scales
from favor_lab.vlm.processing import PromptBatch
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.vlm.policy import Policy

KEPT_CHECKPOINTS = 2  # the newest, and one to fall back on
NAME = re.compile(r"step-([0-9]{6,})\.safetensors")

#: types of numbers that safetensors has
DTYPES = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bfloat16, torch.float16,
    torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
}  # fmt: skip


@dataclass
class Batch:
    """One rollout after the first three steps, ready for the loss (again and again, if `updates_per_rollout` says so).
    A checkpoint of an earlier version has neither prompts nor question: the settings' own was the only one."""

    rollout: Rollout  # the rows, with their rewards and old log-probabilities
    advantages: Tensor  # (N,) or (N, L)
    ref_logps: Tensor | None  # (N, L)
    facts: dict[str, Any]  # the record's fields about this rollout
    prompts: PromptBatch | None  # what the rows answered
    question: Question | None = None  # in its style the rows are rewarded

    def to_state(self) -> dict[str, Any]:
        """The batch as a checkpoint holds it: tensors, numbers, strings, and lists and dictionaries of them."""
        prompts = None if self.prompts is None else self.prompts.to_state()
        question = None if self.question is None else {"labels": self.question.labels, "style": self.question.style}
        return asdict(replace(self, prompts=None, question=None)) | {"prompts": prompts, "question": question}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> Batch:
        """The batch that `to_state` described, on `device`; also one that was saved before rewards belonged to rows."""
        values = on_device({name: value for name, value in state.items() if name != "prompts"}, device)
        rows = {name: values.pop(name) for name in ("rewards", "old_logps") if name in values}
        prompts, question = state.get("prompts"), values.pop("question", None)
        rollout = Rollout(**values.pop("rollout"), **rows)
        batch = PromptBatch.from_state(prompts, device) if prompts else None
        return cls(rollout, prompts=batch, question=Question(**question) if question else None, **values)


@dataclass
class TrainingState:
    """Everything that outlives a step. Make one and give it to `train(..., resume=state)` to be able to save it:

        state = TrainingState.start(policy, settings)
        for record in train(policy, shots, settings, resume=state):
            save_checkpoint("run", state)

    It is consistent whenever `train` does not run, also after Ctrl-C: a step counts entirely or not at all.
    """

    policy: Policy
    settings: TrainSettings
    optimiser: torch.optim.Optimizer
    step: int = 0
    images: dict[str, str] = field(default_factory=dict)  # source -> fingerprint of the images trained on
    question: str = ""  # what is asked, where the settings do not say it
    recipe: str = ""  # name of a published variant whose steps are used
    right_so_far: dict[str, int] = field(default_factory=dict)  # label -> right answers sampled
    memory: dict[str, Any] = field(default_factory=dict)  # of steps of your own: see `serialise` for what it may hold
    batch: Batch | None = None  # a rollout that has updates left
    folders: set[Path] = field(default_factory=set, repr=False)  # with checkpoints of this state, not of another run

    def out_of_range(self) -> list[str]:
        """Names of the trainable parameters that hold a NaN or an infinity, or whose norm overflows."""
        weights = {name: weight.detach() for name, weight in self.policy.trainable_parameters()}
        if torch.nn.utils.get_total_norm(weights.values()).isfinite():  # one number to wait for in the usual case
            return []
        return [name for name, weight in weights.items() if not weight.norm().isfinite()] or list(weights)

    @classmethod
    def start(cls, policy: Policy, settings: TrainSettings) -> TrainingState:
        """The state before the first step. ValueError for a policy without trainable parameters."""
        weights, rate = [weight for _, weight in policy.trainable_parameters()], settings.learning_rate
        if not weights:
            raise ValueError(f"the policy {policy.name} has no trainable parameters: load it with a lora_rank above 0")
        return cls(policy, settings, adamw(weights, rate, settings.weight_decay))

    def exact_weights(self) -> dict[str, Tensor]:
        """What the optimiser moves, by name: the trainable parameters, or float32 copies of those that are narrower."""
        return exact_weights(self.optimiser, dict(self.policy.trainable_parameters()))

    def __post_init__(self) -> None:
        check_precision(self.optimiser)

    def check_images(self, examples: Sequence[Example]) -> dict[str, str]:
        """The new names of the images trained on, by their old ones; ValueError for other images."""
        images = fingerprints(examples)
        return new_names(self.images if self.step else images, images, "the run to resume has seen other images")

    def rename_sources(self, names: Mapping[str, str]) -> None:
        """Give the images of a rollout that has updates left their new names."""
        if self.batch is not None and self.batch.prompts is not None:
            self.batch.prompts.sources = [names.get(source, source) for source in self.batch.prompts.sources]

    def go_on(
        self, policy: Policy, examples: Sequence[Example], settings: TrainSettings, question: str = "", recipe: str = ""
    ) -> TrainingState:
        """This state, to train on with these settings. ValueError, with the differences, where it belongs to another
        policy object, or has seen other images, other settings or another question."""
        if self.policy is not policy:
            raise ValueError("the state to resume belongs to another policy object: pass the one it was made with")
        images, steps = fingerprints(examples), {"question": question, "recipe": recipe}
        self.rename_sources(self.check_images(examples))
        names = [item.name for item in fields(settings) if item.name not in RESUMABLE_CHANGES]
        then, now = ({name: getattr(of, name, "nothing") for name in names} for of in (self.settings, settings))
        old_steps = {"question": self.question, "recipe": self.recipe}
        if not self.step:  # a new state does not know yet its images, nor what the steps and the question bring along
            then |= {name: now[name] for name in ("coefficients", "style", "open_vocabulary") if name in now}
            old_steps = steps
        for what, old, new, advice in (
            ("other settings", then, now, "pass its own, state.settings"),
            ("other steps", old_steps, steps, "pass the same ones"),
        ):
            if changes := differences(old, new):
                raise ValueError(f"the run to resume has {what} ({'; '.join(changes)}): {advice}")
        self.settings, self.images, self.question, self.recipe = settings, images, question, recipe
        return self


def new_names(then: Mapping[str, Any], now: Mapping[str, Any], otherwise: str) -> dict[str, str]:
    """The new name of each image by its old one: the same images, in their order, may have moved. ValueError, which
    begins as `otherwise`, for other images.

    >>> new_names({"old/a.png": "reading, 0bad"}, {"new/a.png": "reading, 0bad"}, "other images")
    {'old/a.png': 'new/a.png'}
    """
    if list(then.values()) == list(now.values()):
        return dict(zip(then, now, strict=True))
    changes = "; ".join(differences(then, now)) or "in another order"
    raise ValueError(f"{otherwise} ({changes}): draw the same shots with the same seed, from the same files")


def fingerprints(examples: Sequence[Example]) -> dict[str, str]:
    """Source -> label, size and checksum of the pixels, so that an image that has changed is noticed."""
    seen = [(e.source, e.label, "{} x {}".format(*e.size), zlib.crc32(e.image.tobytes())) for e in examples]
    return {source: f"{label}, {size}, {checksum:08x}" for source, label, size, checksum in seen}


def differences(then: Mapping[str, Any], now: Mapping[str, Any], most: int = 5) -> list[str]:
    """What differs, by name; if there is much, the first few.

    >>> differences({"steps": 5, "clip": 0.2}, {"steps": 6, "clip": 0.2, "seed": 1})
    ['seed nothing then, 1 now', 'steps 5 then, 6 now']
    """
    names = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    lines = [f"{name} {then.get(name, 'nothing')} then, {now.get(name, 'nothing')} now" for name in names[:most]]
    return lines + ([f"and {len(names) - most} more"] if len(names) > most else [])


def checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a folder, the newest first. Other files, such as "step-000002 copy.safetensors", are none."""
    paths = [path for path in Path(directory).glob("step-*") if NAME.fullmatch(path.name) and path.is_file()]
    return sorted(paths, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its name.

    >>> step_of(Path("run/checkpoint/step-000012.safetensors"))
    12
    """
    return int(path.stem[5:])


def identity(policy: Policy) -> dict[str, dict[str, Any]]:
    """What a state belongs to, beside its weights: the base by its files, the scale of each layer of the adapter, and
    the pixel budget of images."""
    scales = adapter_scales(policy.model)
    return {"base": policy.base_digests, "scales": scales, "pixels": dict(policy.processor.image_processor.size)}


def check_identity(then: Mapping[str, Mapping[str, Any]], policy: Policy, whose: str) -> None:
    """ValueError, with what differs, where a state belongs to another base, another scale of the adapter or another
    pixel budget than the policy has. What either of them does not know is not compared."""
    now = identity(policy)
    if changed := changed_files(then.get("base", {}), now["base"]):
        raise ValueError(f"{whose} belongs to another base than {policy.name} is now: {', '.join(changed)} changed")
    for part, what, option in (
        ("scales", "another scale of the adapter", "lora_alpha"),
        ("pixels", "another pixel budget", "max_pixels"),
    ):
        if then.get(part) and (changes := differences(then[part], now[part], most=1)):
            raise ValueError(f"{whose} has {what} ({'; '.join(changes)}): load the policy with the run's {option}")


def changed_files(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that differ between two bases; none where one is not known, or known by its commit alone.

    >>> changed_files({"model.safetensors": "0bad", "config.json": "cafe"}, {"model.safetensors": "1bad"})
    ['config.json', 'model.safetensors']
    """
    if not then or not now or ("commit" in then) != ("commit" in now):
        return []
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def save_checkpoint(directory: str | Path, state: TrainingState) -> Path:
    """Write the state atomically to `directory`/step-NNNNNN.safetensors and return that path; the last two are kept.

    OSError, with the checkpoints that are still valid, where it cannot be written; FileExistsError where the folder
    has checkpoints of another run; TypeError for something in `memory` that would not come back as it is, see
    `serialise`; FloatingPointError for weights that are out of range: they must not replace a good checkpoint.
    """
    if bad := state.out_of_range():
        weights = f"the weights after step {state.step} are out of range in {len(bad)} parameters, the first {bad[0]}"
        raise FloatingPointError(f"{weights}: they were not saved to {directory}")
    directory, tensors = Path(directory), dict[str, Tensor]()
    if directory.resolve() not in state.folders and (others := checkpoints(directory)):
        newest_there = f"{directory} has checkpoints of another run, the newest {others[0].name}"
        raise FileExistsError(f"{newest_there}: name another folder, or go on with that run (load_checkpoint)")
    path = directory / f"step-{state.step:06}.safetensors"
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    content = {
        "parameters": {name: weight.detach() for name, weight in state.exact_weights().items()},
        "optimiser": state.optimiser.state_dict(),
        "settings": asdict(state.settings),
        "policy": identity(state.policy),
        "batch": None if state.batch is None else state.batch.to_state(),
        **{name: getattr(state, name) for name in ("step", "images", "question", "recipe", "right_so_far", "memory")},
    }
    structure = json.dumps({name: serialise(value, name, tensors) for name, value in content.items()})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, {"state": structure, "sha256": digest(structure, tensors)})
        with safe_open(unfinished, "pt") as file:  # a file that cannot be opened must not replace one that can
            file.metadata()
        put_in_place(unfinished, path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        failed = f"the checkpoint of step {state.step} cannot be written to {directory}: {error}"
        valid = ", ".join(map(str, checkpoints(directory))) or "there is no earlier one"
        raise OSError(f"{failed}; still valid: {valid}") from error
    state.folders.add(directory.resolve())
    for old in checkpoints(directory):
        # a later step belongs to a run that was resumed from an earlier one and trained otherwise
        if old not in checkpoints(directory)[:KEPT_CHECKPOINTS] or step_of(old) > state.step:
            patiently(old.unlink)
    sweep(directory)
    return path


def serialise(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Tensors, numbers, strings, None, and lists, tuples and dictionaries of them, as JSON types; each tensor goes into
    `tensors`, under the name of its place. See `deserialise`. TypeError for what would come back as something else."""
    if isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in DTYPES:
        place = name.encode("ascii", "backslashreplace").decode()
        unique = place if place not in tensors else f"{place} ({len(tensors)})"  # the names of two places may meet
        tensors[unique] = value.detach().cpu().contiguous().clone()  # no two of them may share memory
        return {"tensor": unique}
    if type(value) is dict and all(key is None or isinstance(key, bool | int | float | str) for key in value):
        return {"dict": [[key, serialise(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [serialise(v, f"{name}.{place}", tensors) for place, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = f"a {type(value).__name__}" + " with keys that are neither strings nor numbers" * (type(value) is dict)
    kind += f" of {value.dtype}, {value.layout}" if isinstance(value, Tensor) else ""
    allowed = "numbers, strings, dense tensors, and plain lists, tuples and dictionaries of them can be kept"
    raise TypeError(f"a checkpoint cannot hold {name}, {kind}: {allowed}")


def deserialise(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """
    >>> tensors = {}
    >>> deserialise(json.loads(json.dumps(serialise({"a": (1, None), 2: [0.5]}, "", tensors))), tensors)
    {'a': (1, None), 2: [0.5]}
    """
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "tensor":
        return tensors[items]
    if kind == "dict":
        return {key: deserialise(item, tensors) for key, item in items}
    return (tuple if kind == "tuple" else list)(deserialise(item, tensors) for item in items)


def digest(structure: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the JSON structure, and of each tensor's name, type, shape and bytes."""
    sha256 = hashlib.sha256(structure.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU. ValueError for another kind of file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest(header["state"], tensors) != header["sha256"]:
            raise ValueError("its bytes are not those that were written")
        content = {name: deserialise(value, tensors) for name, value in json.loads(header["state"]).items()}
        if content["step"] != step_of(path):
            raise ValueError(f"it was renamed: it holds step {content['step']}")
        return content
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of a training run, or is damaged: {error}") from error


def newest(directory: str | Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint that is not damaged, and its content; a warning names the damaged ones."""
    damage: list[str] = []
    for path in checkpoints(directory):
        try:
            content = read(path)
        except ValueError as error:
            damage.append(str(error))
            continue
        if damage:
            warnings.warn(f"{'; '.join(damage)}; going on from {path}", stacklevel=3)
        return path, content
    if damage:
        raise ValueError("; ".join(damage))
    raise FileNotFoundError(f"no checkpoint to resume from: {directory} has no step-*.safetensors")


def load_checkpoint(directory: str | Path, policy: Policy) -> TrainingState:
    """The state saved last in `directory`; the trainable parameters of `policy` are set to the saved ones. Where the
    newest file is damaged, a warning says so and the one before it is taken. FileNotFoundError without a checkpoint;
    ValueError where all are damaged, or for one that fits another policy."""
    path, content = newest(directory)
    saved, settings, batch = (content.pop(name) for name in ("parameters", "settings", "batch"))
    check_identity(content.pop("policy", {}), policy, str(path))  # older ones do not say
    own = dict(policy.trainable_parameters())
    shapes = [{name: weight.shape for name, weight in weights.items()} for weights in (saved, own)]
    if differing := sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}):
        raise ValueError(
            f"{path} fits another policy than {policy.name}: {differing[0]} is missing or has another shape "
            f"({len(differing)} parameters in all); load the policy with the run's name and lora_rank"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])
    state = TrainingState.start(policy, TrainSettings.from_dict(settings))
    with torch.no_grad():
        for name, weight in state.exact_weights().items():  # float32 copies have more digits than their parameters
            weight.copy_(saved[name])
    state.optimiser.load_state_dict(content.pop("optimiser"))  # to where its parameters are
    state.batch = None if batch is None else Batch.from_state(batch, policy.device)
    state.memory = on_device(content.pop("memory"), policy.device)
    state.folders.add(Path(directory).resolve())
    for name, value in content.items():
        setattr(state, name, value)
    return state


def on_device(value: Any, device: torch.device) -> Any:
    """Plain data with its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    return type(value)(on_device(item, device) for item in value) if isinstance(value, list | tuple) else value
