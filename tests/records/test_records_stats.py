"""Intervals and tests against published or independently computed values."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from unmask.records import stats
from unmask.records.stats import (
    bootstrap_ratio,
    bootstrap_speedup,
    connected,
    paired_difference,
    unweighted_mean,
    wilson,
)


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


TRUE_RATIO = 60


def timed_run(rng, documents, batch):
    """(tokens, seconds, batch number) of documents; all in a batch share its noisy clock equally."""
    tokens = rng.integers(20, 100, documents)
    own = tokens / TRUE_RATIO * rng.gamma(20, 1 / 20, documents)
    shared = own.reshape(-1, batch).mean(1) * rng.uniform(0.5, 1.5, documents // batch)
    return tokens, np.repeat(shared, batch), np.arange(documents) // batch


def coverage(hits):
    return sum(hits) / len(hits)


def test_times_of_a_batch_are_one_draw(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 400)
    rng = np.random.default_rng(0)
    together, naive = [], []
    for _ in range(400):
        tokens, seconds, batches = timed_run(rng, documents=16 * int(rng.integers(10, 25)), batch=16)
        for hits, groups in ((together, batches), (naive, None)):
            ratio = bootstrap_ratio(tokens, seconds, groups=groups)
            hits.append(ratio.low <= TRUE_RATIO <= ratio.high)
    assert 0.925 < coverage(together) < 0.98
    assert coverage(naive) < 0.7


@pytest.mark.parametrize("other", [16, 32])
def test_speedups_resample_the_batches_of_both_runs(monkeypatch, other):
    monkeypatch.setattr(stats, "RESAMPLES", 400)
    rng = np.random.default_rng(1)
    together, naive = [], []
    for _ in range(200):
        *base, ours = timed_run(rng, documents=16 * 24, batch=16)
        *fast, theirs = timed_run(rng, documents=16 * 24, batch=other)
        for hits, groups in ((together, connected(ours, theirs)), (naive, None)):
            speedup = bootstrap_speedup(*base, *fast, groups=groups)
            hits.append(speedup.low <= 1 <= speedup.high)
    assert 0.915 < coverage(together) < 0.985
    assert coverage(naive) < 0.7


def test_few_draws_have_wide_intervals(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(500):
        ratio = bootstrap_ratio(rng.normal(10, 2, 8), np.ones(8))
        hits.append(ratio.low <= 10 <= ratio.high)
    assert coverage(hits) > 0.925, "plain percentiles cover 0.89"


def test_groups_are_what_shares_a_label_anywhere():
    assert connected([0, 0, 1, 1, 2, 3]).tolist() == [0, 0, 1, 1, 2, 3]
    assert connected(["b", "b", "a", "a", "c"], [1, 2, 2, 3, 4]).tolist() == [0, 0, 0, 0, 1]
    assert connected([0, 1, 2, 3], [5, 6, 5, 6]).tolist() == [0, 1, 0, 1]


def test_a_single_group_has_a_value_and_no_interval():
    value, low, high = bootstrap_ratio([6, 2], [2, 2], groups=[7, 7])
    assert value == 2 and np.isnan(low) and np.isnan(high)
    with pytest.raises(ValueError, match="one group per document"):
        bootstrap_ratio([6, 2], [2, 2], groups=[7])


def test_a_mean_over_tasks_is_wilson_for_one_and_newcombe_for_two():
    assert unweighted_mean([81], [263]) == pytest.approx(wilson(81, 263))
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80 has [0.0524, 0.3339].
    # With the second proportion reversed, the mean is half of that difference and a half.
    mean = unweighted_mean([56, 80 - 48], [70, 80])
    assert mean == pytest.approx((0.6, 0.5 + 0.0524 / 2, 0.5 + 0.3339 / 2), abs=5e-5)


def test_the_interval_of_a_mean_over_tasks_covers_where_tasks_are_small():
    rng = np.random.default_rng(3)
    rates, sizes = np.array([0.98, 0.9, 0.5, 0.2, 0.7, 0.85, 1.0]), np.array([5, 10, 30, 8, 12, 6, 4])
    hits = []
    for _ in range(1000):
        mean = unweighted_mean(rng.binomial(sizes, rates), sizes)
        hits.append(mean.low <= rates.mean() <= mean.high)
    assert 0.94 < coverage(hits) < 0.99
    with pytest.raises(ValueError, match="one task at least"):
        unweighted_mean([], [])


def test_differences_of_tasks_weigh_the_same():
    tasks = ["a"] * 2 + ["b"] * 8
    baseline, other = [0] * 10, [1, 0] + [1] * 2 + [0] * 6
    difference = paired_difference(baseline, other, tasks=tasks)
    assert difference.value == pytest.approx((0.5 + 0.25) / 2) and difference.up == 3
    assert difference.low < difference.value < difference.high
    alone = paired_difference([0, 0, 0], [1, 1, 0], tasks=["a", "b", "b"])
    assert alone.value == pytest.approx(0.75) and np.isnan(alone.low), "one document tells no spread"
    same = paired_difference(baseline, other, tasks=["a"] * 10)
    assert same == paired_difference(baseline, other)


def test_the_interval_of_a_mean_difference_over_tasks_covers(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 400)
    rng = np.random.default_rng(4)
    sizes, gains = (10, 40, 20), (0.4, 0.1, -0.1)
    tasks = np.repeat(range(3), sizes)
    hits = []
    for _ in range(300):
        baseline = rng.random(70) < 0.5
        other = baseline ^ (rng.random(70) < 0.3)
        change = np.repeat(gains, sizes) + (other * 1.0 - baseline)
        difference = paired_difference(np.zeros(70), change, tasks=tasks)
        hits.append(difference.low <= np.mean(gains) <= difference.high)
    assert 0.92 < coverage(hits) <= 0.99
