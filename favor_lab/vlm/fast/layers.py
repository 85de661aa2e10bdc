"""The decoder layers of Qwen2-VL and Qwen2.5-VL for flat tokens: T tokens of any rows, none of them padding.

transformers' own forward pass works on rectangles (rows x longest row) and carries a cache. The two passes that take
most of GRPO's time need neither: scoring computes every token once (`packed`), decoding one token per row (`decoding`).
Both run these layers, each with its own attention. The weights are those of the policy's modules, LoRA included.

    hidden = hidden + out(attend(rotate(q), rotate(k), v))      with q, k, v = qkv(norm(hidden))
    hidden = hidden + down(silu(gate) * up)                     with gate, up = gate_up(norm(hidden))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Projections:
    """Linear layers that read the same input, with their LoRA adapters, computed together. A layer that is not plain
    and not plain LoRA (dropout, DoRA, several adapters) is called as it is."""

    def __init__(self, modules: Sequence[Any]):
        self.bases = [base_of(module) for module in modules]
        adapters = [lora_of(module) for module in modules]
        self.ups = [(up, scale) for _, up, scale in adapters] if all(up is not None for _, up, _ in adapters) else []
        self.down = torch.cat([down for down, _, _ in adapters]) if self.ups else torch.empty(0)  # (modules * r, D)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(T, D) -> one (T, outputs) per linear layer."""
        outputs = [base(x) for base in self.bases]
        if self.ups:
            low = linear(x, self.down.to(x.dtype)).chunk(len(self.ups), dim=-1)  # (T, r) each
            for i, (up, scale) in enumerate(self.ups):
                outputs[i] = torch.addmm(outputs[i], low[i], up.to(x.dtype).T, alpha=scale)
        return outputs


def base_of(module: Any) -> Any:
    """The linear layer below a plain LoRA adapter, or the module itself."""
    return module.get_base_layer() if is_plain_lora(module) else module


def is_plain_lora(module: Any) -> bool:
    """Whether a layer computes base(x) + scale * up(down(x)) or, with its adapter disabled or merged, base(x)."""
    if not isinstance(module, LoraLayer):
        return False
    names = module.active_adapters
    no_variant = all(not module.use_dora.get(name) and not module.lora_bias.get(name) for name in names)
    no_dropout = all(isinstance(module.lora_dropout[name], torch.nn.Identity) or not module.training for name in names)
    return no_variant and no_dropout and len(names) <= 1 and all(name in module.lora_A for name in names)


def lora_of(module: Any) -> tuple[Any, Any, float]:
    """The matrices down (r, D) and up (outputs, r) of a layer's adapter and their scale; None without an adapter."""
    if not is_plain_lora(module) or module.disable_adapters or module.merged or not module.active_adapters:
        return None, None, 0.0
    name = module.active_adapters[0]
    return module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]


class Layer:
    """One decoder layer on flat tokens."""

    def __init__(self, layer: Any):
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        self.qkv = Projections([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = Projections([attention.o_proj])
        self.gate_up = Projections([mlp.gate_proj, mlp.up_proj])
        self.down = Projections([mlp.down_proj])
        self.norm_before, self.norm_after = layer.input_layernorm, layer.post_attention_layernorm

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(T, D) -> (T, D). cos, sin (T, 1, d): see `rotation`. attend: q (T, H, d), k and v (T, K, d) -> (T, H, d)."""
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)) for x in self.qkv(norm(self.norm_before, hidden)))
        (mixed,) = self.out(attend(rotate(q, cos, sin), rotate(k, cos, sin), v).flatten(1))  # (T, D)
        hidden = hidden + mixed
        gate, up = self.gate_up(norm(self.norm_after, hidden))  # (T, MLP)
        return hidden + self.down(silu(gate) * up)[0]


def norm(module: Any, x: Tensor) -> Tensor:
    """Root mean square normalisation with the weights of a module of transformers, (T, D) -> (T, D)."""
    return rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding: rotate each pair (x_i, x_{i + d/2}); x (T, heads, d), cos and sin (T, 1, d). The signs
    of the rotation are in `sin`: its first half is negated."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def rotation(policy: Policy, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin (T, 1, d) for `rotate`, for tokens at positions (3, T): time, height and width."""
    model = policy.base.model.language_model
    like = torch.empty(0, dtype=dtype, device=positions.device)  # gives the result its dtype and device
    cos, sin = model.rotary_emb(like, positions[:, None])
    if cos.dim() == 4:  # transformers < 5.2x returns all three, of which its attention then chooses
        sections = model.config.rope_parameters["mrope_section"] * 2
        cos, sin = (
            torch.cat([part[i % 3] for i, part in enumerate(x.split(sections, dim=-1))], dim=-1) for x in (cos, sin)
        )
    half = cos.shape[-1] // 2
    return cos[0, :, None], torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[0, :, None]
