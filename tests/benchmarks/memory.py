"""Peak GPU memory of a full optimiser step, sampling included, over a grid; and the smallest card on which it fits.

    python tests/benchmarks/memory.py                             # the whole grid, on a GPU
    python tests/benchmarks/memory.py --group-sizes 8 --image-sizes 448 --lengths 256 --features kept
    python tests/benchmarks/memory.py --minutes 9 --workers 4     # stop in time; the same command resumes

Each cell runs in a process of its own, two optimiser steps of --prompts prompts, one group at a time through the
scoring pass (--micro-batch). "kept" features: each image is encoded once, then the tower leaves the GPU; "each-step":
the images of a step are encoded in that step and the tower stays. The peak memory since the model was loaded is
reported, encoding included. Then a card of 6, 8, 12, 16 or 24 GB (of 10^9 bytes, so that the driver has its share
of the card too) is simulated by capping a fresh process's memory, beginning with the smallest candidate: the result is
the first one on which the same steps run.

A cell that is already in the file is not run again. Without CUDA, --policy tiny runs the same cells and reports the
growth of the process's resident memory, which says nothing about a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch
from tqdm import tqdm

from common import (
    check_lengths,
    count_tokens,
    environment,
    estimate_memory,
    is_same_setup,
    make_policy,
    make_settings,
    make_shots,
    parse,
    parser,
    random_policy,
    result_path,
    save,
    warned,
)
from favor_lab import FewShot, Policy, TrainingState, load_policy, train
from favor_lab.budget.machine import MemoryWatch
from favor_lab.budget.profiling import never_end

CARDS = (6, 8, 12, 16, 24)  # GB
STEPS = 2  # the optimiser's state exists from the second one on
GOAL = {"group_size": 8, "image_size": 448, "length": 256, "features": "kept"}
CPU_NOTE = "resident memory of a process on the CPU: it exercises the script and is no GPU figure"
Cell = dict[str, Any]


# -------------------------------------------------------------------------------------------------- in a cell's process


def run_cell(args: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """Peak memory of the cell's steps, or {"oom": torch's message}."""
    gpu = torch.device(args.device).type == "cuda"
    if gpu and args.cap:
        total = torch.cuda.get_device_properties(args.device).total_memory
        index = torch.device(args.device).index  # None, the current device: this function does not know "cuda"
        torch.cuda.set_per_process_memory_fraction(min(1.0, args.cap * 1e9 / total), index)
    try:
        return steps_of(args, cell, gpu)
    except torch.OutOfMemoryError as error:
        return {"oom": str(error)}


def steps_of(args: argparse.Namespace, cell: Cell, gpu: bool) -> dict[str, Any]:
    for name, value in cell.items():
        setattr(args, name, value)
    policy, shots = load(args), make_shots(args)
    never_end(policy)
    result: dict[str, Any] = {"estimate_bytes": estimate_memory(policy, args, count_tokens(policy, shots, args))}
    if gpu:
        torch.cuda.empty_cache()
    with MemoryWatch(args.device) as memory:
        take_steps(policy, shots, args)
    result |= warned()
    if not gpu:
        return result | {"growth_bytes": memory.peak - memory.before}
    reserved = torch.cuda.max_memory_reserved(args.device)
    return result | {"loaded_bytes": memory.before, "allocated_bytes": memory.peak, "reserved_bytes": reserved}


def load(args: argparse.Namespace) -> Policy:
    """The cell's policy; one in four bits from the checkpoint that the parent process has made."""
    if args.weights != "4bit":
        return make_policy(args)
    pixels = dict(max_pixels=args.image_size**2, min_pixels=args.image_size**2)
    return load_policy(args.checkpoint, args.lora_rank, quantize="4bit", device=args.device, dtype=args.dtype, **pixels)


def take_steps(policy: Policy, shots: FewShot, args: argparse.Namespace) -> None:
    """STEPS optimiser steps; features kept for the run, or encoded in each step from the images of that step."""
    settings = make_settings(args, STEPS)
    if args.features == "kept":
        for record in train(policy, shots, settings):
            check_lengths(record, args.length)
        return
    state = TrainingState.start(policy, settings)
    of_a_step = FewShot(shots.train[: args.prompts], [], [], shots.labels)
    for _ in range(STEPS):
        check_lengths(next(train(policy, of_a_step, settings, resume=state)), args.length)  # encodes, then steps


# ------------------------------------------------------------------------------------------------ in the parent process


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """The grid, everything that memory depends on in each cell; the cell with a goal comes first."""
    fixed = ("prompts", "images", "labels", "beta", "lora_rank", "gradient_checkpointing", "decoding", "dtype")
    axes = itertools.product(args.weights, args.features, args.group_sizes, args.image_sizes, args.lengths)
    cells = [
        {name: getattr(args, name) for name in fixed}
        | {"policy": args.policy, "weights": weights, "features": features, "offload_tower": features == "kept"}
        | {"group_size": group, "image_size": image, "length": length}
        | {"micro_batch": group if args.micro_batch is None else args.micro_batch}
        for weights, features, group, image, length in axes
    ]
    return sorted(cells, key=lambda cell: GOAL.items() <= cell.items(), reverse=True)


def start_process(args: argparse.Namespace, *extra: str) -> dict[str, Any]:
    """Run this script for one cell in a fresh interpreter and read the result from its last line."""
    command = [sys.executable, __file__, "--policy", args.policy, "--device", args.device, "--seed", str(args.seed)]
    command += ["--threads", str(args.threads)] if args.threads else []
    process = subprocess.run([*command, *extra], capture_output=True, text=True)
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        return {"error": (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]}
    return json.loads(lines[-1])


def measure_cell(args: argparse.Namespace, cell: Cell, checkpoint: str) -> dict[str, Any]:
    """Its peak without a cap, and the smallest card on which it runs (None: none of them)."""
    extra = ["--cell", json.dumps(cell), "--checkpoint", checkpoint]
    result = start_process(args, *extra)
    if "allocated_bytes" not in result:
        return result
    attempts: dict[str, str] = {}
    result |= {"card_gb": None, "cards": attempts}
    for card in (card for card in CARDS if card * 1e9 >= result["allocated_bytes"]):
        capped = start_process(args, *extra, "--cap", str(card))
        if "error" in capped:
            return result | {"error": f"capped at {card} GB: {capped['error']}"}
        attempts[str(card)] = "does not fit" if "oom" in capped else "fits"
        if "oom" not in capped:
            return result | {"card_gb": card, "capped_reserved_bytes": capped["reserved_bytes"]}
    return result


def known(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The cells to continue from: those in the file, if it is of this machine and of these versions."""
    path = result_path(args, f"memory-{args.policy}")
    result = json.loads(path.read_text()) if path.is_file() else {"environment": {"versions": {}}}
    if not is_same_setup(result["environment"], environment(args.device, args.machine)):
        return []
    return [entry for entry in result["cells"] if "error" not in entry]


def describe(cell: Cell, result: dict[str, Any]) -> str:
    """A cell in one line."""
    features = "kept" if cell["features"] == "kept" else "each step"
    weights = "4bit" if cell["weights"] == "4bit" else cell["dtype"]
    head = f"{weights:<9}G {cell['group_size']:<3}{cell['image_size']}² {cell['length']:>4} tokens, {features}: "
    if "allocated_bytes" in result and "error" not in result:
        card = f"fits on {result['card_gb']} GB" if result["card_gb"] else f"fits on no card of {CARDS[-1]} GB or less"
        allocated, reserved = result["allocated_bytes"] / 1e9, result["reserved_bytes"] / 1e9
        estimate = max(result["estimate_bytes"].values(), default=0.0) / 1e9
        return head + f"{allocated:.2f} GB allocated ({estimate:.2f} estimated), {reserved:.2f} reserved, {card}"
    if "growth_bytes" in result:
        return head + f"{result['growth_bytes'] / 1e6:.1f} MB more resident memory (CPU, no GPU figure)"
    return head + next(f"{key}: {result[key]}" for key in ("oom", "error", "skipped") if key in result)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells that the file does not have yet; the file is rewritten after each."""
    done, deadline = known(args), time.monotonic() + 60 * args.minutes
    waiting = [cell for cell in cells_of(args) if cell not in [entry["cell"] for entry in done]]
    gpu = torch.device(args.device).type == "cuda"
    result: dict[str, Any] = {"kind": "gpu" if gpu else "cpu", "note": None if gpu else CPU_NOTE}

    def note(cell: Cell, cell_result: dict[str, Any]) -> None:
        done.append({"cell": cell, **cell_result})
        waiting.remove(cell)
        tqdm.write(describe(cell, cell_result))
        save(args, f"memory-{args.policy}", "memory", result | {"open": len(waiting), "cells": done})

    if not gpu or importlib.util.find_spec("bitsandbytes") is None:
        reason = f"4-bit weights, which need {'bitsandbytes' if gpu else 'a CUDA device'}"
        for cell in [cell for cell in waiting if cell["weights"] == "4bit"]:
            tqdm.write(describe(cell, {"skipped": reason}))
            waiting.remove(cell)
            result["skipped"] = reason
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        if any(cell["weights"] == "4bit" for cell in waiting):
            tqdm.write("writing a checkpoint for the cells in four bits")
            if "error" in (made := start_process(args, "--make-checkpoint", folder, "--dtype", args.dtype)):
                raise SystemExit(f"the checkpoint could not be written: {made['error']}")

        def in_time(cell: Cell) -> dict[str, Any] | None:
            return measure_cell(args, cell, folder) if time.monotonic() < deadline else None

        jobs = {pool.submit(in_time, cell): cell for cell in [*waiting]}
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="memory", disable=None):
            if (found := job.result()) is not None:
                note(jobs[job], found)
    print(f"{len(waiting)} of {len(cells_of(args))} cells are open" if waiting else "no cell is open")
    return done


def main(argv: Sequence[str] | None = None) -> None:
    without = ("group-size", "length", "image-size", "micro-batch", "offload-tower")
    options = parser(__doc__, policy="2b", without=without)
    options.set_defaults(gradient_checkpointing=True)
    add = options.add_argument
    add("--group-sizes", type=int, nargs="+", default=[4, 8, 16], metavar="G")
    add("--image-sizes", type=int, nargs="+", default=[224, 448], metavar="PIXELS")
    add("--lengths", type=int, nargs="+", default=[64, 256], metavar="TOKENS")
    add("--weights", nargs="+", choices=("unquantised", "4bit"), default=["unquantised", "4bit"])
    add("--features", nargs="+", choices=("kept", "each-step"), default=["kept", "each-step"])
    add("--micro-batch", type=int, help="completions in a forward and backward pass (default: one group)")
    add("--workers", type=int, default=1, help="cells at a time, if the GPU has room for several (default: 1)")
    add("--minutes", type=float, default=1e6, help="start no further cell after this time")
    for internal in ("--cell", "--checkpoint", "--make-checkpoint"):
        add(internal, help=argparse.SUPPRESS)
    add("--cap", type=float, help=argparse.SUPPRESS)
    args = parse(options, argv)
    if args.make_checkpoint:
        whole = random_policy(args.policy, args.device, args.dtype, 0, 448, args.seed)
        print(json.dumps({"saved": str(whole.save(args.make_checkpoint))}))
    elif args.cell:
        print(json.dumps(run_cell(args, json.loads(args.cell))))
    else:
        measure(args)
        print(result_path(args, f"memory-{args.policy}"))


if __name__ == "__main__":
    main()
