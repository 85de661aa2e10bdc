"""The loop: sample, reward, compare, learn.

`train` is a generator that yields one StepRecord per optimiser step; whoever consumes the records prints, plots or
saves. Each of the four steps is an argument. A step of one's own is called with the same leading arguments as the
default one, and with whatever else it names among its parameters: any field of GRPOSettings, `seed`, or `context`
(see Context). What a `functools.partial` has fixed stays fixed.
"""

from __future__ import annotations

import functools
import inspect
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages, is_flat, to_groups
from favor_lab.grpo.checkpoints import Batch, TrainingState
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.records import GRPOSettings, StepRecord, describe, some_samples, weighted_sum
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import Rollout, check_rows, sample_groups, score_completions
from favor_lab.vlm.processing import PromptBatch, encode_prompts

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

__all__ = ["Context", "GRPOSettings", "StepRecord", "keep_all", "train"]

Rewards = dict[str, Tensor]
RewardFunctions = Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]]


@dataclass
class Context:
    """What a step of one's own may ask for, by naming a parameter `context`.

    `rollout` and `rewards` (by name, (N,) each) are those of this step as soon as they exist. `state` is a dictionary
    that outlives steps and checkpoints: change it in `after_step`, where a step can no longer be interrupted.
    For the log-probabilities under another view of the images, encode altered `examples` with `encode_prompts` and
    hand them to `score_completions(context.policy, altered, rollout)`.
    """

    step: int  # optimiser steps done so far
    progress: float  # the same from 0 to 1
    policy: Policy
    settings: GRPOSettings
    labels: list[str] | None  # as named in the prompt
    examples: list[Example]  # of this step, one per prompt
    prompts: PromptBatch
    state: dict[str, Any]
    generator: torch.Generator = field(repr=False)  # on the CPU, seeded by the run's seed and the step
    rollout: Rollout | None = None
    rewards: Rewards = field(default_factory=dict)
    record: StepRecord | None = None  # for `after_step`

    def reference_logps(self, rollout: Rollout, prompts: PromptBatch | None = None) -> Tensor:
        """Log-probabilities (N, L) of the reference policy (adapter off), without gradient, for the step's prompts or
        for the same prompts seen otherwise."""
        with self.policy.reference(), torch.no_grad():
            prompts = self.prompts if prompts is None else prompts
            logps = score_completions(self.policy, prompts, rollout, rows_per_pass=self.settings.micro_batch)
        check_rows(~logps.isfinite().all(dim=1), prompts, rollout.groups, "the reference's log-probability")
        return logps


def keep_all(rollout: Rollout, rewards: Rewards) -> tuple[Rollout, Rewards]:
    """The default `select`: every row goes on as it is."""
    return rollout, rewards


def train(
    policy: Policy,
    shots: FewShot,
    settings: GRPOSettings | None = None,
    *,
    sample: Callable[..., Rollout] = sample_groups,
    rewards: RewardFunctions = (accuracy_reward, format_reward),
    select: Callable[..., tuple[Rollout, Rewards]] = keep_all,
    advantages: Callable[..., Tensor] = group_advantages,
    loss: Callable[..., tuple[Tensor, dict[str, float]]] = grpo_loss,
    after_step: Callable[..., None] | None = None,
    resume: TrainingState | None = None,
) -> Iterator[StepRecord]:
    """Few-shot GRPO of `policy` on `shots.train`, in place: one StepRecord per optimiser step.

    sample(policy, prompts) -> Rollout; rewards: functions with TRL's signature, named by their `__name__` or by the keys
    of a dictionary; select(rollout, rewards by name) -> both, with rows dropped or added; advantages((B, G)) -> (B, G)
    or (B, G, L); loss(logps, old_logps, ref_logps, advantages, mask) -> scalar and its parts; after_step().
    resume: a TrainingState, new or loaded by `load_checkpoint`, that the loop brings forward.
    Raises FloatingPointError, naming step, phase and place, as soon as a number is not finite.
    """
    settings = settings or (resume.settings if resume else GRPOSettings())
    state = begin(policy, shots, settings, resume)
    labels = None if settings.open_vocabulary else shots.labels
    prompts = encode_prompts(
        policy, shots.train, labels, settings.style, settings.max_new_tokens
    )  # once, for all steps
    while state.step < settings.steps:
        context, clock = (
            prepare(state, settings, shots, labels, prompts),
            Clock(state.step + 1, policy.device),
        )
        if state.batch is None:
            with clock("sample"):  # step 1: G completions of each prompt
                rollout = context.rollout = ask(sample, policy, context.prompts, **offers(context))
            with clock("reward"):  # step 2: judge each
                scores = context.rewards = judge(rewards, rollout, context)
                facts = describe(rollout, scores, context.prompts.labels, settings, state.right_so_far)
                rollout, scores = context.rollout, context.rewards = choose(select, rollout, scores, context)
            with clock("advantage"):  # step 3: compare it with its group
                totals = weighted_sum(scores, settings.reward_weights, len(rollout))
                values = compare(advantages, totals, rollout, context)
            with clock("reference"):
                ref_logps = context.reference_logps(rollout) if settings.beta and len(rollout) else None
            facts["samples"] = some_samples(
                rollout, scores, totals, values, context.prompts, settings.log_rows
            )
            batch = Batch(rollout, scores, values, remembered_logps(rollout), ref_logps, facts)
        else:  # the same rollout once more
            batch = state.batch
            context.rollout, context.rewards = batch.rollout, batch.rewards
        with clock("loss"):  # step 4: one number, and its gradient
            state.optimiser.zero_grad(set_to_none=True)
            measured = backward(policy, batch, loss, context)
        with uninterrupted() as interrupted, clock("update"):
            measured |= update(state, settings, rows=len(batch.rollout))
            record = context.record = report(state, batch, measured, clock.seconds, settings)
            if after_step is not None:
                ask(after_step, **offers(context))
        yield record
        if interrupted:
            raise KeyboardInterrupt


# ---------------------------------------------------------------------------------------------- what the steps are given


def offers(context: Context) -> dict[str, Any]:
    """What every step may name: each field of the settings, the seed of this rollout, and the context."""
    settings = context.settings
    rollout_seed = seed_for(settings.seed, "rollout", context.step // settings.updates_per_rollout)
    return {item.name: getattr(settings, item.name) for item in fields(settings)} | {
        "seed": rollout_seed,
        "context": context,
    }


def prepare(
    state: TrainingState,
    settings: GRPOSettings,
    shots: FewShot,
    labels: list[str] | None,
    prompts: PromptBatch,
) -> Context:
    """The context of the step to come, with its prompts drawn."""
    turn = state.step // settings.updates_per_rollout
    drawn = draw(prompts.labels, turn, settings.prompts_per_step, settings.seed)
    return Context(
        step=state.step,
        progress=state.step / settings.steps,
        policy=state.policy,
        settings=settings,
        labels=labels,
        examples=[shots.train[i] for i in drawn],
        prompts=prompts[drawn],
        state=state.memory,
        generator=torch.Generator().manual_seed(seed_for(settings.seed, "step", state.step)),
    )


def begin(
    policy: Policy, shots: FewShot, settings: GRPOSettings, resume: TrainingState | None
) -> TrainingState:
    """The state to go on from; ValueError where it belongs to another policy, other images or other settings."""
    state = resume or TrainingState.start(policy, settings)
    sources = [example.source for example in shots.train]
    if state.policy is not policy:
        raise ValueError(
            "the state to resume belongs to another policy object: pass the one it was made with"
        )
    if state.step and state.sources != sources:
        raise ValueError(
            f"the run to resume has seen other images ({len(state.sources)}, the first "
            f"{state.sources[0]}) than these ({len(sources)}, the first {sources[0]})"
        )
    free = {"steps", "micro_batch", "log_rows"}  # may change in mid-run; the others would make it another run
    unlike = [
        item.name
        for item in fields(settings)
        if item.name not in free and getattr(settings, item.name) != getattr(state.settings, item.name)
    ]
    if unlike:
        raise ValueError(
            f"the run to resume has other settings: {', '.join(unlike)}; pass its own (state.settings)"
        )
    if settings.beta:
        with policy.reference():  # a ValueError now rather than after the first rollout
            pass
    state.settings, state.sources = settings, sources
    return state


# ------------------------------------------------------------------------------------------------------ inside the steps


def judge(rewards: RewardFunctions, rollout: Rollout, context: Context) -> Rewards:
    """Every reward of every row, by name: (N,) each. ValueError for a reward that is missing or not finite."""
    named = (
        rewards if isinstance(rewards, Mapping) else {reward_name(function): function for function in rewards}
    )
    if len(named) != len(rewards):
        raise ValueError("two reward functions have the same name: pass a dictionary of names and functions")
    groups, prompts = rollout.groups.tolist(), context.prompts
    columns = {
        "prompts": [prompts.texts[b] for b in groups],
        "completions": rollout.texts,
        "completion_ids": [
            ids[keep].tolist() for ids, keep in zip(rollout.completion_ids, rollout.mask, strict=True)
        ],
        "label": [prompts.labels[b] for b in groups],
        "source": [prompts.sources[b] for b in groups],
        "groups": groups,
        "style": context.settings.style,
        "context": context,
    }
    scores = {}
    for name, function in named.items():
        values = list(ask(function, **columns))
        bad = [i for i, value in enumerate(values) if value is None or not math.isfinite(value)]
        if bad or len(values) != len(rollout):
            problem = f"{values[bad[0]]} for row {bad[0]}" if bad else f"{len(values)} rewards"
            raise ValueError(
                f"the reward function {name} gave {problem}; it must give {len(rollout)} finite numbers"
            )
        scores[name] = torch.tensor(values, dtype=torch.float32, device=rollout.mask.device)  # (N,)
    return scores


def reward_name(function: Callable[..., Any]) -> str:
    """
    >>> reward_name(functools.partial(format_reward, style="answer"))
    'format_reward'
    """
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(function, "__name__", type(function).__name__)


def choose(
    select: Callable[..., Any], rollout: Rollout, scores: Rewards, context: Context
) -> tuple[Rollout, Rewards]:
    """The rows to learn from: those of `select`, without those of flat groups if the settings say so."""
    rollout, scores = ask(select, rollout, scores, **offers(context))
    if not all(len(values) == len(rollout) for values in scores.values()):
        raise ValueError(
            f"select gave {len(rollout)} rows but other numbers of rewards: select both with the same index"
        )
    if context.settings.skip_flat_groups and len(rollout):
        table, (group, _) = to_groups(
            weighted_sum(scores, context.settings.reward_weights, len(rollout)), rollout.groups
        )
        keep = ~is_flat(table)[group]  # (N,)
        rollout, scores = rollout.rows(keep), {name: values[keep] for name, values in scores.items()}
    return rollout, scores


def compare(advantages: Callable[..., Tensor], totals: Tensor, rollout: Rollout, context: Context) -> Tensor:
    """Advantages of rows: the totals (N,) as a table of groups, compared there, and back to (N,) or (N, L)."""
    if len(rollout) == 0:
        return totals
    table, place = to_groups(totals, rollout.groups)  # (B, G)
    values = ask(advantages, table, **offers(context))[place]  # (N,) or (N, L)
    check_rows(
        ~values.reshape(len(rollout), -1).isfinite().all(dim=1),
        context.prompts,
        rollout.groups,
        "the advantage",
    )
    return values


def remembered_logps(rollout: Rollout) -> Tensor:
    """The old log-probabilities (N, L) that a row brings along, or NaN: the first scoring fills it in.

    A row sampled in this step gets NaN although the sampler has recorded its log-probabilities. Those come from a
    decoding loop, one token at a time, and differ from the scoring pass's in the last digits (`sampling_gap` in the
    records); taking the first scoring pass for both makes the on-policy ratio exactly 1.
    """
    fresh = torch.tensor([origin == "sampled" for origin in rollout.origin], device=rollout.mask.device)
    return rollout.logps.masked_fill(fresh[:, None], torch.nan)  # (N, L)


def backward(policy: Policy, batch: Batch, loss: Callable[..., Any], context: Context) -> dict[str, Any]:
    """Accumulate the gradient of the loss over micro-batches, and return the whole step's loss, parts and entropy.

    Whatever a loss divides by is taken from the whole step, so the split changes neither loss nor gradient.
    """
    rollout, settings = batch.rollout, context.settings
    totals = {
        "total_rows": len(rollout),
        "total_tokens": int(rollout.mask.sum()),
        "max_length": settings.max_new_tokens,
    }
    sums: dict[str, float] = {"loss": 0.0}
    gap = 0.0
    size = check_split(loss, settings.micro_batch, len(rollout))
    for rows in torch.arange(len(rollout)).split(size) if len(rollout) else ():
        part = rollout.rows(rows)
        logps, entropy = score_completions(policy, context.prompts, part, entropy=True)  # (n, L) each
        check_rows(~logps.isfinite().all(dim=1), context.prompts, part.groups, "the log-probability")
        old = batch.old_logps[rows]
        gap = max(gap, sampling_gap(part, logps, old))
        old = batch.old_logps[rows] = torch.where(old.isnan(), logps.detach(), old)
        ref_logps = None if batch.ref_logps is None else batch.ref_logps[rows]
        value, parts = ask(
            loss,
            logps,
            old,
            ref_logps,
            batch.advantages[rows],
            part.mask,
            **offers(context),
            **totals,
            entropy=entropy,
            rollout=part,
            prompts=context.prompts,
        )
        if not value.isfinite():
            raise FloatingPointError(f"the loss of rows {int(rows[0])} to {int(rows[-1])} is {value.item()}")
        value.backward()
        parts = parts | {
            "loss": value.item(),
            "entropy": entropy.detach().sum().item() / totals["total_tokens"],
        }
        sums |= {name: sums.get(name, 0.0) + float(number) for name, number in parts.items()}
    return sums | {"sampling_gap": gap}


def check_split(loss: Callable[..., Any], micro_batch: int, rows: int) -> int:
    """Rows per micro-batch; ValueError where a loss could not be split because it does not ask for the totals."""
    named = inspect.signature(loss).parameters
    can = {"total_rows", "total_tokens"} & named.keys() or any(
        p.kind is p.VAR_KEYWORD for p in named.values()
    )
    if 0 < micro_batch < rows and not can:
        raise ValueError(
            f"micro_batch={micro_batch} splits the step, but the loss takes neither total_rows nor "
            "total_tokens to divide by: give it one of them, or set micro_batch=0"
        )
    return micro_batch or max(rows, 1)


def sampling_gap(rollout: Rollout, logps: Tensor, old: Tensor) -> float:
    """Largest difference between the log-probabilities when sampled and when first scored (0 for later updates)."""
    return (
        (logps.detach() - rollout.logps).masked_fill(~old.isnan(), 0.0).nan_to_num(nan=0.0).abs().max().item()
    )


def update(state: TrainingState, settings: GRPOSettings, rows: int) -> dict[str, Any]:
    """One optimiser step, if there is anything to learn from; FloatingPointError names a parameter without a finite
    gradient, and nothing has moved then."""
    rate = learning_rate(state.step, settings)
    moved = [
        (name, parameter)
        for name, parameter in state.policy.trainable_parameters()
        if parameter.grad is not None
    ]
    norm = torch.nn.utils.get_total_norm([parameter.grad for _, parameter in moved])
    if not norm.isfinite():
        broken = [name for name, parameter in moved if not parameter.grad.isfinite().all()] or ["their norm"]
        raise FloatingPointError(
            f"the gradient is not finite in {broken[0]} ({len(broken)} of {len(moved)} parameters)"
        )
    if settings.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(
            [parameter for _, parameter in moved], settings.max_grad_norm, norm
        )
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    if rows:
        state.optimiser.step()
    return {"grad_norm": norm.item(), "learning_rate": rate}


# ------------------------------------------------------------------------------------------------------- around the steps


def report(
    state: TrainingState,
    batch: Batch,
    measured: dict[str, Any],
    seconds: dict[str, float],
    settings: GRPOSettings,
) -> StepRecord:
    """Count the step as done, and write it down."""
    number = state.step % settings.updates_per_rollout
    state.step += 1
    state.batch = batch if state.step % settings.updates_per_rollout else None
    state.right_so_far |= {label: tally["right_so_far"] for label, tally in batch.facts["labels"].items()}
    apart = ("loss", "entropy", "sampling_gap", "grad_norm", "learning_rate")
    metrics = {name: value for name, value in measured.items() if name not in apart}
    clips = [metrics[name] for name in ("clip_low", "clip_high") if name in metrics]
    return StepRecord(
        step=state.step,
        rows=len(batch.rollout),
        tokens=int(batch.rollout.mask.sum()),
        update=number,
        kl=metrics.get("kl") if settings.beta else None,
        clip_share=sum(clips) if clips else None,
        metrics=metrics,
        seconds=seconds,
        **{name: measured.get(name) for name in apart},
        **batch.facts,
    )


