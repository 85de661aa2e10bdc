"""Tokenizer, configuration and files of a small Qwen2-VL, in the exact layout of a Hub checkpoint.

Nothing here trains: `build_tokenizer` learns a byte-level BPE, `build_config` sizes the two halves of the
model, and `save_checkpoint` writes the files that `Qwen/Qwen2-VL-2B-Instruct` has, so that the code which
loads the small checkpoint loads the large one unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Regex as TokenizerRegex
from transformers import GenerationConfig, Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

# Qwen2-VL's special tokens, in the order of their ids there (151643 to 151656).
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

# How Qwen2 cuts text before merging bytes: contractions, words with the space before them, single digits,
# punctuation, line ends, other white space.
PRETOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# A turn is <|im_start|>role\n ... <|im_end|>\n as in Qwen2-VL. Its default system turn is left out: every
# prompt token costs time on a laptop.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' or 'video' in part -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def build_tokenizer(texts: Iterable[str], vocab_size: int = 456) -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen2's word splitting, learnt on `texts`.

    `vocab_size` counts the 256 bytes, the merges and the 14 special tokens, which come last as in Qwen2-VL;
    few or short texts may give fewer.

    >>> tokenizer = build_tokenizer(["a person is riding a bike"] * 4, vocab_size=280)
    >>> tokenizer.decode(tokenizer("riding a bike 2!<|im_end|>").input_ids)
    'riding a bike 2!<|im_end|>'
    >>> len(tokenizer), tokenizer.convert_tokens_to_ids("<|endoftext|>") + 14
    (280, 280)
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(TokenizerRegex(PRETOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    trained_bpe = json.loads(learner.to_str())["model"]
    specials = {token: len(trained_bpe["vocab"]) + i for i, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = Qwen2Tokenizer(
        vocab=trained_bpe["vocab"] | specials,
        merges=[tuple(pair) for pair in trained_bpe["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token != "<|endoftext|>"],
        padding_side="left",
        model_max_length=32768,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_config(tokenizer: Qwen2Tokenizer, **sizes: Any) -> Qwen2VLConfig:
    """Configuration of a small Qwen2-VL (about 3 M parameters by default) for this tokenizer.

    `sizes` may override: hidden_size, layers, heads, kv_heads, mlp_size, mrope_section, window (text);
    vision_size, vision_layers, vision_heads, vision_mlp_ratio. The head width is hidden_size / heads and
    `mrope_section` (temporal, height, width) must add up to half of it.
    """
    defaults = dict(
        hidden_size=192, layers=4, heads=6, kv_heads=2, mlp_size=512, mrope_section=[4, 6, 6], window=2048,
        vision_size=128, vision_layers=4, vision_heads=4, vision_mlp_ratio=4,
    )  # fmt: skip
    if unknown := sizes.keys() - defaults.keys():
        raise ValueError(f"unknown sizes {sorted(unknown)}; valid sizes: {sorted(defaults)}")
    size: dict[str, Any] = {**defaults, **sizes}
    if 2 * sum(size["mrope_section"]) * size["heads"] != size["hidden_size"]:
        raise ValueError(f"mrope_section {size['mrope_section']} must add up to hidden_size / heads / 2")
    id_of = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            hidden_size=size["hidden_size"],
            intermediate_size=size["mlp_size"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"],
            num_key_value_heads=size["kv_heads"],
            max_position_embeddings=size["window"],
            rms_norm_eps=1e-6,
            rope_parameters=dict(
                rope_type="default", rope_theta=1_000_000.0, mrope_section=list(size["mrope_section"])
            ),
            bos_token_id=id_of("<|endoftext|>"),
            eos_token_id=id_of("<|im_end|>"),
            pad_token_id=id_of("<|endoftext|>"),
        ),
        vision_config=dict(
            depth=size["vision_layers"],
            embed_dim=size["vision_size"],
            hidden_size=size["hidden_size"],
            num_heads=size["vision_heads"],
            mlp_ratio=size["vision_mlp_ratio"],
        ),
        image_token_id=id_of("<|image_pad|>"),
        video_token_id=id_of("<|video_pad|>"),
        vision_start_token_id=id_of("<|vision_start|>"),
        vision_end_token_id=id_of("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def generation_config(tokenizer: Qwen2Tokenizer) -> GenerationConfig:
    """The near-greedy values that Qwen2-VL-Instruct ships: override them to sample a group."""
    pad, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>"))
    return GenerationConfig(
        do_sample=True, top_k=1, top_p=0.001, temperature=0.01, repetition_penalty=1.0,
        bos_token_id=pad, pad_token_id=pad, eos_token_id=[end, pad],
    )  # fmt: skip


def save_checkpoint(
    directory: str | Path,
    model: Qwen2VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    image_size: int = 112,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write the whole Hub layout into `directory`, weights in `dtype` (3 M parameters in float16 are 6 MB).

    Images will be resized to `image_size` ** 2 pixels at most and a quarter of that at least. `model` is
    unchanged. Raises ValueError for a weight that is not finite in `dtype`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied to the embeddings
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ValueError(f"a weight is not finite in {dtype}; save in float32 or bfloat16")
    config = deepcopy(model.config)
    config.dtype = dtype
    with torch.device("meta"):
        shell = type(model)(config)
    shell.load_state_dict(weights, strict=False, assign=True)
    shell.tie_weights()
    shell.generation_config = generation_config(tokenizer)
    shell.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    vision = model.config.vision_config
    preprocessor = dict(
        image_processor_type="Qwen2VLImageProcessor",
        processor_class="Qwen2VLProcessor",
        min_pixels=math.ceil(image_size / 2) ** 2,
        max_pixels=image_size**2 + 28,  # the exact square would make 300 x 300 pixels 84 wide, by rounding
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")
    return directory
