"""Four ways to paint the same shapes: cartoon, pencil sketch, false-colour thermal, and a grainy corner camera.

A look takes shapes in picture units (x to the right, y down, both 0..1), not knowing what they mean, and returns an RGB
image. Everything random comes from one seeded generator, so a picture is a pure function of its key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from favor_lab.activities.world.shapes import Colour, Shape

SUPERSAMPLE = 3  # shapes are drawn three times larger and averaged down: smooth edges without a vector library
Shapes = Sequence[Shape]
Paint = tuple[int, ...] | int  # a colour, or a grey


def draw_shapes(
    canvas: Image.Image, shapes: Shapes, fill: Callable[[Shape], Paint], ink: Paint | None = None, line: float = 0
) -> None:
    """Draw shapes in order: `fill` gives the paint of each, `ink` that of contours, which are `line` canvases wide."""
    pen = ImageDraw.Draw(canvas)
    size = canvas.width
    for shape in shapes:
        points = [(float(x) * size, float(y) * size) for x, y in shape.points]
        outlined = ink is not None and shape.outline
        if shape.width is None:
            pen.polygon(points, fill=fill(shape))
            if outlined:
                pen.line([*points, points[0], points[1]], fill=ink, width=max(1, round(line * size)), joint="curve")
        else:
            width = shape.width * size
            if outlined:
                _round_line(pen, points, width + 2 * (line * size), ink)
            _round_line(pen, points, width, fill(shape))


def _round_line(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: float, paint: Paint | None) -> None:
    pen.line(points, fill=paint, width=max(1, round(width)), joint="curve")
    radius = width / 2
    if radius >= 1.5:
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)


def blank(mode: str, size: int, paint: Paint) -> Image.Image:
    """A canvas in one paint, SUPERSAMPLE times as large as the picture of (size, size) pixels."""
    return Image.new(mode, (size * SUPERSAMPLE,) * 2, paint)


def grain(noise: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise in [-1, 1], (size, size): a coarse random grid, enlarged."""
    coarse = Image.fromarray((noise.random((cells, cells)) * 255).astype(np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 127.5 - 1


def to_image(pixels: np.ndarray) -> Image.Image:
    """Clip (H, W, 3) numbers to 0..255 and make a picture of them."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def coloured(back: Shapes, front: Shapes, canvas: Image.Image, ink: Colour, line: float) -> Image.Image:
    """The shapes in their own colours, those in front with a contour, at the final size."""
    draw_shapes(canvas, back, lambda s: s.colour)
    draw_shapes(canvas, front, lambda s: s.colour, ink, line)
    return canvas.reduce(SUPERSAMPLE)


def cartoon(back: Shapes, front: Shapes, size: int, r: Random) -> Image.Image:
    """Flat colours, dark contours."""
    return coloured(back, front, blank("RGB", size, (255, 255, 255)), (38, 34, 40), 0.0065)


def contour(dots: int) -> Callable[[Shape], Paint]:
    """White where a shape has an outline, this grey where it is a dot without one."""
    return lambda s: 255 if s.outline else dots


def sketch(back: Shapes, front: Shapes, size: int, r: Random) -> Image.Image:
    """Pencil on paper: trembling contours, hatching where things are dark."""
    noise = np.random.default_rng(r.getrandbits(64))

    def grey(s: Shape) -> int:
        return round(255 - 0.62 * (255 - (0.30 * s.colour[0] + 0.59 * s.colour[1] + 0.11 * s.colour[2])))

    tone, lines = blank("L", size, 255), blank("L", size, 255)
    draw_shapes(tone, back, lambda s: 255 - (255 - grey(s)) // 4)
    draw_shapes(tone, front, grey)
    for dots, ink in ((110, 60), (255, 100)):  # two passes of the pencil; dots such as eyes only in the first
        shaky = [s.mapped(lambda points: points + noise.normal(0, 0.0026, points.shape)) for s in front]
        layer = blank("L", size, 255)
        draw_shapes(layer, shaky, contour(dots), ink, 0.005)
        lines = ImageChops.darker(lines, layer)
    shade = np.asarray(tone.reduce(SUPERSAMPLE), dtype=np.float32) / 255
    pencil = np.asarray(lines.reduce(SUPERSAMPLE), dtype=np.float32) / 255
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * (140 / size)
    slant = r.uniform(0.7, 1.3)
    hatch = 0.5 + 0.5 * np.sin((x + slant * y) * 1.45 + 1.2 * grain(noise, size, 6))
    paper = np.array(r.choice(((250, 246, 236), (244, 240, 228), (252, 252, 250), (238, 230, 212))), dtype=np.float32)
    dark = (1 - shade) * (0.35 + 0.9 * hatch) + (1 - pencil) * (0.82 + 0.18 * grain(noise, size, size // 2))
    texture = 1 + 0.025 * grain(noise, size, size // 2)
    graphite = np.array((52, 52, 58), dtype=np.float32)
    mix = np.clip(dark, 0, 1)[..., None]
    return to_image((paper * (1 - mix) + graphite * mix) * texture[..., None])


PALETTES = {  # positions from cold (0) to hot (1), and the colours there
    "iron": (
        (0, 0.25, 0.5, 0.72, 0.9, 1),
        ((4, 2, 24), (64, 10, 120), (188, 40, 96), (246, 132, 26), (254, 222, 90), (255, 255, 232)),
    ),
    "lagoon": (
        (0, 0.28, 0.5, 0.7, 0.88, 1),
        ((6, 10, 40), (18, 62, 140), (28, 150, 150), (150, 206, 70), (250, 214, 60), (255, 90, 50)),
    ),
    "ember": ((0, 0.35, 0.6, 0.8, 1), ((6, 6, 10), (70, 24, 40), (190, 58, 30), (250, 160, 50), (255, 250, 220))),
}


@cache
def colour_table(name: str) -> np.ndarray:
    """(256, 3) colours of a false-colour palette."""
    positions, colours = PALETTES[name]
    return np.stack([np.interp(np.linspace(0, 1, 256), positions, channel) for channel in np.transpose(colours)], 1)


def thermal(back: Shapes, front: Shapes, size: int, r: Random) -> Image.Image:
    """What an infrared camera shows: heat as false colour, soft edges, no faces, no print."""
    noise = np.random.default_rng(r.getrandbits(64))
    cold, gain = r.uniform(0.02, 0.14), r.uniform(0.82, 1.0)
    heat = blank("L", size, 40)
    draw_shapes(heat, back, lambda s: round(255 * (cold + 0.45 * s.heat)))
    draw_shapes(heat, front, lambda s: round(255 * min(1.0, cold + 0.08 + (gain - 0.1) * s.heat)), 18, 0.0042)
    soft = heat.reduce(SUPERSAMPLE).filter(ImageFilter.GaussianBlur(size / 210))
    field = np.asarray(soft, dtype=np.float32) + 7 * grain(noise, size, 5) + noise.normal(0, 3.2, (size, size))
    return to_image(colour_table(r.choice(sorted(PALETTES)))[np.clip(field, 0, 255).astype(np.uint8)])


def cctv(back: Shapes, front: Shapes, size: int, r: Random) -> Image.Image:
    """A cheap corner camera: dim, washed out, noisy, with scan lines and a clock."""
    noise = np.random.default_rng(r.getrandbits(64))
    sharp = coloured(back, front, blank("RGB", size, (90, 92, 96)), (24, 24, 28), 0.0042)
    pixels = np.asarray(sharp.filter(ImageFilter.GaussianBlur(size / 260)), dtype=np.float32)
    grey = pixels.mean(2, keepdims=True)
    saturation = r.uniform(0.05, 0.4)
    tint = np.array(r.choice(((0.92, 1.0, 0.94), (0.94, 0.97, 1.06), (1.0, 0.98, 0.9))), dtype=np.float32)
    pixels = (grey + saturation * (pixels - grey)) * tint * r.uniform(0.58, 0.8) + r.uniform(8, 26)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    pixels *= (1.06 - 0.75 * (x * x + y * y))[..., None]
    pixels *= (1 - 0.07 * (np.arange(size) % 3 == 0))[:, None, None]
    pixels += noise.normal(0, r.uniform(5, 11), (size, size, 1))
    return stamp(to_image(pixels), r)


DIGITS = ("75557", "22222", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")  # rows of 3 bits


def stamp(image: Image.Image, r: Random) -> Image.Image:
    """The camera's clock in the upper left corner, in a 3 x 5 pixel type of its own."""
    pen = ImageDraw.Draw(image)
    pixel = max(1, round(image.width / 140))
    for place in range(6):
        left = pixel * (6 + 4 * place + 3 * (place // 2))
        for row, bits in enumerate(DIGITS[r.randrange(10)]):
            for column in range(3):
                if int(bits) >> (2 - column) & 1:
                    x, y = left + pixel * column, pixel * (5 + row)
                    pen.rectangle((x, y, x + pixel - 1, y + pixel - 1), fill=(206, 210, 206))
    return image


LOOKS = {"cartoon": cartoon, "sketch": sketch, "thermal": thermal, "cctv": cctv}


def corner_camera(r: Random) -> Callable[[np.ndarray], np.ndarray]:
    """The view from a high corner: heads loom, feet shrink, verticals lean. Maps (n, 2) picture points."""
    side, roll = r.choice((-1, 1)), math.radians(r.uniform(3, 10))
    loom, squash = r.uniform(0.3, 0.5), r.uniform(0.80, 0.9)

    def view(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0] - 0.5, points[:, 1] - 0.5
        scale = (1 - loom * y) * 0.96
        u, v = x * scale, y * squash * (1 - 0.12 * y)
        c, s = math.cos(roll * side), math.sin(roll * side)
        return np.stack([0.5 + c * u - s * v, 0.5 + s * u + c * v], 1)

    return view
