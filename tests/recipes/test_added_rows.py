"""ViSurf, TempSamp-R1, ARPO, DAPO with dynamic sampling and credit by segment: which rows enter a group, what they are
worth, by hand; what may not enter; and that a resumed run is the same."""

import math
from dataclasses import replace

import pytest
import torch

from favor_lab import FewShot, GRPOSettings, grpo_loss, load_policy
from favor_lab.grpo.advantages import group_advantages, to_groups
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import encode_completions, sample_groups
from favor_lab.grpo.support.checkpoints import TrainingState
from favor_lab.grpo.training import train
from favor_lab.recipes import amft, find_recipe, tempsamp
from favor_lab.recipes.arpo import BUFFER, arpo_keep, arpo_select, image_keys
from favor_lab.recipes.credit import credit_advantages
from favor_lab.recipes.dapo_dynamic import dynamic_select, mixed_groups
from favor_lab.recipes.rows import answer_tokens, label_rows, rewarded, right_rows, rows_of_ids
from favor_lab.recipes.tempsamp import shaped_reward, tempsamp_advantages, tempsamp_sample
from favor_lab.recipes.visurf import visurf_advantages, visurf_select
from favor_lab.vlm.question import Question
from recipe_runs import even_ids, same, take_steps
from tiny import LABELS, make_context, make_policy

SETTINGS = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=60, learning_rate=1e-3, beta=0.0)
OFF = {
    "visurf": {"label_weight": 0.0},
    "tempsamp": {"anchor": 0.0, "floor": 0.0},
    "arpo": {"capacity": 0},
    "dapo-dynamic": {"retries": 0},
    "credit": {"split": 0.0},
}
BOTH = {"accuracy_reward": accuracy_reward, "format_reward": format_reward}
WRONG, RIGHT = "<think>wheels.</think><answer>{other}</answer>", "<think>wheels.</think><answer>{label}</answer>"
BARE, MUMBLE = "<answer>{label}</answer>", "{other}"


def worded(pattern, label):
    """A response that means to answer with a label, or with another one."""
    return pattern.format(label=label, other=LABELS[LABELS.index(label) - 1])


def written(plan):
    """A sample step whose completions are written: plan(step, label) gives the patterns of a group, repeated to its
    size. They count as sampled. It also stands for `sample_groups` where a recipe calls that, without a step."""

    def sample(policy, prompts, group_size, *arguments, context=None, **settings):
        groups = [b for b in range(len(prompts)) for _ in range(group_size)]
        step = context.step if context else None
        patterns = [plan(step, label) for label in prompts.labels]
        texts = [
            worded(patterns[b][n % group_size % len(patterns[b])], prompts.labels[b]) for n, b in enumerate(groups)
        ]
        return encode_completions(policy, texts, groups, origin="sampled", group_size=group_size)

    return sample


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


@pytest.fixture
def make_step(tiny_policy, tiny_examples):
    """A context whose rollout is written: one list of patterns for each of the first images, in ragged groups; with
    rewards."""

    def made(*patterns, rewards=None, **changes):
        settings = replace(SETTINGS, **changes)
        context = make_context(tiny_policy, tiny_examples[: len(patterns)], LABELS, None, settings)
        context.reward_functions = rewards or {"accuracy_reward": accuracy_reward}
        groups = [b for b, group in enumerate(patterns) for _ in group]
        texts = [worded(pattern, LABELS[b]) for b, group in enumerate(patterns) for pattern in group]
        rows = encode_completions(tiny_policy, texts, groups, origin="sampled", group_size=len(patterns[0]))
        context.rollout = rows
        context.rollout = context.compute_rewards(rows)
        return context

    return made


def table_of(rollout, weights=None):
    """The summed rewards as the loop hands them to `advantages`: (B, G)."""
    return to_groups(rollout.total_rewards(weights), rollout.groups)[0]


def selected(context, select, **coefficients):
    """The rows that `select` makes of the step's, which the loop then makes the context's."""
    context.rollout = select(context.rollout, context=context, **coefficients)
    return context.rollout


# --------------------------------------------------------------------------------------------- what all of them promise


@pytest.mark.parametrize("name", OFF)
def test_with_its_coefficients_at_0_it_is_plain_grpo(tiny_checkpoint, shots, tmp_path, name):
    """Bit for bit, over three steps with a resume in between; `dapo-dynamic` has `dapo`'s settings."""
    recipe, plain = find_recipe(name), find_recipe("dapo" if name == "dapo-dynamic" else "")
    assert set(OFF[name]) == set(recipe.coefficients)
    settings = replace(SETTINGS, max_new_tokens=6, beta=0.04)
    expected = take_steps(make_policy(tiny_checkpoint), plain, shots, settings, 2, tmp_path / "plain")
    off = replace(settings, coefficients=OFF[name])
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, off, 2, tmp_path / "off"), expected)


def solved_in_the_first_epoch(step, label):
    return [RIGHT, WRONG] if step is None or step < 4 else [WRONG, WRONG, MUMBLE]


@pytest.fixture
def acting(monkeypatch):
    """Steps with which a recipe has something to do, in every epoch of four steps."""

    def steps(name):
        monkeypatch.setattr(tempsamp, "sample_groups", written(lambda step, label: [WRONG, MUMBLE]))
        monkeypatch.setattr("favor_lab.recipes.rows.sample_groups", written(lambda step, label: [RIGHT, WRONG]))
        plan = (lambda step, label: [[WRONG], [RIGHT, WRONG]][label < "o"]) if name == "dapo-dynamic" else None
        return {"rewards": BOTH} | (
            {} if name == "tempsamp" else {"sample": written(plan or solved_in_the_first_epoch)}
        )

    return steps


@pytest.mark.parametrize("name", OFF)
def test_a_resumed_run_is_the_same(tiny_checkpoint, shots, tmp_path, acting, name):
    """Between the two updates of a rollout and after them; the method acts before the interruption and after it."""
    recipe, steps = find_recipe(name), acting(name)
    settings = replace(SETTINGS, steps=8, updates_per_rollout=2)
    runs = [take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, **steps)]
    for stop in (4, 5):
        runs.append(
            take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, stop, tmp_path / f"{stop}", **steps)
        )
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    plain = take_steps(make_policy(tiny_checkpoint), find_recipe(""), shots, settings, **steps)
    assert not same((plain[0][4:], plain[1]), (runs[0][0][4:], runs[0][1])), "it did nothing"
    origins = {sample["origin"] for record in runs[0][0][4:] for sample in record["samples"]}
    added = {"visurf": "label", "tempsamp": "label", "arpo": "replayed"}
    assert origins == {"sampled", added.get(name, "sampled")}


@pytest.mark.slow
@pytest.mark.parametrize("name", OFF)
def test_no_tensor_is_on_the_wrong_device(cuda, tiny_checkpoint, shots, acting, name):
    """A pretended GPU has the records of the CPU."""
    coefficients = {"answer_only": True, "label_weight": 0.5} if name == "visurf" else {}
    settings = replace(SETTINGS, steps=6, coefficients=coefficients)
    policies = [load_policy(tiny_checkpoint, lora_rank=4, device=device, check=False) for device in ("cpu", "cuda")]
    runs = [take_steps(policy, find_recipe(name), shots, settings, **acting(name)) for policy in policies]
    assert runs[0][0] == runs[1][0]


@pytest.mark.parametrize(
    ("select", "coefficients", "complaint"),
    [
        (visurf_select, {"label_weight": -1.0}, "label_weight is -1.0, but must not be negative"),
        (visurf_select, {"control": "smoth"}, "unknown control 'smoth' .* are smooth, naive, drop"),
        (visurf_select, {"form": "none"}, "unknown form 'none' .* are own, bare"),
        (arpo_select, {"capacity": -1}, "capacity is -1, but counts the successes"),
        (arpo_select, {"capacity": 0.5}, "capacity is 0.5, but counts the successes"),
        (dynamic_select, {"retries": -1}, "retries is -1, but counts further rounds"),
        (dynamic_select, {"retries": 1.5}, "retries is 1.5, but counts further rounds"),
    ],
)
def test_bad_coefficients_are_refused(make_step, select, coefficients, complaint):
    with pytest.raises(ValueError, match=complaint):
        selected(make_step([WRONG, WRONG]), select, **coefficients)


# --------------------------------------------------------------------------------------------- how a row enters a group


def test_the_label_stands_behind_the_groups_first_well_formed_reasoning(make_step):
    """What is malformed is no form to copy, right or wrong; a group without a well-formed one gets no row."""
    legs, arms = "<think>two legs.</think>\n<answer>{other}</answer>", "<think>arms.</think><answer>{label}</answer>"
    unclosed, doubled = "<think>a <answer>{label}</answer>", BARE + BARE
    context = make_step([unclosed, doubled, legs, arms], [MUMBLE, BARE], [arms, legs])
    rows = label_rows(context.rollout, context)
    expected = {
        0: f"<think>two legs.</think>\n<answer>{LABELS[0]}</answer>",
        2: f"<think>arms.</think><answer>{LABELS[2]}</answer>",
    }
    assert dict(zip(rows.groups.tolist(), rows.texts, strict=True)) == expected
    assert set(rows.origin) == {"label"} and not rows.rewards and right_rows(rows, context).all()
    assert rows.fixed_old_logps()[rows.mask].isnan().all(), "the first scoring pass fills them in: ratio 1"
    assert len(label_rows(context.rollout.rows([1]), context)) == 0


@pytest.mark.parametrize(("style", "form"), [("think", "bare"), ("answer", "bare"), ("answer", "own")])
def test_the_bare_label_enters_every_group(make_step, style, form):
    context = make_step([MUMBLE, RIGHT], [MUMBLE, MUMBLE])
    context.question = Question(LABELS, style)
    rows = label_rows(context.rollout, context, form)
    assert rows.texts == [f"<answer>{label}</answer>" for label in LABELS[:2]] and rows.groups.tolist() == [0, 1]


def test_a_label_may_stand_before_the_reasoning(make_step):
    """In the style "answer-first": what is right, the rows of the label, AMFT's too, and the tokens of the answer."""
    first = "<answer>{other}</answer><think>wheels.</think>"
    context = make_step([MUMBLE, first, "<answer>{label}</answer><think>arms.</think>\n"])
    context.question = Question(LABELS, "answer-first")
    assert right_rows(context.rollout, context).tolist() == [False, False, True]
    expected = [f"<answer>{LABELS[0]}</answer><think>wheels.</think>"]
    rows = label_rows(context.rollout, context)
    amft_rows, tokens = amft.label_rows(context.rollout, context)
    assert rows.texts == amft_rows.texts == expected and right_rows(rows, context).all()
    assert tokens.any() and torch.equal(tokens, answer_tokens(rows, context))
    assert not tokens[0, rows.lengths[0] // 2 + 1 :].any(), "the reasoning behind it is none of them"


def test_no_label_is_longer_than_a_completion_may_be(make_step):
    """Behind long reasoning it is left out; one that never fits is an error, which names it."""
    context = make_step([WRONG, WRONG], [WRONG, WRONG])
    lengths = label_rows(context.rollout, context).lengths.tolist()
    context.settings = replace(SETTINGS, max_new_tokens=min(lengths))
    assert label_rows(context.rollout, context).lengths.tolist() == [n for n in lengths if n == min(lengths)]
    context.settings = replace(SETTINGS, max_new_tokens=min(lengths) - 1)
    assert min(lengths) == max(lengths) or len(label_rows(context.rollout, context)) == 0
    context.settings = replace(SETTINGS, max_new_tokens=3)
    with pytest.raises(ValueError, match=r"'<answer>.*</answer>', has \d+ tokens, but max_new_tokens is 3: raise it"):
        label_rows(context.rollout, context, "bare")


def test_added_rows_are_rewarded_as_the_steps_rows(make_step):
    """A reward that asks for `context.rollout` must score the added rows, not as many of the others; and afterwards the
    step has its own rows again, also after an error."""
    seen = []

    def counting(completions, context, **columns):
        seen.append(context.rollout.texts)
        return [float(len(text)) for text in context.rollout.texts]

    context = make_step([WRONG, RIGHT], [WRONG, WRONG], rewards={"counting": counting})
    own, rows = context.rollout, label_rows(context.rollout, context)
    assert rewarded(rows, context).rewards["counting"].tolist() == [len(text) for text in rows.texts]
    assert seen[-1] == rows.texts and context.rollout is own
    context.reward_functions = {"broken": lambda completions, **columns: [math.nan] * len(completions)}
    with pytest.raises(ValueError, match="broken gave nan"):
        rewarded(rows, context)
    assert context.rollout is own


def test_replayed_ids_are_the_ids_that_were_sampled(tiny_policy, tiny_examples):
    """Not a text that is tokenised again: random weights write what no tokenizer would."""
    context = make_context(tiny_policy, tiny_examples[:2], LABELS, None, SETTINGS)
    rollout = sample_groups(tiny_policy, context.prompts, 2, 7, seed=3)
    ids = [row[keep].tolist() for row, keep in zip(rollout.completion_ids, rollout.mask, strict=True)]
    again = rows_of_ids(tiny_policy, ids, rollout.groups.tolist(), "replayed", like=rollout)
    assert torch.equal(again.mask, rollout.mask) and again.texts == rollout.texts
    assert torch.equal(again.completion_ids[again.mask], rollout.completion_ids[rollout.mask])
    assert again.logps[again.mask].isnan().all() and not again.sampled.any()
    with torch.no_grad():
        assert torch.equal(context.logps(again), context.logps(rollout))


# --------------------------------------------------------------------------------------------------------------- ViSurf


@pytest.mark.parametrize(("right", "label", "wrong"), [(0, 2.83, -0.35), (1, 1.87, -0.53), (4, 0.89, -1.12), (8, 0, 0)])
def test_what_the_label_is_worth_in_its_group(make_step, right, label, wrong):
    """By hand, of 0/1 rewards, eight completions and the label's row, a std with n."""
    context = make_step([RIGHT] * right + [WRONG] * (8 - right))
    rollout = selected(context, visurf_select, control="naive")
    rewards = table_of(rollout)
    assert rewards.shape == (1, 9) and rollout.origin[8] == "label" and rewards[0, 8] == 1
    advantages = visurf_advantages(rewards, context=context, unbiased=False, eps=0.0)
    assert advantages[0, 8].item() == pytest.approx(label, abs=0.005)
    if right < 8:
        share = (right + 1) / 9
        assert advantages[0, 7].item() == pytest.approx(wrong, abs=0.005)
        assert advantages[0, 8].item() == pytest.approx((1 - share) / math.sqrt(share * (1 - share)), rel=1e-5)


def test_smoothing_silences_the_label_where_the_group_is_right_by_itself(make_step):
    """And there enlarges the others' advantages by sqrt(G / (G - 1)); all wrong, the label acts in full."""
    context = make_step([RIGHT, WRONG, WRONG, WRONG], [WRONG] * 4, rewards=BOTH)
    plain = group_advantages(table_of(context.rollout), eps=0.0)
    rollout = selected(context, visurf_select)
    assert rollout.rewards["accuracy_reward"].tolist() == [1, 0, 0, 0, 0.25, 0, 0, 0, 0, 1]
    assert rollout.rewards["format_reward"].tolist() == [1] * 10
    advantages = visurf_advantages(table_of(rollout), context=context, eps=0.0)
    assert advantages[0, 4] == 0 and torch.allclose(advantages[0, :4], plain[0] * math.sqrt(4 / 3))
    assert torch.allclose(advantages[1], torch.tensor([-1.0] * 4 + [4.0]) / math.sqrt(5))


def test_dropped_the_group_is_grpos_bit_for_bit(make_step):
    context = make_step([RIGHT, WRONG, MUMBLE, BARE], [WRONG] * 4, rewards=BOTH)
    plain = group_advantages(table_of(context.rollout))
    rollout = selected(context, visurf_select, control="drop")
    advantages = visurf_advantages(table_of(rollout), context=context)
    assert len(rollout) == 9 and torch.equal(advantages[0, :4], plain[0]) and advantages[1, 4] > 1


def test_points_for_the_form_do_not_silence_the_label(make_step):
    """The trap: all wrong and well-formed has one point each, as many as a bare label. Compared on the sum, smoothing
    would take the label for no better than the group; and at equal weights the bare row teaches nothing beside it."""
    context = make_step([WRONG] * 4, rewards=BOTH)
    sampled = context.rollout
    bare = selected(context, visurf_select, form="bare")
    assert bare.rewards["accuracy_reward"][4] == 1 and bare.rewards["format_reward"][4] == 0
    equal = visurf_advantages(table_of(bare), context=context)
    weighted = visurf_advantages(table_of(bare, (2.0, 1.0)), context=context)
    assert not equal.any() and weighted[0, 4] > 1.7
    context.rollout = sampled
    own = selected(context, visurf_select)
    assert table_of(own)[0].tolist() == [1, 1, 1, 1, 2]
    assert visurf_advantages(table_of(own), context=context)[0, 4] > 1.7


def test_the_labels_row_may_be_credited_at_its_answer_alone(make_step):
    """Times its weight; sampled rows keep theirs at every token. The order: the group's statistic, then the factors."""
    context = make_step([WRONG] * 3, [WRONG, RIGHT, MUMBLE], rewards=BOTH)
    rollout = selected(context, visurf_select, control="naive")
    rewards = table_of(rollout)
    plain = group_advantages(rewards)
    for weight, only in ((1.0, True), (0.5, True), (0.5, False)):
        advantages = visurf_advantages(rewards, context=context, label_weight=weight, answer_only=only)
        for row, (b, g) in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]):
            here = answer_tokens(rollout, context)[row] if only and g == 3 else rollout.mask[row]
            factor = weight if g == 3 else 1.0
            assert torch.allclose(advantages[b, g], factor * plain[b, g] * here), (weight, only, b, g)
    marked = rollout.completion_ids[3][answer_tokens(rollout, context)[3]]
    assert LABELS[0] in context.policy.tokenizer.decode(marked) and "wheels" not in context.policy.tokenizer.decode(
        marked
    )
    assert torch.equal(visurf_advantages(rewards, context=context), plain)


def test_visurfs_gradient_is_that_of_a_loop_over_its_rows(tiny_policy, shots):
    """G + 1 rows of two groups that are all wrong; the label's row too counts as the policy's own, at ratio 1."""
    settings = replace(SETTINGS, steps=1, max_grad_norm=0.0)
    rollouts = []
    steps = {
        "sample": written(lambda step, label: [WRONG]),
        "rewards": BOTH,
        "after_step": lambda context: rollouts.append(context),
    }
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    recipe = replace(find_recipe("visurf"), steps=find_recipe("visurf").steps | steps)
    record = next(recipe.train(tiny_policy, shots, settings))
    gradient = {name: weight.grad.clone() for name, weight in tiny_policy.trainable_parameters()}
    (context,) = rollouts
    assert record.rows == 10 and record.metrics["ratio"] == pytest.approx(1.0) and record.flat_groups == 1.0
    with torch.no_grad():
        for name, weight in tiny_policy.trainable_parameters():
            weight.copy_(start[name])
            weight.grad = None
    logps, total = context.logps(context.rollout), 0.0
    for row, origin in enumerate(context.rollout.origin):
        rewards = [1.0] * 4 + [2.0]  # the form, and of the label's row the answer
        mean = sum(rewards) / 5
        std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / 4)
        advantage = ((2.0 if origin == "label" else 1.0) - mean) / (std + settings.eps)
        total = total - advantage * logps[row][context.rollout.mask[row]].mean() / 10
    total.backward()
    for name, weight in tiny_policy.trainable_parameters():
        assert torch.allclose(gradient[name], weight.grad, rtol=1e-3, atol=1e-5), name


# ---------------------------------------------------------------------------------------------------------- TempSamp-R1


def tempsamp_step(make_step, *patterns, **options):
    """A step with the label's rows joined, as `tempsamp_sample` joins them before the rewards."""
    context = make_step(*patterns, **options)
    rollout = selected(context, visurf_select, control="naive")
    assert rollout.origin.count("label") == len(patterns)
    return context, table_of(rollout)


def test_the_labels_advantage_is_anchored_to_the_others(make_step):
    """It is in neither mean nor std; nobody right: at least the floor; all right: nothing to teach."""
    context, rewards = tempsamp_step(make_step, [RIGHT, WRONG, WRONG, MUMBLE], [WRONG] * 4, [RIGHT] * 4, rewards=BOTH)
    sampled = group_advantages(rewards[:, :4])
    advantages = tempsamp_advantages(rewards, context=context)
    assert torch.equal(advantages[:, :4], sampled)
    assert advantages[:, 4].tolist() == pytest.approx([1.2 * sampled[0, 0].item(), 1.0, 0.0])
    published = tempsamp_advantages(rewards, context=context, floor=0.0)
    assert published[:, 4].tolist() == pytest.approx([1.2 * sampled[0, 0].item(), 0.0, 0.0])
    assert tempsamp_advantages(rewards, context=context, anchor=0.0)[:, 4].tolist() == [0.0, 1.0, 0.0]


def test_differences_in_the_form_alone_do_not_hide_that_nobody_is_right(make_step):
    """The best of them has an advantage, and the label's is anchored to it, but the floor counts accuracy alone."""
    context, rewards = tempsamp_step(make_step, [WRONG] * 3 + [MUMBLE], rewards=BOTH)
    advantages = tempsamp_advantages(rewards, context=context, anchor=0.1)
    assert 0 < 0.1 * advantages[0, 0] < 1 and advantages[0, 4] == 1.0


def test_one_completion_less_is_sampled(tiny_policy, tiny_examples, monkeypatch):
    asked = []

    def sample(policy, prompts, group_size, **settings):
        asked.append((group_size, settings["seed"]))
        return written(lambda step, label: [WRONG])(policy, prompts, group_size)

    monkeypatch.setattr(tempsamp, "sample_groups", sample)
    context = make_context(tiny_policy, tiny_examples[:2], LABELS, None, SETTINGS)
    options = {"group_size": 4, "context": context, "seed": 7}
    rollout = tempsamp_sample(tiny_policy, context.prompts, **options)
    assert rollout.groups.tolist() == [0] * 4 + [1] * 4 and rollout.origin == (["sampled"] * 3 + ["label"]) * 2
    off = tempsamp_sample(tiny_policy, context.prompts, anchor=0.0, floor=0.0, **options)
    assert set(off.origin) == {"sampled"} and asked == [(3, 7), (4, 7)]
    with pytest.raises(ValueError, match="anchor is -1.0 and floor 1.0, but must not be negative"):
        tempsamp_sample(tiny_policy, context.prompts, anchor=-1.0, **options)


def test_the_shaping_is_the_published_formula():
    for reward in (0.0, 0.1, 0.5, 0.79, 0.8, 0.81, 1.0):
        if reward >= 0.8:
            expected = 0.8 + 0.01 * math.log(reward - 0.8 + 1)
        else:
            expected = 0.8 - (math.exp(0.8 - reward) - 1) / (math.e - 1)
        assert shaped_reward(torch.tensor(reward)).item() == pytest.approx(expected, abs=1e-6)


def test_the_shaping_does_nothing_to_two_values(make_step):
    """Neither would any other function; of a graded reward it changes the advantages, the label's row among them."""
    context, rewards = tempsamp_step(make_step, [RIGHT, WRONG, WRONG, WRONG], [RIGHT, RIGHT, WRONG, WRONG])
    shaped = tempsamp_advantages(rewards, context=context, shaped="accuracy_reward", eps=0.0)
    assert torch.allclose(shaped, group_advantages(rewards, eps=0.0), atol=1e-6)

    def length_reward(completions, **columns):
        return [min(1.0, len(text) / 60) for text in completions]

    context, rewards = tempsamp_step(make_step, [RIGHT, MUMBLE, BARE], rewards={"length_reward": length_reward})
    shaped = tempsamp_advantages(rewards, context=context, shaped="length_reward", eps=0.0)
    assert torch.allclose(shaped, group_advantages(shaped_reward(rewards), eps=0.0))
    assert not torch.allclose(shaped, group_advantages(rewards, eps=0.0), atol=0.01)
    with pytest.raises(ValueError, match="shaped is 'iou', which is no reward of this run: length_reward"):
        tempsamp_advantages(rewards, context=context, shaped="iou")


# ----------------------------------------------------------------------------------------------------------------- ARPO


def run_arpo(policy, shots, plan, steps=4, **coefficients):
    """Records and the buffer at the end; every image comes in steps 1 and 2, and again in 3 and 4."""
    settings = replace(SETTINGS, steps=steps, log_rows=8, coefficients=coefficients)
    recipe = find_recipe("arpo")
    recipe = replace(recipe, steps=recipe.steps | {"sample": written(plan), "rewards": BOTH})
    state = TrainingState.start(policy, recipe.applied_to(settings))
    return list(recipe.train(policy, shots, settings, resume=state)), state.memory.get(BUFFER)


def test_an_earlier_success_takes_the_place_of_the_first_failure(tiny_policy, shots):
    def plan(step, label):
        return [WRONG, RIGHT, WRONG, WRONG] if step < 2 else [BARE.replace("label", "other"), WRONG, WRONG, WRONG]

    records, buffer = run_arpo(tiny_policy, shots, plan)
    for record in records:
        origins = [sample["origin"] for sample in record.samples]
        assert record.rows == 8 and record.metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
        if record.step <= 2:
            assert set(origins) == {"sampled"}
            continue
        assert origins == ["sampled", "sampled", "sampled", "replayed"] * 2
        for sample in record.samples:
            label = sample["label"]
            assert sample["text"] == worded(RIGHT if sample["origin"] == "replayed" else WRONG, label)
            assert sample["reward"] == (2.0 if sample["origin"] == "replayed" else 1.0)
            assert (sample["advantage"] > 0) == (sample["origin"] == "replayed")
        assert record.rewards["accuracy_reward"] == 0.0 and record.flat_groups == 0.0
    assert {key: len(rows) for key, rows in buffer.items()} == {0: 1, 1: 1, 2: 1, 3: 1}, "what is replayed is not kept"


def test_what_was_never_solved_is_never_replayed(tiny_policy, shots):
    """The limit of the method: three classes are, one is not, and right without the form is not solved either."""

    def plan(step, label):
        failing = [WRONG] if label != LABELS[1] else [BARE]
        return failing if label in LABELS[:2] or step >= 2 else [WRONG, RIGHT]

    records, buffer = run_arpo(tiny_policy, shots, plan)
    assert set(buffer) == {2, 3}
    replayed = {sample["label"] for record in records for sample in record.samples if sample["origin"] == "replayed"}
    assert replayed == set(LABELS[2:])


@pytest.mark.parametrize(("success", "kept"), [(1.0, 0), (0.5, 4)])
def test_a_success_has_the_full_reward(tiny_policy, shots, success, kept):
    """Right and malformed, or wrong and well-formed: half of it."""
    _, buffer = run_arpo(tiny_policy, shots, lambda step, label: [BARE, WRONG], steps=1, success=success)
    assert [len(rows) for rows in buffer.values()] == [kept] * (2 if kept else 0)


def test_the_last_successes_are_kept_of_each_image(make_step):
    """First in, first out; and one of them is drawn by the step's generator."""
    texts = [f"<think>{n} legs.</think><answer>{{label}}</answer>" for n in range(6)]
    context = make_step(texts[:2], [WRONG] * 2)
    for first in (0, 2, 4):
        step = make_step(texts[first : first + 2], [WRONG] * 2)
        context.rollout = step.rollout
        selected(context, arpo_select, capacity=3)
        arpo_keep(context=context, capacity=3)
    decode = context.policy.tokenizer.decode
    assert [decode(row[:-1]) for row in context.state[BUFFER][0]] == [worded(text, LABELS[0]) for text in texts[3:]]
    assert list(context.state[BUFFER]) == [0]
    drawn = set()
    for seed in range(20):
        context.rollout = make_step([WRONG] * 2, [WRONG] * 2).rollout
        context.generator.manual_seed(seed)
        drawn.add(selected(context, arpo_select, capacity=3).texts[1])
    assert drawn == {worded(text, LABELS[0]) for text in texts[3:]}


def test_a_group_with_a_right_completion_is_left_alone(make_step):
    context = make_step([WRONG, RIGHT], [WRONG, WRONG])
    ids = [row[keep].tolist() for row, keep in zip(context.rollout.completion_ids, context.rollout.mask, strict=True)]
    context.state[BUFFER] = {0: [ids[1]], 1: [ids[1]]}
    before, rollout = context.rollout, selected(context, arpo_select)
    assert rollout.origin == ["sampled"] * 3 + ["replayed"]
    assert rollout.texts == [*before.texts[:2], before.texts[3], before.texts[1]]


def test_successes_are_kept_once_per_rollout(tiny_policy, shots):
    settings = replace(SETTINGS, steps=2, updates_per_rollout=2)
    recipe = find_recipe("arpo")
    recipe = replace(
        recipe, steps=recipe.steps | {"sample": written(lambda step, label: [WRONG, RIGHT]), "rewards": BOTH}
    )
    state = TrainingState.start(tiny_policy, recipe.applied_to(settings))
    assert len(list(recipe.train(tiny_policy, shots, settings, resume=state))) == 2
    assert [len(rows) for rows in state.memory[BUFFER].values()] == [2, 2]


def test_an_image_is_known_by_its_place_not_by_its_file(make_step):
    context = make_step([WRONG] * 2, [WRONG] * 2)
    assert image_keys(context) == [0, 1]
    moved = replace(context.examples[1], source="elsewhere/1")
    context.examples = [context.examples[1], moved]
    assert image_keys(context) == [1, "elsewhere/1"]


def test_nobody_right_is_the_published_condition_on_accuracy():
    """Std below 0.05 and mean below 0.2, of any group of 0/1 rewards of up to 32."""
    for size in range(2, 33):
        for right in range(size + 1):
            rewards = torch.tensor([1.0] * right + [0.0] * (size - right))
            published = rewards.std() < 0.05 and rewards.mean() < 0.2
            assert bool(published) == (right == 0)


# ---------------------------------------------------------------------------------------------- DAPO's dynamic sampling


def more(monkeypatch, plan):
    """Further groups are written, by label; how many images each round asked for."""
    rounds = []

    def sample(policy, prompts, group_size, *arguments, **settings):
        rounds.append(list(prompts.labels))
        return written(lambda step, label: plan(label))(policy, prompts, group_size)

    monkeypatch.setattr("favor_lab.recipes.rows.sample_groups", sample)
    return rounds


def dynamic_step(make_step, tiny_examples, *patterns, **options):
    context = make_step(*patterns, **options)
    context.shots = replace(context.shots, train=tiny_examples)
    context.pool = make_context(context.policy, tiny_examples, LABELS, None, context.settings).prompts
    return context


def test_other_images_take_the_place_of_groups_without_spread(make_step, tiny_examples, monkeypatch):
    """All right and all wrong are left out, until there are as many groups as were asked for; with their rewards, and
    as prompts of the step."""
    rounds = more(monkeypatch, lambda label: [RIGHT, WRONG])
    context = dynamic_step(make_step, tiny_examples, [RIGHT] * 4, [WRONG, RIGHT, WRONG, WRONG], rewards=BOTH)
    rollout = selected(context, dynamic_select)
    assert len(rounds) == 1 and len(rounds[0]) == 1 and rounds[0][0] in LABELS[2:]
    assert rollout.groups.tolist() == [1] * 4 + [2] * 4 and context.prompts.labels == [*LABELS[:2], *rounds[0]]
    assert [example.label for example in context.examples] == context.prompts.labels
    assert rollout.rewards["accuracy_reward"].tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    with torch.no_grad():
        scored = context.logps(rollout)  # under the images that they answer
    alone = make_context(context.policy, [context.examples[2]], LABELS, None, context.settings)
    rows = rollout.rows(rollout.groups == 2)
    with torch.no_grad():
        expected = alone.logps(replace(rows, groups=rows.groups - 2))
    assert torch.allclose(scored[4:], expected, atol=1e-4)


def test_a_full_step_asks_for_no_more(make_step, tiny_examples, monkeypatch):
    rounds = more(monkeypatch, lambda label: pytest.fail("nothing is missing"))
    context = dynamic_step(make_step, tiny_examples, [RIGHT, WRONG], [WRONG, RIGHT])
    before = context.rollout
    after = selected(context, dynamic_select)
    assert torch.equal(after.completion_ids, before.completion_ids) and not rounds and len(context.prompts) == 2


@pytest.mark.parametrize(("retries", "rounds_made"), [(1, 1), (2, 2), (9, 2)])
def test_the_pool_runs_dry_or_the_retries_are_spent(make_step, tiny_examples, monkeypatch, retries, rounds_made):
    """Every image once; then the step has fewer groups than it asked for, or none."""
    rounds = more(monkeypatch, lambda label: [WRONG])
    context = dynamic_step(make_step, tiny_examples, [RIGHT, WRONG], [WRONG] * 2)
    rollout = selected(context, dynamic_select, retries=retries)
    assert len(rounds) == rounds_made and set(rollout.groups.tolist()) == {0}
    asked = [label for labels in rounds for label in labels]
    assert sorted(asked) == sorted(set(asked)) and set(asked) <= set(LABELS[2:])


def test_a_step_without_any_mixed_group_learns_nothing(tiny_policy, shots, monkeypatch):
    rounds = more(monkeypatch, lambda label: [RIGHT])
    recipe = find_recipe("dapo-dynamic")
    recipe = replace(recipe, steps=recipe.steps | {"sample": written(lambda step, label: [WRONG]), "rewards": BOTH})
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    records = list(recipe.train(tiny_policy, shots, replace(SETTINGS, steps=2)))
    assert [(record.rows, record.loss, record.reward) for record in records] == [(0, 0.0, 1.0)] * 2
    assert all(torch.equal(weight, start[name]) for name, weight in tiny_policy.trainable_parameters())
    assert [len(labels) for labels in rounds] == [2, 2]


def test_the_form_alone_makes_no_group_worth_learning_from(make_step):
    """Right is the accuracy, whatever else is rewarded."""
    context = make_step([WRONG, MUMBLE], [RIGHT, BARE], [MUMBLE, BARE], rewards=BOTH)
    assert mixed_groups(context.rollout, context).groups.tolist() == [2, 2]


def test_images_of_a_question_of_its_own_are_refused(make_step, tiny_examples):
    context = dynamic_step(make_step, tiny_examples, [WRONG] * 2)
    context.examples = [replace(context.examples[0], source="made/0")]
    with pytest.raises(ValueError, match="further training images, but made/0 is none: set retries=0"):
        dynamic_select(context.rollout, context=context)


# ---------------------------------------------------------------------------------------------------- credit by segment


def test_accuracy_is_credited_at_the_answer_and_the_form_elsewhere(make_step):
    """By hand: of accuracy 1, 0, 0, 1 and format 1, 1, 0, 0, a std with n: 1 and -1 of either. The third completion has
    no answer."""
    context = make_step([RIGHT, WRONG, MUMBLE, BARE], rewards=BOTH)
    rewards, rollout = table_of(context.rollout), context.rollout
    advantages = credit_advantages(rewards, context=context, unbiased=False, eps=0.0)
    inside = answer_tokens(rollout, context)
    assert inside.any(dim=1).tolist() == [True, True, False, True]
    for row, (accuracy, form) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        assert torch.equal(advantages[0, row], torch.where(inside[row], float(accuracy), float(form)))
    plain = group_advantages(rewards, unbiased=False, eps=0.0)
    half = credit_advantages(rewards, context=context, split=0.5, unbiased=False, eps=0.0)
    assert torch.allclose(half, 0.5 * plain[..., None] + 0.5 * advantages)
    assert torch.equal(credit_advantages(rewards, context=context, split=0.0), group_advantages(rewards))


def test_weights_multiply_after_the_groups_statistic(make_step):
    """Before it they would cancel; and other rewards than these two count where the format does."""
    context = make_step(
        [RIGHT, WRONG, MUMBLE, BARE], rewards=BOTH | {"even_ids": even_ids}, reward_weights=(3.0, 1.0, 0.5)
    )
    rollout = context.rollout
    advantages = credit_advantages(table_of(rollout, (3.0, 1.0, 0.5)), context=context)[0]
    accuracy, form, even = (group_advantages(values[None])[0] for values in rollout.rewards.values())
    inside = answer_tokens(rollout, context)
    assert torch.allclose(advantages, torch.where(inside, 3 * accuracy[:, None], (form + 0.5 * even)[:, None]))


def test_the_gradient_of_credit_is_at_the_tokens_it_names(make_step):
    """Reasoning is blamed for nothing: the known gap of this recipe."""
    context = make_step([RIGHT, WRONG], rewards=BOTH)
    rollout = context.rollout
    advantages = credit_advantages(table_of(rollout), context=context)[0]
    leaf = torch.full(rollout.mask.shape, -1.0, requires_grad=True)
    grpo_loss(leaf, leaf.detach(), None, advantages, rollout.mask, beta=0.0)[0].backward()
    inside = answer_tokens(rollout, context)
    assert (leaf.grad[0][inside[0]] < 0).all() and (leaf.grad[1][inside[1]] > 0).all() and not leaf.grad[~inside].any()


def test_credit_refuses_what_it_cannot_divide(make_step, tiny_policy, shots):
    context = make_step([RIGHT, WRONG], rewards={"even_ids": even_ids})
    for split in (-0.1, 1.1):
        with pytest.raises(ValueError, match="split is .* must be a share from 0"):
            credit_advantages(table_of(context.rollout), context=context, split=split)
    with pytest.raises(
        ValueError, match="needs a reward named accuracy_reward beside even_ids: name one so, or split=0"
    ):
        next(
            train(
                tiny_policy,
                shots,
                replace(SETTINGS, max_new_tokens=4),
                rewards=[even_ids],
                advantages=credit_advantages,
            )
        )
