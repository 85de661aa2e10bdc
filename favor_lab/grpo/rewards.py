"""Step 2 of GRPO: the reward of each completion.

A reward function has TRL's signature, so the same function works in this loop and in `trl.GRPOTrainer`:
`f(completions, prompts=..., completion_ids=..., **columns) -> list[float]`, one number per completion, where the
columns are those of the data set (here `label` and `source`). Completions are plain strings or lists of chat messages.

A reward is all that the policy learns from, and reinforcement learning finds whatever a reward pays by mistake (reward
hacking). So the match is exact, and the doctest of each function lists completions that must earn nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from favor_lab.activities.labels import LONGEST, is_blank, normalise_label, refuse_string

Completion = str | list[dict[str, Any]]

TAG = re.compile(r"</?(?:think|answer)>")
RESPONSES = {
    "think": re.compile(r"\s*<think>(.+?)</think>\s*<answer>(.+?)</answer>\s*", re.DOTALL),
    "answer": re.compile(r"\s*<answer>(.+?)</answer>\s*", re.DOTALL),
    "answer-first": re.compile(r"\s*<answer>(.+?)</answer>\s*<think>(.+?)</think>\s*", re.DOTALL),
}
SPECIAL = re.compile(r"<\|\w+\|>")  # tokens of the chat, such as <|im_start|>: they end a response or begin a turn


def completion_text(completion: Completion) -> str:
    """The text of a completion: the string itself, or the content of the last of its chat messages. No message, a
    message of another role than the assistant's and no content (that of a tool's call) are an empty text.

    >>> completion_text([{"role": "assistant", "content": "<answer>reading</answer>"}])
    '<answer>reading</answer>'
    """
    if isinstance(completion, str):
        return completion
    message = completion[-1] if completion else {}
    return message_text(message) if message.get("role", "assistant") == "assistant" else ""


def message_text(message: dict[str, Any]) -> str:
    """The content of one chat message: a text, or the texts among its parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or () if part.get("type", "text") == "text")


def completion_texts(completions: Sequence[Completion]) -> list[str]:
    """The text of each completion. TypeError for one text that is not in a list, ValueError for one chat."""
    refuse_string("completions", completions)
    if any(isinstance(completion, dict) for completion in completions):
        raise ValueError("completions must be texts or chats, not messages: a chat is a list of messages")
    return [completion_text(completion) for completion in completions]


def no_reward(completions: Sequence[Completion]) -> list[float]:
    """0.0 for each completion: a reward that is turned off. TypeError for one text that is not in a list.

    >>> no_reward(["<answer>reading</answer>", ""])
    [0.0, 0.0]
    """
    return [0.0] * len(completion_texts(completions))


def extract_answer(text: str, style: str = "think") -> str | None:
    """What stands between `<answer>` and `</answer>`: None unless there is exactly one such pair, closing the text, and
    something is in it, of at most `LONGEST` characters; and none in a text with a special token of the chat.

    >>> extract_answer("<think>a page, two hands</think> <answer> reading\\n</answer>")
    'reading'

    Nothing, two answers, a tag left open, a tag inside the tag, or words after it are no answer:

    >>> [extract_answer(text) for text in ("", "reading", "<answer> </answer>", "<answer>reading",
    ...  "<answer>reading</answer><answer>running</answer>", "<answer><think>reading</think></answer>",
    ...  "<answer>reading</answer> or running")]
    [None, None, None, None, None, None, None]

    In the style "answer-first" reasoning may follow it, closed or cut off, and nothing else:

    >>> after = ["<think>a page</think>", "<think>a pa", "<think>a page</think>.", "<think>a</think><answer>b</answer>"]
    >>> [extract_answer("<answer>reading</answer>" + words, "answer-first") for words in after]
    ['reading', 'reading', None, None]
    """
    until = _before_reasoning(text) if style == "answer-first" else text
    if until.count("<answer>") != 1 or until.count("</answer>") != 1 or SPECIAL.search(text):
        return None
    found = re.search(r"<answer>(.+)</answer>\s*\Z", until, re.DOTALL)
    if found is None or TAG.search(found[1]):
        return None
    answer = found[1].strip()
    return None if is_blank(answer) or len(answer) > LONGEST else answer


def _before_reasoning(text: str) -> str:
    """What stands before the reasoning that ends a text; all of it where there is a tag, or a word after, in that."""
    before, _, reasoning = text.partition("<think>")
    return text if TAG.search(reasoning.rstrip().removesuffix("</think>")) else before


def accuracy_reward(
    completions: Sequence[Completion], label: Sequence[str] | str, style: str = "think", **columns: Any
) -> list[float]:
    """1.0 where the answer is the label after `normalise_label`, else 0.0. style: see `extract_answer`.

    `label` is one label per completion, or one string for all. ValueError if the numbers differ or a label is blank;
    TypeError for one completion that is not in a list.

    >>> accuracy_reward(["<think>two wheels</think><answer>Riding_a_bike.</answer>"], label=["riding a bike"])
    [1.0]

    A lenient match (a substring either way) gave each of these a full score, and policies collapsed on to them:

    >>> hacks = ["", "<answer></answer>", "<answer>.</answer>", "<answer>r</answer>", "<answer>bike</answer>",
    ...          "reading", "<answer>reading or running or riding a bike</answer>", "<answer>not reading</answer>",
    ...          "<answer>reading</answer><answer>reading</answer>", "<answer>reading</answer> reading"]
    >>> set(accuracy_reward(hacks, label="reading") + accuracy_reward(hacks, label="riding a bike"))
    {0.0}
    """
    texts = completion_texts(completions)
    labels = list(label) if isinstance(label, Iterable) and not isinstance(label, str) else [label] * len(texts)
    if len(labels) != len(texts):
        raise ValueError(f"{len(texts)} completions but {len(labels)} labels: one label per completion is needed")
    return [float(is_right(text, gold, style)) for text, gold in zip(texts, labels, strict=True)]


def is_right(text: str, label: str, style: str = "think") -> bool:
    """Whether the answer in a response is the label. style: see `extract_answer`.

    >>> is_right("<answer>Reading</answer>", "reading"), is_right("Reading", "reading")
    (True, False)
    """
    gold, answer = normalise_label(label), extract_answer(text, style)
    if not gold:
        raise ValueError(f"the label {label!r} is empty once normalised: no answer could ever match it")
    return answer is not None and normalise_label(answer) == gold


def format_reward(completions: Sequence[Completion], style: str = "think", **columns: Any) -> list[float]:
    """1.0 where the whole response has the asked form, else 0.0: each tag exactly once, something in each, nothing
    outside them. Style "think" is `<think>...</think><answer>...</answer>`, style "answer" the second part alone, and
    "answer-first" both in the other order.

    >>> format_reward(["<think>two hands, a page</think>\\n<answer>reading</answer>"])
    [1.0]
    >>> format_reward(["<answer>reading</answer>", "<think>a page</think><answer>reading</answer>"], style="answer")
    [1.0, 0.0]
    >>> format_reward(["<answer>reading</answer><think>a page</think>", "<answer>reading</answer>"], "answer-first")
    [1.0, 0.0]

    Empty parts, two tags, text after or before or between the tags, tags inside tags, and the wrong order score 0:

    >>> t, a = "<think>a page</think>", "<answer>reading</answer>"
    >>> hacks = ["", "<think></think><answer></answer>", "<think> </think>" + a, t + "<answer> </answer>", t + a + a,
    ...          t + a + ".", "Sure! " + t + a, t + "so" + a, a + t, t + t + a, "<think>" + t + "</think>" + a,
    ...          "<think>a <answer>page</answer></think>" + a, t, t + "<answer>reading"]
    >>> set(format_reward(hacks))
    {0.0}
    """
    if style not in RESPONSES:
        raise ValueError(f"unknown style {style!r}; the styles are {', '.join(RESPONSES)}")
    return [float(_well_formed(text, style)) for text in completion_texts(completions)]


def _well_formed(text: str, style: str) -> bool:
    pattern = RESPONSES[style]
    if len(TAG.findall(text)) != 2 * pattern.groups or SPECIAL.search(text):
        return False  # also because the pattern would take quadratic time to fail with more tags
    found = pattern.fullmatch(text)
    return found is not None and not any(is_blank(part) for part in found.groups())
