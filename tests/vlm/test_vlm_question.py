"""What is asked of an image, as one value."""

import dataclasses
import json

import pytest
import torch

from favor_lab import Question, build_prompt, encode_prompts
from tiny import LABELS


def test_a_question_is_a_value():
    closed, opened = Question(LABELS, "answer"), Question(None)
    assert closed.labels == tuple(LABELS) and closed == Question(tuple(LABELS), "answer")
    assert len({closed, Question(LABELS, "answer"), opened, Question(LABELS)}) == 3
    for question in (closed, opened):
        assert Question(**json.loads(json.dumps(dataclasses.asdict(question)))) == question
    assert Question.of(LABELS, open_vocabulary=False, style="answer") == closed
    assert Question.of(LABELS, open_vocabulary=True) == opened
    with pytest.raises(dataclasses.FrozenInstanceError):
        closed.style = "think"


@pytest.mark.parametrize(
    ("labels", "style", "message"),
    [
        (["reading", "reading"], "think", "more than once"),
        ([], "think", "non-empty list"),
        ("reading", "think", "non-empty list"),
        (["<answer>"], "answer", "nor contain '<'"),
        (["reading"], "dream", "unknown style 'dream'; valid styles: think, answer"),
        (None, "dream", "unknown style"),
    ],
)
def test_it_is_checked_when_it_is_made(labels, style, message):
    with pytest.raises(ValueError, match=message):
        Question(labels, style)


def test_a_batch_asks_it(tiny_policy, tiny_examples):
    for question in (Question(LABELS, "answer"), Question(None)):
        batch = encode_prompts(tiny_policy, tiny_examples, question)
        threaded = encode_prompts(tiny_policy, tiny_examples, question.labels, question.style)
        assert torch.equal(batch.input_ids, threaded.input_ids)
        assert batch.texts == threaded.texts == [build_prompt(question.labels, question.style)] * 4
    with pytest.raises(ValueError, match="style='answer' stands beside a Question of style 'think'"):
        encode_prompts(tiny_policy, tiny_examples, Question(LABELS), "answer")


@dataclasses.dataclass(frozen=True)
class WhichHalf(Question):
    """A proxy task: a text of its own for each example."""

    half: str = "left"

    def text(self, example):
        return f"What is in the {self.half} half of {example.source}?"


def test_a_question_of_ones_own(tiny_policy, tiny_examples):
    question = WhichHalf.of(LABELS)
    assert question.half == "left" and question != Question(LABELS)
    batch = encode_prompts(tiny_policy, tiny_examples, question)
    assert batch.texts == [f"What is in the left half of tiny/{i}?" for i in range(4)]
