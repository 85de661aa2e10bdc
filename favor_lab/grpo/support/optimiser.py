"""One step of the optimiser: learning rate, gradient clipping, and numbers that must be finite."""

from __future__ import annotations

import math

import torch

from favor_lab.grpo.support.checkpoints import TrainingState
from favor_lab.grpo.support.schedule import learning_rate


def optimiser_step(state: TrainingState, rows: int) -> dict[str, float]:
    """One optimiser step, if there were rows to learn from. FloatingPointError names a parameter whose gradient is not
    finite (nothing has moved then), or that the step itself has driven out of range."""
    settings = state.settings
    rate = learning_rate(state.step, settings)
    moving = {name: weight for name, weight in state.policy.trainable_parameters() if weight.grad is not None}
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in moving.values() if weight.grad is not None])
    grad_norm = norm.item()
    if not math.isfinite(grad_norm):
        bad = [name for name, weight in moving.items() if weight.grad is None or not weight.grad.isfinite().all()]
        where = f"{len(bad)} parameters, the first {bad[0]}" if bad else "no parameter alone, but its norm overflows"
        raise FloatingPointError(f"the gradient is not finite in {where}")
    if settings.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(moving.values(), settings.max_grad_norm, norm)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    if rows:
        state.optimiser.step()
    if bad := state.out_of_range():
        driven = f"has driven {len(bad)} parameters out of range, the first {bad[0]}"
        raise FloatingPointError(f"the step, at learning rate {rate:g}, {driven}")
    return {"grad_norm": grad_norm, "learning_rate": rate}
