"""The published Qwen2-VL models by name: their shapes and a pinned commit, known without a download.

What fits on a card, what a step costs and how many parameters there are follow from a configuration alone. A model of
another name has its configuration in its directory, or in the Hub's cache once it was downloaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from favor_lab.vlm.families import config_class


@dataclass(frozen=True)
class Known:
    """What is known of a published model: the commit that `load_policy` loads unless told otherwise, and its sizes."""

    revision: str  # of the Hub's repository
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    tied_head: bool


KNOWN = {
    "Qwen/Qwen2-VL-2B-Instruct": Known(
        "895c3a49bc3fa70a340399125c650a463535e71c", 1536, 28, 12, 2, 8960, 151_936, tied_head=True
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Known(
        "eed13092ef92e448dd6875b2a00151bd3f7db0ac", 3584, 28, 28, 4, 18_944, 152_064, tied_head=False
    ),
}


def hub_config(known: Known) -> dict[str, Any]:
    """`config.json` as the Hub has it: the older layout, in which the fields of the text model stand at the top."""
    vision = dict(depth=32, embed_dim=1280, mlp_ratio=4, num_heads=16, in_chans=3, hidden_size=known.hidden)
    vision |= dict(patch_size=14, spatial_merge_size=2, spatial_patch_size=14, temporal_patch_size=2)
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "hidden_act": "silu",
        "hidden_size": known.hidden,
        "initializer_range": 0.02,
        "intermediate_size": known.mlp,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen2_vl",
        "num_attention_heads": known.heads,
        "num_hidden_layers": known.layers,
        "num_key_value_heads": known.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1_000_000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": known.tied_head,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": vision,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": known.vocabulary,
    }


def configuration(model: str | Path = "Qwen/Qwen2-VL-2B-Instruct") -> Any:
    """The configuration of "pocket", a published model of `KNOWN`, a checkpoint directory, or a Hub name in the cache.

    Downloads nothing. Raises FileNotFoundError where there is none, ValueError for another kind of model.

    >>> configuration("Qwen/Qwen2-VL-2B-Instruct").text_config.num_hidden_layers
    28
    """
    from favor_lab.vlm.hub import check_is_qwen2_vl, fetch, locate

    if str(model) in KNOWN:
        return config_class("qwen2_vl")(**hub_config(KNOWN[str(model)]))
    folder = locate(model)
    if folder is None:
        folder = fetch(str(model), patterns=("config.json",), download=False)
    check_is_qwen2_vl(folder, str(model))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config_class(config["model_type"])(**config)
