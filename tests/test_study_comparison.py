import math

import numpy as np
import pytest

from favor_lab.study.comparison import bootstrap_interval, compare, paired_gains, sign_test
from favor_lab.study.evaluation import Answered, Evaluation

LABELS = ["reading", "fishing"]


def evaluation(verdicts, sources=None):
    sources = sources or [f"image/{i}" for i in range(len(verdicts))]
    answers = [
        Answered(source, "reading", "reading" if right else "fishing", bool(right), True, 0, 0, "")
        for source, right in zip(sources, verdicts, strict=True)
    ]
    return Evaluation("tiny", "think", LABELS, answers, 1.0)


def test_gains_are_image_by_image():
    before, after = evaluation([1, 0, 0, 1]), evaluation([1, 1, 0, 0])
    assert paired_gains([before], [after]).tolist() == [[0, 1, 0, -1]]
    assert paired_gains([before], [after, before]).tolist() == [[0, 1, 0, -1], [0, 0, 0, 0]]


def test_other_images_or_another_order_cannot_be_paired():
    for sources in (["image/1", "image/0"], ["image/0", "image/2"]):
        with pytest.raises(ValueError, match="same images in the same order"):
            compare(evaluation([1, 0]), evaluation([1, 0], sources))
    with pytest.raises(ValueError, match="2 evaluations before and 3 after"):
        compare([evaluation([1])] * 2, [evaluation([1])] * 3)


def test_the_interval_of_one_run_is_that_of_its_images():
    """Large samples: the bootstrap over images meets the normal interval of a mean."""
    values = np.random.default_rng(1).normal(0.3, 1.0, size=(1, 400))
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_runs_that_differ_widen_the_interval():
    noise = np.random.default_rng(2).normal(size=(4, 200))
    alike = bootstrap_interval(noise)
    apart = bootstrap_interval(noise + np.array([[-1.0], [-0.5], [0.5], [1.0]]))
    assert apart[1] - apart[0] > 3 * (alike[1] - alike[0])


def test_pairing_is_what_makes_it_narrow():
    """The same verdicts but for a few: the paired interval is a fraction of what two separate ones would need."""
    random = np.random.default_rng(3)
    before = random.integers(0, 2, 400)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:24]] = 1
    found = compare(evaluation(before), evaluation(after))
    assert found.difference == pytest.approx(0.06)
    assert (found.gained, found.lost, found.runs, found.images) == (24, 0, 1, 400)
    assert 0.03 < found.interval[0] < 0.06 < found.interval[1] < 0.09
    assert found.summary().startswith("+6.0 points (95 % interval +")


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (2, 2, 2)])
def test_there_must_be_something_to_redraw(shape):
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(np.zeros(shape))


@pytest.mark.parametrize(("gained", "lost", "p"), [(10, 0, 2 / 1024), (6, 2, 2 * 37 / 256), (3, 3, 1.0)])
def test_the_sign_test_counts_coin_throws(gained, lost, p):
    assert sign_test(gained, lost) == sign_test(lost, gained) == pytest.approx(p)
