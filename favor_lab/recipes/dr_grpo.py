"""Dr. GRPO: a constant length in the loss, advantages not divided by a std.

Source: Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783; TRL 1.16 (`loss_type="dr_grpo"`) was read.
Equation: A_i = r_i - mean of the group; loss = - sum over tokens of the clipped surrogate / (rows * max_new_tokens).
Published: G = 8, completions of at most 3000 tokens, no KL penalty.

Deviations:
1. beta and G stay as they are set; published: beta=0.
2. Advantages are smaller than divided ones, and the learning rate stays: it learns slower unless you raise that.
"""

from favor_lab.recipes.recipe import Recipe

DR_GRPO = Recipe(
    "dr-grpo",
    "Dr. GRPO: a constant length in the loss, advantages not divided by a std",
    "Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783",
    settings={"how": "dr_grpo", "scale": "none"},
    cost="none",
)
