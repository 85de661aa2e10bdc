import json
import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from favor_lab.activities.fewshot import Example
from favor_lab.activities.world.scenes import draw_scene
from favor_lab.responses import judge_statements
from favor_lab.study.evaluation import Answered, Evaluation, evaluate, generate_greedy, judge_answer, wilson_interval
from favor_lab.vlm.processing import encode_prompts
from tiny import LABELS


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_against_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=6e-5)


def test_wilson_solves_its_equation():
    """Both bounds are the shares p at which the observation is exactly 1.96 standard errors away."""
    for bound in wilson_interval(37, 128):
        assert abs(37 / 128 - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / 128), rel=1e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} of {trials}"):
        wilson_interval(successes, trials)


@pytest.fixture
def lively_policy(tiny_policy):
    """With a stronger adapter, so that the likeliest texts differ from image to image."""
    with torch.no_grad():
        for name, weight in tiny_policy.trainable_parameters():
            if "lora_B" in name:
                weight.mul_(8)
    return tiny_policy


def answered(label, answer, well_formed=True, statements=0, true=0):
    return Answered(
        "a.png", label, answer, label == answer, well_formed, statements, true, f"<answer>{answer}</answer>"
    )


def evaluation():
    rows = [
        ("reading", "reading"),
        ("reading", "phoning"),
        ("phoning", "phoning"),
        ("phoning", None),
        ("phoning", "sleeping"),
    ]
    answers = [answered(label, answer, answer is not None, 4, 3) for label, answer in rows]
    return Evaluation("pocket", "think", ["phoning", "reading", "fishing"], answers, 1.5)


def test_confusion_counts_and_the_column_of_no_valid_answer():
    assert evaluation().confusion().tolist() == [[1, 0, 0, 2], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_rates():
    result = evaluation()
    assert (result.correct, result.accuracy, result.format_rate, result.truth_rate) == (2, 0.4, 0.8, 0.75)
    assert result.interval == wilson_interval(2, 5)
    assert result.label_accuracy() == {"phoning": pytest.approx(1 / 3), "reading": 0.5}
    assert "40.0%" in result.summary() and "2 of 5" in result.summary() and "75%" in result.summary()


def sampled(label, *answers):
    return replace(answered(label, answers[0]), sampled=answers)


def test_pass_at_k_is_the_share_of_the_subsets_with_a_right_answer():
    answer = sampled("reading", "phoning", "reading", None, "reading", "fishing")
    for count in range(1, 6):
        subsets = list(combinations(answer.sampled, count))
        assert answer.pass_at(count) == pytest.approx(sum("reading" in subset for subset in subsets) / len(subsets))
    with pytest.raises(ValueError, match="samples=6"):
        answer.pass_at(6)
    with pytest.raises(ValueError, match="of 0 sampled answers"):
        answered("reading", "reading").pass_at(1)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (("reading", "reading", "phoning"), 1.0),
        (("reading", "phoning", "phoning"), 0.0),
        (("reading", "phoning", None, None), 0.5),
        ((None, None), 0.0),
        (("reading", "phoning", "fishing"), 1 / 3),
    ],
)
def test_the_majority_is_drawn_where_several_lead(answers, right):
    assert sampled("reading", *answers).majority_right == pytest.approx(right)


def test_sampled_rates_stand_beside_the_greedy_ones(tmp_path):
    answers = [sampled("reading", "reading", "phoning"), sampled("phoning", None, "phoning")]
    result = Evaluation("pocket", "think", ["phoning", "reading"], answers, 1.0)
    assert (result.samples, result.sampled_accuracy, result.majority_accuracy) == (2, 0.5, 0.75)
    assert result.rates()["pass_at_2"] == result.pass_at(2) == 1.0 and result.pass_at(1) == 0.5
    assert "sampled 2 times: accuracy 50.0%, one of them right 100.0%, vote 75.0%" in result.summary()
    assert Evaluation.load(result.save(tmp_path / "evaluation.json")) == result
    plain = evaluation()
    assert (plain.samples, plain.sampled_accuracy, plain.majority_accuracy) == (0, None, None)
    assert "sampled" not in plain.summary() and "sampled_accuracy" not in plain.rates()


def test_an_evaluation_from_before_there_were_samples_is_read(tmp_path):
    data = evaluation().to_dict()
    for answer in data["answers"]:
        del answer["sampled"]
    assert Evaluation.from_dict(data) == evaluation()


def test_samples_are_those_of_sample_groups_and_leave_the_greedy_answers(lively_policy, tiny_examples):
    plain = evaluate(lively_policy, tiny_examples, LABELS, max_new_tokens=6, batch_size=2)
    result = evaluate(lively_policy, tiny_examples, LABELS, max_new_tokens=6, batch_size=2, samples=3, seed=5)
    again = evaluate(lively_policy, tiny_examples, LABELS, max_new_tokens=6, batch_size=2, samples=3, seed=5)
    assert [replace(answer, sampled=()) for answer in result.answers] == plain.answers
    assert again.answers == result.answers and result.samples == 3
    with pytest.raises(ValueError, match="samples"):
        evaluate(lively_policy, tiny_examples, LABELS, samples=-1)


def test_sampled_answers_are_spelt_like_the_labels(lively_policy, tiny_examples, monkeypatch):
    def sample_groups(policy, prompts, group_size, max_new_tokens, temperature, generator):
        assert (group_size, max_new_tokens, temperature) == (2, 9, 0.7)
        texts = [f"<answer>{text}</answer>" for _ in range(len(prompts)) for text in ("Riding_a bike.", "flying")]
        return SimpleNamespace(texts=texts)

    monkeypatch.setattr("favor_lab.grpo.sampling.sample_groups", sample_groups)
    monkeypatch.setattr("favor_lab.study.evaluation.generate_greedy", lambda *rest: [""] * len(tiny_examples))
    result = evaluate(lively_policy, tiny_examples, LABELS, max_new_tokens=9, samples=2, temperature=0.7)
    assert {answer.sampled for answer in result.answers} == {("riding a bike", "flying")}


def test_truth_rate_is_unknown_without_statements():
    assert Evaluation("p", "answer", ["reading"], [answered("reading", "reading")], 0.0).truth_rate is None


def test_saved_and_loaded_it_is_equal(tmp_path):
    path = evaluation().save(tmp_path / "evaluation.json")
    assert Evaluation.load(path) == evaluation()
    assert json.loads(path.read_text())["accuracy"] == 0.4


def test_an_answer_is_kept_in_the_spelling_of_its_label(tiny_examples):
    example = tiny_examples[0]
    right = judge_answer("<think>a page</think><answer>Riding_A-bike.</answer>", example, LABELS, "think")
    assert (right.answer, right.correct, right.well_formed) == ("riding a bike", True, True)
    wrong = judge_answer("<answer>flying</answer>", example, LABELS, "think")
    assert (wrong.answer, wrong.correct, wrong.well_formed) == ("flying", False, False)
    assert judge_answer("riding a bike", example, LABELS, "think").answer is None


def test_statements_of_a_drawn_scene():
    scene = draw_scene("thermal", "test", 8)  # reading
    true = scene.truth.statements
    assert judge_statements(f"<think>{'. '.join(true)}.</think><answer>x</answer>", scene.source) == (
        len(true),
        len(true),
    )
    assert judge_statements(f"<think>{true[0]}, {true[0]}, feet on pedals, gibberish", scene.source) == (3, 1)
    assert judge_statements(f"<answer>{true[0]}</answer>", scene.source) == (0, 0)
    assert judge_statements(f"<think>{true[0]}</think>", "photos/reading/1.jpg") == (0, 0)


def test_greedy_texts_are_those_of_an_independent_argmax(lively_policy, tiny_examples):
    """Each row by itself, no cache: append the likeliest allowed token, one at a time."""
    texts = generate_greedy(lively_policy, encode_prompts(lively_policy, tiny_examples, LABELS), max_new_tokens=6)
    assert len(set(texts)) > 1
    for example, text in zip(tiny_examples, texts, strict=True):
        prompt = encode_prompts(lively_policy, [example], LABELS)
        pixels = lively_policy.processor.image_processor(images=prompt.images, return_tensors="pt")["pixel_values"]
        ids, tokens = prompt.input_ids, []
        for _ in range(6):
            with torch.no_grad():
                is_image = (ids == lively_policy.processor.image_token_id).int()
                logits = lively_policy.model(
                    input_ids=ids, pixel_values=pixels, image_grid_thw=prompt.image_grid_thw, mm_token_type_ids=is_image
                ).logits[0, -1]
            logits[lively_policy.forbidden_token_ids] = -torch.inf
            tokens.append(int(logits.argmax()))
            ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
            if tokens[-1] in lively_policy.end_token_ids:
                break
        ended = tokens[-1] in lively_policy.end_token_ids
        assert text == lively_policy.tokenizer.decode(tokens[:-1] if ended else tokens)


def test_greedy_decoding_leaves_the_global_generator_alone(lively_policy, tiny_examples):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    generate_greedy(lively_policy, encode_prompts(lively_policy, tiny_examples[:1], LABELS), max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluate_keeps_every_example_in_order_whatever_the_batch_size(lively_policy, tiny_examples):
    one = evaluate(lively_policy, tiny_examples, LABELS, max_new_tokens=5, batch_size=1)
    all_at_once = evaluate(lively_policy, tiny_examples, LABELS, max_new_tokens=5, batch_size=64)
    assert one.answers == all_at_once.answers
    assert [answer.source for answer in one.answers] == [example.source for example in tiny_examples]
    assert [answer.label for answer in one.answers] == [example.label for example in tiny_examples]
    assert len({answer.text for answer in one.answers}) > 1


def test_evaluate_with_an_open_vocabulary(lively_policy, tiny_examples):
    result = evaluate(lively_policy, tiny_examples, None, style="answer", max_new_tokens=3)
    assert result.labels == LABELS and np.all(result.confusion().sum(axis=1) == 1)


def test_evaluate_refuses_what_makes_no_sense(lively_policy, tiny_examples):
    with pytest.raises(ValueError, match="no examples"):
        evaluate(lively_policy, [], LABELS)
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(lively_policy, tiny_examples, LABELS, batch_size=0)
    stranger = Example(tiny_examples[0].image, "sleeping", "photos/7.jpg")
    with pytest.raises(ValueError, match=r"photos/7.jpg.*'sleeping'"):
        evaluate(lively_policy, [stranger], LABELS)
    with pytest.raises(ValueError, match="think, answer"):
        evaluate(lively_policy, tiny_examples, LABELS, style="rhyme")
