"""Bytes of tensors at the peak of each phase of a real step, beside the estimate that `favor_lab.fits` rests on.

    python tests/benchmarks/peaks.py                          # the pocket policy in several settings, on the CPU
    python tests/benchmarks/peaks.py --policy 2b --device cpu --dtype bfloat16 --prompts 1 --group-size 4 --length 24 \
        --image-size 224 --images 4                           # Qwen2-VL-2B's shape on a CPU: about 8 GB, some minutes

Each cell trains two steps with `favor_lab.train`; the second counts, since the optimiser's state exists from then on
(encoding happens once, before the first). On the CPU torch's own allocations and releases are added up: what a GPU's
allocator would report as allocated, without Python, libraries and the images of the image processor; the pixels it
hands to the tower, which numpy holds there, are added. On CUDA the allocator's numbers are used. Nothing is timed.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from common import (
    count_tokens,
    estimate_memory,
    make_policy,
    make_settings,
    make_shots,
    parse,
    parser,
    result_path,
    save,
)
from favor_lab import FewShot, Policy, train
from favor_lab.budget.machine import MemoryWatch
from favor_lab.budget.memory import LOOP_PHASES, fixed_bytes
from favor_lab.budget.profiling import endless
from favor_lab.budget.shapes import shape_of
from favor_lab.grpo import training
from favor_lab.grpo.support import questions
from favor_lab.grpo.support.clock import Clock

STEPS = 2
WATCHED = ("encode", "sample", "reference", "loss", "update")  # phases of the loop that are estimated
CHECKPOINTING, BOTH = {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "micro_batch": 8}
CELLS: dict[str, list[dict[str, Any]]] = {  # changes to the arguments
    "pocket": [{}, {"group_size": 16}, {"length": 64}, {"image_size": 224}, {"micro_batch": 8}, CHECKPOINTING, BOTH],
    "2b": [{}, CHECKPOINTING],
    "tiny": [{}, CHECKPOINTING],
}


class Watch(Clock):
    """The loop's clock, which marks its phases for the profiler and, for a GPU, notes the allocator's peak."""

    seen: dict[str, int]  # of the last step; set on a subclass for each measurement

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        with MemoryWatch(self.device) as memory, super().__call__(phase), record_function(f"phase:{phase}"):
            yield
        self.seen[phase] = memory.peak


def measure(policy: Policy, shots: FewShot, args: argparse.Namespace) -> dict[str, int]:
    """Peak bytes of tensors in each watched phase of the last of two steps; every completion has its full length."""
    clock = type("Clock", (Watch,), {"seen": {}})
    on_cpu = torch.device(args.device).type == "cpu"
    if on_cpu:
        torch.set_num_threads(1)  # the profiler sees the allocations of its own thread alone
    tensors = [*policy.model.parameters(), *policy.model.buffers(), policy.forbidden]
    weights = sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors}.values())
    watching: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True) if on_cpu else nullcontext()
    patches = [mock.patch.object(module, "Clock", clock) for module in (training, questions)]
    with patches[0], patches[1], endless(policy), watching:
        for _ in train(policy, shots, make_settings(args, STEPS)):
            pass
    peaks = {name: weights + most for name, most in on_top(watching).items()} if on_cpu else clock.seen
    return {name: peaks[name] for name in WATCHED if name in peaks}


def on_top(watched: Any) -> dict[str, int]:
    """The peak of allocated bytes since the profiler began, in each phase; a repeated phase replaces its first."""
    events = watched.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    times, levels = [time for time, _ in changes], [0, *itertools.accumulate(size for _, size in changes)]
    spans = [event for event in events if event.name().startswith("phase:")]
    peaks = {}
    for span in sorted(spans, key=lambda event: event.start_ns()):
        first, last = bisect.bisect_left(times, span.start_ns()), bisect.bisect_right(times, span.end_ns())
        peaks[span.name().removeprefix("phase:")] = max(levels[first : last + 1])
    return peaks


def compare(args: argparse.Namespace, cell: dict[str, Any], policy: Policy | None = None) -> dict[str, Any]:
    """A cell: measured and estimated bytes of each phase, and the estimate's error relative to the measurement."""
    args = argparse.Namespace(**(vars(args) | cell))
    policy, shots = policy or make_policy(args), make_shots(args)
    tokens, expected = (
        count_tokens(policy, shots, args),
        estimate_memory(policy, args, count_tokens(policy, shots, args)),
    )
    measured = measure(policy, shots, args)
    estimate = {
        name: max(expected[part] for part in LOOP_PHASES.get(name, (name,)) if part in expected) for name in measured
    }
    setting = ("prompts", "group_size", "length", "image_size", "images", "micro_batch", "gradient_checkpointing")
    return {
        "cell": {name: getattr(args, name) for name in setting} | tokens,
        "weights_bytes": sum(fixed_bytes(shape_of(policy))[part] for part in ("language", "tower", "adapter")),
        "measured_bytes": measured,
        "estimate_bytes": {name: round(value) for name, value in estimate.items()},
        "error": {name: estimate[name] / measured[name] - 1 for name in measured},
    }


def describe(result: dict[str, Any]) -> str:
    """A cell in one line."""
    measured, estimate = result["measured_bytes"], result["estimate_bytes"]
    parts = [f"{name} {measured[name] / 1e6:.1f} ({estimate[name] / 1e6:.1f})" for name in measured]
    return f"{result['cell']}: MB measured (estimated): {', '.join(parts)}"


def main(argv: Sequence[str] | None = None, progress: Callable[..., Any] = tqdm) -> None:
    options = parser(__doc__, policy="pocket")
    args = parse(options, argv)
    cells = []
    for cell in progress(CELLS[args.policy], desc="peaks", disable=None):
        cells.append(compare(args, cell))
        tqdm.write(describe(cells[-1]))
        kind = "gpu" if torch.device(args.device).type == "cuda" else "cpu"
        waiting = len(CELLS[args.policy]) - len(cells)
        save(args, f"peaks-{args.policy}", "peaks", {"kind": kind, "open": waiting, "cells": cells})
    print(result_path(args, f"peaks-{args.policy}"))


if __name__ == "__main__":
    main()
