"""Intervals and tests, all at 95 %. Documents are resampled, not tokens: they are the independent draws."""

import warnings
from collections.abc import Callable
from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 2000


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired mean difference, its interval, how many pairs went up and down, the exact p of that split."""

    value: float
    low: float
    high: float
    up: int
    down: int
    p: float


def wilson(k: float, n: int) -> Interval:
    """A proportion k / n with Wilson's score interval (Wilson 1927). k may be fractional: documents whose
    repeats are right in part. ValueError unless 0 <= k <= n and n > 0."""
    if not (n > 0 and 0 <= k <= n):
        raise ValueError(f"a proportion needs 0 <= k <= n and n > 0, got k={k}, n={n}")
    z, p = stats.norm.ppf(0.975), k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def bootstrap_ratio(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """The micro ratio sum / sum over documents (tokens per second or step), bootstrapped.

    A percentile interval; each document's numerator and denominator stay together. The interval of one
    document is nan. ValueError unless the denominators add up to more than 0.
    """
    _require_positive(denominators)
    return _bootstrap(_ratio, (numerators, denominators), seed)


def bootstrap_speedup(
    base_numerators: ArrayLike,
    base_denominators: ArrayLike,
    numerators: ArrayLike,
    denominators: ArrayLike,
    seed: int = 0,
) -> Interval:
    """A micro ratio over the baseline's micro ratio, on the same documents in the same order, with a paired
    percentile bootstrap interval (not finite when so few documents have tokens that some draws have none).
    ValueError unless the denominators and the baseline's numerators add up to more than 0."""
    _require_positive(base_numerators, base_denominators, denominators)

    def speedup(base_top, base_bottom, top, bottom, axis=-1):
        return _ratio(top, bottom, axis) / _ratio(base_top, base_bottom, axis)

    return _bootstrap(speedup, (base_numerators, base_denominators, numerators, denominators), seed)


def bootstrap_median(values: ArrayLike, seed: int = 0) -> Interval:
    """The median with a percentile bootstrap interval (nan for a single value)."""
    return _bootstrap(np.median, (values,), seed)


def paired_difference(baseline: ArrayLike, other: ArrayLike, seed: int = 0) -> Difference:
    """mean(other - baseline) over the same documents, bootstrapped, and McNemar's exact p.

    On fractional scores (repeats) that two-sided p is the sign test's, of which McNemar's is the 0/1 case.
    """
    change = np.asarray(other, float) - np.asarray(baseline, float)
    up, down = int((change > 0).sum()), int((change < 0).sum())
    p = float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0
    return Difference(*_bootstrap(np.mean, (change,), seed), up, down, p)


def _require_positive(*lists: ArrayLike) -> None:
    if not all(np.sum(values) > 0 for values in lists):
        raise ValueError(f"a ratio needs sums above 0 to divide by, got {[float(np.sum(v)) for v in lists]}")


def _ratio(top: np.ndarray, bottom: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.sum(top, axis) / np.sum(bottom, axis)


def _bootstrap(statistic: Callable, data: tuple[ArrayLike, ...], seed: int) -> Interval:
    data = tuple(np.asarray(values, float) for values in data)
    n = data[0].size
    if n == 0 or any(values.shape != (n,) for values in data):
        raise ValueError(f"needs one value per document in each list, got shapes {[v.shape for v in data]}")
    value = float(statistic(*data, axis=-1))
    if n == 1:
        return Interval(value, nan, nan)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        low, high = stats.bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=RESAMPLES,
            batch=max(1, 1_000_000 // n),  # bounds the memory to some 10 MB a list
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(value, float(low), float(high))
