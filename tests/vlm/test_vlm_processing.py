"""Any image to features, once; any prompt to tensors, padded on the left."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from favor_lab.activities.fewshot import Example
from favor_lab.activities.images import to_rgb
from favor_lab.grpo.sampling import sample_groups, score_completions
from favor_lab.vlm import processing
from favor_lab.vlm.loading import load_policy
from favor_lab.vlm.prefix import run_prompt
from favor_lab.vlm.processing import PromptBatch, ask_without_image, encode_prompts, encode_texts
from favor_lab.vlm.processor import MAX_PIXELS, load_processor
from tiny import LABELS


def palette(transparency=None):
    """All pixels are entry 1 of a palette of red and blue."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def filled(mode, value, dtype=None):
    if dtype is None:
        return Image.new(mode, (4, 4), value)
    return Image.fromarray(np.full((4, 4), value, dtype))


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (filled("RGB", (9, 8, 7)), (9, 8, 7)),
        (filled("L", 77), (77, 77, 77)),
        (filled("1", 1), (255, 255, 255)),
        (filled("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (filled("RGBA", (255, 0, 0, 0)), (255, 255, 255)),
        (filled("RGBA", (0, 0, 0, 128)), (127, 127, 127)),
        (filled("LA", (0, 255)), (0, 0, 0)),
        (filled("LA", (0, 0)), (255, 255, 255)),
        (palette(), (0, 0, 255)),
        (palette(transparency=0), (0, 0, 255)),
        (palette(transparency=1), (255, 255, 255)),
        (filled("I;16", 32768), (128, 128, 128)),
        (filled("I;16B", 65535, ">u2"), (255, 255, 255)),
        (filled("I", 200), (200, 200, 200)),
        (filled("I", 65535), (255, 255, 255)),
        (filled("I", 0), (0, 0, 0)),
        (filled("F", 0.5), (128, 128, 128)),
        (filled("F", 250.0), (250, 250, 250)),
        (filled("F", -3.0), (0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "mode", str(value)),
)
def test_every_mode_becomes_rgb(tiny_policy, image, pixel):
    rgb = to_rgb(image)
    assert rgb.mode == "RGB" and rgb.getpixel((0, 0)) == pixel
    assert len(encode_prompts(tiny_policy, [Example(image, "reading", "x")], LABELS)) == 1


def test_exif_rotation_is_applied(tiny_policy):
    """A camera held upright stores a lying picture and a note to turn it."""
    image = Image.new("RGB", (112, 56), "black")
    image.paste("white", (0, 0, 56, 56))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise: what is on the left comes to the top
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    original = Image.open(buffer)
    assert original.size == (112, 56)
    batch = encode_prompts(tiny_policy, [Example(original, "reading", "x")], LABELS)
    assert batch.images[0].size == (56, 112)
    pixels = np.asarray(batch.images[0])  # (112, 56, 3)
    assert pixels[:50].min() > 200 and pixels[-50:].max() < 50


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (30, 5000), (28, 28), (1000, 700), (113, 111), (2, 400)])
def test_any_size_meets_the_pixel_budget(tiny_policy, size):
    batch = encode_prompts(tiny_policy, [Example(Image.new("RGB", size), "reading", "x")], LABELS)
    width, height = batch.images[0].size
    assert width % 28 == height % 28 == 0
    assert len(batch.image_features[0]) == width * height // 784 >= 1
    thin = max(size) > 16 * min(size)  # then 28 pixels, the least, can be too many
    assert thin or 56**2 <= width * height <= 112**2


def test_the_pixel_budget_can_be_set(tiny_checkpoint):
    def tokens(**budget):
        policy = load_policy(tiny_checkpoint, device="cpu", **budget)
        batch = encode_prompts(policy, [Example(Image.new("RGB", (300, 300)), "reading", "x")], LABELS)
        return len(batch.image_features[0])

    assert tokens() == 16
    assert tokens(max_pixels=784) == 1
    assert tokens(max_pixels=101 * 784) == 100
    assert tokens(min_pixels=150 * 784, max_pixels=200 * 784) == 169  # 13 x 13
    with pytest.raises(ValueError, match="784 pixels are one image token"):
        tokens(max_pixels=500)


def test_a_checkpoint_with_an_enormous_budget_is_capped(tiny_checkpoint, tmp_path):
    config = (tiny_checkpoint / "preprocessor_config.json").read_text().replace("12572", "12845056")
    (tmp_path / "preprocessor_config.json").write_text(config)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_text((tiny_checkpoint / name).read_text())
    assert load_processor(tmp_path).image_processor.size["longest_edge"] == MAX_PIXELS


@pytest.mark.parametrize(
    ("stored", "lowest", "highest"),
    [
        ({"size": {"min_pixels": 784, "max_pixels": 7840}}, 784, 7840),
        ({"size": {"max_pixels": 7840}}, 3136, 7840),
        ({"size": {"min_pixels": 1568}}, 1568, MAX_PIXELS),
        ({"size": {"min_pixels": 784, "max_pixels": 9}, "min_pixels": 1568, "max_pixels": 7840}, 1568, 7840),
        ({"size": {"shortest_edge": 784, "longest_edge": 7840, "min_pixels": 1, "max_pixels": 9}}, 784, 7840),
        ({"max_pixels": 7840}, 3136, 7840),
        ({}, 3136, MAX_PIXELS),
    ],
)
def test_a_pixel_budget_is_read_however_it_is_written(tiny_checkpoint, tmp_path, stored, lowest, highest):
    values = json.loads((tiny_checkpoint / "preprocessor_config.json").read_text())
    values = {key: value for key, value in values.items() if key not in ("size", "min_pixels", "max_pixels")}
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (tmp_path / "copy/preprocessor_config.json").write_text(json.dumps(values | stored))
    policy = load_policy(tmp_path / "copy", device="cpu")
    assert policy.processor.image_processor.size == {"shortest_edge": lowest, "longest_edge": highest}
    batch = encode_prompts(policy, [Example(Image.new("RGB", (300, 300)), "reading", "x")], LABELS)
    assert lowest <= 784 * len(batch.image_features[0]) <= highest


@pytest.mark.parametrize(
    ("budget", "lowest", "highest"),
    [
        ({}, 3136, 12_845_056),
        ({"max_pixels": 7840}, 3136, 7840),
        ({"max_pixels": 784}, 784, 784),
        ({"min_pixels": 784}, 784, 12_845_056),
    ],
)
def test_a_saved_checkpoint_has_the_budget_that_was_named_or_its_own(
    tiny_checkpoint, tmp_path, budget, lowest, highest
):
    """The cap of this library is no property of the checkpoint."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    values["size"] = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    values = {key: value for key, value in values.items() if key not in ("min_pixels", "max_pixels")}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    policy = load_policy(folder, lora_rank=0, device="cpu", **budget)
    used = policy.processor.image_processor.size
    saved = Qwen2VLImageProcessorPil.from_pretrained(policy.save(tmp_path / "saved"))
    assert dict(saved.size) == {"shortest_edge": lowest, "longest_edge": highest}
    assert policy.processor.image_processor.size is used, "saving changes nothing"
    assert load_policy(tmp_path / "saved", lora_rank=0, device="cpu").processor.image_processor.size == used


def truncated_jpeg():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return Image.open(io.BytesIO(buffer.getvalue()[:900]))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("RGB", (5000, 20)), "200 times"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "not finite"),
        (truncated_jpeg(), "truncated"),
        (None, "size"),
    ],
    ids=["thin", "empty", "nan", "truncated", "none"],
)
def test_an_unusable_image_is_named(tiny_policy, tiny_examples, image, reason):
    examples = [*tiny_examples, Example(image, "reading", "photos/broken.jpg")]
    with pytest.raises(ValueError, match=rf"photos/broken\.jpg: .*{reason}"):
        encode_prompts(tiny_policy, examples, LABELS)


def test_each_image_goes_through_the_tower_once(tiny_policy, tiny_examples, monkeypatch):
    monkeypatch.setattr(processing, "TOWER_CHUNK", 3)
    patches = []
    tower = tiny_policy.base.model.visual.requires_grad_(True)  # even then: features carry no gradient
    handle = tower.patch_embed.register_forward_hook(lambda _, inputs, __: patches.append(len(inputs[0])))
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)
    from favor_lab.vlm.prefix import expand, run_prompt

    for _ in range(2):
        expand(run_prompt(tiny_policy, batch[[1, 3]]), torch.tensor([0, 1]))
    handle.remove()
    assert patches == [4 * (4 + 8 + 6), 4 * 16], "three images, then one; never again"
    assert not any(feature.requires_grad for feature in batch.image_features)


def test_chunks_of_mixed_sizes_equal_single_images(tiny_policy, tiny_examples, monkeypatch):
    monkeypatch.setattr(processing, "TOWER_CHUNK", 3)
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)
    for b, example in enumerate(tiny_examples):
        inputs = tiny_policy.processor.image_processor(images=[example.image], return_tensors="pt")
        alone = tiny_policy.base.model.visual(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
        assert (batch.image_features[b] - alone).abs().max() < 1e-5
        assert torch.equal(batch.image_grid_thw[b], inputs["image_grid_thw"][0])


def test_features_beyond_the_cap_are_kept_on_the_cpu(tiny_policy, tiny_examples, monkeypatch):
    """4, 8, 6 and 16 image tokens of 64 float32 values each are 1024, 2048, 1536 and 4096 bytes."""
    monkeypatch.setattr(processing, "TOWER_CHUNK", 3)
    everything = encode_prompts(tiny_policy, tiny_examples, LABELS)
    copies, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(len(self)) or cpu(self))
    for cap, expected in ((8704, []), (8703, [16]), (3072, [6, 16]), (3071, [8, 6, 16]), (0, [4, 8, 6, 16])):
        copies.clear()
        batch = encode_prompts(tiny_policy, tiny_examples, LABELS, feature_cap=cap)
        assert copies == expected, cap
        assert all(torch.equal(a, b) for a, b in zip(batch.image_features, everything.image_features, strict=True))
    feature = encode_prompts(tiny_policy, tiny_examples, LABELS, feature_cap=3072).image_features[1]
    assert feature.untyped_storage().nbytes() == feature.nbytes, "what stays does not hold the memory of what has moved"


def test_features_come_together_in_the_order_of_the_prompts(tiny_policy, tiny_examples):
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)[[2, 0, 2]]
    features = batch.features_on(torch.device("cpu"), torch.float64)
    assert features.shape == (6 + 4 + 6, 64) and features.dtype == torch.float64
    assert torch.equal(features, torch.cat(batch.image_features).double())
    batch.image_features[1] = batch.image_features[1].to("meta")
    assert batch.features_on(torch.device("meta"), torch.float32).shape == (16, 64), "from two devices onto one"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_features_are_moved_when_a_batch_needs_them(tiny_checkpoint, tiny_examples):

    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", dtype="float32")
    whole, split = (encode_prompts(policy, tiny_examples, LABELS, feature_cap=cap) for cap in (2**30, 3072))
    assert [feature.device.type for feature in split.image_features] == ["cuda", "cuda", "cpu", "cpu"]
    with torch.no_grad():
        hidden = [run_prompt(policy, prompts).last_hidden for prompts in (whole, split)]
    assert torch.equal(*hidden)


def test_prompts_are_what_the_processor_makes_of_the_chat(tiny_policy, tiny_examples):
    """Token for token, one prompt at a time, through the path that TRL and transformers take."""
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)
    for b, example in enumerate(tiny_examples):
        content = [{"type": "image", "image": example.image}, {"type": "text", "text": batch.texts[b]}]
        inputs = tiny_policy.processor.apply_chat_template(
            [[{"role": "user", "content": content}]], tokenize=True, return_dict=True, return_tensors="pt",
            add_generation_prompt=True,
        )  # fmt: skip
        assert torch.equal(batch[b].input_ids, inputs["input_ids"])
        positions, offset = tiny_policy.base.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"]
        )
        assert torch.equal(batch[b].position_ids, positions)
        assert batch[b].next_position.item() == inputs["input_ids"].shape[1] + offset.item()
        assert inputs["mm_token_type_ids"].sum() == len(batch.image_features[b])


def test_padding_is_on_the_left(tiny_policy, tiny_examples):
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)
    lengths = batch.attention_mask.sum(-1)
    assert len(set(lengths.tolist())) > 1
    for b, length in enumerate(lengths.tolist()):
        assert (batch.input_ids[b, : len(batch.input_ids[b]) - length] == tiny_policy.pad_token_id).all()
        assert batch.attention_mask[b, len(batch.input_ids[b]) - length :].all()


def test_sub_batches(tiny_policy, tiny_examples):
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)
    assert batch[-1].sources == ["tiny/3"] and batch[1:3].sources == ["tiny/1", "tiny/2"]
    assert batch[[2, 0, 2]].sources == ["tiny/2", "tiny/0", "tiny/2"]
    assert torch.equal(batch[[2, 0]].image_grid_thw, batch.image_grid_thw[[2, 0]])
    assert batch[torch.tensor([1])].sources == ["tiny/1"]
    short = batch[[0]]
    assert short.attention_mask.all() and short.input_ids.shape == short.position_ids.shape[1:]
    with pytest.raises(IndexError, match="at least one"):
        batch[[]]
    with pytest.raises(IndexError, match="at least one"):
        batch[0:0]
    with pytest.raises(IndexError):
        batch[4]


def test_a_prompt_longer_than_the_window_names_its_source(tiny_policy, tiny_examples):
    with pytest.raises(ValueError, match="tiny/3 has .* window of 512"):
        encode_prompts(tiny_policy, tiny_examples, LABELS, completion_tokens=420)
    with pytest.raises(ValueError, match="window of 512"):
        encode_prompts(tiny_policy, tiny_examples, [f"activity {i}" for i in range(200)])


def test_text_that_looks_like_an_image_is_refused(tiny_policy, tiny_examples):
    with pytest.raises(ValueError, match="tiny/0 contains an image token"):
        encode_texts(tiny_policy, tiny_examples[:1], ["What is <|image_pad|>?"])
    with pytest.raises(ValueError, match="no examples"):
        encode_prompts(tiny_policy, [], LABELS)


@pytest.mark.slow
def test_neither_torchvision_nor_the_heavy_packages_are_needed(tiny_checkpoint):
    """In a fresh interpreter where torchvision cannot be imported."""
    code = f"""
import sys
sys.modules["torchvision"] = None
from PIL import Image
from favor_lab.activities.fewshot import Example
from favor_lab.vlm import loading, prefix, processing
loaded = loading.load_policy({str(tiny_checkpoint)!r}, device="cpu")
batch = processing.encode_prompts(loaded, [Example(Image.new("RGB", (60, 60)), "reading", "x")], ["reading"])
prefix.run_prompt(loaded, batch)
heavy = ("trl", "datasets", "IPython", "jupyter_client", "ipywidgets", "matplotlib", "bitsandbytes")
print([name for name in heavy if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("feature_cap", [0, 4 * 64 * 12, 2**30])
def test_a_batch_goes_through_a_checkpoint(tiny_policy, tiny_examples, feature_cap):
    """Tensors, lists, strings and numbers alone; the same tokens and scores from what comes back."""
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS, feature_cap=feature_cap)[[2, 0, 3]]
    state = batch.to_state()

    def plain(value):
        return all(map(plain, value)) if isinstance(value, list) else isinstance(value, torch.Tensor | str | bool)

    assert all(isinstance(name, str) and plain(value) for name, value in state.items())
    assert [image.dtype for image in state["images"]] == [torch.uint8] * 3
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    again = PromptBatch.from_state(torch.load(buffer, weights_only=True), tiny_policy.device)
    for field in dataclasses.fields(PromptBatch):
        one, other = getattr(batch, field.name), getattr(again, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other) and one.dtype == other.dtype, field.name
        elif field.name == "image_features":
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        elif field.name == "images":
            assert all(a.mode == b.mode and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
        else:
            assert one == other, field.name
    with torch.no_grad():
        hidden = [run_prompt(tiny_policy, one).last_hidden for one in (batch, again)]
    assert torch.equal(*hidden)


def test_features_beyond_the_cap_come_back_on_the_cpu(tiny_policy, tiny_examples):
    batch = encode_prompts(tiny_policy, tiny_examples, LABELS)
    state = batch.to_state()
    assert state["on_device"] == [True] * 4
    state["on_device"][2] = False  # as of a batch whose ids are on a GPU and whose third image is not
    again = PromptBatch.from_state(state, "meta")
    assert [feature.device.type for feature in again.image_features] == ["meta", "meta", "cpu", "meta"]
    assert again.input_ids.is_meta and again.next_position.is_meta


def test_a_question_without_its_image_is_the_text_alone(tiny_policy, tiny_examples):
    """The completions and log-probabilities of transformers for a chat without an image, of different lengths."""
    texts = ["Seen: standing. Is this person reading?", "Which activity is this?"] * 2
    prompts = encode_texts(tiny_policy, tiny_examples[:4], ["look"] * 4)
    blind = ask_without_image(tiny_policy, prompts, texts)
    assert blind.sources == prompts.sources and not any(map(len, blind.image_features))
    assert all(map(len, prompts.image_features))
    for decoding in ("plain", "static"):
        rollout = sample_groups(tiny_policy, blind, 2, 6, seed=3, decoding=decoding)
        for how in ("plain", "packed"):
            logps = score_completions(tiny_policy, blind, rollout, how=how)
            torch.testing.assert_close(logps, rollout.logps, atol=1e-5, rtol=0)
    tokenizer = tiny_policy.processor.tokenizer
    for row, text in enumerate(texts):
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        start = tokenizer(chat, return_tensors="pt").input_ids
        ids = torch.cat([start, rollout.completion_ids[2 * row][rollout.mask[2 * row]][None]], dim=1)
        with torch.no_grad():
            logits = tiny_policy.base(input_ids=ids).logits[0, start.shape[1] - 1 : -1]
        logits[:, tiny_policy.forbidden_token_ids] = -torch.inf
        plain = logits.log_softmax(-1).gather(1, ids[0, start.shape[1] :, None])[:, 0]
        torch.testing.assert_close(plain, logps[2 * row][rollout.mask[2 * row]], atol=1e-5, rtol=0)
