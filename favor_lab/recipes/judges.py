"""Three judges of one idea: reasoning is good if somebody who reads it comes to the answer.

`care-slow`: the policy's own slow average reads image, question and reasoning, and should come to the policy's answer.
Source: Chen et al., GRPO-CARE, arXiv 2506.16141; code TencentARC/GRPO-CARE, grpo_trainer_ref_ema.py, read. Equations:
p_i = min(0.95, exp(mean over the answer's tokens of log pi_slow)); S = rows with acc_i > 0.1 and acc_i >= the group's
mean; bonus_i = 0.5 * acc_i where i is in S and p_i >= mean over S of p - margin. Published: margin 0.01 (or 0), slow =
0.995 * slow + 0.005 * policy every 10 of 1000 steps, no KL penalty (the slow pass takes the place of the reference's).
`vision-sr1`: the policy itself reads question and reasoning without the image, and should come to the right label.
Source: Li et al., Vision-SR1, arXiv 2508.19652; code zli12321/Vision-SR1 (first version) read. Equation: r = 0.9 acc +
0.1 form + 1.0 * [blind answer right], one blind answer per row. A later version separates the advantages; not here.
`listener`: the frozen reference reads image, question and reasoning; its confidence in the right label is paid.
Source: Gambashidze et al., Listener-rewarded thinking, arXiv 2506.22832: abstract, and a summary of others. Equation: r
= form + 0.5 acc + 0.5 * listener. `care` (its own file) asks the policy about its own answer, the image covered.

Deviations:
1. care-slow: `decay` = 0.95 at every step, as a run has 100 steps. The slow weights begin as those that training begins
   with. Only rows with reasoning and an answer are in S; the group is the prompt's, published, that of the device.
2. vision-sr1: the reasoning is the description; published responses have one beside it. The blind answer is asked for
   without further reasoning. Weights are those of plain GRPO, 1 and 1, and `blind` = 1.
3. listener: the reference is the policy before training, published another model. Its confidence is the probability of
   the whole label as its answer. acc counts 1, as in plain GRPO, and `listener` = 0.5.
4. vision-sr1, listener: label words are taken out of what is read (see `evidence`), else writing the answer into the
   reasoning were paid. Of a photograph's reasoning that also takes things that are in a label, such as an umbrella.
5. The settings, beta among them, are those of plain GRPO.

Open to: other words for a label, and spellings that a reader would still make out. A homogeneous group has the bonus of
care-slow as a whole, which teaches nothing; a weak reader makes the other two noise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.activities.labels import normalise_label
from favor_lab.activities.world import NAMES, STATEMENTS
from favor_lab.arguments import ArgumentError, check_number
from favor_lab.grpo.advantages import to_groups
from favor_lab.grpo.rewards import Completion, accuracy_reward, completion_texts, format_reward
from favor_lab.grpo.sampling import encode_completions, sample_groups
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import part_masks, reasoning_statements
from favor_lab.vlm.processing import ask_without_image
from favor_lab.vlm.prompts import build_prompt, describe_first

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context


def evidence(text: str, labels: Sequence[str]) -> str:
    """The reasoning of a response without words of labels, nor of the other names that the drawn world has for them.
    Statements of the drawn world stay whole: they are evidence, even where they share a word with a label.

    >>> evidence("<think>Fishing rod in the hands, it is fishing, re-reading; angling</think>", ["fishing", "reading"])
    'fishing rod in the hands, it is, re'
    """
    names = [name for label in labels for name in (label, *NAMES.get(label, ()))]
    words = {word for name in names for word in re.findall(r"\w+", normalise_label(name))}

    def tells(word: str) -> bool:
        return word in words or any(len(part) > 3 and part in word for part in words)

    pieces = []
    for piece in reasoning_statements(text):
        kept = [word for word in re.findall(r"\w+", normalise_label(piece)) if not tells(word)]
        pieces.append(piece if piece in STATEMENTS else " ".join(kept))
    return ", ".join(piece for piece in pieces if piece)


# ----------------------------------------------------------------------------------------------------------- care-slow


def care_bonus(confidence: Tensor, right: Tensor, groups: Tensor, bonus: float = 0.5, margin: float = 0.01) -> Tensor:
    """GRPO-CARE's bonus of each row from the slow reference's confidence in its answer, its accuracy, its group: (N,).

    >>> confidence, right = torch.tensor([0.9, 0.5, 0.99, 0.2]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    >>> care_bonus(confidence, right, torch.tensor([0, 0, 0, 1]))
    tensor([0.5000, 0.0000, 0.0000, 0.5000])
    """
    (accuracy, place), capped = to_groups(right, groups), to_groups(confidence.clamp(max=0.95), groups)[0]  # (B, G)
    accurate = (accuracy > 0.1) & (accuracy >= accuracy.nanmean(dim=1, keepdim=True))  # (B, G)
    mean = capped.masked_fill(~accurate, torch.nan).nanmean(dim=1, keepdim=True)  # (B, 1), NaN where none is
    return bonus * right * (accurate & (capped >= mean - margin))[place]


@torch.no_grad()
def slow_confidence_reward(
    completions: Sequence[Completion],
    label: Sequence[str],
    groups: Sequence[int],
    context: Context,
    bonus: float = 0.5,
    margin: float = 0.01,
    **columns: Any,
) -> list[float]:
    """`care_bonus` of each completion, 0 or `bonus`; costs a scoring pass. ValueError for a negative coefficient, and
    where the rows are not those that the context has."""
    check_number("bonus", bonus)
    check_number("margin", margin)
    if not bonus:
        return [0.0] * len(completions)
    policy, rollout = context.policy, context.rollout
    if rollout is None or rollout.texts != completion_texts(completions):
        raise ValueError("slow_confidence_reward scores context.rollout, which has other rows: set it before rewarding")
    own = {name: weight.detach() for name, weight in policy.trainable_parameters()}
    if "slow" not in context.state:  # nothing was learnt yet; `keep_slowly` begins with these
        context.cache["start"] = {name: weight.float().clone() for name, weight in own.items()}
    slow = {name: value.to(own[name].dtype) for name, value in context.state.get("slow", {}).items()}
    logps, masks = context.logps(rollout, weights=slow).cpu(), part_masks(policy, rollout)  # (N, L)
    none = torch.zeros_like(rollout.mask, device="cpu")
    answer, reasoning = masks.get("answer", none), masks.get("reasoning", none)  # (N, L)
    confidence = ((logps * answer).sum(dim=1) / answer.sum(dim=1).clamp(min=1)).exp()  # (N,)
    right = torch.tensor(accuracy_reward(completions, label)) * (answer.any(dim=1) & reasoning.any(dim=1))  # (N,)
    return care_bonus(confidence, right, torch.tensor(groups), bonus, margin).tolist()


@torch.no_grad()
def keep_slowly(context: Context, bonus: float = 0.5, decay: float = 0.95) -> None:
    """After a step: slow = decay * slow + (1 - decay) * policy, over the trainable weights by name, in float32, in
    `context.state`. ValueError for a decay outside 0..1."""
    if not 0 <= decay <= 1:
        raise ArgumentError("decay", f"decay is {decay}, but must be the share of the slow weights that stays, 0 to 1")
    if bonus:
        slow = context.state.get("slow") or context.cache.get("start")
        if slow is None:
            raise ValueError("keep_slowly has no weights to begin with: slow_confidence_reward has not been asked")
        now = {name: weight.float() for name, weight in context.policy.trainable_parameters()}
        context.state["slow"] = {name: value.lerp(now[name], 1 - decay) for name, value in slow.items()}


CARE_SLOW = Recipe(
    "care-slow",
    "GRPO-CARE as published: a bonus where a slow average of the policy confirms the right answer",
    "Chen et al., GRPO-CARE, arXiv 2506.16141, code",
    coefficients={"bonus": 0.5},
    steps={"rewards": (accuracy_reward, format_reward, slow_confidence_reward), "after_step": keep_slowly},
)


# ---------------------------------------------------------------------------------------------- vision-sr1 and listener


@torch.no_grad()
def blind_reward(
    completions: Sequence[Completion],
    label: Sequence[str],
    groups: Sequence[int],
    context: Context,
    blind: float = 1.0,
    **columns: Any,
) -> list[float]:
    """blind where the policy, told the `evidence` of its own reasoning in place of the image, gives the right label;
    else 0, also without evidence. Costs one short sampling of as many rows. ValueError for a negative coefficient."""
    check_number("blind", blind)
    rewards, policy, settings = [0.0] * len(completions), context.policy, context.settings
    seen = [evidence(text, context.shots.labels) for text in completion_texts(completions)] if blind else []
    rows = [row for row, text in enumerate(seen) if text]
    if rows:
        question, prompts = build_prompt(context.labels, "answer"), context.prompts[[groups[row] for row in rows]]
        texts = [describe_first(seen[row], question) for row in rows]
        asked = ask_without_image(policy, prompts, texts, settings.max_new_tokens)
        seed = int(torch.randint(2**31, (1,), generator=context.generator))
        answers = sample_groups(
            policy, asked, 1, settings.max_new_tokens, settings.temperature, seed, decoding=settings.decoding
        )
        for row, right in zip(rows, accuracy_reward(answers.texts, [label[row] for row in rows]), strict=True):
            rewards[row] = blind * right
    return rewards


VISION_SR1 = Recipe(
    "vision-sr1",
    "Vision-SR1: reasoning from which the policy finds the label without the image is paid",
    "Li et al., Vision-SR1, arXiv 2508.19652, code",
    coefficients={"blind": 1.0},
    steps={"rewards": (accuracy_reward, format_reward, blind_reward)},
)


def listener_reward(
    completions: Sequence[Completion],
    label: Sequence[str],
    groups: Sequence[int],
    context: Context,
    listener: float = 0.5,
    **columns: Any,
) -> list[float]:
    """listener * the probability that the reference, behind the `evidence` of each completion's reasoning, answers with
    the right label: 0 to `listener`, and 0 without evidence. Costs a pass of the reference. ValueError for a negative
    coefficient, and for a policy without a reference."""
    check_number("listener", listener)
    rewards = [0.0] * len(completions)
    seen = [evidence(text, context.shots.labels) for text in completion_texts(completions)] if listener else []
    rows = [row for row, text in enumerate(seen) if text]
    if rows:
        texts = [f"<think>{seen[row]}</think><answer>{label[row]}</answer>" for row in rows]
        heard = encode_completions(context.policy, texts, [groups[row] for row in rows])
        answer = part_masks(context.policy, heard)["answer"]  # (n, L)
        confidence = (context.reference_logps(heard).cpu() * answer).sum(dim=1).exp()  # (n,)
        for row, value in zip(rows, confidence.tolist(), strict=True):
            rewards[row] = listener * value
    return rewards


LISTENER = Recipe(
    "listener",
    "Listener: reasoning that makes the frozen reference sure of the right label is paid",
    "Gambashidze et al., Listener-rewarded thinking, arXiv 2506.22832 (abstract)",
    coefficients={"listener": 0.5},
    steps={"rewards": (accuracy_reward, format_reward, listener_reward)},
)
