"""The bridge: a TRL run through it is this library's run, number by number, and what it cannot do it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from favor_lab import trl_bridge
from favor_lab.activities import load_activities
from favor_lab.activities.fewshot import Example, FewShot, few_shot
from favor_lab.activities.images import prepare_image
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import sample_groups, score_completions
from favor_lab.grpo.support.schedule import draw, learning_rate
from favor_lab.grpo.support.settings import HOWS, GRPOSettings
from favor_lab.grpo.training import train
from favor_lab.recipes import RECIPES
from favor_lab.trl_bridge import TRANSLATION, grpo_trainer, trl_config, trl_dataset, trl_records, trl_reward
from favor_lab.vlm.hub import POCKET_DIR
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.prefix import next_token_logps, run_prompt
from favor_lab.vlm.processing import encode_prompts

pytestmark = pytest.mark.slow

pytest.importorskip("trl")
pytest.importorskip("datasets")

LABELS = ["riding a bike", "reading", "phoning", "fishing"]
SCALING = Path(__file__).parents[2] / "notebooks" / "scaling"
SMALL = GRPOSettings(steps=1, prompts_per_step=3, group_size=4, max_new_tokens=9, max_grad_norm=0.0, seed=2)


def spread(completion_ids, **columns):
    """A reward that differs inside every group, whatever a policy with random weights writes."""
    return [(sum(ids) % 7) / 2 for ids in completion_ids]


def constant(completions, **columns):
    return [0.5] * len(completions)


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


def uneven_rollout(policy, prompts, settings, replayed):
    """Sampled completions of 1 to L tokens, some with an end token; with old log-probabilities far from the present
    ones if they are to count as replayed."""
    rollout = sample_groups(policy, prompts, settings.group_size, settings.max_new_tokens, settings.temperature, seed=5)
    length = rollout.mask.shape[1]
    lengths = torch.tensor([(5 * i) % length + 1 for i in range(len(rollout))])  # (N,)
    rollout.mask &= torch.arange(length) < lengths[:, None]
    for row, last in enumerate(rollout.lengths - 1):
        if row % 3:
            rollout.completion_ids[row, last] = policy.end_token_ids[0]
    rollout.completion_ids[~rollout.mask] = policy.pad_token_id
    if replayed:
        noise = 0.4 * torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(7))  # (N, L)
        logps = score_completions(policy, prompts, rollout).detach()
        rollout.logps, rollout.origin = (logps + noise) * rollout.mask, ["replayed"] * len(rollout)
    return rollout


def recomputes(model):
    """Whether gradient checkpointing is on; the model's own word for it changes between versions of transformers."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def gradients(policy):
    return {name: weight.grad.clone() for name, weight in policy.trainable_parameters()}


def our_step(policy, shots, settings, replayed=False):
    """One step of the loop: record, gradients, the completions; the policy is as before."""
    values = {}

    def sample(policy, prompts, **options):
        values["rollout"] = uneven_rollout(policy, prompts, settings, replayed)
        return values["rollout"]

    def after_step(context):
        values["gradients"] = gradients(context.policy)

    before = {name: weight.detach().clone() for name, weight in policy.trainable_parameters()}
    (record,) = train(policy, shots, settings, sample=sample, rewards=[spread], after_step=after_step)
    with torch.no_grad():
        for name, weight in policy.trainable_parameters():
            weight.copy_(before[name])
            weight.grad = None
    return record, values["gradients"], values["rollout"]


def answer_with(trainer, rollout):
    """Let TRL "sample" these completions."""
    ids = [row[keep].tolist() for row, keep in zip(rollout.completion_ids, rollout.mask, strict=True)]
    trainer._generate_single_turn = lambda *args, **kwargs: (ids, None)


def their_step(policy, shots, settings, rollout, tmp_path, **overrides):
    """One step of TRL on these completions, through the model with its images: record and gradients."""
    from transformers import TrainerCallback

    values = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *args, **kwargs):
            values["gradients"] = gradients(policy)

    trainer = grpo_trainer(policy, shots, settings, [spread], tmp_path, **overrides)
    trainer.add_callback(Keep())
    answer_with(trainer, rollout)
    score = trainer._generate_and_score_completions

    def with_old_logps(inputs):
        batch = score(inputs)
        if rollout.origin[0] == "replayed":
            batch["old_per_token_logps"] = rollout.logps
        values["batch"] = batch
        return batch

    trainer._generate_and_score_completions = with_old_logps
    trainer.train()
    (record,) = trl_records(trainer)
    return record, values["gradients"], values["batch"]


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for name, gradient in ours.items():
        assert gradient.norm() > 0, name
        assert (gradient - theirs[name]).norm() < 1e-4 * gradient.norm(), name


CASES = {
    f"{how}-{level}-beta{beta}": {"how": how, "level": level, "beta": beta}
    for how in HOWS
    for level in ("token", "sequence")
    for beta in (0.0, 0.04)
    if not (how == "cispo" and level == "sequence")
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_step_on_the_same_completions_has_the_same_loss_and_gradient(tiny_policy, shots, tmp_path, changes):
    """Off the policy, so that ratios, clips and bounds act, three prompts of different images and lengths."""
    settings = replace(SMALL, **changes)
    record, ours, rollout = our_step(tiny_policy, shots, settings, replayed=True)
    other, theirs, _ = their_step(tiny_policy, shots, settings, rollout, tmp_path)
    assert other.loss == pytest.approx(record.loss, abs=1e-5) and abs(record.loss) > 1e-2
    assert other.clip_share == pytest.approx(record.clip_share, abs=1e-5)
    assert record.clip_share > 0.1 or changes["level"] == "sequence" or changes["how"] == "cispo"
    assert_same_gradients(ours, theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {"how": "grpo"},
        {"how": "dapo", "micro_batch": 4},
        {"how": "grpo", "micro_batch": 4},
        {"how": "dr_grpo", "micro_batch": 6, "temperature": 0.7},
        {"how": "cispo", "micro_batch": 2},
        {"how": "grpo", "gradient_checkpointing": True},
        {"how": "grpo", "scale": "batch", "prompts_per_step": 6},
        {"how": "grpo", "reward_weights": (0.5,), "scale": "none", "clip": 0.1, "clip_high": 0.3},
    ],
    ids=str,
)
def test_also_on_policy_in_micro_batches_and_at_other_settings(tiny_policy, shots, tmp_path, changes):
    """prompts_per_step=6 is more than there are images: TRL alone would train on an empty epoch."""
    settings = replace(SMALL, **changes)
    record, ours, rollout = our_step(tiny_policy, shots, settings)
    other, theirs, batch = their_step(tiny_policy, shots, settings, rollout, tmp_path)
    assert_same_gradients(ours, theirs)
    token_means = () if settings.micro_batch else ("kl", "entropy", "clip_share")
    for name in ("loss", "reward", "flat_groups", "truncated", "length_mean", *token_means):
        assert getattr(other, name) == pytest.approx(getattr(record, name), abs=1e-5), name
    if settings.micro_batch:  # TRL logs the mean of the passes' means
        assert other.kl != pytest.approx(record.kl, rel=1e-4)
    for name in ("step", "rewards", "rows", "tokens", "length_min", "length_max", "learning_rate", "update"):
        assert getattr(other, name) == getattr(record, name), name
    assert record.kl > 1e-3 and record.entropy > 0.1 and record.reward > 0.1
    assert batch["prompt_mask"].sum(1).unique().numel() > 1, "prompts of different lengths"


def test_several_updates_on_one_rollout(tiny_policy, shots, tmp_path):
    """The second update has ratios: those of the first update's change, which both trainers have made."""
    settings = replace(SMALL, steps=2, updates_per_rollout=2, learning_rate=3e-2, schedule="constant", max_grad_norm=1)
    before = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    values = []

    def sample(policy, prompts, **options):
        values.append(uneven_rollout(policy, prompts, settings, replayed=False))
        return values[-1]

    ours = list(train(tiny_policy, shots, settings, sample=sample, rewards=[spread]))
    with torch.no_grad():
        for name, weight in tiny_policy.trainable_parameters():
            weight.copy_(before[name])
    trainer = grpo_trainer(tiny_policy, shots, settings, [spread], tmp_path)
    answer_with(trainer, *values)
    trainer.train()
    for record, other in zip(ours, trl_records(trainer), strict=True):
        for name in ("loss", "kl", "clip_share", "entropy", "reward", "grad_norm", "length_mean"):
            assert getattr(other, name) == pytest.approx(getattr(record, name), rel=1e-2, abs=1e-4), name
        assert (other.update, other.rewards, other.rows) == (record.update, record.rewards, record.rows)
    assert ours[1].clip_share > 0.01


def test_a_reference_is_the_policy_without_its_adapter_not_a_copy_of_it(tiny_policy, shots, tmp_path):
    """The fixture's adapter is not fresh: TRL's own reference would be a copy of it, and the KL 0."""
    settings = replace(SMALL, how="grpo")
    record, _, rollout = our_step(tiny_policy, shots, settings)
    other, _, _ = their_step(tiny_policy, shots, settings, rollout, tmp_path)
    assert other.kl == pytest.approx(record.kl, rel=1e-4) and record.kl > 1e-3
    assert list(tiny_policy.model.peft_config) == ["default"]


def test_bnpo_in_passes_is_another_number_in_trl_and_is_refused(tiny_policy, shots, tmp_path):
    settings = replace(SMALL, how="bnpo", beta=0.0)
    record, _, rollout = our_step(tiny_policy, shots, settings, replayed=True)
    passes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "steps_per_generation": 3}
    other, _, _ = their_step(tiny_policy, shots, settings, rollout, tmp_path, **passes)
    assert abs(other.loss - record.loss) > 1e-3  # the mean of three means
    with pytest.raises(ValueError, match="how='dapo', which is the same number"):
        trl_config(replace(settings, micro_batch=4), tmp_path)


def test_trl_alone_scores_another_distribution_than_it_samples_from(tiny_policy, shots, tmp_path, monkeypatch):
    """What the bridge mends: forbidden tokens are suppressed while sampling, but hold probability when scored."""
    settings = replace(SMALL, how="grpo", beta=0.0)
    _, ours, rollout = our_step(tiny_policy, shots, settings)
    monkeypatch.setattr(trl_bridge, "NEVER", 0.0)
    _, theirs, _ = their_step(tiny_policy, shots, settings, rollout, tmp_path)
    assert max((g - theirs[name]).norm() / g.norm() for name, g in ours.items()) > 1e-3
    assert tiny_policy.base.get_output_embeddings().bias is None


# ------------------------------------------------------------------------------------------------------------ prompts


def test_prompts_of_trl_are_those_of_encode_prompts(tiny_policy, shots, tmp_path):
    order = draw([example.label for example in shots.train], 0, 3, SMALL.seed)
    prompts = encode_prompts(tiny_policy, [shots.train[i] for i in order], LABELS)
    _, _, rollout = our_step(tiny_policy, shots, SMALL)
    _, _, batch = their_step(tiny_policy, shots, SMALL, rollout, tmp_path)
    rows = rollout.groups
    assert torch.equal(batch["prompt_ids"], prompts.input_ids[rows])
    assert torch.equal(batch["prompt_mask"], prompts.attention_mask[rows])
    assert torch.equal(batch["image_grid_thw"], prompts.image_grid_thw[rows])
    features = tiny_policy.base.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    for row, group in enumerate(rows.tolist()):
        torch.testing.assert_close(features[row], prompts.image_features[group])


def test_the_data_set_keeps_images_as_the_tower_sees_them(tiny_policy):
    upright = Image.linear_gradient("L").resize((84, 56)).convert("RGB")
    turned = upright.copy()
    turned.getexif()[0x0112] = 6  # to be turned by 90 degrees
    odd = [turned, upright.convert("RGBA"), upright.convert("L"), upright]
    odd[1].putalpha(40)
    examples = [Example(image, "reading", f"odd/{i}") for i, image in enumerate(odd)]
    rows = trl_dataset(examples, None, style="answer")
    assert rows.column_names == ["prompt", "image", "label", "source"]
    for example, row in zip(examples, rows, strict=True):
        assert row["image"].tobytes() == prepare_image(example).tobytes()
        assert (row["label"], row["source"]) == ("reading", example.source)
        text = "Which activity is this? Name it inside <answer> </answer>."
        assert row["prompt"] == [{"role": "user", "content": text}]
    with pytest.raises(ValueError, match="no examples"):
        trl_dataset([], LABELS)
    with pytest.raises(ValueError, match="flat/0"):
        trl_dataset([Example(Image.new("RGB", (4, 1000)), "reading", "flat/0")], LABELS)


def test_images_come_in_the_order_of_the_loop_and_none_is_dropped(tiny_policy, shots, tmp_path):
    settings = replace(SMALL, steps=5, prompts_per_step=3, updates_per_rollout=2)
    trainer = grpo_trainer(tiny_policy, shots, settings, [constant], tmp_path)
    sources = [example.source for example in shots.train]
    indices = [i for turn in range(3) for i in draw([e.label for e in shots.train], turn, 3, settings.seed)]
    assert trainer.train_dataset["source"][:] == [sources[i] for i in indices]
    chunks = list(trainer._get_train_sampler())
    assert chunks == [i for turn in range(3) for _ in range(2) for p in range(3) for i in [3 * turn + p] * 4]


# ------------------------------------------------------------------------------------------------------------ settings

CHANGED = {  # a value other than the default for every field, and what must come of it
    "steps": (7, {"max_steps": 7}),
    "prompts_per_step": (2, {"per_device_train_batch_size": 16}),
    "group_size": (4, {"num_generations": 4, "per_device_train_batch_size": 16}),
    "max_new_tokens": (32, {"max_completion_length": 32}),
    "temperature": (0.5, {"temperature": 0.5}),
    "style": ("answer", "question"),
    "open_vocabulary": (True, "question"),
    "learning_rate": (2e-5, {"learning_rate": 2e-5}),
    "schedule": ("cosine", {"lr_scheduler_type": "cosine"}),
    "warmup_steps": (3, {"warmup_steps": 3}),
    "weight_decay": (0.1, {"weight_decay": 0.1}),
    "max_grad_norm": (0.5, {"max_grad_norm": 0.5}),
    "beta": (0.0, {"beta": 0.0}),
    "clip": (0.1, {"epsilon": 0.1}),
    "clip_high": (0.28, {"epsilon_high": 0.28}),
    "how": ("dapo", {"loss_type": "dapo"}),
    "level": ("sequence", {"importance_sampling_level": "sequence"}),
    "scale": ("none", {"scale_rewards": "none"}),
    "unbiased": (False, "refused"),
    "eps": (1e-6, "refused"),
    "updates_per_rollout": (3, {"num_iterations": 3}),
    "micro_batch": (8, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}),
    "decoding": ("plain", "ignored"),
    "gradient_checkpointing": (True, {"gradient_checkpointing": True}),
    "offload_tower": (True, "refused"),
    "skip_flat_groups": (True, "refused"),
    "reward_weights": ((1.0, 0.5), {"reward_weights": [1.0, 0.5]}),
    "coefficients": ({"gamma": 0.1}, "refused"),
    "scoring": ("plain", "ignored"),
    "log_rows": (2, "ignored"),
    "seed": (4, {"seed": 4}),
}


def options(settings, folder, **overrides):
    return trl_config(settings, folder, use_cpu=True, **overrides).to_dict()


@pytest.mark.parametrize("name", [item.name for item in fields(GRPOSettings)])
def test_no_setting_is_silently_ignored(name, tiny_policy, shots, tmp_path):
    value, outcome = CHANGED[name]
    settings = replace(GRPOSettings(), **{name: value})
    assert getattr(GRPOSettings(), name) != value
    if outcome == "refused":
        with pytest.raises(ValueError, match=f"no counterpart of {name}="):
            trl_config(settings, tmp_path)
        assert "refused" in TRANSLATION[name]
        return
    usual, with_change = options(GRPOSettings(), tmp_path), options(settings, tmp_path)
    differences = {key: value for key, value in with_change.items() if value != usual[key]}
    if isinstance(outcome, dict):
        assert outcome.items() <= differences.items()
        assert any(key in TRANSLATION[name] for key in outcome)
        return
    assert differences == {} and outcome in TRANSLATION[name]
    if outcome == "question":
        trainer = grpo_trainer(tiny_policy, shots, settings, [constant], tmp_path)
        prompts = encode_prompts(
            tiny_policy, shots.train[:1], None if settings.open_vocabulary else LABELS, settings.style
        )
        assert trainer.train_dataset[0]["prompt"][0]["content"] == prompts.texts[0]


def test_the_table_of_settings_is_complete():
    assert {item.name for item in fields(GRPOSettings)} == TRANSLATION.keys() == CHANGED.keys()


def test_options_that_settings_do_not_speak_of_are_those_of_the_loop(tmp_path):
    """TRL's own defaults would make another run of it."""
    from trl import GRPOConfig

    ours, theirs = options(GRPOSettings(), tmp_path), GRPOConfig(str(tmp_path), use_cpu=True, fp16=False).to_dict()
    for name, value in {
        "use_bias_correction_kl": False, "bf16": False, "disable_dropout": True, "logging_steps": 1,
        "shuffle_dataset": False, "save_strategy": "no", "loss_type": "grpo", "gradient_checkpointing": False,
    }.items():  # fmt: skip
        assert ours[name] == value != theirs[name], name
    for name, value in {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0, "delta": None}.items():
        assert ours[name] == value, name
    assert options(GRPOSettings(how="cispo"), tmp_path)["epsilon_high"] == 5.0
    assert options(GRPOSettings(schedule="constant"), tmp_path)["lr_scheduler_type"] == "constant_with_warmup"
    assert options(GRPOSettings(), tmp_path, beta=0.5, logging_steps=7)["beta"] == 0.5
    with pytest.raises(TypeError, match="no_such_option"):
        trl_config(GRPOSettings(), tmp_path, no_such_option=1)


def test_rows_that_do_not_fit_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="micro_batch=5 must divide the 32 completions"):
        trl_config(GRPOSettings(micro_batch=5), tmp_path)
    with pytest.raises(ValueError, match="weighs each token by its own ratio"):
        trl_config(GRPOSettings(how="cispo", level="sequence"), tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="prompts_per_step=4 cannot be shared among 3 processes"):
        trl_config(GRPOSettings(), tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert trl_bridge.rows_at_once(GRPOSettings(), processes=2) == (16, 1)
    with pytest.raises(ValueError, match="how='dapo'"):
        trl_config(GRPOSettings(how="bnpo"), tmp_path)


def test_a_policy_without_adapter_needs_no_reference_or_says_so(tiny_checkpoint, shots, tmp_path):
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    with pytest.raises(ValueError, match="beta=0.04 needs a reference"):
        grpo_trainer(policy, shots, SMALL, [spread], tmp_path)
    settings = replace(SMALL, beta=0.0, weight_decay=0.1)
    trainer = grpo_trainer(policy, shots, settings, [spread], tmp_path)
    before = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
    trainer.train()
    changed_names = {name for name, weight in policy.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed_names and not any("visual" in name for name in changed_names)
    decayed, spared = ({id(p) for p in group["params"]} for group in trainer.optimizer.param_groups)
    assert {id(weight) for _, weight in policy.trainable_parameters()} == decayed and not spared


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_that_could_not_take_a_step_are_refused(tiny_checkpoint, shots, tmp_path, dtype):
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu", dtype=dtype)
    with pytest.raises(ValueError, match=f"TRL's optimiser would move {dtype} weights themselves.*dtype='float32'"):
        grpo_trainer(policy, shots, replace(SMALL, beta=0.0), [spread], tmp_path)


def test_an_adapter_on_quantised_weights_stays_float32(tiny_policy, shots, tmp_path):
    """TRL makes it bfloat16, as for a policy in 4 bits, for which this one is taken here."""
    tiny_policy.model.is_loaded_in_4bit = True
    before = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    grpo_trainer(tiny_policy, shots, SMALL, [spread], tmp_path)
    for name, weight in tiny_policy.trainable_parameters():
        assert weight.dtype == torch.float32 and torch.equal(weight, before[name])


def test_the_learning_rate_is_the_loops_from_the_first_step_on(tiny_policy, shots, tmp_path):
    settings = replace(SMALL, steps=5, warmup_steps=2, schedule="cosine", prompts_per_step=1, max_new_tokens=2)
    trainer = grpo_trainer(tiny_policy, shots, settings, [spread], tmp_path)
    trainer.train()
    rates = [record.learning_rate for record in trl_records(trainer)]
    assert rates == pytest.approx([learning_rate(step, settings) for step in range(5)])
    assert rates[0] == settings.learning_rate / 2  # transformers starts from 0
    other = grpo_trainer(tiny_policy, shots, settings, [spread], tmp_path, warmup_steps=0, lr_scheduler_type="linear")
    other.create_optimizer_and_scheduler(4)
    assert other.lr_scheduler.get_last_lr() == [settings.learning_rate] * len(other.optimizer.param_groups)


def test_without_trl_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs trl: pip install 'favor-lab\[trl\]'"):
        trl_config(GRPOSettings(), tmp_path)


# ------------------------------------------------------------------------------------------------------------- rewards


def test_a_reward_is_given_what_the_loop_gives_it(tiny_policy, shots, tmp_path):
    """Texts in place of chats, the columns, the groups, the style; only what it names."""
    calls = {"loop": [], "trl": []}

    def remember(where):
        def reward(completions, prompts, completion_ids, label, source, groups, style):
            calls[where].append((prompts, label, source, groups, style))
            assert all(isinstance(text, str) for text in completions)
            return [len(ids) / 10 for ids in completion_ids]

        return reward

    settings = replace(SMALL, style="answer", beta=0.0, steps=2)
    list(train(tiny_policy, shots, settings, rewards={"length": remember("loop")}))
    trainer = grpo_trainer(tiny_policy, shots, settings, {"length": remember("trl")}, tmp_path)
    trainer.train()
    assert calls["loop"] == calls["trl"] and len(calls["trl"]) == 2
    assert trl_records(trainer)[0].rewards.keys() == {"length"}


def test_a_reward_that_is_no_number_or_asks_for_the_context_is_refused(tiny_policy, shots, tmp_path):
    def broken(completions):
        return [1.0, float("nan")]

    def short(completions):
        return [1.0]

    def curious(completions, context):
        return []

    chat = [[{"role": "assistant", "content": "reading"}]] * 2
    for function, problem in ((broken, "nan for row 1"), (short, "1 numbers")):
        with pytest.raises(ValueError, match=f"reward function f gave {problem}"):
            trl_reward("f", function, SMALL)(prompts=chat, completions=chat, completion_ids=[[1], [2]])
    with pytest.raises(ValueError, match="asks for the context"):
        trl_reward("f", curious, SMALL)
    with pytest.raises(ValueError, match="different names"):
        grpo_trainer(tiny_policy, shots, SMALL, [broken, broken], tmp_path)


def test_rewards_in_trl_see_special_tokens_and_what_was_asked(tiny_policy):
    seen = {}

    def watch(completions, prompts, label):
        seen.update(completions=completions, prompts=prompts)
        return accuracy_reward(completions, label)

    texts = ["<answer>reading</answer>", "<answer>rea<|im_start|>ding</answer>"]
    ids = [tiny_policy.tokenizer(text)["input_ids"] + tiny_policy.end_token_ids[:1] for text in texts]
    as_trl_has_them = tiny_policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert as_trl_has_them == texts[:1] * 2
    columns = {
        "completions": [[{"role": "assistant", "content": text}] for text in as_trl_has_them],
        "prompts": [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]] * 2,
    }
    reward = trl_reward("watch", watch, SMALL, tiny_policy)
    assert reward(completion_ids=ids, label=["reading"] * 2, **columns) == [1.0, 0.0]
    assert seen == {"completions": texts, "prompts": ["Which?"] * 2}


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The pocket policy after three steps of TRL, and how it got there."""
    folder = tmp_path_factory.mktemp("trl")
    policy, calls = load_policy(device="cpu"), {"accuracy_reward": 0, "format_reward": 0}

    def counted(function):
        def reward(completions, **columns):
            calls[function.__name__] += 1
            return function(completions, **columns)

        return reward

    shots = few_shot(load_activities("cartoon"), shots=1, validation=0, test=0)
    settings = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=40)
    before = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
    rewards = {function.__name__: counted(function) for function in (accuracy_reward, format_reward)}
    trainer = grpo_trainer(policy, shots, settings, rewards, folder, save_strategy="steps", save_steps=3)
    trainer.train()
    return {"policy": policy, "trainer": trainer, "before": before, "calls": calls, "folder": folder, "shots": shots}


def test_trl_trains_the_adapter_with_our_rewards_and_leaves_the_rest(trained):
    policy, before = trained["policy"], trained["before"]
    assert trained["calls"] == {"accuracy_reward": 3, "format_reward": 3}
    now = dict(policy.model.named_parameters())
    assert now.keys() == before.keys()
    changed_names = {name for name in now if not torch.equal(now[name], before[name])}
    assert changed_names and all("lora_" in name for name in changed_names)
    assert {name for name, _ in policy.trainable_parameters()} == {name for name in now if "lora_" in name}
    assert not policy.model.training and not recomputes(policy.base)


def test_the_rewards_of_all_recipes_run_in_trls_trainer_or_say_that_they_need_the_loop(tmp_path):
    """One step with all of them: TRL logs the means of what each gives to these completions outside TRL."""
    shots = few_shot(load_activities("cartoon"), shots=1, validation=0, test=0)
    settings = GRPOSettings(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=40, beta=0.0)
    of_trl, refused, given = {}, set(), {}

    def remembered(name, function):
        @wraps(function)
        def reward(completions, **columns):
            given[name] = (completions, columns)
            return function(completions, **columns)

        return reward

    for recipe in RECIPES.values():
        for name, function in recipe.rewards.items():
            try:
                trl_reward(name, function, settings)
                of_trl[name] = function
            except ValueError as error:
                assert f"{name} asks for the context" in str(error)
                refused.add(name)
    trainer = grpo_trainer(
        load_policy(device="cpu"), shots, settings, {name: remembered(name, f) for name, f in of_trl.items()}, tmp_path
    )
    trainer.train()
    (record,) = trl_records(trainer)
    for name, function in of_trl.items():
        texts, columns = given[name]
        values = function(texts, **columns)
        assert record.rewards[name] == pytest.approx(sum(values) / len(values), abs=1e-5), name
    assert len(of_trl) > 12 and {"right_consistency_reward", "slow_confidence_reward", "blind_reward"} <= refused


def test_its_log_becomes_records(trained):
    records = trl_records(trained["trainer"])
    assert [record.step for record in records] == [1, 2, 3]
    for record in records:
        assert record.rows == 8 and 0 < record.tokens <= 8 * 40 and record.seconds["step"] > 0
        assert record.reward == pytest.approx(sum(record.rewards.values()))
        assert record.rewards.keys() == {"accuracy_reward", "format_reward"}
        numbers = [record.loss, record.kl, record.entropy, record.grad_norm, record.flat_groups]
        assert all(torch.tensor(numbers).isfinite())
    assert records[0].kl < 1e-5 < records[-1].kl
    assert json.loads(json.dumps(records[0].to_dict()))["metrics"]["step_time"] > 0
    pytest.importorskip("matplotlib")
    from favor_lab.show.curves import plot_records

    titles = [
        axes.get_title(loc="left") or axes.get_title() for axes in plot_records(records).axes if axes.get_visible()
    ]
    assert len(titles) == 4 and all(titles), "rewards, KL, entropy, lengths"


def test_it_samples_nothing_forbidden_and_ends_at_every_end_token(trained):
    policy, config = trained["policy"], trained["trainer"].generation_config
    assert config.suppress_tokens == policy.forbidden_token_ids
    assert set(config.eos_token_id) == set(policy.end_token_ids)
    assert (config.top_k, config.top_p, config.temperature, config.repetition_penalty) == (0, 1.0, 1.0, 1.0)
    vllm = trl_bridge.allowed_tokens(policy, {"use_vllm": True, "generation_kwargs": {"seed": 1}})
    assert vllm["logit_bias"].keys() == set(policy.forbidden_token_ids) and vllm["seed"] == 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_distribution_that_trl_samples_from_is_the_loops(tiny_policy, shots, tmp_path, temperature):
    """Also with the near-greedy generation_config that Qwen2-VL's checkpoints ship."""
    settings = replace(SMALL, temperature=temperature)
    trainer = grpo_trainer(tiny_policy, shots, settings, [spread], tmp_path)
    prompts = encode_prompts(tiny_policy, shots.train[:1], LABELS)
    chat = trainer._tokenize_prompts(
        [[{"role": "user", "content": [{"type": "image", "image": shots.train[0].image},
                                       {"type": "text", "text": prompts.texts[0]}]}]]
    )  # fmt: skip
    inputs = {name: torch.as_tensor(value) for name, value in chat[2].items()}
    config = trainer.generation_config
    config.max_new_tokens, config.output_scores, config.return_dict_in_generate = 1, True, True
    out = tiny_policy.model.generate(torch.tensor(chat[0]), generation_config=config, **inputs)
    theirs = out.scores[0].log_softmax(-1)  # (1, V)
    ours = next_token_logps(tiny_policy, run_prompt(tiny_policy, prompts).last_hidden, temperature)  # (1, V)
    assert torch.equal(theirs.isinf(), ours.isinf()) and ours.isinf().sum() == len(tiny_policy.forbidden_token_ids)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert (tiny_policy.base.generation_config.top_k, tiny_policy.base.generation_config.do_sample) == (1, True)


def test_gradient_checkpointing_changes_no_completion_and_is_undone(tiny_policy, shots, tmp_path):
    runs = []
    before = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    for checkpointing in (False, True):
        with torch.no_grad():
            for name, weight in tiny_policy.trainable_parameters():
                weight.copy_(before[name])
        settings = replace(SMALL, gradient_checkpointing=checkpointing, max_grad_norm=1.0)
        trainer = grpo_trainer(tiny_policy, shots, settings, [spread], tmp_path)
        trainer.train()
        runs += trl_records(trainer)
    plain, saving = (replace(record, seconds={}, metrics={}) for record in runs)
    assert saving.loss == pytest.approx(plain.loss, abs=1e-5)
    assert saving.grad_norm == pytest.approx(plain.grad_norm, rel=1e-4)
    for name in ("reward", "length_mean", "truncated", "tokens"):
        assert getattr(saving, name) == getattr(plain, name), name
    assert not recomputes(tiny_policy.base) and not tiny_policy.model.training
    assert not tiny_policy.base.get_input_embeddings()(torch.tensor([1])).requires_grad


def test_a_run_is_taken_up_again_from_trls_own_checkpoint(tiny_checkpoint, shots, tmp_path):
    settings = replace(SMALL, steps=2, learning_rate=1e-2)
    ends = []
    for options in ({}, {"resume_from_checkpoint": str(tmp_path / "checkpoint-1")}):
        policy = load_policy(tiny_checkpoint, lora_rank=4, device="cpu")
        trainer = grpo_trainer(policy, shots, settings, [spread], tmp_path, save_strategy="steps", save_steps=1)
        trainer.train(**options)
        ends.append(torch.cat([weight.detach().flatten() for _, weight in policy.trainable_parameters()]))
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-4)


def test_the_policy_goes_on_in_the_loop(trained):
    (record,) = train(trained["policy"], trained["shots"], GRPOSettings(steps=1, prompts_per_step=1, max_new_tokens=8))
    assert record.sampling_gap < 1e-4


@pytest.mark.parametrize("origin", ["ours", "theirs", "checkpoint"])
def test_an_adapter_of_either_loads_in_the_other_and_in_plain_peft(origin, tmp_path):
    from peft import PeftModel
    from transformers import Qwen2VLForConditionalGeneration

    policy = load_policy(device="cpu")
    shots = few_shot(load_activities("cartoon"), shots=1, validation=0, test=1)
    settings = GRPOSettings(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=24, seed=1)
    folder = tmp_path
    if origin == "ours":
        list(train(policy, shots, settings))
        policy.save(folder)
    else:
        trainer = grpo_trainer(policy, shots, settings, [spread], tmp_path, save_strategy="steps", save_steps=1)
        trainer.train()
        trainer.save_model()
        folder = tmp_path / "checkpoint-1" if origin == "checkpoint" else tmp_path
    bare = Qwen2VLForConditionalGeneration.from_pretrained(POCKET_DIR, dtype=torch.float32, local_files_only=True)
    plain = PeftModel.from_pretrained(bare, folder).eval()
    again = load_policy(adapter=folder, device="cpu")
    trainer = grpo_trainer(again, shots, settings, [spread], tmp_path / "again")
    prompts = policy.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": shots.test[0].image}, {"type": "text", "text": "?"}]}],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
    )  # fmt: skip
    with torch.no_grad():
        of_policy, *others = (m(**prompts).logits for m in (policy.model, plain, again.model, trainer.model.eval()))
        with policy.reference():
            assert (policy.model(**prompts).logits - of_policy).abs().max() > 1e-3, "the adapter has learnt nothing"
    for other in others:
        torch.testing.assert_close(other, of_policy, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- many processes

COUNTING = """
import json, os, runpy, sys
from pathlib import Path
import torch
import favor_lab
from trl import GRPOTrainer

out, script = Path(sys.argv[1]), sys.argv[2]
calls, backends = [], [None]

def counted(function):
    def reward(completions, label, **columns):
        calls.append([function.__name__, len(completions), sorted(set(label))])
        if torch.distributed.is_initialized():
            backends.append(torch.distributed.get_backend())
        return function(completions, label=label, **columns)
    reward.__name__ = function.__name__
    return reward

favor_lab.accuracy_reward = counted(favor_lab.accuracy_reward)
favor_lab.format_reward = counted(favor_lab.format_reward)
answers = ["reading", "fishing", "running", "jumping", "phoning", "drinking", "climbing", "applauding"]
written = "<think>a person</think><answer>%s</answer>"

def fixed(self, prompt_ids, images, fields, num_generations, **kwargs):
    texts = [written % answers[i % 8] for i in range(len(prompt_ids))]  # the same 8 answers to every prompt
    return [self._tokenizer(text)["input_ids"] + [self.eos_token_ids[0]] for text in texts], None

if os.environ.get("FIXED"):
    GRPOTrainer._generate_single_turn = fixed
sys.argv = [script, *sys.argv[3:]]
runpy.run_path(script, run_name="__main__")
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
(out / f"rank{rank}of{world}.json").write_text(json.dumps({"calls": calls, "backend": backends[-1]}))
"""


def launch(tmp_path, processes, *arguments, fixed=True):
    """Run the script as the README of `notebooks/scaling` says; the adapter's folder, its records, calls by process."""
    wrapper, out = tmp_path / "counting.py", tmp_path / f"run-{processes}"
    wrapper.write_text(COUNTING)
    start = [sys.executable]
    if processes > 1:
        config = str(SCALING / "cpu_two.yaml")
        start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    arguments = [*arguments, "--cpu", "--output", str(out)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "FIXED": "1" if fixed else ""}
    command = [*start, str(wrapper), str(tmp_path), str(SCALING / "train_trl.py"), *arguments]
    for attempt in ("first", "second"):  # gloo was seen to hang, rarely, when its connections are closed after the run
        started = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            output, errors = started.communicate(timeout=600)
            break
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)  # the launcher and its processes
            output, errors = started.communicate()
            assert attempt == "first", output + errors
    assert started.returncode == 0, output + errors
    assert f"on {processes} processes" in output
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    ranks = [json.loads((tmp_path / f"rank{r}of{processes}.json").read_text()) for r in range(processes)]
    return out, records, ranks


@pytest.mark.slow
def test_two_processes_make_the_step_of_one(tmp_path):
    arguments = ["--shots", "1", "--steps", "2", "--prompts", "2", "--group-size", "8", "--max-new-tokens", "40"]
    one, alone, _ = launch(tmp_path, 1, *arguments)
    two, step_of_two, ranks = launch(tmp_path, 2, *arguments)
    for rank in ranks:
        assert rank["backend"] == "gloo"
        assert [call[0] for call in rank["calls"]] == ["accuracy_reward", "format_reward"] * 2
        assert all(count == 8 and len(labels) == 1 for _, count, labels in rank["calls"]), "whole groups"
    assert ranks[0]["calls"] != ranks[1]["calls"], "each process judges its own prompts"
    for a, b in zip(alone, step_of_two, strict=True):
        for name in ("loss", "reward", "grad_norm", "kl", "entropy", "learning_rate", "rewards", "rows", "tokens"):
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-6), name
    policies = [load_policy(device="cpu"), *(load_policy(adapter=folder, device="cpu") for folder in (one, two))]
    start, single, double = (torch.cat([p.flatten() for _, p in it.trainable_parameters()]) for it in policies)
    assert (double - single).norm() < 0.02 * (single - start).norm()


def test_the_configurations_are_ones_that_accelerate_reads():
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    kinds = {"cpu_two": "MULTI_GPU", "zero2": "DEEPSPEED", "fsdp2": "FSDP", "gpus": "MULTI_GPU"}
    assert {path.stem for path in SCALING.glob("*.yaml")} == set(kinds)
    for name, kind in kinds.items():
        path = SCALING / f"{name}.yaml"
        config = load_config_from_file(str(path))  # ValueError for a key that it does not know
        assert config.distributed_type == DistributedType[kind]
        assert config.num_processes > 1 and config.num_machines == 1
        assert yaml.safe_load(path.read_text())["mixed_precision"] == config.mixed_precision
        assert path.name in (SCALING / "README.md").read_text()
    assert load_config_from_file(str(SCALING / "zero2.yaml")).deepspeed_config["zero_stage"] == 2
    fsdp = load_config_from_file(str(SCALING / "fsdp2.yaml")).fsdp_config
    assert fsdp["fsdp_version"] == 2 and fsdp["fsdp_state_dict_type"] == "FULL_STATE_DICT"


def test_the_readme_names_files_and_options_that_exist():
    import re

    page = (SCALING / "README.md").read_text()
    command = [sys.executable, str(SCALING / "train_trl.py"), "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {option for line in re.findall(r"train_trl\.py(.*)", page) for option in re.findall(r"--[\w-]+", line)}
    assert len(used) > 3 and all(f"{option} " in help_text or f"{option}]" in help_text for option in used), used
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert target.startswith("https://") or (SCALING / target).exists(), target
