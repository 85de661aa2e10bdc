"""The tables and figures of the study, from its finished cells: ``python data/results/study.py``.

The cells are made by ``favor-lab study --preset full --out data/results/study``, which goes on where it stopped. This
script reads them all, however many there are, and writes ``study_*.md`` beside itself, which ``RESULTS.md`` quotes, and
``figures/study_*.png``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from favor_lab.activities.pocket import SETS
from favor_lab.experiments import BASE_TO_NEW, METHODS, Result, load_results, shots_table
from favor_lab.recipes import VARIANTS
from favor_lab.study.charts import plot_changes, plot_shots, plot_transfer
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.measures import MEASURES, Measured, difference, mean_of, measure, true_descriptions, values

HERE = Path(__file__).resolve().parent
CELLS, FIGURES = HERE / "study", HERE / "figures"
TRAINED = [method for method in METHODS if not method.startswith("zero-shot")]
UNTRAINED = [method for method in METHODS if method.startswith("zero-shot")]
PAIRS = (  # before, after
    ("zero-shot", "grpo"), ("zero-shot-answer", "grpo-answer"), ("zero-shot-answer", "sft"), ("sft", "grpo-answer"),
    ("sft-reasoning", "grpo"), ("grpo", "grpo-answer"),
)  # fmt: skip
SHOTS = 4


def by_place(results: Iterable[Result]) -> dict[tuple[str, str, int], dict[int, Result]]:
    """(method, set, shots) -> seed -> result."""
    found: dict[tuple[str, str, int], dict[int, Result]] = defaultdict(dict)
    for result in results:
        found[result.cell.method, result.cell.dataset, result.cell.shots][result.cell.seed] = result
    return found


def joined(places: dict, method: str, shots: int, tested: str = "own") -> dict[int, Evaluation]:
    """One evaluation a seed over all four sets, of the seeds that have all of them. tested: on the `own` set, or on the
    three `other` ones."""
    tables = [places.get((method, name, shots), {}) for name in SETS]
    seeds = set.intersection(*map(set, tables)) if all(tables) else set()
    found = {}
    for seed in sorted(seeds):
        runs = [table[seed] for table in tables]
        parts = [
            test for run in runs for name, test in run.tests.items() if (name == run.cell.dataset) == (tested == "own")
        ]
        answers = [answer for part in parts for answer in part.answers]
        found[seed] = Evaluation(parts[0].policy, parts[0].style, parts[0].labels, answers, 0.0)
    return found


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def shown(found: Measured | None, signed: bool = False) -> str:
    return "" if found is None else found.percent(signed)


def number(found: Measured | None, signed: bool = False) -> str:
    """Of words: no share."""
    sign = "+" if signed else ""
    return "" if found is None else f"{found.mean:{sign}.1f} ({found.low:{sign}.1f} to {found.high:{sign}.1f})"


def methods_table(places: dict) -> str:
    """Every measure of every method at four shots, mean of the four sets."""
    rows = []
    for method in METHODS:
        runs = list(joined(places, method, SHOTS if method in TRAINED else 0).values())
        if runs:
            cells = [(number if name == "words" else shown)(measure(runs, name)) for name in MEASURES]
            rows.append([method, str(len(runs)), *cells])
    return markdown(["method", "seeds", *(about for about, _ in MEASURES.values())], rows)


def pairs_table(places: dict) -> str:
    """Paired differences at four shots, mean of the four sets, in points."""
    rows = []
    for before, after in PAIRS:
        old, new = (joined(places, method, SHOTS if method in TRAINED else 0) for method in (before, after))
        seeds = [seed for seed in new if seed in old or before in UNTRAINED]
        if not seeds:
            continue
        sides = [old[0]] if before in UNTRAINED else [old[seed] for seed in seeds]
        cells = [difference(sides, [new[seed] for seed in seeds], name) for name in MEASURES]
        shares = [
            (number if name == "words" else shown)(cell, True) for name, cell in zip(MEASURES, cells, strict=True)
        ]
        rows.append([f"{before} → {after}", str(len(seeds)), *shares])
    return markdown(["", "seeds", *(about for about, _ in MEASURES.values())], rows)


def transfer_table(places: dict) -> str:
    """At four shots: on the set that was learnt from, and on the three others."""
    rows = []
    for method in TRAINED:
        own, other = (list(joined(places, method, SHOTS, where).values()) for where in ("own", "other"))
        if own:
            here, there = measure(own, "right"), measure(other, "right")
            gap = np.array(
                [
                    np.mean(values([b], "right")[0]) - np.mean(values([a], "right")[0])
                    for a, b in zip(own, other, strict=True)
                ]
            )
            rows.append([method, shown(here), shown(there), f"{100 * gap.mean():+.1f}"])
    return markdown(["method", "on its own set", "on the three others", "difference, points"], rows)


def base_to_new_table() -> str:
    """Half of the labels learnt; either half asked on its own; H: harmonic mean."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in load_results(CELLS, variant=BASE_TO_NEW):
        groups[result.cell.method].append(result)
    rows = []
    for method in (method for method in METHODS if method in groups):
        shares = []
        for part in range(2):
            tests = [list(result.tests.values())[part] for result in groups[method]]
            right = np.concatenate([[answer.correct for answer in test.answers] for test in tests])
            shares.append(float(right.mean()))
        both = 2 * shares[0] * shares[1] / max(sum(shares), 1e-9)
        rows.append([method, str(len(groups[method])), *(f"{100 * share:.1f}" for share in (*shares, both))])
    return markdown(["method", "runs", "base", "new", "H"], rows)


def probes_table(places: dict) -> str:
    """What training did besides: truth and length of a description, and how much the evidence matters."""
    rows = []
    for method in METHODS:
        runs = [
            run
            for (name, _, shots), seeds in places.items()
            if name == method and shots == (SHOTS if method in TRAINED else 0)
            for run in seeds.values()
            if run.probes
        ]
        if not runs:
            continue
        told = [
            true_descriptions(texts, [answer.source for answer in run.evaluation.answers[: len(texts)]])
            for run in runs
            for texts in [run.probes["describe"]]
        ]
        shares, counts = np.array(told).T
        effects = {}
        for part in ("reasoning", "answer"):
            every = np.array([effect for run in runs for effect in run.probes["evidence"][part]], dtype=float)
            known = np.isfinite(every)
            effects[part] = (
                mean_of(np.where(known, every, 0.0)[None], known[None].astype(float)) if known.any() else None
            )
        rows.append([
            method, str(len(runs)), f"{100 * np.average(shares, weights=np.maximum(counts, 1e-9)):.1f}",
            f"{counts.sum() / sum(len(run.probes['describe']) for run in runs):.1f}",
            number(effects["reasoning"], True), number(effects["answer"], True),
        ])  # fmt: skip
    head = ["method", "runs", "true statements of descriptions, %", "statements a description"]
    return markdown([*head, "evidence less elsewhere: reasoning, nats", "answer, nats"], rows)


def changes(places: dict) -> dict[str, dict[str, Measured | None]]:
    """Each variant against plain GRPO of the same seeds and images."""
    found = {}
    for variant in VARIANTS:
        runs = {result.cell.seed: result for result in load_results(CELLS, variant=variant)}
        plain = places.get(("grpo", SETS[0], SHOTS), {})
        seeds = sorted(runs.keys() & plain.keys())
        if seeds:
            sides = [[side[seed].evaluation for seed in seeds] for side in (plain, runs)]
            found[variant] = {name: difference(*sides, name) for name in MEASURES}
    return found


def variants_table(found: dict[str, dict[str, Measured | None]]) -> str:
    rows = [
        [name, VARIANTS[name].about, *((number if part == "words" else shown)(row[part], True) for part in MEASURES)]
        for name, row in found.items()
    ]
    return markdown(["variant", "what is changed", *(about for about, _ in MEASURES.values())], rows)


def draw(places: dict, found: dict[str, dict[str, Measured | None]]) -> None:
    """The figures, as far as there are cells for them."""
    lines: dict = {name: {} for name in SETS}
    for (method, name, shots), seeds in sorted(places.items()):
        if method in TRAINED:
            share = measure([run.evaluation for run in seeds.values()], "right")
            lines[name].setdefault(method, {})[shots] = share
    flat = {
        name: {
            method: places[method, name, 0][0].evaluation.accuracy
            for method in UNTRAINED
            if (method, name, 0) in places
        }
        for name in SETS
    }
    if all(lines.values()):
        plot_shots(lines, flat).savefig(FIGURES / "study_shots.png")
    shares = {
        method: {
            (name, tested): float(np.mean([run.tests[tested].accuracy for run in seeds.values()]))
            for name in SETS
            if (seeds := places.get((method, name, SHOTS)))
            for tested in SETS
        }
        for method in TRAINED
    }
    if all(shares.values()):
        plot_transfer(shares, SETS).savefig(FIGURES / "study_transfer.png")
    if found:
        headings = {"right": "right answers", "true": "true statements", "consistent": "answer follows"}
        plot_changes(found, headings).savefig(FIGURES / "study_changes.png")


def main() -> None:
    results = load_results(CELLS)
    places = by_place(results)
    found = changes(places)
    pages = {
        "shots": shots_table(results),
        "methods": methods_table(places),
        "pairs": pairs_table(places),
        "transfer": transfer_table(places),
        "base_to_new": base_to_new_table(),
        "probes": probes_table(places),
        "variants": variants_table(found),
    }
    for name, page in pages.items():
        (HERE / f"study_{name}.md").write_text(page)
    draw(places, found)
    print("\n".join(pages.values()))


if __name__ == "__main__":
    main()
