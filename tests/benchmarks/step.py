"""Seconds of an optimiser step, favor_lab's and that of TRL's GRPOTrainer (transformers rollouts), side by side.

    python tests/benchmarks/step.py                    # the pocket policy on the CPU
    python tests/benchmarks/step.py --policy 2b        # Qwen2-VL-2B's shape, random weights, on a GPU
    python tests/benchmarks/step.py --only ours        # without trl and datasets

TRL's trainer controls the run: after each of its steps one step of `favor_lab.train` follows, so that both have the
same machine load. Same model, images, question, rewards, adapter, number type, optimiser, learning rate, completions
per prompt, rows in a pass, order of the images and reference (the same model with the adapter off), which is what
`favor_lab.trl_bridge` is for; every completion has exactly --length tokens on both sides, which is checked. favor_lab
encodes the images once, before the first step: that time is reported separately (`encode_once_seconds`), TRL's is in
each of its steps. The bound is the time in which this machine, at its measured matrix rate and memory bandwidth, could
do what `favor_lab.budget.flops` counts for the step.
"""

from __future__ import annotations

from favor_lab import share_cores

if __name__ == "__main__":
    share_cores()  # before torch is imported

import argparse
import dataclasses
import functools
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
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
    save,
    seconds_of,
    summary,
)
from favor_lab import TrainingState, accuracy_reward, encode_prompts, format_reward, train
from favor_lab.budget.profiling import never_end

REWARDS = (accuracy_reward, format_reward)


class Side:
    """The steps of one trainer: their seconds, and on a GPU the peak memory of a step."""

    def __init__(self, device: str):
        self.device, self.seconds, self.peaks = device, list[float](), list[float]()
        self.gpu = torch.device(device).type == "cuda"
        self.own: Callable[[], float] = lambda: 0.0  # bytes that this side uses between two steps

    def begin(self) -> None:
        if self.gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        self.started = now(self.device)

    def end(self) -> None:
        self.seconds.append(now(self.device) - self.started)
        if self.gpu:  # the other side's weights are on the same card: count only the growth, and its own
            self.peaks.append(torch.cuda.max_memory_allocated(self.device) - self.before + self.own())

    def result(self, warmup: int) -> dict[str, Any]:
        values: dict[str, Any] = {"seconds": summary(self.seconds[warmup:]), "warmup_seconds": self.seconds[:warmup]}
        return values | ({"peak_bytes": max(self.peaks[warmup:])} if self.gpu else {})


def held(model: Any, optimiser: Any) -> float:
    """Bytes of a model's weights and buffers and of its optimiser's state on a GPU."""
    states = [value for state in optimiser.state.values() for value in state.values() if torch.is_tensor(value)]
    sizes = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers(), *states] if t.is_cuda}
    return float(sum(sizes.values()))


class Ours(Side):
    """favor_lab's steps, one at a time."""

    def __init__(self, args: argparse.Namespace):
        super().__init__(args.device)
        self.policy, self.shots, self.length = make_policy(args), make_shots(args), args.length
        never_end(self.policy)
        self.tokens = count_tokens(self.policy, self.shots, args)
        start = now(args.device)
        prompts = encode_prompts(self.policy, self.shots.train, self.shots.labels, completion_tokens=args.length)
        self.encode_seconds = now(args.device) - start
        features = sum(feature.nbytes for feature in prompts.image_features if feature.is_cuda)
        settings = make_settings(args, args.warmup + args.steps)
        state = TrainingState.start(self.policy, settings)
        self.own = lambda: held(self.policy.model, state.optimiser) + features
        self.records: list[Any] = []
        self.steps: Any = train(self.policy, self.shots, settings, rewards=REWARDS, resume=state)

    def step(self) -> None:
        self.begin()
        record = next(self.steps)
        self.end()
        check_lengths(record, self.length)
        self.records.append(record)


class Trl(Side):
    """TRL's trainer, set up to be the same run."""

    def __init__(self, args: argparse.Namespace, after_step: Callable[[], None]):
        super().__init__(args.device)
        from transformers import TrainerCallback

        side, self.length, self.tokens = self, args.length, list[tuple[Any, Any]]()

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                side.begin()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                side.end()
                after_step()

        self.folder = tempfile.TemporaryDirectory()
        self.trainer = make_trainer(args, self.folder.name, Clock())
        self.watch()
        self.own = lambda: held(self.trainer.model, self.trainer.optimizer)

    def watch(self) -> None:
        """Keep the prompt and completion lengths of every generated batch."""
        generate = self.trainer._generate_and_score_completions

        @functools.wraps(generate)
        def watched(inputs: Any) -> Any:
            batch = generate(inputs)
            self.tokens.append((batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)))
            return batch

        self.trainer._generate_and_score_completions = watched

    def run(self) -> None:
        self.trainer.train()
        self.folder.cleanup()

    def check(self, prompt_tokens: int) -> None:
        """RuntimeError unless its prompts and completions had the lengths that ours have."""
        for prompts, completions in self.tokens:
            lengths = {(int(p), int(c)) for p, c in zip(prompts, completions, strict=True)}
            if lengths != {(prompt_tokens, self.length)}:
                raise RuntimeError(
                    f"TRL: (prompt, completion) tokens {sorted(lengths)}, not {(prompt_tokens, self.length)}"
                )


def make_trainer(args: argparse.Namespace, folder: str, callback: Any) -> Any:
    """A GRPOTrainer with the settings of favor_lab's side, on a policy of its own with the same weights."""
    from favor_lab import grpo_trainer

    settings = dataclasses.replace(make_settings(args, args.warmup + args.steps), offload_tower=False)
    policy = make_policy(args)
    never_end(policy)
    options = {"bf16": args.trl_autocast, "logging_steps": 10**6}
    trainer = grpo_trainer(policy, make_shots(args), settings, REWARDS, folder, **options)
    trainer.add_callback(callback)
    return trainer


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Alternate the two trainers (or run one), and compare step by step."""
    rates, total = measured_rates(args), args.warmup + args.steps
    bar = tqdm(total=total, desc="step", mininterval=1.0)
    ours = None if args.only == "trl" else Ours(args)
    theirs = None

    def after_step() -> None:
        if ours:
            ours.step()
        bar.update()

    if args.only == "ours":
        for _ in range(total):
            after_step()
    else:
        theirs = Trl(args, after_step)
        theirs.run()
    bar.close()
    result: dict[str, Any] = dict(ours.tokens) if ours else {}
    if ours:
        ours.steps.close()
        result["encode_once_seconds"] = ours.encode_seconds
        result["ours"] = ours.result(args.warmup) | {"phases": phase_seconds(ours.records[args.warmup :])}
        result |= {"rates": rates, "bound": seconds_of(counted(ours.policy, args, ours.tokens), rates)}
    if theirs:
        theirs.check(ours.tokens["prompt_tokens"] if ours else int(theirs.tokens[0][0][0]))
        result["trl"] = theirs.result(args.warmup)
    if ours and theirs:
        pairs = zip(theirs.seconds[args.warmup :], ours.seconds[args.warmup :], strict=True)
        result["ratio"] = summary([their / our for their, our in pairs])
    return result


def report(result: dict[str, Any]) -> str:
    """The lines to print."""
    lines = []
    for side in ("trl", "ours"):
        if side in result:
            seconds, peak = result[side]["seconds"], result[side].get("peak_bytes")
            low, high = seconds["quartiles"]
            lines.append(f"{side:<6}{seconds['median']:9.3f} s per step ({low:.3f} to {high:.3f})")
            lines[-1] += f", peak {peak / 1e9:.2f} GB" if peak else ""
    if "ours" in result:
        lines += [f"  {phase:<12}{seconds:9.3f} s" for phase, seconds in result["ours"]["phases"].items()]
        bound = sum(result["bound"].values())
        times = result["ours"]["seconds"]["median"] / bound
        lines.append(f"counted bound of a step: {bound:.3f} s; favor_lab takes {times:.2f} times as long")
        lines.append(f"encoding all images, once per run: {result['encode_once_seconds']:.3f} s")
    if "ratio" in result:
        low, high = result["ratio"]["quartiles"]
        lines.append(
            f"ratio TRL / favor_lab: median {result['ratio']['median']:.2f}, quartiles {low:.2f} to {high:.2f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__, policy="pocket")
    options.add_argument("--steps", type=int, default=10, help="steps that are timed (default: 10)")
    options.add_argument("--warmup", type=int, default=2, help="steps before them (default: 2)")
    options.add_argument("--only", choices=("ours", "trl"), help="one side alone")
    options.add_argument("--trl-autocast", action="store_true", help="TRL's option bf16=True: autocast to bfloat16")
    args = parse(options, argv)
    if args.only != "ours" and (missing := [n for n in ("trl", "datasets") if not importlib.util.find_spec(n)]):
        options.error(f"the comparison needs {' and '.join(missing)} (pip install {' '.join(missing)}); or --only ours")
    if args.micro_batch and args.prompts * args.group_size % args.micro_batch:
        options.error(
            f"--micro-batch {args.micro_batch} must divide the {args.prompts * args.group_size} rows of a step"
        )
    if not args.lora_rank and args.only != "ours":
        options.error("the comparison is about an adapter: --lora-rank must be above 0")
    result = measure(args)
    print(report(result))
    print(save(args, f"step-{args.policy}", "step", result))


if __name__ == "__main__":
    main()
