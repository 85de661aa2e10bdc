"""The rows of one step as the loss sees them: tokens, mask, ratios, advantages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.show.groups import draw_advantage
from favor_lab.show.layout import canvas
from favor_lab.show.style import BLUE, FAINT, GREY, INK, PAPER, VERMILLION, WIDTH, house_style
from favor_lab.show.text import CENTRED, printable, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, TOP, HIGH = 0.75, 1.6, 0.75, 0.5  # inches: room for the row numbers, the advantages, the heads; one row
STRONGEST = 0.4  # a ratio that differs from 1 by this much has the full tint


@house_style()
def plot_rows(
    tokens: Sequence[Sequence[str]],
    ratios: Sequence[Sequence[float]],
    advantages: Sequence[float],
    clip: float | None = None,
) -> Figure:
    """The (N, L) table that the loss is computed from: one row per completion, one cell per token with its ratio, grey
    cells for the padding that the mask leaves out, and one advantage per row.

    tokens: N lists, each as long as its completion; ratios: N rows of L, of which the padding is not read; advantages:
    N (tensors will do). With a `clip`, tokens without a gradient are hatched. ValueError unless the numbers agree.
    """
    table, scores = [[float(value) for value in row] for row in ratios], [float(value) for value in advantages]
    longest = max(map(len, tokens), default=0)
    agree = len(table) == len(scores) == len(tokens) and {len(row) for row in table} == {longest}
    if not longest or not agree:
        shape = (len(table), len(table[0]) if table else 0)
        raise ValueError(f"plot_rows needs ratios (N, L) and N advantages for N = {len(tokens)} rows of at most "
                         f"L = {longest} tokens, but has ratios {shape} and {len(scores)} advantages")  # fmt: skip
    figure, axes = canvas(TOP + HIGH * len(tokens) + 0.45)
    wide = (WIDTH - LEFT - RIGHT) / longest
    _draw_heads(axes, len(tokens), longest, wide)
    limit, centre = max([1.0, *map(abs, scores)]), WIDTH - 0.75
    for i, words in enumerate(tokens):
        y = TOP + HIGH * i
        axes.text(LEFT - 0.12, y + HIGH / 2, f"row {i}", fontsize=8.5, va="center", ha="right")
        for t in range(longest):
            word = words[t] if t < len(words) else None
            _draw_cell(axes, LEFT + wide * t, y, wide, word, table[i][t], _is_muted(table[i][t], scores[i], clip))
        draw_advantage(axes, centre, y + HIGH / 2, scores[i], limit)
    axes.plot([centre] * 2, [TOP, TOP + HIGH * len(tokens)], color=GREY, linewidth=0.8)
    _draw_legend(axes, TOP + HIGH * len(tokens) + 0.25, clip)
    return figure


def _is_muted(ratio: float, advantage: float, clip: float | None) -> bool:
    """Whether the clip leaves this token without a gradient.

    >>> _is_muted(1.3, 1.0, 0.2), _is_muted(1.3, -1.0, 0.2), _is_muted(1.3, 1.0, None)
    (True, False, False)
    """
    return clip is not None and (ratio > 1 + clip if advantage > 0 else ratio < 1 - clip and advantage < 0)


def _draw_heads(axes: Axes, rows: int, longest: int, wide: float) -> None:
    head: dict[str, Any] = {"va": "center", "fontsize": 8.5, "weight": "bold", "color": GREY}
    axes.text(LEFT, 0.24, f"tokens with their ratios: (N, L) = ({rows}, {longest})", **head)
    axes.text(WIDTH - 0.75, 0.24, f"A: (N,) = ({rows},)", ha="center", **head)
    for t in range(longest):
        axes.text(LEFT + wide * (t + 0.5), TOP - 0.16, f"t = {t}", fontsize=8, color=GREY, **CENTRED)


def _draw_cell(axes: Axes, x: float, y: float, wide: float, word: str | None, ratio: float, muted: bool) -> None:
    """One token, or padding where `word` is None."""
    from matplotlib.patches import Rectangle

    place = ((x + 0.02, y + 0.02), wide - 0.04, HIGH - 0.04)
    if word is None:
        axes.add_patch(Rectangle(*place, facecolor=FAINT, linewidth=0))
        axes.text(x + wide / 2, y + HIGH / 2, "mask 0", fontsize=7.5, color=GREY, **CENTRED)
        return
    strength = 0.45 * min(abs(ratio - 1) / STRONGEST, 1.0)
    axes.add_patch(Rectangle(*place, facecolor=PAPER, edgecolor=GREY, linewidth=0.8))
    axes.add_patch(Rectangle(*place, facecolor=BLUE if ratio > 1 else VERMILLION, alpha=strength, linewidth=0))
    if muted:
        axes.add_patch(Rectangle(*place, fill=False, hatch="////", edgecolor="#9aa5b1", linewidth=0))
    text = printable(word)
    size = min(8.5, max(7.5, 8.5 * (wide - 0.08) / max(text_width(text, 8.5), 0.01)))
    behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.85} if muted else None
    axes.text(x + wide / 2, y + 0.16, text, fontsize=size, color=INK, bbox=behind, **CENTRED)
    axes.text(x + wide / 2, y + 0.35, f"{ratio:.2f}", fontsize=8, color=INK, bbox=behind, **CENTRED)


def _draw_legend(axes: Axes, y: float, clip: float | None) -> None:
    from matplotlib.patches import Rectangle

    marks: list[tuple[str, dict[str, Any]]] = [
        ("ratio above 1: likelier than when sampled", {"facecolor": BLUE, "alpha": 0.45}),
        ("below 1: rarer", {"facecolor": VERMILLION, "alpha": 0.45}),
        ("padding", {"facecolor": FAINT}),
    ]
    if clip is not None:
        marks.append((f"no gradient, clip {clip:g}", {"fill": False, "hatch": "/////", "edgecolor": GREY}))
    x = LEFT
    for label, look in marks:
        axes.add_patch(Rectangle((x, y - 0.06), 0.22, 0.14, linewidth=0, **look))
        axes.text(x + 0.29, y, label, fontsize=8, va="center_baseline")
        x += 0.5 + text_width(label, 8)
