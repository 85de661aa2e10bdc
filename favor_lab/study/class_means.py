"""The baseline of every few-shot paper: the nearest class mean, on the vision tower's features and without any text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from favor_lab.study.evaluation import Evaluation, judge_answer
from favor_lab.vlm.processing import encode_images

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.activities.images import Example
    from favor_lab.vlm.policy import Policy


def image_vectors(policy: Policy, examples: Sequence[Example]) -> Tensor:
    """One vector of length 1 per image, (M, D) on the CPU: the mean of its image tokens."""
    features, _ = encode_images(policy, (example.image.convert("RGB") for example in examples))  # (I, D) each
    means = torch.stack([feature.float().mean(dim=0).cpu() for feature in features])  # (M, D)
    return torch.nn.functional.normalize(means, dim=1)


def nearest_mean(train: Tensor, places: Tensor, test: Tensor) -> Tensor:
    """For each test vector the class whose mean is nearest by cosine, (M,). train: (T, D); places: (T,), the class of
    each; test: (M, D). The mean of all training vectors is taken off both first: it tells no class from another.

    >>> train, places = torch.tensor([[1.0, 0.0], [0.8, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> nearest_mean(train, places, torch.tensor([[0.9, 0.2], [0.1, 0.6]]))
    tensor([0, 1])
    """
    centre = train.mean(dim=0)  # (D,)
    classes = int(places.max()) + 1
    means = torch.stack([(train - centre)[places == k].mean(dim=0) for k in range(classes)])  # (K, D)
    means, test = (torch.nn.functional.normalize(vectors, dim=1) for vectors in (means, test - centre))
    return (test @ means.T).argmax(dim=1)


def evaluate_class_means(
    policy: Policy, shots: FewShot, examples: Sequence[Example], labels: Sequence[str]
) -> Evaluation:
    """The label of the nearest class mean of `shots.train` for each example, as an answer of the policy would be kept.
    ValueError for a label without a training image."""
    start, order = time.perf_counter(), {label: k for k, label in enumerate(labels)}
    if missing := [label for label in labels if label not in {example.label for example in shots.train}]:
        raise ValueError(f"there is no training image of {', '.join(missing)}: no class mean without one")
    train = [example for example in shots.train if example.label in order]
    places = torch.tensor([order[example.label] for example in train])  # (T,)
    nearest = nearest_mean(image_vectors(policy, train), places, image_vectors(policy, examples))
    texts = [f"<answer>{labels[k]}</answer>" for k in nearest.tolist()]
    answers = [judge_answer(text, e, labels, "answer") for text, e in zip(texts, examples, strict=True)]
    return Evaluation(policy.name, "answer", list(labels), answers, time.perf_counter() - start)
