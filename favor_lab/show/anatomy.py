"""Two drawings of what a model computes: from an image to the next token, and a prompt that its group shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from favor_lab.show.layout import arrow, canvas, card, place_image
from favor_lab.show.style import BLUE, GREY, INK, ORANGE, PAPER, SKY, house_style
from favor_lab.show.text import CENTRED, printable, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from favor_lab.budget.shapes import ModelShape

TEXT_TOKEN = "#e3e7ea"  # face of a text token; image tokens are SKY, special ones ORANGE
DRAWN_COLUMNS = 22  # of a prompt
MOST_CELLS = 12  # drawn along one side of a grid of patches; a larger grid is drawn with as many


@house_style()
def plot_anatomy(
    image: Image, shape: ModelShape, grid: tuple[int, int], text_tokens: tuple[int, int], next_token: str = "<think"
) -> Figure:
    """From an image to the next token: patches, tower, merger, prompt, language model, with the numbers of a model.

    image: as the tower sees it. grid: rows and columns of its patches. text_tokens: before and after the image tokens.
    """
    rows, columns = grid
    patches, image_tokens = rows * columns, rows * columns // shape.merge**2
    figure, axes = canvas(5.15)
    _part(axes, 0.1, 2.35, "Part 1 \N{MIDDLE DOT} from pixels to image tokens")
    place_image(figure, image, 0.3, 0.75, 1.1, 1.1)
    axes.text(0.85, 2.15, f"image\n{image.width} x {image.height} pixels", fontsize=8.5, **CENTRED)
    cells = (min(rows, MOST_CELLS), min(columns, MOST_CELLS))
    _grid(axes, 2.0, 0.75, 1.1, *cells, "#cfd6dd")
    axes.text(2.55, 2.15, f"{patches} patches\n{shape.patch_values} values each", fontsize=8.5, **CENTRED)
    attends = f"{shape.tower_layers} blocks: every patch\nattends to every patch"
    _card(axes, 3.65, 0.8, 1.75, 1.0, "vision tower", attends)
    axes.text(4.53, 2.15, f"{patches} vectors\nof {shape.tower_width} numbers", fontsize=8.5, **CENTRED)
    _card(axes, 5.85, 0.8, 1.15, 1.0, "merger", f"{shape.merge} x {shape.merge} vectors\nbecome one")
    _grid(axes, 7.55, 0.75, 1.1, max(1, cells[0] // shape.merge), max(1, cells[1] // shape.merge), SKY)
    axes.text(8.1, 2.15, f"{image_tokens} image tokens\nof {shape.hidden} numbers (D)", fontsize=8.5, **CENTRED)
    for x, end in ((1.47, 1.95), (3.17, 3.63), (5.42, 5.83), (7.02, 7.5)):
        arrow(axes, (x, 1.3), (end, 1.3))
    _part(axes, 2.75, 2.3, "Part 2 \N{MIDDLE DOT} positions and the language model", left=2.1)
    _draw_prompt(axes, image_tokens, text_tokens)
    axes.plot([8.1, 8.1, 1.53], [2.36, 2.6, 2.6], color=GREY, linewidth=1.4)
    arrow(axes, (1.53, 2.6), (1.53, 3.68))
    prompt_tokens = image_tokens + sum(text_tokens)
    attends = f"{shape.layers} layers: each token attends\nto itself and earlier ones"
    _card(axes, 4.1, 3.35, 1.9, 1.05, "language model", attends)
    states = f"{prompt_tokens} hidden states of {shape.hidden}:\nthe last one predicts"
    axes.text(5.05, 4.75, states, fontsize=8.5, **CENTRED)
    _card(axes, 6.45, 3.35, 1.05, 1.05, "head", "a number for\neach token")
    axes.text(6.98, 4.75, f"{shape.vocabulary:,} logits\nof the vocabulary", fontsize=8.5, **CENTRED)
    wide = max(0.75, text_width(printable(next_token), 9) + 0.16)
    _token(axes, 8.02, 3.73, wide, printable(next_token), TEXT_TOKEN, 9)
    axes.text(8.02 + wide / 2, 4.75, "the next token,\nsampled", fontsize=8.5, **CENTRED)
    for x, end in ((3.67, 4.08), (6.02, 6.43), (7.52, 7.98)):
        arrow(axes, (x, 3.88), (end, 3.88))
    return figure


@house_style()
def plot_shared_prompt(
    shape: ModelShape, text_tokens: tuple[int, int], image_tokens: int, completions: Sequence[Sequence[str]]
) -> Figure:
    """One prompt, computed once, and the completions that continue it: which keys and values are stored for whom.

    text_tokens: of the prompt, before and after its image tokens. completions: one or more, each as its tokens, of
    which the last is its end token. ValueError without a completion, or for one without a token.
    """
    if not completions or not all(completions):
        raise ValueError("plot_shared_prompt needs at least one completion, and a token in each")
    prompt = image_tokens + sum(text_tokens)
    height = max(3.3, 1.5 + 0.42 * len(completions))
    figure, axes = canvas(height + 0.35)
    axes.text(0.2, 0.3, "the prompt: computed once", fontsize=10.5, weight="bold", va="center")
    axes.text(4.35, 0.3, f"{len(completions)} completions branch from it", fontsize=10.5, weight="bold", va="center")
    counts = f"{prompt} tokens: {image_tokens} of the image, {sum(text_tokens)} of text (drawn as {DRAWN_COLUMNS})"
    axes.text(0.2, 0.56, counts, fontsize=8.5, color=GREY, va="center")
    axes.text(4.35, 0.56, "one token per row and pass of the model", fontsize=8.5, color=GREY, va="center")
    kinds = _shares(text_tokens[0], image_tokens, text_tokens[1], DRAWN_COLUMNS)
    for i, colour in enumerate(kinds):
        axes.add_patch(_rectangle(0.2 + 0.15 * i, 0.8, 0.13, 0.26, colour))
    _draw_store(axes, shape, len(kinds), prompt)
    right = 0.2 + 0.15 * len(kinds)
    places = [1.0 + 0.42 * i for i in range(len(completions))]
    for y, tokens in zip(places, completions, strict=True):
        axes.plot([right + 0.02, 3.85, 3.95, 4.3], [0.93, 0.93, y, y], color=BLUE, linewidth=1.2)
        x = 4.35
        for j, token in enumerate(tokens):
            word = printable(token, 14)
            wide = text_width(word, 8) + 0.14
            _token(axes, x, y - 0.14, wide, word, ORANGE if j == len(tokens) - 1 else TEXT_TOKEN, 8)
            x += wide + 0.05
    own = sum(len(tokens) - 1 for tokens in completions)
    y = places[-1] + 0.42
    axes.text(4.35, y, f"stored per row: its own keys and values, {own} columns in all;", fontsize=8.5, va="center")
    note = "nothing continues from the end token (orange): its row leaves the batch"
    axes.text(4.35, y + 0.2, note, fontsize=8.5, color=GREY, va="center")
    shared, plain = prompt + own, len(completions) * prompt + own
    total = f"tokens through the model: {prompt} + {own} = {shared}."
    total += f"   Without sharing: {len(completions)} x {prompt} + {own} = {plain}."
    axes.text(0.2, height + 0.1, total, fontsize=9.5, weight="bold", va="center")
    return figure


def _draw_store(axes: Axes, shape: ModelShape, columns: int, prompt: int) -> None:
    """The cache of the prompt: for each layer a row of keys and one of values."""
    arrow(axes, (0.2 + 0.075 * columns, 1.1), (0.2 + 0.075 * columns, 1.38))
    drawn = min(shape.layers, 4)
    for layer in range(drawn):
        y = 1.42 + 0.28 * layer
        for i in range(columns):
            axes.add_patch(_rectangle(0.2 + 0.15 * i, y, 0.13, 0.11, "#9fb9cc"))
            axes.add_patch(_rectangle(0.2 + 0.15 * i, y + 0.12, 0.13, 0.11, "#c9d8e3"))
    y = 1.42 + 0.28 * drawn
    each = 2 * shape.layers * shape.kv_width
    first = f"the cache: keys and values of {prompt} tokens in {shape.layers} layers"
    axes.text(0.2, y + 0.14, first + (", 4 of them drawn" if drawn < shape.layers else ""), fontsize=8.5, va="center")
    second = f"dark keys, light values: {each} numbers per token, read by every row"
    axes.text(0.2, y + 0.34, second, fontsize=8.5, color=GREY, va="center")


def _draw_prompt(axes: Axes, image_tokens: int, text_tokens: tuple[int, int]) -> None:
    """The prompt as a strip, text, image tokens, text, with their counts."""
    before, after = text_tokens
    x = 0.3
    for wide, count, colour in ((0.42, before, TEXT_TOKEN), (1.55, image_tokens, SKY), (1.25, after, TEXT_TOKEN)):
        cells = max(1, round(wide / 0.14))
        for i in range(cells):
            axes.add_patch(_rectangle(x + i * wide / cells, 3.73, wide / cells - 0.025, 0.3, colour))
        kind = "image tokens" if colour == SKY else "text"
        axes.text(x + wide / 2, 4.23, f"{count} {kind}", fontsize=8, **CENTRED)
        x += wide + 0.04
    total = f"a prompt of {image_tokens + before + after} tokens, each with a vector\n"
    total += "and three positions: time, height, width"
    axes.text(2.0, 4.75, total, fontsize=8.5, **CENTRED)


def _shares(before: int, image: int, after: int, cells: int) -> list[str]:
    """Colours of `cells` cells that stand for a prompt, each kind with its share of the tokens, and at least one cell.

    >>> [_shares(5, 25, 82, 22).count(colour) for colour in (TEXT_TOKEN, SKY)]
    [17, 5]
    """
    parts = [
        max(1, round(cells * count / (before + image + after))) if count else 0 for count in (before, image, after)
    ]
    return [TEXT_TOKEN] * parts[0] + [SKY] * parts[1] + [TEXT_TOKEN] * max(1, cells - parts[0] - parts[1])


def _part(axes: Axes, y: float, height: float, title: str, left: float = 0.3) -> None:
    """A frame over the whole width, with its title."""
    card(axes, 0.1, y, 8.8, height)
    axes.text(left, y + 0.27, title, fontsize=11, weight="bold", va="center")


def _card(axes: Axes, x: float, y: float, wide: float, high: float, title: str, text: str) -> None:
    card(axes, x, y, wide, high, boxstyle="round,pad=0,rounding_size=0.06", facecolor=PAPER, edgecolor=BLUE)
    axes.text(x + wide / 2, y + 0.27, title, fontsize=10, weight="bold", color=BLUE, **CENTRED)
    axes.text(x + wide / 2, y + 0.66, text, fontsize=8, color=INK, linespacing=1.35, **CENTRED)


def _grid(axes: Axes, x: float, y: float, side: float, rows: int, columns: int, colour: str) -> None:
    cell = side / max(rows, columns)
    for row in range(rows):
        for column in range(columns):
            axes.add_patch(_rectangle(x + column * cell, y + row * cell, 0.86 * cell, 0.86 * cell, colour))


def _token(axes: Axes, x: float, y: float, wide: float, word: str, colour: str, size: float) -> None:
    axes.add_patch(_rectangle(x, y, wide, 0.28, colour))
    axes.text(x + wide / 2, y + 0.14, word, fontsize=size, ha="center", va="center_baseline")


def _rectangle(x: float, y: float, wide: float, high: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), wide, high, facecolor=colour, edgecolor="none")
