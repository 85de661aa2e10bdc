"""What a response says, and which of its tokens say it: the only place that cuts a response into reasoning, answer and
statements of evidence. `grpo.rewards` alone decides what counts as an answer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from favor_lab.activities.labels import is_blank
from favor_lab.grpo.rewards import extract_answer
from favor_lab.grpo.sampling import texts_of
from favor_lab.grpo.support.rollout import token_lists

if TYPE_CHECKING:
    from favor_lab.grpo.sampling import Rollout
    from favor_lab.vlm.policy import Policy

Spans = Callable[[str], dict[str, tuple[int, int]]]  # text -> part -> where it starts and ends

ANY_TAG = re.compile(r"(</?\w+>)")
REASONING = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)


def split_response(text: str, style: str = "think") -> tuple[str | None, str | None]:
    """Reasoning and answer of a response, None for one that is missing. Reasoning is what follows `<think>`, up to
    `</think>` or, if that is missing, to the end. The answer is that of `extract_answer`, in the given style.

    >>> split_response("<think>two wheels</think><answer>riding a bike</answer>"), split_response("reading")
    (('two wheels', 'riding a bike'), (None, None))
    >>> split_response("<answer>riding a bike</answer><think>two wheels</think>", "answer-first")
    ('two wheels', 'riding a bike')
    """
    reasoning = REASONING.search(text)
    return reasoning[1] if reasoning else None, extract_answer(text, style)


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


def response_spans(text: str, style: str = "think") -> dict[str, tuple[int, int]]:
    """Where each part is in a response: from the end of its opening tag to the name in its closing tag.

    The closing tag is part of it, because "reading" and "reading a map" start alike; its last `>` is not: a tokenizer
    may merge it with what follows. An answer is one of `extract_answer`, in the given style; unclosed reasoning ends
    where it starts.

    >>> text = "<think>long stride</think><answer>running</answer>"
    >>> {part: text[start:end] for part, (start, end) in response_spans(text).items()}
    {'reasoning': 'long stride</think', 'answer': 'running</answer'}
    """
    answer = {}
    if extract_answer(text, style) is not None:
        answer = {"answer": (text.index("<answer>") + len("<answer>"), text.index("</answer>") + len("</answer"))}
        text = text if style == "answer-first" else text[: text.index("<answer>")]
    reasoning = REASONING.search(text)
    if reasoning is None or is_blank(reasoning[1]):
        return answer
    return {"reasoning": (reasoning.start(1), max(reasoning.end() - 1, reasoning.end(1)))} | answer


def part_masks(policy: Policy, rollout: Rollout, spans: Spans = response_spans) -> dict[str, Tensor]:
    """Which tokens of each completion belong to its answer, which to its reasoning: masks (N, L) by part, on the CPU;
    a row that lacks the part is all False there. A token counts if any of its characters does: in some vocabularies the
    first letters of an answer share a token with the `>` before it.
    spans: another way to cut a text, such as one part per statement."""
    masks: dict[str, Tensor] = {}
    for n, row in enumerate(token_lists(rollout.completion_ids, rollout.mask)):
        texts = texts_of(policy, [row[: j + 1] for j in range(len(row))])
        ends = [len(text) for text in texts]  # characters written up to and including each token
        for part, (first, last) in spans(texts[-1]).items():
            mask = masks.setdefault(part, torch.zeros(rollout.mask.shape, dtype=torch.bool))  # (N, L)
            for j, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                mask[n, j] = start < last and end > first
    return masks


def reasoning_statements(text: str) -> list[str]:
    """The statements of a response's reasoning (see `split_response`), in order: cut at full stops, commas, semicolons
    and line breaks, in lower case, duplicates removed. Empty for a response without reasoning.

    >>> reasoning_statements("<think>Standing, hands together. standing</think><answer>applauding</answer>")
    ['standing', 'hands together']
    """
    pieces = re.split(r"[.,;\n]", (split_response(text)[0] or "").casefold())
    return [piece for piece in dict.fromkeys(piece.strip() for piece in pieces) if piece]


@dataclass(frozen=True)
class Statement:
    """One statement of the reasoning and whether it is true of the image."""

    text: str
    verdict: str  #: "true", "false", "not a statement" (of the drawn world's language), "unknown" (not a drawn scene)


@functools.lru_cache(maxsize=4096)
def _true_statements(source: str) -> tuple[str, ...] | None:
    """What is true of a drawn scene; None for another image."""
    from favor_lab.activities.world.scenes import is_pocket_source, scene_from_source

    return scene_from_source(source).truth.statements if is_pocket_source(source) else None


def judge_reasoning(text: str, source: str) -> list[Statement]:
    """Each statement of a response's reasoning with its verdict, in the order of the text.

    >>> statements = judge_reasoning("<think>Dancing, phone at the ear. standing", "cartoon/test/000006")
    >>> [(statement.verdict, statement.text) for statement in statements]
    [('not a statement', 'dancing'), ('true', 'phone at the ear'), ('false', 'standing')]
    """
    from favor_lab.activities.world.catalogue import STATEMENTS

    statements, true = reasoning_statements(text), _true_statements(source)
    if true is None:
        return [Statement(statement, "unknown") for statement in statements]
    verdicts = dict.fromkeys(STATEMENTS, "false") | dict.fromkeys(true, "true")
    return [Statement(statement, verdicts.get(statement, "not a statement")) for statement in statements]


def judge_statements(text: str, source: str) -> tuple[int, int]:
    """How many statements the reasoning makes about a drawn scene, and how many are true, by `judge_reasoning`. One
    outside the drawn world's language is stated and not true; (0, 0) if no truth is known.

    >>> judge_statements("<think>phone at the ear. dancing.</think><answer>phoning</answer>", "cartoon/test/00006")
    (2, 1)
    """
    verdicts = [statement.verdict for statement in judge_reasoning(text, source)]
    return (0, 0) if "unknown" in verdicts else (len(verdicts), verdicts.count("true"))
