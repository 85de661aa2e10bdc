"""The supervised baseline (SFT): the same shots, settings and records as GRPO, trained on the gold labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from favor_lab.arguments import ArgumentError
from favor_lab.grpo.losses import aggregate
from favor_lab.grpo.sampling import encode_completions, score_completions, score_distributions
from favor_lab.grpo.support.checkpoints import TrainingState
from favor_lab.grpo.support.clock import Clock
from favor_lab.grpo.support.interrupts import uninterrupted
from favor_lab.grpo.support.optimiser import optimiser_step
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.rollout import Rollout
from favor_lab.grpo.support.schedule import draw
from favor_lab.grpo.support.settings import TrainSettings
from favor_lab.grpo.support.summary import length_facts
from favor_lab.vlm.processing import encode_prompts
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def target(label: str, reasoning: str | None = None) -> str:
    """The target response: the label between answer tags, after its reasoning if there is one.

    >>> target("reading"), target("reading", "open book in the hands.")
    ('<answer>reading</answer>', '<think>open book in the hands.</think><answer>reading</answer>')
    """
    thought = "" if reasoning is None else f"<think>{reasoning}</think>"
    return f"{thought}<answer>{label}</answer>"


def sft(
    policy: Policy,
    shots: FewShot,
    settings: TrainSettings | None = None,
    *,
    reasoning: Callable[[Example], str] | None = None,
    label_smoothing: float = 0.0,
    resume: TrainingState | None = None,
) -> Iterator[StepRecord]:
    """Supervised fine-tuning of `policy` on `shots.train`, in place: one StepRecord per optimiser step.

    The loss is the mean cross entropy over the tokens of the target and its end token, in nats; prompt and padding do
    not count. Images come in the order that `train` draws them. What GRPOSettings add to TrainSettings has no effect.
    Few-shot labels come without reasoning, so the prompt asks for the answer alone: evaluate with style="answer". With
    `reasoning`, a function from an example to its reasoning, prompt and targets have style "think".
    label_smoothing: the share of each target that is spread over all tokens that the policy may write (Szegedy et al.,
    arXiv 1512.00567). ArgumentError unless it is at least 0 and below 1.
    resume: a TrainingState, new or loaded by `load_checkpoint`, as for `train`.
    """
    settings = (resume.settings if resume else TrainSettings()) if settings is None else settings
    if not isinstance(settings, TrainSettings):
        raise ArgumentError("settings", f"settings is of {type(settings).__name__}, but must be of TrainSettings")
    if not 0 <= label_smoothing < 1:
        message = f"label_smoothing is {label_smoothing}, but must be at least 0 and below 1"
        raise ArgumentError("label_smoothing", message)
    if not shots.train:
        raise ArgumentError("shots", "shots has no training images")
    state = (resume or TrainingState.start(policy, settings)).go_on(policy, shots.train, settings)
    texts = [target(example.label, reasoning(example) if reasoning else None) for example in shots.train]
    all_targets = encode_completions(policy, texts, range(len(texts)), origin="target")
    question = Question.of(shots.labels, settings.open_vocabulary, style="think" if reasoning else "answer")
    prompts = encode_prompts(policy, shots.train, question, completion_tokens=all_targets.mask.shape[1])
    while state.step < settings.steps:
        clock = Clock(state.step + 1, policy.device)
        drawn = draw(prompts.labels, state.step, settings.prompts_per_step, settings.seed)
        targets = encode_completions(policy, [texts[i] for i in drawn], range(len(drawn)), origin="target")
        with clock("loss"):
            state.optimiser.zero_grad(set_to_none=True)
            memory_options = (settings.micro_batch, settings.gradient_checkpointing)
            loss = cross_entropy_backward(policy, prompts[drawn], targets, *memory_options, label_smoothing)
        with uninterrupted() as raise_delayed, clock("update"):
            measured = optimiser_step(state, rows=len(drawn))
            state.step += 1
        facts: dict[str, Any] = length_facts(targets) | measured  # those of `train` that exist without sampling
        tokens = int(targets.mask.sum())
        yield StepRecord(state.step, loss, rows=len(targets), tokens=tokens, seconds=clock.seconds, **facts)
        raise_delayed()


def cross_entropy_backward(
    policy: Policy, prompts: PromptBatch, targets: Rollout, micro_batch: int = 0, gradient_checkpointing: bool = False,
    label_smoothing: float = 0.0,
) -> float:  # fmt: skip
    """Accumulate the gradient of the mean cross entropy per target token; returns the mean in nats. micro_batch and
    gradient_checkpointing, see TrainSettings, change neither. Raises FloatingPointError for a loss that is not finite.
    """
    total, tokens = 0.0, int(targets.mask.sum())
    for rows in torch.arange(len(targets)).split(micro_batch or len(targets)):
        part = targets.rows(rows)
        if label_smoothing:
            logps = smoothed_logps(policy, prompts, part, label_smoothing, gradient_checkpointing)  # (n, L)
        else:
            logps = score_completions(policy, prompts, part, gradient_checkpointing=gradient_checkpointing)  # (n, L)
        loss = aggregate(-logps, part.mask, "dapo", total_tokens=tokens)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss of {prompts.sources[int(part.groups[0])]} and after is {loss.item()}")
        loss.backward()
        total += loss.item()
    return total


def smoothed_logps(
    policy: Policy, prompts: PromptBatch, part: Rollout, smoothing: float, gradient_checkpointing: bool = False
) -> torch.Tensor:
    """(1 - smoothing) * log-probability of the target + smoothing * mean log-probability of all allowed tokens: (n, L).
    Differentiable; in memory (n, L, V)."""
    chances = score_distributions(policy, prompts, part, gradient_checkpointing=gradient_checkpointing)  # (n, L, V)
    target = chances.gather(-1, part.completion_ids[..., None])[..., 0]  # (n, L)
    mean = chances.masked_fill(policy.forbidden, 0.0).sum(dim=-1) / (~policy.forbidden).sum()  # (n, L)
    return (1 - smoothing) * target + smoothing * mean
