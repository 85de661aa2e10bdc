"""The files of the pocket checkpoint: written by `rebuild/checkpoint.py`, read as any Hub checkpoint."""

import json

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen2VLForConditionalGeneration

from tiny import rebuild_module

checkpoint = rebuild_module("checkpoint")


@pytest.fixture(scope="module")
def tokenizer():
    return checkpoint.build_tokenizer(["<think>a person is riding a bike</think>"] * 5, vocab_size=290)


def test_the_whole_hub_layout_is_there(tiny_checkpoint):
    assert {path.name for path in tiny_checkpoint.iterdir()} == {
        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "model.safetensors",
    }  # fmt: skip
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert config["model_type"] == "qwen2_vl" and config["tie_word_embeddings"] is True
    generation = GenerationConfig.from_pretrained(tiny_checkpoint)
    assert (generation.do_sample, generation.top_k, generation.top_p) == (True, 1, 0.001)
    assert generation.temperature == 0.01 and len(generation.eos_token_id) == 2


def test_the_tokenizer_survives_the_disk_and_spells_every_byte(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert len(loaded) == len(tokenizer) == 290
    for text in ("riding a bike 12", "  É\n\n日本 🚲", "<|im_start|>user\n<|vision_start|><|image_pad|>x"):
        ids = loaded(text).input_ids
        assert ids == tokenizer(text).input_ids and loaded.decode(ids) == text
    assert loaded.convert_tokens_to_ids(list(checkpoint.SPECIAL_TOKENS)) == list(range(276, 290))
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_the_chat_template_has_qwens_structure(tokenizer):
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "That."}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\nThat.<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt) and prompt.endswith("<|im_start|>assistant\n")


def test_saving_rounds_the_file_and_not_the_model(tokenizer, tmp_path):
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, layers=1, heads=4, mlp_size=64, mrope_section=[2, 3, 3], vision_layers=1)
    model = Qwen2VLForConditionalGeneration(checkpoint.build_config(tokenizer, **sizes))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint.save_checkpoint(tmp_path, model, tokenizer, dtype=torch.float16)
    assert model.dtype == torch.float32 and model.config.dtype != torch.float16
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    loaded = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, before[name].half().float()), name
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
    model.lm_head.weight.data[0, 0] = 1e30
    with pytest.raises(ValueError, match="not finite in torch.float16"):
        checkpoint.save_checkpoint(tmp_path, model, tokenizer, dtype=torch.float16)


def test_sizes_that_do_not_fit(tokenizer):
    with pytest.raises(ValueError, match="unknown sizes.*valid sizes.*vision_layers"):
        checkpoint.build_config(tokenizer, depth=3)
    with pytest.raises(ValueError, match="mrope_section"):
        checkpoint.build_config(tokenizer, mrope_section=[16, 24, 24])


def test_the_older_layout_of_the_real_checkpoint_loads_alike(tiny_checkpoint, tmp_path, tiny_examples):
    """Flat config with rope_scaling, the chat template inside tokenizer_config.json."""
    from favor_lab.vlm.loading import load_policy
    from favor_lab.vlm.prefix import run_prompt
    from favor_lab.vlm.processing import encode_prompts

    for path in tiny_checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    text, vision = config.pop("text_config"), config["vision_config"]
    section = text.pop("rope_parameters")["mrope_section"]
    for key in ("model_type", "layer_types", "dtype", "pad_token_id"):
        text.pop(key, None)
    for key in ("rope_parameters", "dtype"):
        vision.pop(key, None)
    vision |= {"model_type": "qwen2_vl", "in_chans": 3, "spatial_patch_size": 14}
    old = {"rope_scaling": {"type": "mrope", "mrope_section": section}, "rope_theta": 1e6, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config | text | old))

    tokens = json.loads((tmp_path / "tokenizer_config.json").read_text())
    names = tokens.pop("extra_special_tokens", None)
    tokens |= {"additional_special_tokens": names, "unk_token": None, "errors": "replace"}
    tokens["chat_template"] = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokens))

    results = []
    for directory in (tiny_checkpoint, tmp_path):
        policy = load_policy(directory, lora_rank=0, device="cpu")
        results.append(run_prompt(policy, encode_prompts(policy, tiny_examples, None)).last_hidden)
    assert torch.equal(*results)
