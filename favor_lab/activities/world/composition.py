"""From a plan to shapes: one person with what they use, placed in the picture, and things nearby.

Body units: feet at y = 0, top of the head at y = 1, y up. Picture units: 0..1, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np

from favor_lab.activities.world import things
from favor_lab.activities.world.catalogue import IN_A_HAND, IS_NEARBY, LEGS, NEARBY, USES, Plan, hand_statements
from favor_lab.activities.world.figures import (
    Body,
    Shape,
    ellipse,
    line,
    person,
    random_body,
    rectangle,
    shaded,
    stroke,
)
from favor_lab.activities.world.poses import Point, Pose, pose_of, reach, skeleton

Box = tuple[float, float, float, float]  # x0, y0, x1, y1

# The thing in use: (joints, generator, turn of the body) -> shapes behind the person, shapes before.
USE: dict[str, Callable[[dict[str, Point], Random, float], things.Layers]] = {
    "phone": things.use_phone,
    "cup": things.use_cup,
    "book": things.use_book,
    "camera": things.use_camera,
    "umbrella": things.use_umbrella,
    "bow": things.use_bow,
    "fishing rod": things.use_rod,
    "cart": lambda j, r, t: ([], things.cart(j["hand_near"][0] - 0.02, r)),
    "bike": lambda j, r, t: (things.bike(0.0, r), []),
    "board": lambda j, r, t: (things.board(j["hand_near"][0] - 0.06, r), []),
    "rock wall": lambda j, r, t: (things.wall(j["hand_near"][0] - 0.08, r), []),
    "dog": lambda j, r, t: (things.dog(0.62, r), things.leash(j, 0.62)),
}


@dataclass
class Figure:
    """A person with what they use, in body units; `parts` are the shapes of each thing."""

    shapes: list[Shape] = field(default_factory=list)
    joints: dict[str, Point] = field(default_factory=dict)
    parts: dict[str, list[Shape]] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)


def compose(plan: Plan, r: Random, body: Body) -> Figure:
    """One person who follows a plan, the thing in use, and the statements that are true of both."""
    legs, hands, turn = r.choice(plan.legs), r.choice(plan.hands), r.uniform(*plan.turn)
    turn = max(turn, {"cycling": 0.8, "climbing": 0.8, "running": 0.8, "sitting": 0.6}.get(legs, 0.0))
    pose = pose_of(legs, turn, plan.nod, r)
    joints = skeleton(pose, *reach(hands, pose, r))
    figure = Figure(joints=joints, statements=[LEGS[legs], *hand_statements(hands)])
    behind, before = person(body, pose, joints)
    back: list[Shape] = []
    front: list[Shape] = []
    support = {"cycling": "bike", "climbing": "rock wall"}.get(legs)
    for use in dict.fromkeys(use for use in (support, plan.use) if use):
        under, over = USE[use](joints, r, turn)
        figure.statements.append(USES[use])
        if use == "fishing rod":
            figure.parts["water"] = things.water(joints["hand_near"][0], r)
            figure.statements.append(IS_NEARBY["water"])
            back = back + figure.parts["water"]
        figure.parts[use] = [*under, *over]
        back, front = back + under, front + over
    if hands[0] == "down" and r.random() < 0.15:
        name = r.choice([name for name in things.SMALL if name != plan.use])
        figure.parts[name] = things.SMALL[name](joints["hand_far"], r)
        front = front + figure.parts[name]
        figure.statements.append(IN_A_HAND[name])
    figure.shapes = [*seat(legs, pose, r), *back, *behind, *before, *front]
    if legs == "jumping":
        figure.shapes.insert(0, ellipse((0.0, -0.01), 0.2, 0.03, (120, 116, 110), 0.25, outline=False))
    if hands == ("clap", "clap"):
        figure.shapes += clap_marks(joints)
    return figure


def clap_marks(joints: dict[str, Point]) -> list[Shape]:
    """Three short lines over hands that meet."""
    x, y = things.mid(joints["hand_far"], joints["hand_near"])
    spread = (-0.05, 0.0, 0.05)
    return [line([(x + dx * 0.6, y + 0.055), (x + dx, y + 0.10)], 0.013, (60, 56, 60), 0.5) for dx in spread]


def seat(legs: str, pose: Pose, r: Random) -> list[Shape]:
    """A box or a stool under somebody who sits; nothing under anybody else."""
    if legs != "sitting":
        return []
    colour = r.choice(((150, 104, 62), (110, 116, 128), (186, 92, 70), (90, 130, 150)))
    if r.random() < 0.5:
        return [rectangle((-0.02, 0.11), 0.26, 0.22, colour, 0.3)]
    legs_of_stool = [
        stroke([(-0.02 + dx, 0.2), (-0.02 + dx * 1.2, 0.0)], 0.03, shaded(colour, 0.8), 0.28) for dx in (-0.1, 0.1)
    ]
    return [*legs_of_stool, stroke([(-0.13, 0.215), (0.10, 0.215)], 0.045, colour, 0.33)]


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


def neighbours(
    main: Place, taken: tuple[float, float], used: set[str], horizon: float, r: Random
) -> list[tuple[str, list[Shape]]]:
    """None, one or two things beside the person, further back, chosen independently of the activity.

    `taken` is the person's horizontal extent in picture units; things in `used` are not drawn a second time.
    """
    names = [name for name in NEARBY if name not in used]
    placed: list[tuple[str, list[Shape]]] = []
    sides = [("left", taken[0]), ("right", 1 - taken[1])]
    r.shuffle(sides)
    for name, (side, room) in zip(r.sample(names, r.choice((0, 1, 1, 2))), sides, strict=False):
        if room < 0.12:
            continue
        shapes = NEARBY_SHAPES[name](r)
        x0, _, x1, y1 = bounds(shapes)
        scale = main.scale * r.uniform(0.62, 0.86)
        scale = min(scale, (room + 0.10) / (x1 - x0) if name != "rock wall" else scale, 0.9 / y1)
        middle = room / 2 + r.uniform(-0.02, 0.02)
        flip = r.choice((-1, 1))
        x = (middle if side == "left" else 1 - middle) - flip * scale * (x0 + x1) / 2
        ground = min(main.y - 0.02, horizon + 0.6 * (main.y - horizon) * r.uniform(0.3, 1.0) + 0.02)
        placed.append((name, Place(x, ground, scale, flip).shapes(shapes)))
    return placed


def bystander(r: Random) -> list[Shape]:
    """The shapes of a second person who stands idle."""
    pose = pose_of("standing", r.uniform(0.0, 1.0), 0.0, r)
    joints = skeleton(pose, *reach(("down", "down"), pose, r))
    behind, before = person(random_body(r), pose, joints)
    return behind + before


NEARBY_SHAPES: dict[str, Callable[[Random], list[Shape]]] = {
    "bike": lambda r: things.bike(0.0, r),
    "cart": lambda r: things.cart(0.0, r),
    "dog": lambda r: things.dog(0.0, r),
    "board": lambda r: things.board(0.0, r),
    "rock wall": lambda r: things.wall(0.0, r),
    "tree": lambda r: things.tree(0.0, r),
    "bench": lambda r: things.bench(0.0, r),
    "lamp": lambda r: things.lamp(0.0, r),
    "ball": lambda r: things.ball(0.0, r),
    "water": lambda r: things.water(-0.33, r),
    "second person": bystander,
}
