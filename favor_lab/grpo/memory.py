"""Out of memory: in which step and phase, what was in use, and which settings to lower first.

What a setting would save is not a rule of thumb but the estimate of `costs.step_memory` for this very run, made twice:
as it is, and with that one setting changed.
"""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from favor_lab.grpo.costs import NF4_BYTES, shape_of, step_memory
from favor_lab.vlm.hub import is_out_of_memory
from favor_lab.vlm.processing import FEATURE_CAP, TOWER_CHUNK, tokenize
from favor_lab.vlm.prompts import build_prompt

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.records import GRPOSettings
    from favor_lab.vlm.policy import Policy

# The clock's phases, and those of `costs` in them.
PHASES = {"sample": ("prefill", "decode"), "loss": ("score", "backward"), "update": ("optimiser",)}
SHOWN = 3  # settings in an error
WORTH_IT = 0.01  # share of the phase's estimate that a change must save to be named


__all__ = ["changes", "is_out_of_memory", "out_of_memory", "what_to_lower"]


class Change(NamedTuple):
    """A setting to lower: its value now and then, and about how many bytes that saves at the peak of a phase.

    free: it changes no result, only the time that a step takes.
    """

    name: str
    now: Any
    then: Any
    saves: float
    free: bool

    def __str__(self) -> str:
        price = "" if self.free else ", changes the results"
        return f"{self.name} {self.now} -> {self.then} (about {readable(self.saves)} less{price})"


def out_of_memory(
    error: BaseException, step: int, phase: str, device: torch.device, lower: Callable[[str], str] | None = None
) -> torch.OutOfMemoryError:
    """The error to raise in place of `error`: step, phase, what was in use, and what `lower(phase)` advises.

    What the failed phase had allocated is let go first, so that there is room to go on.
    """
    used = in_use(device)
    traceback.clear_frames(error.__traceback__)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no memory left"]
    cause = lines[0].removesuffix(".")  # torch adds an essay about its own allocator
    try:
        advice = lower(phase) if lower else ""
    except Exception as problem:  # there may not even be room to think about it, and `error` must not be lost
        advice = f"What to lower could not be estimated: {problem}"
    kept = f"Everything up to step {step - 1} is kept" if step > 1 else ""
    if phase == "update":
        kept = "The weights may have moved in part: go on from an earlier checkpoint"
    parts = [f"step {step}, phase {phase}: out of memory ({cause})", used, kept, advice]
    return torch.OutOfMemoryError(". ".join(part for part in parts if part))


def in_use(device: torch.device) -> str:
    """What this process has of a GPU's memory; nothing for the CPU, where the system does not keep it apart."""
    if device.type != "cuda":
        return ""
    _, total = torch.cuda.mem_get_info(device)
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return (
        f"In use on {device}: {readable(allocated)} allocated, {readable(reserved)} reserved,"
        f" of {readable(total)} in all"
    )


def what_to_lower(policy: Policy, settings: GRPOSettings, shots: FewShot, phase: str) -> str:
    """The advice: the three changes to try first when a phase runs out of memory."""
    found = changes(policy, settings, shots, phase)[:SHOWN]
    if not found:
        return "No setting would save much in this phase"
    return "Lower first: " + ", ".join(map(str, found))


def changes(policy: Policy, settings: GRPOSettings, shots: FewShot, phase: str) -> list[Change]:
    """Every change that saves at least a hundredth of what the phase needs, in the order in which to try them: first
    those that change no result, then the others, and in each kind the larger saving first."""
    needed, found = need(policy, settings, shots, phase), []
    for name, now, then, free, changed in candidates(policy, settings, shots):
        saves = needed - need(policy, shots=shots, phase=phase, **({"settings": settings} | changed))
        if saves >= WORTH_IT * needed:
            found.append(Change(name, now, then, saves, free))
    return sorted(found, key=lambda change: (not change.free, -change.saves))


def candidates(policy: Policy, settings: GRPOSettings, shots: FewShot) -> Iterator[tuple[str, Any, Any, bool, dict]]:
    """(name, value now, lower value, whether it changes no result, changed arguments of `need`) of each setting."""
    shape, on_gpu = shape_of(policy), policy.device.type == "cuda"
    rows = settings.prompts_per_step * settings.group_size
    at_once = min(settings.micro_batch or rows, rows)
    lower: dict[str, Any] = {"gradient_checkpointing": True, "micro_batch": max(1, at_once // 2)}
    if on_gpu:
        lower["offload_tower"] = True
    free = tuple(lower)
    for name, least in (("max_new_tokens", 1), ("prompts_per_step", 1), ("group_size", 2)):
        lower[name] = max(least, getattr(settings, name) // 2)
    for name, then in lower.items():
        now = at_once if name == "micro_batch" else getattr(settings, name)
        if then != now:
            yield name, now, then, name in free, {"settings": dataclasses.replace(settings, **{name: then})}
    largest = max(image_tokens(policy, shots))
    if largest > 1:
        pixels = (policy.processor.image_processor.patch_size * policy.processor.image_processor.merge_size) ** 2
        then = largest // 2 * pixels
        yield "max_pixels", largest * pixels, then, False, {"max_pixels": then}
    if on_gpu and shape.lora_rank and shape.weight_bytes > 1:
        yield "quantize", None, "4bit", False, {"weight_bytes": NF4_BYTES}


def need(
    policy: Policy,
    settings: GRPOSettings,
    shots: FewShot,
    phase: str,
    max_pixels: int | None = None,
    weight_bytes: float | None = None,
) -> float:
    """Bytes that a phase of this run has in use at its peak, by estimate; with images or weights of another size."""
    shape = shape_of(policy)
    if weight_bytes is not None:
        shape = dataclasses.replace(shape, weight_bytes=weight_bytes)
    tokens = image_tokens(policy, shots, max_pixels)
    mean = math.ceil(sum(tokens) / len(tokens))
    peaks = step_memory(
        shape,
        settings.prompts_per_step,
        settings.group_size,
        prompt_tokens=text_tokens(policy, settings, shots) + mean,
        image_tokens=mean,
        completion_tokens=settings.max_new_tokens,
        beta=settings.beta,
        gradient_checkpointing=settings.gradient_checkpointing,
        micro_batch=settings.micro_batch,
        tower_on_device=not settings.offload_tower,
        features_kept_bytes=min(FEATURE_CAP, sum(tokens) * shape.hidden * shape.value_bytes),
        images_at_once=min(TOWER_CHUNK, len(tokens)),
    )
    parts = [peaks[name] for name in PHASES.get(phase, (phase,)) if name in peaks]
    return max(parts or peaks.values())  # a phase that is not modelled: the largest


def image_tokens(policy: Policy, shots: FewShot, max_pixels: int | None = None) -> list[int]:
    """Image tokens of each training image, without looking at more than its size."""
    processor = policy.processor.image_processor
    most = max_pixels or processor.size["longest_edge"]
    limits = {"max_pixels": most, "min_pixels": min(most, processor.size["shortest_edge"])}
    sizes = [example.image.size for example in shots.train]
    patches = [processor.get_number_of_image_patches(height, width, limits) for width, height in sizes]
    return [count // processor.merge_size**2 for count in patches]


def text_tokens(policy: Policy, settings: GRPOSettings, shots: FewShot) -> int:
    """Tokens of a prompt without those of its image."""
    labels = None if settings.open_vocabulary else shots.labels
    one_token = torch.tensor([[1, 2, 2]])  # the grid of the smallest image
    return tokenize(policy, [build_prompt(labels, settings.style)], one_token)["input_ids"].shape[1] - 1


def readable(size: float) -> str:
    """Bytes as they are written on a box.

    >>> readable(1.94e9), readable(3.2e7), readable(6e4)
    ('1.9 GB', '32 MB', '0.06 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.2g} MB" if size < 1e7 else f"{size / 1e6:.0f} MB"
