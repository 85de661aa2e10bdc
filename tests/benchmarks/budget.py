"""Where a step's time goes: each phase's share, and how far it is from what the machine could do.

    python tests/benchmarks/budget.py                  # the pocket policy on the CPU
    python tests/benchmarks/budget.py --policy 2b      # Qwen2-VL-2B's shape, random weights, on a GPU

For every completion length, group size and number of threads one profiled step (`favor_lab.profile_step`): seconds,
FLOPs and tokens of each phase, its least FLOPs and bytes (`favor_lab.budget.flops`), and its bound at this machine's
measured rates. Besides, the operations that one more token costs in decoding: where matrices are small, their number
decides.
"""

from __future__ import annotations

from favor_lab import share_cores

if __name__ == "__main__":
    share_cores()  # before torch is imported

import argparse
import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from common import count_tokens, counted, make_policy, make_settings, make_shots, parse, parser, save
from favor_lab import Policy, PromptBatch, encode_prompts, sample_groups
from favor_lab.budget.profiling import endless, profile_step

GRIDS = {  # defaults
    "pocket": dict(lengths=[32, 64, 128], group_sizes=[8, 16], thread_counts=[1, 2]),
    "2b": dict(lengths=[64, 256], group_sizes=[8, 16], thread_counts=[1]),
    "tiny": dict(lengths=[4], group_sizes=[2], thread_counts=[1]),
}


class Operations(TorchDispatchMode):
    """Counts the operations that do work: views of a tensor do none."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def operations_per_token(policy: Policy, prompts: PromptBatch, group_size: int, decoding: str) -> int:
    """Operations of the last token of 4 completed tokens: those of 4 tokens less those of 3."""
    counts = []
    for length in (3, 4):
        with Operations() as operations, endless(policy):
            sample_groups(policy, prompts, group_size, length, seed=0, decoding=decoding)
        counts.append(operations.count)
    return counts[1] - counts[0]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    policy, shots, cells = make_policy(args), make_shots(args), list[dict[str, Any]]()
    grid = [(n, g, t) for n in args.lengths for g in args.group_sizes for t in args.thread_counts]
    before = torch.get_num_threads()
    for length, group_size, threads in tqdm(grid, desc="budget"):
        cell = copy.copy(args)
        cell.length, cell.group_size = length, group_size
        torch.set_num_threads(threads)
        profile = profile_step(policy, shots, make_settings(cell, 1), repeats=args.steps, fixed_length=True)
        costs = counted(policy, cell, count_tokens(policy, shots, cell))
        phases = {
            name: asdict(phase) | {"ideal_bytes": costs[name].bytes}
            for name, phase in profile.phases.items()
            if name in costs
        }
        cells.append({
            "length": length, "group_size": group_size, "threads": threads, "rates": profile.rates,
            "seconds": profile.seconds, "bound": profile.bound, "phases": phases,
        })  # fmt: skip
    torch.set_num_threads(before)
    prompts = encode_prompts(policy, shots.train[: args.prompts], shots.labels, completion_tokens=4)
    gpu = torch.device(args.device).type == "cuda"
    operations = {
        how: operations_per_token(policy, prompts, args.group_size, how) for how in ("plain", "static") if not gpu
    }
    return {"cells": cells, "operations_per_token": operations}


def report(result: dict[str, Any]) -> str:
    """One line per cell: the step, and each phase's share with how many times its bound it takes."""
    lines = []
    for cell in result["cells"]:
        phases = ", ".join(
            f"{name} {phase['seconds'] / cell['seconds']:.0%} ({phase['seconds'] / phase['bound']:.1f}x)"
            for name, phase in cell["phases"].items()
        )
        lines.append(
            f"{cell['length']} tokens, G {cell['group_size']}, {cell['threads']} threads: {cell['seconds']:.3f} s, "
            f"{cell['seconds'] / cell['bound']:.2f} times the bound: {phases}"
        )
    lines += [f"operations per decoded token, {how}: {n}" for how, n in result["operations_per_token"].items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__, "pocket")
    add = options.add_argument
    add("--lengths", type=int, nargs="+", metavar="TOKENS", help="completion tokens (default: 32 64 128)")
    add("--group-sizes", type=int, nargs="+", metavar="G", help="completions of a prompt (default: 8 16)")
    add("--thread-counts", type=int, nargs="+", metavar="N", help="CPU threads (default: 1 2)")
    add("--steps", type=int, default=5, help="timed steps of each cell (default: 5)")
    args = parse(options, argv, GRIDS)
    result = measure(args)
    print(report(result))
    print(save(args, f"budget-{args.policy}", "budget", result))


if __name__ == "__main__":
    main()
