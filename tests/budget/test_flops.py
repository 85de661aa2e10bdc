"""The counts against PyTorch's own FLOP counter and against real modules' parameters."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from favor_lab.budget.flops import (
    attention_flops,
    backward_flops,
    bound_seconds,
    causal_pairs,
    head_flops,
    linear_flops,
    step_costs,
    tower_flops,
)
from favor_lab.budget.memory import step_memory
from favor_lab.budget.shapes import StepShape, shape_of
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts
from tiny import make_checkpoint, make_policy


def config_2b():
    """Qwen2-VL-2B-Instruct's shape."""
    from transformers import Qwen2VLConfig

    return Qwen2VLConfig(
        text_config={
            "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
            "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 1536,
                       "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
        tie_word_embeddings=True,
    )  # fmt: skip


def count(model):
    return sum(weight.numel() for weight in {id(w): w for w in model.parameters()}.values())


def test_parameters_of_the_2b_model():
    """The published counts of Qwen2-VL-2B-Instruct, and those of its modules without memory."""
    from transformers import Qwen2VLForConditionalGeneration

    config = config_2b()
    shape = shape_of(config)
    assert (shape.language_parameters, shape.tower_parameters) == (1_543_714_304, 665_271_296)
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(config)
    assert count(model.model.language_model) == shape.language_parameters
    assert count(model.model.visual) == shape.tower_parameters


@pytest.mark.parametrize("size", [{}, {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16}])
def test_parameters_of_qwen25_vl(size):
    """A tower with gated MLPs and without biases in its norms; the judge is transformers, without memory."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    mrope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = dict(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4) | size
    text |= dict(intermediate_size=11008, vocab_size=151936, rope_parameters=mrope)
    vision = dict(hidden_size=1280, intermediate_size=3420, out_hidden_size=text["hidden_size"])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=bool(size))
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    shape = shape_of(config)
    assert count(model.model.visual) == shape.tower_parameters
    assert count(model) == shape.tower_parameters + shape.language_parameters
    assert (shape.tower_window, shape.tower_full_layers, shape.tied_head) == (64, 4, bool(size))


def test_parameters_of_a_policy(tiny_policy, tiny_checkpoint):
    shape = shape_of(tiny_policy)
    assert shape.lora_rank == 4 and shape.weight_bytes == shape.value_bytes == 4
    assert shape.lora_weights == sum(weight.numel() for _, weight in tiny_policy.trainable_parameters())
    whole = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    assert shape_of(whole).lora_rank == 0 and shape_of(whole).lora_weights == 0
    assert count(whole.base.model.language_model) == shape.language_parameters
    assert count(whole.base.model.visual) == shape.tower_parameters


@pytest.fixture
def plain_pass(tiny_checkpoint):
    """transformers' forward pass of two rows of 24 tokens, with an attention whose FLOPs torch counts."""
    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cpu")
    policy.base.set_attn_implementation("eager")
    ids = torch.randint(0, 300, (2, 24))
    return policy, lambda: policy.base(input_ids=ids).logits


def test_forward_flops_are_torchs(plain_pass):
    policy, forward = plain_pass
    shape = shape_of(policy)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    whole_square = 2 * 24 * 24  # eager attention computes the future too, and masks it
    expected = linear_flops(shape, 48) + attention_flops(shape, whole_square) + head_flops(shape, 48)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
    assert causal_pairs(24) == 24 * 25 / 2


@pytest.mark.parametrize("rank", [4, 0])
def test_backward_flops_are_torchs(tiny_checkpoint, rank):
    policy = load_policy(tiny_checkpoint, lora_rank=rank, device="cpu")
    policy.base.set_attn_implementation("eager")
    logits = policy.base(input_ids=torch.randint(0, 300, (2, 24))).logits
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    shape = shape_of(policy)
    expected = backward_flops(shape, 48, 2 * 24 * 24, 48)
    expected -= 0.5 * attention_flops(shape, 2 * 24 * 24)  # eager attention kept its scores
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("family", ["Qwen2VL", "Qwen2_5_VL"])
def test_tower_flops_are_torchs(family, tmp_path, tiny_examples):
    policy = make_policy(make_checkpoint(tmp_path, family))
    policy.base.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        batch = encode_prompts(policy, tiny_examples[3:], None)
    shape, tokens = shape_of(policy), len(batch.image_features[0])
    assert counter.get_total_flops() == pytest.approx(tower_flops(shape, 1, tokens), rel=0.02)
    assert shape.tower_parameters == count(policy.base.model.visual)


def test_a_prompt_enters_once_and_a_completion_once_a_pass(tiny_policy):
    shape = shape_of(tiny_policy)
    step = StepShape(4, 8, 100, 16, 30, images=3)
    costs = step_costs(shape, step)
    assert list(costs) == ["encode", "prefill", "decode", "score", "reference", "backward", "optimiser"]
    assert [cost.tokens for cost in costs.values()] == [48, 400, 928, 928, 1328, 1328, 0]
    more = step_costs(shape, replace(step, group_size=16))
    assert more["prefill"] == costs["prefill"] and more["decode"].flops == 2 * costs["decode"].flops
    assert "reference" not in step_costs(shape, replace(step, beta=0.0))
    again = step_costs(shape, replace(step, gradient_checkpointing=True))
    assert 1.2 < again["backward"].flops / costs["backward"].flops < 2
    assert bound_seconds(costs, 1e9, 1e12)["score"] == costs["score"].flops / 1e9


def test_decoding_reads_the_weights_for_every_position():
    shape = shape_of(config_2b())
    costs = step_costs(shape, StepShape(1, 8, 300, 256, 101))
    weights = 2 * (shape.language_parameters - 0)  # tied: the embedding is the head, and all of it is read
    assert costs["decode"].bytes == pytest.approx(100 * weights, rel=0.03)  # the rest: keys and values


def test_memory_of_the_2b_model():
    """G 8, an image of 448 x 448, 256 tokens: the sizes of the parts, by the arithmetic of the model card."""
    shape = shape_of(config_2b())
    step = StepShape(1, 8, 256 + 90, 256, 256)
    checkpointing = replace(step, gradient_checkpointing=True)
    peaks = step_memory(shape, checkpointing)
    assert 2 * 2_208_985_600 < min(peaks.values())
    assert 4.5e9 < max(peaks.values()) < 8e9
    gone = step_memory(shape, replace(checkpointing, offload_tower=True))
    assert peaks["backward"] - gone["backward"] == 2 * 665_271_296
    memory = step_memory(shape, step)
    split = step_memory(shape, replace(step, micro_batch=2))
    assert memory["backward"] > 1.5 * peaks["backward"] and split["backward"] < 0.75 * memory["backward"]
    assert "reference" not in step_memory(shape, replace(step, beta=0.0))
