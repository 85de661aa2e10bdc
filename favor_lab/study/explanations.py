"""Why this answer? Is the reasoning true of the image, where is the evidence, and do both lead to the answer?

That a text sounds like a reason does not make it one. Four measurements ask more, and each has its limits:

* *truth* (`judge_reasoning`): is each statement true of the drawn scene? True statements need not be why the policy
  answered so, and photographs carry no truth to compare with.
* *occlusion* (`explain`, `evidence_effect`): how much less likely does the policy's own response become when a patch of
  the image is covered? A large drop: it depends on these pixels, among others. A small one does not mean that they are
  unused, since the rest may show the same. Part of any drop is surprise, because the policy has never seen a flat
  patch; controls of the same size show how large a part.
* *rule* (`read_reasoning`): which activities of the drawn world fit the reasoning's statements? It tells whether
  reasoning and answer agree, not whether one was made from the other.
* *reliance* (`image_reliance`): how likely is the answer after the same reasoning, without the image? No drop: the text
  suffices for the answer; it does not tell where the text came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image

from favor_lab.activities.covering import Region, occlusion_windows, scaled, whole_box
from favor_lab.activities.fewshot import Example
from favor_lab.activities.world.catalogue import ACTIVITIES
from favor_lab.activities.world.scenes import is_pocket_source, scene_from_source
from favor_lab.grpo.rewards import extract_answer, format_reward, normalise_label
from favor_lab.responses import Statement, judge_reasoning, response_spans
from favor_lab.study.evidence import evidence_region
from favor_lab.study.occlusion import Fill, OcclusionMap, occlude, respond
from favor_lab.study.reasoning import Reading, read_reasoning

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy


@dataclass(frozen=True)
class Explanation:
    """The result of `explain` for one response."""

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
        gold = normalise_label(self.label)
        return normalise_label(self.answer or "") == gold if gold else None

    @property
    def consistent(self) -> bool | None:
        """Whether the answer is among those that the reasoning leads to by the rule; None where the rule cannot say."""
        return self.reading.agrees(self.answer) if self.reading else None

    def summary(self) -> str:
        """One line per question."""
        statements = ", ".join(f"{statement.text} ({statement.verdict})" for statement in self.statements)
        lines = [f"reasoning  {statements or 'none'}", f"answer     {self.answer or 'none'}"]
        if self.answer_probability is not None:
            blank = f"and {self.blank_probability:.2f} without the image"
            lines.append(f"           probability {self.answer_probability:.2f}, {blank}")
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
    fill: Fill = "mean",
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
    cell = sizes.patch_size * sizes.merge_size  # pixels per side of what one image token covers
    grid = (image.height // cell, image.width // cell)
    windows = occlusion_windows(grid, window, stride)
    spans = partial(response_spans, style=style)
    boxes = [whole_box(image), *(scaled(window, cell) for window in windows)]
    (scores,) = occlude(policy, prompts, rollout, [boxes], fill, batch_size, spans)
    (text,) = rollout.texts
    scene = scene_from_source(example.source) if is_pocket_source(example.source) else None
    names = ACTIVITIES if labels is None else labels
    return Explanation(
        source=example.source,
        label=example.label,
        image=image,
        text=text,
        answer=extract_answer(text, style),
        well_formed=bool(format_reward([text], style=style)[0]),
        statements=judge_reasoning(text, example.source),
        reading=read_reasoning(text, names) if scene and set(names) <= set(ACTIVITIES) else None,
        evidence=evidence_region(scene) if scene and scene.label else None,
        logps=scores.logps,
        blank_logps={part: scores.logps[part] - float(drops[0]) for part, drops in scores.drops.items()},
        occlusion=OcclusionMap(grid, windows, {part: drops[1:] for part, drops in scores.drops.items()}),
    )
