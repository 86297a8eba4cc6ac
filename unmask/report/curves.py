"""Kind `curve`: measures over one setting, ours beside the published points, never joined."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from unmask.records.collection import Collection
from unmask.records.identity import canonical, flatten
from unmask.records.naming import SYMBOLS, labels
from unmask.report.definition import Curve
from unmask.report.measures import MEASURES, Measure, comparable
from unmask.report.style import DECODERS, PUBLISHED, caption, headline, plt, save, styles


@dataclass
class Line:
    """A series of a panel: runs that differ in x alone, from left to right; `positions` on the x axis."""

    name: str
    decoder: str
    rows: pd.DataFrame
    positions: np.ndarray

    def among(self, runs: set[str]) -> "Line":
        keep = self.rows.run.isin(runs).to_numpy()
        return replace(self, rows=self.rows[keep], positions=self.positions[keep])


def draw(curve: Curve, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """A column per model and task, and one for each published series; a row per measure.

    ValueError where no run has the setting on the x axis.
    """
    if not any(curve.x in flatten(config) for config in found.configs.values()):
        raise ValueError(f"figure {curve.name}: draw.x={curve.x}: none of its runs has this setting")
    ours = list(found.rows.groupby(["model", "task"], sort=False))
    theirs = list(published.groupby("series", sort=False))
    measures = [MEASURES[name] for name in curve.measures]
    if published.empty and not any(comparable(here)[0].any() for _, here in ours):
        measures = [measure for measure in measures if not measure.time]
    measures = [measure for measure in measures if found.rows[measure.column].notna().any()]
    columns = len(ours) + len(theirs)
    figure, grid = plt.subplots(
        len(measures),
        columns,
        squeeze=False,
        sharex="col",
        figsize=(max(4.5, 1.85 * columns + 0.5), 1.45 * len(measures) + 1),
    )
    for column, (names, here) in zip(grid.T, ours, strict=False):
        column[0].set_title("\n".join(names))
        _ours(column, curve, measures, found, here)
    for column, (series, points) in zip(grid.T[len(ours) :], theirs, strict=True):
        model, _, method = series.partition(" ")
        column[0].set_title(f"published: {model}\n{method}, {points.task.iloc[0]}", color=PUBLISHED)
        _theirs(column, measures, points)
    for axes, measure in zip(grid[:, 0], measures, strict=True):
        axes.set_ylabel(fill(measure.label, 20))  # no longer than its panel
    for axes in grid[-1]:
        axes.set_xlabel(curve.x_label or symbol(curve))
    for row, measure in zip(grid, measures, strict=True):
        for axes in row:
            if measure.column == "accuracy":
                axes.set(ylim=(0, 115), yticks=range(0, 101, 20))  # room for the names of lines
            else:
                axes.set_ylim(0, 1.12 * axes.dataLim.ymax if axes.lines else 1)
    figure.align_ylabels()
    headline(figure, curve.title)
    caption(figure, note)
    save(figure, output)


def symbol(curve: Curve) -> str:
    """The setting on the x axis, in short."""
    word = curve.x.split(".")[-1]
    return SYMBOLS.get(word, word)


def lines_of(curve: Curve, found: Collection, here: pd.DataFrame) -> tuple[list[Line], dict, pd.DataFrame]:
    """(the series of a panel, its ticks {position: name}, the rows of settings that have no x)."""
    flat = {run: flatten(found.configs[run]) for run in here.run}
    on_axis = here[[curve.x in flat[run] for run in here.run]]
    if on_axis.empty:
        return [], {}, here
    positions, names = positions_of([flat[run][curve.x] for run in on_axis.run])
    keys = [canonical({k: v for k, v in flat[run].items() if k != curve.x}) for run in on_axis.run]
    groups = [rows for _, rows in on_axis.assign(position=positions).groupby(keys, sort=False)]
    groups = [rows.sort_values("position") for rows in groups]
    titles = labels([found.configs[rows.run.iloc[0]] for rows in groups], without=curve.x)
    lines = [
        Line(title, rows.decoder.iloc[0], rows, rows.position.to_numpy())
        for title, rows in zip(titles, groups, strict=True)
    ]
    return lines, dict(zip(positions.tolist(), names, strict=True)), here[~here.run.isin(on_axis.run)]


def positions_of(values: Sequence) -> tuple[np.ndarray, list[str]]:
    """(where values stand on the x axis, what is written there).

    Numbers stand where they are; where one is switched off (None), in equal steps with "none" at the right
    end; words in the order in which they come.
    """
    if any(isinstance(value, str) for value in values):
        words = [str(value) for value in values]
        order = list(dict.fromkeys(words))
        return np.array([order.index(word) for word in words], float), words
    numbers = pd.Series(values, dtype=float)
    names = ["none" if pd.isna(value) else f"{value:g}" for value in numbers]
    if not numbers.isna().any():
        return numbers.to_numpy(), names
    return numbers.fillna(np.inf).rank(method="dense").to_numpy() - 1, names


def _ours(column, curve: Curve, measures: Sequence[Measure], found: Collection, here: pd.DataFrame) -> None:
    lines, ticks, levels = lines_of(curve, found, here)
    drawn_as = styles([line.decoder for line in lines])
    timed = set(here.run[comparable(here)[0]])
    for axes, measure in zip(column, measures, strict=True):
        shown = timed if measure.time else set(here.run)
        if not shown:
            _say(axes, "not compared")
            continue
        for style, line in zip(drawn_as, lines, strict=True):
            _line(axes, line.among(shown), measure, **style)
        for _, level in levels[levels.run.isin(shown)].dropna(subset=measure.column).iterrows():
            name = level.label.removeprefix("leftright ")  # K=1
            _level(axes, measure.scale * level[measure.column], name, DECODERS[level.decoder])
        _ticks(axes, ticks)
    if len(lines) > 1:
        first = measures[0]
        marks = [first.scale * v for v in levels[first.column].dropna()] if len(levels) else []
        _name(column[0], lines, first, [style["color"] for style in drawn_as], marks)


def _theirs(column, measures: Sequence[Measure], points: pd.DataFrame) -> None:
    positions, names = positions_of([None if x == "none" else float(x) for x in points.x])
    for axes, measure in zip(column, measures, strict=True):
        if measure.published is None or points[measure.published].isna().all():
            _say(axes, "not published")
            continue
        axes.plot(positions, measure.scale * points[measure.published], "s--", color=PUBLISHED)
        _ticks(axes, dict(zip(positions.tolist(), names, strict=True)))


def _line(axes, line: Line, measure: Measure, color: str, **style) -> None:
    values = measure.scale * line.rows[measure.column].astype(float)
    axes.plot(line.positions, values, marker="o", color=color, **style)
    if (ends := f"{measure.column}_interval") in line.rows:
        pairs = [pair if isinstance(pair, list) else [np.nan, np.nan] for pair in line.rows[ends]]
        low, high = measure.scale * np.array(pairs, float).reshape(-1, 2).T
        axes.fill_between(line.positions, low, high, color=color, alpha=0.15, linewidth=0)


def _level(axes, value: float, name: str, colour: str) -> None:
    """A dotted line across the panel: a setting that has no such thing as x."""
    axes.axhline(value, color=colour, linestyle=":", linewidth=1)
    axes.annotate(
        name,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1),
        textcoords="offset points",
        color=colour,
        ha="right",
        va="bottom",
        fontsize=7,
    )


def _say(axes, text: str) -> None:
    """Words instead of a curve."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=PUBLISHED)
    axes.set_yticks([])


def _name(
    axes, lines: Sequence[Line], measure: Measure, colours: Sequence[str], levels: Sequence[float]
) -> None:
    """Write each line's name beside it, where it is farthest from all others and from the dotted levels, and
    on the side where its nearest neighbour is not."""
    curves = [(line.positions, measure.scale * line.rows[measure.column].to_numpy(float)) for line in lines]
    for i, ((positions, values), line, colour) in enumerate(zip(curves, lines, colours, strict=True)):
        others = [np.interp(positions, *curve) for j, curve in enumerate(curves) if j != i]
        others = np.array([*others, *(np.full(len(positions), level) for level in levels)])
        distance = np.nan_to_num(np.abs(others - values))
        at = int(distance.min(0).argmax())
        above = values[at] > others[distance[:, at].argmin(), at]
        align = "left" if at == 0 else "right" if at == len(positions) - 1 else "center"
        axes.annotate(
            line.name,
            (positions[at], values[at]),
            xytext=(0, 5 if above else -5),
            textcoords="offset points",
            color=colour,
            ha=align,
            va="bottom" if above else "top",
            fontsize=7,
        )


def _ticks(axes, ticks: dict[float, str]) -> None:
    axes.set_xticks(sorted(ticks), [ticks[position] for position in sorted(ticks)])
