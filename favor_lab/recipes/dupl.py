"""DUPL (before: VOGUE): learn early from noisy views, and pay for tokens that are uncertain or that the noise changes.

Source: Liu et al., VOGUE, arXiv 2510.01444, in version 3 called DUPL: the paper was read, no code.
Equation 1: A_t = A + min(|A| / 2, 0.4 H_t) on the clean view, and min(|A| / 2, 1.0 u_t) more on the noisy one; H_t is
the entropy at token t and u_t = (KL(p || q) + KL(q || p)) / 2, p and q the distributions under the clean and the noisy
view. A step is on the noisy view, with rollouts and advantages of its own, with probability max(0, 1 - s / S), s of S
steps done; else on the clean one. Published: Gaussian noise of 0.4 and changes of form and colour, G = 5. A sign is
never turned, and a group whose rewards are all the same gets nothing. (Withdrawn from ICLR 2026. On what scale of
colours 0.4 is, we could not find.)

Deviations:
1. The view is drawn first, and only its group is sampled; published, both are, and one is thrown away.
2. Gaussian noise only, on colours in 0..1: flips and turns change labels (lying and standing, left and right).
3. The noise is added at the size that the vision tower sees. No accuracy under it has been measured.
4. H is that of the view that is learnt from. It and u are sums over the vocabulary, and have no gradient.
5. Settings, beta among them, are those of plain GRPO.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import exact_kl
from favor_lab.grpo.sampling import sample_groups
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.views import by_group, capped_bonus, changed_prompts, compared, grainy

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def one_view_sample(
    policy: Policy, prompts: PromptBatch, *, group_size: int, context: Context, sigma: float = 0.4, **settings: Any
) -> Rollout:
    """`sample_groups` of the noisy view with probability 1 - progress, else of the clean one. The prompts of the noisy
    view then take the place of the step's: rows are rewarded, scored and learnt under what they answered."""
    if not sigma or float(torch.rand((), generator=context.generator)) < context.progress:
        return sample_groups(policy, prompts, group_size, **settings)
    context.cache["clean"] = prompts
    context.prompts = changed_prompts(context, lambda image: grainy(image, sigma, context.generator))
    rollout = sample_groups(policy, context.prompts, group_size, **settings)
    return replace(rollout, origin=["sampled, noisy image"] * len(rollout))


def uncertainties(own: Tensor, clean: Tensor | None) -> Tensor:
    """Entropy and symmetric KL at each token, (n, L, 2) in nats, from distributions (n, L, V); without the clean view's
    the KL is 0. -inf, a forbidden id, has no share.

    >>> sure, torn = torch.tensor([[[0.9, 0.1]]]).log(), torch.tensor([[[0.5, 0.5]]]).log()
    >>> uncertainties(torn, sure)
    tensor([[[0.6931, 0.4394]]])
    """
    entropy = -(own.exp() * own.masked_fill(own.isneginf(), 0.0)).sum(dim=-1)  # (n, L)
    apart = torch.zeros_like(entropy) if clean is None else (exact_kl(own, clean) + exact_kl(clean, own)) / 2
    return torch.stack([entropy, apart], dim=-1)  # (n, L, 2)


def dupl_advantages(
    rewards: Tensor, *, context: Context, alpha_output: float = 0.4, alpha_perception: float = 1.0,
    cap_output: float = 2.0, cap_perception: float = 2.0, **settings: Any,
) -> Tensor:  # fmt: skip
    """`group_advantages` (B, G) with both bonuses, (B, G, L); costs on the noisy view a pass without gradient.
    ValueError for caps that together could turn the sign of an advantage."""
    advantages, rollout = group_advantages(rewards, **settings), context.rollout  # (B, G)
    clean = context.cache.get("clean")
    if rollout is None or not (alpha_output or (alpha_perception and clean)):
        return advantages
    if not (min(cap_output, cap_perception) > 0 and 1 / cap_output + 1 / cap_perception <= 1):
        caps = f"cap_output is {cap_output} and cap_perception {cap_perception}"
        raise ValueError(f"{caps}: 1 / cap_output + 1 / cap_perception must not be above 1, or signs turn")
    values = compared(uncertainties, rollout, context, clean if alpha_perception else None)  # (N, L, 2)
    entropy, apart = by_group(values, rollout.groups).unbind(dim=-1)  # (B, G, L)
    plain = advantages[..., None]  # (B, G, 1)
    bonus = capped_bonus(plain, alpha_output * entropy, cap_output)
    return plain + bonus + capped_bonus(plain, alpha_perception * apart, cap_perception)


DUPL = Recipe(
    "dupl",
    "DUPL: early steps on noisy views; tokens that are uncertain, or that the noise changes, are paid more",
    "Liu et al., VOGUE / DUPL, arXiv 2510.01444",
    coefficients={"sigma": 0.4, "alpha_output": 0.4, "alpha_perception": 1.0},
    steps={"sample": one_view_sample, "advantages": dupl_advantages},
    cost="noisy steps: the images encoded, a pass without gradient",
)
