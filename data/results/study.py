"""The tables and figures of the study, from its finished cells: ``python data/results/study.py``.

The cells are made by ``favor-lab study --cells full --out data/results/study``, which resumes where it stopped. This
script reads them all, however many there are, and writes ``study_*.md`` beside itself, which ``RESULTS.md`` quotes, and
``figures/study_*.png``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from favor_lab.activities.world import SETS
from favor_lab.grpo.rewards import format_reward, is_right
from favor_lab.responses import judge_statements
from favor_lab.runs import tables
from favor_lab.runs.cells import FIRST_STUDY, Result, load_results
from favor_lab.runs.tasks import BASE_TO_NEW
from favor_lab.runs.variants import VARIANTS
from favor_lab.show.charts import plot_changes, plot_moves, plot_shots, plot_transfer
from favor_lab.show.curves import running_mean
from favor_lab.show.style import BLUE, ORANGE, new_figure
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.measures import MEASURES, Measured, difference, mean_of, measure, values
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
CELLS, FIGURES = HERE / "study", HERE / "figures"
TRAINED = [method for method in FIRST_STUDY if not method.startswith("zero-shot")]
UNTRAINED = [method for method in FIRST_STUDY if method.startswith("zero-shot")]
PAIRS = (  # before, after
    ("zero-shot", "grpo"), ("zero-shot-answer", "grpo-answer"), ("zero-shot-answer", "sft"), ("sft", "grpo-answer"),
    ("sft-reasoning", "grpo"), ("grpo", "grpo-answer"),
)  # fmt: skip
SHOTS = 4
TRUTH = (
    "cool", "slow", "strong-kl", "truth", "truth-2", "truth-cool", "truth-kl", "truth-2-kl", "consistency",
    "consistency-right",
)  # fmt: skip

KEPT = "truth-2-kl"
HEADINGS = {"right": "right answers", "true": "true statements", "consistent": "answer follows"}


def by_place(results: Iterable[Result]) -> dict[tuple[str, str, int], dict[int, Result]]:
    """(method, set, shots) -> seed -> result."""
    places: dict[tuple[str, str, int], dict[int, Result]] = defaultdict(dict)
    for result in results:
        places[result.cell.method, result.cell.dataset, result.cell.shots][result.cell.seed] = result
    return places


def whole(places: dict, method: str, shots: int) -> dict[int, list[Result]]:
    """Seed -> the runs of the four sets, of the seeds that have all of them."""
    tables = [places.get((method, name, shots), {}) for name in SETS]
    seeds = set.intersection(*map(set, tables)) if all(tables) else set()
    return {seed: [table[seed] for table in tables] for seed in sorted(seeds)}


def joined(places: dict, method: str, shots: int, tested: str = "own") -> dict[int, Evaluation]:
    """One evaluation per seed, over all four sets. tested: on the `own` set, or on the `other` ones (the three other
    sets, or the labels that were not taught)."""
    evaluations = {}
    for seed, runs in whole(places, method, shots).items():
        parts = [
            test for run in runs for name, test in run.tests.items() if (name == run.cell.dataset) == (tested == "own")
        ]
        evaluations[seed] = tables.joined(parts)
    return evaluations


def count(method: str) -> int:
    """Shots of a method in the tables at four shots."""
    return SHOTS if method in TRAINED else 0


def sides(places: dict, before: str, after: str, tested: str = "own") -> tuple[list[Evaluation], list[Evaluation]]:
    """The evaluations of two methods at four shots, for the seeds that both have; untrained methods have one for
    all."""
    old, new = (joined(places, method, count(method), tested) for method in (before, after))
    if before in UNTRAINED:
        return list(old.values())[:1], list(new.values())
    seeds = sorted(old.keys() & new.keys())
    return [old[seed] for seed in seeds], [new[seed] for seed in seeds]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def shown(measured: Measured | None, signed: bool = False) -> str:
    return "" if measured is None else measured.percent(signed)


def number(measured: Measured | None, signed: bool = False) -> str:
    """Of words: no share."""
    return "" if measured is None else measured.number(signed)


def of_set(places: dict, method: str, name: str) -> dict[int, Evaluation]:
    """Seed -> evaluation at four shots, on one set or, joined, on all."""
    if name not in SETS:
        return joined(places, method, count(method))
    return {seed: run.evaluation for seed, run in sorted(places.get((method, name, count(method)), {}).items())}


def gain_table(places: dict) -> str:
    """GRPO at four shots over the policy before training: right answers and true statements, set by set."""
    rows = []
    for name in (*SETS, "mean of 4 sets"):
        old, new = (list(of_set(places, method, name).values()) for method in ("zero-shot", "grpo"))
        if old and new:
            cells = [
                (shown(measure(old, part)), shown(measure(new, part)), shown(difference(old, new, part), True))
                for part in ("right", "true")
            ]
            rows.append([name, *cells[0], *cells[1]])
    head = [f"{part} {what}" for part in ("right answers,", "true statements,") for what in ("before", "after", "gain")]
    return markdown(["", *head], rows)


def methods_table(places: dict) -> str:
    """Every measure of every method at four shots, mean of the four sets."""
    rows = []
    for method in FIRST_STUDY:
        runs = list(joined(places, method, count(method)).values())
        if runs:
            cells = [(number if name == "words" else shown)(measure(runs, name)) for name in MEASURES]
            rows.append([method, str(len(runs)), *cells])
    return markdown(["method", "seeds", *(about for about, _ in MEASURES.values())], rows)


def pairs_table(places: dict) -> str:
    """Paired differences at four shots, mean of the four sets, in points."""
    rows = []
    for before, after in PAIRS:
        old, new = sides(places, before, after)
        if not (old and new):
            continue
        cells = [(number if name == "words" else shown)(difference(old, new, name), True) for name in MEASURES]
        elsewhere = shown(difference(*sides(places, before, after, "other"), "right"), True)
        rows.append([f"{before} → {after}", str(len(new)), cells[0], elsewhere, *cells[1:]])
    right, *others = (about for about, _ in MEASURES.values())
    return markdown(["", "seeds", right, "right answers on the three other sets", *others], rows)


def transfer_table(places: dict) -> str:
    """At four shots: on the training set, and on the three others."""
    rows = []
    for method in TRAINED:
        own, other = (list(joined(places, method, SHOTS, where).values()) for where in ("own", "other"))
        if own:
            gap = values(other, "right")[0].mean() - values(own, "right")[0].mean()
            shares = [shown(measure(runs, "right")) for runs in (own, other)]
            rows.append([method, *shares, rounded(100 * gap, signed=True)])
    return markdown(["method", "on its own set", "on the three others", "difference, points"], rows)


def base_to_new_table(folder: Path | None = None) -> str:
    """Half of the labels taught; each half tested on its own; H: harmonic mean of the greedy answers. folder: of the
    cells; None: the study's."""
    places = by_place(load_results(folder or CELLS, task=BASE_TO_NEW))
    rows = []
    for method in FIRST_STUDY:
        runs = [list(joined(places, method, count(method), where).values()) for where in ("own", "other")]
        if all(runs):
            base, new = (measure(half, "right") for half in runs)
            both = 2 * base.mean * new.mean / max(base.mean + new.mean, 1e-9)
            sampled = [shown(measure(half, "sampled right")) for half in runs]
            rows.append([method, str(len(runs[0])), shown(base), shown(new), rounded(100 * both), *sampled])
    head = ["method", "seeds", "base: the labels learnt", "new: the other half", "H", "base, sampled", "new, sampled"]
    width = 7 if any(row[5] or row[6] for row in rows) else 5  # cells of the first edition have greedy answers alone
    return markdown(head[:width], [row[:width] for row in rows])


def told(run: Result) -> list[tuple[float, float]]:
    """Share of true statements and number of statements of each description."""
    answers = run.evaluation.answers
    judged = [judge_statements(text, answers[row].source) for row, text in enumerate(run.probes["describe"])]
    return [(true / stated if stated else 0.0, float(stated)) for stated, true in judged]


def asked_otherwise(run: Result, well_formed: bool = False) -> list[tuple[float, float]]:
    """Right (or well formed) under the prompt style that the policy was not trained with."""
    style = "answer" if run.cell.style == "think" else "think"
    texts = run.probes[style]
    if well_formed:
        return [(share, 1.0) for share in format_reward(texts, style=style)]
    return [(float(is_right(text, run.evaluation.answers[row].label)), 1.0) for row, text in enumerate(texts)]


def evidence(run: Result, part: str) -> list[tuple[float, float]]:
    """How much more the part loses when the true evidence is covered than when other places are, in nats."""
    return [(0.0, 0.0) if effect is None else (effect, 1.0) for effect in run.probes["evidence"][part]]


def probes_table(places: dict) -> str:
    """Other effects of training: descriptions, the other prompt style, and how much the evidence matters."""
    columns = {
        "true statements of descriptions, %": (told, shown),
        "right when asked the other way, %": (asked_otherwise, shown),
        "well formed when asked the other way, %": (lambda run: asked_otherwise(run, True), shown),
        "evidence less elsewhere: reasoning, nats": (lambda run: evidence(run, "reasoning"), number),
        "answer, nats": (lambda run: evidence(run, "answer"), number),
    }
    rows = []
    for method in FIRST_STUDY:
        seeds = [runs for runs in whole(places, method, count(method)).values() if all(run.probes for run in runs)]
        if not seeds:
            continue
        cells = []
        for of_run, write in columns.values():
            pairs = np.array([[pair for run in runs for pair in of_run(run)] for runs in seeds])  # (S, M, 2)
            cells.append(write(mean_of(pairs[..., 0], pairs[..., 1])))
        rows.append([method, str(len(seeds)), *cells])
    return markdown(["method", "seeds", *columns], rows)


def variant_runs(variant: str, method: str = "grpo") -> dict[int, Result]:
    """Seed -> result of a variant on the set of the ablations."""
    return {result.cell.seed: result for result in load_results(CELLS, variant=variant, method=method, dataset=SETS[0])}


def changes(places: dict) -> dict[str, dict[str, Measured | None]]:
    """Each variant against plain GRPO of the same seeds and images."""
    differences = {}
    for variant in VARIANTS:
        runs, plain = variant_runs(variant), places.get(("grpo", SETS[0], SHOTS), {})
        seeds = sorted(runs.keys() & plain.keys())
        if seeds:
            pair = [[side[seed].evaluation for seed in seeds] for side in (plain, runs)]
            differences[variant] = {name: difference(*pair, name) for name in MEASURES}
    return differences


def mended(places: dict) -> dict[str, list[Evaluation]]:
    """On the set of the ablations: the policy before training, plain GRPO, and the attempts to keep its reasoning
    true."""
    plain = places.get(("grpo", SETS[0], SHOTS), {})
    runs = {
        "zero-shot": places.get(("zero-shot", SETS[0], 0), {}),
        "grpo": {seed: plain[seed] for seed in sorted(plain)[:3]},  # those of the variants
        **{variant: variant_runs(variant) for variant in TRUTH},
    }
    return {name: [run.evaluation for run in seeds.values()] for name, seeds in runs.items() if seeds}


def truth_table(evaluations: dict[str, list[Evaluation]]) -> str:
    """The attempts to keep the reasoning true, against the policy before training and against plain GRPO."""
    rows = []
    for name, mine in evaluations.items() if {"zero-shot", "grpo"} <= evaluations.keys() else ():
        statements = np.mean([answer.statements for run in mine for answer in run.answers])
        compared = (("zero-shot", "true"), ("grpo", "right"), ("grpo", "true"))
        differences = [
            shown(difference(evaluations[other], mine, part), True) if name not in ("zero-shot", other) else ""
            for other, part in compared
        ]
        shares = [shown(measure(mine, part)) for part in ("right", "true")]
        rows.append([name, str(len(mine)), *shares, rounded(statements, 2), *differences])
    head = ["", "seeds", "right answers", "true statements", "statements per response"]
    return markdown([*head, "true, over zero-shot", "right, over plain GRPO", "true, over plain GRPO"], rows)


def kept_table(places: dict) -> str:
    """The variant that keeps the reasoning true, on every set, against the policy before training and plain GRPO of
    the same seeds."""
    of_variant = by_place(load_results(CELLS, variant=KEPT))
    rows = []
    for name in (*SETS, "mean of 4 sets"):
        start, plain, mine = (of_set(runs_by_place, method, name) for runs_by_place, method in (
            (places, "zero-shot"), (places, "grpo"), (of_variant, "grpo"),
        ))  # fmt: skip
        seeds = sorted(plain.keys() & mine.keys())
        if not (start and seeds):
            continue
        before, old, new = list(start.values()), [plain[seed] for seed in seeds], [mine[seed] for seed in seeds]
        true = [shown(measure(side, "true")) for side in (before, old, new)]
        right = [shown(measure(side, "right")) for side in (old, new)]
        over = [shown(difference(before, new, "true"), True), shown(difference(old, new, "right"), True)]
        rows.append([name, *true, over[0], *right, over[1]])
    head = ["", "true statements: before", "plain GRPO", KEPT, "over before", "right answers: plain GRPO", KEPT]
    return markdown([*head, "over plain GRPO"], rows)


def variants_table(differences: dict[str, dict[str, Measured | None]]) -> str:
    rows = [
        [name, VARIANTS[name].about, *((number if part == "words" else shown)(row[part], True) for part in MEASURES)]
        for name, row in differences.items()
    ]
    return markdown(["variant", "what is changed", *(about for about, _ in MEASURES.values())], rows)


def draw(places: dict, differences: dict[str, dict[str, Measured | None]]) -> None:
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
    if differences:
        plot_changes(differences, HEADINGS).savefig(FIGURES / "study_changes.png")
    if levels := moves(places):
        plot_moves(levels, HEADINGS).savefig(FIGURES / "study_truth.png")
    if curves := published_curves(places):
        draw_published(curves).savefig(FIGURES / "study_published.png")


def moves(places: dict) -> dict:
    """Levels before and after: the methods on the mean of the four sets, the attempts at true reasoning on one."""

    def levels(runs: Sequence[Evaluation]) -> dict[str, Measured]:
        return {name: value for name in HEADINGS if (value := measure(runs, name)) is not None}

    def from_zero(start: Sequence[Evaluation], runs: Sequence[Evaluation]) -> dict[str, tuple[Measured, Measured]]:
        before, after = levels(start), levels(runs)
        return {name: (before[name], after[name]) for name in after}

    groups: dict = {"mean of four sets": {}, SETS[0]: {}}
    start = list(joined(places, "zero-shot", 0).values())
    ends = {method: joined(places, method, SHOTS) for method in ("grpo", "sft-reasoning")}
    ends[KEPT] = joined(by_place(load_results(CELLS, variant=KEPT)), "grpo", SHOTS)
    for name, runs in ends.items():
        if start and runs:
            groups["mean of four sets"][name] = from_zero(start, list(runs.values()))
    evaluations = mended(places)
    for name, runs in evaluations.items():
        if name != "zero-shot" and "zero-shot" in evaluations:
            groups[SETS[0]][name] = from_zero(evaluations["zero-shot"], runs)
    return {heading: rows for heading, rows in groups.items() if rows}


def published_curves(places: dict) -> dict[str, dict[str, np.ndarray]]:
    """Panel -> curve -> mean of the seeds at each step, where the published reward pays and where the strict does."""
    curves: dict[str, dict[str, np.ndarray]] = {}
    for method, way in (("grpo", "think"), ("grpo-answer", "answer")):
        for heat, hot in (("1", ""), ("1.5", "hot")):
            strict = variant_runs(hot, method) if hot else places.get((method, SETS[0], SHOTS), {})
            lenient = variant_runs("published-hot" if hot else "published", method)
            seeds = sorted(strict.keys() & lenient.keys())
            if seeds:
                curves[f"{way}, temperature {heat}"] = {
                    name: np.mean([[step["rewards"][reward] for step in runs[seed].records] for seed in seeds], axis=0)
                    for name, runs, reward in (
                        ("published pays: what is paid", lenient, "published_reward"),
                        ("published pays: really right", lenient, "accuracy_reward"),
                        ("strict pays: really right", strict, "accuracy_reward"),
                    )
                }
    return curves


def draw_published(curves: dict[str, dict[str, np.ndarray]]) -> Figure:
    """What the published reward pays and what is really right, over the steps of training."""
    figure = new_figure(2.9)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    looks = ((ORANGE, "-"), (ORANGE, ":"), (BLUE, "-"))
    for axes, (title, lines) in zip(panels, curves.items(), strict=True):
        for (name, line), (colour, style) in zip(lines.items(), looks, strict=True):
            smooth = 100 * running_mean(line, 10)
            axes.plot(range(1, len(line) + 1), smooth, style, color=colour, linewidth=1.8, label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylim(0, 100)
        axes.grid(axis="y")
    panels[0].set_ylabel("completions, %")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def main() -> None:
    results = load_results(CELLS)
    places = by_place(results)
    differences = changes(places)
    pages = {
        "gain": gain_table(places),
        "shots": tables.shots_table(results),
        "methods": methods_table(places),
        "pairs": pairs_table(places),
        "transfer": transfer_table(places),
        "base_to_new": base_to_new_table(),
        "probes": probes_table(places),
        "variants": variants_table(differences),
        "truth": truth_table(mended(places)),
        "kept": kept_table(places),
    }
    for name, page in pages.items():
        (HERE / f"study_{name}.md").write_text(page, encoding="utf-8")
    draw(places, differences)
    print("\n".join(pages.values()))


if __name__ == "__main__":
    main()
