"""The certainty map: how sure a denoiser is of every position at every step (dParallel, figures 5 and 6)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unmask.report.style import caption, plt, save


def draw(maps: Mapping[str, np.ndarray], output: Path, note: str) -> None:
    """A panel per setting: mean probability of the likeliest token, by step (down) and position (right).

    maps: by title, (steps, positions); nan where nothing is masked any more.
    """
    steps, positions = (max(sizes) for sizes in zip(*(found.shape for found in maps.values()), strict=True))
    figure, panels = plt.subplots(
        1, len(maps), figsize=(3.6 * len(maps) + 0.6, 3.2), squeeze=False, sharex=True, sharey=True
    )
    for axes, (title, found) in zip(panels[0], maps.items(), strict=True):
        image = axes.imshow(found, vmin=0, vmax=1, aspect="auto", cmap="viridis", interpolation="nearest")
        axes.set(xlim=(-0.5, positions - 0.5), ylim=(steps - 0.5, -0.5), xlabel="position in the answer")
        axes.set_title(title, fontsize=9)
        axes.grid(False)
    panels[0, 0].set_ylabel("step")
    figure.colorbar(image, ax=panels[0].tolist(), label="mean confidence of masked positions")
    caption(figure, note)
    save(figure, output)
