"""Parts of one pass side by side, a thread each.

Two threads inside every operation wait for each other a thousand times per step of a small model; two threads with half
of the prompts each wait once. A part's numbers do not depend on the others, and gradients are added in the order of the
parts: the result is deterministic for a given number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Part = Callable[[], Tensor]


def side_by_side(parts: Sequence[Part], trained: Sequence[Tensor]) -> Tensor:
    """The results (M, D) of the parts, concatenated. Differentiable in `trained`, all that the parts need gradients of;
    their backward passes run side by side too."""
    if torch.is_grad_enabled():
        return SideBySide.apply(parts, *trained)
    return torch.cat(in_threads(parts))


class SideBySide(Function):
    """Each part keeps a graph of its own, which autograd's own thread would walk through one after the other."""

    @staticmethod
    def forward(ctx: Any, parts: Sequence[Part], *trained: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.results = in_threads(parts)
        ctx.save_for_backward(*trained)
        return torch.cat([result.detach() for result in ctx.results])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        trained, results = ctx.saved_tensors, ctx.results
        works = [
            partial(torch.autograd.grad, result, trained, part, allow_unused=True)
            for result, part in zip(results, gradient.split([len(result) for result in results]), strict=True)
            if result.requires_grad
        ]
        totals: list[Tensor | None] = [None] * len(trained)
        for gradients in in_threads(works):
            totals = [b if a is None else a if b is None else a + b for a, b in zip(totals, gradients, strict=True)]
        return None, *totals


def in_threads(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of calls that run side by side and share torch's threads; the first error, if there is one."""
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()

    def call(work: Callable[[], Any]) -> Any:
        torch.set_num_threads(max(1, threads // len(works)))
        with torch.set_grad_enabled(grad):
            return work()

    try:
        return list(pool().map(call, works))
    finally:
        torch.set_num_threads(threads)  # also what threads of later calls begin with


@cache
def pool() -> ThreadPoolExecutor:
    """The threads, made when they are first needed and kept."""
    return ThreadPoolExecutor(thread_name_prefix="favor_lab-scoring")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # threads do not survive a fork
