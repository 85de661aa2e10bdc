"""Progress: a bar in a terminal, and lines that can be read in a log file."""

import contextlib
import io
import re

import pytest

import forks
from favor_lab.cli import main
from favor_lab.progress import ProgressLines, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO, *arguments, **options) -> str:
    with contextlib.redirect_stderr(stream):
        assert list(progress_bar(*arguments, **options)) == list(arguments[0])
    return stream.getvalue()


def test_a_terminal_has_a_bar_and_a_file_has_lines():
    bar = written(Terminal(), range(50), "read", unit="image")
    assert "\r" in bar and "50/50" in bar and "image/s" in bar
    lines = written(io.StringIO(), range(50), "read", unit="image")
    assert "\r" not in lines and "|" not in lines
    assert [line.split(",")[0] for line in lines.splitlines()] == [f"read: {n} of 50 images" for n in range(5, 51, 5)]


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_nothing_is_shown_where_nothing_is_wanted(stream):
    assert written(stream(), range(50), "read", show=False) == ""


@pytest.mark.parametrize(("total", "batch"), [(1, 1), (3, 1), (7, 2), (128, 32), (1000, 1)])
def test_there_are_at_most_ten_lines_and_the_last_one_says_that_all_is_done(total, batch, capsys):
    with progress_bar(total=total, unit="image") as lines:
        assert isinstance(lines, ProgressLines)
        for first in range(0, total, batch):
            lines.update(min(batch, total - first))
    output = capsys.readouterr().err.splitlines()
    assert 1 <= len(output) <= 10 and output[-1].startswith(f"{total} of {total} images")


def test_a_resumed_run_counts_on_and_its_text_is_that_of_the_step(capsys):
    with progress_bar(iter([41, 42]), "GRPO", 42, unit="step", initial=40) as lines:
        for step in lines:
            lines.set_postfix_str(f"accuracy {step}", refresh=False)
    assert re.fullmatch(r"GRPO: 42 of 42 steps, 0:00, accuracy 42\n", capsys.readouterr().err)
    for _ in progress_bar(iter([1, 2]), "unknown length"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_log_of_a_command_has_lines_and_no_bars(tiny_checkpoint, tmp_path):
    small = ["--shots", "1", "--test", "1", "--steps", "20", "--prompts-per-step", "1", "--group-size", "2"]
    small += ["--policy", str(tiny_checkpoint), "--max-new-tokens", "2", "--out", str(tmp_path / "run")]
    done = forks.run(main, ["train", *small])
    log = done.output + done.errors
    assert done.status == 0, log
    assert "\r" not in log and "it/s" not in log and "%|" not in log
    steps = [line for line in log.splitlines() if line.startswith("GRPO: ")]
    assert [line.split(",")[0] for line in steps] == [f"GRPO: {step} of 20 steps" for step in range(2, 21, 2)]
    assert all("accuracy" in line and "format" in line for line in steps)
    assert log.count("test images, before: ") == log.count("test images, after: ") == 1
