"""The loop: sample, reward, compare, learn.

`train` is a generator that yields one StepRecord per optimiser step; whoever consumes the records prints, plots or
saves. Each of the four steps is an argument. A step of one's own is called with the same leading arguments as the
default, and with whatever else it names among its parameters: any field of GRPOSettings, `seed` (of this rollout),
or `context` (see Context). What a `functools.partial` has fixed stays fixed.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages, is_flat, to_groups
from favor_lab.grpo.checkpoints import Batch, TrainingState
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.mechanics import Clock, accepts, ask, check_scores, draw, learning_rate, seed_for, uninterrupted
from favor_lab.grpo.memory import what_to_lower
from favor_lab.grpo.records import FREE, GRPOSettings, StepRecord
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import Rollout, check_rows, sample_groups, score_completions
from favor_lab.grpo.summary import describe, some_samples, weighted_sum
from favor_lab.vlm.processing import PromptBatch, encode_prompts

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

__all__ = ["Context", "GRPOSettings", "StepRecord", "TrainingState", "keep_all", "train"]

Rewards = dict[str, Tensor]
RewardFunctions = Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]]


@dataclass
class Context:
    """What a step of one's own may ask for, by naming a parameter `context`.

    `rollout` and `rewards` (by name, (N,) each) are those of this step as soon as they exist. `state` is a
    dictionary that outlives steps and checkpoints: change it in `after_step`, where nothing is interrupted.
    For the log-probabilities under another view of the images, encode altered `examples` with `encode_prompts` and
    hand them to `score_completions(context.policy, altered, rollout)`.
    """

    step: int  # optimiser steps done so far
    progress: float  # the same, from 0 to 1
    policy: Policy
    settings: GRPOSettings
    labels: list[str] | None  # as named in the prompt
    examples: list[Example]  # of this step, one per prompt
    prompts: PromptBatch
    state: dict[str, Any]
    generator: torch.Generator  # on the CPU, seeded by the run's seed and the step
    rollout: Rollout | None = None
    rewards: Rewards = field(default_factory=dict)
    record: StepRecord | None = None  # for `after_step`

    def reference_logps(self, rollout: Rollout, prompts: PromptBatch | None = None) -> Tensor:
        """Log-probabilities (N, L) under the reference policy (adapter off), without gradient; for the prompts of
        this step, or for the same prompts seen otherwise."""
        prompts = self.prompts if prompts is None else prompts
        with self.policy.reference(), torch.no_grad():
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

    sample(policy, prompts) -> Rollout; rewards: functions with TRL's signature, named by their `__name__` or by the
    keys of a dictionary; select(rollout, rewards by name) -> both, with rows dropped or added;
    advantages((B, G)) -> (B, G) or (B, G, L); loss(logps, old_logps, ref_logps, advantages, mask) -> scalar and its
    parts by name; after_step(), after each optimiser step.
    resume: a TrainingState, new or from `load_checkpoint`, which the loop brings forward.
    Raises FloatingPointError, naming step, phase and place, as soon as a number is not finite.
    Raises torch.OutOfMemoryError, naming step, phase and what to lower first; `resume` can go on from there.
    """
    settings = settings or (resume.settings if resume else GRPOSettings())
    state = begin(policy, shots, settings, resume)
    labels = None if settings.open_vocabulary else shots.labels
    lower = functools.partial(what_to_lower, policy, settings, shots)  # where memory runs out
    with images_encoded(state, shots, labels, lower) as prompts:
        while state.step < settings.steps:
            context, clock = prepare(state, shots, labels, prompts), Clock(state.step + 1, policy.device, lower)
            batch = state.batch  # a rollout with updates left, if updates_per_rollout says so
            if batch is None:
                with clock("sample"):  # step 1: G completions of each prompt
                    rollout = context.rollout = ask(sample, policy, context.prompts, **offers(context))
                with clock("reward"):  # step 2: judge each completion
                    scores = context.rewards = judge(rewards, rollout, context)
                    facts = describe(rollout, scores, context.prompts.labels, settings, state.right_so_far)
                    rollout, scores = choose(select, rollout, scores, context)
                with clock("advantage"):  # step 3: compare it with its group
                    values = compare(advantages, rollout, scores, context)
                with clock("reference"):
                    ref_logps = context.reference_logps(rollout) if settings.beta and len(rollout) else None
                batch = Batch(rollout, scores, values, remembered_logps(rollout), ref_logps, facts)
            context.rollout, context.rewards = batch.rollout, batch.rewards
            with clock("loss"):  # step 4: one number, and its gradient
                state.optimiser.zero_grad(set_to_none=True)
                measured = backward(loss, batch, context)
            with uninterrupted() as raise_delayed, clock("update"):
                measured |= update(state, settings, rows=len(batch.rollout))
                record = context.record = report(state, batch, measured, clock.seconds, context.prompts)
                if after_step is not None:
                    ask(after_step, **offers(context))
            yield record
            raise_delayed()


# ------------------------------------------------------------------------------------ what the steps are given


def begin(policy: Policy, shots: FewShot, settings: GRPOSettings, resume: TrainingState | None) -> TrainingState:
    """The state to go on from; ValueError where it belongs to another policy, other images or other settings."""
    state, images = resume or TrainingState.start(policy, settings), fingerprints(shots.train)
    if state.policy is not policy:
        raise ValueError("the state to resume belongs to another policy object: pass the one it was made with")
    if state.step and (unlike := differences(state.images, images)):
        raise ValueError(
            f"the run to resume has seen other images ({'; '.join(unlike)}): draw the same shots with the same seed, "
            "from the same files"
        )
    then, now = (
        {item.name: getattr(of, item.name) for item in fields(of) if item.name not in FREE}
        for of in (state.settings, settings)
    )
    if unlike := differences(then, now):
        raise ValueError(f"the run to resume has other settings ({'; '.join(unlike)}): pass its own, state.settings")
    if settings.beta:
        with policy.reference():  # where there is none: a ValueError now, not after the first rollout
            pass
    state.settings, state.images = settings, images
    return state


def fingerprints(examples: Sequence[Example]) -> dict[str, str]:
    """Source -> label, size and checksum of the pixels, so that an image that has changed is noticed."""
    return {
        example.source: f"{example.label}, {example.image.width} x {example.image.height}, "
        f"{zlib.crc32(example.image.tobytes()):08x}"
        for example in examples
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any], most: int = 5) -> list[str]:
    """What differs, by name; of many the first few.

    >>> differences({"steps": 5, "clip": 0.2}, {"steps": 6, "clip": 0.2, "seed": 1})
    ['seed nothing then, 1 now', 'steps 5 then, 6 now']
    """
    names = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    said = [f"{name} {then.get(name, 'nothing')} then, {now.get(name, 'nothing')} now" for name in names[:most]]
    return said + ([f"and {len(names) - most} more"] if len(names) > most else [])


@contextmanager
def images_encoded(
    state: TrainingState, shots: FewShot, labels: list[str] | None, lower: Callable[[str], str]
) -> Iterator[PromptBatch]:
    """Every image through the tower once, for the whole run; with `offload_tower` the tower is away meanwhile."""
    policy, settings = state.policy, state.settings
    with Clock(state.step + 1, policy.device, lower)("encode"):
        prompts = encode_prompts(policy, shots.train, labels, settings.style, settings.max_new_tokens)
    with policy.tower_on("cpu") if settings.offload_tower else nullcontext():
        yield prompts


def prepare(state: TrainingState, shots: FewShot, labels: list[str] | None, prompts: PromptBatch) -> Context:
    """The context of the step to come, with its prompts drawn."""
    settings = state.settings
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


def offers(context: Context) -> dict[str, Any]:
    """What every step may name: each field of the settings, the seed of this rollout, and the context."""
    settings = context.settings
    turn = context.step // settings.updates_per_rollout
    of_settings = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return of_settings | {"seed": seed_for(settings.seed, "rollout", turn), "context": context}


# -------------------------------------------------------------------------------------------- inside the steps


def judge(rewards: RewardFunctions, rollout: Rollout, context: Context) -> Rewards:
    """Every reward of every row, by name: (N,) each. ValueError for a reward that is missing or not finite."""
    named = rewards if isinstance(rewards, Mapping) else {reward_name(function): function for function in rewards}
    if len(named) != len(rewards) or not named:
        raise ValueError("rewards need one function at least, and different names: pass {name: function, ...}")
    groups, prompts = rollout.groups.tolist(), context.prompts
    ids = [row[keep].tolist() for row, keep in zip(rollout.completion_ids, rollout.mask, strict=True)]
    columns = {
        "completions": rollout.texts,
        "completion_ids": ids,
        "prompts": [prompts.texts[b] for b in groups],
        "label": [prompts.labels[b] for b in groups],
        "source": [prompts.sources[b] for b in groups],
        "groups": groups,
        "style": context.settings.style,
        "context": context,
    }
    scores = {}
    for name, function in named.items():
        values = check_scores(name, ask(function, **columns), len(rollout))
        scores[name] = torch.tensor(values, dtype=torch.float32, device=rollout.mask.device)  # (N,)
    return scores


def reward_name(function: Callable[..., Any]) -> str:
    """The name under which a reward is recorded.

    >>> reward_name(functools.partial(format_reward, style="answer"))
    'format_reward'
    """
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(function, "__name__", type(function).__name__)


def choose(select: Callable[..., Any], rollout: Rollout, scores: Rewards, context: Context) -> tuple[Rollout, Rewards]:
    """The rows to learn from: those of `select`, without those of flat groups if the settings say so."""
    rollout, scores = ask(select, rollout, scores, **offers(context))
    if any(len(values) != len(rollout) for values in scores.values()):
        raise ValueError(f"select gave {len(rollout)} rows, but not as many rewards: use one index for both")
    if context.settings.skip_flat_groups and len(rollout):
        totals = weighted_sum(scores, context.settings.reward_weights)  # (N,)
        table, (group, _) = to_groups(totals, rollout.groups)  # (B, G)
        keep = ~is_flat(table)[group]  # (N,)
        rollout, scores = rollout.rows(keep), {name: values[keep] for name, values in scores.items()}
    return rollout, scores


def compare(advantages: Callable[..., Tensor], rollout: Rollout, scores: Rewards, context: Context) -> Tensor:
    """Advantages of rows, (N,) or (N, L): the summed rewards as a table of groups, compared there, and back."""
    totals = weighted_sum(scores, context.settings.reward_weights)  # (N,)
    if len(rollout) == 0:
        return totals
    table, place = to_groups(totals, rollout.groups)  # (B, G)
    values = ask(advantages, table, **offers(context))[place]  # (N,) or (N, L)
    bad = ~values.reshape(len(rollout), -1).isfinite().all(dim=1)  # (N,)
    check_rows(bad, context.prompts, rollout.groups, "the advantage")
    return values


def remembered_logps(rollout: Rollout) -> Tensor:
    """The old log-probabilities (N, L) that a row brings along, or NaN: the first scoring pass fills it in.

    A row sampled in this step gets NaN although the sampler has recorded its log-probabilities. Those come from a
    decoding loop, one token at a time, and differ from the scoring pass's in the last digits (`sampling_gap` in the
    records); with the first scoring pass on both sides the on-policy ratio is exactly 1. A row kept from an earlier
    step must say so ("replayed", say, in place of "sampled"): then its own log-probabilities are the old ones.
    """
    fresh = torch.tensor([origin == "sampled" for origin in rollout.origin], dtype=torch.bool)  # (N,)
    return rollout.logps.masked_fill(fresh.to(rollout.logps.device)[:, None], torch.nan)  # (N, L)


@torch.enable_grad()  # also when the consumer of the records is in a no_grad block
def backward(loss: Callable[..., Any], batch: Batch, context: Context) -> dict[str, float]:
    """Accumulate the gradient over micro-batches; return the whole step's loss, its parts, and the entropy.

    Whatever a loss divides by is taken from the whole step, so the split changes neither loss nor gradient.
    """
    rollout, settings = batch.rollout, context.settings
    tokens = int(rollout.mask.sum())
    whole = {"total_rows": len(rollout), "total_tokens": tokens, "max_length": settings.max_new_tokens}
    if 0 < settings.micro_batch < len(rollout) and not accepts(loss, "total_rows", "total_tokens"):
        raise ValueError(
            f"micro_batch={settings.micro_batch} splits the step, but the loss asks for neither total_rows nor "
            "total_tokens to divide by: add the one it needs to its parameters, or set micro_batch=0"
        )
    sums, gap = {"loss": 0.0}, 0.0
    for rows in torch.arange(len(rollout)).split(settings.micro_batch or max(len(rollout), 1)):
        if len(rows) == 0:
            break  # nothing was selected
        part = rollout.rows(rows)
        logps, entropy = score_completions(  # (n, L) each
            context.policy, context.prompts, part, entropy=True, gradient_checkpointing=settings.gradient_checkpointing
        )
        bad = ~logps.isfinite().all(dim=1)  # (n,)
        check_rows(bad, context.prompts, part.groups, "the log-probability", first=int(rows[0]))
        old = batch.old_logps[rows]  # (n, L)
        gap = max(gap, sampling_gap(logps, part.logps, old))
        old = batch.old_logps[rows] = torch.where(old.isnan(), logps.detach(), old)
        ref_logps = None if batch.ref_logps is None else batch.ref_logps[rows]
        extra = offers(context) | whole | {"entropy": entropy, "rollout": part, "prompts": context.prompts}
        value, parts = ask(loss, logps, old, ref_logps, batch.advantages[rows], part.mask, **extra)
        if not value.isfinite():
            raise FloatingPointError(f"the loss of rows {int(rows[0])} to {int(rows[-1])} is {value.item()}")
        parts = parts | {"loss": value.item(), "entropy": entropy.detach().sum().item() / tokens}
        del entropy, extra  # unless the loss uses it: its graph would hold every chunk's logits while others go back
        value.backward()
        sums |= {name: sums.get(name, 0.0) + float(number) for name, number in parts.items()}
    return sums | {"sampling_gap": gap}


def sampling_gap(logps: Tensor, sampled_logps: Tensor, old_logps: Tensor) -> float:
    """Largest difference between log-probabilities when sampled and when first scored; (N, L) each.

    >>> sampling_gap(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]]), torch.full((1, 2), torch.nan))
    0.5
    """
    difference = (logps.detach() - sampled_logps).masked_fill(~old_logps.isnan(), 0.0)  # 0 once scored
    return difference.nan_to_num(nan=0.0).abs().max().item()


def update(state: TrainingState, settings: GRPOSettings, rows: int) -> dict[str, float]:
    """One optimiser step, if there were rows to learn from. FloatingPointError names a parameter whose gradient is
    not finite (nothing has moved then), or that the step itself has driven out of range."""
    rate = learning_rate(state.step, settings)
    moving = {name: weight for name, weight in state.policy.trainable_parameters() if weight.grad is not None}
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in moving.values() if weight.grad is not None])
    if not norm.isfinite():
        bad = [name for name, weight in moving.items() if weight.grad is None or not weight.grad.isfinite().all()]
        where = f"{len(bad)} parameters, the first {bad[0]}" if bad else "no parameter alone, but its norm overflows"
        raise FloatingPointError(f"the gradient is not finite in {where}")
    if settings.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(moving.values(), settings.max_grad_norm, norm)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    if rows:
        state.optimiser.step()
    if bad := state.out_of_range():
        raise FloatingPointError(
            f"the step, at learning rate {rate:g}, has driven {len(bad)} parameters out of range, the first {bad[0]}"
        )
    return {"grad_norm": norm.item(), "learning_rate": rate}


def report(
    state: TrainingState, batch: Batch, measured: dict[str, float], seconds: dict[str, float], prompts: PromptBatch
) -> StepRecord:
    """Count the step as done, and write it down."""
    settings = state.settings
    number = state.step % settings.updates_per_rollout
    state.step += 1
    state.batch = batch if state.step % settings.updates_per_rollout else None
    state.right_so_far |= {label: count["right_so_far"] for label, count in batch.facts["labels"].items()}
    apart = ("loss", "entropy", "sampling_gap", "grad_norm", "learning_rate")
    metrics = {name: value for name, value in measured.items() if name not in apart}
    clips = [metrics[name] for name in ("clip_low", "clip_high") if name in metrics]
    scalars: dict[str, Any] = {name: measured.get(name) for name in apart}
    totals = weighted_sum(batch.rewards, settings.reward_weights)  # (N,)
    return StepRecord(
        step=state.step,
        rows=len(batch.rollout),
        tokens=int(batch.rollout.mask.sum()),
        update=number,
        kl=metrics.get("kl") if settings.beta else None,
        clip_share=sum(clips) if clips else None,
        seconds=seconds,
        metrics=metrics,
        samples=some_samples(batch.rollout, batch.rewards, totals, batch.advantages, prompts, settings.log_rows),
        **scalars,
        **batch.facts,
    )
