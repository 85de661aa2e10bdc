"""Ask a policy about images that have no label: its answer, how probable that answer is, and its reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from favor_lab.activities.images import Picture, as_example
from favor_lab.arguments import check_count
from favor_lab.grpo.rewards import extract_answer, normalise_label
from favor_lab.grpo.sampling import encode_completions, score_completions
from favor_lab.progress import progress_bar
from favor_lab.responses import part_masks, response_spans, split_response
from favor_lab.study.evaluation import greedy_rollout
from favor_lab.vlm.processing import PromptBatch, encode_prompts
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.grpo.sampling import Rollout
    from favor_lab.vlm.policy import Policy


@dataclass(frozen=True)
class Answer:
    """What a policy says about one image."""

    label: str | None  #: the answer, in the spelling of the list of labels; None for no answer, or one not in the list
    probability: float | None  #: of the label; None where there is no label
    reasoning: str | None  #: what stands between the think tags
    text: str  #: the whole response
    source: str = ""  #: path of the image, or its number in the call
    probabilities: dict[str, float] = field(default_factory=dict)  #: of every label of the list; they add up to 1


def answer(
    policy: Policy,
    images: Picture | Sequence[Picture],
    labels: Sequence[str] | None,
    style: str = "think",
    *,
    max_new_tokens: int = 128,
    batch_size: int = 32,
    progress: str | None = None,
) -> list[Answer]:
    """The policy's greedy response to each image, and the probability of its answer.

    images: paths, PIL images or Examples; one alone is a list of one. labels: the closed list named in the prompt, or
    None for an open vocabulary. style: as in training. progress: title of a progress bar, or None for no bar.

    With a list, the probability is that of the label among all labels of the list, each written as the answer after the
    response's own reasoning. With an open vocabulary it is that of the answer's text as it was generated.
    Raises ValueError, naming the image, for one that cannot be read, and for no images.
    """
    question = Question(labels, style)
    pictures = [images] if isinstance(images, Picture) else list(images)
    examples = [as_example(picture, f"image {number}") for number, picture in enumerate(pictures, 1)]
    if not examples:
        raise ValueError("no images to ask about")
    check_count("batch_size", batch_size, least=1)
    check_count("max_new_tokens", max_new_tokens, least=1)
    answers: list[Answer] = []
    with progress_bar(total=len(examples), desc=progress, unit="image", show=progress is not None) as bar:
        for first in range(0, len(examples), batch_size):
            batch = examples[first : first + batch_size]
            prompts = encode_prompts(policy, batch, question, completion_tokens=max_new_tokens)
            answers += answer_prompts(policy, prompts, labels, max_new_tokens, batch_size, style)
            bar.update(len(batch))
    return answers


@torch.no_grad()
def answer_prompts(
    policy: Policy,
    prompts: PromptBatch,
    labels: Sequence[str] | None,
    max_new_tokens: int,
    rows_per_pass: int = 32,
    style: str = "think",
) -> list[Answer]:
    """The answers to prompts that are encoded already and ask for this style."""
    rollout = greedy_rollout(policy, prompts, max_new_tokens)
    if labels is None:
        return [
            Answer(extract_answer(text, style), probability, split_response(text)[0], text, source)
            for text, source, probability in zip(
                rollout.texts, prompts.sources, answer_probabilities(policy, prompts, rollout, style), strict=True
            )
        ]
    spelling = {normalise_label(label): label for label in labels}
    shares = label_probabilities(policy, prompts, rollout.texts, labels, rows_per_pass)
    answers = []
    for text, source, share in zip(rollout.texts, prompts.sources, shares, strict=True):
        label = spelling.get(normalise_label(extract_answer(text, style) or ""))
        answers.append(Answer(label, share[label] if label else None, split_response(text)[0], text, source, share))
    return answers


def answer_probabilities(
    policy: Policy, prompts: PromptBatch, rollout: Rollout, style: str = "think"
) -> list[float | None]:
    """Probability of each response's answer as it was generated, given the image and the reasoning before it; None
    where there is no answer."""
    logps = score_completions(policy, prompts, rollout).cpu()  # (B, L)
    masks = part_masks(policy, rollout, partial(response_spans, style=style))  # (B, L) each
    mask = masks.get("answer", torch.zeros_like(logps, dtype=torch.bool))  # (B, L)
    totals = logps.masked_fill(~mask, 0.0).sum(dim=1).exp().tolist()  # (B,)
    return [total if has_answer else None for total, has_answer in zip(totals, mask.any(dim=1).tolist(), strict=True)]


def label_probabilities(
    policy: Policy, prompts: PromptBatch, texts: Sequence[str], labels: Sequence[str], rows_per_pass: int = 32
) -> list[dict[str, float]]:
    """Probability of each label as the answer after each response's own reasoning, among the labels: they add up to 1.
    Empty for a response that never begins an answer.

    A label's score is that of the whole response with this answer in it. What stands before the answer is the same for
    all labels of an image, so it cancels.
    """
    begins = [text.partition("<answer>")[0] if "<answer>" in text else None for text in texts]
    asked = [b for b, begin in enumerate(begins) if begin is not None]
    if not asked:
        return [{} for _ in texts]
    rows = [f"{begins[b]}<answer>{label}</answer>" for b in asked for label in labels]  # image-major
    groups = torch.tensor(asked).repeat_interleave(len(labels))  # (N,)
    written = encode_completions(policy, rows, groups)
    logps = score_completions(policy, prompts, written, rows_per_pass=rows_per_pass)  # (N, L)
    shares = logps.cpu().double().sum(dim=1).view(len(asked), len(labels)).softmax(dim=1)  # (images asked, labels)
    found = dict(zip(asked, (dict(zip(labels, share, strict=True)) for share in shares.tolist()), strict=True))
    return [found.get(b, {}) for b in range(len(texts))]
