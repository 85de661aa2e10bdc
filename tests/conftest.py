"""The fixtures of the tests: the small Qwen2-VL of `tiny`, its policy and its examples."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tiny import make_checkpoint, make_examples, make_policy

collect_ignore_glob = ["benchmarks/[!t]*.py"]  # scripts, which test_benchmarks runs at their smallest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in the Hub layout: 2 + 2 layers, 320 tokens, float32, near-greedy generation_config."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny-qwen2-vl"))


@pytest.fixture
def tiny_policy(tiny_checkpoint):
    """A fresh policy per test: float32 on the CPU, LoRA rank 4 whose B matrices are not zero."""
    return make_policy(tiny_checkpoint)


@pytest.fixture
def tiny_examples():
    """Four examples of different sizes, so that their prompts differ: 4, 8, 6 and 16 image tokens."""
    return make_examples()


@pytest.fixture
def ctrl_c_raises():
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background and the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
