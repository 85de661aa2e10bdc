"""Recipes and the variants of the study: what each changes, that it trains, and what its rewards pay for."""

import inspect
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from favor_lab import FewShot, GRPOSettings, Question, draw_scene, train
from favor_lab.activities import Example
from favor_lab.cli.options import RecipeOptions
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import encode_completions, score_completions
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.recipes import RECIPES, Recipe, find_recipe
from favor_lab.recipes.aepo import aepo_reward
from favor_lab.recipes.care import consistency_reward, right_consistency_reward
from favor_lab.recipes.care_slow import slow_confidence_reward
from favor_lab.recipes.curr_reft import curriculum_reward
from favor_lab.recipes.jigsaw import jigsaw_reward
from favor_lab.recipes.tasks import Task, task_reward
from favor_lab.recipes.truth import truth_reward
from favor_lab.recipes.visual_rft import published_format, published_reward
from favor_lab.runs.cells import Cell, chosen_settings
from favor_lab.runs.experiments import settings_of
from favor_lab.runs.variants import VARIANTS
from favor_lab.vlm.processing import encode_prompts
from tiny import make_context

SHORT = GRPOSettings(steps=2, prompts_per_step=2, group_size=2, max_new_tokens=8)


@pytest.fixture(scope="module")
def scenes():
    all_scenes = [draw_scene("cartoon", "train", index) for index in range(4)]
    return [Example(scene.image, str(scene.label), scene.source) for scene in all_scenes]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_and_is_recorded(tiny_policy, scenes, variant):
    chosen, labels = VARIANTS[variant], sorted({scene.label for scene in scenes})
    settings = replace(chosen.applied_to(SHORT), group_size=2, steps=2)
    records = list(chosen.train(tiny_policy, FewShot(scenes, [], [], labels), settings))
    assert len(records) == 2 and all(record.loss is not None for record in records)
    if settings.reward_weights is not None:
        assert len(settings.reward_weights) == len(records[0].rewards)


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_trains_under_its_name(tiny_policy, scenes, name, tmp_path):
    """Its name is in the checkpoint, so that the run of one recipe is not resumed with another."""
    recipe, labels = find_recipe(name), sorted({scene.label for scene in scenes})
    assert recipe.name == name and recipe.source and recipe.about
    shots, state = FewShot(scenes, [], [], labels), TrainingState.start(tiny_policy, recipe.applied_to(SHORT))
    assert next(recipe.train(tiny_policy, shots, SHORT, resume=state)).loss is not None
    save_checkpoint(tmp_path, state)
    loaded = load_checkpoint(tmp_path, tiny_policy)
    assert loaded.recipe == name
    with pytest.raises(ValueError, match=r"other s\w+ \(.*"):
        next(train(tiny_policy, shots, replace(loaded.settings, coefficients={}), resume=loaded))


def test_a_recipe_without_changes_is_plain_grpo(tiny_policy, scenes):
    """And one whose only coefficient is 0: bit for bit."""

    def nudged(logps, old_logps, ref_logps, advantages, mask, weight, **settings):
        loss, parts = grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)
        return loss + weight * logps[mask].mean(), parts

    labels = sorted({scene.label for scene in scenes})
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    recipes = [
        find_recipe(""),
        Recipe("nudged", "", "", coefficients={"weight": 0.0}, steps={"loss": nudged}),
        Recipe("nudged", "", "", coefficients={"weight": 1.0}, steps={"loss": nudged}),
    ]
    losses = []
    for recipe in recipes:
        with torch.no_grad():
            for name, weight in tiny_policy.trainable_parameters():
                weight.copy_(start[name])
        records = recipe.train(tiny_policy, FewShot(scenes, [], [], labels), SHORT)
        losses.append([(record.loss, record.grad_norm, record.kl) for record in records])
    assert losses[0] == losses[1] != losses[2]


def test_the_help_of_train_names_every_recipe():
    assert ", ".join(RECIPES) in " ".join(inspect.getsource(RecipeOptions).split())


def test_an_unknown_recipe_is_refused_with_the_names():
    for name in ("ppo", "papo+ppo", "ppo+papo"):
        with pytest.raises(ValueError, match=f"unknown recipe 'ppo'; the recipes are {', '.join(RECIPES)}"):
            find_recipe(name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_changes_something_and_only_of_grpo(variant):
    plain = settings_of(Cell("grpo", "cartoon", 4), chosen_settings()["grpo"])
    settings = settings_of(Cell("grpo", "cartoon", 4, variant=variant), chosen_settings()["grpo"])
    assert settings != plain or VARIANTS[variant].rewards
    assert settings.learning_rate == plain.learning_rate * (0.5 if variant == "slow" else 1)
    with pytest.raises(ValueError, match="is a variant of grpo"):
        Cell("sft", "cartoon", 4, variant=variant)


@pytest.mark.parametrize(
    "text", ["", "<answer></answer>", "<answer>e</answer>", "<answer>running or reading</answer>", "not reading"]
)
def test_the_published_reward_pays_for_what_the_strict_one_refuses(text):
    assert published_reward([text], ["reading"]) == [1.0]
    assert accuracy_reward([text], ["reading"]) == [0.0]


def test_the_published_reward_is_no_constant():
    texts = ["<answer>running</answer>", "<answer>Riding a_bike</answer>", "<answer>\nrunning\n</answer> reading"]
    assert published_reward(texts, ["reading", "riding_a_bike", "reading"]) == [0.0, 1.0, 1.0]
    assert published_format(["<think></think>\n<answer></answer>", "<think>a</think>", "<answer>a</answer>."]) == [
        1,
        0,
        0,
    ]


def test_truth_is_known_of_drawn_scenes_alone():
    with pytest.raises(ValueError, match="not of photo.jpg"):
        truth_reward(["<think>a</think>"], ["photo.jpg"])


def test_consistency_is_the_answers_probability_behind_its_reasoning_without_the_image(tiny_policy, scenes):
    """Against one whole pass of plain rows; what lacks a part gets nothing."""
    texts = ["<think>a page</think><answer>reading</answer>", "<answer>reading</answer>", "<think>a page</think>"]
    rollout = encode_completions(tiny_policy, texts, [0, 0, 1], origin="written")
    context = make_context(tiny_policy, scenes[:2], ["reading", "running"], rollout, SHORT)
    rewards = consistency_reward(texts, context)
    assert 0 < rewards[0] < 1 and rewards[1:] == [0.0, 0.0]
    assert right_consistency_reward(texts, ["reading"] * 3, context) == rewards
    assert right_consistency_reward(texts, ["running"] * 3, context) == [0.0] * 3
    image = scenes[0].image.convert("RGB")
    mean = tuple(round(float(value)) for value in np.asarray(image).reshape(-1, 3).mean(axis=0))
    blank = Example(Image.new("RGB", image.size, mean), scenes[0].label, "blank")
    prompts = encode_prompts(tiny_policy, [blank], context.labels)
    one = encode_completions(tiny_policy, texts[:1], [0], origin="written")
    with torch.no_grad():
        logps = score_completions(tiny_policy, prompts, one)[0]  # (L,)
    ids = one.completion_ids[0].tolist()
    pieces = [tiny_policy.tokenizer.decode(ids[: end + 1], skip_special_tokens=True) for end in range(len(ids))]
    start, stop = texts[0].index("reading"), texts[0].index("reading</answer") + len("reading</answer")
    inside = [i for i, piece in enumerate(pieces) if len(piece) > start and len(pieces[i - 1]) < stop]
    assert rewards[0] == pytest.approx(logps[inside].mean().exp().item(), rel=1e-4)


def test_consistency_needs_something_sampled(tiny_policy):
    with pytest.raises(ValueError, match="before anything was sampled"):
        consistency_reward([""], SimpleNamespace(policy=tiny_policy, rollout=None, settings=SHORT))


@pytest.mark.parametrize("style", ["answer", "answer-first"])
def test_consistency_needs_reasoning_before_the_answer(tiny_policy, scenes, style):
    text = "<answer>reading</answer>"
    rollout = encode_completions(tiny_policy, [text], [0], origin="written")
    context = make_context(tiny_policy, scenes[:1], ["reading", "running"], rollout, replace(SHORT, style=style))
    for reward in (consistency_reward, slow_confidence_reward):
        with pytest.raises(ValueError, match=f"{reward.__name__} asks .* style='{style}' has none"):
            reward([text], label=["reading"], groups=[0], context=context)


def paying_functions():
    """Every reward function of the library, by name: those of all recipes, and the two of plain GRPO."""
    functions = [accuracy_reward, format_reward, truth_reward, consistency_reward]
    functions += [function for recipe in RECIPES.values() for function in recipe.steps.get("rewards", ())]
    return {f"{function.__module__}.{function.__name__}": function for function in functions}


@pytest.mark.parametrize("off", [False, True], ids=["on", "off"])
@pytest.mark.parametrize("name", paying_functions())
def test_one_text_for_a_list_of_completions_is_a_type_error(name, off):
    """Letter by letter every reward of a text is 0, and nobody is told. Also where the reward is turned off."""
    function, text = paying_functions()[name], "<think>standing</think><answer>reading</answer>"
    question, shots = Question(["reading"]), SimpleNamespace(labels=["reading"])
    context = SimpleNamespace(progress=0.9, question=question, labels=["reading"], shots=shots, rollout=None)
    rows = {"label": ["reading"] * len(text), "source": ["cartoon/test/000006"] * len(text), "groups": [0] * len(text)}
    numbers = {key: 0 for key, value in inspect.signature(function).parameters.items() if type(value.default) is float}
    with pytest.raises(TypeError, match="^completions must be a list, not the string '<think>standing") as error:
        function(text, context=context, **rows, **(numbers if off else {}))
    assert "\n" not in str(error.value) and "write ['<think>standing" in str(error.value)


@pytest.mark.parametrize("function", [published_reward, aepo_reward, curriculum_reward])
def test_one_label_for_a_list_of_labels_is_a_type_error(function):
    """A text of as many completions as the label has letters would be judged by its letters."""
    context = SimpleNamespace(question=Question(["go"]), labels=["go"])
    with pytest.raises(TypeError, match=r"label must be a list, not the string 'go': write \['go'\]"):
        function(["<answer>g</answer>", "<answer>o</answer>"], label="go", source=["a", "b"], context=context)


@pytest.mark.parametrize("function", [task_reward, jigsaw_reward])
def test_one_source_for_a_list_of_sources_is_a_type_error(function):
    context = SimpleNamespace(question=Task(None, "think", {}, {"a": "yes", "b": "no"}))
    with pytest.raises(TypeError, match=r"source must be a list, not the string 'ab'"):
        function(["<answer>yes</answer>"] * 2, label=["x", "y"], source="ab", context=context)
