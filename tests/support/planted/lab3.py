"""Wrong answers to lab 3, the loss and the loop."""

from planted import Wrong, changed

LOGPS = """
def completion_logps(logits, ids, P, temperature):
    logps = (logits[:, P - 1 : -1].float() / temperature).log_softmax(dim=-1)
    return logps.gather(-1, ids[:, P:, None])[..., 0]
"""
SURROGATE = """
def surrogate(logps, old_logps, advantages, low, high):
    A = advantages[:, None]
    ratio = (logps - old_logps.detach()).exp()
    return torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * A)
"""
KL = """
def kl_penalty(logps, ref_logps):
    d = (ref_logps.detach() - logps).clamp(-20, 20)
    return d.exp() - d - 1
"""
WEIGHTS = """
def token_weights(mask, how, G, max_length):
    N, lengths = len(mask), mask.sum(dim=1, keepdim=True)
    if how == "grpo":
        return mask / (N * lengths.clamp(min=1))
    if how == "dapo":
        return mask / lengths.sum()
    if how == "dr_grpo":
        return mask / (N * max_length)
    of_groups = lengths.view(-1, G).sum(dim=1).repeat_interleave(G)[:, None]
    return mask / (N // G * of_groups.clamp(min=1))
"""
PARTS = """
def backward_in_parts(logps_of, advantages, mask, size, how):
    total = 0.0
    for rows in torch.arange(len(mask)).split(size):
        kept = mask[rows]
        divisor = len(mask) * kept.sum(dim=1, keepdim=True) if how == "grpo" else mask.sum()
        loss = (-advantages[rows, None] * logps_of(rows) * kept / divisor).sum()
        loss.backward()
        total += loss.item()
    return total
"""
SEQUENCE = """
def sequence_surrogate(logps, old_logps, advantages, mask, low, high):
    log_ratio = (logps - old_logps.detach()).masked_fill(~mask, 0.0)
    ratio = (log_ratio.sum(dim=1) / mask.sum(dim=1)).exp()
    return torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
"""
FAULTY = """
def faulty(loss):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < torch.tensor([6, 2, 4, 3, 5, 1])[:, None]
    now, old, ref = -1 + torch.randn(3, 6, 6, generator=generator)
    A = torch.tensor([1.2, -0.7, 0.5, -1.0, 0.9, -0.9])

    def look(function):
        x = now.clone().requires_grad_()
        value = function(x, old, ref, A, mask)
        slope = torch.autograd.grad(value, x)[0] if value.requires_grad else torch.zeros_like(x)
        return torch.cat([value.detach().view(1), slope.flatten()])

    return not torch.allclose(look(loss), look(lambda *batch: grpo_loss(*batch)[0]), atol=1e-5, rtol=1e-4)
"""
STEP = """
def one_step(policy, prompts, optimiser, G, beta, seed):
    rollout = sample_groups(policy, prompts, G, max_new_tokens=32, seed=seed)
    gold = [prompts.labels[b] for b in rollout.groups]
    scores = [accuracy_reward(rollout.texts, gold), format_reward(rollout.texts)]
    rewards = torch.tensor(scores).sum(dim=0)
    advantages = group_advantages(rewards.view(-1, G)).flatten()
    logps = score_completions(policy, prompts, rollout)
    with policy.reference(), torch.no_grad():
        ref_logps = score_completions(policy, prompts, rollout)
    loss, _ = grpo_loss(logps, logps.detach(), ref_logps, advantages, rollout.mask, beta=beta)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    with torch.no_grad():
        after = score_completions(policy, prompts, rollout)
    return rollout, advantages, (after - logps.detach()).sum(dim=1)
"""
AUDIT = """
def audit(records, window):
    def mean(part, of):
        return sum(of(record) for record in part) / len(part)

    first, last = records[:window], records[-window:]
    spans = [records[i - window : i] for i in range(window, len(records) + 1)]
    latest = {}
    for record in records:
        for label, count in record.labels.items():
            latest[label] = count["right_so_far"]
    fallen = []
    for name in records[0].rewards:
        if mean(last, lambda r: r.rewards[name]) < mean(first, lambda r: r.rewards[name]):
            fallen.append(name)
    rose = mean(last, lambda r: r.reward) > mean(first, lambda r: r.reward)
    return {
        "kl": next((r.step for r in records if (r.kl or 0.0) > 0.5), None),
        "flat": next((span[-1].step for span in spans if mean(span, lambda r: r.flat_groups) > 0.5), None),
        "fallen": sorted(fallen) if rose else [],
        "never": sorted(label for label, right in latest.items() if right == 0),
    }
"""

PLANTED: dict[str, list[Wrong]] = {
    "completion-logps": [
        Wrong(
            "logits and ids side by side, not shifted",
            changed(LOGPS, "logits[:, P - 1 : -1]", "logits[:, P:]"),
            "token at t . 1",
        ),
        Wrong(
            "first completion token lost in the shift",
            changed(changed(LOGPS, "P - 1 : -1", "P:-1"), "ids[:, P:, None]", "ids[:, P + 1 :, None]"),
            "first completion token",
        ),
        Wrong(
            "the prompt is scored too",
            changed(changed(LOGPS, "P - 1 : -1", ":-1"), "ids[:, P:, None]", "ids[:, 1:, None]"),
            "only the completion",
        ),
        Wrong(
            "logits times the temperature",
            changed(LOGPS, "/ temperature", "* temperature"),
            "which side of the fraction",
        ),
        Wrong(
            "temperature after the softmax",
            """
def completion_logps(logits, ids, P, temperature):
    logps = logits[:, P - 1 : -1].float().log_softmax(dim=-1) / temperature
    return logps.gather(-1, ids[:, P:, None])[..., 0]
""",
            "what is divided, and when",
        ),
        Wrong("probabilities, no logarithm", changed(LOGPS, "log_softmax", "softmax"), "logarithm"),
        Wrong("softmax over the positions", changed(LOGPS, "dim=-1", "dim=1"), "softmax over V"),
        Wrong(
            "softmax in bfloat16, float32 afterwards",
            """
def completion_logps(logits, ids, P, temperature):
    logps = (logits[:, P - 1 : -1] / temperature).log_softmax(dim=-1)
    return logps.gather(-1, ids[:, P:, None])[..., 0].float()
""",
            "three digits",
        ),
        Wrong("scored without a gradient", changed(LOGPS, "[..., 0]", "[..., 0].detach()"), "no gradient"),
        Wrong(
            "two prompt tokens, whatever P is",
            changed(changed(LOGPS, "P - 1 : -1", "1:-1"), "ids[:, P:, None]", "ids[:, 2:, None]"),
            "one number per completion token",
        ),
        Wrong(
            "temperatures below 1 ignored",
            changed(LOGPS, "/ temperature", "/ max(temperature, 1.0)"),
            "not the log-probability at T of",
        ),
        Wrong(
            "divided in bfloat16, float32 afterwards",
            changed(LOGPS, ".float() / temperature)", " / temperature).float()"),
            "not the log-probability at T of",
        ),
        Wrong(
            "the normaliser held constant",
            """
def completion_logps(logits, ids, P, temperature):
    scaled = logits[:, P - 1 : -1].float() / temperature
    logps = scaled - scaled.logsumexp(dim=-1, keepdim=True).detach()
    return logps.gather(-1, ids[:, P:, None])[..., 0]
""",
            "is a part of the softmax held",
        ),
        Wrong(
            "a small number inside the logarithm",
            changed(LOGPS, ".log_softmax(dim=-1)", ".softmax(dim=-1).add(1e-6).log()"),
            "where is the logarithm",
        ),
        Wrong(
            "the logarithm of a softmax",
            changed(LOGPS, ".log_softmax(dim=-1)", ".softmax(dim=-1).log()"),
            "not the log-probability at T of",
        ),
        Wrong("in float64", changed(LOGPS, ".float()", ".double()"), "whatever the logits are"),
        Wrong(
            "logarithms to base 2", changed(LOGPS, "[..., 0]", "[..., 0] / log(2)"), "the probabilities of all V tokens"
        ),
        Wrong(
            "the sign of a loss", changed(LOGPS, "return logps", "return -logps"), "the probabilities of all V tokens"
        ),
        Wrong(
            "the root of the temperature",
            changed(LOGPS, "/ temperature", "/ temperature**0.5"),
            "on which side of the fraction is",
        ),
        Wrong(
            "bounded below", changed(LOGPS, "[..., 0]", "[..., 0].clamp(min=-20)"), "not the log-probability at T of"
        ),
        Wrong(
            "the caller's logits scaled in place",
            changed(
                LOGPS,
                "    logps =",
                (
                    "    if logits.is_contiguous() and not logits.requires_grad:\n"
                    "        logits /= temperature\n        temperature = 1.0\n    logps ="
                ),
            ),
            "s logits were changed: work on",
        ),
    ],
    "surrogate": [
        Wrong("the larger of the two", changed(SURROGATE, "torch.min", "torch.max"), "which counts"),
        Wrong(
            "clipped always, without the minimum",
            """
def surrogate(logps, old_logps, advantages, low, high):
    ratio = (logps - old_logps.detach()).exp()
    return ratio.clamp(1 - low, 1 + high) * advantages[:, None]
""",
            "keeps its own ratio",
        ),
        Wrong(
            "ratio inverted", changed(SURROGATE, "logps - old_logps.detach()", "old_logps.detach() - logps"), "above"
        ),
        Wrong(
            "old log-probabilities not held fixed", changed(SURROGATE, "old_logps.detach()", "old_logps"), "exactly 0"
        ),
        Wrong("the whole ratio held fixed", changed(SURROGATE, ".exp()", ".exp().detach()"), "too much detached"),
        Wrong("sign of a loss", changed(SURROGATE, "torch.min", "-torch.min"), "maximised"),
        Wrong(
            "advantages along the tokens", changed(SURROGATE, "advantages[:, None]", "advantages[None]"), r"\*row\* i"
        ),
        Wrong("one bound for both sides", changed(SURROGATE, "1 + high", "1 + low"), r"1 \+ high"),
        Wrong(
            "the log-ratio is clipped",
            """
def surrogate(logps, old_logps, advantages, low, high):
    A = advantages[:, None]
    log_ratio = logps - old_logps.detach()
    return torch.min(log_ratio.exp() * A, log_ratio.clamp(-low, high).exp() * A)
""",
            "not its logarithm",
        ),
        Wrong(
            "ratio times advantage is clipped",
            changed(SURROGATE, "ratio.clamp(1 - low, 1 + high) * A", "(ratio * A).clamp(1 - low, 1 + high)"),
            "clipped first",
        ),
        Wrong(
            "mean over the tokens",
            changed(
                changed(changed(SURROGATE, "return torch.min(", "return ("), "* A, ratio", "* A).minimum(ratio"),
                "high) * A)",
                "high) * A).mean(dim=1)",
            ),
            "nothing is averaged",
        ),
        Wrong(
            "bounds of the published paper, arguments ignored",
            changed(SURROGATE, "1 - low, 1 + high", "1 - 0.2, 1 + (0.28 if high > low else 0.2)"),
            "s surrogate is another; which of",
        ),
        Wrong(
            "low and high exchanged", changed(SURROGATE, "1 - low, 1 + high", "1 - high, 1 + low"), "the upper bound is"
        ),
        Wrong(
            "no lower bound",
            changed(SURROGATE, "ratio.clamp(1 - low, 1 + high)", "ratio.clamp(max=1 + high)"),
            "the ratio is clipped first, then",
        ),
        Wrong(
            "the upper bound for both signs",
            changed(
                SURROGATE,
                "torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * A)",
                ("torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * A).clamp(-1 - high, 1 + high)"),
            ),
            "a token that wrongly got likelier",
        ),
        Wrong(
            "the lower bound is 1 / (1 + low)",
            changed(SURROGATE, "1 - low, 1 + high", "1 / (1 + low), 1 + high"),
            "the ratio is clipped first, then",
        ),
        Wrong(
            "advantages made signs",
            changed(SURROGATE, "A = advantages[:, None]", "A = advantages[:, None].sign()"),
            "s gradient is A for each token",
        ),
        Wrong(
            "the clipped gradient goes through",
            changed(
                SURROGATE,
                "    return torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * A)",
                (
                    "    kept = torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * A)\n"
                    "    return ratio * A + (kept - ratio * A).detach()"
                ),
            ),
            "where clipped",
        ),
        Wrong(
            "the gradient of the log-probability, without the ratio",
            changed(
                SURROGATE,
                "    return torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * A)",
                (
                    "    kept = torch.min(ratio * A, ratio.clamp(1 - low, 1 + high) * "
                    "A).detach()\n    inside = (ratio * A <= kept).float() * A\n"
                    "    return kept + inside * (logps - logps.detach())"
                ),
            ),
            "where clipped",
        ),
        Wrong(
            "the log-ratio in place of the ratio",
            changed(SURROGATE, ".exp()", " + 1"),
            "a token that moved the wrong way",
        ),
        Wrong(
            "negative advantages never clipped",
            changed(
                SURROGATE,
                "ratio.clamp(1 - low, 1 + high) * A)",
                "torch.where(A > 0, ratio.clamp(1 - low, 1 + high), ratio) * A)",
            ),
            "the ratio is clipped first, then",
        ),
        Wrong(
            "one ratio per row",
            changed(SURROGATE, ".exp()", ".mean(dim=1, keepdim=True).exp().expand(logps.shape)"),
            "is the most that it can earn",
        ),
        Wrong(
            "the ratio of probabilities to base 2",
            changed(SURROGATE, ".exp()", ".exp2()"),
            "a token that moved the wrong way",
        ),
        Wrong(
            "centred advantages",
            changed(SURROGATE, "advantages[:, None]", "(advantages - advantages.mean())[:, None]"),
            "a token that is likelier now than",
        ),
    ],
    "kl-penalty": [
        Wrong(
            "policy and reference exchanged",
            """
def kl_penalty(logps, ref_logps):
    d = (logps - ref_logps.detach()).clamp(-20, 20)
    return d.exp() - d - 1
""",
            "which way is d",
        ),
        Wrong("sign reversed", changed(KL, "d.exp() - d - 1", "-(d.exp() - d - 1)"), "its sign"),
        Wrong("k1, which can be negative", changed(KL, "d.exp() - d - 1", "-d"), "not k1"),
        Wrong("k2, which is biased", changed(KL, "d.exp() - d - 1", "d**2 / 2"), "biased"),
        Wrong("1 not subtracted", changed(KL, "d.exp() - d - 1", "d.exp() - d"), "last term"),
        Wrong("no bound", changed(KL, ".clamp(-20, 20)", ""), "overflows"),
        Wrong("bounded above only", changed(KL, "clamp(-20, 20)", "clamp(max=20)"), "-300"),
        Wrong(
            "the penalty is bounded, not its exponent",
            """
def kl_penalty(logps, ref_logps):
    d = ref_logps.detach() - logps
    return (d.exp() - d - 1).clamp(max=20)
""",
            "clamp d itself",
        ),
        Wrong(
            "exponential clamped to finite values",
            """
def kl_penalty(logps, ref_logps):
    d = ref_logps.detach() - logps
    return d.exp().clamp(max=4.85e8) - d.clamp(-20, 20) - 1
""",
            "NaN",
        ),
        Wrong("the reference is trained, too", changed(KL, "ref_logps.detach()", "ref_logps"), "never trained"),
        Wrong("a number to log, without gradient", changed(KL, "- logps)", "- logps.detach())"), "learn from"),
        Wrong("bounded at 10", changed(KL, "clamp(-20, 20)", "clamp(-10, 20)"), "the penalty there is"),
        Wrong("bounded at 6 above", changed(KL, "clamp(-20, 20)", "clamp(-20, 6)"), "with one d, clamped once"),
        Wrong(
            "the linear term's gradient lost",
            changed(KL, "d.exp() - d - 1", "d.exp() - d.detach() - 1"),
            "the gradient with respect to logps",
        ),
        Wrong(
            "the exponential's gradient lost",
            changed(KL, "d.exp() - d - 1", "d.exp().detach() - d - 1"),
            "the gradient with respect to logps",
        ),
        Wrong("the absolute value of k1", changed(KL, "d.exp() - d - 1", "d.abs()"), "probabilities"),
        Wrong(
            "the mean over the tokens",
            changed(KL, "d.exp() - d - 1", "(d.exp() - d - 1).mean()"),
            "one number per token",
        ),
        Wrong(
            "the mean of both directions",
            changed(KL, "d.exp() - d - 1", "(d.exp() + (-d).exp()) / 2 - 1"),
            "probabilities",
        ),
        Wrong("in bits", changed(KL, "d.exp() - d - 1", "(d.exp() - d - 1) / log(2)"), "probabilities"),
        Wrong("a series of three terms", changed(KL, "d.exp() - d - 1", "d**2 / 2 + d**3 / 6"), "probabilities"),
        Wrong(
            "the reference changed in place",
            changed(
                KL,
                "(ref_logps.detach() - logps).clamp(-20, 20)",
                "ref_logps.detach().sub_(logps.detach()).clamp(-20, 20) + (logps.detach() - logps)",
            ),
            "compute a new tensor",
        ),
        Wrong(
            "negative values cut off",
            changed(KL, "(ref_logps.detach() - logps).clamp(-20, 20)", "(ref_logps.detach() - logps).clamp(0, 20)"),
            "probabilities",
        ),
        Wrong(
            "positive values cut off",
            changed(KL, "(ref_logps.detach() - logps).clamp(-20, 20)", "(ref_logps.detach() - logps).clamp(-20, 0)"),
            "weighted by the policy",
        ),
        Wrong(
            "the penalty bounded at 1000",
            changed(KL, "d.exp() - d - 1", "(d.exp() - d - 1).clamp(max=1000)"),
            "with one d, clamped once",
        ),
    ],
    "token-weights": [
        Wrong(
            "grpo divides by the width",
            changed(WEIGHTS, "(N * lengths.clamp(min=1))", "mask.numel()"),
            "length of a row",
        ),
        Wrong(
            "grpo over tokens, as dapo",
            changed(WEIGHTS, "(N * lengths.clamp(min=1))", "lengths.sum()"),
            "each row weighs",
        ),
        Wrong(
            "dapo by rows, as grpo",
            changed(WEIGHTS, "mask / lengths.sum()", "mask / (N * lengths.clamp(min=1))"),
            "eight tokens weigh the same",
        ),
        Wrong(
            "dr_grpo divides by the batch's width",
            changed(WEIGHTS, "max_length)\n    of", "mask.shape[1])\n    of"),
            "constant",
        ),
        Wrong("dr_grpo without the rows", changed(WEIGHTS, "(N * max_length)", "max_length"), "rows times max_length"),
        Wrong(
            "group: mean of its rows' means",
            changed(
                WEIGHTS,
                "return mask / (N // G * of_groups.clamp(min=1))",
                "return mask / (N // G * G * lengths.clamp(min=1))",
            ),
            r"\*tokens\*",
        ),
        Wrong(
            "group and position in the group mixed up",
            changed(
                WEIGHTS,
                "lengths.view(-1, G).sum(dim=1).repeat_interleave(G)",
                "lengths.view(G, -1).sum(dim=0).repeat(G)",
            ),
            "are group b",
        ),
        Wrong(
            "mask forgotten",
            changed(WEIGHTS, "return mask / lengths.sum()", "return torch.ones(mask.shape) / lengths.sum()"),
            "where is the mask",
        ),
        Wrong("0 / 0 in an empty row", changed(WEIGHTS, "(N * lengths.clamp(min=1))", "(N * lengths)"), "no 0 / 0"),
        Wrong(
            "empty rows not counted",
            changed(WEIGHTS, "(N * lengths.clamp(min=1))", "((lengths > 0).sum() * lengths.clamp(min=1))"),
            "one of the N rows",
        ),
        Wrong(
            "always two groups", changed(WEIGHTS, "N // G * of_groups", "2 * of_groups"), "s weight is another; see the"
        ),
        Wrong(
            "empty rows are no part of the group",
            changed(WEIGHTS, "N // G * of_groups", "(lengths > 0).sum() / G * of_groups"),
            "s weight is another; see the",
        ),
        Wrong(
            "dr_grpo with 4 rows",
            changed(WEIGHTS, "(N * max_length)", "(4 * max_length)"),
            "s weight is another; see the",
        ),
        Wrong(
            "max_length at most the width plus 3",
            changed(WEIGHTS, "(N * max_length)", "(N * max(max_length, mask.shape[1]))"),
            "s weight is another; see the",
        ),
        Wrong(
            "rows are cut after four tokens",
            changed(WEIGHTS, "(N * lengths.clamp(min=1))", "(N * torch.where(lengths > 4, 4, lengths).clamp(min=1))"),
            "s weight is another; see the",
        ),
        Wrong(
            "dapo over the tokens of the longest rows",
            changed(WEIGHTS, "mask / lengths.sum()", "mask / (lengths.clamp(min=1).sum())"),
            "differs from the library",
        ),
        Wrong(
            "group: over all tokens, as dapo",
            changed(WEIGHTS, "return mask / (N // G * of_groups.clamp(min=1))", "return mask / lengths.sum()"),
            "each group weighs the same; rows b",
        ),
        Wrong(
            "group: each group's weights add up to 1",
            changed(WEIGHTS, "N // G * of_groups", "of_groups"),
            "Is L the length of a row",
        ),
        Wrong(
            "group: divided by the rows",
            changed(WEIGHTS, "N // G * of_groups", "N * of_groups"),
            "Is L the length of a row",
        ),
        Wrong(
            "an empty row is given a token, in the caller's mask",
            changed(WEIGHTS, "    N, lengths", "    mask[~mask.any(dim=1), 0] = True\n    N, lengths"),
            "s mask was changed: work on a copy",
        ),
        Wrong(
            "whole numbers",
            changed(WEIGHTS, "return mask / lengths.sum()", "return mask.long() // lengths.sum()"),
            "one weight per token, floats",
        ),
        Wrong(
            "grpo where dr_grpo is asked",
            changed(WEIGHTS, "return mask / (N * max_length)", "return mask / (N * lengths.clamp(min=1))"),
            "rows times max_length",
        ),
        Wrong(
            "rows of a group dealt out in turn",
            changed(WEIGHTS, ".repeat_interleave(G)", ".repeat(G)"),
            "Is L the length of a row",
        ),
    ],
    "backward-in-parts": [
        Wrong(
            "each part's own mean, without weights",
            changed(changed(PARTS, "len(mask) * kept", "len(kept) * kept"), "else mask.sum()", "else kept.sum()"),
            "grpo, 1 of 5.*by what do you divide",
        ),
        Wrong(
            "mean of the parts' means",
            changed(
                changed(changed(PARTS, "len(mask) * kept", "len(kept) * kept"), "else mask.sum()", "else kept.sum()"),
                "kept / divisor).sum()",
                "kept / divisor).sum() / -(-len(mask) // size)",
            ),
            "grpo, 2 of 5.*by what do you divide",
        ),
        Wrong(
            "dapo by the tokens of the part",
            changed(PARTS, "else mask.sum()", "else kept.sum() * len(mask) / len(rows)"),
            "dapo, 1 of 5.*by what do you divide",
        ),
        Wrong(
            "last, smaller part dropped",
            """
def backward_in_parts(logps_of, advantages, mask, size, how):
    total = 0.0
    for start in range(0, len(mask) // size * size, size):
        rows = torch.arange(start, start + size)
        kept = mask[rows]
        divisor = len(mask) * kept.sum(dim=1, keepdim=True) if how == "grpo" else mask.sum()
        loss = (-advantages[rows, None] * logps_of(rows) * kept / divisor).sum()
        loss.backward()
        total += loss.item()
    return total
""",
            "no multiple",
        ),
        Wrong(
            "the loss of the last part is returned",
            changed(PARTS, "total += loss.item()", "total = loss.item()"),
            "gradient is right",
        ),
        Wrong(
            "all rows at once, then cut",
            changed(
                changed(
                    changed(PARTS, "total = 0.0", "total, logps = 0.0, logps_of(torch.arange(len(mask)))"),
                    "logps_of(rows)",
                    "logps[rows]",
                ),
                "loss.backward()",
                "loss.backward(retain_graph=True)",
            ),
            "no memory",
        ),
        Wrong(
            "one backward at the end",
            changed(
                PARTS,
                "        loss.backward()\n        total += loss.item()\n    return total",
                "        total = total + loss\n    total.backward()\n    return total.item()",
            ),
            "before the next rows",
        ),
        Wrong(
            "the loss as a tensor", changed(PARTS, "total += loss.item()", "total = total + loss.detach()"), r"\.item"
        ),
        Wrong(
            "the sign of the loss", changed(PARTS, "(-advantages", "(advantages"), "s gradient; by what do you divide"
        ),
        Wrong(
            "dapo by the rows' mean length",
            changed(PARTS, "else mask.sum()", "else len(mask) * mask.shape[1]"),
            "s gradient; by what do you divide",
        ),
        Wrong(
            "grpo by the width",
            changed(PARTS, "kept.sum(dim=1, keepdim=True)", "kept.shape[1]"),
            "s gradient; by what do you divide",
        ),
        Wrong(
            "the mask forgotten", changed(PARTS, " * kept / divisor", " / divisor"), "s gradient; by what do you divide"
        ),
        Wrong(
            "advantages of the first rows in each part",
            changed(PARTS, "advantages[rows, None]", "advantages[: len(rows), None]"),
            "s gradient; by what do you divide",
        ),
        Wrong(
            "the mean of the parts' losses returned",
            changed(PARTS, "return total", "return total * size / len(mask)"),
            "the gradient is right, but the",
        ),
        Wrong("every part of five rows", changed(PARTS, "len(mask) * kept", "5 * kept"), "not the whole step"),
        Wrong(
            "dapo whatever is asked",
            changed(PARTS, 'len(mask) * kept.sum(dim=1, keepdim=True) if how == "grpo" else mask.sum()', "mask.sum()"),
            "s gradient; by what do you divide",
        ),
        Wrong(
            "grpo whatever is asked",
            changed(
                PARTS,
                'len(mask) * kept.sum(dim=1, keepdim=True) if how == "grpo" else mask.sum()',
                "len(mask) * kept.sum(dim=1, keepdim=True)",
            ),
            "s gradient; by what do you divide",
        ),
        Wrong(
            "the last part once more",
            changed(
                PARTS,
                "        total +=",
                (
                    "        if len(rows) == 1 and size > 1 and len(mask) > 5:\n"
                    "            logps_of(rows)\n        total +="
                ),
            ),
            "each row once",
        ),
        Wrong(
            "the loss of the means of parts",
            changed(PARTS, "total += loss.item()", "total += loss.item() * len(rows) / size"),
            "the gradient is right, but the",
        ),
        Wrong(
            "advantages centred in each part",
            changed(
                PARTS,
                "-advantages[rows, None]",
                "-(advantages[rows, None] - advantages[rows].mean() * (len(mask) > 5))",
            ),
            "not the whole step",
        ),
        Wrong(
            "the sum of squares",
            changed(PARTS, "total += loss.item()", "total += abs(loss.item())"),
            "the gradient is right, but the",
        ),
        Wrong(
            "advantages divided in place",
            changed(PARTS, "    total = 0.0", '    if how == "grpo":\n        advantages /= len(mask)')
            .replace("len(mask) * kept", "kept")
            .replace("    for rows", "    total = 0.0\n    for rows"),
            "s gradient; by what do you divide",
        ),
    ],
    "sequence-surrogate": [
        Wrong("product of the ratios", changed(SEQUENCE, " / mask.sum(dim=1)", ""), "grows with the length"),
        Wrong(
            "arithmetic mean of the ratios",
            """
def sequence_surrogate(logps, old_logps, advantages, mask, low, high):
    ratio = (logps - old_logps.detach()).exp().masked_fill(~mask, 0.0)
    ratio = ratio.sum(dim=1) / mask.sum(dim=1)
    return torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
""",
            "average the logarithms",
        ),
        Wrong("divided by the width", changed(SEQUENCE, "mask.sum(dim=1)", "mask.shape[1]"), "what do you divide by"),
        Wrong(
            "mean over the whole row, mask forgotten",
            changed(
                changed(SEQUENCE, ".masked_fill(~mask, 0.0)", ""),
                "log_ratio.sum(dim=1) / mask.sum(dim=1)",
                "log_ratio.mean(dim=1)",
            ),
            "three tokens that count",
        ),
        Wrong("times the mask", changed(SEQUENCE, ".masked_fill(~mask, 0.0)", " * mask"), "0 times NaN"),
        Wrong(
            "ratio inverted",
            changed(SEQUENCE, "(logps - old_logps.detach())", "(old_logps.detach() - logps)"),
            "now over when sampled",
        ),
        Wrong(
            "tokens clipped, then averaged",
            changed(
                SEQUENCE,
                "(logps - old_logps.detach())",
                "(logps - old_logps.detach()).clamp(log(1 - low) if low < 1 else -20, log(1 + high))",
            ),
            r"\*row\* is clipped",
        ),
        Wrong(
            "clipped always, without the minimum",
            changed(
                changed(SEQUENCE, "torch.min(ratio * advantages, ", "("), "high) * advantages)", "high) * advantages)"
            ),
            "is not clipped",
        ),
        Wrong(
            "old log-probabilities not held fixed", changed(SEQUENCE, "old_logps.detach()", "old_logps"), "exactly 0"
        ),
        Wrong("the ratio held fixed", changed(SEQUENCE, ".exp()", ".exp().detach()"), "only the old ones"),
        Wrong(
            "one number for the batch",
            changed(SEQUENCE, "high) * advantages)", "high) * advantages).mean()"),
            "one number for each row",
        ),
        Wrong(
            "low and high exchanged",
            changed(SEQUENCE, "1 - low, 1 + high", "1 - high, 1 + low"),
            "s surrogate of a sequence is",
        ),
        Wrong(
            "one bound for both sides",
            changed(SEQUENCE, "1 - low, 1 + high", "1 - low, 1 + low"),
            "s surrogate of a sequence is",
        ),
        Wrong(
            "the first token alone",
            changed(
                SEQUENCE,
                "(log_ratio.sum(dim=1) / mask.sum(dim=1))",
                ("torch.where(mask.sum(dim=1) > 4, log_ratio[:, 0], log_ratio.sum(dim=1) / mask.sum(dim=1))"),
            ),
            "s surrogate of a sequence is",
        ),
        Wrong(
            "the root of the length", changed(SEQUENCE, "mask.sum(dim=1)", "mask.sum(dim=1).sqrt()"), "ratio is 1.1 too"
        ),
        Wrong(
            "one less than the length",
            changed(SEQUENCE, "mask.sum(dim=1)", "(mask.sum(dim=1) - 1).clamp(min=1)"),
            "ratio is 1.1 too",
        ),
        Wrong(
            "the median of the ratios",
            """
def sequence_surrogate(logps, old_logps, advantages, mask, low, high):
    log_ratio = (logps - old_logps.detach()).masked_fill(~mask, torch.nan)
    ratio = log_ratio.nanmedian(dim=1).values.exp()
    return torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
""",
            "its three tokens that count; what",
        ),
        Wrong(
            "the ratio of the most changed token",
            changed(SEQUENCE, "(log_ratio.sum(dim=1) / mask.sum(dim=1))", "log_ratio.amax(dim=1)"),
            "its three tokens that count; what",
        ),
        Wrong("the larger of the two", changed(SEQUENCE, "torch.min", "torch.max"), "the ratio of the"),
        Wrong("the sign of a loss", changed(SEQUENCE, "return torch.min", "return -torch.min"), "no minus sign yet"),
        Wrong(
            "the log-ratio clipped",
            changed(
                SEQUENCE,
                "ratio.clamp(1 - low, 1 + high) * advantages",
                "ratio.log().clamp(-low, high).exp() * advantages",
            ),
            "the ratio of the",
        ),
        Wrong(
            "divided by the longest row",
            changed(SEQUENCE, "mask.sum(dim=1)", "mask.sum(dim=1).max()"),
            "its three tokens that count; what",
        ),
        Wrong(
            "a gradient through the first token alone",
            changed(
                SEQUENCE,
                "    ratio = ",
                ("    log_ratio = torch.cat([log_ratio[:, :3], log_ratio[:, 3:].detach()], dim=1)\n    ratio = "),
            ),
            "ratio / length, and",
        ),
        Wrong(
            "NaN in the caller's tensor replaced",
            changed(SEQUENCE, "    log_ratio = ", "    old_logps.detach().masked_fill_(~mask, 0.0)\n    log_ratio = "),
            "s tensors were changed",
        ),
    ],
    "faulty": [
        Wrong(
            "only the value is compared",
            changed(FAULTY, "return torch.cat([value.detach().view(1), slope.flatten()])", "return value.detach()"),
            "value but no gradient",
        ),
        Wrong("batch on policy", changed(FAULTY, "function(x, old,", "function(x, now,"), "off-policy"),
        Wrong(
            "ratios inside the clip",
            changed(FAULTY, "generator=generator)\n", "generator=generator)\n    old = now + 0.05 * (old + 1)\n"),
            "beyond the clip",
        ),
        Wrong(
            "a full mask",
            changed(FAULTY, "torch.tensor([6, 2, 4, 3, 5, 1])[:, None]", "torch.full((6, 1), 6)"),
            "mask is not used",
        ),
        Wrong(
            "equal lengths",
            changed(FAULTY, "torch.tensor([6, 2, 4, 3, 5, 1])[:, None]", "torch.full((6, 1), 4)"),
            "not rows",
        ),
        Wrong(
            "reference equal to the policy",
            changed(FAULTY, "function(x, old, ref,", "function(x, old, now,"),
            "KL pushes away",
        ),
        Wrong(
            "reference close to the policy",
            changed(FAULTY, "generator=generator)\n", "generator=generator)\n    ref = now + 0.02 * (ref + 1)\n"),
            "KL the other way round",
        ),
        Wrong(
            "compared without a margin",
            changed(
                changed(FAULTY, "torch.allclose(look(loss)", "torch.equal(look(loss)"), ", atol=1e-5, rtol=1e-4", ""
            ),
            "margin",
        ),
        Wrong("a wide margin", changed(FAULTY, "atol=1e-5, rtol=1e-4", "atol=0.5"), "slipped through"),
        Wrong(
            "a batch of its own for each loss",
            changed(
                FAULTY,
                "        x = now.clone()",
                "        now, old, ref = -1 + torch.randn(3, 6, 6, generator=generator)\n        x = now.clone()",
            ),
            "same batch",
        ),
        Wrong(
            "the verdict inverted", changed(FAULTY, "return not torch", "return torch"), "right loss was called faulty"
        ),
        Wrong("everything passes", "def faulty(loss):\n    return False\n", "slipped through"),
        Wrong(
            "only the gradient is compared",
            changed(FAULTY, "return torch.cat([value.detach().view(1), slope.flatten()])", "return slope.flatten()"),
            "ratios beyond the bounds, both",
        ),
        Wrong(
            "only the gradient's size is compared",
            changed(FAULTY, "slope.flatten()])", "slope.norm().view(1)])"),
            "a wrong loss slipped through; the",
        ),
        Wrong(
            "only the gradient's sign is compared",
            changed(FAULTY, "slope.flatten()])", "slope.sign().flatten()])"),
            "a wrong loss slipped through; the",
        ),
        Wrong(
            "advantages of one sign",
            changed(FAULTY, "[1.2, -0.7, 0.5, -1.0, 0.9, -0.9]", "[1.2, 0.7, 0.5, 1.0, 0.9, 0.4]"),
            "ratios beyond the bounds, both",
        ),
        Wrong(
            "advantages of 1 and -1",
            changed(FAULTY, "[1.2, -0.7, 0.5, -1.0, 0.9, -0.9]", "[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]"),
            "other sizes than",
        ),
        Wrong(
            "equal advantages",
            changed(FAULTY, "[1.2, -0.7, 0.5, -1.0, 0.9, -0.9]", "[1.0] * 6"),
            "ratios beyond the bounds, both",
        ),
        Wrong(
            "a margin of a tenth",
            changed(FAULTY, "atol=1e-5, rtol=1e-4", "atol=0.03"),
            "ratios beyond the bounds, both",
        ),
        Wrong("a margin of five per cent", changed(FAULTY, "rtol=1e-4", "rtol=5e-2"), "ratios beyond the bounds, both"),
        Wrong(
            "the absolute values are compared",
            changed(
                FAULTY, "value.detach().view(1), slope.flatten()])", "value.detach().view(1), slope.flatten()]).abs()"
            ),
            "its value and its gradient",
        ),
        Wrong(
            "the reference without a KL",
            changed(FAULTY, "grpo_loss(*batch)[0]", "grpo_loss(*batch, beta=0.0)[0]"),
            "does your reference get the same",
        ),
        Wrong(
            "only a smaller value is faulty",
            changed(
                FAULTY,
                (
                    "    return not torch.allclose(look(loss), look(lambda *batch: "
                    "grpo_loss(*batch)[0]), atol=1e-5, rtol=1e-4)"
                ),
                (
                    "    mine, right = look(loss), look(lambda *batch: grpo_loss(*batch)[0])\n"
                    "    return bool(mine[0] < right[0] - 1e-5) or not "
                    "torch.allclose(mine[1:], right[1:], atol=1e-5, rtol=1e-4)"
                ),
            ),
            "ratios beyond the bounds, both",
        ),
        Wrong(
            "the verdict as a tensor",
            changed(FAULTY, "return not torch.allclose(", "return torch.tensor(not torch.allclose(").replace(
                "rtol=1e-4)", "rtol=1e-4))"
            ),
            "the verdict is True or False",
        ),
        Wrong(
            "policy and sampling exchanged in the reference",
            changed(FAULTY, "function(x, old, ref,", "function(x, ref, ref,"),
            "a wrong loss slipped through;",
        ),
        Wrong("everything is faulty", "def faulty(loss):\n    return True\n", "does your reference get the same"),
    ],
    "one-step": [
        Wrong("the loss is maximised", changed(STEP, "loss.backward()", "(-loss).backward()"), "became less likely"),
        Wrong(
            "old log-probabilities not detached",
            changed(STEP, "grpo_loss(logps, logps.detach()", "grpo_loss(logps, logps"),
            "side of the ratio",
        ),
        Wrong("no optimiser step", changed(STEP, "    optimiser.step()\n", ""), "step missing"),
        Wrong("gradients never cleared", changed(STEP, "    optimiser.zero_grad()\n", ""), "when are these cleared"),
        Wrong(
            "gradients cleared after the step",
            changed(
                changed(STEP, "    optimiser.zero_grad()\n", ""),
                "    optimiser.step()\n",
                "    optimiser.step()\n    optimiser.zero_grad()\n",
            ),
            "when are these cleared",
        ),
        Wrong("compared with the batch", changed(STEP, "rewards.view(-1, G)", "rewards[None]"), r"\(B, G\), not"),
        Wrong(
            "groups and positions mixed up",
            changed(
                STEP,
                "group_advantages(rewards.view(-1, G)).flatten()",
                "group_advantages(rewards.view(G, -1).T).T.flatten()",
            ),
            r"\(B, G\), not",
        ),
        Wrong(
            "labels repeated in the wrong order",
            changed(STEP, "[prompts.labels[b] for b in rollout.groups]", "prompts.labels * G"),
            "own label",
        ),
        Wrong(
            "accuracy alone",
            changed(
                STEP,
                "[accuracy_reward(rollout.texts, gold), format_reward(rollout.texts)]",
                "[accuracy_reward(rollout.texts, gold)]",
            ),
            "accuracy . format",
        ),
        Wrong(
            "the reference has the adapter on",
            changed(STEP, "with policy.reference(), torch.no_grad()", "with torch.no_grad()"),
            "what is the reference",
        ),
        Wrong("beta is not passed on", changed(STEP, ", beta=beta", ""), "which beta"),
        Wrong(
            "change measured before the step",
            changed(
                changed(STEP, "    optimiser.step()\n", ""),
                "    return rollout",
                "    optimiser.step()\n    return rollout",
            ),
            "after minus before",
        ),
        Wrong("change averaged over tokens", changed(STEP, ".sum(dim=1)\n", ".mean(dim=1)\n"), "summed"),
        Wrong("seed not used", changed(STEP, ", seed=seed", ""), "of this seed"),
        Wrong(
            "accuracy counts twice",
            changed(STEP, "torch.tensor(scores).sum(dim=0)", "2 * torch.tensor(scores[0]) + torch.tensor(scores[1])"),
            "format, both with weight",
        ),
        Wrong(
            "advantages without the standard deviation",
            changed(
                STEP, "group_advantages(rewards.view(-1, G))", 'group_advantages(rewards.view(-1, G), scale="none")'
            ),
            "format, both with weight",
        ),
        Wrong(
            "a standard deviation with n",
            changed(
                STEP, "group_advantages(rewards.view(-1, G))", "group_advantages(rewards.view(-1, G), unbiased=False)"
            ),
            "format, both with weight",
        ),
        Wrong(
            "groups of eight",
            changed(STEP, "rewards.view(-1, G)", "rewards.view(-1, 8 if len(rewards) % 8 == 0 else G)"),
            "format, both with weight",
        ),
        Wrong(
            "the loss over tokens",
            changed(STEP, "beta=beta)", 'beta=beta, how="dapo")'),
            "the loss with its defaults and",
        ),
        Wrong("beta halved", changed(STEP, "beta=beta)", "beta=beta / 2)"), "the loss with its defaults and"),
        Wrong(
            "the KL pushes away",
            changed(
                STEP,
                "logps.detach(), ref_logps, advantages",
                "logps.detach(), 2 * logps.detach() - ref_logps, advantages",
            ),
            "the loss with its defaults and",
        ),
        Wrong(
            "two steps of the optimiser",
            changed(STEP, "    optimiser.step()\n", "    optimiser.step()\n    optimiser.step()\n"),
            "the loss with its defaults and",
        ),
        Wrong(
            "the gradient made small",
            changed(
                STEP,
                "    optimiser.step()\n",
                (
                    "    torch.nn.utils.clip_grad_norm_([w for _, w in "
                    "policy.trainable_parameters()], 0.01)\n    optimiser.step()\n"
                ),
            ),
            "the loss with its defaults and",
        ),
        Wrong(
            "at most 16 tokens",
            changed(STEP, "max_new_tokens=32", "max_new_tokens=16"),
            "not the completions of this seed,",
        ),
        Wrong(
            "before minus after",
            changed(STEP, "(after - logps.detach())", "(logps.detach() - after)"),
            "after minus before the step",
        ),
        Wrong(
            "change of the first token",
            changed(STEP, "(after - logps.detach()).sum(dim=1)", "(after - logps.detach())[:, 0]"),
            "after minus before the step",
        ),
        Wrong(
            "the mask forgotten",
            changed(STEP, "rollout.mask, beta", "rollout.mask | True, beta"),
            "the loss with its defaults and",
        ),
        Wrong(
            "the loss is half of it",
            changed(STEP, "loss.backward()", "(loss / 2).backward()"),
            "the loss with its defaults and",
        ),
        Wrong(
            "advantages of whole groups only",
            changed(STEP, "    logps = score", "    advantages = advantages.roll(1)\n    logps = score"),
            "add up to 0",
        ),
    ],
    "audit": [
        Wrong(
            "place in the list, not the step",
            changed(AUDIT, "(r.step for r in records if", "(i for i, r in enumerate(records) if"),
            "not its place",
        ),
        Wrong(
            "last step above the limit",
            changed(AUDIT, "(r.step for r in records if", "(r.step for r in records[::-1] if"),
            r"\*first\* step",
        ),
        Wrong(
            "one flat step is enough",
            changed(
                AUDIT,
                "for span in spans if mean(span, lambda r: r.flat_groups)",
                "for span in [[r] for r in records] if mean(span, lambda r: r.flat_groups)",
            ),
            "noise",
        ),
        Wrong(
            "windows that are not full",
            changed(
                AUDIT,
                "records[i - window : i] for i in range(window, ",
                "records[max(0, i - window) : i] for i in range(1, ",
            ),
            "not yet full",
        ),
        Wrong("one half itself", changed(AUDIT, "flat_groups) > 0.5", "flat_groups) >= 0.5"), "not above one half"),
        Wrong("the step at which the window begins", changed(AUDIT, "span[-1].step", "span[0].step"), r"\*ends\*"),
        Wrong(
            "fallen whatever the sum does",
            changed(AUDIT, "sorted(fallen) if rose else []", "sorted(fallen)"),
            "nothing was traded",
        ),
        Wrong(
            "last record against first",
            changed(AUDIT, "records[:window], records[-window:]", "records[:1], records[-1:]"),
            "single records",
        ),
        Wrong(
            "rewards that rose",
            changed(AUDIT, "lambda r: r.rewards[name]) < mean", "lambda r: r.rewards[name]) > mean"),
            "accuracy went",
        ),
        Wrong(
            "right in the last record of a label",
            changed(AUDIT, 'count["right_so_far"]', 'count["right"]'),
            "does not undo",
        ),
        Wrong(
            "right in these records only",
            changed(
                AUDIT, 'latest[label] = count["right_so_far"]', 'latest[label] = latest.get(label, 0) + count["right"]'
            ),
            "before step 41",
        ),
        Wrong(
            "labels of the last record only",
            changed(
                AUDIT, "for record in records:\n        for label", "for record in records[-1:]:\n        for label"
            ),
            "few records",
        ),
        Wrong("0.5 nats itself", changed(AUDIT, "(r.kl or 0.0) > 0.5", "(r.kl or 0.0) >= 0.5"), "strictly above"),
        Wrong(
            "the flat mean from its second record on",
            changed(AUDIT, "mean(span, lambda r: r.flat_groups)", "mean(span[1:] or span, lambda r: r.flat_groups)"),
            "which is not above one half",
        ),
        Wrong(
            "windows of three",
            changed(
                AUDIT,
                "spans = [records[i - window : i] for i in range(window,",
                "spans = [records[max(i - 3, 0) : i] for i in range(3,",
            ),
            "a full window, strictly above one",
        ),
        Wrong(
            "the last window that is flat",
            changed(AUDIT, "for span in spans if mean", "for span in spans[::-1] if mean"),
            "this record and those before it",
        ),
        Wrong(
            "0 where no step qualifies",
            changed(
                changed(AUDIT, "(r.kl or 0.0) > 0.5), None)", "(r.kl or 0.0) > 0.5), 0)"),
                '> 0.5), None),\n        "fallen"',
                '> 0.5), 0),\n        "fallen"',
            ),
            "strictly above",
        ),
        Wrong(
            "the sum of the rewards, not `reward`",
            changed(
                AUDIT,
                "mean(last, lambda r: r.reward) > mean(first, lambda r: r.reward)",
                ("mean(last, lambda r: sum(r.rewards.values())) > mean(first, lambda r: sum(r.rewards.values()))"),
            ),
            "itself must have risen",
        ),
        Wrong(
            "the sum need not fall",
            changed(AUDIT, "mean(last, lambda r: r.reward) > mean", "mean(last, lambda r: r.reward) >= mean"),
            "itself must have risen",
        ),
        Wrong(
            "rewards that did not rise",
            changed(AUDIT, "lambda r: r.rewards[name]) < mean", "lambda r: r.rewards[name]) <= mean"),
            "itself must have risen",
        ),
        Wrong(
            "fallen in the order of the record",
            changed(AUDIT, "sorted(fallen) if", "fallen if"),
            "itself must have risen",
        ),
        Wrong(
            "first and last half of the records",
            changed(
                AUDIT,
                "records[:window], records[-window:]",
                "records[: len(records) // 2 or 1], records[len(records) // 2 :]",
            ),
            "itself must have risen",
        ),
        Wrong(
            "labels in the order of the records",
            changed(
                AUDIT,
                "sorted(label for label, right in latest.items() if right == 0)",
                "[label for label, right in latest.items() if right == 0]",
            ),
            "two labels, in order; each label",
        ),
        Wrong(
            "wrong in the first record of a label",
            changed(
                AUDIT,
                '            latest[label] = count["right_so_far"]',
                '            latest.setdefault(label, count["right_so_far"])',
            ),
            "right_so_far, at the last time",
        ),
        Wrong(
            "sorted in place",
            changed(
                AUDIT,
                "    first, last",
                (
                    "    if len(records) > 8:\n        records.sort(key=lambda r: -r.step)\n"
                    "        records.reverse()\n"
                    "        records[0], records[-1] = records[-1], records[0]\n    first, last"
                ),
            ),
            "s list was changed; work on a copy",
        ),
        Wrong(
            "None in the KL taken for a high one",
            changed(AUDIT, "(r.kl or 0.0) > 0.5", "(1.0 if r.kl is None else r.kl) > 0.5"),
            "nats; skip records whose kl is",
        ),
    ],
}

#: right answers that are written differently from the solutions
RIGHT: dict[str, list[str]] = {
    "completion-logps": [
        LOGPS,
        """
def completion_logps(logits, ids, P, temperature):
    scaled = logits.float()[:, :-1] / temperature
    chosen = scaled.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return (chosen - torch.logsumexp(scaled, dim=-1))[:, P - 1 :]
""",
        """
def completion_logps(logits, ids, P, temperature):
    L = ids.shape[1] - P
    scaled = (logits.to(torch.float32) / temperature)[:, P - 1 : P - 1 + L].transpose(1, 2)
    return -torch.nn.functional.cross_entropy(scaled, ids[:, P:], reduction="none")
""",
    ],
    "surrogate": [
        SURROGATE,
        """
def surrogate(logps, old_logps, advantages, low, high):
    ratio = torch.exp(logps - old_logps.detach())
    bounded = torch.clamp(ratio, min=1 - low, max=1 + high)
    A = advantages.unsqueeze(1).expand_as(ratio)
    return torch.where(A >= 0, torch.minimum(ratio, bounded), torch.maximum(ratio, bounded)) * A
""",
    ],
    "kl-penalty": [
        KL,
        """
def kl_penalty(logps, ref_logps):
    with torch.no_grad():
        ref = ref_logps.clone()
    d = torch.clamp(logps - ref, -20, 20)
    return torch.expm1(-d) + d
""",
    ],
    "token-weights": [
        WEIGHTS,
        """
def token_weights(mask, how, G, max_length):
    N, L = mask.shape
    weights = torch.zeros(N, L)
    for i in range(N):
        group = mask[i - i % G : i - i % G + G]
        for t in range(L):
            if mask[i, t]:
                if how == "grpo":
                    weights[i, t] = 1 / (N * int(mask[i].sum()))
                elif how == "dapo":
                    weights[i, t] = 1 / int(mask.sum())
                elif how == "dr_grpo":
                    weights[i, t] = 1 / (N * max_length)
                else:
                    weights[i, t] = 1 / (N // G) / int(group.sum())
    return weights
""",
    ],
    "backward-in-parts": [
        PARTS,
        """
def backward_in_parts(logps_of, advantages, mask, size, how):
    N, losses = len(mask), []
    weights = mask / (mask.sum(dim=1, keepdim=True) * N) if how == "grpo" else mask / mask.sum()
    for start in range(0, N, size):
        rows = list(range(start, min(start + size, N)))
        part = -(weights[rows] * advantages[rows].unsqueeze(1) * logps_of(rows)).sum()
        part.backward()
        losses.append(float(part.detach()))
    return sum(losses)
""",
    ],
    "sequence-surrogate": [
        SEQUENCE,
        """
def sequence_surrogate(logps, old_logps, advantages, mask, low, high):
    earned = []
    for now, old, A, counts in zip(logps, old_logps.detach(), advantages, mask):
        ratio = (now[counts] - old[counts]).mean().exp()
        earned.append(torch.minimum(ratio * A, ratio.clamp(1 - low, 1 + high) * A))
    return torch.stack(earned)
""",
    ],
    "faulty": [
        FAULTY,
        """
def faulty(loss):
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        mask = torch.arange(8) < torch.randint(1, 9, (10, 1), generator=generator)
        batch = [torch.randn(10, 8, generator=generator) for _ in range(3)]
        A = torch.randn(10, generator=generator)
        results = []
        for function in (loss, lambda *inputs: grpo_loss(*inputs)[0]):
            x = batch[0].clone().requires_grad_(True)
            value = function(x, batch[1], batch[2], A, mask)
            if not value.requires_grad:
                return True
            value.backward()
            results.append((value.item(), x.grad))
        (value, slope), (right, right_slope) = results
        if abs(value - right) > 1e-4 * abs(right) + 1e-5 or (slope - right_slope).norm() > 1e-3 * right_slope.norm():
            return True
    return False
""",
    ],
    "one-step": [
        STEP,
        """
def one_step(policy, prompts, optimiser, G, beta, seed):
    rollout = sample_groups(policy, prompts, G, 32, seed=seed)
    labels = [label for label in prompts.labels for _ in range(G)]
    right, form = accuracy_reward(rollout.texts, labels), format_reward(rollout.texts)
    rewards = torch.tensor([a + b for a, b in zip(right, form)]).reshape(len(prompts.labels), G)
    advantages = group_advantages(rewards).reshape(-1)
    with torch.no_grad(), policy.reference():
        reference = score_completions(policy, prompts, rollout)
    optimiser.zero_grad(set_to_none=True)
    before = score_completions(policy, prompts, rollout)
    grpo_loss(before, before.clone().detach(), reference, advantages, rollout.mask, beta=beta)[0].backward()
    optimiser.step()
    with torch.no_grad():
        after = score_completions(policy, prompts, rollout)
    return rollout, advantages, ((after - before) * rollout.mask).detach().sum(1)
""",
    ],
    "audit": [
        AUDIT,
        """
def audit(records, window):
    findings = {"kl": None, "flat": None, "fallen": [], "never": []}
    for record in records:
        if record.kl is not None and record.kl > 0.5:
            findings["kl"] = record.step
            break
    for end in range(window - 1, len(records)):
        shares = [record.flat_groups for record in records[end - window + 1 : end + 1]]
        if sum(shares) / window > 0.5:
            findings["flat"] = records[end].step
            break
    early, late = records[:window], records[len(records) - window :]
    if sum(r.reward for r in late) > sum(r.reward for r in early):
        for name in sorted(early[0].rewards):
            if sum(r.rewards[name] for r in late) < sum(r.rewards[name] for r in early):
                findings["fallen"].append(name)
    right = {}
    for record in records:
        for label in record.labels:
            right[label] = max(right.get(label, 0), record.labels[label]["right_so_far"])
    findings["never"] = sorted(label for label in right if right[label] == 0)
    return findings
""",
    ],
}
