"""Numbers that sum up a sweep: the Pareto front, accuracy under parallelism (AUP), tokens a step at an
accuracy (PB).

All are over the settings of one named sweep, never over whatever lies in a folder: another setting moves
them.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unmask.records.stats import RESAMPLES, Interval

AUP_ALPHA = 3  # how fast accuracies below the best lose weight
AUP_LOSS = 5  # points below the method's slowest setting from which on a setting does not count
TOLERANCE = 1e-9  # points of accuracy: 82.0 is 87.0 - 5, whatever the floats say
AUP_POINTS = 3  # settings, the baseline among them, that an AUP needs


def front(x: Sequence[float], y: Sequence[float], higher: bool = True) -> np.ndarray:
    """Which points no other beats in both: as good in x (higher or lower) and in y, and better in one."""
    x = np.asarray(x, float) * (1 if higher else -1)
    y = np.asarray(y, float)
    no_worse = (x[None] >= x[:, None]) & (y[None] >= y[:, None])
    better = (x[None] > x[:, None]) | (y[None] > y[:, None])
    return ~(no_worse & better).any(1)


def aup(tokens_per_step: Sequence[float], accuracy: Sequence[float], best: float) -> float:
    """Accuracy under parallelism (d3LLM, arXiv 2601.07568) of a method's settings.

    The area below its accuracy (0 to 100) over tokens per step. Accuracies below `best`, the best of all
    methods on the task, count less, and settings more than 5 points below the method's slowest not at all:
    it depends on which methods are compared.
    """
    points = sorted(zip(tokens_per_step, accuracy, strict=True), key=lambda point: (point[0], -point[1]))
    begin, first = points[0]
    points = [(x, y) for x, y in points if y >= first - AUP_LOSS - TOLERANCE]
    weighed = [(x, y * min(1.0, math.exp(-AUP_ALPHA * (1 - y / best)))) for x, y in points]
    area = begin * first
    for (x0, y0), (x1, y1) in itertools.pairwise(weighed):
        area += (x1 - x0) * (y0 + y1) / 2
    return area


def aups(
    rows: pd.DataFrame,
    scored: Mapping[str, Sequence[dict]],
    baselines: Sequence[str],
    parents: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[tuple[str, str, str, str], Interval]:
    """AUP of every method (model, task, conditions, decoder) of a sweep, with a 95% bootstrap interval over
    documents.

    rows, scored: of a collection, one sweep's. baselines: labels, one of each model, of the setting that is
    the first point of all its methods, one token a step; parents: a student -> the model that has it. A
    method without it, or with fewer than 3 points, has no AUP. In each draw all settings of a task have the
    same documents, so that the interval is of the comparison; documents of a group task are drawn within
    their subject.
    """
    found = {}
    for task, here in rows.dropna(subset="accuracy").groupby("task", sort=False):
        methods = {}
        for method, mine in here.groupby(["model", "conditions", "decoder"], sort=False):
            model, conditions, _ = method
            same = (here.model == (parents or {}).get(model, model)) & (here.conditions == conditions)
            base = here[same & here.plain.isin(baselines)]
            runs = list(dict.fromkeys([*base.run, *mine.run]))
            if len(base) and len(runs) >= AUP_POINTS:
                methods[method] = runs
        if methods:
            found |= _with_intervals(task, here, scored, methods, seed)
    return found


def _with_intervals(task: str, here: pd.DataFrame, scored, methods: dict, seed: int) -> dict:
    order = {run: i for i, run in enumerate(here.run)}
    found_draws = draws([scored[run] for run in here.run], seed)
    found = {}
    for (model, conditions, decoder), runs in methods.items():
        columns = [order[run] for run in runs]
        values = [
            aup(per_step[columns], 100 * accuracy[columns], 100 * accuracy.max())
            for per_step, accuracy in found_draws
            if np.isfinite(per_step).all() and accuracy.max() > 0
        ]
        if values:
            found[(model, task, conditions, decoder)] = interval_of(values)
    return found


def fastest(
    scored: Mapping[str, Mapping[str, Sequence[dict]]], least: float, seed: int = 0
) -> tuple[str | None, Interval | None]:
    """(the setting of most tokens a step among those right in at least `least` percent, its tokens a step):
    ParallelBench's PB (arXiv 2510.04767); (None, None) where none is.

    scored: task -> setting -> its documents, the same settings of each. Over several tasks both numbers are
    plain means over tasks. A measured setting is taken, nothing is interpolated. In each draw of the interval
    (95%, bootstrap over the documents of a task) the setting is chosen anew; where none reaches `least`, the
    draw counts as 0.
    """
    settings = list(next(iter(scored.values())))
    tasks = [draws([here[name] for name in settings], seed + i) for i, here in enumerate(scored.values())]
    values, best = [], None
    for parts in zip(*tasks, strict=True):
        per_step, accuracy = (np.mean(each, axis=0) for each in zip(*parts, strict=True))
        reached = np.where(100 * accuracy >= least - TOLERANCE, np.nan_to_num(per_step), 0)
        if not values and reached.any():
            best = settings[int(reached.argmax())]
        values.append(reached.max())
    return (best, interval_of(values)) if best else (None, None)


def interval_of(values: Sequence[float]) -> Interval:
    """A statistic over all documents, the first value, with the 95% interval of those over `draws`."""
    low, high = np.percentile(values[1:], (2.5, 97.5)) if len(values) > 1 else (math.nan, math.nan)
    return Interval(values[0], float(low), float(high))


def draws(runs: Sequence[Sequence[dict]], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens per step, accuracy) of each run over all documents, then over every resampling of them.

    Documents that not all runs have, or that cannot be scored in one of them, are left out.
    """
    tables = [{s["doc_id"]: s for s in run if s["correct"] is not None} for run in runs]
    common = sorted(set.intersection(*map(set, tables)))
    if not common:
        return []
    subjects = np.array([tables[0][doc]["task"] for doc in common])

    def matrix(value) -> np.ndarray:  # documents x runs
        return np.array([[value(table[doc]) for table in tables] for doc in common], float)

    useful = matrix(lambda s: s["useful"])
    steps = matrix(lambda s: next(iter(s["forwards"].values())))  # the first role's forwards are the steps
    correct = matrix(lambda s: s["correct"])
    rng = np.random.default_rng(seed)
    per_subject = []
    for subject in dict.fromkeys(subjects):
        members = np.flatnonzero(subjects == subject)
        times = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
        times = np.vstack([np.ones(len(members), int), times])  # first: every document once
        share = correct / len(members)
        per_subject.append([times @ each[members] for each in (useful, steps, share)])
    tokens, forwards, accuracies = (sum(parts) for parts in zip(*per_subject, strict=True))
    accuracy = accuracies / len(per_subject)  # the unweighted mean over subjects
    with np.errstate(divide="ignore", invalid="ignore"):
        return list(zip(tokens / forwards, accuracy, strict=True))
