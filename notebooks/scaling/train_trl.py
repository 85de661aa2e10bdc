"""Few-shot GRPO with TRL, on one process or on as many as `accelerate launch` starts.

    python notebooks/scaling/train_trl.py --steps 20
    accelerate launch --config_file notebooks/scaling/cpu_two.yaml notebooks/scaling/train_trl.py --steps 20

Writes the adapter and one line of JSON a step (records.jsonl) into --output. A step has --prompts x --group-size
completions however many processes share them.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from favor_lab import GRPOSettings, accuracy_reward, few_shot, format_reward, load_activities, load_policy
from favor_lab.runs.card import configuration_of, preset_rate
from favor_lab.runs.options import PolicyOptions
from favor_lab.trl_bridge import grpo_trainer, trl_records


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="pocket", help="pocket, a checkpoint directory or a Hub name")
    parser.add_argument("--adapter", help="go on from this adapter")
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--data", default="cartoon", help="a name that load_activities knows")
    parser.add_argument("--root", help="the folder of the data")
    parser.add_argument("--shots", type=int, default=4, help="images a label")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps")
    parser.add_argument("--prompts", type=int, default=4, help="prompts in a step, over all processes")
    parser.add_argument("--group-size", type=int, default=8, help="completions per prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="most tokens of a completion")
    parser.add_argument("--micro-batch", type=int, default=0, help="completions in a pass of one process, 0: all")
    parser.add_argument("--learning-rate", type=float, help="left out: that of the preset for the policy")
    parser.add_argument("--beta", type=float, default=0.04, help="weight of the KL penalty")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="mixed precision, as zero2.yaml and fsdp2.yaml have it")
    parser.add_argument("--vllm", choices=("colocate", "server"), help="sample with vLLM")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, also where there is a GPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("trl-run"))
    return parser.parse_args()


def settings_of(args: argparse.Namespace) -> GRPOSettings:
    """The settings of the run; the learning rate of a large policy is that of the presets, not the pocket policy's."""
    policy, rate = PolicyOptions(args.policy, lora_rank=args.lora_rank), args.learning_rate
    if rate is None:
        rate = GRPOSettings.learning_rate if configuration_of(policy) is None else preset_rate(policy)
    return GRPOSettings(
        steps=args.steps,
        prompts_per_step=args.prompts,
        group_size=args.group_size,
        max_new_tokens=args.max_new_tokens,
        micro_batch=args.micro_batch,
        learning_rate=rate,
        beta=args.beta,
        gradient_checkpointing=args.gradient_checkpointing,
        seed=args.seed,
    )


def main() -> None:
    args = parse()
    settings = settings_of(args)
    on_gpu = torch.cuda.is_available() and not args.cpu
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    dtype = "auto" if args.lora_rank or args.adapter else "float32"  # whole weights: bfloat16 would round steps away
    policy = load_policy(args.policy, args.lora_rank, device=device, dtype=dtype, adapter=args.adapter, seed=args.seed)
    shots = few_shot(load_activities(args.data, args.root), shots=args.shots, seed=args.seed, validation=0, test=0)
    options = {"bf16": args.bf16, "use_vllm": args.vllm is not None, "vllm_mode": args.vllm or "colocate"}
    trainer = grpo_trainer(policy, shots, settings, (accuracy_reward, format_reward), args.output, **options)
    trainer.train()
    trainer.save_model(str(args.output))  # every process calls it, the first one writes
    if trainer.is_world_process_zero():
        records = trl_records(trainer)
        lines = [json.dumps(record.to_dict()) for record in records]
        (args.output / "records.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{len(records)} steps on {trainer.args.world_size} processes; last reward {records[-1].reward:.3f}")
        print(f"load_policy({args.policy!r}, adapter={str(args.output)!r})")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # closes the connections: a process that ends before the others may be aborted


if __name__ == "__main__":
    main()
