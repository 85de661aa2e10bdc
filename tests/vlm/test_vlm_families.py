"""Qwen2.5-VL beside Qwen2-VL: exact in every pass; and what is said of a model for which the fast passes are not."""

import json
import re
import shutil

import pytest
import torch

from favor_lab import GRPOSettings, encode_prompts, load_policy, sample_groups, score_completions, train
from favor_lab.activities.fewshot import FewShot
from favor_lab.grpo.sampling import Rollout
from favor_lab.vlm import families
from favor_lab.vlm.adapters import check_trainable, fresh_adapter
from favor_lab.vlm.families import config_class, model_class
from favor_lab.vlm.fast import check
from favor_lab.vlm.fast.check import check_fast_path
from favor_lab.vlm.processing import encode_images, encode_texts, prepare_image
from favor_lab.vlm.prompts import build_prompt
from test_vlm_prefix import G, L, completions, score  # noqa: F401  (fixtures)
from tiny import LABELS, make_checkpoint, make_examples, make_policy, plain_row


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small Qwen2.5-VL with windows of 4 x 4 patches in the first of its tower's two blocks."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny-qwen2-5-vl"), "Qwen2_5_VL")


@pytest.fixture
def policy(checkpoint):
    return make_policy(checkpoint)


# ----------------------------------------------------------------------------------------------------------- Qwen2.5-VL


def test_log_probabilities_and_gradients_equal_plain_rows(policy, tiny_examples, completions):  # noqa: F811
    """Prompts and completions of different lengths, packed and by the cache, against pixels to logits row by row."""
    assert type(policy.base).__name__ == "Qwen2_5_VLForConditionalGeneration"
    labels, (ids, mask) = [example.label for example in tiny_examples], completions
    texts = [build_prompt(labels[: 1 + i], style=("think", "answer")[i % 2]) for i in range(4)]
    prompts = encode_texts(policy, tiny_examples, texts)
    plain = torch.zeros(4 * G, L)
    for n in range(4 * G):
        row = plain_row(policy, tiny_examples[n // G], texts[n // G], ids[n][mask[n]])
        plain[n, : len(row)] = row
    rollout = Rollout(ids, mask, torch.zeros(mask.shape), [""] * len(ids), G)
    weights = torch.randn(4 * G, L, generator=torch.Generator().manual_seed(5))
    names, parameters = zip(*policy.trainable_parameters(), strict=True)
    expected = torch.autograd.grad((plain * weights)[mask].sum(), parameters)
    for logps in (score_completions(policy, prompts, rollout), score(policy, prompts, ids, mask)):
        assert (logps - plain)[mask].abs().max() < 1e-5
        gradients = torch.autograd.grad((logps * weights)[mask].sum(), parameters)
        for name, a, b in zip(names, gradients, expected, strict=True):
            assert b.norm() > 1e-3 and (a - b).norm() < 1e-4 * b.norm(), name


@pytest.mark.parametrize("decoding", ["plain", "static"])
def test_sampling_draws_from_what_is_scored(policy, tiny_examples, decoding):
    prompts = encode_prompts(policy, tiny_examples, LABELS)
    rollout = sample_groups(policy, prompts, G, 12, seed=0, decoding=decoding)
    with torch.no_grad():
        assert (score_completions(policy, prompts, rollout) - rollout.logps)[rollout.mask].abs().max() < 1e-5


def test_windows_matter_and_an_image_has_the_features_it_has_alone(policy, tiny_examples):
    """The widest image has four windows; each image of a batch has its own windows."""
    images = [prepare_image(example) for example in tiny_examples]
    together, _ = encode_images(policy, images)
    for image, features in zip(images, together, strict=True):
        assert (features - encode_images(policy, [image])[0][0]).abs().max() < 1e-5
    policy.tower.fullatt_block_indexes = [0, 1]
    assert (encode_images(policy, images[-1:])[0][0] - together[-1]).abs().max() > 1e-2


def test_it_trains_is_saved_and_comes_back(checkpoint, tiny_examples, tmp_path):
    policy = load_policy(checkpoint, lora_rank=4, device="cpu")
    shots = FewShot(tiny_examples, tiny_examples, tiny_examples, LABELS)
    settings = GRPOSettings(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=6)

    def first_ids(completion_ids, **columns):
        return [float(ids[0] % 2) for ids in completion_ids]

    (record,) = train(policy, shots, settings, rewards=[first_ids])
    assert record.grad_norm > 0 and record.reward_spread > 0
    again = load_policy(checkpoint, adapter=policy.save(tmp_path / "adapter"), device="cpu")
    pairs = zip(policy.trainable_parameters(), again.trainable_parameters(), strict=True)
    assert all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)
    whole = load_policy(load_policy(checkpoint, lora_rank=0, device="cpu").save(tmp_path / "whole"), device="cpu")
    assert type(whole.base) is type(policy.base)


def published(hidden, layers, heads, kv_heads, mlp, vocabulary, windows, tied):
    """config.json of a published Qwen2.5-VL, whose text fields stand at the top."""
    vision = dict(depth=32, hidden_act="silu", hidden_size=1280, intermediate_size=3420, num_heads=16, in_chans=3)
    vision |= dict(out_hidden_size=hidden, patch_size=14, spatial_merge_size=2, spatial_patch_size=14, window_size=112)
    vision |= dict(fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2, temporal_patch_size=2)
    text = dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=mlp)
    text |= dict(num_key_value_heads=kv_heads, vocab_size=vocabulary, max_position_embeddings=128_000)
    text |= dict(rms_norm_eps=1e-6, rope_theta=1e6, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]})
    text |= dict(use_sliding_window=False, sliding_window=32_768, max_window_layers=windows, tie_word_embeddings=tied)
    names = ("vision_start", "vision_end", "vision", "image", "video")
    ids = {f"{name}_token_id": 151_652 + place for place, name in enumerate(names)}
    return text | ids | dict(model_type="qwen2_5_vl", vision_config=vision)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (published(2048, 36, 16, 2, 11_008, 151_936, 70, tied=True), 3_754_622_976),
        (published(3584, 28, 28, 4, 18_944, 152_064, 28, tied=False), 8_292_166_656),
    ],
    ids=["3B", "7B"],
)
def test_the_published_layouts(config, parameters):
    """As many parameters as the files on the Hub have; an adapter on seven matrices of every layer."""
    kind = config["model_type"]
    with torch.device("meta"):
        model = model_class(kind)(config_class(kind)(**config)).requires_grad_(False)
        model.tie_weights()
        assert sum(weight.numel() for weight in model.parameters()) == parameters
        check_trainable(fresh_adapter(model, 16, None, "published"))
    assert set(model.config.text_config.layer_types) == {"full_attention"}
    rotary = model.model.language_model.rotary_emb.config.rope_parameters
    assert rotary["mrope_section"] == [16, 24, 24] and rotary["rope_theta"] == 1e6


# ------------------------------------------------------------------------------------ are the fast passes exact for it?


def changed(source, folder, **text):
    """A copy of a checkpoint with other values in the text part of its config.json."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= text
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rounding_is_far_below_the_tolerance(tiny_checkpoint, checkpoint, dtype):
    for source in (tiny_checkpoint, checkpoint, "pocket"):
        policy = load_policy(source, device="cpu", dtype=dtype, check=False)
        difference = check_fast_path(policy)
        assert difference == check_fast_path(policy) < check.TOLERANCES[policy.dtype] / 4


def test_the_check_leaves_no_trace(tiny_checkpoint):
    state = torch.random.get_rng_state()
    checked = load_policy(tiny_checkpoint, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert checked.base.model.rope_deltas is None and not checked.model.training


def test_a_model_of_other_layers_is_refused_with_the_number(tiny_checkpoint, tmp_path):
    """Another activation, which transformers reads from the configuration and the fast passes do not."""
    folder = changed(tiny_checkpoint, tmp_path / "gelu", hidden_act="gelu_new")
    with pytest.raises(ValueError, match=r"do not fit .*\(model_type 'qwen2_vl'\)") as caught:
        load_policy(folder, device="cpu")
    numbers = r"(\S+) nats off .* at most (\S+) is rounding.* is (\S+) off: use that .*check=False.*how=\"plain\""
    fast, tolerance, plain = map(float, re.search(numbers, str(caught.value)).groups())
    assert plain < 1e-5 < 1e-3 == tolerance < 0.01 < fast


def test_the_plain_way_is_exact_for_it(tiny_checkpoint, tmp_path, tiny_examples, completions):  # noqa: F811
    folder = changed(tiny_checkpoint, tmp_path / "gelu", hidden_act="gelu_new")
    policy = load_policy(folder, device="cpu", check=False)
    ids, mask = completions
    with torch.no_grad():
        plain = score(policy, encode_prompts(policy, tiny_examples, LABELS), ids, mask)
        for n in (0, 4, 11):
            row = plain_row(policy, tiny_examples[n // G], build_prompt(LABELS), ids[n][mask[n]])
            assert (plain[n][mask[n]] - row).abs().max() < 1e-5


@pytest.mark.parametrize(("dtype", "advice"), [("float32", "do not use this model"), ("bfloat16", "")])
def test_qwen3_vl_is_refused_with_the_number(tmp_path, monkeypatch, dtype, advice):
    """Its layers normalise queries and keys, and its first layers get features of their own (deepstack)."""
    folder = make_checkpoint(tmp_path / "qwen3", "Qwen3VL")
    with pytest.raises(ValueError, match="model_type 'qwen3_vl'; only 'qwen2_vl' and 'qwen2_5_vl' can be loaded"):
        load_policy(folder, device="cpu")
    monkeypatch.setitem(families.FAMILIES, "qwen3_vl", "Qwen3VL")  # as if it were admitted by its name
    numbers = r"'qwen3_vl'\): log-probabilities are 0\.\d+ nats off .* the plain way .* is 0\.\d+ off: "
    with pytest.raises(ValueError, match=f"(?i){numbers}{advice}"):
        load_policy(folder, device="cpu", dtype=dtype)


def test_sliding_windows_are_refused_although_a_few_tokens_do_not_show_them(tiny_checkpoint, tmp_path):
    windows = dict(use_sliding_window=True, sliding_window=64, max_window_layers=1)
    windows["layer_types"] = ["full_attention", "sliding_attention"]
    folder = changed(tiny_checkpoint, tmp_path / "windows", **windows)
    with pytest.raises(ValueError, match="they lack sliding_attention, which this model has.* off: use that one only"):
        load_policy(folder, device="cpu")
    load_policy(folder, device="cpu", check=False)


def test_an_overflow_of_the_model_itself_is_no_fault_of_the_fast_passes(tiny_checkpoint):
    policy = load_policy(tiny_checkpoint, device="cpu")
    policy.base.model.language_model.norm.weight[0] = float("inf")
    assert check_fast_path(policy) != check_fast_path(policy), "nan"
    prompts = encode_prompts(policy, make_examples()[:1], LABELS)
    with pytest.raises(FloatingPointError, match="tiny/0"):
        sample_groups(policy, prompts, 2, 4, seed=0)
