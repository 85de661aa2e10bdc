"""Polygons and strokes: what every drawn thing is made of, whatever it means and however it is painted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from favor_lab.activities.world.poses import Point

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """A filled polygon (`width` None) or a round-ended stroke along `points` (n, 2).

    `heat` in [0, 1] is what an infrared camera sees; `outline` False leaves the contour out.
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
    return stroke(points, width, colour, heat, outline=False)


def ellipse(centre: Point, rx: float, ry: float, colour: Colour, heat: float = 0.3, outline: bool = True) -> Shape:
    """A filled ellipse, as a polygon of 22 corners."""
    t = np.linspace(0, 2 * math.pi, 22, endpoint=False)
    return poly(np.stack([centre[0] + rx * np.cos(t), centre[1] + ry * np.sin(t)], 1), colour, heat, outline)


def rectangle(
    at: Point, width: float, height: float, colour: Colour, heat: float = 0.3, angle: float = 0.0, outline: bool = True
) -> Shape:
    """A filled rectangle around its centre `at`, turned by `angle` radians."""
    corners = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    return poly(rotate(corners, at, angle), colour, heat, outline)


def arc(centre: Point, rx: float, ry: float, start: float, stop: float, count: int) -> list[Point]:
    """`count` points of an ellipse, from one angle to another (radians)."""
    angles = np.linspace(start, stop, count)
    return [(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in angles]


def rotate(points: Sequence[Point], centre: Point, angle: float) -> list[Point]:
    """Points given relative to `centre`, turned around it by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return [(centre[0] + c * x - s * y, centre[1] + s * x + c * y) for x, y in points]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, darker by the factor."""
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)
