"""LoRA adapters: add a fresh one to a model, load a saved one, and check which parameters are trainable."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from favor_lab.vlm import hub

LORA_RANK = 16
# The linear layers of a decoder layer in the language model; those of the vision tower have other names.
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
LORA_TARGETS = rf".*language_model\..*\.({'|'.join(PROJECTIONS)})_proj"


def fresh_adapter(model: Any, rank: int, alpha: int | None, name: str, revision: str | None = None) -> PeftModel:
    """The model with a new adapter that changes nothing yet, since its B matrices are zero; alpha is 2 * rank if None.
    name, revision: the base model's, which a saved adapter records."""
    options = {"r": rank, "lora_alpha": 2 * rank if alpha is None else alpha, "lora_dropout": 0.0}
    config = LoraConfig(**options, target_modules=LORA_TARGETS, task_type="CAUSAL_LM", revision=revision)
    peft_model = get_peft_model(model, config)
    peft_model.peft_config["default"].base_model_name_or_path = name  # such as "pocket", not a path
    return peft_model


def saved_adapter(model: Any, directory: Path, name: str) -> PeftModel:
    """The model with the adapter in `directory`, which stays trainable. FileNotFoundError for a missing file,
    ValueError for a damaged one or an adapter of another base model."""
    if not (directory / "adapter_config.json").is_file():
        raise FileNotFoundError(f"there is no adapter in {directory}: it has no adapter_config.json")
    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"the adapter in {directory} has no adapter_model.safetensors; pickled weights (.bin) can run code and are"
            " not loaded: save it again with peft"
        )
    tensors_in_file = hub.tensor_names(weights, f"the adapter in {directory}")
    base_name = hub.read_json(directory / "adapter_config.json").get("base_model_name_or_path")
    misfit = f"the adapter in {directory} (made for {base_name}) does not fit {name}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # raised as an error below
            loaded = PeftModel.from_pretrained(model, str(directory), is_trainable=True, local_files_only=True)
    except (RuntimeError, ValueError) as error:  # tensors of another size; layers that the model does not have
        if hub.is_out_of_memory(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ValueError(f"{misfit}: {lines[0].removesuffix('.') if lines else error}") from error
    expected = get_peft_model_state_dict(loaded, save_embedding_layers=False).keys()
    if differing := sorted(expected ^ tensors_in_file):
        missing, extra = len(expected - tensors_in_file), len(tensors_in_file - expected)
        raise ValueError(f"{misfit}: {missing} tensors are missing and {extra} too many, the first {differing[0]}")
    return loaded


def check_trainable(model: Any) -> None:
    """ValueError unless the vision tower is frozen, and the trainable parameters are either the whole language model or
    an adapter on all seven matrices of every decoder layer: the fast passes support no adapter on some of them."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if in_tower := [name for name, weight in base.model.visual.named_parameters() if weight.requires_grad]:
        count = len(in_tower)
        raise ValueError(f"{count} parameters of the vision tower are trainable, the first {in_tower[0]}: freeze it")
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not isinstance(model, PeftModel):
        total = sum(weight.numel() for name, weight in base.named_parameters() if "visual" not in name)
        if trainable != total:
            raise ValueError(f"{trainable:,} of the {total:,} parameters of the language model are trainable, not all")
        return
    places = {name for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    layers = len(base.model.language_model.layers)
    parts = [f"{'self_attn' if part in 'qkvo' else 'mlp'}.{part}_proj" for part in PROJECTIONS]
    expected = {f"model.language_model.layers.{i}.{part}" for i in range(layers) for part in parts}
    if places != expected:
        outside = sorted(places - expected)
        raise ValueError(
            f"the adapter sits on {len(places & expected)} of the {len(expected)} matrices (7 x {layers} layers) of the"
            f" language model and on {len(outside)} others{f', the first {outside[0]}' if outside else ''}: it must sit"
            f" on all seven ({', '.join(PROJECTIONS)}) of every layer and nowhere else"
        )
    adapter = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    if trainable != adapter:
        raise ValueError(f"{trainable:,} parameters are trainable, but the adapter has {adapter:,}")
