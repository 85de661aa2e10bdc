"""The script that plants faults: what it changes, what it does not change, and that it distinguishes killed from
survived."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mutants

pytestmark = pytest.mark.slow

ADVANTAGES = mutants.ROOT / mutants.MODULES["advantages"][0]


def changes(code):
    return [mutant.change for mutant in mutants.mutants_of("losses", code.encode())]


def meanings(code):
    """The mutated line of each mutant of a function's one line."""
    planted = mutants.mutants_of("losses", f"def f(x, y):\n    {code}\n".encode())
    return {mutant.mutated.decode().split("\n", 1)[1].strip() for mutant in planted}


@pytest.mark.parametrize(("code", "expected"), [
    ("return x < y", {"return x <= y", "return x >= y", "return None"}),
    ("return x - 2", {"return x + 2", "return x - 3", "return None"}),
    ("return x and not y", {"return x or not y", "return x and  y", "return x", "return None"}),
    ("return x[:y]", {"return x[:]", "return x[:y - 1]", "return None"}),
    ("return x.clamp(min=1)", {
        "return x", "return x.clamp(max=1)", "return x.clamp()", "return x.clamp(min=2)", "return x.clamp(min=0)",
        "return None",
    }),
    ("x = max(x, y)", {"x = min(x, y)", "x = max(x)", "pass"}),
    ("z = x", set()),  # without it the name is missing, which any test notices
    ("return x(k=True)", {"return x()", "return None"}),
    ("return 'a'", {"return 'XXa'", "return None"}),
])  # fmt: skip
def test_faults_of_a_line(code, expected):
    assert meanings(code) == expected


@pytest.mark.parametrize("code", [
    '"""A module\'s docstring, 1 < 2."""',
    "def f():\n    '''A function's.'''",
    "def f(x: list[1]) -> tuple[1, 2]: ...",
    "from typing import overload\n@overload\ndef f(x=1): ...",
    "if TYPE_CHECKING:\n    import torch",
    "__all__ = ['f']",
])  # fmt: skip
def test_what_does_nothing_at_run_time_is_left_alone(code):
    assert changes(code) == []


def test_the_text_of_an_error_is_left_alone_but_not_the_error():
    assert changes("def f():\n    raise ValueError(f'no {1 + 1}', 'text')") == [
        "[-raise ValueError(f'no {1 + 1}', 'text')-]{+pass+}"
    ]


@pytest.mark.parametrize("module", mutants.MODULES)
def test_mutants_of_the_library(module):
    """Every one differs from all others, and no docstring from the original's."""
    source = (mutants.ROOT / mutants.MODULES[module][0]).read_bytes()
    planted = mutants.mutants_of(module, source)
    assert len({mutant.mutated for mutant in planted} | {source}) == len(planted) + 1 > 100
    documented = [line for line in source.split(b"\n") if line.strip().startswith((b">>> ", b'"""'))]
    assert all(line in mutant.mutated for mutant in planted for line in documented)
    named = {mutant.change for mutant in planted}
    assert set(mutants.EQUIVALENT.get(module, {})) <= named, "an excuse for a mutant that is no more"


def run(results, only):
    command = [sys.executable, mutants.__file__, "--module", "advantages", "--only", only, "--results", str(results)]
    return subprocess.run([*command, "--workers", "2"], capture_output=True, text=True)


@pytest.mark.slow
def test_a_planted_fault_is_killed_and_a_harmless_change_survives(tmp_path: Path):
    before, results = ADVANTAGES.read_bytes(), tmp_path / "results.jsonl"
    killed = run(results, "advantages = rewards [---]{+++} rewards.nanmean(")
    assert killed.returncode == 0, killed.stderr
    assert "| advantages | 1 | 1 | 0 | 0 | 100.0 | 100.0 |" in killed.stdout
    assert "No mutant survived." in killed.stdout
    (row,) = map(json.loads, results.read_text().splitlines())
    assert "advantages.py::" in row["killer"]  # a test, and no import that failed

    harmless = "nan_to_num([-nan=0.0-])"
    survived = run(results, harmless)
    assert survived.returncode == 1, survived.stderr
    assert "| advantages | 2 | 0 | 2 | 2 | 0.0 | 100.0 |" in survived.stdout
    reasons = {reason for change, reason in mutants.EQUIVALENT["advantages"].items() if harmless in change}
    assert all(reason in survived.stdout for reason in reasons) and reasons

    stored = results.read_bytes()
    assert run(results, harmless).stdout == survived.stdout
    assert results.read_bytes() == stored  # nothing ran again
    assert ADVANTAGES.read_bytes() == before
