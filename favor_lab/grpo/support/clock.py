"""Wall time by phase, and errors that name the step and the phase in which they came up."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from favor_lab.vlm.untrusted import is_out_of_memory


class OutOfMemory(torch.OutOfMemoryError):
    """Memory ran out in a phase of a step; `favor_lab.budget.memory.memory_advice` says what to lower."""

    def __init__(self, error: BaseException, step: int, phase: str, in_use: str = ""):
        self.step, self.phase = step, phase
        first_line = str(error).strip().split("\n")[0].strip()  # torch adds a long text about its own allocator
        cause = first_line.removesuffix(".") or "no memory left"
        parts = [f"step {step}, phase {phase}: out of memory ({cause})", *([in_use] if in_use else [])]
        if phase == "update":
            parts.append("The weights may have moved in part: go on from an earlier checkpoint")
        elif step > 1:
            parts.append(f"Everything up to step {step - 1} is kept")
        super().__init__(". ".join(parts))


class Clock:
    """Wall time by phase; an error about a number, or about memory, gets the step and the phase in its message.

    >>> with Clock(7, torch.device("cpu"))("loss"):
    ...     raise FloatingPointError("the loss is nan")
    Traceback (most recent call last):
    ...
    FloatingPointError: step 7, phase loss: the loss is nan
    """

    def __init__(self, step: int, device: torch.device):
        self.step, self.device = step, device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}, phase {phase}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            in_use = memory_in_use(self.device)
            traceback.clear_frames(error.__traceback__)  # releases what the phase had allocated: room to go on
            raise OutOfMemory(error, self.step, phase, in_use) from error
        if self.device.type == "cuda":  # GPU work is queued: wait, so that each phase is charged its own
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


def memory_in_use(device: torch.device) -> str:
    """What this process has of a GPU's memory; nothing for the CPU, where the system does not count it separately."""
    if device.type != "cuda":
        return ""
    _, total = torch.cuda.mem_get_info(device)
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    in_use = f"{readable_bytes(allocated)} allocated, {readable_bytes(reserved)} reserved"
    return f"In use on {device}: {in_use}, of {readable_bytes(total)} in all"


def readable_bytes(size: float) -> str:
    """A number of bytes in GiB or MiB, as torch and the makers of cards count them.

    >>> readable_bytes(1.9 * 2**30), readable_bytes(32 * 2**20), readable_bytes(6e4)
    ('1.9 GiB', '32 MiB', '0.057 MiB')
    """
    mib = size / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 100 else f"{mib:.2g} MiB" if mib < 10 else f"{mib:.0f} MiB"
