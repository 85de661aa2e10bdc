"""What the pages say is what the committed measurements say."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "data" / "results"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", script("quote").PAGES, ids=lambda path: path.parent.name)
def test_quoted_measurements_are_the_committed_ones(page):
    text = page.read_text()
    assert script("quote").MARK.search(text), f"{page} quotes nothing"
    assert script("quote").quoted(text) == text, "run python data/results/quote.py"


def test_the_tables_are_computed_from_the_committed_cells():
    spine = script("spine")
    cells = [json.loads(path.read_text()) for path in sorted((RESULTS / "spine").glob("*.json"))]
    assert len(cells) == 12
    assert (RESULTS / "spine.md").read_text() == spine.table(cells)
    assert (RESULTS / "zero_shot.md").read_text() == spine.zero_shot(cells)


def test_the_page_of_the_methods_learning_rates_is_computed_from_the_committed_trials():
    trials = json.loads((RESULTS / "tune_methods.json").read_text())
    assert (RESULTS / "tune_methods.md").read_text() == script("tune_methods").page(trials)


def test_the_defaults_are_the_tuned_ones():
    from favor_lab import GRPOSettings

    trials = json.loads((RESULTS / "tuning.json").read_text())
    chosen = max(trials, key=lambda trial: trial["accuracy"])["changes"]
    assert {name: getattr(GRPOSettings(), name) for name in chosen} == chosen


def test_the_size_table_is_the_measured_one():
    card = (ROOT / "data" / "pocket-qwen2-vl" / "README.md").read_text()
    for row in json.loads((ROOT / "data" / "pocket-qwen2-vl" / "pretraining" / "sizes.json").read_text()):
        images = f"{row['images']:,}".replace(",", " ")
        assert f"| {row['size']} | {row['image_tokens']} | {images} | {row['statement_f1']:.2f} |" in card


@pytest.mark.parametrize(
    "page", ["README.md", "data/pocket-qwen2-vl/README.md", "data/pocket-activities/README.md", "notebooks/README.md"]
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}"


def test_the_page_of_the_truth_trials_is_computed_from_the_committed_trials():
    trials = json.loads((RESULTS / "tune_truth.json").read_text())
    assert (RESULTS / "tune_truth.md").read_text() == script("tune_truth").page(trials)
