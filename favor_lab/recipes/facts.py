"""What the reasoning says about a drawn scene, counted: for the recipes that pay for facts of the image.

A scene of the drawn world knows every statement that is true of it. Other images have no known facts and are refused: a
reward that silently gave them nothing would look like a policy that says nothing true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from favor_lab.activities.labels import refuse_string
from favor_lab.activities.world import is_pocket_source, scene_from_source
from favor_lab.activities.world.catalogue import HAND_POSITIONS, IN_A_HAND, LEGS, USES
from favor_lab.arguments import check_number
from favor_lab.grpo.rewards import Completion, completion_texts
from favor_lab.responses import judge_reasoning

if TYPE_CHECKING:
    from favor_lab.vlm.question import Question

#: statement -> what of the person it is about; statements about things nearby have no slot
SLOT_OF = (
    dict.fromkeys(LEGS.values(), "posture")
    | dict.fromkeys(HAND_POSITIONS, "hands")
    | dict.fromkeys([*USES.values(), *IN_A_HAND.values()], "thing")
)
SLOTS = ("posture", "hands", "thing")


@dataclass(frozen=True)
class Facts:
    """The statements of one response's reasoning, each once, and those that are true of its scene.

    A statement outside the drawn world's language is as false as a wrong one: nothing in the scene makes it true.
    """

    true: tuple[str, ...]  # stated, and true of the scene
    false: tuple[str, ...]  # stated, and not true of it
    scene: tuple[str, ...]  # true of the scene, stated or not

    @property
    def precision(self) -> float:
        """Share of what is stated that is true; 0.0 where nothing is stated."""
        stated = len(self.true) + len(self.false)
        return len(self.true) / stated if stated else 0.0

    @property
    def recall(self) -> float:
        """Share of what is true that is stated."""
        return len(self.true) / len(self.scene)


def facts_of(completions: Sequence[Completion], source: Sequence[str], who: str) -> list[Facts]:
    """The facts of each completion; `who` asks for them. ValueError, naming who, for an image that is no drawn scene.

    >>> text = "<think>phone at the ear, dancing</think><answer>phoning</answer>"
    >>> facts = facts_of([text], ["cartoon/test/000006"], "doctest")[0]
    >>> facts.true, facts.false, facts.precision, "hand at the ear" in facts.scene
    (('phone at the ear',), ('dancing',), 0.5, True)
    >>> facts_of([text], ["photo.jpg"], "truth_reward")
    Traceback (most recent call last):
    ...
    ValueError: truth_reward knows the facts of drawn scenes only, not of photo.jpg: train on a drawn set, or choose a
    recipe that needs no facts
    """
    scenes = true_statements(source, who)
    facts = []
    for text, name, scene in zip(completion_texts(completions), source, scenes, strict=True):
        judged = judge_reasoning(text, name)
        true = tuple(statement.text for statement in judged if statement.verdict == "true")
        facts.append(Facts(true, tuple(s.text for s in judged if s.verdict != "true"), scene))
    return facts


def true_statements(source: Sequence[str], who: str) -> list[tuple[str, ...]]:
    """What is true of each drawn scene, most telling first. ValueError, naming who asks, for any other image.

    >>> true_statements(["cartoon/test/000006"], "doctest")[0][:2]
    ('sitting', 'hand at the ear')
    """
    refuse_string("source", source)
    for name in source:
        if not is_pocket_source(name):
            knows = f"{who} knows the facts of drawn scenes only, not of {name}"
            raise ValueError(f"{knows}: train on a drawn set, or choose a recipe that needs no facts")
    known = {name: scene_from_source(name).truth.statements for name in dict.fromkeys(source)}
    return [known[name] for name in source]


def priced_recall(facts: Facts, price: float = 0.0) -> float:
    """The share of the scene that is stated, less `price` for each false statement in units of one true one; at least
    -1. Without a price, naming everything that there is to say has the full score.

    >>> facts = Facts(true=("standing", "arms down"), false=("dog nearby",), scene=("standing", "arms down", "a", "b"))
    >>> priced_recall(facts), priced_recall(facts, price=1.0)
    (0.5, 0.25)
    """
    return max(-1.0, facts.recall - price * len(facts.false) / len(facts.scene))


def statement_scores(
    completions: Sequence[Completion], source: Sequence[str], price: float = 1.0, who: str = "statement_scores"
) -> list[float]:
    """`priced_recall` of each completion's reasoning, -1 to 1. ValueError for a negative price, and, naming who asks,
    for an image that is no drawn scene.

    At a price of 1, saying everything falls to -1 and saying nothing is 0; repeating changes nothing. It is open to
    statements that nearly always hold, and to reasoning that has no part in the answer.

    >>> texts = ["<think>hand at the ear", "<think>hand at the ear, standing", "<think>running, standing", ""]
    >>> statement_scores(texts, ["cartoon/test/000006"] * 4)
    [0.25, 0.0, -0.5, 0.0]
    """
    check_number("price", price)
    return [priced_recall(facts, price) for facts in facts_of(completions, source, who)]


def check_reasoning(question: Question, who: str) -> None:
    """ValueError, naming who asks, for a style without reasoning, in which no statement is made."""
    if question.style == "answer":
        raise ValueError(f"{who} pays for statements in the reasoning, and style='answer' asks for none: change it")
