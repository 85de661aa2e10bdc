"""Resume a run: whether its folder can be read, and whether images, settings and base are still those of the run. All
of it is checked before anything is written: a resume that is refused leaves the folder as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from favor_lab.activities.images import fingerprint
from favor_lab.files import write_json
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, TrainSettings
from favor_lab.study.run_folder import MANIFEST, RunFolder

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.grpo.support.checkpoints import TrainingState
    from favor_lab.study.evaluation import Evaluation
    from favor_lab.vlm.policy import Policy

Options = TypeVar("Options")
EVALUATIONS = ("before", "start", "after")
SET_BY_STEPS = {"coefficients", "style", "open_vocabulary"}  # settings that a recipe may change: the loop compares them


def evaluation_file(folder: RunFolder, when: str) -> Path:
    """The file of the answers before training, of the adapter to start from, or after training."""
    return folder.path / f"evaluation_{when}.json"


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation of a run. ValueError, with the file, for a damaged one."""
    from favor_lab.study.evaluation import Evaluation

    try:
        return Evaluation.load(path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged and cannot be read: {error!r}") from error


def identities(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Source -> label and fingerprint of the pixels, for the manifest."""
    return {example.source: [example.label, fingerprint(example.image).hex()] for example in examples}


def checked(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Options as they were saved. TypeError for a value of another type than its field's, or an unknown field."""
    hints = get_type_hints(kind)
    for name in values.keys() & hints.keys():
        if not fits(values[name], hints[name]):
            raise TypeError(f"{name} is {values[name]!r}")
    return kind(**values)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value, as JSON gives it, is of a type, or one of the choices of a Literal.

    >>> fits(3, float), fits(True, int), fits(None, Path | None), fits([0.5], tuple[float, ...]), fits("4", int)
    (True, False, True, True, False)
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is tuple:
        return isinstance(value, list | tuple) and all(fits(item, parts[0]) for item in value)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, {float: (int, float), Path: (str, Path)}.get(kind, kind))


# ------------------------------------------------------------------------------------ before images and policy are read


def check_files(folder: RunFolder, settings: TrainSettings, root: Path | None) -> None:
    """ValueError, with the file, for what is damaged, and for fewer steps than were done; FileNotFoundError for images
    that are no longer where they were."""
    from favor_lab.grpo.support.checkpoints import checkpoints, step_of
    from favor_lab.study.groups import JudgedGroup
    from favor_lab.study.leakage import FILE, training_images

    if root is not None and not Path(root).exists():
        raise FileNotFoundError(f"the images of the run in {folder.path} are no longer in {root}: name their --root")
    if not isinstance(folder.settings.get("versions", {}), dict):
        raise ValueError(f"{folder.path / 'settings.json'} is damaged: its versions are no object")
    done = max(map(step_of, checkpoints(folder.checkpoint)), default=0)
    if settings.steps < done:
        raise ValueError(f"the run in {folder.path} has done {done} steps: --steps {settings.steps} is less than that")
    folder.records()
    for path in (path for when in EVALUATIONS if (path := evaluation_file(folder, when)).exists()):
        read_evaluation(path)
    try:
        name = "groups.json"
        for group in folder.load(name, {}).values():
            JudgedGroup(**group)
        name = MANIFEST
        manifest = folder.load(name, {"base": {}, "test": {}})
        _ = manifest["base"].items(), manifest["test"].items()
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.path / name} is damaged and cannot be read: {error!r}") from error
    if (folder.path / FILE).exists():
        training_images(folder.path)


# ------------------------------------------------------------------------------------------------ before a file changes


def check_same(
    folder: RunFolder,
    state: TrainingState,
    settings: TrainSettings,
    shots: FewShot,
    base: Mapping[str, str],
    from_adapter: bool,
) -> dict[str, str]:
    """The names that images have now, by the names that they had. ValueError, with the file or with what differs, where
    records or evaluations are missing, or where images, settings or base are not those of the run."""
    from favor_lab.grpo.support.checkpoints import changed_files, new_names
    from favor_lab.study.leakage import FILE

    manifest: dict[str, Any] = folder.load(MANIFEST, {})  # empty: a run of an earlier version
    names: dict[str, str] = {}
    if state.step:
        check_records(folder, state.step)
        check_settings(folder, state.settings, settings)
        names |= state.check_images(shots.train)
        measured = ["before", "start"] if from_adapter else ["before"]
        needed = [evaluation_file(folder, when) for when in measured if shots.test] + [folder.path / FILE]
        for path in needed if manifest else ():
            if not path.exists():
                again = f"put it back, or start a new run with --config {folder.path / 'run.toml'}"
                raise FileNotFoundError(f"{path} is missing, which was written before training began: {again}")
    if manifest:
        then, now = manifest["test"], identities(shots.test)
        names |= new_names(then, now, f"the run in {folder.path} has other test images")
        # once training has begun, the adapter that it started from has no effect any more
        parts = (
            {n: of[n] for n in of if not (state.step and n.startswith("adapter/"))} for of in (manifest["base"], base)
        )
        if changed := changed_files(*parts):
            raise ValueError(f"the base of the run in {folder.path} is not what it was: {', '.join(changed)} changed")
    asked = [example.source for example in shots.test]
    for path in (path for when in EVALUATIONS if (path := evaluation_file(folder, when)).exists()):
        if [names.get(answer.source, answer.source) for answer in read_evaluation(path).answers] != asked:
            raise ValueError(f"{path} answers other images than the test images of the run are now")
    return names


def open_state(settings: TrainSettings, policy: Policy, folder: RunFolder) -> TrainingState:
    """The state to train from: a new one, or the last checkpoint of the run folder."""
    from favor_lab.grpo.support.checkpoints import TrainingState, checkpoints, load_checkpoint

    if checkpoints(folder.checkpoint):
        return load_checkpoint(folder.checkpoint, policy)
    return TrainingState.start(policy, settings)


def check_records(folder: RunFolder, step: int) -> None:
    """ValueError unless there is a record of each step that the checkpoint counts."""
    steps = [record.get("step") for record in folder.records()[:step]]
    if steps != [*range(1, step + 1)]:
        missing = next(i for i in range(1, step + 1) if steps[i - 1 : i] != [i])
        where = f"{folder.path / 'records.jsonl'} lacks the record of step {missing}"
        raise ValueError(f"{where}, and the checkpoint is of step {step}: put the file back as it was")


def check_settings(folder: RunFolder, then: TrainSettings, now: TrainSettings) -> None:
    """ValueError where settings.json says something else than the checkpoint."""
    from favor_lab.grpo.support.checkpoints import differences

    names = {item.name for item in fields(now)} - RESUMABLE_CHANGES - SET_BY_STEPS
    old, new = ({name: getattr(of, name, None) for name in names} for of in (then, now))
    if changes := differences(old, new):
        raise ValueError(f"{folder.path / 'settings.json'} is not that of the checkpoint: {'; '.join(changes)}")


# ---------------------------------------------------------------------------------------------------- images that moved


def rename_sources(folder: RunFolder, names: Mapping[str, str]) -> None:
    """Give images that have moved their new names in the evaluations and groups."""
    if all(old == new for old, new in names.items()):
        return
    for path in (*(evaluation_file(folder, when) for when in EVALUATIONS), folder.path / "groups.json"):
        if path.exists():
            write_json(path, with_names(folder.load(path.name), names))


def with_names(value: Any, names: Mapping[str, str]) -> Any:
    """JSON data in which each "source" has its new name.

    >>> with_names({"answers": [{"source": "old/a.png", "label": "old/a.png"}]}, {"old/a.png": "new/a.png"})
    {'answers': [{'source': 'new/a.png', 'label': 'old/a.png'}]}
    """
    if isinstance(value, list):
        return [with_names(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: names.get(item, item) if key == "source" else with_names(item, names) for key, item in value.items()}
