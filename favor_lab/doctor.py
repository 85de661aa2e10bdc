"""What this machine has, and what can be run on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from typing import NamedTuple

REQUIRED = ("torch", "transformers", "peft", "numpy", "pillow", "safetensors", "tqdm")
OPTIONAL = {  # package -> what it is for, the extra that brings it
    "matplotlib": ("figures and reports", "lab"),
    "jupyterlab": ("the notebooks", "lab"),
    "trl": ("the same rewards in TRL's trainer", "trl"),
    "bitsandbytes": ("4-bit weights on a GPU", "qlora"),
}
MODEL = "Qwen/Qwen2-VL-2B-Instruct"


class Finding(NamedTuple):
    """One line: `ok` is True, False (something required is missing) or None (something optional is)."""

    ok: bool | None
    text: str

    def __str__(self) -> str:
        return f"{'[--]' if self.ok is None else '[OK]' if self.ok else '[FAIL]':<7}{self.text}"


def check_machine() -> Iterator[Finding]:
    """All findings, one after another: versions, processor and memory, GPU, pocket checkpoint, what can be run."""
    yield Finding(sys.version_info >= (3, 11), f"Python {platform.python_version()} (3.11 or newer is needed)")
    yield from _packages()
    yield Finding(True, f"{os.cpu_count()} CPU cores, {_memory_gb():.1f} GB of memory ({platform.platform()})")
    yield from _neighbours()
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return
    yield from _gpus()
    yield _pocket()


def _neighbours() -> Iterator[Finding]:
    """Whether other processes are busy: threads that wait by spinning then keep each other from working."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    settled = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive" or os.environ.get("OMP_NUM_THREADS") == "1"
    if load > 0.4 * (os.cpu_count() or 1) and not settled:
        yield Finding(
            None,
            f"other processes are busy (load {load:.1f} on {os.cpu_count()} cores): set OMP_WAIT_POLICY=passive before "
            "you start Python, or a training step may take ten times as long",
        )


def _packages() -> Iterator[Finding]:
    for package in REQUIRED:
        version = _version(package)
        yield Finding(version is not None, f"{package} {version or 'is missing: pip install favor-lab'}")
    for package, (use, extra) in OPTIONAL.items():
        version = _version(package)
        missing = f"is not installed (for {use}: pip install 'favor-lab[{extra}]')"
        yield Finding(None if version is None else True, f"{package} {version or missing}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory_gb() -> float:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return float("nan")


def _gpus() -> Iterator[Finding]:
    """Each CUDA device with its memory, or a line that says that there is none; and whether the big policy fits."""
    import torch

    from favor_lab.grpo.fits import recommend

    for i in range(torch.cuda.device_count()):
        free, total = (memory / 1e9 for memory in torch.cuda.mem_get_info(i))
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        yield Finding(True, f"GPU {i}: {torch.cuda.get_device_name(i)}, {total:.1f} GB ({free:.1f} GB free), {kind}")
    largest = largest_gpu_gb()
    if largest is None:
        yield Finding(
            None, "no CUDA GPU is visible: models run on the CPU (--gpu-gb 8 says what fits on a card of 8 GB)"
        )
        return
    try:
        preset = recommend(largest, MODEL)
    except ValueError as error:
        yield Finding(None, str(error))
        return
    weights = "4-bit weights" if preset.policy.get("quantize") else "bfloat16"
    yield Finding(True, f"room for {MODEL} with LoRA, {weights}: {preset.fit.verdict()}, by estimate")


def largest_gpu_gb() -> float | None:
    """Memory of the largest CUDA device, in 10^9 bytes; None without one."""
    import torch

    sizes = [torch.cuda.mem_get_info(i)[1] / 1e9 for i in range(torch.cuda.device_count())]
    return max(sizes, default=None)


def what_fits(model: str, gpu_gb: float | None) -> str:
    """The recommended preset for a card, its estimate by phase and the command to run; without a card, presets for
    the usual ones. FileNotFoundError for a model whose configuration is not known here."""
    from favor_lab.grpo.fits import preset_table, presets, recommend

    if gpu_gb is None:
        return f"{model}: the settings to take on a card, by estimate\n{preset_table(presets(model))}"
    preset = recommend(gpu_gb, model)
    given = ", ".join(f"{name} {value}" for name, value in preset.given_up.items()) or "nothing"
    return "\n".join([
        preset.fit.table(),
        f"given up of the published recipe: {given}",
        f"to run it, on drawn scenes unless --data says more:\n{preset.command}",
    ])  # fmt: skip


def _pocket() -> Finding:
    """Load the pocket policy and write one token with it: the whole chain works, or the reason why not."""
    from transformers.utils import logging

    from favor_lab.activities.fewshot import Example
    from favor_lab.activities.pocket import draw_scene
    from favor_lab.grpo.sampling import sample_groups
    from favor_lab.vlm.loading import load_policy
    from favor_lab.vlm.processing import encode_prompts

    logging.disable_progress_bar()
    try:
        policy = load_policy("pocket", device="cpu")
        scene = draw_scene("cartoon", "validation", 0)
        prompts = encode_prompts(
            policy, [Example(scene.image, str(scene.label), scene.source)], None, completion_tokens=1
        )
        sample_groups(policy, prompts, group_size=2, max_new_tokens=1, seed=0)
    except (OSError, ValueError, RuntimeError) as error:
        return Finding(False, f"the pocket policy does not work: {error}")
    size = sum(weight.numel() for weight in policy.base.parameters()) / 1e6
    return Finding(
        True, f"the pocket policy loads and answers ({size:.1f} million parameters): all of the course runs here"
    )
