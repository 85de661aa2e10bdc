"""The page of `favor-lab app` in a headless Chromium: drop an image, click on a scene, read what the policy says.

Gradio needs an environment of its own. The test is skipped unless gradio is installed beside pytest, or
FAVOR_LAB_APP_PYTHON names the Python of an environment that has it.
"""

import base64
import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from favor_lab import draw_scene, load_policy
from favor_lab.activities.world import ACTIVITIES
from favor_lab.study.answering import answer

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("FAVOR_LAB_APP_PYTHON", sys.executable)
PATIENCE = 600_000  # milliseconds to wait for anything: a slow machine must not fail the test
SERVE = """
import sys

def watch(event, args):  # every name that is looked up, every address that is called
    host = args[0] if event == "socket.getaddrinfo" else args[1][0] if event == "socket.connect" else None
    if host not in (None, "127.0.0.1", "localhost", b"127.0.0.1", b"localhost"):
        print("CALLS", host, file=sys.stderr, flush=True)

sys.addaudithook(watch)
from favor_lab.cli import main
sys.exit(main(["app"]))
"""
DROP = """([button, data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0))
    const transfer = new DataTransfer()
    transfer.items.add(new File([bytes], name, {type}))
    for (const event of ["dragenter", "dragover", "drop"])
        button.dispatchEvent(new DragEvent(event, {dataTransfer: transfer, bubbles: true, cancelable: true}))
}"""


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """`favor-lab app` with the untrained pocket policy: its address, port and uploads."""
    if subprocess.run([PYTHON, "-c", "import gradio"], capture_output=True).returncode:
        pytest.skip("no gradio, which needs an environment of its own: name its Python in FAVOR_LAB_APP_PYTHON")
    home = tmp_path_factory.mktemp("app")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(home / "uploads")}
    with open(home / "errors", "wb") as errors:
        options = {"env": environment, "cwd": home, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        process = subprocess.Popen([PYTHON, "-c", SERVE], **options)
        try:
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert address, line + (home / "errors").read_text()
            running = SimpleNamespace(url=address[0], port=int(address[1]), uploads=home / "uploads")
            yield running
        finally:
            process.terminate()
            assert process.wait(timeout=600) == 143
    assert "CALLS" not in (home / "errors").read_text(), "the server calls nobody"
    assert [path for path in running.uploads.rglob("*") if path.name.startswith("dropped")] == []


@pytest.fixture
def page(browser, server):
    page = browser.new_page(viewport={"width": 1300, "height": 760})
    page.set_default_timeout(PATIENCE)
    strangers, complaints = [], []
    page.on("request", lambda request: strangers.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(server.url)
    page.get_by_text("The answer appears here.").wait_for()
    yield page
    assert [url for url in strangers if not url.startswith((server.url, "data:", "blob:"))] == []
    assert complaints == []
    page.close()


def drop(page, content, name, kind="image/png"):
    """Drop a file on the field, as from a folder of the desktop."""
    button = page.locator("button", has_text="Drop File Here").element_handle()
    page.evaluate(DROP, [button, base64.b64encode(content).decode(), name, kind])


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def check_answer(page, expected):
    """The page shows what the library answers."""
    assert page.locator(".fl-cards b").all_inner_texts() == [expected.label, f"{expected.probability:.2f}"]
    assert page.locator(".fl-body").inner_text() == expected.reasoning
    cells = page.locator(".fl-shares > span").all_inner_texts()
    shown = dict(zip(cells[::2], cells[1::2], strict=True))
    assert shown == {label: f"{share:.2f}" for label, share in expected.probabilities.items()}
    assert cells[0] == max(expected.probabilities, key=expected.probabilities.get)
    widths = page.locator(".fl-shares i").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True) and widths[0] > 5 * widths[-1]


def test_drop_an_image_and_read_the_answer(page, server, pictures):
    policy = load_policy()
    scenes = [draw_scene("cartoon", "test", index) for index in (9, 38)]
    answers = answer(policy, [scene.image for scene in scenes], ACTIVITIES, max_new_tokens=64)
    page.screenshot(path=pictures / "app-empty.png")
    for number, (scene, expected) in enumerate(
        zip(scenes, answers, strict=True)
    ):  # the field is free for a second file
        drop(page, png(scene.image), f"dropped-{number}.png")
        page.locator(".fl-body", has_text=expected.reasoning).wait_for()
        check_answer(page, expected)
        page.screenshot(path=pictures / f"app-answer-{number}.png")


def test_click_on_a_drawn_scene(page):
    assert page.locator(".gallery-item img").count() == 16
    page.locator(".gallery-item").nth(2).click()
    page.locator(".fl-cards").wait_for()
    (expected,) = answer(load_policy(), draw_scene("cartoon", "test", 7).image, ACTIVITIES, max_new_tokens=64)
    check_answer(page, expected)


def test_a_file_that_is_no_image(page, pictures):
    drop(page, b"<img src=x onerror=alert(1)>", "dropped<b>.png")
    page.get_by_role("alert").get_by_text("it is none of JPEG, PNG, BMP, GIF, WEBP, TIFF").wait_for()
    page.screenshot(path=pictures / "app-no-image.png")
    drop(page, b"a text", "dropped.txt", "text/plain")
    page.get_by_text("Invalid file type: dropped.txt").wait_for()
    assert page.locator(".fl-cards").count() == 0


def test_the_page_is_for_this_machine_alone(server):
    with pytest.raises(OSError):  # an address that a server for everybody would answer
        socket.create_connection(("127.0.0.2", server.port), timeout=60).close()


def test_gradio_still_needs_an_environment_of_its_own(server):
    """Once it admits Pillow 13, it can be an extra, and the command's error has another text."""
    code = "import importlib.metadata as m; print(*m.requires('gradio'), sep='\\n')"
    lines = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    (pillow,) = [line for line in lines if line.startswith("pillow")]
    assert "<13" in pillow, f"gradio admits {pillow}: give favor-lab an extra"
