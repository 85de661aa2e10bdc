"""Sample groups of completions and score them as a step of training would, without learning from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.rewards import accuracy_reward, extract_answer, format_reward, normalise_label
from favor_lab.grpo.sampling import Rollout, sample_groups
from favor_lab.grpo.support.rollout import weighted_sum
from favor_lab.grpo.support.steps import call, named_rewards
from favor_lab.vlm.processing import encode_prompts

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.grpo.support.settings import GRPOSettings
    from favor_lab.vlm.policy import Policy

REWARDS = (accuracy_reward, format_reward)


def sample_and_score(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    rewards: Sequence[Callable[..., Any]] = REWARDS,
    sample: Callable[..., Rollout] = sample_groups,
    *,
    max_new_tokens: int = 128,
    **sampling: Any,
) -> tuple[Rollout, dict[str, Tensor]]:
    """A group of completions for each example, and their rewards by name, (N,) each. rewards, sample: as for `train`;
    sampling: group_size, temperature and seed of `sample_groups`."""
    functions = named_rewards(rewards)
    prompts = encode_prompts(policy, examples, labels, style, completion_tokens=max_new_tokens)
    rollout = call(sample, policy, prompts, max_new_tokens=max_new_tokens, **sampling)
    rows = [examples[b] for b in rollout.groups.tolist()]
    columns = {"label": [row.label for row in rows], "source": [row.source for row in rows], "style": style}
    values = {name: call(function, rollout.texts, **columns) for name, function in functions.items()}
    return rollout, {name: torch.tensor(numbers, dtype=torch.float32) for name, numbers in values.items()}


@dataclass(frozen=True)
class JudgedGroup:
    """G sampled completions for one image, with their rewards and advantages."""

    source: str
    label: str
    texts: list[str]
    rewards: dict[str, list[float]]  #: by name, G each
    advantages: list[float]
    style: str = "think"

    @property
    def spread(self) -> float:
        """Standard deviation (n) of the summed rewards."""
        return float(np.std([sum(values) for values in zip(*self.rewards.values(), strict=True)]))

    def summary(self) -> str:
        """The answers with their counts, the most frequent first.

        >>> JudgedGroup("a.png", "reading", ["<answer>reading</answer>"] * 3 + ["?"], {}, []).summary()
        '3 x reading, 1 x no answer'
        """
        answers = [extract_answer(text, self.style) for text in self.texts]
        counts = Counter("no answer" if answer is None else normalise_label(answer) for answer in answers)
        return ", ".join(f"{count} x {answer}" for answer, count in counts.most_common())


def sample_judged_groups(
    policy: Policy, examples: Sequence[Example], labels: Sequence[str] | None, settings: GRPOSettings
) -> list[JudgedGroup]:
    """A group for each example, scored with the default rewards and advantages."""
    sampling = {name: getattr(settings, name) for name in ("max_new_tokens", "group_size", "temperature", "seed")}
    rollout, scores = sample_and_score(policy, examples, labels, settings.style, **sampling)
    totals, groups = weighted_sum(scores, None), []  # (N,)
    for b, example in enumerate(examples):
        rows = slice(b * settings.group_size, (b + 1) * settings.group_size)
        rewards = {name: values[rows].tolist() for name, values in scores.items()}
        advantages = group_advantages(totals[None, rows], settings.scale, settings.eps, settings.unbiased)[0].tolist()
        about = (example.source, example.label, rollout.texts[rows])
        groups.append(JudgedGroup(*about, rewards, advantages, settings.style))
    return groups
