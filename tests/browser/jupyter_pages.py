"""A JupyterLab server of our own, and its pages in a headless Chromium, as a student would see and use them."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 900  # seconds to wait for anything: a slow machine must not fail the test
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
SETTINGS = {  # all cells in the page, so that they can be inspected; no dialogs, no news
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def find_chromium() -> str | None:
    """A Chromium of this machine (or the one that CHROMIUM names)."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Lab:
    """A running JupyterLab: its address, its token, the folder that it shows."""

    def __init__(self, folder: Path, url: str, token: str):
        self.folder, self.url, self.token = folder, url, token

    def ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.url}api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def stop_kernels(self) -> None:
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")


@contextmanager
def jupyterlab(folder: Path, home: Path) -> Iterator[Lab]:
    """JupyterLab on a free port of localhost, showing `folder`; all its files go to `home`."""
    places = {name: home / name.lower() for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = os.environ | {f"JUPYTER_{name}_DIR": str(path) for name, path in places.items()}
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
    }
    environment.pop("FAVOR_LAB_WIDGETS", None)
    for name, values in SETTINGS.items():
        file = home / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with open(home / "jupyterlab.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield Lab(folder, wait_for_server(process, places["RUNTIME"], home / "jupyterlab.log"), token)
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_server(process: subprocess.Popen, runtime: Path, log: Path) -> str:
    """The server's address from its file, once it answers there."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                url = json.loads(file.read_text())["url"]
                urllib.request.urlopen(f"{url}api", timeout=10).close()
                return url
            except (ValueError, KeyError, urllib.error.URLError, OSError):
                pass  # half written, or not listening yet
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


class NotebookPage:
    """A notebook in JupyterLab's own page."""

    def __init__(self, browser: Any, lab: Lab, name: str, pictures: Path):
        self.lab, self.pictures = lab, pictures
        self.page = browser.new_page(viewport={"width": 1500, "height": 1100})
        self.page.set_default_timeout(1000 * PATIENCE)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route(lambda url: not url.startswith(lab.url), self._no_network)
        self.strangers: list[str] = []
        self.page.goto(f"{lab.url}lab/tree/{name}?reset&token={lab.token}")
        self._wait_for(name)

    def _wait_for(self, name: str) -> None:
        self.name, self.taken = name, 0
        self.page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        self.page.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for()

    def open_instead(self, name: str) -> None:
        """Close the notebook without its changes, and open another: it is JupyterLab itself that takes long to load."""
        self.menu("File", "Close Tab")
        discard = self.page.locator(".jp-Dialog").get_by_role("button", name="Discard")
        self.until(
            lambda: not self.page.locator(".jp-NotebookPanel").count() or (discard.count() and discard.click()),
            "the notebook is closed",
        )
        self.lab.stop_kernels()
        self.menu("File", "Open from Path")
        self.page.locator(".jp-Dialog input").fill(name)
        self.page.keyboard.press("Enter")
        self._wait_for(name)

    def _no_network(self, route: Any) -> None:
        self.strangers.append(route.request.url)
        route.abort()

    def close(self) -> None:
        self.page.close()
        self.lab.stop_kernels()

    def menu(self, *items: str) -> None:
        """Click through the menu bar, such as ("Run", "Run All Cells")."""
        self.page.get_by_role("menuitem", name=items[0], exact=True).click()
        self.page.locator(".lm-Menu-item", has_text=items[1]).first.click()

    def clear_and_run_all(self) -> None:
        """Clear the stored outputs and counts, then run from top to bottom."""
        self.menu("Edit", "Clear Outputs of All Cells")
        self.until(lambda: not any(self.counts()), "the stored counts are gone")
        last_try = 0.0
        while not any(self.counts()):  # JupyterLab drops cells that are run before its kernel has answered
            if time.monotonic() - last_try > 15:
                last_try = time.monotonic()
                self.menu("Run", "Run All Cells")
            self.page.wait_for_timeout(200)

    def wait_for_end(self) -> None:
        """Wait until every code cell has its count, or an error occurs."""
        self.until(lambda: self.errors() or all(count.isdigit() for count in self.counts()), "every cell has run")

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds on the page. The TimeoutError names the condition."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if value := true():
                return value
            self.page.wait_for_timeout(200)
        self.photograph("timeout")
        raise TimeoutError(f"{self.name}: waited {PATIENCE} s until {what}")

    def counts(self) -> list[str]:
        """The counts of the code cells; a folded cell shows none, and is seen in the saved file alone."""
        prompts = self.page.locator(".jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)").all_text_contents()
        return [text.strip("[]: ") for text in prompts]

    def errors(self) -> list[str]:
        """Tracebacks and everything on stderr, as shown."""
        kinds = (
            '[data-mime-type="application/vnd.jupyter.error"]',
            '[data-mime-type="application/vnd.jupyter.stderr"]',
        )
        return self.page.locator(", ".join(kinds)).all_text_contents()

    # ------------------------------------------------------------------------------------- what the widgets show

    def dashboard(self, which: int = 0) -> Any:
        return self.page.locator(".fl-dashboard").nth(which)

    def status(self, which: int = 0) -> str:
        return self.dashboard(which).locator(".fl-status").inner_text()

    def newest(self, which: int = 0) -> int:
        """The newest step, from the dashboard's status line; 0 before the first."""
        match = re.search(r"step (\d+)", self.status(which))
        return int(match[1]) if match else 0

    def shown_step(self, which: int = 0) -> str:
        """The step that is shown, such as "3 of 80"."""
        return self.dashboard(which).locator(".fl-cards b").first.inner_text()

    def press(self, button: str, which: int = 0) -> None:
        self.dashboard(which).get_by_role("button", name=button).click()

    def slide(self, key: str, which: int = 0) -> None:
        """Move the slider with a key, as users without a mouse do."""
        self.dashboard(which).get_by_role("slider").press(key)

    def remember_texts(self, selector: str) -> None:
        """From now on, remember every text that the elements of a selector have in turn."""
        self.page.evaluate(
            """selector => {
                const seen = (window.seenTexts ??= {})[selector] = []
                new MutationObserver(() => {
                    for (const element of document.querySelectorAll(selector))
                        if (!seen.includes(element.textContent)) seen.push(element.textContent)
                }).observe(document.body, {childList: true, subtree: true, characterData: true})
            }""",
            selector,
        )

    def remembered(self, selector: str) -> list[str]:
        return self.page.evaluate("selector => window.seenTexts[selector]", selector)

    # -------------------------------------------------------------------------------------------- files and pictures

    def save(self) -> dict[str, Any]:
        """Save as a student would; return what is in the file."""
        file = self.lab.folder / self.name
        before = file.stat().st_mtime_ns
        self.menu("File", "Save Notebook")
        self.until(lambda: file.stat().st_mtime_ns != before, "the notebook is saved")
        return json.loads(file.read_text(encoding="utf-8"))

    def photograph(self, what: str = "") -> None:
        """The window as it is."""
        self.taken += 1
        name = "-".join(filter(None, [Path(self.name).stem, f"{self.taken:02}", what]))
        self.page.screenshot(path=self.pictures / f"{name}.png")

    def photograph_all(self) -> None:
        """The whole notebook, a window at a time."""
        scroll = self.page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer").first
        height = scroll.evaluate("element => element.scrollHeight")
        window = scroll.evaluate("element => element.clientHeight")
        for top in range(0, height, window - 60):
            scroll.evaluate("(element, top) => element.scrollTo(0, top)", top)
            self.photograph()
