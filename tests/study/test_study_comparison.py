import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from favor_lab.study.comparison import bootstrap_interval, compare, paired_gains, redraws, sign_test, whole_numbers
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.rounding import percent, rounded

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
    comparison = compare(evaluation(before), evaluation(after))
    assert comparison.difference == pytest.approx(0.06)
    assert (comparison.gained, comparison.lost, comparison.runs, comparison.images) == (24, 0, 1, 400)
    assert 0.03 < comparison.interval[0] < 0.06 < comparison.interval[1] < 0.09
    assert comparison.summary().startswith("+6.0 points (95 % interval +")


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (2, 2, 2)])
def test_there_must_be_something_to_redraw(shape):
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(np.zeros(shape))


@pytest.mark.parametrize(("gained", "lost", "p"), [(10, 0, 2 / 1024), (6, 2, 2 * 37 / 256), (3, 3, 1.0)])
def test_the_sign_test_counts_coin_throws(gained, lost, p):
    assert sign_test(gained, lost) == sign_test(lost, gained) == pytest.approx(p)


def drawn_mean(values, weights, of_runs, of_images):
    """The mean of one bootstrap draw, as a Fraction."""
    times = [[int(run) * int(image) for image in of_images] for run in of_runs]
    total = sum(w * n for row in zip(weights, times, strict=True) for w, n in zip(*row, strict=True))
    rows = zip(values, weights, times, strict=True)
    return sum((v * w * n for row in rows for v, w, n in zip(*row, strict=True)), Fraction()) / total


@pytest.mark.parametrize("kind", ["gains", "shares", "weighted"])
def test_the_bounds_are_those_of_exact_arithmetic(kind):
    """One draw, so that both bounds are its mean: with a rounding error in any sum they would differ."""
    random = np.random.default_rng(4)
    parts, wholes = random.integers(-3, 4, (3, 40)), random.integers(1, 8, (3, 40))
    if kind == "gains":
        wholes = np.ones_like(wholes)
    exact = [[Fraction(int(a), int(b)) for a, b in zip(*row, strict=True)] for row in zip(parts, wholes, strict=True)]
    weights = wholes if kind == "weighted" else np.ones_like(wholes)
    for seed in range(50):
        of_runs, of_images = redraws(3, 40, 1, seed)
        mean = drawn_mean(exact, weights.tolist(), of_runs[0], of_images[0])
        chosen_weights = weights if kind == "weighted" else None
        bounds = bootstrap_interval(parts / wholes, draws=1, seed=seed, weights=chosen_weights)
        assert bounds == pytest.approx((float(mean), float(mean)), rel=4e-16, abs=0)
        if kind != "shares":  # one division: the float next to the exact mean
            assert bounds == (float(mean), float(mean))


@pytest.mark.parametrize("of", ["gains", "shares", "normal"])
def test_the_order_of_the_images_does_not_move_the_drawn_sums(of):
    random = np.random.default_rng(5)
    values = {
        "gains": random.integers(-1, 2, (3, 320)).astype(float),
        "shares": random.integers(0, 5, (3, 320)) / random.integers(4, 9, (3, 320)),
        "normal": random.normal(size=(3, 320)),
    }[of]
    numbers, unit = whole_numbers(values, values.size)
    assert (numbers == np.round(numbers)).all() and np.abs(numbers).max() * values.size < 2**53
    np.testing.assert_allclose(numbers / unit, values, rtol=0, atol=1e-12)
    sums = {float(random.permutation(numbers.ravel()).cumsum()[-1]) for _ in range(100)}
    assert len(sums) == 1


def test_the_bounds_are_the_same_with_every_kernel_of_the_blas():
    code = (
        "import numpy as np; from favor_lab.study.comparison import bootstrap_interval as bounds;"
        "r = np.random.default_rng(6);"
        "print([[bounds(r.integers(-1, 2, (3, 320))), bounds(r.normal(size=(3, 320)))] for _ in range(10)])"
    )
    run = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | kernel, capture_output=True, text=True)
        for kernel in ({}, {"OPENBLAS_CORETYPE": "Haswell"}, {"OPENBLAS_CORETYPE": "Prescott"})
    ]
    assert all(process.returncode == 0 for process in run), run
    assert len({process.stdout for process in run}) == 1


def test_a_printed_tie_does_not_depend_on_the_last_bit():
    for count in range(961):
        exact = Fraction(100 * count, 960)
        value = float(exact)
        near = [value, np.nextafter(value, -1), np.nextafter(value, 101), 100 * (count / 960), count / 960 / 0.01]
        assert {rounded(number) for number in near} == {f"{float(round(exact, 1)):.1f}"}
    assert (rounded(-0.0), rounded(-0.04, signed=True), rounded(2.5, 0)) == ("0.0", "-0.0", "2")
    assert (percent(0.2875), percent(None)) == ("28.8 %", "-")
