"""CISPO: the clipped ratio as a weight, so that no token loses its gradient."""

from favor_lab.recipes.recipe import Recipe

CISPO = Recipe(
    "cispo",
    "CISPO: the clipped ratio as a weight, so that no token loses its gradient",
    "MiniMax-M1, arXiv 2506.13585",
    settings={"how": "cispo"},
)
