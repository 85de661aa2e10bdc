"""Load a policy by its name: find the checkpoint, read and check it (safetensors alone, and no code of a repository is
run), add an adapter."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from favor_lab.activities.faults import shown
from favor_lab.versions import need
from favor_lab.vlm import hub
from favor_lab.vlm.adapters import LORA_RANK, check_trainable, fresh_adapter, saved_adapter
from favor_lab.vlm.families import model_class
from favor_lab.vlm.fast.check import check_fast_path
from favor_lab.vlm.hub import POCKET_DIR, quietly
from favor_lab.vlm.policy import Policy
from favor_lab.vlm.processor import ImageTextProcessor, load_processor
from favor_lab.vlm.untrusted import again, explained, is_out_of_memory, read_json

QUANTIZE = ("4bit",)
LAYER = re.compile(r"\b(layers|blocks)\.\d+\.")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_policy(
    name: str | Path = "pocket",
    lora_rank: int = LORA_RANK,
    lora_alpha: int | None = None,
    quantize: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    adapter: str | Path | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    check: bool = True,
) -> Policy:
    """Load "pocket", a directory in the Hub layout, or a Hub name such as "Qwen/Qwen2-VL-2B-Instruct".

    lora_rank    rank of a fresh adapter on the language model's linear layers, which changes nothing at first;
                 0: no adapter, the whole language model is trainable. lora_alpha is 2 * lora_rank by default
    quantize     None, or "4bit": NF4 weights in the language model; needs CUDA and favor-lab[qlora]
    device       "auto": CUDA if there is a device, else the CPU
    dtype        "auto": bfloat16 on a CUDA device that supports it, else float32
    adapter      directory written by `Policy.save`; its rank and alpha replace those above
    max_pixels, min_pixels   pixel budget of an image (784 pixels are one image token), see `load_processor`
    seed         of the adapter's random A matrices; the global random state is not changed
    revision     commit, branch or tag on the Hub. None: the commit that `favor_lab.vlm.known` pins for the published
                 models, else the newest of main; `Policy.revision` is the commit that was loaded
    check        compare the fast passes with transformers on a few tokens, see `check_fast_path`

    The policy is in evaluation mode (it has no dropout), its vision tower is frozen. FileNotFoundError, ValueError,
    ImportError, RuntimeError and, for too little memory, torch.OutOfMemoryError say what to do.
    """
    folder, commit = _checkpoint(name, revision)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    options: dict[str, Any] = dict(dtype=_choose_dtype(dtype, device))
    if quantize is not None:
        options |= _four_bit(quantize, lora_rank, device, options["dtype"])
    with quietly(), torch.random.fork_rng():
        torch.manual_seed(seed)
        processor = load_processor(str(folder), min_pixels, max_pixels, local_files_only=True)
        with _room_for(str(name), folder, device, options):
            model = _read_model(str(folder), **options)
            if quantize is None:
                model.to(device)
        _check_tokens(model, processor, str(name))
        model.requires_grad_(False)
        if adapter is not None:
            model = saved_adapter(model, Path(adapter), str(name), commit)
        elif lora_rank != 0:
            model = fresh_adapter(model, lora_rank, lora_alpha, str(name), commit)
        else:
            model.model.language_model.requires_grad_(True)
            model.lm_head.requires_grad_(True)
    check_trainable(model)
    initial = functools.partial(_read_model, str(folder), dtype=options["dtype"])
    policy = Policy(model.eval(), processor, str(name), initial, commit, folder)
    _check_ends(policy, folder)
    if check:
        check_fast_path(policy)
    return policy


def _checkpoint(name: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """The directory of a complete checkpoint, and its commit if it comes from the Hub. What is missing is downloaded,
    the configuration first, so that another kind of model is refused before gigabytes are downloaded."""
    local = hub.locate(name, POCKET_DIR)
    if local is not None and revision is not None:
        raise ValueError(f"{name} is a directory here, which has no revision {revision!r}: leave it out")
    hub.check_family(local or hub.fetch(str(name), revision, config_only=True), str(name))
    folder = local or hub.fetch(str(name), revision)
    hub.check_files(folder, str(name))
    return folder, None if local else folder.name


def _read_model(source: str, **options: Any) -> Any:
    """The model of a checkpoint directory; ValueError if weights are missing or have other shapes than config.json."""
    folder = Path(source)
    config, advice = hub.read_config(folder, source), again(source, folder)
    if (generation := folder / "generation_config.json").is_file():  # read again below, where an error names no file
        with explained(f"{generation} holds a value of a wrong type", advice):
            GenerationConfig.from_dict(read_json(generation))
    with quietly(), explained(f"the weights in {source} have other shapes or types than its config.json says", advice):
        model, loading_info = model_class(config.model_type).from_pretrained(
            source, config=config, attn_implementation="sdpa", use_safetensors=True, local_files_only=True,
            trust_remote_code=False, output_loading_info=True, **options,
        )  # fmt: skip
    if missing := sorted(loading_info["missing_keys"]):
        raise ValueError(
            f"the checkpoint in {source} is incomplete: {len(missing)} tensors that its config.json asks for are in no"
            f" file, the first {missing[0]}. {advice}"
        )
    if extra := sorted(name for name in loading_info["unexpected_keys"] if LAYER.search(name)):
        raise ValueError(
            f"{folder / 'config.json'} has no place for {len(extra)} tensors of layers, the first {shown(extra[0])}: it"
            f" asks for fewer layers than the weights have. {advice}"
        )
    return model


@contextmanager
def _room_for(name: str, folder: Path, device: torch.device, options: dict[str, Any]) -> Iterator[None]:
    """Turn any error about too little memory into torch.OutOfMemoryError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = sum(path.stat().st_size for path in hub.check_weights(folder, name)) / 1e9
        advice = [] if options["dtype"] != torch.float32 else ["dtype='bfloat16' (half of float32's memory)"]
        if "quantization_config" not in options and device.type == "cuda":
            advice.append("quantize='4bit' (the language model in a quarter of the memory)")
        advice.append("a smaller model, or closing other programs that use the memory")
        raise torch.OutOfMemoryError(
            f"no room for {name} on {device} as {str(options['dtype']).removeprefix('torch.')}: its files have"
            f" {size:.1f} GB ({str(error).strip().splitlines()[0] if str(error).strip() else 'no memory left'})."
            f" Try {', '.join(advice)}. `favor-lab doctor --model {name}` says what fits on which card"
        ) from error


def _check_tokens(model: Any, processor: ImageTextProcessor, name: str) -> None:
    """ValueError unless the tokenizer gives its special tokens the ids that config.json names."""
    config, id_of = model.config, processor.tokenizer.convert_tokens_to_ids
    ids = {"<|image_pad|>": config.image_token_id, "<|vision_start|>": config.vision_start_token_id}
    ids |= {"<|vision_end|>": config.vision_end_token_id}
    mismatch = f"tokenizer and config.json of {name} are not of one checkpoint"
    if differing := [f"{token} is {id_of(token)} and not {ids[token]}" for token in ids if id_of(token) != ids[token]]:
        raise ValueError(f"{mismatch}: {', '.join(differing)} (tokenizer, config)")
    rows, highest = config.text_config.vocab_size, max(processor.tokenizer.get_vocab().values())
    if highest >= rows:
        raise ValueError(f"{mismatch}: id {highest} of {rows} rows")


def _check_ends(policy: Policy, folder: Path) -> None:
    """ValueError unless what ends a completion are ids of tokens."""
    rows, ids = policy.base.config.text_config.vocab_size, policy.base.generation_config.eos_token_id
    tokens = [token for token in (ids if isinstance(ids, list) else [ids]) if token is not None]
    if bad := [token for token in tokens if type(token) is not int or not 0 <= token < rows]:
        path = folder / "generation_config.json"
        raise ValueError(f"{path} has the eos_token_id {bad[0]!r}, which must be the id of a token, or a list of them")


def _choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; valid: auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _four_bit(quantize: str, lora_rank: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of from_pretrained for a 4-bit language model. Tower and embeddings keep `dtype`, and the 4-bit layers
    compute in it."""
    if quantize not in QUANTIZE:
        raise ValueError(f"unknown quantize {quantize!r}; valid: None, {', '.join(map(repr, QUANTIZE))}")
    if lora_rank == 0:
        raise ValueError("4-bit weights cannot be trained themselves: use lora_rank > 0")
    if device.type != "cuda":
        raise RuntimeError(f"quantize={quantize!r} needs a CUDA device, and this policy is for {device.type}")
    need("bitsandbytes", f"quantize={quantize!r}", "qlora")
    from transformers import BitsAndBytesConfig

    other_modules = ["model.visual", "lm_head"]  # from the root: "visual" would match nothing
    options: dict[str, Any] = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    options |= dict(bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=other_modules)
    return dict(quantization_config=BitsAndBytesConfig(**options), device_map={"": device})
