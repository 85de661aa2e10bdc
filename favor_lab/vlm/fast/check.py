"""Compare the fast passes with transformers on a few tokens, when a policy is loaded. The fast passes write out the
decoder layers of Qwen2-VL (`layers`). A model that computes something else, for example one that normalises its queries
and keys, would run through them without an error and with wrong log-probabilities."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from favor_lab.activities.fewshot import Example
from favor_lab.vlm.fast.packed import packed_hidden
from favor_lab.vlm.policy import Policy
from favor_lab.vlm.prefix import completion_hidden, expand, next_token_logps, run_prompt
from favor_lab.vlm.processing import encode_texts
from favor_lab.vlm.untrusted import explained

ROWS, LENGTH = 2, 3  # N completions of one prompt, L tokens each
# Nats that rounding explains; in half precision a smaller fault goes unseen. Measured on the pocket policy: 3e-6, 0.001
# and 0.03; on 28 layers of random weights no more.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.15}


@torch.no_grad()
def check_fast_path(policy: Policy) -> float:
    """How far the packed pass is from transformers alone, over a few tokens after one small image: the largest mean
    difference of log-probabilities under a token's distribution, in nats. Deterministic. nan if the model's own
    log-probabilities are not finite (an overflow in float16): sampling reports that.

    ValueError where the difference is larger than rounding explains (`TOLERANCES`), with both numbers, and for layers
    with a sliding window, which a few tokens would not show.
    """
    height, width = np.mgrid[:56, :84]  # an image without symmetry: time, height and width positions all matter
    image = Image.fromarray(np.stack([3 * width, 4 * height, width + 2 * height], axis=-1).astype(np.uint8))
    what = f"{policy.name} cannot answer about an image: config.json or preprocessor_config.json do not fit the weights"
    with explained(what, "Copy or download the checkpoint again"):
        prompts = encode_texts(policy, [Example(image, "", "a drawn image")], ["What?"], LENGTH)
        allowed = (~policy.forbidden).nonzero().flatten()
        spread = torch.linspace(0, len(allowed) - 1, ROWS * LENGTH, device=allowed.device).long()
        ids = allowed[spread].view(LENGTH, ROWS).T.contiguous()  # (N, L)
        mask, groups = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids[:, 0])  # (N, L), (N,)
        truth = transformers_logps(policy, image, prompts.input_ids, ids)  # (N, L, V)
    if bool(truth.isnan().any()):
        return float("nan")

    def difference(hidden: Tensor) -> float:  # hidden (N, L, D)
        absolute = (next_token_logps(policy, hidden) - truth).masked_fill(policy.forbidden, 0.0).abs()  # (N, L, V)
        return (truth.exp() * absolute).sum(dim=-1).max().item()

    fast = difference(packed_hidden(policy, prompts, ids, mask, groups).unflatten(0, ids.shape))
    quantised = getattr(policy.base, "is_quantized", False)  # its kernels round as bfloat16 does
    tolerance = TOLERANCES[torch.bfloat16 if quantised else policy.dtype]
    other_layers = set(getattr(policy.base.config.text_config, "layer_types", None) or ()) - {"full_attention"}
    if fast <= tolerance and not other_layers:
        return fast
    plain = difference(completion_hidden(policy, expand(run_prompt(policy, prompts), groups), ids, mask))
    reason = f"log-probabilities are {fast:.2g} nats off those of transformers, and at most {tolerance:g} is rounding"
    if fast <= tolerance:
        reason = f"they lack {', '.join(sorted(other_layers))}, which this model has"
    advice = f"The plain way of favor_lab.vlm.prefix is {plain:.2g} off: "
    if plain <= tolerance:
        advice += 'use that one only, by load_policy(..., check=False), then decoding="plain" and how="plain"'
    else:
        advice += "do not use this model"
    model_type = policy.base.config.model_type
    raise ValueError(f"the fast passes do not fit {policy.name} (model_type {model_type!r}): {reason}. {advice}")


def transformers_logps(policy: Policy, image: Image.Image, prompt_ids: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities (N, L, V) of each token after a prompt (1, P) with one RGB image and in completions `ids`
    (N, L), from pixels to logits by the model's own forward pass, without a cache and with positions of its own."""
    model, rows = policy.base, torch.cat([prompt_ids.expand(len(ids), -1), ids], dim=1)  # (N, P + L)
    pixels = policy.processor.image_processor(images=[image] * len(ids), return_tensors="pt").to(policy.device)
    rope_deltas, is_image = model.model.rope_deltas, (rows == model.config.image_token_id).int()  # (N, P + L)
    with policy.tower_on(policy.device):
        logits = model(input_ids=rows, mm_token_type_ids=is_image, use_cache=False, **pixels).logits
    logits = logits[:, -ids.shape[1] - 1 : -1]  # (N, L, V)
    model.model.rope_deltas = rope_deltas  # the model is left as it was
    return logits.float().masked_fill(policy.forbidden, -torch.inf).log_softmax(dim=-1)
