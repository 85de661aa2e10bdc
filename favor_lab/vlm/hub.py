"""From a name to a checkpoint directory that is whole: found, downloaded once, checked; and what to do where it is not.

Everything is read from a directory: a local one, or the Hub's cache after `fetch` has filled it. Only safetensors are
loaded, since pickled weights can run code, and no code that a repository brings along. Every failure says what to do.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import constants, errors
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

from favor_lab.vlm.families import FAMILIES
from favor_lab.vlm.known import KNOWN

POCKET_DIR = Path(__file__).resolve().parents[2] / "data" / "pocket-qwen2-vl"
PATTERNS = ("*.json", "*.jinja", "*.txt", "*.safetensors")  # what is downloaded of a repository
NEEDED = ("config.json", "preprocessor_config.json")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # one of these
COMMIT = re.compile(r"[0-9a-f]{40}")
SPARE_DISK = 2**28  # bytes that must be left after a download
# How allocators say it that have no exception of their own: the CPU's, Windows', cuBLAS', and CUDA outside of torch.
SIGNS = ("can't allocate memory", "not enough memory", "cublas_status_alloc_failed", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no room: on a GPU, on the CPU, or in Python itself.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


# ------------------------------------------------------------------------------------------------------- where it is


def locate(name: str | Path, pocket: Path = POCKET_DIR) -> Path | None:
    """The directory of a local checkpoint; None for what can only be a name on the Hub."""
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


def fetch(name: str, revision: str | None = None, patterns: tuple[str, ...] = PATTERNS, download: bool = True) -> Path:
    """The cache's directory of a Hub repository, downloaded where it is not there yet.

    revision: commit, branch or tag; None: the pinned commit of a model in `KNOWN`, else the newest of main. A commit
    that is in the cache is used without asking the Hub; a branch is asked about, and without network the cache's taken.
    """
    wanted = revision or (KNOWN[name].revision if name in KNOWN else None)
    cached = in_cache(name, wanted)
    whole = cached is not None and is_whole(cached, patterns)
    if cached is not None and whole and (not download or COMMIT.fullmatch(wanted or "")):
        return cached
    if not download:
        raise FileNotFoundError(
            f"the configuration of {name} is not known here: it is neither built in ({', '.join(KNOWN)}) nor in the"
            f" cache {constants.HF_HUB_CACHE}. `hf download {name} config.json` fetches it"
        )
    what: dict[str, Any] = {"revision": wanted, "allow_patterns": list(patterns)}
    try:
        validate_repo_id(name)
        if constants.HF_HUB_OFFLINE:
            raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        with without_bars():
            check_room(name, huggingface_hub.snapshot_download(name, **what, dry_run=True))
        with without_bars() if patterns != PATTERNS else nullcontext():
            return Path(huggingface_hub.snapshot_download(name, **what))
    except Exception as error:  # the Hub's client raises many kinds; those it did not mean are raised as they are
        if cached is not None and is_no_answer(error):
            return cached  # whoever asked looks whether it is whole
        explained = explain(error, name, wanted)
        if explained is None:
            raise
        raise explained from error


def is_cached(name: str, revision: str | None = None) -> bool:
    """Whether `load_policy(name, revision=revision)` finds a whole checkpoint here, so that nothing is downloaded.

    >>> is_cached("pocket")
    True
    """
    folder = locate(name)
    if folder is None:
        folder = in_cache(name, revision or (KNOWN[name].revision if name in KNOWN else None))
    return folder is not None and is_whole(folder, PATTERNS)


def in_cache(name: str, revision: str | None) -> Path | None:
    """The directory that the Hub's cache has for a repository at a commit, branch or tag (None: main), whole or not."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    pointer = folder / "refs" / (revision or "main")
    commit = revision if COMMIT.fullmatch(revision or "") else None
    commit = commit or (pointer.read_text().strip() if pointer.is_file() else None)
    return folder / "snapshots" / commit if commit and (folder / "snapshots" / commit).is_dir() else None


def is_whole(folder: Path, patterns: tuple[str, ...]) -> bool:
    """Whether all that is wanted is there: a checkpoint, or its configuration alone."""
    if patterns != PATTERNS:
        return (folder / "config.json").is_file()
    try:
        check_files(folder, folder.name)
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the Hub client's progress bars, where nothing large is fetched."""
    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            enable_progress_bars()


def check_room(name: str, planned: list[Any]) -> None:
    """RuntimeError if the disk of the cache has no room for the files that would be downloaded."""
    size = sum(file.file_size for file in planned if file.will_download)
    place = next(
        folder for folder in (Path(constants.HF_HUB_CACHE), *Path(constants.HF_HUB_CACHE).parents) if folder.is_dir()
    )
    free = shutil.disk_usage(place).free
    if size + SPARE_DISK > free:
        raise RuntimeError(no_disk(name, f"{size / 1e9:.1f} GB are to be downloaded, {free / 1e9:.1f} GB are free"))


def no_disk(name: str, what: str) -> str:
    return (
        f"too little room on the disk for {name}: {what} in {constants.HF_HUB_CACHE}. Make room (`hf cache ls` lists"
        " what is there), or set HF_HOME to a folder on a larger disk"
    )


# ------------------------------------------------------------------------------------------------ what the Hub answers


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def is_no_answer(error: BaseException) -> bool:
    """Whether the Hub could not be reached, or was not to be; an answer that says no is none of that."""
    if any(isinstance(cause, errors.HfHubHTTPError) and status(cause) < 500 for cause in causes(error)):
        return False
    kinds = (ConnectionError, TimeoutError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError, errors.DryRunError)
    return any(isinstance(cause, kinds) or "Connect" in type(cause).__name__ for cause in causes(error))


def status(error: Any) -> int:
    """The HTTP status of the Hub's answer; 0 where there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0) or 0


def explain(error: BaseException, name: str, revision: str | None) -> Exception | None:
    """What to raise for an error of the Hub's client, with what to do about it; None for one that is not its own."""
    page, log_in = f"https://huggingface.co/{name}", "log in with `hf auth login`, or set HF_TOKEN"
    for cause in causes(error):
        if isinstance(cause, errors.GatedRepoError):
            return RuntimeError(f"{name} is gated: accept its terms on {page}, then {log_in}")
        if isinstance(cause, errors.RevisionNotFoundError):
            return ValueError(
                f"{name} has no revision {revision!r}: {page}/commits/main lists them; None is the default"
            )
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
            return RuntimeError(no_disk(name, "it ran full while downloading"))
    if not is_no_answer(error):
        return None
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "no network, or the Hub is down"
    pin = f" --revision {revision}" if revision else ""
    return FileNotFoundError(
        f"{name} is not in the cache {constants.HF_HUB_CACHE}{others(name, revision)}, and the Hub cannot be reached"
        f" ({why}). Where there is a network: `hf download {name}{pin}`, and copy the cache; or pass the directory of a"
        " checkpoint as the name"
    )


def others(name: str, revision: str | None) -> str:
    """In brackets, other commits of the repository that the cache holds."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    held = sorted(path.name for path in folder.glob("*") if path.name != revision)
    return f" at the wanted commit (it holds revision={', '.join(map(repr, held))})" if held else ""


# -------------------------------------------------------------------------------------------------------- is it whole


def check_is_qwen2_vl(folder: Path, name: str) -> None:
    """ValueError, with what was found instead, unless the directory holds a model of `FAMILIES`."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ValueError(f"{name} holds an adapter, not a model: load_policy(BASE, adapter={str(folder)!r})")
        raise ValueError(f"{name} is not a checkpoint directory: it has no config.json")
    found = read_json(folder / "config.json").get("model_type")
    if found not in FAMILIES:
        raise ValueError(
            f"{name} has model_type {found!r}; only {' and '.join(map(repr, FAMILIES))} can be loaded:"
            " Qwen/Qwen2-VL-2B-Instruct, Qwen/Qwen2.5-VL-3B-Instruct, their larger sisters, and what was made from them"
            " (Qwen3-VL and text models are built otherwise)"
        )


def check_files(folder: Path, name: str) -> None:
    """FileNotFoundError or ValueError, naming the file and what to do, unless all files of a checkpoint are whole."""
    missing = [file for file in NEEDED if not (folder / file).is_file()]
    if not any(all((folder / file).is_file() for file in files) for files in TOKENIZERS):
        missing.append("tokenizer.json")
    if missing:
        raise FileNotFoundError(
            f"{name} is incomplete: {', '.join(missing)} missing in {folder}. {again(name, folder)}"
        )
    check_weights(folder, name)


def check_weights(folder: Path, name: str) -> list[Path]:
    """The safetensors files of a checkpoint, after a look at their headers: each whole, each tensor where the index
    says. The weights themselves are not read."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        read_header(single, name)
        return [single]
    if not index.is_file():
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise FileNotFoundError(
                f"{name} has no model.safetensors, only {pickles[0]}: pickled weights can run code and are not loaded."
                " If you trust their origin, convert them once: AutoModelForImageTextToText.from_pretrained(FOLDER,"
                " use_safetensors=False).save_pretrained(FOLDER)"
            )
        raise FileNotFoundError(f"{name} has no weights: no model.safetensors in {folder}. {again(name, folder)}")
    places: dict[str, str] = read_json(index).get("weight_map") or {}
    if not places:
        raise ValueError(f"{index} names no weights. {again(name, folder)}")
    shards = {file: folder / file for file in sorted(set(places.values()))}
    if gone := [file for file, path in shards.items() if not path.is_file()]:
        raise FileNotFoundError(
            f"{name} is incomplete: {len(gone)} of {len(shards)} shards missing, {', '.join(gone)}."
            f" {again(name, folder)}"
        )
    held = {file: read_header(path, name) for file, path in shards.items()}
    if lost := sorted(tensor for tensor, file in places.items() if tensor not in held[file]):
        raise ValueError(
            f"{name}: the index names {len(lost)} tensors that are not in their shards, the first {lost[0]} in"
            f" {places[lost[0]]}: index and shards are not of one checkpoint. {again(name, folder)}"
        )
    return list(shards.values())


def read_header(path: Path, name: str) -> dict[str, Any]:
    """The tensors that a safetensors file says it holds. ValueError if it is cut short or no such file at all."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("its header is cut short")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        whole = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if size != whole:
            raise ValueError(f"it has {size} bytes and should have {whole}")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        what = "it is empty" if size == 0 else str(error)
        raise ValueError(f"{name} is damaged: {path.name} is not whole ({what}). {again(name, path.parent)}") from error
    return header


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or a ValueError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return content


def again(name: str, folder: Path) -> str:
    """How to get what is missing or damaged."""
    if folder.parent.name == "snapshots":  # the Hub's cache
        return f"Download it again: `hf download {name} --revision {folder.name} --force-download`"
    return "Copy or download the checkpoint again"
