"""The learning curve of one training run, from its curve.csv."""

from pathlib import Path

import pandas as pd

from plots.style import COLOURS, plt


def learning_curve(table: Path, output: Path) -> None:
    """Draw loss over tokens (log scale, raw and smoothed) as a PNG."""
    curve = pd.read_csv(table)
    if curve.empty:
        return
    figure, axes = plt.subplots(figsize=(5, 3))
    millions = curve.tokens / 1e6
    axes.plot(millions, curve.loss, color="0.8", linewidth=1)
    axes.plot(millions, curve.loss.ewm(span=10).mean(), color=COLOURS[0])
    axes.set(yscale="log", xlabel="training tokens (millions)", ylabel="training loss (nats per token)")
    figure.savefig(output, dpi=150)
    plt.close(figure)
