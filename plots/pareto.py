"""Figure 6: accuracy over throughput and over latency, every setting a point, the Pareto front a line."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from plots.style import COLOURS, caption, plt, save

AXES = (("tokens_per_second", "throughput_tok_s", "useful tokens/s"), ("latency_p50", "latency_s", "median latency (s)"))


def front(x: np.ndarray, y: np.ndarray, higher: bool = True) -> np.ndarray:
    """Which points no other beats in both: at least as good in x (higher or lower) and y, and better in one."""
    x = np.asarray(x, float) * (1 if higher else -1)
    y = np.asarray(y, float)
    better = (x[None] >= x[:, None]) & (y[None] >= y[:, None]) & ((x[None] > x[:, None]) | (y[None] > y[:, None]))
    return ~better.any(1)


AUP_ALPHA, AUP_LOSS = 3, 5  # how fast points below the best accuracy lose weight; points lost before a setting is left out


def aup(tokens_per_step: Sequence[float], accuracy: Sequence[float], best: float) -> float:
    """Accuracy under parallelism (d3LLM, arXiv 2601.07568) of a method's settings: the area below its accuracy (0 to 100) over
    tokens per step, where accuracies below `best`, the best of all methods on the task, count less, and settings more than 5
    points below the method's slowest not at all. It depends on which methods are compared."""
    points = sorted(zip(tokens_per_step, accuracy, strict=True), key=lambda point: (point[0], -point[1]))
    (begin, first), *_ = points
    points = [(x, y) for x, y in points if y >= first - AUP_LOSS]
    weighed = [y * min(1.0, math.exp(-AUP_ALPHA * (1 - y / best))) for _, y in points]
    return begin * first + sum((x1 - x0) * (y0 + y1) / 2 for (x0, _), (x1, _), y0, y1 in
                               zip(points, points[1:], weighed, weighed[1:], strict=False))  # fmt: skip


def aups(runs: pd.DataFrame) -> dict[tuple, float]:
    """AUP by (model, task, hardware, decoder), for decoders with three settings or more. One token a step of the same model is
    the first point of all its decoders."""
    found = {}
    for place, here in runs.groupby(["task", "hardware"]):
        best = 100 * here.accuracy.max()
        for model, mine in here.groupby("model"):
            one = (mine.decoder == "leftright") & (mine.K == 1) & mine[["W", "M"]].isna().all(axis=1)
            for decoder in mine.decoder.unique():
                points = mine[(mine.decoder == decoder) | one]
                if one.any() and len(points) >= 3:
                    found[(model, *place, decoder)] = aup(points.tokens_per_step, 100 * points.accuracy, best)
    return found


def draw(rows: pd.DataFrame, published: pd.DataFrame, output: Path, note: str) -> None:
    """A column per task of ours (and per published task), a row per axis."""
    ours, theirs = list(rows.groupby(["task", "hardware"], sort=False)), list(published.groupby("task", sort=False))
    figure, grid = plt.subplots(2, len(ours) + len(theirs), squeeze=False,
                                figsize=(2.3 * (len(ours) + len(theirs)) + 2, 5))  # fmt: skip
    kinds = list(dict.fromkeys([*(rows.model + " " + rows.decoder), *published.series]))
    colours = dict(zip(kinds, COLOURS * 9, strict=False))
    for column, ((task, _), here) in enumerate(ours):
        grid[0, column].set_title(task, fontsize=8)
        for axes, (x, _, _) in zip(grid[:, column], AXES, strict=True):
            seen = here.dropna(subset=[x, "accuracy"])
            on = front(seen[x], seen.accuracy, higher=x != "latency_p50") if len(seen) else []
            for (_, row), best in zip(seen.iterrows(), on, strict=True):
                low, high = (100 * end for end in row.accuracy_interval)
                y = 100 * row.accuracy
                colour = colours[f"{row.model} {row.decoder}"]
                axes.errorbar(row[x], y, yerr=[[y - low], [high - y]], fmt="o" if best else ".", color=colour, elinewidth=0.6,
                              alpha=1 if best else 0.5)  # fmt: skip
                if best and (settings := row.label.removeprefix(row.decoder).strip()):
                    axes.annotate(settings, (row[x], y), xytext=(3, 3), textcoords="offset points", fontsize=5, color=colour)
            edge = seen[on].sort_values(x)
            axes.plot(edge[x], 100 * edge.accuracy, "-", color="0.7", linewidth=1, zorder=0)
    for column, (task, here) in enumerate(theirs, len(ours)):
        grid[0, column].set_title(f"published: {task}", fontsize=8)
        for axes, (_, x, _) in zip(grid[:, column], AXES, strict=True):
            for _, row in here.dropna(subset=[x]).iterrows():
                axes.plot(row[x], 100 * row.accuracy, "s", color=colours[row.series], markersize=4)
    for row, (_, _, label) in zip(grid, AXES, strict=True):
        for axes in row:
            axes.set(xlabel=label, ylim=(0, 100))
        row[0].set_ylabel("accuracy (%)")
    marks = []
    for kind in kinds:
        theirs = kind in set(published.series)
        marks.append(plt.Line2D([], [], color=colours[kind], marker="s" if theirs else "o", linestyle="", markersize=4,
                                label=f"published: {kind}" if theirs else kind))  # fmt: skip
    figure.legend(handles=marks, loc="outside right upper", fontsize=6, frameon=False)
    figure.suptitle("Accuracy against speed; the line is the Pareto front", fontsize=9, x=0.01, ha="left")
    caption(figure, note)
    save(figure, output)
