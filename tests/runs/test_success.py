"""A run says before training which labels it cannot reach, and afterwards whether any answer was ever right."""

from pathlib import Path

import pytest

from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings
from favor_lab.runs.notes import notes_on_labels
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.plan import RunPlan
from favor_lab.runs.run import run_training
from favor_lab.study import evaluation as evaluating
from pictures import picture

pytestmark = pytest.mark.slow  # each trains, or asks what was trained

SETTINGS = GRPOSettings(steps=1, prompts_per_step=2, group_size=2, max_new_tokens=24)


@pytest.fixture
def photos(tmp_path, monkeypatch, unrendered) -> Path:
    monkeypatch.chdir(tmp_path)
    for row, label in enumerate(["swimming", "reading", "playing_chess"]):
        for column in range(2):
            picture(tmp_path / "my photos" / label / f"{column}.png", 10 * row + column, "RGB", (60, 60))
    return tmp_path / "my photos"


def run(plan, out="a run"):
    """The run, and what it says in order: lines of results, and lines that deserve a look."""
    lines: list[tuple[str, str]] = []
    folder = run_training(
        plan, Path(out), tell=lambda text: lines.append(("tell", text)), note=lambda text: lines.append(("note", text))
    )
    return folder, lines


def test_pocket_is_said_not_to_know_labels_before_it_trains_and_to_have_failed_after(photos):
    plan = RunPlan("train", DataOptions("folder", photos, shots=1, test=1), PolicyOptions(), SETTINGS)
    folder, lines = run(plan)
    kinds = [kind for kind, _ in lines]
    said = "the pocket policy has met the drawn activities under their 48 names"
    before = next(i for i, (kind, text) in enumerate(lines) if said in text)
    assert (
        kinds[before] == "note"
        and "2 of the 3 labels are none of these ('playing chess', 'swimming')" in lines[before][1]
    )
    assert before < next(i for i, (_, text) in enumerate(lines) if "before training" in text)
    assert lines[-2] == ("tell", "ask it       favor-lab predict IMAGE --run 'a run'")
    failure = "none of the 4 completions in training and none of the 3 answers after it named the label of its image"
    kind, last = lines[-1]
    assert kind == "note" and last.startswith(f"this run did not learn to name an activity: {failure}.")
    assert f"This run did not learn to name an activity: {failure}." in (folder.path / "report.html").read_text()


def test_a_run_with_one_right_answer_has_not_failed(photos, monkeypatch):
    def judge(text, example, labels, style):
        return evaluating.Answered(example.source, example.label, example.label, True, True, 0, 0, text)

    monkeypatch.setattr(evaluating, "judge_answer", judge)
    plan = RunPlan("train", DataOptions("folder", photos, shots=1, test=1), PolicyOptions(), SETTINGS)
    folder, lines = run(plan)
    assert not any("did not learn" in text for _, text in lines)
    assert "did not learn" not in (folder.path / "report.html").read_text()
    assert lines[-1] == ("tell", "ask it       favor-lab predict IMAGE --run 'a run'")


def test_supervised_fine_tuning_fails_by_its_answers(photos, tiny_checkpoint):
    data, policy = DataOptions("folder", photos, shots=1, test=1), PolicyOptions(str(tiny_checkpoint))
    _, lines = run(RunPlan("sft", data, policy, TrainSettings(steps=1, learning_rate=1e-9)))
    assert "none of the 3 answers after training named the label of its image" in lines[-1][1]
    assert lines[-2][1] == "ask it       favor-lab predict IMAGE --run 'a run'"
    _, lines = run(RunPlan("sft", DataOptions("folder", photos, shots=1, test=0), policy, TrainSettings(steps=1)), "b")
    assert lines[-1][1] == "ask it       favor-lab predict IMAGE --run b", "nothing was asked, so nothing is known"


def test_labels_that_no_completion_will_name(tiny_policy):
    labels, pocket = ["Riding_a-bike", "swimming"], PolicyOptions()

    def notes(options=pocket, labels=labels, **settings):
        return notes_on_labels(labels, options, tiny_policy, GRPOSettings(**settings))

    (unknown,) = notes()
    assert "1 of the 2 labels are none of these ('swimming'). It can pick them from the list" in unknown
    (unnamed,) = notes(open_vocabulary=True)
    assert "Without a list it will not sample them" in unnamed
    assert not notes(labels=["riding a bike", "cycling"]) and not notes(PolicyOptions("Qwen/Qwen2-VL-2B-Instruct"))
    assert not notes(PolicyOptions(adapter=Path("taught"))), "an adapter may have taught it"
    assert not notes_on_labels(labels, pocket, tiny_policy, TrainSettings()), "it is given the labels"
    shortest = tiny_policy.tokenizer.encode("<answer>swimming</answer>")
    enough = len(shortest) + 1
    other = PolicyOptions("other")
    assert not notes(other, ["swimming"], style="answer", max_new_tokens=enough)
    (short,) = notes(other, ["swimming"], style="answer", max_new_tokens=enough - 1)
    assert f"max_new_tokens={enough - 1} is too short to name 1 of the 1 labels ('swimming')" in short
    assert f"has {enough} tokens" in short
    (short,) = notes(other, ["swimming"], max_new_tokens=enough)
    assert "too short" in short, "reasoning needs tokens as well"
