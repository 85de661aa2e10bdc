"""The two pre-training logs as one picture."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw_curves(directory: Path) -> Path:
    """Read the logs of ``directory`` and draw ``curves.png`` beside them."""
    tower, language = read(directory / "tower.jsonl"), read(directory / "language.jsonl")
    starts, before = {}, 0  # where each part of stage 2 begins, in responses
    for part in dict.fromkeys(line["part"] for line in language):
        starts[part] = before
        before += max(line["responses"] for line in language if line["part"] == part)
    language = [line | {"responses": starts[line["part"]] + line["responses"]} for line in language]
    figure = Figure(figsize=(9, 3.2), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    left.plot([t["images"] / 1000 for t in tower], [t["f1"] for t in tower], color="#9db8d2", label="training batch")
    evaluated = [t for t in tower if "held_out" in t]
    left.plot(
        [t["images"] / 1000 for t in evaluated],
        [t["held_out"]["f1"] for t in evaluated],
        "o-",
        color="#1f5a96",
        label="held-out scenes",
    )
    left.set(
        xlabel="images seen (thousands)",
        ylabel="F1 of the statements",
        title="1. the tower learns evidence",
        ylim=(0, 1),
    )
    left.legend(frameon=False)
    kinds = dict.fromkeys(kind for line in language for kind in line["loss"])
    for k, kind in enumerate(kinds):
        for part in starts:  # no line from one part to the next that has this kind
            lines = [line for line in language if line["part"] == part and kind in line["loss"]]
            points = [(line["responses"] / 1000, line["loss"][kind]) for line in lines]
            name = kind if part == next(iter(starts)) else None
            right.plot(*zip(*points, strict=True), color=f"C{k}", linewidth=0.9, label=name)
    for start in list(starts.values())[1:]:
        right.axvline(start / 1000, color="#999999", linewidth=0.6, linestyle=":")
    right.legend(frameon=False, fontsize=7, ncols=2)
    right.set(
        xlabel="responses seen (thousands)",
        ylabel="cross entropy (nats a token)",
        title="2. the model learns to answer questions",
        yscale="log",
    )
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    target = directory / "curves.png"
    figure.savefig(target)
    return target
