"""Figure 6: accuracy over throughput and over latency, every setting a point, the Pareto front a line."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from unmask.plots.style import (
    DECODERS,
    MARKERS,
    PUBLISHED,
    caption,
    headline,
    name_points,
    plt,
    save,
    spread_names,
)
from unmask.records.table import one_token

# column of our table, column of paper_figures.csv, what it is
AXES = (
    ("tokens_per_second", "throughput_tok_s", "useful tokens/s (more is better)"),
    ("latency_p50", "latency_s", "median latency in s (less is better)"),
    ("tokens_per_step", None, "useful tokens per step (more is better)"),
)


def front(x: np.ndarray, y: np.ndarray, higher: bool = True) -> np.ndarray:
    """Which points no other beats in both: at least as good in x (higher or lower) and y, and better in
    one."""
    x = np.asarray(x, float) * (1 if higher else -1)
    y = np.asarray(y, float)
    better = (
        (x[None] >= x[:, None]) & (y[None] >= y[:, None]) & ((x[None] > x[:, None]) | (y[None] > y[:, None]))
    )
    return ~better.any(1)


AUP_ALPHA, AUP_LOSS = (
    3,
    5,
)  # how fast points below the best accuracy lose weight; points lost before a setting is left out


def aup(tokens_per_step: Sequence[float], accuracy: Sequence[float], best: float) -> float:
    """Accuracy under parallelism (d3LLM, arXiv 2601.07568) of a method's settings: the area below its
    accuracy (0 to 100) over tokens per step, where accuracies below `best`, the best of all methods on the
    task, count less, and settings more than 5 points below the method's slowest not at all. It depends on
    which methods are compared."""
    points = sorted(zip(tokens_per_step, accuracy, strict=True), key=lambda point: (point[0], -point[1]))
    (begin, first), *_ = points
    points = [(x, y) for x, y in points if y >= first - AUP_LOSS]
    weighed = [y * min(1.0, math.exp(-AUP_ALPHA * (1 - y / best))) for _, y in points]
    return begin * first + sum(
        (x1 - x0) * (y0 + y1) / 2
        for (x0, _), (x1, _), y0, y1 in zip(points, points[1:], weighed, weighed[1:], strict=False)
    )


def aups(runs: pd.DataFrame) -> dict[tuple, float]:
    """AUP by (model, task, hardware, decoder), for decoders with three settings or more. One token a step of
    the same model is the first point of all its decoders."""
    found = {}
    for place, here in runs.groupby(["task", "hardware"]):
        best = 100 * here.accuracy.max()
        for model, mine in here.groupby("model"):
            one = one_token(mine)
            for decoder in mine.decoder.unique():
                points = mine[(mine.decoder == decoder) | one]
                if one.any() and len(points) >= 3:
                    found[(model, *place, decoder)] = aup(points.tokens_per_step, 100 * points.accuracy, best)
    return found


def draw(rows: pd.DataFrame, published: pd.DataFrame, output: Path, note: str) -> None:
    """Ours above: a column per task, a row per axis. Below, where there are any, the published points, a
    column per task."""
    ours, theirs = (
        list(rows.groupby(["task", "hardware"], sort=False)),
        list(published.groupby("task", sort=False)),
    )
    several = rows.hardware.nunique() > 1
    tall, wide = len(AXES), len(AXES) - 1  # tokens per step is not published for all
    heights = [2.4 * tall + 0.8, 1.9 * wide + 0.4][: 1 + bool(theirs)]  # inches
    figure = plt.figure(figsize=(7, sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    grid = parts[0, 0].subplots(tall, len(ours), squeeze=False)
    models = dict(zip(dict.fromkeys(rows.model), MARKERS * 9, strict=False))
    for column, ((task, hardware), here) in enumerate(ours):
        grid[0, column].set_title(f"{task} ({hardware})" if several else task)
        for axes, (x, *_) in zip(grid[:, column], AXES, strict=True):
            _ours(axes, here.dropna(subset=[x, "accuracy"]), x, models)
    _axes(grid, [label for *_, label in AXES])
    decoders = [d for d in DECODERS if d in set(rows.decoder)]
    marks = [plt.Line2D([], [], color=DECODERS[d], marker="o", linestyle="", label=d) for d in decoders]
    marks += [
        plt.Line2D([], [], color="0.6", marker=mark, linestyle="", label=model)
        for model, mark in models.items()
    ]
    parts[0, 0].legend(
        handles=marks, loc="outside lower left", ncols=5, fontsize=7, frameon=False, handletextpad=0
    )
    headline(parts[0, 0], "Accuracy against speed. Filled: on the Pareto front")
    if theirs:
        grid = parts[1, 0].subplots(wide, len(theirs), squeeze=False)
        for column, (task, here) in enumerate(theirs):
            grid[0, column].set_title(f"published: {task}", color=PUBLISHED)
            for axes, (_, x, _) in zip(grid[:, column], AXES, strict=False):
                seen = here.dropna(subset=[x])
                colours = [
                    DECODERS["apd" if "APD" in s else "leftright" if "K=" in s else "autoregressive"]
                    for s in seen.series
                ]
                for place, height, colour in zip(seen[x], 100 * seen.accuracy, colours, strict=True):
                    axes.plot(place, height, "s", color=colour)
                names = [
                    s if "Qwen" in s else s.removeprefix("Dream-7B ").removeprefix("APD ").split()[0]
                    for s in seen.series
                ]
                name_points(axes, seen[x], 100 * seen.accuracy, names, colours)
        _axes(grid, [label for *_, label in AXES[:wide]])
        headline(parts[1, 0], "Published, on other hardware: Dream 7B (K=1, APD at two R), Qwen2.5")
    caption(parts[-1, 0], note)
    spread_names(figure)
    save(figure, output)


def _ours(axes, rows: pd.DataFrame, x: str, models: dict[str, str]) -> None:
    """Every run a point; those that no other beats are filled, named, joined, and have their interval."""
    on = front(rows[x], rows.accuracy, higher=x != "latency_p50") if len(rows) else np.zeros(0, bool)
    for (_, row), best in zip(rows.iterrows(), on, strict=True):
        colour, mark = DECODERS.get(row.decoder, "#7F7F7F"), models[row.model]
        y = 100 * row.accuracy
        if best:
            low, high = (100 * end for end in row.accuracy_interval)
            axes.errorbar(
                row[x],
                y,
                yerr=[[y - low], [high - y]],
                fmt=mark,
                color=colour,
                elinewidth=0.8,
                markersize=4.5,
            )
        else:
            axes.plot(
                row[x], y, mark, markerfacecolor="white", markeredgecolor=colour, markersize=3, alpha=0.6
            )
    edge = rows[on].sort_values(x)
    axes.plot(edge[x], 100 * edge.accuracy, "-", color="0.75", linewidth=1, zorder=0)
    names = [
        " ".join(f"{knob}={row[knob]:g}" for knob in "RKWMT" if pd.notna(row[knob]))
        for _, row in edge.iterrows()
    ]
    names = [name or model for name, model in zip(names, edge.model, strict=True)]
    name_points(axes, edge[x], 100 * edge.accuracy, names, [DECODERS.get(d, "#7F7F7F") for d in edge.decoder])


def _axes(grid, labels: Sequence[str]) -> None:
    for row, label in zip(grid, labels, strict=True):
        for axes in row:
            axes.set(xlabel=label, ylim=(0, 100), xscale="log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.margins(x=0.12)
        row[0].set_ylabel("accuracy (%)")
