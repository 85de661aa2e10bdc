"""GTR: beside GRPO, the reasoning is fine-tuned towards the true one, so that it cannot decay while answers are right.

Source: Wei et al., GTR, arXiv 2503.08525; known from notes of others, neither paper nor code was read.
Equation: loss = that of the answers (PPO) + cross-entropy of corrected thoughts, of the tokens of the thoughts alone.
Published: a large model corrects each thought of the policy, all corrections are kept and sampled from (DAgger), PPO
acts on the tokens of the action; penalties on form and repetition. Weight of the two losses: not found; `thought` = 1
is ours.

This is supervised information, and more of it than labels: what is true of each training image. A fair comparison is
with supervised fine-tuning on the same sentences, not with GRPO on labels.

Deviations:
1. The corrected thought is what is true of the drawn scene, as the pocket policy writes it; it does not depend on what
   the policy thought, so there is nothing to collect.
2. It is one target per prompt, a mean over its tokens, `<think>` and `</think>` among them; prompts count by their
   rows, so that micro-batches change nothing.
3. GRPO acts on all tokens, the reasoning's too; the KL penalty and the rewards stay those of plain GRPO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.arguments import check_number
from favor_lab.grpo.losses import as_floats, grpo_loss, row_mean
from favor_lab.grpo.sampling import encode_completions
from favor_lab.recipes.facts import true_statements
from favor_lab.recipes.recipe import Recipe

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


def true_thought(statements: tuple[str, ...]) -> str:
    """The reasoning that states these, as the pocket policy writes it.

    >>> true_thought(("standing", "arms down"))
    '<think>standing, arms down</think>'
    """
    return f"<think>{', '.join(statements)}</think>"


def thought_loss(rollout: Rollout, context: Context, total_rows: int) -> Tensor:
    """Cross-entropy of the true thought of each prompt that these rows answer, in nats per token, each prompt weighted
    by the share of its rows among the step's: a scalar. ValueError for an image that is no drawn scene."""
    groups, counts = rollout.groups.unique(return_counts=True)  # (b,) prompts of these rows; (b,) rows of each
    scenes = true_statements([context.prompts.sources[b] for b in groups.tolist()], "gtr_loss")
    texts = [true_thought(statements) for statements in scenes]
    thoughts = encode_completions(context.policy, texts, groups, temperature=rollout.temperature)
    ends = torch.arange(thoughts.mask.shape[1], device=thoughts.mask.device) == thoughts.lengths[:, None] - 1  # (b, L)
    mask = thoughts.mask & ~ends  # (b, L): the answer comes next, not the end
    per_prompt = -row_mean(context.logps(thoughts), mask)[:, 0]  # (b,)
    return (per_prompt * counts).sum() / total_rows


def gtr_loss(
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    rollout: Rollout,
    context: Context,
    total_rows: int | None = None,
    thought: float = 1.0,
    **settings: Any,
) -> tuple[Tensor, dict[str, float]]:
    """`grpo_loss` + thought * `thought_loss`; costs a pass over one short row per prompt, with its gradient.
    ValueError for a negative weight."""
    check_number("thought", thought)
    loss, parts = grpo_loss(logps, old_logps, ref_logps, advantages, mask, total_rows=total_rows, **settings)
    if not thought:
        return loss, parts
    entropy = thought_loss(rollout, context, len(mask) if total_rows is None else total_rows)
    return loss + thought * entropy, parts | as_floats({"thought": entropy})


GTR = Recipe(
    "gtr",
    "GTR: the reasoning is fine-tuned towards what is true of the scene (supervised), beside GRPO",
    "Wei et al., GTR, arXiv 2503.08525 (from notes of others)",
    coefficients={"thought": 1.0},
    steps={"loss": gtr_loss},
    cost="a pass with gradient over one short row per prompt",
)
