"""AMFT's mix: labels are learnt beside the rewards, with a share that the policy's entropy steers.

Source: He et al., AMFT, arXiv 2508.06944: the abstract and the released code (TSYJ-He/AMFT) were read. That code is a
placeholder: its training loop fills completions, advantages and old log-probabilities with random numbers.
Equations: loss = (1 - mu) * GRPO's + mu * cross entropy of the labels; mu += rate * (H* - H) after each step, from 0.05
to 0.95, H the policy's mean entropy per token. Published: mu begins at 0.8 (0.5 in the class), rate 5e-4, H* the
entropy after a supervised warm-up; and 1e-4 times a meta-gradient every 20 steps.

Deviations:
1. No meta-gradient: it needs validation images, and as coded its sign raises the loss on them. So this is an
   entropy-steered mix, and not the method whose results are published.
2. rate is 0.02, our own choice: at 5e-4 the share would move by about 0.01 in 100 steps. The sign is the code's: a
   policy that becomes too sure gets more of the labels. A negative rate is the other reading.
3. H* is the entropy at the first step: the policy comes out of supervised training already.
4. The labels of the step's own images are learnt, at the tokens of the answer alone and behind the group's first
   reasoning that came with an answer; few-shot labels have no reasoning, and an answer alone would teach not to think.
5. Groups that are left out (skip_flat_groups) leave out their label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from favor_lab.activities.labels import is_blank
from favor_lab.grpo.losses import aggregate, as_floats, grpo_loss
from favor_lab.grpo.sampling import encode_completions
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rows import answer_tokens
from favor_lab.responses import split_response

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


def label_rows(rollout: Rollout, context: Context) -> tuple[Rollout, Tensor]:
    """The label of each prompt as a completion, B rows, beside the reasoning of the group's first row that has both
    reasoning and an answer, in the style of the question; and which of their tokens are the answer's, (B, L) bool."""
    labels, style = context.prompts.labels, context.question.style
    texts = [f"<answer>{label}</answer>" for label in labels]
    for text, group in reversed(list(zip(rollout.texts, rollout.groups.tolist(), strict=True))):
        reasoning, answer = split_response(text, style)
        if answer is not None and not is_blank(reasoning or ""):
            thought, answered = f"<think>{reasoning}</think>", f"<answer>{labels[group]}</answer>"
            texts[group] = answered + thought if style == "answer-first" else thought + answered
    rows = encode_completions(context.policy, texts, range(len(texts)), origin="label")
    return rows, answer_tokens(rows, context)


def label_loss(part: Rollout, context: Context) -> Tensor | float:
    """Mean cross entropy of the label tokens of the step, in nats; of a micro-batch the share of those groups that no
    earlier one had, so that the shares add up. Differentiable."""
    rollout = part if context.rollout is None else context.rollout
    if "labels" not in context.cache:
        context.cache["labels"] = (*label_rows(rollout, context), set())
    rows, answers, done = context.cache["labels"]
    new = sorted({*part.groups.tolist()} - done)
    done.update(new)
    if not new:
        return 0.0
    tokens = int(answers[rollout.groups.unique()].sum())
    return aggregate(-context.logps(rows.rows(new)), answers[new], "dapo", total_tokens=tokens)


def amft_loss(
    logps: Tensor, old_logps: Tensor, ref_logps: Tensor | None, advantages: Tensor, mask: Tensor, *, rollout: Rollout,
    context: Context, total_rows: int | None = None, mu: float = 0.8, **settings: Any,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """(1 - mu) * `grpo_loss` + mu * `label_loss`, mu as `steer` has left it; costs a pass over one row per prompt."""
    loss, parts = grpo_loss(logps, old_logps, ref_logps, advantages, mask, total_rows=total_rows, **settings)
    if not mu:
        return loss, parts
    share, labels = context.state.get("amft", {"mu": mu})["mu"], label_loss(rollout, context)
    mixed = (1 - share) * loss + share * labels
    facts = as_floats({"label_loss": labels + 0.0 * loss.detach()})
    return mixed, parts | facts | {"label_share": share * len(rollout) / (total_rows or len(rollout))}


def moved(mu: float, target: float, entropy: float, rate: float = 0.02, low: float = 0.05, high: float = 0.95) -> float:
    """The share of the labels after a step with this entropy, in nats.

    >>> round(moved(0.5, target=1.0, entropy=0.4), 3), moved(0.94, target=9.0, entropy=0.0)
    (0.512, 0.95)
    """
    return min(high, max(low, mu + rate * (target - entropy)))


def steer(*, context: Context, mu: float = 0.8, rate: float = 0.02) -> None:
    """Move the share of the labels, `context.state["amft"]`, after a step; the first one sets the target."""
    entropy = context.record.entropy if context.record else None
    if mu and entropy is not None:
        state = context.state.get("amft", {"mu": mu, "target": entropy})
        context.state["amft"] = state | {"mu": moved(state["mu"], state["target"], entropy, rate)}


AMFT = Recipe(
    "amft",
    "AMFT's mix: labels are learnt beside the rewards, with a share that the entropy steers",
    "He et al., AMFT, arXiv 2508.06944",
    coefficients={"mu": 0.8},
    steps={"loss": amft_loss, "after_step": steer},
    cost="a pass with gradient over one row per prompt",
)
