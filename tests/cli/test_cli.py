"""The command line from beginning to end, on a tiny checkpoint and on images of other sizes, modes and suffixes."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import forks
import trees
from favor_lab.cli import main
from favor_lab.cli.options import CardOptions
from favor_lab.cli.parser import COMMANDS
from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings
from favor_lab.recipes import RECIPES
from favor_lab.runs.cells import Result
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.run_folder import RunFolder
from favor_lab.threads import WAITING
from pictures import picture

KINDS = [("RGB", ".jpg", (90, 60)), ("RGBA", ".PNG", (56, 120)), ("P", ".gif", (64, 64)), ("L", ".Bmp", (140, 70)),
         ("1", ".tiff", (40, 40)), ("RGB", ".webp", (30, 200))]  # fmt: skip
LABELS = ["riding_a_bike", "reading", "phoning"]
SMALL = ["--shots", "2", "--test", "1", "--steps", "3", "--prompts-per-step", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, unrendered):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path) -> Path:
    for row, label in enumerate(LABELS):
        for column, (mode, suffix, size) in enumerate(KINDS):
            picture(tmp_path / "photos" / label / f"{column}{suffix}", 10 * row + column, mode, size)
    return tmp_path / "photos"


@pytest.fixture
def options(photos, tiny_checkpoint) -> list[str]:
    return ["--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(photos), *SMALL]


@pytest.fixture
def grpo(options) -> list[str]:
    return ["train", *options, "--group-size", "2", "--max-new-tokens", "4"]


def timeless(folder: str) -> list[dict]:
    return [record | {"seconds": None} for record in RunFolder.open(folder).records()]


def test_a_small_folder_is_tested_on_what_is_left(photos, tiny_checkpoint, capsys):
    """Six images per label: four to learn from, two for the test, unless the user says how many."""
    train = ["train", "--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(photos), "--steps", "1"]
    train += ["--group-size", "2", "--max-new-tokens", "4"]
    assert main([*train, "--out", "run"]) == 0
    output = capsys.readouterr()
    assert "few images: 2 per label for the test, not 8" in output.err and "12 training and 6 test images" in output.out
    assert json.loads(Path("run/settings.json").read_text())["data"]["test"] == 2
    assert main([*train, "--test", "8"]) == 2 and "needs 12 (8 test + 4 train)" in capsys.readouterr().err
    assert main([*train, "--shots", "6"]) == 2 and "too few images" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert f"usage: favor-lab {command}" in output
    assert str(COMMANDS[command].__doc__).split()[:4] == output.split("\n\n")[1].split()[:4]


def test_help_of_train_documents_every_setting_with_its_choices(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    output = " ".join(capsys.readouterr().out.replace("│", "").split())
    for name in GRPOSettings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in output
    source = inspect.getsource(TrainSettings) + inspect.getsource(GRPOSettings)
    helps = re.findall(r'^    """([^"]+)\."""$', source, re.MULTILINE)
    assert len(helps) == len(GRPOSettings.__dataclass_fields__) and all(text in output for text in helps)
    assert "{grpo,bnpo,dr_grpo,dapo,cispo}" in output


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["doctor", "--help"], ["nonsense"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from favor_lab.cli import main\n"
        f"try: main({arguments})\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.slow
def test_train_on_a_folder_of_odd_images(grpo, capsys, rendered):
    assert main([*grpo, "--out", "run"]) == 0
    folder = RunFolder.open("run")
    assert [record["step"] for record in folder.records()] == [1, 2, 3]
    assert {path.name for path in folder.path.iterdir()} == {
        "settings.json", "records.jsonl", "checkpoint", "adapter", "figures", "report.html", "groups.json",
        "evaluation_before.json", "evaluation_after.json", "training_images.json", "run.toml", "manifest.json",
    }  # fmt: skip
    assert {path.stem for path in (folder.path / "figures").iterdir()} >= {
        "before_after", "records", "coverage", "group_before", "group_after", "confusion_zero_shot",
    }  # fmt: skip
    after = Evaluation.load("run/evaluation_after.json")
    assert after.labels == ["phoning", "reading", "riding a bike"] and len(after) == 3
    assert folder.settings["settings"]["group_size"] == 2
    output = capsys.readouterr()
    assert "95 % interval" in output.out and "2-shot GRPO" in output.out and "run/report.html" in output.out
    assert "no group of completions ever differed" in output.err


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(grpo):
    grpo += ["--test", "0"]
    assert main([*grpo, "--out", "one"]) == main([*grpo, "--out", "two"]) == 0
    assert timeless("one") == timeless("two")
    assert main([*grpo, "--out", "three", "--seed", "1"]) == 0
    assert timeless("one") != timeless("three")


@pytest.mark.slow
def test_a_run_that_is_interrupted_keeps_what_it_has_and_goes_on(grpo, monkeypatch, capsys, tmp_path):
    assert main([*grpo, "--out", "whole"]) == 0
    append = RunFolder.append

    def interrupted(self, record):
        append(self, record)
        if record.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", interrupted)
    assert main([*grpo, "--out", "run"]) == 130
    message = capsys.readouterr().err
    assert "stopped after step 2 of 3" in message and "favor-lab train --resume run" in message
    assert timeless("run") == timeless("whole")[:2]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "run"]) == 0
    assert timeless("run") == timeless("whole")
    answers = [Evaluation.load(f"{run}/evaluation_after.json").answers for run in ("run", "whole")]
    assert answers[0] == answers[1]


IN_THE_BACKGROUND = """
import os, signal, sys
from favor_lab.cli import main
from favor_lab.grpo import training

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell sets it for a process in the background
where = sys.argv[1]
function = getattr(training, where)

def signalled(*arguments, **options):
    result = function(*arguments, **options)
    state = next(argument for argument in arguments if hasattr(argument, "step"))
    if state.step == 1:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
    return result

setattr(training, where, signalled)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "finished"), [("compute_rewards", 1), ("optimiser_step", 2)])
def test_a_run_in_the_background_ends_well_on_sigterm(grpo, where, finished):
    """Between two updates the step is abandoned, during one it is finished; Ctrl-C stays ignored."""
    grpo += ["--temperature", "1.5"]
    result = forks.run(forks.run_code, IN_THE_BACKGROUND, where, *grpo, "--out", "run")
    assert result.status == 143, result.errors
    assert f"stopped after step {finished} of 3" in result.errors and "favor-lab train --resume run" in result.errors
    assert "Traceback" not in result.errors
    assert [record["step"] for record in timeless("run")] == list(range(1, finished + 1))
    assert main(["train", "--resume", "run"]) == main([*grpo, "--out", "whole"]) == 0
    assert timeless("run") == timeless("whole")
    weights = [Path(f"{run}/adapter/adapter_model.safetensors").read_bytes() for run in ("run", "whole")]
    answers = [Evaluation.load(f"{run}/evaluation_after.json").answers for run in ("run", "whole")]
    assert weights[0] == weights[1] and answers[0] == answers[1]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_only_a_command_that_runs_handles_sigterm(monkeypatch, handler, capsys):
    """SIGTERM raises while a command runs, unless it is ignored or the caller has a handler."""

    def doctor(card):
        during.append(signal.getsignal(signal.SIGTERM))
        if handler is signal.SIG_DFL and callable(during[0]):
            signal.raise_signal(signal.SIGTERM)

    during = []
    monkeypatch.setitem(COMMANDS, "doctor", doctor)
    doctor.__annotations__ = {"card": CardOptions, "return": type(None)}
    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert main(["doctor"]) == (143 if handler is signal.SIG_DFL else 0)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (during == [handler]) is (handler is not signal.SIG_DFL)
    assert capsys.readouterr().err == ("favor-lab: stopped\n" if handler is signal.SIG_DFL else "")


def test_a_run_that_died_after_a_record_makes_it_again(grpo):
    """Records are written at once, checkpoints every few steps: the steps in between are dropped and repeated."""
    assert main([*grpo, "--out", "run", "--test", "0"]) == 0
    whole = timeless("run")
    RunFolder.open("run").append({"step": 4, "from": "a run that died"})
    assert main(["train", "--resume", "run", "--steps", "4"]) == 0
    assert timeless("run")[:3] == whole and "loss" in timeless("run")[3]


def test_interrupted_before_the_first_step(grpo, monkeypatch, capsys):
    from favor_lab.study import evaluation

    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", stop)
    assert main([*grpo, "--out", "run"]) == 130
    assert "stopped after step 0" in capsys.readouterr().err


def test_resume_takes_the_options_of_the_run(grpo, capsys):
    assert main([*grpo, "--out", "run", "--test", "0"]) == 0
    assert not Path("run/evaluation_before.json").exists()
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--group-size", "4", "--shots", "1"]) == 2
    assert "leave out --shots, --group-size" in capsys.readouterr().err
    assert main(["sft", "--resume", "run"]) == 2
    assert "favor-lab train --resume run" in capsys.readouterr().err


@pytest.mark.slow
def test_sft_and_evaluate(options, photos, tiny_checkpoint, capsys, rendered):
    assert main(["sft", *options]) == 0
    folder = RunFolder.open("runs/sft-folder")
    assert len(folder.records()) == 3 and "2-shot SFT" in capsys.readouterr().out
    assert Evaluation.load(folder.path / "evaluation_after.json").style == "answer"
    where = ["--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(photos), "--test", "1"]
    ask = ["evaluate", *where, "--adapter", str(folder.path / "adapter"), "--style", "answer"]
    assert main([*ask, "--out", "asked"]) == 0
    again = Evaluation.load("asked/evaluation.json")
    assert again.answers == Evaluation.load(folder.path / "evaluation_after.json").answers
    assert Path("asked/report.html").exists() and "0 of 3" in capsys.readouterr().out
    assert main(["sft", *options, "--steps", "1"]) == 0
    assert Path("runs/sft-folder-2/report.html").exists()


def test_training_without_an_adapter(options):
    assert main(["sft", *options, "--lora-rank", "0", "--steps", "1", "--test", "0", "--out", "run"]) == 0
    assert Path("run/policy/model.safetensors").exists()


@pytest.mark.slow
def test_demo_with_a_tiny_pocket(tiny_checkpoint, monkeypatch, capsys, rendered):
    from favor_lab.vlm import loading

    monkeypatch.setattr(loading, "POCKET_DIR", tiny_checkpoint)
    assert main(["demo", "--steps", "1", "--shots", "1"]) == 0
    output = capsys.readouterr().out
    assert "zero-shot" in output and "1-shot GRPO" in output and "of 128" in output
    assert output.endswith("ask it       favor-lab predict IMAGE --run runs/demo-cartoon\n")
    assert Path("runs/demo-cartoon/report.html").stat().st_size > 100_000


def test_data_lists_draws_and_exports(photos, capsys, rendered):
    assert main(["data", "folder", "--root", str(photos), "--sheet", "sheet.png", "--per-label", "2"]) == 0
    assert "3 labels (phoning, reading, riding a bike)" in capsys.readouterr().out and Path("sheet.png").exists()
    assert main(["data", "thermal", "--out", "drawn", "--per-label", "1"]) == 0
    assert len(list(Path("drawn").glob("*/*/*.png"))) == 32
    assert main(["data", "folder", "--root", "drawn", "--split", "validation", "--sheet", "x.png"]) == 2
    assert "it has train, test" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stanford40", "har15", "ucf101", "ppmi", "folder"])
def test_data_without_a_root_says_where_to_get_a_set_and_how_it_must_lie(name, capsys):
    assert main(["data", name]) == 0
    output = capsys.readouterr().out
    assert "ROOT/" in output and f"favor-lab data {name} --root ROOT" in output
    assert name == "folder" or ("http" in output and "Terms" in output)


def faults_of(arguments, capsys) -> str:
    """What `data` says about a folder with faults: the exit status is 1."""
    with pytest.raises(SystemExit) as stop:
        main(["data", *arguments])
    assert stop.value.code == 1
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*labels have no image:UserWarning")
def test_data_checks_a_public_set_names_every_fault_and_what_to_leave_out(tmp_path, tiny_checkpoint, capsys):
    root = trees.stanford40(tmp_path / "s40", train=4)
    where = ["stanford40", "--root", str(root)]
    assert main(["data", *where, "--person-crop", "0.1", "--decode"]) == 0
    output = capsys.readouterr().out
    assert "train             12       4000       3" in output and "every image decoded" in output
    assert "no fault that training would trip over" in output and "3 labels (reading, riding a bike, throwing" in output
    (root / "JPEGImages/reading_001.jpg").unlink()
    (root / "JPEGImages/reading_006.jpg").write_bytes((root / "JPEGImages/reading_002.jpg").read_bytes())
    (root / "JPEGImages/riding_a_bike_003.jpg").write_text("no image")
    (root / "XMLAnnotations/throwing_frisby_001.xml").unlink()
    output = faults_of(where, capsys)
    assert "3 faults that training would trip over" in output and "3 images are in doubt" in output
    for name in ("reading_001", "reading_002", "riding_a_bike_003", "throwing_frisby_001"):
        assert name in output
    assert "4 faults" in faults_of([*where, "--person-crop", "0.1", "--write-exclude", "bad.txt"], capsys)
    bad = Path("bad.txt").read_text().splitlines()
    assert [Path(line).stem for line in bad] == [
        "reading_001",
        "reading_002",
        "riding_a_bike_003",
        "throwing_frisby_001",
    ]
    left_out = [*where, "--person-crop", "0.1", "--exclude", "bad.txt"]
    assert main(["data", *left_out, "--sheet", "sheet.png", "--per-label", "1"]) == 0 and Path("sheet.png").exists()
    fails(["data", *left_out, "--write-exclude", "bad.txt"], capsys, "bad.txt")
    train = [
        "sft",
        "--policy",
        str(tiny_checkpoint),
        "--data",
        *left_out,
        "--shots",
        "2",
        "--test",
        "1",
        "--steps",
        "1",
    ]
    assert main([*train, "--prompts-per-step", "2", "--out", "run"]) == 0
    assert RunFolder.open("run").settings["data"]["person_crop"] == 0.1
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    assert main(["sft", "--resume", str(tmp_path / "run"), "--steps", "2"]) == 0
    ask = ["evaluate", "--policy", str(tiny_checkpoint), "--data", *where, "--test", "1", "--style", "answer"]
    assert main([*ask, "--person-crop", "0", "--exclude", str(tmp_path / "bad.txt"), "--max-new-tokens", "2"]) == 0


def test_data_checks_a_folder_of_ones_own(photos, capsys):
    (photos / "reading" / "0.jpg").write_bytes(b"")
    assert "reading/0.jpg: cannot be read as an image: the file is empty (0 bytes)" in faults_of(
        ["folder", "--root", str(photos)], capsys
    )
    Path("bad.txt").write_text("# seen, and bad\n\nreading/0.jpg\n")
    assert main(["data", "folder", "--root", str(photos), "--exclude", "bad.txt"]) == 0
    Path("empty").mkdir()
    assert "no images in <label>/<image>" in faults_of(["folder", "--root", "empty"], capsys)
    fails(["data", "folder", "--root", "nowhere"], capsys, "no such folder", "nowhere")
    fails(["data", "cartoon", "--root", str(photos)], capsys, "is drawn and takes no root")
    Path("bad.txt").write_text("reading/7.jpg\n")
    fails(["data", "folder", "--root", str(photos), "--exclude", "bad.txt"], capsys, "'reading/7.jpg' to exclude")


def test_doctor_warns_of_busy_neighbours(monkeypatch):
    from favor_lab.budget.doctor import _other_processes

    for name in (*WAITING, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    (finding,) = _other_processes(64.0)
    assert finding.ok is None and "call favor_lab.share_cores() before torch" in finding.text
    assert not list(_other_processes(3.0))
    for name, value in {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "1"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not list(_other_processes(64.0)), name
    monkeypatch.setenv("OMP_WAIT_POLICY", "Active")
    (finding,) = _other_processes(64.0)
    assert finding.ok is None and "unset OMP_WAIT_POLICY" in finding.text


def test_doctor(tiny_checkpoint, monkeypatch, tmp_path, capsys):
    from favor_lab.vlm import loading

    monkeypatch.setattr(loading, "POCKET_DIR", tiny_checkpoint)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("[OK]", "[--]")) for line in lines)
    assert any("CPU cores" in line for line in lines) and any("pocket policy loads" in line for line in lines)
    monkeypatch.setattr(loading, "POCKET_DIR", tmp_path / "nowhere")
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 1 and "[FAIL] the pocket policy does not work" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- bad input


def fails(arguments, capsys, *fragments):
    """The command ends with code 2 and one line that contains every fragment, and no traceback."""
    assert main(arguments) == 2
    message = capsys.readouterr().err
    lines = [line for line in message.splitlines() if line.startswith("favor-lab: error: ")]
    assert len(lines) == 1 and "Traceback" not in message
    for fragment in fragments:
        assert str(fragment) in message


def test_bad_folders(photos, tiny_checkpoint, tmp_path, capsys):
    train = ["train", "--policy", str(tiny_checkpoint), "--data", "folder"]
    fails(train, capsys, "root")
    fails([*train, "--root", "nowhere"], capsys, "no such folder", "nowhere")
    (tmp_path / "empty").mkdir()
    fails([*train, "--root", "empty"], capsys, "no images", "empty")
    fails([*train, "--root", str(photos), "--shots", "5", "--test", "2"], capsys, "'phoning' has 6", "needs 7")
    (photos / "reading" / "0.jpg").write_bytes(b"")
    fails(
        [*train, "--root", str(photos), "--shots", "5", "--test", "1"], capsys, photos / "reading" / "0.jpg", "0 bytes"
    )


def test_unknown_names(tiny_checkpoint, options, capsys):
    fails(["train", "--data", "oil"], capsys, "'oil'", "cartoon, sketch, thermal, cctv")
    fails(["data", "oil"], capsys, "'oil'", "cartoon, sketch, thermal, cctv")
    fails(["train", *options, "--quantize", "3bit"], capsys, "'3bit'", "4bit")
    fails(["train", *options, "--dtype", "float8"], capsys, "'float8'", "bfloat16")
    where = ["--policy", str(tiny_checkpoint), "--data", "cartoon", "--test", "1"]
    fails(["evaluate", *where, "--style", "rhyme"], capsys, "'rhyme'", "think, answer")
    with pytest.raises(SystemExit) as stop:
        main(["train", *options, "--style", "rhyme"])
    output = capsys.readouterr().err
    assert stop.value.code == 2 and "rhyme" in output and "think" in output and "answer" in output


def test_a_group_of_one(options, capsys):
    fails(["train", *options, "--group-size", "1"], capsys, "group_size is 1", "at least 2")
    assert not Path("runs").exists()


def test_a_run_folder_that_cannot_be_used(grpo, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    fails([*grpo, "--out", "file/run"], capsys, "cannot write to the run folder file/run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    fails([*grpo, "--out", "mine"], capsys, "mine is not empty")
    fails(["train", "--resume", "mine"], capsys, "not a run folder")


def test_a_checkpoint_that_is_not_qwen2_vl(tmp_path, capsys):
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    small = ["--test", "1", "--shots", "1"]
    fails(["train", "--policy", "./llama", *small], capsys, "'llama'", "qwen2_vl")
    fails(["train", "--policy", "./nowhere", *small], capsys, "nowhere")


@pytest.mark.slow
def test_after_an_error_the_same_folder_can_be_used(grpo, capsys):
    fails([*grpo, "--out", "run", "--quantize", "3bit"], capsys, "3bit")
    assert main([*grpo, "--out", "run"]) == 0


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(ValueError, match="oil"):
        main(["data", "oil", "--debug"])


def test_a_prompt_that_does_not_fit(options, capsys):
    fails(["train", *options, "--max-new-tokens", "5000"], capsys, "window", "photos")


@pytest.mark.slow
def test_a_folder_named_pocket_does_not_hide_the_shipped_policy(tmp_path, photos):
    (tmp_path / "pocket").mkdir()
    assert main(["train", "--data", "folder", "--root", str(photos), *SMALL, "--out", "run"]) == 0
    assert RunFolder.open("run").settings["policy"]["policy"] == "pocket"


def test_the_seed_of_a_run_decides_the_start_of_its_adapter(tiny_checkpoint):
    from favor_lab.runs.options import PolicyOptions, open_policy

    def start(seed):
        weights = open_policy(PolicyOptions(policy=str(tiny_checkpoint)), seed).trainable_parameters()
        return next(weight for name, weight in weights if "lora_A" in name)

    assert start(1).equal(start(1)) and not start(1).equal(start(0))


@pytest.mark.slow
def test_profile_prints_a_table_and_keeps_it(options, capsys, rendered):
    small = ["--group-size", "2", "--max-new-tokens", "4", "--repeats", "1", "--fixed-length", "--out", "profile"]
    assert main(["profile", *options, *small]) == 0
    output = capsys.readouterr().out
    assert "prefill" in output and "times the bound" in output
    assert json.loads(Path("profile/profile.json").read_text())["setting"]["completion_tokens"] == 4
    assert Path("profile/profile.png").stat().st_size > 10_000
    assert main(["profile", *options, *small]) == 2 and "not empty" in capsys.readouterr().err
    assert main(["profile", *options, "--repeats", "0"]) == 2 and "repeats is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_study_runs_cells_once_and_prints_the_table(capsys):
    arguments = ["study", "--methods", "zero-shot-answer", "sft", "--sets", "cartoon", "--shots", "1", "--seeds", "1"]
    arguments += ["--steps", "1", "--test", "1", "--out", "cells"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "| sft | cartoon | 1 | 1 |" in first
    times = {path.name: path.stat().st_mtime_ns for path in Path("cells").glob("*.gz")}
    assert set(times) == {"zero-shot-answer-cartoon-0-0.json.gz", "sft-cartoon-1-0.json.gz"}
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert first.endswith(table) and table.startswith("| cartoon | 0 shots | 1 shot |")
    assert {path.name: path.stat().st_mtime_ns for path in Path("cells").glob("*.gz")} == times
    assert Path("cells/table.md").read_text() in table
    assert main([*arguments, "--preset", "lora"]) == 2
    assert "zero-shot-answer-cartoon-0-0.json.gz was run with max_new_tokens 64, not 256" in capsys.readouterr().err


@pytest.mark.slow
def test_study_runs_variants_of_the_methods_that_have_them(capsys):
    arguments = [
        "study",
        "--methods",
        "sft",
        "grpo",
        "--sets",
        "cartoon",
        "--shots",
        "1",
        "--seeds",
        "1",
        "--test",
        "1",
    ]
    changes = ["--variants", "group-2", "--tasks", "base-to-new", "--recipes", "visurf+papo", "rloo"]
    assert main([*arguments, "--steps", "1", *changes, "--out", "cells"]) == 0
    page = capsys.readouterr().out
    assert "**group-2**: groups of 2" in page
    assert page.index("**group-2**") < page.index(f"**rloo**: {RECIPES['rloo'].about}") < page.index("**visurf+papo**:")
    assert Result.load("cells/grpo-cartoon-1-0+visurf+papo.json.gz").settings["coefficients"]["gamma"] == 0.02
    assert {path.name for path in Path("cells").glob("*+*.gz")} == {
        "grpo-cartoon-1-0+base-to-new.json.gz", "grpo-cartoon-1-0+group-2.json.gz",
        "grpo-cartoon-1-0+rloo.json.gz", "grpo-cartoon-1-0+visurf+papo.json.gz",
        "grpo-cartoon-1-0+rloo+base-to-new.json.gz", "grpo-cartoon-1-0+visurf+papo+base-to-new.json.gz",
        "sft-cartoon-1-0+base-to-new.json.gz",
    }  # fmt: skip


def test_study_refuses_what_it_does_not_know(capsys):
    assert main(["study", "--methods", "grpo", "--recipes", "dpo", "--out", "cells"]) == 2
    assert "unknown variant 'dpo'; the variants are group-2" in capsys.readouterr().err
    assert main(["study", "--methods", "sft", "--recipes", "papo", "--out", "cells"]) == 2
    assert "papo is a variant of grpo and grpo-answer, not of sft" in capsys.readouterr().err
    assert main(["study", "--methods", "dpo", "--out", "cells"]) == 2
    assert "unknown method 'dpo'; the methods are zero-shot" in capsys.readouterr().err
    assert main(["study", "--sets", "manga", "--methods", "zero-shot", "--out", "cells"]) == 2
    assert "manga" in capsys.readouterr().err
    assert main(["study", "--cells", "quick", "--seeds", "2", "--out", "cells"]) == 2
    assert "--cells quick names them all: leave out --seeds" in capsys.readouterr().err
    assert main(["study", "--cells", "huge", "--out", "cells"]) == 2
    assert "the whole studies are quick, full" in capsys.readouterr().err
    assert main(["study", "--preset", "ppo", "--out", "cells"]) == 2
    assert "unknown preset 'ppo'; the presets are pocket, lora, visual-rft" in capsys.readouterr().err
    assert main(["study", "--sets", "stanford40", "--root", "nowhere", "--out", "cells"]) == 2
    assert "nowhere" in capsys.readouterr().err and not Path("cells").exists()


@pytest.mark.slow
def test_a_number_that_is_none_leaves_the_last_good_state(grpo, monkeypatch, capsys):
    from favor_lab.grpo import training

    assert main([*grpo, "--out", "whole", "--test", "0"]) == 0
    backward = training.backward

    def broken(loss, batch, context):
        if context.step == 2:
            raise FloatingPointError("the loss of rows 0 to 3 is nan")
        return backward(loss, batch, context)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(training, "backward", broken)
        message = "the state after step 2 is in run/checkpoint"
        fails([*grpo, "--out", "run", "--test", "0"], capsys, "step 3, phase loss", message)
    assert timeless("run") == timeless("whole")[:2]
    assert main(["train", "--resume", "run"]) == 0
    assert timeless("run") == timeless("whole")


def test_what_a_run_ran_on_is_kept_and_a_change_is_said(grpo, capsys):
    assert main([*grpo, "--out", "run", "--test", "0"]) == 0
    versions = RunFolder.open("run").settings["versions"]
    assert versions["threads"] == str(torch.get_num_threads()) and versions["device"] == "cpu" and versions["torch"]
    assert RunFolder.open("run").settings["settings"]["seed"] == 0
    capsys.readouterr()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert main(["train", "--resume", "run", "--steps", "4"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert f"different versions (threads {threads} then, {threads + 1} now)" in capsys.readouterr().err


@pytest.mark.slow
def test_records_without_a_checkpoint_are_made_again_and_it_is_said(grpo, capsys):
    assert main([*grpo, "--out", "run", "--test", "0"]) == 0
    whole = timeless("run")
    for path in RunFolder.open("run").checkpoint.iterdir():
        path.unlink()
    assert main(["train", "--resume", "run"]) == 0
    assert "no checkpoint in run/checkpoint: the run starts again" in capsys.readouterr().err
    assert timeless("run") == whole


@pytest.mark.parametrize(
    "labels, message",
    [
        (["reading,cooking"], "'reading,cooking' is one label: part labels by spaces"),
        (["reading", "Reading."], "reads as one label with 'reading'"),
        (["age <30", "reading"], "label 0 is 'age <30'"),
        (["\u3164", "reading"], "label 0 is"),
    ],
)
def test_labels_that_cannot_be_asked_are_refused_before_a_policy_is_loaded(labels, message, tmp_path, capsys):
    image = tmp_path / "a.png"
    picture(image, 0, "RGB", (56, 56))
    for command in (["predict", str(image)], ["evaluate", "--test", "1"]):
        assert main([*command, "--policy", "no/such-policy", "--labels", *labels]) == 2
        error = capsys.readouterr().err
        assert "no/such-policy" not in error
        assert message in error or (command[0] == "evaluate" and "has none of the labels" in error)
