"""What a recipe is: a published variant of GRPO, as changes of settings, coefficients, and steps of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import ArgumentError
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.support.settings import changed_settings
from favor_lab.grpo.support.steps import check_weights, named_rewards
from favor_lab.grpo.training import check_steps, train

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.support.checkpoints import TrainingState
    from favor_lab.grpo.support.records import StepRecord
    from favor_lab.grpo.support.settings import GRPOSettings
    from favor_lab.vlm.policy import Policy


@dataclass(frozen=True)
class Recipe:
    """A published variant of GRPO. Any slot of `train` and any setting may be filled.

    name: in the command line, the study and checkpoints. source: the paper. settings: changes of GRPOSettings.
    coefficients: of its own steps, by the name of the parameter that takes them; with all of them at 0 the recipe is
    plain GRPO, bit for bit. steps: by slot of `train` (question, sample, rewards, select, advantages, loss,
    after_step).
    """

    name: str
    about: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, settings: GRPOSettings) -> GRPOSettings:
        """The settings as the recipe changes them; coefficients that they name already stay. ArgumentError for a
        setting that was changed to something else than the recipe's."""
        for name, value in changed_settings(settings).items():
            if name in self.settings and value != self.settings[name]:
                message = f"{name} is {value!r}, but the recipe {self.name} sets it to {self.settings[name]!r}"
                raise ArgumentError(name, f"{message}: leave out one of the two")
        coefficients = {**self.coefficients, **settings.coefficients}
        return replace(settings, **self.settings, coefficients=coefficients)

    def check(self, settings: GRPOSettings) -> None:
        """ValueError for settings that this recipe cannot be trained with."""
        slots = {slot: step for slot, step in self.steps.items() if slot != "rewards"}
        rewards = named_rewards(self.steps.get("rewards", (accuracy_reward, format_reward)))
        check_weights(check_steps(self.applied_to(settings), slots, rewards), rewards)

    def train(
        self, policy: Policy, shots: FewShot, settings: GRPOSettings, resume: TrainingState | None = None
    ) -> Iterator[StepRecord]:
        """`train` with this recipe's settings and steps: one StepRecord per optimiser step, lazily."""
        yield from train(policy, shots, self.applied_to(settings), **self.steps, recipe=self.name, resume=resume)
