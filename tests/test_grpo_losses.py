"""Every loss against a computation with Python floats (which are float64), token by token."""

import math

import pytest
import torch

from favor_lab.grpo.losses import HOWS, MAX_LOG_RATIO, aggregate, clipped_surrogate, grpo_loss, k3_kl

LENGTHS, LENGTH, MAX_LENGTH = [5, 1, 3, 4], 5, 8


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    logps, old, ref = (-2 * torch.rand(4, LENGTH, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]
    return logps, old, ref, torch.tensor([1.2, -0.7, 0.4, -0.9], dtype=torch.float64), mask


def by_hand(rows, how, level, beta, low, high):
    """The loss with loops and floats."""
    logps, old, ref, advantages, _ = (values.tolist() for values in rows)
    total = 0.0
    for n, length in enumerate(LENGTHS):
        mean = sum(logps[n][j] - old[n][j] for j in range(length)) / length
        for j in range(length):
            ratio = math.exp(mean if level == "sequence" else logps[n][j] - old[n][j])
            clipped = min(max(ratio, 1 - low), 1 + high)
            term = -min(ratio * advantages[n], clipped * advantages[n])
            if how == "cispo":
                term = -min(ratio, 5.0) * advantages[n] * logps[n][j]
            d = ref[n][j] - logps[n][j]
            term += beta * (math.exp(d) - d - 1)
            total += term / {"grpo": length * 4, "dr_grpo": 4 * MAX_LENGTH}.get(how, sum(LENGTHS))
    return total


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_loss_by_hand(rows, how, level, beta):
    if (how, level) == ("cispo", "sequence"):
        with pytest.raises(ValueError, match="cispo: token"):
            grpo_loss(*rows, how=how, level=level)
        return
    loss, parts = grpo_loss(*rows, beta=beta, how=how, level=level, clip=0.1, clip_high=0.3, max_length=MAX_LENGTH)
    assert loss.item() == pytest.approx(by_hand(rows, how, level, beta, 0.1, 0.3), abs=1e-12)
    assert parts["policy"] + parts["kl_penalty"] == pytest.approx(loss.item(), abs=1e-12)
    single = [values.float() for values in rows[:4]]
    loss32, _ = grpo_loss(
        *single, rows[4], beta=beta, how=how, level=level, clip=0.1, clip_high=0.3, max_length=MAX_LENGTH
    )
    assert loss32.item() == pytest.approx(loss.item(), abs=1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("how", HOWS)
def test_parts_of_a_step_add_up_to_the_step(rows, how, level):
    """Loss, gradient and metrics, for a split into parts of uneven length."""
    if (how, level) == ("cispo", "sequence"):
        return
    *values, mask = rows
    whole = {"max_length": MAX_LENGTH, "total_rows": 4, "total_tokens": sum(LENGTHS)}
    logps = values[0].clone().requires_grad_()
    loss, metrics = grpo_loss(logps, *values[1:], mask, how=how, level=level, max_length=MAX_LENGTH)
    loss.backward()
    split, sums, total = values[0].clone().requires_grad_(), dict.fromkeys(metrics, 0.0), 0.0
    for part in (slice(0, 1), slice(1, 4)):
        inputs = [split[part], *(value[part] for value in values[1:]), mask[part]]
        value, parts = grpo_loss(*inputs, how=how, level=level, **whole)
        value.backward()
        total += value.item()
        sums = {name: sums[name] + number for name, number in parts.items()}
    assert total == pytest.approx(loss.item(), abs=1e-14)
    assert (split.grad - logps.grad).abs().max() < 1e-15
    assert sums == pytest.approx(metrics, abs=1e-14)


def test_what_is_masked_does_not_matter(rows):
    logps, old, ref, advantages, mask = rows
    logps = logps.masked_fill(~mask, -1e9).requires_grad_()
    for how in HOWS:
        loss, _ = grpo_loss(logps, old.masked_fill(~mask, 3.0), ref, advantages, mask, how=how, max_length=MAX_LENGTH)
        assert loss.item() == pytest.approx(grpo_loss(*rows, how=how, max_length=MAX_LENGTH)[0].item(), abs=1e-12)
        (gradient,) = torch.autograd.grad(loss, logps)
        assert not gradient[~mask].any() and gradient.isfinite().all()


def test_on_policy_gradient_is_the_policy_gradient(rows):
    """At ratio 1 the clip cannot act: the gradient is that of -A log p, averaged."""
    logps, _, _, advantages, mask = rows
    logps = logps.requires_grad_()
    loss, parts = grpo_loss(logps, logps.detach(), None, advantages, mask, beta=0.0, how="dapo")
    (gradient,) = torch.autograd.grad(loss, logps)
    assert torch.allclose(gradient, -(advantages[:, None] * mask) / mask.sum())
    assert (parts["ratio"], parts["clip_low"], parts["clip_high"]) == (pytest.approx(1.0), 0.0, 0.0)


def test_advantages_by_token_broadcast(rows):
    logps, old, ref, advantages, mask = rows
    wide = advantages[:, None].expand_as(logps)
    for level in ("token", "sequence"):
        assert torch.equal(
            grpo_loss(logps, old, ref, wide, mask, level=level)[0],
            grpo_loss(logps, old, ref, advantages, mask, level=level)[0],
        )
    assert clipped_surrogate(logps, old, wide * torch.arange(LENGTH)).shape == (4, LENGTH)


def test_a_far_away_reference_gives_a_finite_loss_and_is_counted():
    logps = torch.tensor([[-400.0, -1.0, -400.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    assert k3_kl(torch.tensor([[-400.0]]), torch.zeros(1, 1)).item() == pytest.approx(math.exp(MAX_LOG_RATIO), rel=1e-5)
    loss, parts = grpo_loss(logps, logps.detach(), torch.zeros(1, 3), torch.ones(1), mask)
    loss.backward()
    assert loss.isfinite() and logps.grad.isfinite().all()
    assert parts["bounded"] == 1.0


def test_kl_is_zero_only_for_equal_policies(rows):
    logps, old, *_ = rows
    assert not k3_kl(logps, logps).any()
    assert (k3_kl(logps, old) > 0).all()


def test_errors_list_the_valid_names(rows):
    with pytest.raises(ValueError, match="'mean'.*grpo, bnpo, dr_grpo, dapo, cispo"):
        aggregate(rows[0], rows[4], "mean")
    with pytest.raises(ValueError, match="pass max_length"):
        aggregate(rows[0], rows[4], "dr_grpo")
    with pytest.raises(ValueError, match="'word'.*token, sequence"):
        grpo_loss(*rows, level="word")
    with pytest.raises(ValueError, match="ref_logps"):
        grpo_loss(rows[0], rows[1], None, *rows[3:])
