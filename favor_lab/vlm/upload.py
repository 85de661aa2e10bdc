"""Numbers from Python to the policy's device. A GPU works through a queue; whoever asks it for a number, or copies from
ordinary memory, waits until the queue is empty. `tests/promises/test_devices.py` counts how often that happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def upload(values: Tensor | Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A list of numbers, or a tensor on the CPU, as a tensor on `device`. A GPU is not waited for: the numbers are put
    into pinned memory, from which it fetches them in its own time.

    >>> upload([3, 1], torch.device("cpu"))
    tensor([3, 1])
    """
    tensor = torch.as_tensor(values, dtype=dtype, device="cpu")
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def places(mask: Tensor, device: torch.device) -> Tensor:
    """The places of the True entries of a mask on the CPU, once it is flattened: (M,) on `device`. To index with them
    gives what the mask gives; but a GPU does not know how many they are, and indexing with a mask there waits.

    >>> places(torch.tensor([[True, False], [False, True]]), torch.device("cpu"))
    tensor([0, 3])
    """
    return upload(mask.flatten().nonzero().flatten(), device)
