"""Step records against the optimiser step: curves, and which labels were sampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.show.layout import grid_of_axes, titled_figure
from favor_lab.show.style import BLUE, CYCLE, FAINT, GREY, INK, VERMILLION, house_style
from favor_lab.show.text import drawn_name, printable, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def record_fields(record: Any) -> dict[str, Any]:
    """A step record as a dictionary: a StepRecord, or a line of `records.jsonl`."""
    return asdict(record) if is_dataclass(record) else dict(record)  # type: ignore[arg-type]


def running_mean(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """Mean over the last `window` values, without the NaN among them; by default over a fifteenth of all values.

    >>> running_mean(np.array([0.0, 1.0, np.nan, 3.0]), 2).tolist()
    [0.0, 0.5, 1.0, 3.0]
    """
    window = max(1, len(values) // 15) if window is None else window
    valid = ~np.isnan(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(part)]) for part in (np.where(valid, values, 0.0), valid))
    start = np.maximum(np.arange(len(values)) + 1 - window, 0)
    with np.errstate(invalid="ignore"):  # no value in the window: NaN
        return (sums[1:] - sums[start]) / (counts[1:] - counts[start])


def draw_curve(axes: Axes, steps: list[int], values: Sequence[float | None], colour: str, label: str = "") -> None:
    """The value of each step, pale, and its running mean."""
    numbers = np.array(values, dtype=float)  # None becomes NaN
    if len(numbers) // 15 > 1:
        axes.plot(steps, numbers, color=colour, alpha=0.25, linewidth=0.8)
    marker = "o" if len(numbers) == 1 else None
    axes.plot(steps, running_mean(numbers), color=colour, linewidth=1.8, label=label, marker=marker)


def finish_curves(axes: Axes, ticks: int) -> None:
    """Grid, limits and x axis of a panel of curves; zero is in view if nothing is below it."""
    axes.grid(axis="y")
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    if axes.get_legend():
        axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for it above the curves
    axes.set_xlabel("optimiser step")
    axes.locator_params(axis="x", integer=True, nbins=ticks)


@dataclass(frozen=True)
class Curve:
    """A number of each step record: its name, its unit, its values (None where a record has none), its colour."""

    name: str
    unit: str
    values: list[float | None]
    colour: str = BLUE


Rows = list[dict[str, Any]]


def _rows(records: Sequence[Any]) -> Rows:
    if not records:
        raise ValueError("no step records to draw: the run has not finished a step")
    return [record_fields(record) for record in records]


def _panels(rows: Rows) -> dict[str, tuple[str, str, list[Curve]]]:
    """The panels that the records have numbers for: field -> title, unit, curves."""

    def of(field: str, name: str = "", colour: str = BLUE) -> Curve:
        return Curve(name, "", [row.get(field) for row in rows], colour)

    rewards = [
        Curve(printable(short_name(name)), "", [row["rewards"].get(name) for row in rows], colour)
        for colour, name in zip(CYCLE, rows[0]["rewards"] or (), strict=False)
    ]
    spread = [of("reward_spread", "standard deviation"), of("flat_groups", "share of groups without", VERMILLION)]
    panels = {
        "rewards": ("mean reward", "reward per completion", rewards),
        "labels": ("labels ever answered right", "labels", []),
        "reward_spread": ("spread inside the groups", "reward; share of groups", spread),
        "kl": ("KL to the reference", "nats per token (k3 estimate)", [of("kl")]),
        "entropy": ("entropy when sampling", "nats per token", [of("entropy")]),
        "length_mean": ("length of completions", "tokens, end token included", [of("length_mean", "mean")]),
    }
    panels = {field: panel for field, panel in panels.items() if any(row[field] not in (None, {}) for row in rows)}
    without_rewards = {} if any(row["rewards"] for row in rows) else {"loss": ("loss", "nats per token", [of("loss")])}
    return without_rewards | panels


@house_style()
def plot_records(records: Sequence[Any], title: str = "") -> Figure:
    """The curves of a run against its optimiser steps, a panel for each quantity that the records hold.

    Rewards by name, labels reached, spread, KL, entropy, lengths; for a run without rewards (the supervised baseline)
    its loss. Pale lines are single steps, strong lines running means.
    """
    rows = _rows(records)
    panels, steps = _panels(rows), [row["step"] for row in rows]
    figure = titled_figure(2.5 * -(-len(panels) // 3) + 0.1, title, room=0.25)
    for axes, (field, (name, unit, curves)) in zip(grid_of_axes(figure, len(panels), 3), panels.items(), strict=True):
        axes.set(title=name, ylabel=unit)
        if field == "labels":
            _draw_labels(axes, steps, rows)
        if field == "length_mean":
            low, high = ([row[end] for row in rows] for end in ("length_min", "length_max"))
            if None not in low + high:
                axes.fill_between(steps, low, high, color=BLUE, alpha=0.12, linewidth=0, label="shortest to longest")
        for curve in curves:
            draw_curve(axes, steps, curve.values, curve.colour, drawn_name(curve.name))
        if any(curve.name for curve in curves):
            axes.legend(loc="upper left", ncols=2 if field == "rewards" else 1, columnspacing=1.2)
        finish_curves(axes, ticks=6)
    return figure


def _draw_labels(axes: Axes, steps: list[int], rows: Rows) -> None:
    reached: set[str] = set()
    counts = []
    for row in rows:
        reached |= {label for label, count in row["labels"].items() if count["right_so_far"]}
        counts.append(len(reached))
    total = len({label for row in rows for label in row["labels"]})
    axes.step(steps, counts, where="post", color=BLUE, linewidth=1.8)
    axes.axhline(total, color=GREY, linewidth=1, linestyle=":")
    axes.set_ylabel(f"labels, of {total} trained on")


@house_style()
def plot_coverage(records: Sequence[Any], title: str = "") -> Figure:
    """For each label and step, whether the right answer was sampled: what is never sampled is never learnt.

    A disc grows with the share of right completions; a cross is a step that showed the label and sampled no right
    answer. The number at the right counts right completions of all; labels are ordered by it.
    """
    counts = [(label, row["step"], count) for row in _rows(records) for label, count in row["labels"].items()]
    if not counts:
        raise ValueError("these records count no sampled answers by label; records of GRPO do")
    right, completions = Counter[str](), Counter[str]()
    for label, _, count in counts:
        right[label] += count["right"]
        completions[label] += count["completions"]
    order = sorted(completions, key=lambda label: (right[label] / max(completions[label], 1), label))
    figure = titled_figure(0.24 * len(order) + 1.1, title)
    axes = figure.add_subplot()
    table = np.array([  # (points, 3): step, place of the label, share of right completions
        (step, order.index(label), count["right"] / max(count["completions"], 1)) for label, step, count in counts
    ])  # fmt: skip
    hits, misses = table[table[:, 2] > 0], table[table[:, 2] == 0]
    axes.scatter(misses[:, 0], misses[:, 1], marker="x", s=13, color=VERMILLION, linewidth=0.9, label="none right")
    sizes = 8 + 60 * hits[:, 2]
    axes.scatter(hits[:, 0], hits[:, 1], s=sizes, color=BLUE, linewidth=0, label="some right (size: share)")
    for y, label in enumerate(order):
        look: dict[str, Any] = {"color": INK} if right[label] else {"color": VERMILLION, "weight": "bold"}
        look |= {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
        axes.text(1.01, y, f"{right[label]} of {completions[label]}", **look)
        axes.axhline(y, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(order)), [drawn_name(label) for label in order])
    axes.set(xlabel="optimiser step", ylim=(-0.7, len(order) - 0.3))
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def record_curves(records: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The curves that tell most about a run: summed reward, each reward, KL; the loss if there are no rewards.

    records: step records as dictionaries. Numbers that no record has are left out.

    >>> [curve.name for curve in record_curves([{"reward": 1.5, "rewards": {"format_reward": 0.5}, "kl": None}])]
    ['reward', 'format']
    """
    names = list(dict.fromkeys(name for record in records for name in record.get("rewards") or ()))
    curves = [Curve("reward", "sum, per completion", [record.get("reward") for record in records], INK)]
    for i, name in enumerate(names):
        values = [(record.get("rewards") or {}).get(name) for record in records]
        curves.append(Curve(short_name(name), "per completion", values, CYCLE[i % len(CYCLE)]))
    curves.append(Curve("KL", "nats per token (k3)", [record.get("kl") for record in records], VERMILLION))
    if not names:
        curves.insert(0, Curve("loss", "nats per token", [record.get("loss") for record in records]))
    return [curve for curve in curves if any(value is not None for value in curve.values)]


@house_style()
def plot_curves(curves: Sequence[Curve], steps: Sequence[int], title: str = "") -> Figure:
    """The curves of a dashboard as a figure, at most four per line."""
    figure = titled_figure(1.9 * max(-(-len(curves) // 4), 1), title, room=0.35)
    for axes, curve in zip(grid_of_axes(figure, len(curves), 4), curves, strict=True):
        draw_curve(axes, list(steps), curve.values, curve.colour)
        axes.set(title=drawn_name(curve.name), ylabel=curve.unit)
        finish_curves(axes, ticks=4)
    return figure
