"""The drawn world: deterministic scenes of sixteen activities that know what is true of them."""

from favor_lab.activities.world.catalogue import (
    ACTIVITIES,
    HANDS,
    JOINTS,
    LEGS,
    PLANS,
    SETS,
    SPLITS,
    STATEMENTS,
    THINGS,
    USES,
)
from favor_lab.activities.world.scenes import IMAGE_SIZE, Scene, Truth, draw_scene, is_pocket_source, scene_from_source
from favor_lab.activities.world.sets import POCKET_POOLS, export_folder, load_pocket

__all__ = [
    "ACTIVITIES", "HANDS", "IMAGE_SIZE", "JOINTS", "LEGS", "PLANS", "POCKET_POOLS", "SETS", "SPLITS", "STATEMENTS",
    "THINGS", "USES", "Scene", "Truth", "draw_scene", "export_folder", "is_pocket_source", "load_pocket",
    "scene_from_source",
]  # fmt: skip
