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
def wilson(right, images):
    z, share = NormalDist().inv_cdf(0.975), right / images
    half = z * sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    middle, scale = share + z**2 / (2 * images), 1 + z**2 / images
    return (middle - half) / scale, (middle + half) / scale
"""
IMAGES = """
def images_for(half, share, labels):
    images = labels
    while True:
        low, high = wilson(share * images, images)
        if (high - low) / 2 <= half:
            return images
        images += labels
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
        Wrong(
            "seeded with the hash of a string",
            SPLIT.format(
                body="""Random(hash(label)).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(hash((label, seed))).shuffle(rest)
        train += rest[:shots]"""
            ),
            "another process",
        ),
        Wrong(
            "the hash of label and seed in one text",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(hash(f"{label} {seed}")).shuffle(rest)
        train += rest[:shots]"""
            ),
            "another process",
        ),
        Wrong(
            "one generator runs through a set of labels",
            """
def split(records, shots, test, seed):
    train, tested, for_test, for_train = [], [], Random(0), Random(seed)
    for label in {record.label for record in records}:
        own = [record for record in records if record.label == label]
        for_test.shuffle(own)
        tested += own[:test]
        rest = own[test:]
        for_train.shuffle(rest)
        train += rest[:shots]
    return train, tested
""",
            "another process",
        ),
        Wrong(
            "records drawn from a set",
            SPLIT.format(
                body="""own = list(set(own))
        Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {seed}").shuffle(rest)
        train += rest[:shots]"""
            ),
            "another process",
        ),
        Wrong(
            "drawn with replacement",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        train += Random(f"{label} {seed}").choices(own[test:], k=shots)"""
            ),
            "at most once|nested",
        ),
        Wrong(
            "the label read from the folder",
            """
def split(records, shots, test, seed):
    train, tested = [], []
    for folder in sorted({record.source.split("/")[0] for record in records}):
        own = [record for record in records if record.source.split("/")[0] == folder]
        Random(folder).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{folder} {seed}").shuffle(rest)
        train += rest[:shots]
    return train, tested
""",
            "balanced",
        ),
        Wrong(
            "records of a label taken for neighbours",
            """
def split(records, shots, test, seed):
    from itertools import groupby
    train, tested = [], []
    for label, own in groupby(records, key=lambda record: record.label):
        own = list(own)
        Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {seed}").shuffle(rest)
        train += rest[:shots]
    return train, tested
""",
            "balanced",
        ),
        Wrong(
            "the seed is a place in the list",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        train += rest[seed : seed + shots]"""
            ),
            "balanced",
        ),
        Wrong(
            "test records from what the training left",
            SPLIT.format(
                body="""Random(f"{label} {seed}").shuffle(own)
        train += own[:shots]
        rest = sorted(own[shots:], key=lambda record: record.source)
        tested += rest[:test]"""
            ),
            "moved with the seed",
        ),
        Wrong(
            "so many shots in all, not per label",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {seed}").shuffle(rest)
        train = (train + rest[:shots])[:shots]"""
            ),
            "balanced",
        ),
        Wrong(
            "seed 0 taken for no seed",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {seed}" if seed else None).shuffle(rest)
        train += rest[:shots]"""
            ),
            "same arguments drew other records",
        ),
        Wrong(
            "all labels as large as the first one",
            """
def split(records, shots, test, seed):
    labels = sorted({record.label for record in records})
    count = sum(record.label == labels[0] for record in records)
    places = list(range(count))
    Random("test").shuffle(places)
    rest = places[test:]
    Random(seed).shuffle(rest)
    by_label = [[record for record in records if record.label == label] for label in labels]
    return [own[i] for own in by_label for i in rest[:shots]], [own[i] for own in by_label for i in places[:test]]
""",
            "split",
        ),
        Wrong(
            "only two different seeds",
            SPLIT.format(
                body="""Random(label).shuffle(own)
        tested += own[:test]
        rest = own[test:]
        Random(f"{label} {bool(seed)}").shuffle(rest)
        train += rest[:shots]"""
            ),
            "another seed drew",
        ),
    ],
    "interval": [
        Wrong(
            "the library's own interval, imported",
            "from favor_lab.study.evaluation import wilson_interval as wilson\n" + IMAGES,
            "nothing imported from the library",
        ),
        Wrong(
            "a call of the library's own interval",
            """
import favor_lab as lab

def wilson(right, images):
    return tuple(bound for bound in lab.wilson_interval(right, images))
"""
            + IMAGES,
            "nothing imported from the library",
        ),
        Wrong(
            "the textbook interval",
            """
def wilson(right, images):
    share = right / images
    half = NormalDist().inv_cdf(0.975) * sqrt(share * (1 - share) / images)
    return share - half, share + half
"""
            + IMAGES,
            "ten of ten",
        ),
        Wrong(
            "per cent",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "100 * (middle - half) / scale, 100 * (middle + half) / scale",
            )
            + IMAGES,
            "per cent",
        ),
        Wrong(
            "denominator applied to the half-width only",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "middle - half / scale, middle + half / scale",
            )
            + IMAGES,
            r"z\^2 / n",
        ),
        Wrong(
            "centre left at the share",
            changed(WILSON, "middle, scale = share + z**2 / (2 * images)", "middle, scale = share") + IMAGES,
            r"\*own\* standard errors",
        ),
        Wrong(
            "n in place of n squared under the root",
            changed(WILSON, "(4 * images**2)", "(4 * images)") + IMAGES,
            "beyond 1|own",
        ),
        Wrong("90 per cent: z = 1.64", changed(WILSON, "0.975", "0.95") + IMAGES, "quantile"),
        Wrong(
            "n - 1 for n",
            changed(WILSON, "share * (1 - share) / images +", "share * (1 - share) / (images - 1) +") + IMAGES,
            "own",
        ),
        Wrong(
            "the textbook interval for the plan",
            WILSON
            + """
def images_for(half, share, labels):
    images = NormalDist().inv_cdf(0.975) ** 2 * share * (1 - share) / half**2
    return labels * ceil(images / labels)
""",
            "385",
        ),
        Wrong(
            "whole length compared with half",
            WILSON + changed(IMAGES, "(high - low) / 2", "high - low"),
            r"not high - low",
        ),
        Wrong("not balanced over the labels", WILSON + changed(IMAGES, "images += labels", "images += 1"), "balanced"),
        Wrong(
            "rounded to the nearest multiple of the labels",
            WILSON
            + """
def images_for(half, share, labels):
    images = 1
    while (bounds := wilson(share * images, images)) and (bounds[1] - bounds[0]) / 2 > half:
        images += 1
    return labels * (images // labels) or labels
""",
            "enough",
        ),
        Wrong("always at 50 %", WILSON + changed(IMAGES, "share * images", "0.5 * images"), "at 90 %"),
        Wrong(
            "two standard errors: z = 2",
            changed(WILSON, "NormalDist().inv_cdf(0.975)", "2") + IMAGES,
            "each bound lies 1.96",
        ),
        Wrong("99 per cent: z = 2.58", changed(WILSON, "0.975", "0.995") + IMAGES, "each bound lies 1.96"),
        Wrong("share in whole per cent", changed(WILSON, "right / images", "round(right / images, 2)") + IMAGES, "own"),
        Wrong(
            "right answers made whole",
            changed(WILSON, "right / images", "int(right) / images") + IMAGES,
            "low <= share|own standard errors",
        ),
        Wrong(
            "the textbook interval around a shifted share",
            """
def wilson(right, images):
    z = NormalDist().inv_cdf(0.975)
    n = images + z**2
    share = (right + z**2 / 2) / n
    half = z * sqrt(share * (1 - share) / n)
    return share - half, share + half
"""
            + IMAGES,
            "beyond 1|own",
        ),
        Wrong(
            "3 / n where all or none are right",
            """
def wilson(right, images):
    z, share = NormalDist().inv_cdf(0.975), right / images
    if right == images:
        return max(0, 1 - 3 / images), 1.0
    half = z * sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    middle, scale = share + z**2 / (2 * images), 1 + z**2 / images
    return (middle - half) / scale, (middle + half) / scale
"""
            + IMAGES,
            "own standard errors",
        ),
        Wrong(
            "the lower bound mirrored",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "(middle - half) / scale, 2 * share - (middle - half) / scale",
            )
            + IMAGES,
            r"ten of ten|own|beyond 1",
        ),
        Wrong(
            "bounds cut at 1 and 99 per cent",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "max(0.01, (middle - half) / scale), min(0.99, (middle + half) / scale)",
            )
            + IMAGES,
            "low <= share|own standard errors",
        ),
        Wrong(
            "with a correction for continuity",
            changed(
                WILSON,
                "(middle - half) / scale, (middle + half) / scale",
                "max(0, (middle - half) / scale - 0.5 / images), min(1, (middle + half) / scale + 0.5 / images)",
            )
            + IMAGES,
            "own",
        ),
        Wrong(
            "z squared over n in the centre",
            changed(WILSON, "z**2 / (2 * images)", "z**2 / images") + IMAGES,
            "beyond 1|own",
        ),
        Wrong(
            "whole right answers in the plan",
            WILSON + changed(IMAGES, "share * images", "round(share * images)"),
            r"images_for\(|381|multiple",
        ),
        Wrong(
            "a search that starts at ten per label",
            WILSON + changed(IMAGES, "images = labels\n", "images = 10 * labels\n"),
            "fewer than",
        ),
        Wrong(
            "a search in large steps",
            WILSON + changed(IMAGES, "images += labels", "images += 10 * labels"),
            "381|smallest multiple",
        ),
        Wrong(
            "the number for each label",
            WILSON + changed(IMAGES, "return images", "return images // labels"),
            "balanced",
        ),
        Wrong(
            "only the upper arm of the interval",
            WILSON + changed(IMAGES, "(high - low) / 2", "high - share"),
            "not enough|fewer than",
        ),
        Wrong("half a point too generous", WILSON + changed(IMAGES, "<= half", "<= half + 0.005"), "not quite enough"),
        Wrong(
            "one image too many is left out",
            WILSON + changed(IMAGES, "return images", "return max(labels, images - labels)"),
            "not quite enough",
        ),
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
            "budget compared with the original image",
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
        Wrong(
            "original sides scaled by the rounded size's factor",
            changed(GRID, "sqrt(highest / (width * height))", "sqrt(highest / pixels)"),
            "original, not the rounded|which sides",
        ),
        Wrong(
            "grown by the rounded size's factor",
            changed(GRID, "sqrt(lowest / (width * height))", "sqrt(lowest / pixels)"),
            "original sides|which sides|too few",
        ),
        Wrong(
            "a budget met exactly is scaled too",
            changed(GRID, "pixels > highest", "pixels >= highest"),
            "which sides are scaled",
        ),
        Wrong(
            "the original size compared with the upper end only",
            changed(GRID, "pixels > highest", "width * height > highest"),
            "budget holds|what is compared",
        ),
        Wrong(
            "the original size compared with the lower end only",
            changed(GRID, "pixels < lowest", "width * height < lowest"),
            "what is compared|too few|original sides",
        ),
        Wrong(
            "rounded down when growing",
            changed(GRID, "(ceil(side * scale / 28)", "(max(1, floor(side * scale / 28))"),
            "too few|original sides",
        ),
        Wrong(
            "nearest when growing",
            changed(GRID, "(ceil(side * scale / 28)", "(max(1, round(side * scale / 28))"),
            "too few|original sides|not",
        ),
        Wrong(
            "scaled sides rounded to whole pixels first",
            changed(GRID, "floor(side * scale / 28)", "round(side * scale) // 28"),
            "which sides are scaled",
        ),
        Wrong(
            "only the longer side is scaled",
            """
def token_grid(width, height, lowest, highest):
    rows, columns = round(height / 28), round(width / 28)
    while rows * columns * 784 > highest:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    if rows * columns * 784 < lowest:
        scale = sqrt(lowest / (width * height))
        rows, columns = ceil(height * scale / 28), ceil(width * scale / 28)
    return rows, columns
""",
            "not the rounded|not",
        ),
        Wrong(
            "each side limited by itself",
            """
def token_grid(width, height, lowest, highest):
    rows, columns = round(height / 28), round(width / 28)
    most, least = floor(sqrt(highest) / 28), ceil(sqrt(lowest) / 28)
    if rows * columns * 784 > highest:
        rows, columns = min(rows, most), min(columns, most)
    elif rows * columns * 784 < lowest:
        rows, columns = max(rows, least), max(columns, least)
    return rows, columns
""",
            "not the rounded|not",
        ),
        Wrong(
            "grown again after shrinking",
            changed(GRID, "    elif pixels < lowest:", "    if rows * columns * 28**2 < lowest:"),
            "which sides are scaled",
        ),
        Wrong(
            "rows and columns exchanged when growing",
            changed(GRID, "rows, columns = (ceil", "columns, rows = (ceil"),
            "56 wide",
        ),
        Wrong(
            "every image taken for a square",
            changed(GRID, "sqrt(highest / (width * height))", "sqrt(highest) / width"),
            "budget holds|square scales|not",
        ),
        Wrong(
            "the upper end of the budget doubled",
            changed(GRID, "sqrt(highest / (", "sqrt(2 * highest / ("),
            "budget holds",
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
            "an image uses up its tokens",
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
            "images start at 0",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = piece - start"""
            ),
            "time stands still|where the prompt has got",
        ),
        Wrong(
            "every image starts where the first did",
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
        Wrong(
            "each image uses rows plus columns",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = rows + columns - 1"""
            ),
            "its largest position",
        ),
        Wrong(
            "one place left free after an image",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = max(rows, columns) + 1"""
            ),
            "its largest position",
        ),
        Wrong(
            "time decides where text goes on",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = 1"""
            ),
            "its largest position",
        ),
        Wrong(
            "the first image's size for all steps",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            step = max(next(size for size in parts if not isinstance(size, int)))"""
            ),
            "rows decide",
        ),
        Wrong(
            "time is the number of the image",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = piece.clone()
            piece[0] = sum(not isinstance(other, int) for other in parts[: len(pieces)]) - start"""
            ),
            "time stands still|where the prompt",
        ),
        Wrong(
            "not whole numbers",
            changed(POSITIONS, "torch.cat(pieces, dim=1)", "torch.cat(pieces, dim=1).float()").format(change="pass"),
            "dtype long",
        ),
        Wrong(
            "an empty place between two images",
            POSITIONS.format(
                change="""if not isinstance(part, int) and pieces and not isinstance(parts[len(pieces) - 1], int):
            start += 1"""
            ),
            "side by side",
        ),
        Wrong(
            "two images side by side share their positions",
            POSITIONS.format(
                change="""if not isinstance(part, int) and pieces and not isinstance(parts[len(pieces) - 1], int):
            start -= max(parts[len(pieces) - 1])"""
            ),
            "side by side",
        ),
        Wrong(
            "an image at the beginning starts at 1",
            POSITIONS.format(
                change="""if not isinstance(part, int) and not pieces:
            start = 1"""
            ),
            r"positions\(\[",
        ),
        Wrong(
            "a single column counts as one position",
            POSITIONS.format(
                change="""if not isinstance(part, int) and columns == 1:
            step = 1"""
            ),
            r"positions\(\[",
        ),
        Wrong(
            "a single row counts as one position",
            POSITIONS.format(
                change="""if not isinstance(part, int) and rows == 1:
            step = 1"""
            ),
            r"positions\(\[",
        ),
        Wrong(
            "height and width start at 0 in every image",
            POSITIONS.format(
                change="""if not isinstance(part, int):
            piece = torch.stack([piece[0], height - start, width - start])"""
            ),
            "height counts rows",
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
            "mean over all images",
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
            "cells of the first image for all",
            changed(EFFECT, "feature[own] = feature.mean(dim=0)", "feature[cells[0]] = feature.mean(dim=0)"),
            "no cell|belong to image b alone",
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
            "for each image",
        ),
        Wrong(
            "median for the mean token",
            changed(EFFECT, "feature.mean(dim=0)", "feature.median(dim=0).values"),
            r"\*mean\* token",
        ),
        Wrong(
            "median of the changes",
            changed(EFFECT, "[rollout.mask[row]].mean()", "[rollout.mask[row]].median()"),
            r"mean|far more",
        ),
        Wrong(
            "root of the mean square",
            changed(EFFECT, "[rollout.mask[row]].mean()", "[rollout.mask[row]].square().mean().sqrt()"),
            "every token weighs|mean",
        ),
        Wrong(
            "the largest change",
            changed(EFFECT, "[rollout.mask[row]].mean()", "[rollout.mask[row]].max()"),
            "every token weighs|mean",
        ),
        Wrong(
            "the mean of the other cells",
            changed(
                EFFECT,
                "feature[own] = feature.mean(dim=0)",
                "feature[own] = feature[[i for i in range(25) if i not in own]].mean(dim=0)",
            ),
            r"\*mean\* token",
        ),
        Wrong(
            "the mean of the replaced cells",
            changed(EFFECT, "feature[own] = feature.mean(dim=0)", "feature[own] = feature[own].mean(dim=0)"),
            r"\*mean\* token|belong to image b alone",
        ),
        Wrong(
            "a mean that moves while cells are replaced",
            changed(
                EFFECT,
                "feature[own] = feature.mean(dim=0)",
                "[feature[i].copy_(feature.mean(dim=0) * 1.0) for i in own for _ in range(9)]",
            ),
            r"\*mean\* token",
        ),
        Wrong(
            "the token of the first cell",
            changed(EFFECT, "feature[own] = feature.mean(dim=0)", "feature[own] = feature[0].clone()"),
            r"\*mean\* token",
        ),
        Wrong(
            "changes of the probabilities",
            changed(EFFECT, "(after - before).abs()", "(after.exp() - before.exp()).abs()"),
            r"mean",
        ),
        Wrong(
            "size of the mean change",
            changed(
                changed(EFFECT, "(after - before).abs()", "after - before"),
                "[rollout.mask[row]].mean()",
                "[rollout.mask[row]].mean().abs()",
            ),
            "every token weighs|mean",
        ),
        Wrong("in bits", changed(EFFECT, "(after - before).abs()", "(after - before).abs() / 0.6931"), r"mean"),
        Wrong(
            "the first completion of each image",
            changed(EFFECT, "change[row][rollout.mask[row]].mean()", "change[row][0][rollout.mask[row][0]].mean()"),
            "every token weighs",
        ),
        Wrong(
            "the first token left out",
            changed(
                EFFECT, "change[row][rollout.mask[row]].mean()", "change[row][:, 1:][rollout.mask[row][:, 1:]].mean()"
            ),
            "every token weighs|mean",
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
        Wrong(
            "the interval includes its right end",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = torch.searchsorted(logps.exp().cumsum(dim=-1), u[:, None])[:, 0].clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "forbidden token",
        ),
        Wrong(
            "read from the right",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= 1 - u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "fall into intervals",
        ),
        Wrong(
            "all tokens equally likely",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = (u * logits.shape[1]).long()
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "forbidden token|fall into intervals",
        ),
        Wrong(
            "exponentials that overflow",
            """
def draw(logits, temperature, u):
    p = (logits / temperature).exp()
    p = p / p.sum(dim=-1, keepdim=True)
    tokens = (p.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, p.gather(1, tokens[:, None])[:, 0].log()
""",
            "logits around",
        ),
        Wrong(
            "a forbidden token has a logit of 0",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits.nan_to_num(neginf=0.0) / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "forbidden token",
        ),
        Wrong(
            "a forbidden token is only rare",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits.clamp(min=-15.0) / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "forbidden token|logits around",
        ),
        Wrong(
            "no temperature below 1",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / max(temperature, 1.0), dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "T = 0.5",
        ),
        Wrong(
            "log-probability of the likeliest token",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits / temperature, dim=-1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.max(dim=-1).values
""",
            "of the drawn token",
        ),
        Wrong(
            "logarithm of the interval's right end",
            """
def draw(logits, temperature, u):
    ends = torch.softmax(logits / temperature, dim=-1).cumsum(dim=-1)
    tokens = (ends <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, ends.gather(1, tokens[:, None])[:, 0].clamp(max=1.0).log()
""",
            "of the drawn token",
        ),
        Wrong(
            "logarithm to base 2",
            """
def draw(logits, temperature, u):
    p = torch.softmax(logits / temperature, dim=-1)
    tokens = (p.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, p.gather(1, tokens[:, None])[:, 0].log2()
""",
            "of the drawn token",
        ),
        Wrong(
            "probabilities of two digits",
            """
def draw(logits, temperature, u):
    p = torch.softmax(logits / temperature, dim=-1).round(decimals=2)
    tokens = (p.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, p.gather(1, tokens[:, None])[:, 0].log()
""",
            "forbidden|logits around|T = ",
        ),
        Wrong(
            "the first row's distribution for all",
            """
def draw(logits, temperature, u):
    logps = torch.log_softmax(logits[:1] / temperature, dim=-1).expand(len(u), -1)
    tokens = (logps.exp().cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=logits.shape[1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]
""",
            "forbidden token|logits around",
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
        Wrong(
            "the first of the end ids only",
            changed(MASK, "torch.isin(ids, torch.tensor(end_ids)).long()", "(ids == end_ids[0]).long()") + SEQUENCE,
            r"\*first\* end token|any of the end ids",
        ),
        Wrong(
            "tokens that do not end, and one more",
            """
def completion_mask(ids, end_ids):
    lengths = (~torch.isin(ids, torch.tensor(end_ids))).sum(dim=1) + 1
    return torch.arange(ids.shape[1]) < lengths[:, None]
"""
            + SEQUENCE,
            "row 1 ends with 8|these tokens count",
        ),
        Wrong(
            "all rows as long as the longest",
            """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    mask = is_end.cumsum(dim=1) - is_end == 0
    return mask.any(dim=0).expand(len(ids), -1)
"""
            + SEQUENCE,
            r"\*first\* end token",
        ),
        Wrong(
            "no end token: the first place is taken",
            """
def completion_mask(ids, end_ids):
    lengths = torch.isin(ids, torch.tensor(end_ids)).long().argmax(dim=1) + 1
    return torch.arange(ids.shape[1]) < lengths[:, None]
"""
            + SEQUENCE,
            "up to and including",
        ),
        Wrong(
            "the first of the list, not of the row",
            """
def completion_mask(ids, end_ids):
    lengths = [next((row.index(end) + 1 for end in end_ids if end in row), len(row)) for row in ids.tolist()]
    return torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
"""
            + SEQUENCE,
            "these tokens count",
        ),
        Wrong(
            "the first of the sorted ids, not of the row",
            """
def completion_mask(ids, end_ids):
    lengths = [next((row.index(end) + 1 for end in sorted(end_ids) if end in row), len(row)) for row in ids.tolist()]
    return torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
"""
            + SEQUENCE,
            "these tokens count",
        ),
        Wrong(
            "an end needs two end tokens",
            """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    return is_end.cumsum(dim=1) - is_end < 2
"""
            + SEQUENCE,
            r"\*first\* end token",
        ),
        Wrong(
            "the last place never counts",
            """
def completion_mask(ids, end_ids):
    is_end = torch.isin(ids, torch.tensor(end_ids)).long()
    mask = is_end.cumsum(dim=1) - is_end == 0
    mask[:, -1] = False
    return mask
"""
            + SEQUENCE,
            "up to and including",
        ),
        Wrong(
            "NaN left out, other values not",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    return logps.nansum(dim=1)
""",
            "behind its end token",
        ),
        Wrong(
            "the end token left out of the sum",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    mask = completion_mask(ids, end_ids) & ~torch.isin(ids, torch.tensor(end_ids))
    return logps.masked_fill(~mask, 0.0).sum(dim=1)
""",
            "a product over its tokens|by its own mask|behind",
        ),
        Wrong(
            "a truncated completion has no log-probability",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    ended = torch.isin(ids, torch.tensor(end_ids)).any(dim=1)
    return logps.masked_fill(~completion_mask(ids, end_ids), 0.0).sum(dim=1) * ended
""",
            "by its own mask",
        ),
        Wrong(
            "the last counted token only",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    last = completion_mask(ids, end_ids).sum(dim=1, keepdim=True) - 1
    return logps.gather(1, last)[:, 0]
""",
            "a product over its tokens",
        ),
        Wrong(
            "the first row's length for all sums",
            MASK
            + """
def sequence_logps(logps, ids, end_ids):
    length = int(completion_mask(ids, end_ids)[0].sum())
    return logps[:, :length].sum(dim=1)
""",
            "by its own mask",
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
        Wrong(
            "the same factor up and down",
            changed(OUTSIDE, "(ratio < 1 - clip) | (ratio > 1 + clip)", "ratio.log().abs() > log1p(clip)").replace(
                "def outside", "from math import log1p\n\n\ndef outside"
            ),
            "0.82",
        ),
        Wrong("below 1 / (1 + clip)", changed(OUTSIDE, "ratio < 1 - clip", "ratio < 1 / (1 + clip)"), "0.82"),
        Wrong(
            "above 1 / (1 - clip)", changed(OUTSIDE, "ratio > 1 + clip", "ratio > 1 / (1 - clip)"), "1.21|logarithms"
        ),
        Wrong(
            "completions with a token outside",
            changed(OUTSIDE, "outside[rollout.mask]", "(outside & rollout.mask).any(dim=1)"),
            "share of tokens",
        ),
        Wrong(
            "one ratio for a whole completion",
            """
def outside_clip(policy, prompts, rollout, clip):
    with torch.no_grad():
        change = (score_completions(policy, prompts, rollout) - rollout.logps) * rollout.mask
    ratio = (change.sum(dim=1) / rollout.lengths).exp()
    return ((ratio < 1 - clip) | (ratio > 1 + clip)).float().mean().item()
""",
            "share of tokens|random ratios",
        ),
        Wrong(
            "a share of all places, padding too",
            changed(
                OUTSIDE,
                "outside[rollout.mask].float().mean().item()",
                "(outside & rollout.mask).sum().item() / rollout.mask.numel()",
            ),
            "padding",
        ),
        Wrong(
            "tokens for each completion",
            changed(
                OUTSIDE,
                "outside[rollout.mask].float().mean().item()",
                "min(1.0, outside[rollout.mask].sum().item() / len(rollout))",
            ),
            "share of tokens|1.3|random",
        ),
        Wrong(
            "the first token left out",
            changed(OUTSIDE, "outside[rollout.mask]", "outside[:, 1:][rollout.mask[:, 1:]]"),
            "share of tokens|random ratios",
        ),
        Wrong(
            "the end token left out",
            changed(OUTSIDE, "outside[rollout.mask]", "outside[:, :-1][rollout.mask[:, 1:]]"),
            "share of tokens|random ratios",
        ),
        Wrong(
            "ratios of one digit",
            changed(OUTSIDE, "rollout.logps).exp()", "rollout.logps).exp().round(decimals=1)"),
            "1.21|logarithms|random",
        ),
        Wrong("outside at both ends at once", changed(OUTSIDE, ") | (", ") & ("), "0.7 is outside"),
        Wrong("per cent", changed(OUTSIDE, ".item()", ".item() * 100"), "a share|0.99|share of tokens|1.3|random"),
        Wrong(
            "twice the clip",
            changed(OUTSIDE, "(ratio < 1 - clip) | (ratio > 1 + clip)", "(ratio - 1).abs() > 2 * clip"),
            "0.7 is outside",
        ),
    ],
    "never-rewarded": [
        Wrong("c / n for the probability", changed(NEVER, "comb(n - c, G) / comb(n, G)", "(1 - c / n) ** G"), "biased"),
        Wrong(
            "mean over a label's images",
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
            "share of images, not of labels",
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
            "one good image|independent",
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
            "weighted by images",
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
            "images of a label taken for neighbours",
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
        Wrong(
            "the best image decides",
            changed(
                NEVER,
                "missed[label] *= comb(n - c, G) / comb(n, G)",
                "missed[label] = min(missed[label], comb(n - c, G) / comb(n, G))",
            ),
            "independent",
        ),
        Wrong(
            "the last image decides",
            changed(NEVER, "missed[label] *= comb", "missed[label] = comb"),
            "independent|one good image|the example",
        ),
        Wrong(
            "some image is never rewarded",
            """
def never_rewarded(right, labels, G):
    n, safe = right.shape[1], dict.fromkeys(labels, 1.0)
    for c, label in zip(right.sum(dim=1).int().tolist(), labels):
        safe[label] *= 1 - comb(n - c, G) / comb(n, G)
    return sum(1 - p for p in safe.values()) / len(safe)
""",
            "one good image",
        ),
        Wrong("ordered picks over unordered ones", changed(NEVER, "/ comb(n, G)", "/ n**G"), "never right"),
        Wrong(
            "one completion fewer",
            changed(NEVER, "comb(n - c, G) / comb(n, G)", "comb(n - c, G - 1) / comb(n, G - 1)"),
            "2 of 4",
        ),
        Wrong("a straight line", changed(NEVER, "comb(n - c, G) / comb(n, G)", "max(0.0, 1 - c * G / n)"), "1 of 6"),
        Wrong(
            "as many images for each label, side by side",
            """
def never_rewarded(right, labels, G):
    n, count = right.shape[1], len(labels) // len(set(labels))
    missed = [comb(n - c, G) / comb(n, G) for c in right.sum(dim=1).int().tolist()]
    shares = []
    for i in range(0, len(missed), count):
        share = 1.0
        for p in missed[i : i + count]:
            share *= p
        shares.append(share)
    return sum(shares) / len(shares)
""",
            "need not stand together",
        ),
        Wrong(
            "shares of two digits",
            changed(NEVER, "comb(n - c, G) / comb(n, G)", "round(comb(n - c, G) / comb(n, G), 2)"),
            "1 of 6",
        ),
        Wrong(
            "labels with one image left out",
            changed(
                changed(NEVER, "len(missed)", "max(1, len([label for label in missed if labels.count(label) > 1]))"),
                "missed.values()",
                "p for label, p in missed.items() if labels.count(label) > 1",
            ),
            r"never right",
        ),
        Wrong(
            "labels that are surely never rewarded",
            changed(NEVER, "sum(missed.values())", "sum(p == 1 for p in missed.values())"),
            "1 of 6",
        ),
        Wrong(
            "labels that are rather not rewarded",
            changed(NEVER, "sum(missed.values())", "sum(p > 0.5 for p in missed.values())"),
            "1 of 6",
        ),
        Wrong(
            "the expected number of labels",
            changed(NEVER, "sum(missed.values()) / len(missed)", "sum(missed.values()) / 1"),
            "a float between 0 and 1",
        ),
        Wrong(
            "one group over all images of a label",
            """
def never_rewarded(right, labels, G):
    shares, n = [], right.shape[1]
    for label in dict.fromkeys(labels):
        c = right[[name == label for name in labels]].sum(dim=1).max().int().item()
        shares.append(comb(n - c, G) / comb(n, G))
    return sum(shares) / len(shares)
""",
            "independent",
        ),
        Wrong(
            "a group for each label, not for each image",
            """
def never_rewarded(right, labels, G):
    shares, n = [], right.shape[1]
    for label in dict.fromkeys(labels):
        rows = right[[name == label for name in labels]]
        c = rows.sum(dim=1).mean().round().int().item()
        shares.append((comb(n - c, G) / comb(n, G)) ** len(rows))
    return sum(shares) / len(shares)
""",
            "one good image|all picks",
        ),
    ],
}


#: Right answers that are written in another way than the solutions: the checks must take them.
RIGHT: dict[str, list[str]] = {
    "split": [
        """
def split(records, shots, test, seed):
    piles = {}
    for record in records:
        piles.setdefault(record.label, []).append(record)
    train, held = [], []
    for label, pile in piles.items():
        held.extend(pile[:test])
        train.extend(Random(f"{seed}{label}").sample(pile[test:], len(pile) - test)[:shots])
    return train, held
""",
        """
def split(records, shots, test, seed):
    import zlib

    labels, train, held = sorted({r.label for r in records}), (), ()
    for label in labels:
        own = sorted((r for r in records if r.label == label), key=lambda r: zlib.crc32(r.source.encode()))
        rest = own[test:]
        np.random.RandomState(seed).shuffle(rest)
        held, train = held + tuple(own[:test]), train + tuple(rest[:shots])
    return train, held
""",
    ],
    "interval": [
        """
def wilson(right, images):
    z2, p = NormalDist().inv_cdf(0.975) ** 2, right / images
    a, b, c = 1 + z2 / images, -(2 * p + z2 / images), p * p
    root = sqrt(max(0.0, b * b - 4 * a * c))
    return [(-b - root) / (2 * a), (-b + root) / (2 * a)]


def images_for(half, share, labels):
    per_label = 1
    while True:
        low, high = wilson(share * per_label * labels, per_label * labels)
        if high - low <= 2 * half:
            return labels * per_label
        per_label += 1
""",
        """
def wilson(right, images):
    z = 1.96
    n = images + z * z
    middle = (right + z * z / 2) / n
    half = z / n * sqrt(right * (images - right) / images + z * z / 4)
    return middle - half, middle + half


def images_for(half, share, labels):
    low, high = 0, 1
    while too_few(labels * high, half, share):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if too_few(labels * middle, half, share) else (low, middle)
    return labels * high


def too_few(images, half, share):
    low, high = wilson(share * images, images)
    return (high - low) / 2 > half
""",
    ],
    "token-grid": [
        """
def token_grid(width, height, lowest, highest):
    sides, area = (height, width), width * height
    tokens = [round(side / 28) for side in sides]
    count = tokens[0] * tokens[1]
    if count * 784 > highest:
        tokens = [max(1, int(side * (highest / area) ** 0.5 // 28)) for side in sides]
    if count * 784 < lowest:
        tokens = [ceil(side * (lowest / area) ** 0.5 / 28) for side in sides]
    return tokens
""",
        """
def token_grid(width, height, lowest, highest):
    rows, columns = int(height / 28 + 0.5), int(width / 28 + 0.5)
    if 784 * rows * columns > highest:
        beta = sqrt(width * height / highest)
        return max(1, floor(height / beta / 28)), max(1, floor(width / beta / 28))
    if 784 * rows * columns < lowest:
        beta = sqrt(lowest / (width * height))
        return ceil(height * beta / 28), ceil(width * beta / 28)
    return rows, columns
""",
    ],
    "positions": [
        """
def positions(parts):
    tokens, start = [], 0
    for part in parts:
        if isinstance(part, int):
            tokens += [(start + i,) * 3 for i in range(part)]
            start += part
        else:
            tokens += [(start, start + row, start + column) for row in range(part[0]) for column in range(part[1])]
            start += max(part)
    return torch.tensor(tokens).T
""",
        """
def positions(parts):
    out = torch.zeros(3, 0, dtype=torch.long)
    for part in parts:
        start = int(out.max()) + 1 if out.shape[1] else 0
        if isinstance(part, int):
            new = torch.arange(start, start + part).repeat(3, 1)
        else:
            i = torch.arange(part[0] * part[1])
            new = start + torch.stack([0 * i, i // part[1], i % part[1]])
        out = torch.cat([out, new], dim=1)
    return out
""",
    ],
    "effect": [
        """
@torch.no_grad()
def effect(policy, batch, rollout, cells):
    changed = []
    for feature, own in zip(batch.image_features, cells):
        keep = torch.ones(len(feature), 1)
        keep[own] = 0
        changed.append(feature * keep + feature.mean(dim=0, keepdim=True) * (1 - keep))
    old = score_completions(policy, batch, rollout)
    new = score_completions(policy, replace(batch, image_features=changed), rollout)
    sizes = (new - old).abs().masked_fill(~rollout.mask, 0.0).sum(dim=1)
    zeros = torch.zeros(len(batch))
    tokens = zeros.index_add(0, rollout.groups, rollout.mask.sum(dim=1).float())
    return zeros.index_add(0, rollout.groups, sizes) / tokens
"""
    ],
    "draw": [
        """
def draw(logits, temperature, u):
    p = (logits / temperature).softmax(dim=1)
    ends = p.cumsum(dim=1)
    tokens = torch.searchsorted(ends, u[:, None], right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    return tokens, p[torch.arange(len(u)), tokens].log()
""",
        """
def draw(logits, temperature, u):
    tokens, logps = [], []
    for row, point in zip(logits.double(), u.tolist()):
        p = torch.softmax(row / temperature, dim=0).tolist()
        end, chosen = 0.0, None
        for token, share in enumerate(p):
            end += share
            if share > 0 and chosen is None and point < end:
                chosen = token
        chosen = max(range(len(p)), key=p.__getitem__) if chosen is None else chosen
        tokens.append(chosen)
        logps.append(np.log(p[chosen]))
    return torch.tensor(tokens), torch.tensor(logps, dtype=torch.float32)
""",
    ],
    "mask": [
        """
def completion_mask(ids, end_ids):
    out = torch.ones(ids.shape, dtype=torch.bool)
    for row, tokens in enumerate(ids.tolist()):
        for place, token in enumerate(tokens):
            if token in end_ids:
                out[row, place + 1 :] = False
                break
    return out


def sequence_logps(logps, ids, end_ids):
    mask = completion_mask(ids, end_ids)
    return torch.stack([row[own].sum() for row, own in zip(logps, mask)])
""",
        """
def completion_mask(ids, end_ids):
    ended = sum(ids == end for end in end_ids).cumsum(dim=1) > 0
    return ~torch.nn.functional.pad(ended, (1, 0))[:, :-1]


def sequence_logps(logps, ids, end_ids):
    return torch.where(completion_mask(ids, end_ids), logps, torch.zeros_like(logps)).sum(dim=-1)
""",
    ],
    "outside-clip": [
        """
def outside_clip(policy, prompts, rollout, clip):
    now = score_completions(policy, prompts, rollout).detach()
    ratio = torch.exp(now[rollout.mask] - rollout.logps[rollout.mask])
    return float(((ratio - 1).abs() > clip).double().mean())
"""
    ],
    "never-rewarded": [
        """
def never_rewarded(right, labels, G):
    n, names = right.shape[1], sorted(set(labels))
    total = 0.0
    for name in names:
        share = 1.0
        for row, label in zip(right.tolist(), labels):
            if label == name:
                wrong = n - int(sum(row))
                for k in range(G):
                    share *= max(0, wrong - k) / (n - k)
        total += share
    return total / len(names)
"""
    ],
}
