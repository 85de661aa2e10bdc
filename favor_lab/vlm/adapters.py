"""LoRA adapters: add a fresh one to a model, load a saved one, and check which parameters are trainable."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from favor_lab.activities.faults import shown
from favor_lab.vlm.hub import POCKET_DIR
from favor_lab.vlm.untrusted import check_floats, read_json, tensor_types

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


def saved_adapter(model: Any, directory: Path, name: str, revision: str | None = None) -> PeftModel:
    """The model with the adapter in `directory`, which stays trainable; a warning if it was made for another base than
    the one of this name. FileNotFoundError for a missing file, ValueError for a damaged one, for an adapter of another
    shape, and for one that is more than `plain_lora`.

    peft does not read the directory: of a stranger's configuration only the numbers of a LoRA adapter are used, and
    the tensors themselves say where it sits, so that no pattern is run.
    """
    path, weights = directory / "adapter_config.json", directory / "adapter_model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter in {directory}: it has no adapter_config.json")
    if not weights.is_file():
        raise FileNotFoundError(
            f"the adapter in {directory} has no adapter_model.safetensors; pickled weights (.bin) can run code and are"
            " not loaded: save it again with peft"
        )
    tensors = tensor_types(weights, f"the adapter in {directory}")
    values = read_json(path)
    options = plain_lora(values, path)
    check_floats(weights, f"the adapter in {directory}")
    base_name, base_revision = values.get("base_model_name_or_path"), values.get("revision")
    misfit = f"the adapter in {directory} (made for {shown(base_name)}) does not fit {name}"
    expected = adapter_shapes(model, options)
    if wrong := [tensor for tensor in sorted(expected.keys() & tensors) if tensors[tensor][1] != expected[tensor]]:
        sizes = f"{tensors[wrong[0]][1]} in the file, {expected[wrong[0]]} in the model"
        raise ValueError(f"{misfit}: size mismatch for {wrong[0]}: {sizes}")
    if differing := sorted(expected.keys() ^ tensors):
        missing, extra = len(expected.keys() - tensors), len(tensors.keys() - expected)
        raise ValueError(
            f"{misfit}: {missing} tensors are missing and {extra} too many, the first {shown(differing[0])}"
        )
    check_targets(values["target_modules"], expected, path)
    values_of = load_file(weights)
    if bad := [tensor for tensor, value in values_of.items() if not bool(value.isfinite().all())]:
        raise ValueError(f"{weights} holds NaN or infinite numbers in {len(bad)} tensors, the first {bad[0]}")
    known_as = {"base_model_name_or_path": base_name, "revision": base_revision}
    warn_of_another_base(directory, known_as, name, revision)
    loaded = get_peft_model(model, LoraConfig(**options, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"))
    set_peft_model_state_dict(loaded, values_of)
    for field, value in known_as.items():
        setattr(loaded.peft_config["default"], field, value)
    return loaded


# Fields of adapter_config.json that change nothing about a plain LoRA adapter that is loaded.
WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "megatron_core", "peft_version", "qalora_group_size",
    "revision", "runtime_config", "task_type",
}  # fmt: skip
BASE_UNCHANGED = (True, False, "gaussian", "orthogonal")  # of init_lora_weights: how a *new* adapter is filled


def plain_lora(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options of peft's LoraConfig for an adapter of this configuration, if it is what the passes here compute:
    W x + scale * B A x on the base as it is, with or without DoRA, biases and the rank-stabilised scale. ValueError
    with the field's name for anything else, such as PiSSA or OLoRA, which change the base when they are loaded."""
    options = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False, "use_dora": False, "lora_bias": False}
    options = {name: values.get(name, default) for name, default in options.items()}  # the defaults are peft's
    targets, init = values.get("target_modules"), values.get("init_lora_weights", True)
    target_list = targets if isinstance(targets, list) else [targets]
    numbers = {name: value if type(value) in (int, float) else -1 for name, value in options.items()}
    right = {
        "peft_type": values.get("peft_type") == "LORA",
        "r": type(options["r"]) is int and options["r"] > 0,
        "lora_alpha": 0 < numbers["lora_alpha"] < 1e6,
        "lora_dropout": 0 <= numbers["lora_dropout"] < 1,
        "bias": values.get("bias", "none") == "none",
        "init_lora_weights": isinstance(init, bool | str) and init in BASE_UNCHANGED,
        "target_modules": all(isinstance(target, str) for target in target_list),
    }
    right |= {name: isinstance(options[name], bool) for name in ("use_rslora", "use_dora", "lora_bias")}
    right |= {name: isinstance(values.get(name), str | None) for name in ("base_model_name_or_path", "revision")}
    others = {name: value for name, value in values.items() if name not in right and name not in WITHOUT_EFFECT}
    right |= {name: value is None or value is False or value in ([], {}) for name, value in others.items()}
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise ValueError(
            f"{path} has {wrong[0]} = {str(json.dumps(values.get(wrong[0])))[:100]}, and only plain LoRA is loaded:"
            " correct a value that is damaged; merge an adapter of another kind into its base (peft's"
            " merge_and_unload, then save_pretrained) and load that as the policy, or convert it to plain LoRA"
        )
    return options | {"lora_dropout": 0.0}  # a policy has no dropout


def adapter_shapes(model: Any, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of an adapter on all seven matrices of every decoder layer, by their names in a file."""
    shapes: dict[str, tuple[int, ...]] = {}
    rank = options["r"]
    for place, module in model.named_modules():
        if re.fullmatch(LORA_TARGETS, place):
            stem, rows = f"base_model.model.{place}", (module.out_features,)
            shapes |= {f"{stem}.lora_A.weight": (rank, module.in_features), f"{stem}.lora_B.weight": (*rows, rank)}
            shapes |= {f"{stem}.lora_magnitude_vector": rows} if options["use_dora"] else {}
            shapes |= {f"{stem}.lora_B.bias": rows} if options["lora_bias"] else {}
    return shapes


def check_targets(targets: str | list[str], tensors: Iterable[str], path: Path) -> None:
    """ValueError if a list of modules leaves out a matrix that the adapter has tensors for. A pattern is not run."""
    places = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in tensors}
    if isinstance(targets, list) and (
        unnamed := sorted(place for place in places if not any(f".{place}".endswith(f".{end}") for end in targets))
    ):
        raise ValueError(
            f"{path} has no target_modules for {unnamed[0]}, for which the adapter has tensors: correct it"
        )


def warn_of_another_base(directory: Path, made_for: Mapping[str, Any], name: str, revision: str | None) -> None:
    """Warn if an adapter names another base, or another commit of it, than the one that it is put on. Of a folder, an
    adapter that was shared names the last part alone."""
    base, commit = made_for["base_model_name_or_path"], made_for["revision"]
    if base != "pocket" and base == PureWindowsPath(name).name:
        base = name
    places = [os.path.abspath(POCKET_DIR if place == "pocket" else place) for place in (base or name, name)]
    if places[0] != places[1]:
        made, put = repr(base), repr(name)
    elif base == name and commit and revision and commit != revision:
        made, put = f"{base!r} at the commit {commit!r}", f"the commit {revision!r}"
    else:
        return
    warnings.warn(
        f"the adapter in {directory} was made for {made}, and is put on {put}: unless these are the same weights, it"
        " means nothing there",
        stacklevel=4,
    )


def adapter_scales(model: Any) -> dict[str, float]:
    """What the adapter's part of each layer is multiplied by (alpha / rank, for plain LoRA); empty without one."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {name: float(scale) for name, layer in layers.items() for scale in layer.scaling.values()}


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
