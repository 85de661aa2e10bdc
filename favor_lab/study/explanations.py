"""Why this answer? Is the reasoning true of the image, where is the evidence, and do both lead to the answer?

A response is text; that it sounds like a reason does not make it one. Four measurements ask more, and each says less
than one would like:

* *truth* (`judge_reasoning`): does each statement hold in the drawn scene? True statements need not be why the policy
  answered so, and photographs carry no truth to compare with.
* *occlusion* (`explain`, `evidence_effect`): how much less likely does the policy's own response become when a patch of
  the image is covered? A large drop means that the response depends on these pixels, among others. A small one does not
  mean that they are unused: what is left may say the same. And a flat patch is something the policy has never seen, so
  a part of any drop is surprise; controls of the same size show how large a part.
* *rule* (`read_reasoning`): which activities of the drawn world fit what the reasoning says? It tells whether reasoning
  and answer agree, not whether the one was made from the other.
* *reliance* (`image_reliance`): how likely is the answer after the same reasoning, without the image? No drop means
  that this text suffices for the answer; where the text came from it does not say.

Log-probabilities are in nats, of the tokens that the policy wrote, under the sampling distribution
(`score_completions`). The answer's are given the reasoning as it was written: the image changes, the text stays.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageStat
from torch import Tensor

from favor_lab.activities.fewshot import Example
from favor_lab.activities.pocket import (
    ACTIVITIES,
    HANDS,
    LEGS,
    PLANS,
    STATEMENTS,
    USES,
    Scene,
    Truth,
    is_pocket_source,
    said_of_hands,
    scene_from_source,
)
from favor_lab.grpo.rewards import extract_answer, format_reward, is_blank, is_right, normalise_label
from favor_lab.grpo.sampling import Rollout, encode_completions, sample_groups, score_completions
from favor_lab.study.evaluation import THOUGHT, reasoning_statements
from favor_lab.vlm.processing import PromptBatch, encode_prompts, encode_texts

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive
Region = tuple[float, float, float, float]  # the same in picture units, 0..1
Spans = Callable[[str], dict[str, tuple[int, int]]]  # text -> part -> where it starts and ends

FILLS = ("mean", "grey")
VERDICTS = ("true", "false", "not a statement", "unknown")
LIMB_MARGIN = 0.04  # picture units around a joint: about half a hand
LEAST_PLACES = 4  # a region to be covered is no larger than leaves so many others of its size beside it

# ----------------------------------------------------------------------------------------------- is the reasoning true?


@dataclass(frozen=True)
class Statement:
    """One thing that the reasoning says, and whether it holds: one of :data:`VERDICTS`.

    "not a statement": no sentence of the drawn world's language. "unknown": the truth of this image is not known.
    """

    text: str
    verdict: str


@functools.lru_cache(maxsize=4096)
def _truth(source: str) -> Truth:
    return scene_from_source(source).truth


def judge_reasoning(text: str, source: str) -> list[Statement]:
    """Every statement of a response's reasoning with its verdict, in the order of the text.

    The statements are those that `judge_statements` counts: its two numbers are this list's length and its "true" ones.

    >>> for statement in judge_reasoning("<think>Dancing, phone at the ear. standing", "cartoon/test/000006"):
    ...     print(statement.verdict, "|", statement.text)
    not a statement | dancing
    true | phone at the ear
    false | standing
    """

    def verdict(statement: str) -> str:
        if not is_pocket_source(source):
            return "unknown"
        if statement in _truth(source).statements:
            return "true"
        return "false" if statement in STATEMENTS else "not a statement"

    return [Statement(statement, verdict(statement)) for statement in reasoning_statements(text)]


# ------------------------------------------------------------------------- what does the reasoning, by itself, lead to?


@functools.cache
def expected_statements() -> dict[str, frozenset[str]]:
    """What each activity of the drawn world may show of legs, hands and the thing in use, from its own definition.

    >>> sorted(expected_statements()["running"])
    ['arms swinging', 'long stride']
    """
    return {
        activity: frozenset(
            [LEGS[legs] for legs in plan.legs]
            + [said for spots in plan.hands for said in said_of_hands(spots)]
            + ([USES[plan.use]] if plan.use else [])
        )
        for activity, plan in PLANS.items()
    }


TELLING = frozenset([*LEGS.values(), *HANDS.values(), *USES.values(), "arms down", "both hands up"])


@dataclass(frozen=True)
class Reading:
    """What a fixed rule makes of a reasoning: see `read_reasoning`."""

    telling: tuple[str, ...]  #: statements about legs, hands or the thing in use; the others tell no activity
    best: tuple[str, ...]  #: activities that may show most of them
    compatible: tuple[str, ...]  #: activities that may show all of them: `best`, or none

    def agrees(self, answer: str | None) -> bool | None:
        """Whether an answer is among the best; None without an answer, and where nothing was said that tells."""
        if answer is None or not self.telling:
            return None
        return normalise_label(answer) in {normalise_label(activity) for activity in self.best}


def read_reasoning(text: str, labels: Sequence[str] = ACTIVITIES) -> Reading:
    """Which activities of the drawn world fit a response's reasoning, by its statements alone: no image, no policy.

    An activity scores a point for each statement about legs, hands or the thing in use that its definition admits; the
    best are those with the most. Things nearby tell nothing. Raises ValueError for labels that are no such activity.

    >>> read_reasoning("<think>standing, hands together, tree nearby</think><answer>reading</answer>").best
    ('applauding',)
    >>> read_reasoning("<think>sitting. phone at the ear. cup at the mouth</think>").best
    ('drinking', 'phoning')
    """
    expected = expected_statements()
    strangers = [label for label in labels if label not in expected]
    if strangers or not labels:
        raise ValueError(f"the rule knows the drawn world's activities only, not {strangers}: {', '.join(expected)}")
    telling = [statement for statement in reasoning_statements(text) if statement in TELLING]
    points = {label: sum(statement in expected[label] for statement in telling) for label in labels}
    best = tuple(label for label in labels if points[label] == max(points.values())) if telling else ()
    return Reading(tuple(telling), best, tuple(label for label in best if points[label] == len(telling)))


# ----------------------------------------------------------------------------------------- which tokens say which part?


def response_spans(text: str) -> dict[str, tuple[int, int]]:
    """Where each part stands in a response: from behind its opening tag to the name in its closing tag.

    The closing tag belongs to a part, because "reading" and "reading a map" begin alike; its last `>` does not, because
    a tokenizer may join it to what follows. An answer counts where `extract_answer` finds one, and reasoning that was
    left open ends where the answer begins.

    >>> text = "<think>long stride</think><answer>running</answer>"
    >>> {part: text[start:end] for part, (start, end) in response_spans(text).items()}
    {'reasoning': 'long stride</think', 'answer': 'running</answer'}
    """
    spans = {}
    answered = extract_answer(text) is not None
    opened = text.index("<answer>") if answered else len(text)
    thought = THOUGHT.search(text[:opened])
    if thought and not is_blank(thought[1]):
        spans["reasoning"] = (thought.start(1), max(thought.end() - 1, thought.end(1)))
    if answered:
        spans["answer"] = (opened + len("<answer>"), text.index("</answer>") + len("</answer"))
    return spans


def part_masks(policy: Policy, rollout: Rollout, spans: Spans = response_spans) -> dict[str, Tensor]:
    """Which tokens of each completion say its answer and which its reasoning: masks (N, L) by part, on the CPU.

    A token counts if any of its characters does: in some vocabularies the first letters of an answer share a token
    with the `>` before it. A row that has no answer, or no reasoning, is all False there.
    spans: another cut of a text into parts, such as one part a statement.
    """
    masks: dict[str, Tensor] = {}
    for n, (ids, keep) in enumerate(zip(rollout.completion_ids, rollout.mask, strict=True)):
        row = ids[keep].tolist()
        beginnings = [row[:length] for length in range(1, len(row) + 1)]
        texts = policy.tokenizer.batch_decode(beginnings, skip_special_tokens=True)
        ends = [len(text) for text in texts]  # characters written up to and including each token
        for part, (first, last) in spans(texts[-1]).items():
            mask = masks.setdefault(part, torch.zeros(rollout.mask.shape, dtype=torch.bool))  # (N, L)
            for j, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                mask[n, j] = start < last and end > first
    return masks


def _sums(logps: Tensor, masks: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Log-probability of each part, from that of the tokens (V, L): (V,) float64 for the parts that are there."""
    tokens = logps.double().cpu()
    return {part: (tokens * mask).sum(dim=1).numpy() for part, mask in masks.items() if bool(mask.any())}


# ----------------------------------------------------------------------------------------------- covering image patches


def fill_colour(policy: Policy, image: Image.Image, fill: str | tuple[int, int, int] = "mean") -> tuple[int, ...]:
    """The colour (R, G, B) that covers a patch: the image's own "mean", the processor's "grey" (0 once normalised), or
    a given one. Raises ValueError for another fill."""
    if fill == "mean":
        return tuple(round(value) for value in ImageStat.Stat(image).mean)
    if fill == "grey":
        return tuple(round(255 * value) for value in policy.processor.image_processor.image_mean)
    if isinstance(fill, str) or len(fill) != 3:
        raise ValueError(f"unknown fill {fill!r}; valid: {', '.join(FILLS)}, or a colour such as (128, 128, 128)")
    return tuple(fill)


def covered(image: Image.Image, box: Box | None, colour: tuple[int, ...]) -> Image.Image:
    """A copy of the image with a box of pixels in one colour.

    >>> covered(Image.new("RGB", (2, 1), "white"), (1, 0, 2, 1), (9, 9, 9)).getpixel((1, 0))
    (9, 9, 9)
    """
    image = image.copy()
    if box is not None:
        image.paste(colour, box)
    return image


def occlusion_windows(
    grid: tuple[int, int], window: int | tuple[int, int] | None = None, stride: int | None = None
) -> list[Box]:
    """Boxes that slide over a grid of (rows, columns) image tokens, row by row, and leave no token out.

    window: tokens a side, or (rows, columns); by default a quarter of the shorter side, but at least 2 (where the grid
    has 2). stride: tokens from one box to the next, by default half a window (of 2: 1); where the last step would pass
    the edge it ends there. By default that makes at most 49 boxes, whatever the size of a square image.
    Raises ValueError for a window that does not fit, and for a stride below 1 or so long that tokens are left out.

    >>> occlusion_windows((2, 3), window=2)
    [(0, 0, 2, 2), (1, 0, 3, 2)]
    """
    if window is None:
        window = min(max(2, math.ceil(min(grid) / 4)), *grid)
    height, width = (window, window) if isinstance(window, int) else window
    if not (1 <= height <= grid[0] and 1 <= width <= grid[1]):
        tokens = f"{grid[0]} x {grid[1]} image tokens"
        raise ValueError(f"a window of {height} x {width} does not fit in an image of {tokens}")
    step = math.ceil(min(height, width) / 2) if stride is None else stride
    if not 1 <= step <= min(height, width):
        raise ValueError(f"stride is {step}: it must be from 1 to {min(height, width)}, the window's shorter side")
    tops, lefts = ([*range(0, n - size, step), n - size] for n, size in zip(grid, (height, width), strict=True))
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


@torch.no_grad()
def score_covered(
    policy: Policy,
    prompts: PromptBatch,
    rollout: Rollout,
    views: Sequence[tuple[int, Box | None]],
    fill: str | tuple[int, int, int] = "mean",
    batch_size: int = 32,
) -> Tensor:
    """Log-probability of each token of V responses, each with a box of its image covered: (V, L) float32, CPU.

    views: (row of the rollout, box in pixels of `prompts.images`, or None for the image as it is). Cost: each view goes
    through tower and language model once, prompt and response, `batch_size` views at a time; nothing is decoded.
    """
    colours = [fill_colour(policy, image, fill) for image in prompts.images]
    scored = []
    for start in range(0, len(views), batch_size):
        rows, boxes = zip(*views[start : start + batch_size], strict=True)
        asked = rollout.groups[list(rows)].tolist()  # prompt of each view
        examples = [
            Example(covered(prompts.images[b], box, colours[b]), prompts.labels[b], prompts.sources[b])
            for b, box in zip(asked, boxes, strict=True)
        ]
        texts = [prompts.texts[b] for b in asked]
        again = encode_texts(policy, examples, texts, completion_tokens=rollout.mask.shape[1])
        moved = (again.image_grid_thw != prompts.image_grid_thw[asked]).any(dim=1)  # (v,)
        if bool(moved.any()):
            source = again.sources[int(moved.nonzero()[0])]
            raise ValueError(f"{source} is too long and narrow to be covered at this pixel budget: crop it first")
        groups = torch.arange(len(rows), device=rollout.mask.device)
        scored.append(score_completions(policy, again, replace(rollout.rows(rows), groups=groups)).cpu())
    return torch.cat(scored)


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
    fill: str | tuple[int, int, int] = "mean",
    batch_size: int = 32,
    spans: Spans = response_spans,
) -> list[Occluded]:
    """Cover each box of `boxes[n]` (in pixels of the prompt's image) and score response n again; one result a row.

    spans: how a response is cut into parts, see `part_masks`. Cost: for each row, one view more than it has boxes; see
    `score_covered`.
    """
    views = [(n, box) for n, of_row in enumerate(boxes) for box in (None, *of_row)]
    rows = torch.tensor([n for n, _ in views])
    logps = score_covered(policy, prompts, rollout, views, fill, batch_size)  # (V, L)
    masks = part_masks(policy, rollout, spans)  # (N, L) each
    results = []
    for n, of_row in enumerate(boxes):
        sums = _sums(logps[rows == n], {part: mask[n] for part, mask in masks.items()})  # (1 + W,) each
        image = prompts.images[int(rollout.groups[n])]
        colour = np.array(fill_colour(policy, image, fill))
        changed = [np.abs(np.asarray(image.crop(box), float) - colour).mean() for box in of_row]
        results.append(
            Occluded(
                {part: float(values[0]) for part, values in sums.items()},
                {part: values[0] - values[1:] for part, values in sums.items()},
                np.array(changed),
            )
        )
    return results


def respond(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 128,
) -> tuple[PromptBatch, Rollout]:
    """The prompts, and one response to each: the policy's own greedy one, the very tokens that were decoded, or the
    given `responses`. Raises ValueError unless there are as many as examples."""
    prompts = encode_prompts(policy, examples, labels, style, completion_tokens=max_new_tokens)
    if responses is None:
        return prompts, sample_groups(policy, prompts, group_size=1, max_new_tokens=max_new_tokens, seed=0, top_k=1)
    if len(responses) != len(examples):
        raise ValueError(f"{len(responses)} responses for {len(examples)} examples: one for each is needed")
    return prompts, encode_completions(policy, responses, range(len(prompts)), origin="given")


def _whole(image: Image.Image) -> Box:
    return (0, 0, *image.size)


# ------------------------------------------------------------------------------------------------------ one explanation


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


@dataclass(frozen=True)
class Explanation:
    """What `explain` found out about one response."""

    source: str
    label: str  #: gold label; may be empty
    image: Image.Image  #: as the tower sees it
    text: str  #: the whole response
    answer: str | None  #: None where there is no answer; then no measurement of the answer exists either
    well_formed: bool
    statements: list[Statement]
    reading: Reading | None  #: the rule's; None unless the image is a drawn scene and the labels its activities
    evidence: Region | None  #: where the evidence of the gold label is, in a drawn scene
    logps: dict[str, float]  #: "answer" and "reasoning": log-probability with the whole image, nats
    blank_logps: dict[str, float]  #: the same with all of the image covered
    occlusion: OcclusionMap

    @property
    def answer_probability(self) -> float | None:
        """Probability of exactly this answer, given the image and the reasoning before it."""
        return math.exp(self.logps["answer"]) if "answer" in self.logps else None

    @property
    def blank_probability(self) -> float | None:
        """Probability of the same answer after the same reasoning, with all of the image covered."""
        return math.exp(self.blank_logps["answer"]) if "answer" in self.blank_logps else None

    @property
    def correct(self) -> bool | None:
        """Whether the answer is the gold label; None where there is no gold label."""
        return is_right(self.text, self.label) if normalise_label(self.label) else None

    @property
    def consistent(self) -> bool | None:
        """Whether the answer is among those that the reasoning leads to by the rule; None where the rule cannot say."""
        return self.reading.agrees(self.answer) if self.reading else None

    def summary(self) -> str:
        """One line a question."""
        said = ", ".join(f"{statement.text} ({statement.verdict})" for statement in self.statements)
        lines = [f"reasoning  {said or 'none'}", f"answer     {self.answer or 'none'}"]
        if self.answer_probability is not None:
            pair = (self.answer_probability, self.blank_probability)
            lines.append("           probability {:.2f}, and {:.2f} without the image".format(*pair))
        if self.reading and self.reading.telling:
            lines.append(f"rule       the reasoning leads to {' or '.join(self.reading.best)}")
        return "\n".join(lines)


def explain(
    policy: Policy,
    example: Example,
    labels: Sequence[str] | None,
    style: str = "think",
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | None = None,
    fill: str | tuple[int, int, int] = "mean",
    response: str | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> Explanation:
    """The policy's greedy response to an image: is it true, is it consistent, and on which pixels does it depend?

    window, stride, fill: see `occlusion_windows` and `fill_colour`; the windows follow the image's own grid of tokens.
    response: explain this text instead of the policy's own. A response without an answer is explained without one.
    Cost: one greedy response, and one scoring pass of prompt and response for each window and two more (the image as it
    is, and covered entirely), `batch_size` at a time. Raises ValueError for a window that does not fit in the image.
    """
    given = None if response is None else [response]
    prompts, rollout = respond(policy, [example], labels, style, given, max_new_tokens)
    image, sizes = prompts.images[0], policy.processor.image_processor
    cell = sizes.patch_size * sizes.merge_size  # pixels a side of what one image token covers
    grid = (image.height // cell, image.width // cell)
    windows = occlusion_windows(grid, window, stride)
    boxes = [_whole(image), *(_scaled(window, cell) for window in windows)]
    (found,) = occlude(policy, prompts, rollout, [boxes], fill, batch_size)
    (text,) = rollout.texts
    scene = scene_from_source(example.source) if is_pocket_source(example.source) else None
    return Explanation(
        source=example.source,
        label=example.label,
        image=image,
        text=text,
        answer=extract_answer(text),
        well_formed=bool(format_reward([text], style=style)[0]),
        statements=judge_reasoning(text, example.source),
        reading=_reading(text, labels) if scene else None,
        evidence=evidence_region(scene) if scene and scene.label else None,
        logps=found.logps,
        blank_logps={part: found.logps[part] - float(drops[0]) for part, drops in found.drops.items()},
        occlusion=OcclusionMap(grid, windows, {part: drops[1:] for part, drops in found.drops.items()}),
    )


def _scaled(box: Box, unit: int) -> Box:
    left, top, right, bottom = box
    return (unit * left, unit * top, unit * right, unit * bottom)


def _reading(text: str, labels: Sequence[str] | None) -> Reading | None:
    """The rule's reading where it knows the labels."""
    labels = ACTIVITIES if labels is None else labels
    return read_reasoning(text, labels) if set(labels) <= set(ACTIVITIES) else None


# ---------------------------------------------------------------------------------- is the evidence where it should be?


def evidence_region(scene: Scene) -> Region:
    """Where the evidence of a drawn scene's activity is: the box of the thing in use; without one, the limbs that tell.

    These are the legs where no other activity stands so (running, jumping), else the hands. Clipped to the picture.
    Raises ValueError for a scene that shows no activity.

    >>> [round(x, 2) for x in evidence_region(scene_from_source("cartoon/test/000006"))]  # a phone
    [0.62, 0.3, 0.71, 0.42]
    """
    if scene.label is None:
        raise ValueError(f"{scene.source} shows no activity, so nothing in it is the evidence of one")
    plan = PLANS[scene.label]
    if plan.use:
        left, top, right, bottom = scene.truth.objects[plan.use]
    else:
        joints = np.array([scene.truth.joints[name] for name in _telling_joints(scene.label)])  # (J, 2)
        (left, top), (right, bottom) = joints.min(axis=0) - LIMB_MARGIN, joints.max(axis=0) + LIMB_MARGIN
    left, top, right, bottom = (float(min(max(edge, 0.0), 1.0)) for edge in (left, top, right, bottom))
    return left, top, right, bottom


def _telling_joints(activity: str) -> list[str]:
    """Joints that show an activity without a thing: the legs if they tell it from all others, else the busy hands."""
    plan = PLANS[activity]
    others = {legs for name, other in PLANS.items() if name != activity for legs in other.legs}
    if not others & set(plan.legs):
        return [f"{joint}_{side}" for joint in ("hip", "knee", "foot") for side in ("far", "near")]
    return ["hand_near"] + ["hand_far"] * all(far != "down" for far, _ in plan.hands)


def snap(region: Region, size: tuple[int, int]) -> Box:
    """The smallest box of whole units, on a picture of (width, height) units, that holds a region.

    >>> snap((0.41, 0.15, 0.55, 0.2), size=(10, 10))
    (4, 1, 6, 2)
    """
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"a region is left < right and top < bottom in picture units (0..1), not {region}")
    width, height = size
    return (
        math.floor(left * width), math.floor(top * height),
        math.ceil(right * width - 1e-9), math.ceil(bottom * height - 1e-9),
    )  # fmt: skip


def places_beside(box: Box, size: tuple[int, int]) -> list[Box]:
    """Every place of a box of the same width and height that does not overlap this one.

    >>> places_beside((0, 0, 2, 1), size=(3, 2))
    [(0, 1, 2, 2), (1, 1, 3, 2)]
    """
    wide, high = box[2] - box[0], box[3] - box[1]
    places = ((x, y, x + wide, y + high) for y in range(size[1] - high + 1) for x in range(size[0] - wide + 1))
    left, top, right, bottom = box
    return [(a, b, c, d) for a, b, c, d in places if a >= right or c <= left or b >= bottom or d <= top]


def with_room(box: Box, size: tuple[int, int], places: int = LEAST_PLACES) -> Box:
    """The box itself, or if it leaves fewer than so many places beside it, its middle: the longer side is cut, unit by
    unit and from both ends in turn, until there are enough (or one unit is left).

    >>> with_room((1, 0, 9, 9), size=(10, 10)), with_room((0, 0, 4, 4), size=(10, 10))
    ((3, 2, 7, 6), (0, 0, 4, 4))
    """
    left, top, right, bottom = box
    while (right - left) * (bottom - top) > 1 and len(places_beside((left, top, right, bottom), size)) < places:
        wide, high = right - left, bottom - top
        if wide >= high:
            left, right = (left + 1, right) if wide % 2 == 0 else (left, right - 1)
        else:
            top, bottom = (top + 1, bottom) if high % 2 == 0 else (top, bottom - 1)
    return left, top, right, bottom


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


@dataclass(frozen=True)
class EvidenceEffect:
    """One response with the true evidence covered, and with as large a region elsewhere covered, several times."""

    source: str
    label: str
    answer: str | None
    text: str
    region: Box  #: the evidence that was covered, in pixels of the image as the tower sees it
    share: float  #: how much of the evidence that is; below 1 where it was too large
    controls: list[Box]  #: the C other regions: same width and height, none overlaps the evidence
    drops: dict[str, float]  #: part -> drop of its log-probability with the evidence covered, nats
    control_drops: dict[str, list[float]]  #: part -> C drops
    changed: float  #: mean change of a covered pixel, 0..255
    control_changed: list[float]

    def effect(self, part: str = "answer") -> float | None:
        """How much more the evidence matters than other places: its drop less the mean drop of the controls, in nats;
        None where the response lacks the part."""
        return self.drops[part] - float(np.mean(self.control_drops[part])) if part in self.drops else None

    def matched_effect(self, part: str = "answer") -> float | None:
        """The same against one control alone: the one that takes most nearly as much away (`changed`)."""
        nearest = int(np.argmin(np.abs(np.array(self.control_changed) - self.changed)))
        return self.drops[part] - self.control_drops[part][nearest] if part in self.drops else None


def evidence_effect(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    *,
    regions: Sequence[Region] | None = None,
    controls: int = 8,
    seed: int = 0,
    fill: str | tuple[int, int, int] = "mean",
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> list[EvidenceEffect]:
    """Does the response depend on the pixels of the true evidence more than on others? One result for each example.

    Regions are enlarged to whole patches (14 x 14 pixels), so that evidence and controls hide as many of them, and one
    that leaves too little room beside it is cut to its middle (`with_room`; `share` says how far). Controls are drawn
    without replacement from all places beside it, by `seed` and the example's source alone. For a mean and its interval
    take the `effect()` of many images to `bootstrap_interval`.

    regions: where the evidence is, in picture units; by default `evidence_region` of the drawn scenes. responses: score
    these instead of the policy's own. Cost: one greedy response and 2 + `controls` scoring passes an example.
    Raises ValueError for images without a known evidence, and for fewer than one control.
    """
    if controls < 1:
        raise ValueError(f"controls is {controls}: at least one region elsewhere is needed to compare with")
    regions = [_known_evidence(example) for example in examples] if regions is None else list(regions)
    if len(regions) != len(examples):
        raise ValueError(f"{len(regions)} regions for {len(examples)} examples: one for each is needed")
    patch = policy.processor.image_processor.patch_size
    results: list[EvidenceEffect] = []
    for part, prompts, rollout in _batches(policy, examples, labels, style, responses, max_new_tokens, batch_size):
        boxes, shares = [], []
        for example, region, image in zip(examples[part], regions[part], prompts.images, strict=True):
            size = (image.width // patch, image.height // patch)
            box = with_room(snap(region, size), size)
            beside = places_beside(box, size)
            drawn = random.Random(f"{seed} {example.source}").sample(beside, min(controls, len(beside)))
            boxes.append([_scaled(place, patch) for place in (box, *drawn)])
            shares.append(_area(box) / _area(snap(region, size)))
        found = occlude(policy, prompts, rollout, boxes, fill, batch_size)
        results += map(_effect, examples[part], rollout.texts, boxes, shares, found)
    return results


def _effect(example: Example, text: str, boxes: list[Box], share: float, found: Occluded) -> EvidenceEffect:
    """The result for boxes of which the first is the evidence."""
    drops = {part: values.tolist() for part, values in found.drops.items()}
    changed = found.changed.tolist()
    return EvidenceEffect(
        example.source, example.label, extract_answer(text), text, boxes[0], share, boxes[1:],
        {part: values[0] for part, values in drops.items()}, {part: values[1:] for part, values in drops.items()},
        changed[0], changed[1:],
    )  # fmt: skip


def _known_evidence(example: Example) -> Region:
    if not is_pocket_source(example.source):
        raise ValueError(f"{example.source} does not say where its evidence is: pass regions=, in picture units")
    return evidence_region(scene_from_source(example.source))


def _batches(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str,
    responses: Sequence[str] | None,
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[tuple[slice, PromptBatch, Rollout]]:
    """The examples, `batch_size` at a time, with their responses. Raises ValueError for none, or a size below 1."""
    if not examples:
        raise ValueError("no examples to explain")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if responses is not None and len(responses) != len(examples):
        raise ValueError(f"{len(responses)} responses for {len(examples)} examples: one for each is needed")
    for start in range(0, len(examples), batch_size):
        part = slice(start, start + batch_size)
        given = None if responses is None else responses[part]
        yield part, *respond(policy, examples[part], labels, style, given, max_new_tokens)


# ------------------------------------------------------------------------------- how much of the answer is in the text?


@dataclass(frozen=True)
class Reliance:
    """The answer of one response, scored after its own reasoning, with the image and with all of it covered."""

    source: str
    label: str
    answer: str | None  #: None where there is no answer, and then nothing is scored
    text: str
    with_image: float | None  #: log-probability of the answer given image and reasoning, nats
    without_image: float | None  #: the same with every pixel in one colour

    @property
    def drop(self) -> float | None:
        """Nats that the image adds to the answer, once the reasoning is written; near 0: the text alone says it."""
        if self.with_image is None or self.without_image is None:
            return None
        return self.with_image - self.without_image


def image_reliance(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    *,
    fill: str | tuple[int, int, int] = "mean",
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> list[Reliance]:
    """How much does the answer, after the policy's own reasoning, still lean on the image? One result for each example.

    Works for any image. Cost: one greedy response and two scoring passes an example. `responses` as in
    `evidence_effect`. Raises ValueError for no examples.
    """
    results = []
    for part, prompts, rollout in _batches(policy, examples, labels, style, responses, max_new_tokens, batch_size):
        found = occlude(policy, prompts, rollout, [[_whole(image)] for image in prompts.images], fill, batch_size)
        for example, text, one in zip(examples[part], rollout.texts, found, strict=True):
            whole = one.logps.get("answer")
            blank = None if whole is None else whole - float(one.drops["answer"][0])
            results.append(Reliance(example.source, example.label, extract_answer(text), text, whole, blank))
    return results
