"""Tables of finished cells: rates with intervals over seeds and images, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from favor_lab.activities.world import SETS
from favor_lab.files import write_whole
from favor_lab.runs.cells import METHODS, Result, cell_files, load_results
from favor_lab.runs.tasks import TASKS
from favor_lab.runs.variants import VARIANTS, find_variant
from favor_lab.study.comparison import bootstrap_interval
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.measures import Measured, difference
from favor_lab.study.rounding import percent


def tidy(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row for each cell and test set, for a data frame or a CSV file: rates are shares."""
    rows = []
    for result in results:
        for name, test in result.tests.items():
            rates = {rate: getattr(test, rate) for rate in ("accuracy", "format_rate", "truth_rate")}
            sizes = {"images": len(test), "training_seconds": result.seconds}
            rows.append({**asdict(result.cell), "tested_on": name, **rates, **sizes})
    return rows


def table(results: Sequence[Result]) -> str:
    """A line for each method, set and number of shots, as Markdown: accuracy with its 95 % interval over seeds and
    images, accuracy on the other sets, form and truth of the responses."""
    head = "| method | set | shots | seeds | right (95 % interval) | right on the other sets | well formed | true |"
    lines, groups = [head, "| --- " * 8 + "|"], dict[tuple[str, int, str], list[Result]]()
    for result in results:
        groups.setdefault((result.cell.method, result.cell.shots, result.cell.dataset), []).append(result)
    for method, shots, dataset in sorted(groups, key=lambda group: (place(group[0]), group[1], place(group[2]))):
        runs = groups[method, shots, dataset]
        own = [run.evaluation for run in runs]
        right = np.array([[answer.correct for answer in test.answers] for test in own], dtype=float)
        low, high = bootstrap_interval(right)
        others = [test.accuracy for run in runs for name, test in run.tests.items() if name != dataset]
        truth = [test.truth_rate for test in own if test.truth_rate is not None]
        columns = [
            method, dataset, str(shots), str(len(runs)), f"{percent(right.mean())} ({percent(low)} to {percent(high)})",
            percent(np.mean(others)) if others else "", percent(np.mean([test.format_rate for test in own])),
            percent(np.mean(truth)) if truth else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def shots_table(results: Sequence[Result]) -> str:
    """The paper's kind of table, as Markdown: for each set, and their mean, a line per method and a column per number
    of shots; each number is the accuracy in per cent with its 95 % interval over seeds and images."""
    counts = sorted({result.cell.shots for result in results} | {0})
    columns = " | ".join(f"{count} shot{'s' * (count != 1)}" for count in counts)
    sets = sorted({result.cell.dataset for result in results}, key=place)
    blocks = {name: [result for result in results if result.cell.dataset == name] for name in sets}
    if len(sets) > 1:
        blocks[f"mean of {len(sets)} sets"] = list(results)
    lines: list[str] = []
    for title, mine in blocks.items():
        among = len({result.cell.dataset for result in mine})
        lines += [f"| {title} | {columns} |", "| --- " * (len(counts) + 1) + "|"]
        for method in sorted({result.cell.method for result in mine}, key=place):
            cells = [[r for r in mine if (r.cell.method, r.cell.shots) == (method, count)] for count in counts]
            lines.append(f"| {method} | {' | '.join(share_and_interval(runs, among) for runs in cells)} |")
        lines.append("")
    return "\n".join(lines)


def share_and_interval(runs: Sequence[Result], sets: int = 1) -> str:
    """Accuracy of some seeds with its interval, in per cent; of several sets, only seeds that have all of them count,
    and each set counts the same. Nothing for no such seed."""
    by_seed: dict[int, list[Result]] = {}
    for run in runs:
        by_seed.setdefault(run.cell.seed, []).append(run)
    tests = [[run.evaluation for run in mine] for mine in by_seed.values() if len(mine) == sets]
    rows = [
        np.concatenate([np.array([a.correct for a in test.answers]) / len(test) for test in seed]) for seed in tests
    ]
    if not rows:
        return ""
    shares = np.array(rows) * rows[0].size / sets  # (seeds, images), whose mean is the mean of the sets
    return Measured(shares.mean(), *bootstrap_interval(shares)).percent()


def recipe_results(folder: str | Path, shots: int = 4) -> list[Result]:
    """The finished cells of this number of shots, or of none, whatever their recipe, by seed: see `recipe_runs`."""
    cells = [cell for cell in cell_files(folder) if cell.shots in (0, shots) and not cell.task]
    cells.sort(key=lambda cell: (cell.seed, cell.name))
    return [result for cell in cells for result in load_results(folder, **asdict(cell))]


def recipe_runs(results: Sequence[Result]) -> dict[str, dict[int, Evaluation]]:
    """Method or recipe -> seed -> one evaluation over all sets, of the seeds that have every set of plain GRPO."""
    sets = {result.cell.dataset for result in results if (result.cell.method, result.cell.variant) == ("grpo", "")}
    parts = dict[str, dict[int, list[Evaluation]]]()
    for result in sorted(results, key=lambda result: place(result.cell.dataset)):
        by_seed = parts.setdefault(result.cell.variant or result.cell.method, {})
        by_seed.setdefault(result.cell.seed, []).append(result.evaluation)
    complete = {n: {seed: runs for seed, runs in p.items() if len(runs) == len(sets)} for n, p in parts.items()}
    return {n: {seed: joined(runs) for seed, runs in by_seed.items()} for n, by_seed in complete.items() if by_seed}


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The responses of several evaluations of one policy, as of several sets, as one."""
    answers = [answer for part in parts for answer in part.answers]
    return Evaluation(parts[0].policy, parts[0].style, parts[0].labels, answers, 0.0)


def recipe_changes(
    runs: Mapping[str, Mapping[int, Evaluation]], measures: Iterable[str], base: str = "grpo"
) -> dict[str, dict[str, Measured | None]]:
    """Recipe -> measure -> the paired difference to the base, image by image, over the seeds that both have.

    `runs`: see `recipe_runs`; what shares no seed with the base, or is not trained, is left out. KeyError for a base
    that is not there.
    """
    plain, changes = runs[base], {}
    for name, by_seed in runs.items():
        seeds = sorted(plain.keys() & by_seed.keys())
        if name != base and not name.startswith("zero-shot") and seeds:
            before, after = [plain[seed] for seed in seeds], [by_seed[seed] for seed in seeds]
            changes[name] = {measure: difference(before, after, measure) for measure in measures}
    return changes


def place(name: str) -> tuple[int, str]:
    """Where a method or a set stands in a table: as they are listed, and others by name behind them."""
    return place_of(name, (*METHODS, *SETS))


def place_of(name: str, listed: Iterable[str]) -> tuple[int, str]:
    """Where a name stands in a list; others by name behind them, "" before them."""
    names = ["", *listed]
    return (names.index(name) if name in names else len(names), name)


def write_tables(folder: str | Path) -> str:
    """Write `table.md` and `cells.csv`, a row for each cell and test set, beside the cells; returns the page."""
    results = load_results(folder)
    page = f"{shots_table(results)}\n{table(results)}"
    changes = {(cell.task, cell.variant) for cell in cell_files(folder)} - {("", "")}
    for task, variant in sorted(changes, key=lambda names: (place_of(names[1], VARIANTS), place_of(names[0], TASKS))):
        changed = load_results(folder, variant=variant, task=task)
        about = [find_variant(variant).about if variant else "", TASKS[task].about if task else ""]
        title = ", ".join(filter(None, (variant, task)))
        page += f"\n**{title}**: {'; '.join(filter(None, about))}\n\n{table(changed)}"
        results += changed
    rows, text = tidy(results), io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(Path(folder) / "cells.csv", text.getvalue().encode())
    write_whole(Path(folder) / "table.md", page.encode())
    return page
