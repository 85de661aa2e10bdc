"""What a stranger's folder is called, and what a policy writes, is shown as text that can be saved: it acts nowhere and
ends nothing. Marks that end lines, markup, turned writing, control characters, names that are not UTF-8.
"""

import warnings
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from jupyter_client.session import json_packer
from PIL import Image

from favor_lab.activities.fewshot import Example
from favor_lab.grpo.support.records import StepRecord
from favor_lab.show.charts import plot_changes, plot_moves, plot_shots, plot_transfer
from favor_lab.show.curves import plot_coverage, plot_curves, plot_records, record_curves
from favor_lab.show.dashboard import Dashboard
from favor_lab.show.evaluations import plot_before_after, plot_confusion, plot_examples
from favor_lab.show.groups import plot_samples
from favor_lab.show.markup import completion_html, element, image_html
from favor_lab.show.profile import plot_profile
from favor_lab.show.report import draw_figures, file_stems, write_report
from favor_lab.show.tokens import plot_tokens, tokens_html
from favor_lab.show.widgets import GroupChoices, _controls
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.measures import Measured
from favor_lab.study.run_folder import RunFolder
from favor_lab.study.tokens import Token
from pictures import png

TEXTS = {
    "lines": "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh",
    "markup": "</td></script><script>alert(1)</script><img src=x onerror=alert(1)>'\" &lt; ]]> -->",
    "turned": "\u202egnp.exe\u2066 \u200e\u200b\ufeff",
    "control": "\x1b[2J\x1b]0;title\x07\x00\x08\x7f\x9b31m",
    "not UTF-8": b"caf\xe9".decode(errors="surrogateescape") + "\ud800",
    "mathematics": r"$\frac{a}{$ _ ^ \input{x} %",
    "private": "_nolegend_",
    "long": "x" * 5000,
    "other scripts": "читать 読む \U0001f6b4\u200d♂️ \u0e01\u0e33",
}
ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form", "style"}
IMAGE = Image.new("RGB", (28, 28), "teal")


@pytest.fixture(params=TEXTS, ids=str)
def text(request):
    return TEXTS[request.param]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    """A glyph that is missing, a layout that does not fit, a message that has to be mended."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Parts(HTMLParser):
    """The tags, the attributes and the text of markup."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.attributes, self.data = set(), [], ""
        markup.encode()  # can be saved
        self.feed(markup)
        self.close()
        assert not self.tags & ACTIVE
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        assert all(value.startswith("data:image/") for name, value in self.attributes if name in ("src", "href"))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.data += data


def written(text):
    return text.encode("utf-8", "backslashreplace").decode()


def evaluation(text):
    answers = [
        Answered(f"{text}/{i}.png", text, answer, answer == text, True, 1, 1, f"<answer>{text}</answer>")
        for i, answer in enumerate([text, "other", None])
    ]
    return Evaluation(text, "think", [text, "other"], answers, 1.0)


def samples(text):
    numbers = {"rewards": {text: 1.0}, "reward": 1.0, "group": 0}
    return [
        {"text": f"<think>{text}</think>{text}", "label": text, "source": text, "advantage": float(i), **numbers}
        for i in range(2)
    ]


def records(text):
    labels = {text: {"completions": 4, "right": 2, "right_so_far": 2}}
    one = StepRecord(step=1, loss=0.1, reward=1.0, rewards={text: 0.5}, labels=labels, samples=samples(text))
    return [{**one.to_dict(), "step": step} for step in (1, 2)]


def test_markup_of_any_text_is_text(text):
    assert written(text) in Parts(element("p", text)).data
    assert written(text) in dict(Parts(element("p", title=text)).attributes)["title"]
    assert written(text)[:1200] in Parts(completion_html(text)).data
    image_html(IMAGE, text).encode()
    arrow = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
    shown = Parts(tokens_html([Token(text, -0.5, 1.2, 0.1, 0.2, 0.3, True, False)], "ratio")).data
    assert written(text).replace("\n", arrow) in shown


SHORT = " ".join(text for text in TEXTS.values() if len(text) < 99)


@pytest.mark.slow
@pytest.mark.parametrize("text", [SHORT, "x" * 300, TEXTS["private"]], ids=["short ones", "long", "private"])
def test_any_text_can_be_drawn(text):
    measured = {text: Measured(0.4, 0.3, 0.5)}
    figures = [
        plot_shots({text: {text: {1: measured[text]}, "b": {1: measured[text]}}}, {text: {text: 0.5}}, text),
        plot_transfer({text: {(text, text): 0.5}}, [text]),
        plot_moves({text: {text: {text: (measured[text],) * 2}}}, {text: text}),
        plot_changes({text: measured}, {text: text}, text),
        plot_records(records(text), text),
        plot_coverage(records(text), text),
        plot_curves(record_curves(records(text)), [1, 2], text),
        plot_confusion(evaluation(text), text),
        plot_before_after({text: evaluation(text), "b": evaluation(text)}, text),
        plot_examples([Example(IMAGE, text, f"{text}/{i}.png") for i in range(3)], evaluation(text), title=text),
        plot_samples(IMAGE, samples(text), text),
        plot_tokens([Token(text, -0.5, 1.2, 0.1, 0.2, 0.3, True, False)], title=text),
        plot_profile(SimpleNamespace(to_dict=lambda: {"phases": {text: {"seconds": 1, "bound": 1}}}), text),
    ]
    for figure in figures:
        assert png(figure).width > 100


def report_of(text, folder, figures=None):
    """The markup of a report behind its head."""
    evaluations = {text: evaluation(text), "after": evaluation(text)}
    examples = [Example(IMAGE, text, answer.source) for answer in evaluations["after"].answers]
    settings = {text: {"labels": [text], "root": text}}
    path = write_report(folder / "report.html", text, evaluations, figures or {}, settings, examples, [text])
    head, _, body = path.read_bytes().decode().partition("</style>")
    assert "default-src 'none'" in head
    return Parts(body)


def test_a_report_of_any_text_reads_back(text, tmp_path):
    assert report_of(text, tmp_path).data.count(written(text)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("text", [SHORT, "x" * 300], ids=["short ones", "long"])
def test_a_report_of_any_text_has_its_figures(text, tmp_path):
    examples = [Example(IMAGE, text, answer.source) for answer in evaluation(text).answers]
    group = {
        "source": examples[0].source,
        "label": text,
        "texts": [text],
        "rewards": {text: [1.0]},
        "advantages": [0.0],
    }
    evaluations = {text: evaluation(text), text + ".": evaluation(text)}
    figures = draw_figures(tmp_path / "figures", evaluations, examples, records(text), {"before": group})
    assert len(figures) == len(set(figures.values())) == len(list((tmp_path / "figures").iterdir())) == 8
    report_of(text, tmp_path, figures)


def test_a_run_folder_of_any_text_reads_back(text, tmp_path):
    folder = RunFolder(tmp_path)
    for record in records(text):
        folder.append(record)
    folder.save("settings.json", {"labels": [text]})
    assert [record["samples"][0]["text"] for record in folder.records()] == [samples(text)[0]["text"]] * 2
    folder.rewind(1)
    assert [record["step"] for record in folder.records()] == [1]
    assert folder.records()[0]["samples"][0]["label"] == folder.settings["labels"][0] == text


def test_a_dashboard_of_any_text_can_be_sent_and_saved(text):
    dashboard = Dashboard(records(text), title=text, interactive=True)
    box = dashboard.widget()
    Parts(dashboard._view.view.value)
    sent = [json_packer(widget.get_state(["value"])) for widget in (dashboard._view.view, dashboard._view.status)]
    assert all(message.decode() for message in sent) and box.children
    shots = SimpleNamespace(train=[Example(IMAGE, text, text)])
    json_packer(_controls(shots, GroupChoices())["image"].get_state()["_options_labels"]).decode()


def test_names_of_figures_are_good_on_every_system(tmp_path):
    """Windows and macOS take names that differ in the case of letters for one, and Windows some for devices."""
    names = ["Zero shot", "zero-shot", "zero shot ", "con", "aux.txt", "a:b?", "x" * 300, "x" * 299, "\u202e", "читать"]
    stems = file_stems(names)
    assert list(stems) == names and len({stem.lower() for stem in stems.values()}) == len(names)
    assert all(stem.isascii() and stem.replace("_", "").isalnum() or stem in ("_", "__2") for stem in stems.values())
    figures = draw_figures(tmp_path / "figures", {name: evaluation("reading") for name in names[:2]})
    assert {path.name for path in figures.values()} == {path.name for path in (tmp_path / "figures").iterdir()}
    assert [path.stem for path in figures.values()][1:] == ["confusion_Zero_shot", "confusion_zero_shot_2"]


def test_a_picture_that_is_gone_or_broken_leaves_its_place_empty(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for source in (tmp_path / "broken.png", tmp_path / "gone.png", "x" * 5000, "a\0b", tmp_path):
        assert Dashboard().image(str(source)) is None
