"""The command line: `favor-lab COMMAND`, the same as `python -m favor_lab COMMAND`.

Nothing heavy is imported before it is needed, so that help comes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from favor_lab.versions import need


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; see `favor_lab.cli.parser`."""
    try:
        need("tyro", "the command line")
    except ImportError as error:
        print(f"favor-lab: error: {error}", file=sys.stderr)
        return 2
    from favor_lab.cli import parser

    return parser.main(arguments)
