"""Files on machines that are not ours, simulated: Windows with its scanners, file systems that do not flush."""

import errno
import os
import stat
import time
import warnings
from types import SimpleNamespace

import pytest

from favor_lab import files
from favor_lab.files import (
    append_json_line,
    check_name,
    flush,
    patiently,
    quoted,
    read_json_lines,
    write_json,
    write_whole,
)
from favor_lab.study.run_folder import RunFolder

CANNOT = [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.ENOSYS]


@pytest.fixture(autouse=True)
def nothing_was_said():
    files._say_that_nothing_is_synced.cache_clear()
    yield
    files._say_that_nothing_is_synced.cache_clear()


def fail(number, only=lambda *_: True, real=None, times=10**9):
    """A function that raises an OSError of this number for the first calls that are meant, and then does its work."""
    calls = []

    def failing(*arguments, **options):
        if only(*arguments) and len(calls) < times:
            calls.append(arguments)
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options) if real else None

    failing.calls = calls
    return failing


def is_folder(handle, *_):
    return stat.S_ISDIR((os.fstat(handle) if isinstance(handle, int) else os.stat(handle)).st_mode)


@pytest.mark.parametrize("only", [is_folder, lambda _: True], ids=["folders", "everything"])
@pytest.mark.parametrize("number", CANNOT, ids=errno.errorcode.get)
def test_a_file_counts_where_the_file_system_cannot_flush(number, only, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(number, only, os.fsync))
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        for step in (1, 2):
            write_json(tmp_path / "settings.json", {"steps": step})
            append_json_line(tmp_path / "records.jsonl", {"step": step})
    assert read_json_lines(tmp_path / "records.jsonl") == [{"step": 1}, {"step": 2}]
    assert '"steps": 2' in (tmp_path / "settings.json").read_text()
    assert ["after a power cut" in str(note.message) for note in notes] == [True], "said once"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.jsonl", "settings.json"]


def test_a_folder_that_may_be_written_to_but_not_read_needs_no_flush(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", fail(errno.EACCES, lambda path, flags, *_: is_folder(path), os.open))
    with pytest.warns(UserWarning, match="cannot flush"):
        write_whole(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text() == "a"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_what_the_disk_lost_is_an_error(number, tmp_path, monkeypatch):
    write_whole(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", fail(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_whole(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OSError, match=os.strerror(number)):
        append_json_line(tmp_path / "a.jsonl", {})


def test_files_are_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows has nothing to flush for one that may only read, and opens no folder at all."""
    fcntl = pytest.importorskip("fcntl")
    real, flushed = os.fsync, []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(handle)
        real(handle)

    windows = {name: getattr(os, name) for name in dir(os)} | {"name": "nt", "fsync": fsync}
    monkeypatch.setattr(files, "os", SimpleNamespace(**windows))
    flush(tmp_path)
    assert not flushed
    (tmp_path / "a.txt").write_bytes(b"a")
    flush(tmp_path / "a.txt")
    append_json_line(tmp_path / "a.jsonl", {})
    assert len(flushed) == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY], ids=errno.errorcode.get)
def test_a_file_that_a_scanner_holds_is_tried_again(number, tmp_path, monkeypatch):
    replace = fail(number, real=os.replace, times=4)
    monkeypatch.setattr(os, "replace", replace)
    write_whole(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text() == "a" and len(replace.calls) == 4
    opened = fail(number, lambda path, *_: str(path).endswith("records.jsonl"), open, times=2)
    monkeypatch.setattr("builtins.open", opened)
    RunFolder(tmp_path).append({"step": 1})
    assert RunFolder(tmp_path).records() == [{"step": 1}] and len(opened.calls) == 2


def test_a_file_that_stays_held_is_an_error_after_two_seconds(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(os, "replace", fail(errno.EACCES))
    write = tmp_path / "a.txt"
    write.write_text("old")
    with pytest.raises(PermissionError):
        write_whole(write, "new")
    assert write.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert 1.5 < sum(waits) < 2.5
    with pytest.raises(FileNotFoundError):  # what waiting cannot mend is told at once
        patiently(open, tmp_path / "none")


def test_lines_end_alike_on_every_system(tmp_path, monkeypatch):
    """Windows' text files end their lines with two characters; a digest of the records must not depend on that."""

    def windows_open(*arguments, newline=None, **options):
        return real(*arguments, newline=newline or "\r\n", **options)

    real = open
    monkeypatch.setattr("builtins.open", windows_open)
    append_json_line(tmp_path / "a.jsonl", {"text": "a\r\nb"})
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"text": "a\\r\\nb"}\n'


NOT_UTF8 = b"caf\xe9".decode(errors="surrogateescape")
NOT_ON_WINDOWS = [
    "con",
    "runs/NUL",
    "aux.txt",
    "com1.2",
    "LPT9 .x",
    "a:b",
    "why?",
    "a<b>",
    "run.",
    "run ",
    "a|b",
    "tab\t",
]


def test_a_run_folder_that_weights_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"caf\\udce9' is not UTF-8.*another place"):
        RunFolder.create(tmp_path / NOT_UTF8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NOT_ON_WINDOWS)
def test_names_that_windows_does_not_have(name, monkeypatch):
    check_name(name)  # elsewhere they are names as any other
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))
    with pytest.raises(ValueError, match="Windows has no files called"):
        check_name(name)
    for good in ("runs/demo-cartoon", "../run", "./a.b", "console", "com", "com10", "nullable", "é", "/tmp/run"):
        check_name(good)


def test_following_a_run_does_not_trust_the_clock_of_the_wall(tmp_path, monkeypatch):
    """It is set while the run goes on: back by a day, or forward. Nor that of the file server."""
    folder = RunFolder.create(tmp_path / "run")
    folder.save_settings({"settings": {"steps": 3}})
    folder.append({"step": 1})
    followed, now = folder.follow(patience=5.0, period=0.001), time.time()
    assert next(followed)["step"] == 1
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    folder.append({"step": 2})
    assert next(followed)["step"] == 2, "it waited on"
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert list(followed) == [], "nothing was written for the patience"
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    assert [record["step"] for record in folder.follow()] == [1, 2], "nothing was written since yesterday"


def test_printed_commands_can_be_pasted_into_the_systems_shell(monkeypatch):
    assert quoted("my runs/a$b") == "'my runs/a$b'" and quoted("runs/demo-cartoon") == "runs/demo-cartoon"
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))
    assert quoted("my runs") == '"my runs"' and quoted(r"runs\demo") == r"runs\demo", "cmd.exe knows no single quotes"
