"""Where a GRPO step spends its time, FLOPs and memory, beside the least that this machine could need for it.

`profile_step` runs the phases of a step one after the other, several times, and counts FLOPs and tokens in a run more.
The bound of a phase is the ideal step of `favor_lab.grpo.costs` at the machine's measured rates. Believe the seconds of
an idle machine only: where other work holds a core, threads that wait for each other take many times as long.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from favor_lab.grpo.costs import PHASES, Cost, bound_seconds, machine_rates, shape_of, step_costs
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.mechanics import draw
from favor_lab.grpo.records import GRPOSettings
from favor_lab.grpo.sampling import Rollout, sample_groups, score_completions
from favor_lab.vlm.fast.decoding import start_decoding
from favor_lab.vlm.processing import encode_prompts

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

Shape = tuple[int, ...]


def attention_run(q: Shape, k: Shape, v: Shape, *rest: Any, **options: Any) -> int:
    """FLOPs of an attention kernel, q (B, H, T, d), v (B, K, S, e): two products over the whole rectangle T x S, as
    torch counts them, although a causal kernel passes over some of it."""
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3])


def attention_backward_run(gradient: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **options: Any) -> int:
    """Five products: the scores again, and the gradients of weights, values, queries and keys."""
    return 2 * math.prod(q[:3]) * k[2] * (3 * q[3] + 2 * v[3])


def rows_run(x: Shape, *rest: Any, **options: Any) -> int:
    """Rows of (..., width)."""
    return math.prod(x[:-1])


# torch's counter does not know attention on the CPU, and in some versions no keys that several query heads share.
ATTENTION: dict[Any, Callable[..., int]] = {
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{end}"): formula
    for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    for end, formula in (("", attention_run), ("_backward", attention_backward_run))
}
# A decoder layer has one silu, in its MLP, and the vision tower none: its rows are the tokens that a layer runs.
TOKENS = torch.ops.aten.silu


@dataclass(frozen=True)
class PhaseProfile:
    """One phase of a step: as it was run, and as the ideal step has it."""

    seconds: float  # median
    spread: float  # of its times: their largest less their smallest
    flops: float  # counted, attention as whole rectangles
    tokens: int  # run through the language model, padding and what is run again included; `encode`: image tokens
    ideal_flops: float
    ideal_tokens: int
    bound: float  # seconds that the ideal step needs at the machine's rates
    peak_bytes: int | None  # most in use: on the GPU, or resident (Linux); None where the system does not say

    @property
    def reached(self) -> float | None:
        """Share of the bound that is reached; None for a phase too short to be measured."""
        return self.bound / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class Profile:
    """A profiled step: what was run, on what, and each phase."""

    policy: str
    device: str
    device_type: str  # cpu, cuda
    setting: dict[str, Any]  # B, G, P, I, mean L and what else the costs depend on
    rates: dict[str, float]  # measured: flops_per_second, bytes_per_second
    phases: dict[str, PhaseProfile]

    @property
    def seconds(self) -> float:
        """Of a step, without `encode`, which happens once a run."""
        return sum(phase.seconds for name, phase in self.phases.items() if name != "encode")

    @property
    def bound(self) -> float:
        """The ideal step's seconds, without `encode`."""
        return sum(phase.bound for name, phase in self.phases.items() if name != "encode")

    def table(self) -> str:
        """All numbers as text."""
        s, step = self.setting, [phase for name, phase in self.phases.items() if name != "encode"]
        flops, ideal = (sum(values) for values in zip(*((p.flops, p.ideal_flops) for p in step), strict=True))
        matrix, read = self.rates["flops_per_second"] / 1e9, self.rates["bytes_per_second"] / 1e9
        whose = "allocated on the GPU" if self.device_type == "cuda" else "resident in the whole process"
        if any(phase.peak_bytes is None for phase in step):
            whose = "unknown: this system does not say"
        return "\n".join([
            f"{self.policy} on {self.device}: B {s['prompts']}, G {s['group_size']}, P {s['prompt_tokens']} of them "
            f"{s['image_tokens']} for the image, L {s['completion_tokens']} on average",
            f"{'':<11}{'seconds':>16}{'':>9}{'':>10}{'tokens':>15}{'GFLOP':>18}",
            f"{'phase':<11}{'median':>9}{'+-':>7}{'bound':>9}{'reached':>10}"
            f"{'run':>8}{'ideal':>7}{'run':>10}{'ideal':>8}{'peak':>11}",
            *(_row(name, phase) for name, phase in self.phases.items()),
            f"a step, without encode, which is once a run: {self.seconds:.3g} s, {self.seconds / self.bound:.2f} times "
            f"the bound of {self.bound:.3g} s",
            f"FLOPs {flops / ideal:.2f} times the ideal; +- is half of largest less smallest of {s['repeats']} runs; "
            f"peak memory {whose}",
            f"the bound is at the measured {matrix:,.0f} GFLOP/s of a large matrix product, or {read:,.0f} GB/s read",
        ])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self) | {"seconds": self.seconds, "bound": self.bound}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Profile:
        phases = {name: PhaseProfile(**phase) for name, phase in values["phases"].items()}
        return cls(**{item.name: values[item.name] for item in fields(cls)} | {"phases": phases})


def _row(name: str, phase: PhaseProfile) -> str:
    peak = "" if phase.peak_bytes is None else f"{phase.peak_bytes / 1e6:,.0f} MB"
    reached = "" if phase.reached is None else f"{phase.reached:.0%}"
    return (
        f"{name:<11}{phase.seconds:>9.4f}{phase.spread / 2:>7.4f}{phase.bound:>9.4f}{reached:>10}"
        f"{phase.tokens:>8}{phase.ideal_tokens:>7}{phase.flops / 1e9:>10.2f}{phase.ideal_flops / 1e9:>8.2f}{peak:>11}"
    )


def profile_step(
    policy: Policy,
    shots: FewShot,
    settings: GRPOSettings | None = None,
    *,
    repeats: int = 5,
    fixed_length: bool = False,
    progress: Callable[[Any], Any] = iter,
) -> Profile:
    """Profile one GRPO step of these settings on the first images of a run; the policy is left as it is.

    repeats: timed runs, after two to warm up. fixed_length: every completion has `max_new_tokens` tokens, so that the
    work does not depend on what is sampled. progress: wraps the loop over the runs, such as tqdm.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, but must be at least 1")
    settings = settings or GRPOSettings()
    drawn = draw([example.label for example in shots.train], 0, settings.prompts_per_step, settings.seed)
    examples, labels = [shots.train[i] for i in drawn], None if settings.open_vocabulary else shots.labels
    weights = [weight for _, weight in policy.trainable_parameters()]
    optimiser = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0)  # does its work, and changes nothing
    meters, counts = [Meter(policy.device) for _ in range(repeats + 2)], Meter(policy.device, count=True)
    away = policy.tower_on("cpu") if settings.offload_tower else nullcontext()
    with endless(policy, fixed_length), away:
        for meter in progress(meters):
            one_step(policy, examples, labels, settings, optimiser, meter)
        setting: dict[str, Any] = {**one_step(policy, examples, labels, settings, optimiser, counts)}
    setting |= {"beta": settings.beta, "gradient_checkpointing": settings.gradient_checkpointing}
    ideal = step_costs(shape_of(policy), **setting, images_encoded=len(examples))
    rates = machine_rates(policy.device, policy.dtype)
    bounds = bound_seconds(ideal, **rates)
    counts.tokens["backward"] = counts.tokens["score"]
    phases = {name: _phase(name, meters[2:], counts, ideal[name], bounds[name]) for name in PHASES if name in ideal}
    setting |= {"dtype": str(policy.dtype).removeprefix("torch."), "decoding": settings.decoding, "repeats": repeats}
    setting |= {"micro_batch": settings.micro_batch, "threads": torch.get_num_threads(), "fixed_length": fixed_length}
    return Profile(policy.name, _device_name(policy.device), policy.device.type, setting, rates, phases)


def _phase(name: str, meters: list[Meter], counts: Meter, ideal: Cost, bound: float) -> PhaseProfile:
    """What several runs and the counting one say of a phase. Sampling runs the prompts first: what is left of it is
    decoding, and 0 where that is less than the times vary."""
    block = "sample" if name == "decode" else name
    times, flops = [meter.values[block] for meter in meters], counts.values[block]
    tokens = counts.tokens[block]
    if name == "decode":
        times = [max(0.0, meter.values["sample"] - meter.values["prefill"]) for meter in meters]
        flops, tokens = flops - counts.values["prefill"], tokens - counts.tokens["prefill"]
    return PhaseProfile(
        seconds=statistics.median(times),
        spread=max(times) - min(times),
        flops=flops,
        tokens=tokens // counts.layers,
        ideal_flops=ideal.flops,
        ideal_tokens=ideal.tokens,
        bound=bound,
        peak_bytes=max((peak for meter in meters if (peak := meter.peaks[block]) is not None), default=None),
    )


def one_step(
    policy: Policy,
    examples: list[Example],
    labels: list[str] | None,
    settings: GRPOSettings,
    optimiser: torch.optim.Optimizer,
    meter: Meter,
) -> dict[str, int]:
    """The phases of a step, each under the meter; returns its sizes."""
    size, length, how = settings.group_size, settings.max_new_tokens, settings.decoding
    if meter.count and how != "plain":
        how = "static"  # a CUDA graph hides its operations from the counter
    with meter("encode"):
        prompts = encode_prompts(policy, examples, labels, settings.style, length)
    groups = torch.arange(len(prompts), device=policy.device).repeat_interleave(size)  # (N,)
    with meter("prefill"), torch.no_grad():
        start_decoding(policy, prompts, groups, length, how)
    with meter("sample"):
        rollout = sample_groups(policy, prompts, size, length, settings.temperature, settings.seed, decoding=how)
    ref_logps = None
    if settings.beta:
        with meter("reference"), policy.reference(), torch.no_grad():
            ref_logps = score_completions(policy, prompts, rollout, rows_per_pass=settings.micro_batch)
    advantages = torch.ones(len(rollout), device=policy.device)  # (N,) any that give a gradient
    advantages[::2] = -1.0
    for rows in torch.arange(len(rollout)).split(settings.micro_batch or len(rollout)):
        part, ref = rollout.rows(rows), None if ref_logps is None else ref_logps[rows]
        with meter("score"):
            checkpointing = settings.gradient_checkpointing
            scored = score_completions(policy, prompts, part, entropy=True, gradient_checkpointing=checkpointing)
            logps = scored[0]
            del scored  # as the loop does: the entropy's graph would hold every chunk's logits
        with meter("backward"):
            loss, _ = grpo_loss(logps, logps.detach(), ref, advantages[rows], part.mask, beta=settings.beta)
            loss.backward()
    with meter("optimiser"):
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm or math.inf)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    meter.layers = policy.base.config.text_config.num_hidden_layers
    meter.tokens["encode"] = meter.layers * sum(len(features) for features in prompts.image_features)
    return sizes(prompts, rollout)


def sizes(prompts: PromptBatch, rollout: Rollout) -> dict[str, int]:
    """B, G, and the mean P, I and L of a step, as `step_costs` wants them."""
    return {
        "prompts": len(prompts),
        "group_size": rollout.group_size,
        "prompt_tokens": round(float(prompts.attention_mask.sum(dim=1).float().mean())),
        "image_tokens": round(statistics.mean(len(features) for features in prompts.image_features)),
        "completion_tokens": round(float(rollout.lengths.float().mean())),
    }


class Meter:
    """Seconds and peak memory of named blocks, or their FLOPs and tokens; what comes twice under a name adds up."""

    def __init__(self, device: torch.device, count: bool = False):
        self.device, self.count, self.layers = device, count, 1
        self.values: dict[str, float] = defaultdict(float)  # seconds, or FLOPs
        self.tokens: dict[str, int] = defaultdict(int)  # in all layers together
        self.peaks: dict[str, int | None] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self.counting(name) if self.count else self.timing(name):
            yield

    @contextmanager
    def counting(self, name: str) -> Iterator[None]:
        with FlopCounterMode(display=False, custom_mapping=ATTENTION | {TOKENS: rows_run}) as counter:
            yield
        found: dict[Any, int] = dict(counter.get_flop_counts().get("Global", {}))  # by operation
        self.tokens[name] += found.pop(TOKENS, 0)
        self.values[name] += sum(found.values())

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        watched = start_watching_memory(self.device) is not None
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.values[name] += time.perf_counter() - start
        peak = peak_memory(self.device) if watched else None
        self.peaks[name] = None if peak is None else max(peak, self.peaks.get(name) or 0)


def never_end(policy: Policy) -> None:
    """From now on every completion has `max_new_tokens` tokens: the tokens that end one cannot be sampled."""
    forbidden = policy.forbidden.clone()
    forbidden[policy.end_token_ids] = True
    policy.forbidden = forbidden
    policy.end_token_ids = [policy.base.config.image_token_id]  # forbidden anyway


@contextmanager
def endless(policy: Policy, wanted: bool = True) -> Iterator[None]:
    """`never_end` for the time of a block, if wanted."""
    forbidden, ends = policy.forbidden, policy.end_token_ids
    if wanted:
        never_end(policy)
    try:
        yield
    finally:
        policy.forbidden, policy.end_token_ids = forbidden, ends


def start_watching_memory(device: torch.device) -> int | None:
    """Set back the mark of `peak_memory`; returns the bytes in use now, or None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the mark of the resident size
    except OSError:
        return None
    return _resident("VmRSS")


def peak_memory(device: torch.device) -> int | None:
    """The most bytes in use since `start_watching_memory`: allocated on a GPU, else resident of the whole process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}"
