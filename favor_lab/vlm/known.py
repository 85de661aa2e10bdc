"""Data about the published models that needs no download: pinned commits, sizes, configurations. From a configuration
alone follow what fits on a card, what a step costs and how many parameters there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from favor_lab.vlm.families import FAMILIES


@dataclass(frozen=True)
class PublishedModel:
    """The commit that `load_policy` loads unless told otherwise, and the sizes of the language model."""

    revision: str  # commit of the Hub's repository
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    tied_head: bool
    family: str = "qwen2_vl"  # of `families.FAMILIES`


KNOWN = {
    "Qwen/Qwen2-VL-2B-Instruct": PublishedModel(
        "895c3a49bc3fa70a340399125c650a463535e71c", 1536, 28, 12, 2, 8960, 151_936, tied_head=True
    ),
    "Qwen/Qwen2-VL-7B-Instruct": PublishedModel(
        "eed13092ef92e448dd6875b2a00151bd3f7db0ac", 3584, 28, 28, 4, 18_944, 152_064, tied_head=False
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": PublishedModel(
        "66285546d2b821cf421d4f5eb2576359d3770cd3", 2048, 36, 16, 2, 11_008, 151_936, True, "qwen2_5_vl"
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": PublishedModel(
        "cc594898137f460bfe9f0759e9844b3ce807cfb5", 3584, 28, 28, 4, 18_944, 152_064, False, "qwen2_5_vl"
    ),
}


def hub_config(model: PublishedModel) -> dict[str, Any]:
    """`config.json` as on the Hub: the older layout, with the fields of the text model at the top level."""
    newer = model.family == "qwen2_5_vl"
    vision: dict[str, Any] = dict(
        depth=32, num_heads=16, in_chans=3, patch_size=14, spatial_merge_size=2, temporal_patch_size=2
    )
    if newer:
        vision |= dict(hidden_size=1280, out_hidden_size=model.hidden, intermediate_size=3420, hidden_act="silu")
        vision |= dict(window_size=112, fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2)
    else:
        vision |= dict(embed_dim=1280, mlp_ratio=4, hidden_size=model.hidden)
    text: dict[str, Any] = dict(hidden_size=model.hidden, intermediate_size=model.mlp, vocab_size=model.vocabulary)
    text |= dict(num_hidden_layers=model.layers, num_attention_heads=model.heads, num_key_value_heads=model.kv_heads)
    text |= dict(hidden_act="silu", rms_norm_eps=1e-6, attention_dropout=0.0, initializer_range=0.02)
    text |= dict(
        max_position_embeddings=128_000 if newer else 32_768,
        sliding_window=32768,
        use_sliding_window=False,
        max_window_layers=28,
    )
    text |= dict(rope_theta=1_000_000.0, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]})
    ids = dict(bos=151643, eos=151645, vision_start=151652, vision_end=151653, vision=151654, image=151655)
    text |= {f"{name}_token_id": number for name, number in (ids | dict(video=151656)).items()}
    architecture = f"{FAMILIES[model.family]}ForConditionalGeneration"
    whole = dict(architectures=[architecture], model_type=model.family, torch_dtype="bfloat16")
    return text | whole | dict(tie_word_embeddings=model.tied_head, use_cache=True, vision_config=vision)
