import numpy as np
import pytest

from favor_lab.show.charts import LOOKS, look, plot_changes, plot_moves, plot_shots, plot_transfer
from favor_lab.show.style import BLUE, GREY, VERMILLION
from favor_lab.study.measures import Measured

SETS = ["cartoon", "sketch"]


def near(mean, half=0.03):
    return Measured(mean, mean - half, mean + half)


def test_shots_have_a_line_and_a_band_for_each_method():
    lines = {"grpo": {1: near(0.6), 4: near(0.76), 16: near(0.84)}, "sft": {1: near(0.7), 4: near(0.8)}}
    figure = plot_shots({name: lines for name in SETS}, {"cartoon": {"zero-shot": 0.44}})
    cartoon, sketch = figure.axes
    line_of = {line.get_label(): line for line in cartoon.lines}
    assert list(line_of["grpo"].get_ydata()) == pytest.approx([60, 76, 84])
    assert list(line_of["sft"].get_xdata()) == [0, 1], "its own shots, in the places of all"
    assert [text.get_text() for text in cartoon.get_xticklabels()] == ["1", "4", "16"]
    assert set(line_of["zero-shot"].get_ydata()) == {44.0} and len(sketch.lines) == 2
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"grpo", "sft", "zero-shot"}
    band = cartoon.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((57, 87))
    with pytest.raises(ValueError, match="at least one set"):
        plot_shots({})


def test_transfer_writes_each_share_into_its_square():
    table = {("cartoon", "cartoon"): 0.8, ("cartoon", "sketch"): 0.71, ("sketch", "sketch"): 0.9}
    figure = plot_transfer({"grpo": table, "sft": table}, SETS)
    grid = figure.axes[0].images[0].get_array()
    assert grid[0].tolist() == [80.0, 71.0] and np.ma.filled(grid, np.nan)[1, 1] == 90.0
    texts = {
        (int(text.get_position()[0]), int(text.get_position()[1])): text.get_text() for text in figure.axes[0].texts
    }
    assert texts == {(0, 0): "80", (1, 0): "71", (1, 1): "90"}
    with pytest.raises(ValueError, match="at least one method"):
        plot_transfer({}, SETS)


def test_changes_are_coloured_by_what_their_interval_says():
    rows = {
        "no-kl": {"right": near(0.05), "true": None},
        "published": {"right": near(-0.5)},
        "std-n": {"right": near(0.01), "true": near(0.0)},
    }
    figure = plot_changes(rows, {"right": "right answers", "true": "true statements"})
    right, true = figure.axes
    marks = [line for line in right.lines if line.get_marker() not in ("", "None")]
    assert [line.get_marker() for line in marks] == ["^", "v", "o"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([5, -50, 1])
    assert len({line.get_color() for line in marks}) == 3 and len(true.lines) == 3
    assert [text.get_text() for text in right.get_yticklabels()] == list(rows)
    with pytest.raises(ValueError, match="at least one change"):
        plot_changes({}, {"right": "right"})


def test_moves_go_from_a_hollow_mark_to_a_filled_one_coloured_where_the_intervals_lie_apart():
    groups = {
        "all sets": {"grpo": {"right": (near(0.44), near(0.78)), "true": (near(0.91), near(0.84))}},
        "cartoon": {"truth": {"right": (near(0.44), near(0.45))}},
    }
    figure = plot_moves(groups, {"right": "right answers", "true": "true statements"})
    right, true = figure.axes
    marks = [line for line in right.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([44, 78, 44, 45])
    assert [line.get_markerfacecolor() == "white" for line in marks] == [True, False, True, False]
    assert [line.get_color() for line in marks] == [GREY, BLUE, GREY, GREY]
    assert [line.get_color() for line in true.lines if line.get_marker() == "o"] == [GREY, VERMILLION]
    names = right.get_yticklabels()
    assert [text.get_text() for text in names] == ["all sets", "grpo", "cartoon", "truth"]
    assert [text.get_weight() for text in names] == ["bold", "normal", "bold", "normal"]
    with pytest.raises(ValueError, match="in each group at least one row"):
        plot_moves({"all sets": {}}, {"right": "right"})


def test_methods_keep_their_looks():
    assert len(set(LOOKS.values())) == len(LOOKS)
    assert look("grpo") == LOOKS["grpo"] and look("mine", ["grpo", "mine"]) not in LOOKS.values()
