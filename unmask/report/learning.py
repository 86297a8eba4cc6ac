"""The learning curve of one training run, from its curve.csv."""

from pathlib import Path

import numpy as np
import pandas as pd

from unmask.records.stats import wilson
from unmask.report.style import COLOURS, plt


def learning_curve(table: Path, output: Path, n: int | None = None) -> None:
    """Draw a curve.csv as a PNG. n: validation documents behind every accuracy.

    One panel: training loss over tokens, raw and smoothed, on a log scale. A second one where validation
    accuracy was measured: a line for each decoder (the columns `accuracy` and `accuracy_...`), with Wilson's
    95% intervals where n is known. A third one for its tokens per step (`tokens_per_step...`), where a
    decoder takes more than one: of the same documents, without intervals, since the curve holds sums alone.
    """
    curve = pd.read_csv(table)
    if curve.empty:
        return
    columns = [c for c in curve if c.split("_")[0] == "accuracy" and curve[c].notna().any()]
    speeds = [c for c in curve if c.startswith("tokens_per_step") and curve[c].max() > 1.2]
    panels = 1 + bool(columns) + bool(speeds)
    figure, axes = plt.subplots(1, panels, figsize=(4 * panels, 3), squeeze=False)
    millions = curve.tokens / 1e6

    loss = axes[0, 0]
    loss.plot(millions, curve.loss, color="0.8", linewidth=1)
    loss.plot(millions, curve.loss.ewm(span=10).mean(), color=COLOURS[0])
    loss.set(yscale="log", xlabel="training tokens (millions)", ylabel="training loss")

    for i, column in enumerate(columns):
        measured = curve[column].dropna()
        name = column.removeprefix("accuracy").removeprefix("_").replace("_", " ") or "first decoder"
        style = {"color": COLOURS[i % len(COLOURS)], "marker": "o", "markersize": 4, "label": name}
        axes[0, 1].plot(millions[measured.index], 100 * measured, **style)
        if n:
            ends = np.array([wilson(share * n, n)[1:] for share in measured])
            shade = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            axes[0, 1].fill_between(millions[measured.index], *(100 * ends.T), **shade)
    for column in speeds:
        measured = curve[column].dropna()
        colour = columns.index(column.replace("tokens_per_step", "accuracy", 1))
        style = {"color": COLOURS[colour % len(COLOURS)], "marker": "o", "markersize": 4}
        axes[0, 2].plot(millions[measured.index], measured, **style)
    if speeds:
        axes[0, 2].set(ylim=(0, None), xlabel="training tokens (millions)", ylabel="useful tokens per step")
    if columns:
        axes[0, 1].set(ylim=(0, 100), xlabel="training tokens (millions)", ylabel="validation accuracy (%)")
        axes[0, 1].set_title(f"n = {n}, bands: 95% intervals" if n else "n and intervals are not recorded")
    if len(columns) > 1:
        axes[0, 1].legend(loc="lower right")
    figure.savefig(output, dpi=150)
    plt.close(figure)
