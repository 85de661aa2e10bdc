"""The exact shared prefix: a prompt runs through the language model once, its G completions continue from its cache.

The prompt fills a key/value cache once (`run_prompt`), the cache is repeated for the G rows (`expand`), and after that
only completion tokens are computed: one at a time to sample (`next_hidden`), all at once to score
(`completion_hidden`). Gradients flow through the cache into the prompt: log-probabilities and gradients equal those of
G separate rows of prompt and completion, which would repeat the prompt G times.

This is the plain way, on transformers' own forward pass and cache: the one to read. The fast passes of `fast.decoding`
(to sample) and `fast.packed` (to score) are tested against it. The hidden state before completion token j predicts it;
for j = 0 that is the last hidden state of the prompt. Positions are always passed explicitly: transformers would
otherwise take them from the state of an earlier call.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

CHUNK_LOGITS = 2**25  # float32 logits that `token_logps` holds in memory at a time: 128 MB


@dataclass
class Prefix:
    """Rows that can be continued: B prompts after `run_prompt`, N completion rows after `expand`."""

    cache: DynamicCache  # keys and values of each layer, (rows, KV heads, P, head width)
    last_hidden: torch.Tensor  # (rows, D), predicts the next token
    attention_mask: torch.Tensor  # (rows, P), 0 on padding
    next_position: torch.Tensor  # (rows,), where the next token will stand


def run_prompt(policy: Policy, prompts: PromptBatch) -> Prefix:
    """Run the prompts through the language model once, with their image features in place of the image tokens.
    Gradients flow if they are enabled. RuntimeError in train mode with checkpointing: see `_language_model`."""
    language_model = _language_model(policy)
    cache = DynamicCache(config=language_model.config)
    out = language_model(
        inputs_embeds=prompt_embeds(policy, prompts),  # (B, P, D)
        attention_mask=prompts.attention_mask,
        position_ids=prompts.position_ids,
        **{cache_keyword(language_model): cache},
    )
    return Prefix(cache, out.last_hidden_state[:, -1], prompts.attention_mask, prompts.next_position)


def prompt_embeds(policy: Policy, prompts: PromptBatch) -> torch.Tensor:
    """Input embeddings (B, P, D) of the prompts, with their image features in place of the image tokens. ValueError for
    a batch that would run but give wrong numbers: see `PromptBatch.check`."""
    embeds = policy.base.model.language_model.get_input_embeddings()(prompts.input_ids)  # (B, P, D)
    is_image = prompts.input_ids == policy.base.config.image_token_id  # (B, P)
    prompts.check(is_image)
    features = prompts.features_on(embeds.device, embeds.dtype)  # (sum of I_b, D), in the order of the prompts
    return embeds.masked_scatter(is_image.unsqueeze(-1), features)


def check_length(policy: Policy, tokens: int) -> None:
    """ValueError if a row of this many tokens, prompt and completion, is longer than the model's context window."""
    if tokens > policy.context_length:
        window = f"prompt and completion have {tokens} tokens, the model's window is {policy.context_length}"
        raise ValueError(f"{window}: lower max_new_tokens or max_pixels")


def expand(prefix: Prefix, rows: torch.Tensor) -> Prefix:
    """A new prefix whose row n is row `rows[n]` of this one (`rows` long (N,)); `prefix` is unchanged. Differentiable.
    It makes the groups after `run_prompt`, with rows = [0, ..., 0, 1, ..., 1, ...], and drops finished rows."""
    return Prefix(
        _fork(prefix.cache, rows),
        prefix.last_hidden[rows],  # (N, D)
        prefix.attention_mask[rows],  # (N, P)
        prefix.next_position[rows],  # (N,)
    )


def next_hidden(policy: Policy, prefix: Prefix, token_ids: torch.Tensor) -> torch.Tensor:
    """One step of decoding: append one token to every row, token_ids (N,) or (N, 1), and return the hidden state (N, D)
    that predicts the one after it. It changes `prefix`, whose cache grows by one token."""
    token_ids = token_ids.view(-1, 1)  # (N, 1)
    return _append(policy, prefix, token_ids, torch.ones_like(token_ids))[:, 0]  # (N, D)


def completion_hidden(policy: Policy, prefix: Prefix, completion_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Hidden states (N, L, D): entry j is the state before completion token j, the one that predicts it; it has no
    meaning where the mask is False. completion_ids and mask (N, L), one row per row of `prefix` (already expanded),
    which is unchanged."""
    first = prefix.last_hidden.unsqueeze(1)  # (N, 1, D)
    if completion_ids.shape[1] == 1:
        return first
    branch = replace(prefix, cache=_fork(prefix.cache))
    rest = _append(policy, branch, completion_ids[:, :-1], mask[:, :-1])  # (N, L - 1, D)
    return torch.cat([first, rest], dim=1)  # (N, L, D)


def next_token_logps(policy: Policy, hidden: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities (..., V) in float32 of the sampling distribution, from hidden states (..., D): log
    softmax(logits / temperature), with forbidden ids at -inf. Sampling and scoring both call this function, so that
    completions are scored under the distribution from which they were sampled."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; greedy decoding is the argmax")
    logits = policy.base.lm_head(hidden).float().masked_fill_(policy.forbidden, -torch.inf)
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)  # (..., V)


def token_logps(
    policy: Policy, hidden: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0, chunk: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability (N, L) float32 of each of the `ids` (N, L), predicted by `hidden` (N, L, D), and the entropy (N,
    L) of each distribution, in nats. At most `chunk` positions have their V logits in memory at a time, by default as
    many as fit in 128 MB; the backward pass computes them again."""

    def part(hidden: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logps = next_token_logps(policy, hidden, temperature)  # (chunk, V)
        entropy = -(logps.exp() * logps.masked_fill(policy.forbidden, 0.0)).sum(1)  # (chunk,)
        return logps.gather(1, ids[:, None]), entropy  # (chunk, 1), (chunk,)

    chunk = chunk or max(1, CHUNK_LOGITS // policy.forbidden.numel())
    chunks = list(zip(hidden.flatten(0, -2).split(chunk), ids.flatten().split(chunk), strict=True))
    if torch.is_grad_enabled() and len(chunks) > 1:
        parts = [checkpoint(part, *inputs, use_reentrant=False) for inputs in chunks]
    else:
        parts = [part(*inputs) for inputs in chunks]
    logps, entropy = (torch.cat(column).view(ids.shape) for column in zip(*parts, strict=True))  # (N, L) each
    return logps, entropy


def _language_model(policy: Policy) -> Any:
    """The language model; RuntimeError in train mode with gradient checkpointing, where transformers silently drops the
    cache (since version 5.24 only if gradients are enabled, before that always)."""
    language_model = policy.base.model.language_model
    layers = (layer for layer in language_model.modules() if getattr(layer, "gradient_checkpointing", False))
    if any(layer.training for layer in layers):
        raise RuntimeError(
            "a shared prefix needs its cache, which gradient checkpointing in train mode drops (the"
            " log-probabilities would be wrong): call policy.model.eval() or"
            " policy.base.gradient_checkpointing_disable()"
        )
    return language_model


def cache_keyword(language_model: Any) -> str:
    """Name of the parameter that takes the key/value cache: `cache` since transformers 5.24, before `past_key_values`
    (deprecated there, and removed in 5.40)."""
    return "cache" if "cache" in inspect.signature(language_model.forward).parameters else "past_key_values"


def _append(policy: Policy, prefix: Prefix, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Append T tokens, ids and mask (N, T), to the rows of `prefix`, and return their hidden states (N, T, D)."""
    language_model = _language_model(policy)
    attention_mask = torch.cat([prefix.attention_mask, mask.to(prefix.attention_mask)], dim=1)  # (N, P + T)
    check_length(policy, attention_mask.shape[1])
    steps = torch.arange(ids.shape[1], device=ids.device)  # (T,)
    hidden = language_model(
        inputs_embeds=language_model.get_input_embeddings()(ids),  # (N, T, D)
        attention_mask=attention_mask,
        position_ids=(prefix.next_position[:, None] + steps).expand(3, -1, -1),  # (3, N, T)
        **{cache_keyword(language_model): prefix.cache},
    ).last_hidden_state
    prefix.last_hidden, prefix.attention_mask = hidden[:, -1], attention_mask  # (N, D), (N, P + T)
    prefix.next_position = prefix.next_position + ids.shape[1]
    return hidden


def _fork(cache: DynamicCache, rows: torch.Tensor | None = None) -> DynamicCache:
    """A second cache with the same past, which can grow independently; `rows` selects and repeats rows. Keys and values
    are shared, not copied: appending to a cache makes new tensors."""
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers]
    if rows is not None:
        for layer in fork.layers:
            layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
    return fork
