"""Accuracies with their uncertainty: where an interval comes from, and which images tell two policies apart."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from favor_lab.show.layout import canvas
from favor_lab.show.style import BLUE, FAINT, GREY, INK, ORANGE, PAPER, VERMILLION, WIDTH, house_style, new_figure
from favor_lab.show.text import CENTRED, RIGHT_MARK, WRONG_MARK, drawn_name
from favor_lab.study.evaluation import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_IMAGES = 20  # columns of `plot_changed_sides`


@house_style()
def plot_interval(successes: int, trials: int, confidence: float = 0.95) -> Figure:
    """Wilson's interval as a drawing: all true accuracies p in whose band the observed share lies.

    The band of a p holds the shares of right answers that are within z standard errors of p. Below, on the same axis of
    p, is Wilson's interval, and the textbook's interval beside it. ValueError for counts that are no share.
    """
    low, high = (100 * bound for bound in wilson_interval(successes, trials, confidence))
    z, share = NormalDist().inv_cdf(0.5 + confidence / 2), successes / trials
    half = 100 * z * (share * (1 - share) / trials) ** 0.5
    figure = new_figure(4.6)
    above, below = figure.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    _draw_band(above, 100 * share, z, trials, (low, high))
    above.text(1, 100 * share + 2.5, f"observed: {successes} of {trials} = {100 * share:.0f} %", va="bottom")
    rows = (("Wilson", BLUE, low, high), ("textbook", ORANGE, 100 * share - half, 100 * share + half))
    for y, (name, colour, start, end) in enumerate(rows):
        below.plot([start, end], [y, y], color=colour, linewidth=7, solid_capstyle="butt")
        below.text(max(end, 100) + 2, y, f"{start:.0f} to {end:.0f} %", va="center", color=INK)
        below.text(-2, y, name, ha="right", va="center", color=INK)
        below.plot([100 * share], [y], "o", color=PAPER, markeredgecolor=INK, markersize=5)
    for axes in (above, below):
        axes.axvline(100, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
    for bound in (low, high):
        below.axvline(bound, color=BLUE, linewidth=1, linestyle="--")
    ends = [0.0, 100.0, *(value for row in rows for value in row[2:])]
    below.set(xlim=(min(min(ends) - 2, -14), max(ends) + 16), ylim=(1.6, -0.6), yticks=[], xticks=range(0, 101, 10))
    below.set_xlabel("p, the true accuracy, %")
    below.spines[["left"]].set_visible(False)
    return figure


def _draw_band(axes: Axes, share: float, z: float, trials: int, bounds: tuple[float, float]) -> None:
    """For each p the shares within z standard errors of it, the observed share across, and where the two meet."""
    p = np.linspace(0, 1, 401)
    half = z * np.sqrt(p * (1 - p) / trials)
    lowest, highest = 100 * np.clip(p - half, 0, 1), 100 * np.clip(p + half, 0, 1)
    axes.fill_between(100 * p, lowest, highest, color=BLUE, alpha=0.13, linewidth=0)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1)
    axes.plot([0, 100], [share, share], color=INK, linewidth=1, linestyle=":")
    axes.plot(bounds, [share, share], color=BLUE, linewidth=3)
    for bound in bounds:
        axes.plot([bound, bound], [share, -4], color=BLUE, linewidth=1, linestyle="--")
        axes.plot([bound], [share], "o", color=BLUE)
    words = f"pale band: what tests of this size\nmostly find, for each p (z = {z:.2f})"
    axes.text(98, 11, words, color=GREY, ha="right", va="center", backgroundcolor=PAPER)
    axes.set(ylim=(-4, 112), yticks=range(0, 101, 20), ylabel="share of right answers, %")
    axes.grid(axis="y")


@house_style()
def plot_changed_sides(
    first: Sequence[bool], second: Sequence[bool], names: tuple[str, str] = ("first", "second")
) -> Figure:
    """Two policies on the same images, an image per column: which answers were right, and which images changed sides.

    ValueError unless both have as many answers, at least one and at most 20.
    """
    if len(first) != len(second) or not 0 < len(first) <= MOST_IMAGES:
        counts = f"{len(first)} and {len(second)}"
        raise ValueError(f"plot_changed_sides needs as many answers of both, 1 to {MOST_IMAGES}, but got {counts}")
    figure, axes = canvas(2.0)
    left, step = 1.5, min(0.62, (WIDTH - 1.7) / len(first))
    for y, name in zip((0.85, 1.4), names, strict=True):
        axes.text(left - 0.45, y, drawn_name(name), ha="right", va="center", fontsize=10, weight="bold")
    for i, pair in enumerate(zip(first, second, strict=True)):
        x = left + step * i
        axes.text(x, 0.22, str(i + 1), fontsize=8, color=GREY, **CENTRED)
        if bool(pair[0]) != bool(pair[1]):
            word, colour = ("gained", BLUE) if pair[1] else ("lost", VERMILLION)
            sides = [x - 0.45 * step, x + 0.45 * step]
            axes.fill_between(sides, 0.5, 1.75, facecolor=FAINT, alpha=0.6, linewidth=0)
            axes.text(x, 1.88, word, fontsize=8, color=colour, weight="bold", **CENTRED)
        for y, right in zip((0.85, 1.4), pair, strict=True):
            mark, colour = (RIGHT_MARK, BLUE) if right else (WRONG_MARK, VERMILLION)
            axes.text(x, y, mark, fontsize=14, color=colour, **CENTRED)
    axes.text(left - 0.45, 0.22, "image", fontsize=8, color=GREY, ha="right", va="center")
    return figure
