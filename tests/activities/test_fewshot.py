"""Few-shot selections: balanced, disjoint, seeded, and refused completely when an image is bad."""

import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from favor_lab.activities import (
    ActivityData,
    Record,
    base_to_new,
    cross_dataset,
    few_shot,
    label_overlap,
    load_activities,
)
from favor_lab.activities.fewshot import restrict
from pictures import picture

LABELS = ["phoning", "reading", "riding a bike"]


def dots(name="dots", labels=LABELS, colour=0, **pools) -> ActivityData:
    """Records without files: `pools`: images per label in each split; `colour`: the first one."""
    splits = {
        split: [Record(label, f"{split}/{label}/{i}") for label in labels for i in range(pool)]
        for split, pool in pools.items()
    }
    everything = [record.source for records in splits.values() for record in records]
    folders = {label: label.replace(" ", "_") for label in labels}

    def draw(source: str) -> Image.Image:
        return Image.frombytes("RGB", (1, 1), (colour + everything.index(source)).to_bytes(3, "big"))

    return ActivityData(name, labels, splits, draw, folders)


def sources(examples) -> list[str]:
    return [example.source for example in examples]


POOLS = [{"train": 30}, {"train": 20, "test": 12}, {"train": 20, "validation": 6, "test": 12}]


@pytest.mark.parametrize("pools", POOLS)
def test_parts_are_balanced_disjoint_and_take_the_labels_in_turn(pools):
    shots = few_shot(dots(**pools), shots=4, validation=3, test=5)
    for part, count in ((shots.train, 4), (shots.validation, 3), (shots.test, 5)):
        assert [example.label for example in part] == LABELS * count
        assert all(example.label == example.source.split("/")[1] for example in part)
    everything = sources(shots.train + shots.validation + shots.test)
    assert len(set(everything)) == len(everything) == 3 * (4 + 3 + 5)
    for split, part in (("validation", shots.validation), ("test", shots.test)):
        assert {source.split("/")[0] for source in sources(part)} == {split if split in pools else "train"}
    assert shots.labels == LABELS


@pytest.mark.parametrize("pools", POOLS)
def test_the_same_seed_gives_the_same_images_and_another_seed_others(pools):
    first, again, other = (few_shot(dots(**pools), shots=4, seed=seed) for seed in (1, 1, 2))
    assert sources(first.train) == sources(again.train)
    assert set(sources(first.train)) != set(sources(other.train))


@pytest.mark.parametrize("pools", POOLS)
def test_validation_and_test_depend_neither_on_shots_nor_on_the_seed(pools):
    first = few_shot(dots(**pools), shots=1, seed=0)
    for shots, seed in ((8, 0), (1, 1), (5, 7)):
        other = few_shot(dots(**pools), shots=shots, seed=seed)
        assert sources(other.test) == sources(first.test)
        assert sources(other.validation) == sources(first.validation)


@pytest.mark.parametrize("pools", POOLS)
def test_more_shots_contain_the_fewer(pools):
    few, more = (few_shot(dots(**pools), shots=shots, seed=3) for shots in (2, 6))
    assert sources(more.train)[: len(few.train)] == sources(few.train)


def test_a_selection_is_not_simply_the_first_images():
    chosen = few_shot(dots(train=100, test=100), shots=4)
    assert sources(chosen.train)[::3] != [f"train/phoning/{i}" for i in range(4)]
    assert sources(chosen.test)[::3] != [f"test/phoning/{i}" for i in range(8)]
    numbers = [source.split("/")[2] for source in sources(chosen.train)]
    assert numbers[::3] != numbers[1::3]  # each label has its own draw


def test_the_global_generator_takes_no_part():
    random.seed(5)
    state = random.getstate()
    few_shot(dots(train=30), shots=2)
    assert random.getstate() == state


def test_exactly_enough_is_enough():
    shots = few_shot(dots(train=14), shots=4, validation=2, test=8)
    assert len(set(sources(shots.train + shots.validation + shots.test))) == 3 * 14
    assert few_shot(dots(train=4), shots=4, validation=0, test=0).test == []


def test_too_few_images_lists_label_count_and_need():
    needs = r"'phoning' has 13 in train, needs 14 \(8 test \+ 2 validation \+ 4 train\)"
    with pytest.raises(ValueError, match=needs) as fault:
        few_shot(dots(train=13), shots=4)
    assert all(label in str(fault.value) for label in LABELS)
    with pytest.raises(ValueError, match=r"'reading' has 5 in test, needs 6 \(6 test\)"):
        few_shot(dots(train=20, test=5), shots=1, test=6)


def test_a_label_that_one_split_lacks_is_named(tmp_path):
    for name in ("train/phoning", "train/reading", "test/phoning"):
        picture(tmp_path / name / "a.png", len(name))
    with pytest.raises(ValueError, match=r"'reading' has 0 in test, needs 1 \(1 test\)") as fault:
        few_shot(load_activities("folder", tmp_path), shots=1, validation=0, test=1)
    assert "'phoning'" not in str(fault.value) and str(tmp_path) in str(fault.value)


@pytest.mark.parametrize("name, count", [("shots", 0), ("shots", -1), ("validation", -1), ("test", -2)])
def test_counts_that_make_no_sense_are_refused(name, count):
    with pytest.raises(ValueError, match=f"{name} counts images per label.*not {count}"):
        few_shot(dots(train=30), **{"shots": 1, name: count})


def test_all_unusable_images_are_reported_at_once(tmp_path):
    for seed in range(8):
        picture(tmp_path / ("phoning", "reading")[seed // 4] / f"{seed % 4}.png", seed)
    empty, half = [tmp_path / f"phoning/{i}.png" for i in range(4)], tmp_path / "reading/2.png"
    for path in empty:
        path.write_bytes(b"")
    half.write_bytes(half.read_bytes()[:60])
    with pytest.raises(ValueError, match="5 faults in 8 images") as fault:
        few_shot(load_activities("folder", tmp_path), shots=2, validation=1, test=1)
    assert all(f"{path}: " in str(fault.value) for path in (*empty, half))


def test_a_bad_image_that_is_not_selected_does_no_harm(tmp_path):
    paths = [str(picture(tmp_path / "phoning" / f"{i}.png", seed=i)) for i in range(6)]
    before, after = [], []
    for used in (before, after):
        chosen = few_shot(load_activities("folder", tmp_path), shots=1, validation=0, test=1)
        used += sources(chosen.train + chosen.test)
        for path in set(paths) - set(used):
            Path(path).write_bytes(b"")
    assert before == after


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_the_same_picture_in_train_and_test_is_refused_with_both_names(tmp_path, suffix):
    one, two = picture(tmp_path / "train/reading/one.png"), tmp_path / f"test/reading/two.{suffix}"
    two.parent.mkdir(parents=True)
    if suffix == "png":
        shutil.copy(one, two)
    else:  # another file format, the same pixels
        Image.open(one).save(two)
    with pytest.raises(ValueError, match="the same image twice") as fault:
        few_shot(load_activities("folder", tmp_path), shots=1, validation=0, test=1)
    assert f"{one} (train, 'reading')" in str(fault.value) and f"{two} (test, 'reading')" in str(fault.value)


def test_a_selection_of_a_drawn_set():
    data = load_activities("cctv")
    shots = few_shot(data, shots=1, validation=1, test=2)
    assert [len(part) for part in (shots.train, shots.validation, shots.test)] == [16, 16, 32]
    assert {source.split("/")[1] for source in sources(shots.test)} == {"test"}
    assert [example.label for example in shots.train] == data.labels


# ------------------------------------------------------------------------------------------- base to new, cross-dataset

FIVE = ["reading", "phoning", "riding a bike", "fishing", "running"]


def test_the_first_half_of_the_labels_is_learnt_and_the_second_is_new():
    data = dots(labels=FIVE, train=20, test=9)
    splits = base_to_new(data, shots=3, seed=1, validation=2, test=4)
    assert splits.source.labels == FIVE[:3] and splits.target.labels == FIVE[3:]  # the odd one is base
    assert [e.label for e in splits.source.train] == FIVE[:3] * 3
    assert [e.label for e in splits.source.validation] == FIVE[:3] * 2 and [
        e.label for e in splits.target.test
    ] == FIVE[3:] * 4
    assert splits.target.train == splits.target.validation == [] and splits.overlap == {}


def test_halves_can_be_drawn_and_keep_the_order_of_the_set():
    data = dots(labels=FIVE, train=20)
    halves = [base_to_new(data, shots=1, label_seed=seed).source.labels for seed in range(8)]
    assert base_to_new(data, shots=1, label_seed=3).source.labels == halves[3]
    assert len(set(map(tuple, halves))) > 3 and all(half == sorted(half, key=FIVE.index) for half in halves)
    other = base_to_new(data, shots=1, label_seed=3).target.labels
    assert sorted(halves[3] + other) == sorted(FIVE) and len(halves[3]) == 3


@pytest.mark.parametrize("pools", POOLS)
def test_the_images_are_those_that_few_shot_has_for_the_labels(pools):
    data = dots(labels=FIVE, **pools)
    whole, splits = few_shot(data, 3, 2, 1, 4), base_to_new(data, 3, 2, 1, 4)
    for part in ("train", "validation", "test"):
        both = getattr(splits.source, part) + (splits.target.test if part == "test" else [])
        expected = [e for e in getattr(whole, part) if part == "test" or e.label in FIVE[:3]]
        assert sorted(sources(both)) == sorted(sources(expected))
    unseen = base_to_new(data, 3, 7, 1, 4).target
    assert sources(unseen.test) == sources(splits.target.test)


def test_new_labels_need_test_images_alone():
    data = dots(labels=FIVE, train=20, test=4)
    for label in FIVE[3:]:
        data.splits["train"] = [record for record in data.splits["train"] if record.label != label]
    assert len(base_to_new(data, shots=3, test=4).target.test) == 8
    with pytest.raises(ValueError, match=r"'fishing' has 4 in test, needs 5 \(5 test\)"):
        restricted = restrict(data, FIVE[3:])
        few_shot(restricted, 1, 0, 0, 5)


def test_one_label_has_no_halves():
    with pytest.raises(ValueError, match="dots has 1 label: two halves need"):
        base_to_new(dots(labels=["reading"], train=9), shots=1)


def test_a_part_of_a_set_keeps_its_order_names_and_records():
    part = restrict(dots(labels=FIVE, train=2, test=1), ["running", "riding a bike"])
    assert part.labels == ["riding a bike", "running"]
    assert part.folders == {"riding a bike": "riding_a_bike", "running": "running"}
    assert {split: [r.label for r in records] for split, records in part.splits.items()} == {
        "train": ["riding a bike"] * 2 + ["running"] * 2,
        "test": ["riding a bike", "running"],
    }
    with pytest.raises(ValueError, match="dots has no label 'skating'"):
        restrict(part, ["running", "skating"])


def test_cross_dataset_trains_on_one_set_and_tests_on_the_other_with_its_own_labels():
    one = dots("one", labels=FIVE, train=20, test=9)
    two = dots("two", labels=["Riding_a-bike", "bike", "diving"], colour=1000, train=5, test=6)
    splits = cross_dataset(one, two, shots=2, seed=3, validation=1, test=4)
    assert sources(splits.source.train) == sources(few_shot(one, 2, 3, 1, 4).train)
    assert splits.target.labels == two.labels and [e.label for e in splits.target.test] == two.labels * 4
    assert {e.source.split("/")[0] for e in splits.target.test} == {"test"}
    assert splits.target.train == splits.target.validation == []
    assert splits.overlap == {"riding a bike": "Riding_a-bike"}


def test_labels_overlap_whole_or_not_at_all():
    assert label_overlap(["diving", "push ups"], ["cliff diving", "handstand push ups"]) == {}
    assert label_overlap(["Playing_Guitar"], ["playing guitar", "guitar"]) == {"Playing_Guitar": "playing guitar"}


def test_an_image_that_is_learnt_from_and_tested_on_is_refused_with_both_names():
    one, alone = dots("one", train=6), {"labels": ["reading", "running"], "train": 0, "test": 12}
    assert len(cross_dataset(one, dots("two", colour=1000, **alone), 2, validation=2, test=2).target.test) == 4
    with pytest.raises(ValueError, match="one and two: 2 faults .images that are learnt from and tested on") as fault:
        cross_dataset(one, dots("two", **alone), 2, validation=2, test=2)
    assert "train/reading/3 ('reading') is test/reading/9 ('reading', test)" in str(fault.value)
