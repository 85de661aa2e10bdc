"""One run per folder: locks, new folders, and the manifest that ties the results of a run together."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from favor_lab import files
from favor_lab.files import LOCK, locked
from favor_lab.runs.folders import make_new, new_run_folder
from favor_lab.study.run_folder import RunFolder

HOLD = """
import sys
from favor_lab.files import locked

with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_held_by_one_process_and_free_when_it_ends(holder, tmp_path):
    with pytest.raises(BlockingIOError, match=f"run is in use by process {holder.pid}: wait"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / LOCK).read_text() == str(holder.pid)
    holder.communicate()
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).read_text() == str(os.getpid())
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_folder_is_free_after_a_kill(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with new_run_folder(tmp_path / "run", tmp_path / "default") as folder:
        assert contents(folder.path) == {LOCK: str(os.getpid()).encode()}


def test_one_process_does_not_take_a_folder_twice(tmp_path):
    with locked(tmp_path):
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()}"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists(), "whoever was refused removes nothing"
    with locked(tmp_path):
        pass


def test_a_lock_that_was_removed_while_another_waited_is_taken_anew(tmp_path, monkeypatch):
    """Between opening the file and locking it, the process that held it ends and removes it."""
    lock, removed = files._lock, []

    def late(handle):
        if not removed:
            removed.append((tmp_path / LOCK).unlink())
        lock(handle)

    monkeypatch.setattr(files, "_lock", late)
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, number):
    def missing(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_lock", missing)
    with pytest.warns(UserWarning, match=rf"{tmp_path.name} has no locks \({os.strerror(number)}\)"), locked(tmp_path):
        (tmp_path / "x").touch()


def test_new_folders_differ(tmp_path):
    """An empty folder may be that of a run that has just made it."""
    names = [make_new(tmp_path / "runs" / "train-cartoon").name for _ in range(3)]
    assert names == ["train-cartoon", "train-cartoon-2", "train-cartoon-3"]
    (tmp_path / "runs" / "sft").touch()
    assert make_new(tmp_path / "runs" / "sft").name == "sft-2"


def test_a_folder_to_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(ValueError, match="bad images"), new_run_folder(None, tmp_path / "runs" / "train") as folder:
        raise ValueError("bad images")
    assert not folder.path.exists()
    with pytest.raises(ValueError, match="later"), new_run_folder(tmp_path / "mine", tmp_path) as folder:
        folder.save("settings.json", {})
        raise ValueError("later")
    assert list(contents(tmp_path)) == ["mine/settings.json"]
    with pytest.raises(FileExistsError, match="is not empty"), new_run_folder(tmp_path / "mine", tmp_path):
        pass


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_place_for_no_folder_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=f"cannot write to the run folder .*{place}"),
        new_run_folder(None if "/" in place else tmp_path / place, tmp_path / place),
    ):
        pass
    assert os.listdir(tmp_path) == ["file"]


@pytest.fixture
def finished(tmp_path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run")
    for name in ("adapter/adapter_model.safetensors", "evaluation_before.json", "evaluation_after.json"):
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_text(name)
    folder.append({"step": 1})
    folder.save_manifest(1, {"model.safetensors": "0badcafe"})
    return folder


def test_results_of_one_step_are_those_of_the_manifest(finished):
    finished.check_results()
    (finished.path / "report.html").write_text("drawn later")
    finished.check_results()
    manifest = finished.load("manifest.json")
    assert manifest["step"] == 1 and manifest["base"] == {"model.safetensors": "0badcafe"}
    assert len(manifest["results"]) == 4
    (finished.path / "manifest.json").unlink()
    finished.check_results()  # an older run


def resumed(folder):
    folder.append({"step": 2})


def with_a_new_adapter(folder):
    (folder.adapter / "adapter_model.safetensors").write_text("of step 2")


def without_answers(folder):
    (folder.path / "evaluation_after.json").unlink()


def with_answers_of_a_start(folder):
    (folder.path / "evaluation_start.json").write_text("another run's")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (resumed, "records.jsonl"),
        (with_a_new_adapter, "adapter/adapter_model.safetensors"),
        (without_answers, "evaluation_after.json"),
        (with_answers_of_a_start, "evaluation_start.json"),
    ],
)
def test_results_of_two_steps_are_named(finished, change, named):
    change(finished)
    with pytest.raises(ValueError, match=rf"not of one step: .*\(step 1\), {named} changed: go on with --resume"):
        finished.check_results()


@pytest.mark.parametrize("content", [[], {}, "x", {"step": 1, "results": []}, {"results": {}}])
def test_a_damaged_manifest_is_named(finished, content):
    finished.save("manifest.json", content)
    with pytest.raises(ValueError, match=r"manifest.json is damaged: delete it and go on with --resume"):
        finished.check_results()
