"""Other questions about a step's images, for recipes that first ask something easier than the activity: a `Task` has a
text and a right answer of its own for each image, which `task_reward` pays.

What is asked depends on the run's seed and the step alone, so a resumed run asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from favor_lab.activities.labels import refuse_string
from favor_lab.grpo.rewards import Completion, accuracy_reward
from favor_lab.vlm.prompts import ask_yes_no
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context

#: (example, dice, coin) -> what is asked of it, and the right answer; coin: True for half of the images of a step
Ask = Callable[["Example", Random, bool], tuple[str, str]]


@dataclass(frozen=True)
class Task(Question):
    """A question with a text and a right answer of its own for each image, by the image's source. The completions keep
    the label of their image, so that the counts of right labels in the records stay counts of labels."""

    texts: Mapping[str, str] = field(default_factory=dict, compare=False)
    answers: Mapping[str, str] = field(default_factory=dict, compare=False)

    def text(self, example: Example) -> str:
        """The user's turn, after the image, for one example."""
        return self.texts[example.source]


def make_task(examples: Sequence[Example], context: Context, ask: Ask) -> Task:
    """A Task about the images of this step, in the run's style: what `ask` makes of each, with dice and coins from
    `context.generator`. An image that comes twice in one step is asked the same twice."""
    by_source = {example.source: example for example in examples}
    dice = Random(int(torch.randint(2**53, (), generator=context.generator)))
    coins = fair_coins(len(by_source), turn_of(context), dice)
    asked = {source: ask(by_source[source], dice, coin) for source, coin in zip(by_source, coins, strict=True)}
    texts, answers = ({source: pair[part] for source, pair in asked.items()} for part in (0, 1))
    return Task(context.question.labels, context.question.style, texts, answers)


def turn_of(context: Context) -> int:
    """The number of this step's rollout, counted from 0."""
    return context.step // context.settings.updates_per_rollout


def fair_coins(count: int, turn: int, dice: Random) -> list[bool]:
    """As many True as False, in random order; of an odd count, the odd one is True in every second rollout.

    >>> [sum(fair_coins(3, turn, Random(0))) for turn in (0, 1)]
    [2, 1]
    """
    coins = [(place + turn) % 2 == 0 for place in range(count)]
    dice.shuffle(coins)
    return coins


def stage_at(progress: float, *shares: float) -> int:
    """The stage of a training at a progress from 0 to 1: `shares` are those of the first stages, the last one has the
    rest. ValueError for shares below 0 or above 1 in all.

    >>> [stage_at(step / 10, 0.2, 0.3) for step in range(10)]
    [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    """
    ends = list(accumulate(shares))
    if min(shares) < 0 or ends[-1] > 1 + 1e-9:
        raise ValueError(f"the stages take {', '.join(map(str, shares))} of the training: from 0, and at most 1 in all")
    return sum(progress >= end - 1e-9 for end in ends)


def other_label(example: Example, context: Context, dice: Random) -> str:
    """A label of the run that is not the example's. ValueError if there is none."""
    others = [label for label in context.shots.labels if label != example.label]
    if not others:
        raise ValueError(f"the run has one label, {example.label!r}: there is no wrong one to ask about; add a label")
    return dice.choice(others)


def yes_no_task(examples: Sequence[Example], context: Context) -> Task:
    """Whether the person does this or that: "yes" is right for half of the images, and a wrong label is any other."""

    def ask(example: Example, dice: Random, coin: bool) -> tuple[str, str]:
        label = example.label if coin else other_label(example, context, dice)
        return ask_yes_no(label, context.question.style), "yes" if coin else "no"

    return make_task(examples, context, ask)


def task_reward(
    completions: Sequence[Completion], label: Sequence[str], source: Sequence[str], context: Context, **columns: Any
) -> list[float]:
    """1.0 for the right answer to what was asked, else 0.0: the answer of a Task; the label where the question is the
    run's own, as `accuracy_reward`. The match is that of `accuracy_reward`: "yes or no" answers nothing."""
    refuse_string("source", source)
    question = context.question
    answers = [question.answers[name] for name in source] if isinstance(question, Task) else label
    return accuracy_reward(completions, answers, question.style)
