"""Does the response depend on the pixels of the true evidence, and does the answer depend on the image at all?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from favor_lab.activities.covering import Box, Region, area, places_beside, scaled, snap, whole_box, with_room
from favor_lab.activities.fewshot import Example
from favor_lab.activities.world.catalogue import ALL_PLANS, PLANS
from favor_lab.activities.world.scenes import Scene, is_pocket_source, scene_from_source
from favor_lab.grpo.rewards import extract_answer
from favor_lab.responses import response_spans
from favor_lab.study.evaluation import batches
from favor_lab.study.occlusion import Fill, Occluded, check_count, occlude, respond

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

LIMB_MARGIN = 0.04  # picture units around a joint: about half a hand


def evidence_region(scene: Scene) -> Region:
    """Where the evidence of a drawn scene's activity is: the box of the thing in use; without one, the telling limbs:
    the legs if no other activity has them in that position (running, jumping), else the hands. Clipped to the picture.
    Raises ValueError for a scene that shows no activity.

    >>> [round(x, 2) for x in evidence_region(scene_from_source("cartoon/test/000006"))]  # a phone
    [0.62, 0.3, 0.71, 0.42]
    """
    if scene.label is None:
        raise ValueError(f"{scene.source} shows no activity, so nothing in it is the evidence of one")
    plan = ALL_PLANS[scene.label]
    if plan.use:
        box = scene.truth.objects[plan.use]
    else:
        joints = np.array([scene.truth.joints[name] for name in _telling_joints(scene.label)])  # (J, 2)
        box = (*(joints.min(axis=0) - LIMB_MARGIN), *(joints.max(axis=0) + LIMB_MARGIN))
    left, top, right, bottom = (float(min(max(edge, 0.0), 1.0)) for edge in box)
    return left, top, right, bottom


def _telling_joints(activity: str) -> list[str]:
    """Joints that show an activity without a thing: the legs if they differ from all others, else the busy hands."""
    plan = PLANS[activity]
    others = {legs for name, other in PLANS.items() if name != activity for legs in other.legs}
    if not others & set(plan.legs):
        return [f"{joint}_{side}" for joint in ("hip", "knee", "foot") for side in ("far", "near")]
    return ["hand_near"] + ["hand_far"] * all(far != "down" for far, _ in plan.hands)


@dataclass(frozen=True)
class EvidenceEffect:
    """One response with the true evidence covered and, as controls, regions of the same size elsewhere."""

    source: str
    label: str
    answer: str | None
    text: str
    region: Box  #: the evidence that was covered, in pixels of the image as the tower sees it
    share: float  #: covered share of the evidence; below 1 where the evidence was too large
    controls: list[Box]  #: the C control regions: same width and height, none overlaps the evidence
    drops: dict[str, float]  #: part -> drop of its log-probability with the evidence covered, nats
    control_drops: dict[str, list[float]]  #: part -> C drops
    changed: float  #: mean change of a covered pixel, 0..255
    control_changed: list[float]

    def effect(self, part: str = "answer") -> float | None:
        """How much more the evidence matters than other places: its drop minus the mean drop of the controls, in nats;
        None where the response lacks the part."""
        return self.drops[part] - float(np.mean(self.control_drops[part])) if part in self.drops else None

    def matched_effect(self, part: str = "answer") -> float | None:
        """The same against one control only: the one whose pixels change by the most similar amount (`changed`)."""
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
    fill: Fill = "mean",
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> list[EvidenceEffect]:
    """Does the response depend on the pixels of the true evidence more than on others? One result per example.

    Regions are enlarged to whole patches (14 x 14 pixels), so that evidence and controls hide equally many; one that
    leaves too little room beside it is cut to its middle (`with_room`; `share` tells how much is left). Controls are
    drawn without replacement from all places beside it, seeded by `seed` and the example's source. For a mean and its
    interval pass the `effect()` of many images to `bootstrap_interval`.

    regions: where the evidence is, in picture units; by default `evidence_region` of the drawn scenes. responses: score
    these instead of the policy's own. Cost: one greedy response and 2 + `controls` scoring passes per example.
    Raises ValueError for images without known evidence, and for fewer than one control.
    """
    if controls < 1:
        raise ValueError(f"controls is {controls}: at least one region elsewhere is needed to compare with")
    regions = [_drawn_evidence(example) for example in examples] if regions is None else list(regions)
    check_count("regions", regions, examples)
    spans = partial(response_spans, style=style)
    slices, patch = batches(examples, batch_size, "explain"), policy.processor.image_processor.patch_size
    check_count("responses", responses, examples)
    results: list[EvidenceEffect] = []
    for part in slices:
        given = None if responses is None else responses[part]
        prompts, rollout = respond(policy, examples[part], labels, style, given, max_new_tokens)
        boxes, shares = [], []
        for example, region, image in zip(examples[part], regions[part], prompts.images, strict=True):
            size = (image.width // patch, image.height // patch)
            box = with_room(snap(region, size), size)
            beside = places_beside(box, size)
            drawn = random.Random(f"{seed} {example.source}").sample(beside, min(controls, len(beside)))
            boxes.append([scaled(place, patch) for place in (box, *drawn)])
            shares.append(area(box) / area(snap(region, size)))
        occluded = occlude(policy, prompts, rollout, boxes, fill, batch_size, spans)
        answers = [extract_answer(text, style) for text in rollout.texts]
        results += map(_effect, examples[part], answers, rollout.texts, boxes, shares, occluded)
    return results


def _effect(
    example: Example, answer: str | None, text: str, boxes: list[Box], share: float, occluded: Occluded
) -> EvidenceEffect:
    """The result for boxes of which the first is the evidence and the others are controls."""
    drops = {part: float(values[0]) for part, values in occluded.drops.items()}
    control_drops = {part: values[1:].tolist() for part, values in occluded.drops.items()}
    changed, *others = occluded.changed.tolist()
    about = (example.source, example.label, answer, text)
    return EvidenceEffect(*about, boxes[0], share, boxes[1:], drops, control_drops, changed, others)


def _drawn_evidence(example: Example) -> Region:
    """The evidence of a drawn scene. Raises ValueError for another image."""
    if not is_pocket_source(example.source):
        raise ValueError(f"{example.source} does not say where its evidence is: pass regions=, in picture units")
    return evidence_region(scene_from_source(example.source))


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
        """Nats that the image adds to the answer, given the reasoning; near 0: the text alone suffices."""
        if self.with_image is None or self.without_image is None:
            return None
        return self.with_image - self.without_image


def image_reliance(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    *,
    fill: Fill = "mean",
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> list[Reliance]:
    """How much does the answer, after the policy's own reasoning, still depend on the image? One result per example,
    for any image. Cost: one greedy response and two scoring passes per example. `responses` as in `evidence_effect`.
    Raises ValueError for no examples."""
    slices, results = batches(examples, batch_size, "explain"), []
    spans = partial(response_spans, style=style)
    check_count("responses", responses, examples)
    for part in slices:
        given = None if responses is None else responses[part]
        prompts, rollout = respond(policy, examples[part], labels, style, given, max_new_tokens)
        boxes = [[whole_box(image)] for image in prompts.images]
        occluded = occlude(policy, prompts, rollout, boxes, fill, batch_size, spans)
        for example, text, scores in zip(examples[part], rollout.texts, occluded, strict=True):
            answer, logp = extract_answer(text, style), scores.logps.get("answer")
            blank_logp = None if logp is None else logp - float(scores.drops["answer"][0])
            results.append(Reliance(example.source, example.label, answer, text, logp, blank_logp))
    return results
