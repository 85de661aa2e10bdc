"""Curr-ReFT: a curriculum from yes or no, over a choice by letter, to the question itself.

Source: Deng et al., Curriculum reinforcement learning, arXiv 2503.07065; code ding523/Curr_REFT, the three stages'
scripts. Equations: 1 for the right word or letter in the first two stages, and in the last the Jaccard index of the
labels in the answer and the right ones, |both| / |either|; each plus the format reward. Published: 4, 2 and 4
completions per prompt; 1, 1 and 2 epochs, each stage from a checkpoint of the one before; letters A to E.

Deviations:
1. The stages share one training of fixed length: 20, 30 and 50 % of its steps, our own choice. With both shares at 0
   and `partial` at 0 it is plain GRPO.
2. The group has one size in all stages.
3. In the first stage "yes" is right for half of the images of each step; how the published data balance the two words
   was not looked up. A policy that says yes to everything then earns half, as one that guesses.
4. The letters are those of `options` labels, the right one among them at any place, drawn anew in every step.
5. The last stage asks the run's own question, of a closed list or open. A name that is said twice counts twice in the
   Jaccard index: sets would pay for repeating.
6. No detection, no mathematics (the published rule for it takes substrings), and no fine-tuning on selected responses
   afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from favor_lab.activities.labels import normalise_label, refuse_string
from favor_lab.grpo.rewards import Completion, completion_texts, extract_answer, format_reward
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.tasks import Task, make_task, stage_at, task_reward, yes_no_task
from favor_lab.vlm.prompts import ask_choice
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from random import Random

    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context


def choice_task(examples: Sequence[Example], context: Context, options: int = 5) -> Task:
    """Which of some labels it is, by letter: `options` labels, or all if there are fewer. ValueError for fewer than
    two options or more than there are letters."""
    if not 2 <= options <= len(ascii_uppercase):
        raise ValueError(f"options is {options}: a choice by letter has 2 to {len(ascii_uppercase)}")

    def ask(example: Example, dice: Random, coin: bool) -> tuple[str, str]:
        others = [label for label in context.shots.labels if label != example.label]
        names = [example.label, *dice.sample(others, min(int(options) - 1, len(others)))]
        dice.shuffle(names)
        return ask_choice(names, context.question.style), ascii_uppercase[names.index(example.label)]

    return make_task(examples, context, ask)


def curriculum(
    examples: Sequence[Example], *, context: Context, yes_no: float = 0.2, choice: float = 0.3, options: int = 5,
    **settings: Any,
) -> Question:  # fmt: skip
    """What this step asks: yes or no in the first part of the training, `yes_no` of it; the letter in the next part,
    `choice` of it; then the run's own question."""
    stage = stage_at(context.progress, yes_no, choice)
    if stage == 0:
        return yes_no_task(examples, context)
    return choice_task(examples, context, options) if stage == 1 else context.question


def jaccard(text: str, label: str, style: str = "think") -> float:
    """|both| / |either| of the labels in the answer, separated by commas, and the one right label; 0.0 without answer.

    A list of k names is paid the mean of their chances of being right: never more than the likeliest of them alone.

    >>> answers = ["reading", "reading, running", "running", "reading, reading", "not reading", "reading,"]
    >>> [jaccard(f"<answer>{answer}</answer>", "reading") for answer in answers]
    [1.0, 0.5, 0.0, 0.5, 0.0, 0.5]
    """
    answer, gold = extract_answer(text, style) or "", normalise_label(label)
    names = [normalise_label(answer)] if normalise_label(answer) == gold else answer.split(",")
    return 1 / len(names) if gold in map(normalise_label, names) else 0.0


def curriculum_reward(
    completions: Sequence[Completion],
    label: Sequence[str],
    source: Sequence[str],
    context: Context,
    partial: float = 1.0,
    **columns: Any,
) -> list[float]:
    """`task_reward`; in the last stage, a list of names that has the right one earns `partial` times its `jaccard`."""
    if not 0 <= partial <= 1:
        raise ValueError(f"partial is {partial}: a list with the right name is paid 0 to 1 of its Jaccard index")
    scores = task_reward(completions, label, source, context)
    if isinstance(context.question, Task):
        return scores
    refuse_string("label", label)
    pairs = zip(completion_texts(completions), label, strict=True)
    return list(map(max, scores, [partial * jaccard(text, gold, context.question.style) for text, gold in pairs]))


CURR_REFT = Recipe(
    "curr-reft",
    "Curr-ReFT: first yes or no, then a choice by letter, then the question itself",
    "Deng et al., Curriculum reinforcement learning, arXiv 2503.07065",
    coefficients={"yes_no": 0.2, "choice": 0.3, "partial": 1.0},
    steps={"question": curriculum, "rewards": (curriculum_reward, format_reward)},
    cost="none",
)
