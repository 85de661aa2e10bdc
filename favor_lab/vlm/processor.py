"""Qwen2-VL's processor without its video half: image processor (the PIL one, so that torchvision is not needed),
tokenizer and chat template."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from favor_lab.vlm.untrusted import TEMPLATE_SECONDS, again, ends_soon, explained, read_json

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
)  # fmt: skip
MAX_PIXELS = 401_408  # 512 image tokens, as in Visual-RFT; the published checkpoints' own limit is 16 384 tokens


class ImageTextProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template. `processor(images=..., text=...)` returns what `Qwen2VLProcessor`
    returns, so that transformers and TRL accept it."""

    return_mm_token_type_ids = True
    # the pixel budget of a checkpoint that is saved: as named when it was loaded, else the base's own, not `MAX_PIXELS`
    saved_size: dict[str, int] | None = None

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template)

    def save_image_processor(self, directory: Path) -> None:
        """Write preprocessor_config.json. The cap `MAX_PIXELS`, which nobody named, stays out of it."""
        image_processor = copy.deepcopy(self.image_processor)
        image_processor.size = self.saved_size or image_processor.size
        image_processor.save_pretrained(directory)

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
    image_processor, budget = read_image_processor(name, local_files_only)
    tokenizer = read_tokenizer(name, local_files_only)
    check_tokenizer(tokenizer, str(name))
    token_pixels = (image_processor.patch_size * image_processor.merge_size) ** 2
    lowest, highest = min_pixels or budget["shortest_edge"], max_pixels or budget["longest_edge"]
    if max_pixels is None:
        max_pixels = min(budget["longest_edge"], MAX_PIXELS)
    if min_pixels is None:
        min_pixels = min(budget["shortest_edge"], max_pixels)
    if not token_pixels <= min_pixels <= max_pixels:
        raise ValueError(
            f"min_pixels={min_pixels}, max_pixels={max_pixels}: need {token_pixels} <= min_pixels <= max_pixels"
            f" ({token_pixels} pixels are one image token; what is not given is in preprocessor_config.json or"
            f" processor_config.json of {name})"
        )
    image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    processor = ImageTextProcessor(image_processor, tokenizer)
    processor.saved_size = {"shortest_edge": min(lowest, highest), "longest_edge": highest}
    return processor


def read_image_processor(name: str, local_files_only: bool = False) -> tuple[Any, dict[str, int]]:
    """The image processor of a checkpoint, and its pixel budget {"shortest_edge", "longest_edge"}. Some checkpoints
    write the budget as {"min_pixels", "max_pixels"}, which the image processor reads and then does not resize by."""
    what = f"preprocessor_config.json (or processor_config.json) of {name} holds a value of a wrong type or size"
    with explained(what, again(str(name), Path(name))):
        values, _ = Qwen2VLImageProcessorPil.get_image_processor_dict(name, local_files_only=local_files_only)
        budget = dict(Qwen2VLImageProcessorPil.size)
        size = values.get("size")
        for edge, pixels in (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")):
            for stored in (size.get(pixels), size.get(edge)) if isinstance(size, dict) else ():
                budget[edge] = budget[edge] if stored is None else stored
            budget[edge] = budget[edge] if values.get(pixels) is None else values[pixels]
        other = {key: value for key, value in values.items() if key not in ("size", "min_pixels", "max_pixels")}
        image_processor = Qwen2VLImageProcessorPil.from_dict({**other, "size": dict(budget)})
        for field in ("patch_size", "merge_size", "temporal_patch_size"):
            budget_of_type = [getattr(image_processor, field), *budget.values()]
            if not all(type(number) is int and number > 0 for number in budget_of_type):
                raise ValueError(f"{field}, min_pixels and max_pixels must be whole numbers above 0")
        mean, std = (
            np.asarray(getattr(image_processor, name), dtype=np.float32) for name in ("image_mean", "image_std")
        )
        if not (np.isfinite(mean / std).all() and (std > 0).all()):
            raise ValueError(
                "image_mean and image_std must be numbers of the size of a pixel's value, image_std above 0"
            )
    return image_processor, budget


def read_tokenizer(name: str, local_files_only: bool = False) -> Any:
    """The tokenizer of a checkpoint: that of Qwen2, which all families here share, whatever class its files name."""
    what = f"tokenizer.json, tokenizer_config.json or special_tokens_map.json of {name} cannot be used"
    with explained(what, again(str(name), Path(name))):
        if (tokenizer_file := Path(name) / "tokenizer.json").is_file():
            words = read_json(tokenizer_file)["model"]
            if not isinstance(words["vocab"], dict) or not isinstance(words["merges"], list):  # a string names a file
                raise ValueError("its model needs a vocab and a list of merges")
        tokenizer = Qwen2Tokenizer.from_pretrained(
            name, padding_side="left", local_files_only=local_files_only, trust_remote_code=False
        )
        template_file = Path(name) / "chat_template.json"  # the published checkpoints have the template here too
        if tokenizer.chat_template is None and template_file.is_file():
            tokenizer.chat_template = read_json(template_file).get("chat_template")
        if isinstance(tokenizer.chat_template, dict):  # several, by name
            tokenizer.chat_template = tokenizer.chat_template.get("default")
    return tokenizer


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """ValueError unless the tokenizer has Qwen2-VL's tokens and a chat template that puts the image into the prompt."""
    vocabulary = tokenizer.get_vocab()
    if missing := ", ".join(token for token in SPECIAL_TOKENS if token not in vocabulary):
        raise ValueError(f"the tokenizer of {name} lacks {missing}: take the tokenizer of the checkpoint's base model")
    for role in ("eos_token", "pad_token"):
        if getattr(tokenizer, role) is None:
            raise ValueError(f"the tokenizer of {name} has no {role}: name one in its tokenizer_config.json")
    if not isinstance(tokenizer.chat_template, str):
        raise ValueError(
            f"{name} has no chat template: take chat_template.json (or .jinja) of the checkpoint's base model. Without"
            " one it may be a model that was not tuned to follow instructions"
        )
    advice = "take that of the checkpoint's base model"
    if not ends_soon(tokenizer.chat_template):
        raise ValueError(
            f"the chat template of {name} does not end within {TEMPLATE_SECONDS} seconds, or fills the memory: {advice}"
        )
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    with explained(f"the chat template of {name} cannot be used", advice.capitalize()):
        chat = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    if chat.count(image) != 1 or chat.count("<|image_pad|>") != 1 or "What is this?" not in chat:
        raise ValueError(
            f"the chat template of {name} does not put one {image} and the text into the user's turn, but writes"
            f" {chat[:1000]!r}: {advice}"
        )
