"""Sampling and scoring: one distribution, one set of ids, one mask."""

import json

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from favor_lab.grpo import sampling
from favor_lab.grpo.rewards import accuracy_reward, format_reward
from favor_lab.grpo.sampling import (
    Rollout,
    draw_tokens,
    encode_completions,
    join,
    sample_groups,
    score_completions,
    score_distributions,
    texts_of,
    truncate,
)
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.prefix import completion_hidden, expand, next_token_logps, run_prompt
from favor_lab.vlm.processing import encode_prompts

LABELS = ["riding a bike", "reading", "phoning", "fishing"]


@pytest.fixture
def prompts(tiny_policy, tiny_examples):
    return encode_prompts(tiny_policy, tiny_examples, LABELS)


@pytest.fixture
def rollout(tiny_policy, prompts):
    """Some rows end early and some are cut off: the end token is made likely enough."""
    likelier_end(tiny_policy, 3.0)
    return sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=24, seed=0)


def likelier_end(policy, amount):
    """Add a constant to the end token's logit, for sampling and scoring alike."""
    end = policy.end_token_ids[0]
    head = policy.base.lm_head
    bias = torch.zeros(head.out_features)
    bias[end] = amount
    head.bias = torch.nn.Parameter(bias, requires_grad=False)


def test_the_end_token_is_inside_the_loss_mask(tiny_policy, rollout):
    ends = torch.isin(rollout.completion_ids, torch.tensor(tiny_policy.end_token_ids))
    finished = ~rollout.truncated
    assert finished.any() and rollout.truncated.any()  # both kinds occur
    for row in range(len(rollout)):
        length = int(rollout.lengths[row])
        assert rollout.mask[row].tolist() == [True] * length + [False] * (rollout.mask.shape[1] - length)
        assert ends[row, :length].tolist() == [False] * (length - 1) + [bool(finished[row])]
    assert (rollout.completion_ids[~rollout.mask] == tiny_policy.pad_token_id).all()
    assert not rollout.logps[~rollout.mask].any()
    assert (rollout.lengths[rollout.truncated] == 24).all()  # no row is cut off too early


def test_a_rollout_is_as_wide_as_its_longest_row(tiny_policy, prompts):
    likelier_end(tiny_policy, 4.0)
    rollout = sample_groups(tiny_policy, prompts[[0, 1]], group_size=3, max_new_tokens=400, seed=0)
    assert not rollout.truncated.any() and len(rollout) < rollout.lengths.max() < 400
    shape = (6, int(rollout.lengths.max()))
    assert rollout.mask.shape == rollout.completion_ids.shape == rollout.logps.shape == shape
    likelier_end(tiny_policy, 100.0)
    assert sample_groups(tiny_policy, prompts, 2, 8, seed=0).lengths.tolist() == [1] * 8


def test_a_row_goes_on_when_it_is_the_only_one(tiny_policy, prompts):
    likelier_end(tiny_policy, -100.0)
    assert sample_groups(tiny_policy, prompts[0], 1, 8, seed=0).lengths.tolist() == [8]


def test_the_window_may_be_filled_to_its_last_token(tiny_policy, prompts):
    """The last token is sampled but never an input, so prompt and completion may have one more token."""
    likelier_end(tiny_policy, -100.0)
    config = tiny_policy.base.config.text_config
    config.max_position_embeddings = prompts.attention_mask.shape[1] + 5
    rollout = sample_groups(tiny_policy, prompts, 2, 6, seed=0, decoding="plain")
    assert rollout.lengths.tolist() == [6] * 8 and not rollout.logps.requires_grad
    config.max_position_embeddings -= 1
    with pytest.raises(ValueError, match="window"):
        sample_groups(tiny_policy, prompts, 2, 6, seed=0, decoding="plain")


def test_defaults(tiny_policy, prompts):
    """Eight completions of up to 128 tokens at temperature 1, without top_k or top_p."""
    likelier_end(tiny_policy, -100.0)
    rollout = sample_groups(tiny_policy, prompts[0], seed=0)
    assert rollout.mask.shape == (8, 128) and rollout.temperature == 1.0 and rollout.group_size == 8
    assert rollout.origin == ["sampled"] * 8
    same = sample_groups(tiny_policy, prompts[0], 8, 128, temperature=1.0, top_k=0, top_p=1.0, seed=0)
    assert torch.equal(rollout.completion_ids, same.completion_ids)
    with pytest.raises(ValueError, match="'poem'; valid: auto, plain"):
        sample_groups(tiny_policy, prompts[0], decoding="poem")


def test_no_tensor_relies_on_the_default_device(tiny_policy, prompts, monkeypatch):
    """Simulates a GPU: a tensor made without a device is on "meta", and cannot be combined with the policy's
    tensors."""
    expected = sample_groups(tiny_policy, prompts, 2, 6, seed=0)
    with torch.device("meta"):
        rollout = sample_groups(tiny_policy, prompts, 2, 6, seed=0)
        assert torch.equal(rollout.completion_ids, expected.completion_ids)
        assert rollout.truncated.device == rollout.lengths.device == rollout.sampled.device == tiny_policy.device
        given = encode_completions(tiny_policy, ["reading", "a book"], [0, 1])
        assert given.texts == ["reading", "a book"]
        both = join(given, given).rows([0, 1])
        bare = Rollout(given.completion_ids, given.mask, given.logps, given.texts, group_size=1)
        monkeypatch.setattr(Rollout, "rows", lambda self, _: self)  # all rows; their indices are on another device
        assert score_completions(tiny_policy, prompts, expected).device == tiny_policy.device
        assert score_distributions(tiny_policy, prompts, expected).device == tiny_policy.device
    for made in (rollout, given, both, bare):
        assert {value.device for value in vars(made).values() if torch.is_tensor(value)} == {tiny_policy.device}


@pytest.mark.parametrize(("share", "token"), [(0.0, 1), (0.24, 1), (0.25, 2), (0.74, 2), (0.75, 3), (1 - 1e-9, 4)])
def test_a_draw_by_hand(monkeypatch, share, token):
    """The first token has no probability and is never drawn; the last has 1e-8, which float32 sums would lose."""
    monkeypatch.setattr(torch, "rand", lambda *size, dtype, **_: torch.full(size, share, dtype=dtype))
    logps = torch.tensor([[0.0, 0.25, 0.5, 0.25, 1e-8], [1.0, 0.0, 0.0, 0.0, 0.0]]).log()
    assert draw_tokens(logps).tolist() == [token, 0]


def test_a_draw_takes_one_random_number_a_row():
    one, other = (torch.Generator().manual_seed(0) for _ in range(2))
    draw_tokens(torch.zeros(3, 50), one)
    expected = torch.rand(4, generator=other, dtype=torch.float64)[3]
    assert torch.rand((), generator=one, dtype=torch.float64) == expected


def test_truncation_by_hand():
    logps = torch.tensor([[0.125, 0.5, 0.25, 0.125], [0.25, 0.125, 0.125, 0.5]]).log()
    assert truncate(logps) is logps  # off: not even rounded
    likeliest = [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert truncate(logps, top_k=1).exp().tolist() == likeliest
    assert truncate(logps, top_p=0.5).exp().tolist() == likeliest  # one token has half of the probability
    two = torch.tensor([[0.0, 2.0, 1.0, 0.0], [1.0, 0.0, 0.0, 2.0]]) / 3
    assert torch.allclose(truncate(logps, top_k=2).exp(), two)
    assert torch.allclose(truncate(logps, top_p=0.6).exp(), two)
    assert torch.allclose(truncate(logps, top_k=3, top_p=0.6).exp(), two)
    assert torch.allclose(truncate(logps, top_k=2, top_p=0.9).exp(), two)


def test_prompt_padding_and_image_tokens_are_outside_the_mask(tiny_policy, prompts, rollout):
    assert rollout.mask.shape == rollout.completion_ids.shape  # the mask covers completion tokens, no prompt token
    masked = set(rollout.completion_ids[rollout.mask].tolist())
    assert not masked & set(tiny_policy.forbidden_token_ids)
    assert tiny_policy.base.config.image_token_id in tiny_policy.forbidden_token_ids
    logps = score_completions(tiny_policy, prompts, rollout)
    assert not logps[~rollout.mask].any() and (logps[rollout.mask] < 0).all()


def test_forbidden_tokens_are_never_sampled_even_if_likeliest(tiny_policy, prompts):
    head = tiny_policy.base.lm_head
    bias = torch.zeros(head.out_features)
    bias[tiny_policy.forbidden_token_ids] = 100.0
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    rollout = sample_groups(tiny_policy, prompts, group_size=4, max_new_tokens=6, seed=0)
    assert not set(rollout.completion_ids[rollout.mask].tolist()) & set(tiny_policy.forbidden_token_ids)
    assert score_completions(tiny_policy, prompts, rollout).isfinite().all()


def test_the_ids_scored_are_the_ids_sampled(tiny_policy, prompts, rollout, monkeypatch):
    """Text that is decoded and tokenised again gives other ids: scoring must not use it."""
    again = [tiny_policy.tokenizer(text)["input_ids"] for text in rollout.texts]
    own = [ids[keep].tolist() for ids, keep in zip(rollout.completion_ids, rollout.mask, strict=True)]
    ends = set(tiny_policy.end_token_ids)
    assert any(a != [i for i in o if i not in ends] for a, o in zip(again, own, strict=True))
    rollout.texts = ["something else"] * len(rollout)
    scored = []
    monkeypatch.setattr(
        sampling,
        "token_logps",
        lambda policy, hidden, ids, *args, **kwargs: scored.append(ids) or 2 * [torch.zeros(ids.shape)],
    )
    score_completions(tiny_policy, prompts, rollout)
    assert torch.equal(scored[0], rollout.completion_ids[rollout.mask])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_sampling_and_scoring_use_one_temperature(tiny_policy, prompts, temperature):
    rollout = sample_groups(tiny_policy, prompts, group_size=4, max_new_tokens=12, temperature=temperature, seed=1)
    scored = score_completions(tiny_policy, prompts, rollout)
    assert (scored - rollout.logps).abs().max() < 1e-5
    rollout.temperature = 1.1 * temperature  # the comparison is able to fail
    assert (score_completions(tiny_policy, prompts, rollout) - rollout.logps).abs().max() > 1e-2


def test_a_group_does_not_collapse_under_the_checkpoints_generation_config(tiny_policy, tiny_checkpoint, prompts):
    config = json.loads((tiny_checkpoint / "generation_config.json").read_text())
    assert config["top_k"] == 1 and config["temperature"] <= 0.01  # near-greedy, as Qwen2-VL ships it
    rollout = sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=16, seed=0)
    groups = [rollout.completion_ids[rollout.groups == b] for b in range(len(prompts))]
    assert all(len({tuple(row.tolist()) for row in group}) == 8 for group in groups)
    greedy = sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=16, seed=0, top_k=1)
    assert all(len({tuple(row.tolist()) for row in greedy.completion_ids[greedy.groups == b]}) == 1 for b in range(4))
    nucleus = sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=16, seed=0, top_p=1e-6)
    assert torch.equal(nucleus.completion_ids, greedy.completion_ids)


def test_frequencies_follow_the_distribution(tiny_policy, prompts):
    """4000 first tokens of one prompt against their probabilities, at a temperature other than 1."""
    one = prompts[0]
    rollout = sample_groups(tiny_policy, one, group_size=4000, max_new_tokens=1, temperature=0.7, seed=0)
    counts = torch.bincount(rollout.completion_ids[:, 0], minlength=len(tiny_policy.tokenizer)) / 4000
    with torch.no_grad():
        expected = next_token_logps(tiny_policy, run_prompt(tiny_policy, one).last_hidden, 0.7)[0].exp()
    assert (counts[: len(expected)] - expected).abs().max() < 5 * 0.5 / 4000**0.5
    assert expected.max() > 0.02


def test_a_seed_repeats_and_another_does_not(tiny_policy, prompts):
    draw = [sample_groups(tiny_policy, prompts, 4, 8, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(draw[0].completion_ids, draw[1].completion_ids)
    assert not torch.equal(draw[0].completion_ids, draw[2].completion_ids)
    generator = torch.Generator().manual_seed(5)
    same = sample_groups(tiny_policy, prompts, 4, 8, generator=generator)
    assert torch.equal(draw[0].completion_ids, same.completion_ids)
    after = sample_groups(tiny_policy, prompts, 4, 8, generator=generator, seed=5)  # the generator counts
    assert not torch.equal(draw[0].completion_ids, after.completion_ids)
    torch.manual_seed(5)  # without either, torch's own
    unseeded = [sample_groups(tiny_policy, prompts, 4, 8).completion_ids for _ in range(2)]
    assert torch.equal(draw[0].completion_ids, unseeded[0]) and not torch.equal(*unseeded)


def test_rows_belong_to_their_prompts(tiny_policy, prompts, rollout):
    assert rollout.groups.tolist() == [b for b in range(4) for _ in range(8)]  # prompt-major
    index = torch.tensor([30, 1, 9, 8])
    some = rollout.rows(index)
    assert some.groups.tolist() == [3, 0, 1, 1] and some.texts[0] == rollout.texts[30]
    whole = score_completions(tiny_policy, prompts, rollout)
    assert (score_completions(tiny_policy, prompts, some) - whole[index]).abs().max() < 1e-5
    assert (score_completions(tiny_policy, prompts, rollout, rows_per_pass=5) - whole).abs().max() < 1e-5
    some.groups = some.groups.flip(0)  # the wrong images
    assert (score_completions(tiny_policy, prompts, some) - whole[index]).abs().max() > 1e-2
    keep = rollout.truncated
    assert len(rollout.rows(keep)) == int(keep.sum())
    assert rollout.rows(keep.tolist()).texts == rollout.rows(keep).texts


def test_rows_are_scored_in_passes(tiny_policy, prompts, rollout, monkeypatch):
    """All at once by default; gradient checkpointing is off by default."""
    passes = []
    real = sampling.packed_hidden
    monkeypatch.setattr(sampling, "packed_hidden", lambda *args: passes.append((len(args[2]), args[5])) or real(*args))
    whole = score_completions(tiny_policy, prompts, rollout)
    score_completions(tiny_policy, prompts, rollout, rows_per_pass=15, gradient_checkpointing=True)
    assert passes == [(32, False), (15, True), (15, True), (2, True)]
    first = score_completions(tiny_policy, prompts, rollout.rows([0]))
    assert (first - whole[:1]).abs().max() < 1e-5


def test_entropy_is_that_of_the_sampling_distribution(tiny_policy, prompts):
    rollout = sample_groups(tiny_policy, prompts, 2, 6, temperature=1.3, seed=0)
    logps, entropy = score_completions(tiny_policy, prompts, rollout, entropy=True)
    prefix = expand(run_prompt(tiny_policy, prompts), rollout.groups)
    hidden = completion_hidden(tiny_policy, prefix, rollout.completion_ids, rollout.mask)
    full = next_token_logps(tiny_policy, hidden, 1.3).double()  # (N, L, V)
    expected = -(full.exp() * full.clamp(min=-1e4)).sum(dim=-1) * rollout.mask
    assert (entropy - expected).abs().max() < 1e-5
    assert torch.equal(logps, score_completions(tiny_policy, prompts, rollout))


def test_encoded_completions_are_scored_as_if_sampled(tiny_policy, prompts):
    texts = ["<think>a page.</think><answer>reading</answer>", "<answer>fishing</answer>"]
    encoded = encode_completions(tiny_policy, texts, [1, 3])
    assert encoded.texts == texts and encoded.origin == ["injected"] * 2
    assert not encoded.truncated.any() and encoded.logps[encoded.mask].isnan().all()
    assert (
        not encoded.logps[~encoded.mask].any()
        and (encoded.completion_ids[~encoded.mask] == tiny_policy.pad_token_id).all()
    )
    ends = encoded.completion_ids.gather(1, encoded.lengths[:, None] - 1)
    assert ends.unique().tolist() == [tiny_policy.end_token_ids[0]]
    assert (encoded.temperature, encoded.group_size) == (1.0, 1)
    other = encode_completions(tiny_policy, texts, torch.tensor([1, 3]), origin="label", temperature=0.7, group_size=4)
    assert (other.origin, other.temperature, other.group_size) == (["label"] * 2, 0.7, 4)
    assert other.groups.tolist() == encoded.groups.tolist() == [1, 3]
    assert score_completions(tiny_policy, prompts, encoded).isfinite().all()
    with pytest.raises(ValueError, match="image_pad"):
        encode_completions(tiny_policy, ["<|image_pad|>"], [0])


def test_a_token_that_opens_every_text_is_no_part_of_a_completion(tiny_policy):
    """Some tokenizers, such as Llama's, put one in front."""
    tokenizer = tiny_policy.tokenizer
    opening = ("<|im_start|>", tokenizer.convert_tokens_to_ids("<|im_start|>"))
    plain = encode_completions(tiny_policy, ["reading"], [0]).completion_ids
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[opening])
    assert tokenizer("reading")["input_ids"][0] == opening[1]
    assert torch.equal(encode_completions(tiny_policy, ["reading"], [0]).completion_ids, plain)


def special_tokens(policy):
    """Those that may be sampled and do not end a completion."""
    kept_out = {*policy.end_token_ids, *policy.forbidden_token_ids}
    ids = policy.tokenizer.convert_tokens_to_ids(policy.tokenizer.all_special_tokens)
    return [policy.tokenizer.convert_ids_to_tokens(token) for token in ids if token not in kept_out]


def test_special_tokens_inside_a_completion_are_seen_by_the_rewards(tiny_policy):
    tokens = special_tokens(tiny_policy)
    assert "<|im_start|>" in tokens
    texts = [
        text
        for token in tokens
        for text in (
            f"<think>a page</think>{token}<answer>reading</answer>",
            f"<think>a page</think><answer>rea{token}ding</answer>",
            f"<think>{token}</think><answer>reading</answer>",
            f"{token}<think>a page</think><answer>reading</answer>",
        )
    ]
    written = encode_completions(tiny_policy, texts, range(len(texts)))
    assert written.texts == texts
    assert set(accuracy_reward(written.texts, "reading") + format_reward(written.texts)) == {0.0}


def test_only_the_last_end_token_is_left_out(tiny_policy):
    end = tiny_policy.tokenizer.convert_ids_to_tokens(tiny_policy.end_token_ids[0])
    texts = ["<answer>reading</answer>", f"<answer>rea{end}ding</answer>", f"<answer>reading</answer>{end}", ""]
    written = encode_completions(tiny_policy, texts, range(4)).texts
    assert written == texts
    assert accuracy_reward(written, "reading") == [1.0, 0.0, 0.0, 0.0]


def test_texts_without_special_tokens_are_those_of_the_tokenizer(tiny_policy):
    generator = torch.Generator().manual_seed(0)
    special = set(tiny_policy.tokenizer.all_special_ids)
    words = [token for token in range(len(tiny_policy.tokenizer)) if token not in special]
    for length in range(20):
        row = [words[i] for i in torch.randint(len(words), (length,), generator=generator)]
        plain = tiny_policy.tokenizer.decode(row, skip_special_tokens=True)
        assert texts_of(tiny_policy, [row, [*row, tiny_policy.end_token_ids[0]]]) == [plain, plain]


def test_one_text_is_no_list_of_completions(tiny_policy):
    with pytest.raises(ValueError, match="^texts must be a list"):
        encode_completions(tiny_policy, "ab", [0, 1])


def test_ids_without_a_mask_are_not_decoded(tiny_policy, rollout):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        sampling.decode(tiny_policy, rollout.completion_ids, rollout.mask[1:])


def test_distributions_hold_the_scores_at_the_temperature_of_the_rollout(tiny_policy, prompts, rollout):
    rollout.temperature = 1.7
    distributions = score_distributions(tiny_policy, prompts, rollout)  # (N, L, V)
    assert not distributions[~rollout.mask].any(), "nothing stands outside the mask"
    torch.testing.assert_close(distributions[rollout.mask].exp().sum(dim=1), torch.ones(int(rollout.mask.sum())))
    scores = distributions.gather(2, rollout.completion_ids[..., None])[..., 0].masked_fill(~rollout.mask, 0.0)
    torch.testing.assert_close(scores, score_completions(tiny_policy, prompts, rollout))


def test_join_keeps_groups_together(tiny_policy, prompts, rollout):
    encoded = encode_completions(tiny_policy, ["<answer>" + "reading" * 20 + "</answer>"], [1])
    both = join(rollout, encoded)
    assert both.groups.tolist() == [0] * 8 + [1] * 9 + [2] * 8 + [3] * 8
    assert both.origin[16] == "injected" and both.mask.shape[1] == encoded.mask.shape[1] > rollout.mask.shape[1]
    assert (
        score_completions(tiny_policy, prompts, both)[:8, : rollout.mask.shape[1]]
        - score_completions(tiny_policy, prompts, rollout)[:8]
    ).abs().max() < 1e-5


def test_a_broken_policy_stops_and_names_the_image(tiny_policy, prompts):
    weight = tiny_policy.base.lm_head
    weight.bias = torch.nn.Parameter(torch.full((weight.out_features,), torch.nan), requires_grad=False)
    with pytest.raises(FloatingPointError, match="token 0 is not finite in row 0, a completion for tiny/0"):
        sample_groups(tiny_policy, prompts, 2, 4, seed=0)
    with pytest.raises(ValueError, match="temperature"):
        sample_groups(tiny_policy, prompts, 2, 4, temperature=0.0)


def test_a_row_that_breaks_later_is_named_though_others_have_left(tiny_policy, prompts, rollout, monkeypatch):
    going = (rollout.lengths > 2).nonzero().flatten()
    row = int(going[len(going) // 2])
    assert row != len(going) // 2  # some rows before it have left
    real, calls = sampling.next_token_logps, []

    def breaking(*args):
        logps = real(*args)
        calls.append(len(logps))
        if len(calls) == 3:
            logps[len(going) // 2, 7] = torch.nan  # one token out of many
        return logps

    monkeypatch.setattr(sampling, "next_token_logps", breaking)
    message = f"token 2 is not finite in row {row}, a completion for tiny/{row // 8}"
    with pytest.raises(FloatingPointError, match=message):
        sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=24, seed=0)


def test_on_a_gpu_a_token_is_waited_for_once_and_the_plain_way_scores_too(cuda, tiny_checkpoint, tiny_examples):
    """The device is pretended: a tensor in the wrong place is an error, and waiting for a number is counted."""
    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", check=False)
    prompts = encode_prompts(policy, tiny_examples, ["reading", "running"])
    for _ in range(2):  # what is computed once per policy is there in the second round
        cuda.syncs.clear()
        rollout = sample_groups(policy, prompts, 2, 8, seed=0, decoding="static")
    assert len(cuda.syncs) <= rollout.mask.shape[1] + 5, cuda.counts()
    plain, packed = (score_completions(policy, prompts, rollout, how=how) for how in ("plain", "packed"))
    torch.testing.assert_close(plain.cpu(), packed.cpu(), atol=1e-4, rtol=0.0)
    cuda.syncs.clear()
    score_completions(policy, prompts, rollout)
    assert len(cuda.syncs) <= 6, cuda.counts()
