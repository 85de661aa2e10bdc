"""4-bit weights on every path, with bitsandbytes' CPU kernels: scoring, decoding, and the reference.

Skipped without bitsandbytes, which is not among the test packages: where it is installed, peft imports it, and it
writes to standard error. `pip install -e ".[qlora]"` runs them.
"""

import pytest
import torch

from favor_lab.budget.shapes import NF4_BYTES, shape_of
from favor_lab.grpo.sampling import Rollout, sample_groups, score_completions
from favor_lab.vlm import loading
from favor_lab.vlm.processing import encode_prompts
from test_vlm_prefix import G, L, completions, prompts, score  # noqa: F401  (fixtures)

bitsandbytes = pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def four_bit(monkeypatch):
    """The pocket policy with NF4 weights in its language model (the tiny one's rows are no multiple of 64, which these
    kernels want); `load_policy` itself asks for CUDA."""
    options = loading._four_bit

    def on_the_cpu(quantize, lora_rank, device):
        loading_options = options(quantize, lora_rank, torch.device("cuda"))
        loading_options["quantization_config"].bnb_4bit_compute_dtype = torch.float32
        return loading_options | {"device_map": {"": "cpu"}}

    monkeypatch.setattr(loading, "_four_bit", on_the_cpu)

    def load(**arguments):
        policy = loading.load_policy(quantize="4bit", device="cpu", dtype="float32", **arguments)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in policy.trainable_parameters():
                if "lora_B" in name:
                    weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
        return policy

    return load


def test_the_weights_are_in_four_bits(four_bit, tiny_policy):
    policy = four_bit(lora_rank=4)
    projection = policy.base.model.language_model.layers[0].mlp.up_proj.get_base_layer()
    assert isinstance(projection, bitsandbytes.nn.Linear4bit)
    assert projection.weight.numel() * 2 == 192 * 512, "two weights in a byte"
    assert shape_of(policy).weight_bytes == NF4_BYTES and shape_of(tiny_policy).weight_bytes == 4
    assert not any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in policy.tower.modules())
    assert type(policy.base.lm_head) is torch.nn.Linear


def test_the_adapter_off_is_the_quantised_base(four_bit, tiny_examples, completions):  # noqa: F811
    """Not the base in full precision: rounding the weights is part of the reference."""
    policy, ids, mask = four_bit(lora_rank=4), *completions
    batch = encode_prompts(policy, tiny_examples, None)
    rollout = Rollout(ids, mask, torch.zeros(mask.shape), [""] * len(ids), G)
    with torch.no_grad():
        with policy.reference():
            reference = score_completions(policy, batch, rollout)
        untouched = four_bit(lora_rank=2)
        for name, weight in untouched.trainable_parameters():
            if "lora_B" in name:
                torch.nn.init.zeros_(weight)  # an adapter that changes nothing
        assert (score_completions(untouched, batch, rollout) - reference)[mask].abs().max() < 1e-5
        assert (score_completions(policy, batch, rollout) - reference)[mask].abs().max() > 1e-2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_scores_and_gradients_are_the_caches(four_bit, tiny_examples, completions, checkpointing):  # noqa: F811
    policy, ids, mask = four_bit(lora_rank=4), *completions
    batch = encode_prompts(policy, tiny_examples, None)
    parameters = [weight for _, weight in policy.trainable_parameters()]
    rollout = Rollout(ids, mask, torch.zeros(mask.shape), [""] * len(ids), G)
    packed = score_completions(policy, batch, rollout, gradient_checkpointing=checkpointing)
    cached = score(policy, batch, ids, mask)
    assert (packed - cached)[mask].abs().max() < 1e-5
    pairs = zip(
        torch.autograd.grad(packed.sum(), parameters), torch.autograd.grad(cached[mask].sum(), parameters), strict=True
    )
    assert all((a - b).norm() < 1e-4 * b.norm() for a, b in pairs)


@pytest.mark.parametrize("how", ["plain", "static"])
def test_what_is_sampled_is_what_is_scored(four_bit, tiny_examples, how):
    """Without gradient these kernels round to bfloat16, so that two exact ways differ in the third digit."""
    policy = four_bit(lora_rank=4)
    batch = encode_prompts(policy, tiny_examples, None)
    rollout = sample_groups(policy, batch, G, L, seed=0, decoding=how)
    with torch.no_grad():
        gap = (score_completions(policy, batch, rollout) - rollout.logps)[rollout.mask].abs()
    assert gap.max() < 0.05 and gap.mean() < 5e-3
    with torch.no_grad(), policy.reference():
        assert (score_completions(policy, batch, rollout) - rollout.logps)[rollout.mask].abs().max() > 0.1
