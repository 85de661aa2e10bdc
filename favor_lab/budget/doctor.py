"""Check this machine: versions, memory, GPU, and what can be run on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from favor_lab.threads import WAITING
from favor_lab.versions import installed

REQUIRED = ("torch", "transformers", "peft", "numpy", "pillow", "safetensors", "tqdm", "psutil")
OPTIONAL = {  # package -> what it is for, the extra that brings it
    "matplotlib": ("figures and reports", "lab"),
    "jupyterlab": ("the notebooks", "lab"),
    "trl": ("the same rewards in TRL's trainer", "trl"),
    "bitsandbytes": ("4-bit weights on a GPU", "qlora"),
}


class Finding(NamedTuple):
    """One line: `ok` is True, False (something required is missing) or None (something optional is missing)."""

    ok: bool | None
    text: str

    def __str__(self) -> str:
        return f"{'[--]' if self.ok is None else '[OK]' if self.ok else '[FAIL]':<7}{self.text}"


def check_machine() -> Iterator[Finding]:
    """All findings: versions, processor and memory, other processes, GPU, pocket checkpoint, what can be run. If a
    required package is missing, only the versions."""
    yield Finding(sys.version_info >= (3, 11), f"Python {platform.python_version()} (3.11 or newer is needed)")
    for package in REQUIRED:
        version = installed(package)
        yield Finding(version is not None, f"{package} {version or 'is missing: pip install favor-lab'}")
    for package, (use, extra) in OPTIONAL.items():
        version = installed(package)
        missing = f"is not installed (for {use}: pip install 'favor-lab[{extra}]')"
        yield Finding(None if version is None else True, f"{package} {version or missing}")
    if not all(map(installed, REQUIRED)):
        return
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    yield Finding(True, f"{os.cpu_count()} CPU cores, {memory:.1f} GiB of memory ({platform.platform()})")
    yield from _other_processes(psutil.getloadavg()[0])
    yield from _gpus()
    yield _pocket()


def _other_processes(load: float) -> Iterator[Finding]:
    """A warning if other processes are busy and threads that wait spin, which keeps all of them from working: nothing
    has called `share_cores`, or the user wants it so."""
    wanted = os.environ.get("OMP_WAIT_POLICY", "").lower() == "active"
    asleep = not wanted and any(name in os.environ for name in WAITING)
    if load > 0.4 * (os.cpu_count() or 1) and not asleep and os.environ.get("OMP_NUM_THREADS") != "1":
        busy = f"other processes are busy (load {load:.1f} on {os.cpu_count()} cores)"
        cure = "call favor_lab.share_cores() before torch is imported (in a notebook: restart the kernel, first cell)"
        cure = "unset OMP_WAIT_POLICY, which lets threads spin while they wait" if wanted else cure
        yield Finding(None, f"{busy}: {cure}, or a training step may take twice as long as it must")


def _gpus() -> Iterator[Finding]:
    """Each CUDA device with its memory, or one line if there is none; and whether training the 2B model fits."""
    import torch

    from favor_lab.budget.cards import GIB
    from favor_lab.budget.fits import MODEL, recommend

    for i in range(torch.cuda.device_count()):
        free, total = (memory / GIB for memory in torch.cuda.mem_get_info(i))
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        yield Finding(True, f"GPU {i}: {torch.cuda.get_device_name(i)}, {total:.1f} GiB ({free:.1f} GiB free), {kind}")
    if (largest := largest_gpu_gb()) is None:
        text = "no CUDA GPU is visible: models run on the CPU (--gpu-gb 8 says what fits on a card of 8 GB)"
        yield Finding(None, text)
        return
    try:
        preset = recommend(largest, MODEL)
    except ValueError as error:
        yield Finding(None, str(error))
    else:
        weights = "4-bit weights" if preset.policy.get("quantize") else "bfloat16"
        yield Finding(True, f"room for {MODEL} with LoRA, {weights}: {preset.fit.verdict()}, by estimate")


def largest_gpu_gb() -> float | None:
    """Memory of the largest CUDA device in GiB, the GB that it is sold by; None if there is no CUDA device."""
    import torch

    from favor_lab.budget.cards import GIB

    sizes = [torch.cuda.mem_get_info(i)[1] / GIB for i in range(torch.cuda.device_count())]
    return max(sizes, default=None)


def what_fits(model: str | None, gpu_gb: float | None) -> str:
    """The recommended preset for a card, with its estimates of memory by phase and of time, and its command; without a
    card: presets for the usual ones. model: None for Qwen2-VL-2B; FileNotFoundError for a model whose configuration is
    not known here."""
    from favor_lab.budget.fits import MODEL, SCREEN_GB, preset_table, presets, recommend

    model = model or MODEL
    if gpu_gb is None:
        note = f"a card of 12 GB has 12 GiB; {SCREEN_GB} of them are left for a screen; hours: of training, by estimate"
        return f"{model}: the settings to take on a card, by estimate\n{preset_table(presets(model))}\n{note}"
    preset = recommend(gpu_gb, model)
    given_up = ", ".join(f"{name} {value}" for name, value in preset.given_up.items()) or "nothing"
    return "\n".join([
        preset.fit.table(),
        f"a card of 12 GB has 12 GiB; {SCREEN_GB} GiB of this one are left for a screen, a twentieth for the driver",
        preset.fit.time_estimate(),
        f"given up of the published settings: {given_up}",
        f"to run it, on drawn scenes unless --data says more (`train --policy {model}` takes it by itself):",
        preset.command,
    ])  # fmt: skip


def presets_for(model: str | None, gpu_gb: float | None) -> list[dict[str, Any]]:
    """What `what_fits` says, as data: one preset per card; for a card that nothing fits on, its size alone."""
    from favor_lab.budget.fits import CARDS, MODEL, presets

    return [
        {"gpu_gb": card}
        if preset is None
        else {"gpu_gb": card, "needed_bytes": preset.fit.needed_bytes, **vars(preset), "command": preset.command}
        for card, preset in presets(model or MODEL, CARDS if gpu_gb is None else (gpu_gb,)).items()
    ]


def _pocket() -> Finding:
    """Load the pocket policy and sample one token with it: everything works, or the reason why not."""
    from favor_lab.activities.fewshot import Example
    from favor_lab.activities.world import draw_scene
    from favor_lab.grpo.sampling import sample_groups
    from favor_lab.vlm.loading import load_policy
    from favor_lab.vlm.processing import encode_prompts

    try:
        policy = load_policy("pocket", device="cpu")
        scene = draw_scene("cartoon", "validation", 0)
        example = Example(scene.image, str(scene.label), scene.source)
        prompts = encode_prompts(policy, [example], None, completion_tokens=1)
        sample_groups(policy, prompts, group_size=2, max_new_tokens=1, seed=0)
    except (OSError, ValueError, RuntimeError) as error:
        return Finding(False, f"the pocket policy does not work: {error}")
    size = f"{sum(weight.numel() for weight in policy.base.parameters()) / 1e6:.1f} million parameters"
    return Finding(True, f"the pocket policy loads and answers ({size}): all of the course runs here")
