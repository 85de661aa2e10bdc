"""Spoilt checkpoints and adapters: each ends as one line that names a file, and none as a traceback.

    python tests/promises/bad_models.py --count 300

One value of one file of a tiny checkpoint and its adapter is spoilt at random (seeded): another type, a number out of
all bounds, a name twice, another encoding, a wrong header. Then the policy is loaded and asked about an image, in a
process of its own with a limit of memory and of time. It is refused by a ValueError or an OSError of one line that
names a file, or what was spoilt does not matter and the policy answers. The exit status is 1 if any ends otherwise.
Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # helpers of the tests, for a run as a script

import hub
from favor_lab.grpo.sampling import sample_groups
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts
from tiny import LABELS, make_checkpoint, make_examples, make_policy

MEMORY, SECONDS = 3 * 2**30, 60  # more than the process that forks has already
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 3, 10**9, 10**30, -(10**12), 0.5, 1e300, "", "x", "../x", "\x1b[2J", [], [[]],
    [1, "a"], ["x"], {}, {"a": 1}, {"auto_map": {"AutoConfig": "evil.Evil"}}, [{}] * 3,
]  # fmt: skip
ADDED: dict[str, Any] = {  # names that transformers or peft give a meaning
    "auto_map": {"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]},
    "configuration_files": ["config.5.json"], "quantization_config": {"quant_method": "gptq"},
    "tokenizer_file": "/etc/passwd", "attn_implementation": "a/kernel",
    "to_dict": 3, "rank_pattern": {"(a*)*b": 3}, "exclude_modules": "(a*)*b", "layers_to_transform": [0],
    "modules_to_save": ["lm_head"], "layer_replication": [[0, 1], [0, 2]], "target_parameters": ["weight"],
    "per_layer_config": {"0": {"hidden_size": 3}}, "alora_invocation_tokens": [1], "corda_config": {"a": 1},
    "use_bdlora": {"nblocks": 2}, "a field of a later version": {"a": 1}, "tokenizer_class": "LlamaTokenizer",
    "chat_template": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
}  # fmt: skip


def good_folder(root: Path, layout: str = "today") -> Path:
    """A checkpoint in root/base and an adapter in root/adapter. layout: "today" or, as the published models have it,
    "hub": several shards with an index, and the chat template as JSON."""
    base = root / "base"
    if layout == "hub":
        hub.write_checkpoint(base)
    else:
        make_checkpoint(base)
    make_policy(base).save(root / "adapter")
    values = json.loads((base / "tokenizer_config.json").read_text())
    tokens = {name: values[name] for name in ("eos_token", "pad_token")}
    (base / "special_tokens_map.json").write_text(json.dumps(tokens))
    return root


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values inside JSON data; of long lists and tables the first three."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for number, (key, value) in enumerate(items):
        if number < 3 or len(content) < 60:
            yield (*path, key)
            yield from places(value, (*path, key))


def spoil_value(path: Path, draw: random.Random) -> str:
    """Another value in one place of a JSON file, or none."""
    content = json.loads(path.read_text())
    place = draw.choice(list(places(content)))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if draw.random() < 0.15 and isinstance(inner, dict):
        del inner[place[-1]]
        path.write_text(json.dumps(content))
        return f"{place} deleted"
    inner[place[-1]] = value = draw.choice(VALUES)
    path.write_text(json.dumps(content))
    return f"{place} = {value!r}"


def add_name(path: Path, draw: random.Random) -> str:
    name = draw.choice(list(ADDED))
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: ADDED[name]}))
    return f"with {name}"


def spoil_text(path: Path, draw: random.Random) -> str:
    """A fault of the JSON text itself."""
    text = path.read_text()
    faults: dict[str, Callable[[], bytes]] = {
        "cut": lambda: text[: draw.randrange(len(text))].encode(),
        "empty": lambda: b"",
        "byte order mark": lambda: b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": lambda: text.encode("utf-16"),
        "Latin-1": lambda: text.replace('"', '"\xe9', 1).encode("latin-1", "replace"),
        "a list": lambda: b"[1]",
        "a string": lambda: b'"x"',
        "null": lambda: b"null",
        "100 000 brackets": lambda: b"[" * 100_000,
        "900 levels": lambda: ('{"a": ' + "[" * 900 + "]" * 900 + "," + text.strip()[1:]).encode(),
        "NaN": lambda: ('{"a": NaN,' + text.strip()[1:]).encode(),
        "Infinity": lambda: ('{"a": 1e999,' + text.strip()[1:]).encode(),
        "5 000 digits": lambda: ('{"a": ' + "9" * 5000 + "," + text.strip()[1:]).encode(),
        "a name twice": lambda: ('{"a": 1, "a": 2,' + text.strip()[1:]).encode(),
    }
    fault = draw.choice(list(faults))
    path.write_bytes(faults[fault]())
    return fault


def spoil_header(path: Path, draw: random.Random) -> str:
    """A fault of the header of a safetensors file."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    first, second = draw.sample([name for name in header if name != "__metadata__"], 2)
    entry, changes = header[first], dict[str, Any]()
    changes = {
        "overlap": {"data_offsets": header[second]["data_offsets"]},
        "negative offset": {"data_offsets": [-8, 8]},
        "far offset": {"data_offsets": [0, 2**63]},
        "negative shape": {"shape": [-1, *entry["shape"][1:]]},
        "no shape": {"shape": []},
        "other shape": {"shape": entry["shape"][::-1] if len(entry["shape"]) > 1 else [1, *entry["shape"]]},
        "integers": {"dtype": "I32" if entry["dtype"] == "F32" else "I16"},
        "unknown type": {"dtype": "EVIL"},
        "list for type": {"dtype": []},
    }
    fault = draw.choice([*changes, "renamed", "not listed", "long header", "cut", "bits"])
    if fault == "renamed":
        header["x\x1b[2J"] = header.pop(first)
    elif fault == "not listed":
        header.pop(first)
    elif fault in changes:
        header[first] = entry | changes[fault]
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", 2**62 if fault == "long header" else len(text)) + text + data
    if fault == "bits":
        flipped = {8 + draw.randrange(size) for _ in range(3)}
        whole = bytes(byte ^ 1 if number in flipped else byte for number, byte in enumerate(whole))
    path.write_bytes(whole[: draw.randrange(len(whole))] if fault == "cut" else whole)
    return f"{first}: {fault}"


def spoil(root: Path, draw: random.Random) -> tuple[str, str]:
    """Spoil one file in one place: its name, and what was done to it."""
    path = draw.choice(sorted([*root.glob("*/*.json"), *root.glob("*/*.safetensors")]))
    if path.suffix == ".safetensors":
        return path.name, spoil_header(path, draw)
    kind = draw.choices([spoil_value, add_name, spoil_text], [6, 2, 2])[0]
    return path.name, kind(path, draw)


def result(root: Path) -> str:
    """Load the policy and ask it: "answers", or the error in one line, after "refused: " if it is as promised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            policy = load_policy(root / "base", adapter=root / "adapter", device="cpu")
            with torch.no_grad():
                sample_groups(policy, encode_prompts(policy, make_examples()[:1], LABELS), 2, 4, seed=0)
        return "answers"
    except (ValueError, OSError) as error:
        names = {path.name for path in root.glob("*/*")} | {str(root), "weights", "tokenizer", "chat template"}
        good = "\n" not in str(error) and any(name in str(error) for name in names)
        return f"{'refused' if good else 'UNCLEAR'}: {error}"
    except BaseException as error:
        return f"TRACEBACK of {type(error).__name__}: {error}"


def trial(good: Path, seed: int) -> tuple[str, str, str]:
    """Spoil a copy of a good folder: the file, the fault and the result, found in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(good, Path(folder) / "copy"))
        name, fault = spoil(root, random.Random(seed))
        out = Path(folder) / "result"
        if not (child := os.fork()):
            limited(lambda: out.write_text(result(root), errors="replace"))
        _, status = os.waitpid(child, 0)
        end = out.read_text() if out.exists() else f"DIED with status {status} (14: more than {SECONDS} s)"
    return name, fault, end.replace(str(root), "ROOT")


def limited(work: Callable[[], object]) -> None:
    """Do the work with a limit of memory and of time, without output, and end the process."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.alarm(SECONDS)
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(silent, stream)
    try:
        work()
    finally:
        os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="how many files are spoilt (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them (default: %(default)s)")
    options, counts = parser.parse_args(), Counter[str]()
    torch.set_num_threads(1)  # threads do not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        good = [good_folder(Path(folder) / layout, layout) for layout in ("today", "hub")]
        for seed in range(options.seed, options.seed + options.count):
            name, fault, end = trial(good[seed % 2], seed)
            counts[end.split()[0].strip(":")] += 1
            print(f"{seed:5} {name}: {ascii(fault)[:90]} -> {ascii(end)[:230]}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.most_common()))
    return int(set(counts) - {"answers", "refused"} != set())


if __name__ == "__main__":
    sys.exit(main())
