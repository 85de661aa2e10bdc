"""The style of all figures: colours, fonts, sizes, and a `Figure` that a notebook displays by itself.

Functions that draw take plain data and return a matplotlib `Figure`. Nothing is shown and no global state is changed,
so the same functions serve a live notebook, a saved run and the report. Blue means right or above zero, vermillion
means wrong or below zero (Okabe and Ito's colour-blind safe palette); wherever colour carries meaning, a mark or a
number carries it too.
"""

from __future__ import annotations

import base64
import functools
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

BLUE, VERMILLION, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY, FAINT, PAPER = "#1f2933", "#66727f", "#d9dee4", "#ffffff"
MARKERS = "oDs^vP"
CYCLE = (BLUE, ORANGE, GREEN, PINK, VERMILLION, SKY)
WIDTH = 9.0  # inches; at DPI 120 a figure is 1080 pixels wide, the width of a notebook cell
DPI = 120
CJK_FONTS = ("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Microsoft YaHei", "PingFang SC", "Malgun Gothic")
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}  # of a text
RIGHT_MARK, WRONG_MARK, MINUS = "\N{CHECK MARK}", "\N{BALLOT X}", "\N{MINUS SIGN}"


@functools.cache
def _figure_class() -> type[Figure]:
    """A `Figure` that a notebook displays by itself, so that pyplot and its global state are not needed."""
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "favor-lab[lab]"') from error

    class LabAxes(Axes):
        """Axes whose title and legend have this style also outside of `house_style`."""

        set_title, legend = house_style()(Axes.set_title), house_style()(Axes.legend)

    class LabFigure(Figure):
        @house_style()
        def add_subplot(self, *args: Any, **kwargs: Any) -> Axes:
            return super().add_subplot(*args, **{"axes_class": LabAxes} | kwargs)

        def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
            """As PNG of 256 colours or, for a sheet of pictures, as JPEG: it keeps a notebook small."""
            pictures = sum(image.get_array().ndim == 3 for axes in self.axes for image in axes.images)  # type: ignore
            if pictures > 4:
                return {"image/jpeg": encoded(render(self), format="jpeg", quality=75)}
            return {"image/png": small_png(render(self))}

    LabFigure.__name__ = LabFigure.__qualname__ = "Figure"
    _register_png(LabFigure)
    return LabFigure


def _register_png(figures: type[Figure]) -> None:
    """In IPython, pyplot registers its own PNG for every Figure, which would take precedence: register ours too."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        png = shell.display_formatter.formatters["image/png"]
        png.for_type(figures, lambda figure: figure._repr_mimebundle_().get("image/png"))


def render(figure: Figure) -> Image:
    """A figure as an RGB image."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def encoded(image: Image, **options: Any) -> str:
    """An image as base64 of a file; options: of `Image.save`."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def small_png(image: Image) -> str:
    """An image as base64 PNG of 256 colours."""
    from PIL import Image

    return encoded(image.convert("RGB").quantize(256, dither=Image.Dither.NONE), format="png", optimize=True)


@functools.cache
def _families() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in CJK_FONTS if name in installed))


def style_settings() -> dict[str, Any]:
    """The style as matplotlib's rcParams."""
    return {
        "font.family": list(_families()),
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.linewidth": 0.8,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "figure.dpi": DPI,
        "savefig.dpi": "figure",
    }


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings are those of this style meanwhile: `with house_style():`, or `@house_style()` before a
    function that draws."""
    _figure_class()
    import matplotlib

    with matplotlib.rc_context(style_settings()):
        yield


@house_style()
def new_figure(height: float, width: float = WIDTH, layout: Any = "constrained") -> Figure:
    """An empty figure in the house's style that a notebook displays by itself: width and height in inches.

    >>> axes = new_figure(2.5).subplots()
    >>> axes.spines["top"].get_visible(), axes.figure.get_size_inches().tolist()
    (False, [9.0, 2.5])
    """
    return _figure_class()(figsize=(width, height), layout=layout)


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


def canvas(figure: Figure) -> Axes:
    """Axes over the whole figure, in inches, with y pointing down."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def place_image(figure: Figure, image: Image, x: float, y: float, wide: float, high: float) -> None:
    """Draw an image with its upper left corner at (x, y), in inches on a `canvas`."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))
    axes.imshow(as_rgb(image))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)


def as_rgb(image: Image) -> Image:
    """An image of any mode as the policy sees it: matplotlib would colour a grey one."""
    if image.mode == "RGB":
        return image
    from favor_lab.activities.images import to_rgb

    return to_rgb(image)


# -------------------------------------------------------------------------------------------------------------- text


@functools.lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    from matplotlib import font_manager

    fonts = (font_manager.get_font(font_manager.findfont(family)) for family in _families())
    return any(font.get_char_index(ord(character)) for font in fonts)


def printable(text: str) -> str:
    """`text` on one line, with a replacement mark for every character that no installed font can draw."""
    flat = " ".join(str(text).split())
    return "".join(c if c.isprintable() and _has_glyph(c) else "\N{REPLACEMENT CHARACTER}" for c in flat)


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width in inches of `text` at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(_families()), size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def short_name(name: str) -> str:
    """A reward's column head: `accuracy_reward` is printed as "accuracy"."""
    return name.removesuffix("_reward").replace("_", " ")


def signed(value: float, form: str = "+.2f") -> str:
    """A number with a typographic minus sign, and without a sign where it is rounded to zero.

    >>> signed(-0.5), signed(-1e-9)
    ('−0.50', '0.00')
    """
    text = f"{value:{form}}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)
