"""Two widgets to explore: one group (rewards and advantages), and the tokens of one completion (the loss).

Each is a thin layer over functions without widgets: `group_result` here, and `favor_lab.study.tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from favor_lab.grpo.advantages import group_advantages, is_flat, spread
from favor_lab.grpo.sampling import Rollout, sample_groups
from favor_lab.grpo.support.rollout import weighted_sum
from favor_lab.grpo.support.settings import SCALES
from favor_lab.grpo.support.steps import step_name
from favor_lab.show.frontend import Shown, can_show_widgets, stack
from favor_lab.show.groups import plot_group
from favor_lab.show.markup import CSS, cards_html, group_html, image_html
from favor_lab.show.style import short_name, signed
from favor_lab.show.tokens import QUANTITIES, THOUSANDTHS, TOKEN_CSS, plot_tokens, tokens_html
from favor_lab.study.groups import REWARDS, sample_and_score
from favor_lab.study.tokens import Token, token_losses, token_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

# ------------------------------------------------------------------------------------------------------- one group


@dataclass(frozen=True)
class GroupChoices:
    """The choices of the explorer. A change of the first four needs new completions, of the others only arithmetic."""

    image: int = 0  # of the training images
    temperature: float = 1.0
    group_size: int = 8
    seed: int = 0
    weights: tuple[float, ...] | None = None  # of each reward in the sum; None: all 1
    scale: str = "group"
    unbiased: bool = True

    @property
    def sampled(self) -> tuple[int, float, int, int]:
        """The choices that the completions depend on."""
        return self.image, self.temperature, self.group_size, self.seed


@dataclass(frozen=True)
class GroupResult:
    """One group with its rewards and advantages, as it is shown."""

    samples: list[dict[str, Any]]  # its completions, as in `StepRecord.samples`
    numbers: dict[str, str]  # mean and spread of its rewards


def group_result(
    texts: Sequence[str], scores: Mapping[str, Tensor], examples: Sequence[Example], choices: GroupChoices
) -> GroupResult:
    """Advantages of the first of B groups from its rewards, under the choices that need no sampling.

    texts: N completions, prompt-major; scores: (N,) each, by name; examples: the B images.
    The other groups matter only for scale "batch".
    """
    totals = weighted_sum(dict(scores), choices.weights).view(len(examples), -1)  # (B, G)
    advantages = group_advantages(totals, scale=choices.scale, unbiased=choices.unbiased)[0].tolist()
    own = {name: values[: totals.shape[1]].tolist() for name, values in scores.items()}
    samples = [
        {
            "text": texts[g],
            "label": examples[0].label,
            "source": examples[0].source,
            "rewards": {name: values[g] for name, values in own.items()},
            "reward": totals[0, g].item(),
            "advantage": advantages[g],
        }
        for g in range(totals.shape[1])
    ]
    numbers = {
        "mean reward": f"{totals[0].mean():.2f}",
        "std of the group": f"{spread(totals[:1], choices.unbiased).item():.2f}",
        f"std of the batch ({len(totals)} groups)": f"{spread(totals.view(1, -1), choices.unbiased).item():.2f}",
        "flat groups in the batch": f"{int(is_flat(totals).sum())} of {len(totals)}",
    }
    return GroupResult(samples, numbers)


class GroupExplorer(Shown):
    """One group to explore: choose image, temperature, G and seed, weights, scale, n or n - 1, and see the effect.

    A new group is sampled only when the image, the temperature, G or the seed changes. Three more images are sampled
    with the chosen one, so that scale "batch" has a batch; only the chosen one's group is shown.

    rewards: functions with TRL's signature, as for `train`. sample: as for `train`. interactive: see
    `favor_lab.show.frontend.can_show_widgets`; without widgets it is a figure. choices: initial values, fields of
    GroupChoices: image (of the training images), temperature, group_size, seed, weights, scale, unbiased.
    Do not use it while the same policy is being trained in another thread.
    """

    BESIDE = 3  # images in the batch, besides the chosen one

    def __init__(
        self,
        policy: Policy,
        shots: FewShot,
        *,
        rewards: Sequence[Callable[..., Any]] = REWARDS,
        style: str = "think",
        max_new_tokens: int = 64,
        sample: Callable[..., Rollout] = sample_groups,
        interactive: bool | None = None,
        **choices: Any,
    ):
        self.policy, self.shots, self.choices = policy, shots, GroupChoices(**choices)
        self.rewards, self.style, self.max_new_tokens, self.sample = rewards, style, max_new_tokens, sample
        self.interactive = can_show_widgets(interactive)
        self._batch: tuple[Any, Rollout, dict[str, Tensor], list[Example]] | None = None
        self._view: _GroupView | None = None

    @property
    def names(self) -> list[str]:
        """The rewards by name."""
        return [step_name(function) for function in self.rewards]

    def choose(self, **changes: Any) -> GroupResult:
        """Change some of the choices (fields of GroupChoices); returns the group."""
        self.choices = replace(self.choices, **changes)
        return self.result()

    def result(self) -> GroupResult:
        """The group under the current choices; sampled only if the completions depend on what has changed."""
        if self._batch is None or self._batch[0] != self.choices.sampled:
            self._batch = (self.choices.sampled, *self._sampled())
        _, rollout, scores, examples = self._batch
        return group_result(rollout.texts, scores, examples, self.choices)

    def _sampled(self) -> tuple[Rollout, dict[str, Tensor], list[Example]]:
        image, temperature, group_size, seed = self.choices.sampled
        train = self.shots.train
        examples = [train[(image + i) % len(train)] for i in range(min(1 + self.BESIDE, len(train)))]
        rollout, scores = sample_and_score(
            self.policy, examples, self.shots.labels, self.style, self.rewards, self.sample,
            max_new_tokens=self.max_new_tokens, group_size=group_size, temperature=temperature, seed=seed,
        )  # fmt: skip
        return rollout, scores, examples

    def widget(self) -> Any:
        """The widgets, made on first use."""
        if self._view is None:
            self._view = _GroupView(self)
        return self._view.box

    def picture(self) -> Image:
        """The group under the current choices, drawn by `plot_group`."""
        samples = self.result().samples
        columns = {name: [sample["rewards"][name] for sample in samples] for name in samples[0]["rewards"]}
        advantages = [sample["advantage"] for sample in samples]
        example = self.shots.train[self.choices.image]
        title = f"temperature {self.choices.temperature:g}, scale {self.choices.scale}"
        texts = [sample["text"] for sample in samples]
        return stack(plot_group(example.image, example.label, texts, columns, advantages, title=title))

    def __repr__(self) -> str:
        return f"GroupExplorer: G = {self.choices.group_size}, temperature {self.choices.temperature:g}"


class _GroupView:
    """The widgets of an explorer, one for each of its choices."""

    def __init__(self, explorer: GroupExplorer):
        import ipywidgets

        self.explorer = explorer
        self.weights = _weight_sliders(explorer.names, explorer.choices)
        self.controls = _sampling_controls(explorer.shots, explorer.choices)
        sampling = list(self.controls.values())
        self.controls |= _advantage_controls(explorer.choices)
        arithmetic = [*self.weights, self.controls["scale"], self.controls["unbiased"]]
        self.view = ipywidgets.HTML()
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self.change(**{name: change["new"]}), "value")
        for slider in self.weights:
            slider.observe(lambda _: self.change(weights=tuple(slider.value for slider in self.weights)), "value")
        columns = ipywidgets.HBox([ipywidgets.VBox(sampling), ipywidgets.VBox(arithmetic)])
        self.box = ipywidgets.VBox([ipywidgets.HTML(CSS, layout={"display": "none"}), columns, self.view])
        self.box.add_class("fl-explorer")
        self.change()

    def change(self, **changes: Any) -> None:
        """Apply changes of the choices and show the group, or the error if it cannot be sampled."""
        try:
            result = self.explorer.choose(**changes)
        except (ValueError, FloatingPointError) as error:
            self.view.value = f'<div class="fl-paper fl-wrong">{escape(str(error))}</div>'
            return
        example = self.explorer.shots.train[self.explorer.choices.image]
        group = group_html(result.samples, image_html(example.image, example.source))
        self.view.value = f'<div class="fl-paper">{cards_html(result.numbers)}{group}</div>'


def _look(**more: Any) -> dict[str, Any]:
    return {"layout": {"width": "380px"}, "style": {"description_width": "120px"} | more}


def _sampling_controls(shots: FewShot, choices: GroupChoices) -> dict[str, Any]:
    """The controls of choices that need new completions; a slider reports when it is released."""
    import ipywidgets as w

    named = [(f"{example.label} ({example.source})", i) for i, example in enumerate(shots.train)]
    late = _look() | {"continuous_update": False}
    return {
        "image": w.Dropdown(description="image", options=named, value=choices.image, **_look()),
        "temperature": w.FloatSlider(
            choices.temperature, description="temperature", min=0.1, max=2.0, step=0.1, readout_format=".1f", **late
        ),
        "group_size": w.IntSlider(choices.group_size, description="G", min=2, max=16, **late),
        "seed": w.BoundedIntText(choices.seed, description="seed", min=0, max=10**6, **_look()),
    }


def _advantage_controls(choices: GroupChoices) -> dict[str, Any]:
    """The controls of choices that only change the advantages."""
    import ipywidgets as w

    over = [("n - 1", True), ("n", False)]
    look = _look(button_width="74px")
    return {
        "scale": _in_line(w.ToggleButtons(options=list(SCALES), value=choices.scale, description="scale", **look)),
        "unbiased": _in_line(w.ToggleButtons(options=over, value=choices.unbiased, description="std over", **look)),
    }


def _in_line(buttons: Any) -> Any:
    """Toggle buttons with their description at the left, as other widgets have it."""
    buttons.add_class("widget-inline-hbox")
    return buttons


def _weight_sliders(names: Sequence[str], choices: GroupChoices) -> list[Any]:
    import ipywidgets as w

    weights = choices.weights or (1.0,) * len(names)
    return [
        w.FloatSlider(weight, description=f"weight {short_name(name)}", min=0.0, max=2.0, step=0.05, **_look())
        for name, weight in zip(names, weights, strict=True)
    ]


# ------------------------------------------------------------------------------------------------ one completion


class TokenMicroscope(Shown):
    """The tokens of one completion: log-probability, ratio, KL, share of the loss and push, as colour on the text.

    rollout: whose completions can be chosen. logps, old_logps, ref_logps, advantages and `loss_options`: those of
    `grpo_loss`; old_logps left out: those now (on policy, every ratio is 1); ref_logps left out: no KL; advantages
    left out: 0. completion: the row that is shown at first. names: the quantities of the static figure.

    `table()` has the numbers of each token; the shares of all tokens of all completions add up to the loss.
    """

    def __init__(
        self,
        policy: Policy,
        rollout: Rollout,
        logps: Tensor,
        old_logps: Tensor | None = None,
        ref_logps: Tensor | None = None,
        advantages: Tensor | None = None,
        *,
        completion: int = 0,
        names: Sequence[str] = ("ratio", "KL", "share of the loss"),
        interactive: bool | None = None,
        **loss_options: Any,
    ):
        if unknown := [name for name in names if name not in QUANTITIES]:
            raise ValueError(f"unknown quantity {unknown[0]!r}; valid: {', '.join(QUANTITIES)}")
        if not 0 <= completion < len(rollout):
            raise ValueError(f"completion is {completion}, but the rollout has completions 0 to {len(rollout) - 1}")
        advantages = logps.new_zeros(len(rollout)) if advantages is None else advantages
        old_logps = logps if old_logps is None else old_logps
        loss_options = {"beta": 0.0} | loss_options if ref_logps is None else loss_options
        self.parts = token_losses(logps, old_logps, ref_logps, advantages, rollout.mask, **loss_options)
        self.tokenizer, self.rollout, self.advantages = policy.tokenizer, rollout, advantages.detach()
        self.completion, self.names = completion, tuple(names)
        self.interactive = can_show_widgets(interactive)
        self._view: _TokenView | None = None

    def table(self, completion: int | None = None) -> list[Token]:
        """Text and numbers of each token of a completion, by default of the one that is shown."""
        row = self.completion if completion is None else completion
        return token_table(self.tokenizer, self.rollout, row, self.parts)

    def summary(self) -> dict[str, str]:
        """The completion that is shown, in a few numbers."""
        own, whole = self.parts["loss"][self.completion].sum().item(), self.parts["loss"].sum().item()
        mask = self.rollout.mask[self.completion]
        advantage = self.advantages[self.completion].flatten().float().mean().item()
        return {
            "advantage": signed(advantage),
            "tokens, with the end token": str(int(mask.sum())),
            "muted by the clip": str(int(self.parts["muted"][self.completion].sum())),
            "its part of the loss, thousandths": signed(THOUSANDTHS * own),
            "loss of all completions, thousandths": signed(THOUSANDTHS * whole),
        }

    def widget(self) -> Any:
        """The widgets, made on first use."""
        if self._view is None:
            self._view = _TokenView(self)
        return self._view.box

    def picture(self) -> Image:
        """The completion with its quantities one below the other."""
        numbers = self.summary()
        title = f"completion {self.completion}, advantage {numbers['advantage']}"
        return stack(plot_tokens(self.table(), self.names, title=title))

    def __repr__(self) -> str:
        return f"TokenMicroscope: {len(self.rollout)} completions"


class _TokenView:
    """The widgets of a microscope: which completion, which quantity."""

    def __init__(self, microscope: TokenMicroscope):
        import ipywidgets

        rollout, advantages = microscope.rollout, microscope.advantages
        self.microscope = microscope
        named = []
        for i, text in enumerate(rollout.texts):
            advantage = advantages[i].flatten().float().mean().item()
            named.append((f"{i}: A = {signed(advantage)}, {text[-60:]}", i))
        self.which = ipywidgets.Dropdown(
            description="completion",
            options=named,
            value=microscope.completion,
            layout={"width": "620px"},
            style={"description_width": "90px"},
        )
        self.quantity = ipywidgets.ToggleButtons(
            description="colour",
            options=list(QUANTITIES),
            value=microscope.names[0],
            style={"button_width": "132px", "description_width": "90px"},
            layout={"width": "auto"},
        )
        _in_line(self.quantity)
        self.view = ipywidgets.HTML()
        self.which.observe(lambda _: self.show(), "value")
        self.quantity.observe(lambda _: self.show(), "value")
        css = ipywidgets.HTML(CSS + TOKEN_CSS, layout={"display": "none"})
        self.box = ipywidgets.VBox([css, self.which, self.quantity, self.view])
        self.box.add_class("fl-microscope")
        self.show()

    def show(self) -> None:
        """Show the chosen completion in the chosen colours."""
        self.microscope.completion = self.which.value
        tokens = tokens_html(self.microscope.table(), self.quantity.value)
        self.view.value = f'<div class="fl-paper">{cards_html(self.microscope.summary())}<br>{tokens}</div>'
