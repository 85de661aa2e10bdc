"""One completion under the microscope: what each token contributes to the loss, as numbers, as HTML, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.grpo.losses import aggregate, bounded, bounded_surrogate, by_token, grpo_loss, k3_kl, row_mean
from favor_lab.study.markup import signed
from favor_lab.study.plots import (
    BLUE,
    FAINT,
    GREY,
    INK,
    PAPER,
    VERMILLION,
    WIDTH,
    _canvas,
    _printable,
    _styled,
    _text_width,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from favor_lab.grpo.sampling import Rollout

THOUSANDTHS = 1000.0  # of the loss: the unit in which the parts of single tokens can be read


# ------------------------------------------------------------------------------------------------------ the numbers


def token_losses(
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
    beta: float = 0.04,
    how: str = "grpo",
    level: str = "token",
    *,
    clip_high: float | None = None,
    ratio_max: float = 5.0,
    weigh_kl: bool = False,
    max_length: int | None = None,
) -> dict[str, Tensor]:
    """`grpo_loss`, which has the same arguments, token by token: (N, L) each, 0 where the mask is False.

    ratio: now over when sampled (of the row, if level is "sequence"); kl: k3, in nats;
    loss: what the token adds to the loss, so that the sum over all tokens of all rows is the loss;
    push: minus the derivative of the loss by the token's log-probability: above 0, the step makes it likelier;
    muted: 1 where the clip has taken the surrogate's gradient away.
    Raises ArithmeticError if the parts do not add up to `grpo_loss`.

    >>> now, old, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.0, -1.0]]), torch.ones(1, 2).bool()
    >>> parts = token_losses(now, old, None, torch.tensor([1.0]), mask, beta=0.0)
    >>> parts["loss"], parts["push"], parts["loss"].sum()
    (tensor([[-0.5000, -0.1839]]), tensor([[0.5000, 0.1839]]), tensor(-0.6839))
    """
    options: dict[str, Any] = {
        "clip": clip, "how": how, "level": level, "clip_high": clip_high, "ratio_max": ratio_max,
        "weigh_kl": weigh_kl, "max_length": max_length,
    }  # fmt: skip
    logps, old_logps, advantages = (values.detach().double() for values in (logps, old_logps, advantages))
    ref_logps = None if ref_logps is None else ref_logps.detach().double()
    loss, slope = _slope(beta, logps, old_logps, ref_logps, advantages, mask, options)
    of_surrogate = _slope(0.0, logps, old_logps, None, advantages, mask, options)[1]  # (N, L)
    now, old = (logps, old_logps) if level == "token" else (row_mean(logps, mask), row_mean(old_logps, mask))
    ratio = bounded(now - old).exp().expand(mask.shape)  # (N, L)
    kl = torch.zeros_like(logps) if ref_logps is None else k3_kl(logps, ref_logps)  # (N, L)
    surrogate, _, _ = bounded_surrogate(now, old, advantages, how, clip, clip_high, ratio_max)
    per_token = beta * kl * (ratio if weigh_kl else 1.0) - surrogate  # (N, L)
    parts = per_token.masked_fill(~mask, 0.0) * token_weights(mask, how, max_length)  # (N, L)
    if not torch.isclose(parts.sum(), loss, rtol=1e-6, atol=1e-9):
        raise ArithmeticError(f"the tokens' parts add up to {parts.sum().item()}, but the loss is {loss.item()}")
    muted = (of_surrogate == 0) & (by_token(advantages) != 0)  # (N, L)
    named = {"logp": logps, "ratio": ratio, "kl": kl, "loss": parts, "push": -slope, "muted": muted.double()}
    return {name: values.masked_fill(~mask, 0.0).float() for name, values in named.items()}


@torch.enable_grad()
def _slope(
    beta: float, logps: Tensor, old: Tensor, ref: Tensor | None, advantages: Tensor, mask: Tensor, options: dict
) -> tuple[Tensor, Tensor]:
    """`grpo_loss`, and its derivative by each log-probability: a scalar and (N, L)."""
    now = logps.clone().requires_grad_()
    loss = grpo_loss(now, old, ref, advantages, mask, beta=beta, **options)[0]
    return loss.detach(), torch.autograd.grad(loss, now)[0]


@torch.enable_grad()
def token_weights(mask: Tensor, how: str = "grpo", max_length: int | None = None) -> Tensor:
    """How much each token counts in `aggregate`, which is linear: its derivative by the token, (N, L).

    >>> token_weights(torch.tensor([[True, True], [True, False]]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]], dtype=torch.float64)
    """
    ones = torch.ones(mask.shape, dtype=torch.float64, device=mask.device, requires_grad=True)
    return torch.autograd.grad(aggregate(ones, mask, how, max_length), ones)[0]


@dataclass(frozen=True)
class Token:
    """One token of a completion: a row of the table. See `token_losses` for the numbers."""

    text: str  # what it adds to the text; "" while a character is not complete
    logp: float
    ratio: float
    kl: float
    loss: float
    push: float
    muted: bool
    end: bool  # the token that ends the completion


def token_table(tokenizer: Any, rollout: Rollout, row: int, parts: dict[str, Tensor]) -> list[Token]:
    """The tokens of completion `row` with their numbers, end token included. parts: of `token_losses`, (N, L) each."""
    mask = rollout.mask[row]  # (L,)
    ids = rollout.completion_ids[row][mask].tolist()
    columns = {name: values[row][mask].tolist() for name, values in parts.items()}
    texts = token_texts(tokenizer, ids)
    return [
        Token(
            text=text,
            **{name: columns[name][j] for name in ("logp", "ratio", "kl", "loss", "push")},
            muted=bool(columns["muted"][j]),
            end=ids[j] in rollout.end_token_ids,
        )
        for j, text in enumerate(texts)
    ]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text. Bytes of a character that is not complete yet add nothing: ""."""
    texts, shown = [], ""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        unfinished = text.endswith("\N{REPLACEMENT CHARACTER}") and count < len(ids)
        texts.append("" if unfinished else text[len(shown) :])
        shown = shown if unfinished else text
    return texts


# ---------------------------------------------------------------------------------------------------------- colours


@dataclass(frozen=True)
class Quantity:
    """What can be shown of a token: its unit, how it is read, and the least difference that is given full colour."""

    field: str
    unit: str
    least: float
    factor: float = 1.0  # from the token's number to the unit
    ratio: bool = False  # compared with 1 and on a logarithmic scale

    def number(self, token: Token) -> float:
        return self.factor * getattr(token, self.field)

    def distance(self, token: Token) -> float:
        """From what is neutral, 0 or the ratio 1; its sign chooses the colour."""
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
    full, depth = BLUE if share > 0 else VERMILLION, min(abs(share), 1.0)
    mixed = [255 + depth * (int(full[i : i + 2], 16) - 255) for i in (1, 3, 5)]  # red, green, blue
    light = sum(w * (part / 255) ** 2.2 for w, part in zip((0.2126, 0.7152, 0.0722), mixed, strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in mixed), INK if light > 0.24 else PAPER


def scale_ends(tokens: Sequence[Token], quantity: Quantity) -> list[tuple[float, str]]:
    """The legend: shares of the limit, and the numbers that stand for them; one-sided where nothing is on a side."""
    limit = colour_limit(tokens, quantity)
    seen = [quantity.distance(token) / limit for token in tokens if abs(quantity.distance(token)) > 0.02 * limit]
    shares = [-1.0] * any(share < 0 for share in seen) + [0.0] + [1.0] * any(share > 0 for share in seen)
    shares = shares if len(shares) > 1 else [-1.0, 0.0, 1.0]
    return [(share, quantity.text(math.exp(share * limit) if quantity.ratio else share * limit)) for share in shares]


# ------------------------------------------------------------------------------------------------------------- HTML

TOKEN_CSS = f"""<style>
.fl-tokens {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; margin: 10px 0 4px;
  unicode-bidi: isolate; }}
.fl-tokens span {{ border-radius: 3px; padding: 3px 1px; margin-right: 1px; line-height: 2; cursor: help; }}
.fl-tokens span:hover {{ outline: 2px solid {INK}; }}
.fl-tokens .fl-muted {{ border-bottom: 2px dashed {INK}; }}
.fl-tokens .fl-end {{ border: 1px solid {GREY}; padding: 1px 5px; margin-left: 4px; font-size: 11px; }}
.fl-scale {{ display: inline-flex; border: 1px solid {FAINT}; border-radius: 3px; overflow: hidden; font-size: 12px;
  margin: 0 8px; vertical-align: middle; font-variant-numeric: tabular-nums; }}
.fl-scale span {{ padding: 1px 9px; }}
</style>"""


def tokens_html(tokens: Sequence[Token], name: str) -> str:
    """A completion with one quantity as colour on its tokens, a legend with numbers, and all numbers on hovering.

    name: a key of QUANTITIES. The text is escaped; a token that the clip mutes is underlined with dashes.
    """
    quantity, limit = QUANTITIES[name], colour_limit(tokens, QUANTITIES[name])
    spans = []
    for place, token in enumerate(tokens, start=1):
        background, ink = colours(quantity.distance(token) / limit)
        kinds = " ".join(["fl-token"] + ["fl-muted"] * token.muted + ["fl-end"] * token.end)
        hint = escape(token_hint(token, place, len(tokens))).replace("\n", "&#10;")
        text = escape(visible(token)).replace("\n", "<br>")
        spans.append(f'<span class="{kinds}" style="background:{background};color:{ink}" title="{hint}">{text}</span>')
    ends = scale_ends(tokens, quantity)
    scale = "".join(
        '<span style="background:{};color:{}">{}</span>'.format(*colours(share), number) for share, number in ends
    )
    muted = " Dashed: muted by the clip." if any(token.muted for token in tokens) else ""
    legend = f'<span class="fl-scale">{scale}</span><span class="fl-note">{escape(quantity.unit)}.{muted}</span>'
    return f'<div><b>{escape(name)}</b>{legend}</div><div class="fl-tokens">{"".join(spans)}</div>'


def visible(token: Token) -> str:
    """The text to show for a token: the end token by name, line breaks and unfinished characters by a mark."""
    if token.end:
        return "end"
    return token.text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n") or "\N{MIDDLE DOT}"


def token_hint(token: Token, place: int, count: int) -> str:
    """All numbers of a token, a line each."""
    lines = [f"token {place} of {count}: {token.text!r}" + " (end)" * token.end]
    for name, quantity in QUANTITIES.items():
        unit = quantity.unit.split(";")[0]
        lines.append(f"{name} {quantity.text(quantity.number(token))} ({unit})")
    return "\n".join(lines + ["muted by the clip"] * token.muted)


# ----------------------------------------------------------------------------------------------------------- figure

_LINE = 0.29  # inches from one line of tokens to the next
_MARGIN = 0.2


@_styled
def plot_tokens(
    tokens: Sequence[Token], names: Sequence[str] = ("ratio", "KL", "share of the loss"), title: str = ""
) -> Figure:
    """A completion with quantities as colour on its tokens, one below the other, each with its scale.

    names: keys of QUANTITIES. A token that the clip mutes is underlined with dashes.
    """
    lines = _token_lines(tokens, WIDTH - 2 * _MARGIN)
    block = 0.42 + _LINE * len(lines) + 0.16
    top = 0.45 if title else 0.1
    height = top + block * len(names) + 0.05
    figure = new_figure(height, layout=None)
    axes = _canvas(figure, WIDTH, height)
    axes.text(_MARGIN, 0.28, _printable(title), fontsize=11, weight="bold", va="center")
    for i, name in enumerate(names):
        y = top + i * block
        _token_scale(axes, y + 0.18, name, tokens)
        _token_block(axes, y + 0.42, lines, tokens, QUANTITIES[name])
    return figure


def _drawn(token: Token) -> str:
    text = visible(token).replace("\n", "")
    lead, trail = len(text) - len(text.lstrip()), len(text) - len(text.rstrip())
    return " " * lead + _printable(text) + " " * (trail if text.strip() else 0)


def _token_lines(tokens: Sequence[Token], width: float) -> list[list[tuple[float, float, int]]]:
    """Lines of (left edge and width in inches, index of the token)."""
    lines: list[list[tuple[float, float, int]]] = [[]]
    x = 0.0
    for i, token in enumerate(tokens):
        wide = max(_text_width(_drawn(token), False), 0.06) + (0.14 if token.end else 0.0)
        if lines[-1] and x + wide > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, wide, i))
        x += wide + 0.015
        if token.text.endswith("\n") and i + 1 < len(tokens):
            lines.append([])
            x = 0.0
    return lines


def _token_block(axes: Axes, top: float, lines: list, tokens: Sequence[Token], quantity: Quantity) -> None:
    from matplotlib.patches import Rectangle

    limit = colour_limit(tokens, quantity)
    for row, line in enumerate(lines):
        y = top + row * _LINE
        for x, wide, i in line:
            token, x = tokens[i], x + _MARGIN
            background, ink = colours(quantity.distance(token) / limit)
            edge = GREY if token.end else "none"
            axes.add_patch(Rectangle((x, y), wide, 0.22, facecolor=background, edgecolor=edge, linewidth=0.8))
            start = x + (0.07 if token.end else 0.0)
            axes.text(start, y + 0.155, _drawn(token), fontsize=8.5, color=ink, va="baseline")
            if token.muted:
                axes.plot([x, x + wide], [y + 0.25] * 2, color=INK, linewidth=1.2, linestyle=(0, (2, 1)))


def _token_scale(axes: Axes, y: float, name: str, tokens: Sequence[Token]) -> None:
    """Name, scale with numbers, and unit of a quantity."""
    from matplotlib.patches import Rectangle

    axes.text(_MARGIN, y, name, fontsize=9, weight="bold", va="center")
    x = _MARGIN + 1.35
    for share, number in scale_ends(tokens, QUANTITIES[name]):
        background, ink = colours(share)
        axes.add_patch(Rectangle((x, y - 0.1), 0.56, 0.2, facecolor=background, edgecolor=FAINT, linewidth=0.8))
        axes.text(x + 0.28, y, number, fontsize=8, color=ink, ha="center", va="center_baseline")
        x += 0.56
    muted = " Dashed: muted by the clip." if any(token.muted for token in tokens) else ""
    axes.text(x + 0.15, y, f"{QUANTITIES[name].unit}.{muted}", fontsize=8, color=GREY, va="center_baseline")
