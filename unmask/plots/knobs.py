"""Figures 2 to 5: two measures over one knob of a decoder, ours beside the published points, never joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.plots.style import DECODERS, PUBLISHED, caption, headline, plt, save, styles


@dataclass(frozen=True)
class Measure:
    column: str
    label: str
    published: str | None = None  # column of paper_figures.csv
    scale: float = 1


ACCURACY = Measure("accuracy", "accuracy (%)", "accuracy", 100)
SPEED = Measure("tokens_per_second", "useful tokens/s", "throughput_tok_s")
STEP = Measure("tokens_per_step", "useful tokens per step", "tokens_per_step")
LENGTH = Measure("mean_generated_tokens", "generated tokens", "generated_tokens")
FED = Measure("positions_per_answer", "positions fed per answer")


@dataclass(frozen=True)
class Knob:
    """One figure: the knob on the x axis, the decoders that have it, the knobs that must be off, what is
    drawn over it."""

    title: str
    x: str
    name: str
    decoders: Sequence[str]
    off: Sequence[str]
    measures: Sequence[Measure]


FIGURES = {
    "fig2": Knob(
        "Tokens committed at once, from the left",
        "K",
        "K",
        ["leftright"],
        ["W", "M"],
        [ACCURACY, SPEED, STEP],
    ),
    "fig3": Knob(
        "APD: how far the denoiser is trusted",
        "R",
        "R (its weight)",
        ["apd"],
        ["W", "M"],
        [ACCURACY, SPEED, STEP],
    ),
    "fig4": Knob(
        "Masks that a forward sees",
        "M",
        "M (lookahead)",
        ["leftright", "apd"],
        ["W"],
        [ACCURACY, SPEED, LENGTH],
    ),
    "fig5": Knob(
        "Positions recomputed", "W", "W (window)", ["leftright", "apd"], ["M"], [ACCURACY, SPEED, FED]
    ),
}


def rows_of(knob: Knob, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that belong to a figure, with the name of their series."""
    if runs.empty:
        return runs
    chosen = runs[runs.decoder.isin(knob.decoders) & runs[list(knob.off)].isna().all(axis=1)].copy()
    chosen["positions_per_answer"] = [
        sum(p.values()) / n for p, n in zip(chosen.positions, chosen.samples, strict=True)
    ]
    others = [c for c in ("R", "K", "W", "M") if c != knob.x and c not in knob.off]

    def name(row) -> str:
        return " ".join([row.decoder, *(f"{c}={row[c]:g}" for c in others if pd.notna(row[c]))])

    chosen["series"] = [name(row) for _, row in chosen.iterrows()]
    size = chosen.groupby(["model", "task", "hardware", "series"])[knob.x].transform("size")
    longest = size.groupby([chosen[c] for c in ("model", "task", "hardware")]).transform("max")
    return chosen[
        (size > 1) & (2 * size >= longest)
    ]  # a lone point is no curve, and what other figures left over neither


def draw(
    knob: Knob, rows: pd.DataFrame, published: pd.DataFrame, output: Path, note: str, one: pd.DataFrame
) -> None:
    """A column per model and task, and one for each published model; a row per measure. `one`: runs of one
    token a step, which figures without that point show as a level."""
    ours = list(rows.groupby(["model", "task"], sort=False))
    theirs = list(published.groupby("series", sort=False))
    columns = len(ours) + len(theirs)
    figure, grid = plt.subplots(
        len(knob.measures),
        columns,
        squeeze=False,
        sharex="col",
        figsize=(1.85 * columns + 0.5, 1.45 * len(knob.measures) + 1),
    )
    for column, ((model, task), here) in enumerate(ours):
        grid[0, column].set_title(f"{model}\n{task}")
        here = here.sort_values(knob.x, kind="stable")  # from left to right, "none" at the end
        lines, several = list(here.groupby(["hardware", "series"])), here.hardware.nunique() > 1
        looks = styles([line.decoder.iloc[0] for _, line in lines])
        for axes, measure in zip(grid[:, column], knob.measures, strict=True):
            for look, (_, line) in zip(looks, lines, strict=True):
                _line(axes, knob, line, measure, **look)
            for _, level in one[
                (one.model == model) & (one.task == task) & one.hardware.isin(here.hardware)
            ].iterrows():
                if level.run not in set(here.run):
                    _level(axes, measure.scale * level[measure.column])
        if len(lines) > 1:
            names = [f"{series} ({hardware})" if several else series for (hardware, series), _ in lines]
            _name(
                grid[0, column],
                knob,
                [line for _, line in lines],
                knob.measures[0],
                names,
                [look["color"] for look in looks],
            )
    for column, (series, line) in enumerate(theirs, len(ours)):
        model, _, method = series.partition(" ")
        grid[0, column].set_title(f"published: {model}\n{method}, {line.task.iloc[0]}", color=PUBLISHED)
        for axes, measure in zip(grid[:, column], knob.measures, strict=True):
            if measure.published is None or line[measure.published].isna().all():
                axes.text(
                    0.5,
                    0.5,
                    "not published",
                    ha="center",
                    va="center",
                    transform=axes.transAxes,
                    color=PUBLISHED,
                )
                axes.set_yticks([])
                continue
            places, names = _places(line.x)
            axes.plot(places, measure.scale * line[measure.published], "s--", color=PUBLISHED)
            _ticks(axes, places, names)
    for axes, measure in zip(grid[:, 0], knob.measures, strict=True):
        axes.set_ylabel(measure.label)
    for axes in grid[-1]:
        axes.set_xlabel(knob.name)
    for axes in grid[0]:
        axes.set_ylim(0, 100)
    for axes in grid[1:].flat:
        axes.set_ylim(0, 1.12 * axes.dataLim.ymax if axes.lines else 1)
    figure.align_ylabels()
    headline(figure, knob.title)
    caption(figure, note)
    save(figure, output)


def _line(axes, knob: Knob, line: pd.DataFrame, measure: Measure, color: str, **style) -> None:
    places, names = _places(line[knob.x])
    axes.plot(places, measure.scale * line[measure.column], marker="o", color=color, **style)
    if (ends := f"{measure.column}_interval") in line:
        low, high = (measure.scale * np.array([e[k] if e else np.nan for e in line[ends]]) for k in (0, 1))
        axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    _ticks(axes, places, names)


def _level(axes, value: float) -> None:
    """A dotted line across the panel: one token a step."""
    axes.axhline(value, color=DECODERS["leftright"], linestyle=":", linewidth=1)
    axes.annotate(
        "K=1",
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1),
        textcoords="offset points",
        color=DECODERS["leftright"],
        ha="right",
        va="bottom",
        fontsize=7,
    )


def _name(
    axes, knob: Knob, lines: list[pd.DataFrame], measure: Measure, names: list[str], colours: list[str]
) -> None:
    """Write each line's name beside it, where it is farthest from all others."""
    curves = [(_places(line[knob.x])[0], measure.scale * line[measure.column].to_numpy()) for line in lines]
    for i, ((places, values), name, colour) in enumerate(zip(curves, names, colours, strict=True)):
        others = np.array([np.interp(places, *curve) for j, curve in enumerate(curves) if j != i])
        at = np.abs(others - values).min(0).argmax()
        above = values[at] > others[:, at].mean()
        align = "left" if at == 0 else "right" if at == len(places) - 1 else "center"
        axes.annotate(
            name,
            (places[at], values[at]),
            xytext=(0, 5 if above else -5),
            textcoords="offset points",
            color=colour,
            ha=align,
            va="bottom" if above else "top",
            fontsize=7,
        )


def _places(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Where values stand on the x axis: numbers as they are; where "none" is among them, equal steps with it
    at the right end."""
    numbers = pd.to_numeric(values, errors="coerce")
    names = ["none" if pd.isna(v) else f"{v:g}" for v in numbers]
    if not numbers.isna().any():
        return numbers.to_numpy(), names
    return numbers.fillna(np.inf).rank(method="dense").to_numpy() - 1, names


def _ticks(axes, places: np.ndarray, names: list[str]) -> None:
    at = dict(zip(places.tolist(), names, strict=True))
    axes.set_xticks(sorted(at), [at[place] for place in sorted(at)])
