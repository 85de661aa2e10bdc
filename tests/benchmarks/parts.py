"""What each part of the fast path buys: the same work done by the plain and the fast code, alternating.

    python tests/benchmarks/parts.py                   # the pocket policy on the CPU
    python tests/benchmarks/parts.py --policy 2b       # Qwen2-VL-2B's shape, random weights, on a GPU

Three parts of a step on the same prompts and completions. sample: the decoding loop with transformers' forward pass
(plain), and with the static decoder. score: log-probabilities and their gradient of plain rows (each row its prompt and
completion, through transformers), with the prompt's cache shared (`prefix`), and packed. reference: the same without
gradient. Completions end where the policy ends them, unless --fixed-length is given.
"""

from __future__ import annotations

from favor_lab import share_cores

if __name__ == "__main__":
    share_cores()  # before torch is imported

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common import make_policy, make_shots, now, parse, parser, save, summary
from favor_lab import Policy, PromptBatch, Rollout, encode_prompts, run_prompt, sample_groups, score_completions
from favor_lab.budget.profiling import never_end
from favor_lab.vlm.prefix import completion_hidden, expand, prompt_embeds, token_logps

UNUSED = ("beta", "micro-batch", "offload-tower", "gradient-checkpointing", "decoding")


def plain_rows(policy: Policy, prompts: PromptBatch, rollout: Rollout) -> Tensor:
    """Log-probabilities (N, L) of rows of P + L tokens, every one with its prompt; the image features are kept."""
    model, rows, length = policy.base.model.language_model, rollout.groups, rollout.mask.shape[1]
    ids = rollout.completion_ids.masked_fill(~rollout.mask, policy.end_token_ids[0])  # (N, L)
    embeds = torch.cat(
        [prompt_embeds(policy, prompts)[rows], model.get_input_embeddings()(ids)], dim=1
    )  # (N, P + L, D)
    steps = prompts.next_position[rows, None] + torch.arange(length, device=ids.device)  # (N, L)
    positions = torch.cat([prompts.position_ids[:, rows], steps.expand(3, -1, -1)], dim=2)  # (3, N, P + L)
    mask = torch.cat([prompts.attention_mask[rows], rollout.mask.to(prompts.attention_mask)], dim=1)
    hidden = model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
    return token_logps(policy, hidden[:, -length - 1 : -1], ids)[0].masked_fill(~rollout.mask, 0.0)  # (N, L)


def shared_cache(policy: Policy, prompts: PromptBatch, rollout: Rollout) -> Tensor:
    """The same through the plain shared prefix."""
    prefix = expand(run_prompt(policy, prompts), rollout.groups)
    ids = rollout.completion_ids.masked_fill(~rollout.mask, policy.end_token_ids[0])
    logps, _ = token_logps(policy, completion_hidden(policy, prefix, ids, rollout.mask), ids)  # (N, L)
    return logps.masked_fill(~rollout.mask, 0.0)


def ways(policy: Policy, prompts: PromptBatch, rollout: Rollout, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """part -> way -> what to time."""
    score: dict[str, Callable[..., Tensor]] = {
        "plain rows": plain_rows, "shared cache": shared_cache, "packed": score_completions
    }  # fmt: skip

    def sample(how: str) -> None:
        sample_groups(policy, prompts, args.group_size, args.length, seed=args.seed, decoding=how)

    def learn(logps: Callable[..., Tensor]) -> None:
        logps(policy, prompts, rollout).sum().backward()

    def refer(logps: Callable[..., Tensor]) -> None:
        with torch.no_grad(), policy.reference():
            logps(policy, prompts, rollout)

    return {
        "sample": {how: lambda how=how: sample(how) for how in ("plain", args.fast)},
        "score": {name: lambda way=way: learn(way) for name, way in score.items()},
        "reference": {name: lambda way=way: refer(way) for name, way in score.items()},
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    policy = make_policy(args)
    shots = make_shots(args)
    args.fast = "graph" if torch.device(args.device).type == "cuda" else "static"
    if args.fixed_length:
        never_end(policy)
    prompts = encode_prompts(policy, shots.train[: args.prompts], shots.labels, completion_tokens=args.length)
    rollout = sample_groups(policy, prompts, args.group_size, args.length, seed=args.seed)
    with torch.no_grad():
        gap = (plain_rows(policy, prompts, rollout) - score_completions(policy, prompts, rollout)).abs().max().item()
    parts = ways(policy, prompts, rollout, args)
    times: dict[str, dict[str, list[float]]] = {part: {way: [] for way in found} for part, found in parts.items()}
    for turn in tqdm(range(args.warmup + args.steps), desc="parts"):
        for part, found in parts.items():
            for way, work in found.items():
                start = now(args.device)
                work()
                times[part][way] += [now(args.device) - start] if turn >= args.warmup else []
    length = rollout.lengths.float().mean().item()
    result: dict[str, Any] = {"largest_difference": gap, "mean_length": length, "parts": {}}
    for part, found in times.items():
        fast = next(reversed(found.values()))
        result["parts"][part] = {
            way: {"seconds": summary(values), "ratio": summary([a / b for a, b in zip(values, fast, strict=True)])}
            for way, values in found.items()
        }
    return result


def report(result: dict[str, Any]) -> str:
    lines = []
    for part, ways in result["parts"].items():
        for way, entry in ways.items():
            low, high = entry["ratio"]["quartiles"]
            lines.append(
                f"{part:<10} {way:<13}{entry['seconds']['median']:8.4f} s, {entry['ratio']['median']:.2f} times the"
                f" fast way ({low:.2f} to {high:.2f})"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__, "pocket", without=UNUSED)
    options.add_argument("--steps", type=int, default=20, help="timed rounds (default: 20)")
    options.add_argument("--warmup", type=int, default=3, help="rounds before them (default: 3)")
    options.add_argument("--fixed-length", action="store_true", help="every completion has --length tokens")
    args = parse(options, argv)
    result = measure(args)
    print(report(result))
    print(save(args, f"parts-{args.policy}", "parts", result))


if __name__ == "__main__":
    main()
