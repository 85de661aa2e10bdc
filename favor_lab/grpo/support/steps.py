"""Steps of your own in the loop: each gets the arguments that it names, and none loses a setting silently.

The loop calls a step with its leading arguments and with the settings that concern it, as keywords. A step that does
not name such a keyword would run with something else than the settings say: where that setting is changed from its
default, the step is refused before training starts, with the names of both.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from favor_lab.activities.labels import refuse_string
from favor_lab.arguments import ArgumentError
from favor_lab.grpo.support.settings import GRPOSettings, changed_settings

if TYPE_CHECKING:
    from torch import Tensor

    from favor_lab.grpo.support.rollout import Rollout
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

Step = TypeVar("Step", bound=Callable[..., Any])
Rewards = Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]]
LARGEST_REWARD = 1e18  # the sum of squares of a group of such rewards is still a float32

REWARD_COLUMNS = ("completions", "completion_ids", "prompts", "label", "source", "groups", "style", "context")
LOSS_OFFERS = ("max_length", "total_rows", "total_tokens", "entropy", "distributions", "rollout", "prompts", "context")

#: slot -> leading arguments of its step, settings that it must not lose, what the loop offers it beside the settings
SLOTS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "question": (1, ("style", "open_vocabulary"), ("context",)),
    "sample": (2, ("group_size", "max_new_tokens", "temperature", "decoding"), ("seed", "context")),
    "reward": (0, (), REWARD_COLUMNS),
    "select": (1, (), ("context",)),
    "advantages": (1, ("scale", "eps", "unbiased"), ("context",)),
    "loss": (5, ("clip", "clip_high", "beta", "how", "level"), LOSS_OFFERS),
    "after_step": (0, (), ("context",)),
}


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
    step, name, fixed = step_name(function), f"the {slot} {step_name(function)}", fixed_arguments(function)
    changed = changed_settings(settings)
    for setting in (setting for setting in SLOTS[slot][1] if setting in changed):
        value = changed[setting]
        if not takes(function, setting):
            default = getattr(type(settings)(), setting)
            raise ValueError(
                f"{name} would lose the setting {setting}={value!r} (default {default!r}): add a parameter {setting}, "
                f"or **settings, to {step} and hand it on"
            )
        if fixed.get(setting, value) != value:
            fixed_value = f"{name} has {setting}={fixed[setting]!r} fixed"
            raise ValueError(f"{fixed_value}, but the settings say {value!r}: leave out one of the two")
    for parameter in unoffered_parameters(slot, function, settings):
        known = {*SLOTS[slot][2], *(item.name for item in fields(settings))}
        similar = difflib.get_close_matches(parameter.name, known, n=1, cutoff=0.8)
        if parameter.default is parameter.empty or similar:
            guess = f"; did you mean {similar[0]}?" if similar else ""
            raise ValueError(
                f"{name} names {parameter.name}, which is neither a setting nor a coefficient{guess} A {slot} step may "
                f"name any setting, any of GRPOSettings(coefficients=...), and {', '.join(SLOTS[slot][2])}"
            )


def unoffered_parameters(slot: str, function: Callable[..., Any], settings: GRPOSettings) -> list[inspect.Parameter]:
    """The parameters that can be given by keyword, and that the loop gives neither by position nor by name."""
    leading, _, offered = SLOTS[slot]
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        leading, parameters = 0, [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    named = {*offered, *settings.coefficients, *fixed_arguments(function), *(item.name for item in fields(settings))}
    return [p for p in parameters[leading:] if p.name not in named]


def coefficients_of(slot: str, function: Callable[..., Any], settings: GRPOSettings) -> dict[str, Any]:
    """A step's own coefficients: its parameters with a plain default value that are no settings, and what a
    `functools.partial` has fixed. They are recorded with the settings, so that a resumed run is the same run.

    >>> def papo_loss(logps, old_logps, ref_logps, advantages, mask, gamma=0.02, **settings): ...
    >>> coefficients_of("loss", papo_loss, GRPOSettings())
    {'gamma': 0.02}
    """
    values = {p.name: p.default for p in unoffered_parameters(slot, function, settings)}
    values |= fixed_arguments(function)
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str | None)}


def settings_with_coefficients(
    settings: GRPOSettings, own_steps: Iterable[tuple[str, Callable[..., Any]]]
) -> GRPOSettings:
    """The settings with the coefficients of all steps of your own; ValueError for a step that cannot run with them, and
    for a coefficient that no step takes."""
    if not isinstance(settings, GRPOSettings):
        raise ArgumentError("settings", f"settings is of {type(settings).__name__}, but must be of GRPOSettings")
    coefficients, steps = dict[str, Any](), list(own_steps)
    for slot, function in steps:
        check_step(slot, function, settings)
        own = coefficients_of(slot, function, settings)
        if slot != "reward" and (taken := [name for name in own if name in REWARD_COLUMNS]):
            message = f"the {slot} {step_name(function)} has a coefficient {taken[0]}, but rewards are given a column"
            raise ValueError(f"{message} of this name, which it would replace: give the parameter another name")
        coefficients |= own
    unused = [name for name in settings.coefficients if not any(names(function, name) for _, function in steps)]
    if unused:
        untaken = f"no step takes the coefficient{'s' * (len(unused) > 1)} {', '.join(unused)}"
        step_names = ", ".join(step_name(function) for _, function in steps)
        raise ValueError(f"{untaken}: the steps are {step_names or 'the default ones'}")
    return replace(settings, coefficients={**coefficients, **settings.coefficients})


def names(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function has a parameter of this name; **kwargs do not count."""
    return parameter in inspect.signature(function).parameters


def needed_if(**conditions: Callable[..., Any]) -> Callable[[Step], Step]:
    """A decorator for a step that needs what is costly to make, such as `distributions`, with some settings only. Each
    condition names the settings and coefficients that it depends on; where it does not hold, the step's default stays.

    >>> @needed_if(distributions=lambda gamma: gamma != 0)
    ... def loss(logps, distributions=None, gamma=0.02): ...
    >>> [needs(loss, "distributions", GRPOSettings(coefficients={"gamma": gamma})) for gamma in (0.0, 0.02)]
    [False, True]
    """

    def decorated(step: Step) -> Step:
        step.__dict__["needed_if"] = conditions
        return step

    return decorated


def needs(step: Callable[..., Any], offer: str, settings: GRPOSettings) -> bool:
    """Whether a step names this offer of the loop, and needs it with these settings (see `needed_if`)."""
    function = step.func if isinstance(step, functools.partial) else step
    condition = getattr(function, "needed_if", {}).get(offer)
    return names(step, offer) and (condition is None or bool(call(in_context(condition, settings))))


def in_context(step: Step, settings: GRPOSettings, **extras: Any) -> Step:
    """The step as the loop calls it: the loop's own keywords as far as it takes them, and what else it names from
    `extras`, the settings and their coefficients."""
    offered, parameters = {**vars(settings), **settings.coefficients, **extras}, inspect.signature(step).parameters
    named = {name: value for name, value in offered.items() if name in parameters}
    return cast(Step, lambda *arguments, **keywords: call(step, *arguments, **{**named, **keywords}))


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
    refuse_string("rewards", rewards)
    if callable(rewards) or not all(map(callable, rewards.values() if isinstance(rewards, Mapping) else rewards)):
        raise ValueError(f"rewards must be a list of functions, or a dictionary of them by name, not {rewards!r}")
    named = dict(rewards) if isinstance(rewards, Mapping) else {step_name(function): function for function in rewards}
    if len(named) != len(rewards) or not named:
        raise ValueError("rewards need one function at least, and different names: pass {name: function, ...}")
    if strangers := [name for name, function in named.items() if not callable(function)]:
        raise ArgumentError("rewards", f"rewards has {strangers[0]!r}, which is no function")
    return named


def check_weights(settings: GRPOSettings, rewards: Mapping[str, Any]) -> None:
    """ArgumentError for weights that are not one per reward."""
    weights = settings.reward_weights
    if weights is not None and len(weights) != len(rewards):
        message = f"reward_weights has {len(weights)} numbers for {len(rewards)} rewards: {', '.join(rewards)}"
        raise ArgumentError("reward_weights", message)


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
        values = f"{rewards[bad[0]]} for row {bad[0]}" if bad else f"{len(rewards)} numbers"
        needed = f"{count} finite numbers, none beyond {LARGEST_REWARD:g}, are needed"
        raise ValueError(f"reward function {name} gave {values}; {needed}")
    return rewards
