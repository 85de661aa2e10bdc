"""Decoding: one more token of every row, taught plainly and done fast.

`PlainDecoder` is transformers' forward pass over a cache that grows. `StaticDecoder` draws the same tokens from the
same random numbers and runs the layers of `layers` instead:

* the matrices that read the same input are multiplied at once, and the adapter is merged into a copy of them where the
  model is small and in float32, so that a token costs a layer about 30 operations and not 120;
* a prompt's keys and values are held and read once for its group, not once a row;
* buffers have their final size from the start: nothing is concatenated, and on a GPU a step is captured as a graph.

Rows that have ended leave here too, as soon as the others fit on a smaller grid. Measured on the pocket policy
(4 prompts, G = 8, two CPU threads), sampling takes 1/1.9 of the plain decoder's time (`tests/benchmarks/parts.py`).
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from favor_lab.vlm.fast.layers import layers_of, norm, rotation
from favor_lab.vlm.prefix import check_length, expand, next_hidden, prompt_embeds, run_prompt

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def start_decoding(policy: Policy, prompts: PromptBatch, groups: Tensor, max_new_tokens: int, how: str = "auto") -> Any:
    """A decoder of rows that continue the prompts number `groups` (N,), ascending, of a batch; it runs the prompts.

    Every decoder has `hidden` (A, D), which predicts the next token of each row that is left; `step(tokens)` appends
    tokens (A,) and returns the new `hidden`; `keep(rows)` drops all other rows.
    how: "plain"; "static"; "graph", the static one captured as a CUDA graph, which goes on without where that fails;
    "auto": graph on a CUDA device, else static.
    """
    on_cuda = groups.device.type == "cuda"
    how = {True: "graph", False: "static"}[on_cuda] if how == "auto" else how
    if how == "plain":
        return PlainDecoder(policy, prompts, groups)
    if how not in ("static", "graph"):
        raise ValueError(f"unknown decoding {how!r}; valid: auto, plain, static, graph")
    if how == "graph" and not on_cuda:
        warnings.warn(f"decoding='graph' needs a CUDA device, not {groups.device}; going on without it", stacklevel=3)
    return StaticDecoder(policy, prompts, groups, max_new_tokens, graph=how == "graph" and on_cuda)


class PlainDecoder:
    """transformers' forward pass, token by token."""

    def __init__(self, policy: Policy, prompts: PromptBatch, groups: Tensor):
        self.policy, self.prefix = policy, expand(run_prompt(policy, prompts), groups)
        self.hidden = self.prefix.last_hidden  # (N, D)

    def step(self, tokens: Tensor) -> Tensor:
        self.hidden = next_hidden(self.policy, self.prefix, tokens)  # (A, D)
        return self.hidden

    def keep(self, rows: Tensor) -> None:
        self.prefix, self.hidden = expand(self.prefix, rows), self.hidden[rows]


class PromptAttention:
    """One layer's attention of the prompts, which remembers their keys and values, (B, K, P, d)."""

    def __init__(self, prompts: PromptBatch):
        real = prompts.attention_mask.bool()  # (B, P)
        self.count, self.mask = len(real), None
        if not bool(real.all()):  # padding looks at itself only: what it computes is read by no one, but must be finite
            triangle = torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=real.device).tril()
            self.mask = (triangle & real[:, None] | torch.eye(len(triangle), dtype=torch.bool, device=real.device))[
                :, None
            ]
        self.keys: Tensor
        self.values: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B * P, H, d), k and v (B * P, K, d) -> (B * P, H, d)."""
        q, self.keys, self.values = (x.unflatten(0, (self.count, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = scaled_dot_product_attention(
            q, self.keys, self.values, attn_mask=self.mask, is_causal=self.mask is None, enable_gqa=True
        )  # (B, H, P, d)
        return mixed.transpose(1, 2).flatten(0, 1)


class GridAttention:
    """One layer's attention of one token a row, over its prompt and what it has written: buffers of fixed size.

    Query heads that share keys, and rows that share a prompt, are folded into one matrix: each key is read once.
    """

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor, places: int, length: int):
        rows = len(prompt_keys) * places
        self.prompt_keys, self.prompt_values = prompt_keys, prompt_values  # (B, K, P, d)
        self.keys, self.values = (
            x.new_zeros(rows, x.shape[1], length, x.shape[3]) for x in (prompt_keys, prompt_values)
        )
        self.position: Tensor  # (1,) where the new token stands
        self.padding: Tensor | None = None  # (B, 1, 1, P) True on a prompt's padding
        self.future: Tensor | None = None  # (length,) True where nothing stands yet; None: `span` says it
        self.span = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B * R, H, d), k and v (B * R, K, d) -> (B * R, H, d)."""
        self.keys.index_copy_(2, self.position, k.unsqueeze(2))
        self.values.index_copy_(2, self.position, v.unsqueeze(2))
        prompts, heads, width = len(self.prompt_keys), k.shape[1], q.shape[2]
        q = (q * width**-0.5).unflatten(1, (heads, -1))  # (B * R, K, H / K, d)
        together = q.unflatten(0, (prompts, -1)).transpose(1, 2)  # (B, K, R, H / K, d)
        folded = together.shape[:4]
        seen = together.flatten(2, 3) @ self.prompt_keys.mT  # (B, K, R * H / K, P)
        if self.padding is not None:
            seen = seen.masked_fill(self.padding, -torch.inf)
        seen = seen.unflatten(2, folded[2:]).transpose(1, 2).flatten(0, 1)  # (B * R, K, H / K, P)
        written = q @ self.keys[:, :, : self.span].mT  # (B * R, K, H / K, span)
        if self.future is not None:
            written = written.masked_fill(self.future, -torch.inf)
        weights = torch.cat([seen, written], dim=-1).softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        on_prompt, on_own = weights.split([seen.shape[-1], written.shape[-1]], dim=-1)
        mixed = on_own @ self.values[:, :, : self.span]  # (B * R, K, H / K, d)
        on_prompt = on_prompt.unflatten(0, (prompts, -1)).transpose(1, 2).flatten(2, 3)  # (B, K, R * H / K, P)
        shared = (on_prompt @ self.prompt_values).unflatten(2, folded[2:]).transpose(1, 2).flatten(0, 1)
        return (mixed + shared).flatten(1, 2)  # (B * R, H, d)

    def rearranged(self, prompts: Tensor, places: int, source: Tensor) -> GridAttention:
        """For a grid of these prompts, whose places hold what stood at places `source` (B' * R',) of this one."""
        keys, values = (x.index_select(0, prompts) for x in (self.prompt_keys, self.prompt_values))
        new = GridAttention(keys, values, places, 0)
        new.keys, new.values = (x.index_select(0, source) for x in (self.keys, self.values))
        return new


class StaticDecoder:
    """Rows on a grid: B prompts with R places each. Row n stands at place `slots[n]` = b * R + i; a place without a row
    computes what nobody reads."""

    @torch.no_grad()
    def __init__(self, policy: Policy, prompts: PromptBatch, groups: Tensor, max_new_tokens: int, graph: bool = False):
        check_length(policy, prompts.attention_mask.shape[1] + max_new_tokens - 1)
        self.policy, self.layers = policy, layers_of(policy, merge=True)
        self.model = policy.base.model.language_model
        self.graph, self.now, self.length = graph, 0, max(max_new_tokens - 1, 1)  # S: the last token is never read
        last_hidden, memory = self.prefill(prompts)
        self.hidden = last_hidden[groups]  # (N, D)
        steps = torch.arange(self.length, device=groups.device)
        positions = (
            (prompts.next_position[:, None] + steps).flatten().expand(3, -1)
        )  # (3, B * S): text has one position
        angles = rotation(policy, positions, self.hidden.dtype)  # (B * S, 1, d) each
        self.angles = [angle.unflatten(0, (-1, self.length)) for angle in angles]  # (B, S, 1, d) each
        self.padding = (prompts.attention_mask == 0)[:, None, None]  # (B, 1, 1, P)
        every, slots, places = grid(groups)
        self.attends = [GridAttention(x.keys[every], x.values[every], places, self.length) for x in memory]
        self.settle(every, slots, places)

    def prefill(self, prompts: PromptBatch) -> tuple[Tensor, list[PromptAttention]]:
        """The prompts' last hidden states (B, D), and each layer's keys and values of them."""
        hidden = prompt_embeds(self.policy, prompts).flatten(0, 1)  # (B * P, D)
        turn = rotation(self.policy, prompts.position_ids.flatten(1), hidden.dtype)  # (B * P, 1, d) each
        attends = [PromptAttention(prompts) for _ in self.layers]
        for layer, attend in zip(self.layers, attends, strict=True):
            hidden = layer(hidden, *turn, attend)
        last = hidden.unflatten(0, prompts.input_ids.shape)[:, -1]  # (B, D)
        return norm(self.model.norm, last), attends

    def settle(self, prompts: Tensor, slots: Tensor, places: int) -> None:
        """Take a grid of these prompts (of the last grid) as it is now, and make the buffers of one step."""
        self.slots, self.places = slots, places
        self.padding, self.angles = self.padding[prompts], [angle[prompts] for angle in self.angles]
        total = len(prompts) * places
        self.tokens, self.position = slots.new_zeros(total), slots.new_zeros(1)
        self.turns = [angle.repeat_interleave(places, dim=0) for angle in self.angles]  # (B * R, S, 1, d) each
        self.turn = [turn[:, 0].clone() for turn in self.turns]  # (B * R, 1, d) each, of the token at hand
        self.future = torch.arange(self.length, device=slots.device) >= self.now  # (S,)
        for attend in self.attends:
            attend.position, attend.padding = self.position, self.padding if bool(self.padding.any()) else None
            attend.future, attend.span = (self.future, self.length) if self.graph else (None, self.now)
        # A captured graph. No bound method of its own: in such a cycle the caches would outlive the sampling.
        self.run: Callable[[], Tensor] | None = None

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        self.tokens[self.slots] = tokens
        self.position.fill_(self.now)
        self.future[self.now] = False
        for turn, turns in zip(self.turn, self.turns, strict=True):
            turn.copy_(turns[:, self.now])
        if not self.graph:
            for attend in self.attends:
                attend.span = self.now + 1
        self.hidden = (self.run or self.forward)()[self.slots]  # (A, D)
        self.now += 1
        if self.graph and self.run is None:  # this step was the warm-up
            self.capture()
        return self.hidden

    def forward(self) -> Tensor:
        """Hidden states (B * R, D) behind the tokens of the grid."""
        hidden = self.model.get_input_embeddings()(self.tokens)  # (B * R, D)
        for layer, attend in zip(self.layers, self.attends, strict=True):
            hidden = layer(hidden, self.turn[0], self.turn[1], attend)
        return norm(self.model.norm, hidden)

    def capture(self) -> None:
        """Record `forward` as a CUDA graph: its hundreds of small kernels are then launched as one."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = self.forward()
        except RuntimeError as error:
            warnings.warn(f"decoding goes on without a CUDA graph, which could not be captured: {error}", stacklevel=4)
            this = weakref.ref(self)
            self.run = lambda: this().forward()  # type: ignore[union-attr]  # and no second attempt on this grid
            return

        def replay() -> Tensor:
            graph.replay()
            return output

        self.run = replay

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        self.hidden, old = self.hidden[rows], self.slots[rows]
        prompts, slots, places = grid(old // self.places)
        worth = 0.5 if self.graph else 0.9  # a new grid copies the caches, and a graph is captured again
        if len(prompts) * places > worth * len(self.tokens):
            self.slots = old
            return
        source = old[0].repeat(len(prompts) * places).index_copy(0, slots, old)  # a place without a row gets any
        for i, attend in enumerate(self.attends):  # one by one, so that no second copy of all caches stands beside them
            self.attends[i] = attend.rearranged(prompts, places, source)
        self.settle(prompts, slots, places)


def grid(groups: Tensor) -> tuple[Tensor, Tensor, int]:
    """Prompts that have rows (B,), the slot of each row (N,), and places per prompt, for ascending groups (N,).

    >>> grid(torch.tensor([1, 1, 1, 4]))
    (tensor([1, 4]), tensor([0, 1, 2, 3]), 3)
    """
    prompts, index, counts = groups.unique(return_inverse=True, return_counts=True)
    places = int(counts.max())
    first = counts.cumsum(0) - counts  # (B,) the first row of each prompt
    return prompts, index * places + torch.arange(len(groups), device=groups.device) - first[index], places
