"""Loading, freezing, switching the adapter off, saving; and what is said when a checkpoint is not usable."""

import json
import shutil
import socket

import pytest
import torch

from favor_lab.grpo.sampling import sample_groups, score_completions
from favor_lab.vlm import loading
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.prefix import next_token_logps, run_prompt
from favor_lab.vlm.processing import encode_prompts
from tiny import LABELS


@pytest.fixture
def logps_of(tiny_examples):
    """First-token log-probabilities of a policy for two examples, features encoded by that policy."""

    def logps(policy):
        with torch.no_grad():
            prompts = encode_prompts(policy, tiny_examples[:2], LABELS)
            return next_token_logps(policy, run_prompt(policy, prompts).last_hidden)[:, :300]

    return logps


def test_only_the_adapter_moves(tiny_policy, tiny_examples, logps_of):
    before = {name: p.clone() for name, p in tiny_policy.model.named_parameters()}
    features = encode_prompts(tiny_policy, tiny_examples, LABELS).image_features
    assert all("lora_" in name and "visual" not in name for name, _ in tiny_policy.trainable_parameters())
    optimiser = torch.optim.AdamW([p for _, p in tiny_policy.trainable_parameters()], lr=0.01)
    hidden = run_prompt(tiny_policy, encode_prompts(tiny_policy, tiny_examples, LABELS)).last_hidden
    next_token_logps(tiny_policy, hidden)[:, 5].sum().backward()
    optimiser.step()
    for name, p in tiny_policy.model.named_parameters():
        assert torch.equal(p, before[name]) != ("lora_" in name), name
    again = encode_prompts(tiny_policy, tiny_examples, LABELS).image_features
    assert all(torch.equal(a, b) for a, b in zip(features, again, strict=True))


def test_device_and_dtype_are_those_of_the_language_model(tiny_policy, tiny_examples):
    """transformers' own answer is that of the first parameter, which is the tower's."""
    prompts = encode_prompts(tiny_policy, tiny_examples, LABELS)
    before = sample_groups(tiny_policy, prompts, 2, 4, seed=0)
    tiny_policy.move_tower("meta")
    tiny_policy.tower.half()
    assert tiny_policy.base.device.type == "meta" and tiny_policy.base.dtype == torch.float16
    assert tiny_policy.device.type == "cpu" and tiny_policy.dtype == torch.float32
    rollout = sample_groups(tiny_policy, prompts, 2, 4, seed=0)  # kept features, no tower
    assert torch.equal(rollout.completion_ids, before.completion_ids)
    score_completions(tiny_policy, prompts, rollout).sum().backward()
    with tiny_policy.reference(), torch.no_grad():
        assert score_completions(tiny_policy, prompts, rollout).isfinite().all()
    assert "on cpu, float32" in tiny_policy.report()


def test_without_an_adapter_the_language_model_is_trainable_and_the_tower_is_not(tiny_checkpoint):
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    trainable = {name for name, _ in policy.trainable_parameters()}
    assert trainable == {name for name, _ in policy.model.named_parameters() if "visual" not in name}
    assert "model.language_model.embed_tokens.weight" in trainable


def test_the_reference_of_a_policy_without_adapter_is_the_checkpoint(tiny_checkpoint, logps_of):
    """Also when it is first asked for after training, as in a resumed run; and the learnt weights come back."""
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    start = logps_of(policy)
    with torch.no_grad():
        policy.base.model.language_model.layers[0].mlp.up_proj.weight.mul_(1.5)
    trained_logps, weights = logps_of(policy), [weight for _, weight in policy.trainable_parameters()]
    assert (trained_logps - start).abs().max() > 0.01
    for _ in range(2):
        with policy.reference():
            assert torch.equal(logps_of(policy), start)
    with pytest.raises(KeyError), policy.reference():
        raise KeyError("inside the block")
    assert torch.equal(logps_of(policy), trained_logps)
    assert all(a is b for a, (_, b) in zip(weights, policy.trainable_parameters(), strict=True)), "the optimiser's own"
    policy.initial = None
    del policy.initial_weights
    with pytest.raises(ValueError, match="neither an adapter"), policy.reference():
        pass


def test_adapter_off_equals_the_base(tiny_policy, tiny_checkpoint, logps_of):
    adapted, base = logps_of(tiny_policy), logps_of(load_policy(tiny_checkpoint, lora_rank=0, device="cpu"))
    assert (adapted - base).abs().max() > 0.01, "the adapter must matter for this test to mean anything"
    trainable = [name for name, _ in tiny_policy.trainable_parameters()]
    with tiny_policy.reference() as reference:
        assert torch.equal(logps_of(reference), base)
    with pytest.raises(KeyError), tiny_policy.reference():
        raise KeyError("inside the block")
    assert torch.equal(logps_of(tiny_policy), adapted)
    assert [name for name, _ in tiny_policy.trainable_parameters()] == trainable


def test_a_fresh_adapter_changes_nothing_and_is_seeded(tiny_checkpoint, logps_of):
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    one, same, other = (load_policy(tiny_checkpoint, device="cpu", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state is untouched"
    assert torch.equal(logps_of(one), logps_of(load_policy(tiny_checkpoint, lora_rank=0, device="cpu")))
    a, b, c = (torch.cat([p.flatten() for _, p in p.trainable_parameters()]) for p in (one, same, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_save_reload_same_logits(tiny_policy, tiny_checkpoint, tmp_path, logps_of):
    saved = tiny_policy.save(tmp_path / "adapter")
    assert {path.name for path in saved.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    loaded = load_policy(tiny_checkpoint, adapter=saved, device="cpu")
    assert torch.equal(logps_of(loaded), logps_of(tiny_policy))
    assert dict(loaded.trainable_parameters()).keys() == dict(tiny_policy.trainable_parameters()).keys()


def test_save_reload_of_a_whole_checkpoint(tiny_checkpoint, tmp_path, logps_of):
    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu", max_pixels=28 * 56)
    with torch.no_grad():
        policy.base.model.language_model.norm.weight.mul_(1.5)
    loaded = load_policy(policy.save(tmp_path / "whole"), lora_rank=0, device="cpu")
    assert torch.equal(logps_of(loaded), logps_of(policy))
    assert loaded.end_token_ids == policy.end_token_ids


def test_loading_and_saving_the_pocket_policy_needs_no_network(tiny_checkpoint, tmp_path, monkeypatch):
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(loading, "POCKET_DIR", tiny_checkpoint)
    saved = load_policy("pocket", device="cpu").save(tmp_path)
    again = load_policy("pocket", adapter=saved, device="cpu")
    assert attempts == []
    for policy_dir in (saved, again.save(tmp_path / "again")):
        config = json.loads((policy_dir / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "pocket", "not a path of this machine"


def test_ids_that_end_and_ids_that_are_forbidden(tiny_policy):
    name_of = tiny_policy.tokenizer.convert_ids_to_tokens
    assert name_of(tiny_policy.end_token_ids) == ["<|im_end|>", "<|endoftext|>"]
    assert set(name_of(tiny_policy.forbidden_token_ids)) == {
        "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
    }  # fmt: skip
    assert tiny_policy.pad_token_id in tiny_policy.end_token_ids, "so that it must not be forbidden"


def test_embedding_rows_without_a_token_are_forbidden(tiny_policy):
    """The real checkpoint has 151 936 rows for 151 657 tokens."""
    tiny_policy.base.resize_token_embeddings(330)
    vars(tiny_policy).pop("forbidden_token_ids", None)
    assert set(range(320, 330)) <= set(tiny_policy.forbidden_token_ids)


def test_report_counts_every_parameter_once(tiny_policy):
    rows = [line.rsplit(maxsplit=2) for line in tiny_policy.report().splitlines()[2:]]
    counts = {name.strip(): [int(n.replace(",", "")) for n in numbers] for name, *numbers in rows}
    assert sum(n for n, _ in counts.values()) == sum(p.numel() for p in tiny_policy.model.parameters())
    assert counts["vision tower"][1] == counts["language model"][1] == 0
    assert counts["LoRA adapter"] == [sum(p.numel() for _, p in tiny_policy.trainable_parameters())] * 2


def test_defaults_on_the_cpu(tiny_policy):
    assert tiny_policy.dtype == torch.float32 and tiny_policy.device.type == "cpu"
    assert tiny_policy.context_length == 512
    assert not tiny_policy.model.training
    assert not any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in tiny_policy.model.modules())


# What is said when it cannot be loaded


def test_a_missing_pocket_checkpoint_says_how_to_rebuild_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "POCKET_DIR", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="python data/pocket-qwen2-vl/rebuild"):
        load_policy("pocket")


@pytest.mark.parametrize("name", ["./no/such", "/no/such", "~/no-such-directory", "no/such/directory"])
def test_a_missing_directory(name):
    with pytest.raises(FileNotFoundError, match="no checkpoint directory"):
        load_policy(name)


def test_a_directory_of_another_model(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        load_policy(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    with pytest.raises(ValueError, match="model_type 'qwen3_vl'; only 'qwen2_vl' and 'qwen2_5_vl'"):
        load_policy(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="model_type None"):
        load_policy(tmp_path)


def test_an_adapter_where_a_model_belongs_and_the_reverse(tiny_policy, tiny_checkpoint, tmp_path):
    tiny_policy.save(tmp_path / "adapter")
    with pytest.raises(ValueError, match="holds an adapter, not a model"):
        load_policy(tmp_path / "adapter")
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        load_policy(tiny_checkpoint, adapter=tiny_checkpoint)


def test_an_adapter_of_another_size(tiny_policy, tiny_checkpoint, tmp_path):
    saved = tiny_policy.save(tmp_path)
    config = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(ValueError, match="does not fit"):
        load_policy(tiny_checkpoint, adapter=saved)


def test_pickled_weights_are_refused(tiny_checkpoint, tmp_path):
    from safetensors.torch import load_file

    shutil.copytree(tiny_checkpoint, tmp_path / "pickled")
    torch.save(load_file(tmp_path / "pickled/model.safetensors"), tmp_path / "pickled/pytorch_model.bin")
    (tmp_path / "pickled/model.safetensors").unlink()
    with pytest.raises(OSError, match="model.safetensors"):
        load_policy(tmp_path / "pickled")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantize": "8bit"}, ValueError, "unknown quantize '8bit'; valid: None, '4bit'"),
        ({"quantize": "4bit", "device": "cpu"}, RuntimeError, "CUDA"),
        ({"quantize": "4bit", "lora_rank": 0}, ValueError, "lora_rank > 0"),
        ({"dtype": "float8"}, ValueError, "valid: auto, float32, bfloat16, float16"),
        ({"lora_rank": -1}, ValueError, "r"),
    ],
)
def test_options_that_make_no_sense(tiny_checkpoint, options, error, message):
    with pytest.raises(error, match=message):
        load_policy(tiny_checkpoint, **options)


def test_four_bits_without_bitsandbytes(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"favor-lab\[qlora\]"):
        loading._four_bit("4bit", 16, torch.device("cuda"), torch.bfloat16)
