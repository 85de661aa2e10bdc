"""The command line: `favor-lab COMMAND`, the same as `python -m favor_lab COMMAND`.

Nothing heavy is imported before it is needed, so that help comes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import favor_lab
from favor_lab.terminal import Output, print_line, safe_outputs
from favor_lab.threads import share_cores

#: commands whose results are in a folder: what they print is not what they are run for
IN_A_FOLDER = {"demo", "train", "sft", "study", "share"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; see `favor_lab.cli.parser`. The status is 1 where what was asked for on standard output could not
    be written there."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    share_cores()  # before anything imports torch
    with safe_outputs() as output:
        try:
            return run(given) or missing(output, given)
        except SystemExit as end:  # after help, and after findings that are errors
            raise SystemExit(end.code or missing(output, given)) from None


def run(arguments: Sequence[str]) -> int:
    """Run a command; the version is printed without importing any."""
    if arguments[:1] == ["--version"]:
        print(f"favor-lab {favor_lab.__version__}")
        return 0
    from favor_lab.cli import parser

    return parser.main(arguments)


def missing(output: Output, arguments: Sequence[str]) -> int:
    """1 if standard output was asked for and could not be written, with a line that says why, unless its reader wanted
    no more (`| head`); else 0."""
    output.flush()
    if output.error is None or ({*arguments[:1]} & IN_A_FOLDER and not {"-h", "--help"} & {*arguments}):
        return 0
    if not isinstance(output.error, BrokenPipeError):
        print_line(f"favor-lab: error: standard output cannot be written: {output.error}", sys.stderr)
    return 1
