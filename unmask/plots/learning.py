"""The learning curve of one training run, from its curve.csv."""

from pathlib import Path

import pandas as pd

from unmask.plots.style import COLOURS, plt


def learning_curve(table: Path, output: Path) -> None:
    """Draw loss over tokens (log scale, raw and smoothed), and validation accuracy where it was measured, as
    a PNG."""
    curve = pd.read_csv(table)
    if curve.empty:
        return
    measured = curve.dropna(subset="accuracy")
    figure, panels = plt.subplots(
        1, 1 if measured.empty else 2, figsize=(5 if measured.empty else 8, 3), squeeze=False
    )
    axes = panels[0, 0]
    millions = curve.tokens / 1e6
    axes.plot(millions, curve.loss, color="0.8", linewidth=1)
    axes.plot(millions, curve.loss.ewm(span=10).mean(), color=COLOURS[0])
    axes.set(yscale="log", xlabel="training tokens (millions)", ylabel="training loss")
    if not measured.empty:
        axes = panels[0, 1]
        axes.plot(measured.tokens / 1e6, 100 * measured.accuracy, color=COLOURS[0], marker="o", markersize=4)
        axes.set(ylim=(0, 100), xlabel="training tokens (millions)", ylabel="validation accuracy (%)")
    figure.savefig(output, dpi=150)
    plt.close(figure)
