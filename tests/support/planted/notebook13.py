"""Wrong and right answers to the exercises of notebook 13, other ways to sample."""

from planted import Wrong, changed

HEAD = "import torch\n\nfrom favor_lab import group_advantages\n\n"
LABEL_ROW = (
    HEAD
    + """
def label_row(accuracy, form, control, label_form):
    sums = accuracy + form
    solved = (accuracy == 1).any(dim=1)
    label = torch.full((len(sums),), 1.0 + label_form)
    if control == "smooth":
        label = torch.where(solved, sums.mean(dim=1), label)
    elif control == "drop":
        label = label.masked_fill(solved, torch.nan)
    rewards = torch.cat([sums, label[:, None]], dim=1)
    return rewards, group_advantages(rewards)
"""
)
KEPT = """
import torch


def mixed(right, groups):
    return torch.isin(groups, groups[right]) & torch.isin(groups, groups[~right])


def sampled_per_kept(rates, G):
    kept = sum(1 - p**G - (1 - p) ** G for p in rates) / len(rates)
    return 1 / kept if kept > 0 else float("inf")
"""
MIXED = "return torch.isin(groups, groups[right]) & torch.isin(groups, groups[~right])"
COST = """    kept = sum(1 - p**G - (1 - p) ** G for p in rates) / len(rates)
    return 1 / kept if kept > 0 else float("inf")
"""
REPLAY = """
def replay(texts, right, buffer, choose, capacity):
    learnt = list(texts)
    if buffer and not any(right):
        learnt[0] = choose(buffer)
    successes = buffer + [text for text, is_right in zip(texts, right) if is_right]
    return learnt, successes[max(0, len(successes) - capacity) :]
"""
LAST = "successes[max(0, len(successes) - capacity) :]"

PLANTED: dict[str, list[Wrong]] = {
    "13.1": [
        Wrong(
            "the published comparison, on the sum of the rewards",
            changed(LABEL_ROW, "(accuracy == 1).any(dim=1)", "sums.amax(dim=1) >= 1.0 + label_form"),
            "is it silenced",
        ),
        Wrong(
            "solved means right and well formed",
            changed(LABEL_ROW, "(accuracy == 1).any(dim=1)", "(sums == 2).any(dim=1)"),
            "right and malformed",
        ),
        Wrong(
            "one verdict for all groups",
            changed(LABEL_ROW, "(accuracy == 1).any(dim=1)", "(accuracy == 1).any().repeat(len(accuracy))"),
            "each group by itself",
        ),
        Wrong(
            "solved means all right",
            changed(LABEL_ROW, "(accuracy == 1).any(dim=1)", "(accuracy == 1).all(dim=1)"),
            "mean of the sums",
        ),
        Wrong(
            "the label's row is silenced where nothing is right",
            changed(LABEL_ROW, "(accuracy == 1).any(dim=1)", "~(accuracy == 1).any(dim=1)"),
            "all wrong",
        ),
        Wrong(
            "the mean includes the label's row",
            changed(LABEL_ROW, "sums.mean(dim=1), label)", "(sums.sum(dim=1) + label) / (sums.shape[1] + 1), label)"),
            "mean of the sums of the G",
        ),
        Wrong(
            "the mean of the accuracy alone",
            changed(LABEL_ROW, "sums.mean(dim=1), label)", "accuracy.mean(dim=1), label)"),
            "mean of the sums of the G",
        ),
        Wrong(
            "accuracy smoothed, points for the form kept",
            changed(LABEL_ROW, "sums.mean(dim=1), label)", "accuracy.mean(dim=1) + label_form, label)"),
            "right and malformed|mean of the sums|random table",
        ),
        Wrong(
            "the mean of all groups",
            changed(LABEL_ROW, "sums.mean(dim=1), label)", "sums.mean(), label)"),
            "each group by itself",
        ),
        Wrong("the form of the label is always 1", changed(LABEL_ROW, "1.0 + label_form)", "2.0)"), "label_form. used"),
        Wrong(
            "the label has no points for the form", changed(LABEL_ROW, "1.0 + label_form)", "1.0)"), r"accuracy \+ form"
        ),
        Wrong(
            "dropped means a reward of 0",
            changed(LABEL_ROW, "label.masked_fill(solved, torch.nan)", "label.masked_fill(solved, 0.0)"),
            "absent, NaN",
        ),
        Wrong(
            "dropped as if it were smoothed",
            changed(LABEL_ROW, "label.masked_fill(solved, torch.nan)", "torch.where(solved, sums.mean(dim=1), label)"),
            "absent, NaN",
        ),
        Wrong(
            "dropped in every group",
            changed(LABEL_ROW, "label.masked_fill(solved, torch.nan)", "torch.full_like(label, torch.nan)"),
            "all wrong",
        ),
        Wrong(
            "the advantage is set to 0 after the comparison",
            changed(
                LABEL_ROW,
                """    if control == "smooth":
        label = torch.where(solved, sums.mean(dim=1), label)
    elif control == "drop":
        label = label.masked_fill(solved, torch.nan)
    rewards = torch.cat([sums, label[:, None]], dim=1)
    return rewards, group_advantages(rewards)
""",
                """    rewards = torch.cat([sums, label[:, None]], dim=1)
    advantages = group_advantages(rewards)
    if control != "naive":
        advantages[solved, -1] = 0.0
    return rewards, advantages
""",
            ),
            "mean of the sums",
        ),
        Wrong(
            "the label's row is the first",
            changed(LABEL_ROW, "torch.cat([sums, label[:, None]], dim=1)", "torch.cat([label[:, None], sums], dim=1)"),
            "the last row",
        ),
        Wrong(
            "the rewards are the accuracy alone",
            changed(LABEL_ROW, "sums = accuracy + form", "sums = accuracy.clone()"),
            r"accuracy \+ form",
        ),
        Wrong(
            "a std with n",
            changed(LABEL_ROW, "group_advantages(rewards)\n", "group_advantages(rewards, unbiased=False)\n"),
            "group_advantages of rewards",
        ),
        Wrong(
            "the sum is written into an argument",
            changed(LABEL_ROW, "sums = accuracy + form", "sums = form.add_(accuracy)"),
            "given tensors were changed|all-wrong",
        ),
        Wrong(
            "the advantages alone",
            changed(LABEL_ROW, "return rewards, group_advantages(rewards)", "return group_advantages(rewards)"),
            "return a pair",
        ),
        Wrong(
            "the label's row is left out of the advantages",
            changed(LABEL_ROW, "group_advantages(rewards)\n", "group_advantages(rewards)[:, :-1]\n"),
            r"\(B, G \+ 1\) tensor",
        ),
    ],
    "13.2": [
        Wrong(
            "all-right groups are kept",
            changed(KEPT, MIXED, "return torch.isin(groups, groups[right])"),
            "all-right group is left out",
        ),
        Wrong(
            "all-wrong groups are kept",
            changed(KEPT, MIXED, "return torch.isin(groups, groups[~right])"),
            "all-wrong group is left out",
        ),
        Wrong(
            "flat groups in place of mixed ones",
            changed(KEPT, MIXED, "return ~(torch.isin(groups, groups[right]) & torch.isin(groups, groups[~right]))"),
            "a group with both kinds is kept",
        ),
        Wrong(
            "only the right rows of mixed groups",
            changed(KEPT, MIXED, "return right & torch.isin(groups, groups[~right])"),
            "with all of its rows",
        ),
        Wrong(
            "a verdict of the whole step",
            changed(KEPT, MIXED, "return torch.full_like(right, bool(right.any() and (~right).any()))"),
            "all-wrong group is left out",
        ),
        Wrong(
            "group numbers in place of a row mask",
            changed(
                KEPT, MIXED, "return groups[torch.isin(groups, groups[right]) & torch.isin(groups, groups[~right])]"
            ),
            "bool tensor",
        ),
        Wrong(
            "one verdict for each group",
            changed(
                KEPT,
                MIXED,
                "return torch.stack([right[groups == g].any() & (~right[groups == g]).any() for g in groups.unique()])",
            ),
            "one bool for each row",
        ),
        Wrong(
            "half of the group must be right",
            changed(KEPT, MIXED, "return torch.stack([right[groups == g].float().mean() == 0.5 for g in groups])"),
            "different sizes|any order|one right of eight|random rows",
        ),
        Wrong(
            "at least two right completions",
            changed(
                KEPT,
                MIXED,
                "return torch.stack([(right[groups == g].sum() > 1) & (~right[groups == g]).any() for g in groups])",
            ),
            "different sizes|all-wrong|random rows",
        ),
        Wrong(
            "prompt indices are taken as 0 to B - 1, the last one left out",
            changed(
                KEPT,
                MIXED,
                """keep = torch.zeros_like(right)
    for g in range(int(groups.max())):
        rows = groups == g
        keep[rows] = right[rows].any() & (~right[rows]).any()
    return keep""",
            ),
            "both kinds is kept|different sizes|gaps",
        ),
        Wrong(
            "rows are taken to stand group by group",
            changed(
                KEPT,
                MIXED,
                """parts, start = [], 0
    for size in groups.bincount()[groups.bincount() > 0].tolist():
        part = right[start : start + size]
        parts.append((part.any() & (~part).any()).repeat(size))
        start += size
    return torch.cat(parts)""",
            ),
            "any order|gaps|random rows",
        ),
        Wrong(
            "the number of completions",
            changed(KEPT, "return 1 / kept if", "return G / kept if"),
            "one over the chance",
        ),
        Wrong(
            "the share of kept groups",
            changed(KEPT, "return 1 / kept if", "return 1.0 * kept if"),
            "one over the chance",
        ),
        Wrong(
            "only the groups that are left out",
            changed(KEPT, "return 1 / kept if", "return 1 / kept - 1 if"),
            "one over the chance",
        ),
        Wrong(
            "all-right groups are forgotten",
            changed(KEPT, "1 - p**G - (1 - p) ** G", "1 - (1 - p) ** G"),
            "one over the chance",
        ),
        Wrong(
            "all-wrong groups are forgotten",
            changed(KEPT, "1 - p**G - (1 - p) ** G", "1 - p**G"),
            "one over the chance",
        ),
        Wrong(
            "the mean rate in the formula",
            changed(
                KEPT,
                COST,
                """    p = sum(rates) / len(rates)
    kept = 1 - p**G - (1 - p) ** G
    return 1 / kept if kept > 0 else float("inf")
""",
            ),
            "one over the chance",
        ),
        Wrong(
            "the mean of the images' costs",
            changed(
                KEPT,
                COST,
                """    shares = [1 - p**G - (1 - p) ** G for p in rates]
    return sum(1 / share if share > 0 else float("inf") for share in shares) / len(rates)
""",
            ),
            "one over the chance",
        ),
        Wrong(
            "images that are never mixed are not counted",
            changed(KEPT, COST, COST.replace("len(rates)", "max(1, sum(0 < p < 1 for p in rates))")),
            "one over the chance",
        ),
        Wrong("the sum of the chances, not their mean", changed(KEPT, " / len(rates)", ""), "one over the chance"),
        Wrong(
            "a variance in place of the chance",
            changed(KEPT, "1 - p**G - (1 - p) ** G", "G * p * (1 - p)"),
            "one over the chance",
        ),
        Wrong("0 where nothing can be kept", changed(KEPT, 'else float("inf")', "else 0.0"), "one over the chance"),
        Wrong(
            "rounded up to whole groups",
            changed(KEPT, "return 1 / kept if", "return float(-(-1 // kept)) if"),
            "one over the chance",
        ),
    ],
    "13.3": [
        Wrong(
            "replayed wherever the first completion is wrong",
            changed(REPLAY, "not any(right)", "not right[0]"),
            "nothing is replayed",
        ),
        Wrong(
            "replayed wherever one completion is wrong",
            changed(REPLAY, "not any(right)", "not all(right)"),
            "nothing is replayed",
        ),
        Wrong(
            "the last completion gives way",
            changed(REPLAY, "learnt[0] =", "learnt[-1] ="),
            "first completion gives way",
        ),
        Wrong(
            "the success is added to the group",
            changed(REPLAY, "learnt[0] = choose(buffer)", "learnt.append(choose(buffer))"),
            "first completion gives way",
        ),
        Wrong(
            "the success is put in front, and nothing leaves",
            changed(REPLAY, "learnt[0] = choose(buffer)", "learnt.insert(0, choose(buffer))"),
            "first completion gives way",
        ),
        Wrong(
            "every completion gives way",
            changed(REPLAY, "learnt[0] = choose(buffer)", "learnt = [choose(buffer)] * len(texts)"),
            "first completion gives way",
        ),
        Wrong(
            "the newest success, whatever `choose` says",
            changed(REPLAY, "choose(buffer)", "buffer[-1]"),
            "the chosen success",
        ),
        Wrong(
            "the oldest success, whatever `choose` says",
            changed(REPLAY, "choose(buffer)", "buffer[0]"),
            "first completion gives way|choose is called",
        ),
        Wrong(
            "`choose` is called in every step",
            changed(
                REPLAY,
                "    if buffer and not any(right):\n        learnt[0] = choose(buffer)\n",
                "    success = choose(buffer)\n    if buffer and not any(right):\n        learnt[0] = success\n",
            ),
            "called once",
        ),
        Wrong(
            "an empty buffer is replayed from",
            changed(REPLAY, "if buffer and not any(right)", "if not any(right)"),
            "without an earlier success",
        ),
        Wrong(
            "the replayed success is kept a second time",
            changed(
                REPLAY,
                "learnt[0] = choose(buffer)",
                "learnt[0] = choose(buffer)\n        buffer = [*buffer, learnt[0]]",
            ),
            "new buffer: the first completion",
        ),
        Wrong(
            "a replayed success is used up",
            changed(
                REPLAY,
                "learnt[0] = choose(buffer)",
                "learnt[0] = choose(buffer)\n        buffer = [text for text in buffer if text != learnt[0]]",
            ),
            "new buffer: the first completion",
        ),
        Wrong("a slice from minus the capacity", changed(REPLAY, LAST, "successes[-capacity:]"), "at most `capacity`"),
        Wrong(
            "the first successes are kept, not the last", changed(REPLAY, LAST, "successes[:capacity]"), "the last ones"
        ),
        Wrong(
            "the capacity counts the new successes alone",
            changed(
                REPLAY,
                "for text, is_right in zip(texts, right) if is_right]\n    return learnt, " + LAST,
                "for text, is_right in zip(texts, right) if is_right][:capacity]\n    return learnt, successes",
            ),
            "at most",
        ),
        Wrong("the buffer has no bound", changed(REPLAY, LAST, "successes"), "at most `capacity`"),
        Wrong(
            "a text is kept only once",
            changed(REPLAY, LAST, "list(dict.fromkeys(successes))[max(0, len(set(successes)) - capacity) :]"),
            "also a second time",
        ),
        Wrong(
            "only the first new success is kept",
            changed(REPLAY, "if is_right]\n", "if is_right][:1]\n"),
            "all new successes",
        ),
        Wrong(
            "new successes stand before the earlier ones",
            changed(
                REPLAY,
                "buffer + [text for text, is_right in zip(texts, right) if is_right]",
                "[text for text, is_right in zip(texts, right) if is_right] + buffer",
            ),
            "new buffer",
        ),
        Wrong(
            "failures are kept too",
            changed(REPLAY, "[text for text, is_right in zip(texts, right) if is_right]", "list(texts)"),
            "new buffer",
        ),
        Wrong(
            "the buffer is changed in place",
            changed(REPLAY, "successes = buffer + [", "successes = buffer\n    successes += ["),
            "an argument was changed",
        ),
        Wrong(
            "the texts are changed in place",
            changed(REPLAY, "learnt = list(texts)", "learnt = texts"),
            "an argument was changed",
        ),
        Wrong("the texts alone", changed(REPLAY, "return learnt, " + LAST, "return learnt"), "return a pair"),
    ],
}

RIGHT: dict[str, list[str]] = {
    "13.1": [
        HEAD
        + """
def label_row(accuracy, form, control, label_form):
    groups = []
    for a, f in zip(accuracy, form):
        r = a + f
        label = torch.tensor(1.0 + label_form)
        if a.max() == 1 and control == "smooth":
            label = r.mean()
        if a.max() == 1 and control == "drop":
            label = torch.tensor(float("nan"))
        groups.append(torch.cat([r, label.view(1)]))
    rewards = torch.stack(groups)
    return rewards, group_advantages(rewards)
""",
        HEAD
        + """
def label_row(accuracy, form, control, label_form):
    B, G = accuracy.shape
    rewards = torch.empty(B, G + 1)
    rewards[:, :G] = accuracy + form
    rewards[:, G] = 1 + label_form
    solved = accuracy.sum(dim=1) > 0
    if control == "smooth":
        rewards[solved, G] = rewards[solved, :G].mean(dim=1)
    elif control == "drop":
        rewards[solved, G] = float("nan")
    return rewards, group_advantages(rewards)
""",
        HEAD
        + """
def label_row(accuracy, form, control, label_form):
    sums = accuracy + form
    kept = torch.full((len(sums), 1), 1 + float(label_form))
    instead = {"naive": kept, "smooth": sums.mean(1, keepdim=True), "drop": kept * float("nan")}
    label = torch.where(accuracy.bool().any(1, keepdim=True), instead[control], kept)
    rewards = torch.hstack([sums, label])
    return rewards, group_advantages(rewards)
""",
        """
import torch


def label_row(accuracy, form, control, label_form):
    sums, wrong = accuracy + form, 1 - accuracy.amax(dim=1)
    label = {"naive": torch.ones(len(sums)) + label_form, "smooth": sums.mean(dim=1)}.get(control, sums.mean(dim=1))
    label = wrong * (1 + label_form) + (1 - wrong) * label
    if control == "drop":
        label[wrong == 0] = torch.nan
    rewards = torch.column_stack([sums, label])
    centred = rewards - rewards.nanmean(dim=1, keepdim=True)
    count = (~rewards.isnan()).sum(dim=1, keepdim=True)
    std = (centred.nan_to_num().square().sum(dim=1, keepdim=True) / (count - 1)).sqrt()
    return rewards, (centred / (std + 1e-4)).nan_to_num()
""",
    ],
    "13.2": [
        """
import torch


def mixed(right, groups):
    keep = torch.zeros(len(right), dtype=torch.bool)
    for group in groups.unique():
        rows = groups == group
        keep[rows] = len(right[rows].unique()) == 2
    return keep


def sampled_per_kept(rates, G):
    chances = [1 - p**G - (1 - p) ** G for p in rates]
    total = sum(chances)
    return len(chances) / total if total else float("inf")
""",
        """
import torch


def mixed(right, groups):
    numbers = {int(g) for g, r in zip(groups, right) if r} & {int(g) for g, r in zip(groups, right) if not r}
    return torch.tensor([int(g) in numbers for g in groups], dtype=torch.bool)


def sampled_per_kept(rates, G):
    p = torch.tensor(rates, dtype=torch.float64)
    kept = (1 - p**G - (1 - p) ** G).mean().item()
    return float("inf") if kept == 0 else 1 / kept
""",
        """
import torch


def mixed(right, groups):
    index = groups.unique(return_inverse=True)[1]
    count = torch.bincount(index)[index]
    successes = torch.bincount(index, weights=right.double())[index]
    return (successes > 0) & (successes < count)


def sampled_per_kept(rates, G):
    flat = sum(p**G + (1 - p) ** G for p in rates) / len(rates)
    return float("inf") if flat >= 1 else 1 / (1 - flat)
""",
        """
import math

import torch


def mixed(right, groups):
    same = groups[:, None] == groups[None, :]
    different = right[:, None] != right[None, :]
    return (same & different).any(dim=1)


def sampled_per_kept(rates, G):
    kept = 0.0
    for p in rates:
        kept += sum(math.comb(G, c) * p**c * (1 - p) ** (G - c) for c in range(1, G)) / len(rates)
    return math.inf if kept == 0 else 1 / kept
""",
    ],
    "13.3": [
        """
from collections import deque


def replay(texts, right, buffer, choose, capacity):
    replaces = len(buffer) > 0 and sum(right) == 0
    learnt = [choose(buffer)] + texts[1:] if replaces else texts[:]
    kept = deque(buffer, maxlen=capacity)
    kept.extend(text for text, good in zip(texts, right) if good)
    return learnt, list(kept)
""",
        """
def replay(texts, right, buffer, choose, capacity):
    fresh = [texts[i] for i in range(len(texts)) if right[i]]
    if not fresh and buffer:
        learnt = [choose(list(buffer)), *texts[1:]]
    else:
        learnt = [*texts]
    kept = [*buffer, *fresh]
    return learnt, kept[-capacity:] if capacity else []
""",
        """
from itertools import compress


def replay(texts, right, buffer, choose, capacity):
    kept = list(buffer)
    for success in compress(texts, right):
        kept.append(success)
    while len(kept) > capacity:
        kept.pop(0)
    learnt = texts.copy()
    if True not in right and buffer:
        learnt[:1] = [choose(buffer)]
    return learnt, kept
""",
        """
def replay(texts, right, buffer, choose, capacity):
    first = choose(buffer) if len(buffer) and not max(right) else texts[0]
    successes = buffer + [t for t, r in zip(texts, right) if r]
    return [first] + texts[1:], successes[::-1][:capacity][::-1]
""",
    ],
}
