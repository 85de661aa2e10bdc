"""What is asked of the images in a run, and the prompts that ask it: every image is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from favor_lab.activities.images import Example
from favor_lab.grpo.support.clock import Clock
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.support.steps import step_name
from favor_lab.vlm.processing import PromptBatch, ask_again, encode_prompts
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.vlm.policy import Policy

#: one question for the whole run, or a step of your own that gives one for each rollout
Asked = Question | Callable[..., Question | tuple[Sequence[Example], Question]]


def question_of(question: Asked | None, settings: GRPOSettings, shots: FewShot) -> tuple[GRPOSettings, Asked, str]:
    """What is asked, by default what the settings say; the settings with its style; and, for the checkpoint, a
    description of a question that the settings do not say."""
    if question is None:
        return settings, default_question(settings, shots), ""
    if not isinstance(question, Question):
        return settings, question, step_name(question)
    if settings.style not in (question.style, GRPOSettings.style):
        styles = f"in the style {question.style!r}, but the settings say style={settings.style!r}"
        raise ValueError(f"the question asks {styles}: leave out one of the two")
    style: Any = question.style
    return replace(settings, style=style, open_vocabulary=question.labels is None), question, repr(question)


def default_question(settings: GRPOSettings, shots: FewShot) -> Question:
    """What the settings say to ask."""
    return Question.of(shots.labels, settings.open_vocabulary, settings.style)


@contextmanager
def images_encoded(
    policy: Policy, shots: FewShot, settings: GRPOSettings, asked: Asked, step: int
) -> Iterator[PromptBatch]:
    """Every image through the tower once, for the whole run; with `offload_tower` the tower is away meanwhile."""
    first = asked if isinstance(asked, Question) else default_question(settings, shots)
    with Clock(step, policy.device)("encode"):
        pool = encode_prompts(policy, shots.train, first, completion_tokens=settings.max_new_tokens)
    with policy.tower_on("cpu") if settings.offload_tower else nullcontext():
        yield pool


def prompts_for(
    policy: Policy, shots: FewShot, pool: PromptBatch, examples: Sequence[Example], question: Question, tokens: int
) -> PromptBatch:
    """The question about each example. The run's own images are not encoded again, whatever is asked of them."""
    places = {id(example): place for place, example in enumerate(shots.train)}
    if not {id(example) for example in examples} <= places.keys():
        return encode_prompts(policy, examples, question, completion_tokens=tokens)
    prompts = pool[[places[id(example)] for example in examples]]
    texts = [question.text(example) for example in examples]
    return prompts if texts == prompts.texts else ask_again(policy, prompts, texts, tokens)


def examples_of(prompts: PromptBatch, shots: FewShot) -> list[Example]:
    """The examples that prompts ask about: those of the run, and of images that it has not, what the tower sees."""
    own = {(example.source, example.label): example for example in shots.train}
    rows = zip(prompts.sources, prompts.labels, prompts.images, strict=True)
    return [own.get((source, label)) or Example(image, label, source) for source, label, image in rows]
