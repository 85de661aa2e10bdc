"""Lines of text on the terminal."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a line of results on standard output."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print a line about a problem on standard error, above a progress bar if there is one."""
    if (tqdm := sys.modules.get("tqdm")) is not None:
        tqdm.tqdm.write(f"favor-lab: {text}", file=sys.stderr)
    else:
        print(f"favor-lab: {text}", file=sys.stderr, flush=True)
