"""Versions of Python and of the packages that a result depends on, recorded with every run."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = ("favor-lab", "torch", "transformers", "peft", "numpy", "pillow", "matplotlib")


def installed(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(device: torch.device | None = None) -> dict[str, str]:
    """What decides whether results are bit-identical: versions of Python and of the packages ("missing" where one is
    not installed), number of threads, and the device, if one is given."""
    import torch

    environment = {"python": platform.python_version(), "platform": platform.platform()}
    environment["threads"] = str(torch.get_num_threads())
    if device is not None:
        environment["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return environment | {package: installed(package) or "missing" for package in PACKAGES}


def need(package: str, purpose: str, extra: str = "lab") -> None:
    """ImportError, with the command that installs it, unless an optional package is installed and can be imported: a
    broken installation, or a person's settings of it (MPLBACKEND, matplotlibrc), are named before any work is done."""
    verb = "need" if any(word.endswith("s") for word in purpose.split()[:2]) else "needs"  # the figures of a run
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{purpose} {verb} {package}: pip install 'favor-lab[{extra}]'")
    try:
        importlib.import_module(package)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ImportError(
            f"{purpose} {verb} {package}, which is installed but cannot be imported ({reason})"
        ) from error
