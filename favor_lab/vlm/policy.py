"""The policy: a Qwen2-VL, its processor, and a LoRA adapter that is the only thing that learns.

The reference policy of GRPO is the same model with the adapter switched off: no second copy in memory. The
vision tower is always frozen.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import Parameter
from transformers import PreTrainedConfig, Qwen2VLForConditionalGeneration
from transformers.utils import logging

from favor_lab.vlm.processing import ImageTextProcessor, load_processor

POCKET_DIR = Path(__file__).resolve().parents[2] / "data" / "pocket-qwen2-vl"
QUANTIZE = ("4bit",)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The linear layers of the language model; those of the tower have other names.
LORA_TARGETS = r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj"


class Policy:
    """Model + processor + the ids that sampling and scoring need. Made by `load_policy`.

    initial: reads the model again as it was before any training, on the CPU; the reference of a policy without adapter
    """

    def __init__(
        self, model: Any, processor: ImageTextProcessor, name: str, initial: Callable[[], torch.nn.Module] | None = None
    ):
        self.model, self.processor, self.name, self._initial = model, processor, name, initial

    @property
    def base(self) -> Qwen2VLForConditionalGeneration:
        """The Qwen2-VL itself; LoRA layers, if any, are in place inside it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def tower(self) -> torch.nn.Module:
        """The vision tower: frozen, and needed only to encode images."""
        return self.base.model.visual

    @property
    def device(self) -> torch.device:
        """Where prompts and completions are computed; not `base.device`, which is the tower's, its first part."""
        return self.base.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.get_input_embeddings().weight.dtype

    @property
    def context_length(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        return self.base.config.text_config.max_position_embeddings

    @property
    def pad_token_id(self) -> int:
        return self.tokenizer.pad_token_id

    @cached_property
    def end_token_ids(self) -> list[int]:
        """Every id that ends a completion, from the checkpoint's generation_config and its tokenizer."""
        ends = self.base.generation_config.eos_token_id
        ends = [*(ends if isinstance(ends, list | tuple) else [ends]), self.tokenizer.eos_token_id]
        return list(dict.fromkeys(token for token in ends if token is not None))

    @cached_property
    def forbidden_token_ids(self) -> list[int]:
        """Ids that no completion may contain: image, video and vision tokens (the model would look for an
        image behind them), padding unless it also ends a completion, embedding rows that have no token."""
        config, vocabulary = self.base.config, self.tokenizer.get_vocab()
        ids = {config.image_token_id, config.video_token_id, self.pad_token_id}
        ids |= {config.vision_start_token_id, config.vision_end_token_id, vocabulary.get("<|vision_pad|>")}
        ids |= set(range(len(self.tokenizer), config.text_config.vocab_size))
        return sorted(ids - {None, *self.end_token_ids})

    @cached_property
    def forbidden(self) -> torch.Tensor:
        """`forbidden_token_ids` as a boolean mask (V,) on the policy's device."""
        mask = torch.zeros(self.base.config.text_config.vocab_size, dtype=torch.bool)
        mask[self.forbidden_token_ids] = True
        return mask.to(self.device)

    def trainable_parameters(self) -> list[tuple[str, Parameter]]:
        """(name, parameter) of everything that the optimiser may move."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def report(self) -> str:
        """A small table: how many parameters each part has, and how many of them are trainable."""
        counts = {"vision tower": [0, 0], "language model": [0, 0], "LoRA adapter": [0, 0]}
        for name, p in self.model.named_parameters():
            part = "vision tower" if "visual" in name else "language model"
            part = "LoRA adapter" if "lora_" in name else part
            size = p.numel() * (2 if type(p).__name__ == "Params4bit" else 1)  # two 4-bit weights in a byte
            counts[part][0] += size
            counts[part][1] += size * p.requires_grad
        lines = [f"{self.name} on {self.device}, {str(self.dtype).removeprefix('torch.')}"]
        lines += [f"{'part':<16}{'parameters':>15}{'trainable':>15}"]
        lines += [f"{part:<16}{size:>15,}{moving:>15,}" for part, (size, moving) in counts.items() if size]
        return "\n".join(lines)

    def move_tower(self, device: str | torch.device) -> None:
        """Put the vision tower on a device of its own: on the CPU it leaves its room (2B: 1.3 GB) to training.

        `encode_prompts` fetches it when it is needed, and puts it back.
        """
        self.tower.to(device)

    @contextmanager
    def tower_on(self, device: str | torch.device) -> Iterator[None]:
        """Inside the block the vision tower is on `device`, afterwards back where it was, or on the CPU with a warning
        where it no longer fits."""
        home = next(self.tower.parameters()).device
        try:
            self.move_tower(device)
            yield
        finally:
            try:
                self.move_tower(home)
            except torch.OutOfMemoryError:
                self.move_tower("cpu")
                warnings.warn(f"no room on {home} for the vision tower: it stays on the CPU", stacklevel=3)

    @contextmanager
    def reference(self) -> Iterator[Policy]:
        """Inside the block the policy is the model it started from: its adapter is off or, without an adapter, the
        weights of the checkpoint stand in for those that learn (read once, kept on the CPU).

        Raises ValueError if there is neither an adapter nor a checkpoint.
        """
        if isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield self
            return
        learning = dict(self.trainable_parameters())
        learnt = {name: weight.data for name, weight in learning.items()}
        try:
            for name, weight in learning.items():
                weight.data = self.initial_weights[name].to(weight.device)
            yield self
        finally:
            for name, weight in learning.items():
                weight.data = learnt[name]

    @cached_property
    def initial_weights(self) -> dict[str, torch.Tensor]:
        """The weights that learn, by name, as the checkpoint has them, on the CPU."""
        if self._initial is None:
            raise ValueError(
                "there is neither an adapter to switch off nor a checkpoint to read the weights from again"
            )
        weights = dict(self._initial().named_parameters())
        return {name: weights[name].detach() for name, _ in self.trainable_parameters()}

    def save(self, directory: str | Path) -> Path:
        """Write the adapter, or without an adapter the whole checkpoint in the Hub layout, as safetensors.

        Load it again with `load_policy(name, adapter=directory)`; the whole with `load_policy(directory)`.
        """
        directory = Path(directory)
        if isinstance(self.model, PeftModel):
            self.model.save_pretrained(directory, save_embedding_layers=False)  # "auto" would ask the Hub
        else:
            self.model.save_pretrained(directory)
            self.processor.image_processor.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
        return directory


def load_policy(
    name: str | Path = "pocket",
    lora_rank: int = 16,
    lora_alpha: int | None = None,
    quantize: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    adapter: str | Path | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    seed: int = 0,
) -> Policy:
    """Load "pocket", a directory in the Hub layout, or a Hub name such as "Qwen/Qwen2-VL-2B-Instruct".

    lora_rank    rank of a fresh adapter on the language model's linear layers, which starts as no change;
                 0: no adapter, the whole language model is trainable. lora_alpha is 2 * lora_rank by default
    quantize     None, or "4bit": NF4 weights in the language model; needs CUDA and favor-lab[qlora]
    device       "auto": CUDA when there is one, else the CPU
    dtype        "auto": bfloat16 on a CUDA device that has it, else float32
    adapter      directory written by `Policy.save`; its rank and alpha replace those above
    max_pixels, min_pixels   pixel budget of an image (784 pixels are one image token), see `load_processor`
    seed         of the adapter's random half; the global random state is left alone

    The policy is in evaluation mode (it has no dropout), its vision tower frozen. Raises FileNotFoundError,
    ValueError, ImportError or RuntimeError that say what is missing.
    """
    source, local = _locate(name)
    _check_is_qwen2_vl(source, local)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    options: dict[str, Any] = dict(dtype=_choose_dtype(dtype, device), local_files_only=local)
    if quantize is not None:
        options |= _four_bit(quantize, lora_rank, device)
    with _quietly(), torch.random.fork_rng():
        torch.manual_seed(seed)
        processor = load_processor(source, min_pixels, max_pixels, local_files_only=local)
        model = _read_model(source, **options)
        if quantize is None:
            model.to(device)
        model.requires_grad_(False)
        if adapter is not None:
            model = _saved_adapter(model, Path(adapter), str(name))
        elif lora_rank != 0:
            model = _fresh_adapter(model, lora_rank, lora_alpha, str(name))
        else:
            model.model.language_model.requires_grad_(True)
            model.lm_head.requires_grad_(True)
    initial = functools.partial(_read_model, source, dtype=options["dtype"], local_files_only=local)
    return Policy(model.eval(), processor, str(name), initial)


def _read_model(source: str, **options: Any) -> Qwen2VLForConditionalGeneration:
    """The Qwen2-VL of a checkpoint, from safetensors alone."""
    with _quietly():
        return Qwen2VLForConditionalGeneration.from_pretrained(
            source, attn_implementation="sdpa", use_safetensors=True, **options
        )


def _locate(name: str | Path) -> tuple[str, bool]:
    """What to hand to transformers, and whether that is a local directory."""
    if str(name) == "pocket":
        if not (POCKET_DIR / "config.json").is_file():
            raise FileNotFoundError(
                f"the pocket checkpoint is not in {POCKET_DIR}. It lives in the repository's data folder;"
                " install from a checkout with `pip install -e .`, or pass its directory as the name."
                " `python data/pocket-qwen2-vl/rebuild` makes it again"
            )
        return str(POCKET_DIR), True
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path), True
    if isinstance(name, Path) or path.is_absolute() or name[0] in ".~" or name.count("/") > 1:
        raise FileNotFoundError(f"there is no checkpoint directory {path}")
    return name, False


def _check_is_qwen2_vl(source: str, local: bool) -> None:
    """ValueError, with what was found instead, unless `source` is a Qwen2-VL checkpoint."""
    if local and not (Path(source) / "config.json").is_file():
        if (Path(source) / "adapter_config.json").is_file():
            raise ValueError(f"{source} holds an adapter, not a model: load_policy(name, adapter={source!r})")
        raise ValueError(f"{source} is not a checkpoint directory: it has no config.json")
    config, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local)
    found = config.get("model_type")
    if found != "qwen2_vl":
        raise ValueError(f"{source} has model_type {found!r}; only 'qwen2_vl' can be loaded")


def _choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; valid: auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _four_bit(quantize: str, lora_rank: int, device: torch.device) -> dict[str, Any]:
    """Arguments of from_pretrained for a 4-bit language model; tower and embeddings keep the dtype."""
    if quantize not in QUANTIZE:
        raise ValueError(f"unknown quantize {quantize!r}; valid: None, {', '.join(map(repr, QUANTIZE))}")
    if lora_rank == 0:
        raise ValueError("4-bit weights cannot be trained themselves: use lora_rank > 0")
    if device.type != "cuda":
        raise RuntimeError(f"quantize={quantize!r} needs a CUDA device, and this policy is for {device.type}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(f"quantize={quantize!r} needs bitsandbytes: pip install 'favor-lab[qlora]'")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["model.visual", "lm_head"],  # from the root: "visual" would match nothing
    )
    return dict(quantization_config=config, device_map={"": device})


def _fresh_adapter(model: Any, rank: int, alpha: int | None, name: str) -> PeftModel:
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    peft_model.peft_config["default"].base_model_name_or_path = name  # "pocket", not this machine's path
    return peft_model


def _saved_adapter(model: Any, directory: Path, name: str) -> PeftModel:
    if not (directory / "adapter_config.json").is_file():
        raise FileNotFoundError(f"there is no adapter in {directory}: it has no adapter_config.json")
    try:
        return PeftModel.from_pretrained(model, str(directory), is_trainable=True, local_files_only=True)
    except RuntimeError as error:  # torch's word for tensors of other sizes
        raise ValueError(f"the adapter in {directory} does not fit {name}: {error}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' weight-by-weight progress bar, and a deprecation notice of peft's own doing."""
    had_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        if had_bar:
            logging.enable_progress_bar()
