"""The model families that this library runs, by the `model_type` in a checkpoint's config.json.

Their language models are the same, layer by layer, so that the fast passes are exact for both; their vision towers
differ, and are transformers' own. Every load compares the two ways again: see `favor_lab.vlm.fast.check`.
"""

from __future__ import annotations

from typing import Any

import transformers

FAMILIES = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}  # and how their classes in transformers begin


def model_class(model_type: str) -> Any:
    """The class of a family's models, such as `Qwen2VLForConditionalGeneration`."""
    return getattr(transformers, f"{FAMILIES[model_type]}ForConditionalGeneration")


def config_class(model_type: str) -> Any:
    """The class of a family's configurations, such as `Qwen2VLConfig`."""
    return getattr(transformers, f"{FAMILIES[model_type]}Config")
