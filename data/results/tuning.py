"""How the default settings were chosen: ``python data/results/tuning.py``.

Every trial trains on four shots of ``cartoon`` (a seed that is used nowhere else) and is evaluated on validation images
of the same set. No test image and no other set is used. Finished trials are kept in ``tuning.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy, train
from favor_lab.study.rounding import percent, rounded

HERE = Path(__file__).resolve().parent
SEED, SHOTS, VALIDATION = 100, 4, 12  # images per label
TRIALS: tuple[dict[str, Any], ...] = (
    {"learning_rate": 2e-4},
    {"learning_rate": 5e-4},
    {"learning_rate": 1e-3},
    {"learning_rate": 1e-3, "prompts_per_step": 8, "steps": 60},
)


def trial(changes: dict[str, Any]) -> dict[str, Any]:
    """Train with these changes of the defaults; validation accuracy before and after."""
    shots = few_shot(load_activities("cartoon"), SHOTS, seed=SEED, validation=VALIDATION, test=0)
    policy = load_policy("pocket", seed=SEED)
    before = evaluate(policy, shots.validation, shots.labels)
    settings = GRPOSettings(seed=SEED, **changes)
    records = list(tqdm(train(policy, shots, settings), total=settings.steps, leave=False))
    after = evaluate(policy, shots.validation, shots.labels)
    return {
        "changes": changes,
        "before": before.accuracy,
        "accuracy": after.accuracy,
        "interval_95": list(after.interval),
        "format_rate": after.format_rate,
        "truth_rate": after.truth_rate,
        "kl": records[-1].kl,
        "seconds_a_step": float(np.mean([sum(record.seconds.values()) for record in records])),
    }


def page(trials: list[dict[str, Any]]) -> str:
    lines = [
        "# The trials behind the default settings",
        "",
        f"`python data/results/tuning.py`: cartoon, {SHOTS} shots, seed {SEED}, {16 * VALIDATION} validation images.",
        "Greedy answers before training: "
        f"{percent(trials[0]['before'])} right. One seed a trial: differences below about 10 points mean little.",
        "",
        "| changed | right after training, 95 % interval | well formed | true statements | last KL |",
        "| --- | --- | --- | --- | --- |",
    ]
    for t in trials:
        low, high = t["interval_95"]
        changes = ", ".join(f"{name} {value}" for name, value in t["changes"].items())
        lines.append(
            f"| {changes} | {percent(t['accuracy'])} ({rounded(100 * low)} to {rounded(100 * high)}) "
            f"| {percent(t['format_rate'])} | {percent(t['truth_rate'])} | {t['kl']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    target = HERE / "tuning.json"
    trials = json.loads(target.read_text(encoding="utf-8")) if target.exists() else []
    for changes in TRIALS:
        if changes not in [t["changes"] for t in trials]:
            trials.append(trial(changes))
            target.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
            print(trials[-1], flush=True)
    (HERE / "tuning.md").write_text(page(trials), encoding="utf-8")
    print(page(trials))


if __name__ == "__main__":
    main()
