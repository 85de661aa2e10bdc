"""Commands that measure: profile, study, doctor; and share, which exports."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import ArgumentError
from favor_lab.cli.options import CardOptions, FitOptions, ProfileOptions, ShareOptions, StudyOptions
from favor_lab.cli.training import refuse_ignored
from favor_lab.files import jsonable
from favor_lab.grpo.support.settings import GRPOSettings, changed_settings
from favor_lab.progress import progress_bar
from favor_lab.runs.card import fitted_plan
from favor_lab.runs.options import (
    DataOptions,
    FolderOptions,
    PolicyOptions,
    adapter_folder,
    check_drawn,
    check_images,
    check_outside,
    check_policy,
    load_shots,
    open_policy,
    read_exclude,
)
from favor_lab.runs.plan import RunPlan
from favor_lab.runs.run import tell
from favor_lab.versions import need

if TYPE_CHECKING:
    from favor_lab.runs.cells import Cell


def profile(
    data: DataOptions,
    policy: PolicyOptions,
    card: FitOptions,
    measure: ProfileOptions,
    settings: GRPOSettings,
    typed: Collection[str],
) -> None:
    """Where a training step spends its time, FLOPs and memory, beside the least that this machine could need.

    favor-lab profile --fixed-length --max-new-tokens 32

    favor-lab profile --policy Qwen/Qwen2-VL-2B-Instruct --gpu-gb 12 --out profile-2b

    The defaults below are those of the pocket policy; for larger models see `favor-lab train --help`.
    """
    from favor_lab.budget.profiling import profile_step
    from favor_lab.study.run_folder import RunFolder

    check_policy(policy)
    plan = RunPlan("profile", data, policy, settings)
    fitted = fitted_plan(plan, typed, card.gpu_gb, card.check)
    refuse_ignored(plan, fitted, card, typed)
    plan = fitted
    check_images(replace(data, test=0))
    check_outside(measure.out, data.root)
    policy, settings = plan.policy, replace(settings, **vars(plan.settings))
    if measure.out is not None:
        need("matplotlib", "the figure of a profile")
        folder = RunFolder.create(measure.out)
    shots, model = load_shots(replace(data, test=0), settings.seed), open_policy(policy, settings.seed)
    progress = functools.partial(progress_bar, desc="profile", unit="step", leave=False)
    measured = profile_step(
        model, shots, settings, repeats=measure.repeats, fixed_length=measure.fixed_length, progress=progress
    )
    tell(measured.table())
    if measure.out is not None:
        from favor_lab.show.profile import plot_profile

        folder.save("profile.json", measured.to_dict())
        path = measure.out / "profile.png"
        plot_profile(measured, f"One step of {measured.policy} on {measured.device}").savefig(path)
        tell(f"figure       {path}")


def study(study: StudyOptions, images: FolderOptions, policy: PolicyOptions, typed: Collection[str]) -> None:
    """Compare methods cell by cell: training, test images, every response kept, one table with intervals.

    favor-lab study --methods zero-shot grpo --sets cartoon --shots 1 4 --seeds 2

    favor-lab study --methods sft grpo --recipes papo visurf --sets cartoon

    favor-lab study --policy Qwen/Qwen2-VL-2B-Instruct --sets stanford40 --root stanford40 --shots 1 2 4 8 16
    """
    from favor_lab.runs.cells import PRESETS, Setup
    from favor_lab.runs.experiments import run_study
    from favor_lab.runs.tables import write_tables

    check_policy(policy)
    check_outside(study.out, images.root)
    for name in study.sets:
        check_drawn(name, images)
    cells = cells_of(study)
    refuse_untrained(cells, typed)
    name = study.preset or ("pocket" if policy.policy == "pocket" else "lora")
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; the presets are {', '.join(PRESETS)}")
    # the preset's settings and policy, but for what the options say otherwise
    preset, names = PRESETS[name], ("steps", "micro_batch", "open_vocabulary", "offload_tower")
    settings = preset.by_method(**{name: value for name, value in changed_settings(study).items() if name in names})
    own_options = changed_settings(policy)
    if policy.adapter is not None:
        own_options["adapter"] = adapter_folder(policy.adapter)
    loading = {"name": own_options.pop("policy", policy.policy), **preset.policy, **own_options}
    where = {**asdict(images), "exclude": read_exclude(images.exclude)}
    setup = Setup(study.sets, study.test, loading, where)
    for name in study.sets:
        setup.load(name)  # a folder that is not there is told now, not after hours of other sets
    setup.check(cells)
    with progress_bar(cells, "study", unit="cell") as bar:
        options = {"progress": lambda cell, doing: bar.set_postfix_str(f"{cell.name}: {doing}")}
        for cell, result in zip(cells, run_study(cells, study.out, settings, setup, **options), strict=True):
            bar.update()
            if result:
                tell(f"{cell.name:<26} {result.evaluation.summary()}")
                write_tables(study.out)
    tell(write_tables(study.out))


def cells_of(study: StudyOptions) -> list[Cell]:
    """The cells that the options name. ValueError for a whole study beside options that it replaces."""
    from favor_lab.runs.cells import plan, whole_study

    if study.cells is None:
        shots, variants = dict.fromkeys(study.shots, study.seeds), ("", *study.variants, *study.recipes)
        changes = [("", variant) for variant in variants]
        changes += [(task, variant) for task in study.tasks for variant in ("", *study.recipes)]
        return [cell for task, variant in changes for cell in plan(study.methods, study.sets, shots, variant, task)]
    replaced = ("methods", "sets", "shots", "seeds", "variants", "tasks", "recipes")
    if changed := [f"--{name}" for name in replaced if name in changed_settings(study)]:
        raise ValueError(f"--cells {study.cells} names them all: leave out {', '.join(changed)}")
    return whole_study(study.cells)


def refuse_untrained(cells: Sequence[Cell], typed: Collection[str]) -> None:
    """ArgumentError for variants that none of the methods has, and for options of training if nothing is trained."""
    variants = {cell.variant for cell in cells}
    for name in ("variants", "recipes"):
        if name in typed and variants <= {""}:
            raise ArgumentError(name, f"{name} are of grpo and grpo-answer, and neither is among the methods")
    if not any(cell.trains for cell in cells):
        for name in ("shots", "seeds", "steps", "micro_batch"):
            if name in typed:
                raise ArgumentError(name, f"{name} would have no effect: none of the methods trains")


def share(share: ShareOptions) -> None:
    """Put what a run trained into a folder to give away: weights, a model card, settings and results.

    favor-lab share runs/demo-cartoon --out my-adapter

    favor-lab share runs/train-folder --out my-model --merged --push USER/NAME

    No file names a path of this machine, or an image file of your own folder.
    """
    from favor_lab.sharing import export
    from favor_lab.study.leakage import FILE

    options: dict[str, Any] = {"merged": share.merged, "push_to": share.push, "private": not share.public}
    options |= {"base_model": share.base_model, "license": share.license, "dtype": share.dtype}
    export.share(share.run, share.out, **options)
    size = sum(path.stat().st_size for path in share.out.rglob("*") if path.is_file())
    tell(f"{size / 1e6:.1f} MB      {share.out}\nmodel card   {share.out / 'README.md'}")
    if (share.out / FILE).exists():
        tell(f"fingerprints {FILE}: whoever has a training image can tell; delete it if that is too much")
    if share.license is None:
        tell("no licence   whoever gets it may not use it until you name one: --license, or in the card's first lines")
    if share.push is not None:
        tell(f"pushed to    {share.push} ({'public' if share.public else 'private'})")


def doctor(card: CardOptions) -> None:
    """Check this machine: versions, cores, memory, GPU, the pocket checkpoint, and what can be run here.

    favor-lab doctor --gpu-gb 8

    With --gpu-gb or --model: what fits on a card, by phase of a training step, how long training takes, and the command
    to run. An estimate, which needs neither the card nor the weights.
    """
    from favor_lab.budget.doctor import check_machine, largest_gpu_gb, what_fits

    if card.model is not None and not card.model.strip():
        raise ValueError("--model is empty: name a published model or a checkpoint directory, or leave it out")
    if card.json:
        return doctor_as_json(card)
    if card.gpu_gb is not None or card.model is not None:
        return tell(what_fits(card.model, card.gpu_gb or largest_gpu_gb()))
    failed = False
    for finding in check_machine():
        tell(str(finding))
        failed |= finding.ok is False
    if (gpu_gb := largest_gpu_gb()) is not None:
        with suppress(ValueError):  # a finding says that nothing fits
            tell(what_fits(None, gpu_gb))
    if failed:
        raise SystemExit(1)


def doctor_as_json(card: CardOptions) -> None:
    """The findings, unless a card or a model was asked about, and the presets: of the card, or of the usual ones."""
    from favor_lab.budget.doctor import check_machine, largest_gpu_gb, presets_for

    asked = card.gpu_gb is not None or card.model is not None
    findings = [] if asked else list(check_machine())
    gpu_gb, ok = card.gpu_gb or largest_gpu_gb(), all(finding.ok is not False for finding in findings)
    presets = presets_for(card.model, gpu_gb) if asked or gpu_gb is not None else []
    about = {} if asked else {"ok": ok, "findings": [finding._asdict() for finding in findings]}
    tell(json.dumps(jsonable({**about, "presets": presets})))
    if not ok:
        raise SystemExit(1)
