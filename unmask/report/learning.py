"""The learning curves of trainings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.records.stats import wilson
from unmask.report.style import COLOURS, plt

TOKENS = "training tokens (millions)"


def learning_curve(curve: pd.DataFrame, output: Path, n: int | None = None) -> None:
    """Draw a curve (the columns of a training's curve.csv) as a PNG. n: validation documents behind every
    accuracy.

    One panel: training loss over tokens, raw and smoothed, on a log scale. A second one where validation
    accuracy was measured: a line for each decoder (the columns `accuracy` and `accuracy_...`), with Wilson's
    95% intervals where n is known. A third one for its tokens per step (`tokens_per_step...`), where a
    decoder takes more than one: of the same documents, without intervals, since the curve holds sums alone.
    """
    if not curve.empty:
        panels = 1 + bool(_accuracies(curve)) + bool(_speeds(curve))
        figure, axes = plt.subplots(1, panels, figsize=(4 * panels, 3), squeeze=False)
        _draw(axes[0], curve, n)
        figure.savefig(output, dpi=150)
        plt.close(figure)


def learning_curves(curves: Mapping[str, tuple[pd.DataFrame, int | None]], output: Path) -> None:
    """Draw several models' (curve, n) as one PNG: a row of panels each, as in `learning_curve`."""
    figure, axes = plt.subplots(len(curves), 3, figsize=(12, 3 * len(curves)), squeeze=False)
    for row, (name, (curve, n)) in zip(axes, curves.items(), strict=True):
        drawn = _draw(row, curve, n)
        row[0].set_title(name)
        for unused in row[drawn:]:
            unused.set_axis_off()
    figure.savefig(output, dpi=80)
    plt.close(figure)


def _accuracies(curve: pd.DataFrame) -> list[str]:
    return [c for c in curve if c.split("_")[0] == "accuracy" and curve[c].notna().any()]


def _speeds(curve: pd.DataFrame) -> list[str]:
    return [c for c in curve if c.startswith("tokens_per_step") and curve[c].max() > 1.2]


def _draw(axes: np.ndarray, curve: pd.DataFrame, n: int | None) -> int:
    """Fill a row of panels; returns how many."""
    columns, speeds, millions = _accuracies(curve), _speeds(curve), curve.tokens / 1e6
    axes[0].plot(millions, curve.loss, color="0.8", linewidth=1)
    axes[0].plot(millions, curve.loss.ewm(span=10).mean(), color=COLOURS[0])
    axes[0].set(yscale="log", xlabel=TOKENS, ylabel="training loss")
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("{x:g}" if curve.loss.max() < 10 * curve.loss.min() else "")
    for i, column in enumerate(columns):
        measured = curve[column].dropna()
        name = column.removeprefix("accuracy").removeprefix("_").replace("_", " ") or "first decoder"
        style = {"color": COLOURS[i % len(COLOURS)], "marker": "o", "markersize": 4, "label": name}
        axes[1].plot(millions[measured.index], 100 * measured, **style)
        if n:
            ends = np.array([wilson(share * n, n)[1:] for share in measured])
            shade = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            axes[1].fill_between(millions[measured.index], *(100 * ends.T), **shade)
    for column in speeds:
        measured = curve[column].dropna()
        colour = columns.index(column.replace("tokens_per_step", "accuracy", 1))
        style = {"color": COLOURS[colour % len(COLOURS)], "marker": "o", "markersize": 4}
        axes[2].plot(millions[measured.index], measured, **style)
    if columns:
        axes[1].set(ylim=(0, 100), xlabel=TOKENS, ylabel="validation accuracy (%)")
        axes[1].set_title(f"n = {n}, bands: 95% intervals" if n else "n and intervals are not recorded")
    if len(columns) > 1:
        axes[1].legend(loc="lower right")
    if speeds:
        axes[2].set(ylim=(0, None), xlabel=TOKENS, ylabel="useful tokens per step")
    return 1 + bool(columns) + bool(speeds)
