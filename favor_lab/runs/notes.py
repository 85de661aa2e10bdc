"""What deserves a look before a run, and in a step's record although every number in it is finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from favor_lab.activities.world.catalogue import NAMES
from favor_lab.grpo.losses import MAX_LOG_RATIO
from favor_lab.grpo.rewards import normalise_label
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings
from favor_lab.runs.options import PolicyOptions
from favor_lab.study.sft import target

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy

EXPLODED = 1000  # times the norm at which gradients are clipped


def notes_on(record: StepRecord, settings: TrainSettings) -> dict[str, str]:
    """Sentences about flat groups, cut log-ratios, an exploding gradient and truncated completions, by kind.

    >>> notes_on(StepRecord(step=1, flat_groups=1.0, grad_norm=0.2), TrainSettings())
    {'flat groups': 'no group differs in its rewards: this step can teach nothing but closeness to the reference'}
    """
    notes, norm = {}, record.grad_norm or 0.0
    if record.flat_groups == 1.0:
        nothing = "no group differs in its rewards: this step can teach nothing but closeness to the reference"
        notes["flat groups"] = nothing
    if cut := record.metrics.get("bounded", 0.0):
        far = f"{cut:.0f} log-ratios were cut at {MAX_LOG_RATIO:g}: the policy has gone far from its reference"
        notes["bounded"] = f"{far}, and ratio and KL are no more than bounds"
    if norm > EXPLODED * (settings.max_grad_norm or 1.0):
        notes["gradient"] = f"the gradient's norm is {norm:.3g}; the steps before it may have been too large"
    if record.truncated == 1.0:
        notes["truncated"] = f"no completion ends within max_new_tokens={settings.max_new_tokens}"
    return notes


def notes_on_labels(
    labels: Sequence[str], options: PolicyOptions, policy: Policy, settings: TrainSettings
) -> list[str]:
    """Sentences about labels that are not learnt as others are: names that the pocket policy has not met, and labels
    that do not fit into `max_new_tokens`."""
    notes, known = [], {normalise_label(name) for names in NAMES.values() for name in names}
    samples = isinstance(settings, GRPOSettings)  # supervised fine-tuning is given the labels
    if unknown := [label for label in labels if normalise_label(label) not in known]:
        if samples and options.policy == "pocket" and options.adapter is None:
            listed = (
                "Without a list it will not sample them, and GRPO rewards only what is sampled"
                if settings.open_vocabulary
                else "It can pick them from the list, but knows nothing of what they look like"
            )
            notes.append(
                f"the pocket policy has met the drawn activities under their {len(known)} names and nothing else: "
                f"{len(unknown)} of the {len(labels)} labels are none of these ({first_few(unknown)}). {listed}; for "
                "photographs take another --policy, such as Qwen/Qwen2-VL-2B-Instruct"
            )
    reasoning = "." if isinstance(settings, GRPOSettings) and settings.style != "answer" else None
    sizes = {label: len(policy.tokenizer.encode(target(label, reasoning))) + 1 for label in labels}  # 1: the end token
    if too_long := [label for label in labels if sizes[label] > settings.max_new_tokens]:
        notes.append(
            f"max_new_tokens={settings.max_new_tokens} is too short to name {len(too_long)} of the {len(labels)} "
            f"labels ({first_few(too_long)}): the shortest response with the longest of them has "
            f"{max(sizes.values())} tokens"
        )
    return notes


def first_few(labels: Sequence[str], most: int = 5) -> str:
    """
    >>> first_few(["a", "b", "c"], most=2)
    "'a', 'b', ..."
    """
    return ", ".join([*map(repr, labels[:most]), *["..."] * (len(labels) > most)])
