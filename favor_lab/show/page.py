"""A page in the browser: an image is dropped, and a policy's answer, its probability and its reasoning appear.

Gradio is imported only here, when a page is built. It needs an environment of its own, since it admits no Pillow 13.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from favor_lab.activities.images import Example, decode_image
from favor_lab.activities.world import SETS, draw_scene
from favor_lab.show.markup import CSS, Element, cards_html, completion_html, element, image_html, joined
from favor_lab.show.style import BLUE, GREY
from favor_lab.study.answering import Answer, answer

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.question import Question

HOST = "127.0.0.1"  # nobody but this machine
INDICES = (1, 4, 7, 9)  # of the drawn scenes to click on, in each set
STYLE = """<style>
.html-container:has(.fl-paper) { padding: 0 !important; }
.fl-page .fl-group { flex-wrap: wrap; margin: 4px; } .fl-page .fl-rows { min-width: 260px; }
.fl-page figure { flex-basis: 240px; } .fl-page img { width: 240px; }
.fl-page .fl-cards b { font-size: 22px; }
.fl-page .fl-body { font-size: 15px; margin: 2px 0 14px; max-height: 14em; }
.fl-page .fl-note { margin: 14px 0 2px; }
.fl-shares { display: grid; grid-template-columns: fit-content(45%) 1fr max-content; gap: 3px 12px; align-items: center;
  max-height: 30em; overflow-y: auto; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.fl-shares i { display: block; height: 10px; min-width: 1px; }
</style>"""


def import_gradio() -> Any:
    """The library gradio, or an ImportError with the commands that work: no extra of favor_lab could be resolved."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "the page needs gradio, which admits no Pillow 13 and so needs an environment of its own: make one "
            f"(python -m venv app), and there: {' && '.join(install_commands())}"
        ) from error
    return gradio


def install_commands() -> list[str]:
    """What installs gradio, all that favor_lab needs but Pillow 13, and favor_lab from where it was installed."""
    package = importlib.metadata.distribution("favor-lab")
    needed = [name for name in package.requires or [] if "extra ==" not in name and not name.startswith("pillow")]
    origin = json.loads(package.read_text("direct_url.json") or "{}").get("url", f"favor-lab=={package.version}")
    quoted = " ".join('"' + name.replace('"', "'") + '"' for name in needed)  # a marker has quotes of its own
    return [f"pip install gradio {quoted}", f'pip install --no-deps "{origin}"']


def answer_page(policy: Policy, picture: Example | bytes, question: Question, max_new_tokens: int) -> Element:
    """HTML about one image (bytes: a file of one): the policy's answer, or why the file cannot be read."""
    try:
        example = Example(decode_image(picture, "the file"), "", "file") if isinstance(picture, bytes) else picture
        (given,) = answer(policy, example, question.labels, question.style, max_new_tokens=max_new_tokens)
    except ValueError as error:
        return element("div", element("span", str(error), class_="fl-outside"), class_="fl-paper fl-page", role="alert")
    figure = element("figure", image_html(example.image, "the image that was asked about", side=560))
    rows = element("div", *answer_parts(given), class_="fl-rows")
    return element("div", element("div", figure, rows, class_="fl-group"), class_="fl-paper fl-page")


def answer_parts(given: Answer) -> list[Element]:
    """Answer and probability, the reasoning (without an answer the response), and a bar per label, highest first."""
    numbers = {"answer": given.label or ("none of the labels" if given.probabilities else "none")}
    if given.probability is not None:
        numbers["probability"] = f"{given.probability:.2f}"
    title, text = "response", completion_html(given.text)
    if given.label and given.reasoning:
        title, text = "reasoning", joined(given.reasoning)
    parts = [cards_html(numbers), element("div", title, class_="fl-note"), element("div", text, class_="fl-body")]
    cells: list[Element] = []
    for label, share in sorted(given.probabilities.items(), key=lambda item: -item[1]):
        bar = element("i", style=f"width:{100 * share:.1f}%;background:{BLUE if label == given.label else GREY}")
        cells += [element("span", label), element("div", bar), element("span", f"{share:.2f}")]
    if cells:
        title = "probability of each label" + ", after this reasoning" * (title == "reasoning")
        parts += [element("div", title, class_="fl-note"), element("div", *cells, class_="fl-shares")]
    return parts


def build_page(policy: Policy, question: Question, max_new_tokens: int, title: str) -> Any:
    """The page as gradio's Blocks: a field to drop a file on, drawn scenes to click on, and the answer beside them."""
    gradio = import_gradio()
    scenes = [draw_scene(name, "test", index) for name in SETS for index in INDICES]

    def ask(picture: Example | bytes) -> str:
        return answer_page(policy, picture, question, max_new_tokens)

    def ask_file(data: bytes) -> tuple[str, None]:
        return ask(data), None  # the field is empty again, for the next file

    def ask_scene(index: int) -> str:
        return ask(Example(scenes[index].image, "", scenes[index].source))

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(60, 60)) as page:
        gradio.Markdown(element("h2", " ".join(title.split())))  # in HTML a folder's name is no Markdown
        with gradio.Row():
            with gradio.Column(scale=1):
                file = gradio.File(label="Drop an image", file_types=["image"], type="binary", height=140)
                images = [[scene.image] for scene in scenes]
                gallery = {"components": ["image"], "samples": images, "samples_per_page": len(images)}
                drawn = gradio.Dataset(label="or click on a drawn scene", type="index", **gallery)
            with gradio.Column(scale=2):
                hint = element("div", "The answer appears here.", class_="fl-paper")
                shown = gradio.HTML(hint, apply_default_css=False)
        file.upload(ask_file, file, [shown, file], api_visibility="private")
        drawn.click(ask_scene, drawn, shown, api_visibility="private")
    return page


def serve_page(page: Any, port: int | None, tell: Callable[[str], None] = print) -> None:
    """Serve the page to this machine alone, until Ctrl-C; port None: the first that is free from 7860 on.

    Raises OSError for a port that another program uses.
    """
    options: dict[str, Any] = {"server_name": HOST, "server_port": port, "share": False, "run_history": False}
    options |= {"ssr_mode": False, "quiet": True, "footer_links": [], "max_file_size": "64mb", "head": CSS + STYLE}
    try:
        _, address, _ = page.launch(prevent_thread_lock=True, **options)
    except OSError as error:
        message = f"port {port} is in use" if port is not None else "the ports from 7860 on are in use"
        raise OSError(f"{message}: name a free one with --port") from error
    tell(f"the page is at {address} for browsers on this machine; Ctrl-C ends it")
    try:
        while True:
            time.sleep(1)
    finally:
        page.close(verbose=False)
