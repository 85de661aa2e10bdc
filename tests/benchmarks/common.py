"""What the benchmarks share: their arguments, policies, images, clocks, and the file of results.

Every result contains the machine, the versions and the date, and all single times next to the values computed from
them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from favor_lab import ACTIVITIES, Example, FewShot, GRPOSettings, Policy, draw_scene, load_policy
from favor_lab.budget.flops import Cost, bound_seconds, step_costs
from favor_lab.budget.machine import machine_rates
from favor_lab.budget.memory import step_memory
from favor_lab.budget.shapes import StepShape, shape_of
from favor_lab.grpo.support.settings import DECODINGS
from favor_lab.vlm.adapters import fresh_adapter
from favor_lab.vlm.hub import POCKET_DIR, configuration, quietly
from favor_lab.vlm.loading import DTYPES
from favor_lab.vlm.processor import load_processor

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "data" / "results" / "benchmarks"
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "favor-lab")

SIZES_OF_A_SHAPE = {
    "text_config": (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
        "vocab_size", "max_position_embeddings",
    ),
    "vision_config": ("embed_dim", "depth", "num_heads", "mlp_ratio", "hidden_size"),
}  # fmt: skip
# A model of a few thousand parameters, for the tests; that of the 2B model is `favor_lab.vlm.known`'s.
TINY = {
    "text_config": dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=2048,
    ),
    "vision_config": dict(embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, hidden_size=32),
}  # fmt: skip
# Defaults of a script for arguments that are not given.
SIZES = {
    "pocket": dict(device="cpu", prompts=4, group_size=8, length=32, image_size=140, images=64),
    "2b": dict(device="cuda", prompts=4, group_size=8, length=256, image_size=448, images=64),
    "tiny": dict(device="cpu", prompts=2, group_size=2, length=4, image_size=56, images=4),
}


# ------------------------------------------------------------------------------------------------------- arguments


def parser(description: str | None, policy: str, without: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The arguments of every script about a policy, except those named in `without`; `policy` is the script's
    default."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def add(name: str, **kwargs: Any) -> None:
        if name.removeprefix("--") not in without:
            options.add_argument(name, **kwargs)

    kinds = "pocket: the shipped one; 2b: Qwen2-VL-2B's shape with random weights; tiny: for tests"
    add("--policy", choices=tuple(SIZES), default=policy, help=f"{kinds} (default: {policy})")
    add("--device", default="auto", help="cpu or cuda (default: cuda for 2b, cpu for the others)")
    add("--dtype", choices=tuple(DTYPES), help="of the weights (default: bfloat16 on cuda, float32 on the CPU)")
    add("--prompts", type=int, help="B, prompts in a step (default: 4)")
    add("--group-size", type=int, help="G, completions of a prompt (default: 8)")
    add(
        "--length",
        type=int,
        help="tokens of every completion (default: 256 for 2b, 32 for pocket, whose answers have 18 to 31)",
    )
    add("--image-size", type=int, help="pixels per side, a multiple of 28 (default: 448 for 2b, 140 for pocket)")
    add("--images", type=int, help="images of the run, each encoded once (default: 64)")
    add("--labels", type=int, default=16, help="labels named in the prompt, 1 to 16 (default: 16)")
    add("--beta", type=float, default=0.04, help="weight of the KL penalty; 0: no reference pass (default: 0.04)")
    add("--lora-rank", type=int, default=16, help="rank of the adapter (default: 16)")
    add("--micro-batch", type=int, default=0, help="completions in a forward and backward pass (default: 0, all)")
    add("--gradient-checkpointing", action=argparse.BooleanOptionalAction, default=False)
    add("--offload-tower", action="store_true", help="the vision tower leaves the GPU once all images are encoded")
    add("--decoding", choices=DECODINGS, default=GRPOSettings().decoding, help="how tokens are sampled")
    add("--seed", type=int, default=0)
    add_output(options)
    return options


def add_output(options: argparse.ArgumentParser) -> None:
    """Arguments for the folder and the name of the result."""
    add = options.add_argument
    add("--threads", type=int, help="CPU threads (default: torch's own choice)")
    add("--out", type=Path, default=RESULTS, help=f"folder of the JSON file (default: {_shown(RESULTS)})")
    add("--machine", help="name of this machine in the file's name (default: that of its GPU or processor)")
    add("--tag", default="", help="added to the file's name, to keep several settings apart")


def parse(
    options: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    sizes: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """The arguments, completed by `SIZES` and a script's own `sizes` (by policy) and checked; an error that says what
    to do if this machine lacks what they need."""
    args = options.parse_args(argv)
    keep_warnings()
    for name, value in (SIZES[args.policy] | dict((sizes or {}).get(args.policy, {}))).items():
        if getattr(args, name, None) in (None, "auto"):
            setattr(args, name, value)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        options.error(f"--policy {args.policy} runs on --device {args.device}, but torch sees no CUDA device here")
    args.dtype = args.dtype or ("bfloat16" if torch.device(args.device).type == "cuda" else "float32")
    for size in (args.image_size, *(getattr(args, "image_sizes", None) or ())):
        if size < 28 or size % 28:
            options.error(f"image size {size} is no multiple of 28, the side of an image token in pixels")
    if not 1 <= args.labels <= len(ACTIVITIES):
        options.error(f"--labels {args.labels} is not between 1 and {len(ACTIVITIES)}")
    if args.images < args.prompts:
        options.error(f"--images {args.images} are fewer than the --prompts {args.prompts} of one step")
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------ policies, images


def random_config(name: str) -> Qwen2VLConfig:
    """The configuration "2b" (Qwen2-VL-2B-Instruct's shape, 2 208 985 600 parameters) or "tiny", with the ids of the
    pocket tokenizer, whose tokens come first in its vocabulary."""
    config = Qwen2VLConfig.from_pretrained(POCKET_DIR, local_files_only=True).to_dict()
    published = configuration("Qwen/Qwen2-VL-2B-Instruct").to_dict()
    for part, sizes in SIZES_OF_A_SHAPE.items():
        config[part] |= {size: published[part][size] for size in sizes} if name == "2b" else TINY[part]
        config[part].pop("layer_types", None)  # one entry per layer: it has to be made again
    section = published["text_config"]["rope_parameters"]["mrope_section"] if name == "2b" else [2, 3, 3]
    config["text_config"]["rope_parameters"] |= {"mrope_section": section}
    return Qwen2VLConfig(**config)


def random_policy(name: str, device: str, dtype: str, lora_rank: int, image_size: int, seed: int = 0) -> Policy:
    """A policy with random weights, created on the device in their final type; otherwise as `load_policy` creates
    it."""
    with quietly(), torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        config = random_config(name)
        model: Any = Qwen2VLForConditionalGeneration._from_config(
            config, dtype=DTYPES[dtype], attn_implementation="sdpa"
        )
        model.generation_config = GenerationConfig.from_pretrained(POCKET_DIR, local_files_only=True)
        model.requires_grad_(False)
        if lora_rank:
            model = fresh_adapter(model, lora_rank, None, name)
        else:
            model.model.language_model.requires_grad_(True)
            model.lm_head.requires_grad_(True)
    return Policy(model.eval(), processor(image_size), name)


@functools.cache
def processor(image_size: int) -> Any:
    """The pocket processor for square images of this side."""
    return load_processor(str(POCKET_DIR), max_pixels=image_size**2, min_pixels=image_size**2, local_files_only=True)


def make_policy(args: argparse.Namespace, lora_rank: int | None = None) -> Policy:
    """The policy of the command line, with its adapter or with `lora_rank` instead."""
    rank = args.lora_rank if lora_rank is None else lora_rank
    if args.policy != "pocket":
        return random_policy(args.policy, args.device, args.dtype, rank, args.image_size, args.seed)
    pixels = dict(max_pixels=args.image_size**2, min_pixels=args.image_size**2)
    return load_policy("pocket", rank, device=args.device, dtype=args.dtype, seed=args.seed, **pixels)


def make_shots(args: argparse.Namespace) -> FewShot:
    """`args.images` drawn scenes of `args.labels` activities, at the size that the processor expects."""
    examples = []
    for k in range(args.images):
        scene = draw_scene("cartoon", "train", k // args.labels * 16 + k % args.labels, size=args.image_size)
        examples.append(Example(scene.image, str(scene.label), scene.source))
    return FewShot(examples, [], [], list(ACTIVITIES[: args.labels]))


def make_settings(args: argparse.Namespace, steps: int) -> GRPOSettings:
    return GRPOSettings(
        steps=steps, prompts_per_step=args.prompts, group_size=args.group_size, max_new_tokens=args.length,
        beta=args.beta, micro_batch=args.micro_batch, decoding=args.decoding, seed=args.seed, log_rows=1,
        gradient_checkpointing=args.gradient_checkpointing, offload_tower=args.offload_tower,
    )  # fmt: skip


def check_lengths(record: Any, length: int) -> None:
    """RuntimeError unless all completions of a step had exactly `length` tokens."""
    if not record.length_min == record.length_max == length:
        raise RuntimeError(
            f"step {record.step}: completions of {record.length_min} to {record.length_max} tokens, not {length}"
        )


# --------------------------------------------------------------------------------------------------------- measuring

WARNINGS: list[str] = []  # since the arguments were parsed


def keep_warnings() -> None:
    """From now on what is warned of is kept beside being shown: what a number means may depend on it."""
    show = getattr(warnings.showwarning, "shows", warnings.showwarning)

    def keep(message: Warning | str, *rest: Any, **options: Any) -> None:
        WARNINGS.append(without_paths(" ".join(str(message).split()))[:300])
        show(message, *rest, **options)

    WARNINGS.clear()
    keep.shows = show  # type: ignore[attr-defined]
    warnings.showwarning = keep


def warned() -> dict[str, list[str]]:
    """The warnings for a result, each once; nothing where there were none."""
    return {"warnings": [*dict.fromkeys(WARNINGS)]} if WARNINGS else {}


def without_paths(text: str) -> str:
    """Text without the names of this person's folders.

    >>> without_paths(f"{ROOT}/tests/x.py, {Path.home()}/y, {sys.prefix}/z")
    './tests/x.py, ~/y, python/z'
    """
    folders = {str(ROOT): ".", sys.prefix: "python", tempfile.gettempdir(): "tmp", str(Path.home()): "~"}
    for folder in sorted(folders, key=len, reverse=True):  # a folder in another one first
        text = text.replace(folder, folders[folder]) if len(folder) > 1 else text
    return text


def now(device: str) -> float:
    """Seconds on the wall clock, after all work on the device has finished."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles, and the values themselves.

    >>> summary([3.0, 1.0, 2.0])["median"]
    2.0
    """
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return {"median": middle, "quartiles": [low, high], "values": list(values)}


def phase_seconds(records: Sequence[Any]) -> dict[str, float]:
    """Median seconds of each phase over step records.

    >>> from favor_lab import StepRecord
    >>> phase_seconds([StepRecord(1, seconds={"sample": second}) for second in (1.0, 2.0, 6.0)])
    {'sample': 2.0}
    """
    phases = dict.fromkeys(phase for record in records for phase in record.seconds)
    return {phase: statistics.median(record.seconds.get(phase, 0.0) for record in records) for phase in phases}


def count_tokens(policy: Policy, shots: FewShot, args: argparse.Namespace) -> dict[str, int]:
    """Tokens of one prompt: all of them, and those of its image."""
    from favor_lab import encode_prompts

    prompts = encode_prompts(policy, shots.train[:1], shots.labels, completion_tokens=args.length)
    return {"prompt_tokens": int(prompts.attention_mask.sum()), "image_tokens": len(prompts.image_features[0])}


# ----------------------------------------------------------------------------------------------------------- counted


def step_shape(args: argparse.Namespace, tokens: dict[str, int]) -> StepShape:
    """The sizes of a step with these arguments."""
    return StepShape(
        args.prompts,
        args.group_size,
        prompt_tokens=tokens["prompt_tokens"],
        image_tokens=tokens["image_tokens"],
        completion_tokens=args.length,
        images=args.images,
        beta=args.beta,
        micro_batch=args.micro_batch,
        gradient_checkpointing=args.gradient_checkpointing,
        offload_tower=args.offload_tower,
    )


def counted(policy: Policy, args: argparse.Namespace, tokens: dict[str, int], shared: bool = True) -> dict[str, Cost]:
    """The costs of the ideal step by phase (`favor_lab.budget.flops`), without encoding. shared=False: every prompt
    runs once per completion instead of once per group, as in a trainer without a shared prefix."""
    step = dataclasses.replace(step_shape(args, tokens), images=0)
    if not shared:
        step = dataclasses.replace(step, prompts=step.rows, group_size=1)
    return step_costs(shape_of(policy), step)


def measured_rates(args: argparse.Namespace) -> dict[str, float]:
    """This machine's matrix rate and memory bandwidth for the policy's number type. Measure them before a policy is
    loaded: beside one, their arrays (2.4 GB on a GPU) do not fit on every card."""
    rates = machine_rates(args.device, DTYPES[args.dtype])
    if torch.device(args.device).type == "cuda":
        torch.cuda.empty_cache()
    return {name: float(rates[name]) for name in ("flops_per_second", "bytes_per_second")}


def seconds_of(costs: dict[str, Cost], rates: dict[str, float]) -> dict[str, float]:
    """The minimum time of each phase at these rates."""
    return bound_seconds(costs, rates["flops_per_second"], rates["bytes_per_second"])


def estimate_memory(policy: Policy, args: argparse.Namespace, tokens: dict[str, int]) -> dict[str, float]:
    """The estimated peak of each phase (`favor_lab.budget.memory`), in bytes."""
    return step_memory(shape_of(policy), step_shape(args, tokens))


# ----------------------------------------------------------------------------------------------------------- results


def environment(device: str, machine: str | None = None) -> dict[str, Any]:
    """Everything besides the code that a time depends on."""
    gpu = torch.device(device).type == "cuda"
    hardware: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if gpu:
        hardware["gpu"] = torch.cuda.get_device_name(device)
        facts = torch.cuda.get_device_properties(device)
        hardware["gpu_memory_gb"] = round(facts.total_memory / 1e9, 1)
        hardware["gpu_capability"] = f"{facts.major}.{facts.minor}"
    named = hardware["gpu"] if gpu else f"cpu-{hardware['threads']}-threads"
    return {
        "machine": slug(machine or named),
        **hardware,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def is_same_setup(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two results' environments are one machine with the same versions of what is measured."""
    names = ("torch", "transformers", "favor-lab")
    versions = ([where["versions"].get(name) for name in names] for where in (one, two))
    return next(versions) == next(versions) and all(one.get(key) == two.get(key) for key in ("machine", "gpu"))


def slug(name: str) -> str:
    """A name for a file.

    >>> slug("NVIDIA H200")
    'nvidia-h200'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def result_path(args: argparse.Namespace, name: str, folder: Path | None = None) -> Path:
    """NAME-MACHINE.json, or NAME-TAG-MACHINE.json."""
    machine = environment(getattr(args, "device", "cpu"), args.machine)["machine"]
    return (folder or args.out) / ("-".join(filter(None, (name, slug(args.tag), machine))) + ".json")


def save(args: argparse.Namespace, name: str, benchmark: str, result: dict[str, Any]) -> Path:
    """Write a result, with its arguments, the machine and the date; an older one is replaced atomically."""
    arguments = {key: value for key, value in vars(args).items() if isinstance(value, str | int | float | list)}
    for key in ("machine", "tag"):
        arguments.pop(key, None)
    path = result_path(args, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": benchmark,
        "environment": environment(getattr(args, "device", "cpu"), args.machine),
        "arguments": arguments,
        **warned(),
        **result,
    }
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    unfinished.replace(path)
    return path


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
