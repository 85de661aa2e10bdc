"""What the policy is asked: one user turn, the image first, then one of these texts.

Two choices: the *style* of the response (reasoning then answer, or answer only) and the *labels* (a closed list, or
None for an open vocabulary). The wording is short because every prompt token costs time, and it shows no template: an
over-trained policy copies a literal "..." between the tags.
"""

from __future__ import annotations

from collections.abc import Sequence

from favor_lab.activities.labels import check_labels

STYLES = ("think", "answer")
_REQUESTS = {
    "think": "Reason inside <think> </think>, then name it inside <answer> </answer>.",
    "answer": "Name it inside <answer> </answer>.",
    "describe": "Describe the evidence inside <think> </think>.",
}


def build_prompt(labels: Sequence[str] | None, style: str = "think") -> str:
    """Text of the user turn after the image; `labels=None` asks with an open vocabulary.

    style: "think" (reasoning, then the label) or "answer" (the label only). A third style, "describe", asks for the
    evidence and no label; only the pre-training of the pocket policy uses it. ValueError for an unknown style and for
    labels that `check_labels` refuses. Where a label has a comma, there is one on each line.

    >>> build_prompt(["reading", "phoning"], style="answer")
    'Which activity is this: reading, phoning? Name it inside <answer> </answer>.'
    >>> build_prompt(None)
    'Which activity is this? Reason inside <think> </think>, then name it inside <answer> </answer>.'
    """
    if style not in _REQUESTS:
        raise ValueError(f"unknown style {style!r}; valid styles: {', '.join(_REQUESTS)}")
    if style == "describe":
        return _REQUESTS[style]
    if labels is None:
        return f"Which activity is this? {_REQUESTS[style]}"
    check_labels(labels)
    if any("," in label for label in labels):  # a list with commas would read as more labels than there are
        return "\n".join(["Which activity is this?", *labels, _REQUESTS[style]])
    return f"Which activity is this: {', '.join(labels)}? {_REQUESTS[style]}"
