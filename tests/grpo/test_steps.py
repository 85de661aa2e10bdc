"""Steps of your own: no setting is lost silently, rows keep their rewards, the question belongs to the rollout."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from favor_lab.activities.fewshot import Example, FewShot
from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import HOWS, grpo_loss
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import encode_completions, join, sample_groups, score_completions, score_distributions
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.support.steps import needed_if
from favor_lab.grpo.training import train
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.question import Question

LABELS = ["riding a bike", "reading", "phoning", "fishing"]
SHORT = GRPOSettings(steps=2, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)
STILL = replace(SHORT, learning_rate=1e-12)  # weights that do not change


def even_ids(completion_ids, **columns):
    """A reward of which a policy with random weights earns a varying amount: the share of even token ids."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


@pytest.fixture
def run(tiny_policy, shots):
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}

    def reset():
        with torch.no_grad():
            for name, weight in tiny_policy.trainable_parameters():
                weight.copy_(start[name])

    def run(settings=SHORT, **steps):
        reset()
        return list(train(tiny_policy, shots, settings, **({"rewards": [even_ids]} | steps)))

    run.reset = reset
    return run


def comparable(records):
    return [{name: value for name, value in record.to_dict().items() if name != "seconds"} for record in records]


# ------------------------------------------------------------------------------------------- no setting is lost


def wrapped_loss(logps, old_logps, ref_logps, advantages, mask):
    return grpo_loss(logps, old_logps, ref_logps, advantages, mask)


def wrapped_loss_with_settings(logps, old_logps, ref_logps, advantages, mask, **settings):
    return grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)


@pytest.mark.parametrize(
    "change", [{"beta": 0.5}, {"how": "dapo"}, {"clip": 0.1}, {"clip_high": 0.28}, {"level": "sequence"}]
)
def test_a_wrapped_loss_never_trains_with_other_settings_than_recorded(run, change):
    """Without **settings it would train with the defaults: it is refused, with the names of both."""
    (name,) = change
    settings = replace(SHORT, updates_per_rollout=2, **change)
    with pytest.raises(
        ValueError, match=rf"the loss wrapped_loss would lose the setting {name}=.*add a parameter {name}"
    ):
        run(settings, loss=wrapped_loss)
    assert comparable(run(settings, loss=wrapped_loss_with_settings)) == comparable(run(settings))


def test_the_other_steps_are_guarded_too(run):
    with pytest.raises(ValueError, match="the advantages centred would lose the setting scale='none'"):

        def centred(rewards):
            return group_advantages(rewards)

        run(replace(SHORT, scale="none"), advantages=centred)
    with pytest.raises(ValueError, match="the sample hot would lose the setting group_size=4"):

        def hot(policy, prompts, max_new_tokens, seed):
            return sample_groups(policy, prompts, max_new_tokens=max_new_tokens, temperature=2.0, seed=seed)

        run(sample=hot)
    with pytest.raises(ValueError, match=r"the loss grpo_loss has how='dr_grpo' fixed, but the settings say 'dapo'"):
        run(replace(SHORT, how="dapo"), loss=partial(grpo_loss, how="dr_grpo"))


def test_a_step_that_names_what_does_not_exist_says_so(run):
    def misspelt(logps, old_logps, ref_logps, advantages, mask, betta):
        raise AssertionError("must not be called")

    with pytest.raises(ValueError, match="the loss misspelt names betta, which is neither .*; did you mean beta?"):
        run(loss=misspelt)

    def misspelt_with_a_default(rewards, unbiassed=True):
        raise AssertionError("must not be called")

    with pytest.raises(ValueError, match="names unbiassed, .* did you mean unbiased?"):
        run(advantages=misspelt_with_a_default)

    def needs_more(rollout, threshold):
        raise AssertionError("must not be called")

    with pytest.raises(
        ValueError, match="the select needs_more names threshold, which is neither a setting nor a coeff"
    ):
        run(select=needs_more)
    assert run(replace(SHORT, coefficients={"threshold": 1}), select=lambda rollout, threshold: rollout)


def test_coefficients_are_recorded_reach_their_steps_and_survive_a_checkpoint(run, tiny_policy, shots, tmp_path):
    received = []

    def scaled(logps, old_logps, ref_logps, advantages, mask, gamma=0.5, **settings):
        received.append(gamma)
        return grpo_loss(logps, old_logps, ref_logps, gamma * advantages, mask, **settings)

    state = TrainingState.start(tiny_policy, SHORT)
    next(train(tiny_policy, shots, SHORT, rewards=[even_ids], loss=scaled, resume=state))
    assert state.settings.coefficients == {"gamma": 0.5} and received == [0.5]  # its default is recorded
    save_checkpoint(tmp_path, state)
    loaded = load_checkpoint(tmp_path, tiny_policy)
    assert loaded.settings.coefficients == {"gamma": 0.5}
    with pytest.raises(ValueError, match=r"other settings \(coefficients {'gamma': 0.5} then, {'gamma': 2.0} now\)"):
        other = replace(SHORT, coefficients={"gamma": 2.0})
        next(train(tiny_policy, shots, other, rewards=[even_ids], loss=scaled, resume=loaded))
    with pytest.raises(ValueError, match="no step takes the coefficient gama"):
        run(replace(SHORT, coefficients={"gama": 2.0}), loss=scaled)
    run(replace(SHORT, coefficients={"gamma": 2.0}), loss=scaled)
    assert received[-1] == 2.0
    state = TrainingState.start(tiny_policy, SHORT)  # what a partial fixes is recorded too
    next(train(tiny_policy, shots, SHORT, rewards=[even_ids], loss=partial(grpo_loss, how="dapo"), resume=state))
    assert state.settings.coefficients["how"] == "dapo"


def test_a_coefficient_may_not_take_the_place_of_what_rewards_are_given(run):
    def select(rollout, label=0.5):
        return rollout

    with pytest.raises(ValueError, match="the select select has a coefficient label, but rewards are given a"):
        run(SHORT, select=select)


def test_a_coefficient_of_a_reward_is_recorded(run):
    def length_reward(completion_ids, target=4, **columns):
        return [-abs(len(ids) - target) / 10 for ids in completion_ids]

    long, short = (
        run(replace(SHORT, steps=1, coefficients={"target": target}), rewards=[length_reward])[0].reward
        for target in (6, 2)
    )
    assert long > short


# ------------------------------------------------------------------------------------------- rewards belong to rows


def labelled_rows(policy, prompts, rewards=None):
    texts = [f"<think>look.</think><answer>{label}</answer>" for label in prompts.labels]
    rows = encode_completions(policy, texts, range(len(texts)))
    return rows if rewards is None else replace(rows, rewards=rewards)


def test_rows_that_are_joined_keep_their_rewards(run):
    """Appended after the rewards were computed, the labelled rows' 5.0 must not go to sampled rows."""
    joined = []

    def with_labels(rollout, context):
        five = torch.full((len(context.prompts),), 5.0)
        joined.append(join(rollout, labelled_rows(context.policy, context.prompts, {"even_ids": five})))
        return joined[-1]

    record = run(replace(SHORT, steps=1), select=with_labels)[0]
    (rows,) = joined
    injected = torch.tensor([origin == "injected" for origin in rows.origin])
    assert (rows.rewards["even_ids"][injected] == 5.0).all() and (rows.rewards["even_ids"][~injected] <= 1.0).all()
    assert injected.tolist() != sorted(injected.tolist())  # each is in its group, not at the end
    by_origin = {sample["origin"]: sample["rewards"]["even_ids"] for sample in record.samples}
    assert by_origin["injected"] == 5.0 and by_origin["sampled"] <= 1.0


def test_rows_without_rewards_cannot_be_joined_to_rows_with(run):
    with pytest.raises(ValueError, match=r"cannot join rows with the rewards \['even_ids'\] and rows with \[\]"):
        run(select=lambda rollout, context: join(rollout, labelled_rows(context.policy, context.prompts)))

    def computed_first(rollout, context):
        return join(rollout, context.compute_rewards(labelled_rows(context.policy, context.prompts)))

    record = run(replace(SHORT, steps=1), select=computed_first, rewards=[accuracy_reward, format_reward])[0]
    assert record.rows == 10 and record.samples[4]["rewards"] == {"accuracy_reward": 1.0, "format_reward": 1.0}


def test_later_steps_see_what_select_made_of_the_rows(run):
    calls = []

    def advantages(rewards, context, scale, eps, unbiased):
        calls.append((len(context.rollout), context.rollout.rewards["even_ids"].shape))
        return group_advantages(rewards, scale, eps, unbiased)

    run(replace(SHORT, steps=1), select=lambda rollout: rollout.rows([0, 1, 4, 5]), advantages=advantages)
    assert calls == [(4, (4,))]


# --------------------------------------------------------------------------------------- the question has a slot


class Told(Question):
    """A proxy question: it names the image's label."""

    def text(self, example):
        return f"Is this {example.label}? {super().text(example)}"


def changing(examples, context):
    """Another question in every rollout."""
    turn = context.step // context.settings.updates_per_rollout
    return (Told if turn % 2 else Question)(LABELS[: 2 + turn], "answer")


def test_rows_are_scored_under_the_question_that_they_answered(run):
    """Also in the second update, where the policy has not changed: the ratio is 1 and nothing is clipped."""
    texts = []

    def sample(policy, prompts, **settings):
        texts.append(prompts.texts)
        return sample_groups(policy, prompts, **settings)

    records = run(replace(STILL, steps=6, updates_per_rollout=2), question=changing, sample=sample)
    for record in records:
        assert record.metrics["ratio"] == pytest.approx(1.0, abs=1e-6) and record.clip_share == 0.0
    assert [record.update for record in records] == [0, 1] * 3 and len(texts) == 3
    assert "Is this" not in texts[0][0] and "Is this" in texts[1][0]
    assert [text.count(",") for rollout in texts for text in rollout[:1]] == [1, 2, 3]


def test_a_changed_question_survives_a_checkpoint_between_two_updates(
    tiny_policy, tiny_checkpoint, shots, run, tmp_path
):
    settings = replace(SHORT, steps=4, updates_per_rollout=2)
    unbroken = run(settings, question=changing)
    run.reset()
    part, state = [], TrainingState.start(tiny_policy, settings)
    for record in train(tiny_policy, shots, settings, rewards=[even_ids], question=changing, resume=state):
        part.append(record)
        if record.step == 3:
            break
    save_checkpoint(tmp_path, state)
    other = load_policy(tiny_checkpoint, lora_rank=4, device="cpu")
    loaded = load_checkpoint(tmp_path, other)
    assert "Is this" in loaded.batch.prompts.texts[0] and loaded.batch.question.style == "answer"
    part += train(other, shots, settings, rewards=[even_ids], question=changing, resume=loaded)
    assert comparable(part) == comparable(unbroken)


def test_a_question_of_another_style_is_rewarded_and_recorded_in_it(run, tiny_policy, shots):
    calls = []

    def watch(completions, style, **columns):
        calls.append(style)
        return [0.0] * len(completions)

    question = Question(LABELS[:2], "answer")
    run(replace(SHORT, steps=1), question=question, rewards=[watch])
    assert calls == ["answer"]
    state = TrainingState.start(tiny_policy, SHORT)
    next(train(tiny_policy, shots, SHORT, question=question, rewards=[even_ids], resume=state))
    assert state.settings.style == "answer" and "'riding a bike', 'reading'" in state.question
    with pytest.raises(ValueError, match="other steps .question Question.*then,  now"):
        next(train(tiny_policy, shots, rewards=[even_ids], resume=state))
    with pytest.raises(ValueError, match="asks in the style 'think', but the settings say style='answer'"):
        run(replace(SHORT, style="answer"), question=Question(LABELS))


def test_the_question_may_bring_other_images(run, tiny_examples):
    """A proxy task: the images in grey, and only two of them."""
    grey = [Example(e.image.convert("L"), e.label, f"{e.source}, grey") for e in tiny_examples[:2]]
    prompts = []

    def in_grey(examples, style, open_vocabulary):
        return grey, Question(LABELS, style)

    run(replace(SHORT, steps=1), question=in_grey, after_step=lambda context: prompts.append(context.prompts))
    assert prompts[0].sources == ["tiny/0, grey", "tiny/1, grey"]


# ---------------------------------------------------------------------------------------------------- the context


def test_the_cache_lives_for_one_step_and_is_in_no_checkpoint(run, tiny_policy, shots, tmp_path):
    """A masked view of the images, encoded once and used by two custom steps."""
    encoded = []

    def masked(context):
        if "masked" not in context.cache:
            blank = [Example(e.image.point(lambda _: 127), e.label, e.source) for e in context.examples]
            context.cache["masked"] = context.encode(blank)
            encoded.append(context.step)
        return context.cache["masked"]

    def advantages(rewards, context, **settings):
        context.logps(context.rollout, masked(context))
        return group_advantages(rewards, **settings)

    def loss(logps, old_logps, ref_logps, advantages, mask, rollout, context, **settings):
        gap = context.logps(rollout, masked(context)) - logps
        assert gap[mask].abs().max() > 0 and gap.requires_grad
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)

    state = TrainingState.start(tiny_policy, SHORT)
    for _ in train(tiny_policy, shots, SHORT, rewards=[even_ids], advantages=advantages, loss=loss, resume=state):
        save_checkpoint(tmp_path, state)
    assert encoded == [0, 1]


def test_log_probabilities_under_other_weights(run, tiny_policy):
    def slow_weights(context):
        slow = context.state.setdefault("slow", {n: w.detach().clone() for n, w in tiny_policy.trainable_parameters()})
        rows = context.rollout
        same = context.logps(rows, weights=slow) - context.logps(rows)
        assert (same.abs().max() == 0) == (context.step == 0)
        if context.step:
            before = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
            context.logps(rows, weights=slow)
            assert all(torch.equal(weight, before[name]) for name, weight in tiny_policy.trainable_parameters())

    run(replace(SHORT, steps=2), after_step=slow_weights)


def test_a_loss_may_have_the_whole_distribution_of_its_own_pass(run, tiny_policy):
    shapes = []

    def with_distributions(logps, old_logps, ref_logps, advantages, mask, distributions, entropy, rollout, **settings):
        chosen = distributions.gather(2, rollout.completion_ids[..., None])[..., 0]
        torch.testing.assert_close(chosen[mask], logps[mask])
        assert distributions[mask].exp().sum(dim=-1).allclose(torch.ones(int(mask.sum())), atol=1e-5)
        shapes.append(distributions.shape)
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)

    records, plain = run(loss=with_distributions), run()
    assert shapes[0][:2] == (8, 6) and shapes[0][2] == tiny_policy.forbidden.numel()
    for ours, theirs in zip(records, plain, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
        assert ours.entropy == pytest.approx(theirs.entropy, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)


def test_a_loss_gets_whole_distributions_only_under_the_settings_that_need_them(run):
    given = []

    @needed_if(distributions=lambda weight, beta: weight > beta)
    def sometimes(logps, old_logps, ref_logps, advantages, mask, distributions=None, weight=0.0, **settings):
        given.append(distributions is not None)
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)

    once = replace(SHORT, steps=1)
    run(once, loss=sometimes)
    run(replace(once, coefficients={"weight": 0.1}), loss=sometimes)
    run(replace(once, coefficients={"weight": 0.1}, beta=0.2), loss=sometimes)
    run(once, loss=partial(sometimes, weight=0.3))
    assert given == [False, True, False, True]


# ------------------------------------------------------------------------------------------- scoring, both ways


@pytest.mark.parametrize("how", HOWS)
def test_a_run_scored_the_plain_way_is_the_same_run_to_rounding(run, how):
    packed, plain = (run(replace(SHORT, how=how, scoring=scoring)) for scoring in ("packed", "plain"))
    for ours, theirs in zip(packed, plain, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
        assert ours.kl == pytest.approx(theirs.kl, abs=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-3)


def test_scoring_the_plain_way(tiny_policy, tiny_examples):
    from favor_lab.vlm.processing import encode_prompts

    prompts = encode_prompts(tiny_policy, tiny_examples, LABELS)
    rollout = sample_groups(tiny_policy, prompts, 2, 6, seed=0)
    packed, plain = (score_completions(tiny_policy, prompts, rollout, how=how) for how in ("packed", "plain"))
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)
    both = (score_distributions(tiny_policy, prompts, rollout, how=how)[rollout.mask] for how in ("packed", "plain"))
    torch.testing.assert_close(*(values.exp() for values in both), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="the ways to score are packed, plain"):
        score_completions(tiny_policy, prompts, rollout, how="flat")
    with pytest.raises(ValueError, match="use how='packed'"):
        score_completions(tiny_policy, prompts, rollout, how="plain", gradient_checkpointing=True)
