"""Figures 2 to 5: two measures over one knob of a decoder, ours beside the published points, never joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plots.style import COLOURS, caption, plt, save


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
    """One figure: the knob on the x axis, the decoders that have it, the knobs that must be off, what is drawn over it."""

    title: str
    x: str
    name: str
    decoders: Sequence[str]
    off: Sequence[str]
    measures: Sequence[Measure]


BY_K = "K (tokens per step)"
FIGURES = {
    "fig2": Knob("Tokens committed at once, from the left", "K", BY_K, ["leftright"], ["W", "M"], [ACCURACY, SPEED]),
    "fig3": Knob("APD: how much the draft is trusted", "R", "R (weight of the denoiser)", ["apd"], ["W", "M"], [ACCURACY, STEP]),
    "fig4": Knob("Masks that a forward sees", "M", "M (lookahead)", ["leftright", "apd"], ["W"], [ACCURACY, LENGTH]),
    "fig5": Knob("Positions recomputed", "W", "W (window)", ["leftright", "apd"], ["M"], [ACCURACY, FED]),
}


def rows_of(knob: Knob, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that belong to a figure, with the name of their series."""
    if runs.empty:
        return runs
    chosen = runs[runs.decoder.isin(knob.decoders) & runs[list(knob.off)].isna().all(axis=1)].copy()
    chosen["positions_per_answer"] = [sum(p.values()) / n for p, n in zip(chosen.positions, chosen.samples, strict=True)]
    others = [c for c in ("R", "K", "W", "M") if c != knob.x and c not in knob.off]

    def name(row) -> str:
        return " ".join([row.decoder, *(f"{c}={row[c]:g}" for c in others if pd.notna(row[c]))])

    chosen["series"] = [name(row) for _, row in chosen.iterrows()]
    size = chosen.groupby(["model", "task", "hardware", "series"])[knob.x].transform("size")
    return chosen[size > 1]  # a lone point is no curve


def draw(knob: Knob, rows: pd.DataFrame, published: pd.DataFrame, output: Path, note: str) -> None:
    """A column per model and task, and one for each published model; a row per measure."""
    ours = list(rows.groupby(["model", "task"], sort=False))
    theirs = list(published.groupby("series", sort=False))
    figure, grid = plt.subplots(len(knob.measures), len(ours) + len(theirs), squeeze=False, sharex="col",
                                figsize=(2.6 * (len(ours) + len(theirs)) + 0.6, 2.1 * len(knob.measures) + 0.9))  # fmt: skip
    for column, ((model, task), here) in enumerate(ours):
        grid[0, column].set_title(f"{model}, {task}", fontsize=8)
        lines, several = list(here.groupby(["hardware", "series"], sort=False)), here.hardware.nunique() > 1
        for axes, measure in zip(grid[:, column], knob.measures, strict=True):
            for colour, ((hardware, series), line) in zip(COLOURS, lines, strict=False):
                _line(axes, knob, line, measure, colour, f"{series} ({hardware})" if several else series)
        if len(lines) > 1:
            grid[0, column].legend(fontsize=6, frameon=False)
    for column, (series, line) in enumerate(theirs, len(ours)):
        grid[0, column].set_title(f"published: {series}", fontsize=8)
        for axes, measure in zip(grid[:, column], knob.measures, strict=True):
            if measure.published is None or line[measure.published].isna().all():
                axes.text(0.5, 0.5, "not published", ha="center", va="center", transform=axes.transAxes, color="0.5", fontsize=7)
                continue
            places, names = _places(line.x)
            axes.plot(places, measure.scale * line[measure.published], "s--", color="0.4", markersize=3, linewidth=1)
            _ticks(axes, places, names)
    for axes, measure in zip(grid[:, 0], knob.measures, strict=True):
        axes.set_ylabel(measure.label)
    for axes in grid[-1]:
        axes.set_xlabel(knob.name)
    for axes in grid[0]:
        axes.set_ylim(0, 100)
    for axes in grid[1:].flat:
        axes.set_ylim(bottom=0)
    figure.suptitle(knob.title, fontsize=9, x=0.01, ha="left")
    caption(figure, note)
    save(figure, output)


def _line(axes, knob: Knob, line: pd.DataFrame, measure: Measure, colour: str, name: str) -> None:
    places, names = _places(line[knob.x])
    order = np.argsort(places)
    values = measure.scale * line[measure.column].to_numpy()
    axes.plot(places[order], values[order], "o-", color=colour, markersize=3, label=name)
    if (ends := f"{measure.column}_interval") in line:
        low, high = (measure.scale * np.array([e[k] if e else np.nan for e in line[ends]]) for k in (0, 1))
        axes.fill_between(places[order], low[order], high[order], color=colour, alpha=0.15, linewidth=0)
    _ticks(axes, places, names)


def _places(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Where values stand on the x axis: numbers as they are; where "none" is among them, equal steps with it at the right end."""
    numbers = pd.to_numeric(values, errors="coerce")
    names = ["none" if pd.isna(v) else f"{v:g}" for v in numbers]
    if not numbers.isna().any():
        return numbers.to_numpy(), names
    return numbers.fillna(np.inf).rank(method="dense").to_numpy() - 1, names


def _ticks(axes, places: np.ndarray, names: list[str]) -> None:
    at = dict(zip(places.tolist(), names, strict=True))
    axes.set_xticks(sorted(at), [at[place] for place in sorted(at)], fontsize=7)
