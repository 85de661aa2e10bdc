"""Wrong and right answers to the exercises of notebook 01, few-shot activity recognition."""

from planted import Wrong, changed

FAULTS = """
from collections import Counter


def faults(train, test, labels):
    names = set()
    if {source for _, source, _ in train} & {source for _, source, _ in test}:
        names.add("disjoint")
    if {pixels for _, _, pixels in train} & {pixels for _, _, pixels in test}:
        names.add("leak")
    for part in (train, test):
        counts = Counter(label for label, _, _ in part)
        numbers = {counts[label] for label in labels}
        if len(numbers) > 1 or 0 in numbers:
            names.add("balanced")
        if set(counts) - set(labels):
            names.add("unknown")
    return names
"""
COVERAGE = """
from math import comb


def exact_coverage(interval, p, n):
    total = 0.0
    for c in range(n + 1):
        low, high = interval(c, n)
        if low <= p <= high:
            total += comb(n, c) * p**c * (1 - p) ** (n - c)
    return total
"""
VERDICT = """
from math import comb


def verdict_on(first, second):
    gained = sum(new and not old for old, new in zip(first, second))
    lost = sum(old and not new for old, new in zip(first, second))
    changes = gained + lost
    p = min(1.0, 2 * sum(comb(changes, i) for i in range(min(gained, lost) + 1)) / 2**changes)
    if p >= 0.05:
        return gained, lost, p, "not told apart"
    return gained, lost, p, "second" if gained > lost else "first"
"""
TAIL = "p = min(1.0, 2 * sum(comb(changes, i) for i in range(min(gained, lost) + 1)) / 2**changes)"

PLANTED: dict[str, list[Wrong]] = {
    "01.1": [
        Wrong(
            "a leak is a shared source",
            changed(
                FAULTS,
                "if {pixels for _, _, pixels in train} & {pixels for _, _, pixels in test}:\n",
                "if {source for _, source, _ in train} & {source for _, source, _ in test}:\n",
            ),
            "a leak alone",
        ),
        Wrong(
            "a shared source is equal pixels",
            changed(
                FAULTS,
                "if {source for _, source, _ in train} & {source for _, source, _ in test}:\n",
                "if {pixels for _, _, pixels in train} & {pixels for _, _, pixels in test}:\n",
            ),
            "a leak alone",
        ),
        Wrong(
            "no leak is looked for where a source is shared",
            changed(FAULTS, "    if {pixels", "    elif {pixels"),
            "one image in both parts",
        ),
        Wrong(
            "duplicates inside a part are a leak",
            changed(
                FAULTS,
                "{pixels for _, _, pixels in train} & {pixels for _, _, pixels in test}",
                "len({pixels for _, _, pixels in train + test}) < len(train + test)",
            ),
            "random split",
        ),
        Wrong(
            "whole records are compared",
            changed(
                FAULTS,
                "{source for _, source, _ in train} & {source for _, source, _ in test}",
                "set(train) & set(test)",
            ),
            "a shared source",
        ),
        Wrong(
            "only the labels that are there are compared",
            changed(FAULTS, "{counts[label] for label in labels}", "set(counts.values())"),
            "none of a label|random split",
        ),
        Wrong("a part without images is balanced", changed(FAULTS, " or 0 in numbers", ""), "no images|random split"),
        Wrong(
            "only train must be balanced",
            changed(
                FAULTS,
                "if len(numbers) > 1 or 0 in numbers:",
                "if part is train and (len(numbers) > 1 or 0 in numbers):",
            ),
            "none of a label|in test",
        ),
        Wrong(
            "both parts together are counted",
            changed(FAULTS, "Counter(label for label, _, _ in part)", "Counter(label for label, _, _ in train + test)"),
            "each part by itself",
        ),
        Wrong(
            "the parts must be of one size",
            changed(
                FAULTS, "    return names", '    return names | ({"balanced"} if len(train) != len(test) else set())'
            ),
            "parts of two sizes|a label that is not",
        ),
        Wrong(
            "only test is searched for unknown labels",
            changed(FAULTS, "if set(counts) - set(labels):", "if part is test and set(counts) - set(labels):"),
            "random split",
        ),
        Wrong(
            "a missing label is an unknown one",
            changed(FAULTS, "if set(counts) - set(labels):", "if set(counts) != set(labels):"),
            "none of a label",
        ),
        Wrong(
            "an unknown label makes a part unbalanced",
            changed(FAULTS, 'names.add("unknown")', 'names.update(["unknown", "balanced"])'),
            "not in the task",
        ),
        Wrong("a list of names", changed(FAULTS, "    return names", "    return sorted(names)"), "return a set"),
        Wrong(
            "only the first fault",
            changed(FAULTS, "    return names", "    return set(sorted(names)[:1])"),
            "in place of",
        ),
    ],
    "01.2": [
        Wrong("a bound equal to p is left out", changed(COVERAGE, "low <= p <= high", "low < p < high"), "equal to p"),
        Wrong("the orders are forgotten", changed(COVERAGE, "comb(n, c) * ", ""), "two orders"),
        Wrong("n right answers never happen", changed(COVERAGE, "range(n + 1)", "range(n)"), "holds everything"),
        Wrong("0 right answers never happen", changed(COVERAGE, "range(n + 1)", "range(1, n + 1)"), "holds everything"),
        Wrong(
            "all results are equally likely",
            changed(COVERAGE, "comb(n, c) * p**c * (1 - p) ** (n - c)", "1 / (n + 1)"),
            "only c|two orders",
        ),
        Wrong(
            "p and 1 - p are exchanged",
            changed(COVERAGE, "p**c * (1 - p) ** (n - c)", "(1 - p) ** c * p ** (n - c)"),
            "only c = 0",
        ),
        Wrong("only the lower bound", changed(COVERAGE, "low <= p <= high", "low <= p"), "in place of"),
        Wrong("only the upper bound", changed(COVERAGE, "low <= p <= high", "p <= high"), "in place of"),
        Wrong("how often p is missed", changed(COVERAGE, "return total", "return 1 - total"), "holds everything"),
        Wrong(
            "the share of intervals that hold the observed share",
            changed(COVERAGE, "low <= p <= high", "low <= c / n <= high"),
            "in place of",
        ),
        Wrong(
            "n and c exchanged",
            changed(COVERAGE, "interval(c, n)", "interval(n, c)"),
            "holds everything|your|in place of",
        ),
        Wrong("in percent", changed(COVERAGE, "return total", "return 100 * total"), "holds everything"),
        Wrong("rounded", changed(COVERAGE, "return total", "return round(total, 2)"), "Wilson|random bounds"),
        Wrong(
            "still simulated",
            """
import numpy as np


def exact_coverage(interval, p, n):
    bounds = np.array([interval(c, n) for c in range(n + 1)])
    contains = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
    return contains[np.random.default_rng(0).binomial(n, p, size=20_000)].mean()
""",
            "in place of",
        ),
        Wrong(
            "the most likely result alone",
            changed(COVERAGE, "if low <= p <= high:", "if c == round(n * p) and low <= p <= high:"),
            "in place of",
        ),
        Wrong("nothing is returned", changed(COVERAGE, "    return total\n", ""), "return a number"),
    ],
    "01.3": [
        Wrong("one side only", changed(VERDICT, "min(1.0, 2 * sum(", "min(1.0, sum("), "p-value"),
        Wrong("p above 1", changed(VERDICT, TAIL, TAIL.replace("min(1.0, ", "(")), "p-value"),
        Wrong("the larger number in the tail", changed(VERDICT, "range(min(gained", "range(max(gained"), "p-value"),
        Wrong("the tail ends one too early", changed(VERDICT, "min(gained, lost) + 1", "min(gained, lost)"), "p-value"),
        Wrong("all images are tossed", changed(VERDICT, "changes = gained + lost", "changes = len(first)"), "p-value"),
        Wrong(
            "gained and lost exchanged",
            changed(VERDICT, "def verdict_on(first, second):\n", "def verdict_on(second, first):\n"),
            "gained, lost",
        ),
        Wrong(
            "right answers in place of changes",
            changed(VERDICT, "new and not old for", "bool(new) for"),
            "gained, lost",
        ),
        Wrong("told apart at 10 %", changed(VERDICT, "p >= 0.05", "p >= 0.1"), "verdict"),
        Wrong("told apart at 1 %", changed(VERDICT, "p >= 0.05", "p >= 0.01"), "verdict"),
        Wrong(
            "the better accuracy wins",
            changed(VERDICT, "if p >= 0.05:", "if gained == lost:"),
            "verdict: three of three",
        ),
        Wrong(
            "only the second can be better",
            changed(VERDICT, '"second" if gained > lost else "first"', '"second"'),
            "six lost",
        ),
        Wrong(
            "first and second exchanged",
            changed(VERDICT, "if gained > lost else", "if gained < lost else"),
            "six gained",
        ),
        Wrong(
            "a normal approximation",
            changed(
                VERDICT, TAIL, "p = 2 * (1 - NormalDist().cdf(abs(gained - lost) / max(1, changes) ** 0.5))"
            ).replace("from math import comb", "from statistics import NormalDist"),
            "p-value",
        ),
        Wrong(
            "the intervals overlap",
            """
from favor_lab import sign_test, wilson_interval


def verdict_on(first, second):
    gained = sum(new and not old for old, new in zip(first, second))
    lost = sum(old and not new for old, new in zip(first, second))
    (a, b), (c, d) = (wilson_interval(sum(row), len(row)) for row in (first, second))
    verdict = "second" if c > b else "first" if a > d else "not told apart"
    return gained, lost, sign_test(gained, lost), verdict
""",
            "verdict",
        ),
        Wrong(
            "the difference in place of both numbers",
            changed(VERDICT, 'return gained, lost, p, "second"', 'return gained - lost, p, "second"').replace(
                'return gained, lost, p, "not', 'return gained - lost, p, "not'
            ),
            "return a tuple",
        ),
        Wrong(
            "0 where nothing changed",
            changed(VERDICT, "    if p >= 0.05:", "    p = p if changes else 0.0\n    if p >= 0.05:"),
            "nothing changed",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "01.1": [
        """
def faults(train, test, labels):
    found = set()
    a, b = [list(zip(*part)) or [(), (), ()] for part in (train, test)]
    if not set(a[1]).isdisjoint(b[1]):
        found |= {"disjoint"}
    if not set(a[2]).isdisjoint(b[2]):
        found |= {"leak"}
    for part in (a, b):
        counts = [part[0].count(label) for label in labels]
        if min(counts) != max(counts) or min(counts) == 0:
            found |= {"balanced"}
        if not set(part[0]) <= set(labels):
            found |= {"unknown"}
    return found
""",
        """
def faults(train, test, labels):
    def shared(place):
        return any(x[place] == y[place] for x in train for y in test)

    def balanced(part):
        numbers = [sum(label == x[0] for x in part) for label in labels]
        return all(number == numbers[0] and number > 0 for number in numbers)

    checks = {
        "disjoint": shared(1),
        "leak": shared(2),
        "balanced": not (balanced(train) and balanced(test)),
        "unknown": any(x[0] not in labels for x in train + test),
    }
    return {name for name in checks if checks[name]}
""",
        """
from collections import Counter


def faults(train, test, labels):
    result = []
    for label, source, pixels in train:
        for other_label, other_source, other_pixels in test:
            if source == other_source:
                result.append("disjoint")
            if pixels == other_pixels:
                result.append("leak")
    for part in (train, test):
        counts = Counter(label for label, source, pixels in part)
        for label in counts:
            if label not in labels:
                result.append("unknown")
        for label in labels:
            if counts[label] != counts[labels[0]] or not counts[label]:
                result.append("balanced")
    return set(result)
""",
        """
def faults(train, test, labels):
    names = set()
    sources = [{x[1] for x in part} for part in (train, test)]
    images = [{x[2] for x in part} for part in (train, test)]
    if len(sources[0] | sources[1]) < len(sources[0]) + len(sources[1]):
        names.add("disjoint")
    if len(images[0] | images[1]) < len(images[0]) + len(images[1]):
        names.add("leak")
    for part in (train, test):
        own = sorted(x[0] for x in part if x[0] in labels)
        if len(own) < len(part):
            names.add("unknown")
        each = len(own) // len(labels)
        if not own or own != sorted(list(labels) * each):
            names.add("balanced")
    return names
""",
    ],
    "01.2": [
        """
import numpy as np
from math import comb


def exact_coverage(interval, p, n):
    c = np.arange(n + 1)
    chances = np.array([comb(n, int(i)) for i in c]) * p**c * (1.0 - p) ** (n - c)
    low, high = np.array([interval(int(i), n) for i in c]).T
    return chances[(low <= p) & (p <= high)].sum()
""",
        """
def exact_coverage(interval, p, n):
    chances = [1.0]
    for _ in range(n):
        chances = [a * (1 - p) + b * p for a, b in zip(chances + [0.0], [0.0] + chances)]
    return sum(chance for c, chance in enumerate(chances) if interval(c, n)[0] <= p <= interval(c, n)[1])
""",
        """
import math


def exact_coverage(interval, p, n):
    def chance(c):
        return math.factorial(n) / math.factorial(c) / math.factorial(n - c) * p**c * (1 - p) ** (n - c)

    missed = sum(chance(c) for c in range(n + 1) if p < min(interval(c, n)) or p > max(interval(c, n)))
    return 1 - missed
""",
        """
from math import exp, lgamma, log


def exact_coverage(interval, p, n):
    total = 0
    for c in range(n, -1, -1):
        bounds = interval(c, n)
        inside = bounds[0] <= p and p <= bounds[1]
        size = lgamma(n + 1) - lgamma(c + 1) - lgamma(n - c + 1)
        total += inside * exp(size + c * log(p) + (n - c) * log(1 - p))
    return total
""",
    ],
    "01.3": [
        """
from favor_lab import sign_test


def verdict_on(first, second):
    pairs = list(zip(first, second))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    p = sign_test(gained, lost)
    better = ["first", "second"][gained > lost]
    return (gained, lost, p, better if p < 0.05 else "not told apart")
""",
        """
import numpy as np
from math import comb


def verdict_on(first, second):
    change = np.array(second, dtype=int) - np.array(first, dtype=int)
    gained, lost = int((change == 1).sum()), int((change == -1).sum())
    n = gained + lost
    chances = [comb(n, i) / 2**n for i in range(n + 1)]
    far = abs(gained - lost)
    p = sum(chance for i, chance in enumerate(chances) if abs(2 * i - n) >= far)
    if p < 0.05 and gained > lost:
        verdict = "second"
    elif p < 0.05:
        verdict = "first"
    else:
        verdict = "not told apart"
    return gained, lost, p, verdict
""",
        """
from math import comb


def verdict_on(first, second):
    gained = lost = 0
    for old, new in zip(first, second):
        if new and not old:
            gained += 1
        elif old and not new:
            lost += 1
    if gained == lost:
        return gained, lost, 1.0, "not told apart"
    n, few = gained + lost, min(gained, lost)
    p = sum(comb(n, i) for i in range(few + 1)) / 2 ** (n - 1)
    return gained, lost, p, ("second" if gained > lost else "first") if p < 0.05 else "not told apart"
""",
        """
from fractions import Fraction
from math import comb


def verdict_on(first, second):
    gained = len([1 for i in range(len(first)) if second[i] > first[i]])
    lost = len([1 for i in range(len(first)) if second[i] < first[i]])
    tail = Fraction(sum(comb(gained + lost, i) for i in range(min(gained, lost) + 1)), 2 ** (gained + lost))
    p = float(min(Fraction(1), 2 * tail))
    verdict = "not told apart"
    if p < 0.05:
        verdict = "second" if sum(second) > sum(first) else "first"
    return gained, lost, p, verdict
""",
    ],
}
