"""What fits on a card: peak memory by phase for a model and settings, and the settings to take on 6 to 24 GB.

The estimate is `costs.step_memory`, tensor by tensor, within 15 % of what was measured on a CPU (data/results/
benchmarks.md), and what a GPU needs beside tensors, which was not measured: two constants below, stated as estimates.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from favor_lab.grpo.costs import NF4_BYTES, ModelShape, fixed_bytes, shape_of, step_memory
from favor_lab.grpo.records import GRPOSettings
from favor_lab.vlm.adapters import LORA_RANK
from favor_lab.vlm.known import configuration
from favor_lab.vlm.loading import DTYPES
from favor_lab.vlm.processing import FEATURE_CAP, TOWER_CHUNK
from favor_lab.vlm.processor import MAX_PIXELS

MODEL = "Qwen/Qwen2-VL-2B-Instruct"
CARDS = (6, 8, 12, 16, 24)  # GB
CONTEXT_BYTES = 0.6e9  # estimate, not measured: CUDA's context, the libraries' kernels and workspaces
ALLOCATOR_SHARE = 0.08  # estimate, not measured: what the caching allocator holds beyond its tensors
MARGIN = 0.05  # of a card, which `recommend` leaves free
TEXT_TOKENS = 200  # of a prompt beside its image; estimate for a list of forty labels
IMAGES = 160  # whose features are kept: forty labels, four shots
# The published recipe (Visual-RFT: 200 steps of 16 prompts x G 8, 256 tokens), with the learning rate that
# `favor-lab study` takes for an adapter (own choice, not tuned).
RECIPE: dict[str, Any] = {
    "steps": 200, "prompts_per_step": 16, "group_size": 8, "max_new_tokens": 256, "learning_rate": 1e-5,
}  # fmt: skip
# What is given up for memory, one after the other, in the order of what costs least in quality: an own judgement.
# NF4 weights, then detail in the image, then how many images an optimiser step sees, then room to reason, then the
# group, whose spread is what teaches.
GIVEN_UP: tuple[dict[str, Any], ...] = (
    {"quantize": "4bit"},
    {"max_pixels": MAX_PIXELS // 2},
    {"prompts_per_step": 8},
    {"max_pixels": MAX_PIXELS // 4},
    {"max_new_tokens": 128},
    {"prompts_per_step": 4},
    {"group_size": 4},
)
OF_THE_POLICY = ("quantize", "max_pixels", "lora_rank", "dtype")  # arguments of `load_policy`; the others are settings


@dataclass(frozen=True)
class Fit:
    """An estimate: bytes at the peak of each phase, of which model with which settings, and on which card."""

    model: str
    gpu_gb: float | None  # of the card, 10^9 bytes each: a card sold as 8 GB has 8.6 of them, less what a display takes
    setting: dict[str, Any]  # as given to `fits`
    tokens: dict[str, int]  # of a prompt: all, and those of its image
    fixed: dict[str, float]  # bytes that are there whatever the batch: language, tower, adapter, training
    peaks: dict[str, float]  # bytes of tensors at the peak of each phase

    @property
    def largest(self) -> str:
        """The phase that needs the most."""
        return max(self.peaks, key=lambda phase: self.peaks[phase])

    @property
    def needed_bytes(self) -> float:
        """What the card must have: the largest phase's tensors, the allocator's share, and CUDA's own."""
        return self.peaks[self.largest] * (1 + ALLOCATOR_SHARE) + CONTEXT_BYTES

    @property
    def fits(self) -> bool | None:
        """Whether it fits on the card; None if no card was named."""
        return None if self.gpu_gb is None else self.needed_bytes <= self.gpu_gb * 1e9

    def verdict(self) -> str:
        """What is needed, of what there is, in words."""
        need = f"{self.needed_bytes / 1e9:.1f} GB needed"
        if self.gpu_gb is None:
            return need
        return f"{need} of {self.gpu_gb:g} GB: {'fits' if self.fits else 'does not fit'}"

    def table(self) -> str:
        """The estimate as text, a line for each phase."""
        s, width = self.setting, max(self.peaks.values())
        words = [f"{s['prompts_per_step']} prompts x G {s['group_size']}", f"{s['max_new_tokens']} tokens"]
        words += [f"images of {self.tokens['image_tokens']} tokens", "4-bit" if s["quantize"] else s["dtype"]]
        words += [f"LoRA rank {s['lora_rank']}" if s["lora_rank"] else "all weights of the language model"]
        words += [f"{s['micro_batch']} rows in a pass"] * bool(s["micro_batch"])
        words += ["gradient checkpointing"] * s["gradient_checkpointing"] + ["tower away"] * s["offload_tower"]
        there = {name: size for name, size in self.fixed.items() if name != "tower" or not s["offload_tower"]}
        fixed = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in there.items())
        bars = [
            f"{phase:<11}{peak / 1e9:>7.2f}  {'#' * round(40 * peak / width)}" for phase, peak in self.peaks.items()
        ]
        return "\n".join([
            self.model,
            ", ".join(words),
            f"{'phase':<11}{'GB':>7}  of tensors at its peak (estimate)",
            *bars,
            f"of them always there, in GB: {fixed}",
            f"largest phase {self.largest}, {ALLOCATOR_SHARE:.0%} for the allocator and {CONTEXT_BYTES / 1e9:.1f} GB"
            f" for CUDA (both estimates): {self.verdict()}",
        ])  # fmt: skip


def fits(
    model: str | Path = MODEL,
    gpu_gb: float | None = None,
    *,
    prompts_per_step: int = RECIPE["prompts_per_step"],
    group_size: int = RECIPE["group_size"],
    max_new_tokens: int = RECIPE["max_new_tokens"],
    max_pixels: int = MAX_PIXELS,
    text_tokens: int = TEXT_TOKENS,
    images: int = IMAGES,
    beta: float = 0.04,
    lora_rank: int = LORA_RANK,
    dtype: str = "bfloat16",
    quantize: str | None = None,
    micro_batch: int = 0,
    gradient_checkpointing: bool = False,
    offload_tower: bool = False,
) -> Fit:
    """Estimate the peak memory of a training step, by phase. Needs neither weights nor a GPU nor a network.

    model: a published name, a checkpoint directory, "pocket", or a Hub name whose config.json is in the cache. The
    others are those of `GRPOSettings` and `load_policy`; text_tokens and images: of a prompt beside its image, and how
    many images' features are kept. The defaults are the published recipe with no memory saved anywhere.

    >>> fits(gpu_gb=24).fits, fits(gpu_gb=24, micro_batch=8, gradient_checkpointing=True).fits
    (False, True)
    """
    setting = {name: value for name, value in locals().items() if name not in ("model", "gpu_gb")}
    config = configuration(model)
    shape = _shape(config, lora_rank, dtype, quantize)
    side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    image_tokens = max(1, max_pixels // side**2)
    peaks = step_memory(
        shape,
        prompts_per_step,
        group_size,
        prompt_tokens=text_tokens + image_tokens,
        image_tokens=image_tokens,
        completion_tokens=max_new_tokens,
        beta=beta,
        gradient_checkpointing=gradient_checkpointing,
        micro_batch=micro_batch,
        tower_on_device=not offload_tower,
        features_kept_bytes=min(FEATURE_CAP, images * image_tokens * shape.hidden * shape.value_bytes),
        images_at_once=min(TOWER_CHUNK, images),
    )
    tokens = {"prompt_tokens": text_tokens + image_tokens, "image_tokens": image_tokens}
    return Fit(str(model), gpu_gb, setting, tokens, fixed_bytes(shape), peaks)


def _shape(config: Any, lora_rank: int, dtype: str, quantize: str | None) -> ModelShape:
    """The model's shape with the bytes of its weights; ValueError where load_policy would refuse."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; valid: {', '.join(DTYPES)}")
    if quantize not in (None, "4bit"):
        raise ValueError(f"unknown quantize {quantize!r}; valid: None, '4bit'")
    if quantize and not lora_rank:
        raise ValueError("4-bit weights cannot be trained themselves: use lora_rank > 0")
    shape = shape_of(config, lora_rank, DTYPES[dtype])
    return dataclasses.replace(shape, weight_bytes=NF4_BYTES) if quantize else shape


# --------------------------------------------------------------------------------------------------------- the presets


@dataclass(frozen=True)
class Preset:
    """Settings for a card: the estimate they rest on, `GRPOSettings`, and the arguments of `load_policy`."""

    fit: Fit
    settings: GRPOSettings
    policy: dict[str, Any]  # load_policy(**preset.policy)
    given_up: dict[str, Any]  # what differs from the published recipe and may cost quality

    def arguments(self) -> list[str]:
        """Of `favor-lab train`: every option whose default differs."""
        options = {"policy": self.policy["name"]} | {k: v for k, v in self.policy.items() if k != "name"}
        for item in dataclasses.fields(self.settings):
            if (value := getattr(self.settings, item.name)) != item.default:
                options[item.name] = value
        found = []
        for name, value in options.items():
            text = f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
            found += [f"--{name.replace('_', '-')}"] + ([] if value is True else [text])
        return found

    @property
    def command(self) -> str:
        """Ready to run: on the drawn scenes, unless more is said (`--data folder --root my_photos`)."""
        return f"favor-lab train {' '.join(self.arguments())}"


def recommend(gpu_gb: float, model: str | Path = MODEL, **known: Any) -> Preset:
    """The settings to take on a card of so many GB, by a search in a fixed order.

    The published recipe first; where it does not fit, what costs only time: the tower leaves after encoding, fewer rows
    a pass, gradient checkpointing. Where the slowest way does not fit, the next of `GIVEN_UP` is given up as well. The
    first that fits is taken, so that a larger card never gets a worse one. known: arguments of `fits` that are settled
    (text_tokens, images, beta, dtype ...). A twentieth of the card is left free. ValueError where nothing fits.

    >>> recommend(24).given_up, recommend(6).given_up
    ({}, {'quantize': '4bit'})
    """
    least = math.inf
    for change in changes():
        fit = fits(model, gpu_gb, **{**change, **known})
        if fit.needed_bytes <= (1 - MARGIN) * gpu_gb * 1e9:
            return _preset(fit, known)
        least = min(least, fit.needed_bytes)
    raise ValueError(
        f"{model} does not fit on {gpu_gb:g} GB with any of the settings that were tried: the least needs"
        f" {least / 1e9:.1f} GB, by estimate. Take a smaller model or a larger card"
    )


def changes() -> Iterator[dict[str, Any]]:
    """Every setting that is tried, in order: first by quality, then by time."""
    steps: list[dict[str, Any]] = [{}, *GIVEN_UP]
    for given in itertools.accumulate(steps, lambda before, more: before | more):
        rows = given.get("prompts_per_step", RECIPE["prompts_per_step"])
        group = given.get("group_size", RECIPE["group_size"])
        for way in ways(rows * group, group):
            yield given | way


def ways(rows: int, group: int) -> list[dict[str, Any]]:
    """What changes no result, from the fastest to the slowest: all rows in a pass down to a group, then the same with
    checkpointing (each layer's forward pass again), then less than a group (its prompt again for every part)."""
    whole = [0] + [size for size in halves(rows) if group <= size < rows]
    parts = [size for size in halves(group) if size < group]
    found = [(size, False) for size in whole] + [(size, True) for size in [*whole, *parts]]
    return [
        {"micro_batch": size, "gradient_checkpointing": again, "offload_tower": away}
        for size, again in found
        for away in (False, True)
    ]


def halves(number: int) -> list[int]:
    """
    >>> halves(12)
    [12, 6, 3, 1]
    """
    return [number] + (halves(number // 2) if number > 1 else [])


def _preset(fit: Fit, known: dict[str, Any]) -> Preset:
    """The preset of an estimate that fits."""
    in_settings = {item.name for item in dataclasses.fields(GRPOSettings)}
    settings = GRPOSettings(**{**RECIPE, **{name: v for name, v in fit.setting.items() if name in in_settings}})
    normal = {"quantize": None, "max_pixels": MAX_PIXELS, "lora_rank": LORA_RANK}
    policy = {name: fit.setting[name] for name, value in normal.items() if fit.setting[name] != value}
    if fit.setting["dtype"] != "bfloat16":  # what load_policy takes on a card that has it
        policy["dtype"] = fit.setting["dtype"]
    wanted = RECIPE | normal
    given = {k: v for k, v in fit.setting.items() if k in wanted and v != wanted[k] and k not in known}
    return Preset(fit, settings, {"name": fit.model, **policy}, given)


def presets(model: str | Path = MODEL, cards: tuple[float, ...] = CARDS, **known: Any) -> dict[float, Preset | None]:
    """`recommend` for each card; None where nothing fits."""
    found: dict[float, Preset | None] = {}
    for card in cards:
        try:
            found[card] = recommend(card, model, **known)
        except ValueError:
            found[card] = None
    return found


def preset_table(found: dict[float, Preset | None]) -> str:
    """Presets as text, a line for each card."""
    head = f"{'card':>6}{'needed':>8}  {'weights':<9}{'image':>6}{'B x G':>8}{'L':>5}{'pass':>6}  checkpointing  tower"
    lines = [head]
    for card, preset in found.items():
        if preset is None:
            lines.append(f"{f'{card:g} GB':>6}  does not fit")
            continue
        s, fit = preset.fit.setting, preset.fit
        weights, away = "4-bit" if s["quantize"] else s["dtype"], "leaves" if s["offload_tower"] else "stays"
        size, card_gb = f"{s['prompts_per_step']} x {s['group_size']}", f"{card:g} GB"
        rows = s["micro_batch"] or s["prompts_per_step"] * s["group_size"]
        lines.append(
            f"{card_gb:>6}{fit.needed_bytes / 1e9:>5.1f} GB  {weights:<9}{fit.tokens['image_tokens']:>6}"
            f"{size:>8}{s['max_new_tokens']:>5}{rows:>6}"
            f"  {'yes' if s['gradient_checkpointing'] else 'no':<13}  {away}"
        )
    return "\n".join(lines)
