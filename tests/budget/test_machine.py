"""What the machine achieves: plausible rates, and the peak memory of a block of code."""

import time

import psutil
import pytest
import torch

from favor_lab.budget.machine import MemoryWatch, machine_rates
from favor_lab.budget.profiling import Meter


@pytest.mark.slow
def test_rates_are_positive_and_finite():
    rates = machine_rates("cpu")
    assert 1e8 < rates["flops_per_second"] < 1e14 and 1e8 < rates["bytes_per_second"] < 1e13


def hold(values, samples):
    tensor = torch.ones(values)
    time.sleep(0.1)
    wanted = len(samples) + 2
    while len(samples) < wanted:  # the second was begun after the tensor was there
        time.sleep(0.01)
    del tensor


def test_the_peak_is_that_of_the_block(monkeypatch):
    """Blocks of one name: the larger peak counts; an earlier block's peak does not."""
    meter, samples, memory_info = Meter(torch.device("cpu")), [], psutil.Process.memory_info
    monkeypatch.setattr(psutil.Process, "memory_info", lambda process: samples.append(1) or memory_info(process))
    for name, values in (("large", 2**25), ("large", 2), ("small", 2)):  # 128 MB
        with meter(name):
            hold(values, samples)
    assert 1e8 < meter.peaks["large"] - meter.peaks["small"] < 2e8
    assert list(meter.values) == ["large", "small"] and meter.values["large"] > 0.2


def test_the_watch_ends_with_its_block():
    with pytest.raises(KeyError), MemoryWatch("cpu") as memory:
        raise KeyError
    assert not memory.sampler.is_alive() and memory.peak >= memory.before > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_allocator_says_it():
    with MemoryWatch("cuda") as memory:
        torch.ones(2**25, device="cuda")
    assert memory.peak - memory.before == 2**27
