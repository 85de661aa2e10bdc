"""Qwen2-VL's processor without its video half: image processor (the PIL one, so that torchvision is not needed),
tokenizer and chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
)  # fmt: skip
MAX_PIXELS = 401_408  # 512 image tokens, as in Visual-RFT; the published checkpoints' own limit is 16 384 tokens


class ImageTextProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template. `processor(images=..., text=...)` returns what `Qwen2VLProcessor`
    returns, so that transformers and TRL accept it."""

    return_mm_token_type_ids = True

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        kwargs.setdefault("return_mm_token_type_ids", True)  # marks the tokens that get two-dimensional positions
        return super().__call__(images=images, text=text, **kwargs)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The placeholder of an image, repeated once per image token."""
        return self.image_token * self.token_counts(image_inputs["image_grid_thw"])[image_idx]

    def token_counts(self, image_grid_thw: Any) -> list[int]:
        """Image tokens of each image, from the patch grids (B, 3): t * h * w patches, merged 2 x 2."""
        return (torch.as_tensor(image_grid_thw).prod(-1) // self.image_processor.merge_size**2).tolist()


def load_processor(
    name: str, min_pixels: int | None = None, max_pixels: int | None = None, local_files_only: bool = False
) -> ImageTextProcessor:
    """The processor of a Qwen2-VL or Qwen2.5-VL checkpoint, with a pixel budget.

    Each image is resized to between `min_pixels` and `max_pixels` pixels, both sides multiples of 28 (one image token
    is 28 x 28 = 784 pixels). Default: the checkpoint's own budget, but at most `MAX_PIXELS`. The default system turn of
    the published chat templates stays, since the model was tuned with it: about ten more tokens per prompt. ValueError
    for a tokenizer that `check_tokenizer` refuses and a budget below one image token or with swapped ends.
    """
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(name, local_files_only=local_files_only)
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", local_files_only=local_files_only)
    template_file = Path(name) / "chat_template.json"  # the published checkpoints have the template here too
    if tokenizer.chat_template is None and template_file.is_file():
        tokenizer.chat_template = json.loads(template_file.read_text(encoding="utf-8")).get("chat_template")
    check_tokenizer(tokenizer, str(name))
    size, token_pixels = image_processor.size, (image_processor.patch_size * image_processor.merge_size) ** 2
    max_pixels = min(size["longest_edge"], MAX_PIXELS) if max_pixels is None else max_pixels
    min_pixels = min(size["shortest_edge"], max_pixels) if min_pixels is None else min_pixels
    if not token_pixels <= min_pixels <= max_pixels:
        raise ValueError(
            f"min_pixels={min_pixels}, max_pixels={max_pixels}: need {token_pixels} <= min_pixels <= max_pixels"
            f" ({token_pixels} pixels are one image token)"
        )
    image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    return ImageTextProcessor(image_processor, tokenizer)


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """ValueError unless the tokenizer has Qwen2-VL's tokens and a chat template that puts the image into the prompt."""
    vocabulary = tokenizer.get_vocab()
    if missing := ", ".join(token for token in SPECIAL_TOKENS if token not in vocabulary):
        raise ValueError(f"the tokenizer of {name} lacks {missing}: take the tokenizer of the checkpoint's base model")
    for role in ("eos_token", "pad_token"):
        if getattr(tokenizer, role) is None:
            raise ValueError(f"the tokenizer of {name} has no {role}: name one in its tokenizer_config.json")
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{name} has no chat template: take chat_template.json (or .jinja) of the checkpoint's base model. Without"
            " one it may be a model that was not tuned to follow instructions"
        )
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    chat = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    if chat.count(image) != 1 or chat.count("<|image_pad|>") != 1 or "What is this?" not in chat:
        raise ValueError(
            f"the chat template of {name} does not put one {image} and the text into the user's turn, but writes"
            f" {chat!r}: take that of the checkpoint's base model"
        )
