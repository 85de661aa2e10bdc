"""The silent traps of transformers, Qwen2-VL and image files: each with its protection, removed once to show that it
is needed.

    python tests/promises/traps.py

A trap gives wrong numbers without an error. Here each one is prevented by a guard (a clear error) or by a design in
which it cannot happen. Its check runs twice: with the library as it is, where it must pass, and with the guard or the
design removed from the library's source, where it must find a fault. The fault that it found is the last column. A
small random policy on the CPU is enough. Where a trap has several openings, each is opened by itself, and the check
must notice every one.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import socket
import struct
import sys
import tempfile
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image, ImageFile
from torch import Tensor

from favor_lab.activities import ActivityData, Record, few_shot, fewshot, formats, images
from favor_lab.activities.images import prepare_image
from favor_lab.grpo import losses, sampling
from favor_lab.grpo.sampling import Rollout, encode_completions, sample_groups, score_completions
from favor_lab.study import leakage
from favor_lab.study.run_folder import RunFolder
from favor_lab.vlm import adapters, loading, prefix, processing, processor
from favor_lab.vlm.fast.decoding import StaticDecoder, start_decoding
from favor_lab.vlm.fast.packed import PackedAttention, flat_row
from favor_lab.vlm.policy import Policy
from favor_lab.vlm.prefix import completion_hidden, expand, run_prompt, token_logps
from favor_lab.vlm.processing import (
    PromptBatch,
    ask_about,
    encode_and_resize,
    encode_images,
    encode_prompts,
    encode_texts,
)
from favor_lab.vlm.prompts import build_prompt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # helpers of the tests, for a run as a script

from tiny import LABELS, make_checkpoint, make_examples, make_policy, plain_row

GROUP, LENGTH = 2, 6
SPLITS = ("train", "test")

# ------------------------------------------------------------------------------------- taking something out of a source


class Edit(NamedTuple):
    """A function, method or property of the library, a text that occurs once in its source, and the replacement."""

    where: Any
    old: str
    new: str

    @property
    def function(self) -> Any:
        return inspect.unwrap(getattr(self.where, "func", None) or getattr(self.where, "fget", None) or self.where)

    @property
    def code(self) -> CodeType:
        source = textwrap.dedent(inspect.getsource(self.function))
        if source.count(self.old) != 1:
            raise LookupError(f"{self.function.__qualname__} has {self.old!r} {source.count(self.old)} times, not once")
        module = compile(source.replace(self.old, self.new), "<trap>", "exec")
        codes = (code for code in module.co_consts if isinstance(code, CodeType))
        return next(code for code in codes if code.co_name == self.function.__name__)


@contextmanager
def opened(edits: Sequence[Edit]) -> Iterator[None]:
    """Inside the block the library's functions run with these edits, wherever they were imported."""
    codes = [(edit.function, edit.function.__code__, edit.code) for edit in edits]
    try:
        for function, _, code in codes:
            function.__code__ = code
        yield
    finally:
        for function, code, _ in codes:
            function.__code__ = code


# ------------------------------------------------------------------------------------------------------------ the bench


class Bench:
    """A fresh policy, prompts of four images (of one size, or of four), completions, and what is true of them."""

    def __init__(self, checkpoint: Path, one_size: bool = False):
        self.checkpoint, self.policy, self.examples = checkpoint, make_policy(checkpoint), make_examples()
        if one_size:
            images = [example.image.resize((56, 56)) for example in self.examples]
            self.examples = [
                dataclasses.replace(example, image=image) for example, image in zip(self.examples, images, strict=True)
            ]
        chance = torch.Generator().manual_seed(3)
        ids = torch.randint(0, 300, (len(self.examples) * GROUP, LENGTH), generator=chance)
        mask = torch.arange(LENGTH) < torch.tensor([6, 1, 3, 6, 2, 5, 6, 4])[:, None]
        texts = [""] * len(ids)
        self.rollout = Rollout(
            ids.masked_fill(~mask, self.policy.pad_token_id), mask, torch.zeros(mask.shape), texts, GROUP
        )

    @cached_property
    def prompts(self) -> PromptBatch:
        return encode_prompts(self.policy, self.examples, LABELS)

    @cached_property
    def truth(self) -> Tensor:
        """Log-probabilities (N, L) by transformers alone: pixels to logits, one row at a time, no cache, no padding."""
        text, truth = build_prompt(LABELS), torch.zeros(self.rollout.mask.shape)
        with torch.no_grad():
            for row, mask in enumerate(self.rollout.mask):
                example = self.examples[int(self.rollout.groups[row])]
                truth[row, mask] = plain_row(self.policy, example, text, self.rollout.completion_ids[row][mask])
        return truth

    def cached(self, prompts: PromptBatch | None = None) -> Tensor:
        """The same by the cache of `prefix`."""
        rows = self.rollout
        with torch.no_grad():
            prefix = expand(run_prompt(self.policy, prompts or self.prompts), rows.groups)
            hidden = completion_hidden(self.policy, prefix, rows.completion_ids, rows.mask)
            return token_logps(self.policy, hidden, rows.completion_ids)[0].masked_fill(~rows.mask, 0.0)

    def packed(self, prompts: PromptBatch | None = None) -> Tensor:
        """The same by the packed pass."""
        with torch.no_grad():
            return score_completions(self.policy, prompts or self.prompts, self.rollout)

    def sample(self, **options: Any) -> Rollout:
        return sample_groups(self.policy, self.prompts, GROUP, LENGTH, seed=0, **options)

    def make_likely(self, ids: Sequence[int]) -> None:
        head = self.policy.base.lm_head
        bias = torch.zeros(head.out_features)
        bias[list(ids)] = 100.0
        head.bias = torch.nn.Parameter(bias, requires_grad=False)


def same(actual: Tensor, truth: Tensor, what: str = "log-probabilities") -> None:
    off = (actual - truth).double().abs().max().item()
    assert off < 1e-4, f"{what} wrong by {off:.2g}"


def refused_or_same(
    message: str, compute: Callable[[], Tensor], truth: Tensor, what: str = "log-probabilities"
) -> None:
    """Either a clear error, or the right numbers."""
    try:
        numbers = compute()
    except NameError:
        raise  # a mistake in the edit
    except Exception as error:
        assert message in str(error), f"{type(error).__name__} that does not help: {str(error).splitlines()[0]}"
    else:
        same(numbers, truth, what)


@contextmanager
def no_network() -> Iterator[list[Any]]:
    """The addresses that the block tried to reach."""
    addresses: list[Any] = []

    def refuse(*place: Any, **_: Any) -> None:
        addresses.append(place[0])
        raise OSError("no network here")

    with mock.patch.object(socket, "getaddrinfo", refuse), mock.patch.object(socket.socket, "connect", refuse):
        yield addresses


# ----------------------------------------------------------------------------------------------------------- the checks


def both_ways(checkpoint: Path) -> None:
    """Cache, packed pass and both ways of decoding against the truth, after a call that left its state on the model."""
    bench = Bench(checkpoint)
    truth = bench.truth
    same(bench.cached(), truth, "log-probabilities by the cache")
    same(bench.packed(), truth, "log-probabilities, packed,")
    for how in ("plain", "static"):
        rollout = bench.sample(decoding=how)
        bench.rollout = rollout
        del bench.truth
        same(rollout.logps, bench.truth, f"log-probabilities of {how} decoding")


def one_feature_an_image(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    images = [prepare_image(example) for example in bench.examples]
    together, _ = encode_images(bench.policy, images)
    for image, features in zip(images, together, strict=True):
        alone = encode_images(bench.policy, [image])[0][0]
        assert len(alone) == len(features), f"{len(features)} features for an image of {len(alone)}"
        same(features, alone, "features")


def images_stay_with_their_prompts(checkpoint: Path) -> None:
    """Images of one size, so that only the numbers could show a mix-up; some of the prompts, and in another order."""
    bench = Bench(checkpoint, one_size=True)
    same(bench.packed(), bench.truth)
    same(bench.cached(), bench.truth)
    some = [3, 1]
    groups = torch.arange(2).repeat_interleave(GROUP)
    rows = torch.isin(bench.rollout.groups, torch.tensor(some)).nonzero().flatten().view(2, GROUP).flip(0).flatten()
    bench.truth, bench.rollout = bench.truth[rows], bench.rollout.rows(rows)
    same(bench.packed(), bench.truth)
    bench.rollout.groups = groups
    same(bench.packed(bench.prompts[some]), bench.truth, "log-probabilities of prompts 3 and 1")


def sampling_leaves_the_prompts_alone(checkpoint: Path) -> None:
    bench = Bench(checkpoint, one_size=True)
    before = [features.clone() for features in bench.prompts.image_features]
    first = bench.sample().completion_ids
    for b, (now, was) in enumerate(zip(bench.prompts.image_features, before, strict=True)):
        assert torch.equal(now, was), f"prompt {b} has another image after sampling"
    assert torch.equal(bench.sample().completion_ids, first)


def features_that_do_not_fit(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    swapped = dataclasses.replace(bench.prompts, image_features=bench.prompts.image_features[::-1])
    for score in (bench.cached, bench.packed):
        refused_or_same("image features stand at its place", lambda score=score: score(swapped), bench.truth)
    more = dataclasses.replace(
        bench.prompts, image_features=bench.prompts.image_features[:1] * 2 + bench.prompts.image_features[1:]
    )
    refused_or_same("image features stand at its place", lambda: bench.packed(more), bench.truth)


def prompts_padded_on_the_right(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    shifts = bench.prompts.attention_mask.sum(dim=1).tolist()

    def roll(values: Tensor) -> Tensor:
        return torch.stack([row.roll(shift, -1) for row, shift in zip(values.unbind(-2), shifts, strict=True)], dim=-2)

    names = ("input_ids", "attention_mask", "position_ids")
    shifted = dataclasses.replace(bench.prompts, **{name: roll(getattr(bench.prompts, name)) for name in names})
    assert bool(shifted.attention_mask[:, 0].all()) and not bool(shifted.attention_mask[:, -1].all())
    refused_or_same("pad on the left", lambda: bench.cached(shifted), bench.truth)


def a_tokenizer_that_pads_on_the_right(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    bench.policy.tokenizer.padding_side = "right"
    padded = int((bench.prompts.attention_mask[:, -1] == 0).sum())
    assert not padded, f"{padded} of {len(bench.prompts)} prompts padded on the right"
    same(bench.cached(), bench.truth)


def checkpoint_in_train_mode(bench: Bench) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the name of the method
        bench.policy.base.gradient_checkpointing_enable()
    bench.policy.model.train()


def cache_under_checkpointing(checkpoint: Path) -> None:
    bench = Bench(checkpoint, one_size=True)
    ids, prompts, truth = bench.rollout.completion_ids[::GROUP], bench.prompts, bench.truth  # one row per prompt

    def scored() -> Tensor:  # with gradients, as the loss needs them: without, transformers 5.24 keeps the cache
        start = run_prompt(bench.policy, prompts)
        hidden = completion_hidden(bench.policy, start, ids, torch.ones_like(ids, dtype=torch.bool))
        return token_logps(bench.policy, hidden, ids)[0].detach()

    expected = scored()
    checkpoint_in_train_mode(bench)
    same(bench.packed(prompts), truth)
    refused_or_same("gradient_checkpointing_disable", scored, expected)


def sampling_under_checkpointing(checkpoint: Path) -> None:
    bench = Bench(checkpoint, one_size=True)
    expected, groups, tokens = bench.sample(), torch.arange(4), torch.arange(4)
    with torch.no_grad():
        states = start_decoding(bench.policy, bench.prompts, groups, LENGTH, "plain").step(tokens)
        decoder = start_decoding(bench.policy, bench.prompts, groups, LENGTH, "plain")
        checkpoint_in_train_mode(bench)
        refused_or_same("no error is due", lambda: bench.sample().completion_ids, expected.completion_ids, "tokens")
    # one step of the plain decoder with gradients enabled: without, transformers 5.24 keeps the cache
    refused_or_same("gradient_checkpointing_disable", lambda: decoder.step(tokens).detach(), states, "hidden states")


def near_greedy_configuration(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    assert bench.policy.base.generation_config.top_k == 1
    rollout = sample_groups(bench.policy, bench.prompts[0], 8, 12, seed=0)
    distinct = len({tuple(row.tolist()) for row in rollout.completion_ids})
    assert distinct == 8, f"{distinct} distinct of 8 completions"
    config = bench.policy.base.generation_config
    config.top_k, config.top_p, config.temperature, config.repetition_penalty = 50, 0.9, 0.3, 5.0
    again = sample_groups(bench.policy, bench.prompts[0], 8, 12, seed=0)
    assert torch.equal(again.completion_ids, rollout.completion_ids), "other tokens under another generation_config"


def every_end_token(checkpoint: Path) -> None:
    ends = transformers.GenerationConfig.from_pretrained(checkpoint, local_files_only=True).eos_token_id
    assert len(ends) == 2
    for end in ends:
        bench = Bench(checkpoint)
        bench.make_likely([end])
        rollout = bench.sample()
        assert bool((rollout.completion_ids[:, 0] == end).all()), f"end token {end} is never sampled"
        length = int(rollout.lengths.max())
        assert length == 1 and not rollout.truncated.any(), f"rows run on for {length} tokens"


def forbidden_tokens_are_not_sampled(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    config = bench.policy.base.config
    ids = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
    bench.make_likely(ids)
    for how in ("plain", "static"):
        rollout = bench.sample(decoding=how)
        count = int(torch.isin(rollout.completion_ids[rollout.mask], torch.tensor(ids)).sum())
        assert not count, f"{count} of {int(rollout.mask.sum())} sampled tokens are image or vision tokens"


def forbidden_tokens_are_not_injected(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    try:
        rows = encode_completions(bench.policy, ["a <|image_pad|> b"], [0])
    except ValueError as error:
        assert "image, vision or padding tokens" in str(error)
        return
    logps = score_completions(bench.policy, bench.prompts, rows)
    assert logps.isfinite().all(), f"a token of log-probability {logps.min().item()}"


def a_text_that_spells_an_image(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    texts = ["What is it?", "What is <|image_pad|>?", "What is it?", "What is it?"]

    def ids() -> Tensor:
        return encode_texts(bench.policy, bench.examples, texts).input_ids

    refused_or_same("tiny/1 contains an image token", ids, torch.zeros(()))


def few_logits_at_a_time(checkpoint: Path) -> None:
    bench = Bench(checkpoint)
    head, sizes = bench.policy.base.lm_head, []
    head.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].numel() // inputs[0].shape[-1]))
    prompts, total = bench.prompts, int(bench.rollout.mask.sum())
    with mock.patch.object(prefix, "CHUNK_LOGITS", 5 * head.out_features):
        logps = score_completions(bench.policy, prompts, bench.rollout)
        most = max(sizes)
        assert most <= 5, f"logits of {most} positions at once where 5 were allowed"
        assert sum(sizes) == total, f"logits of {sum(sizes)} positions for {total} completion tokens"
        logps.sum().backward()
    again = sum(sizes) - total
    assert again == total, f"logits of {total - again} positions are kept for the backward pass"


def no_torchvision(checkpoint: Path) -> None:
    with mock.patch.dict(sys.modules, {"torchvision": None}):
        try:
            processor_made = processor.load_processor(str(checkpoint), local_files_only=True)
        except (ImportError, AttributeError, RuntimeError) as error:
            raise AssertionError(f"{type(error).__name__}: {str(error).strip().split(' but ')[0]}") from error
    assert not hasattr(processor_made, "video_processor"), "a video part, which needs torchvision"
    assert type(processor_made.image_processor).__name__ == "Qwen2VLImageProcessorPil"


def loading_asks_nobody(checkpoint: Path) -> None:
    """Which files are looked up on the Hub differs between versions: only the permission is checked."""
    adapter = tempfile.mkdtemp(dir=checkpoint.parent)
    make_policy(checkpoint).save(adapter)
    readers = (
        transformers.Qwen2VLForConditionalGeneration,
        transformers.Qwen2Tokenizer,
        transformers.Qwen2VLImageProcessorPil,
        PeftModel,
    )
    may_ask = []

    def watch(reader: Any) -> Any:
        real = reader.from_pretrained

        def read(*args: Any, **options: Any) -> Any:
            may_ask.extend([reader.__name__] * (options.get("local_files_only") is not True))
            return real(*args, **options)

        return mock.patch.object(reader, "from_pretrained", read)

    with no_network() as addresses, watch(readers[0]), watch(readers[1]), watch(readers[2]), watch(readers[3]):
        loading.load_policy(checkpoint, adapter=adapter, device="cpu")
    assert not may_ask, f"{', '.join(may_ask)} may ask the Hub"
    assert not addresses, f"{addresses[0]} was asked"


def saving_asks_nobody(checkpoint: Path) -> None:
    model = Policy(make_policy(checkpoint).model, None, "a name")  # type: ignore[arg-type]
    model.model.peft_config["default"].base_model_name_or_path = "pocket"
    with no_network() as addresses, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tempfile.mkdtemp(dir=checkpoint.parent))
    assert not addresses, f"{addresses[0]} was asked"


def far_apart() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities now, when sampled and of the reference, of which one is 200 nats from the two others."""
    near, far = torch.tensor([[-0.5, -0.5]]), torch.tensor([[-0.5, -200.0]])
    yield from ((near, far, near), (far, far, near))


def ratios_that_overflow(checkpoint: Path) -> None:
    for logps, old, reference in far_apart():
        now = logps.clone().requires_grad_()
        loss, _ = losses.grpo_loss(now, old, reference, -torch.ones(1), torch.ones(1, 2, dtype=torch.bool))
        assert loss.isfinite(), f"the loss is {loss.item()}"
        assert torch.autograd.grad(loss, now)[0].isfinite().all(), "a gradient that is not finite"


def cuts_are_counted(checkpoint: Path) -> None:
    for logps in far_apart():
        count = losses.grpo_loss(*logps, torch.ones(1), torch.ones(1, 2, dtype=torch.bool))[1]["bounded"]
        assert count == 1, f"{count:.0f} counted where 1 was cut"


def an_adapter_on_tied_embeddings(checkpoint: Path) -> None:
    """Merged, as it would be to share it, it would change what the model reads too, not only what it writes."""
    bench = Bench(checkpoint)
    assert bench.policy.base.lm_head.weight is bench.policy.base.get_input_embeddings().weight
    bare = loading.load_policy(checkpoint, lora_rank=0, device="cpu")
    targets = adapters.LORA_TARGETS + "|lm_head"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = dict(r=4, target_modules=targets, init_lora_weights=False)
        torch.manual_seed(0)
        model = get_peft_model(bare.base.requires_grad_(False), LoraConfig(**options)).eval()
        try:
            adapters.check_trainable(model)
        except ValueError as error:
            assert "nowhere else" in str(error)
            return
        bench.policy = Policy(model, bare.processor, "with an adapter on lm_head")
        before = bench.packed()
        bench.policy = Policy(model.merge_and_unload(), bare.processor, "merged")
    same(bench.packed(), before, "log-probabilities of the merged adapter")


# ------------------------------------------------------------------------------------------------------------ the table


class Trap(NamedTuple):
    """met_by: guard or design; fact: what happens without; openings: edits, each of which takes it away."""

    name: str
    met_by: str
    check: Callable[[Path], None]
    fact: str
    openings: Sequence[Sequence[Edit]]


CONFIG, DELTAS = "policy.base.generation_config", "policy.base.model.rope_deltas"
TEXT = "(prompts.attention_mask.cumsum(1) - 1).clamp(min=0)"  # positions of a text
# ------------------------------------------------------------------------------------------------------------- images


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def test_images_among_the_training_images(checkpoint: Path) -> None:
    """The first test image is once more among the training images, with an alpha channel that hides nothing."""
    pictures = {f"{split} {number}": noise(10 * ("test" in split) + number) for split in SPLITS for number in range(3)}
    pictures["train 1"] = pictures["test 0"].convert("RGBA")
    records = {split: [Record("reading", f"{split} {number}") for number in range(3)] for split in SPLITS}
    data = ActivityData("a set", ["reading"], records, pictures.__getitem__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        draws = [few_shot(data, 2, seed, validation=0, test=3) for seed in range(4)]
    trained = {prepare_image(example).tobytes() for shots in draws for example in shots.train}
    shared = trained & {prepare_image(example).tobytes() for example in draws[0].test}
    assert not shared, f"{len(shared)} of 3 test images are trained on"


def images_of_a_shared_adapter(checkpoint: Path) -> None:
    examples = make_examples()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run")
        leakage.save_training_images(run, examples[:2])
        leakage.share_training_images(run, Path(folder))
        left = leakage.without_training_images(examples, leakage.training_images(folder) or set())
    assert len(left) == len(examples) - 2, f"{len(left)} of {len(examples)} images are tested, 2 of them trained on"


def truncated_images_where_other_code_lets_them_pass(checkpoint: Path) -> None:
    with mock.patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", True):
        for form in ("JPEG", "PNG"):
            content = io.BytesIO()
            noise(0).save(content, form)
            must_refuse(content.getvalue()[: len(content.getvalue()) // 2], f"half of a {form}")


def images_that_end_early(checkpoint: Path) -> None:
    content = io.BytesIO()
    noise(0).save(content, "JPEG")
    must_refuse(content.getvalue()[: len(content.getvalue()) * 2 // 3] + b"\xff\xd9", "two thirds of a JPEG")
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(41 * 20)))]
    pieces = [(len(body), name + body) for name, body in (*parts, (b"IEND", b""))]
    png = [struct.pack(">I", length) + text + struct.pack(">I", zlib.crc32(text)) for length, text in pieces]
    must_refuse(b"\x89PNG\r\n\x1a\n" + b"".join(png), "half of a PNG")


def must_refuse(content: bytes, what: str) -> None:
    try:
        images.decode_image(content, what)
    except ValueError:
        return
    raise AssertionError(f"{what} is read")


CHUNKED = "chunk_features = torch.cat(chunk_features).chunk(len(grid))"
DROPPED = Edit(prefix._language_model, "if any(layer.training for layer in layers):", "if False:")

TRAPS = [
    Trap(
        "features come one by one", "design: encode_and_resize", one_feature_an_image,
        "The tower's pooler_output is a tuple with one tensor per image, of as many rows as the image has tokens.",
        [[Edit(encode_and_resize, "pooler_output", f"pooler_output; {CHUNKED}")]],
    ),
    Trap(
        "positions of an image", "design: positions are passed, always", both_ways,
        "Without the image's grid the forward pass gives its tokens the positions of text.",
        [
            [Edit(run_prompt, "position_ids=prompts.position_ids", "position_ids=None")],
            [Edit(flat_row, "prompts.position_ids.flatten(1)[:, real]", f"{TEXT}.flatten()[real].expand(3, -1)")],
            [Edit(StaticDecoder.prefill, "prompts.position_ids.flatten(1)", f"{TEXT}.flatten().expand(3, -1)")],
        ],
    ),
    Trap(
        "token types", "design: ask_about", both_ways,
        "get_rope_index sees an image only where mm_token_type_ids says that there is one.",
        [[Edit(ask_about, "mm_token_type_ids=is_image.int()", "mm_token_type_ids=torch.zeros_like(ids)")]],
    ),
    Trap(
        "where a completion begins", "design: PromptBatch.next_position", both_ways,
        "An image spans fewer positions than it has tokens: a completion does not begin at the number of tokens.",
        [[Edit(ask_about, "starts = positions.amax((0, 2)) + 1", "starts = mask.sum(-1)")]],
    ),
    Trap(
        "state of the last call", "design: positions are passed, always", both_ways,
        "With a cache and no positions, the model takes the offset of the last call's images, which it remembers.",
        [
            [Edit(prefix._append, "prefix.next_position[:, None]", f"prefix.attention_mask.sum(1, True) + {DELTAS}")],
            [Edit(flat_row, "prompts.next_position[groups", f"{DELTAS} + prompts.attention_mask.sum(1)[groups")],
            [Edit(StaticDecoder.__init__, "prompts.next_position[:, None]", f"{TEXT}[:, -1:] + 1 + {DELTAS}")],
        ],
    ),
    Trap(
        "features rewritten", "design: a PromptBatch is only read", sampling_leaves_the_prompts_alone,
        "generate repeats the features that it is handed in place: used again, one prompt has another's image.",
        [[Edit(
            prefix.prompt_embeds, "features =",
            "prompts.image_features[:] = [x for x in prompts.image_features for _ in 'ab'][:len(prompts)]; features =",
        )]],
    ),
    Trap(
        "the image of another prompt", "design: PromptBatch, Rollout.groups", images_stay_with_their_prompts,
        "Features go to all image tokens in one row: nothing but their order ties an image to its prompt.",
        [
            [Edit(PromptBatch.features_on, "in self.image_features", "in self.image_features[::-1]")],
            [Edit(PromptBatch.__getitem__, "features[i] for i in rows", "features[i] for i in sorted(rows)")],
            [Edit(sampling.completion_states, "prompts[used.tolist()]", "prompts[:len(used)]")],
            [Edit(expand, "_fork(prefix.cache, rows)", "_fork(prefix.cache, rows.flip(0))")],
        ],
    ),
    Trap(
        "features that do not fit", "guard: PromptBatch.check", features_that_do_not_fit,
        "A batch whose features are swapped, or too many, still runs.",
        [[Edit(PromptBatch.check, "if tokens != features:", "if False:")]],
    ),
    Trap(
        "a text that spells an image", "guard: ask_about", a_text_that_spells_an_image,
        "An image token in the text is one place too many for the image's features.",
        [[Edit(ask_about, "if image_tokens != len(feature):", "if False:")]],
    ),
    Trap(
        "cache under checkpointing", "guard: _language_model", cache_under_checkpointing,
        "In train mode with gradient checkpointing the layers drop the cache, with a line in the log (from version "
        "5.24 of transformers on only where gradients are enabled).",
        [[DROPPED]],
    ),
    Trap(
        "decoding under checkpointing", "guard: _language_model; design: StaticDecoder", sampling_under_checkpointing,
        "In that mode decoding token by token forgets what it has read, and writes other tokens.",
        [
            [DROPPED],
            [DROPPED, Edit(start_decoding, 'how == "auto" else how', 'how == "auto" else how; how = "plain"')],
        ],
    ),
    Trap(
        "the first token", "design: packed_hidden, completion_hidden", both_ways,
        "A completion's first token is predicted by the prompt's last hidden state.",
        [
            [Edit(flat_row, "before[:, 0] = last", "before[:, 0] = last - 1")],
            [Edit(completion_hidden, "torch.cat([first, rest], dim=1)", "torch.cat([rest[:, :1], rest], dim=1)")],
            [Edit(run_prompt, "last_hidden_state[:, -1]", "last_hidden_state[:, -2]")],
            [Edit(StaticDecoder.prefill, "prompts.input_ids.shape)[:, -1]", "prompts.input_ids.shape)[:, -2]")],
        ],
    ),
    Trap(
        "completions side by side", "design: PackedAttention", both_ways,
        "In a packed row a token sees what comes later, and other rows' padding, unless a mask forbids it.",
        [
            [Edit(PackedAttention.__init__, ".tril()", "")],
            [Edit(PackedAttention.__init__, "past = prompts.mask[groups]", "past = True | prompts.mask[groups]")],
        ],
    ),
    Trap(
        "near-greedy settings", "design: sample_groups reads no configuration", near_greedy_configuration,
        "Sampling fields left open come from generation_config: top_k 1 and top_p 0.001 in Qwen2-VL's.",
        [
            [Edit(sample_groups, "temperature), top_k,", f"temperature), {CONFIG}.top_k,")],
            [Edit(sample_groups, "top_k, top_p)  # (A, V)", f"top_k, {CONFIG}.top_p)  # (A, V)")],
            [Edit(sample_groups, "hidden, temperature)", f"hidden, {CONFIG}.temperature)")],
            [Edit(sample_groups, "hidden, temperature)", f"hidden, temperature) / {CONFIG}.repetition_penalty")],
        ],
    ),
    Trap(
        "every end token", "design: Policy.end_token_ids", every_end_token,
        "A checkpoint has more end tokens than the one that its tokenizer names.",
        [[Edit(Policy.end_token_ids, "*(ids if isinstance(ids, list | tuple) else [ids]), ", "")]],
    ),
    Trap(
        "image tokens, sampled", "design: next_token_logps", forbidden_tokens_are_not_sampled,
        "A sampled image or vision token makes a later pass look for an image.",
        [[Edit(prefix.next_token_logps, ".masked_fill_(policy.forbidden, -torch.inf)", "")]],
    ),
    Trap(
        "image tokens, handed in", "guard: encode_completions", forbidden_tokens_are_not_injected,
        "The same tokens in a completion that someone else wrote.",
        [[Edit(encode_completions, "if set(row) & set(policy.forbidden_token_ids):", "if False:")]],
    ),
    Trap(
        "padding by the tokenizer", "design: tokenize", a_tokenizer_that_pads_on_the_right,
        "A tokenizer's own setting may pad prompts on the right, between a prompt and its completion.",
        [[Edit(processing.tokenize, ', padding_side="left"', "")]],
    ),
    Trap(
        "padding on the right", "guard: PromptBatch.check", prompts_padded_on_the_right,
        "A batch that is padded on the right runs, and its completions go on from the padding.",
        [[Edit(PromptBatch.check, "if not all(last_tokens):", "if False:")]],
    ),
    Trap(
        "logits of everything", "design: packed_hidden, token_logps", few_logits_at_a_time,
        "Logits of whole rows in float32 are the peak of memory, and the backward pass keeps them.",
        [
            [Edit(token_logps, "chunk or max(1, CHUNK_LOGITS // policy.forbidden.numel())", "ids.numel()")],
            [Edit(token_logps, "if torch.is_grad_enabled() and len(chunks) > 1:", "if False:")],
        ],
    ),
    Trap(
        "no torchvision", "design: ImageTextProcessor", no_torchvision,
        "Qwen2-VL's own processor has a video part, which cannot be built without torchvision.",
        [[Edit(
            processor.load_processor, "ImageTextProcessor(image_processor, tokenizer)",
            "__import__('transformers').AutoProcessor.from_pretrained(name)",
        )]],
    ),
    Trap(
        "the Hub, when loading", "design: local_files_only wherever one reads", loading_asks_nobody,
        "from_pretrained may look on the Hub for files that a local directory lacks, with retries.",
        [
            [Edit(loading._read_model, "local_files_only=True,", "")],
            [Edit(loading.load_policy, ", local_files_only=True", "")],
            [Edit(processor.read_tokenizer, "local_files_only=local_files_only", "local_files_only=False")],
        ],
    ),
    Trap(
        "the Hub, when saving", "design: Policy.save", saving_asks_nobody,
        "peft asks the Hub for the base model's configuration when it saves an adapter.",
        [[Edit(Policy.save, ", save_embedding_layers=False", "")]],
    ),
    Trap(
        "ratios that overflow", "guard: bounded", ratios_that_overflow,
        "k3 and the ratio are exponentials: a large log-ratio gives inf, and NaN after it.",
        [
            [Edit(losses.k3_kl, "bounded(ref_logps - logps)", "ref_logps - logps")],
            [Edit(losses.clipped_surrogate, "bounded(logps - old_logps)", "(logps - old_logps)")],
        ],
    ),
    Trap(
        "cuts that nobody sees", "guard: grpo_loss counts them", cuts_are_counted,
        "The bound on a log-ratio hides that two policies are far apart.",
        [
            [Edit(losses.grpo_loss, "((reference - logps).abs() > MAX_LOG_RATIO)", "False")],
            [Edit(losses.grpo_loss, "((now - old).abs() > MAX_LOG_RATIO)", "False")],
        ],
    ),
    Trap(
        "a test image that was trained on", "design: few_shot draws by content", test_images_among_the_training_images,
        "The same pixels in another file, with another name and an alpha channel, are the same image to a policy.",
        [
            [Edit(fewshot._Draw.take, "if content not in self.first:", "if True:")],
            [Edit(images.Example.content, "_digest(prepare_image(self))", "_digest(image)")],
        ],
    ),
    Trap(
        "an adapter that is tested on its own images", "guard: leakage.training_images", images_of_a_shared_adapter,
        "Whoever tests a shared adapter draws other test images than its run did, out of the same folder.",
        [
            [Edit(leakage.share_training_images, "sorted(known)", "[]")],
            [Edit(leakage.without_training_images, "if not known &", "if True or known &")],
        ],
    ),
    Trap(
        "truncated images", "design: only_complete_files", truncated_images_where_other_code_lets_them_pass,
        "One line in any library lets Pillow read half an image, and fill the rest with black or grey.",
        [[Edit(formats.only_complete_files, "ImageFile.LOAD_TRUNCATED_IMAGES, False", "False, True")]],
    ),
    Trap(
        "an image that ends early", "guard: check_png_rows, check_jpeg_rows", images_that_end_early,
        "A decoder fills what is missing of a PNG with black, of a JPEG with grey, and says nothing.",
        [
            [Edit(formats.check_png_rows, "if size < expected:", "if False:")],
            [Edit(formats.check_jpeg_rows, "if marker == END:", "if False:")],
        ],
    ),
    Trap(
        "tied embeddings", "guard: check_trainable", an_adapter_on_tied_embeddings,
        "The output layer is the input embedding: an adapter on it, once merged, changes what the model reads.",
        [[Edit(adapters.check_trainable, "if places != expected:", "if False:")]],
    ),
]  # fmt: skip


def findings(trap: Trap, checkpoint: Path) -> Iterator[str | None]:
    """What the check finds wrong (None: nothing) with the trap shut, and then with each of its openings."""
    for edits in ([], *trap.openings):
        with opened(edits):
            try:
                trap.check(checkpoint)
            except AssertionError as error:
                yield str(error)
            else:
                yield None


def main() -> int:
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    covered, row = 0, "{:<28} | {:<46} | {:<10} | {}".format
    print(row("trap", "met by", "with guard", "without guard"))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "tiny")
        for trap in TRAPS:
            shut, *faults = findings(trap, checkpoint)
            covered += shut is None and all(faults)
            print(row(trap.name, trap.met_by, shut or "passes", faults[0] or "PASSES"))
            for fault in faults[1:]:
                print(row("", "", "", fault or "PASSES"))
    print(f"{covered} of {len(TRAPS)} traps covered")
    return int(covered != len(TRAPS))


if __name__ == "__main__":
    sys.exit(main())
