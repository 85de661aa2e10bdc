"""The second study: the best settings of every method, greedy and sampled, on every setting, on the policy that ships.

``python data/results/second.py`` runs the cells that are missing, one file each in ``second``, and writes the tables
``second_*.md`` and ``figures/second_*.png``, as far as there are cells. Every method has the settings that `search.py`
chose for it on validation images; its steps grow with the shots. It can be killed and started again; ``--part 1/2``
beside ``--part 2/2`` share the work, ``--minutes`` begins nothing new after so many, ``--again 3`` runs three finished
cells once more and compares. ``--curves`` follows a few trainings on validation images: ``second_curves.jsonl``.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from search import SEED, SPACES, append, chosen, read, settings_for
from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy
from favor_lab.activities.world import SETS
from favor_lab.files import jsonable
from favor_lab.runs import tables
from favor_lab.runs.cells import METHODS, SHOTS, Cell, Result, Setup, cell_files
from favor_lab.runs.experiments import learn, run_cell
from favor_lab.runs.tasks import TASKS
from favor_lab.runs.variants import find_variant
from favor_lab.show.charts import plot_changes, plot_shots, plot_transfer
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.measures import Measured, difference, measure
from favor_lab.study.rounding import percent, rounded
from study import HERE, markdown, shown

FOLDER, CURVES, FIGURES = HERE / "second", HERE / "second_curves.jsonl", HERE / "figures"
MAIN, SEEDS, MORE_SEEDS = 4, 3, 5  # shots of most tables; seeds elsewhere and there
STEPS = {1: 50, 2: 70, 4: 100, 8: 140, 16: 200}  # by shots, for every method: 100 * sqrt(shots / 4), rounded
Way = tuple[str, str]  # a method and its recipes
UNTRAINED: tuple[Way, ...] = (("zero-shot", ""), ("zero-shot-answer", ""))
BASELINE: Way = ("class-mean", "")
WITH_ALL_SHOTS: tuple[Way, ...] = (("sft", ""), ("grpo", ""))
IN_TASKS: tuple[Way, ...] = (("sft", ""), ("sft-reasoning", ""), ("grpo", ""))
SETS_OF = {task: SETS if task.startswith("base-to-new") else (SETS[0], SETS[3]) for task in TASKS} | {"": SETS}
MEASURED = {"right": "greedy", "sampled right": "sampled", "majority right": "majority of 8", "reached": "any of 8"}


def name_of(way: Way) -> str:
    return way[1] or way[0]


def settings_of(way: Way, trials: list[dict[str, Any]], shots: int) -> GRPOSettings:
    """What the search chose for a method, with the steps of this number of shots; the defaults where it has none."""
    if way not in SPACES:
        return GRPOSettings(style=METHODS[way[0]])  # type: ignore[arg-type]
    settings = settings_for(*way, chosen(trials, *way)["choice"])
    return replace(settings, steps=STEPS[shots])


def cells() -> list[Cell]:
    """All cells, first seeds first: four sets x shots x seeds, and the tasks at four shots, on four sets or two."""
    planned = [Cell(method, name) for method, _ in UNTRAINED for name in SETS]
    planned += [Cell(method, name, task=task) for task in TASKS for method, _ in UNTRAINED for name in SETS_OF[task]]
    for seed in range(MORE_SEEDS):
        for shots in (MAIN, *(count for count in SHOTS if count != MAIN)):
            ways = [BASELINE, *SPACES] if shots == MAIN else [BASELINE, *WITH_ALL_SHOTS]
            if seed < (MORE_SEEDS if shots == MAIN else SEEDS):
                planned += [Cell(method, name, shots, seed, recipe) for method, recipe in ways for name in SETS]
            if shots == MAIN and seed < SEEDS:
                trained = [(way, task) for task in TASKS for way in IN_TASKS]
                planned += [
                    Cell(way[0], name, MAIN, seed, way[1], task) for way, task in trained for name in SETS_OF[task]
                ]
    return planned


def run_one(cell: Cell, trials: list[dict[str, Any]]) -> Result:
    """A cell with the chosen settings; transfer to the other sets is measured at four shots alone."""
    setup = Setup(SETS if cell.shots in (0, MAIN) else (cell.dataset,), transfer=True)
    settings = settings_of((cell.method, cell.variant), trials, cell.shots or MAIN)
    return run_cell(cell, replace(settings, seed=cell.seed), setup)


def run(part: int, parts: int, until: float) -> None:
    """The cells that are missing."""
    FOLDER.mkdir(exist_ok=True)
    trials = read(HERE / "search.jsonl")
    for cell in tqdm(cells()[part - 1 :: parts], desc="second study"):
        if time.time() > until:
            break
        if not (FOLDER / f"{cell.name}.json.gz").exists():
            run_one(cell, trials).save(FOLDER)


def run_again(count: int) -> None:
    """Finished cells once more. AssertionError for one that answers otherwise, or whose training went otherwise."""
    finished = sorted(FOLDER.glob("*.json.gz"))
    for path in random.Random(time.time_ns()).sample(finished, min(count, len(finished))):
        kept = Result.load(path)
        again = run_one(kept.cell, read(HERE / "search.jsonl"))
        same = {name: test.answers == kept.tests[name].answers for name, test in again.tests.items()}
        assert all(same.values()) and jsonable(again.records) == kept.records, f"{kept.cell.name}: {same}"
        print(kept.cell.name, "gives the same answers and the same records")


# ---------------------------------------------------------------------------------------------------------- the tables

Runs = Mapping[str, Mapping[int, Evaluation]]  # by method or recipe, then by seed: over all sets


def of_task(
    results: Iterable[Result], shots: int = MAIN, task: str = "", ending: str = ""
) -> dict[str, dict[int, Any]]:
    """Method or recipe -> seed -> one evaluation over the sets, of the seeds that have all of them. ending: of the
    name of the test set, such as ", new labels"."""
    parts: dict[str, dict[int, dict[str, Evaluation]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        cell = result.cell
        if cell.task == task and cell.shots in (0, shots) and (test := result.tests.get(cell.dataset + ending)):
            parts[name_of((cell.method, cell.variant))][cell.seed][cell.dataset] = test
    sets, runs = SETS_OF[task], dict[str, dict[int, Evaluation]]()
    for name, seeds in parts.items():
        complete = {seed: found for seed, found in seeds.items() if set(found) == {*sets}}
        runs[name] = {seed: tables.joined([found[one] for one in sets]) for seed, found in complete.items()}
    return runs


def over(runs: Runs, base: str, name: str, what: str) -> Measured | None:
    """The paired difference of a measure to another method's, of the seeds that both have."""
    before, after = runs.get(base, {}), runs.get(name, {})
    if base == name or not before or not after:
        return None
    seeds = sorted(before.keys() & after.keys())
    if base.startswith("zero-shot"):
        return difference(list(before.values()), list(after.values()), what)
    return difference([before[s] for s in seeds], [after[s] for s in seeds], what) if seeds else None


def minute_table(results: Sequence[Result]) -> str:
    """One line per method at four shots: right in every way of answering, reasoning, cost."""
    runs, tokens = of_task(results), defaultdict(list)
    for result in results:
        if result.cell.shots == MAIN and not result.cell.task:
            tokens[name_of((result.cell.method, result.cell.variant))] += [r["tokens"] for r in result.records]
    rows = []
    for name, by_seed in runs.items():
        mine = list(by_seed.values())
        if not mine:
            continue
        cells_ = [shown(measure(mine, what)) for what in (*MEASURED, "well formed", "true", "consistent")]
        compared = [shown(over(runs, "sft", name, what), True) for what in ("right", "sampled right")]
        truth = shown(over(runs, "zero-shot", name, "true"), True)
        cost = f"{np.mean(tokens[name]):.0f}" if tokens[name] else ""
        share = measure(mine, "right")
        rows.append((share.mean if share else 0, [name, str(len(mine)), *cells_, *compared, truth, cost]))
    head = ["", "seeds", *(f"right, {way}" for way in MEASURED.values()), "well formed", "true statements"]
    head += ["answer follows", "over SFT, greedy", "over SFT, sampled", "true, over before", "tokens a step"]
    return markdown(head, [row for _, row in sorted(rows, key=lambda row: -row[0])])


def shots_table(results: Sequence[Result], what: str) -> str:
    """Mean of the four sets: a line per method, a column per number of shots."""
    by_shots = {count: of_task(results, count) for count in SHOTS}
    names = [name_of(way) for way in (*UNTRAINED, BASELINE, *WITH_ALL_SHOTS)]
    rows = []
    for name in names:
        values = [list(by_shots[count].get(name, {}).values()) for count in SHOTS]
        rows.append([name, *(shown(measure(mine, what)) if mine else "" for mine in values)])
    return markdown(["", *(f"{count} shot{'s' * (count > 1)}" for count in SHOTS)], rows)


def tasks_table(results: Sequence[Result]) -> str:
    """Each task, and each half of base to new: right answers, greedy and sampled, and the difference to SFT."""
    rows = []
    for task in TASKS:
        for ending in ("", ", new labels"):
            runs = of_task(results, task=task, ending=ending)
            for name, by_seed in runs.items():
                if not by_seed:
                    continue
                mine = list(by_seed.values())
                half = {"": "base half", ", new labels": "new half"}[ending] if task.startswith("base-to-new") else ""
                shares = [shown(measure(mine, what)) for what in ("right", "sampled right", "true")]
                compared = [shown(over(runs, "sft", name, what), True) for what in ("right", "sampled right")]
                rows.append([task, half, name, str(len(mine)), *shares, *compared])
    head = ["task", "", "method", "seeds", "right, greedy", "right, sampled", "true statements"]
    return markdown([*head, "over SFT, greedy", "over SFT, sampled"], rows)


def calibration_table(results: Sequence[Result]) -> str:
    """How sure a policy is, and how often it is right then: agreement of its samples, at four shots."""
    names = ("sure", "right when sure", "brier")
    rows = []
    for name, by_seed in of_task(results).items():
        mine = list(by_seed.values())
        if mine and any(answer.sampled for answer in mine[0].answers):
            answers = [answer for run in mine for answer in run.answers]
            bins = [[a for a in answers if low < a.agreement <= high] for low, high in ((0, 0.5), (0.5, 0.9), (0.9, 1))]
            by_bin = [percent(np.mean([a.majority_right for a in one])) if one else "" for one in bins]
            cells_ = [shown(measure(mine, what)) for what in names[:2]]
            brier = measure(mine, "brier")
            rows.append([name, *by_bin, *cells_, rounded(brier.mean, 3) if brier else ""])
    head = ["", "right where at most 4 of 8 agree", "5 to 7 of 8", "all 8", "sure: 6 of 8 or more", "right when sure"]
    return markdown([*head, "Brier score"], rows)


def transfer_shares(results: Sequence[Result]) -> dict[str, dict[tuple[str, str], float]]:
    """Method or recipe -> (learnt on, tested on) -> greedy accuracy at four shots, the mean of the seeds."""
    shares: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        cell = result.cell
        if cell.shots == MAIN and not cell.task:
            for name, test in result.tests.items():
                shares[name_of((cell.method, cell.variant))][cell.dataset, name].append(test.accuracy)
    return {name: {place: float(np.mean(all_)) for place, all_ in by.items()} for name, by in shares.items()}


def transfer_table(results: Sequence[Result]) -> str:
    """At four shots: on the set that it learnt from, and on the three others (greedy)."""
    rows = []
    for name, shares in transfer_shares(results).items():
        own, other = ([share for (a, b), share in shares.items() if (a == b) is same] for same in (True, False))
        if own and other:
            rows.append([name, percent(np.mean(own)), percent(np.mean(other))])
    return markdown(["", "on its own set", "on the three others"], rows)


# ---------------------------------------------------------------------------------------------------------- the curves

CURVE_STEPS, CURVE_SEEDS, GOAL = (0, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100), 3, 0.75


def curve(way: Way, name: str, seed: int, settings: GRPOSettings) -> list[dict[str, float]]:
    """Validation accuracy after some steps of a training, with the tokens learnt from and the seconds until there."""
    shots = few_shot(load_activities(name), MAIN, seed=seed, validation=6, test=0)
    policy, points = load_policy("pocket", seed=seed), list[dict[str, float]]()
    tokens, seconds = 0, 0.0

    def measure_at(step: int) -> None:
        right = evaluate(policy, shots.validation, shots.labels, settings.style).accuracy
        points.append({"step": step, "tokens": tokens, "seconds": seconds, "right": right})

    measure_at(0)
    variant = find_variant(way[1]) if way[1] else None
    for record in learn(way[0], policy, shots, replace(settings, seed=seed), variant):
        tokens, seconds = tokens + record.tokens, seconds + sum(record.seconds.values())
        if record.step in CURVE_STEPS:
            measure_at(record.step)
    return points


def run_curves(until: float) -> None:
    """The curves that are missing, all methods of a seed and set one after the other, so that their seconds compare."""
    trials = read(HERE / "search.jsonl")
    wanted = [(seed, name, way) for seed in range(CURVE_SEEDS) for name in SETS[:2] for way in SPACES]
    for seed, name, way in tqdm(wanted, desc="curves"):
        done = [(c["seed"], c["dataset"], (c["method"], c["variant"])) for c in read(CURVES)]
        if (seed, name, way) in done:
            continue
        if time.time() > until:
            break
        points = curve(way, name, SEED + 1 + seed, settings_of(way, trials, MAIN))
        append(CURVES, {"method": way[0], "variant": way[1], "dataset": name, "seed": seed, "points": points})


def reached(points: Sequence[Mapping[str, float]], what: str, goal: float = GOAL) -> float | None:
    """How much of `what` a training had spent when its accuracy first was at the goal; None if it never was.

    >>> reached([{"tokens": 0, "right": 0.4}, {"tokens": 90, "right": 0.8}], "tokens")
    90
    """
    return next((point[what] for point in points if point["right"] >= goal), None)


def cost_table(curves: Sequence[Mapping[str, Any]]) -> str:
    """What it takes to reach the goal: steps, tokens, and seconds as multiples of SFT's of the same seed and set."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in curves:
        groups[name_of((one["method"], one["variant"]))].append(one)
    sft = {(one["dataset"], one["seed"]): reached(one["points"], "seconds") for one in groups.get("sft", [])}
    rows = []
    for name, mine in groups.items():
        done = [one for one in mine if reached(one["points"], "step") is not None]
        cells_ = [
            f"{np.median([reached(one['points'], what) for one in done]):.0f}" if done else ""
            for what in ("step", "tokens")
        ]
        times = [
            reached(one["points"], "seconds") / base for one in done if (base := sft.get((one["dataset"], one["seed"])))
        ]
        last = percent(np.mean([one["points"][-1]["right"] for one in mine]))
        rows.append([name, f"{len(done)} of {len(mine)}", *cells_, f"{np.median(times):.1f}" if times else "", last])
    head = ["", f"reach {percent(GOAL)}", "steps (median)", "tokens (median)", "time, in units of SFT's", "at the end"]
    return markdown(head, rows)


# ------------------------------------------------------------------------------------------------------------ the pages


def draw(results: Sequence[Result]) -> None:
    """The figures, as far as there are cells for them."""
    by_shots = {count: of_task(results, count) for count in SHOTS}
    lines: dict[str, dict[str, dict[int, Measured]]] = {}
    for what in ("right", "sampled right"):
        panel = lines.setdefault(f"right, {MEASURED[what]}", {})
        for count, runs in by_shots.items():
            for way in (BASELINE, *WITH_ALL_SHOTS):
                share = measure(list(mine.values()), what) if (mine := runs.get(name_of(way))) else None
                if share is not None:
                    panel.setdefault(name_of(way), {})[count] = share
    if all(lines.values()):
        plot_shots(lines).savefig(FIGURES / "second_shots.png")
    runs = of_task(results)
    changes = {
        name: {what: over(runs, "sft", name, what) for what in ("right", "sampled right", "majority right")}
        for name in runs
        if runs[name] and name != "sft" and not name.startswith("zero-shot")
    }
    if changes and runs.get("sft"):
        ordered = sorted(changes, key=lambda name: -(changes[name]["right"].mean if changes[name]["right"] else 0))
        headings = {"right": "over SFT: greedy", "sampled right": "sampled", "majority right": "majority of 8"}
        plot_changes({name: changes[name] for name in ordered}, headings).savefig(FIGURES / "second_over_sft.png")
    shares = {name: by for name, by in transfer_shares(results).items() if (name, "") in WITH_ALL_SHOTS}
    if shares:
        plot_transfer(shares, SETS).savefig(FIGURES / "second_transfer.png")


def write_pages() -> None:
    """The tables and figures, from what is finished."""
    if not FOLDER.is_dir():
        print("no tables yet: no cell is finished")
        return
    results = [Result.load(path) for path in cell_files(FOLDER).values()]
    pages = {
        "minute": minute_table(results),
        "shots": shots_table(results, "right"),
        "shots_sampled": shots_table(results, "sampled right"),
        "tasks": tasks_table(results),
        "calibration": calibration_table(results),
        "transfer": transfer_table(results),
        "cost": cost_table(read(CURVES)),
    }
    for name, page in pages.items():
        (HERE / f"second_{name}.md").write_text(page, encoding="utf-8")
        print(f"{page}\n")
    draw(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th cell, from the K-th on (default: all)")
    parser.add_argument("--again", type=int, default=0, help="run so many finished cells once more and compare")
    parser.add_argument("--curves", action="store_true", help="follow trainings on validation images instead")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    until = time.time() + 60 * options.minutes
    if options.again:
        run_again(options.again)
    elif options.curves:
        run_curves(until)
    else:
        run(part, parts, until)
    write_pages()


if __name__ == "__main__":
    main()
