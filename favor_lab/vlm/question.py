"""What is asked of an image: the labels to choose from (or none), the style of the response, the text of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from favor_lab.activities.labels import check_labels
from favor_lab.vlm.prompts import build_prompt

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example


@dataclass(frozen=True)
class Question:
    """One question that is asked about many images; labels and style: see `build_prompt`, which may refuse them.

    A subclass with a `text` of its own asks something else of each example (a proxy task). Two questions are equal if
    their classes, labels and styles are.

    >>> Question(["reading", "phoning"], style="answer") == Question(("reading", "phoning"), "answer")
    True
    """

    labels: Sequence[str] | None  # a tuple, once checked
    style: str = "think"

    def __post_init__(self) -> None:
        if self.labels is not None:
            check_labels(self.labels)
            object.__setattr__(self, "labels", tuple(self.labels))
        build_prompt(self.labels, self.style)  # an unknown style is refused here, not at the first image

    @classmethod
    def of(cls, labels: Sequence[str], open_vocabulary: bool = False, style: str = "think") -> Question:
        """The question of a run: its labels are named in the prompt unless the vocabulary is open."""
        check_labels(labels)
        return cls(None if open_vocabulary else labels, style)

    def text(self, example: Example) -> str:
        """The user's turn, after the image, for one example."""
        return build_prompt(self.labels, self.style)
