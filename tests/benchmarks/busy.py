"""Seconds of a step while other processes use the cores, for several ways in which threads may wait for each other.

    python tests/benchmarks/busy.py                    # the pocket policy, alone and beside 1, 2 and 4 busy processes
    python tests/benchmarks/busy.py --ways default passive notebook --busy 0 2 --rounds 3

A thread that waits spins, which keeps its core from other processes, or sleeps. Each way runs in a fresh interpreter
that it is set for: torch's default; OMP_WAIT_POLICY=passive; two shorter spins (GOMP_SPINCOUNT, which GNU's OpenMP
reads); one thread, which waits for none; and `share_cores()` in the first cell of a notebook. That interpreter takes
its steps beside each number of busy processes in turn, --warmup of them not counted. The ways alternate for --rounds
rounds. Ratios are to the median step of the default way, alone, in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common import parse, parser, save, summary
from favor_lab.threads import WAITING
from step import Ours

WAYS: dict[str, dict[str, str]] = {  # name -> the variables that are set
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin-1000": {"GOMP_SPINCOUNT": "1000"},
    "spin-100000": {"GOMP_SPINCOUNT": "100000"},
    "one-thread": {"OMP_WAIT_POLICY": "passive"},
    "notebook": {},  # its first cell sets one
}
FIRST_CELL = "from favor_lab import share_cores\n\nshare_cores()"
# busy until it is killed; also if its parent is killed, which then cannot do it
BUSY = "import os, sys; print(flush=True)\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**6): pass"
IMAGES = {"pocket": {"images": 16}}


# ----------------------------------------------------------------------------------- in the interpreter of one way


@contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`count` processes that each use a core, killed when the block ends, however it ends."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            command = [sys.executable, "-c", BUSY, str(os.getpid())]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))  # at its end: waits
            stack.callback(process.kill)  # before that
            processes.append(process)
        for process in processes:
            assert process.stdout
            process.stdout.readline()  # it has started
        yield processes


def take_steps(args: argparse.Namespace) -> list[list[float]]:
    """Seconds of --steps steps beside each number of busy processes; the first step of all is not counted either."""
    turn = args.warmup + args.steps
    ours = Ours(argparse.Namespace(**vars(args) | {"warmup": 1, "steps": len(args.busy) * turn}))
    ours.step()
    for count in args.busy:
        with busy_processes(count):
            for _ in range(turn):
                ours.step()
    counted = ours.seconds[1:]
    return [counted[i * turn + args.warmup : (i + 1) * turn] for i in range(len(args.busy))]


# ----------------------------------------------------------------------------------------------- in the parent process


def threads_of(way: str, args: argparse.Namespace) -> int:
    return 1 if way == "one-thread" else torch.get_num_threads()


def start(way: str, args: argparse.Namespace, given: Sequence[str]) -> list[list[float]]:
    """`take_steps` in an interpreter, or a notebook's kernel, that one way is set for."""
    chosen = {*WAITING, "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in chosen} | WAYS[way]
    arguments = [*given, "--child", "--threads", str(threads_of(way, args))]
    if way == "notebook":
        printed = in_a_notebook(arguments, environment)
    else:
        command = [sys.executable, __file__, *arguments]
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


def in_a_notebook(arguments: Sequence[str], environment: dict[str, str]) -> str:
    """What this script prints in the second cell of a notebook whose first one calls `share_cores`."""
    import nbformat
    from nbclient import NotebookClient

    path = f"import sys\n\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    cells = [FIRST_CELL, f"{path}import busy\n\nbusy.main({[*arguments]!r})"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=None, kernel_name="python3").execute(env=environment)
    return "".join(output.text for output in notebook.cells[1].outputs if output.get("name") == "stdout")


def measure(args: argparse.Namespace, given: Sequence[str]) -> list[dict[str, Any]]:
    """Seconds and ratios of every way beside every number of busy processes."""
    rounds: list[dict[str, list[list[float]]]] = []
    for turn in tqdm(range(args.rounds), desc="busy"):
        order = args.ways if turn % 2 == 0 else args.ways[::-1]
        rounds.append({way: start(way, args, given) for way in tqdm(order, desc="ways", leave=False)})
    alone = args.busy.index(0)
    units = [statistics.median(times["default"][alone]) for times in rounds]
    cells = []
    for way in args.ways:
        for i, count in enumerate(args.busy):
            values = [(value, unit) for times, unit in zip(rounds, units, strict=True) for value in times[way][i]]
            cells.append({
                "way": way, "variables": WAYS[way], "threads": threads_of(way, args), "busy": count,
                "seconds": summary([value for value, _ in values]),
                "ratio": summary([value / unit for value, unit in values]),
            })  # fmt: skip
    return cells


def report(cells: Sequence[dict[str, Any]]) -> str:
    lines = []
    for cell in cells:
        low, high = cell["ratio"]["quartiles"]
        lines.append(
            f"{cell['way']:<12}beside {cell['busy']} busy processes{cell['seconds']['median']:8.3f} s, "
            f"{cell['ratio']['median']:.2f} times the default alone ({low:.2f} to {high:.2f})"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    options = parser(__doc__, "pocket")
    add = options.add_argument
    add("--busy", type=int, nargs="+", default=[0, 1, 2, 4], metavar="N", help="busy processes (default: 0 1 2 4)")
    add("--ways", nargs="+", choices=tuple(WAYS), default=[*WAYS], help="how threads wait (default: all of them)")
    add("--rounds", type=int, default=5, help="interpreters of each way (default: 5)")
    add("--steps", type=int, default=3, help="steps that are timed beside each number, in each of them (default: 3)")
    add("--warmup", type=int, default=1, help="steps before them (default: 1)")
    add("--child", action="store_true", help=argparse.SUPPRESS)
    args = parse(options, given, IMAGES)
    if args.child:
        print(json.dumps(take_steps(args)))
        return
    del args.child
    if 0 not in args.busy or "default" not in args.ways:
        options.error("the ratios are to the default way alone: --busy needs 0, --ways needs default")
    cells = measure(args, given)
    print(report(cells))
    print(save(args, f"busy-{args.policy}", "busy", {"cells": cells}))


if __name__ == "__main__":
    main()
