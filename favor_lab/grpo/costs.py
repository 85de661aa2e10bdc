"""What a GRPO step must cost: tokens, FLOPs and bytes of each phase, counted from the shape of the model.

Two readers: the profile, which sets the measured seconds of a phase beside its *bound* (the ideal step's FLOPs at the
machine's matrix rate, or its bytes at the memory's bandwidth), and everybody who asks what fits on a card.

The ideal step encodes each image once in the whole run, runs each prompt once under the policy and once under the
reference, and each completion token once a pass. A multiply-add is two FLOPs. Attention, matrices, adapter and head are
counted; norms, activations and softmax are not: a bound, not a forecast.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from favor_lab.vlm.fast.layers import MERGE_LIMIT
from favor_lab.vlm.prefix import CHUNK_LOGITS
from favor_lab.vlm.processing import TOWER_CHUNK

PHASES = ("encode", "prefill", "decode", "score", "reference", "backward", "optimiser")
NF4_BYTES = 0.53  # of a weight: 4 bits, and its share of the doubly quantised scales
SAMPLING_COPIES, SCORING_COPIES = 6, 4  # float32 values alive for each logit at the peak; measured


@dataclass(frozen=True)
class ModelShape:
    """Everything about a Qwen2-VL that costs depend on."""

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
    patch_values: int  # values of a patch: channels x frames x height x width
    merge: int  # patches merged into an image token, along each side
    lora_rank: int = 16  # 0: the whole language model learns
    weight_bytes: float = 4  # of a weight of the language model: 4 in float32, 2 in bfloat16, about 0.53 in NF4
    value_bytes: int = 4  # of an activation

    @property
    def layer_weights(self) -> int:
        """Weights of a decoder layer's matrices: q, k, v, o and the three of the MLP."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.mlp

    @property
    def layer_parameters(self) -> int:
        """The same with biases and the two norms."""
        return self.layer_weights + self.head_dim * (self.heads + 2 * self.kv_heads) + 2 * self.hidden

    @property
    def language_parameters(self) -> int:
        """Parameters of the language model; a tied head is the embedding and counts once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_head else 2)
        return self.layers * self.layer_parameters + self.hidden + embeddings

    @property
    def lora_weights(self) -> int:
        """Weights of an adapter on the seven matrices of every layer: rank x (inputs + outputs) each."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (self.hidden + wide) + 2 * (self.hidden + narrow) + 3 * (self.hidden + self.mlp)
        return self.layers * self.lora_rank * sides

    @property
    def tower_parameters(self) -> int:
        """Parameters of the vision tower: patch embedding, blocks, merger."""
        width, four = self.tower_width, self.merge**2 * self.tower_width
        block = 4 * width * width + 4 * width + 2 * width * self.tower_mlp + self.tower_mlp + width + 4 * width
        merger = 2 * width + four * four + four + four * self.hidden + self.hidden
        return self.patch_values * width + self.tower_layers * block + merger


def shape_of(source: Any, lora_rank: int | None = None, dtype: torch.dtype | None = None) -> ModelShape:
    """The shape of a Policy, or of a Qwen2VLConfig (then rank 16 and bfloat16 unless said otherwise)."""
    policy = source if hasattr(source, "trainable_parameters") else None
    config = policy.base.config if policy else source
    text, vision = config.text_config, config.vision_config
    dtype = dtype or (policy.dtype if policy else torch.bfloat16)
    value_bytes = torch.empty(0, dtype=dtype).element_size()
    quantised = policy is not None and getattr(policy.base, "is_loaded_in_4bit", False)
    if lora_rank is None:
        configs = getattr(policy.model, "peft_config", {}) if policy else {}
        lora_rank = next(iter(configs.values())).r if configs else (0 if policy else 16)
    return ModelShape(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        tied_head=bool(config.tie_word_embeddings),
        tower_width=vision.embed_dim,
        tower_layers=vision.depth,
        tower_mlp=int(vision.embed_dim * vision.mlp_ratio),
        patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        merge=vision.spatial_merge_size,
        lora_rank=lora_rank,
        weight_bytes=NF4_BYTES if quantised else value_bytes,
        value_bytes=value_bytes,
    )


# ------------------------------------------------------------------------------------------------------------- FLOPs


@dataclass(frozen=True)
class Cost:
    """Of one phase: tokens run through the language model (through the tower, for `encode`), FLOPs, and bytes that
    must be read at least."""

    tokens: int
    flops: float
    bytes: float = 0.0


def causal_pairs(tokens: int, before: int = 0) -> int:
    """Pairs of a token and one it attends to, for tokens behind `before` others.

    >>> causal_pairs(3), causal_pairs(2, before=10)
    (6, 23)
    """
    return tokens * before + tokens * (tokens + 1) // 2


def linear_flops(shape: ModelShape, tokens: int, lora: bool = True) -> float:
    """The decoder layers' matrices: 2 FLOPs for each weight and token."""
    return 2.0 * tokens * (shape.layers * shape.layer_weights + (shape.lora_weights if lora else 0))


def attention_flops(shape: ModelShape, pairs: int) -> float:
    """Scores and weighted sum: 2 x 2 x H x d for each pair, in each layer."""
    return 4.0 * pairs * shape.heads * shape.head_dim * shape.layers


def head_flops(shape: ModelShape, predicted: int) -> float:
    """Logits of the tokens that are predicted: 2 x D x V each."""
    return 2.0 * predicted * shape.hidden * shape.vocabulary


def backward_flops(shape: ModelShape, tokens: int, pairs: int, predicted: int) -> float:
    """The gradient of activations costs as much as the forward pass, that of weights again, and only the adapter's are
    wanted (lora_rank 0: all, the head's too). Flash attention computes its scores again: 2.5 times. With an adapter
    nothing below the first layer learns, so that its q, k and v pass no gradient on."""
    base, head = linear_flops(shape, tokens, lora=False), head_flops(shape, predicted)
    if shape.lora_rank:
        base -= 2.0 * tokens * shape.hidden * shape.head_dim * (shape.heads + 2 * shape.kv_heads)
        base += 2 * 2.0 * tokens * shape.lora_weights
    else:
        base, head = 2 * base, 2 * head
    return base + head + 2.5 * attention_flops(shape, pairs)


def tower_flops(shape: ModelShape, images: int, image_tokens: int) -> float:
    """Every patch through the blocks, where it attends to all of its image, and the merger."""
    patches, width, four = image_tokens * shape.merge**2, shape.tower_width, shape.merge**2 * shape.tower_width
    block = 2 * patches * (4 * width * width + 2 * width * shape.tower_mlp) + 4 * patches**2 * width
    ends = 2 * patches * shape.patch_values * width + 2 * image_tokens * (four * four + four * shape.hidden)
    return float(images) * (shape.tower_layers * block + ends)


def step_costs(
    shape: ModelShape,
    prompts: int,
    group_size: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    *,
    beta: float = 0.04,
    gradient_checkpointing: bool = False,
    images_encoded: int = 0,
) -> dict[str, Cost]:
    """The ideal step by phase (a phase that is not needed is missing): B prompts of P tokens, G completions of L each.

    prefill: the prompts under the policy, which serves sampling and scoring; decode and score: the completions' tokens
    but for the last, which predicts nothing; reference: prompts and completions with the adapter off, if beta is not 0;
    backward: prompts and completions. Decoding reads all weights once for every position, and the keys and values there
    are. While sampling the adapter is taken as merged.
    """
    rows, run = prompts * group_size, completion_tokens - 1
    written, predicted = rows * run, rows * completion_tokens
    prompt_pairs, own_pairs = prompts * causal_pairs(prompt_tokens), rows * causal_pairs(run, prompt_tokens)
    asked = prompts * prompt_tokens
    on_prompts = linear_flops(shape, asked) + attention_flops(shape, prompt_pairs)
    on_rows = linear_flops(shape, written) + attention_flops(shape, own_pairs) + head_flops(shape, predicted)
    adapter = 2.0 * shape.lora_weights
    weights = shape.layers * shape.layer_weights * shape.weight_bytes
    head = shape.vocabulary * shape.hidden * shape.value_bytes
    read = run * (weights + head + kv_bytes(shape, asked)) + kv_bytes(shape, rows * causal_pairs(run))
    backward = backward_flops(shape, asked + written, prompt_pairs + own_pairs, predicted)
    if gradient_checkpointing:
        backward += on_prompts + on_rows - head_flops(shape, predicted)
    learning = shape.lora_weights or shape.language_parameters
    costs = {
        "prefill": Cost(asked, on_prompts - asked * adapter, weights),
        "decode": Cost(written, on_rows - written * adapter, read),
        "score": Cost(written, on_rows, weights),
        "backward": Cost(asked + written, backward, weights),
        "optimiser": Cost(0, 12.0 * learning, 28.0 * learning),  # AdamW: reads four float32 values, writes three
    }
    if beta:
        without = on_prompts + on_rows - (asked + written) * adapter
        costs["reference"] = Cost(asked + written, without, weights)
    if images_encoded:
        tower = shape.tower_parameters * shape.value_bytes
        costs["encode"] = Cost(
            images_encoded * image_tokens, tower_flops(shape, images_encoded, image_tokens), float(tower)
        )
    return {phase: costs[phase] for phase in PHASES if phase in costs}


def bound_seconds(costs: dict[str, Cost], flops_per_second: float, bytes_per_second: float) -> dict[str, float]:
    """The least time of each phase: its FLOPs at this rate, or its bytes at this bandwidth, whichever takes longer.

    >>> bound_seconds({"decode": Cost(1, flops=10.0, bytes=60.0)}, flops_per_second=5.0, bytes_per_second=20.0)
    {'decode': 3.0}
    """
    return {name: max(cost.flops / flops_per_second, cost.bytes / bytes_per_second) for name, cost in costs.items()}


def machine_rates(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """What this machine reaches: FLOP/s of a large square matrix product, and bytes/s of reading a large array.

    The best of several repetitions, on as many threads as torch has.
    """
    device = torch.device(device)
    side, values = (2048, 2**26) if device.type == "cpu" else (8192, 2**29)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    flops = 2.0 * side**3 / _best_seconds(lambda: a @ b, device)
    long = torch.ones(values, device=device, dtype=torch.float32)
    return {"flops_per_second": flops, "bytes_per_second": 4.0 * values / _best_seconds(long.sum, device)}


def _best_seconds(function: Any, device: torch.device, repeats: int = 12) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])


# ------------------------------------------------------------------------------------------------------------ memory


def kv_bytes(shape: ModelShape, tokens: int) -> float:
    """Keys and values of so many tokens in all layers."""
    return 2.0 * tokens * shape.layers * shape.kv_heads * shape.head_dim * shape.value_bytes


def kept_bytes(shape: ModelShape, tokens: int, written: int, expanded: int) -> float:
    """What one decoder layer keeps for its backward pass, of `tokens` of which `written` are completions': the inputs
    of both norms in float32, what they gave, q, k, v and the attention's output, four widths of the MLP and the
    adapter's narrow ones; completions' queries again, folded; and `expanded` keys and values, those of a prompt once
    for each of its rows."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    token = 2 * shape.hidden + 3 * wide + 2 * narrow + 4 * shape.mlp + 7 * shape.lora_rank
    values = tokens * token + written * wide + 2.0 * expanded * narrow
    return shape.value_bytes * values + 8.0 * tokens * shape.hidden


def running_bytes(shape: ModelShape, tokens: int) -> float:
    """What stands at the widest place of a decoder layer that keeps nothing: its input, the middle, what attention
    added, q, k, v, and four widths of the MLP."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return float(shape.value_bytes * tokens * (3 * shape.hidden + wide + 2 * narrow + 4 * shape.mlp))


def returning_bytes(shape: ModelShape, tokens: int) -> float:
    """Gradients at the widest place of a decoder layer's backward pass: of its output, and three widths of the MLP."""
    return float(shape.value_bytes * tokens * (shape.hidden + 3 * shape.mlp))


def tower_bytes(shape: ModelShape, image_tokens: int) -> float:
    """What the vision tower needs for so many image tokens at once: the pixels in float32, and a block at its widest,
    the three values of its activation."""
    patches = image_tokens * shape.merge**2
    return patches * (4.0 * shape.patch_values + shape.value_bytes * (4.0 * shape.tower_width + 3 * shape.tower_mlp))


def fixed_bytes(shape: ModelShape) -> dict[str, float]:
    """What does not depend on the batch: the language model, the tower, the adapter, and gradient and moments of what
    learns (an adapter is float32, a whole language model as it was loaded)."""
    matrices, learning = shape.layers * shape.layer_weights, shape.lora_weights or shape.language_parameters
    others = shape.language_parameters - matrices
    return {
        "language": matrices * shape.weight_bytes + others * shape.value_bytes,
        "tower": float(shape.tower_parameters * shape.value_bytes),
        "adapter": 4.0 * shape.lora_weights,
        "training": 3.0 * learning * (4 if shape.lora_rank else shape.value_bytes),
    }


def step_memory(
    shape: ModelShape,
    prompts: int,
    group_size: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    *,
    beta: float = 0.04,
    gradient_checkpointing: bool = False,
    micro_batch: int = 0,
    tower_on_device: bool = True,
    features_kept_bytes: float = 0.0,
    images_at_once: int = TOWER_CHUNK,
) -> dict[str, float]:
    """Estimated bytes of tensors in use at the peak of each phase.

    Always there: the language model, the tower unless it left, the adapter, gradient and optimiser state, the kept
    features. On top: the tower at work on `images_at_once`; while sampling the caches of prompts and completions and
    the logits of a token a row; while scoring what the backward pass needs, of a micro-batch, and a chunk of logits.
    What a GPU needs beside tensors is in `fits.py`. Measured beside it: data/results/benchmarks.md.
    """
    rows, run = prompts * group_size, completion_tokens - 1
    at_once = min(micro_batch or rows, rows)
    asked = -(-at_once // group_size) * prompt_tokens  # prompts that a micro-batch touches
    written = at_once * run
    tokens, expanded = asked + written, at_once * (prompt_tokens + run)
    fixed = fixed_bytes(shape)
    tower = fixed.pop("tower")
    always = sum(fixed.values()) + features_kept_bytes + (tower if tower_on_device else 0.0)
    encoding = tower_bytes(shape, images_at_once * image_tokens) + (0.0 if tower_on_device else tower)
    prompt_cache, own_cache = kv_bytes(shape, prompts * prompt_tokens), kv_bytes(shape, rows * run)
    merged = merged_bytes(shape)
    masked = at_once if at_once > group_size else 1  # rows of one prompt share a mask
    mask = shape.value_bytes * masked * shape.heads / shape.kv_heads * run * (prompt_tokens + run)
    copies = mask + 2.0 * shape.lora_weights  # of the adapter, put together for the pass: its narrowing half in float32
    copies += shape.hidden * shape.mlp * shape.value_bytes if shape.weight_bytes < 1 else 0.0  # a matrix, unpacked
    sampling = 4.0 * rows * shape.vocabulary * SAMPLING_COPIES
    logits = 4.0 * min(at_once * completion_tokens * shape.vocabulary, CHUNK_LOGITS) * SCORING_COPIES
    kept, running = kept_bytes(shape, tokens, written, expanded), running_bytes(shape, tokens)
    if gradient_checkpointing:
        inputs = shape.layers * tokens * shape.hidden * shape.value_bytes
        score, backward = inputs + max(running, logits), inputs + max(kept + returning_bytes(shape, tokens), logits)
    else:
        held = shape.layers * kept + (shape.lora_weights * shape.value_bytes if shape.value_bytes < 4 else 0)  # casts
        score, backward = held + logits, held + max(returning_bytes(shape, tokens), logits)
    second = 0.0 if shape.lora_rank else fixed["language"]  # the weights that learn stand aside for the reference's
    peaks = {
        "encode": always + encoding,
        "prefill": always + copies - mask + merged + prompt_cache + running_bytes(shape, prompts * prompt_tokens),
        "decode": always + copies - mask + merged + own_cache + prompt_cache + max(prompt_cache, sampling),
        "score": always + copies + score,
        "reference": always + copies + second + max(running, logits),
        "backward": always + copies + backward,
        "optimiser": always + fixed["training"] / 3,
    }
    return {phase: peak for phase, peak in peaks.items() if phase != "reference" or beta}


def merged_bytes(shape: ModelShape) -> float:
    """The copy of the layers with the adapter added, which sampling makes of small models in float32."""
    size = 4.0 * shape.layers * shape.layer_parameters
    return size if shape.value_bytes == shape.weight_bytes == 4 and size <= MERGE_LIMIT else 0.0
