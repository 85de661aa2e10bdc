"""Covering parts of an image: boxes on a grid, where they fit, and the colour that hides them."""

from __future__ import annotations

import math

from PIL import Image, ImageStat

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive
Region = tuple[float, float, float, float]  # the same in picture units, 0..1


def fill_colour(
    image: Image.Image, fill: str | tuple[int, int, int] = "mean", grey: tuple[int, ...] = (128, 128, 128)
) -> tuple[int, ...]:
    """The colour (R, G, B) that covers a patch: the image's own "mean", "grey" (the colour `grey`, such as the one that
    an image processor normalises to 0), or a given one. Raises ValueError for another fill.

    >>> fill_colour(Image.new("RGB", (2, 2), (9, 8, 7))), fill_colour(Image.new("RGB", (2, 2)), (1, 2, 3))
    ((9, 8, 7), (1, 2, 3))
    """
    if fill == "mean":
        return tuple(round(value) for value in ImageStat.Stat(image).mean)
    if fill == "grey":
        return grey
    if isinstance(fill, str) or len(fill) != 3:
        raise ValueError(f"unknown fill {fill!r}; valid: mean, grey, or a colour such as (128, 128, 128)")
    return tuple(fill)


def covered(image: Image.Image, box: Box | None, colour: tuple[int, ...]) -> Image.Image:
    """A copy of the image with a box of pixels in one colour; with None, a copy of the whole image as it is.

    >>> covered(Image.new("RGB", (2, 1), "white"), (1, 0, 2, 1), (9, 9, 9)).getpixel((1, 0))
    (9, 9, 9)
    """
    image = image.copy()
    if box is not None:
        image.paste(colour, box)
    return image


def whole_box(image: Image.Image) -> Box:
    """The box of all pixels."""
    return (0, 0, *image.size)


def scaled(box: Box, unit: int) -> Box:
    """A box in units of `unit` pixels as a box in pixels.

    >>> scaled((0, 1, 2, 3), 14)
    (0, 14, 28, 42)
    """
    left, top, right, bottom = box
    return (unit * left, unit * top, unit * right, unit * bottom)


def area(box: Box) -> int:
    """Number of units in a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def occlusion_windows(
    grid: tuple[int, int], window: int | tuple[int, int] | None = None, stride: int | None = None
) -> list[Box]:
    """Boxes that slide over a grid of (rows, columns) image tokens, row by row, and together cover every token.

    window: tokens per side, or (rows, columns); by default a quarter of the shorter side, but at least 2 (where the
    grid has 2). stride: tokens from one box to the next, by default half a window (for a window of 2: 1); the last box
    of a row or column is moved back to end at the edge. By default there are at most 49 boxes for a square image.
    Raises ValueError for a window that does not fit, and for a stride below 1 or so long that tokens are left out.

    >>> occlusion_windows((2, 3), window=2)
    [(0, 0, 2, 2), (1, 0, 3, 2)]
    """
    if window is None:
        window = min(max(2, math.ceil(min(grid) / 4)), *grid)
    height, width = (window, window) if isinstance(window, int) else window
    if not (1 <= height <= grid[0] and 1 <= width <= grid[1]):
        tokens = f"{grid[0]} x {grid[1]} image tokens"
        raise ValueError(f"a window of {height} x {width} does not fit in an image of {tokens}")
    step = math.ceil(min(height, width) / 2) if stride is None else stride
    if not 1 <= step <= min(height, width):
        raise ValueError(f"stride is {step}: it must be from 1 to {min(height, width)}, the window's shorter side")
    tops, lefts = ([*range(0, n - size, step), n - size] for n, size in zip(grid, (height, width), strict=True))
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


def snap(region: Region, size: tuple[int, int]) -> Box:
    """The smallest box of whole units that contains a region, on a picture of (width, height) units.

    >>> snap((0.41, 0.15, 0.55, 0.2), size=(10, 10))
    (4, 1, 6, 2)
    """
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"a region is left < right and top < bottom in picture units (0..1), not {region}")
    width, height = size
    corner = math.floor(left * width), math.floor(top * height)
    return *corner, math.ceil(right * width - 1e-9), math.ceil(bottom * height - 1e-9)


def places_beside(box: Box, size: tuple[int, int]) -> list[Box]:
    """Every place of a box of the same width and height that does not overlap this one.

    >>> places_beside((0, 0, 2, 1), size=(3, 2))
    [(0, 1, 2, 2), (1, 1, 3, 2)]
    """
    wide, high = box[2] - box[0], box[3] - box[1]
    places = ((x, y, x + wide, y + high) for y in range(size[1] - high + 1) for x in range(size[0] - wide + 1))
    left, top, right, bottom = box
    return [(a, b, c, d) for a, b, c, d in places if a >= right or c <= left or b >= bottom or d <= top]


def with_room(box: Box, size: tuple[int, int], places: int = 4) -> Box:
    """The box itself or, if fewer than `places` boxes of its size fit beside it, its middle: the longer side is cut by
    one unit, at both ends in turn, until enough fit (or one unit is left).

    >>> with_room((1, 0, 9, 9), size=(10, 10)), with_room((0, 0, 4, 4), size=(10, 10))
    ((3, 2, 7, 6), (0, 0, 4, 4))
    """
    while area(box) > 1 and len(places_beside(box, size)) < places:
        left, top, right, bottom = box
        wide, high = right - left, bottom - top
        if wide >= high:
            box = (left + 1, top, right, bottom) if wide % 2 == 0 else (left, top, right - 1, bottom)
        else:
            box = (left, top + 1, right, bottom) if high % 2 == 0 else (left, top, right, bottom - 1)
    return box
