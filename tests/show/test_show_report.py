from html.parser import HTMLParser

from PIL import Image

from favor_lab.activities.fewshot import Example
from favor_lab.grpo.support.records import StepRecord
from favor_lab.show.report import draw_figures, write_report
from favor_lab.study.evaluation import Answered, Evaluation

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
    evaluations = {NASTY: evaluation(NASTY), "after": evaluation()}
    records = [StepRecord(step=1, loss=1.0).to_dict()]
    figures = draw_figures(tmp_path / "figures", evaluations, examples(), records)
    path = write_report(tmp_path / "report.html", NASTY, evaluations, figures, {"note": NASTY}, examples(), [NASTY])
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags and not any(name.startswith("on") for name in page.attributes)
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert len(page.sources) == len(figures) + 2  # the pictures, and a thumbnail of each image
    assert page.data.count(NASTY) >= 7  # shown as it was written: title, note, cards, table head, text, settings
    assert "50.0%" in page.data and "95 % interval 9.5% to 90.5%" in page.data
