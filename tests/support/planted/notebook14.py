"""Wrong and right answers to the exercises of notebook 14, other rewards."""

from planted import Wrong, changed

VOTES = """
from collections import Counter

from favor_lab import extract_answer, normalise_label

def other_votes(completions, groups):
    names = []
    for text in completions:
        answer = extract_answer(text)
        names.append(normalise_label(answer) if answer is not None else "")
    votes = Counter(zip(groups, names))
    voters = Counter(group for group, name in zip(groups, names) if name)
    rewards = []
    for group, name in zip(groups, names):
        if not name or voters[group] < 2:
            rewards.append(0.0)
        else:
            rewards.append((votes[group, name] - 1) / (voters[group] - 1))
    return rewards
"""
BY_GROUP = """
from favor_lab import extract_answer, normalise_label

def other_votes(completions, groups):
    names = [normalise_label(extract_answer(text) or "") for text in completions]
    rewards = [0.0] * len(names)
    for i, (group, name) in enumerate(zip(groups, names)):
        others = [n for j, n in enumerate(names) if j != i and groups[j] == group and n]
        if name and others:
            rewards[i] = others.count(name) / len(others)
    return rewards
"""
SCORE = """
def priced_score(statements, scene, price):
    true = {one for one in statements if one in scene}
    false = {one for one in statements if one not in scene}
    return max(-1.0, (len(true) - price * len(false)) / len(set(scene)))
"""
GUESS = """
def worth_guessing(p, price):
    return p - price * (1 - p) > 0
"""
PRICE = """
def least_price(scene, world):
    true, false = len(set(scene)), len(set(world) - set(scene))
    return true / false if false else 0.0
"""
HEAD = """
import torch

from favor_lab import group_advantages
from favor_lab.grpo.advantages import to_groups

def apart(rewards, weights, groups, eps=1e-4):"""
APART = """
import torch

from favor_lab import group_advantages
from favor_lab.grpo.advantages import to_groups

def apart(rewards, weights, groups, eps=1e-4):
    total = torch.zeros(len(groups))
    for name, values in rewards.items():
        for group in groups.unique():
            rows = (groups == group) & ~values.isnan()
            own = values[rows]
            if len(own) > 1:
                total[rows] += weights.get(name, 1.0) * (own - own.mean()) / (own.std() + eps)
    return total
"""
TABLE = """
import torch

from favor_lab import group_advantages
from favor_lab.grpo.advantages import to_groups

def apart(rewards, weights, groups, eps=1e-4):
    total = torch.zeros(len(groups))
    for name, values in rewards.items():
        table, place = to_groups(values, groups)
        total += weights.get(name, 1.0) * group_advantages(table, eps=eps)[place]
    return total
"""

PLANTED = {
    "14.1": [
        Wrong(
            "TTRV's own reward, which counts the completion itself",
            """
from favor_lab.recipes.ttrv import vote_reward

def other_votes(completions, groups):
    return vote_reward(completions, groups, alpha=0.0)
""",
            "must not vote for itself",
        ),
        Wrong(
            "itself taken out of the votes, not of the voters",
            changed(VOTES, "(voters[group] - 1)", "voters[group]"),
            "divide by the other voters",
        ),
        Wrong(
            "itself taken out of the voters, not of the votes",
            changed(VOTES, "(votes[group, name] - 1)", "votes[group, name]"),
            "must not vote for itself",
        ),
        Wrong(
            "divided by the size of the group",
            changed(
                VOTES,
                "voters = Counter(group for group, name in zip(groups, names) if name)",
                "voters = Counter(groups)",
            ),
            "missing answer",
        ),
        Wrong(
            "missing answers vote for each other",
            changed(VOTES, "not name or voters", "voters").replace(" if name)", ")"),
            "missing answer",
        ),
        Wrong(
            "an answer that is empty after normalising votes",
            """
from favor_lab import extract_answer, normalise_label

def other_votes(completions, groups):
    answers = [extract_answer(text) for text in completions]
    names = [None if answer is None else normalise_label(answer) for answer in answers]
    rewards = []
    for i, name in enumerate(names):
        others = [n for j, n in enumerate(names) if j != i and groups[j] == groups[i] and n is not None]
        rewards.append(others.count(name) / len(others) if name is not None and others else 0.0)
    return rewards
""",
            "empty after normalising",
        ),
        Wrong(
            "names as they were written",
            changed(BY_GROUP, 'normalise_label(extract_answer(text) or "")', 'extract_answer(text) or ""')
            .replace("and n]", 'and n not in ("", ".")]')
            .replace("if name and others", 'if name not in ("", ".") and others'),
            "normalise_label",
        ),
        Wrong(
            "only lower case",
            changed(
                BY_GROUP,
                'normalise_label(extract_answer(text) or "")',
                "(extract_answer(text) or \"\").lower().strip('.')",
            ),
            "normalise_label",
        ),
        Wrong(
            "a lone voter agrees with itself",
            changed(VOTES, "            rewards.append(0.0)", "            rewards.append(float(bool(name)))"),
            "without another voter",
        ),
        Wrong("all groups together", changed(BY_GROUP, " and groups[j] == group", ""), "within a group"),
        Wrong(
            "groups are taken to be consecutive rows",
            """
from itertools import groupby

from favor_lab import extract_answer, normalise_label

def other_votes(completions, groups):
    names, rewards, start = [normalise_label(extract_answer(text) or "") for text in completions], [], 0
    for _, members in groupby(groups):
        own = names[start : start + len(list(members))]
        start += len(own)
        v = sum(1 for name in own if name)
        rewards += [(own.count(name) - 1) / (v - 1) if name and v > 1 else 0.0 for name in own]
    return rewards
""",
            "groups may be mixed",
        ),
        Wrong(
            "the majority earns 1, others 0",
            changed(BY_GROUP, "others.count(name) / len(others)", "float(others.count(name) >= len(others) / 2)"),
            "must not vote for itself; divide",
        ),
        Wrong(
            "None where nothing is earned",
            changed(VOTES, "rewards.append(0.0)", "rewards.append(None)"),
            "must be a float",
        ),
        Wrong(
            "a number for the whole batch",
            changed(BY_GROUP, "    return rewards\n", "    return sum(rewards) / len(rewards)\n"),
            "give a list",
        ),
    ],
    "14.2": [
        Wrong(
            "no lower bound",
            changed(
                SCORE,
                "max(-1.0, (len(true) - price * len(false)) / len(set(scene)))",
                "(len(true) - price * len(false)) / len(set(scene))",
            )
            + GUESS
            + PRICE,
            "never below -1",
        ),
        Wrong("never below 0", changed(SCORE, "-1.0", "0.0") + GUESS + PRICE, "can fall to it"),
        Wrong(
            "a false statement costs 1, whatever the price",
            changed(SCORE, "price * len", "len") + GUESS + PRICE,
            "costs the price",
        ),
        Wrong(
            "false statements are free", changed(SCORE, " - price * len(false)", "") + GUESS + PRICE, "costs the price"
        ),
        Wrong(
            "a share of what is statements, precision in place of recall",
            changed(SCORE, "len(set(scene))", "max(1, len(set(statements)))") + GUESS + PRICE,
            "statements of the scene",
        ),
        Wrong(
            "false statements as a share of what is statements",
            changed(
                SCORE,
                "(len(true) - price * len(false)) / len(set(scene))",
                "len(true) / len(set(scene)) - price * len(false) / max(1, len(set(statements)))",
            )
            + GUESS
            + PRICE,
            "costs the price",
        ),
        Wrong(
            "repetitions are counted",
            """
def priced_score(statements, scene, price):
    true = sum(one in scene for one in statements)
    return max(-1.0, (true - price * (len(statements) - true)) / len(set(scene)))
"""
            + GUESS
            + PRICE,
            "counts once",
        ),
        Wrong(
            "the scene's repetitions are counted",
            changed(SCORE, "len(set(scene))", "len(scene)") + GUESS + PRICE,
            "scene's statements count once",
        ),
        Wrong(
            "silence earns 1, as nothing false is said",
            changed(SCORE, "    return", "    if not statements:\n        return 1.0\n    return") + GUESS + PRICE,
            r"\[\] at price",
        ),
        Wrong("the sign of the price", changed(SCORE, "- price", "+ price") + GUESS + PRICE, "costs the price"),
        Wrong(
            "a guess pays above one half, whatever the price",
            SCORE + changed(GUESS, "p - price * (1 - p) > 0", "p > 0.5") + PRICE,
            "a guess of p",
        ),
        Wrong(
            "a guess pays above the price",
            SCORE + changed(GUESS, "p - price * (1 - p) > 0", "p > price") + PRICE,
            "a guess of p",
        ),
        Wrong(
            "a guess that changes nothing is worth it", SCORE + changed(GUESS, "> 0", ">= 0") + PRICE, "a guess of p"
        ),
        Wrong(
            "the limit is price / 2",
            SCORE + changed(GUESS, "p - price * (1 - p) > 0", "p > price / 2") + PRICE,
            "a guess of p",
        ),
        Wrong(
            "the price 1, whatever the world",
            SCORE + GUESS + "\ndef least_price(scene, world):\n    return 1.0\n",
            "does not score exactly 0",
        ),
        Wrong(
            "true statements by all statements",
            SCORE + GUESS + changed(PRICE, "len(set(world) - set(scene))", "len(set(world))"),
            "does not score exactly 0",
        ),
        Wrong(
            "upside down",
            SCORE + GUESS + changed(PRICE, "true / false if", "false / true if"),
            "does not score exactly 0",
        ),
        Wrong(
            "repetitions in the world are counted",
            SCORE + GUESS + changed(PRICE, "len(set(world) - set(scene))", "sum(one not in scene for one in world)"),
            "does not score exactly 0",
        ),
        Wrong(
            "an endless price where none is needed",
            SCORE + GUESS + changed(PRICE, "else 0.0", 'else float("inf")'),
            "does not score exactly 0",
        ),
    ],
    "14.3": [
        Wrong(
            "the sum is normalised",
            HEAD
            + """
    total = torch.zeros(len(groups))
    for name, values in rewards.items():
        total += weights.get(name, 1.0) * values.nan_to_num(0.0)
    table, place = to_groups(total, groups)
    return group_advantages(table, eps=eps)[place]
""",
            "normalise each reward first",
        ),
        Wrong(
            "the weight acts before the statistic",
            changed(TABLE, "to_groups(values, groups)", "to_groups(weights.get(name, 1.0) * values, groups)").replace(
                "weights.get(name, 1.0) * group_advantages", "group_advantages"
            ),
            "weights act after",
        ),
        Wrong("no weights", changed(TABLE, "weights.get(name, 1.0) * ", ""), "weights act after"),
        Wrong(
            "a reward without a weight is left out",
            changed(TABLE, "weights.get(name, 1.0)", "weights.get(name, 0.0)"),
            "counts 1.0",
        ),
        Wrong(
            "the standard deviation over n",
            changed(APART, "own.std()", "own.std(correction=0)"),
            "normalise each reward first",
        ),
        Wrong("no division", changed(APART, " / (own.std() + eps)", ""), "normalise each reward first"),
        Wrong("no mean is subtracted", changed(APART, "(own - own.mean())", "own"), "normalise each reward first"),
        Wrong(
            "the whole batch is one group",
            changed(APART, "(groups == group) & ~values.isnan()", "~values.isnan()").replace(
                "for group in groups.unique()", "for group in range(1)"
            ),
            "groups are mixed",
        ),
        Wrong(
            "the standard deviation of the whole batch",
            changed(TABLE, "group_advantages(table, eps=eps)", 'group_advantages(table, eps=eps, scale="batch")'),
            "groups are mixed",
        ),
        Wrong(
            "rows in the order of the groups",
            HEAD
            + """
    total = torch.zeros(len(groups))
    for name, values in rewards.items():
        parts = [values[groups == group] for group in groups.unique()]
        z = [(own - own.mean()) / (own.std(correction=min(1, len(own) - 1)) + eps) for own in parts]
        total += weights.get(name, 1.0) * torch.cat(z)
    return total
""",
            "groups are mixed",
        ),
        Wrong(
            "NaN counts as 0",
            changed(TABLE, "to_groups(values, groups)", "to_groups(values.nan_to_num(0.0), groups)"),
            "NaN counts nowhere",
        ),
        Wrong(
            "NaN stays", changed(APART, "(groups == group) & ~values.isnan()", "groups == group"), "NaN counts nowhere"
        ),
        Wrong(
            "eps in place of the standard deviation's sum",
            changed(APART, "own.std() + eps", "own.std().clamp(min=eps)"),
            "eps is added",
        ),
        Wrong(
            "eps forgotten",
            changed(TABLE, "group_advantages(table, eps=eps)", "group_advantages(table)"),
            "eps is added",
        ),
        Wrong(
            "divided by the number of rewards",
            changed(TABLE, "    return total", "    return total / len(rewards)"),
            "normalise each reward first",
        ),
        Wrong(
            "a table in place of rows",
            changed(TABLE, "    return total", "    return to_groups(total, groups)[0]"),
            r"shape \(N,\)",
        ),
    ],
}

RIGHT = {
    "14.1": [
        VOTES,
        BY_GROUP,
        """
from collections import defaultdict

import favor_lab

def other_votes(completions, groups):
    rewards, members = [0.0 for _ in completions], defaultdict(list)
    for row, (text, group) in enumerate(zip(completions, groups)):
        name = favor_lab.normalise_label(favor_lab.extract_answer(text) or "")
        if name:
            members[group].append((row, name))
    for voters in members.values():
        for row, name in voters:
            same = sum(other == name for _, other in voters) - 1
            rewards[row] = same / max(1, len(voters) - 1)
    return rewards
""",
        """
from favor_lab.recipes.ttrv import vote_reward
from favor_lab import extract_answer, normalise_label

def other_votes(completions, groups):
    shares = vote_reward(completions, groups, alpha=0.0)
    votes = [bool(normalise_label(extract_answer(text) or "")) for text in completions]
    rewards = []
    for share, group, counts in zip(shares, groups, votes):
        v = sum(own for own, other in zip(votes, groups) if other == group)
        n = round(share * list(groups).count(group))
        rewards.append((n - 1) / (v - 1) if counts and v > 1 else 0.0)
    return rewards
""",
    ],
    "14.2": [
        SCORE + GUESS + PRICE,
        """
def priced_score(statements, scene, price):
    score = 0
    for one in dict.fromkeys(statements):
        score += 1 if one in scene else -price
    return max(score / len(dict.fromkeys(scene)), -1.0)

def worth_guessing(p, price):
    return p > price / (1 + price)

def least_price(scene, world):
    false = [one for one in set(world) if one not in scene]
    return 0.0 if not false else len(set(scene)) / len(false)
""",
        """
from favor_lab.recipes.facts import Facts, priced_recall

def priced_score(statements, scene, price):
    known = tuple(sorted(set(scene)))
    true, false = (tuple(one for one in sorted(set(statements)) if (one in known) == kind) for kind in (True, False))
    return priced_recall(Facts(true, false, known), price)

def worth_guessing(p, price):
    expected = p * 1 + (1 - p) * -price
    return expected > 1e-12

def least_price(scene, world):
    true = len(set(world).intersection(scene))
    false = len(set(world)) - true
    return true / false if false > 0 else 0
""",
        """
def parts(statements, scene):
    unique = set(statements)
    hits = len(unique.intersection(scene))
    return hits, len(unique) - hits

def priced_score(statements, scene, price):
    hits, misses = parts(statements, scene)
    value = (hits - price * misses) / len(set(scene))
    return value if value > -1 else -1.0

def worth_guessing(p, price):
    return not p <= price * (1 - p)

def least_price(scene, world):
    hits, misses = parts(world, scene)
    if misses == 0:
        return 0.0
    return hits / misses
""",
    ],
    "14.3": [
        APART,
        """
import torch

def apart(rewards, weights, groups, eps=1e-4):
    parts = []
    for name, values in rewards.items():
        z = torch.zeros(len(groups))
        for group in groups.unique():
            own = torch.where(groups == group, values, torch.nan)
            count = (~own.isnan()).sum()
            if count > 1:
                centred = own - own.nanmean()
                s = (centred.square().nansum() / (count - 1)).sqrt()
                z += (centred / (s + eps)).nan_to_num(nan=0.0)
        parts.append(weights.get(name, 1.0) * z)
    return torch.stack(parts).sum(dim=0)
""",
        """
import torch

def apart(rewards, weights, groups, eps=1e-4):
    out = [0.0] * len(groups)
    for name, values in rewards.items():
        weight = weights[name] if name in weights else 1.0
        for group in set(groups.tolist()):
            rows = [i for i in range(len(groups)) if groups[i] == group and values[i] == values[i]]
            if len(rows) < 2:
                continue
            own = [values[i].item() for i in rows]
            mean = sum(own) / len(own)
            std = (sum((x - mean) ** 2 for x in own) / (len(own) - 1)) ** 0.5
            for i, x in zip(rows, own):
                out[i] += weight * (x - mean) / (std + eps)
    return torch.tensor(out)
""",
        """
import torch

from favor_lab.grpo.advantages import to_groups
from favor_lab.recipes.refine_rft import summed_apart

def apart(rewards, weights, groups, eps=1e-4):
    tables = [to_groups(values, groups)[0] for values in rewards.values()]
    place = to_groups(torch.zeros(len(groups)), groups)[1]
    return summed_apart(tables, [weights.get(name, 1.0) for name in rewards], eps=eps)[place]
""",
    ],
}
