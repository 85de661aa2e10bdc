"""Files: they are written atomically, and one that does not match is refused. Resuming is tested with the loop, killing
a run at random moments in test_kills.py."""

import errno
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from favor_lab.activities.fewshot import FewShot
from favor_lab.grpo.support import checkpoints as module
from favor_lab.grpo.support.checkpoints import TrainingState, checkpoints, load_checkpoint, save_checkpoint
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.training import train
from favor_lab.vlm.loading import load_policy
from tiny import make_policy


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


class Pair(NamedTuple):
    first: int = 1
    second: int = 2


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([1, {"function": print}], r"memory\.mine\.1\.function, a builtin_function_or_method"),
        ({(1, 2): 3}, r"memory\.mine, a dict with keys that are neither"),
        ({b"seen": 3}, r"memory\.mine, a dict with keys that are neither"),
        ({"seen": Counter("ab")}, r"memory\.mine\.seen, a Counter"),  # would come back as a dict without its zeros
        ({"pair": Pair()}, r"memory\.mine\.pair, a Pair"),  # would come back as a list
        ({"few": {1, 2}}, r"memory\.mine\.few, a set"),
        (torch.eye(2).to_sparse(), r"memory\.mine, a Tensor of torch.float32, torch.sparse_coo"),
        (torch.zeros(2, dtype=torch.complex128), r"memory\.mine, a Tensor of torch.complex128"),
    ],
)
def test_what_would_not_come_back_is_refused_by_its_place_when_it_is_saved(state, tmp_path, value, named):
    state.memory["mine"] = value
    with pytest.raises(TypeError, match=named):
        save_checkpoint(tmp_path, state)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "memory",
    [
        {"a.b": torch.tensor(1.0), "a": {"b": torch.tensor(2.0)}},
        {"seen": {1: torch.tensor(1.0), "1": torch.tensor(2.0)}},
        {"seen": [torch.tensor(1.0)], "seen.0": torch.tensor(2.0), "seen.0 (1)": torch.tensor(3.0)},
        {None: torch.tensor(1.0), "None": {"": torch.tensor(2.0)}, "None.": torch.tensor(3)},
        {"\ud800": torch.tensor(1.0), "\\ud800": torch.tensor(2.0)},  # the first is no text in UTF-8
        {"empty": torch.zeros(0, 3), "nothing": {}, "none": [], "flag": torch.tensor(True)},
    ],
)
def test_names_that_meet_are_kept_apart(tiny_policy, state, tmp_path, memory):
    state.memory = memory
    save_checkpoint(tmp_path, state)
    assert repr(load_checkpoint(tmp_path, tiny_policy).memory) == repr(memory)


STRANGERS = ["step-000002 copy.safetensors", "step-000002 (conflict).safetensors", "step-000002.safetensors.bak",
             "step-x.safetensors", "step-٣٣٣٣٣٣.safetensors", "step--00009.safetensors", "step-9.safetensors",
             ".step-000003.safetensors.icloud", "xstep-000003.safetensors", "notes.tmp"]  # fmt: skip


def test_other_files_beside_checkpoints_are_left_alone(tiny_policy, state, tmp_path):
    saved(tmp_path, state, 1, 2)
    content = (tmp_path / "step-000002.safetensors").read_bytes()
    for name in STRANGERS:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "step-000009.safetensors").mkdir()
    assert load_checkpoint(tmp_path, tiny_policy).step == 2
    assert saved(tmp_path, state, 3, 4) == ["step-000004.safetensors", "step-000003.safetensors"]
    assert {*STRANGERS, "step-000009.safetensors"} < {*os.listdir(tmp_path)}


def test_what_a_killed_writer_left_is_swept(state, tmp_path):
    leftovers = ["step-000001.4711.tmp", ".tmpA1b2C3", "records.jsonl.12.tmp"]
    for name in (*leftovers, ".tmp", ".tmpfiles.d", "mine.tmp"):
        (tmp_path / name).write_bytes(b"")
    saved(tmp_path, state, 1)
    assert {*os.listdir(tmp_path)} == {"step-000001.safetensors", ".tmp", ".tmpfiles.d", "mine.tmp"}


def test_a_renamed_one_is_not_taken_for_another_step(tiny_policy, state, tmp_path):
    saved(tmp_path, state, 1, 2)
    (tmp_path / "step-000001.safetensors").rename(tmp_path / "step-000007.safetensors")
    with pytest.warns(UserWarning, match="step-000007.safetensors .*renamed: it holds step 1; going on from .*000002"):
        assert load_checkpoint(tmp_path, tiny_policy).step == 2


def test_checkpoints_of_another_run_are_not_replaced(tiny_policy, state, tmp_path):
    """A cell of a notebook that is run again makes a new state."""
    saved(tmp_path, state, 1, 2)
    again = TrainingState.start(tiny_policy, state.settings)
    for step in (1, 9):
        again.step = step
        with pytest.raises(
            FileExistsError, match=r"checkpoints of another run, the newest step-000002.safetensors: na"
        ):
            save_checkpoint(tmp_path, again)
    assert saved(tmp_path / "other", again, 1) == ["step-000001.safetensors"]
    with pytest.raises(FileExistsError, match="of another run"):
        save_checkpoint(tmp_path, load_checkpoint(tmp_path / "other", tiny_policy))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002.safetensors", "step-000001.safetensors"]
    assert saved(tmp_path, load_checkpoint(tmp_path, tiny_policy), 3)[0] == "step-000003.safetensors"


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


def other_weights(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    weights[name][0, 0] += 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_end_tokens(folder):
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 7}))


def other_template(folder):
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + " Think!")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_weights, "model.safetensors"),
        (other_end_tokens, "generation_config.json"),
        (other_template, "chat_template.jinja"),
    ],
)
def test_another_base_is_refused_by_its_files(tiny_checkpoint, tmp_path, change, named):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    state = TrainingState.start(make_policy(base), GRPOSettings())
    saved(tmp_path / "run", state, 1)
    (base / "README.md").write_text("a word about it")
    config = (base / "config.json").read_bytes()
    (base / "config.json").write_bytes(config.replace(b"\n", b"\r\n"))  # as git writes it on Windows
    moved = shutil.copytree(base, tmp_path / "moved")
    assert load_checkpoint(tmp_path / "run", make_policy(moved)).step == 1
    change(moved)
    with pytest.raises(ValueError, match=rf"step-000001.* another base than .*moved is now: {named} changed"):
        load_checkpoint(tmp_path / "run", make_policy(moved))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"lora_alpha": 64},
            r"another scale of the adapter \(.*down_proj 2.0 then, 16.0 now; and \d+ more.*lora_alpha",
        ),
        ({"max_pixels": 784 * 4}, r"another pixel budget \(longest_edge \d+ then, 3136 now\).*max_pixels"),
    ],
)
def test_another_scale_or_pixel_budget_is_refused(tiny_checkpoint, state, tmp_path, options, named):
    saved(tmp_path, state, 1)
    with pytest.raises(ValueError, match=named):
        load_checkpoint(tmp_path, load_policy(tiny_checkpoint, lora_rank=4, device="cpu", **options))


def test_a_base_that_is_gone_is_not_compared(tiny_checkpoint, tiny_policy, tmp_path):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    policy = make_policy(base)
    shutil.rmtree(base)
    saved(tmp_path / "run", TrainingState.start(policy, GRPOSettings()), 1)
    assert load_checkpoint(tmp_path / "run", tiny_policy).step == 1


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
    del content["question"], content["policy"]
    batch = content["batch"]
    batch |= {name: batch["rollout"].pop(name) for name in ("rewards", "old_logps")}
    del batch["prompts"], batch["question"]
    tensors = {}
    structure = json.dumps({name: module.serialise(value, name, tensors) for name, value in content.items()})
    save_file(tensors, path, {"state": structure, "sha256": module.digest(structure, tensors)})
    losses += [record.loss for record in train(tiny_policy, shots, resume=load_checkpoint(tmp_path, tiny_policy))]
    assert losses == unbroken
