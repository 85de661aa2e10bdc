"""The course's numbers, as the instructors' page states them."""

import re

import pytest

import course
import labs
import lessons

TABLE = re.search(r"<!-- begin course.md -->\n(.*?)<!-- end course.md -->", course.GUIDE.read_text(), re.DOTALL)[1]
PAGES = [*sorted(course.NOTEBOOKS.glob("*.ipynb")), *labs.SOURCES]
WRONG = {path: labs.planted(path.stem) for path in labs.SOURCES} | {
    path: lessons.planted(path) for path in PAGES if path not in labs.SOURCES and lessons.exercises(path)
}
PLANTED = {path.stem: sum(map(len, wrong.values())) for path, wrong in WRONG.items()}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_stated_counts_are_those_of_the_notebooks(path):
    """Whether each wrong answer is rejected is tested one by one in test_labs."""
    count = PLANTED.get(path.stem)
    row = course.count(path, f"{count} of {count}" if count else "").row()
    assert f"| {' | '.join(row)} |" in TABLE, "run python tests/notebooks/course.py --write"


def test_the_stated_seconds_are_at_most_ten_minutes():
    """Of the reading notebooks, as measured when the table was written."""
    seconds = {
        row.split(" | ")[0].strip("| "): int(row.strip("| \n").split(" | ")[-1]) for row in TABLE.splitlines()[2:]
    }
    assert sum(seconds[path.stem] for path in PAGES if path not in labs.SOURCES) <= 600


def test_the_page_of_wrong_answers_has_them_all():
    page = course.WRONG.read_text()
    assert f"{sum(PLANTED.values())} wrong answers" in page and "**taken**" not in page
    for by_exercise in WRONG.values():
        for wrong in (wrong for answers in by_exercise.values() for wrong in answers):
            assert f"| {wrong.mistake} |" in page, "run python tests/notebooks/course.py --write"


def test_a_row_counts_what_is_there(tmp_path):
    import nbformat

    notebook = nbformat.v4.new_notebook()
    text = "## Exercises\n\n1. *Look.* At it.\n2. *Vary.* It.\n\n## Summary"
    notebook.cells = [
        nbformat.v4.new_markdown_cell(text),
        nbformat.v4.new_code_cell("1\n2\n3"),
        nbformat.v4.new_code_cell("4", metadata={"tags": ["nbval-ignore-output"]}),
    ]
    nbformat.write(notebook, tmp_path / "x.ipynb")
    numbers = course.count(tmp_path / "x.ipynb")
    assert numbers.row() == ["x", "2", "50 %", "2", "3", "2", ""]
