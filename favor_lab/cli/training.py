"""Commands that train: demo, train, sft."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Collection
from contextlib import redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import ArgumentError
from favor_lab.cli.options import DemoOptions, FitOptions, RecipeOptions, RunOptions
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings, TrainSettings
from favor_lab.runs.card import fitted_plan
from favor_lab.runs.options import DataOptions, PolicyOptions, check_device, room_for_test
from favor_lab.runs.plan import RunPlan, resumed_plan
from favor_lab.runs.run import note, run_training, tell

if TYPE_CHECKING:
    from favor_lab.study.run_folder import RunFolder

MAY_MOVE = ("root", "exclude")  # where the images of a run that is resumed are: they are compared by content


def demo(demo: DemoOptions) -> None:
    """Few-shot GRPO from beginning to end on the pocket policy: minutes on two CPU cores.

    Asks the policy about unseen images, trains it on a few, asks again, and writes figures and a report.
    """
    settings = GRPOSettings(seed=demo.seed, steps=GRPOSettings.steps if demo.steps is None else demo.steps)
    plan = RunPlan("demo", DataOptions(demo.data, shots=demo.shots), PolicyOptions(), settings, tracker=demo.tracker)
    start(plan, demo.out, quiet=demo.quiet)


def train(
    data: DataOptions,
    policy: PolicyOptions,
    card: FitOptions,
    method: RecipeOptions,
    run: RunOptions,
    settings: GRPOSettings,
    typed: Collection[str],
) -> None:
    """Few-shot GRPO on a drawn set or on your own images.

    favor-lab train --data folder --root my_photos --shots 4

    favor-lab train --policy Qwen/Qwen2-VL-2B-Instruct --data folder --root my_photos --gpu-gb 12

    favor-lab train --recipe papo --set gamma=0.01 --set side=28

    favor-lab train --resume runs/train-folder

    The defaults below are those of the pocket policy. For a model of more than 100 million parameters, options that
    are not given come from the preset for its card, which is printed; what you give wins.
    """
    if method.set and run.resume is None:
        settings = replace(settings, coefficients={**settings.coefficients, **set_coefficients(method)})
    start_or_resume(RunPlan("train", data, policy, settings, recipe=method.recipe), run, card, typed)


def set_coefficients(method: RecipeOptions) -> dict[str, Any]:
    """The coefficients that --set gives, by name. ArgumentError for one that the recipe does not have, with those that
    it has."""
    from favor_lab.recipes import find_recipe

    options, values = find_recipe(method.recipe).options(), dict[str, Any]()
    for pair in method.set:
        name, _, text = pair.partition("=")
        if name not in options:
            own = f"the recipe {method.recipe}" if method.recipe else "plain GRPO"
            message = f"{own} has no coefficient {name!r}; its coefficients are {', '.join(options) or 'none'}"
            raise ArgumentError("set", message)
        values[name] = coefficient(name, text, options[name])
    return values


def coefficient(name: str, text: str, default: Any) -> float | int | bool | str:
    """The value of a coefficient from its text: true or false, or a finite number; where its default is a text, that.

    >>> coefficient("gamma", "0.05", 0.02), coefficient("side", "28", 14), coefficient("exact", "false", True)
    (0.05, 28, False)
    """
    if isinstance(default, str):
        return text
    wanted = "true or false" if isinstance(default, bool) else "a finite number"
    if text in ("true", "false") and isinstance(default, bool | None):
        return text == "true"
    try:
        value = float(text) if text.isascii() and not isinstance(default, bool) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentError("set", f"{name} is {text!r}, but must be {wanted}")
    return int(text) if text.lstrip("+-").isdigit() else value


def sft(
    data: DataOptions,
    policy: PolicyOptions,
    card: FitOptions,
    run: RunOptions,
    settings: TrainSettings,
    typed: Collection[str],
) -> None:
    """The supervised baseline: the same shots with their labels given away, answer only.

    favor-lab sft --data sketch --shots 4 --steps 60

    favor-lab sft --policy Qwen/Qwen2-VL-2B-Instruct --data folder --root my_photos --gpu-gb 12

    The defaults below are those of the pocket policy; for larger models see `favor-lab train --help`.
    """
    start_or_resume(RunPlan("sft", data, policy, settings), run, card, typed)


def start_or_resume(plan: RunPlan, run: RunOptions, card: FitOptions, typed: Collection[str]) -> None:
    """A new run from these options, or an earlier one with its own."""
    from favor_lab.study.run_folder import RunFolder

    if run.resume is None:
        heard = {"tell": silent, "note": silent} if run.quiet else {}
        check_device(plan.policy.device)
        fitted = fitted_plan(plan, typed, card.gpu_gb, card.check, **heard)
        refuse_ignored(plan, fitted, card, typed)
        plan = fitted
        if plan.data.root is not None and "test" not in typed:
            room, asked = room_for_test(plan.data), plan.data.test
            if 0 < room < asked:
                heard.get("note", note)(f"few images: {room} per label for the test, not {asked} (--test, --shots)")
                plan = replace(plan, data=replace(plan.data, test=room))
        plan = replace(plan, checkpoint_every=run.checkpoint_every, tracker=run.tracker)
        return start(plan, run.out, quiet=run.quiet)
    folder = RunFolder.open(run.resume)
    changes = {item.name: getattr(plan.settings, item.name) for item in fields(plan.settings) if item.name in typed}
    moved = {name: getattr(plan.data, name) for name in MAY_MOVE if name in typed}
    resumed = resumed_plan(folder, plan.command, changes, moved)
    parts = (plan.data, plan.policy, card, RecipeOptions(plan.recipe), run, plan.settings)
    may_change = {"resume", "quiet", "tracker", *MAY_MOVE, *RESUMABLE_CHANGES}
    changed = [item.name for part in parts for item in fields(part) if item.name in {*typed} - may_change]
    if names := [f"--{name.replace('_', '-')}" for name in changed]:
        raise ValueError(f"--resume takes the options of the run in {run.resume}: leave out {', '.join(names)}")
    start(replace(resumed, tracker=run.tracker or resumed.tracker), folder=folder, quiet=run.quiet)


def refuse_ignored(plan: RunPlan, fitted: RunPlan, card: FitOptions, typed: Collection[str]) -> None:
    """ArgumentError for an option that has no effect with the others."""
    if card.gpu_gb is not None:
        if plan.policy.device == "cpu":
            raise ArgumentError("gpu_gb", "gpu_gb is of a card, and --device is cpu: leave one out")
        if fitted is plan:
            raise ArgumentError("gpu_gb", f"{plan.policy.policy} is small and fits on any card: leave out gpu_gb")
    settings = fitted.settings
    rows = settings.prompts_per_step * getattr(settings, "group_size", 1)
    if "micro_batch" in typed and settings.micro_batch > rows:
        message = f"micro_batch is {settings.micro_batch}, but a step has {rows} rows: 0 takes all at once"
        raise ArgumentError("micro_batch", message)


def silent(text: str) -> None:
    """Where --quiet sends lines."""


def start(plan: RunPlan, out: Path | None = None, folder: RunFolder | None = None, *, quiet: bool) -> None:
    """Run the plan; quiet: of all it has to say only the last line, and errors."""
    if not quiet:
        run_training(plan, out, folder)
        return
    lines: list[str] = []
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # trackio has more to say than our `tell`
        warnings.simplefilter("ignore")
        run_training(plan, out, folder, tell=lines.append, note=silent, progress=False)
    tell(lines[-1].splitlines()[-1])
