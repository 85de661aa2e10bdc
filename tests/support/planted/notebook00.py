"""Wrong and right answers to the exercises of notebook 00, start here."""

from planted import Wrong, changed

EVIDENCE = """
def count_evidence(text, true_statements):
    _, start, rest = text.partition("<think>")
    inside, end, _ = rest.partition("</think>")
    if not (start and end):
        return 0, 0
    stated = {piece.strip() for piece in inside.split(",")} - {""}
    return len(stated), len(stated & set(true_statements))
"""
TABLE = """
from collections import Counter


def confusions_of(golds, answers):
    table = {}
    for label in set(golds):
        own = [answer for gold, answer in zip(golds, answers) if gold == label]
        wrong = Counter(answer for answer in own if answer is not None and answer != label)
        name = min(wrong, key=lambda answer: (-wrong[answer], answer)) if wrong else None
        table[label] = (own.count(label) / len(own), name)
    return table
"""
NAME = "name = min(wrong, key=lambda answer: (-wrong[answer], answer)) if wrong else None"
REACH = """
def reach(greedy, sampled, G):
    rows = [sampled[b * G : (b + 1) * G] for b, is_right in enumerate(greedy) if not is_right]
    if not rows:
        return [0.0] * G
    return [sum(any(row[:g]) for row in rows) / len(rows) for g in range(1, G + 1)]
"""
SHARES = "return [sum(any(row[:g]) for row in rows) / len(rows) for g in range(1, G + 1)]"

PLANTED: dict[str, list[Wrong]] = {
    "00.1": [
        Wrong(
            "a repeated statement counts each time",
            changed(
                EVIDENCE,
                """    stated = {piece.strip() for piece in inside.split(",")} - {""}
    return len(stated), len(stated & set(true_statements))
""",
                """    stated = [piece.strip() for piece in inside.split(",") if piece.strip()]
    return len(stated), sum(piece in true_statements for piece in stated)
""",
            ),
            "repeated counts once",
        ),
        Wrong("the empty piece is counted", changed(EVIDENCE, ' - {""}', ""), "empty piece|in place of"),
        Wrong(
            "spaces belong to the statement",
            changed(EVIDENCE, "piece.strip() for piece", "piece for piece"),
            "two stated, one true|repeated|spaces",
        ),
        Wrong(
            "cut at comma and space only",
            changed(EVIDENCE, 'inside.split(",")', 'inside.split(", ")'),
            "repeated|empty piece",
        ),
        Wrong(
            "a part of a true statement counts as true",
            changed(
                EVIDENCE,
                "len(stated & set(true_statements))",
                "sum(any(piece in other for other in true_statements) for piece in stated)",
            ),
            "another statement",
        ),
        Wrong(
            "a missing closing tag does not matter",
            changed(EVIDENCE, "if not (start and end)", "if not start"),
            "one tag is missing",
        ),
        Wrong(
            "the whole text is cut",
            changed(EVIDENCE, "inside.split", 'text.replace("<think>", "").replace("</think>", ",").split'),
            "in place of",
        ),
        Wrong(
            "without tags the text itself is the evidence",
            """
def count_evidence(text, true_statements):
    inside = text.split("<think>")[-1].split("</think>")[0]
    stated = {piece.strip() for piece in inside.split(",")} - {""}
    return len(stated), len(stated & set(true_statements))
""",
            "nothing is stated",
        ),
        Wrong(
            "the true ones of the scene, not of the response",
            changed(EVIDENCE, "len(stated & set(true_statements))", "len(true_statements)"),
            "in place of",
        ),
        Wrong(
            "true first, stated second",
            changed(
                EVIDENCE,
                "return len(stated), len(stated & set(true_statements))",
                "return len(stated & set(true_statements)), len(stated)",
            ),
            "two stated, one true",
        ),
        Wrong(
            "false ones in place of true ones",
            changed(EVIDENCE, "stated & set(true_statements)", "stated - set(true_statements)"),
            "in place of",
        ),
        Wrong(
            "a share in place of a pair",
            changed(
                EVIDENCE,
                "return len(stated), len(stated & set(true_statements))",
                "return len(stated & set(true_statements)) / max(1, len(stated))",
            ),
            "return a pair",
        ),
    ],
    "00.2": [
        Wrong(
            "None is left out of the accuracy",
            changed(TABLE, "if gold == label]", "if gold == label and answer is not None] or [None]"),
            "accuracy of",
        ),
        Wrong(
            "None is a name",
            changed(TABLE, "if answer is not None and answer != label", "if answer != label").replace(
                "(-wrong[answer], answer)", "(-wrong[answer], str(answer))"
            ),
            "no name|None is wrong",
        ),
        Wrong(
            "the right answer is counted among the names",
            changed(TABLE, "if answer is not None and answer != label", "if answer is not None"),
            "wrong answer for",
        ),
        Wrong(
            "the first in the alphabet, whatever its count",
            changed(TABLE, NAME, "name = min(wrong) if wrong else None"),
            "most frequent wrong one",
        ),
        Wrong(
            "the last in the alphabet among equals",
            changed(TABLE, NAME, "name = max(wrong, key=lambda answer: (wrong[answer], answer)) if wrong else None"),
            "first in the alphabet",
        ),
        Wrong(
            "the first that appears among equals",
            changed(TABLE, NAME, "name = wrong.most_common(1)[0][0] if wrong else None"),
            "first in the alphabet",
        ),
        Wrong(
            "the rarest wrong answer",
            changed(TABLE, "(-wrong[answer], answer)", "(wrong[answer], answer)"),
            "wrong answer for",
        ),
        Wrong(
            "one accuracy for all labels",
            changed(TABLE, "own.count(label) / len(own)", "sum(g == a for g, a in zip(golds, answers)) / len(golds)"),
            "accuracy of",
        ),
        Wrong(
            "the share of all images",
            changed(TABLE, "own.count(label) / len(own)", "own.count(label) / len(golds)"),
            "accuracy of",
        ),
        Wrong(
            "grouped by answer in place of gold label",
            changed(TABLE, "if gold == label]", "if answer == label] or [None]"),
            "accuracy of|wrong answer for",
        ),
        Wrong(
            "the number of right answers",
            changed(TABLE, "own.count(label) / len(own)", "float(own.count(label))"),
            "accuracy of",
        ),
        Wrong(
            "the error rate",
            changed(TABLE, "own.count(label) / len(own)", "1 - own.count(label) / len(own)"),
            "accuracy of",
        ),
        Wrong(
            "only labels with a wrong answer",
            changed(TABLE, "        table[label] =", "        if name:\n            table[label] ="),
            "one entry for each gold label",
        ),
        Wrong(
            "an entry for each answer too",
            changed(TABLE, "set(golds)", "{*golds, *answers} - {None}").replace("len(own)", "max(1, len(own))"),
            "one entry for each gold label",
        ),
        Wrong(
            "the label itself where nothing was confused",
            changed(TABLE, "if wrong else None", "if wrong else label"),
            "wrong answer for",
        ),
    ],
    "00.3": [
        Wrong(
            "images that greedy decoding got right count too",
            changed(REACH, " if not is_right]", "]"),
            "does not count|zeros",
        ),
        Wrong(
            "the images that greedy decoding got right", changed(REACH, "if not is_right", "if is_right"), "in place of"
        ),
        Wrong("the share of all images", changed(REACH, "/ len(rows)", "/ len(greedy)"), "does not count|in place of"),
        Wrong(
            "counts in place of shares",
            changed(REACH, SHARES, "return [float(sum(any(row[:g]) for row in rows)) for g in range(1, G + 1)]"),
            "a share of the missed images",
        ),
        Wrong("one sample less", changed(REACH, "range(1, G + 1)", "range(G)"), "right at the second sample"),
        Wrong(
            "only sample g, not the first g",
            changed(REACH, "any(row[:g])", "row[g - 1]"),
            "right at the second sample|stays reached|share of the missed",
        ),
        Wrong(
            "the share of right samples",
            changed(
                REACH,
                "sum(any(row[:g]) for row in rows) / len(rows)",
                "sum(sum(row[:g]) for row in rows) / g / len(rows)",
            ),
            "right at the second sample|stays reached",
        ),
        Wrong(
            "rows are taken sample by sample",
            changed(REACH, "sampled[b * G : (b + 1) * G]", "sampled[b :: len(greedy)]"),
            "sample g of image b|does not count",
        ),
        Wrong(
            "only the last number", changed(REACH, "for g in range(1, G + 1)]", "for g in [G]]"), "list of G numbers"
        ),
        Wrong(
            "the first g of all samples, in any image",
            changed(REACH, "any(row[:g])", "any(sampled[:g])"),
            "in place of",
        ),
        Wrong(
            "all samples must be right", changed(REACH, "any(row[:g])", "all(row[:g])"), "right at the second sample"
        ),
        Wrong("ones where nothing was missed", changed(REACH, "return [0.0] * G", "return [1.0] * G"), "zeros"),
        Wrong(
            "an empty list where nothing was missed",
            changed(REACH, "return [0.0] * G", "return []"),
            "list of G numbers",
        ),
        Wrong("always eight", changed(REACH, "range(1, G + 1)", "range(1, 9)"), "list of G numbers"),
        Wrong(
            "one minus the chance that all are wrong, from the mean rate",
            changed(
                REACH,
                SHARES,
                "return [sum(1 - (1 - sum(row) / G) ** g for row in rows) / len(rows) for g in range(1, G + 1)]",
            ),
            "right at the second sample",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "00.1": [
        """
import re


def count_evidence(text, true_statements):
    part = re.search("<think>(.*)</think>", text)
    stated = {s.strip() for s in part[1].split(",") if s.strip()} if part else set()
    return len(stated), sum(s in true_statements for s in stated)
""",
        """
def count_evidence(text, true_statements):
    if "<think>" not in text or "</think>" not in text:
        return (0, 0)
    inside = text[text.index("<think>") + 7 : text.index("</think>")]
    seen = []
    for piece in inside.split(","):
        piece = piece.strip()
        if piece and piece not in seen:
            seen.append(piece)
    return (len(seen), len([piece for piece in seen if piece in true_statements]))
""",
        """
def count_evidence(text, true_statements):
    try:
        inside = text.split("<think>")[1]
    except IndexError:
        return 0, 0
    pieces = inside.split("</think>")
    if len(pieces) == 1:
        return 0, 0
    stated = dict.fromkeys(filter(None, map(str.strip, pieces[0].split(","))))
    return len(stated), len(stated.keys() & true_statements)
""",
        """
def count_evidence(text, true_statements):
    start, end = text.find("<think>"), text.find("</think>")
    if start < 0 or end < 0:
        return 0, 0
    stated = set(text[start + len("<think>") : end].replace(" ,", ",").replace(", ", ",").split(","))
    stated = {s.strip() for s in stated}
    stated.discard("")
    true = 0
    for statement in stated:
        if statement in true_statements:
            true += 1
    return len(stated), true
""",
    ],
    "00.2": [
        """
def confusions_of(golds, answers):
    table = {}
    for label in dict.fromkeys(golds):
        own = [a for g, a in zip(golds, answers) if g == label]
        names = sorted({a for a in own if a not in (None, label)})
        name = max(names, key=own.count) if names else None
        table[label] = (sum(a == label for a in own) / len(own), name)
    return table
""",
        """
from collections import Counter, defaultdict


def confusions_of(golds, answers):
    counts = defaultdict(Counter)
    for gold, answer in zip(golds, answers):
        counts[gold][answer] += 1
    result = {}
    for gold, counter in counts.items():
        right, total = counter[gold], sum(counter.values())
        wrong = sorted((-n, a) for a, n in counter.items() if a is not None and a != gold and n)
        result[gold] = (right / total, wrong[0][1] if wrong else None)
    return result
""",
        """
def confusions_of(golds, answers):
    def line(label):
        own = [answers[i] for i in range(len(golds)) if golds[i] == label]
        best, most = None, 0
        for name in sorted(set(own) - {None, label}):
            if own.count(name) > most:
                best, most = name, own.count(name)
        return own.count(label) / len(own), best

    return {label: line(label) for label in golds}
""",
        """
import numpy as np


def confusions_of(golds, answers):
    golds, answers = np.array(golds), np.array([a or "" for a in answers])
    table = {}
    for label in np.unique(golds):
        own = answers[golds == label]
        names, counts = np.unique(own[(own != label) & (own != "")], return_counts=True)
        name = str(names[counts.argmax()]) if len(names) else None
        table[str(label)] = (float((own == label).mean()), name)
    return table
""",
    ],
    "00.3": [
        """
import numpy as np


def reach(greedy, sampled, G):
    table = np.array(sampled, dtype=bool).reshape(len(greedy), G)[~np.array(greedy, dtype=bool)]
    if len(table) == 0:
        return [0.0] * G
    return np.logical_or.accumulate(table, axis=1).mean(axis=0).tolist()
""",
        """
def reach(greedy, sampled, G):
    firsts, missed = [], 0
    for b in range(len(greedy)):
        if not greedy[b]:
            missed += 1
            row = sampled[b * G : b * G + G]
            if True in row:
                firsts.append(row.index(True) + 1)
    return [sum(first <= g for first in firsts) / missed if missed else 0.0 for g in range(1, G + 1)]
""",
        """
import torch


def reach(greedy, sampled, G):
    table = torch.tensor(sampled).view(-1, G)[~torch.tensor(greedy)]
    if not len(table):
        return [0.0] * G
    return (table.long().cumsum(dim=1) > 0).double().mean(dim=0).tolist()
""",
        """
from itertools import accumulate
from operator import or_


def reach(greedy, sampled, G):
    rows = [list(accumulate(sampled[b * G : (b + 1) * G], or_)) for b in range(len(greedy)) if not greedy[b]]
    return [sum(column) / len(rows) for column in zip(*rows)] or [0.0 for _ in range(G)]
""",
    ],
}
