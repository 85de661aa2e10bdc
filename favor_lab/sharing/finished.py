"""Read a finished run for publication."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from favor_lab.activities.public.catalogue import PUBLIC
from favor_lab.activities.world.catalogue import DRAWN_SETS
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.run_folder import RunFolder
from favor_lab.vlm.hub import check_files, tensor_names

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
EVALUATIONS, PATHS = ("before", "start", "after"), (PurePosixPath, PureWindowsPath)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class FinishedRun:
    """What the files of a finished run say, without paths and without file names of somebody's own images."""

    settings: dict[str, Any]  # data, policy, settings and versions, as in `settings.json`
    evaluations: dict[str, Evaluation]  # "before", "start" (an earlier adapter) and "after", as far as they exist
    records: list[dict[str, Any]]  # one per optimiser step
    adapter: dict[str, Any] | None  # adapter_config.json, or None if the whole language model was trained
    base: str  # Hub name of the base model, "pocket", or the name of the folder that it was loaded from
    form: str  # what is exported: "adapter", "merged" or "whole"

    def part(self, name: str) -> dict[str, Any]:
        """One part of the settings; empty if the run did not save it."""
        return self.settings.get(name) or {}

    @property
    def method(self) -> str:
        return "SFT" if self.settings.get("command") == "sft" else "GRPO"

    @property
    def set_name(self) -> str:
        """The name of the data set, or of the folder of one's own images."""
        data = self.part("data")
        return str((data.get("root") if data.get("data") == "folder" else None) or data.get("data") or "images")

    @property
    def stage_names(self) -> dict[str, str]:
        """Names of the stages before and after training, the same as in the run's own report. Before is the base; an
        older run that started from an adapter, and so has no "start", measured that adapter there."""
        shots = self.part("data").get("shots")
        after = self.method if shots is None else f"{shots}-shot {self.method}"
        is_base = not self.part("policy").get("adapter") or "start" in self.evaluations
        return {"before": "zero-shot" if is_base else "before", "start": "earlier adapter", "after": after}

    @property
    def labels(self) -> list[str]:
        """The labels of the evaluations, the settings or the records; empty if the run folder has none of them."""
        for evaluation in self.evaluations.values():
            return evaluation.labels
        if self.settings.get("labels"):
            return list(self.settings["labels"])
        return sorted({label for record in self.records for label in record.get("labels") or {}})

    @property
    def on_hub(self) -> bool:
        return HUB_NAME.fullmatch(self.base) is not None

    @property
    def title(self) -> str:
        relation = "LoRA adapter for" if self.form == "adapter" else "trained from"
        return f"{self.stage_names['after']} on {self.set_name}, {relation} {self.base}"


# ------------------------------------------------------------------------------------------------------------- reading


def read_run(run: RunFolder | str | Path, base_model: str | None = None, merged: bool = False) -> FinishedRun:
    """Read a run folder. base_model: Hub name of the base, for a run that loaded it from a folder. FileNotFoundError or
    ValueError if this is no run folder, if the run stopped before its last step, if its results are not of one step, or
    if files are missing or damaged."""
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    settings = _read_settings(run)
    if settings.get("command") == "evaluate":
        raise ValueError(f"{run.path} is a folder of `favor-lab evaluate`: nothing was trained there")
    records = _read_records(run)
    steps, done = (settings.get("settings") or {}).get("steps"), records[-1]["step"] if records else 0
    resume = f"favor-lab {'sft' if settings.get('command') == 'sft' else 'train'} --resume {run.path}"
    if steps is not None and done < steps:  # even with an adapter: that one is from an earlier end
        raise ValueError(
            f"the run in {run.path} stopped after step {done} of {steps}: go on with `{resume}`, then share"
        )
    if not run.adapter.exists() and not (run.path / "policy").exists():
        raise FileNotFoundError(f"the run in {run.path} has no adapter folder: `{resume}` or `policy.save` writes it")
    run.check_results()
    is_whole_model = (run.path / "policy" / "config.json").is_file() and not run.adapter.exists()
    if is_whole_model:
        check_files(run.path / "policy", str(run.path / "policy"))
    adapter = None if is_whole_model else _read_adapter(run)
    if base_model is not None and not HUB_NAME.fullmatch(base_model):
        raise ValueError(f"base_model is {base_model!r}, but must be a Hub name such as Qwen/Qwen2-VL-2B-Instruct")
    policy, data = settings.get("policy") or {}, settings.get("data") or {}
    loaded_from = str(policy.get("policy") or (adapter or {}).get("base_model_name_or_path") or "unknown")
    is_name = loaded_from == "pocket" or (HUB_NAME.fullmatch(loaded_from) and not Path(loaded_from).exists())
    base = base_model or (loaded_from if is_name else last_part(loaded_from))
    read = ((when, _read_evaluation(run, f"evaluation_{when}.json", resume)) for when in EVALUATIONS)
    evaluations = {when: evaluation for when, evaluation in read if evaluation is not None}
    evaluations = {when: replace(e, policy=base) for when, e in public_sources(evaluations, data).items()}
    form = "whole" if is_whole_model else "merged" if merged else "adapter"
    return FinishedRun(_public_settings(settings, base), evaluations, records, adapter, base, form)


def _read_json(run: RunFolder, name: str) -> dict[str, Any]:
    """A JSON object of the run folder; empty if there is no such file."""
    content = run.load(name, {})
    if not isinstance(content, dict):
        raise ValueError(f"{run.path / name} is not as `favor-lab` writes it: it holds no object")
    return content


def _read_settings(run: RunFolder) -> dict[str, Any]:
    """The settings, after a check that what the card computes with has its type."""
    settings = _read_json(run, "settings.json")
    parts = {name: settings.get(name) or {} for name in ("data", "policy", "settings", "versions")}
    wrong = [name for name, part in parts.items() if not isinstance(part, dict)]
    labels = settings.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        wrong.append("labels")
    if not wrong and not isinstance(parts["settings"].get("steps"), int | None):
        wrong.append("steps")
    if wrong:
        raise ValueError(f"{run.path / 'settings.json'} is not as `favor-lab` writes it: look at {', '.join(wrong)}")
    return settings


def _read_records(run: RunFolder) -> list[dict[str, Any]]:
    """The records, after a check that each is one, and that those of all steps so far are there."""
    records, place = run.records(), run.path / "records.jsonl"
    for number, record in enumerate(records, start=1):
        if not _is_record(record):
            raise ValueError(f"{place} is not as `favor-lab` writes it: look at line {number}")
        if record["step"] != number:
            raise ValueError(f"{place} is damaged: line {number} is the record of step {record['step']}")
    return records


def _is_record(record: Any) -> bool:
    """Whether the card can compute with a line of records.jsonl."""
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return False
    seconds, labels = record.get("seconds") or {}, record.get("labels") or {}
    if not isinstance(seconds, dict) or not isinstance(labels, dict):
        return False
    counts = [counts.get(name, 0) if isinstance(counts, dict) else "" for counts in labels.values()
              for name in ("completions", "right")]  # fmt: skip
    optional = [record.get(name) or 0 for name in ("reward", "flat_groups")]
    return all(isinstance(value, int | float) for value in (*seconds.values(), *counts, *optional))


def _read_evaluation(run: RunFolder, name: str, resume: str) -> Evaluation | None:
    """An evaluation of the run folder; None if there is no such file."""
    if not (content := _read_json(run, name)):
        return None
    try:
        return Evaluation.from_dict(content)
    except ValueError as error:
        advice = f"delete it and go on with `{resume}`, which measures again"
        raise ValueError(
            f"the answers in {run.path / name} are not as `favor-lab` writes them ({error}): {advice}"
        ) from error


def _read_adapter(run: RunFolder) -> dict[str, Any]:
    """The adapter's configuration, after a check that its weights are LoRA weights and complete."""
    for name in (CONFIG, WEIGHTS):
        if not (run.adapter / name).is_file():
            raise FileNotFoundError(f"the adapter in {run.adapter} is incomplete: it has no {name}; save it again")
    if not any("lora_" in name for name in tensor_names(run.adapter / WEIGHTS, str(run.adapter / WEIGHTS))):
        raise ValueError(f"{run.adapter / WEIGHTS} holds no LoRA weights")
    return _read_json(run, f"{run.adapter.name}/{CONFIG}")


# ------------------------------------------------------------------------------------------------------- without paths


def last_part(path: str) -> str:
    r"""The last name in a path of either kind (POSIX or Windows), which says nothing about the machine.

    >>> last_part("/home/me/my photos/"), last_part(r"C:\me\photos"), last_part("..")
    ('my photos', 'photos', 'folder')
    """
    name = PureWindowsPath(path).name  # splits at / and at \
    return name if name not in ("", "..") else "folder"


def without_paths(value: Any) -> Any:
    """JSON data in which each absolute path is cut to its last name.

    >>> without_paths({"root": "/home/me/photos", "names": ["Qwen/Qwen2-VL-2B-Instruct", 3]})
    {'root': 'photos', 'names': ['Qwen/Qwen2-VL-2B-Instruct', 3]}
    """
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and (value.startswith("~") or any(kind(value).is_absolute() for kind in PATHS)):
        return last_part(value)
    return value


def _public_settings(settings: dict[str, Any], base: str) -> dict[str, Any]:
    """The settings of a run without any path, relative ones included."""
    public = without_paths(settings)
    for part, name in (("data", "root"), ("data", "exclude"), ("policy", "adapter")):
        if (public.get(part) or {}).get(name):
            public[part][name] = last_part(str(public[part][name]))
    if public.get("policy"):
        public["policy"]["policy"] = base
    if "platform" in (public.get("versions") or {}):
        public["versions"]["platform"] = machine_kind(str(public["versions"]["platform"]))
    return public


def machine_kind(platform: str) -> str:
    """System and processor of `platform.platform()`, without the kernel's name, which may be the owner's.

    >>> machine_kind("Linux-6.1.0-annas-laptop-x86_64-with-glibc2.36"), machine_kind("macOS-14.5-arm64-arm-64bit")
    ('Linux, x86_64', 'macOS, arm64')
    """
    processor = re.search(r"x86_64|AMD64|aarch64|arm64|ppc64le|riscv64", platform)
    return ", ".join([platform.split("-")[0], *([processor[0]] if processor else [])])


def public_sources(evaluations: Mapping[str, Evaluation], data: Mapping[str, Any]) -> dict[str, Evaluation]:
    """The evaluations with image sources that may be published: drawn scenes keep their keys, images of a public set
    their path under its root; those of somebody's own folder are named by label and number, since file names can
    identify people."""
    if data.get("data") in DRAWN_SETS:
        return dict(evaluations)
    root, counts, public_names = data.get("root"), Counter[str](), dict[str, str]()
    for answer in (answer for evaluation in evaluations.values() for answer in evaluation.answers):
        path = PurePosixPath(answer.source)
        if answer.source in public_names:
            continue
        if data.get("data") in PUBLIC and root and path.is_relative_to(root):
            public_names[answer.source] = path.relative_to(root).as_posix()
        else:
            counts[answer.label] += 1
            public_names[answer.source] = f"{answer.label}/{counts[answer.label]:03d}"
    return {
        when: replace(evaluation, answers=[replace(a, source=public_names[a.source]) for a in evaluation.answers])
        for when, evaluation in evaluations.items()
    }
