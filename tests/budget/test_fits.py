"""What fits on a card: the estimate against measured tensors, and presets that fit, in order, and run as printed."""

import dataclasses
import gc
import importlib
import itertools
import json
import shlex
import sys
import weakref
from pathlib import Path

import pytest
import torch

import hub as tiny_hub
from favor_lab import GRPOSettings, encode_prompts, fits, load_policy, presets, recommend, sample_groups
from favor_lab.activities.fewshot import FewShot
from favor_lab.budget import fits as module
from favor_lab.budget.cards import CARDS as SOLD
from favor_lab.budget.cards import GIB, card_of
from favor_lab.budget.doctor import Finding, largest_gpu_gb
from favor_lab.budget.fits import (
    ALLOCATOR_SHARE,
    CARDS,
    CONTEXT_BYTES,
    GIVEN_UP,
    MARGIN,
    PASS_TOKENS,
    PUBLISHED_SETTINGS,
    SCREEN_GB,
    changes,
    memory_savings,
)
from favor_lab.budget.shapes import shape_of
from favor_lab.cli import main, training
from favor_lab.vlm import prefix
from favor_lab.vlm.fast import decoding
from favor_lab.vlm.hub import configuration

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
RESULTS = Path(__file__).parents[2] / "data" / "results" / "benchmarks"
SMALL = {"micro_batch": 8, "gradient_checkpointing": True, "offload_tower": True}
PUBLISHED = {"quantize": None, "max_pixels": module.MAX_PIXELS} | {
    name: PUBLISHED_SETTINGS[name] for name in ("prompts_per_step", "group_size", "max_new_tokens")
}
B7 = "Qwen/Qwen2-VL-7B-Instruct"


def script(name):
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


# --------------------------------------------------------------------------------------- the estimate is what happens


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [{}, {"gradient_checkpointing": True, "micro_batch": 8}, {"group_size": 4, "length": 16}], ids=str
)
def test_the_estimate_is_within_15_percent_of_the_tensors_of_a_real_step(cell):
    peaks, common = script("peaks"), script("common")
    result = peaks.compare(common.parse(common.parser("", "pocket"), ["--images", "16"]), cell)
    assert list(result["error"]) == ["encode", "sample", "reference", "loss", "update"]
    assert all(abs(error) < 0.15 for error in result["error"].values()), peaks.describe(result)
    loss = result["measured_bytes"]["loss"] - result["weights_bytes"]
    assert abs(result["estimate_bytes"]["loss"] - result["measured_bytes"]["loss"]) < 0.2 * loss, (
        "on top of the weights too"
    )


def test_the_committed_measurements_are_within_15_percent():
    """Qwen2-VL-2B's shape in bfloat16 among them."""
    files = sorted(RESULTS.glob("peaks-*.json"))
    results = [json.loads(path.read_text()) for path in files]
    assert {result["arguments"]["policy"] for result in results} >= {"pocket", "2b"}
    for result in results:
        for cell in result["cells"]:
            for phase, measured in cell["measured_bytes"].items():
                assert abs(cell["estimate_bytes"][phase] / measured - 1) < 0.15, (cell["cell"], phase)


def test_caches_do_not_outlive_the_sampling(tiny_policy, tiny_examples):
    """A decoder in a reference cycle would keep gigabytes during the loss, until Python's garbage collector runs."""
    prompts, alive = encode_prompts(tiny_policy, tiny_examples, None), []
    start = decoding.start_decoding

    def watched(*args, **kwargs):
        alive.append(start(*args, **kwargs))
        alive[-1] = weakref.ref(decoder := alive[-1])
        return decoder

    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("favor_lab.grpo.sampling.start_decoding", watched)
            sample_groups(tiny_policy, prompts, 2, 4, seed=0)
        assert alive[0]() is None
    finally:
        gc.enable()


def test_the_entropy_that_is_only_reported_holds_no_logits(tiny_policy, tiny_examples, monkeypatch):
    """Its graph would keep two values per logit of every chunk during the backward pass."""
    from favor_lab.grpo import training

    monkeypatch.setattr(prefix, "CHUNK_LOGITS", 320 * 4)  # chunks of four positions
    graphs, scored, alive = [], training.score_completions, []

    def watched(*args, **kwargs):
        values = scored(*args, **kwargs)
        if kwargs.get("entropy"):
            logps, entropy = values
            graphs.append(weakref.ref(entropy))
            logps.register_hook(lambda gradient: alive.append(graphs[-1]() is not None))
        return values

    monkeypatch.setattr(training, "score_completions", watched)
    settings = GRPOSettings(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=6)

    def even(completion_ids, **columns):
        return [float(ids[0] % 2) for ids in completion_ids]

    shots = FewShot(tiny_examples, [], [], ["reading"])
    list(training.train(tiny_policy, shots, dataclasses.replace(settings, open_vocabulary=True), rewards=[even]))
    assert alive == [False]


# ------------------------------------------------------------------------------------------------------- the arithmetic


def test_the_2b_model_by_hand():
    """Two bytes per weight; 28 layers x 2 KV heads x 128 x 2 (keys, values) x 2 bytes = 28 672 bytes per token."""
    fit = fits(text_tokens=100, max_pixels=448 * 448, **SMALL)
    assert fit.fixed["language"] == 2 * 1_543_714_304 and fit.fixed["tower"] == 2 * 665_271_296
    assert fit.fixed["adapter"] == 4 * 18_464_768 and fit.fixed["training"] == 12 * 18_464_768
    assert fit.tokens == {"prompt_tokens": 356, "image_tokens": 256}
    assert shape_of(configuration()).kv_bytes(1) == 28_672
    assert fit.needed_bytes == max(fit.peaks.values()) * (1 + ALLOCATOR_SHARE) + CONTEXT_BYTES
    assert fit.fits is None and fits(gpu_gb=100, **SMALL).fits is True and fits(gpu_gb=5, **SMALL).fits is False


@pytest.mark.parametrize(
    "lever",
    [{"quantize": "4bit"}, {"offload_tower": True}, {"gradient_checkpointing": True}, {"micro_batch": 16},
     {"max_new_tokens": 128}, {"group_size": 4}, {"prompts_per_step": 8}, {"max_pixels": 100_352}],
    ids=str,
)  # fmt: skip
def test_every_lever_lowers_the_peak_and_no_phase_rises_but_for_the_tower(lever):
    before, after = fits(), fits(**lever)
    assert after.needed_bytes < before.needed_bytes
    for phase, peak in after.peaks.items():
        slack = 2 * 1536 * 8960 if lever.get("quantize") else 0  # a matrix, unpacked
        assert peak <= before.peaks[phase] + slack, phase


def test_a_step_that_is_larger_needs_more():
    sizes = [fits(group_size=g, **SMALL).needed_bytes for g in (4, 8, 16, 32)]
    assert sizes == sorted(sizes)
    assert fits(model=B7).needed_bytes > fits().needed_bytes


def test_training_all_weights():
    """In float32: weights, gradient and two moments, and the weights of the reference while it scores."""
    fit = fits(lora_rank=0, dtype="float32", **SMALL)
    assert fit.fixed["language"] + fit.fixed["training"] == 16 * 1_543_714_304 and fit.fixed["adapter"] == 0
    narrow = fits(lora_rank=0, dtype="bfloat16", **SMALL)
    by_hand = 2 + 2 + 8 + 4  # weight, gradient, two float32 moments, and the float32 copy that the optimiser moves
    assert narrow.fixed["language"] + narrow.fixed["training"] == by_hand * 1_543_714_304
    without = fits(lora_rank=0, dtype="float32", beta=0.0, **SMALL)
    assert (
        "reference" not in without.peaks and fit.peaks["reference"] > fit.fixed["training"] + 2 * fit.fixed["language"]
    )


def test_what_makes_no_sense_is_refused():
    for wrong, message in [
        ({"dtype": "float8"}, "unknown dtype"),
        ({"quantize": "8bit"}, "unknown quantize"),
        ({"quantize": "4bit", "lora_rank": 0}, "cannot be trained"),
    ]:
        with pytest.raises(ValueError, match=message):
            fits(**wrong)


def test_the_estimate_of_a_directory_is_that_of_its_policy(tmp_path):
    tiny_hub.write_checkpoint(tmp_path)
    shape = shape_of(load_policy(tmp_path, lora_rank=4, device="cpu", dtype="bfloat16"))
    fit = fits(tmp_path, lora_rank=4)
    assert fit.fixed["language"] == 2 * shape.language_parameters and fit.fixed["adapter"] == 4 * shape.lora_weights


def test_the_table_names_every_phase():
    text = fits(gpu_gb=8, **SMALL).table()
    for phase in ("encode", "prefill", "decode", "score", "reference", "backward", "optimiser"):
        assert f"\n{phase} " in text
    assert "both estimates" in text and "of 8 GiB: fits" in text and "tower away" in text


# ---------------------------------------------------------------------------------------------------------- the presets


@pytest.mark.slow
@pytest.mark.parametrize("model", [module.MODEL, B7])
def test_every_preset_fits_its_card_with_room_to_spare(model):
    for card, preset in presets(model).items():
        if preset is None:
            with pytest.raises(ValueError, match=f"does not fit on {card} GB .* the least needs"):
                recommend(card, model)
        else:
            assert preset.fit.fits and preset.fit.needed_bytes <= ((1 - MARGIN) * card - SCREEN_GB) * GIB
            again = {name: getattr(preset.settings, name) for name in ("micro_batch", "offload_tower", "group_size")}
            assert again == {name: preset.fit.setting[name] for name in again}


def test_presets_of_the_2b_model():
    chosen = presets()
    assert chosen[6].policy["quantize"] == "4bit", "its weights alone have 4.4 GB in bfloat16"
    assert all(not chosen[card].given_up for card in (8, 12, 16, 24))
    assert chosen[8].settings.gradient_checkpointing and not chosen[24].settings.gradient_checkpointing
    assert chosen[24].settings.learning_rate == PUBLISHED_SETTINGS["learning_rate"] and chosen[24].settings.steps == 200


def test_a_larger_card_never_gets_a_worse_preset():
    order = list(changes())
    places = []
    for card in (4.7, 5, 5.5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32, 48, 80):
        setting = recommend(card).fit.setting
        places.append(next(i for i, change in enumerate(order) if (PUBLISHED | change).items() <= setting.items()))
    assert places == sorted(places, reverse=True) and len(set(places)) > 5
    assert recommend(8) == recommend(8), "deterministic"


def test_quality_is_given_up_only_where_no_way_to_save_memory_is_left():
    """The first change of each rung gives up one more thing than the last change of the rung before, in the stated
    order."""
    order = list(changes())
    relevant = [{k: v for k, v in change.items() if k in PUBLISHED} for change in order]
    rungs = [rung for i, rung in enumerate(relevant) if i == 0 or rung != relevant[i - 1]]
    assert len(rungs) == len(GIVEN_UP) + 1 and rungs[0] == {} and rungs[1] == {"quantize": "4bit"}
    assert all(
        before.items() <= after.items() or set(before) == set(after) for before, after in itertools.pairwise(rungs)
    )
    fast, *_, slow = memory_savings(16, 8, 2752)
    assert fast == {"micro_batch": 8, "gradient_checkpointing": False, "offload_tower": False}
    assert slow == {"micro_batch": 1, "gradient_checkpointing": True, "offload_tower": True}


def test_a_pass_is_as_small_as_costs_no_time():
    """One group of the published settings keeps a card at work; more rows per pass need memory and save nothing."""
    for card in CARDS:
        preset = recommend(card)
        assert preset.settings.micro_batch == 8
        chosen = vars(preset.settings) | {name: value for name, value in preset.policy.items() if name != "name"}
        hours = {rows: fits(gpu_gb=card, **chosen | {"micro_batch": rows}).hours for rows in (0, 64, 16, 8, 4)}
        assert hours[0] == hours[64] == hours[16] == hours[8] < hours[4], "less than a group runs its prompt again"
    model = shape_of(configuration())
    for card in SOLD:
        arithmetic = PASS_TOKENS * 2 * model.layers * model.layer_weights / card.rates["flops_per_second"]
        reading = model.layers * model.layer_weights * 2 / card.rates["bytes_per_second"]
        assert reading < 0.1 * arithmetic, card
    short = memory_savings(16, 8, 600)
    assert [saving["micro_batch"] for saving in short][:6] == [32, 32, 16, 16, 8, 8], "groups of short completions"
    assert memory_savings(4, 8, 300)[0]["micro_batch"] == 0, "all of them are not too many"


def test_supervised_rows_have_a_prompt_each_and_no_reference():
    fit = fits(gpu_gb=12, supervised=True, micro_batch=4)
    assert fit.step.rows == 16 and fit.step.group_size == 1 and "reference" not in fit.peaks
    assert fit.needed_bytes > fits(supervised=True, micro_batch=2).needed_bytes
    assert recommend(12, supervised=True).fit.fits


def test_hours_are_counted_work_at_the_assumed_rates():
    """By hand, in the largest phase: 2 FLOPs per weight and token forward, about twice that back, once more to compute
    the layers again; 16 prompts of 712 tokens and 128 rows of 255."""
    fit = recommend(12).fit
    card = card_of(12)
    assert card.name == "RTX 3060 12 GB" and card.rates["flops_per_second"] == pytest.approx(0.4 * 25.5e12)
    weights, tokens = fit.shape.layers * fit.shape.layer_weights, 16 * 712 + 128 * 255
    assert fit.seconds["backward"] == pytest.approx(4 * weights * tokens / 10.2e12, rel=0.3)
    steps = sum(seconds for phase, seconds in fit.seconds.items() if phase != "encode")
    assert fit.hours == pytest.approx((fit.seconds["encode"] + 200 * steps) / 3600)
    assert 1 < fit.hours < 10 and recommend(24).fit.hours < fit.hours
    text = fit.time_estimate()
    assert "an estimate" in text and "not measured" in text and "10 TFLOP/s and 216 GB/s" in text and card.name in text
    assert fits().hours is None and "no card" in fits().time_estimate()


def test_what_is_settled_stays():
    preset = recommend(12, text_tokens=60, max_pixels=100_352, beta=0.0)
    assert preset.settings.beta == 0.0 and preset.policy["max_pixels"] == 100_352
    assert "max_pixels" not in preset.given_up
    typed = recommend(12, prompts_per_step=4, max_new_tokens=64)
    assert typed.settings.prompts_per_step == 4 and typed.settings.micro_batch == 8 and not typed.given_up
    with pytest.raises(ValueError, match=r"the least needs \d+\.\d GiB"):
        recommend(6, micro_batch=128, gradient_checkpointing=False)


# ----------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def parsed(monkeypatch):
    """Parse a printed command instead of running it."""
    call = {}

    def remember(plan, *options):
        call.update(policy=plan.policy, settings=plan.settings)

    monkeypatch.setattr(training, "run_training", remember)

    def parse(command):
        words = shlex.split(command)
        assert words[0] == "favor-lab"
        assert main(words[1:]) == 0
        return call

    return parse


@pytest.mark.parametrize("card", CARDS)
def test_the_printed_command_is_the_preset(parsed, card):
    preset = recommend(card)
    call = parsed(preset.command)
    assert call["settings"] == preset.settings
    policy = dataclasses.asdict(call["policy"])
    assert policy["policy"] == preset.policy["name"]
    assert all(policy[name] == value for name, value in preset.policy.items() if name != "name")


def test_doctor_says_what_fits_on_another_card(parsed, capsys):
    assert main(["doctor", "--gpu-gb", "8"]) == 0
    out = capsys.readouterr().out
    assert "largest phase" in out and "of 8 GiB: fits" in out and "[OK]" not in out
    assert "hours of training" in out and "TFLOP/s" in out and "data sheet of the RTX 4060" in out
    assert "0.5 GiB of this one are left for a screen" in out
    assert parsed(out.splitlines()[-1])["settings"].prompts_per_step == 16
    assert main(["doctor", "--gpu-gb", "6"]) == 0
    assert "given up of the published settings: quantize 4bit" in capsys.readouterr().out
    assert main(["doctor", "--model", B7, "--gpu-gb", "24"]) == 0
    assert "Qwen/Qwen2-VL-7B-Instruct\n16 prompts x G 8" in capsys.readouterr().out


@pytest.mark.slow
def test_doctor_without_a_card_lists_the_presets(capsys, monkeypatch):
    monkeypatch.setattr("favor_lab.budget.doctor.largest_gpu_gb", lambda: None)
    assert main(["doctor", "--model", B7]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" GB")[0].strip() for line in lines[2:7]] == ["6", "8", "12", "16", "24"]
    assert lines[2].endswith("does not fit") and "4-bit" in "\n".join(lines[3:])


def test_doctor_with_a_card_says_what_to_run_on_it(capsys, monkeypatch):
    monkeypatch.setattr("favor_lab.budget.doctor._pocket", lambda: Finding(True, "the pocket policy loads"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (10 * GIB, 12 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "a card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert largest_gpu_gb() == 12
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "room for Qwen/Qwen2-VL-2B-Instruct with LoRA, bfloat16" in out and "of 12 GiB: fits" in out
    assert "a card, 12.0 GiB (10.0 GiB free)" in out
    assert out.splitlines()[-1].startswith("favor-lab train --policy Qwen/Qwen2-VL-2B-Instruct")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (1 * GIB, 2 * GIB))
    assert main(["doctor"]) == 0
    assert "does not fit on 2 GB" in capsys.readouterr().out


def test_doctor_of_an_unknown_model(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("favor_lab.vlm.hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["doctor", "--model", "someone/else", "--gpu-gb", "8"]) == 2
    assert "configuration of someone/else is not known here" in capsys.readouterr().err
    tiny_hub.write_checkpoint(tmp_path / "mine")
    assert main(["doctor", "--model", str(tmp_path / "mine"), "--gpu-gb", "8"]) == 0
