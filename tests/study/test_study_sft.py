import dataclasses

import pytest
import torch

from favor_lab.activities.fewshot import FewShot
from favor_lab.grpo.sampling import encode_completions, score_distributions
from favor_lab.grpo.support.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.study.sft import cross_entropy_backward, sft, target
from favor_lab.vlm.processing import encode_prompts
from tiny import LABELS

SETTINGS = GRPOSettings(steps=3, prompts_per_step=3, learning_rate=1e-3)


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=list(tiny_examples), validation=[], test=[], labels=LABELS)


def gradients(policy):
    return {name: weight.grad.clone() for name, weight in policy.trainable_parameters()}


def test_the_loss_is_the_cross_entropy_of_plain_rows_over_the_target_tokens(tiny_policy, tiny_examples):
    """Against transformers' own labels argument, one unpadded row at a time, weighted by its number of tokens."""
    prompts = encode_prompts(tiny_policy, tiny_examples, LABELS, style="answer")
    texts = [target(example.label) for example in tiny_examples]
    targets = encode_completions(tiny_policy, texts, range(4))
    loss = cross_entropy_backward(tiny_policy, prompts, targets)
    with_prefix = gradients(tiny_policy)
    tiny_policy.model.zero_grad()
    sums, tokens = torch.tensor(0.0), 0
    for b in range(4):
        row = prompts[b]
        answer = torch.tensor([tiny_policy.tokenizer(texts[b]).input_ids + tiny_policy.end_token_ids[:1]])
        ids = torch.cat([row.input_ids, answer], dim=1)
        pixels = tiny_policy.processor.image_processor(images=row.images, return_tensors="pt")["pixel_values"]
        logits = tiny_policy.model(
            input_ids=ids, pixel_values=pixels, image_grid_thw=row.image_grid_thw,
            mm_token_type_ids=(ids == tiny_policy.processor.image_token_id).int(),
        ).logits[:, row.input_ids.shape[1] - 1 : -1]  # fmt: skip
        logits = logits.masked_fill(tiny_policy.forbidden, -torch.inf)
        sums = sums + torch.nn.functional.cross_entropy(logits[0], answer[0], reduction="sum")
        tokens += answer.shape[1]
    (sums / tokens).backward()
    assert loss == pytest.approx((sums / tokens).item(), abs=1e-5)
    for name, gradient in gradients(tiny_policy).items():
        torch.testing.assert_close(with_prefix[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("micro_batch", "checkpointing"), [(1, False), (3, False), (3, True)])
def test_what_bounds_memory_changes_neither_loss_nor_gradient(tiny_policy, tiny_examples, micro_batch, checkpointing):
    prompts = encode_prompts(tiny_policy, tiny_examples, LABELS, style="answer")
    targets = encode_completions(tiny_policy, [target(example.label) for example in tiny_examples], range(4))
    whole = cross_entropy_backward(tiny_policy, prompts, targets)
    expected = gradients(tiny_policy)
    tiny_policy.model.zero_grad()
    loss = cross_entropy_backward(tiny_policy, prompts, targets, micro_batch, checkpointing)
    assert loss == pytest.approx(whole, rel=1e-5)
    for name, gradient in gradients(tiny_policy).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)


def test_label_smoothing_is_that_of_torch_over_the_allowed_tokens(tiny_policy, tiny_examples):
    prompts = encode_prompts(tiny_policy, tiny_examples, LABELS, style="answer")
    targets = encode_completions(tiny_policy, [target(example.label) for example in tiny_examples], range(4))
    chances = score_distributions(tiny_policy, prompts, targets)[targets.mask]  # (M, V)
    allowed = ~tiny_policy.forbidden
    ids = (allowed.cumsum(0) - 1)[targets.completion_ids[targets.mask]]  # places among the allowed tokens
    expected = torch.nn.functional.cross_entropy(chances[:, allowed], ids, label_smoothing=0.2)
    loss = cross_entropy_backward(tiny_policy, prompts, targets, label_smoothing=0.2)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    smoothed = gradients(tiny_policy)
    tiny_policy.model.zero_grad()
    expected.backward()
    for name, gradient in gradients(tiny_policy).items():
        torch.testing.assert_close(smoothed[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_label_smoothing_is_a_share(tiny_policy, shots, share):
    with pytest.raises(ValueError, match=f"label_smoothing is {share}, but must be at least 0 and below 1"):
        next(sft(tiny_policy, shots, SETTINGS, label_smoothing=share))


def test_training_lowers_the_loss_and_moves_nothing_but_the_adapter(tiny_policy, shots):
    frozen = {name: p.clone() for name, p in tiny_policy.model.named_parameters() if not p.requires_grad}
    settings = dataclasses.replace(SETTINGS, steps=25, prompts_per_step=4, learning_rate=3e-3, schedule="constant")
    records = list(sft(tiny_policy, shots, settings))
    assert [record.step for record in records] == list(range(1, 26))
    assert records[-1].loss < 0.7 * records[0].loss
    assert all(torch.equal(p, frozen[name]) for name, p in tiny_policy.model.named_parameters() if name in frozen)


def test_the_end_token_is_taught_and_counted(tiny_policy, shots):
    record = next(sft(tiny_policy, shots, SETTINGS))
    counts = [len(tiny_policy.tokenizer(target(label)).input_ids) + 1 for label in LABELS]
    assert record.rows == 3 and record.tokens in {sum(counts) - count for count in counts}
    assert min(counts) <= record.length_min <= record.length_mean <= record.length_max <= max(counts)
    assert record.rewards == {} and record.kl is None and record.learning_rate == 1e-3 and record.grad_norm > 0


def test_reasoning_changes_prompt_and_target(tiny_policy, shots, monkeypatch):
    prompt_texts, targets = [], []
    from favor_lab.study import sft as module

    def encode(policy, examples, question, completion_tokens):
        prompt_texts.append(question.style)
        return encode_prompts(policy, examples, question, completion_tokens=completion_tokens)

    def complete(policy, texts, groups, origin):
        targets.extend(texts)
        return encode_completions(policy, texts, groups, origin=origin)

    monkeypatch.setattr(module, "encode_prompts", encode)
    monkeypatch.setattr(module, "encode_completions", complete)
    next(sft(tiny_policy, shots, SETTINGS))
    next(sft(tiny_policy, shots, SETTINGS, reasoning=lambda example: f"{example.label} is seen"))
    assert prompt_texts == ["answer", "think"]
    assert targets[0] == f"<answer>{LABELS[0]}</answer>"
    assert f"<think>{LABELS[0]} is seen</think><answer>{LABELS[0]}</answer>" in targets


def test_resumed_is_the_same_as_not_interrupted(tiny_policy, shots, tmp_path):
    start = {name: p.detach().clone() for name, p in tiny_policy.trainable_parameters()}

    def rewind():
        with torch.no_grad():
            for name, p in tiny_policy.trainable_parameters():
                p.copy_(start[name])

    def timeless(records):
        return [dataclasses.replace(record, seconds={}) for record in records]

    whole = timeless(sft(tiny_policy, shots, SETTINGS))
    rewind()
    state = TrainingState.start(tiny_policy, SETTINGS)
    first = timeless([next(sft(tiny_policy, shots, SETTINGS, resume=state))])
    save_checkpoint(tmp_path, state)
    rewind()
    rest = timeless(sft(tiny_policy, shots, resume=load_checkpoint(tmp_path, tiny_policy)))
    assert first + rest == whole
