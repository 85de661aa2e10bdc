"""What is printed: nothing in it acts on the terminal, and nothing that is only printed ends the work."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from favor_lab.cli import main, parser
from favor_lab.progress import progress_bar
from favor_lab.runs import predicting
from favor_lab.runs.predicting import Prediction
from favor_lab.runs.run import note, tell
from favor_lab.study.answering import Answer
from favor_lab.terminal import Output, lines_shown, print_line, shown
from pictures import picture

ROOT = Path(__file__).parents[2]
ACTING = {
    "clears the screen": "\x1b[2J", "8-bit CSI": "\x9b2J", "title": "\x1b]0;owned\a", "link": "\x1b]8;;http://x\x1b\\",
    "bell": "\a", "backspace": "\b\b\b", "carriage return": "a\rb", "delete": "\x7f", "string terminator": "\x90q\x9c",
    "override": "\u202egnp", "isolate": "\u2067x\u2069", "mark": "\u200fx", "Arabic letter mark": "\u061cx",
    "next line": "\x85", "line separator": "\u2028", "paragraph separator": "\u2029", "vertical tab": "\x0b",
    "shift out": "\x0e", "byte of a file name": "\udcff",
}  # fmt: skip
ORDINARY = [
    "reading a book", "القراءة", "می‌خواهم", "क्‍ष पढ़ना", "阅读", "読書", "чтение", "café", "שָׁלוֹם", "ไทย",
    "👩‍👩‍👧‍👦", "☕️", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "no\u00a0break", "½ − 1",
]  # fmt: skip
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("name", ACTING)
def test_what_acts_on_a_terminal_is_written_out(name, capsys):
    text = f"a{ACTING[name]}b"
    with contextlib.redirect_stderr(io.StringIO()) as bars:
        for function in (tell, print_line):
            function(text)
        note(text)
        with progress_bar(total=1) as lines:
            lines.set_postfix_str(text)
            lines.update()
    printed = capsys.readouterr().out + bars.getvalue()
    assert printed.count("\n") == 4 and printed.count("\\") >= 4 and not ACTS.search(printed)
    assert "\n" not in shown(f"{text}\n") and lines_shown(f"{text}\n{text}").count("\n") == 1


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_of_any_script_stays_as_it_is(text, capsys):
    tell(text)
    assert capsys.readouterr().out == f"{text}\n" and shown(text) == text


def test_a_bar_in_a_terminal_writes_out_what_would_act():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with contextlib.redirect_stderr(Terminal()) as stream, progress_bar(range(1)) as bar:
        bar.set_postfix_str("reward \x1b[2J\u202e")
    assert "reward \\x1b[2J\\u202e" in stream.getvalue() and "\x1b[2J" not in stream.getvalue()


@pytest.mark.parametrize("text", [*ACTING.values(), *ORDINARY])
def test_json_is_json_and_nothing_in_it_acts(text):
    answer = Answer(text, 0.5, text, f"<think>{text}</think>", text, {text: 0.5})
    line = predicting.as_json(Prediction(text, answer))
    assert line.isascii() and line.isprintable()
    row = json.loads(line)
    assert row["label"] == row["reasoning"] == row["path"] == text and row["probabilities"] == {text: 0.5}
    assert not ACTS.search(Prediction(text, answer).line())


class Failing(io.StringIO):
    """A stream that refuses text, as a full disk or a reader that has gone does."""

    def __init__(self, error: Exception):
        super().__init__()
        self.failure = error

    def write(self, text: str) -> int:
        raise self.failure


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe"),
                                   ValueError("I/O operation on closed file")])  # fmt: skip
@pytest.mark.parametrize("closed", [False, True])
def test_lines_that_cannot_be_written_raise_nothing(error, closed, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None if closed else Failing(error))
    tell("a line")
    note("a line")
    for _ in progress_bar(range(20), "steps"):
        pass


@pytest.mark.parametrize(("command", "status"), [("data", 1), ("doctor", 1), ("train", 0), ("sft", 0), ("study", 0)])
def test_the_status_says_whether_what_was_asked_for_has_arrived(command, status, monkeypatch, capsys):
    monkeypatch.setattr(parser, "run", lambda arguments: tell("what was asked for"))
    assert main([command]) == 0
    monkeypatch.setattr(sys, "stdout", Failing(OSError(28, "No space left on device")))
    assert main([command]) == status
    message = "favor-lab: error: standard output cannot be written: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == (message if status else "")


def test_output_writes_as_escapes_what_its_encoding_lacks():
    for encoding in ("ascii", "cp1252", "cp932", "latin-1", "utf-8"):
        raw = io.BytesIO()
        output = Output(io.TextIOWrapper(raw, encoding))
        assert output.write("跑步 é ☕ \udcff\n") and output.error is None
        output.flush()
        assert raw.getvalue().endswith(b"\\udcff\n") and (b"\\u2615" in raw.getvalue()) is (encoding != "utf-8")


def test_an_error_that_nobody_foresaw_is_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise KeyError("speed")

    monkeypatch.setattr(parser, "run", fail)
    assert main(["doctor"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("favor-lab: error: ") and "KeyError: 'speed'" in line and "--debug" in line
    with pytest.raises(KeyError):
        main(["doctor", "--debug"])


# ------------------------------------------------------------------------------------ the command, as a shell starts it


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = line.replace("favor-lab", f"'{sys.executable}' -m favor_lab")
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(["bash", "-c", command], capture_output=True, env=environment, encoding="utf-8", timeout=900)


@pytest.mark.parametrize("line", ["--version", "data cartoon", "train --help"])
@pytest.mark.parametrize("how", [">/dev/full", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_standard_output_that_cannot_be_written(line, how):
    done = shell(f"favor-lab {line} {how}")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == (0 if "2>" in how else 1)


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "| head -1"])
def test_a_standard_error_that_cannot_be_written_and_a_reader_that_has_enough(how):
    done = shell(f"favor-lab data cartoon {how}")
    assert done.returncode == 0 and done.stdout.startswith("cartoon: 16 labels") and done.stderr == ""
    assert shell("favor-lab data nonsense 2>/dev/full").returncode == 2


@pytest.mark.parametrize("columns", ["1", "0"])
@pytest.mark.parametrize("line", ["train --help", "train --steps many"])
def test_the_narrowest_terminal(line, columns):
    done = shell(f"favor-lab {line}", COLUMNS=columns, TERM="dumb")
    assert done.returncode == (2 if "many" in line else 0) and "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_labels_that_the_encoding_lacks(encoding, tmp_path):
    for row, label in enumerate(["跑步 é\x1b[2J", "reading ☕"]):
        picture(tmp_path / label / "0.png", row)
    done = subprocess.run(
        [sys.executable, "-m", "favor_lab", "data", "folder", "--root", tmp_path], capture_output=True, cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0 and b"2 labels" in done.stdout
    assert b"Traceback" not in done.stderr and b"\x1b" not in done.stdout and b"\\u2615" in done.stdout


TRAIN = "--shots 1 --test 1 --steps 2 --prompts-per-step 1 --group-size 2 --max-new-tokens 2 --style answer"


@pytest.mark.slow
@pytest.mark.parametrize("how", [">/dev/full", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full", "| true"])
def test_a_run_whose_output_goes_nowhere_ends_well(how, tiny_checkpoint, tmp_path):
    done = shell(f"favor-lab train --policy {tiny_checkpoint} {TRAIN} --out {tmp_path}/run {how}")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert len((tmp_path / "run/records.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
def test_a_run_with_labels_that_the_terminal_cannot_show(encoding, tiny_checkpoint, tmp_path):
    for row, label in enumerate(["café ☕", "跑步\x1b[2J"]):
        for column in range(2):
            picture(tmp_path / "photos" / label / f"{column}.png", 10 * row + column)
    where = f"--policy {tiny_checkpoint} --data folder --root {tmp_path}/photos"
    done = subprocess.run(
        [sys.executable, "-m", "favor_lab", "train", *where.split(), *TRAIN.split(), "--out", tmp_path / "run"],
        capture_output=True, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr and (tmp_path / "run/report.html").exists()
