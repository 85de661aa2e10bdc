"""What was tried to keep GRPO's reasoning true, on validation images: ``python data/results/tune_truth.py``.

Seeds that are used nowhere else, four shots of ``cartoon``, 256 validation images of the same set; no test image is
used. Finished trials are kept in ``tune_truth.json``; the page is ``tune_truth.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from favor_lab import evaluate, few_shot, load_activities, load_policy, train
from favor_lab.grpo.rewards import completion_text
from favor_lab.recipes.truth import truth_reward
from favor_lab.responses import judge_statements
from favor_lab.runs.cells import chosen_settings
from favor_lab.runs.variants import PLAIN
from favor_lab.study.measures import measure
from favor_lab.study.rounding import percent, rounded

HERE = Path(__file__).resolve().parent
SHOTS, VALIDATION, SEEDS = 4, 16, (10, 11, 12, 13)  # images per label
UNTRAINED = "zero-shot"


def fined(completions: list[str], source: list[str], **columns: Any) -> list[float]:
    """Every true statement pays a quarter, every false one costs two: rewards care, not silence."""
    judged = [judge_statements(completion_text(text), name) for text, name in zip(completions, source, strict=True)]
    return [(true - 2 * (stated - true)) / 4 for stated, true in judged]


#: name -> (changed settings, weight of the third reward, the third reward)
TRIALS: dict[str, tuple[dict[str, Any], float, Callable[..., list[float]]]] = {
    UNTRAINED: ({"steps": 0}, 0, truth_reward),
    "plain": ({}, 0, truth_reward),
    "half the rate": ({"learning_rate": 1e-3}, 0, truth_reward),
    "KL 0.3": ({"beta": 0.3}, 0, truth_reward),
    "truth": ({}, 1, truth_reward),
    "truth, half the rate": ({"learning_rate": 1e-3}, 1, truth_reward),
    "truth, no std": ({"scale": "none"}, 1, truth_reward),
    "truth twice, no std": ({"scale": "none"}, 2, truth_reward),
    "truth twice, no std, temperature 0.6": ({"scale": "none", "temperature": 0.6}, 2, truth_reward),
    "truth, KL 0.15": ({"beta": 0.15}, 1, truth_reward),
    "truth twice, KL 0.15": ({"beta": 0.15}, 2, truth_reward),
    "truth, KL 0.15, groups of 16": ({"beta": 0.15, "group_size": 16}, 1, truth_reward),
    "truth, KL 0.15, half the rate": ({"beta": 0.15, "learning_rate": 1e-3}, 1, truth_reward),
    "truth, KL 0.3": ({"beta": 0.3}, 1, truth_reward),
    "truth, KL 0.3, half the rate": ({"beta": 0.3, "learning_rate": 1e-3}, 1, truth_reward),
    "truth, KL 0.3, temperature 0.6": ({"beta": 0.3, "temperature": 0.6}, 1, truth_reward),
    "truth twice, KL 0.3": ({"beta": 0.3}, 2, truth_reward),
    "false ones fined, KL 0.15": ({"beta": 0.15}, 1, fined),
    "false ones fined, KL 0.3": ({"beta": 0.3}, 1, fined),
}


def trial(name: str, seed: int) -> dict[str, Any]:
    """Train with these settings, and answer the validation images."""
    changes, weight, reward = TRIALS[name]
    shots = few_shot(load_activities("cartoon"), SHOTS, seed=seed, validation=VALIDATION, test=0)
    policy = load_policy("pocket", seed=seed)
    if name != UNTRAINED:
        settings = replace(chosen_settings()["grpo"], seed=seed, reward_weights=(1, 1, weight), **changes)
        for _ in train(policy, shots, settings, rewards=PLAIN | {"third": reward}):
            pass
    after = evaluate(policy, shots.validation, shots.labels)
    statements = float(np.mean([answer.statements for answer in after.answers]))
    rates = {part: round(measure([after], part).mean, 3) for part in ("right", "true")}
    return {"trial": name, "seed": seed, **rates, "said": round(statements, 2)}


def page(trials: list[dict[str, Any]]) -> str:
    lines = [
        "# What was tried to keep the reasoning true",
        "",
        f"`python data/results/tune_truth.py`: cartoon, {SHOTS} shots, the study's settings of GRPO but for what the "
        f"name says, {16 * VALIDATION} validation images; the mean of the seeds. One seed more or less moves a row by "
        "about a point, so the rows are no ranking. On test images the study has `slow` (half the rate), `strong-kl` "
        "(KL 0.3), `truth`, `truth-kl` (truth, KL 0.15) and `truth-2-kl` (truth twice, KL 0.3).",
        "",
        "| trial | seeds | right | true statements | statements a response |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in TRIALS:
        if mine := [row for row in trials if row["trial"] == name]:
            right, true, statements = (np.mean([row[part] for row in mine]) for part in ("right", "true", "said"))
            lines.append(f"| {name} | {len(mine)} | {percent(right)} | {percent(true)} | {rounded(statements, 2)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    target = HERE / "tune_truth.json"
    trials = json.loads(target.read_text(encoding="utf-8")) if target.exists() else []
    for name in TRIALS:
        for seed in SEEDS[:1] if name == UNTRAINED else SEEDS:
            if (name, seed) not in [(row["trial"], row["seed"]) for row in trials]:
                trials.append(trial(name, seed))
                target.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
                print(trials[-1], flush=True)
    (HERE / "tune_truth.md").write_text(page(trials), encoding="utf-8")
    print(page(trials))


if __name__ == "__main__":
    main()
