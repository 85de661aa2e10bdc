import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from favor_lab.activities.covering import covered, occlusion_windows, places_beside, snap, with_room
from favor_lab.activities.fewshot import Example
from favor_lab.activities.world.catalogue import ACTIVITIES, PLANS, SETS
from favor_lab.activities.world.scenes import draw_scene, scene_from_source
from favor_lab.responses import judge_reasoning, judge_statements, part_masks, reasoning_statements, response_spans
from favor_lab.show.explanations import plot_explanation
from favor_lab.study import occlusion
from favor_lab.study.comparison import bootstrap_interval
from favor_lab.study.evaluation import generate_greedy
from favor_lab.study.evidence import evidence_effect, evidence_region, image_reliance
from favor_lab.study.explanations import explain
from favor_lab.study.occlusion import OcclusionMap, cover_colour, occlude, respond, score_covered
from favor_lab.study.reasoning import Reading, expected_statements, read_reasoning
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts
from pictures import png, texts_of
from tiny import LABELS

pytestmark = pytest.mark.slow

SPINE = Path(__file__).parents[2] / "data" / "results" / "spine"
RESPONSE = "<think>feet on pedals, hands forward</think><answer>riding a bike</answer>"


@pytest.fixture(scope="module")
def pocket():
    return load_policy("pocket", device="cpu")


def scene_examples(count, name="cartoon", start=0):
    scenes = [draw_scene(name, "test", i) for i in range(start, start + count)]
    return [Example(scene.image, scene.label, scene.source) for scene in scenes]


def photo(width=112, height=84, source="photos/1.jpg", label="riding a bike"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Example(Image.fromarray(pixels), label, source)


def looking_at(places):
    """A scorer in which one pixel matters to a part: "answer" and "reasoning" lose 5 and 3 nats when it is not black.

    `places` maps a part to a pixel (x, y). Every token starts at -1 nat, and the loss is on the part's first token.
    """

    def score(policy, prompts, rollout):
        logps = -rollout.mask.float()
        for part, mask in part_masks(policy, rollout).items():
            for n in range(len(rollout)):
                image = prompts.images[int(rollout.groups[n])]
                if bool(mask[n].any()) and part in places and image.getpixel(places[part]) != (0, 0, 0):
                    logps[n, int(mask[n].nonzero()[0])] -= {"answer": 5.0, "reasoning": 3.0}[part]
        return logps

    return score


# ----------------------------------------------------------------------------------------------- is the reasoning true?


def test_verdicts_are_those_that_the_evaluation_counts():
    answers = json.loads((SPINE / "cctv-0.json").read_text())["after"]["answers"]
    seen = set()
    for answer in answers[:60]:
        judged = judge_reasoning(answer["text"], answer["source"])
        counts = len(judged), sum(statement.verdict == "true" for statement in judged)
        assert counts == (answer["statements"], answer["true_statements"])
        assert counts == judge_statements(answer["text"], answer["source"])
        seen |= {statement.verdict for statement in judged}
    assert {"true", "false"} <= seen


def test_verdicts_tell_a_false_statement_from_no_statement_and_from_an_unknown_truth():
    scene = draw_scene("sketch", "test", 8)  # reading
    true = scene.truth.statements[1]
    text = f"<think>{true.upper()}. feet on pedals; he is happy,\n{true}</think><answer>reading</answer>"
    assert [statement.verdict for statement in judge_reasoning(text, scene.source)] == [
        "true", "false", "not a statement",
    ]  # fmt: skip
    assert {statement.verdict for statement in judge_reasoning(text, "photos/1.jpg")} == {"unknown"}
    assert judge_reasoning("<answer>reading</answer>", scene.source) == []


def test_one_parser_keeps_the_order_and_what_an_open_tag_holds():
    assert reasoning_statements("<think>B. a, b;\n c") == ["b", "a", "c"]
    assert reasoning_statements("a. b") == [] == reasoning_statements("<think> . </think>")


# ------------------------------------------------------------------------- what does the reasoning, by itself, lead to?


@pytest.mark.slow
def test_the_truth_of_every_scene_fits_its_own_activity():
    """Whatever a scene is drawn with (the thing, the other hand, clutter), the rule admits its label."""
    for name in SETS:
        for i in range(160):
            scene = draw_scene(name, "validation", i, size=28)
            reading = read_reasoning(f"<think>{', '.join(scene.truth.statements)}")
            assert scene.label in reading.compatible, scene.source


def test_each_activity_can_be_told_from_the_others():
    """Its full evidence leads to it alone."""
    for label, plan in PLANS.items():
        scene = next(s for s in (draw_scene("cartoon", "train", i, size=28) for i in range(64)) if s.label == label)
        assert read_reasoning(f"<think>{', '.join(scene.truth.statements)}").best == (label,)
        assert len(expected_statements()[label]) >= 2 + (plan.use is not None) - (label == "climbing")


def test_the_rule_counts_what_speaks_for_each_activity():
    two = read_reasoning("<think>sitting, hand at the ear, cup at the mouth, tree nearby</think>")
    assert (two.telling, two.best) == (("sitting", "hand at the ear", "cup at the mouth"), ("drinking", "phoning"))
    assert two.compatible == ()
    only_ear = read_reasoning("<think>sitting, hand at the ear</think>")
    assert only_ear.best == only_ear.compatible == ("phoning",)
    assert read_reasoning("<think>sitting, hand at the ear</think>", ["reading", "running"]).best == ("reading",)


def test_the_rule_says_nothing_where_nothing_tells():
    for text in ("", "<answer>phoning</answer>", "<think>tree nearby, phone in a hand, a lovely day</think>"):
        assert read_reasoning(text) == Reading((), (), ())
        assert read_reasoning(text).agrees("phoning") is None


def test_an_answer_agrees_in_any_spelling_and_disagrees_otherwise():
    reading = read_reasoning("<think>feet on pedals, bike under the person</think>")
    assert reading.agrees("Riding_A-Bike.") is True
    assert reading.agrees("running") is False and reading.agrees("flying") is False and reading.agrees(None) is None


def test_the_rule_refuses_labels_that_it_does_not_know():
    with pytest.raises(ValueError, match="juggling"):
        read_reasoning("<think>sitting</think>", ["reading", "juggling"])
    with pytest.raises(ValueError, match="activities only"):
        read_reasoning("<think>sitting</think>", [])


# ----------------------------------------------------------------------------------------- which tokens say which part?


def test_the_first_letters_of_an_answer_count_where_they_share_a_token_with_the_tag(pocket, tiny_examples):
    prompts, rollout = respond(pocket, tiny_examples[:1], LABELS, responses=[RESPONSE])
    masks = part_masks(pocket, rollout)
    tokens = [pocket.tokenizer.decode([token]) for token in rollout.completion_ids[0]]
    tokens_of = {part: [t for t, keep in zip(tokens, mask[0], strict=True) if keep] for part, mask in masks.items()}
    assert tokens_of["answer"][0].startswith(">r") and "".join(tokens_of["answer"]) == ">riding a bike</answer"
    assert tokens_of["reasoning"][0].endswith("feet") and tokens_of["reasoning"][-2:] == ["</", "think"]
    assert not bool((masks["answer"] & masks["reasoning"]).any())


def test_responses_are_a_list_and_so_are_labels(pocket, tiny_examples):
    with pytest.raises(ValueError, match="responses must be a list"):
        respond(pocket, tiny_examples[:2], LABELS, responses="ab")
    with pytest.raises(ValueError, match="labels must be a list"):
        read_reasoning("<think>sitting</think>", "reading")


def test_a_special_token_in_a_response_is_part_of_no_answer(pocket, tiny_examples):
    text = RESPONSE.replace("<answer>", "<answer><|im_start|>")
    _, rollout = respond(pocket, tiny_examples[:1], LABELS, responses=[text])
    assert rollout.texts == [text] and set(part_masks(pocket, rollout)) == {"reasoning"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (RESPONSE, {"reasoning", "answer"}),
        ("<answer>reading</answer>", {"answer"}),
        ("<think>sitting</think>reading", {"reasoning"}),
        ("<think>sitting", {"reasoning"}),
        ("<think> </think><answer>reading</answer>", {"answer"}),
        ("<answer>reading</answer><answer>reading</answer>", set()),
        ("reading", set()),
        ("", set()),
    ],
)
def test_parts_are_there_where_the_rewards_would_find_them(text, parts):
    assert set(response_spans(text)) == parts


def test_reasoning_may_stand_behind_the_answer(tiny_policy, tiny_examples):
    """In the style "answer-first": parts, statements and the explanation; in another style this is no answer."""
    text = "<answer>reading</answer><think>sitting, open book in the hands</think>"
    spans = response_spans(text, "answer-first")
    assert text[slice(*spans["answer"])] == "reading</answer"
    assert text[slice(*spans["reasoning"])] == "sitting, open book in the hands</think"
    assert set(response_spans(text)) == {"reasoning"}
    assert reasoning_statements(text) == ["sitting", "open book in the hands"]
    first, other = (explain(tiny_policy, tiny_examples[1], LABELS, s, response=text) for s in ("answer-first", "think"))
    assert (first.answer, first.correct, first.well_formed) == ("reading", True, True)
    assert (other.answer, other.correct, other.well_formed) == (None, False, False)
    assert set(first.logps) == {"reasoning", "answer"} and set(other.logps) == {"reasoning"}


def test_the_probability_of_an_answer_is_that_of_plain_rows(tiny_policy, tiny_examples):
    """transformers' own forward pass over prompt and response, and the answer's tokens counted by hand."""
    example = tiny_examples[1]
    explanation = explain(tiny_policy, example, LABELS, response=RESPONSE)
    prompt = encode_prompts(tiny_policy, [example], LABELS)
    response_ids = tiny_policy.tokenizer(RESPONSE)["input_ids"]
    before = len(tiny_policy.tokenizer("<think>feet on pedals, hands forward</think><answer")["input_ids"])
    last = len(tiny_policy.tokenizer(RESPONSE.removesuffix(">"))["input_ids"])
    assert tiny_policy.tokenizer.decode(response_ids[before:last]).removeprefix(">") == "riding a bike</answer"
    ids = torch.cat([prompt.input_ids, torch.tensor([response_ids])], dim=1)
    pixels = tiny_policy.processor.image_processor(images=prompt.images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = tiny_policy.model(
            input_ids=ids, pixel_values=pixels, image_grid_thw=prompt.image_grid_thw,
            mm_token_type_ids=(ids == tiny_policy.processor.image_token_id).int(),
        ).logits[0]  # fmt: skip
    logits[:, tiny_policy.forbidden_token_ids] = -torch.inf
    length = prompt.input_ids.shape[1]
    logps = logits.log_softmax(-1)[length - 1 : -1].gather(1, torch.tensor(response_ids)[:, None])[:, 0]
    assert explanation.logps["answer"] == pytest.approx(logps[before:last].sum().item(), abs=1e-4)
    assert explanation.answer_probability == pytest.approx(math.exp(explanation.logps["answer"]))


# ----------------------------------------------------------------------------------------------- covering image patches


@pytest.mark.parametrize("grid", [(1, 7), (5, 5), (3, 4), (16, 16), (9, 30)])
@pytest.mark.parametrize("options", [{}, {"window": 1}, {"window": (1, 2), "stride": 1}])
def test_windows_have_one_size_and_cover_every_token(grid, options):
    windows = occlusion_windows(grid, **options)
    times = np.zeros(grid, dtype=int)
    for left, top, right, bottom in windows:
        assert 0 <= left < right <= grid[1] and 0 <= top < bottom <= grid[0]
        times[top:bottom, left:right] += 1
    assert times.min() >= 1 and len(set(windows)) == len(windows)
    assert len({(right - left, bottom - top) for left, top, right, bottom in windows}) == 1


def test_the_default_windows_stay_affordable():
    assert max(len(occlusion_windows((n, n))) for n in range(1, 65)) <= 49
    assert occlusion_windows((1, 1)) == [(0, 0, 1, 1)] and len(occlusion_windows((5, 5))) == 16
    assert occlusion_windows((16, 16))[1] == (2, 0, 6, 4)


@pytest.mark.parametrize(
    ("window", "stride", "words"),
    [(6, None, "6 x 6 .* 5 x 5"), ((1, 6), None, "1 x 6"), (0, None, "0 x 0"), (2, 3, "stride is 3"), (2, 0, "stride")],
)
def test_windows_that_make_no_sense(window, stride, words):
    with pytest.raises(ValueError, match=words):
        occlusion_windows((5, 5), window, stride)


def test_the_colour_of_a_patch(tiny_policy):
    image = Image.new("RGB", (2, 2), (0, 0, 0))
    image.putpixel((0, 0), (200, 100, 40))
    assert cover_colour(tiny_policy, image, "mean") == (50, 25, 10)
    grey = cover_colour(tiny_policy, image, "grey")
    inputs = tiny_policy.processor.image_processor(images=Image.new("RGB", (56, 56), grey), return_tensors="pt")
    assert inputs["pixel_values"].abs().max() < 0.01, "grey is what normalisation makes zero"
    assert cover_colour(tiny_policy, image, (1, 2, 3)) == (1, 2, 3)
    for fill in ("blur", (1, 2)):
        with pytest.raises(ValueError, match="mean, grey"):
            cover_colour(tiny_policy, image, fill)


def test_covering_leaves_the_original_and_the_rest_alone():
    image = Image.new("RGB", (4, 4), "white")
    after = np.asarray(covered(image, (1, 2, 3, 4), (0, 0, 0)))
    assert (after[2:4, 1:3] == 0).all() and after.sum() == 255 * 3 * (16 - 4)
    assert np.asarray(image).min() == 255


def test_an_uncovered_view_scores_as_the_prompt_itself_whatever_its_size(tiny_policy, tiny_examples):
    """Sizes that the processor must change, and others: the view is the picture that the tower saw."""
    examples = [*tiny_examples, photo(500, 220, "photos/2.jpg"), photo(31, 90, "photos/3.jpg")]
    prompts, rollout = respond(tiny_policy, examples, LABELS, max_new_tokens=6)
    again = score_covered(tiny_policy, prompts, rollout, [(n, None) for n in range(len(examples))], batch_size=4)
    with torch.no_grad():
        torch.testing.assert_close(again, occlusion.score_completions(tiny_policy, prompts, rollout))
    one = score_covered(tiny_policy, prompts, rollout, [(3, (0, 0, 28, 28)), (0, None)], batch_size=1)
    two = score_covered(tiny_policy, prompts, rollout, [(0, None), (3, (0, 0, 28, 28))], batch_size=2)
    torch.testing.assert_close(one, two.flip(0))
    assert not torch.allclose(one[0], again[3]), "a covered view is another"


def test_own_responses_are_the_greedy_ones(tiny_policy, tiny_examples):
    prompts, rollout = respond(tiny_policy, tiny_examples, LABELS, max_new_tokens=6)
    assert rollout.texts == generate_greedy(tiny_policy, prompts, max_new_tokens=6)
    with pytest.raises(ValueError, match="2 responses for 4 examples"):
        respond(tiny_policy, tiny_examples, LABELS, responses=["a", "b"])


def test_covering_with_the_colour_that_is_there_changes_nothing(tiny_policy):
    flat = Example(Image.new("RGB", (112, 84), (90, 120, 40)), "reading", "flat.png")
    prompts, rollout = respond(tiny_policy, [flat], LABELS, responses=[RESPONSE])
    (drops,) = occlude(tiny_policy, prompts, rollout, [[(0, 0, 28, 28), (28, 28, 84, 84)]])
    assert np.abs(drops.drops["answer"]).max() < 1e-5 and drops.changed.tolist() == [0.0, 0.0]
    (other,) = occlude(tiny_policy, prompts, rollout, [[(0, 0, 28, 28)]], fill=(100, 120, 40))
    assert other.changed.tolist() == pytest.approx([10 / 3]) and abs(other.drops["answer"][0]) > 1e-4


def test_parts_of_ones_own_are_scored_in_their_place(pocket, monkeypatch):
    """One part per statement: only the tokens of the second are lower when its pixel is covered."""

    def statements(text):
        return {name: (text.index(name), text.index(name) + len(name)) for name in ("feet on pedals", "hands forward")}

    def score(policy, prompts, rollout):
        logps = -rollout.mask.float()
        for n in range(len(rollout)):
            if prompts.images[n].getpixel((100, 20)) != (0, 0, 0):
                logps[n][part_masks(policy, rollout, statements)["hands forward"][n]] = -3
        return logps

    monkeypatch.setattr(occlusion, "score_completions", score)
    black = Example(Image.new("RGB", (140, 140)), "reading", "black.png")
    prompts, rollout = respond(pocket, [black], LABELS, responses=[RESPONSE])
    boxes = [[(0, 0, 28, 28), (84, 0, 112, 28)]]
    (drops,) = occlude(pocket, prompts, rollout, boxes, fill=(9, 9, 9), spans=statements)
    assert drops.drops["feet on pedals"].tolist() == [0, 0]
    assert drops.drops["hands forward"][0] == 0 and drops.drops["hands forward"][1] >= 2 * 2


# ------------------------------------------------------------------------------------------------------ one explanation


def test_the_map_peaks_where_the_policy_looks(tiny_policy, monkeypatch):
    """4 x 3 tokens of 28 pixels; the answer looks at column 3 of row 0, the reasoning at column 1 of row 2."""
    monkeypatch.setattr(occlusion, "score_completions", looking_at({"answer": (90, 5), "reasoning": (50, 60)}))
    black = Example(Image.new("RGB", (112, 84)), "reading", "black.png")
    explanation = explain(tiny_policy, black, LABELS, window=1, fill=(9, 9, 9), response=RESPONSE)
    expected = np.zeros((3, 4))
    expected[0, 3] = 5
    assert explanation.occlusion.grid == (3, 4) and (explanation.occlusion.heat("answer") == expected).all()
    assert explanation.occlusion.peak("answer") == (3, 0, 4, 1)
    assert (
        explanation.occlusion.peak("reasoning") == (1, 2, 2, 3) and explanation.occlusion.drops["reasoning"].sum() == 3
    )
    assert explanation.blank_logps["answer"] == explanation.logps["answer"] - 5, "the whole image covered"


def test_overlapping_windows_share_their_drops(tiny_policy, monkeypatch):
    """With windows of 2 x 2, every window over the token has the whole drop, and the token the highest mean."""
    monkeypatch.setattr(occlusion, "score_completions", looking_at({"answer": (40, 40)}))
    black = Example(Image.new("RGB", (112, 84)), "reading", "black.png")
    explanation = explain(tiny_policy, black, LABELS, window=2, stride=1, fill=(9, 9, 9), response=RESPONSE)
    over = [left <= 1 < right and top <= 1 < bottom for left, top, right, bottom in explanation.occlusion.windows]
    assert explanation.occlusion.drops["answer"].tolist() == [5.0 * inside for inside in over] and sum(over) == 4
    heat = explanation.occlusion.heat("answer")
    assert heat[1, 1] == 5 == heat.max() and heat[0, 3] == 0 and heat[0, 0] == 5, "a corner has one window alone"
    assert heat[1, 2] == pytest.approx(5 / 2), "2 of its 4 windows"


def test_heat_is_the_mean_over_covering_windows():
    occlusion = OcclusionMap((1, 3), [(0, 0, 2, 1), (1, 0, 3, 1)], {"answer": np.array([1.0, 4.0])})
    assert occlusion.heat().tolist() == [[1.0, 2.5, 4.0]] and occlusion.peak() == (1, 0, 3, 1)


def test_an_explanation_of_a_scene_holds_everything(pocket):
    scene = draw_scene("cartoon", "test", 6)  # phoning
    text = "<think>standing, hand at the ear, cup at the mouth</think><answer>Phoning</answer>"
    explanation = explain(pocket, Example(scene.image, scene.label, scene.source), list(ACTIVITIES), response=text)
    assert (explanation.answer, explanation.correct, explanation.well_formed, explanation.text) == (
        "Phoning",
        True,
        True,
        text,
    )
    assert [s.verdict for s in explanation.statements] == [s.verdict for s in judge_reasoning(text, scene.source)]
    assert explanation.reading == read_reasoning(text) and explanation.consistent is True
    assert explanation.evidence == evidence_region(scene) and explanation.image.size == (140, 140)
    assert 0 < explanation.answer_probability <= 1 and explanation.blank_probability == math.exp(
        explanation.blank_logps["answer"]
    )
    assert explanation.occlusion.grid == (5, 5) and len(explanation.occlusion.windows) == 16
    for words in ("standing (", "answer     Phoning", "leads to drinking or phoning", "without the image"):
        assert words in explanation.summary()


def test_an_explanation_is_the_same_twice_and_in_any_batches(pocket):
    (example,) = scene_examples(1, "thermal", 4)
    one, two = (explain(pocket, example, list(ACTIVITIES), batch_size=size) for size in (32, 32))
    assert one.text == two.text and one.logps == two.logps
    assert (one.occlusion.drops["reasoning"] == two.occlusion.drops["reasoning"]).all()
    split = explain(pocket, example, list(ACTIVITIES), batch_size=5)
    np.testing.assert_allclose(split.occlusion.drops["reasoning"], one.occlusion.drops["reasoning"], atol=1e-4)


@pytest.mark.parametrize("text", ["<think>sitting</think>reading", "<think>sitting", "reading", ""])
def test_a_response_without_an_answer_is_explained_without_one(tiny_policy, text):
    explanation = explain(tiny_policy, photo(), LABELS, response=text)
    assert (
        explanation.answer
        is explanation.answer_probability
        is explanation.blank_probability
        is explanation.consistent
        is None
    )
    assert explanation.correct is False and not explanation.well_formed
    assert "answer" not in explanation.logps and "answer" not in explanation.occlusion.drops
    assert ("reasoning" in explanation.occlusion.drops) == ("<think>" in text)
    assert "answer     none" in explanation.summary()
    png(plot_explanation(explanation))


def test_a_photograph_without_a_label_is_explained_without_truth(tiny_policy):
    explanation = explain(tiny_policy, photo(90, 200, label=""), None, response=RESPONSE)
    assert explanation.correct is explanation.reading is explanation.consistent is explanation.evidence is None
    assert {statement.verdict for statement in explanation.statements} == {"unknown"}
    assert (
        explanation.occlusion.grid == (explanation.image.height // 28, explanation.image.width // 28)
        and explanation.image.height > 84
    )


def test_the_answer_only_style_has_no_reasoning_to_explain(tiny_policy):
    explanation = explain(tiny_policy, photo(), LABELS, style="answer", response="<answer>reading</answer>")
    assert explanation.well_formed and set(explanation.logps) == {"answer"} and explanation.statements == []
    png(plot_explanation(explanation))


def test_images_that_cannot_be_explained(tiny_policy):
    with pytest.raises(ValueError, match="9 x 9 does not fit in an image of 3 x 4"):
        explain(tiny_policy, photo(), LABELS, window=9, response=RESPONSE)
    with pytest.raises(ValueError, match=r"long\.jpg is too long and narrow"):
        explain(tiny_policy, photo(2800, 28, "long.jpg"), LABELS, response=RESPONSE)
    with pytest.raises(ValueError, match="must not contain image"):
        explain(tiny_policy, photo(), LABELS, response="<|image_pad|>")


# ---------------------------------------------------------------------------------- is the evidence where it should be?


@pytest.mark.parametrize("name", SETS)
def test_the_evidence_of_an_activity_is_its_thing_or_its_limbs(name):
    for i in range(64):
        scene = draw_scene(name, "validation", i, size=28)
        left, top, right, bottom = evidence_region(scene)
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        use = PLANS[scene.label].use
        if use:
            assert evidence_region(scene) == tuple(np.clip(scene.truth.objects[use], 0, 1))
        else:
            joint = "foot_near" if scene.label in ("running", "jumping") else "hand_near"
            x, y = scene.truth.joints[joint]
            assert left < x < right and top < y < bottom


def test_both_hands_are_the_evidence_of_applause_and_one_of_waving():
    for label, both in (("applauding", True), ("waving hands", False)):
        scene = draw_scene("sketch", "test", ACTIVITIES.index(label) + 16)
        left, _, right, _ = evidence_region(scene)
        wide = abs(scene.truth.joints["hand_near"][0] - scene.truth.joints["hand_far"][0]) * both + 0.08
        assert right - left == pytest.approx(wide, abs=1e-9)


def test_a_scene_of_no_activity_has_no_evidence():
    with pytest.raises(ValueError, match="pretrain/000001 shows no activity"):
        evidence_region(draw_scene("cartoon", "pretrain", 1, size=28))


def test_snapping_takes_in_every_unit_that_is_touched():
    assert snap((0.25, 0.5, 0.75, 1.0), (4, 2)) == (1, 1, 3, 2)
    assert snap((0.26, 0.51, 0.74, 0.52), (4, 2)) == (1, 1, 3, 2)
    for region in [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 0.5, 1), (0, 0, 14, 14)]:
        with pytest.raises(ValueError, match="picture units"):
            snap(region, (10, 10))


def test_places_beside_a_box_are_all_there_are():
    box, size = (1, 1, 3, 2), (5, 4)
    places = set(places_beside(box, size))
    for x in range(4):
        for y in range(4):
            cells = {(x + i, y) for i in range(2)}
            assert ((x, y, x + 2, y + 1) in places) == (not cells & {(1, 1), (2, 1)})


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (3, 3, 7, 7), (0, 2, 10, 9), (4, 4, 5, 5), (2, 0, 9, 10)])
@pytest.mark.parametrize("places", [1, 8])
def test_a_region_is_cut_to_its_middle_and_no_more_than_it_must_be(box, places):
    left, top, right, bottom = with_room(box, (10, 10), places)
    assert len(places_beside((left, top, right, bottom), (10, 10))) >= places
    assert box[0] <= left < right <= box[2] and box[1] <= top < bottom <= box[3]
    if len(places_beside(box, (10, 10))) >= places:
        assert (left, top, right, bottom) == box
    assert abs((left - box[0]) - (box[2] - right)) <= 1 and abs((top - box[1]) - (box[3] - bottom)) <= 1


def test_a_tiny_picture_has_the_places_that_it_has():
    assert area(with_room((0, 0, 2, 2), (2, 2), 8)) == 1 and len(places_beside((0, 0, 1, 1), (2, 2))) == 3


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def test_evidence_and_controls_are_equally_large_and_never_overlap(tiny_policy, monkeypatch):
    monkeypatch.setattr(occlusion, "score_completions", lambda policy, prompts, rollout: -rollout.mask.float())
    examples = [*scene_examples(16), *scene_examples(16, "cctv")]
    effects = evidence_effect(tiny_policy, examples, list(ACTIVITIES), responses=[RESPONSE] * 32, controls=4)
    assert [one.source for one in effects] == [example.source for example in examples]
    for one in effects:
        assert len(one.controls) == len(set(one.controls)) == len(one.control_drops["answer"]) == 4
        a, b, c, d = one.region
        for left, top, right, bottom in one.controls:
            assert (right - left, bottom - top) == (c - a, d - b)
            assert right <= a or left >= c or bottom <= b or top >= d
        for box in (one.region, *one.controls):
            assert 0 <= box[0] and box[2] <= 112 and 0 <= box[1] and box[3] <= 112 and area(box) % 14**2 == 0
        whole = area(snap(evidence_region(scene_from_source(one.source)), (8, 8)))
        assert one.share == area(one.region) / 14**2 / whole <= 1
        assert one.effect() == one.effect("reasoning") == one.matched_effect() == 0, "a scorer that looks at nothing"
    assert sum(one.share == 1 for one in effects) > 8, "most things have room beside them"


def test_controls_depend_on_the_seed_and_the_source_alone(tiny_policy, monkeypatch):
    monkeypatch.setattr(occlusion, "score_completions", lambda policy, prompts, rollout: -rollout.mask.float())
    examples = scene_examples(5)

    def controls(examples, **options):
        responses = [RESPONSE] * len(examples)
        return [e.controls for e in evidence_effect(tiny_policy, examples, None, responses=responses, **options)]

    same_place = [replace(examples[0], source=source) for source in ("a.png", "b.png")]
    assert len({str(places) for places in controls(same_place, regions=[(0.0, 0.0, 0.3, 0.3)] * 2)}) == 2
    first = controls(examples)
    assert controls(examples) == first == controls(examples[::-1], batch_size=2)[::-1]
    assert all(a != b for a, b in zip(first, controls(examples, seed=1), strict=True))


def test_the_effect_is_the_drop_there_less_the_drop_elsewhere(tiny_policy, monkeypatch):
    """The answer looks into the evidence, the reasoning beside it; every pixel is black and every patch is not."""
    black = Example(Image.new("RGB", (112, 112)), "reading", "black.png")
    region = (0.25, 0.25, 0.5, 0.5)  # pixels 28 to 56
    monkeypatch.setattr(occlusion, "score_completions", looking_at({"answer": (30, 50), "reasoning": (5, 100)}))
    options = dict(regions=[region], fill=(9, 9, 9), responses=[RESPONSE])
    (effect,) = evidence_effect(tiny_policy, [black], LABELS, controls=1000, **options)
    assert effect.region == (28, 28, 56, 56) and len(effect.controls) == 7 * 7 - 3 * 3
    assert effect.drops == {"answer": 5.0, "reasoning": 0.0} and set(effect.control_drops["answer"]) == {0.0}
    assert effect.effect() == 5 and effect.matched_effect() == 5
    hit = sum(left <= 5 < right and top <= 100 < bottom for left, top, right, bottom in effect.controls)
    assert hit > 0 and effect.effect("reasoning") == pytest.approx(-3 * hit / len(effect.controls))
    assert effect.changed == 9 and set(effect.control_changed) == {9.0}


def test_regions_of_a_wide_picture_keep_their_place(tiny_policy, monkeypatch):
    """112 x 56 pixels: a region in picture units is scaled by each side on its own."""
    monkeypatch.setattr(occlusion, "score_completions", lambda policy, prompts, rollout: -rollout.mask.float())
    wide = photo(112, 56)
    (effect,) = evidence_effect(tiny_policy, [wide], LABELS, regions=[(0.75, 0.5, 1.0, 1.0)], responses=[RESPONSE])
    assert effect.region == (84, 28, 112, 56) and effect.share == 1
    assert max(box[2] for box in effect.controls) > 56 and max(box[3] for box in effect.controls) <= 56


def test_the_matched_control_is_the_one_that_takes_as_much_away(tiny_policy, monkeypatch):
    image = Image.new("RGB", (112, 112))
    image.paste((200, 200, 200), (0, 0, 28, 28))
    image.paste((190, 190, 190), (84, 84, 112, 112))
    monkeypatch.setattr(occlusion, "score_completions", looking_at({"answer": (60, 60)}))
    example, region = Example(image, "reading", "two.png"), (0.0, 0.0, 0.25, 0.25)
    options = dict(regions=[region], fill=(0, 0, 0), responses=[RESPONSE], controls=1000)
    (effect,) = evidence_effect(tiny_policy, [example], LABELS, **options)
    nearest = min(range(len(effect.controls)), key=lambda i: abs(effect.control_changed[i] - effect.changed))
    assert effect.changed == 200 and effect.controls[nearest] == (84, 84, 112, 112)
    assert effect.matched_effect() == effect.drops["answer"] - effect.control_drops["answer"][nearest]
    with_drops = replace(effect, control_drops={"answer": [float(i) for i in range(len(effect.controls))]})
    assert with_drops.matched_effect() == effect.drops["answer"] - nearest


def test_evidence_of_a_photograph_must_be_given(tiny_policy, tiny_examples):
    with pytest.raises(ValueError, match="tiny/0 does not say where"):
        evidence_effect(tiny_policy, tiny_examples, LABELS)
    effects = evidence_effect(
        tiny_policy, tiny_examples, LABELS, regions=[(0.0, 0.0, 0.4, 0.4)] * 4, responses=["nothing"] * 4
    )
    assert [one.effect() for one in effects] == [one.matched_effect() for one in effects] == [None] * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"controls": 0}, "at least one region"),
        ({"regions": []}, "0 regions for 2 examples"),
        ({"responses": ["a"]}, "1 responses for 2 examples"),
        ({"batch_size": 0}, "batch_size"),
        ({"fill": "blur"}, "unknown fill 'blur'"),
    ],
)
def test_an_evidence_test_that_makes_no_sense(tiny_policy, options, words):
    with pytest.raises(ValueError, match=words):
        evidence_effect(tiny_policy, scene_examples(2), LABELS, **options, max_new_tokens=2)
    with pytest.raises(ValueError, match="no examples"):
        evidence_effect(tiny_policy, [], LABELS)


@pytest.mark.slow
def test_the_pocket_policy_sees_the_evidence_where_it_is(pocket):
    """Measured over 48 scenes: 4 nats (2 to 6.5) of the reasoning, 0.7 nats (0.3 to 1.1) of the answer."""
    examples = scene_examples(32, start=160)
    explained = evidence_effect(pocket, examples, list(ACTIVITIES), controls=3)
    effects = np.array([one.effect("reasoning") for one in explained])
    assert effects.mean() > 1 and bootstrap_interval(effects)[0] > 0
    answers = [one.effect() for one in explained if one.effect() is not None]
    assert len(answers) >= 16 and np.mean(answers) > 0.1


# ------------------------------------------------------------------------------- how much of the answer is in the text?


def test_reliance_is_that_of_the_explanation_and_in_order(pocket):
    examples = scene_examples(5, "sketch", 3)
    reliance = image_reliance(pocket, examples, list(ACTIVITIES), batch_size=2)
    assert [one.source for one in reliance] == [example.source for example in examples]
    for example, one in zip(examples, reliance, strict=True):
        alone = explain(pocket, example, list(ACTIVITIES), window=5)
        assert (one.text, one.answer) == (alone.text, alone.answer)
        assert one.with_image == pytest.approx(alone.logps.get("answer"), abs=1e-4)
        assert one.without_image == pytest.approx(alone.blank_logps.get("answer"), abs=1e-4)
        if one.drop is not None:
            assert one.drop == pytest.approx(float(alone.occlusion.drops["answer"][0]), abs=1e-4)


def test_reliance_without_an_answer_is_unknown(tiny_policy, tiny_examples):
    reliance = image_reliance(tiny_policy, tiny_examples[:2], LABELS, responses=["<think>a page", RESPONSE])
    assert reliance[0].answer is reliance[0].with_image is reliance[0].without_image is reliance[0].drop is None
    assert reliance[1].drop == reliance[1].with_image - reliance[1].without_image != 0
    with pytest.raises(ValueError, match="no examples"):
        image_reliance(tiny_policy, [], LABELS)


# ---------------------------------------------------------------------------------------------------------- the picture


def test_the_picture_says_what_was_found(pocket):
    scene = draw_scene("cartoon", "test", 9)  # riding a bike
    text = "<think>feet on pedals, standing, a nice day</think><answer>running</answer>"
    explanation = explain(pocket, Example(scene.image, scene.label, scene.source), list(ACTIVITIES), response=text)
    figure = plot_explanation(explanation, title="why running?")
    texts = [text_shown for text_shown in texts_of(figure) if text_shown.strip()]
    for statement, mark in (("feet on pedals", "✓"), ("standing", "✗"), ("a nice day", "–")):
        assert texts[texts.index(statement) - 1] == mark
    assert texts[texts.index("running") - 1] == "✗" and "gold label: riding a bike" in texts
    assert f"probability {explanation.answer_probability:.2f}" in texts
    assert f"{explanation.occlusion.drops['answer'].max():+.2f}".replace("-", "\N{MINUS SIGN}") in texts
    heats = [
        image.get_array() for axes in figure.axes[1:3] for image in axes.images if image.get_array().shape == (5, 5)
    ]
    for heat, part in zip(heats, ("answer", "reasoning"), strict=True):
        np.testing.assert_allclose(heat, explanation.occlusion.heat(part))
    frame = figure.axes[0].patches[-1]
    assert (frame.get_x() / 140, frame.get_y() / 140) == pytest.approx(explanation.evidence[:2])
    labels = [axes.get_xlabel() for axes in figure.axes[1].child_axes + figure.axes[2].child_axes]
    assert labels == ["drop when covered, nats"] * 2
    assert png(figure).size[0] == 1080


def test_a_long_reasoning_is_cut_in_the_picture(tiny_policy):
    text = f"<think>{', '.join(f'a thing that stands at place number {i} of many' for i in range(9))}</think>"
    figure = plot_explanation(explain(tiny_policy, photo(), LABELS, response=text), max_lines=9)
    texts = texts_of(figure)
    assert "[...]" in texts and "a thing that stands at place" in texts and texts.count("?") < 9
    assert png(figure).size[1] < 400
