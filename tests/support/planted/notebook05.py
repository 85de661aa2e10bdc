"""Answers to the exercises of notebook 05, advantages: wrong ones that people really give, and right ones that are
written differently from the solutions."""

from planted import Wrong, changed

PLAIN = """
from math import sqrt

def std(values):
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))

def my_advantages(groups, scale="group", eps=1e-4):
    batch = std([r for own in groups for r in own])
    result = []
    for own in groups:
        mean = sum(own) / len(own)
        divisor = {"group": std(own) + eps, "batch": batch + eps, "none": 1.0}[scale]
        result.append([(r - mean) / divisor for r in own])
    return result
"""
RANK = """
import torch

def rank_advantages(rewards):
    beats = (rewards[:, :, None] - rewards[:, None, :]).sign()
    return beats.sum(dim=2) / (rewards.shape[1] - 1)
"""
FACTOR = """
from math import comb, sqrt

def gradient_factor(p, G, scale="group"):
    total = 0.0
    for c in range(1, G):
        chance = comb(G, c) * p**c * (1 - p) ** (G - c)
        q = c / G
        s = sqrt(q * (1 - q) * G / (G - 1)) if scale == "group" else 1.0
        A_right, A_wrong = (1 - q) / s, -q / s
        total += chance * (q * A_right * (1 - p) - (1 - q) * A_wrong * p)
    return total / (p * (1 - p))
"""
OWN, BATCH = "own mean", "one s over all|own mean"

PLANTED: dict[str, list[Wrong]] = {
    "05.1": [
        Wrong("s over n", changed(PLAIN, "(len(values) - 1))", "len(values))"), "n - 1"),
        Wrong("the variance in place of s", changed(PLAIN, "return sqrt(sum", "return (sum"), OWN),
        Wrong("eps left out", changed(PLAIN, "std(own) + eps", "(std(own) or 1.0)"), "plus eps"),
        Wrong("eps inside the root", changed(PLAIN, "std(own) + eps", "sqrt(std(own) ** 2 + eps)"), "plus eps"),
        Wrong("the default eps, whatever was asked", changed(PLAIN, "std(own) + eps", "std(own) + 1e-4"), "eps 0.1"),
        Wrong(
            "the mean of all rewards",
            changed(PLAIN, "mean = sum(own) / len(own)", "mean = sum(map(sum, groups)) / sum(map(len, groups))"),
            "own mean",
        ),
        Wrong(
            "the mean of the others",
            changed(PLAIN, "(r - mean) / divisor", "(r - (sum(own) - r) / max(len(own) - 1, 1)) / divisor"),
            OWN,
        ),
        Wrong(
            "the median in place of the mean",
            changed(PLAIN, "        mean = sum(own) / len(own)", "        mean = sorted(own)[len(own) // 2]"),
            OWN,
        ),
        Wrong(
            "batch divides by the mean of the groups' s",
            changed(
                PLAIN, "batch = std([r for own in groups for r in own])", "batch = sum(map(std, groups)) / len(groups)"
            ),
            BATCH,
        ),
        Wrong(
            "batch: s of the centred rewards",
            changed(
                PLAIN,
                "std([r for own in groups for r in own])",
                "std([r - sum(own) / len(own) for own in groups for r in own])",
            ),
            BATCH,
        ),
        Wrong(
            "batch: s of the groups' means",
            changed(PLAIN, "std([r for own in groups for r in own])", "std([sum(own) / len(own) for own in groups])"),
            BATCH,
        ),
        Wrong("none divides too", changed(PLAIN, '"none": 1.0', '"none": std(own) + eps'), "none no division"),
        Wrong("none divides by 1 + eps", changed(PLAIN, '"none": 1.0', '"none": 1.0 + 1e-4'), "none no division"),
        Wrong("one flat list", changed(PLAIN, "result.append([", "result.extend(["), "list of lists"),
        Wrong("sorted groups", changed(PLAIN, "for r in own])\n    return", "for r in sorted(own)])\n    return"), OWN),
        Wrong("rounded", changed(PLAIN, "[(r - mean) / divisor for", "[round((r - mean) / divisor, 2) for"), OWN),
        Wrong("its absolute value", changed(PLAIN, "[(r - mean) / divisor for", "[abs(r - mean) / divisor for"), OWN),
        Wrong(
            "the groups are changed in place",
            changed(
                PLAIN,
                "        result.append([(r - mean) / divisor for r in own])",
                "        own[:] = [(r - mean) / divisor for r in own]\n        result.append(list(own))",
            ),
            "have changed",
        ),
        Wrong(
            "groups of one left out",
            changed(
                PLAIN,
                "    for own in groups:\n",
                "    for own in groups:\n        if len(own) < 2:\n            continue\n",
            ),
            "same lengths",
        ),
        Wrong(
            "NaN for a group of one",
            changed(
                PLAIN,
                "        mean = sum(own) / len(own)\n        divisor",
                "        mean = sum(own) / len(own) if len(own) > 1 else float('nan')\n        divisor",
            ),
            "one of one gets 0",
        ),
    ],
    "05.2": [
        Wrong(
            "the place in the sorted order",
            "\n".join(
                [
                    "import torch",
                    "",
                    "def rank_advantages(rewards):",
                    "    return 2 * rewards.argsort(dim=1).float() / (rewards.shape[1] - 1) - 1",
                ]
            ),
            "beats all others|beaten by all",
        ),
        Wrong(
            "ranks with ties broken by place",
            "\n".join(
                [
                    "import torch",
                    "",
                    "def rank_advantages(rewards):",
                    "    ranks = rewards.argsort(dim=1, stable=True).argsort(dim=1).float()",
                    "    return 2 * ranks / (rewards.shape[1] - 1) - 1",
                ]
            ),
            "equal rewards|both have the same",
        ),
        Wrong("divided by G", changed(RANK, "(rewards.shape[1] - 1)", "rewards.shape[1]"), "beats all others"),
        Wrong(
            "over the batch",
            changed(
                RANK,
                "(rewards[:, :, None] - rewards[:, None, :]).sign()",
                "(rewards[:, :, None] - rewards.mean(dim=0)[None, None, :]).sign()",
            ),
            "compared with itself|equal rewards",
        ),
        Wrong("the sign is turned", changed(RANK, "beats.sum(dim=2)", "beats.sum(dim=1)"), "beats all others"),
        Wrong("only those that are beaten count", changed(RANK, ".sign()", ".sign().clamp(min=0)"), "beaten by all"),
        Wrong("the differences themselves", changed(RANK, ".sign()", ""), "beats all others"),
        Wrong(
            "an equal one counts as beaten",
            changed(
                RANK,
                "(rewards[:, :, None] - rewards[:, None, :]).sign()",
                "(rewards[:, :, None] >= rewards[:, None, :]).float() * 2 - 1",
            ),
            "beats all others",
        ),
        Wrong(
            "dense ranks of the batch",
            "\n".join(
                [
                    "import torch",
                    "",
                    "def rank_advantages(rewards):",
                    "    ranks = rewards.unique(return_inverse=True)[1].float()",
                    "    ranks = ranks - ranks.mean(dim=1, keepdim=True)",
                    "    return ranks / ranks.abs().amax(dim=1, keepdim=True).clamp(min=1e-9)",
                ]
            ),
            "equal rewards|compared with itself|only the order|random",
        ),
        Wrong(
            "divided by the std of the ranks",
            changed(
                RANK,
                "return beats.sum(dim=2) / (rewards.shape[1] - 1)",
                "a = beats.sum(dim=2)\n    return a / (a.std(dim=1, keepdim=True) + 1e-4)",
            ),
            "beats all",
        ),
        Wrong(
            "above or below the mean",
            "\n".join(
                [
                    "import torch",
                    "",
                    "def rank_advantages(rewards):",
                    "    return (rewards - rewards.mean(dim=1, keepdim=True)).sign()",
                ]
            ),
            "equal rewards|random|beats all",
        ),
        Wrong(
            "group advantages",
            "\n".join(
                [
                    "import torch",
                    "from favor_lab import group_advantages",
                    "",
                    "def rank_advantages(rewards):",
                    "    return group_advantages(rewards)",
                ]
            ),
            "beats all others",
        ),
        Wrong(
            "scaled by the range",
            "\n".join(
                [
                    "import torch",
                    "",
                    "def rank_advantages(rewards):",
                    "    low, high = rewards.amin(dim=1, keepdim=True), rewards.amax(dim=1, keepdim=True)",
                    "    return 2 * (rewards - low) / (high - low).clamp(min=1e-9) - 1",
                ]
            ),
            "beats all others",
        ),
        Wrong(
            "a list",
            changed(
                RANK,
                "return beats.sum(dim=2) / (rewards.shape[1] - 1)",
                "return (beats.sum(dim=2) / (rewards.shape[1] - 1)).tolist()",
            ),
            "give a tensor",
        ),
        Wrong(
            "whole numbers",
            changed(RANK, "/ (rewards.shape[1] - 1)", ".long() // (rewards.shape[1] - 1)"),
            "beats all others|should give",
        ),
        Wrong(
            "a column too many", changed(RANK, "beats.sum(dim=2)", "beats.sum(dim=2, keepdim=True)"), "give a tensor"
        ),
        Wrong(
            "the rewards are changed in place",
            changed(RANK, "    beats =", "    rewards -= rewards.mean(dim=1, keepdim=True)\n    beats ="),
            "have changed",
        ),
    ],
    "05.3": [
        Wrong(
            "not in units of the gradient of p",
            changed(FACTOR, "return total / (p * (1 - p))", "return total"),
            r"\(G - 1\)/G",
        ),
        Wrong(
            "the sum over completions, not their mean",
            changed(FACTOR, "total += chance *", "total += G * chance *"),
            r"\(G - 1\)/G",
        ),
        Wrong("the number of groups left out", changed(FACTOR, "comb(G, c) * ", ""), r"\(G - 1\)/G"),
        Wrong("s over n", changed(FACTOR, "sqrt(q * (1 - q) * G / (G - 1))", "sqrt(q * (1 - q))"), "root of 1/2"),
        Wrong("the p of the policy in place of c/G", changed(FACTOR, "q = c / G", "q = p"), r"\(G - 1\)/G"),
        Wrong(
            "s from the p of the policy",
            changed(FACTOR, "sqrt(q * (1 - q) * G / (G - 1))", "sqrt(p * (1 - p) * G / (G - 1))"),
            "root of 1/2|share of right",
        ),
        Wrong(
            "the limit for large groups",
            "\n".join(
                [
                    "def gradient_factor(p, G, scale='group'):",
                    "    return 1 / (p * (1 - p)) ** 0.5 if scale == 'group' else (G - 1) / G",
                ]
            ),
            "half of the groups are flat",
        ),
        Wrong(
            "the limit, without the flat groups",
            "\n".join(
                [
                    "def gradient_factor(p, G, scale='group'):",
                    "    if scale == 'none':",
                    "        return (G - 1) / G",
                    "    return (1 - p**G - (1 - p) ** G) / (p * (1 - p)) ** 0.5",
                ]
            ),
            "root of 1/2|any p",
        ),
        Wrong(
            "wrong completions left out",
            changed(FACTOR, "(q * A_right * (1 - p) - (1 - q) * A_wrong * p)", "q * A_right * (1 - p)"),
            r"\(G - 1\)/G",
        ),
        Wrong(
            "the sign of the wrong ones",
            changed(FACTOR, "- (1 - q) * A_wrong * p", "+ (1 - q) * A_wrong * p"),
            r"\(G - 1\)/G",
        ),
        Wrong(
            "flat groups are not counted",
            changed(FACTOR, "return total / (p * (1 - p))", "return total / (p * (1 - p)) / (1 - p**G - (1 - p) ** G)"),
            r"\(G - 1\)/G",
        ),
        Wrong("the scale is ignored", changed(FACTOR, 'if scale == "group" else 1.0', ""), r"\(G - 1\)/G"),
        Wrong("leave-one-out for none", changed(FACTOR, "else 1.0", "else (G - 1) / G"), r"\(G - 1\)/G"),
        Wrong(
            "the advantage with G - 1 in the other place",
            changed(FACTOR, "G / (G - 1))", "(G - 1) / G)"),
            "root of 1/2",
        ),
        Wrong("one c is left out", changed(FACTOR, "range(1, G)", "range(1, G - 1)"), r"\(G - 1\)/G|root of 1/2"),
        Wrong(
            "a pair of numbers",
            changed(FACTOR, "return total / (p * (1 - p))", "return total, p * (1 - p)"),
            "should give",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "05.1": [
        """
import statistics

def my_advantages(groups, scale="group", eps=1e-4):
    def spread(values):
        return statistics.stdev(values) if len(values) > 1 else 0.0

    everything = sum(groups, [])
    def one(own):
        mean = statistics.fmean(own)
        if scale == "none":
            return [r - mean for r in own]
        s = spread(own if scale == "group" else everything)
        return [(r - mean) / (s + eps) for r in own]

    return [one(own) for own in groups]
""",
        """
def my_advantages(groups, scale="group", eps=1e-4):
    def s(values):
        n = len(values)
        if n == 1:
            return 0.0
        m = sum(values) / n
        return (sum(v * v for v in [x - m for x in values]) / (n - 1)) ** 0.5

    result = [[r - sum(own) / len(own) for r in own] for own in groups]
    if scale != "none":
        batch = s([r for own in groups for r in own])
        for i, own in enumerate(groups):
            d = eps + (batch if scale == "batch" else s(own))
            result[i] = [a / d for a in result[i]]
    return result
""",
        """
import torch
from favor_lab import group_advantages

def my_advantages(groups, scale="group", eps=1e-4):
    width = max(map(len, groups)) + 1
    table = torch.tensor([own + [torch.nan] * (width - len(own)) for own in groups], dtype=torch.float64)
    rows = group_advantages(table, scale=scale, eps=eps).tolist()
    return [row[: len(own)] for own, row in zip(groups, rows)]
""",
        """
import numpy as np

def my_advantages(groups, scale="group", eps=1e-4):
    result = []
    for own in groups:
        values = np.array(own, dtype=float)
        centred = values - values.mean()
        if scale == "group":
            centred = centred / ((values.std(ddof=1) if len(own) > 1 else 0) + eps)
        elif scale == "batch":
            centred = centred / (np.std(np.concatenate(groups), ddof=1) + eps)
        result.append(centred.tolist())
    return result
""",
    ],
    "05.2": [
        """
def rank_advantages(rewards):
    larger = (rewards[:, None, :] > rewards[:, :, None]).sum(dim=2)
    smaller = (rewards[:, None, :] < rewards[:, :, None]).sum(dim=2)
    return (smaller - larger) / (rewards.shape[1] - 1)
""",
        """
import torch

def rank_advantages(rewards):
    result = torch.zeros_like(rewards)
    B, G = rewards.shape
    for b in range(B):
        for g in range(G):
            for h in range(G):
                result[b, g] += float(rewards[b, g] > rewards[b, h]) - float(rewards[b, g] < rewards[b, h])
    return result / (G - 1)
""",
        """
import torch

def rank_advantages(rewards):
    rows = []
    for own in rewards:
        order = own.sort().values
        below = torch.searchsorted(order, own, right=False)
        upto = torch.searchsorted(order, own, right=True)
        rows.append((below - (len(own) - upto)).float() / (len(own) - 1))
    return torch.stack(rows)
""",
        """
import torch

def rank_advantages(rewards):
    table = rewards.unsqueeze(2).sub(rewards.unsqueeze(1))
    return torch.where(table > 0, 1.0, torch.where(table < 0, -1.0, 0.0)).sum(-1).div(rewards.size(1) - 1)
""",
    ],
    "05.3": [
        """
from math import comb

def gradient_factor(p, G, scale="group"):
    k = ((G - 1) / G) ** 0.5
    total = 0.0
    for c in range(G + 1):
        w = comb(G, c) * p**c * (1 - p) ** (G - c)
        step = k * (c * (G - c)) ** 0.5 / G if scale == "group" else c * (G - c) / G**2
        total += w * step
    return total / p / (1 - p)
""",
        """
import torch

def gradient_factor(p, G, scale="group"):
    if scale == "none":
        return (G - 1) / G
    c = torch.arange(1, G, dtype=torch.float64)
    g = torch.tensor(float(G), dtype=torch.float64)
    logs = torch.lgamma(g + 1) - torch.lgamma(c + 1) - torch.lgamma(g - c + 1)
    logs = logs + c * torch.log(torch.tensor(p).double()) + (g - c) * torch.log1p(torch.tensor(-p).double())
    steps = torch.sqrt((G - 1) / g) * torch.sqrt(c * (g - c)) / g
    return float((logs.exp() * steps).sum() / (p * (1 - p)))
""",
        """
from math import exp, lgamma, log, sqrt

def gradient_factor(p, G, scale="group"):
    def chance(c):
        return exp(lgamma(G + 1) - lgamma(c + 1) - lgamma(G - c + 1) + c * log(p) + (G - c) * log(1 - p))

    def step(c):
        rewards = [1] * c + [0] * (G - c)
        mean = sum(rewards) / G
        s = sqrt(sum((r - mean) ** 2 for r in rewards) / (G - 1)) if scale == "group" else 1
        return sum((r - mean) / s * (1 - p if r else -p) for r in rewards) / G

    return sum(chance(c) * step(c) for c in range(1, G)) / (p * (1 - p))
""",
        """
import math

def gradient_factor(p, G, scale="group"):
    chances = [(1 - p) ** G]
    for c in range(1, G + 1):
        chances.append(math.comb(G, c) * p**c * (1 - p) ** (G - c))
    total = 0
    for c in range(1, G):
        right, wrong = (G - c) / G, -c / G
        if scale == "group":
            variance = (c * right**2 + (G - c) * wrong**2) / (G - 1)
            right, wrong = right / math.sqrt(variance), wrong / math.sqrt(variance)
        total += chances[c] * right * c / G
    return total / (p - p * p)
""",
    ],
}
