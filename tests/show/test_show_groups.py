"""The parts of a drawn group, one by one."""

import math

import pytest

from favor_lab.show.groups import COLUMN, draw_reward
from favor_lab.show.layout import canvas
from favor_lab.show.text import text_width


@pytest.mark.parametrize("value", [0, 1, 0.5, 0.33, 2 / 3, -1, -0.5, -0.26, 12.5])
def test_the_number_of_a_reward_fits_into_its_disc(value):
    """And the disc into its column, at a size that can be read."""
    _, axes = canvas(1.0)
    draw_reward(axes, 1.0, 0.5, value)
    (text,) = axes.texts
    (diameter,) = {math.sqrt(disc.get_sizes()[0]) for disc in axes.collections}  # points
    width = 72 * text_width(text.get_text(), text.get_fontsize())  # points
    assert width <= diameter <= 72 * COLUMN and text.get_fontsize() >= 7.5
