"""Listener: reasoning is paid that makes the frozen reference, which reads it and the image, sure of the right label.

Source: Gambashidze et al., Listener-rewarded thinking, arXiv 2506.22832: abstract, and a summary of others.
Equation: r = form + 0.5 acc + 0.5 * listener, listener being the confidence of a frozen model in the right label, with
image, question and reasoning before it.

Deviations:
1. The reference is the policy before training; published, another model.
2. Its confidence is the probability of the whole label as its answer.
3. acc counts 1, as in plain GRPO, and `listener` = 0.5.
4. Label words are taken out of what is read (`recipes.evidence`), else writing the answer into the reasoning were paid.
5. The settings, beta among them, are those of plain GRPO.

Open to: other words for a label, and spellings that a reader would still make out. A weak reader makes it noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.grpo.sampling import encode_completions
from favor_lab.recipes.evidence import with_evidence
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import part_masks

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context


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
    rewards = no_reward(completions)
    seen = with_evidence(completions, context.shots.labels) if listener else {}
    if seen:
        texts = [f"<think>{text}</think><answer>{label[row]}</answer>" for row, text in seen.items()]
        heard = encode_completions(context.policy, texts, [groups[row] for row in seen])
        answer = part_masks(context.policy, heard)["answer"]  # (n, L)
        confidence = (context.reference_logps(heard).cpu() * answer).sum(dim=1).exp()  # (n,)
        for row, value in zip(seen, confidence.tolist(), strict=True):
            rewards[row] = listener * value
    return rewards


LISTENER = Recipe(
    "listener",
    "Listener: reasoning that makes the frozen reference sure of the right label is paid",
    "Gambashidze et al., Listener-rewarded thinking, arXiv 2506.22832 (abstract)",
    coefficients={"listener": 0.5},
    steps={"rewards": (accuracy_reward, format_reward, listener_reward)},
    cost="a pass of the reference",
)
