"""The command line: `favor-lab COMMAND`, the same as `python -m favor_lab COMMAND`.

The options are the fields of dataclasses (for training: of `GRPOSettings` itself), turned into flags and help by tyro.
Nothing heavy is imported before it is needed, so that help comes at once.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import signal
import sys
import threading
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings, TrainSettings, changed_settings

if TYPE_CHECKING:
    from favor_lab import experiments
    from favor_lab.activities import ActivityData, Example, FewShot
    from favor_lab.grpo.support.checkpoints import TrainingState
    from favor_lab.grpo.support.records import StepRecord
    from favor_lab.study.evaluation import Evaluation
    from favor_lab.study.report import RunFolder
    from favor_lab.vlm.policy import Policy

ABOUT = """Few-shot GRPO teaches a vision-language model to name activities in images.

Start with `favor-lab doctor`, then `favor-lab demo`. `favor-lab COMMAND --help` explains a command. Errors are one
line; add --debug to any command to see where they come from."""

# ------------------------------------------------------------------------------------------------------------ options


@dataclass(frozen=True)
class FolderOptions:
    """Where images are."""

    root: Path | None = None
    """Folder of a public set, or of your images: ROOT/LABEL/IMAGE, or ROOT/train/LABEL/IMAGE and ROOT/test/..."""
    person_crop: float | None = None
    """stanford40: crop to the person, widened on each side by this share of the box; None: whole images."""
    exclude: Path | None = None
    """Text file with images to leave out, one path relative to ROOT a line, as `favor-lab data` names them."""


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

    shots: int = 4
    """Training images per label."""
    test: int = 8
    """Test images per label, never trained on; 0: no evaluation before and after."""


@dataclass(frozen=True)
class AskOptions(SetOptions):
    """Which images, and how they are asked about."""

    test: int = 8
    """Test images per label: those that `train` and `sft` leave out, whatever their shots and seed."""
    style: str = "think"
    """Response that is asked for: think (reasoning, then the answer) or answer (the answer alone)."""
    open_vocabulary: bool = False
    """Ask without a list of labels."""
    max_new_tokens: int = 64
    """Most tokens of a response."""
    batch_size: int = 32
    """Images answered at a time; changes no result."""
    out: Path | None = None
    """New folder for the answers, a confusion matrix and a report; left out: print only."""


@dataclass(frozen=True)
class PolicyOptions:
    """Which model learns, and what of it."""

    policy: str = "pocket"
    """"pocket" (shipped, runs on a CPU), a checkpoint directory, or a Hub name such as Qwen/Qwen2-VL-2B-Instruct."""
    revision: str | None = None
    """Commit, branch or tag of a Hub name; None: the commit that is pinned for the published ones, else the newest."""
    adapter: Path | None = None
    """Adapter folder of an earlier run to start from; it brings its own rank."""
    lora_rank: int = 16
    """Rank of the LoRA adapter on the language model; 0: train the whole language model."""
    lora_alpha: int | None = None
    """Scale of the adapter; None: twice its rank."""
    quantize: str | None = None
    """4bit: hold the frozen weights in 4 bits (CUDA and bitsandbytes)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    dtype: str = "auto"
    """auto (bfloat16 on a GPU that has it, else float32), float32, bfloat16 or float16."""
    max_pixels: int | None = None
    """Most pixels of an image; 784 pixels are one image token. None: the checkpoint's limit, at most 401408."""


@dataclass(frozen=True)
class RunOptions:
    """Where the run is kept."""

    out: Path | None = None
    """New folder for the run. None: runs/COMMAND-DATA, with a number if that is taken."""
    resume: Path | None = None
    """Go on with the run in this folder, with its own options; only --steps and what bounds memory
    (--micro-batch, --gradient-checkpointing, --offload-tower) may be changed."""
    checkpoint_every: int = 10
    """Steps between two checkpoints; there is one after Ctrl-C or SIGTERM and at the end as well."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demonstration shows."""

    data: Literal["cartoon", "sketch", "thermal", "cctv"] = "cartoon"
    """Drawn set to learn."""
    shots: int = 4
    """Training images per activity."""
    steps: int | None = None
    """Optimiser steps; None: as in `train`."""
    seed: int = 0
    """Seed of the choice of shots, of their order and of the sampling."""
    out: Path | None = None
    """New folder for the run. None: runs/demo-DATA, with a number if that is taken."""


@dataclass(frozen=True)
class DrawOptions(SetOptions):
    """What to check, to list or to draw."""

    decode: bool = False
    """Decode every image of the folder as well: finds damage in the middle of a file and compares pixels; slower."""
    write_exclude: Path | None = None
    """Write the images that faults are about to this new text file, for --exclude."""
    per_label: int = 4
    """Images per label."""
    split: str = "train"
    """Part of the set that the sheet shows: train, or validation and test where the set has them."""
    sheet: Path | None = None
    """Write one picture with all the images and their labels to this file (.png)."""
    out: Path | None = None
    """Write the images of a drawn set as files to this new folder: train and test, a folder per label."""


@dataclass(frozen=True)
class StudyOptions:
    """Which cells of the table: every method on every set, with every number of shots and every seed."""

    preset: str | None = None
    """A whole study of the drawn sets, in place of methods, sets, shots, seeds and variants: quick (minutes on two
    cores), full (all of it: a night)."""
    methods: tuple[str, ...] = ("zero-shot", "zero-shot-answer", "sft", "sft-reasoning", "grpo", "grpo-answer")
    """zero-shot, zero-shot-answer, sft (answer alone), sft-reasoning (self-written reasoning that was right), grpo,
    grpo-answer."""
    sets: tuple[str, ...] = ("cartoon", "sketch", "thermal", "cctv")
    """Sets to learn from: drawn ones, each policy tested on all of these; or, with --root, public ones or folder. Of
    several public sets each is looked for under its name in ROOT."""
    shots: tuple[int, ...] = (4,)
    """Training images per activity."""
    seeds: int = 3
    """Seeds of each cell that trains."""
    variants: tuple[str, ...] = ()
    """Also with one thing changed: base-to-new (learn half of the labels, test on either half), or a change of grpo:
    group-2, no-kl, no-std, dapo, hot, published, truth, consistency ... (all are in favor_lab/recipes.py)."""
    recipe: str | None = None
    """Settings of training: pocket; lora (Visual-RFT's 200 steps of 16 prompts, with an adapter); visual-rft (the same
    with all weights). None: pocket for the pocket policy, else lora."""
    steps: int | None = None
    """Optimiser steps; None: as in the recipe."""
    open_vocabulary: bool = False
    """Ask without a list of labels (Visual-RFT: without; CLS-RL: with)."""
    micro_batch: int | None = None
    """Completions per forward and backward, to bound memory; changes no result. None: as in the recipe."""
    offload_tower: bool = False
    """Move the vision tower to the CPU once every image is encoded; changes no result."""
    test: int = 20
    """Test images per activity and set, the same for every cell."""
    out: Path = Path("runs/study")
    """Folder of the finished cells and their tables. Cells that are there are not run again: kill it and start it again
    as you like."""


@dataclass(frozen=True)
class ProfileOptions:
    """What is measured."""

    repeats: int = 5
    """Timed runs of the step, after two to warm up; the table shows medians."""
    fixed_length: bool = False
    """Let every completion have --max-new-tokens tokens, so that the work does not depend on what is sampled."""
    out: Path | None = None
    """New folder for profile.json and profile.png; left out: print only."""


@dataclass(frozen=True)
class ShareOptions:
    """What is given away, and where."""

    run: str
    """Folder of a finished run of train, sft or demo."""
    out: Path
    """New folder for the weights, the model card and the numbers."""
    merged: bool = False
    """Write a whole checkpoint with the adapter merged in, which needs no peft; the adapter goes to OUT/adapter."""
    dtype: str = "auto"
    """Weights of a merged checkpoint: float32, bfloat16, float16; auto: as the run named it, else float32."""
    license: str | None = None
    """The Hub's identifier of the licence that you choose, such as apache-2.0; None: the card says that none is."""
    base_model: str | None = None
    """Hub name of the base model, where the run loaded it from a folder."""
    push: str | None = None
    """USER/NAME: also make this repository on the Hub and upload OUT. Left out: nothing leaves this machine."""
    public: bool = False
    """With --push: everybody sees the repository, not you alone."""


@dataclass(frozen=True)
class CardOptions:
    """What is asked about another card or model; neither: check this machine."""

    gpu_gb: float | None = None
    """Memory of a card in GB, to see what would fit on it; None: the card in this machine."""
    model: str | None = None
    """Published name, checkpoint directory, or a Hub name that was downloaded; None: Qwen/Qwen2-VL-2B-Instruct."""


# ----------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Plan:
    """A training run: everything that `settings.json` keeps of it, and how to ask for it again."""

    command: str
    data: DataOptions
    policy: PolicyOptions
    settings: TrainSettings
    checkpoint_every: int

    @property
    def method(self) -> str:
        return "SFT" if self.command == "sft" else "GRPO"

    @property
    def style(self) -> str:
        """Supervised fine-tuning teaches the answer alone, since few-shot labels come without reasoning."""
        return self.settings.style if isinstance(self.settings, GRPOSettings) else "answer"

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Plan:
        data, policy = DataOptions(**saved["data"]), PolicyOptions(**saved["policy"])
        kind = TrainSettings if saved["command"] == "sft" else GRPOSettings
        own = {item.name for item in dataclasses.fields(kind)}  # a run of sft was once saved with settings of GRPO
        settings = kind(**{name: value for name, value in saved["settings"].items() if name in own})
        return cls(saved["command"], data, policy, settings, saved["checkpoint_every"])


def demo(demo: DemoOptions) -> None:
    """Few-shot GRPO from beginning to end on the pocket policy: minutes on two CPU cores.

    Asks the policy about unseen images, trains it on a few, asks again, and writes figures and a report.
    """
    settings = GRPOSettings(seed=demo.seed, steps=GRPOSettings.steps if demo.steps is None else demo.steps)
    data = DataOptions(demo.data, shots=demo.shots)
    run_training(Plan("demo", data, PolicyOptions(), settings, RunOptions.checkpoint_every), demo.out, None)


def train(data: DataOptions, policy: PolicyOptions, run: RunOptions, settings: Any) -> None:
    """Few-shot GRPO on a drawn set or on your own images.

    favor-lab train --data folder --root my_photos --shots 4

    favor-lab train --policy Qwen/Qwen2-VL-2B-Instruct --data folder --root my_photos

    favor-lab train --resume runs/train-folder
    """
    start_or_resume("train", data, policy, run, settings)


def sft(data: DataOptions, policy: PolicyOptions, run: RunOptions, settings: Any) -> None:
    """The supervised baseline: the same shots with their labels given away, answer only.

    favor-lab sft --data sketch --shots 4 --steps 60
    """
    start_or_resume("sft", data, policy, run, settings)


def start_or_resume(command: str, data: DataOptions, policy: PolicyOptions, run: RunOptions, settings: Any) -> None:
    """A new run from these options, or an earlier one with its own."""
    from favor_lab.study.report import RunFolder

    if run.resume is None:
        # absolute, so that the run can be resumed from anywhere
        data = dataclasses.replace(data, root=absolute(data.root), exclude=absolute(data.exclude))
        is_folder = policy.policy != "pocket" and Path(policy.policy).is_dir()
        name = str(absolute(Path(policy.policy))) if is_folder else policy.policy
        policy = dataclasses.replace(policy, policy=name, adapter=absolute(policy.adapter))
        return run_training(Plan(command, data, policy, settings, run.checkpoint_every), run.out, None)
    folder = RunFolder.open(run.resume)
    plan = Plan.load(folder.settings)
    if (plan.command == "sft") != (command == "sft"):
        raise ValueError(f"{run.resume} is a run of {plan.command}: go on with `{resume_command(plan, folder)}`")
    free = {"resume"} | RESUMABLE_CHANGES
    given = [
        item.name
        for part in (data, policy, run, settings)
        for item in dataclasses.fields(part)
        if item.name not in free and getattr(part, item.name) != getattr(type(part)(), item.name)
    ]
    if given:
        raise ValueError(
            f"--resume takes the options of the run in {run.resume}: leave out {', '.join(map(flag, given))}"
        )
    changed = {name: value for name, value in changed_settings(settings).items() if name in free}
    run_training(dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, **changed)), None, folder)


def flag(name: str) -> str:
    """The name of an option as it is typed."""
    return "--" + name.replace("_", "-")


def resume_command(plan: Plan, folder: RunFolder) -> str:
    """What to type to go on with a run."""
    return f"favor-lab {'sft' if plan.method == 'SFT' else 'train'} --resume {folder.path}"


def run_training(plan: Plan, out: Path | None, folder: RunFolder | None) -> None:
    """One run from the first check to the report. A folder that is given is continued."""
    from favor_lab.grpo.support.checkpoints import differences
    from favor_lab.study.report import RunFolder, draw_figures, write_report

    need("matplotlib", "the figures of a run")
    if folder is None:
        folder = RunFolder.create(out or free_path(Path("runs") / f"{plan.command}-{plan.data.data}"))
    shots = load_shots(plan.data, plan.settings.seed)
    policy = open_policy(plan.policy, plan.settings.seed)
    state = open_state(plan, policy, folder)
    begun_on = folder.load("settings.json", {}).get("versions", {})
    folder.save_settings(asdict(plan), policy.device)
    if begun_on and (unlike := differences(begun_on, folder.settings["versions"])):
        complain(f"note: the run was begun otherwise ({'; '.join(unlike)}): from here on its last digits may differ")
    if folder.records() and not state.step:
        complain(f"note: there is no checkpoint in {folder.checkpoint}: the run begins again at its first step")
    say(f"{policy.report()}\n{len(shots.labels)} labels, {len(shots.train)} training and {len(shots.test)} test images")
    before, after = ("before" if plan.policy.adapter else "zero-shot"), f"{plan.data.shots}-shot {plan.method}"
    evaluations = {}
    try:
        if shots.test:
            evaluations[before] = evaluate_test(plan, policy, shots, folder, "before", again=False)
        learn(plan, policy, shots, folder, state)
        weights = policy.save(folder.path / ("adapter" if plan.policy.lora_rank or plan.policy.adapter else "policy"))
        if shots.test:
            evaluations[after] = evaluate_test(plan, policy, shots, folder, "after")
    except KeyboardInterrupt as interrupt:  # Ctrl-C or SIGTERM
        raise type(interrupt)(
            f"stopped after step {state.step} of {plan.settings.steps}; everything so far is in {folder.path}\n"
            f"go on with: {resume_command(plan, folder)}"
        ) from None
    except FloatingPointError as error:
        kept = f"the state after step {state.step} is in {folder.checkpoint}" if state.step else "no step was finished"
        raise FloatingPointError(f"{error}\n{kept}; a smaller --learning-rate may take another way") from error
    title = f"{after} on {plan.data.root or plan.data.data}"
    figures = draw_figures(folder, evaluations, shots.test)
    report = write_report(folder.path / "report.html", title, evaluations, figures, folder.settings, shots.test)
    if all(record["flat_groups"] == 1 for record in folder.records()):
        complain(
            "note: no group of completions ever differed in its rewards, so nothing was learnt: look at what the "
            "policy writes in the report, then try more --group-size, --max-new-tokens or another --style"
        )
    for name, evaluation in evaluations.items():
        say(f"{name:<12} {evaluation.summary()}")
    say(f"weights      {weights}\nfigures      {folder.path / 'figures'}\nreport       {report}")


def learn(plan: Plan, policy: Policy, shots: FewShot, folder: RunFolder, state: TrainingState) -> None:
    """Train to the last step; whatever ends it, the records and a checkpoint of all good steps so far are on disk.

    What a step's numbers warn of is said once a kind, as it comes up.
    """
    from tqdm import tqdm

    from favor_lab.budget.memory import with_advice
    from favor_lab.grpo.support.checkpoints import save_checkpoint
    from favor_lab.grpo.support.interrupts import uninterrupted
    from favor_lab.grpo.training import train
    from favor_lab.runs.notes import notes_on
    from favor_lab.study.baselines import sft

    folder.rewind(state.step)
    told: set[str] = set()
    recorded = state.step
    records: Iterator[StepRecord]
    if isinstance(plan.settings, GRPOSettings):
        records = train(policy, shots, plan.settings, resume=state)
        records = with_advice(records, policy, plan.settings, shots)
    else:
        records = sft(policy, shots, plan.settings, resume=state)
    try:
        with tqdm(records, plan.method, plan.settings.steps, initial=state.step, unit="step") as bar:
            for record in bar:
                with uninterrupted() as raise_delayed:
                    folder.append(record)
                    recorded = record.step
                raise_delayed()
                for kind, text in notes_on(record, plan.settings).items():
                    if kind not in told:
                        tqdm.write(f"favor-lab: note: step {record.step}: {text}", file=sys.stderr)
                        told.add(kind)
                rewards = [f"{name.removesuffix('_reward')} {value:.2f}" for name, value in record.rewards.items()]
                bar.set_postfix_str(", ".join(rewards) or f"loss {record.loss:.3f}", refresh=False)
                if record.step % plan.checkpoint_every == 0:
                    save_checkpoint(folder.checkpoint, state)
    finally:
        if state.step and state.step == recorded and not state.out_of_range():  # a step without a record is repeated
            save_checkpoint(folder.checkpoint, state)


def evaluate_test(
    plan: Plan, policy: Policy, shots: FewShot, folder: RunFolder, when: str, again: bool = True
) -> Evaluation:
    """Greedy answers to the test images, and for GRPO one sampled group; `again=False` takes what is on disk."""
    from favor_lab.study.evaluation import Evaluation, evaluate

    file = folder.path / f"evaluation_{when}.json"
    if file.exists() and not again:
        return Evaluation.load(file)
    labels = None if plan.settings.open_vocabulary else shots.labels
    if isinstance(plan.settings, GRPOSettings):
        show_group(plan.settings, policy, shots.test, labels, folder, when)
    tokens, title = plan.settings.max_new_tokens, f"test images, {when}"
    evaluation = evaluate(policy, shots.test, labels, plan.style, tokens, progress=title)
    evaluation.save(file)
    return evaluation


def show_group(
    settings: GRPOSettings, policy: Policy, test: list[Example], labels: list[str] | None, folder: RunFolder, when: str
) -> None:
    """Sample one test image G times, keep the group, and say in a line what was answered.

    The image is, of the first sixteen, the one whose group has the widest rewards before training; then the same one.
    """
    from favor_lab.study.evaluation import sample_judged_groups

    groups = folder.load("groups.json", {})
    chosen = [example for example in test[:16] if not groups or example.source == groups["before"]["source"]]
    sampled = sample_judged_groups(policy, chosen, labels, settings)
    group = max(sampled, key=lambda group: group.spread)
    folder.save("groups.json", groups | {when: group})
    say(f"{group.source}, {group.label}, sampled {len(group.texts)} times {when} training: {group.summary()}")


def load_shots(data: DataOptions, seed: int) -> FewShot:
    """The images of a run, read and checked."""
    from favor_lab.activities import few_shot

    return few_shot(open_set(data), data.shots, seed, validation=0, test=data.test)


def open_set(options: SetOptions) -> ActivityData:
    """The set of images that the options name; its images are not read yet."""
    from favor_lab.activities import load_activities

    exclude = read_exclude(options.exclude)
    return load_activities(options.data, options.root, person_crop=options.person_crop, exclude=exclude)


def read_exclude(path: Path | None) -> list[str]:
    """The lines of a file of images to leave out, without blank ones and those that begin with #."""
    lines = [] if path is None else Path(path).read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def open_policy(options: PolicyOptions, seed: int = 0) -> Policy:
    """The policy; the seed decides the start of its adapter."""
    from transformers.utils import logging

    from favor_lab.vlm.loading import load_policy

    logging.disable_progress_bar()
    arguments = asdict(options)
    return load_policy(arguments.pop("policy"), **arguments, seed=seed)


def open_state(plan: Plan, policy: Policy, folder: RunFolder) -> TrainingState:
    """The state to train from: a new one, or the last checkpoint of the run folder."""
    from favor_lab.grpo.support.checkpoints import TrainingState, checkpoints, load_checkpoint

    if checkpoints(folder.checkpoint):
        return load_checkpoint(folder.checkpoint, policy)
    return TrainingState.start(policy, plan.settings)


# ---------------------------------------------------------------------------------- evaluate, data, profile and doctor


def evaluate(test: AskOptions, policy: PolicyOptions) -> None:
    """Ask a policy, or an adapter of a run, about the test images of a set.

    favor-lab evaluate --data sketch --adapter runs/demo-cartoon/adapter
    """
    from favor_lab.study.evaluation import evaluate
    from favor_lab.study.report import RunFolder, draw_figures, write_report

    if test.out is not None:
        need("matplotlib", "the figures of a report")
    folder = None if test.out is None else RunFolder.create(test.out)
    asked = DataOptions(test.data, test.root, test.person_crop, test.exclude, shots=1, test=test.test)
    shots = load_shots(asked, seed=0)
    labels = None if test.open_vocabulary else shots.labels
    model = open_policy(policy)
    result = evaluate(model, shots.test, labels, test.style, test.max_new_tokens, test.batch_size, "test images")
    if folder is not None:
        folder.save_settings({"command": "evaluate", "test": asdict(test), "policy": asdict(policy)})
        result.save(folder.path / "evaluation.json")
        evaluations, title = {model.name: result}, f"{model.name} on {test.root or test.data}"
        figures = draw_figures(folder, evaluations, shots.test)
        report = folder.path / "report.html"
        say(f"report   {write_report(report, title, evaluations, figures, folder.settings, shots.test)}")
    say(result.summary())


def data(draw: DrawOptions) -> None:
    """Where to get a public set and what it is; check a folder of images; list, show or draw a set.

    favor-lab data stanford40

    favor-lab data stanford40 --root my_stanford40 --person-crop 0.1

    favor-lab data folder --root my_photos --sheet sheet.png

    favor-lab data cartoon --out my_cartoon --per-label 8

    A folder is checked first, and nothing is downloaded; the exit status is 1 if training would trip over something.
    """
    from favor_lab.activities import export_folder
    from favor_lab.activities.catalogue import FOLDER_GUIDE, PUBLIC

    if draw.root is None and draw.data in (*PUBLIC, "folder"):
        return say(PUBLIC[draw.data].guide(draw.data) if draw.data in PUBLIC else FOLDER_GUIDE)
    if draw.root is not None and not check(draw, draw.root):
        raise SystemExit(1)
    found = open_set(draw)
    say(f"{found.name}: {len(found.labels)} labels ({', '.join(found.labels)})")
    for split, records in found.splits.items():
        say(f"{split:<12}{len(records)} images")
    if draw.out is not None:
        say(f"{len(export_folder(draw.data, draw.out, per_label=draw.per_label))} images written to {draw.out}")
    if draw.sheet is not None:
        write_sheet(draw, found, draw.sheet)


def check(draw: DrawOptions, root: Path) -> bool:
    """Say everything that is wrong with the folder of a set; whether training would go through."""
    from tqdm import tqdm

    from favor_lab.activities.checks import check_folder
    from favor_lab.activities.pocket import SETS

    if draw.data in SETS:
        return True  # loading it says that a drawn set takes no root
    report = check_folder(
        draw.data,
        root,
        decode=draw.decode,
        person_crop=draw.person_crop is not None,
        exclude=read_exclude(draw.exclude),
        progress=lambda records: tqdm(records, "check", unit="image", leave=False, disable=None),
    )
    for line in report.lines():
        say(line)
    say(report.summary())
    if draw.write_exclude is not None:
        lines = [*read_exclude(draw.exclude), *report.exclude]
        with draw.write_exclude.open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        say(f"{len(lines)} images to leave out written to {draw.write_exclude}")
    elif report.exclude:
        say(f"{len(report.exclude)} images are in doubt: mend or remove them, or leave them out: --write-exclude FILE")
    return not report.fatal


def write_sheet(draw: DrawOptions, found: ActivityData, path: Path) -> None:
    """One picture of the first images of each label."""
    need("matplotlib", "a sheet of images")
    from favor_lab.study.plots import plot_examples

    if draw.split not in found.splits:
        raise ValueError(f"{found.name} has no split {draw.split!r}; it has {', '.join(found.splits)}")
    by_label = [[r for r in found.splits[draw.split] if r.label == label][: draw.per_label] for label in found.labels]
    figure = plot_examples([found.read(record) for records in by_label for record in records], columns=8)
    figure.savefig(path)
    say(f"sheet written to {path}")


def profile(data: DataOptions, policy: PolicyOptions, measure: ProfileOptions, settings: Any) -> None:
    """Where a training step spends its time, FLOPs and memory, beside the least that this machine could need.

    favor-lab profile --fixed-length --max-new-tokens 32

    favor-lab profile --policy Qwen/Qwen2-VL-2B-Instruct --gradient-checkpointing --out profile-2b
    """
    import json

    from tqdm import tqdm

    from favor_lab.budget.profiling import profile_step
    from favor_lab.study.report import RunFolder

    if measure.out is not None:
        need("matplotlib", "the figure of a profile")
        RunFolder.create(measure.out)
    shots = load_shots(dataclasses.replace(data, test=0), settings.seed)
    model = open_policy(policy, settings.seed)
    found = profile_step(
        model,
        shots,
        settings,
        repeats=measure.repeats,
        fixed_length=measure.fixed_length,
        progress=lambda turns: tqdm(turns, "profile", unit="step", leave=False),
    )
    say(found.table())
    if measure.out is not None:
        from favor_lab.study.plots import plot_profile

        (measure.out / "profile.json").write_text(json.dumps(found.to_dict(), indent=1) + "\n")
        plot_profile(found, f"One step of {found.policy} on {found.device}").savefig(measure.out / "profile.png")
        say(f"figure       {measure.out / 'profile.png'}")


def study(study: StudyOptions, images: FolderOptions, policy: PolicyOptions) -> None:
    """Compare methods cell by cell: training, test images, every response kept, one table with intervals.

    favor-lab study --methods zero-shot grpo --sets cartoon --shots 1 4 --seeds 2

    favor-lab study --policy Qwen/Qwen2-VL-2B-Instruct --sets stanford40 --root stanford40 --shots 1 2 4 8 16
    """
    from tqdm import tqdm

    from favor_lab import experiments

    cells = cells_of(study)
    settings, setup = study_setup(study, images, policy)
    for name in study.sets:
        setup.load(name)  # a folder that is not there is told now, not after hours of other sets
    with tqdm(cells, "study", unit="cell") as bar:

        def progress(cell: experiments.Cell, doing: str) -> None:
            bar.set_postfix_str(f"{cell.name}: {doing}")

        runs = experiments.run_study(cells, study.out, settings, setup, progress=progress)
        for cell, result in zip(cells, runs, strict=True):
            bar.update()
            if result:
                bar.write(f"{cell.name:<26} {result.evaluation.summary()}")
                experiments.write_tables(study.out)
    say(experiments.write_tables(study.out))


def cells_of(study: StudyOptions) -> list[experiments.Cell]:
    """The cells that the options name. ValueError for a preset beside options that it replaces."""
    from favor_lab import experiments

    if study.preset is None:
        shots = dict.fromkeys(study.shots, study.seeds)
        plans = (experiments.plan(study.methods, study.sets, shots, name) for name in ("", *study.variants))
        return list(itertools.chain(*plans))
    replaced = ("methods", "sets", "shots", "seeds", "variants")
    if given := [name for name in replaced if getattr(study, name) != getattr(StudyOptions, name)]:
        raise ValueError(f"--preset {study.preset} says it all: leave out {', '.join(map(flag, given))}")
    return experiments.preset(study.preset)


def study_setup(
    study: StudyOptions, images: FolderOptions, policy: PolicyOptions
) -> tuple[dict[str, GRPOSettings], experiments.Setup]:
    """The settings of each method, and what all cells share: the recipe's, but for what the options say otherwise."""
    from favor_lab import experiments

    chosen = study.recipe or ("pocket" if policy.policy == "pocket" else "lora")
    if chosen not in experiments.RECIPES:
        raise ValueError(f"unknown recipe {chosen!r}; the recipes are {', '.join(experiments.RECIPES)}")
    recipe = experiments.RECIPES[chosen]
    said = {"steps": study.steps, "micro_batch": study.micro_batch}
    changes: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    settings = recipe.by_method(open_vocabulary=study.open_vocabulary, offload_tower=study.offload_tower, **changes)
    differing = {
        item.name: getattr(policy, item.name)
        for item in dataclasses.fields(policy)
        if getattr(policy, item.name) != item.default and item.name != "policy"
    }
    loading = {"name": policy.policy, **recipe.policy, **differing}
    where = {"root": images.root, "person_crop": images.person_crop, "exclude": read_exclude(images.exclude)}
    return settings, experiments.Setup(study.sets, study.test, loading, where)


def share(share: ShareOptions) -> None:
    """Put what a run trained into a folder to give away: weights, a model card, settings and results.

    favor-lab share runs/demo-cartoon --out my-adapter

    favor-lab share runs/train-folder --out my-model --merged --push USER/NAME

    No file names a path of this machine, or an image file of your own folder.
    """
    from favor_lab.study import sharing

    if share.public and share.push is None:
        raise ValueError("--public says who sees what is pushed: it needs --push USER/NAME")
    options: dict[str, Any] = {"base_model": share.base_model, "license": share.license, "dtype": share.dtype}
    options |= {"merged": share.merged, "push_to": share.push, "private": not share.public}
    sharing.share(share.run, share.out, **options)
    size = sum(path.stat().st_size for path in share.out.rglob("*") if path.is_file())
    say(f"{size / 1e6:.1f} MB      {share.out}\nmodel card   {share.out / 'README.md'}")
    if share.license is None:
        say("no licence   whoever gets it may not use it until you name one: --license, or in the card's first lines")
    if share.push is not None:
        say(f"pushed to    {share.push} ({'public' if share.public else 'private'})")


def doctor(card: CardOptions) -> None:
    """Check this machine: versions, cores, memory, GPU, the pocket checkpoint, and what can be run here.

    favor-lab doctor --gpu-gb 8

    With --gpu-gb or --model: what fits on a card, by phase of a training step, and the command to run. An estimate,
    which needs neither the card nor the weights.
    """
    from favor_lab.budget.doctor import check_machine, largest_gpu_gb, what_fits

    if card.gpu_gb is not None or card.model is not None:
        return say(what_fits(card.model, card.gpu_gb or largest_gpu_gb()))
    failed = False
    for finding in check_machine():
        say(str(finding))
        failed |= finding.ok is False
    if (gpu_gb := largest_gpu_gb()) is not None:
        try:
            say(what_fits(None, gpu_gb))
        except ValueError:
            pass  # said above: nothing fits
    if failed:
        raise SystemExit(1)


# ---------------------------------------------------------------------------------------------------------- the parser


class Terminated(KeyboardInterrupt):
    """SIGTERM: `kill`, a machine that shuts down, a time limit that is over. It ends a command as Ctrl-C does."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """While the block runs, SIGTERM raises Terminated, unless the process ignores SIGTERM or has a handler for it."""

    def terminate(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: `timeout` sends it twice
        raise Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def groups_of(command: str) -> dict[str, Any]:
    """The option groups of a command: the parameters of its function and their types."""
    groups = typing.get_type_hints(COMMANDS[command])
    del groups["return"]
    if "settings" in groups:
        groups["settings"] = unchecked(TrainSettings if command == "sft" else GRPOSettings)
    if "draw" in groups:
        groups["draw"] = with_positional(groups["draw"], "data")
    if "share" in groups:
        groups["share"] = with_positional(groups["share"], "run")
    return groups


def unchecked(kind: type[TrainSettings]) -> type[TrainSettings]:
    """Settings whose values are not checked while they are parsed, so that the error is ours, in one line."""
    return type(kind.__name__, (kind,), {"__post_init__": lambda self: None, "__doc__": kind.__doc__})


def with_positional(options: type, name: str) -> type:
    """The options with one of them to be named without a flag."""
    import tyro

    (item,) = (item for item in dataclasses.fields(options) if item.name == name)
    kind = typing.Annotated[str, tyro.conf.Positional]
    fields = [(name, kind, dataclasses.field(default=item.default))]
    return dataclasses.make_dataclass(options.__name__, fields, bases=(options,), frozen=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "train": train,
    "sft": sft,
    "evaluate": evaluate,
    "profile": profile,
    "study": study,
    "data": data,
    "share": share,
    "doctor": doctor,
}


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run their command. Only the options of the command that was named are looked at."""
    need("tyro", "the command line")
    import tyro

    def options(command: str) -> type:
        groups = groups_of(command) if command in arguments[:1] else {}
        made = dataclasses.make_dataclass(command, list(groups.items()))
        about = str(COMMANDS[command].__doc__)
        made.__doc__ = about if groups else about.split("\n")[0]
        return made

    commands = {command: options(command) for command in COMMANDS}
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    parsed = tyro.extras.subcommand_cli_from_dict(
        commands, prog="favor-lab", description=ABOUT, args=arguments, config=config
    )
    groups = {item.name: getattr(parsed, item.name) for item in dataclasses.fields(parsed)}
    if isinstance(settings := groups.get("settings"), TrainSettings):
        kind = GRPOSettings if isinstance(settings, GRPOSettings) else TrainSettings
        groups["settings"] = kind(**{item.name: getattr(settings, item.name) for item in dataclasses.fields(kind)})
    COMMANDS[type(parsed).__name__](**groups)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 2 for an error that was explained, 130 after Ctrl-C, 143 after SIGTERM."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        with termination_raised(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: complain(f"note: {message}")
            run([argument for argument in given if argument != "--debug"])
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "stopped")
        return 143 if isinstance(interrupt, Terminated) else 130
    except (ValueError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError) as error:
        if debug:
            raise
        complain(f"error: {error}")
        return 2
    return 0


def need(package: str, what: str) -> None:
    """ImportError, with the command that installs it, unless a package is there."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{what} need{'s' * (not what.endswith('s'))} {package}: pip install 'favor-lab[lab]'")


def free_path(path: Path) -> Path:
    """The path itself, or the first of path-2, path-3 ... that holds nothing yet."""
    tries = (path if i == 1 else path.with_name(f"{path.name}-{i}") for i in itertools.count(1))
    return next(candidate for candidate in tries if not candidate.is_dir() or not any(candidate.iterdir()))


def absolute(path: Path | None) -> Path | None:
    """The path from the root, or None where there is none."""
    return None if path is None else path.resolve()


def say(text: str) -> None:
    """A line of results on standard output."""
    print(text, flush=True)


def complain(text: str) -> None:
    """A line of trouble on standard error."""
    print(f"favor-lab: {text}", file=sys.stderr, flush=True)
