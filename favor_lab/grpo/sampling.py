"""Step 1 of GRPO: let the policy answer each prompt G times, and score what it wrote.

The distribution is explicit: softmax(logits / temperature) over all tokens but the forbidden ones. Nothing is taken
from the checkpoint's generation_config, whose near-greedy values (top_k 1 in Qwen2-VL's) would make eight copies of
one completion. What is scored are the ids that were sampled, never a text that was tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from favor_lab.vlm.fast.decoding import start_decoding
from favor_lab.vlm.fast.packed import packed_hidden
from favor_lab.vlm.prefix import next_token_logps, token_logps

if TYPE_CHECKING:
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


@dataclass
class Rollout:
    """N completions, each with the prompt it answers. As sampled, N = B * G and row b * G + g is completion g of
    prompt b; a step of one's own may drop or add rows, so code that must not break reads `groups`.

    | field | shape | |
    | --- | --- | --- |
    | completion_ids | (N, L) long | sampled ids, padded on the right |
    | mask | (N, L) bool | True up to and including the first end token |
    | logps | (N, L) float32 | log-probabilities when sampled; 0 where the mask is False, NaN for rows not sampled |
    | texts | N strings | the masked ids decoded, without special tokens |
    | group_size | int | completions asked for per prompt |
    | groups | (N,) long | prompt index of each row |
    | origin | N strings | "sampled", or where else a row comes from, such as "injected" |
    | temperature | float | of the sampling distribution; scoring uses it too |
    | end_token_ids | list | ids that end a completion |

    >>> ids = torch.tensor([[5, 9, 0], [5, 6, 7]])
    >>> rollout = Rollout(ids, ids > 0, torch.zeros(2, 3), ["a", "b"], group_size=2, end_token_ids=[9])
    >>> rollout.groups, rollout.lengths, rollout.truncated
    (tensor([0, 0]), tensor([2, 3]), tensor([False,  True]))
    """

    completion_ids: Tensor
    mask: Tensor
    logps: Tensor
    texts: list[str]
    group_size: int
    groups: Tensor = None  # type: ignore[assignment]  # left out: prompt-major
    origin: list[str] = None  # type: ignore[assignment]  # left out: all sampled
    temperature: float = 1.0
    end_token_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.groups is None:
            self.groups = torch.arange(len(self.texts), device=self.mask.device) // self.group_size  # (N,)
        if self.origin is None:
            self.origin = ["sampled"] * len(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion, its end token included: (N,)."""
        return self.mask.sum(dim=1)

    @property
    def truncated(self) -> Tensor:
        """Rows cut off before an end token: (N,) bool."""
        last = self.completion_ids.gather(1, (self.lengths - 1).clamp(min=0)[:, None]).squeeze(1)  # (N,)
        return ~torch.isin(last, torch.tensor(self.end_token_ids, dtype=last.dtype, device=last.device))

    def rows(self, index: Tensor | Sequence[int]) -> Rollout:
        """The rollout of these rows only, in this order; `index` holds row numbers, or one truth value a row."""
        index = torch.as_tensor(index, device=self.mask.device)
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()  # (n,)
        return replace(
            self,
            completion_ids=self.completion_ids[index],  # (n, L)
            mask=self.mask[index],
            logps=self.logps[index],
            groups=self.groups[index],  # (n,)
            texts=[self.texts[i] for i in index.tolist()],
            origin=[self.origin[i] for i in index.tolist()],
        )


@torch.no_grad()
def sample_groups(
    policy: Policy,
    prompts: PromptBatch,
    group_size: int = 8,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int | None = None,
    *,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    decoding: str = "auto",
) -> Rollout:
    """Sample `group_size` completions of each prompt, of at most `max_new_tokens` tokens: a Rollout of N = B * G rows.

    seed: the same seed gives the same completions on the same machine; or pass a `generator` on the policy's device.
    top_k, top_p: off (0 and 1.0), and to be left off for training: what they cut away is still scored.
    decoding: see `favor_lab.vlm.fast.decoding`: "plain" is transformers token by token; the others are faster.
    Raises FloatingPointError, naming the row, where the model's output is not a number.
    """
    if generator is None and seed is not None:
        generator = torch.Generator(policy.device).manual_seed(seed)
    groups = torch.arange(len(prompts), device=policy.device).repeat_interleave(group_size)  # (N,) prompt-major
    decoder = start_decoding(policy, prompts, groups, max_new_tokens, decoding)
    ids = torch.full((len(groups), max_new_tokens), policy.pad_token_id, device=policy.device)  # (N, L)
    mask, logps = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.float32)
    ends = torch.tensor(policy.end_token_ids, device=policy.device)
    everyone = torch.arange(len(groups), device=policy.device)  # (N,)
    active, hidden = everyone, decoder.hidden  # (A,) rows that have not ended, (A, D)
    for j in range(max_new_tokens):
        choices = truncate(next_token_logps(policy, hidden, temperature), top_k, top_p)  # (A, V)
        broken = torch.isin(everyone, active[choices.isnan().any(dim=1)])  # (N,)
        check_rows(broken, prompts, groups, f"the distribution of token {j}")
        tokens = draw_tokens(choices, generator)  # (A,)
        ids[active, j], mask[active, j] = tokens, True
        logps[active, j] = choices.gather(1, tokens[:, None])[:, 0]
        going = (~torch.isin(tokens, ends)).nonzero().flatten()  # which of the active rows go on
        if len(going) == 0 or j + 1 == max_new_tokens:
            break
        if len(going) < len(active):  # the others leave
            active, tokens = active[going], tokens[going]
            decoder.keep(going)
        hidden = decoder.step(tokens)  # (A, D)
    length = int(mask.sum(dim=1).max())
    ids, mask, logps = ids[:, :length], mask[:, :length], logps[:, :length]  # (N, L)
    texts, origin = decode(policy, ids, mask), ["sampled"] * len(groups)
    return Rollout(ids, mask, logps, texts, group_size, groups, origin, temperature, policy.end_token_ids)


def draw_tokens(logps: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One token of each distribution, (A, V) -> (A,): where a random share of the probability mass is reached.

    One random number a row, where `torch.multinomial` draws V of them; float64, so that the sum over V stays exact.

    >>> draw_tokens(torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).log())[0]
    tensor(1)
    """
    mass = logps.exp().cumsum(dim=-1, dtype=torch.float64)  # (A, V)
    reached = torch.rand(len(mass), 1, dtype=mass.dtype, device=mass.device, generator=generator) * mass[:, -1:]
    return torch.searchsorted(mass, reached, right=True)[:, 0]


def truncate(logps: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Log-probabilities (..., V) of the k likeliest tokens only, and of the fewest that hold a mass of p, renormalised.

    >>> truncate(torch.tensor([0.5, 0.3, 0.2]).log(), top_k=2).exp()
    tensor([0.6250, 0.3750, 0.0000])
    >>> truncate(torch.tensor([0.5, 0.3, 0.2]).log(), top_p=0.4).exp()
    tensor([1., 0., 0.])
    """
    if top_k <= 0 and top_p >= 1.0:
        return logps
    ordered, order = logps.sort(dim=-1, descending=True)  # (..., V)
    mass_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    out = mass_before >= top_p
    if top_k > 0:
        out[..., top_k:] = True
    return logps.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -torch.inf).log_softmax(dim=-1)


@overload
def score_completions(
    policy: Policy, prompts: PromptBatch, rollout: Rollout, *,
    rows_per_pass: int = ..., entropy: Literal[False] = ..., gradient_checkpointing: bool = ...,
) -> Tensor: ...  # fmt: skip
@overload
def score_completions(
    policy: Policy, prompts: PromptBatch, rollout: Rollout, *,
    rows_per_pass: int = ..., entropy: Literal[True], gradient_checkpointing: bool = ...,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def score_completions(policy, prompts, rollout, *, rows_per_pass=0, entropy=False, gradient_checkpointing=False):
    """Log-probability of every sampled token under the policy as it is now: (N, L) float32, 0 where the mask is False.

    Differentiable. The distribution is the one that `sample_groups` draws from, at the rollout's temperature.
    rows_per_pass: completions scored at once, to bound memory (0: all). entropy: also return the entropy of the
    distribution at each position, (N, L) in nats. gradient_checkpointing: the backward pass computes each layer again.
    """
    passes = torch.arange(len(rollout)).split(rows_per_pass or max(len(rollout), 1))
    parts = [_score_pass(policy, prompts, rollout.rows(rows), gradient_checkpointing) for rows in passes]
    logps, entropies = (torch.cat(column) for column in zip(*parts, strict=True))  # (N, L) each
    return (logps, entropies) if entropy else logps


def _score_pass(policy: Policy, prompts: PromptBatch, rollout: Rollout, checkpointing: bool) -> tuple[Tensor, Tensor]:
    used, groups = rollout.groups.unique(return_inverse=True)  # prompts of these rows; (N,) index into them
    mask = rollout.mask  # (N, L), M of it True
    hidden = packed_hidden(
        policy, prompts[used.tolist()], rollout.completion_ids, mask, groups, checkpointing
    )  # (M, D)
    parts = token_logps(policy, hidden, rollout.completion_ids[mask], rollout.temperature, entropy=True)  # (M,) each
    empty = torch.zeros(mask.shape, device=mask.device)
    logps, entropies = (empty.masked_scatter(mask, part) for part in parts)  # (N, L) each
    return logps, entropies


def encode_completions(
    policy: Policy,
    texts: Sequence[str],
    groups: Sequence[int] | Tensor,
    *,
    origin: str = "injected",
    temperature: float = 1.0,
    group_size: int = 1,
) -> Rollout:
    """Completions written by someone else, such as a labelled answer, as rows of a Rollout.

    groups: prompt index of each text. An end token is appended. Their `logps` are NaN: no policy sampled them, and the
    loop takes the current policy's in their place. ValueError for a text with an image token or other forbidden id.
    """
    rows = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if set(row) & set(policy.forbidden_token_ids):
            raise ValueError(f"a completion must not contain image, vision or padding tokens: {text!r}")
        row.append(policy.end_token_ids[0])
    lengths = torch.tensor([len(row) for row in rows], device=policy.device)  # (N,)
    mask = torch.arange(int(lengths.max()), device=policy.device) < lengths[:, None]  # (N, L)
    ids = torch.full(mask.shape, policy.pad_token_id, device=policy.device)  # (N, L)
    ids[mask] = torch.tensor([token for row in rows for token in row], device=policy.device)
    logps = torch.zeros(mask.shape, device=policy.device).masked_fill(mask, torch.nan)  # (N, L)
    groups = torch.as_tensor(groups, device=policy.device)  # (N,)
    own_texts, origins = decode(policy, ids, mask), [origin] * len(rows)
    return Rollout(ids, mask, logps, own_texts, group_size, groups, origins, temperature, policy.end_token_ids)


def join(first: Rollout, second: Rollout) -> Rollout:
    """The rows of both rollouts, of one batch of prompts, each group together."""
    length = max(first.mask.shape[1], second.mask.shape[1])

    def widen(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, length - values.shape[1]))  # (N, L)

    both = replace(
        first,
        completion_ids=torch.cat([widen(first.completion_ids), widen(second.completion_ids)]),
        mask=torch.cat([widen(first.mask), widen(second.mask)]),
        logps=torch.cat([widen(first.logps), widen(second.logps)]),
        groups=torch.cat([first.groups, second.groups]),
        texts=first.texts + second.texts,
        origin=first.origin + second.origin,
    )
    return both.rows(both.groups.argsort(stable=True))


def decode(policy: Policy, ids: Tensor, mask: Tensor) -> list[str]:
    """The text of each row's masked ids, without special tokens."""
    rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    return policy.tokenizer.batch_decode(rows, skip_special_tokens=True)


def check_rows(bad: Tensor, prompts: PromptBatch, groups: Tensor, what: str, first: int = 0) -> None:
    """FloatingPointError naming the first row where `bad` (N,) is True, and its image; row 0 here is row `first`."""
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        source = prompts.sources[int(groups[row])]
        raise FloatingPointError(f"{what} is not finite in row {first + row}, a completion for {source}")
