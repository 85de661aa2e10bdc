"""What a step costs with a recipe, relative to a plain step of GRPO: both alternate in one process.

    python tests/benchmarks/recipes.py                          # the pocket policy on the CPU
    python tests/benchmarks/recipes.py --recipes papo vppo --coefficients exact=0 --tag k3
    python tests/benchmarks/recipes.py --policy 2b              # Qwen2-VL-2B's shape, random weights, on a GPU

Plain GRPO and each recipe have a policy of their own with the same weights, and take a step in turn; every completion
has exactly --length tokens, which is checked; a recipe that scores rows which end cannot be measured so, and is left
out with its reason. A ratio is that of two steps of one turn. The images are encoded once, before the first step, which
is not in these times; what a recipe encodes in each step is. --coefficients go to every recipe that has a parameter of
that name.
"""

from __future__ import annotations

from favor_lab import share_cores

if __name__ == "__main__":
    share_cores()  # before torch is imported

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from common import (
    check_lengths,
    count_tokens,
    make_policy,
    make_settings,
    make_shots,
    now,
    parse,
    parser,
    phase_seconds,
    save,
    summary,
)
from favor_lab import GRPOSettings
from favor_lab.budget.profiling import never_end
from favor_lab.grpo.support.steps import names
from favor_lab.recipes import RECIPES, Recipe, find_recipe

PLAIN = "plain"
MEASURED = ("papo", "vppo", "noisy-rollout", "care")


def coefficient(text: str) -> tuple[str, float]:
    """A coefficient of the command line.

    >>> coefficient("gamma=0.04")
    ('gamma', 0.04)
    """
    name, _, value = text.partition("=")
    return name, float(value)


def settings_for(recipe: Recipe, settings: GRPOSettings, coefficients: dict[str, float]) -> GRPOSettings:
    """The settings with the coefficients that a step of this recipe takes."""
    steps = [step for slot, step in recipe.steps.items() if slot != "rewards"] + [*recipe.steps.get("rewards", ())]
    own = {name: value for name, value in coefficients.items() if any(names(step, name) for step in steps)}
    return replace(settings, coefficients=own)


def start(args: argparse.Namespace, name: str, shots: Any) -> Iterator[Any]:
    """The steps of a recipe, or of plain GRPO, on a policy of its own: records, lazily."""
    policy, recipe = make_policy(args), find_recipe("" if name == PLAIN else name)
    never_end(policy)
    settings = settings_for(recipe, make_settings(args, args.warmup + args.steps), dict(args.coefficients))
    return recipe.train(policy, shots, settings)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    shots, turns = make_shots(args), args.warmup + args.steps
    result: dict[str, Any] = dict(count_tokens(make_policy(args), shots, args))
    sides = {name: start(args, name, shots) for name in (PLAIN, *args.recipes)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    records: dict[str, list[Any]] = {name: [] for name in sides}
    left_out: dict[str, str] = {}  # with the reason
    for _ in tqdm(range(turns), desc="recipes"):
        for name, steps in list(sides.items()):
            before = now(args.device)
            try:
                record = next(steps)
            except (ValueError, FloatingPointError) as error:  # such as rows that end, which cannot be scored here
                if name == PLAIN:
                    raise
                left_out[name] = str(error)
                del sides[name]
                continue
            seconds[name].append(now(args.device) - before)
            check_lengths(record, args.length)
            records[name].append(record)
    result["recipes"], result["left_out"] = {}, left_out
    for name in sides:
        own, plain = (seconds[side][args.warmup :] for side in (name, PLAIN))
        result["recipes"][name] = {
            "seconds": summary(own),
            "ratio": summary([a / b for a, b in zip(own, plain, strict=True)]),
            "phases": phase_seconds(records[name][args.warmup :]),
        }
    return result


def report(result: dict[str, Any]) -> str:
    lines = []
    for name, entry in result["recipes"].items():
        low, high = entry["ratio"]["quartiles"]
        phases = ", ".join(f"{phase} {value:.3f}" for phase, value in entry["phases"].items())
        lines.append(
            f"{name:<14}{entry['seconds']['median']:8.3f} s, {entry['ratio']['median']:.2f} times a plain step "
            f"({low:.2f} to {high:.2f}): {phases}"
        )
    lines += [f"{name:<14}left out: {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__, "pocket")
    options.add_argument(
        "--recipes", nargs="+", choices=tuple(RECIPES), default=list(MEASURED), metavar="NAME",
        help=f"recipes beside plain GRPO (default: {' '.join(MEASURED)})",
    )  # fmt: skip
    options.add_argument("--coefficients", nargs="+", type=coefficient, default=[], metavar="NAME=NUMBER")
    options.add_argument("--steps", type=int, default=20, help="timed steps of each (default: 20)")
    options.add_argument("--warmup", type=int, default=3, help="steps of each before them (default: 3)")
    args = parse(options, argv)
    result = measure(args)
    args.coefficients = [f"{name}={value:g}" for name, value in args.coefficients]  # as they are written in the file
    print(report(result))
    print(save(args, f"recipes-{args.policy}", "recipes", result))


if __name__ == "__main__":
    main()
