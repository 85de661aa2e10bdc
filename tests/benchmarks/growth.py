"""How the time of a step grows with the group, the prompt and the completion, next to the counted cost.

    python tests/benchmarks/growth.py                  # the pocket policy on the CPU
    python tests/benchmarks/growth.py --policy 2b      # Qwen2-VL-2B's shape, random weights, on a GPU

Three sweeps around one setting: G; the prompt's length, by the labels that it names and the size of the image; the
completion's length. Within a sweep the points alternate, one step each, so that a machine that slows down affects all
of them. The expected line is the counted bound of `favor_lab.budget.flops` (FLOPs at the measured matrix rate or bytes
at the measured bandwidth, whichever takes longer, phase by phase), scaled to the first point.
"""

from __future__ import annotations

from favor_lab import share_cores

if __name__ == "__main__":
    share_cores()  # before torch is imported

import argparse
import copy
from collections.abc import Iterator, Sequence
from typing import Any

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
    processor,
    save,
    seconds_of,
    summary,
)
from favor_lab import Policy, train
from favor_lab.budget.profiling import never_end

PHASES = {"sample": ("prefill", "decode"), "reference": ("reference",), "loss": ("score", "backward")}
SWEEPS = {  # defaults
    "pocket": dict(group_sizes=[2, 4, 8, 16, 32], lengths=[16, 32, 64, 128], image_sizes=[84, 140, 224, 336]),
    "2b": dict(group_sizes=[2, 4, 8, 16, 32], lengths=[32, 64, 128, 256], image_sizes=[112, 224, 336, 448]),
    "tiny": dict(group_sizes=[2, 4], lengths=[2, 4], image_sizes=[28, 56]),
}
LIMIT = 1.15  # allowed cost of doubling G, as a multiple of the expected cost


class Point:
    """One setting of a sweep: a run of its own on the shared policy, advanced one step at a time."""

    def __init__(self, policy: Policy, args: argparse.Namespace, **changes: int):
        self.args, self.policy, self.x = copy.copy(args), policy, changes
        for name, value in changes.items():
            setattr(self.args, name, value)
        shots = make_shots(self.args)
        policy.processor = processor(self.args.image_size)
        self.tokens = count_tokens(policy, shots, self.args)
        self.steps = train(policy, shots, make_settings(self.args, args.warmup + args.steps))
        self.seconds, self.records = list[float](), list[Any]()

    def step(self) -> None:
        self.policy.processor = processor(self.args.image_size)  # for the images that the first step encodes
        start = now(self.args.device)
        record = next(self.steps)
        self.seconds.append(now(self.args.device) - start)
        check_lengths(record, self.args.length)
        self.records.append(record)

    def result(self, rates: dict[str, float]) -> dict[str, Any]:
        """Seconds measured, and what is counted for them, with the prompt once per group and once per completion."""
        warm = self.args.warmup
        bounds = {}
        for name, shared in (("bound", True), ("bound_unshared", False)):
            phases = seconds_of(counted(self.policy, self.args, self.tokens, shared), rates)
            bounds[name] = phases | {"step": sum(phases.values())}
        phases = phase_seconds(self.records[warm:])
        return {**self.x, **self.tokens, "seconds": summary(self.seconds[warm:]), "phases": phases, **bounds}


def points_of(policy: Policy, args: argparse.Namespace, sweep: str) -> Iterator[Point]:
    """The settings of a sweep, cheapest first."""
    if sweep == "group":
        for group in args.group_sizes:
            yield Point(policy, args, group_size=group)
    elif sweep == "completion":
        for length in args.lengths:
            yield Point(policy, args, length=length)
    else:
        few = max(1, args.labels // 4)
        yield Point(policy, args, labels=few, image_size=args.image_sizes[0])  # the shortest question
        for size in args.image_sizes:
            yield Point(policy, args, labels=args.labels, image_size=size)


def run_sweep(policy: Policy, args: argparse.Namespace, sweep: str, rates: dict[str, float]) -> list[dict[str, Any]]:
    points = list(points_of(policy, args, sweep))
    for _ in tqdm(range(args.warmup + args.steps), desc=sweep):
        for point in points:
            point.step()
    return [point.result(rates) for point in points]


def expected(points: Sequence[dict[str, Any]], bound: str = "bound") -> list[float]:
    """The counted seconds of a step at each point, scaled so that the first is the measured one.

    >>> one = {"seconds": {"median": 3.0}, "bound": {"step": 1.0}}
    >>> expected([one, {"seconds": {"median": 9.0}, "bound": {"step": 2.0}}])
    [3.0, 6.0]
    """
    scale = points[0]["seconds"]["median"] / points[0][bound]["step"]
    return [scale * point[bound]["step"] for point in points]


def doublings(points: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The factor by which each doubling of G multiplies the step's seconds, measured and counted: doubling adds only
    completion tokens, not prompts."""
    pairs = []
    for one in points:
        for two in points:
            if two["group_size"] == 2 * one["group_size"]:
                measured = two["seconds"]["median"] / one["seconds"]["median"]
                counts = two["bound"]["step"] / one["bound"]["step"]
                pairs.append(
                    {"from": one["group_size"], "measured": measured, "counted": counts, "excess": measured / counts}
                )
    return pairs


def prompt_growth(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Longest over shortest prompt: seconds of a step measured, and counted with each prompt once per group or once
    per completion."""
    short, long = (choose(points, key=lambda point: point["prompt_tokens"]) for choose in (min, max))
    return {
        "from_tokens": short["prompt_tokens"],
        "to_tokens": long["prompt_tokens"],
        "measured": long["seconds"]["median"] / short["seconds"]["median"],
        "counted_once_a_group": long["bound"]["step"] / short["bound"]["step"],
        "counted_once_a_completion": long["bound_unshared"]["step"] / short["bound_unshared"]["step"],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    rates = measured_rates(args)
    policy = make_policy(args)
    never_end(policy)
    sweeps = {sweep: run_sweep(policy, args, sweep, rates) for sweep in args.sweeps}
    result: dict[str, Any] = {"rates": rates, "sweeps": sweeps}
    if "group" in sweeps:
        result["doubling"] = doublings(sweeps["group"])
    if "prompt" in sweeps:
        result["prompt_growth"] = prompt_growth(sweeps["prompt"])
    return result


def report(result: dict[str, Any]) -> str:
    """The sweeps as tables, then the two claims."""
    lines = []
    for sweep, points in result["sweeps"].items():
        lines.append(f"{sweep}: G, prompt and completion tokens; seconds of a step, expected; by phase")
        for point, line in zip(points, expected(points), strict=True):
            phases = ", ".join(f"{name} {point['phases'].get(name, 0.0):.3f}" for name in PHASES)
            counts = {name.replace("_", " "): value for name, value in point.items() if isinstance(value, int)}
            x = ", ".join(f"{name} {value}" for name, value in counts.items())
            lines.append(f"  {x}: {point['seconds']['median']:.3f} s, expected {line:.3f} s ({phases})")
    for step in result.get("doubling", ()):
        verdict = "within" if step["excess"] <= LIMIT else "over"
        lines.append(
            f"G {step['from']} to {2 * step['from']}: {step['measured']:.2f} times the seconds; its completion tokens"
            f" alone: {step['counted']:.2f} times; quotient {step['excess']:.2f}, {verdict} the limit {LIMIT}"
        )
    if growth := result.get("prompt_growth"):
        lines.append(
            f"prompt of {growth['from_tokens']} to {growth['to_tokens']} tokens: {growth['measured']:.2f} times the"
            f" seconds; counted once per group {growth['counted_once_a_group']:.2f}, once per completion"
            f" {growth['counted_once_a_completion']:.2f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__, policy="pocket")
    add = options.add_argument
    add("--sweeps", nargs="+", choices=("group", "prompt", "completion"), default=["group", "prompt", "completion"])
    add("--group-sizes", type=int, nargs="+", metavar="G", help="of the sweep over G (default: 2 4 8 16 32)")
    add("--lengths", type=int, nargs="+", metavar="TOKENS", help="completion tokens of their sweep")
    add("--image-sizes", type=int, nargs="+", metavar="PIXELS", help="of the sweep over the prompt's length")
    add("--steps", type=int, default=5, help="timed steps of each point (default: 5)")
    add("--warmup", type=int, default=1, help="steps before them (default: 1)")
    args = parse(options, argv, SWEEPS)
    result = measure(args)
    print(report(result))
    print(save(args, f"growth-{args.policy}", "growth", result))


if __name__ == "__main__":
    main()
