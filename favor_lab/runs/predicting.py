"""Ask what a run trained about new images: files, folders and patterns in, one row per image out."""

from __future__ import annotations

import csv
import glob
import io
import json
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from favor_lab.activities.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, as_example
from favor_lab.activities.labels import normalise_label
from favor_lab.files import write_whole
from favor_lab.grpo.rewards import extract_answer
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.resuming import fits
from favor_lab.study.run_folder import MANIFEST
from favor_lab.terminal import shown

if TYPE_CHECKING:
    from favor_lab.study.answering import Answer
    from favor_lab.vlm.policy import Policy

ASKED = ("steps", "style", "open_vocabulary", "max_new_tokens")  # settings that say how a run is asked


@dataclass(frozen=True)
class Trained:
    """How a run, or what was shared of one, is asked: options of its policy, what its question says, and its images."""

    policy: PolicyOptions
    labels: list[str] | None  #: None: an open vocabulary
    style: str
    max_new_tokens: int
    data: DataOptions | None = None  #: where its images are; without paths in what was shared


@dataclass(frozen=True)
class Prediction:
    """One row: an image file, and the answer or the reason why there is none."""

    path: str
    answer: Answer | None = None
    problem: str = ""
    trained_on: bool = False  #: whether the policy was trained on this very image

    def is_sure(self, threshold: float) -> bool:
        """Whether there is a label, and its probability is not below the threshold."""
        return self.answer is not None and (self.answer.probability or 0.0) >= threshold and bool(self.answer.label)

    def answers(self, name: str, style: str = "think") -> bool:
        """Whether the response's answer is this one, on the list of labels or not."""
        answer = extract_answer(self.answer.text, style) if self.answer else None
        return normalise_label(answer or "") == normalise_label(name)

    def line(self, threshold: float = 0.0) -> str:
        """Path, label, probability and reasoning on one line that any terminal can print."""
        row, given = self.row(threshold), self.answer
        share = "" if row["probability"] is None or row["problem"] else f" {row['probability']:.2f}"
        said = row["problem"] or (given.reasoning if given and given.reasoning else "")
        return "  ".join(filter(None, [shown(self.path), (shown(row["label"]) or "-") + share, shown(said)]))

    def row(self, threshold: float = 0.0) -> dict[str, Any]:
        """The columns of a table; the label is empty where the policy is not sure of it."""
        given = self.answer
        return {
            "path": self.path,
            "label": (given.label if given and self.is_sure(threshold) else "") or "",
            "probability": None if given is None or given.probability is None else round(given.probability, 4),
            "reasoning": (given.reasoning if given else "") or "",
            "response": given.text if given else "",
            "problem": self.problem or self.doubt(threshold),
        }

    def doubt(self, threshold: float) -> str:
        """Why an answered image has no label; empty where it has one."""
        if self.answer is None or self.is_sure(threshold):
            return ""
        if self.answer.label is None:
            return "the response names no label of the list" if self.answer.probabilities else "no answer"
        return f"not sure: {self.answer.label} has probability {self.answer.probability:.2f}"


class NoLabels(ValueError):
    """An older run, which does not say its labels."""


def read_trained(folder: str | Path, needs_labels: bool = True) -> Trained:
    """What a run folder, its adapter folder, or a folder written by `favor-lab share` says about how to ask. A warning
    if what it holds is of an earlier step than the run was to end with.

    Raises FileNotFoundError, saying what is missing, for another folder; ValueError, naming the file, for damaged
    settings; NoLabels if the labels are needed and not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    home = next((place for place in (folder, folder.parent) if (place / "settings.json").is_file()), None)
    adapter = next((p for p in (folder, folder / "adapter") if (p / "adapter_config.json").is_file()), None)
    whole = next((p for p in (folder, folder / "policy") if (p / "config.json").is_file()), None)
    if home is None or (adapter is None and whole is None):
        missing = "settings.json" if home is None else "adapter and no checkpoint (was the run finished?)"
        raise FileNotFoundError(f"{folder} is neither a run folder nor a shared one: it has no {missing}")
    saved = read_object(home / "settings.json")
    parts = {name: saved[name] for name in ("settings", "policy", "data") if saved.get(name) is not None}
    if wrong := [name for name, part in parts.items() if not isinstance(part, dict)]:
        raise ValueError(f"{home / 'settings.json'} is damaged: {wrong[0]} is {parts[wrong[0]]!r}")
    asked = {name: value for name, value in parts.get("settings", {}).items() if name in ASKED}
    settings = known_options(GRPOSettings, asked, home)
    options = known_options(PolicyOptions, parts.get("policy", {}), home)
    options |= {"policy": str(whole), "adapter": None} if adapter is None or whole == folder else {"adapter": adapter}
    is_open = settings.get("open_vocabulary") or not needs_labels
    labels = None if is_open else saved_labels(home, saved)
    style = "answer" if saved.get("command") == "sft" else settings.get("style", "think")
    data = known_options(DataOptions, parts.get("data", {}), home)
    for name in ("root", "exclude"):  # what was shared has no paths, but the last part of each
        path = Path(data.get(name) or "")
        data[name] = path if path.is_absolute() else None
    warn_of_an_earlier_step(home, settings.get("steps"))
    return Trained(PolicyOptions(**options), labels, style, settings.get("max_new_tokens", 64), DataOptions(**data))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; ValueError, naming the file, for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return content


def known_options(kind: type, saved: dict[str, Any], home: Path) -> dict[str, Any]:
    """Of some saved options, those that this version has. ValueError for one that has another type."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in saved}
    for name, hint in hints.items():
        if not fits(saved[name], hint):
            raise ValueError(f"{home / 'settings.json'} is damaged: {name} is {saved[name]!r}")
    return {name: saved[name] for name in hints}


def saved_labels(home: Path, saved: dict[str, Any]) -> list[str]:
    """The labels that a run was asked about: from its settings or, for older runs, from its evaluations."""
    for path in (home / "settings.json", *sorted(home.glob("evaluation_*.json"))):
        labels = (saved if path.name == "settings.json" else read_object(path)).get("labels") or []
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"{path} is damaged: labels is {labels!r}")
        if labels:
            return labels
    raise NoLabels(f"{home} does not say which labels were asked: name them with --labels")


def warn_of_an_earlier_step(home: Path, steps: int | None) -> None:
    """A warning if the weights of a run folder are not those of its last step: it was resumed and has not ended."""
    if steps is not None and (home / MANIFEST).is_file():
        done = read_object(home / MANIFEST).get("step")
        if done != steps:
            what = f"what {home} holds was trained for {done} of {steps} steps"
            warnings.warn(f"{what}: the run was resumed and has not ended (--resume {home})", stacklevel=3)


def other_base(options: PolicyOptions, policy: Policy) -> str:
    """What of the policy's base, by content, is not as it was when the adapter's run was trained on it, in a sentence;
    empty if nothing is, or if that is not known."""
    if options.adapter is None or not (manifest := options.adapter.parent / MANIFEST).is_file():
        return ""
    then, now = read_object(manifest).get("base"), policy.base_digests
    if not isinstance(then, dict) or not then.keys() & now.keys():
        return ""
    changed = ", ".join(name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name))
    return f"{options.adapter} was trained on another base than this {policy.name}: {changed} differ" if changed else ""


def image_paths(places: Sequence[str | Path]) -> list[str]:
    """The image files of some files, folders (searched to any depth) and patterns such as `photos/*.jpg`, in order and
    without duplicates. A file that is named is taken whatever its suffix.

    Raises FileNotFoundError for a place that does not exist, and for folders and patterns without an image.
    """
    paths: list[str] = []
    for place in map(str, places):
        if Path(place).is_dir():
            inside = sorted(str(path) for path in Path(place).rglob("*") if is_image_file(path))
        else:
            inside = (
                [place] if Path(place).exists() else sorted(filter(is_image_file, glob.glob(place, recursive=True)))
            )
        if not inside:
            kind = "no image in the folder" if Path(place).is_dir() else "no such file or folder, and no pattern of any"
            raise FileNotFoundError(f"{place}: {kind} (images end in {', '.join(sorted(IMAGE_SUFFIXES))})")
        paths += inside
    return list(dict.fromkeys(paths))


def is_image_file(path: str | Path) -> bool:
    """Whether the name is that of an image, also of one that must be converted first: it becomes a row that says how.
    Hidden files, such as those of macOS, are none."""
    path = Path(path)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts if part not in (".", ".."))
    return path.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES and not hidden and path.is_file()


def predict(
    policy: Policy,
    paths: Sequence[str],
    labels: Sequence[str] | None,
    style: str,
    max_new_tokens: int,
    batch_size: int,
    trained_on: Collection[str] = (),
) -> Iterator[Prediction]:
    """One Prediction per path, in order, `batch_size` images in memory at a time. A file that cannot be read is a row
    with its reason. trained_on: `leakage.training_images` of the policy."""
    from favor_lab.study.answering import answer
    from favor_lab.study.leakage import without_training_images

    for first in range(0, len(paths), batch_size):
        examples, problems = {}, {}
        for path in paths[first : first + batch_size]:
            try:
                examples[path] = as_example(path)
            except ValueError as error:
                problems[path] = str(error).removeprefix(f"{path}: ")
        answered, unseen = {}, without_training_images(list(examples.values()), trained_on)
        if examples:
            known = list(examples.values())
            answers = answer(policy, known, labels, style, max_new_tokens=max_new_tokens, batch_size=batch_size)
            answered = dict(zip(examples, answers, strict=True))
        for path in paths[first : first + batch_size]:
            is_seen = path in examples and not any(examples[path] is example for example in unseen)
            yield Prediction(path, answered.get(path), problems.get(path, ""), is_seen)


def write_csv(path: Path, predictions: Sequence[Prediction], threshold: float = 0.0) -> None:
    """A table that spreadsheets read, written atomically: UTF-8 with a byte order mark, one line per image."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(Prediction("").row()))
    table.writeheader()
    table.writerows(prediction.row(threshold) for prediction in predictions)
    write_whole(path, "\ufeff" + text.getvalue())


def as_json(prediction: Prediction, threshold: float = 0.0) -> str:
    """One line of JSON in ASCII, which any terminal can print: the columns of the table, and the probability of every
    label."""
    shares = prediction.answer.probabilities if prediction.answer else {}
    return json.dumps(prediction.row(threshold) | {"probabilities": shares})
