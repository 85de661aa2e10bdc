"""A run that is resumed: what is not that run any more is refused in one line, and the folder stays as it was; images
that have moved are known by their content."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from favor_lab.cli import main
from favor_lab.files import LOCK
from favor_lab.runs.resuming import with_names
from favor_lab.study.evaluation import Evaluation
from favor_lab.study.run_folder import RunFolder
from pictures import leave_unrendered, picture

pytestmark = pytest.mark.slow

LABELS = ["phoning", "reading", "riding_a_bike"]
SMALL = ["--shots", "2", "--test", "1", "--steps", "3", "--prompts-per-step", "2", "--updates-per-rollout", "2",
         "--group-size", "2", "--max-new-tokens", "4", "--temperature", "1.5"]  # fmt: skip
RESUME = ["train", "--resume", "run", "--steps", "5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_checkpoint) -> Path:
    """A folder with images, a base and a run of three steps, the last of which is in the middle of a rollout."""
    place = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_checkpoint, place / "base")
    for row, label in enumerate(LABELS):
        for column in range(3):
            picture(place / "photos" / label / f"{column}.png", 10 * row + column, "RGB", (60, 60))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        leave_unrendered(patch)
        options = ["--policy", "base", "--data", "folder", "--root", "photos"]
        assert main(["train", *options, *SMALL, "--out", "run"]) == 0
    return place


@pytest.fixture
def run(trained, tmp_path, monkeypatch, unrendered) -> Path:
    """A copy of that run, beside the images and the base that it was trained with."""
    for name in ("photos", "base", "run"):
        shutil.copytree(trained / name, tmp_path / name)
    for path in (tmp_path / "run").rglob("*.json"):
        path.write_text(path.read_text().replace(str(trained), str(tmp_path)))
    folder = RunFolder(tmp_path / "run")
    manifest = folder.load("manifest.json")
    folder.save_manifest(manifest["step"], manifest["base"], manifest["test"])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(arguments, capsys, *fragments) -> None:
    """Status 2, one line with these fragments, and nothing in the run folder has changed."""
    before = contents(Path("run"))
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("favor-lab: note: ")]
    assert len(lines) == 1 and lines[0].startswith("favor-lab: error: "), error
    assert all(fragment in lines[0] for fragment in fragments), error
    assert contents(Path("run")) == before


def changed_json(name, change):
    def spoil(run):
        data = json.loads((run / name).read_text())
        change(data)
        (run / name).write_text(json.dumps(data))

    return spoil


def text(name, content):
    return lambda run: (run / name).write_text(content)


def cut(name):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-30])


def gone(name):
    return lambda run: (run / name).unlink()


def lines(change):
    """Change the lines of the records."""

    def spoil(run):
        rows = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
        (run / "records.jsonl").write_bytes(b"".join(change(rows)))

    return spoil


def repainted(name):
    return lambda run: picture(run.parent / "photos" / name, 99, "RGB", (60, 60))


def test_image(run):
    picture(Path(Evaluation.load(run / "evaluation_before.json").answers[0].source), 99, "RGB", (60, 60))


def trained_image(run):
    source = next(iter(json.loads((run / "training_images.json").read_text())["fingerprints"]))
    picture(run.parent / "photos" / Path(source).relative_to(Path(source).parents[1]), 99, "RGB", (60, 60))


test_image.__test__ = False  # type: ignore[attr-defined]

DAMAGE = {
    "a record is damaged": (lines(lambda rows: [rows[0], b"{" + rows[1], rows[2]]), "line 2 of run/records.jsonl"),
    "a record is no text": (lines(lambda rows: [b"\xff" + rows[0], *rows[1:]]), "line 1 of run/records.jsonl"),
    "a record is no object": (lines(lambda rows: [*rows[:2], b"[3]\n"]), "line 3 of run/records.jsonl"),
    "no records": (gone("records.jsonl"), "run/records.jsonl lacks the record of step 1"),
    "empty records": (text("records.jsonl", ""), "run/records.jsonl lacks the record of step 1"),
    "a record is missing": (lines(lambda rows: [rows[0], rows[2]]), "run/records.jsonl lacks the record of step 2"),
    "a record twice": (lines(lambda rows: [rows[0], *rows]), "run/records.jsonl lacks the record of step 2"),
    "the last record is torn": (cut("records.jsonl"), "run/records.jsonl lacks the record of step 3"),
    "settings are cut": (cut("settings.json"), "run/settings.json is damaged"),
    "settings are null": (text("settings.json", "null"), "run/settings.json is damaged"),
    "settings lack a part": (changed_json("settings.json", lambda data: data.pop("data")), "run/settings.json", "data"),
    "settings of another type": (
        changed_json("settings.json", lambda data: data["settings"].update(beta="much")), "run/settings.json"
    ),
    "shots are text": (
        changed_json("settings.json", lambda data: data["data"].update(shots="2")), "run/settings.json", "shots is '2'"
    ),
    "steps are half": (
        changed_json("settings.json", lambda data: data["settings"].update(steps=2.5)), "run/settings.json", "steps"
    ),
    "no checkpoint ever": (
        changed_json("settings.json", lambda data: data.update(checkpoint_every=0)), "run/settings.json"
    ),
    "no such command": (changed_json("settings.json", lambda data: data.update(command="x")), "run/settings.json", "x"),
    "versions are a list": (changed_json("settings.json", lambda data: data.update(versions=[1])), "run/settings.json"),
    "another learning rate": (
        changed_json("settings.json", lambda data: data["settings"].update(learning_rate=0.5)),
        "run/settings.json is not that of the checkpoint", "learning_rate 0.001 then, 0.5 now",
    ),
    "no settings": (gone("settings.json"), "run is not a run folder: it has no settings.json"),
    "before is cut": (cut("evaluation_before.json"), "run/evaluation_before.json is damaged"),
    "before is no evaluation": (text("evaluation_before.json", "[]"), "run/evaluation_before.json is damaged"),
    "before is missing": (gone("evaluation_before.json"), "run/evaluation_before.json is missing"),
    "before is of other images": (
        changed_json("evaluation_before.json", lambda data: data["answers"].reverse()),
        "run/evaluation_before.json answers other images",
    ),
    "after is cut": (cut("evaluation_after.json"), "run/evaluation_after.json is damaged"),
    "groups are cut": (cut("groups.json"), "run/groups.json is damaged"),
    "a group lacks a part": (changed_json("groups.json", lambda data: data["before"].pop("texts")), "run/groups.json"),
    "training images are cut": (cut("training_images.json"), "run/training_images.json is damaged"),
    "training images are missing": (gone("training_images.json"), "run/training_images.json is missing"),
    "the manifest is cut": (cut("manifest.json"), "run/manifest.json is damaged"),
    "the manifest is a list": (text("manifest.json", "[1]"), "run/manifest.json is damaged"),
    "a test image is another": (test_image, "the run in run has other test images"),
    "a training image is another": (trained_image, "has seen other images"),
    "an image more": (repainted("reading/3.png"), "images"),
    "no images": (lambda run: shutil.rmtree(run.parent / "photos"), "no longer in", "photos", "--root"),
    "another base": (
        lambda run: (run.parent / "base" / "chat_template.jinja").write_text(
            (run.parent / "base" / "chat_template.jinja").read_text() + "!"
        ),
        "another base", "chat_template.jinja changed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_or_another_is_refused_and_nothing_changes(run, capsys, case):
    spoil, *fragments = DAMAGE[case]
    spoil(run)
    refused(RESUME, capsys, *fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--steps", "2"], ["has done 3 steps: --steps 2 is less"]),
        (["--lora-rank", "16"], ["leave out --lora-rank"]),  # the default, and that of the run
        (["--seed=0"], ["leave out --seed"]),
        (["--no-open-vocabulary"], ["leave out --open-vocabulary"]),
        (["--checkpoint-every", "10"], ["leave out --checkpoint-every"]),
        (["--root", "nowhere"], ["no longer in", "nowhere"]),
    ],
)
def test_an_option_that_contradicts_the_run_is_refused(run, capsys, arguments, fragments):
    refused([*RESUME[:3], *arguments], capsys, *fragments)


def test_other_images_under_root_are_refused(run, capsys):
    shutil.copytree("photos", "other")
    picture(Path("other/reading/0.png"), 99, "RGB", (60, 60))
    refused([*RESUME, "--root", "other"], capsys, "other", "images")


def test_a_base_that_changed_before_the_first_checkpoint_is_refused(run, capsys):
    shutil.rmtree(run / "checkpoint")
    config = json.loads(Path("base/generation_config.json").read_text())
    Path("base/generation_config.json").write_text(json.dumps(config | {"eos_token_id": 7}))
    refused(RESUME, capsys, "the base of the run in run is not what it was: generation_config.json changed")


def timeless(folder: Path) -> list[dict]:
    """The records without wall times and names of images."""
    records = RunFolder(folder).records()
    return [record | {"seconds": 0, "samples": [row["text"] for row in record["samples"]]} for record in records]


def test_images_that_moved_are_known_by_their_content(run, capsys):
    """In the middle of a rollout; the answers before training follow them."""
    shutil.copytree("run", "stayed")
    assert main(["train", "--resume", "stayed", "--steps", "5"]) == 0
    os.rename("photos", "elsewhere")
    assert main([*RESUME, "--root", "elsewhere"]) == 0
    assert "elsewhere" in json.loads((run / "settings.json").read_text())["data"]["root"]
    assert timeless(run) == timeless(Path("stayed"))
    weights = [Path(f"{name}/adapter/adapter_model.safetensors").read_bytes() for name in ("run", "stayed")]
    assert weights[0] == weights[1]
    before, after = (Evaluation.load(run / f"evaluation_{when}.json").answers for when in ("before", "after"))
    assert [answer.source for answer in before] == [answer.source for answer in after]
    assert all("elsewhere" in answer.source for answer in before)
    assert all("elsewhere" in group["source"] for group in json.loads((run / "groups.json").read_text()).values())
    RunFolder.open(run).check_results()
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 0, capsys.readouterr().err


def test_a_record_that_was_being_written_is_made_again(run):
    with open(run / "records.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert main(RESUME) == 0
    assert [record["step"] for record in timeless(run)] == [1, 2, 3, 4, 5]


def test_a_run_of_an_earlier_version_goes_on(run):
    """It has neither a manifest nor fingerprints."""
    (run / "manifest.json").unlink()
    (run / "training_images.json").unlink()
    assert main(RESUME) == 0
    assert RunFolder.open(run).load("manifest.json")["step"] == 5


def test_a_folder_that_is_trained_is_not_resumed(run, capsys):
    """One line with the folder and the process; the run that is there goes on."""
    code = "import sys; from favor_lab.files import locked\nwith locked('run'): print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        refused(RESUME, capsys, f"run is in use by process {other.pid}")
        assert (run / LOCK).read_text() == str(other.pid)
        other.communicate()
    assert not (run / LOCK).exists()
    assert main(RESUME) == 0 and not (run / LOCK).exists()


def test_results_of_a_longer_run_that_was_killed_are_not_of_one_step(run, monkeypatch):
    from favor_lab.runs import run as module

    evaluate = module.evaluate_test

    def killed(plan, policy, shots, folder, when, *arguments, **options):
        if when == "after":
            raise KeyboardInterrupt
        return evaluate(plan, policy, shots, folder, when, *arguments, **options)

    folder = RunFolder.open(run)
    folder.check_results()
    for leftover in (".tmpA1b2C3", "groups.json.4711.tmp", "adapter/.tmpA1b2C3"):
        (run / leftover).write_text("what a killed process left")
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_test", killed)
        assert main(RESUME) == 130
    assert not [*run.glob("*tmp*"), *run.glob("adapter/.tmp*")]
    with pytest.raises(ValueError, match=r"\(step 3\), .*records.jsonl.* changed: go on with --resume"):
        folder.check_results()
    assert main(RESUME) == 0
    folder.check_results()


def test_only_sources_are_renamed():
    groups = {"before": {"source": "a", "texts": ["a"], "parts": [{"source": "b"}, {"source": "c"}]}}
    expected = {"before": {"source": "x", "texts": ["a"], "parts": [{"source": "y"}, {"source": "c"}]}}
    assert with_names(groups, {"a": "x", "b": "y"}) == expected
