"""Asking about images without a label: the label that the response names, and how probable it is."""

import math

import pytest
import torch

import favor_lab
from favor_lab.grpo.sampling import encode_completions, score_completions
from favor_lab.responses import part_masks
from favor_lab.study import answering
from favor_lab.study.answering import Answer, answer
from favor_lab.vlm.processing import encode_prompts

LABELS = ["reading", "reading a map", "Riding_a_bike"]


@pytest.fixture
def respond(monkeypatch):
    """Let the policy respond with these texts, whatever it is asked."""

    def with_texts(*texts):
        def rollout(policy, prompts, max_new_tokens):
            return encode_completions(policy, texts[: len(prompts)], range(len(prompts)))

        monkeypatch.setattr(answering, "greedy_rollout", rollout)

    return with_texts


def test_an_answer_may_stand_before_its_reasoning(tiny_policy, tiny_examples, respond):
    respond("<answer>reading</answer><think>a page</think>")
    (first,) = answer(tiny_policy, tiny_examples[0], LABELS, "answer-first")
    assert (first.label, first.reasoning) == ("reading", "a page") and sum(first.probabilities.values()) > 0.999
    (opened,) = answer(tiny_policy, tiny_examples[0], None, "answer-first")
    assert opened.label == "reading" and 0 < opened.probability < 1
    assert [one.label for one in answer(tiny_policy, tiny_examples[0], LABELS)] == [None]


def test_the_probability_is_that_of_the_label_among_the_labels(tiny_policy, tiny_examples, respond):
    """Recomputed with the tokens of the answer alone, one label and one image at a time."""
    reasonings = ["<think>a page</think>", "<think>two wheels, a road</think>"]
    respond(*(f"{reasoning}<answer>riding a bike</answer>" for reasoning in reasonings))
    answers = answer(tiny_policy, tiny_examples[:2], LABELS)
    for given, example, reasoning in zip(answers, tiny_examples, reasonings, strict=False):
        prompts = encode_prompts(tiny_policy, [example], LABELS)
        scores = []
        for label in LABELS:
            written = encode_completions(tiny_policy, [f"{reasoning}<answer>{label}</answer>"], [0])
            logps = score_completions(tiny_policy, prompts, written, how="plain")[0].detach()
            first = int(part_masks(tiny_policy, written)["answer"][0].nonzero()[0])
            scores.append(float(logps[first:].double().sum()))
        expected = torch.tensor(scores).softmax(dim=0).tolist()
        assert list(given.probabilities) == LABELS
        assert list(given.probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert sum(given.probabilities.values()) == pytest.approx(1)
        assert given.label == "Riding_a_bike" and given.probability == given.probabilities["Riding_a_bike"]
        assert given.source == example.source and given.reasoning == reasoning[len("<think>") : -len("</think>")]


@pytest.mark.parametrize(("text", "reasoning", "has_shares"), [
    ("<think>a page</think>", "a page", False),
    ("nothing", None, False),
    ("<think>a page</think><answer>flying</answer>", "a page", True),
    ("<think>a page</think><answer>reading", "a page", True),
])  # fmt: skip
def test_a_response_that_names_no_label_has_none(tiny_policy, tiny_examples, respond, text, reasoning, has_shares):
    respond(text, "<answer>reading</answer>")
    none, reading = answer(tiny_policy, tiny_examples[:2], LABELS)
    assert (none.label, none.probability, none.reasoning, none.text) == (None, None, reasoning, text)
    assert (list(none.probabilities) == LABELS) == has_shares
    assert reading.label == "reading" and reading.reasoning is None and 0 < reading.probability < 1


def test_without_a_list_the_probability_is_that_of_the_text(tiny_policy, tiny_examples, respond):
    respond("<think>a page</think><answer>a book</answer>", "a book")
    named, none = answer(tiny_policy, tiny_examples[:2], None)
    explanation = favor_lab.explain(tiny_policy, tiny_examples[0], None, response=named.text)
    assert named.label == "a book" and named.probability == pytest.approx(explanation.answer_probability, rel=1e-4)
    assert math.isclose(named.probability, math.exp(explanation.logps["answer"]), rel_tol=1e-4)
    assert none == Answer(None, None, None, "a book", tiny_examples[1].source)


def test_paths_and_images_alone_or_together(tiny_policy, tiny_examples, respond, tmp_path):
    respond(*["<answer>reading</answer>"] * 4)
    image, path = tiny_examples[0].image, tmp_path / "one.png"
    image.save(path)
    answers = tiny_policy.answer([path, str(path), image, tiny_examples[0]], LABELS, "answer", batch_size=4)
    assert [given.source for given in answers] == [str(path), str(path), "image 3", tiny_examples[0].source]
    assert len({given.probability for given in answers}) == 1
    (alone,) = tiny_policy.answer(image, LABELS, "answer")
    assert alone.source == "image 1" and alone.probability == pytest.approx(answers[0].probability, abs=1e-6)


def test_batches_change_nothing(tiny_policy, tiny_examples):
    together = answer(tiny_policy, tiny_examples, LABELS, max_new_tokens=8)
    by_one = answer(tiny_policy, tiny_examples, LABELS, max_new_tokens=8, batch_size=1, progress="ask")
    assert [given.text for given in together] == [given.text for given in by_one]


def test_what_cannot_be_asked_about_is_named(tiny_policy, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="notes.txt.*cannot be read as an image"):
        answer(tiny_policy, [tmp_path / "notes.txt"], LABELS)
    with pytest.raises(ValueError, match="no images to ask about"):
        answer(tiny_policy, [], LABELS)
    with pytest.raises(ValueError, match="batch_size is 0, but must be above 0"):
        answer(tiny_policy, favor_lab.draw_scene("cartoon", "test", 0).image, LABELS, batch_size=0)
