"""Wrong and right answers to the exercises of notebook 03, sampling."""

from planted import Wrong, changed

SCORE = """
import torch


def score_at(logps, ids, mask, temperature):
    scaled = torch.log_softmax(logps / temperature, dim=-1)
    scores = scaled.gather(-1, ids[..., None])[..., 0]
    return scores.masked_fill(~mask, 0.0)
"""
SOFTMAX = "torch.log_softmax(logps / temperature, dim=-1)"
COLLECT = """
import torch


def collect(draws, end_ids, pad_id):
    is_end = torch.isin(draws, torch.tensor(end_ids))
    ends_before = is_end.cumsum(dim=1) - is_end.long()
    mask = ends_before == 0
    L = int(mask.sum(dim=1).max())
    ids = draws.masked_fill(~mask, pad_id)
    return ids[:, :L], mask[:, :L], ~is_end.any(dim=1)
"""
MASK = "mask = ends_before == 0"
LAST_LINE = "return ids[:, :L], mask[:, :L], ~is_end.any(dim=1)"
MIXED = """
from math import comb


def mixed_groups(n, counts, G, budget):
    mixed = [1 - comb(c, G) / comb(n, G) - comb(n - c, G) / comb(n, G) for c in counts]
    return budget // G * sum(mixed) / len(mixed)


def best_size(n, counts, sizes, budget):
    return min(sizes, key=lambda G: (-round(mixed_groups(n, counts, G, budget), 12), G))
"""
EACH = "1 - comb(c, G) / comb(n, G) - comb(n - c, G) / comb(n, G)"
CHOICE = "min(sizes, key=lambda G: (-round(mixed_groups(n, counts, G, budget), 12), G))"

PLANTED: dict[str, list[Wrong]] = {
    "03.1": [
        Wrong("divided by T, not normalised again", changed(SCORE, SOFTMAX, "logps / temperature"), "add up to 1"),
        Wrong("multiplied by T", changed(SCORE, "logps / temperature", "logps * temperature"), "add up to 1"),
        Wrong("the temperature is forgotten", changed(SCORE, "logps / temperature", "logps"), "add up to 1"),
        Wrong("probabilities, not their logarithms", changed(SCORE, "log_softmax", "softmax"), "add up to 1"),
        Wrong(
            "the temperature acts twice",
            changed(SCORE, "logps / temperature", "logps / temperature / temperature"),
            "add up to 1",
        ),
        Wrong("normalised over the positions", changed(SCORE, "dim=-1", "dim=1"), "add up to 1|exactly 0"),
        Wrong(
            "the mask is a factor: -inf times 0",
            changed(SCORE, "scores.masked_fill(~mask, 0.0)", "scores * mask"),
            "exactly 0",
        ),
        Wrong("no mask", changed(SCORE, "scores.masked_fill(~mask, 0.0)", "scores"), "exactly 0"),
        Wrong(
            "the mask the other way round",
            changed(SCORE, "masked_fill(~mask, 0.0)", "masked_fill(mask, 0.0)"),
            "exactly 0|add up to 1",
        ),
        Wrong(
            "-inf behind the end",
            changed(SCORE, "masked_fill(~mask, 0.0)", "masked_fill(~mask, -torch.inf)"),
            "exactly 0",
        ),
        Wrong(
            "the sum of the row",
            changed(SCORE, "scores.masked_fill(~mask, 0.0)", "scores.masked_fill(~mask, 0.0).sum(dim=1)"),
            "one number for each token",
        ),
        Wrong(
            "only the tokens in the mask, in one row",
            changed(SCORE, "scores.masked_fill(~mask, 0.0)", "scores[mask]"),
            "one number for each token",
        ),
        Wrong(
            "a last axis of one",
            changed(
                SCORE,
                "[..., None])[..., 0]\n    return scores.masked_fill(~mask, 0.0)",
                "[..., None])\n    return scores",
            ),
            "one number for each token",
        ),
        Wrong(
            "the likeliest token, not the sampled one",
            changed(SCORE, "scaled.gather(-1, ids[..., None])[..., 0]", "scaled.amax(dim=-1)"),
            "add up to 1",
        ),
        Wrong(
            "the token's logarithm divided after the choice",
            """
import torch


def score_at(logps, ids, mask, temperature):
    chosen = logps.gather(-1, ids[..., None])[..., 0]
    return (chosen / temperature).masked_fill(~mask, 0.0)
""",
            "add up to 1",
        ),
        Wrong(
            "divided in place",
            changed(
                SCORE,
                "scaled = torch.log_softmax(logps / temperature",
                "logps /= temperature\n    scaled = torch.log_softmax(logps",
            ),
            "argument was changed",
        ),
        Wrong(
            "padding replaced in the caller's ids",
            changed(SCORE, "    scores = scaled", "    ids[~mask] = 0\n    scores = scaled"),
            "argument was changed",
        ),
        Wrong(
            "the temperature only where it is above 1",
            changed(SCORE, "logps / temperature", "logps / max(temperature, 1.0)"),
            "add up to 1",
        ),
    ],
    "03.2": [
        Wrong("the end token is not part of the row", changed(COLLECT, " - is_end.long()", ""), "belongs to the row"),
        Wrong("the mask is what is not padding", changed(COLLECT, MASK, "mask = draws != pad_id"), "first end token"),
        Wrong(
            "up to the last end token",
            changed(COLLECT, MASK, "mask = (is_end.flip(1).cumsum(1).flip(1) > 0) | ~is_end.any(dim=1, keepdim=True)"),
            "first end token",
        ),
        Wrong("end tokens left out, everything else kept", changed(COLLECT, MASK, "mask = ~is_end"), "first end token"),
        Wrong("all columns are kept", changed(COLLECT, LAST_LINE, LAST_LINE.replace(":L", ":")), "mask"),
        Wrong("cut to the shortest row", changed(COLLECT, ".max())", ".min())"), "mask"),
        Wrong(
            "only the first of the end ids",
            changed(COLLECT, "torch.tensor(end_ids)", "torch.tensor(end_ids[:1])"),
            "first end token|truncated",
        ),
        Wrong(
            "truncated: the last draw is no end token",
            changed(COLLECT, "~is_end.any(dim=1)", "~is_end[:, -1]"),
            "no end token at all",
        ),
        Wrong(
            "truncated the other way round", changed(COLLECT, "~is_end.any(dim=1)", "is_end.any(dim=1)"), "truncated"
        ),
        Wrong(
            "truncated: the row fills all columns",
            changed(COLLECT, "~is_end.any(dim=1)", "mask.all(dim=1)"),
            "no end token at all",
        ),
        Wrong(
            "truncated for the whole batch",
            changed(COLLECT, "~is_end.any(dim=1)", "(~is_end.any(dim=1)).any().repeat(len(draws))"),
            "no end token at all",
        ),
        Wrong(
            "what was drawn behind the end stays",
            changed(COLLECT, "draws.masked_fill(~mask, pad_id)", "draws"),
            "padding elsewhere",
        ),
        Wrong(
            "padding is always 0",
            changed(COLLECT, "masked_fill(~mask, pad_id)", "masked_fill(~mask, 0)"),
            "padding elsewhere",
        ),
        Wrong(
            "the end token gives way to padding",
            changed(COLLECT, "masked_fill(~mask, pad_id)", "masked_fill(~mask | is_end, pad_id)"),
            "padding elsewhere",
        ),
        Wrong(
            "padding written into the draws",
            changed(COLLECT, "draws.masked_fill(", "draws.masked_fill_("),
            "draws were changed",
        ),
        Wrong("the mask as numbers", changed(COLLECT, "mask[:, :L], ~", "mask[:, :L].long(), ~"), "bool tensors"),
        Wrong(
            "one row that ends ends all",
            changed(COLLECT, MASK, "mask = (ends_before == 0).all(dim=0).expand(len(draws), -1)"),
            "first end token",
        ),
    ],
    "03.3": [
        Wrong(
            "pass@G: all right counts as mixed", changed(MIXED, EACH, "1 - comb(n - c, G) / comb(n, G)"), "both kinds"
        ),
        Wrong("all wrong counts as mixed", changed(MIXED, EACH, "1 - comb(c, G) / comb(n, G)"), "both kinds"),
        Wrong(
            "c / n in place of p, which is biased",
            changed(MIXED, EACH, "1 - (c / n) ** G - (1 - c / n) ** G"),
            "both kinds",
        ),
        Wrong(
            "the two chances multiplied",
            changed(MIXED, EACH, "(1 - comb(c, G) / comb(n, G)) * (1 - comb(n - c, G) / comb(n, G))"),
            "both kinds",
        ),
        Wrong("a part of a group counts", changed(MIXED, "budget // G", "budget / G"), "whole groups"),
        Wrong("the sum over the images", changed(MIXED, " / len(mixed)", ""), "mean chance"),
        Wrong(
            "a group of each image",
            changed(MIXED, "budget // G * sum(mixed) / len(mixed)", "sum(mixed)"),
            "whole groups",
        ),
        Wrong("the share, not the number", changed(MIXED, "budget // G * sum(mixed)", "sum(mixed)"), "whole groups"),
        Wrong("completions, not groups", changed(MIXED, "budget // G *", "budget *"), "whole groups"),
        Wrong(
            "all images as one pool of samples",
            changed(MIXED, "for c in counts]", "for c in [sum(counts) // len(counts)]]"),
            "mean chance",
        ),
        Wrong(
            "rounded to whole groups",
            changed(MIXED, "sum(mixed) / len(mixed)", "round(sum(mixed) / len(mixed))"),
            "mean chance",
        ),
        Wrong("nothing returned", changed(MIXED, "    return budget", "    budget"), "returns a number"),
        Wrong("the largest of a tie", changed(MIXED, "12), G))", "12), -G))"), "smallest of a tie"),
        Wrong(
            "the first of a tie in the list",
            changed(MIXED, CHOICE, "max(sizes, key=lambda G: mixed_groups(n, counts, G, budget))"),
            "smallest of a tie",
        ),
        Wrong(
            "the size that is mixed most often",
            changed(MIXED, CHOICE, "max(sorted(sizes), key=lambda G: mixed_groups(n, counts, G, G))"),
            "highest",
        ),
        Wrong("the largest group", changed(MIXED, CHOICE, "max(sizes)"), "highest"),
        Wrong(
            "the number, not the size",
            changed(MIXED, CHOICE, "max(mixed_groups(n, counts, G, budget) for G in sizes)"),
            "best_size",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "03.1": [
        SCORE,
        changed(SCORE, "scores.masked_fill(~mask, 0.0)", "torch.where(mask, scores, torch.zeros_like(scores))"),
        """
import torch


def score_at(logps, ids, mask, temperature):
    scaled = logps / temperature
    scaled = scaled - scaled.logsumexp(dim=-1, keepdim=True)
    scores = torch.zeros(ids.shape)
    for row in range(len(ids)):
        for j in range(ids.shape[1]):
            if mask[row, j]:
                scores[row, j] = scaled[row, j, ids[row, j]]
    return scores
""",
        """
import torch


def score_at(logps, ids, mask, temperature):
    p = logps.exp() ** (1 / temperature)
    p = p / p.sum(dim=-1, keepdim=True)
    chosen = torch.take_along_dim(p, ids[..., None], dim=-1).squeeze(-1)
    return torch.where(mask, chosen.log(), 0.0)
""",
        """
import torch


def score_at(logps, ids, mask, temperature):
    scores = torch.zeros(mask.shape)
    scores[mask] = (logps[mask] / temperature).log_softmax(-1)[torch.arange(int(mask.sum())), ids[mask]]
    return scores
""",
    ],
    "03.2": [
        changed(COLLECT, MASK, "mask = ends_before < 1"),
        """
import torch


def collect(draws, end_ids, pad_id):
    rows = []
    for row in draws.tolist():
        kept = []
        for token in row:
            kept.append(token)
            if token in end_ids:
                break
        rows.append(kept)
    L = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad_id] * (L - len(row)) for row in rows])
    mask = torch.arange(L) < torch.tensor([[len(row)] for row in rows])
    return ids, mask, torch.tensor([row[-1] not in end_ids for row in rows])
""",
        """
import torch


def collect(draws, end_ids, pad_id):
    is_end = (draws[..., None] == torch.tensor(end_ids)).any(dim=-1)
    truncated = ~is_end.any(dim=1)
    lengths = torch.where(truncated, draws.shape[1], is_end.int().argmax(dim=1) + 1)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.where(mask, draws[:, : mask.shape[1]], pad_id)
    return ids, mask, truncated
""",
        """
import torch


def collect(draws, end_ids, pad_id):
    mask = torch.ones_like(draws, dtype=torch.bool)
    for j in range(1, draws.shape[1]):
        mask[:, j] = mask[:, j - 1] & ~torch.isin(draws[:, j - 1], torch.tensor(end_ids))
    used = mask.any(dim=0)
    ids = draws.clone()
    ids[~mask] = pad_id
    last = torch.stack([row[m][-1] for row, m in zip(draws, mask)])
    return ids[:, used], mask[:, used], ~torch.isin(last, torch.tensor(end_ids))
""",
    ],
    "03.3": [
        MIXED,
        """
from math import comb


def pass_at_k(n, c, k):
    return 1 - comb(n - c, k) / comb(n, k)


def mixed_groups(n, counts, G, budget):
    rates = [pass_at_k(n, c, G) + pass_at_k(n, n - c, G) - 1 for c in counts]
    return budget // G * sum(rates) / len(counts)


def best_size(n, counts, sizes, budget):
    best, most = None, -1.0
    for size in sorted(sizes):
        value = mixed_groups(n, counts, size, budget)
        if value > most + 1e-12:
            best, most = size, value
    return best
""",
        """
from math import comb


def mixed_groups(n, counts, G, budget):
    ways = sum(comb(c, right) * comb(n - c, G - right) for c in counts for right in range(1, G))
    return (budget // G) * ways / (comb(n, G) * len(counts))


def best_size(n, counts, sizes, budget):
    values = {G: round(mixed_groups(n, counts, G, budget), 10) for G in sizes}
    return min(G for G in sizes if values[G] == max(values.values()))
""",
        """
from fractions import Fraction
from math import comb


def chance(n, counts, G, budget):
    same = sum(Fraction(comb(c, G) + comb(n - c, G), comb(n, G)) for c in counts) / len(counts)
    return (budget // G) * (1 - same)


def mixed_groups(n, counts, G, budget):
    return float(chance(n, counts, G, budget))


def best_size(n, counts, sizes, budget):
    return sorted(sizes, key=lambda G: (-chance(n, counts, G, budget), G))[0]
""",
    ],
}
