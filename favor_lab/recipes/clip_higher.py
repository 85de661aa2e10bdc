"""Clip-higher: the ratio may rise further than it may fall, so that rare tokens can become likelier.

Source: Yu et al., DAPO, arXiv 2503.14476, its first change by itself; TRL 1.16 and verl were read.
Equation: surrogate = min(r A, clip(r, 1 - 0.2, 1 + 0.28) A). A token of probability 0.01 may rise to 0.0128 in one
rollout, and not to 0.012 only. Published: 0.2 and 0.28; with DAPO's mean over tokens, dynamic sampling and no KL.

Deviations:
1. Four updates per rollout, our own choice: with one no ratio differs from 1, and no clip can act.
2. Everything else is plain GRPO: combine it (`clip-higher+papo`), or take `dapo` for the mean over tokens.
"""

from favor_lab.recipes.recipe import Recipe

CLIP_HIGHER = Recipe(
    "clip-higher",
    "clip-higher: ratios up to 1.28 earn, four updates per rollout (with one no ratio differs from 1)",
    "Yu et al., DAPO, arXiv 2503.14476",
    settings={"clip_high": 0.28, "updates_per_rollout": 4},
    cost="four updates for each rollout",
)
