"""How long an import takes: favor_lab, the names of its main job, and torch with transformers.

    python tests/benchmarks/import_time.py

Each import is timed in a fresh interpreter; the three alternate. The first round, which fills the system's file cache,
is not counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from common import add_output, save, summary

STATEMENTS = {
    "favor_lab": "import favor_lab",
    "main_job": "from favor_lab import train, load_policy",
    "torch_transformers": "import torch, transformers",
}
ROOT = Path(__file__).resolve().parents[2]


def seconds(statement: str) -> float:
    """Wall time of one statement in a new interpreter, without its startup."""
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(process.stdout)


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7, help="timed rounds (default: 7)")
    add_output(options)
    args = options.parse_args(argv)
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in tqdm(range(args.rounds + 1), desc="import"):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    imports = {name: {"statement": STATEMENTS[name], **summary(values[1:])} for name, values in times.items()}
    for entry in imports.values():
        low, high = entry["quartiles"]
        print(f"{entry['statement']:<42}{entry['median']:7.3f} s ({low:.3f} to {high:.3f})")
    print(save(args, "import", "import", {"imports": imports}))


if __name__ == "__main__":
    main()
