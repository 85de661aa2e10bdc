"""Trackers: the numbers of each step record for TensorBoard, Weights & Biases or Trackio, beside `records.jsonl`.

Numbers and settings alone are handed on: no completions, no images, no names of files or labels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from favor_lab.files import jsonable
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import TrainSettings
from favor_lab.versions import need

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "favor-lab"


class Tracker(NamedTuple):
    """Where numbers go: `log(numbers, step)` for each step, then `close()`."""

    log: Callable[[dict[str, float], int], object] = lambda numbers, step: None
    close: Callable[[], object] = lambda: None

    def track(self, record: StepRecord) -> None:
        """Hand on the numbers of a record."""
        self.log(numbers_of(record), record.step)


def numbers_of(record: StepRecord) -> dict[str, float]:
    """The numbers of a record by name, without those that do not exist, the step, and what is known per label.

    >>> numbers_of(StepRecord(step=3, loss=0.5, rewards={"format_reward": 1.0}, rows=8, tokens=40))
    {'loss': 0.5, 'rows': 8, 'tokens': 40, 'update': 0, 'rewards/format_reward': 1.0}
    """
    fields = record.to_dict()
    numbers = {name: value for name, value in fields.items() if isinstance(value, int | float) and name != "step"}
    for part in ("rewards", "seconds", "metrics"):
        numbers |= {f"{part}/{name}": value for name, value in fields[part].items() if value is not None}
    return numbers


def tensorboard(folder: Path, settings: dict[str, Any], step: int) -> Tracker:
    """Files in FOLDER/tensorboard: `tensorboard --logdir runs` shows them."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, flush_secs=10)

    def log(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return Tracker(log, writer.close)


def wandb(folder: Path, settings: dict[str, Any], step: int) -> Tracker:
    """Files in FOLDER/wandb, sent to wandb's server unless WANDB_MODE=offline; without code, output or machine."""
    import wandb

    private = {"console": "off", "disable_git": True, "disable_code": True, "x_disable_meta": True}
    run = wandb.init(project=PROJECT, name=folder.name, dir=str(folder), config=settings, settings=private)
    return Tracker(lambda numbers, step: run.log(numbers, step=step), run.finish)


def trackio(folder: Path, settings: dict[str, Any], step: int) -> Tracker:
    """Trackio's own folder of this machine (`trackio show`), or the server that its environment variables name."""
    import trackio

    trackio.init(project=PROJECT, name=folder.name, config=settings)
    return Tracker(lambda numbers, step: trackio.log(numbers, step=step), trackio.finish)


TRACKERS: dict[str, Callable[[Path, dict[str, Any], int], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "trackio": trackio,
}


def need_tracker(name: str | None) -> None:
    """ValueError for an unknown tracker; ImportError, with the command that installs it, for one that is missing."""
    if name is None:
        return
    if name not in TRACKERS:
        raise ValueError(f"unknown tracker {name!r}; the trackers are {', '.join(TRACKERS)}")
    if name == "trackio" and importlib.util.find_spec(name) is None:
        raise ImportError(
            "--tracker trackio needs trackio: pip install trackio, in an environment of its own: it brings Pillow 12, "
            "and favor-lab asks for 13, which pip will say"
        )
    need(name, f"--tracker {name}", extra=name)


def open_tracker(name: str | None, folder: Path, settings: TrainSettings, step: int) -> Tracker:
    """The tracker of a run that has done so many steps; without a name, one that does nothing. RuntimeError, with the
    package's own words, if it cannot start."""
    if name is None:
        return Tracker()
    try:
        return TRACKERS[name](folder.resolve(), jsonable(asdict(settings)), step)
    except Exception as error:
        raise RuntimeError(f"--tracker {name} cannot start: {error}") from error
