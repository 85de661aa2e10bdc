"""Variants of the study: what a cell may change of plain GRPO. Some are recipes, others change a setting or a reward.
`favor-lab study --variants` runs them beside the plain method, and `--recipes` any recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.training import train
from favor_lab.recipes import RECIPES, find_recipe
from favor_lab.recipes.care import consistency_reward, right_consistency_reward
from favor_lab.recipes.truth import truth_reward
from favor_lab.runs.tasks import TASKS

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.support.records import StepRecord
    from favor_lab.grpo.support.settings import GRPOSettings
    from favor_lab.vlm.policy import Policy

Rewards = dict[str, Callable[..., Any]]


@dataclass(frozen=True)
class Variant:
    """One change to GRPO: a recipe, settings, or what is paid for."""

    about: str
    changes: Mapping[str, Any] = field(default_factory=dict)  #: of GRPOSettings
    rewards: Rewards = field(default_factory=dict)  #: by name; empty: those of the recipe
    rate: float = 1.0  #: of the method's learning rate
    recipe: str = ""  #: see `favor_lab.recipes`

    def applied_to(self, settings: GRPOSettings) -> GRPOSettings:
        """The settings as the variant changes them."""
        settings = replace(settings, learning_rate=settings.learning_rate * self.rate)
        return replace(find_recipe(self.recipe).applied_to(settings), **self.changes)

    def train(self, policy: Policy, shots: FewShot, settings: GRPOSettings) -> Iterator[StepRecord]:
        """Records of training with settings that `applied_to` gave, and with the variant's steps."""
        steps = {**find_recipe(self.recipe).steps, **({"rewards": self.rewards} if self.rewards else {})}
        return train(policy, shots, settings, **steps, recipe=self.recipe)


def find_variant(name: str) -> Variant:
    """A variant by its name, or recipes by theirs. ValueError for a name of neither, and for recipes that cannot be
    combined.

    >>> find_variant("no-kl").about, find_variant("visurf+papo").recipe
    ('no KL penalty', 'visurf+papo')
    """
    if name in VARIANTS:
        return VARIANTS[name]
    if unknown := [part for part in name.split("+") if part not in RECIPES]:
        kinds = {"variants are": VARIANTS, "tasks": TASKS, "recipes": RECIPES}
        known = "; ".join(f"the {kind} {', '.join(names)}" for kind, names in kinds.items())
        raise ValueError(f"unknown variant {unknown[0]!r}; {known}")
    return Variant(find_recipe(name).about, recipe=name)


PLAIN: Rewards = {"accuracy_reward": accuracy_reward, "format_reward": format_reward}
TRUTHFUL: Rewards = PLAIN | {"truth_reward": truth_reward}
VARIANTS: Mapping[str, Variant] = {
    "group-2": Variant("groups of 2", {"group_size": 2}),
    "group-4": Variant("groups of 4", {"group_size": 4}),
    "group-16": Variant("groups of 16", {"group_size": 16}),
    "no-kl": Variant("no KL penalty", {"beta": 0.0}),
    "strong-kl": Variant("KL penalty of 0.3", {"beta": 0.3}),
    "no-std": Variant("advantages not divided by a std", {"scale": "none"}),
    "batch-std": Variant("advantages divided by the std of the step", {"scale": "batch"}),
    "std-n": Variant("std with n, not n - 1", {"unbiased": False}),
    "bnpo": Variant("token mean of the step (BNPO)", {"how": "bnpo"}),
    "dapo": Variant("token mean of the step, wider upper clip (DAPO)", recipe="dapo"),
    "dr-grpo": Variant("constant length, no std (Dr. GRPO)", recipe="dr-grpo"),
    "cispo": Variant("clipped ratio as a weight (CISPO)", recipe="cispo"),
    "four-updates": Variant("4 updates per rollout", {"updates_per_rollout": 4}),
    "four-updates-no-clip": Variant("4 updates per rollout, no clip", {"updates_per_rollout": 4, "clip": 1e6}),
    "slow": Variant("half of the learning rate", rate=0.5),
    "cool": Variant("temperature 0.6", {"temperature": 0.6}),
    "hot": Variant("temperature 1.5", {"temperature": 1.5}),
    "no-format": Variant("accuracy alone is paid (format is recorded)", {"reward_weights": (1.0, 0.0)}, PLAIN),
    "published": Variant(
        "the published substring reward and format are paid (the strict accuracy is recorded)", recipe="visual-rft"
    ),
    "published-hot": Variant(
        "the published rewards are paid, temperature 1.5", {"temperature": 1.5}, recipe="visual-rft"
    ),
    "truth": Variant("the truth of the reasoning is paid too", {}, TRUTHFUL),
    "truth-2": Variant("the truth of the reasoning is paid twice", {"reward_weights": (1.0, 1.0, 2.0)}, TRUTHFUL),
    "truth-kl": Variant("the truth of the reasoning is paid too, KL penalty of 0.15", {"beta": 0.15}, TRUTHFUL),
    "truth-2-kl": Variant(
        "the truth of the reasoning is paid twice, KL penalty of 0.3", {"reward_weights": (1.0, 1.0, 2.0), "beta": 0.3},
        TRUTHFUL,
    ),
    "truth-cool": Variant("the truth of the reasoning is paid too, temperature 0.6", {"temperature": 0.6}, TRUTHFUL),
    "consistency": Variant(
        "reasoning that says the answer is paid too", {}, PLAIN | {"consistency_reward": consistency_reward}
    ),
    "consistency-right": Variant(
        "reasoning that says the answer is paid too, where the answer is right", {},
        PLAIN | {"consistency_reward": right_consistency_reward},
    ),
}  # fmt: skip
