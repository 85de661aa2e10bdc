"""VERL: a bonus for completions whose hidden states fill more dimensions, or do so faster, than those of earlier steps.

Source: Huang et al., Beyond the exploration-exploitation trade-off, arXiv 2509.23808: the abstract, and of the code
hf618/VERL metrics_utils.py, reward_manager_versions.py and the configuration, were read.
Equations: ER = exp(entropy of the singular values of the centred hidden states, scaled to sum 1), of the first 40, 80,
... tokens and of all; V = mean_k(ER_k - mean of earlier ones), C = mean change of that difference; d(m) = (m - EMA) /
|EMA|, within +-5; w = sigmoid(2 d(C)); aux = w tanh(d(ER)) + (1 - w) tanh(d(V)); A += min(relu(aux), |A| / kappa).
Published: kappa 2, EMA 0.3 (the weight of the new step), G = 4. A sign is never turned, and a group whose rewards are
all the same gets nothing.

Deviations:
1. Prefixes grow by 5 tokens, not 40: a completion here has about 30.
2. The bonus is on all tokens of a completion; where the published code adds it, it sits on the last one. The released
   command seems to switch it off: it computes the bonus only under a flag that the command sets to False.
3. Hidden states are those that predict the tokens, behind the last norm. The clean image's; nothing is masked.
4. The EMA begins as the mean of the first step, which has no bonus itself; published, as 0. The bonus is not scaled by
   how far the policy is from a perfect score, as one version of the code does.
5. The KL penalty stays as it is set; published, 0.001, and as much for the entropy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.sampling import completion_states
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.views import by_group, capped_bonus

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.grpo.training import Context


def effective_rank(states: Tensor) -> float:
    """How many directions hidden states fill about evenly, (T, D) -> 1 to min(T - 1, D); 0 where they are all the same.

    >>> round(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)
    2.0
    """
    values = torch.linalg.svdvals(states.double() - states.double().mean(dim=0))  # (min(T, D),)
    if not values.sum() > 1e-9:
        return 0.0
    return (values / values.sum()).clamp(min=1e-12).log().mul(-values / values.sum()).sum().exp().item()


def growth(ranks: list[float]) -> list[float]:
    """The last of the ranks of growing prefixes, its velocity and its acceleration; 0 where there are too few.

    >>> growth([1.0, 2.0, 3.0])
    [3.0, 1.25, 0.5]
    """
    steps = [rank - sum(ranks[:k]) / k for k, rank in enumerate(ranks) if k]
    changes = [after - before for before, after in zip(steps, steps[1:], strict=False)]
    return [ranks[-1], *(sum(values) / max(len(values), 1) for values in (steps, changes))]


@torch.no_grad()
def rank_measures(rollout: Rollout, context: Context, window: int) -> Tensor:
    """`growth` of each row's hidden states, from prefixes of `window` tokens more each and of all: (N, 3)."""
    measures = []
    for rows in torch.arange(len(rollout)).split(context.settings.micro_batch or len(rollout)):
        part = rollout.rows(rows)
        hidden = completion_states(context.policy, context.prompts, part, context.settings.scoring, False)  # (M, D)
        for states in hidden.cpu().split(part.lengths.tolist()):  # (T, D)
            ends = [*range(window, len(states), window), len(states)]
            measures.append(growth([effective_rank(states[:end]) for end in ends]))
    return torch.tensor(measures, device=rollout.mask.device)


def auxiliary(measures: Tensor, average: Tensor, gain: float = 2.0) -> Tensor:
    """The bonus before its cap, (N,), from rank, velocity and acceleration (N, 3) and their moving averages (3,).

    >>> auxiliary(torch.tensor([[2.0, 1.0, 1.0], [1.0, 3.0, 1.0], [0.5, 1.0, 1.0]]), torch.ones(3))
    tensor([ 0.3808,  0.4820, -0.2311])
    """
    rank, velocity, acceleration = ((measures - average) / (average.abs() + 1e-8)).clamp(-5, 5).unbind(dim=1)  # (N,)
    explore = (gain * acceleration).sigmoid()
    return explore * rank.tanh() + (1 - explore) * velocity.tanh()


def verl_advantages(
    rewards: Tensor, *, context: Context, bonus: float = 1.0, kappa: float = 2.0, window: int = 5, gain: float = 2.0,
    **settings: Any,
) -> Tensor:  # fmt: skip
    """`group_advantages` (B, G) with the capped bonus; costs a pass without gradient, and the singular values of each
    completion's hidden states. ValueError for a window below 1."""
    advantages, rollout = group_advantages(rewards, **settings), context.rollout  # (B, G)
    if rollout is None or not bonus:
        return advantages
    if window < 1:
        raise ValueError(f"window is {window}, but must be at least 1: tokens by which the prefixes grow")
    measures = rank_measures(rollout, context, int(window))  # (N, 3)
    context.cache["verl"] = measures.mean(dim=0).tolist()
    average = measures.new_tensor(context.state.get("verl", context.cache["verl"]))  # (3,)
    added = bonus * auxiliary(measures, average, gain) * ("verl" in context.state)  # (N,)
    return advantages + capped_bonus(advantages, by_group(added, rollout.groups), kappa)


def keep_average(*, context: Context, pace: float = 0.3) -> None:
    """Move the averages of rank, velocity and acceleration, `context.state["verl"]`, towards this rollout's means."""
    if new := context.cache.get("verl"):
        old = context.state.get("verl", new)
        context.state["verl"] = [(1 - pace) * before + pace * now for before, now in zip(old, new, strict=True)]


VERL = Recipe(
    "verl",
    "VERL: a capped bonus for hidden states that fill more dimensions, or faster, than in earlier steps",
    "Huang et al., Beyond the exploration-exploitation trade-off, arXiv 2509.23808",
    coefficients={"bonus": 1.0},
    steps={"advantages": verl_advantages, "after_step": keep_average},
    cost="a pass without gradient, singular values",
)
