"""The rows of a rollout: whatever belongs to a row moves with it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from favor_lab.grpo.sampling import Rollout, join
from favor_lab.grpo.support.rollout import check_rows, weighted_sum


@pytest.fixture
def by_hand():
    """Rows of 2, 1, 0 and 3 tokens; 9 ends a row."""
    ids = torch.tensor([[4, 9, 0], [9, 0, 0], [0, 0, 0], [4, 5, 6]])
    mask = torch.arange(3) < torch.tensor([2, 1, 0, 3])[:, None]
    logps = -torch.arange(12.0).view(4, 3) * mask
    return Rollout(ids, mask, logps, list("abcd"), 2, end_token_ids=[9])


def columns(rollout):
    tensors = rollout.completion_ids, rollout.mask, rollout.logps, rollout.groups
    return [values.tolist() for values in tensors] + [rollout.texts, rollout.origin]


def test_a_rollout_by_hand(by_hand):
    assert by_hand.groups.tolist() == [0, 0, 1, 1] and by_hand.origin == ["sampled"] * 4
    assert by_hand.temperature == 1.0
    assert replace(by_hand, origin=["sampled", "sampled, noisy image", "replayed", ""]).sampled.tolist() == [
        True, True, False, False,
    ]  # fmt: skip
    assert by_hand.sampled.tolist() == [True] * 4 and by_hand.rows([]).sampled.dtype == torch.bool
    assert by_hand.lengths.tolist() == [2, 1, 0, 3]
    assert by_hand.truncated.tolist() == [False, False, True, True]
    by_hand.end_token_ids = []
    assert by_hand.truncated.all()


@pytest.mark.parametrize("index", [
    [3, 1],
    torch.tensor([3, 1], dtype=torch.uint8),  # torch would interpret these as truth values
    [],
    [False, True, False, True],
])  # fmt: skip
def test_rows_keeps_every_column(by_hand, index):
    by_hand.origin[3] = "injected"
    chosen = [1, 3] if False in list(index) else [int(i) for i in index]
    assert columns(by_hand.rows(index)) == [[column[i] for i in chosen] for column in columns(by_hand)]


@pytest.mark.parametrize("wider", ["first", "second"])
def test_join_by_hand(by_hand, wider):
    """Each group together, the first rollout's rows before the second's, the narrower one padded."""
    ids, mask = torch.tensor([[7, 9], [8, 0]]), torch.tensor([[True, True], [True, False]])
    logps = torch.tensor([[-0.5, -0.25], [-0.75, 0.0]])
    narrow = Rollout(ids, mask, logps, ["e", "f"], 1, torch.tensor([1, 0]), ["injected"] * 2, end_token_ids=[9])
    both = join(by_hand, narrow) if wider == "first" else join(narrow, by_hand)
    order = ["a", "b", "f", "c", "d", "e"] if wider == "first" else ["f", "a", "b", "e", "c", "d"]
    rows = {row[4]: row for rollout in (by_hand, narrow) for row in zip(*columns(rollout), strict=True)}
    expected = [[(value + [0])[:3] if isinstance(value, list) else value for value in rows[name]] for name in order]
    assert [list(row) for row in zip(*columns(both), strict=True)] == expected


def test_rewards_and_old_logps_move_with_their_rows(by_hand):
    by_hand.rewards = {"accuracy": torch.arange(4.0), "format": torch.arange(4.0) * 10}
    by_hand.old_logps = by_hand.logps - 1
    some = by_hand.rows([3, 0])
    assert {name: values.tolist() for name, values in some.rewards.items()} == {"accuracy": [3, 0], "format": [30, 0]}
    assert torch.equal(some.old_logps, by_hand.old_logps[[3, 0]])
    assert by_hand.rows([1]).total_rewards((1.0, 0.5)).tolist() == [6.0]
    assert some.temperature == by_hand.temperature and some.end_token_ids == [9] and some.group_size == 2


def test_joined_rows_keep_their_own_rewards(by_hand):
    by_hand.rewards = {"accuracy": torch.arange(4.0)}
    labelled = by_hand.rows([0, 2])
    labelled.origin, labelled.texts = ["injected"] * 2, ["e", "f"]
    labelled.rewards = {"accuracy": torch.tensor([5.0, 6.0])}
    both = join(by_hand, labelled)
    assert both.texts == list("abecdf")
    assert both.rewards["accuracy"].tolist() == [0, 1, 5, 2, 3, 6] == both.total_rewards().tolist()
    labelled.rewards = {}
    advice = r"\]: compute the rewards of both first, or join the rows before any are computed$"
    with pytest.raises(ValueError, match=advice):
        join(by_hand, labelled)


@pytest.mark.parametrize("brings", ["neither", "first", "second", "both"])
def test_joined_rows_keep_their_own_old_logps(by_hand, brings):
    """Rows without old log-probabilities get NaN if they were sampled in this step, else those of their sampling."""
    replayed = by_hand.rows([3])
    replayed.origin = ["replayed"]
    if brings in ("first", "both"):
        by_hand.old_logps = by_hand.logps - 1
    if brings in ("second", "both"):
        replayed.old_logps = replayed.logps - 2
    both = join(by_hand, replayed)
    assert both.origin == ["sampled"] * 4 + ["replayed"]
    if brings == "neither":
        assert both.old_logps is None
    first = both.fixed_old_logps()[:4]
    expected = by_hand.logps - 1 if brings in ("first", "both") else torch.full((4, 3), torch.nan)
    assert torch.equal(first.isnan(), expected.isnan()) and torch.equal(first.nan_to_num(), expected.nan_to_num())
    assert torch.equal(both.fixed_old_logps()[4], replayed.logps[0] - (2 if brings in ("second", "both") else 0))


def test_weights_of_rewards():
    rewards = {"accuracy": torch.tensor([1.0, 0.0]), "format": torch.tensor([1.0, 3.0])}
    assert weighted_sum(rewards, None).tolist() == weighted_sum(rewards, ()).tolist() == [2.0, 3.0]
    assert weighted_sum(rewards, (2.0, 0.5)).tolist() == [2.5, 1.5]
    with pytest.raises(ValueError, match="3 numbers for 2 rewards: accuracy, format"):
        weighted_sum(rewards, (1.0, 1.0, 1.0))


def test_a_row_that_is_not_finite_is_named_with_its_image():
    prompts, groups = SimpleNamespace(sources=["bike.png", "book.png"]), torch.tensor([0, 0, 1, 1])
    check_rows(torch.zeros(4, dtype=torch.bool), prompts, groups, "the loss")
    with pytest.raises(FloatingPointError, match="^the loss is not finite in row 2, a completion for book.png$"):
        check_rows(torch.tensor([False, False, True, True]), prompts, groups, "the loss")
    with pytest.raises(FloatingPointError, match="in row 9, a completion for bike.png"):
        check_rows(torch.tensor([False, True, False, False]), prompts, groups, "the loss", first=8)


def test_a_copy_on_the_cpu_has_every_column(by_hand, cuda):
    names = ("completion_ids", "mask", "logps", "groups")
    on_gpu = replace(by_hand, **{name: getattr(by_hand, name).to("cuda") for name in names})
    on_gpu.rewards = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0], device="cuda")}
    copy = on_gpu.cpu()
    tensors = [*(getattr(copy, name) for name in names), *copy.rewards.values()]
    assert [tensor.device.type for tensor in tensors] == ["cpu"] * 5 and on_gpu.mask.device.type == "cuda"
    assert columns(copy) == columns(by_hand) and copy.rewards["a"].tolist() == on_gpu.rewards["a"].cpu().tolist()
