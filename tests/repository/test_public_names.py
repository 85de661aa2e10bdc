"""The public names: one list, which the lazy import, editors and type checkers read."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import favor_lab

PACKAGE = Path(favor_lab.__file__).parent


def test_every_public_name_is_in_its_module():
    modules = favor_lab._modules_of_public_names()
    assert len(modules) > 70 and favor_lab.__all__ == sorted(modules)
    for name, module in modules.items():
        assert getattr(favor_lab, name) is getattr(import_module(module), name)
        assert name in dir(favor_lab)


def test_an_unknown_name_is_refused_with_the_names_that_exist():
    with pytest.raises(AttributeError, match=r"no attribute 'grpo_los'; its public names are .*grpo_loss"):
        favor_lab.grpo_los  # noqa: B018


@pytest.mark.slow
def test_a_type_checker_knows_every_public_name(tmp_path):
    """No name is `Any`, which is what a type checker makes of a lazy import that it cannot read."""
    names = favor_lab.__all__
    program = tmp_path / "program.py"
    lines = [f"reveal_type(favor_lab.{name})" for name in names]
    program.write_text("\n".join(["import favor_lab", *lines, "favor_lab.GRPOSettings(stepps=3)", ""]))
    command = [sys.executable, "-m", "mypy", "--no-error-summary", f"--config-file={PACKAGE.parent / 'pyproject.toml'}"]
    output = subprocess.run([*command, str(program)], capture_output=True, text=True, cwd=PACKAGE.parent).stdout
    revealed = [line for line in output.splitlines() if "Revealed type is" in line]
    assert len(revealed) == len(names), output
    untyped = [name for name, line in zip(names, revealed, strict=True) if line.endswith('Revealed type is "Any"')]
    assert untyped == []
    assert 'Unexpected keyword argument "stepps" for "GRPOSettings"' in output


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists() and (PACKAGE / "__init__.pyi").exists()
