"""Two widgets to explore: one group (rewards and advantages), and the tokens of one completion (the loss).

Each is a thin layer over functions without widgets: `group_result` here, and `favor_lab.study.tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from favor_lab.grpo.advantages import group_advantages, is_flat, spread
from favor_lab.grpo.sampling import Rollout, sample_groups
from favor_lab.grpo.support.rollout import weighted_sum
from favor_lab.grpo.support.settings import SCALES
from favor_lab.grpo.support.steps import step_name
from favor_lab.show.frontend import Shown, can_show_widgets, stack, styled_box
from favor_lab.show.groups import plot_samples
from favor_lab.show.markup import cards_html, element, group_html, image_html
from favor_lab.show.text import short_name, signed, utf8
from favor_lab.show.tokens import QUANTITIES, THOUSANDTHS, plot_tokens, tokens_html
from favor_lab.study.groups import REWARDS, sample_and_score
from favor_lab.study.tokens import Token, token_losses, token_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

LOOK: dict[str, Any] = {"layout": {"width": "380px"}, "style": {"description_width": "120px"}}
INLINE = "widget-inline-hbox"  # class of toggle buttons whose description is at the left, as other widgets have it


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
    common = {"label": examples[0].label, "source": examples[0].source}
    samples = []
    for g, advantage in enumerate(advantages):
        rewards = {name: values[g].item() for name, values in scores.items()}
        numbers = {"rewards": rewards, "reward": totals[0, g].item(), "advantage": advantage}
        samples.append({"text": texts[g]} | common | numbers)
    summary = {
        "mean reward": f"{totals[0].mean():.2f}",
        "std of the group": f"{spread(totals[:1], choices.unbiased).item():.2f}",
        f"std of the batch ({len(totals)} groups)": f"{spread(totals.view(1, -1), choices.unbiased).item():.2f}",
        "flat groups in the batch": f"{int(is_flat(totals).sum())} of {len(totals)}",
    }
    return GroupResult(samples, summary)


class GroupExplorer(Shown):
    """One group to explore: choose image, temperature, G and seed, weights, scale, n or n - 1, and see the effect.

    A new group is sampled only when the image, the temperature, G or the seed changes. Three more images are sampled
    with the chosen one, so that scale "batch" has a batch; only the chosen one's group is shown.

    rewards (functions with TRL's signature), sample: as for `train`. interactive: see `can_show_widgets` of
    `favor_lab.show.frontend`; without widgets it is a figure. choices: initial values of the fields of GroupChoices.
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
        self._batch: tuple[Any, list[str], dict[str, Tensor], list[Example]] | None = None

    def choose(self, **changes: Any) -> GroupResult:
        """Change some of the choices (fields of GroupChoices); returns the group."""
        self.choices = replace(self.choices, **changes)
        return self.result()

    def result(self) -> GroupResult:
        """The group under the current choices; sampled only if the completions depend on what has changed."""
        image, temperature, group_size, seed = self.choices.sampled
        if self._batch is None or self._batch[0] != self.choices.sampled:
            train = self.shots.train
            examples = [train[(image + i) % len(train)] for i in range(min(1 + self.BESIDE, len(train)))]
            rollout, scores = sample_and_score(
                self.policy, examples, self.shots.labels, self.style, self.rewards, self.sample,
                max_new_tokens=self.max_new_tokens, group_size=group_size, temperature=temperature, seed=seed,
            )  # fmt: skip
            self._batch = self.choices.sampled, rollout.texts, scores, examples
        return group_result(*self._batch[1:], self.choices)

    def _new_view(self) -> _GroupView:
        return _GroupView(self)

    def picture(self) -> Image:
        """The group under the current choices, drawn by `plot_group`."""
        image = self.shots.train[self.choices.image].image
        title = f"temperature {self.choices.temperature:g}, scale {self.choices.scale}"
        return stack(plot_samples(image, self.result().samples, title))

    def __repr__(self) -> str:
        return f"GroupExplorer: G = {self.choices.group_size}, temperature {self.choices.temperature:g}"


class _GroupView:
    """The widgets of an explorer, one for each of its choices."""

    def __init__(self, explorer: GroupExplorer):
        import ipywidgets as w

        self.explorer = explorer
        self.controls = _controls(explorer.shots, explorer.choices)
        *sampling, scale, unbiased = self.controls.values()
        names = [f"weight {short_name(step_name(function))}" for function in explorer.rewards]
        values = zip(explorer.choices.weights or (1.0,) * len(names), names, strict=True)
        look = {"min": 0.0, "max": 2.0, "step": 0.05} | LOOK
        self.weights = [w.FloatSlider(value, description=name, **look) for value, name in values]
        self.view = w.HTML()
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self.change(**{name: change["new"]}), "value")
        for slider in self.weights:
            slider.observe(lambda _: self.change(weights=tuple(slider.value for slider in self.weights)), "value")
        columns = w.HBox([w.VBox(sampling), w.VBox([*self.weights, scale, unbiased])])
        self.box = styled_box("fl-explorer", columns, self.view)
        self.change()

    def change(self, **changes: Any) -> None:
        """Apply changes of the choices and show the group, or the error if it cannot be sampled."""
        try:
            result = self.explorer.choose(**changes)
        except (ValueError, FloatingPointError) as error:
            self.view.value = element("div", str(error), class_="fl-paper fl-wrong")
            return
        example = self.explorer.shots.train[self.explorer.choices.image]
        group = group_html(result.samples, image_html(example.image, example.source))
        self.view.value = element("div", cards_html(result.numbers), group, class_="fl-paper")


def _controls(shots: FewShot, choices: GroupChoices) -> dict[str, Any]:
    """A control for each choice but the weights. The first four need new completions: sliders report when released."""
    import ipywidgets as w

    def control(kind: Any, name: str, description: str, **options: Any) -> Any:
        return kind(value=getattr(choices, name), description=description, **LOOK | options)

    images = [(utf8(f"{example.label} ({example.source})"), i) for i, example in enumerate(shots.train)]
    tenths = {"min": 0.1, "max": 2.0, "step": 0.1, "readout_format": ".1f", "continuous_update": False}
    narrow = {"style": LOOK["style"] | {"button_width": "74px"}}
    controls = {
        "image": control(w.Dropdown, "image", "image", options=images),
        "temperature": control(w.FloatSlider, "temperature", "temperature", **tenths),
        "group_size": control(w.IntSlider, "group_size", "G", min=2, max=16, continuous_update=False),
        "seed": control(w.BoundedIntText, "seed", "seed", min=0, max=10**6),
        "scale": control(w.ToggleButtons, "scale", "scale", options=list(SCALES), **narrow),
        "unbiased": control(w.ToggleButtons, "unbiased", "std over", options=[("n - 1", True), ("n", False)], **narrow),
    }
    for name in ("scale", "unbiased"):
        controls[name].add_class(INLINE)
    return controls


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

    def table(self, completion: int | None = None) -> list[Token]:
        """Text and numbers of each token of a completion, by default of the one that is shown."""
        row = self.completion if completion is None else completion
        return token_table(self.tokenizer, self.rollout, row, self.parts)

    def summary(self) -> dict[str, str]:
        """The completion that is shown, in a few numbers."""
        row, loss = self.completion, self.parts["loss"]
        return {
            "advantage": self.advantage(row),
            "tokens, with the end token": str(int(self.rollout.mask[row].sum())),
            "muted by the clip": str(int(self.parts["muted"][row].sum())),
            "its part of the loss, thousandths": signed(THOUSANDTHS * loss[row].sum().item()),
            "loss of all completions, thousandths": signed(THOUSANDTHS * loss.sum().item()),
        }

    def advantage(self, row: int) -> str:
        """The advantage of a completion, as text; the mean over its tokens if they have their own."""
        return signed(self.advantages[row].flatten().float().mean().item())

    def _new_view(self) -> _TokenView:
        return _TokenView(self)

    def picture(self) -> Image:
        """The completion with its quantities one below the other."""
        title = f"completion {self.completion}, advantage {self.advantage(self.completion)}"
        return stack(plot_tokens(self.table(), self.names, title=title))

    def __repr__(self) -> str:
        return f"TokenMicroscope: {len(self.rollout)} completions"


class _TokenView:
    """The widgets of a microscope: which completion, which quantity."""

    def __init__(self, microscope: TokenMicroscope):
        import ipywidgets as w

        self.microscope = microscope
        options = []
        for row, text in enumerate(microscope.rollout.texts):
            options.append((f"{row}: A = {microscope.advantage(row)}, {utf8(text[-60:])}", row))
        look = {"layout": {"width": "620px"}, "style": {"description_width": "90px"}}
        self.which = w.Dropdown(description="completion", options=options, value=microscope.completion, **look)
        look = {"layout": {"width": "auto"}, "style": {"description_width": "90px", "button_width": "132px"}}
        first = microscope.names[0]
        self.quantity = w.ToggleButtons(description="colour", options=list(QUANTITIES), value=first, **look)
        self.quantity.add_class(INLINE)
        self.view = w.HTML()
        for control in (self.which, self.quantity):
            control.observe(lambda _: self.show(), "value")
        self.box = styled_box("fl-microscope", self.which, self.quantity, self.view)
        self.show()

    def show(self) -> None:
        """Show the chosen completion in the chosen colours."""
        self.microscope.completion = self.which.value
        tokens = tokens_html(self.microscope.table(), self.quantity.value)
        numbers = cards_html(self.microscope.summary())
        self.view.value = element("div", numbers, element("br"), tokens, class_="fl-paper")
