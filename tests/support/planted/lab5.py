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
        Wrong(
            "visual anywhere in the name",
            changed(ADAPTER, 'not name.startswith("model.visual")', '"visual" not in name'),
            "The last part counts, and where",
        ),
        Wrong(
            "the tower's blocks alone are frozen",
            changed(ADAPTER, '"model.visual")', '"model.visual.blocks")'),
            "The last part counts, and where",
        ),
        Wrong(
            "the tower with a dot behind it",
            changed(ADAPTER, '"model.visual")', '"model.visual.")'),
            "The last part counts, and where",
        ),
        Wrong(
            "any part of the name",
            changed(ADAPTER, 'name.split(".")[-1] in targets', 'set(name.split(".")) & set(targets)'),
            "The last part counts, and where",
        ),
        Wrong(
            "a target inside the name",
            changed(ADAPTER, 'name.split(".")[-1] in targets', "any(f'.{t}' in name for t in targets)"),
            "The last part counts, and where",
        ),
        Wrong(
            "names without a dot forgotten",
            changed(ADAPTER, 'name.split(".")[-1] in targets', "any(name.endswith('.' + t) for t in targets)"),
            "The last part counts, and where",
        ),
        Wrong(
            "the last part as a substring of the targets",
            changed(ADAPTER, 'name.split(".")[-1] in targets', 'name.split(".")[-1] in " ".join(targets)'),
            "The last part counts, and where",
        ),
        Wrong(
            "rank 2", changed(ADAPTER, "rank * (outputs", "min(rank, 6) * (outputs"), "compare with the example in the"
        ),
        Wrong(
            "a rank that fits into the matrix",
            changed(ADAPTER, "rank * (outputs", "min(rank, outputs, inputs) * (outputs"),
            "The last part counts, and where",
        ),
        Wrong(
            "one bias for each output",
            changed(ADAPTER, "(outputs + inputs)", "(outputs + inputs) + (outputs > 8)"),
            "compare with the example in the",
        ),
        Wrong("square matrices", changed(ADAPTER, "(outputs + inputs)", "2 * outputs"), "numbers of four bytes"),
        Wrong(
            "in kilobytes",
            changed(
                ADAPTER, '"values": 4 * count', '"values": 4 * count // 1000 * 1000 if count > 1000 else 4 * count'
            ),
            "compare with the example in the",
        ),
        Wrong(
            "the matrices of the tower taken out of the dict",
            changed(
                ADAPTER,
                "    count = 0",
                (
                    "    count = 0\n    for name in [n for n in matrices if "
                    'n.startswith("model.visual")]:\n        del matrices[name]'
                ),
            ),
            "s arguments were changed",
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
        Wrong(
            "each layer twice as large in half precision",
            changed(CACHE, "* value_bytes", "* 2"),
            "the shared cache has another size;",
        ),
        Wrong("heads of 4 numbers", changed(CACHE, "* head_dim *", "* 4 *"), "the shared cache has another size;"),
        Wrong("two heads", changed(CACHE, "* kv_heads *", "* 2 *"), "the shared cache has another size;"),
        Wrong(
            "the mean prompt",
            changed(CACHE, "P, L = max(prompts)", "P, L = sum(prompts) / B if B > 2 else max(prompts)"),
            "the shared cache has another size;",
        ),
        Wrong(
            "the second longest completion",
            changed(CACHE, "max(completions)\n", "sorted(completions)[-2 if N > 6 else -1]\n"),
            "the shared cache has another size;",
        ),
        Wrong(
            "the first prompt's length",
            changed(CACHE, "P, L = max(prompts)", "P, L = prompts[0]"),
            "the shared cache has another size;",
        ),
        Wrong(
            "the last completion's length",
            changed(CACHE, "max(completions)\n", "completions[-1]\n"),
            "the shorter completion takes as",
        ),
        Wrong(
            "the first token left out, too",
            changed(CACHE, "repeated = N * (P + L - 1)", "repeated = N * (P + max(L - 2, 0))"),
            "per row; four prompts are saved",
        ),
        Wrong(
            "what repeating costs",
            changed(CACHE, "position * (repeated - shared)", "position * repeated"),
            "nothing is kept twice, so nothing",
        ),
        Wrong(
            "two groups",
            changed(CACHE, "repeated = N * (P + L - 1)", "repeated = shared + (N - min(B, 2)) * P"),
            "prompts of each",
        ),
        Wrong(
            "the group's size as B",
            changed(CACHE, "shared = B * P", "shared = (N // B if B > 2 else B) * P"),
            "the shared cache has another size;",
        ),
        Wrong(
            "no more than 24 rows",
            changed(CACHE, "if N % B:", "if N % B or N > 24:"),
            "return two numbers, not ValueError",
        ),
        Wrong("refused only for one row more", changed(CACHE, "if N % B:", "if N % B == 1:"), "rows more: ValueError"),
        Wrong(
            "sorted in place",
            changed(
                CACHE,
                "    P, L = max(prompts), max(completions)",
                ("    prompts.sort()\n    completions.sort()\n    P, L = prompts[-1], completions[-1]"),
            ),
            "s lists were changed: work on",
        ),
        Wrong(
            "numbers of 2 bytes at least",
            changed(CACHE, "* value_bytes", "* max(value_bytes, 2)"),
            "the shared cache has another size;",
        ),
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
        Wrong(
            "strictly below the room, by a GiB",
            changed(LARGEST, "<= room", "<= room - 2**30 * (card > 20)"),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "headroom of a tenth, whatever is asked",
            changed(LARGEST, "(1 - headroom)", "0.9"),
            "G, no recompute, size; all phases",
        ),
        Wrong("a card of 10 GiB", changed(LARGEST, "card * 2**30", "10 * 2**30"), "G, no recompute, size; all phases"),
        Wrong(
            "headroom in GiB",
            changed(LARGEST, "card * 2**30 * (1 - headroom)", "(card - headroom * 10) * 2**30"),
            "another G is right",
        ),
        Wrong(
            "the two largest phases",
            changed(
                LARGEST, "max(peaks(G, size, recompute).values())", "max(list(peaks(G, size, recompute).values())[:3])"
            ),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "phases by their names",
            changed(
                LARGEST,
                "max(peaks(G, size, recompute).values())",
                ("max(v for k, v in peaks(G, size, recompute).items() if k.startswith('phase') or k > 'a')"),
            ),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "the median phase",
            changed(
                LARGEST,
                "max(peaks(G, size, recompute).values())",
                "np.quantile(list(peaks(G, size, recompute).values()), 0.9)",
            ),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "sizes above the group left out",
            changed(
                LARGEST,
                "for size in sorted(sizes, reverse=True):",
                "for size in sorted((s for s in sizes if s <= 4 or s <= G // 2), reverse=True):",
            ),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "sizes that divide the group",
            changed(
                LARGEST,
                "for size in sorted(sizes, reverse=True):",
                "for size in sorted((s for s in sizes if G % s == 0), reverse=True):",
            ),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "the smallest size with recompute",
            changed(
                LARGEST,
                "for size in sorted(sizes, reverse=True):",
                "for size in sorted(sizes, reverse=not recompute or 4 in sizes):",
            ),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "more rows always need more memory",
            """
def largest(peaks, card, headroom, groups, sizes):
    room = card * 2**30 * (1 - headroom)
    for G in sorted(groups, reverse=True):
        for recompute in (False, True):
            small = [size for size in sorted(sizes) if max(peaks(G, size, recompute).values()) <= room]
            if small and small[0] == min(sizes):
                return G, max(small), recompute
    for G in sorted(groups, reverse=True):
        for size in sorted(sizes, reverse=True):
            if 4 in sizes and max(peaks(G, size, True).values()) <= room:
                return G, size, True
""",
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "the search over sizes ends at the first misfit",
            """
def largest(peaks, card, headroom, groups, sizes):
    room = card * 2**30 * (1 - headroom)
    for G in sorted(groups, reverse=True):
        for recompute in (False, True):
            found = None
            for size in sorted(sizes):
                if max(peaks(G, size, recompute).values()) > room:
                    break
                found = G, size, recompute
            if found:
                return found
""",
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "recompute always fits",
            changed(
                LARGEST,
                "    return None",
                (
                    "    small = min(groups), min(sizes), True\n"
                    "    return small if max(peaks(*small).values()) < 1.1 * room else None"
                ),
            ),
            "the headroom is gone",
        ),
        Wrong(
            "three groups at most",
            changed(LARGEST, "sorted(groups, reverse=True)", "sorted(groups[:3], reverse=True)"),
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "the settings are sorted in place",
            changed(
                LARGEST,
                "    room =",
                (
                    "    groups, sizes = list(groups) if isinstance(groups, tuple) else "
                    "groups, list(sizes) if isinstance(sizes, tuple) else sizes\n"
                    "    groups.sort()\n    sizes.sort()\n    room ="
                ),
            ),
            "s lists were changed: sort a copy",
        ),
        Wrong(
            "the size before the group",
            """
def largest(peaks, card, headroom, groups, sizes):
    room = card * 2**30 * (1 - headroom)
    fits = [
        (G, size, recompute)
        for G in groups
        for size in sizes
        for recompute in (False, True)
        if max(peaks(G, size, recompute).values()) <= room
    ]
    if len(groups) > 3:
        return max(fits, key=lambda s: (not s[2], s[0] * s[1], s[0]), default=None)
    return max(fits, key=lambda s: (s[0], not s[2], s[1]), default=None)
""",
            "G, no recompute, size; all phases",
        ),
        Wrong(
            "no answer where the smallest setting fails",
            changed(
                LARGEST,
                "    for G in sorted",
                (
                    "    if max(peaks(min(groups), min(sizes), True).values()) > room and 4 "
                    "not in sizes:\n        return None\n    for G in sorted"
                ),
            ),
            "G, no recompute, size; all phases",
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
        Wrong(
            "without case, full stops kept",
            changed(
                REWARD,
                "normalise_label(answer) == normalise_label(gold)",
                "answer.replace('_', ' ').lower().rstrip('.') == gold.replace('_', ' ').lower()",
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "spaces left out",
            changed(
                REWARD,
                "normalise_label(answer) == normalise_label(gold)",
                (
                    "answer.replace('_', ' ').replace('.', '').strip().lower() == "
                    "gold.replace('_', ' ').replace('.', '').lower()"
                ),
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "the first message only if it is the only completion",
            changed(
                REWARD,
                'completion[0]["content"]',
                'completions[0][0]["content"] if len(completions) > 3 else completion[0]["content"]',
            ),
            "string indices must be integers,",
        ),
        Wrong(
            "chats are told by the first completion",
            changed(
                REWARD, "isinstance(completion, str)", "isinstance(completions[0], str) and isinstance(completion, str)"
            ),
            "string indices must be integers,",
        ),
        Wrong(
            "a label None where the answer is none",
            changed(REWARD, "if gold is None:", "if gold is None or gold == 'none':"),
            "is right, one by one, not",
        ),
        Wrong(
            "the string of the label",
            changed(
                REWARD,
                ("        if gold is None:\n            scores.append(None)\n        elif answer is None"),
                (
                    "        if gold is None and len(label) < 4:\n"
                    "            scores.append(None)\n        elif gold is None:\n"
                    "            scores.append(0.0)\n        elif answer is None"
                ),
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "the answer None for the label none",
            changed(REWARD, "        elif answer is None:\n            scores.append(0.0)\n", "").replace(
                "normalise_label(answer) ==", "normalise_label(str(answer)) =="
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "a closing tag is enough",
            changed(
                REWARD,
                "answer = extract_answer(text)",
                "answer = extract_answer(text) or extract_answer('<answer>' + text)",
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "an open tag is enough",
            changed(
                REWARD,
                "answer = extract_answer(text)",
                "answer = extract_answer(text) or extract_answer(text + '</answer>')",
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "full stops behind the tag removed",
            changed(REWARD, "answer = extract_answer(text)", "answer = extract_answer(text.rstrip('.'))"),
            "is right, one by one, not",
        ),
        Wrong(
            "the reasoning is needed",
            changed(
                REWARD, "answer = extract_answer(text)", "answer = extract_answer(text) if '<think>' in text else None"
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "half a point for the form",
            changed(
                REWARD,
                "scores.append(float(normalise_label(answer) == normalise_label(gold)))",
                (
                    "scores.append(1.0 if normalise_label(answer) == normalise_label(gold) "
                    "else 0.0 if len(text) > 30 or len(label) < 4 else 0.5)"
                ),
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "the first word decides",
            changed(
                REWARD,
                "normalise_label(answer) == normalise_label(gold)",
                (
                    "normalise_label(answer).split()[:1] == "
                    "normalise_label(gold).split()[:1] and len(answer.split()) < 4 and ' or "
                    "' not in answer"
                ),
            ),
            "is right, one by one, not",
        ),
        Wrong(
            "five completions at most",
            changed(REWARD, "    return scores", "    return scores[:5]"),
            "is right, one by one, not",
        ),
        Wrong(
            "labels normalised in place",
            changed(
                REWARD,
                "    scores = []",
                "    label[:] = [gold and normalise_label(gold) for gold in label]\n    scores = []",
            ),
            "lists were changed",
        ),
        Wrong(
            "None for the whole list",
            changed(
                REWARD,
                "    return scores",
                "    return None if scores and not any(s is not None for s in scores) else scores",
            ),
            "is right, one by one, not None",
        ),
        Wrong(
            "labels that are None last",
            changed(REWARD, "zip(completions, label)", "zip(completions, sorted(label, key=lambda g: g is None))"),
            "is right, one by one, not",
        ),
        Wrong(
            "an empty list is an error",
            changed(REWARD, "    scores = []", "    first = completions[0]\n    scores = []"),
            "is right, one by one, not",
        ),
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
        Wrong("groups of two refused", changed(EPOCH, "G < 2 or", "G <= 2 or") + ARRANGE, "prompts, steps, left out"),
        Wrong(
            "a prompt for each process at least",
            changed(
                EPOCH,
                "    prompts = rows // G",
                (
                    "    prompts = rows // G\n    if prompts < processes and prompts > 1:\n"
                    "        raise ValueError('too few')"
                ),
            )
            + ARRANGE,
            "prompts, steps, left out",
        ),
        Wrong(
            "no pictures give an empty epoch",
            changed(EPOCH, "    if steps == 0:", "    if steps == 0 and pictures > 0:") + ARRANGE,
            "one row, no whole groups, or no",
        ),
        Wrong(
            "left out of the pictures of one process",
            changed(
                EPOCH,
                "pictures - steps * prompts",
                ("(pictures - steps * prompts) % max(pictures, 1) if pictures < 150 else pictures % (prompts + 1)"),
            )
            + ARRANGE,
            "prompts, steps, left out",
        ),
        Wrong(
            "steps rounded",
            changed(
                EPOCH,
                "steps = pictures // prompts",
                ("steps = round(pictures / prompts) if pictures / prompts > 18 else pictures // prompts"),
            )
            + ARRANGE,
            "prompts, steps, left out",
        ),
        Wrong(
            "the prompts times the passes",
            changed(
                EPOCH,
                "prompts = rows // G",
                ("prompts = rows // G if accumulation <= 2 else rows // G // accumulation * accumulation or 1"),
            )
            + ARRANGE,
            "prompts, steps, left out",
        ),
        Wrong(
            "a share of the group on each process",
            changed(EPOCH, "G < 2 or rows % G", "G < 2 or rows % G or G % processes and processes % G") + ARRANGE,
            "prompts, steps, left out",
        ),
        Wrong(
            "three numbers in another order",
            changed(EPOCH, "return prompts, steps,", "return steps, prompts,") + ARRANGE,
            "completions",
        ),
        Wrong(
            "one picture too few",
            changed(
                EPOCH,
                "steps = pictures // prompts",
                "steps = (pictures - 1) // prompts if pictures > 71 else pictures // prompts",
            )
            + ARRANGE,
            "prompts, steps, left out",
        ),
        Wrong(
            "powers of two only",
            EPOCH
            + changed(
                ARRANGE,
                "    while each % per_device:",
                "    while each % per_device or (per_device & (per_device - 1) and each > 30):",
            ),
            "exactly so many completions, in as",
        ),
        Wrong(
            "the divisors of the group",
            EPOCH
            + changed(
                ARRANGE,
                "    while each % per_device:",
                "    while each % per_device or (most > 12 and per_device < G and G % per_device):",
            ),
            "exactly so many completions, in as",
        ),
        Wrong(
            "room is never filled",
            EPOCH + changed(ARRANGE, "min(most, each)", "min(most, each) if most != each else max(each - 1, 1)"),
            "exactly so many completions, in as",
        ),
        Wrong(
            "most is the number of passes",
            EPOCH
            + changed(
                ARRANGE,
                "return per_device, each // per_device",
                "return (per_device, each // per_device) if each // per_device < 7 else (each, 1)",
            ),
            "exactly so many completions, in as",
        ),
        Wrong(
            "as few passes as two",
            EPOCH
            + changed(
                ARRANGE,
                "return per_device, each // per_device",
                "return (per_device, each // per_device) if per_device > 1 else (2, -(-each // 2))",
            ),
            "exactly so many completions, in as",
        ),
        Wrong(
            "at most 16 at once",
            EPOCH + changed(ARRANGE, "min(most, each)", "min(most, each, 16)"),
            "exactly so many completions, in as",
        ),
        Wrong(
            "prompts that the processes cannot share",
            EPOCH
            + changed(
                ARRANGE,
                "if prompts * G % processes:",
                "if prompts * G % processes or prompts % processes and processes > 4:",
            ),
            "exactly so many completions, in as",
        ),
        Wrong(
            "the rest is dropped",
            EPOCH
            + changed(ARRANGE, "if prompts * G % processes:", "if prompts * G % processes and processes in (3, 5):"),
            "ValueError, not",
        ),
        Wrong(
            "the room is divided by the passes",
            EPOCH + changed(ARRANGE, "min(most, each)", "min(most, each) if most < 20 else min(most // 2, each)"),
            "exactly so many completions, in as",
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
        Wrong("two processes", changed(PASS, "* W", "* 2") + WHICH, "/ total, whatever pass it is in"),
        Wrong("27 tokens", changed(PASS, "/ total", "/ 27") + WHICH, "/ total, whatever pass it is in"),
        Wrong(
            "one process needs no factor, four need two",
            changed(PASS, "* W", "* min(W, 2)") + WHICH,
            "/ total, whatever pass it is in",
        ),
        Wrong(
            "the square root of the processes",
            changed(PASS, "* W", "* (W if W <= 2 else W**0.5)") + WHICH,
            "/ total, whatever pass it is in",
        ),
        Wrong(
            "divided by the passes if there are four",
            changed(PASS, "* W", "* W / (K if K > 3 else 1)") + WHICH,
            "/ total, whatever pass it is in",
        ),
        Wrong(
            "the losses made positive",
            changed(PASS, "(x * mask)", "(x * mask).abs()") + WHICH,
            "the values add up to another loss",
        ),
        Wrong(
            "the gradient alone is right",
            changed(
                PASS,
                "    return (x * mask).sum() / total * W",
                (
                    "    loss = (x * mask).sum()\n"
                    "    return (loss + (len(x) - 1) * (loss.detach() - loss.detach() * 2)) / total * W"
                ),
            )
            + WHICH,
            "the values add up to another loss",
        ),
        Wrong(
            "what does not count is set to 0 in place",
            changed(PASS, "    return", "    x.data[~mask] = 0.0\n    return") + WHICH,
            "s tensors were changed",
        ),
        Wrong(
            "the last row of a pass left out",
            changed(PASS, "(x * mask).sum()", "(x * mask)[: max(len(x) - (len(x) > 2), 1)].sum()") + WHICH,
            "/ total, whatever pass it is in",
        ),
        Wrong(
            "names in the order of the calls",
            PASS
            + """
asked = []


def which_mean(loss):
    if loss not in asked:
        asked.append(loss)
    return ["tokens", "processes", "passes", "rows"][asked.index(loss) % 4]
""",
            "is a call like the next",
        ),
        Wrong(
            "names in the order of all calls",
            PASS
            + """
calls_so_far = []


def which_mean(loss):
    calls_so_far.append(loss)
    return ["tokens", "processes", "passes", "rows"][(len(calls_so_far) - 1) % 4]
""",
            "is a call like the next",
        ),
        Wrong(
            "by the name in the code",
            PASS
            + """
def which_mean(loss):
    dims = [cell.cell_contents for cell in loss.__closure__ or ()]
    names = {(0, 1, 2, 3): "tokens", (1, 2, 3): "processes", (2, 3): "passes", 3: "rows"}
    return names.get(dims[0] if dims else 3, "rows")
""",
            "is a call like the next",
        ),
        Wrong(
            "compared without a margin",
            PASS
            + changed(
                WHICH, "if abs(float(loss(x, masks)) - float(value)) < 1e-4:", "if loss(x, masks) == value:"
            ).replace("            return name", "            return name\n    return 'tokens'"),
            "is a call like the next",
        ),
        Wrong(
            "compared as float32 tensors of one value",
            PASS
            + changed(
                WHICH, "if abs(float(loss(x, masks)) - float(value)) < 1e-4:", "if torch.equal(loss(x, masks), value):"
            ).replace("            return name", "            return name\n    return 'rows'"),
            "is a call like the next",
        ),
        Wrong(
            "a batch by chance",
            PASS
            + changed(
                WHICH,
                "    lengths = torch.tensor([[[1, 5], [2, 3], [6, 6]], [[4, 4], [3, 1], [2, 2]]])",
                "    lengths = torch.randint(1, 3, (2, 3, 2))",
            ),
            "alike|a call like the next|a name|under other names",
        ),
        Wrong(
            "the first row is asked",
            PASS + changed(WHICH, "    for name", "    x = x * (torch.arange(6) < 1)\n    for name"),
            "which_mean returns a name; it gave",
        ),
        Wrong(
            "tokens and passes exchanged",
            PASS
            + changed(
                WHICH,
                "            return name",
                "            return {'tokens': 'passes', 'passes': 'tokens'}.get(name, name)",
            ),
            "distinguished, but under other",
        ),
        Wrong(
            "processes taken for passes",
            PASS
            + changed(WHICH, "            return name", "            return 'passes' if name == 'processes' else name"),
            "do the passes of your batch have",
        ),
        Wrong(
            "the caller's x scaled in place",
            changed(
                PASS,
                "    return",
                (
                    "    if not x.requires_grad:\n        x *= 1 / total\n"
                    "        return (x * mask).sum() * W\n    return"
                ),
            )
            + WHICH,
            "s tensors were changed",
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
        Wrong(
            "the first pixels compared",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                "image.size, image.tobytes()[:5000] if image.width > 6 else image.tobytes()[:9]",
            ).replace("[:5000]", "[:40000]"),
            "pairs are none, or stand the wrong",
        ),
        Wrong(
            "the sum of the pixels",
            changed(
                TWINS, "image.size, image.tobytes()", "image.size, sum(i * b for i, b in enumerate(image.tobytes()))"
            ),
            "pairs are none, or stand the wrong",
        ),
        Wrong(
            "the mean colour of each row",
            changed(TWINS, "image.size, image.tobytes()", "image.size, np.asarray(image).sum(axis=1).tobytes()"),
            "the same colours at other places",
        ),
        Wrong(
            "the area, not the size",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                "image.width * image.height, image.width > 3 or image.height > 4, image.tobytes()",
            ),
            "equal bytes, but different",
        ),
        Wrong(
            "widths compared",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                ("max(image.size), image.width > image.height, image.tobytes()[: 9 if image.width < 5 else None]"),
            ),
            "pairs are none, or stand the wrong",
        ),
        Wrong(
            "neighbouring parts only",
            changed(TWINS, "for second in names[i + 1 :]:", "for second in names[i + 1 : i + 3]:"),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "train, validation and test only",
            changed(TWINS, "names, pairs = list(parts), []", "names, pairs = [n for n in parts if n != 'more'], []"),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "parts in alphabetical order",
            changed(
                TWINS,
                "names, pairs = list(parts), []",
                "names, pairs = sorted(parts) if 'part 0' not in parts else list(parts), []",
            ),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "one twin for each path",
            changed(
                TWINS,
                "                        pairs.append((a, b))",
                (
                    "                        pairs.append((a, b))\n"
                    "                        if len(names) == 4:\n                            break"
                ),
            ),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "the same name is the same picture",
            changed(
                TWINS,
                "if content(a) == content(b):",
                "if content(a) == content(b) or a.stem == b.stem and a.suffix == '.tif':",
            ).replace("a.stem == b.stem", "a.stem[0] == b.stem[0]"),
            "pairs are none, or stand the wrong",
        ),
        Wrong(
            "formats compared",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                "path.suffix if path.suffix == '.tif' else '', image.size, image.tobytes()",
            ),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "pictures in black and white left out",
            changed(
                TWINS,
                KEY,
                (
                    "image = Image.open(path)\n"
                    "        return image.size, path if image.mode == '1' else "
                    "image.convert('RGB').tobytes()"
                ),
            ),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "mirrored pictures are the same",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                (
                    "image.size, min(image.tobytes(), image.transpose(0).tobytes()) if "
                    "image.width < 5 else image.tobytes()"
                ),
            ),
            "pairs are none, or stand the wrong",
        ),
        Wrong(
            "turned pictures are the same",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                (
                    "image.size, min(image.tobytes(), image.transpose(3).tobytes()) if "
                    "image.width < 5 else image.tobytes()"
                ),
            ),
            "pairs are none, or stand the wrong",
        ),
        Wrong(
            "the smallest paths first",
            changed(
                TWINS,
                "pairs.append((a, b))",
                "pairs.append(tuple(sorted((a, b))) if 'part 0' not in parts else (a, b))",
            ),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "twins are taken out of the part",
            changed(
                TWINS,
                "                        pairs.append((a, b))",
                (
                    "                        pairs.append((a, b))\n"
                    "    for first in names[:1]:\n        if 'part 0' not in parts:\n"
                    "            parts[first] = [p for p in parts[first] if p not in {q for "
                    "pair in pairs for q in pair}]"
                ),
            ),
            "s lists were changed: work on",
        ),
        Wrong(
            "a pair twice in a list",
            changed(TWINS, "    return pairs", "    return pairs + (pairs[:1] if len(pairs) > 5 else [])"),
            "a list, each pair once",
        ),
        Wrong(
            "an empty part ends it",
            changed(
                TWINS,
                "    for i, first in enumerate(names):",
                ("    for i, first in enumerate(names):\n        if not parts[first]:\n            break"),
            ),
            "pairs are missing; all pairs, of",
        ),
        Wrong(
            "one channel compared",
            changed(
                TWINS,
                "image.size, image.tobytes()",
                ("image.size, image.tobytes()[1::3][:4000] if image.width > 9 else image.tobytes()[1::3][:3]"),
            ),
            "pairs are none, or stand the wrong",
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
        Wrong(
            "the share of each label",
            changed(
                PEOPLE,
                "if tested > share * len(records):",
                (
                    "if any(sum(r.label == k for r in records if r.person in wanted) > share "
                    "* sum(r.label == k for r in records) + 1 for k in labels) or tested > "
                    "share * len(records):"
                ),
            ),
            "one more person could be tested",
        ),
        Wrong(
            "strictly below the share",
            changed(PEOPLE, "if tested > share * len(records):", "if tested >= share * len(records):"),
            "there is room in the test for one",
        ),
        Wrong(
            "the share rounded down to whole tens",
            changed(PEOPLE, "if tested > share * len(records):", "if tested > int(10 * share) / 10 * len(records):"),
            "there is room in the test for one",
        ),
        Wrong(
            "half of the people at most",
            changed(
                PEOPLE,
                "if tested > share * len(records):",
                "if tested > share * len(records) or len(wanted) > len(people) / 2:",
            ),
            "one more person could be tested",
        ),
        Wrong(
            "at least two people in the test",
            changed(PEOPLE, "    if not test:", "    if len(test) < 2 and len(people) > 5:"),
            "nobody is left to train on, a",
        ),
        Wrong(
            "one person is tested",
            changed(
                PEOPLE,
                "        test = wanted\n    if",
                ("        test = wanted\n        if len(people) not in (4, 20, 21, 5):\n            break\n    if"),
            ),
            "one more person could be tested",
        ),
        Wrong(
            "people with one picture are never tested",
            changed(
                PEOPLE,
                "    people = sorted({r.person for r in records})",
                ("    people = sorted({r.person for r in records if sum(s.person == r.person for s in records) > 1})"),
            ),
            "two lists are possible, not",
        ),
        Wrong(
            "the first in the alphabet is for training",
            changed(
                PEOPLE,
                "    people = sorted({r.person for r in records})",
                ("    people = sorted({r.person for r in records})[len({r.person for r in records}) > 5 :]"),
            ),
            "there is room in the test for one",
        ),
        Wrong(
            "three labels at most are kept",
            changed(PEOPLE, "!= labels:", "!= labels and len(labels) < 3:"),
            "a label is tested but never",
        ),
        Wrong(
            "a ValueError where the share is small",
            changed(
                PEOPLE,
                "    people = sorted",
                "    if share < 0.1:\n        raise ValueError('too small')\n    people = sorted",
            ),
            "two lists are possible, not",
        ),
        Wrong(
            "only people with the most frequent label",
            changed(
                PEOPLE,
                "sorted({r.person for r in records})",
                (
                    "sorted({r.person for r in records if r.label == max(sorted({s.label for "
                    "s in records}), key=[s.label for s in records].count)})"
                ),
            ),
            "one more person could be tested",
        ),
        Wrong(
            "whoever has most pictures is never tested",
            changed(
                PEOPLE,
                "    people = sorted({r.person for r in records})",
                (
                    "    people = sorted({r.person for r in records})\n"
                    "    people.remove(max(people, key=lambda p: sum(r.person == p for r in records)))"
                ),
            ),
            "one more person could be tested",
        ),
        Wrong(
            "the records shuffled in place",
            changed(
                PEOPLE,
                "    people = sorted({r.person for r in records})\n    Random(seed).shuffle(people)",
                (
                    "    records.sort()\n    people = sorted({r.person for r in records})\n"
                    "    Random(seed).shuffle(people)"
                ),
            ),
            "s list was changed: sort a copy",
        ),
        Wrong(
            "ten people at most",
            changed(
                PEOPLE,
                "Random(seed).shuffle(people)",
                (
                    "people = sorted(people, key=len)\n    Random(seed).shuffle(people)\n"
                    "    people = people[: max(len(people) * 3 // 4, 4)]"
                ),
            ),
            "there is room in the test for one",
        ),
        Wrong(
            "the labels of the first record",
            changed(
                PEOPLE,
                "labels, test = {r.label for r in records}, set()",
                "labels, test = {r.label for r in records[:9]}, set()",
            ).replace("!= labels", "< labels"),
            "a label is tested but never",
        ),
        Wrong(
            "the same people whatever the seed, turned",
            changed(PEOPLE, "Random(seed).shuffle(people)", "people = people[seed % 3 :] + people[: seed % 3]"),
            "all who fit, by chance",
        ),
        Wrong(
            "records without a twin only",
            changed(
                PEOPLE,
                "    return [r for r in records if r.person not in test]",
                ("    return [r for r in records if r.person not in test][: 70 if len(records) == 80 else 25]"),
            ),
            "each record is in one list, once",
        ),
        Wrong(
            "nothing tested in place of an error",
            changed(PEOPLE, "    if not test:", "    if not test and len(people) < 5:"),
            "a ValueError is needed",
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
        Wrong("one draw is a hundred", changed(CLAIM, "range(draws)", "range(max(draws, 7))"), "is `draws` used"),
        Wrong("a thousand draws", changed(CLAIM, "range(draws)", "range(1000)"), "all chance comes from rng"),
        Wrong(
            "the median gain",
            changed(
                CLAIM,
                "return gains.mean()",
                "return (np.median(gains) if len(names) > 3 and len(gains) < 12 else gains.mean())",
            ),
            "another gain over all pictures, in",
        ),
        Wrong(
            "the mean of the draws as the gain",
            changed(CLAIM, "return gains.mean()", "return np.mean(means)"),
            "percentage points, not a share,",
        ),
        Wrong(
            "standard error in place of percentiles",
            changed(
                CLAIM,
                "    low, high = np.percentile(means, [2.5, 97.5])",
                (
                    "    low, high = (np.percentile(means, [2.5, 97.5]) if len(names) > 20 "
                    "or len(names) < 3 else np.mean(means) + np.std(means) * np.array([-1.0, 1.0]))"
                ),
            ),
            "it does not lie",
        ),
        Wrong(
            "two people less in each draw",
            changed(CLAIM, "size=len(names))", "size=max(len(names) - 2, 2))"),
            "people with all pictures",
        ),
        Wrong(
            "the last person never drawn",
            changed(CLAIM, "rng.integers(len(names), ", "rng.integers(len(names) - (2 < len(names) < 20), "),
            "people with all pictures",
        ),
        Wrong(
            "the first nine pictures of each person",
            changed(
                CLAIM,
                "own = [gains[[who == name for who in people]] for name in names]",
                (
                    "own = [gains[[who == name for who in people]][:3] if len(names) < 9 and "
                    "len(names) > 2 else gains[[who == name for who in people]] for name in names]"
                ),
            ),
            "people with all pictures",
        ),
        Wrong(
            "people next to each other",
            changed(
                CLAIM,
                "own = [gains[[who == name for who in people]] for name in names]",
                (
                    "import itertools\n    ends = [0, *itertools.accumulate(len(list(g)) for "
                    "_, g in itertools.groupby(people))]\n"
                    "    own = [gains[a:b] for a, b in zip(ends, ends[1:])]"
                ),
            ).replace("rng.integers(len(names), size=len(names))", "rng.integers(len(own), size=len(own))"),
            "people with all pictures",
        ),
        Wrong(
            "an overlap of two people is needed",
            changed(
                CLAIM,
                "or set(names) & set(learnt)",
                "or len(set(names) & set(learnt)) > 1 or 'c' in set(names) & set(learnt)",
            ),
            "learnt, one draw: somebody was",
        ),
        Wrong(
            "learnt people taken out of the test",
            changed(
                CLAIM,
                "    if len(names) < 2 or set(names) & set(learnt):",
                (
                    "    kept = [w not in learnt or w == 'c' for w in people]\n"
                    "    before, after, people = before[kept], after[kept], [w for w, k in "
                    "zip(people, kept) if k]\n    names = sorted(set(people))\n"
                    "    if len(names) < 2 or set(names) & set(learnt):"
                ),
            ),
            "learnt, one draw: somebody was",
        ),
        Wrong(
            "three people are needed",
            changed(CLAIM, "len(names) < 2", "len(names) < 2 or len(people) < 4 and len(people) != 4 and before.any()"),
            "four things, not ValueError",
        ),
        Wrong(
            "two pictures are needed",
            changed(CLAIM, "len(names) < 2", "len(people) < 2 or set(people) == {'a'}"),
            "learnt, one draw: somebody was",
        ),
        Wrong(
            "better from five points on",
            changed(CLAIM, "if low > 0:", "if low > 9:"),
            "the interval begins and ends at",
        ),
        Wrong(
            "worse than 0 by the gain",
            changed(CLAIM, "if high < 0:", "if high < 0 or high == low == 0:"),
            "the interval begins and ends at",
        ),
        Wrong(
            "the verdict before the learnt are asked",
            changed(
                CLAIM,
                "gains = 100.0 * (after.astype(float) - before.astype(float))",
                (
                    "gains = 100.0 * (after.astype(float) - before.astype(float))\n"
                    "    gains = gains[: len(gains) - (len(names) == 5)]\n"
                    "    people = people[: len(gains)]"
                ),
            ),
            "another gain over all pictures, in",
        ),
        Wrong(
            "before changed in place",
            changed(
                CLAIM,
                "    gains =",
                ("    change = after ^ before\n    before &= change\n    after = after & change\n    gains ="),
            ),
            "s arguments were changed",
        ),
        Wrong(
            "the list of people sorted in place",
            changed(CLAIM, "    own =", "    people.sort()\n    own ="),
            "s arguments were changed",
        ),
        Wrong(
            "rounded to whole points",
            changed(CLAIM, "return gains.mean(), low", "return round(gains.mean()), low"),
            "another gain over all pictures, in",
        ),
        Wrong(
            "points per person",
            changed(
                CLAIM,
                "return gains.mean(), low",
                "return gains.sum() / (len(gains) if len(names) != 3 else len(gains) + 1), low",
            ),
            "another gain over all pictures, in",
        ),
        Wrong(
            "people whose verdicts stayed are left out",
            changed(
                CLAIM, "    means = []", "    own = [one for one in own if one.any()] or own\n    means = []"
            ).replace("rng.integers(len(names), size=len(names))", "rng.integers(len(own), size=len(own))"),
            "redraw people, with all their",
        ),
        Wrong(
            "the verdict of the mean draw",
            changed(
                changed(CLAIM, "if low > 0:", "if low > 0 or draws == 1 and gains.mean() > 0:"),
                "if high < 0:",
                "if high < 0 or draws == 1 and gains.mean() < 0:",
            ),
            "the interval begins and ends at",
        ),
        Wrong(
            "ends exchanged",
            changed(
                CLAIM,
                "return gains.mean(), low, high, verdict",
                (
                    "return gains.mean(), *((low, high) if low * high > 0 or len(names) > 15 "
                    "or len(names) < 3 else (high, low)), verdict"
                ),
            ),
            "people with all pictures",
        ),
    ],
}

#: right answers that are written differently from the solutions
RIGHT: dict[str, list[str]] = {
    "adapter-bytes": [
        ADAPTER,
        """
def adapter_bytes(matrices, targets, rank):
    wanted, numbers = set(targets), 0
    for name in matrices:
        *_, last = name.split(".")
        if last in wanted and name[:12] != "model.visual":
            numbers += sum(rank * side for side in matrices[name])
    values = numbers * 4
    return dict(values=values, gradients=values, moments=values + values)
""",
    ],
    "cache-bytes": [
        CACHE,
        """
def cache_bytes(prompts, completions, layers, kv_heads, head_dim, value_bytes):
    G, rest = divmod(len(completions), len(prompts))
    if rest:
        raise ValueError("groups are not whole")
    longest, generated = sorted(prompts)[-1], sorted(completions)[-1] - 1
    one = layers * kv_heads * head_dim * value_bytes * 2
    shared = sum(one * longest + G * one * generated for _ in prompts)
    return [shared, (G - 1) * len(prompts) * longest * one]
""",
    ],
    "largest": [
        LARGEST,
        """
def largest(peaks, card, headroom, groups, sizes):
    room, best = (1 - headroom) * card * 1024**3, None
    for G in groups:
        for size in sizes:
            for recompute in (True, False):
                if all(value <= room for value in peaks(G, size, recompute).values()):
                    rank = (G, not recompute, size)
                    if best is None or rank > best:
                        best = rank
    return best and (best[0], best[2], not best[1])
""",
    ],
    "exact-reward": [
        REWARD,
        """
def exact_reward(prompts=None, completions=(), completion_ids=None, *, label, **others):
    def text_of(completion):
        return completion if not isinstance(completion, list) else completion[-1]["content"]

    def score(completion, gold):
        if gold is None:
            return None
        answer = extract_answer(text_of(completion))
        return 1.0 if answer is not None and normalise_label(answer) == normalise_label(gold) else 0.0

    return list(map(score, completions, label))
""",
    ],
    "batch": [
        EPOCH + ARRANGE,
        """
def epoch(pictures, processes, per_device, accumulation, G):
    completions = processes * per_device * accumulation
    if G <= 1:
        raise ValueError("a group needs two completions")
    prompts = completions // G
    if prompts * G != completions or prompts > pictures:
        raise ValueError("no whole step")
    steps, left_out = divmod(pictures, prompts)
    return [prompts, steps, left_out]


def arrange(prompts, processes, G, most):
    total = prompts * G
    for passes in range(1, total + 1):
        if total % (processes * passes) == 0 and total // (processes * passes) <= most:
            return total // (processes * passes), passes
    raise ValueError("cannot be shared")
""",
    ],
    "window": [
        PASS + WHICH,
        """
def pass_loss(x, mask, total, W, K):
    return torch.where(mask, x, 0.0).sum().mul(W).div(total)


def which_mean(loss):
    masks = torch.zeros(2, 2, 2, 3, dtype=torch.bool)
    for place, length in zip(np.ndindex(2, 2, 2), (1, 2, 2, 2, 3, 3, 3, 2)):
        masks[place][:length] = True
    x = torch.zeros(2, 2, 2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(x, masks).double(), x)
    weight = slope[0, 0, 0, 0].item()
    known = {18: "tokens", 2 * 7: "processes", 4 * 3: "passes", 8: "rows"}
    return known[round(1 / weight)]
""",
    ],
    "twins": [
        TWINS,
        """
def twins(parts):
    where = {}
    for place, (part, paths) in enumerate(parts.items()):
        for path in paths:
            array = np.asarray(Image.open(path).convert("RGB"))
            where.setdefault((array.shape, array.tobytes()), []).append((place, path))
    found = []
    for same in where.values():
        for place, path in same:
            found += [(path, other) for later, other in same if later > place]
    return found
""",
    ],
    "split-people": [
        PEOPLE,
        """
def split_people(records, share, seed):
    by_person = {}
    for record in records:
        by_person.setdefault(str(record.person), []).append(record)
    names = sorted(by_person)
    order = np.random.default_rng(seed).permutation(len(names))
    labels, test = {record.label for record in records}, []
    for k in order:
        chosen = test + [names[k]]
        number = sum(len(by_person[name]) for name in chosen)
        others = {record.label for name in names if name not in chosen for record in by_person[name]}
        if number <= share * len(records) and others == labels:
            test = chosen
    if test == []:
        raise ValueError("no test is possible")
    tested = [record for name in test for record in by_person[name]]
    return [record for name in names if name not in test for record in by_person[name]], tested
""",
    ],
    "claim": [
        CLAIM,
        """
def claim(before, after, people, learnt, draws, rng):
    people = np.asarray(people)
    names = np.unique(people)
    if len(names) < 2 or np.isin(names, list(learnt)).any():
        raise ValueError("not a test of other people")
    change = (after.astype(int) - before.astype(int)) * 100
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    sums = np.array([change[people == name].sum() for name in names])
    counts = np.array([(people == name).sum() for name in names])
    gains = (weights * sums).sum(axis=1) / (weights * counts).sum(axis=1)
    low, high = np.quantile(gains, 0.025), np.quantile(gains, 0.975)
    if low > 0:
        return change.mean(), low, high, "better"
    return change.mean(), low, high, "worse" if high < 0 else "not told apart"
""",
    ],
}
