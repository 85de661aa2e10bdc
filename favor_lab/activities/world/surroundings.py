"""What stands around a scene and says nothing of it: walls, skies, hills, and what hides a corner. Picture units."""

from __future__ import annotations

from random import Random

from favor_lab.activities.world.shapes import Colour, Shape, ellipse, poly, rectangle, shade, stroke


def plane(top: float, bottom: float, colour: Colour, heat: float) -> Shape:
    """A band across the whole picture and beyond its sides."""
    return poly([(-1, top), (2, top), (2, bottom), (-1, bottom)], colour, heat)


def indoors(r: Random, horizon: float) -> list[Shape]:
    """A wall, a floor and often a picture or a window."""
    wall = r.choice(((236, 226, 206), (206, 222, 232), (222, 232, 210), (236, 214, 208), (200, 200, 206)))
    floor = r.choice(((186, 150, 112), (160, 160, 164), (146, 118, 96), (198, 186, 170)))
    edge = stroke([(-1, horizon), (2, horizon)], 0.014, shade(floor, 0.8), 0.25)
    shapes = [plane(-1, horizon, wall, 0.36), plane(horizon, 2, floor, 0.28), edge]
    if r.random() < 0.6:
        x, y = r.uniform(0.1, 0.9), r.uniform(0.14, 0.3)
        w, h = r.uniform(0.12, 0.24), r.uniform(0.12, 0.24)
        pane = r.choice(((170, 210, 236), (230, 180, 120), (150, 180, 150)))
        shapes += [rectangle((x, y), w + 0.03, h + 0.03, (250, 250, 246), 0.3), rectangle((x, y), w, h, pane, 0.16)]
    return shapes


def outdoors(r: Random, horizon: float) -> list[Shape]:
    """Sky and ground, often hills or houses, often a cloud."""
    sky = r.choice(((176, 214, 240), (214, 232, 242), (246, 216, 180), (190, 196, 208)))
    ground = r.choice(((150, 190, 112), (214, 196, 150), (176, 178, 180), (128, 166, 110)))
    shapes = [plane(-1, horizon, sky, 0.02), plane(horizon, 2, ground, 0.3)]
    kind = r.choice(("hills", "houses", "none"))
    if kind == "hills":
        shapes[1:1] = [
            ellipse((r.uniform(0, 1), horizon), r.uniform(0.25, 0.5), r.uniform(0.07, 0.16), shade(ground, k), 0.24)
            for k in (0.9, 0.8)
        ]
    x = -0.1
    while kind == "houses" and x < 1.1:
        w, h = r.uniform(0.1, 0.24), r.uniform(0.08, 0.34)
        colour = shade(r.choice(((206, 190, 180), (180, 190, 204), (214, 206, 180))), r.uniform(0.85, 1))
        shapes.append(rectangle((x + w / 2, horizon - h / 2), w, h, colour, 0.3))
        x += w + r.uniform(0, 0.08)
    if r.random() < 0.5:
        x, y = r.uniform(0.1, 0.9), r.uniform(0.06, 0.2)
        puffs = ((-0.06, 0.05), (0.0, 0.07), (0.07, 0.05))
        shapes += [ellipse((x + dx, y), rr, rr * 0.62, (250, 250, 252), 0.08) for dx, rr in puffs]
    return shapes


def occluder(r: Random) -> list[Shape]:
    """A bush or a box at the lower edge: part of the scene is always hidden from somebody."""
    x = r.choice((r.uniform(0.0, 0.22), r.uniform(0.78, 1.0)))
    if r.random() < 0.5:
        green = r.choice(((70, 130, 70), (104, 140, 60), (150, 110, 60)))
        return [ellipse((x + dx, 1.0), 0.11, rr, green, 0.32) for dx, rr in ((-0.08, 0.09), (0.08, 0.1), (0.0, 0.14))]
    return [rectangle((x, 0.97), 0.24, 0.20, r.choice(((176, 136, 90), (120, 126, 136))), 0.26)]
