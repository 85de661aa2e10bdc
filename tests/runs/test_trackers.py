"""Trackers: TensorBoard for real, Weights & Biases and Trackio through fakes with their signatures. Nothing is sent."""

import json
import math
import sys
import types
from pathlib import Path

import pytest

from favor_lab.cli import main
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.runs.trackers import TRACKERS, numbers_of, open_tracker
from favor_lab.study.run_folder import RunFolder

pytestmark = pytest.mark.slow  # each trains, or asks what was trained

SMALL = ["--shots", "1", "--test", "0", "--prompts-per-step", "1", "--max-new-tokens", "2", "--group-size", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, unrendered):
    monkeypatch.chdir(tmp_path)


class Calls(list):
    """Every call of a fake, in order: name, then arguments by name."""

    def called(self, function: str, /, **arguments) -> None:
        self.append((function, arguments))

    def of(self, name: str) -> list[dict]:
        return [arguments for called, arguments in self if called == name]


@pytest.fixture
def fake(monkeypatch):
    """Installs a module of a name with some functions; `need` looks for its specification."""

    def install(name: str, **functions) -> None:
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return install


@pytest.fixture
def calls(fake) -> Calls:
    calls = Calls()

    class Run:
        def log(self, data, step=None):
            calls.called("wandb.log", data=data, step=step)

        def finish(self):
            calls.called("wandb.finish")

    def wandb_init(*, project, name, dir, config, settings):
        calls.called("wandb.init", project=project, name=name, dir=dir, config=config, settings=settings)
        return Run()

    def trackio_init(project, name=None, *, config=None):
        calls.called("trackio.init", project=project, name=name, config=config)
        print("* a line of trackio's own")

    def trackio_log(metrics, step=None):
        calls.called("trackio.log", data=metrics, step=step)

    fake("wandb", init=wandb_init)
    fake("trackio", init=trackio_init, log=trackio_log, finish=lambda: calls.called("trackio.finish"))
    return calls


def train(tiny_checkpoint, *more: str) -> int:
    return main(["train", "--policy", str(tiny_checkpoint), *SMALL, *more])


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_each_step_of_a_run_is_logged_once(name, calls, tiny_checkpoint):
    assert train(tiny_checkpoint, "--steps", "3", "--tracker", name, "--out", "mine") == 0
    (start,), logged, records = calls.of(f"{name}.init"), calls.of(f"{name}.log"), RunFolder.open("mine").records()
    assert (start["project"], start["name"]) == ("favor-lab", "mine") and start["config"]["group_size"] == 2
    assert [call["step"] for call in logged] == [1, 2, 3]
    assert [call["data"]["loss"] for call in logged] == [record["loss"] for record in records]
    assert [call["data"]["rewards/format_reward"] for call in logged] == [
        r["rewards"]["format_reward"] for r in records
    ]
    assert calls[-1] == (f"{name}.finish", {}) and len(calls) == 5
    assert RunFolder.open("mine").settings["tracker"] == name


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_nothing_but_numbers_and_settings_is_handed_on(name, calls, tiny_checkpoint):
    assert train(tiny_checkpoint, "--steps", "1", "--tracker", name, "--out", "mine") == 0
    (logged,) = calls.of(f"{name}.log")
    assert all(isinstance(value, int | float) for value in logged["data"].values())
    (start,) = calls.of(f"{name}.init")
    directory = start.pop("dir", None)
    assert directory is None or Path(directory) == Path("mine").resolve()
    assert str(tiny_checkpoint.parent) not in json.dumps(start)
    assert name == "trackio" or start["settings"] == {
        "console": "off", "disable_git": True, "disable_code": True, "x_disable_meta": True,
    }  # fmt: skip


def test_a_resumed_run_goes_on_with_its_tracker_or_another_one(calls, tiny_checkpoint):
    assert train(tiny_checkpoint, "--steps", "2", "--tracker", "wandb", "--out", "mine") == 0
    calls.clear()
    assert main(["train", "--resume", "mine", "--steps", "3"]) == 0
    assert [call["step"] for call in calls.of("wandb.log")] == [3]
    assert main(["train", "--resume", "mine", "--steps", "4", "--tracker", "trackio"]) == 0
    assert [call["step"] for call in calls.of("trackio.log")] == [4]


def test_a_run_that_ends_in_an_error_closes_its_tracker(calls, tiny_checkpoint, monkeypatch):
    def append(self, record):
        raise OSError("the disk is full")

    monkeypatch.setattr(RunFolder, "append", append)
    assert train(tiny_checkpoint, "--steps", "2", "--tracker", "trackio") == 2
    assert [name for name, _ in calls] == ["trackio.init", "trackio.finish"]


def test_a_tracker_that_cannot_start_is_one_line_and_no_training(fake, tiny_checkpoint, capsys):
    def init(**options):
        raise Exception("api_key not configured (no-tty)")

    fake("wandb", init=init)
    assert train(tiny_checkpoint, "--steps", "2", "--tracker", "wandb", "--out", "mine") == 2
    assert "favor-lab: error: --tracker wandb cannot start: api_key not configured" in capsys.readouterr().err
    assert not Path("mine/records.jsonl").exists()


@pytest.mark.parametrize("command", ["train", "sft", "demo"])
@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_the_line_that_installs_it(command, name, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None if package == name else object())
    assert main([command, "--tracker", name]) == 2
    package = "trackio, in an environment of its own" if name == "trackio" else f"'favor-lab[{name}]'"
    expected = f"favor-lab: error: --tracker {name} needs {name}: pip install {package}"
    assert capsys.readouterr().err.startswith(expected) and not Path("runs").exists()


def test_the_help_says_who_may_send_what(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    output = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "{None,tensorboard,wandb,trackio}" in output and "wandb and trackio may send to their servers" in output
    with pytest.raises(SystemExit):
        main(["train", "--tracker", "mlflow"])


def test_a_quiet_run_hides_what_a_tracker_prints(calls, tiny_checkpoint, capsys):
    assert train(tiny_checkpoint, "--steps", "1", "--tracker", "trackio", "--quiet", "--out", "mine") == 0
    assert capsys.readouterr().out == "ask it       favor-lab predict IMAGE --run mine\n" and len(calls) == 3


def test_without_a_tracker_none_is_imported(tiny_checkpoint, monkeypatch):
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)  # importing it would be an error
    assert train(tiny_checkpoint, "--steps", "1", "--out", "mine") == 0


def test_tensorboard_reads_what_a_run_wrote(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_tracker("tensorboard", tmp_path, GRPOSettings(), 0)
    for step in (1, 2, 3):
        first.track(StepRecord(step, loss=1 / step, kl=math.nan, rewards={"format_reward": 0.5}))
    first.close()
    resumed = open_tracker("tensorboard", tmp_path, GRPOSettings(), 2)  # from the checkpoint of step 2
    resumed.track(StepRecord(3, loss=7.0))
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, round(event.value, 4)) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 7.0)]
    assert [event.value for event in events.Scalars("rewards/format_reward")] == [0.5, 0.5]
    assert "kl" not in events.Tags()["scalars"]


@pytest.mark.slow
def test_a_run_writes_tensorboard_files_into_its_folder(tiny_checkpoint):
    pytest.importorskip("tensorboard")
    assert train(tiny_checkpoint, "--steps", "2", "--tracker", "tensorboard", "--out", "mine") == 0
    assert len(list(Path("mine/tensorboard").glob("events.*"))) == 1


def test_every_number_of_a_record_has_a_name():
    record = StepRecord(4, loss=0.5, seconds={"sample": 1.5}, metrics={"bounded": 2.0}, labels={"a": {"right": 1}})
    assert numbers_of(record) == {
        "loss": 0.5, "rows": 0, "tokens": 0, "update": 0, "seconds/sample": 1.5, "metrics/bounded": 2.0,
    }  # fmt: skip
