"""The options of the commands, beside those of a run's images and policy (`favor_lab.runs.options`) and its settings.
Each field is an option; the comment beside it, or the text under it, is its help: tyro reads both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from favor_lab.arguments import ArgumentError, check_choice, check_count, check_list, check_number
from favor_lab.runs.options import SetOptions
from favor_lab.runs.trackers import TrackerName


@dataclass(frozen=True)
class FitOptions:
    """Which card the settings are for. A policy of more than 100 million parameters takes every setting that is not
    given from the preset for it; `favor-lab doctor --gpu-gb 12` prints that."""

    gpu_gb: float | None = None
    """Memory of the card in GB, as it is sold: one of 12 GB has 12 GiB. None: the card in this machine."""
    check: bool = True
    """Estimate before the weights are loaded whether training fits on the card, and refuse what does not."""

    def __post_init__(self) -> None:
        check_card(self.gpu_gb)


@dataclass(frozen=True)
class RunOptions:
    """Where the run is kept."""

    config: Path | None = None
    """Take options from this TOML file, such as the run.toml of an earlier run; those of the command line win. A path
    in it is relative to the folder that the command runs in."""
    out: Path | None = None  # New folder for the run. None: runs/COMMAND-DATA, with a number if that is taken.
    resume: Path | None = None
    """Resume the run in this folder, with its own options; only --steps, what bounds memory
    (--micro-batch, --gradient-checkpointing, --offload-tower) and the place of the images (--root) may be changed."""
    checkpoint_every: int = 10  # Steps between two checkpoints; one more after Ctrl-C or SIGTERM and at the end.
    tracker: TrackerName | None = None
    """Also give the numbers of each step to this tracker, which is installed by its name: pip install NAME. tensorboard
    writes into the run's folder. wandb and trackio may send to their servers: wandb does unless WANDB_MODE=offline,
    trackio to the one that TRACKIO_SPACE_ID names."""
    quiet: bool = False  # Print nothing but errors and the last line, which names the report.

    def __post_init__(self) -> None:
        check_count("checkpoint_every", self.checkpoint_every, least=1)


@dataclass(frozen=True)
class RecipeOptions:
    """Which method."""

    recipe: str = ""
    """Published variant of GRPO (left out: plain GRPO):
    aepo, affordance-r1, amft, arpo, care, care-slow, cispo, clip-higher, credit, critic, curr-reft, dapo,
    dapo-dynamic, dip-r1, dr-grpo, dupl, gspo, gtr, jigsaw, listener, noisy-rollout, papo, pebr, perception-r1,
    refine-rft, rewardmap, rloo, shop-r1, star-r1, tempsamp, ttrv, verl, vicrit, vision-r1, vision-sr1, visual-rft,
    visurf, vlm-r1, vppo.
    A + combines those that change different things: papo+noisy-rollout. `favor-lab recipes` explains them."""
    set: Annotated[tuple[str, ...], UseAppendAction] = ()
    """NAME=VALUE: a coefficient of the recipe, as often as needed. `favor-lab recipes NAME` lists its coefficients."""

    def __post_init__(self) -> None:
        names = [pair.partition("=")[0] for pair in self.set]
        for name, pair in zip(names, self.set, strict=True):
            if not name or name == pair:
                raise ArgumentError("set", f"set is {pair!r}, but must be NAME=VALUE, such as gamma=0.02")
            if names.count(name) > 1:
                raise ArgumentError("set", f"{name!r} is set twice: leave out one of the two")


@dataclass(frozen=True)
class RecipeListOptions:
    """Which recipe."""

    name: Positional[str] = ""  # One recipe, or several with a + between them; left out: all, as a table.


@dataclass(frozen=True)
class DemoOptions:
    """What the demonstration shows."""

    data: Literal["cartoon", "sketch", "thermal", "cctv"] = "cartoon"  # Drawn set to learn.
    shots: int = 4  # Training images per activity.
    steps: int | None = None  # Optimiser steps; None: as in `train`.
    seed: int = 0  # Seed of the choice of shots, of their order and of the sampling.
    out: Path | None = None  # New folder for the run. None: runs/demo-DATA, with a number if that is taken.
    tracker: TrackerName | None = None  # Also give the numbers of each step to this tracker: see `train --help`.
    quiet: bool = False  # Print nothing but errors and the last line, which names the report.


@dataclass(frozen=True)
class DrawOptions(SetOptions):
    """What to check, to list or to draw."""

    data: Positional[str] = "cartoon"
    decode: bool = False  # Also decode every image: finds damage in the middle of a file and compares pixels; slower.
    write_exclude: Path | None = None  # Write the images that faults are about to this new text file, for --exclude.
    per_label: int = 4  # Images per label.
    split: str = "train"  # Part of the set on the sheet: train, or validation and test where the set has them.
    sheet: Path | None = None  # Write one picture with all the images and their labels to this file (.png).
    out: Path | None = None  # New folder to write a drawn set to, as files: train and test, a folder per label.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("per_label", self.per_label, least=1)
        if self.sheet is not None:
            if self.sheet.suffix.lower() != ".png":
                raise ArgumentError("sheet", f"sheet is {self.sheet}, but must end in .png")
            check_file("sheet", self.sheet)
        if self.write_exclude is not None:
            check_file("write_exclude", self.write_exclude, new=True)


@dataclass(frozen=True)
class StudyOptions:
    """Which cells of the table: every method on every set, with every number of shots and every seed."""

    cells: str | None = None
    """A whole study of the drawn sets, in place of methods, sets, shots, seeds and variants: quick (minutes on two
    cores), full (all of it: a night)."""
    methods: tuple[str, ...] = ("zero-shot", "zero-shot-answer", "sft", "sft-reasoning", "grpo", "grpo-answer")
    """zero-shot, zero-shot-answer, class-mean (nearest mean of the tower's features), sft (answer alone), sft-reasoning
    (self-written reasoning that was right), grpo, grpo-answer, sft-then-grpo and grpo-then-sft (half of the steps each,
    SFT on self-written reasoning)."""
    sets: tuple[str, ...] = ("cartoon", "sketch", "thermal", "cctv")
    """Sets to learn from: drawn ones, each policy tested on all of these; or, with --root, public ones or folder. Of
    several public sets each is looked for under its name in ROOT."""
    shots: tuple[int, ...] = (4,)  # Training images per activity.
    seeds: int = 3  # Seeds of each cell that trains.
    variants: tuple[str, ...] = ()
    """Also with one thing changed in grpo: group-2, no-kl, no-std, dapo, hot, published, truth, consistency ... (all
    are in favor_lab/runs/variants.py)."""
    tasks: tuple[str, ...] = ()
    """Also, every method and recipe, on each of these tasks: base-to-new (learn half of the labels, test on either
    half), base-to-new-2, base-to-new-3 (other halves), new-activities (drawn ones that no pre-training named), renamed
    (names without a meaning), noisy-labels (one in four is wrong), imbalanced."""
    recipes: tuple[str, ...] = ()
    """Also grpo with each of these recipes, or with several that a + combines: papo, visurf+papo ... (`favor-lab
    recipes` lists them)."""
    preset: str | None = None
    """Settings of training: pocket; lora (Visual-RFT's 200 steps of 16 prompts, with an adapter); visual-rft (the same
    with all weights). None: pocket for the pocket policy, else lora."""
    steps: int | None = None  # Optimiser steps; None: as in the preset.
    open_vocabulary: bool = False  # Ask without a list of labels (Visual-RFT: without; CLS-RL: with).
    micro_batch: int | None = None
    """Completions per forward and backward, to bound memory; changes no result. None: as in the preset."""
    offload_tower: bool = False  # Move the vision tower to the CPU once every image is encoded; changes no result.
    test: int = 20  # Test images per activity and set, the same for every cell.
    out: Path = Path("runs/study")
    """Folder of the finished cells and their tables. Cells that are there are not run again: kill it and start it again
    as often as you like."""

    def __post_init__(self) -> None:
        for name in ("methods", "sets", "shots"):
            check_list(name, getattr(self, name))
        for count in self.shots:
            check_count("shots", count, least=1)
        for name in ("seeds", "test", "steps"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=1)
        if self.micro_batch is not None:
            check_count("micro_batch", self.micro_batch)


@dataclass(frozen=True)
class ProfileOptions:
    """What is measured."""

    repeats: int = 5  # Timed runs of the step, after two to warm up; the table shows medians.
    fixed_length: bool = False  # Give every completion --max-new-tokens tokens, so that the work is always the same.
    out: Path | None = None  # New folder for profile.json and profile.png; left out: print only.

    def __post_init__(self) -> None:
        check_count("repeats", self.repeats, least=1)


@dataclass(frozen=True)
class ShareOptions:
    """What is given away, and where."""

    run: Positional[str]  # Folder of a finished run of train, sft or demo.
    out: Path  # New folder for the weights, the model card and the numbers.
    merged: bool = False
    """Write a whole checkpoint with the adapter merged in, which needs no peft; the adapter goes to OUT/adapter."""
    dtype: str = "auto"  # Of a merged checkpoint: float32, bfloat16, float16; auto: as the run named it, else float32.
    license: str | None = None
    """The Hub's identifier of the licence that you choose, such as apache-2.0; None: the card says that none is."""
    base_model: str | None = None  # Hub name of the base model, where the run loaded it from a folder.
    push: str | None = None
    """USER/NAME: also make this repository on the Hub and upload OUT. Left out: nothing leaves this machine."""
    public: bool = False  # With --push: everybody sees the repository, not you alone.

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        if self.public and self.push is None:
            raise ArgumentError("public", "--public says who sees what is pushed: it needs --push USER/NAME")
        if self.dtype != "auto" and not self.merged:
            raise ArgumentError("dtype", "--dtype says how a merged checkpoint is stored: it needs --merged")


@dataclass(frozen=True)
class CardOptions:
    """What is asked about another card or model; neither: check this machine."""

    gpu_gb: float | None = None
    """Memory of a card in GB, as it is sold (12 GB are 12 GiB), to see what would fit on it; None: the card in this
    machine."""
    model: str | None = None
    """Published name, checkpoint directory, or a Hub name that was downloaded; None: Qwen/Qwen2-VL-2B-Instruct."""
    json: bool = False  # Print one line of JSON and nothing else, for programs that read it.

    def __post_init__(self) -> None:
        check_card(self.gpu_gb)


def check_card(gpu_gb: float | None) -> None:
    """ArgumentError for a card without memory."""
    if gpu_gb is not None:
        check_number("gpu_gb", gpu_gb, positive=True)


def check_file(name: str, path: Path, new: bool = False) -> None:
    """ArgumentError unless a file can be written there; new: unless there is none yet."""
    if path.is_dir() or (new and path.exists()):
        raise ArgumentError(name, f"{path} is there already: name a new file")
    if not path.absolute().parent.is_dir():
        raise ArgumentError(name, f"there is no folder {path.parent} to write {path.name} to")


def named_labels(labels: Sequence[str]) -> list[str]:
    """The labels of --labels. ValueError for one with commas, which is meant as several.

    >>> named_labels(["reading", "riding a bike"])
    ['reading', 'riding a bike']
    """
    if len(labels) == 1 and "," in labels[0]:
        advice = "part labels by spaces, in quotes if they have any: --labels reading 'riding a bike'"
        raise ValueError(f"--labels {labels[0]!r} is one label: {advice}")
    return list(labels)
