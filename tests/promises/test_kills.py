"""No kill loses a step: `python tests/promises/kills.py` kills 20 times, here a few; and the comparison is checked."""

import pytest
import torch

import kills

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    kills.finish(kills.start([*kills.TRAIN, "--out", str(folder)]))
    return kills.outcome(folder)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_like_the_unbroken_one(tmp_path):
    lines = []
    assert kills.run(4, seed=1, folder=tmp_path, say=lines.append) == 4, "\n".join(lines)
    assert sum("killed" in line for line in lines) == 4


@pytest.mark.slow
def test_a_command_beside_training_that_was_killed_leaves_nothing_that_passes_for_complete(tmp_path):
    lines = []
    some = kills.BESIDE[1::2]  # a set, an evaluation and a table; the program has all
    assert kills.beside(tmp_path, lines.append, some) == len(some) == len(lines), "\n".join(lines)


@pytest.mark.parametrize("meeting", kills.MEETINGS)
def test_runs_that_meet_lose_nothing(meeting, tmp_path_factory, unbroken):
    assert meeting(tmp_path_factory.mktemp(meeting.__name__), unbroken) == []


def test_the_comparison_sees_a_bit():
    one = {"a": [torch.tensor([1.0, float("nan")]), ("x", 1)], "b": None}
    other = {"a": [torch.tensor([1.0, float("nan")]), ("x", 1)], "b": None}
    assert kills.same(one, other)
    other["a"][0][0] = torch.nextafter(other["a"][0][0], torch.tensor(2.0))
    assert not kills.same(one, other)
    for unlike in ({"a": 1}, {"a": True}, {"a": 1.0, "b": 1}, [1.0], {"a": None}):
        assert not kills.same({"a": 1.0}, unlike)
