"""Dr. GRPO: a constant length in the loss, advantages not divided by a std."""

from favor_lab.recipes.recipe import Recipe

DR_GRPO = Recipe(
    "dr-grpo",
    "Dr. GRPO: a constant length in the loss, advantages not divided by a std",
    "Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783",
    settings={"how": "dr_grpo", "scale": "none"},
)
