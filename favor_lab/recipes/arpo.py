"""ARPO's replay: where nobody in a group is right, an earlier success with the same image takes the place of a failure.

Source: Lu et al., ARPO: End-to-end policy optimization for GUI agents with experience replay, arXiv 2505.16282 (not the
later ARPO, 2507.19849); read: notes on its code, dvlab-research/ARPO, replay_buffer.py and ray_trainer.py.
Equation: each task keeps its last 8 successes (score above 0.1); if the rewards of a new group have std < 0.05 and mean
< 0.2, its *first* row is replaced by one of them, drawn at random; then the new successes are kept. Old probabilities
are computed after that, with the current policy: a replayed row starts at ratio 1, as if it were its own.
Published settings: reward success + 0.5 format, G = 8, clip 0.2 / 0.3, no KL penalty.

**What is never solved never enters**: a class without one success has nothing to replay. See `visurf` for those.

Deviations:
1. A task is a training image, by its place among the shots (its file may move between two sessions).
2. The condition is "no completion is right", which is what std < 0.05 and mean < 0.2 say of an accuracy of 0 or 1. On
   our sum of accuracy and format, a wrong well-formed group has a mean of 1, and nothing would ever be replayed.
3. A success has the full reward: `success` (1) times the sum of the weights, since no reward of this project exceeds 1.
   With the published 0.1, one right and malformed response could be replayed for ever.
4. The settings, beta among them, are those of plain GRPO. No choice of tasks beforehand.
5. Rewards are computed again, under the question that is asked now. A reward that compares the completions of a group
   sees the replayed row alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from favor_lab.grpo.sampling import join
from favor_lab.grpo.support.rollout import token_lists
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import rewarded, right_rows, rows_of_ids

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context

BUFFER = "arpo"  # in `context.state`: image -> token ids of its last successes, the oldest first


def image_keys(context: Context) -> list[int | str]:
    """What the buffer calls the image of each prompt: its place among the training images, or, of another image, its
    source."""
    places = {id(example): place for place, example in enumerate(context.shots.train)}
    return [places.get(id(example), example.source) for example in context.examples]


def arpo_select(rollout: Rollout, *, context: Context, capacity: int = 8) -> Rollout:
    """The rows of the step; in groups without a right one the first row gives way to an earlier success, where there is
    any. ValueError for a capacity that is no count."""
    if capacity != int(capacity) or capacity < 0:
        raise ValueError(f"capacity is {capacity}, but counts the successes kept of each image: 0 or more")
    if not capacity:
        return rollout
    context.cache[BUFFER] = rollout  # for `arpo_keep`: what was sampled, before anything is replaced
    keys, buffer = image_keys(context), context.state.get(BUFFER, {})
    groups, solved = rollout.groups.tolist(), set(rollout.groups[right_rows(rollout, context)].tolist())
    replayed = {}  # prompt index -> token ids
    for b in dict.fromkeys(groups):
        if b not in solved and (successes := buffer.get(keys[b])):
            replayed[b] = successes[int(torch.randint(len(successes), (1,), generator=context.generator))]
    if not replayed:
        return rollout
    rows = rows_of_ids(context.policy, list(replayed.values()), list(replayed), "replayed", like=rollout)
    replaced = {groups.index(b) for b in replayed}
    others = rollout.rows([n for n in range(len(rollout)) if n not in replaced])
    return join(others, rewarded(rows, context))


def arpo_keep(*, context: Context, capacity: int = 8, success: float = 1.0) -> None:
    """Keep the successes among the rows that this step sampled; of one image, the last `capacity`. Once per rollout,
    after its first update."""
    fresh, weights = context.cache.get(BUFFER), context.settings.reward_weights
    if fresh is None:
        return
    full = sum(max(weight, 0.0) for weight in weights or [1.0] * len(fresh.rewards))
    is_success = (fresh.total_rewards(weights) >= success * full - 1e-6).tolist()  # (N,)
    keys, buffer = image_keys(context), context.state.setdefault(BUFFER, {})
    ids = token_lists(fresh.completion_ids, fresh.mask)
    for b, row, is_kept in zip(fresh.groups.tolist(), ids, is_success, strict=True):
        if is_kept:
            buffer[keys[b]] = [*buffer.get(keys[b], []), row][-int(capacity) :]


ARPO = Recipe(
    "arpo",
    "ARPO: in a group without a right completion an earlier success with that image is replayed",
    "Lu et al., ARPO: End-to-end policy optimization for GUI agents, arXiv 2505.16282",
    coefficients={"capacity": 8},
    steps={"select": arpo_select, "after_step": arpo_keep},
    cost="none",
)
