"""The family, measured: each recipe on two drawn sets, four shots, three seeds, beside plain GRPO and SFT.

``python data/results/family.py --tune`` trains each recipe with a third, all and three times its coefficients and keeps
the validation accuracies in ``family_tuning.json``. ``python data/results/family.py`` trains with the chosen ones, one
file per cell in ``family``, and writes ``family_table.md`` and ``figures/family.png``. What is finished is kept: both
can be killed and started again, and ``--minutes`` begins nothing new after so many.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy
from favor_lab.recipes import RECIPES
from favor_lab.runs.cells import Cell, Result, chosen_settings
from favor_lab.runs.experiments import run_study
from favor_lab.runs.tables import recipe_changes, recipe_results, recipe_runs
from favor_lab.show.charts import plot_changes
from favor_lab.study.measures import Measured, measure
from favor_lab.study.rounding import percent
from study import HERE, SHOTS, markdown, shown

FOLDER = HERE / "family"
SETS, SEEDS = ("cartoon", "cctv"), 3
SEED, VALIDATION, SCALES = 100, 12, (1 / 3, 1.0, 3.0)
PLAIN = ("zero-shot", "sft", "grpo")
HEAD = (
    "", "seeds", "right", "over plain GRPO", "right, sampled", "sampled over plain GRPO", "well formed",
    "true statements", "true over plain GRPO", "answer follows", "flat groups", "tokens per step", "time of a step",
    "extra cost of a step",
)  # fmt: skip


COMPARED = {"right": "right answers", "sampled right": "right, sampled", "true": "true statements"}
MEASURED = ("right", "sampled right", "well formed", "true", "consistent")


def scaled(recipe: str, scale: float) -> GRPOSettings:
    """The default settings with the recipe's coefficients times `scale`; counts stay whole and at least 1."""
    values = RECIPES[recipe].coefficients.items()
    return GRPOSettings(
        coefficients={n: max(1, round(v * scale)) if isinstance(v, int) else v * scale for n, v in values}
    )


def trial(recipe: str, scale: float) -> dict[str, Any]:
    """Validation accuracy of one recipe after training with one scale of its coefficients; None where the recipe
    refuses them, such as a share above 1, or where the training diverges."""
    shots = few_shot(load_activities("cartoon"), SHOTS, seed=SEED, validation=VALIDATION, test=0)
    policy, settings = load_policy("pocket", seed=SEED), replace(scaled(recipe, scale), seed=SEED)
    try:
        for _ in RECIPES[recipe].train(policy, shots, settings):
            pass
    except (ValueError, FloatingPointError) as error:
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


def step_times() -> dict[str, str]:
    """Recipe -> time of a step in units of a plain one, as `tests/benchmarks/recipes.py` measured it, if it did."""
    target = HERE / "benchmarks" / "recipes-pocket-all.json"
    measured = json.loads(target.read_text(encoding="utf-8"))["recipes"] if target.exists() else {}
    seconds = {name: sum(entry["seconds"]["values"]) for name, entry in measured.items()}  # some steps only update
    names = {"plain": "grpo"}
    return {names.get(name, name): f"{total / seconds['plain']:.2f}" for name, total in seconds.items()}


def table(results: list[Result]) -> str:
    """A row for each method and recipe, sorted by right answers."""
    runs, steps, times = recipe_runs(results), defaultdict(list), step_times()
    changes, rows = recipe_changes(runs, MEASURED), {}
    for result in results:
        steps[result.cell.variant or result.cell.method] += result.records
    for name, by_seed in runs.items():
        mine = [measure(list(by_seed.values()), what) for what in MEASURED]
        over, records = changes.get(name, {}), steps[name]
        flat = percent(float(np.mean([r["flat_groups"] for r in records]))) if name in (*RECIPES, "grpo") else ""
        tokens = f"{np.mean([r['tokens'] for r in records]):.0f}" if records else ""
        cost = RECIPES[name].cost if name in RECIPES else ""
        cells = [shown(mine[0]), shown(over.get("right"), True), shown(mine[1]), shown(over.get("sampled right"), True)]
        cells += [shown(mine[2]), shown(mine[3]), shown(over.get("true"), True), shown(mine[4])]
        cells += [flat, tokens, times.get(name, ""), cost]
        rows[name] = (mine[0].mean if mine[0] else 0.0, [name, str(len(by_seed)), *cells])
    return markdown(HEAD, [cells for _, cells in sorted(rows.values(), key=lambda row: -row[0])])


def summary(changes: dict[str, dict[str, Measured | None]]) -> str:
    """Which recipes are above plain GRPO, which below, and of which neither is shown, by the intervals."""
    rows = []
    for what, heading in COMPARED.items():
        found: dict[str, list[str]] = {"above": [], "below": [], "not shown": []}
        for name in sorted(changes, key=lambda name: -(m.mean if (m := changes[name].get(what)) else 0.0)):
            if (measured := changes[name].get(what)) is not None:
                place = ("above" if measured.mean > 0 else "below") if measured.excludes_zero else "not shown"
                found[place].append(name)
        rows.append([heading, *(", ".join(names) or "none" for names in found.values())])
    return markdown(["", "above plain GRPO", "below it", "no difference shown"], rows)


def write_pages() -> None:
    """`family_table.md` and its figure, from the cells that are finished."""
    results = recipe_results(FOLDER, SHOTS)
    runs = recipe_runs(results)
    if "grpo" not in runs:
        print("no table yet: plain GRPO is not finished on both sets")
        return
    changes = recipe_changes(runs, COMPARED)
    best_first = sorted(changes, key=lambda name: -changes[name]["right"].mean)
    (HERE / "family_table.md").write_text(table(results), encoding="utf-8")
    (HERE / "family_summary.md").write_text(summary(changes), encoding="utf-8")
    plot_changes({name: changes[name] for name in best_first}, COMPARED).savefig(HERE / "figures" / "family.png")
    print(table(results))


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
    write_pages()


if __name__ == "__main__":
    main()
