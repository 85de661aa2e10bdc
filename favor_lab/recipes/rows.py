"""How rows that this step has not sampled enter a group: a response with the label (ViSurf, TempSamp-R1), an earlier
success (ARPO). And what recipes ask about such rows.

Old log-probabilities: a row made here has NaN in their place, so the first scoring pass fills in those of the current
policy, and its ratio starts at 1, as the published methods do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from favor_lab.grpo.advantages import to_groups
from favor_lab.grpo.rewards import format_reward, is_right
from favor_lab.grpo.sampling import encode_completions, texts_of
from favor_lab.grpo.support.rollout import Rollout
from favor_lab.responses import part_masks
from favor_lab.vlm.upload import upload

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.policy import Policy

FORMS = ("own", "bare")


def label_rows(rollout: Rollout, context: Context, form: str = "own") -> Rollout:
    """The right answer as a row of origin "label" for each group, without rewards.

    form: "own" writes it behind the reasoning of the group's first well-formed completion; a group without one, or
    whose row would be longer than `max_new_tokens`, gets none. "bare" writes the answer alone, for every group: in the
    style "think" that is a response without reasoning. In the style "answer" both are the answer alone. ValueError for
    another form, and for a bare answer that is longer than `max_new_tokens`.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} of a label's row; the forms are {', '.join(FORMS)}")
    starts = dict.fromkeys(rollout.groups.tolist(), "")  # prompt index -> what is written before the answer
    alone = form == "bare" or context.question.style == "answer"
    if not alone:
        well_formed = format_reward(rollout.texts, style=context.question.style)
        rows = list(zip(rollout.groups.tolist(), rollout.texts, well_formed, strict=True))
        starts = {b: text[: text.index("<answer>")] for b, text, is_good in reversed(rows) if is_good}
    if not starts:
        return rollout.rows([])
    texts = [f"{start}<answer>{context.prompts.labels[b]}</answer>" for b, start in starts.items()]
    labelled = encode_completions(
        context.policy, texts, list(starts), origin="label", temperature=rollout.temperature,
        group_size=rollout.group_size,
    )  # fmt: skip
    longest, fits = context.settings.max_new_tokens, labelled.lengths <= context.settings.max_new_tokens
    if alone and not bool(fits.all()):
        text, length = texts[int(labelled.lengths.argmax())], int(labelled.lengths.max())
        raise ValueError(
            f"the row of a label, {text!r}, has {length} tokens, but max_new_tokens is {longest}: raise it"
        )
    return labelled.rows(fits) if bool(fits.any()) else rollout.rows([])


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
    labels = context.prompts.labels
    right = [is_right(text, labels[b]) for text, b in zip(rollout.texts, rollout.groups.tolist(), strict=True)]
    return upload(right, rollout.mask.device, torch.bool)


def of_origin(rollout: Rollout, origin: str) -> Tensor:
    """Rows of this origin: (N,) bool."""
    return upload([name == origin for name in rollout.origin], rollout.mask.device, torch.bool)


def answer_tokens(rollout: Rollout, context: Context) -> Tensor:
    """The tokens of each row's answer, its closing tag included: (N, L) bool. See `responses.response_spans`."""
    none = torch.zeros_like(rollout.mask)
    return part_masks(context.policy, rollout).get("answer", none).to(rollout.mask.device)


def token_table(values: Tensor, groups: Tensor) -> Tensor:
    """One number per token of each row, (N, L), as a table of groups, (B, G, L), in the order of `to_groups`; 0 for
    absent rows.

    >>> token_table(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 7, 0]))
    tensor([[[1., 2.],
             [5., 6.]],
    <BLANKLINE>
            [[3., 4.],
             [0., 0.]]])
    """
    table, place = to_groups(values[:, 0], groups)  # (B, G)
    by_token = values.new_zeros(*table.shape, values.shape[1])  # (B, G, L)
    by_token[place] = values
    return by_token
