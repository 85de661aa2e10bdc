"""The site (docs/): its pages offline in a headless Chromium, and what is done to notebooks and docstrings before.

Skipped where Sphinx and its parts (`pip install -e ".[docs]"`), axe-core or a Chromium are missing.
The pages of the API are left out here: they take a minute. The workflow builds all of it, with warnings as errors.
"""

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

for needed in ("sphinx", "myst_nb", "furo", "latex2mathml"):
    pytest.importorskip(needed, reason='pip install -e ".[docs]"')

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs" / "extensions"))
site_api, site_math, site_sources = map(importlib.import_module, ("site_api", "site_math", "site_sources"))

LOSS = "notebooks/06_loss.html"
PARTS = ("docs/*.md", "notebooks/06_loss.ipynb", "notebooks/13_other_ways_to_sample.ipynb", "data/results/README.md")
PAGES = ("docs/index.html", LOSS, "data/results/README.html", "search.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a site of some pages, built once."""
    out = tmp_path_factory.mktemp("site")
    options = ["-q", "-d", str(out / "read"), "-D", f"include_patterns={','.join(PARTS)}"]
    command = [sys.executable, "-m", "sphinx", "-c", "docs", *options, ".", str(out / "pages")]
    environment = {name: value for name, value in os.environ.items() if name != "GITHUB_REPOSITORY"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out / "pages"


@pytest.fixture(scope="module")
def open_page(browser, site):
    """open_page("docs/index.html"): the page, from its file. Nothing else may be asked for."""
    pages, strangers, complaints = [], [], []

    def stop(route):
        strangers.append(route.request.url)
        route.abort()

    def open_page(name, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.route(lambda url: not url.startswith(("file:", "data:")), stop)
        page.on("pageerror", lambda error: complaints.append(f"{name}: {error}"))
        page.goto((site / name.partition("?")[0]).as_uri() + "?".join(["", *name.split("?")[1:]]))
        return page

    yield open_page
    for page in pages:
        page.close()
    assert strangers == [] and complaints == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, name, colours):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[browser]"')
    page = open_page(name, color_scheme=colours)
    violations = axe.Axe().run(page).response["violations"]
    serious = [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert not serious, f"{len(serious)} in {name}:\n" + "\n".join(serious[:10])


@pytest.mark.browser
@pytest.mark.slow
def test_formulas_are_drawn_and_every_image_has_a_text(open_page):
    page = open_page(LOSS)
    sizes = page.locator("math").evaluate_all("all => all.map(e => [e.clientWidth, e.getBoundingClientRect().height])")
    assert len(sizes) > 30 and all(height > 5 for _, height in sizes)
    (fraction,) = page.locator("math mfrac").all()[:1]
    above, below = fraction.locator("> *").evaluate_all("parts => parts.map(e => e.getBoundingClientRect().bottom)")
    assert below > above + 5
    texts = page.locator("main img, article img").evaluate_all("all => all.map(e => [e.alt, e.naturalWidth])")
    assert len(texts) > 3 and all(alt and width for alt, width in texts)


@pytest.mark.browser
@pytest.mark.slow
def test_the_search_finds_and_the_keyboard_leads(open_page):
    page = open_page("search.html?q=advantage")
    page.locator("#search-results li a").first.wait_for()
    assert any(
        "06_loss.html" in link for link in page.locator("#search-results li a").evaluate_all("a => a.map(e => e.href)")
    )
    page = open_page("notebooks/13_other_ways_to_sample.html")
    page.keyboard.press("Tab")
    assert "Skip to content" in page.evaluate("document.activeElement.innerText")
    hint = page.locator("details", has_text="Hint").first
    hint.locator("summary").focus()
    page.keyboard.press("Enter")
    assert hint.evaluate("element => element.open")


@pytest.mark.browser
@pytest.mark.slow
def test_a_small_screen_needs_no_scrolling_sideways(open_page):
    page = open_page(LOSS, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("module", [site_api, site_math, site_sources], ids=lambda module: module.__name__)
def test_the_examples_of_the_extensions_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried and not failed


def an_app(repository):
    def path2doc(path):
        return os.path.splitext(os.path.relpath(path, ROOT))[0]

    project = SimpleNamespace(
        path2doc=path2doc, docnames={"notebooks/README", "favor_lab/recipes/README", "docs/index"}
    )
    return SimpleNamespace(
        srcdir=ROOT, project=project, config=SimpleNamespace(site_repository=repository, site_branch="main")
    )


@pytest.mark.parametrize(
    ("link", "known", "unknown"),
    [
        ("[guide](README.md#release)", "[guide](README.md#release)", "[guide](README.md#release)"),
        ("[home](../README.md#limits)", "[home](../docs/index.md)", "[home](../docs/index.md)"),
        ("[spine](../setup.py)", "[spine](https://x.org/r/blob/main/setup.py)", "spine (`setup.py`)"),
        ("[tests](../tests)", "[tests](https://x.org/r/tree/main/tests)", "`tests`"),
        ("[gone](gone.md)", "[gone](gone.md)", "[gone](gone.md)"),
        ("[paper](https://arxiv.org/abs/1)", "[paper](https://arxiv.org/abs/1)", "[paper](https://arxiv.org/abs/1)"),
        ("![figure](../setup.py)", "![figure](../setup.py)", "![figure](../setup.py)"),
    ],
)
def test_links_lead_to_pages_or_to_the_repository(link, known, unknown):
    assert site_sources.linked(link, ROOT / "notebooks", an_app("https://x.org/r")) == known
    assert site_sources.linked(link, ROOT / "notebooks", an_app("")) == unknown


def test_a_figure_has_the_text_of_its_cell_or_of_the_heading_above():
    image = {"output_type": "display_data", "data": {"image/png": ""}}
    cells = [
        {"cell_type": "markdown", "source": ["## 1 · The `mask`\n", "text"]},
        {"cell_type": "code", "source": "", "metadata": {}, "outputs": [image]},
        {"cell_type": "code", "source": "", "metadata": {"alt": "Two bars."}, "outputs": [image]},
        {"cell_type": "code", "source": "", "metadata": {}, "outputs": [{"output_type": "stream", "text": "1"}]},
    ]
    changed = json.loads(
        site_sources.notebook(json.dumps({"cells": cells}), ROOT / "notebooks" / "x.ipynb", an_app(""))
    )["cells"]
    texts = [cell["metadata"].get("mystnb", {}).get("image") for cell in changed[1:]]
    assert texts == [{"alt": "Figure: 1 · The mask"}, {"alt": "Two bars."}, None]


def test_the_citation_is_that_of_the_citation_file():
    bibtex = site_sources.citation(ROOT)
    assert bibtex.startswith("@software{favor_lab,") and "{{favor_lab: a readable lab" in bibtex
    assert "author = {{The favor_lab authors}}" in bibtex and "version = {0.1.0}" in bibtex


@pytest.mark.parametrize("repository", ["", "https://github.com/someone/favor_lab"])
def test_links_to_other_machines_need_the_address_of_the_repository(repository):
    badges = site_sources.badges(an_app(repository))
    assert badges.count("https://") == (4 if repository else 0)
    assert not repository or "colab.research.google.com/github/someone/favor_lab/blob/main/notebooks/00" in badges
    cells = [{"cell_type": "markdown", "source": ["# Title"]}]
    stored = site_sources.notebook(json.dumps({"cells": cells}), ROOT / "notebooks" / "01.ipynb", an_app(repository))
    assert ("[Open in Google Colab]" in stored) == bool(repository)


def test_the_container_takes_the_torch_that_the_project_admits():
    """In the development container and on Binder: PyTorch's CPU build, and extras that exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["postCreateCommand"]
    (torch,) = (requirement for requirement in project["dependencies"] if requirement.startswith("torch"))
    assert f"'{torch}'" in command
    for text in (command, (ROOT / "binder" / "postBuild").read_text()):
        (extras,) = re.findall(r"-e ['\"]\.\[([\w,]+)\]['\"]", text)
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()
        assert "https://download.pytorch.org/whl/cpu" in text
    assert os.access(ROOT / "binder" / "postBuild", os.X_OK)


def test_the_workflow_builds_the_site_as_the_contributors_do():
    import yaml

    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())["jobs"]
    commands = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    (build,) = (command for command in commands if "sphinx" in command)
    assert f"`{build}`" in (ROOT / "CONTRIBUTING.md").read_text()
    assert jobs["publish"]["needs"] == "build" and "default_branch" in jobs["publish"]["if"]


def test_docstrings_become_lists_tables_and_code():
    lines = """One line.

    rewards: (B, G), `nan` for
        an absent row
    eps: a * b

    | field | shape |
    | --- | --- |
    | mask | (N, L) |

    >>> 1 + 1
    2""".replace("\n    ", "\n").split("\n")
    text = "\n".join(site_api.rewritten(lines))
    assert "- ``rewards``: (B, G), ``nan`` for an absent row" in text and "- ``eps``: a \\* b" in text
    assert ".. list-table::" in text and "   * - mask\n     - (N, L)" in text
    assert ".. code-block:: pycon\n\n   >>> 1 + 1\n   2" in text
