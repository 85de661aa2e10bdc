"""What this machine reaches: its arithmetic rate, its memory bandwidth, and the peak memory of a block of code."""

from __future__ import annotations

import threading
import time
from typing import Any

import psutil
import torch

SAMPLE_SECONDS = 0.005  # between two samples of the resident size


def machine_rates(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """FLOP/s of a large square matrix product and bytes/s of reading a large array: the best of several repetitions, on
    as many threads as torch has."""
    device = torch.device(device)
    side, values = (2048, 2**26) if device.type == "cpu" else (8192, 2**29)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    flops = 2.0 * side**3 / _best_seconds(lambda: a @ b, device)
    array = torch.ones(values, device=device, dtype=torch.float32)
    return {"flops_per_second": flops, "bytes_per_second": 4.0 * values / _best_seconds(array.sum, device)}


def _best_seconds(function: Any, device: torch.device, repeats: int = 12) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])


class MemoryWatch:
    """Peak memory in bytes while a block of code runs. On a GPU: of tensors, as torch's allocator counts them. On the
    CPU: resident memory of the process, sampled every few milliseconds by a thread, which may miss a shorter peak.

    >>> with MemoryWatch("cpu") as memory:
    ...     zeros = torch.zeros(1000)
    >>> memory.peak >= memory.before > 0
    True
    """

    def __init__(self, device: str | torch.device):
        self.device = torch.device(device)
        self.before = self.peak = 0  # in use when the block begins, and most in use since then

    def __enter__(self) -> MemoryWatch:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = self.peak = torch.cuda.memory_allocated(self.device)
        else:
            self.process, self.done = psutil.Process(), threading.Event()
            self.before = self.peak = self.process.memory_info().rss
            self.sampler = threading.Thread(target=self._sample, daemon=True)
            self.sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self.done.set()
            self.sampler.join()

    def _sample(self) -> None:
        running = True
        while running:
            running = not self.done.wait(SAMPLE_SECONDS)
            self.peak = max(self.peak, self.process.memory_info().rss)
