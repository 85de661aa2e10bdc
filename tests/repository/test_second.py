"""The second study: which cells it has, with which settings, and that its tables say what the cells say."""

from __future__ import annotations

import json
import random

import pytest

from favor_lab.activities.world import SETS
from favor_lab.runs.cells import Cell, Result
from favor_lab.runs.tasks import TASKS
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.versions import versions
from test_readme import RESULTS, script

LABELS = ["reading", "phoning"]


@pytest.fixture(scope="module")
def second():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RESULTS))
        yield script("second")


@pytest.fixture
def folder(second, tmp_path, monkeypatch):
    for name, path in {"HERE": "", "FOLDER": "second", "FIGURES": "figures", "CURVES": "second_curves.jsonl"}.items():
        monkeypatch.setattr(second, name, tmp_path / path)
    (tmp_path / "second").mkdir()
    (tmp_path / "figures").mkdir()
    return tmp_path


def evaluation(name, share, seed=0, images=40):
    """Greedy answers of which a share is right, and eight samples of each, of which half of that share is."""
    dice, answers = random.Random(f"{name} {share} {seed}"), []
    for place in range(images):
        right = place < round(share * images)
        sampled = tuple("reading" if dice.random() < share / 2 else "phoning" for _ in range(8))
        text = f"<think>a book.</think><answer>{LABELS[not right]}</answer>"
        source = f"{name}/test/{place}"
        answers.append(Answered(source, "reading", LABELS[not right], right, True, 2, 1, text, sampled))
    return Evaluation("pocket", "think", LABELS, answers, 1.0)


def finish(folder, cell, share, **more):
    tests = {cell.dataset: evaluation(cell.dataset, share, cell.seed)}
    tests |= {f"{cell.dataset}{ending}": evaluation(cell.dataset, other) for ending, other in more.items()}
    records = [{"step": 1, "tokens": 100}, {"step": 2, "tokens": 200}] if cell.trains else []
    Result(cell, tests, records, {"steps": 2}, 2.0, versions()).save(folder / "second")


def lines(page):
    return [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in page.splitlines()]


def test_every_method_of_the_search_is_in_the_study_with_equal_seeds(second):
    cells = second.cells()
    assert len(set(cells)) == len(cells)
    for method, variant in second.SPACES:
        for name in SETS:
            mine = [
                c for c in cells if (c.method, c.variant, c.dataset, c.shots, c.task) == (method, variant, name, 4, "")
            ]
            assert [cell.seed for cell in mine] == [0, 1, 2, 3, 4]
    assert {cell.task for cell in cells} == {"", *TASKS}
    assert {cell.shots for cell in cells if cell.method == "sft" and not cell.task} == {1, 2, 4, 8, 16}


def test_the_settings_are_those_of_the_search_and_the_steps_grow_with_the_shots(second):
    choice = {"learning_rate": 0.002, "temperature": 0.8, "group_size": 4, "beta": 0.0, "scale": "none"}
    trials = [{"method": "grpo", "variant": "", "choice": choice, "right": 0.9, "sampled_right": 0.8, "true": 0.9}]
    few, many = (second.settings_of(("grpo", ""), trials, shots) for shots in (1, 16))
    assert (few.learning_rate, few.group_size, few.prompts_per_step) == (0.002, 4, 8)
    assert (few.steps, many.steps) == (50, 200)
    assert list(second.STEPS.values()) == sorted(second.STEPS.values())


def test_the_tables_hold_the_numbers_of_the_cells(second, folder):
    for name in SETS:
        finish(folder, Cell("zero-shot", name), 0.4)
        for seed in (0, 1):
            finish(folder, Cell("sft", name, 4, seed), 0.8)
            finish(folder, Cell("grpo", name, 4, seed), 0.85)
            finish(folder, Cell("grpo", name, 4, seed, "amft"), 0.9)
            finish(folder, Cell("sft", name, 4, seed, task="base-to-new"), 0.8, **{", new labels": 0.2})
            finish(folder, Cell("grpo", name, 4, seed, task="base-to-new"), 0.8, **{", new labels": 0.4})
    finish(folder, Cell("grpo", SETS[0], 4, 2), 0.0)  # a seed that lacks the other sets does not count
    second.write_pages()
    head, _, *rows = lines((folder / "second_minute.md").read_text())
    assert [row[0] for row in rows] == ["amft", "grpo", "sft", "zero-shot"], "best first"
    grpo = dict(zip(head, rows[1], strict=True))
    assert grpo["seeds"] == "2" and grpo["right, greedy"].startswith("85.0 (") and grpo["tokens a step"] == "150"
    assert grpo["over SFT, greedy"].startswith("+5.0 (") and grpo["true statements"].startswith("50.0 (")
    assert dict(zip(head, rows[2], strict=True))["over SFT, greedy"] == ""
    _, _, *rows = lines((folder / "second_tasks.md").read_text())
    assert [row[:3] for row in rows] == [
        ["base-to-new", half, method] for half in ("base half", "new half") for method in ("grpo", "sft")
    ]
    assert rows[2][4].startswith("40.0 (") and rows[2][7].startswith("+20.0 (")
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "second_shots.png", "second_over_sft.png", "second_transfer.png",
    }  # fmt: skip
    _, _, *rows = lines((folder / "second_calibration.md").read_text())
    assert [row[0] for row in rows] == ["amft", "grpo", "sft", "zero-shot"]


def test_a_goal_that_was_never_reached_is_counted_as_such(second, folder):
    def points(*shares):
        return [
            {"step": 10 * n, "tokens": 100 * n, "seconds": 2.0 * n, "right": share} for n, share in enumerate(shares)
        ]

    curves = [
        {"method": "sft", "variant": "", "dataset": "cartoon", "seed": 0, "points": points(0.4, 0.8, 0.9)},
        {"method": "grpo", "variant": "", "dataset": "cartoon", "seed": 0, "points": points(0.4, 0.5, 0.75)},
        {"method": "grpo", "variant": "", "dataset": "cartoon", "seed": 1, "points": points(0.4, 0.5, 0.6)},
    ]
    (folder / "second_curves.jsonl").write_text("".join(json.dumps(one) + "\n" for one in curves))
    _, _, sft, grpo = lines(second.cost_table(second.read(folder / "second_curves.jsonl")))
    assert sft == ["sft", "1 of 1", "10", "100", "1.0", "90.0 %"]
    assert grpo == ["grpo", "1 of 2", "20", "200", "2.0", "67.5 %"]
    assert lines(second.cost_table([]))[2:] == []
