import importlib.metadata
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from favor_lab.activities.fewshot import Example
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.report import RunFolder, draw_figures, plain, versions, write_report

NASTY = "<script>alert(1)</script>&amp;\"'<img src=x onerror=alert(1)> \u202e 中文"


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.attributes: set[str] = set()
        self.data = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data += data


def evaluation(text="<think>x</think>"):
    wrong = Answered("photos/<1>.jpg", "reading", NASTY, False, False, 0, 0, text)
    right = Answered("2.jpg", "reading", "reading", True, True, 2, 1, text)
    return Evaluation(NASTY, "think", ["reading"], [wrong, right], 1.0)


def examples():
    return [Example(Image.new("RGBA", (30, 20)), "reading", source) for source in ("photos/<1>.jpg", "2.jpg")]


def test_a_report_is_one_page_without_script_or_network(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.append(StepRecord(step=1, loss=1.0))
    evaluations = {NASTY: evaluation(NASTY), "after": evaluation()}
    figures = draw_figures(folder, evaluations, examples())
    path = write_report(folder.path / "report.html", NASTY, evaluations, figures, {"note": NASTY}, examples())
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags and not any(name.startswith("on") for name in page.attributes)
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert len(page.sources) == len(figures) + 2  # the pictures, and a thumbnail of each image
    assert page.data.count(NASTY) >= 6  # shown as it was written: title, cards, table head, text, settings
    assert "50.0%" in page.data and "95 % interval 9.5% to 90.5%" in page.data


def test_a_run_folder_keeps_records_as_they_arrive(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "run")
    folder.save_settings({"settings": GRPOSettings(), "root": Path("x")})
    for step in (1, 2, 3):
        folder.append(StepRecord(step=step, loss=float("nan")))
        assert RunFolder.open(folder.path).records()[-1]["step"] == step
    assert folder.records()[0] == StepRecord(step=1).to_dict()
    assert folder.settings["settings"]["group_size"] == 8 and folder.settings["root"] == "x"
    assert folder.settings["versions"]["torch"] == versions()["torch"] == importlib.metadata.version("torch")


def test_a_line_that_was_cut_off_is_left_out_and_rewinding_removes_it(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    for step in (1, 2, 3):
        folder.append({"step": step})
    with open(folder.path / "records.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in folder.records()] == [1, 2, 3]
    folder.rewind(2)
    folder.append({"step": 3, "again": True})
    assert folder.records() == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        RunFolder.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=f"cannot write to the run folder {place}"):
            RunFolder.create(place)


def test_only_a_run_folder_can_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_plain_data():
    data = {"a": np.float32(0.5), "b": torch.tensor([1, 2]), "c": (float("inf"), Path("x")), 3: True, "d": None}
    assert json.loads(json.dumps(plain(data))) == {"a": 0.5, "b": [1, 2], "c": [None, "x"], "3": True, "d": None}
