"""PeBR-R1: first learn to see on the images that are solved already, then learn to answer.

Source: Chen et al., Perception before reasoning, arXiv 2509.13031; code cythu/PeBR-R1: sample_dataset.py and the reward
of stage 1; that of stage 2 was not read. Equations: 8 responses for each prompt make it easy (8 right), medium (1 to 7)
or hard (none). Stage 1, on the easy ones, whose accuracy no longer differs: 0.4 min(CLIP / 0.4, 1) + 0.4 (keywords said
/ keywords) + 0.1 form + 0.1 length; stage 2: accuracy, on the medium ones by a comment in its settings. Published: 1
epoch, then 2; temperature 1.2, 8 completions, KL 0.01.

Deviations:
1. The keywords are the true statements of a drawn scene, and others cost `price` = 1 (`statement_scores`): published,
   to say every keyword that there is would be paid in full. They weigh `perception` = 4 beside the form's 1, as they do
   there.
2. No CLIP: two texts of statements need no model to be compared. No length, which is 1 up to 512 tokens: a constant.
3. Stage 1 takes `stage1` = 1/3 of one training, as 1 epoch and 2 do; with `stage1` at 0 it is plain GRPO.
4. Where no image has 8 right responses, the ones with the most are the easy ones. A few shots of a weak policy have no
   more to offer.
5. Stage 2 trains on all images: of a few shots, the hard ones are whole activities that would never be learnt.
6. The 8 responses are sampled once, before the first step, at the run's temperature; the result is kept in checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.grpo.support.schedule import draw
from favor_lab.recipes.facts import check_reasoning, statement_scores
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import count_right_responses
from favor_lab.recipes.tasks import stage_at, turn_of
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.images import Example
    from favor_lab.grpo.training import Context

RIGHT = "pebr: right responses of each image"  # in `context.state`: a list in the order of the training images


def easiest(counts: Sequence[int]) -> list[int]:
    """Where the count is largest: the images that are solved, or nearly.

    >>> easiest([8, 3, 8, 0]), easiest([1, 3, 2])
    ([0, 2], [1])
    """
    return [place for place, count in enumerate(counts) if count == max(counts)]


def easy_first(
    examples: Sequence[Example], *, context: Context, stage1: float = 1 / 3, samples: int = 8, **settings: Any
) -> tuple[Sequence[Example], Question]:
    """The images of this step, with the run's own question: easy ones in the first part of the training, `stage1` of
    it, as many as else; then those that it would have anyway. ValueError for no sample to measure by."""
    if stage_at(context.progress, stage1):
        return examples, context.question
    if samples < 1:
        raise ValueError(f"samples is {samples}: an image is easy by its right responses, so take 1 at least")
    check_reasoning(context.question, "pebr")
    if RIGHT not in context.state:
        context.cache[RIGHT] = count_right_responses(context, samples)
    easy = [context.shots.train[place] for place in easiest(context.state.get(RIGHT) or context.cache[RIGHT])]
    drawn = draw([e.label for e in easy], turn_of(context), context.settings.prompts_per_step, context.settings.seed)
    return [easy[place] for place in drawn], context.question


def remember(context: Context) -> None:
    """Keep what was measured in this step."""
    if RIGHT in context.cache:
        context.state[RIGHT] = context.cache[RIGHT]


def reasoning_reward(
    completions: Sequence[Completion], label: Sequence[str], context: Context, stage1: float = 1 / 3, **columns: Any
) -> list[float]:
    """`accuracy_reward` in stage 2; 0.0 in stage 1."""
    scores = accuracy_reward(completions, label, context.question.style)
    return [stage_at(context.progress, stage1) * score for score in scores]


def perception_reward(
    completions: Sequence[Completion], source: Sequence[str], context: Context, stage1: float = 1 / 3,
    perception: float = 4.0, price: float = 1.0, **columns: Any,
) -> list[float]:  # fmt: skip
    """`perception` times `statement_scores` in stage 1, whatever the answer is; 0.0 in stage 2. What it is open to is
    said there."""
    if stage_at(context.progress, stage1):
        return no_reward(completions)
    return [perception * score for score in statement_scores(completions, source, price, "pebr")]


PEBR = Recipe(
    "pebr",
    "PeBR-R1: first true statements about images that are solved already, then the answer",
    "Chen et al., Perception before reasoning, arXiv 2509.13031",
    coefficients={"stage1": 1 / 3},
    steps={
        "question": easy_first,
        "rewards": (reasoning_reward, format_reward, perception_reward),
        "after_step": remember,
    },
    cost="8 responses to each training image, once",
)
