"""Pieces of HTML and SVG for widgets and the report: strings in, strings out.

The text of a policy is not trusted: everything is escaped here, where markup is made. Colours are those of the
figures (see `favor_lab.show.style`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.responses import split_tags
from favor_lab.show.curves import Curve, as_numbers, running_mean
from favor_lab.show.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    PAPER,
    VERMILLION,
    as_rgb,
    encoded,
    short_name,
    signed,
)  # fmt: skip

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
.fl-said {{ white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; display: block; max-height: 9em;
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
</style>"""


# ------------------------------------------------------------------------------------------------------------ curves


def curve_svg(curve: Curve, steps: Sequence[int], shown: int | None = None) -> str:
    """One curve against its steps, pale, with its running mean, and a dashed line at the step that is shown: an SVG.

    steps: the step number of each value, increasing. At most MAX_POINTS points are drawn, however long the run is.
    """
    values = as_numbers(curve.values)
    frame = _Frame(steps, values)
    wide, high = _Frame.WIDE, _Frame.HIGH
    lines = _polyline(frame, steps, values, f'stroke="{curve.colour}" stroke-opacity="0.3" stroke-width="1"')
    lines += _polyline(frame, steps, running_mean(values), f'stroke="{curve.colour}"')
    x = frame.x(steps[0] if shown is None else shown)
    marker = f'<line x1="{x}" x2="{x}" y1="{frame.TOP}" y2="{frame.BOTTOM}" stroke="{GREY}" stroke-dasharray="3 2"/>'
    return (
        f'<svg viewBox="0 0 {wide} {high}" font-family="system-ui, sans-serif" font-size="10" fill="{GREY}" '
        f'role="img" aria-label="{escape(curve.name)}">'
        f'<text x="0" y="11" font-size="12" font-weight="600" fill="{INK}">{escape(curve.name)}</text>'
        f'<text x="{wide - 6}" y="11" text-anchor="end">{escape(curve.unit)}</text>'
        f"{frame.ticks()}{'' if shown is None else marker}"
        f'<g fill="none" stroke-width="2" stroke-linejoin="round" stroke-linecap="round">{lines}</g></svg>'
    )


class _Frame:
    """Coordinates of steps and values in the SVG of a curve; zero is always in view."""

    WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 240, 132, 40, 234, 24, 112

    def __init__(self, steps: Sequence[int], values: np.ndarray):
        self.low, self.high = min(0.0, np.nanmin(values)), max(0.0, np.nanmax(values))
        if self.low == self.high:  # all are zero
            self.high = 1.0
        self.first, self.last = min(steps[0], 1), max(steps[-1], 2)

    def x(self, step: float) -> float:
        return round(self.LEFT + (self.RIGHT - self.LEFT) * (step - self.first) / (self.last - self.first), 1)

    def y(self, value: float) -> float:
        return round(self.BOTTOM - (self.BOTTOM - self.TOP) * (value - self.low) / (self.high - self.low), 1)

    def ticks(self) -> str:
        """Three lines with their values, and the first and the last step."""
        parts = []
        for value in (self.low, (self.low + self.high) / 2, self.high):
            y = self.y(value)
            parts.append(f'<line x1="{self.LEFT}" x2="{self.RIGHT}" y1="{y}" y2="{y}" stroke="{FAINT}"/>')
            parts.append(f'<text x="{self.LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{value:.2g}</text>')
        below = self.HIGH - 6
        parts.append(f'<text x="{self.LEFT}" y="{below}">step {self.first}</text>')
        return "".join(parts) + f'<text x="{self.RIGHT}" y="{below}" text-anchor="end">{self.last}</text>'


def _polyline(frame: _Frame, steps: Sequence[int], values: np.ndarray, style: str) -> str:
    """A line through at most MAX_POINTS of the values that exist; a dot for a single one."""
    indices = np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).round().astype(int)).tolist()
    points = [(frame.x(steps[i]), frame.y(values[i])) for i in indices if not np.isnan(values[i])]
    if len(points) == 1:
        return f'<circle cx="{points[0][0]}" cy="{points[0][1]}" r="1.5" {style}/>'
    return f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}" {style}/>'


# -------------------------------------------------------------------------------------------------------- one group


def completion_html(text: str) -> str:
    """A completion, escaped: tags pale, the answer bold, text outside of both parts vermillion (it breaks the format).

    >>> completion_html("<answer>a < b</answer>!")  # doctest: +ELLIPSIS
    '<span class="fl-tag">&lt;answer&gt;</span><span class="fl-answer">a &lt; b</span>...outside">!</span>'
    """
    pieces = split_tags(text[:LONGEST])
    spans = [f'<span class="fl-{kind}">{escape(piece)}</span>' for piece, kind in pieces]
    if len(text) > LONGEST:
        spans.append(f'<span class="fl-note"> [{len(text) - LONGEST} more characters]</span>')
    return "".join(spans) or '<span class="fl-outside">(nothing written)</span>'


def image_html(image: Image, alt: str, side: int = 336, width: int | None = None) -> str:
    """A copy of an image, at most `side` pixels wide and high, as an <img> element without a file; width: as shown."""
    small = as_rgb(image).copy()
    small.thumbnail((side, side))
    return data_html(encoded(small, format="jpeg", quality=85), "jpeg", alt, width)


def data_html(data: str, kind: str, alt: str, width: int | None = None) -> str:
    """An <img> element of a file in base64; kind: "jpeg" or "png"."""
    size = f' width="{width}"' if width else ""
    return f'<img{size} alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'


def advantage_html(value: float, limit: float) -> str:
    """An advantage as a bar from the middle, to the right if it is positive, with its number."""
    share, side = 42 * min(abs(value) / limit, 1.0), "left" if value >= 0 else "right"
    colour = BLUE if value >= 0 else VERMILLION
    other = "right" if value >= 0 else "left"
    return (
        f'<div class="fl-bar"><s></s><i style="{side}:50%;width:{share:.1f}%;background:{colour}"></i>'
        f'<b style="{other}:calc(50% + 5px)">{signed(value)}</b></div>'
    )


def chip_html(value: float) -> str:
    """A reward as a rounded label, filled as far as it was earned."""
    earned = min(max(value, 0.0), 1.0)
    red, green, blue = (int(BLUE[i : i + 2], 16) for i in (1, 3, 5))
    ink, edge = PAPER if earned > 0.5 else INK, BLUE if earned else "#aab3bd"
    style = f"background:rgba({red},{green},{blue},{earned:.2f});color:{ink};border-color:{edge}"
    return f'<span class="fl-chip" style="{style}">{value:.3g}</span>'


def earned_accuracy(sample: Mapping[str, Any]) -> bool | None:
    """Whether the accuracy reward was earned; None where there is no such reward."""
    accuracy = [value for name, value in sample["rewards"].items() if short_name(name) == "accuracy"]
    return bool(accuracy[0]) if accuracy else None


def group_html(samples: Sequence[Mapping[str, Any]], picture: str = "") -> str:
    """One group: its picture (an <img> element) and gold label, each completion with its rewards and its advantage.

    samples: as in `StepRecord.samples`: text, label, source, rewards by name, advantage; highest advantage first.
    """
    if not samples:
        return '<p class="fl-note">This record keeps no completions (log_rows is 0, or no row was learnt from).</p>'
    ordered = sorted(samples, key=lambda sample: -(sample["advantage"] or 0.0))
    limit = max([1.0, *(abs(sample["advantage"] or 0.0) for sample in samples)])
    lines = "".join(_completion_row(sample, limit) for sample in ordered)
    names = "".join(f"<th>{escape(short_name(name))}</th>" for name in samples[0]["rewards"])
    head = f'<th></th><th class="fl-text">G = {len(samples)} completions</th>{names}<th>advantage</th>'
    flat = "" if any(sample["advantage"] for sample in samples) else "No spread in the rewards: no policy gradient."
    below = f'<b>{escape(samples[0]["label"])}</b><br><span class="fl-note">gold label<br>'
    return (
        f'<div class="fl-group"><figure>{picture}<figcaption>{below}{escape(samples[0]["source"])}</span></figcaption>'
        f'</figure><div class="fl-rows"><table class="fl-table"><tr class="fl-head">{head}</tr>{lines}</table>'
        f'<div class="fl-note">{flat}</div></div></div>'
    )


def _completion_row(sample: Mapping[str, Any], limit: float) -> str:
    right = earned_accuracy(sample)
    kind, mark = {None: ("", ""), True: ("fl-right", "&#10003;"), False: ("fl-wrong", "&#10007;")}[right]
    notes = ["cut off"] * bool(sample.get("truncated")) + [sample.get("origin") or "sampled"]
    note = ", ".join(escape(note) for note in notes if note != "sampled")
    text = f'<span class="fl-said {kind}">{completion_html(sample["text"])}</span><span class="fl-note">{note}</span>'
    chips = "".join(f"<td>{chip_html(value)}</td>" for value in sample["rewards"].values())
    bar = advantage_html(sample["advantage"] or 0.0, limit)
    return f'<tr><td class="fl-mark {kind}">{mark}</td><td class="fl-text">{text}</td>{chips}<td>{bar}</td></tr>'


# ---------------------------------------------------------------------------------------------------------- numbers


def cards_html(numbers: Mapping[str, str]) -> str:
    """Named numbers side by side."""
    cells = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in numbers.items())
    return f'<div class="fl-cards">{"".join(cells)}</div>'
