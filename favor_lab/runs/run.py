"""One run from its first check to its report; `run_training` does for a notebook what `favor-lab train` does.

plan = RunPlan("train", DataOptions("cartoon"), PolicyOptions(), GRPOSettings(steps=20))
folder = run_training(plan, out=Path("runs/mine"))  # its files: see `favor_lab.study.run_folder`
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from favor_lab.files import locked, quoted, sweep
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.progress import progress_bar
from favor_lab.runs.folders import new_run_folder
from favor_lab.runs.options import check_run, load_shots, open_policy, start_digests, with_absolute_paths
from favor_lab.runs.plan import RunPlan, resume_command
from favor_lab.runs.resuming import (
    check_files,
    check_same,
    evaluation_file,
    identities,
    open_state,
    read_evaluation,
    rename_sources,
)
from favor_lab.runs.trackers import need_tracker, open_tracker
from favor_lab.terminal import print_line
from favor_lab.versions import need

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.support.checkpoints import TrainingState
    from favor_lab.grpo.support.records import StepRecord
    from favor_lab.study.evaluation import Evaluation
    from favor_lab.study.run_folder import RunFolder
    from favor_lab.vlm.policy import Policy

Tell = Callable[[str], None]  # receives a line of text


def tell(text: str) -> None:
    """Print a line of results."""
    print_line(text)


def note(text: str) -> None:
    """Print a line that deserves a look, on standard error, above a progress bar if there is one."""
    print_line(f"favor-lab: note: {text}", sys.stderr)


def run_training(
    plan: RunPlan,
    out: Path | None = None,
    folder: RunFolder | None = None,
    tell: Tell = tell,
    note: Tell = note,
    progress: bool = True,
) -> RunFolder:
    """Evaluate, train, evaluate again, and write figures and a report; returns the run's folder.

    out: a new folder (default: runs/COMMAND-DATA, with a number if that exists). folder: an earlier run's, to resume.
    tell, note: receive lines of results, and lines that deserve a look. progress: whether to show how far it is.
    Raises KeyboardInterrupt, with the command that resumes the run, after Ctrl-C; FloatingPointError, with the last
    step that was saved, for a number that is not finite; torch.OutOfMemoryError with the settings to lower.
    """
    need("matplotlib", "the figures of a run")
    need_tracker(plan.tracker)
    if folder is not None:
        with locked(folder.path):
            return run_in(folder, plan, tell, note, progress)
    check_run(plan.data, plan.policy, plan.settings, plan.recipe, out)
    data, options = with_absolute_paths(plan.data, plan.policy)
    with new_run_folder(out, Path("runs") / f"{plan.command}-{plan.data.data}") as folder:
        return run_in(folder, replace(plan, data=data, policy=options), tell, note, progress)


def run_in(folder: RunFolder, plan: RunPlan, tell: Tell, note: Tell, progress: bool) -> RunFolder:
    """The run, in a folder that nobody else writes to."""
    from favor_lab.runs.notes import notes_on_labels

    resumed = (folder.path / "settings.json").exists()
    if resumed:
        check_files(folder, plan.settings, plan.data.root)
    shots, earlier = kept_apart(plan, folder, note)
    policy = open_policy(plan.policy, plan.settings.seed)
    if policy.revision is not None:  # a branch may have moved on when the run is resumed
        plan = replace(plan, policy=replace(plan.policy, revision=policy.revision))
    start = start_digests(plan.policy, policy)
    state = open_state(plan.settings, policy, folder)
    if resumed:
        new_names = check_same(folder, state, plan.settings, shots, start, plan.policy.adapter is not None)
        rename_sources(folder, new_names)
    save_plan(plan, folder, policy, state, shots, earlier, start, note)
    tell(policy.report())
    tell(f"{len(shots.labels)} labels, {len(shots.train)} training and {len(shots.test)} test images")
    for text in notes_on_labels(shots.labels, plan.policy, policy, plan.settings):
        note(text)
    tracker = open_tracker(plan.tracker, folder.path, plan.settings, state.step)
    try:
        evaluations = evaluate_start(plan, policy, shots, folder, state, tell, progress) if shots.test else {}
        learn(plan, policy, shots, folder, state, note, progress, tracker.track)
        weights = policy.save(folder.path / ("adapter" if plan.policy.lora_rank or plan.policy.adapter else "policy"))
        if shots.test:
            evaluations[plan.title] = evaluate_test(plan, policy, shots, folder, "after", tell, progress=progress)
    except KeyboardInterrupt as interrupt:  # Ctrl-C or SIGTERM
        raise type(interrupt)(
            f"stopped after step {state.step} of {plan.settings.steps}; everything so far is in {folder.path}\n"
            f"resume with: {resume_command(plan, folder)}"
        ) from None
    except FloatingPointError as error:
        kept = f"the state after step {state.step} is in {folder.checkpoint}" if state.step else "no step was finished"
        raise FloatingPointError(f"{error}\n{kept}; try a smaller --learning-rate") from error
    finally:
        tracker.close()
    folder.save_manifest(state.step, start, identities(shots.test))
    report_run(plan, shots, folder, evaluations, weights, tell, note)
    return folder


def report_run(
    plan: RunPlan,
    shots: FewShot,
    folder: RunFolder,
    evaluations: dict[str, Evaluation],
    weights: Path,
    tell: Tell = tell,
    note: Tell = note,
) -> None:
    """Draw the figures, write the report, and say what came of the run, and how to ask what it trained."""
    from favor_lab.show.report import draw_figures, write_report
    from favor_lab.study.outcome import never_right

    records, groups = folder.records(), folder.load("groups.json")
    figures = draw_figures(folder.figures, evaluations, shots.test, records, groups)
    failure = never_right(records, evaluations.get(plan.title))
    notes = [f"This run did not learn to name an activity: {failure}."] if failure else []
    title, path = f"{plan.title} on {plan.data.root or plan.data.data}", folder.path / "report.html"
    report = write_report(path, title, evaluations, figures, folder.settings, shots.test, notes)
    if all(record["flat_groups"] == 1 for record in records):
        note(
            "no group of completions ever differed in its rewards, so nothing was learned: look at what the policy "
            "writes in the report, then try more --group-size, --max-new-tokens or another --style"
        )
    for name, evaluation in evaluations.items():
        tell(f"{name:<12} {evaluation.summary()}")
    tell(f"weights      {weights}\nfigures      {folder.figures}\nreport       {report}")
    tell(f"ask it       favor-lab predict IMAGE --run {quoted(folder.path)}")
    if failure:
        note(f"this run did not learn to name an activity: {failure}. What the policy wrote instead is in the report")


def kept_apart(plan: RunPlan, folder: RunFolder, note: Tell) -> tuple[FewShot, set[str]]:
    """The images of a run, without test images that the adapter or checkpoint to start from was trained on; and the
    fingerprints of all that it was trained on."""
    from favor_lab.study.leakage import earlier_images, without_training_images

    shots, start = load_shots(plan.data, plan.settings.seed), plan.policy.start
    earlier = earlier_images(folder, *plan.policy.starts)
    if earlier is None:
        if plan.policy.adapter is not None:
            note(f"{start} does not say which images it was trained on: test images may be among them")
        return shots, set()
    test = without_training_images(shots.test, earlier)
    if left_out := len(shots.test) - len(test):
        note(f"{left_out} of {len(shots.test)} test images are left out: {start} was trained on them")
    return replace(shots, test=test), earlier


def save_plan(
    plan: RunPlan,
    folder: RunFolder,
    policy: Policy,
    state: TrainingState,
    shots: FewShot,
    earlier: set[str],
    start: Mapping[str, str],
    note: Tell,
) -> None:
    """Write settings.json, run.toml and training_images.json, and before training a manifest; say what could make a
    resumed run differ."""
    from favor_lab.grpo.support.checkpoints import differences
    from favor_lab.study.leakage import save_training_images

    versions = folder.load("settings.json", {}).get("versions", {})
    for part in (folder.path, folder.adapter, folder.path / "policy"):
        sweep(part)
    folder.save_settings({**asdict(plan), "labels": list(shots.labels)}, policy.device)
    plan.write_config(folder.path / "run.toml")
    save_training_images(folder, shots.train, earlier)
    if not state.step:
        folder.save_manifest(0, start, identities(shots.test))
    if versions and (changes := differences(versions, folder.settings["versions"])):
        other = f"this run was started with different versions ({'; '.join(changes)})"
        note(f"{other}: from here on results may no longer be bit-identical")
    if folder.records() and not state.step:
        note(f"there is no checkpoint in {folder.checkpoint}: the run starts again at its first step")


def learn(
    plan: RunPlan,
    policy: Policy,
    shots: FewShot,
    folder: RunFolder,
    state: TrainingState,
    note: Tell = note,
    progress: bool = True,
    track: Callable[[StepRecord], None] | None = None,
) -> None:
    """Train to the last step; whatever ends it, the records and a checkpoint of all good steps are on the disk.

    What deserves a look in a record is said once per kind, as it comes up. track: receives the records as well.
    """
    from favor_lab.grpo.support.checkpoints import save_checkpoint
    from favor_lab.grpo.support.interrupts import uninterrupted
    from favor_lab.runs.notes import notes_on

    folder.rewind(state.step)
    kinds: set[str] = set()  # of notes that were given
    recorded, steps = state.step, plan.settings.steps
    records = training_records(plan, policy, shots, state)
    try:
        with progress_bar(records, plan.method, steps, unit="step", initial=state.step, show=progress) as bar:
            for record in bar:
                with uninterrupted() as raise_delayed:
                    folder.append(record)
                    recorded = record.step
                raise_delayed()
                if track:
                    track(record)
                for kind, text in notes_on(record, plan.settings).items():
                    if kind not in kinds:
                        note(f"step {record.step}: {text}")
                        kinds.add(kind)
                rewards = [f"{name.removesuffix('_reward')} {value:.2f}" for name, value in record.rewards.items()]
                bar.set_postfix_str(", ".join(rewards) or f"loss {record.loss:.3f}", refresh=False)
                if record.step % plan.checkpoint_every == 0:
                    save_checkpoint(folder.checkpoint, state)
    finally:
        if state.step and state.step == recorded and not state.out_of_range():  # a step without a record is repeated
            with uninterrupted() as raise_delayed:  # a second Ctrl-C waits, too
                save_checkpoint(folder.checkpoint, state)
            raise_delayed()


def training_records(plan: RunPlan, policy: Policy, shots: FewShot, state: TrainingState) -> Iterator[StepRecord]:
    """The records of the plan's training: of its recipe, or supervised fine-tuning."""
    from favor_lab.budget.memory import with_advice
    from favor_lab.recipes import find_recipe
    from favor_lab.study.sft import sft

    if not isinstance(plan.settings, GRPOSettings):
        return sft(policy, shots, plan.settings, resume=state)
    records = find_recipe(plan.recipe).train(policy, shots, plan.settings, resume=state)
    return with_advice(records, policy, plan.settings, shots)


def evaluate_start(
    plan: RunPlan,
    policy: Policy,
    shots: FewShot,
    folder: RunFolder,
    state: TrainingState,
    tell: Tell,
    progress: bool = True,
) -> dict[str, Evaluation]:
    """What the base answers to the test images, whatever was trained already; and, for a run that starts from an
    adapter, what that adapter answers, measured before the first step or not at all."""
    is_base = plan.policy.adapter is None and not state.step
    with nullcontext() if is_base else policy.reference():
        before = evaluate_test(plan, policy, shots, folder, "before", tell, again=False, progress=progress)
    if plan.policy.adapter is None:
        return {"zero-shot": before}
    if state.step and not evaluation_file(folder, "start").exists():  # a run of an earlier version
        return {"before": before}
    start = evaluate_test(plan, policy, shots, folder, "start", again=False, progress=progress)
    return {"zero-shot": before, "earlier adapter": start}


def evaluate_test(
    plan: RunPlan,
    policy: Policy,
    shots: FewShot,
    folder: RunFolder,
    when: str,
    tell: Tell = tell,
    again: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Greedy answers to the test images, and for GRPO (but for "start") one image sampled G times, its group saved and
    its answers printed; `again=False` takes what is on disk."""
    from favor_lab.study.evaluation import evaluate
    from favor_lab.study.groups import sample_judged_groups

    file, question = evaluation_file(folder, when), plan.question(shots.labels)
    if file.exists() and not again:
        return read_evaluation(file)
    if isinstance(plan.settings, GRPOSettings) and when != "start":
        # of the first sixteen images, the one whose group has the widest rewards before training; then the same one
        groups = folder.load("groups.json", {})
        examples = [e for e in shots.test[:16] if not groups or e.source == groups["before"]["source"]]
        judged = sample_judged_groups(policy, examples, question.labels, plan.settings)
        group = max(judged, key=lambda group: group.spread)
        folder.save("groups.json", groups | {when: group})
        tell(f"{group.source}, {group.label}, sampled {len(group.texts)} times {when} training: {group.summary()}")
    tokens, title = plan.settings.max_new_tokens, f"test images, {when}" if progress else None
    evaluation = evaluate(policy, shots.test, question.labels, question.style, tokens, progress=title)
    evaluation.save(file)
    return evaluation
