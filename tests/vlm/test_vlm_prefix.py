"""The shared prefix against transformers' own row-by-row forward, and what could make it differ."""

import warnings

import pytest
import torch
from torch.nn.functional import pad

from favor_lab.vlm import prefix as prefix_module
from favor_lab.vlm.prefix import (
    cache_keyword,
    completion_hidden,
    expand,
    next_hidden,
    next_token_logps,
    run_prompt,
    token_logps,
)
from favor_lab.vlm.processing import encode_prompts, encode_texts
from favor_lab.vlm.prompts import build_prompt
from tiny import plain_row

G, L = 3, 9


@pytest.fixture
def prompts(tiny_policy, tiny_examples):
    """Four prompts of different lengths: other image sizes, other label lists, both styles."""
    labels = [example.label for example in tiny_examples]
    texts = [build_prompt(labels[: 1 + i], style=("think", "answer")[i % 2]) for i in range(4)]
    return encode_texts(tiny_policy, tiny_examples, texts)


@pytest.fixture
def completions(tiny_policy):
    """Random completions of random lengths: ids (12, 9) and their mask."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 300, (4 * G, L), generator=generator)
    lengths = torch.randint(1, L + 1, (4 * G, 1), generator=generator)
    lengths[0], lengths[1] = L, 1
    mask = torch.arange(L) < lengths
    return ids.masked_fill(~mask, tiny_policy.pad_token_id), mask


def score(policy, prompts, ids, mask, rows=None, **options):
    """Log-probabilities (N, L) by the library's shared prefix."""
    rows = torch.arange(len(prompts)).repeat_interleave(G) if rows is None else torch.tensor(rows)
    prefix = expand(run_prompt(policy, prompts), rows)
    return token_logps(policy, completion_hidden(policy, prefix, ids, mask), ids, **options)[0]


def test_log_probabilities_and_gradients_equal_plain_rows(tiny_policy, tiny_examples, prompts, completions):
    ids, mask = completions
    lengths = prompts.attention_mask.sum(-1).tolist()
    assert len(set(lengths)) == 4, "the prompts must differ in length for this test to mean anything"
    weights = torch.randn(4 * G, L, generator=torch.Generator().manual_seed(5))
    names, parameters = zip(*tiny_policy.trainable_parameters(), strict=True)

    with_prefix = score(tiny_policy, prompts, ids, mask)
    shared_gradients = torch.autograd.grad((with_prefix * weights)[mask].sum(), parameters)
    plain = torch.zeros(4 * G, L)
    for n in range(4 * G):
        row = plain_row(tiny_policy, tiny_examples[n // G], prompts.texts[n // G], ids[n][mask[n]])
        plain[n, : len(row)] = row
    plain_gradients = torch.autograd.grad((plain * weights)[mask].sum(), parameters)

    assert (with_prefix - plain)[mask].abs().max() < 1e-5
    for name, a, b in zip(names, shared_gradients, plain_gradients, strict=True):
        assert b.norm() > 1e-3, f"{name} has no gradient to compare"
        assert (a - b).norm() < 1e-4 * b.norm(), name


def test_decoding_steps_equal_scoring(tiny_policy, prompts, completions):
    ids, _ = completions
    prefix = expand(run_prompt(tiny_policy, prompts), torch.arange(4).repeat_interleave(G))
    scored = completion_hidden(tiny_policy, prefix, ids, torch.ones_like(ids, dtype=torch.bool))  # (N, L, D)
    steps = [prefix.last_hidden] + [next_hidden(tiny_policy, prefix, ids[:, j]) for j in range(L - 1)]
    assert (torch.stack(steps, 1) - scored).abs().max() < 2e-5


def test_several_tokens_at_once_equal_one_after_the_other(tiny_policy, prompts, completions):
    """All that a prefix holds has grown: what it says of the next token, where that stands, what may be seen."""
    ids, _ = completions
    one, several = (expand(run_prompt(tiny_policy, prompts), torch.arange(4).repeat_interleave(G)) for _ in range(2))
    states = [next_hidden(tiny_policy, one, ids[:, j]) for j in range(3)]
    hidden = prefix_module._append(tiny_policy, several, ids[:, :3], torch.ones_like(ids[:, :3]))
    assert (hidden - torch.stack(states, dim=1)).abs().max() < 2e-5
    for prefix in (one, several):
        assert torch.equal(prefix.attention_mask[:, -3:], torch.ones_like(ids[:, :3]))
        assert torch.equal(prefix.next_position, prompts.next_position.repeat_interleave(G) + 3)
        assert (prefix.last_hidden - states[-1]).abs().max() < 2e-5


def test_rows_can_be_dropped_while_decoding(tiny_policy, prompts, completions):
    ids, _ = completions
    prefix = expand(run_prompt(tiny_policy, prompts), torch.arange(4).repeat_interleave(G))
    next_hidden(tiny_policy, prefix, ids[:, 0])
    keep = torch.tensor([7, 2])
    hidden = next_hidden(tiny_policy, expand(prefix, keep), ids[keep, 1])
    assert (next_hidden(tiny_policy, prefix, ids[:, 1])[keep] - hidden).abs().max() < 1e-5


@pytest.mark.parametrize(("rows", "length"), [(4 * G, 1), (4 * G, 2), (1, L), (1, 1)])
def test_a_short_completion_or_a_single_row_is_no_special_case(tiny_policy, prompts, completions, rows, length):
    prefix = expand(run_prompt(tiny_policy, prompts), torch.arange(4).repeat_interleave(G))
    whole = completion_hidden(tiny_policy, prefix, *completions)
    ids, mask = (values[:rows, :length] for values in completions)
    part = completion_hidden(tiny_policy, expand(prefix, torch.arange(rows)), ids, mask)
    assert part.shape == (rows, length, 64)
    assert (part - whole[:rows, :length])[mask].abs().max() < 2e-5


def test_no_tensor_relies_on_the_default_device(tiny_policy, prompts, completions):
    """Stands in for a GPU: what is made without a device lands on "meta", and cannot meet the policy's tensors."""
    ids, mask = completions
    expected = score(tiny_policy, prompts, ids, mask)
    rows = torch.arange(4).repeat_interleave(G)
    with torch.device("meta"):
        prefix = expand(run_prompt(tiny_policy, prompts), rows)
        hidden = completion_hidden(tiny_policy, prefix, ids, mask)
        assert torch.equal(token_logps(tiny_policy, hidden, ids)[0], expected)


def test_padding_changes_nothing(tiny_policy, tiny_examples, prompts, completions):
    ids, mask = completions
    together = score(tiny_policy, prompts, ids, mask)
    for b in range(4):
        alone = encode_texts(tiny_policy, tiny_examples[b : b + 1], prompts.texts[b : b + 1])
        assert alone.attention_mask.all(), "a prompt on its own has no padding"
        rows = slice(b * G, (b + 1) * G)
        apart = score(tiny_policy, alone, ids[rows], mask[rows])
        assert (apart - together[rows])[mask[rows]].abs().max() < 1e-5
    longer, longer_mask = pad(ids, (0, 4), value=7), pad(mask, (0, 4), value=False)
    assert (score(tiny_policy, prompts, longer, longer_mask)[:, :L] - together)[mask].abs().max() < 1e-5
    holes = ids.masked_fill(~mask, 11)  # what stands behind the end does not matter either
    assert torch.equal(score(tiny_policy, prompts, holes, mask)[mask], together[mask])


def test_images_are_never_swapped(tiny_policy, tiny_examples, completions):
    """The same text for all, so that only the image tells the prompts apart; any order, any repetition."""
    ids = completions[0][:1].expand(6, L)
    mask = torch.ones(6, L, dtype=torch.bool)
    images = [tiny_examples[i].image.resize((56, 56)) for i in range(4)]
    same_size = [type(e)(image, e.label, e.source) for e, image in zip(tiny_examples, images, strict=True)]
    for examples in (tiny_examples, same_size):
        prompts = encode_prompts(tiny_policy, examples, None)
        each = score(tiny_policy, prompts, ids[:4], mask[:4], rows=range(4))
        apart = (each[:, None] - each[None]).abs().amax(-1) + torch.eye(4)
        assert apart.min() > 1e-3, "the images must matter for this test to mean anything"
        rows = [2, 0, 3, 3, 1, 0]
        assert (score(tiny_policy, prompts, ids, mask, rows) - each[rows]).abs().max() < 1e-5
        part = prompts[[3, 0, 2]]
        assert part.labels == [examples[i].label for i in (3, 0, 2)]
        assert (score(tiny_policy, part, ids[:3], mask[:3], range(3)) - each[[3, 0, 2]]).abs().max() < 1e-5


def test_features_of_another_image_are_refused(tiny_policy, prompts):
    """Their sum may fit: then they would fill the wrong places without an error."""
    prompts.image_features = prompts.image_features[::-1]
    with pytest.raises(ValueError, match="prompt 0 has 4 image tokens, but 16 image features"):
        run_prompt(tiny_policy, prompts)


def test_scoring_leaves_the_prefix_and_the_state_of_the_model_alone(tiny_policy, prompts, completions):
    ids, mask = completions
    before = score(tiny_policy, prompts, ids, mask)
    tiny_policy.base.model.rope_deltas = torch.full((4, 1), 1000)  # as an unrelated forward would leave it
    prefix = expand(run_prompt(tiny_policy, prompts), torch.arange(4).repeat_interleave(G))
    hidden = completion_hidden(tiny_policy, prefix, ids, mask)
    assert torch.equal(hidden, completion_hidden(tiny_policy, prefix, ids, mask))
    assert prefix.cache.get_seq_length() == prompts.input_ids.shape[1]
    assert torch.equal(token_logps(tiny_policy, hidden, ids)[0], before)


class Older:
    def forward(self, inputs_embeds=None, past_key_values=None):  # transformers 5.17 to 5.23
        ...


class Newer:
    def forward(self, inputs_embeds=None, cache=None):  # from 5.24 on; 5.40 knows no other name
        ...


@pytest.mark.parametrize(("model", "keyword"), [(Older(), "past_key_values"), (Newer(), "cache")])
def test_the_cache_goes_to_the_parameter_that_the_version_has(model, keyword):
    assert cache_keyword(model) == keyword


def test_no_deprecated_call_of_transformers(tiny_policy, prompts, completions):
    """Warnings arise in transformers' own frames, where the project's filter does not make errors of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(tiny_policy, prompts, *completions)
        next_hidden(tiny_policy, run_prompt(tiny_policy, prompts), torch.zeros(4, dtype=torch.long))


def test_a_checkpoint_that_says_not_to_use_a_cache_changes_nothing(tiny_policy, prompts, completions):
    expected = score(tiny_policy, prompts, *completions)
    tiny_policy.base.config.text_config.use_cache = False
    assert torch.equal(score(tiny_policy, prompts, *completions), expected)


def test_gradient_checkpointing_in_train_mode_is_refused(tiny_policy, prompts, completions):
    expected = score(tiny_policy, prompts, *completions)
    prefix = run_prompt(tiny_policy, prompts)
    tiny_policy.model.gradient_checkpointing_enable()
    assert torch.equal(score(tiny_policy, prompts, *completions), expected)  # evaluation mode: no effect
    tiny_policy.model.train()
    with pytest.raises(RuntimeError, match="gradient_checkpointing_disable"):
        run_prompt(tiny_policy, prompts)
    with pytest.raises(RuntimeError, match="gradient_checkpointing_disable"):
        next_hidden(tiny_policy, prefix, torch.zeros(4, dtype=torch.long))
    tiny_policy.base.gradient_checkpointing_disable()
    assert torch.allclose(score(tiny_policy, prompts, *completions), expected)


def test_the_sampling_distribution(tiny_policy):
    hidden = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    logps = next_token_logps(tiny_policy, hidden, temperature=0.7)
    logits = (hidden @ tiny_policy.base.lm_head.weight.T).double() / 0.7
    forbidden = tiny_policy.forbidden_token_ids
    logits[:, forbidden] = -torch.inf
    allowed = [i for i in range(logits.shape[1]) if i not in forbidden]
    by_hand = logits[:, allowed] - logits[:, allowed].exp().sum(-1, keepdim=True).log()
    assert (logps[:, allowed] - by_hand).abs().max() < 1e-5
    assert (logps[:, forbidden] == -torch.inf).all() and len(forbidden) == 5
    assert logps.dtype == torch.float32
    assert torch.equal(next_token_logps(tiny_policy, hidden), next_token_logps(tiny_policy, hidden, temperature=1.0))
    with pytest.raises(ValueError, match="argmax"):
        next_token_logps(tiny_policy, hidden, temperature=0.0)


def test_a_policy_in_bfloat16_is_scored_in_float32(tiny_policy):
    """Rounded to 8 bits, the probabilities of 320 tokens would no longer add up to 1."""
    tiny_policy.base.lm_head.bfloat16()
    logps = next_token_logps(tiny_policy, torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).bfloat16())
    assert logps.dtype == torch.float32
    assert (logps.exp().sum(dim=-1) - 1).abs().max() < 1e-5


def test_chunks_give_the_same_values_and_gradients(tiny_policy, completions):
    ids, _ = completions
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4 * G, L, 64, generator=generator, requires_grad=True)
    weights = torch.randn(2, 4 * G, L, generator=generator)
    sizes: list[int] = []
    head = tiny_policy.base.lm_head
    handle = head.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    results = []
    for chunk in (None, 10):
        logps, entropy = token_logps(tiny_policy, hidden, ids, 0.8, chunk)
        (gradient,) = torch.autograd.grad((logps * weights[0] + entropy * weights[1]).sum(), hidden)
        results.append((logps, entropy, gradient))
    handle.remove()
    assert sizes[0] == 4 * G * L and max(sizes[1:]) == 10, "the logits of all positions at once"
    for whole, chunked in zip(*results, strict=True):
        assert torch.isfinite(whole).all()
        assert (whole - chunked).abs().max() < 1e-5
    everything = next_token_logps(tiny_policy, hidden, 0.8)
    assert torch.equal(results[0][0], everything.gather(-1, ids[..., None])[..., 0])
    by_hand = torch.distributions.Categorical(logits=everything.nan_to_num(neginf=-1e9)).entropy()
    assert (results[0][1] - by_hand).abs().max() < 1e-5


@pytest.mark.parametrize(("limit", "calls"), [(4 * G * L, 1), (60, 2), (10, 11), (0.5, 4 * G * L)])
def test_so_many_logits_at_a_time(tiny_policy, completions, monkeypatch, limit, calls):
    """By default as many positions as fit, one at least; where there are several parts, the backward pass computes
    each again."""
    assert 4 * prefix_module.CHUNK_LOGITS == 128 * 2**20  # bytes in float32
    monkeypatch.setattr(prefix_module, "CHUNK_LOGITS", int(limit * tiny_policy.forbidden.numel()))
    sizes: list[int] = []
    tiny_policy.base.lm_head.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    hidden = torch.randn(4 * G, L, 64, requires_grad=True)
    logps, _ = token_logps(tiny_policy, hidden, completions[0])
    assert len(sizes) == calls and sum(sizes) == 4 * G * L and max(sizes) <= max(limit, 1)
    logps.sum().backward()
    assert len(sizes) == (calls if calls == 1 else 2 * calls)
    with torch.no_grad():
        assert torch.equal(token_logps(tiny_policy, hidden, completions[0])[0], logps)


def test_ids_without_a_hidden_state_are_refused(tiny_policy, completions):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        token_logps(tiny_policy, torch.zeros(4 * G, L, 64), completions[0][:, 2:], chunk=10)


def test_the_window_may_be_filled_to_its_last_token(tiny_policy, prompts, completions):
    """The last token of a completion is predicted and never an input."""
    expected = score(tiny_policy, prompts, *completions)
    config = tiny_policy.base.config.text_config
    config.max_position_embeddings = prompts.input_ids.shape[1] + L - 1
    assert torch.equal(score(tiny_policy, prompts, *completions), expected)
    config.max_position_embeddings -= 1
    with pytest.raises(ValueError, match=f"have {prompts.input_ids.shape[1] + L - 1} tokens"):
        score(tiny_policy, prompts, *completions)


def test_a_completion_beyond_the_window_is_refused(tiny_policy, prompts):
    ids = torch.zeros(4, 450, dtype=torch.long)
    with pytest.raises(ValueError, match="window is 512"):
        completion_hidden(tiny_policy, run_prompt(tiny_policy, prompts), ids, torch.ones_like(ids))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_on_cuda_as_on_the_cpu(tiny_checkpoint, tiny_examples, completions, dtype, tolerance):
    from favor_lab.vlm.loading import load_policy

    results = []
    for device, kind in (("cpu", "float32"), ("cuda", dtype)):
        policy = load_policy(tiny_checkpoint, lora_rank=4, device=device, dtype=kind)
        prompts = encode_prompts(policy, tiny_examples, None)
        ids, mask = (tensor.to(device) for tensor in completions)
        rows = torch.arange(4, device=device).repeat_interleave(G)
        prefix = expand(run_prompt(policy, prompts), rows)
        logps, _ = token_logps(policy, completion_hidden(policy, prefix, ids, mask), ids)
        logps[mask].sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for _, p in policy.trainable_parameters())
        results.append(logps.detach().cpu())
    assert (results[0] - results[1])[completions[1]].abs().max() < tolerance


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logits_are_divided_by_the_temperature(tiny_policy, temperature):
    hidden = torch.randn(3, tiny_policy.base.lm_head.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        forbidden = torch.tensor(tiny_policy.forbidden_token_ids)
        logits = tiny_policy.base.lm_head(hidden).index_fill(1, forbidden, -torch.inf)
        torch.testing.assert_close(
            next_token_logps(tiny_policy, hidden, temperature), (logits / temperature).log_softmax(-1)
        )
