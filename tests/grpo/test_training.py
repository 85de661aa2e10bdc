"""The loop: what a step does, what it reports, and the slots for custom steps."""

import inspect
import json
import operator
import os
import re
import signal
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest
import torch

from favor_lab.activities.fewshot import FewShot
from favor_lab.grpo import training
from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import HOWS, grpo_loss
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import encode_completions, join, sample_groups, score_completions
from favor_lab.grpo.support import optimiser
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.interrupts import uninterrupted
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.schedule import draw, learning_rate
from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings
from favor_lab.grpo.support.steps import call
from favor_lab.grpo.training import train
from favor_lab.runs.notes import notes_on
from favor_lab.study import sft as sft_module
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts

LABELS = ["riding a bike", "reading", "phoning", "fishing"]
SHORT = GRPOSettings(steps=2, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)


def even_ids(completion_ids, **columns):
    """A reward of which a policy with random weights earns a varying amount: the share of even token ids."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def constant(completions, **columns):
    return [0.5] * len(completions)


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


class Run:
    """Runs from the same start every time, on the same policy object."""

    def __init__(self, policy, shots):
        self.policy, self.shots, self.start = policy, shots, weights(policy)

    def reset(self):
        with torch.no_grad():
            for name, weight in self.policy.trainable_parameters():
                weight.copy_(self.start[name])

    def __call__(self, settings=SHORT, **steps):
        self.reset()
        return list(train(self.policy, self.shots, settings, **({"rewards": [even_ids]} | steps)))


@pytest.fixture
def run(tiny_policy, shots):
    return Run(tiny_policy, shots)


def weights(policy):
    return {name: weight.detach().clone() for name, weight in policy.trainable_parameters()}


def gradients(policy):
    return torch.cat([weight.grad.flatten() for _, weight in policy.trainable_parameters()])


def moved(policy, before):
    return max((weight - before[name]).abs().max().item() for name, weight in weights(policy).items())


def comparable(records):
    return [{name: value for name, value in record.to_dict().items() if name != "seconds"} for record in records]


# ------------------------------------------------------------------------------------------------------ named tests


def test_on_policy_ratio_is_exactly_one_at_the_first_step(run):
    """Bit for bit, since both sides use the first scoring pass; the sampler's own values agree to rounding."""
    calls = []

    def loss(logps, old_logps, ref_logps, advantages, mask, rollout):
        calls.append((logps.detach().clone(), old_logps.clone(), rollout.logps))
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask)

    records = run(replace(SHORT, updates_per_rollout=2), loss=loss)
    (first, old, sampled), (second, old_again, _) = calls
    assert torch.equal(first, old) and torch.equal(old, old_again)
    assert not torch.equal(second, old)  # the policy has changed, the old log-probabilities have not
    assert 0 < records[0].sampling_gap < 1e-5
    assert (sampled - old).abs().max().item() == records[0].sampling_gap
    assert records[0].metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert records[1].metrics["ratio"] != pytest.approx(1.0, abs=1e-3)
    assert (records[0].update, records[1].update) == (0, 1)
    assert records[0].clip_share == 0.0


@pytest.mark.parametrize(("how", "level"), [(how, "token") for how in HOWS] + [("grpo", "sequence")])
def test_micro_batches_leave_loss_and_gradient_unchanged(run, tiny_policy, how, level):
    """And the logged loss and its parts are the whole step's, for rows of uneven length."""
    settings = replace(SHORT, steps=2, updates_per_rollout=2, how=how, level=level, max_grad_norm=0.0, beta=0.5)
    short_rows = partial(sample_uneven, tiny_policy.end_token_ids[0])
    results = {}
    for size in (0, 3):
        records = run(replace(settings, micro_batch=size), sample=short_rows)
        results[size] = (records, gradients(tiny_policy))
    records, gradient = results[0]
    assert records[0].length_min < records[0].length_max and gradient.abs().max() > 1e-3
    others, other_gradient = results[3]  # 3, 3 and 2 rows: the groups of four are cut
    assert (other_gradient - gradient).abs().max() < 1e-4 * gradient.abs().max()
    for ours, theirs in zip(others, records, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5, abs=1e-6)
        assert ours.entropy == pytest.approx(theirs.entropy, rel=1e-5)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-4, abs=1e-6)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)


def sample_uneven(end, policy, prompts, **options):
    """Sampled rows cut to 1, 2, 3 ... tokens, the last of them an end token."""
    rollout = sample_groups(
        policy, prompts, **{k: v for k, v in options.items() if k in ("group_size", "seed")}, max_new_tokens=6
    )
    lengths = torch.arange(len(rollout)) % 6 + 1
    rollout.mask = torch.arange(rollout.mask.shape[1]) < lengths[:, None]
    rollout.completion_ids[torch.arange(len(rollout)), lengths - 1] = end
    return rollout


def test_a_group_without_spread_has_zero_policy_gradient(run, tiny_policy):
    before = weights(tiny_policy)
    records = run(replace(SHORT, beta=0.0), rewards=[constant])
    assert [record.grad_norm for record in records] == [0.0, 0.0]
    assert moved(tiny_policy, before) == 0.0
    assert [(record.flat_groups, record.reward_spread) for record in records] == [(1.0, 0.0)] * 2
    assert not gradients(tiny_policy).any()
    assert run(SHORT, rewards=[constant])[0].metrics["policy"] == 0.0  # with a KL penalty, only that is left


def test_a_fixed_seed_twice_gives_identical_records(run):
    settings = replace(SHORT, steps=3, updates_per_rollout=2)
    first, second, other = run(settings), run(settings), run(replace(settings, seed=1))
    assert comparable(first) == comparable(second)
    assert comparable(first) != comparable(other)


def test_logged_entropy_is_normalised_once(run):
    calls = []

    def loss(logps, old_logps, ref_logps, advantages, mask, entropy, total_tokens):
        calls.append((entropy.detach()[mask].sum().item(), int(mask.sum()), total_tokens))
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, total_tokens=total_tokens)

    record = run(replace(SHORT, steps=1, micro_batch=3), loss=loss)[0]
    total, tokens = sum(part[0] for part in calls), sum(part[1] for part in calls)
    assert len(calls) == 3 and {part[2] for part in calls} == {tokens} == {record.tokens}
    assert record.entropy == pytest.approx(total / tokens, rel=1e-6)


def test_the_reward_rises_and_the_tower_stays(run, tiny_policy):
    """All signs are right: tokens that are rewarded become more likely."""
    liked = set((tiny_policy.base.lm_head.weight[:, 0] > 0).nonzero().flatten().tolist())
    with torch.no_grad():
        tiny_policy.base.model.language_model.norm.weight.mul_(3)  # a fresh policy's choices are nearly uniform
    frozen = {name: w.clone() for name, w in tiny_policy.model.named_parameters() if not w.requires_grad}

    def share_liked(completion_ids, **columns):
        return [sum(i in liked for i in ids) / len(ids) for ids in completion_ids]

    settings = replace(SHORT, steps=8, prompts_per_step=4, group_size=8, max_new_tokens=3, learning_rate=5e-3, beta=0.0)
    rewards = [record.reward for record in run(settings, rewards=[share_liked])]
    assert sum(rewards[-2:]) / 2 > sum(rewards[:2]) / 2 + 0.15
    assert all(torch.equal(w, frozen[name]) for name, w in tiny_policy.model.named_parameters() if name in frozen)


# ----------------------------------------------------------------------------------------------- settings and records


def test_every_setting_has_a_line_of_help_and_bad_ones_are_refused():
    for cls in (TrainSettings, GRPOSettings):
        source = inspect.getsource(cls)
        for name in cls.__annotations__:
            assert re.search(rf'^    {name}: .*\n    """[A-Z][^"]{{10,}}\."""$', source, re.MULTILINE), name
    for bad, message in [
        ({"group_size": 1}, "at least 2"),
        ({"how": "ppo"}, "grpo, bnpo, dr_grpo"),
        ({"style": "poem"}, "think, answer"),
        ({"steps": 0}, "steps is 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"beta": -1.0}, "beta"),
        ({"schedule": "step"}, "linear, constant, cosine"),
        ({"scale": "std"}, "group, batch, none"),
    ]:
        with pytest.raises(ValueError, match=message):
            GRPOSettings(**bad)


def test_records_are_json_and_come_back(run):
    record = run(replace(SHORT, steps=1, log_rows=3, reward_weights=(1.0, 0.5)), rewards=[even_ids, constant])[0]
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert StepRecord.from_dict(json.loads(text)).to_dict() == record.to_dict()
    assert set(record.seconds) == {"sample", "reward", "advantage", "reference", "loss", "update"}
    assert set(record.rewards) == {"even_ids", "constant"} and record.rewards["constant"] == 0.5
    assert record.reward == pytest.approx(record.rewards["even_ids"] + 0.25)
    assert len(record.samples) == 3
    sample = record.samples[0]
    assert sample["reward"] == pytest.approx(sample["rewards"]["even_ids"] + 0.25)
    assert (record.step, record.rows, record.learning_rate) == (1, 8, 1e-2)
    assert StepRecord(step=1, kl=float("inf")).to_dict()["kl"] is None


def test_labels_say_what_was_ever_answered_right(run, tiny_policy):
    """An injected row is not counted for the policy; a sampled right answer is."""

    def answer(policy, prompts, origin):
        texts = [f"<answer>{label}</answer>" for label in prompts.labels for _ in range(2)]
        return encode_completions(policy, texts, [0, 0, 1, 1], origin=origin, group_size=2)

    def first_only(policy, prompts, context, **settings):
        sampled = sample_groups(policy, prompts, 2, 4, seed=0)
        return join(sampled, answer(policy, prompts, "sampled" if context.step == 0 else "injected"))

    records = run(replace(SHORT, steps=4), sample=first_only)
    assert list(records[0].labels.values()) == [{"completions": 4, "right": 2, "right_so_far": 2}] * 2
    assert [set(record.labels) for record in records[:2]] in ([a, set(LABELS) - a] for a in [set(records[0].labels)])
    assert all(count == {"completions": 2, "right": 0, "right_so_far": 0} for count in records[1].labels.values())
    later = records[2].labels | records[3].labels
    assert sorted(count["right_so_far"] for count in later.values()) == [0, 0, 2, 2]


def test_the_answer_may_come_first(run):
    """What was sampled is judged in the style that was asked for: rewards, form and counts."""
    texts = ["<answer>reading</answer><think>a page</think>", "<answer>reading</answer>, a page"]

    def written(policy, prompts, *, group_size, max_new_tokens, temperature, seed, decoding):
        answers = [text.replace("reading", label) for label in prompts.labels for text in texts]
        return encode_completions(policy, answers, [0, 0, 1, 1], group_size=2)

    settings = replace(SHORT, steps=1, prompts_per_step=2, group_size=2, style="answer-first")
    (record,) = run(settings, sample=written, rewards=(accuracy_reward, format_reward))
    assert record.rewards == {"accuracy_reward": 0.5, "format_reward": 0.5}
    assert all(count["right"] == 1 for count in record.labels.values())


def test_beta_zero_needs_no_reference(run, monkeypatch):
    calls = []
    reference = training.Context.reference_logps
    monkeypatch.setattr(training.Context, "reference_logps", lambda *args: calls.append(1) or reference(*args))
    assert run(replace(SHORT, beta=0.0))[0].kl is None and not calls
    assert run(SHORT)[0].kl > 0 and len(calls) == 2  # the adapter of the start is not zero


def test_a_policy_without_adapter_is_kept_near_its_checkpoint(tiny_checkpoint, shots):
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    records = list(train(policy, shots, replace(SHORT, beta=0.1, learning_rate=1e-3), rewards=[even_ids]))
    assert records[0].kl == 0, "nothing has moved yet"
    assert records[0].grad_norm > 0 and records[1].kl > 0
    policy.model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        next(train(policy, shots, SHORT))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_moved_by_float32_copies(tiny_checkpoint, shots, tmp_path, dtype):
    """Steps that are too small for the weights add up in the copies, also over a checkpoint, which keeps the copies."""
    settings = replace(SHORT, steps=4, beta=0.0, learning_rate=1e-6, schedule="constant")
    final = {}
    for stops in (4,), (2, 4):
        policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu", dtype=dtype)
        before = {name: weight.detach().float() for name, weight in policy.trainable_parameters()}
        with pytest.warns(UserWarning, match=f"are {dtype}, which is too coarse .* float32 copies"):
            state = TrainingState.start(policy, settings)
        for stop in stops:
            if state.step:
                save_checkpoint(tmp_path, state)
                with pytest.warns(UserWarning, match="float32 copies"):
                    state = load_checkpoint(tmp_path, policy)
            list(train(policy, shots, replace(settings, steps=stop), rewards=[even_ids], resume=state))
        copies = state.exact_weights()
        moved = torch.cat([(copies[name] - before[name]).flatten() for name in before])
        assert copies.keys() == before.keys() and (moved != 0).float().mean() > 0.3
        assert moved.abs().max() < 5e-6, "four steps of 1e-6"
        for name, weight in policy.trainable_parameters():
            assert weight.dtype == getattr(torch, dtype) and torch.equal(weight, copies[name].to(weight.dtype))
        final[stops] = copies
    assert all(torch.equal(final[4,][name], final[2, 4][name]) for name in before), "resumed identically"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_optimiser_of_ones_own_does_not_move_narrow_weights(tiny_checkpoint, dtype):
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu", dtype=dtype, check=False)
    weights = [weight for _, weight in policy.trainable_parameters()]
    for own in (torch.optim.SGD(weights, 1e-6), torch.optim.AdamW([{"params": weights[:1]}], 1e-6)):
        with pytest.raises(ValueError, match=f"the optimiser moves {dtype} weights themselves, .*dtype='float32'"):
            TrainingState(policy, SHORT, own)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_adapter_and_sft_are_moved_by_float32_copies(tiny_checkpoint, shots, dtype):
    """peft makes adapters float32 unless told otherwise; `load_policy` does not tell it."""
    settings = replace(SHORT, steps=2, learning_rate=1e-6, schedule="constant")
    policy = load_policy(tiny_checkpoint, lora_rank=2, device="cpu", dtype=dtype, check=False)
    assert {weight.dtype for _, weight in policy.trainable_parameters()} == {torch.float32}
    policy.model.to(getattr(torch, dtype))
    before = {name: weight.detach().float() for name, weight in policy.trainable_parameters()}
    with pytest.warns(UserWarning, match="float32 copies"):
        state = TrainingState.start(policy, settings)
    list(sft_module.sft(policy, shots, settings, resume=state))
    moved = [(copy != before[name]).float().mean() for name, copy in state.exact_weights().items() if "lora_B" in name]
    assert min(moved) > 0.3


def test_float32_weights_are_moved_by_torchs_own_optimiser(tiny_policy):
    optimiser = TrainingState.start(tiny_policy, SHORT).optimiser
    assert type(optimiser) is torch.optim.AdamW
    parameters = [weight for _, weight in tiny_policy.trainable_parameters()]
    assert all(map(operator.is_, optimiser.param_groups[0]["params"], parameters))


def test_each_epoch_shows_every_image_once_and_labels_take_turns():
    labels = sorted(LABELS * 3)
    epochs = [[i for turn in range(6 * e, 6 * e + 6) for i in draw(labels, turn, 2, seed=0)] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2 and epochs[0] != epochs[1]
    for start in range(0, 12, 4):
        assert sorted(labels[i] for i in epochs[0][start : start + 4]) == sorted(LABELS)
    assert draw(labels, 3, 4, seed=0) != draw(labels, 3, 4, seed=1)
    assert sorted(draw(["a", "b"], 0, 4, seed=0)) == [0, 0, 1, 1]  # fewer images than prompts: the next epoch begins
    assert len(set(draw(["a", "a", "a", "b"], 0, 4, seed=0))) == 4


def test_learning_rate_schedules_reach_the_optimiser(run):
    rates = {name: [r.learning_rate for r in run(replace(SHORT, steps=3, warmup_steps=1, schedule=name))]
             for name in ("linear", "constant", "cosine")}  # fmt: skip
    assert rates["constant"] == [1e-2] * 3
    assert rates["linear"] == pytest.approx([1e-2, 1e-2, 5e-3])
    assert rates["cosine"] == pytest.approx([1e-2, 1e-2, 5e-3])
    assert learning_rate(99, GRPOSettings(warmup_steps=10)) > 0


def test_the_gradient_is_clipped_to_its_bound(run, tiny_policy):
    record = run(replace(SHORT, steps=1, max_grad_norm=1e-3))[0]
    assert record.grad_norm > 1e-2
    assert gradients(tiny_policy).norm().item() == pytest.approx(1e-3, rel=1e-3)


# -------------------------------------------------------------------------------------------------------- what stops


def spoil(**steps):
    """A fault in the result of a step of the loop, by step."""
    return lambda policy, faults, undo: faults.update(steps)


def spoil_weight(policy, faults, undo):
    with torch.no_grad():
        policy.trainable_parameters()[3][1][0, 0] = torch.nan


def spoil_gradient(factor):
    def plant(policy, faults, undo):
        undo.callback(policy.trainable_parameters()[3][1].register_hook(lambda gradient: gradient * factor).remove)

    return plant


def spoil_scores(with_gradient):
    def scored(*arguments, **keywords):
        scores = score_completions(*arguments, **keywords)
        if torch.is_grad_enabled() is not with_gradient:
            return scores
        return (scores[0] * torch.nan, scores[1]) if with_gradient else scores * torch.nan

    return replaced("score_completions", scored)


def replaced(name, function, module=training):
    def plant(policy, faults, undo):
        patch = undo.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(module, name, function)

    return plant


A_ROW = "is not finite in row 0, a completion for tiny/"
FAULTS = {  # the fault that is planted before step 3, and what the loop says
    "a weight": (spoil_weight, f"phase sample: the distribution of token 0 {A_ROW}"),
    "a reward": (spoil(reward=lambda scores: [float("nan"), *scores[1:]]), "reward function even_ids gave nan"),
    "a large reward": (spoil(reward=lambda s: [1e20 * x for x in s]), "reward function even_ids gave .*e.19 for row 0"),
    "an advantage": (spoil(advantages=lambda values: values / 0), "phase advantage: the advantage is not finite in"),
    "the reference": (spoil_scores(False), f"phase reference: the reference's log-probability {A_ROW}"),
    "a log-probability": (spoil_scores(True), f"phase loss: the log-probability {A_ROW}"),
    "the loss": (spoil(loss=lambda pair: (pair[0] * torch.inf, pair[1])), "phase loss: the loss of rows 0 to 7 is"),
    "a gradient": (spoil_gradient(torch.nan), "phase update: the gradient is not finite in 1 parameters, the "),
    "the gradient's norm": (spoil_gradient(1e30), "phase update: the gradient .* no parameter alone, but its norm"),
    "the step": (replaced("learning_rate", lambda *_: 1e25, optimiser), r"phase update: the step, at .* 1e\+25, has"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_at_its_step_and_the_last_good_state_is_kept(run, tiny_policy, shots, tmp_path, fault):
    settings, faults = replace(SHORT, steps=4, beta=0.04), {}

    def same(value):
        return value

    def reward(completion_ids, **columns):
        return faults.get("reward", same)(even_ids(completion_ids))

    def advantages(rewards):
        return faults.get("advantages", same)(group_advantages(rewards))

    def loss(logps, old_logps, ref_logps, advantages, mask):
        return faults.get("loss", same)(grpo_loss(logps, old_logps, ref_logps, advantages, mask))

    steps = {"rewards": {"even_ids": reward}, "advantages": advantages, "loss": loss}
    unbroken, end = run(settings, **steps), weights(tiny_policy)
    run.reset()
    state, records = TrainingState.start(tiny_policy, settings), []
    plant, message = FAULTS[fault]
    with ExitStack() as undo, pytest.raises((FloatingPointError, ValueError), match=message) as error:
        for record in train(tiny_policy, shots, settings, resume=state, **steps):
            records.append(record)
            save_checkpoint(tmp_path, state)
            if record.step == 2:
                plant(tiny_policy, faults, undo)
    assert fault.endswith("reward") or str(error.value).startswith("step 3, phase ")
    assert state.step == 2 and comparable(records) == comparable(unbroken[:2])
    if state.out_of_range():
        with pytest.raises(FloatingPointError, match="after step 2 are out of range .* not saved"):
            save_checkpoint(tmp_path, state)
    faults.clear()
    records += train(tiny_policy, shots, resume=load_checkpoint(tmp_path, tiny_policy), **steps)
    assert comparable(records) == comparable(unbroken)
    assert all(torch.equal(weight, end[name]) for name, weight in weights(tiny_policy).items())


def test_what_deserves_a_look_is_said(run):
    settings = replace(SHORT, steps=1)
    record = run(settings, rewards=[constant])[0]
    assert list(notes_on(record, settings)) == ["flat groups", "truncated"]
    record = run(settings, loss=lambda logps, old, ref, a, mask: grpo_loss(logps, old, ref - 30, a, mask, beta=1.0))[0]
    assert f"{record.tokens} log-ratios were cut at 20" in notes_on(record, settings)["bounded"]
    exploded = replace(record, metrics={}, truncated=0.5, grad_norm=1e4)
    assert list(notes_on(exploded, settings)) == ["gradient"]
    assert not notes_on(replace(exploded, grad_norm=999.0), settings)
    assert not notes_on(exploded, replace(settings, max_grad_norm=100.0))


def test_bad_reward_functions_are_named(run):
    def too_few(completions, **columns):
        return [1.0]

    with pytest.raises(ValueError, match="too_few gave 1 numbers; 8 finite"):
        run(rewards=[too_few])
    with pytest.raises(ValueError, match="different names"):
        run(rewards=[even_ids, even_ids])
    with pytest.raises(ValueError, match="reward_weights has 2 numbers for 1 rewards: even_ids"):
        run(replace(SHORT, reward_weights=(1.0, 1.0)))
    assert set(run(replace(SHORT, steps=1), rewards={"a": even_ids, "b": even_ids})[0].rewards) == {"a", "b"}


# -------------------------------------------------------------------------------------------- steps of one's own


def test_the_defaults_run_with_the_librarys_rewards(tiny_policy, shots):
    record = next(train(tiny_policy, shots, SHORT))
    assert set(record.rewards) == {"accuracy_reward", "format_reward"}


def test_select_may_drop_rows(run):
    def best_and_worst(rollout):
        """Keep two rows of each group: the highest reward and the lowest."""
        keep = []
        for group in rollout.groups.unique():
            rows = (rollout.groups == group).nonzero().flatten()
            order = rollout.rewards["even_ids"][rows].argsort()
            keep += [int(rows[order[0]]), int(rows[order[-1]])]
        return rollout.rows(keep)

    record = run(replace(SHORT, steps=1), select=best_and_worst)[0]
    assert record.rows == 4 and len(record.samples) == 4
    assert record.length_mean == 6.0 and sum(c["completions"] for c in record.labels.values()) == 8  # of all sampled
    advantages = [sample["advantage"] for sample in record.samples]
    assert advantages == pytest.approx([-0.7071, 0.7071, -0.7071, 0.7071], abs=1e-2)

    def uneven(rollout):
        return rollout.rows([0, 1, 2, 5])

    lone = run(replace(SHORT, steps=1), select=uneven)[0].samples
    assert sum(sample["advantage"] for sample in lone[:3]) == pytest.approx(0.0, abs=1e-5)
    assert lone[3]["advantage"] == 0.0  # alone in its group
    with pytest.raises(TypeError, match="the select <lambda> gave a tuple"):
        run(select=lambda rollout: (rollout, rollout.rewards))


def test_nothing_selected_moves_nothing(run, tiny_policy):
    before = weights(tiny_policy)

    def nothing(rollout):
        return rollout.rows([])

    records = run(select=nothing)
    assert [(r.rows, r.loss, r.grad_norm, r.samples) for r in records] == [(0, 0.0, 0.0, [])] * 2
    assert moved(tiny_policy, before) == 0.0


def test_flat_groups_may_be_skipped(run):
    def half_flat(completion_ids, groups, **columns):
        return [0.0 if group == 0 else value for group, value in zip(groups, even_ids(completion_ids), strict=True)]

    one = replace(SHORT, steps=1)
    with_flat, skipped = (run(replace(one, skip_flat_groups=skip), rewards=[half_flat])[0] for skip in (False, True))
    assert (with_flat.rows, skipped.rows, with_flat.flat_groups, skipped.flat_groups) == (8, 4, 0.5, 0.5)
    assert {sample["group"] for sample in skipped.samples} == {1}


def test_an_injected_labelled_completion_enters_a_group(run):
    """The right answer joins the sampled ones, is rewarded in the same way, and is reinforced."""

    def with_the_answer(policy, prompts, group_size, max_new_tokens, seed):
        sampled = sample_groups(policy, prompts, group_size, max_new_tokens, seed=seed)
        texts = [f"<think>look.</think><answer>{label}</answer>" for label in prompts.labels]
        return join(sampled, encode_completions(policy, texts, range(len(texts))))

    chances = []

    def watch(context):
        injected = context.rollout.rows([origin == "injected" for origin in context.rollout.origin])
        with torch.no_grad():
            chances.append(
                score_completions(context.policy, context.prompts, injected).sum(dim=1) - old(context, injected)
            )

    def old(context, old_logps):
        return context.state.setdefault("old", {})[context.step].sum(dim=1)

    def remember(logps, old_logps, ref_logps, advantages, mask, rollout, context):
        own = [origin == "injected" for origin in rollout.origin]
        context.state.setdefault("old", {})[context.step] = old_logps[own]
        assert torch.equal(old_logps, logps.detach())  # an injected row counts as the policy's own
        assert (advantages[own] > 1).all()
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, beta=0.0)

    settings = replace(SHORT, learning_rate=1e-3)
    records = run(
        settings, sample=with_the_answer, rewards=[accuracy_reward, format_reward], loss=remember, after_step=watch
    )
    assert [record.rows for record in records] == [10, 10]
    assert [sample["origin"] for sample in records[0].samples][4] == "injected"
    assert records[0].reward == 0.0  # only sampled answers count for the policy, not the injected ones
    assert all((change > 0).all() for change in chances)


def test_a_replayed_row_keeps_its_old_log_probabilities(run):
    """Off-policy rows: their ratio is against the policy that sampled them."""

    def replay(rollout, context):
        buffered = context.state.get("rollout")
        if buffered is None:
            return rollout
        groups = buffered.groups % len(context.prompts)
        return replace(buffered, origin=["replayed"] * len(buffered), groups=groups, old_logps=None)

    def keep(context):
        context.state.setdefault("rollout", context.rollout)

    records = run(select=replay, after_step=keep)
    assert records[0].metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert abs(records[1].metrics["ratio"] - 1.0) > 1e-4


def test_advantages_may_be_given_per_token(run):
    def fading(rewards, eps, context):
        wide = (rewards - rewards.mean(dim=1, keepdim=True))[..., None]  # (B, G, 1)
        return wide * 0.9 ** torch.arange(context.rollout.mask.shape[1])  # (B, G, L)

    record = run(replace(SHORT, steps=1), advantages=fading)[0]
    assert record.grad_norm > 0


def test_partial_settles_an_argument(run):
    """An argument fixed by a partial overrides the settings; the others still come from them."""
    settings = replace(SHORT, steps=1, max_grad_norm=0.0)
    fixed, plain, expected = (
        run(settings, loss=partial(grpo_loss, how="dr_grpo"))[0],
        run(settings)[0],
        run(replace(settings, how="dr_grpo"))[0],
    )
    assert fixed.loss == expected.loss != plain.loss
    answer = partial(format_reward, style="answer")
    assert set(run(settings, rewards=[answer, even_ids])[0].rewards) == {"format_reward", "even_ids"}


def test_a_loss_that_cannot_be_split_says_so(run):
    def mean_loss(logps, old_logps, ref_logps, advantages, mask):
        return -(logps * advantages[:, None] * mask).sum() / mask.sum(), {}

    assert run(replace(SHORT, steps=1, micro_batch=8), loss=mean_loss)[0].grad_norm > 0
    with pytest.raises(ValueError, match="micro_batch=3 splits the step"):
        run(replace(SHORT, micro_batch=3), loss=mean_loss)


def test_the_context_gives_what_a_recipe_needs(run, tiny_policy):
    """Progress, the step's examples, a seeded generator, a memory, and log-probabilities under another view."""
    calls = []

    def blurred_view(logps, old_logps, ref_logps, advantages, mask, rollout, context):
        blank = [replace(e, image=e.image.resize((56, 56)).convert("L")) for e in context.examples]
        other = encode_prompts(context.policy, blank, context.labels, context.settings.style)
        gap = (score_completions(context.policy, other, rollout) - logps)[mask].mean()
        loss, parts = grpo_loss(logps, old_logps, ref_logps, advantages, mask)
        return loss + 0.1 * gap, parts | {"view_gap": gap.item()}

    def look(context):
        assert [e.label for e in context.examples] == context.prompts.labels
        assert torch.equal(context.reference_logps(context.rollout), context.reference_logps(context.rollout))
        context.state["steps"] = context.state.get("steps", 0) + 1
        calls.append(
            (
                context.step,
                context.progress,
                context.record.step,
                context.state["steps"],
                torch.rand(1, generator=context.generator).item(),
            )
        )

    first = run(loss=blurred_view, after_step=look)
    assert "view_gap" in first[0].metrics and first[0].metrics["view_gap"] != 0.0
    assert [entry[:4] for entry in calls] == [(0, 0.0, 1, 1), (1, 0.5, 2, 2)]
    assert calls[0][4] != calls[1][4]
    run(loss=blurred_view, after_step=look)
    assert calls[:2] == calls[2:]


# ---------------------------------------------------------------------------------------------- stop and go on


@pytest.mark.parametrize(("stop", "updates"), [(2, 1), (3, 2)])
def test_resume_equals_an_unbroken_run(tiny_checkpoint, tiny_policy, shots, run, tmp_path, stop, updates):
    """Also between two updates of one rollout, with a memory, and on a freshly loaded policy."""

    def count(context):
        context.state["seen"] = context.state.get("seen", 0) + context.record.tokens
        context.record.metrics["seen"] = context.state["seen"]

    settings = replace(SHORT, steps=5, updates_per_rollout=updates, warmup_steps=2)
    unbroken = run(settings, after_step=count)
    end = weights(tiny_policy)
    run.reset()
    state = TrainingState.start(tiny_policy, settings)
    part = []
    for record in train(tiny_policy, shots, settings, rewards=[even_ids], after_step=count, resume=state):
        part.append(record)
        if record.step == stop:
            break
    path = save_checkpoint(tmp_path / "run", state)
    assert os.listdir(path.parent) == [path.name]
    other = load_policy(tiny_checkpoint, lora_rank=4, device="cpu")
    loaded = load_checkpoint(tmp_path / "run", other)
    assert loaded.settings == settings and loaded.step == stop
    assert (loaded.batch is None) == (stop % updates == 0)
    part += train(other, shots, rewards=[even_ids], after_step=count, resume=loaded)
    assert comparable(part) == comparable(unbroken)
    assert all(torch.equal(weight, end[name]) for name, weight in weights(other).items())


@pytest.mark.usefixtures("ctrl_c_raises")
@pytest.mark.parametrize("where", ["sample", "reward", "loss"])
def test_ctrl_c_leaves_a_state_to_go_on_from(tiny_policy, shots, run, tmp_path, where):
    unbroken = run(replace(SHORT, steps=4))
    run.reset()
    state = TrainingState.start(tiny_policy, replace(SHORT, steps=4))
    presses = []

    def press(name):
        if name == where and state.step == 2 and not presses:
            presses.append(name)
            os.kill(os.getpid(), signal.SIGINT)

    def sample(policy, prompts, **options):
        press("sample")
        return call(sample_groups, policy, prompts, **options)

    def reward(completion_ids, **columns):
        press("reward")
        return even_ids(completion_ids)

    def loss(logps, old_logps, ref_logps, advantages, mask):
        press("loss")
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask)

    steps = dict(sample=sample, rewards={"even_ids": reward}, loss=loss)
    records = []
    with pytest.raises(KeyboardInterrupt):
        for record in train(tiny_policy, shots, resume=state, **steps):
            records.append(record)
    assert presses == [where] and len(records) == state.step == 2
    save_checkpoint(tmp_path, state)
    with torch.no_grad():
        for _, weight in tiny_policy.trainable_parameters():
            weight.zero_()
    records += train(tiny_policy, shots, resume=load_checkpoint(tmp_path, tiny_policy), **steps)
    assert comparable(records) == comparable(unbroken)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_ctrl_c_while_the_weights_move_waits_for_the_record(tiny_policy, shots):
    state = TrainingState.start(tiny_policy, replace(SHORT, steps=4))
    handler = signal.getsignal(signal.SIGINT)

    def press(context):
        if context.step == 1:
            for _ in range(3):  # an impatient user
                os.kill(os.getpid(), signal.SIGINT)

    records = []
    with pytest.raises(KeyboardInterrupt):
        for record in train(tiny_policy, shots, rewards=[even_ids], after_step=press, resume=state):
            records.append(record)
    assert [record.step for record in records] == [1, 2] and state.step == 2
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.fixture
def handle():
    """Set the handler of a signal for the duration of the test."""
    before = {}

    def set_handler(number, handler):
        before.setdefault(number, signal.signal(number, handler))

    yield set_handler
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("learn", [partial(train, rewards=[even_ids]), sft_module.sft], ids=["grpo", "sft"])
def test_sigterm_waits_for_the_record_where_the_program_handles_it(tiny_policy, shots, handle, monkeypatch, learn):
    def update(*arguments, **options):
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return training_update(*arguments, **options)

    def exit_now(number, frame):
        raise SystemExit(128 + number)

    training_update = optimiser.optimiser_step
    monkeypatch.setattr(training, "optimiser_step", update)
    monkeypatch.setattr(sft_module, "optimiser_step", update)
    handle(signal.SIGTERM, exit_now)
    state = TrainingState.start(tiny_policy, replace(SHORT, steps=4))
    records = []
    with pytest.raises(SystemExit, match="143"):
        for record in learn(tiny_policy, shots, resume=state):
            records.append(record)
    assert [record.step for record in records] == [1, 2] and state.step == 2
    assert signal.getsignal(signal.SIGTERM) is exit_now


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_waits_as_the_first_does(handle, name):
    """Half an update must not be saved, however often the user presses Ctrl-C."""
    if not hasattr(signal, name):
        pytest.skip(f"no {name} on this system")

    def stop(number, frame):
        raise KeyboardInterrupt(number)

    number, reached = getattr(signal, name), []
    handle(number, stop)
    with uninterrupted() as raise_delayed:
        for _ in range(3):
            signal.raise_signal(number)
        reached.append("the end of the update")
    assert reached and signal.getsignal(number) is stop
    with pytest.raises(KeyboardInterrupt, match=str(int(number))):
        raise_delayed()


def test_signals_without_a_python_handler_are_left_alone(handle):
    handle(signal.SIGINT, signal.SIG_IGN)
    handle(signal.SIGTERM, signal.SIG_DFL)
    with uninterrupted() as raise_delayed:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    raise_delayed()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_run_may_be_made_longer_but_not_another(tiny_policy, shots):
    state = TrainingState.start(tiny_policy, SHORT)
    assert len(list(train(tiny_policy, shots, rewards=[even_ids], resume=state))) == 2
    assert list(train(tiny_policy, shots, rewards=[even_ids], resume=state)) == []
    assert [r.step for r in train(tiny_policy, shots, replace(SHORT, steps=3), rewards=[even_ids], resume=state)] == [3]
    with pytest.raises(ValueError, match=r"other settings \(group_size 4 then, 8 now; seed 0 then, 3 now\)"):
        next(train(tiny_policy, shots, replace(SHORT, steps=9, group_size=8, seed=3), resume=state))
    with pytest.raises(ValueError, match="other images"):
        fewer = replace(shots, train=shots.train[:2])
        next(train(tiny_policy, fewer, replace(SHORT, steps=9), resume=state))
