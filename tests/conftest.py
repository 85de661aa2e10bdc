"""The fixtures of the tests: the small Qwen2-VL of `tiny`, its policy and its examples."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from favor_lab import share_cores

share_cores()  # before torch is imported; the processes and kernels that tests start inherit it
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: a thread each
    os.environ["OMP_NUM_THREADS"] = "1"

from pictures import leave_unrendered  # noqa: E402
from pretended_cuda import PretendedCuda, pretend  # noqa: E402
from tiny import make_checkpoint, make_examples, make_policy  # noqa: E402

collect_ignore_glob = ["benchmarks/[!t]*.py"]  # scripts, which test_benchmarks runs at their smallest


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist hand out the modules in the order of `pytest_collection_modifyitems`."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a worker of pytest-xdist: notebooks and modules with slow tests first, so that all workers end together."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.path.suffix == ".ipynb" or item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in the Hub layout: 2 + 2 layers, 320 tokens, float32, near-greedy generation_config."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny-qwen2-vl"))


@pytest.fixture
def tiny_policy(tiny_checkpoint):
    """A fresh policy per test: float32 on the CPU, LoRA rank 4 whose B matrices are not zero."""
    return make_policy(tiny_checkpoint)


@pytest.fixture
def tiny_examples():
    """Four examples of different sizes, so that their prompts differ: 4, 8, 6 and 16 image tokens."""
    return make_examples()


@pytest.fixture
def cuda(monkeypatch) -> Iterator[PretendedCuda]:
    """A CUDA device that is only pretended, for the whole test: `device="cuda"` works, under CUDA's rules."""
    with pretend(monkeypatch) as device:
        yield device


@pytest.fixture
def unrendered(request, monkeypatch) -> None:
    """Figures are made, but saved as one pixel, unless the test asks for `rendered`."""
    if "rendered" not in request.fixturenames:
        leave_unrendered(monkeypatch)


@pytest.fixture
def rendered() -> None:
    """Figures are rendered also in a module that leaves them `unrendered`."""


@pytest.fixture
def ctrl_c_raises():
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background and the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where the browser's screenshots go."""
    named = os.environ.get("FAVOR_LAB_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; a test that asks for it is skipped, with the reason, where there is none."""
    from jupyter_pages import FLAGS, find_chromium  # beside the tests that ask

    missing = 'no playwright: pip install -e ".[browser]"'
    playwright = pytest.importorskip("playwright.sync_api", reason=missing, exc_type=ImportError)
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on this machine: install one, or name it in CHROMIUM")
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        except playwright.Error as error:  # for example a stub that only says how to install one
            pytest.skip(f"{chromium} does not start: {str(error)[:300]}")
        yield browser
        browser.close()
