"""Commands that train: demo, train, sft."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from favor_lab.cli.options import DemoOptions, RecipeOptions, RunOptions
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings, TrainSettings, changed_settings
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.run import RunPlan, resumed_plan, run_training, tell

if TYPE_CHECKING:
    from favor_lab.study.run_folder import RunFolder


def demo(demo: DemoOptions) -> None:
    """Few-shot GRPO from beginning to end on the pocket policy: minutes on two CPU cores.

    Asks the policy about unseen images, trains it on a few, asks again, and writes figures and a report.
    """
    settings = GRPOSettings(seed=demo.seed, steps=GRPOSettings.steps if demo.steps is None else demo.steps)
    plan = RunPlan("demo", DataOptions(demo.data, shots=demo.shots), PolicyOptions(), settings, tracker=demo.tracker)
    start(plan, demo.out, quiet=demo.quiet)


def train(
    data: DataOptions, policy: PolicyOptions, method: RecipeOptions, run: RunOptions, settings: GRPOSettings
) -> None:
    """Few-shot GRPO on a drawn set or on your own images.

    favor-lab train --data folder --root my_photos --shots 4

    favor-lab train --policy Qwen/Qwen2-VL-2B-Instruct --data folder --root my_photos

    favor-lab train --resume runs/train-folder
    """
    start_or_resume(RunPlan("train", data, policy, settings, recipe=method.recipe), run)


def sft(data: DataOptions, policy: PolicyOptions, run: RunOptions, settings: TrainSettings) -> None:
    """The supervised baseline: the same shots with their labels given away, answer only.

    favor-lab sft --data sketch --shots 4 --steps 60
    """
    start_or_resume(RunPlan("sft", data, policy, settings), run)


def start_or_resume(plan: RunPlan, run: RunOptions) -> None:
    """A new run from these options, or an earlier one with its own."""
    from favor_lab.study.run_folder import RunFolder

    if run.resume is None:
        plan = replace(plan, checkpoint_every=run.checkpoint_every, tracker=run.tracker)
        return start(plan, run.out, quiet=run.quiet)
    folder = RunFolder.open(run.resume)
    resumed = resumed_plan(folder, plan.command, plan.settings)
    parts = (plan.data, plan.policy, RecipeOptions(plan.recipe), run, plan.settings)
    may_change = {"resume", "quiet", "tracker", *RESUMABLE_CHANGES}
    changed = [name for part in parts for name in changed_settings(part) if name not in may_change]
    if names := [f"--{name.replace('_', '-')}" for name in changed]:
        raise ValueError(f"--resume takes the options of the run in {run.resume}: leave out {', '.join(names)}")
    start(replace(resumed, tracker=run.tracker or resumed.tracker), folder=folder, quiet=run.quiet)


def start(plan: RunPlan, out: Path | None = None, folder: RunFolder | None = None, *, quiet: bool) -> None:
    """Run the plan; quiet: of all it has to say only the last line, and errors."""
    if not quiet:
        run_training(plan, out, folder)
        return
    lines: list[str] = []
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # trackio has more to say than our `tell`
        warnings.simplefilter("ignore")
        run_training(plan, out, folder, tell=lines.append, note=lambda text: None, progress=False)
    tell(lines[-1].splitlines()[-1])
