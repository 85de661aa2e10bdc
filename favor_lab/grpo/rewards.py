"""Step 2 of GRPO: the reward of each completion.

A reward function has TRL's signature, so the same function works in this loop and in `trl.GRPOTrainer`:
`f(completions, prompts=..., completion_ids=..., **columns) -> list[float]`, one number per completion, where the
columns are those of the data set (here `label` and `source`). Completions are plain strings or lists of chat messages.

A reward is all that the policy learns from, and reinforcement learning finds whatever a reward pays by mistake (reward
hacking). So the match is exact, and the doctest of each function lists completions that must earn nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

Completion = str | list[dict[str, Any]]

TAG = re.compile(r"</?(?:think|answer)>")
RESPONSES = {
    "think": re.compile(r"\s*<think>(.+?)</think>\s*<answer>(.+?)</answer>\s*", re.DOTALL),
    "answer": re.compile(r"\s*<answer>(.+?)</answer>\s*", re.DOTALL),
}
LONGEST = 1000  # characters of an answer: NFKC normalisation sorts combining marks in quadratic time


def completion_text(completion: Completion) -> str:
    """The text of a completion: the string itself, or the content of the last of its chat messages. No message or no
    content (a chat model's call of a tool has none) is an empty text.

    >>> completion_text([{"role": "assistant", "content": "<answer>reading</answer>"}])
    '<answer>reading</answer>'
    """
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or ())


def is_blank(text: str) -> bool:
    """Whether nothing in a text can be seen: spaces, line breaks, control and zero-width characters.

    >>> is_blank(" \\n\\u200b"), is_blank(".")
    (True, False)
    """
    return not any(letter.isprintable() and letter != " " for letter in text)


def extract_answer(text: str) -> str | None:
    """What stands between `<answer>` and `</answer>`: None unless there is exactly one such pair, closing the text, and
    something is in it, of at most `LONGEST` characters.

    >>> extract_answer("<think>a page, two hands</think> <answer> reading\\n</answer>")
    'reading'

    Nothing, two answers, a tag left open, a tag inside the tag, or words after it are no answer:

    >>> [extract_answer(text) for text in ("", "reading", "<answer> </answer>", "<answer>reading",
    ...  "<answer>reading</answer><answer>running</answer>", "<answer><think>reading</think></answer>",
    ...  "<answer>reading</answer> or running")]
    [None, None, None, None, None, None, None]
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    found = re.search(r"<answer>(.+)</answer>\s*\Z", text, re.DOTALL)
    if found is None or TAG.search(found[1]):
        return None
    answer = found[1].strip()
    return None if is_blank(answer) or len(answer) > LONGEST else answer


def normalise_label(text: str) -> str:
    """A label as it is compared: without case, underscores, hyphens, surplus space, and full stops at the end.

    >>> normalise_label(" Riding_a-Bike. ")
    'riding a bike'
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", text).strip().rstrip(". ")


def accuracy_reward(completions: Sequence[Completion], label: Sequence[str] | str, **columns: Any) -> list[float]:
    """1.0 where the answer is the label after `normalise_label`, else 0.0.

    `label` is one label per completion, or one string for all. ValueError if the numbers differ or a label is blank.

    >>> accuracy_reward(["<think>two wheels</think><answer>Riding_a_bike.</answer>"], label=["riding a bike"])
    [1.0]

    A lenient match (a substring either way) gave each of these a full score, and policies collapsed on to them:

    >>> hacks = ["", "<answer></answer>", "<answer>.</answer>", "<answer>r</answer>", "<answer>bike</answer>",
    ...          "reading", "<answer>reading or running or riding a bike</answer>", "<answer>not reading</answer>",
    ...          "<answer>reading</answer><answer>reading</answer>", "<answer>reading</answer> reading"]
    >>> set(accuracy_reward(hacks, label="reading") + accuracy_reward(hacks, label="riding a bike"))
    {0.0}
    """
    labels = [label] * len(completions) if isinstance(label, str) else list(label)
    if len(labels) != len(completions):
        raise ValueError(f"{len(completions)} completions but {len(labels)} labels: one label per completion is needed")
    return [float(is_right(completion_text(text), gold)) for text, gold in zip(completions, labels, strict=True)]


def is_right(text: str, label: str) -> bool:
    """Whether the answer in a response is the label.

    >>> is_right("<answer>Reading</answer>", "reading"), is_right("Reading", "reading")
    (True, False)
    """
    gold, answer = normalise_label(label), extract_answer(text)
    if not gold:
        raise ValueError(f"the label {label!r} is empty once normalised: no answer could ever match it")
    return answer is not None and normalise_label(answer) == gold


def format_reward(completions: Sequence[Completion], style: str = "think", **columns: Any) -> list[float]:
    """1.0 where the whole response has the asked form, else 0.0: each tag exactly once, something in each, nothing
    outside them. Style "think" is `<think>...</think><answer>...</answer>`, style "answer" the second part alone.

    >>> format_reward(["<think>two hands, a page</think>\\n<answer>reading</answer>"])
    [1.0]
    >>> format_reward(["<answer>reading</answer>", "<think>a page</think><answer>reading</answer>"], style="answer")
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
    return [float(_well_formed(completion_text(text), style)) for text in completions]


def _well_formed(text: str, style: str) -> bool:
    pattern = RESPONSES[style]
    if len(TAG.findall(text)) != 2 * pattern.groups:  # with more, the pattern would take quadratic time to fail
        return False
    found = pattern.fullmatch(text)
    return found is not None and not any(is_blank(part) for part in found.groups())
