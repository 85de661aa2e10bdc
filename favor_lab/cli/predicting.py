"""The commands about new images: predict, app."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tyro.conf import Positional

from favor_lab.arguments import ArgumentError, check_choice, check_count
from favor_lab.cli.options import check_file, named_labels
from favor_lab.grpo.support.settings import Style, changed_settings
from favor_lab.runs.options import PolicyOptions, check_asked, check_policy, open_policy
from favor_lab.runs.predicting import Trained
from favor_lab.runs.run import note, tell


@dataclass(frozen=True, kw_only=True)
class NewImageOptions:
    """Who is asked, and what."""

    run: Path | None = None
    """Folder of a finished run, or one that `favor-lab share` has written: its adapter, labels and style are taken.
    None: the policy without training."""
    labels: tuple[str, ...] = ()
    """Labels to choose from; left out: those of the run; for the pocket policy without a run, its 16 activities."""
    open_vocabulary: bool = False  # Ask without a list of labels.
    style: str | None = None
    """Response: think (reasoning, then the answer), answer, or answer-first (then reasoning); None: as in the run, else
    think."""
    max_new_tokens: int | None = None  # Most tokens of a response; None: as in the run, else 64.

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None:
            check_count("max_new_tokens", self.max_new_tokens, least=1)
        if self.style is not None:
            check_choice("style", self.style, get_args(Style))
        if self.labels and self.open_vocabulary:
            raise ArgumentError("labels", "labels are to choose from, and --open-vocabulary names none: leave one out")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(NewImageOptions):
    """Which images, and who is asked."""

    paths: Positional[tuple[str, ...]]  # Image files, folders (searched to any depth), or patterns in quotes.
    threshold: float = 0.0  # Give no label where its probability is lower: 0 to 1.
    csv: Path | None = None  # Also write a table to this new file: path, label, probability, reasoning, problem.
    json: bool = False  # Print one line of JSON per image and nothing else, for programs that read it.
    batch_size: int = 16  # Images answered at a time; changes no result.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.threshold <= 1.0:
            message = f"--threshold is {self.threshold}, but a probability is between 0 and 1"
            raise ArgumentError("threshold", message)
        if self.csv is not None:
            check_file("csv", self.csv, new=True)
        check_count("batch_size", self.batch_size, least=1)


@dataclass(frozen=True, kw_only=True)
class PageOptions(NewImageOptions):
    """Who is asked, and where the page is."""

    port: int | None = None  # Port on this machine; None: the first that is free from 7860 on.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.port is not None:
            check_count("port", self.port, least=1, most=65535)


def predict(images: PredictOptions, policy: PolicyOptions) -> None:
    """What does the policy see in new images? Label, probability and reasoning of each.

    favor-lab predict my_photos --run runs/train-folder --csv answers.csv

    favor-lab predict photo.jpg --run runs/train-folder --threshold 0.5

    favor-lab predict 'photos/*.jpg' --policy Qwen/Qwen2-VL-2B-Instruct --labels reading cooking "riding a bike"

    The probability is that of the label among all labels, after the response's own reasoning. A file that cannot be
    read is a line with its reason; the exit status is 1 if no image could be answered. The pocket policy knows drawn
    scenes alone: it answers photographs with "nothing to see".
    """
    from tqdm import tqdm

    from favor_lab.activities.world import NOTHING
    from favor_lab.runs.predicting import as_json, image_paths, other_base, write_csv
    from favor_lab.runs.predicting import predict as predictions_of
    from favor_lab.study.leakage import images_of

    asked, paths = who_is_asked(images, policy), image_paths(images.paths)
    seen = images_of(asked.policy.starts) or ()
    model, predictions = open_policy(asked.policy), []
    if text := other_base(asked.policy, model):
        note(text)
    answers = predictions_of(model, paths, asked.labels, asked.style, asked.max_new_tokens, images.batch_size, seen)
    for prediction in tqdm(answers, "predict", len(paths), unit="image", leave=False, disable=None):
        predictions.append(prediction)
        tell(as_json(prediction, images.threshold) if images.json else prediction.line(images.threshold))
    if images.csv is not None:
        write_csv(images.csv, predictions, images.threshold)
    sure = sum(prediction.is_sure(images.threshold) for prediction in predictions)
    if not images.json:
        tell(
            f"{sure} of {len(predictions)} images have a label" + f"; table in {images.csv}" * (images.csv is not None)
        )
    if known := [prediction.path for prediction in predictions if prediction.trained_on]:
        who = f"{images.run or asked.policy.start} was trained on {len(known)} of these images, the first is {known[0]}"
        note(f"{who}: what it answers there says nothing about new images")
    declined = [prediction.path for prediction in predictions if prediction.answers(NOTHING, asked.style)]
    if declined and asked.policy.policy == "pocket":
        what = f"{len(declined)} of {len(paths)} images are answered {NOTHING!r}, the first is {declined[0]}"
        note(f"{what}: the pocket policy knows drawn scenes alone; for photographs name another one, --policy")
    unread = [prediction.path for prediction in predictions if prediction.answer is None]
    if unread:
        note(f"{len(unread)} of {len(paths)} files could not be read, the first is {unread[0]}")
    if len(unread) == len(predictions):
        raise SystemExit(1)


def app(images: PageOptions, policy: PolicyOptions) -> None:
    """A page in your browser: drop an image, and answer, probability and reasoning appear.

    favor-lab app

    favor-lab app --run runs/train-folder --port 7860

    Only browsers on this machine reach the page, and nothing leaves it. It needs gradio, in an environment of its own:
    gradio admits no Pillow 13, whose decoders favor_lab requires for images of strangers. The error of this command
    without gradio names the commands that install both. There, open only images that you trust.
    """
    from favor_lab.show.page import build_page, import_gradio, serve_page
    from favor_lab.vlm.question import Question

    import_gradio()  # before weights are loaded
    asked = who_is_asked(images, policy)
    question = Question(asked.labels, asked.style)
    title = f"favor_lab: {images.run or f'{asked.policy.policy} without training'}"
    serve_page(build_page(open_policy(asked.policy), question, asked.max_new_tokens, title), images.port, tell)


def who_is_asked(images: NewImageOptions, policy: PolicyOptions) -> Trained:
    """The policy and the question: those of the run, but for what the options say otherwise."""
    from favor_lab.activities.world import ACTIVITIES
    from favor_lab.runs.predicting import read_trained
    from favor_lab.vlm.question import Question

    check_asked(policy)
    if images.run is not None:
        trained = read_trained(images.run, needs_labels=not images.labels and not images.open_vocabulary)
    else:
        trained = Trained(PolicyOptions(), list(ACTIVITIES) if policy.policy == "pocket" else None, "think", 64)
        if policy.policy != "pocket" and not images.labels and not images.open_vocabulary:
            raise ValueError(
                "without a run the labels must be named: --labels reading cooking ..., or --open-vocabulary"
            )
    labels = named_labels(images.labels) or trained.labels
    question = Question(None if images.open_vocabulary else labels, images.style or trained.style)  # refuses bad ones
    asked_policy = dataclasses.replace(trained.policy, **changed_settings(policy))
    check_policy(asked_policy, trains=False)
    return Trained(
        asked_policy,
        None if question.labels is None else list(question.labels),
        question.style,
        images.max_new_tokens or trained.max_new_tokens,
    )
