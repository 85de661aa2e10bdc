"""What each token of a completion contributes to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.losses import aggregate, bounded, bounded_surrogate, by_token, grpo_loss, k3_kl, row_mean

if TYPE_CHECKING:
    from favor_lab.grpo.sampling import Rollout


@torch.enable_grad()
def token_losses(
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
) -> dict[str, Tensor]:
    """`grpo_loss`, which has the same arguments, token by token: (N, L) each, 0 where the mask is False.

    ratio: now over when sampled (of the row, if level is "sequence"); kl: k3, in nats;
    loss: what the token adds to the loss, so that the sum over all tokens of all rows is the loss;
    push: minus the derivative of the loss by the token's log-probability: above 0, the step makes it likelier;
    muted: 1 where the clip has taken the surrogate's gradient away.
    Raises ArithmeticError if the parts do not add up to `grpo_loss`.

    >>> now, old, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.0, -1.0]]), torch.ones(1, 2).bool()
    >>> parts = token_losses(now, old, None, torch.tensor([1.0]), mask, beta=0.0)
    >>> parts["loss"], parts["push"], parts["loss"].sum()
    (tensor([[-0.5000, -0.1839]]), tensor([[0.5000, 0.1839]]), tensor(-0.6839))
    """
    logps, old_logps, advantages = (values.detach().double() for values in (logps, old_logps, advantages))
    advantages = by_token(advantages).expand(mask.shape)  # (N, L)
    ref_logps = None if ref_logps is None else ref_logps.detach().double()
    logps.requires_grad_()
    loss, _ = grpo_loss(
        logps, old_logps, ref_logps, advantages, mask, clip, beta, how, level,
        clip_high=clip_high, ratio_max=ratio_max, weigh_kl=weigh_kl, max_length=max_length,
    )  # fmt: skip
    now, old = (logps, old_logps) if level == "token" else (row_mean(logps, mask), row_mean(old_logps, mask))
    ratio = bounded(now - old).exp().expand(mask.shape)  # (N, L)
    kl = torch.zeros_like(logps) if ref_logps is None else k3_kl(logps, ref_logps)  # (N, L)
    weights = token_weights(mask, how, max_length)  # (N, L)
    surrogate = weights * bounded_surrogate(now, old, advantages, how, clip, clip_high, ratio_max)[0]  # (N, L)
    parts = (weights * beta * kl * (ratio if weigh_kl else 1.0) - surrogate).masked_fill(~mask, 0.0)  # (N, L)
    if not torch.isclose(parts.sum(), loss, rtol=1e-6, atol=1e-9):
        raise ArithmeticError(f"the tokens' parts add up to {parts.sum().item()}, but the loss is {loss.item()}")
    by_loss, by_surrogate = (torch.autograd.grad(part.sum(), logps, retain_graph=True)[0] for part in (loss, surrogate))
    muted = (by_surrogate == 0) & (advantages != 0)  # (N, L)
    named = {"logp": logps, "ratio": ratio, "kl": kl, "loss": parts, "push": -by_loss, "muted": muted.double()}
    return {name: values.detach().masked_fill(~mask, 0.0).float() for name, values in named.items()}


@torch.enable_grad()
def token_weights(mask: Tensor, how: str = "grpo", max_length: int | None = None) -> Tensor:
    """The weight of each token in `aggregate`, which is linear: its derivative by the token, (N, L).

    >>> token_weights(torch.tensor([[True, True], [True, False]]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]], dtype=torch.float64)
    """
    ones = torch.ones(mask.shape, dtype=torch.float64, device=mask.device, requires_grad=True)
    return torch.autograd.grad(aggregate(ones, mask, how, max_length), ones)[0]


@dataclass(frozen=True)
class Token:
    """One token of a completion: a row of the table. See `token_losses` for the numbers."""

    text: str  # what it adds to the text; "" while a character is incomplete
    logp: float
    ratio: float
    kl: float
    loss: float
    push: float
    muted: bool
    end: bool  # the token that ends the completion


def token_table(tokenizer: Any, rollout: Rollout, row: int, parts: dict[str, Tensor]) -> list[Token]:
    """The tokens of completion `row` with their numbers, end token included. parts: of `token_losses`, (N, L) each."""
    mask = rollout.mask[row]  # (L,)
    ids = rollout.completion_ids[row][mask].tolist()
    numbers = [parts[name][row][mask].tolist() for name in ("logp", "ratio", "kl", "loss", "push")]
    muted, ends = parts["muted"][row][mask].bool().tolist(), [token in rollout.end_token_ids for token in ids]
    return [Token(*of_token) for of_token in zip(token_texts(tokenizer, ids), *numbers, muted, ends, strict=True)]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; "" for the bytes of an incomplete character."""
    texts, shown = [], ""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        unfinished = text.endswith("\N{REPLACEMENT CHARACTER}") and count < len(ids)
        texts.append("" if unfinished else text[len(shown) :])
        shown = shown if unfinished else text
    return texts
