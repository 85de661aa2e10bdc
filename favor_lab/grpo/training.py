"""The loop: sample, reward, compare, learn.

`train` is a generator that yields one StepRecord per optimiser step; whoever consumes the records prints, plots or
saves. Each of the four steps is an argument, and so are the question that is asked, the selection of rows, and what
happens after a step. A step of your own is called with the same arguments as the default, as far as it takes them, and
with whatever else it names among its parameters: any setting, any coefficient, `seed` (of this rollout), or `context`
(see Context). A step that would lose a setting is refused: see `support.steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from favor_lab.arguments import ArgumentError
from favor_lab.grpo.advantages import group_advantages, is_flat, spread, to_groups
from favor_lab.grpo.losses import as_floats, grpo_loss
from favor_lab.grpo.rewards import accuracy_reward, format_reward, is_right
from favor_lab.grpo.sampling import sample_groups, score_completions, score_distributions
from favor_lab.grpo.support.checkpoints import Batch, TrainingState
from favor_lab.grpo.support.clock import Clock
from favor_lab.grpo.support.interrupts import uninterrupted
from favor_lab.grpo.support.optimiser import optimiser_step
from favor_lab.grpo.support.questions import (
    Asked,
    default_question,
    examples_of,
    images_encoded,
    prompts_for,
    question_of,
)
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.rollout import Rollout, check_rows, is_sampled, token_lists
from favor_lab.grpo.support.schedule import draw, seed_for
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.support.steps import (
    Advantages,
    Loss,
    Rewards,
    Sample,
    Select,
    call,
    check_rewards,
    check_weights,
    in_context,
    named_rewards,
    needs,
    settings_with_coefficients,
    step_name,
    takes,
)  # fmt: skip
from favor_lab.grpo.support.summary import count_right, report, summarise
from favor_lab.vlm.processing import PromptBatch
from favor_lab.vlm.question import Question
from favor_lab.vlm.upload import upload

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

Step = TypeVar("Step", bound=Callable[..., Any])


# ------------------------------------------------------------------------- the slots, and how the loop calls each step


def keep_all(rollout: Rollout) -> Rollout:
    """The default `select`: every row goes on as it is."""
    return rollout


if TYPE_CHECKING:  # a default that no longer takes what the loop hands it is an error of the type checker
    _defaults: tuple[Sample, Select, Advantages, Loss] = (sample_groups, keep_all, group_advantages, grpo_loss)


@dataclass
class Context:
    """What a step of your own may ask for, by naming a parameter `context`.

    `rollout`, with its rewards, is that of this step as soon as it exists, and what `select` made of it afterwards.
    `state` is a dictionary that is saved in checkpoints: change it in `after_step`, where nothing is interrupted.
    `cache` lives for this optimiser step alone: for what is expensive and needed by two steps of your own.
    """

    step: int  # optimiser steps done so far
    progress: float  # the same, from 0 to 1
    seed: int  # of this rollout
    policy: Policy
    settings: GRPOSettings
    question: Question
    shots: FewShot
    pool: PromptBatch  # every training image, encoded once for the run, under the run's first question
    examples: list[Example]  # of this step, one per prompt
    prompts: PromptBatch
    reward_functions: Mapping[str, Callable[..., Any]]
    state: dict[str, Any]
    generator: torch.Generator  # on the CPU, seeded by the run's seed and the step
    cache: dict[str, Any] = field(default_factory=dict)
    rollout: Rollout | None = None
    record: StepRecord | None = None  # for `after_step`

    @property
    def labels(self) -> Sequence[str] | None:
        """The labels that the prompt names, or None for an open vocabulary."""
        return self.question.labels

    @property
    def rewards(self) -> dict[str, Tensor]:
        """The rewards of this step's rows by name, (N,) each."""
        return {} if self.rollout is None else self.rollout.rewards

    def bind(self, step: Step, **extras: Any) -> Step:
        """The step as the loop calls it: what else it names comes from `extras`, the settings and this context."""
        return in_context(step, self.settings, seed=self.seed, context=self, **extras)

    def encode(self, examples: Sequence[Example], question: Question | None = None) -> PromptBatch:
        """Prompts for other images, such as another view of `examples`, or for another question."""
        question = question or self.question
        return prompts_for(self.policy, self.shots, self.pool, examples, question, self.settings.max_new_tokens)

    def compute_rewards(self, rollout: Rollout) -> Rollout:
        """Rows with their rewards, for rows that were made after the loop had computed those of the others."""
        return replace(rollout, rewards=compute_rewards(self.reward_functions, rollout, self))

    def logps(
        self, rollout: Rollout, prompts: PromptBatch | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Log-probabilities (N, L) of the rows, under other prompts (another view of the images) or other weights, by
        the names of `policy.trainable_parameters()`. Differentiable where gradients are enabled."""
        prompts = self.prompts if prompts is None else prompts
        with self.policy.weights(weights or {}):
            return score_completions(self.policy, prompts, rollout, **self._scoring())

    def reference_logps(self, rollout: Rollout, prompts: PromptBatch | None = None) -> Tensor:
        """Log-probabilities (N, L) under the reference policy (adapter off), without gradient; for the prompts of this
        step, or for the same prompts seen otherwise."""
        prompts = self.prompts if prompts is None else prompts
        with self.policy.reference(), torch.no_grad():
            logps = score_completions(self.policy, prompts, rollout, **self._scoring())
        check_rows(~logps.isfinite().all(dim=1), prompts, rollout.groups, "the reference's log-probability")
        return logps

    def distributions(
        self, rollout: Rollout, prompts: PromptBatch | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """As `logps`, but of every token of the vocabulary at each position: (N, L, V). Those of the pass that the loss
        is taken over are given to a loss that names `distributions`."""
        prompts = self.prompts if prompts is None else prompts
        with self.policy.weights(weights or {}):
            return score_distributions(self.policy, prompts, rollout, how=self.settings.scoring)

    def distributions_ahead(self) -> Tensor | None:
        """The distributions (N, L, V) of this step's rows, without gradient, for a step after `select` that needs them
        before the loss does: the pass that the loss is taken over is made now, and not again. None where `micro_batch`
        splits that pass."""
        if self.rollout is None or 0 < self.settings.micro_batch < len(self.rollout):
            return None
        if "ahead" not in self.cache:
            with torch.enable_grad():
                self.cache["ahead"] = self.rollout, distributions_to_learn_from(self.rollout, self)
        return self.cache["ahead"][1].detach()

    def _scoring(self) -> dict[str, Any]:
        return {"rows_per_pass": self.settings.micro_batch, "how": self.settings.scoring}


# ------------------------------------------------------------------------------------------------------------ the loop


def train(
    policy: Policy,
    shots: FewShot,
    settings: GRPOSettings | None = None,
    *,
    question: Asked | None = None,
    sample: Sample | Callable[..., Rollout] = sample_groups,
    rewards: Rewards = (accuracy_reward, format_reward),
    select: Select | Callable[..., Rollout] = keep_all,
    advantages: Advantages | Callable[..., Tensor] = group_advantages,
    loss: Loss | Callable[..., tuple[Tensor, dict[str, float]]] = grpo_loss,
    after_step: Callable[..., None] | None = None,
    recipe: str = "",
    resume: TrainingState | None = None,
) -> Iterator[StepRecord]:
    """Few-shot GRPO of `policy` on `shots.train`, in place: one StepRecord per optimiser step.

    question: what is asked of every image, a `Question`; or question(examples) -> a Question for this rollout, or a
    pair of other examples and a Question. sample(policy, prompts) -> Rollout. rewards: functions with TRL's signature,
    named by their `__name__` or by the keys of a dictionary. select(rollout) -> a rollout with rows dropped or added.
    advantages((B, G)) -> (B, G) or (B, G, L). loss(logps, old_logps, ref_logps, advantages, mask) -> scalar and its
    parts by name. after_step(), after each optimiser step.
    recipe: the name under which checkpoints know these steps; a run of another recipe is not resumed.
    resume: a TrainingState, new or from `load_checkpoint`, which the loop brings forward.
    Raises ValueError for a step that would lose a setting, or names something that does not exist.
    Raises FloatingPointError, naming step, phase and place, as soon as a number is not finite.
    Raises torch.OutOfMemoryError, naming step and phase; `resume` can go on from there.
    """
    functions = named_rewards(rewards)
    own = {"question": question, "sample": sample, "select": select, "advantages": advantages, "loss": loss}
    settings = check_steps(settings or resumed_settings(resume), own | {"after_step": after_step}, functions)
    settings, asked, description = question_of(question, settings, shots)
    state = (resume or TrainingState.start(policy, settings)).go_on(
        policy, shots.train, settings, question=description, recipe=recipe
    )
    check_weights(settings, functions)
    if settings.beta:
        with policy.reference():  # a policy without a reference: a ValueError now, not after the first rollout
            pass
    with images_encoded(policy, shots, settings, asked, state.step + 1) as pool:
        while state.step < settings.steps:
            clock = Clock(state.step + 1, policy.device)
            context = next_context(state, settings, shots, pool, asked, functions)
            batch = state.batch  # a rollout with updates left, if updates_per_rollout says so
            if batch is None:
                with clock("sample"):  # step 1: G completions of each prompt
                    rollout = context.rollout = context.bind(sample)(
                        policy, context.prompts, group_size=settings.group_size, max_new_tokens=settings.max_new_tokens,
                        temperature=settings.temperature, seed=context.seed, decoding=settings.decoding,
                    )  # fmt: skip
                with clock("reward"):  # step 2: reward each completion
                    rollout = context.rollout = context.compute_rewards(rollout)
                    facts = facts_about(rollout, context, state.right_so_far)
                    rollout = context.rollout = select_rows(select, rollout, context)
                with clock("advantage"):  # step 3: compare it with its group
                    row_advantages = compute_advantages(advantages, rollout, context)
                with clock("reference"):
                    ref_logps = context.reference_logps(rollout) if settings.beta and len(rollout) else None
                rollout.old_logps = rollout.fixed_old_logps()
                batch = Batch(rollout, row_advantages, ref_logps, facts, context.prompts, context.question)
            context.rollout = batch.rollout
            with clock("loss"):  # step 4: one number, and its gradient
                state.optimiser.zero_grad(set_to_none=True)
                measured = backward(loss, batch, context)
            with uninterrupted() as raise_delayed, clock("update"):
                measured |= optimiser_step(state, rows=len(batch.rollout))
                record = context.record = report(state, batch, measured, clock.seconds, settings, context.prompts)
                if after_step is not None:
                    context.bind(after_step)()
            yield record
            raise_delayed()


# ------------------------------------------------------------------------------------------ before the first step


def resumed_settings(resume: TrainingState | None) -> GRPOSettings:
    """The settings of the run to resume, or the defaults."""
    if resume is None:
        return GRPOSettings()
    if not isinstance(resume.settings, GRPOSettings):
        raise ValueError("the run to resume was supervised fine-tuning: go on with `sft`")
    return resume.settings


def check_steps(
    settings: GRPOSettings, slots: Mapping[str, Any], rewards: Mapping[str, Callable[..., Any]]
) -> GRPOSettings:
    """The settings with the coefficients of all steps of your own; ValueError for a step that cannot run with them."""
    defaults = {sample_groups, keep_all, group_advantages, grpo_loss, accuracy_reward, format_reward}
    for slot, step in slots.items():
        if not (step is None or callable(step) or isinstance(step, Question)):
            raise ArgumentError(slot, f"{slot} is {step!r}, which is no function")
    steps = [(slot, step) for slot, step in slots.items() if callable(step) and not isinstance(step, Question)]
    steps += [("reward", function) for function in rewards.values()]
    return settings_with_coefficients(settings, [(slot, step) for slot, step in steps if step not in defaults])


# --------------------------------------------------------------------------------------------- what a step begins with


def next_context(
    state: TrainingState,
    settings: GRPOSettings,
    shots: FewShot,
    pool: PromptBatch,
    asked: Asked,
    reward_functions: Mapping[str, Callable[..., Any]],
) -> Context:
    """The context of the step to come: its images and what is asked of them. All updates of a rollout have the prompts
    that its rows answered."""
    turn = state.step // settings.updates_per_rollout
    drawn = draw(pool.labels, turn, settings.prompts_per_step, settings.seed)
    context = Context(
        step=state.step,
        progress=state.step / settings.steps,
        seed=seed_for(settings.seed, "rollout", turn),
        policy=state.policy,
        settings=settings,
        question=asked if isinstance(asked, Question) else default_question(settings, shots),
        shots=shots,
        pool=pool,
        examples=[shots.train[i] for i in drawn],
        prompts=pool[drawn],
        reward_functions=reward_functions,
        state=state.memory,
        generator=torch.Generator().manual_seed(seed_for(settings.seed, "step", state.step)),
    )
    if state.batch is not None:
        if state.batch.prompts is not None:
            context.prompts, context.question = state.batch.prompts, state.batch.question or context.question
            context.examples = examples_of(context.prompts, shots)
    elif not isinstance(asked, Question):
        answer = context.bind(asked)(context.examples, style=settings.style, open_vocabulary=settings.open_vocabulary)
        examples, context.question = (context.examples, answer) if isinstance(answer, Question) else answer
        context.examples = list(examples)
        context.prompts = context.encode(context.examples)
    return context


# -------------------------------------------------------------------------------------------- inside the steps


def compute_rewards(
    functions: Mapping[str, Callable[..., Any]], rollout: Rollout, context: Context
) -> dict[str, Tensor]:
    """Every reward of every row, by name: (N,) each. ValueError for a reward that is missing or not finite."""
    groups, prompts, device = rollout.groups.tolist(), context.prompts, rollout.mask.device
    columns = {
        "completions": rollout.texts,
        "completion_ids": token_lists(rollout.completion_ids, rollout.mask),
        "prompts": [prompts.texts[b] for b in groups],
        "label": [prompts.labels[b] for b in groups],
        "source": [prompts.sources[b] for b in groups],
        "groups": groups,
        "style": context.question.style,
        "context": context,
        **context.settings.coefficients,
    }
    rewards = {}
    for name, function in functions.items():
        values = check_rewards(name, call(function, **columns), len(rollout))
        rewards[name] = upload(values, device, torch.float32)  # (N,)
    return rewards


def facts_about(rollout: Rollout, context: Context, right_so_far: dict[str, int]) -> dict[str, Any]:
    """The record's fields about what was sampled; rows of other origin are left out, unless there is nothing else."""
    settings, sampled = context.settings, [is_sampled(origin) for origin in rollout.origin]
    rows = (rollout.rows(sampled) if any(sampled) else rollout).cpu()
    totals = rows.total_rewards(settings.reward_weights)  # (N,)
    table = to_groups(totals, rows.groups)[0]  # (B, G)
    labels = [context.prompts.labels[b] for b in rows.groups.tolist()]
    right = [is_right(text, label, context.question.style) for text, label in zip(rows.texts, labels, strict=True)]
    return summarise(rows, totals) | {
        "reward_spread": spread(table, settings.unbiased).mean().item(),
        "flat_groups": is_flat(table).float().mean().item(),
        "labels": count_right(labels, right, right_so_far),
    }


def select_rows(select: Callable[..., Rollout], rollout: Rollout, context: Context) -> Rollout:
    """The rows to learn from: those of `select`, without those of flat groups if the settings say so."""
    rollout = context.bind(select)(rollout)
    if not isinstance(rollout, Rollout):
        raise TypeError(
            f"the select {step_name(select)} gave a {type(rollout).__name__}: it takes a Rollout and gives one, whose "
            "rows carry their rewards"
        )
    if context.settings.skip_flat_groups and len(rollout):
        totals = rollout.total_rewards(context.settings.reward_weights)  # (N,)
        table, (group, _) = to_groups(totals, rollout.groups)  # (B, G)
        rollout = rollout.rows(~is_flat(table)[group])
    return rollout


def compute_advantages(advantages: Callable[..., Tensor], rollout: Rollout, context: Context) -> Tensor:
    """Advantages of rows, (N,) or (N, L): the summed rewards as a table of groups, compared there, and back."""
    settings = context.settings
    totals = rollout.total_rewards(settings.reward_weights)  # (N,)
    if len(rollout) == 0:
        return totals
    table, place = to_groups(totals, rollout.groups)  # (B, G)
    by_group = context.bind(advantages)(  # (B, G) or (B, G, L)
        table, scale=settings.scale, eps=settings.eps, unbiased=settings.unbiased
    )
    by_row = by_group[place]  # (N,) or (N, L)
    bad = ~by_row.reshape(len(rollout), -1).isfinite().all(dim=1)  # (N,)
    check_rows(bad, context.prompts, rollout.groups, "the advantage")
    return by_row


@torch.enable_grad()  # also when the consumer of the records is in a no_grad block
def backward(
    loss: Loss | Callable[..., tuple[Tensor, dict[str, float]]], batch: Batch, context: Context
) -> dict[str, float]:
    """Accumulate the gradient over micro-batches; return the whole step's loss, its parts, and the entropy.

    Whatever a loss divides by is taken from the whole step, so the split changes neither loss nor gradient.
    """
    rollout, settings, old_logps = batch.rollout, context.settings, batch.rollout.fixed_old_logps()
    tokens = int(rollout.mask.sum())
    if 0 < settings.micro_batch < len(rollout) and not takes(loss, "total_rows", "total_tokens"):
        raise ValueError(
            f"micro_batch={settings.micro_batch} splits the step, but the loss asks for neither total_rows nor "
            "total_tokens to divide by: add the one it needs to its parameters, or set micro_batch=0"
        )
    sums, sampling_gaps = {"loss": 0.0}, [0.0]
    for rows in torch.arange(len(rollout)).split(settings.micro_batch or max(len(rollout), 1)):
        if len(rows) == 0:
            break  # nothing was selected
        part = rollout.rows(rows)
        logps, entropy, extras = score_rows(loss, part, context)  # (n, L) each
        bad = ~logps.isfinite().all(dim=1)  # (n,)
        check_rows(bad, context.prompts, part.groups, "the log-probability", first=int(rows[0]))
        here = upload(rows, old_logps.device)
        old = old_logps[here]  # (n, L)
        gap = sampling_gap(logps, part.logps, old)
        old = old_logps[here] = torch.where(old.isnan(), logps.detach(), old)
        value, parts = context.bind(loss, entropy=entropy, rollout=part, prompts=context.prompts, **extras)(
            logps, old, None if batch.ref_logps is None else batch.ref_logps[here], batch.advantages[here], part.mask,
            clip=settings.clip, clip_high=settings.clip_high, beta=settings.beta, how=settings.how,
            level=settings.level, max_length=settings.max_new_tokens, total_tokens=tokens, total_rows=len(rollout),
        )  # fmt: skip
        facts = as_floats({"loss": value, "entropy": entropy.sum(), "gap": gap})
        if not math.isfinite(facts["loss"]):
            raise FloatingPointError(f"the loss of rows {int(rows[0])} to {int(rows[-1])} is {facts['loss']}")
        parts = parts | {"loss": facts["loss"], "entropy": facts["entropy"] / tokens}
        sampling_gaps.append(facts["gap"])
        del entropy, extras  # unless the loss uses it: its graph would hold every chunk's logits in the backward pass
        value.backward()
        sums |= {name: sums.get(name, 0.0) + float(number) for name, number in parts.items()}
    return sums | {"sampling_gap": max(sampling_gaps)}


def score_rows(loss: Callable[..., Any], part: Rollout, context: Context) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Log-probabilities and entropies (n, L) of some rows, with gradients; and, for a loss that names them, the whole
    `distributions` (n, L, V) of the same pass (see `steps.needed_if`)."""
    rollout, distributions = context.cache.pop("ahead", (None, None))  # (N, L, V)
    if rollout is None or rollout is not context.rollout:
        if not needs(loss, "distributions", context.settings):
            options = scoring_options(context)
            logps, entropy = score_completions(context.policy, context.prompts, part, entropy=True, **options)
            return logps, entropy, {}
        distributions = distributions_to_learn_from(part, context)  # (n, L, V)
    logps = distributions.gather(2, part.completion_ids[..., None])[..., 0].masked_fill(~part.mask, 0.0)  # (n, L)
    finite = distributions.masked_fill(distributions.isneginf(), 0.0)  # forbidden tokens have no share in the entropy
    return logps, -(distributions.exp() * finite).sum(dim=2), {"distributions": distributions}


def distributions_to_learn_from(part: Rollout, context: Context) -> Tensor:
    """Distributions (n, L, V) of some rows, with gradients."""
    return score_distributions(context.policy, context.prompts, part, **scoring_options(context))


def scoring_options(context: Context) -> dict[str, Any]:
    """How the settings say to score for the backward pass."""
    return {"gradient_checkpointing": context.settings.gradient_checkpointing, "how": context.settings.scoring}


def sampling_gap(logps: Tensor, sampled_logps: Tensor, old_logps: Tensor) -> Tensor:
    """Largest difference between log-probabilities when sampled and when first scored, (N, L) each: a scalar.

    >>> sampling_gap(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]]), torch.full((1, 2), torch.nan))
    tensor(0.5000)
    """
    difference = (logps.detach() - sampled_logps).masked_fill(~old_logps.isnan(), 0.0)  # 0 once scored
    return difference.nan_to_num(nan=0.0).abs().max()
