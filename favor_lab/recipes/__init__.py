"""Published variants of GRPO, one file each; `RECIPES` has them by name.

    for record in RECIPES["dr-grpo"].train(policy, shots, GRPOSettings()):
        ...

or `favor-lab train --recipe dr-grpo`. Each file ends in a `Recipe`: settings, coefficients, and steps of its own.
"""

from favor_lab.recipes.aepo import AEPO
from favor_lab.recipes.care import CARE
from favor_lab.recipes.cispo import CISPO
from favor_lab.recipes.critic import CRITIC
from favor_lab.recipes.curr_reft import CURR_REFT
from favor_lab.recipes.dapo import DAPO
from favor_lab.recipes.dr_grpo import DR_GRPO
from favor_lab.recipes.gspo import GSPO
from favor_lab.recipes.jigsaw import JIGSAW
from favor_lab.recipes.noisy_rollout import NOISY_ROLLOUT
from favor_lab.recipes.papo import PAPO
from favor_lab.recipes.pebr import PEBR
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.rewardmap import REWARDMAP
from favor_lab.recipes.vicrit import VICRIT
from favor_lab.recipes.visual_rft import VISUAL_RFT
from favor_lab.recipes.vppo import VPPO

GRPO = Recipe("", "plain GRPO", "Shao et al., DeepSeekMath, arXiv 2402.03300")
RECIPES = {
    recipe.name: recipe
    for recipe in (
        AEPO, CARE, CISPO, CRITIC, CURR_REFT, DAPO, DR_GRPO, GSPO, JIGSAW, NOISY_ROLLOUT, PAPO, PEBR, REWARDMAP, VICRIT,
        VISUAL_RFT, VPPO,
    )
}  # fmt: skip

__all__ = ["GRPO", "RECIPES", "Recipe", "find_recipe"]


def find_recipe(name: str) -> Recipe:
    """The recipe of this name; "" is plain GRPO. ValueError, with the names that exist, for another one.

    >>> find_recipe("dr-grpo").settings
    {'how': 'dr_grpo', 'scale': 'none'}
    """
    if name and name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name] if name else GRPO
