"""The sizes that all estimates start from: `ModelShape` for the model, `StepShape` for one training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from favor_lab.grpo.support.settings import GRPOSettings

NF4_BYTES = 0.53  # per weight: 4 bits, and its share of the doubly quantised scales


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a Qwen2-VL or Qwen2.5-VL that its costs depend on."""

    hidden: int  # D
    layers: int
    heads: int  # H
    kv_heads: int  # K
    head_dim: int  # d
    mlp: int  # M
    vocabulary: int  # V
    tied_head: bool
    tower_width: int
    tower_layers: int
    tower_mlp: int
    patch_values: int  # values per patch: channels x frames x height x width
    merge: int  # patches merged into one image token, along each side
    lora_rank: int = 16  # 0: the whole language model is trained
    weight_bytes: float = 4  # per weight of the language model: 4 in float32, 2 in bfloat16, about 0.53 in NF4
    value_bytes: int = 4  # per activation
    tower_gated: bool = False  # the tower of Qwen2.5-VL: three matrices in its MLPs, no bias in its norms ...
    tower_window: int = 0  # ... and patches in a window of attention, 0: the image is one ...
    tower_full_layers: int = 0  # ... except in so many layers

    @property
    def query_width(self) -> int:
        """Width of all query heads together, H x d."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys, or of all values, K x d."""
        return self.kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Weights in the matrices of one decoder layer: q, k, v, o and the three of the MLP."""
        return 2 * self.hidden * (self.query_width + self.kv_width) + 3 * self.hidden * self.mlp

    @property
    def layer_parameters(self) -> int:
        """All parameters of one decoder layer: the matrices, the biases and the two norms."""
        return self.layer_weights + self.query_width + 2 * self.kv_width + 2 * self.hidden

    @property
    def language_parameters(self) -> int:
        """Parameters of the language model; a tied head is the embedding and counts once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_head else 2)
        return self.layers * self.layer_parameters + self.hidden + embeddings

    @property
    def lora_weights(self) -> int:
        """Weights of a LoRA adapter on the seven matrices of every layer: rank x (inputs + outputs) each."""
        sides = 2 * (self.hidden + self.query_width) + 2 * (self.hidden + self.kv_width) + 3 * (self.hidden + self.mlp)
        return self.layers * self.lora_rank * sides

    @property
    def trained_weights(self) -> int:
        """Weights that the optimiser changes: those of the adapter, or of the whole language model."""
        return self.lora_weights or self.language_parameters

    @property
    def tower_parameters(self) -> int:
        """Parameters of the vision tower: patch embedding, blocks, merger."""
        width, merged = self.tower_width, self.merge**2 * self.tower_width
        norm, mlps = (width, 2) if self.tower_gated else (2 * width, 1)  # parameters of a norm, matrices side by side
        block = 4 * width * (width + 1) + (mlps + 1) * width * self.tower_mlp + mlps * self.tower_mlp + width + 2 * norm
        merger = norm + merged * (merged + 1) + (merged + 1) * self.hidden
        return self.patch_values * width + self.tower_layers * block + merger

    def kv_bytes(self, tokens: int) -> float:
        """Bytes of the keys and values of so many tokens, in all layers."""
        return 2.0 * tokens * self.layers * self.kv_width * self.value_bytes


def shape_of(source: Any, lora_rank: int | None = None, dtype: torch.dtype | None = None) -> ModelShape:
    """The shape of a Policy, or of a configuration of transformers (then with rank 16 and bfloat16, if not given)."""
    policy = source if hasattr(source, "trainable_parameters") else None
    config = policy.base.config if policy else source
    text, vision = config.text_config, config.vision_config
    value_bytes = (dtype or (policy.dtype if policy else torch.bfloat16)).itemsize
    quantised = policy is not None and getattr(policy.base, "is_loaded_in_4bit", False)
    if lora_rank is None:
        adapters = getattr(policy.model, "peft_config", {}) if policy else {}
        lora_rank = next(iter(adapters.values())).r if adapters else (0 if policy else 16)
    tower: dict[str, Any] = {}
    if gated := hasattr(vision, "fullatt_block_indexes"):  # Qwen2.5-VL, whose configuration has other names
        window = (vision.window_size // vision.patch_size) ** 2
        tower = {"tower_gated": True, "tower_window": window, "tower_full_layers": len(vision.fullatt_block_indexes)}
    return ModelShape(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        tied_head=bool(config.tie_word_embeddings),
        tower_width=vision.hidden_size if gated else vision.embed_dim,
        tower_layers=vision.depth,
        tower_mlp=vision.intermediate_size if gated else int(vision.embed_dim * vision.mlp_ratio),
        patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        merge=vision.spatial_merge_size,
        lora_rank=lora_rank,
        weight_bytes=NF4_BYTES if quantised else value_bytes,
        value_bytes=value_bytes,
        **tower,
    )


@dataclass(frozen=True)
class StepShape:
    """The sizes and settings of one training step that its costs depend on."""

    prompts: int  # B
    group_size: int  # G
    prompt_tokens: int  # P, image tokens included
    image_tokens: int  # I
    completion_tokens: int  # L
    images: int = 0  # encoded once, their features kept; 0: encoding is not part of the costs
    beta: float = 0.04
    micro_batch: int = 0  # rows per forward and backward pass; 0: all
    gradient_checkpointing: bool = False
    offload_tower: bool = False

    @classmethod
    def from_settings(cls, settings: GRPOSettings, text_tokens: int, image_tokens: int, images: int) -> StepShape:
        """The step that these settings lead to; text_tokens: of a prompt, without its image."""
        size, tokens = (settings.prompts_per_step, settings.group_size), (text_tokens + image_tokens, image_tokens)
        options = ("beta", "micro_batch", "gradient_checkpointing", "offload_tower")
        values = {name: getattr(settings, name) for name in options}
        return cls(*size, *tokens, settings.max_new_tokens, images, **values)

    @property
    def rows(self) -> int:
        """Completions in the step, N = B x G."""
        return self.prompts * self.group_size

    @property
    def rows_per_pass(self) -> int:
        """Completions in one forward and backward pass."""
        return min(self.micro_batch or self.rows, self.rows)

    @property
    def fed_tokens(self) -> int:
        """Tokens of a completion that run through the model: the last one predicts nothing."""
        return self.completion_tokens - 1
