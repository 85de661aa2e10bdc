"""Variants of GRPO for ablations: each changes a setting, or what is paid for.

`VARIANTS` names them; `favor-lab study --variants` runs them beside the plain method. A reward of one's own is a
function with TRL's signature, as in `grpo.rewards`; here are two that were published and two that look at reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_text, format_reward

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context

Rewards = dict[str, Callable[..., Any]]
PUBLISHED_FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


def published_reward(completions: Sequence[Completion], label: Sequence[str], **columns: Any) -> list[float]:
    """Accuracy as Visual-RFT's code published it (arXiv 2503.01785): 1.0 where the label is part of the answer **or the
    answer part of the label**, without case, spaces and underscores; without a tag the whole text is the answer.

    It pays for saying nothing. Never train with it but to see that:

    >>> published_reward(["", "<answer></answer>", "<answer>n</answer>", "running or reading"], ["reading"] * 4)
    [1.0, 1.0, 1.0, 1.0]
    """
    scores = []
    for completion, gold in zip(completions, label, strict=True):
        text = completion_text(completion)
        found = re.search("<answer>(.*?)</answer>", text)  # the dot stops at a line break, as published
        answer, wanted = (re.sub("[ _]", "", part.strip()).lower() for part in (found[1] if found else text, gold))
        scores.append(float(wanted in answer or answer in wanted))
    return scores


def published_format(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """Format as Visual-RFT's code published it: both pairs of tags, which may be empty.

    >>> published_format(["<think></think><answer></answer>", "<answer>reading</answer>"])
    [1.0, 0.0]
    """
    return [float(PUBLISHED_FORM.fullmatch(completion_text(completion)) is not None) for completion in completions]


def truth_reward(completions: Sequence[Completion], source: Sequence[str], **columns: Any) -> list[float]:
    """Share of the statements in the reasoning that are true of the scene; 0.0 without a statement.

    For drawn scenes only, whose truth is known. ValueError for any other image.

    >>> text = "<think>phone at the ear. dancing.</think><answer>phoning</answer>"
    >>> truth_reward([text, ""], ["cartoon/test/00006"] * 2)
    [0.5, 0.0]
    """
    from favor_lab.activities.pocket import is_pocket_source
    from favor_lab.study.evaluation import judge_statements

    unknown = next((name for name in source if not is_pocket_source(name)), None)
    if unknown is not None:
        raise ValueError(f"truth_reward knows the truth of drawn scenes only, not of {unknown}")
    judged = [judge_statements(completion_text(text), name) for text, name in zip(completions, source, strict=True)]
    return [true / stated if stated else 0.0 for stated, true in judged]


def consistency_reward(completions: Sequence[Completion], context: Context, **columns: Any) -> list[float]:
    """How far the reasoning alone says the answer: the policy's probability of its own answer behind its own reasoning,
    with the whole image in one colour; the geometric mean over the answer's tokens. 0.0 without reasoning or answer.

    Works for any image; costs a scoring pass and the encoding of the covered images. In the spirit of GRPO-CARE
    (arXiv 2506.16141), which asks a slowly moving reference instead.
    """
    import torch

    from favor_lab.activities.fewshot import Example
    from favor_lab.grpo.sampling import score_completions
    from favor_lab.study.explanations import covered, fill_colour, part_masks
    from favor_lab.vlm.processing import encode_prompts

    policy, rollout, settings = context.policy, context.rollout, context.settings
    if rollout is None:
        raise ValueError("consistency_reward is asked before anything was sampled")
    blank = []
    for example in context.examples:
        image = example.image.convert("RGB")
        colour = fill_colour(policy, image)
        blank.append(Example(covered(image, (0, 0, *image.size), colour), example.label, example.source))
    prompts = encode_prompts(policy, blank, context.labels, settings.style, completion_tokens=settings.max_new_tokens)
    with torch.no_grad():
        logps = score_completions(policy, prompts, rollout, rows_per_pass=settings.micro_batch).cpu()  # (N, L)
    masks = part_masks(policy, rollout)
    none = torch.zeros_like(rollout.mask, device="cpu")
    answer, reasoning = masks.get("answer", none), masks.get("reasoning", none)  # (N, L)
    mean = (logps * answer).sum(dim=1) / answer.sum(dim=1).clamp(min=1)  # (N,)
    both = answer.any(dim=1) & reasoning.any(dim=1)  # (N,)
    return (mean.exp() * both).tolist()


def right_consistency_reward(
    completions: Sequence[Completion], label: Sequence[str], context: Context, **columns: Any
) -> list[float]:
    """`consistency_reward` of the right answers, 0.0 for the others, as GRPO-CARE gates its bonus: so that a wrong
    answer earns nothing by reasoning that argues for it."""
    right, scores = accuracy_reward(completions, label), consistency_reward(completions, context)
    return [score * reward for score, reward in zip(scores, right, strict=True)]


@dataclass(frozen=True)
class Variant:
    """One change to GRPO: of settings, or of what is paid for."""

    about: str
    changes: Mapping[str, Any] = field(default_factory=dict)  #: of GRPOSettings
    rewards: Rewards = field(default_factory=dict)  #: by name; empty: accuracy and format
    rate: float = 1.0  #: of the method's learning rate


PLAIN: Rewards = {"accuracy_reward": accuracy_reward, "format_reward": format_reward}
WITNESSED: Rewards = {
    "published_reward": published_reward, "published_format": published_format, "accuracy_reward": accuracy_reward,
}  # fmt: skip
TRUTHFUL: Rewards = PLAIN | {"truth_reward": truth_reward}
VARIANTS: Mapping[str, Variant] = {
    "group-2": Variant("groups of 2", {"group_size": 2}),
    "group-4": Variant("groups of 4", {"group_size": 4}),
    "group-16": Variant("groups of 16", {"group_size": 16}),
    "no-kl": Variant("no KL penalty", {"beta": 0.0}),
    "strong-kl": Variant("KL penalty of 0.3", {"beta": 0.3}),
    "no-std": Variant("advantages not divided by a std", {"scale": "none"}),
    "batch-std": Variant("advantages divided by the std of the step", {"scale": "batch"}),
    "std-n": Variant("std with n, not n - 1", {"unbiased": False}),
    "bnpo": Variant("token mean of the step (BNPO)", {"how": "bnpo"}),
    "dapo": Variant("token mean of the step, wider upper clip (DAPO)", {"how": "dapo", "clip_high": 0.28}),
    "dr-grpo": Variant("constant length, no std (Dr. GRPO)", {"how": "dr_grpo", "scale": "none"}),
    "cispo": Variant("clipped ratio as a weight (CISPO)", {"how": "cispo"}),
    "four-updates": Variant("4 updates a rollout", {"updates_per_rollout": 4}),
    "four-updates-no-clip": Variant("4 updates a rollout, no clip", {"updates_per_rollout": 4, "clip": 1e6}),
    "slow": Variant("half of the learning rate", rate=0.5),
    "cool": Variant("temperature 0.6", {"temperature": 0.6}),
    "hot": Variant("temperature 1.5", {"temperature": 1.5}),
    "no-format": Variant(
        "accuracy alone is paid (format is recorded)", {"reward_weights": (1.0, 0.0)}, PLAIN
    ),
    "published": Variant(
        "the published substring reward and format are paid (the strict accuracy is recorded)",
        {"reward_weights": (1.0, 1.0, 0.0)},
        WITNESSED,
    ),
    "published-hot": Variant(
        "the published rewards are paid, temperature 1.5",
        {"reward_weights": (1.0, 1.0, 0.0), "temperature": 1.5},
        WITNESSED,
    ),
    "truth": Variant("the truth of the reasoning is paid too", {}, TRUTHFUL),
    "truth-2": Variant("the truth of the reasoning is paid twice", {"reward_weights": (1.0, 1.0, 2.0)}, TRUTHFUL),
    "truth-kl": Variant("the truth of the reasoning is paid too, KL penalty of 0.15", {"beta": 0.15}, TRUTHFUL),
    "truth-2-kl": Variant(
        "the truth of the reasoning is paid twice, KL penalty of 0.3",
        {"reward_weights": (1.0, 1.0, 2.0), "beta": 0.3},
        TRUTHFUL,
    ),
    "truth-cool": Variant("the truth of the reasoning is paid too, temperature 0.6", {"temperature": 0.6}, TRUTHFUL),
    "consistency": Variant(
        "reasoning that says the answer is paid too", {}, PLAIN | {"consistency_reward": consistency_reward}
    ),
    "consistency-right": Variant(
        "reasoning that says the answer is paid too, where the answer is right",
        {},
        PLAIN | {"consistency_reward": right_consistency_reward},
    ),
}  # fmt: skip
