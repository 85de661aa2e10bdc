"""Where things stand on a figure: its title, its panels, a canvas measured in inches, images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from favor_lab.activities.images import HELD_PIXELS, to_rgb
from favor_lab.show.style import FAINT, GREY, WIDTH, new_figure
from favor_lab.show.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

CARD = "#f6f8fa"  # the face of a card


def titled_figure(height: float, title: str, room: float = 0.3) -> Figure:
    """A new figure that is `room` inches higher if it has a title."""
    figure = new_figure(height + (room if title else 0.0))
    if title:
        figure.suptitle(printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


def grid_of_axes(figure: Figure, count: int, columns: int, **options: Any) -> list[Axes]:
    """`count` axes in rows of at most `columns`; options: of `Figure.subplots`."""
    columns = max(min(columns, count), 1)
    rows = max(-(-count // columns), 1)
    panels = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return panels[:count]


def canvas(height: float) -> tuple[Figure, Axes]:
    """A new figure with axes over all of it, in inches, with y pointing down."""
    figure = new_figure(height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, width: float = 1.4
) -> None:
    """An arrow between two points of a `canvas`."""
    shape = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", end, start, arrowprops=shape | {"color": colour, "linewidth": width})


def card(axes: Axes, x: float, y: float, wide: float, high: float, **look: Any) -> None:
    """A box with round corners whose upper left corner is (x, y), on a `canvas`; look: of a matplotlib patch."""
    from matplotlib.patches import FancyBboxPatch

    shape: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": CARD, "edgecolor": FAINT}
    axes.add_patch(FancyBboxPatch((x, y), wide, high, **shape | look))


def place_image(figure: Figure, image: Image, x: float, y: float, wide: float, high: float) -> None:
    """Draw an image with its upper left corner at (x, y), in inches on a `canvas`."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))
    axes.imshow(for_figure(image))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)


def for_figure(image: Image) -> Image:
    """The image as RGB; a photograph is made as small as a figure shows it, since figures hold all their images."""
    small = to_rgb(image)
    if image.width * image.height > HELD_PIXELS:
        small.thumbnail((800, 800))
    return small


def fade(*colours: str) -> Any:
    """A colour map through these colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fade", list(colours))
