"""The drawn world: deterministic scenes of sixteen activities that know what is true of them."""

from favor_lab.activities.world.catalogue import (
    ACTIVITIES,
    DRAWN_SETS,
    HANDS,
    JOINTS,
    LEGS,
    NAMES,
    NEW_ACTIVITIES,
    NEW_PLANS,
    NEW_SETS,
    NOBODY,
    NONE_OF_THESE,
    NOTHING,
    PLANS,
    SETS,
    SPLITS,
    STATEMENTS,
    THINGS,
    USES,
)
from favor_lab.activities.world.empty import EMPTY_KINDS
from favor_lab.activities.world.scenes import IMAGE_SIZE, Scene, Truth, draw_scene, is_pocket_source, scene_from_source
from favor_lab.activities.world.sets import POCKET_POOLS, export_folder, load_pocket

__all__ = [
    "ACTIVITIES", "DRAWN_SETS", "EMPTY_KINDS", "HANDS", "IMAGE_SIZE", "JOINTS", "LEGS", "NAMES", "NEW_ACTIVITIES",
    "NEW_PLANS", "NEW_SETS", "NOBODY", "NONE_OF_THESE", "NOTHING", "PLANS", "POCKET_POOLS", "SETS", "SPLITS",
    "STATEMENTS", "THINGS", "USES", "Scene", "Truth", "draw_scene", "export_folder", "is_pocket_source", "load_pocket",
    "scene_from_source",
]  # fmt: skip
