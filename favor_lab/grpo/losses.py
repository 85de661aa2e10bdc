"""Step 4 of GRPO: one number to minimise.

All log-probabilities are (N, L): N completions, L tokens, of which `mask` says which count (True up to and including
the first end token). The log-probabilities are those of the sampling distribution, in float32 or wider.
"""

from __future__ import annotations

import torch
from torch import Tensor

from favor_lab.grpo.support.settings import HOWS, LEVELS

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8: beyond this a ratio says "far away" and nothing more, and soon overflows


def bounded(log_ratio: Tensor) -> Tensor:
    """The log-ratio cut to +-MAX_LOG_RATIO, so that its exponential stays finite; no gradient beyond.

    >>> bounded(torch.tensor([-0.5, 300.0]))
    tensor([-0.5000, 20.0000])
    """
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def clipped_surrogate(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """PPO's clipped objective, to be maximised: min(ratio A, clip(ratio, 1 - low, 1 + high) A), as (N, L).

    logps, old_logps: (N, L) under the policy now and when sampling; advantages: (N,) or (N, L).
    Source: Schulman et al., arXiv 1707.06347, equation 7; two bounds as in DAPO, arXiv 2503.14476.

    A ratio of 1.5 earns no more than 1.2 when the advantage is positive, and is charged in full when it is negative:

    >>> logps, old = torch.tensor([[1.5], [1.5]]).log(), torch.zeros(2, 1)
    >>> clipped_surrogate(logps, old, torch.tensor([1.0, -1.0]))
    tensor([[ 1.2000],
            [-1.5000]])
    """
    advantages = by_token(advantages)  # (N, 1) or (N, L)
    ratio = bounded(logps - old_logps).exp()  # (N, L)
    return torch.min(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def cispo_surrogate(logps: Tensor, old_logps: Tensor, advantages: Tensor, ratio_max: float = 5.0) -> Tensor:
    """CISPO's objective, to be maximised: min(ratio, ratio_max) A log p with the ratio held fixed, as (N, L).

    No token loses its gradient, unlike with the clip. Source: MiniMax-M1, arXiv 2506.13585, equations 4 and 5;
    the bound is on the ratio itself, as in TRL 1.16 `loss_type='cispo'`, where 5.0 is the recommended value.

    >>> cispo_surrogate(torch.tensor([[-1.0]]), torch.tensor([[-1.0]]), torch.tensor([2.0]))
    tensor([[-2.]])
    """
    ratio = bounded(logps - old_logps).exp().clamp(max=ratio_max).detach()  # (N, L)
    return ratio * by_token(advantages) * logps


def k3_kl(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) at each sampled token: exp(d) - d - 1 with d = ref - policy, as (N, L).

    Never negative (but for rounding), unbiased for samples of the policy. Source: k3 of
    http://joschu.net/blog/kl-approx.html; GRPO (arXiv 2402.03300) equation 4. d is bounded by MAX_LOG_RATIO.

    >>> k3_kl(torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.0, -2.0]]))
    tensor([[0.0000, 0.3679]])
    """
    difference = bounded(ref_logps - logps)  # (N, L)
    return difference.exp() - difference - 1


def exact_kl(logps: Tensor, other_logps: Tensor) -> Tensor:
    """KL(first || second) at each position, summed over the whole vocabulary: (N, L, V) each -> (N, L).

    Forbidden ids, -inf in both, have no share. Differentiable in both. What k3 estimates from the sampled token:

    >>> half, other = torch.tensor([[[0.5, 0.5, 0.0]]]).log(), torch.tensor([[[0.25, 0.75, 0.0]]]).log()
    >>> exact_kl(half, other)
    tensor([[0.1438]])
    """
    forbidden = logps.isneginf()  # (N, L, V)
    difference = (logps - other_logps).masked_fill(forbidden, 0.0)  # -inf - -inf is not a number
    return (logps.exp() * difference).sum(dim=-1)  # (N, L)


def aggregate(
    per_token: Tensor,
    mask: Tensor,
    how: str = "grpo",
    max_length: int | None = None,
    total_tokens: int | None = None,
    total_rows: int | None = None,
) -> Tensor:
    """Aggregate one number per token into one number: (N, L) -> scalar.

    how, as TRL 1.16 names them in `loss_type`:
        "grpo"     mean over rows of the row's mean over its tokens: a token of a long row weighs less
        "dr_grpo"  sum / (rows x max_length), a constant: no bias towards short or long rows (arXiv 2503.20783)
        "bnpo"     sum / tokens of the batch at hand
        "dapo"     sum / tokens of the whole step (arXiv 2503.14476); "cispo" likewise. With `total_tokens` left out,
                   and always in this library's loop, where the batch at hand is the whole step, the same as "bnpo"
    max_length: the constant of "dr_grpo", there without default.
    total_tokens, total_rows: of the whole step, when these rows are only a part of it (a micro-batch); the parts'
        results then add up to the whole step's, whatever the split.

    >>> x, mask = torch.tensor([[1.0, 1.0], [4.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    >>> [round(aggregate(x, mask, how, max_length=2).item(), 4) for how in ("grpo", "bnpo", "dr_grpo")]
    [2.5, 2.0, 1.5]
    """
    values = per_token.expand(mask.shape).masked_fill(~mask, 0.0)  # (N, L)
    rows = len(mask) if total_rows is None else total_rows
    tokens = mask.sum() if total_tokens is None else total_tokens
    if how == "grpo":
        return (values.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum() / max(rows, 1)
    if how == "dr_grpo":
        if max_length is None:
            raise ValueError("how='dr_grpo' divides by a constant: pass max_length, the most tokens a completion has")
        return values.sum() / (max(rows, 1) * max_length)
    if how in HOWS:
        return values.sum() / max(int(tokens), 1)
    raise ValueError(f"unknown how {how!r}; the ways to aggregate are {', '.join(HOWS)}")


def grpo_loss(
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
    beta: float = 0.04,
    how: str = "grpo",
    level: str = "token",
    *,
    clip_high: float | None = None,
    ratio_max: float = 5.0,
    weigh_kl: bool = False,
    max_length: int | None = None,
    total_tokens: int | None = None,
    total_rows: int | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of GRPO and of its relatives: aggregate(-surrogate + beta KL), with its parts by name.

    logps, old_logps, ref_logps: (N, L) (ref_logps may be None when beta is 0); advantages: (N,) or (N, L);
    mask: (N, L) bool. Returns a scalar, and floats that add up over micro-batches as the loss does:
    loss = policy + kl_penalty; kl, ratio, clip_low, clip_high: means over the tokens; bounded: log-ratios cut.
    clip, clip_high: ratio kept in [1 - clip, 1 + clip_high]; clip_high defaults to clip. ratio_max: CISPO's bound.
    level: "sequence" takes one ratio per row, exp of the mean log-ratio (GSPO, arXiv 2507.18071).
    weigh_kl: multiply the KL by the ratio (TRL 1.16 `use_bias_correction_kl`, there the default; not in the paper).

    >>> zeros, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    >>> loss, parts = grpo_loss(zeros, zeros, zeros - 1, torch.tensor([1.0, -1.0]), mask, beta=1.0)
    >>> loss, round(parts["kl_penalty"], 4), parts["clip_low"]
    (tensor(0.3679), 0.3679, 0.0)
    """
    if level not in LEVELS or (how == "cispo" and level != "token"):
        raise ValueError(f"unknown level {level!r} for how={how!r}; the levels are {', '.join(LEVELS)} (cispo: token)")
    if beta and ref_logps is None:
        raise ValueError(f"beta={beta} asks for a KL penalty, which needs ref_logps; pass them, or beta=0")
    reference = logps if ref_logps is None else ref_logps
    now, old = (logps, old_logps) if level == "token" else (row_mean(logps, mask), row_mean(old_logps, mask))
    ratio = bounded(now - old).exp()  # (N, L), or (N, 1) when level is "sequence"
    surrogate, low, high = bounded_surrogate(now, old, advantages, how, clip, clip_high, ratio_max)
    kl = k3_kl(logps, reference) * (ratio if weigh_kl else 1.0)  # (N, L)
    policy = aggregate(-surrogate, mask, how, max_length, total_tokens, total_rows)
    loss = policy + beta * aggregate(kl, mask, how, max_length, total_tokens, total_rows)
    sign = by_token(advantages)  # (N, 1) or (N, L)
    far = ((now - old).abs() > MAX_LOG_RATIO) | ((reference - logps).abs() > MAX_LOG_RATIO)  # (N, L)
    clips = {"clip_low": (ratio < low) & (sign < 0), "clip_high": (ratio > high) & (sign > 0)}
    parts = {"policy": policy, "kl_penalty": loss - policy, "bounded": (far & mask).sum()}
    return loss, as_floats(parts | token_means({"kl": kl, "ratio": ratio} | clips, mask, total_tokens))


def bounded_surrogate(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    how: str,
    clip: float,
    clip_high: float | None,
    ratio_max: float,
) -> tuple[Tensor, float, float]:
    """The surrogate of `how`, (N, L) or (N, 1), and the lowest and the highest ratio that it lets through."""
    if how == "cispo":
        return cispo_surrogate(logps, old_logps, advantages, ratio_max), 0.0, ratio_max
    clip_high = clip if clip_high is None else clip_high
    return clipped_surrogate(logps, old_logps, advantages, clip, clip_high), 1 - clip, 1 + clip_high


def token_means(values: dict[str, Tensor], mask: Tensor, total_tokens: int | None = None) -> dict[str, Tensor]:
    """Mean over the masked tokens of each of some (N, L) or (N, 1), by name.

    >>> token_means({"ratio": torch.tensor([[1.0, 2.0]])}, torch.tensor([[True, True]]))
    {'ratio': tensor(1.5000)}
    """
    return {
        name: aggregate(value.detach() * 1.0, mask, "dapo", total_tokens=total_tokens) for name, value in values.items()
    }


def as_floats(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Scalars by name as floats. A GPU is waited for once, not once per number.

    >>> as_floats({"kl": torch.tensor(0.5), "bounded": torch.tensor(3)})
    {'kl': 0.5, 'bounded': 3.0}
    """
    values = [value.detach() for value in scalars.values()]
    return dict(zip(scalars, torch.stack([value.to(values[0].device) for value in values]).tolist(), strict=True))


def by_token(advantages: Tensor) -> Tensor:
    """Advantages that broadcast over tokens: (N,) -> (N, 1); (N, L) stays."""
    return advantages[:, None] if advantages.dim() == 1 else advantages


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row over its masked tokens: (N, L) -> (N, 1)."""
    return values.masked_fill(~mask, 0.0).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
