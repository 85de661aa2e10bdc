"""Visual Jigsaw: first put the shuffled quarters of the image back in order, then name the activity.

Source: Wu et al., Visual Jigsaw, arXiv 2509.25190; only notes on the paper were read. Equation: 1 where the whole order
is right; else 0.2 times the share of right places, if the answer is an order at all; else 0; plus 0.2 for the form.
Published: 3 x 3 pieces of 118,000 images as a training of its own (2 x 2 a little worse, 4 x 4 fails), 16 completions,
no KL penalty; without the partial reward 3 x 3 was never learnt.

Deviations:
1. 2 x 2 pieces, because our images are small. A guessed order is right once in 24 times.
2. The task takes the first `proxy` = 0.5 of one training, then the run's own question follows: our own choice. With
   `proxy` at 0 it is plain GRPO. Whether any of it helps to name activities is open.
3. The form is worth 1, and the KL penalty and the group are those of the settings, as in plain GRPO.
4. The quarters are cut at half of the image's own size; of an odd width or height the last pixel is left out. Shuffled
   images pass through the vision tower anew in every step.
5. Known to be open to: an order that is the same for every image. It earns 0.08 on average, whichever it is, so that
   none is learnt; one right place of four is no sign of having seen anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.activities.images import Example, prepare_image
from favor_lab.activities.labels import refuse_string
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, extract_answer, format_reward
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.tasks import Task, make_task, stage_at
from favor_lab.recipes.views import shuffled
from favor_lab.vlm.prompts import ask_order
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from random import Random

    from favor_lab.grpo.training import Context

FOUR_NUMBERS = re.compile(r"\d(?:\s*,\s*|\s+)\d(?:\s*,\s*|\s+)\d(?:\s*,\s*|\s+)\d")


def order_score(text: str, right: str, partial: float = 0.2, style: str = "think") -> float:
    """1.0 for the right order; for another order, `partial` times its share of right places; 0.0 for anything else.

    >>> answers = ["3 1 2 4", "3, 1, 4, 2", "1 2 3 4", "3 3 3 3", "3 1 2 4 3 1 2 4", "3124"]
    >>> [order_score(f"<answer>{answer}</answer>", "3 1 2 4") for answer in answers]
    [1.0, 0.1, 0.05, 0.0, 0.0, 0.0]
    """
    answer, places = extract_answer(text, style) or "", right.split()
    numbers = re.findall(r"\d", answer) if FOUR_NUMBERS.fullmatch(answer) else []
    if sorted(numbers) != sorted(places):
        return 0.0
    share = sum(map(str.__eq__, numbers, places)) / len(places)
    return 1.0 if share == 1 else partial * share


def puzzle_first(
    examples: Sequence[Example], *, context: Context, proxy: float = 0.5, **settings: Any
) -> Question | tuple[list[Example], Task]:
    """What this step asks, and of which images: shuffled ones in the first part of the training, `proxy` of it, and
    where each quarter belongs; then the run's own question. ValueError for an image without quarters."""
    if stage_at(context.progress, proxy):
        return context.question

    def ask(example: Example, dice: Random, coin: bool) -> tuple[str, str]:
        if min(example.image.size) < 2:
            size = f"{example.source} has {example.image.size} pixels"
            raise ValueError(f"{size}, too few for four quarters: leave it out")
        return ask_order(context.question.style), " ".join(dice.sample("1234", 4))

    task = make_task(examples, context, ask)
    orders = [list(map(int, task.answers[example.source].split())) for example in examples]
    images = [shuffled(prepare_image(example), order) for example, order in zip(examples, orders, strict=True)]
    return [Example(image, e.label, e.source) for image, e in zip(images, examples, strict=True)], task


def jigsaw_reward(
    completions: Sequence[Completion], label: Sequence[str], source: Sequence[str], context: Context,
    partial: float = 0.2, **columns: Any,
) -> list[float]:  # fmt: skip
    """`order_score` where the quarters were shuffled, `accuracy_reward` where they were not. ValueError for a partial
    reward that is as good as the whole one."""
    if not 0 <= partial < 1:
        raise ValueError(f"partial is {partial}: an order that is partly right must earn from 0 to below 1")
    question = context.question
    if not isinstance(question, Task):
        return accuracy_reward(completions, label, question.style)
    refuse_string("source", source)
    pairs = zip(completion_texts(completions), source, strict=True)
    return [order_score(text, question.answers[name], partial, question.style) for text, name in pairs]


JIGSAW = Recipe(
    "jigsaw",
    "Visual Jigsaw: first the order of the shuffled quarters, then the question itself",
    "Wu et al., Visual Jigsaw, arXiv 2509.25190",
    coefficients={"proxy": 0.5},
    steps={"question": puzzle_first, "rewards": (jigsaw_reward, format_reward)},
    cost="in the first part, the shuffled images encoded",
)
