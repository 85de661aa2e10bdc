"""FLOPs and memory reads of each phase of the *ideal* GRPO step, counted from the shape of the model.

It encodes each image once per run, runs each prompt once under the policy and once under the reference, and each
completion token once per pass. With the rates of a machine this is a lower bound on the time of a phase
(`bound_seconds`), not a forecast. One multiply-add is two FLOPs. Attention, matrices, adapter and head are counted;
norms, activation functions and softmax are not.
"""

from __future__ import annotations

from dataclasses import dataclass

from favor_lab.budget.shapes import ModelShape, StepShape


@dataclass(frozen=True)
class Cost:
    """The cost of one phase. tokens: through the language model (for `encode` through the vision tower); bytes: read
    from memory at least."""

    tokens: int
    flops: float
    bytes: float = 0.0


def causal_pairs(tokens: int, before: int = 0) -> int:
    """Pairs of a token and a token it attends to, for `tokens` tokens that follow `before` others.

    >>> causal_pairs(3), causal_pairs(2, before=10)
    (6, 23)
    """
    return tokens * before + tokens * (tokens + 1) // 2


def linear_flops(model: ModelShape, tokens: int, lora: bool = True) -> float:
    """The matrices of all decoder layers: 2 FLOPs per weight and token."""
    return 2.0 * tokens * (model.layers * model.layer_weights + (model.lora_weights if lora else 0))


def attention_flops(model: ModelShape, pairs: int) -> float:
    """Attention scores and weighted sums: 2 x 2 x H x d per pair and layer."""
    return 4.0 * pairs * model.query_width * model.layers


def head_flops(model: ModelShape, predicted: int) -> float:
    """Logits of the predicted tokens: 2 x D x V each."""
    return 2.0 * predicted * model.hidden * model.vocabulary


def backward_flops(model: ModelShape, tokens: int, pairs: int, predicted: int) -> float:
    """The backward pass over `tokens` tokens, `predicted` of them with logits, and `pairs` that attend.

    The gradient of the activations costs as much as the forward pass, that of the trained weights the same again: the
    adapter's, or with lora_rank 0 all and the head's. Flash attention computes its scores again: 2.5 times its forward
    pass. With an adapter nothing below the first layer is trained, so its q, k and v pass no gradient on.
    """
    base, head = linear_flops(model, tokens, lora=False), head_flops(model, predicted)
    if model.lora_rank:
        base -= 2.0 * tokens * model.hidden * (model.query_width + 2 * model.kv_width)
        base += 2 * 2.0 * tokens * model.lora_weights
    else:
        base, head = 2 * base, 2 * head
    return base + head + 2.5 * attention_flops(model, pairs)


def tower_flops(model: ModelShape, images: int, image_tokens: int) -> float:
    """The vision tower: all patches through the blocks, where each attends to its whole image (in most layers of
    Qwen2.5-VL to a full window), and the merger."""
    patches, width, merged = image_tokens * model.merge**2, model.tower_width, model.merge**2 * model.tower_width
    full_layers = model.tower_full_layers if model.tower_window else model.tower_layers
    matrices = 4 * width * width + (3 if model.tower_gated else 2) * width * model.tower_mlp
    attended = full_layers * patches + (model.tower_layers - full_layers) * min(patches, model.tower_window)
    ends = 2 * patches * model.patch_values * width + 2 * image_tokens * (merged * merged + merged * model.hidden)
    return float(images) * (2 * patches * (model.tower_layers * matrices + 2 * attended * width) + ends)


def step_costs(model: ModelShape, step: StepShape) -> dict[str, Cost]:
    """The costs of the ideal step by phase. encode: the images, if step.images is not 0. prefill: the prompts under the
    policy, for sampling and scoring. decode and score: all tokens of the completions but the last, which predicts
    nothing. reference: prompts and completions with the adapter off, if beta is not 0. backward: prompts and
    completions. Decoding reads all weights once per position, and the keys and values so far; while sampling, the
    adapter counts as merged.

    >>> tiny = ModelShape(8, 2, 2, 1, 4, 16, 100, True, 8, 1, 16, 12, 2, lora_rank=0)
    >>> costs = step_costs(tiny, StepShape(2, 3, prompt_tokens=10, image_tokens=4, completion_tokens=5, beta=0.0))
    >>> {phase: cost.tokens for phase, cost in costs.items()}
    {'prefill': 20, 'decode': 24, 'score': 24, 'backward': 44, 'optimiser': 0}
    """
    prompt_tokens, fed_tokens = step.prompts * step.prompt_tokens, step.rows * step.fed_tokens
    predicted, tokens = step.rows * step.completion_tokens, prompt_tokens + fed_tokens
    prompt_pairs = step.prompts * causal_pairs(step.prompt_tokens)
    row_pairs = step.rows * causal_pairs(step.fed_tokens, before=step.prompt_tokens)
    prompt_flops = linear_flops(model, prompt_tokens) + attention_flops(model, prompt_pairs)
    layer_flops = linear_flops(model, fed_tokens) + attention_flops(model, row_pairs)
    row_flops = layer_flops + head_flops(model, predicted)
    backward = backward_flops(model, tokens, prompt_pairs + row_pairs, predicted)
    if step.gradient_checkpointing:
        backward += prompt_flops + layer_flops
    adapter = 2.0 * model.lora_weights  # FLOPs per token
    weights = model.layers * model.layer_weights * model.weight_bytes
    head = model.vocabulary * model.hidden * model.value_bytes
    decode_bytes = step.fed_tokens * (weights + head + model.kv_bytes(prompt_tokens))
    decode_bytes += model.kv_bytes(step.rows * causal_pairs(step.fed_tokens))
    tower = float(model.tower_parameters * model.value_bytes)
    costs = {
        "encode": Cost(step.images * step.image_tokens, tower_flops(model, step.images, step.image_tokens), tower),
        "prefill": Cost(prompt_tokens, prompt_flops - prompt_tokens * adapter, weights),
        "decode": Cost(fed_tokens, row_flops - fed_tokens * adapter, decode_bytes),
        "score": Cost(fed_tokens, row_flops, weights),
        "reference": Cost(tokens, prompt_flops + row_flops - tokens * adapter, weights),
        "backward": Cost(tokens, backward, weights),
        # AdamW reads four float32 values per weight and writes three
        "optimiser": Cost(0, 12.0 * model.trained_weights, 28.0 * model.trained_weights),
    }
    left_out = {"encode": not step.images, "reference": not step.beta}
    return {phase: cost for phase, cost in costs.items() if not left_out.get(phase)}


def bound_seconds(costs: dict[str, Cost], flops_per_second: float, bytes_per_second: float) -> dict[str, float]:
    """The least time of each phase: for its FLOPs at this rate or its bytes at this bandwidth, whichever is longer.

    >>> bound_seconds({"decode": Cost(1, flops=10.0, bytes=60.0)}, flops_per_second=5.0, bytes_per_second=20.0)
    {'decode': 3.0}
    """
    return {name: max(cost.flops / flops_per_second, cost.bytes / bytes_per_second) for name, cost in costs.items()}
