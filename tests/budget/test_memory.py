"""Running out of memory: the error, the advice, how to continue; and the device of the vision tower."""

import re
import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from favor_lab.activities.fewshot import FewShot
from favor_lab.budget import memory
from favor_lab.budget.memory import (
    memory_advice,
    phase_bytes,
    possible_changes,
    run_shapes,
    saving_changes,
    with_advice,
)
from favor_lab.cli import main
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.sampling import sample_groups
from favor_lab.grpo.support.checkpoints import TrainingState
from favor_lab.grpo.support.clock import Clock, readable_bytes
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.training import train
from favor_lab.vlm.policy import Policy
from favor_lab.vlm.processing import encode_prompts
from favor_lab.vlm.untrusted import is_out_of_memory
from tiny import LABELS

SETTINGS = GRPOSettings(steps=3, prompts_per_step=2, group_size=4, max_new_tokens=6, learning_rate=1e-2)
CPU = torch.device("cpu")


def even_ids(completion_ids, **columns):
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def ask_for_too_much(*_):
    torch.empty(2**50)  # more than any address space: the allocator refuses at once


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


def comparable(records):
    return [{name: value for name, value in record.to_dict().items() if name != "seconds"} for record in records]


# --------------------------------------------------------------------------------------------------- what is told apart


@pytest.mark.parametrize("fail", [ask_for_too_much, lambda: np.empty(2**50)], ids=["torch", "numpy"])
def test_a_real_failure_is_recognised(fail):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        fail()
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_taken_for_it():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value) and not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="size mismatch|inconsistent"), Clock(1, CPU)("loss"):
        torch.ones(2) @ torch.ones(3)


# ----------------------------------------------------------------------------------------------------- through the loop


def test_the_error_says_what_to_lower_and_the_run_goes_on_with_that(tiny_policy, shots):
    """Four rows fit and eight do not: after lowering micro_batch the run equals one that never failed."""
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    unbroken = comparable(train(tiny_policy, shots, replace(SETTINGS, micro_batch=4), rewards=[even_ids]))
    with torch.no_grad():
        for name, weight in tiny_policy.trainable_parameters():
            weight.copy_(start[name])

    def greedy_loss(logps, old_logps, ref_logps, advantages, mask, total_rows, context):
        if context.step == 1 and len(logps) > 4:
            ask_for_too_much()
        return grpo_loss(logps, old_logps, ref_logps, advantages, mask, total_rows=total_rows)

    state, records = TrainingState.start(tiny_policy, SETTINGS), []
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run = train(tiny_policy, shots, rewards=[even_ids], loss=greedy_loss, resume=state)
        for record in with_advice(run, tiny_policy, SETTINGS, shots):
            records.append(record)
    message = str(caught.value)
    assert message.startswith("step 2, phase loss: out of memory (") and "4503599627370496 bytes" in message
    assert "Everything up to step 1 is kept" in message and "\n" not in message
    first = re.search(
        r"Lower first: (\w+) \S+ -> \S+ \(about [0-9.]+ MiB less\), (\w+) \S+ -> \S+ \(about .* less\),", message
    )
    assert first and set(first.groups()) == {"gradient_checkpointing", "micro_batch"}, message
    assert "micro_batch 8 -> 4" in message and "gradient_checkpointing False -> True" in message
    assert state.step == 1 and [record.step for record in records] == [1]
    lowered = replace(SETTINGS, micro_batch=4)
    records += train(tiny_policy, shots, lowered, rewards=[even_ids], loss=greedy_loss, resume=state)
    for record, expected in zip(comparable(records), unbroken, strict=True):
        assert record["samples"] == expected["samples"]
        assert record["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert record["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)


def failing_sampler(policy, prompts, **settings):
    ask_for_too_much()


@pytest.mark.parametrize(
    ("phase", "steps"),
    [
        ("sample", {"sample": failing_sampler}),
        ("reward", {"rewards": [lambda completions, **_: np.empty(2**50)]}),
        ("advantage", {"advantages": ask_for_too_much}),
        ("update", {"after_step": ask_for_too_much}),
    ],
)
def test_every_phase_is_named(tiny_policy, shots, phase, steps):
    with pytest.raises(torch.OutOfMemoryError, match=rf"step 1, phase {phase}: out of memory \(") as caught:
        next(train(tiny_policy, shots, SETTINGS, **({"rewards": [even_ids]} | steps)))
    assert ("weights may have moved" in str(caught.value)) == (phase == "update")


def test_while_encoding_the_images_count(tiny_policy, shots):
    handle = tiny_policy.tower.register_forward_hook(ask_for_too_much)
    with pytest.raises(torch.OutOfMemoryError, match="step 1, phase encode: .*Lower first: max_pixels 12544 -> 6272"):
        next(with_advice(train(tiny_policy, shots, SETTINGS, rewards=[even_ids]), tiny_policy, SETTINGS, shots))
    handle.remove()


def test_what_the_phase_held_is_let_go():
    """A notebook keeps the error, which would otherwise keep the activations of the failed pass."""
    references = []

    def loss():
        activations = torch.ones(1000)
        references.append(weakref.ref(activations))
        ask_for_too_much()

    with pytest.raises(torch.OutOfMemoryError) as caught, Clock(1, CPU)("loss"):
        loss()
    assert references[0]() is None and "DefaultCPUAllocator" in str(caught.value.__cause__)


def failing_run(phase=None):
    """Records of a run that fails in a phase, without advice."""
    yield "a record"
    error = torch.OutOfMemoryError("step 2, phase loss: out of memory (no memory left)")
    if phase:
        error.phase = phase
    raise error


def test_the_advice_is_added_once(tiny_policy, shots):
    run = failing_run("loss")
    for _ in range(2):  # a notebook may wrap a step that the library has already wrapped
        run = with_advice(run, tiny_policy, SETTINGS, shots)
    assert next(run) == "a record"
    with pytest.raises(torch.OutOfMemoryError) as caught:
        next(run)
    advice = memory_advice(caught.value, tiny_policy, SETTINGS, shots)
    assert str(caught.value) == f"step 2, phase loss: out of memory (no memory left). {advice}"
    assert caught.value.phase == "loss" and advice.startswith("Lower first: ")


def test_an_error_without_a_phase_is_not_of_the_loop(tiny_policy, shots):
    with pytest.raises(torch.OutOfMemoryError, match=r"no memory left\)$"):
        list(with_advice(failing_run(), tiny_policy, SETTINGS, shots))


def test_advice_that_fails_hides_nothing(tiny_policy, shots, monkeypatch):
    def fail(policy, settings, shots, phase):
        raise MemoryError(f"none left to think about {phase}")

    monkeypatch.setattr(memory, "saving_changes", fail)
    with pytest.raises(torch.OutOfMemoryError, match="step 2, phase loss: .* none left to think about loss"):
        list(with_advice(failing_run("loss"), tiny_policy, SETTINGS, shots))


def test_a_wrapped_run_can_be_closed_and_interrupted(tiny_policy, shots):
    """As the dashboard and notebooks do: the run itself must be closed or interrupted too."""
    records = []

    def run():
        try:
            yield "a record"
        except (GeneratorExit, KeyboardInterrupt) as error:
            records.append(type(error))
            raise

    for stop in (lambda wrapped: wrapped.close(), lambda wrapped: wrapped.throw(KeyboardInterrupt())):
        wrapped = with_advice(run(), tiny_policy, SETTINGS, shots)
        next(wrapped)
        try:
            stop(wrapped)
        except KeyboardInterrupt:
            pass
    assert records == [GeneratorExit, KeyboardInterrupt]


def test_the_command_line_says_it_in_a_line(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("favor_lab.grpo.training.backward", ask_for_too_much)
    small = ["--shots", "1", "--test", "0", "--steps", "1", "--group-size", "2", "--max-new-tokens", "2"]
    assert main(["train", "--policy", str(tiny_checkpoint), "--device", "cpu", *small]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    line = next(line for line in message.splitlines() if "error: step 1, phase loss: out of memory" in line)
    assert "Lower first: " in line and "gradient_checkpointing False -> True" in line


# ----------------------------------------------------------------------------------------------------------- the advice


def advice_for(phase, *run):
    error = torch.OutOfMemoryError()
    error.phase = phase
    return memory_advice(error, *run)


@pytest.mark.parametrize("phase", ["encode", "sample", "reference", "loss", "update", "a phase of one's own"])
def test_savings_are_those_of_the_estimate_and_in_order(tiny_policy, shots, phase):
    changes = saving_changes(tiny_policy, SETTINGS, shots, phase)
    shapes = {change.name: shapes for change, *shapes in possible_changes(tiny_policy, SETTINGS, shots)}
    now = phase_bytes(*run_shapes(tiny_policy, SETTINGS, shots), phase)
    for change in changes:
        assert change.saved_bytes == now - phase_bytes(*shapes[change.name], phase) > 0
    assert changes == sorted(changes, key=lambda change: (not change.same_results, -change.saved_bytes))
    assert len({change.name for change in changes}) == len(changes)
    assert advice_for(phase, tiny_policy, SETTINGS, shots).count(" less") == min(3, len(changes))


def test_only_what_can_be_lowered_is_named(tiny_policy, shots):
    names = {change.name for change, *_ in possible_changes(tiny_policy, SETTINGS, shots)}
    of_settings = {"gradient_checkpointing", "micro_batch", "max_new_tokens", "prompts_per_step", "group_size"}
    assert names == of_settings | {"max_pixels"}, "on the CPU no tower need be moved there, and 4 bits need CUDA"
    least = replace(SETTINGS, gradient_checkpointing=True, micro_batch=1, max_new_tokens=1, prompts_per_step=1,
                    group_size=2)  # fmt: skip
    assert {change.name for change, *_ in possible_changes(tiny_policy, least, shots)} == {"max_pixels"}
    smallest = replace(shots, train=[replace(e, image=e.image.resize((28, 28))) for e in shots.train])
    tiny_policy.processor.image_processor.size["shortest_edge"] = 784
    assert list(possible_changes(tiny_policy, least, smallest)) == []
    assert advice_for("loss", tiny_policy, least, smallest) == "No setting would save much in this phase"


def test_sampling_has_nothing_to_gain_from_smaller_passes(tiny_policy, shots):
    names = [change.name for change in saving_changes(tiny_policy, SETTINGS, shots, "sample")]
    assert names and not {"gradient_checkpointing", "micro_batch"} & set(names)


def test_the_sizes_of_a_run_are_counted_without_encoding_it(tiny_policy, shots):
    prompts = encode_prompts(tiny_policy, shots.train, LABELS, SETTINGS.style)
    tokens = memory.image_tokens(tiny_policy, shots)
    assert tokens == [len(feature) for feature in prompts.image_features]
    text = memory.text_tokens(tiny_policy, SETTINGS, shots)
    assert [text + count for count in tokens] == prompts.attention_mask.sum(dim=1).tolist()
    smaller = memory.image_tokens(tiny_policy, shots, max_pixels=4 * 784)
    tiny_policy.processor.image_processor.size["longest_edge"] = 4 * 784
    assert smaller == [len(feature) for feature in encode_prompts(tiny_policy, shots.train, LABELS).image_features]


def test_sizes_are_readable():
    sizes = (6.4 * 2**30, 120 * 2**20, 32 * 2**20, 6e4)
    assert list(map(readable_bytes, sizes)) == ["6.4 GiB", "0.1 GiB", "32 MiB", "0.057 MiB"]


# ------------------------------------------------------------------------------------------------------ the tower, away


@pytest.fixture
def elsewhere(tiny_policy, monkeypatch):
    """A second device for the tower on a machine that has one: "cpu" as a string now means a tower without values."""
    import copy

    here = tiny_policy.tower
    away, original, visits = copy.deepcopy(here).to("meta"), Policy.tower_on, []

    def move(self, device):
        self.base.model.visual = away if torch.device(device).type == "meta" else here
        visits.append(torch.device(device).type)

    @contextmanager
    def tower_on(self, device):
        with original(self, "meta" if device == "cpu" and isinstance(device, str) else device):
            yield

    monkeypatch.setattr(Policy, "move_tower", move)
    monkeypatch.setattr(Policy, "tower_on", tower_on)
    return visits


def where_is_the_tower(policy):
    return next(policy.tower.parameters()).device.type


def test_the_tower_leaves_after_encoding_and_comes_back(tiny_policy, shots, elsewhere):
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    stayed = comparable(train(tiny_policy, shots, SETTINGS, rewards=[even_ids]))
    assert set(elsewhere) == {"cpu"}
    with torch.no_grad():
        for name, weight in tiny_policy.trainable_parameters():
            weight.copy_(start[name])
    devices, features = [], encode_prompts(tiny_policy, shots.train, LABELS).image_features

    def look(context):
        devices.append(where_is_the_tower(context.policy))
        again = encode_prompts(context.policy, shots.train, LABELS).image_features  # moved to the device, and back
        assert all(torch.equal(a, b) for a, b in zip(again, features, strict=True))
        devices.append(where_is_the_tower(context.policy))

    left = replace(SETTINGS, offload_tower=True)
    assert comparable(train(tiny_policy, shots, left, rewards=[even_ids], after_step=look)) == stayed
    assert devices == ["meta"] * 6 and where_is_the_tower(tiny_policy) == "cpu"


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_the_tower_comes_back_from_a_run_that_stops(tiny_policy, shots, elsewhere, how):
    left = replace(SETTINGS, offload_tower=True)
    records = train(tiny_policy, shots, left, rewards=[even_ids], sample=sample_groups)
    next(records)
    assert where_is_the_tower(tiny_policy) == "meta"
    if how == "closed":
        records.close()
    else:
        with pytest.raises(KeyError):
            records.throw(KeyError("stop"))
    assert where_is_the_tower(tiny_policy) == "cpu"


def test_a_tower_that_no_longer_fits_stays_away(tiny_policy, monkeypatch):
    moves = []

    def move(self, device):
        moves.append(device)
        if len(moves) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Policy, "move_tower", move)
    with pytest.warns(UserWarning, match="no room on cpu for the vision tower"), tiny_policy.tower_on("cpu"):
        pass
    assert moves == ["cpu", torch.device("cpu"), "cpu"]


# ------------------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_tower_leaves_its_room(tiny_checkpoint, shots):
    from favor_lab.vlm.loading import load_policy

    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda", dtype="float32")
    size = sum(weight.nbytes for weight in policy.tower.parameters())
    before, places = torch.cuda.memory_allocated(), []
    with policy.tower_on("cpu"):
        assert torch.cuda.memory_allocated() <= before - size and policy.device.type == "cuda"
    results = [
        comparable(train(load_policy(tiny_checkpoint, lora_rank=4, device="cuda"), shots, settings, rewards=[even_ids],
                         after_step=lambda context: places.append(where_is_the_tower(context.policy))))
        for settings in (SETTINGS, replace(SETTINGS, offload_tower=True))
    ]  # fmt: skip
    assert results[0] == results[1] and places == ["cuda"] * 3 + ["cpu"] * 3
    assert where_is_the_tower(policy) == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_error_says_what_was_in_use_and_gives_room_back(tiny_checkpoint, shots):
    from favor_lab.vlm.loading import load_policy

    policy = load_policy(tiny_checkpoint, lora_rank=4, device="cuda")
    state = TrainingState.start(policy, SETTINGS)

    def greedy_loss(logps, old_logps, ref_logps, advantages, mask, total_rows):
        activations = [torch.empty(2**28, device="cuda")]  # 1 GiB
        while True:
            activations.append(torch.empty(2**32, device="cuda"))

    with pytest.raises(torch.OutOfMemoryError) as caught:
        run = train(policy, shots, rewards=[even_ids], loss=greedy_loss, resume=state)
        list(with_advice(run, policy, SETTINGS, shots))
    message = str(caught.value)
    assert re.search(r"In use on cuda:0: .* allocated, .* reserved, of .* GiB in all\. Lower first: ", message), message
    assert "offload_tower" in {change.name for change, *_ in possible_changes(policy, SETTINGS, shots)}
    assert torch.cuda.memory_allocated() < 2**30, "what the failed pass held is free again, the error still at hand"
    assert len(list(train(policy, shots, rewards=[even_ids], resume=state))) == SETTINGS.steps
