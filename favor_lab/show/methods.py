"""What three ways to learn from preferences or rewards keep in memory, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from favor_lab.show.layout import canvas, card
from favor_lab.show.style import BLUE, GREY, INK, PAPER, WIDTH, house_style
from favor_lab.show.text import CENTRED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Part(NamedTuple):
    """One box of the drawing."""

    name: str
    use: str  #: what it is there for
    kind: str  #: "trained" or "frozen" for a model, "function" for a reward without weights


class Method(NamedTuple):
    """One column of the drawing."""

    name: str
    source: str
    parts: tuple[Part, ...]
    learns_from: str


REFERENCE = Part("reference policy", "the KL penalty is measured from it", "frozen")
METHODS = (
    Method(
        "RLHF with PPO",
        "InstructGPT, 2203.02155",
        (
            Part("policy", "writes responses", "trained"),
            Part("value model (critic)", "what reward is to be expected here?", "trained"),
            Part("reward model", "learnt from pairs that people compared", "frozen"),
            REFERENCE,
        ),
        "often one response per prompt,\ncompared with the value model's guess",
    ),
    Method(
        "DPO",
        "2305.18290",
        (
            Part("policy", "is scored on both responses of a pair", "trained"),
            Part("reference policy", "is scored on the same two", "frozen"),
        ),
        "fixed pairs (better, worse),\nnothing is sampled",
    ),
    Method(
        "GRPO with a rule",
        "2402.03300, 2501.12948",
        (
            Part("policy", "writes G responses per prompt", "trained"),
            Part("reference policy", "for the KL penalty; not needed if beta is 0", "frozen"),
            Part("reward function", "right label? right form?", "function"),
        ),
        "G responses per prompt,\neach compared with its group's mean",
    ),
)
LOOKS: dict[str, dict[str, Any]] = {
    "trained": {"facecolor": "#e3f0f8", "edgecolor": BLUE, "linewidth": 2.2},
    "frozen": {"facecolor": "#eceff2", "edgecolor": GREY, "linewidth": 1.0},
    "function": {"facecolor": PAPER, "edgecolor": GREY, "linewidth": 1.2, "linestyle": (0, (4, 3))},
}
MEANINGS = {
    "trained": "trained: weights, gradients, optimiser",
    "frozen": "frozen: weights only",
    "function": "no weights: a few lines of code",
}
TOP, STEP, HIGH, WIDE, GAP = 1.12, 0.72, 0.62, 2.8, 0.15  # inches: of the boxes, and of the columns


@house_style()
def plot_methods_map() -> Figure:
    """RLHF with PPO, DPO and GRPO side by side: the models that each keeps in memory, which are trained and which are
    frozen, and what each learns from."""
    figure, axes = canvas(5.3)
    left = (WIDTH - 3 * WIDE - 2 * GAP) / 2
    for column, method in enumerate(METHODS):
        _draw_method(axes, method, left + column * (WIDE + GAP))
    for x, (kind, meaning) in zip((0.3, 3.75, 6.2), MEANINGS.items(), strict=True):
        _box(axes, x, 4.98, 0.3, 0.2, kind)
        axes.text(x + 0.4, 5.08, meaning, fontsize=8.5, va="center_baseline")
    return figure


def _draw_method(axes: Axes, method: Method, x: float) -> None:
    """One column: its name, its parts from the top, what it learns from."""
    middle = x + WIDE / 2
    card(axes, x, 0.1, WIDE, 4.72)
    models = sum(part.kind != "function" for part in method.parts)
    axes.text(middle, 0.35, method.name, fontsize=11, weight="bold", **CENTRED)
    axes.text(middle, 0.62, method.source, fontsize=8, color=GREY, **CENTRED)
    axes.text(middle, 0.9, f"{models} models in memory", fontsize=9, **CENTRED)
    for row, part in enumerate(method.parts):
        y = TOP + row * STEP
        _box(axes, x + 0.12, y, WIDE - 0.24, HIGH, part.kind)
        weight = "bold" if part.kind == "trained" else "normal"
        axes.text(middle, y + 0.21, part.name, fontsize=9.5, weight=weight, color=INK, **CENTRED)
        axes.text(middle, y + 0.44, part.use, fontsize=7.5, color=GREY, **CENTRED)
    axes.text(middle, 4.12, "learns from", fontsize=8, color=GREY, **CENTRED)
    axes.text(middle, 4.46, method.learns_from, fontsize=8.5, linespacing=1.35, **CENTRED)


def _box(axes: Axes, x: float, y: float, wide: float, high: float, kind: str) -> None:
    card(axes, x, y, wide, high, boxstyle="round,pad=0,rounding_size=0.05", **LOOKS[kind])
