"""DAPO without dynamic sampling: mean over the tokens of the step, wider upper clip.

Source: Yu et al., DAPO, arXiv 2503.14476; TRL 1.16 and verl's page on its reproduction were read.
Equation: loss = - sum over the tokens of the step of min(r A, clip(r, 1 - 0.2, 1 + 0.28) A) / their number. Published:
those clips, no KL penalty, G = 16.

Deviations:
1. No dynamic sampling: groups without spread stay (skip_flat_groups=True leaves them out; it does not sample others).
2. No penalty for completions that are too long, and none is left out of the loss.
3. beta and G stay as they are set; published: beta=0, group_size=16.
4. With one update per rollout no ratio differs from 1, and of the two changes only the mean acts.
"""

from favor_lab.recipes.recipe import Recipe

DAPO = Recipe(
    "dapo",
    "DAPO without dynamic sampling: mean over the tokens of the step, wider upper clip",
    "Yu et al., DAPO, arXiv 2503.14476",
    settings={"how": "dapo", "clip_high": 0.28},
    cost="none",
)
