import re

import pytest
from PIL import Image

from favor_lab.budget.shapes import ModelShape
from favor_lab.show.anatomy import plot_anatomy, plot_shared_prompt
from pictures import png, texts_of

POCKET = ModelShape(192, 4, 6, 2, 32, 512, 720, True, 128, 4, 512, 1176, 2)
LARGE = ModelShape(1536, 28, 12, 2, 128, 8960, 151936, True, 1280, 32, 5120, 1176, 2)
GROUP = [["riding", " a", " bike", "end"], ["bike", "end"]]


def test_the_way_from_an_image_to_the_next_token_has_the_models_numbers():
    figure = plot_anatomy(Image.new("RGB", (140, 140)), POCKET, (10, 10), (5, 82))
    words = "\n".join(texts_of(figure))
    for part in ("140 x 140 pixels", "100 patches", "1176 values", "4 blocks", "vectors\nof 128", "25 image tokens",
                 "of 192 numbers", "a prompt of 112 tokens", "82 text", "720 logits", "<think"):  # fmt: skip
        assert part in words, part
    assert png(figure).width == 1080


def test_a_large_model_and_a_wide_image_fit_too():
    figure = plot_anatomy(Image.new("RGB", (644, 308)), LARGE, (22, 46), (14, 120), "a_long_token")
    words = "\n".join(texts_of(figure))
    assert "1012 patches" in words and "253 image tokens" in words and "151,936 logits" in words
    png(figure)


def test_the_shared_prompt_counts_what_is_stored_and_computed():
    figure = plot_shared_prompt(POCKET, (5, 82), 25, GROUP)
    words = "\n".join(texts_of(figure))
    assert "112 tokens: 25 of the image, 87 of text" in words and "2 completions" in words
    assert "512 numbers per token" in words, "2 x 4 layers x 2 heads x 32"
    assert "112 + 4 = 116" in words and "2 x 112 + 4 = 228" in words
    assert [text for text in texts_of(figure) if text in ("riding", "bike", "end")] == [
        "riding",
        "bike",
        "end",
        "bike",
        "end",
    ]
    png(figure)


def test_the_shared_prompt_draws_four_of_many_layers_and_says_so():
    assert re.search(
        "in 28 layers, 4 of them drawn", "\n".join(texts_of(plot_shared_prompt(LARGE, (5, 82), 256, GROUP)))
    )


@pytest.mark.parametrize("completions", [[], [["a"], []]])
def test_a_group_without_tokens_is_refused(completions):
    with pytest.raises(ValueError, match="at least one completion"):
        plot_shared_prompt(POCKET, (5, 82), 25, completions)
