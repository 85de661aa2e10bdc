"""What attacks.py lists and generates, in the suite: no attack pays, and each loosened reward is noticed."""

import json
import re

import pytest

import attacks
from favor_lab.grpo import rewards
from favor_lab.responses import response_spans


@pytest.mark.parametrize("case", attacks.CORPUS, ids=lambda case: case.name)
def test_each_completion_gets_what_it_must(case):
    assert case.scores() == (case.accuracy, case.think, case.answer)


def test_generated_completions_break_no_promise():
    failures, counts = attacks.examine(5_000, seed=1)
    assert not failures
    assert min(counts[name] for name in ("accuracy", "think", "answer")) > 300  # some promises can be broken


@pytest.mark.parametrize("name", attacks.LONG)
def test_a_megabyte_is_judged(name):
    """A reward with quadratic time would take hours here."""
    attacks.judge_all(attacks.LONG[name](1_000_000))


@pytest.mark.parametrize("text, due", attacks.TRUTHS)
def test_truth_pays_for_the_share_of_true_statements(text, due):
    assert attacks.truth_reward([text], [attacks.SCENE]) == [due]


@pytest.mark.parametrize("text, parts", attacks.SPANS)
def test_reasoning_and_answer_are_parts_that_are_there(text, parts):
    assert set(response_spans(text)) == parts
    assert "answer" not in parts or text[slice(*response_spans(text)["answer"])] == "reading</answer"
    assert "reasoning" not in parts or text[slice(*response_spans(text)["reasoning"])].startswith("a page")
    assert "<answer>" not in text[slice(*response_spans(text).get("reasoning", (0, 0)))]


def test_consistency_pays_nothing_for_a_part_that_is_not_there(tiny_policy):
    texts = [text for text, _ in attacks.SPANS]
    rewards = attacks.consistency_of(tiny_policy, texts)
    assert [score > 0 for score in rewards] == [len(parts) == 2 for _, parts in attacks.SPANS]
    assert all(0 <= score <= 1 for score in rewards)


def containing(text, label, style="think"):
    answer = rewards.extract_answer(text, style)
    return answer is not None and rewards.normalise_label(label) in rewards.normalise_label(answer)


def contained(text, label, style="think"):
    answer = rewards.extract_answer(text, style)
    return answer is not None and rewards.normalise_label(answer) in rewards.normalise_label(label)


def first_pair(text, style="think"):
    match = re.search("<answer>(.+?)</answer>", text, re.DOTALL)
    return match[1].strip() or None if match else None


def whole_text(text, style="think"):
    return first_pair(text) or text


def searched(text, style):
    return len(rewards.TAG.findall(text)) == 4 and rewards.RESPONSES[style].search(text) is not None


def uncounted(text, style):
    return rewards.RESPONSES[style].fullmatch(text) is not None


def any_tags(text, style):
    return all(tag in text for tag in attacks.TAGS[0 if style == "think" else 2 :])


LOOSER = {
    "containing": ("is_right", containing),
    "contained": ("is_right", contained),
    "first pair": ("extract_answer", first_pair),
    "whole text": ("extract_answer", whole_text),
    "searched": ("_well_formed", searched),
    "uncounted": ("_well_formed", uncounted),
    "any tags": ("_well_formed", any_tags),
    "invisible": ("is_blank", lambda text: not text.strip()),
    "blank": ("is_blank", lambda text: False),
    "letters alone": ("normalise_label", lambda text: re.sub(r"\W", "", text).casefold()),
}


@pytest.mark.parametrize("name", LOOSER)
def test_a_looser_reward_is_noticed(monkeypatch, name):
    monkeypatch.setattr(rewards, *LOOSER[name])
    short = [case for case in attacks.CORPUS if attacks.short_text(case) is not None]
    assert any(case.scores() > (case.accuracy, case.think, case.answer) for case in short)
    assert attacks.examine(2_000, seed=2)[0]


def test_the_command_ends_with_1_where_something_is_paid(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attacks.py", "--completions", "50"])
    for show in ("show_others", "show_growth"):
        monkeypatch.setattr(attacks, show, lambda: 0)
    assert attacks.main() == 0
    assert "\n0 of 109 attacks paid beyond what they should get\n0 of 165" in capsys.readouterr().out
    monkeypatch.setattr(rewards, "is_right", containing)
    assert attacks.main() == 1
    assert "\n0 of 109 attacks" not in capsys.readouterr().out


def test_the_table_of_what_was_found_is_that_of_its_numbers():
    runs = json.loads((attacks.RESULTS / "attacks.json").read_text(encoding="utf-8"))
    assert [run["paid"] for run in runs] == list(attacks.RUNS)
    assert attacks.table(runs, 60, 1.5) == (attacks.RESULTS / "attacks.md").read_text(encoding="utf-8")
