"""Resolve a model name to a complete local checkpoint (local folder, Hub cache or download) and verify it. Weights are
read from safetensors files alone, since pickled weights can run code. Every error says what to do."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging

from favor_lab.activities.faults import shown
from favor_lab.activities.images import is_lfs_pointer
from favor_lab.files import data_path, digest
from favor_lab.vlm.families import FAMILIES, config_class
from favor_lab.vlm.known import KNOWN, hub_config
from favor_lab.vlm.untrusted import again, check_floats, check_json, explained, read_json, tensor_names

POCKET_DIR = data_path("pocket-qwen2-vl")
PATTERNS = ["*.json", "*.jinja", "*.txt", "*.safetensors"]  # the files of a repository that are downloaded
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # one of these
COMMIT = re.compile(r"[0-9a-f]{40}")
PINNED = {name: model.revision for name, model in KNOWN.items()}
MOST_LAYERS = 1000  # the largest published model has 80
SPARE_DISK = 2**28  # bytes that must be left after a download
NETWORK_LIBRARIES = ("httpx", "httpcore", "requests", "urllib3")  # one of these is under the Hub's client
JSON_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "chat_template.json",
)  # fmt: skip
TEXTS = (*JSON_FILES, "chat_template.jinja", "merges.txt")  # with the weights, all that decides what is computed


# ---------------------------------------------------------------------------------------------------- finding a folder


def locate(name: str | Path, pocket: Path = POCKET_DIR) -> Path | None:
    """The folder of a local checkpoint; None for what can only be a name on the Hub."""
    if str(name) == "pocket":
        if not (pocket / "config.json").is_file():
            raise FileNotFoundError(
                f"the pocket checkpoint is not in {pocket}. It lives in the repository's data folder;"
                " install from a checkout with `pip install -e .`, or pass its directory as the name."
                " `python data/pocket-qwen2-vl/rebuild` makes it again"
            )
        return pocket
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if isinstance(name, Path) or path.is_absolute() or name[0] in ".~" or name.count("/") > 1:
        raise FileNotFoundError(f"there is no checkpoint directory {path}")
    return None


def fetch(name: str, revision: str | None = None, config_only: bool = False) -> Path:
    """The cache's folder of a Hub repository, downloaded if it is not there yet; config_only: no other file is needed.

    revision: commit, branch or tag; None: the pinned commit of a model in `KNOWN`, else the newest of main. A commit
    in the cache is used without asking the Hub. A branch is asked about; without network the cached commit is used.
    """
    cached, revision = in_cache(name, revision), revision or PINNED.get(name)
    if cached is not None and COMMIT.fullmatch(revision or "") and (config_only or is_complete(cached)):
        return cached
    patterns = ["config.json"] if config_only else PATTERNS
    request: dict[str, Any] = {"revision": revision, "allow_patterns": patterns}
    try:
        with quietly(), suppress(errors.DryRunError):  # no answer: the download below says why
            _check_disk(name, huggingface_hub.snapshot_download(name, **request, dry_run=True))
        with quietly() if config_only else nullcontext():
            return Path(huggingface_hub.snapshot_download(name, **request))
    except Exception as error:  # the Hub's client raises many kinds; those that it did not mean are raised as they are
        if cached is not None and is_no_answer(error):
            return cached  # the caller checks whether it is complete, and says which file is missing
        explanation = _explain(error, name, revision)
        if explanation is None:
            raise
        raise explanation from error


def is_cached(name: str, revision: str | None = None) -> bool:
    """Whether `load_policy(name, revision=revision)` finds a complete checkpoint here, so that nothing is downloaded.

    >>> is_cached("pocket")
    True
    """
    folder = locate(name) or in_cache(name, revision)
    return folder is not None and is_complete(folder)


def in_cache(name: str, revision: str | None = None) -> Path | None:
    """The folder in the Hub's cache of a repository at a commit, branch or tag (None: the pinned commit or main),
    complete or not, but with its config.json."""
    with suppress(errors.HFValidationError):  # no possible name
        config = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision or PINNED.get(name))
        return Path(config).parent if isinstance(config, str) else None
    return None


def is_complete(folder: Path) -> bool:
    """Whether all files of a checkpoint are there."""
    with suppress(OSError, ValueError):
        check_files(folder, folder.name)
        return True
    return False


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress bars of transformers and of the Hub's client, which count single weights and small files,
    and a deprecation warning that peft causes."""
    had_bars = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        if had_bars:
            logging.enable_progress_bar()


def _check_disk(name: str, planned: list[Any]) -> None:
    """RuntimeError if the disk of the cache has too little room for the files that would be downloaded."""
    size, cache = sum(file.file_size for file in planned if file.will_download), Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    if size + SPARE_DISK > free:
        raise _disk_full(name, f"{size / 1e9:.1f} GB are to be downloaded, {free / 1e9:.1f} GB are free")


def _disk_full(name: str, reason: str) -> RuntimeError:
    advice = "Make room (`hf cache ls` lists what is there), or set HF_HOME to a folder on a larger disk"
    return RuntimeError(f"too little room on the disk for {name}: {reason} in {constants.HF_HUB_CACHE}. {advice}")


def configuration(model: str | Path = "Qwen/Qwen2-VL-2B-Instruct") -> Any:
    """The configuration of "pocket", a published model of `KNOWN`, a checkpoint folder, or a Hub name in the cache;
    nothing is downloaded. FileNotFoundError if there is none, ValueError for another kind of model.

    >>> configuration("Qwen/Qwen2-VL-2B-Instruct").text_config.num_hidden_layers
    28
    """
    name = str(model)
    if name in KNOWN:
        values = hub_config(KNOWN[name])
        return config_class(values["model_type"])(**values)
    if folder := locate(model) or in_cache(name):
        check_family(folder, name)
        return read_config(folder, name)
    raise FileNotFoundError(
        f"the configuration of {name} is not known here: it is neither built in ({', '.join(KNOWN)}) nor in the"
        f" cache {constants.HF_HUB_CACHE}. `hf download {name} config.json` fetches it"
    )


def read_config(folder: Path, name: str) -> Any:
    """The configuration in a checkpoint's config.json, of one of the `FAMILIES`."""
    check_json(folder, ("config.json",))
    values = read_json(folder / "config.json")
    for part in (values, values.get("text_config"), values.get("vision_config")):
        counts = [part.get(field) for field in ("num_hidden_layers", "depth")] if isinstance(part, dict) else []
        if layers := [count for count in counts if isinstance(count, int) and count > MOST_LAYERS]:  # hours to build
            raise ValueError(
                f"{folder / 'config.json'} asks for {layers[0]} layers, and at most {MOST_LAYERS} are made"
            )
    with explained(f"{folder / 'config.json'} holds a value of a wrong type or size", again(name, folder)):
        return config_class(values["model_type"]).from_dict(values)


# ---------------------------------------------------------------------------------------------------- errors of the Hub


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def status(error: Any) -> int:
    """The HTTP status of the Hub's answer; 0 if there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0) or 0


def is_no_answer(error: BaseException) -> bool:
    """Whether the Hub could not be reached, or was not to be; False if it answered with a refusal."""
    causes = list(_causes(error))
    if any(isinstance(cause, errors.HfHubHTTPError) and status(cause) < 500 for cause in causes):
        return False
    kinds = (ConnectionError, TimeoutError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError, errors.DryRunError)
    return any(isinstance(cause, kinds) or type(cause).__module__.startswith(NETWORK_LIBRARIES) for cause in causes)


def _explain(error: BaseException, name: str, revision: str | None) -> Exception | None:
    """The exception to raise for an error of the Hub's client, with what to do; None for an error of another kind."""
    page, log_in = f"https://huggingface.co/{name}", "log in with `hf auth login`, or set HF_TOKEN"
    for cause in _causes(error):
        if isinstance(cause, errors.GatedRepoError):
            return RuntimeError(f"{name} is gated: accept its terms on {page}, then {log_in}")
        if isinstance(cause, errors.RevisionNotFoundError):
            known = f"{page}/commits/main lists them; None is the default"
            return ValueError(f"{name} has no revision {revision!r}: {known}")
        if isinstance(cause, errors.RepositoryNotFoundError):
            return FileNotFoundError(
                f"there is no model {name!r} on the Hub, or it is private: check the name (USER/NAME, as on its page);"
                f" for a private one {log_in}. It is no directory here either"
            )
        if isinstance(cause, errors.HFValidationError):
            return FileNotFoundError(f"{name!r} is neither a directory nor a name on the Hub (USER/NAME): {cause}")
        if status(cause) in (401, 403):
            return RuntimeError(f"the Hub refuses {name} ({status(cause)}): {log_in} with an account that may read it")
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return _disk_full(name, "it ran full while downloading")
    if not is_no_answer(error):
        return None
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "no network, or the Hub is down"
    at_revision = f" --revision {revision}" if revision else ""
    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    other_commits = ", ".join(repr(path.name) for path in sorted(snapshots.glob("*")) if path.name != revision)
    hint = f" at the wanted commit (it holds revision={other_commits})" if other_commits else ""
    return FileNotFoundError(
        f"{name} is not in the cache {constants.HF_HUB_CACHE}{hint}, and the Hub cannot be reached ({reason}). Where"
        f" there is a network: `hf download {name}{at_revision}`, and copy the cache; or pass the directory of a"
        " checkpoint as the name"
    )


# --------------------------------------------------------------------------------------------------------- verification


def check_family(folder: Path, name: str) -> None:
    """ValueError, with the type that it has instead, unless the folder holds a model of one of the `FAMILIES`."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ValueError(f"{name} holds an adapter, not a model: load_policy(BASE, adapter={str(folder)!r})")
        raise ValueError(f"{name} is not a checkpoint directory: it has no config.json")
    model_type = read_json(folder / "config.json").get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(
            f"{name} has model_type {model_type!r}; only {' and '.join(map(repr, FAMILIES))} can be loaded:"
            " Qwen/Qwen2-VL-2B-Instruct, Qwen/Qwen2.5-VL-3B-Instruct, their larger sisters, and models that were"
            " fine-tuned from them (Qwen3-VL and text models are built otherwise)"
        )


def check_files(folder: Path, name: str) -> None:
    """FileNotFoundError or ValueError, with the file and what to do, unless a checkpoint's files are complete."""
    pointers = {path.name for pattern in PATTERNS for path in folder.glob(pattern) if is_lfs_pointer(path)}
    if pointers:
        what = f"Git LFS pointers in the place of {', '.join(sorted(pointers))}"
        raise ValueError(f"{name} is not a complete checkpoint: {what}; `git lfs pull` in {folder} brings the files")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not has_image_processor(folder):
        missing.append("preprocessor_config.json")
    if not any(all((folder / file).is_file() for file in files) for files in TOKENIZERS):
        missing.append("tokenizer.json")
    if missing:
        files = f"{', '.join(missing)} missing in {folder}"
        raise FileNotFoundError(f"{name} is incomplete: {files}. {again(name, folder)}")
    check_json(folder, JSON_FILES)
    for other in ("adapter_config.json", "shard-*-model-*.safetensors"):  # transformers takes these where it sees them
        if paths := sorted(folder.glob(other)):
            raise ValueError(
                f"{paths[0]} does not belong into the folder of a checkpoint, and would change what is loaded: move it"
                " into a folder of its own (an adapter is named in adapter=FOLDER)"
            )
    weights, config = check_weights(folder, name), read_config(folder, name)
    if getattr(config, "quantization_config", None) is None:
        for path in weights:
            check_floats(path, name)


def has_image_processor(folder: Path) -> bool:
    """Whether a checkpoint says how images are resized and normalised: in preprocessor_config.json or, as transformers
    5 saves it, in a part of processor_config.json."""
    nested = folder / "processor_config.json"
    if (folder / "preprocessor_config.json").is_file():
        return True
    return nested.is_file() and isinstance(read_json(nested).get("image_processor"), dict)


def check_weights(folder: Path, name: str) -> list[Path]:
    """The safetensors files of a checkpoint, after a check of their headers: each file is complete, and each tensor is
    in the file that the index names. The weights themselves are not read."""
    single, index, advice = folder / "model.safetensors", folder / "model.safetensors.index.json", again(name, folder)
    if single.is_file():
        tensor_names(single, name)
        return [single]
    if not index.is_file():
        if pickles := sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth")):
            raise FileNotFoundError(
                f"{name} has no model.safetensors, only {pickles[0]}: pickled weights can run code and are not loaded."
                " If you trust their origin, convert them once: AutoModelForImageTextToText.from_pretrained(FOLDER,"
                " use_safetensors=False).save_pretrained(FOLDER)"
            )
        raise FileNotFoundError(f"{name} has no weights: no model.safetensors in {folder}. {advice}")
    shard_of = read_json(index).get("weight_map")
    if not shard_of or not isinstance(shard_of, dict):
        raise ValueError(f"{index} names no weights. {advice}")
    for shard in shard_of.values():  # a Windows path is split at /, at \ and after C:
        if not isinstance(shard, str) or shard in ("", "..") or PureWindowsPath(shard).name != shard:
            raise ValueError(f"{index} names the shard {shard!r}, which must be a file name in this folder, not a path")
        if not shard.endswith(".safetensors"):
            raise ValueError(f"{index} names the shard {shard!r}, which is no safetensors file: {advice}")
    shards = {shard: folder / shard for shard in sorted(set(shard_of.values()))}
    if missing := [shard for shard, path in shards.items() if not path.is_file()]:
        files = f"{len(missing)} of {len(shards)} shards missing, {', '.join(missing)}"
        raise FileNotFoundError(f"{name} is incomplete: {files}. {advice}")
    names = {shard: tensor_names(path, name) for shard, path in shards.items()}
    if misplaced := sorted(tensor for tensor, shard in shard_of.items() if tensor not in names[shard]):
        raise ValueError(
            f"{name}: the index names {len(misplaced)} tensors that are not in their shards, the first"
            f" {shown(misplaced[0])} in {shard_of[misplaced[0]]}: index and shards are not of one checkpoint. {advice}"
        )
    return list(shards.values())


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that decides what a checkpoint computes, by name; of text whatever its line ends."""
    texts = {name: folder / name for name in TEXTS if (folder / name).is_file()}
    known = {name: hashlib.sha256(path.read_text(encoding="utf-8").encode()) for name, path in texts.items()}
    return {path.name: digest(path) for path in check_weights(folder, str(folder))} | {
        name: sha256.hexdigest() for name, sha256 in known.items()
    }
