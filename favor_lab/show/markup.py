"""HTML and SVG for widgets and the report. The text of a policy is not trusted: `element` escapes all strings.

Colours are those of the figures (see `favor_lab.show.style`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageColor

from favor_lab.activities.images import to_rgb
from favor_lab.responses import split_tags
from favor_lab.show.curves import Curve, running_mean
from favor_lab.show.style import BLUE, FAINT, GREY, INK, PAPER, VERMILLION, encoded
from favor_lab.show.text import RIGHT_MARK, WRONG_MARK, short_name, signed, utf8

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 1200  # characters of a completion that are shown
MAX_POINTS = 300  # of a curve: more would not be visible at its size

CSS = f"""<style>
.fl-paper {{ background: {PAPER}; color: {INK}; font: 13px/1.45 system-ui, sans-serif; padding: 8px 10px;
  border: 1px solid {FAINT}; border-radius: 6px; overflow-x: auto; }}
.fl-paper * {{ line-height: 1.45; }}
.fl-cards {{ display: flex; flex-wrap: wrap; gap: 4px 26px; align-items: baseline; }}
.fl-cards b {{ font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; display: block; }}
.fl-cards span, .fl-note, .fl-head th {{ color: {GREY}; font-size: 12px; }}
.fl-curves {{ display: flex; flex-wrap: wrap; gap: 6px 10px; margin-top: 8px; }}
.fl-curves svg {{ flex: 1 1 200px; max-width: 340px; min-width: 190px; height: auto; }}
.fl-group {{ display: flex; gap: 18px; align-items: flex-start; margin-top: 10px; }}
.fl-group figure {{ margin: 0; flex: 0 0 168px; text-align: center; overflow-wrap: anywhere; }}
.fl-group img {{ width: 168px; height: auto; border: 1px solid {FAINT}; border-radius: 4px; }}
.fl-rows {{ flex: 1 1 auto; min-width: 0; }}
.fl-table {{ border-collapse: collapse; width: 100%; font-size: 13px; color: {INK}; }}
.fl-table td, .fl-table th {{ border-top: 1px solid {FAINT}; padding: 4px 7px; text-align: center;
  vertical-align: middle; }}
.fl-table tr.fl-head th {{ border-top: 0; font-weight: 600; }}
.fl-table td.fl-text, .fl-table th.fl-text {{ text-align: left; width: 99%; }}
.fl-body {{ white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; display: block; max-height: 9em;
  overflow-y: auto; }}
.fl-tag {{ color: #98a2ad; }} .fl-think {{ color: #3e4a57; }} .fl-outside {{ color: {VERMILLION}; }}
.fl-answer {{ font-weight: 700; }} .fl-right {{ color: {BLUE}; }} .fl-wrong {{ color: {VERMILLION}; }}
.fl-mark {{ width: 1.2em; font-size: 15px; }}
.fl-chip {{ display: inline-block; min-width: 1.5em; padding: 1px 5px; border: 1px solid #aab3bd; border-radius: 1em;
  font-variant-numeric: tabular-nums; white-space: nowrap; }}
.fl-line {{ display: flex; justify-content: space-between; gap: 20px; flex-wrap: wrap; }}
.fl-bar {{ position: relative; width: 132px; height: 18px; }}
.fl-bar i {{ position: absolute; top: 4px; height: 10px; }}
.fl-bar s {{ position: absolute; left: 50%; top: 0; bottom: 0; border-left: 1px solid {GREY}; }}
.fl-bar b {{ position: absolute; font-weight: 400; font-variant-numeric: tabular-nums; }}
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


class Element(str):
    """HTML or SVG in which all text is escaped. What is made of it by `+` or slicing is a plain string again."""


def element(tag: str, *content: str, **attributes: Any) -> Element:
    """An element of HTML or SVG: strings in it are escaped, elements in it are not.

    Attributes as keywords: `class_` stands for class, `text_anchor` for text-anchor.

    >>> element("p", "1 < 2", element("br"), class_="fl-note")
    '<p class="fl-note">1 &lt; 2<br></p>'
    """
    pairs = [f' {name.rstrip("_").replace("_", "-")}="{escaped(str(value))}"' for name, value in attributes.items()]
    end = "" if tag in ("br", "img") else f"</{tag}>"
    return Element(f"<{tag}{''.join(pairs)}>{joined(*content)}{end}")


def joined(*content: str) -> Element:
    """Strings, escaped, and elements, one after the other."""
    return Element("".join(part if isinstance(part, Element) else escaped(part) for part in content))


def escaped(text: str) -> Element:
    """Text as markup that shows it."""
    return Element(escape(utf8(text)))


def curve_svg(curve: Curve, steps: Sequence[int], shown: int | None = None) -> Element:
    """One curve against its steps, pale, with its running mean, and a dashed line at the step that is shown: an SVG.

    steps: the step number of each value, increasing. At most MAX_POINTS points are drawn, however long the run is.
    """
    values = np.array(curve.values, dtype=float)  # None becomes NaN
    frame = _Frame(steps, values)
    parts = [
        element("text", curve.name, x=0, y=11, font_size=12, font_weight=600, fill=INK),
        element("text", curve.unit, x=frame.WIDE - 6, y=11, text_anchor="end"),
        *frame.ticks(),
    ]
    if shown is not None:
        x = frame.x(shown)
        parts.append(element("line", x1=x, x2=x, y1=frame.TOP, y2=frame.BOTTOM, stroke=GREY, stroke_dasharray="3 2"))
    pale = frame.line(values, stroke=curve.colour, stroke_opacity=0.3, stroke_width=1)
    mean = frame.line(running_mean(values), stroke=curve.colour)
    look = {"stroke_width": 2, "stroke_linejoin": "round", "stroke_linecap": "round"}
    parts.append(element("g", pale, mean, fill="none", **look))
    look = {"font_family": "system-ui, sans-serif", "font_size": 10, "fill": GREY, "role": "img"}
    return element("svg", *parts, viewBox=f"0 0 {frame.WIDE} {frame.HIGH}", **look, aria_label=curve.name)


class _Frame:
    """Coordinates of steps and values in the SVG of a curve; zero is always in view."""

    WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 240, 132, 40, 234, 24, 112

    def __init__(self, steps: Sequence[int], values: np.ndarray):
        self.low, self.high = min(0.0, np.nanmin(values)), max(0.0, np.nanmax(values))
        if self.low == self.high:  # all are zero
            self.high = 1.0
        self.steps, self.first, self.last = steps, min(steps[0], 1), max(steps[-1], 2)

    def x(self, step: float) -> float:
        return round(self.LEFT + (self.RIGHT - self.LEFT) * (step - self.first) / (self.last - self.first), 1)

    def y(self, value: float) -> float:
        return round(self.BOTTOM - (self.BOTTOM - self.TOP) * (value - self.low) / (self.high - self.low), 1)

    def ticks(self) -> list[Element]:
        """Three lines with their values, and the first and the last step."""
        parts, left, right = [], {"x": self.LEFT, "y": self.HIGH - 6}, {"x": self.RIGHT, "y": self.HIGH - 6}
        for value in (self.low, (self.low + self.high) / 2, self.high):
            y = self.y(value)
            parts.append(element("line", x1=self.LEFT, x2=self.RIGHT, y1=y, y2=y, stroke=FAINT))
            parts.append(element("text", f"{value:.2g}", x=self.LEFT - 4, y=f"{y + 3:.1f}", text_anchor="end"))
        last = element("text", str(self.last), **right, text_anchor="end")
        return [*parts, element("text", f"step {self.first}", **left), last]

    def line(self, values: np.ndarray, **look: Any) -> Element:
        """A line through at most MAX_POINTS of the values that exist; a dot for a single one."""
        indices = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int)).tolist()
        points = [(self.x(self.steps[i]), self.y(values[i])) for i in indices if not np.isnan(values[i])]
        if len(points) == 1:
            return element("circle", cx=points[0][0], cy=points[0][1], r=1.5, **look)
        return element("polyline", points=" ".join(f"{x},{y}" for x, y in points), **look)


def completion_html(text: str) -> Element:
    """A completion, escaped: tags pale, the answer bold, text outside of both parts vermillion (it breaks the format).

    >>> completion_html("<answer>a < b</answer>!")  # doctest: +ELLIPSIS
    '<span class="fl-tag">&lt;answer&gt;</span><span class="fl-answer">a &lt; b</span>...outside">!</span>'
    """
    spans = [element("span", piece, class_=f"fl-{kind}") for piece, kind in split_tags(text[:LONGEST])]
    if len(text) > LONGEST:
        spans.append(element("span", f" [{len(text) - LONGEST} more characters]", class_="fl-note"))
    return joined(*spans or [element("span", "(nothing written)", class_="fl-outside")])


def image_html(image: Image, alt: str, side: int = 336, **attributes: Any) -> Element:
    """A copy of an image, at most `side` pixels wide and high, as an <img> element without a file."""
    small = to_rgb(image)  # a copy
    small.thumbnail((side, side))
    return data_html(encoded(small, format="jpeg", quality=85), "jpeg", alt, **attributes)


def data_html(data: str, kind: str, alt: str, **attributes: Any) -> Element:
    """An <img> element of a file in base64; kind: "jpeg" or "png"."""
    return element("img", **attributes, alt=alt, src=f"data:image/{kind};base64,{data}")


def advantage_html(value: float, limit: float) -> Element:
    """An advantage as a bar from the middle, to the right if it is positive, with its number."""
    width, colour = 42 * min(abs(value) / limit, 1.0), BLUE if value >= 0 else VERMILLION
    side, other = ("left", "right") if value >= 0 else ("right", "left")
    bar = element("i", style=f"{side}:50%;width:{width:.1f}%;background:{colour}")
    number = element("b", signed(value), style=f"{other}:calc(50% + 5px)")
    return element("div", element("s"), bar, number, class_="fl-bar")


def chip_html(value: float) -> Element:
    """A reward as a rounded label, filled as far as it was earned."""
    earned = min(max(value, 0.0), 1.0)
    red, green, blue = ImageColor.getrgb(BLUE)[:3]
    ink, edge = PAPER if earned > 0.5 else INK, BLUE if earned else "#aab3bd"
    style = f"background:rgba({red},{green},{blue},{earned:.2f});color:{ink};border-color:{edge}"
    return element("span", f"{value:.3g}", class_="fl-chip", style=style)


def group_html(samples: Sequence[Mapping[str, Any]], picture: str = "") -> Element:
    """One group: its picture (an <img> element) and gold label, each completion with its rewards and its advantage.

    samples: as in `StepRecord.samples`: text, label, source, rewards by name, advantage; highest advantage first.
    """
    if not samples:
        nothing = "This record keeps no completions (log_rows is 0, or no row was learnt from)."
        return element("p", nothing, class_="fl-note")
    names = [element("th", short_name(name)) for name in samples[0]["rewards"]]
    count = element("th", f"G = {len(samples)} completions", class_="fl-text")
    head = element("tr", element("th"), count, *names, element("th", "advantage"), class_="fl-head")
    ordered = sorted(samples, key=lambda sample: -(sample["advantage"] or 0.0))
    limit = max([1.0, *(abs(sample["advantage"] or 0.0) for sample in samples)])
    table = element("table", head, *(_completion_row(sample, limit) for sample in ordered), class_="fl-table")
    flat = "" if any(sample["advantage"] for sample in samples) else "No spread in the rewards: no policy gradient."
    below = element("span", "gold label", element("br"), samples[0]["source"], class_="fl-note")
    caption = element("figcaption", element("b", samples[0]["label"]), element("br"), below)
    rows = element("div", table, element("div", flat, class_="fl-note"), class_="fl-rows")
    return element("div", element("figure", picture, caption), rows, class_="fl-group")


def _completion_row(sample: Mapping[str, Any], limit: float) -> Element:
    kind, mark = "", ""
    for name, value in sample["rewards"].items():
        if short_name(name) == "accuracy":
            kind, mark = ("fl-right", RIGHT_MARK) if value else ("fl-wrong", WRONG_MARK)
    notes = ["cut off"] * bool(sample.get("truncated")) + [sample.get("origin") or "sampled"]
    note = element("span", ", ".join(note for note in notes if note != "sampled"), class_="fl-note")
    text = element("span", completion_html(sample["text"]), class_=f"fl-body {kind}")
    chips = [element("td", chip_html(value)) for value in sample["rewards"].values()]
    bar = element("td", advantage_html(sample["advantage"] or 0.0, limit))
    cells = [element("td", mark, class_=f"fl-mark {kind}"), element("td", text, note, class_="fl-text"), *chips, bar]
    return element("tr", *cells)


def cards_html(numbers: Mapping[str, str]) -> Element:
    """Named numbers side by side."""
    cells = [element("div", element("b", value), element("span", name)) for name, value in numbers.items()]
    return element("div", *cells, class_="fl-cards")
