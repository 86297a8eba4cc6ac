"""Kind `board`: every method at its best setting within a loss of accuracy, and all settings in one picture.

A method is a decoder on a model. Its loss is counted against one token a forward by the model that it comes
from, paired by document. The best of several settings is chosen on the documents that it is reported on, so
its loss is a little too good: the interval is of the setting, not of the choice.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.records.collection import Collection
from unmask.records.comparing import compare
from unmask.report import pareto
from unmask.report.definition import Board
from unmask.report.fronts import best_within, draws, interval_of
from unmask.report.listing import cost_cells, one_line, write
from unmask.report.measures import comparable


def draw(board: Board, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """The picture of all settings, and the table of the best ones."""
    pareto.draw(board, found, headlines(published), output, " ".join([note, *lossless(published)]))
    write(table_of(board, found), output, note)


def headlines(published: pd.DataFrame) -> pd.DataFrame:
    """The published points on GSM8K, each paper over what it counts: tokens a step where it has them."""
    points = published[published.task.str.startswith("gsm8k") & published.accuracy.notna()]
    counted = points.tokens_per_step.notna()
    return points.assign(
        x=points.x.where(~counted, points.tokens_per_step),
        x_name=points.x_name.where(~counted, "tokens per step"),
    )


def lossless(published: pd.DataFrame) -> Iterator[str]:
    """The published numbers on GSM8K that have no accuracy, since the decoder keeps the model's, in words."""
    for _, row in published[published.task.eq("GSM8K") & published.accuracy.isna()].iterrows():
        gains = f"{row.tokens_per_step:g} tokens per step, {row.x} {row.x_name}"
        yield f"DFlash on {row.series}, lossless: {gains}."


def table_of(board: Board, found: Collection) -> pd.DataFrame:
    """A row per task, method and allowed loss, as text; methods in the order of the sweep."""
    lines = []
    for task, here in found.rows.dropna(subset="accuracy").groupby("task", sort=False):
        timed = set(here.run[comparable(here)[0]])
        for (model, decoder), mine, base in methods(board, here):
            changes = {r.run: compare(found.scored[base.run], found.scored[r.run]) for r in mine.itertuples()}
            resampled = _resampled(found, base.run, mine.run)
            for loss in board.losses:
                fits = [run for run, c in changes.items() if 100 * c["accuracy_difference"] >= -loss - 1e-9]
                line = {"task": task, "model": model, "method": decoder, "points lost, at most": f"{loss:g}"}
                if not fits:
                    lines.append(line | {"setting": "none"})
                    continue
                row = mine[mine.run.isin(fits)].sort_values("tokens_per_step").iloc[-1]
                line |= {
                    "setting": row.label.removeprefix(decoder).strip() or "-",
                    "n": str(row.n),
                    "accuracy %": one_line(row, "accuracy", "{:.1f}", scale=100),
                    "against one token": one_line(
                        changes[row.run], "accuracy_difference", "{:+.1f}", scale=100
                    ),
                    **cost_cells(row, row.run in timed),
                    f"PB{loss:g}": _best(resampled, loss),
                    "AUP": "" if pd.isna(row.aup) else one_line(row, "aup", "{:.0f}"),
                }
                lines.append(line)
    return pd.DataFrame(lines).fillna("")


def methods(board: Board, here: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame, pd.Series]]:
    """((model, decoder), its settings, the run that its loss is counted against) of one task's rows.

    A method whose model has no such run is left out.
    """
    plain = here[here.plain.isin(board.one_token)]
    for place, mine in here.groupby(["model", "decoder"], sort=False):
        base = plain[plain.model == board.parents.get(place[0], place[0])]
        if len(base):
            yield place, mine, base.iloc[0]


def _resampled(found: Collection, base: str, runs: pd.Series) -> list[tuple[np.ndarray, np.ndarray]]:
    """`draws` of a method's runs, the one that losses are counted against first."""
    return draws([found.scored[run] for run in (base, *runs[runs != base])])


def _best(resampled: list[tuple[np.ndarray, np.ndarray]], loss: float) -> str:
    """Tokens a step of the best setting that loses at most so much, chosen anew in each resampling."""
    if not resampled:
        return "-"
    best = interval_of([best_within(steps, 100 * accuracy, loss) for steps, accuracy in resampled])
    return "{:.2f} [{:.2f}, {:.2f}]".format(*best)
