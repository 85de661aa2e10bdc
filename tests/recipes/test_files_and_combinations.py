"""What every recipe's file has; and combinations of recipes: what is joined, what is refused, and their names."""

import ast
import importlib
import io
import re
import tokenize
from dataclasses import replace
from pathlib import Path

import pytest

import favor_lab.recipes
from favor_lab import FewShot, GRPOSettings
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.recipes import RECIPES, Recipe, combine, find_recipe, header
from recipe_runs import same, take_steps
from tiny import LABELS, make_policy

FOLDER = Path(favor_lab.recipes.__file__).parent
SETTINGS = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
MOST_LINES = 60


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


# ------------------------------------------------------------------------------------------------------- every file


def recipe_files() -> dict[str, Path]:
    """The file of each recipe, by the recipe's name."""
    files = {}
    for path in sorted(FOLDER.glob("*.py")):
        module = importlib.import_module(f"favor_lab.recipes.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, Recipe) and path.stem != "__init__":
                files[value.name] = path
    return files


def code_lines(source: str) -> int:
    """The lines that hold code: without docstrings, comments and empty lines."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                docstrings |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for t in tokens if t.type not in NO_CODE for line in range(t.start[0], t.end[0] + 1)}
    return len(lines - docstrings)


def test_lines_of_code_are_counted():
    source = '"""A docstring\n\nof three lines."""\n\n# a comment\nx = (\n    1,  # one\n)\n\n\n'
    source += 'def f():\n    """Another."""\n    return """a\nb"""\n'
    assert code_lines(source) == 3 + 1 + 2


def test_every_recipe_of_a_file_is_in_the_list_and_in_order():
    assert recipe_files().keys() == RECIPES.keys() and list(RECIPES) == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_file_is_short_and_begins_with_source_and_equation(name):
    source = recipe_files()[name].read_text(encoding="utf-8")
    assert code_lines(source) <= MOST_LINES
    first = "\n".join(source.splitlines()[:10])
    for needed in ("Source: ", r"arXiv \d{4}\.\d{5}\b", "Equation"):
        assert re.search(needed, first), needed
    text = header(RECIPES[name])
    assert text == ast.get_docstring(ast.parse(source)) and "Deviations:\n1. " in text
    numbers = re.findall(r"^(\d+)\. ", text[text.index("Deviations:") :], re.MULTILINE)
    assert numbers == [str(i + 1) for i in range(len(numbers))]
    assert re.search(r"arXiv (\d{4}\.\d{5})", first)[1] in RECIPES[name].source


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_a_step_costs(name):
    """None at all, for one that only changes settings or what is paid; what its coefficients are, with defaults."""
    recipe = RECIPES[name]
    assert recipe.cost and recipe.about and "\n" not in recipe.about
    options = recipe.options()
    assert all(options[coefficient] == value for coefficient, value in recipe.coefficients.items())
    recipe.check(GRPOSettings(coefficients=options))


# ---------------------------------------------------------------------------------------------------- combinations


def test_different_slots_and_settings_are_joined():
    both = find_recipe("clip-higher+papo+noisy-rollout")
    assert both.name == "clip-higher+papo+noisy-rollout" and both.steps.keys() == {"loss", "sample"}
    assert both.settings == {"clip_high": 0.28, "updates_per_rollout": 4}
    assert both.coefficients == {"gamma": 0.02, "strength": 300.0}
    assert both.about.count(";") >= 2 and "2507.06448" in both.source and "2504.13055" in both.source
    assert both.cost.startswith("four updates for each rollout; the masked images encoded")
    assert find_recipe("cispo+visual-rft").cost == "none"
    both.check(GRPOSettings())
    assert both.options() == {**find_recipe("papo").options(), **find_recipe("noisy-rollout").options()}
    assert find_recipe("gspo+clip-higher").settings["updates_per_rollout"] == 4, "they agree"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("verl+vppo", "verl and vppo cannot be combined: both fill the slot advantages"),
        ("gspo+cispo", "gspo and cispo cannot be combined: together, level is 'sequence', but how='cispo' weighs"),
        ("papo+amft", "papo and amft cannot be combined: both fill the slot loss"),
        ("verl+care+amft", "verl and amft cannot be combined: both fill the slot after_step"),
        ("dupl+noisy-rollout", "dupl and noisy-rollout cannot be combined: both fill the slot sample"),
        ("dr-grpo+dapo", "dr-grpo and dapo cannot be combined: both set the setting how, to 'dr_grpo' and 'dapo'"),
        ("care+visual-rft", "both set, as a setting, the weight of accuracy_reward, to 1.0 and 0.0"),
        ("papo+papo", "the recipe papo is named twice"),
        ("dapo+care+dapo", "the recipe dapo is named twice"),
        ("papo+", "unknown recipe ''"),
        ("+", "unknown recipe ''"),
        ("papo + care", "unknown recipe 'papo '"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_recipe(name)


def test_a_setting_that_the_user_changed_is_refused_under_the_whole_name():
    with pytest.raises(ValueError, match=r"how is 'bnpo', but the recipe care\+dapo sets it to 'dapo'"):
        find_recipe("care+dapo").check(GRPOSettings(how="bnpo"))


def test_a_coefficient_with_two_defaults_must_be_given():
    """PAPO blackens a square with probability 0.6, VPPO with 0.5; the same mask then serves both."""
    both = find_recipe("papo+vppo")
    with pytest.raises(ValueError, match=r"papo\+vppo needs one value of probability .*papo takes 0.6, vppo takes 0.5"):
        both.check(GRPOSettings())
    settings = GRPOSettings(coefficients={"probability": 0.5})
    both.check(settings)
    assert both.applied_to(settings).coefficients == {"gamma": 0.02, "shrink": 0.1, "drop": 0.6, "probability": 0.5}


def test_rewards_are_joined_by_name_with_their_weights():
    def length(completions, **columns):
        return [float(len(text)) for text in completions]

    def other_length(completions, **columns):
        return [0.0] * len(completions)

    care, weighted = find_recipe("care"), {"reward_weights": (1.0, 0.5)}
    lengthy = Recipe("lengthy", "", "", settings=weighted, steps={"rewards": [accuracy_reward, length]})
    both = combine(care, lengthy)
    names = ["accuracy_reward", "format_reward", "right_consistency_reward", "length"]
    assert list(both.steps["rewards"]) == names and both.settings == {"reward_weights": (1.0, 1.0, 1.0, 0.5)}
    both.check(GRPOSettings())
    half = Recipe("half", "", "", settings=weighted)
    assert combine(care, find_recipe("dapo")).settings == find_recipe("dapo").settings
    with pytest.raises(ValueError, match="the weight of format_reward, to 1.0 and 0.5"):
        combine(care, half)
    only = combine(half, find_recipe("papo"))
    assert only.settings == weighted and only.steps["rewards"] == {
        "accuracy_reward": accuracy_reward, "format_reward": format_reward,
    }  # fmt: skip
    other = Recipe("other", "", "", steps={"rewards": {"length": other_length}})
    with pytest.raises(
        ValueError, match="lengthy and other cannot be combined: both have a reward length of their own"
    ):
        combine(replace(lengthy, settings={}), other)


def test_combined_with_all_coefficients_at_0_it_is_plain_grpo(tiny_checkpoint, shots, tmp_path):
    """Bit for bit, with a resume in between."""
    both = find_recipe("papo+noisy-rollout")
    settings = replace(SETTINGS, coefficients=dict.fromkeys(both.coefficients, 0.0))
    expected = take_steps(make_policy(tiny_checkpoint), find_recipe(""), shots, SETTINGS, 2, tmp_path / "plain")
    assert same(take_steps(make_policy(tiny_checkpoint), both, shots, settings, 2, tmp_path / "off"), expected)
    single = replace(settings, coefficients={"gamma": 0.02, "strength": 0.0})
    papo = take_steps(make_policy(tiny_checkpoint), find_recipe("papo"), shots, SETTINGS)
    combined = take_steps(make_policy(tiny_checkpoint), both, shots, single)
    assert same(combined, papo) and not same(papo, expected), "of the two only one acts"


def test_a_combination_is_resumed_under_its_own_name_alone(tiny_policy, shots, tmp_path):
    both = find_recipe("verl+papo")
    state = TrainingState.start(tiny_policy, both.applied_to(SETTINGS))
    next(both.train(tiny_policy, shots, SETTINGS, resume=state))
    save_checkpoint(tmp_path, state)
    assert load_checkpoint(tmp_path, tiny_policy).recipe == "verl+papo"
    with pytest.raises(ValueError, match=r"other s\w+ \(.*"):
        next(find_recipe("papo").train(tiny_policy, shots, SETTINGS, resume=load_checkpoint(tmp_path, tiny_policy)))
    assert len(list(both.train(tiny_policy, shots, SETTINGS, resume=load_checkpoint(tmp_path, tiny_policy)))) == 2
