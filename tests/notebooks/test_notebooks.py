"""The form of a notebook: nbval runs it and compares the outputs, this file checks everything else."""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PARTS = ("**You will be able to**", "**You need**", "**Time**", "## Exercises", "## Summary", "## Sources")
UNCOMPARED = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|usr|opt|tmp|var|mnt|private|work|content|Users)/|[A-Z]:\\\\")
MOST_BYTES, MEDIAN_LINES, MOST_LINES, LEAST_COMPARED = 500_000, 8, 25, 0.7


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """Everything in a notebook that is text: sources, printed output, plain representations."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (value for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == sorted({path.name[:2] for path in NOTEBOOKS})
    assert {"00_start_here.ipynb", "07_training.ipynb"} <= {path.name for path in NOTEBOOKS}


def test_it_was_run_once_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_it_begins_with_share_cores(notebook):
    """Before any import that may import torch."""
    assert code_cells(notebook)[0].source.startswith("from favor_lab import share_cores\n\nshare_cores()")


def test_nothing_went_wrong_and_nothing_was_said_aside(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", f"{cell.id}: {output.ename}"
            assert output.get("name") != "stderr", f"{cell.id}: {output.text}"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), f"{cell.id}: dead widget"


def test_no_widget_is_stored(notebook):
    """A widget works only while its kernel runs; what is stored is the picture next to it."""
    assert "widgets" not in notebook.metadata
    assert "model_id" not in nbformat.writes(notebook)


def test_it_names_no_path_of_one_machine(notebook):
    for text in texts(notebook):
        assert not MACHINE_PATH.search(str(text)), text


def test_what_is_folded_on_the_site_is_folded_in_jupyterlab_too(notebook):
    for cell in code_cells(notebook):
        tagged = "hide-input" in cell.metadata.get("tags", [])
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == tagged, cell.id


def test_it_has_one_title(notebook):
    """Others would stand beside it in the site's list of pages."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1


def test_it_is_small(path):
    assert path.stat().st_size < MOST_BYTES


def test_code_cells_are_short(notebook):
    lines = {cell.id: len(cell.source.splitlines()) for cell in code_cells(notebook)}
    assert median(lines.values()) <= MEDIAN_LINES
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_most_cells_are_compared_with_their_stored_output(notebook):
    compared = [not UNCOMPARED & set(cell.metadata.get("tags", [])) for cell in code_cells(notebook)]
    assert sum(compared) / len(compared) >= LEAST_COMPARED


def test_cells_are_plain_python(notebook):
    """No magics and no shell (nbval runs past their errors), no trailing semicolons, no clear_output."""
    for cell in code_cells(notebook):
        ast.parse(cell.source)
        assert not re.search(r";\s*$|clear_output|tqdm(?!\.auto)|# ?NBVAL", cell.source, re.MULTILINE), cell.id


def test_it_has_the_parts_of_a_lesson(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.match(r"# \d\d · \S", notebook.cells[0].source)
    places = [prose.find(part) for part in PARTS]
    assert -1 not in places and places == sorted(places), dict(zip(PARTS, places, strict=True))
    assert prose.count("**Predict") >= 3, "questions to answer before running"
    exercises = prose[prose.index("## Exercises") : prose.index("## Summary")]
    assert len(re.findall(r"^\d\. |^### Exercise ", exercises, re.MULTILINE)) >= 3


def test_no_answer_stands_under_the_exercises(notebook):
    """Only stubs and their checks."""
    sources = [cell.source for cell in notebook.cells]
    first = next(i for i, source in enumerate(sources) if source.startswith("## Exercises"))
    last = next(i for i, source in enumerate(sources) if source.startswith("## Summary"))
    for cell in notebook.cells[first:last]:
        assert cell.cell_type == "markdown" or re.search("raise NotImplementedError|@check", cell.source), cell.id


def test_links_lead_somewhere(notebook):
    for text in texts(notebook):
        for target in re.findall(r"\]\(([^)#\s]+)\)", str(text)):
            assert target.startswith("https://") or (FOLDER / target).exists(), target


def test_each_sanitising_rule_has_a_reason_and_a_use():
    rules = (Path(__file__).parent / "nbval_sanitize.cfg").read_text()
    reasons = re.findall(r"^\[\w[^:]*: .+\]$", rules, re.MULTILINE)
    patterns = re.findall(r"^regex: (.+)$", rules, re.MULTILINE)
    assert len(reasons) == len(patterns) <= 6
    printed = "\n".join(str(text) for path in NOTEBOOKS for text in texts(nbformat.read(path, as_version=4)))
    assert [pattern for pattern in patterns if not re.search(pattern, printed)] == []
