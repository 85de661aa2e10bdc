"""LoRA adapters of a policy: a fresh one, one read from a directory, and the check of what is trainable."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from favor_lab.vlm import hub

LORA_RANK = 16
# The linear layers of the language model; those of the tower have other names.
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
LORA_TARGETS = rf".*language_model\..*\.({'|'.join(PROJECTIONS)})_proj"


def fresh_adapter(model: Any, rank: int, alpha: int | None, name: str, revision: str | None = None) -> PeftModel:
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


def saved_adapter(model: Any, directory: Path, name: str) -> PeftModel:
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
