import dataclasses
import functools
import gzip
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

import trees
from favor_lab.activities.fewshot import FewShot
from favor_lab.files import jsonable
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.runs import cells as study_cells
from favor_lab.runs import experiments, tables
from favor_lab.runs.cells import LEARNING_RATES, METHODS, Cell, Result, Setup, load_results, plan
from favor_lab.runs.experiments import learn, run_cell, run_study, self_written, test_images
from favor_lab.study import groups
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.groups import sample_and_score
from favor_lab.versions import versions
from pictures import picture

SETTINGS = GRPOSettings(steps=1, prompts_per_step=2, group_size=2, max_new_tokens=24)


@pytest.mark.slow
@pytest.mark.parametrize("method", study_cells.FIRST_STUDY)
def test_a_cell_answers_the_same_images_whatever_the_method(method):
    cell = Cell(method, "sketch", shots=0 if method.startswith("zero") else 1, seed=3 * (not method.startswith("zero")))
    result = run_cell(cell, SETTINGS, Setup(("cartoon", "sketch"), test=1))
    assert list(result.tests) == ["sketch", "cartoon"]
    for name, evaluation in result.tests.items():
        assert [a.source for a in evaluation.answers] == [e.source for e in test_images(name, 1)]
        assert evaluation.style == METHODS[method]
    assert len(result.records) == cell.trains
    assert result.evaluation is result.tests["sketch"]
    other = {"think": "answer", "answer": "think"}[cell.style]
    assert set(result.probes) == {"describe", other, "evidence"}
    assert all(len(result.probes[style]) == 16 for style in ("describe", other))
    assert result.probes["describe"] != result.probes[other]
    effects = result.probes["evidence"]
    assert len(effects["answer"]) == 16 and any(effect for effect in effects["answer"])
    assert any(effects["reasoning"]) == (cell.style == "think")
    if cell.trains:
        assert result.settings["seed"] == 3 and result.settings["style"] == METHODS[method]


@pytest.mark.parametrize("method", ["zero-shot-answer", "sft"])
def test_base_to_new_asks_each_half_of_the_labels_on_its_own(method):
    cell = Cell(method, "thermal", 0 if method.startswith("zero") else 1, 0, task="base-to-new")
    result = run_cell(cell, SETTINGS, Setup(("thermal",), test=1))
    base, new = result.tests["thermal"], result.tests["thermal, new labels"]
    assert len(base.labels) == len(new.labels) == 8 and not set(base.labels) & set(new.labels)
    assert {answer.label for answer in base.answers} == set(base.labels)
    assert {answer.label for answer in new.answers} == set(new.labels)
    assert result.evaluation is base and not result.probes
    assert cell.name.endswith("+base-to-new") and Cell.from_name(cell.name) == cell


def test_variants_are_kept_apart(tmp_path):
    for cell in [Cell("sft", "cartoon", 1, 0), Cell("sft", "cartoon", 1, 0, task="base-to-new")]:
        result_of(cell).save(tmp_path)
    assert [result.cell.task for result in load_results(tmp_path)] == [""]
    assert [result.cell.task for result in load_results(tmp_path, task="base-to-new")] == ["base-to-new"]
    result_of(Cell("grpo", "cartoon", 1, 0, "no-kl")).save(tmp_path)
    page = tables.write_tables(tmp_path)
    assert page.index("| sft | cartoon | 1 |") < page.index("**base-to-new**") < page.index("**no-kl**: no KL penalty")
    assert page.count("| grpo | cartoon | 1 | 1 |") == 1 and page.count("| sft | cartoon | 1 | 1 |") == 2
    assert (tmp_path / "cells.csv").read_text().count("no-kl") == 1
    with pytest.raises(ValueError, match="unknown variant 'new-to-base'"):
        Cell("sft", "cartoon", 1, 0, "new-to-base")


def test_self_written_reasoning_is_sampled_in_parts(tiny_policy, tiny_examples):
    """Memory: sixteen tries of every image at once do not fit for a large model; `micro_batch` images at a time do."""
    shots, calls = FewShot(tiny_examples, [], [], [e.label for e in tiny_examples]), []
    settings = dataclasses.replace(SETTINGS, micro_batch=3, max_new_tokens=4)
    original = groups.encode_prompts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "encode_prompts", lambda p, b, *a, **k: calls.append(len(b)) or original(p, b, *a, **k))
        with pytest.raises(ValueError, match=f"none of {2 * len(tiny_examples)} samples"):
            self_written(tiny_policy, shots, settings, tries=2)
    assert calls == [3] * (len(tiny_examples) // 3) + [len(tiny_examples) % 3] * (len(tiny_examples) % 3 > 0)


def result_of(cell, right=True):
    answer = Answered("cartoon/test/0", "reading", "reading", right, True, 2, 1, "<answer>lesé & ü</answer>")
    evaluation = Evaluation("pocket", cell.style, ["reading"], [answer], 1.0)
    return Result(cell, {cell.dataset: evaluation}, [{"step": 1}], {"steps": 1}, 2.0, versions())


def test_a_result_survives_the_disk(tmp_path):
    result = result_of(Cell("grpo", "cartoon", 4, 1))
    path = result.save(tmp_path)
    assert Result.load(path) == result
    first = path.read_bytes()
    assert result.save(tmp_path).read_bytes() == first, "the same result is the same file"
    assert [file.name for file in tmp_path.iterdir()] == ["grpo-cartoon-4-1.json.gz"]


def packed(**changes):
    """A cell's bytes with other values in the place of some."""

    def damage(content):
        return gzip.compress(json.dumps(json.loads(gzip.decompress(content)) | changes).encode())

    return damage


ANSWERLESS = {"cctv": {"policy": "pocket", "style": "think", "labels": ["a"], "answers": [], "seconds": 1.0}}


@pytest.mark.parametrize("damage", [
    lambda b: b[:40], lambda b: b"not gzip", lambda b: b"", lambda b: b[:30] + bytes([b[30] ^ 255]) + b[31:],
    lambda b: gzip.compress(b"[1]"), lambda b: gzip.compress(b"null"), packed(tests={}), packed(tests=[1]),
    packed(tests=ANSWERLESS), packed(tests={"cctv": {**ANSWERLESS["cctv"], "answers": [{"text": 1}]}}),
    packed(cell=3), packed(cell={"method": "sft", "dataset": "cctv", "shots": 2, "seed": 1}),
    packed(settings=[]), packed(records={}), packed(setup="x"), packed(seconds="long"), packed(more=1),
])  # fmt: skip
def test_a_damaged_cell_is_named_before_anything_is_run(tmp_path, damage):
    path = result_of(Cell("sft", "cctv", 2, 0)).save(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="sft-cctv-2-0.json.gz is not a finished cell.*: delete it to run it again"):
        load_results(tmp_path)
    with pytest.raises(ValueError, match="sft-cctv-2-0.json.gz is not a finished cell"):
        list(run_study(plan(["zero-shot"], ["cartoon"]), tmp_path, {}, run=None))


def test_what_lies_beside_the_cells_is_none_of_them(tmp_path):
    cell = Cell("grpo", "cartoon", 4, 1)
    content = result_of(cell).save(tmp_path).read_bytes()
    for name in ("._" + cell.name, cell.name + " (1)", "notes", "grpo-cartoon-04-1", "grpo-cartoon-4-x", "ppo-a-4-1",
                 "grpo-cartoon-4-1+mine", "a-b-c-d-e"):  # fmt: skip
        (tmp_path / f"{name}.json.gz").write_bytes(content if "(1)" in name else b"not a cell")
    (tmp_path / "grpo-cartoon-4-2.json.gz.77.tmp").write_bytes(content[:50])  # a save that was killed
    assert [result.cell for result in load_results(tmp_path)] == [cell]
    assert tables.write_tables(tmp_path).count("| grpo | cartoon |") == 1
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        load_results(tmp_path / "nowhere")


def test_tables_are_whole_or_the_older_ones(tmp_path, monkeypatch):
    result_of(Cell("sft", "cartoon", 1, 0)).save(tmp_path)
    page, rows = tables.write_tables(tmp_path), (tmp_path / "cells.csv").read_bytes()
    result_of(Cell("sft", "cartoon", 1, 1)).save(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tables.write_tables(tmp_path)
    assert (tmp_path / "table.md").read_text() == page and (tmp_path / "cells.csv").read_bytes() == rows


def test_results_that_are_not_there_are_no_empty_table(tmp_path, monkeypatch):
    """An editor starts a notebook in another folder than Jupyter does: a relative path then leads nowhere."""
    monkeypatch.chdir(tmp_path)
    for read in (load_results, tables.write_tables):
        with pytest.raises(FileNotFoundError, match=f"no folder data/results/study .*{tmp_path.name}"):
            read("data/results/study")
    (tmp_path / "study").touch()
    with pytest.raises(FileNotFoundError, match="no folder study"):
        load_results("study", method="grpo")
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_results_are_found_by_what_they_are_of(tmp_path):
    cells = plan(["zero-shot-answer", "sft-reasoning"], ["cartoon", "thermal"], {1: 1, 4: 2})
    for cell in cells:
        result_of(cell).save(tmp_path)
    assert len(load_results(tmp_path)) == len(cells) == 2 + 2 * 3
    results = load_results(tmp_path, method="sft-reasoning", shots=4)
    assert [result.cell.name for result in results] == [
        f"sft-reasoning-{name}-4-{seed}" for name in ("cartoon", "thermal") for seed in (0, 1)
    ]


def test_a_study_goes_on_where_it_was_killed(tmp_path):
    """Finished cells are not run again, and one that was being run leaves nothing."""
    cells, ran = plan(["grpo"], ["cartoon", "sketch", "cctv"], {4: 1}), []

    def run(cell, settings, setup):
        ran.append((cell.dataset, settings.learning_rate))
        if cell.dataset == "sketch" and len(ran) == 2:
            raise KeyboardInterrupt
        return dataclasses.replace(result_of(cell), settings=jsonable(settings))

    settings = {"grpo": GRPOSettings(learning_rate=0.5)}
    with pytest.raises(KeyboardInterrupt):
        list(run_study(cells, tmp_path, settings, Setup(()), run=run))
    assert [path.name for path in tmp_path.iterdir()] == ["grpo-cartoon-4-0.json.gz"]
    again = list(run_study(cells, tmp_path, settings, Setup(()), run=run))
    assert [result and result.cell.dataset for result in again] == [None, "sketch", "cctv"]
    assert ran == [("cartoon", 0.5), ("sketch", 0.5), ("sketch", 0.5), ("cctv", 0.5)]


def test_cells_of_other_settings_are_not_taken_for_these(tmp_path):
    def run(cell, settings, setup):
        return dataclasses.replace(result_of(cell), settings=jsonable(settings), setup=setup.facts())

    cells, setup = plan(["grpo"], ["cartoon"], {4: 1}), Setup(("cartoon",))
    list(run_study(cells, tmp_path, {"grpo": GRPOSettings()}, setup, run=run))
    with pytest.raises(ValueError, match="grpo-cartoon-4-0.json.gz was run with steps 100, not 7; beta 0.04, not 0.1"):
        list(run_study(cells, tmp_path, {"grpo": GRPOSettings(steps=7, beta=0.1)}, setup, run=run))
    assert list(run_study(cells, tmp_path, {"grpo": GRPOSettings(micro_batch=3)}, setup, run=run)) == [None]
    others = {
        "test 20, not 5": Setup(("cartoon",), test=5),
        "policy pocket, not Qwen/Qwen2-VL-2B-Instruct": Setup(
            ("cartoon",), policy={"name": "Qwen/Qwen2-VL-2B-Instruct"}
        ),
        "person_crop None, not 0.1": Setup(("cartoon",), images={"person_crop": 0.1}),
        "tests on cartoon, not on sketch": Setup(("cartoon", "sketch")),
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match=words):
            list(run_study(cells, tmp_path, {}, other, run=run))
    here = Setup(("cartoon",), policy={"name": "pocket", "device": "cuda"}, images={"root": "/elsewhere"})
    assert list(run_study(cells, tmp_path, {}, here, run=run)) == [None], "places and devices may differ"


def test_cells_of_another_study_in_the_folder_are_said_before_anything_is_run(tmp_path):
    """Also those that are not asked for now: `write_tables` puts all of the folder into one table."""

    here = Setup(("cartoon",))

    def run(cell, settings, setup):
        return dataclasses.replace(result_of(cell), settings=jsonable(settings), setup=setup.facts())

    def study(methods, shots, setup=here, settings=None, run=run):
        cells = plan(methods, ["cartoon"], {shots: 1})
        return list(run_study(cells, tmp_path, settings or {}, setup, run=run))

    assert len(study(["sft"], 1, here)) == 1
    for words, setup in (
        ("test 20, not 5", Setup(("cartoon",), test=5)),
        ("policy pocket, not other", Setup(("cartoon",), policy={"name": "other"})),
    ):
        with pytest.raises(ValueError, match=f"sft-cartoon-1-0.json.gz was run with {words}"):
            study(["grpo"], 1, setup, run=None)
    with pytest.raises(ValueError, match="sft-cartoon-1-0.json.gz was run with steps 100, not 7"):
        study(["sft"], 2, here, {"sft": GRPOSettings(steps=7)}, run=None)
    assert len(study(["grpo"], 1, here, {"grpo": GRPOSettings(steps=7)})) == 1, "another method has its own budget"


def test_test_images_are_known_by_their_content(tmp_path):
    """`folder` is every folder: cells of one are no cells of another, and images that moved are the same ones."""

    def run(cell, settings, setup):
        return dataclasses.replace(result_of(cell), setup=setup.facts(), images=setup.test_images(cell.dataset))

    def study(root):
        setup = Setup(("folder",), test=1, images={"root": root})
        return list(run_study([Cell("zero-shot", "folder")], tmp_path / "cells", {}, setup, run=run))

    for name, first in (("mine", 0), ("other", 50)):
        for number in range(2):
            picture(tmp_path / name / "reading" / f"{number}.png", first + number, "RGB", (20, 20))
    assert len(study(tmp_path / "mine")) == 1
    with pytest.raises(
        ValueError, match="zero-shot-folder-0-0.json.gz was run with test images .*: name another folder"
    ):
        study(tmp_path / "other")
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert study(tmp_path / "moved") == [None]


def test_weights_are_known_by_their_content(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "base").mkdir(parents=True)
        (tmp_path / place / "base" / "model.safetensors").write_text(place)
    one, other = (Setup(policy={"name": str(tmp_path / place / "base")}).facts() for place in ("a", "b"))
    assert one["policy"] == other["policy"] == "base" and one != other
    (tmp_path / "b" / "base" / "model.safetensors").write_text("a")
    assert Setup(policy={"name": tmp_path / "b" / "base"}).facts() == one


def test_what_a_study_needs_is_there_before_it_begins(tmp_path):
    for number in range(3):
        picture(tmp_path / "reading" / f"{number}.png", number, "RGB", (20, 20))
    setup = Setup(("folder",), test=1, images={"root": tmp_path})
    setup.check(plan(["zero-shot", "sft"], ["folder"], {1: 1, 2: 1}))
    with pytest.raises(ValueError, match="'reading' has 3 in train, needs 5 \\(1 test \\+ 4 train\\)"):
        setup.check(plan(["sft"], ["folder"], {1: 1, 4: 1}))
    with pytest.raises(ValueError, match="test is 0, but must be at least 1"):
        Setup(test=0)


@pytest.mark.parametrize(("words", "arguments"), [
    ("no methods", ([],)), ("no sets", (["sft"], [])), ("no numbers of shots", (["sft"], ["cartoon"], {})),
    ("seeds is 0", (["sft"], ["cartoon"], {4: 0})), ("seeds is -1", (["zero-shot"], ["cartoon"], {4: 2, 1: -1})),
    ("with 0 shots", (["sft"], ["cartoon"], {0: 1})),
    ("no-kl is a variant of grpo", (["sft"], ["cartoon"], None, "no-kl")),
])  # fmt: skip
def test_a_study_of_nothing_is_refused(words, arguments):
    with pytest.raises(ValueError, match=words):
        plan(*arguments)


def test_the_committed_cells_are_those_of_the_settings(monkeypatch):
    """So that the committed study can go on: nothing is run again."""
    folder = Path(__file__).parents[2] / "data" / "results" / "study"
    cells = plan(study_cells.FIRST_STUDY, experiments.SETS, {4: 3})
    assert set(run_study(cells, folder, study_cells.chosen_settings())) == {None}


RECIPE_SETTINGS = dict(steps=1, prompts_per_step=2, group_size=2, max_new_tokens=8, micro_batch=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*labels have no image")
@pytest.mark.parametrize("preset", study_cells.PRESETS)
def test_presets_run_on_public_sets_in_their_layout(tmp_path, tiny_checkpoint, preset):
    trees.stanford40(tmp_path / "stanford40", train=3)
    trees.har15_kaggle(tmp_path / "har15")
    chosen = study_cells.PRESETS[preset]
    setup = Setup(("stanford40", "har15"), 1, {"name": str(tiny_checkpoint), **chosen.policy}, {"root": tmp_path})
    cells = plan(["zero-shot", "sft", "grpo"], setup.sets, {1: 1, 2: 1})
    settings = chosen.by_method(**RECIPE_SETTINGS)
    results = list(run_study(cells, tmp_path / "cells", settings, setup))
    assert len(results) == 10 and all(list(result.tests) == [result.cell.dataset] for result in results)
    assert {result.cell.dataset: result.evaluation.labels for result in results} == {
        "stanford40": ["reading", "riding a bike", "throwing frisbee"],
        "har15": ["calling", "listening to music", "using laptop"],
    }
    trained = [result for result in results if result.cell.method == "grpo"]
    assert trained[0].settings["learning_rate"] == chosen.rates["grpo"]
    assert trained[0].setup == setup.facts() and str(tmp_path) not in json.dumps(trained[0].setup)
    page = tables.write_tables(tmp_path / "cells")
    assert (tmp_path / "cells" / "table.md").read_text() == page
    assert "| stanford40 | 0 shots | 1 shot | 2 shots |" in page
    assert len((tmp_path / "cells" / "cells.csv").read_text().splitlines()) == 11
    assert list(run_study(cells, tmp_path / "cells", settings, setup)) == [None] * 10


def test_the_published_preset_is_the_published_one():
    preset = study_cells.PRESETS["visual-rft"]
    grpo = preset.by_method()["grpo"]
    assert (grpo.steps, grpo.prompts_per_step, grpo.group_size, grpo.max_new_tokens) == (200, 16, 8, 256)
    assert (grpo.learning_rate, grpo.beta, grpo.temperature, grpo.schedule) == (1e-6, 0.04, 1.0, "linear")
    assert preset.policy["lora_rank"] == 0 and preset.policy["dtype"] == "float32", "1e-6 is lost in bfloat16 weights"
    assert preset.by_method()["zero-shot"].max_new_tokens == 256


def test_cells_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="unknown method 'dpo'"):
        Cell("dpo", "cartoon", 4)
    for method, shots in (("grpo", 0), ("zero-shot", 4)):
        with pytest.raises(ValueError, match="needs shots"):
            Cell(method, "cartoon", shots)


def test_self_written_reasoning_is_the_first_that_was_well_formed_and_right(tiny_policy, tiny_examples, monkeypatch):
    texts = [
        "<answer>riding a bike</answer>", "<think>two wheels.</think><answer>riding a bike</answer>",
        "<think>later.</think><answer>riding a bike</answer>",
        "<think>a page.</think><answer>fishing</answer>", "<think>a page.</think><answer>reading</answer>", "",
        "", "", "", "<think>a rod.</think><answer>fishing</answer>.", "", "",
    ]  # fmt: skip

    class Sampled(list):
        groups = np.arange(4).repeat(3)

        @property
        def texts(self):
            return self

    sample = functools.partial(sample_and_score, sample=lambda *_, **__: Sampled(texts))
    monkeypatch.setattr("favor_lab.study.groups.sample_and_score", sample)
    shots = FewShot(tiny_examples, [], [], [e.label for e in tiny_examples])
    assert self_written(tiny_policy, shots, SETTINGS, tries=3) == {"tiny/0": "two wheels.", "tiny/1": "a page."}
    targets = []
    monkeypatch.setattr(
        "favor_lab.study.sft.sft",
        lambda policy, shots, settings, reasoning, **_: targets.extend((e.source, reasoning(e)) for e in shots.train),
    )
    learn("sft-reasoning", tiny_policy, shots, SETTINGS)
    assert targets == [("tiny/0", "two wheels."), ("tiny/1", "a page.")]
    texts[:] = [""] * 12
    with pytest.raises(ValueError, match="none of 12 samples was right"):
        self_written(tiny_policy, shots, SETTINGS, tries=3)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("sft-then-grpo", {}, [("sft-reasoning", 5, 0.001), ("grpo", 5, 0.001)]),
        ("sft-then-grpo", {"first_share": 0.2, "answers_alone": True}, [("sft", 2, 0.001), ("grpo", 8, 0.001)]),
        ("grpo-then-sft", {"first_share": 0.7, "sft_rate": 0.5}, [("grpo", 7, 0.001), ("sft-reasoning", 3, 0.5)]),
    ],
)
def test_two_stages_share_the_steps(tiny_policy, tiny_examples, monkeypatch, method, options, expected):
    stages = []

    def one(stage, policy, shots, settings):
        if stage == method:
            return learn(stage, policy, shots, settings)
        assert not settings.coefficients
        stages.append((stage, settings.steps, settings.learning_rate))
        return (StepRecord(step, 0.0) for step in range(1, settings.steps + 1))

    monkeypatch.setattr(experiments, "learn", one)
    shots = FewShot(tiny_examples, [], [], [e.label for e in tiny_examples])
    settings = dataclasses.replace(SETTINGS, steps=10, coefficients=options)
    records = list(experiments.two_stages(method, tiny_policy, shots, settings))
    assert stages == expected and [record.step for record in records] == list(range(1, 11))


@pytest.mark.parametrize("share", [0, 0.01, 1.0])
def test_each_of_two_stages_has_a_step(tiny_policy, tiny_examples, share):
    shots = FewShot(tiny_examples, [], [], [e.label for e in tiny_examples])
    settings = dataclasses.replace(SETTINGS, steps=10, coefficients={"first_share": share})
    with pytest.raises(ValueError, match=f"first_share is {share}: of 10 steps the first stage has"):
        list(learn("sft-then-grpo", tiny_policy, shots, settings))


@pytest.mark.slow
@pytest.mark.parametrize("method", study_cells.STAGES)
def test_two_stages_train_and_answer_in_the_style_with_reasoning(method):
    settings = dataclasses.replace(SETTINGS, steps=4, max_new_tokens=64)
    result = run_cell(Cell(method, "cartoon", 1, 0, task="base-to-new"), settings, Setup(("cartoon",), test=1))
    assert [record["step"] for record in result.records] == [1, 2, 3, 4]
    assert result.evaluation.style == "think" and result.settings["coefficients"] == {}


@pytest.mark.slow
def test_a_seed_gives_the_same_answers_again():
    cell = Cell("grpo-answer", "cartoon", 1, 5, task="base-to-new")  # a task has no probes
    settings = dataclasses.replace(SETTINGS, steps=2)
    first, second = (run_cell(cell, settings, Setup(("cartoon",), test=2)) for _ in range(2))
    assert first.evaluation.answers == second.evaluation.answers
    assert first.records == second.records


@pytest.mark.slow
def test_a_recipe_is_not_probed_and_is_tested_on_its_own_set_alone():
    result = run_cell(Cell("grpo", "cartoon", 1, 0, "papo"), SETTINGS, Setup(("cartoon", "sketch"), test=1))
    assert list(result.tests) == ["cartoon"] and not result.probes


@pytest.mark.slow
def test_progress_is_told_each_step():
    calls = []
    settings = dataclasses.replace(SETTINGS, steps=3)
    run_cell(Cell("sft", "cartoon", 1, 0), settings, Setup(("cartoon",), 1), lambda cell, doing: calls.append(doing))
    assert calls == ["step 1 of 3", "step 2 of 3", "step 3 of 3", "test images of cartoon", "probes"]
    assert set(experiments.SERIES) <= {field.name for field in dataclasses.fields(experiments.StepRecord)}


def test_the_table_averages_seeds_and_keeps_the_other_sets_apart():
    cells = [Cell("zero-shot", "cartoon"), Cell("sft", "cartoon", 4, 0), Cell("sft", "cartoon", 4, 1)]
    results = [result_of(cell, right) for cell, right in zip(cells, (False, True, False), strict=True)]
    wrong = dataclasses.replace(results[1].evaluation.answers[0], correct=False)
    elsewhere = dataclasses.replace(results[1].evaluation, answers=[wrong])
    results[1].tests["sketch"] = elsewhere
    lines = tables.table(results).splitlines()
    assert lines[2].startswith("| zero-shot | cartoon | 0 | 1 | 0.0 % (0.0 % to 0.0 %) |  | 100.0 % | 50.0 % |")
    assert lines[3].startswith("| sft | cartoon | 4 | 2 | 50.0 % (0.0 % to 100.0 %) | 0.0 % |")
    by_shots = tables.shots_table(results).splitlines()
    assert by_shots[0] == "| cartoon | 0 shots | 4 shots |"
    assert by_shots[2:] == ["| zero-shot | 0.0 (0.0 to 0.0) |  |", "| sft |  | 50.0 (0.0 to 100.0) |"]
    other = dataclasses.replace(results[1], cell=Cell("sft", "sketch", 4, 0), tests={"sketch": elsewhere})
    mean = tables.shots_table([*results, other]).splitlines()[-4:]
    assert mean[0] == "| mean of 2 sets | 0 shots | 4 shots |"
    assert mean[2:] == ["| zero-shot |  |  |", "| sft |  | 50.0 (0.0 to 100.0) |"], "seed 1 has only one of the sets"
    rows = tables.tidy(results)
    assert [(row["method"], row["seed"], row["tested_on"], row["accuracy"]) for row in rows] == [
        ("zero-shot", 0, "cartoon", 0.0), ("sft", 0, "cartoon", 1.0), ("sft", 0, "sketch", 0.0),
        ("sft", 1, "cartoon", 0.0),
    ]  # fmt: skip


def test_the_learning_rates_are_those_that_the_trials_chose(monkeypatch):
    """The trials on validation images are kept; what the study runs with must follow from them."""
    folder = Path(__file__).parents[2] / "data" / "results"
    monkeypatch.syspath_prepend(folder)
    trials = json.loads((folder / "tune_methods.json").read_text())
    budgets = [sorted((t["learning_rate"], t["seed"]) for t in trials if t["method"] == m) for m in LEARNING_RATES]
    assert budgets[0] and all(budget == budgets[0] for budget in budgets), "every method gets the same trials"
    assert importlib.import_module("tune_methods").chosen(trials) == LEARNING_RATES
    assert set(LEARNING_RATES) == {name for name in study_cells.FIRST_STUDY if not name.startswith("zero-shot")}
    assert study_cells.chosen_settings(7)["sft"].steps == 7
