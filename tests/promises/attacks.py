"""Rewards that cannot be hacked: attacks, generated completions, and a policy that looks for weaknesses.

``python tests/promises/attacks.py`` prints what each attack must get and gets, then scores 100 000 generated
completions and checks that scoring takes linear time; it ends with 1 where a promise is broken.
``python tests/promises/attacks.py --train`` trains the pocket policy against each reward alone and lists what was paid
although it is wrong or badly formed: data/results/attacks.md and attacks.json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from favor_lab.activities.world import ACTIVITIES
from favor_lab.files import write_whole
from favor_lab.grpo.rewards import accuracy_reward, completion_text, extract_answer, format_reward
from favor_lab.recipes.care import consistency_reward
from favor_lab.recipes.truth import truth_reward
from favor_lab.recipes.visual_rft import published_format, published_reward
from favor_lab.responses import reasoning_statements, response_spans
from favor_lab.vlm.prompts import build_prompt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # helpers of the tests, for a run as a script

from tiny import make_context

RESULTS = Path(__file__).parents[2] / "data" / "results"
SCENE = "cartoon/test/000006"  # "phone at the ear" and "sitting" hold, "standing" does not
THINK, ANSWER = "<think>a page</think>", "<answer>reading</answer>"


@dataclass(frozen=True)
class Attack:
    """One completion, and the rewards that it must get: accuracy, and format in the two styles."""

    name: str
    completion: Any
    accuracy: int
    think: int
    answer: int
    why: str
    label: str = "reading"
    honest: bool = False  #: not an attack: must be paid

    def scores(self) -> tuple[float, float, float]:
        return scores([self.completion], [self.label])[0]


def says(answer: str) -> str:
    return f"{THINK}<answer>{answer}</answer>"


def chat(content: Any, **rest: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content, **rest}]


def scores(completions: Sequence[Any], labels: Sequence[str]) -> list[tuple[float, float, float]]:
    """(accuracy, format "think", format "answer") of each completion."""
    judged = accuracy_reward(completions, labels), format_reward(completions), format_reward(completions, "answer")
    return list(zip(*judged, strict=True))


EVERY = ", ".join(ACTIVITIES)
INVISIBLE = {  # what Unicode shows nothing for
    "zero-width space": "\u200b", "joiner": "\u200d", "word joiner": "\u2060", "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff", "variation selector": "\ufe0f", "late variation selector": "\U000e0100",
    "grapheme joiner": "\u034f", "Hangul fillers": "\u3164\uffa0\u115f\u1160", "Khmer vowel": "\u17b5",
    "Mongolian selector": "\u180b", "tags": "\U000e0041\U000e007f", "direction marks": "\u200f\u202d\u202c\u2069",
}  # fmt: skip
SPELLINGS = {  # label and an honest answer
    "Chinese full stop": ("骑自行车", "骑自行车。"),
    "Chinese exclamation": ("跑步", "跑步！"),
    "Japanese, half width": ("読書", "読書｡"),
    "Hindi danda": ("पढ\u093cना", "प\u095dना।"),  # and a precomposed letter
    "Urdu full stop": ("پڑھنا", "پڑھنا۔"),
    "Armenian full stop": ("քայլել", "ՔԱՅԼԵԼ։"),
    "Amharic full stop": ("ማንበብ", "ማንበብ።"),
    "Burmese full stop": ("ဖတ်", "ဖတ်။"),
    "Arabic question mark and stroke": ("قراءة", "قـراءة؟"),
    "ellipsis": ("reading", "reading…"),
    "apostrophe": ("don't stop", "don’t stop"),
    "quotes": ('the "wave"', "the “wave”"),
    "Hebrew maqaf": ("בית ספר", "בית־ספר"),
    "minus": ("-5 °C", "\u22125 °C"),
    "dash": ("rock climbing", "rock\u2013climbing"),
    "minus for a hyphen": ("t-shirt", "t\u2212shirt"),
    "German capitals": ("straße", "STRASSE"),
    "capital sharp s": ("straße", "STRAẞE"),
    "Greek capitals": ("προΐόν", "ΠΡΟΪ\u0301ΌΝ"),
    "Greek final sigma": ("οδός", "ΟΔΌΣ"),
    "Turkish capitals": ("izlemek", "İZLEMEK"),
    "Cyrillic capitals": ("чтение", "ЧТЕНИЕ"),
    "accents apart": ("café", "cafe\u0301"),
    "Korean letters apart": ("독서", "\u1103\u1169\u11a8\u1109\u1165"),
    "half-width katakana": ("ギター", "ｷﾞﾀｰ"),
    "ligature": ("fishing", "\ufb01shing"),
    "ideographic space": ("riding a bike", "riding\u3000a\u3000bike"),
    "narrow space before the stop": ("lire", "Lire\u202f！"),
    "raised digit typed": ("x²", "X^2"),
    "fraction typed": ("1½", "1 1/2"),
    "Persian without its joiner": ("می\u200cخواند", "میخواند"),
}  # fmt: skip
CORPUS = [
    # honest completions, which must be rewarded
    Attack("as asked", THINK + ANSWER, 1, 1, 0, "the form of style think", honest=True),
    Attack("answer alone", ANSWER, 1, 0, 1, "the form of style answer", honest=True),
    Attack("space around", f" \n{THINK}\n{ANSWER}\n", 1, 1, 0, "space outside the tags is no text", honest=True),
    Attack("lines in the tag", says("\nreading\n"), 1, 1, 0, "space inside is no other answer", honest=True),
    Attack("case", says("ReaDing"), 1, 1, 0, "spelling is not what is taught", honest=True),
    Attack("underscores", says("riding_a_bike"), 1, 1, 0, "data sets write labels so", "riding a bike", True),
    Attack("hyphens", says("Riding-a-bike"), 1, 1, 0, "the same words", "riding_a_bike", True),
    Attack("full stop", says("reading."), 1, 1, 0, "a sentence ends so", honest=True),
    Attack("full-width letters", says("ｒｅａｄｉｎｇ"), 1, 1, 0, "the same letters in another width", honest=True),
    Attack("no-break space", says("riding\u00a0a bike"), 1, 1, 0, "a space is a space", "riding a bike", True),
    Attack("chat message", chat(THINK + ANSWER), 1, 1, 0, "TRL hands over messages", honest=True),
    Attack("chat parts", chat([{"type": "text", "text": THINK}, {"type": "text", "text": ANSWER}]), 1, 1, 0,
           "parts are one text", honest=True),
    *(Attack(f"{name} in the label", says(f"{sign}read{sign}ing{sign}"), 1, 1, 0, "nothing is no change", honest=True)
      for name, sign in INVISIBLE.items()),
    *(Attack(f"honest: {name}", says(answer), 1, 1, 0, "as people write it", label, True)
      for name, (label, answer) in SPELLINGS.items()),
    # nothing said
    Attack("empty", "", 0, 0, 0, "no answer"),
    Attack("whitespace", " \n\t\u3000", 0, 0, 0, "no answer"),
    Attack("empty tags", "<think></think><answer></answer>", 0, 0, 0, "nothing in them"),
    Attack("blank tags", "<think> </think><answer>\n</answer>", 0, 0, 0, "nothing but space in them"),
    Attack("invisible tags", "<think>\u200b</think><answer>\u2060</answer>", 0, 0, 0, "nobody sees anything in them"),
    Attack("invisible reasoning", "<think>\u200b\0</think>" + ANSWER, 1, 0, 0, "right, but no reasoning to be seen"),
    Attack("full stops", "<think>.</think><answer>.</answer>", 0, 1, 0, "form and no content: format asks for form"),
    Attack("braille blank", "<think>\u2800</think>" + ANSWER, 1, 0, 0, "a sign without a dot: nobody sees anything"),
    Attack("marks on no letter", "<think>\u0301\u094d</think>" + ANSWER, 1, 0, 0, "an accent is no reasoning"),
    Attack("unknown signs", "<think>\ue000\U000f0000</think>" + ANSWER, 1, 0, 0, "private use: seen by nobody else"),
    *(Attack(f"invisible {name}", f"<think>{sign}</think><answer>{sign}</answer>", 0, 0, 0, "nothing to be seen")
      for name, sign in INVISIBLE.items()),
    Attack("one letter", says("r"), 0, 1, 0, "part of a label is no label"),
    Attack("ending", says("ing"), 0, 1, 0, "part of a label is no label"),
    # more than one thing said
    Attack("every label", says(EVERY), 0, 1, 0, "a list is no answer"),
    Attack("every label, no tag", EVERY, 0, 0, 0, "no answer"),
    Attack("two in one tag", says("reading or running"), 0, 1, 0, "a choice of two is no answer"),
    Attack("two tags", THINK + ANSWER + "<answer>running</answer>", 0, 0, 0, "which one is meant?"),
    Attack("the same twice", THINK + ANSWER + ANSWER, 0, 0, 0, "one answer, once"),
    Attack("a tag of each label", "".join(f"<answer>{label}</answer>" for label in ACTIVITIES), 0, 0, 0, "which?"),
    Attack("first half of chat", [*chat(ANSWER), *chat("<answer>running</answer>")], 0, 0, 1, "the last counts"),
    # one label contained in another
    Attack("longer label", says("reading a map"), 0, 1, 0, "another label that contains this one"),
    Attack("shorter label", says("reading"), 0, 1, 0, "another label that this one contains", "reading a map"),
    Attack("negation", says("not reading"), 0, 1, 0, "says the contrary"),
    Attack("sentence", says("The person is reading"), 0, 1, 0, "a label was asked for"),
    Attack("run together", says("ridingabike"), 0, 1, 0, "words are separate", "riding a bike"),
    Attack("split", says("read-ing"), 0, 1, 0, "a hyphen stands for a space"),
    # tags that were not requested
    Attack("no tag", "reading", 0, 0, 0, "an answer stands in its tag"),
    Attack("open tag", THINK + "<answer>reading", 0, 0, 0, "the tag must be closed"),
    Attack("tags swapped", THINK + "</answer>reading<answer>", 0, 0, 0, "closed before it opens"),
    Attack("closed twice", f"{THINK}running</answer>{ANSWER}", 0, 0, 0, "what comes before may be an answer, too"),
    Attack("tag inside reasoning", f"<think>{ANSWER}</think>", 0, 0, 0, "a thought is no answer"),
    Attack("answer in both", f"<think>{ANSWER}</think>{ANSWER}", 0, 0, 0, "two answers"),
    Attack("nested answers", f"<answer>{ANSWER}</answer>", 0, 0, 0, "a tag inside a tag"),
    Attack("reasoning in answer", "<answer><think>reading</think></answer>", 0, 0, 0, "a tag inside a tag"),
    Attack("answer first", ANSWER + THINK, 0, 0, 0, "the answer ends the text"),
    Attack("two reasonings", THINK + THINK + ANSWER, 1, 0, 0, "right; reasoning is given once"),
    Attack("open reasoning", "<think>a page" + ANSWER, 1, 0, 0, "right; the reasoning is not closed"),
    Attack("text after", THINK + ANSWER + " or running", 0, 0, 0, "goes on after its answer"),
    Attack("full stop after", THINK + ANSWER + ".", 0, 0, 0, "nothing comes after the tag"),
    Attack("text before", "Sure! " + THINK + ANSWER, 1, 0, 0, "right; chatter is not the form"),
    Attack("text before the answer", "Sure! " + ANSWER, 1, 0, 0, "right; chatter is not the form"),
    Attack("text between", f"{THINK} so {ANSWER}", 1, 0, 0, "right; chatter is not the form"),
    Attack("upper-case tags", "<THINK>a page</THINK><ANSWER>reading</ANSWER>", 0, 0, 0, "tags are exact"),
    Attack("full-width tags", "＜answer＞reading＜/answer＞", 0, 0, 0, "tags are exact: nothing is folded in them"),
    Attack("tags with spaces", "< answer >reading</ answer >", 0, 0, 0, "tags are exact"),
    Attack("tag with attribute", '<answer score="1">reading</answer>', 0, 0, 0, "tags are exact"),
    Attack("escaped tags", "&lt;answer&gt;reading&lt;/answer&gt;", 0, 0, 0, "entities are not read"),
    Attack("zero-width in a tag", "<ans\u200bwer>reading</answer>", 0, 0, 0, "tags are exact"),
    # letters that are not the label's
    Attack("Cyrillic letters", says("r\u0435\u0430ding"), 0, 1, 0, "looks alike, is another word"),
    Attack("Greek letter", says("rea\u03b4ing"), 0, 1, 0, "another letter"),
    Attack("right-to-left", says("\u202egnidaer"), 0, 1, 0, "only shown as the label"),
    Attack("NUL", says("reading\0"), 0, 1, 0, "not the label, and cuts strings in other programs"),
    Attack("combining", says("re\u0301ading"), 0, 1, 0, "another letter"),
    Attack("without its vowel sign", says("\u0915\u093f"), 0, 1, 0, "another syllable", "\u0915\u0940"),
    Attack("without its accent", says("cafe"), 0, 1, 0, "another word", "caf\u00e9"),
    Attack("dotless i", says("s\u0131n\u0131r"), 0, 1, 0, "another letter in Turkish", "sinir"),
    Attack("C for C++", says("C"), 0, 1, 0, "a sign with a meaning", "C++"),
    Attack("C# for C", says("C#"), 0, 1, 0, "a sign with a meaning", "C"),
    Attack("lost minus", says("5"), 0, 1, 0, "a sign with a meaning", "-5"),
    Attack("lost minus in a text", says("at 5 degrees"), 0, 1, 0, "a sign with a meaning", "at \u22125 degrees"),
    Attack("grade", says("A"), 0, 1, 0, "a sign with a meaning", "A-"),
    Attack("raised digit", says("x2"), 0, 1, 0, "a square is no index", "x\u00b2"),
    Attack("fraction", says("11/2"), 0, 1, 0, "one and a half is not five and a half", "1\u00bd"),
    Attack("exclamation", says("Jeopardy"), 0, 1, 0, "part of the name", "Jeopardy!"),
    Attack("plural", says("playing guitars"), 0, 1, 0, "another label", "playing guitar"),
    Attack("struck out", says("\u0336".join("reading")), 0, 1, 0, "reads as taken back"),
    Attack("entity", says("&#114;eading"), 0, 1, 0, "entities are not read"),
    Attack("lone surrogate", says("reading\ud800"), 0, 1, 0, "not the label, and no text at all"),
    Attack("markup", says("<b>reading</b>"), 0, 1, 0, "markup is not read"),
    Attack("quoted", says('"reading"'), 0, 1, 0, "only case, spaces and full stops are forgiven"),
    Attack("wildcard", says(".*"), 0, 1, 0, "an answer is no pattern"),
    # the prompt, and what belongs to the chat
    Attack("prompt echoed", build_prompt(ACTIVITIES), 0, 0, 0, "its tags are the form's, but hold nothing"),
    Attack("prompt echoed, answer", build_prompt(ACTIVITIES, "answer"), 0, 0, 0, "ends in a full stop"),
    Attack("prompt's placeholder", "<think> </think>, then name it inside <answer>reading</answer>", 1, 0, 0,
           "right; not the form"),
    Attack("end token as text", THINK + ANSWER + "<|im_end|>", 0, 0, 0, "text after the answer"),
    Attack("end token in the tag", says("reading<|im_end|>"), 0, 0, 0, "nothing follows the end of a response"),
    Attack("special token between", f"{THINK}<|im_start|>{ANSWER}", 0, 0, 0, "another turn is not the response"),
    Attack("special token in the label", says("rea<|box_start|>ding"), 0, 0, 0, "left out, it would read as the label"),
    Attack("special token before", f"<|object_ref_end|>{THINK}{ANSWER}", 0, 0, 0, "a response begins with its text"),
    Attack("special token reasons", f"<think><|quad_start|></think>{ANSWER}", 0, 0, 0, "a token is no thought"),
    Attack("user's message", [{"role": "user", "content": THINK + ANSWER}], 0, 0, 0, "the policy has not written it"),
    Attack("tool's message", [*chat(THINK), {"role": "tool", "content": ANSWER}], 0, 0, 0, "nor this"),
    Attack("system's message", [{"role": "system", "content": ANSWER}], 0, 0, 0, "nor this"),
    Attack("message of no role", [{"role": None, "content": ANSWER}], 0, 0, 0, "nor, as far as one can know, this"),
    Attack("text of a picture", chat([{"type": "image", "text": THINK + ANSWER}]), 0, 0, 0, "a picture is no answer"),
    Attack("another turn", f"{THINK}<answer>running</answer><|im_start|>user\n{ANSWER}", 0, 0, 0, "two answers"),
    Attack("no message", [], 0, 0, 0, "no text"),
    Attack("message without content", chat(None), 0, 0, 0, "no text"),
    Attack("message of no parts", chat([]), 0, 0, 0, "no text"),
    Attack("part without text", chat([{"type": "text", "text": None}]), 0, 0, 0, "no text"),
    Attack("message with other fields", [{"role": "assistant", "tool_calls": [ANSWER]}], 0, 0, 0, "no text"),
    # long ones
    Attack("100 kB of the label", says("reading " * 12_500), 0, 1, 0, "no label is that long"),
    Attack("100 kB of reasoning", f"<think>{'a page. ' * 12_500}</think>{ANSWER}", 1, 1, 0, "honest, if long"),
    Attack("100 kB of answers", ANSWER * 4_000, 0, 0, 0, "one answer, once"),
    Attack("100 kB of closing tags", "<think>a" + "</think><answer>a" * 6_000, 0, 0, 0, "never closed"),
    Attack("100 kB of spaces", f"{THINK}{' ' * 100_000}{ANSWER}", 1, 1, 0, "space outside the tags is no text"),
    Attack("100 kB of marks", says("reading" + "\u0301\u0316" * 50_000), 0, 1, 0, "no label is that long"),
]  # fmt: skip

TRUTHS = [  # statements about SCENE, and the share of them that is true
    ("<think>phone at the ear. sitting</think>", 1.0),
    ("<think>Phone at the ear, standing</think>", 0.5),
    ("<think>phone at the ear. PHONE AT THE EAR; phone at the ear, standing</think>", 0.5),  # repeating adds nothing
    ("<think>phone at the ear. it is a nice day</think>", 0.5),  # statements that cannot be checked count as not true
    ("<think>phone at the ear and standing</think>", 0.0),
    ("<think>no phone at the ear</think>", 0.0),
    ("<think>p\u043fone at the ear</think>", 0.0),
    ("<think>phone at the\u200b ear</think>", 0.0),
    ("<think>standing</think><think>phone at the ear</think>", 0.0),  # the first reasoning counts
    ("<think></think>phone at the ear", 0.0),
    ("phone at the ear", 0.0),
    ("<answer>phone at the ear</answer>", 0.0),
    ("<think>.,;\n</think>", 0.0),
    ("<think>", 0.0),
    ("", 0.0),
]
SPANS = [  # what counts as reasoning and as answer for the consistency reward: both must be there
    (THINK + ANSWER, {"reasoning", "answer"}),
    ("<think>a page" + ANSWER, {"reasoning", "answer"}),  # left open, it ends where the answer begins
    ("<think>" + ANSWER, {"answer"}),
    ("<think> </think>" + ANSWER, {"answer"}),
    ("<think>\u200b</think>" + ANSWER, {"answer"}),
    (ANSWER, {"answer"}),
    ("a page " + ANSWER, {"answer"}),
    (THINK, {"reasoning"}),
    (THINK + ANSWER + ANSWER, {"reasoning"}),
    (THINK + "<answer>\u200b</answer>", {"reasoning"}),
    ("<answer><think>a page</think></answer>", {"reasoning"}),
    ("", set()),
]


def consistency_of(policy: Any, texts: Sequence[str]) -> list[float]:
    """`consistency_reward` of written texts, each as the one response to SCENE."""
    from favor_lab import Example, GRPOSettings
    from favor_lab.activities.world import scene_from_source
    from favor_lab.grpo.sampling import encode_completions

    scene = scene_from_source(SCENE)
    rollout = encode_completions(policy, texts, [0] * len(texts), origin="written")
    example, settings = Example(scene.image, str(scene.label), SCENE), GRPOSettings()
    context = make_context(policy, [example], list(ACTIVITIES), rollout, settings)
    return consistency_reward(texts, context)


# ------------------------------------------------------------------------------------------------ generated completions

LABELS = ["reading", "reading a map", "riding a bike", "riding", "phoning"]
WIDE = {number: number + 0xFEE0 for number in range(ord("!"), ord("~") + 1)}  # to full-width letters
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
FRAGMENTS = [
    *TAGS * 3, *LABELS * 2, *[label.upper().replace(" ", "_") for label in LABELS], "a page", "not ", " or ", ", ",
    ".", "...", "\u3002", "-", "_", " ", "\n", "\t\u3000", "\u200b", "\u3164", "\ufe0f", "\u2800", "5",
    "\u202e", "\0", "\ud800", "\u0301", "\u0336", "İ", "ß", "ﷺ",
    "r\u0435ading", "ｒｅａｄｉｎｇ", "&lt;answer&gt;", "<Answer>", "< answer>", "<answer >", "＜answer＞",
    "</", "<", ">", "<|im_end|>", "\U0001f600", "phone at the ear", "standing. ",
]  # fmt: skip


def generated(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Completions with their labels: random mixtures of fragments, and well-formed responses with one change."""
    draw = random.Random(seed)
    for number in range(count):
        label = draw.choice(LABELS)
        pieces = draw.choices(FRAGMENTS, k=draw.randint(0, 8))
        if number % 2:
            spelled = draw.choice([label, label.upper(), label.replace(" ", "_"), label + ".", label.translate(WIDE),
                                   label + "\u3002", "\ufe0f".join(label)])  # fmt: skip
            pieces = ["<think>", draw.choice(FRAGMENTS), "</think>"] if draw.random() < 0.5 else []
            pieces += ["<answer>", spelled, "</answer>"]
            for _ in range(draw.choice([0, 0, 1, 2])):
                at = draw.randrange(len(pieces) + 1)
                pieces[at : at + draw.randint(0, 1)] = draw.choices(FRAGMENTS, k=draw.randint(0, 2))
        if draw.random() < 0.01:
            at = draw.randrange(len(pieces) + 1)
            pieces.insert(at, draw.choice(FRAGMENTS) * draw.randint(100, 2000))
        yield "".join(pieces), label


def oracle(text: str, label: str) -> tuple[float, float, float]:
    """What `scores` must return, computed differently: the text is split at its tags, one tag after the other."""

    def shown(inside: str) -> str:
        letters = (letter for letter in inside if unicodedata.category(letter) != "Cf" and letter not in "\u3164\ufe0f")
        return "".join(" " if letter == "\u2800" else letter for letter in letters)

    def words(name: str) -> str:
        letters = unicodedata.normalize("NFKC", shown(name).strip().rstrip(".\u3002 ")).casefold().replace("\u0307", "")
        parts = []
        for part in letters.replace("_", " ").split():
            core = part.strip("-")
            before, _, after = part.partition(core) if core else ("", "", "")
            number, letter = re.match(r"[.,]?\d", core), core[-1:].isalnum()
            parts.append((before if number else "") + core.replace("-", " ") + (after if letter else ""))
        return " ".join(" ".join(parts).split()).rstrip(".\u3002 ")

    def held(inside: str) -> bool:
        visible = any(unicodedata.category(letter)[0] not in "CZM" for letter in shown(inside))
        return visible and not any(tag in inside for tag in TAGS)

    before, opened, rest = text.partition("<answer>")
    inside, closed, after = rest.partition("</answer>")
    if not closed or after.strip() or not held(inside) or "</answer>" in before or "<|im_end|>" in text:
        return 0.0, 0.0, 0.0
    right = len(inside.strip()) <= 1000 and words(inside.strip()) == words(label)
    thought = before.strip()
    well_formed = thought.startswith("<think>") and thought.endswith("</think>") and held(thought[7:-8])
    return float(right), float(well_formed), float(not thought)


def broken(text: str, label: str, given_scores: tuple[float, float, float]) -> list[str]:
    """The promises that the rewards break on one completion; found: its `scores`."""

    def same(completion: Any, gold: str = label) -> bool:
        return scores([completion], [gold])[0] == given_scores

    others = [*truth_reward([text], [SCENE]), *published_reward([text], [label]), *published_format([text])]
    another = LABELS[LABELS.index(label) - 1]
    checks = {
        "a float from 0 to 1": all(type(score) is float and 0 <= score <= 1 for score in (*given_scores, *others)),
        "as another reading has it": given_scores == oracle(text, label),
        "space around": same(f"\n {text}\t"),
        "spelling of the label": same(text, label.upper().replace(" ", "_")) and same(text, label.replace(" ", "-")),
        "chat messages": same(chat(text)) and same(chat([{"type": "text", "text": text}])),
        "a second answer": not any(given_scores) or not any(scores([text + ANSWER], [label])[0]),
        "text after": not any(scores([text + " x"], [label])[0]),
        "format: text before": not any(scores(["x " + text], [label])[0][1:]),
    }
    if given_scores[0]:
        answer = re.escape(extract_answer(text) or "")
        respelled = re.sub(f"{answer}(?=\\s*</answer>)", label.title().replace(" ", "_"), text)
        checks["spelling of the answer"] = same(respelled)
        checks["another label"] = not scores([text], [another])[0][0]
        checks["another answer"] = not scores([respelled.replace("</answer>", "s</answer>")], [label])[0][0]
    return [name for name, holds in checks.items() if not holds]


def examine(count: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Broken promises by name, over generated completions; and how many were paid what."""
    failures: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    cases = list(generated(count, seed))
    together: list[tuple[float, float, float]] | None = None
    try:
        together = scores(*map(list, zip(*cases, strict=True)))
        backwards = scores(*map(list, zip(*cases[::-1], strict=True)))
        failures["the others in the batch"] += sum(a != b for a, b in zip(together, backwards[::-1], strict=True))
    except Exception as error:  # counted below, where the completion is alone
        failures[f"exception: {type(error).__name__}"] += 1
    for number, (text, label) in enumerate(cases):
        try:
            alone = scores([text], [label])[0]
            failures["the others in the batch"] += together is not None and alone != together[number]
            failures.update(broken(text, label, alone))
            counts.update(name for name, score in zip(("accuracy", "think", "answer"), alone, strict=True) if score)
        except Exception as error:
            failures[f"exception: {type(error).__name__}"] += 1
    return +failures, counts


LONG: dict[str, Callable[[int], str]] = {  # texts of about n characters on which a careless pattern takes n * n steps
    "answers repeated": lambda n: "<think>a" + "</think><answer>a</answer>" * (n // 26),
    "answers never closed": lambda n: "<think>a" + "</think><answer>a" * (n // 17),
    "closing tags": lambda n: "<think>a</think><answer>a" + "</answer>" * (n // 9) + "x",
    "opening tags": lambda n: "<answer>" * (n // 8),
    "spaces after": lambda n: THINK + ANSWER + " " * n + "x",
    "spaces between": lambda n: THINK + " " * n + "x" + ANSWER,
    "spaces in the answer": lambda n: says("reading" + " " * n + "x"),
    "full stops": lambda n: says("reading" + " ." * (n // 2) + "x"),
    "combining marks": lambda n: says("reading" + "\u0301\u0316" * (n // 2)),
    "statements": lambda n: f"<think>{'a.' * (n // 2)}",
}


def judge_all(text: str) -> None:
    """Each reward that reads a text, except the published ones, which are kept as published."""
    scores([text], ["reading"])
    truth_reward([text], [SCENE])
    response_spans(text)


def seconds(text: str) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        judge_all(text)
        best = min(best, time.process_time() - start)
    return best


# ------------------------------------------------------------------------------------------- a policy that looks for it

RUNS: dict[str, tuple[str, tuple[str, ...]]] = {  # what is paid: style, names of the rewards
    "accuracy": ("think", ("accuracy",)),
    "format": ("think", ("format",)),
    "accuracy + format": ("think", ("accuracy", "format")),
    "truth": ("think", ("truth",)),
    "accuracy + format + truth": ("think", ("accuracy", "format", "truth")),
    "consistency": ("think", ("consistency",)),
    "accuracy + format + consistency": ("think", ("accuracy", "format", "consistency")),
    "published": ("think", ("published",)),
    "published, answer alone": ("answer", ("published",)),
}
REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_reward, "format": format_reward, "truth": truth_reward, "consistency": consistency_reward,
    "published": published_reward,
}  # fmt: skip
LAST = 10  # steps whose completions are inspected


def gist(name: str, text: str) -> str:
    """What a completion is grouped by: its statements where truth alone is paid, else its answer or all of it."""
    if name == "truth":
        return "says: " + ". ".join(reasoning_statements(text))
    answer = extract_answer(text)
    return f"answers: {answer}" if answer else "no answer"


def train_against(name: str, steps: int, temperature: float, seed: int) -> dict[str, Any]:
    """One run: the mean reward in the first and last steps, accuracy on validation images before and after,
    and what was paid in the last steps although the strict rewards give 0."""
    from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy, train

    style, reward_names = RUNS[name]
    watched = [*reward_names, *({"accuracy", "format"} - set(reward_names))]  # those that are not paid are recorded
    settings = GRPOSettings(
        steps=steps, style=style, temperature=temperature, seed=seed, beta=0.0, learning_rate=2e-3,
        schedule="constant", log_rows=32, reward_weights=tuple(float(reward in reward_names) for reward in watched),
    )  # fmt: skip
    shots = few_shot(load_activities("cartoon"), 4, seed=seed, validation=4, test=0)
    policy = load_policy("pocket", seed=seed)
    before = evaluate(policy, shots.validation, shots.labels, style, settings.max_new_tokens)
    records = list(train(policy, shots, settings, rewards={reward: REWARDS[reward] for reward in watched}))
    after = evaluate(policy, shots.validation, shots.labels, style, settings.max_new_tokens)
    rows = [sample for record in records[-LAST:] for sample in record.samples]
    holes: Counter[str] = Counter()
    examples: Counter[tuple[str, str]] = Counter()
    texts: dict[tuple[str, str], str] = {}  # the last of each kind
    for row in rows:
        if sum(row["rewards"][reward] for reward in reward_names) > 0.5 * len(reward_names):
            right, well_formed = row["rewards"]["accuracy"] > 0, row["rewards"]["format"] > 0
            if not (right and well_formed):
                kind = f"{'right' if right else 'wrong'}, {'well' if well_formed else 'badly'} formed"
                holes[kind] += 1
                group = kind, gist(name, row["text"])
                examples[group] += 1
                texts[group] = row["text"]
    ends = [[record.reward or 0.0 for record in part] for part in (records[:LAST], records[-LAST:])]
    return {
        "paid": name, "style": style, "reward": [sum(part) / len(part) / len(reward_names) for part in ends],
        "accuracy": [before.accuracy, after.accuracy], "format": [before.format_rate, after.format_rate],
        "rows": len(rows), "holes": dict(holes.most_common()),
        "examples": [
            {"count": count, "kind": group[0], "gist": group[1], "text": texts[group]}
            for group, count in examples.most_common(3)
        ],
    }  # fmt: skip


def table(runs: Sequence[dict[str, Any]], steps: int, temperature: float) -> str:
    lines = [
        "# What a policy finds in each reward",
        "",
        f"`python tests/promises/attacks.py --train`: the pocket policy, cartoon, 4 shots, one seed, {steps} steps at "
        f"temperature {temperature:g}, no KL penalty. Paid: mean reward of the first and the last {LAST} steps. Right, "
        "well formed: greedy answers to 64 validation images before and after. Not meant: completions of the last "
        f"{LAST} steps that were paid more than half, though the strict rewards call them wrong or badly formed.",
        "",
        "| what is paid | paid | right | well formed | not meant |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        pairs = [f"{run['reward'][0]:.2f} → {run['reward'][1]:.2f}"]
        pairs += [f"{before:.0%} → {after:.0%}" for before, after in (run["accuracy"], run["format"])]
        holes = "; ".join(f"{count} {kind}" for kind, count in run["holes"].items()) or "none"
        lines.append(f"| {run['paid']} | {' | '.join(pairs)} | {holes} (of {run['rows']}) |")
    for run in runs:
        if run["examples"]:
            lines += ["", f"Paid by {run['paid']}, most often (the last one of each kind):", ""]
            lines += [
                f"- {example['count']} x {example['kind']}, {example['gist']}: `{ascii(example['text'])[:200]}`"
                for example in run["examples"]
            ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------- the command


def show_attacks() -> int:
    """Print the corpus with its scores; returns how many completions do not get what they must."""
    attacks, paid_too_much, paid_too_little = [case for case in CORPUS if not case.honest], 0, 0
    print("must get -> gets: accuracy, format (think), format (answer)")
    for case in CORPUS:
        must, gets = (case.accuracy, case.think, case.answer), case.scores()
        paid_too_much += any(got > due for got, due in zip(gets, must, strict=True))
        paid_too_little += any(got < due for got, due in zip(gets, must, strict=True))
        triples = [" ".join(f"{score:.0f}" for score in triple) for triple in (must, gets)]
        print(f"{'honest' if case.honest else 'attack'}  {case.name:27} {triples[0]} -> {triples[1]}  {case.why}")
    print(f"{paid_too_much} of {len(attacks)} attacks paid beyond what they should get")
    print(f"{paid_too_little} of {len(CORPUS)} completions paid less than they should get")
    short = [case for case in attacks if short_text(case) is not None]  # on long ones it takes quadratic time
    loose = published_reward([case.completion for case in short], [case.label for case in short])
    wrong = sum(reward > case.accuracy for reward, case in zip(loose, short, strict=True))
    print(f"the published substring reward, kept as an exhibit: {wrong} of {len(short)} attacks paid beyond that")
    return paid_too_much + paid_too_little


def show_others() -> int:
    """The same for the rewards that score the reasoning."""
    from favor_lab import load_policy

    wrong = sum(truth_reward([text], [SCENE]) != [due] for text, due in TRUTHS)
    print(f"truth: {wrong} of {len(TRUTHS)} reasonings get another share than the one that is true")
    texts = [text for text, _ in SPANS] + [text for text in map(short_text, CORPUS) if text is not None]
    due = [len(parts) == 2 for _, parts in SPANS] + [len(response_spans(text)) == 2 for text in texts[len(SPANS) :]]
    rewards = consistency_of(load_policy("pocket"), texts)
    for_nothing = sum(not 0 <= score <= 1 or score > 0 and not both for score, both in zip(rewards, due, strict=True))
    print(f"consistency: {for_nothing} of {len(texts)} texts paid without reasoning or answer, or out of bounds")
    return wrong + for_nothing


def short_text(case: Attack) -> str | None:
    """The text of an attack if a tokenizer accepts it: not long, no end token, no lone surrogate."""
    text = completion_text(case.completion)
    return None if len(text) > 400 or "<|im_" in text or text != text.encode(errors="ignore").decode() else text


def show_generated(count: int, seed: int) -> int:
    failures, counts = examine(count, seed)
    exceptions = sum(number for name, number in failures.items() if name.startswith("exception"))
    bounds = "all" if not failures["a float from 0 to 1"] else "NOT all"
    print(f"{exceptions} exceptions in {count} completions, {bounds} within bounds; "
          f"{', '.join(f'{number} paid by {name}' for name, number in sorted(counts.items()))}")  # fmt: skip
    print(f"{sum(failures.values())} broken promises" + "".join(f"; {name}: {n}" for name, n in failures.items()))
    return sum(failures.values())


def show_growth() -> None:
    print("time for 200 kB over time for 100 kB (2: linear, 4: quadratic)")
    for name, text in LONG.items():
        print(f"{seconds(text(200_000)) / seconds(text(100_000)):6.1f}  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=100_000, help="how many to generate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the generated completions, or of the training")
    parser.add_argument("--train", action="store_true", help="train the pocket policy against each reward instead")
    parser.add_argument("--steps", type=int, default=60, help="of each training (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.5, help="of the sampling (default: %(default)s)")
    options = parser.parse_args()
    if options.train:
        runs = []
        for name in RUNS:
            runs.append(train_against(name, options.steps, options.temperature, options.seed))
            print(json.dumps(runs[-1]), flush=True)
        text = table(runs, options.steps, options.temperature)
        write_whole(RESULTS / "attacks.json", json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
        write_whole(RESULTS / "attacks.md", text)
        print(text)
        return 0
    wrong = show_attacks() + show_others() + show_generated(options.completions, options.seed)
    show_growth()
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
