"""One group of completions as a figure: the image, the texts, their rewards and advantages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.responses import split_tags
from favor_lab.show.layout import canvas, place_image
from favor_lab.show.style import BLUE, FAINT, GREY, INK, PAPER, VERMILLION, WIDTH, house_style
from favor_lab.show.text import CENTRED, RIGHT_MARK, WRONG_MARK, printable, short_name, signed, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

Line = list[tuple[float, str, str]]  # of (x in inches, word, kind); see `split_tags` for the kinds

KIND_COLOURS = {"tag": "#98a2ad", "outside": VERMILLION, "think": "#3e4a57", "answer": INK}
UNEARNED = "#aab3bd"  # edge of the disc of a reward of 0
TEXT_SIZE, LINE = 8.5, 0.165  # points; inches from one line to the next
TEXT_LEFT, COLUMN, BAR = 2.75, 0.6, 0.6  # inches: left edge of the texts, width of a reward, longest bar


def completion_lines(text: str, width: float, max_lines: int = 6) -> list[Line]:
    """Break a completion into lines of a width in inches; of a very long one the middle is left out.

    The answer starts a new line, whatever the completion has there, so that it is easy to find.
    """
    lines: list[Line] = [[]]
    x = 0.0
    for word, kind in _words(text):
        if lines[-1] and (word == "<answer>" or x + _width(word.rstrip(), kind) > width):
            before_tag = lines[-1].pop() if word.startswith("</") and len(lines[-1]) > 1 else None
            lines.append([(0.0, *before_tag[1:])] if before_tag else [])  # a closing tag stays with the word before it
            x = _width(*before_tag[1:]) if before_tag else 0.0
        lines[-1].append((x, word.rstrip(), kind))
        x += _width(word, kind)
    if len(lines) > max_lines:
        lines = lines[: max_lines - 2] + [[(0.0, "[...]", "tag")]] + lines[-1:]
    return lines if lines[0] else [[(0.0, "(nothing written)", "outside")]]


def _words(text: str) -> list[tuple[str, str]]:
    """A completion as words with their kind.

    >>> _words("<answer>riding a bike</answer>")[1]
    ('riding ', 'answer')
    """
    words = []
    for piece, kind in split_tags(printable(text)):
        pieces = [piece] if kind == "tag" else re.findall(r"\S{1,24}\s*|\s+", piece)
        words += [(word, kind) for word in pieces]
    return words


def _width(word: str, kind: str) -> float:
    return text_width(word, TEXT_SIZE, bold=kind == "answer")


def draw_completion(
    axes: Axes, y: float, lines: list[Line], right: bool | None = None, left: float = TEXT_LEFT
) -> None:
    """The lines of a completion, centred on y; with a mark at the left if it is known to be right or wrong."""
    colour = {None: INK, True: BLUE, False: VERMILLION}[right]
    if right is not None:
        axes.text(left - 0.16, y, RIGHT_MARK if right else WRONG_MARK, fontsize=11, color=colour, **CENTRED)
    for i, line in enumerate(lines):
        baseline = y + LINE * (i - (len(lines) - 1) / 2) + 0.04
        for x, word, kind in line:
            ink, weight = (colour, "bold") if kind == "answer" else (KIND_COLOURS[kind], "normal")
            axes.text(left + x, baseline, word, fontsize=TEXT_SIZE, va="baseline", color=ink, weight=weight)


def draw_reward(axes: Axes, x: float, y: float, value: float) -> None:
    """A reward as a disc: filled as far as it was earned, with its number inside; wide enough for a share like 0.33."""
    earned, number = min(max(value, 0.0), 1.0), f"{value:.2g}"
    area = {1: 230, 2: 230, 3: 270, 4: 400}.get(len(number), 560)  # square points
    axes.scatter([x], [y], s=area, facecolor=BLUE, alpha=earned, linewidth=0)
    axes.scatter([x], [y], s=area, facecolor="none", edgecolor=BLUE if earned else UNEARNED, linewidth=1)
    ink = PAPER if earned > 0.5 else INK if earned else GREY
    axes.text(x, y, number, ha="center", va="center_baseline", fontsize=8 if len(number) < 4 else 7.5, color=ink)


def draw_advantage(axes: Axes, centre: float, y: float, value: float, limit: float) -> None:
    """An advantage as a bar from the centre, with its number on the other side."""
    axes.barh(y, BAR * value / limit, height=0.2, left=centre, color=BLUE if value > 0 else VERMILLION)
    x, number = centre - math.copysign(0.06, value), signed(value) if value else "0"
    axes.text(x, y, number, fontsize=8, va="center_baseline", ha="right" if value >= 0 else "left")


@house_style()
def plot_group(
    image: Image,
    label: str,
    texts: Sequence[str],
    rewards: Mapping[str, Sequence[float]],
    advantages: Sequence[float],
    title: str = "",
    sort: bool = True,
) -> Figure:
    """One group: the image, its G completions as they were written, their rewards and their advantages.

    `rewards` maps a reward's name to G numbers and `advantages` holds G numbers (both may be tensors or arrays);
    `sort` puts the highest advantage on top. Tags are pale; text outside of them is vermillion: it breaks the format.
    """
    columns, scores = _group_numbers(len(texts), rewards, advantages)
    order = sorted(range(len(texts)), key=lambda g: -scores[g]) if sort else range(len(texts))
    room = WIDTH - TEXT_LEFT - COLUMN * len(columns) - 2 * BAR - 0.3  # for the texts
    rows = {g: completion_lines(texts[g], room - 0.1) for g in order}
    heights = {g: max(len(lines) * LINE + 0.2, 0.4) for g, lines in rows.items()}
    top = 0.95 if title else 0.45
    figure, axes = canvas(top + max(sum(heights.values()), TEXT_LEFT - 0.1) + 0.3)
    _draw_image(figure, axes, title, image, label, top)
    centre, y, limit = WIDTH - BAR - 0.2, top, max([1.0, *map(abs, scores)])
    reward_x = {name: TEXT_LEFT + room + COLUMN * (i + 0.5) for i, name in enumerate(columns)}
    head: dict[str, Any] = {"va": "center", "fontsize": 8.5, "weight": "bold", "color": GREY}
    axes.text(TEXT_LEFT, top - 0.14, f"G = {len(texts)} completions", **head)
    for name, x in (reward_x | {"advantage": centre}).items():
        axes.text(x, top - 0.14, printable(name), ha="center", **head)
    for g, lines in rows.items():
        middle = y + heights[g] / 2
        axes.plot([TEXT_LEFT - 0.28, WIDTH - 0.2], [y, y], color=FAINT, linewidth=0.8)
        draw_completion(axes, middle, lines, bool(columns["accuracy"][g]) if "accuracy" in columns else None)
        for name, column in columns.items():
            draw_reward(axes, reward_x[name], middle, column[g])
        draw_advantage(axes, centre, middle, scores[g], limit)
        y += heights[g]
    axes.plot([centre, centre], [top, y], color=GREY, linewidth=0.8)
    flat = "" if any(scores) else "no spread in rewards: zero policy gradient"
    axes.text(WIDTH - 0.2, y + 0.14, flat, ha="right", fontsize=8, color=GREY)
    return figure


def plot_samples(image: Image, samples: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """`plot_group` of one group of samples, as in `StepRecord.samples`."""
    rewards = {name: [sample["rewards"][name] for sample in samples] for name in samples[0]["rewards"]}
    advantages = [sample["advantage"] or 0.0 for sample in samples]
    return plot_group(image, samples[0]["label"], [sample["text"] for sample in samples], rewards, advantages, title)


def _group_numbers(
    count: int, rewards: Mapping[str, Sequence[float]], advantages: Sequence[float]
) -> tuple[dict[str, list[float]], list[float]]:
    """Rewards by column head, and advantages, as floats; ValueError unless each has one number per completion."""
    columns = {short_name(name): [float(value) for value in values] for name, values in rewards.items()}
    scores = [float(value) for value in advantages]
    counts = {name: len(column) for name, column in columns.items()} | {"advantages": len(scores)}
    if not count or set(counts.values()) != {count}:
        raise ValueError(f"plot_group needs one number per completion: {count} completions, but {counts}")
    return columns, scores


def _draw_image(figure: Figure, axes: Axes, title: str, image: Image, label: str, top: float) -> None:
    """The title, and below it the image with its gold label, at the left of the rows."""
    axes.text(0.25, 0.36, printable(title), fontsize=12.5, weight="bold", va="center")
    side = TEXT_LEFT - 0.7
    wide, high = (side * pixels / max(image.size) for pixels in image.size)
    place_image(figure, image, 0.25 + (side - wide) / 2, top, wide, high)
    centre, below = 0.25 + side / 2, top + high
    axes.text(centre, below + 0.2, printable(label), fontsize=10.5, weight="bold", **CENTRED)
    axes.text(centre, below + 0.4, "gold label", fontsize=8, color=GREY, **CENTRED)
