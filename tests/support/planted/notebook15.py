"""Answers to the exercises of notebook 15, other advantages: wrong ones that people really give, and right ones that
are written differently from the solutions."""

from planted import Wrong, changed

LEAVE = """
import torch

def leave_one_out(rewards):
    there = ~rewards.isnan()
    others = there.sum(dim=1, keepdim=True) - 1
    sum_of_others = rewards.nansum(dim=1, keepdim=True) - rewards
    advantages = rewards - sum_of_others / others.clamp(min=1)
    return advantages.masked_fill(~there | (others < 1), 0.0)
"""
VPPO = """
import math

import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    weights = torch.zeros_like(S)
    means = torch.stack([s[m].mean() for s, m in zip(S, mask)])
    n = means - means.min()
    factors = 1 - shrink + shrink * n / n.mean() if n.mean() > 1e-6 else torch.ones_like(n)
    for i in range(len(S)):
        T = int(mask[i].sum())
        keep = math.ceil((1 - drop) * T - 1e-9)
        order = S[i, :T].argsort(descending=True, stable=True)
        weights[i, order[:keep]] = factors[i]
    return weights
"""
BONUS = """
import torch
from favor_lab import group_advantages

def with_bonus(advantages, u, kappa=2.0):
    cap = advantages.abs()[:, None] / kappa
    return advantages[:, None] + torch.minimum(u.clamp(min=0), cap)
"""
CREDIT = """
def credited(accuracy, form, inside, mask):
    answer, rest = group_advantages(accuracy), group_advantages(form)
    tokens = torch.where(inside, answer[..., None], rest[..., None])
    return tokens * mask
"""
CAP, KIND = "plus min", "accuracy's advantage"

PLANTED: dict[str, list[Wrong]] = {
    "15.1": [
        Wrong(
            "the mean of all, the completion itself included",
            "def leave_one_out(rewards):\n"
            "    return (rewards - rewards.nanmean(dim=1, keepdim=True)).nan_to_num(nan=0.0)",
            "mean of the others",
        ),
        Wrong(
            "divided by a std as well",
            changed(
                LEAVE,
                "    return advantages.masked_fill(~there | (others < 1), 0.0)",
                "    advantages = advantages.masked_fill(~there | (others < 1), 0.0)\n"
                "    return advantages / (advantages.std(dim=1, keepdim=True) + 1e-4)",
            ),
            "no std",
        ),
        Wrong(
            "the table's G in place of the group's",
            """
def leave_one_out(rewards):
    G = rewards.shape[1]
    centred = rewards - rewards.nanmean(dim=1, keepdim=True)
    return (G / (G - 1) * centred).nan_to_num(nan=0.0)
""",
            "two others",
        ),
        Wrong(
            "absent counted as a reward of 0",
            """
def leave_one_out(rewards):
    r = rewards.nan_to_num(nan=0.0)
    return r - (r.sum(dim=1, keepdim=True) - r) / (r.shape[1] - 1)
""",
            "absent is not 0",
        ),
        Wrong(
            "absent places get minus the mean of the others",
            """
def leave_one_out(rewards):
    there = ~rewards.isnan()
    r = rewards.nan_to_num(nan=0.0)
    others = (there.sum(dim=1, keepdim=True) - there.long()).clamp(min=1)
    return r - (r.sum(dim=1, keepdim=True) - r) / others
""",
            "absent is not 0",
        ),
        Wrong(
            "NaN left in absent places",
            changed(LEAVE, "(~there | (others < 1), 0.0)", "(others < 1, 0.0)"),
            "not finite",
        ),
        Wrong(
            "a division by zero where one is alone",
            changed(changed(LEAVE, "others.clamp(min=1)", "others"), "~there | (others < 1)", "~there"),
            "not finite",
        ),
        Wrong("one alone keeps its reward", changed(LEAVE, "~there | (others < 1)", "~there"), "alone in its group"),
        Wrong(
            "the sign turned round",
            changed(
                LEAVE, "rewards - sum_of_others / others.clamp(min=1)", "sum_of_others / others.clamp(min=1) - rewards"
            ),
            "minus the mean of the others",
        ),
        Wrong(
            "divided by the number of all, not of the others",
            changed(LEAVE, "sum_of_others / others.clamp(min=1)", "sum_of_others / (others + 1).clamp(min=1)"),
            "minus the mean of the others",
        ),
        Wrong(
            "compared with all groups",
            """
def leave_one_out(rewards):
    there = ~rewards.isnan()
    others = (there.sum() - 1).clamp(min=1)
    return (rewards - (rewards.nansum() - rewards) / others).nan_to_num(nan=0.0)
""",
            "of the group",
        ),
        Wrong(
            "NaN replaced in the table that was given",
            """
def leave_one_out(rewards):
    there = ~rewards.isnan()
    others = there.sum(dim=1, keepdim=True) - 1
    rewards[~there] = 0.0
    sum_of_others = rewards.sum(dim=1, keepdim=True) - rewards
    return (rewards - sum_of_others / others.clamp(min=1)).masked_fill(~there | (others < 1), 0.0)
""",
            "have changed",
        ),
        Wrong(
            "absent places are looked for at the end alone",
            """
import torch

def leave_one_out(rewards):
    result = torch.zeros_like(rewards)
    for b, row in enumerate(rewards):
        n = int((~row.isnan()).sum())
        own = row[:n].nan_to_num(nan=0.0)
        if n > 1:
            result[b, :n] = own - (own.sum() - own) / (n - 1)
    return result
""",
            "anywhere",
        ),
        Wrong(
            "the median of the others",
            """
import torch

def leave_one_out(rewards):
    result = torch.zeros_like(rewards)
    for b, row in enumerate(rewards):
        there = (~row.isnan()).nonzero().flatten().tolist()
        for g in there if len(there) > 1 else []:
            result[b, g] = row[g] - row[[j for j in there if j != g]].median()
    return result
""",
            "mean of the others",
        ),
        Wrong(
            "a list in place of a tensor",
            LEAVE.replace("return advantages.masked_fill(~there | (others < 1), 0.0)", "return advantages.tolist()"),
            "a tensor of shape",
        ),
        Wrong(
            "absent completions dropped from the table",
            LEAVE.replace("    return ", "    return torch.cat([row[k] for row, k in zip(").replace(
                "0.0)\n", "0.0), there)])\n"
            ),
            "a tensor of shape",
        ),
    ],
    "15.2": [
        Wrong(
            "the mean over all L places",
            changed(VPPO, "torch.stack([s[m].mean() for s, m in zip(S, mask)])", "(S * mask).mean(dim=1)"),
            "factors",
        ),
        Wrong(
            "what is outside the mask counts in the mean",
            changed(VPPO, "torch.stack([s[m].mean() for s, m in zip(S, mask)])", "S.mean(dim=1)"),
            "factors",
        ),
        Wrong("the sum of S in place of its mean", changed(VPPO, "s[m].mean() for", "s[m].sum() for"), "factors"),
        Wrong(
            "scaled by the largest: the factors do not average 1",
            changed(VPPO, "n / n.mean() if", "n / n.max() if"),
            "factors",
        ),
        Wrong("not moved to start at 0", changed(VPPO, "n = means - means.min()", "n = means"), "factors"),
        Wrong(
            "1 - shrink and shrink swapped",
            changed(VPPO, "1 - shrink + shrink * n / n.mean() if", "shrink + (1 - shrink) * n / n.mean() if"),
            "factors",
        ),
        Wrong(
            "0 divided by 0 where all rows depend equally",
            changed(VPPO, " if n.mean() > 1e-6 else torch.ones_like(n)", ""),
            "finite",
        ),
        Wrong(
            "the least factor where all rows depend equally",
            changed(
                VPPO,
                "shrink * n / n.mean() if n.mean() > 1e-6 else torch.ones_like(n)",
                "shrink * n / (n.mean() + 1e-9)",
            ),
            "every factor is 1",
        ),
        Wrong("rounded down", changed(VPPO, "math.ceil(", "math.floor("), "kept"),
        Wrong(
            "rounded to the nearest", changed(VPPO, "math.ceil((1 - drop) * T - 1e-9)", "round((1 - drop) * T)"), "kept"
        ),
        Wrong("a rounding error kept: 4 tokens of 10 at a drop of 0.7", changed(VPPO, " - 1e-9)", ")"), "3 of 10"),
        Wrong("a share of drop kept", changed(VPPO, "math.ceil((1 - drop)", "math.ceil(drop"), "kept"),
        Wrong("the smallest kept", changed(VPPO, "descending=True", "descending=False"), "kept"),
        Wrong(
            "a share of L, not of the row's own tokens",
            changed(VPPO, "math.ceil((1 - drop) * T - 1e-9)", "math.ceil((1 - drop) * S.shape[1] - 1e-9)"),
            "its own T",
        ),
        Wrong(
            "padding is ranked with the tokens", changed(VPPO, "S[i, :T].argsort", "S[i].argsort"), "outside the mask"
        ),
        Wrong(
            "of equal ones the later",
            changed(
                VPPO,
                "S[i, :T].argsort(descending=True, stable=True)",
                "T - 1 - S[i, :T].flip(0).argsort(descending=True, stable=True)",
            ),
            "earlier of equal",
        ),
        Wrong(
            "one threshold for all rows",
            """
import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    means = (S * mask).sum(dim=1) / mask.sum(dim=1)
    n = means - means.min()
    factors = 1 - shrink + shrink * n / n.mean().clamp(min=1e-6)
    return factors[:, None] * ((S >= S[mask].quantile(drop)) & mask)
""",
            "its own T",
        ),
        Wrong(
            "the mean of the kept tokens",
            """
import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    counts = ((1 - drop) * mask.sum(dim=1).double() - 1e-9).ceil()[:, None]
    ranks = S.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    kept = ranks < counts
    n = (S * kept).sum(dim=1) / kept.sum(dim=1)
    n = n - n.min()
    factors = 1 - shrink + shrink * n / n.mean() if n.mean() > 1e-6 else torch.ones_like(n)
    return factors[:, None] * kept
""",
            "factors",
        ),
        Wrong(
            "kept tokens scaled up to make good for the others",
            changed(VPPO, "= factors[i]", "= factors[i] * T / keep"),
            "factors",
        ),
        Wrong("shrink fixed at 0.1", changed(VPPO, "1 - shrink + shrink * n", "0.9 + 0.1 * n"), "factors"),
        Wrong("drop fixed at 0.6", changed(VPPO, "(1 - drop) * T", "0.4 * T"), "kept"),
        Wrong("the mask of kept tokens alone", changed(VPPO, "return weights", "return weights > 0"), "finite floats"),
        Wrong("the factors alone", changed(VPPO, "return weights", "return factors"), "a tensor"),
        Wrong("the factors at all tokens", changed(VPPO, "return weights", "return factors[:, None] * mask"), "kept"),
    ],
    "15.3": [
        Wrong("multiplied", changed(BONUS, "[:, None] + torch", "[:, None] * torch") + CREDIT, CAP),
        Wrong(
            "the bonus follows the sign of the advantage",
            changed(
                BONUS,
                "torch.minimum(u.clamp(min=0), cap)",
                "advantages.sign()[:, None] * torch.minimum(u.clamp(min=0), cap)",
            )
            + CREDIT,
            CAP,
        ),
        Wrong("no relu: negative u lowers the advantage", changed(BONUS, "u.clamp(min=0)", "u") + CREDIT, CAP),
        Wrong("the absolute value of u", changed(BONUS, "u.clamp(min=0)", "u.abs()") + CREDIT, CAP),
        Wrong("A / kappa without the absolute value", changed(BONUS, "advantages.abs()", "advantages") + CREDIT, CAP),
        Wrong("the cap times kappa", changed(BONUS, " / kappa", " * kappa") + CREDIT, CAP),
        Wrong("the larger of the two", changed(BONUS, "torch.minimum", "torch.maximum") + CREDIT, CAP),
        Wrong("no cap", changed(BONUS, "torch.minimum(u.clamp(min=0), cap)", "u.clamp(min=0)") + CREDIT, CAP),
        Wrong(
            "one cap for all rows", changed(BONUS, "advantages.abs()[:, None]", "advantages.abs().mean()") + CREDIT, CAP
        ),
        Wrong("kappa fixed at 2", changed(BONUS, " / kappa", " / 2") + CREDIT, CAP),
        Wrong("the bonus alone", changed(BONUS, "advantages[:, None] + ", "") + CREDIT, CAP),
        Wrong(
            "one bonus per row, from the mean of u",
            changed(BONUS, "u.clamp(min=0)", "u.clamp(min=0).mean(dim=1, keepdim=True)") + CREDIT,
            "wrong type or shape|plus min",
        ),
        Wrong(
            "a least advantage, so that dead groups live",
            changed(BONUS, "advantages.abs()", "advantages.abs().clamp(min=0.1)") + CREDIT,
            "A = 0 stays 0",
        ),
        Wrong(
            "the cap on the sum",
            changed(
                BONUS,
                "advantages[:, None] + torch.minimum(u.clamp(min=0), cap)",
                "torch.minimum(advantages[:, None] + u.clamp(min=0), cap)",
            )
            + CREDIT,
            CAP,
        ),
        Wrong(
            "answer and rest swapped",
            BONUS + changed(CREDIT, "answer[..., None], rest[..., None]", "rest[..., None], answer[..., None]"),
            KIND,
        ),
        Wrong(
            "the answer has the format's advantage too",
            BONUS + changed(CREDIT, "inside, answer[..., None],", "inside, (answer + rest)[..., None],"),
            KIND,
        ),
        Wrong(
            "the rest has the accuracy's advantage too",
            BONUS + changed(CREDIT, "rest[..., None])", "(answer + rest)[..., None])"),
            KIND,
        ),
        Wrong(
            "the sum of the rewards normalised",
            BONUS
            + changed(
                CREDIT, "group_advantages(accuracy), group_advantages(form)", "[group_advantages(accuracy + form)] * 2"
            ),
            KIND,
        ),
        Wrong("padding is not cut off", BONUS + changed(CREDIT, "return tokens * mask", "return tokens"), KIND),
        Wrong(
            "no std",
            BONUS
            + changed(
                CREDIT,
                "group_advantages(accuracy), group_advantages(form)",
                "(r - r.mean(dim=1, keepdim=True) for r in (accuracy, form))",
            ),
            KIND,
        ),
        Wrong(
            "std over n",
            BONUS + changed(CREDIT, "group_advantages(form)", "group_advantages(form, unbiased=False)"),
            KIND,
        ),
        Wrong(
            "std of the batch",
            BONUS + changed(CREDIT, "group_advantages(form)", 'group_advantages(form, scale="batch")'),
            KIND,
        ),
        Wrong(
            "no epsilon: a flat group is not a number",
            BONUS
            + changed(
                CREDIT,
                "group_advantages(accuracy), group_advantages(form)",
                "((r - r.mean(dim=1, keepdim=True)) / r.std(dim=1, keepdim=True) for r in (accuracy, form))",
            ),
            KIND,
        ),
        Wrong(
            "tokens first, the statistic after",
            BONUS
            + """
def credited(accuracy, form, inside, mask):
    tokens = torch.where(inside, accuracy[..., None], form[..., None]) * mask
    return (tokens - tokens.mean(dim=1, keepdim=True)) / (tokens.std(dim=1, keepdim=True) + 1e-4)
""",
            KIND,
        ),
        Wrong(
            "rewards in place of advantages",
            BONUS + changed(CREDIT, "group_advantages(accuracy), group_advantages(form)", "accuracy, form"),
            KIND,
        ),
        Wrong("nothing at other tokens", BONUS + changed(CREDIT, "tokens * mask", "tokens * inside"), KIND),
        Wrong(
            "one number per completion",
            BONUS + changed(CREDIT, "return tokens * mask", "return (tokens * mask).sum(dim=2)"),
            "wrong type or shape",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "15.1": [
        """
import torch

def leave_one_out(rewards):
    result = torch.zeros_like(rewards)
    for b, row in enumerate(rewards.tolist()):
        there = [g for g, r in enumerate(row) if r == r]
        for g in there:
            others = [row[j] for j in there if j != g]
            if others:
                result[b, g] = row[g] - sum(others) / len(others)
    return result
""",
        """
import torch

def leave_one_out(rewards):
    n = (~rewards.isnan()).sum(dim=1, keepdim=True)
    factor = torch.where(n > 1, n / (n - 1).clamp(min=1), torch.zeros_like(n, dtype=rewards.dtype))
    return (factor * (rewards - rewards.nanmean(dim=1, keepdim=True))).nan_to_num(nan=0.0)
""",
        """
import torch

def leave_one_out(rewards):
    there = ~rewards.isnan()
    r = torch.where(there, rewards, torch.zeros_like(rewards))
    pairs = there[:, :, None] & there[:, None, :] & ~torch.eye(r.shape[1], dtype=torch.bool)  # (B, G, G)
    n = pairs.sum(dim=2)
    differences = ((r[:, :, None] - r[:, None, :]) * pairs).sum(dim=2)
    return differences / n.clamp(min=1)
""",
        """
import numpy as np
import torch

def leave_one_out(rewards):
    table = np.array(rewards.tolist())
    out = np.zeros_like(table)
    for b in range(table.shape[0]):
        there = ~np.isnan(table[b])
        n = there.sum()
        if n > 1:
            own = table[b, there]
            out[b, there] = (n * own - own.sum()) / (n - 1)
    return torch.tensor(out)
""",
    ],
    "15.2": [
        VPPO,
        """
import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    S, T = S.where(mask, torch.zeros_like(S)), mask.sum(dim=1, keepdim=True)
    m = S.sum(dim=1, keepdim=True) / T
    n = m - m.amin()
    n = n / n.amax() if n.amax() > 1e-6 else torch.ones_like(n)  # scaled to 0..1 first: it cancels
    factors = (1 - shrink) + shrink * n / n.mean()
    earlier = torch.ones(S.shape[1], S.shape[1]).tril(-1).bool()  # earlier[j, k]: k stands before j
    larger = (S[:, None, :] > S[:, :, None]) | ((S[:, None, :] == S[:, :, None]) & earlier)
    ranks = (larger & mask[:, None, :]).sum(dim=2)
    counts = torch.ceil((1 - drop) * T.double() - 1e-9)
    return torch.where(mask & (ranks < counts), factors, torch.zeros_like(S))
""",
        """
import math
import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    rows = [[s for s, m in zip(values, own) if m] for values, own in zip(S.tolist(), mask.tolist())]
    means = [sum(row) / len(row) for row in rows]
    n = [m - min(means) for m in means]
    middle = sum(n) / len(n)
    weights = torch.zeros(S.shape)
    for i, row in enumerate(rows):
        factor = 1 - shrink + shrink * n[i] / middle if middle > 1e-6 else 1.0
        keep = math.ceil((1 - drop) * len(row) - 1e-9)
        for j in sorted(range(len(row)), key=lambda j: (-row[j], j))[:keep]:
            weights[i, j] = factor
    return weights
""",
        """
import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    T = mask.sum(dim=1)
    means = (S * mask).sum(dim=1) / T
    n = means - means.min()
    factors = torch.ones_like(n)
    if n.mean() > 1e-6:
        factors = torch.lerp(torch.ones_like(n), n / n.mean(), shrink)
    counts = (T.double() * (1 - drop) - 1e-9).ceil().long()
    order = S.masked_fill(~mask, -1e9).sort(dim=1, descending=True, stable=True).indices
    kept = torch.zeros_like(mask).scatter(1, order, torch.arange(S.shape[1]) < counts[:, None])
    return kept * factors.unsqueeze(1)
""",
        """
import torch

def vppo_weights(S, mask, shrink=0.1, drop=0.6):
    def one(s, own):
        T = int(own.sum())
        keep = -int(-((1 - drop) * T - 1e-9) // 1)
        picked = sorted(range(T), key=lambda j: -float(s[j]))[:keep]
        return torch.tensor([1.0 if j in picked else 0.0 for j in range(len(s))])

    m = (S * mask).sum(dim=1) / mask.sum(dim=1)
    n = m - m.min()
    factors = 1 - shrink * (1 - n / n.mean()) if float(n.mean()) > 1e-6 else torch.ones(len(m))
    return torch.stack([one(s, own) for s, own in zip(S, mask)]) * factors.reshape(-1, 1)
""",
    ],
    "15.3": [
        BONUS + CREDIT,
        """
import torch
from favor_lab import group_advantages

def with_bonus(advantages, u, kappa=2.0):
    A = advantages.unsqueeze(1).expand_as(u)
    return A + torch.relu(torch.min(u, A.abs() / kappa))

def credited(accuracy, form, inside, mask):
    inside = inside.float()
    both = [group_advantages(r).unsqueeze(-1) for r in (accuracy, form)]
    return (inside * both[0] + (1 - inside) * both[1]) * mask.float()
""",
        """
import torch

def with_bonus(advantages, u, kappa=2.0):
    result = torch.empty_like(u)
    for i, a in enumerate(advantages.tolist()):
        for j, value in enumerate(u[i].tolist()):
            result[i, j] = a + min(max(value, 0.0), abs(a) / kappa)
    return result

def credited(accuracy, form, inside, mask):
    scores = [(r - r.mean(dim=1, keepdim=True)) / (r.std(dim=1, keepdim=True) + 1e-4) for r in (accuracy, form)]
    result = torch.zeros(mask.shape)
    for b, g, j in mask.nonzero().tolist():
        result[b, g, j] = scores[0 if inside[b, g, j] else 1][b, g]
    return result
""",
        """
import torch
from favor_lab.grpo.advantages import group_advantages

def with_bonus(advantages, u, kappa=2.0):
    A = advantages[:, None]
    return A + u.clamp(min=0).clamp(max=A.abs() / kappa)

def credited(accuracy, form, inside, mask):
    result = group_advantages(form)[..., None].repeat(1, 1, mask.shape[2])
    answers = group_advantages(accuracy)[..., None].expand_as(result)
    result[inside] = answers[inside]
    return result.masked_fill(~mask, 0.0)
""",
        """
import torch
from favor_lab import group_advantages

def with_bonus(advantages, u, kappa=2.0):
    size, sign = advantages.abs()[:, None], advantages.sign()[:, None]
    bonus = torch.where(u < 0, torch.zeros_like(u), u)
    return sign * size + torch.where(bonus > size / kappa, size / kappa, bonus)

def credited(accuracy, form, inside, mask):
    a, f = group_advantages(accuracy), group_advantages(form)
    answers, others = (inside & mask).float(), (mask & ~inside).float()
    return torch.einsum("bg,bgl->bgl", a, answers) + torch.einsum("bg,bgl->bgl", f, others)
""",
    ],
}
