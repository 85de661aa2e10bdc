"""What the browser's tests share: the headless Chromium, and where its screenshots go."""

import os
from pathlib import Path

import pytest

from jupyter_pages import FLAGS, find_chromium


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where the screenshots go."""
    named = os.environ.get("FAVOR_LAB_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser():
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
