"""Commands that train: demo, train, sft."""

from __future__ import annotations

import dataclasses

from favor_lab.cli.options import DemoOptions, RecipeOptions, RunOptions
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings, TrainSettings
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.run import RunPlan, resumed_plan, run_training


def demo(demo: DemoOptions) -> None:
    """Few-shot GRPO from beginning to end on the pocket policy: minutes on two CPU cores.

    Asks the policy about unseen images, trains it on a few, asks again, and writes figures and a report.
    """
    settings = GRPOSettings(seed=demo.seed, steps=GRPOSettings.steps if demo.steps is None else demo.steps)
    run_training(RunPlan("demo", DataOptions(demo.data, shots=demo.shots), PolicyOptions(), settings), demo.out)


def train(
    data: DataOptions, policy: PolicyOptions, method: RecipeOptions, run: RunOptions, settings: GRPOSettings
) -> None:
    """Few-shot GRPO on a drawn set or on your own images.

    favor-lab train --data folder --root my_photos --shots 4

    favor-lab train --policy Qwen/Qwen2-VL-2B-Instruct --data folder --root my_photos

    favor-lab train --resume runs/train-folder
    """
    start_or_resume("train", data, policy, method, run, settings)


def sft(data: DataOptions, policy: PolicyOptions, run: RunOptions, settings: TrainSettings) -> None:
    """The supervised baseline: the same shots with their labels given away, answer only.

    favor-lab sft --data sketch --shots 4 --steps 60
    """
    start_or_resume("sft", data, policy, RecipeOptions(), run, settings)


def start_or_resume(
    command: str,
    data: DataOptions,
    policy: PolicyOptions,
    method: RecipeOptions,
    run: RunOptions,
    settings: TrainSettings,
) -> None:
    """A new run from these options, or an earlier one with its own."""
    from favor_lab.study.run_folder import RunFolder

    if run.resume is None:
        plan = RunPlan(command, data, policy, settings, run.checkpoint_every, method.recipe)
        run_training(plan, run.out)
        return
    folder = RunFolder.open(run.resume)
    plan = resumed_plan(folder, command, settings)
    changed = [
        item.name
        for part in (data, policy, method, run, settings)
        for item in dataclasses.fields(part)
        if item.name not in {"resume", *RESUMABLE_CHANGES}
        and getattr(part, item.name) != getattr(type(part)(), item.name)
    ]
    if changed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise ValueError(f"--resume takes the options of the run in {run.resume}: leave out {names}")
    run_training(plan, folder=folder)
