"""What a recipe is: a published variant of GRPO, as changes of settings, coefficients, and steps of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import ArgumentError
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.support.settings import GRPOSettings, changed_settings
from favor_lab.grpo.support.steps import check_weights, coefficients_of, named_rewards
from favor_lab.grpo.training import check_steps, train

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.support.checkpoints import TrainingState
    from favor_lab.grpo.support.records import StepRecord
    from favor_lab.vlm.policy import Policy


@dataclass(frozen=True)
class Recipe:
    """A published variant of GRPO. Any slot of `train` and any setting may be filled.

    name: in the command line, the study and checkpoints. source: the paper. settings: changes of GRPOSettings.
    coefficients: of its own steps, by the name of the parameter that takes them; with all of them at 0 the recipe is
    plain GRPO, bit for bit. steps: by slot of `train` (question, sample, rewards, select, advantages, loss,
    after_step). cost: what a step needs beside a plain one, such as "a pass without gradient"; or "none".
    undecided: coefficients that must be given, and why: see `combine`.
    """

    name: str
    about: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)
    cost: str = ""
    undecided: Mapping[str, str] = field(default_factory=dict)

    def applied_to(self, settings: GRPOSettings) -> GRPOSettings:
        """The settings as the recipe changes them; coefficients that they name already stay. ArgumentError for a
        setting that was changed to something else than the recipe's, and for a coefficient that must be given."""
        for name, value in changed_settings(settings).items():
            if name in self.settings and value != self.settings[name]:
                message = f"{name} is {value!r}, but the recipe {self.name} sets it to {self.settings[name]!r}"
                raise ArgumentError(name, f"{message}: leave out one of the two")
        for name, why in self.undecided.items():
            if name not in settings.coefficients:
                needed = f"{self.name} needs one value of {name} for all of its steps ({why})"
                raise ArgumentError("set", f"{needed}: give it, --set {name}=VALUE or GRPOSettings(coefficients=...)")
        coefficients = {**self.coefficients, **settings.coefficients}
        return replace(settings, **self.settings, coefficients=coefficients)

    @property
    def rewards(self) -> dict[str, Any]:
        """Its reward functions by name."""
        return named_rewards(self.steps.get("rewards", (accuracy_reward, format_reward)))

    @property
    def other_steps(self) -> dict[str, Any]:
        """Its steps by slot, without the rewards."""
        return {slot: step for slot, step in self.steps.items() if slot != "rewards"}

    def options(self) -> dict[str, Any]:
        """Everything that `--set` can change, with its default: the coefficients of all of its steps by name."""
        steps = [*self.other_steps.items(), *(("reward", function) for function in self.rewards.values())]
        values = [coefficients_of(slot, step, GRPOSettings()) for slot, step in steps if callable(step)]
        return {name: value for part in values for name, value in part.items()} | dict(self.coefficients)

    def check(self, settings: GRPOSettings) -> None:
        """ValueError for settings that this recipe cannot be trained with."""
        check_weights(check_steps(self.applied_to(settings), self.other_steps, self.rewards), self.rewards)

    def train(
        self, policy: Policy, shots: FewShot, settings: GRPOSettings, resume: TrainingState | None = None
    ) -> Iterator[StepRecord]:
        """`train` with this recipe's settings and steps: one StepRecord per optimiser step, lazily."""
        yield from train(policy, shots, self.applied_to(settings), **self.steps, recipe=self.name, resume=resume)


# ----------------------------------------------------------------------------------------------------- several at once


def combine(*recipes: Recipe) -> Recipe:
    """Several recipes as one, named with a + between them. Rewards are joined by name; any other slot, and any setting,
    is filled by one of them. ArgumentError, naming both recipes and the slot, where two do not go together.

    A coefficient that two of them take with different defaults must be given, and is then that of both.

    >>> from favor_lab.recipes import RECIPES
    >>> combine(RECIPES["papo"], RECIPES["noisy-rollout"]).name
    'papo+noisy-rollout'
    >>> combine(RECIPES["cispo"], RECIPES["dapo"])
    Traceback (most recent call last):
    ...
    favor_lab.arguments.ArgumentError: cispo and dapo cannot be combined: both set the setting how, to 'cispo' and
    'dapo'
    """
    for place, recipe in enumerate(recipes):
        if recipe.name in [earlier.name for earlier in recipes[:place]]:
            raise ArgumentError("recipe", f"the recipe {recipe.name} is named twice: once is enough")
    with_rewards = [recipe for recipe in recipes if {"rewards", "reward_weights"} & {*recipe.steps, *recipe.settings}]
    settings = [{name: v for name, v in r.settings.items() if name != "reward_weights"} for r in recipes]
    steps = united(recipes, [recipe.other_steps for recipe in recipes], "fill the slot", same_is_fine=False)
    if rewards := united(with_rewards, [recipe.rewards for recipe in with_rewards], "have a reward"):
        steps["rewards"] = rewards
    options, coefficients = [recipe.options() for recipe in recipes], dict[str, Any]()
    undecided = dict[str, str]()
    for name in {name: None for part in options for name in part}:
        defaults = {recipe.name: part[name] for recipe, part in zip(recipes, options, strict=True) if name in part}
        main = any(name in recipe.coefficients for recipe in recipes)
        if len({repr(value) for value in defaults.values()}) > 1:
            undecided[name] = ", ".join(f"{owner} takes {value}" for owner, value in defaults.items())
        elif main:
            coefficients[name] = next(iter(defaults.values()))
    values = united(recipes, settings, "set the setting") | reward_weights(with_rewards)
    try:
        replace(GRPOSettings(), **values)
    except ArgumentError as error:
        both = " and ".join(recipe.name for recipe in recipes)
        raise ArgumentError("recipe", f"{both} cannot be combined: together, {error}") from error
    return Recipe(
        "+".join(recipe.name for recipe in recipes),
        "; ".join(recipe.about for recipe in recipes),
        "; ".join(recipe.source for recipe in recipes),
        values,
        coefficients,
        steps,
        "; ".join(dict.fromkeys(r.cost for r in recipes if r.cost not in ("", "none"))) or "none",
        undecided,
    )


def united(
    recipes: Sequence[Recipe], parts: Sequence[Mapping[str, Any]], what: str, same_is_fine: bool = True
) -> dict[str, Any]:
    """The entries of all parts, one part per recipe. ArgumentError for a name that two recipes have with different
    values; or, unless the same value is fine, that two recipes have at all."""
    owners, values = dict[str, str](), dict[str, Any]()
    for recipe, part in zip(recipes, parts, strict=True):
        for name, value in part.items():
            if name in values and not (same_is_fine and values[name] == value):
                both = f"{owners[name]} and {recipe.name} cannot be combined: both {what} {name}"
                differently = f", to {values[name]!r} and {value!r}" if "setting" in what else ""
                different = " of their own" if "reward" in what else differently
                raise ArgumentError("recipe", both + different)
            owners[name], values[name] = recipe.name, value
    return values


def reward_weights(recipes: Sequence[Recipe]) -> dict[str, tuple[float, ...]]:
    """The setting `reward_weights` for the joined rewards of these recipes, if one of them has it; else nothing."""
    if not any("reward_weights" in recipe.settings for recipe in recipes):
        return {}
    parts = [
        dict(zip(r.rewards, r.settings.get("reward_weights", [1.0] * len(r.rewards)), strict=True)) for r in recipes
    ]
    return {"reward_weights": tuple(united(recipes, parts, "set, as a setting, the weight of").values())}
