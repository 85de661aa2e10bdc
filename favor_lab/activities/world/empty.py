"""Images that show nobody: empty places, noise, meaningless shapes. A policy should decline to name an activity.

As a scene, each is a deterministic function of its key `<set>/<kind>/<index>`, with a kind for the split.
"""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

from favor_lab.activities.world.catalogue import IS_NEARBY, NOBODY
from favor_lab.activities.world.composition import Box, Place, bounds, neighbours
from favor_lab.activities.world.looks import LOOKS, corner_camera, grain, to_image
from favor_lab.activities.world.shapes import Shape, ellipse, poly, stroke
from favor_lab.activities.world.surroundings import indoors, occluder, outdoors

EMPTY_KINDS = ("place", "noise", "shapes")


def draw_empty(look: str, kind: str, index: int, size: int) -> tuple[Image.Image, tuple[str, ...], dict[str, Box]]:
    """Image `index` of a kind, the statements that are true of it, and the boxes of its things."""
    r = Random(f"favor_lab empty 1: {look}/{kind}/{index:06d}")
    if kind == "noise":
        return noise(r, size), (NOBODY,), {}
    if kind == "shapes":
        return LOOKS[look](blobs(r, 0.35), blobs(r, 0.2), size, r), (NOBODY,), {}
    view = corner_camera(r) if look == "cctv" else lambda points: points
    place = Place(0.5, r.uniform(0.8, 0.95), r.uniform(0.6, 0.8), 1)
    horizon = place.y - r.uniform(0.06, 0.22)
    back = indoors(r, horizon) if r.random() < 0.45 else outdoors(r, horizon)
    middle = r.uniform(0.4, 0.6)
    near = neighbours(place, (middle - 0.1, 0.0, middle + 0.1, 1.0), ("second person",), horizon, r)
    front = [shape.mapped(view) for shapes in near.values() for shape in shapes]
    front += occluder(r) if r.random() < 0.18 else []
    image = LOOKS[look]([shape.mapped(view) for shape in back], front, size, r)
    boxes = {name: bounds([shape.mapped(view) for shape in shapes]) for name, shapes in near.items()}
    return image, (NOBODY, *[IS_NEARBY[name] for name in near]), boxes


def noise(r: Random, size: int) -> Image.Image:
    """Random pixels, random colours that change over the picture, or both: coarse to fine, grey or coloured."""
    random = np.random.default_rng(r.getrandbits(64))
    pixels = np.array([[r.uniform(0, 255) for _ in range(3)]]) + np.zeros((size, size, 3))
    channels = r.choice((1, 3))
    for cells in r.sample((2, 4, 8, 16, 35, 70), r.choice((0, 1, 2, 3))):
        layer = np.stack([grain(random, size, cells) for _ in range(channels)], 2)
        pixels = pixels + r.uniform(20, 120) * layer
    if r.random() < 0.7:
        pixels = pixels + random.normal(0, r.uniform(10, 120), (size, size, channels))
    if r.random() < 0.2:
        pixels = random.uniform(0, 255, (size, size, channels)) + np.zeros((size, size, 3))
    return to_image(pixels)


def blobs(r: Random, largest: float) -> list[Shape]:
    """Overlapping shapes of random colours and of all sizes, many small and few large, as in natural images."""
    shapes = []
    for _ in range(r.randint(8, 60)):
        width = max(0.02, largest * r.random() ** 2)
        centre = (r.random(), r.random())
        colour, heat = (r.randrange(256), r.randrange(256), r.randrange(256)), r.random()
        kind = r.randrange(3)
        if kind == 0:
            shapes.append(ellipse(centre, width, width * r.uniform(0.3, 1), colour, heat, r.random() < 0.5))
            continue
        points = [(centre[0] + r.uniform(-1, 1) * width, centre[1] + r.uniform(-1, 1) * width) for _ in range(4)]
        outline = r.random() < 0.5
        shapes.append(
            poly(points, colour, heat, outline) if kind == 1 else stroke(points, width / 5, colour, heat, outline)
        )
    return shapes
