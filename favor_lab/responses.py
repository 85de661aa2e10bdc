"""What a response says, and which of its tokens say it: reasoning, answer, statements of evidence.

The one place that cuts a response into parts; `grpo.rewards` alone decides what counts as an answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from favor_lab.grpo.rewards import extract_answer, is_blank

if TYPE_CHECKING:
    from favor_lab.activities.world.scenes import Truth
    from favor_lab.grpo.sampling import Rollout
    from favor_lab.vlm.policy import Policy

Spans = Callable[[str], dict[str, tuple[int, int]]]  # text -> part -> where it starts and ends

ANY_TAG = re.compile(r"(</?\w+>)")
REASONING = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)


# ------------------------------------------------------------------------------------------------- parts of the text


def split_response(text: str) -> tuple[str | None, str | None]:
    """Reasoning and answer of a response, None for one that is missing.

    Reasoning is what follows `<think>`, up to `</think>` or, if that is missing, to the end. The answer is that of
    `extract_answer`.

    >>> split_response("<think>two wheels</think><answer>riding a bike</answer>"), split_response("reading")
    (('two wheels', 'riding a bike'), (None, None))
    """
    reasoning = REASONING.search(text)
    return reasoning[1] if reasoning else None, extract_answer(text)


def split_tags(text: str) -> list[tuple[str, str]]:
    """Cut a response at its tags: (piece, kind), where kind is "tag", "think", "answer" or "outside" of these.

    >>> split_tags("<answer>reading</answer>.")
    [('<answer>', 'tag'), ('reading', 'answer'), ('</answer>', 'tag'), ('.', 'outside')]
    """
    pieces, inside = [], "outside"
    for piece in ANY_TAG.split(text):
        if ANY_TAG.fullmatch(piece):
            pieces.append((piece, "tag"))
            inside = piece.strip("<>") if piece in ("<think>", "<answer>") else "outside"
        elif piece:
            pieces.append((piece, inside))
    return pieces


def response_spans(text: str) -> dict[str, tuple[int, int]]:
    """Where each part is in a response: from the end of its opening tag to the name in its closing tag.

    The closing tag belongs to a part, because "reading" and "reading a map" start alike; its last `>` does not, because
    a tokenizer may merge it with what follows. There is an answer where `extract_answer` finds one; reasoning without a
    closing tag ends where the answer starts.

    >>> text = "<think>long stride</think><answer>running</answer>"
    >>> {part: text[start:end] for part, (start, end) in response_spans(text).items()}
    {'reasoning': 'long stride</think', 'answer': 'running</answer'}
    """
    spans = {}
    has_answer = extract_answer(text) is not None
    answer_tag = text.index("<answer>") if has_answer else len(text)
    reasoning = REASONING.search(text[:answer_tag])
    if reasoning and not is_blank(reasoning[1]):
        spans["reasoning"] = (reasoning.start(1), max(reasoning.end() - 1, reasoning.end(1)))
    if has_answer:
        spans["answer"] = (answer_tag + len("<answer>"), text.index("</answer>") + len("</answer"))
    return spans


def part_masks(policy: Policy, rollout: Rollout, spans: Spans = response_spans) -> dict[str, Tensor]:
    """Which tokens of each completion belong to its answer, which to its reasoning: masks (N, L) by part, on the CPU.

    A token counts if any of its characters does: in some vocabularies the first letters of an answer share a token
    with the `>` before it. A row without an answer, or without reasoning, is all False there.
    spans: another way to cut a text into parts, such as one part per statement.
    """
    masks: dict[str, Tensor] = {}
    for n, (ids, keep) in enumerate(zip(rollout.completion_ids, rollout.mask, strict=True)):
        row = ids[keep].tolist()
        prefixes = [row[:length] for length in range(1, len(row) + 1)]
        texts = policy.tokenizer.batch_decode(prefixes, skip_special_tokens=True)
        ends = [len(text) for text in texts]  # characters written up to and including each token
        for part, (first, last) in spans(texts[-1]).items():
            mask = masks.setdefault(part, torch.zeros(rollout.mask.shape, dtype=torch.bool))  # (N, L)
            for j, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                mask[n, j] = start < last and end > first
    return masks


# ------------------------------------------------------------------------------------------- statements of evidence


def reasoning_statements(text: str) -> list[str]:
    """The statements of a response's reasoning, in order: cut at full stops, commas and semicolons, in lower case,
    duplicates removed. Empty for a response without reasoning; a `<think>` without closing tag reaches to the end.

    >>> reasoning_statements("<think>Standing, hands together. standing</think><answer>applauding</answer>")
    ['standing', 'hands together']
    """
    pieces = re.split(r"[.,;\n]", split_response(text)[0] or "")
    return [piece for piece in dict.fromkeys(piece.strip().casefold() for piece in pieces) if piece]


@dataclass(frozen=True)
class Statement:
    """One statement of the reasoning and whether it is true of the image."""

    text: str
    verdict: str  #: "true", "false", "not a statement" (of the drawn world's language), "unknown" (not a drawn scene)


@functools.lru_cache(maxsize=4096)
def _truth(source: str) -> Truth:
    from favor_lab.activities.world.scenes import scene_from_source

    return scene_from_source(source).truth


def judge_reasoning(text: str, source: str) -> list[Statement]:
    """Each statement of a response's reasoning with its verdict, in the order of the text.

    >>> for statement in judge_reasoning("<think>Dancing, phone at the ear. standing", "cartoon/test/000006"):
    ...     print(statement.verdict, "|", statement.text)
    not a statement | dancing
    true | phone at the ear
    false | standing
    """
    from favor_lab.activities.world.catalogue import STATEMENTS
    from favor_lab.activities.world.scenes import is_pocket_source

    def verdict(statement: str) -> str:
        if not is_pocket_source(source):
            return "unknown"
        if statement in _truth(source).statements:
            return "true"
        return "false" if statement in STATEMENTS else "not a statement"

    return [Statement(statement, verdict(statement)) for statement in reasoning_statements(text)]


def judge_statements(text: str, source: str) -> tuple[int, int]:
    """How many statements the reasoning makes about a drawn scene, and how many are true: (stated, true).

    Statements and verdicts are those of `judge_reasoning`; one outside the drawn world's language counts as stated and
    not true. (0, 0) for images whose truth is not known.

    >>> judge_statements("<think>phone at the ear. dancing.</think><answer>phoning</answer>", "cartoon/test/00006")
    (2, 1)
    """
    verdicts = [statement.verdict for statement in judge_reasoning(text, source)]
    return (0, 0) if "unknown" in verdicts else (len(verdicts), verdicts.count("true"))
