"""Profile one GRPO step: seconds, FLOPs, tokens and peak memory of each phase, compared with a lower bound, the ideal
step of `favor_lab.budget.flops` at the machine's measured rates. `profile_step` makes the calls of the training loop
one after the other, several times, and counts FLOPs and tokens in one more run. Measure on an idle machine: if other
work occupies a core, threads that wait for each other take many times as long."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from favor_lab.budget.flops import Cost, bound_seconds, step_costs
from favor_lab.budget.machine import MemoryWatch, machine_rates
from favor_lab.budget.memory import run_shapes
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.sampling import sample_groups
from favor_lab.grpo.support.checkpoints import TrainingState
from favor_lab.grpo.support.optimiser import optimiser_step
from favor_lab.grpo.support.questions import default_question
from favor_lab.grpo.support.schedule import draw
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.training import next_context, score_rows
from favor_lab.vlm.fast.decoding import start_decoding
from favor_lab.vlm.processing import encode_prompts

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.vlm.policy import Policy

Shape = tuple[int, ...]


def attention_flops(q: Shape, k: Shape, v: Shape, *rest: Any, **options: Any) -> int:
    """FLOPs of an attention kernel, q (B, H, T, d), v (B, K, S, e): two products over the full rectangle T x S, as
    torch counts them, although a causal kernel skips part of it."""
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3])


def attention_backward_flops(gradient: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **options: Any) -> int:
    """Five products: the scores again, and the gradients of weights, values, queries and keys."""
    return 2 * math.prod(q[:3]) * k[2] * (3 * q[3] + 2 * v[3])


# torch's counter does not know attention on the CPU, nor, in some versions, keys that several query heads share.
COUNTED: dict[Any, Callable[..., int]] = {
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{end}"): formula
    for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    for end, formula in (("", attention_flops), ("_backward", attention_backward_flops))
}
TOKENS = torch.ops.aten.silu  # once per decoder layer, in its MLP: its rows are the tokens that run through the layer
COUNTED[TOKENS] = lambda x, *rest, **options: math.prod(x[:-1])


@dataclass(frozen=True)
class PhaseProfile:
    """One phase of a step: as it was measured, and as the ideal step has it."""

    seconds: float  # median over the runs
    spread: float  # largest time minus smallest time
    flops: float  # counted, attention as full rectangles
    tokens: int  # run through the language model, padding and repeated runs included; `encode`: image tokens
    ideal_flops: float
    ideal_tokens: int
    bound: float  # seconds that the ideal step needs at the machine's rates
    peak_bytes: int  # most in use: of tensors on a GPU, else resident memory of the process

    def row(self, name: str) -> str:
        """The phase's row of `Profile.table`; nothing is reached in one that is too short to be measured."""
        peak, reached = f"{self.peak_bytes / 1e6:,.0f} MB", f"{self.bound / self.seconds:.0%}" if self.seconds else ""
        return (
            f"{name:<11}{self.seconds:>9.4f}{self.spread / 2:>7.4f}{self.bound:>9.4f}{reached:>10}{self.tokens:>8}"
            f"{self.ideal_tokens:>7}{self.flops / 1e9:>10.2f}{self.ideal_flops / 1e9:>8.2f}{peak:>11}"
        )


@dataclass(frozen=True)
class Profile:
    """A profiled step: the policy, the device, the settings and each phase."""

    policy: str
    device: str
    device_type: str  # cpu, cuda
    setting: dict[str, Any]  # the fields of StepShape with the mean P, I and L, and the options of the run
    rates: dict[str, float]  # measured: flops_per_second, bytes_per_second
    phases: dict[str, PhaseProfile]

    def total(self, name: str) -> float:
        """The sum of a field over the phases of every step: all but `encode`, which happens once in a run."""
        return sum(getattr(phase, name) for phase_name, phase in self.phases.items() if phase_name != "encode")

    @property
    def seconds(self) -> float:
        """Seconds of one step, without `encode`."""
        return self.total("seconds")

    @property
    def bound(self) -> float:
        """Seconds of the ideal step, without `encode`."""
        return self.total("bound")

    def table(self) -> str:
        """All numbers as text."""
        s, flops = self.setting, self.total("flops") / self.total("ideal_flops")
        matrix, read = self.rates["flops_per_second"] / 1e9, self.rates["bytes_per_second"] / 1e9
        memory = "allocated on the GPU" if self.device_type == "cuda" else "resident in the whole process"
        return "\n".join([
            f"{self.policy} on {self.device}: B {s['prompts']}, G {s['group_size']}, P {s['prompt_tokens']} of them "
            f"{s['image_tokens']} for the image, L {s['completion_tokens']} on average",
            f"{'seconds':>27}{'tokens':>34}{'GFLOP':>18}",
            "phase         median     +-    bound   reached     run  ideal       run   ideal       peak",
            *(phase.row(name) for name, phase in self.phases.items()),
            f"a step, without encode, which is once a run: {self.seconds:.3g} s, {self.seconds / self.bound:.2f} times "
            f"the bound of {self.bound:.3g} s",
            f"FLOPs {flops:.2f} times the ideal; +- is half of largest less smallest of {s['repeats']} "
            f"runs; peak memory {memory}",
            f"the bound is at the measured {matrix:,.0f} GFLOP/s of a large matrix product, or {read:,.0f} GB/s read",
        ])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self) | {"seconds": self.seconds, "bound": self.bound}


def profile_step(
    policy: Policy,
    shots: FewShot,
    settings: GRPOSettings | None = None,
    *,
    repeats: int = 5,
    fixed_length: bool = False,
    progress: Callable[[Any], Any] = iter,
) -> Profile:
    """Profile one GRPO step with these settings on the first images of a run; the policy is not changed.

    repeats: timed runs, after two to warm up (ValueError for less than one). fixed_length: every completion has
    `max_new_tokens` tokens, so that the work does not depend on what is sampled. progress wraps the runs, as tqdm does.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, but must be at least 1")
    settings = replace(settings or GRPOSettings(), schedule="linear", warmup_steps=0)
    indices = draw([example.label for example in shots.train], 0, settings.prompts_per_step, settings.seed)
    shots = replace(shots, train=[shots.train[i] for i in indices])
    state = TrainingState.start(policy, settings)
    state.step = settings.steps  # after the last one the learning rate is 0: the optimiser works, but changes nothing
    meters = [Meter(policy.device) for _ in range(repeats + 2)]
    counter = Meter(policy.device, layers=policy.base.config.text_config.num_hidden_layers)
    with endless(policy, fixed_length), policy.tower_on("cpu") if settings.offload_tower else nullcontext():
        for meter in progress(meters):
            one_step(state, settings, shots, meter)
        # a CUDA graph hides its operations from the counter
        for_counter = settings if settings.decoding == "plain" else replace(settings, decoding="static")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a counter sees the operations of its own thread only
        length = one_step(state, for_counter, shots, counter)
        torch.set_num_threads(threads)
    model, step = run_shapes(policy, settings, shots)
    step = replace(step, completion_tokens=round(length))
    costs, rates = step_costs(model, step), machine_rates(policy.device, policy.dtype)
    bounds = bound_seconds(costs, **rates)
    phases = {name: _phase(name, meters[2:], counter, cost, bounds[name]) for name, cost in costs.items()}
    setting = asdict(step) | {"repeats": repeats, "threads": torch.get_num_threads(), "fixed_length": fixed_length}
    setting |= {"dtype": str(policy.dtype).removeprefix("torch."), "decoding": settings.decoding}
    on_gpu, threads = policy.device.type == "cuda", setting["threads"]
    cpu = f"{policy.device.type}, {threads} thread{'s' * (threads != 1)}"
    device = torch.cuda.get_device_name(policy.device) if on_gpu else cpu
    return Profile(policy.name, device, policy.device.type, setting, rates, phases)


def _phase(name: str, meters: list[Meter], counter: Meter, ideal: Cost, bound: float) -> PhaseProfile:
    """Combine the timed runs and the counting one. Decoding is what sampling takes beyond the prompts, or 0 if that is
    less than the times vary."""
    block, before = ("sample", "prefill") if name == "decode" else (name, "")
    times = [max(0.0, meter.values[block] - meter.values[before]) for meter in meters]
    return PhaseProfile(
        seconds=statistics.median(times),
        spread=max(times) - min(times),
        flops=counter.values[block] - counter.values[before],
        tokens=counter.tokens[block] - counter.tokens[before],
        ideal_flops=ideal.flops,
        ideal_tokens=ideal.tokens,
        bound=bound,
        peak_bytes=max(meter.peaks[block] for meter in meters),
    )


def one_step(state: TrainingState, settings: GRPOSettings, shots: FewShot, meter: Meter) -> float:
    """The calls of the loop for one step, each under the meter; returns the mean length of a completion, L. Sampling
    begins with what is timed by itself as "prefill". In place of rewards, every other advantage is -1, the rest 1."""
    policy, question = state.policy, default_question(settings, shots)
    with meter("encode"):
        pool = encode_prompts(policy, shots.train, question, completion_tokens=settings.max_new_tokens)
    context = next_context(state, settings, shots, pool, question, {})
    size, decoding = (settings.group_size, settings.max_new_tokens), settings.decoding
    groups = torch.arange(len(pool), device=policy.device).repeat_interleave(settings.group_size)  # (N,)
    with meter("prefill"), torch.no_grad():
        start_decoding(policy, context.prompts, groups, settings.max_new_tokens, decoding)
    with meter("sample"):
        rollout = sample_groups(policy, context.prompts, *size, settings.temperature, context.seed, decoding=decoding)
    with meter("reference"):
        ref_logps = context.reference_logps(rollout) if settings.beta else None  # (N, L)
    advantages = torch.ones(len(rollout), device=policy.device)  # (N,)
    advantages[::2] = -1.0
    for rows in torch.arange(len(rollout)).split(settings.micro_batch or len(rollout)):
        part, ref = rollout.rows(rows), None if ref_logps is None else ref_logps[rows]
        with meter("score"):
            logps = score_rows(grpo_loss, part, context)[0]  # (n, L); the entropy's graph would keep all logits
        with meter("backward"):
            loss, _ = grpo_loss(logps, logps.detach(), ref, advantages[rows], part.mask, beta=settings.beta)
            loss.backward()
    with meter("optimiser"):
        optimiser_step(state, len(rollout))
    state.optimiser.zero_grad(set_to_none=True)
    meter.tokens |= {"encode": sum(map(len, pool.image_features)), "backward": meter.tokens["score"]}
    return float(rollout.lengths.float().mean())


class Meter:
    """Seconds and peak memory of named blocks or, given the number of `layers`, their FLOPs and tokens; blocks of the
    same name add up."""

    def __init__(self, device: torch.device, layers: int = 0):
        self.device, self.layers = device, layers
        self.values: dict[str, float] = defaultdict(float)  # seconds, or FLOPs
        self.tokens: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)  # bytes

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.layers:
            with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
                yield
            by_operation: dict[Any, int] = dict(counter.get_flop_counts().get("Global", {}))
            self.tokens[name] += by_operation.pop(TOKENS, 0) // self.layers
            self.values[name] += sum(by_operation.values())
            return
        with MemoryWatch(self.device) as memory:
            start = time.perf_counter()
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.values[name] += time.perf_counter() - start
        self.peaks[name] = max(self.peaks[name], memory.peak)


def never_end(policy: Policy) -> None:
    """From now on every completion has `max_new_tokens` tokens: tokens that end a completion cannot be sampled."""
    forbidden = policy.forbidden.clone()
    forbidden[policy.end_token_ids] = True
    policy.forbidden = forbidden
    policy.end_token_ids = [policy.base.config.image_token_id]  # forbidden anyway


@contextmanager
def endless(policy: Policy, wanted: bool = True) -> Iterator[None]:
    """`never_end` inside a block; with wanted=False nothing changes."""
    own = policy.forbidden, policy.end_token_ids
    if wanted:
        never_end(policy)
    try:
        yield
    finally:
        policy.forbidden, policy.end_token_ids = own
