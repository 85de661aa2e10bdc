"""Graphics cards as their data sheets describe them, and how long a run takes at least a certain share of that.

Memory is counted as it is sold: a card of "12 GB" has 12 GiB, 12 x 2^30 bytes. The rates are those of the data sheets;
`ARITHMETIC_SHARE` and `BANDWIDTH_SHARE` of them are assumed to be reached. Neither was measured on these cards:
`favor-lab profile` measures yours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from favor_lab.budget.flops import bound_seconds, step_costs
from favor_lab.budget.shapes import ModelShape, StepShape

GIB = 2**30  # bytes
ARITHMETIC_SHARE = 0.4  # of a data sheet's FLOP/s that a step reaches; own assumption
BANDWIDTH_SHARE = 0.6  # of its bytes/s; own assumption


@dataclass(frozen=True)
class Card:
    """A card: its memory as it is sold, and what its data sheet promises."""

    name: str
    gb: float
    tflops: float  # 10^12 FLOP/s of dense bfloat16 matrix products that are summed in float32
    gb_per_second: float  # 10^9 bytes/s of its memory

    @property
    def rates(self) -> dict[str, float]:
        """What a step is assumed to reach, for `bound_seconds`."""
        arithmetic, bandwidth = ARITHMETIC_SHARE * self.tflops * 1e12, BANDWIDTH_SHARE * self.gb_per_second * 1e9
        return {"flops_per_second": arithmetic, "bytes_per_second": bandwidth}

    def __str__(self) -> str:
        flops, bandwidth = self.rates["flops_per_second"] / 1e12, self.rates["bytes_per_second"] / 1e9
        shares = f"{ARITHMETIC_SHARE:.0%} and {BANDWIDTH_SHARE:.0%} of what the data sheet of the {self.name} promises"
        return f"{flops:.0f} TFLOP/s and {bandwidth:.0f} GB/s, {shares}"


CARDS = (  # one common card per size, with bfloat16; the slower one where there are several
    Card("RTX 3050 6 GB", 6, 13.5, 168),
    Card("RTX 4060", 8, 30.2, 272),
    Card("RTX 3060 12 GB", 12, 25.5, 360),
    Card("RTX 4060 Ti 16 GB", 16, 44.1, 288),
    Card("RTX 3090", 24, 71.2, 936),
    Card("RTX 5090", 32, 209.5, 1792),
    Card("RTX 6000 Ada", 48, 182.1, 960),
    Card("A100 80 GB", 80, 312, 1935),
    Card("H200", 141, 989, 4800),
)


def card_of(gpu_gb: float) -> Card:
    """The card whose rates are assumed for one of this memory: the largest that is not larger, or the smallest of all.

    >>> card_of(12).name, card_of(11.6).name, card_of(4).name
    ('RTX 3060 12 GB', 'RTX 3060 12 GB', 'RTX 3050 6 GB')
    """
    return max((card for card in CARDS if card.gb <= gpu_gb * 1.05), key=lambda card: card.gb, default=CARDS[0])


def training_seconds(model: ModelShape, step: StepShape, card: Card) -> dict[str, float]:
    """Seconds of each phase (`encode` once per run, the others in every step): counted FLOPs and bytes at the assumed
    rates of the card. Beside the ideal step of `step_costs`: prompts run once more to be scored, once for each part of
    a group where a pass is smaller than a group; and every pass reads the weights."""
    costs = step_costs(model, step)
    passes, parts = math.ceil(step.rows / step.rows_per_pass), max(1.0, step.group_size / step.rows_per_pass)
    prompts = costs["prefill"].flops
    again = {"score": parts, "reference": parts - 1, "backward": (2 + step.gradient_checkpointing) * (parts - 1)}
    for phase in again.keys() & costs.keys():
        cost = costs[phase]
        costs[phase] = replace(cost, flops=cost.flops + again[phase] * prompts, bytes=cost.bytes * passes)
    return bound_seconds(costs, **card.rates)
