"""CISPO: the clipped ratio as a weight, so that no token loses its gradient.

Source: MiniMax-M1, arXiv 2506.13585, equations 4 and 5, as TRL 1.16 has it (`loss_type="cispo"`), which was read.
Equation: loss = - mean over the tokens of the step of sg(min(r, 5)) * A * log p, where r is the ratio of a token and sg
holds its argument fixed. Published, known to us second-hand: it needs about half of the steps of DAPO.

Deviations:
1. No lower bound on the ratio, and an upper one of 5, as in TRL; some code bounds it below too.
2. A KL penalty (beta) stays as it is set.
3. One update per rollout stays the default, and with it every ratio is 1 and this is GRPO with a mean over tokens: see
   the difference with updates_per_rollout=4.
"""

from favor_lab.recipes.recipe import Recipe

CISPO = Recipe(
    "cispo",
    "CISPO: the clipped ratio as a weight, so that no token loses its gradient",
    "MiniMax-M1, arXiv 2506.13585",
    settings={"how": "cispo"},
    cost="none",
)
