"""Kills training runs with SIGKILL, resumes them, and compares each with an undisturbed run.

    python tests/promises/kills.py

Each run is `favor-lab train` in a process of its own, with the pocket policy. The process is forked from one that has
imported the library, since the imports take longer than the run. Every other kill comes at a random moment; the others
come while a checkpoint is written: in the middle of the file, before the final rename, right after it, and while older
ones are removed. A run that was killed is resumed as a user resumes it, and killed again, four times at most, before it
may end. Its step records (except wall times), weights, optimiser and answers must then be bit-identical to those of the
unbroken run.

Then runs meet: a second process in a folder that is being trained, two that start at once without a folder of their
own, and a resume beside files that are no checkpoints. Last, the commands beside training are killed while they write:
what they leave must not be taken for the complete thing by the command that reads it, and the same command, run again,
must complete it. The exit status is 1 where anything is lost or mixed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # helpers of the tests, for a run as a script

from forks import Forked

STEPS = 10
TRAIN = (
    f"train --data cartoon --shots 1 --test 4 --steps {STEPS} --updates-per-rollout 2 --checkpoint-every 1 "
    "--prompts-per-step 2 --group-size 4 --style answer --max-new-tokens 12 --temperature 1.5"
).split()
PLACES = {
    "bytes": "amid the bytes of a checkpoint",
    "written": "before a checkpoint is put in place",
    "placed": "right after a checkpoint is put in place",
    "removing": "while older checkpoints are removed",
}
KILLS_A_RUN = 4
RUN = "train --data cartoon --shots 1 --test 1 --steps 1 --group-size 2 --max-new-tokens 4 --style answer --out run"
STUDY = "study --methods zero-shot-answer sft --sets cartoon --shots 1 --seeds 1 --steps 1 --test 1 --out cells"
DRAW, SHARE, ASK = "data cartoon --per-label 1 --out drawn", "share run --out given", "evaluate --run run --out asked"
BESIDE = [  # a command, and the call of a function in which it is killed
    (DRAW, "PIL.Image:Image.save 20"), (DRAW, "pathlib:Path.rename 2"), (SHARE, "favor_lab.sharing.export:flush 3"),
    (ASK, "favor_lab.show.report:write_report 1"), (STUDY, "favor_lab.runs.experiments:evaluate 2"),
    (STUDY, "os:replace 1"),
]  # fmt: skip


def deadly(place: str) -> None:
    """Let a call of a function kill this process: "module:name number"."""
    name, _, number = place.partition(" ")
    module, _, attribute = name.partition(":")
    *owners, attribute = attribute.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, count = getattr(owner, attribute), itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        if next(count) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, attribute, call)


def child(arguments: list[str], where: str = "") -> int:
    """The command line in this process, which kills itself at the given place: of a checkpoint, with the number of the
    save, or one for `deadly`."""
    from favor_lab import cli

    if ":" in where:
        deadly(where)
        return cli.main(arguments)
    from favor_lab.grpo.support import checkpoints

    place, _, number = where.partition(" ")
    save_file, put_in_place, unlink, saves = checkpoints.save_file, checkpoints.put_in_place, Path.unlink, []

    def die_at(here: str) -> None:
        if here == place and len(saves) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def saving(tensors: Any, path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata)
        saves.append(path)
        if (place, str(len(saves))) == ("bytes", number):
            os.truncate(path, path.stat().st_size // 2)
        die_at("bytes")

    def putting(unfinished: Path, path: Path) -> None:
        die_at("written")
        put_in_place(unfinished, path)
        die_at("placed")

    def removing(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.suffix == ".safetensors":
            die_at("removing")

    checkpoints.save_file, checkpoints.put_in_place, Path.unlink = saving, putting, removing  # type: ignore
    return cli.main(arguments)


def start(arguments: list[str], where: str = "") -> Forked:
    """A run in a process of its own, after its start: the policy is loaded and the first line is printed."""
    run = Forked(child, arguments, where)
    run.wait_for_output()
    return run


def finish(run: Forked) -> float:
    """Wait for a run that ends by itself; seconds it took. RuntimeError, with its output, for one that fails."""
    begun = time.perf_counter()
    if run.end():
        raise RuntimeError(f"a run ended with {run.status}:\n{run.errors[-3000:]}")
    return time.perf_counter() - begun


def killed(arguments: list[str], where: str, wait: float) -> bool:
    """Start or resume a run and see it killed, after `wait` seconds or at a place; False where it was over before."""
    run = start(arguments, where)
    if not where:
        time.sleep(wait)
        run.process.kill()
    if run.end() not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run ended with {run.status}:\n{run.errors[-3000:]}")
    return run.status != 0


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, except wall times."""
    from favor_lab.grpo.support.checkpoints import newest
    from favor_lab.study.run_folder import RunFolder

    timeless = [{name: item for name, item in record.items() if name != "seconds"} for record in records(folder)]
    answers = [json.loads((folder / f"evaluation_{when}.json").read_text())["answers"] for when in ("before", "after")]
    adapter = (RunFolder(folder).adapter / "adapter_model.safetensors").read_bytes()
    path, state = newest(folder / "checkpoint")
    return {"records": timeless, "answers": answers, "adapter": adapter, "checkpoint": path.name, **state}


def records(folder: Path) -> list[dict[str, Any]]:
    from favor_lab.study.run_folder import RunFolder

    return RunFolder(folder).records() if (folder / "records.jsonl").exists() else []


def same(a: Any, b: Any) -> bool:
    """Bit-identical equality, of plain data with tensors in it; NaN is like NaN."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def trial(folder: Path, kills: list[tuple[str, float]], say: Any) -> int:
    """One run through these kills and to its end; how many kills hit it."""
    struck = 0
    for where, wait in kills:
        begun = (folder / "settings.json").exists()
        if not killed(["train", "--resume", str(folder)] if begun else [*TRAIN, "--out", str(folder)], where, wait):
            return struck
        struck += 1
        place, _, number = where.partition(" ")
        at = f"{PLACES[place]}, save {number}" if where else f"{wait:.2f} s after its start"
        left = ", ".join(sorted(path.name for path in (folder / "checkpoint").glob("*")))
        say(f"   killed {at}: {len(records(folder))} steps recorded; {left or 'no checkpoint'}")
    finish(start(["train", "--resume", str(folder)]))
    return struck


def run(kills: int, seed: int, folder: Path, say: Any = tqdm.write) -> int:
    """Kill `kills` times; the number of kills whose run ended identical."""
    chance, places = random.Random(seed), itertools.cycle(PLACES)
    span = finish(start([*TRAIN, "--out", str(folder / "unbroken")]))
    unbroken = outcome(folder / "unbroken")
    rewards = [record["reward"] for record in unbroken["records"]]
    say(f"the unbroken run: {len(rewards)} steps, mean reward {min(rewards):.2f} to {max(rewards):.2f}")
    hits = identical = 0
    with tqdm(total=kills, unit="kill") as bar:
        for number in range(1, 2 * kills + 1):
            count = min(KILLS_A_RUN, kills - hits)
            plan = [
                ("", chance.uniform(0, span / KILLS_A_RUN))
                if (hits + i) % 2 == 0
                else (f"{next(places)} {chance.randint(1, 2)}", 0.0)
                for i in range(count)
            ]
            say(f"run {number}")
            struck = trial(folder / f"run-{number}", plan, say)
            faults = unlike(folder / f"run-{number}", unbroken)
            say(f"   resumed to its end: {'; '.join(faults) or 'identical'}")
            hits, identical = hits + struck, identical + (0 if faults else struck)
            bar.update(struck)
            if not faults:
                shutil.rmtree(folder / f"run-{number}")
            if hits == kills:
                break
    print(f"{identical} of {hits} kills ended identical to the unbroken run")
    return identical


def second_in_a_folder(place: Path, unbroken: dict[str, Any]) -> list[str]:
    """What goes wrong where a folder that is being trained is asked for again."""
    run, faults = place / "run", []
    first = start([*TRAIN, "--out", str(run)])
    os.kill(first.process.pid, signal.SIGSTOP)  # it shall not end before it is met
    for arguments in (["train", "--resume", str(run)], [*TRAIN, "--out", str(run)]):
        second = Forked(child, arguments)
        if second.end() != 2 or str(run) not in second.errors:
            faults.append(f"{arguments[:2]} ended with {second.status}: {second.errors[-300:]}")
        if "--resume" in arguments and f"process {first.process.pid}" not in second.errors:
            faults.append(f"the process is not named: {second.errors[-300:]}")
    os.kill(first.process.pid, signal.SIGCONT)
    finish(first)
    return faults + unlike(run, unbroken)


def two_without_a_folder(place: Path, unbroken: dict[str, Any]) -> list[str]:
    """What goes wrong where two runs take the default folder at once."""
    for run in [Forked(child, TRAIN, cwd=place) for _ in range(2)]:
        run.end()
    runs = sorted((place / "runs").iterdir())
    faults = [] if len(runs) == 2 else [f"two runs have {len(runs)} folders"]
    return faults + [fault for run in runs for fault in unlike(run, unbroken)]


def beside_strangers(place: Path, unbroken: dict[str, Any]) -> list[str]:
    """What goes wrong where a person or a synchroniser put files beside the checkpoints."""
    run = place / "run"
    killed([*TRAIN, "--out", str(run)], "placed 3", 0.0)
    newest = max((run / "checkpoint").glob("step-*.safetensors"))
    for name in ("{} copy.safetensors", "{} (conflict).safetensors", "step-x.safetensors", "{}.safetensors.part"):
        shutil.copy(newest, newest.with_name(name.format(newest.stem)))
    newest.with_name(".tmpA1b2C3").write_bytes(b"what safetensors leaves when it is killed")
    finish(start(["train", "--resume", str(run)]))
    left = sorted(path.name for path in (run / "checkpoint").glob(".tmp*"))
    return unlike(run, unbroken) + [f"{name} is left" for name in left]


def unlike(run: Path, unbroken: dict[str, Any]) -> list[str]:
    """In what a run differs from the unbroken one."""
    result = outcome(run)
    return [f"{run.name} is unlike in {name}" for name in unbroken if not same(result[name], unbroken[name])]


MEETINGS = (second_in_a_folder, two_without_a_folder, beside_strangers)


def meet(folder: Path, say: Any = print) -> list[str]:
    """Let runs meet; what went wrong. `folder` holds the unbroken run."""
    faults, unbroken = [], outcome(folder / "unbroken")
    for meeting in MEETINGS:
        (folder / meeting.__name__).mkdir()
        faults += [f"{meeting.__name__}: {fault}" for fault in meeting(folder / meeting.__name__, unbroken)]
    say(f"{len(faults)} losses where {len(MEETINGS)} kinds of runs met" + "".join(f"\n   {fault}" for fault in faults))
    return faults


def is_complete(place: Path) -> bool:
    """Whether what a command beside training left is taken for the complete thing by whoever reads it."""
    from favor_lab import load_activities
    from favor_lab.runs.cells import load_results
    from favor_lab.runs.predicting import read_trained
    from favor_lab.study.run_folder import RunFolder

    readers = {
        "drawn": lambda: load_activities("folder", place),
        "given": lambda: read_trained(place),
        "asked": lambda: RunFolder.open(place),
        "cells": lambda: [result.evaluation for result in load_results(place)][1] and (place / "table.md").read_text(),
    }
    try:
        return bool(readers[place.name]())
    except (OSError, ValueError, IndexError):
        return False


def beside(folder: Path, say: Any = tqdm.write, kills: Sequence[tuple[str, str]] = BESIDE) -> int:
    """Kill the commands beside training while they write; how many left nothing that passes for complete, and were
    completed by the same command."""

    def command(line: str, where: str = "") -> int:
        return Forked(child, line.split(), where, cwd=folder).end()

    if command(RUN):
        raise RuntimeError(f"`favor-lab {RUN}` failed")
    good = 0
    for line, where in kills:
        place = folder / line.split()[-1]
        was_killed = command(line, where) == -signal.SIGKILL
        passed = is_complete(place)
        if line in (DRAW, ASK):  # they ask for a new folder
            shutil.rmtree(place, ignore_errors=True)
        completed = command(line) == 0 and is_complete(place)
        shutil.rmtree(place, ignore_errors=True)
        good += was_killed and completed and not passed
        left = "passed for complete" if passed else "was seen to be incomplete"
        say(f"   {line.split()[0]} killed at {where}: {left}, {'' if completed else 'NOT '}completed by the next")
    print(f"{good} of {len(kills)} kills beside training left nothing that passes for complete")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        identical = run(options.kills, options.seed, Path(folder))
        faults = meet(Path(folder))
        (Path(folder) / "beside").mkdir()
        complete = beside(Path(folder) / "beside")
        return int(identical != options.kills or bool(faults) or complete != len(BESIDE))


if __name__ == "__main__":
    sys.exit(main())
