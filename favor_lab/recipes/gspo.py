"""GSPO: one ratio per sequence, four updates per rollout (with one no ratio differs from 1).

Source: Zheng et al., Group sequence policy optimization, arXiv 2507.18071; TRL 1.16 and verl were read.
Equation: s_i = exp(mean over the tokens of log r_it); loss = - mean over rows of min(s_i A_i, clip(s_i) A_i).
Published: clip from 1 - 3e-4 to 1 + 4e-4, no KL penalty, each rollout in four mini-batches.

Deviations:
1. clip stays at 0.2: that of the paper is for sequences of thousands of tokens. The mean of 30 log-ratios differs more
   from 0, and nearly every row would be clipped; clip=0.02 to 0.1 shows its effect here.
2. Four updates over the whole rollout, not one for each quarter of it.
3. beta stays as it is set; published: 0.
"""

from favor_lab.recipes.recipe import Recipe

GSPO = Recipe(
    "gspo",
    "GSPO: one ratio per sequence, four updates per rollout (with one no ratio differs from 1)",
    "Zheng et al., Group sequence policy optimization, arXiv 2507.18071",
    settings={"level": "sequence", "updates_per_rollout": 4},
    cost="four updates for each rollout",
)
