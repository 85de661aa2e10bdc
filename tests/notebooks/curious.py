"""What curiosity does to a notebook: ``python tests/notebooks/curious.py [NOTEBOOK ...]``.

Every code cell is run once more after the last one, in the same kernel; and the whole notebook is run with groups of 4,
with another drawn set, and asked for the answer alone, where it has a line ``G = 8``, ``SET = "cartoon"`` or
``STYLE = "think"`` to change. Each cell must give a result, or an error whose message says what to do.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHANGES = {  # what a curious student changes: the line, and what it becomes
    "groups of 4": (r"(?m)^G = \d+", "G = 4"),
    "another set": (r'(?m)^SET = "cartoon"', 'SET = "sketch"'),
    "the answer alone": (r'(?m)^STYLE = "think"', 'STYLE = "answer"'),
}
SENTENCES = {"ValueError", "TypeError", "AssertionError", "ArgumentError", "FileNotFoundError"}
LEAST = 25  # letters of a message that helps
SKIPPED = {"nbval-skip", "raises-exception"}


@dataclass(frozen=True)
class Stumble:
    """A cell that raised without saying what to do."""

    notebook: str
    trial: str
    cell: str
    error: str

    def __str__(self) -> str:
        return f"{self.notebook}, {self.trial}: cell {self.cell} raises {self.error}"


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_again(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook, and behind it every code cell once more."""
    twice = deepcopy(notebook)
    again = [deepcopy(cell) for cell in code_cells(notebook) if not SKIPPED & set(cell.metadata.get("tags", []))]
    for cell in again:
        cell.id = f"again-{cell.id}"[:64]
    twice.cells += again
    return twice


def changed(notebook: nbformat.NotebookNode, line: str, new: str) -> nbformat.NotebookNode | None:
    """The notebook with that line changed wherever it stands; None if it has no such line."""
    other = deepcopy(notebook)
    cells = [cell for cell in code_cells(other) if re.search(line, cell.source)]
    for cell in cells:
        cell.source = re.sub(line, new, cell.source)
    return other if cells else None


def trials(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, nbformat.NotebookNode]]:
    """What is tried with a notebook, by name."""
    yield "every cell again", run_again(notebook)
    for name, (line, new) in CHANGES.items():
        if (other := changed(notebook, line, new)) is not None:
            yield name, other


def helps(output: nbformat.NotebookNode) -> bool:
    """Whether an error is a sentence that somebody wrote: raised by a `raise` or an `assert`, with a message."""
    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
    raised = [line.strip() for line in re.findall(r"(?m)^-+> *\d+ (.*)$", trace)]
    own = bool(raised) and raised[-1].startswith(("raise ", "assert "))
    return own and output.ename in SENTENCES and len(output.evalue) >= LEAST


def stumbles(notebook: nbformat.NotebookNode, name: str, trial: str) -> list[Stumble]:
    """Run it to its end, whatever its cells raise; the cells whose error is no sentence."""
    client = NotebookClient(notebook, timeout=900, allow_errors=True, resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.execute()
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and not SKIPPED & set(cell.metadata.get("tags", [])):
                if not helps(output):
                    found.append(Stumble(name, trial, cell.id, f"{output.ename}: {output.evalue[:200]}"))
    return found


def check(paths: Sequence[Path], only: str = "") -> list[Stumble]:
    """Every trial of these notebooks, or those of one name."""
    found = []
    for path in paths:
        for trial, notebook in trials(nbformat.read(path, as_version=4)):
            if only in ("", trial):
                mine = stumbles(notebook, path.stem, trial)
                print(f"{path.stem}, {trial}: {len(mine) or 'no'} cells stumble", flush=True)
                found += mine
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to try (default: all reading notebooks)")
    parser.add_argument("--only", default="", choices=["every cell again", *CHANGES], help="one of the trials")
    options = parser.parse_args()
    os.environ.setdefault("FAVOR_LAB_WIDGETS", "0")
    found = check(options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")), options.only)
    print("\n".join(map(str, found)))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
