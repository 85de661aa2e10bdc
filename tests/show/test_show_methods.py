"""The drawing of what RLHF with PPO, DPO and GRPO keep in memory."""

import pytest
from matplotlib.text import Text

from favor_lab.show.methods import METHODS, plot_methods_map


@pytest.fixture(scope="module")
def figure():
    figure = plot_methods_map()
    figure.canvas.draw()
    return figure


def words(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


def test_it_counts_the_models_and_only_models():
    models = {method.name: [part.kind for part in method.parts] for method in METHODS}
    assert models == {
        "RLHF with PPO": ["trained", "trained", "frozen", "frozen"],
        "DPO": ["trained", "frozen"],
        "GRPO with a rule": ["trained", "frozen", "function"],
    }


def test_every_part_is_named_and_nothing_is_small(figure):
    texts = [text.get_text() for text in words(figure)]
    assert [text for text in texts if "models in memory" in text] == [f"{n} models in memory" for n in (4, 2, 2)]
    assert all(part.name in texts and part.use in texts for method in METHODS for part in method.parts)
    assert min(text.get_fontsize() for text in words(figure)) >= 7.5


def test_no_words_are_cut_off_or_overlap(figure):
    boxes = {text: text.get_window_extent() for text in words(figure)}
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes.items():
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, text.get_text()
        for other, place in boxes.items():
            assert text is other or not box.overlaps(place), (text.get_text(), other.get_text())
