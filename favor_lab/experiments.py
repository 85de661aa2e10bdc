"""The study: methods x sets x shots x seeds, a cell at a time, each kept on disk with every response.

A cell is one training run (or none, for zero-shot) and its evaluation on test images: of its own set, and if that is a
drawn one of the other drawn sets, which have the same labels. Finished cells are kept, so a study can be killed,
resumed and moved to another machine. The test images of a set are the same for every cell, so that any two can be
compared image by image.
"""

from __future__ import annotations

import csv
import gc
import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.activities import base_to_new, few_shot, load_activities
from favor_lab.activities.pocket import SETS
from favor_lab.files import write_whole
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings
from favor_lab.recipes import VARIANTS
from favor_lab.study.comparison import bootstrap_interval
from favor_lab.study.evaluation import Evaluation, evaluate
from favor_lab.study.measures import Measured
from favor_lab.study.report import plain, versions
from favor_lab.study.rounding import percent

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.activities.sources import ActivityData
    from favor_lab.vlm.policy import Policy

#: method -> style of its prompt; the first two do not train
METHODS = {
    "zero-shot": "think", "zero-shot-answer": "answer",
    "sft": "answer", "sft-reasoning": "think", "grpo": "think", "grpo-answer": "answer",
}  # fmt: skip
#: chosen on validation images of one set, with the same trials for each method: data/results/tune_methods.md
LEARNING_RATES = {"sft": 0.001, "sft-reasoning": 0.004, "grpo": 0.002, "grpo-answer": 0.001}
TEST = 20  # images a label
SHOTS = (1, 2, 4, 8, 16)  # the five settings
BASE_TO_NEW = "base-to-new"
PROBED = 64  # images
SERIES = ("step", "reward", "rewards", "kl", "entropy", "length_mean", "flat_groups", "loss", "learning_rate")


@dataclass(frozen=True)
class Recipe:
    """How every method trains, and what of the policy: the methods differ in their learning rate alone."""

    about: str
    settings: GRPOSettings
    rates: Mapping[str, float]  #: by method
    policy: Mapping[str, Any] = field(default_factory=dict)  #: arguments of `load_policy`

    def by_method(self, **changes: Any) -> dict[str, GRPOSettings]:
        """The settings of each method, with some changed; zero-shot asks and answers as the others do."""
        settings = replace(self.settings, **changes)
        return {
            method: replace(settings, learning_rate=self.rates.get(method, settings.learning_rate))
            for method in METHODS
        }


#: 200 steps of 16 prompts and 8 completions (Visual-RFT, arXiv 2503.01785). The last two bound memory and change no
#: result.
VISUAL_RFT = GRPOSettings(
    steps=200, prompts_per_step=16, group_size=8, max_new_tokens=256, micro_batch=8, gradient_checkpointing=True
)
RECIPES = {
    "pocket": Recipe("100 steps of 4 prompts, an adapter; for the pocket policy", GRPOSettings(), LEARNING_RATES),
    "lora": Recipe(
        "Visual-RFT's 200 steps of 16 prompts, an adapter, 10 times its learning rate (own choice, not tuned)",
        VISUAL_RFT,
        {"sft": 1e-4, "sft-reasoning": 1e-4, "grpo": 1e-5, "grpo-answer": 1e-5},
    ),
    "visual-rft": Recipe(
        "Visual-RFT's 200 steps of 16 prompts, all weights of the language model in float32 (SFT's rate: own choice)",
        VISUAL_RFT,
        {"sft": 1e-5, "sft-reasoning": 1e-5, "grpo": 1e-6, "grpo-answer": 1e-6},
        {"lora_rank": 0, "dtype": "float32"},
    ),
}


@dataclass(frozen=True)
class Setup:
    """What the cells of a table share: the policy, where the images are, and how many of them test."""

    sets: tuple[str, ...] = SETS  #: each policy is tested on those of them that have its labels
    test: int = TEST  #: images a label
    policy: Mapping[str, Any] = field(default_factory=lambda: {"name": "pocket"})  #: arguments of `load_policy`
    images: Mapping[str, Any] = field(default_factory=dict)  #: of `load_activities`: root, person_crop, exclude

    def load(self, name: str) -> ActivityData:
        """A set, its files listed once; of several public ones each is in the folder of its name under the root."""
        if name not in self._loaded:
            root = self.images.get("root")
            if root is not None and len(self.sets) > 1:
                root = Path(root) / name
            self._loaded[name] = load_activities(name, **{**self.images, "root": root})
        return self._loaded[name]

    @cached_property
    def _loaded(self) -> dict[str, ActivityData]:
        return {}

    def tested(self, cell: Cell) -> list[str]:
        """The sets that a cell is tested on: its own first, then the other drawn ones; a variant on its own alone."""
        others = [name for name in self.sets if name != cell.dataset and {name, cell.dataset} <= set(SETS)]
        return [cell.dataset, *([] if cell.variant else others)]

    def facts(self) -> dict[str, Any]:
        """What two cells must share to stand in one table; no paths and no device."""
        facts = {**self.policy, "policy": self.policy.get("name", "pocket"), "test": self.test}
        facts |= {"person_crop": self.images.get("person_crop")}
        paths = ("policy", "adapter")
        facts |= {key: Path(facts[key]).name for key in paths if facts.get(key) and Path(facts[key]).is_dir()}
        return plain({key: value for key, value in facts.items() if key not in ("name", "device")})


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
    variant: str = ""  #: a change of GRPO (see `recipes`), or "base-to-new": learns half of the labels

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; the methods are {', '.join(METHODS)}")
        if self.variant not in ("", BASE_TO_NEW, *VARIANTS):
            known = ", ".join([BASE_TO_NEW, *VARIANTS])
            raise ValueError(f"unknown variant {self.variant!r}; the variants are {known}")
        if self.variant in VARIANTS and not self.method.startswith("grpo"):
            raise ValueError(f"{self.variant} is a variant of grpo and grpo-answer, not of {self.method}")
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
        return f"{self.method}-{self.dataset}-{self.shots}-{self.seed}" + (f"+{self.variant}" if self.variant else "")

    @classmethod
    def from_name(cls, name: str) -> Cell:
        """
        >>> Cell.from_name("zero-shot-sketch-0-0+base-to-new").dataset
        'sketch'
        """
        place, _, variant = name.partition("+")
        method, dataset, shots, seed = place.rsplit("-", 3)
        return cls(method, dataset, int(shots), int(seed), variant)


@dataclass(frozen=True)
class Result:
    """A finished cell: what it answered on each set, and how its training went."""

    cell: Cell
    tests: dict[str, Evaluation]  #: by set
    records: list[dict[str, Any]]  #: a few numbers of each step
    settings: dict[str, Any]
    seconds: float  #: of training
    versions: dict[str, str]
    setup: dict[str, Any] = field(default_factory=dict)  #: the facts of its `Setup`
    probes: dict[str, Any] = field(default_factory=dict)  #: see `probe`; only for drawn sets

    @property
    def evaluation(self) -> Evaluation:
        """On the set that it learnt from."""
        return self.tests[self.cell.dataset]

    def save(self, folder: str | Path) -> Path:
        """Write `<name>.json.gz`, whole or not at all."""
        target = Path(folder) / f"{self.cell.name}.json.gz"
        data = {**plain(asdict(self)), "tests": {name: test.to_dict() for name, test in self.tests.items()}}
        packed = gzip.compress(json.dumps(plain(data), ensure_ascii=False).encode(), mtime=0)
        return write_whole(target, packed)

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
    """The finished cells in a folder in order of their names, those whose fields are as wanted; no variants, unless
    one is wanted.

    load_results("data/results/study", method="grpo", shots=4) reads the files of these cells alone.
    """
    results, wanted = [], {"variant": ""} | wanted
    for path in sorted(Path(folder).glob("*.json.gz")):
        cell = Cell.from_name(path.name.removesuffix(".json.gz"))
        if all(getattr(cell, field) == value for field, value in wanted.items()):
            results.append(Result.load(path))
    return results


def plan(
    methods: Sequence[str], sets: Sequence[str] = SETS, shots: Mapping[int, int] | None = None, variant: str = ""
) -> list[Cell]:
    """The cells of a study, first seeds first: shots maps images a label to a number of seeds. Of a variant, those of
    the methods that have it.

    >>> [cell.name for cell in plan(["zero-shot", "grpo"], ["sketch"], {4: 2})]
    ['zero-shot-sketch-0-0', 'grpo-sketch-4-0', 'grpo-sketch-4-1']
    >>> [cell.name for cell in plan(["zero-shot", "grpo"], ["sketch"], {4: 1}, "no-kl")]
    ['grpo-sketch-4-0+no-kl']
    """
    shots = shots or {4: 3}
    if variant in VARIANTS:
        methods = [method for method in methods if method.startswith("grpo")]
    still = [
        Cell(method, name, variant=variant) for method in methods for name in sets if method.startswith("zero-shot")
    ]
    trained = [
        Cell(method, name, count, seed, variant)
        for seed in range(max(shots.values()))
        for count in shots
        for name in sets
        for method in methods
        if seed < shots[count] and not method.startswith("zero-shot")
    ]
    return still + trained


def preset(name: str) -> list[Cell]:
    """The cells of a whole study. quick: two sets, one seed, minutes on two cores. full: every method on every set with
    1 to 16 shots, five seeds at 4 shots and three elsewhere; base-to-new; every variant of grpo on one set, some of
    grpo-answer, one on all sets: a night.

    >>> len(preset("quick")), len(preset("full"))
    (8, 435)
    """
    if name == "quick":
        return plan(["zero-shot", "zero-shot-answer", "sft", "grpo"], SETS[:2], {4: 1})
    if name != "full":
        raise ValueError(f"unknown preset {name!r}; the presets are quick, full")
    seeds = {count: 5 if count == 4 else 3 for count in (4, *SHOTS)}
    cells = plan(list(METHODS), SETS, seeds)
    for variant in (BASE_TO_NEW, *VARIANTS):
        methods, sets = (list(METHODS), SETS) if variant == BASE_TO_NEW else (["grpo"], SETS[:1])
        cells += plan(methods, sets, {4: 3}, variant)
    for variant in ("hot", "published", "published-hot"):  # asked for the answer alone, too: no format to hold it
        cells += plan(["grpo-answer"], SETS[:1], {4: 3}, variant)
    return cells + plan(["grpo"], SETS[1:], {4: 3}, "truth-2-kl")  # what kept the reasoning true on the one set


def run_cell(
    cell: Cell, settings: GRPOSettings, setup: Setup | None = None, progress: Progress | None = None
) -> Result:
    """Train as the cell says (or not) and answer the test images of each set, the one that it learnt from first."""

    from favor_lab.vlm.loading import load_policy

    gc.collect()  # the policy of the last cell leaves its memory to this one
    setup, settings = setup or Setup(), settings_of(cell, settings)
    shots, asked = images_of(cell, setup)
    policy = load_policy(**setup.policy, seed=cell.seed)
    records, start = [], time.perf_counter()
    if cell.trains:
        rewards = VARIANTS[cell.variant].rewards if cell.variant in VARIANTS else {}
        for record in learn(cell.method, policy, shots, settings, rewards):
            records.append({key: value for key, value in record.to_dict().items() if key in SERIES})
            if progress:
                progress(cell, f"step {record.step} of {settings.steps}")
    seconds, tests = time.perf_counter() - start, {}
    for name, (images, labels) in asked.items():
        if progress:
            progress(cell, f"test images of {name}")
        known = None if settings.open_vocabulary else labels
        tests[name] = evaluate(policy, images, known, cell.style, settings.max_new_tokens)
    probes = {}
    if cell.dataset in SETS and cell.variant != BASE_TO_NEW:
        if progress:
            progress(cell, "probes")
        probes = probe(policy, tests[cell.dataset], *asked[cell.dataset], settings)
    machine = versions(policy.device)
    return Result(cell, tests, records, kept_settings(cell, settings), seconds, machine, setup.facts(), probes)


Asked = dict[str, tuple[list["Example"], list[str]]]  # by set: test images, and the labels that the prompt names


def images_of(cell: Cell, setup: Setup) -> tuple[FewShot, Asked]:
    """What a cell learns from, and what it is tested on."""
    data, shots = setup.load(cell.dataset), max(cell.shots, 1)
    if cell.variant == BASE_TO_NEW:
        halves = base_to_new(data, shots, cell.seed, validation=0, test=setup.test)
        parts = {cell.dataset: halves.source, f"{cell.dataset}, new labels": halves.target}
        return halves.source, {name: (part.test, part.labels) for name, part in parts.items()}
    own = few_shot(data, shots, cell.seed, validation=0, test=setup.test)
    asked = {cell.dataset: (own.test, own.labels)}
    return own, asked | {name: (test_images(name, setup.test), own.labels) for name in setup.tested(cell)[1:]}


def probe(
    policy: Policy, answered: Evaluation, images: list[Example], labels: list[str], settings: GRPOSettings
) -> dict[str, Any]:
    """What training did besides: what the policy writes when it is asked otherwise, and what its answers look at.

    For each of the first images, in their order. describe, and the style that it was not trained in: a text. evidence:
    by part of the response, how much more its log-probability loses when the true evidence is covered than when places
    elsewhere are, in nats; None where the response lacks the part.
    """
    from favor_lab.study.evaluation import generate_greedy
    from favor_lab.study.explanations import evidence_effect
    from favor_lab.vlm.processing import encode_prompts

    found: dict[str, Any] = {}
    tokens, images = settings.max_new_tokens, images[:PROBED]
    for style in sorted({"think", "answer", "describe"} - {answered.style}):
        known = None if settings.open_vocabulary or style == "describe" else labels
        found[style] = []
        for first in range(0, len(images), 32):
            prompts = encode_prompts(policy, images[first : first + 32], known, style, completion_tokens=tokens)
            found[style] += generate_greedy(policy, prompts, tokens)
    texts = [answer.text for answer in answered.answers[:PROBED]]
    effects = evidence_effect(policy, images, labels, answered.style, responses=texts)
    found["evidence"] = {part: [effect.effect(part) for effect in effects] for part in ("reasoning", "answer")}
    return found


def chosen_settings(steps: int | None = None) -> dict[str, GRPOSettings]:
    """The settings of each method that trains on the pocket policy: the defaults, with the learning rate chosen for
    it."""
    recipe = RECIPES["pocket"]
    settings = recipe.by_method(**({} if steps is None else {"steps": steps}))
    return {method: settings[method] for method in recipe.rates}


Progress = Callable[[Cell, str], None]  # what a cell is doing


def test_images(name: str, test: int = TEST) -> list[Example]:
    """The test images of a set: the same for every cell."""
    return few_shot(load_activities(name), 1, seed=0, validation=0, test=test).test


test_images.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


def learn(
    method: str, policy: Policy, shots: FewShot, settings: GRPOSettings, rewards: Mapping[str, Any] | None = None
) -> Iterator[StepRecord]:
    """Train the policy in place by a method's name: one record per optimiser step. rewards: of GRPO, where other
    functions are paid than accuracy and format."""
    from favor_lab.budget.memory import with_advice
    from favor_lab.grpo.training import train
    from favor_lab.study.baselines import sft

    if method.startswith("grpo"):
        records = train(policy, shots, settings, rewards=rewards) if rewards else train(policy, shots, settings)
        return with_advice(records, policy, settings, shots)
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
    labels = None if settings.open_vocabulary else shots.labels
    tokens, at_once = settings.max_new_tokens, settings.micro_batch or 64
    for first in range(0, len(shots.train), at_once):
        examples = shots.train[first : first + at_once]
        prompts = encode_prompts(policy, examples, labels, "think", completion_tokens=tokens)
        rollout = sample_groups(policy, prompts, tries, tokens, settings.temperature, seed=settings.seed)
        for text, b in zip(rollout.texts, rollout.groups.tolist(), strict=True):
            if format_reward([text])[0] and is_right(text, examples[b].label):
                found.setdefault(examples[b].source, RESPONSES["think"].findall(text)[0][0])
    if not found:
        raise ValueError(
            f"none of {tries * len(shots.train)} samples was right: there is no self-written reasoning to learn from"
        )
    return found


def run_study(
    cells: Iterable[Cell],
    folder: str | Path,
    settings: Mapping[str, GRPOSettings],
    setup: Setup | None = None,
    run: Callable[..., Result] = run_cell,
    **options: Any,
) -> Iterator[Result | None]:
    """Run the cells that the folder lacks, in order; yields each new result, or None for one that was there.

    settings: by method; a method without an entry uses the defaults. Raises ValueError for a finished cell that was run
    with other settings, another policy or other test images.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    setup = setup or Setup()
    for cell in cells:
        asked = settings_of(cell, settings.get(cell.method, GRPOSettings()))
        path = Path(folder) / f"{cell.name}.json.gz"
        if path.exists():
            check_same(Result.load(path), kept_settings(cell, asked) | setup.facts(), setup.tested(cell), path)
            yield None
            continue
        result = run(cell, asked, setup, **options)
        result.save(folder)
        yield result


def settings_of(cell: Cell, settings: GRPOSettings) -> GRPOSettings:
    """The method's settings, with the seed, the style and the variant of the cell."""
    style: Any = cell.style
    settings = replace(settings, seed=cell.seed, style=style)
    if cell.variant not in VARIANTS:
        return settings
    variant = VARIANTS[cell.variant]
    return replace(settings, learning_rate=settings.learning_rate * variant.rate, **variant.changes)


def kept_settings(cell: Cell, settings: GRPOSettings) -> dict[str, Any]:
    """The settings that a cell's numbers depend on: all of them, or without training those of the question."""
    kept = plain(settings)
    if cell.trains:
        return {name: value for name, value in kept.items() if name == "steps" or name not in RESUMABLE_CHANGES}
    return {name: kept[name] for name in ("style", "open_vocabulary", "max_new_tokens")}


def check_same(result: Result, asked: Mapping[str, Any], tested: Sequence[str], path: Path) -> None:
    """ValueError that lists how a finished cell was run otherwise than is asked for now."""
    kept = {"policy": result.evaluation.policy} | result.setup | result.settings
    # what a cell does not know of itself is younger than the cell, and has its default there
    differences = [
        f"{name} {kept[name]}, not {value}" for name, value in asked.items() if kept.get(name, value) != value
    ]
    if missing := [name for name in tested if name not in result.tests]:
        differences.append(f"tests on {', '.join(result.tests)}, not on {', '.join(missing)}")
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
    for (method, dataset, shots), runs in sorted(
        groups.items(), key=lambda g: (place(g[0][0]), g[0][2], place(g[0][1]))
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


def shots_table(results: Sequence[Result]) -> str:
    """The paper's kind of table, as Markdown: for each set, and their mean, a line a method and a column a number of
    shots; each number is the accuracy in per cent with its 95 % interval over seeds and images.
    """
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
    and each set counts the same. Nothing for no such seed.
    """
    by_seed: dict[int, list[Result]] = {}
    for run in runs:
        by_seed.setdefault(run.cell.seed, []).append(run)
    rows = [
        np.concatenate([np.array([a.correct for a in run.evaluation.answers]) / len(run.evaluation) for run in mine])
        for mine in by_seed.values()
        if len(mine) == sets
    ]
    if not rows:
        return ""
    shares = np.array(rows) * rows[0].size / sets  # (seeds, images), whose mean is the mean of the sets
    return Measured(shares.mean(), *bootstrap_interval(shares)).percent()


def place(name: str) -> tuple[int, str]:
    """Where a method or a set stands in a table: as they are listed, and others by name behind them."""
    order = [*METHODS, *SETS]
    return (order.index(name) if name in order else len(order), name)


def write_tables(folder: str | Path) -> str:
    """Write `table.md` and `cells.csv`, a row for each cell and test set, beside the cells; returns the page."""
    results = load_results(folder)
    page = f"{shots_table(results)}\n{table(results)}"
    for variant in (BASE_TO_NEW, *VARIANTS):
        if changed := load_results(folder, variant=variant):
            about = VARIANTS[variant].about if variant in VARIANTS else "half of the labels learnt; the others: new"
            page += f"\n**{variant}**: {about}\n\n{table(changed)}"
            results += changed
    (Path(folder) / "table.md").write_text(page, encoding="utf-8")
    rows = tidy(results)
    with (Path(folder) / "cells.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    return page
