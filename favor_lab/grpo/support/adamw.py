"""AdamW for weights of any type: what moves is kept in float32.

A bfloat16 weight has 8 significant bits: a step of the published learning rate 1e-6 is smaller than half the distance
to its neighbour, and would be rounded away, step after step. So the optimiser moves float32 copies, and the weights are
the copies rounded (mixed precision training, arXiv 1710.03740). Float32 weights move themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class AdamWWithCopies(torch.optim.AdamW):
    """AdamW over float32 copies of the weights, where they are not float32 themselves. `moved` is what it moves."""

    def __init__(self, weights: Sequence[Tensor], **options: Any):
        self.weights = list(weights)
        self.moved = [weight if weight.dtype == torch.float32 else copy_of(weight) for weight in self.weights]
        super().__init__(self.moved, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of the copies, and the weights are set to them. Gradients stay where they were."""
        pairs = [(weight, copy) for weight, copy in zip(self.weights, self.moved, strict=True) if weight is not copy]
        for weight, copy in pairs:
            copy.grad = None if weight.grad is None else weight.grad.float()
        result = super().step(closure)
        for weight, copy in pairs:
            weight.copy_(copy)
            copy.grad = None
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients of the weights."""
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None if set_to_none or weight.grad is None else weight.grad.zero_()


def copy_of(weight: Tensor) -> Tensor:
    """A float32 copy that an optimiser may move."""
    return weight.detach().float().requires_grad_()


def adamw(weights: Sequence[Tensor], rate: float, decay: float) -> torch.optim.AdamW:
    """torch's own AdamW for float32 weights; for others one that keeps float32 copies of them, which a warning names:
    they take 4 bytes per weight, and a weight changes only once its copy has come nearer to another value.

    >>> weight = torch.ones(1, dtype=torch.bfloat16, requires_grad=True)
    >>> with warnings.catch_warnings(record=True):
    ...     optimiser = adamw([weight], rate=1e-3, decay=0.0)
    >>> values = []
    >>> for _ in range(3):
    ...     weight.grad = -torch.ones_like(weight)
    ...     _ = optimiser.step()
    ...     values.append(weight.item())
    >>> values  # the next number is 1 + 1/128: half of the way after four steps
    [1.0, 1.0, 1.0]
    >>> round(optimiser.moved[0].item(), 4)
    1.003
    """
    options: dict[str, Any] = {"lr": rate, "weight_decay": decay}
    narrow = [weight for weight in weights if weight.dtype != torch.float32]
    if not narrow:
        return torch.optim.AdamW(weights, **options)
    count, kind = sum(weight.numel() for weight in narrow), str(narrow[0].dtype).removeprefix("torch.")
    warnings.warn(
        f"{count:,} weights that are trained are {kind}, which is too coarse for small steps: the optimiser keeps"
        f" float32 copies of them ({4 * count / 2**30:.1f} GiB), and a {kind} weight changes once its copy has come"
        " nearer to another value",
        stacklevel=3,
    )
    return AdamWWithCopies(weights, **options)


def narrow_type(weights: Iterable[Tensor]) -> str | None:
    """The name of a type among these weights in which small steps are rounded away; None if there is none.

    >>> narrow_type([torch.ones(1), torch.ones(1, dtype=torch.float16)])
    'float16'
    """
    return next((str(w.dtype).removeprefix("torch.") for w in weights if w.dtype.itemsize < 4), None)


def check_precision(optimiser: torch.optim.Optimizer) -> None:
    """ValueError for an optimiser, such as one of your own, that moves half precision weights themselves."""
    if kind := narrow_type(weight for group in optimiser.param_groups for weight in group["params"]):
        raise ValueError(
            f"the optimiser moves {kind} weights themselves, which is too coarse for small steps: they would be rounded"
            " away. Load the policy with dtype='float32', or let TrainingState.start make an optimiser that keeps"
            " float32 copies"
        )


def exact_weights(optimiser: torch.optim.Optimizer, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the optimiser moves, by the names of the weights in their order: the weights, or their float32 copies."""
    moved = optimiser.moved if isinstance(optimiser, AdamWWithCopies) else list(weights.values())
    return dict(zip(weights, moved, strict=True))
