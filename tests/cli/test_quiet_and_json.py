"""Output for programs: --quiet of the commands that train, --json of evaluate and doctor."""

import json
import warnings
from pathlib import Path

import pytest

from favor_lab.cli import main

SMALL = ["--shots", "1", "--test", "1", "--steps", "2", "--prompts-per-step", "1", "--max-new-tokens", "2"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, unrendered):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "more"), [("train", ["--group-size", "2"]), ("sft", [])])
def test_a_quiet_run_prints_its_last_line_alone(command, more, tiny_checkpoint, capsys):
    arguments = [command, "--policy", str(tiny_checkpoint), *SMALL, *more]
    assert main([*arguments, "--out", "loud"]) == 0
    loud = capsys.readouterr()
    assert len(loud.out.splitlines()) > 5 and loud.err
    assert main([*arguments, "--out", "quiet", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.out == loud.out.splitlines()[-1].replace("loud", "quiet") + "\n" and output.err == ""
    assert Path("quiet/report.html").exists()
    assert main([command, "--resume", "quiet", "--steps", "3", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == ["ask it       favor-lab predict IMAGE --run quiet"] and output.err == ""


@pytest.mark.filterwarnings("always:a label has no image")
def test_a_quiet_demo_hides_warnings_and_shows_errors(monkeypatch, capsys):
    from favor_lab.runs import run

    def noisy(data, seed):
        warnings.warn("a label has no image", stacklevel=1)
        raise ValueError("no images at all")

    monkeypatch.setattr(run, "load_shots", noisy)
    assert main(["demo", "--quiet"]) == 2
    assert capsys.readouterr().err == "favor-lab: error: no images at all\n"
    assert main(["demo"]) == 2
    assert "note: a label has no image" in capsys.readouterr().err


def test_evaluate_prints_its_rates_as_json(tiny_checkpoint, capsys):
    arguments = ["evaluate", "--policy", str(tiny_checkpoint), "--test", "1", "--max-new-tokens", "2"]
    assert main([*arguments, "--out", "asked", "--json"]) == 0
    output = capsys.readouterr()
    (line,) = output.out.splitlines()
    rates, saved = json.loads(line), json.loads(Path("asked/evaluation.json").read_text())
    assert rates.pop("images") == len(saved["answers"]) == 16
    assert rates.pop("correct") == sum(answer["correct"] for answer in saved["answers"])
    assert set(rates.pop("label_accuracy")) == set(saved["labels"])
    assert rates == {name: value for name, value in saved.items() if name not in ("answers", "labels")}
    assert output.err == "" and Path("asked/report.html").exists()


def test_doctor_prints_its_findings_as_json(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    from favor_lab.vlm import loading

    monkeypatch.setattr(loading, "POCKET_DIR", tiny_checkpoint)
    assert main(["doctor"]) == 0
    texts = [line[7:] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    same = [f["text"] for f in report["findings"] if "busy" not in f["text"] and "GB free" not in f["text"]]
    assert report["ok"] and set(same) <= set(texts) and isinstance(report["presets"], list)
    monkeypatch.setattr(loading, "POCKET_DIR", tmp_path / "nowhere")
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--json"])
    assert stop.value.code == 1 and json.loads(capsys.readouterr().out)["ok"] is False


def test_doctor_prints_presets_as_json(capsys):
    from favor_lab.budget.fits import recommend

    assert main(["doctor", "--json", "--gpu-gb", "12"]) == 0
    report = json.loads(capsys.readouterr().out)
    (preset,), expected = report["presets"], recommend(12)
    assert set(report) == {"presets"} and preset["command"] == expected.command
    assert preset["gpu_gb"] == 12 and preset["needed_bytes"] == expected.fit.needed_bytes
    assert preset["settings"]["micro_batch"] == expected.settings.micro_batch
    assert main(["doctor", "--json", "--gpu-gb", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["presets"] == [{"gpu_gb": 1.0}]
    assert main(["doctor", "--json", "--gpu-gb", "12", "--model", "nobody/nothing"]) == 2
    assert "favor-lab: error: " in capsys.readouterr().err
