"""Changed views of a step's images, for recipes that ask what the policy says when it sees less of them.

Images are changed at the size that the vision tower sees: a patch is the same part of a photograph and of a drawn
scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from favor_lab.vlm.processing import encode_images

if TYPE_CHECKING:
    from favor_lab.grpo.training import Context
    from favor_lab.vlm.processing import PromptBatch

NOISE_STEPS = 1000


def masked(image: Image.Image, probability: float, side: int, generator: torch.Generator) -> Image.Image:
    """A copy of an RGB image in which each square of `side` pixels is black with this probability. ValueError for a
    share or a side that does not exist.

    >>> striped = masked(Image.new("RGB", (5, 1), (9, 8, 7)), 0.5, 2, torch.Generator().manual_seed(0))
    >>> [striped.getpixel((x, 0)) for x in range(5)]
    [(0, 0, 0), (0, 0, 0), (9, 8, 7), (9, 8, 7), (0, 0, 0)]
    """
    if not (0 <= probability <= 1 and side >= 1):
        raise ValueError(
            f"probability is {probability} and side {side}: they must be from 0 to 1, and at least 1 pixel"
        )
    (width, height), side = image.size, int(side)
    kept = torch.rand(-(-height // side), -(-width // side), generator=generator) >= probability  # one per square
    kept = kept.repeat_interleave(side, dim=0).repeat_interleave(side, dim=1)[:height, :width]  # (height, width)
    return Image.fromarray(np.asarray(image) * kept[..., None].numpy())


def noisy(image: Image.Image, step: int, generator: torch.Generator) -> Image.Image:
    """A copy of an RGB image with Gaussian noise: `step` of 1000 of a diffusion's forward process, on colours in 0..1.

    The standard deviation of the noise is 0.06 at step 100, 0.19 at 300, 0.51 at 500, and almost 1 at the end. Source:
    NoisyRollout's code, verl/utils/image_aug.py. ValueError for a step outside 0..999.

    >>> noisy(Image.new("RGB", (2, 1), (200, 100, 50)), 200, torch.Generator().manual_seed(0)).getpixel((0, 0))
    (242, 91, 0)
    """
    if not 0 <= step < NOISE_STEPS:
        raise ValueError(f"the noise step is {step}, but must be from 0 to {NOISE_STEPS - 1}")
    variance_added = torch.linspace(-6, 6, NOISE_STEPS).sigmoid() * (0.5e-2 - 1e-5) + 1e-5  # (1000,) in each step
    signal = (1 - variance_added).cumprod(dim=0)[step]  # share of the variance that is left of the image
    colours = torch.from_numpy(np.array(image)) / 255  # (height, width, 3)
    colours = signal.sqrt() * colours + (1 - signal).sqrt() * torch.randn(colours.shape, generator=generator)
    return Image.fromarray((colours.clamp(0, 1) * 255).to(torch.uint8).numpy())


def changed_prompts(context: Context, change: Callable[[Image.Image], Image.Image]) -> PromptBatch:
    """The prompts of this step with other images of the same sizes; only the images are encoded."""
    images = [change(image) for image in context.prompts.images]
    features, _ = encode_images(context.policy, images)
    return replace(context.prompts, image_features=features, images=images)


def masked_prompts(context: Context, probability: float, side: int) -> PromptBatch:
    """The prompts of this step with `masked` images: drawn and encoded once in an optimiser step, whoever asks."""
    name = f"masked {probability} {side}"
    if name not in context.cache:
        context.cache[name] = changed_prompts(
            context, lambda image: masked(image, probability, side, context.generator)
        )
    return context.cache[name]
