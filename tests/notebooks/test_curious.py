"""`curious` finds what it is for: cells that break when they are run again, or with another size. It is run over the
course by itself (``python tests/notebooks/curious.py``, every week in the workflow), since it takes as long as that."""

from __future__ import annotations

import nbformat
import pytest

import curious


def notebook(*sources, tags=()):
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    cells[-1].metadata["tags"] = list(tags)
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.slow
def test_a_name_that_changes_its_shape_is_found_and_a_sentence_is_none():
    broken = notebook(
        "values = [1, 2, 3]", "print(values[2])", "values = 7",
        "if 'seen' in globals():\n    raise ValueError('seen is set: begin again with the first cell')\nseen = True",
    )  # fmt: skip
    found = dict(curious.trials(broken))
    assert list(found) == ["every cell again"] and len(found["every cell again"].cells) == 8
    assert curious.stumbles(found["every cell again"], "toy", "every cell again") == []  # the first cell mends it
    broken.cells[0], broken.cells[2] = broken.cells[2], broken.cells[0]
    broken.cells[0].source, broken.cells[2].source = (
        "values = values if 'values' in globals() else [1, 2, 3]",
        "values = 7",
    )
    (stumble,) = curious.stumbles(curious.run_again(broken), "toy", "every cell again")
    assert str(stumble).startswith("toy, every cell again: cell again-cell-1 raises TypeError")


@pytest.mark.slow
def test_a_hard_coded_size_is_found():
    toy = notebook("G = 8\nrewards = [1] * G", "assert len(rewards) == 8", tags=["x"])
    trials = dict(curious.trials(toy))
    assert list(trials) == ["every cell again", "groups of 4"]
    (stumble,) = curious.stumbles(trials["groups of 4"], "toy", "groups of 4")
    assert "AssertionError" in stumble.error
    toy.cells[1].source = "assert len(rewards) == G"
    assert curious.stumbles(curious.changed(toy, *curious.CHANGES["groups of 4"]), "toy", "groups of 4") == []
    assert curious.changed(toy, *curious.CHANGES["another set"]) is None
