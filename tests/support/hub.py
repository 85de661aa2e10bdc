"""A tiny checkpoint in the exact layout of the published Qwen2-VL-2B-Instruct, older than transformers 5; and a Hub.

Layout: config.json with the text model's fields at the top and `rope_scaling`, weights in several shards with an index
under their old names (`visual.*`, `model.*`, no head, since it is tied), near-greedy generation values, the image
processor's old fields, special tokens last in the vocabulary with gaps behind them, and a chat template with a default
system turn. `Hub` answers the Hub client's requests in place of a network.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from favor_lab.vlm.known import KNOWN, hub_config
from tiny import LABELS, rebuild_module

NAME = "Qwen/Qwen2-VL-2B-Instruct"
COMMIT = KNOWN[NAME].revision
SYSTEM = "You are a helpful assistant."
ROWS = 336  # embedding rows; the vocabulary has fewer tokens, as in the published model
# Ours, with the published one's structure: a default system turn where the first turn is none, image and video by type
# or key, numbered on request.
CHAT_TEMPLATE = (
    "{%- set seen = namespace(image=0, video=0) -%}"
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}{{ '<|im_start|>system\\n"
    + SYSTEM
    + "<|im_end|>\\n' }}{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}"
    "{%- set seen.image = seen.image + 1 -%}"
    "{%- if add_vision_id -%}{{ 'Picture ' ~ seen.image ~ ': ' }}{%- endif -%}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' or 'video' in part -%}"
    "{%- set seen.video = seen.video + 1 -%}"
    "{%- if add_vision_id -%}{{ 'Video ' ~ seen.video ~ ': ' }}{%- endif -%}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def write_checkpoint(folder: Path, shards: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write the checkpoint; returns the weights as they were written, by their names on the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder)
    config = tiny_config(tokenizer)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    generation = dict(bos_token_id=ends[1], pad_token_id=ends[1], do_sample=True, eos_token_id=ends)
    generation |= dict(repetition_penalty=1.0, temperature=0.01, top_p=0.001, top_k=1, transformers_version="4.37.0")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    processor = dict(min_pixels=3136, max_pixels=12_845_056, patch_size=14, temporal_patch_size=2, merge_size=2)
    processor |= dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
    processor |= dict(image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen2VLProcessor")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    weights = tiny_weights(config, seed)
    write_shards(folder, weights, shards)
    return weights


def tiny_config(tokenizer: Any) -> dict[str, Any]:
    """The published config.json with small numbers in the place of large ones, and the ids of the small tokenizer."""
    config, id_of = hub_config(KNOWN[NAME]), tokenizer.convert_tokens_to_ids
    config |= dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=ROWS)
    config |= dict(intermediate_size=96, max_window_layers=2, max_position_embeddings=512, torch_dtype="bfloat16")
    config["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 3, 3]}
    config["vision_config"] |= dict(depth=2, embed_dim=32, num_heads=2, mlp_ratio=2, hidden_size=64)
    config |= {"bos_token_id": id_of("<|endoftext|>"), "eos_token_id": id_of("<|im_end|>")}
    places = dict(vision_start="vision_start", vision_end="vision_end", vision="vision_pad", image="image_pad")
    config |= {f"{field}_token_id": id_of(f"<|{token}|>") for field, token in places.items()}
    return config | {"video_token_id": id_of("<|video_pad|>"), "transformers_version": "4.41.2"}


def write_tokenizer(folder: Path) -> Any:
    """Byte-level BPE whose 14 special tokens stand last, in the published order; its template in both older places."""
    texts = [f"<think>The person is {label}.</think><answer>{label}</answer> Which activity?" for label in LABELS]
    tokenizer = rebuild_module("checkpoint").build_tokenizer(texts, vocab_size=320)
    tokenizer.save_pretrained(folder)
    for extra in ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json"):
        (folder / extra).unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    names = config.pop("extra_special_tokens", None)
    config |= {"additional_special_tokens": names, "chat_template": CHAT_TEMPLATE, "errors": "replace"}
    config |= {"padding_side": "right", "clean_up_tokenization_spaces": False, "split_special_tokens": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    return tokenizer


def tiny_weights(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in bfloat16 under the names of the Hub, large enough that images and positions matter."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**config)).to(torch.bfloat16)
    weights = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        old = name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        scale = 1.0 if weight.ndim == 1 else 4.0 if old.startswith("visual.") else 3.0
        weights[old] = (scale * weight).contiguous()
    return weights


def write_shards(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    """model-0000k-of-0000n.safetensors and their index; one shard: model.safetensors alone."""
    names = sorted(weights)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    places = {
        name: f"model-{i * shards // len(names) + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)
    }
    for file in sorted(set(places.values())):
        part = {name: weights[name] for name in names if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def put_in_cache(
    cache: Path, checkpoint: Path, name: str = NAME, commit: str = COMMIT, branch: str | None = None
) -> Path:
    """The checkpoint as the Hub's cache holds it after a download: blobs, and links of the commit's names to them."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir(exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    for path in checkpoint.iterdir():
        blob = folder / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blob)
    if branch:
        (folder / "refs" / branch).write_text(commit)
    return snapshot


class Hub:
    """Answers what the Hub's client asks over HTTP, from files or with an error; no request leaves the process.

    >>> Hub({}).requests
    []
    """

    def __init__(self, files: dict[str, bytes], commit: str = COMMIT, refuse: Callable[[str], Any] | None = None):
        self.files, self.commit, self.refuse, self.requests = files, commit, refuse, []

    def install(self, monkeypatch: Any, cache: Path) -> Hub:
        """Take the place of the network, with an empty cache, until the test ends."""
        client = type(huggingface_hub.utils.get_session())
        http = sys.modules[client.__module__.split(".")[0]]
        self.http = http
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        factory = huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY
        huggingface_hub.set_client_factory(lambda: http.Client(transport=http.MockTransport(self.answer)))
        self.restore = lambda: huggingface_hub.set_client_factory(factory)
        return self

    def answer(self, request: Any) -> Any:
        path = request.url.path
        self.requests.append((request.method, path))
        if self.refuse and (refused := self.refuse(path)):
            if isinstance(refused, type) and issubclass(refused, Exception):
                raise refused("refused by the test")
            code, error = refused
            return self.http.Response(code, headers={"X-Error-Code": error} if error else {}, request=request)
        if "/resolve/" in path:
            return self.file(request, path.rsplit("/", 1)[1])
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": self.etag(data)}
                for name, data in self.files.items()
            ]
            return self.http.Response(200, json=tree, request=request)
        siblings = [{"rfilename": name} for name in self.files]
        info = {"_id": "1", "id": NAME, "sha": self.commit, "siblings": siblings, "private": False}
        return self.http.Response(200, json=info, request=request)

    def file(self, request: Any, name: str) -> Any:
        if name not in self.files:
            return self.http.Response(404, headers={"X-Error-Code": "EntryNotFound"}, request=request)
        data = self.files[name]
        headers = {"ETag": f'"{self.etag(data)}"', "X-Repo-Commit": self.commit, "Content-Length": str(len(data))}
        content = b"" if request.method == "HEAD" else data
        return self.http.Response(200, headers=headers, content=content if content else None, request=request)

    @staticmethod
    def etag(data: bytes) -> str:
        return hashlib.sha1(data).hexdigest()
