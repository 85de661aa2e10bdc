"""Published variants of GRPO, one file each; `RECIPES` has them by name.

    for record in RECIPES["dr-grpo"].train(policy, shots, GRPOSettings()):
        ...

or `favor-lab train --recipe dr-grpo`. Each file ends in a `Recipe`: settings, coefficients, and steps of its own.
Recipes that fill different slots combine: `find_recipe("papo+noisy-rollout")`.
"""

import sys

from favor_lab.arguments import ArgumentError
from favor_lab.recipes.aepo import AEPO
from favor_lab.recipes.affordance_r1 import AFFORDANCE_R1
from favor_lab.recipes.amft import AMFT
from favor_lab.recipes.arpo import ARPO
from favor_lab.recipes.care import CARE
from favor_lab.recipes.care_slow import CARE_SLOW
from favor_lab.recipes.cispo import CISPO
from favor_lab.recipes.clip_higher import CLIP_HIGHER
from favor_lab.recipes.credit import CREDIT
from favor_lab.recipes.critic import CRITIC
from favor_lab.recipes.curr_reft import CURR_REFT
from favor_lab.recipes.dapo import DAPO
from favor_lab.recipes.dapo_dynamic import DAPO_DYNAMIC
from favor_lab.recipes.dip_r1 import DIP_R1
from favor_lab.recipes.dr_grpo import DR_GRPO
from favor_lab.recipes.dupl import DUPL
from favor_lab.recipes.gspo import GSPO
from favor_lab.recipes.gtr import GTR
from favor_lab.recipes.jigsaw import JIGSAW
from favor_lab.recipes.listener import LISTENER
from favor_lab.recipes.noisy_rollout import NOISY_ROLLOUT
from favor_lab.recipes.papo import PAPO
from favor_lab.recipes.pebr import PEBR
from favor_lab.recipes.perception_r1 import PERCEPTION_R1
from favor_lab.recipes.recipe import Recipe, combine
from favor_lab.recipes.refine_rft import REFINE_RFT
from favor_lab.recipes.rewardmap import REWARDMAP
from favor_lab.recipes.rloo import RLOO
from favor_lab.recipes.shop_r1 import SHOP_R1
from favor_lab.recipes.star_r1 import STAR_R1
from favor_lab.recipes.tempsamp import TEMPSAMP
from favor_lab.recipes.ttrv import TTRV
from favor_lab.recipes.verl import VERL
from favor_lab.recipes.vicrit import VICRIT
from favor_lab.recipes.vision_r1 import VISION_R1
from favor_lab.recipes.vision_sr1 import VISION_SR1
from favor_lab.recipes.visual_rft import VISUAL_RFT
from favor_lab.recipes.visurf import VISURF
from favor_lab.recipes.vlm_r1 import VLM_R1
from favor_lab.recipes.vppo import VPPO

GRPO = Recipe("", "plain GRPO", "Shao et al., DeepSeekMath, arXiv 2402.03300")
RECIPES = {
    recipe.name: recipe
    for recipe in (
        AEPO, AFFORDANCE_R1, AMFT, ARPO, CARE, CARE_SLOW, CISPO, CLIP_HIGHER, CREDIT, CRITIC, CURR_REFT, DAPO,
        DAPO_DYNAMIC, DIP_R1, DR_GRPO, DUPL, GSPO, GTR, JIGSAW, LISTENER, NOISY_ROLLOUT, PAPO, PEBR, PERCEPTION_R1,
        REFINE_RFT, REWARDMAP, RLOO, SHOP_R1, STAR_R1, TEMPSAMP, TTRV, VERL, VICRIT, VISION_R1, VISION_SR1, VISUAL_RFT,
        VISURF, VLM_R1, VPPO,
    )
}  # fmt: skip

__all__ = ["GRPO", "RECIPES", "Recipe", "combine", "find_recipe", "header"]


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or those whose names a + joins, combined; "" is plain GRPO. ValueError, with the names
    that exist, for another one, and for recipes that cannot be combined.

    >>> find_recipe("dr-grpo").settings
    {'how': 'dr_grpo', 'scale': 'none'}
    >>> sorted(find_recipe("clip-higher+papo").steps), find_recipe("clip-higher+papo").settings["clip_high"]
    (['loss'], 0.28)
    """
    names = name.split("+") if name else []
    for part in names:
        if part not in RECIPES:
            raise ArgumentError("recipe", f"unknown recipe {part!r}; the recipes are {', '.join(RECIPES)}")
    recipes = [RECIPES[part] for part in names]
    return combine(*recipes) if len(recipes) > 1 else recipes[0] if recipes else GRPO


def header(recipe: Recipe) -> str:
    """The docstring of a recipe's file: what it does, its source, its equation, and where it deviates.

    >>> header(RECIPES["dr-grpo"]).splitlines()[0]
    'Dr. GRPO: a constant length in the loss, advantages not divided by a std.'
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{__name__}.") and any(value is recipe for value in vars(module).values()):
            return (module.__doc__ or recipe.about).strip()
    return recipe.about
