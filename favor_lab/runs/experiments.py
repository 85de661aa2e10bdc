"""The study: train and test cell by cell, and keep every response on disk.

A cell is one training run (or none, for zero-shot) and its evaluation on test images: of its own set, and if that is a
drawn one of the other drawn sets, which have the same labels. Finished cells are kept, so a study can be killed,
resumed and moved to another machine. Every cell has the same test images of a set: any two can be compared by image.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.activities import few_shot, load_activities
from favor_lab.activities.world import SETS
from favor_lab.budget.memory import with_advice
from favor_lab.files import jsonable
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import RESUMABLE_CHANGES, GRPOSettings
from favor_lab.runs.cells import GRPO, STAGES, TEST, Cell, Result, Setup, cell_files
from favor_lab.runs.cells import load_results as load_results  # what a study leaves is read where it is run
from favor_lab.runs.tasks import TASKS
from favor_lab.runs.variants import Variant, find_variant
from favor_lab.study.evaluation import Evaluation, batches, evaluate
from favor_lab.versions import versions
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

PROBED, SAMPLES = 64, 8  # images that are probed; sampled answers to each test image of the cell's own set
SERIES = (
    "step", "reward", "rewards", "kl", "entropy", "rows", "tokens", "length_mean", "flat_groups", "loss",
    "learning_rate",
)  # fmt: skip


def run_cell(
    cell: Cell, settings: GRPOSettings, setup: Setup | None = None, progress: Progress | None = None
) -> Result:
    """Train as the cell says (or not) and answer the test images of each set, the one that it learned from first.
    settings: the method's; the cell's seed, style and variant are applied here."""
    from favor_lab.study.class_means import evaluate_class_means
    from favor_lab.vlm.loading import load_policy

    gc.collect()  # frees the memory of the last cell's policy
    setup, settings, progress = setup or Setup(), settings_of(cell, settings), progress or (lambda cell, doing: None)
    shots, test_sets = images_of(cell, setup)
    policy = load_policy(**setup.policy, seed=cell.seed)
    records, start = [], time.perf_counter()
    if cell.trains and cell.method != "class-mean":
        variant = find_variant(cell.variant) if cell.variant else None
        for record in learn(cell.method, policy, shots, settings, variant):
            records.append({key: value for key, value in record.to_dict().items() if key in SERIES})
            progress(cell, f"step {record.step} of {settings.steps}")
    seconds, tests = time.perf_counter() - start, {}
    for name, (images, labels) in test_sets.items():
        progress(cell, f"test images of {name}")
        if cell.method == "class-mean":
            if set(labels) == set(shots.labels):  # labels without a training image have no mean
                tests[name] = evaluate_class_means(policy, shots, images, labels)
            continue
        question = Question.of(labels, settings.open_vocabulary, cell.style)
        samples = SAMPLES if name == cell.dataset or cell.task else 0
        answers = (policy, images, question.labels, question.style, settings.max_new_tokens)
        tests[name] = evaluate(*answers, samples=samples, seed=cell.seed)
    probes = {}
    if cell.dataset in SETS and not cell.variant and not cell.task and cell.method != "class-mean":
        progress(cell, "probes")
        probes = probe(policy, tests[cell.dataset], *test_sets[cell.dataset], settings)
    about_run = (kept_settings(cell, settings), seconds, versions(policy.device), setup.facts())
    return Result(cell, tests, records, *about_run, probes, setup.test_images(cell.dataset))


TestSets = dict[str, tuple[list["Example"], list[str]]]  # by set: test images, and the labels that the prompt names


def images_of(cell: Cell, setup: Setup) -> tuple[FewShot, TestSets]:
    """What a cell learns from, and what it is tested on."""
    data, shots = setup.load(cell.dataset), max(cell.shots, 1)
    if cell.task:
        own, tests = TASKS[cell.task].images(data, shots, cell.seed, setup.test)
        return own, {f"{cell.dataset}{ending}": part for ending, part in tests.items()}
    own = few_shot(data, shots, cell.seed, validation=0, test=setup.test)
    tests = {cell.dataset: (own.test, own.labels)}
    return own, tests | {name: (test_images(name, setup.test), own.labels) for name in setup.tested(cell)[1:]}


def probe(
    policy: Policy, answered: Evaluation, images: list[Example], labels: list[str], settings: GRPOSettings
) -> dict[str, Any]:
    """What training did besides: what the policy writes when it is asked otherwise, and what its answers look at.

    For each of the first images, in their order. describe, and the style that it was not trained in: a text. evidence:
    by part of the response, how much more its log-probability loses when the true evidence is covered than when places
    elsewhere are, in nats; None where the response lacks the part.
    """
    from favor_lab.study.evidence import evidence_effect
    from favor_lab.study.occlusion import respond

    probes: dict[str, Any] = {}
    tokens, images = settings.max_new_tokens, images[:PROBED]
    for style in sorted({"think", "answer", "describe"} - {answered.style}):
        named = None if settings.open_vocabulary or style == "describe" else labels
        responses = (respond(policy, images[part], named, style, None, tokens) for part in batches(images, 32, "probe"))
        probes[style] = [text for _, rollout in responses for text in rollout.texts]
    texts = [answer.text for answer in answered.answers[:PROBED]]
    effects = evidence_effect(policy, images, labels, answered.style, responses=texts)
    probes["evidence"] = {part: [effect.effect(part) for effect in effects] for part in ("reasoning", "answer")}
    return probes


Progress = Callable[[Cell, str], None]  # what a cell is doing


def test_images(name: str, test: int = TEST) -> list[Example]:
    """The test images of a set: the same for every cell."""
    return few_shot(load_activities(name), 1, seed=0, validation=0, test=test).test


test_images.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


def learn(
    method: str, policy: Policy, shots: FewShot, settings: GRPOSettings, variant: Variant | None = None
) -> Iterator[StepRecord]:
    """Train the policy in place by a method's name: one record per optimiser step. variant: of GRPO alone."""
    from favor_lab.study.sft import sft

    if method in STAGES:
        return two_stages(method, policy, shots, settings)
    if method in GRPO:
        records = (variant or Variant("plain GRPO")).train(policy, shots, settings)
        return with_advice(records, policy, settings, shots)
    smoothing = float(settings.coefficients.get("label_smoothing", 0.0) or 0.0)
    if method == "sft":
        return sft(policy, shots, settings, label_smoothing=smoothing)
    reasoning = self_written(policy, shots, settings)
    with_reasoning = replace(shots, train=[example for example in shots.train if example.source in reasoning])
    own = partial(sft, reasoning=lambda example: reasoning[example.source], label_smoothing=smoothing)
    return own(policy, with_reasoning, settings)


def two_stages(method: str, policy: Policy, shots: FewShot, settings: GRPOSettings) -> Iterator[StepRecord]:
    """One method after the other, as `STAGES` says, in `settings.steps` steps together: one record per step.

    Both stages decay their learning rate to 0; GRPO's KL penalty holds it to the policy before both. Of
    `settings.coefficients`: first_share, the first stage's share of the steps (0.5); sft_rate, the learning rate of the
    SFT stage (that of GRPO); answers_alone, whether that stage learns answers without reasoning (False).
    ValueError for a share that leaves a stage no step.
    """
    defaults: dict[str, Any] = {"first_share": 0.5, "sft_rate": settings.learning_rate, "answers_alone": False}
    options = {**defaults, **settings.coefficients}
    first = round(float(options["first_share"] or 0) * settings.steps)
    if not 0 < first < settings.steps:
        share = f"first_share is {options['first_share']}"
        raise ValueError(f"{share}: of {settings.steps} steps the first stage has {first}, and each needs one")
    for stage, before, steps in zip(STAGES[method], (0, first), (first, settings.steps - first), strict=True):
        own = replace(settings, steps=steps, coefficients={})
        if stage != "grpo":
            stage, own = "sft" if options["answers_alone"] else stage, replace(own, learning_rate=options["sft_rate"])
        for record in learn(stage, policy, shots, own):
            yield replace(record, step=before + record.step)


def self_written(policy: Policy, shots: FewShot, settings: GRPOSettings, tries: int = 16) -> dict[str, str]:
    """Reasoning that the policy wrote itself, for SFT: by source, the first of `tries` samples that is well formed and
    led to the right answer (rejection sampling, as in STaR, arXiv 2203.14465). Images without one are left out.
    Raises ValueError if no image has one."""
    from favor_lab.responses import split_response
    from favor_lab.study.groups import sample_and_score

    reasoning: dict[str, str] = {}
    labels = Question.of(shots.labels, settings.open_vocabulary).labels
    sampling = {name: getattr(settings, name) for name in ("max_new_tokens", "temperature", "seed")}
    for part in batches(shots.train, settings.micro_batch or 64, "sample"):
        rollout, scores = sample_and_score(policy, shots.train[part], labels, group_size=tries, **sampling)
        for row, b in enumerate(rollout.groups.tolist()):
            if all(values[row] == 1 for values in scores.values()):
                reasoning.setdefault(shots.train[part][b].source, split_response(rollout.texts[row])[0] or "")
    if not reasoning:
        tried = tries * len(shots.train)
        raise ValueError(f"none of {tried} samples was right: there is no self-written reasoning to learn from")
    return reasoning


def run_study(
    cells: Iterable[Cell],
    folder: str | Path,
    settings: Mapping[str, GRPOSettings],
    setup: Setup | None = None,
    run: Callable[..., Result] = run_cell,
    **options: Any,
) -> Iterator[Result | None]:
    """Run the cells that the folder lacks, in order; yields each new result, or None for one that was there.

    settings: by method; a method without an entry uses the defaults. Raises ValueError, before a cell is run, for any
    finished cell in the folder that is damaged or has another policy or other test images, and for one of the same
    methods and variants that has other settings: all of them would stand in one table.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    setup, cells = setup or Setup(), list(cells)
    settings = {cell.method: GRPOSettings() for cell in cells} | dict(settings)
    finished = check_finished(cells, folder, settings, setup)
    for cell in cells:
        result: Result | None = None
        if cell not in finished:
            result = run(cell, settings[cell.method], setup, **options)
            result.save(folder)
        yield result


def check_finished(
    cells: Sequence[Cell], folder: str | Path, settings: Mapping[str, GRPOSettings], setup: Setup
) -> set[Cell]:
    """The finished cells in a folder, all of which may stand in one table with these; ValueError for one that may not,
    of these cells first."""
    finished, compared = cell_files(folder), {(cell.method, cell.variant) for cell in cells}
    for cell in sorted(finished, key=lambda cell: cells.index(cell) if cell in cells else len(cells)):
        wanted = setup.facts()
        if cell.dataset in setup.sets:
            wanted["test images"] = setup.test_images(cell.dataset)
        if (cell.method, cell.variant) in compared:
            wanted |= kept_settings(cell, settings_of(cell, settings[cell.method]))
        path, tested = finished[cell], setup.tested(cell) if cell in cells else []
        check_same(Result.load(path), wanted, tested, path)
    return set(finished)


def settings_of(cell: Cell, settings: GRPOSettings) -> GRPOSettings:
    """The method's settings, with the seed, the style and the variant of the cell."""
    style: Any = cell.style
    settings = replace(settings, seed=cell.seed, style=style)
    return find_variant(cell.variant).applied_to(settings) if cell.variant else settings


def kept_settings(cell: Cell, settings: GRPOSettings) -> dict[str, Any]:
    """The settings that a cell's numbers depend on: all of them, or without training those of the question."""
    kept = jsonable(settings)
    if cell.method == "class-mean":
        return {}
    if cell.trains:
        return {name: value for name, value in kept.items() if name == "steps" or name not in RESUMABLE_CHANGES}
    return {name: kept[name] for name in ("style", "open_vocabulary", "max_new_tokens")}


def check_same(result: Result, wanted: Mapping[str, Any], tested: Sequence[str], path: Path) -> None:
    """ValueError that lists the settings of a finished cell that differ from those wanted now."""
    used = {"policy": result.evaluation.policy} | result.setup | result.settings
    used |= {"test images": result.images} if result.images else {}
    # a setting that the cell does not name was added later, and has its default there
    changed = {name: value for name, value in wanted.items() if used.get(name, value) != value}
    differences = [f"{name} {used[name]}, not {value}" for name, value in changed.items()]
    if missing := [name for name in tested if name not in result.tests]:
        differences.append(f"tests on {', '.join(result.tests)}, not on {', '.join(missing)}")
    if differences:
        raise ValueError(f"{path} was run with {'; '.join(differences)}: name another folder, or delete the cell")
