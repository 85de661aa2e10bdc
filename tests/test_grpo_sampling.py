"""Sampling and scoring: one distribution, one set of ids, one mask."""

import json

import pytest
import torch

from favor_lab.grpo.sampling import encode_completions, join, sample_groups, score_completions
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
    assert finished.any() and rollout.truncated.any()  # both kinds are here
    for row in range(len(rollout)):
        length = int(rollout.lengths[row])
        assert rollout.mask[row].tolist() == [True] * length + [False] * (rollout.mask.shape[1] - length)
        assert ends[row, :length].tolist() == [False] * (length - 1) + [bool(finished[row])]
    assert (rollout.completion_ids[~rollout.mask] == tiny_policy.pad_token_id).all()


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
    """Text decoded and tokenised again is other ids: scoring must not see it."""
    again = [tiny_policy.tokenizer(text)["input_ids"] for text in rollout.texts]
    own = [ids[keep].tolist() for ids, keep in zip(rollout.completion_ids, rollout.mask, strict=True)]
    ends = set(tiny_policy.end_token_ids)
    assert any(a != [i for i in o if i not in ends] for a, o in zip(again, own, strict=True))
    rollout.texts = ["something else"] * len(rollout)
    scored = []
    import favor_lab.grpo.sampling as sampling

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
    rollout.temperature = 1.1 * temperature  # and the comparison can fail
    assert (score_completions(tiny_policy, prompts, rollout) - rollout.logps).abs().max() > 1e-2


def test_a_group_does_not_collapse_under_the_checkpoints_generation_config(tiny_policy, tiny_checkpoint, prompts):
    config = json.loads((tiny_checkpoint / "generation_config.json").read_text())
    assert config["top_k"] == 1 and config["temperature"] <= 0.01  # near-greedy, as Qwen2-VL ships it
    rollout = sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=16, seed=0)
    groups = [rollout.completion_ids[rollout.groups == b] for b in range(len(prompts))]
    assert all(len({tuple(row.tolist()) for row in group}) == 8 for group in groups)
    greedy = sample_groups(tiny_policy, prompts, group_size=8, max_new_tokens=16, seed=0, top_k=1)
    assert all(len({tuple(row.tolist()) for row in greedy.completion_ids[greedy.groups == b]}) == 1 for b in range(4))


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
    given = encode_completions(tiny_policy, texts, [1, 3])
    assert given.texts == texts and given.origin == ["injected"] * 2
    assert not given.truncated.any() and given.logps[given.mask].isnan().all()
    assert score_completions(tiny_policy, prompts, given).isfinite().all()
    with pytest.raises(ValueError, match="image_pad"):
        encode_completions(tiny_policy, ["<|image_pad|>"], [0])


def test_join_keeps_groups_together(tiny_policy, prompts, rollout):
    given = encode_completions(tiny_policy, ["<answer>" + "reading" * 20 + "</answer>"], [1])
    both = join(rollout, given)
    assert both.groups.tolist() == [0] * 8 + [1] * 9 + [2] * 8 + [3] * 8
    assert both.origin[16] == "injected" and both.mask.shape[1] == given.mask.shape[1] > rollout.mask.shape[1]
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
