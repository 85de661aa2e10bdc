"""`favor-lab predict`: what a run trained is asked about new files, and every file is one row; and `favor-lab app`."""

import csv
import json
import math
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from favor_lab import Question, draw_scene, files
from favor_lab.activities.world import ACTIVITIES
from favor_lab.cli import main
from favor_lab.cli import predicting as cli_predicting
from favor_lab.grpo.sampling import encode_completions
from favor_lab.runs import predicting
from favor_lab.runs.options import DataOptions, load_shots
from favor_lab.runs.predicting import Prediction, image_paths, read_trained
from favor_lab.sharing import export
from favor_lab.show import page
from favor_lab.study import answering
from favor_lab.study.answering import Answer
from pictures import picture

pytestmark = pytest.mark.slow  # each trains, or asks what was trained

LABELS = ["phoning", "reading", "riding a bike"]


@pytest.fixture
def photos(tmp_path):
    for row, label in enumerate(LABELS):
        for column in range(3):
            picture(tmp_path / "photos" / label / f"{column}.png", 10 * row + column, "RGB", (60, 60))
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path, photos, tiny_checkpoint, monkeypatch, unrendered):
    """The folder of a finished run in the answer style."""
    monkeypatch.chdir(tmp_path)
    options = [
        "--policy",
        str(tiny_checkpoint),
        "--data",
        "folder",
        "--root",
        str(photos),
        "--shots",
        "2",
        "--test",
        "1",
    ]
    options += ["--steps", "1", "--group-size", "2", "--max-new-tokens", "4", "--style", "answer", "--out", "run"]
    assert main(["train", *options]) == 0
    return tmp_path / "run"


@pytest.fixture
def answers(monkeypatch):
    """Let every policy answer "Reading", with a probability of 0.6."""

    def rollout(policy, prompts, max_new_tokens):
        return encode_completions(policy, ["<answer>Reading</answer>"] * len(prompts), range(len(prompts)))

    shares = dict(zip(LABELS, (0.3, 0.6, 0.1), strict=True))
    monkeypatch.setattr(answering, "greedy_rollout", rollout)
    monkeypatch.setattr(answering, "label_probabilities", lambda policy, prompts, texts, *rest: [shares] * len(texts))


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_says_policy_labels_and_style(run, tiny_checkpoint):
    trained = read_trained(run)
    assert trained.policy.policy == str(tiny_checkpoint) and str(trained.policy.adapter) == str(run / "adapter")
    assert (trained.labels, trained.style, trained.max_new_tokens) == (LABELS, "answer", 4)
    assert read_trained(run / "adapter") == trained, "the adapter's folder leads to its run"
    settings = json.loads((run / "settings.json").read_text())
    assert settings.pop("labels") == LABELS
    (run / "settings.json").write_text(json.dumps(settings))
    assert read_trained(run).labels == LABELS, "a run of before takes them from its evaluation"
    for path in run.glob("evaluation_*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="does not say which labels were asked: name them with --labels"):
        read_trained(run)
    assert read_trained(run, needs_labels=False).labels is None
    shutil.rmtree(run / "adapter")
    with pytest.raises(FileNotFoundError, match="no adapter and no checkpoint"):
        read_trained(run)
    with pytest.raises(FileNotFoundError, match="no settings.json"):
        read_trained(run.parent / "photos")


@pytest.mark.parametrize("merged", [False, True])
def test_what_was_shared_is_asked_like_the_run(run, tmp_path, tiny_checkpoint, answers, merged, capsys):
    export.share(run, tmp_path / "shared", merged=merged)
    trained = read_trained(tmp_path / "shared")
    assert trained.labels == LABELS and trained.style == "answer"
    base = [] if merged else ["--policy", str(tiny_checkpoint)]  # the folder it was loaded from is named in no file
    assert main(["predict", "photos/reading/0.png", "--run", "shared", *base]) == 0
    assert "photos/reading/0.png  reading 0.60\n" in capsys.readouterr().out


def test_every_file_is_a_row(run, tmp_path, answers, capsys):
    (tmp_path / "photos/reading/broken.jpg").write_bytes(b"no image")
    (tmp_path / "photos/reading/notes.txt").write_text("not taken from a folder")
    assert main(["predict", "photos", "--run", "run", "--csv", "out.csv", "--batch-size", "2"]) == 0
    out, table = capsys.readouterr(), rows(tmp_path / "out.csv")
    assert len(table) == 10 and [row["path"] for row in table] == sorted(row["path"] for row in table)
    (broken,) = [row for row in table if row["problem"]]
    assert broken["path"].endswith("broken.jpg") and "cannot be read as an image" in broken["problem"]
    assert not broken["label"] and not broken["probability"]
    assert {row["label"] for row in table} == {"reading", ""}
    assert {row["probability"] for row in table} == {"0.6", ""}
    assert "9 of 10 images have a label; table in out.csv" in out.out and "1 of 10 files could not be read" in out.err
    assert main(["predict", "photos", "--run", "run", "--csv", "out.csv"]) == 2
    assert "out.csv is there already" in capsys.readouterr().err


def test_images_that_were_trained_on_are_said_also_of_what_was_shared(run, tmp_path, tiny_checkpoint, capsys):
    shots = load_shots(DataOptions("folder", tmp_path / "photos", shots=2, test=1), seed=0)
    export.share(run, tmp_path / "shared")
    (tmp_path / "new").mkdir()
    for number, example in enumerate(shots.train):
        example.image.save(tmp_path / f"new/{number}.bmp")  # the same pixels in another file
    capsys.readouterr()
    for who in (["--run", "run"], ["--run", "shared", "--policy", str(tiny_checkpoint)]):
        assert main(["predict", "new", "photos", *who, "--json"]) == 0
        output = capsys.readouterr()
        assert f"{who[1]} was trained on 12 of these images, the first is new/0.bmp" in output.err
        assert len([json.loads(line) for line in output.out.splitlines()]) == 15
        assert main(["predict", shots.test[0].source, *who]) == 0
        assert "was trained on" not in capsys.readouterr().err


def test_below_the_threshold_there_is_no_label(run, answers, capsys):
    assert main(["predict", "photos/reading/0.png", "--run", "run", "--threshold", "0.7", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = map(json.loads, lines)
    assert line["label"] == "" and line["problem"] == "not sure: reading has probability 0.60"
    assert math.isclose(sum(line["probabilities"].values()), 1) and set(line["probabilities"]) == set(LABELS)
    assert main(["predict", "photos", "--run", "run", "--threshold", "1.5"]) == 2
    assert "between 0 and 1" in capsys.readouterr().err


def test_options_win_over_the_run(run, monkeypatch, capsys):
    asked = []

    def predict(policy, paths, labels, style, max_new_tokens, batch_size, trained_on):
        asked.append((labels, style, max_new_tokens))
        yield from [Prediction(path, Answer("a", 0.5, None, "text")) for path in paths]

    monkeypatch.setattr(predicting, "predict", predict)
    one = ["predict", "photos/reading/0.png", "--run", "run"]
    assert main([*one, "--labels", "a", "b", "--style", "think", "--max-new-tokens", "9"]) == 0
    assert main([*one, "--open-vocabulary"]) == 0
    assert asked == [(["a", "b"], "think", 9), (None, "answer", 4)]


def test_where_nothing_can_be_answered(tmp_path, monkeypatch, capsys, tiny_checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    tiny = ["--policy", str(tiny_checkpoint)]
    with pytest.raises(SystemExit) as stop:
        main(["predict", "broken.jpg", *tiny, "--open-vocabulary"])
    assert stop.value.code == 1 and "cannot be read" in capsys.readouterr().out
    assert main(["predict", "nowhere", *tiny, "--open-vocabulary"]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert main(["predict", "broken.jpg", *tiny]) == 2
    assert "--labels reading cooking" in capsys.readouterr().err
    assert main(["predict", "broken.jpg", "--run", "nowhere"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_the_pocket_policy_says_what_it_does_not_know(photos, tmp_path, monkeypatch, capsys):
    """Noise is no drawn scene."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 140, 3), dtype=np.uint8)).save("noise.png")
    draw_scene("cartoon", "test", 6).image.save("scene.png")
    assert main(["predict", "noise.png"]) == 0
    said = capsys.readouterr()
    assert "knows drawn scenes alone; for photographs name another one, --policy" in said.err.replace("\n", " ")
    assert "1 of 1 images are answered 'nothing to see', the first is noise.png" in said.err.replace("\n", " ")
    assert main(["predict", "scene.png"]) == 0
    assert "nothing to see" not in capsys.readouterr().err


def test_places_become_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.JPG", "a.png", ".hidden/x.png", "b/._1.JPG", "__MACOSX/y.png", "strange.dat"):
        picture(tmp_path / "all" / name, 1, "RGB", (30, 30), format="PNG")
    names = ["all/a.png", "all/b/1.JPG", "all/b/2.png"]
    assert image_paths(["all"]) == names
    assert image_paths(["all/b/2.png", "all", "all/strange.dat"]) == ["all/b/2.png", *names[:2], "all/strange.dat"]
    assert image_paths(["all/*/*.png"]) == ["all/b/2.png"]
    with pytest.raises(FileNotFoundError, match="empty: no image in the folder"):
        (tmp_path / "empty").mkdir()
        image_paths(["empty"])


def test_what_is_printed_acts_nowhere():
    """A label, a path or a reasoning with control characters is printed with escapes."""
    given = Answer("read\x1b[2Jing", 0.5, "a\npage", "<answer>...</answer>")
    line = Prediction("a\x1b]0;b.png", given).line()
    assert line == r"a\x1b]0;b.png  read\x1b[2Jing 0.50  a\npage"
    assert SimpleNamespace(**Prediction("p", given).row()).label == "read\x1b[2Jing"


def test_the_page_asks_what_the_run_says(run, tiny_checkpoint, monkeypatch, capsys):
    """`favor-lab app`: policy, labels and style of the run; the question is checked before weights are loaded."""
    pages = []
    monkeypatch.setattr(page, "import_gradio", lambda: None)
    monkeypatch.setattr(page, "build_page", lambda policy, *asked: pages.append(asked))
    monkeypatch.setattr(page, "serve_page", lambda built, port, tell: pages.append(port))
    assert main(["app", "--run", "run", "--port", "7861"]) == 0
    assert pages == [(Question(LABELS, "answer"), 4, "favor_lab: run"), 7861]
    monkeypatch.setattr(cli_predicting, "open_policy", lambda options: options)
    assert main(["app"]) == 0
    assert pages[2:] == [(Question(ACTIVITIES), 64, "favor_lab: pocket without training"), None]
    monkeypatch.setattr(cli_predicting, "open_policy", None)
    assert main(["app", "--labels", "a", "<b>"]) == 2
    assert "label 1 is '<b>'" in capsys.readouterr().err


def test_without_gradio_the_page_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", "--run", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "an environment of its own" in line and "pip install --no-deps" in line


def test_a_table_holds_every_text_as_it_was_and_is_whole_or_not_there(tmp_path, monkeypatch):
    odd = 'a\u2028b\u2029c\x85d\x0be\x1cf\r\ng\nh,"i";j\tk'
    answer = Answer(odd, 0.5, odd, f"<answer>{odd}</answer>", "x.png", {odd: 0.5})
    places = [f"{odd}.png", "caf\udce9.png"]
    predictions = [Prediction(place, answer) for place in places]
    predicting.write_csv(tmp_path / "table.csv", predictions)
    first, second = rows(tmp_path / "table.csv")
    assert (first["path"], first["label"], first["reasoning"]) == (places[0], odd, odd)
    assert first["response"] == answer.text and second["path"] == "caf\\udce9.png"
    lines = [predicting.as_json(prediction) for prediction in predictions]
    assert [json.loads(line)["path"] for line in lines] == places and "\n" not in "".join(lines)
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predicting.write_csv(tmp_path / "other.csv", predictions)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
