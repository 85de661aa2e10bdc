"""The study's cells, the tables made from them, and what the page says about them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from favor_lab.activities.world import SETS
from favor_lab.runs.cells import load_results, whole_study
from favor_lab.runs.tables import recipe_changes, recipe_runs
from favor_lab.study.measures import Measured, difference, measure
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


@pytest.fixture
def family(monkeypatch):
    monkeypatch.setitem(sys.modules, "study", script("study"))  # which it imports; a folder of tests has that name too
    return script("family")


def test_the_family_keeps_a_published_coefficient_unless_another_is_clearly_better(family):
    accuracies = dict(zip(family.SCALES, (0.72, 0.7, 0.4), strict=True))
    trials = [{"recipe": "papo", "scale": scale, "accuracy": share} for scale, share in accuracies.items()]
    assert family.chosen(trials, "papo") == 1.0, "0.02 is less than a standard error of 192 images"
    trials[0]["accuracy"] = 0.74
    assert family.chosen(trials, "papo") == family.SCALES[0] and family.chosen(trials, "rloo") == 1.0
    assert family.scaled("papo", 3.0).coefficients["gamma"] == pytest.approx(0.06)
    trials[2] = {"recipe": "papo", "scale": family.SCALES[2], "accuracy": None, "refused": "gamma is too large"}
    assert family.scaled("arpo", 1 / 3).coefficients == {"capacity": 3}, "a count"
    refused = family.trial("critic", 3.0)  # half of the training, times three
    assert refused["accuracy"] is None and "at most 1 in all" in refused["refused"]
    page = family.tuning_page(trials)
    assert "| papo | gamma 0.02 | **74.0 %** | 70.0 % | refused |" in page


def test_the_family_table_pairs_every_recipe_with_plain_grpo(family):
    """From cells of the study, under the names of recipes."""
    results = []
    wanted = {"zero-shot": 0, "sft": 4, "grpo": 4}
    for method, shots in wanted.items():
        for name in family.SETS:
            results += [r for r in load_results(STUDY, method=method, shots=shots, dataset=name) if r.cell.seed < 3]
    for result in results:
        for record in result.records:
            record["tokens"] = 700
    papo = [replace(r, cell=replace(r.cell, variant="papo")) for r in results if r.cell.method == "grpo"]
    vppo = [replace(r, cell=replace(r.cell, variant="vppo")) for r in papo if r.cell.name.startswith("grpo-cartoon")]
    one_seed = [replace(r, cell=replace(r.cell, variant="rloo")) for r in papo if r.cell.seed == 1]
    runs = recipe_runs([*results, *papo, *vppo, *one_seed])
    assert {name: list(seeds) for name, seeds in runs.items()} == {
        "zero-shot": [0], "sft": [0, 1, 2], "grpo": [0, 1, 2], "papo": [0, 1, 2], "rloo": [1],
    }, "vppo has one set of two"  # fmt: skip
    assert len(runs["grpo"][0]) == 640
    assert list(recipe_changes(runs, ["right"])) == ["sft", "papo", "rloo"]
    rows = table(family.table([*results, *papo, *one_seed]))
    assert rows["papo"]["over plain GRPO"] == "+0.0 (+0.0 to +0.0)" and rows["papo"]["tokens per step"] == "700"
    assert rows["papo"]["right"] == rows["grpo"]["right"] > rows["zero-shot"]["right"]
    assert rows["rloo"]["seeds"] == "1" and rows["rloo"]["over plain GRPO"] == "+0.0 (+0.0 to +0.0)"
    assert rows["sft"]["extra cost of a step"] == "" != rows["papo"]["extra cost of a step"]


def test_the_summary_of_the_family_sorts_by_intervals(family):
    better, worse, unclear = (
        Measured(*numbers) for numbers in ((0.02, 0.01, 0.03), (-0.1, -0.2, -0.01), (0.01, -0.1, 0.1))
    )
    changes = {
        "papo": {"right": better, "sampled right": unclear, "true": None},
        "vppo": {"right": worse, "sampled right": better, "true": unclear},
        "rloo": {"right": Measured(0.03, 0.01, 0.05), "sampled right": None, "true": worse},
    }
    rows = table(family.summary(changes))
    assert rows["right answers"] == {
        "above plain GRPO": "rloo, papo",
        "below it": "vppo",
        "no difference shown": "none",
    }
    assert rows["right, sampled"] == {"above plain GRPO": "vppo", "below it": "none", "no difference shown": "papo"}
    assert rows["true statements"] == {"above plain GRPO": "none", "below it": "rloo", "no difference shown": "vppo"}
