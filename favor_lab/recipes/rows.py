"""How rows that this step has not sampled enter a group: a response with the label (ViSurf, TempSamp-R1), an earlier
success (ARPO), other images (DAPO). And what recipes ask about such rows.

Old log-probabilities: a row made here has NaN in their place, so the first scoring pass fills in those of the current
policy, and its ratio starts at 1, as the published methods do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from favor_lab.grpo.rewards import format_reward, is_right
from favor_lab.grpo.sampling import encode_completions, sample_groups, texts_of
from favor_lab.grpo.support.rollout import Rollout
from favor_lab.grpo.support.schedule import seed_for
from favor_lab.responses import part_masks, response_spans
from favor_lab.vlm.upload import upload

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

FORMS = ("own", "bare")


def label_rows(rollout: Rollout, context: Context, form: str = "own") -> Rollout:
    """The right answer as a row of origin "label" for each group, without rewards.

    form: "own" writes it in place of the answer in the group's first well-formed completion, beside the reasoning that
    it has; a group without one, or whose row would be longer than `max_new_tokens`, gets none. "bare" writes the answer
    alone, for every group: in a style with reasoning that is a response without it. In the style "answer" both are the
    answer alone. ValueError for another form, and for a bare answer that is longer than `max_new_tokens`.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} of a label's row; the forms are {', '.join(FORMS)}")
    around = dict.fromkeys(rollout.groups.tolist(), ("", ""))  # prompt index -> what is before and after the answer
    alone = form == "bare" or context.question.style == "answer"
    if not alone:
        well_formed = format_reward(rollout.texts, style=context.question.style)
        rows = list(zip(rollout.groups.tolist(), rollout.texts, well_formed, strict=True))
        around = {b: around_answer(text) for b, text, is_good in reversed(rows) if is_good}
    if not around:
        return rollout.rows([])
    labels = context.prompts.labels
    texts = [f"{before}<answer>{labels[b]}</answer>{after}" for b, (before, after) in around.items()]
    labelled = encode_completions(
        context.policy, texts, list(around), origin="label", temperature=rollout.temperature,
        group_size=rollout.group_size,
    )  # fmt: skip
    longest, fits = context.settings.max_new_tokens, labelled.lengths <= context.settings.max_new_tokens
    if alone and not bool(fits.all()):
        text, length = texts[int(labelled.lengths.argmax())], int(labelled.lengths.max())
        raise ValueError(
            f"the row of a label, {text!r}, has {length} tokens, but max_new_tokens is {longest}: raise it"
        )
    return labelled.rows(fits) if bool(fits.any()) else rollout.rows([])


def around_answer(text: str) -> tuple[str, str]:
    """What stands before the answer of a well-formed response, and after it.

    >>> around_answer("<think>a page</think><answer>reading</answer>")
    ('<think>a page</think>', '')
    >>> around_answer("<answer>reading</answer><think>a page</think>")
    ('', '<think>a page</think>')
    """
    before, _, rest = text.partition("<answer>")
    return before, rest.partition("</answer>")[2].rstrip()


def sample_beside(context: Context, prompts: PromptBatch, group_size: int, seed: int) -> Rollout:
    """Completions of other prompts than the step's, `group_size` for each, with the settings of the run."""
    settings = context.settings
    about = (settings.max_new_tokens, settings.temperature, seed)
    return sample_groups(context.policy, prompts, group_size, *about, decoding=settings.decoding)


def count_right_responses(context: Context, samples: int = 8) -> list[int]:
    """How many of `samples` responses are right, for each training image in its order; costs their sampling, as many
    images at a time as a step has."""
    size, seed, counts = context.settings.prompts_per_step, context.settings.seed, [0] * len(context.pool)
    for start in range(0, len(context.pool), size):
        prompts = context.pool[start : start + size]
        rollout = sample_beside(context, prompts, int(samples), seed_for(seed, "right responses", start))
        for text, group in zip(rollout.texts, rollout.groups.tolist(), strict=True):
            counts[start + group] += is_right(text, prompts.labels[group], context.question.style)
    return counts


def rows_of_ids(policy: Policy, ids: Sequence[list[int]], groups: Sequence[int], origin: str, like: Rollout) -> Rollout:
    """Rows from token ids that were sampled earlier, one list per row, without rewards; groups: prompt index of each.
    like: a rollout of the same sampling. The ids are scored as they are: a text that is tokenised again may differ."""
    longest, device = max(map(len, ids)), like.mask.device
    padded = [row + [policy.pad_token_id] * (longest - len(row)) for row in ids]
    lengths = upload([len(row) for row in ids], device)  # (n,)
    mask = torch.arange(longest, device=device) < lengths[:, None]  # (n, L)
    logps = torch.zeros(mask.shape, device=device).masked_fill(mask, torch.nan)  # (n, L)
    about = (like.temperature, like.end_token_ids)
    texts, origins = texts_of(policy, list(ids)), [origin] * len(ids)
    return Rollout(upload(padded, device), mask, logps, texts, like.group_size, upload(groups, device), origins, *about)


def rewarded(rows: Rollout, context: Context) -> Rollout:
    """Added rows with their rewards, before they are joined to those that have theirs (`sampling.join`). Meanwhile they
    are `context.rollout`: a reward that scores the step's rows scores these, and one that compares the completions of a
    group sees these alone."""
    if len(rows) == 0:
        return rows
    before, context.rollout = context.rollout, rows
    try:
        return context.compute_rewards(rows)
    finally:
        context.rollout = before


def right_rows(rollout: Rollout, context: Context) -> Tensor:
    """Whether each row's answer is its image's label, (N,) bool: accuracy alone, whatever the rewards are. With a point
    for the form, a wrong and well-formed completion has as many as a right and bare one."""
    labels, style = context.prompts.labels, context.question.style
    right = [is_right(text, labels[b], style) for text, b in zip(rollout.texts, rollout.groups.tolist(), strict=True)]
    return upload(right, rollout.mask.device, torch.bool)


def of_origin(rollout: Rollout, origin: str) -> Tensor:
    """Rows of this origin: (N,) bool."""
    return upload([name == origin for name in rollout.origin], rollout.mask.device, torch.bool)


def answer_tokens(rollout: Rollout, context: Context) -> Tensor:
    """The tokens of each row's answer, its closing tag included: (N, L) bool. See `responses.response_spans`."""
    none = torch.zeros_like(rollout.mask)
    masks = part_masks(context.policy, rollout, partial(response_spans, style=context.question.style))
    return masks.get("answer", none).to(rollout.mask.device)
