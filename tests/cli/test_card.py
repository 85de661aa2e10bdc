"""Settings that belong to the model and the card: what was not typed comes from the preset, and what does not fit is
refused before anything is loaded. Every command that the pages give for a large model is parsed here."""

import dataclasses
import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import hub as tiny_hub
from favor_lab import fits, recommend
from favor_lab.budget.cards import GIB
from favor_lab.cli import main, measuring, training
from favor_lab.cli.parser import COMMANDS, typed_names
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.runs.card import LARGE, configuration_of, fitted_plan
from favor_lab.runs.options import DataOptions, PolicyOptions
from favor_lab.runs.plan import RunPlan
from favor_lab.study.run_folder import RunFolder
from pictures import picture

ROOT = Path(__file__).parents[2]
B2, B7 = "Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"
NAMED_CARD = 12  # of the pages; a command of theirs without --gpu-gb is for the card that is there: this one


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def card(monkeypatch):
    """A CUDA device of so many GiB, which nothing is loaded on."""

    def pretend(gib, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (gib * GIB // 2, gib * GIB))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: bfloat16)

    return pretend


@pytest.fixture
def planned(monkeypatch):
    """The plan that a command would run."""
    plans = []
    monkeypatch.setattr(training, "run_training", lambda plan, *args, **options: plans.append(plan))
    monkeypatch.setattr(training, "room_for_test", lambda data: data.test)  # the folder of a page is not there

    def parse(command):
        plans.clear()
        assert main(shlex.split(command)[1:]) == 0, command
        return plans[0]

    return parse


def fit_of(plan, gpu_gb):
    """What `fits` says about a plan, from all of its settings."""
    policy = {"lora_rank": plan.policy.lora_rank, "quantize": plan.policy.quantize}
    policy |= {"max_pixels": plan.policy.max_pixels} if plan.policy.max_pixels else {}
    settings = vars(plan.settings) | {"supervised": plan.method == "SFT"}
    return fits(plan.policy.policy, gpu_gb, **policy, **settings)


def refused(command, capsys):
    assert main(shlex.split(command)[1:]) == 2
    output = capsys.readouterr()
    return output.err


# ------------------------------------------------------------------------------------------------------ what is typed


def test_the_preset_of_the_named_card_is_the_default(planned, capsys):
    for gpu_gb in (6, 8, 12, 24):
        plan, preset = planned(f"favor-lab train --policy {B2} --gpu-gb {gpu_gb}"), recommend(gpu_gb, B2)
        assert plan.settings == preset.settings
        for name in ("quantize", "max_pixels"):
            assert getattr(plan.policy, name) == preset.policy.get(name)
        (line,) = capsys.readouterr().out.splitlines()
        assert f"a card of {gpu_gb} GiB (named): preset" in line and "--learning-rate 1e-5" in line
        assert f"GiB needed of {gpu_gb} GiB: fits, by estimate" in line


def test_the_card_that_is_there_counts_and_a_named_one_wins(planned, card, capsys):
    card(8)
    assert planned(f"favor-lab train --policy {B2}").settings == recommend(8, B2).settings
    assert "a card of 8 GiB: preset" in capsys.readouterr().out
    assert planned(f"favor-lab train --policy {B2} --gpu-gb 24").settings == recommend(24, B2).settings
    capsys.readouterr()
    planned(f"favor-lab train --policy {B2} --device cpu")
    assert "no CUDA card here" in capsys.readouterr().out
    card(16, bfloat16=False)
    assert planned(f"favor-lab train --policy {B2}").settings == recommend(16, B2, dtype="float32").settings


def test_without_a_card_the_published_rate_and_the_smallest_batch(planned, capsys):
    settings = planned(f"favor-lab train --policy {B2}").settings
    assert settings.learning_rate == 1e-5 and settings.steps == 200 and settings.max_new_tokens == 256
    assert (settings.prompts_per_step, settings.group_size, settings.micro_batch) == (4, 4, 4)
    assert "no CUDA card here (--gpu-gb 12 names one)" in capsys.readouterr().out


def test_what_is_typed_wins_also_where_it_is_the_pocket_policys_default(planned, capsys):
    command = f"favor-lab train --policy {B2} --gpu-gb 24 --steps 100 --prompts-per-step=4 --max_new_tokens 64"
    settings = planned(f"{command} --no-gradient-checkpointing --beta 0.1").settings
    assert (settings.steps, settings.prompts_per_step, settings.max_new_tokens, settings.beta) == (100, 4, 64, 0.1)
    assert settings.learning_rate == 1e-5 and not settings.gradient_checkpointing
    plan = planned(f"favor-lab train --policy {B2} --gpu-gb 6 --max-pixels 200704 --lora-rank 8")
    assert plan.policy.max_pixels == 200704 and plan.policy.lora_rank == 8 and plan.policy.quantize == "4bit"


def test_typed_names():
    assert typed_names(["data", "folder", "--root", "a", "--no-check", "--a_b=3"]) == {"root", "check", "a_b"}


def test_the_pocket_policy_and_small_checkpoints_keep_their_defaults(planned, tiny_checkpoint, capsys):
    assert planned("favor-lab train").settings == GRPOSettings()
    assert planned(f"favor-lab train --policy {tiny_checkpoint}").settings == GRPOSettings()
    assert capsys.readouterr().out == ""
    for more in ("", f"--policy {tiny_checkpoint}", f"--policy {B2} --device cpu"):
        assert "--gpu-gb: " in refused(f"favor-lab train --gpu-gb 12 {more}", capsys)


def test_a_folder_counts_by_its_configuration_not_by_its_name(planned, tmp_path):
    tiny_hub.write_checkpoint(tmp_path / "Qwen2-VL-2B-Instruct")
    assert configuration_of(PolicyOptions(str(tmp_path / "Qwen2-VL-2B-Instruct"))) is None
    assert configuration_of(PolicyOptions("pocket")) is None
    from favor_lab.vlm.known import KNOWN, hub_config

    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket" / "config.json").write_text(json.dumps(hub_config(KNOWN[B2])))
    folder = tmp_path / "pocket"
    plan = planned(f"favor-lab train --policy {folder} --gpu-gb 12")
    assert plan.settings == recommend(12, folder).settings == recommend(12, B2).settings
    assert LARGE == 100_000_000


def test_a_hub_name_that_is_nowhere_is_explained_before_anything_else(capsys, monkeypatch):
    monkeypatch.setattr("favor_lab.vlm.hub.constants.HF_HUB_OFFLINE", True)
    assert "someone/else is not in the cache" in refused("favor-lab train --policy someone/else", capsys)


def test_the_rate_belongs_to_the_method_and_to_what_moves(planned):
    assert planned(f"favor-lab sft --policy {B2} --gpu-gb 12").settings.learning_rate == 1e-4
    assert planned(f"favor-lab train --policy {B2} --gpu-gb 80 --lora-rank 0").settings.learning_rate == 1e-6


def test_an_adapter_brings_its_rank(planned, tmp_path, monkeypatch):
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 64, "target_modules": ["q_proj"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    asked = []
    monkeypatch.setattr(
        "favor_lab.budget.fits.recommend", lambda *args, **fixed: asked.append(fixed) or recommend(*args, **fixed)
    )
    planned(f"favor-lab train --policy {B2} --gpu-gb 12 --adapter adapter")
    assert asked[0]["lora_rank"] == 64


# ----------------------------------------------------------------------------------------- what is far, or too much


@pytest.mark.parametrize(
    ("typed", "times"),
    [("--learning-rate 1e-3", "100 times"), ("--learning-rate 1e-8", "1/1e+03 of"), ("--max-new-tokens 6000", "23.4")],
)
def test_a_value_that_is_far_from_the_preset_is_said(planned, capsys, typed, times):
    plan = planned(f"favor-lab train --policy {B2} {typed}")
    error = capsys.readouterr().err
    assert times in error and "what the preset takes" in error and B2 in error
    if "rate" in typed:
        assert "--learning-rate 1e-5" in error and plan.settings.learning_rate == float(typed.split()[1])
    planned(f"favor-lab train --policy {B2} --learning-rate 2e-5")
    assert "what the preset takes" not in capsys.readouterr().err


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_its_numbers_and_what_fits(planned, capsys):
    error = refused(f"favor-lab train --policy {B2} --gpu-gb 12 --lora-rank 0", capsys)
    assert (
        re.search(r"with --lora-rank 0: \d+\.\d GiB needed of 12 GiB: does not fit", error) and "largest phase" in error
    )
    assert recommend(12, B2).command in error and "--no-check" in error
    error = refused(f"favor-lab train --policy {B7} --gpu-gb 8", capsys)
    assert "the least needs" in error and "larger card" in error
    plan = planned(f"favor-lab train --policy {B7} --gpu-gb 8 --no-check")
    assert plan.policy.quantize == "4bit" and "does not fit" in capsys.readouterr().err


@pytest.mark.slow
def test_no_weights_are_loaded_before_the_check(card, monkeypatch, capsys):
    card(4)
    for name in ("load_shots", "open_policy"):
        monkeypatch.setattr(f"favor_lab.runs.run.{name}", lambda *args: pytest.fail("loaded"))
        monkeypatch.setattr(measuring, name, lambda *args: pytest.fail("loaded"))
    for command in ("train", "sft", "profile"):
        assert "does not fit" in refused(f"favor-lab {command} --policy {B7}", capsys)
    assert not Path("runs").exists()


def test_a_tight_fit_is_taken_and_said(planned, capsys):
    """Typed so that no screen fits beside it, but the step does."""
    needed = fits(B2, micro_batch=8, gradient_checkpointing=True, offload_tower=True, quantize=None).needed_bytes / GIB
    options = "--micro-batch 8 --gradient-checkpointing --offload-tower --quantize None --max-pixels 401408"
    options += " --prompts-per-step 16 --group-size 8 --max-new-tokens 256"
    planned(f"favor-lab train --policy {B2} --gpu-gb {needed + 0.1:.2f} {options}")
    assert "no room for a screen" in capsys.readouterr().err


def test_from_a_notebook():
    lines = []
    plan = RunPlan("train", DataOptions(), PolicyOptions(B2), GRPOSettings(steps=20))
    fitted = fitted_plan(plan, gpu_gb=12, tell=lines.append)
    assert fitted.settings.steps == 20 and fitted.settings.learning_rate == 1e-5 and len(lines) == 1


def test_resume_sees_what_was_typed_also_where_it_is_the_default(planned, monkeypatch, capsys):
    plan = RunPlan("train", DataOptions(), PolicyOptions(lora_rank=8), GRPOSettings(steps=99))
    RunFolder.create(Path("run")).save_settings(dataclasses.asdict(plan) | {"labels": []})
    assert planned("favor-lab train --resume run --steps 100").settings.steps == 100
    assert planned("favor-lab train --resume run").settings.steps == 99
    assert "leave out --lora-rank" in refused("favor-lab train --resume run --lora-rank 16", capsys)


# ----------------------------------------------------------------------------------------- the commands of the pages


def pages():
    """Text that a reader may copy a command from: help texts, Markdown, the source of notebooks."""
    for name, command in COMMANDS.items():
        yield f"{name} --help", str(command.__doc__)
    for path in (
        sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("favor_lab/**/*.md")) + sorted(ROOT.glob("notebooks/**/*.md"))
    ):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            yield path.name, "".join(cell["source"])


def commands_of_the_pages(start):
    """(page, command) for each line that begins so and names a published large model."""
    for page, text in pages():
        for line in text.replace("\\\n", " ").splitlines():
            found = re.search(rf"{start}.*?(?= #|`|$)", line)
            if found and "--policy Qwen/" in found[0]:
                yield page, found[0].strip()


def large_commands(*names):
    return [pair for name in names for pair in commands_of_the_pages(f"favor-lab {name} ")]


def test_the_pages_have_such_commands():
    assert {command.split()[1] for _, command in large_commands("train", "sft", "profile")} == {
        "train",
        "sft",
        "profile",
    }


@pytest.mark.parametrize(("page", "command"), large_commands("train", "sft"), ids=itertools.count())
def test_a_command_of_a_page_has_the_presets_rate_and_fits_the_card(planned, card, page, command):
    card(NAMED_CARD)
    plan = planned(command)
    named = re.search(r"--gpu-gb (\S+)", command)
    gpu_gb = float(named[1]) if named else NAMED_CARD
    rate = recommend(gpu_gb, plan.policy.policy).settings.learning_rate
    assert plan.settings.learning_rate == (rate if plan.command == "train" else 10 * rate), page
    fit = fit_of(plan, gpu_gb)
    assert fit.fits, f"{page}: {command}: {fit.verdict()}"


@pytest.mark.parametrize(("page", "command"), large_commands("profile"), ids=itertools.count())
def test_a_profile_of_a_page_measures_the_preset(monkeypatch, card, page, command):
    card(NAMED_CARD)
    seen = []

    def stop(*arguments, **options):
        seen.extend(arguments)
        raise ValueError("seen")

    monkeypatch.setattr(measuring, "load_shots", lambda *args: None)
    monkeypatch.setattr(measuring, "open_policy", lambda policy, seed: policy)
    monkeypatch.setattr("favor_lab.budget.profiling.profile_step", stop)
    assert main(shlex.split(command)[1:]) == 2
    policy, _, settings = seen
    assert settings == recommend(NAMED_CARD, policy.policy).settings


def cell(notebook, name):
    """The source of a cell, by its id."""
    cells = json.loads((ROOT / "notebooks" / notebook).read_text(encoding="utf-8"))["cells"]
    return "".join(next(c["source"] for c in cells if c["id"] == name))


def test_notebook_10_trains_the_preset_of_the_card(monkeypatch, card):
    card(NAMED_CARD)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, NAMED_CARD * GIB))
    names = {"NAME": B2, "ready": True, "GIB": GIB, "torch": torch}
    exec(cell("10_one_consumer_gpu.ipynb", "train"), names)
    loaded = []
    names |= {
        "load_policy": lambda **options: loaded.append(options),
        "train": lambda policy, shots, settings: [settings],
    }
    (settings,) = names["records_of_this_machine"]()
    preset = recommend(NAMED_CARD, B2)
    assert settings == dataclasses.replace(preset.settings, steps=20) and loaded == [preset.policy]


@pytest.mark.parametrize("name", ["pocket", B2])
def test_notebook_12_trains_a_large_policy_with_its_preset(monkeypatch, name):
    notebook = "12_your_own_images.ipynb"
    sources = [c["source"] for c in json.loads((ROOT / "notebooks" / notebook).read_text(encoding="utf-8"))["cells"]]
    lines = [line.rstrip() for source in sources for line in source]
    names = {"recommend": recommend, "GRPOSettings": GRPOSettings, "replace": dataclasses.replace}
    names["load_policy"] = lambda *args, **options: loaded.append((args, options))
    loaded = []
    for start in ("POLICY = ", "GPU_GB = ", "preset = ", "policy = ", "settings = "):
        exec(next(line for line in lines if line.startswith(start)), names)
        if start == "POLICY = ":
            names["POLICY"] = name
    preset = recommend(names["GPU_GB"], B2)
    expected = GRPOSettings() if name == "pocket" else preset.settings
    assert names["settings"] == dataclasses.replace(expected, steps=50)
    assert loaded == [((name,), {})] if name == "pocket" else loaded == [((), preset.policy)]


def scaling_commands():
    return [pair for pair in commands_of_the_pages("accelerate launch .*train_trl.py") if "cpu" not in pair[1]]


@pytest.mark.parametrize(("page", "command"), scaling_commands(), ids=itertools.count())
def test_a_command_of_the_scaling_page_has_the_presets_rate_and_fits(monkeypatch, page, command):
    """Also for TRL, whose passes repeat the prompt for each row: as groups of one."""
    sys.path.insert(0, str(ROOT / "notebooks" / "scaling"))
    try:
        import train_trl
    finally:
        sys.path.pop(0)
    monkeypatch.setattr(sys, "argv", ["train_trl.py", *shlex.split(command.split("train_trl.py")[1])])
    settings, gpu_gb = train_trl.settings_of(args := train_trl.parse()), 24
    assert settings.learning_rate == recommend(gpu_gb, args.policy).settings.learning_rate
    assert settings.prompts_per_step == 16 and settings.max_new_tokens == 256 and settings.steps == 200
    if "fsdp" not in command:  # whose weights are shared out among the cards
        rows = settings.micro_batch
        fit = fits(args.policy, gpu_gb, prompts_per_step=rows, group_size=2, max_new_tokens=256, micro_batch=2 * rows,
                   gradient_checkpointing=settings.gradient_checkpointing)  # fmt: skip
        assert fit.fits, fit.verdict()


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), large_commands("train", "sft"), ids=itertools.count())
def test_such_a_command_runs_on_a_tiny_checkpoint_in_the_published_layout(tmp_path, monkeypatch, capsys, page, command):
    """The published name, whose place in the Hub's cache a tiny one has: the preset is the large model's, the run is
    made short."""
    for label, kind in itertools.product(["riding_a_bike", "reading"], range(6)):
        picture(tmp_path / "photos" / label / f"{kind}.png", kind + 10 * len(label), "RGB", (84, 84))
    tiny_hub.write_checkpoint(tmp_path / "published")
    tiny_hub.put_in_cache(tmp_path / "cache", tmp_path / "published")
    monkeypatch.setattr("favor_lab.vlm.hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    short = "--shots 1 --test 1 --steps 1 --max-new-tokens 3 --out run --checkpoint-every 1"
    short += " --prompts-per-step 2" + " --group-size 2 --offload-tower" * (" train " in command)
    named = "" if "--gpu-gb" in command else f" --gpu-gb {NAMED_CARD}"
    words = shlex.split(command.replace("my_photos", "photos"))[1:]
    assert main([*words, *shlex.split(short + named)]) == 0, capsys.readouterr().err
    settings = RunFolder.open("run").settings["settings"]
    assert settings["learning_rate"] == (1e-5 if words[0] == "train" else 1e-4) and settings["steps"] == 1
    assert RunFolder.open("run").records()[0]["learning_rate"] == settings["learning_rate"]
