"""Draw the pictures of the pages, from the drawn world and the committed responses:
``python data/results/pictures.py``."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from favor_lab import ACTIVITIES, SETS, draw_scene, plot_loop
from favor_lab.responses import split_response
from favor_lab.show.layout import canvas, place_image
from favor_lab.show.methods import plot_methods_map
from favor_lab.show.style import BLUE, GREY, VERMILLION, house_style
from favor_lab.show.text import RIGHT_MARK, WRONG_MARK

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures"
DPI = 180  # sharp on a screen with two pixels per point
TURNED = ("cartoon/test/002555", "sketch/test/001407", "thermal/test/001366", "cctv/test/001352")


def scenes() -> Figure:
    """Every activity once, the four looks in turn: 2 rows of 8."""
    figure = Figure(figsize=(13.6, 4.2), layout="constrained", dpi=110)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.08)  # type: ignore[union-attr]
    for k, (axes, activity) in enumerate(zip(figure.subplots(2, 8).flat, ACTIVITIES, strict=True)):
        look = SETS[(k + k // 4) % len(SETS)]
        axes.imshow(draw_scene(look, "train", k + 16 * 5, size=280).image)
        axes.set_title(f"{activity}\n{look}", fontsize=10)
        axes.axis("off")
    return figure


def responses(key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The committed answers to a test image before training and after it (seed 0)."""
    cell = json.loads((HERE / "spine" / f"{key.split('/')[0]}-0.json").read_text(encoding="utf-8"))
    before, after = (
        next(answer for answer in cell[when]["answers"] if answer["source"] == key) for when in ("before", "after")
    )
    return before, after


@house_style()
def before_after() -> Figure:
    """Four test images, one per look: the reasoning, and the answer before training and after it."""
    figure, axes = canvas(3.45)
    wide, left = 1.9, 0.95
    for y, word in ((2.17, "reasoning"), (2.82, "before"), (3.2, "after")):
        axes.text(0.1, y, word, color=GREY, fontsize=9.5, va="center")
    for k, key in enumerate(TURNED):
        x, (look, split, number) = left + k * (wide + 0.12), key.split("/")
        place_image(figure, draw_scene(look, split, int(number), size=400).image, x, 0.05, wide, wide)
        before, after = responses(key)
        (reasoning,) = {split_response(answer["text"])[0] for answer in (before, after)}  # the same before and after
        axes.text(x, 2.1, fill(reasoning, 30), fontsize=8.5, va="top", linespacing=1.35)
        for y, answer, colour, mark in ((2.82, before, VERMILLION, WRONG_MARK), (3.2, after, BLUE, RIGHT_MARK)):
            axes.text(x, y, mark, color=colour, fontsize=12, va="center")
            axes.text(x + 0.22, y, answer["answer"], color=colour, weight="bold", fontsize=10.5, va="center")
    return figure


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    scenes().savefig(FIGURES / "scenes.png")
    plot_loop(draw_scene("cartoon", "train", 9 + 16 * 5, size=400).image).savefig(FIGURES / "loop.png", dpi=DPI)
    plot_methods_map().savefig(FIGURES / "methods.png", dpi=DPI)
    path = FIGURES / "before_after.png"
    before_after().savefig(path, dpi=DPI)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)  # a fifth of the size


if __name__ == "__main__":
    main()
