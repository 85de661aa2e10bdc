"""Recipes on the command line: the table, the page of one of them, --set, and a run of two recipes combined."""

import json
import tomllib
from pathlib import Path

import pytest

from favor_lab.cli import main
from favor_lab.cli.listing import table
from favor_lab.recipes import RECIPES, find_recipe, header
from favor_lab.study.run_folder import RunFolder

SMALL = ["--shots", "1", "--test", "0", "--steps", "2", "--prompts-per-step", "1", "--max-new-tokens", "2",
         "--group-size", "2"]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, unrendered):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def planned(monkeypatch):
    """Runs the command line without training; gives the plan that would be run."""
    plans = []
    monkeypatch.setattr("favor_lab.cli.training.run_training", lambda plan, *arguments, **options: plans.append(plan))

    def plan_of(line: str):
        assert main(line.split()) == 0
        return plans[-1]

    return plan_of


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_has_every_recipe_with_slots_and_cost(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["recipe", "slots"]
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["recipe", *RECIPES]
    assert max(map(len, lines)) <= max(columns, 80)
    words = " ".join(lines).split()
    for recipe in RECIPES.values():
        assert {*recipe.steps, *recipe.about.split(), *recipe.cost.split()} <= {word.strip(",") for word in words} | {
            *words
        }


def test_the_table_breaks_its_last_columns_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [("a-long-name", "slot", "one two three four five six seven eight nine ten", "a pass without gradient")]
    lines = table(rows, ("name", "slots", "what", "cost")).splitlines()
    assert lines[1].startswith("a-long-name  slot   one two") and lines[2].startswith(" " * 20) and len(lines) == 4


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_explained_by_its_header_its_coefficients_and_its_settings(name, capsys):
    assert main(["recipes", name]) == 0
    output, recipe = capsys.readouterr().out, RECIPES[name]
    assert output.startswith(header(recipe)) and f"Extra cost of a step: {recipe.cost}" in output
    for setting, value in recipe.settings.items():
        assert f"Setting: {setting} = {value!r}" in output
    for coefficient, value in recipe.options().items():
        assert f"Coefficient: {coefficient} = {value}" in output
    assert output.count("(0: off)") == len(recipe.coefficients)


def test_a_combination_is_explained_by_both_headers(capsys):
    assert main(["recipes", "papo+vppo"]) == 0
    output = capsys.readouterr().out
    assert header(RECIPES["papo"]) in output and header(RECIPES["vppo"]) in output
    assert "Slots: loss, advantages" in output
    assert "Coefficient: probability = must be given: papo takes 0.6, vppo takes 0.5" in output


def test_set_gives_coefficients_their_values(planned):
    plan = planned("train --recipe papo --set gamma=0.05 --set exact=false --set=side=28 --set probability=1")
    assert plan.settings.coefficients == {"gamma": 0.05, "exact": False, "side": 28, "probability": 1}
    assert type(plan.settings.coefficients["side"]) is int and plan.recipe == "papo"
    plan = planned("train --recipe papo --coefficients gamma 0.1 side 7 --set gamma=-2e-1")
    assert plan.settings.coefficients == {"gamma": -0.2, "side": 7}
    assert planned("train --recipe papo+vppo --set probability=0.5").recipe == "papo+vppo"


def test_set_is_kept_in_the_file_of_the_run_and_may_be_changed_from_it(planned, tmp_path):
    path = planned("train --recipe papo --set gamma=0.05 --set exact=false").write_config(tmp_path / "run.toml")
    assert tomllib.loads(path.read_text())["coefficients"] == {"gamma": 0.05, "exact": False}
    again = planned(f"train --config {path} --set gamma=0.5")
    assert again.settings.coefficients == {"gamma": 0.5, "exact": False} and again.recipe == "papo"
    Path("mine.toml").write_text('recipe = "papo"\nset = ["side=28"]\n')
    assert planned("train --config mine.toml").settings.coefficients == {"side": 28}


@pytest.mark.slow
def test_a_run_of_two_recipes_keeps_their_name_and_its_coefficients(tiny_checkpoint, capsys):
    """In the folder, in a resume, and on the model card."""
    from favor_lab.sharing.card import model_card

    train = ["train", "--policy", str(tiny_checkpoint), *SMALL, "--recipe", "papo+noisy-rollout", "--set", "gamma=0.05"]
    assert main([*train, "--out", "run"]) == 0
    saved = json.loads(Path("run/settings.json").read_text())
    assert saved["recipe"] == "papo+noisy-rollout" and saved["settings"]["coefficients"]["gamma"] == 0.05
    assert tomllib.loads(Path("run/run.toml").read_text())["recipe"] == "papo+noisy-rollout"
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--set", "gamma=0.1"]) == 2
    assert "leave out --set" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--steps", "3"]) == 0
    assert len(RunFolder.open("run").records()) == 3
    card = model_card("run")
    assert "The published variant papo+noisy-rollout of it was used" in " ".join(card.split())
    assert "| recipe | papo+noisy-rollout |" in card and "0.05" in card
    assert find_recipe("papo+noisy-rollout").name == "papo+noisy-rollout"
