import pytest
import torch

from favor_lab.show.rows import plot_rows
from pictures import png, texts_of

TOKENS = [["riding", "a", "bike", "<end>"], ["cart", "<end>"]]
RATIOS = torch.tensor([[1.0, 1.3, 0.7, 1.0], [0.5, 1.5, 9.0, 9.0]])


def hatched(figure):
    return sum(patch.get_hatch() == "////" for patch in figure.axes[0].patches)


def test_each_token_stands_with_its_ratio_and_each_row_with_its_advantage():
    texts = texts_of(plot_rows(TOKENS, RATIOS, [0.78, -0.26]))
    assert texts.count("<end>") == 2 and texts.count("mask 0") == 2 and "9.00" not in texts
    assert {"riding", "1.30", "0.70", "0.50", "+0.78", "\N{MINUS SIGN}0.26", "row 1", "t = 3"} <= set(texts)
    assert "tokens with their ratios: (N, L) = (2, 4)" in texts


@pytest.mark.parametrize(
    ("advantages", "clip", "count"), [([1, -1], 0.2, 2), ([-1, 1], 0.2, 2), ([0, 0], 0.2, 0), ([1, -1], None, 0)]
)
def test_tokens_beyond_the_clip_are_hatched_where_the_gradient_is_zero(advantages, clip, count):
    assert hatched(plot_rows(TOKENS, RATIOS, advantages, clip)) == count


def test_odd_tokens_and_zero_advantages_are_drawn():
    png(plot_rows([["$x$", "\N{ZERO WIDTH SPACE}", "a" * 40]], [[1.0, 1e9, 0.0]], [0.0], clip=0.2))


@pytest.mark.parametrize(
    ("tokens", "ratios", "advantages"),
    [
        ([], [], []),
        ([[]], [[]], [1]),
        (TOKENS, RATIOS[:1], [1, 1]),
        (TOKENS, RATIOS, [1]),
        (TOKENS, RATIOS[:, :3], [1, 1]),
    ],
)
def test_numbers_that_do_not_agree_are_refused(tokens, ratios, advantages):
    with pytest.raises(ValueError, match="plot_rows needs"):
        plot_rows(tokens, ratios, advantages)
