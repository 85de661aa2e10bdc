"""Short runs of a recipe, whole or resumed, to be compared bit for bit."""

from __future__ import annotations

from dataclasses import replace

import torch

from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint


def even_ids(completion_ids, **columns):
    """A reward that random weights earn: the share of even token ids."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def take_steps(policy, recipe, shots, settings, stop=None, folder=None, **steps):
    """All steps of a recipe, by default with a reward that random weights earn: the records without times, and the
    weights at the end. With `stop`, it is saved after that many steps, and a policy that was changed meanwhile goes on.
    steps: others in place of the recipe's."""
    recipe = replace(recipe, steps={**recipe.steps, "rewards": {"even_ids": even_ids}, **steps})
    records, _ = run(policy, recipe, shots, settings, stop, folder)
    facts = [{name: value for name, value in r.to_dict().items() if name != "seconds"} for r in records]
    return facts, {name: weight.detach().clone() for name, weight in policy.trainable_parameters()}


def run(policy, recipe, shots, settings, stop=None, folder=None):
    """The records of a whole run, and its state. With `stop`, it is saved after that many steps, and a policy that was
    changed meanwhile goes on."""
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
    return records, state


def same(one, other):
    """Whether two results of `take_steps` are equal bit for bit."""
    return one[0] == other[0] and all(torch.equal(weight, other[1][name]) for name, weight in one[1].items())
