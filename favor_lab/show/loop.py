"""The loop of GRPO in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from favor_lab.show.groups import completion_lines, draw_advantage, draw_completion, draw_reward
from favor_lab.show.layout import arrow, canvas, card, place_image
from favor_lab.show.style import BLUE, GREY, INK, PAPER, VERMILLION, house_style
from favor_lab.show.text import CENTRED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

TEXTS = ("riding a bike", "pushing a cart", "Riding a bike.", "bike bike bike")
REWARDS = {"accuracy": (1.0, 0.0, 1.0, 0.0), "format": (1.0, 1.0, 1.0, 0.0)}
STEPS = (  # left edge and width in inches, name of the step, what it answers, the library's functions
    (1.9, 2.45, "sample", "G completions for one image,\nthe prompt read once", "sample_groups"),
    (4.53, 1.3, "judge", "right label?\nright form?", "accuracy_reward\nformat_reward"),
    (6.01, 1.4, "compare", "better or worse\nthan its own group?", "group_advantages"),
    (7.59, 1.25, "learn", "likelier if better,\nrarer if worse", "grpo_loss"),
)
ROWS = (1.55, 1.97, 2.39, 2.81)  # inches from the top
Point = tuple[float, float]


@house_style()
def plot_loop(image: Image | None = None, step: str = "") -> Figure:
    """The loop in one picture: four toy completions of "riding a bike" run through the four steps.

    `image` is drawn at the left (a scene that shows riding a bike); the advantages are the library's. step: one of
    sample, judge, compare, learn, to be marked as the one that a page is about. ValueError for any other.
    """
    import torch

    from favor_lab.grpo.advantages import group_advantages

    names = [name for _, _, name, _, _ in STEPS]
    if step not in ("", *names):
        raise ValueError(f"unknown step {step!r} of the loop; the steps are {', '.join(names)}")
    figure, axes = canvas(4.35)
    _draw_steps(axes, step)
    totals = [sum(values) for values in zip(*REWARDS.values(), strict=True)]
    _draw_completions(axes, group_advantages(torch.tensor([totals]))[0].tolist())
    if image is not None:
        place_image(figure, image, 0.2, 1.15, 1.45, 1.45)
    axes.text(0.925, 0.95, "an image and\nthe labels to choose from", fontsize=8, color=GREY, **CENTRED)
    axes.text(0.925, 2.8, "gold label:\nriding a bike", fontsize=8.5, weight="bold", **CENTRED)
    x = STEPS[3][0] + STEPS[3][1] / 2
    axes.plot([x, x, 0.925], [3.6, 4.0, 4.0], color=GREY, linewidth=1.4)
    arrow(axes, (0.925, 4.0), (0.925, 3.1))
    back = "the policy has moved a little: next step, next images"
    axes.text(4.9, 4.0, back, fontsize=9, backgroundcolor=PAPER, **CENTRED)
    return figure


def _draw_steps(axes: Axes, here: str) -> None:
    """A card for each step of the loop; the one that is named is framed, and says so."""
    for number, (x, width, step, question, functions) in enumerate(STEPS, 1):
        frame = {"edgecolor": BLUE, "linewidth": 2.6, "facecolor": PAPER} if step == here else {}
        card(axes, x, 0.3, width, 3.3, **frame)
        if step == here:
            axes.text(x + width / 2, 0.17, "you are here", fontsize=8.5, color=BLUE, weight="bold", **CENTRED)
        axes.scatter([x + 0.25], [0.58], s=230, color=INK)
        axes.text(x + 0.25, 0.58, str(number), color=PAPER, weight="bold", ha="center", va="center_baseline")
        axes.text(x + 0.46, 0.58, step, fontsize=11.5, weight="bold", va="center_baseline")
        axes.text(x + width / 2, 1.03, question, fontsize=8, color=GREY, linespacing=1.3, **CENTRED)
        axes.text(x + width / 2, 3.3, functions, fontsize=7.5, family="monospace", **CENTRED)
        arrow(axes, (x - 0.18, 2.18), (x, 2.18))


def _draw_completions(axes: Axes, advantages: Sequence[float]) -> None:
    """One row per completion, through all four cards."""
    lefts = [card[0] for card in STEPS]
    for g, (y, text) in enumerate(zip(ROWS, TEXTS, strict=True)):
        rewards = [values[g] for values in REWARDS.values()]
        tagged = f"<answer>{text}</answer>" if rewards[1] else text
        draw_completion(axes, y, completion_lines(tagged, 3.0), left=lefts[0] + 0.12)
        for x, value in zip((lefts[1] + 0.38, lefts[1] + 0.92), rewards, strict=True):
            draw_reward(axes, x, y, value)
        draw_advantage(axes, lefts[2] + 0.7, y, advantages[g], 1.5)
        x, up = lefts[3] + 0.62, 0.14 if advantages[g] > 0 else -0.14
        arrow(axes, (x, y + up), (x, y - up), BLUE if up > 0 else VERMILLION, 1 + 2 * abs(advantages[g]))
    axes.plot([lefts[2] + 0.7] * 2, [ROWS[0] - 0.2, ROWS[-1] + 0.2], color=GREY, linewidth=0.8)
