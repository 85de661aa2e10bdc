"""The benchmark scripts run, at their smallest sizes on the CPU, and what they write can be rendered. No duration is
asserted anywhere."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from favor_lab import GRPOSettings, StepRecord, sample_groups
from favor_lab.budget.profiling import never_end
from favor_lab.recipes import find_recipe
from favor_lab.vlm.processing import encode_prompts

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent
RESULTS = Path(__file__).parents[2] / "data" / "results"
TINY = ["--policy", "tiny", "--machine", "here"]


def script(name: str):
    """A script as a module; they import each other by name, as they do when they are run."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


common = script("common")


SCRIPT_NAMES = [
    "step",
    "memory",
    "peaks",
    "growth",
    "parts",
    "recipes",
    "run200",
    "budget",
    "busy",
    "import_time",
    "render",
]


def run(name: str, out: Path, *arguments: str) -> dict:
    """Run a script and read the one JSON file that it wrote."""
    before = set(out.glob("*.json"))
    script(name).main([*arguments, "--out", str(out)])
    (path,) = set(out.glob("*.json")) - before
    result = json.loads(path.read_text())
    assert path.stem.endswith(result["environment"]["machine"])
    assert result["environment"]["versions"]["torch"] == importlib.metadata.version("torch")
    assert result["environment"]["date"][:2] == "20"
    return result


@pytest.fixture(scope="module")
def tiny():
    args = common.parse(common.parser("", "tiny"), [])
    return args, common.make_policy(args), common.make_shots(args)


def test_the_2b_configuration_has_the_published_parameter_counts():
    from transformers import Qwen2VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(common.random_config("2b"))
    tower = sum(weight.numel() for weight in model.model.visual.parameters())
    total = sum(weight.numel() for weight in model.parameters())
    assert (total, tower, total - tower) == (2_208_985_600, 665_271_296, 1_543_714_304)
    assert model.config.text_config.vocab_size == 151_936
    assert len(model.config.text_config.layer_types) == 28


def test_a_random_policy_is_set_up_as_load_policy_does(tiny):
    from favor_lab import load_policy

    args, policy, _ = tiny
    pocket = load_policy("pocket", lora_rank=args.lora_rank)
    ours, theirs = (p.model.peft_config["default"].to_dict() for p in (policy, pocket))
    assert {key for key in ours if ours[key] != theirs[key]} <= {"base_model_name_or_path"}
    assert all("lora_" in name for name, _ in policy.trainable_parameters())
    assert policy.end_token_ids == pocket.end_token_ids and policy.dtype == torch.float32
    again = common.make_policy(args)
    assert all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), again.model.parameters(), strict=True))


def test_completions_have_exactly_the_length_asked_for(tiny):
    args, _, shots = tiny
    policy = common.make_policy(args)
    ends = list(policy.end_token_ids)
    prompts = encode_prompts(policy, shots.train[:1], shots.labels)
    usual = sample_groups(policy, prompts, group_size=256, max_new_tokens=8, seed=0)
    assert usual.lengths.min() < 8, "random weights end some of 256 completions: the test would show nothing"
    never_end(policy)
    rollout = sample_groups(policy, prompts, group_size=256, max_new_tokens=8, seed=0)
    assert (rollout.lengths == 8).all()
    assert not torch.isin(rollout.completion_ids, torch.tensor(ends)).any()
    with pytest.raises(RuntimeError, match="3 to 8 tokens, not 8"):
        common.check_lengths(StepRecord(1, length_min=3, length_max=8), 8)


def test_the_image_size_is_the_one_asked_for(tiny):
    args, policy, shots = tiny
    assert common.count_tokens(policy, shots, args)["image_tokens"] == (args.image_size // 28) ** 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--policy", "2b"], "no CUDA device"),
        (["--image-size", "50"], "no multiple of 28"),
        (["--images", "1"], "fewer than the --prompts"),
        (["--labels", "17"], "not between 1 and 16"),
    ],
)
def test_what_cannot_run_is_said_at_once(arguments, problem, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        common.parse(common.parser("", "tiny"), arguments)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("name", ["common", "card_file", *SCRIPT_NAMES])
def test_the_examples_in_docstrings(name):
    assert doctest.testmod(script(name)).failed == 0


@pytest.mark.parametrize("name", ["measure_card", *SCRIPT_NAMES])
def test_every_script_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        script(name).main(["--help"])
    assert stop.value.code == 0
    assert f"python tests/benchmarks/{name}.py" in capsys.readouterr().out


def test_step_without_trl(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else find(name, *rest))
    result = run("step", tmp_path, *TINY, "--only", "ours", "--steps", "2", "--warmup", "1")
    assert len(result["ours"]["seconds"]["values"]) == 2 and "ratio" not in result
    assert "sample" in result["ours"]["phases"]
    assert {"prefill", "decode", "score", "reference", "backward"} <= result["bound"].keys()
    with pytest.raises(SystemExit):
        script("step").main([*TINY, "--out", str(tmp_path)])
    assert "--only ours" in capsys.readouterr().err


@pytest.mark.slow
def test_step_next_to_trl(tmp_path):
    """Both sides are checked to have the same prompts and completion lengths; accumulation and checkpointing on."""
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    options = ["--steps", "2", "--warmup", "1", "--micro-batch", "2", "--gradient-checkpointing"]
    result = run("step", tmp_path, *TINY, *options)
    pairs = zip(result["trl"]["seconds"]["values"], result["ours"]["seconds"]["values"], strict=True)
    assert result["ratio"]["values"] == [theirs / ours for theirs, ours in pairs]
    rendered(tmp_path, f"**{result['ratio']['median']:.1f}** times as fast as TRL")


def test_growth(tmp_path):
    result = run("growth", tmp_path, *TINY, "--steps", "1")
    sweeps = result["sweeps"]
    assert [point["group_size"] for point in sweeps["group"]] == [2, 4]
    assert [point["length"] for point in sweeps["completion"]] == [2, 4]
    prompts = [point["prompt_tokens"] for point in sweeps["prompt"]]
    assert prompts == sorted(set(prompts))
    assert [step["from"] for step in result["doubling"]] == [2]
    growth = result["prompt_growth"]
    assert 1 < growth["counted_once_a_group"] < growth["counted_once_a_completion"]
    for point in sweeps["group"]:
        assert point["bound"]["step"] < point["bound_unshared"]["step"]
    rendered(tmp_path, "with each prompt once per completion")


def test_doubling_is_measured_against_what_is_counted():
    def point(group, seconds, bound):
        return {"group_size": group, "seconds": {"median": seconds}, "bound": {"step": bound}}

    (pair,) = script("growth").doublings([point(4, 2.0, 1.0), point(8, 3.0, 1.25), point(12, 9.0, 9.0)])
    assert pair == {"from": 4, "measured": 1.5, "counted": 1.25, "excess": 1.2}


def test_run(tmp_path):
    result = run("run200", tmp_path, *TINY, "--steps", "3")
    (lines,) = tmp_path.glob("*.jsonl")
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert result["completion_tokens"] == 3 * 2 * 2 * 4  # steps, prompts, completions, tokens
    assert 0 < result["decoding"]["share"]
    rendered(tmp_path, "3 steps in")


def test_the_bytes_a_token_reads_are_those_of_the_language_model(tiny):
    _, policy, _ = tiny
    model = policy.base.model.language_model
    assert script("run200").language_model_bytes(policy) == sum(weight.nbytes for weight in model.parameters())


@pytest.mark.slow
def test_memory_on_the_cpu_says_what_it_is_and_goes_on_where_it_stopped(tmp_path, capsys):
    small = ["--group-sizes", "2", "--image-sizes", "56", "--lengths", "4", "--weights", "unquantised"]
    result = run("memory", tmp_path, *TINY, *small, "--features", "kept")
    assert result["kind"] == "cpu" and "no GPU figure" in result["note"]
    (entry,) = result["cells"]
    assert entry["growth_bytes"] >= 0 and entry["estimate_bytes"] and "card_gb" not in entry
    assert entry["cell"]["micro_batch"] == 2, "one group in a pass"
    capsys.readouterr()
    (path,) = tmp_path.glob("*.json")
    script("memory").main([*TINY, *small, "--out", str(tmp_path)])
    again = json.loads(path.read_text())["cells"]
    assert again[0] == entry, "a measured cell is not measured again"
    assert [entry["cell"]["features"] for entry in again] == ["kept", "each-step"]
    assert not any("error" in entry for entry in again)
    rendered(tmp_path, "no GPU figure")


def test_peaks_are_rendered_beside_their_estimates(tmp_path):
    result = run("peaks", tmp_path, *TINY)
    assert result["kind"] == "cpu" and [cell["cell"]["gradient_checkpointing"] for cell in result["cells"]] == [
        False,
        True,
    ]
    for cell in result["cells"]:
        assert cell["measured_bytes"].keys() == cell["estimate_bytes"].keys() == cell["error"].keys()
        assert min(cell["measured_bytes"].values()) > 0.9 * cell["weights_bytes"]
    kept, again = (cell["measured_bytes"]["loss"] for cell in result["cells"])
    assert again < kept
    rendered(tmp_path, "Tensors in memory, measured and estimated", f"{kept / 1e6:,.0f} (")


def test_memory_finds_the_smallest_card_by_trying(monkeypatch):
    memory = script("memory")
    caps = []

    def process(args, *extra):
        if "--cap" not in extra:
            return {"allocated_bytes": 7e9, "reserved_bytes": 9e9}
        caps.append(float(extra[-1]))
        return {"oom": "no room"} if caps[-1] < 12 else {"allocated_bytes": 7e9, "reserved_bytes": 11e9}

    monkeypatch.setattr(memory, "start_process", process)
    result = memory.measure_cell(None, {}, "")
    assert caps == [8, 12], "6 GB cannot do, 8 GB may"
    assert result["card_gb"] == 12 and result["cards"] == {"8": "does not fit", "12": "fits"}


def test_the_cells_in_four_bits_get_a_whole_checkpoint(tmp_path, capsys):
    from favor_lab import load_policy

    script("memory").main(["--policy", "tiny", "--make-checkpoint", str(tmp_path)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"saved": str(tmp_path)}
    loaded = load_policy(tmp_path, lora_rank=2, device="cpu")
    tiny = common.random_policy("tiny", "cpu", "float32", 2, 56)
    weights = [dict(policy.base.model.language_model.named_parameters()) for policy in (loaded, tiny)]
    frozen = [name for name in weights[0] if "lora_" not in name]
    assert frozen and all(torch.equal(weights[0][name], weights[1][name]) for name in frozen)


def test_memory_grid_begins_with_the_goal():
    memory = script("memory")
    args = common.parse(common.parser("", "tiny"), [])
    args.weights, args.features = ["unquantised", "4bit"], ["kept", "each-step"]
    args.group_sizes, args.image_sizes, args.lengths, args.micro_batch = [4, 8, 16], [224, 448], [64, 256], None
    cells = memory.cells_of(args)
    assert len(cells) == 48
    assert all(memory.GOAL.items() <= cell.items() for cell in cells[:2])
    assert all(cell["offload_tower"] == (cell["features"] == "kept") for cell in cells)
    assert all(cell["micro_batch"] == cell["group_size"] for cell in cells)


@pytest.mark.slow
def test_parts_do_the_same_work(tmp_path):
    result = run("parts", tmp_path, *TINY, "--steps", "2", "--warmup", "0", "--length", "6")
    assert list(result["parts"]) == ["sample", "score", "reference"]
    assert list(result["parts"]["score"]) == ["plain rows", "shared cache", "packed"]
    assert result["parts"]["score"]["packed"]["ratio"]["values"] == [1.0, 1.0]
    assert result["largest_difference"] < 1e-4
    rendered(tmp_path, "What each part of the fast path buys")


def test_busy(tmp_path, capsys):
    pytest.importorskip("nbclient")
    options = ["--rounds", "1", "--steps", "1", "--busy", "0", "1", "--ways", "default", "passive", "notebook"]
    result = run("busy", tmp_path, *TINY, *options)
    assert [(cell["way"], cell["busy"]) for cell in result["cells"]] == [
        (way, count) for way in ("default", "passive", "notebook") for count in (0, 1)
    ]
    alone = result["cells"][0]["seconds"]["median"]
    for cell in result["cells"]:
        (second,) = cell["seconds"]["values"]
        assert cell["ratio"]["values"] == [second / alone]
    rendered(tmp_path, "| alone | beside 1 |", "| `OMP_WAIT_POLICY=passive` |", "| `share_cores()` in a notebook |")
    with pytest.raises(SystemExit):
        script("busy").main([*TINY, "--ways", "passive", "--out", str(tmp_path)])
    assert "--ways needs default" in capsys.readouterr().err


def test_busy_processes_are_killed_however_the_steps_end():
    with pytest.raises(KeyboardInterrupt), script("busy").busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
        raise KeyboardInterrupt
    assert None not in [process.returncode for process in processes]


def test_budget(tmp_path):
    result = run("budget", tmp_path, *TINY, "--steps", "1", "--group-sizes", "2", "4")
    assert [cell["group_size"] for cell in result["cells"]] == [2, 4]
    assert all(phase["bound"] > 0 for cell in result["cells"] for phase in cell["phases"].values())
    counted = result["operations_per_token"]
    assert 0 < counted["static"] < counted["plain"]
    text = script("render").budget_text(result)
    assert "times the bound" in text and f"static {counted['static']}" in text and " s " not in text


def test_recipes_are_timed_next_to_plain_steps(tmp_path):
    options = ["--steps", "2", "--warmup", "1", "--coefficients", "exact=0", "gamma=0.1"]
    result = run("recipes", tmp_path, *TINY, *options)
    sides = result["recipes"]
    assert list(sides) == ["plain", "papo", "vppo", "noisy-rollout", "care"]
    assert sides["plain"]["ratio"]["values"] == [1.0, 1.0]
    for side in sides.values():
        pairs = zip(side["seconds"]["values"], sides["plain"]["seconds"]["values"], strict=True)
        assert side["ratio"]["values"] == [ours / plain for ours, plain in pairs]
        assert {"sample", "advantage", "loss"} <= side["phases"].keys()
    assert result["arguments"]["coefficients"] == ["exact=0", "gamma=0.1"]
    text = rendered(tmp_path, "What a step costs with a recipe", "exact=0, gamma=0.1")
    assert f"| papo | **{sides['papo']['ratio']['median']:.2f}** (" in text


def test_coefficients_go_to_the_recipes_that_take_them():
    recipes, settings = script("recipes"), GRPOSettings()
    given = {"exact": 0.0, "gamma": 0.1, "strength": 300.0}
    for name, own in (("papo", ["exact", "gamma"]), ("vppo", ["exact"]), ("noisy-rollout", ["strength"]), ("", [])):
        assert list(recipes.settings_for(find_recipe(name), settings, given).coefficients) == own


def test_imports(tmp_path):
    result = run("import_time", tmp_path, "--rounds", "1", "--machine", "here")
    assert all(len(entry["values"]) == 1 for entry in result["imports"].values())
    rendered(tmp_path, "import favor_lab")


def rendered(folder: Path, *expected: str) -> str:
    """Render the results of a folder; the text of both pages."""
    render = script("render")
    render.main(["--results", str(folder), "--out", str(folder)])
    text = (folder / "benchmarks.md").read_text() + (folder / "benchmarks_summary.md").read_text()
    for part in expected:
        assert part in text
    pictured = render.pictured(render.read(folder))
    assert (folder / "figures" / "benchmarks.png").is_file() == pictured
    return text


def test_memory_of_a_gpu_is_rendered_with_estimate_and_card(tmp_path):
    fixed = {"dtype": "bfloat16", "features": "kept", "image_size": 448, "length": 256, "weights": "unquantised"}
    numbers = {"allocated_bytes": 6.1e9, "estimate_bytes": {"decode": 5e9, "backward": 5.9e9}}
    cells = [
        {"cell": fixed | {"group_size": 8}, **numbers, "card_gb": 8, "cards": {"8": "fits"}},
        {"cell": fixed | {"group_size": 16}, **numbers, "card_gb": None, "cards": {"24": "does not fit"}},
        {"cell": fixed | {"group_size": 8, "weights": "4bit"}, "oom": "no room"},
    ]
    arguments = {"policy": "2b", "prompts": 4, "gradient_checkpointing": True, "micro_batch": None}
    where = {**common.environment("cpu", "a gpu"), "gpu": "Some GPU"}
    result = {"benchmark": "memory", "environment": where, "arguments": arguments, "kind": "gpu", "cells": cells}
    (tmp_path / "memory.json").write_text(json.dumps(result))
    text = rendered(tmp_path, "6.10 GB, fits on a card of 8 GB", "Some GPU")
    assert "| 8 | 448² | 256 | bfloat16 LoRA | kept | 6.10 GB | 5.90 GB | 8 GB |" in text
    assert "| 16 | 448² | 256 | bfloat16 LoRA | kept | 6.10 GB | 5.90 GB | over 24 GB |" in text
    assert "| 4-bit LoRA | kept | out of memory |" in text


def test_no_results_no_page(tmp_path, capsys):
    with pytest.raises(SystemExit):
        script("render").main(["--results", str(tmp_path), "--out", str(tmp_path)])
    assert "run a benchmark first" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_committed_pages_are_those_of_the_committed_results():
    render = script("render")
    results = render.read(RESULTS / "benchmarks")
    if not results:
        pytest.skip("no results are committed yet")
    assert (RESULTS / "benchmarks.md").read_text() == render.page(results), "run python tests/benchmarks/render.py"
    assert (RESULTS / "benchmarks_summary.md").read_text() == render.summary(results)
    assert (RESULTS / "figures" / "benchmarks.png").is_file()
