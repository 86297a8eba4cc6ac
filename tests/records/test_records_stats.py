"""Intervals and tests against published or independently computed values."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from unmask.records.stats import bootstrap_ratio, bootstrap_speedup, paired_difference, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (81, 263), (15, 148), (1, 29), (10, 10), (1, 1)])
def test_wilson_equals_scipy(k, n):
    expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((k / n, expected.low, expected.high), abs=1e-12)


def test_wilson_on_newcombes_published_values():
    # Newcombe 1998, table I, method 3
    assert wilson(81, 263)[1:] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20)[1:] == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_takes_parts_and_refuses_nonsense():
    assert wilson(1, 4).low < wilson(1.5, 4).low < wilson(2, 4).low
    for k, n in ((0, 0), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="proportion"):
            wilson(k, n)


def test_ratio_is_micro_and_its_interval_has_the_textbook_width():
    rng = np.random.default_rng(1)
    tokens, seconds = rng.integers(50, 150, 400), rng.uniform(1, 3, 400)
    ratio = bootstrap_ratio(tokens, seconds)
    assert ratio.value == pytest.approx(tokens.sum() / seconds.sum())
    # delta method: residuals of the ratio estimator
    error = (tokens - ratio.value * seconds).std(ddof=1) / np.sqrt(400) / seconds.mean()
    assert ratio.high - ratio.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert ratio.low < ratio.value < ratio.high


def test_intervals_are_reproducible_and_keep_pairs_together():
    tokens, seconds = [10, 20, 30, 70], [1, 2, 3, 7]
    assert bootstrap_ratio(tokens, seconds) == pytest.approx((10, 10, 10))
    twice_as_fast = bootstrap_speedup(tokens, seconds, tokens, [0.5, 1, 1.5, 3.5])
    assert twice_as_fast == pytest.approx((2, 2, 2))
    assert bootstrap_ratio([1, 2, 3], [1, 1, 1]) == bootstrap_ratio([1, 2, 3], [1, 1, 1])
    assert bootstrap_ratio([1, 2, 3], [1, 1, 1]) == pytest.approx((2, 1, 3))  # 1 draw of 27 each


def test_one_document_has_a_value_and_no_interval():
    value, low, high = bootstrap_ratio([6], [2])
    assert value == 3 and np.isnan(low) and np.isnan(high)


def test_ratio_refuses_what_has_no_ratio():
    for numerators, denominators in (([1, 2], [0, 0]), ([1, 2], [1]), ([], [])):
        with pytest.raises(ValueError):
            bootstrap_ratio(numerators, denominators)
    with pytest.raises(ValueError, match="divide by"):
        bootstrap_speedup([0, 0], [1, 1], [1, 1], [1, 1])


def test_mcnemar_on_hand_computed_splits():
    # 1 up, 5 down: p = 2 * (1 + 6) / 2^6
    baseline = [0] + [1] * 5 + [1] * 10 + [0] * 4
    other = [1] + [0] * 5 + [1] * 10 + [0] * 4
    difference = paired_difference(baseline, other)
    assert (difference.up, difference.down) == (1, 5)
    assert difference.p == pytest.approx(14 / 64)
    assert difference.value == pytest.approx(-0.2)
    assert difference.low < -0.2 < difference.high
    assert paired_difference(other, baseline).value == pytest.approx(0.2)
    assert paired_difference([1, 0], [1, 0]) == (0, 0, 0, 0, 0, 1)
