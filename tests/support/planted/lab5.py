"""Wrong answers to lab 5, one card, many cards, your own images."""

from planted import Wrong, changed

ADAPTER = """
def adapter_bytes(matrices, targets, rank):
    count = 0
    for name, (outputs, inputs) in matrices.items():
        if name.split(".")[-1] in targets and not name.startswith("model.visual"):
            count += rank * (outputs + inputs)
    return {"values": 4 * count, "gradients": 4 * count, "moments": 8 * count}
"""
CACHE = """
def cache_bytes(prompts, completions, layers, kv_heads, head_dim, value_bytes):
    B, N = len(prompts), len(completions)
    if N % B:
        raise ValueError("no whole groups")
    position = 2 * layers * kv_heads * head_dim * value_bytes
    P, L = max(prompts), max(completions)
    shared = B * P + N * (L - 1)
    repeated = N * (P + L - 1)
    return position * shared, position * (repeated - shared)
"""
LARGEST = """
def largest(peaks, card, headroom, groups, sizes):
    room = card * 2**30 * (1 - headroom)
    for G in sorted(groups, reverse=True):
        for recompute in (False, True):
            for size in sorted(sizes, reverse=True):
                if max(peaks(G, size, recompute).values()) <= room:
                    return G, size, recompute
    return None
"""
REWARD = """
def exact_reward(completions, label, **columns):
    scores = []
    for completion, gold in zip(completions, label):
        text = completion if isinstance(completion, str) else completion[0]["content"]
        answer = extract_answer(text)
        if gold is None:
            scores.append(None)
        elif answer is None:
            scores.append(0.0)
        else:
            scores.append(float(normalise_label(answer) == normalise_label(gold)))
    return scores
"""
EPOCH = """
def epoch(pictures, processes, per_device, accumulation, G):
    rows = processes * per_device * accumulation
    if G < 2 or rows % G:
        raise ValueError("no whole groups")
    prompts = rows // G
    steps = pictures // prompts
    if steps == 0:
        raise ValueError("an empty epoch")
    return prompts, steps, pictures - steps * prompts
"""
ARRANGE = """
def arrange(prompts, processes, G, most):
    if prompts * G % processes:
        raise ValueError("the processes cannot share that")
    each = prompts * G // processes
    per_device = min(most, each)
    while each % per_device:
        per_device -= 1
    return per_device, each // per_device
"""
PASS = """
def pass_loss(x, mask, total, W, K):
    return (x * mask).sum() / total * W
"""
WHICH = """
def which_mean(loss):
    lengths = torch.tensor([[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]])
    masks = torch.arange(6) < lengths[..., None]
    x = torch.arange(1.0, 73.0).view(2, 3, 2, 6) ** 2 % 17
    kept = x * masks
    known = {
        "tokens": kept.sum() / masks.sum(),
        "processes": (kept.sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3))).mean(),
        "passes": (kept.sum(dim=(2, 3)) / masks.sum(dim=(2, 3))).mean(),
        "rows": (kept.sum(dim=3) / masks.sum(dim=3)).mean(),
    }
    for name, value in known.items():
        if abs(float(loss(x, masks)) - float(value)) < 1e-4:
            return name
"""
TWINS = """
def twins(parts):
    def content(path):
        image = Image.open(path).convert("RGB")
        return image.size, image.tobytes()
    names, pairs = list(parts), []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            for a in parts[first]:
                for b in parts[second]:
                    if content(a) == content(b):
                        pairs.append((a, b))
    return pairs
"""
KEY = """image = Image.open(path).convert("RGB")
        return image.size, image.tobytes()"""
PEOPLE = """
def split_people(records, share, seed):
    people = sorted({r.person for r in records})
    Random(seed).shuffle(people)
    labels, test = {r.label for r in records}, set()
    for person in people:
        wanted = test | {person}
        train = [r for r in records if r.person not in wanted]
        tested = len(records) - len(train)
        if tested > share * len(records):
            continue
        if {r.label for r in train} != labels:
            continue
        test = wanted
    if not test:
        raise ValueError("nobody can be tested")
    return [r for r in records if r.person not in test], [r for r in records if r.person in test]
"""
CLAIM = """
def claim(before, after, people, learnt, draws, rng):
    names = sorted(set(people))
    if len(names) < 2 or set(names) & set(learnt):
        raise ValueError("who is tested?")
    gains = 100.0 * (after.astype(float) - before.astype(float))
    own = [gains[[who == name for who in people]] for name in names]
    means = []
    for _ in range(draws):
        drawn = rng.integers(len(names), size=len(names))
        means.append(np.concatenate([own[k] for k in drawn]).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    verdict = "not told apart"
    if low > 0:
        verdict = "better"
    if high < 0:
        verdict = "worse"
    return gains.mean(), low, high, verdict
"""

PLANTED = {
    "adapter-bytes": [
        Wrong(
            "the whole matrix learns",
            changed(ADAPTER, "rank * (outputs + inputs)", "outputs * inputs"),
            "the matrix itself",
        ),
        Wrong(
            "a product in place of a sum",
            changed(ADAPTER, "(outputs + inputs)", "outputs * inputs"),
            "a sum, not a product",
        ),
        Wrong("only the first narrow matrix", changed(ADAPTER, "(outputs + inputs)", "inputs"), "one of the two"),
        Wrong("only the second narrow matrix", changed(ADAPTER, "(outputs + inputs)", "outputs"), "one of the two"),
        Wrong("two bytes per number", changed(ADAPTER, '"values": 4', '"values": 2'), "four bytes per number"),
        Wrong("one moment", changed(ADAPTER, '"moments": 8', '"moments": 4'), r"\*two\* moments"),
        Wrong(
            "gradients of the frozen matrices",
            changed(
                changed(ADAPTER, "            count +=", "            frozen = outputs * inputs\n            count +="),
                '"gradients": 4 * count',
                '"gradients": 4 * (count + frozen)',
            ),
            "has a gradient",
        ),
        Wrong(
            "the vision tower learns as well",
            changed(ADAPTER, ' and not name.startswith("model.visual")', ""),
            "vision tower has no adapter",
        ),
        Wrong(
            "any name that ends like a target",
            changed(ADAPTER, 'name.split(".")[-1] in targets', "any(name.endswith(t) for t in targets)"),
            r"\*whole\* last part",
        ),
        Wrong("every matrix", changed(ADAPTER, 'name.split(".")[-1] in targets', "targets"), "what is in `targets`"),
        Wrong(
            "equal matrices counted once",
            changed(
                ADAPTER,
                "for name, (outputs, inputs) in matrices.items():",
                "for name, (outputs, inputs) in {n.split('.')[-1]: (n, s) for n, s in matrices.items()}.values():",
            ),
            "three layers of equal shape",
        ),
        Wrong(
            "a square matrix between the two",
            changed(ADAPTER, "rank * (outputs + inputs)", "rank * (outputs + inputs) + rank * rank"),
            "nothing else",
        ),
    ],
    "cache-bytes": [
        Wrong("keys without values", changed(CACHE, "2 * layers", "layers"), r"keys \*and\* values"),
        Wrong("one layer", changed(CACHE, "2 * layers * kv_heads", "2 * kv_heads"), "each of the three layers"),
        Wrong(
            "the last token runs as well",
            changed(CACHE, "N * (L - 1)", "N * L").replace("P + L - 1", "P + L"),
            "last token is never run",
        ),
        Wrong("a prompt in every row", changed(CACHE, "B * P +", "N * P +"), "kept once"),
        Wrong("one prompt for the whole batch", changed(CACHE, "B * P +", "P +"), r"each has \*its\* prompt"),
        Wrong(
            "one completion for each group", changed(CACHE, "+ N * (L - 1)", "+ B * (L - 1)"), r"each \*row\* has its 4"
        ),
        Wrong("prompts without padding", changed(CACHE, "shared = B * P", "shared = sum(prompts)"), "shorter prompt"),
        Wrong(
            "completions without padding",
            changed(CACHE, "shared = B * P + N * (L - 1)", "shared = B * P + sum(completions) - N"),
            "shorter completion",
        ),
        Wrong(
            "each group padded for itself",
            changed(
                CACHE,
                "shared = B * P + N * (L - 1)",
                "G = N // B\n    shared = B * P + sum(G * (max(completions[b * G : b * G + G]) - 1) for b in range(B))",
            ),
            "of all N, not of each group",
        ),
        Wrong(
            "saved as a share",
            changed(CACHE, "position * (repeated - shared)", "(repeated - shared) / repeated"),
            "not a share",
        ),
        Wrong("saved with a minus sign", changed(CACHE, "(repeated - shared)", "(shared - repeated)"), "minus sign"),
        Wrong(
            "what repeating costs, not what sharing saves",
            changed(CACHE, "position * (repeated - shared)", "position * (N - (N == 1)) * P"),
            "one stays",
        ),
        Wrong(
            "the saving of one group",
            changed(CACHE, "position * (repeated - shared)", "position * (N // B - 1) * P"),
            "four prompts are saved",
        ),
        Wrong("no refusal", changed(CACHE, "if N % B:", "if N < B:"), "no two whole groups"),
    ],
    "largest": [
        Wrong("phases added up", changed(LARGEST, "max(peaks(", "sum(peaks("), "do not add up"),
        Wrong(
            "only the last phase",
            changed(LARGEST, "max(peaks(G, size, recompute).values())", "list(peaks(G, size, recompute).values())[-1]"),
            "whichever phase it is",
        ),
        Wrong(
            "only the first phase",
            changed(LARGEST, "max(peaks(G, size, recompute).values())", "list(peaks(G, size, recompute).values())[0]"),
            "whichever phase it is",
        ),
        Wrong(
            "the mean of the phases",
            changed(
                LARGEST, "max(peaks(G, size, recompute).values())", "np.mean(list(peaks(G, size, recompute).values()))"
            ),
            "whichever phase it is",
        ),
        Wrong("no headroom", changed(LARGEST, " * (1 - headroom)", ""), "headroom is gone"),
        Wrong(
            "headroom on top of the need", changed(LARGEST, "* (1 - headroom)", "/ (1 + headroom)"), r"of the \*card\*"
        ),
        Wrong("GB in place of GiB", changed(LARGEST, "2**30", "10**9"), r"2\^30 bytes"),
        Wrong(
            "the search ends at the first that is too large",
            """
def largest(peaks, card, headroom, groups, sizes):
    room, found = card * 2**30 * (1 - headroom), None
    for G in sorted(groups):
        fits = [
            (not recompute, size)
            for size in sizes
            for recompute in (False, True)
            if max(peaks(G, size, recompute).values()) <= room
        ]
        if not fits:
            break
        fast, size = max(fits)
        found = G, size, not fast
    return found
""",
            "do not stop the search",
        ),
        Wrong(
            "no recomputing before the larger group",
            """
def largest(peaks, card, headroom, groups, sizes):
    room = card * 2**30 * (1 - headroom)
    for recompute in (False, True):
        for G in sorted(groups, reverse=True):
            for size in sorted(sizes, reverse=True):
                if max(peaks(G, size, recompute).values()) <= room:
                    return G, size, recompute
""",
            "the larger group comes first",
        ),
        Wrong(
            "the larger size before no recomputing",
            """
def largest(peaks, card, headroom, groups, sizes):
    room = card * 2**30 * (1 - headroom)
    for G in sorted(groups, reverse=True):
        for size in sorted(sizes, reverse=True):
            for recompute in (False, True):
                if max(peaks(G, size, recompute).values()) <= room:
                    return G, size, recompute
""",
            "comes before size",
        ),
        Wrong("recomputing to be safe", changed(LARGEST, "in (False, True):", "in (True, False):"), "is not needed"),
        Wrong("the smallest size", changed(LARGEST, "sorted(sizes, reverse=True)", "sorted(sizes)"), "fewest passes"),
        Wrong(
            "the smallest group",
            changed(LARGEST, "sorted(groups, reverse=True)", "sorted(groups)"),
            "largest G is wanted",
        ),
        Wrong(
            "groups taken as sorted",
            changed(LARGEST, "sorted(groups, reverse=True)", "groups[::-1]"),
            "wherever it stands",
        ),
        Wrong(
            "an error where nothing fits",
            changed(LARGEST, "    return None", '    raise ValueError("no setting fits")'),
            "None is the answer",
        ),
        Wrong(
            "the smallest setting where nothing fits",
            changed(LARGEST, "    return None", "    return min(groups), min(sizes), True"),
            "None is the answer",
        ),
    ],
    "exact-reward": [
        Wrong(
            "substring match",
            changed(REWARD, "normalise_label(answer) == normalise_label(gold)", "gold.lower() in answer.lower()"),
            "equal, not contained",
        ),
        Wrong(
            "substring match, the other way",
            changed(
                REWARD,
                "normalise_label(answer) == normalise_label(gold)",
                "normalise_label(answer) in normalise_label(gold)",
            ),
            "equal, not contained",
        ),
        Wrong("no other columns", changed(REWARD, ", **columns", ""), "more columns"),
        Wrong(
            "prompts asked for",
            changed(REWARD, "completions, label, **columns", "prompts, completions, label, **columns"),
            "called with completions and label",
        ),
        Wrong(
            "strings only",
            changed(REWARD, 'completion if isinstance(completion, str) else completion[0]["content"]', "completion"),
            r"\*content\*",
        ),
        Wrong(
            "message lists only",
            changed(
                REWARD,
                'completion if isinstance(completion, str) else completion[0]["content"]',
                'completion[0]["content"]',
            ),
            "as strings",
        ),
        Wrong(
            "the message list as text",
            changed(
                REWARD, 'completion if isinstance(completion, str) else completion[0]["content"]', "str(completion)"
            ),
            r"\*content\*",
        ),
        Wrong(
            "the first label for all",
            changed(REWARD, "zip(completions, label)", "zip(completions, [label[0]] * len(completions))"),
            "label i belongs",
        ),
        Wrong(
            "labels repeated once more",
            changed(REWARD, "zip(completions, label)", "zip(completions, [g for g in label for _ in range(2)])"),
            "label i belongs",
        ),
        Wrong("the answer as it is written", changed(REWARD, "normalise_label(answer) ==", "answer =="), "spelling"),
        Wrong("the label as it is written", changed(REWARD, "== normalise_label(gold)", "== gold"), "spelling"),
        Wrong(
            "the whole text where there is no tag",
            changed(REWARD, "answer = extract_answer(text)", "answer = extract_answer(text) or text"),
            "whole text",
        ),
        Wrong(
            "a row without a label is wrong", changed(REWARD, "scores.append(None)", "scores.append(0.0)"), "not judged"
        ),
        Wrong(
            "a row without an answer is not judged",
            changed(REWARD, "scores.append(0.0)", "scores.append(None)"),
            "Python floats",
        ),
        Wrong("verdicts, not numbers", changed(REWARD, "float(normalise", "bool(normalise"), "Python floats"),
        Wrong(
            "the mean", changed(REWARD, "return scores", "return sum(scores) / len(scores)"), "a list with one entry"
        ),
        Wrong("a tensor", changed(REWARD, "return scores", "return torch.tensor(scores)"), "a list with one entry"),
    ],
    "batch": [
        Wrong(
            "completions taken for prompts",
            changed(EPOCH, "prompts = rows // G", "prompts = rows") + ARRANGE,
            "eight of them belong to one prompt",
        ),
        Wrong(
            "passes forgotten",
            changed(EPOCH, "processes * per_device * accumulation", "processes * per_device") + ARRANGE,
            r"several passes|\*and\* several",
        ),
        Wrong(
            "processes forgotten",
            changed(EPOCH, "processes * per_device * accumulation", "per_device * accumulation") + ARRANGE,
            r"\*and\* several",
        ),
        Wrong(
            "the last step half full",
            changed(EPOCH, "steps = pictures // prompts", "steps = -(-pictures // prompts)") + ARRANGE,
            "the last three",
        ),
        Wrong(
            "pictures left out of the last pass only",
            changed(EPOCH, "pictures - steps * prompts", "pictures % per_device") + ARRANGE,
            "the last three",
        ),
        Wrong(
            "part of a group dropped", changed(EPOCH, "G < 2 or rows % G", "G < 2") + ARRANGE, "one group and a half"
        ),
        Wrong(
            "whole groups on each device",
            changed(EPOCH, "G < 2 or rows % G", "G < 2 or per_device % G") + ARRANGE,
            "one group on four processes",
        ),
        Wrong("an empty epoch", changed(EPOCH, "if steps == 0:", "if pictures == 0:") + ARRANGE, "empty epoch"),
        Wrong("one step is called empty", changed(EPOCH, "if steps == 0:", "if steps <= 1:") + ARRANGE, "not empty"),
        Wrong("a group of one", changed(EPOCH, "G < 2 or", "G < 1 or") + ARRANGE, "nothing to compare"),
        Wrong(
            "as many as there is room for",
            EPOCH
            + """
def arrange(prompts, processes, G, most):
    if prompts * G % processes:
        raise ValueError("the processes cannot share that")
    each = prompts * G // processes
    return most, -(-each // most)
""",
            "are 32 completions",
        ),
        Wrong(
            "one completion at a time",
            EPOCH + changed(ARRANGE, "per_device = min(most, each)", "per_device = 1"),
            "largest divisor",
        ),
        Wrong(
            "halved until there is room",
            EPOCH
            + changed(
                ARRANGE,
                """    per_device = min(most, each)
    while each % per_device:
        per_device -= 1
""",
                """    per_device = each
    while per_device > most:
        per_device //= 2
""",
            ),
            "room for 11",
        ),
        Wrong(
            "room for all processes together",
            EPOCH + changed(ARRANGE, "min(most, each)", "max(1, min(most // processes, each))"),
            "largest divisor",
        ),
        Wrong(
            "no regard to the room", EPOCH + changed(ARRANGE, "min(most, each)", "each"), "than a device has room for"
        ),
        Wrong(
            "processes forgotten in the plan",
            EPOCH + changed(ARRANGE, "each = prompts * G // processes", "each = prompts * G"),
            "are 32 completions",
        ),
        Wrong(
            "only whole groups in a pass",
            EPOCH
            + changed(
                ARRANGE,
                "    while each % per_device:",
                "    while each % per_device or per_device > 1 and per_device % G and G % per_device:",
            ),
            "not only whole groups",
        ),
        Wrong(
            "no refusal in the plan",
            EPOCH + changed(ARRANGE, "if prompts * G % processes:", "if prompts * G < processes:"),
            "among five processes",
        ),
    ],
    "window": [
        Wrong("the mean of each pass", changed(PASS, "/ total * W", "/ mask.sum()") + WHICH, "of the whole step"),
        Wrong(
            "the mean of each row",
            changed(PASS, "(x * mask).sum() / total * W", "((x * mask).sum(dim=1) / mask.sum(dim=1)).mean()") + WHICH,
            "of the whole step",
        ),
        Wrong("processes forgotten", changed(PASS, " * W", "") + WHICH, "half of it"),
        Wrong("divided by the passes", changed(PASS, "* W", "* W / K") + WHICH, "a third arrives"),
        Wrong("multiplied by the passes", changed(PASS, "* W", "* W * K") + WHICH, "three times as much"),
        Wrong("the mask forgotten", changed(PASS, "(x * mask)", "x") + WHICH, "where is the mask"),
        Wrong("no gradient", changed(PASS, "(x * mask)", "(x.detach() * mask)") + WHICH, "no gradient"),
        Wrong("one number per row", changed(PASS, ".sum()", ".sum(dim=1)") + WHICH, "gives one number"),
        Wrong("a constant length", changed(PASS, "/ total * W", "/ mask.numel() * W") + WHICH, "each has 1 / total"),
        Wrong(
            "all losses equal",
            PASS + changed(WHICH, ".view(2, 3, 2, 6) ** 2 % 17", ".view(2, 3, 2, 6) ** 0"),
            "all four seem alike",
        ),
        Wrong(
            "all lengths equal",
            PASS
            + changed(
                WHICH, "torch.tensor([[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]])", "torch.full((2, 3, 2), 4)"
            ),
            "all four seem alike",
        ),
        Wrong(
            "equal rows in a pass",
            PASS
            + changed(
                WHICH,
                "[[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]]",
                "[[[1, 1], [2, 2], [6, 6]], [[4, 4], [3, 3], [2, 2]]]",
            ),
            "rows and passes look alike",
        ),
        Wrong(
            "equal passes in a process",
            PASS
            + changed(
                WHICH,
                "[[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]]",
                "[[[1, 5], [3, 3], [2, 4]], [[4, 6], [5, 5], [6, 4]]]",
            ),
            "passes and processes look alike",
        ),
        Wrong(
            "processes with equally many tokens",
            PASS
            + changed(
                WHICH,
                "[[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]]",
                "[[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 6], [5, 1]]]",
            ),
            "processes and tokens look alike",
        ),
        Wrong(
            "one process",
            PASS
            + changed(
                changed(WHICH, "[[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]]", "[[[1, 5], [2, 3], [6, 6]]]"),
                "torch.arange(1.0, 73.0).view(2, 3, 2, 6)",
                "torch.arange(1.0, 37.0).view(1, 3, 2, 6)",
            ),
            "processes and tokens look alike",
        ),
        Wrong("compared to one digit", PASS + changed(WHICH, "< 1e-4", "< 5"), "all four seem alike"),
        Wrong(
            "names in another order",
            PASS
            + changed(
                changed(changed(WHICH, '"passes":', '"x":'), '"processes":', '"passes":'), '"x":', '"processes":'
            ),
            "under other names",
        ),
        Wrong(
            "a number for the name",
            PASS + changed(WHICH, "return name", "return list(known).index(name)"),
            "returns a name",
        ),
    ],
    "twins": [
        Wrong("names compared", changed(TWINS, KEY, "return path.name"), "equal names"),
        Wrong("files compared", changed(TWINS, KEY, "return path.read_bytes()"), r"in the \*file\*"),
        Wrong(
            "sizes not compared", changed(TWINS, "image.size, image.tobytes()", "image.tobytes()"), "6 x 2 and 2 x 6"
        ),
        Wrong(
            "only sizes compared", changed(TWINS, "image.size, image.tobytes()", "image.size"), "two different pictures"
        ),
        Wrong("colour modes not converted", changed(TWINS, '.convert("RGB")', ""), "policy sees the same"),
        Wrong(
            "colour modes compared",
            changed(
                TWINS,
                KEY,
                "image = Image.open(path)\n        return image.mode, image.size, image.convert('RGB').tobytes()",
            ),
            "policy sees the same",
        ),
        Wrong(
            "shades of grey compared",
            changed(
                TWINS,
                KEY,
                "image = Image.open(path).convert('RGB')\n"
                "        return image.size, image.resize((8, 8)).convert('L').quantize(4).tobytes()",
            ),
            "one pixel differs",
        ),
        Wrong(
            "all brought to one size",
            changed(TWINS, KEY, "return Image.open(path).convert('RGB').resize((112, 112), 0).tobytes()"),
            "compare sizes",
        ),
        Wrong(
            "histograms compared",
            changed(TWINS, "image.size, image.tobytes()", "image.size, tuple(image.histogram())"),
            "other places",
        ),
        Wrong(
            "pairs inside one part",
            """
def twins(parts):
    def content(path):
        image = Image.open(path).convert("RGB")
        return image.size, image.tobytes()
    paths = [path for own in parts.values() for path in own]
    return [(a, b) for i, a in enumerate(paths) for b in paths[i + 1 :] if content(a) == content(b)]
""",
            "inside one part",
        ),
        Wrong(
            "the first part against the others",
            changed(TWINS, "for i, first in enumerate(names):", "for i, first in enumerate(names[:1]):"),
            "validation and test as well",
        ),
        Wrong(
            "the first twin only",
            """
def twins(parts):
    seen, pairs = {}, []
    for part, paths in parts.items():
        for path in paths:
            image = Image.open(path).convert("RGB")
            first = seen.setdefault((image.size, image.tobytes()), (part, path))
            if first[0] != part:
                pairs.append((first[1], path))
    return pairs
""",
            r"\*all\* of them",
        ),
        Wrong(
            "each pair both ways", changed(TWINS, "pairs.append((a, b))", "pairs += [(a, b), (b, a)]"), "each pair once"
        ),
        Wrong("the later path first", changed(TWINS, "(a, b))", "(b, a))"), "comes first"),
        Wrong("names in place of paths", changed(TWINS, "(a, b))", "(a.name, b.name))"), "as given"),
        Wrong("only one of the two", changed(TWINS, "pairs.append((a, b))", "pairs.append(b)"), "name both"),
        Wrong("their number", changed(TWINS, "return pairs", "return len(pairs)"), "a list of pairs"),
        Wrong("a set of pairs of content", changed(TWINS, "return pairs", "return {*pairs}"), "a list of pairs"),
        Wrong(
            "place by place",
            changed(
                TWINS,
                """            for a in parts[first]:
                for b in parts[second]:
                    if content(a) == content(b):
                        pairs.append((a, b))
""",
                """            for a, b in zip(parts[first], parts[second]):
                if content(a) == content(b):
                    pairs.append((a, b))
""",
            ),
            "other bytes",
        ),
    ],
    "split-people": [
        Wrong(
            "pictures shuffled, not people",
            """
def split_people(records, share, seed):
    records = sorted(records)
    Random(seed).shuffle(records)
    n = int(share * len(records))
    return records[n:], records[:n]
""",
            "in both lists",
        ),
        Wrong(
            "label by label",
            """
def split_people(records, share, seed):
    train, tested = [], []
    for label in sorted({r.label for r in records}):
        own = [r for r in records if r.label == label]
        people = sorted({r.person for r in own})
        Random(f"{seed} {label}").shuffle(people)
        test = set(people[: max(1, int(share * len(people)))])
        tested += [r for r in own if r.person in test]
        train += [r for r in own if r.person not in test]
    return train, tested
""",
            "in both lists",
        ),
        Wrong(
            "a share of the people",
            changed(PEOPLE, "if tested > share * len(records):", "if len(wanted) > share * len(people):"),
            "room in the test",
        ),
        Wrong(
            "until the share is reached",
            changed(
                PEOPLE,
                "        if tested > share * len(records):\n            continue\n",
                "        if sum(r.person in test for r in records) >= share * len(records):\n            break\n",
            ),
            "more than the share",
        ),
        Wrong(
            "the first who has no room ends it",
            changed(
                PEOPLE,
                "        if tested > share * len(records):\n            continue\n",
                "        if tested > share * len(records):\n            break\n",
            ),
            "more than the share|room in the test",
        ),
        Wrong(
            "labels that are only tested",
            changed(PEOPLE, "        if {r.label for r in train} != labels:\n            continue\n", ""),
            "never trained on",
        ),
        Wrong(
            "every label in both lists",
            changed(
                PEOPLE,
                "        test = wanted\n    if not test:",
                "        test = wanted\n"
                "    records = [r for r in records if r.label in {t.label for t in records if t.person in test}]\n"
                "    if not test:",
            ),
            "nothing lost",
        ),
        Wrong(
            "pictures of a label that cannot be split left out",
            changed(
                PEOPLE,
                "    people = sorted({r.person for r in records})\n    Random",
                "    many = [r for r in records if len({t.person for t in records if t.label == r.label}) > 1]\n"
                "    records = many or records\n"
                "    people = sorted({r.person for r in records})\n    Random",
            ),
            "nothing lost",
        ),
        Wrong(
            "train and test mixed up",
            changed(
                PEOPLE,
                "if r.person not in test], [r for r in records if r.person in test]",
                "if r.person in test], [r for r in records if r.person not in test]",
            ),
            "more than the share",
        ),
        Wrong(
            "seed not used",
            changed(PEOPLE, "Random(seed).shuffle(people)", "Random(0).shuffle(people)"),
            "other seeds choose the same",
        ),
        Wrong(
            "the smallest first",
            changed(
                PEOPLE, "Random(seed).shuffle(people)", "people.sort(key=lambda p: sum(r.person == p for r in records))"
            ),
            "other seeds choose the same",
        ),
        Wrong("chance without a seed", changed(PEOPLE, "Random(seed)", "Random()"), "the same seed"),
        Wrong(
            "the global generator",
            changed(PEOPLE, "Random(seed).shuffle(people)", "random.seed(seed)\n    random.shuffle(people)"),
            "global generator",
        ),
        Wrong(
            "in the order of a set",
            changed(PEOPLE, "sorted({r.person for r in records})", "list({r.person for r in records})"),
            "sort first",
        ),
        Wrong(
            "in the order of the records",
            changed(PEOPLE, "sorted({r.person for r in records})", "list(dict.fromkeys(r.person for r in records))"),
            "sort first",
        ),
        Wrong(
            "an empty test",
            changed(PEOPLE, '        raise ValueError("nobody can be tested")', "        pass"),
            "nobody is left to train on",
        ),
        Wrong(
            "the smallest person where nobody fits",
            changed(
                PEOPLE,
                '        raise ValueError("nobody can be tested")',
                "        if len(people) < 2:\n"
                '            raise ValueError("nobody is left")\n'
                "        test = {min(people, key=lambda p: sum(r.person == p for r in records))}",
            ),
            "nobody has so few",
        ),
    ],
    "claim": [
        Wrong(
            "pictures redrawn",
            changed(
                CLAIM,
                """        drawn = rng.integers(len(names), size=len(names))
        means.append(np.concatenate([own[k] for k in drawn]).mean())
""",
                """        means.append(rng.choice(gains, size=len(gains)).mean())
""",
            ),
            "two people: a quarter|not two hundred pictures|people alike",
        ),
        Wrong(
            "people redrawn, then their pictures",
            changed(
                CLAIM,
                "np.concatenate([own[k] for k in drawn])",
                "np.concatenate([rng.choice(own[k], size=len(own[k])) for k in drawn])",
            ),
            r"\*all\* pictures",
        ),
        Wrong(
            "one picture of each person",
            changed(CLAIM, "np.concatenate([own[k] for k in drawn])", "np.array([rng.choice(own[k]) for k in drawn])"),
            r"\*all\* pictures",
        ),
        Wrong(
            "before and after redrawn apart",
            """
def claim(before, after, people, learnt, draws, rng):
    names = sorted(set(people))
    if len(names) < 2 or set(names) & set(learnt):
        raise ValueError("who is tested?")
    places = [np.flatnonzero([who == name for who in people]) for name in names]
    def drawn(right):
        chosen = np.concatenate([rng.choice(places[k], size=len(places[k])) for k in range(len(names))])
        return 100.0 * right[chosen].mean()
    means = [drawn(after) - drawn(before) for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    verdict = "better" if low > 0 else "worse" if high < 0 else "not told apart"
    return 100.0 * (after.mean() - before.mean()), low, high, verdict
""",
            "two people: a quarter|in pairs",
        ),
        Wrong(
            "the mean over people",
            changed(CLAIM, "return gains.mean()", "return np.mean([x.mean() for x in own])"),
            r"each \*picture\*",
        ),
        Wrong(
            "a draw's mean over people",
            changed(CLAIM, "np.concatenate([own[k] for k in drawn]).mean()", "np.mean([own[k].mean() for k in drawn])"),
            "nineteen count nineteen",
        ),
        Wrong(
            "people drawn without replacement",
            changed(CLAIM, "rng.integers(len(names), size=len(names))", "rng.permutation(len(names))"),
            "two people: a quarter",
        ),
        Wrong(
            "each person counted once per draw",
            changed(CLAIM, "for k in drawn]", "for k in set(drawn.tolist())]"),
            "too short|people alike|two people: a quarter",
        ),
        Wrong(
            "half of the people redrawn",
            changed(CLAIM, "size=len(names))", "size=max(2, len(names) // 2))"),
            "too long",
        ),
        Wrong("the middle 90 %", changed(CLAIM, "[2.5, 97.5]", "[5, 95]"), "too short"),
        Wrong("the whole range", changed(CLAIM, "[2.5, 97.5]", "[0, 100]"), "too long"),
        Wrong("shares, not points", changed(CLAIM, "gains = 100.0 * (", "gains = 1.0 * ("), "percentage points"),
        Wrong(
            "before minus after",
            changed(
                CLAIM, "(after.astype(float) - before.astype(float))", "(before.astype(float) - after.astype(float))"
            ),
            "after minus before",
        ),
        Wrong(
            "relative to before",
            changed(CLAIM, "return gains.mean(), low", "return gains.mean() / max(before.mean(), 0.01), low"),
            "percentage points",
        ),
        Wrong(
            "the gain alone decides",
            changed(changed(CLAIM, "if low > 0:", "if gains.mean() > 0:"), "if high < 0:", "if gains.mean() < 0:"),
            "holds 0",
        ),
        Wrong(
            "one end of the interval is enough",
            changed(
                changed(CLAIM, "if low > 0:", "if high > 0:"), "if high < 0:", "if high < 0 or low < 0 and high <= 0:"
            ),
            "holds 0",
        ),
        Wrong("0 lies above 0", changed(CLAIM, "if low > 0:", "if low >= 0:"), "exactly 0"),
        Wrong(
            "nothing is ever worse",
            changed(CLAIM, '    if high < 0:\n        verdict = "worse"\n', ""),
            "below 0 worse",
        ),
        Wrong("people who were learnt are tested", changed(CLAIM, " or set(names) & set(learnt)", ""), "c was learnt"),
        Wrong("one person is a test", changed(CLAIM, "len(names) < 2 or ", ""), "pictures of one person"),
        Wrong(
            "a generator of its own",
            changed(CLAIM, "    means = []", "    means, rng = [], np.random.default_rng()"),
            "all chance comes from rng",
        ),
        Wrong(
            "a seed of its own",
            changed(CLAIM, "    means = []", "    means, rng = [], np.random.default_rng(0)"),
            "all chance comes from rng",
        ),
        Wrong("no verdict", changed(CLAIM, "low, high, verdict\n", "low, high\n"), "four things"),
    ],
}
