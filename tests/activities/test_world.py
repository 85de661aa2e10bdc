"""The pocket world: deterministic, balanced, disjoint, and its statements match what it draws."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from favor_lab.activities.world import (
    ACTIVITIES,
    JOINTS,
    PLANS,
    SETS,
    SPLITS,
    STATEMENTS,
    THINGS,
    USES,
    draw_scene,
    is_pocket_source,
    scene_from_source,
)

KEYS = [(name, "test", index) for name in SETS for index in (0, 5, 11)]


@pytest.mark.parametrize("key", KEYS)
def test_a_scene_is_a_function_of_its_key(key):
    first, second = draw_scene(*key), draw_scene(*key)
    assert np.array_equal(first.image, second.image) and first.truth == second.truth
    assert np.array_equal(scene_from_source(first.source).image, first.image)


def test_another_process_draws_the_same_pixels():
    code = (
        "import hashlib; from favor_lab.activities.world import draw_scene; "
        "print(hashlib.sha256(b''.join(draw_scene(s, 'train', 9).image.tobytes() "
        "for s in ('cartoon', 'sketch', 'thermal', 'cctv'))).hexdigest())"
    )
    here = hashlib.sha256(b"".join(draw_scene(s, "train", 9).image.tobytes() for s in SETS)).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert there.stdout.strip() == here


def test_truth_is_pinned_across_machines():
    """The truth needs no pixels, so its digest must not change with the version of any library."""
    facts = [draw_scene(name, split, k).truth.statements for name in SETS for split in SPLITS for k in range(8)]
    assert hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16] == "b125a002d6ea13e5"


@pytest.mark.parametrize("name", SETS)
def test_splits_and_sets_never_share_a_scene(name):
    pixels = [draw_scene(name, split, k).image.tobytes() for split in SPLITS for k in range(24)]
    assert len(set(pixels)) == len(pixels)


def test_labels_take_turns_and_pretraining_mixes_in_free_compositions():
    labels = Counter(draw_scene("thermal", "train", k, 28).label for k in range(64))
    assert labels == dict.fromkeys(ACTIVITIES, 4)
    pretrain = [draw_scene("cartoon", "pretrain", k, 28).label for k in range(64)]
    assert pretrain.count(None) == 32 and Counter(pretrain)[ACTIVITIES[3]] == 2


@pytest.mark.parametrize("name", SETS)
def test_truth_lies_inside_the_picture_and_says_what_the_activity_needs(name):
    for k in range(48):
        scene = draw_scene(name, "validation", k, 56)
        truth = scene.truth
        assert set(truth.statements) <= set(STATEMENTS) and len(set(truth.statements)) == len(truth.statements)
        assert set(truth.joints) == set(JOINTS) and set(truth.objects) <= set(THINGS)
        assert all(-0.02 <= x <= 1.02 and -0.02 <= y <= 1.02 for x, y in truth.joints.values()), scene.source
        use = PLANS[scene.label].use
        if use:
            x0, y0, x1, y1 = truth.objects[use]
            assert USES[use] in truth.statements and 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, scene.source
        assert all(f"{thing} nearby" not in truth.statements for thing in [use] if thing)


def test_evidence_tells_activities_apart():
    """No two activities share the same characteristic statements: otherwise they could not be told apart."""
    telling = {a: set() for a in ACTIVITIES}
    for k in range(320):
        scene = draw_scene(SETS[k % 4], "validation", k, 28)
        telling[scene.label].add(tuple(s for s in scene.truth.statements if not s.endswith(("nearby", "in a hand"))))
    for a in ACTIVITIES:
        for b in ACTIVITIES:
            assert a == b or not telling[a] & telling[b], (a, b)


def test_appearance_does_not_tell_the_label():
    """Mean colour of the scene: the spread within an activity equals that between activities."""
    colour = {a: [] for a in ACTIVITIES}
    for k in range(480):
        scene = draw_scene("cartoon", "train", k, 28)
        colour[scene.label].append(np.asarray(scene.image, float).mean((0, 1)))
    within = np.mean([np.var(v, axis=0).sum() for v in colour.values()])
    between = np.var([np.mean(v, axis=0) for v in colour.values()], axis=0).sum()
    assert between < 0.25 * within


def test_things_nearby_do_not_tell_the_label():
    """Each activity appears with many different things nearby."""
    beside = {a: set() for a in ACTIVITIES}
    for k in range(640):
        scene = draw_scene("cartoon", "train", k, 28)
        beside[scene.label] |= {s for s in scene.truth.statements if s.endswith("nearby")}
    assert min(len(v) for v in beside.values()) >= 9


def test_the_same_scene_at_another_size_keeps_its_truth():
    small, large = draw_scene("sketch", "train", 3, 84), draw_scene("sketch", "train", 3, 336)
    assert large.image.size == (336, 336) and small.truth == large.truth


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (("comic", "train", 0), "cartoon, sketch, thermal, cctv"),
        (("cctv", "dev", 0), "pretrain, train, validation, test"),
        (("cctv", "train", -1), "must be 0 or more"),
    ],
)
def test_unknown_keys_are_refused_with_the_valid_ones(key, words):
    with pytest.raises(ValueError, match=words):
        draw_scene(*key)


def test_pocket_sources_are_recognised():
    assert is_pocket_source("cctv/test/000012")
    assert not any(is_pocket_source(s) for s in ("data/cctv/test/000012", "cctv/test/a.png", "x/test/000001", "a.png"))
