"""The learning rate of each method of the study, chosen on validation images: ``python data/results/tune_methods.py``.

Every method gets the same trials: the same learning rates, two seeds that are used nowhere else, four shots of
``cartoon``, evaluated on validation images of the same set. No test image and no other set is used. Finished trials
are kept in ``tune_methods.json``; the page is ``tune_methods.md``, and ``chosen`` is what the study runs with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy
from favor_lab.runs.cells import FIRST_STUDY, METHODS
from favor_lab.runs.experiments import learn
from favor_lab.study.rounding import percent

HERE = Path(__file__).resolve().parent
SHOTS, VALIDATION, SEEDS = 4, 12, (100, 101)  # images per label
RATES = (2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
TRAINED = [method for method in FIRST_STUDY if not method.startswith("zero-shot")]


def trial(method: str, rate: float, seed: int) -> dict[str, Any]:
    """Train with this learning rate; validation accuracy after it."""
    shots = few_shot(load_activities("cartoon"), SHOTS, seed=seed, validation=VALIDATION, test=0)
    policy = load_policy("pocket", seed=seed)
    settings = GRPOSettings(seed=seed, style=METHODS[method], learning_rate=rate)
    for _ in learn(method, policy, shots, settings):
        pass
    after = evaluate(policy, shots.validation, shots.labels, METHODS[method])
    rates = {"accuracy": after.accuracy, "format_rate": after.format_rate, "truth_rate": after.truth_rate}
    return {"method": method, "learning_rate": rate, "seed": seed, **rates}


def mean(trials: list[dict[str, Any]], method: str, rate: float, what: str = "accuracy") -> float:
    """Mean over the seeds; where nothing was stated there is no truth rate to average."""
    mine = [t[what] for t in trials if (t["method"], t["learning_rate"]) == (method, rate)]
    return float(np.mean([share for share in mine if share is not None]))


def chosen(trials: list[dict[str, Any]]) -> dict[str, float]:
    """By method, the smallest learning rate within one standard error of the best mean validation accuracy.

    The one-standard-error rule of Breiman et al. (1984): where accuracies do not differ, the lower learning rate
    is chosen.
    """
    picked = {}
    for method in TRAINED:
        best = max(mean(trials, method, rate) for rate in RATES)
        error = (best * (1 - best) / (16 * VALIDATION * len(SEEDS))) ** 0.5
        picked[method] = min(rate for rate in RATES if mean(trials, method, rate) >= best - error)
    return picked


def page(trials: list[dict[str, Any]]) -> str:
    best = chosen(trials)
    lines = [
        "# The learning rate of each method",
        "",
        f"`python data/results/tune_methods.py`: cartoon, {SHOTS} shots, {GRPOSettings.steps} steps, "
        f"{16 * VALIDATION} validation images, mean of {len(SEEDS)} seeds: share of right answers. In bold what the "
        "study runs with: the smallest rate within one standard error (about 2 points) of the best. Accuracy does not "
        "see what a rate does to the reasoning; the lower table does.",
        "",
        f"| method | {' | '.join(f'{rate:g}' for rate in RATES)} |",
        f"| --- |{' --- |' * len(RATES)}",
    ]
    for method in TRAINED:
        cells = [percent(mean(trials, method, rate)) for rate in RATES]
        cells = [f"**{s}**" if rate == best[method] else s for s, rate in zip(cells, RATES, strict=True)]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", f"| true statements | {' | '.join(f'{rate:g}' for rate in RATES)} |", lines[5]]
    for method in (method for method in TRAINED if METHODS[method] == "think"):
        true = [percent(mean(trials, method, rate, "truth_rate")) for rate in RATES]
        lines.append(f"| {method} | {' | '.join(true)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    target = HERE / "tune_methods.json"
    trials = json.loads(target.read_text(encoding="utf-8")) if target.exists() else []
    for rate in RATES:
        for method in TRAINED:
            for seed in SEEDS:
                if (method, rate, seed) not in [(t["method"], t["learning_rate"], t["seed"]) for t in trials]:
                    trials.append(trial(method, rate, seed))
                    target.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
                    print(trials[-1], flush=True)
    (HERE / "tune_methods.md").write_text(page(trials), encoding="utf-8")
    print(page(trials))


if __name__ == "__main__":
    main()
