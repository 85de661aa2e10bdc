"""The exercises of the reading notebooks as data: stubs, checks, solutions, and wrong and right answers to try.

An exercise is a heading with its number, a code cell with a stub that raises NotImplementedError, and a code cell with
its check. Both cells import what they need. The solution stands in `notebooks/solutions/<number of the notebook>.md`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat

from labs import Exercise, run
from planted import Wrong

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TITLE = re.compile(r"^### Exercise (\d\d\.\d+) · (.+?) \((recall|change|investigate)\)$", re.MULTILINE)
SOLUTION = re.compile(r"^## Exercise (\d\d\.\d+) · .+?$.*?^```python$(.+?)^```$", re.MULTILINE | re.DOTALL)


def exercises(path: Path) -> list[Exercise]:
    """The exercises of a notebook that have a stub and a check; `solution` is the stub until `solved` puts it in."""
    found, title = [], None
    cells = nbformat.read(path, as_version=4).cells
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            title = TITLE.search(cell.source)
        elif title:
            test = cells[place + 1].source if place + 1 < len(cells) else ""
            assert "raise NotImplementedError" in cell.source, f"{path.name}: no stub under {title[0]}"
            assert f'@check("{title[1]}"' in test, f"{path.name}: no check under the stub of {title[0]}"
            found.append(Exercise(path.stem, title[1], title[2], title[3], 0, place, cell.source, test))
            title = None
    return found


def solved(path: Path) -> list[Exercise]:
    """The exercises of a notebook with their solutions. KeyError for one without."""
    page = NOTEBOOKS / "solutions" / f"{path.stem[:2]}.md"
    solutions = dict(SOLUTION.findall(page.read_text(encoding="utf-8"))) if page.exists() else {}
    return [replace(exercise, solution=solutions[exercise.name].strip()) for exercise in exercises(path)]


def planted(path: Path) -> dict[str, list[Wrong]]:
    """The wrong answers to a notebook's exercises by exercise, from `planted/notebook<number>.py`."""
    return importlib.import_module(f"planted.notebook{path.stem[:2]}").PLANTED


def right(path: Path) -> dict[str, list[str]]:
    """Right answers that are written differently from the solutions, by exercise."""
    return importlib.import_module(f"planted.notebook{path.stem[:2]}").RIGHT


def judge(exercise: Exercise, answer: str) -> str:
    """What the check prints about an answer that stands in the stub's place."""
    names, printed = dict[str, Any](__name__="__main__"), io.StringIO()
    run(answer, names)
    with contextlib.redirect_stdout(printed):
        exec(compile(exercise.check, "<check>", "exec"), names)
    return printed.getvalue().strip()
