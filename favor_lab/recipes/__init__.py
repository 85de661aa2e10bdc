"""Published variants of GRPO, one file each; `RECIPES` has them by name.

    for record in RECIPES["dr-grpo"].train(policy, shots, GRPOSettings()):
        ...

or `favor-lab train --recipe dr-grpo`. Each file ends in a `Recipe`: settings, coefficients, and steps of its own.
"""

from favor_lab.recipes.affordance_r1 import AFFORDANCE_R1
from favor_lab.recipes.care import CARE
from favor_lab.recipes.cispo import CISPO
from favor_lab.recipes.dapo import DAPO
from favor_lab.recipes.dip_r1 import DIP_R1
from favor_lab.recipes.dr_grpo import DR_GRPO
from favor_lab.recipes.gspo import GSPO
from favor_lab.recipes.gtr import GTR
from favor_lab.recipes.judges import CARE_SLOW, LISTENER, VISION_SR1
from favor_lab.recipes.noisy_rollout import NOISY_ROLLOUT
from favor_lab.recipes.papo import PAPO
from favor_lab.recipes.perception_r1 import PERCEPTION_R1
from favor_lab.recipes.recipe import Recipe
from favor_lab.recipes.refine_rft import REFINE_RFT
from favor_lab.recipes.shop_r1 import SHOP_R1
from favor_lab.recipes.star_r1 import STAR_R1
from favor_lab.recipes.ttrv import TTRV
from favor_lab.recipes.vision_r1 import VISION_R1
from favor_lab.recipes.visual_rft import VISUAL_RFT
from favor_lab.recipes.vlm_r1 import VLM_R1
from favor_lab.recipes.vppo import VPPO

GRPO = Recipe("", "plain GRPO", "Shao et al., DeepSeekMath, arXiv 2402.03300")
RECIPES = {
    recipe.name: recipe
    for recipe in (
        AFFORDANCE_R1, CARE, CARE_SLOW, CISPO, DAPO, DIP_R1, DR_GRPO, GSPO, GTR, LISTENER, NOISY_ROLLOUT, PAPO,
        PERCEPTION_R1, REFINE_RFT, SHOP_R1, STAR_R1, TTRV, VISION_R1, VISION_SR1, VISUAL_RFT, VLM_R1, VPPO,
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
