"""Decoding: the hidden state of the next token of every row, in a plain and in a fast way.

`PlainDecoder` is transformers' forward pass with a cache that grows. `StaticDecoder` gives the same tokens for the same
random numbers, and runs the layers of `layers` instead, or for small models in float32 those of `merged`, so that a
token needs about 30 operations per layer and not 120:

* matrices that read the same input are multiplied at once;
* a prompt's keys and values are stored and read once per group, not once per row;
* buffers have their final size from the start: nothing is concatenated, and a GPU captures a step as a graph.

Finished rows are dropped as soon as the others fit on a smaller grid. Measured on the pocket policy (4 prompts, G = 8,
two CPU threads), sampling takes 1/2.5 of the plain decoder's time (`tests/benchmarks/parts.py`).
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from favor_lab.vlm.fast.layers import norm, rotation
from favor_lab.vlm.fast.merged import MergedLayer, layers_of
from favor_lab.vlm.prefix import check_length, expand, next_hidden, prompt_embeds, run_prompt
from favor_lab.vlm.upload import upload

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def start_decoding(policy: Policy, prompts: PromptBatch, groups: Tensor, max_new_tokens: int, how: str = "auto") -> Any:
    """A decoder for N rows, of which row n continues prompt `groups[n]`; `groups` (N,) is ascending. The prompts are
    computed here. how: "plain"; "static"; "graph", which is static captured as a CUDA graph, or not captured where that
    fails; "compiled", which is static through torch.compile, or not compiled where that fails: for long runs on a CPU
    with a C++ compiler, since the first token takes half a minute; "auto": graph on a CUDA device, else static.
    ValueError for another one.

    Every decoder has `hidden` (A, D), which predicts the next token of each of the A remaining rows; `step(tokens)`
    appends tokens (A,) and returns the new `hidden`; `keep(rows)` drops all rows but those in a list. In a `with` block
    it decodes with as many threads as are good for it.
    """
    on_cuda = groups.device.type == "cuda"
    how = {True: "graph", False: "static"}[on_cuda] if how == "auto" else how
    if how == "plain":
        return PlainDecoder(policy, prompts, groups)
    if how not in ("static", "graph", "compiled"):
        raise ValueError(f"unknown decoding {how!r}; valid: auto, plain, static, graph, compiled")
    if how == "graph" and not on_cuda:
        warnings.warn(f"decoding='graph' needs a CUDA device, not {groups.device}; going on without it", stacklevel=3)
    graph, compiled = how == "graph" and on_cuda, how == "compiled"
    return StaticDecoder(policy, prompts, groups, max_new_tokens, graph=graph, compiled=compiled)


ONE_THREAD = 2**27  # rows x numbers in all layers up to which one thread decodes: 85 rows of the pocket policy


class PlainDecoder(nullcontext):
    """transformers' forward pass, token by token."""

    def __init__(self, policy: Policy, prompts: PromptBatch, groups: Tensor):
        super().__init__(self)
        self.policy, self.prefix = policy, expand(run_prompt(policy, prompts), groups)
        self.hidden = self.prefix.last_hidden  # (N, D)

    def step(self, tokens: Tensor) -> Tensor:
        self.hidden = next_hidden(self.policy, self.prefix, tokens)  # (A, D)
        return self.hidden

    def keep(self, rows: Sequence[int] | Tensor) -> None:
        rows = upload(rows, self.hidden.device)  # (A,)
        self.prefix, self.hidden = expand(self.prefix, rows), self.hidden[rows]


class PromptAttention:
    """Attention of one layer over the prompts, which stores their keys and values, (B, K, P, d)."""

    def __init__(self, count: int, mask: Tensor | None):
        self.count, self.mask = count, mask  # B; (B, 1, P, P), or None: there is no padding
        self.keys: Tensor
        self.values: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B * P, H, d), k and v (B * P, K, d) -> (B * P, H, d)."""
        q, self.keys, self.values = (x.unflatten(0, (self.count, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = scaled_dot_product_attention(
            q, self.keys, self.values, attn_mask=self.mask, is_causal=self.mask is None, enable_gqa=True
        )  # (B, H, P, d)
        return mixed.transpose(1, 2).flatten(0, 1)


def padding_mask(real: Tensor) -> Tensor:
    """Which tokens of its prompt each token attends to: (B, 1, P, P). Those that are not `real` (B, P) are padding and
    attend to themselves only: the result is never read, but must be finite."""
    triangle = torch.ones(real.shape[1], real.shape[1], dtype=torch.bool, device=real.device).tril()
    diagonal = torch.eye(len(triangle), dtype=torch.bool, device=real.device)
    return (triangle & real[:, None] | diagonal)[:, None]


class GridAttention:
    """Attention of one layer for one new token per row, over its prompt and the tokens before it in its completion, in
    buffers of a fixed size. Query heads that share keys, and rows that share a prompt, are combined into one matrix:
    each key is read once."""

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor, places: int, length: int):
        """prompt_keys, prompt_values: (B, K, P, d)."""
        self.shape = (*prompt_keys.shape[:2], places)  # B, K, R
        self.prompt_keys = prompt_keys.mT.flatten(0, 1).contiguous()  # (B * K, d, P)
        self.prompt_values = prompt_values.flatten(0, 1).contiguous()  # (B * K, P, d)
        rows, width = prompt_keys.shape[0] * prompt_keys.shape[1] * places, prompt_keys.shape[3]
        self.keys = prompt_keys.new_zeros(rows, width, length)  # (B * K * R, d, length)
        self.values = prompt_keys.new_zeros(rows, length, width)  # (B * K * R, length, d)
        self.position: Tensor  # (1,) index of the new token in the buffers
        self.padding: Tensor | None = None  # (B, 1, 1, P) True on a prompt's padding
        self.future: Tensor | None = None  # (length,) True where no token is stored yet; None: `span` is used instead
        self.span = 0  # number of stored tokens that are read

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B * R, H, d), k and v (B * R, K, d) -> (B * R, H, d)."""
        prompts, heads, places = self.shape
        rows, width = prompts * places, q.shape[2]
        q, k, v = (x.view(prompts, places, heads, -1, width).transpose(1, 2) for x in (q, k, v))  # (B, K, R, any, d)
        self.keys.index_copy_(2, self.position, k.reshape(-1, width, 1))
        self.values.index_copy_(1, self.position, v.reshape(-1, 1, width))
        q = (q * width**-0.5).reshape(prompts * heads, -1, width)  # (B * K, R * H / K, d)
        prompt_scores = torch.bmm(q, self.prompt_keys)  # (B * K, R * H / K, P)
        if self.padding is not None:
            prompt_scores.unflatten(0, (prompts, heads)).masked_fill_(self.padding, -torch.inf)
        by_row = (len(self.keys), -1)  # (B * K * R, H / K, any)
        own_scores = torch.bmm(q.view(*by_row, width), self.keys[:, :, : self.span])  # (B * K * R, H / K, span)
        if self.future is not None:
            own_scores = own_scores.masked_fill(self.future, -torch.inf)
        seen = prompt_scores.shape[2]  # P
        scores = torch.cat([prompt_scores.view(*by_row, seen), own_scores], dim=2)  # (B * K * R, H / K, P + span)
        weights = scores.softmax(dim=2, dtype=torch.float32).to(v.dtype)
        from_prompt = torch.bmm(weights.view(prompts * heads, -1, weights.shape[2])[:, :, :seen], self.prompt_values)
        mixed = torch.baddbmm(from_prompt.view(*by_row, width), weights[:, :, seen:], self.values[:, : self.span])
        return mixed.view(prompts, heads, places, -1, width).transpose(1, 2).reshape(rows, -1, width)

    def keep(self, prompts: Tensor, slots: Tensor) -> None:
        """Go on with these prompts (B',) and, one for each place of theirs, these slots b * R + i (B' * R',)."""
        old_prompts, heads, places = self.shape
        self.shape = (len(prompts), heads, len(slots) // len(prompts))
        for name in ("prompt_keys", "prompt_values"):
            by_prompt = getattr(self, name).unflatten(0, (old_prompts, heads))
            setattr(self, name, by_prompt.index_select(0, prompts).flatten(0, 1))
        for name in ("keys", "values"):
            by_slot = getattr(self, name).unflatten(0, (old_prompts, heads, places))[slots // places, :, slots % places]
            by_prompt = by_slot.unflatten(0, (len(prompts), -1)).transpose(1, 2)  # (B', K, R', ., .)
            setattr(self, name, by_prompt.flatten(0, 2))


class StaticDecoder:
    """Rows on a grid: B prompts with R slots each. Row n has slot `slots[n]` = b * R + i; slots without a row
    are computed but never read. Where rows are is known on the CPU, so that no GPU is waited for when some leave."""

    @torch.no_grad()
    def __init__(
        self,
        policy: Policy,
        prompts: PromptBatch,
        groups: Tensor,
        max_new_tokens: int,
        graph: bool = False,
        compiled: bool = False,
    ):
        check_length(policy, prompts.attention_mask.shape[1] + max_new_tokens - 1)
        self.policy, self.layers = policy, layers_of(policy, sampling=True)
        self.model = policy.base.model.language_model
        self.graph, self.compiled, self.whole = (
            graph,
            compiled,
            graph or compiled,
        )  # whole: buffers are read to their end
        self.now, self.length = 0, max(max_new_tokens - 1, 1)  # S: no token follows the last one
        real = prompts.attention_mask.bool()  # (B, P)
        self.padded = (~real.all(dim=1)).tolist()  # B bools
        last_hidden, prompt_attention = self.prefill(prompts, padding_mask(real) if any(self.padded) else None)
        self.hidden = last_hidden[groups]  # (N, D)
        steps = torch.arange(self.length, device=groups.device)
        positions = (prompts.next_position[:, None] + steps).flatten().expand(3, -1)  # (3, B * S), all equal
        angles = rotation(policy, positions, self.hidden.dtype)  # (B * S, 1, d) each
        self.angles = [angle.unflatten(0, (-1, self.length)) for angle in angles]  # (B, S, 1, d) each
        self.padding = ~real[:, None, None]  # (B, 1, 1, P)
        prompt_ids, slots, places = grid(groups.cpu())
        chosen = upload(prompt_ids, groups.device)
        caches = [(layer.keys[chosen], layer.values[chosen]) for layer in prompt_attention]
        self.attends = [GridAttention(keys, values, places, self.length) for keys, values in caches]
        self.use_grid(prompt_ids, slots, places)

    def __enter__(self) -> StaticDecoder:
        """Few rows of small layers are decoded by one thread: others would be waited for longer than they help."""
        self.threads = torch.get_num_threads()
        numbers = sum(layer.numbers for layer in self.layers if isinstance(layer, MergedLayer))
        if numbers and self.hidden.device.type == "cpu" and len(self.tokens) * numbers <= ONE_THREAD:
            torch.set_num_threads(1)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.threads)

    def prefill(self, prompts: PromptBatch, mask: Tensor | None) -> tuple[Tensor, list[PromptAttention]]:
        """The last hidden states (B, D) of the prompts, and the attention of each layer with their keys and values."""
        hidden = prompt_embeds(self.policy, prompts).flatten(0, 1)  # (B * P, D)
        turn = rotation(self.policy, prompts.position_ids.flatten(1), hidden.dtype)  # (B * P, 1, d) each
        attends = [PromptAttention(len(prompts), mask) for _ in self.layers]
        hidden = through_layers(self.layers, attends, hidden, *turn)
        last = hidden.unflatten(0, prompts.input_ids.shape)[:, -1]  # (B, D)
        return norm(self.model.norm, last), attends

    def use_grid(self, prompts: Tensor, slots: Tensor, places: int) -> None:
        """Switch to a grid of these prompts (indices into the grid before), and allocate the buffers of one step;
        prompts and slots are on the CPU."""
        self.places, self.padded = places, [self.padded[b] for b in prompts.tolist()]
        self.move_rows(slots)
        chosen = upload(prompts, self.hidden.device)
        self.padding, self.angles = self.padding[chosen], [angle[chosen] for angle in self.angles]
        total = len(prompts) * places
        self.tokens, self.position = self.slots.new_zeros(total), self.slots.new_zeros(1)
        self.turns = [angle.repeat_interleave(places, dim=0) for angle in self.angles]  # (B * R, S, 1, d) each
        self.turn = [turn[:, 0].clone() for turn in self.turns]  # (B * R, 1, d) each, of the token at hand
        self.future = torch.arange(self.length, device=self.hidden.device) >= self.now  # (S,)
        for attend in self.attends:
            attend.position, attend.padding = self.position, self.padding if any(self.padded) else None
            attend.future, attend.span = (self.future, self.length) if self.whole else (None, self.now)
        # Replays a captured graph. Not a bound method: in such a reference cycle the caches would outlive the sampling.
        self.run: Callable[[], Tensor] | None = None

    def move_rows(self, slots: Tensor) -> None:
        """Row n has slot `slots[n]` from now on; (A,) on the CPU."""
        self.slots_on_cpu, self.slots = slots, upload(slots, self.hidden.device)

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        self.tokens[self.slots] = tokens
        self.position.fill_(self.now)
        self.future[self.now] = False
        for turn, turns in zip(self.turn, self.turns, strict=True):
            turn.copy_(turns[:, self.now])
        if not self.whole:
            for attend in self.attends:
                attend.span = self.now + 1
        self.hidden = (self.run or self.forward)()[self.slots]  # (A, D)
        self.now += 1
        if self.graph and self.run is None:  # this step was the warm-up before a capture
            self.capture()
        return self.hidden

    def forward(self) -> Tensor:
        """Hidden states (B * R, D) after the tokens of the grid."""
        inputs = (self.layers, self.attends, self.model.get_input_embeddings()(self.tokens), *self.turn)
        try:
            hidden = compiled_layers()(*inputs) if self.compiled else through_layers(*inputs)  # (B * R, D)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of Dynamo, of Inductor or of the C++ compiler
            if not self.compiled:
                raise
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            warnings.warn(f"decoding goes on without torch.compile, which failed: {first}", stacklevel=4)
            self.compiled = False
            hidden = through_layers(*inputs)
        return norm(self.model.norm, hidden)

    def capture(self) -> None:
        """Capture `forward` as a CUDA graph, which launches its hundreds of small kernels at once."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = self.forward()
        except RuntimeError as error:
            warnings.warn(f"decoding goes on without a CUDA graph, which could not be captured: {error}", stacklevel=4)
            this = weakref.ref(self)
            self.run = lambda: this().forward()  # type: ignore[union-attr]  # no second attempt on this grid
            return

        def replay() -> Tensor:
            graph.replay()
            return output

        self.run = replay

    @torch.no_grad()
    def keep(self, rows: Sequence[int] | Tensor) -> None:
        self.hidden, old = self.hidden[upload(rows, self.hidden.device)], self.slots_on_cpu[rows]
        prompts, slots, places = grid(old // self.places)
        # a new grid copies the caches, a graph must be captured again, and compiling again is never worth it
        threshold = 0.0 if self.compiled else 0.5 if self.graph else 0.9
        if len(prompts) * places > threshold * len(self.tokens):
            self.move_rows(old)
            return
        source = old[0].repeat(len(prompts) * places).index_copy(0, slots, old)  # slots without a row: any
        chosen, source = upload(prompts, self.hidden.device), upload(source, self.hidden.device)
        for attend in self.attends:  # one by one: never two copies of all caches
            attend.keep(chosen, source)
        self.use_grid(prompts, slots, places)


def through_layers(layers: Sequence[Any], attends: Sequence[Any], hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Hidden states (T, D) through all layers; cos, sin (T, 1, d)."""
    for layer, attend in zip(layers, attends, strict=True):
        hidden = layer(hidden, cos, sin, attend)
    return hidden


@cache
def compiled_layers() -> Callable[..., Tensor]:
    """`through_layers` through torch.compile: one for the process, compiled once per shape."""
    return torch.compile(through_layers, dynamic=False)


def grid(groups: Tensor) -> tuple[Tensor, Tensor, int]:
    """Prompts that have rows (B,), the slot of each row (N,), and slots per prompt, for ascending groups (N,).

    >>> grid(torch.tensor([1, 1, 1, 4]))
    (tensor([1, 4]), tensor([0, 1, 2, 3]), 3)
    """
    prompts, index, counts = groups.unique(return_inverse=True, return_counts=True)
    places = int(counts.max())
    first = counts.cumsum(0) - counts  # (B,) the first row of each prompt
    return prompts, index * places + torch.arange(len(groups), device=groups.device) - first[index], places
