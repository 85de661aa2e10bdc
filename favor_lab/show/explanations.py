"""Explanations as figures: a drawn scene with its truth, and a response with the image regions that it depends on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.activities.images import to_rgb
from favor_lab.show.layout import fade, titled_figure
from favor_lab.show.style import BLUE, FAINT, GREY, INK, PAPER, VERMILLION, WIDTH, house_style
from favor_lab.show.text import RIGHT_MARK, WRONG_MARK, printable, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from favor_lab.activities.world.scenes import Scene
    from favor_lab.study.explanations import Explanation

VERDICT_MARKS = {
    "true": (RIGHT_MARK, BLUE), "false": (WRONG_MARK, VERMILLION), "not a statement": ("\N{EN DASH}", VERMILLION),
    "unknown": ("?", GREY),
}  # fmt: skip
MIN_NATS = 0.25  # full colour means at least so large a drop, so that noise stays pale

ResponseLine = tuple[str, str, dict[str, Any]]  # mark, text, look


@house_style()
def plot_truth(scene: Scene, title: str = "") -> Figure:
    """A drawn scene, and beside it the truth it knows: joints (blue), boxes of things (vermillion), statements."""
    figure = titled_figure(WIDTH / 3, title)
    plain, marked, listed = figure.subplots(1, 3)
    for axes in figure.axes:
        axes.axis("off")
    plain.imshow(scene.image)
    marked.imshow(scene.image)
    side = scene.image.width  # truth is in picture units
    joints = side * np.array(list(scene.truth.joints.values()))  # (J, 2)
    marked.scatter(joints[:, 0], joints[:, 1], s=26, color=BLUE, edgecolor=PAPER, linewidth=0.8)
    marked.set(xlim=(0, side), ylim=(side, 0))
    for name, (x0, y0, x1, y1) in scene.truth.objects.items():
        corners = side * np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])  # (5, 2)
        marked.plot(*corners.clip(1, side - 1).T, color=VERMILLION, linewidth=1.6)
        top, tag = side * max(y0, 0.0), {"facecolor": VERMILLION, "edgecolor": "none", "pad": 2}
        side_of_line = "bottom" if y0 > 0.1 else "top"  # above the box where there is room
        marked.text(side * max(x0, 0.0) + 2, top, name, fontsize=8, color=PAPER, va=side_of_line, bbox=tag)
    lines = [printable(str(scene.label)), *(f"\N{BULLET} {statement}" for statement in scene.truth.statements)]
    for i, line in enumerate(lines):
        listed.text(0.02, 0.9 - 0.1 * i, line, fontsize=10.5, weight="normal" if i else "bold")
    return figure


@house_style()
def plot_explanation(explanation: Explanation, title: str = "", max_lines: int = 14) -> Figure:
    """One response explained: the image, where covering it makes answer and reasoning less likely, the response.

    Blue: where this is covered, the part becomes less likely (nats, mean over the windows that cover an image token);
    vermillion: likelier. Solid frame: the window with the largest drop, and its number. Dashed frame: the true evidence
    of a drawn scene. Marks: true, false, no statement of the drawn world (a dash), truth unknown (?).
    """
    lines = _response_lines(explanation, max_lines)
    tall = explanation.image.height / explanation.image.width
    figure = titled_figure(max(2.15 * tall + 0.95, 0.185 * len(lines) + 0.5), title)
    panels = figure.subplots(1, 4, width_ratios=(1.0, 1.0, 1.0, 1.1))
    panels[0].imshow(to_rgb(explanation.image))
    panels[0].set_title("image" if explanation.evidence is None else "true evidence")
    for axes, part in zip(panels[1:3], ("answer", "reasoning"), strict=True):
        _heat_panel(axes, explanation, part)
    for axes in panels[:3]:
        if explanation.evidence is not None:
            evidence = np.array(explanation.evidence) * (explanation.image.size * 2)
            _frame(axes, evidence, edgecolor=PAPER, linewidth=1.3)
            _frame(axes, evidence, edgecolor=INK, linewidth=1.3, linestyle=(0, (3, 2)))  # dashed
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set(visible=True, color=FAINT)
    panels[3].axis("off")
    panels[3].set_title("response")
    for i, (mark, text, look) in enumerate(lines):
        for x, piece in ((0, mark), (14 if mark else 0, text)):
            panels[3].annotate(
                piece, (0, 1), xytext=(x, -13.3 * (i + 0.6)), xycoords="axes fraction", textcoords="offset points",
                va="center_baseline", fontsize=8.5, annotation_clip=False, **look,
            )  # fmt: skip
    return figure


def _response_lines(explanation: Explanation, max_lines: int) -> list[ResponseLine]:
    """Answer, probabilities and statements as lines; of a long reasoning the end is left out."""
    lines: list[ResponseLine] = []

    def add(text: str, mark: str = "", **look: Any) -> None:
        for i, line in enumerate(textwrap.wrap(printable(text), 31)):
            lines.append((mark if i == 0 else " " * len(mark), line, look))

    right = explanation.correct
    mark, colour = ("", INK) if right is None else VERDICT_MARKS["true" if right else "false"]
    add(explanation.answer or "no answer", mark, weight="bold", color=colour)
    if right is False:
        add(f"gold label: {explanation.label}", color=GREY)
    if explanation.answer_probability is not None:
        add(f"probability {explanation.answer_probability:.2f}")
        add(f"without the image {explanation.blank_probability:.2f}")
    lines.append(("", "", {}))
    for statement in explanation.statements:
        mark, colour = VERDICT_MARKS[statement.verdict]
        add(statement.text, mark, color=colour)
    if not explanation.statements:
        add("no reasoning", color=GREY)
    if explanation.reading and explanation.reading.telling:
        lines.append(("", "", {}))
        add(f"by the rule: {', '.join(explanation.reading.best)}", color=GREY)
    return lines if len(lines) <= max_lines else [*lines[: max_lines - 1], ("", "[...]", {"color": GREY})]


def _heat_panel(axes: Axes, explanation: Explanation, part: str) -> None:
    """The drops of one part over the pale image, with their colour bar and the window of the largest."""
    image, occlusion = explanation.image, explanation.occlusion
    axes.imshow(np.asarray(image.convert("L")), cmap="gray", vmin=-300, vmax=255)  # pale
    axes.set_title(part if part in occlusion.drops else f"{part}: none written")
    if part not in occlusion.drops:
        return
    heat = occlusion.heat(part)
    limit = max(float(np.abs(heat).max()), MIN_NATS)
    extent = (0, image.width, image.height, 0)
    colours = fade(VERMILLION, PAPER, BLUE)
    overlay = axes.imshow(heat, cmap=colours, vmin=-limit, vmax=limit, alpha=0.55, extent=extent)
    high = image.width / image.height  # of the bar, so that it looks the same below an image of any shape
    place = axes.inset_axes((0.04, -0.115 * high, 0.92, 0.055 * high))
    bar = axes.figure.colorbar(overlay, cax=place, orientation="horizontal")
    bar.set_label("drop when covered, nats", fontsize=8)
    bar.ax.locator_params(nbins=3)
    bar.ax.tick_params(labelsize=8)
    unit = np.array([image.width / occlusion.grid[1], image.height / occlusion.grid[0]] * 2)
    window = unit * occlusion.peak(part)
    _frame(axes, window, edgecolor=BLUE, linewidth=2)
    tag = {"facecolor": BLUE, "edgecolor": "none", "pad": 1.5}
    axes.text(window[0], window[1], signed(occlusion.drops[part].max()), fontsize=8, color=PAPER, va="top", bbox=tag)


def _frame(axes: Axes, box: np.ndarray, **look: Any) -> None:
    """A frame around a box: left, top, right, bottom in pixels."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **look))
