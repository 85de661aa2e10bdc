"""Group statistics by hand, in float64 and plain Python."""

import math

import numpy as np
import pytest
import torch

from favor_lab.grpo.advantages import group_advantages, is_flat, spread, to_groups

REWARDS = [[1.0, 2.0, 0.0, 1.0], [0.0, 0.5, 2.0, 2.0], [2.0, 0.0, 0.0, 0.0]]


def std(values, unbiased):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - unbiased))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_against_hand_computation(scale, unbiased):
    everything = [reward for group in REWARDS for reward in group]
    expected = []
    for group in REWARDS:
        divisor = {"group": std(group, unbiased), "batch": std(everything, unbiased), "none": 1 - 1e-4}[scale] + 1e-4
        expected.append([(reward - sum(group) / len(group)) / divisor for reward in group])
    ours = group_advantages(torch.tensor(REWARDS, dtype=torch.float64), scale=scale, unbiased=unbiased)
    assert (ours - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-12
    single = group_advantages(torch.tensor(REWARDS), scale=scale, unbiased=unbiased)
    assert single.dtype == torch.float32
    assert (single - ours).abs().max() < 1e-6


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_without_spread_has_exactly_no_advantage(scale):
    rewards = torch.tensor([[0.1] * 7, [0.1] * 6 + [1.1]])  # 0.1 * 7 / 7 is not 0.1 in float32
    advantages = group_advantages(rewards, scale=scale)
    assert advantages[0].tolist() == [0.0] * 7
    assert advantages[1, -1] > 0.5
    assert is_flat(rewards).tolist() == [True, False]


def test_an_absent_row_takes_no_part():
    rewards = torch.tensor([[1.0, 0.0, 1.0, 1.0], [3.0, math.nan, 0.0, 1.0], [2.0, math.nan, math.nan, math.nan]])
    advantages = group_advantages(rewards)
    assert torch.allclose(advantages[1, [0, 2, 3]], group_advantages(rewards[1:2, [0, 2, 3]]))
    assert advantages[1, 1] == 0.0
    assert advantages[2].tolist() == [0.0] * 4


def test_an_absent_row_does_not_hide_that_a_group_is_flat():
    nan = math.nan
    rewards = torch.tensor([[2.0, nan, 2.0], [-1.0, nan, -1.0], [1.0, nan, nan], [nan, nan, nan], [1.0, nan, 0.0]])
    assert is_flat(rewards).tolist() == [True] * 4 + [False]
    assert spread(rewards)[:4].tolist() == [[0.0]] * 4


def test_two_completions_are_a_group():
    assert spread(torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.5**0.5)
    assert group_advantages(torch.tensor([[1.0, 0.0]]), eps=0.0)[0].tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)])


@pytest.mark.parametrize("dtype", [torch.long, torch.bool])
def test_rewards_may_be_counts_or_truth_values(dtype):
    rewards = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0]], dtype=dtype)
    assert torch.equal(group_advantages(rewards), group_advantages(rewards.float()))


def test_rows_and_table():
    table, place = to_groups(torch.arange(6.0), torch.arange(3).repeat_interleave(2))
    assert table.tolist() == [[0, 1], [2, 3], [4, 5]]  # the regular case: simply view(B, G)
    table, place = to_groups(torch.arange(5.0), torch.tensor([7, 2, 7, 7, 2]))
    assert table[0, :2].tolist() == [1.0, 4.0] and table[1].tolist() == [0.0, 2.0, 3.0]
    assert table[place].tolist() == [0, 1, 2, 3, 4]
    assert to_groups(torch.ones(1), torch.zeros(1, dtype=torch.long))[0].shape == (1, 2)
    assert to_groups(torch.ones(0), torch.zeros(0, dtype=torch.long))[0].shape == (0, 2)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="'std'.*group, batch, none"):
        group_advantages(torch.zeros(2, 4), scale="std")
    with pytest.raises(ValueError, match=r"\(B, G\) with G of at least 2, got \(4, 1\)"):
        group_advantages(torch.zeros(4, 1))


@pytest.mark.parametrize("function", [group_advantages, spread, is_flat])
@pytest.mark.parametrize("rewards", [[[1.0, 0.0]], np.array([[1.0, 0.0]]), ((1, 0),)], ids=["list", "array", "tuple"])
def test_rewards_that_are_no_tensor_are_refused_in_one_sentence(function, rewards):
    sentence = rf"^rewards must be a tensor of shape \(B, G\), not a {type(rewards).__name__}: write torch.tensor"
    with pytest.raises(TypeError, match=sentence):
        function(rewards)


@pytest.mark.parametrize("name", ["values", "groups"])
def test_rows_that_are_no_tensor_are_refused_by_name(name):
    rows = {"values": torch.tensor([1.0, 0.0]), "groups": torch.tensor([0, 0])} | {name: [1, 0]}
    with pytest.raises(TypeError, match=rf"^{name} must be a tensor of shape \(N,\), not a list"):
        to_groups(**rows)
