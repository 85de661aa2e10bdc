"""A small Qwen2-VL, or model of another family, with random weights, in the Hub layout on disk, its policy and its
examples: for the tests, and for the scripts beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from favor_lab.activities.fewshot import Example

REBUILD = Path(__file__).parents[2] / "data" / "pocket-qwen2-vl" / "rebuild"
LABELS = ["riding a bike", "reading", "phoning", "fishing"]


def rebuild_module(name: str) -> Any:
    """Import one of the scripts next to the pocket checkpoint (they are not part of the package)."""
    sys.path.insert(0, str(REBUILD))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(REBUILD))


def make_checkpoint(directory: Path, family: str = "Qwen2VL") -> Path:
    """A directory in the Hub layout: 2 + 2 layers, 320 tokens, float32, near-greedy generation_config.

    family: how the classes of transformers begin; "Qwen2_5_VL" and "Qwen3VL" have the same text sizes.
    """
    import transformers

    checkpoint = rebuild_module("checkpoint")
    texts = [f"<think>The person is {x}.</think><answer>{x}</answer> What is the activity?" for x in LABELS]
    tokenizer = checkpoint.build_tokenizer(texts, vocab_size=320)
    config = checkpoint.build_config(
        tokenizer, window=512,
        hidden_size=64, layers=2, heads=4, kv_heads=2, mlp_size=96, mrope_section=[2, 3, 3],
        vision_size=32, vision_layers=2, vision_heads=2, vision_mlp_ratio=2,
    )  # fmt: skip
    if family != "Qwen2VL":
        config = of_family(family, config.to_dict())
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    with torch.no_grad():  # larger weights than a fresh model's: attention, images and positions then matter
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(4.0 if "visual" in name else 3.0)
    return checkpoint.save_checkpoint(directory, model, tokenizer, image_size=112, dtype=torch.float32)


def of_family(family: str, config: dict[str, Any]) -> Any:
    """The configuration of a small Qwen2-VL as one of another family: windows or deepstack in the tower."""
    import transformers

    vision = dict(depth=2, hidden_size=32, out_hidden_size=64, num_heads=2, intermediate_size=48, patch_size=14)
    own = {"Qwen2_5_VL": dict(window_size=56, fullatt_block_indexes=[1]), "Qwen3VL": dict(deepstack_visual_indexes=[0])}
    text = {key: value for key, value in config["text_config"].items() if key not in ("model_type", "layer_types")}
    text["head_dim"] = 16
    ids = {key: value for key, value in config.items() if key.endswith("_token_id")}
    kind = getattr(transformers, f"{family}Config")
    return kind(text_config=text, vision_config=vision | own[family], tie_word_embeddings=True, **ids)


def make_policy(checkpoint: Path) -> Any:
    """Float32 on the CPU, LoRA rank 4 whose B matrices are not zero."""
    from favor_lab.vlm.loading import load_policy

    policy = load_policy(checkpoint, lora_rank=4, device="cpu", check=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in policy.trainable_parameters():
            if "lora_B" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return policy


def make_examples() -> list[Example]:
    """Four examples of different sizes, so that their prompts differ: 4, 8, 6 and 16 image tokens."""
    random = np.random.default_rng(0)
    sizes = [(56, 56), (112, 56), (56, 84), (112, 112)]
    pixels = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    return [Example(Image.fromarray(p), LABELS[i], f"tiny/{i}") for i, p in enumerate(pixels)]


def plain_row(policy, example, text, ids):
    """Log-probabilities of one completion, pixels to logits, by transformers alone: no cache, no padding."""
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    chat = policy.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    inputs = policy.processor(images=[example.image], text=[chat], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    row = torch.cat([inputs["input_ids"][0], ids])[None]  # (1, P + l)
    logits = policy.base(
        input_ids=row,
        pixel_values=inputs["pixel_values"],
        image_grid_thw=inputs["image_grid_thw"],
        mm_token_type_ids=(row == policy.base.config.image_token_id).int(),
        use_cache=False,
    ).logits[0, length - 1 : -1]
    logits[:, policy.forbidden_token_ids] = -torch.inf
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[:, None]).squeeze(-1)  # (l,)


def make_context(policy, examples, labels, rollout, settings):
    """The context of a step on these examples, whose rollout has been sampled."""
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.processing import encode_prompts
    from favor_lab.vlm.question import Question

    question, shots = Question(labels, settings.style), FewShot(examples, [], [], labels)
    prompts = encode_prompts(policy, examples, question, completion_tokens=settings.max_new_tokens)
    return Context(
        step=0, progress=0.0, seed=0, policy=policy, settings=settings, question=question, shots=shots, pool=prompts,
        examples=examples, prompts=prompts, reward_functions={}, state={}, generator=torch.Generator(), rollout=rollout,
    )  # fmt: skip
