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
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from PIL import Image

from favor_lab.show.text import font_families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY, FAINT, PAPER = "#1f2933", "#66727f", "#d9dee4", "#ffffff"
MARKERS = "oDs^vP"
CYCLE = (BLUE, ORANGE, GREEN, PINK, VERMILLION, SKY)
WIDTH = 9.0  # inches; at DPI 120 a figure is 1080 pixels wide, the width of a notebook cell
DPI = 120

# methods that make texts, lines, ticks or files, and so read matplotlib's settings
AXES_METHODS = """annotate axhline axvline axvspan bar barh boxplot clear errorbar fill_between grid hist imshow legend
    pie plot scatter set set_title set_xlabel set_xscale set_xticks set_ylabel set_yscale set_yticks step text"""
FIGURE_METHODS = "add_axes add_subplot colorbar draw legend savefig subplots suptitle supxlabel supylabel text"
# settings that change no picture, by the first part of their names: a person's own stay
SESSION = """animation backend backend_fallback date docstring interactive keymap macosx pdf pgf ps svg timezone tk
    toolbar webagg""".split()

_in_house_style: ContextVar[bool] = ContextVar("in_house_style", default=False)


@functools.cache
def _figure_class() -> type[Figure]:
    """A `Figure` that a notebook displays by itself, so that pyplot and its global state are not needed."""
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "favor-lab[lab]"') from error

    class LabAxes(Axes):
        """Axes on which is drawn in this style also outside of `house_style`."""

    class LabFigure(Figure):
        def add_subplot(self, *args: Any, **kwargs: Any) -> Axes:
            return super().add_subplot(*args, **{"axes_class": LabAxes} | kwargs)

        def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
            """As PNG of 256 colours or, for a sheet of pictures, as JPEG: it keeps a notebook small."""
            pictures = sum(image.get_array().ndim == 3 for axes in self.axes for image in axes.images)  # type: ignore
            if pictures > 4:
                return {"image/jpeg": encoded(render(self), format="jpeg", quality=75)}
            return {"image/png": small_png(render(self))}

    for kind, names in ((LabAxes, AXES_METHODS), (LabFigure, FIGURE_METHODS)):
        for name in names.split():
            setattr(kind, name, house_style()(getattr(kind, name)))
    LabFigure.__name__ = LabFigure.__qualname__ = "Figure"
    if shell := ipython_shell():  # pyplot registers its own PNG for every Figure, which would take precedence
        png = shell.display_formatter.formatters["image/png"]
        png.for_type(LabFigure, lambda figure: figure._repr_mimebundle_().get("image/png"))
    return LabFigure


def ipython_shell() -> Any:
    """The shell that runs this code, in IPython or a notebook; None elsewhere."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def render(figure: Figure) -> Image.Image:
    """A figure as an RGB image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def encoded(image: Image.Image, **options: Any) -> str:
    """An image as base64 of a file; options: of `Image.save`."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def small_png(image: Image.Image) -> str:
    """An image as base64 PNG of 256 colours."""
    return encoded(image.convert("RGB").quantize(256, dither=Image.Dither.NONE), format="png", optimize=True)


def style_settings() -> dict[str, Any]:
    """The style as matplotlib's rcParams: this one over matplotlib's defaults, so that nothing comes from a person's
    matplotlibrc, such as text.usetex without LaTeX or a dark style."""
    from matplotlib import rcParamsDefault

    defaults = {name: value for name, value in rcParamsDefault.items() if name.split(".")[0] not in SESSION}
    return defaults | {
        "font.family": font_families(), "font.size": 9, "text.color": INK, "text.parse_math": False,
        "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
        "axes.titlecolor": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.unicode_minus": True,
        "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "grid.color": FAINT, "grid.linewidth": 0.8, "legend.frameon": False, "legend.fontsize": 8.5,
        "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "figure.dpi": DPI, "savefig.dpi": "figure",
    }  # fmt: skip


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings are those of this style: `with house_style():`, or `@house_style()` before a function."""
    if _in_house_style.get():
        yield
        return
    _figure_class()
    import matplotlib

    with matplotlib.rc_context(style_settings()):
        token = _in_house_style.set(True)
        try:
            yield
        finally:
            _in_house_style.reset(token)


@house_style()
def new_figure(height: float, width: float = WIDTH, layout: Any = "constrained") -> Figure:
    """An empty figure in the house's style that a notebook displays by itself: width and height in inches.

    >>> axes = new_figure(2.5).subplots()
    >>> axes.spines["top"].get_visible(), axes.figure.get_size_inches().tolist()
    (False, [9.0, 2.5])
    """
    return _figure_class()(figsize=(width, height), layout=layout)
