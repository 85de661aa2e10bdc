"""Wrong answers to lab 6, the recipe of a page that is handed out."""

from planted import Wrong, changed

PAPER = """
paper = {
    "slots": {
        "question": False, "sample": False, "rewards": False, "select": True, "advantages": True, "loss": False,
        "after_step": True,
    },
    "settings": {"beta": 0.0, "how": "dapo"},
    "coefficients": {"bonus": 0.4, "chance": 0.5},
    "constants": {"cap": 2.0, "decay": 0.9, "warm": 0.1, "cool": 0.4},
    "ablation": "select",
    "readings": {"blame": "text", "reasoning": "longest"},
    "deviations": [
        "1. The sentence on credit and blame is followed, not the equation: blame = text.",
        "2. Whose reasoning it is, the page leaves open; here the longest, which says most about the image.",
        "3. We train an adapter on a small model, so the learning rate is that of the library.",
    ],
}
"""
DEPENDENCE = """
def dependence(own, twin):
    p, q = own.detach().exp(), twin.detach().exp()
    m = (p + q) / 2
    first = torch.where(p > 0, p * (p / m).log(), 0.0).sum(dim=-1)
    second = torch.where(q > 0, q * (q / m).log(), 0.0).sum(dim=-1)
    return ((first + second) / 2 / torch.tensor(2.0).log()).clamp(0, 1)
"""
WEIGHT = """
def weight(progress, warm, cool):
    if min(warm, cool) < 0 or warm + cool > 1:
        raise ValueError(f"warm is {warm} and cool {cool}")
    if progress < warm:
        return progress / warm
    if progress > 1 - cool:
        return (1 - progress) / cool
    return 1.0
"""
CREDIT = """
def token_advantages(A, u, mask, mean, strength, cap, blame):
    if cap < 1 or blame not in ("equation", "text"):
        raise ValueError("cap or blame")
    plain, u = A.unsqueeze(-1), u.masked_fill(~mask, 0.0)
    bonus = torch.minimum(strength * u / mean, plain.abs() / cap)
    counts = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    centred = bonus - (bonus * mask).sum(dim=-1, keepdim=True) / counts
    if blame == "text":
        centred = centred * plain.sign()
    return (plain + centred) * mask
"""
TEXTS = """
def label_texts(texts, groups, labels, reasoning):
    responses = {}
    for b in sorted(set(groups)):
        mine = [text for text, group in zip(texts, groups) if group == b]
        if any(accuracy_reward(mine, labels[b])):
            continue
        good = [text for text, form in zip(mine, format_reward(mine)) if form]
        thoughts = [split_response(text)[0] for text in good]
        if not thoughts:
            continue
        chosen = thoughts[0]
        if reasoning == "longest":
            chosen = max(thoughts, key=len)
        responses[b] = f"<think>{chosen}</think><answer>{labels[b]}</answer>"
    return responses


def twin_select(rollout, *, context, chance=0.5, reasoning=READINGS["reasoning"], warm=0.1, cool=0.4):
    share = chance * weight(context.progress, warm, cool)
    if share == 0:
        return rollout
    joining = {}
    for b, text in label_texts(rollout.texts, rollout.groups.tolist(), context.prompts.labels, reasoning).items():
        if float(torch.rand((), generator=context.generator)) < share:
            joining[b] = text
    return with_label_rows(rollout, joining, context)
"""
SLOPES = """
def slopes(loss, logps, h):
    x = logps.detach().double().clone()
    result = torch.zeros_like(x)
    for n in range(x.shape[0]):
        for t in range(x.shape[1]):
            middle = x[n, t].item()
            x[n, t] = middle + h
            above = float(loss(x))
            x[n, t] = middle - h
            below = float(loss(x))
            x[n, t] = middle
            result[n, t] = (above - below) / (2 * h)
    return result
"""
RECIPE = """
def twin_advantages(
    rewards, *, context, bonus=0.4, cap=2.0, blame=READINGS["blame"], warm=0.1, cool=0.4, **settings
):
    plain = group_advantages(rewards, **settings)
    if bonus == 0:
        return plain
    u, mask = measure(context)
    context.cache["dependence"] = u[mask].mean().item()
    mean = context.state.get("dependence")
    if mean is None:
        return plain
    w = weight(context.progress, warm, cool)
    return token_advantages(plain, u, mask, mean, bonus * w, cap, blame)


def twin_after_step(*, context, decay=0.9):
    now = context.cache.get("dependence")
    if now is None:
        return
    old = context.state.get("dependence", now)
    context.state["dependence"] = decay * old + (1 - decay) * now


TWINVIEW = Recipe(
    name="twinview",
    about="credit moves to tokens that depend on the image",
    source="invented",
    settings={"beta": 0.0, "how": "dapo"},
    coefficients={"bonus": 0.4, "chance": 0.5},
    steps={"select": twin_select, "advantages": twin_advantages, "after_step": twin_after_step},
    cost="a pass without gradient",
)
"""
PROOFS = """
def is_same(one, other):
    same_records = one[0] == other[0]
    return same_records and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def is_grpo_at_zero(recipe, run):
    grpo = run(replace(GRPO, settings=recipe.settings))
    off = run(recipe, coefficients={name: 0.0 for name in recipe.coefficients})
    own = run(recipe)
    return is_same(off, grpo) and not is_same(own, grpo)


def resumes(recipe, run):
    whole = run(recipe)
    return is_same(run(recipe, stop=1), whole) and is_same(run(recipe, stop=2), whole)
"""
CONCLUSION = """
def conclusion(grpo, twin):
    change = compare(grpo, twin)
    low, high = change.interval
    verdict = "no difference shown"
    if low > 0:
        verdict = "above"
    if high < 0:
        verdict = "below"
    numbers = "points {:+.1f}, {:+.1f} to {:+.1f}".format(*(100 * x for x in (change.difference, low, high)))
    seeds = "1 run, one seed" if len(twin) == 1 else f"{len(twin)} runs"
    return f"{verdict}: {numbers}; {seeds}, {change.images} images"
"""

PLANTED: dict[str, list[Wrong]] = {
    "paper": [
        Wrong(
            "sampling from the twin",
            changed(PAPER, '"sample": False', '"sample": True'),
            "nothing is sampled from the twin",
        ),
        Wrong("the moved credit seen as a loss", changed(PAPER, '"loss": False', '"loss": True'), "surrogate is the"),
        Wrong(
            "the label's row seen as a reward", changed(PAPER, '"rewards": False', '"rewards": True'), "no reward but"
        ),
        Wrong(
            "label rows added while sampling, not after the rewards",
            changed(PAPER, '"select": True', '"select": False'),
            "^select",
        ),
        Wrong("running mean overlooked", changed(PAPER, '"after_step": True', '"after_step": False'), "running mean"),
        Wrong("the schedule in steps", changed(PAPER, '"warm": 0.1, "cool": 0.4', '"warm": 40, "cool": 160'), "shares"),
        Wrong(
            "the fall by where it begins", changed(PAPER, '"cool": 0.4', '"cool": 0.6'), "40 and 160 steps of how many"
        ),
        Wrong("their learning rate", changed(PAPER, '"how": "dapo"', '"how": "dapo", "learning_rate": 1e-6'), "7B"),
        Wrong(
            "a setting that is the default anyway",
            changed(PAPER, '"how": "dapo"', '"how": "dapo", "group_size": 8'),
            "by default",
        ),
        Wrong("the KL term kept", changed(PAPER, '"beta": 0.0, ', ""), "no KL term"),
        Wrong("averaged by rows", changed(PAPER, ', "how": "dapo"', ""), "tokens of the step"),
        Wrong(
            "a constant as coefficient",
            changed(PAPER, '"chance": 0.5}', '"chance": 0.5, "cap": 2.0}'),
            "coefficients: bonus and chance",
        ),
        Wrong(
            "lambda and mu exchanged",
            changed(PAPER, '"bonus": 0.4, "chance": 0.5', '"bonus": 0.5, "chance": 0.4'),
            "section 6",
        ),
        Wrong("what the new value gets", changed(PAPER, '"decay": 0.9', '"decay": 0.1'), r"\*old\* mean"),
        Wrong(
            "the smallest loss of the table",
            changed(PAPER, '"ablation": "select"', '"ablation": "advantages"'),
            "furthest below",
        ),
        Wrong("no decision", changed(PAPER, '"blame": "text"', '"blame": "equation or text"'), "decide for one"),
        Wrong(
            "the gap of the reasoning not declared",
            changed(PAPER, "here the longest, which says", "we take one, which says"),
            "declares 'longest'",
        ),
        Wrong(
            "the learning rate not declared",
            changed(PAPER, "so the learning rate is", "so everything is"),
            "declares 'learning rate'",
        ),
        Wrong(
            "two decisions in one line",
            changed(
                changed(PAPER, "blame = text.", "blame = text, and the longest reasoning."),
                "2. Whose reasoning it is, the page leaves open; here the longest, which says most about the image.",
                "2. Nothing else is left open by the page; all the rest is done as it says.",
            ),
            "line of its own",
        ),
        Wrong("deviations without numbers", changed(PAPER, '"2. Whose', '"Whose'), "number them"),
        Wrong(
            "headings in place of sentences",
            changed(
                PAPER,
                "2. Whose reasoning it is, the page leaves open; here the longest, which says most about the image.",
                "2. reasoning: longest",
            ),
            "what you do",
        ),
    ],
    "dependence": [
        Wrong(
            "KL from the image to the twin",
            """
def dependence(own, twin):
    p, q = own.detach().exp(), twin.detach().exp()
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(dim=-1)
""",
            r"KL\(p \|\| q\)",
        ),
        Wrong(
            "KL from the twin to the image",
            """
def dependence(own, twin):
    p, q = own.detach().exp(), twin.detach().exp()
    return torch.where(q > 0, q * (q / p).log(), 0.0).sum(dim=-1)
""",
            r"KL\(q \|\| p\)",
        ),
        Wrong(
            "symmetric KL, without the mean",
            """
def dependence(own, twin):
    p, q = own.detach().exp(), twin.detach().exp()
    return ((p - q) * (p / q).log()).nan_to_num(nan=0.0).sum(dim=-1) / 2
""",
            "mean of the two KLs",
        ),
        Wrong("in nats", changed(DEPENDENCE, " / torch.tensor(2.0).log()", ""), "in nats"),
        Wrong("a sum, not halves", changed(DEPENDENCE, "(first + second) / 2", "(first + second)"), "one half"),
        Wrong("mean over the vocabulary", DEPENDENCE.replace(".sum(dim=-1)", ".mean(dim=-1)"), "not a mean"),
        Wrong(
            "mean of the logarithms",
            changed(DEPENDENCE, "m = (p + q) / 2", "m = ((own + twin) / 2).detach().softmax(dim=-1)"),
            r"\*probabilities\*",
        ),
        Wrong("not summed", DEPENDENCE.replace(".sum(dim=-1)", ""), "sum over the vocabulary"),
        Wrong(
            "-inf left in the product",
            """
def dependence(own, twin):
    own, twin = own.detach(), twin.detach()
    m = torch.logaddexp(own, twin) - torch.tensor(2.0).log()
    nats = (own.exp() * (own - m) + twin.exp() * (twin - m)) / 2
    return (nats.sum(dim=-1) / torch.tensor(2.0).log()).clamp(0, 1)
""",
            "0 times infinity",
        ),
        Wrong(
            "tokens of probability 0 in one tensor left out of both",
            changed(
                changed(DEPENDENCE, "where(p > 0,", "where((p > 0) & (q > 0),"),
                "where(q > 0,",
                "where((p > 0) & (q > 0),",
            ),
            "counts in m",
        ),
        Wrong("square root, the distance", changed(DEPENDENCE, ".clamp(0, 1)", ".clamp(0, 1).sqrt()"), "0.1468"),
        Wrong("differentiable", DEPENDENCE.replace(".detach()", ""), "held constant"),
        Wrong(
            "total variation",
            """
def dependence(own, twin):
    return (own.detach().exp() - twin.detach().exp()).abs().sum(dim=-1) / 2
""",
            "0.1468",
        ),
    ],
    "weight": [
        Wrong("no bound at 1", "def weight(progress, warm, cool):\n    return progress / warm\n", "never exceeds 1"),
        Wrong("a switch in place of the rise", changed(WEIGHT, "return progress / warm", "return 0.0"), "not a switch"),
        Wrong("no rise", changed(WEIGHT, "return progress / warm", "return 1.0"), "begins at 0"),
        Wrong("no fall", changed(WEIGHT, "return (1 - progress) / cool", "return 1.0"), "at 0.8"),
        Wrong("the fall ends in a switch", changed(WEIGHT, "return (1 - progress) / cool", "return 0.0"), "at 0.8"),
        Wrong(
            "the fall begins at cool",
            changed(changed(WEIGHT, "progress > 1 - cool", "progress > cool"), "/ cool", "/ (1 - cool)"),
            "when does the fall begin",
        ),
        Wrong(
            "the rise takes all of the time before the fall",
            changed(
                changed(WEIGHT, "progress < warm", "progress < 1 - cool"), "progress / warm", "progress / (1 - cool)"
            ),
            "halfway through the rise",
        ),
        Wrong(
            "a cosine in place of the line",
            changed(
                WEIGHT, "return (1 - progress) / cool", "x = (1 - progress) / cool\n        return x * x * (3 - 2 * x)"
            ),
            "a line that ends in 0",
        ),
        Wrong(
            "divided by a share of 0",
            changed(
                WEIGHT,
                "    if progress < warm:\n        return progress / warm\n    if progress > 1 - cool:\n"
                "        return (1 - progress) / cool\n    return 1.0\n",
                "    return min(1.0, progress / warm, (1 - progress) / cool)\n",
            ),
            "ZeroDivisionError",
        ),
        Wrong(
            "0 at the start, rise or not",
            changed(
                WEIGHT, "    if progress < warm", "    if not progress:\n        return 0.0\n    if progress < warm"
            ),
            "no rise",
        ),
        Wrong(
            "0 at the end, fall or not",
            changed(
                WEIGHT, "    if progress < warm", "    if progress == 1:\n        return 0.0\n    if progress < warm"
            ),
            "no fall",
        ),
        Wrong("shares that overlap", changed(WEIGHT, " or warm + cool > 1", ""), "ValueError is needed"),
        Wrong("negative shares", changed(WEIGHT, "min(warm, cool) < 0 or ", ""), "ValueError is needed"),
    ],
    "token-advantages": [
        Wrong(
            "not centred",
            changed(CREDIT, "bonus - (bonus * mask).sum(dim=-1, keepdim=True) / counts", "bonus"),
            "credit was created",
        ),
        Wrong(
            "the mean over the width",
            changed(CREDIT, "mask.sum(dim=-1, keepdim=True).clamp(min=1)", "mask.shape[-1]"),
            "what is T",
        ),
        Wrong(
            "no cap",
            changed(CREDIT, "torch.minimum(strength * u / mean, plain.abs() / cap)", "strength * u / mean"),
            "exceeds",
        ),
        Wrong(
            "centred before the cap",
            changed(
                changed(CREDIT, "torch.minimum(strength * u / mean, plain.abs() / cap)", "strength * u / mean"),
                '    if blame == "text"',
                '    centred = torch.minimum(centred, plain.abs() / cap)\n    if blame == "text"',
            ),
            "Cap, then centre",
        ),
        Wrong("the cap of A with its sign", changed(CREDIT, "plain.abs() / cap", "plain / cap"), r"cap is of \|A\|"),
        Wrong("the cap multiplied", changed(CREDIT, "plain.abs() / cap", "plain.abs() * cap"), "exceeds"),
        Wrong("the larger of the two", changed(CREDIT, "torch.minimum", "torch.maximum"), "minimum|A = 0"),
        Wrong("u not divided by its mean", changed(CREDIT, "strength * u / mean", "strength * u"), "0.85|equation"),
        Wrong(
            "the readings exchanged",
            changed(CREDIT, 'blame == "text"', 'blame == "equation"'),
            "as it is, without a sign",
        ),
        Wrong(
            "one reading alone",
            changed(CREDIT, "centred = centred * plain.sign()", "centred = centred * 1.0"),
            "takes more of the blame",
        ),
        Wrong(
            "the bonus taken away",
            changed(CREDIT, "(plain + centred)", "(plain - centred)"),
            "depends on the image more gets more",
        ),
        Wrong(
            "times the mask, with NaN",
            changed(
                changed(CREDIT, ", u = A.unsqueeze(-1), u.masked_fill(~mask, 0.0)", " = A.unsqueeze(-1)"),
                "/ cap)\n",
                "/ cap) * mask\n",
            ),
            "0 times NaN",
        ),
        Wrong(
            "padding has the plain advantage",
            changed(CREDIT, "(plain + centred) * mask", "plain + centred * mask"),
            "mask is False the result is 0",
        ),
        Wrong("0 / 0 in a row without a token", changed(CREDIT, ".clamp(min=1)", ""), "row without a token"),
        Wrong(
            "centred over the group",
            changed(
                CREDIT,
                "(bonus * mask).sum(dim=-1, keepdim=True) / counts",
                "(bonus * mask).sum(dim=(-2, -1), keepdim=True) / counts.sum(dim=-2, keepdim=True)",
            ),
            "A = 0|T times A",
        ),
        Wrong("a cap below 1 is taken", changed(CREDIT, "cap < 1 or ", ""), "could turn a sign"),
        Wrong("any word is a reading", changed(CREDIT, ' or blame not in ("equation", "text")', ""), "is no reading"),
        Wrong(
            "only completions that were better",
            changed(
                CREDIT, "return (plain + centred)", "centred = centred * (plain > 0)\n    return (plain + centred)"
            ),
            "as for A = 1",
        ),
    ],
    "label-rows": [
        Wrong(
            "every group without spread is dead",
            changed(
                TEXTS, "if any(accuracy_reward(mine, labels[b])):", "if len(set(accuracy_reward(mine, labels[b]))) > 1:"
            ),
            "prompt 0",
        ),
        Wrong(
            "right and well formed, or it does not count",
            changed(
                TEXTS,
                "any(accuracy_reward(mine, labels[b]))",
                "any(a * f for a, f in zip(accuracy_reward(mine, labels[b]), format_reward(mine)))",
            ),
            "prompt 2",
        ),
        Wrong(
            "the answer compared as a string",
            changed(
                TEXTS,
                "any(accuracy_reward(mine, labels[b]))",
                "any(split_response(text)[1] == labels[b] for text in mine)",
            ),
            "prompt 2",
        ),
        Wrong(
            "a bare label where there is no reasoning",
            changed(
                TEXTS,
                "            continue\n        chosen",
                '            responses[b] = f"<answer>{labels[b]}</answer>"\n            continue\n        chosen',
            ),
            "prompt 4",
        ),
        Wrong(
            "reasoning of a malformed completion", changed(TEXTS, "if form]", "if split_response(text)[0]]"), "prompt 4"
        ),
        Wrong(
            "the last well-formed completion",
            changed(TEXTS, "chosen = thoughts[0]", "chosen = thoughts[-1]"),
            "prompt 1, first",
        ),
        Wrong(
            "the longest response, not the longest reasoning",
            changed(TEXTS, "max(thoughts, key=len)", "split_response(max(good, key=len))[0]"),
            r"\*reasoning\*",
        ),
        Wrong(
            "the last of the longest",
            changed(TEXTS, "max(thoughts, key=len)", "max(reversed(thoughts), key=len)"),
            "prompt 3, longest",
        ),
        Wrong(
            "labels in the order of the dead groups",
            changed(TEXTS, "<answer>{labels[b]}</answer>", "<answer>{labels[len(responses)]}</answer>"),
            r"\*its\* prompt",
        ),
        Wrong(
            "the old answer kept",
            changed(TEXTS, 'f"<think>{chosen}</think><answer>{labels[b]}</answer>"', "good[thoughts.index(chosen)]"),
            r"\*its\* prompt",
        ),
        Wrong(
            "reasoning without its tags",
            changed(TEXTS, "<think>{chosen}</think>", "{chosen}"),
            "reasoning, then answer",
        ),
        Wrong("in the order of the rows", changed(TEXTS, "sorted(set(groups))", "dict.fromkeys(groups)"), "rising"),
        Wrong(
            "the schedule not used",
            changed(TEXTS, "chance * weight(context.progress, warm, cool)", "chance"),
            "w = 0|a quarter",
        ),
        Wrong(
            "a dead group joins always",
            changed(TEXTS, "if float(torch.rand((), generator=context.generator)) < share", "if share"),
            "a quarter",
        ),
        Wrong(
            "one draw for all groups",
            changed(
                changed(
                    TEXTS,
                    "    joining = {}\n",
                    "    draw = float(torch.rand((), generator=context.generator))\n    joining = {}\n",
                ),
                "if float(torch.rand((), generator=context.generator)) < share",
                "if draw < share",
            ),
            "its own draw",
        ),
        Wrong(
            "above the chance, not below",
            changed(TEXTS, "context.generator)) < share", "context.generator)) > share"),
            "μ·w is 1",
        ),
        Wrong(
            "a global generator",
            changed(TEXTS, "torch.rand((), generator=context.generator)", "torch.rand(())"),
            "context.generator|global generator",
        ),
        Wrong(
            "the reading not handed on",
            changed(TEXTS, "context.prompts.labels, reasoning)", 'context.prompts.labels, "first")'),
            "of this reading",
        ),
        Wrong(
            "another default than the reading declared",
            changed(TEXTS, 'reasoning=READINGS["reasoning"]', 'reasoning="longest"'),
            "your reading of 6.1",
        ),
    ],
    "slopes": [
        Wrong(
            "forward differences",
            changed(
                changed(SLOPES, "x[n, t] = middle - h", "x[n, t] = middle"),
                "(above - below) / (2 * h)",
                "(above - below) / h",
            ),
            "forward difference",
        ),
        Wrong(
            "backward differences",
            changed(
                changed(SLOPES, "x[n, t] = middle + h", "x[n, t] = middle"),
                "(above - below) / (2 * h)",
                "(above - below) / h",
            ),
            "backward difference",
        ),
        Wrong("divided by h", changed(SLOPES, "/ (2 * h)", "/ h"), "a way of 2 h"),
        Wrong("the sign", changed(SLOPES, "(above - below)", "(below - above)"), "minus"),
        Wrong("in float32", changed(SLOPES, ".double()", ""), "float64"),
        Wrong(
            "converted at the end",
            changed(changed(SLOPES, ".double()", ""), "return result", "return result.double()"),
            "give the loss float64",
        ),
        Wrong(
            "the caller's tensor moved",
            changed(
                changed(SLOPES, "x = logps.detach().double().clone()", "x = logps.detach()"),
                "            x[n, t] = middle\n",
                "",
            ).replace("return result", "return result.double()"),
            "was changed",
        ),
        Wrong("elements not put back", changed(SLOPES, "            x[n, t] = middle\n", ""), "put it back"),
        Wrong(
            "all elements moved at once",
            """
def slopes(loss, logps, h):
    x = logps.detach().double()
    return torch.full_like(x, (float(loss(x + h)) - float(loss(x - h))) / (2 * h))
""",
            "every element by itself",
        ),
        Wrong(
            "autograd",
            """
def slopes(loss, logps, h):
    x = logps.detach().double().requires_grad_()
    return torch.autograd.grad(loss(x), x)[0]
""",
            "without autograd",
        ),
        Wrong(
            "one element at a time, without the others",
            """
def slopes(loss, logps, h):
    x = logps.detach().double()
    each = [(float(loss(y + h)) - float(loss(y - h))) / (2 * h) for y in x.flatten()]
    return torch.tensor(each, dtype=torch.float64).view(x.shape)
""",
            "the whole",
        ),
        Wrong("a step of its own", changed(SLOPES, "    x = logps", "    h = 1e-4\n    x = logps"), "is h used"),
        Wrong("flattened", changed(SLOPES, "return result", "return result.flatten()"), "one slope per element"),
    ],
    "recipe": [
        Wrong(
            "measured without need",
            changed(
                RECIPE,
                "    if bonus == 0:\n        return plain\n    u, mask = measure(context)\n",
                "    u, mask = measure(context)\n    if bonus == 0:\n        return plain\n",
            ),
            "a pass that nobody needs",
        ),
        Wrong(
            "settings not handed on",
            changed(RECIPE, "group_advantages(rewards, **settings)", "group_advantages(rewards)"),
            "scale='none' was lost",
        ),
        Wrong(
            "this step's own mean",
            changed(RECIPE, 'mean = context.state.get("dependence")', 'mean = context.cache["dependence"]'),
            "plain advantages",
        ),
        Wrong(
            "state changed in the middle of a step",
            changed(
                RECIPE,
                'context.cache["dependence"] = u[mask].mean().item()',
                'context.cache["dependence"] = context.state["dependence"] = u[mask].mean().item()',
            ),
            "no ū yet|for twin_after_step",
        ),
        Wrong(
            "state changed after it was used",
            changed(
                RECIPE,
                "    w = weight(context.progress, warm, cool)\n",
                '    context.state["dependence"] = 0.9 * mean + 0.1 * context.cache["dependence"]\n'
                "    w = weight(context.progress, warm, cool)\n",
            ),
            "for twin_after_step",
        ),
        Wrong(
            "the mean over padding, too", changed(RECIPE, "u[mask].mean()", "u.nan_to_num().mean()"), "not over padding"
        ),
        Wrong("the mean as a tensor", changed(RECIPE, "u[mask].mean().item()", "u[mask].mean()"), "a float"),
        Wrong("the schedule forgotten", changed(RECIPE, "bonus * w,", "bonus,"), "λ times w"),
        Wrong("the reading forgotten", changed(RECIPE, "cap, blame)", 'cap, "text")'), "blame"),
        Wrong(
            "decay of the new value",
            changed(RECIPE, "decay * old + (1 - decay) * now", "(1 - decay) * old + decay * now"),
            "0.56 afterwards",
        ),
        Wrong(
            "the running mean begins at 0",
            changed(
                RECIPE,
                'context.state.get("dependence", now)\n    context',
                'context.state.get("dependence", 0.0)\n    context',
            ),
            "not there yet",
        ),
        Wrong("replaced, not averaged", changed(RECIPE, "decay * old + (1 - decay) * now", "now"), "0.56 afterwards"),
        Wrong(
            "0 where nothing was measured",
            changed(
                changed(RECIPE, 'context.cache.get("dependence")', 'context.cache.get("dependence", 0.0)'),
                "    if now is None:\n        return\n",
                "",
            ),
            "stays as it is",
        ),
        Wrong(
            "kept outside the state",
            changed(RECIPE, 'context.state["dependence"] = decay', "context.kept = decay"),
            "context.state",
        ),
        Wrong(
            "after_step not in the recipe", changed(RECIPE, ', "after_step": twin_after_step', ""), "steps: the slots"
        ),
        Wrong(
            "their learning rate in the settings",
            changed(RECIPE, '"how": "dapo"}', '"how": "dapo", "learning_rate": 1e-6}'),
            "settings: those",
        ),
        Wrong(
            "a constant among the coefficients",
            changed(RECIPE, '"chance": 0.5}', '"chance": 0.5, "cap": 2.0}'),
            "coefficients",
        ),
        Wrong("a source that does not exist", changed(RECIPE, '"invented"', '"TwinView, 2025"'), "no paper"),
        Wrong("no cost", changed(RECIPE, '"a pass without gradient"', '"none"'), "what a step needs"),
        Wrong("another constant", changed(RECIPE, "cap=2.0", "cap=1.0"), "cap"),
        Wrong(
            "the select in the slot of the sampling",
            changed(RECIPE, '"select": twin_select', '"sample": twin_select'),
            "steps: the slots",
        ),
    ],
    "proofs": [
        Wrong(
            "records alone",
            changed(
                PROOFS,
                "same_records and all(torch.equal(one[1][name], other[1][name]) for name in one[1])",
                "same_records",
            ),
            "compare all weights",
        ),
        Wrong("weights alone", changed(PROOFS, "return same_records and all", "return all"), "compare every record"),
        Wrong(
            "losses alone",
            changed(
                PROOFS,
                "one[0] == other[0]",
                '[record["loss"] for record in one[0]] == [record["loss"] for record in other[0]]',
            ),
            "whole records",
        ),
        Wrong("the first record", changed(PROOFS, "one[0] == other[0]", "one[0][0] == other[0][0]"), "every record"),
        Wrong("the last record", changed(PROOFS, "one[0] == other[0]", "one[0][-1] == other[0][-1]"), "whole records"),
        Wrong(
            "the first weight",
            changed(PROOFS, "for name in one[1])", "for name in list(one[1])[:1])"),
            "compare all weights",
        ),
        Wrong("with a margin", changed(PROOFS, "torch.equal", "torch.allclose"), "bit for bit"),
        Wrong(
            "tensors compared with ==",
            changed(
                PROOFS,
                "same_records and all(torch.equal(one[1][name], other[1][name]) for name in one[1])",
                "one == other",
            ),
            "ambiguous",
        ),
        Wrong("the same objects", changed(PROOFS, "one[0] == other[0]", "one[0] is other[0]"), "two equal runs"),
        Wrong(
            "plain GRPO under other settings",
            changed(PROOFS, "replace(GRPO, settings=recipe.settings)", "GRPO"),
            "same settings",
        ),
        Wrong(
            "one coefficient at 0",
            changed(PROOFS, "for name in recipe.coefficients}", "for name in list(recipe.coefficients)[:1]}"),
            "all coefficients at 0",
        ),
        Wrong(
            "never asked whether it does anything",
            changed(PROOFS, " and not is_same(own, grpo)", ""),
            "do nothing at all",
        ),
        Wrong(
            "the recipe compared with itself",
            changed(PROOFS, "is_same(off, grpo) and", "is_same(off, off) and"),
            "compare all weights",
        ),
        Wrong(
            "killed after the first step alone",
            changed(PROOFS, " and is_same(run(recipe, stop=2), whole)", ""),
            "killed after step 2",
        ),
        Wrong(
            "killed after the second step alone",
            changed(PROOFS, "is_same(run(recipe, stop=1), whole) and ", ""),
            "killed after step 1",
        ),
        Wrong(
            "two resumed runs compared",
            changed(PROOFS, "whole = run(recipe)", "whole = run(recipe, stop=1)"),
            "not killed",
        ),
        Wrong(
            "resumed with the coefficients at 0",
            changed(
                PROOFS,
                "whole = run(recipe)\n",
                "recipe = replace(recipe, coefficients={name: 0.0 for name in recipe.coefficients})\n"
                "    whole = run(recipe)\n",
            ),
            "killed after",
        ),
        Wrong(
            "everything passes",
            changed(
                changed(PROOFS, "return is_same(off, grpo) and not is_same(own, grpo)", "return True"),
                "return is_same(run(recipe, stop=1), whole) and is_same(run(recipe, stop=2), whole)",
                "return True",
            ),
            "let this pass",
        ),
        Wrong(
            "an assert, no verdict",
            changed(PROOFS, "return is_same(off, grpo) and not", "assert is_same(off, grpo) and not"),
            "True or False",
        ),
    ],
    "conclusion": [
        Wrong(
            "the sign of the difference decides",
            changed(
                changed(CONCLUSION, "if low > 0", "if change.difference > 0"), "if high < 0", "if change.difference < 0"
            ),
            "interval with 0 inside",
        ),
        Wrong(
            "two intervals, not one of the pairs",
            changed(
                changed(CONCLUSION, "if low > 0", "if twin[0].interval[0] > grpo[0].interval[1]"),
                "if high < 0",
                "if twin[0].interval[1] < grpo[0].interval[0]",
            ),
            "image by image",
        ),
        Wrong("the wrong way round", changed(CONCLUSION, "compare(grpo, twin)", "compare(twin, grpo)"), "which of"),
        Wrong("shares", changed(CONCLUSION, "100 * x", "x"), "percentage points"),
        Wrong("0 counts as above", changed(CONCLUSION, "if low > 0", "if low >= 0"), "0 inside|begins at 0|of three"),
        Wrong(
            "one run of each",
            changed(CONCLUSION, "compare(grpo, twin)", "compare(grpo[0], twin[0])"),
            "seed|redraws|ends of",
        ),
        Wrong(
            "all runs in one",
            changed(
                CONCLUSION,
                "compare(grpo, twin)",
                "compare(*(replace(runs[0], answers=[replace(a, source=f'{s} {a.source}') for s, run in enumerate(runs)"
                " for a in run.answers]) for runs in (grpo, twin)))",
            ),
            "ends of the paired interval|40 images|redraws",
        ),
        Wrong(
            "runs paired with other seeds",
            changed(CONCLUSION, "compare(grpo, twin)", "compare(grpo[::-1], twin)"),
            "run s is paired",
        ),
        Wrong("no runs named", changed(CONCLUSION, "{seeds}, {change", "{change"), "how many runs"),
        Wrong("no images named", changed(CONCLUSION, ", {change.images} images", ""), "how many images"),
        Wrong("one seed not said", changed(CONCLUSION, '"1 run, one seed"', '"1 run"'), "say `one seed`"),
        Wrong(
            "both words",
            changed(CONCLUSION, "{verdict}: ", "{verdict} (above, below or no difference shown): "),
            "one of above, below",
        ),
        Wrong(
            "no verdict", changed(CONCLUSION, "{verdict}: ", "TwinView changes the accuracy: "), "one of above, below"
        ),
        Wrong(
            "no sign",
            changed(CONCLUSION, "points {:+.1f}, {:+.1f} to {:+.1f}", "{:.1f}, {:.1f} to {:.1f}"),
            "three numbers with a sign",
        ),
        Wrong(
            "high before low",
            changed(CONCLUSION, "(change.difference, low, high)))", "(change.difference, high, low)))"),
            "low and then high",
        ),
        Wrong(
            "the interval of the accuracy",
            changed(CONCLUSION, "(change.difference, low, high)))", "(change.difference, *twin[0].interval)))"),
            "ends of the paired interval",
        ),
        Wrong("never a loss", changed(CONCLUSION, '    if high < 0:\n        verdict = "below"\n', ""), "below"),
    ],
}
