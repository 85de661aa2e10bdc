"""The question that is asked."""

import re

import pytest

from favor_lab.vlm.prompts import (
    STYLES,
    ask_better,
    ask_choice,
    ask_false_statement,
    ask_order,
    ask_several,
    ask_yes_no,
    build_prompt,
    describe_first,
)

LABELS = ["riding a bike", "reading"]


def test_styles_ask_for_their_tags():
    for labels in (LABELS, None):
        think, answer, first, describe = (build_prompt(labels, style) for style in (*STYLES, "describe"))
        for text, tags in ((think, ["<think>", "<answer>"]), (first, ["<answer>", "<think>"])):
            assert re.findall("<[a-z]+>", text) == tags
        assert "<think>" not in answer and "<answer>" in answer
        assert "<think>" in describe and "<answer>" not in describe


def test_closed_list_names_every_label_and_open_vocabulary_none():
    for style in STYLES:
        assert all(label in build_prompt(LABELS, style) for label in LABELS)
        assert not any(label in build_prompt(None, style) for label in LABELS)


def test_no_template_that_could_be_copied():
    """A literal "<answer>something</answer>" in the prompt would score as well-formed when copied."""
    texts = [build_prompt(labels, style) for labels in (LABELS, None) for style in (*STYLES, "describe")]
    assert not any("..." in text or "…" in text for text in texts)
    inside = [content for text in texts for _, content in re.findall(r"<(think|answer)>(.*?)</\1>", text)]
    assert len(inside) == 12 and not any(content.strip() for content in inside)


def test_labels_with_commas_stand_on_lines_of_their_own():
    """Different lists never make one prompt: where a label has a comma, lines part them, and no label has two lines."""
    lists = [["eating, drinking", "running"], ["eating", "drinking, running"], ["eating", "drinking", "running"]]
    lists += [["eating; drinking, running"], ["eating; drinking", "running"], ['"eating', 'drinking"', "running"]]
    lists += [['"eating, drinking"', "running"], ["eating", "drinking", "running?"], ["eating ,", "drinking"]]
    for style in STYLES:
        assert len({build_prompt(labels, style) for labels in lists}) == len(lists)
    assert build_prompt(lists[0], "answer").splitlines()[1:3] == lists[0]
    assert "\n" not in build_prompt(lists[2])


def test_an_unknown_style_lists_the_valid_ones():
    with pytest.raises(ValueError, match="'reason'.*think, answer, answer-first, describe"):
        build_prompt(LABELS, "reason")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "non-empty"),
        ("reading", "non-empty"),
        (["reading", " "], "label 1"),
        (["a<b"], "'a<b'"),
        (["reading", "x", "reading"], "'reading' appears more than once"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        build_prompt(labels)


ASKED = {
    "choice": (ask_choice, (LABELS,)),
    "yes or no": (ask_yes_no, ("reading",)),
    "several": (ask_several, (LABELS,)),
    "several, open": (ask_several, (None,)),
    "false statement": (ask_false_statement, (["standing", "one hand up"],)),
    "order": (ask_order, ()),
    "better": (ask_better, ("one hand up, reading", "sitting, phoning")),
}


@pytest.mark.parametrize(("ask", "arguments"), ASKED.values(), ids=ASKED)
def test_other_questions_come_in_every_style(ask, arguments):
    think, answer, first = (ask(*arguments, style) for style in STYLES)
    assert "Reason inside <think> </think>, then" in think and think.endswith(" inside <answer> </answer>.")
    assert "<think>" not in answer and answer.endswith(" inside <answer> </answer>.")
    assert first == answer[:-1] + ", then reason inside <think> </think>."
    assert think.split("? ")[0] == answer.split("? ")[0] and ask(*arguments) == think
    with pytest.raises(ValueError, match="'describe'.*valid styles: think, answer"):
        ask(*arguments, "describe")


def test_a_choice_needs_a_letter_for_each_label():
    assert ask_choice([f"label {k}" for k in range(26)], "answer").count("Z label 25") == 1
    with pytest.raises(ValueError, match="27 labels have no letter each"):
        ask_choice([f"label {k}" for k in range(27)])
    with pytest.raises(ValueError, match="appears more than once"):
        ask_choice(["reading", "reading"])


def test_a_description_stands_before_the_question():
    question = build_prompt(LABELS)
    assert describe_first("standing, one hand up", question) == f"Seen: standing, one hand up. {question}"
