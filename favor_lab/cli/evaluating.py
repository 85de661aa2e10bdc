"""The command that tests: evaluate."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from favor_lab.arguments import check_choice, check_count, check_number
from favor_lab.cli.options import named_labels
from favor_lab.files import jsonable
from favor_lab.grpo.support.settings import Style, changed_settings
from favor_lab.runs.folders import new_run_folder
from favor_lab.runs.options import (
    DataOptions,
    FolderOptions,
    PolicyOptions,
    check_asked,
    check_outside,
    check_policy,
    open_policy,
    open_set,
)
from favor_lab.runs.predicting import NoLabels, Trained, other_base, read_trained
from favor_lab.runs.run import note, tell
from favor_lab.versions import need, versions

if TYPE_CHECKING:
    from favor_lab.activities.data import ActivityData
    from favor_lab.activities.images import Example


@dataclass(frozen=True)
class AskedSet:
    """The set's name; a class of its own, so that it comes first in the help."""

    data: str | None = None
    """Images: cartoon, sketch, thermal, cctv (drawn); with --root: folder (yours), stanford40, har15, ucf101, ppmi.
    None: those of the run, else cartoon."""


@dataclass(frozen=True)
class AskOptions(FolderOptions, AskedSet):
    """Which images, and how they are asked about."""

    run: Path | None = None
    """Folder of a finished run, or one that `favor-lab share` has written: its adapter, images, labels and style are
    taken, and images that it trained on are left out. With --adapter as well."""
    test: int | None = None  # Test images per label; None: as in the run, so the same images, else 8.
    labels: tuple[str, ...] = ()
    """Labels to choose from, whose images are tested; left out: those of the run, else those of the images."""
    style: str | None = None
    """Response: think (reasoning, then the answer), answer, or answer-first (then reasoning); None: as in the run, else
    think."""
    open_vocabulary: bool = False  # Ask without a list of labels.
    max_new_tokens: int | None = None  # Most tokens of a response; None: as in the run, else 64.
    batch_size: int = 32  # Images answered at a time; changes no greedy answer.
    samples: int = 0  # Also sample so many responses of each image: mean accuracy, pass@k, majority vote.
    temperature: float = 1.0  # Of the sampled responses.
    out: Path | None = None  # New folder for the answers, a confusion matrix and a report; left out: print only.
    json: bool = False  # Print one line of JSON and nothing else, for programs that read it.

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("test", "max_new_tokens", "batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=1)
        check_count("samples", self.samples)
        check_number("temperature", self.temperature, positive=True)
        if self.style is not None:
            check_choice("style", self.style, get_args(Style))


def evaluate(test: AskOptions, policy: PolicyOptions) -> None:
    """Ask a policy, or what a run trained, about the test images of a set; never about images that the run trained on.

    favor-lab evaluate --run runs/demo-cartoon --data sketch

    favor-lab evaluate --run runs/train-folder --root more_photos --out evaluated

    favor-lab evaluate --policy Qwen/Qwen2-VL-2B-Instruct --data stanford40 --root stanford40
    """
    from favor_lab.show.report import draw_figures, write_report
    from favor_lab.study.evaluation import evaluate
    from favor_lab.vlm.question import Question

    if test.out is not None:
        need("matplotlib", "the figures of a report")
    check_asked(policy)
    trained = who_is_tested(test, policy)
    data, images = images_to_test(test, trained)
    images, labels = labels_to_ask(test, images, trained)
    style, tokens = test.style or trained.style, test.max_new_tokens or trained.max_new_tokens
    question = Question(labels, style)
    check_outside(test.out, data.root)
    check_policy(trained.policy, trains=False)
    examples, left_out = unseen_examples(images, data, trained.policy)
    with new_run_folder(test.out, test.out) if test.out is not None else nullcontext() as folder:
        model = open_policy(trained.policy)
        if text := other_base(trained.policy, model):
            note(text)
        bar = None if test.json else "test images"
        sampling: dict[str, Any] = {"samples": test.samples, "temperature": test.temperature}
        result = evaluate(model, examples, question.labels, style, tokens, test.batch_size, bar, **sampling)
        if folder is not None:
            resolved = {**asdict(test), **asdict(data), "labels": labels, "style": style, "max_new_tokens": tokens}
            settings = {"command": "evaluate", "test": resolved, "policy": asdict(trained.policy)}
            settings["versions"] = versions()
            result.save(folder.path / "evaluation.json")
            evaluations, title = {model.name: result}, f"{model.name} on {data.root or data.data}"
            figures, path = draw_figures(folder.figures, evaluations, examples), folder.path / "report.html"
            report = write_report(path, title, evaluations, figures, settings, examples, left_out)
            folder.save("settings.json", settings)  # last: without it the folder is not complete
            if not test.json:
                tell(f"report   {report}")
    tell(json.dumps(jsonable(result.rates())) if test.json else result.summary())


def who_is_tested(test: AskOptions, policy: PolicyOptions) -> Trained:
    """The policy, and how it is asked: as the run says that --run or --adapter names, but for the options of the policy
    that are given. Its labels: None for an open vocabulary, [] where the images decide."""
    if test.run is not None and policy.adapter is not None:
        raise ValueError(f"--run {test.run} brings its own adapter: leave out --adapter {policy.adapter}")
    own, place = changed_settings(policy), test.run or policy.adapter
    trained = Trained(PolicyOptions(), [], "think", 64)
    if place is not None:
        try:
            try:
                trained = read_trained(place)
            except NoLabels:
                trained = replace(read_trained(place, needs_labels=False), labels=[])
            own.pop("adapter", None)  # the run's
        except FileNotFoundError:  # an adapter without its run; loading it says if it is none
            if test.run is not None:
                raise
    if trained.data is not None and trained.policy.adapter is None and "policy" in own:
        raise ValueError(f"{place} holds a checkpoint, not an adapter: leave out --policy {policy.policy}")
    return replace(trained, policy=replace(trained.policy, **own))


def images_to_test(test: AskOptions, trained: Trained) -> tuple[DataOptions, ActivityData]:
    """The set that is tested: that of the run, but for what the options say otherwise."""
    own = {item.name: getattr(test, item.name) for item in fields(DataOptions) if hasattr(test, item.name)}
    own = {name: value for name, value in own.items() if value is not None}
    data = DataOptions()
    if trained.data is not None and test.data in (None, trained.data.data):
        data = trained.data if test.root is None else replace(trained.data, exclude=None)
    data = replace(data, shots=1, test=data.test or DataOptions.test)
    data = replace(data, **own)
    return data, open_set(data)


def labels_to_ask(test: AskOptions, images: ActivityData, trained: Trained) -> tuple[ActivityData, list[str] | None]:
    """The images whose label can be answered, and the labels to choose from, or None for an open vocabulary."""
    from favor_lab.activities.fewshot import restrict
    from favor_lab.runs.notes import first_few

    labels = named_labels(test.labels) or trained.labels or []
    if labels and (unknown := [label for label in images.labels if label not in labels]):
        names = f"{len(unknown)} of the {len(images.labels)} labels of {images.name}"
        if not test.labels and (test.data is not None or test.root is not None):
            note(f"{names} are none of the run's ({first_few(unknown)}): the labels of the images are asked instead")
            labels = []
        elif len(unknown) == len(images.labels):
            raise ValueError(f"{images.name} has none of the labels {first_few(labels)}; it has {first_few(unknown)}")
        else:
            note(f"{names} are none of those that are asked ({first_few(unknown)}): their images are left out")
            images = restrict(images, [label for label in images.labels if label in labels])
    is_open = test.open_vocabulary or (trained.labels is None and not test.labels)
    return images, None if is_open else labels or list(images.labels)


def unseen_examples(images: ActivityData, data: DataOptions, policy: PolicyOptions) -> tuple[list[Example], list[str]]:
    """The test images that the policy was not trained on, and a note on those that are left out; ValueError if no image
    is left."""
    from favor_lab.activities.fewshot import few_shot
    from favor_lab.study.leakage import images_of, without_training_images

    drawn, start = few_shot(images, data.shots, validation=0, test=data.test).test, policy.start
    seen = images_of(policy.starts)
    if seen is None:
        if policy.adapter is not None:
            note(f"{start} does not say which images it was trained on: some of these may be among them")
        return drawn, []
    examples = without_training_images(drawn, seen)
    if len(examples) == len(drawn):
        return drawn, []
    notes = [f"{len(drawn) - len(examples)} of {len(drawn)} images are left out: {start} was trained on them"]
    if not examples:
        raise ValueError(f"{notes[0]}, so nothing is left to test: name other images, or more of them with --test")
    note(notes[0])
    return examples, notes
