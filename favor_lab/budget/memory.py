"""Memory of a training step: an estimate of each phase's peak, and advice for a run that is out of memory.
`step_memory` adds up the tensors by formula, without what a GPU needs besides them (`fits.py`);
data/results/benchmarks.md compares it with measured peaks. The advice is the estimate of the run less that with one
setting changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from favor_lab.budget.shapes import NF4_BYTES, ModelShape, StepShape, shape_of
from favor_lab.grpo.support.clock import readable_bytes
from favor_lab.grpo.support.questions import default_question
from favor_lab.vlm.fast.merged import MERGE_LIMIT
from favor_lab.vlm.prefix import CHUNK_LOGITS
from favor_lab.vlm.processing import FEATURE_CAP, TOWER_CHUNK, tokenize

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot
    from favor_lab.grpo.support.records import StepRecord
    from favor_lab.grpo.support.settings import GRPOSettings
    from favor_lab.vlm.policy import Policy

SAMPLING_COPIES, SCORING_COPIES = 6, 4  # float32 values in memory per logit at the peak; measured
# The phases that the training loop times, and the phases of the estimate that they consist of.
LOOP_PHASES = {"sample": ("prefill", "decode"), "loss": ("score", "backward"), "update": ("optimiser",)}
ADVICE_LENGTH = 3  # settings named in an error message
LEAST_SAVING = 0.01  # share of the phase's estimate that a change must save to be named


def merged_bytes(model: ModelShape) -> float:
    """Bytes of the copies that `vlm.fast.merged` makes of the layers of small float32 models, or 0."""
    size = 4.0 * model.layers * model.layer_parameters * (model.value_bytes == model.weight_bytes == 4)
    return size if size <= MERGE_LIMIT else 0.0


def activation_bytes(model: ModelShape, tokens: int, fed_tokens: int, repeated_kv: int) -> float:
    """Bytes of activations that one decoder layer keeps for its backward pass: of `tokens` tokens the inputs of both
    norms in float32, the norms' outputs, q, k, v, the output of attention, four widths of the MLP and the narrow
    outputs of the adapter (merged layers: no inputs of norms, three widths, nothing of the adapter); of the
    `fed_tokens` of completions among them the queries again, folded; and `repeated_kv` keys and values, those of a
    prompt once for each of its rows."""
    per_token = 2 * model.hidden + 3 * model.query_width + 2 * model.kv_width + 3 * model.mlp
    apart = 0.0
    if not (merged_bytes(model) and model.lora_rank):
        per_token, apart = per_token + model.mlp + 7 * model.lora_rank, 8.0 * tokens * model.hidden
    values = tokens * per_token + fed_tokens * model.query_width + 2.0 * repeated_kv * model.kv_width
    return model.value_bytes * values + apart


def forward_bytes(model: ModelShape, tokens: int) -> float:
    """Bytes at the widest place of a decoder layer that keeps nothing: its input, the residual stream before and after
    attention, q, k, v, and four widths of the MLP."""
    per_token = 3 * model.hidden + model.query_width + 2 * model.kv_width + 4 * model.mlp
    return float(model.value_bytes * tokens * per_token)


def fixed_bytes(model: ModelShape) -> dict[str, float]:
    """Bytes that do not depend on the batch: the language model, the tower, the adapter, and for training the gradient
    and the two float32 moments of the trained weights. An adapter is float32; a whole language model has its own type
    and, where that is narrower, a float32 copy that the optimiser moves."""
    is_narrow = not model.lora_rank and model.value_bytes < 4
    gradient_bytes, copy_bytes = (model.value_bytes, 4) if is_narrow else (4, 0)
    matrices = model.layers * model.layer_weights
    others = model.language_parameters - matrices
    return {
        "language": matrices * model.weight_bytes + others * model.value_bytes,
        "tower": float(model.tower_parameters * model.value_bytes),
        "adapter": 4.0 * model.lora_weights,
        "training": model.trained_weights * (gradient_bytes + 8.0 + copy_bytes),
    }


def pass_bytes(model: ModelShape, step: StepShape) -> dict[str, float]:
    """Bytes on top of weights and their copies while one micro-batch is scored, scored by the reference, and goes back:
    activations, logits, gradients, and the attention mask, which rows of one prompt share."""
    masks = step.rows_per_pass if step.rows_per_pass > step.group_size else 1
    row_mask = model.heads / model.kv_heads * step.fed_tokens * (step.prompt_tokens + step.fed_tokens)
    mask = model.value_bytes * masks * row_mask
    prompt_tokens = -(-step.rows_per_pass // step.group_size) * step.prompt_tokens  # of all prompts in the pass
    fed_tokens = step.rows_per_pass * step.fed_tokens
    tokens, repeated_kv = prompt_tokens + fed_tokens, step.rows_per_pass * (step.prompt_tokens + step.fed_tokens)
    logits = min(step.rows_per_pass * step.completion_tokens * model.vocabulary, CHUNK_LOGITS)
    logits_bytes = 4.0 * logits * SCORING_COPIES
    activations = activation_bytes(model, tokens, fed_tokens, repeated_kv)
    gradients = model.value_bytes * tokens * (model.hidden + 3 * model.mlp)  # of a layer's output, and in its MLP
    reference = max(forward_bytes(model, tokens), logits_bytes)
    if step.gradient_checkpointing:  # only the input of each layer is kept; then one layer at a time runs again
        inputs = model.layers * tokens * model.hidden * model.value_bytes
        score, backward = inputs + reference, inputs + max(activations + gradients, logits_bytes)
    else:
        held = model.layers * activations
        if model.value_bytes < 4:  # the adapter, cast from float32
            held += model.lora_weights * model.value_bytes
        score, backward = held + logits_bytes, held + max(gradients, logits_bytes)
    return {"score": mask + score, "reference": mask + reference, "backward": mask + backward}


def step_memory(model: ModelShape, step: StepShape) -> dict[str, float]:
    """Estimated bytes of tensors in use at the peak of each phase.

    In every phase: the language model, the tower (unless it is offloaded), the adapter, gradients and optimiser state,
    the kept image features. Besides, encode: the tower at work on one chunk of images; prefill and decode: the caches
    of prompts and completions, the logits of one token per row, and for small float32 models a copy of the layers with
    the adapter merged in; score and backward: what one micro-batch needs to go back, and one chunk of logits.

    >>> tiny = ModelShape(8, 2, 2, 1, 4, 16, 100, True, 8, 1, 16, 12, 2, lora_rank=4)
    >>> step = StepShape(prompts=2, group_size=3, prompt_tokens=10, image_tokens=4, completion_tokens=5)
    >>> saving = replace(step, micro_batch=1, gradient_checkpointing=True)
    >>> step_memory(tiny, saving)["backward"] < step_memory(tiny, step)["backward"]
    True
    """
    fixed = fixed_bytes(model)
    tower = fixed.pop("tower")
    features = min(FEATURE_CAP, step.images * step.image_tokens * model.hidden * model.value_bytes)
    always = sum(fixed.values()) + features + (0.0 if step.offload_tower else tower)
    # the tower on one chunk: the pixels in float32, a block at its widest, with three values of its activation function
    patches = min(TOWER_CHUNK, step.images or TOWER_CHUNK) * step.image_tokens * model.merge**2
    patch_bytes = 4.0 * model.patch_values + model.value_bytes * (4.0 * model.tower_width + 3 * model.tower_mlp)
    encoding = patches * patch_bytes + (tower if step.offload_tower else 0.0)
    copies = 2.0 * model.lora_weights  # the adapter, put together for a pass: its narrowing half in float32
    if model.weight_bytes < 1:
        copies += model.hidden * model.mlp * model.value_bytes  # one matrix, dequantised
    sampling = always + copies + merged_bytes(model)
    prompt_cache = model.kv_bytes(step.prompts * step.prompt_tokens)
    row_cache = model.kv_bytes(step.rows * step.fed_tokens)
    logits = 4.0 * step.rows * model.vocabulary * SAMPLING_COPIES
    passes = pass_bytes(model, step)
    scoring = copies + (merged_bytes(model) if model.lora_rank else 0.0)
    if not model.lora_rank:  # the trained weights are set aside for those of the reference
        passes["reference"] += fixed["language"]
    stepping = 4.0 * model.trained_weights  # AdamW's own values
    if not model.lora_rank and model.value_bytes < 4:
        stepping *= 2  # the gradients, as float32
    peaks = {
        "encode": always + encoding,
        "prefill": sampling + prompt_cache + forward_bytes(model, step.prompts * step.prompt_tokens),
        "decode": sampling + row_cache + prompt_cache + max(prompt_cache, logits),
        **{phase: always + scoring + size for phase, size in passes.items()},
        "optimiser": always + stepping,
    }
    return {phase: peak for phase, peak in peaks.items() if phase != "reference" or step.beta}


# -------------------------------------------------------------------------------------------------------- the advice


class Change(NamedTuple):
    """A setting to lower: its value now, the lower one, and about how many bytes that saves at a phase's peak."""

    name: str
    now: Any
    lower: Any
    same_results: bool  # it only makes a step slower
    saved_bytes: float = 0.0

    def __str__(self) -> str:
        price = "" if self.same_results else ", changes the results"
        return f"{self.name} {self.now} -> {self.lower} (about {readable_bytes(self.saved_bytes)} less{price})"


def with_advice(
    records: Iterable[StepRecord], policy: Policy, settings: GRPOSettings, shots: FewShot
) -> Iterator[StepRecord]:
    """Yield the records of `train(policy, shots, settings)`; if the loop runs out of memory, its torch.OutOfMemoryError
    is raised again with `memory_advice` added to its message.

        for record in with_advice(train(policy, shots, settings), policy, settings, shots): ...
    """
    try:
        yield from records
    except torch.OutOfMemoryError as error:
        if hasattr(error, "phase") and (advice := memory_advice(error, policy, settings, shots)) not in str(error):
            error.args = (f"{error}. {advice}",)
        raise


def memory_advice(error: BaseException, policy: Policy, settings: GRPOSettings, shots: FewShot) -> str:
    """The settings to lower first after this error, with the bytes that each would save in the phase that failed: in
    `error.phase`, for an error without one in the phase with the largest estimate."""
    try:
        changes = saving_changes(policy, settings, shots, getattr(error, "phase", ""))[:ADVICE_LENGTH]
    except Exception as problem:  # there may be no memory left for the estimate; the error itself must not be lost
        return f"What to lower could not be estimated: {problem}"
    if not changes:
        return "No setting would save much in this phase"
    return "Lower first: " + ", ".join(map(str, changes))


def saving_changes(policy: Policy, settings: GRPOSettings, shots: FewShot, phase: str) -> list[Change]:
    """Every change that saves at least a hundredth of what the phase needs, in the order in which to try them: first
    those that do not change the results, and among equals the larger saving first."""
    needed, changes = phase_bytes(*run_shapes(policy, settings, shots), phase), []
    for change, model, step in possible_changes(policy, settings, shots):
        saved = needed - phase_bytes(model, step, phase)
        if saved >= LEAST_SAVING * needed:
            changes.append(change._replace(saved_bytes=saved))
    return sorted(changes, key=lambda change: (not change.same_results, -change.saved_bytes))


def possible_changes(
    policy: Policy, settings: GRPOSettings, shots: FewShot
) -> Iterator[tuple[Change, ModelShape, StepShape]]:
    """Each setting that can be lowered, with the shapes that it leads to."""
    (model, step), on_gpu = run_shapes(policy, settings, shots), policy.device.type == "cuda"
    rows, tokens, prompts, group = step.rows_per_pass, step.completion_tokens, step.prompts, step.group_size
    for field, change in (
        ("gradient_checkpointing", Change("gradient_checkpointing", step.gradient_checkpointing, True, True)),
        ("micro_batch", Change("micro_batch", rows, max(1, rows // 2), True)),
        ("offload_tower", Change("offload_tower", step.offload_tower, step.offload_tower or on_gpu, True)),
        ("completion_tokens", Change("max_new_tokens", tokens, max(1, tokens // 2), False)),
        ("prompts", Change("prompts_per_step", prompts, max(1, prompts // 2), False)),
        ("group_size", Change("group_size", group, max(2, group // 2), False)),
    ):
        if change.lower != change.now:
            yield change, model, replace(step, **{field: change.lower})
    if (largest := max(image_tokens(policy, shots))) > 1:
        processor = policy.processor.image_processor
        pixels = (processor.patch_size * processor.merge_size) ** 2  # per image token
        lower = largest // 2 * pixels
        yield Change("max_pixels", largest * pixels, lower, False), *run_shapes(policy, settings, shots, lower)
    if on_gpu and model.lora_rank and model.weight_bytes > 1:
        yield Change("quantize", None, "4bit", False), replace(model, weight_bytes=NF4_BYTES), step


def phase_bytes(model: ModelShape, step: StepShape, phase: str) -> float:
    """Estimated bytes in use at the peak of a phase: of the training loop, or of `step_memory`; for any other name the
    largest peak."""
    peaks = step_memory(model, step)
    return max([peaks[name] for name in LOOP_PHASES.get(phase, (phase,)) if name in peaks] or peaks.values())


def run_shapes(
    policy: Policy, settings: GRPOSettings, shots: FewShot, max_pixels: int | None = None
) -> tuple[ModelShape, StepShape]:
    """The shapes of the model and of a step of this run, with the mean image, none larger than max_pixels."""
    counts, text = image_tokens(policy, shots, max_pixels), text_tokens(policy, settings, shots)
    return shape_of(policy), StepShape.from_settings(settings, text, math.ceil(sum(counts) / len(counts)), len(counts))


def image_tokens(policy: Policy, shots: FewShot, max_pixels: int | None = None) -> list[int]:
    """Image tokens of each training image, from its size alone."""
    processor = policy.processor.image_processor
    most = max_pixels or processor.size["longest_edge"]
    limits = {"max_pixels": most, "min_pixels": min(most, processor.size["shortest_edge"])}
    sizes = [example.size for example in shots.train]
    patches = [processor.get_number_of_image_patches(height, width, limits) for width, height in sizes]
    return [count // processor.merge_size**2 for count in patches]


def text_tokens(policy: Policy, settings: GRPOSettings, shots: FewShot) -> int:
    """Tokens of a prompt without those of its image."""
    text, one_token = default_question(settings, shots).text(shots.train[0]), torch.tensor([[1, 2, 2]])  # smallest grid
    return tokenize(policy, [text], one_token)["input_ids"].shape[1] - 1
