"""GSPO: one ratio per sequence, four updates per rollout (with one no ratio differs from 1)."""

from favor_lab.recipes.recipe import Recipe

GSPO = Recipe(
    "gspo",
    "GSPO: one ratio per sequence, four updates per rollout (with one no ratio differs from 1)",
    "Zheng et al., Group sequence policy optimization, arXiv 2507.18071",
    settings={"level": "sequence", "updates_per_rollout": 4},
)
