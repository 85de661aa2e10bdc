"""The tokens of one completion with what they contribute to the loss, as HTML and as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import ImageColor

from favor_lab.show.layout import canvas
from favor_lab.show.markup import Element, element, escaped, joined
from favor_lab.show.style import BLUE, FAINT, GREY, INK, PAPER, VERMILLION, WIDTH, house_style
from favor_lab.show.text import printable, signed, text_width
from favor_lab.study.tokens import Token

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THOUSANDTHS = 1000.0  # of the loss: the unit in which the parts of single tokens can be read
TEXT_SIZE, LINE, MARGIN = 8.5, 0.29, 0.2  # points; inches from one line of tokens to the next, and at the sides


@dataclass(frozen=True)
class Quantity:
    """A number of a token that can be shown: its field, its unit, and the smallest difference that gets full colour."""

    field: str
    unit: str
    least: float
    factor: float = 1.0  # from the token's number to the unit
    ratio: bool = False  # neutral is 1, and the scale is logarithmic

    def number(self, token: Token) -> float:
        return self.factor * getattr(token, self.field)

    def distance(self, token: Token) -> float:
        """Distance from neutral, which is 0, or 1 for a ratio; its sign chooses the colour."""
        return math.log(self.number(token)) if self.ratio else self.number(token)

    def text(self, value: float) -> str:
        return signed(value, ".2f" if self.ratio else ".3f" if self.field == "kl" else "+.2f")


QUANTITIES = {
    "log-probability": Quantity("logp", "nats; 0: certain", 0.1),
    "ratio": Quantity("ratio", "probability now / when sampled", 0.05, ratio=True),
    "KL": Quantity("kl", "nats to the reference (k3)", 0.001),
    "share of the loss": Quantity("loss", "thousandths; all tokens of all rows add up to the loss", 0.01, THOUSANDTHS),
    "push": Quantity("push", "thousandths; above 0: the step makes it likelier", 0.01, THOUSANDTHS),
}


def colour_limit(tokens: Sequence[Token], quantity: Quantity) -> float:
    """The distance from neutral that gets the full colour."""
    return max([quantity.least, *(abs(quantity.distance(token)) for token in tokens)])


def colours(share: float) -> tuple[str, str]:
    """Background and ink for a share of the limit, -1 to 1: white at 0, blue above, vermillion below.

    >>> colours(0.0), colours(1.0)
    (('#ffffff', '#1f2933'), ('#0072b2', '#ffffff'))
    """
    full, depth = ImageColor.getrgb(BLUE if share > 0 else VERMILLION), min(abs(share), 1.0)
    rgb = [255 + depth * (part - 255) for part in full]  # red, green, blue
    light = sum(w * (part / 255) ** 2.2 for w, part in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in rgb), INK if light > 0.24 else PAPER


def scale_ends(tokens: Sequence[Token], quantity: Quantity) -> list[tuple[float, str]]:
    """The legend: shares of the limit, and the numbers that stand for them; one-sided if all are on one side."""
    limit = colour_limit(tokens, quantity)
    seen = [quantity.distance(token) / limit for token in tokens if abs(quantity.distance(token)) > 0.02 * limit]
    shares = [-1.0] * any(share < 0 for share in seen) + [0.0] + [1.0] * any(share > 0 for share in seen)
    shares = shares if len(shares) > 1 else [-1.0, 0.0, 1.0]
    return [(share, quantity.text(math.exp(share * limit) if quantity.ratio else share * limit)) for share in shares]


def scale_note(tokens: Sequence[Token], quantity: Quantity) -> str:
    """What stands beside the scale: the unit, and what dashes mean if a token has them."""
    return f"{quantity.unit}.{' Dashed: muted by the clip.' if any(token.muted for token in tokens) else ''}"


def tokens_html(tokens: Sequence[Token], name: str) -> Element:
    """A completion with one quantity as colour on its tokens, a legend with numbers, and all numbers on hovering.

    name: a key of QUANTITIES. The text is escaped; a token that the clip mutes is underlined with dashes.
    """
    quantity, limit = QUANTITIES[name], colour_limit(tokens, QUANTITIES[name])
    spans = []
    for number, token in enumerate(tokens, start=1):
        kinds = " ".join(["fl-token"] + ["fl-muted"] * token.muted + ["fl-end"] * token.end)
        hint, style = token_hint(token, number, len(tokens)), _style(quantity.distance(token) / limit)
        text = Element(escaped(visible(token)).replace("\n", "<br>"))
        spans.append(element("span", text, class_=kinds, style=style, title=hint))
    ends = [element("span", number, style=_style(share)) for share, number in scale_ends(tokens, quantity)]
    note = element("span", scale_note(tokens, quantity), class_="fl-note")
    legend = element("div", element("b", name), element("span", *ends, class_="fl-scale"), note)
    return joined(legend, element("div", *spans, class_="fl-tokens"))


def _style(share: float) -> str:
    return "background:{};color:{}".format(*colours(share))


def visible(token: Token) -> str:
    """The text to show for a token: the end token by name, line breaks and incomplete characters by a mark."""
    if token.end:
        return "end"
    return token.text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n") or "\N{MIDDLE DOT}"


def token_hint(token: Token, number: int, count: int) -> str:
    """All numbers of a token, one per line."""
    lines = [f"token {number} of {count}: {token.text!r}" + " (end)" * token.end]
    for name, quantity in QUANTITIES.items():
        unit = quantity.unit.split(";")[0]
        lines.append(f"{name} {quantity.text(quantity.number(token))} ({unit})")
    return "\n".join(lines + ["muted by the clip"] * token.muted)


@house_style()
def plot_tokens(
    tokens: Sequence[Token], names: Sequence[str] = ("ratio", "KL", "share of the loss"), title: str = ""
) -> Figure:
    """A completion with quantities as colour on its tokens, one below the other, each with its scale.

    names: keys of QUANTITIES. A token that the clip mutes is underlined with dashes.
    """
    lines = _token_lines(tokens, WIDTH - 2 * MARGIN)
    block = 0.42 + LINE * len(lines) + 0.16
    top = 0.45 if title else 0.1
    figure, axes = canvas(top + block * len(names) + 0.05)
    axes.text(MARGIN, 0.28, printable(title), fontsize=11, weight="bold", va="center")
    for i, name in enumerate(names):
        y = top + i * block
        _token_scale(axes, y + 0.18, name, tokens)
        _token_block(axes, y + 0.42, lines, QUANTITIES[name], colour_limit(tokens, QUANTITIES[name]))
    return figure


def _drawn(token: Token) -> str:
    """The text of a token in a figure, with its leading and trailing spaces."""
    text = visible(token).replace("\n", "")
    lead, trail = len(text) - len(text.lstrip()), len(text) - len(text.rstrip())
    return " " * lead + printable(text) + " " * (trail if text.strip() else 0)


def _token_lines(tokens: Sequence[Token], width: float) -> list[list[tuple[float, float, Token]]]:
    """Lines of tokens, with their left edge and their width in inches."""
    lines: list[list[tuple[float, float, Token]]] = []
    x, line_ends = 0.0, True
    for token in tokens:
        wide = max(text_width(_drawn(token), TEXT_SIZE), 0.06) + (0.14 if token.end else 0.0)
        if line_ends or x + wide > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, wide, token))
        x, line_ends = x + wide + 0.015, token.text.endswith("\n")
    return lines or [[]]


def _token_block(axes: Axes, top: float, lines: list, quantity: Quantity, limit: float) -> None:
    """The tokens as coloured boxes."""
    for row, line in enumerate(lines):
        y = top + row * LINE
        for left, wide, token in line:
            x = left + MARGIN
            ink = _box(axes, x, y, wide, 0.22, quantity.distance(token) / limit, GREY if token.end else "none")
            start = x + (0.07 if token.end else 0.0)
            axes.text(start, y + 0.155, _drawn(token), fontsize=TEXT_SIZE, color=ink, va="baseline")
            if token.muted:
                axes.plot([x, x + wide], [y + 0.25] * 2, color=INK, linewidth=1.2, linestyle=(0, (2, 1)))


def _token_scale(axes: Axes, y: float, name: str, tokens: Sequence[Token]) -> None:
    """Name, scale with numbers, and unit of a quantity."""
    axes.text(MARGIN, y, name, fontsize=9, weight="bold", va="center")
    x = MARGIN + 1.35
    for share, number in scale_ends(tokens, QUANTITIES[name]):
        ink = _box(axes, x, y - 0.1, 0.56, 0.2, share, FAINT)
        axes.text(x + 0.28, y, number, fontsize=8, color=ink, ha="center", va="center_baseline")
        x += 0.56
    note = scale_note(tokens, QUANTITIES[name])
    axes.text(x + 0.15, y, note, fontsize=8, color=GREY, va="center_baseline")


def _box(axes: Axes, left: float, top: float, wide: float, high: float, share: float, edge: str) -> str:
    """A box in the colour of a share of the limit; returns the ink for a text on it."""
    from matplotlib.patches import Rectangle

    background, ink = colours(share)
    axes.add_patch(Rectangle((left, top), wide, high, facecolor=background, edgecolor=edge, linewidth=0.8))
    return ink
