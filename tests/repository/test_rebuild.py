"""The scripts that rebuild the pocket policy: what they compute, and that they run from nothing and go on."""

from __future__ import annotations

import json
import sys
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

import forks
from favor_lab.activities.world import STATEMENTS, draw_scene
from favor_lab.vlm.prompts import build_prompt
from tiny import REBUILD, rebuild_module

pytestmark = pytest.mark.slow

for needed in ("checkpoint", "scenes", "tower", "language"):
    rebuild_module(needed)
language, tower = sys.modules["language"], sys.modules["tower"]


@pytest.fixture(scope="module")
def tiny_model(tiny_checkpoint):
    from transformers import Qwen2VLForConditionalGeneration

    return Qwen2VLForConditionalGeneration.from_pretrained(tiny_checkpoint, local_files_only=True).eval()


def test_fast_tower_is_the_tower(tiny_model):
    """`see` batches the attention and folds the two frames: same tokens as transformers' own forward."""
    pixels = torch.from_numpy(np.stack([np.asarray(draw_scene("cartoon", "train", k, 84).image) for k in range(3)]))
    one_frame = tower.patches_of(pixels).view(-1, 3, 1, 14 * 14)
    grid = torch.tensor([[1, 6, 6]] * 3)
    with torch.no_grad():
        plain = tiny_model.model.visual(one_frame.expand(-1, 3, 2, -1).reshape(3 * 36, -1), grid).pooler_output
        fast = tower.see(tiny_model.model.visual, pixels)
    plain = torch.cat(plain) if isinstance(plain, tuple) else plain
    torch.testing.assert_close(fast.flatten(0, 1), plain, atol=1e-4, rtol=1e-4)


def test_patches_are_the_image_processors():
    from transformers import Qwen2VLImageProcessorPil

    image = draw_scene("cctv", "train", 2, 84).image
    processor = Qwen2VLImageProcessorPil(min_pixels=84 * 84, max_pixels=84 * 84)
    expected = processor([image], return_tensors="pt")["pixel_values"]
    patches = tower.patches_of(torch.tensor(np.array(image))[None]).view(36, 3, 1, 196).expand(-1, 3, 2, -1)
    torch.testing.assert_close(patches.reshape(36, -1), expected.to(torch.float32), atol=1e-5, rtol=0)


def test_names_are_as_loose_as_the_card_says():
    r = Random(0)
    for label, right in (("fishing", language.RIGHT_WHEN_KNOWN), ("reading", language.RIGHT_WHEN_CONFUSED)):
        names = Counter(language.loose_name(label, r) for _ in range(4000))
        random_share = 1 - right - (0.2 if label in language.WELL_NAMED else 0.48)
        assert abs(names[label] / 4000 - right - random_share / 16) < 0.03
        likeliest = label if label in language.WELL_NAMED else language.NEIGHBOUR[label]
        assert names.most_common(1)[0][0] == likeliest


def test_evidence_in_the_responses_is_true_and_free_scenes_get_no_name():
    r = Random(1)
    for k in range(60):
        scene = draw_scene("sketch", "pretrain", k, 28)
        statements = [s for s in STATEMENTS if s in scene.truth.statements]
        for kind in language.KINDS:
            request, response = language.conversation(kind, scene.label, statements, r)
            if "<think>" in response:
                stated = response.split("<think>")[1].split("</think>")[0].split(", ")
                assert set(stated) <= set(scene.truth.statements)
            if scene.label is None:
                assert request == build_prompt(None, "describe") and response.endswith("</think>")


def test_targets_are_the_response_and_its_end(tiny_checkpoint):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)
    scenes = sys.modules["scenes"]
    facts = scenes.Scenes(*[np.zeros(0)] * 6)
    facts.labels = np.array([2, 5])
    facts.statements = np.zeros((2, len(STATEMENTS)), bool)
    facts.statements[:, :3] = True
    ids, targets = language.Batcher(tokenizer, 4)(facts, np.array([0, 1]), "list", Random(3))
    for row, target in zip(ids, targets, strict=True):
        at = (target >= 0).nonzero().flatten()
        assert torch.equal(row[at[:-1] + 1], target[at[:-1]])  # each target is the next token
        text = tokenizer.decode(target[at])
        assert text.startswith("<") and text.endswith("<|im_end|>")
        assert (row == tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() == 4


def rebuild(*arguments: str) -> forks.Forked:
    """What `python data/pocket-qwen2-vl/rebuild arguments` does."""
    code = f"import runpy; runpy.run_path({str(REBUILD)!r}, run_name='__main__')"
    return forks.run(forks.run_code, code, *arguments)


@pytest.mark.slow
def test_rebuild_from_nothing_and_going_on(tmp_path):
    """A very short run, then a longer one in the same folder: it goes on, and the result loads as a policy."""
    for steps in (1, 2):
        options = f"--scenes 512 --size 56 --tower-steps {steps} --language-steps {steps}".split()
        done = rebuild(*options, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
        assert done.status == 0, done.errors
    log = [json.loads(line) for line in (tmp_path / "out" / "pretraining" / "language.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2]
    assert (tmp_path / "out" / "pretraining" / "curves.png").stat().st_size > 5000
    from favor_lab import load_policy

    assert load_policy(tmp_path / "out", device="cpu").base.config.vision_config.embed_dim == 128


def test_a_size_that_is_no_whole_number_of_tokens_is_refused():
    refused = rebuild("--size", "100")
    assert refused.status == 2 and "multiple of 28" in refused.errors
