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
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch.nn import Parameter
from transformers import Qwen2VLForConditionalGeneration
from transformers.utils import logging

from favor_lab.vlm import hub
from favor_lab.vlm.hub import POCKET_DIR
from favor_lab.vlm.processing import ImageTextProcessor, load_processor

QUANTIZE = ("4bit",)
LORA_RANK = 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The linear layers of the language model; those of the tower have other names.
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
LORA_TARGETS = rf".*language_model\..*\.({'|'.join(PROJECTIONS)})_proj"


class Policy:
    """Model + processor + the ids that sampling and scoring need. Made by `load_policy`.

    initial: reads the model again as it was before any training, on the CPU; the reference of a policy without adapter
    revision: the commit on the Hub that the weights are of; None for a local directory
    """

    def __init__(
        self,
        model: Any,
        processor: ImageTextProcessor,
        name: str,
        initial: Callable[[], torch.nn.Module] | None = None,
        revision: str | None = None,
    ):
        self.model, self.processor, self.name, self._initial = model, processor, name, initial
        self.revision = revision

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
            had_card = (directory / "README.md").exists()
            self.model.save_pretrained(directory, save_embedding_layers=False)  # "auto" would ask the Hub
            if not had_card:
                (directory / "README.md").unlink(missing_ok=True)  # peft's template, with a path of this machine
        else:
            self.model.save_pretrained(directory)
            self.processor.image_processor.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
        return directory


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
    revision     commit, branch or tag on the Hub. None: the commit that `favor_lab.vlm.known` pins for the published
                 models, else the newest of main; `Policy.revision` is the commit that was loaded

    The policy is in evaluation mode (it has no dropout), its vision tower frozen. Only safetensors are read, and no
    code of a repository. Raises FileNotFoundError, ValueError, ImportError, RuntimeError, or torch.OutOfMemoryError
    where there is no room, each saying what to do.
    """
    folder, commit = _checkpoint(name, revision)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    options: dict[str, Any] = dict(dtype=_choose_dtype(dtype, device))
    if quantize is not None:
        options |= _four_bit(quantize, lora_rank, device, options["dtype"])
    with _quietly(), torch.random.fork_rng():
        torch.manual_seed(seed)
        processor = load_processor(str(folder), min_pixels, max_pixels, local_files_only=True)
        with _room_for(str(name), folder, device, options):
            model = _read_model(str(folder), **options)
            if quantize is None:
                model.to(device)
        _check_tokens(model, processor, str(name))
        model.requires_grad_(False)
        if adapter is not None:
            model = _saved_adapter(model, Path(adapter), str(name))
        elif lora_rank != 0:
            model = _fresh_adapter(model, lora_rank, lora_alpha, str(name), commit)
        else:
            model.model.language_model.requires_grad_(True)
            model.lm_head.requires_grad_(True)
    check_what_learns(model)
    initial = functools.partial(_read_model, str(folder), dtype=options["dtype"])
    return Policy(model.eval(), processor, str(name), initial, commit)


def _checkpoint(name: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """The directory of a whole Qwen2-VL checkpoint, and its commit if it is of the Hub: downloaded where it must be,
    the configuration before the gigabytes."""
    folder = hub.locate(name, POCKET_DIR)
    if folder is not None:
        if revision is not None:
            raise ValueError(f"{name} is a directory here, which has no revision {revision!r}: leave it out")
        hub.check_is_qwen2_vl(folder, str(name))
        hub.check_files(folder, str(name))
        return folder, None
    hub.check_is_qwen2_vl(hub.fetch(str(name), revision, ("config.json",)), str(name))
    folder = hub.fetch(str(name), revision)
    hub.check_files(folder, str(name))
    return folder, folder.name


def _read_model(source: str, **options: Any) -> Qwen2VLForConditionalGeneration:
    """The Qwen2-VL of a checkpoint directory, from safetensors alone; ValueError unless they are its weights, all of
    them."""
    with _quietly():
        try:
            model, found = Qwen2VLForConditionalGeneration.from_pretrained(
                source, attn_implementation="sdpa", use_safetensors=True, local_files_only=True,
                output_loading_info=True, **options,
            )  # fmt: skip
        except RuntimeError as error:
            if "size" not in str(error) or hub.is_out_of_memory(error):
                raise
            raise ValueError(f"the weights in {source} have other shapes than its config.json says: {error}") from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"the checkpoint in {source} is incomplete: {len(missing)} tensors that its config.json asks for are in no"
            f" file, the first {missing[0]}. {hub.again(source, Path(source))}"
        )
    return model


@contextmanager
def _room_for(name: str, folder: Path, device: torch.device, options: dict[str, Any]) -> Iterator[None]:
    """torch.OutOfMemoryError that says what to do, in place of whatever a machine says that has no room."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not hub.is_out_of_memory(error):
            raise
        size = sum(path.stat().st_size for path in hub.check_weights(folder, name)) / 1e9
        ways = [] if options["dtype"] != torch.float32 else ["dtype='bfloat16' (half of float32's memory)"]
        if "quantization_config" not in options and device.type == "cuda":
            ways.append("quantize='4bit' (the language model in a quarter)")
        ways.append("a smaller model, or to close what else uses the memory")
        raise torch.OutOfMemoryError(
            f"no room for {name} on {device} as {str(options['dtype']).removeprefix('torch.')}: its files have"
            f" {size:.1f} GB ({str(error).strip().splitlines()[0] if str(error).strip() else 'no memory left'})."
            f" Try {', '.join(ways)}. `favor-lab doctor --model {name}` says what fits on which card"
        ) from error


def _check_tokens(model: Any, processor: ImageTextProcessor, name: str) -> None:
    """ValueError unless the tokenizer's special tokens are those that the model knows by their ids."""
    config, id_of = model.config, processor.tokenizer.convert_tokens_to_ids
    ids = {
        "<|image_pad|>": config.image_token_id,
        "<|vision_start|>": config.vision_start_token_id,
        "<|vision_end|>": config.vision_end_token_id,
    }
    if other := {token: (id_of(token), wanted) for token, wanted in ids.items() if id_of(token) != wanted}:
        said = ", ".join(f"{token} is {found} and not {wanted}" for token, (found, wanted) in other.items())
        raise ValueError(f"tokenizer and config.json of {name} are not of one checkpoint: {said} (tokenizer, config)")
    rows, highest = config.text_config.vocab_size, max(processor.tokenizer.get_vocab().values())
    if highest >= rows:
        raise ValueError(f"tokenizer and config.json of {name} are not of one checkpoint: id {highest} of {rows} rows")


def check_what_learns(model: Any) -> None:
    """ValueError unless the vision tower is frozen and, of the rest, either all learns or only an adapter that sits on
    all seven matrices of every decoder layer: the fast passes run adapters as a set, or not at all."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    moving = [name for name, weight in base.model.visual.named_parameters() if weight.requires_grad]
    if moving:
        raise ValueError(
            f"{len(moving)} parameters of the vision tower are trainable, the first {moving[0]}: freeze it"
        )
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not isinstance(model, PeftModel):
        whole = sum(weight.numel() for weight in base.parameters()) - sum(
            w.numel() for w in base.model.visual.parameters()
        )
        if trainable != whole:
            raise ValueError(f"{trainable:,} of the {whole:,} parameters of the language model are trainable, not all")
        return
    places = {name for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    layers = len(base.model.language_model.layers)
    wanted = {
        f"model.language_model.layers.{i}.{'self_attn' if part in 'qkvo' else 'mlp'}.{part}_proj"
        for i in range(layers)
        for part in PROJECTIONS
    }
    if places != wanted:
        outside = sorted(places - wanted)
        raise ValueError(
            f"the adapter sits on {len(places & wanted)} of the {len(wanted)} matrices (7 x {layers} layers) of the"
            f" language model and on {len(outside)} others{f', the first {outside[0]}' if outside else ''}: it must sit"
            f" on all seven ({', '.join(PROJECTIONS)}) of every layer and nowhere else"
        )
    adapter = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    if trainable != adapter:
        raise ValueError(f"{trainable:,} parameters are trainable, but the adapter has {adapter:,}")


def _choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; valid: auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _four_bit(
    quantize: str, lora_rank: int, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Any]:
    """Arguments of from_pretrained for a 4-bit language model; tower and embeddings keep the dtype, in which it
    computes too."""
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
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["model.visual", "lm_head"],  # from the root: "visual" would match nothing
    )
    return dict(quantization_config=config, device_map={"": device})


def _fresh_adapter(model: Any, rank: int, alpha: int | None, name: str, revision: str | None = None) -> PeftModel:
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=0.0,
        target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
        revision=revision,  # peft's field for the base's commit
    )
    peft_model = get_peft_model(model, config)
    peft_model.peft_config["default"].base_model_name_or_path = name  # "pocket", not this machine's path
    return peft_model


def _saved_adapter(model: Any, directory: Path, name: str) -> PeftModel:
    """The adapter of a directory on the model; FileNotFoundError or ValueError unless it is whole and of this base."""
    if not (directory / "adapter_config.json").is_file():
        raise FileNotFoundError(f"there is no adapter in {directory}: it has no adapter_config.json")
    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"the adapter in {directory} has no adapter_model.safetensors; pickled weights (.bin) can run code and are"
            " not loaded: save it again with peft"
        )
    held = hub.read_header(weights, f"the adapter in {directory}")
    made_for = hub.read_json(directory / "adapter_config.json").get("base_model_name_or_path")
    misfit = f"the adapter in {directory} (made for {made_for}) does not fit {name}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            loaded = PeftModel.from_pretrained(model, str(directory), is_trainable=True, local_files_only=True)
    except (RuntimeError, ValueError) as error:  # tensors of other sizes; matrices that are not there
        if hub.is_out_of_memory(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ValueError(f"{misfit}: {lines[0].removesuffix('.') if lines else error}") from error
    wanted = get_peft_model_state_dict(loaded, save_embedding_layers=False).keys()
    if differing := sorted(wanted ^ held.keys()):
        few, more = len(wanted - held.keys()), len(held.keys() - wanted)
        raise ValueError(f"{misfit}: {few} tensors are missing and {more} too many, the first {differing[0]}")
    return loaded


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
