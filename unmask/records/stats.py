"""Intervals and tests, all at 95 %.

What is resampled is what was drawn independently: documents, not tokens; for times, turns, whose documents
share the state of the machine.

Percentile intervals of few draws are too narrow: the bootstrap's variance is (n - 1) / n of the right one,
and its tails are no heavier than a normal's. All bootstraps here take wider percentiles to make up for it
(Hesterberg 2015, What Teachers Should Know About the Bootstrap, section 3.2).
Nothing wider than from the smallest to the largest draw comes out of it: fewer than six cannot cover 95 %.
"""

import warnings
from collections.abc import Callable
from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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


def unweighted_mean(successes: ArrayLike, sizes: ArrayLike) -> Interval:
    """The mean of the proportions successes / sizes, one per task, all of equal weight, with an interval.

    The interval is squared and added from Wilson's of each task (MOVER: Newcombe 1998, Statistics in Medicine
    17:873, method 10; Zou and Donner 2008): unlike a bootstrap it stays honest for tasks of few documents or
    accuracy 0 or 1, and it is Wilson's own for a single task. ValueError as `wilson`, or without tasks.
    """
    tasks = [wilson(k, n) for k, n in zip(np.asarray(successes), np.asarray(sizes), strict=True)]
    if not tasks:
        raise ValueError("a mean over tasks needs one task at least")
    value, low, high = np.array(tasks).T
    below, above = (np.sqrt(((value - end) ** 2).sum()) / len(tasks) for end in (low, high))
    mean = float(value.mean())
    return Interval(mean, max(0.0, mean - float(below)), min(1.0, mean + float(above)))


def connected(*labels: ArrayLike) -> np.ndarray:
    """The group, from 0, of each of n items: those that share a label in any labelling belong together.

    labels: one or more lists of n labels. Groups are numbered in the order of their first items.
    """
    n = len(labels[0])
    items, nodes, first = [], [], n
    for labelling in labels:
        names, index = np.unique(np.asarray(labelling), return_inverse=True)
        items.append(np.arange(n))
        nodes.append(first + index)
        first += names.size
    edges = (np.concatenate(items), np.concatenate(nodes))
    graph = coo_array((np.ones(edges[0].size), edges), shape=(first, first))
    return connected_components(graph, directed=False)[1][:n]


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, seed: int = 0, groups: ArrayLike | None = None
) -> Interval:
    """The micro ratio sum / sum over documents (tokens per second or step), bootstrapped.

    Each document's numerator and denominator stay together. groups: a label per document; those of one label
    are drawn together (documents of a batch share its seconds). The interval of one document or group is nan.
    ValueError unless the denominators add up to more than 0.
    """
    _require_positive(denominators)
    return _bootstrap(_ratio, _grouped(groups, numerators, denominators), seed)


def bootstrap_speedup(
    base_numerators: ArrayLike,
    base_denominators: ArrayLike,
    numerators: ArrayLike,
    denominators: ArrayLike,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> Interval:
    """A micro ratio over the baseline's, on the same documents in the same order, bootstrapped in pairs.

    groups: as in `bootstrap_ratio`; where the batches of the two runs differ, those that overlap are one
    group (`connected`). The interval is not finite when so few documents have tokens that some draws have
    none. ValueError unless the denominators and the baseline's numerators add up to more than 0.
    """
    _require_positive(base_numerators, base_denominators, denominators)

    def speedup(base_top, base_bottom, top, bottom, axis=-1):
        return _ratio(top, bottom, axis) / _ratio(base_top, base_bottom, axis)

    data = _grouped(groups, base_numerators, base_denominators, numerators, denominators)
    return _bootstrap(speedup, data, seed)


def mcnemar(up: int, down: int) -> float:
    """McNemar's exact test, two-sided: the p of so many documents that went up and down; 1 where none did."""
    return float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0


def paired_difference(
    baseline: ArrayLike, other: ArrayLike, seed: int = 0, tasks: ArrayLike | None = None
) -> Difference:
    """mean(other - baseline) over the same documents, bootstrapped, and McNemar's exact p.

    tasks: a label per document; the difference is then the unweighted mean of the tasks', and documents are
    resampled within their task. Counts and p are over all documents alike.
    On fractional scores (repeats) that two-sided p is the sign test's, of which McNemar's is the 0/1 case.
    """
    change = np.asarray(other, float) - np.asarray(baseline, float)
    up, down = int((change > 0).sum()), int((change < 0).sum())
    p = mcnemar(up, down)
    labels = np.zeros(change.size) if tasks is None else np.asarray(tasks)
    parts = tuple(change[labels == label] for label in np.unique(labels))

    def mean_of_means(*samples, axis=-1):
        return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)

    return Difference(*_bootstrap(mean_of_means, parts, seed, paired=False), up, down, p)


def _grouped(groups: ArrayLike | None, *columns: ArrayLike) -> tuple[np.ndarray, ...]:
    """Columns of values per document, added up by group: sums of sums are what the ratios need."""
    columns = tuple(np.asarray(values, float) for values in columns)
    if groups is None:
        return columns
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    if any(values.shape != index.shape for values in columns):
        raise ValueError(f"needs one value and one group per document, got {[v.shape for v in columns]}")
    return tuple(np.bincount(index, weights=values) for values in columns)


def _require_positive(*lists: ArrayLike) -> None:
    if not all(np.sum(values) > 0 for values in lists):
        raise ValueError(f"a ratio needs sums above 0 to divide by, got {[float(np.sum(v)) for v in lists]}")


def _ratio(top: np.ndarray, bottom: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.sum(top, axis) / np.sum(bottom, axis)


def _bootstrap(statistic: Callable, data: tuple[ArrayLike, ...], seed: int, paired: bool = True) -> Interval:
    """The statistic of the data with its interval; not `paired`: each list is resampled on its own."""
    data = tuple(np.asarray(values, float) for values in data)
    sizes = [values.size for values in data]
    alike = len(set(sizes)) == 1 or not paired
    if not all(sizes) or not alike or any(values.ndim != 1 for values in data):
        raise ValueError(f"needs one value per document in each list, got shapes {[v.shape for v in data]}")
    value = float(statistic(*data, axis=-1))
    if min(sizes) == 1:
        return Interval(value, nan, nan)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        low, high = stats.bootstrap(
            data,
            statistic,
            paired=paired,
            vectorized=True,
            method="percentile",
            confidence_level=_level(sizes[:1] if paired else sizes),
            n_resamples=RESAMPLES,
            batch=max(1, 1_000_000 // max(sizes)),  # bounds the memory to some 10 MB a list
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(value, float(low), float(high))


def _level(sizes: list[int]) -> float:
    """The level of the percentiles that cover 95 %, for samples of these sizes, each resampled on its own.

    It is Hesterberg's, with the smallest sample's variance and the degrees of freedom of all.
    """
    smallest, freedom = min(sizes), sum(sizes) - len(sizes)
    wide = np.sqrt(smallest / (smallest - 1)) * stats.t.ppf(0.975, freedom)
    return float(1 - 2 * stats.norm.sf(wide))
