"""The page of `favor-lab app`: what it shows of an answer, and, with a gradio of our own, what it does with a click."""

import importlib.metadata
import io
import re
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from favor_lab import Question, draw_scene
from favor_lab.activities.images import Example
from favor_lab.show import page
from favor_lab.show.page import answer_page, answer_parts, build_page, import_gradio, install_commands, serve_page
from favor_lab.study.answering import Answer

LABELS = ("reading", "cooking", "a & b")
QUESTION = Question(LABELS)
GIVEN = Answer(
    "cooking", 0.6, "a pan <b>here</b>", "<think>a pan</think>", "", dict(zip(LABELS, (0.3, 0.6, 0.1), strict=True))
)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture
def asked(monkeypatch):
    """Every policy gives the same answer; the list has what it was asked."""
    calls = []

    def answer(policy, picture, labels, style, *, max_new_tokens):
        calls.append((policy, picture.image.size, labels, style, max_new_tokens))
        return [GIVEN]

    monkeypatch.setattr(page, "answer", answer)
    return calls


def text_of(html):
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_answer_probability_reasoning_and_the_labels_by_probability():
    html = "".join(answer_parts(GIVEN))
    assert text_of(html) == (
        "cooking answer 0.60 probability reasoning a pan &lt;b&gt;here&lt;/b&gt; "
        "probability of each label, after this reasoning cooking 0.60 reading 0.30 a &amp; b 0.10"
    )
    assert re.findall(r"width:([\d.]+)%", html) == ["60.0", "30.0", "10.0"]


def test_a_response_without_an_answer_is_shown_as_it_is():
    text = "<think>a pan</think><answer>frying</answer><script>alert(1)</script>"
    unlisted = Answer(None, None, "a pan", text, "", dict.fromkeys(LABELS, 1 / 3))
    html = "".join(answer_parts(unlisted))
    assert text_of(html).startswith("none of the labels answer response &lt;think&gt; a pan")
    assert "frying" in html and "&lt;script&gt;" in html and "<script" not in html
    assert "after this reasoning" not in html
    open_vocabulary = "".join(answer_parts(Answer("frying", 0.25, None, "<answer>frying</answer>")))
    assert text_of(open_vocabulary).startswith("frying answer 0.25 probability response")
    assert "each label" not in open_vocabulary


def test_a_file_is_read_by_our_own_decoder(asked):
    scene = draw_scene("cartoon", "test", 1).image
    html = answer_page("policy", png(scene), QUESTION, 9)
    assert asked == [("policy", scene.size, LABELS, "think", 9)]
    assert "data:image/jpeg;base64," in html and "cooking" in html
    for data, message in (
        (b"<b>text</b>", "it is none of JPEG, PNG, BMP, GIF, WEBP, TIFF"),
        (b"", "the file is empty (0 bytes)"),
        (png(scene)[:900], "cannot be read as an image"),
        (b"P6 2 2 255 " + bytes(12), "it is none of JPEG"),  # a PPM, which Pillow would read
    ):
        html = answer_page("policy", data, QUESTION, 9)
        assert message in html and 'role="alert"' in html and "<b>" not in html
    assert len(asked) == 1


def test_what_a_real_policy_says(tiny_policy, tiny_examples):
    """An untrained policy names no label, and the page says so."""
    html = answer_page(tiny_policy, Example(tiny_examples[0].image, "", "scene"), QUESTION, 4)
    assert text_of(html).startswith("none answer response")


def test_without_gradio_the_error_has_the_commands(monkeypatch):
    """Of what favor_lab needs all but Pillow, no extra, and favor_lab from where it was installed."""
    needed = ["torch<3,>=2", "pillow>=13", 'tyro; os_name == "nt"', 'trl>=1; extra == "trl"']
    package = SimpleNamespace(requires=needed, version="1.2", read_text=lambda name: '{"url": "file:///a/checkout"}')
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: package)
    commands = [
        'pip install gradio "torch<3,>=2" "tyro; os_name == \'nt\'"',
        'pip install --no-deps "file:///a/checkout"',
    ]
    assert install_commands() == commands
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match="admits no Pillow 13") as caught:
        import_gradio()
    assert " && ".join(commands) in str(caught.value)
    package.read_text = lambda name: None
    assert install_commands()[1] == 'pip install --no-deps "favor-lab==1.2"'


class Part:
    """A part of a page in a gradio of our own: keeps how it was made, and what happens on its events."""

    def __init__(self, kind, *values, **options):
        self.kind, self.values, self.options, self.events = kind, values, options, {}

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        return None

    def upload(self, *event, **options):
        self.events["upload"] = (*event, options)

    def click(self, *event, **options):
        self.events["click"] = (*event, options)

    def launch(self, **options):
        self.options["launched"] = options
        return None, "http://127.0.0.1:7860/", None

    def close(self, verbose):
        self.options["closed"] = True


@pytest.fixture
def parts(monkeypatch):
    """The parts of the page, by kind."""
    parts = {}

    def made(kind):
        return lambda *values, **options: parts.setdefault(kind, Part(kind, *values, **options))

    kinds = {kind: made(kind) for kind in ("Blocks", "Markdown", "File", "Dataset", "HTML")}
    layout = {"Row": nullcontext, "Column": lambda scale: nullcontext()}
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(**kinds, **layout))
    return parts


def test_dropping_and_clicking_ask_the_policy(parts, asked):
    assert build_page("policy", QUESTION, 9, "a run") is parts["Blocks"]
    file, drawn, shown = parts["File"], parts["Dataset"], parts["HTML"]
    assert parts["Blocks"].options["analytics_enabled"] is False and parts["Blocks"].options["delete_cache"]
    assert file.options["file_types"] == ["image"]
    ask_file, source, targets, options = file.events["upload"]
    assert (source, targets, options) == (file, [shown, file], {"api_visibility": "private"})
    html, left = ask_file(png(draw_scene("cartoon", "test", 1).image))
    assert "cooking" in html and left is None, "the field is free for the next file"
    ask_scene, source, target, options = drawn.events["click"]
    assert (source, target, options) == (drawn, shown, {"api_visibility": "private"})
    images = drawn.options["samples"]
    assert len(images) == drawn.options["samples_per_page"] == 16
    assert all("cooking" in ask_scene(index) for index in range(len(images)))
    assert len(asked) == 17


def test_a_folder_s_name_is_no_markdown(parts):
    build_page("policy", QUESTION, 9, "runs/![x](http://tracker/x.png)\n\n# <script>alert(1)</script>")
    heading = parts["Markdown"].values[0]
    assert heading.startswith("<h2>") and heading.endswith("</h2>") and "\n" not in heading, "one block of HTML"
    assert "<script" not in heading and "&lt;script&gt;" in heading


def test_the_page_is_for_this_machine_alone(parts, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    lines, blocks = [], Part("Blocks")
    with pytest.raises(KeyboardInterrupt):
        serve_page(blocks, 7861, lines.append)
    launched = blocks.options["launched"]
    assert (launched["server_name"], launched["server_port"]) == ("127.0.0.1", 7861)
    assert launched["share"] is False and launched["run_history"] is False and blocks.options["closed"]
    assert lines == ["the page is at http://127.0.0.1:7860/ for browsers on this machine; Ctrl-C ends it"]


@pytest.mark.parametrize(("port", "message"), [(7861, "port 7861 is in use"), (None, "ports from 7860 on are in use")])
def test_a_port_that_is_in_use(port, message):
    def launch(**options):
        raise OSError("set the GRADIO_SERVER_PORT environment variable")

    with pytest.raises(OSError, match=f"{message}: name a free one with --port"):
        serve_page(SimpleNamespace(launch=launch), port)
