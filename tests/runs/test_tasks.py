"""What a cell of the study learns from and is tested on, where that is not simply all labels of a set."""

from collections import Counter

import pytest

from favor_lab.activities import few_shot, load_activities
from favor_lab.activities.world import ACTIVITIES
from favor_lab.runs.cells import Cell, Setup, load_results, plan, whole_study
from favor_lab.runs.experiments import images_of
from favor_lab.runs.tasks import MEANINGLESS, TASKS


def images(task, shots=4, seed=0, dataset="cartoon"):
    return images_of(Cell("sft", dataset, shots, seed, task=task), Setup(test=2))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_on_images_that_it_does_not_test(task):
    shots, tests = images(task, shots=2)
    trained = {example.source for example in shots.train}
    assert trained and all(not trained & {e.source for e in part} for part, _ in tests.values())
    assert next(iter(tests)) == "cartoon", "its own labels come first"
    for part, labels in tests.values():
        assert {example.label for example in part} == set(labels) and len(part) == 2 * len(labels)
    again, _ = images(task, shots=2)
    assert [(e.source, e.label) for e in again.train] == [(e.source, e.label) for e in shots.train]


def test_the_halves_differ():
    halves = [frozenset(images(task)[0].labels) for task in ("base-to-new", "base-to-new-2", "base-to-new-3")]
    assert len(set(halves)) == 3 and all(len(half) == 8 for half in halves)


def test_new_activities_are_named_nowhere_else():
    shots, tests = images("new-activities")
    assert len(shots.labels) == 4 and not set(shots.labels) & set(ACTIVITIES) and list(tests) == ["cartoon"]


def test_renamed_labels_are_the_same_images():
    shots, tests = images("renamed")
    plain = few_shot(load_activities("cartoon"), 4, 0, validation=0, test=2)
    assert [e.source for e in shots.train] == [e.source for e in plain.train]
    names = dict(zip(plain.labels, MEANINGLESS, strict=True))
    assert [e.label for e in shots.train] == [names[e.label] for e in plain.train]
    assert tests["cartoon"][1] == list(MEANINGLESS) and len(set(MEANINGLESS)) == 16


def test_one_label_in_four_is_wrong_and_no_test_image():
    shots, tests = images("noisy-labels", seed=3)
    plain = few_shot(load_activities("cartoon"), 4, 3, validation=0, test=2)
    changed = [a.label != b.label for a, b in zip(shots.train, plain.train, strict=True)]
    assert sum(changed) == 16 == len(changed) / 4
    assert [e.label for e in tests["cartoon"][0]] == [e.label for e in plain.test]
    assert [e.label for e in images("noisy-labels", seed=4)[0].train] != [e.label for e in shots.train]


def test_imbalanced_shots_are_as_many_in_all():
    shots, _ = images("imbalanced")
    counts = Counter(example.label for example in shots.train)
    assert sorted(counts.values()) == [1] * 8 + [7] * 8 and len(shots.train) == 64
    other = Counter(example.label for example in images("imbalanced", seed=1)[0].train)
    assert {label for label in counts if counts[label] == 1} != {label for label in other if other[label] == 1}


def test_a_cell_is_named_by_variant_and_task():
    cell = Cell("grpo", "sketch", 4, 1, "visurf+papo", "renamed")
    assert cell.name == "grpo-sketch-4-1+visurf+papo+renamed" and Cell.from_name(cell.name) == cell
    old = Cell("sft", "cartoon", 4, 0, "base-to-new")
    assert (old.variant, old.task) == ("", "base-to-new"), "as cells were written before"
    with pytest.raises(ValueError, match="unknown task 'all'; the tasks are base-to-new"):
        Cell("sft", "cartoon", 4, 0, task="all")


def test_plans_and_results_take_tasks(tmp_path):
    cells = plan(["zero-shot", "sft", "grpo"], ["cartoon"], {4: 1}, task="renamed")
    assert [cell.task for cell in cells] == ["renamed"] * 3
    recipes = plan(["sft", "grpo"], ["cartoon"], {4: 1}, "visurf", "renamed")
    assert [cell.name for cell in recipes] == ["grpo-cartoon-4-0+visurf+renamed"]
    assert {cell.task for cell in whole_study("full")} == {"", "base-to-new"}
    assert load_results(tmp_path, task="renamed") == []
