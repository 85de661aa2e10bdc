"""Recipes that change what is paid: equations by hand, what must not pay and what is known to, off is plain GRPO."""

import math
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
import torch

from favor_lab import FewShot, GRPOSettings, Question, draw_scene, load_policy, score_completions
from favor_lab.activities import Example
from favor_lab.activities.world import LEGS, STATEMENTS, scene_from_source
from favor_lab.arguments import ArgumentError
from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import encode_completions
from favor_lab.grpo.support.checkpoints import TrainingState
from favor_lab.recipes import RECIPES, care_slow, find_recipe, rows
from favor_lab.recipes.affordance_r1 import count_reward, fields_reward, matches_reward, no_repeat_reward
from favor_lab.recipes.care_slow import care_bonus, keep_slowly, slow_confidence_reward
from favor_lab.recipes.dip_r1 import detect_reward, look_reward, look_scores
from favor_lab.recipes.evidence import evidence
from favor_lab.recipes.facts import SLOT_OF, SLOTS, Facts, facts_of, true_statements
from favor_lab.recipes.gtr import gtr_loss, thought_loss, thought_span, true_response
from favor_lab.recipes.listener import listener_reward
from favor_lab.recipes.perception_r1 import perception_reward, repeated_share, repetition_reward
from favor_lab.recipes.refine_rft import length_reward, refined_advantages, summed_apart
from favor_lab.recipes.shop_r1 import easy_and_hard, scaled_reward
from favor_lab.recipes.star_r1 import partial_credit, partial_reward, slot_credit
from favor_lab.recipes.truth import truth_reward
from favor_lab.recipes.ttrv import answer_entropy, vote_reward
from favor_lab.recipes.vision_r1 import criterion_reward
from favor_lab.recipes.vision_sr1 import blind_reward
from favor_lab.recipes.vlm_r1 import detection_score, graded_reward
from favor_lab.responses import part_masks
from favor_lab.trl_bridge import trl_reward
from favor_lab.vlm.processing import encode_prompts
from recipe_runs import run
from tiny import make_context, make_policy

SETTINGS = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=64, learning_rate=1e-2)
OWN = (
    "affordance-r1", "care-slow", "dip-r1", "gtr", "listener", "perception-r1", "refine-rft", "shop-r1", "star-r1",
    "ttrv", "vision-r1", "vision-sr1", "vlm-r1",
)  # fmt: skip
ON = {"listener": {"listener": 1e9}, "care-slow": {"margin": 0.0}}  # where random weights would show nothing
FOR_TRL = {  # rewards that look at completions, label, source and groups alone
    reward.__name__: reward
    for reward in (
        count_reward, detect_reward, fields_reward, graded_reward, length_reward, look_reward, matches_reward,
        no_repeat_reward, partial_reward, perception_reward, repetition_reward, scaled_reward, vote_reward,
    )
}  # fmt: skip
NEED_FACTS = (
    count_reward, criterion_reward, detect_reward, fields_reward, graded_reward, look_reward, matches_reward,
    partial_reward, perception_reward, scaled_reward, truth_reward,
)  # fmt: skip
EARLY, LATE = SimpleNamespace(progress=0.0), SimpleNamespace(progress=0.5)
SOURCES = [f"{name}/test/{index:06d}" for name in ("cartoon", "sketch", "thermal", "cctv") for index in range(16)]


def response(*statements, answer="reading"):
    return f"<think>{', '.join(statements)}</think><answer>{answer}</answer>"


EVERYTHING = response(*STATEMENTS)


@pytest.fixture(scope="module")
def scenes():
    drawn = [draw_scene("cartoon", "train", index) for index in range(4)]
    return [Example(scene.image, str(scene.label), scene.source) for scene in drawn]


@pytest.fixture(scope="module")
def shots(scenes):
    return FewShot(scenes, [], [], sorted({scene.label for scene in scenes}))


def written(policy, prompts, *, group_size, seed, **settings):
    """A rollout of written responses, right and wrong, true and false, of any form: random weights write none."""
    r, texts, groups = Random(seed), [], []
    for b, (label, source) in enumerate(zip(prompts.labels, prompts.sources, strict=True)):
        true = scene_from_source(source).truth.statements
        for _ in range(group_size):
            said = [r.choice(true) if r.random() < 0.6 else r.choice(STATEMENTS) for _ in range(r.randint(1, 3))]
            answer = label if r.random() < 0.5 else r.choice(prompts.labels)
            texts.append(response(*said, answer=answer) + "." * (r.random() < 0.2))
            groups.append(b)
    return encode_completions(policy, texts, groups, origin="written", group_size=group_size)


def take_steps(policy, recipe, shots, settings, stop=None, folder=None):
    """All steps of a recipe on written responses: what was learnt from, and the weights and the memory at the end. With
    `stop`, it is saved after that many steps, and a policy that was changed meanwhile goes on."""
    recipe = replace(recipe, steps={**recipe.steps, "sample": written})
    records, state = run(policy, recipe, shots, settings, stop, folder)
    facts = [(r.loss, r.grad_norm, r.kl, r.entropy, r.reward, r.reward_spread, r.flat_groups) for r in records]
    weights = {name: weight.detach().clone() for name, weight in policy.trainable_parameters()}
    return facts, weights, state.memory


def same(one, other):
    return one[0] == other[0] and all(torch.equal(weight, other[1][name]) for name, weight in one[1].items())


def settings_on(name, **changes):
    return replace(SETTINGS, coefficients=ON.get(name, {}), **changes)


@pytest.fixture
def reader(monkeypatch):
    """A blind reader for vision-sr1 that is sometimes right: random weights never are."""

    def answers(policy, asked, group_size, max_new_tokens, temperature, seed, decoding):
        r = Random(seed)
        texts = [f"<answer>{label if r.random() < 0.5 else 'nothing'}</answer>" for label in asked.labels]
        return SimpleNamespace(texts=texts)

    monkeypatch.setattr(rows, "sample_groups", answers)


# ---------------------------------------------------------------------------------------------------- what all promise


def test_every_recipe_of_this_page_is_registered():
    assert set(OWN) <= set(RECIPES) and all(RECIPES[name].coefficients for name in OWN)


@pytest.fixture(scope="module")
def plain(tiny_checkpoint, shots, tmp_path_factory):
    return take_steps(
        make_policy(tiny_checkpoint), find_recipe(""), shots, SETTINGS, 2, tmp_path_factory.mktemp("plain") / "run"
    )


@pytest.mark.parametrize("name", OWN)
def test_with_its_coefficients_at_0_it_is_plain_grpo(tiny_policy, shots, plain, tmp_path, name):
    """Bit for bit, over three steps with a resume in between, and it keeps nothing."""
    recipe = find_recipe(name)
    off = replace(SETTINGS, coefficients=dict.fromkeys(recipe.coefficients, 0.0))
    assert off.coefficients
    steps = take_steps(tiny_policy, recipe, shots, off, 2, tmp_path)
    assert same(steps, plain) and steps[2] == {}


@pytest.mark.parametrize("name", OWN)
def test_a_resumed_run_is_the_same_and_another_one_than_plain_grpo(
    tiny_checkpoint, shots, plain, tmp_path, reader, name
):
    """Also between the two updates of a rollout."""
    settings, recipe = settings_on(name, updates_per_rollout=2), find_recipe(name)
    unbroken = take_steps(make_policy(tiny_checkpoint), recipe, shots, settings)
    resumed = take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, 1, tmp_path)
    assert same(resumed, unbroken) and resumed[2].keys() == unbroken[2].keys() == ({"slow"} & unbroken[2].keys())
    for name_of_weight, value in unbroken[2].get("slow", {}).items():
        assert torch.equal(resumed[2]["slow"][name_of_weight], value)
    assert not same(take_steps(make_policy(tiny_checkpoint), recipe, shots, settings_on(name)), plain)


@pytest.mark.parametrize("reward", NEED_FACTS)
def test_facts_are_known_of_drawn_scenes_alone(reward):
    needed = {"label": ["reading"], "groups": [0], "context": EARLY}
    with pytest.raises(ValueError, match=f"{reward.__name__} knows the .* of drawn scenes only, not of photo.jpg"):
        reward(completions=[response("standing")], source=["photo.jpg"], **needed)


@pytest.mark.parametrize(
    ("reward", "coefficient", "value"),
    [
        (criterion_reward, "criterion", -1.0), (criterion_reward, "switch", 1.5), (graded_reward, "graded", -1.0),
        (graded_reward, "price", -1.0), (vote_reward, "votes", 1.5), (vote_reward, "alpha", -1.0),
        (perception_reward, "gamma", -1.0), (perception_reward, "price", -1.0), (repetition_reward, "penalty", -1.0),
        (repetition_reward, "ngram", 0), (partial_reward, "partial", -1.0), (partial_reward, "extra", -1.0),
        (partial_reward, "silent", -1.0), (fields_reward, "others", -1.0), (scaled_reward, "dars", -1.0),
        (scaled_reward, "easy", -1.0), (length_reward, "budget", -1.0), (look_reward, "look", -1.0),
        (detect_reward, "detect", -1.0), (detect_reward, "precision", 2.0), (slow_confidence_reward, "bonus", -1.0),
        (slow_confidence_reward, "margin", -1.0), (blind_reward, "blind", -1.0), (listener_reward, "listener", -1.0),
    ],
)  # fmt: skip
def test_a_coefficient_that_makes_no_sense_is_named(reward, coefficient, value):
    columns = {"label": ["reading"], "groups": [0], "context": EARLY, "source": SOURCES[:1]}
    with pytest.raises(ArgumentError, match=f"{coefficient} is {value}, but must") as error:
        reward(completions=[""], **columns, **{coefficient: value})
    assert error.value.name == coefficient


@pytest.mark.parametrize("reward", [*NEED_FACTS, length_reward, vote_reward], ids=lambda reward: reward.__name__)
@pytest.mark.parametrize("text", ["", "<think></think><answer></answer>", "standing", "<answer>standing</answer>"])
def test_a_response_that_says_nothing_earns_nothing(reward, text):
    """Neither do statements outside the reasoning."""
    if (reward, text) == (vote_reward, "<answer>standing</answer>"):
        return  # it is an answer, and a vote
    columns = {"label": ["reading"], "groups": [0], "context": EARLY, "source": SOURCES[:1]}
    assert reward(completions=[text], **columns)[0] <= 0


@pytest.mark.parametrize("reward", NEED_FACTS, ids=lambda reward: reward.__name__)
def test_a_statement_is_paid_once(reward):
    source = SOURCES[0]
    columns = {"label": ["reading"], "groups": [0], "context": EARLY, "source": [source]}
    true = scene_from_source(source).truth.statements[0]
    once, again = (reward(completions=[response(*[true] * n)], **columns) for n in (1, 5))
    assert once == again


@pytest.mark.parametrize("name", FOR_TRL)
def test_the_rewards_run_unchanged_in_trl(name):
    """Chats in place of texts, and what TRL hands on beside them; the bridge adds the groups."""
    reward, texts = FOR_TRL[name], [response("standing"), response("sitting", "one hand up"), EVERYTHING, "nothing"]
    columns = {"label": ["reading"] * 4, "source": SOURCES[:1] * 4}
    expected = reward(completions=texts, groups=[0, 0, 1, 1], **columns)
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    trls = {"trainer_state": object(), "log_extra": print, "log_metric": print, "completion_ids": [[1]] * 4}
    assert reward(completions=chats, groups=[0, 0, 1, 1], prompts=chats, **columns, **trls) == expected
    bridged = trl_reward(name, reward, replace(SETTINGS, group_size=2))
    assert bridged(prompts=chats, completions=chats, **columns, **trls) == expected


@pytest.mark.parametrize("reward", [criterion_reward, slow_confidence_reward, blind_reward, listener_reward])
def test_rewards_that_need_the_loop_are_refused_by_trl(reward):
    with pytest.raises(ValueError, match=f"{reward.__name__} asks for the context"):
        trl_reward(reward.__name__, reward, SETTINGS)


# ---------------------------------------------------------------------------------------------------------------- facts


def test_facts_are_those_of_the_scene():
    """Whatever the case, the order and the signs between them; a statement that no scene has is false."""
    source = SOURCES[2]
    scene = scene_from_source(source).truth.statements
    wrong = next(s for s in STATEMENTS if s not in scene)
    (facts,) = facts_of([response(scene[1].upper(), wrong, "a red hat", scene[0])], [source], "test")
    assert facts == Facts((scene[1], scene[0]), (wrong, "a red hat"), scene)
    assert facts.precision == 0.5 and facts.recall == 2 / len(scene)
    assert true_statements([source, SOURCES[0]], "test") == [scene, scene_from_source(SOURCES[0]).truth.statements]
    assert Facts((), (), scene).precision == 0.0
    with pytest.raises(ValueError, match="must be a list"):
        true_statements(source, "test")


def test_every_statement_about_the_person_has_one_slot():
    for source in SOURCES:
        slots = [SLOT_OF.get(s) for s in scene_from_source(source).truth.statements]
        assert slots.count("posture") == 1 and slots.count("hands") >= 1, source
    assert set(SLOT_OF) <= set(STATEMENTS) and set(SLOT_OF.values()) == set(SLOTS)


# ------------------------------------------------------------------------------------------------------------ vision-r1


def test_vision_r1_by_hand():
    """Of a scene of four: two true ones and a false one are 2/3 precise and 1/2 complete; later neither is enough."""
    source = next(s for s in SOURCES if len(scene_from_source(s).truth.statements) == 4)
    true = scene_from_source(source).truth.statements
    texts = [response(*true[:2], "lamp nearby" if "lamp nearby" not in true else "dog nearby"), response(*true[:3])]
    assert criterion_reward(texts, [source] * 2, EARLY) == pytest.approx([2 / 3 + 1 / 2, 2.0])
    assert criterion_reward(texts, [source] * 2, LATE) == [0.0, 1.75]
    assert criterion_reward(texts, [source] * 2, LATE, criterion=0.5, switch=1.0) == pytest.approx([7 / 12, 1.0])


def test_vision_r1_pays_half_for_a_list_of_everything():
    """Known, and stated: the recall is full. Precision alone stands against it."""
    for source in SOURCES:
        true = scene_from_source(source).truth.statements
        listed, honest = criterion_reward([EVERYTHING, response(*true)], [source] * 2, EARLY)
        assert (listed, honest) == (1.0, 2.0)


# ------------------------------------------------------------------------------------- vlm-r1 and perception-r1: prices


@pytest.mark.parametrize(
    ("reward", "published", "mended"), [(graded_reward, 0.85, -0.5), (perception_reward, 0.7, -0.7)]
)
def test_published_a_list_of_everything_pays_and_with_a_price_it_does_not(reward, published, mended):
    """Published, it has more than an honest half; mended, less than silence, and less than one true statement."""
    for source in SOURCES:
        true = scene_from_source(source).truth.statements
        texts = [EVERYTHING, response(*true[: len(true) // 2]), response(true[0]), ""]
        listed, half, one, silence = reward(texts, [source] * 4)
        assert listed >= published - 0.01 and listed > half and silence == 0
        listed, half, one, silence = reward(texts, [source] * 4, price=1.0)
        assert listed < mended + 0.05 and half > 0 and one > 0 and silence == 0


@pytest.mark.parametrize("reward", [graded_reward, perception_reward])
def test_with_a_price_another_false_statement_never_pays(reward):
    for source in SOURCES[:16]:
        true = scene_from_source(source).truth.statements
        wrong = [s for s in STATEMENTS if s not in true]
        scores = reward([response(*true, *wrong[:n]) for n in range(4)], [source] * 4, price=1.0)
        assert scores == sorted(scores, reverse=True) and scores[0] > scores[1]


def test_vlm_r1s_score_by_hand():
    """Two of four stated, one false: 0.7 / 2 + 0.3 (1 - (1/2 + 1/3) / 2); a price of 1 takes 0.7 / 4."""
    facts = Facts(("a", "b"), ("x",), ("a", "b", "c", "d"))
    assert detection_score(facts) == pytest.approx(0.35 + 0.3 * (1 - 5 / 12))
    assert detection_score(facts) - detection_score(facts, price=1.0) == pytest.approx(0.7 / 4)
    assert detection_score(Facts(("a",), (), ("a",))) == 1.0
    assert detection_score(Facts((), ("x",), ("a",))) == pytest.approx(0.0)


def test_perception_r1_charges_repetition():
    """By hand: 7 sequences of 4 words, of which 3 are different (a b c d, b c d a, ...)."""
    text = "a b c a b c a b c a"
    assert repeated_share(text, 4) == pytest.approx(1 - 3 / 7)
    assert repetition_reward([text, "a b c d e"]) == pytest.approx([-2 * 4 / 7, 0.0])
    assert repetition_reward([EVERYTHING], ngram=20) == [0.0], "a list repeats nothing"


# -------------------------------------------------------------------------------------------------------------- star-r1


def test_star_r1_by_hand():
    scene = ("standing", "hand at the ear", "phone at the ear", "dog nearby")
    everything = Facts(scene, (), scene)
    assert partial_credit(everything) == 1.0
    assert partial_credit(Facts((), (), scene)) == pytest.approx(-3 / 15)
    assert partial_credit(Facts(("standing",), ("cup at the mouth",), scene)) == pytest.approx((5 + 1.5 - 1) / 15)
    assert partial_credit(Facts(("standing",), ("sitting", "long stride"), scene)) == pytest.approx((1 - 2) / 15)
    assert partial_credit(Facts((), ("sitting", "long stride"), scene)) == pytest.approx((1.5 - 2 - 1 - 1) / 15)
    no_thing = ("standing", "arms down")
    assert partial_credit(Facts(no_thing, ("cup in a hand",), no_thing)) == pytest.approx(0.8)
    assert partial_credit(Facts((), (), ("nobody there",))) == 0.0
    assert partial_credit(Facts((), ("standing",), ("nobody there",))) == pytest.approx(-0.4)


@pytest.mark.parametrize(("extra", "pays"), [(2.0, False), (1.75, False), (1.0, True)])
def test_star_r1s_price_makes_a_second_guess_unprofitable(extra, pays):
    """Of two guesses that exclude each other, p1 >= p2: the expected credit of both, and of the first alone."""
    gains = []
    for i in range(101):
        for j in range(min(i, 100 - i) + 1):
            p1, p2 = i / 100, j / 100
            right, wrong, both = (slot_credit(t, w, True, extra) for t, w in ((1, 0), (0, 1), (1, 1)))
            two = (p1 + p2) * both + (1 - p1 - p2) * slot_credit(0, 2, True, extra)
            gains.append(two - (p1 * right + (1 - p1) * wrong))
    assert (max(gains) > 1e-9) == pays


def test_star_r1_makes_lists_and_silence_cost():
    for source in SOURCES:
        true = scene_from_source(source).truth.statements
        texts = [response(*true), EVERYTHING, response("dancing"), response(*LEGS.values())]
        right, listed, silent, postures = partial_reward(texts, [source] * 4)
        assert right == 1.0 and listed < -1 and silent < 0 and postures < silent
    assert partial_reward(texts, [source] * 4, partial=0.5)[0] == 0.5


# -------------------------------------------------------------------------------------------------------- affordance-r1


def test_affordance_r1_by_hand():
    source = "cartoon/test/000006"
    true = scene_from_source(source).truth.statements
    assert {"phone at the ear", "sitting"} <= set(true)
    text = response("phone at the ear", "standing", "dancing", answer="phoning")
    named = dict(completions=[text], source=[source])
    assert fields_reward(**named) == [2.0] and no_repeat_reward([text]) == [1.0]
    assert matches_reward(**named) == [3 / max(3, len(true))]
    assert matches_reward([EVERYTHING], [source]) == [3 * len(true) / len(STATEMENTS)]
    assert count_reward(**named) == [float(len(true) == 3)]
    assert count_reward([response(*STATEMENTS[: len(true)])], [source]) == [1.0], "true or not"


def test_with_unit_weights_what_needs_no_image_comes_first():
    """The lesson: always the same words have more than a right answer behind a true statement; weighed anew, less."""
    rewards = find_recipe("affordance-r1").steps["rewards"]
    blind = response("standing", "arms down", "phone at the ear", answer="phoning")

    def totals(weights):
        sums = [0.0, 0.0]
        for source in SOURCES:
            scene = scene_from_source(source)
            columns = {"label": [scene.label] * 2, "source": [source] * 2}
            texts = [blind, response(scene.truth.statements[0], answer=scene.label)]
            values = [reward(texts, **columns) for reward in rewards]
            sums = [sums[i] + sum(w * v[i] for w, v in zip(weights, values, strict=True)) for i in (0, 1)]
        return [total / len(SOURCES) for total in sums]

    blind_unit, seeing_unit = totals((1, 1, 1, 1, 1, 1))
    blind_new, seeing_new = totals((1, 1, 0.1, 1, 0.1, 0.1))
    assert blind_unit > seeing_unit + 0.5 and seeing_new > blind_new + 0.5


# -------------------------------------------------------------------------------------------------------------- shop-r1


def test_shop_r1_by_hand():
    """The posture right; of three others two are said, beside two that are not so: Dice 2 * 2 / (4 + 3)."""
    facts = Facts(("standing", "a", "b"), ("x", "y"), ("standing", "a", "b", "c"))
    assert easy_and_hard(facts) == (1.0, pytest.approx(4 / 7))
    two = Facts(("standing",), ("sitting",), ("standing", "a"))
    assert easy_and_hard(two) == (0.0, 0.0), "two postures are no posture"
    assert easy_and_hard(Facts((), (), ("standing",))) == (0.0, 0.0)


def test_shop_r1_does_not_pay_for_lists():
    for source in SOURCES:
        true = scene_from_source(source).truth.statements
        hard = next(s for s in true if SLOT_OF.get(s) != "posture")
        listed, one, postures = scaled_reward([EVERYTHING, response(hard), response(*LEGS.values())], [source] * 3)
        assert listed < one and postures == 0.0


def test_a_scale_of_all_that_a_prompt_pays_cancels_and_one_inside_the_group_does_not():
    """And the published 1000 makes the rest invisible, where the hard part differs at all."""
    answer, hard = torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.5, 0.0]])
    plain = group_advantages(answer + hard, eps=0.0)
    assert torch.allclose(group_advantages(7 * (answer + hard), eps=0.0), plain)
    assert not torch.allclose(group_advantages(answer + 7 * hard, eps=0.0), plain, atol=0.1)
    drowned = group_advantages(answer + 1000 * hard, eps=0.0)
    assert torch.allclose(drowned, group_advantages(hard, eps=0.0), atol=3e-3)


# --------------------------------------------------------------------------------------------------------------- dip-r1


def test_dip_r1_by_hand():
    """Of four rows two say "a" (v = 1), one "b" (v = 3/4) and one "x" (v = 3/4), which is false."""
    scene = ("a", "b", "c")
    group = [Facts(("a",), (), scene), Facts(("a", "b"), (), scene), Facts((), ("x",), scene), Facts((), (), scene)]
    assert look_scores(group) == pytest.approx([1 / 1.75, 1.0, -0.75 / 1.75, 0.0])
    agreed = [Facts(("a",), ("x",), scene)] * 4
    assert look_scores(agreed) == [0.0] * 4, "nothing is unsure"
    assert look_scores([Facts((), ("x",), scene), Facts((), (), scene)]) == [-1.0, 0.0]
    source = SOURCES[0]
    true = scene_from_source(source).truth.statements
    half = 1 / len(true)
    texts = [response(true[0], "dancing")]
    assert detect_reward(texts, [source], precision=0.25) == pytest.approx([0.25 * 0.5 + 0.75 * half])


def test_dip_r1_looks_within_the_group():
    source, other = SOURCES[:2]
    true = scene_from_source(source).truth.statements[0]
    texts, sources = [response(true), response(true), response(true), "nothing"], [source, source, other, other]
    apart = look_reward(texts, sources, [0, 0, 1, 1])
    assert apart[:2] == [0.0, 0.0] and apart[2] != 0.0
    assert look_reward([*texts[:2], "nothing"], [source] * 3, [0, 0, 0], look=0.5)[0] == 0.5


def test_dip_r1_does_not_pay_for_a_list_in_a_group_that_does_not_list():
    for source in SOURCES:
        true = scene_from_source(source).truth.statements
        texts = [EVERYTHING, *[response(*true[:n]) for n in (1, 1, 2)]]
        looks = look_reward(texts, [source] * 4, [0] * 4)
        assert looks[0] == -0.5 and min(looks[1:]) >= 0
        listed, one, *_ = detect_reward(texts, [source] * 4)
        assert 0.5 < listed < 0.6 and (one > listed or len(true) > 5)


# ----------------------------------------------------------------------------------------------------------------- ttrv

VOTES = ["Reading", "reading", "reading.", "running", "", None, "phoning", "running"]
ANSWERS = ["nothing" if vote is None else f"<answer>{vote}</answer>" for vote in VOTES]


def test_ttrv_by_hand():
    """Three of eight for reading, two for running, one for phoning; two do not vote."""
    shares = [3 / 8, 3 / 8, 3 / 8, 2 / 8, 0.0, 0.0, 1 / 8, 2 / 8]
    assert vote_reward(ANSWERS, [0] * 8, alpha=0.0) == pytest.approx(shares)
    entropy = -sum(n / 6 * math.log(n / 6) for n in (3, 2, 1)) / math.log(3)
    assert vote_reward(ANSWERS, [0] * 8) == pytest.approx([share - 0.75 * entropy for share in shares])
    assert vote_reward(ANSWERS, [0, 0, 0, 0, 1, 1, 1, 1], alpha=0.0) == [0.75, 0.75, 0.75, 0.25, 0.0, 0.0, 0.25, 0.25]
    assert answer_entropy([None, None]) == answer_entropy([]) == 0.0


@pytest.mark.parametrize("scale", ["group", "none", "batch"])
def test_ttrvs_entropy_term_cancels(scale):
    """Whatever alpha is. Only the std of the whole step sees it."""
    groups = [0] * 4 + [1] * 4
    rewards = [torch.tensor(vote_reward(ANSWERS, groups, alpha=alpha)).view(2, 4) for alpha in (0.0, 0.75, 100.0)]
    without, published, large = (group_advantages(table.double(), scale=scale, eps=0.0) for table in rewards)
    cancels = torch.allclose(without, published, atol=1e-5) and torch.allclose(without, large, atol=1e-3)
    assert cancels == (scale != "batch") and without.abs().max() > 0.1
    only_entropy = torch.full((1, 4), answer_entropy(["a", "a", "b", None]))
    assert not group_advantages(only_entropy).any()


def test_ttrv_reads_no_label():
    assert vote_reward(ANSWERS, [0] * 8, label=["nonsense"] * 8) == vote_reward(ANSWERS, [0] * 8)
    with pytest.raises(ValueError, match="there are none: pass them, or votes=1"):
        vote_reward(ANSWERS, [0] * 8, votes=0.5)
    right = accuracy_reward(ANSWERS, ["running"] * 8)
    half = vote_reward(ANSWERS, [0] * 8, label=["running"] * 8, votes=0.5, alpha=0.0)
    assert half[3] == pytest.approx(0.5 * 2 / 8 + 0.5) and vote_reward(ANSWERS, [0] * 8, ["running"] * 8, 0.0) == right


def test_ttrv_pays_for_agreement_right_or_wrong():
    """Known, and stated: it locks in what most say. Nothing is no answer to agree on."""
    assert vote_reward(["<answer>wrong</answer>"] * 4, [0] * 4) == [1.0] * 4
    assert vote_reward(["", "<answer></answer>", "<answer> . </answer>", "x"], [0] * 4) == [0.0] * 4


# ----------------------------------------------------------------------------------------------------------- refine-rft


def test_refine_rft_by_hand():
    """Each reward has its own mean and std; the sum of the two is not the advantage of the sum."""
    right, form = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    root = math.sqrt(1 / 4)  # the std with n - 1 of one among four
    expected = [(3 / 4) / root - 2 * (3 / 4) / root] + [(-1 / 4) / root + 2 * (1 / 4) / root] * 3
    assert torch.allclose(summed_apart([right, form], [1.0, 2.0], eps=0.0), torch.tensor([expected]))
    lost = torch.tensor([[1.0, 0.0, torch.nan, torch.nan]])
    assert summed_apart([lost, lost], [1.0, 1.0])[0, 2:].tolist() == [0.0, 0.0]


def context_of(rewards, groups):
    rollout = SimpleNamespace(groups=groups)
    return SimpleNamespace(rollout=rollout, rewards=rewards)


def test_refine_rft_forgets_the_scale_of_a_reward_and_keeps_its_weight():
    groups, generator = torch.tensor([0, 0, 0, 1, 1]), torch.Generator().manual_seed(0)
    rewards = {name: torch.rand(5, generator=generator, dtype=torch.float64) for name in ("accuracy", "length")}
    total, settings = torch.zeros(2, 3), {"eps": 0.0, "reward_weights": (1.0, 0.5)}
    one = refined_advantages(total, context=context_of(rewards, groups), **settings)
    scaled = rewards | {"length": 1000 * rewards["length"] + 3}
    assert torch.allclose(refined_advantages(total, context=context_of(scaled, groups), **settings), one)
    weighted = refined_advantages(total, context=context_of(rewards, groups), eps=0.0)
    assert not torch.allclose(weighted, one) and one[1, 2] == 0.0 and one.shape == (2, 3)
    table = torch.tensor([[0.1, 0.9, 0.5], [0.0, 1.0, torch.nan]], dtype=torch.float64)
    off = refined_advantages(table, context=context_of(rewards, groups), apart=0.0)
    assert torch.equal(off, group_advantages(table))
    mixed = refined_advantages(table, context=context_of(rewards, groups), apart=0.25, **settings)
    assert torch.allclose(mixed, 0.25 * one + 0.75 * group_advantages(table, eps=0.0))
    with pytest.raises(ArgumentError, match="apart is 2.0, but must"):
        refined_advantages(table, context=context_of(rewards, groups), apart=2.0)


def test_refine_rft_pays_for_short_reasoning_and_not_for_none():
    words = [response(*["word"] * n) for n in (1, 12, 24)]
    texts = [text.replace("word,", "word") for text in words]
    assert length_reward([*texts, response(" "), ""]) == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert length_reward(texts, budget=0.0) == [0.0] * 3


# ------------------------------------------------------------------------------------------------------------------ gtr


def test_gtrs_loss_is_the_cross_entropy_of_the_true_thought(tiny_policy, scenes, shots):
    """Against one whole pass of each true response, of which the thought counts; the gradient is that of the sum."""
    texts = [response("standing"), response("sitting"), response("one hand up")]
    rollout = encode_completions(tiny_policy, texts, [0, 0, 1], origin="written")
    context = make_context(tiny_policy, scenes[:2], shots.labels, rollout, SETTINGS)
    logps = torch.full(rollout.mask.shape, -1.0, requires_grad=True)
    arguments = (logps, logps.detach(), None, torch.tensor([1.0, -1.0, 0.5]), rollout.mask)
    loss, parts = gtr_loss(*arguments, rollout=rollout, context=context, beta=0.0, thought=0.3)
    base, _ = grpo_loss(*arguments, beta=0.0)
    expected = []
    for b in (0, 0, 1):
        prompts = encode_prompts(tiny_policy, [scenes[b]], context.labels)
        text = true_response(true_statements([scenes[b].source], "test")[0], scenes[b].label)
        row = encode_completions(tiny_policy, [text], [0])
        ids = row.completion_ids[0].tolist()
        count = next(n for n in range(1, len(ids)) if "</think>" in tiny_policy.tokenizer.decode(ids[:n]))
        expected.append(-score_completions(tiny_policy, prompts, row)[0, :count].mean())
    expected = sum(expected) / 3
    assert (loss - base).item() == pytest.approx(0.3 * expected.item(), rel=1e-4)
    assert parts["thought"] == pytest.approx(expected.item(), rel=1e-4)
    weights = [weight for _, weight in tiny_policy.trainable_parameters()]
    ours, theirs = torch.autograd.grad(loss - base, weights), torch.autograd.grad(0.3 * expected, weights)
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_gtrs_thought_ends_in_the_token_that_the_policy_writes_there():
    """Where `</think>` and `<answer>` meet, they share a token: a thought that is tokenised by itself ends in another
    one, and a policy that learns it no longer answers."""
    pocket_policy, text = load_policy("pocket"), true_response(("standing", "arms down"), "reading")
    row = encode_completions(pocket_policy, [text], [0])
    mask = part_masks(pocket_policy, row, thought_span)["thought"]
    pieces = [pocket_policy.tokenizer.decode([i]) for i in row.completion_ids[0][mask[0]].tolist()]
    assert "".join(pieces) == "<think>standing, arms down</think><" and pieces[-1] == "><"
    first = encode_completions(pocket_policy, [true_response(("standing",), "reading", "answer-first")], [0])
    mask = part_masks(pocket_policy, first, thought_span)["thought"]
    text = "".join(pocket_policy.tokenizer.decode([i]) for i in first.completion_ids[0][mask[0]].tolist())
    assert text.endswith("think>standing</think>") and "reading" not in text


def test_gtrs_loss_adds_up_over_micro_batches(tiny_policy, scenes, shots):
    rollout = encode_completions(tiny_policy, [response("standing")] * 5, [0, 0, 0, 1, 1], origin="written")
    context = make_context(tiny_policy, scenes[:2], shots.labels, rollout, SETTINGS)
    with torch.no_grad():
        whole = thought_loss(rollout, context, 5)
        parts = [thought_loss(rollout.rows(rows), context, 5) for rows in ([0, 1], [2, 3], [4])]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_gtr_teaches_the_true_thought(tiny_policy, shots):
    recipe = find_recipe("gtr")
    recipe = replace(recipe, steps={**recipe.steps, "sample": written})
    settings = replace(SETTINGS, steps=4, prompts_per_step=4, group_size=2, learning_rate=3e-2)
    entropies = [record.metrics["thought"] for record in recipe.train(tiny_policy, shots, settings)]
    assert entropies == sorted(entropies, reverse=True) and entropies[-1] < entropies[0] - 0.3


def test_gtr_refuses_other_images_and_negative_weights(tiny_policy, tiny_examples):
    rollout = encode_completions(tiny_policy, [response("standing")], [0], origin="written")
    context = make_context(tiny_policy, tiny_examples[:1], ["reading"], rollout, SETTINGS)
    logps = torch.zeros(rollout.mask.shape)
    arguments = (logps, logps, None, torch.zeros(1), rollout.mask)
    with pytest.raises(ValueError, match="gtr_loss knows the facts of drawn scenes only, not of tiny/0"):
        gtr_loss(*arguments, rollout=rollout, context=context, beta=0.0)
    with pytest.raises(ArgumentError, match="thought is -1.0, but must not be negative"):
        gtr_loss(*arguments, rollout=rollout, context=context, beta=0.0, thought=-1.0)
    assert gtr_loss(*arguments, rollout=rollout, context=context, beta=0.0, thought=0.0)[0] == 0.0
    context.question = Question(["reading"], "answer")
    with pytest.raises(ValueError, match="gtr_loss pays for statements in the reasoning"):
        gtr_loss(*arguments, rollout=rollout, context=context, beta=0.0)


# ------------------------------------------------------------------------------------------------------------ care-slow


def test_cares_bonus_by_hand():
    """Group 0: accurate rows 0, 1 and 3 have 0.95 (capped), 0.5 and 0.8, mean 0.75. Group 1: nobody is right."""
    confidence = torch.tensor([0.99, 0.5, 0.99, 0.8, 0.9, 0.9])
    right, groups = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert care_bonus(confidence, right, groups, margin=0.0).tolist() == [0.5, 0.0, 0.0, 0.5, 0.0, 0.0]
    assert care_bonus(confidence, right, groups, bonus=0.2, margin=0.3).tolist() == pytest.approx(
        [0.2, 0.2, 0, 0.2, 0, 0]
    )
    capped = care_bonus(torch.tensor([0.99, 0.94]), torch.ones(2), torch.zeros(2), margin=0.006)
    assert capped.tolist() == [0.5, 0.5], "the mean is that of 0.95 and 0.94"
    homogeneous = care_bonus(torch.full((4,), 0.7), torch.ones(4), torch.zeros(4), margin=0.01)
    assert homogeneous.tolist() == [0.5] * 4, "no signal: the whole group has it"
    graded = care_bonus(torch.ones(3), torch.tensor([0.1, 0.4, 0.9]), torch.zeros(3))
    assert graded.tolist() == pytest.approx([0.0, 0.0, 0.45]), "below the group's mean, or no more than 0.1"


def test_the_slow_reference_scores_under_its_own_weights(tiny_policy, scenes, shots, monkeypatch):
    """With the image, behind the row's own reasoning, over the answer's tokens; an answer alone has no bonus."""
    label = scenes[0].label
    texts = [response("standing", answer=label), response("sitting", answer=label), f"<answer>{label}</answer>"]
    rollout = encode_completions(tiny_policy, texts, [0] * 3, origin="written")
    context = make_context(tiny_policy, scenes[:1], shots.labels, rollout, SETTINGS)
    slow = {name: torch.zeros_like(weight) for name, weight in tiny_policy.trainable_parameters()}
    scored = {}
    for kind, weights in (("own", {}), ("slow", slow)):
        with torch.no_grad(), tiny_policy.weights(weights):
            logps = score_completions(tiny_policy, context.prompts, rollout)  # (N, L)
        answer = part_masks(tiny_policy, rollout)["answer"]
        scored[kind] = (logps * answer).sum(dim=1).div(answer.sum(dim=1)).exp()[:2]
    assert not torch.allclose(scored["own"], scored["slow"], rtol=1e-2, atol=0.0)
    columns = {"label": [label] * 3, "groups": [0] * 3, "context": context, "margin": 0.0}
    confidences = []
    monkeypatch.setattr(care_slow, "care_bonus", lambda c, *others: confidences.append(c) or care_bonus(c, *others))
    for kind in ("own", "slow"):
        context.state = {} if kind == "own" else {"slow": slow}
        rewards = slow_confidence_reward(texts, **columns)
        assert torch.allclose(confidences[-1][:2], scored[kind], rtol=1e-4, atol=0.0)
        assert rewards == [0.5 * (p >= scored[kind].mean()).item() for p in scored[kind]] + [0.0]
        assert set(context.state) == ({"slow"} if kind == "slow" else set()), "changed after a step alone"
    assert slow_confidence_reward(texts, **columns | {"label": ["nothing"] * 3}) == [0.0] * 3
    with pytest.raises(ValueError, match="has other rows"):
        slow_confidence_reward(texts[:2], **columns)


def test_the_slow_weights_are_an_exponential_mean(tiny_policy, shots):
    """Of the weights after each step, from those that training began with; against a loop over them."""
    recipe = find_recipe("care-slow")
    recipe = replace(recipe, steps={**recipe.steps, "sample": written})
    settings = replace(SETTINGS, coefficients={"decay": 0.8})
    state = TrainingState.start(tiny_policy, recipe.applied_to(settings))
    expected = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    for _ in recipe.train(tiny_policy, shots, settings, resume=state):
        for name, weight in tiny_policy.trainable_parameters():
            expected[name] = 0.8 * expected[name] + 0.2 * weight.detach()
            assert torch.allclose(state.memory["slow"][name], expected[name], atol=1e-6)
    with pytest.raises(ArgumentError, match="decay is 1.5, but must"):
        keep_slowly(SimpleNamespace(), decay=1.5)
    with pytest.raises(ValueError, match="slow_confidence_reward has not been asked"):
        keep_slowly(SimpleNamespace(state={}, cache={}))


# ---------------------------------------------------------------------------------------------- vision-sr1 and listener


@pytest.mark.parametrize(
    "said",
    [
        "reading",
        "READING.",
        "re-ading reading",
        "the activity is reading",
        "readings",
        "studying",
        "looking into a book",
    ],
)
def test_evidence_has_no_label_in_it(said):
    """Nor another name that the drawn world has for it. What is left of it tells nothing."""
    left = evidence(response(said, "one hand up"), ["reading", "riding a bike"])
    assert "one hand up" in left and "read" not in left and "stud" not in left and "book" not in left


def test_evidence_keeps_what_is_seen():
    """Although "bike", "hands" and "fishing" are words of labels."""
    said = ("bike under the person", "hands together", "fishing rod in the hands", "sitting")
    assert evidence(response(*said), ["riding a bike", "waving hands", "fishing"]) == ", ".join(said)
    assert evidence("<answer>fishing</answer>", ["fishing"]) == evidence(response("fishing"), ["fishing"]) == ""
    assert evidence(response("a <|image_pad|> b"), ["fishing"]) == "a image pad b", "no special token is asked"


def test_the_blind_policy_reads_the_evidence_alone(tiny_policy, scenes, shots, monkeypatch):
    """One question a row, without image and label; right answers are paid, and a row that names the label is not
    asked."""
    labels = [scene.label for scene in scenes[:2]]
    texts = [response("standing", "one hand up"), response(labels[0]), "", response("sitting", labels[1])]
    context = make_context(tiny_policy, scenes[:2], shots.labels, None, SETTINGS)
    columns = {"label": [labels[0], labels[0], labels[1], labels[1]], "groups": [0, 0, 1, 1], "context": context}
    original, calls = rows.sample_groups, []

    def spy(policy, asked, group_size, max_new_tokens, temperature, seed, decoding):
        sampled = original(policy, asked, group_size, max_new_tokens, temperature, seed, decoding=decoding)
        calls.append((asked, seed, sampled))
        return SimpleNamespace(texts=["<answer>nothing</answer>", f"<answer>{labels[1]}</answer>"])

    monkeypatch.setattr(rows, "sample_groups", spy)
    assert blind_reward(texts, **columns, blind=0.7) == [0.0, 0.0, 0.0, 0.7]
    ((asked, seed, sampled),) = calls
    assert len(sampled) == 2 and asked.labels == labels and all(len(f) == 0 for f in asked.image_features)
    assert [text.split(".")[0] for text in asked.texts] == ["Seen: standing, one hand up", "Seen: sitting"]
    assert all("Name it inside <answer>" in text for text in asked.texts)
    blind_reward(texts, **columns)
    assert calls[1][1] != seed, "the generator of the step goes on"
    calls.clear()
    assert blind_reward(["", response(labels[0])], [labels[0]] * 2, [0, 0], context) == [0.0, 0.0] and not calls


def test_the_listener_is_the_reference_and_hears_no_label(tiny_policy, scenes, shots):
    """The probability of the whole label behind the evidence, with the image and the adapter off: one whole pass of
    each row, token by token."""
    label = scenes[0].label
    texts = [response("standing", answer="wrong"), response("standing", label, answer=label), "", response(label)]
    context = make_context(tiny_policy, scenes[:1], shots.labels, None, SETTINGS)
    rewards = listener_reward(texts, [label] * 4, [0] * 4, context, listener=1e6)
    assert rewards[0] == rewards[1] and rewards[2:] == [0.0, 0.0], "neither naming the label nor answering it pays"
    heard = encode_completions(tiny_policy, [response("standing", answer=label)], [0])
    with torch.no_grad(), tiny_policy.reference():
        logps = score_completions(tiny_policy, context.prompts, heard)[0]  # (L,)
    ids, total = heard.completion_ids[0].tolist(), 0.0
    pieces = [tiny_policy.tokenizer.decode(ids[: end + 1]) for end in range(len(ids))]
    start, stop = pieces[-1].index(label), pieces[-1].index("</answer>") + len("</answer")
    for i, piece in enumerate(pieces):
        if len(piece) > start and (len(pieces[i - 1]) if i else 0) < stop:
            total += logps[i].item()
    assert math.log(rewards[0] / 1e6) == pytest.approx(total, abs=1e-3)


def test_care_is_as_it_was():
    """The study's cells were trained with it."""
    care = find_recipe("care")
    assert [reward.__name__ for reward in care.steps["rewards"]] == [
        "accuracy_reward", "format_reward", "right_consistency_reward",
    ]  # fmt: skip
    assert not care.coefficients and not care.settings and format_reward in care.steps["rewards"]
