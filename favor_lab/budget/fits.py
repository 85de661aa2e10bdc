"""What fits on a GPU: peak memory by phase for a model and settings, and recommended settings for 6 to 24 GB.

Everything is counted in GiB, 2^30 bytes, as cards are sold: one of "12 GB" has 12 GiB.

The estimate is `memory.step_memory`, within 15 % of what was measured on a CPU (data/results/benchmarks.md), plus what
a GPU needs besides tensors: `CONTEXT_BYTES` and `ALLOCATOR_SHARE`, which are estimates and were not measured.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from favor_lab.budget.cards import GIB, card_of, training_seconds
from favor_lab.budget.memory import fixed_bytes, step_memory
from favor_lab.budget.shapes import NF4_BYTES, ModelShape, StepShape, shape_of
from favor_lab.grpo.support.settings import GRPOSettings, changed_settings
from favor_lab.vlm.adapters import LORA_RANK
from favor_lab.vlm.hub import configuration
from favor_lab.vlm.loading import DTYPES
from favor_lab.vlm.processor import MAX_PIXELS

MODEL = "Qwen/Qwen2-VL-2B-Instruct"
CARDS = (6, 8, 12, 16, 24)  # GB as they are sold
CONTEXT_BYTES = 0.6e9  # CUDA's context, kernels and workspaces of the libraries
ALLOCATOR_SHARE = 0.08  # what the caching allocator holds beyond its tensors
SCREEN_GB = 0.5  # what `recommend` leaves for a screen: a desktop and a browser (estimate), in GiB
MARGIN = 0.05  # share of a card that it leaves free besides: for the driver, and for an estimate that is too low
PASS_TOKENS = 2000  # in a pass over so many, reading the weights takes less than a tenth of the arithmetic: no larger
TARGET_TOKENS = 32  # of an answer that supervised fine-tuning learns
TEXT_TOKENS = 200  # of a prompt without its image (with the tokenizer of Qwen2-VL: 178 for Stanford 40's forty labels)
IMAGE_TOKEN_PIXELS = 28 * 28
IMAGES = 160  # whose features are kept: forty labels, four shots
# The published settings (Visual-RFT: 200 steps of 16 prompts x G 8, 256 tokens), with the learning rate that
# `favor-lab study` uses for an adapter (own choice, not tuned).
PUBLISHED_SETTINGS: dict[str, Any] = {
    "steps": 200, "prompts_per_step": 16, "group_size": 8, "max_new_tokens": 256, "learning_rate": 1e-5,
}  # fmt: skip
PUBLISHED_POLICY: dict[str, Any] = {"quantize": None, "max_pixels": MAX_PIXELS, "lora_rank": LORA_RANK}
# What is given up for memory, in this order, beginning with what costs least in quality (our own judgement): NF4
# weights, detail in the image, images per optimiser step, room to reason, the size of the group, whose spread teaches.
GIVEN_UP: tuple[dict[str, Any], ...] = (
    {"quantize": "4bit"}, {"max_pixels": MAX_PIXELS // 2}, {"prompts_per_step": 8}, {"max_pixels": MAX_PIXELS // 4},
    {"max_new_tokens": 128}, {"prompts_per_step": 4}, {"group_size": 4},
)  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """An estimate: bytes at the peak of each phase, for a model with its settings, and the card that it is for."""

    model: str
    gpu_gb: float | None  # of the card, as it is sold: 12 GB are 12 GiB
    settings: GRPOSettings
    others: dict[str, Any]  # the other arguments of `fits`
    tokens: dict[str, int]  # of a prompt: all, and those of its image
    fixed: dict[str, float]  # bytes that do not depend on the batch: language, tower, adapter, training
    peaks: dict[str, float]  # bytes of tensors at the peak of each phase
    shape: ModelShape
    step: StepShape

    @property
    def setting(self) -> dict[str, Any]:
        """All settings and arguments by name."""
        return vars(self.settings) | self.others

    @property
    def largest(self) -> str:
        """The phase that needs the most."""
        return max(self.peaks, key=lambda phase: self.peaks[phase])

    @property
    def needed_bytes(self) -> float:
        """What the card must have: the tensors of the largest phase, the allocator's share, and CUDA's own memory."""
        return self.peaks[self.largest] * (1 + ALLOCATOR_SHARE) + CONTEXT_BYTES

    @property
    def fits(self) -> bool | None:
        """Whether it fits on the card; None without a card."""
        return None if self.gpu_gb is None else self.needed_bytes <= self.gpu_gb * GIB

    @property
    def seconds(self) -> dict[str, float] | None:
        """Estimated seconds of each phase on the card; `encode` once, the others in every step. None without a card."""
        return None if self.gpu_gb is None else training_seconds(self.shape, self.step, card_of(self.gpu_gb))

    @property
    def hours(self) -> float | None:
        """Estimated hours of training on the card; None without one."""
        if self.seconds is None:
            return None
        step = sum(seconds for phase, seconds in self.seconds.items() if phase != "encode")
        return (self.seconds.get("encode", 0.0) + self.settings.steps * step) / 3600

    def verdict(self) -> str:
        """What is needed, and whether the card has it, in words."""
        of_card = "" if self.gpu_gb is None else f" of {self.gpu_gb:g} GiB: {'fits' if self.fits else 'does not fit'}"
        return f"{self.needed_bytes / GIB:.1f} GiB needed{of_card}"

    def time_estimate(self) -> str:
        """Hours of training on the card, and what they rest on, as text."""
        if self.gpu_gb is None or self.seconds is None:
            return "no card is named, so no time either"
        step = sum(seconds for phase, seconds in self.seconds.items() if phase != "encode")
        return (
            f"time, an estimate: {self.hours:.1f} hours of training, {self.settings.steps} steps of {step:.0f} s with"
            f" completions of {self.settings.max_new_tokens} tokens (shorter ones take less).\n"
            f"Counted FLOPs and bytes at {card_of(self.gpu_gb)}; not measured: `favor-lab profile` measures a step"
        )

    def table(self) -> str:
        """The estimate as text, one line per phase."""
        s, largest = self.setting, max(self.peaks.values())
        words = [f"{self.step.prompts} prompts x G {self.step.group_size}", f"{self.step.completion_tokens} tokens"]
        words += [f"images of {self.tokens['image_tokens']} tokens", "4-bit" if s["quantize"] else s["dtype"]]
        words += [f"LoRA rank {s['lora_rank']}" if s["lora_rank"] else "all weights of the language model"]
        words += [f"{s['micro_batch']} rows in a pass"] * bool(s["micro_batch"])
        words += ["gradient checkpointing"] * s["gradient_checkpointing"] + ["tower away"] * s["offload_tower"]
        present = {name: size for name, size in self.fixed.items() if name != "tower" or not s["offload_tower"]}
        return "\n".join([
            self.model,
            ", ".join(words),
            f"{'phase':<11}{'GiB':>7}  of tensors at its peak (estimate)",
            *(f"{name:<11}{peak / GIB:>7.2f}  {'#' * round(40 * peak / largest)}" for name, peak in self.peaks.items()),
            f"of them always there, in GiB: {', '.join(f'{name} {size / GIB:.2f}' for name, size in present.items())}",
            f"largest phase {self.largest}, {ALLOCATOR_SHARE:.0%} for the allocator and {CONTEXT_BYTES / GIB:.1f} GiB"
            f" for CUDA (both estimates): {self.verdict()}",
        ])  # fmt: skip


def fits(
    model: str | Path = MODEL,
    gpu_gb: float | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    text_tokens: int = TEXT_TOKENS,
    images: int = IMAGES,
    lora_rank: int = LORA_RANK,
    dtype: str = "bfloat16",
    quantize: str | None = None,
    supervised: bool = False,
    **settings: Any,
) -> Fit:
    """Estimate the peak memory of a training step, by phase. Needs no weights, no GPU and no network.

    model: a published name, a checkpoint directory, "pocket", or a Hub name whose config.json is in the cache.
    text_tokens: of a prompt without its image; images: whose features are kept. max_pixels, lora_rank, dtype, quantize:
    as for `load_policy`; settings: fields of `GRPOSettings`, by default the published ones with no memory saved
    anywhere. supervised: of a step of `sft`, whose prompts have one short target each, which is all that is scored.
    ValueError for values that those two refuse, TypeError for a setting that does not exist.

    >>> fits(gpu_gb=24).fits, fits(gpu_gb=24, micro_batch=8, gradient_checkpointing=True).fits
    (False, True)
    """
    others: dict[str, Any] = {"max_pixels": max_pixels, "text_tokens": text_tokens, "images": images}
    others |= {"lora_rank": lora_rank, "dtype": dtype, "quantize": quantize, "supervised": supervised}
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; valid: {', '.join(DTYPES)}")
    if quantize not in (None, "4bit"):
        raise ValueError(f"unknown quantize {quantize!r}; valid: None, '4bit'")
    if quantize and not lora_rank:
        raise ValueError("4-bit weights cannot be trained themselves: use lora_rank > 0")
    config, grpo = configuration(model), GRPOSettings(**(PUBLISHED_SETTINGS | settings))
    shape = shape_of(config, lora_rank, DTYPES[dtype])
    if quantize:
        shape = dataclasses.replace(shape, weight_bytes=NF4_BYTES)
    side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    step = StepShape.from_settings(grpo, text_tokens, max(1, max_pixels // side**2), images)
    if supervised:
        step = dataclasses.replace(step, group_size=1, completion_tokens=TARGET_TOKENS, beta=0.0)
    tokens = {"prompt_tokens": step.prompt_tokens, "image_tokens": step.image_tokens}
    return Fit(str(model), gpu_gb, grpo, others, tokens, fixed_bytes(shape), step_memory(shape, step), shape, step)


# --------------------------------------------------------------------------------------------------------- the presets


@dataclass(frozen=True)
class Preset:
    """Settings for a card: the estimate they rest on, `GRPOSettings`, and the arguments of `load_policy`."""

    fit: Fit
    settings: GRPOSettings
    policy: dict[str, Any]  # load_policy(**preset.policy)
    given_up: dict[str, Any]  # what differs from the published settings and may cost quality

    @property
    def command(self) -> str:
        """A command to run, on the drawn scenes; for other images add options (`--data folder --root my_photos`)."""
        own = {name: value for name, value in self.policy.items() if name != "name"}
        options = {"policy": self.policy["name"], "gpu_gb": self.fit.gpu_gb} | own | changed_settings(self.settings)
        return f"favor-lab {'sft' if self.fit.others['supervised'] else 'train'} {as_options(options)}"


def as_options(values: Mapping[str, Any]) -> str:
    """Settings by name as options of a command.

    >>> as_options({"learning_rate": 1e-5, "offload_tower": True, "gradient_checkpointing": False})
    '--learning-rate 1e-5 --offload-tower --no-gradient-checkpointing'
    """
    words = []
    for name, value in values.items():
        text = f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
        words += [f"--{'no-' if value is False else ''}{name.replace('_', '-')}"] + [text] * (
            not isinstance(value, bool)
        )
    return " ".join(words)


def recommend(gpu_gb: float, model: str | Path = MODEL, **fixed: Any) -> Preset:
    """The settings to use on a card of so many GB: the first that fit in the fixed order of `changes`, so that a larger
    card never gets worse ones. `SCREEN_GB` and a twentieth of the card stay free. fixed: arguments of `fits` that the
    search must not change (text_tokens, images, beta, dtype ...). ValueError if nothing fits.

    >>> recommend(24).given_up, recommend(6).given_up
    ({}, {'quantize': '4bit'})
    """
    least, room = math.inf, (1 - MARGIN) * gpu_gb - SCREEN_GB
    for change in changes(**fixed):
        fit = fits(model, gpu_gb, **change)
        least = min(least, fit.needed_bytes / GIB)
        if fit.needed_bytes <= room * GIB:
            return preset_of(fit, fixed)
    raise ValueError(
        f"{model} does not fit on {gpu_gb:g} GB with any of the settings that were tried: the least needs"
        f" {least:.1f} GiB, by estimate, and {max(room, 0):.1f} are there beside a screen. Take a smaller model or a"
        " larger card"
    )


def preset_of(fit: Fit, fixed: Mapping[str, Any]) -> Preset:
    """The preset that rests on this estimate; what is fixed was not given up."""
    published = PUBLISHED_SETTINGS | PUBLISHED_POLICY
    changed = {name: value for name, value in fit.setting.items() if name in published and value != published[name]}
    policy = {name: changed[name] for name in PUBLISHED_POLICY if name in changed}
    if fit.setting["dtype"] != "bfloat16":  # what load_policy takes on a card that has it
        policy["dtype"] = fit.setting["dtype"]
    given_up = {name: value for name, value in changed.items() if name not in fixed}
    return Preset(fit, fit.settings, {"name": fit.model, **policy}, given_up)


def changes(**fixed: Any) -> Iterator[dict[str, Any]]:
    """All combinations that `recommend` tries, in order: the published settings, with whatever costs time alone; if the
    slowest way does not fit, the next of `GIVEN_UP` is given up too. What is fixed stays."""
    for given_up in itertools.accumulate([{}, *GIVEN_UP], lambda before, more: before | more):
        size = PUBLISHED_SETTINGS | PUBLISHED_POLICY | {"text_tokens": TEXT_TOKENS} | given_up | fixed
        prompt_tokens = size["text_tokens"] + size["max_pixels"] // IMAGE_TOKEN_PIXELS
        group_size, length = size["group_size"], size["max_new_tokens"]
        if size.get("supervised"):
            group_size, length = 1, TARGET_TOKENS
        group_tokens = prompt_tokens + group_size * (length - 1)
        for saving in memory_savings(size["prompts_per_step"], group_size, group_tokens):
            yield given_up | saving | fixed


def memory_savings(prompts: int, group_size: int, group_tokens: int) -> list[dict[str, Any]]:
    """Settings that save memory and change no result, from the fastest to the slowest: as many groups per pass as it
    takes to keep a card at work (`PASS_TOKENS`; more would take memory and save no time), down to one; then the same
    with checkpointing, which runs each layer's forward pass again; then less than one group, which runs its prompt
    again for every part. Each with the tower in place, then away once all images are encoded."""
    groups = min(prompts, 2 ** math.ceil(math.log2(max(1.0, PASS_TOKENS / group_tokens))))
    sizes = [group_size * number for number in (groups, *halves(groups))]
    ways = [(size, False) for size in sizes] + [(size, True) for size in (*sizes, *halves(group_size))]
    return [
        {
            "micro_batch": 0 if size == prompts * group_size else size,
            "gradient_checkpointing": again,
            "offload_tower": away,
        }
        for size, again in ways
        for away in (False, True)
    ]


def halves(number: int) -> list[int]:
    """
    >>> halves(12)
    [6, 3, 1]
    """
    return [number // 2, *halves(number // 2)] if number > 1 else []


def presets(model: str | Path = MODEL, cards: tuple[float, ...] = CARDS, **fixed: Any) -> dict[float, Preset | None]:
    """`recommend` for each card; None where nothing fits."""
    by_card: dict[float, Preset | None] = dict.fromkeys(cards)
    for card in cards:
        with suppress(ValueError):
            by_card[card] = recommend(card, model, **fixed)
    return by_card


def preset_table(by_card: dict[float, Preset | None]) -> str:
    """Presets as text, one line per card. hours: of training, by estimate."""
    lines = ["  card   needed  weights   image   B x G    L  pass  checkpointing  tower   hours"]
    for card, preset in by_card.items():
        if preset is None:
            lines.append(f"{f'{card:g} GB':>6}  does not fit")
            continue
        s, fit = preset.fit.setting, preset.fit
        weights, tower = "4-bit" if s["quantize"] else s["dtype"], "leaves" if s["offload_tower"] else "stays"
        size, card_gb = f"{s['prompts_per_step']} x {s['group_size']}", f"{card:g} GB"
        again, needed = "yes" if s["gradient_checkpointing"] else "no", fit.needed_bytes / GIB
        numbers = f"{fit.tokens['image_tokens']:>6}{size:>8}{s['max_new_tokens']:>5}{fit.step.rows_per_pass:>6}"
        lines.append(f"{card_gb:>6}{needed:>5.1f} GiB  {weights:<9}{numbers}  {again:<13}  {tower:<6}{fit.hours:>7.1f}")
    return "\n".join(lines)
