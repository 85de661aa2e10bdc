"""The things that people hold, ride, push and stand beside, in body units: see the three tables at the end.

The functions take a point `at`, or the place `x` on the ground where a thing begins, and a seeded generator. Things
in use come in two layers: shapes behind the person and shapes in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np

from favor_lab.activities.world.figures import CLOTHES, bystander
from favor_lab.activities.world.poses import Joints, Point, mid, move
from favor_lab.activities.world.shapes import Shape, arc, ellipse, line, poly, rectangle, rotate, shade, stroke

Layers = tuple[list[Shape], list[Shape]]
DARK = (46, 46, 54)
WOOD = (150, 104, 62)
STEEL = (150, 156, 166)

# -------------------------------------------------------------------------------- held in a hand


def phone(at: Point, r: Random, angle: float = 1.35) -> list[Shape]:
    """A phone with a lit screen."""
    case = r.choice(((40, 40, 48), (230, 230, 236), (200, 60, 70), (60, 90, 170)))
    screen = rectangle(at, 0.10, 0.045, (150, 210, 240), 0.55, angle, outline=False)
    return [rectangle(at, 0.145, 0.07, case, 0.42, angle), screen]


def cup(at: Point, r: Random, tilt: float = 0.0) -> list[Shape]:
    """A cup with a band around it."""
    colour = r.choice(((236, 236, 236), (210, 70, 60), (70, 120, 200), (240, 190, 70)))
    corners = [(-0.045, 0.065), (0.045, 0.065), (0.034, -0.06), (-0.034, -0.06)]
    band = rotate([(-0.038, 0.01), (0.038, 0.01)], at, tilt)
    return [poly(rotate(corners, at, tilt), colour, 0.88), line(band, 0.022, shade(colour, 0.7), 0.8)]


def open_book(at: Point, r: Random, turn: float) -> list[Shape]:
    """An open book: cover and two pages."""
    cover = r.choice(((170, 50, 50), (40, 80, 150), (50, 120, 80), (120, 70, 130)))
    x, y = at
    w, h = 0.13 * (1 - 0.35 * turn), 0.075
    top = [(x - w, y + h), (x, y + h * 0.45), (x + w, y + h)]
    bottom = [(x + w, y - h * 0.9), (x, y - h * 1.35), (x - w, y - h * 0.9)]
    left, right = (
        [(x + k * w * 0.9, y + h * 1.15), (x, y + h * 0.6), (x, y - h * 1.05), (x + k * w * 0.9, y - h * 0.6)]
        for k in (-1, 1)
    )
    return [poly(top + bottom, cover, 0.25), poly(left, (250, 248, 238), 0.35), poly(right, (244, 240, 226), 0.35)]


def camera(at: Point, r: Random) -> list[Shape]:
    """A camera seen from the front."""
    body = r.choice(((44, 44, 50), (92, 92, 100), (120, 70, 50)))
    lens = move(at, 0.01, -0.003)
    return [
        rectangle(move(at, 0.0, 0.055), 0.06, 0.035, body, 0.4),
        rectangle(at, 0.17, 0.10, body, 0.4),
        ellipse(lens, 0.042, 0.042, (190, 200, 210), 0.5),
        ellipse(lens, 0.024, 0.024, (30, 40, 70), 0.3, outline=False),
    ]


def closed_umbrella(at: Point, r: Random) -> list[Shape]:
    """A closed umbrella, hanging down."""
    cloth = [move(at, dx, dy) for dx, dy in ((-0.025, -0.05), (0.045, -0.05), (0.04, -0.36))]
    stick = stroke([move(at, 0.0, 0.06), move(at, 0.04, -0.40)], 0.016, DARK, 0.3)
    return [stick, poly(cloth, r.choice(CLOTHES), 0.35)]


# -------------------------------------------------------------------------------- in use


def open_umbrella(j: Joints, r: Random) -> Layers:
    """An open umbrella over the head, its shaft in the near hand."""
    colour = r.choice(CLOTHES)
    grip = j["hand_near"]
    x, y = mid(j["head"], grip, 0.6)[0], j["head"][1] + 0.19
    wide = 0.33
    dome = arc((x, y), wide, 0.21, 0, math.pi, 16)
    rim = [(x - wide + wide * 2 * k / 8, y + (0.028 if k % 2 else 0.0)) for k in range(1, 8)]
    ribs = [line([(x, y + 0.21), (x + wide * k, y + 0.02)], 0.012, shade(colour, 0.68)) for k in (-0.5, 0.0, 0.5)]
    shaft = stroke([move(grip, -0.005, -0.07), (x, y + 0.24)], 0.018, DARK, 0.25)
    return [shaft], [poly(dome + rim, colour, 0.22), *ribs]


def drawn_bow(j: Joints, r: Random) -> list[Shape]:
    """A drawn bow: the far hand grips, the near hand pulls."""
    grip, pull = j["hand_far"], j["hand_near"]
    angle = math.atan2(grip[1] - pull[1], grip[0] - pull[0])  # of the arrow

    def point(origin: Point, forward: float, sideways: float) -> Point:
        return rotate([(forward, sideways)], origin, angle)[0]

    limb = [point(grip, 0.03 - 0.13 * k * k, 0.30 * k) for k in np.linspace(-1, 1, 11)]
    tip = point(grip, 0.12, 0.0)
    return [
        stroke(limb, 0.026, r.choice((WOOD, (120, 60, 40), (60, 70, 90))), 0.3),
        line([limb[0], pull, limb[-1]], 0.008, DARK),
        line([pull, tip], 0.014, DARK),
        poly([tip, point(tip, -0.05, 0.022), point(tip, -0.05, -0.022)], (190, 60, 50), 0.3),
    ]


def fishing_rod(j: Joints, r: Random) -> list[Shape]:
    """A fishing rod in both hands, its line down to the float."""
    a, b = j["hand_far"], j["hand_near"]
    base = (min(a[0], b[0]) - 0.10, min(a[1], b[1]) - 0.06)
    tip = move(base, 0.66, r.uniform(0.40, 0.52))
    float_at = (tip[0] + 0.03, 0.03)
    return [
        stroke([base, tip], 0.017, r.choice((WOOD, DARK, (170, 60, 60))), 0.3),
        line([tip, float_at], 0.007, (120, 130, 140), 0.35),
        ellipse(float_at, 0.026, 0.03, (226, 60, 52), 0.35),
    ]


def guitar(j: Joints, r: Random) -> list[Shape]:
    """A guitar: the far hand at its neck, the near hand at its strings."""
    neck, strings = j["hand_far"], j["hand_near"]
    angle = math.atan2(neck[1] - strings[1], neck[0] - strings[0])
    colour = r.choice(((178, 104, 50), (140, 60, 40), (60, 60, 70), (210, 160, 80)))
    body, waist, head = rotate([(-0.07, 0.0), (0.03, 0.0), (0.42, 0.0)], strings, angle)
    return [
        stroke([waist, head], 0.03, DARK, 0.28),
        ellipse(body, 0.105, 0.1, colour, 0.33),
        ellipse(waist, 0.08, 0.075, colour, 0.33),
        ellipse(mid(body, waist, 0.6), 0.032, 0.032, (40, 30, 28), 0.25, outline=False),
    ]


def broom(j: Joints, r: Random) -> list[Shape]:
    """A broom in both hands, its brush on the floor ahead."""
    grip = mid(j["hand_far"], j["hand_near"])
    brush = (grip[0] + 0.22, 0.06)
    top = mid(brush, grip, 1.5)
    bristles = [move(brush, dx, dy) for dx, dy in ((-0.06, 0.03), (0.06, 0.03), (0.10, -0.055), (-0.10, -0.055))]
    colour = r.choice(((220, 180, 80), (190, 60, 60), (60, 120, 170), (90, 140, 80)))
    return [stroke([top, brush], 0.02, WOOD, 0.3), poly(bristles, colour, 0.3)]


def tablet(at: Point, r: Random, turn: float) -> list[Shape]:
    """A tablet with a lit screen."""
    wide, high = 0.22 * (1 - 0.35 * turn), 0.15
    case = r.choice(((40, 40, 48), (200, 204, 210), (90, 60, 60)))
    screen = rectangle(at, wide * 0.8, high * 0.74, r.choice(((120, 200, 240), (150, 220, 190))), 0.6, outline=False)
    return [rectangle(at, wide, high, case, 0.45), screen]


def frisbee(at: Point, r: Random) -> list[Shape]:
    """A flat disc, about to leave the hand."""
    colour = r.choice(((230, 70, 60), (60, 130, 220), (250, 200, 60), (90, 180, 90)))
    inner = ellipse(move(at, 0.03, 0.035), 0.07, 0.026, shade(colour, 0.8), 0.3, outline=False)
    return [ellipse(move(at, 0.03, 0.03), 0.115, 0.048, colour, 0.35), inner]


def leash(hand: Point, x: float) -> list[Shape]:
    """A slack line from the hand to the collar of the dog at `x`."""
    collar = (x + 0.15, 0.27)
    low = move(mid(hand, collar), 0.0, -0.05)
    return [line([hand, mid(hand, low, 0.6), low, mid(low, collar), collar], 0.015, (200, 50, 60), 0.35)]


# -------------------------------------------------------------------------------- in use or nearby


def water(r: Random, x: float = -0.33) -> list[Shape]:
    """A pond that begins at `x`."""
    blue = r.choice(((94, 164, 214), (110, 184, 200), (86, 140, 190)))
    pond = ellipse((x + 0.33, -0.015), 0.42, 0.085, blue, 0.12)
    waves = [
        line([(x + 0.12 + k * 0.2, -0.03 + dy), (x + 0.22 + k * 0.2, -0.022 + dy)], 0.011, (226, 240, 248), 0.1)
        for k, dy in ((0, 0.0), (1, -0.03), (2, 0.015))
    ]
    return [pond, *waves]


def bike(r: Random) -> list[Shape]:
    """A bicycle whose bottom bracket stands at x = 0; wheels on the ground."""
    colour = r.choice(CLOTHES)
    rear, front, pedal = (-0.30, 0.17), (0.34, 0.17), (0.0, 0.16)
    saddle, stem, bar = (-0.12, 0.44), (0.22, 0.42), (0.25, 0.50)
    shapes: list[Shape] = []
    for hub in (rear, front):
        for a in (0.3, 1.35, 2.4):  # spokes
            dx, dy = 0.15 * math.cos(a), 0.15 * math.sin(a)
            shapes.append(line([move(hub, -dx, -dy), move(hub, dx, dy)], 0.006, STEEL, 0.25))
        shapes.append(line(arc(hub, 0.165, 0.165, 0, 2 * math.pi, 25), 0.028, DARK))
    tubes = ([rear, pedal, stem, (-0.09, 0.40), rear], [pedal, saddle], [front, stem, bar])
    return [
        *shapes,
        *[stroke(tube, 0.026, colour, 0.28) for tube in tubes],
        stroke([(saddle[0] - 0.05, 0.455), (saddle[0] + 0.06, 0.455)], 0.035, DARK, 0.35),
        stroke([bar, move(bar, 0.05, 0.02)], 0.03, DARK, 0.35),
        ellipse(pedal, 0.03, 0.03, STEEL, 0.3),
    ]


def cart(r: Random, x: float = 0.0) -> list[Shape]:
    """A shopping cart with its handle at `x`, opening away from the person."""
    metal = r.choice((STEEL, (206, 66, 58), (70, 120, 190)))
    a, b, c, d = basket = [(x + 0.05, 0.50), (x + 0.52, 0.47), (x + 0.45, 0.23), (x + 0.12, 0.23)]
    goods = [
        rectangle((x + 0.17 + 0.11 * k, 0.50 + 0.02 * (k % 2)), 0.10, 0.12 + 0.04 * (k % 2), r.choice(CLOTHES), 0.4)
        for k in range(r.choice((0, 2, 3)))
    ]
    wires = [(mid(a, b, k), mid(d, c, k)) for k in (0.2, 0.4, 0.6, 0.8)]
    wires += [(mid(a, d, k), mid(b, c, k)) for k in (0.33, 0.66)]
    light = (int(metal[0] * 0.4 + 150), int(metal[1] * 0.4 + 150), int(metal[2] * 0.4 + 150))
    return [
        *goods,
        poly(basket, light, 0.22),
        *[line(wire, 0.009, shade(metal, 0.72), 0.25) for wire in wires],
        stroke([(x + 0.10, 0.25), (x + 0.14, 0.10), (x + 0.47, 0.10)], 0.02, metal, 0.25),
        *[ellipse((x + dx, 0.045), 0.042, 0.042, DARK, 0.3) for dx in (0.15, 0.46)],
        stroke([(x - 0.03, 0.545), (x + 0.06, 0.50)], 0.03, (200, 60, 60), 0.3),
    ]


def dog(r: Random, x: float = 0.0) -> list[Shape]:
    """A dog whose body is centred at `x`."""
    fur = r.choice(((150, 100, 60), (220, 190, 140), (60, 56, 56), (236, 232, 224), (176, 120, 70)))
    dark, black = shade(fur, 0.75), (25, 22, 22)
    legs = ((-0.12, -0.03, dark), (0.10, 0.04, dark), (-0.15, 0.03, fur), (0.13, -0.02, fur))
    return [
        *[stroke([(x + dx, 0.15), (x + dx + off, 0.015)], 0.04, colour, 0.85) for dx, off, colour in legs],
        stroke([(x - 0.17, 0.22), (x - 0.25, 0.33)], 0.03, fur, 0.8),
        stroke([(x - 0.14, 0.19), (x + 0.12, 0.20)], 0.115, fur, 0.92),
        stroke([(x + 0.13, 0.23), (x + 0.20, 0.31)], 0.08, fur, 0.92),
        ellipse((x + 0.21, 0.335), 0.07, 0.06, fur, 0.97),
        stroke([(x + 0.25, 0.32), (x + 0.30, 0.315)], 0.045, fur, 0.97),
        ellipse((x + 0.325, 0.32), 0.017, 0.015, black, 0.6, outline=False),
        poly([(x + 0.155, 0.375), (x + 0.20, 0.38), (x + 0.155, 0.28)], dark, 0.9),
        ellipse((x + 0.235, 0.35), 0.011, 0.012, black, 0.9, outline=False),
    ]


def board(r: Random, x: float = 0.0) -> list[Shape]:
    """A board on legs whose near edge stands at `x`; its writing is scribble, never a word."""
    width, face = 0.62, r.choice(((46, 92, 72), (248, 248, 246), (62, 66, 74)))
    chalk = (40, 70, 150) if face[0] > 200 else (240, 240, 230)
    rows = []
    for y in (0.98 - 0.13 * row for row in range(3)):
        points = [(x + 0.10 + 0.052 * k, y + r.uniform(-0.018, 0.018)) for k in range(r.randint(4, 8))]
        rows.append(line(points, 0.012, chalk))
    return [
        *[stroke([(x + dx, 0.5), (x + dx, 0.0)], 0.028, WOOD, 0.25) for dx in (0.08, width - 0.08)],
        rectangle((x + width / 2, 0.82), width, 0.62, WOOD, 0.25),
        rectangle((x + width / 2, 0.82), width - 0.06, 0.56, face, 0.2),
        *rows,
    ]


def rock_wall(r: Random, x: float = 0.0) -> list[Shape]:
    """A rock wall that begins at `x` and leaves the picture; coloured holds."""
    rock = r.choice(((166, 150, 132), (142, 146, 152), (186, 150, 118)))
    edge = [(x + r.uniform(-0.025, 0.025), y) for y in np.linspace(-0.02, 1.62, 9)]
    face = poly([*edge, (x + 0.48, 1.62), (x + 0.48, -0.02)], rock, 0.15)
    cracks = [
        [(x + r.uniform(0.1, 0.2), y), (x + r.uniform(0.22, 0.3), y - 0.08), (x + r.uniform(0.3, 0.42), y - 0.05)]
        for y in (0.3, 0.75, 1.2)
    ]
    holds = [
        ellipse((x + r.uniform(0.0, 0.32), y + r.uniform(-0.04, 0.04)), 0.042, 0.03, r.choice(CLOTHES), 0.2)
        for y in np.linspace(0.12, 1.5, 8)
    ]
    return [face, *[line(crack, 0.012, shade(rock, 0.72), 0.1) for crack in cracks], *holds]


# -------------------------------------------------------------------------------- only nearby


def tree(r: Random) -> list[Shape]:
    """A tree."""
    green = r.choice(((84, 150, 80), (120, 160, 70), (196, 130, 60), (60, 120, 90)))
    crown = ((-0.13, 0.66, 0.17), (0.14, 0.68, 0.17), (0.0, 0.86, 0.21))
    trunk = stroke([(0.0, 0.0), (0.0, 0.55)], 0.085, WOOD, 0.3)
    return [trunk, *[ellipse((x, y), radius, radius, green, 0.36) for x, y, radius in crown]]


def bench(r: Random) -> list[Shape]:
    """A bench."""
    colour = r.choice((WOOD, (110, 120, 130), (170, 80, 60)))
    legs = [stroke([(x, 0.22), (x, 0.0)], 0.03, DARK, 0.28) for x in (-0.22, 0.22)]
    return [*legs, *[stroke([(-0.28, y), (0.28, y)], 0.042, colour, 0.33) for y in (0.23, 0.36, 0.44)]]


def lamp(r: Random) -> list[Shape]:
    """A street lamp."""
    return [
        stroke([(0.0, 0.0), (0.0, 1.18)], 0.032, (84, 90, 100), 0.3),
        stroke([(0.0, 1.18), (0.14, 1.22)], 0.028, (84, 90, 100), 0.3),
        ellipse((0.15, 1.19), 0.06, 0.038, (255, 226, 140), 0.95),
    ]


def ball(r: Random) -> list[Shape]:
    """A ball."""
    band = line([(-0.075, 0.10), (0.0, 0.075), (0.075, 0.10)], 0.018, (250, 250, 250))
    return [ellipse((0.0, 0.085), 0.085, 0.085, r.choice(CLOTHES), 0.35), band]


# -------------------------------------------------------------------------------- which thing is drawn how

# In the hand that hangs down: (the hand, generator) -> shapes in front of the person.
IN_HAND: dict[str, Callable[[Point, Random], list[Shape]]] = {
    "phone": lambda at, r: phone(move(at, 0.01, -0.03), r),
    "cup": lambda at, r: cup(move(at, 0.0, -0.03), r),
    "book": lambda at, r: [rectangle(move(at, 0.0, -0.05), 0.10, 0.13, r.choice(CLOTHES), 0.3, 0.2)],
    "camera": lambda at, r: camera(move(at, 0.0, -0.05), r),
    "umbrella": closed_umbrella,
}

# In use: (joints, generator, turn of the body) -> shapes behind the person, shapes in front.
IN_USE: dict[str, Callable[[Joints, Random, float], Layers]] = {
    "phone": lambda j, r, turn: ([], phone(move(j["hand_near"], 0.005, 0.015), r, 1.25)),
    "cup": lambda j, r, turn: ([], cup(move(j["hand_near"], -0.005, 0.012), r, 0.75 if turn > 0.45 else 0.3)),
    "book": lambda j, r, turn: ([], open_book(move(mid(j["hand_far"], j["hand_near"]), 0.0, 0.03), r, turn)),
    "camera": lambda j, r, turn: ([], camera(move(j["eyes"], 0.055 * turn, -0.005), r)),
    "umbrella": lambda j, r, turn: open_umbrella(j, r),
    "bow": lambda j, r, turn: ([], drawn_bow(j, r)),
    "fishing rod": lambda j, r, turn: ([], fishing_rod(j, r)),
    "cart": lambda j, r, turn: ([], cart(r, j["hand_near"][0] - 0.02)),
    "bike": lambda j, r, turn: (bike(r), []),
    "board": lambda j, r, turn: (board(r, j["hand_near"][0] - 0.06), []),
    "rock wall": lambda j, r, turn: (rock_wall(r, j["hand_near"][0] - 0.08), []),
    "dog": lambda j, r, turn: (dog(r, 0.62), leash(j["hand_near"], 0.62)),
    "guitar": lambda j, r, turn: ([], guitar(j, r)),
    "broom": lambda j, r, turn: ([], broom(j, r)),
    "tablet": lambda j, r, turn: ([], tablet(move(mid(j["hand_far"], j["hand_near"]), 0.0, 0.03), r, turn)),
    "frisbee": lambda j, r, turn: ([], frisbee(j["hand_near"], r)),
}

NEARBY: dict[str, Callable[[Random], list[Shape]]] = {
    "bike": bike, "cart": cart, "dog": dog, "board": board, "rock wall": rock_wall, "tree": tree, "bench": bench,
    "lamp": lamp, "ball": ball, "water": water, "second person": bystander,
}  # fmt: skip
