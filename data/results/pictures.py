"""Draw the README's two pictures: ``python data/results/pictures.py``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from favor_lab import ACTIVITIES, SETS, draw_scene, plot_loop

FIGURES = Path(__file__).resolve().parent / "figures"


def scenes() -> Figure:
    """Every activity once, the four looks in turn: 2 rows of 8."""
    figure = Figure(figsize=(13.6, 4.05), layout="constrained", dpi=110)
    for k, (axes, activity) in enumerate(zip(figure.subplots(2, 8).flat, ACTIVITIES, strict=True)):
        look = SETS[(k + k // 4) % len(SETS)]
        axes.imshow(draw_scene(look, "train", k + 16 * 5, size=280).image)
        axes.set_title(f"{activity}\n{look}", fontsize=10)
        axes.axis("off")
    return figure


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    scenes().savefig(FIGURES / "scenes.png")
    plot_loop(draw_scene("cartoon", "train", 9 + 16 * 5, size=280).image).savefig(FIGURES / "loop.png", dpi=110)


if __name__ == "__main__":
    main()
