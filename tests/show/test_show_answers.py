import pytest
from PIL import Image

from favor_lab import wilson_interval
from favor_lab.show.answers import plot_responses
from favor_lab.show.intervals import plot_changed_sides, plot_interval
from pictures import png, texts_of

IMAGE = Image.new("RGB", (28, 28), "teal")
RIGHT = "<think>standing, hands together</think><answer>applauding</answer>"
BARE = "<think>standing</think>applauding"


@pytest.mark.parametrize(("successes", "trials"), [(8, 10), (0, 1), (10, 10), (64, 128)])
def test_the_drawn_interval_is_wilson_s(successes, trials):
    low, high = (100 * bound for bound in wilson_interval(successes, trials))
    texts = texts_of(figure := plot_interval(successes, trials))
    assert f"{low:.0f} to {high:.0f} %" in texts
    assert any(f"observed: {successes} of {trials}" in text for text in texts)
    png(figure)


def test_the_textbook_s_interval_may_leave_the_axis():
    assert "55 to 105 %" in texts_of(plot_interval(8, 10))


def test_where_the_bands_end_there_the_observed_share_is():
    figure = plot_interval(8, 10)
    low, high = (100 * bound for bound in wilson_interval(8, 10))
    lines = [line.get_xdata() for line in figure.axes[0].lines]
    assert any(len(x) == 2 and abs(x[0] - low) + abs(x[1] - high) < 1e-9 for x in lines)


def test_counts_that_are_no_share_are_refused():
    with pytest.raises(ValueError, match="0 <= successes <= trials"):
        plot_interval(3, 2)


def test_the_images_that_changed_sides_are_named():
    texts = texts_of(figure := plot_changed_sides([1, 1, 0, 0], [1, 0, 1, 1], names=("think", "answer")))
    assert (texts.count("gained"), texts.count("lost")) == (2, 1)
    assert {"think", "answer", "1", "4"} <= set(texts)
    png(figure)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1], [1, 0]), ([1] * 21, [1] * 21)])
def test_what_cannot_be_paired_is_refused(first, second):
    with pytest.raises(ValueError, match="as many answers of both"):
        plot_changed_sides(first, second)


def test_responses_come_with_their_verdicts():
    texts = texts_of(figure := plot_responses(IMAGE, "applauding", {"before": BARE, "after": RIGHT}, title="one image"))
    assert {"before", "after", "one image", "gold label"} <= set(texts)
    verdicts = [text[2:] for text in texts if text[2:] in ("right", "wrong") or "well formed" in text]
    assert verdicts == ["wrong", "not well formed", "right", "well formed"]
    png(figure)


def test_the_style_decides_what_is_well_formed():
    texts = texts_of(plot_responses(IMAGE, "reading", {"alone": "<answer>reading</answer>"}, style="answer"))
    assert [text[2:] for text in texts if "formed" in text] == ["well formed"]


def test_no_response_is_refused():
    with pytest.raises(ValueError, match="at least one response"):
        plot_responses(IMAGE, "reading", {})
