"""Files: they are written atomically, and one that does not match is refused. Resuming is tested with the loop, killing
a run at random moments in test_kills.py."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from favor_lab.activities.fewshot import FewShot
from favor_lab.grpo.support import checkpoints as module
from favor_lab.grpo.support.checkpoints import TrainingState, checkpoints, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.training import train
from favor_lab.vlm.loading import load_policy


@pytest.fixture
def state(tiny_policy):
    return TrainingState.start(tiny_policy, GRPOSettings(reward_weights=(1.0, 0.5)))


def saved(folder, state, *steps):
    for step in steps:
        state.step = step
        save_checkpoint(folder, state)
    return [path.name for path in checkpoints(folder)]


def test_everything_comes_back(tiny_policy, state, tmp_path):
    for _, weight in tiny_policy.trainable_parameters():
        weight.grad = torch.ones_like(weight)
    state.optimiser.step()
    state.step, state.right_so_far, state.images = 7, {"reading": 3}, {"a": "reading", "b": "running"}
    state.memory["slow"] = {"weights": torch.arange(3.0), "names": ["x"], 4: (None, float("nan"), True)}
    before = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    save_checkpoint(tmp_path / "new" / "folder", state)
    with torch.no_grad():
        for _, weight in tiny_policy.trainable_parameters():
            weight.zero_()
    loaded = load_checkpoint(tmp_path / "new" / "folder", tiny_policy)
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_policy.trainable_parameters())
    assert (loaded.step, loaded.right_so_far, loaded.images) == (7, state.right_so_far, state.images)
    assert loaded.settings == state.settings and loaded.batch is None
    slow = loaded.memory["slow"]
    assert slow["weights"].tolist() == [0, 1, 2] and slow["names"] == ["x"] and repr(slow[4]) == "(None, nan, True)"
    moments, restored = (
        [entry[name] for entry in of.optimiser.state_dict()["state"].values() for name in ("exp_avg", "step")]
        for of in (state, loaded)
    )
    assert len(moments) == 2 * len(before) and all(map(torch.equal, moments, restored))


def test_the_last_two_are_kept_and_a_course_left_behind_is_not(state, tmp_path):
    assert saved(tmp_path, state, 1, 2, 3) == ["step-000003.safetensors", "step-000002.safetensors"]
    (tmp_path / "step-000003.99999.tmp").write_bytes(b"what a killed process left")
    assert saved(tmp_path, state, 2) == ["step-000002.safetensors"], "3 came after another 2"
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("fails", ["save_file", "put_in_place"])
def test_a_failed_save_leaves_the_previous_one_whole_and_says_so(
    tiny_policy, state, tmp_path, monkeypatch, fails, number
):
    saved(tmp_path, state, 0)
    before = checkpoints(tmp_path)[0].read_bytes()

    def failing(*arguments):
        if fails == "save_file":
            arguments[1].write_bytes(before[:1000])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, fails, failing)
    state.step = 4
    with pytest.raises(OSError, match=r"step 4 cannot be written .*still valid: .*step-000000.safetensors"):
        save_checkpoint(tmp_path, state)
    assert os.listdir(tmp_path) == ["step-000000.safetensors"]
    assert checkpoints(tmp_path)[0].read_bytes() == before
    assert load_checkpoint(tmp_path, tiny_policy).step == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_named(state, tmp_path, monkeypatch):
    saved(tmp_path, state, 0)
    monkeypatch.setattr(module, "save_file", lambda tensors, path, metadata: Path("/dev/full").write_bytes(b"x"))
    state.step = 1
    with pytest.raises(OSError, match="No space left on device.*still valid"):
        save_checkpoint(tmp_path, state)


def test_what_cannot_be_kept_is_refused_by_its_place(state, tmp_path):
    state.memory["mine"] = [1, {"function": print}]
    with pytest.raises(TypeError, match=r"memory\.mine\.1\.function, a builtin_function_or_method"):
        save_checkpoint(tmp_path, state)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "text", "header"])
def test_a_damaged_one_is_named_and_the_one_before_it_taken(tiny_policy, state, tmp_path, damage):
    state.memory["x"] = torch.arange(1000.0)
    saved(tmp_path, state, 1, 2)
    path = checkpoints(tmp_path)[0]
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif damage == "bit":
        content[-100] ^= 1
    elif damage == "text":
        content = bytearray(b"not a checkpoint")
    else:  # not the step that was written
        content = content.replace(b'\\"step\\": 2', b'\\"step\\": 9')
        assert content != path.read_bytes()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"step-000002.safetensors is not .*damaged.*going on from .*step-000001"):
        assert load_checkpoint(tmp_path, tiny_policy).step == 1
    checkpoints(tmp_path)[1].write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-000002.*damaged.*step-000001.*damaged"):
        load_checkpoint(tmp_path, tiny_policy)


def test_what_does_not_fit_is_refused(tiny_checkpoint, tiny_policy, state, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        load_checkpoint(tmp_path, tiny_policy)
    saved(tmp_path, state, 0)
    other = load_policy(tiny_checkpoint, lora_rank=2, device="cpu")
    with pytest.raises(ValueError, match="lora_A.*another shape"):
        load_checkpoint(tmp_path, other)


def test_a_checkpoint_is_numbers_and_json_alone(state, tmp_path):
    saved(tmp_path, state, 0)
    raw = checkpoints(tmp_path)[0].read_bytes()
    assert int.from_bytes(raw[:8], "little") < len(raw) and raw[8:9] == b"{", "safetensors begins with its JSON"


def test_a_checkpoint_of_before_rewards_belonged_to_rows_goes_on_identically(tiny_policy, tiny_examples, tmp_path):
    """Between two updates of a rollout: the older layout had rewards and old log-probabilities beside the rows, and no
    prompts, no question and none of the newer settings."""
    settings = GRPOSettings(steps=4, updates_per_rollout=2, prompts_per_step=2, group_size=2, max_new_tokens=4)
    shots = FewShot(tiny_examples, [], [], [example.label for example in tiny_examples])
    start = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    unbroken = [record.loss for record in train(tiny_policy, shots, settings)]
    with torch.no_grad():
        for name, weight in tiny_policy.trainable_parameters():
            weight.copy_(start[name])
    state = TrainingState.start(tiny_policy, settings)
    records = train(tiny_policy, shots, settings, resume=state)
    losses = [next(records).loss for _ in range(3)]
    path = save_checkpoint(tmp_path, state)
    content = module.read(path)
    for name in ("coefficients", "scoring"):
        del content["settings"][name]
    del content["question"]
    batch = content["batch"]
    batch |= {name: batch["rollout"].pop(name) for name in ("rewards", "old_logps")}
    del batch["prompts"], batch["question"]
    tensors = {}
    structure = json.dumps({name: module.serialise(value, name, tensors) for name, value in content.items()})
    save_file(tensors, path, {"state": structure, "sha256": module.digest(structure, tensors)})
    losses += [record.loss for record in train(tiny_policy, shots, resume=load_checkpoint(tmp_path, tiny_policy))]
    assert losses == unbroken
