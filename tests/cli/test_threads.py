"""Threads that wait sleep: the variable is set before torch is imported, and the user's own choice stays."""

import os
import subprocess
import sys
import warnings

import pytest

import favor_lab.cli
from favor_lab import share_cores
from favor_lab.threads import WAITING


@pytest.fixture
def fresh(monkeypatch):
    """A process that has chosen nothing yet and has not imported torch."""
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in WAITING})
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_the_variable_is_set_once_and_the_second_call_does_nothing(fresh):
    assert share_cores() is None
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    before = dict(os.environ)
    share_cores()
    assert os.environ == before


@pytest.mark.parametrize(
    "name, value", [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "0")]
)
def test_what_the_user_has_set_stays(name, value, fresh, monkeypatch):
    monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setitem(sys.modules, "torch", os)  # also without a warning
    share_cores()
    assert {waiting: os.environ[waiting] for waiting in WAITING if waiting in os.environ} == {name: value}


def test_too_late_is_said_once_with_what_to_do(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", os)
    with pytest.warns(UserWarning, match=r"torch is already imported.*restart the kernel and call share_cores\(\)"):
        share_cores()
    with warnings.catch_warnings(action="error"):
        share_cores()
    assert os.environ["OMP_WAIT_POLICY"] == "passive", "for the processes that are started from here"


def test_the_command_line_calls_it_before_a_command_runs(fresh, monkeypatch):
    monkeypatch.setattr(favor_lab.cli, "run", lambda arguments: int(os.environ["OMP_WAIT_POLICY"] != "passive"))
    assert favor_lab.cli.main(["data", "cartoon"]) == 0


def child(code, **variables):
    """The output of a fresh interpreter, both streams."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | variables
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout


def test_importing_the_package_sets_nothing_and_the_call_imports_no_torch():
    seen = "print('OMP_WAIT_POLICY' in os.environ, 'torch' in sys.modules)"
    code = f"import os, sys, favor_lab; {seen}; favor_lab.share_cores(); {seen}"
    assert child(code).split() == ["False", "False", "True", "False"]


@pytest.mark.slow
def test_openmp_reads_it_when_torch_is_imported():
    """OMP_DISPLAY_ENV lets OpenMP print what it has read; a spin count of 0: threads that wait sleep at once."""
    calls = "from favor_lab import share_cores; share_cores(); import torch"
    called, not_called = (child(code, OMP_DISPLAY_ENV="verbose") for code in (calls, "import torch"))
    if "GOMP_SPINCOUNT" not in not_called:
        pytest.skip("this build of torch has another OpenMP than GNU's")
    assert "GOMP_SPINCOUNT = '0'" in called and "GOMP_SPINCOUNT = '0'" not in not_called
