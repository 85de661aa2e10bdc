"""Each trap of `traps.py`: its check passes, and fails as soon as the trap is opened."""

import ast
from pathlib import Path

import pytest

import traps

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "favor_lab"


@pytest.mark.parametrize("trap", traps.TRAPS, ids=lambda trap: trap.name.replace(" ", "-"))
def test_each_trap_is_met_and_each_opening_is_noticed(trap, tiny_checkpoint, capsys):
    shut, *faults = traps.findings(trap, tiny_checkpoint)
    assert shut is None, f"{trap.name}: {shut}"
    assert faults and all(faults), f"{trap.name}: nobody notices opening {faults.index(None)} of {trap.openings}"


def test_generate_is_not_used():
    """It reads generation_config, keeps its state on the model and writes to its arguments."""
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert "generate" not in {node.attr for node in nodes if isinstance(node, ast.Attribute)}, path


def test_an_edit_is_undone_and_its_text_must_be_there():
    edit = traps.Edit(traps.same, "1e-4", "1e-9")
    code = traps.same.__code__
    with pytest.raises(KeyError), traps.opened([edit]):
        assert traps.same.__code__ is not code
        raise KeyError("inside the block")
    assert traps.same.__code__ is code
    with pytest.raises(LookupError, match="'2e-4' 0 times"), traps.opened([edit._replace(old="2e-4")]):
        pass
