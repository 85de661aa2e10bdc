"""Checkpoints and adapters of strangers: nothing in them is run, leads elsewhere or changes the base without a word."""

import json
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import bad_models
from favor_lab.cli import main
from favor_lab.vlm import adapters, untrusted
from favor_lab.vlm.adapters import LORA_TARGETS, plain_lora
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.processing import encode_prompts
from favor_lab.vlm.untrusted import ends_soon, read_json
from tiny import LABELS, plain_row


@pytest.fixture
def copy(tiny_checkpoint, tmp_path):
    """A checkpoint to spoil."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "copy")


@pytest.fixture
def adapter(tiny_policy, tmp_path):
    """An adapter to spoil, whose B matrices are not zero."""
    return tiny_policy.save(tmp_path / "adapter")


def edit(path, **changes):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


# ----------------------------------------------------------------------------------------------- code of a repository


EVIL = "open('code-ran', 'w').write('x')\nclass Evil: pass\n"
AUTO_MAP = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor")}
AUTO_MAP |= {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
     "tokenizer_config.json", "special_tokens_map.json"],
)  # fmt: skip
def test_code_that_a_file_names_is_neither_run_nor_asked_about(copy, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    (copy / "evil.py").write_text(EVIL)
    (copy / "custom_generate").mkdir()
    (copy / "custom_generate" / "generate.py").write_text(EVIL)
    edit(copy / name, auto_map=AUTO_MAP)
    load_policy(copy, lora_rank=2, device="cpu")
    assert not (tmp_path / "code-ran").exists() and "evil" not in sys.modules


@pytest.mark.parametrize("key", untrusted.REDIRECTIONS)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_file_that_sends_the_reader_to_another_is_refused(copy, name, key):
    edit(copy / name, **{key: ["config.5.0.0.json"]})
    edit(copy / "config.5.0.0.json", model_type="evil", auto_map=AUTO_MAP)
    with pytest.raises(ValueError, match=f"{name} has '{key}'"):
        load_policy(copy, device="cpu")


def test_an_adapter_beside_the_model_is_refused(copy, adapter):
    """transformers would put it on the model."""
    for path in adapter.iterdir():
        shutil.copy(path, copy)
    with pytest.raises(ValueError, match="adapter_config.json does not belong into the folder of a checkpoint"):
        load_policy(copy, device="cpu")


def test_a_vocabulary_in_another_file_is_not_opened(copy):
    """tokenizers reads a path where a table is meant."""
    content = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(content | {"model": content["model"] | {"vocab": "/etc/passwd"}}))
    with pytest.raises(ValueError, match="tokenizer.json, .* needs a vocab"):
        load_policy(copy, device="cpu")


@pytest.mark.parametrize("family", ["text_config", "vision_config"])
def test_a_billion_layers_are_not_built(copy, family):
    config = json.loads((copy / "config.json").read_text())
    config[family]["num_hidden_layers" if family == "text_config" else "depth"] = 10**9
    config["text_config"].pop("layer_types")  # transformers would make a list of that length
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json asks for 1000000000 layers, and at most 1000 are made"):
        load_policy(copy, device="cpu")


def test_fewer_layers_than_the_weights_have_are_no_smaller_model(copy):
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["depth"] = 1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json has no place for 12 tensors of layers, the first .*blocks\.1\."):
        load_policy(copy, device="cpu")


def test_weights_that_are_whole_numbers_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    name = "model.norm.weight"
    save_file(weights | {name: weights[name].int()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="'model.norm.weight' in model.safetensors has the type I32"):
        load_policy(copy, device="cpu")


@pytest.mark.parametrize("token", ["x", -1, 320, True, [1], 1.5])
def test_the_end_of_a_completion_is_a_token(copy, token):
    edit(copy / "generation_config.json", eos_token_id=[token])
    with pytest.raises(ValueError, match=r"generation_config.json has the eos_token_id .*, which must be the id"):
        load_policy(copy, device="cpu")


# ---------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "holds no object"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": -Infinity}', "-Infinity is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": {"b": 1, "b": 1}}', "names 'b' twice"),
        (b"[" * 100_000, "too many levels"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'{"a": "\xe9"}', "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_is_not_read(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"config.json is damaged: .*{message}") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_json_larger_than_memory_is_not_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(2**40)  # a file with a hole: no such bytes are on the disk
    with pytest.raises(ValueError, match="config.json is damaged: it has 1,099,511,627,776 bytes"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set text = messages[0].content[1].text %}"
        "{% for a in text %}{% for b in text %}{% for c in text %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{% set x = 'a' %}" + "{% set x = x ~ x %}" * 60,
        "{{ 'a'.rjust(10**10) }}",
    ],
)
def test_a_chat_template_that_does_not_end(template, copy, monkeypatch):
    monkeypatch.setattr(untrusted, "TEMPLATE_SECONDS", 1)
    ends_soon.cache_clear()
    (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="the chat template of .* does not end within .* take that of the checkpoint"):
        load_policy(copy, device="cpu")


@pytest.mark.parametrize("template", ["{{ ", "{{ 1 / 0 }}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"])
def test_a_chat_template_with_an_error(template, copy):
    (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="the chat template of .* cannot be used") as caught:
        load_policy(copy, device="cpu")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- adapters


NOT_PLAIN = {
    "peft_type": ["IA3", "LOHA", None, 3], "bias": ["all", "lora_only", None],
    "init_lora_weights": ["pissa", "pissa_niter_4", "olora", "corda", "eva", "loftq", "lora_ga", 1, None, ["pissa"]],
    "r": [0, -1, True, 4.0, "4", None], "lora_alpha": [0, -8, "8", True, None, 10**400, []],
    "lora_dropout": [1.0, -0.1, "0", None, False], "use_dora": [1, "yes", None], "use_rslora": [0, "no"],
    "lora_bias": ["x"], "target_modules": [None, 7, [7], {}],
    "layers_to_transform": [0, [0]], "layers_pattern": ["layers"], "rank_pattern": [{"q_proj": 2}],
    "alpha_pattern": [{"(.*)*x": 2}], "modules_to_save": [["lm_head"]], "trainable_token_indices": [[1]],
    "exclude_modules": ["(.*)*(.*)*(.*)*x", ["q_proj"]], "target_parameters": [["a.weight"]],
    "megatron_config": [{"a": 1}], "alora_invocation_tokens": [[1, 2]], "layer_replication": [[[0, 2]]],
    "fan_in_fan_out": [True], "use_qalora": [True], "loftq_config": [{"loftq_bits": 4}], "eva_config": [{"rho": 2}],
    "corda_config": [{"a": 1}], "use_bdlora": [{"nblocks": 2}], "arrow_config": [{"top_k": 3}],
    "a_field_of_a_later_version": [1, "x"], "revision": [3], "base_model_name_or_path": [["a"]],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in NOT_PLAIN for value in NOT_PLAIN[field]])
def test_what_is_not_plain_lora_is_refused_by_name(field, value):
    values = {"peft_type": "LORA", "target_modules": LORA_TARGETS, "r": 4} | {field: value}
    with pytest.raises(ValueError, match=f"adapter_config.json has {field} = ") as caught:
        plain_lora(values, "adapter_config.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("init_lora_weights", "pissa", 'has init_lora_weights = "pissa", and only plain LoRA is loaded: .*merge'),
        ("r", 10**12, r"does not fit .* size mismatch for .*: \(4, 96\) in the file, \(1000000000000, 96\)"),
        ("target_modules", ["q_proj"], "has no target_modules for .*, for which the adapter has tensors"),
    ],
)
def test_such_an_adapter_does_not_reach_peft(field, value, message, tiny_checkpoint, adapter, monkeypatch):
    monkeypatch.setattr(adapters, "get_peft_model", lambda *_: pytest.fail("a stranger's configuration reached peft"))
    edit(adapter / "adapter_config.json", **{field: value})
    with pytest.raises(ValueError, match=message):
        load_policy(tiny_checkpoint, adapter=adapter, device="cpu")


def test_the_fields_of_peft_at_their_defaults_are_plain():
    """A new field of a later peft, at its default, must not be taken for another kind of adapter."""
    assert plain_lora(LoraConfig(target_modules="x").to_dict(), "adapter_config.json") == {
        "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False, "use_dora": False, "lora_bias": False,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [
    {}, {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.1}, {"lora_alpha": 2.5},
    {"init_lora_weights": "orthogonal"}, {"target_modules": [f"{part}_proj" for part in adapters.PROJECTIONS]},
])  # fmt: skip
def test_an_adapter_of_peft_computes_what_peft_computes(kind, tiny_checkpoint, tiny_examples, tmp_path):
    """Made, filled, saved and loaded by peft alone; then the same folder through `load_policy`."""
    options = {"r": 4, "lora_alpha": 16, "target_modules": LORA_TARGETS} | kind
    bare = load_policy(tiny_checkpoint, lora_rank=0, device="cpu").base
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft: a bias on a layer without one
        model, generator = get_peft_model(bare, LoraConfig(**options)), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight += 0.1 * torch.randn(weight.shape, generator=generator)
        model.save_pretrained(tmp_path, save_embedding_layers=False)
        policy = load_policy(tiny_checkpoint, adapter=tmp_path, device="cpu")
        theirs = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
        theirs.model = PeftModel.from_pretrained(theirs.base, str(tmp_path)).eval()
    text, ids = "What is it?", torch.tensor([5, 9, 70, 12])
    with torch.no_grad():
        ours, peft = (plain_row(one, tiny_examples[0], text, ids) for one in (policy, theirs))
        assert torch.allclose(ours, peft, atol=1e-6)
        with policy.reference():
            base = plain_row(policy, tiny_examples[0], text, ids)
        assert torch.equal(base, plain_row(load_policy(tiny_checkpoint, device="cpu"), tiny_examples[0], text, ids))
        assert (ours - base).abs().max() > 0.01
    encode_prompts(policy, tiny_examples[:1], LABELS)


def test_the_base_is_the_checkpoint_whatever_the_adapter(tiny_checkpoint, adapter):
    bare = dict(load_policy(tiny_checkpoint, lora_rank=0, device="cpu").base.named_parameters())
    loaded = load_policy(tiny_checkpoint, adapter=adapter, device="cpu").base.named_parameters()
    parts = {name.replace(".base_layer", ""): weight for name, weight in loaded if "lora_" not in name}
    assert parts.keys() == bare.keys() and all(torch.equal(parts[name], bare[name]) for name in bare)


def test_a_pattern_of_an_adapter_is_not_run(tiny_checkpoint, adapter, tmp_path):
    """This one would take longer than the universe has."""
    edit(adapter / "adapter_config.json", target_modules="(.*)*(.*)*(.*)*(.*)*x")
    again = load_policy(tiny_checkpoint, adapter=adapter, device="cpu").save(tmp_path / "again")
    assert json.loads((again / "adapter_config.json").read_text())["target_modules"] == LORA_TARGETS


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "NaN or infinite"), (float("inf"), "NaN or infinite")])
def test_weights_of_an_adapter_are_finite(tiny_checkpoint, adapter, value, message):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0, 0] = value
    save_file(weights, path)
    with pytest.raises(ValueError, match=message):
        load_policy(tiny_checkpoint, adapter=adapter, device="cpu")


def test_an_adapter_on_another_base_is_said(copy, tiny_checkpoint, adapter):
    with pytest.warns(UserWarning, match=f"was made for '{tiny_checkpoint}', and is put on '{copy}'"):
        load_policy(copy, adapter=adapter, device="cpu")


def test_an_adapter_on_another_commit_is_said(tiny_checkpoint):
    about = {"base_model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct", "revision": "a" * 40}
    with pytest.warns(UserWarning, match=f"at the commit '{'a' * 40}', and is put on the commit '{'b' * 40}'"):
        adapters.warn_of_another_base(tiny_checkpoint, about, "Qwen/Qwen2-VL-2B-Instruct", "b" * 40)


def test_an_adapter_on_its_own_base_is_loaded_without_a_word(tiny_checkpoint, adapter, monkeypatch):
    monkeypatch.chdir(tiny_checkpoint.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in (tiny_checkpoint, f"./{tiny_checkpoint.name}"):
            load_policy(name, adapter=adapter, device="cpu")
        for about in ({"base_model_name_or_path": None, "revision": None},
                      {"base_model_name_or_path": "pocket", "revision": "a"}):  # fmt: skip
            adapters.warn_of_another_base(adapter, about, "pocket", None)
    shared = {"base_model_name_or_path": "my-base", "revision": None}
    adapters.warn_of_another_base(tiny_checkpoint, shared, "/home/me/my-base", None)  # a warning would be an error here
    for base, put_on in (("pocket", "/home/me/pocket"), ("my-base", "/home/me/another"), ("a/base", "b/base")):
        with pytest.warns(UserWarning, match=f"was made for '{base}', and is put on '{put_on}'"):
            about = {"base_model_name_or_path": base, "revision": None}
            adapters.warn_of_another_base(tiny_checkpoint, about, put_on, None)


# ------------------------------------------------------------------------------------------------- spoilt in one place


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return {name: bad_models.good_folder(tmp_path_factory.mktemp(name), name) for name in ("today", "hub")}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(bad_models.os, "fork"), reason="each trial is a process that is forked")
def test_a_spoilt_file_is_named_or_does_not_matter():
    """In a process of its own: one that is as large as that of the tests has no memory left below the limit."""
    command = [sys.executable, bad_models.__file__, "--count", "24"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0 and done.stdout.count(" -> ") == 24, done.stdout + done.stderr


@pytest.mark.parametrize("layout", ["today", "hub"])
def test_the_folders_are_good_before_they_are_spoilt(good, layout):
    assert bad_models.result(good[layout]) == "answers"


def test_the_command_line_says_it_in_one_line(copy, capsys):
    edit(copy / "config.json", text_config=3)
    assert main(["evaluate", "--data", "cartoon", "--test", "1", "--policy", str(copy)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "config.json holds a value of a wrong type" in line and "Traceback" not in line


@pytest.mark.slow
def test_nothing_is_asked_on_standard_input(copy):
    edit(copy / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="EvilTokenizer")
    command = [sys.executable, "-m", "favor_lab", "evaluate", "--data", "cartoon", "--test", "1", "--policy", str(copy)]
    run = subprocess.run(command, input="y\n" * 9, capture_output=True, text=True, timeout=900, check=False)
    assert "custom code" not in run.stdout + run.stderr and "Traceback" not in run.stderr
