"""Did anything come of a run? What a run that never gave a right answer says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from favor_lab.study.evaluation import Evaluation


def never_right(records: Sequence[Mapping[str, Any]], after: Evaluation | None) -> str:
    """That no completion in training, and no answer to the test images after it, named the label of its image; empty
    if one did, or if neither exists (supervised fine-tuning samples nothing, and `test=0` tests nothing).

    >>> flat = {"step": 1, "labels": {"reading": {"completions": 8, "right": 0, "right_so_far": 0}}}
    >>> never_right([flat], None)
    'none of the 8 completions in training named the label of its image'
    >>> never_right([flat, {"step": 2, "labels": {"reading": {"completions": 8, "right": 1, "right_so_far": 1}}}], None)
    ''
    """
    # the updates after the first on one rollout repeat its counts
    counts = [
        count for record in records if not record.get("update") for count in (record.get("labels") or {}).values()
    ]
    completions = sum(count["completions"] for count in counts)
    if any(count["right"] for count in counts) or (after is not None and after.correct):
        return ""
    parts = [f"none of the {completions} completions in training"] if completions else []
    if after is not None and len(after):
        parts.append(f"none of the {len(after)} answers after {'it' if parts else 'training'}")
    return f"{' and '.join(parts)} named the label of its image" if parts else ""
