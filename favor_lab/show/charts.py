"""Charts of many runs: accuracy against shots, transfer from one set to another, and the effect of a change.

They take plain numbers (`Measured` values by name), so that a saved study and a student's own runs look alike.
Methods keep their colour and their mark in every chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.show.layout import grid_of_axes, titled_figure
from favor_lab.show.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, VERMILLION, WIDTH, house_style, new_figure
from favor_lab.show.text import CENTRED, drawn_name, printable
from favor_lab.study.measures import Measured
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: method -> colour and mark; other methods take the next of SPARE
LOOKS = {
    "grpo": (BLUE, "o"), "grpo-answer": (SKY, "D"), "sft": (ORANGE, "s"), "sft-reasoning": (VERMILLION, "^"),
    "zero-shot": (GREY, "v"), "zero-shot-answer": (INK, "P"),
}  # fmt: skip
SPARE = ((GREEN, "X"), (PINK, "*"))


def look(method: str, others: Sequence[str] = ()) -> tuple[str, str]:
    """Colour and mark of a method; without an entry in LOOKS, by its place among the `others`."""
    return LOOKS.get(method) or SPARE[list(others).index(method) % len(SPARE) if method in others else 0]


@house_style()
def plot_shots(
    tables: Mapping[str, Mapping[str, Mapping[int, Measured]]],
    untrained: Mapping[str, Mapping[str, float]] | None = None,
    ylabel: str = "right answers, %",
) -> Figure:
    """A panel for each set: a line for each method over the number of shots, with its 95 % interval as a band.

    tables: set -> method -> shots -> share. untrained: set -> method -> share, as a dotted line.
    Raises ValueError for nothing to draw.
    """
    if not tables or not any(tables.values()):
        raise ValueError("plot_shots needs at least one set with one method")
    figure = new_figure(2.75 * -(-len(tables) // 4) + 0.45)
    panels = grid_of_axes(figure, len(tables), 4, sharey=True)
    # every doubling of the shots is the same distance
    counts = sorted({count for methods in tables.values() for line in methods.values() for count in line})
    for axes, (name, methods) in zip(panels, tables.items(), strict=True):
        for method, line in methods.items():
            colour, mark = look(method, list(methods))
            x, points = zip(*[(counts.index(count), line[count]) for count in sorted(line)], strict=True)
            low, mean, high = 100 * np.array([(point.low, point.mean, point.high) for point in points]).T
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
            axes.plot(x, mean, color=colour, marker=mark, markersize=5, linewidth=1.6, label=drawn_name(method))
        for method, share in (untrained or {}).get(name, {}).items():
            colour, _ = look(method)
            axes.axhline(100 * share, color=colour, linewidth=1.2, linestyle=":", label=drawn_name(method))
        axes.set(title=drawn_name(name), xlabel="shots per label")
        axes.set_xticks(range(len(counts)), map(str, counts))
        axes.grid(axis="y")
    for axes in panels[::4]:
        axes.set_ylabel(printable(ylabel))
    handles = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    look_of_legend = {"ncols": min(len(handles), 6), "frameon": False, "fontsize": 9}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", **look_of_legend)
    return figure


@house_style()
def plot_transfer(shares: Mapping[str, Mapping[tuple[str, str], float]], sets: Sequence[str]) -> Figure:
    """A square for each method: trained on the set of the row, tested on the set of the column, right answers in %."""
    if not shares:
        raise ValueError("plot_transfer needs at least one method")
    columns = min(len(shares), 4)
    figure = new_figure(-(-len(shares) // columns) * (WIDTH / columns + 0.6))
    panels = grid_of_axes(figure, len(shares), columns)
    percents = [100 * share for table in shares.values() for share in table.values()]
    low, high = min(percents), max(percents) + 1e-9
    for panel, (axes, (method, table)) in enumerate(zip(panels, shares.items(), strict=True)):
        grid = np.array([[100 * table.get((learnt, tested), np.nan) for tested in sets] for learnt in sets])
        axes.imshow(grid, cmap="Blues", vmin=low - (high - low) * 0.3, vmax=high)
        for row, column in np.ndindex(grid.shape):
            if np.isfinite(grid[row, column]):
                ink = "white" if grid[row, column] > low + 0.55 * (high - low) else INK
                weight = "bold" if row == column else "normal"
                axes.text(column, row, rounded(grid[row, column], 0), fontsize=9.5, weight=weight, color=ink, **CENTRED)
        axes.set(title=drawn_name(method), xlabel="tested on")
        names = [drawn_name(name) for name in sets]
        axes.set_xticks(range(len(sets)), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(sets)), names if panel % columns == 0 else [])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("learnt on")
    return figure


@house_style()
def plot_moves(
    groups: Mapping[str, Mapping[str, Mapping[str, tuple[Measured, Measured]]]], measures: Mapping[str, str]
) -> Figure:
    """From before to after: a row for each method or variant, a column for each measure; a hollow mark where training
    started, a filled one where it ended, each with its 95 % interval.

    groups: heading -> name -> measure -> (before, after) as shares; measures: name -> heading. Blue: the interval after
    lies above the one before, vermillion: below, grey: they overlap. ValueError for nothing to draw.
    """
    if not measures or not groups or not all(groups.values()):
        raise ValueError("plot_moves needs at least one measure and one group, and in each group at least one row")
    lines = [line for heading, rows in groups.items() for line in [(heading, None), *rows.items()]]
    figure = new_figure(0.3 * len(lines) + 0.75)
    panels = _panels_with_rows(figure, [name for name, _ in lines], measures, "%")
    for axes, measure in zip(panels, measures, strict=True):
        axes.tick_params(axis="y", length=0)
        for y, (_, row) in enumerate(lines):
            if row and measure in row:
                _move(axes, y, *row[measure])
    for (_, row), text in zip(lines, panels[0].get_yticklabels(), strict=True):
        if row is None:
            text.set_fontweight("bold")
    return figure


def _move(axes: Axes, y: float, before: Measured, after: Measured) -> None:
    disjoint = after.low > before.high or after.high < before.low
    colour = (BLUE if after.mean > before.mean else VERMILLION) if disjoint else GREY
    dotted = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "linestyle": ":"}
    axes.annotate("", (100 * after.mean, y), (100 * before.mean, y), arrowprops=dotted)
    _interval(axes, before, y + 0.13, GREY, 1.8, marker="o", markersize=5.5, markerfacecolor="white")
    _interval(axes, after, y - 0.13, colour, 1.8, marker="o", markersize=5.5, markerfacecolor=colour)


@house_style()
def plot_changes(
    rows: Mapping[str, Mapping[str, Measured | None]], measures: Mapping[str, str], title: str = ""
) -> Figure:
    """The effect of each change: a row for each change, a column for each measure, the paired difference in points to
    the same run without the change, with its 95 % interval. Blue: above zero, vermillion: below, grey: zero is in it.

    rows: change -> measure -> difference as a share (None where it has none); measures: name -> heading.
    """
    if not rows or not measures:
        raise ValueError("plot_changes needs at least one change and one measure")
    figure = titled_figure(0.27 * len(rows) + 0.85, title, room=0.25)
    for axes, measure in zip(_panels_with_rows(figure, list(rows), measures, "points"), measures, strict=True):
        axes.axvline(0, color=GREY, linewidth=1)
        for y, differences in enumerate(rows.values()):
            difference = differences.get(measure)
            if difference is not None:
                up_or_down = (BLUE, "^") if difference.mean > 0 else (VERMILLION, "v")
                colour, mark = up_or_down if difference.excludes_zero else (GREY, "o")
                _interval(axes, difference, y, colour, 2, marker=mark, markersize=6)
    return figure


def _panels_with_rows(figure: Figure, names: Sequence[str], measures: Mapping[str, str], unit: str) -> Sequence[Axes]:
    """A panel for each measure under its heading, with a row for each name, the first on top."""
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, heading in zip(panels, measures.values(), strict=True):
        axes.set_title(drawn_name(heading), fontsize=10)
        axes.set_yticks(range(len(names)), [drawn_name(name) for name in names])
        axes.set(xlabel=unit, ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="x")
    return panels


def _interval(axes: Axes, value: Measured, y: float, colour: str, width: float, **mark: Any) -> None:
    """A mark at the mean in percent, on a line from the lower to the upper end."""
    axes.plot([100 * value.low, 100 * value.high], [y, y], color=colour, linewidth=width)
    axes.plot(100 * value.mean, y, color=colour, **mark)
