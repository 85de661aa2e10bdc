"""Answers to the exercises of notebook 04, rewards: wrong ones that people really give, and right ones that are written
differently from the solutions."""

from planted import Wrong, changed

ACCURACY = """
from favor_lab import extract_answer, normalise_label

def my_accuracy(completions, label, **columns):
    if isinstance(completions, str):
        raise TypeError("a list is needed")
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    labels = [label] * len(texts) if isinstance(label, str) else list(label)
    if len(labels) != len(texts):
        raise ValueError("one label for each")
    if not all(normalise_label(gold) for gold in labels):
        raise ValueError("a label is empty")
    scores = []
    for text, gold in zip(texts, labels):
        answer = extract_answer(text)
        scores.append(float(answer is not None and normalise_label(answer) == normalise_label(gold)))
    return scores
"""
LENGTH = """
def length_penalty(completions, completion_ids, soft=20, hard=40, **columns):
    scores = []
    for ids in completion_ids:
        n = len(ids)
        scores.append(max(-1.0, min(0.0, (soft - n) / (hard - soft))))
    return scores
"""
HOLES = """
from favor_lab import accuracy_reward

def holes(reward, texts, labels):
    result = {}
    for text in texts:
        copies = [text] * len(labels)
        paid, strict = reward(copies, label=list(labels)), accuracy_reward(copies, list(labels))
        own = [label for label, x, y in zip(labels, paid, strict) if x > 0 and not y]
        if own:
            result[text] = own
    return result
"""
EQUAL = "normalise_label(answer) == normalise_label(gold)"

PLANTED: dict[str, list[Wrong]] = {
    "04.1": [
        Wrong("nothing is normalised", changed(ACCURACY, EQUAL, "answer == gold"), r"should give \[1\.0"),
        Wrong(
            "only the answer is normalised",
            changed(ACCURACY, EQUAL, 'normalise_label(answer.replace(".", ",")) == gold'),
            r"should give \[1\.0",
        ),
        Wrong(
            "the label is a part of the answer", changed(ACCURACY, EQUAL, "gold in normalise_label(answer)"), "should"
        ),
        Wrong(
            "the answer is a part of the label", changed(ACCURACY, EQUAL, "normalise_label(answer) in gold"), "should"
        ),
        Wrong(
            "the whole text, where there is no tag",
            changed(ACCURACY, "answer = extract_answer(text)", "answer = extract_answer(text) or text"),
            "should give",
        ),
        Wrong(
            "the text between the first tags",
            changed(
                ACCURACY,
                "answer = extract_answer(text)",
                'answer = text.partition("<answer>")[2].partition("</answer>")[0] or None',
            ),
            "should give",
        ),
        Wrong("whole numbers", changed(ACCURACY, "float(answer is", "int(answer is"), "should give"),
        Wrong("true and false", changed(ACCURACY, "float(answer is", "bool(answer is"), "should give"),
        Wrong(
            "a string is taken letter by letter",
            changed(ACCURACY, '        raise TypeError("a list is needed")', "        completions = list(completions)"),
            "should give a TypeError",
        ),
        Wrong(
            "a string is taken for a list of one",
            changed(ACCURACY, '        raise TypeError("a list is needed")', "        completions = [completions]"),
            "should give a TypeError",
        ),
        Wrong(
            "a ValueError for a string", changed(ACCURACY, "raise TypeError", "raise ValueError"), "a TypeError, not"
        ),
        Wrong(
            "one label for all is taken letter by letter",
            changed(ACCURACY, "[label] * len(texts) if isinstance(label, str) else list(label)", "list(label)"),
            "label 'reading' should give",
        ),
        Wrong(
            "the first label for all",
            changed(ACCURACY, "for text, gold in zip(texts, labels):", "for text in texts:\n        gold = labels[0]"),
            "should give",
        ),
        Wrong(
            "a missing label is not noticed",
            changed(ACCURACY, '        raise ValueError("one label for each")', "        pass"),
            "a ValueError, not",
        ),
        Wrong(
            "an empty label is not noticed",
            changed(ACCURACY, '        raise ValueError("a label is empty")', "        pass"),
            "a ValueError, not",
        ),
        Wrong(
            "a label of spaces only is refused, not a full stop",
            changed(ACCURACY, "all(normalise_label(gold) for gold in labels)", "all(gold.strip() for gold in labels)"),
            "a ValueError, not",
        ),
        Wrong(
            "the first message of a chat",
            changed(ACCURACY, 'one[-1]["content"]', 'one[0]["content"]'),
            "'role': 'user'.* should give",
        ),
        Wrong(
            "all messages of a chat in one",
            changed(ACCURACY, 'one[-1]["content"]', "str(one)"),
            "'role': 'user'.* should give",
        ),
        Wrong("one number for all", changed(ACCURACY, "return scores", "return sum(scores)"), "should give"),
        Wrong("right and wrong turned", changed(ACCURACY, "float(answer is", "1.0 - float(answer is"), "should give"),
    ],
    "04.2": [
        Wrong(
            "characters are counted", changed(LENGTH, "for ids in completion_ids", "for ids in completions"), "tokens"
        ),
        Wrong(
            "words are counted",
            changed(
                LENGTH,
                "for ids in completion_ids:\n        n = len(ids)",
                "for text in completions:\n        n = len(text.split())",
            ),
            "up to soft|in equal steps|count tokens",
        ),
        Wrong(
            "no bound from above",
            changed(LENGTH, "min(0.0, (soft - n) / (hard - soft))", "(soft - n) / (hard - soft)"),
            "up to soft",
        ),
        Wrong(
            "no bound from below",
            changed(LENGTH, "max(-1.0, min(0.0, (soft - n) / (hard - soft)))", "min(0.0, (soft - n) / (hard - soft))"),
            "never below -1",
        ),
        Wrong("positive", changed(LENGTH, "max(-1.0", "-max(-1.0"), "in equal steps"),
        Wrong(
            "a single step at soft",
            changed(LENGTH, "max(-1.0, min(0.0, (soft - n) / (hard - soft)))", "-1.0 if n > soft else 0.0"),
            "in equal steps",
        ),
        Wrong(
            "a single step at hard",
            changed(LENGTH, "max(-1.0, min(0.0, (soft - n) / (hard - soft)))", "-1.0 if n >= hard else 0.0"),
            "in equal steps",
        ),
        Wrong("it falls from 0 tokens on", changed(LENGTH, "(soft - n) / (hard - soft)", "-n / hard"), "up to soft"),
        Wrong("divided by hard", changed(LENGTH, "/ (hard - soft)", "/ hard"), "in equal steps"),
        Wrong("one token too late", changed(LENGTH, "n = len(ids)", "n = len(ids) - 1"), "in equal steps"),
        Wrong("one token too early", changed(LENGTH, "n = len(ids)", "n = len(ids) + 1"), "up to soft"),
        Wrong(
            "the bounds are always 20 and 40",
            changed(LENGTH, "(soft - n) / (hard - soft)", "(20 - n) / 20"),
            "any bounds",
        ),
        Wrong(
            "whole steps",
            changed(LENGTH, "(soft - n) / (hard - soft)", "float((soft - n) // (hard - soft))"),
            "in equal steps",
        ),
        Wrong(
            "squared",
            changed(LENGTH, "(soft - n) / (hard - soft)", "-(max(0, n - soft) / (hard - soft)) ** 2"),
            "in equal steps",
        ),
        Wrong(
            "relative to the longest",
            changed(LENGTH, "(soft - n) / (hard - soft)", "(soft - n) / max(1, max(map(len, completion_ids)) - soft)"),
            "in equal steps|any bounds",
        ),
        Wrong("the mean of all", changed(LENGTH, "return scores", "return sum(scores) / len(scores)"), "one float per"),
        Wrong(
            "only those that are too long",
            changed(LENGTH, "        scores.append", "        if n > soft:\n            scores.append"),
            "one float per",
        ),
        Wrong(
            "whole numbers",
            changed(
                LENGTH, "max(-1.0, min(0.0, (soft - n) / (hard - soft)))", "max(-1, min(0, (soft - n) / (hard - soft)))"
            ),
            "one float per",
        ),
    ],
    "04.3": [
        Wrong("right answers count too", changed(HOLES, "x > 0 and not y", "x > 0"), "not"),
        Wrong("only a full reward counts", changed(HOLES, "x > 0 and", "x == 1 and"), "0.2 to 2.2"),
        Wrong("what is taken away counts", changed(HOLES, "x > 0 and", "x and"), "takes 1 away"),
        Wrong("below half does not count", changed(HOLES, "x > 0 and", "x > 0.5 and"), "0.2 to 2.2"),
        Wrong(
            "texts without a hole stay",
            changed(HOLES, "        if own:\n            result", "        if True:\n            result"),
            "not",
        ),
        Wrong("how many, not which", changed(HOLES, "result[text] = own", "result[text] = len(own)"), "not"),
        Wrong("a set of labels", changed(HOLES, "result[text] = own", "result[text] = set(own)"), "not"),
        Wrong(
            "labels in the order of the alphabet",
            changed(HOLES, "result[text] = own", "result[text] = sorted(own)"),
            "not",
        ),
        Wrong(
            "texts in the order of the alphabet",
            changed(HOLES, "for text in texts:", "for text in sorted(texts):"),
            "not",
        ),
        Wrong(
            "from label to texts",
            changed(
                HOLES,
                "            result[text] = own",
                "            for label in own:\n                result.setdefault(label, []).append(text)",
            ),
            "not",
        ),
        Wrong("a list of pairs", changed(HOLES, "return result", "return list(result.items())"), "not"),
        Wrong(
            "one text, not a list",
            changed(HOLES, "reward(copies, label=list(labels))", "[reward(text, label=label) for label in labels]"),
            "two lists of the same length",
        ),
        Wrong(
            "one label, not a list",
            changed(
                HOLES, "reward(copies, label=list(labels))", "[reward([text], label=label)[0] for label in labels]"
            ),
            "two lists of the same length",
        ),
        Wrong(
            "one text for all labels",
            changed(HOLES, "reward(copies, label", "reward([text], label"),
            "two lists of the same length|not",
        ),
        Wrong(
            "the labels are strung together",
            changed(HOLES, "label=list(labels))", "label=', '.join(labels))"),
            "two lists of the same length",
        ),
        Wrong("only the first hole", changed(HOLES, "result[text] = own", "result[text] = own[:1]"), "not"),
        Wrong(
            "the empty text is left out",
            changed(HOLES, "    for text in texts:\n", "    for text in filter(None, texts):\n"),
            "not",
        ),
        Wrong(
            "what the strict reward pays and the other does not",
            changed(HOLES, "x > 0 and not y", "y and not x"),
            "not",
        ),
        Wrong(
            "all labels, where one is a hole",
            changed(HOLES, "result[text] = own", "result[text] = list(labels)"),
            "not",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "04.1": [
        """
from favor_lab import accuracy_reward

def my_accuracy(completions, label, **columns):
    return accuracy_reward(completions, label)
""",
        """
from favor_lab import extract_answer, normalise_label

def my_accuracy(completions, label, **columns):
    def text_of(one):
        return one if type(one) is str else one[len(one) - 1]["content"]

    def score(text, gold):
        answer, gold = extract_answer(text), normalise_label(gold)
        if gold == "":
            raise ValueError("empty label")
        return 1.0 if answer is not None and normalise_label(answer) == gold else 0.0

    if isinstance(completions, str):
        raise TypeError("give a list")
    if isinstance(label, str):
        label = [label for _ in completions]
    return [score(text_of(one), gold) for one, gold in zip(completions, label, strict=True)]
""",
        """
from favor_lab import extract_answer, normalise_label

def my_accuracy(completions, label, **columns):
    if isinstance(completions, str):
        raise TypeError("not one text: a list of texts")
    n = len(completions)
    labels = n * [label] if isinstance(label, str) else label
    assert_same = {True: None}.get(len(labels) == n, "different")
    if assert_same:
        raise ValueError("numbers differ")
    result = [0.0] * n
    for i in range(n):
        one = completions[i]
        if not isinstance(one, str):
            one = one[-1]["content"]
        wanted = normalise_label(labels[i])
        if len(wanted) == 0:
            raise ValueError("blank label")
        if wanted == normalise_label(extract_answer(one) or ""):
            result[i] = 1.0
    return result
""",
        """
from favor_lab import extract_answer, normalise_label

def my_accuracy(completions, label, **columns):
    match completions:
        case str():
            raise TypeError("a list")
    golds = [normalise_label(x) for x in ([label] * len(completions) if isinstance(label, str) else label)]
    if "" in golds or len(golds) != len(completions):
        raise ValueError("labels")
    answers = [extract_answer(c if isinstance(c, str) else c[-1]["content"]) for c in completions]
    names = [None if x is None else normalise_label(x) for x in answers]
    return list(map(float, map(str.__eq__, golds, [x if x is not None else "" for x in names])))
""",
    ],
    "04.2": [
        """
def length_penalty(completions, completion_ids, soft=20, hard=40, **columns):
    def price(n):
        if n <= soft:
            return 0.0
        if n >= hard:
            return -1.0
        return (soft - n) / (hard - soft)

    return [price(len(ids)) for ids in completion_ids]
""",
        """
def length_penalty(completions, completion_ids, soft=20, hard=40, **columns):
    over = [min(max(len(ids) - soft, 0), hard - soft) for ids in completion_ids]
    return [-n / (hard - soft) for n in over]
""",
        """
import numpy as np

def length_penalty(completions, completion_ids, soft=20, hard=40, **columns):
    n = np.array([len(ids) for ids in completion_ids], dtype=float)
    return np.clip((soft - n) / (hard - soft), -1.0, 0.0).tolist()
""",
        """
import torch

def length_penalty(completions, completion_ids, soft=20, hard=40, **columns):
    n = torch.tensor([len(ids) for ids in completion_ids], dtype=torch.float64)
    return (-(n - soft).clamp(0, hard - soft) / (hard - soft)).tolist()
""",
    ],
    "04.3": [
        """
from favor_lab.grpo.rewards import is_right

def holes(reward, texts, labels):
    result = {}
    for text in texts:
        for label in labels:
            if reward([text], label=[label])[0] > 0 and not is_right(text, label):
                result.setdefault(text, []).append(label)
    return result
""",
        """
from favor_lab import accuracy_reward

def holes(reward, texts, labels):
    rows = [(text, label) for text in texts for label in labels]
    completions, gold = [text for text, _ in rows], [label for _, label in rows]
    result = {text: [] for text in texts}
    for (text, label), paid, strict in zip(rows, reward(completions, label=gold), accuracy_reward(completions, gold)):
        if paid > strict and strict == 0:
            result[text].append(label)
    return {text: own for text, own in result.items() if own}
""",
        """
from favor_lab import extract_answer, normalise_label

def holes(reward, texts, labels):
    def wrong(text, label):
        answer = extract_answer(text)
        return answer is None or normalise_label(answer) != normalise_label(label)

    result = dict()
    for text in texts:
        pay = dict(zip(labels, reward([text for _ in labels], label=[*labels])))
        bad = [label for label in labels if pay[label] > 0 and wrong(text, label)]
        result |= {text: bad} if bad else {}
    return result
""",
        """
from favor_lab import accuracy_reward

def holes(reward, texts, labels):
    labels = list(labels)
    def one(text):
        pairs = zip(reward([text] * len(labels), label=labels), accuracy_reward([text] * len(labels), label=labels))
        return [label for label, (x, y) in zip(labels, pairs) if x > 0 >= y]

    return {text: one(text) for text in texts if one(text)}
""",
    ],
}
