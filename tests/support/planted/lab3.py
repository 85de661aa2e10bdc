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
            "KL is reversed",
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
    ],
}
