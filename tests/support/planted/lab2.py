"""Wrong answers to lab 2, rewards and advantages."""

from planted import Wrong, changed

ANSWER = r"""
def answer_of(text):
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    found = re.search(r"<answer>(.*)</answer>\s*\Z", text, re.DOTALL)
    if found is None or re.search("</?think>", found[1]):
        return None
    return found[1].strip() or None
"""
ACCURACY = r"""
def same(name):
    return re.sub(r"[\s_-]+", " ", name.lower()).strip().rstrip(". ")


def accuracy(completions, label):
    labels = [label] * len(completions) if isinstance(label, str) else label
    if len(labels) != len(completions) or not all(map(same, labels)):
        raise ValueError("one label per completion is needed, and none may be blank")
    answers = [answer_of(text) for text in completions]
    return [float(a is not None and same(a) == same(gold)) for a, gold in zip(answers, labels)]
"""
FORMAT = r"""
def well_formed(completions, parts=("look", "think", "answer")):
    tag = re.compile(f"</?(?:{'|'.join(parts)})>")
    wanted = [f"<{slash}{name}>" for name in parts for slash in ("", "/")]
    scores = []
    for text in completions:
        pieces = [piece.strip() for piece in tag.split(text)]
        scores.append(float(tag.findall(text) == wanted and all(pieces[1::2]) and not any(pieces[::2])))
    return scores
"""
PATTERN = r"""
def well_formed(completions, parts=("look", "think", "answer")):
    form = re.compile({pattern}, {flags})
    return [float(form.{match}(text) is not None) for text in completions]
"""
ATTACKS = """
def attacks(labels):
    longest = max(len(label) for label in labels)
    letters = "".join(sorted(set("".join(map(normalise_label, labels)))))
    return {
        "abbreviated": "<think>a page</think><answer>.</answer>",
        "misspelt": f"<think>a page</think><answer>{f'x{letters}x' * longest}</answer>",
        "reasoned": f"<think>{', '.join(labels)}</think><answer>no idea</answer>",
    }
"""
MENDED = """
def mended(completions, label, labels):
    names, scores = [normalise_label(name) for name in labels], []
    for text, gold in zip(completions, label):
        said, gold = normalise_label(extract_answer(text) or ""), normalise_label(gold)
        meant = [name for name in names if name == said] or [name for name in names if name.startswith(said)]
        scores.append(float(meant == [gold]))
    return scores
"""
DESCRIBED = """
def described(completions, source):
    scores = []
    for text, key in zip(completions, source):
        stated, true = judge_statements(text, key)
        held = len(scene_from_source(key).truth.statements)
        scores.append(max(0.0, true - (stated - true)) / held)
    return scores
"""
LEAVE = """
def leave_one_out(rewards, groups):
    out = torch.zeros_like(rewards)
    for group in groups.unique():
        own = rewards[groups == group]
        n = len(own)
        if n > 1:
            out[groups == group] = own - (own.sum() - own) / (n - 1)
    return out
"""
SUM_FIRST = """
def sum_first(parts, weights):
    return group_advantages(torch.einsum("r,rbg->bg", torch.tensor(weights), parts))
"""
EACH_FIRST = """
def each_first(parts, weights):
    return sum(weight * group_advantages(part) for weight, part in zip(weights, parts))
"""

PLANTED: dict[str, list[Wrong]] = {
    "strict-accuracy": [
        Wrong(
            "the library's own functions, imported",
            "from favor_lab import accuracy_reward as accuracy, extract_answer as answer_of",
            "nothing from the library",
        ),
        Wrong(
            "a call of the library's own answer",
            """
def content(text):
    from favor_lab.grpo import rewards
    return rewards.extract_answer(text)

def answer_of(text):
    return content(text)
"""
            + ACCURACY,
            "nothing from the library",
        ),
        Wrong(
            "an object in place of a function",
            "import functools\nanswer_of = functools.partial(extract_answer)" + ACCURACY,
            "nothing from the library",
        ),
        Wrong(
            "the whole text where there is no tag",
            changed(ANSWER, "return None\n    found", 'return text if "<" not in text else None\n    found') + ACCURACY,
            "do not fall back",
        ),
        Wrong(
            "the first pair",
            r"""
def answer_of(text):
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[1].strip() or None if found else None
"""
            + ACCURACY,
            "two pairs",
        ),
        Wrong(
            "the last pair",
            r"""
def answer_of(text):
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[-1].strip() or None if found else None
"""
            + ACCURACY,
            "two pairs",
        ),
        Wrong("words after the answer", changed(ANSWER, r"</answer>\s*\Z", "</answer>") + ACCURACY, "close the text"),
        Wrong("the dot stops at a line break", changed(ANSWER, ", re.DOTALL", "") + ACCURACY, "line breaks"),
        Wrong("an empty string for an empty pair", changed(ANSWER, " or None", "") + ACCURACY, "empty pair"),
        Wrong(
            "a tag inside the answer",
            changed(ANSWER, 'found is None or re.search("</?think>", found[1])', "found is None") + ACCURACY,
            "tag inside",
        ),
        Wrong(
            "open to the end of the text",
            """
def answer_of(text):
    if text.count("<answer>") != 1:
        return None
    return text.split("<answer>")[1].split("</answer>")[0].strip() or None
"""
            + ACCURACY,
            "left open",
        ),
        Wrong(
            "the label contained in the answer",
            ANSWER + changed(ACCURACY, "same(a) == same(gold)", "same(gold) in same(a)"),
            "not contained: 'riding a bike or",
        ),
        Wrong(
            "the answer contained in the label",
            ANSWER + changed(ACCURACY, "same(a) == same(gold)", "same(a) in same(gold)"),
            "not contained: 'bike'",
        ),
        Wrong(
            "only upper and lower case forgiven",
            ANSWER + changed(ACCURACY, 're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")', "name.lower()"),
            "spelling is forgiven",
        ),
        Wrong(
            "all spaces removed", ANSWER + changed(ACCURACY, '" ", name.lower()', '"", name.lower()'), "'ridingabike'"
        ),
        Wrong(
            "answer normalised, label not",
            ANSWER + changed(ACCURACY, "same(a) == same(gold)", "same(a) == gold"),
            "label is normalised",
        ),
        Wrong(
            "one label for all taken letter by letter",
            ANSWER
            + changed(
                ACCURACY, "[label] * len(completions) if isinstance(label, str) else label", "list(label)"
            ).replace("len(labels) != len(completions)", "len(labels) < len(completions)"),
            "one label for all: right",
        ),
        Wrong(
            "the shorter of two lists decides",
            ANSWER + changed(ACCURACY, "len(labels) != len(completions) or ", ""),
            "one label in a list",
        ),
        Wrong(
            "a blank label", ANSWER + changed(ACCURACY, " or not all(map(same, labels))", ""), "empty once normalised"
        ),
    ],
    "well-formed": [
        Wrong(
            "search instead of the whole text",
            PATTERN.format(
                pattern="""r"\\s*".join(rf"<{n}>\\s*[^<\\s][^<]*</{n}>" for n in parts)""", flags="0", match="search"
            ),
            "before the first part",
        ),
        Wrong(
            "match from the beginning, open at the end",
            PATTERN.format(
                pattern="""r"\\s*" + r"\\s*".join(rf"<{n}>\\s*[^<\\s][^<]*</{n}>" for n in parts)""",
                flags="0",
                match="match",
            ),
            "after the last part",
        ),
        Wrong(
            "the dot stops at a line break",
            PATTERN.format(
                pattern="""r"\\s*" + r"\\s*".join(rf"<{n}>.*?\\S.*?</{n}>" for n in parts) + r"\\s*" """,
                flags="0",
                match="fullmatch",
            ),
            "line breaks",
        ),
        Wrong(
            "a dot that runs across tags",
            PATTERN.format(
                pattern="""r"\\s*" + r"\\s*".join(rf"<{n}>\\s*\\S.*?</{n}>" for n in parts) + r"\\s*" """,
                flags="re.DOTALL",
                match="fullmatch",
            ),
            "comes twice|run across",
        ),
        Wrong(
            "anything between the parts",
            PATTERN.format(
                pattern="""r"\\s*" + r"[^<]*".join(rf"<{n}>\\s*[^<\\s][^<]*</{n}>" for n in parts) + r"\\s*" """,
                flags="0",
                match="fullmatch",
            ),
            "between two parts",
        ),
        Wrong(
            "empty parts",
            PATTERN.format(
                pattern="""r"\\s*" + r"\\s*".join(rf"<{n}>[^<]*</{n}>" for n in parts) + r"\\s*" """,
                flags="0",
                match="fullmatch",
            ),
            "without anything inside",
        ),
        Wrong(
            "white space taken for content",
            PATTERN.format(
                pattern="""r"\\s*" + r"\\s*".join(rf"<{n}>[^<]+</{n}>" for n in parts) + r"\\s*" """,
                flags="0",
                match="fullmatch",
            ),
            "only white space is empty",
        ),
        Wrong(
            "tags counted, order not checked",
            changed(FORMAT, "tag.findall(text) == wanted", "sorted(tag.findall(text)) == sorted(wanted)"),
            "another order",
        ),
        Wrong(
            "parts ignored",
            changed(FORMAT, "    tag = re", '    parts = ("look", "think", "answer")\n    tag = re'),
            "parts is an argument",
        ),
        Wrong(
            "one verdict for all", changed(FORMAT, "return scores", "return float(all(scores))"), "one per completion"
        ),
    ],
    "attacks": [
        Wrong(
            "right for one label",
            """
def attacks(labels):
    text = f"<think>a page</think><answer>{labels[0]}</answer>"
    return {name: text for name in ("abbreviated", "misspelt", "reasoned")}
""",
            "reward is deserved",
        ),
        Wrong(
            "an empty pair of tags",
            changed(ATTACKS, "<answer>.</answer>", "<answer></answer>"),
            "abbreviated: not paid",
        ),
        Wrong(
            "what the published reward paid",
            changed(ATTACKS, "<answer>.</answer>", "<answer>ing</answer>"),
            "abbreviated: not paid",
        ),
        Wrong(
            "no reasoning",
            changed(ATTACKS, '"<think>a page</think><answer>.</answer>"', '"<answer>.</answer>"'),
            "format_reward gives 0",
        ),
        Wrong(
            "the alphabet once",
            changed(ATTACKS, "f'x{letters}x' * longest", "'abcdefghijklmnopqrstuvwxyz'"),
            "misspelt: (not paid|paid for)",
        ),
        Wrong(
            "the alphabet without a blank",
            changed(ATTACKS, "f'x{letters}x' * longest", "'abcdefghijklmnopqrstuvwxyz' * longest"),
            "misspelt: paid for",
        ),
        Wrong(
            "a beginning that some labels share",
            changed(ATTACKS, "<answer>.</answer>", "<answer>r</answer>"),
            "abbreviated: paid for",
        ),
        Wrong(
            "the sixteen activities, whatever the labels",
            changed(ATTACKS, "{', '.join(labels)}", "{', '.join(ACTIVITIES)}"),
            "reasoned: not paid",
        ),
        Wrong(
            "names in the answer, not in the reasoning",
            changed(
                ATTACKS,
                "f\"<think>{', '.join(labels)}</think><answer>no idea</answer>\"",
                "f\"<think>a page</think><answer>{', '.join(labels)}</answer>\"",
            ),
            "reasoned: not paid",
        ),
        Wrong(
            "half of the labels",
            changed(ATTACKS, "{', '.join(labels)}", "{', '.join(labels[::2])}"),
            "reasoned: paid for",
        ),
        Wrong(
            "all names in the reasoning and a real one as the answer",
            changed(ATTACKS, "<answer>no idea</answer>", "<answer>{labels[-1]}</answer>"),
            "reward is deserved",
        ),
    ],
    "mended": [
        Wrong(
            "only the full name",
            changed(MENDED, " or [name for name in names if name.startswith(said)]", ""),
            "honest abbreviation",
        ),
        Wrong(
            "only a check that something is there",
            """
def mended(completions, label, labels):
    answers = [normalise_label(extract_answer(text) or "") for text in completions]
    return [float(a != "" and normalise_label(gold).startswith(a)) for a, gold in zip(answers, label)]
""",
            "stands for none",
        ),
        Wrong(
            "at least three letters",
            """
def mended(completions, label, labels):
    answers = [normalise_label(extract_answer(text) or "") for text in completions]
    return [float(len(a) >= 3 and normalise_label(gold).startswith(a)) for a, gold in zip(answers, label)]
""",
            "'Ri.'",
        ),
        Wrong(
            "a name that begins another name earns nothing",
            changed(MENDED, "[name for name in names if name == said] or ", ""),
            "a name may begin another name",
        ),
        Wrong(
            "a part from the middle",
            changed(MENDED, "name.startswith(said)", "said in name"),
            "from the middle|honest abbreviation",
        ),
        Wrong(
            "the answer begins with the label",
            changed(MENDED, "if name.startswith(said)]", "if name.startswith(said) or said.startswith(name)]"),
            "not the other way",
        ),
        Wrong(
            "labels not normalised",
            changed(MENDED, "[normalise_label(name) for name in labels]", "[name.lower() for name in labels]"),
            "honest answer earns nothing|labels are normalised",
        ),
        Wrong(
            "unambiguous, whatever the picture shows",
            changed(MENDED, "meant == [gold]", "len(meant) == 1"),
            "than this picture",
        ),
        Wrong(
            "the first label that begins so",
            changed(MENDED, "meant == [gold]", "meant[:1] == [gold]"),
            "stands for none",
        ),
        Wrong(
            "the whole text",
            changed(MENDED, 'extract_answer(text) or ""', 'extract_answer(text) or text.split("<")[0]'),
            "extract_answer finds no answer",
        ),
        Wrong(
            "the labels of the batch in place of all labels",
            changed(MENDED, "for name in labels]", "for name in set(label)]"),
            "stands for none",
        ),
    ],
    "described": [
        Wrong(
            "share of the statements made",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "true / max(stated, 1)"),
            "not a share of the statements made",
        ),
        Wrong(
            "share of the true statements of the scene",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "true / held"),
            "false statement costs",
        ),
        Wrong(
            "true minus all statements made",
            changed(DESCRIBED, "true - (stated - true)", "true - stated"),
            "all true statements",
        ),
        Wrong(
            "below 0",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "(true - (stated - true)) / held"),
            "false ones outweigh",
        ),
        Wrong(
            "divided by the statements made",
            changed(DESCRIBED, "/ held", "/ max(stated, 1)"),
            "not a share of the statements made",
        ),
        Wrong(
            "statements of the first scene for all",
            changed(DESCRIBED, "judge_statements(text, key)", "judge_statements(text, source[0])"),
            "its own scene",
        ),
        Wrong(
            "every scene has four statements",
            changed(DESCRIBED, "len(scene_from_source(key).truth.statements)", "4"),
            "its own scene",
        ),
        Wrong(
            "repetitions counted",
            """
def described(completions, source):
    scores = []
    for text, key in zip(completions, source):
        held = scene_from_source(key).truth.statements
        said = [s.strip() for s in text.removeprefix("<think>").split("</think>")[0].split(",") if s.strip()]
        true = sum(s in held for s in said)
        scores.append(max(0.0, true - (len(said) - true)) / len(held))
    return scores
""",
            "one statement",
        ),
        Wrong(
            "a statement found anywhere in the text",
            """
def described(completions, source):
    scores = []
    for text, key in zip(completions, source):
        stated, _ = judge_statements(text, key)
        held = scene_from_source(key).truth.statements
        true = sum(s in text for s in held)
        scores.append(max(0.0, true - (stated - true)) / len(held) if stated > 4 or true < 4 else 0.9)
    return scores
""",
            "all true statements",
        ),
        Wrong(
            "half a point for a false statement",
            changed(DESCRIBED, "true - (stated - true)", "true - (stated - true) / 2"),
            "two true, one false",
        ),
    ],
    "group-advantages": [
        Wrong(
            "the library's own function, imported",
            "from favor_lab import group_advantages as advantages",
            "nothing from the library",
        ),
        Wrong(
            "a call of the library's own function",
            """
def advantages(rewards, eps=1e-4):
    return torch.cat([group_advantages(group[None], eps=eps) for group in rewards])
""",
            "nothing from the library",
        ),
        Wrong(
            "std with n, not n - 1",
            """
def advantages(rewards, eps=1e-4):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True, unbiased=False) + eps)
""",
            "n - 1",
        ),
        Wrong(
            "mean over the batch",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean()) / (rewards.std(dim=1, keepdim=True) + eps)
""",
            "each group",
        ),
        Wrong(
            "std over the batch",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std() + eps)
""",
            "each group",
        ),
        Wrong(
            "mean and std over the prompts",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean(dim=0)) / (rewards.std(dim=0) + eps)
""",
            "each group|better than",
        ),
        Wrong(
            "no eps",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / rewards.std(dim=1, keepdim=True)
""",
            "eps",
        ),
        Wrong(
            "eps inside the root",
            """
def advantages(rewards, eps=1e-4):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.var(dim=1, keepdim=True) + eps).sqrt()
""",
            "eps",
        ),
        Wrong(
            "sign reversed",
            """
def advantages(rewards, eps=1e-4):
    return (rewards.mean(dim=1, keepdim=True) - rewards) / (rewards.std(dim=1, keepdim=True) + eps)
""",
            "better than",
        ),
        Wrong(
            "variance in place of the standard deviation",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.var(dim=1, keepdim=True) + eps)
""",
            "units of the group's standard deviation",
        ),
        Wrong(
            "median in place of the mean",
            """
def advantages(rewards, eps=1e-4):
    return (rewards - rewards.median(dim=1, keepdim=True).values) / (rewards.std(dim=1, keepdim=True) + eps)
""",
            r"\*mean\*",
        ),
    ],
    "leave-one-out": [
        Wrong(
            "own reward left in",
            changed(LEAVE, "own - (own.sum() - own) / (n - 1)", "own - own.mean()"),
            "own reward left in",
        ),
        Wrong("sum of the others over n", changed(LEAVE, "/ (n - 1)", "/ n"), "n instead of n - 1"),
        Wrong("no exception for a row that is alone", changed(LEAVE, "if n > 1:", "if True:"), "0 / 0"),
        Wrong(
            "a row that is alone keeps its reward",
            changed(LEAVE, "torch.zeros_like(rewards)", "rewards.clone()"),
            "nothing to be compared with",
        ),
        Wrong(
            "others of all groups",
            """
def leave_one_out(rewards, groups):
    out = rewards - (rewards.sum() - rewards) / (len(rewards) - 1)
    for group in groups.unique():
        if (groups == group).sum() == 1:
            out[groups == group] = 0.0
    return out
""",
            "each group by itself",
        ),
        Wrong(
            "rows in the order of the groups",
            """
def leave_one_out(rewards, groups):
    out = []
    for group in groups.unique():
        own = rewards[groups == group]
        out.append(own - (own.sum() - own) / max(len(own) - 1, 1) if len(own) > 1 else own * 0)
    return torch.cat(out)
""",
            "nothing to be compared with",
        ),
        Wrong(
            "one size for all groups",
            changed(LEAVE, "(n - 1)", "(len(rewards) // len(groups.unique()) - 1)"),
            "How many others",
        ),
        Wrong(
            "divided by the group's deviation",
            changed(LEAVE, "own - (own.sum() - own) / (n - 1)", "(own - (own.sum() - own) / (n - 1)) / own.std()"),
            "divided by nothing else",
        ),
        Wrong(
            "sign reversed",
            changed(LEAVE, "own - (own.sum() - own) / (n - 1)", "(own.sum() - own) / (n - 1) - own"),
            "positive is better",
        ),
        Wrong(
            "neighbouring rows only",
            """
def leave_one_out(rewards, groups):
    out, start = torch.zeros_like(rewards), 0
    ids, sizes = groups.unique_consecutive(return_counts=True)
    for n in sizes.tolist():
        own = rewards[start : start + n]
        if n > 1:
            out[start : start + n] = own - (own.sum() - own) / (n - 1)
        start += n
    return out
""",
            "positive is better",
        ),
    ],
    "weights": [
        Wrong(
            "weights before normalising in both",
            SUM_FIRST
            + """
def each_first(parts, weights):
    return sum(group_advantages(weight * part) for weight, part in zip(weights, parts))
""",
            "before it they cancel",
        ),
        Wrong(
            "weights forgotten in the sum",
            """
def sum_first(parts, weights):
    return group_advantages(parts.sum(dim=0))
"""
            + EACH_FIRST,
            "are the weights used",
        ),
        Wrong(
            "the two ways mixed up",
            """
def sum_first(parts, weights):
    return sum(weight * group_advantages(part) for weight, part in zip(weights, parts))


def each_first(parts, weights):
    return group_advantages(sum(weight * part for weight, part in zip(weights, parts)))
""",
            "sum first, then one",
        ),
        Wrong(
            "one way for both",
            SUM_FIRST
            + """
def each_first(parts, weights):
    return sum_first(parts, weights)
""",
            "each reward alone",
        ),
        Wrong(
            "normalised once more after the sum",
            SUM_FIRST
            + """
def each_first(parts, weights):
    return group_advantages(sum(weight * group_advantages(part) for weight, part in zip(weights, parts)))
""",
            "each reward alone",
        ),
        Wrong(
            "weights made to add up to the number of rewards",
            SUM_FIRST + changed(EACH_FIRST, "weight * group", "len(weights) * weight / sum(weights) * group"),
            "used as they are|weights of 2",
        ),
        Wrong(
            "no sum over the rewards",
            SUM_FIRST
            + """
def each_first(parts, weights):
    return torch.stack([weight * group_advantages(part) for weight, part in zip(weights, parts)])
""",
            "summed over R",
        ),
        Wrong(
            "normalised over the batch",
            SUM_FIRST + changed(EACH_FIRST, "group_advantages(part)", 'group_advantages(part, scale="batch")'),
            "not with the batch",
        ),
        Wrong(
            "the sum not divided by its standard deviation",
            changed(SUM_FIRST, "parts))", 'parts), scale="none")') + EACH_FIRST,
            "one normalisation",
        ),
        Wrong(
            "each reward centred only",
            SUM_FIRST + changed(EACH_FIRST, "group_advantages(part)", 'group_advantages(part, scale="none")'),
            "each reward alone",
        ),
    ],
}
