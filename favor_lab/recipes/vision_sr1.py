"""Vision-SR1: reasoning is paid from which the policy itself finds the right label without the image.

Source: Li et al., Vision-SR1, arXiv 2508.19652; code zli12321/Vision-SR1 (first version) read.
Equation: r = 0.9 acc + 0.1 form + 1.0 * [blind answer right], one blind answer per row: the policy reads question and
reasoning without the image. A later version separates the advantages; not here.

Deviations:
1. The reasoning is the description; published responses have one beside it.
2. The blind answer is asked for without further reasoning.
3. Weights are those of plain GRPO, 1 and 1, and `blind` = 1.
4. Label words are taken out of what is read (`recipes.evidence`), else writing the answer into the reasoning were paid.
5. The settings, beta among them, are those of plain GRPO.

Open to: other words for a label, and spellings that a reader would still make out. A weak reader makes it noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, accuracy_reward, format_reward, no_reward
from favor_lab.recipes.evidence import with_evidence
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import sample_beside
from favor_lab.vlm.processing import ask_without_image
from favor_lab.vlm.prompts import build_prompt, describe_first

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context


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
    rewards = no_reward(completions)
    seen = with_evidence(completions, context.shots.labels) if blind else {}
    if seen:
        question, prompts = build_prompt(context.labels, "answer"), context.prompts[[groups[row] for row in seen]]
        texts = [describe_first(text, question) for text in seen.values()]
        asked = ask_without_image(context.policy, prompts, texts, context.settings.max_new_tokens)
        seed = int(torch.randint(2**31, (1,), generator=context.generator))
        answers = sample_beside(context, asked, 1, seed).texts
        for row, right in zip(seen, accuracy_reward(answers, [label[row] for row in seen]), strict=True):
            rewards[row] = blind * right
    return rewards


VISION_SR1 = Recipe(
    "vision-sr1",
    "Vision-SR1: reasoning from which the policy finds the label without the image is paid",
    "Li et al., Vision-SR1, arXiv 2508.19652, code",
    coefficients={"blind": 1.0},
    steps={"rewards": (accuracy_reward, format_reward, blind_reward)},
    cost="one short answer without the image sampled for each row",
)
