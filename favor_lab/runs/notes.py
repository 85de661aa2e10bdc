"""What in a step's record deserves a look although every number in it is finite."""

from __future__ import annotations

from favor_lab.grpo.losses import MAX_LOG_RATIO
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import TrainSettings

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
