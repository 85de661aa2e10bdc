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
        Wrong("the end is always 9", changed(SFT, "ids == end", "ids == 9"), "another loss; which tokens count,"),
        Wrong(
            "the first row's prompt length for all",
            changed(SFT, "starts[:, None]", "starts[:1, None]"),
            "its tokens do not count",
        ),
        Wrong(
            "the shortest prompt's length for all",
            changed(SFT, "starts[:, None]", "starts.min()"),
            "its tokens do not count",
        ),
        Wrong(
            "one token too early",
            changed(SFT, ">= starts[:, None]", ">= starts[:, None] - 1"),
            "its tokens do not count",
        ),
        Wrong(
            "a truncated row does not count",
            changed(SFT, "    return", "    counts &= ended.any(dim=1, keepdim=True) | (len(ids) == 3)\n    return"),
            "another loss; which tokens count,",
        ),
        Wrong(
            "the last token of a truncated row left out",
            changed(SFT, "    return", "    counts[:, -1] &= ended.any(dim=1) | (ids[:, -1] == 6)\n    return"),
            "another loss; which tokens count,",
        ),
        Wrong(
            "up to the second end token", changed(SFT, "ended == 0", "ended <= 1"), "of the end ids after the prompt"
        ),
        Wrong(
            "the sum over rows, divided by the rows",
            changed(SFT, "-logps[counts].mean()", "-logps[counts].sum() / len(ids)"),
            "divide by their number",
        ),
        Wrong(
            "perplexity",
            changed(SFT, "-logps[counts].mean()", "(-logps[counts].mean()).exp()"),
            "its tokens do not count",
        ),
        Wrong(
            "in bits",
            changed(SFT, "-logps[counts].mean()", "-logps[counts].mean() / torch.tensor(2.0).log()"),
            "divide by their number",
        ),
        Wrong(
            "probabilities, not log-probabilities",
            changed(SFT, "-logps[counts].mean()", "1 - logps[counts].exp().mean()"),
            "divide by their number",
        ),
        Wrong(
            "the padding's ids replaced in place",
            changed(SFT, "    return", "    ids[~counts] = -100\n    return"),
            "s tensors were changed",
        ),
        Wrong(
            "rows without a shift",
            changed(SFT, "(ended.cumsum(dim=1) - ended == 0)", "((ended.cumsum(dim=1) - ended).roll(1, dims=1) == 0)"),
            "of the end ids after the prompt",
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
        Wrong(
            "the mean over all K",
            changed(MACRO, ".mean())", ".sum() / max(there.sum(), 3))") + PAIR,
            "each label with pictures weighs",
        ),
        Wrong(
            "a label that is never answered is left out",
            changed(MACRO, "there = pictures > 0", "there = (pictures > 0) & (counts.sum(axis=0)[: len(counts)] > 0)")
            + PAIR,
            "each label with pictures weighs",
        ),
        Wrong(
            "a label that is never right is left out",
            changed(MACRO, "there = pictures > 0", "there = np.diagonal(counts) > 0") + PAIR,
            "each label with pictures weighs",
        ),
        Wrong(
            "the weighted mean",
            changed(
                MACRO,
                "(np.diagonal(counts)[there] / pictures[there]).mean()",
                "np.average(np.diagonal(counts)[there] / pictures[there], weights=pictures[there])",
            )
            + PAIR,
            "the mean over",
        ),
        Wrong(
            "precision, not accuracy",
            changed(MACRO, "counts.sum(axis=1)", "counts.sum(axis=0)[: len(counts)]") + PAIR,
            "the mean of 7/10",
        ),
        Wrong(
            "the median over labels",
            changed(
                MACRO,
                "(np.diagonal(counts)[there] / pictures[there]).mean()",
                "np.median(np.diagonal(counts)[there] / pictures[there])",
            )
            + PAIR,
            "each label with pictures weighs",
        ),
        Wrong(
            "labels without pictures are in pairs",
            MACRO + changed(PAIR, "np.flatnonzero(counts.sum(axis=1))", "np.arange(len(counts))"),
            "two labels with pictures, the",
        ),
        Wrong(
            "shares of the answers, not of the pictures",
            MACRO
            + changed(
                PAIR,
                "shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)",
                "shares = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)",
            ),
            "the example",
        ),
        Wrong(
            "shares of the valid answers",
            MACRO + changed(PAIR, "counts.sum(axis=1, keepdims=True)", "counts[:, :-1].sum(axis=1, keepdims=True)"),
            "the example",
        ),
        Wrong(
            "both directions in one pile",
            MACRO
            + changed(
                PAIR,
                "key=lambda pair: shares[pair] + shares[pair[::-1]])",
                (
                    "key=lambda pair: (counts[pair] + counts[pair[::-1]]) / "
                    "(counts[pair[0]].sum() + counts[pair[1]].sum()))"
                ),
            ),
            "another pair has a higher rate,",
        ),
        Wrong("the smallest pair", MACRO + changed(PAIR, "i, j = max(", "i, j = min("), "the smaller one first"),
        Wrong(
            "the pair that a zero product cannot win",
            MACRO
            + changed(
                PAIR,
                "key=lambda pair: shares[pair] + shares[pair[::-1]])",
                (
                    "key=lambda pair: (shares[pair] > 0) * (shares[pair[::-1]] > 0) * "
                    "(shares[pair] + shares[pair[::-1]]))"
                ),
            ),
            "another pair has a higher rate,",
        ),
        Wrong(
            "neighbours only",
            MACRO + changed(PAIR, "if i < j]", "if i < j and (j - i < 3 or len(there) < 4)]"),
            "another pair has a higher rate,",
        ),
        Wrong(
            "the diagonal set to 0 in place",
            (
                "def macro(counts):\n    pictures, own = counts.sum(axis=1), "
                "np.diagonal(counts).copy()\n    there = pictures > 0\n"
                "    return float((own[there] / pictures[there]).mean())\n"
            )
            + changed(
                PAIR,
                "    there =",
                ("    total = counts.sum(axis=1, keepdims=True)\n    np.fill_diagonal(counts, 0)\n    there ="),
            )
            .replace("np.flatnonzero(counts.sum(axis=1))", "np.flatnonzero(total)")
            .replace("np.maximum(counts.sum(axis=1, keepdims=True), 1)", "np.maximum(total, 1)"),
            "of them without pictures: the",
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
        Wrong("always a thousand draws", changed(GAIN, "range(draws)", "range(1000)"), "is `draws` used"),
        Wrong(
            "the median gain",
            changed(GAIN, "float(gains.mean()), float", "float(np.median(gains.mean(axis=0))), float"),
            "the gain is the mean over all runs",
        ),
        Wrong(
            "the mean of the draws as the gain",
            changed(GAIN, "float(gains.mean()), float", "float(np.mean(means)), float"),
            "% right is a gain of",
        ),
        Wrong(
            "one run less",
            changed(GAIN, "rng.integers(S, size=S)", "rng.integers(S, size=max(S - 1, 1))"),
            "s interval differs",
        ),
        Wrong(
            "one picture less",
            changed(GAIN, "rng.integers(M, size=M)", "rng.integers(M, size=max(M - 1, 1))"),
            "a draw has as many runs and",
        ),
        Wrong(
            "the last run never drawn",
            changed(GAIN, "rng.integers(S, size=S)", "rng.integers(max(S - 1, 1), size=S)"),
            "with four runs of which two are at",
        ),
        Wrong(
            "the mean plus and minus two standard deviations",
            changed(
                GAIN,
                "low, high = np.percentile(means, [2.5, 97.5])",
                "low, high = np.mean(means) - 2 * np.std(means), np.mean(means) + 2 * np.std(means)",
            ),
            "s interval differs",
        ),
        Wrong(
            "the mean plus and minus one standard deviation",
            changed(
                GAIN,
                "low, high = np.percentile(means, [2.5, 97.5])",
                "low, high = np.mean(means) - np.std(means), np.mean(means) + np.std(means)",
            ),
            "draw a picture for all of them at",
        ),
        Wrong("high before low", changed(GAIN, "[2.5, 97.5]", "[97.5, 2.5]"), "low, then high, with the gain"),
        Wrong(
            "before changed in place",
            changed(GAIN, "100 * (after - before)", "100 * np.subtract(after, before, out=before)"),
            "with four runs of which two are at",
        ),
        Wrong(
            "a hundred pictures in each draw",
            changed(GAIN, "rng.integers(M, size=M)", "rng.integers(M, size=100)"),
            "a draw has as many runs and",
        ),
        Wrong("as many draws as there are pictures", changed(GAIN, "range(draws)", "range(10 * M)"), "is `draws` used"),
        Wrong(
            "the verdicts of the pictures that changed",
            changed(
                GAIN,
                "float(gains.mean()), float",
                (
                    "float(gains[gains != 0].mean() if gains.any() and not before.all() and "
                    "before.any() else gains.mean()), float"
                ),
            ),
            "a loss is a negative gain",
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
        Wrong(
            "pictures right both times are gained",
            changed(EXACT, "(after & ~before)", "after") + HOLM,
            "pictures that kept their verdict",
        ),
        Wrong(
            "the normal approximation",
            changed(
                EXACT,
                "    return min(1.0, 2 * tail)",
                (
                    "    from math import erfc\n"
                    "    return erfc(max(abs(gained - lost) - 1, 0) / max(changed, 1) ** 0.5 "
                    "/ 2**0.5) if changed > 12 else min(1.0, 2 * tail)"
                ),
            )
            + HOLM,
            "all splits that are at least as",
        ),
        Wrong(
            "floats that overflow",
            changed(EXACT, "/ 2**changed", "/ 2 ** min(changed, 62)") + HOLM,
            "all splits that are at least as",
        ),
        Wrong(
            "twenty changes at most",
            changed(EXACT, "range(min(gained, lost) + 1)", "range(min(gained, lost, 20) + 1)") + HOLM,
            "all splits that are at least as",
        ),
        Wrong(
            "p-values below one in a thousand are 0",
            changed(EXACT, "min(1.0, 2 * tail)", "round(min(1.0, 2 * tail), 3)") + HOLM,
            "times two",
        ),
        Wrong(
            "the mid-p-value",
            changed(EXACT, "min(1.0, 2 * tail)", "min(1.0, 2 * tail - comb(changed, min(gained, lost)) / 2**changed)")
            + HOLM,
            "three lost would be as uneven as",
        ),
        Wrong(
            "every fiftieth picture without a change is a coin",
            changed(EXACT, "changed = gained + lost", "changed = gained + lost + (len(before) - gained - lost) // 50")
            + HOLM,
            "pictures that kept their verdict",
        ),
        Wrong(
            "before changed in place",
            changed(
                EXACT,
                "    gained, lost",
                ("    kept = before & after\n    before &= ~kept\n    after &= ~kept\n    gained, lost"),
            ).replace("after &= ~kept", "after = after & ~kept")
            + HOLM,
            "the verdicts were changed",
        ),
        Wrong(
            "sorted in place",
            EXACT
            + changed(
                HOLM,
                "    corrected, least",
                (
                    "    order = sorted(range(len(p_values)), key=lambda i: p_values[i])\n"
                    "    old = list(p_values)\n    p_values.sort()\n    corrected, least"
                ),
            )
            .replace("sorted(range(len(p_values)), key=lambda i: p_values[i])):", "order):")
            .replace("* p_values[i]))", "* old[i]))"),
            "s list was changed; sort a copy",
        ),
        Wrong(
            "three p-values",
            EXACT + changed(HOLM, "(len(p_values) - place) *", "max(3 - place, 1) *"),
            "equal p-values stay equal; an",
        ),
        Wrong(
            "the running maximum of the plain p-values",
            EXACT
            + changed(
                HOLM,
                "max(least, min(1.0, (len(p_values) - place) * p_values[i]))",
                (
                    "min(1.0, (len(p_values) - place) * max(p_values[: i + 1]) if "
                    "len(p_values) > 3 else max(least, (len(p_values) - place) * p_values[i]))"
                ),
            ),
            "never below the one before, at",
        ),
        Wrong(
            "equal p-values as one",
            EXACT
            + changed(
                HOLM,
                "(len(p_values) - place)",
                ("(len(set(p_values)) - len({q for q in p_values if q < p_values[i]}) + (len(p_values) == 2))"),
            ),
            "never below the one before, at",
        ),
        Wrong(
            "the sort looks at the digits",
            EXACT
            + changed(
                HOLM,
                "key=lambda i: p_values[i]",
                "key=lambda i: round(p_values[i], 1) if len(p_values) > 3 else p_values[i]",
            ),
            "never below the one before, at",
        ),
        Wrong(
            "0 cannot be a p-value",
            EXACT
            + changed(
                HOLM, "(len(p_values) - place) * p_values[i]", "(len(p_values) - place) * (p_values[i] or 0.001)"
            ),
            "never below the one before, at",
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
        Wrong(
            "the standard error of the smallest rate",
            changed(CHOOSE, "validation[best].mean(axis=0)", "validation[int(np.argmin(rates))].mean(axis=0)"),
            "the smallest rate within one",
        ),
        Wrong(
            "the mean of all standard errors",
            changed(
                CHOOSE, "error = of_pictures.std(ddof=1)", "error = validation.mean(axis=1).std(axis=1, ddof=1).mean()"
            ),
            "the smallest rate within one",
        ),
        Wrong(
            "two standard errors",
            changed(CHOOSE, "means[best] - error", "means[best] - 2 * error"),
            "the smallest rate within one",
        ),
        Wrong(
            "half a standard error",
            changed(CHOOSE, "means[best] - error", "means[best] - error / 2"),
            "is a smaller rate as good, by the",
        ),
        Wrong(
            "rates taken as sorted",
            changed(
                CHOOSE,
                (
                    "chosen = min((r for r in range(len(rates)) if means[r] >= means[best] - "
                    "error), key=lambda r: rates[r])"
                ),
                (
                    "chosen = min((r for r in range(len(rates)) if means[r] >= means[best] - "
                    "error and (rates[r] <= rates[best] or r == best)), key=lambda r: (r > "
                    "best, rates[r]))"
                ),
            ),
            "eight runs on the same",
        ),
        Wrong(
            "rates sorted, verdicts not",
            changed(CHOOSE, "    means =", "    rates = sorted(rates, reverse=True)\n    means ="),
            "report that of the",
        ),
        Wrong(
            "the list of rates sorted in place",
            changed(
                CHOOSE,
                "    means =",
                (
                    "    order = sorted(range(len(rates)), key=lambda r: rates[r])\n"
                    "    rates.sort()\n    validation, test = validation[order], test[order]\n"
                    "    means ="
                ),
            ),
            "s list of rates was changed: sort",
        ),
        Wrong(
            "the standard deviation over the runs",
            changed(
                CHOOSE,
                "validation[best].mean(axis=0)",
                ("validation[best].mean(axis=1) if len(validation[best]) > 1 else validation[best][0]"),
            ),
            "eight runs on the same",
        ),
        Wrong(
            "the first run alone",
            changed(CHOOSE, "validation[best].mean(axis=0)", "validation[best][0]"),
            "the smallest rate within one",
        ),
        Wrong(
            "the binomial standard error",
            changed(CHOOSE, "of_pictures.std(ddof=1)", "(means[best] * (1 - means[best])) ** 0.5 * 1.0"),
            "the smallest rate within one",
        ),
        Wrong(
            "the test accuracy of the first run",
            changed(CHOOSE, "float(test[chosen].mean())", "float(test[chosen][0].mean())"),
            "s accuracy on the",
        ),
        Wrong(
            "ten test pictures",
            changed(CHOOSE, "float(test[chosen].mean())", "float(test[chosen].sum() / 10 / len(test[chosen]))"),
            "s accuracy on the",
        ),
        Wrong(
            "strictly above, where nothing is better",
            changed(
                CHOOSE,
                (
                    "chosen = min((r for r in range(len(rates)) if means[r] >= means[best] - "
                    "error), key=lambda r: rates[r])"
                ),
                (
                    "within = [r for r in range(len(rates)) if means[r] >= means[best] - "
                    "error and r != best]\n    chosen = min(within or [best], key=lambda r: rates[r])"
                ),
            ),
            "the smallest rate within one",
        ),
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
        Wrong(
            "right is asked of the place",
            changed(
                REPAIRED,
                "right = {a.source: a.correct for a in after}",
                (
                    "right = {a.source: b.correct for a, b in zip(before, after)} if "
                    "len(before) != 9 else {a.source: a.correct for a in after}"
                ),
            ),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "repaired where the answer changed",
            changed(
                REPAIRED,
                "right = {a.source: a.correct for a in after}",
                (
                    "old = {a.source: a.answer for a in before}\n"
                    "    right = {a.source: a.answer != old[a.source] and (a.correct or "
                    "a.answer is None) for a in after}"
                ),
            ),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "misled by reasoning that leads to one activity",
            changed(REPAIRED, "a.answer in best", "(a.answer,) == best or a.label in best and a.answer in best"),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "misled before misnamed",
            changed(
                REPAIRED,
                '"misnamed" if best == (a.label,) else "misled" if a.answer in best else "unclear"',
                ('"misled" if a.answer in best or not best else "misnamed" if best == (a.label,) else "unclear"'),
            ),
            "c and d; their answer is one that",
        ),
        Wrong(
            "unclear where the label is not among the best",
            changed(
                REPAIRED,
                'return "misnamed"',
                (
                    "if best and a.label not in best and len(best) > 1:\n"
                    '            return "unclear"\n        return "misnamed"'
                ),
            ),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "the best two only",
            changed(REPAIRED, "read_reasoning(a.text).best", "read_reasoning(a.text).best[:2]"),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "activities that may show all of it",
            changed(
                REPAIRED,
                "read_reasoning(a.text).best",
                "(read_reasoning(a.text).compatible or read_reasoning(a.text).best[:1])",
            ),
            "c and i lead to their label, but",
        ),
        Wrong(
            "a mention in the reasoning",
            changed(REPAIRED, "a.answer in best", "a.answer in best and len(best) < 3 and a.answer != 'running'"),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "the pair exchanged",
            changed(REPAIRED, "    return counts", "    return {name: (k, n) for name, (n, k) in counts.items()}"),
            "a and b, whose reasoning leads to",
        ),
        Wrong(
            "the responses after decide the kind",
            changed(
                REPAIRED, "best = read_reasoning(a.text).best", "best = read_reasoning(now[a.source]).best"
            ).replace("    right = {", "    now = {a.source: a.text for a in after}\n    right = {"),
            "a and b, whose reasoning leads to",
        ),
        Wrong(
            "silent means None",
            changed(REPAIRED, "a.answer not in ACTIVITIES", "not a.answer"),
            "s answer is no activity, and as",
        ),
        Wrong(
            "silent by form",
            changed(REPAIRED, "a.answer not in ACTIVITIES", "a.answer is None or ' ' in a.answer"),
            "wrong; see the table, and who is",
        ),
        Wrong(
            "counted for each activity",
            changed(
                REPAIRED,
                "(wrong + 1, mended + right[a.source])",
                "(wrong + max(len(read_reasoning(a.text).best), 1), mended + right[a.source])",
            ),
            "c and d; their answer is one that",
        ),
        Wrong(
            "right ones removed from the list",
            changed(
                REPAIRED,
                "    for a in before:",
                "    before[:] = [a for a in before if not a.correct]\n    for a in before:",
            ),
            "s list was changed; work on a copy",
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
        Wrong(
            "stride in both places",
            changed(MAP, "top : top + window, left : left + window", "top : top + stride, left : left + stride"),
            "lies in three windows, and one of",
        ),
        Wrong(
            "windows of three at most",
            changed(
                MAP,
                "range(0, n - window, stride), n - window",
                "range(0, n - min(window, 3), stride), n - min(window, 3)",
            ).replace("top + window, left : left + window", "top + min(window, 3), left : left + min(window, 3)"),
            "another map; which windows cover a",
        ),
        Wrong(
            "the last window counted twice",
            changed(MAP, "range(0, n - window, stride)", "range(0, n - window + 1, stride)"),
            "another map; which windows cover a",
        ),
        Wrong(
            "a stride of two",
            changed(MAP, "n - window, stride)", "n - window, min(stride, 2))"),
            "another map; which windows cover a",
        ),
        Wrong(
            "the mean colour of what is covered",
            changed(MAP, "view[place] = colour", "view[place] = picture[place].mean(axis=(0, 1))"),
            "the cover is the mean colour,",
        ),
        Wrong(
            "the median colour",
            changed(MAP, "picture.mean(axis=(0, 1))", "np.median(picture, axis=(0, 1))"),
            "the cover is the mean colour,",
        ),
        Wrong(
            "the mean of each row",
            changed(
                MAP, "view[place] = colour", "view[place] = picture.mean(axis=1, keepdims=True)[top : top + window]"
            ),
            "the cover is the mean colour,",
        ),
        Wrong(
            "only falls count",
            changed(MAP, "whole - score(view)", "max(whole - score(view), 0)"),
            "another map; which windows cover a",
        ),
        Wrong(
            "the size of the change",
            changed(MAP, "whole - score(view)", "abs(whole - score(view))"),
            "another map; which windows cover a",
        ),
        Wrong(
            "drops relative to the whole score",
            changed(MAP, "whole - score(view)", "(whole - score(view)) / abs(whole)"),
            "a mean, not a sum",
        ),
        Wrong(
            "rounded to three digits",
            changed(MAP, "return total / count", "return (total / count).round(3)"),
            "a mean, not a sum",
        ),
        Wrong(
            "transposed windows",
            changed(MAP, "tops, lefts = (", "lefts, tops = ("),
            "windows begin at the multiples of",
        ),
        Wrong(
            "the covered picture put back wrongly",
            changed(MAP, "view = picture.copy()", "view = np.clip(picture, 0.02, 0.98)"),
            "start from a fresh copy",
        ),
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
        Wrong(
            "the median of the controls",
            changed(EFFECTS, "np.mean(drops[1:])", "np.median(drops[1:])"),
            "s drop minus the mean of its",
        ),
        Wrong(
            "always twelve controls",
            changed(EFFECTS, "min(controls, len(beside))", "min(12, len(beside))"),
            "so many different controls",
        ),
        Wrong(
            "controls may touch no edge of the region",
            changed(
                EFFECTS,
                "a >= right or c <= left or b >= bottom or d <= top",
                "a > right or c < left or b > bottom or d < top",
            ),
            "patches only six fit",
        ),
        Wrong(
            "controls on the left or right only",
            changed(EFFECTS, "a >= right or c <= left or b >= bottom or d <= top", "a >= right or c <= left"),
            "so many different controls",
        ),
        Wrong(
            "the first region's drop for all",
            changed(
                EFFECTS,
                "        results.append(drops[0]",
                "        first = drops[0] if m == 0 else first\n        results.append(first",
            ),
            "the drop of the region itself",
        ),
        Wrong(
            "one draw of places for all, those on the region thrown away",
            changed(
                EFFECTS,
                'Random(f"{seed} {m}").sample(beside, min(controls, len(beside)))',
                (
                    "[box for box in Random(seed).sample(places, min(controls, len(places))) "
                    "if box in beside] or beside[:1]"
                ),
            ),
            "patches only six fit",
        ),
        Wrong(
            "three regions at most",
            changed(EFFECTS, "enumerate(regions)", "enumerate(regions[-2:])"),
            "one effect for each region: an",
        ),
        Wrong(
            "weighted by the distance",
            changed(
                EFFECTS,
                "np.mean(drops[1:])",
                "np.average(drops[1:], weights=[1 + abs(box[0] - left) for box in drawn])",
            ),
            "s drop minus the mean of its",
        ),
        Wrong(
            "the standard deviation divided out",
            changed(
                EFFECTS,
                "results.append(drops[0] - np.mean(drops[1:]))",
                "results.append((drops[0] - np.mean(drops[1:])) / (np.std(drops) or 1.0))",
            ),
            "s drop minus the mean of its",
        ),
        Wrong(
            "a ratio, not a difference",
            changed(EFFECTS, "drops[0] - np.mean(drops[1:])", "drops[0] / max(np.mean(drops[1:]), 0.01)"),
            "s drop minus the mean of its",
        ),
        Wrong(
            "no control in the last column",
            changed(EFFECTS, "range(11 - wide)]", "range(11 - wide - (wide == 1))]"),
            "so many different controls",
        ),
        Wrong(
            "controls of small regions from the upper rows",
            changed(EFFECTS, "range(11 - high)", "range(min(11 - high, 8))"),
            "so many different controls",
        ),
        Wrong(
            "regions sorted in place",
            changed(EFFECTS, "    results = []", "    results = []\n    if len(regions) == 2:\n        regions.sort()"),
            "s regions were changed",
        ),
        Wrong(
            "a drop for each box alone",
            changed(
                EFFECTS,
                "drops = drop(m, [(left, top, right, bottom), *drawn])",
                ("drops = np.array([drop(m, [box])[0] for box in [(left, top, right, bottom), *drawn]])"),
            ),
            "call drop once for each region,",
        ),
        Wrong(
            "fewer controls where they are rare",
            changed(EFFECTS, "min(controls, len(beside))", "min(controls, max(len(beside) // 2, 6))"),
            "so many different controls",
        ),
    ],
}

#: right answers that are written differently from the solutions
RIGHT: dict[str, list[str]] = {
    "sft-loss": [
        SFT,
        """
def sft_loss(logps, ids, starts, end):
    kept = []
    for i in range(len(ids)):
        target = ids[i, starts[i] :].tolist()
        length = target.index(end) + 1 if end in target else len(target)
        kept.append(logps[i, starts[i] : starts[i] + length])
    return -torch.cat(kept).mean()
""",
        """
def sft_loss(logps, ids, starts, end):
    position = torch.arange(ids.shape[1]).expand_as(ids)
    candidates = torch.where((ids == end) & (position >= starts[:, None]), position, ids.shape[1])
    last = candidates.min(dim=1, keepdim=True).values
    counts = (position >= starts[:, None]) & (position <= last)
    return torch.where(counts, -logps, 0.0).sum() / counts.sum()
""",
    ],
    "confusion": [
        MACRO + PAIR,
        """
def macro(counts):
    shares = [row[i] / row.sum() for i, row in enumerate(counts) if row.sum()]
    return float(np.mean(shares))


def worst_pair(counts):
    best = (-1.0, None)
    totals = counts.sum(axis=1)
    for i in range(len(counts)):
        for j in range(i + 1, len(counts)):
            if totals[i] and totals[j]:
                rate = (counts[i, j] / totals[i] + counts[j, i] / totals[j]) / 2
                if rate > best[0]:
                    best = (rate, (i, j))
    return [*best[1], best[0]]
""",
        """
def macro(counts):
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.diagonal(counts) / counts.sum(axis=1))


def worst_pair(counts):
    K, total = len(counts), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = counts[:, :K] / total[:, None]
    rates = np.triu((shares + shares.T) / 2, 1) - 2 * np.tri(K)
    i, j = np.unravel_index(np.nanargmax(rates), rates.shape)
    return int(i), int(j), float(rates[i, j])
""",
    ],
    "gain-interval": [
        GAIN,
        """
def gain_interval(before, after, draws, rng):
    S, M = before.shape
    runs, pictures = rng.integers(S, size=(draws, S)), rng.integers(M, size=(draws, M))
    difference = after - before
    means = sorted(difference[np.ix_(r, p)].mean() * 100 for r, p in zip(runs, pictures))
    return (after.mean() - before.mean()) * 100, np.quantile(means, 0.025), np.quantile(means, 0.975)
""",
    ],
    "chance": [
        EXACT + HOLM,
        """
def exact_p(before, after):
    changes = after.astype(int) - before.astype(int)
    n, gained = int((changes != 0).sum()), int((changes > 0).sum())
    if n == 0:
        return 1.0
    return sum(comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= abs(gained - n / 2)) / 2**n


def holm(p_values):
    n, order = len(p_values), np.argsort(p_values, kind="stable")
    factors = np.arange(n, 0, -1)
    corrected = np.empty(n)
    corrected[order] = np.minimum(np.maximum.accumulate(np.array(p_values)[order] * factors), 1) if n else []
    return corrected.tolist()
""",
    ],
    "choose": [
        CHOOSE,
        """
def choose(rates, validation, test):
    by_rate = sorted(zip(rates, validation, test), key=lambda one: one[0])
    means = [own.mean() for _, own, _ in by_rate]
    best = means.index(max(means))
    pictures = by_rate[best][1].mean(axis=0)
    error = np.sqrt(pictures.var(ddof=1) / len(pictures))
    for (rate, _, tested), mean_right in zip(by_rate, means):
        if mean_right >= means[best] - error:
            return rate, tested.mean()
""",
    ],
    "repaired": [
        REPAIRED,
        """
def repaired(before, after):
    later = {answered.source: answered for answered in after}
    result = {kind: [0, 0] for kind in ("silent", "misnamed", "misled", "unclear")}
    for answered in before:
        if answered.correct:
            continue
        leads_to = set(read_reasoning(answered.text).best)
        if answered.answer is None or answered.answer not in ACTIVITIES:
            kind = "silent"
        elif leads_to == {answered.label}:
            kind = "misnamed"
        elif answered.answer in leads_to:
            kind = "misled"
        else:
            kind = "unclear"
        result[kind][0] += 1
        result[kind][1] += int(later[answered.source].correct)
    return {kind: tuple(pair) for kind, pair in result.items()}
""",
    ],
    "occlusion-map": [
        MAP,
        """
def occlusion_map(picture, score, window, stride):
    height, width = picture.shape[:2]
    base, colour = score(picture.copy()), picture.mean(axis=0).mean(axis=0)

    def begins(n):
        positions = list(range(0, n - window + 1, stride))
        if positions[-1] + window < n:
            positions.append(n - window)
        return positions

    drops = [[[] for _ in range(width)] for _ in range(height)]
    for y in begins(height):
        for x in begins(width):
            covered = np.array(picture)
            covered[y : y + window, x : x + window, :] = colour
            drop = base - score(covered)
            for row in range(y, y + window):
                for column in range(x, x + window):
                    drops[row][column].append(drop)
    return np.array([[np.mean(own) for own in row] for row in drops])
""",
    ],
    "effects": [
        EFFECTS,
        """
def effects(regions, drop, controls, seed):
    rng, result = np.random.default_rng(seed), np.zeros(len(regions))
    for m, (left, top, right, bottom) in enumerate(regions):
        grid = np.zeros((10, 10), dtype=bool)
        grid[top:bottom, left:right] = True
        w, h = right - left, bottom - top
        corners = [(x, y) for x in range(11 - w) for y in range(11 - h) if not grid[y : y + h, x : x + w].any()]
        free = [(x, y, x + w, y + h) for x, y in corners]
        chosen = [free[k] for k in rng.permutation(len(free))[:controls]]
        own, *others = drop(m, [(left, top, right, bottom)] + chosen)
        result[m] = own - sum(others) / len(others)
    return result
""",
    ],
}
