"""Several responses to one image, side by side with the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from favor_lab.grpo.rewards import format_reward, is_right
from favor_lab.show.groups import LINE, completion_lines, draw_completion
from favor_lab.show.layout import CARD, canvas, place_image
from favor_lab.show.style import BLUE, FAINT, GREY, VERMILLION, WIDTH, house_style
from favor_lab.show.text import CENTRED, RIGHT_MARK, WRONG_MARK, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

LEFT, TOP = 2.6, 0.45  # inches: where the cards begin


@house_style()
def plot_responses(
    image: Image, label: str, responses: Mapping[str, str], style: str = "think", title: str = ""
) -> Figure:
    """One image with its gold label, and a card for each response, by name: its text, and whether it is right and well
    formed. Tags are pale; text outside of them is vermillion. style: the one that was asked for.

    ValueError without a response.
    """
    if not responses:
        raise ValueError("plot_responses needs at least one response, for example {'before training': text}")
    width = (WIDTH - LEFT - 0.2) / len(responses)
    rows = {name: completion_lines(text, width - 0.35) for name, text in responses.items()}
    tallest = LINE * max(map(len, rows.values())) + 1.05
    top = TOP if title else 0.15
    figure, axes = canvas(top + max(tallest, 2.55) + 0.1)
    axes.text(0.2, 0.24, printable(title), fontsize=11, weight="bold", va="center")
    side = [2.0 * pixels / max(image.size) for pixels in image.size]
    place_image(figure, image, 0.2 + (2.0 - side[0]) / 2, top, *side)
    axes.text(1.2, top + side[1] + 0.18, printable(label), fontsize=10.5, weight="bold", **CENTRED)
    axes.text(1.2, top + side[1] + 0.38, "gold label", fontsize=8, color=GREY, **CENTRED)
    for place, (name, lines) in enumerate(rows.items()):
        x, text = LEFT + place * width, responses[name]
        axes.fill_between([x, x + width - 0.15], top, top + tallest, facecolor=CARD, edgecolor=FAINT)
        axes.text(x + 0.12, top + 0.22, printable(name), fontsize=10.5, weight="bold", va="center")
        draw_completion(axes, top + 0.45 + LINE * len(lines) / 2, lines, left=x + 0.12)
        verdicts = (
            ("right" if (right := is_right(text, label, style)) else "wrong", right),
            ("well formed" if (formed := bool(format_reward([text], style)[0])) else "not well formed", formed),
        )
        for i, (verdict, holds) in enumerate(verdicts):
            mark, colour = (RIGHT_MARK, BLUE) if holds else (WRONG_MARK, VERMILLION)
            place_of = (x + 0.12 + 0.8 * i, top + tallest - 0.24)
            axes.text(*place_of, f"{mark} {verdict}", color=colour, fontsize=9, va="center")
    return figure
