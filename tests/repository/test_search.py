"""The search behind the second study: equal trials, and a rule for the choice that can be read off the page."""

from __future__ import annotations

import pytest

from favor_lab.recipes import find_recipe
from favor_lab.runs.cells import METHODS
from test_readme import RESULTS, script


@pytest.fixture(scope="module")
def search():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RESULTS))
        yield script("search")


def test_every_method_has_the_same_number_of_different_trials(search):
    for space in search.SPACES:
        trials = search.trials_of(*space)
        assert len(trials) == search.TRIALS and trials[0] == {}
        assert len({str(trial) for trial in trials}) == len(trials)
        assert trials == search.trials_of(*space), "the same choices each time, or a search could not be resumed"


def test_every_trial_has_settings_that_its_method_accepts(search):
    for method, variant in search.SPACES:
        for choice in search.trials_of(method, variant):
            settings = search.settings_for(method, variant, choice)
            assert settings.style == METHODS[method] and settings.seed == search.SEED
            if method == "grpo":
                assert settings.prompts_per_step * settings.group_size == search.ROWS
            if variant:
                recipe = search.find_variant(variant).recipe
                assert {*settings.coefficients} <= {*find_recipe(recipe).options()}, variant
            for name, value in choice.items():
                kept = settings.coefficients if name in settings.coefficients else vars(settings)
                assert kept[name] == value


def entry(right, true, choice, method="grpo", sampled=0.5):
    return {"method": method, "variant": "", "choice": choice, "right": right, "sampled_right": sampled, "true": true}


def test_of_what_does_not_differ_the_truest_is_chosen(search):
    trials = [
        entry(0.90, 0.80, {"n": "best"}), entry(0.89, 0.95, {"n": "as good and truer"}),
        entry(0.85, 0.99, {"n": "worse"}), entry(None, None, {"n": "refused"}),
        entry(0.99, 0.99, {"n": "another method"}, method="sft-reasoning"),
    ]  # fmt: skip
    assert search.chosen(trials, "grpo")["choice"] == {"n": "as good and truer"}
    alone = [entry(0.90, None, {"n": "few"}, "sft", 0.6), entry(0.89, None, {"n": "many"}, "sft", 0.8)]
    assert search.chosen(alone, "sft")["choice"] == {"n": "many"}, "answers alone state nothing"


def test_a_line_that_was_cut_off_is_measured_again(search, tmp_path, monkeypatch):
    calls = []

    def one(method, variant, choice):
        calls.append((method, variant))
        return entry(0.5, 0.5, choice, method) | {"variant": variant, "tokens": 1.0, "well_formed": 1.0}

    monkeypatch.setattr(search, "HERE", tmp_path)
    monkeypatch.setattr(search, "trial", one)
    monkeypatch.setattr(search, "TRIALS", 2)
    search.search(1, 2, float("inf"))
    search.search(2, 2, float("inf"))
    assert len(calls) == 2 * len(search.SPACES) and sorted(calls) == sorted(2 * list(search.SPACES))
    target = tmp_path / "search.jsonl"
    text = target.read_text()
    target.write_text(text + text.splitlines()[-1][:30])
    assert len(search.read(target)) == len(calls)
    search.search(1, 1, float("inf"))
    assert len(calls) == 2 * len(search.SPACES), "nothing is measured twice"
    target.write_text(text[:-5])
    search.search(1, 1, float("inf"))
    assert len(calls) == 2 * len(search.SPACES) + 1
    page = search.page(search.read(target))
    assert all(f"| {method}" in page for method, _ in search.SPACES)
