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
2. It is one target per prompt, a mean over its tokens, `<think>` and `</think>` among them. It is written with the
   label's answer beside it, which is not learnt: `</think>` and `<answer>` share a token. Prompts count by their rows,
   so that micro-batches change nothing.
3. GRPO acts on all tokens, the reasoning's too; the KL penalty and the rewards stay those of plain GRPO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from favor_lab.arguments import check_number
from favor_lab.grpo.losses import as_floats, grpo_loss, row_mean
from favor_lab.grpo.sampling import encode_completions
from favor_lab.recipes.facts import check_reasoning, true_statements
from favor_lab.recipes.recipe import Recipe
from favor_lab.responses import part_masks

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


def true_response(statements: tuple[str, ...], label: str, style: str = "think") -> str:
    """The response that states these, as the pocket policy writes it, and answers with the label.

    >>> true_response(("standing", "arms down"), "reading")
    '<think>standing, arms down</think><answer>reading</answer>'
    """
    thought, answer = f"<think>{', '.join(statements)}</think>", f"<answer>{label}</answer>"
    return answer + thought if style == "answer-first" else thought + answer


def thought_span(text: str) -> dict[str, tuple[int, int]]:
    """Where the reasoning with its tags stands in a response, for `part_masks`.

    >>> thought_span("<think>sitting</think><answer>reading</answer>")
    {'thought': (0, 22)}
    """
    return {"thought": (text.index("<think>"), text.index("</think>") + len("</think>"))}


def thought_loss(rollout: Rollout, context: Context, total_rows: int) -> Tensor:
    """Cross-entropy of the true thought of each prompt that these rows answer, in nats per token, each prompt weighted
    by the share of its rows among the step's: a scalar. ValueError for an image that is no drawn scene, and for a style
    without reasoning."""
    check_reasoning(context.question, "gtr_loss")
    groups, counts = rollout.groups.unique(return_counts=True)  # (b,) prompts of these rows; (b,) rows of each
    prompts, places = context.prompts, groups.tolist()
    scenes = true_statements([prompts.sources[b] for b in places], "gtr_loss")
    pairs, style = zip(places, scenes, strict=True), context.question.style
    texts = [true_response(statements, prompts.labels[b], style) for b, statements in pairs]
    thoughts = encode_completions(context.policy, texts, groups, temperature=rollout.temperature)
    mask = part_masks(context.policy, thoughts, thought_span)["thought"].to(thoughts.mask.device)  # (b, L)
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
