"""Measure your card: every benchmark that needs a GPU, one after the other, and one file of all results to send.

    python tests/benchmarks/measure_card.py --quick    # about ten minutes on a consumer card
    python tests/benchmarks/measure_card.py            # some hours

It needs an NVIDIA card; `pip install -e ".[lab,trl,qlora]"` brings TRL, to compare with, and bitsandbytes, for weights
in four bits. What cannot run is left out with its reason: a package, or too little memory, by the estimate of
`favor_lab.fits` or as the script finds out. A script that fails does not stop the others. The same command goes on
where it was stopped: a script whose result is there, of this card and these versions, does not run again.

The file, favor-lab-MACHINE.json, is written anew after each script. It names the card, the processor, the system and
the versions, and no person and no folder. `render.py --add FILE` puts its results among the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from card_file import pack
from common import ROOT, SIZES, is_same_setup, parser, without_paths
from favor_lab import fits
from favor_lab.budget.cards import GIB
from favor_lab.budget.fits import Fit
from favor_lab.terminal import Output
from favor_lab.vlm.untrusted import is_out_of_memory

SCRIPTS = Path(__file__).resolve().parent
LAST_LINES = 15  # of a script that failed
LESS = "--gradient-checkpointing --micro-batch 8"  # memory
SHORT = "--length 64 --image-size 224"
QUICK = f"{SHORT} --images 8"


@dataclass(frozen=True)
class Job:
    """A script and the ways to run it, of which the first is taken that this machine can do."""

    script: str
    ways: tuple[str, ...]
    quick: tuple[str, ...]
    largest: Mapping[str, int] = field(default_factory=dict)  # sizes of its largest step that no argument says

    @property
    def result(self) -> str:
        """How the name of its file begins."""
        return f"{'run' if self.script == 'run200' else self.script}-2b"


JOBS = (
    Job(
        "step",
        ("--policy 2b", f"--policy 2b {LESS}", f"--policy 2b {LESS} --only ours"),
        (f"--policy 2b {LESS} {QUICK} --prompts 2 --steps 3 --warmup 1",
         f"--policy 2b {LESS} {QUICK} --prompts 2 --steps 3 --warmup 1 --only ours"),
    ),
    Job(
        "parts",
        ("--policy 2b --fixed-length", f"--policy 2b --fixed-length {SHORT} --prompts 1 --group-size 4"),
        (f"--policy 2b --fixed-length {QUICK} --prompts 1 --group-size 4 --steps 3 --warmup 1",),
    ),
    Job(
        "peaks",
        ("--policy 2b --micro-batch 8", f"--policy 2b {SHORT} --prompts 1 --group-size 4"),
        (f"--policy 2b {QUICK} --prompts 1 --group-size 4",),
    ),
    Job(
        "growth",
        ("--policy 2b --gradient-checkpointing", f"--policy 2b {LESS}"),
        (f"--policy 2b {LESS} {QUICK} --prompts 2 --group-sizes 4 8 --lengths 32 64 --image-sizes 112 224 --steps 2"
         " --warmup 1",),
        {"group_size": 32},
    ),
    Job(
        "run200",
        ("--micro-batch 32", f"{LESS} --offload-tower"),
        (f"{LESS} --offload-tower {QUICK} --prompts 4 --steps 10",),
        {"prompts": 16},
    ),
    Job(
        "memory",
        ("--workers 4", "--workers 1"),
        ("--group-sizes 8 --image-sizes 224 --lengths 64 --features kept --images 8 --minutes 3",),
        {"group_size": 16, "micro_batch": 16, "gradient_checkpointing": True},
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ before a script


def ask_the_card(machine: str | None = None) -> dict[str, Any]:
    """The environment on the GPU, asked of a process that ends: one that has asked keeps memory of the card."""
    code = f"import json, common; print(json.dumps(common.environment('cuda', {machine!r})))"
    process = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, env=one_card(), capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"torch sees no CUDA device here ({reason}); `favor-lab doctor` says more")
    return json.loads(process.stdout.splitlines()[-1])


def one_card() -> dict[str, str]:
    """The environment variables of a script: it sees the first card alone, since TRL would take them all."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"CUDA_VISIBLE_DEVICES": first, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def estimate(job: Job, way: str, gpu_gb: float) -> tuple[Fit, float]:
    """The estimate of a script's largest step, and the bytes of all that is on the card at a time."""
    options = parser("", "2b")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--only")
    args, _ = options.parse_known_args(way.split())
    typed = {name: value for name, value in vars(args).items() if value != options.get_default(name)}
    sizes = vars(args) | SIZES["2b"] | job.largest | typed
    same = "images beta lora_rank group_size micro_batch gradient_checkpointing offload_tower".split()
    names = dict(zip(same, same, strict=True))
    names |= {"prompts_per_step": "prompts", "max_new_tokens": "length"}
    settings = {name: sizes[size] for name, size in names.items()}
    fit = fits(gpu_gb=gpu_gb, max_pixels=sizes["image_size"] ** 2, dtype=sizes["dtype"] or "bfloat16", **settings)
    trl = sum(fit.fixed.values()) if job.script == "step" and not sizes["only"] else 0.0  # a model of its own
    return fit, sizes["workers"] * fit.needed_bytes + trl


def too_little_memory(job: Job, way: str, where: Mapping[str, Any]) -> str | None:
    """Why the card has too little memory for this, by the estimate; None if it has enough, or the script finds out."""
    if job.script == "memory" and "--workers 4" not in way:
        return None
    gpu_gb = 1e9 * where["gpu_memory_gb"] / GIB
    _, needed = estimate(job, way, gpu_gb)
    short = f"{needed / GIB:.1f} GiB of memory needed by estimate, the card has {gpu_gb:.1f}"
    return short if needed > gpu_gb * GIB else None


def result_of(job: Job, where: Mapping[str, Any], args: argparse.Namespace) -> Path:
    """The file that the script writes."""
    return args.out / ("-".join([job.result, *["quick"] * args.quick, where["machine"]]) + ".json")


def is_there(path: Path, where: Mapping[str, Any], complete: bool = False) -> bool:
    """Whether a result is there, of this card and of these versions; `complete`: to its last cell."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):  # no file, or one that a crash has cut off
        return False
    return is_same_setup(result["environment"], where) and not (complete and result.get("open"))


# --------------------------------------------------------------------------------------------------------- the scripts


def run(command: Sequence[str], log: Path) -> tuple[int, list[str]]:
    """Run a script; what it prints is shown, and kept in a file. Its exit status and its last lines."""
    pipes: dict[str, Any] = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=one_card())
    terminal = Output(sys.stderr)
    with log.open("wb") as file, subprocess.Popen(command, **pipes) as process:
        try:
            while chunk := process.stdout.read1(4096):  # type: ignore[union-attr]
                file.write(chunk)
                terminal.write(chunk.decode(errors="replace"))
                terminal.flush()
        except BaseException:
            process.terminate()
            raise
    lines = [line.strip() for line in re.split(r"[\r\n]+", log.read_text("utf-8", "replace"))]
    return process.returncode, [without_paths(line)[:300] for line in lines if line][-LAST_LINES:]


def measure(job: Job, where: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What became of a script: its command and its state, and the reason of one that is left out or failed."""
    path, reasons = result_of(job, where, args), []
    entry: dict[str, Any] = {"command": f"{job.script}.py"}
    if args.again:
        path.unlink(missing_ok=True)
    if is_there(path, where, complete=True):
        return entry | {"state": "measured", "reason": "its result was there"}
    half = " --dtype float16" * (float(where["gpu_capability"]) < 8)  # such a card has no bfloat16 of its own
    for way in (way + half for way in (job.quick if args.quick else job.ways)):
        entry["command"] = f"{job.script}.py {way}".strip()
        if reason := too_little_memory(job, way, where):
            reasons.append(reason)
            continue
        fixed = ["--out", str(args.out), "--machine", where["machine"], *["--tag", "quick"] * args.quick]
        begin = time.monotonic()
        status, lines = run(
            [sys.executable, str(SCRIPTS / f"{job.script}.py"), *way.split(), *fixed], path.with_suffix(".log")
        )
        entry["minutes"] = round((time.monotonic() - begin) / 60, 2)
        if status == 0 and is_there(path, where):
            why_not = {"reason": f"in another way: {'; '.join(reasons)}"} if reasons else {}
            return entry | {"state": "measured"} | why_not
        if status == 2:  # the script says what it lacks
            reasons.append(lines[-1].rpartition("error: ")[2] if lines else "exit status 2")
        elif is_out_of_memory(RuntimeError("\n".join(lines))):
            reasons.append("out of memory")
        else:
            why = f"exit status {status}" if status else "it wrote no result"
            return entry | {"state": "failed", "reason": why, "last_lines": lines}
    return entry | {"state": "left out", "reason": "; ".join(dict.fromkeys(reasons))}


def outcome_of(entry: Mapping[str, Any]) -> str:
    """What became of a script, in words.

    >>> outcome_of({"state": "failed", "minutes": 1.25, "reason": "exit status 1"})
    'failed in 1.2 minutes: exit status 1'
    """
    minutes = f" in {entry['minutes']:.1f} minutes" if "minutes" in entry else ""
    return f"{entry['state']}{minutes}" + (f": {entry['reason']}" if "reason" in entry else "")


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = [job.script for job in JOBS]
    options.add_argument("--quick", action="store_true", help="few steps of small sizes, about ten minutes")
    options.add_argument("--again", action="store_true", help="run scripts again whose results are there")
    options.add_argument("--only", nargs="+", choices=names, default=names, metavar="SCRIPT", help=", ".join(names))
    options.add_argument("--out", type=Path, default=ROOT / "runs" / "card", help="folder (default: runs/card)")
    options.add_argument("--machine", help="name of this machine in the files' names (default: that of its GPU)")
    args = options.parse_args(argv)
    try:
        where = ask_the_card(args.machine)
    except RuntimeError as error:
        options.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    whole = args.out / ("-".join(["favor-lab", *["quick"] * args.quick, where["machine"]]) + ".json")
    scripts: list[dict[str, Any]] = []
    jobs = [job for job in JOBS if job.script in args.only]
    print(f"{where['gpu']}, {where['gpu_memory_gb']} GB: {len(jobs)} scripts; results in {args.out}", flush=True)
    for i, job in enumerate(jobs, 1):
        head = f"[{i}/{len(jobs)}] {job.script}"
        print(f"{head} ...", flush=True)
        try:
            entry = measure(job, where, args)
        except KeyboardInterrupt:
            print("stopped; the same command goes on")
            return 130
        scripts.append(entry)
        print(f"{head}: {outcome_of(entry)}", flush=True)
        pack(whole, where, scripts, [path for job in JOBS if is_there(path := result_of(job, where, args), where)])
    print(
        f"{whole} holds all of it. Please send it: open an issue in the project's issue tracker and attach this file."
    )
    return int(any(entry["state"] == "failed" for entry in scripts))


if __name__ == "__main__":
    sys.exit(main())
