"""The course in JupyterLab, in a headless Chromium: what a student sees, and whether the widgets work as described.

Screenshots of every page are kept in pytest's folder for temporary files, or in the folder that FAVOR_LAB_SCREENSHOTS
names. Skipped where playwright or a Chromium is missing.
"""

import shutil
from pathlib import Path

import nbformat
import pytest

from jupyter_pages import NotebookPage, jupyterlab

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RUN_HERE = ("00_start_here.ipynb", "07_training.ipynb")
OTHERS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb") if path.name not in RUN_HERE)

SETUP = """\
from favor_lab import Dashboard, GroupExplorer, GRPOSettings, few_shot, load_activities, load_policy, sample_groups
from favor_lab import TokenMicroscope, encode_prompts, score_completions, train

policy = load_policy()
shots = few_shot(load_activities("cartoon"), shots=1, validation=0, test=1)
endless = GRPOSettings(steps=100_000, prompts_per_step=2, group_size=4, max_new_tokens=32)"""
RUN = """\
dashboard = Dashboard(shots=shots, total=endless.steps)
records = list(dashboard.watch(train(policy, shots, endless)))"""
AFTER = """\
assert records == dashboard.records and [record.step for record in records] == list(range(1, len(records) + 1))
assert len(sample_groups(policy, encode_prompts(policy, shots.train[:1], shots.labels), 4, 16, seed=0)) == 4
print("kept", len(records), "shown", dashboard.step)"""
SAVED = """\
Dashboard(records, shots)"""
EXPLORE = """\
GroupExplorer(policy, shots)"""
TOKENS = """\
prompts = encode_prompts(policy, shots.train[:2], shots.labels)
rollout = sample_groups(policy, prompts, 4, 32, seed=0)
TokenMicroscope(policy, rollout, score_completions(policy, prompts, rollout))"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """JupyterLab on a copy of the notebooks and one notebook of our own, with default settings."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "runs"))
    write_notebook(folder / "controls.ipynb", SETUP, RUN, AFTER, RUN, AFTER, SAVED)
    write_notebook(folder / "explore.ipynb", SETUP, EXPLORE, TOKENS)
    with jupyterlab(folder, home) as running:
        yield running


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    spec = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), path)


@pytest.fixture
def open_notebook(browser, lab, pictures):
    pages = []

    def opened(name):
        pages.append(NotebookPage(browser, lab, name, pictures))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def open_page(browser, lab, pictures):
    """Notebooks that nobody changes, one after the other in one JupyterLab."""
    pages = []

    def opened(name):
        if pages:
            pages[0].open_instead(name)
        else:
            pages.append(NotebookPage(browser, lab, name, pictures))
        return pages[0]

    yield opened
    for page in pages:
        page.close()


def check_page(page):
    """Nothing on a page is broken, and everything was loaded from this machine."""
    assert page.complaints == []
    assert page.strangers == []
    assert page.errors() == []
    dead = page.page.get_by_text("Error displaying widget").or_(page.page.get_by_text("Loading widget"))
    assert dead.count() == 0
    assert page.page.locator("mjx-merror, .MathJax_Error").count() == 0


def check_formulas(page):
    """Where the text has formulas, MathJax has set them."""
    sources = [cell.source for cell in nbformat.read(NOTEBOOKS / page.name, as_version=4).cells]
    if any("$" in source for source in sources):
        page.until(lambda: page.page.locator("mjx-container").count() > 0, "formulas are set")


def check_file(notebook):
    """What was saved: every code cell ran once, in order, and none failed."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert not [o for cell in cells for o in cell["outputs"] if o.get("name") == "stderr"]


def test_start_here_runs_from_top_to_bottom(open_notebook):
    page = open_notebook("00_start_here.ipynb")
    page.clear_and_run_all()
    page.wait_for_end()
    page.photograph_all()
    check_page(page)
    check_formulas(page)
    check_file(page.save())


def test_training_shows_its_run(open_notebook):
    """The dashboard's numbers change while the cell runs; afterwards its slider goes back through the steps."""
    page = open_notebook("07_training.ipynb")
    page.remember_texts(".fl-status")
    page.clear_and_run_all()
    page.dashboard().wait_for()
    page.dashboard().scroll_into_view_if_needed()
    page.until(lambda: len(page.remembered(".fl-status")) > 3 or page.errors(), "the numbers have changed three times")
    page.photograph("while-training")
    page.wait_for_end()
    running = [text for text in page.remembered(".fl-status") if "running" in text]
    assert len(running) >= 3, running
    assert page.status() == "step 80 of 80" and page.shown_step() == "80 of 80"
    assert page.dashboard().get_by_role("button", name="Stop").is_disabled()
    page.slide("Home")
    page.until(lambda: page.shown_step() == "1 of 80", "the first step is shown")
    page.slide("ArrowRight")
    page.until(lambda: page.shown_step() == "2 of 80", "the second step is shown")
    page.photograph("second-step")
    page.photograph_all()
    check_page(page)
    check_formulas(page)
    saved = page.save()
    check_file(saved)
    bundles = [o["data"] for cell in saved["cells"] for o in cell.get("outputs", []) if "data" in o]
    (bundle,) = [data for data in bundles if "Dashboard" in "".join(data.get("text/plain", ""))]
    assert {"image/png", "text/plain"} < bundle.keys(), "whoever has no widgets sees a picture"


def test_buttons_and_slider_work_while_a_run_goes_on(open_notebook):
    """Pause, look back, resume, stop; then the kernel's interrupt; each time the records are kept."""
    page = open_notebook("controls.ipynb")
    page.clear_and_run_all()
    page.until(lambda: page.errors() or (page.dashboard().count() and page.newest() >= 3), "three steps are done")
    assert page.errors() == []
    page.press("Pause")
    page.until(lambda: "paused" in page.status(), "the run is held")
    step = page.newest()
    page.slide("Home")
    page.until(lambda: page.shown_step().startswith("1 of"), "the first step is shown while the run is held")
    page.photograph("paused-at-first-step")
    assert page.newest() == step and "paused" in page.status()
    page.press("Resume")
    page.until(lambda: page.newest() > step, "the run goes on")
    assert page.shown_step().startswith("1 of"), "a slider that was moved stays where it is"
    page.slide("ArrowRight")
    page.until(lambda: page.shown_step().startswith("2 of"), "the slider moves while the run goes on")
    page.slide("End")
    page.until(lambda: int(page.shown_step().split()[0]) > step, "the newest step is followed again")
    page.press("Stop")
    page.until(lambda: page.status().startswith("stopped after step"), "the run has ended")
    page.photograph("stopped")
    page.until(lambda: page.dashboard(1).count() and page.newest(1) >= 2, "the second run shows its steps")
    page.menu("Kernel", "Interrupt Kernel")
    page.wait_for_end()
    page.photograph_all()
    assert page.status(1).startswith("interrupted after step") and "kept" in page.status(1)
    check_page(page)
    check_file(page.save())
    printed = page.page.get_by_text("kept").filter(has_text="shown").all_text_contents()
    assert len([text for text in printed if text.startswith("kept ")]) >= 2


def test_group_and_tokens_can_be_explored(open_notebook):
    """Another scale gives other advantages, another image another group, another quantity other colours."""
    page = open_notebook("explore.ipynb")
    page.clear_and_run_all()
    page.wait_for_end()
    explorer, microscope = page.page.locator(".fl-explorer"), page.page.locator(".fl-microscope")
    explorer.locator(".fl-table").wait_for()
    microscope.locator(".fl-tokens").wait_for()
    before = explorer.locator(".fl-group").inner_text()
    explorer.get_by_role("button", name="none").click()
    page.until(lambda: explorer.locator(".fl-group").inner_text() != before, "the advantages have changed")
    texts = explorer.locator(".fl-body").all_text_contents()
    explorer.get_by_label("image").select_option(index=5)
    page.until(lambda: explorer.locator(".fl-body").all_text_contents() != texts, "another group was sampled")
    page.photograph("explorer")
    colours = microscope.locator(".fl-token").first.get_attribute("style")
    legend = microscope.locator(".fl-scale").inner_text()
    microscope.get_by_role("button", name="log-probability").click()
    page.until(lambda: microscope.locator(".fl-scale").inner_text() != legend, "another scale is shown")
    hints = microscope.locator(".fl-token").evaluate_all("tokens => tokens.map(token => token.title)")
    assert all("log-probability" in hint and "ratio 1.00" in hint for hint in hints) and colours
    microscope.scroll_into_view_if_needed()
    page.photograph("microscope")
    check_page(page)


@pytest.mark.parametrize("name", OTHERS)
def test_every_page_looks_as_it_should(open_page, name):
    """As it is committed, without running it."""
    page = open_page(name)
    check_formulas(page)
    page.photograph_all()
    check_page(page)
