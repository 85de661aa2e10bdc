"""What a run needs to be told about its images and its policy, and how both are opened: plain dataclasses whose fields
the command line turns into options; a notebook fills them by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from favor_lab.activities.data import ActivityData
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.vlm.policy import Policy


@dataclass(frozen=True)
class FolderOptions:
    """Where images are."""

    root: Path | None = None
    """Folder of a public set, or of your images: ROOT/LABEL/IMAGE, or ROOT/train/LABEL/IMAGE and ROOT/test/..."""
    person_crop: float | None = None
    """stanford40: crop to the person, widened on each side by this share of the box; None: whole images."""
    exclude: Path | None = None
    """Text file with images to leave out, one path relative to ROOT per line, as `favor-lab data` names them."""


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
    lines = [] if path is None else Path(path).read_text(encoding="utf-8-sig").split("\n")  # not U+2028
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def open_set(options: SetOptions) -> ActivityData:
    """The set of images that the options name; its images are not read yet."""
    from favor_lab.activities import load_activities

    exclude = read_exclude(options.exclude)
    return load_activities(options.data, options.root, person_crop=options.person_crop, exclude=exclude)


def load_shots(data: DataOptions, seed: int) -> FewShot:
    """The images of a run, read and checked."""
    from favor_lab.activities import few_shot

    return few_shot(open_set(data), data.shots, seed, validation=0, test=data.test)


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


def base_digests(options: PolicyOptions, policy: Policy) -> dict[str, str]:
    """What the base's files are, by name: the commit of a name on the Hub, or the digests of a folder's files."""
    from favor_lab.vlm import hub

    folder = hub.locate(options.policy)
    return {"commit": str(policy.revision)} if folder is None else hub.digests(folder)
