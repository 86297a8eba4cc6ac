"""Kind `pareto`: accuracy over measures of cost, every setting a point, the front of each a line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from unmask.records.collection import Collection
from unmask.report.definition import Pareto
from unmask.report.fronts import front
from unmask.report.measures import MEASURES, Measure, comparable
from unmask.report.style import (
    DASHES,
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


def draw(pareto: Pareto, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """Ours above: a column per task, a row per measure. Below, where there are any, the published points."""
    rows = found.rows
    ours, theirs = list(rows.groupby("task", sort=False)), list(published.groupby("task", sort=False))
    timed = {task: here[drawn(pareto, comparable(here)[0])] for task, here in ours}
    wanted = [MEASURES[name] for name in pareto.measures]
    measures = [m for m in wanted if not m.time or any(len(some) for some in timed.values())]
    over = wanted + [MEASURES["tokens_per_second"]] * ("speedup" in pareto.measures)  # no ratio was published
    shared = [m for m in over if m.published in published and published[m.published].notna().mean() > 0.8]
    if theirs and not shared:  # over what they were published over
        published = published.assign(x=published.x.astype(float))
        theirs = list(published.groupby("task", sort=False))
        shared = [Measure("x", "", published="x")]
    # inches; the caption is in the last part, since the legend is in the first
    heights = [2.4 * len(measures) + 0.8, 1.9 * len(shared) * bool(theirs) + 0.13 * (2 + len(note) // 140)]
    figure = plt.figure(figsize=(7, sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    grid = parts[0].subplots(len(measures), len(ours), squeeze=False)
    marks = dict(zip(dict.fromkeys(rows.model), MARKERS * 9, strict=False))
    for column, (task, here) in zip(grid.T, ours, strict=True):
        column[0].set_title(task)
        for axes, measure in zip(column, measures, strict=True):
            here = timed[task] if measure.time else here
            if here.empty:
                axes.text(0.5, 0.5, "not compared", ha="center", transform=axes.transAxes, color=PUBLISHED)
            else:
                draw_ours = _methods if pareto.lines == "methods" else _points
                draw_ours(axes, here.dropna(subset=[measure.column, "accuracy"]), measure, marks)
    _axes(grid, measures)
    _legend(parts[0], rows, marks)
    headline(parts[0], pareto.title)
    if theirs:
        grid = parts[1].subplots(len(shared), len(theirs), squeeze=False)
        for column, (task, here) in zip(grid.T, theirs, strict=True):
            column[0].set_title(f"published: {task}", color=PUBLISHED)
            for axes, measure in zip(column, shared, strict=True):
                _published(axes, here.dropna(subset=[measure.published]), measure)
        _axes(grid, shared)
        if shared[0].column == "x":
            for axes, (_, here) in zip(grid[0], theirs, strict=True):
                axes.set_xlabel(here.x_name.iloc[0])
        headline(parts[1], "Published, on other hardware")
    caption(parts[-1], ("Filled: on the Pareto front. " if pareto.lines == "front" else "") + note)
    spread_names(figure)
    save(figure, output)


def drawn(pareto: Pareto, timed: np.ndarray) -> np.ndarray:
    """Which rows of a panel are drawn over a time, of those whose times compare: a front is of all settings,
    so it has all or none."""
    return timed & timed.all() if pareto.lines == "front" else timed


def short_name(row: pd.Series) -> str:
    """The knobs of a setting, as its label has them, or else its model."""
    knobs = [word for word in row.plain.split() if "=" in word]
    return " ".join(knobs) or row.model


def _points(axes, rows: pd.DataFrame, measure: Measure, marks: dict[str, str]) -> None:
    """Every run a point; those that no other beats are filled, named, joined, and have their interval."""
    on = front(rows[measure.column], rows.accuracy, measure.higher) if len(rows) else np.zeros(0, bool)
    for (_, row), best in zip(rows.iterrows(), on, strict=True):
        colour, mark = DECODERS[row.decoder], marks[row.model]
        x, y = measure.scale * row[measure.column], 100 * row.accuracy
        if best:
            low, high = (100 * end for end in row.accuracy_interval)
            bars = {
                "yerr": [[max(0, y - low)], [max(0, high - y)]],
                "xerr": cost_bars(row.to_frame().T, measure),
            }
            axes.errorbar(x, y, **bars, fmt=mark, color=colour, elinewidth=0.8, markersize=4.5)
        else:
            hollow = {"markerfacecolor": "white", "markeredgecolor": colour, "alpha": 0.6}
            axes.plot(x, y, mark, markersize=3, **hollow)
    edge = rows[on].sort_values(measure.column)
    x, y = measure.scale * edge[measure.column], 100 * edge.accuracy
    axes.plot(x, y, "-", color="0.75", linewidth=1, zorder=0)
    names = [short_name(row) for _, row in edge.iterrows()]
    name_points(axes, x, y, names, [DECODERS[decoder] for decoder in edge.decoder])


def _methods(axes, rows: pd.DataFrame, measure: Measure, marks: dict[str, str]) -> None:
    """Lines through the settings of each model and decoder that differ in one knob, with their intervals, and
    with a name beside those that are not a method's main one."""
    models = list(dict.fromkeys(rows.model))
    lines = list(lines_of(rows))
    for (model, decoder), name, mine in lines:
        mine = mine.sort_values(measure.column)
        y = 100 * mine.accuracy
        low, high = 100 * np.array(mine.accuracy_interval.tolist()).T
        style = {"color": DECODERS[decoder], "linestyle": DASHES[models.index(model) % len(DASHES)]}
        bars = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
        axes.errorbar(
            measure.scale * mine[measure.column],
            y,
            yerr=bars,
            xerr=cost_bars(mine, measure),
            marker=marks[model],
            markersize=4,
            linewidth=1,
            elinewidth=0.5,
            **style,
        )
        as_long = [line for method, _, line in lines if method == (model, decoder) and len(line) >= len(mine)]
        if name and len(as_long) > 1:  # others are as long: it is not the main one
            end = mine.iloc[-1 if measure.higher else 0]
            point = [measure.scale * end[measure.column]], [100 * end.accuracy]
            name_points(axes, *point, [name], [style["color"]])


def cost_bars(rows: pd.DataFrame, measure: Measure) -> np.ndarray | None:
    """(2, n) distances from a measure to its interval's ends, 0 where there is none; None without any."""
    if (ends := f"{measure.column}_interval") not in rows:
        return None
    values = rows[measure.column].astype(float)
    pairs = [pair if isinstance(pair, list) else [v, v] for pair, v in zip(rows[ends], values, strict=True)]
    low, high = np.array(pairs, float).T
    return measure.scale * np.maximum(np.array([values - low, high - values]), 0)


def lines_of(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], str, pd.DataFrame]]:
    """((model, decoder), what sets a line apart from the method's others, its rows).

    A line's settings differ in one knob alone: the number that takes most values among the method's settings.
    """
    for method, mine in rows.groupby(["model", "decoder"], sort=False):
        knobs = [dict(word.split("=", 1) for word in label.split() if "=" in word) for label in mine.plain]
        names = dict.fromkeys(key for each in knobs for key in each)
        values = {key: {each.get(key) for each in knobs} for key in names}
        numbers = [key for key in names if all(v is None or is_number(v) for v in values[key])]
        moving = max(numbers, key=lambda key: len(values[key]), default=None)
        told = [key for key in names if key != moving and len(values[key]) > 1]
        lines = [" ".join(f"{k}={each[k]}" for k in told if k in each) for each in knobs]
        for name, line in mine.groupby(pd.Series(lines, mine.index), sort=False):
            yield method, name, line


def is_number(text: str) -> bool:
    """Whether a knob's value is one."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _published(axes, points: pd.DataFrame, measure: Measure) -> None:
    named = points.groupby("series", sort=False).first()  # a line has its name at its first point
    names = [_their_name(series) for series in named.index]
    colours = [DECODERS[_their_decoder(series)] for series in named.index]
    for (_, line), colour in zip(points.groupby("series", sort=False), colours, strict=True):
        axes.plot(line[measure.published], 100 * line.accuracy, "s--", color=colour, linewidth=1)
    name_points(axes, named[measure.published], 100 * named.accuracy, names, colours)


def _their_decoder(series: str) -> str:
    known = {"APD": "apd", "D2F": "d2f", "dParallel": "dparallel", "threshold": "threshold"}
    for word, decoder in (known | {"Dream-Base": "confidence"}).items():
        if word in series:
            return decoder
    return "leftright" if "K=" in series or "leftright" in series else "autoregressive"


def _their_name(series: str) -> str:
    """What tells the series apart: "Qwen 7B", "K=1", "R=0.6"."""
    knobs = [word for word in series.split() if "=" in word]
    return knobs[0] if knobs else series


def _legend(part, rows: pd.DataFrame, marks: dict[str, str]) -> None:
    decoders = sorted(set(rows.decoder), key=lambda d: list(DECODERS).index(d) if d in DECODERS else 99)
    handles = [plt.Line2D([], [], color=DECODERS[d], marker="o", linestyle="", label=d) for d in decoders]
    for name, mark in marks.items():
        handles.append(plt.Line2D([], [], color="0.6", marker=mark, linestyle="", label=name))
    style = {"ncols": 5, "fontsize": 7, "frameon": False, "handletextpad": 0}
    part.legend(handles=handles, loc="outside lower left", **style)


def _axes(grid, measures: Sequence[Measure]) -> None:
    for row, measure in zip(grid, measures, strict=True):
        for axes in row:
            better = "more" if measure.higher else "less"
            words = fill(f"{measure.label} ({better} is better)", max(22, 90 // len(row)))
            axes.set(xlabel=words, ylim=(0, 100), xscale="log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.margins(x=0.12)
        row[0].set_ylabel("accuracy (%)")
