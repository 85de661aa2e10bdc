"""Turn images and questions into tensors: a `PromptBatch`, whose images the vision tower has encoded exactly once.

The tower is frozen, so its features are computed here without gradients and reused for every completion, every update
and both policies (adapter on or off) that look at the same image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from favor_lab.activities.images import prepare_image
from favor_lab.activities.labels import refuse_string
from favor_lab.vlm.question import Question
from favor_lab.vlm.upload import upload

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.vlm.policy import Policy

TOWER_CHUNK = 16  # images per pass through the vision tower
FEATURE_CAP = 2**30  # bytes of features kept on the policy's device: about 1300 images of 448 x 448 (2B, bfloat16)


@dataclass
class PromptBatch:
    """B prompts, padded on the left to P tokens, with the features of their images: the output of the vision tower,
    without gradient, on the policy's device or beyond the cap on the CPU; `features_on` puts them together."""

    input_ids: torch.Tensor  # (B, P)
    attention_mask: torch.Tensor  # (B, P), 0 on padding
    position_ids: torch.Tensor  # (3, B, P): temporal, height and width position of each token
    next_position: torch.Tensor  # (B,): completion token j stands at next_position + j on all three rows
    image_features: list[torch.Tensor]  # B x (I_b, D)
    image_grid_thw: torch.Tensor  # (B, 3), the patch grid of each image: time, height, width
    labels: list[str]  # gold labels
    sources: list[str]  # where the examples come from
    texts: list[str]  # of the questions
    images: list[Image.Image]  # at the size that the tower sees

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Sequence[int] | torch.Tensor) -> PromptBatch:
        """The sub-batch of these prompts, in this order; left padding that is no longer needed is cut off."""
        numbers = range(len(self))
        indices = numbers[index] if isinstance(index, slice) else [index] if isinstance(index, int) else index
        rows = [numbers[i] for i in indices]
        if not rows:
            raise IndexError("a prompt batch needs at least one prompt")
        here = upload(rows, self.input_ids.device)
        start = self.input_ids.shape[1] - int(self.attention_mask[here].sum(-1).max())
        return PromptBatch(
            self.input_ids[here, start:],  # (b, P')
            self.attention_mask[here, start:],  # (b, P')
            self.position_ids[:, here, start:],  # (3, b, P')
            self.next_position[here],  # (b,)
            [self.image_features[i] for i in rows],
            self.image_grid_thw[here],  # (b, 3)
            [self.labels[i] for i in rows],
            [self.sources[i] for i in rows],
            [self.texts[i] for i in rows],
            [self.images[i] for i in rows],
        )

    def to_state(self) -> dict[str, Any]:
        """The batch in a form that a checkpoint can store: tensors, lists, strings and numbers."""
        on_device = [feature.device == self.input_ids.device for feature in self.image_features]
        images = [torch.from_numpy(np.array(image)) for image in self.images]  # (height, width, 3) uint8 each
        return vars(self) | {"on_device": on_device, "images": images}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str | torch.device) -> PromptBatch:
        """The batch of a `to_state`, on `device`; features that were on the CPU because of the cap stay there."""
        values: dict[str, Any] = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in state.items()}
        placed = zip(state["image_features"], values.pop("on_device"), strict=True)
        values["image_features"] = [x.to(device if on_device else "cpu") for x, on_device in placed]
        values["images"] = [Image.fromarray(image.cpu().numpy()) for image in state["images"]]
        return cls(**values)

    def check(self, is_image: torch.Tensor) -> None:
        """ValueError if a prompt is padded on the right, where its completion begins, or if the number of its image
        tokens, True in `is_image` (B, P), differs from the number of image features in its row."""
        last_tokens, token_counts = torch.stack([self.attention_mask[:, -1], is_image.sum(dim=1)]).tolist()
        if not all(last_tokens):
            raise ValueError(
                f"the prompt of {self.sources[last_tokens.index(0)]} is padded on the right, where its completion"
                " begins: pad on the left, as `encode_prompts` does"
            )
        feature_counts = [len(feature) for feature in self.image_features]
        for row, (tokens, features) in enumerate(zip_longest(token_counts, feature_counts, fillvalue=0)):
            if tokens != features:
                raise ValueError(
                    f"prompt {row} has {tokens} image tokens, but {features} image features stand at its place: take"
                    " both from `encode_prompts`, and a part of a batch as batch[rows]"
                )

    def features_on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The features of this batch's images as one tensor (sum of I_b, D), in the order of the prompts, on `device`,
        where those of the rest of the run are not moved."""
        return torch.cat([feature.to(device, dtype) for feature in self.image_features])


def encode_images(
    policy: Policy, images: Iterable[Image.Image], feature_cap: int = FEATURE_CAP
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features (I_b, D) of each RGB image, and the patch grids (B, 3); `TOWER_CHUNK` images per pass. The first
    `feature_cap` bytes of features stay on the policy's device, those of later images go to the CPU."""
    features, grids, _ = encode_and_resize(policy, images, feature_cap)
    return features, grids


@torch.no_grad()
def encode_and_resize(
    policy: Policy, images: Iterable[Image.Image], feature_cap: int = FEATURE_CAP
) -> tuple[list[torch.Tensor], torch.Tensor, list[Image.Image]]:
    """As `encode_images`, and the images at the size that the tower sees. The images are taken one by one, so that only
    one photograph is in memory at its own size."""
    features: list[torch.Tensor] = []
    resized: list[Image.Image] = []
    grids, room, remaining = [], feature_cap, iter(images)
    with policy.tower_on(policy.device):
        while chunk := [tower_input(policy, image) for image in islice(remaining, TOWER_CHUNK)]:
            pixels = torch.cat([one.pixels for one in chunk]).to(policy.device)  # (patches, patch size)
            grid = torch.cat([one.grid for one in chunk]).to(policy.device)  # (chunk, 3)
            resized += [one.image for one in chunk]
            chunk.clear()  # the pixels once, not twice, while the tower runs
            chunk_features = policy.base.model.get_image_features(pixels, grid).pooler_output
            features += keep_features(chunk_features, room)
            room -= sum(feature.nbytes for feature in chunk_features)
            grids.append(grid)
    return features, torch.cat(grids), resized


class TowerInput(NamedTuple):
    """What the vision tower gets of one image."""

    pixels: torch.Tensor  # (patches, patch size)
    grid: torch.Tensor  # (1, 3): patches in time, height and width
    image: Image.Image  # at that size


def tower_input(policy: Policy, image: Image.Image) -> TowerInput:
    """An RGB image as the image processor resizes and normalises it."""
    processor = policy.processor.image_processor
    inputs = processor(images=[image], return_tensors="pt")
    _, height, width = inputs["image_grid_thw"][0].tolist()
    size = processor.patch_size * width, processor.patch_size * height
    return TowerInput(inputs["pixel_values"], inputs["image_grid_thw"], image.resize(size, Image.Resampling.BICUBIC))


def keep_features(features: Sequence[torch.Tensor], room: int) -> list[torch.Tensor]:
    """The features of one pass through the tower: those that fit into `room` bytes stay, the others move to the CPU.

    >>> [feature.shape for feature in keep_features(torch.zeros(5, 8).split([2, 3]), room=64)]
    [torch.Size([2, 8]), torch.Size([3, 8])]
    """
    if sum(feature.nbytes for feature in features) <= room:
        return list(features)
    placed = []
    for feature in features:  # views of one tensor: what stays is copied, so that the memory of the others is freed
        room -= feature.nbytes
        placed.append(feature.clone() if room >= 0 else feature.cpu())
    return placed


def encode_prompts(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | Question | None,
    style: str = "think",
    completion_tokens: int = 128,
    feature_cap: int = FEATURE_CAP,
) -> PromptBatch:
    """Ask the same question about every example's image; each image is encoded once. Images may have any size and mode
    (see `to_rgb`); they are resized to the policy's pixel budget. ValueError for an image that cannot be used, a prompt
    that is too long, and a style beside a Question.

    labels: the closed list named in the prompt, or None for an open vocabulary; or a `Question`, which has a style too
    style: see `build_prompt`; left at its default beside a Question
    completion_tokens: how many must fit into the model's context window after each prompt
    feature_cap: bytes of image features kept on the policy's device (default: 1 GiB); the rest goes to the CPU
    """
    if not isinstance(labels, Question):
        question = Question(labels, style)
    elif style == "think":
        question = labels
    else:
        raise ValueError(f"style={style!r} stands beside a Question of style {labels.style!r}: leave one of them out")
    texts = [question.text(example) for example in examples]
    return encode_texts(policy, examples, texts, completion_tokens, feature_cap)


def encode_texts(
    policy: Policy,
    examples: Sequence[Example],
    texts: Sequence[str],
    completion_tokens: int = 128,
    feature_cap: int = FEATURE_CAP,
) -> PromptBatch:
    """As `encode_prompts`, with a text for each example in place of one question."""
    if not examples:
        raise ValueError("no examples to encode")
    features, grid, images = encode_and_resize(policy, map(prepare_image, examples), feature_cap)
    labels, sources = [example.label for example in examples], [example.source for example in examples]
    about = {"image_features": features, "image_grid_thw": grid, "labels": labels, "sources": sources, "images": images}
    return ask_about(policy, texts, completion_tokens, **about)


def ask_again(policy: Policy, prompts: PromptBatch, texts: Sequence[str], completion_tokens: int = 128) -> PromptBatch:
    """Other texts about the images of a batch, which are not encoded again."""
    names = ("image_features", "image_grid_thw", "labels", "sources", "images")
    return ask_about(policy, texts, completion_tokens, **{name: getattr(prompts, name) for name in names})


def ask_without_image(
    policy: Policy, prompts: PromptBatch, texts: Sequence[str], completion_tokens: int = 128
) -> PromptBatch:
    """Texts alone, one for each prompt of a batch: what the policy says without its images."""
    nothing = {"image_features": [f[:0] for f in prompts.image_features], "image_grid_thw": 0 * prompts.image_grid_thw}
    kept = {name: getattr(prompts, name) for name in ("labels", "sources", "images")}
    return ask_about(policy, texts, completion_tokens, **nothing, **kept)


def ask_about(policy: Policy, texts: Sequence[str], completion_tokens: int, **about: Any) -> PromptBatch:
    """One text about each image; about: the fields of a PromptBatch that belong to images, not to texts. ValueError if
    the longest prompt and `completion_tokens` more do not fit into the model's context window."""
    refuse_string("texts", texts)
    grid, features = about["image_grid_thw"], about["image_features"]  # (B, 3), B x (I_b, D)
    on_host = grid.to("cpu")  # (B, 3): lengths and positions are computed on the CPU
    tokens = tokenize(policy, texts, on_host)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]  # (B, P) each
    is_image = ids == policy.base.config.image_token_id  # (B, P)
    for source, feature, image_tokens in zip(about["sources"], features, is_image.sum(-1).tolist(), strict=True):
        if image_tokens != len(feature):
            raise ValueError(f"the text asked about {source} contains an image token; remove it")
    positions, _ = policy.base.model.get_rope_index(
        ids, mm_token_type_ids=is_image.int(), image_grid_thw=on_host if is_image.any() else None, attention_mask=mask
    )  # (3, B, P), 0 on padding
    starts = positions.amax((0, 2)) + 1  # (B,) where completions begin
    longest = int(mask.sum(-1).argmax())
    length, image_tokens = int(mask[longest].sum()), len(features[longest])
    if length + completion_tokens > policy.context_length:
        raise ValueError(
            f"the prompt of {about['sources'][longest]} has {length} tokens, {image_tokens} of them for the image; with"
            f" {completion_tokens} completion tokens it exceeds the model's window of {policy.context_length}: lower"
            " max_pixels, or shorten the label list or the completion"
        )
    ids, mask, positions, starts = (upload(part, policy.device) for part in (ids, mask, positions, starts))
    return PromptBatch(ids, mask, positions, starts, texts=list(texts), **about)


def tokenize(policy: Policy, texts: Sequence[str], grid: torch.Tensor) -> Any:
    """Chats of one user turn (image, text) as token ids, padded on the left, on the CPU; an image has one id per image
    token, and one of an empty grid is left out."""
    processor = policy.processor
    chats = []
    for text, count in zip(texts, processor.token_counts(grid), strict=True):
        image = [{"type": "image"}] if count else []
        turn = {"role": "user", "content": [*image, {"type": "text", "text": text}]}
        chat = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        chats.append(chat.replace(processor.image_token, processor.image_token * count))
    return processor.tokenizer(chats, padding=True, padding_side="left", return_tensors="pt")
