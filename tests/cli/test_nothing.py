"""What asks for nothing, or for what a command would not do, is refused before a policy is loaded or a file is made."""

import re
from pathlib import Path

import pytest

from favor_lab.cli import main
from favor_lab.runs.options import read_exclude
from favor_lab.vlm import loading
from pictures import picture


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with images in it, and no policy that could be loaded."""

    def load(*arguments, **options):
        raise AssertionError("a policy was loaded")

    monkeypatch.setattr(loading, "_checkpoint", load)
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        picture(Path("photos/reading") / f"{number}.png", number, "RGB", (20, 20))


STUDY, ASK = ["study", "--sets", "cartoon"], ["--data", "folder", "--root", "photos"]
COMMANDS = {
    "--sets: sets is empty": ["study", "--sets"],
    "--methods: methods is empty": ["study", "--methods"],
    "--shots: shots is empty": ["study", "--shots"],
    "shots is 0": [*STUDY, "--shots", "0"],
    "shots is -4": [*STUDY, "--shots", "-4"],
    "seeds is 0": [*STUDY, "--seeds", "0"],
    "seeds is -1": [*STUDY, "--seeds", "-1", "--methods", "grpo"],
    "test is 0": [*STUDY, "--test", "0"],
    "test is -1": [*STUDY, "--test", "-1"],
    "steps is 0": [*STUDY, "--steps", "0"],
    "hot is a variant of grpo and grpo-answer, not of sft": [*STUDY, "--methods", "sft", "--variants", "hot"],
    "unknown variant": [*STUDY, "--variants", "warm"],
    "needs 300": [*STUDY, "--shots", "300"],
    "'reading' has 3 in train, needs 5 (1 test + 4 train)": [
        "study",
        "--sets",
        "folder",
        "--root",
        "photos",
        "--test",
        "1",
        "--shots",
        "1",
        "4",
    ],
    "--out: out would have no effect: it needs --root": ["data", "folder", "--out", "z"],
    "it writes a drawn set as files": ["data", "folder", "--root", "photos", "--out", "z"],
    "--sheet: sheet would have no effect: it needs --root": ["data", "stanford40", "--sheet", "z.png"],
    "--decode: decode would have no effect": ["data", "cartoon", "--decode"],
    "--write-exclude: write_exclude would have no effect": ["data", "cartoon", "--write-exclude", "bad.txt"],
    "--exclude: exclude would have no effect": ["data", "har15", "--exclude", "bad.txt"],
    "--person-crop: person_crop would have no effect": ["data", "stanford40", "--person-crop", "0.1"],
    "--split: split would have no effect": ["data", "cartoon", "--split", "test"],
    "--per-label: per_label would have no effect": ["data", "cartoon", "--per-label", "4"],
    "--per-label: per_label is 0": ["data", "cartoon", "--sheet", "z.png", "--per-label", "0"],
    "--gpu-gb: gpu_gb is 0": ["doctor", "--gpu-gb", "0"],
    "--gpu-gb: gpu_gb is -8": ["doctor", "--gpu-gb", "-8", "--json"],
    "--gpu-gb: gpu_gb is inf": ["doctor", "--gpu-gb", "inf"],
    "--gpu-gb: gpu_gb is nan": ["doctor", "--gpu-gb", "nan"],
    "--model: model is empty": ["doctor", "--model", ""],
    "--max-new-tokens: max_new_tokens is 0": ["evaluate", *ASK, "--max-new-tokens", "0", "--out", "z"],
    "--max-new-tokens: max_new_tokens is -3": ["predict", "photos", "--max-new-tokens", "-3"],
    "--test: test is 0, but must be above 0": ["evaluate", *ASK, "--test", "0", "--out", "z"],
    "--batch-size: batch_size is 0": ["evaluate", *ASK, "--batch-size", "0", "--out", "z"],
    "--batch-size: batch_size is -1": ["predict", "photos", "--batch-size", "-1", "--csv", "z.csv"],
    "unknown style 'aloud'": ["predict", "photos", "--style", "aloud", "--csv", "z.csv"],
    "unknown style 'silent'": ["evaluate", *ASK, "--style", "silent", "--out", "z"],
    "--labels: labels are to choose from": ["predict", "photos", "--labels", "reading", "--open-vocabulary"],
    "--labels: labels has 'reading' twice": ["predict", "photos", "--labels", "reading", "reading"],
    "--repeats: repeats is 0": ["profile", "--repeats", "0", "--out", "z"],
}


@pytest.mark.parametrize("words", COMMANDS)
def test_what_would_do_nothing_is_refused_at_once(words, capsys):
    before = sorted(Path().rglob("*"))
    assert main(COMMANDS[words]) == 2
    message = capsys.readouterr().err
    assert re.fullmatch(f"favor-lab: error: .*{re.escape(words)}.*\n", message), message
    assert sorted(Path().rglob("*")) == before


def test_a_list_that_is_there_is_kept(capsys):
    Path("bad.txt").write_text("mine\n")
    assert main(["data", "folder", "--root", "photos", "--write-exclude", "bad.txt"]) == 2
    assert "bad.txt is there already: name a new file" in capsys.readouterr().err
    assert Path("bad.txt").read_text() == "mine\n"


def test_a_list_may_name_a_file_with_a_line_separator_in_it():
    Path("bad.txt").write_text("\ufeff# comment\r\na\u2028b\x85c.png\r\n\n  d.png\n", encoding="utf-8", newline="")
    assert read_exclude(Path("bad.txt")) == ["a\u2028b\x85c.png", "d.png"]


def test_what_does_something_goes_on():
    assert main(["data", "cartoon", "--sheet", "sheet.png", "--per-label", "1", "--split", "test"]) == 0
    assert main(["data", "folder", "--root", "photos", "--decode", "--sheet", "mine.png"]) == 0
    assert Path("sheet.png").exists() and Path("mine.png").exists()
