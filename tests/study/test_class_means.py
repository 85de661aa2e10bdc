"""The nearest class mean, the baseline without text."""

import pytest
import torch

from favor_lab import few_shot, load_activities
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.runs.cells import Cell, Setup
from favor_lab.runs.experiments import run_cell
from favor_lab.study.class_means import evaluate_class_means, image_vectors, nearest_mean
from favor_lab.vlm.processing import encode_prompts


def test_the_nearest_mean_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(30, 5, generator=generator), torch.randn(20, 5, generator=generator)
    places = torch.arange(30) % 4
    centre = train.mean(dim=0)
    for vector, k in zip(test, nearest_mean(train, places, test).tolist(), strict=True):
        similar = [
            torch.cosine_similarity(vector - centre, (train[places == c] - centre).mean(dim=0), dim=0) for c in range(4)
        ]
        assert k == max(range(4), key=lambda c: similar[c])


def test_a_vector_is_the_mean_of_the_images_tokens(tiny_policy, tiny_examples):
    prompts = encode_prompts(tiny_policy, tiny_examples, sorted({e.label for e in tiny_examples}))
    vectors = image_vectors(tiny_policy, tiny_examples)
    for vector, features in zip(vectors, prompts.image_features, strict=True):
        mean = features.float().mean(dim=0)
        assert torch.allclose(vector, mean / mean.norm(), atol=1e-6)


def test_training_images_are_their_own_class_with_one_shot(tiny_policy):
    shots = few_shot(load_activities("cartoon"), 1, test=1)
    result = evaluate_class_means(tiny_policy, shots, shots.train, shots.labels)
    assert result.accuracy == 1.0 and result.answers[0].text == f"<answer>{shots.train[0].label}</answer>"
    with pytest.raises(ValueError, match="no training image of flying: no class mean"):
        evaluate_class_means(tiny_policy, shots, shots.train, [*shots.labels, "flying"])


@pytest.mark.slow
def test_it_is_a_method_of_the_study(tmp_path):
    cell, setup = Cell("class-mean", "cartoon", 2, 0), Setup(("cartoon", "sketch"), test=1)
    result = run_cell(cell, GRPOSettings(), setup)
    assert set(result.tests) == {"cartoon", "sketch"} and not result.records and not result.probes
    assert result.evaluation.accuracy > 1 / 16, "the tower sees what is done"
    halves = run_cell(Cell("class-mean", "cartoon", 2, 0, task="base-to-new"), GRPOSettings(), setup)
    assert set(halves.tests) == {"cartoon"}, "a label without a training image has no mean"
    assert result.settings == {}
