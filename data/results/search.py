"""The search behind the second study: every method with the same number of trials over its own knobs.

``python data/results/search.py``: a trial trains one method with one choice of its knobs on four shots of two drawn
sets, with a seed that is used nowhere else, and answers validation images of the same sets. No test image is looked at.
The first trial of a method has the default settings; the others are drawn at random from the choices below, with a
fixed seed. All trials have as many optimiser steps; what they cost in tokens stands beside. Each finished trial is a
line of ``search.jsonl``, so that the search can be killed and resumed, and ``--part 1/2`` beside ``--part 2/2`` share
it. The page is ``search.md``; `chosen` is what the study runs with.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy
from favor_lab.runs.cells import METHODS
from favor_lab.runs.experiments import learn
from favor_lab.runs.variants import find_variant
from favor_lab.study.rounding import percent
from study import markdown

HERE = Path(__file__).resolve().parent
SETS, SHOTS, SEED, VALIDATION, SAMPLES = ("cartoon", "cctv"), 4, 100, 12, 4  # VALIDATION: images per label
TRIALS, ROWS = 10, 32  # ROWS: completions of a step, whatever the size of a group
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)

Knobs = dict[str, tuple[Any, ...]]  # by setting, or by coefficient
SFT: Knobs = {
    "learning_rate": RATES, "prompts_per_step": (4, 8, 16, 32), "label_smoothing": (0.0, 0.05, 0.1, 0.2),
    "weight_decay": (0.0, 0.1), "schedule": ("linear", "cosine"),
}  # fmt: skip
RL: Knobs = {
    "learning_rate": RATES, "temperature": (0.6, 0.8, 1.0, 1.2), "group_size": (4, 8, 16),
    "beta": (0.0, 0.01, 0.04, 0.1), "scale": ("group", "none"), "how": ("grpo", "dapo"),
}  # fmt: skip
TWO: Knobs = {
    "learning_rate": RATES, "sft_rate": RATES, "first_share": (0.25, 0.5, 0.75), "temperature": (0.6, 0.8, 1.0),
    "beta": (0.0, 0.01, 0.04), "how": ("grpo", "dapo"),
}  # fmt: skip
RECIPE: Knobs = {name: RL[name] for name in ("learning_rate", "temperature", "group_size", "beta", "how")}
#: (method, recipes) -> its knobs
SPACES: dict[tuple[str, str], Knobs] = {
    ("sft", ""): SFT,
    ("sft-reasoning", ""): SFT | {"temperature": (0.6, 0.8, 1.0)},
    ("grpo", ""): RL,
    ("grpo-answer", ""): RL,
    ("sft-then-grpo", ""): TWO | {"answers_alone": (False, True)},
    ("grpo-then-sft", ""): TWO,
    ("grpo", "amft"): RECIPE | {"mu": (0.3, 0.5, 0.8, 1.0), "rate": (0.0, 0.02)},
    ("grpo", "visurf"): RECIPE | {"label_weight": (0.3, 1.0, 3.0), "answer_only": (False, True)},
    ("grpo", "tempsamp"): RECIPE | {"anchor": (0.8, 1.2, 2.0), "floor": (0.0, 1.0, 2.0)},
    ("grpo", "credit+amft"): RECIPE | {"split": (0.5, 1.0), "mu": (0.3, 0.5, 0.8), "rate": (0.0, 0.02)},
}


def trials_of(method: str, variant: str = "") -> list[dict[str, Any]]:
    """The choices of a method's trials: none, the default settings, and then drawn ones, each once."""
    knobs = SPACES[method, variant]
    dice, drawn = random.Random(f"search {method} {variant}"), list[dict[str, Any]]([{}])
    while len(drawn) < TRIALS:
        choice = {name: dice.choice(values) for name, values in knobs.items()}
        if choice not in drawn:
            drawn.append(choice)
    return drawn


def settings_for(method: str, variant: str, choice: dict[str, Any]) -> GRPOSettings:
    """The default settings with the choices; a step of GRPO has ROWS completions, in groups of any size."""
    fields = {name: value for name, value in choice.items() if hasattr(GRPOSettings, name)}
    coefficients = {name: value for name, value in choice.items() if name not in fields}
    if "group_size" in fields:
        fields["prompts_per_step"] = ROWS // fields["group_size"]
    settings = GRPOSettings(seed=SEED, style=METHODS[method], coefficients=coefficients, **fields)
    return find_variant(variant).applied_to(settings) if variant else settings


def trial(method: str, variant: str, choice: dict[str, Any]) -> dict[str, Any]:
    """Train with these choices on each set; what the policy answers to validation images afterwards, and what it cost:
    tokens that were learnt from, sampled or given, in each step."""
    measured: dict[str, list[float]] = {}
    for name in SETS:
        shots = few_shot(load_activities(name), SHOTS, seed=SEED, validation=VALIDATION, test=0)
        policy, settings = load_policy("pocket", seed=SEED), settings_for(method, variant, choice)
        try:
            records = list(learn(method, policy, shots, settings, find_variant(variant) if variant else None))
        except (ValueError, FloatingPointError) as error:
            return {"method": method, "variant": variant, "choice": choice, "right": None, "refused": str(error)}
        after = evaluate(policy, shots.validation, shots.labels, METHODS[method], samples=SAMPLES, seed=SEED)
        sampled = float(np.mean([answer.sampled_right for answer in after.answers]))
        facts = {"right": after.accuracy, "sampled_right": sampled, "well_formed": after.format_rate}
        facts |= {"true": after.truth_rate, "tokens": float(np.mean([record.tokens for record in records]))}
        for what, value in facts.items():
            measured.setdefault(what, []).append(float("nan") if value is None else value)
    means = {what: float(np.mean(values)) for what, values in measured.items()}
    about = {"method": method, "variant": variant, "choice": choice}
    return about | {what: None if np.isnan(value) else value for what, value in means.items()}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines that `append` wrote; one that was cut off while it was written is left out."""
    trials = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError):
            trials.append(json.loads(line))
    return trials


def append(path: Path, entry: dict[str, Any]) -> None:
    """Write a line for `read`, in one piece, so that several processes can share the file."""
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_off + json.dumps(entry) + "\n")


def chosen(trials: Iterable[dict[str, Any]], method: str, variant: str = "") -> dict[str, Any]:
    """The trial that the study runs with: of those within one standard error of the best mean accuracy (Breiman et al.,
    1984), the one with the most true statements, or for answers without reasoning the most right samples."""
    mine = [t for t in trials if (t["method"], t["variant"]) == (method, variant) and t["right"] is not None]
    best = max(t["right"] for t in mine)
    error = float(np.sqrt(best * (1 - best) / (len(SETS) * 16 * VALIDATION)))
    what = "true" if METHODS[method] == "think" else "sampled_right"
    return max((t for t in mine if t["right"] >= best - error), key=lambda t: (t[what] or 0.0, t["right"]))


def search(part: int, parts: int, until: float) -> None:
    """Run the trials that are missing: trial by trial of all methods, so that every method has some early."""
    target = HERE / "search.jsonl"
    wanted = [(*space, trials_of(*space)[n]) for n in range(TRIALS) for space in SPACES][part - 1 :: parts]
    for method, variant, choice in tqdm(wanted, desc="trials"):
        done = [(t["method"], t["variant"], t["choice"]) for t in read(target)]
        if (method, variant, choice) in done:
            continue
        if time.time() > until:
            break
        append(target, trial(method, variant, choice))


def written(choice: dict[str, Any]) -> str:
    """
    >>> written({"learning_rate": 0.001, "scale": "none"}), written({})
    ('learning_rate 0.001, scale none', 'default')
    """
    shown = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in choice.items())
    return ", ".join(shown) or "default"


def page(trials: list[dict[str, Any]]) -> str:
    """The chosen trial of each method beside its default and the spread of all, and every trial below."""
    head = ["method", "trials", "chosen", "right", "sampled right", "true statements"]
    head += ["tokens a step", "default", "worst"]
    rows, every = [], []
    for method, variant in SPACES:
        mine = [t for t in trials if (t["method"], t["variant"]) == (method, variant)]
        if not any(t["right"] is not None for t in mine):
            continue
        best = chosen(trials, method, variant)
        right = [t["right"] for t in mine if t["right"] is not None]
        default = next((percent(t["right"]) for t in mine if not t["choice"] and t["right"] is not None), "")
        cells = [percent(best["right"]), percent(best["sampled_right"]), percent(best["true"]) if best["true"] else ""]
        name = f"{method} + {variant}" if variant else method
        cells += [f"{best['tokens']:.0f}", default, percent(min(right))]
        rows.append([name, str(len(mine)), written(best["choice"]), *cells])
        for t in sorted(mine, key=lambda t: -(t["right"] or 0)):
            shares = ["refused" if t["right"] is None else percent(t["right"])]
            shares += ["" if t.get(what) is None else percent(t[what]) for what in ("sampled_right", "true")]
            every.append([name, written(t["choice"]), *shares])
    return (
        "# The search: every method with the same trials\n\n"
        f"`python data/results/search.py`: {TRIALS} trials a method, {SHOTS} shots, {GRPOSettings.steps} steps, mean "
        f"of {' and '.join(SETS)}, {len(SETS) * 16 * VALIDATION} validation images, one seed. A standard error is 1.6 "
        "points. Of the trials within one standard error of the best, the one with the most true statements is chosen "
        "(answers without reasoning: the most right samples).\n\n"
        + markdown(head, rows) + "\n\n## Every trial\n\n"
        + markdown(["method", "knobs", "right", "sampled right", "true statements"], every)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th trial, from the K-th on (default: all)")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    search(part, parts, time.time() + 60 * options.minutes)
    (HERE / "search.md").write_text(page(read(HERE / "search.jsonl")), encoding="utf-8")


if __name__ == "__main__":
    main()
