"""Where a step of training spends its time, as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from favor_lab.show.layout import titled_figure
from favor_lab.show.style import BLUE, PAPER, SKY, house_style
from favor_lab.show.text import drawn_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@house_style()
def plot_profile(profile: Any, title: str = "") -> Figure:
    """Each phase of a step (a `Profile`, or its dictionary): its time, and the bound of it, the least it could take.

    At the right the share of the bound that is reached. `encode` is left out: it happens once per run, not per step.
    """
    values = profile if isinstance(profile, Mapping) else profile.to_dict()
    phases = {name: phase for name, phase in values["phases"].items() if name != "encode"}
    figure = titled_figure(0.36 * len(phases) + 1.1, title)
    axes = figure.add_subplot()
    times = [1e3 * phase["seconds"] for phase in phases.values()]
    bounds = [1e3 * phase["bound"] for phase in phases.values()]
    rows = range(len(phases))
    axes.barh(rows, times, height=0.62, color=SKY, label="measured")
    axes.barh(rows, bounds, height=0.26, color=BLUE, label="bound: the ideal step at this machine's measured rates")
    for row, (time, bound) in enumerate(zip(times, bounds, strict=True)):
        text = f"{time:,.1f} ms, {bound / time:.0%} of the bound reached" if time else "too short to measure"
        axes.annotate(
            text, (max(time, bound), row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_yticks(rows, [drawn_name(name) for name in phases])
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds of an optimiser step", xlim=(0, 1.45 * max(times + bounds)))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
