"""The family, measured: each recipe on two drawn sets, four shots, three seeds, beside plain GRPO and SFT.

``python data/results/family.py --tune`` trains each recipe with a third, all and three times its coefficients and keeps
the validation accuracies in ``family_tuning.json``. ``python data/results/family.py`` trains with the chosen ones, one
file a cell in ``family``, and writes ``family.md`` and ``figures/family.png``. What is finished is kept: both can be
killed and started again, and ``--minutes`` begins nothing new after so many.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy
from favor_lab.recipes import RECIPES
from favor_lab.runs.cells import Cell, Result, chosen_settings, load_results
from favor_lab.runs.experiments import run_study
from favor_lab.show.charts import plot_changes
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.measures import Measured, difference, measure
from favor_lab.study.rounding import percent
from study import HEADINGS, HERE, SHOTS, markdown, shown

FOLDER = HERE / "family"
SETS, SEEDS = ("cartoon", "cctv"), 3
SEED, VALIDATION, SCALES = 100, 12, (1 / 3, 1.0, 3.0)
PLAIN = ("zero-shot", "sft", "grpo")


def scaled(recipe: str, scale: float) -> GRPOSettings:
    """The default settings with the recipe's coefficients times `scale`; counts stay whole and at least 1."""
    values = RECIPES[recipe].coefficients.items()
    return GRPOSettings(
        coefficients={n: max(1, round(v * scale)) if isinstance(v, int) else v * scale for n, v in values}
    )


def trial(recipe: str, scale: float) -> dict[str, Any]:
    """Validation accuracy of one recipe after training with one scale of its coefficients; None where the recipe
    refuses them, such as a share above 1."""
    shots = few_shot(load_activities("cartoon"), SHOTS, seed=SEED, validation=VALIDATION, test=0)
    policy, settings = load_policy("pocket", seed=SEED), replace(scaled(recipe, scale), seed=SEED)
    try:
        for _ in RECIPES[recipe].train(policy, shots, settings):
            pass
    except ValueError as error:
        return {"recipe": recipe, "scale": scale, "accuracy": None, "refused": str(error)}
    after = evaluate(policy, shots.validation, shots.labels)
    return {"recipe": recipe, "scale": scale, "accuracy": after.accuracy, "truth_rate": after.truth_rate}


def tune(until: float) -> list[dict[str, Any]]:
    """The trials of all recipes with coefficients, those that are kept and new ones."""
    target = HERE / "family_tuning.json"
    trials = json.loads(target.read_text(encoding="utf-8")) if target.exists() else []
    done = {(one["recipe"], one["scale"]) for one in trials}
    wanted = [(name, scale) for name, recipe in RECIPES.items() if recipe.coefficients for scale in SCALES]
    for recipe, scale in tqdm([pair for pair in wanted if pair not in done], desc="trials"):
        if time.time() > until:
            break
        trials.append(trial(recipe, scale))
        target.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
    return trials


def chosen(trials: list[dict[str, Any]], recipe: str) -> float:
    """The scale of a recipe: the published or default one, unless another is better by more than its standard error."""
    accuracy = {one["scale"]: one["accuracy"] for one in trials if one["recipe"] == recipe and one["accuracy"]}
    if not accuracy:
        return 1.0
    best, default = max(accuracy, key=lambda scale: accuracy[scale]), accuracy.get(1.0, 0.0)
    error = float(np.sqrt(default * (1 - default) / (16 * VALIDATION)))
    return best if accuracy[best] > default + error else 1.0


def tuning_page(trials: list[dict[str, Any]]) -> str:
    """The trials as a table; the chosen scale in bold."""
    head = ["recipe", "coefficients", *(f"times {scale:.2g}" for scale in SCALES)]
    rows = []
    for name in dict.fromkeys(one["recipe"] for one in trials):
        accuracy = {one["scale"]: one["accuracy"] for one in trials if one["recipe"] == name}
        cells = [
            "" if scale not in accuracy else "refused" if accuracy[scale] is None else percent(accuracy[scale])
            for scale in SCALES
        ]
        cells[SCALES.index(chosen(trials, name))] = f"**{cells[SCALES.index(chosen(trials, name))]}**"
        rows.append([name, ", ".join(f"{k} {v:g}" for k, v in RECIPES[name].coefficients.items()), *cells])
    return (
        "# The coefficients of the family\n\n"
        f"`python data/results/family.py --tune`: cartoon, {SHOTS} shots, one seed, {16 * VALIDATION} validation "
        "images: right answers with a third, all and three times the coefficients. In bold what the family is measured "
        "with: the default, unless another is better by more than the default's standard error.\n\n"
        + markdown(head, rows)
    )


def run(trials: list[dict[str, Any]], until: float) -> None:
    """The cells that are missing, seed by seed, so that every recipe has some early."""
    settings = {name: scaled(name, chosen(trials, name)) for name in RECIPES}
    cells = [Cell("zero-shot", name) for name in SETS]
    for seed in range(SEEDS):
        cells += [Cell(method, name, SHOTS, seed) for method in PLAIN[1:] for name in SETS]
        cells += [Cell("grpo", name, SHOTS, seed, recipe) for recipe in RECIPES for name in SETS]
    for cell in tqdm(cells, desc="family"):
        if time.time() > until:
            break
        own = {"grpo": settings.get(cell.variant, GRPOSettings()), "sft": chosen_settings()["sft"]}
        list(run_study([cell], FOLDER, own))


def by_name(results: list[Result]) -> dict[str, list[Result]]:
    """Method or recipe -> its results; of those with all seeds on both sets."""
    groups = defaultdict(list)
    for result in results:
        groups[result.cell.variant or result.cell.method].append(result)
    return {
        name: runs for name, runs in groups.items() if len(runs) == len(SETS) * (1 if name == "zero-shot" else SEEDS)
    }


def joined(runs: list[Result]) -> list[Evaluation]:
    """One evaluation for each seed, over both sets."""
    seeds: dict[int, list[Evaluation]] = defaultdict(list)
    for result in sorted(runs, key=lambda result: result.cell.name):
        seeds[result.cell.seed].append(result.evaluation)
    return [
        Evaluation(parts[0].policy, parts[0].style, parts[0].labels, [a for part in parts for a in part.answers], 0.0)
        for _, parts in sorted(seeds.items())
    ]


def compared(groups: dict[str, list[Result]]) -> Iterator[tuple[str, dict[str, Measured | None]]]:
    """Each method and recipe against plain GRPO: the paired differences of right, true and consistent."""
    plain = joined(groups["grpo"])
    for name, runs in groups.items():
        if name not in ("grpo", "zero-shot"):
            yield name, {what: difference(plain, joined(runs), what) for what in HEADINGS}


def table(groups: dict[str, list[Result]]) -> str:
    """A row for each, sorted by right answers."""
    differences, rows = dict(compared(groups)), {}
    for name, runs in groups.items():
        evaluations, records = joined(runs), [record for result in runs for record in result.records]
        mine = [measure(evaluations, what) for what in ("right", "well formed", "true", "consistent")]
        over = differences.get(name, {})
        flat = percent(float(np.mean([r["flat_groups"] for r in records]))) if name in (*RECIPES, "grpo") else ""
        tokens = f"{np.mean([r['tokens'] for r in records]):.0f}" if records else ""
        cost = RECIPES[name].cost if name in RECIPES else ""
        cells = [shown(mine[0]), shown(over.get("right"), True), shown(mine[1]), shown(mine[2])]
        cells += [shown(over.get("true"), True), shown(mine[3]), flat, tokens, cost]
        rows[name] = (mine[0].mean if mine[0] else 0.0, [name, *cells])
    head = ["", "right", "over plain GRPO", "well formed", "true statements", "over plain GRPO", "answer follows"]
    head += ["flat groups", "tokens a step", "extra cost of a step"]
    return markdown(head, [cells for _, cells in sorted(rows.values(), key=lambda row: -row[0])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="try the coefficients on validation images")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    options = parser.parse_args()
    until = time.time() + 60 * options.minutes
    if options.tune:
        (HERE / "family_tuning.md").write_text(tuning_page(tune(until)), encoding="utf-8")
        return
    tuned = HERE / "family_tuning.json"
    run(json.loads(tuned.read_text(encoding="utf-8")) if tuned.exists() else [], until)
    groups = by_name([*load_results(FOLDER), *(r for name in RECIPES for r in load_results(FOLDER, variant=name))])
    if "grpo" in groups:
        Path(HERE / "family.md").write_text(table(groups), encoding="utf-8")
        plot_changes(dict(compared(groups)), HEADINGS).savefig(HERE / "figures" / "family.png")
        print(table(groups))


if __name__ == "__main__":
    main()
