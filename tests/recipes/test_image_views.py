"""PAPO, VPPO and NoisyRollout: the views of the images, the formulas by hand, and what they cost."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from favor_lab import FewShot, GRPOSettings, grpo_loss, load_policy, sample_groups, score_completions
from favor_lab.grpo import training
from favor_lab.grpo.advantages import group_advantages
from favor_lab.recipes import Recipe, find_recipe, noisy_rollout, views, vppo
from favor_lab.recipes.noisy_rollout import annealed, noisy_sample
from favor_lab.recipes.papo import papo_loss, perception
from favor_lab.recipes.views import changed_prompts, masked, masked_prompts, noisy
from favor_lab.recipes.vppo import dependency, most_dependent, row_factors, vppo_advantages
from recipe_runs import even_ids, same, take_steps
from tiny import LABELS, make_context, make_policy

SETTINGS = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)
OFF = {"papo": {"gamma": 0.0}, "vppo": {"shrink": 0.0, "drop": 0.0}, "noisy-rollout": {"strength": 0.0}}


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


# ---------------------------------------------------------------------------------------------- what all three promise


@pytest.mark.parametrize("name", OFF)
def test_with_its_coefficients_at_0_it_is_plain_grpo_and_costs_nothing(
    tiny_checkpoint, shots, tmp_path, monkeypatch, name
):
    """Bit for bit, over three steps with a resume in between; no image is encoded, no distribution computed."""
    recipe, plain = find_recipe(name), find_recipe("")
    assert set(OFF[name]) == set(recipe.coefficients)
    expected = take_steps(make_policy(tiny_checkpoint), plain, shots, SETTINGS, 2, tmp_path / "plain")
    for place, function in ((views, "encode_images"), (training, "score_distributions")):
        monkeypatch.setattr(place, function, lambda *arguments, **options: pytest.fail("it costs something"))
    settings = replace(SETTINGS, coefficients=OFF[name])
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, 2, tmp_path / "off"), expected)
    monkeypatch.undo()
    assert not same(take_steps(make_policy(tiny_checkpoint), recipe, shots, SETTINGS), expected)


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_is_the_same(tiny_checkpoint, shots, tmp_path, name, stop):
    """Also between the two updates of a rollout."""
    settings, recipe = replace(SETTINGS, updates_per_rollout=2), find_recipe(name)
    unbroken = take_steps(make_policy(tiny_checkpoint), recipe, shots, settings)
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, stop, tmp_path), unbroken)


@pytest.mark.parametrize("name", OFF)
def test_the_split_into_micro_batches_changes_nothing(tiny_checkpoint, shots, name):
    recipe = find_recipe(name)
    whole, parts = (
        take_steps(make_policy(tiny_checkpoint), recipe, shots, replace(SETTINGS, steps=1, micro_batch=size))[0][0]
        for size in (0, 3)
    )
    for number in ("loss", "grad_norm"):
        assert parts[number] == pytest.approx(whole[number], rel=1e-4)


def encodings(monkeypatch):
    """The numbers of images that recipes encode, one entry per call."""
    counts = []

    def counting(policy, images):
        counts.append(len(images))
        return original(policy, images)

    original = views.encode_images
    monkeypatch.setattr(views, "encode_images", counting)
    return counts


@pytest.mark.parametrize("name", OFF)
def test_the_changed_images_are_encoded_once_a_step(tiny_policy, shots, monkeypatch, name):
    counts = encodings(monkeypatch)
    take_steps(tiny_policy, find_recipe(name), shots, replace(SETTINGS, steps=2, micro_batch=3))
    assert counts == [2, 2]


# ------------------------------------------------------------------------------------------------------ changed images


def test_a_mask_blackens_whole_squares_with_its_probability():
    image = Image.new("RGB", (420, 280), (10, 20, 30))
    changed = np.asarray(masked(image, 0.6, 14, torch.Generator().manual_seed(3)))
    squares = changed.reshape(20, 14, 30, 14, 3).transpose(0, 2, 1, 3, 4).reshape(600, -1, 3)
    black = (squares == 0).all(axis=(1, 2))
    assert all((square == [10, 20, 30]).all() for square in squares[~black])
    assert 0.54 < black.mean() < 0.66  # 600 squares: three standard deviations
    again, other = (np.asarray(masked(image, 0.6, 14, torch.Generator().manual_seed(seed))) for seed in (3, 4))
    assert (again == changed).all() and (other != changed).any()
    assert np.asarray(masked(image, 1.0, 14, torch.Generator())).max() == 0
    assert (np.asarray(masked(image, 0.0, 14, torch.Generator())) == np.asarray(image)).all()
    assert (np.asarray(image) == [10, 20, 30]).all(), "the image itself stays"
    for probability, side in ((-0.1, 14), (1.1, 14), (0.5, 0)):
        with pytest.raises(ValueError, match="from 0 to 1, and at least 1 pixel"):
            masked(image, probability, side, torch.Generator())


def test_noise_is_the_forward_process_of_a_diffusion():
    """Against a loop over the steps: x becomes sqrt(1 - v) x + sqrt(v) noise in each."""
    image, signal, variance = Image.new("RGB", (200, 200), (128, 128, 128)), 1.0, 0.0
    for t in range(301):
        added = 1 / (1 + math.exp(6 - 12 * t / 999)) * (0.005 - 0.00001) + 0.00001
        signal, variance = signal * math.sqrt(1 - added), variance * (1 - added) + added
    values = np.asarray(noisy(image, 300, torch.Generator().manual_seed(0))) / 255
    assert values.mean() == pytest.approx(signal * 128 / 255, abs=0.005)
    assert values.std() == pytest.approx(math.sqrt(variance), abs=0.005)
    for step in (-1, 1000):
        with pytest.raises(ValueError, match="from 0 to 999"):
            noisy(image, step, torch.Generator())


def test_other_images_change_nothing_but_the_features(tiny_policy, tiny_examples):
    """Under the same question at the same places; against the whole way, from pixels."""
    context = make_context(tiny_policy, tiny_examples, LABELS, None, SETTINGS)
    view = masked_prompts(context, 0.5, 14)
    assert masked_prompts(context, 0.5, 14) is view
    assert [image.size for image in view.images] == [image.size for image in context.prompts.images]
    examples = [replace(e, image=image) for e, image in zip(tiny_examples, view.images, strict=True)]
    encoded = context.encode(examples)
    assert torch.equal(encoded.input_ids, view.input_ids) and torch.equal(encoded.position_ids, view.position_ids)
    for ours, theirs in zip(view.image_features, encoded.image_features, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert changed_prompts(context, lambda image: image).image_features[0].equal(context.prompts.image_features[0])


# ---------------------------------------------------------------------------------------------------------------- PAPO


def loss_of(distributions, ids, mask, advantages, blind, **options):
    """`papo_loss` of given distributions, without a policy: (N, L, V) each."""
    context = SimpleNamespace(
        cache={"masked 0.6 14": "the masked prompts"},
        distributions=lambda rollout, prompts: blind,
        logps=lambda rollout, prompts: blind.gather(2, ids[..., None])[..., 0],
    )
    logps = distributions.gather(2, ids[..., None])[..., 0]  # (N, L)
    return papo_loss(
        logps, logps.detach(), None, advantages, mask, rollout=None, context=context, distributions=distributions,
        beta=0.0, **options,
    )  # fmt: skip


@pytest.fixture
def toy():
    """Two completions of three tokens and of two, from five tokens of which the last is forbidden; float64."""
    generator = torch.Generator().manual_seed(0)
    logits, blind = (2 * torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    blind[..., 4] = -torch.inf
    ids = torch.tensor([[0, 3, 1], [2, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return logits, blind.log_softmax(dim=-1), ids, mask, torch.tensor([1.5, -0.5], dtype=torch.float64)


def test_papos_gradient_by_finite_differences(toy):
    """Of a loop over tokens and vocabulary."""
    logits, blind, ids, mask, advantages = toy

    def by_hand(logits):
        total, count = 0.0, int(mask.sum())
        for i in range(2):
            length = int(mask[i].sum())
            for t in range(length):
                allowed = [math.exp(logits[i][t][v]) for v in range(4)]
                shares = [value / sum(allowed) for value in allowed]
                total -= float(advantages[i]) * shares[ids[i][t]] / old[i][t] / length / 2
                for v in range(4):
                    share = math.exp(blind[i, t, v])
                    total -= 0.3 * share * math.log(share / shares[v]) / count
        return total

    forbidden = torch.zeros(5, dtype=torch.bool).index_fill(0, torch.tensor([4]), True)
    leaf = logits.clone().requires_grad_()
    distributions = leaf.masked_fill(forbidden, -torch.inf).log_softmax(dim=-1)  # (2, 3, 5)
    old = distributions.gather(2, ids[..., None])[..., 0].exp().tolist()
    loss, parts = loss_of(distributions, ids, mask, advantages, blind, gamma=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(by_hand(logits.tolist()), abs=1e-12)
    assert loss.item() == pytest.approx(parts["policy"] - 0.3 * parts["perception"]) and parts["perception"] > 0
    for i, t, v in np.ndindex(2, 3, 5):
        up, down = logits.clone(), logits.clone()
        up[i, t, v] += 1e-5
        down[i, t, v] -= 1e-5
        slope = (by_hand(up.tolist()) - by_hand(down.tolist())) / 2e-5
        assert leaf.grad[i, t, v].item() == pytest.approx(slope, abs=1e-8)
        assert (slope != 0.0) == (bool(mask[i, t]) and v < 4)


def test_papos_published_estimate_by_hand(toy):
    """k3 with the ratio pi_mask / pi, at most 10, a mean over the tokens; where it is cut it has no gradient."""
    _, _, ids, mask, advantages = toy
    seeing = torch.tensor([[0.5, 0.2, 0.9], [0.01, 0.4, 0.7]], dtype=torch.float64)
    blind = torch.tensor([[0.1, 0.4, 0.9], [0.8, 0.1, 0.1]], dtype=torch.float64)
    leaf = seeing.log().requires_grad_()
    context = SimpleNamespace(cache={"masked 0.6 14": None}, logps=lambda rollout, prompts: blind.log())
    options = dict(rollout=None, context=context, beta=0.0)
    loss, parts = papo_loss(leaf, leaf.detach(), None, advantages, mask, gamma=0.5, exact=False, **options)
    k3 = [b / s - math.log(b / s) - 1 for s, b in ((0.5, 0.1), (0.2, 0.4), (0.9, 0.9))]
    k3 += [10.0, 0.1 / 0.4 - math.log(0.1 / 0.4) - 1]  # 80 - log 80 - 1 is cut
    assert parts["perception"] == pytest.approx(sum(k3) / 5)
    plain, _ = grpo_loss(leaf, leaf.detach(), None, advantages, mask, beta=0.0)
    (difference,) = torch.autograd.grad(plain - loss, leaf)
    expected = [[1 - 0.1 / 0.5, 1 - 2.0, 0.0], [0.0, 1 - 0.1 / 0.4, 0.0]]
    assert torch.allclose(difference, 0.5 * torch.tensor(expected, dtype=torch.float64) / 5)


def test_papos_estimate_has_the_exact_gradient_on_average(toy):
    """Over tokens that the policy samples, where nothing is cut."""
    logits, blind, *_ = toy
    leaf = (0.2 * logits[0, :1, :4]).requires_grad_()  # (1, 4)
    seeing, other = leaf.log_softmax(dim=-1), (0.2 * blind[0, :1, :4]).log_softmax(dim=-1)
    assert perception(seeing.expand(4, 4), other.expand(4, 4), exact=False).max() < 10
    (exact,) = torch.autograd.grad(perception(seeing[:, None], other[:, None]).sum(), leaf, retain_graph=True)
    k3 = [
        torch.autograd.grad(perception(seeing, other, exact=False)[0, v], leaf, retain_graph=True)[0] for v in range(4)
    ]
    assert torch.allclose(sum(p * g for p, g in zip(seeing[0].exp(), k3, strict=True)), exact)


@pytest.mark.parametrize(("exact", "whole"), [(True, 4), (False, 0)])
def test_papo_computes_whole_distributions_only_where_they_are_needed(tiny_policy, shots, monkeypatch, exact, whole):
    """Two in a step: those of the loss, and those of the masked images."""
    calls, original = [], training.score_distributions

    def counting(policy, prompts, rollout, **options):
        calls.append(len(rollout))
        return original(policy, prompts, rollout, **options)

    monkeypatch.setattr(training, "score_distributions", counting)
    settings = replace(SETTINGS, steps=2, coefficients={"exact": exact})
    records, _ = take_steps(tiny_policy, find_recipe("papo"), shots, settings)
    assert calls == [8] * whole
    assert all(record["metrics"]["perception"] > 0 for record in records)


# ---------------------------------------------------------------------------------------------------------------- VPPO


def test_vppos_factors_average_1():
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors = row_factors(scores, shrink=0.3)
    assert factors.mean().item() == pytest.approx(1.0) and factors.min().item() == pytest.approx(0.7)
    published = (scores - scores.min()) / (scores.max() - scores.min())
    highest = 0.7 + 0.3 / published.mean()
    assert torch.allclose(factors, 0.7 + published * (highest - 0.7))
    assert torch.equal(row_factors(torch.full((3,), 0.2)), torch.ones(3)), "nothing to tell them apart by"


@pytest.mark.parametrize(("drop", "share"), [(0.6, 0.4), (0.7, 0.3), (0.9, 0.1), (0.0, 1.0)])
def test_vppos_filter_keeps_the_largest_rounded_up(drop, share):
    mask = torch.arange(40) < torch.arange(1, 41)[:, None]
    values = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    kept = most_dependent(values, mask, drop)
    assert kept.sum(dim=1).tolist() == [math.ceil(round(share * length, 6)) for length in range(1, 41)]
    assert not kept[~mask].any()
    for row in range(40):
        left_out = values[row][mask[row] & ~kept[row]]
        assert not len(left_out) or values[row][kept[row]].min() >= left_out.max()


def test_vppos_advantages_by_hand(monkeypatch):
    """Two groups of two, of which the second has lost a row: mean dependencies 1, 3 and 2, factors 0.9, 1.1 and 1."""
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    tokens = torch.tensor([[0.0, 2.0, 1.0], [4.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
    rollout = SimpleNamespace(mask=mask, groups=torch.tensor([0, 0, 1]))
    context = SimpleNamespace(rollout=rollout)
    monkeypatch.setattr(vppo, "dependency", lambda *arguments: tokens)
    rewards = torch.tensor([[1.0, 0.0], [1.0, torch.nan]])
    weighted = vppo_advantages(rewards, context=context, scale="none")
    assert group_advantages(rewards, scale="none").tolist() == [[0.5, -0.5], [0.0, 0.0]]
    expected = [[[0.0, 0.45, 0.45], [-0.55, 0.0, 0.0]], [[0.0] * 3] * 2]  # ceil(1.2) = 2 tokens, and ceil(0.8) = 1
    assert torch.allclose(weighted, torch.tensor(expected))
    only_rows = vppo_advantages(rewards, context=context, scale="none", drop=0.0)
    assert torch.allclose(only_rows[0], torch.tensor([[0.45, 0.45, 0.45], [-0.55, -0.55, 0.0]]))
    only_tokens = vppo_advantages(rewards, context=context, scale="none", shrink=0.0)
    assert torch.allclose(only_tokens[0], torch.tensor([[0.0, 0.5, 0.5], [-0.5, 0.0, 0.0]]))
    for coefficients in ({"shrink": 1.1}, {"drop": 1.0}, {"drop": -0.1}):
        with pytest.raises(ValueError, match="shares from 0 to 1"):
            vppo_advantages(rewards, context=context, **coefficients)
    leaf = torch.full((2, 3), -1.0, requires_grad=True)
    grpo_loss(leaf, leaf.detach(), None, weighted[0], mask[:2], beta=0.0)[0].backward()
    assert torch.allclose(leaf.grad, torch.tensor([[0.0, -0.45 / 3, -0.45 / 3], [0.55 / 2, 0.0, 0.0]]) / 2)


def test_dependency_is_the_divergence_between_with_and_without_the_image(tiny_policy, tiny_examples):
    """Against torch's own, by token; the published estimate; and nothing where nothing is masked."""
    context = make_context(tiny_policy, tiny_examples, LABELS, None, SETTINGS)
    rollout = context.rollout = sample_groups(tiny_policy, context.prompts, 2, 5, seed=0)
    exact, k3 = (dependency(rollout, context, exact, 0.5, 14) for exact in (True, False))
    with torch.no_grad():
        p = context.distributions(rollout).exp()
        q = context.distributions(rollout, masked_prompts(context, 0.5, 14)).exp()
    for i, t in rollout.mask.nonzero().tolist():
        allowed = p[i, t] > 0
        pair = [torch.distributions.Categorical(probs[i, t, allowed]) for probs in (p, q)]
        assert exact[i, t].item() == pytest.approx(torch.distributions.kl_divergence(*pair).item(), abs=1e-5)
        ratio = (q / p)[i, t, rollout.completion_ids[i, t]].item()
        assert k3[i, t].item() == pytest.approx(min(10.0, ratio - math.log(ratio) - 1), rel=1e-3, abs=1e-5)
    assert exact.max() > 0.01 and not exact[~rollout.mask].any() and not k3[~rollout.mask].any()
    for exact in (True, False):
        assert dependency(rollout, context, exact, 0.0, 14).max() < 1e-5


@pytest.mark.parametrize(("changes", "clean", "learning"), [
    ({}, 0, 2), ({"micro_batch": 4}, 4, 4), ({"coefficients": {"exact": False}}, 0, 0),
])  # fmt: skip
def test_vppo_and_the_loss_share_the_pass_on_the_clean_images(
    tiny_policy, shots, monkeypatch, changes, clean, learning
):
    """Whole distributions of clean images: without and with a gradient. Two steps; in the third case, none."""
    passes, original = [], training.score_distributions

    def counting(policy, prompts, rollout, **options):
        result = original(policy, prompts, rollout, **options)
        if not any("masked" in name and view is prompts for name, view in contexts[-1].cache.items()):
            passes.append(result.requires_grad)
        return result

    contexts, next_context = [], training.next_context
    monkeypatch.setattr(training, "next_context", lambda *a: contexts.append(next_context(*a)) or contexts[-1])
    monkeypatch.setattr(training, "score_distributions", counting)
    take_steps(tiny_policy, find_recipe("vppo"), shots, replace(SETTINGS, steps=2, **changes))
    assert (passes.count(False), passes.count(True)) == (clean, 0 if clean else learning)


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"scoring": "plain"}], ids=str)
@pytest.mark.parametrize("rank", [4, 0])
def test_a_pass_made_ahead_is_the_one_that_the_loss_would_have_made(tiny_checkpoint, shots, monkeypatch, changes, rank):
    """Bit for bit, with the reference pass between them: an adapter that is switched off, or weights that are replaced
    for a while."""

    def looks_ahead(rewards, context, **settings):
        assert not context.distributions_ahead().requires_grad
        return group_advantages(rewards, **settings)

    def loss(logps, old_logps, ref_logps, advantages, mask, distributions, **settings):
        assert distributions.requires_grad
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, **settings)

    passes, original = [], training.score_distributions
    monkeypatch.setattr(training, "score_distributions", lambda *a, **o: passes.append(1) or original(*a, **o))
    settings, runs = replace(SETTINGS, steps=2, **changes), []
    for advantages in (looks_ahead, group_advantages):
        policy = load_policy(tiny_checkpoint, lora_rank=rank, device="cpu", check=False)
        recipe = Recipe("", "", "", steps={"advantages": advantages, "loss": loss})
        runs.append(take_steps(policy, recipe, shots, settings))
    assert same(*runs) and runs[0][0][0]["grad_norm"] > 0
    assert len(passes) == 4, "one in each step"


def test_a_pass_made_ahead_of_a_selection_is_not_used(tiny_policy, shots):
    """It had other rows."""

    def half(rollout, context):
        context.distributions_ahead()
        return rollout.rows(range(0, len(rollout), 2))

    def asks_too_early(rewards, context, **settings):
        assert context.distributions_ahead().shape[0] == 8
        return group_advantages(rewards, **settings)

    for select, advantages in ((half, group_advantages), (training.keep_all, asks_too_early)):
        record = next(training.train(tiny_policy, shots, SETTINGS, rewards=[even_ids], select=select,
                                     advantages=advantages))  # fmt: skip
        assert record.rows == (4 if select is half else 8) and record.loss is not None


# -------------------------------------------------------------------------------------------------------- NoisyRollout


def test_the_annealing_is_the_published_one():
    """At the published constants: step t of 60, the middle at 40, a steepness of 30."""
    for t in range(61):
        published = int(500 * (1 - 1 / (1 + math.exp(-30 * (t / 60 - 40 / 60)))))
        assert annealed(500, t / 60) == pytest.approx(published, abs=1), t
    assert [annealed(500, t / 60) for t in (0, 30, 50, 60)] == [499, 496, 3, 0]
    assert annealed(0, 0.0) == 0


@pytest.mark.parametrize(("group", "noisy_rows"), [(4, 2), (5, 2), (2, 1)])
def test_half_of_each_group_answers_the_noisy_image(tiny_policy, tiny_examples, monkeypatch, group, noisy_rows):
    """What was sampled are the completions of two views; scored under its own view a row has the log-probabilities
    with which it was sampled."""
    context = make_context(tiny_policy, tiny_examples[:3], LABELS, None, SETTINGS)
    calls = []

    def spy(policy, prompts, group_size, **options):
        calls.append((prompts, sample_groups(policy, prompts, group_size, **options)))
        return calls[-1][1]

    monkeypatch.setattr(noisy_rollout, "sample_groups", spy)
    options = dict(max_new_tokens=6, temperature=1.0, decoding="auto", seed=3)
    rollout = noisy_sample(tiny_policy, context.prompts, group_size=group, context=context, **options)
    ((both, raw),) = calls
    clean = [origin == "sampled" for origin in rollout.origin]
    assert rollout.groups.tolist() == sorted([*range(3)] * group) and rollout.group_size == group
    assert clean == ([True] * (group - noisy_rows) + [False] * noisy_rows) * 3
    assert rollout.sampled.all() and rollout.fixed_old_logps()[rollout.mask].isnan().all()
    assert torch.equal(rollout.logps.isnan(), rollout.mask & ~torch.tensor(clean)[:, None])
    with torch.no_grad():
        assert torch.allclose(score_completions(tiny_policy, both, raw), raw.logps, atol=1e-4)
        as_clean = score_completions(tiny_policy, context.prompts, rollout)
    by_text = {(int(group), tuple(ids)): values for group, ids, values in zip(
        raw.groups, raw.completion_ids.tolist(), raw.logps, strict=True)}  # fmt: skip
    gaps = []
    for row in range(len(rollout)):
        source = int(rollout.groups[row]) + (0 if clean[row] else 3)
        sampled = by_text[source, tuple(rollout.completion_ids[row].tolist())]
        gaps.append((sampled - as_clean[row]).abs().max().item())
    assert max(gap for gap, is_clean in zip(gaps, clean, strict=True) if is_clean) < 1e-4
    assert min(gap for gap, is_clean in zip(gaps, clean, strict=True) if not is_clean) > 1e-4
    for clean_image, noisy_image in zip(both.images[:3], both.images[3:], strict=True):
        assert np.abs(np.asarray(clean_image, float) - np.asarray(noisy_image, float)).mean() > 20


def test_noisy_rows_are_learnt_under_the_clean_image(tiny_policy, shots, monkeypatch):
    """Every scoring pass has the prompts of the step; the first ratio is 1, and the gap is that of clean rows."""
    prompts, original = [], training.score_completions

    def spy(policy, asked, rollout, **options):
        prompts.append(asked)
        return original(policy, asked, rollout, **options)

    contexts, next_context = [], training.next_context
    monkeypatch.setattr(training, "next_context", lambda *a: contexts.append(next_context(*a)) or contexts[-1])
    monkeypatch.setattr(training, "score_completions", spy)
    records, _ = take_steps(tiny_policy, find_recipe("noisy-rollout"), shots, replace(SETTINGS, log_rows=8))
    assert all(asked is contexts[i // 2].prompts for i, asked in enumerate(prompts)) and len(prompts) == 6
    for record in records[:2]:
        origins = [sample["origin"] for sample in record["samples"]]
        assert origins == ["sampled", "sampled", "sampled, noisy image", "sampled, noisy image"] * 2
    assert [record["rows"] for record in records] == [8] * 3
    assert all(record["metrics"]["ratio"] == pytest.approx(1.0, abs=1e-6) for record in records)
    assert all(record["sampling_gap"] < 1e-4 for record in records)


def test_without_noise_the_group_is_a_plain_one(tiny_policy, tiny_examples):
    """Also where the schedule has come to its end."""
    context = make_context(tiny_policy, tiny_examples, LABELS, None, SETTINGS)
    options = dict(max_new_tokens=6, temperature=1.0, decoding="auto", seed=3)
    plain = sample_groups(tiny_policy, context.prompts, 4, **options)
    for progress, strength in ((0.0, 0.0), (1.0, 500.0)):
        context.progress = progress
        rollout = noisy_sample(
            tiny_policy, context.prompts, group_size=4, context=context, strength=strength, **options
        )
        assert rollout.texts == plain.texts and torch.equal(rollout.logps, plain.logps)
    context.progress = 0.0
    with pytest.raises(ValueError, match="from 0 to 999"):
        noisy_sample(tiny_policy, context.prompts, group_size=4, context=context, strength=2000.0, **options)
