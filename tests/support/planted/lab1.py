"""Wrong answers to lab 1, seeing and sampling."""

from planted import Wrong, changed

SPLIT = """
def split(records, shots, test, seed):
    train, tested = [], []
    for label in sorted({{record.label for record in records}}):
        own = [record for record in records if record.label == label]
        {body}
    return train, tested
"""
POSITIONS = """
def positions(parts):
    pieces, start = [], 0
    for part in parts:
        if isinstance(part, int):
            piece = torch.arange(part).expand(3, -1)
            step = part
        else:
            rows, columns = part
            height = torch.arange(rows).repeat_interleave(columns)
            width = torch.arange(columns).repeat(rows)
            piece = torch.stack([torch.zeros_like(height), height, width])
            step = max(rows, columns)
        {change}
        pieces.append(start + piece)
        start += step
    return torch.cat(pieces, dim=1)
"""
WILSON = """
def wilson(right, pictures):
    z, share = NormalDist().inv_cdf(0.975), right / pictures
    half = z * sqrt(share * (1 - share) / pictures + z**2 / (4 * pictures**2))
    middle, scale = share + z**2 / (2 * pictures), 1 + z**2 / pictures
    return (middle - half) / scale, (middle + half) / scale
"""
PICTURES = """
def pictures_for(half, share, labels):
    pictures = labels
    while True:
        low, high = wilson(share * pictures, pictures)
        if (high - low) / 2 <= half:
            return pictures
        pictures += labels
"""
GRID = """
def token_grid(width, height, lowest, highest):
    rows, columns = (round(side / 28) for side in (height, width))
    pixels = rows * columns * 28**2
    if pixels > highest:
        scale = sqrt(highest / (width * height))
        rows, columns = (max(1, floor(side * scale / 28)) for side in (height, width))
    elif pixels < lowest:
        scale = sqrt(lowest / (width * height))
        rows, columns = (ceil(side * scale / 28) for side in (height, width))
    return rows, columns
"""
EFFECT = """
def effect(policy, batch, rollout, cells):
    features = [feature.clone() for feature in batch.image_features]
    for feature, own in zip(features, cells, strict=True):
        feature[own] = feature.mean(dim=0)
    with torch.no_grad():
        before = score_completions(policy, batch, rollout)
        after = score_completions(policy, replace(batch, image_features=features), rollout)
    change = (after - before).abs()
    rows = [rollout.groups == b for b in range(len(batch))]
    return torch.stack([change[row][rollout.mask[row]].mean() for row in rows])
"""
MASK = """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    return is_end.cumsum(dim=1) - is_end == 0
"""
SEQUENCE = """
def sequence_logps(logps, ids, end_ids):
    return logps.masked_fill(~completion_mask(ids, end_ids), 0.0).sum(dim=1)
"""
OUTSIDE = """
def outside_clip(policy, prompts, rollout, clip):
    with torch.no_grad():
        ratio = (score_completions(policy, prompts, rollout) - rollout.logps).exp()
    outside = (ratio < 1 - clip) | (ratio > 1 + clip)
    return outside[rollout.mask].float().mean().item()
"""
NEVER = """
def never_rewarded(right, labels, G):
    n = right.shape[1]
    missed = dict.fromkeys(labels, 1.0)
    for c, label in zip(right.sum(dim=1).int().tolist(), labels, strict=True):
        missed[label] *= comb(n - c, G) / comb(n, G)
    return sum(missed.values()) / len(missed)
"""


PLANTED: dict[str, list[Wrong]] = {
    "split": [
        Wrong(
            "drawn from all records, not per label",
            """
def split(records, shots, test, seed):
    labels = {record.label for record in records}
    pile = list(records)
    Random("test").shuffle(pile)
    tested, rest = pile[: test * len(labels)], pile[test * len(labels) :]
    Random(seed).shuffle(rest)
    return rest[: shots * len(labels)], tested
""",
            "balanced",
        ),
        Wrong(
            "shots drawn from all records, tested ones too",
            SPLIT.format(
                body="""Random(f"test {label}").shuffle(own)
        tested += own[:test]
        Random(f"train {label} {seed}").shuffle(own)
        train += own[:shots]"""
            ),
            "disjoint",
        ),
        Wrong(
            "a generator without a seed",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        train += Random().sample(own[test:], shots)"""
            ),
            "same arguments drew other records",
        ),
        Wrong(
            "seed forgotten",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        train += own[test : test + shots]"""
            ),
            "another seed must draw",
        ),
        Wrong(
            "one shuffle by the seed for shots and test",
            SPLIT.format(
                body="""Random(f"{label} {seed}").shuffle(own)
        tested += own[:test]
        train += own[test : test + shots]"""
            ),
            "moved with the seed",
        ),
        Wrong(
            "the number of shots drives the draw of the test",
            SPLIT.format(
                body="""Random(f"{label} {shots}").shuffle(own)
        tested += own[:test]
        rest = [record for record in own if record not in tested]
        Random(f"{label} {seed}").shuffle(rest)
        train += rest[:shots]"""
            ),
            "moved with the number of shots",
        ),
        Wrong(
            "the number of shots drives the shuffle",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {seed} {shots}").shuffle(rest)
        train += rest[:shots]"""
            ),
            "nested",
        ),
        Wrong(
            "the caller's list is shuffled",
            """
def split(records, shots, test, seed):
    train, tested = [], []
    Random("test").shuffle(records)
    records.sort(key=lambda record: record.label)
    for label in sorted({record.label for record in records}):
        own = sorted((record for record in records if record.label == label), key=lambda record: record.source)
        Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {seed}").shuffle(rest)
        train += rest[:shots]
    return train, tested
""",
            "caller's list",
        ),
        Wrong(
            "the global generator is seeded",
            SPLIT.format(
                body="""random.seed(f"test {label}")
        random.shuffle(own)
        tested += own[:test]
        rest = own[test:]
        random.seed(f"train {label} {seed}")
        random.shuffle(rest)
        train += rest[:shots]"""
            ),
            "global generator",
        ),
    ],
    "interval": [
        Wrong(
            "the library's own interval, imported",
            "from favor_lab.study.evaluation import wilson_interval as wilson\n" + PICTURES,
            "nothing imported from the library",
        ),
        Wrong(
            "a call of the library's own interval",
            """
import favor_lab as lab

def wilson(right, pictures):
    return tuple(bound for bound in lab.wilson_interval(right, pictures))
"""
            + PICTURES,
            "nothing imported from the library",
        ),
        Wrong(
            "the textbook interval",
            """
def wilson(right, pictures):
    share = right / pictures
    half = NormalDist().inv_cdf(0.975) * sqrt(share * (1 - share) / pictures)
    return share - half, share + half
"""
            + PICTURES,
            "ten of ten",
        ),
        Wrong(
            "per cent",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "100 * (middle - half) / scale, 100 * (middle + half) / scale",
            )
            + PICTURES,
            "per cent",
        ),
        Wrong(
            "denominator applied to the half-width only",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "middle - half / scale, middle + half / scale",
            )
            + PICTURES,
            r"z\^2 / n",
        ),
        Wrong(
            "centre left at the share",
            changed(WILSON, "middle, scale = share + z**2 / (2 * pictures)", "middle, scale = share") + PICTURES,
            r"\*own\* standard errors",
        ),
        Wrong(
            "n in place of n squared under the root",
            changed(WILSON, "(4 * pictures**2)", "(4 * pictures)") + PICTURES,
            "beyond 1|own",
        ),
        Wrong("90 per cent: z = 1.64", changed(WILSON, "0.975", "0.95") + PICTURES, "quantile"),
        Wrong(
            "n - 1 for n",
            changed(WILSON, "share * (1 - share) / pictures +", "share * (1 - share) / (pictures - 1) +") + PICTURES,
            "own",
        ),
        Wrong(
            "the textbook interval for the plan",
            WILSON
            + """
def pictures_for(half, share, labels):
    pictures = NormalDist().inv_cdf(0.975) ** 2 * share * (1 - share) / half**2
    return labels * ceil(pictures / labels)
""",
            "385",
        ),
        Wrong(
            "whole length compared with half",
            WILSON + changed(PICTURES, "(high - low) / 2", "high - low"),
            r"not high - low",
        ),
        Wrong(
            "not balanced over the labels",
            WILSON + changed(PICTURES, "pictures += labels", "pictures += 1"),
            "balanced",
        ),
        Wrong(
            "rounded to the nearest multiple of the labels",
            WILSON
            + """
def pictures_for(half, share, labels):
    pictures = 1
    while (bounds := wilson(share * pictures, pictures)) and (bounds[1] - bounds[0]) / 2 > half:
        pictures += 1
    return labels * (pictures // labels) or labels
""",
            "enough",
        ),
        Wrong("always at 50 %", WILSON + changed(PICTURES, "share * pictures", "0.5 * pictures"), "at 90 %"),
    ],
    "token-grid": [
        Wrong("patches, not merged", GRID.replace("/ 28)", "/ 14)").replace("28**2", "14**2"), "merged"),
        Wrong("width first", changed(GRID, "return rows, columns", "return columns, rows"), "along the height"),
        Wrong(
            "sides rounded down to multiples",
            changed(GRID, "(round(side / 28) for", "(max(1, side // 28) for"),
            "nearest, not down",
        ),
        Wrong("no budget", GRID.split("    pixels")[0] + "    return rows, columns\n", "budget holds"),
        Wrong(
            "scaled sides rounded to the nearest",
            changed(GRID, "max(1, floor(side * scale / 28))", "max(1, round(side * scale / 28))"),
            "budget holds",
        ),
        Wrong(
            "scale without the root",
            changed(GRID, "sqrt(highest / (width * height))", "highest / (width * height)"),
            "square scales the pixels",
        ),
        Wrong(
            "budget compared with the original picture",
            GRID.replace("pixels = rows * columns * 28**2", "pixels = width * height"),
            "budget holds",
        ),
        Wrong(
            "rounded sides scaled",
            """
def token_grid(width, height, lowest, highest):
    width, height = 28 * max(1, round(width / 28)), 28 * max(1, round(height / 28))
    scale = 1
    if width * height > highest:
        scale = sqrt(highest / (width * height))
    elif width * height < lowest:
        return tuple(ceil(side * sqrt(lowest / (width * height)) / 28) for side in (height, width))
    return max(1, floor(height * scale / 28)), max(1, floor(width * scale / 28))
""",
            "original, not the rounded",
        ),
        Wrong(
            "a row vanishes", changed(GRID, "max(1, floor(side * scale / 28))", "floor(side * scale / 28)"), "vanish"
        ),
        Wrong("no lower bound", GRID.split("    elif")[0] + "    return rows, columns\n", "too few pixels"),
        Wrong(
            "side / 28 instead of whole numbers",
            """
def token_grid(width, height, lowest, highest):
    scale = min(1, sqrt(highest / (width * height)))
    return height * scale / 28, width * scale / 28
""",
            "whole numbers",
        ),
    ],
    "positions": [
        Wrong(
            "text has a time only",
            POSITIONS.format(
                change="""if isinstance(part, int):
            piece = torch.stack([torch.arange(part), torch.zeros(part).long(), torch.zeros(part).long()])"""
            ),
            "same and",
        ),
        Wrong(
            "time counts the image tokens",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = torch.stack([torch.arange(rows * columns), height, width])"""
            ),
            "time stands still",
        ),
        Wrong(
            "height and width mixed up",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = piece[[0, 2, 1]]"""
            ),
            "height counts rows",
        ),
        Wrong(
            "a picture uses up its tokens",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = rows * columns"""
            ),
            "not counted in tokens",
        ),
        Wrong(
            "rows decide, not the larger side",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = rows"""
            ),
            "columns reach further",
        ),
        Wrong(
            "columns decide, not the larger side",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = columns"""
            ),
            "rows decide",
        ),
        Wrong(
            "text goes on from the largest position itself",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = max(rows, columns) - 1"""
            ),
            r"\*behind\*",
        ),
        Wrong(
            "tokens run down the columns",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = torch.stack([torch.zeros_like(height), torch.arange(rows).repeat(columns),
                                 torch.arange(columns).repeat_interleave(rows)])"""
            ),
            "along the rows",
        ),
        Wrong(
            "pictures start at 0",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = piece - start"""
            ),
            "time stands still|where the prompt has got",
        ),
        Wrong(
            "every picture starts where the first did",
            """
def positions(parts):
    first = next((n for n, part in enumerate(parts) if not isinstance(part, int)), len(parts))
    begin, pieces, start = sum(parts[:first]), [], 0
    for part in parts:
        if isinstance(part, int):
            pieces.append(start + torch.arange(part).expand(3, -1))
            start += part
        else:
            height = torch.arange(part[0]).repeat_interleave(part[1])
            width = torch.arange(part[1]).repeat(part[0])
            pieces.append(begin + torch.stack([torch.zeros_like(height), height, width]))
            start += max(part)
    return torch.cat(pieces, dim=1)
""",
            "not where the first did",
        ),
    ],
    "effect": [
        Wrong(
            "written into the batch's own features",
            changed(EFFECT, "[feature.clone() for feature in batch.image_features]", "batch.image_features"),
            "clone",
        ),
        Wrong("signs cancel", changed(EFFECT, "(after - before).abs()", "before - after"), "no effect is negative"),
        Wrong("gradient kept", changed(EFFECT, "with torch.no_grad():", "if True:"), "no gradient"),
        Wrong(
            "zeros for the mean",
            changed(EFFECT, "feature[own] = feature.mean(dim=0)", "feature[own] = 0"),
            "equal tokens",
        ),
        Wrong(
            "mean over all pictures",
            changed(
                EFFECT,
                "feature[own] = feature.mean(dim=0)",
                "feature[own] = torch.stack(batch.image_features).mean(dim=(0, 1))",
            ),
            "equal tokens",
        ),
        Wrong(
            "padding counted", changed(EFFECT, "change[row][rollout.mask[row]].mean()", "change[row].mean()"), "padding"
        ),
        Wrong(
            "mean of the rows' means",
            changed(
                EFFECT,
                "change[row][rollout.mask[row]].mean()",
                "(change[row].sum(dim=1) / rollout.lengths[row]).mean()",
            ),
            "no mean of rows' means",
        ),
        Wrong(
            "cells of the first picture for all",
            changed(EFFECT, "feature[own] = feature.mean(dim=0)", "feature[cells[0]] = feature.mean(dim=0)"),
            "no cell|belong to picture b alone",
        ),
        Wrong(
            "rows taken for group-major",
            changed(EFFECT, "rollout.groups == b for b", "torch.arange(len(rollout)) % len(batch) == b for b"),
            "rows to their groups",
        ),
        Wrong(
            "one number for the batch",
            changed(
                EFFECT,
                "torch.stack([change[row][rollout.mask[row]].mean() for row in rows])",
                "change[rollout.mask].mean()",
            ),
            "for each picture",
        ),
    ],
    "draw": [
        Wrong(
            "logits times temperature",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits * temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "logits are divided",
        ),
        Wrong(
            "probabilities divided by temperature",
            """
def draw(logits, temperature, u):
    p = torch.softmax(logits, dim=-1) / temperature
    p = p / p.sum(dim=-1, keepdim=True)
    tokens = (p.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, p.gather(1, tokens[:, None])[:, 0].log()
""",
            "logits are divided",
        ),
        Wrong(
            "log-probability at temperature 1",
            """
def draw(logits, temperature, u):
    ends = torch.softmax(logits / temperature, dim=-1).cumsum(dim=-1)
    tokens = (ends <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
""",
            "log-probability at T",
        ),
        Wrong(
            "log-probabilities divided by the temperature, not normalised again",
            """
def draw(logits, temperature, u):
    ends = torch.softmax(logits / temperature, dim=-1).cumsum(dim=-1)
    tokens = (ends <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0] / temperature
""",
            "log-probability at T",
        ),
        Wrong(
            "greedy",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    return logps.argmax(dim=-1), logps.max(dim=-1).values
""",
            "greedy",
        ),
        Wrong(
            "probabilities instead of their logarithms",
            """
def draw(logits, temperature, u):
    p = torch.softmax(logits / temperature, dim=-1)
    tokens = (p.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, p.gather(1, tokens[:, None])[:, 0]
""",
            "at most 0",
        ),
        Wrong(
            "u = 0 falls into an interval of length 0",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) < u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "forbidden token",
        ),
        Wrong(
            "off by one",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1) + 1
    return tokens, logps.gather(1, tokens[:, None] - 1)[:, 0]
""",
            "outside the vocabulary",
        ),
        Wrong(
            "one u for all rows",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[0]).sum(dim=-1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "each row with its own u",
        ),
        Wrong(
            "draws with torch's generator, not with u",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = torch.multinomial(logps.exp(), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "u decides nothing|each row with its own u",
        ),
        Wrong(
            "likeliest token first on the line",
            """
def draw(logits, temperature, u):
    logps, order = torch.log_softmax(logits / temperature, dim=-1).sort(dim=-1, descending=True)
    place = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)[:, None]
    return order.gather(1, place)[:, 0], logps.gather(1, place)[:, 0]
""",
            "fall into intervals 0, 1, 2",
        ),
    ],
    "mask": [
        Wrong(
            "the end token left out",
            changed(MASK, "is_end.cumsum(dim=1) - is_end == 0", "is_end.cumsum(dim=1) == 0") + SEQUENCE,
            "end token itself counts",
        ),
        Wrong(
            "padding id left out",
            """
def completion_mask(ids, end_ids):
    return ids != end_ids[-1]
"""
            + SEQUENCE,
            "end token itself counts",
        ),
        Wrong(
            "up to the last end token",
            """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    after = is_end.flip(1).cumsum(dim=1).flip(1)
    return (after > 0) | (is_end.sum(dim=1, keepdim=True) == 0)
"""
            + SEQUENCE,
            r"\*first\* end token",
        ),
        Wrong(
            "one end id only",
            changed(MASK, "torch.isin(ids, torch.tensor(end_ids)).long()", "(ids == end_ids[-1]).long()") + SEQUENCE,
            "any of the end ids",
        ),
        Wrong(
            "a row without an end token counts nothing",
            """
def completion_mask(ids, end_ids):
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, tokens in zip(mask, ids.tolist()):
        for j, token in enumerate(tokens):
            if token in end_ids:
                row[: j + 1] = True
                break
    return mask
"""
            + SEQUENCE,
            "cut off",
        ),
        Wrong(
            "numbers instead of truth values",
            """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    return (is_end.cumsum(dim=1) - is_end == 0).float()


def sequence_logps(logps, ids, end_ids):
    return (logps * completion_mask(ids, end_ids)).sum(dim=1)
""",
            "bool tensor",
        ),
        Wrong(
            "an end token in the first place is overlooked",
            """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    first = is_end.argmax(dim=1, keepdim=True)
    first[first == 0] = ids.shape[1]
    return torch.arange(ids.shape[1]) <= first
"""
            + SEQUENCE,
            "very first",
        ),
        Wrong(
            "all tokens summed",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    return logps.sum(dim=1)
""",
            "behind its end token",
        ),
        Wrong(
            "mean instead of sum",
            MASK + changed(SEQUENCE, ".sum(dim=1)", ".sum(dim=1) / completion_mask(ids, end_ids).sum(dim=1)"),
            "no mean",
        ),
        Wrong(
            "0 times NaN",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    return (logps * completion_mask(ids, end_ids)).sum(dim=1)
""",
            "0 times NaN",
        ),
        Wrong(
            "probabilities added up",
            MASK + changed(SEQUENCE, "logps.masked_fill(", "logps.exp().masked_fill("),
            "log-probabilities add up",
        ),
    ],
    "outside-clip": [
        Wrong(
            "ratio upside down",
            changed(
                OUTSIDE,
                "(score_completions(policy, prompts, rollout) - rollout.logps)",
                "(rollout.logps - score_completions(policy, prompts, rollout))",
            ),
            "reciprocal",
        ),
        Wrong("padding counted", changed(OUTSIDE, "outside[rollout.mask]", "outside"), "padding"),
        Wrong(
            "upper end only",
            changed(OUTSIDE, "(ratio < 1 - clip) | (ratio > 1 + clip)", "ratio > 1 + clip"),
            "0.7 is outside",
        ),
        Wrong(
            "lower end only",
            changed(OUTSIDE, "(ratio < 1 - clip) | (ratio > 1 + clip)", "ratio < 1 - clip"),
            "1.3 is outside",
        ),
        Wrong(
            "logarithms compared with the clip",
            changed(
                changed(OUTSIDE, "rollout.logps).exp()", "rollout.logps)"),
                "(ratio < 1 - clip) | (ratio > 1 + clip)",
                "ratio.abs() > clip",
            ),
            "0.82|logarithms",
        ),
        Wrong(
            "clip fixed at 0.2",
            changed(OUTSIDE, "(ratio < 1 - clip) | (ratio > 1 + clip)", "(ratio < 0.8) | (ratio > 1.2)"),
            "clip is an argument",
        ),
        Wrong(
            "mean of the rows' shares",
            changed(
                OUTSIDE,
                "outside[rollout.mask].float().mean().item()",
                "((outside & rollout.mask).sum(dim=1) / rollout.lengths).mean().item()",
            ),
            "not of rows",
        ),
        Wrong("inside instead of outside", changed(OUTSIDE, "return outside", "return (~outside)"), "every ratio is 1"),
        Wrong(
            "scored at temperature 1",
            changed(
                OUTSIDE,
                "score_completions(policy, prompts, rollout)",
                "score_completions(policy, prompts, replace(rollout, temperature=1.0))",
            ),
            "knows its temperature",
        ),
        Wrong(
            "a tensor with its gradient",
            """
def outside_clip(policy, prompts, rollout, clip):
    ratio = (score_completions(policy, prompts, rollout) - rollout.logps).exp()
    return ((ratio - 1).abs() > clip)[rollout.mask].float().mean()
""",
            "a float",
        ),
    ],
    "never-rewarded": [
        Wrong("c / n for the probability", changed(NEVER, "comb(n - c, G) / comb(n, G)", "(1 - c / n) ** G"), "biased"),
        Wrong(
            "mean over a label's pictures",
            """
def never_rewarded(right, labels, G):
    n, missed = right.shape[1], {}
    for c, label in zip(right.sum(dim=1).int().tolist(), labels):
        missed.setdefault(label, []).append(comb(n - c, G) / comb(n, G))
    return sum(sum(own) / len(own) for own in missed.values()) / len(missed)
""",
            "all",
        ),
        Wrong(
            "share of pictures, not of labels",
            """
def never_rewarded(right, labels, G):
    n = right.shape[1]
    missed = [comb(n - c, G) / comb(n, G) for c in right.sum(dim=1).int().tolist()]
    return sum(missed) / len(missed)
""",
            "all",
        ),
        Wrong(
            "rewarded instead of never rewarded",
            changed(NEVER, "sum(missed.values()) / len(missed)", "1 - sum(missed.values()) / len(missed)"),
            "never",
        ),
        Wrong(
            "a label's samples in one pool",
            """
def never_rewarded(right, labels, G):
    shares = []
    for label in dict.fromkeys(labels):
        own = right[[name == label for name in labels]]
        n, c = own.numel(), int(own.sum())
        shares.append(comb(n - c, G) / comb(n, G))
    return sum(shares) / len(shares)
""",
            "one good picture|independent",
        ),
        Wrong(
            "only labels that were never right at all",
            """
def never_rewarded(right, labels, G):
    alive = {label for label, row in zip(labels, right) if row.any()}
    return 1 - len(alive) / len(set(labels))
""",
            "1 of 6",
        ),
        Wrong(
            "the first G samples",
            """
def never_rewarded(right, labels, G):
    alive = {label for label, row in zip(labels, right) if row[:G].any()}
    return 1 - len(alive) / len(set(labels))
""",
            "1 of 6",
        ),
        Wrong("right and wrong mixed up", changed(NEVER, "comb(n - c, G)", "comb(c, G)"), "always right"),
        Wrong(
            "weighted by pictures",
            """
def never_rewarded(right, labels, G):
    n = right.shape[1]
    missed = dict.fromkeys(labels, 1.0)
    for c, label in zip(right.sum(dim=1).int().tolist(), labels):
        missed[label] *= comb(n - c, G) / comb(n, G)
    return sum(missed[label] for label in labels) / len(labels)
""",
            "labels weigh the same",
        ),
        Wrong(
            "pictures of a label taken for neighbours",
            """
def never_rewarded(right, labels, G):
    n, shares, last = right.shape[1], [], None
    for c, label in zip(right.sum(dim=1).int().tolist(), labels):
        if label != last:
            shares.append(1.0)
        shares[-1] *= comb(n - c, G) / comb(n, G)
        last = label
    return sum(shares) / len(shares)
""",
            "need not stand together",
        ),
    ],
}
