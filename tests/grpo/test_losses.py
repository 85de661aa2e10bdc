"""Every loss against a computation with Python floats (which are float64), token by token."""

import math

import pytest
import torch

from favor_lab.grpo.losses import (
    HOWS,
    MAX_LOG_RATIO,
    aggregate,
    cispo_surrogate,
    clipped_surrogate,
    exact_kl,
    grpo_loss,
    k3_kl,
    row_mean,
)

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


def test_defaults(rows):
    """The defaults of the signatures: clip 0.2 on both sides, beta 0.04, GRPO's mean by row, one ratio per token."""
    logps, old, _, advantages, mask = rows
    assert grpo_loss(*rows)[0].item() == pytest.approx(by_hand(rows, "grpo", "token", 0.04, 0.2, 0.2), abs=1e-12)
    by_name = clipped_surrogate(logps, old, advantages, clip_low=0.2, clip_high=0.2)
    assert torch.equal(clipped_surrogate(logps, old, advantages), by_name)
    assert aggregate(by_name, mask) == aggregate(by_name, mask, "grpo") != aggregate(by_name, mask, "bnpo")


@pytest.mark.parametrize("weigh_kl", [False, True])
def test_parts_by_hand(rows, weigh_kl):
    """Means over the tokens; a token counts as clipped if the clip removes its gradient, so none with advantage 0."""
    *values, mask = rows
    values[3] = torch.tensor([-1.2, -0.7, 0.0, 0.9], dtype=torch.float64)
    parts = grpo_loss(*values, mask, clip=0.1, clip_high=0.3, weigh_kl=weigh_kl)[1]
    logps, old, ref, advantages = (value.tolist() for value in values)
    expected = dict.fromkeys(("kl", "ratio", "clip_low", "clip_high"), 0.0)
    for n, length in enumerate(LENGTHS):
        for j in range(length):
            ratio, d = math.exp(logps[n][j] - old[n][j]), ref[n][j] - logps[n][j]
            expected["kl"] += (math.exp(d) - d - 1) * (ratio if weigh_kl else 1)
            expected["ratio"] += ratio
            expected["clip_low"] += ratio < 0.9 and advantages[n] < 0
            expected["clip_high"] += ratio > 1.3 and advantages[n] > 0
    assert (expected["clip_low"], expected["clip_high"]) == (5, 3)
    assert {name: parts[name] * sum(LENGTHS) for name in expected} == pytest.approx(expected, abs=1e-6)


def test_a_ratio_on_the_bound_is_not_clipped(rows):
    logps, _, _, advantages, mask = rows
    parts = grpo_loss(logps, logps, None, advantages, mask, clip=0.0, beta=0.0)[1]
    assert (parts["clip_low"], parts["clip_high"]) == (0.0, 0.0)


@pytest.mark.parametrize("ratio_max", [None, 2.0])
def test_cispo_holds_its_ratio_fixed_and_below_a_bound(ratio_max):
    """The gradient at log p is min(ratio, bound) A: no token loses it, and none flows through the ratio."""
    options = {} if ratio_max is None else {"ratio_max": ratio_max}
    logps = torch.tensor([[-0.5, -0.5, -3.0]], requires_grad=True)  # ratios e^2.5, e^0.25 and e^-2
    old, mask = torch.tensor([[-3.0, -0.75, -1.0]]), torch.ones(1, 3, dtype=torch.bool)
    expected = torch.tensor([[ratio_max or 5.0, math.exp(0.25), math.exp(-2.0)]])
    for advantage in (0.5, -0.5):
        advantages = torch.tensor([advantage])
        surrogate = cispo_surrogate(logps, old, advantages, **options)
        loss, parts = grpo_loss(logps, old, None, advantages, mask, beta=0.0, how="cispo", **options)
        assert torch.allclose(surrogate, expected * advantage * logps)
        assert torch.allclose(torch.autograd.grad(surrogate.sum(), logps)[0], expected * advantage)
        assert torch.allclose(torch.autograd.grad(loss, logps)[0], -expected * advantage / 3)
        assert (parts["clip_low"], parts["clip_high"]) == (0.0, pytest.approx(1 / 3 if advantage > 0 else 0.0))


@pytest.mark.parametrize("how", HOWS)
def test_one_token_and_no_token(how):
    one, none = torch.tensor([[True]]), torch.tensor([[False, False]])
    assert aggregate(torch.tensor([[3.0]]), one, how, max_length=1) == 3.0
    assert aggregate(torch.ones(1, 2), none, how, max_length=2) == 0.0
    assert aggregate(torch.ones(0, 2), none[:0], how, max_length=2) == 0.0


def test_the_mean_of_a_row_is_over_its_own_tokens():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert row_mean(torch.tensor([[1.0, 3.0, 9.0]] * 3), mask).tolist() == [[2.0], [1.0], [0.0]]


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


@pytest.mark.parametrize(
    ("logp", "old", "reference", "count"),
    [(-45.0, -15.0, -45.0, 2), (-15.0, -45.0, -15.0, 2), (-45.0, -45.0, -15.0, 2), (-15.0, -15.0, -45.0, 2)]
    + [(-15.0, -15.0, -15.0, 0), (-30.0, -10.0, -10.0, 0)],
)
def test_log_ratios_beyond_the_bound_are_counted(logp, old, reference, count):
    """To either side, in either ratio; the bound itself is inside, and a masked token is not counted."""
    values = [torch.full((1, 3), value) for value in (logp, old, reference)]
    parts = grpo_loss(*values, torch.ones(1), torch.tensor([[True, True, False]]))[1]
    assert parts["bounded"] == count


def test_kl_is_zero_only_for_equal_policies(rows):
    logps, old, *_ = rows
    assert not k3_kl(logps, logps).any()
    assert (k3_kl(logps, old) > 0).all()


def test_the_exact_kl_is_torchs_and_what_k3_estimates():
    """Forbidden ids have no share, and leave both gradients finite."""
    generator, forbidden = torch.Generator().manual_seed(0), torch.tensor([False, False, True, False, True])
    logits = [torch.randn(2, 3, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    one, other = (x.masked_fill(forbidden, -torch.inf).log_softmax(dim=-1) for x in logits)  # (2, 3, 5) each
    kl = exact_kl(one, other)
    categories = [torch.distributions.Categorical(logits=x[..., ~forbidden]) for x in logits]
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(*categories))
    allowed = one[..., ~forbidden], other[..., ~forbidden]
    torch.testing.assert_close((allowed[0].exp() * k3_kl(*allowed)).sum(dim=-1), kl)
    assert not exact_kl(one, one).any()
    ours = torch.autograd.grad(kl.sum(), logits, retain_graph=True)
    theirs = torch.autograd.grad(torch.distributions.kl_divergence(*categories).sum(), logits)
    torch.testing.assert_close(ours, theirs)
    assert not any(gradient[..., forbidden].any() for gradient in ours)


def test_errors_list_the_valid_names(rows):
    with pytest.raises(ValueError, match="'mean'.*grpo, bnpo, dr_grpo, dapo, cispo"):
        aggregate(rows[0], rows[4], "mean")
    with pytest.raises(ValueError, match="pass max_length"):
        aggregate(rows[0], rows[4], "dr_grpo")
    with pytest.raises(ValueError, match="'word'.*token, sequence"):
        grpo_loss(*rows, level="word")
    with pytest.raises(ValueError, match="ref_logps"):
        grpo_loss(rows[0], rows[1], None, *rows[3:])
