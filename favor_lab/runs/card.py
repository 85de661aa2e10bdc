"""Settings that belong to the model and the card: whatever the user did not set comes from the preset for both.

The defaults of `GRPOSettings` are those of the pocket policy. For a model with more than `LARGE` parameters, by its
configuration and not by its name, `fitted_plan` takes the preset of `favor_lab.budget.fits.recommend` instead, and
refuses what does not fit on the card, before any weights are loaded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.grpo.support.settings import GRPOSettings, changed_settings
from favor_lab.runs.plan import RunPlan
from favor_lab.runs.run import Tell, note, tell

if TYPE_CHECKING:
    from favor_lab.budget.fits import Fit
    from favor_lab.runs.options import PolicyOptions

LARGE = 100_000_000  # parameters: from here on the defaults, which were chosen on the pocket policy, do not suit
FAR = 20  # times larger or smaller than in the preset: too far to be taken without a word
LABELS = 40  # of a set whose number of labels is not known yet
PRESET_SETTINGS = (
    "steps", "prompts_per_step", "group_size", "max_new_tokens", "learning_rate", "micro_batch",
    "gradient_checkpointing", "offload_tower",
)  # fmt: skip


def fitted_plan(
    plan: RunPlan,
    typed: Collection[str] | None = None,
    gpu_gb: float | None = None,
    check: bool = True,
    tell: Tell = tell,
    note: Tell = note,
) -> RunPlan:
    """The plan with the preset's settings for its model and card, where the user did not set others; a plan for a small
    model as it is. Says in one line what it took. Nothing is loaded but the model's configuration.

    typed: names of options that the user set (None: those that differ from their defaults). gpu_gb: the card's memory
    as it is sold; None: the card that the policy would be loaded on. Without a card: the preset's learning rate, and
    the smallest batch of all presets. ValueError for what does not fit on the card, unless check is False.
    """
    source = configuration_of(plan.policy)
    if source is None:
        return plan
    if typed is None:
        typed = [*changed_settings(plan.settings), *changed_settings(plan.policy)]
    own_gb = memory_of_card(plan.policy)
    card_gb = own_gb if gpu_gb is None else gpu_gb
    fixed = fixed_values(plan, typed, is_on_card=own_gb is not None)
    warn_if_far(plan, typed, note)
    if card_gb is None:
        fitted = with_values(plan, smallest_batch() | {"learning_rate": preset_rate(plan.policy, plan.method)}, typed)
        where = "no CUDA card here (--gpu-gb 12 names one): the learning rate of the presets, and their smallest batch"
        tell(f"{plan.policy.policy}, {where}: {taken(plan, fitted)}")
        return fitted
    fit = fit_for(plan.policy.policy, source, card_gb, fixed, typed, check, note)
    fitted = with_values(plan, fit.setting, typed)
    where = f"a card of {card_gb:.3g} GiB{'' if gpu_gb is None else ' (named)'}"
    tell(f"{plan.policy.policy}, {where}: preset {taken(plan, fitted)} ({fit.verdict()}, by estimate)")
    return fitted


def configuration_of(policy: PolicyOptions) -> str | Path | None:
    """What `fits` takes for this policy, if it has more than `LARGE` parameters; None for a smaller one. Of a Hub name
    that is not in the cache, the configuration is downloaded."""
    if policy.policy == "pocket":
        return None
    from favor_lab.budget.shapes import shape_of
    from favor_lab.vlm import hub
    from favor_lab.vlm.known import KNOWN

    source: str | Path = policy.policy
    if policy.policy not in KNOWN and hub.locate(policy.policy) is None:
        source = hub.in_cache(policy.policy, policy.revision) or hub.fetch(policy.policy, policy.revision, True)
    shape = shape_of(hub.configuration(source))
    return source if shape.language_parameters + shape.tower_parameters > LARGE else None


def memory_of_card(policy: PolicyOptions) -> float | None:
    """GiB of the CUDA device that the policy would be loaded on; None if it would be loaded elsewhere."""
    import torch

    from favor_lab.budget.cards import GIB

    if policy.device != "auto" and torch.device(policy.device).type != "cuda" or not torch.cuda.is_available():
        return None
    index = None if policy.device == "auto" else torch.device(policy.device).index
    return torch.cuda.mem_get_info(torch.cuda.current_device() if index is None else index)[1] / GIB


def adapter_rank(policy: PolicyOptions) -> int:
    """Rank of the adapter that will be trained: a saved one brings its own."""
    from favor_lab.vlm.adapters import plain_lora
    from favor_lab.vlm.untrusted import read_json

    config = None if policy.adapter is None else policy.adapter / "adapter_config.json"
    return policy.lora_rank if config is None or not config.is_file() else plain_lora(read_json(config), config)["r"]


def preset_rate(policy: PolicyOptions, method: str = "GRPO") -> float:
    """The learning rate that the study's presets take for GRPO or SFT of a large model, for what moves: an adapter or
    all weights."""
    from favor_lab.runs.cells import PRESETS

    return PRESETS["lora" if adapter_rank(policy) else "visual-rft"].rates[method.lower()]


def fixed_values(plan: RunPlan, typed: Collection[str], is_on_card: bool) -> dict[str, Any]:
    """The arguments of `fits` that the search for a preset must not change: what the user set, what no preset changes,
    and what follows from the method."""
    import torch

    policy, rank = plan.policy, adapter_rank(plan.policy)
    dtype = "bfloat16" if policy.dtype == "auto" else policy.dtype
    if policy.dtype == "auto" and is_on_card and not torch.cuda.is_bf16_supported(including_emulation=False):
        dtype = "float32"
    fixed: dict[str, Any] = {"lora_rank": rank, "dtype": dtype, "images": LABELS * plan.data.shots}
    fixed |= {"supervised": plan.method == "SFT", "learning_rate": preset_rate(plan.policy, plan.method)}
    fixed |= {"quantize": policy.quantize} if "quantize" in typed or not rank else {}
    fixed |= {"max_pixels": policy.max_pixels} if policy.max_pixels is not None else {}
    fixed |= {} if isinstance(plan.settings, GRPOSettings) else {"offload_tower": False}  # none of SFT's settings
    names = [item.name for item in fields(plan.settings)]
    return fixed | {
        name: getattr(plan.settings, name) for name in names if name in typed or name not in PRESET_SETTINGS
    }


def fit_for(
    name: str, source: str | Path, gpu_gb: float, fixed: dict[str, Any], typed: Collection[str], check: bool, note: Tell
) -> Fit:
    """The estimate of the preset for a card. Where none leaves room for a screen, the first that fits at all; where
    none does, ValueError with the numbers, or without a check the one that needs least."""
    from favor_lab.budget.fits import as_options, changes, fits, recommend

    try:
        return recommend(gpu_gb, source, **fixed).fit
    except ValueError as error:
        tried = [fits(source, gpu_gb, **change) for change in changes(**fixed)]
        if tight := next((fit for fit in tried if fit.fits), None):
            note(f"{tight.verdict()}, but with no room for a screen, or for an estimate that is too low")
            return tight
        least, nothing_fits = min(tried, key=lambda fit: fit.needed_bytes), str(error)
    if not check:
        note(f"{least.verdict()}, by estimate: not checked, as you said")
        return least
    given = {option: least.setting[option] for option in least.setting if option in typed}
    problem = f"{name}{' with ' + as_options(given) if given else ''}: {least.verdict()}, by estimate"
    try:
        advice = f"What fits: `{recommend(gpu_gb, source, supervised=fixed['supervised']).command}`"
    except ValueError:
        advice = nothing_fits
    advice = advice.replace(str(source), name)
    raise ValueError(f"{problem} (largest phase {least.largest}). {advice}. --no-check goes on all the same")


def smallest_batch() -> dict[str, Any]:
    """The published settings with the smallest batch of all presets, one group per pass."""
    from favor_lab.budget.fits import GIVEN_UP, PUBLISHED_SETTINGS

    given_up = {name: value for change in GIVEN_UP for name, value in change.items()}
    batch = {name: given_up[name] for name in ("prompts_per_step", "group_size")}
    return PUBLISHED_SETTINGS | batch | {"micro_batch": batch["group_size"], "gradient_checkpointing": True}


def with_values(plan: RunPlan, values: dict[str, Any], typed: Collection[str]) -> RunPlan:
    """The plan with these values of settings and of the policy's options, where the user did not set others."""
    from favor_lab.vlm.processor import MAX_PIXELS

    own = {item.name for item in fields(plan.settings)} & set(PRESET_SETTINGS) - set(typed)
    settings = {name: values[name] for name in PRESET_SETTINGS if name in own and name in values}
    policy = {name: values[name] for name in ("quantize", "max_pixels") if name in values and name not in typed}
    if policy.get("max_pixels") == MAX_PIXELS:  # the limit of every checkpoint
        del policy["max_pixels"]
    return replace(plan, settings=replace(plan.settings, **settings), policy=replace(plan.policy, **policy))


def taken(plan: RunPlan, fitted: RunPlan) -> str:
    """What the preset has changed, as options."""
    from favor_lab.budget.fits import as_options

    changed = {
        item.name: getattr(after, item.name)
        for before, after in ((plan.policy, fitted.policy), (plan.settings, fitted.settings))
        for item in fields(after)
        if getattr(before, item.name) != getattr(after, item.name)
    }
    return as_options(changed) or "as set"


def warn_if_far(plan: RunPlan, typed: Collection[str], note: Tell) -> None:
    """A note for a learning rate, a batch or a length that the user set, and that is far from the preset's."""
    from favor_lab.budget.fits import PUBLISHED_SETTINGS, as_options

    preset = PUBLISHED_SETTINGS | {"learning_rate": preset_rate(plan.policy, plan.method)}
    for name in ("learning_rate", "prompts_per_step", "group_size", "max_new_tokens"):
        value = getattr(plan.settings, name, preset[name])
        is_small = name == "learning_rate" and value * FAR < preset[name]
        if name in typed and (value > FAR * preset[name] or is_small):
            times = f"{value / preset[name]:.3g} times" if value > preset[name] else f"1/{preset[name] / value:.3g} of"
            note(
                f"{as_options({name: value})} is {times} what the preset takes for {plan.policy.policy}"
                f" ({as_options({name: preset[name]})}): leave it out unless you mean it"
            )
