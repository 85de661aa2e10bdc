"""DAPO without dynamic sampling: mean over the tokens of the step, wider upper clip."""

from favor_lab.recipes.recipe import Recipe

DAPO = Recipe(
    "dapo",
    "DAPO without dynamic sampling: mean over the tokens of the step, wider upper clip",
    "Yu et al., DAPO, arXiv 2503.14476",
    settings={"how": "dapo", "clip_high": 0.28},
)
