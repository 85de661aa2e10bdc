"""Wrong and right answers to the exercises of notebook 06, the loss."""

from planted import Wrong, changed

OBJECTIVE = """
import torch


def group_objective(logps, mask, rewards):
    others = (rewards.sum() - rewards) / (len(rewards) - 1)
    A = rewards - others
    return (A[:, None] * logps * mask).sum(dim=1).mean()
"""
BASELINE = "others = (rewards.sum() - rewards) / (len(rewards) - 1)"
SAPO = """
import torch

from favor_lab import aggregate


def sapo_loss(logps, old_logps, advantages, mask, tau_up=1.0, tau_down=1.05):
    A = advantages[:, None]
    tau = torch.where(A > 0, tau_up, tau_down)
    ratio = (logps - old_logps).exp()
    surrogate = 4 / tau * torch.sigmoid(tau * (ratio - 1)) * A
    return aggregate(-surrogate, mask, "grpo")
"""
DIAGNOSE = """
import torch


def diagnose(loss):
    old = torch.tensor([[-1.0, -2.0, -0.5]])
    mask = torch.tensor([[True, True, False]])
    one, none = torch.ones(1), torch.zeros(1)

    def value(logps, A, ref, beta):
        return float(loss(logps, old, ref, A, mask, 0.2, beta))

    if value(old, none, old - 1, 1.0) < 0:
        return "KL sign"
    logps = old.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(logps, old, old, one, mask, 0.2, 0.0), logps)
    if not slope.any():
        return "no detach"
    nudged = [old + 0.1 * torch.eye(3)[column] for column in range(3)]
    changes = [value(logps, one, old, 0.0) != value(old, one, old, 0.0) for logps in nudged]
    if changes[2]:
        return "no mask"
    if not changes[1]:
        return "no end token"
    return "max" if value(old + 0.5, one, old, 0.0) < -1.3 else "right"
"""

PLANTED: dict[str, list[Wrong]] = {
    "06.1": [
        Wrong("the mean of all completions", changed(OBJECTIVE, BASELINE, "others = rewards.mean()"), "A / N"),
        Wrong("no baseline", changed(OBJECTIVE, BASELINE, "others = 0"), "A / N"),
        Wrong("the sum of the others", changed(OBJECTIVE, " / (len(rewards) - 1)", ""), "A / N"),
        Wrong("the sum of the others over N", changed(OBJECTIVE, "/ (len(rewards) - 1)", "/ len(rewards)"), "A / N"),
        Wrong("the mask is left out", changed(OBJECTIVE, " * mask", ""), "padding has a gradient"),
        Wrong("a loss to be minimised", changed(OBJECTIVE, "return (A", "return -(A"), "gradient by logps: A / N"),
        Wrong(
            "mean over the tokens of a row",
            changed(OBJECTIVE, ".sum(dim=1).mean()", ".sum(dim=1).div(mask.sum(dim=1)).mean()"),
            "A / N at each token",
        ),
        Wrong(
            "mean over all tokens",
            changed(OBJECTIVE, ".sum(dim=1).mean()", ".sum() / mask.sum()"),
            "A / N at each token",
        ),
        Wrong("mean over all places", changed(OBJECTIVE, ".sum(dim=1).mean()", ".mean()"), "A / N at each token"),
        Wrong("sum over the rows", changed(OBJECTIVE, ".mean()", ".sum()"), "A / N at each token"),
        Wrong("one number for each row", changed(OBJECTIVE, ".sum(dim=1).mean()", ".sum(dim=1)"), "return one number"),
        Wrong("a Python number", changed(OBJECTIVE, ".sum(dim=1).mean()", ".sum(dim=1).mean().item()"), "one number"),
        Wrong("detached", changed(OBJECTIVE, "* logps *", "* logps.detach() *"), "was it detached"),
        Wrong("probabilities, not logarithms", changed(OBJECTIVE, "* logps *", "* logps.exp() *"), "A / N"),
        Wrong(
            "divided by the standard deviation",
            changed(OBJECTIVE, "A = rewards - others", "A = (rewards - others) / (rewards.std() + 1e-4)"),
            "A / N at each token",
        ),
        Wrong(
            "only the first token of each row",
            changed(OBJECTIVE, "(A[:, None] * logps * mask).sum(dim=1).mean()", "(A * logps[:, 0]).mean()"),
            "A / N at each token",
        ),
        Wrong(
            "the last token is left out",
            changed(OBJECTIVE, "* mask)", "* (mask & (mask.cumsum(dim=1) < mask.sum(dim=1, keepdim=True))))"),
            "A / N at each token|or nothing has",
        ),
        Wrong(
            "the probability of the whole completion",
            changed(
                OBJECTIVE,
                "(A[:, None] * logps * mask).sum(dim=1).mean()",
                "(A * (logps * mask).sum(dim=1).exp()).mean()",
            ),
            "A / N at each token",
        ),
        Wrong(
            "the ratio without detach",
            changed(OBJECTIVE, "* logps *", "* (logps - logps).exp() *"),
            "A / N at each token",
        ),
    ],
    "06.2": [
        Wrong("the sign", changed(SAPO, "aggregate(-surrogate", "aggregate(surrogate"), "the value is"),
        Wrong("one temperature", changed(SAPO, "torch.where(A > 0, tau_up, tau_down)", "tau_up"), "the value is"),
        Wrong(
            "the temperatures are swapped", changed(SAPO, "tau_up, tau_down)\n", "tau_down, tau_up)\n"), "the value is"
        ),
        Wrong(
            "the ratio chooses the temperature, not the advantage",
            changed(
                SAPO,
                "    tau = torch.where(A > 0, tau_up, tau_down)\n    ratio = (logps - old_logps).exp()\n",
                "    ratio = (logps - old_logps).exp()\n    tau = torch.where(ratio > 1, tau_up, tau_down)\n",
            ),
            "the value is",
        ),
        Wrong("the 4 is left out", changed(SAPO, "4 / tau", "1 / tau"), "the value is"),
        Wrong("not divided by the temperature", changed(SAPO, "4 / tau", "4"), "the value is"),
        Wrong("multiplied by the temperature", changed(SAPO, "4 / tau", "4 * tau"), "the value is"),
        Wrong("the gate is centred on ratio 0", changed(SAPO, "(ratio - 1)", "ratio"), "the value is"),
        Wrong("the log-ratio in the gate", changed(SAPO, "(ratio - 1)", "(logps - old_logps)"), "the value is"),
        Wrong("the ratio upside down", changed(SAPO, "(logps - old_logps)", "(old_logps - logps)"), "the value is"),
        Wrong("the mean over all tokens", changed(SAPO, '"grpo"', '"dapo"'), "the value is"),
        Wrong(
            "the mask is left out",
            changed(SAPO, 'aggregate(-surrogate, mask, "grpo")', "-surrogate.mean()"),
            "the value is",
        ),
        Wrong(
            "sum over the tokens, mean over the rows",
            changed(SAPO, 'aggregate(-surrogate, mask, "grpo")', "-(surrogate * mask).sum(dim=1).mean()"),
            "the value is",
        ),
        Wrong("the ratio is detached", changed(SAPO, ".exp()", ".exp().detach()"), "has no gradient"),
        Wrong("the gate is multiplied with the ratio", changed(SAPO, "* A\n", "* ratio * A\n"), "the value is"),
        Wrong(
            "the gate as a weight of the log-probability",
            changed(
                SAPO,
                "* A\n",
                "* A\n    surrogate = surrogate.detach() + surrogate.detach() * (logps - logps.detach())\n",
            ),
            "its gradient is not",
        ),
        Wrong("the clip on top", changed(SAPO, "(ratio - 1)", "(ratio.clamp(0.8, 1.2) - 1)"), "the value is"),
        Wrong(
            "one number for each row",
            changed(SAPO, 'aggregate(-surrogate, mask, "grpo")', "-(surrogate * mask).sum(dim=1) / mask.sum(dim=1)"),
            "return one number",
        ),
        Wrong("the advantage is left out", changed(SAPO, "(ratio - 1)) * A", "(ratio - 1))"), "the value is"),
    ],
    "06.3": [
        Wrong("always right", "def diagnose(loss):\n    return 'right'\n", "taken for"),
        Wrong("returns a bool", "def diagnose(loss):\n    return False\n", "one of the six names"),
        Wrong("a list of names", changed(DIAGNOSE, 'return "KL sign"', 'return ["KL sign"]'), "one of the six names"),
        Wrong("beta is 0, so no penalty shows", changed(DIAGNOSE, "old - 1, 1.0) < 0", "old - 1, 0.0) < 0"), "A = 0"),
        Wrong(
            "the reference is the policy, so no penalty shows",
            changed(DIAGNOSE, "value(old, none, old - 1, 1.0)", "value(old, none, old, 1.0)"),
            "a reference that differs",
        ),
        Wrong(
            "advantages hide the penalty",
            changed(DIAGNOSE, "value(old, none, old - 1, 1.0)", "value(old, one, old - 1, 1.0)"),
            "which of your tests|try A = 0",
        ),
        Wrong(
            "the value is asked for a missing detach",
            changed(DIAGNOSE, "if not slope.any():", "if value(old, one, old, 0.0) != -1:"),
            "look at the gradient",
        ),
        Wrong(
            "the penalty hides the missing detach",
            changed(
                DIAGNOSE, "loss(logps, old, old, one, mask, 0.2, 0.0)", "loss(logps, old, old - 1, one, mask, 0.2, 1.0)"
            ),
            "look at the gradient",
        ),
        Wrong(
            "the mask is full, so there is no padding",
            changed(DIAGNOSE, "[[True, True, False]]", "[[True, True, True]]"),
            "which of your tests|taken for",
        ),
        Wrong(
            "the ratio stays inside the clip",
            changed(DIAGNOSE, "value(old + 0.5, one, old, 0.0) < -1.3", "value(old + 0.1, one, old, 0.0) < -1.3"),
            "beyond the clip",
        ),
        Wrong(
            "a ratio beyond the clip on the side that is not muted",
            changed(DIAGNOSE, "value(old + 0.5, one, old, 0.0) < -1.3", "value(old - 0.5, one, old, 0.0) < -1.3"),
            "beyond the clip",
        ),
        Wrong(
            "the first token is changed, not the last",
            changed(DIAGNOSE, "if not changes[1]", "if not changes[0]"),
            "the last sampled token",
        ),
        Wrong(
            "the padding is not looked at",
            changed(DIAGNOSE, '    if changes[2]:\n        return "no mask"\n', ""),
            "in the padding",
        ),
        Wrong(
            "the names of two mistakes are swapped",
            changed(
                changed(DIAGNOSE, 'return "no mask"', 'return "no  mask"'), 'return "no end token"', 'return "no mask"'
            ).replace("no  mask", "no end token"),
            "taken for",
        ),
        Wrong(
            "max and right are swapped",
            changed(DIAGNOSE, '"max" if', '"right" if').replace('else "right"', 'else "max"'),
            "taken for",
        ),
        Wrong(
            "any difference in a value is a wrong mask",
            changed(DIAGNOSE, "if changes[2]:", "if changes[2] or not changes[1]:"),
            "the last sampled token",
        ),
        Wrong("another spelling of a name", changed(DIAGNOSE, '"no detach"', '"detach"'), "one of the six names"),
    ],
}

RIGHT: dict[str, list[str]] = {
    "06.1": [
        """
def group_objective(logps, mask, rewards):
    N = len(rewards)
    A = (rewards - rewards.mean()) * N / (N - 1)
    return (logps.masked_fill(~mask, 0.0).sum(dim=1) @ A) / N
""",
        """
import torch


def group_objective(logps, mask, rewards):
    total = 0.0 * logps.sum()
    for i in range(len(rewards)):
        others = torch.cat([rewards[:i], rewards[i + 1 :]])
        total = total + (rewards[i] - others.mean()) * logps[i][mask[i]].sum()
    return total / len(rewards)
""",
        """
def group_objective(logps, mask, rewards):
    ratio = (logps - logps.detach()).exp()
    A = rewards - (rewards.sum() - rewards) / (len(rewards) - 1)
    return (ratio * mask * A.unsqueeze(1)).sum() / len(rewards)
""",
        """
import torch


def group_objective(logps, mask, rewards):
    N = rewards.numel()
    differences = rewards[:, None] - rewards[None, :]
    A = differences.sum(dim=1) / (N - 1)
    return torch.einsum("n,nl,nl->", A, logps, mask.to(logps.dtype)) / N
""",
    ],
    "06.2": [
        """
import torch


def sapo_loss(logps, old_logps, advantages, mask, tau_up=1.0, tau_down=1.05):
    tau = torch.tensor([tau_up if a > 0 else tau_down for a in advantages.tolist()])[:, None]
    gate = 4 / (tau * (1 + torch.exp(-tau * (torch.exp(logps - old_logps) - 1))))
    values = (gate * advantages[:, None]).masked_fill(~mask, 0)
    return -(values.sum(1) / mask.sum(1)).mean()
""",
        """
import torch


def sapo_loss(logps, old_logps, advantages, mask, tau_up=1.0, tau_down=1.05):
    rows = []
    for now, old, A, counts in zip(logps, old_logps, advantages, mask):
        tau = tau_up if A > 0 else tau_down
        ratio = (now[counts] - old[counts]).exp()
        rows.append((4 / tau * torch.sigmoid(tau * (ratio - 1)) * A).mean())
    return -torch.stack(rows).mean()
""",
        """
from favor_lab import aggregate


def sapo_loss(logps, old_logps, advantages, mask, tau_up=1.0, tau_down=1.05):
    up = (advantages > 0).float()
    tau = (up * tau_up + (1 - up) * tau_down).view(-1, 1)
    half = (2 / tau) * (1 + (tau * ((logps - old_logps).exp() - 1) / 2).tanh())
    return aggregate(-(half * advantages.view(-1, 1)), mask)
""",
        """
import torch


def sapo_loss(logps, old_logps, advantages, mask, tau_up=1.0, tau_down=1.05):
    def gate(tau):
        return torch.sigmoid(tau * (torch.exp(logps - old_logps) - 1)) * 4 / tau

    up = advantages.clamp(min=0)[:, None] * gate(tau_up)
    down = advantages.clamp(max=0)[:, None] * gate(tau_down)
    weight = mask / mask.sum(dim=1, keepdim=True) / len(mask)
    return -((up + down) * weight).sum()
""",
    ],
    "06.3": [
        """
import torch

from favor_lab import grpo_loss


def diagnose(loss):
    A, old = torch.tensor([1.0, -1.0]), -torch.ones(2, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    still = loss(old, old, old, 0 * A, mask, 0.2, 0.0)
    if still != 0:
        return "right"
    now = old.clone().requires_grad_()
    g = torch.autograd.grad(loss(now, old, old, A, mask, 0.2, 0.0), now)[0]
    if g.abs().sum() == 0:
        return "no detach"
    if g[0, 2] != 0:
        return "no mask"
    if g[1, 2] == 0:
        return "no end token"
    if loss(old, old, old + 1, 0 * A, mask, 0.2, 1.0) < 0:
        return "KL sign"
    moved = old + torch.tensor([[1.0], [-1.0]])
    right = grpo_loss(moved, old, old, A, mask, beta=0.0)[0]
    return "right" if torch.isclose(loss(moved, old, old, A, mask, 0.2, 0.0), right) else "max"
""",
        """
import torch

from favor_lab import k3_kl


def my_version(kind):
    def loss(logps, old, ref, A, mask, clip, beta):
        if kind == "no detach":
            old = logps
        ratio, A = (logps - old).exp(), A[:, None]
        both = ratio * A, ratio.clamp(1 - clip, 1 + clip) * A
        surrogate = torch.maximum(*both) if kind == "max" else torch.minimum(*both)
        kl = -k3_kl(logps, ref) if kind == "KL sign" else k3_kl(logps, ref)
        weight = mask.float()
        if kind == "no mask":
            weight = torch.ones_like(weight)
        if kind == "no end token":
            weight = (mask.flip(1).cumsum(1).flip(1) > 1).float()
        return ((beta * kl - surrogate) * weight).sum(1).div(weight.sum(1).clamp(min=1)).mean()

    return loss


def diagnose(loss):
    torch.manual_seed(1)
    logps = -torch.rand(6, 5)
    old, ref, A = logps + 0.5 * torch.randn(6, 5), logps + torch.randn(6, 5), torch.randn(6)
    mask = torch.arange(5) < torch.tensor([5, 4, 3, 2, 5, 3])[:, None]
    for kind in ("right", "KL sign", "no detach", "no mask", "no end token", "max"):
        mine = my_version(kind)
        if torch.allclose(loss(logps, old, ref, A, mask, 0.2, 0.5), mine(logps, old, ref, A, mask, 0.2, 0.5)):
            return kind
""",
        """
import torch


def diagnose(loss):
    zeros, mask = torch.zeros(1, 4), torch.tensor([[1, 1, 1, 0]]).bool()
    names = []
    if loss(zeros, zeros, zeros + 1, torch.zeros(1), mask, 0.2, 0.1) < 0:
        names.append("KL sign")
    logps = zeros.clone().requires_grad_()
    loss(logps, zeros, zeros, -torch.ones(1), mask, 0.2, 0.0).backward()
    pushed = (logps.grad[0] != 0).tolist()
    names += {
        (False,) * 4: ["no detach"],
        (True,) * 4: ["no mask"],
        (True, True, False, False): ["no end token"],
    }.get(tuple(pushed), [])
    far = loss(zeros - 1, zeros, zeros, -torch.ones(1), mask, 0.2, 0.0)
    if not names and far < 0.5:
        names.append("max")
    return names[0] if names else "right"
""",
        """
import torch


def diagnose(loss):
    one = torch.ones(1)

    def call(now, old, ref, A, beta=0.0, mask=(1, 1, 0)):
        now, old, ref = (torch.tensor([row], dtype=torch.float64) for row in (now, old, ref))
        return loss(now, old, ref, A * one.double(), torch.tensor([mask]).bool(), 0.2, beta).item()

    o = [0.0, 0.0, 0.0]
    if call(o, o, [1.0, 1.0, 1.0], 0.0, beta=1.0) < 0:
        return "KL sign"
    seen = [call([0.1 * (j == i) for j in range(3)], o, o, 1.0) - call(o, o, o, 1.0) for i in range(3)]
    moves = [abs(change) > 1e-9 for change in seen]
    if not any(moves):
        return "no detach"
    if moves == [True, True, True]:
        return "no mask"
    if moves == [True, False, False]:
        return "no end token"
    return "max" if call([9.0, 9.0, 9.0], o, o, 1.0) < -2 else "right"
""",
    ],
}
