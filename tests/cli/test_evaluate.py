"""`favor-lab evaluate`: asked as the run was asked, and never about an image that the run trained on."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from favor_lab.cli import main
from favor_lab.runs.options import DataOptions, load_shots
from favor_lab.runs.predicting import read_trained
from favor_lab.sharing import export
from favor_lab.show import report
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.leakage import FILE, training_images
from favor_lab.study.run_folder import RunFolder
from favor_lab.vlm import loading
from pictures import leave_unrendered, picture

pytestmark = pytest.mark.slow  # each trains, or asks what was trained

LABELS = ["phoning", "reading", "riding a bike"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_checkpoint) -> Path:
    """Photos without `test/`, ten for each label, and a run on four of them that tested two."""
    place = tmp_path_factory.mktemp("place")
    for row, label in enumerate(LABELS):
        for column in range(10):
            picture(place / "photos" / label / f"{column}.png", 10 * row + column, "RGB", (60, 60))
    train = ["sft", "--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(place / "photos")]
    train += ["--shots", "4", "--test", "2", "--steps", "2", "--learning-rate", "0.03", "--max-new-tokens", "9"]
    with pytest.MonkeyPatch.context() as patch:
        leave_unrendered(patch)
        assert main([*train, "--out", str(place / "run")]) == 0
    return place


@pytest.fixture(autouse=True)
def here(place, tmp_path, monkeypatch, unrendered):
    """A copy of it, to be changed."""
    shutil.copytree(place / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)


def trained_on(place, test=2) -> set[str]:
    shots = load_shots(DataOptions("folder", place / "photos", shots=4, test=test), seed=0)
    return {example.source for example in shots.train}


def asked(out="out") -> Evaluation:
    return Evaluation.load(f"{out}/evaluation.json")


@pytest.mark.parametrize("who", [["--run", "run"], ["--adapter", "run"], ["--adapter", "run/adapter"]])
def test_a_folder_without_test_is_not_tested_on_training_images(who, place, capsys):
    assert main(["evaluate", *who, "--test", "8", "--out", "out"]) == 0
    sources = {answer.source for answer in asked().answers}
    left_out = 24 - len(sources)
    assert left_out > 0 and not sources & trained_on(place)
    assert f"note: {left_out} of 24 images are left out: run/adapter was trained on them" in capsys.readouterr().err
    assert f"{left_out} of 24 images are left out" in Path("out/report.html").read_text()


def test_without_a_run_every_image_is_tested(tiny_checkpoint, place, capsys):
    images = ["--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(place / "photos")]
    assert main(["evaluate", *images, "--max-new-tokens", "2", "--out", "out"]) == 0
    assert len(asked()) == 24 and asked().style == "think" and "left out" not in capsys.readouterr().err


def test_the_run_says_images_labels_style_and_length(capsys):
    assert main(["evaluate", "--run", "run", "--out", "out"]) == 0
    after = Evaluation.load("run/evaluation_after.json")
    assert dataclasses.replace(asked(), seconds=after.seconds) == after, "the same images in the same order"
    saved = json.loads(Path("out/settings.json").read_text())
    assert saved["test"]["max_new_tokens"] == 9 and saved["test"]["labels"] == LABELS
    assert saved["test"]["data"] == "folder" and saved["test"]["test"] == 2
    assert "left out" not in capsys.readouterr().err


def test_options_win_over_the_run(place, capsys):
    typed = ["--style", "think", "--max-new-tokens", "3", "--labels", "reading", "phoning", "swimming", "--test", "1"]
    assert main(["evaluate", "--run", "run", *typed, "--out", "out"]) == 0
    assert asked().labels == ["reading", "phoning", "swimming"] and asked().style == "think" and len(asked()) == 2
    assert json.loads(Path("out/settings.json").read_text())["test"]["max_new_tokens"] == 3
    assert "1 of the 3 labels of" in capsys.readouterr().err
    assert main(["evaluate", "--run", "run", "--data", "sketch", "--test", "1", "--out", "drawn"]) == 0
    assert len(asked("drawn")) == 16 and asked("drawn").style == "answer"
    assert "13 of the 16 labels of sketch are none of the run's" in capsys.readouterr().err
    assert main(["evaluate", "--run", "run", "--labels", "swimming"]) == 2
    assert "has none of the labels 'swimming'" in capsys.readouterr().err
    assert main(["evaluate", "--run", "run", "--adapter", "run"]) == 2
    assert "leave out --adapter" in capsys.readouterr().err


def test_images_of_fewer_labels_are_asked_with_the_runs_labels(place, tmp_path):
    shutil.copytree(place / "photos" / "reading", "more/reading")
    for path in Path("more/reading").iterdir():
        picture(path, 100 + int(path.stem), "RGB", (60, 60))
    assert main(["evaluate", "--run", "run", "--root", "more", "--test", "3", "--out", "out"]) == 0
    assert len(asked()) == 3 and asked().labels == LABELS


def test_training_images_are_known_by_their_pixels_in_another_file_under_another_label(place, capsys):
    for number, source in enumerate(sorted(trained_on(place))):
        path = Path("copies") / LABELS[number % 3] / f"copy {number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(source).save(path)
    assert main(["evaluate", "--run", "run", "--root", "copies"]) == 2
    message = "6 of 6 images are left out: run/adapter was trained on them, so nothing is left to test"
    assert message in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_known_by_its_checkpoint(place, capsys):
    known = training_images("run")
    Path("run", FILE).unlink()
    assert len(training_images("run") or ()) == len(known or ()) == 12
    assert main(["evaluate", "--run", "run", "--test", "8", "--out", "out"]) == 0
    assert not {answer.source for answer in asked().answers} & trained_on(place)
    shutil.rmtree("run/checkpoint")
    assert training_images("run") is None
    assert main(["evaluate", "--adapter", "run/adapter", "--test", "8", "--max-new-tokens", "2"]) == 0
    assert "run/adapter does not say which images it was trained on" in capsys.readouterr().err
    Path("run", FILE).write_text("{}")
    assert main(["evaluate", "--run", "run"]) == 2 and f"{FILE} is damaged" in capsys.readouterr().err


def test_what_was_shared_keeps_style_and_labels_and_knows_its_images_by_content_alone(place, tiny_checkpoint, capsys):
    export.share("run", "shared")
    text = Path("shared", FILE).read_text()
    assert training_images("shared") == training_images("run")
    assert not any(Path(source).name in text or label in text for source in trained_on(place) for label in LABELS)
    asking = ["evaluate", "--run", "shared", "--policy", str(tiny_checkpoint), "--test", "8"]
    assert main(asking) == 2 and "needs root" in capsys.readouterr().err
    assert main([*asking, "--root", str(place / "photos"), "--out", "out"]) == 0
    assert asked().style == "answer" and asked().labels == LABELS
    assert not {answer.source for answer in asked().answers} & trained_on(place) and len(asked()) < 24
    assert "images are left out: shared was trained on them" in capsys.readouterr().err
    Path("shared", FILE).unlink()
    assert main([*asking, "--root", str(place / "photos"), "--out", "unknown"]) == 0
    assert "shared does not say which images" in capsys.readouterr().err and len(asked("unknown")) == 24


@pytest.mark.filterwarnings("ignore:the adapter in alone was made for")
@pytest.mark.parametrize("who", ["adapter", "merged", "an adapter on a merged one"])
def test_images_of_what_was_shared_are_left_out_however_it_is_named(place, tiny_checkpoint, capsys, who):
    export.share("run", "shared", merged=who != "adapter")
    options = ["--policy", str(tiny_checkpoint), "--adapter", "shared"] if who == "adapter" else ["--policy", "shared"]
    if who.startswith("an"):
        shutil.copytree("run/adapter", "alone")  # which says nothing
        options += ["--adapter", "alone"]
    images = ["--data", "folder", "--root", str(place / "photos"), "--test", "8", "--max-new-tokens", "2"]
    assert main(["evaluate", *options, *images, "--out", "out"]) == 0
    assert not {answer.source for answer in asked().answers} & trained_on(place) and len(asked()) < 24


def test_an_adapter_that_says_nothing_is_noted_though_the_images_have_a_test_split(place, tiny_checkpoint, capsys):
    """Somebody else's split: what the adapter was trained on may be anywhere."""
    shutil.copytree("run/adapter", "alone")
    shutil.copytree(place / "photos", "split/test")
    for number, label in enumerate(LABELS):
        picture(Path("split/train") / label / "a.png", 200 + number)
    images = ["--data", "folder", "--root", "split", "--test", "1", "--max-new-tokens", "2"]
    assert main(["evaluate", "--policy", str(tiny_checkpoint), "--adapter", "alone", *images]) == 0
    assert "alone does not say which images it was trained on" in capsys.readouterr().err


def test_an_adapter_without_its_run_is_asked_as_the_options_say(place, capsys):
    shutil.copytree("run/adapter", "alone/adapter")
    where = ["--policy", json.loads(Path("run/settings.json").read_text())["policy"]["policy"]]
    where += ["--data", "folder", "--root", str(place / "photos"), "--test", "1", "--max-new-tokens", "2"]
    assert main(["evaluate", "--adapter", "alone/adapter", *where]) == 0
    assert "alone/adapter does not say" in capsys.readouterr().err
    assert main(["evaluate", "--adapter", "nowhere", *where]) == 2
    assert "there is no adapter in nowhere" in capsys.readouterr().err


def test_a_run_that_starts_from_another_leaves_its_images_out_and_measures_the_base(place, tiny_checkpoint, capsys):
    train = [
        "sft",
        "--policy",
        str(tiny_checkpoint),
        "--data",
        "folder",
        "--root",
        str(place / "photos"),
        "--shots",
        "1",
    ]
    train += ["--steps", "1", "--max-new-tokens", "9", "--test", "8", "--adapter", "run"]
    assert main([*train, "--out", "second"]) == 0
    output = capsys.readouterr()
    answers = {when: Evaluation.load(f"second/evaluation_{when}.json").answers for when in ("before", "start", "after")}
    sources = [answer.source for answer in answers["before"]]
    assert not set(sources) & trained_on(place) and f"{24 - len(sources)} of 24 test images are left out" in output.err
    assert training_images("run") < training_images("second")
    for when, options in (("before", []), ("start", ["--adapter", "run"])):
        images = ["--data", "folder", "--root", str(place / "photos"), "--test", "8", "--policy", str(tiny_checkpoint)]
        asking = ["--style", "answer", "--max-new-tokens", "9", "--out", when]
        assert main(["evaluate", *images, *options, *asking]) == 0
        assert answers[when] == [answer for answer in asked(when).answers if answer.source in sources], when
    assert [a.text for a in answers["before"]] != [a.text for a in answers["start"]]
    assert "zero-shot " in output.out and "earlier adapter " in output.out
    for name in ("evaluation_before.json", "manifest.json"):  # a run of an earlier version, which had no manifest
        Path("second", name).unlink()
    Path("run", FILE).unlink()  # the second run has noted what the first trained on
    shutil.rmtree("run/checkpoint")
    assert main(["sft", "--resume", "second", "--steps", "2"]) == 0
    assert Evaluation.load("second/evaluation_before.json").answers == answers["before"], "after training has begun"


def test_a_run_without_adapter_is_known_too_and_resumes_with_the_base(place, tiny_checkpoint, capsys):
    train = ["sft", "--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(place / "photos")]
    train += ["--shots", "4", "--test", "1", "--steps", "1", "--learning-rate", "0.01", "--max-new-tokens", "9"]
    assert main([*train, "--lora-rank", "0", "--out", "whole"]) == 0
    before = Evaluation.load("whole/evaluation_before.json").answers
    assert Evaluation.load("whole/evaluation_after.json").answers != before
    for name in ("evaluation_before.json", "manifest.json"):
        Path("whole", name).unlink()
    assert main(["sft", "--resume", "whole", "--steps", "2"]) == 0
    assert Evaluation.load("whole/evaluation_before.json").answers == before
    assert main(["evaluate", "--run", "whole", "--test", "8", "--out", "out"]) == 0
    assert not {answer.source for answer in asked().answers} & trained_on(place, test=1)
    assert "images are left out: whole/policy was trained on them" in capsys.readouterr().err
    assert main(["evaluate", "--run", "whole", "--policy", str(tiny_checkpoint)]) == 2
    assert "whole holds a checkpoint, not an adapter: leave out --policy" in capsys.readouterr().err


def test_resume_of_an_earlier_version_measures_the_base_though_training_has_begun(place, capsys):
    before = Evaluation.load("run/evaluation_before.json").answers
    Path("run/evaluation_before.json").unlink()
    assert main(["sft", "--resume", "run", "--steps", "3"]) == 2, "a run of this version lost it"
    assert "evaluation_before.json is missing" in capsys.readouterr().err
    Path("run/manifest.json").unlink()
    assert main(["sft", "--resume", "run", "--steps", "3"]) == 0
    assert Evaluation.load("run/evaluation_before.json").answers == before
    assert Evaluation.load("run/evaluation_after.json").answers != before


@pytest.mark.parametrize("text", [
    '{"data"', "", "[]", "null", "[" * 100_000, '{"settings": []}', '{"policy": "pocket"}', '{"data": 3}',
    '{"labels": "reading"}', '{"labels": [1, 2]}', '{"labels": ["a"], "settings": {"style": "aloud"}}',
    '{"labels": ["a"], "settings": {"max_new_tokens": "9"}}', '{"labels": ["a"], "policy": {"lora_rank": "4"}}',
    '{"labels": ["a"], "policy": {"revision": ["main"]}}', '{"labels": ["a"], "data": {"shots": true}}',
    '{"labels": ["a"], "data": {"root": {}}}',
])  # fmt: skip
def test_damaged_settings_are_named_and_nothing_else_is_asked_instead(text, monkeypatch, capsys):
    Path("run/settings.json").write_text(text)
    monkeypatch.setattr(loading, "_checkpoint", lambda *_: pytest.fail("a policy was loaded"))
    for command in (["evaluate", "--run", "run"], ["evaluate", "--adapter", "run/adapter"]):
        assert main([*command, "--out", "out"]) == 2
        message = capsys.readouterr().err
        assert "run/settings.json is damaged" in message and message.count("\n") == 1
    assert not Path("out").exists()


def test_labels_of_an_older_run_come_from_its_answers_and_damage_there_is_named(capsys):
    saved = json.loads(Path("run/settings.json").read_text())
    Path("run/settings.json").write_text(json.dumps({name: part for name, part in saved.items() if name != "labels"}))
    assert read_trained("run").labels == LABELS
    Path("run/evaluation_after.json").write_text("{")
    with pytest.raises(ValueError, match="run/evaluation_after.json is damaged"):
        read_trained("run")
    for path in Path("run").glob("evaluation_*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="does not say which labels were asked: name them with --labels"):
        read_trained("run")
    assert main(["evaluate", "--run", "run", "--test", "1", "--out", "out"]) == 0
    assert asked().labels == LABELS, "those of the images"


def test_an_evaluation_that_was_killed_does_not_pass_for_a_folder_of_one(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(report, "write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["evaluate", "--run", "run", "--out", "out"]) == 130
    assert Path("out/evaluation.json").exists() and not Path("out/settings.json").exists()
    with pytest.raises(FileNotFoundError, match="out is not a run folder"):
        RunFolder.open("out")
    assert main(["evaluate", "--run", "run", "--out", "out"]) == 2
    assert "out is not empty" in capsys.readouterr().err
    assert main(["evaluate", "--run", "run", "--out", "again"]) == 0
    assert RunFolder.open("again").settings["versions"]["torch"]


@pytest.mark.filterwarnings("always:what run holds")
def test_weights_of_an_earlier_step_are_said(capsys):
    """A run that was resumed for more steps and killed before its end still has the adapter of its earlier end."""
    assert main(["evaluate", "--run", "run", "--test", "1"]) == 0 and "was trained for" not in capsys.readouterr().err
    settings = json.loads(Path("run/settings.json").read_text())
    settings["settings"]["steps"] = 9
    Path("run/settings.json").write_text(json.dumps(settings))
    assert main(["evaluate", "--run", "run", "--test", "1"]) == 0
    assert "note: what run holds was trained for 2 of 9 steps: the run was resumed" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:the adapter in")
def test_an_adapter_on_weights_that_it_was_not_trained_on_is_said(tiny_checkpoint, capsys):
    """By content: a base that was copied is the same, one whose weights changed is not."""
    copy = Path(shutil.copytree(tiny_checkpoint, f"elsewhere/{tiny_checkpoint.name}"))
    asking = ["evaluate", "--run", "run", "--policy", str(copy), "--test", "1"]
    assert main(asking) == 0 and "another base" not in capsys.readouterr().err
    weights = load_file(copy / "model.safetensors")
    save_file({name: 1.01 * weight for name, weight in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    assert main(asking) == 0
    assert (
        f"note: run/adapter was trained on another base than this {copy}: model.safetensors" in capsys.readouterr().err
    )
