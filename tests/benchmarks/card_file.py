"""The file of a measured card: `measure_card.py` writes it, and `render.py --add FILE` unpacks it once it is checked.

Such a file comes from a stranger, and what it holds ends in pages. So every text in it is one of a few words, or is
made of signs that are nothing but text in Markdown; all else is a number; the names of files are made here; no file is
replaced; and each result is rendered by itself before anything is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common import DTYPES, PACKAGES, SIZES, slug
from favor_lab.files import write_json
from favor_lab.grpo.support.settings import DECODINGS
from favor_lab.terminal import shown
from favor_lab.vlm.untrusted import read_json

FORMAT = "favor-lab card 1"
STATES = ("measured", "left out", "failed")
MOST = 1e18  # the largest number
LONGEST = 2000  # signs of a text that is on no page
KEY = re.compile(r"[A-Za-z0-9 _.-]{1,60}")
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")
PLAIN = re.compile(r"(?!.*(?:://|www\.|@\w))[\w .,:;+()/@'%=-]{0,120}", re.ASCII)
#: what texts may be, by the key that they are under
WORDS: dict[str, Iterable[str]] = {
    "policy": SIZES, "dtype": DTYPES, "decoding": DECODINGS, "only": ("ours", "trl"), "fast": ("graph", "static"),
    "kind": ("gpu",), "features": ("kept", "each-step"), "weights": ("unquantised", "4bit"),
    "sweeps": ("group", "prompt", "completion"), "cards": ("fits", "does not fit"), "device": ("cuda",),
}  # fmt: skip
PATTERNS = {"date": re.compile(r"\d{4}-\d\d-\d\dT[\d:+]{8,14}", re.ASCII), "machine": NAME}
PATTERNS |= dict.fromkeys(("processor", "gpu", "gpu_capability", "system", "python", "versions", "skipped"), PLAIN)
ON_NO_PAGE = ("oom", "error", "warnings")
WHOLE = set("prompts group_size length image_size images labels lora_rank micro_batch steps warmup".split())


def pack(path: Path, environment: Mapping[str, Any], scripts: list[dict[str, Any]], results: Iterable[Path]) -> None:
    """Write the file: what became of each script, and all results."""
    content = {"format": FORMAT, "environment": environment, "scripts": scripts}
    write_json(path, content | {"results": {result.stem: json.loads(result.read_text()) for result in results}})


def unpack(path: Path, folder: Path, machine: str | None = None) -> list[Path]:
    """Write each result of a file into a folder, under the name of its machine or of another; the new files. ValueError
    that names what is wrong, before anything is written."""
    new = {folder / f"{name}.json": result for name, result in checked(read_json(path), machine).items()}
    if there := [target.name for target in new if target.is_symlink() or target.exists()]:
        raise ValueError(f"{folder} has {', '.join(there)} already: delete them first, or name the machine differently")
    for target, result in new.items():
        write_json(target, result)
    return list(new)


def outcome(path: Path) -> list[str]:
    """A line for each script of a checked file: what became of it."""
    scripts = read_json(path)["scripts"]
    return [shown(": ".join(filter(None, map(entry.get, ("command", "state", "reason"))))) for entry in scripts]


def checked(content: dict[str, Any], machine: str | None = None) -> dict[str, dict[str, Any]]:
    """The results of a file by the names of their files; ValueError for what `measure_card.py` does not write."""
    scripts, results = content.get("scripts"), content.get("results")
    if content.get("format") != FORMAT or not isinstance(scripts, list) or not isinstance(results, dict):
        raise ValueError(f"this is no file of a measured card: it lacks format {FORMAT!r}, scripts or results")
    for entry in scripts:
        texts = isinstance(entry, dict) and all(isinstance(entry.get(key, ""), str) for key in ("command", "reason"))
        if not texts or entry.get("state") not in STATES:
            raise ValueError("an entry of scripts is none: command, state and reason are texts")
    return dict(check_result(name, result, machine) for name, result in results.items())


def check_result(name: str, result: Any, machine: str | None = None) -> tuple[str, dict[str, Any]]:
    """The name and the content of a result, once it is checked; with another machine's name if one is given."""
    from render import SECTIONS, figure, page, pictured, summary

    parts = [result.get(part) for part in ("environment", "arguments")] if isinstance(result, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{shown(name)}: a result has an environment and arguments")
    environment, arguments = parts
    kind, policy, where = result.get("benchmark"), arguments.get("policy"), environment.get("machine")
    if not all(isinstance(text, str) for text in (kind, policy, where, environment.get("gpu"))):
        raise ValueError(f"{shown(name)}: a result has a benchmark, a policy, a machine and a gpu")
    if kind not in SECTIONS or policy not in SIZES or not NAME.fullmatch(where):
        raise ValueError(f"{shown(name)}: unknown benchmark or policy, or a machine that is no name")
    if not (NAME.fullmatch(name) and re.fullmatch(rf"{kind}-{policy}(-.+)?-{re.escape(where)}", name)):
        raise ValueError(f"{shown(name)}: the name is not {kind}-{policy}-{where}")
    if not set(environment.get("versions", ())) <= set(PACKAGES):
        raise ValueError(f"{shown(name)}: versions of unknown packages")
    check_value({key: value for key, value in result.items() if key != "benchmark"}, name)
    if machine:
        name, environment["machine"] = name.removesuffix(where) + slug(machine), slug(machine)
    try:
        page([result]), summary([result]), pictured([result]) and figure([result])
    except Exception as error:
        raise ValueError(f"{shown(name)} cannot be rendered ({type(error).__name__}: {shown(error)[:200]})") from error
    return name, result


def check_value(value: Any, name: str, key: str = "", depth: int = 0) -> None:
    """ValueError unless all of a value, which stands under this key of result `name`, may be there."""
    what = f"{shown(name)}: {shown(key)[:60]!r} holds"
    if isinstance(value, dict | list):
        if depth > 8 or key in WHOLE:
            raise ValueError(f"{what} more than a number")
        for inner, item in value.items() if isinstance(value, dict) else ((key, item) for item in value):
            if not KEY.fullmatch(inner):
                raise ValueError(f"{what} the key {shown(inner)[:60]!r}")
            check_value(item, name, key if key in ("versions", "cards") else inner, depth + 1)
    elif isinstance(value, str):
        if key in ON_NO_PAGE:
            good = len(value) <= LONGEST and shown(value) == value
        else:
            good = value in WORDS.get(key, ()) or key in PATTERNS and bool(PATTERNS[key].fullmatch(value))
        if not good:
            raise ValueError(f"{what} the text {shown(value)[:100]!r}")
    elif value is not None and (not isinstance(value, int | float) or not abs(value) <= MOST):
        raise ValueError(f"{what} a number that is too large")
    elif key in WHOLE and not isinstance(value, int | None):
        raise ValueError(f"{what} {value}, not a whole number")
