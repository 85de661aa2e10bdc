"""Text on a terminal: no character of a label, a file name or an answer acts there, and no line that cannot be written
ends the work that it is about."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TextIO

#: marks that turn the direction of writing (Unicode's Bidi_Control)
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: object) -> str:
    r"""Text in one line that does nothing to a terminal: control characters (escape codes, line breaks, backspaces),
    line separators, marks that turn the direction of writing, and bytes of file names that are not UTF-8 become
    backslash escapes. All else stays, also what joins the letters of Hindi and Persian and the parts of emoji.

    >>> print(shown("reading/a\n\x1b[2J.png"))
    reading/a\n\x1b[2J.png
    """
    return "".join(c.encode("unicode_escape").decode() if acts(c) else c for c in str(text))


def lines_shown(text: object) -> str:
    """`shown` for text of several lines."""
    return "\n".join(map(shown, str(text).split("\n")))


def acts(character: str) -> bool:
    """Whether a character does something to a terminal, in place of being seen or joining what is seen."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in TURNING


class Output:
    """A text stream that writes what its encoding lacks as escapes, and that drops text once writing has failed:
    `error` is why. stream: None for one that is closed."""

    def __init__(self, stream: Any):
        self.stream = io.StringIO() if stream is None else stream
        self.error: Exception | None = OSError("it is closed") if stream is None else None

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # a full disk, a reader that has gone; a closed stream
                self.error = error
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        if self.error is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self.error = error

    def isatty(self) -> bool:
        return is_terminal(self.stream)

    def __getattr__(self, name: str) -> Any:  # encoding, fileno, buffer ...
        return getattr(self.stream, name)

    def abandon(self) -> None:
        """After an error: send what the stream still holds nowhere, so that the interpreter's exit is quiet."""
        if self.error is not None:
            with suppress(AttributeError, OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; a missing or closed one is none."""
    with suppress(AttributeError, OSError, ValueError):
        return bool(stream.isatty())
    return False


def print_line(text: str, file: TextIO | None = None) -> None:
    """Print lines on standard output, or another stream, above progress bars. Whatever the text holds, nothing acts on
    the terminal; whatever becomes of the stream, nothing is raised."""
    stream: Any = sys.stdout if file is None else file
    tqdm = sys.modules.get("tqdm")  # imported only by what has a progress bar
    with nullcontext() if tqdm is None else tqdm.tqdm.external_write_mode(stream):
        output = stream if isinstance(stream, Output) else Output(stream)
        output.write(lines_shown(text) + "\n")
        output.flush()


@contextmanager
def safe_outputs() -> Iterator[Output]:
    """While the block runs, writing to standard output and error raises nothing; yields standard output, whose `error`
    says whether everything has arrived."""
    for number in (0, 1, 2):  # a file that is opened must not take the place of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    streams = sys.stdout, sys.stderr
    outputs = Output(sys.stdout), Output(sys.stderr)
    sys.stdout, sys.stderr = outputs  # type: ignore[assignment]
    try:
        yield outputs[0]
    finally:
        for output in outputs:
            output.flush()
            output.abandon()
        sys.stdout, sys.stderr = streams
