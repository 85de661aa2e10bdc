"""A run of 200 steps with 16 prompts and 8 completions each: total time, seconds by phase, peak memory, decoding speed.

    python tests/benchmarks/run200.py                  # Qwen2-VL-2B's shape, random weights, on a GPU
    python tests/benchmarks/run200.py --policy pocket --steps 20 --length 64

Next to the result is a file with one line of JSON per step, written as the steps end. The total begins when the policy
is loaded and includes encoding the images. Every completion has exactly --length tokens: random weights would not end
one. Decoding is compared with its bound: the time to read the language model's weights once per token position at the
measured memory bandwidth. No decoder that reads every weight once per token position can be faster.
"""

from __future__ import annotations

from favor_lab import share_cores

if __name__ == "__main__":
    share_cores()  # before torch is imported

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common import (
    check_lengths,
    count_tokens,
    counted,
    make_policy,
    make_settings,
    make_shots,
    measured_rates,
    now,
    parse,
    parser,
    phase_seconds,
    result_path,
    save,
    seconds_of,
    summary,
)
from favor_lab import FewShot, Policy, encode_prompts, run_prompt, train
from favor_lab.budget.machine import MemoryWatch
from favor_lab.budget.profiling import never_end


def run(policy: Policy, shots: FewShot, args: argparse.Namespace, lines: Path) -> dict[str, Any]:
    """The run, with a line of JSON per step."""
    records, seconds = [], []
    with MemoryWatch(args.device) as memory, lines.open("w") as file:
        start = last = now(args.device)
        for record in tqdm(train(policy, shots, make_settings(args, args.steps)), total=args.steps, desc="run"):
            seconds.append(now(args.device) - last)
            last += seconds[-1]
            check_lengths(record, args.length)
            records.append(record)
            file.write(json.dumps(record.to_dict() | {"step_seconds": seconds[-1]}) + "\n")
            file.flush()
    result: dict[str, Any] = {
        "total_seconds": last - start,
        "seconds": summary(seconds),
        "phases": phase_seconds(records),
        "phases_total": {p: sum(record.seconds.get(p, 0.0) for record in records) for p in records[-1].seconds},
        "completion_tokens": sum(record.tokens for record in records),
        "sampling_gap": max(record.sampling_gap or 0.0 for record in records),
    }
    if torch.device(args.device).type == "cuda":
        reserved = torch.cuda.max_memory_reserved(args.device)
        return result | {"loaded_bytes": memory.before, "peak_bytes": memory.peak, "peak_reserved_bytes": reserved}
    return result | {"growth_bytes": memory.peak - memory.before}


@torch.no_grad()
def prefill_seconds(policy: Policy, shots: FewShot, args: argparse.Namespace, repeats: int = 3) -> float:
    """Median seconds of one pass of a step's prompts through the language model."""
    examples = (shots.train * args.prompts)[: args.prompts]
    prompts = encode_prompts(policy, examples, shots.labels, completion_tokens=args.length)
    times = []
    for _ in range(repeats + 1):
        start = now(args.device)
        run_prompt(policy, prompts)
        times.append(now(args.device) - start)
    return statistics.median(times[1:])


def language_model_bytes(policy: Policy) -> int:
    """Bytes of the weights that a token passes: all but the tower; a tied embedding counts once, as the head."""
    weights = [(name, weight) for name, weight in policy.model.named_parameters() if ".visual." not in f".{name}"]
    untied = policy.base.lm_head.weight is not policy.base.model.language_model.get_input_embeddings().weight
    skip = "embed_tokens" if untied else "no such name"  # a row of the embeddings is read, not all of them
    return sum(weight.nbytes for name, weight in weights if skip not in name)


def decoding(
    policy: Policy, shots: FewShot, args: argparse.Namespace, result: dict[str, Any], rates: dict[str, float]
) -> dict[str, float]:
    """Seconds of decoding in a step, measured and bound, and the achieved share of the bound."""
    phases = result["phases"]
    prefill = phases.get("prefill", prefill_seconds(policy, shots, args))
    decode = phases.get("decode", phases["sample"] - prefill)
    size, bandwidth = language_model_bytes(policy), rates["bytes_per_second"]
    bound = size * (args.length - 1) / bandwidth  # the first token comes out of the prompt's pass
    with_cache = seconds_of(counted(policy, args, count_tokens(policy, shots, args)), rates)["decode"]
    return {
        "weight_bytes": size, "bytes_per_second": bandwidth, "flops_per_second": rates["flops_per_second"],
        "prefill_seconds": prefill, "decode_seconds": decode, "bound_seconds": bound, "share": bound / decode,
        "counted_bound_seconds": with_cache, "counted_share": with_cache / decode,
    }  # fmt: skip


def report(result: dict[str, Any], args: argparse.Namespace) -> str:
    """The lines to print."""
    total, decode = result["total_seconds"], result["decoding"]
    lines = [f"{args.steps} steps x {args.prompts} prompts x G {args.group_size}: {total / 60:.2f} min"]
    if args.steps != 200:
        lines[0] += f", {200 * result['seconds']['median'] / 60:.2f} min for 200 at the median step"
    lines += [f"  {phase:<12}{seconds:9.3f} s per step" for phase, seconds in result["phases"].items()]
    if "peak_bytes" in result:
        allocated, reserved = result["peak_bytes"] / 1e9, result["peak_reserved_bytes"] / 1e9
        lines.append(f"peak memory {allocated:.2f} GB allocated, {reserved:.2f} GB reserved")
    lines.append(
        f"decoding {decode['decode_seconds']:.3f} s per step; bound by reading {decode['weight_bytes'] / 1e9:.2f} GB of"
        f" weights per token position at {decode['bytes_per_second'] / 1e9:.0f} GB/s: {decode['bound_seconds']:.3f} s,"
        f" {100 * decode['share']:.0f} % of it reached"
        f" ({100 * decode['counted_share']:.0f} % of the bound with keys, values and FLOPs)"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__, policy="2b")
    options.add_argument("--steps", type=int, default=200, help="optimiser steps (default: 200)")
    args = parse(options, argv, {"2b": {"prompts": 16}, "pocket": {"prompts": 16}})
    rates = measured_rates(args)
    policy, shots = make_policy(args), make_shots(args)
    never_end(policy)
    path = result_path(args, f"run-{args.policy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = run(policy, shots, args, path.with_suffix(".jsonl"))
    result["decoding"] = decoding(policy, shots, args, result, rates)
    print(report(result, args))
    print(save(args, f"run-{args.policy}", "run", result))


if __name__ == "__main__":
    main()
