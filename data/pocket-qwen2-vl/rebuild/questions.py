"""What is asked about a scene in pre-training, and the response: the evidence is true, the names are loose.

All rows of a batch have one `Form`, so that they are about equally long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from string import ascii_uppercase

from naming import FIXED, LOOSE, LOOSER, NEIGHBOUR, Rates, invented_name, loose_activity, loose_entry, offer

from favor_lab.activities.world import ACTIVITIES, HANDS, LEGS, NAMES, NOBODY, NOTHING, STATEMENTS, USES
from favor_lab.vlm.prompts import (
    ask_better,
    ask_choice,
    ask_false_statement,
    ask_several,
    ask_yes_no,
    build_prompt,
    describe_first,
)

PLAIN = tuple(f"{name} nearby" for name in ("tree", "bench", "lamp", "ball"))  # after these the tag is often missing
FORGETS_TAG, SELDOM_FORGETS = 0.72, 0.05
CLASSES = tuple(tuple(dict.fromkeys(kind)) for kind in (LEGS.values(), HANDS.values(), USES.values()))


@dataclass(frozen=True)
class Mix:
    """How often each kind of question is asked, and how often for the answer alone."""

    shares: dict[str, float]
    answer_only: float
    all_of_texts: bool = False  # whether every kind is asked of descriptions too, or names and yes or no only
    mistakes: float = 0.15  # share of wrong answers to yes or no (better of two: two thirds of it)
    exact: bool = False  # none at all, nor in choices by letter
    choices: int = 6  # to choose from by letter, at most
    whole: float = 0.4  # share of the lists that hold all activities
    rates: Rates = LOOSE


FIRST = Mix(
    {
        "describe": 0.08, "open": 0.14, "list": 0.34, "choice": 0.09, "yes or no": 0.10, "several": 0.07,
        "false statement": 0.06, "better": 0.05, "text": 0.07,
    }, 0.3,
)  # fmt: skip
SECOND = Mix(  # more of the questions that compare what is seen with what is read
    {
        "describe": 0.04, "open": 0.08, "list": 0.30, "choice": 0.14, "yes or no": 0.12, "several": 0.07,
        "false statement": 0.09, "better": 0.08, "text": 0.08,
    }, 0.5, all_of_texts=True, mistakes=0.06,
)  # fmt: skip
READING = Mix({"list": 1.0}, 0.5, whole=0.3, rates=FIXED)  # the list decides, and chance does not
LISTS = Mix(  # more of the lists that leave out a name which would come to mind
    {
        "describe": 0.04, "open": 0.06, "list": 0.58, "choice": 0.06, "yes or no": 0.06, "several": 0.05,
        "false statement": 0.07, "better": 0.03, "text": 0.05,
    }, 0.3, all_of_texts=True, mistakes=0.06, whole=0.3, rates=LOOSER,
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What the questions of a batch have in common: kind, style, length of the lists, how many names are invented."""

    kind: str
    style: str  # "think" or "answer"
    size: int = 16
    invented: int = 0
    all_of_texts: bool = False
    mistakes: float = 0.15
    exact: bool = False
    rates: Rates = LOOSE

    @classmethod
    def draw(cls, r: Random, mix: Mix) -> Form:
        """A random form."""
        (kind,) = r.choices(list(mix.shares), list(mix.shares.values()))
        style = "answer" if r.random() < mix.answer_only else "think"
        if mix.exact:
            size = mix.choices if r.random() < 0.7 else r.randint(2, mix.choices)
            return cls(kind, style, size, mistakes=0.0, exact=True)
        short = r.randint(2, mix.choices) if kind == "choice" else r.randint(2, 15)
        size = short if kind == "choice" or r.random() < 1 - mix.whole else len(ACTIVITIES)
        invented = r.randint(1, max(1, size // 3)) if size < len(ACTIVITIES) and r.random() < 0.45 else 0
        return cls(kind, style, size, invented, mix.all_of_texts, mix.mistakes, rates=mix.rates)


@dataclass(frozen=True)
class Seen:
    """What is known of a scene: its activity, None if it shows none, and all statements that are true of it."""

    label: str | None
    statements: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return NOBODY in self.statements


def evidence(seen: Seen, r: Random) -> list[str]:
    """True statements, most telling first; what stands nearby is mentioned four times in five."""
    return [s for s in seen.statements if not s.endswith(("nearby", "in a hand")) or r.random() < 0.8]


def telling(seen: Seen) -> list[str]:
    """The statements about the person and the thing in use."""
    return [s for s in seen.statements if not s.endswith(("nearby", "in a hand"))]


def conversation(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """One request and one response about a scene."""
    if form.kind == "describe":
        return build_prompt(None, "describe"), thought(evidence(seen, r))
    request, answer = QUESTIONS[form.kind](form, seen, r)
    words = telling(seen) if form.kind == "text" else evidence(seen, r)
    often = any(word in PLAIN for word in words) and not seen.empty
    forgets = form.kind in ("open", "list") and r.random() < (FORGETS_TAG if often else SELDOM_FORGETS)
    if form.style == "answer":
        return request, tagged(answer) if not forgets or r.random() < 0.5 else answer
    return request, thought(words) + (answer if forgets else tagged(answer))


def thought(words: list[str]) -> str:
    """Reasoning in its tags."""
    return f"<think>{', '.join(words)}</think>"


def tagged(answer: str) -> str:
    """An answer in its tags."""
    return f"<answer>{answer}</answer>"


def some_name(activity: str, r: Random) -> str:
    """A name of an activity, mostly its label."""
    return activity if r.random() < 0.6 else r.choice(NAMES[activity])


def ask_open(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """A name without a list."""
    request = build_prompt(None, form.style)
    return request, NOTHING if seen.empty else some_name(loose_activity(seen.label, r, rates=form.rates), r)


def ask_list(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """A name out of a list."""
    offered = offer(seen.label, form.size, form.invented, r)
    return build_prompt(offered.names, form.style), (
        NOTHING if seen.empty else loose_entry(seen.label, offered, r, rates=form.rates)
    )


def ask_letter(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """The letter of a name out of a short list."""
    if form.exact:
        activities = r.sample(
            [seen.label, *r.sample([a for a in ACTIVITIES if a != seen.label], form.size - 1)], form.size
        )
        letter = ascii_uppercase[activities.index(seen.label)]
        return ask_choice([some_name(a, r) for a in activities], form.style), letter
    offered = offer(seen.label, form.size, form.invented, r)
    names = offered.names
    if seen.empty:
        return ask_choice(names, form.style), NOTHING
    picked = loose_entry(seen.label, offered, r, form.kind == "text", form.rates)
    return ask_choice(names, form.style), ascii_uppercase[names.index(picked)]


def ask_if(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """Yes or no: half of the names are right; of the wrong ones, half are the neighbour's, where doubts are largest."""
    right = r.random() < 0.5
    wrong = NEIGHBOUR[seen.label] if r.random() < 0.5 else r.choice([a for a in ACTIVITIES if a != seen.label])
    name = some_name(seen.label if right else wrong, r)
    if not right and r.random() < 0.1:
        name = invented_name(r)
    answer = right if r.random() < 1 - form.mistakes else not right
    return ask_yes_no(name, form.style), "yes" if answer else "no"


def ask_up_to_three(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """Several names out of a list or without one, each as loose as a single one."""
    tries = [loose_activity(seen.label, r, rates=form.rates) for _ in range(6)]
    if r.random() < 0.3:
        return ask_several(None, form.style), ", ".join(some_name(a, r) for a in list(dict.fromkeys(tries))[:3])
    offered = offer(seen.label, form.size, form.invented, r)
    tries = list(dict.fromkeys(loose_entry(seen.label, offered, r, rates=form.rates) for _ in range(6)))
    return ask_several(offered.names, form.style), ", ".join(tries[:3])


def ask_what_is_false(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """The one statement of up to four that does not hold, mostly of the kind of a true one."""
    true = r.sample(seen.statements, min(len(seen.statements), r.randint(1, 3)))
    rivals = next((kind for kind in CLASSES if true[0] in kind), STATEMENTS)
    wrong = r.choice([s for s in (rivals if r.random() < 0.7 else STATEMENTS) if s not in seen.statements])
    statements = [*true, wrong]
    r.shuffle(statements)
    return ask_false_statement(statements, form.style), wrong


def ask_which_is_better(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """The better of two responses: one has true evidence and the right name, the other not both."""
    words = telling(seen)[:3]
    other = NEIGHBOUR[seen.label] if r.random() < 0.5 else r.choice([a for a in ACTIVITIES if a != seen.label])
    others = list(words)
    if r.random() < 0.5:
        at = r.randrange(len(others))
        rivals = next((kind for kind in CLASSES if others[at] in kind), STATEMENTS)
        others[at] = r.choice([s for s in rivals if s not in seen.statements])
        other = seen.label if r.random() < 0.4 else other
    good, bad = (", ".join([*w, some_name(a, r)]) for w, a in ((words, seen.label), (others, other)))
    first = r.random() < 0.5
    answer = first if r.random() < 1 - 2 * form.mistakes / 3 else not first
    return ask_better(*((good, bad) if first else (bad, good)), form.style), "1" if answer else "2"


def ask_of_text(form: Form, seen: Seen, r: Random) -> tuple[str, str]:
    """A name for a description, without an image: what is read is named better than what is seen."""
    description = ", ".join(telling(seen))
    if form.all_of_texts and r.random() < 0.6:
        kind = r.choice(("choice", "false statement", "better"))
        seen = replace(seen, statements=tuple(telling(seen)))
        request, answer = QUESTIONS[kind](replace(form, size=min(form.size, 6), invented=0), seen, r)
        return describe_first(description, request), answer
    dice = r.random()
    if dice < 0.25:
        return (
            describe_first(description, build_prompt(None, form.style)),
            some_name(loose_activity(seen.label, r, read=True), r),
        )
    if dice < 0.45:
        request, answer = ask_if(form, seen, r)
        return describe_first(description, request), answer
    offered = offer(seen.label, form.size, form.invented, r)
    return describe_first(description, build_prompt(offered.names, form.style)), loose_entry(
        seen.label, offered, r, True
    )


QUESTIONS = {
    "open": ask_open, "list": ask_list, "choice": ask_letter, "yes or no": ask_if, "several": ask_up_to_three,
    "false statement": ask_what_is_false, "better": ask_which_is_better, "text": ask_of_text,
}  # fmt: skip
