"""The benchmark scripts on a pretended CUDA device, to their end: what only a GPU runs, and what only `--policy 2b`
asks for. Its shape is shrunk, and a script's processes are calls. No duration is asserted anywhere."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import threading
import traceback
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import card_file
import common
import measure_card
import memory
import pretended_cuda
from favor_lab.budget.machine import machine_rates
from test_benchmarks import rendered, run, script

pytestmark = pytest.mark.slow

TINY = ["--policy", "tiny", "--device", "cuda"]
SIZES = ["--prompts", "2", "--group-size", "2", "--length", "4", "--image-size", "56", "--images", "4"]
ONE_CELL = ["--prompts", "2", "--images", "4", "--group-sizes", "2", "--image-sizes", "56", "--lengths", "4"]


def call(script_name: str, arguments, device) -> SimpleNamespace:
    """A script as if in a process of its own, with the device's whole memory: exit status and what it prints."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    device.limit = pretended_cuda.TOTAL
    elsewhere = threading.current_thread() is not threading.main_thread()  # where the device is not pretended yet
    active = device if elsewhere else contextlib.nullcontext()
    with active, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            script(script_name).main(arguments)
        except SystemExit as stop:
            status = stop.code
        except Exception:
            traceback.print_exc()
            status = 1
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture
def card(cuda, monkeypatch):
    """The device for the scripts: a small shape in place of the 2B model's, small arrays for the machine's rates, and
    memory.py's processes in this one."""
    published = common.configuration("Qwen/Qwen2-VL-2B-Instruct").to_dict()
    small = {part: published[part] | common.TINY[part] for part in common.TINY}
    small["text_config"] |= {"vocab_size": 2048, "rope_parameters": {"mrope_section": [2, 3, 3]}}
    monkeypatch.setattr(common, "configuration", lambda name: SimpleNamespace(to_dict=lambda: small))

    def smaller(make):
        return lambda *sizes, **options: make(*(min(size, 64) for size in sizes), **options)

    def small_rates(device, dtype):
        with monkeypatch.context() as patch:
            for name in ("randn", "ones"):
                patch.setattr(torch, name, smaller(getattr(torch, name)))
            return machine_rates(device, dtype)

    monkeypatch.setattr(common, "machine_rates", small_rates)
    process = SimpleNamespace(run=lambda command, **options: call("memory", command[2:], cuda))
    monkeypatch.setattr(memory, "subprocess", process)
    return cuda


# ---------------------------------------------------------------------------------------------------------- the scripts


def test_random_weights_are_made_on_the_gpu(card):
    args = common.parse(common.parser("", "2b"), SIZES)
    policy = common.make_policy(args)
    assert args.device == "cuda" and args.dtype == "bfloat16"
    assert all(weight.is_cuda for weight in [*policy.model.parameters(), *policy.model.buffers()])
    assert policy.dtype == torch.bfloat16 and policy.base.config.text_config.vocab_size == 2048


@pytest.mark.parametrize("policy", ["tiny", "2b"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("step", ["--only", "ours", "--steps", "2", "--warmup", "1", "--offload-tower"]),
     ("growth", ["--steps", "1", "--group-sizes", "2", "4", "--lengths", "2", "4", "--image-sizes", "28", "56",
                 "--gradient-checkpointing"]),
     ("run200", ["--steps", "2", "--micro-batch", "2"]),
     ("parts", ["--steps", "2", "--warmup", "1", "--fixed-length"]),
     ("peaks", ["--micro-batch", "2"])],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_script_runs_on_a_gpu(card, tmp_path, name, arguments, policy):
    result = run(name, tmp_path, "--policy", policy, "--device", "cuda", *SIZES, *arguments)
    assert result["environment"]["gpu"] == "pretended" and result["environment"]["gpu_capability"] == "8.0"
    assert result["arguments"]["device"] == "cuda" and result["arguments"]["dtype"] == "bfloat16"
    assert sum(graph.replays for graph in card.graphs) > 0 and "warnings" not in result
    assert "pretended" in rendered(tmp_path)


def test_the_2b_policy_has_sizes_of_its_own(card, tmp_path, monkeypatch):
    """Four prompts of G 8, 256 tokens and images of 448 pixels, with what saves memory."""
    saving = ["--gradient-checkpointing", "--offload-tower", "--micro-batch", "8"]
    monkeypatch.setitem(common.SIZES, "2b", common.SIZES["2b"] | {"images": 8})
    result = run("step", tmp_path, "--policy", "2b", "--only", "ours", "--steps", "1", "--warmup", "0", *saving)
    sizes = {name: result["arguments"][name] for name in ("prompts", "group_size", "length", "image_size")}
    assert sizes == {"prompts": 4, "group_size": 8, "length": 256, "image_size": 448}
    assert result["image_tokens"] == 256 and result["ours"]["peak_bytes"] > 0


def test_a_step_next_to_trl(card, tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    result = run("step", tmp_path, "--policy", "2b", *SIZES, "--steps", "2", "--warmup", "1")
    assert len(result["ratio"]["values"]) == 2 and result["trl"]["peak_bytes"] > 0
    rendered(tmp_path, "times as fast as TRL")


@pytest.mark.filterwarnings("default:decoding goes on without a CUDA graph")
@pytest.mark.parametrize("name", ["run200", "memory"])
def test_a_graph_that_cannot_be_captured_is_in_the_result(card, tmp_path, monkeypatch, name):
    @contextlib.contextmanager
    def refuse(*_, **__):
        raise RuntimeError("this kernel cannot be captured")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    sizes = [*ONE_CELL, "--features", "kept", "--weights", "unquantised"] if name == "memory" else [*SIZES, "--steps=2"]
    result = run(name, tmp_path, *TINY, *sizes)
    (warning,) = (result["cells"][0] if name == "memory" else result)["warnings"]
    assert "could not be captured: this kernel cannot be captured" in warning
    rendered(tmp_path, "**Decoded without a CUDA graph**")


# --------------------------------------------------------------------------------------------------------------- memory


def test_the_memory_of_a_cell_and_its_smallest_card(card, tmp_path):
    """Encoded once with the tower away, and in each step; each cell once without and once with a cap."""
    result = run("memory", tmp_path, "--policy", "2b", *ONE_CELL, "--weights", "unquantised")
    assert result["kind"] == "gpu" and result["open"] == 0
    assert [entry["cell"]["features"] for entry in result["cells"]] == ["kept", "each-step"]
    for entry in result["cells"]:
        assert entry["cards"] == {"6": "fits"} and entry["card_gb"] == 6 and "error" not in entry
        assert 0 < entry["loaded_bytes"] < entry["allocated_bytes"] <= entry["reserved_bytes"]
        assert entry["cell"]["dtype"] == "bfloat16" and entry["cell"]["gradient_checkpointing"]
    assert card.limit < pretended_cuda.TOTAL, "the last process was capped"
    rendered(tmp_path, "| 6 GB |")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_capped_process_says_that_its_memory_ran_out(card, device):
    args = common.parse(common.parser("", "2b", without=["micro-batch"]), SIZES)
    (cell,) = memory.cells_of(argparse_like(args))
    worker = ["--policy", "2b", "--device", device, "--cell", json.dumps(cell)]
    for cap, key in (("0.0001", "oom"), ("6", "allocated_bytes")):
        process = call("memory", [*worker, "--cap", cap], card)
        assert process.returncode == 0, process.stderr
        assert key in json.loads(process.stdout.splitlines()[-1])


def argparse_like(args):
    """Arguments of memory.py for one cell."""
    own = {"weights": ["unquantised"], "features": ["kept"], "micro_batch": None}
    axes = {f"{name}s": [getattr(args, name)] for name in ("group_size", "image_size", "length")}
    return SimpleNamespace(**vars(args) | own | axes)


def test_cells_in_four_bits_are_left_out_without_bitsandbytes(card, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "bits" in name else find(name, *rest))
    result = run("memory", tmp_path, *TINY, *ONE_CELL, "--features", "kept")
    assert [entry["cell"]["weights"] for entry in result["cells"]] == ["unquantised"] and result["open"] == 0
    rendered(tmp_path, "Left out: 4-bit weights, which need bitsandbytes.")


def test_a_cell_in_four_bits_gets_as_far_as_bitsandbytes(card, tmp_path, monkeypatch):
    """The checkpoint is written on the device and found by the cell's process, whose error is the cell's."""
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed: the next test takes the cell to its end")
    monkeypatch.setattr(memory, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: True)))
    result = run("memory", tmp_path, *TINY, *ONE_CELL, "--features", "kept", "--weights", "4bit")
    (entry,) = result["cells"]
    assert "bitsandbytes: pip install 'favor-lab[qlora]'" in entry["error"] and "cards" not in entry
    rendered(tmp_path, "| 4-bit LoRA | kept | failed |")


@pytest.mark.filterwarnings("ignore")
def test_cells_in_four_bits(card, tmp_path):
    pytest.importorskip("bitsandbytes")
    result = run("memory", tmp_path, *TINY, *ONE_CELL, "--weights", "4bit")
    assert [entry.get("card_gb") for entry in result["cells"]] == [6, 6], result["cells"]


# ------------------------------------------------------------------------------------------------------ all of them


def test_the_one_command_from_the_card_to_the_page(card, tmp_path, monkeypatch, capsys):
    """The scripts with the arguments that they get on a card, but fewer steps and smaller sizes."""
    fewer = {
        "step": "--steps 1 --warmup 1", "run200": "--steps 2", "parts": "--steps 2 --warmup 1", "peaks": "",
        "growth": "--steps 1 --warmup 0 --group-sizes 2 4 --lengths 2 4 --image-sizes 28 56",
        "memory": "--group-sizes 2 --image-sizes 56 --lengths 4 --features kept --weights unquantised --workers 1",
    }  # fmt: skip
    sizes = common.SIZES["tiny"] | {"device": "cuda", "images": 16}
    monkeypatch.setitem(common.SIZES, "2b", sizes)
    jobs = [replace(job, ways=tuple(f"{way} {fewer[job.script]}" for way in job.ways)) for job in measure_card.JOBS]
    monkeypatch.setattr(measure_card, "JOBS", jobs)
    monkeypatch.setattr(measure_card, "ask_the_card", lambda machine: common.environment("cuda", machine))

    def call_a_script(command, log):
        process = call(command[1].rpartition("/")[2].removesuffix(".py"), command[2:], card)
        return process.returncode, process.stderr.splitlines()[-5:]

    monkeypatch.setattr(measure_card, "run", call_a_script)
    if importlib.util.find_spec("trl") is None:
        monkeypatch.setattr(measure_card, "JOBS", [replace(jobs[0], ways=jobs[0].ways[2:]), *jobs[1:]])
    assert measure_card.main(["--out", str(tmp_path / "card")]) == 0, capsys.readouterr().out
    assert "open an issue in the project's issue tracker and attach this file" in capsys.readouterr().out
    content = json.loads((tmp_path / "card" / "favor-lab-pretended.json").read_text())
    assert [entry["state"] for entry in content["scripts"]] == ["measured"] * len(jobs)
    added = card_file.unpack(tmp_path / "card" / "favor-lab-pretended.json", tmp_path)
    assert {path.name for path in added} == {f"{job.result}-pretended.json" for job in jobs}
    text = rendered(tmp_path, "A long run", "Tensors in memory", "Growth", "What each part of the fast path buys")
    assert text.count("pretended; Python") == len(jobs)
