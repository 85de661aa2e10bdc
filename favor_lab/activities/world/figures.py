"""Shapes, and people as lists of shapes, in body units: feet at y = 0, top of the head at y = 1, facing +x.

Nothing here depends on the activity, the camera or the look: `composition` places these figures, `looks` paints them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from numpy.typing import ArrayLike

from favor_lab.activities.world.poses import HEAD_RADIUS, Point, Pose

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """A filled polygon (``width`` None) or a round-ended stroke along ``points`` (n, 2).

    ``heat`` in [0, 1] is what an infrared camera sees; ``outline`` False leaves the contour out.
    """

    points: np.ndarray
    colour: Colour
    heat: float
    width: float | None = None
    outline: bool = True

    def mapped(self, transform: Callable[[np.ndarray], np.ndarray], scale: float = 1.0) -> Shape:
        """The shape with its points (n, 2) transformed and its stroke width scaled."""
        width = None if self.width is None else self.width * scale
        return replace(self, points=transform(self.points), width=width)


def poly(points: ArrayLike, colour: Colour, heat: float = 0.3, outline: bool = True) -> Shape:
    """A filled polygon."""
    return Shape(np.asarray(points, dtype=float), colour, heat, None, outline)


def stroke(points: ArrayLike, width: float, colour: Colour, heat: float = 0.3, outline: bool = True) -> Shape:
    """A round-ended line of this width."""
    return Shape(np.asarray(points, dtype=float), colour, heat, width, outline)


def line(points: ArrayLike, width: float, colour: Colour, heat: float = 0.3) -> Shape:
    """A round-ended line without a contour."""
    return Shape(np.asarray(points, dtype=float), colour, heat, width, outline=False)


def ellipse(
    centre: Point, rx: float, ry: float, colour: Colour, heat: float = 0.3, outline: bool = True, n: int = 22
) -> Shape:
    """A filled ellipse, as a polygon of ``n`` corners."""
    t = np.linspace(0, 2 * math.pi, n, endpoint=False)
    return poly(np.stack([centre[0] + rx * np.cos(t), centre[1] + ry * np.sin(t)], 1), colour, heat, outline)


def rectangle(
    centre: Point,
    width: float,
    height: float,
    colour: Colour,
    heat: float = 0.3,
    angle: float = 0.0,
    outline: bool = True,
) -> Shape:
    """A filled rectangle around its centre, turned by ``angle`` radians."""
    corners = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    return poly(rotated(corners, centre, angle), colour, heat, outline)


def rotated(points: Sequence[Point], centre: Point, angle: float) -> list[Point]:
    """Points given relative to ``centre``, turned around it by ``angle`` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return [(centre[0] + c * x - s * y, centre[1] + s * x + c * y) for x, y in points]


# -------------------------------------------------------------------------------- people


@dataclass(frozen=True)
class Body:
    """What a person looks like: independent of what they do."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    girth: float  # 0.8 slim to 1.25 stout
    style: str  # hair: "short", "long", "bun", "cap", "bald"
    sleeves: float  # share of the arm that the shirt covers
    skirt: bool


SKINS = ((255, 219, 188), (241, 194, 155), (224, 172, 125), (198, 134, 92), (141, 85, 54), (92, 58, 40))
HAIRS = ((35, 28, 26), (84, 54, 34), (160, 104, 52), (222, 184, 98), (150, 150, 155), (170, 66, 40))
CLOTHES = (
    (214, 64, 69), (44, 110, 182), (60, 150, 92), (242, 178, 56), (126, 84, 166), (238, 238, 232), (58, 62, 74),
    (236, 128, 84), (70, 170, 176), (228, 128, 170), (120, 96, 76), (150, 190, 90), (30, 52, 96), (172, 176, 184),
)  # fmt: skip


def random_body(r: Random) -> Body:
    """A random body, independent of the activity."""
    shirt = r.choice(CLOTHES)
    return Body(
        skin=r.choice(SKINS),
        hair=r.choice(HAIRS),
        shirt=shirt,
        trousers=r.choice([c for c in CLOTHES if c != shirt]),
        shoes=r.choice(CLOTHES),
        girth=r.uniform(0.82, 1.2),
        style=r.choice(("short", "short", "long", "bun", "cap", "bald")),
        sleeves=r.choice((0.45, 0.92)),
        skirt=r.random() < 0.2,
    )


def arm(body: Body, j: dict[str, Point], side: str) -> list[Shape]:
    """Skin, sleeve and hand of one arm."""
    width = 0.058 * body.girth
    shoulder, elbow, hand = j[f"shoulder_{side}"], j[f"elbow_{side}"], j[f"hand_{side}"]
    cuff = along([shoulder, elbow, hand], body.sleeves)
    return [
        stroke([shoulder, elbow, hand], width * 0.86, body.skin, 0.93),
        stroke(cuff, width * 1.1, body.shirt, 0.72),
        ellipse(hand, 0.036, 0.036, body.skin, 0.95),
    ]


def along(points: list[Point], share: float) -> list[Point]:
    """The first ``share`` of a three-point line."""
    a, b, c = points
    if share <= 0.5:
        k = share * 2
        return [a, (a[0] + (b[0] - a[0]) * k, a[1] + (b[1] - a[1]) * k)]
    k = share * 2 - 1
    return [a, b, (b[0] + (c[0] - b[0]) * k, b[1] + (c[1] - b[1]) * k)]


def leg(body: Body, j: dict[str, Point], side: str, turn: float) -> list[Shape]:
    """Trouser leg (or a bare leg under a skirt) and shoe."""
    hip, knee, foot = j[f"hip_{side}"], j[f"knee_{side}"], j[f"foot_{side}"]
    width = 0.078 * body.girth
    toe = 0.05 * (0.4 + turn) if turn > 0.2 else (0.02 if side == "near" else -0.02)
    shade = body.trousers if side == "near" else shaded(body.trousers, 0.82)
    legs = (
        [stroke([hip, knee, foot], width * 0.85, body.skin, 0.9), stroke([hip, knee], width, shade, 0.7)]
        if body.skirt
        else [stroke([hip, knee, foot], width, shade, 0.7)]
    )
    return [
        *legs,
        stroke([(foot[0] - 0.012, foot[1] - 0.005), (foot[0] + toe, foot[1] - 0.008)], 0.055, body.shoes, 0.5),
    ]


def torso(body: Body, j: dict[str, Point]) -> list[Shape]:
    """Neck, shirt and, where worn, skirt."""
    g = 0.045 * body.girth
    left, right, neck = j["shoulder_far"], j["shoulder_near"], j["neck"]
    (lx, ly), (rx, ry) = j["hip_far"], j["hip_near"]
    shirt = [
        (left[0] - g * 0.7, left[1] + 0.01),
        (neck[0], neck[1] + 0.012),
        (right[0] + g * 0.7, right[1] + 0.01),
        (right[0] + g * 0.9, right[1] - 0.06),
        (rx + g * 1.1, ry - 0.02),
        (lx - g * 1.1, ly - 0.02),
        (left[0] - g * 0.9, left[1] - 0.06),
    ]
    skirt = [(lx - g, ly + 0.02), (rx + g, ry + 0.02), (rx + g * 2.3, ry - 0.17), (lx - g * 2.3, ly - 0.17)]
    return [
        stroke([neck, (j["head"][0], j["head"][1] - 0.05)], 0.055, body.skin, 0.95),
        *[poly(skirt, body.trousers, 0.62)] * body.skirt,
        poly(shirt, body.shirt, 0.75),
    ]


def head(body: Body, j: dict[str, Point], turn: float, nod: float) -> list[Shape]:
    """Head, hair or cap, and a face that looks where the body turns."""
    x, y = j["head"]
    r = HEAD_RADIUS
    shapes: list[Shape] = []
    if body.style == "long":
        shapes.append(ellipse((x - 0.03 * turn, y - 0.03), r * 1.08, r * 1.35, body.hair, 0.6))
    if body.style == "bun":
        shapes.append(ellipse((x - 0.05 * turn, y + r * 1.05), 0.042, 0.042, body.hair, 0.6))
    shapes.append(ellipse((x, y), r * 0.92, r, body.skin, 1.0))
    if body.style != "bald":
        t = np.linspace(math.radians(12 + 18 * turn), math.radians(172 + 28 * turn), 12)
        cap = [(x + r * 0.97 * math.cos(a), y + r * 1.04 * math.sin(a)) for a in t]
        cap.append((x - r * (0.2 + 0.35 * turn), y + r * (0.42 - 0.2 * turn)))
        shapes.append(poly(cap, body.shirt if body.style == "cap" else body.hair, 0.6))
        if body.style == "cap":
            peak = [(x + r * 0.3, y + r * 0.42), (x + r * (0.75 + 0.75 * turn), y + r * 0.36)]
            shapes.append(stroke(peak, 0.03, body.shirt, 0.55))
    dark = (40, 34, 34)
    dip = -0.03 * (nod > 0.2)
    eyes = [(x - 0.034, y + dip), (x + 0.034, y + dip)] if turn < 0.45 else [(x + r * 0.5, y + dip)]
    shapes += [ellipse(e, 0.0125, 0.016, dark, 0.9, outline=False) for e in eyes]
    mx = x + r * 0.62 * turn if turn >= 0.45 else x
    shapes.append(line([(mx - 0.022, y - 0.048 + dip), (mx + 0.018, y - 0.05 + dip)], 0.011, (150, 60, 60), 0.95))
    if turn >= 0.45:
        shapes.append(ellipse((x + r * 0.93, y - 0.012 + dip), 0.018, 0.016, body.skin, 0.9, outline=False))
    return shapes


def shaded(colour: Colour, k: float) -> Colour:
    """The colour, darker by the factor ``k``."""
    return (int(colour[0] * k), int(colour[1] * k), int(colour[2] * k))


def person(body: Body, pose: Pose, joints: dict[str, Point]) -> tuple[list[Shape], list[Shape]]:
    """Shapes of a person in two layers, so that held things can be drawn between them: the body, and the front arms."""
    back = arm(body, joints, "far") if pose.turn > 0.35 else []
    front = [] if pose.turn > 0.35 else arm(body, joints, "far")
    middle = leg(body, joints, "far", pose.turn) + leg(body, joints, "near", pose.turn) + torso(body, joints)
    middle += head(body, joints, pose.turn, pose.nod)
    return back + middle, front + arm(body, joints, "near")
