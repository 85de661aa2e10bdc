"""Labels: when an answer is a label, which two labels are one, and which cannot be used.

`normalise_label` is the only place that says in what an answer may differ from its label and still be right. Two labels
that differ in nothing else could not be told apart by the rewards, so every list of labels is checked for that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LONGEST = 1000  # characters of an answer: NFKC normalisation sorts combining marks in quadratic time

# What shows nothing (Unicode's property Default_Ignorable_Code_Point): soft hyphens, joiners, fillers, zero-width
# spaces, marks that turn the direction of writing, variation selectors, tags.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# What a keyboard has -> what typesetting, and keyboards for other languages, have in its place.
TYPED = {
    "'": "\u2018\u2019\u201a\u201b\u2032\u02b9\u02bb\u02bc\u00b4\u1ffd\u055a\u05f3",
    '"': "\u201c\u201d\u201e\u201f\u05f4",
    "/": "\u2044\u2215",
    " ": "\u2800\U0001d159",  # blank signs: of braille and of music
    "": "\u0640",  # the stroke that lengthens an Arabic word
}
SAME = str.maketrans(
    {sign: typed for typed, signs in TYPED.items() for sign in signs}
    # NFKC would make x2 of x with a raised 2, and 11/2 of 1 and a half
    | {sign: f"^{digit}" for digit, sign in enumerate("\u2070\xb9\xb2\xb3\u2074\u2075\u2076\u2077\u2078\u2079")}
    | {fraction: f" {fraction}" for fraction in map(chr, (*range(0xBC, 0xBF), *range(0x2150, 0x215F)))}
)
DASHES = re.compile("[\u058a\u05be\u1400\u1806\u2010-\u2015\u2043\u2212\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u30a0]")
# Hyphens that are no sign. They stand between words; those of "-5" and "A-" stand before a number and after a letter.
JOINING = re.compile(r"(?<=[^\s-])-++(?=\S)|(?<!\S)-++(?![.,]?\d)|(?<![\w-])-++(?!\S)")
# What ends a sentence: full stops, and further signs of scripts in which they stand at the end of nothing else.
CLOSING = (
    " .\u00a0\u202f\u3000\u2026\u3002\uff61\uff0e\ufe52\ufe12\uff01\uff1f\ufe15\ufe16\ufe56\ufe57\u0589\u061f\u06d4"
    "\u0700\u0701\u0702\u0964\u0965\u0df4\u0f0d\u0f0e\u104a\u104b\u1362\u1367\u1368\u166e\u17d4\u17d5\u1803\u1809"
    "\u1c7e\u1c7f\ua4ff\ua60e\ua60f\ua6f3\ua9c8\ua9c9\uaaf0\uabeb\U000110c0\U000110c1\U00011141\U00011142"
)


def normalise_label(text: str) -> str:
    """A label as it is compared: without case, underscores, hyphens between words, surplus space, full stops at the end
    and what cannot be seen; in plain letters, quotes and dashes. What has a meaning stays: accents, vowel signs, "C++",
    "-5", "A-".

    >>> normalise_label(" Riding_a-Bike. "), normalise_label("ＳＴＲＡẞＥ。"), normalise_label("don’t -5")
    ('riding a bike', 'strasse', "don't -5")

    Raises ValueError for a number in place of a name.
    """
    if not isinstance(text, str):
        how = "features['label'].int2str(number) of a ClassLabel column gives it" if hasattr(text, "__int__") else ""
        raise ValueError(f"a label must be a name, not {text!r}{how and f': {how}'}")
    text = INVISIBLE.sub("", text).strip().rstrip(CLOSING)
    for _ in range(2):  # a capital may fold to a letter and a mark, and a folded letter be typeset
        text = unicodedata.normalize("NFKC", text.translate(SAME).casefold()).replace("i\u0307", "i")
    text = DASHES.sub("-", text.replace("_", " "))
    return " ".join(JOINING.sub(" ", text).split()).rstrip(CLOSING)


def is_blank(text: str) -> bool:
    """Whether nothing in a text can be seen: spaces, line breaks, control characters, `INVISIBLE` ones, marks that
    stand on no letter.

    >>> is_blank(" \\n\\u200b\\u3164"), is_blank(".")
    (True, False)
    """
    seen = INVISIBLE.sub("", text).translate(SAME)
    return not any(sign.isprintable() and sign != " " and unicodedata.category(sign)[0] != "M" for sign in seen)


def label_faults(names: dict[str, str]) -> dict[str, str]:
    """The data's own name -> what is wrong with its label: it is empty, no prompt or answer may have it, or the rewards
    could not tell it from the label of another name. `names` maps each own name to its label.

    >>> label_faults({"a_b": "a b", "A-b": "A-b", "__": ""})
    {'A-b': "reads as one label with 'a_b'; rename or merge them", '__': 'has neither a letter nor a digit; rename it'}
    """
    first: dict[str, str] = {}
    faults = {}
    for name, label in names.items():
        twin = first.setdefault(normalise_label(label), name)
        if not normalise_label(label):
            faults[name] = "has neither a letter nor a digit; rename it"
        elif not {"<", ">"}.isdisjoint(label):
            faults[name] = "contains '<' or '>', which are the signs of tags in the prompt; rename it"
        elif len(label.splitlines()) > 1 or len(label) > LONGEST:
            faults[name] = f"is longer than one line of {LONGEST} characters; rename it"
        elif twin != name:
            look_alike = unicodedata.normalize("NFKC", name) == unicodedata.normalize("NFKC", twin)
            signs = f" (they are {ascii(name)} and {ascii(twin)})" if look_alike else ""
            faults[name] = f"reads as one label with {twin!r}{signs}; rename or merge them"
    return faults


def check_labels(labels: Sequence[str], where: str = "") -> None:
    """ValueError, which begins with `where`, for labels that cannot be asked for: no list, an empty one, something else
    than names, and `label_faults`.

    >>> check_labels(["reading", "reading"])
    Traceback (most recent call last):
    ...
    ValueError: label 'reading' appears more than once
    """
    if isinstance(labels, str) or not labels:
        raise ValueError(f"{where}labels must be a non-empty list (or None for an open vocabulary), got {labels!r}")
    for i, label in enumerate(labels):
        if not normalise_label(label) or "<" in label or ">" in label:
            raise ValueError(f"{where}label {i} is {label!r}: it must not be empty nor contain '<' or '>'")
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise ValueError(f"{where}label {twice!r} appears more than once")
    for label, what in label_faults({label: label for label in labels}).items():
        raise ValueError(f"{where}label {label!r} {what}")


class StringForListError(TypeError, ValueError):
    """One string where a list is meant: a wrong type, which code that catches wrong values catches too."""


def refuse_string(what: str, value: object) -> None:
    """StringForListError, a TypeError, for one string where a list is meant: Python would take it letter by letter.

    >>> refuse_string("labels", "reading")
    Traceback (most recent call last):
    ...
    favor_lab.activities.labels.StringForListError: labels must be a list, not the string 'reading': write ['reading']
    """
    if isinstance(value, str):
        shown = repr(value if len(value) <= 60 else value[:57] + "...")
        raise StringForListError(f"{what} must be a list, not the string {shown}: write [{shown}]")
