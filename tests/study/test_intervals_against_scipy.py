"""Intervals and tests of significance against scipy, which computes them otherwise."""

import numpy as np
import pytest
from scipy import stats

from favor_lab import bootstrap_interval, sign_test, wilson_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 20), (8, 10), (92, 320), (320, 320)])
def test_wilson_interval(successes, trials, confidence):
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (9, 1), (5, 5), (40, 25), (3, 17)])
def test_sign_test(gained, lost):
    assert sign_test(gained, lost) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, abs=1e-12)


def test_the_bootstrap_of_one_run_is_scipys_percentile_bootstrap():
    """Other redraws, hence equal to a fraction of the interval's width."""
    values = np.random.default_rng(0).random(200) < 0.7
    low, high = bootstrap_interval(values.astype(float), draws=20_000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    width = expected.high - expected.low
    assert abs(low - expected.low) < 0.05 * width and abs(high - expected.high) < 0.05 * width


def test_the_bootstrap_of_several_runs_redraws_runs_and_images():
    """scipy has no bootstrap both ways at once: against a plain loop."""
    random = np.random.default_rng(1)
    values = (random.random((3, 60)) < np.array([[0.5], [0.6], [0.8]])).astype(float)
    means = [values[random.integers(0, 3, 3)][:, random.integers(0, 60, 60)].mean() for _ in range(20_000)]
    expected = np.percentile(means, [2.5, 97.5])
    interval = bootstrap_interval(values, draws=20_000)
    assert np.abs(np.array(interval) - expected).max() < 0.05 * (expected[1] - expected[0])
