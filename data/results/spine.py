"""The first claim, measured: 4-shot GRPO from the shipped pocket policy, four sets, three seeds.

``python data/results/spine.py`` writes ``spine/<set>-<seed>.json`` cell by cell (finished cells are kept, so that it
can be killed and started again), then ``spine.md``, the table of README.md beside this script, and ``headline.md``, the
number on the first page.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy, train
from favor_lab.activities.world.catalogue import SETS
from favor_lab.study.comparison import bootstrap_interval
from favor_lab.study.measures import Measured
from favor_lab.study.rounding import percent

HERE = Path(__file__).resolve().parent
SHOTS, TEST = 4, 20  # images per label


def measure(name: str, seed: int, settings: GRPOSettings) -> dict[str, Any]:
    """One cell: zero-shot, training, and the same test images again."""
    shots = few_shot(load_activities(name), SHOTS, seed=seed, validation=0, test=TEST)
    policy = load_policy("pocket", seed=seed)
    before = evaluate(policy, shots.test, shots.labels)
    started = time.time()
    records = list(tqdm(train(policy, shots, settings), total=settings.steps, desc=f"{name} {seed}", leave=False))
    minutes = (time.time() - started) / 60
    after = evaluate(policy, shots.test, shots.labels)
    unseen = [label for label, tally in records[-1].labels.items() if not tally["right_so_far"]]
    return {
        "set": name, "seed": seed, "shots": SHOTS, "settings": vars(settings), "training_minutes": round(minutes, 2),
        "never_right_in_training": unseen, "before": before.to_dict(), "after": after.to_dict(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "machine": platform.machine(),
    }  # fmt: skip


def correct(cell: dict[str, Any], when: str) -> np.ndarray:
    return np.array([answer["correct"] for answer in cell[when]["answers"]], float)


def points(gains: np.ndarray) -> str:
    return Measured(gains.mean(), *bootstrap_interval(gains)).percent(signed=True)


def mean(cells: list[dict[str, Any]], when: str, rate: str) -> float:
    return float(np.mean([cell[when][rate] for cell in cells]))


def row(name: str, cells: list[dict[str, Any]], gains: np.ndarray) -> str:
    """One line of the table. The base and the test images are the same for every seed, so zero-shot is one number."""
    columns = [
        name,
        percent(mean(cells, "before", "accuracy")),
        percent(mean(cells, "after", "accuracy")),
        points(gains),
    ]
    columns += [
        f"{percent(mean(cells, 'before', rate))} → {percent(mean(cells, 'after', rate))}"
        for rate in ("format_rate", "truth_rate")
    ]
    if len({cell["set"] for cell in cells}) == 1:
        low, high = cells[0]["before"]["interval_95"]
        columns[1] += f" ({percent(low)} to {percent(high)})"
        columns[2] += f" ({', '.join(percent(cell['after']['accuracy']) for cell in cells)})"
    return f"| {' | '.join(columns)} |"


def table(cells: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        f"| set | zero-shot | {SHOTS}-shot GRPO | gain, points | well formed | true statements |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    gains = {}
    for name in SETS:
        mine = [cell for cell in cells if cell["set"] == name]
        gains[name] = gains_of(mine)
        lines.append(row(name, mine, gains[name]))
    lines.append(row("**mean**", cells, np.concatenate(list(gains.values()), axis=1)))
    return "\n".join(lines) + "\n"


def gains_of(cells: list[dict[str, Any]]) -> np.ndarray:
    """(seeds, images): 1 where an image became right, -1 where it became wrong."""
    return np.stack([correct(cell, "after") - correct(cell, "before") for cell in cells])


def headline(cells: list[dict[str, Any]]) -> str:
    """The number on the first page: means over sets and seeds, the gain with its interval."""
    before, after = (percent(mean(cells, when, "accuracy")) for when in ("before", "after"))
    of_sets = [[cell for cell in cells if cell["set"] == name] for name in SETS]
    gain = points(np.concatenate([gains_of(mine) for mine in of_sets], axis=1))
    labels, images = len(cells[0]["before"]["labels"]), len(cells[0]["before"]["answers"])
    lines = [
        f"**{before} → {after} right answers**, a gain of {gain} points (in brackets the 95 % interval).",
        f"Mean of {len(SETS)} drawn sets and {len(of_sets[0])} seeds: {SHOTS} training images for each of {labels}",
        f"activities, {images} test images per set that neither pre-training nor any choice of settings has seen.",
        "Two CPU cores are enough.",
    ]
    return "\n".join(lines) + "\n"


def zero_shot(cells: list[dict[str, Any]]) -> str:
    """The part of the table about the policy as shipped, for its model card."""
    lines = ["| set | right, 95 % interval | well formed | true statements |", "| --- | --- | --- | --- |"]
    for name in SETS:
        before = next(cell["before"] for cell in cells if cell["set"] == name)
        low, high = before["interval_95"]
        rates = [percent(before[rate]) for rate in ("accuracy", "format_rate", "truth_rate")]
        lines.append(f"| {name} | {rates[0]} ({percent(low)} to {percent(high)}) | {rates[1]} | {rates[2]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    folder = HERE / "spine"
    folder.mkdir(exist_ok=True)
    for seed in options.seeds:
        for name in options.sets:
            target = folder / f"{name}-{seed}.json"
            if not target.exists():
                cell = measure(name, seed, GRPOSettings(seed=seed))
                target.with_suffix(".tmp").write_text(json.dumps(cell, indent=1), encoding="utf-8")
                target.with_suffix(".tmp").rename(target)
                print(
                    f"{name} seed {seed}: {cell['before']['accuracy']:.3f} -> {cell['after']['accuracy']:.3f}",
                    flush=True,
                )
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if {cell["set"] for cell in cells} == set(SETS):
        (HERE / "spine.md").write_text(table(cells), encoding="utf-8")
        (HERE / "headline.md").write_text(headline(cells), encoding="utf-8")
        (HERE / "zero_shot.md").write_text(zero_shot(cells), encoding="utf-8")
        print(table(cells))


if __name__ == "__main__":
    main()
