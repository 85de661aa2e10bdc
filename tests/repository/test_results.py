"""The study's cells, the tables made from them, and what the page says about them."""

from __future__ import annotations

import re

import pytest

from favor_lab.activities.world import SETS
from favor_lab.runs.cells import load_results, whole_study
from favor_lab.study.measures import difference, measure
from test_readme import RESULTS, script

pytestmark = pytest.mark.slow

STUDY = RESULTS / "study"


def evaluations(method, shots, dataset=SETS[0], variant=""):
    results = load_results(STUDY, method=method, shots=shots, dataset=dataset, variant=variant)
    return [result.evaluation for result in results]


def test_every_cell_of_the_whole_study_is_committed():
    committed = {path.name.removesuffix(".json.gz") for path in STUDY.glob("*.json.gz")}
    assert {cell.name for cell in whole_study("full")} == committed


def test_grpo_gains_25_points_on_every_set_and_the_intervals_lie_apart():
    for name in SETS:
        before, after = (evaluations(method, shots, name) for method, shots in (("zero-shot", 0), ("grpo", 4)))
        assert len(after) >= 5
        assert difference(before, after, "right").mean > 0.25
        assert measure(before, "right").high < measure(after, "right").low


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """`study.py` over a few of the cells, with its pages and figures in a folder of their own."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "study").mkdir()
    (folder / "figures").mkdir()
    variants = "truth|truth-2-kl|published"
    chosen = re.compile(rf"(zero-shot|grpo)-\w+-[04]-0(\+({variants}))?|grpo-answer-cartoon-4-0(\+published)?")
    for path in STUDY.glob("*.json.gz"):
        if chosen.fullmatch(path.name.removesuffix(".json.gz")):
            (folder / "study" / path.name).symlink_to(path)
    module = script("study")
    module.HERE, module.CELLS, module.FIGURES = folder, folder / "study", folder / "figures"
    module.main()
    return folder, module


def table(page):
    lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in page.splitlines()]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines[2:]}


@pytest.mark.slow
def test_the_tables_hold_the_numbers_of_the_cells(small):
    folder, _ = small
    gain = table((folder / "study_gain.md").read_text())
    assert [*gain] == [*SETS, "mean of 4 sets"]
    for name in SETS:
        (after,) = [e for e in evaluations("grpo", 4, name)[:1]]
        assert gain[name]["right answers, after"].startswith(f"{100 * after.accuracy:.1f} (")
    truth = table((folder / "study_truth.md").read_text())
    assert truth["truth"]["seeds"] == "1" and truth["zero-shot"]["right, over plain GRPO"] == ""
    statements = [answer.statements for answer in evaluations("grpo", 4, variant="truth")[0].answers]
    assert truth["truth"]["statements per response"] == f"{sum(statements) / len(statements):.2f}"


def test_the_figures_are_drawn_as_far_as_there_are_cells(small):
    folder, module = small
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {
        f"study_{name}" for name in ("shots", "changes", "truth", "published")
    }, "transfer needs every method"
    curves = module.published_curves(module.by_place(load_results(module.CELLS)))
    panel = curves["answer, temperature 1"]
    assert all(len(line) == 100 for line in panel.values())
    rewarded, right, _ = panel.values()
    assert (rewarded >= right).all(), "the published reward pays whatever is right"


def test_without_cells_there_are_headings_and_no_figures(tmp_path):
    module = script("study")
    module.HERE, module.CELLS, module.FIGURES = tmp_path, tmp_path / "study", tmp_path
    module.CELLS.mkdir()
    module.main()
    assert not list(tmp_path.glob("*.png"))
    assert (tmp_path / "study_truth.md").read_text().count("\n") == 2
