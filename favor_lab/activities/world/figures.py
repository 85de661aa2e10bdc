"""People as lists of shapes, in body units: feet at y = 0, top of the head at y = 1, facing +x.

Nothing here depends on the activity, the camera or the look: `composition` places these figures, `looks` paints them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from favor_lab.activities.world.poses import HEAD_RADIUS, Joints, Point, Pose, mid, move, pose_of, reach, skeleton
from favor_lab.activities.world.shapes import Colour, Shape, arc, ellipse, line, poly, shade, stroke


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


def arm(body: Body, j: Joints, side: str) -> list[Shape]:
    """Skin, sleeve and hand of one arm."""
    width = 0.058 * body.girth
    shoulder, elbow, hand = j[f"shoulder_{side}"], j[f"elbow_{side}"], j[f"hand_{side}"]
    halves = body.sleeves * 2  # how many halves of the arm the sleeve covers
    short = halves <= 1
    cuff = [shoulder, mid(shoulder, elbow, halves)] if short else [shoulder, elbow, mid(elbow, hand, halves - 1)]
    return [
        stroke([shoulder, elbow, hand], width * 0.86, body.skin, 0.93),
        stroke(cuff, width * 1.1, body.shirt, 0.72),
        ellipse(hand, 0.036, 0.036, body.skin, 0.95),
    ]


def leg(body: Body, j: Joints, side: str, turn: float) -> list[Shape]:
    """Trouser leg (or a bare leg under a skirt) and shoe."""
    hip, knee, foot = j[f"hip_{side}"], j[f"knee_{side}"], j[f"foot_{side}"]
    width = 0.078 * body.girth
    toe = 0.05 * (0.4 + turn) if turn > 0.2 else (0.02 if side == "near" else -0.02)
    trousers = body.trousers if side == "near" else shade(body.trousers, 0.82)
    limb, upper = [hip, knee, foot], [hip, knee]
    bare = [stroke(limb, width * 0.85, body.skin, 0.9), stroke(upper, width, trousers, 0.7)]
    shoe = stroke([move(foot, -0.012, -0.005), move(foot, toe, -0.008)], 0.055, body.shoes, 0.5)
    return [*(bare if body.skirt else [stroke(limb, width, trousers, 0.7)]), shoe]


def torso(body: Body, j: Joints) -> list[Shape]:
    """Neck, shirt and, where worn, skirt."""
    unit = 0.045 * body.girth
    left, right, neck, far, near = (
        j[name] for name in ("shoulder_far", "shoulder_near", "neck", "hip_far", "hip_near")
    )
    shirt = (
        (left, -0.7, 0.01), (neck, 0, 0.012), (right, 0.7, 0.01), (right, 0.9, -0.06),
        (near, 1.1, -0.02), (far, -1.1, -0.02), (left, -0.9, -0.06),
    )  # fmt: skip
    skirt = ((far, -1, 0.02), (near, 1, 0.02), (near, 2.3, -0.17), (far, -2.3, -0.17))

    def cloth(corners: Sequence[tuple[Point, float, float]], colour: Colour, heat: float) -> Shape:
        return poly([move(joint, unit * dx, dy) for joint, dx, dy in corners], colour, heat)

    return [
        stroke([neck, move(j["head"], 0, -0.05)], 0.055, body.skin, 0.95),
        *[cloth(skirt, body.trousers, 0.62)] * body.skirt,
        cloth(shirt, body.shirt, 0.75),
    ]


def head(body: Body, j: Joints, turn: float, nod: float) -> list[Shape]:
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
        start, stop = math.radians(12 + 18 * turn), math.radians(172 + 28 * turn)
        cap = arc((x, y), r * 0.97, r * 1.04, start, stop, 12)
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


def person(body: Body, pose: Pose, joints: Joints) -> tuple[list[Shape], list[Shape]]:
    """Shapes of a person in two layers, so that held things can be drawn between them: the body, and the front arms."""
    far = arm(body, joints, "far")
    back, front = (far, []) if pose.turn > 0.35 else ([], far)
    middle = leg(body, joints, "far", pose.turn) + leg(body, joints, "near", pose.turn) + torso(body, joints)
    middle += head(body, joints, pose.turn, pose.nod)
    return back + middle, front + arm(body, joints, "near")


def bystander(r: Random) -> list[Shape]:
    """A second person who stands idle."""
    pose = pose_of("standing", r.uniform(0.0, 1.0), 0.0, r)
    joints = skeleton(pose, *reach(("down", "down"), pose, r))
    behind, before = person(random_body(r), pose, joints)
    return behind + before
