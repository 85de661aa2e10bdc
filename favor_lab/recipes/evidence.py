"""What a response's reasoning says without naming the answer: for judges that read the reasoning and should come to the
right label by it. Were label words left in, writing the answer into the reasoning would be paid.

Of a photograph's reasoning this also takes things that are in a label, such as an umbrella. What it cannot take: other
words for a label, and spellings that a reader would still make out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from favor_lab.activities.labels import normalise_label
from favor_lab.activities.world import NAMES, STATEMENTS
from favor_lab.grpo.rewards import Completion, completion_texts
from favor_lab.responses import reasoning_statements


def evidence(text: str, labels: Sequence[str]) -> str:
    """The reasoning of a response without words of labels, nor of the other names that the drawn world has for them.
    Statements of the drawn world stay whole: they are evidence, even where they share a word with a label.

    >>> evidence("<think>Fishing rod in the hands, it is fishing, re-reading; angling</think>", ["fishing", "reading"])
    'fishing rod in the hands, it is, re'
    """
    names = [name for label in labels for name in (label, *NAMES.get(label, ()))]
    words = {word for name in names for word in re.findall(r"\w+", normalise_label(name))}

    def tells(word: str) -> bool:
        return word in words or any(len(part) > 3 and part in word for part in words)

    pieces = []
    for piece in reasoning_statements(text):
        kept = [word for word in re.findall(r"\w+", normalise_label(piece)) if not tells(word)]
        pieces.append(piece if piece in STATEMENTS else " ".join(kept))
    return ", ".join(piece for piece in pieces if piece)


def with_evidence(completions: Sequence[Completion], labels: Sequence[str]) -> dict[int, str]:
    """The `evidence` of each completion that has any, by its row.

    >>> with_evidence(["<think>one hand up</think>", "", "<think>reading</think>"], ["reading"])
    {0: 'one hand up'}
    """
    seen = [evidence(text, labels) for text in completion_texts(completions)]
    return {row: text for row, text in enumerate(seen) if text}
