"""The plan of a run of training: everything that its settings.json says, also to resume it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import ArgumentError, check_count
from favor_lab.files import quoted
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings, TrainSettings
from favor_lab.runs.config import write_config
from favor_lab.runs.options import DataOptions, PolicyOptions, absolute
from favor_lab.runs.resuming import checked

if TYPE_CHECKING:
    from favor_lab.study.run_folder import RunFolder
    from favor_lab.vlm.question import Question


@dataclass(frozen=True)
class RunPlan:
    """A training run: everything that `settings.json` holds of it."""

    command: str  #: "train", "demo", "sft" or "profile"
    data: DataOptions
    policy: PolicyOptions
    settings: TrainSettings  #: GRPOSettings, or for "sft" TrainSettings
    checkpoint_every: int = 10
    recipe: str = ""  #: a published variant by its name in `favor_lab.recipes`, or "" for plain GRPO
    tracker: str | None = None  #: where the numbers of each step go as well, by its name in `favor_lab.runs.trackers`

    def __post_init__(self) -> None:
        check_count("checkpoint_every", self.checkpoint_every, least=1)

    @property
    def method(self) -> str:
        return "SFT" if self.command == "sft" else "GRPO"

    @property
    def title(self) -> str:
        return f"{self.data.shots}-shot {self.method}"

    def write_config(self, path: Path) -> Path:
        """Write the options as a config file of `favor-lab train` or sft; of a demo, the same run of train."""
        command = "sft" if self.command == "sft" else "train"
        run = {"checkpoint_every": self.checkpoint_every, "tracker": self.tracker}
        parts = {"images": asdict(self.data), "policy": asdict(self.policy), "training": asdict(self.settings)}
        method = {"method": {"recipe": self.recipe}} if command == "train" else {}
        return write_config(path, command, {**method, "run": run, **parts})

    def question(self, labels: Sequence[str]) -> Question:
        """What every image is asked. SFT teaches the answer alone, since few-shot labels come without reasoning."""
        from favor_lab.vlm.question import Question

        style = self.settings.style if isinstance(self.settings, GRPOSettings) else "answer"
        return Question.of(labels, self.settings.open_vocabulary, style)

    @classmethod
    def load(cls, saved: dict[str, Any]) -> RunPlan:
        """The plan that a run's settings.json describes."""
        kind = TrainSettings if saved["command"] == "sft" else GRPOSettings
        own = {item.name for item in fields(kind)}  # older runs of sft were saved with settings of GRPO
        settings = checked(kind, {name: value for name, value in saved["settings"].items() if name in own})
        data, policy = checked(DataOptions, saved["data"]), checked(PolicyOptions, saved["policy"])
        values = dict(data=data, policy=policy, settings=settings, command=saved["command"])
        values |= {name: saved[name] for name in ("recipe", "tracker") if name in saved}  # older runs have neither
        return checked(cls, values | {"checkpoint_every": saved["checkpoint_every"]})


def resume_command(plan: RunPlan, folder: RunFolder) -> str:
    """The command that resumes a run."""
    return f"favor-lab {'sft' if plan.method == 'SFT' else 'train'} --resume {quoted(folder.path)}"


def resumed_plan(
    folder: RunFolder, command: str, settings: Mapping[str, Any], moved: Mapping[str, Path] | None = None
) -> RunPlan:
    """The plan of an earlier run, with those of the new settings, by name, that may change on resume. moved: where its
    images are now, `root` and `exclude`. ValueError for a settings.json that is damaged."""
    try:
        plan = RunPlan.load(folder.settings)
    except (ArgumentError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.path / 'settings.json'} is damaged, or no run of training: {error!r}") from error
    data = replace(plan.data, **{name: absolute(path) for name, path in (moved or {}).items()})  # type: ignore[arg-type]
    if plan.command not in ("train", "demo", "sft"):
        raise ValueError(f"{folder.path / 'settings.json'} is damaged, or no run of training: {plan.command}")
    if (plan.command == "sft") != (command == "sft"):
        raise ValueError(f"{folder.path} is a run of {plan.command}: resume it with `{resume_command(plan, folder)}`")
    changes = {name: value for name, value in settings.items() if name in RESUMABLE_CHANGES}
    return replace(plan, settings=replace(plan.settings, **changes), data=data)
