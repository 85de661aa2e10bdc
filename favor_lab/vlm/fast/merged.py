"""The decoder layers of `layers` for small models in float32, with far fewer operations.

Where matrices are small, a step's time goes to passes over tensors rather than to arithmetic. Here the weights of each
layer are copied when a pass begins: matrices that read the same input side by side, the adapter and the weights of the
norm before them merged in. Gradients are written out: autograd would save more tensors and pass over each several
times. The trained weights are the adapter's alone, so that no gradient of a merged matrix is ever computed: with
W = base + scale up down it is, for the gradient g of x W' and the rows x,

    d up = scale g' (x down')        d down = scale (g up)' x

Equal to `layers.Layer` up to the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import silu

from favor_lab.vlm.fast.layers import Attend, Layer, base_of, lora_of

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

MERGE_LIMIT = 2**27  # bytes of decoder layers up to which a merged copy is made (the pocket policy has 6 MB)


def layers_of(policy: Policy, sampling: bool = False) -> list[Layer] | list[MergedLayer]:
    """The decoder layers with the weights they have now: merged copies if they are small, in float32, and frozen but
    for a plain adapter. sampling: no gradient will be wanted, so that trained matrices may be merged too."""
    layers = policy.base.model.language_model.layers
    size = sum(weight.numel() * weight.element_size() for weight in layers.parameters())
    if (
        policy.dtype == torch.float32
        and size <= MERGE_LIMIT
        and all(MergedLayer.fits(layer, sampling) for layer in layers)
    ):
        with torch.no_grad():
            return [MergedLayer(layer) for layer in layers]
    return [Layer(layer) for layer in layers]


class Merged:
    """Linear layers that read the same input as one matrix, (D, sum of outputs), their adapters merged in; and so are
    the weights (D,) of the norm before them, so that the input is `unit(x)`."""

    def __init__(self, modules: Sequence[Any], norm_weight: Tensor | None = None):
        bases = [base_of(module) for module in modules]
        self.norm_weight = norm_weight
        self.bias = None if bases[0].bias is None else torch.cat([base.bias for base in bases])
        self.ends = [0, *accumulate(base.out_features for base in bases)]  # where each one's outputs begin and end
        weight = torch.cat([base.weight for base in bases])  # (sum of outputs, D)
        adapters = [(i, *lora_of(module)) for i, module in enumerate(modules)]
        self.adapters = [adapter for adapter in adapters if adapter[1] is not None]  # (i, down, up, scale)
        for i, down, up, scale in self.adapters:
            weight[self.ends[i] : self.ends[i + 1]].addmm_(up.to(weight.dtype), down.to(weight.dtype), alpha=scale)
        if norm_weight is not None:
            weight.mul_(norm_weight)
        self.weight = weight.T.contiguous()  # (D, sum of outputs)

    @property
    def parameters(self) -> list[Tensor]:
        """The trained matrices, in the order of `gradients`: the narrow ones of all layers, then the others."""
        return [down for _, down, _, _ in self.adapters] + [up for _, _, up, _ in self.adapters]

    def __call__(self, x: Tensor) -> Tensor:
        """(T, D) -> (T, sum of outputs)."""
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def gradients(self, x: Tensor, gradient: Tensor) -> list[Tensor]:
        """Of the adapters' matrices, for the input (T, D) and the gradient (T, sum of outputs) of the output."""
        if not self.adapters:
            return []
        downs = torch.cat([down for _, down, _, _ in self.adapters]).to(x.dtype)  # (adapters * r, D)
        if self.norm_weight is not None:
            downs = downs * self.norm_weight
        low = (x @ downs.T).chunk(len(self.adapters), dim=1)  # (T, r) each
        of_up, of_low = [], []
        for (i, _, up, scale), narrow in zip(self.adapters, low, strict=True):
            part = gradient[:, self.ends[i] : self.ends[i + 1]]  # (T, outputs)
            of_up.append((part.T @ narrow).mul_(scale))  # (outputs, r)
            of_low.append((part @ up.to(x.dtype)).mul_(scale))  # (T, r)
        of_down = torch.cat(of_low, dim=1).T @ x  # (adapters * r, D)
        if self.norm_weight is not None:
            of_down.mul_(self.norm_weight)
        return [*of_down.chunk(len(self.adapters)), *of_up]


class MergedLayer:
    """One decoder layer on flat tokens, as `layers.Layer`."""

    def __init__(self, layer: Any):
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        self.qkv = Merged([attention.q_proj, attention.k_proj, attention.v_proj], layer.input_layernorm.weight)
        self.out, self.down = Merged([attention.o_proj]), Merged([mlp.down_proj])
        self.gate_up = Merged([mlp.gate_proj, mlp.up_proj], layer.post_attention_layernorm.weight)
        self.eps_before, self.eps_after = (
            torch.full_like(module.weight[:1], module.variance_epsilon)
            for module in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        heads, kv_heads = (end // self.head_dim for end in (self.qkv.ends[1], self.qkv.ends[3] - self.qkv.ends[2]))
        self.heads = [heads, kv_heads, kv_heads]  # H, K, K
        self.numbers = sum(part.weight.numel() for part in (self.qkv, self.out, self.gate_up, self.down))

    @staticmethod
    def fits(layer: Any, trained_too: bool) -> bool:
        """Whether a decoder layer has plain matrices, with biases where Qwen2-VL has them, and frozen unless
        `trained_too`."""
        attention, mlp = layer.self_attn, layer.mlp
        with_bias = [base_of(module) for module in (attention.q_proj, attention.k_proj, attention.v_proj)]
        without = [base_of(module) for module in (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
        if not all(type(base) is torch.nn.Linear for base in with_bias + without):
            return False
        biases = [base.bias is not None for base in with_bias] + [base.bias is None for base in without]
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        trained = any(weight.requires_grad for module in with_bias + without + norms for weight in module.parameters())
        return all(biases) and (trained_too or not trained)

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(T, D) -> (T, D). cos, sin (T, 1, d): see `rotation`. attend: q (T, H, d), k and v (T, K, d) -> (T, H, d)."""
        if torch.is_grad_enabled():
            q, k, v = BeforeAttention.apply(self, hidden, cos, sin, *self.qkv.parameters)
            mixed = attend(q, k, v).flatten(1)  # (T, H * d)
            trained = (part.parameters for part in (self.out, self.gate_up, self.down))
            return AfterAttention.apply(self, hidden, mixed, *(weight for part in trained for weight in part))
        q, k, v = self.before(unit(hidden, self.eps_before)[0], cos, sin)
        return self.after(hidden, attend(q, k, v).flatten(1))[0]

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> Sequence[Tensor]:
        """q (T, H, d), k and v (T, K, d), the first two rotated, from normalised hidden states (T, D)."""
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_dim))  # (T, H + 2 K, d)
        rotate_(qkv[:, : -self.heads[2]], cos, sin)
        return qkv.split(self.heads, dim=1)

    def after(self, hidden: Tensor, mixed: Tensor) -> tuple[Tensor, ...]:
        """The layer's output (T, D) from its input and what attention made of it (T, H * d); and, for the gradient, the
        normalised state in between with its factor (T, 1), gate and up (T, 2 MLP), and the input (T, MLP) of `down`."""
        between = torch.addmm(hidden, mixed, self.out.weight)  # (T, D)
        x, factor = unit(between, self.eps_after)
        gate_up = self.gate_up(x)
        gate, up = gate_up.chunk(2, dim=-1)
        wide = silu(gate).mul_(up)
        return torch.addmm(between, wide, self.down.weight), x, factor, gate_up, wide


class BeforeAttention(Function):
    """Hidden states (T, D) -> q, k, v, with the gradients of `MergedLayer.before`."""

    @staticmethod
    def forward(ctx: Any, layer: MergedLayer, hidden: Tensor, cos: Tensor, sin: Tensor, *trained: Tensor) -> Any:
        x, factor = unit(hidden, layer.eps_before)
        ctx.layer = layer
        ctx.save_for_backward(x, factor, cos, sin, *trained)  # the last: an error if they change before the gradient
        return tuple(layer.before(x, cos, sin))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        layer, (x, factor, cos, sin, *_) = ctx.layer, ctx.saved_tensors
        gradient = torch.cat(gradients, dim=1)  # (T, H + 2 K, d)
        rotate_(gradient[:, : -layer.heads[2]], cos, -sin)  # back
        gradient = gradient.flatten(1)
        of_hidden = None
        if ctx.needs_input_grad[1]:
            of_hidden = unit_backward(gradient @ layer.qkv.weight.T, x).mul_(factor)  # (T, D)
        return None, of_hidden, None, None, *layer.qkv.gradients(x, gradient)


class AfterAttention(Function):
    """Hidden states (T, D) and the result of attention (T, H * d) -> hidden states, with the gradients of
    `MergedLayer.after`."""

    @staticmethod
    def forward(ctx: Any, layer: MergedLayer, hidden: Tensor, mixed: Tensor, *trained: Tensor) -> Tensor:
        output, *between = layer.after(hidden, mixed)
        ctx.layer = layer
        ctx.save_for_backward(mixed, *between, *trained)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        layer, (mixed, x, factor, gate_up, wide, *_) = ctx.layer, ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)  # (T, MLP)
        of_wide, of_gate_up = gradient @ layer.down.weight.T, torch.empty_like(gate_up)
        torch.mul(of_wide, silu(gate), out=of_gate_up[:, wide.shape[1] :])
        torch.ops.aten.silu_backward.grad_input(
            of_wide.mul_(up), gate, grad_input=of_gate_up[:, : wide.shape[1]]
        )  # fmt: skip
        of_between = torch.addcmul(gradient, unit_backward(of_gate_up @ layer.gate_up.weight.T, x), factor)  # (T, D)
        trained = layer.out.gradients(mixed, of_between)
        trained += layer.gate_up.gradients(x, of_gate_up) + layer.down.gradients(wide, gradient)
        return None, of_between, of_between @ layer.out.weight.T, *trained


def unit(x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """x divided by its root mean square, (T, D), and the factor (T, 1) by which it was multiplied; eps (1,)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (T, 1)
    factor = torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()
    return x * factor, factor


def unit_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient (T, D) of the input of `unit`, still to be multiplied by its factor, from the gradient and the value
    x of its output."""
    return torch.addcmul(gradient, x, (gradient * x).sum(dim=-1, keepdim=True), value=-1 / x.shape[-1])


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`layers.rotate` in place; with -sin it turns back, which is its gradient."""
    rolled = x.roll(x.shape[-1] // 2, dims=-1)
    return x.mul_(cos).addcmul_(rolled, sin)
