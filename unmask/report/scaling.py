"""Cost curves: what a step feeds, what it takes, and what comes out, over one setting."""

from pathlib import Path

import pandas as pd

from unmask.report.style import COLOURS, caption, plt

PANELS = {
    "positions_per_step": "positions fed per step and row",
    "milliseconds_per_step": "milliseconds per step and row",
    "tokens_per_second": "useful tokens a second",
}
NAMES = {"task.max_new_tokens": "canvas (tokens)", "batch_size": "batch size"}


def curves(table: pd.DataFrame, setting: str, output: Path, note: str) -> None:
    """One line an arm in three panels; `table` has a row per arm and value of the setting."""
    figure, panels = plt.subplots(1, len(PANELS), figsize=(9, 3))
    for axes, (measure, label) in zip(panels, PANELS.items(), strict=True):
        for colour, (name, rows) in zip(COLOURS, table.groupby("arm", sort=False), strict=False):
            values = rows[measure].map(lambda v: v[0] if isinstance(v, tuple) else v)
            axes.plot(rows[setting], values, "o-", color=colour, label=name, markersize=3)
        axes.set(xscale="log", yscale="log", xlabel=NAMES.get(setting, setting), ylabel=label)
        axes.set_xticks(sorted(set(table[setting])), sorted(set(table[setting])))
        axes.minorticks_off()
    panels[0].legend(frameon=False, fontsize=7)
    caption(figure, note)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    plt.close(figure)
