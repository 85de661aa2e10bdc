"""PAPO: also say something else than what the policy would say with most of the image blackened.

Source: Wang et al., Perception-aware policy optimization, arXiv 2507.06448, the implicit perception loss; code
MikeWangWZHL/PAPO. Equation: loss = GRPO's - gamma * mean over all tokens of KL(pi_mask || pi), pi_mask held fixed.
Published: each square of 14 pixels is black with probability 0.6; gamma is 0.02 (3B; 0.04 collapses); the KL is k3 of
the sampled token with the ratio pi_mask / pi, at most 10, taken over right and wrong answers alike.

Deviations:
1. The KL is summed over the vocabulary (`exact`): the same gradient in expectation, without the noise of one sampled
   token and without a bound. exact=False is the published estimate; it needs no (N, L, V), as a large vocabulary wants.
2. The image is masked at the size that the vision tower sees, not at its own. `side` stays 14, a patch of the tower: in
   our scenes of 140 pixels parts of limbs and objects remain, and the pocket policy's accuracy falls from 0.44 to 0.06
   (chance is 0.06). Squares of 7 leave the outline and yet blind it (0.00); of 28, the figure is there or gone as a
   whole.
3. No entropy terms (eta 0.03 to 0.05 at 7B, none at 3B): what is published has no gradient for pi_mask, and for pi one
   that is zero on average.
4. With more than one update per rollout each update draws its masks anew, and pi_mask is the policy's at that update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.losses import aggregate, as_floats, exact_kl, grpo_loss, k3_kl
from favor_lab.grpo.support.steps import needed_if
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.views import masked_prompts

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


def perception(seeing: Tensor, blind: Tensor, exact: bool = True) -> Tensor:
    """KL(blind || seeing) at each token, (N, L): of whole distributions (N, L, V), or k3, at most 10, of the sampled
    tokens' log-probabilities (N, L). Only `seeing` has a gradient.

    The gradient of k3 is 1 - pi_mask / pi: near 1 for a token that needs the image, also in a wrong answer.

    >>> seeing = torch.tensor([[0.9, 0.5]]).log().requires_grad_()
    >>> perception(seeing, torch.tensor([[0.09, 0.5]]).log(), exact=False).sum().backward()
    >>> seeing.grad
    tensor([[0.9000, -0.0000]])
    """
    return exact_kl(blind.detach(), seeing) if exact else k3_kl(seeing, blind.detach()).clamp(max=10)


@needed_if(distributions=lambda gamma, exact: gamma and exact)
def papo_loss(
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    rollout: Rollout,
    context: Context,
    total_tokens: int | None = None,
    distributions: Tensor | None = None,
    gamma: float = 0.02,
    exact: bool = True,
    probability: float = 0.6,
    side: int = 14,
    **settings: Any,
) -> tuple[Tensor, dict[str, float]]:
    """`grpo_loss` - gamma * `perception`; costs the encoding of the masked images, and a pass without gradient."""
    loss, parts = grpo_loss(logps, old_logps, ref_logps, advantages, mask, total_tokens=total_tokens, **settings)
    if not gamma:
        return loss, parts
    prompts = masked_prompts(context, probability, side)
    with torch.no_grad():
        blind = context.distributions(rollout, prompts) if exact else context.logps(rollout, prompts)
    per_token = perception(logps if distributions is None else distributions, blind, exact)  # (N, L)
    mean = aggregate(per_token, mask, "dapo", total_tokens=total_tokens)
    return loss - gamma * mean, parts | as_floats({"perception": mean})


PAPO = Recipe(
    "papo",
    "PAPO: rewarded for saying something else than without most of the image",
    "Wang et al., Perception-aware policy optimization, arXiv 2507.06448",
    coefficients={"gamma": 0.02},
    steps={"loss": papo_loss},
    cost="the masked images encoded, a pass without gradient",
)
