"""Intervals and tests against published values, scipy and simulation."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from vit.analysis.statistics import MIN_SEEDS, holm, mean_interval, sign_flip, smallest_p, wilson


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    # the first two: Newcombe 1998, table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (20, 20, (0.8389, 1.0))],
)
def test_wilson_interval(successes, n, expected):
    assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_no_proportion_is_refused(successes, n):
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        wilson(successes, n)


def test_mean_interval_is_students():
    # Student 1908, the gain in sleep of ten patients: 1.58, t test p 0.00283
    gains = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert mean_interval(gains) == pytest.approx((1.58, 0.700114, 2.459886), abs=1e-6)
    theirs = stats.ttest_1samp(gains, 0).confidence_interval(0.8)
    assert mean_interval(gains, 0.8)[1:] == pytest.approx(theirs, rel=1e-12)
    assert mean_interval([3, 3]) == (3, 3, 3)


@pytest.mark.parametrize(("n", "skewed", "expected"), [(6, 0, 95), (10, 0, 95), (6, 1, 94), (10, 1, 94)])
def test_mean_interval_covers(n, skewed, expected):
    """2,000 simulations; skewed is a gamma of shape 4: skewness 1."""
    noise = np.random.default_rng(3)
    draws = noise.gamma(4, size=(2000, n)) - 4 if skewed else noise.normal(size=(2000, n))
    held = [low <= 0 <= high for _, low, high in map(mean_interval, draws)]
    assert 100 * np.mean(held) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.5], "at least 2 values"), ([[1.0, 2.0]], r"got shape \(1, 2\)"), ([1.0, np.nan], "got nan")],
)
def test_values_without_an_interval_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)
    with pytest.raises(ValueError, match="got 95"):
        mean_interval([1.0, 2.0], 95)


def test_sign_flips_equal_brute_force_and_scipy():
    for n, values in [(n, np.random.default_rng(n).normal(0.4, 1, n)) for n in (1, 2, 5, 7)]:
        sums = [
            abs(sum(sign * v for sign, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=n)
        ]
        assert sign_flip(values) == sum(s >= abs(values.sum()) - 1e-12 for s in sums) / 2**n
    values = np.random.default_rng(11).normal(0.3, 1, 11)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(values) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sign_flips_that_tie_on_paper_count():
    assert sign_flip([0.1, 0.2, 0.3]) == 0.25  # 0.1 + 0.2 + 0.3, twice of 8
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0  # a sum of 0, though not in floats
    assert sign_flip([0.1, 0.2, -0.3, 0.4]) == 0.625  # 0.1 + 0.2 - 0.3 + 0.4 and -0.1 - 0.2 + 0.3 + 0.4: twice 5 of 16
    assert sign_flip([0, 0]) == 1.0


def test_sign_flips_are_uniform_under_the_null():
    p = np.array([sign_flip(values) for values in np.random.default_rng(5).normal(size=(2000, 7))])
    for level in (2 / 128, 6 / 128, 32 / 128, 64 / 128):  # reached exactly: p comes in steps of 2 / 128
        assert np.mean(p <= level + 1e-9) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000))


def test_many_sign_flips_are_drawn():
    values = np.random.default_rng(17).normal(0.5, 1, 17)
    sums = np.array([[1]])
    for _ in values:
        sums = np.concatenate([np.c_[sums, np.ones(len(sums))], np.c_[sums, -np.ones(len(sums))]])
    exact = np.mean(np.abs(sums[:, 1:] @ values) >= abs(values.sum()) - 1e-9)
    assert 0.005 < exact < 0.5
    assert sign_flip(values) == pytest.approx(exact, abs=4 * np.sqrt(exact / 100_000))
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip([1.0] * 40) == 1 / 100_000  # never 0: the observed signs are one of the draws


def test_smallest_p_is_reached_when_all_seeds_agree():
    assert smallest_p(6) == 0.03125 == sign_flip([1, 2, 3, 5, 7, 11])
    assert smallest_p(MIN_SEEDS) < 0.05 < smallest_p(MIN_SEEDS - 1)
    with pytest.raises(ValueError, match="got 0"):
        smallest_p(0)


def test_holm_by_hand():
    # sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, and never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"p values must lie in \[0, 1\]"):
        holm([0.2, float("nan")])
