"""Step 1 of GRPO: sample G completions of each prompt, and score them.

The distribution is explicit: softmax(logits / temperature) over all tokens but the forbidden ones. Nothing is taken
from the checkpoint's generation_config, whose near-greedy values (top_k 1 in Qwen2-VL's) would make eight copies of
one completion. What is scored are the ids that were sampled, never a text that was tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from favor_lab.activities.labels import refuse_string
from favor_lab.grpo.support.rollout import Rollout, check_rows, join, token_lists
from favor_lab.grpo.support.settings import Scoring
from favor_lab.vlm.fast.decoding import start_decoding
from favor_lab.vlm.fast.packed import packed_hidden
from favor_lab.vlm.prefix import completion_hidden, expand, next_token_logps, run_prompt, token_logps
from favor_lab.vlm.upload import upload

__all__ = ["Rollout", "encode_completions", "join", "sample_groups", "score_completions", "score_distributions"]

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


@torch.no_grad()
def sample_groups(
    policy: Policy,
    prompts: PromptBatch,
    group_size: int = 8,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int | None = None,
    *,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    decoding: str = "auto",
) -> Rollout:
    """Sample `group_size` completions of each prompt, of at most `max_new_tokens` tokens: a Rollout of N = B * G rows.

    seed: the same seed gives the same completions on the same machine; or pass a `generator` on the policy's device.
    top_k, top_p: off (0 and 1.0), and to be left off for training: what they cut away is still scored.
    decoding: see `favor_lab.vlm.fast.decoding`: "plain" is transformers token by token; the others are faster.
    Raises FloatingPointError, naming the row, where the model's output is not a number.
    """
    if generator is None and seed is not None:
        generator = torch.Generator(policy.device).manual_seed(seed)
    groups = torch.arange(len(prompts), device=policy.device).repeat_interleave(group_size)  # (N,) prompt-major
    ids = torch.full((len(groups), max_new_tokens), policy.pad_token_id, device=policy.device)  # (N, L)
    mask, logps = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.float32)
    ends = upload(policy.end_token_ids, policy.device)
    everyone = torch.arange(len(groups), device=policy.device)  # (N,)
    with start_decoding(policy, prompts, groups, max_new_tokens, decoding) as decoder:
        active, hidden, length = everyone, decoder.hidden, 0  # (A,) rows that have not ended, (A, D)
        for j in range(max_new_tokens):
            choices = truncate(next_token_logps(policy, hidden, temperature), top_k, top_p)  # (A, V)
            tokens = draw_tokens(choices, generator)  # (A,)
            # the one place in the loop where a GPU is waited for: two facts about each of the A rows
            broken, ended = torch.stack([choices.sum(dim=1).isnan(), torch.isin(tokens, ends)]).tolist()
            if any(broken):
                bad = torch.isin(everyone, active[upload(broken, policy.device)])  # (N,)
                check_rows(bad, prompts, groups, f"the distribution of token {j}")
            ids[active, j], mask[active, j] = tokens, True
            logps[active, j] = choices.gather(1, tokens[:, None])[:, 0]
            length, going = j + 1, [row for row, is_last in enumerate(ended) if not is_last]
            if not going or length == max_new_tokens:
                break
            if len(going) < len(active):  # the others leave
                rows = upload(going, policy.device)
                active, tokens = active[rows], tokens[rows]
                decoder.keep(going)
            hidden = decoder.step(tokens)  # (A, D)
    ids, mask, logps = ids[:, :length], mask[:, :length], logps[:, :length]  # (N, L)
    texts, origin = decode(policy, ids, mask), ["sampled"] * len(groups)
    return Rollout(ids, mask, logps, texts, group_size, groups, origin, temperature, policy.end_token_ids)


def draw_tokens(logps: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One token of each distribution, (A, V) -> (A,), by inverting its cumulative distribution at a random number.

    One random number per row, where `torch.multinomial` draws V of them; float64, so that the sum over V stays exact
    (float32 on Apple's GPUs, which have no float64).

    >>> draw_tokens(torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).log())[0]
    tensor(1)
    """
    dtype = torch.float32 if logps.device.type == "mps" else torch.float64
    mass = logps.exp().cumsum(dim=-1, dtype=dtype)  # (A, V)
    reached = torch.rand(len(mass), 1, dtype=mass.dtype, device=mass.device, generator=generator) * mass[:, -1:]
    return torch.searchsorted(mass, reached, right=True)[:, 0]


def truncate(logps: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Log-probabilities (..., V) of the k likeliest tokens only, and of the fewest that hold a mass of p, renormalised.

    >>> truncate(torch.tensor([0.5, 0.3, 0.2]).log(), top_k=2).exp()
    tensor([0.6250, 0.3750, 0.0000])
    >>> truncate(torch.tensor([0.5, 0.3, 0.2]).log(), top_p=0.4).exp()
    tensor([1., 0., 0.])
    """
    if top_k <= 0 and top_p >= 1.0:
        return logps
    ordered, order = logps.sort(dim=-1, descending=True)  # (..., V)
    mass_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    out = mass_before >= top_p
    if top_k > 0:
        out[..., top_k:] = True
    return logps.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -torch.inf).log_softmax(dim=-1)


@overload
def score_completions(
    policy: Policy, prompts: PromptBatch, rollout: Rollout, *,
    rows_per_pass: int = ..., entropy: Literal[False] = ..., gradient_checkpointing: bool = ..., how: Scoring = ...,
) -> Tensor: ...  # fmt: skip
@overload
def score_completions(
    policy: Policy, prompts: PromptBatch, rollout: Rollout, *,
    rows_per_pass: int = ..., entropy: Literal[True], gradient_checkpointing: bool = ..., how: Scoring = ...,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def score_completions(
    policy, prompts, rollout, *, rows_per_pass=0, entropy=False, gradient_checkpointing=False, how="packed"
):
    """Log-probability of every sampled token under the policy as it is now: (N, L) float32, 0 where the mask is False.

    Differentiable. The distribution is the one that `sample_groups` draws from, at the rollout's temperature.
    rows_per_pass: completions scored at once, to bound memory (0: all). entropy: also return the entropy of the
    distribution at each position, (N, L) in nats. gradient_checkpointing: the backward pass recomputes each layer.
    how: "packed" runs every token once (`vlm.fast.packed`); "plain" is transformers' own forward pass with the prompt
    in its cache (`vlm.prefix`), slower and the same to rounding: the one to read.
    """
    parts = []
    for rows in torch.arange(len(rollout)).split(rows_per_pass or max(len(rollout), 1)):
        part = rollout.rows(rows)
        hidden = completion_states(policy, prompts, part, how, gradient_checkpointing)  # (M, D)
        ids = part.completion_ids[part.mask]  # (M,)
        by_token = token_logps(policy, hidden, ids, part.temperature)  # (M,) each
        empty = torch.zeros(part.mask.shape, device=part.mask.device)
        parts.append([empty.masked_scatter(part.mask, values) for values in by_token])  # (n, L) each
    logps, entropies = (torch.cat(column) for column in zip(*parts, strict=True))  # (N, L) each
    return (logps, entropies) if entropy else logps


def score_distributions(
    policy: Policy,
    prompts: PromptBatch,
    rollout: Rollout,
    *,
    gradient_checkpointing: bool = False,
    how: Scoring = "packed",
) -> Tensor:
    """Log-probabilities of every token of the vocabulary at each position: (N, L, V) float32, -inf at forbidden ids,
    0 where the mask is False. Differentiable, and large: for small vocabularies, or a few rows."""
    hidden = completion_states(policy, prompts, rollout, how, gradient_checkpointing)  # (M, D)
    by_token = next_token_logps(policy, hidden, rollout.temperature)  # (M, V)
    empty = torch.zeros(*rollout.mask.shape, by_token.shape[1], device=by_token.device)  # (N, L, V)
    return empty.masked_scatter(rollout.mask[..., None], by_token)


def completion_states(
    policy: Policy, prompts: PromptBatch, rollout: Rollout, how: Scoring, gradient_checkpointing: bool
) -> Tensor:
    """Hidden states (M, D) that predict the M completion tokens under the mask, each prompt run once for its group."""
    used, groups = rollout.groups.cpu().unique(return_inverse=True)  # prompts of these rows; (N,) index into them
    ids, mask, prompts = rollout.completion_ids, rollout.mask, prompts[used.tolist()]
    if how == "packed":
        return packed_hidden(policy, prompts, ids, mask, groups, gradient_checkpointing)
    if how != "plain":
        raise ValueError(f"unknown how {how!r}; the ways to score are packed, plain")
    if gradient_checkpointing:
        raise ValueError("gradient checkpointing drops the cache that how='plain' scores with: use how='packed'")
    groups = upload(groups, mask.device)
    prefix = expand(run_prompt(policy, prompts), groups)  # the prompt once, its cache repeated for the group
    return completion_hidden(policy, prefix, ids, mask)[mask]  # (N, L, D) -> (M, D)


def encode_completions(
    policy: Policy,
    texts: Sequence[str],
    groups: Sequence[int] | Tensor,
    *,
    origin: str = "injected",
    temperature: float = 1.0,
    group_size: int = 1,
) -> Rollout:
    """Completions written by someone else, such as a labelled answer, as rows of a Rollout.

    groups: prompt index of each text. An end token is appended. Their `logps` are NaN: no policy sampled them, and the
    loop takes the current policy's in their place. ValueError for a text with an image token or other forbidden id.
    """
    refuse_string("texts", texts)
    rows = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if set(row) & set(policy.forbidden_token_ids):
            raise ValueError(f"a completion must not contain image, vision or padding tokens: {text!r}")
        row.append(policy.end_token_ids[0])
    longest = max(map(len, rows))
    padded = [row + [policy.pad_token_id] * (longest - len(row)) for row in rows]
    ids, lengths = upload(padded, policy.device), upload([len(row) for row in rows], policy.device)  # (N, L), (N,)
    mask = torch.arange(longest, device=policy.device) < lengths[:, None]  # (N, L)
    logps = torch.zeros(mask.shape, device=policy.device).masked_fill(mask, torch.nan)  # (N, L)
    groups = torch.as_tensor(groups, device=policy.device)  # (N,)
    own_texts, origins = decode(policy, ids, mask), [origin] * len(rows)
    return Rollout(ids, mask, logps, own_texts, group_size, groups, origins, temperature, policy.end_token_ids)


def decode(policy: Policy, ids: Tensor, mask: Tensor) -> list[str]:
    """The text of each row's masked ids, by `texts_of`."""
    return texts_of(policy, token_lists(ids, mask))


def texts_of(policy: Policy, rows: Sequence[list[int]]) -> list[str]:
    """The text of each row of ids without the token that ends it. Any other special token is part of the text, as
    `<|im_start|>`: if it were left out, the rewards would pay for a response that nobody can read as one."""
    rows = [row[:-1] if row and row[-1] in policy.end_token_ids else row for row in rows]
    return policy.tokenizer.batch_decode(rows, skip_special_tokens=False)
