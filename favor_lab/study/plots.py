"""Pictures of a run: what was rewarded, what changed, what one group looked like.

Every function takes plain data (step records, an `Evaluation`, lists of texts and numbers) and returns a matplotlib
`Figure`. Nothing is shown and no global state is changed, so the same functions serve a live notebook, a saved
`records.jsonl` and the report. Blue means right or above zero, vermillion means wrong or below zero (Okabe and Ito's
colour-blind safe palette); wherever colour carries meaning, a mark or a number carries it too.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from favor_lab.activities.fewshot import Example
    from favor_lab.activities.pocket import Scene
    from favor_lab.study.evaluation import Evaluation
    from favor_lab.study.explanations import Explanation

BLUE, VERMILLION, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY, FAINT, PAPER = "#1f2933", "#66727f", "#d9dee4", "#ffffff"
MARKERS = "oDs^vP"
CYCLE = (BLUE, ORANGE, GREEN, PINK, VERMILLION, SKY)
WIDTH = 9.0  # inches; at DPI 120 a figure is 1080 pixels wide, the width of a notebook cell
DPI = 120
CJK_FONTS = ("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Microsoft YaHei", "PingFang SC", "Malgun Gothic")


# --------------------------------------------------------------------------------------------------- the house style


@functools.cache
def _figure_class() -> type[Figure]:
    """A `Figure` that a notebook displays by itself, so that pyplot and its global state are not needed."""
    try:
        import matplotlib
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "favor-lab[lab]"') from error

    class LabAxes(Axes):
        """Axes whose title and legend have the house's style, whoever asks for them."""

        def set_title(self, *args: Any, **kwargs: Any) -> Any:
            with matplotlib.rc_context(_style()):
                return super().set_title(*args, **kwargs)

        def legend(self, *args: Any, **kwargs: Any) -> Any:
            with matplotlib.rc_context(_style()):
                return super().legend(*args, **kwargs)

    class LabFigure(Figure):
        def add_subplot(self, *args: Any, **kwargs: Any) -> Axes:
            with matplotlib.rc_context(_style()):
                return super().add_subplot(*args, **{"axes_class": LabAxes} | kwargs)

        def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
            """As PNG of 256 colours, or as JPEG if it is a sheet of pictures: a notebook stays small."""
            from PIL import Image

            pictures = sum(image.get_array().ndim == 3 for axes in self.axes for image in axes.images)  # type: ignore
            buffer, small = io.BytesIO(), io.BytesIO()
            self.savefig(buffer, format="png")
            drawn = Image.open(buffer).convert("RGB")
            if pictures > 4:
                drawn.save(small, format="jpeg", quality=75)
            else:
                drawn.quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
            return {f"image/{'jpeg' if pictures > 4 else 'png'}": base64.b64encode(small.getvalue()).decode()}

    LabFigure.__name__ = LabFigure.__qualname__ = "Figure"
    _keep_small(LabFigure)
    return LabFigure


def _keep_small(figures: type[Figure]) -> None:
    """In IPython, pyplot registers its own PNG for every Figure, which would come before ours: register ours too."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        png = shell.display_formatter.formatters["image/png"]
        png.for_type(figures, lambda figure: figure._repr_mimebundle_().get("image/png"))


@functools.cache
def _families() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in CJK_FONTS if name in installed))


def _style() -> dict[str, Any]:
    return {
        "font.family": list(_families()),
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.linewidth": 0.8,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "figure.dpi": DPI,
        "savefig.dpi": "figure",
    }


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under the house style and put matplotlib's settings back afterwards."""

    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        _figure_class()
        import matplotlib

        with matplotlib.rc_context(_style()):
            return draw(*args, **kwargs)

    return drawn


def new_figure(height: float, width: float = WIDTH, layout: Any = "constrained") -> Figure:
    """An empty figure in the house's style that a notebook displays by itself: width and height in inches.

    >>> axes = new_figure(2.5).subplots()
    >>> axes.spines["top"].get_visible(), axes.figure.get_size_inches().tolist()
    (False, [9.0, 2.5])
    """
    figure_class = _figure_class()
    import matplotlib

    with matplotlib.rc_context(_style()):
        return figure_class(figsize=(width, height), layout=layout)


@functools.lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    from matplotlib import font_manager

    fonts = (font_manager.get_font(font_manager.findfont(family)) for family in _families())
    return any(font.get_char_index(ord(character)) for font in fonts)


def _printable(text: str) -> str:
    """`text` on one line, with a replacement mark for every character that no installed font can draw."""
    flat = " ".join(str(text).split())
    return "".join(c if c.isprintable() and _has_glyph(c) else "\N{REPLACEMENT CHARACTER}" for c in flat)


def short_name(name: str) -> str:
    """A reward's column head: `accuracy_reward` is printed as "accuracy"."""
    return name.removesuffix("_reward").replace("_", " ")


def _canvas(figure: Figure, width: float, height: float) -> Axes:
    """Axes over the whole figure, in inches, with y pointing down."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def _rgb(image: Image) -> Image:
    """What the policy sees of an image of any mode: matplotlib would colour a grey one."""
    if image.mode == "RGB":
        return image
    from favor_lab.vlm.processing import to_rgb

    return to_rgb(image)


def _place(figure: Figure, image: Image, x: float, y: float, wide: float, high: float, height: float) -> None:
    """Draw an image with its upper left corner at (x, y), in inches on a canvas of this height."""
    picture = figure.add_axes((x / WIDTH, 1 - (y + high) / height, wide / WIDTH, high / height))
    picture.imshow(_rgb(image))
    picture.set(xticks=[], yticks=[])
    picture.spines[:].set(visible=True, color=FAINT)


# ------------------------------------------------------------------------------------------------------ step records


def _fields(records: Sequence[Any]) -> list[dict[str, Any]]:
    """Step records as dictionaries: live ones, or the lines of a `records.jsonl`."""
    if not records:
        raise ValueError("no step records to draw: the run has not finished a step")
    return [asdict(record) if is_dataclass(record) else dict(record) for record in records]  # type: ignore[arg-type]


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` values that exist (NaN are left out).

    >>> running_mean(np.array([0.0, 1.0, np.nan, 3.0]), 2).tolist()
    [0.0, 0.5, 1.0, 3.0]
    """
    exist = ~np.isnan(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(part)]) for part in (np.where(exist, values, 0.0), exist))
    start = np.maximum(np.arange(len(values)) + 1 - window, 0)
    with np.errstate(invalid="ignore"):  # no value in the window: NaN
        return (sums[1:] - sums[start]) / (counts[1:] - counts[start])


def _curve(axes: Axes, steps: list[int], values: Sequence[float | None], colour: str, label: str = "") -> None:
    """The value of each step, pale, and its running mean over a fifteenth of the steps."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    window = max(1, len(numbers) // 15)
    if window > 1:
        axes.plot(steps, numbers, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(
        steps,
        running_mean(numbers, window),
        color=colour,
        linewidth=1.8,
        label=label,
        marker="o" if len(numbers) == 1 else None,
    )


def _rewards_panel(axes: Axes, steps: list[int], rows: list[dict[str, Any]]) -> None:
    for colour, name in zip(CYCLE, rows[0]["rewards"], strict=False):
        _curve(axes, steps, [row["rewards"].get(name) for row in rows], colour, _printable(short_name(name)))
    axes.set(title="mean reward", ylabel="reward per completion")
    axes.legend(loc="upper left", ncols=2, columnspacing=1.2)


def _spread_panel(axes: Axes, steps: list[int], rows: list[dict[str, Any]]) -> None:
    _curve(axes, steps, [row["reward_spread"] for row in rows], BLUE, "standard deviation")
    _curve(axes, steps, [row["flat_groups"] for row in rows], VERMILLION, "share of groups without")
    axes.set(title="spread inside the groups", ylabel="reward; share of groups")
    axes.legend(loc="upper left")


def _length_panel(axes: Axes, steps: list[int], rows: list[dict[str, Any]]) -> None:
    low, high = ([row[name] for row in rows] for name in ("length_min", "length_max"))
    if None not in low + high:
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.12, linewidth=0, label="shortest to longest")
    _curve(axes, steps, [row["length_mean"] for row in rows], BLUE, "mean")
    axes.set(title="length of completions", ylabel="tokens, end token included")
    axes.legend(loc="upper left")


def _labels_panel(axes: Axes, steps: list[int], rows: list[dict[str, Any]]) -> None:
    reached: set[str] = set()
    counts = []
    for row in rows:
        reached |= {label for label, count in row["labels"].items() if count["right_so_far"]}
        counts.append(len(reached))
    total = len({label for row in rows for label in row["labels"]})
    axes.step(steps, counts, where="post", color=BLUE, linewidth=1.8)
    axes.axhline(total, color=GREY, linewidth=1, linestyle=":")
    axes.set(title="labels ever answered right", ylabel=f"labels, of {total} trained on")


def _line_panel(field: str, title: str, unit: str) -> Callable[[Axes, list[int], list[dict[str, Any]]], None]:
    def draw(axes: Axes, steps: list[int], rows: list[dict[str, Any]]) -> None:
        _curve(axes, steps, [row[field] for row in rows], BLUE)
        axes.set(title=title, ylabel=unit)

    return draw


_PANELS: dict[str, Callable[[Axes, list[int], list[dict[str, Any]]], None]] = {
    "rewards": _rewards_panel,
    "labels": _labels_panel,
    "reward_spread": _spread_panel,
    "kl": _line_panel("kl", "KL to the reference", "nats per token (k3 estimate)"),
    "entropy": _line_panel("entropy", "entropy when sampling", "nats per token"),
    "length_mean": _length_panel,
}


@_styled
def plot_records(records: Sequence[Any], title: str = "") -> Figure:
    """The curves of a run against its optimiser steps, a panel for each quantity that the records hold.

    Rewards by name, labels reached, spread, KL, entropy, lengths; for a run without rewards (the supervised baseline)
    its loss. Pale lines are single steps, strong lines running means.
    """
    rows = _fields(records)
    panels = [draw for field, draw in _PANELS.items() if any(row[field] not in (None, {}) for row in rows)]
    if not any(row["rewards"] for row in rows):
        panels.insert(0, _line_panel("loss", "loss", "nats per token"))
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = new_figure(2.5 * lines + (0.35 if title else 0.1))
    grid = figure.subplots(lines, columns, squeeze=False).flat
    steps = [row["step"] for row in rows]
    for draw, axes in zip(panels, grid, strict=False):  # in this order: none of the grid is lost at the end
        draw(axes, steps, rows)
        axes.grid(axis="y")
        if axes.dataLim.y0 >= 0:
            axes.set_ylim(bottom=0)
        if axes.get_legend():
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for it above the curves
        axes.set_xlabel("optimiser step")
        axes.locator_params(axis="x", integer=True, nbins=6)
    for axes in list(grid):
        axes.set_visible(False)
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


def _count_labels(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Label -> (right completions, completions) over all steps."""
    totals: dict[str, tuple[int, int]] = {}
    for row in rows:
        for label, count in row["labels"].items():
            right, completions = totals.get(label, (0, 0))
            totals[label] = right + count["right"], completions + count["completions"]
    return totals


@_styled
def plot_coverage(records: Sequence[Any], title: str = "") -> Figure:
    """For each label and step, whether the right answer was sampled: what is never sampled is never learnt.

    A disc grows with the share of right completions; a cross is a step that showed the label and sampled no right
    answer. The number at the right counts right completions of all; labels are ordered by it.
    """
    rows = [row for row in _fields(records) if row["labels"]]
    if not rows:
        raise ValueError("these records count no sampled answers by label; records of GRPO do")
    totals = _count_labels(rows)
    order = sorted(totals, key=lambda label: (totals[label][0] / max(totals[label][1], 1), label))
    figure = new_figure(0.24 * len(order) + 1.1 + (0.3 if title else 0))
    axes = figure.add_subplot()
    seen = [
        (row["step"], order.index(label), count["right"] / max(count["completions"], 1))
        for row in rows
        for label, count in row["labels"].items()
    ]
    hits = np.array([point for point in seen if point[2] > 0]).reshape(-1, 3)
    misses = np.array([point for point in seen if point[2] == 0]).reshape(-1, 3)
    axes.scatter(misses[:, 0], misses[:, 1], marker="x", s=13, color=VERMILLION, linewidth=0.9, label="none right")
    axes.scatter(
        hits[:, 0], hits[:, 1], s=8 + 60 * hits[:, 2], color=BLUE, linewidth=0, label="some right (size: share)"
    )
    for y, label in enumerate(order):
        right, completions = totals[label]
        look: dict[str, Any] = {"color": INK} if right else {"color": VERMILLION, "weight": "bold"}
        place = axes.get_yaxis_transform()
        axes.text(1.01, y, f"{right} of {completions}", transform=place, va="center", fontsize=8.5, **look)
        axes.axhline(y, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(order)), [_printable(label) for label in order])
    axes.set(xlabel="optimiser step", ylim=(-0.7, len(order) - 0.3))
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


@_styled
def plot_profile(profile: Any, title: str = "") -> Figure:
    """Each phase of a step (a `Profile`, or its dictionary): its time, and the bound of it, the least it could take.

    At the right the share of the bound that is reached. `encode` is left out: it happens once a run, not in a step.
    """
    values = profile if isinstance(profile, Mapping) else profile.to_dict()
    phases = {name: phase for name, phase in values["phases"].items() if name != "encode"}
    figure = new_figure(0.36 * len(phases) + 1.1 + (0.3 if title else 0))
    axes = figure.add_subplot()
    measured = [1e3 * phase["seconds"] for phase in phases.values()]
    bounds = [1e3 * phase["bound"] for phase in phases.values()]
    rows = range(len(phases))
    axes.barh(rows, measured, height=0.62, color=SKY, label="measured")
    axes.barh(rows, bounds, height=0.26, color=BLUE, label="bound: the ideal step at this machine's measured rates")
    for row, (seconds, bound) in enumerate(zip(measured, bounds, strict=True)):
        text = f"{seconds:,.1f} ms, {bound / seconds:.0%} of the bound reached" if seconds else "too short to measure"
        axes.annotate(
            text, (max(seconds, bound), row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_yticks(rows, list(phases))
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds of an optimiser step", xlim=(0, 1.45 * max(measured + bounds)))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


# --------------------------------------------------------------------------------------------------------- one group

_TAG = re.compile(r"(</?\w+>)")
_TEXT_COLOUR = {"tag": "#98a2ad", "outside": VERMILLION, "think": "#3e4a57", "answer": INK}
_TEXT_SIZE, _LINE = 8.5, 0.165  # points; inches from one line to the next
_TEXT_LEFT, _COLUMN, _BAR = 2.75, 0.6, 0.6  # inches: left edge of the texts, width of a reward, longest bar


def _words(text: str) -> list[tuple[str, str]]:
    """Cut a completion into words with their kind: "tag", "think", "answer" or "outside" of these.

    >>> _words("<answer>riding a bike</answer>")[1]
    ('riding ', 'answer')
    """
    words, inside = [], "outside"
    for part in _TAG.split(_printable(text)):
        if _TAG.fullmatch(part):
            words.append((part, "tag"))
            inside = part.strip("<>") if part in ("<think>", "<answer>") else "outside"
        else:
            words += [(word, inside) for word in re.findall(r"\S{1,24}\s*|\s+", part)]
    return words


@functools.lru_cache(maxsize=4096)
def _text_width(text: str, bold: bool) -> float:
    """Width in inches of `text` as the rows print it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(_families()), size=_TEXT_SIZE, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _lay_out(text: str, width: float, max_lines: int = 6) -> list[list[tuple[float, str, str]]]:
    """Break a completion into lines of (x in inches, word, kind); of a very long one the middle is left out.

    The answer starts a line of its own, whatever the completion has there: it is what the eye looks for.
    """
    lines: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for word, kind in _words(text):
        bold = kind == "answer"
        if lines[-1] and (word == "<answer>" or x + _text_width(word.rstrip(), bold) > width):
            glued = lines[-1].pop() if word.startswith("</") and len(lines[-1]) > 1 else None
            lines.append([(0.0, *glued[1:])] if glued else [])  # a closing tag stays with the word before it
            x = _text_width(glued[1], glued[2] == "answer") if glued else 0.0
        lines[-1].append((x, word.rstrip(), kind))
        x += _text_width(word, bold)
    if len(lines) > max_lines:
        lines = lines[: max_lines - 2] + [[(0.0, "[...]", "tag")]] + lines[-1:]
    return lines if lines[0] else [[(0.0, "(nothing written)", "outside")]]


def _group_head(axes: Axes, top: float, names: Sequence[str], centre: float, count: int) -> None:
    heads = [(_TEXT_LEFT, "left", f"G = {count} completions"), (centre, "center", "advantage")]
    heads += [
        (_TEXT_LEFT + _text_room(len(names)) + _COLUMN * (i + 0.5), "center", name) for i, name in enumerate(names)
    ]
    for x, side, text in heads:
        axes.text(x, top - 0.14, _printable(text), ha=side, va="center", fontsize=8.5, weight="bold", color=GREY)


def _text_room(rewards: int) -> float:
    return WIDTH - _TEXT_LEFT - _COLUMN * rewards - 2 * _BAR - 0.3


def _group_row(
    axes: Axes, y: float, lines: list[list[tuple[float, str, str]]], right: bool | None, left: float = _TEXT_LEFT
) -> None:
    colour = {None: INK, True: BLUE, False: VERMILLION}[right]
    if right is not None:
        axes.text(
            left - 0.16,
            y,
            "\N{CHECK MARK}" if right else "\N{BALLOT X}",
            fontsize=11,
            color=colour,
            ha="center",
            va="center",
        )
    for i, line in enumerate(lines):
        baseline = y + _LINE * (i - (len(lines) - 1) / 2) + 0.04
        for x, word, kind in line:
            axes.text(
                left + x,
                baseline,
                word,
                fontsize=_TEXT_SIZE,
                va="baseline",
                color=colour if kind == "answer" else _TEXT_COLOUR[kind],
                weight="bold" if kind == "answer" else "normal",
            )


def _chip(axes: Axes, x: float, y: float, value: float) -> None:
    """A reward as a disc: filled as far as it was earned, with its number inside."""
    earned = min(max(value, 0.0), 1.0)
    axes.scatter([x], [y], s=230, facecolor=BLUE, alpha=earned, linewidth=0)
    axes.scatter([x], [y], s=230, facecolor="none", edgecolor=BLUE if earned else "#aab3bd", linewidth=1)
    number = f"{value:.2g}"
    axes.text(
        x,
        y,
        number,
        ha="center",
        va="center_baseline",
        fontsize=8 if len(number) < 4 else 7,
        color=PAPER if earned > 0.5 else INK if earned else GREY,
    )


def _advantage_bar(axes: Axes, centre: float, y: float, value: float, limit: float) -> None:
    length = _BAR * value / limit
    axes.barh(y, length, height=0.2, left=centre, color=BLUE if value > 0 else VERMILLION)
    axes.text(
        centre - math.copysign(0.06, value),
        y,
        f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if value else "0",
        fontsize=8,
        va="center_baseline",
        ha="right" if value >= 0 else "left",
    )


def _group_picture(figure: Figure, axes: Axes, image: Image, label: str, top: float, height: float) -> None:
    """The image with its gold label below, at the left of the rows."""
    side = _TEXT_LEFT - 0.7
    scale = side / max(image.size)
    wide, high = image.width * scale, image.height * scale
    _place(figure, image, 0.25 + (side - wide) / 2, top, wide, high, height)
    centre, below = 0.25 + side / 2, top + high
    axes.text(centre, below + 0.2, _printable(label), ha="center", va="center", fontsize=10.5, weight="bold")
    axes.text(centre, below + 0.4, "gold label", ha="center", va="center", fontsize=8, color=GREY)


def _group_numbers(
    count: int, rewards: Mapping[str, Sequence[float]], advantages: Sequence[float]
) -> tuple[dict[str, list[float]], list[float]]:
    """Rewards by column head, and advantages, as floats; ValueError unless each has one number per completion."""
    columns = {short_name(name): [float(value) for value in values] for name, values in rewards.items()}
    scores = [float(value) for value in advantages]
    counts = {**{name: len(column) for name, column in columns.items()}, "advantages": len(scores)}
    if not count or set(counts.values()) != {count}:
        raise ValueError(f"plot_group needs one number per completion: {count} completions, but {counts}")
    return columns, scores


def _row_height(lines: Sequence[Any]) -> float:
    return max(len(lines) * _LINE + 0.2, 0.4)


@_styled
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
    room = _text_room(len(columns))
    rows = {g: _lay_out(texts[g], room - 0.1) for g in order}
    top = 0.95 if title else 0.45
    height = top + max(sum(map(_row_height, rows.values())), _TEXT_LEFT - 0.1) + 0.3
    figure = new_figure(height, layout=None)
    axes = _canvas(figure, WIDTH, height)
    axes.text(0.25, 0.36, _printable(title), fontsize=12.5, weight="bold", va="center")
    _group_picture(figure, axes, image, label, top, height)
    centre, y, limit = WIDTH - _BAR - 0.2, top, max([1.0, *map(abs, scores)])
    _group_head(axes, top, list(columns), centre, len(texts))
    for g, lines in rows.items():
        step = _row_height(lines)
        axes.plot([_TEXT_LEFT - 0.28, WIDTH - 0.2], [y, y], color=FAINT, linewidth=0.8)
        right = bool(columns["accuracy"][g]) if "accuracy" in columns else None
        _group_row(axes, y + step / 2, lines, right)
        for i, column in enumerate(columns.values()):
            _chip(axes, _TEXT_LEFT + room + _COLUMN * (i + 0.5), y + step / 2, column[g])
        _advantage_bar(axes, centre, y + step / 2, scores[g], limit)
        y += step
    axes.plot([centre, centre], [top, y], color=GREY, linewidth=0.8)
    if not any(scores):
        flat = "no spread in rewards: zero policy gradient"
        axes.text(WIDTH - 0.2, y + 0.14, flat, ha="right", fontsize=8, color=GREY)
    return figure


# ------------------------------------------------------------------------------------------------------- evaluations


@_styled
def plot_confusion(evaluation: Evaluation, title: str = "") -> Figure:
    """Gold labels (rows) against greedy answers (columns): right ones blue, wrong ones vermillion, counts in the cells.

    The last column counts answers that are no label of the list, empty answers included.
    """
    counts = evaluation.confusion()  # (K, K + 1)
    size = len(evaluation.labels)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(size, size + 1, dtype=bool)
    side = min(max(0.34 * size, 2.0), 7.0)
    figure = new_figure(height=side + 1.5, width=side + 2.5)
    axes = figure.add_subplot()
    for mask, colour in ((diagonal, BLUE), (~diagonal, VERMILLION)):
        axes.imshow(np.ma.masked_array(share, ~mask), cmap=_fade(colour), vmin=0, vmax=1)
    axes.axvline(size - 0.5, color=GREY, linewidth=1)
    names = [_printable(label) for label in evaluation.labels]
    axes.set_xticks(range(size + 1), [*names, "no valid answer"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set(xlabel="answer", ylabel="gold label")
    axes.set_title(_printable(title or f"{evaluation.policy}: {evaluation.accuracy:.0%} of {len(evaluation)} right"))
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=FAINT)
    if size <= 24:
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center_baseline",
                fontsize=8,
                color=PAPER if share[row, column] > 0.55 else INK,
            )
    return figure


def _fade(colour: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fade", [PAPER, colour])


@_styled
def plot_examples(
    examples: Sequence[Example], evaluation: Evaluation | None = None, columns: int = 6, title: str = ""
) -> Figure:
    """A sheet of images with their gold labels and, given an evaluation of them, the answers below (right or wrong)."""
    if not examples:
        raise ValueError("plot_examples needs at least one example")
    answers = {answer.source: answer for answer in evaluation.answers} if evaluation else {}
    missing = [example.source for example in examples if evaluation and example.source not in answers]
    if missing:
        raise ValueError(f"the evaluation has no answer for {missing[0]}: pass the examples that were evaluated")
    columns = min(columns, len(examples))
    rows = math.ceil(len(examples) / columns)
    side = WIDTH / max(columns, 4)
    figure = new_figure(rows * (side + (0.38 if evaluation else 0.2)) + (0.4 if title else 0.1), columns * side)
    for axes, example in zip(figure.subplots(rows, columns, squeeze=False).flat, examples, strict=False):
        axes.imshow(_rgb(example.image))
        axes.set_xlabel(_printable(example.label), fontsize=9, labelpad=3)
        answer = answers.get(example.source)
        if answer:
            colour, mark = (BLUE, "\N{CHECK MARK}") if answer.correct else (VERMILLION, "\N{BALLOT X}")
            said = "" if answer.correct else _printable(answer.answer or "no answer")
            axes.set_xlabel(f"{_printable(example.label)}\n{mark} {said}", color=colour, fontsize=9)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11)
    return figure


@_styled
def plot_truth(scene: Scene, title: str = "") -> Figure:
    """A drawn scene, and beside it the truth it knows: joints (blue), boxes of things (vermillion), statements."""
    figure = new_figure(WIDTH / 3 + (0.3 if title else 0.0))
    plain, marked, said = figure.subplots(1, 3)
    for axes in (plain, marked, said):
        axes.axis("off")
    for axes in (plain, marked):
        axes.imshow(scene.image)
    side = scene.image.width  # truth is in picture units
    joints = side * np.array(list(scene.truth.joints.values()))  # (J, 2)
    marked.scatter(joints[:, 0], joints[:, 1], s=26, color=BLUE, edgecolor=PAPER, linewidth=0.8)
    marked.set(xlim=(0, side), ylim=(side, 0))
    for name, (x0, y0, x1, y1) in scene.truth.objects.items():
        corners = side * np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])  # (5, 2)
        marked.plot(*corners.clip(1, side - 1).T, color=VERMILLION, linewidth=1.6)
        top, tag = side * max(y0, 0.0), {"facecolor": VERMILLION, "edgecolor": "none", "pad": 2}
        side_of_line = "bottom" if y0 > 0.1 else "top"  # above the box where there is room
        marked.text(side * max(x0, 0.0) + 2, top, name, fontsize=8, color=PAPER, va=side_of_line, bbox=tag)
    lines = [_printable(str(scene.label)), *(f"\N{BULLET} {statement}" for statement in scene.truth.statements)]
    for i, line in enumerate(lines):
        said.text(0.02, 0.9 - 0.1 * i, line, fontsize=10.5, weight="normal" if i else "bold")
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


_VERDICTS = {
    "true": ("\N{CHECK MARK}", BLUE),
    "false": ("\N{BALLOT X}", VERMILLION),
    "not a statement": ("\N{EN DASH}", VERMILLION),
    "unknown": ("?", GREY),
}
_LEAST_NATS = 0.25  # the strongest colour is at least so large a drop: noise stays pale


@_styled
def plot_explanation(explanation: Explanation, title: str = "", max_lines: int = 14) -> Figure:
    """One response explained: the image, where covering it makes answer and reasoning less likely, what was written.

    Blue: where this is covered, the part becomes less likely (nats, mean over the windows that cover an image token);
    vermillion: likelier. Solid frame: the window with the largest drop, and its number. Dashed frame: the true evidence
    of a drawn scene. Marks: true, false, no statement of the drawn world (a dash), truth unknown (?).
    """
    lines = _said_lines(explanation, max_lines)
    tall = explanation.image.height / explanation.image.width
    figure = new_figure(max(2.15 * tall + 0.95, 0.185 * len(lines) + 0.5) + (0.3 if title else 0.0))
    panels = figure.subplots(1, 4, width_ratios=(1.0, 1.0, 1.0, 1.1))
    panels[0].imshow(_rgb(explanation.image))
    panels[0].set_title("image" if explanation.evidence is None else "true evidence")
    for axes, part in zip(panels[1:3], ("answer", "reasoning"), strict=True):
        _heat_panel(axes, explanation, part)
    for axes in panels[:3]:
        _evidence_frame(axes, explanation)
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set(visible=True, color=FAINT)
    panels[3].axis("off")
    panels[3].set_title("response")
    for i, (mark, text, look) in enumerate(lines):
        for x, piece in ((0, mark), (14 if mark else 0, text)):
            panels[3].annotate(
                piece, (0, 1), xytext=(x, -13.3 * (i + 0.6)), xycoords="axes fraction", textcoords="offset points",
                va="center_baseline", fontsize=8.5, annotation_clip=False, **look,
            )  # fmt: skip
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


def _said_lines(explanation: Explanation, most: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Answer, probabilities and statements as (mark, text, look) lines; of a long reasoning the end is left out."""
    lines: list[tuple[str, str, dict[str, Any]]] = []

    def add(text: str, mark: str = "", **look: Any) -> None:
        for i, line in enumerate(textwrap.wrap(_printable(text), 31)):
            lines.append((mark if i == 0 else " " * len(mark), line, look))

    right = explanation.correct
    mark, colour = ("", INK) if right is None else _VERDICTS["true" if right else "false"]
    add(explanation.answer or "no answer", mark, weight="bold", color=colour)
    if right is False:
        add(f"gold label: {explanation.label}", color=GREY)
    if explanation.answer_probability is not None:
        add(f"probability {explanation.answer_probability:.2f}")
        add(f"without the image {explanation.blank_probability:.2f}")
    lines.append(("", "", {}))
    for statement in explanation.statements:
        mark, colour = _VERDICTS[statement.verdict]
        add(statement.text, mark, color=colour)
    if not explanation.statements:
        add("no reasoning", color=GREY)
    if explanation.reading and explanation.reading.telling:
        lines.append(("", "", {}))
        add(f"by the rule: {', '.join(explanation.reading.best)}", color=GREY)
    return lines if len(lines) <= most else [*lines[: most - 1], ("", "[...]", {"color": GREY})]


def _heat_panel(axes: Axes, explanation: Explanation, part: str) -> None:
    """The drops of one part over the pale image, with their colour bar and the window of the largest."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    image, found = explanation.image, explanation.occlusion
    axes.imshow(np.asarray(image.convert("L")), cmap="gray", vmin=-300, vmax=255)  # pale
    axes.set_title(part if part in found.drops else f"{part}: none written")
    if part not in found.drops:
        return
    heat = found.heat(part)
    limit = max(float(np.abs(heat).max()), _LEAST_NATS)
    colours = LinearSegmentedColormap.from_list("drop", [VERMILLION, PAPER, BLUE])
    extent = (0, image.width, image.height, 0)
    drawn = axes.imshow(heat, cmap=colours, vmin=-limit, vmax=limit, alpha=0.55, extent=extent)
    high = image.width / image.height  # of the bar, so that it looks the same below an image of any shape
    bar = axes.figure.colorbar(
        drawn, cax=axes.inset_axes((0.04, -0.115 * high, 0.92, 0.055 * high)), orientation="horizontal"
    )
    bar.set_label("drop when covered, nats", fontsize=8)
    bar.ax.locator_params(nbins=3)
    bar.ax.tick_params(labelsize=8)
    unit = np.array([image.width / found.grid[1], image.height / found.grid[0]] * 2)
    left, top, right, bottom = unit * found.peak(part)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=BLUE, linewidth=2))
    number = f"{found.drops[part].max():+.2f}".replace("-", "\N{MINUS SIGN}")
    tag = {"facecolor": BLUE, "edgecolor": "none", "pad": 1.5}
    axes.text(left, top, number, fontsize=8, color=PAPER, va="top", bbox=tag)


def _evidence_frame(axes: Axes, explanation: Explanation) -> None:
    """The true evidence of a drawn scene, dashed."""
    from matplotlib.patches import Rectangle

    if explanation.evidence is None:
        return
    left, top, right, bottom = np.array(explanation.evidence) * (explanation.image.size * 2)
    for colour, style in ((PAPER, "-"), (INK, (0, (3, 2)))):
        look: dict[str, Any] = {"fill": False, "edgecolor": colour, "linestyle": style, "linewidth": 1.3}
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **look))


@_styled
def plot_before_after(evaluations: Mapping[str, Evaluation], title: str = "") -> Figure:
    """Evaluations side by side, in the order given: rates with the accuracy's 95 % interval, and accuracy by label.

    The labels are those that all the evaluations have.
    """
    if not evaluations:
        raise ValueError("plot_before_after needs at least one evaluation, for example {'zero-shot': evaluation}")
    by_label = [evaluation.label_accuracy() for evaluation in evaluations.values()]
    labels = [label for label in by_label[-1] if all(label in accuracy for accuracy in by_label)]
    labels.sort(key=lambda label: by_label[-1][label])
    figure = new_figure(max(3.4, 0.21 * len(labels) + 1.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    colours = dict(zip(evaluations, ("#9aa5b1", *CYCLE), strict=False))
    _rate_bars(left, evaluations, colours)
    for i, (name, accuracy) in enumerate(zip(evaluations, by_label, strict=True)):
        hollow = i == 0  # and larger, so that equal ones are seen
        right.scatter(
            [100 * accuracy[label] for label in labels],
            range(len(labels)),
            s=90 if hollow else 40,
            facecolor=PAPER if hollow else colours[name],
            edgecolor=colours[name],
            linewidth=2,
            marker=MARKERS[i % len(MARKERS)],
            label=_printable(name),
            zorder=3,
        )
    for row, label in enumerate(labels):
        ends = [100 * accuracy[label] for accuracy in by_label]
        right.plot([min(ends), max(ends)], [row, row], color=FAINT, linewidth=3, zorder=1)
    right.set_yticks(range(len(labels)), [_printable(label) for label in labels])
    right.set(xlim=(-4, 104), xlabel="accuracy by label, %")
    right.grid(axis="x")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(evaluations))
    if title:
        figure.suptitle(_printable(title), weight="bold", fontsize=11, x=0.01, ha="left")
    return figure


def _rate_bars(axes: Axes, evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> None:
    """Accuracy, format rate and truth rate as grouped bars in percent."""
    width = 0.8 / len(evaluations)
    for i, (name, evaluation) in enumerate(evaluations.items()):
        rates = [evaluation.accuracy, evaluation.format_rate, evaluation.truth_rate]
        known = [(x, 100 * rate) for x, rate in enumerate(rates) if rate is not None]
        at = [x + (i - (len(evaluations) - 1) / 2) * width for x, _ in known]
        axes.bar(at, [rate for _, rate in known], width * 0.92, color=colours[name])
        low, high = (100 * bound for bound in evaluation.interval)
        axes.plot([at[0], at[0]], [low, high], color=INK, linewidth=1.4)
        tops = [high, *(rate for _, rate in known[1:])]
        for x, top, (_, rate) in zip(at, tops, known, strict=True):
            axes.text(x, top + 1.5, f"{rate:.0f}", ha="center", fontsize=9, weight="bold")
    chance = 100 / len(next(iter(evaluations.values())).labels)
    axes.plot([-0.45, 0.45], [chance, chance], color=INK, linewidth=1, linestyle=":")
    groups = 3 if any(evaluation.truth_rate is not None for evaluation in evaluations.values()) else 2
    axes.set_xticks(range(groups), ["accuracy", "well formed", "true\nstatements"][:groups])
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=(0, 110), yticks=range(0, 101, 25), ylabel="% (line: 95 % interval, dots: chance)")


# ---------------------------------------------------------------------------------------------------------- the loop

_LOOP_TEXTS = ("riding a bike", "pushing a cart", "Riding a bike.", "bike bike bike")
_LOOP_REWARDS = {"accuracy": (1.0, 0.0, 1.0, 0.0), "format": (1.0, 1.0, 1.0, 0.0)}
_LOOP_CARDS = (  # left edge and width in inches, name of the step, what it answers, the library's functions
    (1.9, 2.45, "sample", "G completions for one image,\nthe prompt read once", "sample_groups"),
    (4.53, 1.3, "judge", "right label?\nright form?", "accuracy_reward\nformat_reward"),
    (6.01, 1.4, "compare", "better or worse\nthan its own group?", "group_advantages"),
    (7.59, 1.25, "learn", "likelier if better,\nrarer if worse", "grpo_loss"),
)
_LOOP_ROWS = (1.55, 1.97, 2.39, 2.81)  # inches from the top


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, size: float = 1.4
) -> None:
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": colour,
            "linewidth": size,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 11,
        },
    )


def _loop_cards(axes: Axes) -> None:
    from matplotlib.patches import FancyBboxPatch

    for number, (x, width, step, what, names) in enumerate(_LOOP_CARDS, 1):
        axes.add_patch(
            FancyBboxPatch(
                (x, 0.3), width, 3.3, boxstyle="round,pad=0,rounding_size=0.08", facecolor="#f6f8fa", edgecolor=FAINT
            )
        )
        axes.scatter([x + 0.25], [0.58], s=230, color=INK)
        axes.text(x + 0.25, 0.58, str(number), color=PAPER, weight="bold", ha="center", va="center_baseline")
        axes.text(x + 0.46, 0.58, step, fontsize=11.5, weight="bold", va="center_baseline")
        axes.text(x + width / 2, 1.03, what, ha="center", va="center", fontsize=8, color=GREY, linespacing=1.3)
        axes.text(x + width / 2, 3.3, names, ha="center", va="center", fontsize=7.5, family="monospace")
        _arrow(axes, (x - 0.18, 2.18), (x, 2.18))


def _loop_rows(axes: Axes, advantages: Sequence[float]) -> None:
    """One row per completion, running through the four cards."""
    lefts = [card[0] for card in _LOOP_CARDS]
    for g, (y, text) in enumerate(zip(_LOOP_ROWS, _LOOP_TEXTS, strict=True)):
        earned = [values[g] for values in _LOOP_REWARDS.values()]
        tagged = f"<answer>{text}</answer>" if earned[1] else text
        _group_row(axes, y, _lay_out(tagged, 3.0), None, lefts[0] + 0.12)
        for x, value in zip((lefts[1] + 0.38, lefts[1] + 0.92), earned, strict=True):
            _chip(axes, x, y, value)
        _advantage_bar(axes, lefts[2] + 0.7, y, advantages[g], 1.5)
        better, x = advantages[g] > 0, lefts[3] + 0.62
        _arrow(
            axes,
            (x, y + (0.14 if better else -0.14)),
            (x, y - (0.14 if better else -0.14)),
            BLUE if better else VERMILLION,
            1 + 2 * abs(advantages[g]),
        )
    axes.plot([lefts[2] + 0.7] * 2, [_LOOP_ROWS[0] - 0.2, _LOOP_ROWS[-1] + 0.2], color=GREY, linewidth=0.8)


@_styled
def plot_loop(image: Image | None = None) -> Figure:
    """The loop in one picture: four toy completions of "riding a bike" run through the four steps.

    `image` is drawn at the left (a scene that shows riding a bike); the advantages are the library's.
    """
    import torch

    from favor_lab.grpo.advantages import group_advantages

    height = 4.35
    figure = new_figure(height, layout=None)
    axes = _canvas(figure, WIDTH, height)
    _loop_cards(axes)
    totals = [sum(values) for values in zip(*_LOOP_REWARDS.values(), strict=True)]
    _loop_rows(axes, group_advantages(torch.tensor([totals]))[0].tolist())
    if image is not None:
        _place(figure, image, 0.2, 1.15, 1.45, 1.45, height)
    axes.text(0.925, 0.95, "an image and\nthe labels to choose from", ha="center", va="center", fontsize=8, color=GREY)
    axes.text(0.925, 2.8, "gold label:\nriding a bike", ha="center", va="center", fontsize=8.5, weight="bold")
    x = _LOOP_CARDS[3][0] + _LOOP_CARDS[3][1] / 2
    axes.plot([x, x, 0.925], [3.6, 4.0, 4.0], color=GREY, linewidth=1.4)
    _arrow(axes, (0.925, 4.0), (0.925, 3.1))
    axes.text(
        4.9,
        4.0,
        "the policy has moved a little: next step, next images",
        ha="center",
        va="center",
        fontsize=9,
        backgroundcolor=PAPER,
    )
    return figure
