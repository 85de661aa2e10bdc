"""Arguments that can only go wrong are refused by name, before anything is computed."""

import dataclasses
import math

import pytest

from favor_lab import FewShot, GRPOSettings, answer, evaluate, few_shot, load_activities, sft, train
from favor_lab.grpo.support.settings import TrainSettings
from favor_lab.recipes import RECIPES, find_recipe
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.run import RunPlan, run_training

NAN, INF = math.nan, math.inf
FIELDS = {item.name: str(item.type) for item in dataclasses.fields(GRPOSettings)}
WRONG = {
    "int": [NAN, INF, 1.5, 2**70, True, "3", None, [3]],
    "float": [NAN, INF, -INF, 10**400, True, "3", None, [3]],
    "bool": [2, "yes", None, NAN, []],
    "choice": ["nonsense", None, 3, [], NAN],
    "float | None": [NAN, INF, -1.0, 0.1, "0.3", True],  # clip is 0.2
    "tuple[float, ...] | None": [(), "11", 1.0, (NAN, 1.0), (INF,), (0.0, 0.0), ("1", "1"), (True, 1.0), (1e30, 1.0)],
    "Mapping": ["gamma", 3, None, {"gamma": NAN}, {"gamma": INF}],
}


@pytest.mark.parametrize("name", FIELDS)
def test_settings_name_the_argument(name):
    kind = FIELDS[name].partition("[str,")[0]
    for value in WRONG.get(kind, WRONG["choice"]):
        with pytest.raises(ValueError, match=name):
            GRPOSettings(**{name: value})
    for settings in (TrainSettings, GRPOSettings):
        if name in {item.name for item in dataclasses.fields(settings)}:
            settings(**{name: getattr(GRPOSettings(), name)})


@pytest.mark.parametrize("name", [name for name, kind in FIELDS.items() if kind in ("int", "float") and name != "seed"])
def test_settings_are_not_negative(name):
    with pytest.raises(ValueError, match=name):
        GRPOSettings(**{name: -1})


@pytest.mark.parametrize("settings", [{"clip": 0.3, "clip_high": 0.2}, {"warmup_steps": 101}, {"group_size": 2**20}])
def test_settings_that_contradict_each_other(settings):
    with pytest.raises(ValueError, match=list(settings)[-1]):
        GRPOSettings(**settings)


def test_plans_and_recipes_name_the_argument():
    plan = RunPlan("train", DataOptions(), PolicyOptions(), GRPOSettings())
    for change in ({"checkpoint_every": 0}, {"checkpoint_every": 1.5}):
        with pytest.raises(ValueError, match="checkpoint_every"):
            dataclasses.replace(plan, **change)
    for options, name in (({"shots": 0}, "shots"), ({"test": -1}, "test"), ({"person_crop": NAN}, "person_crop")):
        with pytest.raises(ValueError, match=name):
            DataOptions(**options)
    for options, name in (({"lora_rank": -1}, "lora_rank"), ({"lora_alpha": 0}, "lora_alpha"), ({"policy": ""}, "")):
        with pytest.raises(ValueError, match=name):
            PolicyOptions(**options)
    for settings, name in ((GRPOSettings(reward_weights=(1.0,)), "reward_weights"), (GRPOSettings(how="bnpo"), "how")):
        with pytest.raises(ValueError, match=name):
            run_training(dataclasses.replace(plan, recipe="dapo", settings=settings))
    for recipe in map(find_recipe, ("", *RECIPES)):
        recipe.check(GRPOSettings())
        recipe.check(recipe.applied_to(GRPOSettings()))


@pytest.mark.parametrize("value", [0, -1, 1.5, NAN, INF, "3", True, None])
def test_few_shot_evaluate_and_answer_name_the_argument(value, tiny_policy, tiny_examples):
    for name in ("shots", "test"):
        if (name, value) != ("test", 0):
            with pytest.raises(ValueError, match=name):
                few_shot(load_activities("cartoon"), **{"shots": 1, "test": 1, name: value})
    labels = sorted({example.label for example in tiny_examples})
    for function in (evaluate, answer):
        for name in ("max_new_tokens", "batch_size"):
            with pytest.raises(ValueError, match=name):
                function(tiny_policy, tiny_examples, labels, **{name: value})


def test_train_and_sft_name_the_argument(tiny_policy, tiny_examples):
    shots = FewShot(tiny_examples, [], [], sorted({example.label for example in tiny_examples}))
    for function, settings in ((train, TrainSettings()), (train, {"steps": 3}), (sft, {"steps": 3}), (sft, "fast")):
        with pytest.raises(ValueError, match="settings"):
            next(function(tiny_policy, shots, settings))
    for options, name in (
        ({"rewards": "a"}, "rewards"), ({"rewards": ["accuracy"]}, "rewards"), ({"rewards": []}, "rewards"),
        ({"rewards": few_shot}, "rewards"), ({"loss": "dapo"}, "loss"), ({"question": "which?"}, "question"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            next(train(tiny_policy, shots, GRPOSettings(), **options))
    with pytest.raises(ValueError, match="reward_weights has 1 numbers for 2 rewards"):
        next(train(tiny_policy, shots, GRPOSettings(reward_weights=(1.0,))))
    with pytest.raises(ValueError, match="shots"):
        next(sft(tiny_policy, dataclasses.replace(shots, train=[])))
