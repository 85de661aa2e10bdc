"""Steps that a recipe has taken: its records without times, the weights at the end, and what it remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch


def even_ids(completion_ids, **columns):
    """A reward that random weights earn."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def take_steps(policy, recipe, shots, settings, stop=None, folder=None) -> tuple[Any, Any, Any]:
    """All steps of a recipe with `even_ids` as its reward. With `stop`, it is saved after that many steps, and a policy
    that was changed meanwhile goes on."""
    from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint

    recipe = replace(recipe, steps={**recipe.steps, "rewards": {"even_ids": even_ids}})
    state, records = TrainingState.start(policy, recipe.applied_to(settings)), []
    for record in recipe.train(policy, shots, settings, resume=state):
        records.append(record)
        if record.step == stop:
            break
    if stop:
        save_checkpoint(folder, state)
        with torch.no_grad():
            for _, weight in policy.trainable_parameters():
                weight.zero_()
        state = load_checkpoint(folder, policy)
        records += recipe.train(policy, shots, settings, resume=state)
    facts = [{name: value for name, value in r.to_dict().items() if name != "seconds"} for r in records]
    return facts, {name: weight.detach().clone() for name, weight in policy.trainable_parameters()}, state.memory


def same(one, other) -> bool:
    """Whether two runs are the same bit for bit."""
    weights = all(torch.equal(weight, other[1][name]) for name, weight in one[1].items())
    return one[0] == other[0] and weights and one[2] == other[2]
