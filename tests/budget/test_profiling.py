"""The profile of a step: it counts what is run, and the policy is unchanged afterwards."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from favor_lab.activities.fewshot import FewShot
from favor_lab.budget.flops import attention_flops, backward_flops, head_flops, linear_flops
from favor_lab.budget.profiling import Meter, endless, profile_step
from favor_lab.budget.shapes import shape_of
from favor_lab.grpo.sampling import sample_groups
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.show.profile import plot_profile
from favor_lab.vlm.processing import encode_prompts

SETTINGS = GRPOSettings(prompts_per_step=4, group_size=3, max_new_tokens=7)
PROMPTS = (92, 96, 94, 104)  # tokens of the four prompts, 4, 8, 6 and 16 of them for the image
LONGEST, ASKED, WRITTEN, PREDICTED = 104, sum(PROMPTS), 12 * 6, 12 * 7  # the last token of a row is not run


@pytest.fixture
def shots(tiny_examples):
    return FewShot(tiny_examples, [], [], [example.label for example in tiny_examples])


@pytest.fixture(autouse=True)
def known_rates(monkeypatch):
    """Measuring the machine takes two seconds: `test_machine` does it once."""
    rates = {"flops_per_second": 1e11, "bytes_per_second": 4e10}
    monkeypatch.setattr("favor_lab.budget.profiling.machine_rates", lambda device, dtype: rates)


def test_phases_and_what_is_left_of_the_policy(tiny_policy, shots):
    before = {name: weight.clone() for name, weight in tiny_policy.model.named_parameters()}
    turns = []
    profile = profile_step(tiny_policy, shots, SETTINGS, repeats=2, progress=lambda x: turns.append(len(x)) or x)
    assert turns == [4]
    assert list(profile.phases) == ["encode", "prefill", "decode", "score", "reference", "backward", "optimiser"]
    assert all(phase.bound > 0 and phase.seconds >= 0 for phase in profile.phases.values())
    assert profile.seconds == sum(phase.seconds for name, phase in profile.phases.items() if name != "encode") > 0
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_policy.model.named_parameters())
    assert all(weight.grad is None for _, weight in tiny_policy.trainable_parameters())


@pytest.mark.parametrize("decoding", ["static", "plain"])
def test_tokens_are_those_that_were_run(tiny_policy, shots, decoding):
    """Sampling pads the prompts; scoring runs them once more, and the reference once."""
    settings = replace(SETTINGS, decoding=decoding)
    phases = profile_step(tiny_policy, shots, settings, repeats=1, fixed_length=True).phases
    assert {name: phase.tokens for name, phase in phases.items()} == {
        "encode": 4 + 8 + 6 + 16, "prefill": 4 * LONGEST, "decode": WRITTEN, "score": ASKED + WRITTEN,
        "reference": ASKED + WRITTEN, "backward": ASKED + WRITTEN, "optimiser": 0,
    }  # fmt: skip
    assert phases["score"].ideal_tokens == WRITTEN and phases["prefill"].ideal_tokens == pytest.approx(ASKED, rel=0.02)


def test_flops_are_those_of_the_formulas(tiny_policy, shots):
    """The counted step is the formulas of `costs`, with attention as rectangles, every prompt run again to score, and
    the adapter merged: once per pass, in place, which torch's counter leaves out."""
    phases = profile_step(tiny_policy, shots, SETTINGS, repeats=1, fixed_length=True).phases
    shape, tokens, pairs = shape_of(tiny_policy), ASKED + WRITTEN, 4 * LONGEST**2 + WRITTEN * (LONGEST + 6)
    head = head_flops(shape, PREDICTED)
    scored = linear_flops(shape, tokens, lora=False) + attention_flops(shape, pairs) + head
    assert phases["reference"].flops == pytest.approx(scored, rel=1e-3)  # versions of torch count a little differently
    assert phases["score"].flops == phases["reference"].flops
    assert phases["backward"].flops == pytest.approx(backward_flops(shape, tokens, pairs, PREDICTED), rel=0.02)
    prompts = linear_flops(shape, 4 * LONGEST, lora=False) + attention_flops(shape, 4 * LONGEST**2)
    assert phases["prefill"].flops == pytest.approx(prompts, rel=0.02)  # and merging the adapter
    decoded = linear_flops(shape, WRITTEN, lora=False) + attention_flops(shape, 12 * (6 * LONGEST + 21)) + head
    assert phases["decode"].flops == pytest.approx(decoded, rel=0.02)


def test_table_and_dictionary(tiny_policy, shots):
    small = GRPOSettings(prompts_per_step=2, group_size=2, max_new_tokens=4, beta=0.0)
    profile = profile_step(tiny_policy, shots, small, repeats=1)
    assert "reference" not in profile.phases
    lines = profile.table().splitlines()
    assert "B 2, G 2" in lines[0] and [line.split()[0] for line in lines[3:9]] == list(profile.phases)
    assert "times the bound" in lines[9] and "GFLOP/s" in lines[-1]
    assert max(map(len, lines[1:])) <= 120, "the first line names the policy, which may be a long path"
    saved = json.loads(json.dumps(profile.to_dict()))
    assert saved["phases"]["score"] == asdict(profile.phases["score"]) and saved["seconds"] == profile.seconds


@pytest.mark.slow
def test_checkpointing_and_micro_batches_cost_what_they_must(tiny_policy, shots):
    settings = replace(SETTINGS, gradient_checkpointing=True)
    plain = profile_step(tiny_policy, shots, SETTINGS, repeats=1, fixed_length=True).phases
    again = profile_step(tiny_policy, shots, settings, repeats=1, fixed_length=True).phases
    head = head_flops(shape_of(tiny_policy), PREDICTED)  # one chunk of logits is not recomputed
    assert again["backward"].flops == pytest.approx(plain["backward"].flops + plain["score"].flops - head, rel=0.02)
    split = replace(SETTINGS, micro_batch=1)
    single = profile_step(tiny_policy, shots, split, repeats=1, fixed_length=True).phases
    assert single["score"].tokens == 3 * ASKED + WRITTEN  # a prompt once for each of its rows
    assert single["score"].ideal_flops == plain["score"].ideal_flops


def test_no_repeats(tiny_policy, shots):
    with pytest.raises(ValueError, match="repeats is 0"):
        profile_step(tiny_policy, shots, SETTINGS, repeats=0)


def test_picture(tiny_policy, shots, tmp_path):
    """One bar for the measurement and one for the bound of every phase except `encode`, each with its number."""
    pytest.importorskip("matplotlib")
    profile = profile_step(tiny_policy, shots, SETTINGS, repeats=1)
    figure = plot_profile(profile, "a step")
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [name for name in profile.phases if name != "encode"]
    widths = [bar.get_width() / 1e3 for bar in axes.patches]
    phases = [profile.phases[name] for name in names]
    assert widths == pytest.approx([phase.seconds for phase in phases] + [phase.bound for phase in phases])
    assert len(axes.texts) == len(names) and all("ms" in text.get_text() for text in axes.texts)
    saved = json.loads(json.dumps(profile.to_dict()))
    assert plot_profile(saved).axes[0].patches[0].get_width() == axes.patches[0].get_width()
    figure.savefig(tmp_path / "step.png")


def test_endless_completions_and_back(tiny_policy, tiny_examples):
    ends, forbidden = tiny_policy.end_token_ids, tiny_policy.forbidden
    prompts = encode_prompts(tiny_policy, tiny_examples, None)
    with pytest.raises(KeyError), endless(tiny_policy):
        assert sample_groups(tiny_policy, prompts, 16, 12, seed=0).lengths.unique().tolist() == [12]
        raise KeyError
    assert tiny_policy.end_token_ids is ends and tiny_policy.forbidden is forbidden
    with endless(tiny_policy, wanted=False):
        assert tiny_policy.end_token_ids is ends


def test_the_meter_counts_attention_on_the_cpu():
    q = torch.randn(2, 4, 8, 16, requires_grad=True)
    meter = Meter(torch.device("cpu"), layers=1)
    with meter("forward"):
        out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    with meter("backward"):
        out.sum().backward()
    assert meter.values["forward"] == 2 * 4 * 4 * 8 * 8 * 16
    assert meter.values["backward"] == 2.5 * meter.values["forward"]
