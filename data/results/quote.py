"""Put the measured tables into the pages that quote them: ``python data/results/quote.py``.

A page marks the place with ``<!-- begin FILE -->`` and ``<!-- end FILE -->``; FILE lies beside this script. A test
compares the pages with the files, so that no quoted number can drift from its measurement.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = (
    HERE.parents[1] / "README.md",
    HERE / "README.md",
    HERE / "RESULTS.md",
    HERE / "family.md",
    HERE.parent / "pocket-qwen2-vl" / "README.md",
)
MARK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def quoted(page: str) -> str:
    """The page with every marked place filled from its file; a text file is set as a block of code."""

    def fill(match: re.Match[str]) -> str:
        text = (HERE / match[2]).read_text(encoding="utf-8")
        return match[1] + (f"```text\n{text}```\n" if match[2].endswith(".txt") else text) + match[3]

    return MARK.sub(fill, page)


def main() -> None:
    for path in PAGES:
        path.write_text(quoted(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
