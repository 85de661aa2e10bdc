"""Packed scoring: compute every token of a step exactly once, in one row without padding, with exact gradients.

A plain batch has N rows of P + L tokens: each prompt G times, and padding. Here a step is one flat row

    [prompt 0][prompt 1] ... [completion 0][completion 1] ...

in which a prompt token attends to its own prompt, and a completion token to its prompt and to the tokens before it in
its completion. This is the attention of the plain rows, so log-probabilities and gradients are the same; a prompt's
gradient is the sum over its group. No cache is carried through the layers, so that each layer can be computed again in
the backward pass (gradient checkpointing), where the cache of `prefix` would be dropped. Only attention uses padding.

Measured on the pocket policy (4 prompts of 113 tokens, G = 8, completions of 18 to 31 tokens, two CPU threads): scoring
and its gradient take 1/4.3 of the time of plain rows, and 1/1.8 of that of the shared cache of `prefix`
(`tests/benchmarks/parts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from favor_lab.vlm.fast.layers import norm, rotation
from favor_lab.vlm.fast.merged import MergedLayer, layers_of
from favor_lab.vlm.fast.parallel import side_by_side
from favor_lab.vlm.prefix import check_length, prompt_embeds
from favor_lab.vlm.upload import places, upload

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

CPU = torch.device("cpu")


@dataclass
class Rows:
    """Rows of different lengths, concatenated in a flat row of tokens from index `start` on.

    >>> rows = Rows(torch.tensor([2, 1]), start=1)
    >>> rows.pad(torch.tensor([9.0, 1.0, 2.0, 3.0]))
    tensor([[1., 2.],
            [3., 0.]])
    >>> rows.flat(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor([1., 2., 3.])
    """

    lengths: Tensor  # (n,) on the CPU
    start: int = 0
    device: torch.device = CPU  # of the tokens

    def __post_init__(self) -> None:
        self.count, self.longest, self.tokens = len(self.lengths), int(self.lengths.max()), int(self.lengths.sum())
        self.even = self.tokens == self.count * self.longest
        mask = torch.arange(self.longest, device=CPU) < self.lengths[:, None]
        self.mask = upload(mask, self.device)  # (n, longest)
        self.places = places(mask, self.device)  # (tokens,) index of each in the flattened padded rows
        self.first = self.start + self.lengths.cumsum(0) - self.lengths  # (n,) of the first tokens in the flat row

    def pad(self, x: Tensor) -> Tensor:
        """Flat (T, ...) -> (n, longest, ...), padded with zeros on the right."""
        x = x[self.start : self.start + self.tokens]
        if not self.even:
            x = x.new_zeros(self.count * self.longest, *x.shape[1:]).index_copy(0, self.places, x)
        return x.unflatten(0, (self.count, self.longest))

    def flat(self, x: Tensor) -> Tensor:
        """(n, longest, ...) -> (tokens, ...)."""
        x = x.flatten(0, 1)
        return x if self.even else x.index_select(0, self.places)


class PackedAttention:
    """Attention of a packed row: causal inside prompts; completions attend to their prompt and to their own past."""

    def __init__(self, prompts: Rows, completions: Rows, groups: Tensor):
        """groups (N,): prompt of each completion, on the CPU."""
        equal_groups = torch.arange(prompts.count, device=CPU).repeat_interleave(len(groups) // prompts.count)
        self.regular = torch.equal(groups, equal_groups)  # every prompt has equally many rows, in order
        groups = upload(groups, prompts.device)
        self.prompts, self.completions, self.groups = prompts, completions, groups
        own = torch.ones(completions.longest, completions.longest, dtype=torch.bool, device=groups.device).tril()
        past = prompts.mask[groups] if not prompts.even else prompts.mask[:1]  # (N or 1, P)
        past = past[:, None].expand(-1, len(own), -1)  # (N or 1, L, P)
        self.mask = torch.cat([past, own.expand(len(past), -1, -1)], dim=-1)[:, None]  # (N or 1, 1, L, P + L)
        self.bias: Tensor | None = None  # the mask as a term to add, repeated for the query heads that share keys

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (T, H, d), k and v (T, K, d) -> (T, H, d)."""
        prompt_q, prompt_k, prompt_v = (self.prompts.pad(x).transpose(1, 2) for x in (q, k, v))  # (B, heads, P, d)
        prompt = scaled_dot_product_attention(prompt_q, prompt_k, prompt_v, is_causal=True, enable_gqa=True)
        prompt = self.prompts.flat(prompt.transpose(1, 2))  # (prompt tokens, H, d)
        if self.completions.tokens == 0:
            return prompt
        own_q, own_k, own_v = (self.completions.pad(x).transpose(1, 2) for x in (q, k, v))  # (N, heads, L, d)
        keys = torch.cat([self.per_row(prompt_k), own_k], dim=2)  # (N, K, P + L, d)
        values = torch.cat([self.per_row(prompt_v), own_v], dim=2)
        share = q.shape[1] // k.shape[1]  # query heads that read the same keys: moved to the query axis
        own_q = own_q.unflatten(1, (-1, share)).flatten(2, 3)  # (N, K, share * L, d)
        if self.bias is None:  # one for all layers, each of which would keep a copy for its backward pass
            allowed = self.mask.repeat(1, 1, share, 1)  # (N or 1, 1, share * L, P + L)
            self.bias = q.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)
        own = scaled_dot_product_attention(own_q, keys, values, attn_mask=self.bias)
        own = own.unflatten(2, (share, -1)).flatten(1, 2).transpose(1, 2)  # (N, L, H, d)
        return torch.cat([prompt, self.completions.flat(own)])

    def per_row(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, ...), the values of each row's prompt. `expand` where possible: its backward pass is a sum,
        faster than that of an index."""
        if not self.regular:
            return x[self.groups]
        return x[:, None].expand(-1, len(self.groups) // len(x), *x.shape[1:]).flatten(0, 1)


def packed_hidden(
    policy: Policy,
    prompts: PromptBatch,
    completion_ids: Tensor,
    mask: Tensor,
    groups: Tensor,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Hidden states (M, D) that predict the M tokens under `mask`, in the order of `completion_ids[mask]`. A
    completion's last token predicts nothing and is not computed. Differentiable; with gradient_checkpointing the
    backward pass computes each layer again. The prompts of a small model are shared out among torch's threads.

    completion_ids, mask: (N, L), the mask True from a row's first token to its last; groups: (N,) prompt of each row.
    """
    layers, groups = layers_of(policy), groups.cpu()
    one = partial(flat_row, policy, layers, gradient_checkpointing=gradient_checkpointing)
    ends = shares(groups, torch.get_num_threads() if isinstance(layers[0], MergedLayer) and mask.device == CPU else 1)
    if len(ends) == 1:
        return one(prompts, completion_ids, mask, groups)
    parts = []
    for rows in torch.arange(len(groups), device=CPU).tensor_split(ends[:-1]):
        used, own = groups[rows].unique(return_inverse=True)
        parts.append(partial(one, prompts[used.tolist()], completion_ids[rows], mask[rows], own))
    return side_by_side(parts, [weight for _, weight in policy.trainable_parameters()])


def shares(groups: Tensor, threads: int) -> list[int]:
    """Where each thread's rows end: whole groups (N,), about equally many. One share where groups are not in order.

    >>> shares(torch.tensor([0, 0, 0, 1, 1, 1, 2]), threads=2), shares(torch.tensor([0, 1, 0]), threads=2)
    ([3, 7], [3])
    """
    starts = [0, *((groups[1:] != groups[:-1]).nonzero().flatten() + 1).tolist()]  # the first row of each group
    count = min(threads, len(starts))
    if count < 2 or not bool((groups[1:] >= groups[:-1]).all()):
        return [len(groups)]
    return [*(starts[i * len(starts) // count] for i in range(1, count)), len(groups)]


def flat_row(
    policy: Policy,
    layers: Sequence[Any],
    prompts: PromptBatch,
    completion_ids: Tensor,
    mask: Tensor,
    groups: Tensor,
    gradient_checkpointing: bool,
) -> Tensor:
    """`packed_hidden` of some prompts with all of their rows."""
    # the sizes of everything follow from these three: they are read once, and indices are computed on the CPU
    is_real, mask, rows_of = prompts.attention_mask.bool().cpu(), mask.cpu(), groups.cpu()  # (B, P), (N, L), (N,)
    lengths, device = mask.sum(dim=1), completion_ids.device  # (N,)
    check_length(policy, int(is_real.sum(dim=1).max()) + mask.shape[1])
    prompt_rows = Rows(is_real.sum(dim=1), device=device)
    completion_rows = Rows((lengths - 1).clamp(min=0), prompt_rows.tokens, device)
    real, groups = places(is_real, device), upload(rows_of, device)  # (prompt tokens,), (N,)
    computed = places(mask[:, 1:], device)  # (completion tokens,): a token is computed if another one follows
    steps = torch.arange(mask.shape[1] - 1, device=device)
    positions = (prompts.next_position[groups, None] + steps).flatten()[computed]  # (completion tokens,)
    positions = torch.cat([prompts.position_ids.flatten(1)[:, real], positions.expand(3, -1)], dim=1)  # (3, T)
    embed = policy.base.model.language_model.get_input_embeddings()
    prompt_hidden = prompt_embeds(policy, prompts).flatten(0, 1)[real]  # (prompt tokens, D)
    hidden = torch.cat([prompt_hidden, embed(completion_ids[:, :-1].flatten()[computed])])  # (T, D)
    cos, sin = rotation(policy, positions, hidden.dtype)
    attend = PackedAttention(prompt_rows, completion_rows, rows_of)
    for layer in layers:
        if gradient_checkpointing and torch.is_grad_enabled():
            hidden = checkpoint(layer, hidden, cos, sin, attend, use_reentrant=False)
        else:
            hidden = layer(hidden, cos, sin, attend)
    last = (prompt_rows.first + prompt_rows.lengths - 1)[rows_of]  # (N,) a prompt's last token predicts the first token
    before = completion_rows.first[:, None] + torch.arange(mask.shape[1], device=CPU) - 1  # (N, L)
    before[:, 0] = last
    predicting = upload(before[mask], device)  # (M,)
    return norm(policy.base.model.language_model.norm, hidden.index_select(0, predicting))  # (M, D)
