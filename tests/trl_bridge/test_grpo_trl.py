"""The four steps against the code of TRL's own GRPOTrainer, on fixed completions: rewards, advantages, losses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.rewards import accuracy_reward, format_reward

pytestmark = pytest.mark.slow

LOSSES = {  # ours -> TRL's options
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
}
MAX_LENGTH = 9
RIGHT, WRONG = "<think>a page</think><answer>Reading.</answer>", "<answer>running</answer>"


def make_trainer(tmp_path, reward_funcs, texts=(), **options):
    """A real GRPOTrainer around a model of a few thousand parameters; `texts` are what it "samples"."""
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    from tiny import rebuild_module

    tokenizer = rebuild_module("checkpoint").build_tokenizer([RIGHT, WRONG], vocab_size=300)
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    config = GRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        per_device_train_batch_size=8, num_generations=4, max_completion_length=MAX_LENGTH, **options,
    )  # fmt: skip

    def rollout(prompts, trainer):
        ids = [tokenizer(text)["input_ids"] for text in texts]
        return {"prompt_ids": [[5]] * len(ids), "completion_ids": ids, "logprobs": None}

    data = datasets.Dataset.from_list([{"prompt": "what is it?", "label": "reading"}] * 2)
    return GRPOTrainer(
        model, reward_funcs, args=config, train_dataset=data, processing_class=tokenizer, rollout_func=rollout
    )


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture
def step():
    """Log-probabilities of 8 rows of uneven length, far enough apart that clips and KL matter, in float64."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([7, 1, 3, 7, 2, 5, 6, 4])
    mask = torch.arange(7) < lengths[:, None]  # (8, 7)
    logps, old, ref = (-2 * torch.rand(8, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    rewards = torch.tensor([[1.0, 2.0, 0.0, 1.0], [0.0, 0.5, 2.0, 2.0]], dtype=torch.float64)
    return SimpleNamespace(
        mask=mask, logps=logps.requires_grad_(), old=old, ref=ref, advantages=group_advantages(rewards).flatten()
    )


CASES = [
    (how, level, beta, weigh_kl)
    for how in LOSSES
    for level, beta, weigh_kl in [("token", 0.0, False), ("token", 0.5, True), ("sequence", 0.04, False)]
    if not (how == "cispo" and level == "sequence")  # defined per token here
]


@pytest.mark.parametrize(("how", "level", "beta", "weigh_kl"), CASES)
def test_loss_and_gradient_are_trls(tmp_path, step, how, level, beta, weigh_kl):
    trainer = make_trainer(
        tmp_path,
        format_reward,
        beta=0.0,
        importance_sampling_level=level,
        use_bias_correction_kl=weigh_kl,
        **LOSSES[how],
    )
    trainer.beta = beta  # in the constructor it would load a reference model, whose part is given here
    entropies = torch.zeros_like(step.logps)
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (step.logps, entropies, None)
    trainer.model.eval()
    ids = torch.zeros(step.mask.shape, dtype=torch.long)
    theirs = trainer._compute_loss(trainer.model, {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": step.mask.long(),
        "advantages": step.advantages, "old_per_token_logps": step.old, "ref_per_token_logps": step.ref,
        "num_items_in_batch": step.mask.sum(),
    })  # fmt: skip
    (their_gradient,) = torch.autograd.grad(theirs, step.logps)
    ours, parts = grpo_loss(
        step.logps,
        step.old,
        step.ref,
        step.advantages,
        step.mask,
        beta=beta,
        how=how,
        level=level,
        weigh_kl=weigh_kl,
        max_length=MAX_LENGTH,
    )
    (our_gradient,) = torch.autograd.grad(ours, step.logps)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert (our_gradient - their_gradient).abs().max() < 1e-6
    assert our_gradient.abs().max() > 1e-3  # and it is not trivially so
    logged = trainer._metrics["eval"]
    if beta:
        assert parts["kl"] == pytest.approx(logged["kl"][0], abs=1e-6)
    if how != "cispo" and level == "token":
        assert parts["clip_low"] == pytest.approx(logged["clip_ratio/low_mean"][0], abs=1e-6)
        assert parts["clip_high"] == pytest.approx(logged["clip_ratio/high_mean"][0], abs=1e-6)
        assert parts["clip_low"] + parts["clip_high"] > 0.1


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_rewards_and_advantages_are_trls(tmp_path, scale):
    texts = [RIGHT, WRONG, RIGHT, WRONG, WRONG, RIGHT, "<think>a</think><answer>running</answer>", "reading"]
    trainer = make_trainer(tmp_path, [accuracy_reward, format_reward], texts, scale_rewards=scale, beta=0.0)
    inputs = [{"prompt": "what is it?", "label": "reading"}] * 8
    theirs = trainer._generate_and_score_completions(inputs)["advantages"]
    rewards = torch.tensor(accuracy_reward(texts, ["reading"] * 8)) + torch.tensor(format_reward(texts))
    ours = group_advantages(rewards.view(2, 4), scale=scale)
    assert (ours.flatten() - theirs).abs().max() < 1e-6
    assert rewards.unique().tolist() == [0.0, 1.0, 2.0]
    logged = trainer._metrics["train"]
    assert logged["rewards/accuracy_reward/mean"] == [3 / 8]
    assert logged["rewards/format_reward/mean"] == [4 / 8]


def test_rewards_take_trls_message_lists(tmp_path):
    trainer = make_trainer(tmp_path, [accuracy_reward, format_reward])
    completions = [[{"role": "assistant", "content": text}] for text in (RIGHT, WRONG)]
    inputs = [{"prompt": [], "label": "reading"}] * 2
    rewards = trainer._calculate_rewards(inputs, [[], []], completions, [[1], [2]])
    assert rewards.tolist() == [[1.0, 1.0], [0.0, 0.0]]
