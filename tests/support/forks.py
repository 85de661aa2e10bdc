"""Calls in processes of their own, forked from one that has imported the library: the imports take longer than most
runs of the command line."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["favor_lab.cli.parser", "favor_lab.runs.run", "favor_lab.vlm.loading", "nbgrader.apps.nbgraderapp"]
)


class Forked:
    """A call of a function, which can be imported by its name, in a process; what it returns is the exit status."""

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        cwd: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        pipes = [PROCESSES.Pipe(duplex=False) for _ in range(2)]
        self.readers, writers = zip(*pipes, strict=True)
        given = (function, arguments, cwd or os.getcwd(), dict(os.environ if environment is None else environment))
        self.process = PROCESSES.Process(target=call, args=(*given, writers))
        self.process.start()
        for writer in writers:
            writer.close()

    def wait_for_output(self) -> None:
        """Wait until something is printed."""
        os.read(self.readers[0].fileno(), 1)

    def end(self) -> int:
        """Wait until the process has ended; then `output` and `errors` are what it has printed since."""
        with ThreadPoolExecutor() as pool:
            self.output, self.errors = pool.map(read, self.readers)
        self.process.join()
        self.status: int = self.process.exitcode
        return self.status


def run(function: Callable[..., Any], *arguments: Any, **options: Any) -> Forked:
    """A call that has ended."""
    forked = Forked(function, *arguments, **options)
    forked.end()
    return forked


def run_code(code: str, *arguments: str) -> None:
    """What `python -c code arguments` does."""
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def read(stream: Connection) -> str:
    with open(stream.fileno(), encoding="utf-8", errors="surrogateescape", closefd=False) as file:
        return file.read()


def call(function: Callable[..., Any], arguments: Any, cwd: str, environment: dict[str, str], streams: Any) -> None:
    """The call in its process; streams: its standard output and standard error."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.chdir(cwd)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    sys.exit(function(*arguments))
