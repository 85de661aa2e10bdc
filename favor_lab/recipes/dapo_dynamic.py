"""DAPO with dynamic sampling: a group that is all right or all wrong is left out, and another image takes its place.

Source: Yu et al., DAPO, arXiv 2503.14476; read: its code in verl and verl's documentation of it, and TRL's losses.
Equation: keep the groups with 0 < right completions < G, and sample more until the step has as many as it asks for.
Published: G = 16, clip 0.2 / 0.28, mean over the tokens of the step, beta 0; verl gives up, with an error, after 10
rounds of sampling in all.

Deviations:
1. `retries` = 9 further rounds at most. Each asks as many other training images as groups are missing, in random order,
   none twice in a step; they also come in their own turn, which the loop decides.
2. **A few-shot pool runs dry.** When every training image has been tried, or the retries are spent, the step is learnt
   with the groups that there are, fewer than were asked for; with none, nothing is learnt. verl's training ends there.
3. Right is the accuracy alone, whatever other rewards there are; a group whose rewards differ in the format alone is
   left out too.
4. Settings as in `dapo`: beta and G stay those of plain GRPO; no penalty for overlong responses.
5. retries=0 leaves nothing out: it is `dapo`, bit for bit.
6. Records describe what was sampled first (rewards, right answers, flat groups), so that they compare with those of
   other recipes; `rows` and the samples are what was learnt from. The price, more sampling, shows in their seconds.

It drops what is never solved for ever, so classes drift apart; `visurf` uses exactly the groups that are dropped here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from favor_lab.grpo.sampling import join
from favor_lab.grpo.support.schedule import seed_for
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import rewarded, right_rows, sample_beside

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


def mixed_groups(rollout: Rollout, context: Context) -> Rollout:
    """The rows of groups with right and wrong completions."""
    right = right_rows(rollout, context)  # (N,)
    with_right, with_wrong = (torch.isin(rollout.groups, rollout.groups[rows]) for rows in (right, ~right))  # (N,)
    return rollout.rows(with_right & with_wrong)


def sample_more(examples: list[Example], context: Context) -> Rollout:
    """A group for each of these examples, with rewards; they become further prompts of the step."""
    first = len(context.examples)
    seed = seed_for(context.seed, "more", first)
    rollout = sample_beside(context, context.encode(examples), context.settings.group_size, seed)
    context.examples = [*context.examples, *examples]
    context.prompts = context.encode(context.examples)
    return rewarded(replace(rollout, groups=rollout.groups + first), context)


def dynamic_select(rollout: Rollout, *, context: Context, retries: int = 9) -> Rollout:
    """The mixed groups of the step, and of further images until there are as many as the step asked for, the retries
    are spent or no image is left. ValueError for retries that are no count, and for a question with images of its own:
    there is nothing to draw more of."""
    if retries != int(retries) or retries < 0:
        raise ValueError(f"retries is {retries}, but counts further rounds of sampling: 0 or more")
    if not retries:
        return rollout
    pool, asked = ({id(example) for example in examples} for examples in (context.shots.train, context.examples))
    if strangers := [example.source for example in context.examples if id(example) not in pool]:
        raise ValueError(f"dapo-dynamic draws further training images, but {strangers[0]} is none: set retries=0")
    order = torch.randperm(len(pool), generator=context.generator).tolist()
    untried = [context.shots.train[i] for i in order if id(context.shots.train[i]) not in asked]
    wanted, kept = len(context.examples), mixed_groups(rollout, context)
    for _ in range(int(retries)):
        missing = wanted - len(kept.groups.unique())
        examples, untried = untried[:missing], untried[missing:]
        if not examples:
            break
        kept = join(kept, mixed_groups(sample_more(examples, context), context))
    return kept


DAPO_DYNAMIC = Recipe(
    "dapo-dynamic",
    "DAPO with dynamic sampling: other images in place of groups that are all right or all wrong",
    "Yu et al., DAPO, arXiv 2503.14476",
    settings={"how": "dapo", "clip_high": 0.28},
    coefficients={"retries": 9},
    steps={"select": dynamic_select},
    cost="up to nine more rounds of sampling",
)
