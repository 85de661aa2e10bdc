"""The packed scoring pass against transformers' own row-by-row forward, with and without gradient checkpointing."""

import pytest
import torch

from favor_lab.grpo.sampling import Rollout, score_completions
from favor_lab.vlm.fast import merged as merging
from favor_lab.vlm.fast import packed as packing
from favor_lab.vlm.fast.layers import is_plain_lora
from favor_lab.vlm.fast.merged import MergedLayer
from favor_lab.vlm.fast.packed import packed_hidden
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts
from test_vlm_prefix import G, L, completions, prompts, score  # noqa: F401  (fixtures)
from tiny import plain_row


def rollout_of(ids, mask, group_size=G):
    return Rollout(ids, mask, torch.zeros(mask.shape), [""] * len(ids), group_size)


@pytest.fixture(params=["merged", "apart"])
def merged(request, monkeypatch):
    if request.param == "apart":
        monkeypatch.setattr(merging, "MERGE_LIMIT", 0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_equal_to_plain_rows(tiny_policy, tiny_examples, prompts, completions, merged, checkpointing):  # noqa: F811
    """Prompts and completions of different lengths; log-probabilities within 1e-5 and gradients within 1e-4."""
    ids, mask = completions
    weights = torch.randn(4 * G, L, generator=torch.Generator().manual_seed(5))
    names, parameters = zip(*tiny_policy.trainable_parameters(), strict=True)
    if checkpointing:
        tiny_policy.model.train()
        tiny_policy.base.gradient_checkpointing_enable()  # transformers' own switch must not matter either
    packed = score_completions(tiny_policy, prompts, rollout_of(ids, mask), gradient_checkpointing=checkpointing)
    packed_gradients = torch.autograd.grad((packed * weights)[mask].sum(), parameters)
    tiny_policy.model.eval()
    plain = torch.zeros(4 * G, L)
    for n in range(4 * G):
        row = plain_row(tiny_policy, tiny_examples[n // G], prompts.texts[n // G], ids[n][mask[n]])
        plain[n, : len(row)] = row
    plain_gradients = torch.autograd.grad((plain * weights)[mask].sum(), parameters)
    assert (packed - plain)[mask].abs().max() < 1e-5
    assert (packed[~mask] == 0).all()
    for name, a, b in zip(names, packed_gradients, plain_gradients, strict=True):
        assert b.norm() > 1e-3, f"{name} has no gradient to compare"
        assert (a - b).norm() < 1e-4 * b.norm(), name


@pytest.mark.parametrize("length", [1, 4])
def test_prompts_and_completions_of_one_length(tiny_policy, tiny_examples, length):
    """The case without any padding, down to completions of one token, equals the cache of `prefix`."""
    images = [tiny_examples[i].image.resize((56, 56)) for i in range(4)]
    same = [type(e)(image, e.label, e.source) for e, image in zip(tiny_examples, images, strict=True)]
    even = encode_prompts(tiny_policy, same, None)
    assert even.attention_mask.all()
    ids = torch.randint(0, 300, (4 * G, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    packed = score_completions(tiny_policy, even, rollout_of(ids, mask))
    assert (packed - score(tiny_policy, even, ids, mask)).abs().max() < 1e-5


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "the number of threads must be what it was"
    torch.set_num_threads(before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_prompts_are_shared_out_among_threads(
    tiny_policy,
    prompts,  # noqa: F811
    completions,  # noqa: F811
    two_threads,
    checkpointing,
):
    """The numbers and gradients of one thread, to rounding; and every time the same ones."""
    ids, mask = completions
    rollout, parameters = rollout_of(ids, mask), [weight for _, weight in tiny_policy.trainable_parameters()]

    def scored():
        logps = score_completions(tiny_policy, prompts, rollout, gradient_checkpointing=checkpointing)
        return logps, torch.autograd.grad(logps.square().sum(), parameters)

    (logps, gradients), (again, gradients_again) = scored(), scored()
    assert torch.equal(logps, again) and all(map(torch.equal, gradients, gradients_again))
    with torch.no_grad():
        assert torch.equal(score_completions(tiny_policy, prompts, rollout), logps)
    torch.set_num_threads(1)
    single, single_gradients = scored()
    torch.set_num_threads(2)
    assert (logps - single).abs().max() < 1e-5
    for a, b in zip(gradients, single_gradients, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm()


def test_an_error_in_a_thread_is_the_callers(tiny_policy, prompts, completions, two_threads, monkeypatch):  # noqa: F811
    ids, mask = completions
    monkeypatch.setattr(packing, "rotation", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score_completions(tiny_policy, prompts, rollout_of(ids, mask))


def test_rows_out_of_order_are_one_share(tiny_policy, prompts, completions, two_threads, monkeypatch):  # noqa: F811
    ids, mask = completions
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(3))
    rollout = rollout_of(ids, mask)
    expected = score_completions(tiny_policy, prompts, rollout)[order]
    monkeypatch.setattr(packing, "side_by_side", None)  # not called
    assert (score_completions(tiny_policy, prompts, rollout.rows(order)) - expected).abs().max() < 1e-5


def test_weights_that_change_before_the_gradient_are_an_error(tiny_policy, prompts, completions, merged):  # noqa: F811
    """As with every operation of autograd: else the gradient would be that of neither."""
    ids, mask = completions
    total = score_completions(tiny_policy, prompts, rollout_of(ids, mask)).sum()
    with torch.no_grad():
        for _, weight in tiny_policy.trainable_parameters():
            weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_a_trained_model_without_an_adapter_has_layers_of_its_own(tiny_checkpoint, tiny_examples, merged):
    """Its matrices need gradients: the packed pass equals the plain one in all of them."""
    policy = load_policy(tiny_checkpoint, lora_rank=0)
    batch = encode_prompts(policy, tiny_examples, None)
    ids = torch.randint(0, 300, (4, 5), generator=torch.Generator().manual_seed(1))
    rollout = rollout_of(ids, torch.ones_like(ids, dtype=torch.bool), 1)
    names, parameters = zip(*policy.trainable_parameters(), strict=True)
    gradients = [
        torch.autograd.grad(score_completions(policy, batch, rollout, how=how).sum(), parameters, allow_unused=True)
        for how in ("packed", "plain")
    ]
    for name, packed, plain in zip(names, *gradients, strict=True):
        assert (packed is None) == (plain is None)
        assert plain is None or (packed - plain).norm() < 1e-4 * plain.norm(), name


def test_each_token_is_run_once(tiny_policy, prompts, completions, monkeypatch):  # noqa: F811
    """Prompt tokens without their group's copies and without padding, and all but the last completion tokens."""
    ids, mask = completions
    widths = []
    call = MergedLayer.__call__
    monkeypatch.setattr(MergedLayer, "__call__", lambda self, x, *rest: widths.append(len(x)) or call(self, x, *rest))
    hidden = packed_hidden(tiny_policy, prompts, ids, mask, torch.arange(4).repeat_interleave(G))
    assert sum(widths) == 2 * int(prompts.attention_mask.sum() + (mask.sum(1) - 1).sum())  # two layers, in any thread
    assert hidden.shape == (int(mask.sum()), 64)


def test_the_reference_has_no_adapter(tiny_policy, prompts, completions):  # noqa: F811
    ids, mask = completions
    with torch.no_grad(), tiny_policy.reference():
        packed = score_completions(tiny_policy, prompts, rollout_of(ids, mask))
        cached = score(tiny_policy, prompts, ids, mask)
    assert (packed - cached)[mask].abs().max() < 1e-5
    with torch.no_grad():
        assert (score_completions(tiny_policy, prompts, rollout_of(ids, mask)) - cached)[mask].abs().max() > 1e-2


@pytest.mark.parametrize("change", ["dropout", "dora", "merged", "bias"])
def test_other_adapters_are_run_as_peft_runs_them(tiny_checkpoint, tiny_examples, completions, change):  # noqa: F811
    from peft import LoraConfig, get_peft_model

    from favor_lab.vlm.adapters import LORA_TARGETS
    from favor_lab.vlm.loading import load_policy
    from favor_lab.vlm.policy import Policy

    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=LORA_TARGETS, init_lora_weights=False, use_dora=change == "dora",
        lora_dropout=0.5 if change == "dropout" else 0.0, lora_bias=change == "bias",
    )  # fmt: skip
    torch.manual_seed(0)
    policy = Policy(get_peft_model(policy.base, config).eval(), policy.processor, "other")
    if change == "merged":
        policy.model.merge_adapter()
    some = policy.base.model.language_model.layers[0].mlp.up_proj
    assert is_plain_lora(some) == (change in ("dropout", "merged"))  # dropout is off in evaluation mode
    batch = encode_prompts(policy, tiny_examples, None)
    ids, mask = completions
    with torch.no_grad():
        packed = score_completions(policy, batch, rollout_of(ids, mask))
        assert (packed - score(policy, batch, ids, mask))[mask].abs().max() < 1e-5
    if change == "dropout":
        policy.model.train()
        assert not is_plain_lora(some)


def test_all_weights_learn_without_an_adapter(tiny_checkpoint, tiny_examples, completions):  # noqa: F811
    from favor_lab.vlm.loading import load_policy

    policy = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    batch = encode_prompts(policy, tiny_examples, None)
    ids, mask = completions
    parameters = [weight for _, weight in policy.trainable_parameters()]
    packed = torch.autograd.grad(score_completions(policy, batch, rollout_of(ids, mask)).sum(), parameters)
    cached = torch.autograd.grad(score(policy, batch, ids, mask)[mask].sum(), parameters)
    for a, b in zip(packed, cached, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm() and b.norm() > 0


def test_a_window_too_small_is_refused(tiny_policy, prompts, monkeypatch):  # noqa: F811
    ids = torch.zeros(4, 500, dtype=torch.long)
    with pytest.raises(ValueError, match="lower max_new_tokens"):
        packed_hidden(tiny_policy, prompts, ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(4))
