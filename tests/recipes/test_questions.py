"""Recipes that change what is asked: which question comes when, its right answers by hand, what the rewards pay for and
what they refuse, and that a resumed run asks the same."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from favor_lab import FewShot, GRPOSettings, Question, draw_scene
from favor_lab.activities import Example
from favor_lab.activities.world import STATEMENTS
from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.steps import named_rewards
from favor_lab.recipes import find_recipe, pebr
from favor_lab.recipes.aepo import SeveralNames, aepo_reward, ask_for_several, efficiency, ranked_names
from favor_lab.recipes.critic import better_task, compare_first
from favor_lab.recipes.curr_reft import choice_task, curriculum, curriculum_reward, jaccard
from favor_lab.recipes.facts import statement_scores, true_statements
from favor_lab.recipes.jigsaw import jigsaw_reward, order_score, puzzle_first
from favor_lab.recipes.pebr import RIGHT, easy_first, perception_reward, reasoning_reward, remember
from favor_lab.recipes.rewardmap import detail_reward, staged
from favor_lab.recipes.tasks import Task, fair_coins, stage_at, task_reward, yes_no_task
from favor_lab.recipes.vicrit import KINDS, criticise_first, with_a_false_one
from favor_lab.recipes.views import shuffled
from favor_lab.vlm.prompts import ask_order, ask_yes_no
from recipe_runs import even_ids, run, same
from tiny import make_context, make_policy

SETTINGS = GRPOSettings(steps=4, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)
OFF = {
    "aepo": {"most": 0},
    "critic": {"proxy": 0.0},
    "curr-reft": {"yes_no": 0.0, "choice": 0.0, "partial": 0.0},
    "jigsaw": {"proxy": 0.0},
    "pebr": {"stage1": 0.0},
    "rewardmap": {"detail": 0.0, "yes_no": 0.0, "false_statement": 0.0},
    "vicrit": {"proxy": 0.0},
}
PHONING = "cartoon/test/000006"


def scene_example(index, split="train"):
    scene = draw_scene("cartoon", split, index)
    return Example(scene.image, str(scene.label), scene.source)


@pytest.fixture(scope="module")
def scenes():
    return [scene_example(index) for index in range(4)]


@pytest.fixture(scope="module")
def labels(scenes):
    return sorted(scene.label for scene in scenes)


@pytest.fixture
def shots(scenes, labels):
    return FewShot(scenes, [], [], labels)


@pytest.fixture
def context(tiny_policy, scenes, labels):
    return make_context(tiny_policy, scenes, labels, None, SETTINGS)


def at(context, step=0, progress=0.0, **changes):
    """The context of another step, with the generator of that step."""
    generator = torch.Generator().manual_seed(step)
    return replace(context, step=step, progress=progress, generator=generator, cache={}, **changes)


def answered(*answers):
    return [f"<think>a page</think><answer>{answer}</answer>" for answer in answers]


def take_steps(policy, recipe, shots, settings, stop=None, folder=None):
    """All steps of a recipe, with one more reward, which random weights earn: what was learnt from, and the weights at
    the end. With `stop`, it is saved after that many steps, and a policy that was changed meanwhile goes on."""
    own = named_rewards(recipe.steps.get("rewards", (accuracy_reward, format_reward)))
    recipe = replace(recipe, steps={**recipe.steps, "rewards": {**own, "even_ids": even_ids}})
    records, _ = run(policy, recipe, shots, settings, stop, folder)
    facts = [(r.loss, r.grad_norm, r.kl, r.reward, [row["text"] for row in r.samples]) for r in records]
    return facts, {name: weight.detach().clone() for name, weight in policy.trainable_parameters()}


# ------------------------------------------------------------------------------------------------- what all promise


@pytest.fixture
def measured(monkeypatch):
    """The measurements of `pebr`, each of which finds one image solved: random weights solve none."""
    calls = []
    monkeypatch.setattr(pebr, "count_right_responses", lambda *_: calls.append("measured") or [8, 7, 0, 0])
    return calls


@pytest.mark.parametrize("name", OFF)
def test_with_its_coefficients_at_0_it_is_plain_grpo(tiny_checkpoint, shots, tmp_path, measured, name):
    """Bit for bit, rewards included, over three steps with a resume in between; and with its own ones it is not."""
    recipe, three = find_recipe(name), replace(SETTINGS, steps=3)
    assert set(OFF[name]) == set(recipe.coefficients)
    expected = take_steps(make_policy(tiny_checkpoint), find_recipe(""), shots, three)
    off = replace(three, coefficients=OFF[name])
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, off, 2, tmp_path), expected)
    assert not measured
    assert not same(take_steps(make_policy(tiny_checkpoint), recipe, shots, three), expected)


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_is_the_same(tiny_checkpoint, shots, tmp_path, measured, name, stop):
    """Also between the two updates of a rollout; and what was measured is not measured again."""
    settings, recipe = replace(SETTINGS, updates_per_rollout=2), find_recipe(name)
    unbroken = take_steps(make_policy(tiny_checkpoint), recipe, shots, settings)
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, stop, tmp_path), unbroken)
    assert len(measured) == 2 * (name == "pebr")


REWARDS = [(name, find_recipe(name).steps["rewards"]) for name in OFF]


@pytest.mark.parametrize(("name", "functions"), REWARDS)
def test_with_its_coefficients_at_0_its_rewards_are_those_of_plain_grpo(context, name, functions):
    first = context.examples[0]
    texts = [*answered(first.label, "dancing", f"{first.label}, dancing", ""), f"<answer>{first.label}</answer>", ""]
    columns = {"label": [first.label] * len(texts), "source": [first.source] * len(texts), "context": context}
    rows = [function(texts, **columns, **OFF[name]) for function in functions]
    plain = [accuracy_reward(texts, columns["label"]), format_reward(texts)]
    assert [sum(row) for row in zip(*rows, strict=True)] == [sum(row) for row in zip(*plain, strict=True)]


STAGED = {"critic": (compare_first, (0.5,)), "jigsaw": (puzzle_first, (0.5,)), "vicrit": (criticise_first, (0.5,))}
STAGED |= {"curr-reft": (curriculum, (0.2, 0.3)), "rewardmap": (staged, (0.2, 0.2))}


@pytest.mark.parametrize(("step", "shares"), STAGED.values(), ids=STAGED)
def test_proxy_tasks_come_first_and_the_runs_own_question_last(context, step, shares):
    def asked(progress):
        question = step(context.examples, context=at(context, progress=progress))
        return question[1] if isinstance(question, tuple) else question

    for progress in np.arange(0, 1, 0.1):
        question = asked(progress)
        assert isinstance(question, Task) == (progress < sum(shares) - 1e-9)
        assert question.style == "think" and question.labels == context.question.labels
    assert asked(0.99) is context.question


@pytest.mark.parametrize(("step", "shares"), STAGED.values(), ids=STAGED)
def test_what_is_asked_is_a_function_of_the_step(context, step, shares):
    def asked(number):
        question = step(context.examples, context=at(context, step=number))
        question = question[1] if isinstance(question, tuple) else question
        return question.texts, question.answers

    assert asked(3) == asked(3) and len({str(asked(number)) for number in range(4)}) > 1


def test_a_task_is_a_question_and_knows_its_answers(context):
    task = yes_no_task(context.examples, context)
    assert (
        task == Task(context.labels) and hash(task) == hash(Task(context.labels)) and task != Question(context.labels)
    )
    source = [example.source for example in context.examples]
    completions = answered(*[task.answers[name] for name in source])
    here = replace(context, question=task)
    assert task_reward(completions, context.examples[0].label, source, here) == [1.0] * 4
    flipped = answered(*["no" if task.answers[name] == "yes" else "yes" for name in source])
    assert task_reward(flipped, [], source, here) == [0.0] * 4
    hacks = ["yes or no", "yes, no", "yes no", "", "y", context.examples[0].label]
    assert set(task_reward(answered(*hacks), [], source[:1] * len(hacks), here)) == {0.0}


def test_stages_need_shares():
    assert [stage_at(progress, 0.0, 0.0) for progress in (0.0, 0.5)] == [2, 2]
    assert stage_at(0.99, 1.0) == 0
    for shares in ((0.6, 0.5), (-0.1, 0.5), (1.5,)):
        with pytest.raises(ValueError, match="at most 1 in all"):
            stage_at(0.0, *shares)


# ------------------------------------------------------------------------------------------------ balance of answers


@pytest.mark.parametrize(("task", "word"), [(yes_no_task, "yes"), (better_task, "1")])
def test_both_answers_are_right_equally_often(context, task, word):
    """In each step, of each image, and of an odd number of images over two rollouts."""
    right = Counter()
    for step in range(60):
        answers = task(context.examples, at(context, step=step)).answers
        assert list(answers.values()).count(word) == 2
        right.update(source for source, answer in answers.items() if answer == word)
    assert all(15 <= right[example.source] <= 45 for example in context.examples)
    odd = [list(task(context.examples[:3], at(context, step=s)).answers.values()).count(word) for s in range(4)]
    assert odd == [2, 1, 2, 1]
    assert fair_coins(0, 0, Random(0)) == []


def test_yes_no_asks_about_the_label_or_another_one(context):
    task = yes_no_task(context.examples, context)
    for example in context.examples:
        if task.answers[example.source] == "yes":
            assert task.text(example) == ask_yes_no(example.label)
        else:
            others = [ask_yes_no(label) for label in context.shots.labels if label != example.label]
            assert task.text(example) in others


def test_one_label_has_no_wrong_one(context):
    alone = replace(context, shots=FewShot(context.examples[:1], [], [], [context.examples[0].label]))
    with pytest.raises(ValueError, match="the run has one label, '.*add a label"):
        for step in range(2):
            yes_no_task(context.examples[:1], at(alone, step=step))


# ------------------------------------------------------------------------------------------------------------- AEPO


def test_aepos_reward_by_hand():
    table = {"A": 1.0, "AB": 1 / math.sqrt(2), "BA": 0.5, "ABC": 3**-0.5, "BAC": 6**-0.5, "BCA": 1 / 3}
    table |= {"B": -1.0, "BC": -0.5, "BCD": -1 / 3}
    assert {names: efficiency(names, "A") for names in table} == pytest.approx(table)


def test_two_names_are_worth_more_than_one_below_a_bound():
    """p2 > (2 - 1/sqrt(2) - 1/2) p1 - 1/2."""
    for p1 in (0.2, 0.5, 0.62, 0.7, 0.9):
        for p2 in (0.0, 0.05, 0.1, 0.3):
            one = p1 * efficiency("A", "A") + (1 - p1) * efficiency("A", "B")
            two = p1 * efficiency("AB", "A") + p2 * efficiency("AB", "B") + (1 - p1 - p2) * efficiency("AB", "C")
            assert (two > one) == (p2 > (1.5 - math.sqrt(0.5)) * p1 - 0.5)


def test_to_name_all_pays_more_than_one_blind_guess():
    """Why the number of names is limited: 6 of 6 labels are paid 0.25 on average, one of 6 is paid -0.67."""
    everything = np.mean([efficiency("ABCDEF", name) for name in "ABCDEF"])
    assert (everything, 1 / 6 - 5 / 6) == pytest.approx((0.248, -0.667), abs=1e-3)


def test_a_malformed_response_is_minus_1_in_all(context):
    first, second, third, fourth = context.shots.labels
    asked = replace(context, question=ask_for_several(context.examples, context=context))
    assert isinstance(asked.question, SeveralNames) and "up to three" in asked.question.text(context.examples[0])
    hacks = answered(
        f"{first}, {first}", f"{first}, {first.upper()}.", f"{first}, dancing", f"{first},", f"{first} or {second}",
        f"{first}, {second}, {third}, {fourth}", "", "not " + first, f"<answer>{first}", first + ";" + second,
    )  # fmt: skip
    hacks += ["", f"<answer>{first}</answer>", first, f"<think></think><answer>{first}</answer>"]
    for weighed in (aepo_reward(hacks, [first] * len(hacks), asked), format_reward(hacks)):
        assert len(weighed) == len(hacks)
    total = np.add(aepo_reward(hacks, [first] * len(hacks), asked), format_reward(hacks))
    assert total.tolist() == [-1.0] * len(hacks)
    good = answered(first, f"{second}, {first}", second)
    assert aepo_reward(good, [first] * 3, asked) == [1.0, 0.5, -1.0]
    assert aepo_reward(good, [first] * 3, asked, most=1) == [1.0, -2.0, -1.0]


def test_without_a_list_any_name_will_do():
    assert ranked_names("<answer>flying, Reading</answer>", None) == ["flying", "reading"]
    assert ranked_names("<answer>flying, flying</answer>", None) is None and ranked_names("flying", None) is None


def test_aepo_refuses_what_its_prompt_cannot_ask(context):
    with pytest.raises(ValueError, match="most is 4: the prompt asks for up to 3"):
        ask_for_several(context.examples, context=context, most=4)
    comma = replace(context, shots=FewShot(context.examples, [], [], ["lying, on the back", "reading"]))
    with pytest.raises(ValueError, match="the label 'lying, on the back' has one: rename it"):
        ask_for_several(context.examples, context=comma)
    assert ask_for_several(context.examples, context=comma, most=0) is context.question


# -------------------------------------------------------------------------------------------------------- Curr-ReFT


def test_the_letter_is_that_of_the_label(context):
    for step in range(10):
        task = choice_task(context.examples, at(context, step=step), options=3)
        for example in context.examples:
            letter = task.answers[example.source]
            assert f"{letter} {example.label}" in task.text(example) and letter in "ABC"
            assert task.text(example).count(", ") == 3  # between three options, and before "then"
    assert "D " in choice_task(context.examples, context, options=26).text(context.examples[0])  # all four of the run
    for options in (1, 27):
        with pytest.raises(ValueError, match=f"options is {options}: a choice by letter has 2 to 26"):
            choice_task(context.examples, context, options=options)


def test_the_stages_of_the_curriculum(context):
    asked = [curriculum(context.examples, context=at(context, progress=step / 10)) for step in range(10)]
    starts = [question.text(context.examples[0])[:22] for question in asked]
    assert [start[:7] for start in starts] == ["Is this"] * 2 + ["Which a"] * 8
    assert [question is context.question for question in asked] == [False] * 5 + [True] * 5


def test_jaccard_by_hand():
    cases = {"a": 1.0, "a, b": 0.5, "b, a, c": 1 / 3, "b": 0.0, "b, c": 0.0, "a, a": 0.5, "A.": 1.0, "": 0.0}
    cases |= {"a or b": 0.0, "not a": 0.0, ", , a": 1 / 3}
    assert {answer: jaccard(f"<answer>{answer}</answer>", "a") for answer in cases} == pytest.approx(cases)
    assert jaccard("a", "a") == 0.0  # no answer
    assert jaccard("<answer>x, y</answer>", "x, y") == 1.0 and jaccard("<answer>x</answer>", "x, y") == 0.0


def test_a_list_is_paid_the_mean_chance_of_its_names():
    chances = {"a": 0.5, "b": 0.3, "c": 0.2}
    for names in ("a", "b", "ab", "abc", "bc"):
        paid = sum(chance * jaccard(f"<answer>{','.join(names)}</answer>", label) for label, chance in chances.items())
        assert paid == pytest.approx(np.mean([chances[name] for name in names])) and paid <= 0.5 + 1e-9


def test_lists_are_paid_in_the_last_stage_alone(context):
    first, second = context.shots.labels[:2]
    columns = {"label": [first] * 2, "source": [context.examples[0].source] * 2}
    texts = answered(first, f"{second}, {first}")
    assert curriculum_reward(texts, **columns, context=context) == [1.0, 0.5]
    assert curriculum_reward(texts, **columns, context=context, partial=0.5) == [1.0, 0.25]
    stage_1 = replace(context, question=yes_no_task(context.examples, context))
    assert curriculum_reward(answered("yes, no", "no, yes"), **columns, context=stage_1) == [0.0, 0.0]
    with pytest.raises(ValueError, match="partial is 2"):
        curriculum_reward(texts, **columns, context=context, partial=2)


# ----------------------------------------------------------------------------------------------------------- ViCrit


@pytest.fixture(scope="module")
def truths():
    return [draw_scene("sketch", "train", index).truth.statements for index in range(64)]


def test_one_statement_is_false_and_of_the_kind_of_the_one_it_replaces(truths):
    for index, true in enumerate(truths):
        listed, false = with_a_false_one(true, Random(index))
        assert 2 <= len(listed) <= 4 and len(set(listed)) == len(listed) == min(4, len(true))
        assert [statement for statement in listed if statement not in true] == [false] and false in STATEMENTS
        kinds = Counter(next(k for k, kind in enumerate(KINDS) if s in kind) for s in listed)
        true_kinds = Counter(next(k for k, kind in enumerate(KINDS) if s in kind) for s in true)
        assert not kinds - true_kinds


def test_the_false_statement_is_no_half_truth(truths):
    for index, true in enumerate(truths * 4):
        false = with_a_false_one(true, Random(index))[1]
        thing = false.removesuffix(" nearby").removesuffix(" in a hand")
        assert not any(thing in statement for statement in true)


def test_neither_place_nor_kind_gives_the_false_statement_away(truths):
    """Of 2,000 lists of four: each place, and each of the four kinds, 500 times, within four standard deviations."""
    true = ("standing", "hand at the ear", "phone at the ear", "tree nearby")
    places, kinds = Counter(), Counter()
    for seed in range(2000):
        listed, false = with_a_false_one(true, Random(seed))
        places[listed.index(false)] += 1
        kinds[next(k for k, kind in enumerate(KINDS) if false in kind)] += 1
    for counts in (places, kinds):
        assert len(counts) == 4 and all(420 < count < 580 for count in counts.values())


def test_only_the_false_statement_is_paid(context):
    task = criticise_first(context.examples, context=context)
    here, source = replace(context, question=task), context.examples[0].source
    false, true = task.answers[source], true_statements([source], "vicrit")[0]
    listed = task.text(context.examples[0]).split(": ")[1].split("?")[0]
    hacks = [listed, f"{false}, {true[0]}", f"not {false}", true[0], "", "statement", context.examples[0].label]
    assert task_reward(answered(false, *hacks), [], [source] * 8, here) == [1.0] + [0.0] * 7
    with pytest.raises(ValueError, match="a list of 1 leaves nothing to choose"):
        criticise_first(context.examples, context=context, statements=1)


@pytest.mark.parametrize("name", ["vicrit", "rewardmap", "pebr"])
def test_images_of_which_nothing_is_known_are_refused(tiny_policy, tiny_examples, name):
    shots = FewShot(tiny_examples, [], [], [example.label for example in tiny_examples])
    with pytest.raises(ValueError, match=f"{name} knows the facts of drawn scenes only, not of tiny/.*on a drawn set"):
        list(find_recipe(name).train(tiny_policy, shots, SETTINGS))
    off = replace(SETTINGS, steps=1, coefficients=OFF[name])
    assert len(list(find_recipe(name).train(tiny_policy, shots, off))) == 1


@pytest.mark.parametrize("name", ["aepo", "critic", "curr-reft", "jigsaw"])
def test_the_others_take_any_image(tiny_policy, tiny_examples, name):
    shots = FewShot(tiny_examples, [], [], [example.label for example in tiny_examples])
    assert len(list(find_recipe(name).train(tiny_policy, shots, replace(SETTINGS, steps=1)))) == 1


# ----------------------------------------------------------------------------------------------------------- critic


def test_the_right_answer_stands_at_the_number_that_is_paid(context):
    for step in range(6):
        task = better_task(context.examples, at(context, step=step))
        for example in context.examples:
            text, number = task.text(example), task.answers[example.source]
            first, second = text.split(": 1 ")[1].split("? ")[0].split("; 2 ")
            assert (first, second)[int(number) - 1] == example.label != (second, first)[int(number) - 1]


# ----------------------------------------------------------------------------------------------------------- jigsaw


def test_every_order_is_undone_by_its_answer():
    """Quarter i of the shuffled image belongs to place order[i]: put there, it gives the image again."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8))
    whole = np.asarray(image)[:8, :14]
    corners = [(0, 0), (0, 7), (4, 0), (4, 7)]
    for order in permutations((1, 2, 3, 4)):
        pieces, restored = np.asarray(shuffled(image, order)), np.zeros_like(whole)
        assert pieces.shape == whole.shape
        for (y, x), number in zip(corners, order, strict=True):
            to_y, to_x = corners[number - 1]
            restored[to_y : to_y + 4, to_x : to_x + 7] = pieces[y : y + 4, x : x + 7]
        assert (restored == whole).all()


def test_the_partial_reward_by_hand():
    """1; 0.2 times the share of right places; of all 24 orders 1 has four right places, 6 two, 8 one and 9 none."""
    answers = [" ".join(order) for order in permutations("1234")]
    scores = Counter(order_score(f"<answer>{answer}</answer>", "2 4 1 3") for answer in answers)
    assert scores == {1.0: 1, 0.1: 6, 0.05: 8, 0.0: 9}
    for answer in answers:  # a fixed order earns the same, whichever it is
        paid = [order_score(f"<answer>{answer}</answer>", right) for right in answers]
        assert np.mean(paid) == pytest.approx((1 + 6 * 0.1 + 8 * 0.05) / 24)


@pytest.mark.parametrize(
    "hack",
    ["", "1", "1 1 1 1", "2 2 1 3", "2 4 1 3 2 4 1 3", "2 4 1", "2413", "2 4 1 3 or 1 2 3 4", "0 1 2 3", "2 4 1 5",
     "2  4 1 3 .", "top left", "\u0662 4 1 3"],
)  # fmt: skip
def test_what_is_no_order_earns_nothing(hack):
    assert order_score(f"<answer>{hack}</answer>", "2 4 1 3") == 0.0
    assert order_score(hack, "2 4 1 3") == 0.0


def test_shuffled_images_are_asked_about(context, tiny_policy):
    examples, task = puzzle_first(context.examples, context=context)
    for example, before in zip(examples, context.examples, strict=True):
        order = [int(number) for number in task.answers[before.source].split()]
        assert sorted(order) == [1, 2, 3, 4] and (example.label, example.source) == (before.label, before.source)
        assert (np.asarray(example.image) == np.asarray(shuffled(before.image.convert("RGB"), order))).all()
        assert task.text(example) == ask_order("think")
    here = replace(context, question=task)
    source = examples[0].source
    wrong = answered(examples[0].label, "1 1 1 1")
    assert jigsaw_reward(answered(task.answers[source]), [""], [source], here) == [1.0]
    assert jigsaw_reward(wrong, ["", ""], [source] * 2, here) == [0.0, 0.0]
    with pytest.raises(ValueError, match="partial is 1.0"):
        jigsaw_reward(wrong, ["", ""], [source] * 2, here, partial=1.0)
    with pytest.raises(ValueError, match=r"tiny has \(1, 9\) pixels.*leave it out"):
        puzzle_first([Example(Image.new("RGB", (1, 9)), "reading", "tiny")], context=context)


# -------------------------------------------------------------------------------------------------------- RewardMap


def test_detail_by_hand():
    """Four statements hold in this scene: sitting, hand at the ear, phone at the ear, and one more."""
    (known,) = true_statements([PHONING], "rewardmap")
    assert len(known) == 4
    cases = {
        ", ".join(known): 1.0,
        ", ".join(known[:2]): 0.5,
        f"{known[0]}. standing": 0.0,
        "standing, running": -0.5,
        f"{known[0]}, {known[0]}; {known[0]}": 0.25,
        ", ".join(STATEMENTS): -1.0,
        "a person who does something": -0.25,
    }
    scores = statement_scores([f"<think>{text}</think>" for text in cases], [PHONING] * len(cases))
    assert scores == pytest.approx(list(cases.values()))
    everything = f"<think>{', '.join(STATEMENTS)}</think>"
    assert statement_scores([everything], [PHONING], price=0) == [1.0]  # what the price is for
    assert statement_scores([f"<think>{known[0]}. standing</think>"], [PHONING], price=0.5) == pytest.approx([0.125])
    outside = [", ".join(known), f"<answer>{', '.join(known)}</answer>", "", "<think></think>"]
    assert statement_scores(outside, [PHONING] * 4) == [0.0] * 4
    with pytest.raises(ValueError, match="price is -1"):
        statement_scores([""], [PHONING], price=-1)


def test_detail_is_for_the_last_question_and_a_style_with_reasoning(context):
    (known,) = true_statements([PHONING], "rewardmap")
    texts = [f"<think>{known[0]}</think><answer>phoning</answer>"]
    assert detail_reward(texts, [PHONING], context) == [0.125]
    assert detail_reward(texts, [PHONING], replace(context, question=yes_no_task(context.examples, context))) == [0.0]
    assert detail_reward(texts, ["photo.jpg"], context, detail=0.0) == [0.0]
    with pytest.raises(ValueError, match="rewardmap pays for statements in the reasoning, and style='answer'"):
        detail_reward(texts, [PHONING], replace(context, question=Question(context.labels, "answer")))
    with pytest.raises(ValueError, match="detail is -1"):
        detail_reward(texts, [PHONING], context, detail=-1)


def test_a_weight_of_all_rewards_of_a_prompt_cancels_under_the_std():
    """RewardMap's difficulty weight acts without the division alone; next to an unweighted format it acts in part."""
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.0], [1.5, 1.0, 0.0, 0.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0], [1.5]], dtype=torch.float64)
    plain, weighed = (group_advantages(r, eps=0.0) for r in (rewards, weights * rewards))
    assert torch.allclose(plain, weighed, rtol=1e-12)
    plain, weighed = (group_advantages(r, scale="none") for r in (rewards, weights * rewards))
    assert torch.allclose(weights * plain, weighed, rtol=1e-12)
    form = torch.tensor([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    plain, weighed = (group_advantages(r + form, eps=0.0) for r in (rewards, weights * rewards))
    assert torch.allclose(plain[0], weighed[0]) and not torch.allclose(plain[1], weighed[1])


# ------------------------------------------------------------------------------------------------------------- PeBR


def with_counts(monkeypatch, rights):
    """Sampling that gives this many right responses for each image, one more of them per call; and its calls."""
    calls = []

    def fake(policy, prompts, group_size, max_new_tokens, temperature, seed, decoding):
        calls.append((len(prompts), group_size, seed))
        texts = []
        for label in prompts.labels:
            right = rights[label]
            texts += answered(*[label] * right, *["dancing"] * (group_size - right))
        groups = torch.arange(len(prompts)).repeat_interleave(group_size)
        return SimpleNamespace(texts=texts, groups=groups)

    monkeypatch.setattr("favor_lab.recipes.rows.sample_groups", fake)
    return calls


def test_stage_1_shows_the_easy_images(context, monkeypatch):
    """Measured once, two images at a time, with 8 responses each; kept after the step; as many images as else."""
    rights = dict(zip([example.label for example in context.examples], (8, 3, 8, 0), strict=True))
    calls = with_counts(monkeypatch, rights)
    first = at(context)
    chosen, question = easy_first(context.examples[:2], context=first)
    assert question is context.question and [size for size, _, _ in calls] == [2, 2]
    assert {group for _, group, _ in calls} == {8} and len({seed for *_, seed in calls}) == 2
    assert {example.source for example in chosen} == {context.examples[0].source, context.examples[2].source}
    assert first.state == {}  # changed after the step alone
    remember(first)
    assert first.state == {RIGHT: [8, 3, 8, 0]}
    for step in range(1, 5):
        later = at(context, step=step, progress=0.1, state=first.state)
        examples = easy_first(context.examples[:2], context=later)[0]
        assert len(examples) == 2 and all(rights[example.label] == 8 for example in examples)
        remember(later)
    assert len(calls) == 2 and first.state == {RIGHT: [8, 3, 8, 0]}
    assert easy_first(context.examples[:1], context=at(context, progress=0.34))[0] == context.examples[:1]


def test_without_a_solved_image_the_best_ones_are_easy(context, monkeypatch):
    with_counts(monkeypatch, dict(zip([example.label for example in context.examples], (1, 3, 2, 3), strict=True)))
    seen = {e.source for step in range(4) for e in easy_first(context.examples, context=at(context, step=step))[0]}
    assert seen == {context.examples[1].source, context.examples[3].source}


def test_stage_1_pays_perception_and_stage_2_the_answer(context):
    (known,) = true_statements([PHONING], "pebr")
    texts = [f"<think>{', '.join(known)}</think><answer>dancing</answer>", *answered("phoning")]
    columns = {"label": ["phoning"] * 2, "source": [PHONING] * 2}
    first, second = at(context), at(context, progress=0.5)
    assert reasoning_reward(texts, columns["label"], first) == [0.0, 0.0]
    assert reasoning_reward(texts, columns["label"], second) == [0.0, 1.0]
    assert perception_reward(texts, columns["source"], first) == [4.0, -1.0]
    assert perception_reward(texts, columns["source"], second) == [0.0, 0.0]
    assert perception_reward([f"<think>{', '.join(STATEMENTS)}"], [PHONING], first) == [-4.0]


def test_what_was_measured_survives_a_checkpoint(tiny_policy, shots, tmp_path):
    recipe = find_recipe("pebr")
    state = TrainingState.start(tiny_policy, recipe.applied_to(SETTINGS))
    next(recipe.train(tiny_policy, shots, SETTINGS, resume=state))
    assert len(state.memory[RIGHT]) == 4
    save_checkpoint(tmp_path, state)
    assert load_checkpoint(tmp_path, tiny_policy).memory == state.memory


def test_pebr_refuses_what_it_cannot_measure(context):
    with pytest.raises(ValueError, match="samples is 0"):
        easy_first(context.examples, context=context, samples=0)
    answer_only = replace(context, question=Question(context.labels, "answer"))
    with pytest.raises(ValueError, match="pebr pays for statements in the reasoning"):
        easy_first(context.examples, context=answer_only)
