"""Occlusion: cover parts of an image and score the policy's own response again (Zeiler and Fergus, arXiv 1311.2901).

Log-probabilities are in nats, of the tokens that the policy wrote, under the sampling distribution
(`score_completions`). Those of the answer are given the reasoning as it was written: the image changes, the text stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from favor_lab.activities.covering import Box, covered, fill_colour
from favor_lab.activities.fewshot import Example
from favor_lab.activities.labels import refuse_string
from favor_lab.grpo.sampling import Rollout, encode_completions, score_completions
from favor_lab.responses import Spans, part_masks, response_spans
from favor_lab.study.evaluation import greedy_rollout
from favor_lab.vlm.processing import PromptBatch, encode_prompts, encode_texts

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

Fill = str | tuple[int, int, int]


def respond(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 128,
) -> tuple[PromptBatch, Rollout]:
    """The prompts, and one response to each: the policy's own greedy one, with the token ids that were decoded, or the
    given `responses`. Raises ValueError unless there is one per example."""
    prompts = encode_prompts(policy, examples, labels, style, completion_tokens=max_new_tokens)
    check_count("responses", responses, examples)
    if responses is None:
        return prompts, greedy_rollout(policy, prompts, max_new_tokens)
    return prompts, encode_completions(policy, responses, range(len(prompts)), origin="given")


def check_count(name: str, values: Sequence | None, examples: Sequence[Example]) -> None:
    """ValueError unless there is one value per example; None for none at all."""
    refuse_string(name, values)
    if values is not None and len(values) != len(examples):
        raise ValueError(f"{len(values)} {name} for {len(examples)} examples: one for each is needed")


def cover_colour(policy: Policy, image: Image.Image, fill: Fill = "mean") -> tuple[int, ...]:
    """`fill_colour` of an image; "grey" is the colour that the policy's image processor normalises to 0."""
    return fill_colour(image, fill, tuple(round(255 * mean) for mean in policy.processor.image_processor.image_mean))


@torch.no_grad()
def score_covered(
    policy: Policy,
    prompts: PromptBatch,
    rollout: Rollout,
    views: Sequence[tuple[int, Box | None]],
    fill: Fill = "mean",
    batch_size: int = 32,
) -> Tensor:
    """Log-probability of each token of V responses, each with a box of its image covered: (V, L) float32, CPU.

    views: (row of the rollout, box in pixels of `prompts.images`, or None for the image as it is). Cost: each view goes
    through tower and language model once, prompt and response, `batch_size` views at a time; nothing is decoded.
    """
    colours = [cover_colour(policy, image, fill) for image in prompts.images]
    logps = []
    for start in range(0, len(views), batch_size):
        rows, boxes = zip(*views[start : start + batch_size], strict=True)
        groups = rollout.groups[list(rows)].tolist()  # prompt of each view
        asked = prompts[groups]
        images = map(covered, asked.images, boxes, [colours[b] for b in groups])
        examples = list(map(Example, images, asked.labels, asked.sources))
        batch = encode_texts(policy, examples, asked.texts, completion_tokens=rollout.mask.shape[1])
        resized = (batch.image_grid_thw != asked.image_grid_thw).any(dim=1)  # (v,)
        if bool(resized.any()):
            source = batch.sources[int(resized.nonzero()[0])]
            raise ValueError(f"{source} is too long and narrow to be covered at this pixel budget: crop it first")
        own_prompt = torch.arange(len(rows), device=rollout.mask.device)  # (v,) each view has its own
        logps.append(score_completions(policy, batch, replace(rollout.rows(rows), groups=own_prompt)).cpu())
    return torch.cat(logps)


@dataclass(frozen=True)
class Occluded:
    """One response, scored with each of W boxes of its image covered in turn."""

    logps: dict[str, float]  #: part -> log-probability with the whole image, nats; only parts that the response has
    drops: dict[str, np.ndarray]  #: part -> (W,) how much lower it is with the box covered, nats
    changed: np.ndarray  #: (W,) mean change of a covered pixel, 0..255: how much there was to see


def occlude(
    policy: Policy,
    prompts: PromptBatch,
    rollout: Rollout,
    boxes: Sequence[Sequence[Box]],
    fill: Fill = "mean",
    batch_size: int = 32,
    spans: Spans = response_spans,
) -> list[Occluded]:
    """Cover each box of `boxes[n]` (in pixels of the prompt's image) and score response n again; one result per row.
    spans: see `part_masks`. Cost: for each row, one view more than it has boxes; see `score_covered`."""
    views = [(n, box) for n, row_boxes in enumerate(boxes) for box in (None, *row_boxes)]
    logps = score_covered(policy, prompts, rollout, views, fill, batch_size).double()  # (V, L)
    by_row = logps.split([1 + len(row_boxes) for row_boxes in boxes])  # (1 + W, L) each
    masks = part_masks(policy, rollout, spans)  # (N, L) each
    results = []
    for n, row_boxes in enumerate(boxes):
        sums = {  # part -> (1 + W,) log-probability, for the parts that this response has
            part: (by_row[n] * mask[n]).sum(dim=1).numpy() for part, mask in masks.items() if mask[n].any()
        }
        image = prompts.images[int(rollout.groups[n])]
        colour = np.array(cover_colour(policy, image, fill))
        changed = np.array([np.abs(np.asarray(image.crop(box), float) - colour).mean() for box in row_boxes])
        drops = {part: values[0] - values[1:] for part, values in sums.items()}
        results.append(Occluded({part: float(values[0]) for part, values in sums.items()}, drops, changed))
    return results


@dataclass(frozen=True)
class OcclusionMap:
    """The drops of one response when a window slides over its image."""

    grid: tuple[int, int]  #: rows, columns of image tokens
    windows: list[Box]  #: W boxes, in image tokens
    drops: dict[str, np.ndarray]  #: part -> (W,), nats

    def heat(self, part: str = "answer") -> np.ndarray:
        """(rows, columns): for each image token, the mean drop over the windows that cover it."""
        total, count = np.zeros(self.grid), np.zeros(self.grid)
        for (left, top, right, bottom), drop in zip(self.windows, self.drops[part], strict=True):
            total[top:bottom, left:right] += drop
            count[top:bottom, left:right] += 1
        return total / count

    def peak(self, part: str = "answer") -> Box:
        """The window with the largest drop."""
        return self.windows[int(np.argmax(self.drops[part]))]
