"""Step 3 of GRPO: the advantage of each completion over the other completions of its prompt.

Rewards come as (B, G): B prompts, G completions of each. NaN stands for an absent row (a group that has lost a row, a
row without a reward): it does not count in the mean and the std, and its advantage is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from favor_lab.grpo.support.settings import SCALES
from favor_lab.vlm.upload import upload


def group_advantages(rewards: Tensor, scale: str = "group", eps: float = 1e-4, unbiased: bool = True) -> Tensor:
    """Advantage of each completion over its group: (r - mean of the group) / (std + eps).

    rewards: (B, G), G at least 2. Returns (B, G) in the rewards' floating type. A group without spread gives zeros.
    TypeError for anything but a tensor.
    scale: "group" divides by the std of the group (DeepSeekMath, arXiv 2402.03300, section 4.1.2), "batch" by the std
        of all rewards, "none" does not divide (Dr. GRPO, arXiv 2503.20783).
    eps: added to the std, 1e-4 as in TRL 1.16. unbiased: std with n - 1 (TRL, Visual-RFT) or with n.

    >>> group_advantages(torch.tensor([[1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]), eps=0.0)
    tensor([[ 0.8660,  0.8660, -0.8660, -0.8660],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    >>> group_advantages(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), eps=0.0, unbiased=False)
    tensor([[ 1.,  1., -1., -1.]])
    """
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
    check_tensor("rewards", rewards)
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards must be (B, G) with G of at least 2, got {tuple(rewards.shape)}: "
            "a completion is compared with the others of its group"
        )
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    advantages = rewards - rewards.nanmean(dim=1, keepdim=True)  # (B, G)
    if scale == "group":
        advantages = advantages / (spread(rewards, unbiased) + eps)  # (B, G) / (B, 1)
    elif scale == "batch":
        advantages = advantages / (spread(rewards.reshape(1, -1), unbiased) + eps)  # (B, G) / (1, 1)
    return advantages.masked_fill(is_flat(rewards)[:, None], 0.0).nan_to_num(nan=0.0)  # (B, G)


def check_tensor(name: str, value: object, shape: str = "(B, G)") -> None:
    """TypeError, which names the argument, unless the value is a tensor.

    >>> check_tensor("rewards", [[1.0, 0.0]])
    Traceback (most recent call last):
    ...
    TypeError: rewards must be a tensor of shape (B, G), not a list: write torch.tensor(rewards)
    """
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a tensor of shape {shape}, not a {kind}: write torch.tensor({name})")


def spread(rewards: Tensor, unbiased: bool = True) -> Tensor:
    """Standard deviation of each row of (B, G), NaN left out: (B, 1). A row of one number has none: 0.

    >>> spread(torch.tensor([[1.0, 0.0, 1.0, 0.0]])).item()  # doctest: +ELLIPSIS
    0.577...
    """
    check_tensor("rewards", rewards)
    count = (~rewards.isnan()).sum(dim=1, keepdim=True)  # (B, 1)
    deviation = (rewards - rewards.nanmean(dim=1, keepdim=True)).nan_to_num(nan=0.0)  # (B, G)
    return (deviation.square().sum(dim=1, keepdim=True) / (count - int(unbiased)).clamp(min=1)).sqrt()  # (B, 1)


def is_flat(rewards: Tensor) -> Tensor:
    """Groups without spread, whose rewards teach nothing: (B, G) -> (B,) bool.

    >>> is_flat(torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 1.0]]))
    tensor([ True, False])
    """
    check_tensor("rewards", rewards)
    return rewards.nan_to_num(nan=-torch.inf).amax(dim=1) <= rewards.nan_to_num(nan=torch.inf).amin(dim=1)


def to_groups(values: Tensor, groups: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Rows with group ids as a table, one line per group: (N,), (N,) -> (B, G) and the place of each row in it.

    G is the size of the largest group (2 at least); shorter groups end in NaN. `table[place]` gives the rows back.

    >>> table, place = to_groups(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 4, 0]))
    >>> table, table[place]
    (tensor([[1., 3.],
            [2., nan]]), tensor([1., 2., 3.]))
    """
    check_tensor("values", values, "(N,)")
    check_tensor("groups", groups, "(N,)")
    group = groups.cpu().unique(return_inverse=True)[1]  # (N,) 0 to B - 1
    column = (group[:, None] == group[None, :]).tril(-1).sum(dim=1)  # (N,) earlier rows of the same group
    size = (int(group.max()) + 1, max(2, int(column.max()) + 1)) if len(group) else (0, 2)
    table, place = values.new_full(size, torch.nan), (upload(group, values.device), upload(column, values.device))
    table[place] = values  # (B, G)
    return table, place
