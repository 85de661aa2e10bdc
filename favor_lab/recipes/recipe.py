"""What a recipe is: a published variant of GRPO, as changes of settings, coefficients, and steps of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.training import train

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
        """The settings as the recipe changes them; coefficients that they name already stay."""
        coefficients = {**self.coefficients, **settings.coefficients}
        return replace(settings, **self.settings, coefficients=coefficients)

    def train(
        self, policy: Policy, shots: FewShot, settings: GRPOSettings, resume: TrainingState | None = None
    ) -> Iterator[StepRecord]:
        """`train` with this recipe's settings and steps: one StepRecord per optimiser step, lazily."""
        yield from train(policy, shots, self.applied_to(settings), **self.steps, recipe=self.name, resume=resume)
