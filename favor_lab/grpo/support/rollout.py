"""The rows of a rollout: what travels through the four steps, and how rows are selected, joined and checked. Everything
that belongs to a row moves with it: its tokens, its rewards, its old log-probabilities, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from favor_lab.vlm.upload import upload

if TYPE_CHECKING:
    from favor_lab.vlm.processing import PromptBatch


@dataclass
class Rollout:
    """N completions, each with the prompt it answers. As sampled, N = B * G and row b * G + g is completion g of
    prompt b; a step of your own may drop or add rows, so code that must not break reads `groups`.

    | field | shape | |
    | --- | --- | --- |
    | completion_ids | (N, L) long | sampled ids, padded on the right |
    | mask | (N, L) bool | True up to and including the first end token |
    | logps | (N, L) float32 | log-probabilities when sampled; 0 where the mask is False, NaN for rows not sampled |
    | texts | N strings | the masked ids decoded, without special tokens |
    | group_size | int | completions asked for per prompt |
    | groups | (N,) long | prompt index of each row |
    | origin | N strings | "sampled", "sampled, noisy image" and the like, or where else a row comes from: "injected" |
    | temperature | float | of the sampling distribution; scoring uses it too |
    | end_token_ids | list | ids that end a completion |
    | rewards | name -> (N,) float32 | empty until the rewards have been computed |
    | old_logps | (N, L) or None | what the ratio compares with; NaN: the first scoring pass fills it in |

    >>> ids = torch.tensor([[5, 9, 0], [5, 6, 7]])
    >>> rollout = Rollout(ids, ids > 0, torch.zeros(2, 3), ["a", "b"], group_size=2, end_token_ids=[9])
    >>> rollout.groups, rollout.lengths, rollout.truncated
    (tensor([0, 0]), tensor([2, 3]), tensor([False,  True]))
    """

    completion_ids: Tensor
    mask: Tensor
    logps: Tensor
    texts: list[str]
    group_size: int
    groups: Tensor = None  # type: ignore[assignment]  # left out: prompt-major
    origin: list[str] = None  # type: ignore[assignment]  # left out: all sampled
    temperature: float = 1.0
    end_token_ids: Sequence[int] = ()
    rewards: dict[str, Tensor] = field(default_factory=dict)
    old_logps: Tensor | None = None

    def __post_init__(self) -> None:
        if self.groups is None:
            self.groups = torch.arange(len(self.texts), device=self.mask.device) // self.group_size  # (N,)
        if self.origin is None:
            self.origin = ["sampled"] * len(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion, its end token included: (N,)."""
        return self.mask.sum(dim=1)

    @property
    def truncated(self) -> Tensor:
        """Rows cut off before an end token: (N,) bool."""
        last = self.completion_ids.gather(1, (self.lengths - 1).clamp(min=0)[:, None]).squeeze(1)  # (N,)
        return ~torch.isin(last, upload(self.end_token_ids, last.device, last.dtype))

    @property
    def sampled(self) -> Tensor:
        """Rows that were sampled in this step, from whatever view of the image: (N,) bool."""
        return upload([is_sampled(name) for name in self.origin], self.mask.device, torch.bool)

    def rows(self, index: Tensor | Sequence[int]) -> Rollout:
        """The rollout of these rows only, in this order; `index` holds row numbers, or one bool per row."""
        index = torch.as_tensor(index, device="cpu")
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()  # (n,)
        numbers, index = index.tolist(), upload(index, self.mask.device)
        return replace(
            self,
            completion_ids=self.completion_ids[index],  # (n, L)
            mask=self.mask[index],
            logps=self.logps[index],
            groups=self.groups[index],  # (n,)
            texts=[self.texts[i] for i in numbers],
            origin=[self.origin[i] for i in numbers],
            rewards={name: values[index] for name, values in self.rewards.items()},  # (n,) each
            old_logps=None if self.old_logps is None else self.old_logps[index],
        )

    def cpu(self) -> Rollout:
        """The rollout with its tensors on the CPU, to look at many of its numbers: a GPU would be waited for once per
        number."""
        tensors: dict[str, Any] = {name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, rewards={name: values.cpu() for name, values in self.rewards.items()})

    def total_rewards(self, weights: Sequence[float] | None = None) -> Tensor:
        """The weighted sum of each row's rewards: (N,). All weights are 1 if there are none.

        >>> ids = torch.tensor([[5, 9], [5, 6]])
        >>> rewards = {"accuracy": torch.tensor([1.0, 0.0]), "format": torch.tensor([1.0, 1.0])}
        >>> Rollout(ids, ids > 0, torch.zeros(2, 2), ["a", "b"], 2, rewards=rewards).total_rewards((1.0, 0.5))
        tensor([1.5000, 0.5000])
        """
        return weighted_sum(self.rewards, weights)

    def fixed_old_logps(self) -> Tensor:
        """The old log-probabilities (N, L) that rows bring along, or NaN: the first scoring pass fills it in.

        A row sampled in this step gets NaN, because the log-probabilities that the decoding loop has recorded differ
        from the scoring pass's in the last digits (`sampling_gap` in the records); with the first scoring pass on both
        sides the on-policy ratio is exactly 1. A row from an earlier step must say so ("replayed", say, in place of
        "sampled"): then its own log-probabilities are the old ones.
        """
        if self.old_logps is not None:
            return self.old_logps
        return self.logps.masked_fill(self.sampled[:, None], torch.nan)  # (N, L)


def is_sampled(origin: str) -> bool:
    """Whether a row of this origin was sampled in this step.

    >>> [is_sampled(origin) for origin in ("sampled", "sampled, noisy image", "replayed")]
    [True, True, False]
    """
    return origin.startswith("sampled")


def token_lists(ids: Tensor, mask: Tensor) -> list[list[int]]:
    """The ids of each row where the mask is True; (N, L) each.

    >>> token_lists(torch.tensor([[5, 9, 0], [5, 6, 7]]), torch.tensor([[True, True, False], [True, True, True]]))
    [[5, 9], [5, 6, 7]]
    """
    return [list(compress(row, keep)) for row, keep in zip(ids.tolist(), mask.tolist(), strict=True)]


def weighted_sum(rewards: Mapping[str, Tensor], weights: Sequence[float] | None) -> Tensor:
    """Rewards by name, (N,) each, as one number per row: (N,). All weights are 1 if there are none."""
    weights = weights or (1.0,) * len(rewards)
    if len(weights) != len(rewards):
        raise ValueError(f"reward_weights has {len(weights)} numbers for {len(rewards)} rewards: {', '.join(rewards)}")
    return torch.stack([w * values for w, values in zip(weights, rewards.values(), strict=True)]).sum(dim=0)  # (N,)


def join(first: Rollout, second: Rollout) -> Rollout:
    """The rows of both rollouts, of one batch of prompts, each group together; every row keeps its own rewards.
    ValueError where one has rewards that the other lacks: compute them first (`Context.compute_rewards`)."""
    if first.rewards.keys() != second.rewards.keys():
        different = f"cannot join rows with the rewards {list(first.rewards)} and rows with {list(second.rewards)}"
        advice = "compute the rewards of both first, or join the rows before any are computed"
        raise ValueError(f"{different}: {advice}")
    length = max(first.mask.shape[1], second.mask.shape[1])

    def both(*parts: Tensor) -> Tensor:
        return torch.cat([torch.nn.functional.pad(part, (0, length - part.shape[1])) for part in parts])  # (N, L)

    old_logps = None
    if first.old_logps is not None or second.old_logps is not None:
        old_logps = both(first.fixed_old_logps(), second.fixed_old_logps())
    joined = replace(
        first,
        completion_ids=both(first.completion_ids, second.completion_ids),
        mask=both(first.mask, second.mask),
        logps=both(first.logps, second.logps),
        groups=torch.cat([first.groups, second.groups]),
        texts=first.texts + second.texts,
        origin=first.origin + second.origin,
        rewards={name: torch.cat([values, second.rewards[name]]) for name, values in first.rewards.items()},
        old_logps=old_logps,
    )
    return joined.rows(joined.groups.argsort(stable=True))


def check_rows(bad: Tensor, prompts: PromptBatch, groups: Tensor, what: str, first: int = 0) -> None:
    """FloatingPointError naming the first row where `bad` (N,) is True, and its image; row 0 here is row `first`."""
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        source = prompts.sources[int(groups[row])]
        raise FloatingPointError(f"{what} is not finite in row {first + row}, a completion for {source}")
