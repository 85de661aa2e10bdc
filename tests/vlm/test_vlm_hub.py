"""The real model without its weights: its layout at a tiny size, its shapes without memory, and all that can go wrong
on the way to it, without a network."""

import dataclasses
import json
import re
import shutil
import struct
from collections import namedtuple

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import hub as tiny_hub
from favor_lab import GRPOSettings, encode_prompts, load_policy, sample_groups, score_completions, train
from favor_lab.activities.fewshot import FewShot
from favor_lab.budget.memory import fixed_bytes, step_memory
from favor_lab.budget.shapes import StepShape, shape_of
from favor_lab.vlm import adapters, hub
from favor_lab.vlm.families import model_class
from favor_lab.vlm.hub import configuration
from favor_lab.vlm.known import KNOWN
from tiny import LABELS

COMMIT, NAME = tiny_hub.COMMIT, tiny_hub.NAME


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(directory, weights): the checkpoint in the published layout, three shards."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoint"
    return folder, tiny_hub.write_checkpoint(folder)


@pytest.fixture
def copy(published, tmp_path):
    """A copy to break."""
    return shutil.copytree(published[0], tmp_path / "copy")


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


@pytest.fixture
def online(published, tmp_path, monkeypatch):
    """`online(refuse=...)`: the Hub's client talks to files of this process, its cache is empty, and nobody waits."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    files, hubs = {path.name: path.read_bytes() for path in published[0].iterdir()}, []

    def start(refuse=None, **changed):
        hubs.append(tiny_hub.Hub(files | changed, refuse=refuse).install(monkeypatch, tmp_path / "cache"))
        return hubs[-1]

    yield start
    for server in reversed(hubs):
        server.restore()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache, and no way to fill it."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


# --------------------------------------------------------------------------------------------- the published layout


def test_loading_gives_the_weights_that_were_written(published):
    """Old names, several shards, a tied head that is in no file."""
    folder, weights = published
    policy = load_policy(folder, lora_rank=0, device="cpu", dtype="bfloat16")
    loaded = policy.base.state_dict()
    assert len(loaded) == len(weights) + 1
    for old, weight in weights.items():
        new = f"model.{old}" if old.startswith("visual.") else old.replace("model.", "model.language_model.", 1)
        assert torch.equal(loaded[new], weight), old
    assert policy.base.lm_head.weight is policy.base.model.language_model.embed_tokens.weight
    config = policy.base.config
    assert config.text_config.rope_parameters["mrope_section"] == [2, 3, 3] and config.tie_word_embeddings
    assert policy.base.config._attn_implementation == "sdpa"


def test_one_file_and_three_shards_are_the_same_model(published, tmp_path, tiny_examples):
    folder, weights = published
    single = shutil.copytree(folder, tmp_path / "single")
    for path in [*single.glob("model-*"), single / "model.safetensors.index.json"]:
        path.unlink()
    tiny_hub.write_shards(single, weights, 1)
    results = []
    for directory in (folder, single):
        policy = load_policy(directory, lora_rank=4, device="cpu")
        prompts = encode_prompts(policy, tiny_examples, LABELS)
        rollout = sample_groups(policy, prompts, 2, 4, seed=0)
        results.append(score_completions(policy, prompts, rollout))
    assert torch.equal(*results)


def test_the_whole_path_runs(published, tiny_examples, shots):
    """Prompts, groups, scores and a training step; sampling is not the near-greedy one of generation_config.json."""
    policy = load_policy(published[0], lora_rank=4, device="cpu", max_pixels=112 * 112)
    assert policy.base.generation_config.top_k == 1 and policy.base.generation_config.top_p == 0.001
    prompts = encode_prompts(policy, tiny_examples, LABELS)
    rollout = sample_groups(policy, prompts, 8, 6, seed=0)
    assert all(len({*rollout.texts[8 * b : 8 * b + 8]}) >= 7 for b in range(4)), "eight samples, not one answer"
    scores = score_completions(policy, prompts, rollout)
    assert (scores - rollout.logps)[rollout.mask].abs().max() < 1e-4
    before = {name: weight.clone() for name, weight in policy.model.named_parameters()}
    settings = GRPOSettings(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=6, gradient_checkpointing=True)

    def first_ids(completion_ids, **columns):
        return [float(ids[0] % 2) for ids in completion_ids]

    (record,) = train(policy, shots, settings, rewards=[first_ids])
    assert record.grad_norm > 0 and record.reward_spread > 0
    changed_names = {name for name, weight in policy.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed_names and all("lora_" in name for name in changed_names)


def test_special_tokens_are_found_and_kept_out(published):
    policy = load_policy(published[0], lora_rank=4, device="cpu")
    name_of = policy.tokenizer.convert_ids_to_tokens
    assert name_of(policy.end_token_ids) == ["<|im_end|>", "<|endoftext|>"]
    assert policy.tokenizer.padding_side == "left", "the file says right"
    ids = policy.forbidden_token_ids
    assert set(range(320, tiny_hub.ROWS)) <= set(ids), "rows of the embedding that have no token"
    forbidden = {token for token in name_of([i for i in ids if i < 320])}
    assert forbidden == {"<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"}


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.json", "chat_template.jinja"])
def test_the_templates_default_system_turn_comes_first(copy, where, tiny_examples):
    """Wherever the template stands: the published files have it in two places, newer ones in a third."""
    config = json.loads((copy / "tokenizer_config.json").read_text())
    template = config.pop("chat_template")
    if where != "tokenizer_config.json":
        (copy / "tokenizer_config.json").write_text(json.dumps(config))
    if where != "chat_template.json":
        (copy / "chat_template.json").unlink()
    if where == "chat_template.jinja":
        (copy / where).write_text(template)
    policy = load_policy(copy, lora_rank=4, device="cpu")
    prompts = encode_prompts(policy, tiny_examples[:1], LABELS)
    text = policy.tokenizer.decode(prompts.input_ids[0])
    assert text.startswith(
        f"<|im_start|>system\n{tiny_hub.SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
    )
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|image_pad|>") == len(prompts.image_features[0])


def test_the_pixel_budget(published):
    default = load_policy(published[0], lora_rank=4, device="cpu").processor.image_processor.size
    assert (default["shortest_edge"], default["longest_edge"]) == (3136, 401_408), "the file says up to 12 845 056"
    small = load_policy(published[0], lora_rank=4, device="cpu", max_pixels=100_352).processor.image_processor.size
    assert small["longest_edge"] == 100_352


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_runs_and_learns_in_float32(published, tiny_examples, dtype):
    policy = load_policy(published[0], lora_rank=4, device="cpu", dtype=dtype)
    assert policy.dtype == getattr(torch, dtype) and next(policy.tower.parameters()).dtype == policy.dtype
    assert {weight.dtype for _, weight in policy.trainable_parameters()} == {torch.float32}
    prompts = encode_prompts(policy, tiny_examples[:2], LABELS)
    rollout = sample_groups(policy, prompts, 2, 4, seed=0)
    score_completions(policy, prompts, rollout)[rollout.mask].sum().backward()
    assert all(weight.grad.isfinite().all() for _, weight in policy.trainable_parameters())


def test_an_adapter_of_the_checkpoint_comes_back(published, tmp_path):
    policy = load_policy(published[0], lora_rank=4, device="cpu")
    for _, weight in policy.trainable_parameters():
        torch.nn.init.normal_(weight.data)
    again = load_policy(published[0], adapter=policy.save(tmp_path / "adapter"), device="cpu")
    pairs = zip(policy.trainable_parameters(), again.trainable_parameters(), strict=True)
    assert all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)


# ------------------------------------------------------------------------------- the published shapes, without memory


PARAMETERS = {  # all of them, and those of the vision tower
    "Qwen/Qwen2-VL-2B-Instruct": (2_208_985_600, 665_271_296),
    "Qwen/Qwen2-VL-7B-Instruct": (8_291_375_616, 675_759_104),
    "Qwen/Qwen2.5-VL-3B-Instruct": (3_754_622_976, 668_684_288),
    "Qwen/Qwen2.5-VL-7B-Instruct": (8_292_166_656, 676_550_144),
}


@pytest.fixture(scope="module", params=sorted(KNOWN))
def whole(request):
    """(name, configuration, model on the meta device with an adapter)."""
    config = configuration(request.param)
    with torch.device("meta"):
        model = model_class(config.model_type)(config)
        model.tie_weights()
        model.requires_grad_(False)
        adapted = adapters.fresh_adapter(model, 16, None, request.param)
    return request.param, config, adapted


def numbers(module):
    return sum(weight.numel() for weight in module.parameters())


def test_parameters_are_the_published_ones(whole):
    name, config, adapted = whole
    base = adapted.get_base_model()
    lora = sum(weight.numel() for key, weight in adapted.named_parameters() if "lora_" in key)
    counts = (numbers(adapted) - lora, numbers(base.model.visual))
    tied = base.lm_head.weight is base.model.language_model.embed_tokens.weight
    assert counts == PARAMETERS[name] and tied == ("7B" not in name)
    shape = shape_of(config)
    assert (shape.language_parameters + shape.tower_parameters, shape.tower_parameters) == counts
    assert shape.lora_weights == lora and shape.tied_head == tied


def test_the_adapter_sits_on_seven_matrices_of_each_layer(whole):
    from peft.tuners.lora import LoraLayer

    name, _, adapted = whole
    names = [name for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    layers = 36 if "3B" in name else 28
    assert len(names) == 7 * layers and not any("visual" in module for module in names)
    adapters.check_trainable(adapted)


def test_memory_of_the_published_models(whole):
    """Weights by hand: two bytes each in bfloat16; an adapter of rank 16 has 16 bytes per parameter, all included."""
    name, config, _ = whole
    shape = shape_of(config)
    fixed = fixed_bytes(shape)
    assert fixed["language"] + fixed["tower"] == 2 * (shape.language_parameters + shape.tower_parameters)
    assert fixed["adapter"] + fixed["training"] == 16 * shape.lora_weights
    peaks = step_memory(shape, StepShape(1, 8, 346, 256, 256, gradient_checkpointing=True))
    total = 2 * (shape.language_parameters + shape.tower_parameters) + 16 * shape.lora_weights
    assert total < min(peaks.values()) < max(peaks.values()) < total + 2e9
    four_bit = fixed_bytes(dataclasses.replace(shape, weight_bytes=0.53))
    assert four_bit["language"] < (0.38 if "7B" in name else 0.42) * fixed["language"]


def test_configurations_of_other_models(published, tmp_path, offline):
    assert configuration(published[0]).text_config.hidden_size == 64
    assert configuration("pocket").text_config.hidden_size == 192
    with pytest.raises(FileNotFoundError, match=r"neither built in \(Qwen/.*nor in the cache .*hf download"):
        configuration("someone/qwen2-vl-tuned")
    tiny_hub.put_in_cache(offline, published[0], "someone/qwen2-vl-tuned", branch="main")
    assert configuration("someone/qwen2-vl-tuned").text_config.hidden_size == 64
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match="model_type 'qwen2'; only 'qwen2_vl'"):
        configuration(tmp_path / "other")


# -------------------------------------------------------------------------------------------- over the (mocked) network


def test_a_download_happens_once_and_is_pinned(online, monkeypatch, published):
    server = online(**{"model.bin": b"pickled", "modeling.py": b"raise SystemExit", "README.md": b"long"})
    policy = load_policy(NAME, lora_rank=4, device="cpu")
    assert policy.revision == COMMIT and policy.name == NAME
    paths = [path for _, path in server.requests]
    assert all(COMMIT in path for path in paths if "/resolve/" in path or "/tree/" in path)
    assert not any(path.endswith((".bin", ".py", ".md")) for path in paths)
    adapter_config = policy.model.peft_config["default"]
    assert (adapter_config.base_model_name_or_path, adapter_config.revision) == (NAME, COMMIT), (
        "what a saved adapter says"
    )
    server.requests.clear()
    again = load_policy(NAME, lora_rank=4, device="cpu")
    assert server.requests == [], "a commit in the cache needs no Hub"
    pairs = zip(policy.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_branch_is_asked_about_and_taken_from_the_cache_without_network(online, monkeypatch):
    server = online()
    assert load_policy("someone/tuned", lora_rank=4, device="cpu", revision="main").revision == COMMIT
    server.requests.clear()
    load_policy("someone/tuned", lora_rank=4, device="cpu")
    assert server.requests, "the newest commit of main may be another"
    server.refuse = lambda path: server.http.ConnectError
    assert load_policy("someone/tuned", lora_rank=4, device="cpu").revision == COMMIT


def test_another_kind_of_model_is_refused_before_its_weights_are_downloaded(online):
    server = online(**{"config.json": b'{"model_type": "qwen3_vl"}'})
    with pytest.raises(ValueError, match=r"model_type 'qwen3_vl'; only 'qwen2_vl' and 'qwen2_5_vl' .*Qwen3-VL"):
        load_policy("Qwen/Qwen3-VL-2B-Instruct", device="cpu")
    assert not any("safetensors" in path for _, path in server.requests)


def answers(code, error=None, where=""):
    return lambda path: (code, error) if where in path else None


@pytest.mark.parametrize(
    ("refuse", "kind", "message"),
    [
        (answers(401, "RepoNotFound"), FileNotFoundError, "no model 'Qwen/.*private.*hf auth login"),
        (answers(404, "RepoNotFound"), FileNotFoundError, "no model 'Qwen/.*check the name"),
        (answers(403, "GatedRepo", "/resolve/"), RuntimeError, "gated: accept its terms on https://huggingface.co/Qwen"),
        (answers(401, "GatedRepo"), RuntimeError, "is gated"),
        (answers(404, "RevisionNotFound"), ValueError, "has no revision '.*commits/main"),
        (answers(403), RuntimeError, r"refuses Qwen/.* \(403\).*HF_TOKEN"),
        (answers(503), FileNotFoundError, "no network, or the Hub is down.*hf download"),
    ],
    ids=["unknown-or-private", "unknown", "gated", "gated-no-token", "revision", "forbidden", "down"],
)  # fmt: skip
def test_what_the_hub_refuses(online, refuse, kind, message):
    online(refuse)
    with pytest.raises(kind, match=message) as caught:
        load_policy(NAME, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", ["ConnectError", "ConnectTimeout"])
def test_no_network_and_nothing_cached(online, error):
    server = online()
    server.refuse = lambda path: getattr(server.http, error)
    with pytest.raises(FileNotFoundError, match=rf"not in the cache .*no network.*{NAME} --revision {COMMIT}"):
        load_policy(NAME, device="cpu")


def test_offline_and_nothing_cached(offline, published):
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE is set.*hf download .*directory of a checkpoint"):
        load_policy(NAME, device="cpu")
    tiny_hub.put_in_cache(offline, published[0], commit="ab" * 20)
    with pytest.raises(FileNotFoundError, match=f"it holds revision='{'ab' * 20}'"):
        load_policy(NAME, device="cpu")
    assert load_policy(NAME, lora_rank=4, device="cpu", revision="ab" * 20).revision == "ab" * 20


def test_what_is_cached(offline, published, copy):
    assert hub.is_cached("pocket") and hub.is_cached(copy) and not hub.is_cached(NAME)
    (copy / SHARD).unlink()
    assert not hub.is_cached(copy)
    snapshot = tiny_hub.put_in_cache(offline, published[0])
    assert hub.is_cached(NAME) and hub.is_cached(NAME, COMMIT) and not hub.is_cached(NAME, "main")
    (snapshot / SHARD).unlink()
    assert not hub.is_cached(NAME)


def test_names_that_are_none(offline, published):
    with pytest.raises(FileNotFoundError, match="neither a directory nor a name on the Hub"):
        load_policy("no such name", device="cpu")
    with pytest.raises(ValueError, match="is a directory here, which has no revision 'main'"):
        load_policy(published[0], revision="main", device="cpu")


def test_too_little_disk_is_said_before_the_download(online, monkeypatch):
    server = online()
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: Usage(10, 9, 1))
    with pytest.raises(RuntimeError, match=r"too little room on the disk for Qwen/.*are free.*HF_HOME"):
        load_policy(NAME, device="cpu")
    assert not any(method == "GET" and "/resolve/" in path for method, path in server.requests)


def test_a_disk_that_runs_full(online, monkeypatch):
    online()
    download = hub.huggingface_hub.snapshot_download

    def full(*args, dry_run=False, local_files_only=False, **kwargs):
        if not dry_run and not local_files_only:
            raise OSError(28, "No space left on device")
        return download(*args, dry_run=dry_run, local_files_only=local_files_only, **kwargs)

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", full)
    with pytest.raises(RuntimeError, match="too little room on the disk for Qwen/.*ran full while downloading"):
        load_policy(NAME, device="cpu")


def test_a_download_that_broke_off_is_taken_up_again(online, published):
    server = online()
    load_policy(NAME, lora_rank=4, device="cpu")
    snapshot = hub.in_cache(NAME, COMMIT)
    shard = snapshot / "model-00002-of-00003.safetensors"
    blob = shard.resolve()
    shard.unlink()
    blob.unlink()
    server.requests.clear()
    load_policy(NAME, lora_rank=4, device="cpu")
    got = [path for method, path in server.requests if method == "GET" and "/resolve/" in path]
    assert [path.rsplit("/")[-1] for path in got] == [shard.name]


# ------------------------------------------------------------------------------------------------- damaged directories


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def lose(folder, name):
    """A tensor that the index places in a shard which does not hold it."""
    weights = load_file(folder / "model-00001-of-00003.safetensors")
    weights.pop(name)
    save_file(weights, folder / "model-00001-of-00003.safetensors")


def lose_everywhere(folder):
    lose(folder, "model.layers.0.mlp.up_proj.weight")
    edit(folder / "model.safetensors.index.json", lambda i: i["weight_map"].pop("model.layers.0.mlp.up_proj.weight"))


def pickle(folder):
    torch.save({}, folder / "pytorch_model.bin")
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
SHARD = "model-00002-of-00003.safetensors"
DAMAGE = {
    "shard missing": (lambda f: (f / SHARD).unlink(), FileNotFoundError, f"1 of 3 shards missing, {SHARD}"),
    "shard cut": (lambda f: cut(f / SHARD, 30_000), ValueError, f"{SHARD}, of 30000 bytes, is not a complete"),
    "header cut": (lambda f: cut(f / SHARD, 40), ValueError, f"{SHARD}, of 40 bytes, is not .*header"),
    "shard empty": (lambda f: cut(f / SHARD, 0), ValueError, f"{SHARD}, of 0 bytes, is not .*header too small"),
    "no safetensors": (lambda f: (f / SHARD).write_bytes(b"<html>404</html>\n" * 9), ValueError, "not a complete"),
    "pointers of Git LFS": (
        lambda f: [(f / name).write_bytes(LFS_POINTER) for name in (SHARD, "tokenizer.json")], ValueError,
        f"Git LFS pointers in the place of {SHARD}, tokenizer.json; `git lfs pull`",
    ),
    "a pointer as configuration": (
        lambda f: (f / "config.json").write_bytes(LFS_POINTER), ValueError, "config.json is a Git LFS pointer",
    ),
    "header no object": (
        lambda f: (f / SHARD).write_bytes(struct.pack("<Q", 2) + b"[]"), ValueError, f"{SHARD}, .* is not a complete",
    ),
    "not in its shard": (
        lambda f: lose(f, "model.layers.0.mlp.up_proj.weight"), ValueError,
        "names 1 tensors that are not in their shards, the first model.layers.0.mlp.up_proj.weight in model-00001",
    ),
    "in no shard": (lose_everywhere, ValueError, r"incomplete: 1 tensors .* the first model\..*layers.0.mlp.up_proj"),
    "index broken": (lambda f: cut(f / "model.safetensors.index.json", 99), ValueError, "index.json is damaged"),
    "more bytes": (
        lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes() + b"x"), ValueError,
        f"{SHARD}, .* is not a complete",
    ),
    "index no mapping": (
        lambda f: edit(f / "model.safetensors.index.json", lambda i: i.update(weight_map=["a"])), ValueError,
        "no weights",
    ),
    "index empty": (
        lambda f: edit(f / "model.safetensors.index.json", lambda i: i.pop("weight_map")), ValueError, "no weights",
    ),
    "pickles": (pickle, FileNotFoundError, "only pytorch_model.bin: pickled weights can run code.*convert them once"),
    "no weights": (
        lambda f: [p.unlink() for p in f.glob("model*")], FileNotFoundError, "no weights: no model.safetensors",
    ),
    "other shapes": (
        lambda f: edit(f / "config.json", lambda c: c.update(intermediate_size=128)), ValueError, "other shapes",
    ),
    "more layers": (
        lambda f: edit(f / "config.json", lambda c: c.update(num_hidden_layers=3)), ValueError, r"layers\.2\.",
    ),
    "config broken": (lambda f: cut(f / "config.json", 50), ValueError, "config.json is damaged"),
    "no processor": (
        lambda f: (f / "preprocessor_config.json").unlink(), FileNotFoundError, "preprocessor_config.json missing",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), FileNotFoundError, "tokenizer.json missing"),
    "no template": (
        lambda f: [
            (f / "chat_template.json").unlink(), edit(f / "tokenizer_config.json", lambda c: c.pop("chat_template")),
        ],
        ValueError, "has no chat template: take chat_template.json",
    ),
    "blind template": (
        lambda f: edit(
            f / "tokenizer_config.json",
            lambda c: c.update(chat_template="{% for m in messages %}{{ m['content'][1]['text'] }}{% endfor %}"),
        ),
        ValueError, r"does not put one <\|vision_start\|><\|image_pad\|><\|vision_end\|> and the text",
    ),
    "other tokens": (
        lambda f: edit(f / "config.json", lambda c: c.update(image_token_id=151655)), ValueError,
        r"<\|image_pad\|> is \d+ and not 151655",
    ),
    "too few rows": (
        lambda f: edit(f / "config.json", lambda c: c.update(vocab_size=300)), ValueError, "other shapes|of 300 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shard", [
    "../elsewhere/model.safetensors", "/tmp/model.safetensors", "sub/model.safetensors", r"..\model.safetensors",
    r"C:\model.safetensors", "C:model.safetensors", "", ".", "..", 7, None, ["model.safetensors"],
])  # fmt: skip
def test_a_shard_outside_of_the_folder_is_refused(copy, shard):
    shutil.copytree(copy, copy.parent / "elsewhere")
    (copy.parent / "elsewhere" / SHARD).rename(copy.parent / "elsewhere" / "model.safetensors")
    index = copy / "model.safetensors.index.json"
    edit(index, lambda i: i.update(weight_map={t: shard if s == SHARD else s for t, s in i["weight_map"].items()}))
    with pytest.raises(ValueError, match=rf"index.json names the shard {re.escape(repr(shard))}, .* not a path"):
        load_policy(copy, device="cpu")


def save_as_transformers_5(folder):
    """The image processor inside processor_config.json, beside the video processor that is not read here."""
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    size = {"shortest_edge": values.pop("min_pixels"), "longest_edge": values.pop("max_pixels")}
    nested = {"image_processor": values | {"size": size}, "video_processor": {"size": size, "max_frames": 768}}
    (folder / "processor_config.json").write_text(json.dumps(nested | {"processor_class": "Qwen2VLProcessor"}))


def test_a_checkpoint_as_transformers_5_saves_it(published, copy, tiny_examples):
    save_as_transformers_5(copy)
    ours, theirs = (load_policy(folder, lora_rank=0, device="cpu") for folder in (copy, published[0]))
    assert ours.processor.image_processor.to_dict() == theirs.processor.image_processor.to_dict()
    one, other = (encode_prompts(policy, tiny_examples, LABELS) for policy in (ours, theirs))
    assert torch.equal(one.input_ids, other.input_ids)
    assert all(torch.equal(a, b) for a, b in zip(one.image_features, other.image_features, strict=True))


@pytest.mark.parametrize("content", [{"processor_class": "Qwen2VLProcessor"}, {"image_processor": None}])
def test_a_processor_config_without_an_image_processor_is_not_enough(copy, content):
    save_as_transformers_5(copy)
    (copy / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match="incomplete: preprocessor_config.json missing"):
        load_policy(copy, device="cpu")


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_checkpoint_is_named(copy, what):
    damage, kind, message = DAMAGE[what]
    damage(copy)
    with pytest.raises(kind, match=message):
        load_policy(copy, device="cpu")


def test_a_tokenizer_without_qwens_tokens(copy):
    content = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(content.replace("<|image_pad|>", "<|picture|>"))
    text = (copy / "tokenizer_config.json").read_text()
    (copy / "tokenizer_config.json").write_text(text.replace('"<|image_pad|>"', '"<|picture|>"'))
    with pytest.raises(ValueError, match=r"lacks <\|image_pad\|>: take the tokenizer"):
        load_policy(copy, device="cpu")


def test_what_is_damaged_in_the_cache_is_downloaded_again_by_hand(offline, published):
    snapshot = tiny_hub.put_in_cache(offline, published[0])
    cut((snapshot / SHARD).resolve(), 30_000)
    with pytest.raises(ValueError, match=rf"{SHARD}, .* is not a .*hf download {NAME} --revision {COMMIT} --force"):
        load_policy(NAME, device="cpu")
    (snapshot / SHARD).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 3 shards missing, {SHARD}\. Download it again: `hf download"):
        load_policy(NAME, device="cpu")


# --------------------------------------------------------------------------------------------------- memory, adapters


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_no_room_while_loading(published, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(transformers.Qwen2VLForConditionalGeneration, "from_pretrained", fail)
    with pytest.raises(torch.OutOfMemoryError, match=r"no room for .* on cpu as float32: .*bfloat16.*favor-lab doctor"):
        load_policy(published[0], device="cpu")


def test_an_error_that_is_none_of_memory_is_not_said_to_be_one(published, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(transformers.Qwen2VLForConditionalGeneration, "from_pretrained", fail)
    with pytest.raises(
        ValueError, match=r"other shapes or types than its config.json says \(RuntimeError: something else"
    ):
        load_policy(published[0], device="cpu")


def test_adapters_of_another_base(published, tiny_checkpoint, tmp_path):
    pocket = load_policy("pocket", lora_rank=4, device="cpu").save(tmp_path / "pocket")
    with pytest.raises(ValueError, match=r"\(made for pocket\) does not fit .*size mismatch"):
        load_policy(published[0], adapter=pocket, device="cpu")
    fewer = load_policy(published[0], lora_rank=4, device="cpu").save(tmp_path / "fewer")
    weights = load_file(fewer / "adapter_model.safetensors")
    save_file({k: v for k, v in weights.items() if "layers.1." not in k}, fewer / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="does not fit .*14 tensors are missing and 0 too many"):
        load_policy(published[0], adapter=fewer, device="cpu")
    cut(fewer / "adapter_model.safetensors", 100)
    with pytest.raises(ValueError, match="adapter_model.safetensors, .* is not a complete"):
        load_policy(published[0], adapter=fewer, device="cpu")
    (fewer / "adapter_model.safetensors").rename(fewer / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="no adapter_model.safetensors; pickled"):
        load_policy(published[0], adapter=fewer, device="cpu")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (r".*language_model\..*\.(q|v)_proj", r"4 of the 14 matrices \(7 x 2 layers\).*on 0 others"),
        (r".*\.(q|k|v|o|gate|up|down)_proj|.*visual\..*fc1", r"4 parameters of the vision tower are trainable.*lora_A"),
        (r".*\.(q|k|v|o|gate|up|down)_proj|lm_head", r"on 14 of the 14 .* and on 1 others, the first lm_head"),
    ],
)
def test_adapters_elsewhere_are_refused(published, tmp_path, monkeypatch, targets, message):
    """The fast passes take an adapter on some of the matrices for none: it must not get that far."""
    monkeypatch.setattr(adapters, "LORA_TARGETS", targets)
    with pytest.raises(ValueError, match=message):
        load_policy(published[0], lora_rank=4, device="cpu")


def test_a_tower_that_could_learn_is_refused(published):
    policy = load_policy(published[0], lora_rank=4, device="cpu")
    policy.tower.blocks[0].mlp.fc1.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="1 parameters of the vision tower are trainable, the first blocks.0.mlp.fc1"):
        adapters.check_trainable(policy.model)
    whole = load_policy(published[0], lora_rank=0, device="cpu")
    whole.base.model.language_model.norm.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="of the .* parameters of the language model are trainable, not all"):
        adapters.check_trainable(whole.model)
