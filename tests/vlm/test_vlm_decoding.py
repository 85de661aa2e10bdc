"""Fast decoding against the plain loop: the same tokens from the same random numbers."""

import shutil
import warnings

import pytest
import torch

from favor_lab.grpo import sampling
from favor_lab.grpo.sampling import sample_groups
from favor_lab.vlm.fast import decoding
from favor_lab.vlm.fast import merged as merging
from favor_lab.vlm.fast.decoding import StaticDecoder, start_decoding
from favor_lab.vlm.processing import encode_prompts
from test_vlm_prefix import prompts  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


@pytest.fixture(params=["merged", "apart"])
def merged(request, monkeypatch):
    if request.param == "apart":
        monkeypatch.setattr(merging, "MERGE_LIMIT", 0)


@pytest.fixture(params=["static", "graph"])
def how(request, monkeypatch):
    """Where there is no GPU, "graph" runs what would be captured: whole buffers, the future masked."""
    if request.param == "graph" and not torch.cuda.is_available():
        monkeypatch.setattr(decoding, "StaticDecoder", lambda *args, **options: Uncaptured(*args, graph=True))
        monkeypatch.setattr(decoding.warnings, "warn", lambda *args, **kwargs: None)
    return request.param


class Uncaptured(StaticDecoder):
    captures = 0

    def capture(self):
        Uncaptured.captures += 1
        forward = self.forward
        self.run = lambda: forward()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_same_tokens_as_the_plain_loop(tiny_policy, prompts, merged, how, temperature):  # noqa: F811
    """Prompts of different lengths, rows that end early and leave: 2 x 4 x 7 rows of up to 24 tokens."""
    ends = tiny_policy.end_token_ids
    for seed in (0, 2):  # with seed 1 a draw falls on the border of two tokens, to 9 digits
        tiny_policy.end_token_ids = ends + list(range(seed, 300, 12))  # about one token in twelve ends a row
        plain = sample_groups(tiny_policy, prompts, 7, 24, temperature, seed=seed, decoding="plain")
        fast = sample_groups(tiny_policy, prompts, 7, 24, temperature, seed=seed, decoding=how)
        assert len(plain.lengths.unique()) > 4, "rows must end at different times for this test to mean anything"
        assert torch.equal(fast.completion_ids, plain.completion_ids) and torch.equal(fast.mask, plain.mask)
        assert (fast.logps - plain.logps).abs().max() < 1e-5


def test_same_tokens_without_padding_and_as_the_reference(tiny_policy, prompts, merged, how):  # noqa: F811
    one = prompts[2]
    plain = sample_groups(tiny_policy, one, 5, 12, seed=3, decoding="plain")
    assert torch.equal(
        sample_groups(tiny_policy, one, 5, 12, seed=3, decoding=how).completion_ids, plain.completion_ids
    )
    with tiny_policy.reference():
        reference = sample_groups(tiny_policy, one, 5, 12, seed=3, decoding="plain")
        fast = sample_groups(tiny_policy, one, 5, 12, seed=3, decoding=how)
    assert torch.equal(fast.completion_ids, reference.completion_ids)
    assert not torch.equal(reference.logps, plain.logps)


def test_merging_leaves_the_policy_as_it_was(tiny_policy, prompts):  # noqa: F811
    before = {name: weight.clone() for name, weight in tiny_policy.model.named_parameters()}
    sample_groups(tiny_policy, prompts, 2, 6, seed=0, decoding="static")
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_policy.model.named_parameters())


def test_rows_leave(tiny_policy, prompts, how):  # noqa: F811
    """The work of a step shrinks with the rows that are left, and the prompts nobody continues are dropped."""
    groups = torch.arange(4).repeat_interleave(6)
    decoder = start_decoding(tiny_policy, prompts, groups, 10, how)
    decoder.step(torch.arange(24))
    assert decoder.tokens.shape == (24,)
    decoder.keep(torch.tensor([0, 1, 7, 8, 9]))  # two rows of prompt 0, three of prompt 1
    assert decoder.tokens.shape == (6,) and decoder.attends[0].shape[0] == 2
    assert decoder.step(torch.arange(5)).shape == (5, 64)
    decoder.keep(torch.tensor([0, 2, 3, 4]))
    assert decoder.step(torch.arange(4)).shape == (4, 64)


def test_graphs_are_captured_after_one_step_a_grid(tiny_policy, prompts, how):  # noqa: F811
    if how == "static" or torch.cuda.is_available():
        pytest.skip("counts the captures that stand in for a GPU's")
    Uncaptured.captures = 0
    decoder = start_decoding(tiny_policy, prompts, torch.arange(4).repeat_interleave(4), 10, how)
    for _ in range(3):
        decoder.step(torch.zeros(16, dtype=torch.long))
    assert Uncaptured.captures == 1
    decoder.keep(torch.tensor([0, 4, 8, 12]))
    decoder.step(torch.zeros(4, dtype=torch.long))
    assert Uncaptured.captures == 2


def test_messages(tiny_policy, prompts):  # noqa: F811
    if not torch.cuda.is_available():
        with pytest.warns(UserWarning, match="needs a CUDA device"):
            sample_groups(tiny_policy, prompts, 2, 3, seed=0, decoding="graph")
    with pytest.raises(ValueError, match="unknown decoding 'fast'; valid: auto, plain, static, graph, compiled"):
        sample_groups(tiny_policy, prompts, 2, 3, seed=0, decoding="fast")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_groups(tiny_policy, prompts, 2, 3, seed=0, decoding="auto")
    with pytest.raises(ValueError, match="window"):
        start_decoding(tiny_policy, prompts, torch.arange(4), 600, "static")


def test_a_capture_that_fails_goes_on_with_a_message(tiny_policy, prompts, monkeypatch):  # noqa: F811
    class Broken:
        def __init__(self):
            raise RuntimeError("capture is not allowed here")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Broken)
    plain = start_decoding(tiny_policy, prompts, torch.arange(4), 6, "plain")
    decoder = StaticDecoder(tiny_policy, prompts, torch.arange(4), 6, graph=True)
    with pytest.warns(UserWarning, match="goes on without a CUDA graph.*not allowed here"):
        decoder.step(torch.arange(4))
    with torch.no_grad():
        plain.step(torch.arange(4))
        assert (decoder.step(torch.arange(4)) - plain.step(torch.arange(4))).abs().max() < 1e-5


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_compiled(tiny_policy, prompts, monkeypatch):  # noqa: F811
    """The same tokens, compiled once: rows that leave keep their places, and new weights compile nothing again."""
    torch._dynamo.reset()
    decoding.compiled_layers.cache_clear()
    tiny_policy.end_token_ids = tiny_policy.end_token_ids + list(range(0, 300, 12))
    for seed in (0, 2):
        plain = sample_groups(tiny_policy, prompts, 3, 12, seed=seed, decoding="plain")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fast = sample_groups(tiny_policy, prompts, 3, 12, seed=seed, decoding="compiled")
        assert torch.equal(fast.completion_ids, plain.completion_ids) and len(plain.lengths.unique()) > 2
        monkeypatch.setattr(torch, "compile", None)  # the second time nothing may be compiled
    torch._dynamo.reset()
    decoding.compiled_layers.cache_clear()


def test_without_a_compiler_decoding_goes_on_with_a_message(tiny_policy, prompts, monkeypatch):  # noqa: F811
    def no_compiler(*inputs):
        raise RuntimeError("\nNo working C++ compiler found\nand much more")

    monkeypatch.setattr(decoding, "compiled_layers", lambda: no_compiler)
    plain = sample_groups(tiny_policy, prompts, 2, 6, seed=0, decoding="plain")
    with pytest.warns(UserWarning, match="goes on without torch.compile.*No working C.. compiler found$") as warned:
        compiled = sample_groups(tiny_policy, prompts, 2, 6, seed=0, decoding="compiled")
    assert len(warned) == 1 and torch.equal(compiled.completion_ids, plain.completion_ids)


def test_few_rows_are_decoded_by_one_thread(tiny_policy, prompts, monkeypatch):  # noqa: F811
    """And the number of threads is what it was afterwards, also after an error."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen, draw = [], sampling.draw_tokens
    monkeypatch.setattr(sampling, "draw_tokens", lambda *args: seen.append(torch.get_num_threads()) or draw(*args))
    try:
        sample_groups(tiny_policy, prompts, 2, 3, seed=0)
        assert set(seen) == {1} and torch.get_num_threads() == 2
        monkeypatch.setattr(decoding, "ONE_THREAD", 0)
        sample_groups(tiny_policy, prompts, 2, 3, seed=0)
        assert seen[-1] == 2
        monkeypatch.undo()
        monkeypatch.setattr(sampling, "draw_tokens", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sample_groups(tiny_policy, prompts, 2, 3, seed=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graph_on_a_gpu(tiny_checkpoint, tiny_examples):
    from favor_lab.vlm.loading import load_policy

    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", dtype="float32")
    batch = encode_prompts(policy, tiny_examples, None)
    plain = sample_groups(policy, batch, 8, 32, seed=0, decoding="plain")
    assert torch.equal(
        sample_groups(policy, batch, 8, 32, seed=0, decoding="graph").completion_ids, plain.completion_ids
    )
