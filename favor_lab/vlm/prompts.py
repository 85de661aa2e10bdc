"""What the policy is asked: one user turn, the image first, then one of these texts.

`build_prompt` asks for the activity. The other questions are those of published methods that judge, rank or check: a
choice by letter, yes or no, several answers, a false statement, the better of two responses, the order of quarters, a
description in place of the image. Each can be asked in three styles: reasoning then answer, answer only, or answer then
reasoning (CLS-RL, arXiv 2503.16188). The wording is short because every prompt token costs time, and it shows no
template: an over-trained policy copies a literal "..." between the tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from favor_lab.activities.labels import check_labels

STYLES = ("think", "answer", "answer-first")
DESCRIBE = "Describe the evidence inside <think> </think>."
WHICH = "Which activity is this"


def build_prompt(labels: Sequence[str] | None, style: str = "think") -> str:
    """Text of the user turn after the image; `labels=None` asks with an open vocabulary.

    style: "think" (reasoning, then the label), "answer" (the label only) or "answer-first" (the label, then reasoning,
    which the pocket policy has not been asked for). A further style, "describe", asks for the evidence and no label;
    only the pre-training of the pocket policy uses it. ValueError for an unknown style and for
    labels that `check_labels` refuses. Where a label has a comma, there is one on each line.

    >>> build_prompt(["reading", "phoning"], style="answer")
    'Which activity is this: reading, phoning? Name it inside <answer> </answer>.'
    >>> build_prompt(None)
    'Which activity is this? Reason inside <think> </think>, then name it inside <answer> </answer>.'
    >>> build_prompt(None, "answer-first")
    'Which activity is this? Name it inside <answer> </answer>, then reason inside <think> </think>.'
    """
    if style == "describe":
        return DESCRIBE
    return _ask(_which(labels), "name it", style)


def ask_choice(labels: Sequence[str], style: str = "think") -> str:
    """Which label it is, to be answered by a letter: "A" for the first. ValueError for more than 26 labels.

    >>> ask_choice(["reading", "phoning"], "answer")
    'Which activity is this: A reading, B phoning? Give the letter inside <answer> </answer>.'
    """
    check_labels(labels)
    if len(labels) > len(ascii_uppercase):
        raise ValueError(f"{len(labels)} labels have no letter each; ask_choice takes at most {len(ascii_uppercase)}")
    options = [f"{letter} {label}" for letter, label in zip(ascii_uppercase, labels, strict=False)]
    return _ask(f"{WHICH}: {', '.join(options)}?", "give the letter", style)


def ask_yes_no(label: str, style: str = "think") -> str:
    """Whether a label is right, to be answered by "yes" or "no".

    >>> ask_yes_no("reading", "answer")
    'Is this person reading? Say yes or no inside <answer> </answer>.'
    """
    return _ask(f"Is this person {label}?", "say yes or no", style)


def ask_several(labels: Sequence[str] | None, style: str = "think") -> str:
    """Up to three labels, separated by commas, the best first.

    >>> ask_several(["reading", "phoning"], "answer")
    'Which activity is this: reading, phoning? Name up to three, the best first, inside <answer> </answer>.'
    """
    return _ask(_which(labels), "name up to three, the best first,", style)


def ask_false_statement(statements: Sequence[str], style: str = "think") -> str:
    """Which of some statements about the image does not hold, to be answered by that statement.

    >>> ask_false_statement(["standing", "one hand up"], "answer")
    'Which statement does not hold: standing, one hand up? Repeat it inside <answer> </answer>.'
    """
    return _ask(f"Which statement does not hold: {', '.join(statements)}?", "repeat it", style)


def ask_better(first: str, second: str, style: str = "think") -> str:
    """Which of two responses fits the image better, to be answered by "1" or "2".

    >>> ask_better("one hand up, waving hands", "sitting, reading", "answer")
    'Which fits better: 1 one hand up, waving hands; 2 sitting, reading? Give the number inside <answer> </answer>.'
    """
    return _ask(f"Which fits better: 1 {first}; 2 {second}?", "give the number", style)


def ask_order(style: str = "think") -> str:
    """Where each quarter of a shuffled image belongs, to be answered by four numbers, such as "3 1 2 4".

    >>> ask_order("answer").split("? ")[1]
    'Give the four numbers inside <answer> </answer>.'
    """
    places = "1 top left, 2 top right, 3 bottom left, 4 bottom right"
    return _ask(f"The quarters are shuffled. Where does each belong: {places}?", "give the four numbers", style)


def describe_first(description: str, prompt: str) -> str:
    """A prompt that states what is seen before it asks: for a question without an image.

    >>> describe_first("standing, one hand up", "Is this person reading?")
    'Seen: standing, one hand up. Is this person reading?'
    """
    return f"Seen: {description}. {prompt}"


def _which(labels: Sequence[str] | None) -> str:
    """The question for an activity, with the labels to choose from."""
    if labels is None:
        return f"{WHICH}?"
    check_labels(labels)
    if any("," in label for label in labels):  # a list with commas would read as more labels than there are
        return "\n".join([f"{WHICH}?", *labels, ""])
    return f"{WHICH}: {', '.join(labels)}?"


def _ask(question: str, wanted: str, style: str) -> str:
    """A question and the form of its response: what is wanted, in a style."""
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; valid styles: {', '.join((*STYLES, 'describe'))}")
    inside = f"{wanted} inside <answer> </answer>."
    request = f"Reason inside <think> </think>, then {inside}" if style == "think" else inside[0].upper() + inside[1:]
    if style == "answer-first":
        request = request.removesuffix(".") + ", then reason inside <think> </think>."
    return f"{question}{'' if question.endswith(chr(10)) else ' '}{request}"
