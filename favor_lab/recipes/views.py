"""Changed views of a step's images, for recipes that ask what the policy says when it sees less of them; and numbers
for each token, such as how much a view changes.

Images are changed at the size that the vision tower sees: a patch is the same part of a photograph and of a drawn
scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from favor_lab.grpo.advantages import to_groups
from favor_lab.vlm.processing import encode_images

if TYPE_CHECKING:
    from favor_lab.grpo.support.rollout import Rollout
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


def grainy(image: Image.Image, sigma: float, generator: torch.Generator) -> Image.Image:
    """A copy of an RGB image with Gaussian noise of standard deviation `sigma` added to colours in 0..1, cut to 0..1.
    ValueError for a negative sigma.

    >>> grainy(Image.new("RGB", (2, 1), (200, 100, 50)), 0.1, torch.Generator().manual_seed(0)).getpixel((0, 0))
    (239, 92, 0)
    """
    if sigma < 0:
        raise ValueError(
            f"sigma is {sigma}, but a standard deviation must not be negative: 0 leaves the image as it is"
        )
    colours = torch.from_numpy(np.array(image)) / 255  # (height, width, 3)
    colours = colours + sigma * torch.randn(colours.shape, generator=generator)
    return Image.fromarray((colours.clamp(0, 1) * 255).to(torch.uint8).numpy())


def shuffled(image: Image.Image, order: Sequence[int]) -> Image.Image:
    """An image whose quarter i is quarter order[i] of the given one: 1 top left, 2 top right, 3 and 4 below.

    >>> pixels = Image.new("L", (2, 2))
    >>> pixels.putdata([10, 20, 30, 40])
    >>> list(shuffled(pixels, [3, 1, 2, 4]).tobytes())
    [30, 10, 20, 40]
    """
    width, height = image.width // 2, image.height // 2
    corners = [(x, y) for y in (0, height) for x in (0, width)]
    result = image.crop((0, 0, 2 * width, 2 * height))
    for (x, y), number in zip(corners, order, strict=True):
        left, top = corners[number - 1]
        result.paste(image.crop((left, top, left + width, top + height)), (x, y))
    return result


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


@torch.no_grad()
def compared(measure: Callable[..., Tensor], rollout: Rollout, context: Context, prompts: PromptBatch | None) -> Tensor:
    """measure(own, other) of the distributions (n, L, V) that the loss is taken over and of those under another view
    (None without one): (n, L) or (n, L, K) -> of all rows, (N, L) or (N, L, K). The own ones are made ahead, so that
    the other view is all that it costs; where micro_batch splits the step, it costs a pass for both."""
    ahead, parts = context.distributions_ahead(), []  # (N, L, V), or None where micro_batch bounds the rows of a pass
    for rows in torch.arange(len(rollout)).split(context.settings.micro_batch or len(rollout)):
        part = rollout.rows(rows)
        own = context.distributions(part) if ahead is None else ahead  # (n, L, V)
        parts.append(measure(own, None if prompts is None else context.distributions(part, prompts)))
    return torch.cat(parts)


def by_group(values: Tensor, groups: Tensor) -> Tensor:
    """Values of rows in the table of groups that `advantages` is given: (N,) -> (B, G), or (N, L) -> (B, G, L); 0 where
    a group lacks a row.

    >>> by_group(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 0, 1]))[1]
    tensor([[5., 6.],
            [0., 0.]])
    """
    table, place = to_groups(values.reshape(len(values), -1)[:, 0], groups)  # (B, G)
    result = values.new_zeros(*table.shape, *values.shape[1:])
    result[place] = values
    return result


def capped_bonus(advantages: Tensor, bonus: Tensor, kappa: float) -> Tensor:
    """min(relu(bonus), |A| / kappa), of any shape: what may be added to an advantage without turning its sign. A group
    whose rewards are all the same has advantages of 0, and gets nothing. Sources: VERL, arXiv 2509.23808, and DUPL,
    arXiv 2510.01444, equation 1. ValueError for a kappa below 1.

    >>> capped_bonus(torch.tensor([1.0, 1.0, -1.0, 0.0]), torch.tensor([0.2, 3.0, 3.0, 3.0]), 2.0)
    tensor([0.2000, 0.5000, 0.5000, 0.0000])
    """
    if not kappa >= 1:
        raise ValueError(f"kappa is {kappa}, but must be at least 1: a larger bonus would turn the sign of advantages")
    return torch.minimum(bonus.clamp(min=0), advantages.abs() / kappa)
