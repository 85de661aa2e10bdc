"""The labs as data: exercises, their checks, and what a check says to a wrong answer that was planted."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from planted import Wrong

LABS = Path(__file__).parents[2] / "notebooks" / "labs"
SOURCES = sorted(LABS.glob("source/*/*.ipynb"))
TITLE = re.compile(r"^### Exercise (\d)\.(\d+) · (.+?) \((recall|change|investigate)\)$", re.MULTILINE)
SILENCED = 'warnings.simplefilter("ignore", RuntimeWarning)'  # a line of labs whose checks divide by 0
LEVELS = ("recall", "change", "investigate")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab: its text, its solution and the check that stands below."""

    lab: str  #: "lab2"
    name: str  #: grade_id of the cell with the solution; the check's is `name`-check
    title: str
    level: str  #: one of LEVELS
    points: int
    place: int  #: index of the solution among the code cells
    solution: str
    check: str


def code_cells(lab: str) -> list[Any]:
    """The code cells of a lab's source, solutions included."""
    notebook = nbformat.read(LABS / "source" / lab / f"{lab}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def exercises(lab: str) -> Iterator[Exercise]:
    """A lab's exercises in order. A solution stands under the text with its title, and its check is the next cell."""
    notebook = nbformat.read(LABS / "source" / lab / f"{lab}.ipynb", as_version=4)
    title, codes = None, [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        title = TITLE.search(cell.source) or title if cell.cell_type == "markdown" else title
        if cell.metadata.get("nbgrader", {}).get("solution") and not cell.metadata["nbgrader"].get("grade"):
            assert title, f"{lab}: {cell.id} has no title of the form '### Exercise 2.1 · Name (recall)' above it"
            place, name = codes.index(cell), cell.metadata["nbgrader"]["grade_id"]
            check = codes[place + 1]
            assert check.metadata["nbgrader"]["grade_id"] == f"{name}-check", f"{lab}: no check under {name}"
            points = check.metadata["nbgrader"]["points"]
            yield Exercise(lab, name, title[3], title[4], points, place, cell.source, check.source)


def planted(lab: str) -> dict[str, list[Wrong]]:
    """The wrong answers to a lab's exercises by exercise name, from `planted/<lab>.py`."""
    return importlib.import_module(f"planted.{lab}").PLANTED


def right(lab: str) -> dict[str, list[str]]:
    """Right answers that are written differently from the solutions, by exercise name; none for some labs."""
    return getattr(importlib.import_module(f"planted.{lab}"), "RIGHT", {})


def manual_points(lab: str) -> int:
    """Points that a reader gives: of the cells in which a student writes and that are graded themselves."""
    notebook = nbformat.read(LABS / "source" / lab / f"{lab}.ipynb", as_version=4)
    marks = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    return sum(mark["points"] for mark in marks if mark.get("grade") and mark.get("solution"))


class Student:
    """Somebody who works through a lab from the top, with right answers up to the exercise at hand."""

    def __init__(self, lab: str):
        self.cells = code_cells(lab)
        self.done = 0
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.quiet = any(SILENCED in cell.source for cell in self.cells)  # as the lab is from its first cell on

    def reach(self, place: int) -> None:
        """Run the cells before code cell number `place` that were not run yet, checks left out."""
        for cell in self.cells[self.done : place]:
            if not cell.metadata.get("nbgrader", {}).get("grade"):
                run(cell.source, self.names, self.quiet)
        self.done = max(self.done, place)

    def answer(self, exercise: Exercise, source: str) -> str | None:
        """Give an answer: None if the check takes it, else what the check says.

        Anything but an AssertionError goes through: a check has to say what is wrong, not to stumble over it.
        """
        self.reach(exercise.place)
        names = dict(self.names)
        run(source, names, self.quiet)
        try:
            run(exercise.check, names, self.quiet)
        except AssertionError as error:
            return str(error)
        return None


def run(source: str, names: dict[str, Any], quiet: bool = False) -> None:
    """Run a cell's source in a namespace, without its output. quiet: RuntimeWarnings are no errors in pytest either."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", RuntimeWarning)
        exec(compile(source, "<cell>", "exec"), names)
