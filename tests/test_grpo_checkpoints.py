"""Files: what is written is whole, and what does not fit is refused. Going on from one is tested with the loop."""

import os

import pytest
import torch

from favor_lab.grpo.checkpoints import FILE, TrainingState, load_checkpoint, save_checkpoint
from favor_lab.grpo.records import GRPOSettings
from favor_lab.vlm.policy import load_policy


@pytest.fixture
def state(tiny_policy):
    return TrainingState.start(tiny_policy, GRPOSettings(reward_weights=(1.0, 0.5)))


def test_everything_comes_back(tiny_policy, state, tmp_path):
    for _, weight in tiny_policy.trainable_parameters():
        weight.grad = torch.ones_like(weight)
    state.optimiser.step()
    state.step, state.right_so_far, state.sources = 7, {"reading": 3}, ["a", "b"]
    state.memory["slow"] = {"weights": torch.arange(3.0), "names": ["x"]}
    saved = {name: weight.detach().clone() for name, weight in tiny_policy.trainable_parameters()}
    save_checkpoint(tmp_path / "new" / "folder", state)
    with torch.no_grad():
        for _, weight in tiny_policy.trainable_parameters():
            weight.zero_()
    loaded = load_checkpoint(tmp_path / "new" / "folder", tiny_policy)
    assert all(torch.equal(weight, saved[name]) for name, weight in tiny_policy.trainable_parameters())
    assert (loaded.step, loaded.right_so_far, loaded.sources) == (7, {"reading": 3}, ["a", "b"])
    assert loaded.settings == state.settings and loaded.batch is None
    assert loaded.memory["slow"]["weights"].tolist() == [0, 1, 2]
    moments = [entry["exp_avg"] for entry in loaded.optimiser.state_dict()["state"].values()]
    assert len(moments) == len(saved) and all(torch.allclose(m, torch.full_like(m, 0.1)) for m in moments)


def test_a_failed_save_leaves_the_previous_one_whole(tiny_policy, state, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, state)
    before = (tmp_path / FILE).read_bytes()

    def half(content, path):
        path.write_bytes(before[:1000])
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(tmp_path, state)
    state.memory["function"] = lambda: None  # cannot be read back without running code
    with pytest.raises(Exception):  # noqa: B017
        save_checkpoint(tmp_path, state)
    assert (tmp_path / FILE).read_bytes() == before and os.listdir(tmp_path) == [FILE]
    assert load_checkpoint(tmp_path, tiny_policy).step == 0


def test_what_does_not_fit_is_refused(tiny_checkpoint, tiny_policy, state, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint.pt"):
        load_checkpoint(tmp_path, tiny_policy)
    save_checkpoint(tmp_path, state)
    other = load_policy(tiny_checkpoint, lora_rank=2, device="cpu")
    with pytest.raises(ValueError, match="lora_A.*another shape"):
        load_checkpoint(tmp_path, other)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(tmp_path, tiny_policy)
