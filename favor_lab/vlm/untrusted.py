"""Files that may come from a stranger: the JSON files, weights and chat template of a checkpoint or an adapter.

Nothing in them is run. Each is read here first, so that what is damaged, of a wrong type or made to do harm ends as one
ValueError that names the file, before transformers or peft read the same file.
"""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from favor_lab.activities.faults import shown
from favor_lab.activities.images import is_lfs_pointer

JSON_LIMIT = 2**27  # bytes; the tokenizer.json of the published models has 7 MB
FLOATS = {"F16", "BF16", "F32", "F64"}  # what weights are stored as, unless they are quantised
# What transformers would read in place of the files that were checked.
REDIRECTIONS = ("configuration_files", "fast_tokenizer_files", "transformers_weights", "fusion_config")
# Messages of allocators that have no exception of their own: the CPU's, Windows', cuBLAS', and CUDA outside of torch.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "cublas_status_alloc_failed", "out of memory")
TEMPLATE_SECONDS, TEMPLATE_WAIT = 10, 120  # of a processor; of the clock, on a machine that is busy with other things


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, on the CPU, or in Python itself.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in OUT_OF_MEMORY)


def again(name: str, folder: Path) -> str:
    """How to get what is missing or damaged."""
    if folder.parent.name == "snapshots":  # the Hub's cache
        return f"Download it again: `hf download {name} --revision {folder.name} --force-download`"
    return "Copy or download the checkpoint again"


@contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turn any error of a library that reads a stranger's file into a ValueError of one line: `what` was wrong, the
    library's reason, and the advice. Errors of memory and of the disk stay what they are."""
    try:
        yield
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"  # of a library in Rust: not an Exception
        from_disk = isinstance(error, OSError) and error.errno is not None
        if not (isinstance(error, Exception) or is_panic) or is_out_of_memory(error) or from_disk:
            raise
        reason = shown(" ".join(f"{type(error).__name__}: {error}".split()))
        raise ValueError(f"{what} ({reason[:300]}). {advice}") from error


# ----------------------------------------------------------------------------------------------------------------- JSON


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; ValueError with the file's name if it is damaged or holds something else: another type, a name
    twice, numbers that are not finite, more levels than Python can read."""
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, more than the {JSON_LIMIT:,} that are read")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_named_once, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: too many levels of brackets") from error
    except ValueError as error:
        if is_lfs_pointer(path):
            raise ValueError(f"{path} is a Git LFS pointer, not the file itself; `git lfs pull` brings it") from error
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return content


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def check_json(folder: Path, names: tuple[str, ...]) -> None:
    """ValueError unless those of these JSON files that exist can be read, and none sends the reader to another file."""
    for path in (folder / name for name in names):
        if path.is_file() and (redirections := [key for key in REDIRECTIONS if key in read_json(path)]):
            raise ValueError(
                f"{path} has {redirections[0]!r}, which makes transformers read something else than the files that"
                " were checked: remove it, and give the files that are meant their usual names"
            )


# -------------------------------------------------------------------------------------------------------------- weights


def tensor_types(path: Path, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type (such as "F32") and shape of each tensor in a safetensors file, from its header. ValueError if the file is
    damaged or cut short."""
    try:
        with safe_open(path, framework="pt") as file:
            parts = {tensor: file.get_slice(tensor) for tensor in file.keys()}  # noqa: SIM118
            return {tensor: (part.get_dtype(), tuple(part.get_shape())) for tensor, part in parts.items()}
    except SafetensorError as error:
        raise ValueError(
            f"{name} is damaged: {path.name}, of {path.stat().st_size} bytes, is not a complete safetensors file"
            f" ({error}). {again(name, path.parent)}"
        ) from error


def tensor_names(path: Path, name: str) -> set[str]:
    """The names of the tensors in a safetensors file. ValueError if the file is damaged or cut short."""
    return set(tensor_types(path, name))


def check_floats(path: Path, name: str) -> None:
    """ValueError if a tensor of a safetensors file holds anything but floating-point numbers."""
    for tensor, (kind, _) in tensor_types(path, name).items():
        if kind not in FLOATS:
            raise ValueError(f"{name}: {tensor!r} in {path.name} has the type {kind}; weights are {sorted(FLOATS)}")


# -------------------------------------------------------------------------------------------------------- chat template

# Render a template, as transformers would, with a long text; in a process of its own, which can be ended.
_RENDER = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
except (ImportError, ValueError, OSError):
    pass
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
template, turn = json.load(sys.stdin)
room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
try:
    text = room.from_string(template).render(messages=[turn], add_generation_prompt=True)
except MemoryError:
    raise
except Exception:
    text = ""  # the caller renders it again, and explains
sys.exit(len(text) > 100_000)
"""


@functools.cache
def ends_soon(template: str) -> bool:
    """Whether a chat template is rendered within seconds and without filling the memory. A template is a program: its
    sandbox keeps it from the machine's files, but not from loops without end.

    >>> ends_soon("{{ messages[0].role }}")
    True
    """
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this? " * 100}]}
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _RENDER, str(TEMPLATE_SECONDS)], input=json.dumps([template, turn]).encode(),
            capture_output=True, timeout=TEMPLATE_WAIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return child.returncode == 0
