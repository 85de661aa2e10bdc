import json
from dataclasses import replace

import pytest

from favor_lab.grpo.support.checkpoints import TrainingState, save_checkpoint
from favor_lab.grpo.support.settings import TrainSettings
from favor_lab.study.leakage import (
    FILE,
    earlier_images,
    images_of,
    save_training_images,
    share_training_images,
    training_images,
    without_training_images,
)
from favor_lab.study.run_folder import RunFolder


def test_images_are_known_by_their_pixels(tiny_examples, tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    assert training_images(folder.path) is None
    save_training_images(folder, tiny_examples[:2], earlier={"an earlier one"})
    known = training_images(folder.path)
    assert known is not None and len(known) == 3 and known == training_images(folder.adapter)
    renamed = [replace(example, source=f"copy of {example.source}", label="fishing") for example in tiny_examples]
    assert without_training_images(renamed, known) == renamed[2:]
    changed = renamed[0].image.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    assert without_training_images([replace(renamed[0], image=changed)], known), "one pixel differs"
    assert without_training_images(renamed, set()) == renamed


def test_an_older_run_is_known_by_its_checkpoint(tiny_policy, tiny_examples, tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    commas = [replace(example, label=f"sitting, {example.label}") for example in tiny_examples[:3]]
    state = TrainingState.start(tiny_policy, TrainSettings()).go_on(tiny_policy, commas, TrainSettings())
    path = save_checkpoint(folder.checkpoint, state)
    known = training_images(folder.path)
    assert known is not None and without_training_images(tiny_examples, known) == tiny_examples[3:]
    path.write_bytes(path.read_bytes()[:-1])
    assert training_images(folder.path) is None, "damaged"


def test_what_a_run_started_from_is_noted_once(tiny_examples, tmp_path):
    first, second = (RunFolder.create(tmp_path / name) for name in ("first", "second"))
    assert earlier_images(second) is None and earlier_images(second, first.adapter) is None
    save_training_images(first, tiny_examples[:1])
    known = earlier_images(second, first.adapter)
    assert known == training_images(first.path) and known is not None
    save_training_images(second, tiny_examples[1:2], known)
    (first.path / FILE).unlink()
    assert earlier_images(second, first.adapter) == known
    both = training_images(second.path)
    assert both is not None and without_training_images(tiny_examples, both) == tiny_examples[2:]


@pytest.mark.parametrize("content", ["{", "{}", "[]", json.dumps({"fingerprints": [], "earlier": []})])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=f"{FILE} is damaged and cannot be read"):
        training_images(tmp_path)


def test_what_is_shared_knows_images_without_their_names_and_those_of_the_start(tiny_examples, tmp_path):
    run, shared = RunFolder.create(tmp_path / "run"), tmp_path / "shared"
    shared.mkdir()
    share_training_images(run, shared)
    assert not list(shared.iterdir()) and training_images(shared) is None
    save_training_images(run, tiny_examples[:2], earlier={tiny_examples[2].content.hex()})
    share_training_images(run, shared)
    assert training_images(shared) == training_images(run.path)
    known = images_of([shared, tmp_path / "nowhere"])
    assert known is not None and without_training_images(tiny_examples, known) == tiny_examples[3:]
    assert images_of([]) is None and images_of([tmp_path / "nowhere"]) is None
    assert not any(example.source in (shared / FILE).read_text() for example in tiny_examples)


def test_an_image_is_known_in_other_modes_that_look_the_same(tiny_examples, tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    save_training_images(folder, tiny_examples[:1])
    known = training_images(folder.path) or set()
    for mode in ("RGBA", "RGB"):
        assert not without_training_images(
            [replace(tiny_examples[0], image=tiny_examples[0].image.convert(mode))], known
        )
