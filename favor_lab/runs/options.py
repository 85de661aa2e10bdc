"""What a run needs to be told about its images and its policy, and how both are opened: plain dataclasses whose fields
the command line turns into options; a notebook fills them by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from favor_lab.activities.world.catalogue import DRAWN_SETS
from favor_lab.arguments import ArgumentError, check_count, check_number
from favor_lab.files import digest
from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings

if TYPE_CHECKING:
    from favor_lab.activities.data import ActivityData
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.vlm.policy import Policy


TOKEN_PIXELS = 784  # of an image token, 28 x 28: a smaller image has none
MOST_RANK = 2**16  # of an adapter; more than any layer has


@dataclass(frozen=True)
class FolderOptions:
    """Where images are."""

    root: Path | None = None
    """Folder of a public set, or of your images: ROOT/LABEL/IMAGE, or ROOT/train/LABEL/IMAGE and ROOT/test/..."""
    person_crop: float | None = None
    """stanford40: crop to the person, widened on each side by this share of the box; None: whole images."""
    exclude: Path | None = None
    """Text file with images to leave out, one path relative to ROOT per line, as `favor-lab data` names them."""

    def __post_init__(self) -> None:
        """ArgumentError for a value that can only go wrong."""
        if self.person_crop is not None:
            check_number("person_crop", self.person_crop)


@dataclass(frozen=True)
class SetName:
    """The set's name; a class of its own, so that it comes first in the help."""

    data: str = "cartoon"
    """Images: cartoon, sketch, thermal, cctv (drawn); with --root: folder (yours), stanford40, har15, ucf101, ppmi."""


@dataclass(frozen=True)
class SetOptions(FolderOptions, SetName):
    """Which images."""


@dataclass(frozen=True)
class DataOptions(SetOptions):
    """Which images, and how many of them."""

    shots: int = 4  # Training images per label.
    test: int = 8  # Test images per label, never trained on; 0: no evaluation before and after.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("shots", self.shots, least=1)
        check_count("test", self.test)


@dataclass(frozen=True)
class PolicyOptions:
    """Which model learns, and what of it."""

    policy: str = "pocket"
    """"pocket" (shipped, runs on a CPU), a checkpoint directory, or a Hub name such as Qwen/Qwen2-VL-2B-Instruct."""
    revision: str | None = None
    """Commit, branch or tag of a Hub name; None: the commit that is pinned for the published ones, else the newest."""
    adapter: Path | None = None  # Folder of an earlier run, or its adapter, to start from; it brings its own rank.
    lora_rank: int = 16  # Rank of the LoRA adapter on the language model; 0: train the whole language model.
    lora_alpha: int | None = None  # Scale of the adapter; None: twice its rank.
    quantize: str | None = None  # 4bit: hold the frozen weights in 4 bits (CUDA and bitsandbytes).
    device: str = "auto"  # auto, cpu, cuda, cuda:1 ...
    dtype: str = "auto"  # auto (bfloat16 on a GPU that has it, else float32), float32, bfloat16 or float16.
    max_pixels: int | None = None
    """Most pixels of an image; 784 pixels are one image token. None: the checkpoint's limit, at most 401408."""

    def __post_init__(self) -> None:
        """ArgumentError for a value that can only go wrong."""
        if not self.policy:
            raise ArgumentError("policy", "policy is empty: name one, or leave it out for pocket")
        check_count("lora_rank", self.lora_rank, most=MOST_RANK)
        if self.lora_alpha is not None:
            check_count("lora_alpha", self.lora_alpha, least=1)
        if self.max_pixels is not None:
            check_count("max_pixels", self.max_pixels, least=TOKEN_PIXELS)

    @property
    def start(self) -> Path | None:
        """The folder that trained weights come from: an adapter's, else that of a checkpoint; None for a name."""
        if self.adapter is not None:
            return Path(self.adapter)
        return Path(self.policy) if self.policy != "pocket" and Path(self.policy).is_dir() else None

    @property
    def starts(self) -> list[Path]:
        """All folders that weights come from: the adapter's, and that of the checkpoint that it stands on."""
        start, base = self.start, replace(self, adapter=None).start
        return list(dict.fromkeys(place for place in (start, base) if place is not None))


def absolute(path: Path | None) -> Path | None:
    """The absolute path, so that a run can be resumed from any folder; None where there is none."""
    return None if path is None else path.resolve()


def with_absolute_paths(data: DataOptions, policy: PolicyOptions) -> tuple[DataOptions, PolicyOptions]:
    """The options with paths that are valid from any folder."""
    data = replace(data, root=absolute(data.root), exclude=absolute(data.exclude))
    is_folder = policy.policy != "pocket" and Path(policy.policy).is_dir()
    name = str(Path(policy.policy).resolve()) if is_folder else policy.policy
    return data, replace(policy, policy=name, adapter=absolute(policy.adapter))


def read_exclude(path: Path | None) -> list[str]:
    """The lines of a file of images to leave out, without blank ones and comments (#)."""
    try:
        lines = [] if path is None else Path(path).read_text(encoding="utf-8-sig").split("\n")  # not U+2028
    except (OSError, ValueError) as error:
        raise ArgumentError("exclude", f"{path} cannot be read as a text file: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def check_drawn(data: str, options: FolderOptions) -> None:
    """ArgumentError for an option about files where the set is drawn."""
    for name in ("root", "exclude", "person_crop"):
        if data in DRAWN_SETS and getattr(options, name) is not None:
            message = f"{data!r} is drawn and takes no {name}; images on disk are the set 'folder'"
            raise ArgumentError(name, message)


def open_set(options: SetOptions) -> ActivityData:
    """The set of images that the options name; its images are not read yet."""
    from favor_lab.activities import load_activities

    check_drawn(options.data, options)
    exclude = read_exclude(options.exclude)
    return load_activities(options.data, options.root, person_crop=options.person_crop, exclude=exclude)


def load_shots(data: DataOptions, seed: int) -> FewShot:
    """The images of a run, read and checked."""
    from favor_lab.activities import few_shot

    return few_shot(open_set(data), data.shots, seed, validation=0, test=data.test)


def check_images(options: DataOptions) -> None:
    """ValueError for images that a run cannot draw: an unknown set, a folder with faults, labels with too few images.
    Images are listed, not read."""
    from favor_lab.activities.fewshot import check_counts

    check_counts(open_set(options), {"test": options.test, "validation": 0, "train": options.shots})


def check_outside(out: Path | None, root: Path | None, name: str = "out") -> None:
    """ArgumentError for results among the images, which would be read with them from then on."""
    if out is not None and root is not None and Path(out).resolve().is_relative_to(Path(root).resolve()):
        raise ArgumentError(name, f"{out} would be among the images in {root}: name a place elsewhere")


def check_policy(options: PolicyOptions, trains: bool = True) -> None:
    """ArgumentError for options of a policy that cannot work and, if it trains, for those that have no effect beside
    the others. No weights are loaded or downloaded."""
    from favor_lab.vlm.hub import check_family, check_files, fetch, locate
    from favor_lab.vlm.known import KNOWN
    from favor_lab.vlm.loading import DTYPES, QUANTIZE

    folder = locate(options.policy)
    if folder is not None:
        check_family(folder, options.policy)
        check_files(folder, options.policy)
    elif options.policy not in KNOWN:
        check_family(fetch(options.policy, options.revision, config_only=True), options.policy)
    if folder is not None and options.revision is not None:
        message = f"{options.policy} is a directory here, which has no revision {options.revision!r}: leave it out"
        raise ArgumentError("revision", message)
    if options.dtype not in ("auto", *DTYPES):
        raise ArgumentError("dtype", f"unknown dtype {options.dtype!r}; valid: auto, {', '.join(DTYPES)}")
    device = check_device(options.device)
    if options.quantize is not None:
        if options.quantize not in QUANTIZE:
            known = ", ".join(map(repr, QUANTIZE))
            raise ArgumentError("quantize", f"unknown quantize {options.quantize!r}; valid: None, {known}")
        if device != "cuda":
            message = f"quantize={options.quantize!r} needs a CUDA device, and this policy is for {device}"
            raise ArgumentError("quantize", message)
        if options.lora_rank == 0 and options.adapter is None:
            raise ArgumentError("quantize", "4-bit weights cannot be trained themselves: use lora_rank > 0")
    if options.adapter is not None:
        if not (adapter_folder(options.adapter) / "adapter_config.json").is_file():
            message = f"there is no adapter in {options.adapter}: it has no adapter_config.json"
            raise ArgumentError("adapter", message)
        for name in ("lora_rank", "lora_alpha"):
            if trains and getattr(options, name) != getattr(PolicyOptions, name):
                raise ArgumentError(name, f"{options.adapter} brings its own rank and scale: leave out {name}")
    if trains and options.lora_rank == 0 and options.lora_alpha is not None:
        raise ArgumentError("lora_alpha", "lora_alpha is the scale of an adapter, and lora_rank is 0: leave one out")


def check_asked(options: PolicyOptions) -> None:
    """ArgumentError for options of training, where a policy is only asked."""
    for name in ("lora_rank", "lora_alpha"):
        if getattr(options, name) != getattr(PolicyOptions, name):
            raise ArgumentError(name, f"{name} is of an adapter that is trained, and nothing is trained here")


def check_device(name: str) -> str:
    """The type of the device that `auto`, cpu, cuda or cuda:1 names; ArgumentError for one that is not here."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ArgumentError("device", f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:1 ...") from None
    if device.type == "meta":
        raise ArgumentError("device", "the device meta holds no numbers; valid: auto, cpu, cuda, cuda:1 ...")
    if device.type == "cuda" and (device.index or 0) >= count:
        here = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
        raise ArgumentError("device", f"device is {name!r}, but there is {here} here")
    return device.type


def check_run(
    data: DataOptions, policy: PolicyOptions, settings: TrainSettings, recipe: str = "", out: Path | None = None
) -> None:
    """ValueError for a run that cannot be; no weights are loaded, nothing is written. out: its folder, if named."""
    from favor_lab.recipes import find_recipe

    check_policy(policy)
    check_outside(out or Path("runs"), data.root)
    if isinstance(settings, GRPOSettings):
        find_recipe(recipe).check(settings)
    check_images(data)


def room_for_test(data: DataOptions) -> int:
    """Test images per label that the set has: in its test split or, without one, beside the shots."""
    images = open_set(data)
    records = images.splits.get("test") or images.splits["train"]
    counts = Counter(record.label for record in records)
    fewest = min(counts[label] for label in images.labels)
    return fewest - (0 if images.splits.get("test") else data.shots)


def adapter_folder(place: Path) -> Path:
    """The folder of the adapter of a run folder; any other folder as it is."""
    inside = Path(place) / "adapter"
    return inside if (inside / "adapter_config.json").is_file() else place


def open_policy(options: PolicyOptions, seed: int = 0) -> Policy:
    """The policy; the seed determines the initial weights of its adapter."""
    from transformers.utils import logging

    from favor_lab.vlm.loading import load_policy

    logging.disable_progress_bar()
    arguments = asdict(options)
    if options.adapter is not None:
        arguments["adapter"] = adapter_folder(options.adapter)
    return load_policy(arguments.pop("policy"), **arguments, seed=seed)


def start_digests(options: PolicyOptions, policy: Policy) -> dict[str, str]:
    """What a run starts from, by content: `Policy.base_digests`, and the files of an adapter."""
    folder = None if options.adapter is None else adapter_folder(options.adapter)
    names = ("adapter_config.json", "adapter_model.safetensors") if folder is not None else ()
    return policy.base_digests | {f"adapter/{name}": digest(Path(folder or "") / name) for name in names}
