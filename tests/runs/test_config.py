"""Config files: what a run writes runs it again, and what is wrong in one is named."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from favor_lab.cli import main, parser
from favor_lab.cli.parser import COMMANDS
from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.plan import RunPlan
from favor_lab.study.run_folder import RunFolder

SMALL = ["--shots", "1", "--test", "0", "--steps", "2", "--prompts-per-step", "1", "--max-new-tokens", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, unrendered):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def planned(monkeypatch):
    """Runs the command line without training; gives the plan that would be run."""
    plans = []

    def run_training(plan, out=None, *arguments, **options):
        plans.append(plan)

    monkeypatch.setattr("favor_lab.cli.training.run_training", run_training)

    def plan_of(*arguments: str) -> RunPlan:
        assert main(arguments) == 0
        return plans[-1]

    return plan_of


PLANS = {
    "defaults": RunPlan("train", DataOptions(), PolicyOptions(), GRPOSettings()),
    "everything": RunPlan(
        "train",
        DataOptions("folder", Path("my \"photos\" ä\\b"), 0.1, Path("bad=.txt"), 3, 0),
        PolicyOptions("Qwen/Qwen2-VL-2B-Instruct", "main", Path("-adapter"), 0, 8, "4bit", "cpu", "float16", 784),
        GRPOSettings(
            steps=7, learning_rate=1e-6, open_vocabulary=True, unbiased=False, clip_high=0.28, seed=-1,
            reward_weights=(1.0, 0.5), coefficients={"gamma": 0.02, "view": "flip", "none": None, "on": True},
        ),
        checkpoint_every=3,
        recipe="care",
        tracker="wandb",
    ),
    "sft": RunPlan("sft", DataOptions("sketch"), PolicyOptions(lora_rank=4), TrainSettings(steps=3), 5),
}  # fmt: skip


def test_a_folder_whose_name_is_not_utf8_leaves_the_file_readable(tmp_path, planned):
    """TOML holds no such name: the file says which option is missing."""
    root = Path(b"caf\xe9".decode(errors="surrogateescape"))
    plan = RunPlan("train", DataOptions("folder", root, shots=3), PolicyOptions(), GRPOSettings())
    path = plan.write_config(tmp_path / "run.toml")
    assert "# root is no text in UTF-8: name it on the command line" in path.read_text(encoding="utf-8")
    assert planned("train", "--config", str(path), "--root", "photos", "--test", "1").data.shots == 3


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_was_written_is_read_again(name, planned):
    plan = PLANS[name]
    plan.write_config(Path("run.toml"))
    assert planned(plan.command, "--config", "run.toml") == plan
    longer = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, steps=99))
    assert planned(plan.command, "--steps", "99", "--config=run.toml") == longer
    assert planned(plan.command, "--config", "run.toml", "--no-open-vocabulary").settings.open_vocabulary is False


def test_a_file_has_every_option_of_the_command_that_is_not_none():
    PLANS["everything"].write_config(Path("run.toml"))
    names = {item.name for kind in (DataOptions, PolicyOptions, GRPOSettings) for item in dataclasses.fields(kind)}
    values = tomllib.loads(Path("run.toml").read_text())
    assert {name.replace("-", "_") for name in values} == {*names, "checkpoint_every", "recipe", "tracker", "command"}
    assert values["learning-rate"] == 1e-6 and values["command"] == "train"


def test_a_file_by_hand_may_have_a_few_options_and_underscores(planned):
    Path("mine.toml").write_text('shots = 2\nmax_new_tokens = 8\nbeta = 0\nreward-weights = [1, 0.5]\nrecipe = ""\n')
    plan = planned("train", "--config", "mine.toml", "--shots", "3")
    expected = GRPOSettings(max_new_tokens=8, beta=0.0, reward_weights=(1.0, 0.5))
    assert plan == RunPlan("train", DataOptions(shots=3), PolicyOptions(), expected)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("stepz = 3", ["mine.toml", "favor-lab train has no option 'stepz'", "the closest is 'steps'"]),
        ("learning_rat = 3", ["'learning_rat'", "'learning-rate'"]),
        ("[settings]\nsteps = 3", ["no option 'settings'"]),
        ("steps = \nshots = 2", ["mine.toml is not a TOML file", "line 1"]),
        ('command = "sft"', ["mine.toml is for sft: use `favor-lab sft --config mine.toml`"]),
        ('steps = "many"', ["mine.toml has a value that its option cannot take: see above", "--steps"]),
        ("group-size = 1", ["group_size is 1"]),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text, fragments, capsys):
    Path("mine.toml").write_text(text)
    assert main(["train", "--config", "mine.toml"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert all(fragment in message for fragment in fragments), message
    assert not Path("runs").exists()


def test_no_file_and_a_run_to_resume(capsys):
    assert main(["train", "--config", "nowhere.toml"]) == 2
    assert "--config: there is no file nowhere.toml" in capsys.readouterr().err
    RunFolder.create("run").save("settings.json", PLANS["defaults"])
    Path("mine.toml").write_text("shots = 2")
    assert main(["train", "--resume", "run", "--config", "mine.toml"]) == 2
    assert "leave out --shots, --config" in capsys.readouterr().err


def test_only_commands_that_train_from_options_read_a_file(capsys):
    for command in sorted(COMMANDS.keys() - {"train", "sft"}):
        with pytest.raises(SystemExit):
            parser.main([command, "--help"])
        assert "--config" not in capsys.readouterr().out, command


@pytest.mark.slow
@pytest.mark.parametrize(("command", "more"), [("train", ["--group-size", "2", "--recipe", "care"]), ("sft", [])])
def test_a_run_from_the_file_of_a_run_has_the_same_records(command, more, tiny_checkpoint):
    assert main([command, "--policy", str(tiny_checkpoint), *SMALL, *more, "--out", "one"]) == 0
    assert main([command, "--config", "one/run.toml", "--out", "two"]) == 0
    one, two = ([record | {"seconds": None} for record in RunFolder.open(run).records()] for run in ("one", "two"))
    assert one == two and len(one) == 2
    assert Path("one/run.toml").read_text() == Path("two/run.toml").read_text()


@pytest.mark.slow
def test_the_file_of_a_demo_runs_it_again_as_train(tiny_checkpoint, monkeypatch, planned):
    plan = RunPlan("demo", DataOptions("sketch", shots=1), PolicyOptions(), GRPOSettings(steps=3))
    plan.write_config(Path("run.toml"))
    assert planned("train", "--config", "run.toml") == dataclasses.replace(plan, command="train")
