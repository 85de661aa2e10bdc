"""The study: methods x sets x shots x seeds, a cell at a time, each kept on disk with every response.

A cell is one training run (or none, for zero-shot) and its evaluation on the test images of every set. Finished cells
are kept, so a study can be killed, resumed and moved to another machine. The test images of a set are the same for
every cell, so that any two can be compared image by image.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.activities import few_shot, load_activities
from favor_lab.activities.pocket import SETS
from favor_lab.grpo.records import GRPOSettings, StepRecord
from favor_lab.study.comparison import bootstrap_interval
from favor_lab.study.evaluation import Evaluation, evaluate
from favor_lab.study.report import plain, versions

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

#: method -> style of its prompt; the first two do not train
METHODS = {
    "zero-shot": "think", "zero-shot-answer": "answer",
    "sft": "answer", "sft-reasoning": "think", "grpo": "think", "grpo-answer": "answer",
}  # fmt: skip
#: chosen on validation images of one set, with the same trials for each method: data/results/tune_methods.md
LEARNING_RATES = {"sft": 0.001, "sft-reasoning": 0.004, "grpo": 0.002, "grpo-answer": 0.001}
TEST = 20  # images a label
SERIES = ("step", "reward", "rewards", "kl", "entropy", "length_mean", "flat_groups", "loss", "learning_rate")


@dataclass(frozen=True, order=True)
class Cell:
    """One place in the study's table.

    >>> Cell("grpo", "cartoon", shots=4, seed=0).name, Cell("zero-shot", "cartoon").name
    ('grpo-cartoon-4-0', 'zero-shot-cartoon-0-0')
    """

    method: str
    dataset: str  #: the set that it learns from
    shots: int = 0  #: training images a label
    seed: int = 0  #: of the choice of the images, the adapter's start, the order, the sampling

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; the methods are {', '.join(METHODS)}")
        if self.trains != (self.shots > 0):
            raise ValueError(f"{self.method} with {self.shots} shots: what trains needs shots, what does not has none")

    @property
    def trains(self) -> bool:
        return not self.method.startswith("zero-shot")

    @property
    def style(self) -> str:
        return METHODS[self.method]

    @property
    def name(self) -> str:
        return f"{self.method}-{self.dataset}-{self.shots}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """A finished cell: what it answered on each set, and how its training went."""

    cell: Cell
    tests: dict[str, Evaluation]  #: by set
    records: list[dict[str, Any]]  #: a few numbers of each step
    settings: dict[str, Any]
    seconds: float  #: of training
    versions: dict[str, str]

    @property
    def evaluation(self) -> Evaluation:
        """On the set that it learnt from."""
        return self.tests[self.cell.dataset]

    def save(self, folder: str | Path) -> Path:
        """Write `<name>.json.gz`, whole or not at all."""
        target = Path(folder) / f"{self.cell.name}.json.gz"
        data = {**plain(asdict(self)), "tests": {name: test.to_dict() for name, test in self.tests.items()}}
        packed = gzip.compress(json.dumps(plain(data), ensure_ascii=False).encode(), mtime=0)
        target.with_suffix(".part").write_bytes(packed)
        target.with_suffix(".part").replace(target)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what `save` wrote. Raises ValueError, with the file's name, for anything else."""
        try:
            data = json.loads(gzip.decompress(Path(path).read_bytes()))
            tests = {name: Evaluation.from_dict(test) for name, test in data.pop("tests").items()}
            return cls(**{**data, "cell": Cell(**data["cell"]), "tests": tests})
        except (EOFError, gzip.BadGzipFile, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a finished cell of the study ({error}): delete it to run it again"
            ) from error


def load_results(folder: str | Path, **wanted: Any) -> list[Result]:
    """The finished cells in a folder in order of their names, those whose fields are as wanted.

    load_results("data/results/study", method="grpo", shots=4) reads the files of these cells alone.
    """
    results = []
    for path in sorted(Path(folder).glob("*.json.gz")):
        method, dataset, shots, seed = path.name.removesuffix(".json.gz").rsplit("-", 3)
        cell = Cell(method, dataset, int(shots), int(seed))
        if all(getattr(cell, field) == value for field, value in wanted.items()):
            results.append(Result.load(path))
    return results


def plan(methods: Sequence[str], sets: Sequence[str] = SETS, shots: Mapping[int, int] | None = None) -> list[Cell]:
    """The cells of a study, first seeds first: shots maps images a label to a number of seeds.

    >>> [cell.name for cell in plan(["zero-shot", "grpo"], ["sketch"], {4: 2})]
    ['zero-shot-sketch-0-0', 'grpo-sketch-4-0', 'grpo-sketch-4-1']
    """
    shots = shots or {4: 3}
    still = [Cell(method, name) for method in methods for name in sets if method.startswith("zero-shot")]
    trained = [
        Cell(method, name, count, seed)
        for seed in range(max(shots.values()))
        for count in shots
        for name in sets
        for method in methods
        if seed < shots[count] and not method.startswith("zero-shot")
    ]
    return still + trained


def run_cell(
    cell: Cell, settings: GRPOSettings, sets: Sequence[str] = SETS, test: int = TEST, progress: Progress | None = None
) -> Result:
    """Train as the cell says (or not) and answer the test images of each set, the one that it learnt from first."""
    from favor_lab.vlm.policy import load_policy

    settings = settings_of(cell, settings)
    policy = load_policy("pocket", seed=cell.seed)
    shots = few_shot(load_activities(cell.dataset), max(cell.shots, 1), cell.seed, validation=0, test=test)
    records, start = [], time.perf_counter()
    if cell.trains:
        for record in learn(cell.method, policy, shots, settings):
            records.append({key: value for key, value in record.to_dict().items() if key in SERIES})
            if progress:
                progress(cell, record.step, settings.steps)
    seconds = time.perf_counter() - start
    tests = {}
    for name in [cell.dataset, *(name for name in sets if name != cell.dataset)]:
        images = shots.test if name == cell.dataset else test_images(name, test)
        tests[name] = evaluate(policy, images, shots.labels, cell.style, settings.max_new_tokens)
    return Result(cell, tests, records, plain(settings) if cell.trains else {}, seconds, versions())


def chosen_settings(steps: int | None = None) -> dict[str, GRPOSettings]:
    """The settings of each method that trains: the defaults, with the learning rate chosen for it."""
    steps = GRPOSettings.steps if steps is None else steps
    return {method: GRPOSettings(steps=steps, learning_rate=rate) for method, rate in LEARNING_RATES.items()}


Progress = Callable[[Cell, int, int], None]


def test_images(name: str, test: int = TEST) -> list[Example]:
    """The test images of a set: the same for every cell."""
    return few_shot(load_activities(name), 1, seed=0, validation=0, test=test).test


test_images.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


def learn(method: str, policy: Policy, shots: FewShot, settings: GRPOSettings) -> Iterator[StepRecord]:
    """Train the policy in place by a method's name: one record per optimiser step."""
    from favor_lab.grpo.training import train
    from favor_lab.study.baselines import sft

    if method.startswith("grpo"):
        return train(policy, shots, settings)
    settings = replace(settings, beta=0.0)  # no reference
    if method == "sft":
        return sft(policy, shots, settings)
    thoughts = self_written(policy, shots, settings)
    taught = replace(shots, train=[example for example in shots.train if example.source in thoughts])
    return sft(policy, taught, settings, reasoning=lambda example: thoughts[example.source])


def self_written(policy: Policy, shots: FewShot, settings: GRPOSettings, tries: int = 16) -> dict[str, str]:
    """Reasoning that the policy wrote itself, for SFT: by source, the first of `tries` samples that is well formed and
    led to the right answer (rejection sampling, as in STaR, arXiv 2203.14465). Images without one are left out.

    Raises ValueError if no image has one.
    """
    from favor_lab.grpo.rewards import RESPONSES, format_reward, is_right
    from favor_lab.grpo.sampling import sample_groups
    from favor_lab.vlm.processing import encode_prompts

    found: dict[str, str] = {}
    prompts = encode_prompts(policy, shots.train, shots.labels, "think", completion_tokens=settings.max_new_tokens)
    rollout = sample_groups(policy, prompts, tries, settings.max_new_tokens, settings.temperature, seed=settings.seed)
    for text, b in zip(rollout.texts, rollout.groups.tolist(), strict=True):
        example = shots.train[b]
        if example.source not in found and format_reward([text])[0] and is_right(text, example.label):
            match = RESPONSES["think"].fullmatch(text)
            assert match is not None  # it is well formed
            found[example.source] = match[1]
    if not found:
        raise ValueError(f"none of {len(rollout)} samples was right: there is no self-written reasoning to learn from")
    return found


def run_study(
    cells: Iterable[Cell],
    folder: str | Path,
    settings: Mapping[str, GRPOSettings],
    run: Callable[..., Result] = run_cell,
    **options: Any,
) -> Iterator[Result | None]:
    """Run the cells that the folder lacks, in order; yields each new result, or None for one that was there.

    settings: by method; a method without an entry uses the defaults. Raises ValueError for a finished cell that was run
    with other settings.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for cell in cells:
        asked, path = (
            settings_of(cell, settings.get(cell.method, GRPOSettings())),
            Path(folder) / f"{cell.name}.json.gz",
        )
        if path.exists():
            check_same(Result.load(path).settings, plain(asked) if cell.trains else {}, path)
            yield None
            continue
        result = run(cell, asked, **options)
        result.save(folder)
        yield result


def settings_of(cell: Cell, settings: GRPOSettings) -> GRPOSettings:
    """The method's settings, with the seed and the style of the cell."""
    return replace(settings, seed=cell.seed, style=cell.style)


def check_same(kept: Mapping[str, Any], asked: Mapping[str, Any], path: Path) -> None:
    """ValueError that lists the differences between the settings of a finished cell and those asked for."""
    differences = [f"{name} {kept.get(name)}, not {value}" for name, value in asked.items() if kept.get(name) != value]
    if differences:
        raise ValueError(f"{path} was run with {'; '.join(differences)}: name another folder, or delete the cell")


def tidy(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row for each cell and test set, for a data frame or a CSV file: rates are shares."""
    return [
        {
            **asdict(result.cell),
            "tested_on": name,
            "accuracy": test.accuracy,
            "format_rate": test.format_rate,
            "truth_rate": test.truth_rate,
            "images": len(test),
            "training_seconds": result.seconds,
        }
        for result in results
        for name, test in result.tests.items()
    ]


def table(results: Sequence[Result]) -> str:
    """A line for each method, set and number of shots, as Markdown: accuracy with its 95 % interval over seeds and
    images, accuracy on the other sets, form and truth of the responses."""
    lines = [
        "| method | set | shots | seeds | right (95 % interval) | right on the other sets | well formed | true |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.method, result.cell.dataset, result.cell.shots), []).append(result)
    order = {name: place for place, name in enumerate((*METHODS, *SETS))}
    for (method, dataset, shots), runs in sorted(
        groups.items(), key=lambda g: (order[g[0][0]], g[0][2], order[g[0][1]])
    ):
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


def percent(share: Any) -> str:
    """A share as it is printed.

    >>> percent(0.7709)
    '77.1 %'
    """
    return f"{100 * share:.1f} %"
