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
        Wrong(
            "full stops removed anywhere",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[\\s_-]+", " ", name.lower().replace(".", "")).strip()',
            ),
            "what does not matter",
        ),
        Wrong(
            "all that is no letter removed",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[^a-z ]", "", re.sub(r"[\\s_-]+", " ", name.lower())).strip()',
            ),
            "what does not matter",
        ),
        Wrong(
            "full stops removed at both ends",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().strip(". ")',
            ),
            "what does not matter",
        ),
        Wrong(
            "one full stop removed, not all",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().removesuffix(".")',
            ),
            "what does not matter|a ValueError",
        ),
        Wrong(
            "a full stop taken for a space",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[\\s_.-]+", " ", name.lower()).strip()',
            ),
            "what does not matter",
        ),
        Wrong(
            "letters that come twice taken for one",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"(.)\\1+", r"\\1", re.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". "))',
            ),
            "what does not matter",
        ),
        Wrong(
            "the words in any order",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                '" ".join(sorted(re.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ").split()))',
            ),
            "what does not matter",
        ),
        Wrong(
            "line breaks are no space",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[ _-]+", " ", name.lower()).strip().rstrip(". ")',
            ),
            "spelling is forgiven",
        ),
        Wrong(
            "hyphens forgotten",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[\\s_]+", " ", name.lower()).strip().rstrip(". ")',
            ),
            "spelling is forgiven",
        ),
        Wrong(
            "case forgotten",
            ANSWER
            + changed(
                ACCURACY,
                're.sub(r"[\\s_-]+", " ", name.lower()).strip().rstrip(". ")',
                're.sub(r"[\\s_-]+", " ", name).strip().rstrip(". ")',
            ),
            "spelling is forgiven",
        ),
        Wrong(
            "one letter may be missing",
            ANSWER
            + changed(
                ACCURACY,
                "same(a) == same(gold)",
                "same(a) in [same(gold), *(same(gold[:i] + gold[i + 1 :]) for i in range(len(gold)))]",
            ),
            "what does not matter",
        ),
        Wrong(
            "the answer may begin with the label",
            ANSWER + changed(ACCURACY, "same(a) == same(gold)", "same(a).startswith(same(gold))"),
            "not contained",
        ),
        Wrong(
            "the same letters",
            ANSWER + changed(ACCURACY, "same(a) == same(gold)", "sorted(same(a)) == sorted(same(gold))"),
            "what does not matter",
        ),
        Wrong(
            "tags in capitals",
            changed(ANSWER, ", re.DOTALL", ", re.DOTALL | re.IGNORECASE").replace("text.count", "text.lower().count")
            + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "full stops are no part of an answer",
            changed(ANSWER, "found[1].strip()", 'found[1].strip(" .\\n")') + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "the first line of the answer",
            changed(ANSWER, "found[1].strip() or None", "(found[1].strip().splitlines() or [None])[0]") + ACCURACY,
            r"spelling is forgiven",
        ),
        Wrong(
            "white space inside the answer removed",
            changed(ANSWER, "found[1].strip() or None", '" ".join(found[1].split()) or None') + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "the last opening tag counts",
            """
def answer_of(text):
    text = text.strip()
    if not text.endswith("</answer>") or text.count("</answer>") != 1 or "<answer>" not in text:
        return None
    content = text[text.rfind("<answer>") + 8 : -9].strip()
    return None if re.search("</?think>", content) else content or None
"""
            + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "only opening tags inside are refused",
            changed(ANSWER, '"</?think>"', '"<think>"') + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "only closing tags inside are refused",
            changed(ANSWER, '"</?think>"', '"</think>"') + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "no answer without reasoning",
            changed(ANSWER, 'r"<answer>(.*)</answer>', 'r"</think>\\s*<answer>(.*)</answer>') + ACCURACY,
            "line breaks around",
        ),
        Wrong(
            "one line break after the answer, no space",
            changed(ANSWER, r"</answer>\s*\Z", r"</answer>$") + ACCURACY,
            r"answer_of\(",
        ),
        Wrong(
            "more labels than completions",
            ANSWER + changed(ACCURACY, "len(labels) != len(completions)", "len(labels) < len(completions)"),
            "a ValueError",
        ),
        Wrong(
            "only the first label is looked at",
            ANSWER + changed(ACCURACY, "all(map(same, labels))", "same(labels[0])"),
            "a ValueError",
        ),
        Wrong(
            "one label for all may be blank",
            ANSWER
            + changed(
                ACCURACY, "not all(map(same, labels))", "not isinstance(label, str) and not all(map(same, labels))"
            ),
            "a ValueError",
        ),
        Wrong(
            "zeros in place of an error",
            ANSWER
            + changed(
                ACCURACY,
                'raise ValueError("one label per completion is needed, and none may be blank")',
                "return [0.0] * len(completions)",
            ),
            "a ValueError",
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
        Wrong(
            "no sign < inside a part",
            PATTERN.format(
                pattern="""r"\\s*" + r"\\s*".join(rf"<{n}>\\s*[^<\\s][^<]*</{n}>" for n in parts) + r"\\s*" """,
                flags="0",
                match="fullmatch",
            ),
            "2 < 3",
        ),
        Wrong(
            "no white space around the parts",
            changed(FORMAT, "not any(pieces[::2])", "not any(tag.split(text)[::2])"),
            "between the parts",
        ),
        Wrong(
            "no white space at the beginning and the end",
            changed(FORMAT, "not any(pieces[::2])", "not any(pieces[::2]) and text == text.strip()"),
            "between the parts",
        ),
        Wrong(
            "only the first part must not be empty",
            changed(FORMAT, "all(pieces[1::2])", "pieces[1:] and all(pieces[1:2])"),
            "only white space is empty",
        ),
        Wrong("the last part may be empty", changed(FORMAT, "all(pieces[1::2])", "all(pieces[1:-3:2])"), "0.0, not"),
        Wrong(
            "any part that is not empty is enough",
            changed(FORMAT, "all(pieces[1::2])", "any(pieces[1::2])"),
            "without anything inside",
        ),
        Wrong(
            "opening and closing tags in order, each by itself",
            changed(
                FORMAT,
                "tag.findall(text) == wanted",
                "sorted(tag.findall(text), key=lambda one: '/' in one) == sorted(wanted, key=lambda one: '/' in one)",
            ),
            "0.0, not",
        ),
        Wrong(
            "opening tags in order, closing ones not looked at",
            changed(
                FORMAT,
                "tag.findall(text) == wanted",
                "[one for one in tag.findall(text) if '/' not in one] == wanted[::2]",
            ),
            "left open|0.0, not|inside a part",
        ),
        Wrong("tags in capitals are tags too", changed(FORMAT, ')>")', ')>", re.IGNORECASE)'), "1.0, not"),
        Wrong(
            "full stops outside are no text",
            changed(FORMAT, "piece.strip()", 'piece.strip(" \\n.")'),
            r"1.0, not|0.0, not",
        ),
        Wrong(
            "a part may come twice",
            changed(FORMAT, "tag.findall(text) == wanted", "list(dict.fromkeys(tag.findall(text))) == wanted"),
            "comes twice",
        ),
        Wrong(
            "the last tag may be missing",
            changed(FORMAT, "tag.findall(text) == wanted", "tag.findall(text) in (wanted, wanted[:-1])"),
            "left open, at the end",
        ),
        Wrong(
            "other parts may follow",
            changed(FORMAT, "tag.findall(text) == wanted", "tag.findall(text)[: len(wanted)] == wanted"),
            "comes twice|0.0, not|the last part",
        ),
        Wrong(
            "more than three parts are not looked at",
            changed(FORMAT, "for name in parts for", "for name in parts[:3] for"),
            "not",
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
        Wrong(
            "the first ten labels",
            changed(ATTACKS, "{', '.join(labels)}", "{', '.join(labels[:10])}"),
            "reasoned: paid for",
        ),
        Wrong(
            "the first word of each label",
            changed(ATTACKS, "{', '.join(labels)}", "{', '.join(name.split()[0] for name in labels)}"),
            "reasoned: paid for",
        ),
        Wrong(
            "the letters of the labels one by one",
            changed(ATTACKS, "{', '.join(labels)}", "{' '.join(''.join(labels))}"),
            "reasoned: not paid",
        ),
        Wrong(
            "empty reasoning",
            changed(ATTACKS, "<think>a page</think><answer>.</answer>", "<think></think><answer>.</answer>"),
            "format_reward gives 0",
        ),
        Wrong(
            "the answer before the reasoning",
            changed(ATTACKS, "<think>a page</think><answer>.</answer>", "<answer>.</answer><think>a page</think>"),
            "abbreviated: not paid",
        ),
        Wrong(
            "words after the answer",
            changed(ATTACKS, "<answer>no idea</answer>", "<answer>no idea</answer>."),
            "format_reward gives 0",
        ),
        Wrong(
            "white space as the answer",
            changed(ATTACKS, "<answer>.</answer>", "<answer> </answer>"),
            "abbreviated: not paid",
        ),
        Wrong(
            "one letter of each label",
            changed(ATTACKS, "f'x{letters}x' * longest", "''.join(name[0] for name in labels)"),
            "misspelt: (not )?paid",
        ),
        Wrong(
            "the first three labels in one",
            changed(ATTACKS, "f'x{letters}x' * longest", "' '.join(labels[:3])"),
            "misspelt: paid for",
        ),
        Wrong(
            "the letters of all labels, sorted",
            changed(ATTACKS, "f'x{letters}x' * longest", "''.join(sorted(''.join(labels)))"),
            "misspelt: (not )?paid",
        ),
        Wrong(
            "a to z and the blank, without digits",
            changed(ATTACKS, "f'x{letters}x' * longest", "'abcdefghijklmnopqrstuvwxyz ' * longest"),
            "misspelt: (not )?paid",
        ),
        Wrong(
            "an answer that is too long",
            changed(ATTACKS, "f'x{letters}x' * longest", "f'x{letters}x' * 200"),
            "misspelt: not paid",
        ),
        Wrong(
            "the letters three times",
            changed(ATTACKS, "f'x{letters}x' * longest", "f'x{letters}x' * 3"),
            "misspelt: (not )?paid",
        ),
        Wrong(
            "one text for all three",
            """
def attacks(labels):
    text = f"<think>{', '.join(labels)}</think><answer>.</answer>"
    return dict.fromkeys(("abbreviated", "misspelt", "reasoned"), text)
""",
            "misspelt: not paid",
        ),
        Wrong("other names", changed(ATTACKS, '"abbreviated":', '"short":'), "a dictionary with the three"),
        Wrong(
            "completions in lists",
            changed(
                ATTACKS, '"<think>a page</think><answer>.</answer>"', '["<think>a page</think><answer>.</answer>"]'
            ),
            "one completion, a string",
        ),
        Wrong(
            "a third label is needed",
            changed(ATTACKS, "<answer>no idea</answer>", "<answer>not {labels[2]}</answer>"),
            "a dictionary with the three",
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
            "unambiguous, whatever the image shows",
            changed(MENDED, "meant == [gold]", "len(meant) == 1"),
            "than this image",
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
        Wrong(
            "the shortest of several",
            changed(MENDED, "meant == [gold]", "bool(meant) and min(meant, key=len) == gold"),
            "stands for none",
        ),
        Wrong(
            "the first in the alphabet",
            changed(MENDED, "meant == [gold]", "sorted(meant)[:1] == [gold]"),
            "stands for none",
        ),
        Wrong(
            "two meanings are allowed",
            changed(MENDED, "meant == [gold]", "gold in meant and len(meant) <= 2"),
            "begins two of them",
        ),
        Wrong(
            "a share for each meaning",
            changed(MENDED, "float(meant == [gold])", "(gold in meant) / max(len(meant), 1)"),
            "stands for none",
        ),
        Wrong(
            "the answer not normalised",
            changed(MENDED, 'normalise_label(extract_answer(text) or "")', '(extract_answer(text) or "").strip()'),
            "honest",
        ),
        Wrong(
            "whole words only",
            changed(MENDED, "name.startswith(said)", "(name + ' ').startswith(said + ' ')"),
            "honest abbreviation",
        ),
        Wrong(
            "the first three letters decide",
            changed(MENDED, "name.startswith(said)", "name[:3] == said[:3]"),
            r"can only mean|label begins with",
        ),
        Wrong(
            "one letter is never enough",
            changed(MENDED, "name.startswith(said)", "len(said) > 1 and name.startswith(said)"),
            "answers",
        ),
        Wrong(
            "blanks do not count",
            changed(MENDED, "name.startswith(said)", "name.replace(' ', '').startswith(said.replace(' ', ''))"),
            "answers",
        ),
        Wrong(
            "only the next label in the alphabet is looked at",
            """
def mended(completions, label, labels):
    names, scores = sorted(normalise_label(name) for name in labels), []
    for text, gold in zip(completions, label):
        said, gold = normalise_label(extract_answer(text) or ""), normalise_label(gold)
        after = names[names.index(gold) + 1 :][:1]
        begins = said != "" and gold.startswith(said) and said not in names
        scores.append(float(said == gold or begins and not any(name.startswith(said) for name in after)))
    return scores
""",
            "stands for none|answers",
        ),
        Wrong(
            "the name of another label may stand for a longer one",
            changed(
                MENDED,
                "meant == [gold]",
                "meant == [gold] or [n for n in names if said and n != said and n.startswith(said)] == [gold]",
            ),
            "name of another label",
        ),
        Wrong(
            "the empty text stands for the only label left",
            changed(MENDED, "meant == [gold]", "meant == [gold] or said == ''"),
            "finds no answer|empty text",
        ),
        Wrong("capitals of the label kept", changed(MENDED, "normalise_label(gold)", "gold.lower()"), "honest"),
        Wrong(
            "an answer inside the label, once unambiguous",
            changed(MENDED, "name.startswith(said)", "name.startswith(said) or name.endswith(said)"),
            "from the middle|answers|honest",
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
        Wrong(
            "divided by the larger of made and true of the scene",
            changed(DESCRIBED, "/ held", "/ max(held, stated)"),
            "for \\[",
        ),
        Wrong(
            "one false statement costs, further ones do not",
            changed(DESCRIBED, "(stated - true)", "min(1, stated - true)"),
            "outweigh",
        ),
        Wrong(
            "share of the true minus share of the false",
            changed(
                DESCRIBED,
                "max(0.0, true - (stated - true)) / held",
                "max(0.0, true / held - (stated - true) / max(stated, 1))",
            ),
            "two true, one false|as much",
        ),
        Wrong(
            "recall times precision",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "true / held * true / max(stated, 1)"),
            "two true, one false|as much",
        ),
        Wrong(
            "F1 of the statements",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "2 * true / (held + stated)"),
            "one of the four",
        ),
        Wrong(
            "share of the union",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "true / (held + stated - true)"),
            "two true, one false",
        ),
        Wrong(
            "a false statement costs twice",
            changed(DESCRIBED, "true - (stated - true)", "true - 2 * (stated - true)"),
            "two true, one false",
        ),
        Wrong(
            "nothing where anything is false",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "true / held if stated == true else 0.0"),
            "two true, one false",
        ),
        Wrong(
            "the distance from 0",
            changed(DESCRIBED, "max(0.0, true - (stated - true))", "abs(true - (stated - true))"),
            "outweigh|never below",
        ),
        Wrong(
            "one digit",
            changed(
                DESCRIBED,
                "max(0.0, true - (stated - true)) / held",
                "round(max(0.0, true - (stated - true)) / held, 1)",
            ),
            "one of the four",
        ),
        Wrong(
            "all or nothing",
            changed(DESCRIBED, "max(0.0, true - (stated - true)) / held", "float(stated == true == held)"),
            "one of the four",
        ),
        Wrong(
            "only completions with an answer",
            changed(
                DESCRIBED,
                "max(0.0, true - (stated - true)) / held",
                "max(0.0, true - (stated - true)) / held * ('<answer>' in text)",
            ),
            "by its own scene",
        ),
        Wrong(
            "statements cut at commas only",
            """
def described(completions, source):
    scores = []
    for text, key in zip(completions, source):
        held = scene_from_source(key).truth.statements
        said = {s.strip() for s in text.removeprefix("<think>").split("</think>")[0].split(",") if s.strip()}
        true = sum(s in held for s in said)
        scores.append(max(0.0, true - (len(said) - true)) / len(held))
    return scores
""",
            "true minus false",
        ),
        Wrong(
            "the scenes in reverse order",
            changed(DESCRIBED, "zip(completions, source)", "zip(completions, source[::-1])"),
            "its own scene",
        ),
        Wrong(
            "no more than four statements are true",
            changed(DESCRIBED, "/ held", "/ min(held, 4)"),
            "by its own scene|true minus false",
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
        Wrong(
            "the larger of std and eps",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / std.clamp(min=eps)
""",
            "not under the root",
        ),
        Wrong(
            "eps is always 1e-4",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (std + 1e-4)
""",
            "eps",
        ),
        Wrong(
            "eps added above the line",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean + eps) / (std + eps)
""",
            "eps|add up|library",
        ),
        Wrong(
            "range for the standard deviation",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (rewards.amax(1, True) - rewards.amin(1, True) + eps)
""",
            "n - 1|0.5 / 0.577",
        ),
        Wrong(
            "mean absolute deviation",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / ((rewards - mean).abs().mean(1, True) + eps)
""",
            "n - 1",
        ),
        Wrong(
            "largest deviation",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / ((rewards - mean).abs().amax(1, True) + eps)
""",
            "n - 1",
        ),
        Wrong(
            "own reward left out of the mean",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    G = rewards.shape[1]
    return (rewards - (G * mean - rewards) / (G - 1)) / (std + eps)
""",
            "0.577",
        ),
        Wrong(
            "mean with n - 1",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    G = rewards.shape[1]
    return (rewards - mean * G / (G - 1)) / (std + eps)
""",
            "add up|positive",
        ),
        Wrong(
            "ones for a flat group",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return torch.where(std > 0, (rewards - mean) / (std + eps), torch.ones_like(rewards))
""",
            "add up",
        ),
        Wrong(
            "cut at 1",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return ((rewards - mean) / (std + eps)).clamp(-1, 1)
""",
            "add up|library",
        ),
        Wrong(
            "standard deviation of 0 and 1",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    G = rewards.shape[1]
    return (rewards - mean) / ((mean * (1 - mean) * G / (G - 1)).clamp(min=0).sqrt() + eps)
""",
            "eps|library|add up|finite",
        ),
        Wrong(
            "n for groups of two",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    std = rewards.std(dim=1, keepdim=True, unbiased=rewards.shape[1] > 2)
    return (rewards - mean) / (std + eps)
""",
            "library",
        ),
        Wrong(
            "the rewards themselves changed",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    rewards -= mean
    return rewards / (std + eps)
""",
            "changed|each group|0.577|add up|n - 1|root",
        ),
        Wrong(
            "divided twice",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    return (rewards - mean) / (std + eps) / (std + eps)
""",
            "0.577|n - 1",
        ),
        Wrong(
            "the rank in place of the reward",
            """
def advantages(rewards, eps=1e-4):
    mean, std = rewards.mean(dim=1, keepdim=True), rewards.std(dim=1, keepdim=True)
    rank = rewards.argsort(1).argsort(1).float()
    return (rank - rank.mean(1, True)) / (rank.std(1, keepdim=True) + eps)
""",
            "0.577|n - 1|better|library",
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
        Wrong(
            "the next row of the group",
            changed(LEAVE, "own - (own.sum() - own) / (n - 1)", "own - own.roll(-1)"),
            r"row by row",
        ),
        Wrong(
            "the best of the others",
            changed(
                LEAVE,
                "own - (own.sum() - own) / (n - 1)",
                "own - torch.stack([torch.cat([own[:i], own[i + 1 :]]).max() for i in range(n)])",
            ),
            "mean of the others|row by row",
        ),
        Wrong(
            "median of the others",
            changed(
                LEAVE,
                "own - (own.sum() - own) / (n - 1)",
                "own - torch.stack([torch.cat([own[:i], own[i + 1 :]]).median() for i in range(n)])",
            ),
            "row by row|rewards",
        ),
        Wrong(
            "rows with the same reward left out with the own one",
            changed(
                LEAVE,
                "own - (own.sum() - own) / (n - 1)",
                "torch.stack([r - own[own != r].mean().nan_to_num(nan=float(r)) for r in own])",
            ),
            "row by row|rewards",
        ),
        Wrong(
            "whole numbers",
            changed(LEAVE, "own = rewards[groups == group]", "own = rewards[groups == group].long().float()"),
            "rewards",
        ),
        Wrong("group 0 is left out", changed(LEAVE, "groups.unique():", "groups[groups > 0].unique():"), "rewards"),
        Wrong(
            "group ids count from 0", changed(LEAVE, "groups.unique():", "range(len(groups)):"), "mean of the others"
        ),
        Wrong(
            "no blame",
            changed(LEAVE, "(n - 1)\n", "(n - 1)\n            out = out.clamp(min=0)\n"),
            "positive is better",
        ),
        Wrong(
            "a lonely row is compared with all",
            changed(
                LEAVE, "        if n > 1:", "        out[groups == group] = own - rewards.mean()\n        if n > 1:"
            ),
            "nothing to be compared",
        ),
        Wrong(
            "in units of the mean",
            changed(
                LEAVE, "own - (own.sum() - own) / (n - 1)", "own / ((own.sum() - own) / (n - 1)).clamp(min=0.5) - 1"
            ),
            "divided by nothing|mean of the others|rewards 0 and 3|changes nothing",
        ),
        Wrong("two rows are no group", changed(LEAVE, "if n > 1:", "if n > 2:"), "positive is better"),
        Wrong(
            "the sum of the others",
            changed(LEAVE, "own - (own.sum() - own) / (n - 1)", "own - (own.sum() - own)"),
            "changes nothing|mean of the others",
        ),
        Wrong(
            "the rewards themselves changed",
            changed(LEAVE, "torch.zeros_like(rewards)", "rewards").replace(
                "        n = len(own)\n", "        n = len(own)\n        out[groups == group] = 0\n"
            ),
            "changed|row by row|changes nothing",
        ),
        Wrong(
            "the mean of the group, times n",
            changed(LEAVE, "own - (own.sum() - own) / (n - 1)", "(own - own.mean()) * n"),
            "divided by nothing|rewards 0 and 3|own reward|mean of the others|row by row",
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
        Wrong(
            "weights without their sign",
            changed(SUM_FIRST, "torch.tensor(weights)", "torch.tensor(weights).abs()") + EACH_FIRST,
            "sum_first, weights",
        ),
        Wrong(
            "no weight below 0",
            SUM_FIRST + changed(EACH_FIRST, "weight * group", "max(weight, 0.0) * group"),
            "each_first, weights",
        ),
        Wrong(
            "mean of the advantages",
            SUM_FIRST + changed(EACH_FIRST, "zip(weights, parts))", "zip(weights, parts)) / len(parts)"),
            "each reward alone",
        ),
        Wrong(
            "root of the weights",
            SUM_FIRST + changed(EACH_FIRST, "weight * group", "abs(weight) ** 0.5 * group"),
            "weights after|used as they are",
        ),
        Wrong(
            "square of the weights",
            SUM_FIRST + changed(EACH_FIRST, "weight * group", "weight**2 * group"),
            "used as they are",
        ),
        Wrong(
            "divided by the sum of the weights",
            SUM_FIRST + changed(EACH_FIRST, "zip(weights, parts))", "zip(weights, parts)) / sum(weights)"),
            "each reward alone",
        ),
        Wrong(
            "two rewards only",
            SUM_FIRST + changed(EACH_FIRST, "zip(weights, parts))", "zip(weights[:2], parts[:2]))"),
            "each_first, weights",
        ),
        Wrong(
            "two rewards only, in the sum",
            changed(
                SUM_FIRST,
                '"r,rbg->bg", torch.tensor(weights), parts',
                '"r,rbg->bg", torch.tensor(weights[:2]), parts[:2]',
            )
            + EACH_FIRST,
            "sum_first, weights",
        ),
        Wrong(
            "std with n in the sum",
            changed(SUM_FIRST, "parts))", "parts), unbiased=False)") + EACH_FIRST,
            "sum first, then one",
        ),
        Wrong(
            "std with n for each",
            SUM_FIRST + changed(EACH_FIRST, "group_advantages(part)", "group_advantages(part, unbiased=False)"),
            "each reward alone",
        ),
        Wrong(
            "the largest reward in place of the sum",
            """
def sum_first(parts, weights):
    return group_advantages((torch.tensor(weights)[:, None, None] * parts).amax(dim=0))
"""
            + EACH_FIRST,
            "sum first, then one",
        ),
        Wrong(
            "the product in place of the sum",
            """
def sum_first(parts, weights):
    return group_advantages((torch.tensor(weights)[:, None, None] * parts).prod(dim=0))
"""
            + EACH_FIRST,
            "sum first, then one",
        ),
        Wrong(
            "flat rewards hand on their weight",
            SUM_FIRST
            + """
def each_first(parts, weights):
    own = torch.stack([weight * group_advantages(part) for weight, part in zip(weights, parts)])
    live = (parts.std(dim=2) > 0).sum(dim=0).clamp(min=1)
    return own.sum(dim=0) * len(parts) / live[:, None]
""",
            "used as they are|weights",
        ),
        Wrong(
            "a weight of 0 taken for 1",
            SUM_FIRST + changed(EACH_FIRST, "weight * group", "(weight or 1.0) * group"),
            "each_first, weights",
        ),
        Wrong(
            "the batch's standard deviation in the sum",
            changed(SUM_FIRST, "parts))", 'parts), scale="batch")') + EACH_FIRST,
            "alone",
        ),
    ],
}


#: Right answers that are written in another way than the solutions: the checks must take them.
RIGHT: dict[str, list[str]] = {
    "strict-accuracy": [
        r"""
def answer_of(text):
    before, opening, rest = text.partition("<answer>")
    content, closing, after = rest.partition("</answer>")
    tags = re.findall("</?answer>", text)
    if tags != ["<answer>", "</answer>"] or not opening or not closing or after.strip():
        return None
    content = content.strip()
    return content if content and "<think>" not in content and "</think>" not in content else None


def accuracy(completions, label):
    if isinstance(label, str):
        label = [label for _ in completions]
    if len(label) != len(completions):
        raise ValueError("as many labels as completions")
    golds = [plain(name) for name in label]
    if "" in golds:
        raise ValueError("a blank label")
    return [1.0 if plain(answer_of(text) or "") == gold else 0.0 for text, gold in zip(completions, golds)]


def plain(name):
    words = name.lower().replace("_", " ").replace("-", " ").split()
    return " ".join(words).rstrip(".").rstrip()
"""
    ],
    "well-formed": [
        r"""
def well_formed(completions, parts=("look", "think", "answer")):
    any_tag = "|".join(f"</?{name}>" for name in parts)
    inside = rf"(?:(?!{any_tag}).)*"
    form = r"\s*".join(rf"<{name}>(?=\s*(?!{any_tag})\S){inside}</{name}>" for name in parts)
    return [float(bool(re.fullmatch(rf"\s*{form}\s*", text, re.DOTALL))) for text in completions]
""",
        """
def well_formed(completions, parts=("look", "think", "answer")):
    return [float(one(text, list(parts))) for text in completions]


def one(text, parts):
    for name in parts:
        text = text.lstrip()
        if not text.startswith(f"<{name}>") or f"</{name}>" not in text:
            return False
        content, text = text[len(name) + 2 :].split(f"</{name}>", 1)
        if not content.strip() or any(tag in content for other in parts for tag in (f"<{other}>", f"</{other}>")):
            return False
    return not text.strip()
""",
    ],
    "attacks": [
        """
def attacks(labels):
    names = " and ".join(labels)
    return {
        "reasoned": f"<think>It may be {names}.</think> <answer>nothing of this</answer>",
        "misspelt": f"<think>who knows</think><answer>{' '.join(labels)}</answer>",
        "abbreviated": "<think>who knows</think><answer>_</answer>",
    }
""",
        """
def attacks(labels):
    form = "<think>{}</think><answer>{}</answer>".format
    return {
        "abbreviated": form("x", "..."),
        "misspelt": form("x", "zz".join(normalise_label(name) for name in labels)),
        "reasoned": form(". ".join(labels), "?"),
    }
""",
    ],
    "mended": [
        """
def mended(completions, label, labels):
    every = {normalise_label(name) for name in labels}
    return [float(one(extract_answer(text), normalise_label(gold), every)) for text, gold in zip(completions, label)]


def one(answer, gold, every):
    said = normalise_label(answer or "")
    if said == gold:
        return True
    return said not in every and gold.startswith(said) and sum(name.startswith(said) for name in every) == 1
"""
    ],
    "described": [
        """
def described(completions, source):
    def score(text, key):
        made, true = judge_statements(text, key)
        return max(2 * true - made, 0) / len(scene_from_source(key).truth.statements)

    return [score(*pair) for pair in zip(completions, source)]
"""
    ],
    "group-advantages": [
        """
def advantages(rewards, eps=1e-4):
    B, G = rewards.shape
    mean = rewards.sum(dim=1) / G
    away = rewards - mean.view(B, 1)
    variance = (away * away).sum(dim=1) / (G - 1)
    return away / (variance.sqrt() + eps).view(B, 1)
""",
        """
def advantages(rewards, eps=1e-4):
    std, mean = torch.std_mean(rewards, dim=1, keepdim=True)
    return torch.stack([(row - m) / (s + eps) for row, m, s in zip(rewards, mean, std)])
""",
    ],
    "leave-one-out": [
        """
def leave_one_out(rewards, groups):
    out = []
    for i, (reward, group) in enumerate(zip(rewards.tolist(), groups.tolist())):
        others = [r for j, (r, g) in enumerate(zip(rewards.tolist(), groups.tolist())) if g == group and j != i]
        out.append(reward - sum(others) / len(others) if others else 0.0)
    return torch.tensor(out)
""",
        """
def leave_one_out(rewards, groups):
    _, place, count = groups.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(count)).index_add(0, place, rewards)[place]
    n = count[place]
    return ((rewards * n - total) / (n - 1)).masked_fill(n == 1, 0.0)
""",
    ],
    "weights": [
        """
def sum_first(parts, weights):
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights):
        total = total + weight * part
    return group_advantages(total)


def each_first(parts, weights):
    flat = group_advantages(parts.flatten(0, 1)).view_as(parts)
    return (flat * torch.tensor(weights).view(-1, 1, 1)).sum(dim=0)
"""
    ],
}
