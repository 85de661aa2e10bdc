"""From a plan to shapes: one person with what they use, placed in the picture, and things nearby.

Body units: feet at y = 0, top of the head at y = 1, y up. Picture units: 0..1, y down.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

import numpy as np

from favor_lab.activities.world import things
from favor_lab.activities.world.catalogue import IN_A_HAND, IS_NEARBY, LEGS, NEARBY, USES, Plan, hand_statements
from favor_lab.activities.world.figures import Body, person
from favor_lab.activities.world.poses import Joints, mid, pose_of, reach, skeleton
from favor_lab.activities.world.shapes import Shape, ellipse, line, rectangle, shade, stroke

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Figure:
    """A person with what they use, in body units; `parts` are the shapes of each thing."""

    shapes: list[Shape]
    joints: Joints
    parts: dict[str, list[Shape]]
    statements: list[str]


def compose(plan: Plan, r: Random, body: Body) -> Figure:
    """One person who follows a plan, the thing in use, and the statements that are true of both."""
    legs, hands, turn = r.choice(plan.legs), r.choice(plan.hands), r.uniform(*plan.turn)
    turn = max(turn, {"cycling": 0.8, "climbing": 0.8, "running": 0.8, "sitting": 0.6}.get(legs, 0.0))
    pose = pose_of(legs, turn, plan.nod, r)
    joints = skeleton(pose, *reach(hands, pose, r))
    behind, before = person(body, pose, joints)
    statements = [LEGS[legs], *hand_statements(hands)]
    parts: dict[str, list[Shape]] = {}
    back: list[Shape] = []
    front: list[Shape] = []
    support = {"cycling": "bike", "climbing": "rock wall"}.get(legs)
    for use in dict.fromkeys(use for use in (support, plan.use) if use):
        under, over = things.IN_USE[use](joints, r, turn)
        statements.append(USES[use])
        if use == "fishing rod":
            parts["water"] = things.water(r, joints["hand_near"][0])
            statements.append(IS_NEARBY["water"])
            back += parts["water"]
        parts[use] = [*under, *over]
        back, front = back + under, front + over
    if hands[0] == "down" and r.random() < 0.15:
        name = r.choice([name for name in things.IN_HAND if name != plan.use])
        parts[name] = things.IN_HAND[name](joints["hand_far"], r)
        front += parts[name]
        statements.append(IN_A_HAND[name])
    shapes = [*(seat(r) if legs == "sitting" else []), *back, *behind, *before, *front]
    if legs == "jumping":
        shapes.insert(0, ellipse((0.0, -0.01), 0.2, 0.03, (120, 116, 110), 0.25, outline=False))
    if hands == ("clap", "clap"):
        x, y = mid(joints["hand_far"], joints["hand_near"])
        for dx in (-0.05, 0.0, 0.05):  # three short lines over hands that meet
            shapes.append(line([(x + dx * 0.6, y + 0.055), (x + dx, y + 0.10)], 0.013, (60, 56, 60), 0.5))
    return Figure(shapes, joints, parts, statements)


def seat(r: Random) -> list[Shape]:
    """A box or a stool under somebody who sits."""
    colour = r.choice(((150, 104, 62), (110, 116, 128), (186, 92, 70), (90, 130, 150)))
    if r.random() < 0.5:
        return [rectangle((-0.02, 0.11), 0.26, 0.22, colour, 0.3)]
    legs = [stroke([(-0.02 + dx, 0.2), (-0.02 + dx * 1.2, 0.0)], 0.03, shade(colour, 0.8), 0.28) for dx in (-0.1, 0.1)]
    return [*legs, stroke([(-0.13, 0.215), (0.10, 0.215)], 0.045, colour, 0.33)]


@dataclass(frozen=True)
class Place:
    """Body units to picture units: scale, flip (-1 or 1), and the point of the picture where the feet stand."""

    x: float
    y: float
    scale: float
    flip: int

    def map(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) in body units -> (n, 2) in picture units."""
        return np.stack([self.x + self.flip * self.scale * points[:, 0], self.y - self.scale * points[:, 1]], 1)

    def shapes(self, shapes: list[Shape]) -> list[Shape]:
        return [shape.mapped(self.map, self.scale) for shape in shapes]


def bounds(shapes: list[Shape]) -> Box:
    """The box (x0, y0, x1, y1) around all points of some shapes."""
    points = np.concatenate([shape.points for shape in shapes])
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    return x0, y0, x1, y1


def settle(shapes: list[Shape], margin: float, r: Random) -> Place:
    """Scale and place a figure so that all of it lies inside the picture, the ground low in it."""
    x0, y0, x1, y1 = bounds(shapes)
    room = 1 - 2 * margin
    scale = min(r.uniform(0.60, 0.80), room / (x1 - x0), room / (y1 - min(y0, 0.0)))
    flip = r.choice((-1, 1))
    left, right = (x0, x1) if flip == 1 else (-x1, -x0)
    x = r.uniform(margin - left * scale, 1 - margin - right * scale)
    x = 0.6 * x + 0.4 * (0.5 - scale * (left + right) / 2)
    lowest, highest = 1 - margin + min(y0, 0.0) * scale, margin + y1 * scale
    return Place(x, max(highest, lowest - r.uniform(0.0, 0.08)), scale, flip)


def neighbours(main: Place, person: Box, used: Collection[str], horizon: float, r: Random) -> dict[str, list[Shape]]:
    """None, one or two things beside the person, further back, chosen independently of the activity.

    `person` is the box around the person, in picture units; things in `used` are not drawn a second time.
    """
    names = [name for name in NEARBY if name not in used]
    neighbour_shapes = {}
    sides = [("left", person[0]), ("right", 1 - person[2])]
    r.shuffle(sides)
    for name, (side, room) in zip(r.sample(names, r.choice((0, 1, 1, 2))), sides, strict=False):
        if room < 0.12:
            continue
        shapes = things.NEARBY[name](r)
        x0, _, x1, y1 = bounds(shapes)
        scale = main.scale * r.uniform(0.62, 0.86)
        scale = min(scale, (room + 0.10) / (x1 - x0) if name != "rock wall" else scale, 0.9 / y1)
        middle = room / 2 + r.uniform(-0.02, 0.02)
        flip = r.choice((-1, 1))
        x = (middle if side == "left" else 1 - middle) - flip * scale * (x0 + x1) / 2
        ground = min(main.y - 0.02, horizon + 0.6 * (main.y - horizon) * r.uniform(0.3, 1.0) + 0.02)
        neighbour_shapes[name] = Place(x, ground, scale, flip).shapes(shapes)
    return neighbour_shapes
