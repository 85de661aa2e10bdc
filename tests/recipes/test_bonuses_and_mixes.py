"""RLOO, VERL, DUPL and AMFT's mix: the formulas by hand, what they promise, and what a resumed run knows."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from favor_lab import FewShot, GRPOSettings, grpo_loss, sample_groups
from favor_lab.grpo import training
from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.sampling import encode_completions
from favor_lab.recipes import Recipe, dupl, find_recipe, verl, views
from favor_lab.recipes.amft import amft_loss, label_loss, label_rows, moved, steer
from favor_lab.recipes.dupl import dupl_advantages, one_view_sample, uncertainties
from favor_lab.recipes.rloo import rloo_advantages
from favor_lab.recipes.verl import auxiliary, effective_rank, growth, keep_average, rank_measures, verl_advantages
from favor_lab.recipes.views import by_group, capped_bonus, compared, grainy
from recipe_runs import same, take_steps
from tiny import LABELS, make_context, make_policy

SETTINGS = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)
OFF = {
    "amft": {"mu": 0.0},
    "dupl": {"sigma": 0.0, "alpha_output": 0.0, "alpha_perception": 0.0},
    "verl": {"bonus": 0.0},
}


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


# ------------------------------------------------------------------------------------------------ what they all promise


@pytest.mark.parametrize("name", OFF)
def test_with_its_coefficients_at_0_it_is_plain_grpo_and_costs_nothing(
    tiny_checkpoint, shots, tmp_path, monkeypatch, name
):
    """Bit for bit, over three steps with a resume in between; and with them it is something else."""
    recipe, plain = find_recipe(name), find_recipe("")
    assert set(OFF[name]) == set(recipe.coefficients)
    expected = take_steps(make_policy(tiny_checkpoint), plain, shots, SETTINGS, 2, tmp_path / "plain")
    for place, function in ((training, "score_distributions"), (views, "encode_images"), (verl, "completion_states")):
        monkeypatch.setattr(place, function, lambda *arguments, **options: pytest.fail("it costs something"))
    settings = replace(SETTINGS, coefficients=OFF[name])
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, 2, tmp_path / "off"), expected)
    monkeypatch.undo()
    assert not same(take_steps(make_policy(tiny_checkpoint), recipe, shots, SETTINGS), expected)


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_is_the_same(tiny_checkpoint, shots, tmp_path, name, stop):
    """Also between the two updates of a rollout, and in what the recipe remembers of earlier ones."""
    settings, recipe = replace(SETTINGS, updates_per_rollout=2), find_recipe(name)
    unbroken = take_steps(make_policy(tiny_checkpoint), recipe, shots, settings)
    assert same(take_steps(make_policy(tiny_checkpoint), recipe, shots, settings, stop, tmp_path), unbroken)
    if name == "amft":
        shares = [record["metrics"]["label_share"] for record in unbroken[0]]
        assert shares[0] == shares[1] == pytest.approx(0.8) != shares[2], "the first step sets the target"


@pytest.mark.parametrize("name", OFF)
def test_the_split_into_micro_batches_changes_nothing(tiny_checkpoint, shots, name):
    recipe = find_recipe(name)
    whole, parts = (
        take_steps(make_policy(tiny_checkpoint), recipe, shots, replace(SETTINGS, steps=2, micro_batch=size))[0][1]
        for size in (0, 3)
    )
    for number in ("loss", "grad_norm"):
        assert parts[number] == pytest.approx(whole[number], rel=1e-3)


# ---------------------------------------------------------------------------------------------------------------- RLOO


@pytest.mark.parametrize("size", [2, 4, 7])
def test_rloo_is_dr_grpo_times_g_over_g_minus_1(size):
    """And each reward less the mean of the others, by a loop."""
    rewards = torch.rand(5, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    advantages = rloo_advantages(rewards, scale="none")
    assert torch.allclose(advantages, size / (size - 1) * group_advantages(rewards, scale="none"))
    for group, values in zip(rewards.tolist(), advantages.tolist(), strict=True):
        for i, reward in enumerate(group):
            others = group[:i] + group[i + 1 :]
            assert values[i] == pytest.approx(reward - sum(others) / len(others))
    assert not rloo_advantages(torch.full((2, size), 0.3), scale="none").any()


def test_a_step_of_rloo_has_dr_grpos_gradient_times_the_constant(tiny_checkpoint, shots):
    settings = replace(SETTINGS, steps=1, beta=0.0)
    rloo, dr_grpo = (
        take_steps(make_policy(tiny_checkpoint), find_recipe(name), shots, settings)[0][0]
        for name in ("rloo", "dr-grpo")
    )
    assert rloo["grad_norm"] == pytest.approx(4 / 3 * dr_grpo["grad_norm"], rel=1e-5) and rloo["grad_norm"] > 0
    assert rloo["reward"] == dr_grpo["reward"]


def test_clip_higher_keeps_a_gradient_that_the_usual_clip_removes():
    """At a ratio of 1.25, and a positive advantage."""
    changes = find_recipe("clip-higher").settings
    assert changes == {"clip_high": 0.28, "updates_per_rollout": 4}
    mask = torch.ones(1, 1, dtype=torch.bool)
    for clip_high, slope in ((None, 0.0), (changes["clip_high"], -1.25)):
        leaf = torch.tensor([[math.log(1.25)]], requires_grad=True)
        grpo_loss(leaf, torch.zeros(1, 1), None, torch.ones(1), mask, beta=0.0, clip_high=clip_high)[0].backward()
        assert leaf.grad.item() == pytest.approx(slope)


# --------------------------------------------------------------------------------------------------- the capped bonus


def test_a_capped_bonus_turns_no_sign_and_revives_no_group():
    generator = torch.Generator().manual_seed(0)
    advantages, bonus = (torch.randn(200, generator=generator) for _ in range(2))
    advantages[:50] = 0.0
    for kappa in (1.0, 2.0, 5.0):
        added = capped_bonus(advantages, 10 * bonus, kappa)
        assert not added[:50].any() and not added[bonus < 0].any() and added.max() > 0
        assert (added <= advantages.abs() / kappa + 1e-6).all()
        assert ((advantages + added) * advantages >= -1e-6).all()
    for kappa in (0.5, math.nan):
        with pytest.raises(ValueError, match="kappa is .*at least 1"):
            capped_bonus(advantages, bonus, kappa)


# ---------------------------------------------------------------------------------------------------------------- VERL


def test_the_effective_rank_by_hand():
    """Two centred directions with singular values 3 and 1: exp of the entropy of (3/4, 1/4)."""
    states = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) / math.sqrt(2)
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(states) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(states + 7.0) == pytest.approx(expected, rel=1e-6), "they are centred"
    assert effective_rank(5 * states) == pytest.approx(expected, rel=1e-6), "their length does not count"
    assert effective_rank(states[:1]) == effective_rank(torch.ones(4, 3)) == 0.0
    noise = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    assert 7 < effective_rank(noise) <= 8.001  # nine points span eight directions


def test_velocity_and_acceleration_by_hand():
    assert growth([2.0]) == [2.0, 0.0, 0.0]
    assert growth([2.0, 3.0]) == [3.0, 1.0, 0.0]
    assert growth([2.0, 3.0, 4.0, 4.0]) == pytest.approx([4.0, (1 + 1.5 + 1) / 3, (0.5 - 0.5) / 2])


def test_the_auxiliary_signal_by_hand():
    """An acceleration above its average weighs the rank, one below it the velocity."""
    average = [2.0, -0.5, 0.25]

    def by_hand(measures):
        rank, velocity, acceleration = (
            max(-5.0, min(5.0, (m - a) / abs(a))) for m, a in zip(measures, average, strict=True)
        )
        explore = 1 / (1 + math.exp(-2 * acceleration))
        return explore * math.tanh(rank) + (1 - explore) * math.tanh(velocity)

    rows = [[2.0, -0.5, 0.25], [3.0, 0.1, 0.2], [1.0, -4.0, 90.0], [50.0, 0.0, -90.0]]
    values = auxiliary(torch.tensor(rows), torch.tensor(average))
    assert values.tolist() == pytest.approx([by_hand(row) for row in rows], abs=1e-6) and values[0] == 0


def test_the_measures_are_of_each_rows_own_states(tiny_policy, tiny_examples):
    """Prefixes of two tokens more each; the same whatever the micro-batch."""
    context = make_context(tiny_policy, tiny_examples[:2], LABELS, None, SETTINGS)
    rollout = context.rollout = sample_groups(tiny_policy, context.prompts, 2, 6, seed=0)
    measures = rank_measures(rollout, context, 2)
    for n in range(len(rollout)):
        row = rollout.rows([n])
        with torch.no_grad():
            states = verl.completion_states(tiny_policy, context.prompts, row, "plain", False)
        ends = [end for end in (2, 4) if end < len(states)] + [len(states)]
        expected = growth([effective_rank(states[:end]) for end in ends])
        assert measures[n].tolist() == pytest.approx(expected, abs=1e-3)
    context.settings = replace(SETTINGS, micro_batch=3)
    assert torch.allclose(rank_measures(rollout, context, 2), measures, atol=1e-3)


def test_verls_advantages_by_hand(monkeypatch):
    """No bonus in the first rollout; then capped at half of the advantage, for the right and for the wrong; a flat
    group gets none."""
    measures = torch.tensor([[4.0, 1.0, 1.0], [4.0, 1.0, 1.0], [1.0, 1.0, 1.0], [9.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    monkeypatch.setattr(verl, "rank_measures", lambda *arguments: measures)
    rollout = SimpleNamespace(groups=torch.tensor([0, 0, 0, 1, 1]))
    context = SimpleNamespace(rollout=rollout, state={}, cache={})
    rewards = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, torch.nan]])
    plain = group_advantages(rewards, scale="none")
    assert torch.equal(verl_advantages(rewards, context=context, scale="none"), plain)
    keep_average(context=context)
    assert context.state["verl"] == pytest.approx(measures.mean(dim=0).tolist())
    context.state["verl"] = [2.0, 1.0, 1.0]
    raised = verl_advantages(rewards, context=context, scale="none")
    assert raised[0].tolist() == pytest.approx([0.5 + 0.25, -0.5 + 0.25, 0.0])
    assert not raised[1].any()
    small = verl_advantages(rewards, context=context, scale="none", bonus=0.1)
    assert small[0, 0].item() == pytest.approx(0.5 + 0.1 * 0.5 * math.tanh(1.0))
    keep_average(context=context, pace=0.3)
    assert context.state["verl"][0] == pytest.approx(0.7 * 2.0 + 0.3 * 5.4)
    context.cache.clear()
    keep_average(context=context)  # the second update of a rollout
    assert context.state["verl"][0] == pytest.approx(0.7 * 2.0 + 0.3 * 5.4)
    with pytest.raises(ValueError, match="window is 0, but must be at least 1"):
        verl_advantages(rewards, context=context, window=0)
    with pytest.raises(ValueError, match="kappa is 0.5"):
        verl_advantages(rewards, context=context, kappa=0.5)


# ---------------------------------------------------------------------------------------------------------------- DUPL


def test_uncertainties_are_torchs_own():
    """The entropy, and the mean of both divergences; the fifth id is forbidden."""
    logits = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    logits[..., 4] = -torch.inf
    own, clean = logits.log_softmax(dim=-1)
    values = uncertainties(own, clean)
    p, q = (torch.distributions.Categorical(logits=one[..., :4]) for one in (own, clean))
    kl = torch.distributions.kl_divergence
    assert torch.allclose(values[..., 0], p.entropy(), atol=1e-6)
    assert torch.allclose(values[..., 1], (kl(p, q) + kl(q, p)) / 2, atol=1e-6)
    assert torch.allclose(uncertainties(clean, own)[..., 1], values[..., 1], atol=1e-6), "it is symmetric"
    assert not uncertainties(own, None)[..., 1].any()


def test_dupls_advantages_by_hand(monkeypatch):
    """The noisy view has both bonuses, each capped at half of the advantage; the clean one has the entropy's alone."""
    tokens = torch.tensor([[[0.5, 0.1], [9.0, 9.0]], [[0.5, 0.1], [9.0, 9.0]], [[1.0, 1.0], [1.0, 1.0]]])  # (N, L, 2)
    asked = []
    monkeypatch.setattr(dupl, "compared", lambda measure, rollout, context, prompts: asked.append(prompts) or tokens)
    rollout = SimpleNamespace(groups=torch.tensor([0, 0, 1]))
    context = SimpleNamespace(rollout=rollout, cache={"clean": "the clean prompts"})
    rewards = torch.tensor([[1.0, 0.0], [1.0, torch.nan]])
    noisy = dupl_advantages(rewards, context=context, scale="none")
    assert noisy[0].flatten().tolist() == pytest.approx([0.5 + 0.2 + 0.1, 0.5 + 0.25 + 0.25, -0.5 + 0.2 + 0.1, 0.0])
    assert not noisy[1].any() and asked == ["the clean prompts"]
    context.cache.clear()
    tokens[..., 1] = 0.0
    clean = dupl_advantages(rewards, context=context, scale="none")
    assert clean[0].flatten().tolist() == pytest.approx([0.7, 0.75, -0.3, -0.25])
    assert dupl_advantages(rewards, context=context, alpha_output=0.0).shape == (2, 2), "no pass for nothing"
    assert asked == ["the clean prompts", None]
    for caps in ({"cap_output": 1.5}, {"cap_perception": 0.0}):
        with pytest.raises(ValueError, match="or signs turn"):
            dupl_advantages(rewards, context=context, **caps)


def test_the_view_is_drawn_with_the_probability_that_is_left():
    """1 - s / S: always at the beginning, never at the end."""
    prompts = SimpleNamespace()
    for progress, least, most in ((0.0, 400, 400), (0.75, 70, 130), (1.0, 0, 0)):
        context = SimpleNamespace(
            progress=progress, generator=torch.Generator().manual_seed(0), cache={}, prompts=prompts
        )
        count = 0
        for _ in range(400):
            views = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dupl, "changed_prompts", lambda context, change: "noisy")
                patch.setattr(dupl, "sample_groups", lambda policy, asked, size, views=views: views.append(asked))
                patch.setattr(dupl, "replace", lambda rollout, origin: rollout)
                patch.setattr(dupl, "len", lambda rollout: 1, raising=False)
                one_view_sample(None, prompts, group_size=2, context=context)
            count += views == ["noisy"]
        assert least <= count <= most, progress


def test_a_noisy_step_is_sampled_scored_and_learnt_under_the_noisy_view(tiny_policy, shots, monkeypatch):
    """The first step is noisy, the next ones may be; all updates of a rollout have its view, and its label stays."""
    seen, next_context = [], training.next_context
    monkeypatch.setattr(training, "next_context", lambda *a: seen.append(next_context(*a)) or seen[-1])
    settings = replace(SETTINGS, steps=2, updates_per_rollout=2, log_rows=8)
    records = take_steps(tiny_policy, find_recipe("dupl"), shots, settings)[0]
    first, second = seen
    clean = first.cache["clean"]
    assert clean is not first.prompts and first.prompts is second.prompts
    assert not torch.equal(clean.image_features[0], first.prompts.image_features[0])
    assert clean.labels == first.prompts.labels and clean.sources == first.prompts.sources
    assert {sample["origin"] for sample in records[0]["samples"]} == {"sampled, noisy image"}
    assert records[0]["sampling_gap"] < 1e-4, "scored under the view that was sampled from"
    assert records[0]["metrics"]["ratio"] == pytest.approx(1.0, abs=1e-6) and records[1]["update"] == 1


def test_grainy_images_have_the_noise_that_is_asked_for():
    from PIL import Image

    image = Image.new("RGB", (200, 200), (128, 128, 128))
    values = torch.tensor(list(grainy(image, 0.1, torch.Generator().manual_seed(0)).tobytes())) / 255
    assert values.std().item() == pytest.approx(0.1, abs=0.003) and values.mean().item() == pytest.approx(
        0.5, abs=0.005
    )
    assert grainy(image, 0.0, torch.Generator()).tobytes() == image.tobytes()
    with pytest.raises(ValueError, match="sigma is -1"):
        grainy(image, -1, torch.Generator())


def test_compared_gives_the_losses_own_distributions_and_those_of_another_view(tiny_policy, tiny_examples):
    context = make_context(tiny_policy, tiny_examples, LABELS, None, SETTINGS)
    rollout = context.rollout = sample_groups(tiny_policy, context.prompts, 2, 5, seed=0)
    other = context.encode([replace(e, image=e.image.transpose(0)) for e in tiny_examples])
    whole = compared(uncertainties, rollout, context, other)
    assert whole.shape == (*rollout.mask.shape, 2) and not whole[~rollout.mask].any() and whole[..., 1].max() > 0.01
    with torch.no_grad():
        expected = uncertainties(context.distributions(rollout), context.distributions(rollout, other))
    assert torch.allclose(whole, expected, atol=1e-4)
    context.settings, context.cache = replace(SETTINGS, micro_batch=3), {}
    assert torch.allclose(compared(uncertainties, rollout, context, other), whole, atol=1e-4)


def test_by_group_leaves_0_where_a_row_is_missing():
    assert by_group(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 4, 0])).tolist() == [[1.0, 3.0], [2.0, 0.0]]


# ---------------------------------------------------------------------------------------------------------------- AMFT


@pytest.fixture
def written(tiny_policy, tiny_examples):
    """A context of two prompts, with three written rows: the second prompt's reasoning is the first that has an
    answer."""
    texts = ["<answer>fishing</answer>", "<think>a</think>", "<think>two wheels</think><answer>fishing</answer>"]
    rollout = encode_completions(tiny_policy, texts, [0, 1, 1], origin="sampled")
    return make_context(tiny_policy, tiny_examples[:2], LABELS, rollout, SETTINGS)


def test_the_labels_stand_behind_the_groups_own_reasoning(written):
    rows, answers = label_rows(written.rollout, written)
    first, second = written.prompts.labels
    assert rows.texts == [
        f"<answer>{first}</answer>", f"<think>two wheels</think><answer>{second}</answer>",
    ]  # fmt: skip
    for n, label in enumerate((first, second)):
        ids = rows.completion_ids[n][answers[n]].tolist()
        text = written.policy.tokenizer.decode(ids)
        assert label in text and "think" not in text and answers[n].sum() < rows.mask[n].sum()


def test_the_mix_by_hand(written, tiny_policy):
    """(1 - mu) of GRPO's loss and mu of the labels' cross entropy; its gradient too."""
    rollout, context = written.rollout, written
    advantages = torch.tensor([1.0, -0.5, 0.5])
    rows, answers = label_rows(rollout, context)

    def gradient(value):
        weights = [weight for _, weight in tiny_policy.trainable_parameters()]
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights, allow_unused=True) if g is not None])

    logps = context.logps(rollout)
    plain, _ = grpo_loss(logps, logps.detach(), None, advantages, rollout.mask, beta=0.0)
    labels = -context.logps(rows)[answers].mean()
    loss, parts = amft_loss(
        logps, logps.detach(), None, advantages, rollout.mask, rollout=rollout, context=context, beta=0.0, mu=0.3
    )
    assert loss.item() == pytest.approx(0.7 * plain.item() + 0.3 * labels.item(), rel=1e-5)
    assert parts["label_loss"] == pytest.approx(labels.item(), rel=1e-5) and parts["label_share"] == pytest.approx(0.3)
    expected = 0.7 * gradient(plain) + 0.3 * gradient(labels)
    context.cache.clear()
    logps = context.logps(rollout)
    loss, _ = amft_loss(
        logps, logps.detach(), None, advantages, rollout.mask, rollout=rollout, context=context, beta=0.0, mu=0.3
    )
    assert torch.allclose(gradient(loss), expected, atol=1e-5) and expected.abs().max() > 1e-3


def test_the_labels_of_a_step_are_learnt_once_in_its_micro_batches(written):
    whole = label_loss(written.rollout, written).item()
    written.cache.clear()
    parts = [label_loss(written.rollout.rows(rows), written) for rows in ([0], [1], [2])]
    parts = [torch.as_tensor(part).detach().item() for part in parts]
    assert sum(parts) == pytest.approx(whole, rel=1e-5) and parts[2] == 0.0 and min(parts[:2]) > 0


def test_the_share_of_the_labels_follows_the_entropy():
    """Towards more labels where the policy is surer than at the beginning; between 0.05 and 0.95."""
    assert moved(0.5, 1.0, 0.4, rate=0.1) == pytest.approx(0.56) and moved(0.5, 1.0, 1.6, rate=0.1) == pytest.approx(
        0.44
    )
    assert moved(0.5, 0.0, 90.0, rate=0.1) == 0.05 and moved(0.5, 90.0, 0.0, rate=0.1) == 0.95
    context = SimpleNamespace(state={}, record=SimpleNamespace(entropy=2.0))
    steer(context=context)
    assert context.state["amft"] == {"mu": 0.8, "target": 2.0}
    context.record.entropy = 1.0
    steer(context=context, rate=0.1)
    assert context.state["amft"] == {"mu": pytest.approx(0.9), "target": 2.0}
    context.record.entropy = None  # nothing was selected
    steer(context=context, rate=0.1)
    assert context.state["amft"]["mu"] == pytest.approx(0.9)


def test_amft_learns_the_label_where_no_answer_is_ever_right(tiny_policy, shots):
    """What plain GRPO has no gradient for: every group is flat."""

    def nothing(completions, **columns):
        return [0.0] * len(completions)

    settings = replace(SETTINGS, steps=6, beta=0.0, prompts_per_step=4, max_new_tokens=4)
    for name, learns in (("", False), ("amft", True)):
        recipe: Recipe = find_recipe(name)
        recipe = replace(recipe, steps={**recipe.steps, "rewards": [nothing]})
        records = list(recipe.train(tiny_policy, shots, settings))
        assert (records[0].grad_norm > 0) == learns
    assert records[-1].metrics["label_loss"] < 0.8 * records[0].metrics["label_loss"]
