"""Figures and tables of the paper from results/:  python report.py figure=fig3

    python report.py                 # every figure that results/ has runs for
    python report.py figure=tab1     # one of fig2 fig3 fig4 fig5 fig6 tab1

Reads records and nothing else. For every figure: PNG, SVG and the CSV behind it in figures/; for tables
Markdown and LaTeX too. Published points stand in panels of their own, with their hardware, and are never
joined with ours.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import os
import sys

import pandas as pd

from unmask.cli import door

from unmask.config import ROOT
from unmask.plots import knobs, pareto
from unmask.plots.tables import write_tables
from unmask.records.table import one_token, table

PUBLISHED = ROOT / "unmask" / "plots" / "paper_figures.csv"
FIGURES = [*knobs.FIGURES, "fig6", "tab1"]
TAB1 = ["random_order", "entropy", "confidence", "leftright", "apd"]


@door("report")
def main(cfg) -> None:
    if cfg.figure not in ("all", *FIGURES):
        raise ValueError(f"figure={cfg.figure}: choose one of {', '.join(FIGURES)} or all")
    results, output = ROOT / cfg.results, ROOT / cfg.output
    if not results.is_dir():
        raise ValueError(f"results={cfg.results}: no such folder; run something first (python eval.py)")
    runs, samples = table(results)
    published = (
        pd.read_csv(PUBLISHED, dtype={"x": str}) if cfg.published else pd.DataFrame(columns=["figure"])
    )
    drawn = {}
    for name in FIGURES if cfg.figure == "all" else [cfg.figure]:
        rows = select(name, runs)
        if rows.empty:
            print(
                f"{name}: no finished runs in {cfg.results} (scripts/{name}.sh makes them)", file=sys.stderr
            )
            continue
        theirs, stem = published[published.figure.astype(str) == name.removeprefix("fig")], output / name
        if name == "tab1":
            write_tables(rows, samples, runs, stem)
        elif name == "fig6":
            pareto.draw(rows, theirs, stem, note(rows, len(theirs)))
        else:
            knobs.draw(
                knobs.FIGURES[name], rows, theirs, stem, note(rows, len(theirs)), runs[one_token(runs)]
            )
        rows.to_csv(stem.with_suffix(".csv"), index=False)
        drawn[name] = os.path.relpath(stem.with_suffix(".md" if name == "tab1" else ".png"))
        print(f"{name}: {drawn[name]} ({len(rows)} runs)")
    if not drawn:
        raise ValueError(f"nothing to draw: {cfg.results} has no finished runs of {cfg.figure}")
    print(json.dumps(drawn))


def select(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a figure shows."""
    if runs.empty or name == "fig6":
        return runs
    if name == "tab1":
        return runs[
            runs.decoder.isin(TAB1)
            & runs.W.isna()
            & (runs.M.isna() | (runs.decoder == "apd"))
            & ~(runs.K > 1)
        ]
    return knobs.rows_of(knobs.FIGURES[name], runs)


def note(rows: pd.DataFrame, published: int) -> str:
    """What a figure's caption says: what was measured, on what, with which code."""

    def spread(values) -> str:
        ends = sorted(set(values))
        return f"{ends[0]}" if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"

    tasks, models, machines, dtypes, commits = (
        ", ".join(sorted(set(rows[c]))) for c in ("task", "model", "hardware", "dtype", "commit")
    )
    tiny = " (tiny stand-in family)" if any(model.startswith("tiny_") for model in rows.model) else ""
    words = [
        f"n = {spread(rows.n)}",
        f"tasks: {tasks}",
        f"models: {models}{tiny}",
        f"hardware: {machines}, {dtypes}",
    ]
    words += [f"commit {commits}", "bands and bars: 95% intervals"]
    if rows.hardware.nunique() > 1:
        words.append("rows from different hardware are not joined")
    if published:
        words.append("published points: arXiv 2506.00413, RTX A5000")
    return ". ".join(words) + "."


if __name__ == "__main__":
    main()
