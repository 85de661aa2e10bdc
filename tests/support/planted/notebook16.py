"""Wrong and right answers to the exercises of notebook 16, other losses."""

from planted import Wrong, changed

PAPO = """
import torch

def perception_loss(seeing, blind, mask, gamma):
    blind = blind.detach()
    difference = (blind - seeing).masked_fill(blind.isneginf(), 0.0)
    kl = (blind.exp() * difference).sum(dim=-1)
    kl = kl.masked_fill(~mask, 0.0)
    return -gamma * kl.sum() / mask.sum()
"""
GSPO = """
import torch

def gspo_token_loss(logps, old_logps, advantages, mask, clip=0.2):
    lengths = mask.sum(dim=1, keepdim=True)
    gap = (logps - old_logps) * mask
    mean = gap.sum(dim=1, keepdim=True) / lengths
    s = mean.exp().detach()
    ratio = s * (logps - logps.detach()).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.min(ratio * advantages, bounded * advantages)
    by_row = (surrogate * mask).sum(dim=1) / lengths[:, 0]
    return -by_row.mean()
"""
MIX = """
import torch

def mixed_loss(rl_loss, sft_loss, share):
    return (1 - share) * rl_loss + share * sft_loss
"""
SHARE = """
def next_share(share, entropies, mask, target, rate=0.02, low=0.05, high=0.95):
    entropy = entropies[mask].mean().item()
    moved = share + rate * (target - entropy)
    return min(high, max(low, moved))
"""
RULE = "moved = share + rate * (target - entropy)"
ENTROPY = "entropy = entropies[mask].mean().item()"

PLANTED: dict[str, list[Wrong]] = {
    "16.1": [
        Wrong("the KL is made smaller", changed(PAPO, "-gamma *", "gamma *"), "minus gamma times"),
        Wrong(
            "the other KL, with the policy on the image first",
            changed(PAPO, "(blind.exp() * difference)", "(seeing.exp() * -difference)"),
            "blind comes first",
        ),
        Wrong(
            "the two distributions in each other's place",
            changed(PAPO, "blind = blind.detach()", "seeing, blind = blind, seeing.detach()"),
            "blind comes first",
        ),
        Wrong("the blind side is not held fixed", changed(PAPO, "blind.detach()", "blind"), "blind side moves"),
        Wrong("the wrong side is held fixed", changed(PAPO, "blind = blind", "seeing = seeing"), "blind side moves"),
        Wrong(
            "everything without gradient",
            changed(PAPO, "import torch\n", "import torch\n\n@torch.no_grad()"),
            "with a gradient",
        ),
        Wrong("no mask", changed(PAPO, "kl = kl.masked_fill(~mask, 0.0)\n    ", ""), "minus gamma times"),
        Wrong(
            "padding is counted in the divisor",
            changed(PAPO, "kl.sum() / mask.sum()", "kl.mean()"),
            "minus gamma times",
        ),
        Wrong(
            "the mean of everything, padding too",
            changed(
                PAPO,
                "kl = kl.masked_fill(~mask, 0.0)\n    return -gamma * kl.sum() / mask.sum()",
                "return -gamma * kl.mean()",
            ),
            "padding has no part",
        ),
        Wrong(
            "rows are averaged first",
            changed(PAPO, "kl.sum() / mask.sum()", "(kl.sum(dim=1) / mask.sum(dim=1)).mean()"),
            "average the rows",
        ),
        Wrong("the sum in place of the mean", changed(PAPO, " / mask.sum()", ""), "minus gamma times"),
        Wrong("the mean over rows of the sum", changed(PAPO, "mask.sum()", "len(mask)"), "minus gamma times"),
        Wrong("a mean over the vocabulary", changed(PAPO, ".sum(dim=-1)", ".mean(dim=-1)"), "minus gamma times"),
        Wrong("gamma left out", changed(PAPO, "-gamma *", "-"), "minus gamma times"),
        Wrong("gamma twice", changed(PAPO, "-gamma *", "-gamma * gamma *"), "minus gamma times"),
        Wrong(
            "a forbidden token gives NaN",
            changed(PAPO, ".masked_fill(blind.isneginf(), 0.0)", ""),
            "-inf in both: minus gamma times the mean KL is .*, not nan",
        ),
        Wrong(
            "NaN is removed from the value and stays in the gradient",
            changed(
                PAPO, "(blind - seeing).masked_fill(blind.isneginf(), 0.0)", "(blind.exp() / seeing.exp()).log()"
            ).replace("(blind.exp() * difference)", "(blind.exp() * difference).nan_to_num(0.0)"),
            "-inf in both: the gradient",
        ),
        Wrong(
            "tokens where a NaN appears count as 0",
            changed(PAPO, ".masked_fill(blind.isneginf(), 0.0)", "").replace("kl = kl.", "kl = kl.nan_to_num(0.0)."),
            "-inf in both: minus gamma times",
        ),
        Wrong(
            "a small number is added to the probabilities, in the denominator alone",
            changed(PAPO, "(blind - seeing)", "(blind - (seeing.exp() + 0.01).log())"),
            "minus gamma times",
        ),
        Wrong(
            "the cross entropy, which has the same gradient",
            changed(PAPO, "(blind - seeing).masked_fill", "(-seeing).masked_fill"),
            "minus gamma times",
        ),
        Wrong(
            "logarithms with base 2", changed(PAPO, "-gamma *", "-gamma / 0.6931471805599453 *"), "minus gamma times"
        ),
        Wrong(
            "log-probabilities taken for probabilities",
            changed(PAPO, "blind.exp() * difference", "blind * difference").replace("-gamma *", "-gamma * 1.0 *"),
            "minus gamma times|all tokens",
        ),
        Wrong(
            "each KL cut at 10, as for the estimate",
            changed(PAPO, ".sum(dim=-1)", ".sum(dim=-1).clamp(max=1)"),
            "minus gamma times",
        ),
        Wrong("one number per token", changed(PAPO, "kl.sum() / mask.sum()", "kl"), "one number for all tokens"),
        Wrong(
            "a float",
            changed(PAPO, "-gamma * kl.sum() / mask.sum()", "(-gamma * kl.sum() / mask.sum()).item()"),
            "one number for all tokens",
        ),
    ],
    "16.2": [
        Wrong("the sign", changed(GSPO, "-by_row.mean()", "by_row.mean()"), "the sign"),
        Wrong("the sum of the log-ratios", changed(GSPO, " / lengths\n", "\n"), "the loss is"),
        Wrong("padding in the ratio", changed(GSPO, "(logps - old_logps) * mask", "logps - old_logps"), "the loss is"),
        Wrong(
            "the mean over the padded length",
            changed(GSPO, "gap.sum(dim=1, keepdim=True) / lengths", "gap.mean(dim=1, keepdim=True)"),
            "the loss is",
        ),
        Wrong(
            "the arithmetic mean of the ratios",
            changed(
                GSPO,
                "s = mean.exp().detach()",
                "s = (((logps - old_logps).exp() * mask).sum(dim=1, keepdim=True) / lengths).detach()",
            ),
            "the loss is",
        ),
        Wrong("the exponential left out", changed(GSPO, "mean.exp()", "(1 + mean)"), "the loss is"),
        Wrong("the old policy above the line", changed(GSPO, "logps - old_logps", "old_logps - logps"), "the loss is"),
        Wrong(
            "ratios of tokens, as in GRPO", changed(GSPO, "mean.exp().detach()", "gap.exp().detach()"), "the loss is"
        ),
        Wrong(
            "one ratio for the whole batch",
            changed(GSPO, "gap.sum(dim=1, keepdim=True) / lengths", "gap.sum() / mask.sum()"),
            "the loss is",
        ),
        Wrong(
            "plain GSPO: s keeps its gradient",
            changed(GSPO, "s * (logps - logps.detach()).exp()", "mean.exp() + 0 * logps"),
            "one number that has a gradient|own A",
        ),
        Wrong("s is not held fixed", changed(GSPO, "mean.exp().detach()", "mean.exp()"), "own A"),
        Wrong(
            "everything held fixed",
            changed(GSPO, "s * (logps - logps.detach()).exp()", "s + 0 * logps.detach()"),
            "one number that has a gradient",
        ),
        Wrong("π below the line is not held fixed", changed(GSPO, "logps.detach()", "logps"), "own A|one number"),
        Wrong(
            "no clip",
            changed(GSPO, "torch.min(ratio * advantages, bounded * advantages)", "ratio * advantages"),
            "the loss is",
        ),
        Wrong(
            "no minimum",
            changed(GSPO, "torch.min(ratio * advantages, bounded * advantages)", "bounded * advantages"),
            "the loss is",
        ),
        Wrong("the larger one", changed(GSPO, "torch.min", "torch.max"), "the loss is"),
        Wrong(
            "the ratio is clipped, not the surrogate",
            changed(
                GSPO, "torch.min(ratio * advantages, bounded * advantages)", "torch.min(ratio, bounded) * advantages"
            ),
            "the loss is",
        ),
        Wrong(
            "s is clipped before the gradient comes in",
            changed(
                GSPO,
                "bounded = ratio.clamp(1 - clip, 1 + clip)",
                "bounded = s.clamp(1 - clip, 1 + clip) * (logps - logps.detach()).exp()",
            ),
            "beyond the clip",
        ),
        Wrong(
            "the clip is always 0.2",
            changed(GSPO, "ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(0.8, 1.2)"),
            "clip 0.05",
        ),
        Wrong(
            "no lower bound",
            changed(GSPO, "ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(max=1 + clip)"),
            "the loss is",
        ),
        Wrong(
            "the mean over all tokens",
            changed(GSPO, "-by_row.mean()", "-(surrogate * mask).sum() / mask.sum()"),
            "rows",
        ),
        Wrong("rows divided by the padded length", changed(GSPO, "/ lengths[:, 0]", "/ mask.shape[1]"), "the loss is"),
        Wrong(
            "padding in the mean",
            changed(GSPO, "(surrogate * mask).sum(dim=1) / lengths[:, 0]", "surrogate.mean(dim=1)"),
            "the loss is",
        ),
        Wrong("the sum over rows", changed(GSPO, "by_row.mean()", "by_row.sum()"), "the loss is"),
        Wrong(
            "the advantages of a row are averaged",
            changed(
                GSPO,
                "lengths = mask.sum(dim=1, keepdim=True)\n",
                "lengths = mask.sum(dim=1, keepdim=True)\n"
                "    advantages = ((advantages * mask).sum(dim=1, keepdim=True) / lengths).expand(mask.shape)\n",
            ),
            "the loss is|own A",
        ),
        Wrong("one loss per row", changed(GSPO, "-by_row.mean()", "-by_row"), "one number that has a gradient"),
        Wrong("a float", changed(GSPO, "-by_row.mean()", "-by_row.mean().item()"), "one number that has a gradient"),
    ],
    "16.3": [
        Wrong(
            "the weights in each other's place",
            changed(MIX, "(1 - share) * rl_loss + share * sft_loss", "share * rl_loss + (1 - share) * sft_loss")
            + SHARE,
            "weigh 0.2",
        ),
        Wrong("the labels are added", changed(MIX, "(1 - share) * rl_loss", "rl_loss") + SHARE, "weigh 0.2"),
        Wrong("both with the share", changed(MIX, "(1 - share) * rl_loss", "share * rl_loss") + SHARE, "weigh 0.2"),
        Wrong(
            "the share as a ratio",
            changed(MIX, "(1 - share) * rl_loss + share * sft_loss", "(rl_loss + share * sft_loss) / (1 + share)")
            + SHARE,
            "weigh 0.2",
        ),
        Wrong(
            "a float in place of a tensor",
            changed(
                MIX,
                "(1 - share) * rl_loss + share * sft_loss",
                "float(((1 - share) * rl_loss + share * sft_loss).detach())",
            )
            + SHARE,
            "has a gradient",
        ),
        Wrong("the labels' loss is held fixed", changed(MIX, "* sft_loss", "* sft_loss.detach()") + SHARE, "weigh 0.2"),
        Wrong("the wrong direction", MIX + changed(SHARE, "(target - entropy)", "(entropy - target)"), "the direction"),
        Wrong("the other way by a minus", MIX + changed(SHARE, "share + rate", "share - rate"), "the direction"),
        Wrong(
            "the sign of the gap alone",
            MIX + changed(SHARE, RULE, "moved = share + rate * ((target > entropy) - (target < entropy))"),
            "is next",
        ),
        Wrong("the relative gap", MIX + changed(SHARE, "(target - entropy)", "(target - entropy) / target"), "is next"),
        Wrong(
            "a factor in place of a step",
            MIX + changed(SHARE, RULE, "moved = share * (1 + rate * (target - entropy))"),
            "is next",
        ),
        Wrong(
            "a moving average",
            MIX + changed(SHARE, RULE, "moved = (1 - rate) * share + rate * (target - entropy)"),
            "is next|the direction",
        ),
        Wrong(
            "the share only grows", MIX + changed(SHARE, "(target - entropy)", "max(0.0, target - entropy)"), "is next"
        ),
        Wrong("the rate is always 0.02", MIX + changed(SHARE, "rate * (target", "0.02 * (target"), "is next"),
        Wrong("no bounds", MIX + changed(SHARE, "min(high, max(low, moved))", "moved"), "is next|the direction"),
        Wrong(
            "bounds of 0 and 1",
            MIX + changed(SHARE, "min(high, max(low, moved))", "min(1.0, max(0.0, moved))"),
            "is next|the direction",
        ),
        Wrong(
            "the bounds are always the defaults",
            MIX + changed(SHARE, "min(high, max(low, moved))", "min(0.95, max(0.05, moved))"),
            "is next|the direction",
        ),
        Wrong(
            "low and high in each other's place",
            MIX + changed(SHARE, "min(high, max(low, moved))", "max(high, min(low, moved))"),
            "is next|the direction",
        ),
        Wrong(
            "bounds before the step",
            MIX
            + changed(SHARE, RULE, "moved = min(high, max(low, share)) + rate * (target - entropy)").replace(
                "return min(high, max(low, moved))", "return moved"
            ),
            "is next|the direction",
        ),
        Wrong("padding in the entropy", MIX + changed(SHARE, "entropies[mask]", "entropies"), "is next"),
        Wrong(
            "padding counts as 0",
            MIX + changed(SHARE, "entropies[mask].mean()", "(entropies * mask).mean()"),
            "is next|the direction",
        ),
        Wrong(
            "rows are averaged first",
            MIX + changed(SHARE, "entropies[mask].mean()", "((entropies * mask).sum(dim=1) / mask.sum(dim=1)).mean()"),
            "is next",
        ),
        Wrong(
            "the sum of the entropies",
            MIX + changed(SHARE, "entropies[mask].mean()", "entropies[mask].sum()"),
            "is next|the direction",
        ),
        Wrong(
            "a tensor with a graph",
            MIX
            + changed(SHARE, ".mean().item()", ".mean()").replace(
                "min(high, max(low, moved))", "moved.clamp(low, high)"
            ),
            "Python float",
        ),
        Wrong(
            "a tensor without a graph",
            MIX + changed(SHARE, "min(high, max(low, moved))", "torch.tensor(min(high, max(low, moved)))"),
            "Python float",
        ),
        Wrong("the share never moves", MIX + changed(SHARE, RULE, "moved = share"), "is next"),
    ],
}

RIGHT: dict[str, list[str]] = {
    "16.1": [
        """
import torch

def perception_loss(seeing, blind, mask, gamma):
    per_token = torch.nansum(blind.detach().exp() * (blind.detach() - seeing), dim=-1)
    return torch.where(mask, per_token, 0.0).sum() / mask.sum() * -gamma
""",
        """
from favor_lab.grpo.losses import aggregate, exact_kl

def perception_loss(seeing, blind, mask, gamma):
    return -gamma * aggregate(exact_kl(blind.detach(), seeing), mask, "dapo")
""",
        """
import torch

def perception_loss(seeing, blind, mask, gamma):
    own, other = seeing[mask], blind.detach()[mask]
    allowed = torch.isfinite(other)
    return -(other[allowed].exp() * (other[allowed] - own[allowed])).sum() * gamma / len(own)
""",
        """
import torch
import torch.nn.functional as F

def perception_loss(seeing, blind, mask, gamma):
    closed = blind.isneginf()
    blind, seeing = blind.detach().masked_fill(closed, -1e4), seeing.masked_fill(closed, 0.0)
    kl = F.kl_div(seeing, blind, log_target=True, reduction="none").sum(dim=2)
    return -gamma * kl[mask].mean()
""",
        """
import torch

def perception_loss(seeing, blind, mask, gamma):
    total = seeing.new_zeros(())
    for row in range(mask.shape[0]):
        for place in range(int(mask[row].sum())):
            q, log_p = blind[row, place].detach().exp(), seeing[row, place]
            some = q > 0
            total = total + (q[some] * (q[some].log() - log_p[some])).sum()
    return -(gamma * total / mask.sum())
""",
        """
import torch

def perception_loss(seeing, blind, mask, gamma):
    pi_mask = blind.exp().detach()
    zero = torch.zeros((), dtype=seeing.dtype)
    surprise = torch.where(pi_mask > 0, seeing, zero)
    entropy = torch.where(pi_mask > 0, blind, zero).detach()
    per_token = torch.einsum("nlv,nlv->nl", pi_mask, surprise - entropy)
    return gamma * (per_token * mask).sum() / mask.sum()
""",
    ],
    "16.2": [
        """
import torch

def gspo_token_loss(logps, old_logps, advantages, mask, clip=0.2):
    losses = []
    for now, old, A, keep in zip(logps, old_logps, advantages, mask):
        now, old, A = now[keep], old[keep], A[keep]
        s = (now - old).mean().exp().detach()
        ratio = s * (now - now.detach()).exp()
        losses.append(-torch.minimum(ratio * A, ratio.clip(1 - clip, 1 + clip) * A).mean())
    return sum(losses) / len(losses)
""",
        """
import torch

def gspo_token_loss(logps, old_logps, advantages, mask, clip=0.2):
    counts = mask.sum(dim=1, keepdim=True)
    mean = torch.where(mask, logps.detach() - old_logps, 0.0).sum(dim=1, keepdim=True) / counts
    log_ratio = mean + logps - logps.detach()
    ratio = log_ratio.exp()
    surrogate = torch.min(ratio * advantages, torch.clamp(ratio, 1 - clip, 1 + clip) * advantages)
    return -(surrogate * mask / counts).sum() / len(mask)
""",
        """
import torch

def gspo_token_loss(logps, old_logps, advantages, mask, clip=0.2):
    weights = mask / mask.sum(dim=1, keepdim=True)
    with torch.no_grad():
        s = ((logps - old_logps) * weights).sum(dim=1, keepdim=True).exp()
        free = torch.where(advantages > 0, s <= 1 + clip, s >= 1 - clip)
    own = logps - logps.detach()
    value = torch.where(free, s * (1 + own), s.clamp(1 - clip, 1 + clip))
    return -(value * advantages * weights).sum(dim=1).mean()
""",
        """
from favor_lab.grpo.losses import aggregate, clipped_surrogate, row_mean

def gspo_token_loss(logps, old_logps, advantages, mask, clip=0.2):
    mean = row_mean(logps - old_logps, mask).detach()
    return aggregate(-clipped_surrogate(mean + logps, logps.detach(), advantages, clip, clip), mask, "grpo")
""",
    ],
    "16.3": [
        """
def mixed_loss(rl_loss, sft_loss, share):
    return rl_loss + share * (sft_loss - rl_loss)

def next_share(share, entropies, mask, target, rate=0.02, low=0.05, high=0.95):
    entropy = float((entropies.detach() * mask).sum() / mask.sum())
    share -= rate * (entropy - target)
    return low if share < low else high if share > high else share
""",
        """
import torch

def mixed_loss(rl_loss, sft_loss, share):
    return torch.lerp(rl_loss, sft_loss, share)

def next_share(share, entropies, mask, target, rate=0.02, low=0.05, high=0.95):
    gap = target - entropies.masked_select(mask).mean()
    return torch.clamp(share + rate * gap, low, high).item()
""",
        """
import numpy as np

def mixed_loss(rl_loss, sft_loss, share):
    return sum(weight * loss for weight, loss in ((1 - share, rl_loss), (share, sft_loss)))

def next_share(share, entropies, mask, target, rate=0.02, low=0.05, high=0.95):
    entropy = np.mean(entropies.detach().numpy()[mask.numpy()])
    return float(np.clip(share + rate * (target - entropy), low, high))
""",
        """
from favor_lab.grpo.losses import aggregate
from favor_lab.recipes.amft import moved

def mixed_loss(rl_loss, sft_loss, share):
    return share * sft_loss - (share - 1) * rl_loss

def next_share(share, entropies, mask, target, rate=0.02, low=0.05, high=0.95):
    return moved(share, target, aggregate(entropies, mask, "dapo").item(), rate, low, high)
""",
    ],
}
