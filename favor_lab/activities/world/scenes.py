"""Drawn scenes of sixteen activities that know what is true of them.

The activities are named as in Stanford 40. Four sets share them and differ in look and camera; four more sets show four
further activities in the same looks. A scene is a deterministic function of its key `<set>/<split>/<index>`: splits
never overlap, and the result is the same on every machine (between versions of Pillow, the last digits of pixels of
sketch and cctv can differ; the truth cannot). Its *truth* has joints, boxes of things and every statement that holds.
The `pretrain` split also has free compositions that show no activity, so that a policy can learn to see without
learning the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

from favor_lab.activities.world.catalogue import DRAWN_SETS, IS_NEARBY, JOINTS, SETS, SPLITS, free_plan, plans_of
from favor_lab.activities.world.composition import Box, bounds, compose, neighbours, settle
from favor_lab.activities.world.empty import EMPTY_KINDS, draw_empty
from favor_lab.activities.world.figures import random_body
from favor_lab.activities.world.looks import LOOKS, corner_camera
from favor_lab.activities.world.poses import Point
from favor_lab.activities.world.shapes import Shape
from favor_lab.activities.world.surroundings import indoors, occluder, outdoors

IMAGE_SIZE = 140  # pixels per side: 100 patches of 14 x 14, 25 image tokens


@dataclass(frozen=True)
class Truth:
    """What is true of a scene. Points and boxes are in picture units (0..1, y down)."""

    statements: tuple[str, ...]  # every statement that holds, most telling first: legs, hands, thing in use, nearby
    joints: dict[str, Point]
    objects: dict[str, Box]  # thing -> x0, y0, x1, y1


@dataclass(frozen=True)
class Scene:
    """One drawn image with its label, its truth and its key."""

    image: Image.Image
    label: str | None  # None: no activity (a free composition of the pretrain split, or an image that shows nobody)
    truth: Truth
    source: str  # "<set>/<split>/<index>"


def draw_scene(set_name: str, split: str, index: int, size: int = IMAGE_SIZE) -> Scene:
    """Draw scene `index` (0 or more) of a split (one of `SPLITS`) of a set (of `SETS` or `NEW_SETS`), `size` pixels per
    side.

    The same scene can be drawn at any size. The labels take turns: `ACTIVITIES[index % 16]`. In "pretrain" every second
    scene is a free composition with label None. For the split, a kind of `EMPTY_KINDS` gives an image that shows
    nobody: an empty "place", "noise", meaningless "shapes". `NEW_SETS` have neither. Raises ValueError for an unknown
    set or split and a negative index.

    >>> scene = draw_scene("cartoon", "test", 6)
    >>> scene.label, scene.image.size, "phone at the ear" in scene.truth.statements
    ('phoning', (140, 140), True)
    """
    plans = plans_of(set_name)
    splits = (*SPLITS, *EMPTY_KINDS) if set_name in SETS else SPLITS[1:]
    if split not in splits:
        raise ValueError(f"unknown split {split!r} of {set_name}; the splits are {', '.join(splits)}")
    if index < 0:
        raise ValueError(f"scene index {index} of {set_name}/{split}: must be 0 or more")
    source = f"{set_name}/{split}/{index:06d}"
    if split in EMPTY_KINDS:
        image, statements, boxes = draw_empty(set_name, split, index, size)
        return Scene(image, None, Truth(statements, {}, boxes), source)
    r = Random(f"favor_lab pocket 1: {source}")
    free = split == "pretrain" and index % 2 == 1
    label = None if free else list(plans)[(index // 2 if split == "pretrain" else index) % len(plans)]
    look = set_name.removesuffix("-new")
    figure = compose(plans[label] if label else free_plan(r), r, random_body(r))
    place = settle(figure.shapes, 0.11 if look == "cctv" else 0.05, r)
    horizon = place.y - r.uniform(0.06, 0.22)
    front = place.shapes(figure.shapes)
    near = neighbours(place, bounds(front), figure.parts, horizon, r)
    back = indoors(r, horizon) if r.random() < 0.45 else outdoors(r, horizon)
    foreground = occluder(r) if r.random() < 0.18 else []
    beside = [shape for shapes in near.values() for shape in shapes]
    view = corner_camera(r) if look == "cctv" else lambda points: points
    image = LOOKS[look](through(view, back), through(view, [*beside, *front]) + foreground, size, r)
    joints = {name: tuple(view(place.map(np.array([figure.joints[name]])))[0].tolist()) for name in JOINTS}
    parts = {name: place.shapes(shapes) for name, shapes in figure.parts.items()} | near
    objects = {name: bounds(through(view, shapes)) for name, shapes in parts.items()}
    statements = tuple(dict.fromkeys([*figure.statements, *[IS_NEARBY[name] for name in near]]))
    return Scene(image, label, Truth(statements, joints, objects), source)


def through(view: Callable[[np.ndarray], np.ndarray], shapes: list[Shape]) -> list[Shape]:
    """The shapes as a camera sees them."""
    return [shape.mapped(view) for shape in shapes]


def scene_from_source(source: str, size: int = IMAGE_SIZE) -> Scene:
    """Draw the scene that a source key names, or copy it: the last 2048 are cached, since a study needs them again.
    ValueError for anything else, such as the name of an image file.

    >>> scene_from_source("sketch/validation/000003").label
    'fishing'
    >>> scene_from_source("me.jpg")
    Traceback (most recent call last):
    ...
    ValueError: 'me.jpg' names no drawn scene: the key of one is <set>/<split>/<index>, such as cartoon/test/000006
    """
    if not isinstance(source, str) or not re.fullmatch(r"[^/]+/[^/]+/-?[0-9]+", source):
        known = "the key of one is <set>/<split>/<index>, such as cartoon/test/000006"
        raise ValueError(f"{source!r} names no drawn scene: {known}")
    scene = _cached_scene(source, size)
    return replace(scene, image=scene.image.copy())


@lru_cache(maxsize=2048)  # 120 MB of images at most
def _cached_scene(source: str, size: int) -> Scene:
    set_name, split, index = source.split("/")
    return draw_scene(set_name, split, int(index), size)


def is_pocket_source(source: str) -> bool:
    """Whether `source` is the key of a drawn scene, so that its truth is known."""
    parts = source.split("/")
    return len(parts) == 3 and parts[0] in DRAWN_SETS and parts[1] in (*SPLITS, *EMPTY_KINDS) and parts[2].isdigit()
