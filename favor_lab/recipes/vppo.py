"""VPPO: learn more from completions, and only at tokens, that depend on the image.

Source: Huang et al., Spotlight on token perception, arXiv 2510.09285; code huaixuheqing/VPPO-RL, dp_actor.py.
Equations, for token t of completion i with T_i tokens: S_it = KL(pi(. | image) || pi(. | masked image)); n_i = mean_t
S_it, scaled to 0..1 over the step; A_it = A_i * (b + n_i * (1 - b) / mean n), so that the factor is 1 on average, at
the ceil(0.4 T_i) tokens with the largest S_it, and 0 elsewhere. Published: b = 0.9; squares of 14 pixels, black with
probability 0.5; S of the policy that sampled, for all updates; the loss still divides by all T_i tokens, so that a step
is about 0.4 of a whole one.

Deviations:
1. S is the KL of the paper, over the vocabulary (`exact`), from the loss's own pass on the clean images, made ahead.
   The published code takes k3 of the sampled token, at most 10: exact=False, without any (N, L, V).
2. Factor and filter are one weight per token of the advantage; the published code filters in the loss. The same, since
   the surrogate of an advantage of 0 is 0; and a resumed run has them in its checkpoint. A KL penalty acts on all
   tokens.
3. On plain GRPO. Published on DAPO: how="dapo", clip_high=0.28, beta=0, groups filtered. No entropy penalty of 0.06 on
   the sampled tokens either: its gradient is zero on average.
4. The mean of n is that of the step; published, of each micro-batch, which would make micro_batch change the result.
5. The image is masked at the size that the vision tower sees, in squares of 14 pixels for the reasons in `papo`.
6. Coefficients are named so that 0 is off: `shrink` is 1 - b, `drop` is 1 - 0.4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import exact_kl, k3_kl, row_mean
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.views import by_group, compared, masked_prompts

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


@torch.no_grad()
def dependency(rollout: Rollout, context: Context, exact: bool, probability: float, side: int) -> Tensor:
    """How much each token depends on the image, (N, L): 0 where the mask is False."""
    prompts = masked_prompts(context, probability, side)
    if not exact:
        known = bool(rollout.sampled.all()) and bool(rollout.logps.isfinite().all())
        seeing = rollout.logps if known else context.logps(rollout)  # (N, L)
        return k3_kl(seeing, context.logps(rollout, prompts)).clamp(0, 10)
    return compared(exact_kl, rollout, context, prompts).clamp(min=0)


def row_factors(scores: Tensor, shrink: float = 0.1) -> Tensor:
    """Factors of rows from their mean dependency, (N,) each: 1 - shrink for the least, 1 on average.

    >>> row_factors(torch.tensor([1.0, 2.0, 4.0]), shrink=0.1)
    tensor([0.9000, 0.9750, 1.1250])
    """
    above = scores - scores.min()  # (N,); the published n is this divided by its maximum, which cancels in n / mean n
    return 1 - shrink + shrink * above / above.mean() if bool(above.max() > 1e-6) else torch.ones_like(scores)


def most_dependent(dependency: Tensor, mask: Tensor, drop: float = 0.6) -> Tensor:
    """The tokens that keep their gradient, (N, L) bool: a share of 1 - drop of each row, rounded up; the largest.

    >>> most_dependent(torch.tensor([[0.1, 0.3, 0.2, 9.0]]), torch.tensor([[True, True, True, False]]))
    tensor([[False,  True,  True, False]])
    """
    counts = [math.ceil((1 - drop) * length - 1e-9) for length in mask.sum(dim=1).tolist()]  # 0.4 * 5 is 2, not 3
    order = dependency.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) < torch.tensor(counts, device=mask.device)[:, None]


def vppo_advantages(
    rewards: Tensor,
    *,
    context: Context,
    shrink: float = 0.1,
    drop: float = 0.6,
    exact: bool = True,
    probability: float = 0.5,
    side: int = 14,
    **settings: Any,
) -> Tensor:
    """`group_advantages` (B, G) as (B, G, L), weighted by row and token; costs the encoding of the masked images, and
    one pass without gradient. ValueError for shares outside 0..1."""
    if not (0 <= shrink <= 1 and 0 <= drop < 1):
        raise ValueError(f"shrink is {shrink} and drop {drop}: they must be shares from 0 to 1, drop below 1")
    advantages, rollout = group_advantages(rewards, **settings), context.rollout  # (B, G)
    if rollout is None or not (shrink or drop):
        return advantages
    tokens = dependency(rollout, context, exact, probability, side)  # (N, L)
    factors = row_factors(row_mean(tokens, rollout.mask)[:, 0], shrink)  # (N,)
    kept = most_dependent(tokens, rollout.mask, drop)  # (N, L)
    return advantages[..., None] * by_group(factors[:, None] * kept, rollout.groups)  # (B, G, L)


VPPO = Recipe(
    "vppo",
    "VPPO: advantages weighted by how much a completion and its tokens depend on the image",
    "Huang et al., Spotlight on token perception, arXiv 2510.09285",
    coefficients={"shrink": 0.1, "drop": 0.6},
    steps={"advantages": vppo_advantages},
    cost="the masked images encoded, a pass without gradient",
)
