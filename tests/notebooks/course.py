"""The course in numbers: ``python tests/notebooks/course.py``.

Runs every notebook from top to bottom, gives every planted wrong answer to its check, and prints for each notebook:
code cells, share compared with their stored output, median and longest cell, exercises, wrong answers rejected, and
seconds.
``--no-run`` leaves the seconds out; ``--write`` puts the tables into notebooks/README.md and labs/wrong_answers.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # helpers of the tests, for a run as a script

import labs
import lessons

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
GUIDE, WRONG = NOTEBOOKS / "README.md", NOTEBOOKS / "labs" / "wrong_answers.md"
UNCOMPARED = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
HEAD = ("notebook", "cells", "compared", "median lines", "longest", "exercises", "wrong answers rejected")


@dataclass(frozen=True)
class Numbers:
    """One notebook, counted."""

    name: str
    cells: int
    compared: int
    lines: list[int]  #: of each code cell
    exercises: int
    rejected: str  #: "14 of 14" for a lab
    seconds: float | None = None

    def row(self) -> list[str]:
        share = f"{100 * self.compared / self.cells:.0f} %"
        columns = [self.name, self.cells, share, f"{median(self.lines):g}", max(self.lines), self.exercises]
        return [*map(str, columns), self.rejected]


def count(path: Path, rejected: str = "") -> Numbers:
    """The numbers that need no run of the notebook."""
    notebook = nbformat.read(path, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    compared = [not UNCOMPARED & set(cell.metadata.get("tags", [])) for cell in codes]
    lines = [len(cell.source.splitlines()) for cell in codes]
    return Numbers(path.stem, len(codes), sum(compared), lines, exercises(notebook), rejected)


def exercises(notebook: nbformat.NotebookNode) -> int:
    """The numbered exercises of a lesson, the graded ones of a lab."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    section = re.search(r"^## Exercises$(.*?)^## ", prose, re.MULTILINE | re.DOTALL)
    return (
        len(re.findall(r"^\d\. |^### Exercise ", section[1], re.MULTILINE))
        if section
        else len(labs.TITLE.findall(prose))
    )


def run(path: Path) -> float:
    """Seconds of a whole run in a fresh kernel, in the notebook's folder; nothing is written."""
    from nbclient import NotebookClient

    os.environ["FAVOR_LAB_WIDGETS"] = "0"
    notebook, start = nbformat.read(path, as_version=4), time.perf_counter()
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(path.parent)}}).execute()
    return time.perf_counter() - start


def judged(path: Path) -> list[tuple[labs.Exercise, labs.Wrong, str | None]]:
    """Each planted wrong answer to a lab or a lesson with the check's message, None where it was accepted."""
    if path in labs.SOURCES:
        student, wrong_of = labs.Student(path.stem), labs.planted(path.stem)
        return [(e, w, student.answer(e, w.answer)) for e in labs.exercises(path.stem) for w in wrong_of[e.name]]
    answers = [(e, w) for e in lessons.solved(path) for w in lessons.planted(path)[e.name]]
    return [(e, w, lessons.judge(e, w.answer).partition("not yet: ")[2] or None) for e, w in answers]


def wrong_answers(verdicts: list[tuple[labs.Exercise, labs.Wrong, str | None]]) -> str:
    """The page of planted wrong answers and what the checks say to them."""
    lines = [
        "# What the checks say to wrong answers",
        "",
        f"{len(verdicts)} wrong answers are planted in `tests/support/planted/`. The tests put each in a solution's "
        "place, and its check must reject it with the message given here. `python tests/notebooks/course.py --write` "
        "makes this page.",
    ]
    title = ""
    for exercise, wrong, message in verdicts:
        place = re.sub("^lab", "Lab ", exercise.lab) if exercise.lab.startswith("lab") else f"Notebook {exercise.name}"
        if title != f"{place} · {exercise.title}":
            title = f"{place} · {exercise.title}"
            lines += ["", f"## {title}", "", "| mistake | the check says |", "| --- | --- |"]
        cell = " ".join((message or "**taken**").split()).replace("|", "\\|")
        lines.append(f"| {wrong.mistake} | {cell} |")
    return "\n".join(lines) + "\n"


def table(numbers: list[Numbers]) -> str:
    """The numbers as Markdown."""
    timed = all(n.seconds is not None for n in numbers)
    rows = [[*HEAD, *(["seconds"] if timed else [])]]
    rows.append(["---"] * len(rows[0]))
    rows += [[*n.row(), *([f"{n.seconds:.0f}"] if timed else [])] for n in numbers]
    lines = [line for n in numbers for line in n.lines]
    cells, compared = sum(n.cells for n in numbers), sum(n.compared for n in numbers)
    parts = [n.rejected.split(" of ") for n in numbers if n.rejected]
    rejected = " of ".join(str(sum(int(part[i]) for part in parts)) for i in (0, 1)) if parts else ""
    total = Numbers("**all**", cells, compared, lines, sum(n.exercises for n in numbers), rejected)
    rows.append([*total.row(), *([f"{sum(n.seconds or 0 for n in numbers):.0f}"] if timed else [])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def put(page: Path, name: str, text: str) -> None:
    """Replace the text between the page's markers of this name."""
    old = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    if begin not in old or end not in old:
        raise ValueError(f"{page} has no place for {name}: it needs the lines {begin.strip()} and {end}")
    page.write_text(old[: old.index(begin) + len(begin)] + text + old[old.index(end) :], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-run", action="store_true", help="count only, do not run the notebooks")
    parser.add_argument("--write", action="store_true", help="write the tables into the notebooks' pages")
    options = parser.parse_args()
    pages = [*sorted(NOTEBOOKS.glob("*.ipynb")), *labs.SOURCES]
    verdicts = {path.stem: judged(path) for path in pages}
    numbers = []
    for path in pages:
        mine = verdicts.get(path.stem, [])
        rejected = f"{sum(message is not None for *_, message in mine)} of {len(mine)}" if mine else ""
        numbers_of = count(path, rejected)
        if not options.no_run:
            numbers_of = Numbers(**{**vars(numbers_of), "seconds": run(path)})
        numbers.append(numbers_of)
        print(" ".join(numbers_of.row()), "" if options.no_run else f"{numbers_of.seconds:.0f} s", flush=True)
    print("\n" + table(numbers))
    if options.write:
        put(GUIDE, "course.md", table(numbers))
        WRONG.write_text(wrong_answers([verdict for mine in verdicts.values() for verdict in mine]), encoding="utf-8")


if __name__ == "__main__":
    main()
