"""Steps of your own in the loop: each gets the arguments that it names, and none loses a setting silently.

The loop calls a step with its leading arguments and with the settings that concern it, as keywords. A step that does
not name such a keyword would run with something else than the settings say: where the setting is changed from its
default, such a step is refused before training starts, with the names of the step and of the setting.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from favor_lab.grpo.support.settings import GRPOSettings, changed_settings

if TYPE_CHECKING:
    from torch import Tensor

    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

Step = TypeVar("Step", bound=Callable[..., Any])
Rewards = Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]]
LARGEST_REWARD = 1e18  # the sum of squares of a group of such rewards is still a float32

#: slot -> leading arguments of its step, and the settings that its step must not lose
SLOTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "question": (1, ("style", "open_vocabulary")),
    "sample": (2, ("group_size", "max_new_tokens", "temperature", "decoding")),
    "reward": (0, ()),
    "select": (1, ()),
    "advantages": (1, ("scale", "eps", "unbiased")),
    "loss": (5, ("clip", "clip_high", "beta", "how", "level")),
    "after_step": (0, ()),
}
#: slot -> what the loop offers its step beside the settings
OFFERS: dict[str, tuple[str, ...]] = {
    "question": ("context",),
    "sample": ("seed", "context"),
    "reward": ("completions", "completion_ids", "prompts", "label", "source", "groups", "style", "context"),
    "select": ("context",),
    "advantages": ("context",),
    "loss": (
        "max_length", "total_rows", "total_tokens", "entropy", "distributions", "rollout", "prompts", "context",
    ),
    "after_step": ("context",),
}  # fmt: skip


def takes(function: Callable[..., Any], *names: str) -> bool:
    """Whether a function has a parameter of one of these names, or takes any keyword.

    >>> takes(takes, "function"), takes(takes, "seed", "names"), takes(step_name, "seed")
    (True, True, False)
    """
    parameters = inspect.signature(function).parameters
    return any(name in parameters for name in names) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def call(function: Callable[..., Any], /, *arguments: Any, **offered: Any) -> Any:
    """Call a function with its arguments, and with those of the offered ones that it names (all, if it has **kwargs).

    What a `functools.partial` has fixed stays fixed.

    >>> def scaled(rewards, eps=0):
    ...     return rewards + eps
    >>> call(scaled, 1, eps=2, seed=3), call(functools.partial(scaled, eps=5), 1, eps=2, seed=3)
    (3, 6)
    """
    fixed, parameters = fixed_arguments(function), inspect.signature(function).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {n: value for n, value in offered.items() if n not in fixed and (anything or n in parameters)}
    return function(*arguments, **taken)


def fixed_arguments(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The keywords that a `functools.partial` has fixed."""
    return function.keywords if isinstance(function, functools.partial) else {}


def step_name(function: Callable[..., Any]) -> str:
    """The name of a step or a reward in messages and records.

    >>> step_name(functools.partial(step_name, function=None))
    'step_name'
    """
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(function, "__name__", type(function).__name__)


def check_step(slot: str, function: Callable[..., Any], settings: GRPOSettings) -> None:
    """ValueError unless the step can be called in this slot and takes every changed setting that concerns it.

    >>> def my_loss(logps, old_logps, ref_logps, advantages, mask): ...
    >>> check_step("loss", my_loss, GRPOSettings(beta=0.5))
    Traceback (most recent call last):
    ...
    ValueError: the loss my_loss would lose the setting beta=0.5 (default 0.04): add a parameter beta, or **settings, to
    my_loss and hand it on
    """
    name, (leading, own_settings) = f"the {slot} {step_name(function)}", SLOTS[slot]
    fixed, changed = fixed_arguments(function), changed_settings(settings)
    for setting in own_settings:
        if setting not in changed:
            continue
        if not takes(function, setting):
            raise ValueError(
                f"{name} would lose the setting {setting}={changed[setting]!r} (default "
                f"{getattr(type(settings)(), setting)!r}): add a parameter {setting}, or **settings, to "
                f"{step_name(function)} and hand it on"
            )
        if setting in fixed and fixed[setting] != changed[setting]:
            raise ValueError(
                f"{name} has {setting}={fixed[setting]!r} fixed, but the settings say {changed[setting]!r}: leave out "
                "one of the two"
            )
    offered = offered_names(slot, settings)
    for parameter in own_parameters(function, leading):
        if parameter.name in offered:
            continue
        similar = difflib.get_close_matches(parameter.name, offered - {*settings.coefficients}, n=1, cutoff=0.8)
        if parameter.default is parameter.empty or similar:
            guess = f"; did you mean {similar[0]}?" if similar else ""
            raise ValueError(
                f"{name} names {parameter.name}, which is neither a setting nor a coefficient{guess} A {slot} step may "
                f"name any setting, any of GRPOSettings(coefficients=...), and {', '.join(OFFERS[slot])}"
            )


def offered_names(slot: str, settings: GRPOSettings) -> set[str]:
    """Every name that a step in this slot may have among its parameters."""
    return {*OFFERS[slot], *settings.coefficients, *(item.name for item in fields(settings))}


def own_parameters(function: Callable[..., Any], leading: int) -> list[inspect.Parameter]:
    """The parameters that can be given by keyword, without the leading ones that the loop gives by position."""
    fixed = fixed_arguments(function)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        leading = 0
        parameters = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return [p for p in parameters[leading:] if p.name not in fixed]


def coefficients_of(slot: str, function: Callable[..., Any], settings: GRPOSettings) -> dict[str, Any]:
    """A step's own coefficients: its parameters with a plain default value that are no settings, and what a
    `functools.partial` has fixed. They are recorded with the settings, so that a resumed run is the same run.

    >>> def papo_loss(logps, old_logps, ref_logps, advantages, mask, gamma=0.02, **settings): ...
    >>> coefficients_of("loss", papo_loss, GRPOSettings())
    {'gamma': 0.02}
    """
    offered = offered_names(slot, settings)
    defaults = {p.name: p.default for p in own_parameters(function, SLOTS[slot][0]) if p.name not in offered}
    values = defaults | dict(fixed_arguments(function))
    plain = (bool, int, float, str, type(None))
    return {name: value for name, value in values.items() if isinstance(value, plain)}


def settings_with_coefficients(
    settings: GRPOSettings, own_steps: Iterable[tuple[str, Callable[..., Any]]]
) -> GRPOSettings:
    """The settings with the coefficients of all steps of your own; ValueError for a step that cannot run with them, and
    for a coefficient that no step takes."""
    found: dict[str, Any] = {}
    steps = list(own_steps)
    for slot, function in steps:
        check_step(slot, function, settings)
        found |= coefficients_of(slot, function, settings)
    unused = [name for name in settings.coefficients if not any(names(function, name) for _, function in steps)]
    if unused:
        raise ValueError(
            f"no step takes the coefficient{'s' * (len(unused) > 1)} {', '.join(unused)}: the steps are "
            f"{', '.join(step_name(function) for _, function in steps) or 'the default ones'}"
        )
    return replace(settings, coefficients={**found, **settings.coefficients})


def names(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function has a parameter of this name; **kwargs do not count."""
    return parameter in inspect.signature(function).parameters


def in_context(step: Step, settings: GRPOSettings, **extras: Any) -> Step:
    """The step as the loop calls it: the loop's own keywords as far as it takes them, and what else it names from
    `extras`, the settings and their coefficients."""
    offered = {item.name: getattr(settings, item.name) for item in fields(settings)}
    offered |= dict(settings.coefficients) | extras
    parameters = inspect.signature(step).parameters
    named = {name: value for name, value in offered.items() if name in parameters}

    def bound(*arguments: Any, **keywords: Any) -> Any:
        return call(step, *arguments, **{**named, **keywords})

    return cast(Step, bound)


# --------------------------------------------------------------------------------------- how the loop calls each step


class Sample(Protocol):
    def __call__(
        self, policy: Policy, prompts: PromptBatch, /, *, group_size: int, max_new_tokens: int, temperature: float,
        seed: int, decoding: str,
    ) -> Rollout: ...  # fmt: skip


class Select(Protocol):
    def __call__(self, rollout: Rollout, /) -> Rollout: ...


class Advantages(Protocol):
    def __call__(self, rewards: Tensor, /, *, scale: str, eps: float, unbiased: bool) -> Tensor: ...


class Loss(Protocol):
    def __call__(
        self, logps: Tensor, old_logps: Tensor, ref_logps: Tensor | None, advantages: Tensor, mask: Tensor, /, *,
        clip: float, clip_high: float | None, beta: float, how: str, level: str, max_length: int, total_tokens: int,
        total_rows: int,
    ) -> tuple[Tensor, dict[str, float]]: ...  # fmt: skip


# ---------------------------------------------------------------------------------------------------- reward functions


def named_rewards(rewards: Rewards) -> dict[str, Callable[..., Any]]:
    """The reward functions by name. ValueError unless there is one at least, and every name is different."""
    named = dict(rewards) if isinstance(rewards, Mapping) else {step_name(function): function for function in rewards}
    if len(named) != len(rewards) or not named:
        raise ValueError("rewards need one function at least, and different names: pass {name: function, ...}")
    return named


def check_rewards(name: str, rewards: Iterable[Any], count: int) -> list[Any]:
    """The values of a reward function as a list. ValueError, with its name, unless they are `count` finite numbers that
    are small enough to have a standard deviation.

    >>> check_rewards("format_reward", [1.0, None], 2)
    Traceback (most recent call last):
    ...
    ValueError: reward function format_reward gave None for row 1; 2 finite numbers, none beyond 1e+18, are needed
    """
    rewards = list(rewards)
    bad = [row for row, reward in enumerate(rewards) if reward is None or not abs(reward) <= LARGEST_REWARD]
    if bad or len(rewards) != count:
        problem = f"{rewards[bad[0]]} for row {bad[0]}" if bad else f"{len(rewards)} numbers"
        needed = f"{count} finite numbers, none beyond {LARGEST_REWARD:g}, are needed"
        raise ValueError(f"reward function {name} gave {problem}; {needed}")
    return rewards
