"""The scripts that rebuild the pocket policy: what they compute, and that they run from nothing and go on."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

import forks
from favor_lab.activities.world import (
    ACTIVITIES,
    NAMES,
    NEW_ACTIVITIES,
    NOBODY,
    NONE_OF_THESE,
    NOTHING,
    STATEMENTS,
    draw_scene,
)
from favor_lab.responses import split_response
from tiny import REBUILD, rebuild_module

pytestmark = pytest.mark.slow

for needed in ("checkpoint", "scenes", "tower", "naming", "questions", "language"):
    rebuild_module(needed)
language, tower, naming, questions = (sys.modules[name] for name in ("language", "tower", "naming", "questions"))


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
    for label in ("fishing", "reading"):
        for read in (False, True):
            right, neighbour = naming.LOOSE.of(label, read)
            names = Counter(naming.loose_activity(label, r, read=read) for _ in range(4000))
            assert abs(names[label] / 4000 - right - (1 - right - neighbour) / 16) < 0.03
            likeliest = label if right > neighbour else naming.NEIGHBOUR[label]
            assert names.most_common(1)[0][0] == likeliest
    assert naming.LOOSE.of("fishing")[0] > 0.5 > naming.LOOSE.of("reading")[0]
    assert all(naming.LOOSER.of(label)[0] < naming.LOOSE.of(label)[0] for label in ("fishing", "reading"))


@pytest.mark.parametrize("size", [2, 3, 8, 15, 16])
@pytest.mark.parametrize("label", ["reading", None])
def test_a_list_offers_what_can_be_answered(size, label):
    r, there = Random(size), 0
    for _ in range(200):
        invented = r.randint(0, size // 3) if size < 16 else 0
        offered = naming.offer(label, size, invented, r)
        entries = [name for name in offered.names if name != NONE_OF_THESE]
        assert len(entries) in (size, size - 1) and len(offered.names) >= 2  # two invented names may be the same
        assert all(name in NAMES[activity] for activity, name in offered.activities.items())
        assert naming.loose_entry(label, offered, r) in offered.names
        there += label in offered.activities
        if label not in offered.activities:
            assert offered.invented or NONE_OF_THESE in offered.names
    assert there == (0 if label is None else 200) or 0.8 < there / 200 < 1


def test_an_activity_that_is_not_listed_is_mostly_none_of_these():
    r, answers = Random(4), []
    while len(answers) < 400:
        offered = naming.offer(r.choice((None, "reading")), 6, 1, r)
        if "reading" not in offered.activities and NONE_OF_THESE in offered.entries:
            answers.append(naming.loose_entry("reading", offered, r))
    assert 0.8 < answers.count(NONE_OF_THESE) / 400 < 0.97


def seen(scene):
    return questions.Seen(scene.label, tuple(s for s in STATEMENTS if s in scene.truth.statements))


def valid_answers(request):
    """The answers that a question admits, as a regular expression."""
    for words, valid in {"Is this person": "yes|no", "Which fits better": "1|2", "Give the letter": "[A-G]"}.items():
        if words.lower() in request.lower():
            return valid
    listed = "|".join(request.split(": ")[-1].split("? ")[0].split(", "))
    is_open, several = "activity is this?" in request, "up to three" in request
    return ".+" if is_open else f"(?:{listed})(?:, (?:{listed}))*" if several else listed


def test_evidence_in_the_responses_is_true_and_answers_have_the_form_of_the_question():
    """In any form; and every list is answered from it, but for an image that shows nobody."""
    r = Random(1)
    for k in range(900):
        scene = draw_scene("sketch", "pretrain", k, 28) if k % 9 else draw_scene("cctv", "place", k, 28)
        form = questions.Form.draw(r, questions.SECOND if k % 2 else questions.FIRST)
        if scene.label is None and form.kind not in ("describe", "false statement", "list", "choice"):
            continue
        request, response = questions.conversation(form, seen(scene), r)
        reasoning, answer = split_response(response)
        if reasoning is not None:
            assert set(reasoning.split(", ")) <= set(scene.truth.statements)
        assert ("Reason inside <think>" in request) == (form.style == "think" and form.kind != "describe")
        if answer is None:
            assert form.kind in ("describe", "open", "list")
        elif NOBODY in scene.truth.statements and form.kind != "false statement":
            assert answer == NOTHING
        else:
            assert re.fullmatch(valid_answers(request), answer)


def test_statements_that_do_not_hold_and_better_answers_are_what_they_are_said_to_be():
    r, better = Random(2), []
    for k in range(0, 400, 2):
        scene = draw_scene("cartoon", "pretrain", k, 28)
        request, wrong = questions.ask_what_is_false(questions.Form("false statement", "answer"), seen(scene), r)
        assert wrong in request and wrong not in scene.truth.statements
        request, number = questions.ask_which_is_better(questions.Form("better", "answer"), seen(scene), r)
        first, second = request.split("1 ")[1].split("? ")[0].split("; 2 ")
        picked = (first, second)[int(number) - 1].split(", ")
        better.append(set(picked[:-1]) <= set(scene.truth.statements) and picked[-1] in NAMES[scene.label])
    assert 0.82 < np.mean(better) < 0.97


def test_lessons_have_no_mistakes_and_any_answer_in_them_is_as_likely_as_another():
    """Yes or no, a letter, the better of two: as often each, and right every time."""
    r, answers = Random(6), Counter()
    scenes = [scene for k in range(300) if (scene := draw_scene("sketch", "pretrain", k, 28)).label in ACTIVITIES]
    for part in ("yes or no", "better", "choice of 4"):
        for scene in scenes:
            form = questions.Form.draw(r, language.PARTS[part].mix)
            request, response = questions.conversation(form, seen(scene), r)
            answer = split_response(response)[1]
            answers[part, answer] += 1
            if part == "yes or no":
                right = request.split("Is this person ")[1].split("? Say")[0] in NAMES[scene.label]
            elif part == "better":
                parts = request.split("1 ")[1].split("? ")[0].split("; 2 ")[int(answer) - 1].split(", ")
                right = set(parts[:-1]) <= set(scene.truth.statements) and parts[-1] in NAMES[scene.label]
            else:
                offered = dict(entry.split(" ", 1) for entry in request.split(": ")[1].split("? ")[0].split(", "))
                right = offered[answer] in NAMES[scene.label] and len(offered) in (2, 3, 4)
            assert right == (answer != "no"), (request, answer)
    for part, options in {"yes or no": 2, "better": 2, "choice of 4": 4}.items():
        counts = [count for (name, _), count in answers.items() if name == part]
        assert len(counts) == options and min(counts) > (0.6 if options == 2 else 0.4) * max(counts)


def test_new_activities_are_never_named_in_pretraining():
    """Their scenes are only described, and are asked which statement does not hold."""
    held = sys.modules["scenes"].Scenes(*[np.zeros(0)] * 6)
    drawn = [draw_scene("cartoon", "pretrain", k, 28) for k in range(400)]
    held.labels = np.array([-1 if s.label is None else ACTIVITIES.index(s.label) for s in drawn])
    held.statements = np.array([[s in scene.truth.statements for s in STATEMENTS] for scene in drawn])
    for kind, rows in language.rows_by_kind(held, 0).items():
        shown = {s for row in rows for s in drawn[row].truth.statements}
        assert ("guitar in the hands" in shown) == (kind in ("describe", "false statement"))
    assert len(language.rows_by_kind(held, 100)["describe"]) == 300
    texts = " ".join(language.corpus(held, 600))
    assert not [label for label in NEW_ACTIVITIES if label in texts]


@pytest.mark.parametrize("kind", ["list", "text"])
def test_targets_are_the_response_and_its_end(tiny_checkpoint, kind):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)
    facts = sys.modules["scenes"].Scenes(*[np.zeros(0)] * 6)
    facts.labels = np.array([2, 5])
    facts.statements = np.zeros((2, len(STATEMENTS)), bool)
    facts.statements[:, 1:4] = True
    form = questions.Form(kind, "think", 3)
    ids, targets, weights = language.Batcher(tokenizer, 4)(facts, np.array([0, 1]), form, Random(3))
    for row, target, weight in zip(ids, targets, weights, strict=True):
        at = (target >= 0).nonzero().flatten()
        assert torch.equal(row[at[:-1] + 1], target[at[:-1]])  # each target is the next token
        text = tokenizer.decode(target[at])
        assert text.startswith("<") and text.endswith("<|im_end|>")
        image_tokens = (row == tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum()
        assert image_tokens == (4 if kind == "list" else 0)
        reasoning = tokenizer.decode(target[at][weight[at] == 0])
        assert text.startswith(reasoning) and text.removeprefix(reasoning).startswith("</think>")


def test_the_loss_is_that_of_the_model(tiny_model, tiny_checkpoint):
    """Embedding images and placing positions by hand changes nothing, with an image and without."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    pixels = torch.from_numpy(np.stack([np.asarray(draw_scene("cartoon", "train", k, 56).image) for k in range(2)]))
    for with_image in (True, False):
        ids = torch.tensor([[5, *[image] * 4, 7, 8, 9], [6, *[image] * 4, 9, 8, 7]])
        ids = ids if with_image else ids[:, 5:]
        targets = torch.full_like(ids, -100)
        targets[:, -3:-1] = ids[:, -2:]
        inputs = {"input_ids": ids, "labels": ids.where(targets.roll(1) >= 0, -100)}
        if with_image:
            frames = tower.patches_of(pixels).view(-1, 3, 1, 196).expand(-1, 3, 2, -1).reshape(2 * 16, -1)
            inputs |= {"pixel_values": frames, "image_grid_thw": torch.tensor([[1, 4, 4]] * 2)}
            inputs["mm_token_type_ids"] = (ids == image).int()
        with torch.no_grad():
            ours = language.language_loss(tiny_model, ids, targets, pixels, image)
            torch.testing.assert_close(ours, tiny_model(**inputs).loss, atol=1e-5, rtol=1e-5)
            half = torch.full(ids.shape, 0.5)  # weights count next to each other only
            torch.testing.assert_close(language.language_loss(tiny_model, ids, targets, pixels, image, half), ours)
            half[:, -3] = 0
            last = language.language_loss(tiny_model, ids, targets, pixels, image, half)
            only = targets.where(torch.arange(ids.shape[1]) == ids.shape[1] - 2, -100)
            torch.testing.assert_close(last, language.language_loss(tiny_model, ids, only, pixels, image))


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
    log = (tmp_path / "out" / "pretraining" / "language.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["part"], line["step"]) for line in lines] == [
        (part, step) for step in (1, 2) for part in language.PARTS
    ]
    assert (tmp_path / "out" / "pretraining" / "curves.png").stat().st_size > 5000
    from favor_lab import load_policy

    assert load_policy(tmp_path / "out", device="cpu").base.config.vision_config.embed_dim == 128


def test_a_size_that_is_no_whole_number_of_tokens_is_refused():
    refused = rebuild("--size", "100")
    assert refused.status == 2 and "multiple of 28" in refused.errors


def test_a_lesson_ends_when_it_is_learnt(tiny_checkpoint, tmp_path):
    """After the first 25 steps whose mean loss is low enough, with the tower as it was; a second call does nothing."""
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(tiny_checkpoint, local_files_only=True)
    tower_before = {name: weight.clone() for name, weight in model.model.visual.named_parameters()}
    head_before = model.lm_head.weight.detach().clone()
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)
    scenes = sys.modules["scenes"].draw(tmp_path / "scenes", 128, 56)
    easy = replace(language.lesson("yes or no", enough=1e9), batch=2)
    for _ in range(2):
        language.train_language(model, tokenizer, scenes, easy, tmp_path, held=8, part="yes or no")
        lines = [json.loads(line) for line in (tmp_path / "language.jsonl").read_text().splitlines()]
        assert [(line["part"], line["step"]) for line in lines] == [("yes or no", 25)]
    assert not torch.equal(model.lm_head.weight, head_before)
    assert all(torch.equal(weight, tower_before[name]) for name, weight in model.model.visual.named_parameters())
