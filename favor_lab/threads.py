"""How threads wait for each other: asleep, so that other processes may use the cores."""

from __future__ import annotations

import os
import sys
import warnings

#: the variables that say how OpenMP's threads wait: the standard's, and those of GNU's and LLVM's libraries
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def share_cores() -> None:
    """Let threads that wait sleep instead of spin (OMP_WAIT_POLICY=passive), unless the user has set one of
    :data:`WAITING`. A step that has the cores for itself takes as long as before; beside other busy processes,
    about half as long.

    Call it before torch is imported, in a notebook in the first cell: OpenMP reads the variable when torch loads it.
    Processes that are started from here inherit it. A second call does nothing. The command line calls it itself.
    """
    if any(name in os.environ for name in WAITING):
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    if "torch" in sys.modules:
        late = "torch is already imported, and its threads go on spinning while they wait"
        warnings.warn(f"{late}: restart the kernel and call share_cores() first", stacklevel=2)
