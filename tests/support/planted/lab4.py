"""Wrong answers to lab 4, evaluation and explanation."""

from planted import Wrong, changed

SFT = """
def sft_loss(logps, ids, starts, end):
    behind = torch.arange(ids.shape[1]) >= starts[:, None]
    ended = ((ids == end) & behind).long()
    counts = behind & (ended.cumsum(dim=1) - ended == 0)
    return -logps[counts].mean()
"""
MACRO = """
def macro(counts):
    pictures = counts.sum(axis=1)
    there = pictures > 0
    return float((np.diagonal(counts)[there] / pictures[there]).mean())
"""
PAIR = """
def worst_pair(counts):
    there = np.flatnonzero(counts.sum(axis=1))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pairs = [(int(i), int(j)) for i in there for j in there if i < j]
    i, j = max(pairs, key=lambda pair: shares[pair] + shares[pair[::-1]])
    return i, j, float(shares[i, j] + shares[j, i]) / 2
"""
GAIN = """
def gain_interval(before, after, draws, rng):
    gains = 100 * (after - before)
    S, M = gains.shape
    means = [gains[rng.integers(S, size=S)][:, rng.integers(M, size=M)].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(gains.mean()), float(low), float(high)
"""
EXACT = """
def exact_p(before, after):
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    changed = gained + lost
    tail = sum(comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    return min(1.0, 2 * tail)
"""
HOLM = """
def holm(p_values):
    corrected, least = [1.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = least
    return corrected
"""
CHOOSE = """
def choose(rates, validation, test):
    means = validation.mean(axis=(1, 2))
    best = int(means.argmax())
    of_pictures = validation[best].mean(axis=0)
    error = of_pictures.std(ddof=1) / len(of_pictures) ** 0.5
    chosen = min((r for r in range(len(rates)) if means[r] >= means[best] - error), key=lambda r: rates[r])
    return rates[chosen], float(test[chosen].mean())
"""
REPAIRED = """
def repaired(before, after):
    def kind(a):
        best = read_reasoning(a.text).best
        if a.answer not in ACTIVITIES:
            return "silent"
        return "misnamed" if best == (a.label,) else "misled" if a.answer in best else "unclear"

    right = {a.source: a.correct for a in after}
    counts = {name: (0, 0) for name in ("silent", "misnamed", "misled", "unclear")}
    for a in before:
        if not a.correct:
            wrong, mended = counts[kind(a)]
            counts[kind(a)] = (wrong + 1, mended + right[a.source])
    return counts
"""
MAP = """
def occlusion_map(picture, score, window, stride):
    height, width, _ = picture.shape
    tops, lefts = ([*range(0, n - window, stride), n - window] for n in (height, width))
    total, count = np.zeros((height, width)), np.zeros((height, width))
    whole, colour = score(picture), picture.mean(axis=(0, 1))
    for top in tops:
        for left in lefts:
            place = np.s_[top : top + window, left : left + window]
            view = picture.copy()
            view[place] = colour
            total[place] += whole - score(view)
            count[place] += 1
    return total / count
"""
EFFECTS = """
def effects(regions, drop, controls, seed):
    results = []
    for m, (left, top, right, bottom) in enumerate(regions):
        wide, high = right - left, bottom - top
        places = [(x, y, x + wide, y + high) for y in range(11 - high) for x in range(11 - wide)]
        beside = [(a, b, c, d) for a, b, c, d in places if a >= right or c <= left or b >= bottom or d <= top]
        drawn = Random(f"{seed} {m}").sample(beside, min(controls, len(beside)))
        drops = drop(m, [(left, top, right, bottom), *drawn])
        results.append(drops[0] - np.mean(drops[1:]))
    return np.array(results)
"""

PLANTED: dict[str, list[Wrong]] = {
    "sft-loss": [
        Wrong("the prompt is learnt, too", changed(SFT, "counts = behind & (", "counts = ("), "the prompt is given"),
        Wrong(
            "end token left out",
            changed(SFT, "ended.cumsum(dim=1) - ended == 0", "ended.cumsum(dim=1) == 0"),
            "learns to stop",
        ),
        Wrong(
            "padding is learnt",
            changed(SFT, "behind & (ended.cumsum(dim=1) - ended == 0)", "behind"),
            r"\*first\* counts",
        ),
        Wrong(
            "the end is sought from the prompt on",
            changed(SFT, "((ids == end) & behind)", "(ids == end)"),
            "Where does the search begin",
        ),
        Wrong("first target token left out", changed(SFT, ">= starts", "> starts"), "first token counts"),
        Wrong(
            "mean of the rows' means",
            changed(
                SFT,
                "-logps[counts].mean()",
                "-torch.stack([row[kept].mean() for row, kept in zip(logps, counts)]).mean()",
            ),
            r"every \*token\*",
        ),
        Wrong("sum, not mean", changed(SFT, ".mean()", ".sum()"), "divide by their number"),
        Wrong(
            "divided by all places",
            changed(SFT, "logps[counts].mean()", "logps.masked_fill(~counts, 0.0).mean()"),
            "divide by their number",
        ),
        Wrong("sign forgotten", changed(SFT, "-logps[counts]", "logps[counts]"), "sign turned"),
        Wrong(
            "times the mask",
            changed(SFT, "logps[counts].mean()", "(logps * counts).sum() / counts.sum()"),
            "0 times NaN",
        ),
        Wrong(
            "a number without gradient", changed(SFT, "logps[counts]", "logps.detach()[counts]"), "without a gradient"
        ),
    ],
    "confusion": [
        Wrong(
            "share of all pictures",
            changed(MACRO, "(np.diagonal(counts)[there] / pictures[there]).mean()", "np.trace(counts) / counts.sum()")
            + PAIR,
            r"\*labels\*",
        ),
        Wrong(
            "pictures without an answer left out",
            changed(MACRO, "counts.sum(axis=1)", "counts[:, :-1].sum(axis=1)") + PAIR,
            "not absent",
        ),
        Wrong(
            "a label without pictures counts as 0",
            changed(
                MACRO,
                "(np.diagonal(counts)[there] / pictures[there]).mean()",
                "(np.diagonal(counts) / np.maximum(pictures, 1)).mean()",
            )
            + PAIR,
            "never right",
        ),
        Wrong(
            "0 / 0 in the mean",
            """
def macro(counts):
    with np.errstate(invalid="ignore"):
        return float((np.diagonal(counts) / counts.sum(axis=1)).mean())
"""
            + PAIR,
            "0 / 0",
        ),
        Wrong(
            "counts, not shares",
            MACRO + changed(PAIR, "shares[pair] + shares[pair[::-1]]", "counts[pair] + counts[pair[::-1]]"),
            "ten pictures, but of 100",
        ),
        Wrong(
            "one direction only",
            MACRO
            + """
def worst_pair(counts):
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = shares[:, :-1] * (1 - np.eye(len(counts)))
    i, j = np.unravel_index(shares.argmax(), shares.shape)
    return min(i, j), max(i, j), float(shares[i, j])
""",
            "one direction",
        ),
        Wrong(
            "no answer taken for a label",
            MACRO
            + """
def worst_pair(counts):
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    K = len(counts)
    both = np.zeros((K + 1, K + 1))
    both[:K] += shares
    both[:, :K] += shares.T
    np.fill_diagonal(both, 0)
    both[:, K] *= 2
    i, j = np.unravel_index(np.triu(both).argmax(), both.shape)
    return int(i), int(j), float(both[i, j]) / 2
""",
            "no label",
        ),
        Wrong("the diagonal is a pair", MACRO + changed(PAIR, "if i < j]", "if i <= j]"), "diagonal"),
        Wrong("sum of the two shares", MACRO + changed(PAIR, " / 2", ""), "not their sum"),
        Wrong(
            "the larger of the two shares decides",
            MACRO + changed(PAIR, "shares[pair] + shares[pair[::-1]]", "max(shares[pair], shares[pair[::-1]])"),
            "more than 0.4 and 0",
        ),
    ],
    "gain-interval": [
        Wrong(
            "before and after redrawn apart",
            """
def gain_interval(before, after, draws, rng):
    S, M = before.shape
    def drawn(x):
        return x[rng.integers(S, size=S)][:, rng.integers(M, size=M)].mean()
    means = [100 * (drawn(after) - drawn(before)) for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100 * float((after - before).mean()), float(low), float(high)
""",
            "pairs together",
        ),
        Wrong("runs not redrawn", changed(GAIN, "gains[rng.integers(S, size=S)][:, ", "gains[:, "), "redraw the runs"),
        Wrong(
            "pictures not redrawn",
            changed(GAIN, "[:, rng.integers(M, size=M)].mean()", ".mean()"),
            "pictures are not redrawn",
        ),
        Wrong(
            "other pictures for each run",
            changed(
                GAIN,
                "gains[rng.integers(S, size=S)][:, rng.integers(M, size=M)].mean()",
                "np.mean([gains[s, rng.integers(M, size=M)].mean() for s in rng.integers(S, size=S)])",
            ),
            "for all of them at once",
        ),
        Wrong(
            "runs and pictures in one pile",
            changed(
                GAIN,
                "gains[rng.integers(S, size=S)][:, rng.integers(M, size=M)].mean()",
                "rng.choice(gains.ravel(), size=S * M).mean()",
            ),
            "for all of them at once",
        ),
        Wrong("the middle 90 %", changed(GAIN, "[2.5, 97.5]", "[5, 95]"), "which percentiles"),
        Wrong("the whole range", changed(GAIN, "[2.5, 97.5]", "[0, 100]"), "too long"),
        Wrong("shares, not points", changed(GAIN, "100 * ", ""), "percentage points"),
        Wrong("before minus after", changed(GAIN, "(after - before)", "(before - after)"), "after minus before"),
        Wrong(
            "relative gain",
            changed(GAIN, "float(gains.mean()), float", "float(gains.mean() / max(before.mean(), 0.01)), float"),
            "percentage points",
        ),
        Wrong(
            "a generator of its own",
            changed(GAIN, "    S, M", "    rng = np.random.default_rng()\n    S, M"),
            "all chance comes from rng",
        ),
    ],
    "chance": [
        Wrong("one side only", changed(EXACT, "2 * tail", "tail") + HOLM, "one side only"),
        Wrong("more than 1", changed(EXACT, "min(1.0, 2 * tail)", "2 * tail") + HOLM, "no probability"),
        Wrong(
            "all pictures are coins",
            changed(
                EXACT,
                "changed = gained + lost",
                "changed, gained = len(before), int(after.sum() - before.sum()) + len(before) // 2",
            ).replace("min(gained, lost)", "min(gained, len(before) - gained)")
            + HOLM,
            "do not count",
        ),
        Wrong(
            "only this very split",
            changed(
                EXACT, "sum(comb(changed, k) for k in range(min(gained, lost) + 1))", "comb(changed, min(gained, lost))"
            )
            + HOLM,
            r"At least|\*at least\*",
        ),
        Wrong("more uneven only", changed(EXACT, "min(gained, lost) + 1", "min(gained, lost)") + HOLM, "2 of 8"),
        Wrong("direction counts", changed(EXACT, "min(gained, lost) + 1", "lost + 1") + HOLM, "change places"),
        Wrong("Bonferroni", EXACT + changed(HOLM, "(len(p_values) - place) *", "len(p_values) *"), "Bonferroni"),
        Wrong(
            "may fall again",
            EXACT
            + changed(
                HOLM,
                "max(least, min(1.0, (len(p_values) - place) * p_values[i]))",
                "min(1.0, (len(p_values) - place) * p_values[i])",
            ),
            "fell below",
        ),
        Wrong("given back sorted", EXACT + changed(HOLM, "corrected[i]", "corrected[place]"), "in the order"),
        Wrong(
            "beyond 1",
            EXACT
            + changed(HOLM, "min(1.0, (len(p_values) - place) * p_values[i])", "(len(p_values) - place) * p_values[i]"),
            "exceeds 1",
        ),
        Wrong(
            "places counted from 1",
            EXACT + changed(HOLM, "(len(p_values) - place)", "(len(p_values) - place - 1)"),
            "0.01 x 3",
        ),
        Wrong(
            "false discovery rate in place of Holm",
            EXACT
            + """
def holm(p_values):
    n, corrected, least = len(p_values), [1.0] * len(p_values), 1.0
    for place, i in reversed(list(enumerate(sorted(range(n), key=lambda i: p_values[i])))):
        least = min(least, n / (place + 1) * p_values[i])
        corrected[i] = least
    return corrected
""",
            "0.01 x 3",
        ),
    ],
    "choose": [
        Wrong(
            "chosen on the test pictures",
            changed(CHOOSE, "means = validation.mean(axis=(1, 2))", "means = test.mean(axis=(1, 2))"),
            "no say",
        ),
        Wrong("the best, without the rule", changed(CHOOSE, "means[best] - error", "means[best]"), "by the rule"),
        Wrong(
            "the first within reach, not the smallest",
            changed(CHOOSE, "), key=lambda r: rates[r])", "))"),
            "not the smallest",
        ),
        Wrong("the largest within reach", changed(CHOOSE, "chosen = min(", "chosen = max("), "not the smallest"),
        Wrong(
            "standard deviation, not error", changed(CHOOSE, " / len(of_pictures) ** 0.5", ""), r"\*mean\* is smaller"
        ),
        Wrong(
            "runs counted as pictures",
            changed(CHOOSE, "validation[best].mean(axis=0)", "validation[best].ravel()"),
            "not 320",
        ),
        Wrong("n, not n - 1", changed(CHOOSE, "ddof=1", "ddof=0"), "V - 1"),
        Wrong(
            "accuracy of the choosing pictures",
            changed(CHOOSE, "float(test[chosen].mean())", "float(validation[chosen].mean())"),
            "too good",
        ),
        Wrong(
            "accuracy of the best rate",
            changed(CHOOSE, "float(test[chosen].mean())", "float(test[best].mean())"),
            r"of the \*chosen\*",
        ),
        Wrong("the place of the rate", changed(CHOOSE, "return rates[chosen]", "return chosen"), "one of the rates"),
    ],
    "repaired": [
        Wrong("right answers sorted, too", changed(REPAIRED, "if not a.correct:", "if True:"), "only wrong answers"),
        Wrong(
            "an invalid answer is an answer",
            changed(REPAIRED, "a.answer not in ACTIVITIES", "a.answer is None"),
            "no activity",
        ),
        Wrong("the label is one of several", changed(REPAIRED, "best == (a.label,)", "a.label in best"), r"\*alone\*"),
        Wrong(
            "the reasoning first, then silence",
            changed(
                REPAIRED, "if a.answer not in ACTIVITIES:", "if a.answer not in ACTIVITIES and best != (a.label,):"
            ),
            "silent: e and f",
        ),
        Wrong(
            "misled by the first activity only",
            changed(REPAIRED, "a.answer in best", "a.answer == (best or ('',))[0]"),
            "misled: c and d",
        ),
        Wrong(
            "paired by place",
            changed(
                changed(REPAIRED, "for a in before:", "for a, now in zip(before, after):"),
                "right[a.source]",
                "now.correct",
            ),
            "`source`",
        ),
        Wrong(
            "still wrong, not repaired",
            changed(REPAIRED, "mended + right[a.source]", "mended + (not right[a.source])"),
            "are right after",
        ),
        Wrong(
            "kinds of the responses after",
            changed(REPAIRED, "    for a in before:", "    for a in after:"),
            "silent: e and f",
        ),
        Wrong(
            "share, not number",
            changed(
                REPAIRED,
                "    return counts",
                "    return {name: (n, k / max(n, 1)) for name, (n, k) in counts.items()}",
            ),
            "how many of the wrong",
        ),
        Wrong(
            "kinds that do not occur left out",
            changed(
                REPAIRED, "    return counts", "    return {name: (n, k) for name, (n, k) in counts.items() if n != k}"
            ),
            "occur or not",
        ),
    ],
    "occlusion-map": [
        Wrong("view minus whole", changed(MAP, "whole - score(view)", "score(view) - whole"), "whole minus view"),
        Wrong("the picture itself is covered", changed(MAP, "picture.copy()", "picture"), "cover a copy"),
        Wrong(
            "views on top of each other",
            changed(
                changed(MAP, "            view = picture.copy()\n", ""),
                "    for top in tops:",
                "    view = picture.copy()\n    for top in tops:",
            ),
            "fresh copy",
        ),
        Wrong("covered in black", changed(MAP, "picture.mean(axis=(0, 1))", "0.0"), "mean colour"),
        Wrong("covered in one grey", changed(MAP, "picture.mean(axis=(0, 1))", "picture.mean()"), "channel by channel"),
        Wrong(
            "no window at the edge",
            changed(
                changed(MAP, "[*range(0, n - window, stride), n - window]", "range(0, n - window + 1, stride)"),
                "total / count",
                "total / np.maximum(count, 1)",
            ),
            "lies at the edge",
        ),
        Wrong(
            "a window that hangs over the edge",
            changed(MAP, "[*range(0, n - window, stride), n - window]", "range(0, n, stride)"),
            "begins at 5",
        ),
        Wrong("sum of the drops", changed(MAP, "total / count", "total"), "not a sum"),
        Wrong(
            "largest drop",
            changed(
                changed(
                    MAP,
                    "total[place] += whole - score(view)",
                    "total[place] = np.maximum(total[place], whole - score(view))",
                ),
                "total / count",
                "total",
            ),
            "three windows",
        ),
        Wrong("height and width mixed up", changed(MAP, "height, width, _", "width, height, _"), "here 4 x 7"),
        Wrong(
            "one row and column too many",
            changed(
                MAP,
                "np.s_[top : top + window, left : left + window]",
                "np.s_[top : top + window + 1, left : left + window + 1]",
            ),
            r"hides \*one\* window",
        ),
        Wrong("divided by all windows", changed(MAP, "total / count", "total / count.max()"), "one window only"),
    ],
    "effects": [
        Wrong(
            "controls anywhere",
            changed(EFFECTS, "sample(beside, min(controls, len(beside)))", "sample(places, controls)"),
            "shares patches",
        ),
        Wrong(
            "controls of one patch",
            changed(EFFECTS, "*drawn]", "*((x, y, x + 1, y + 1) for x, y, _, _ in drawn)]"),
            "as wide and high",
        ),
        Wrong(
            "width and height mixed up",
            changed(EFFECTS, "*drawn]", "*((x, y, x + high, y + wide) for x, y, _, _ in drawn)]"),
            "as wide and high",
        ),
        Wrong(
            "beyond the grid",
            changed(
                EFFECTS, "for y in range(11 - high) for x in range(11 - wide)", "for y in range(10) for x in range(10)"
            ),
            "leaves the grid",
        ),
        Wrong(
            "last places forgotten",
            changed(
                EFFECTS, "range(11 - high) for x in range(11 - wide)", "range(10 - high) for x in range(10 - wide)"
            ),
            "only six fit",
        ),
        Wrong(
            "the same control more than once",
            changed(EFFECTS, "sample(beside, min(controls, len(beside)))", "choices(beside, k=controls)"),
            r"\*different\*",
        ),
        Wrong(
            "the first places, not random ones",
            changed(EFFECTS, 'Random(f"{seed} {m}").sample(beside, min(controls, len(beside)))', "beside[:controls]"),
            "at random",
        ),
        Wrong("seed not used", changed(EFFECTS, 'Random(f"{seed} {m}")', "Random()"), "the same seed"),
        Wrong(
            "the global generator",
            changed(
                EFFECTS,
                '        drawn = Random(f"{seed} {m}").sample',
                '        random.seed(f"{seed} {m}")\n        drawn = random.sample',
            ),
            "global generator",
        ),
        Wrong(
            "the region counted as a control", changed(EFFECTS, "np.mean(drops[1:])", "np.mean(drops)"), r"\*controls\*"
        ),
        Wrong("the worst control", changed(EFFECTS, "np.mean(drops[1:])", "np.max(drops[1:])"), r"\*controls\*"),
        Wrong(
            "controls minus the region",
            changed(EFFECTS, "drops[0] - np.mean(drops[1:])", "np.mean(drops[1:]) - drops[0]"),
            r"\*controls\*",
        ),
        Wrong("one number for all", changed(EFFECTS, "np.array(results)", "np.mean(results)"), "one effect for each"),
    ],
}
