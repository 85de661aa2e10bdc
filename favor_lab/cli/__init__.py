"""The command line: `favor-lab COMMAND`, the same as `python -m favor_lab COMMAND`.

Nothing heavy is imported before it is needed, so that help comes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import favor_lab


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; see `favor_lab.cli.parser`."""
    if list(sys.argv[1:] if arguments is None else arguments)[:1] == ["--version"]:
        print(f"favor-lab {favor_lab.__version__}")
        return 0
    from favor_lab.cli import parser

    return parser.main(arguments)
