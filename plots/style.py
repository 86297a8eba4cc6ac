"""One visual language for all figures: colour-blind safe (Okabe and Ito), quiet axes, captions that say what was measured."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]

plt.rcParams.update(
    {
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "font.size": 9,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 300,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "parallel decoding",  # the same figure, the same file
    }
)


def caption(figure, text: str) -> None:
    """Small grey text below the axes: n, task, models, machine."""
    figure.supxlabel(text, fontsize=6.5, color="0.4", x=0.01, ha="left", wrap=True)


def save(figure, output: Path) -> None:
    """Write a figure as PNG and SVG."""
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"))
    figure.savefig(output.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
