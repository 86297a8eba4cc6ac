"""Kind `board`: every method at its best setting within a loss of accuracy, and all settings in one picture.

A method is a decoder on a model. Its loss is counted against one token a forward by the model that it comes
from, paired by document. The best of several settings is chosen on validation problems (`choice`) and
reported on test problems.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from unmask.records.collection import Collection
from unmask.report import pareto
from unmask.report.choice import choose
from unmask.report.definition import Board
from unmask.report.fronts import AUP_LOSS
from unmask.report.listing import cost_cells, one_line, write
from unmask.report.measures import comparable

CHOSEN = (
    "Each setting is the one of most tokens a step within the loss on validation problems; its numbers are "
    "of test problems."
)
AUP_WORDS = (
    "AUP (d3LLM, arXiv 2601.07568): the area below a method's accuracy in percent over its tokens per step, "
    "over all its settings of this sweep from one token a step on; accuracies below the task's best count "
    f"less, settings more than {AUP_LOSS} points below one token a step not at all"
)


def draw(
    board: Board, found: Collection, published: pd.DataFrame, output: Path, note: str, validation: Collection
) -> None:
    """The picture of all settings, and the table of those that `validation` chooses."""
    pareto.draw(board, found, headlines(published), output, " ".join([note, *lossless(published)]))
    write(table_of(board, found, validation), output, f"{note} {CHOSEN} {AUP_WORDS}.")


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


def table_of(board: Board, found: Collection, validation: Collection) -> pd.DataFrame:
    """A row per task, method and allowed loss, as text; methods in the order of the sweep.

    found: with `baselines.with_changes`. validation: runs of the same settings on validation problems, which
    choose (`choice.choose`); where they lack, the row says so.
    """
    lines = []
    for task, here in found.rows.dropna(subset="accuracy").groupby("task", sort=False):
        timed = set(here.run[comparable(here)[0]])
        for (model, decoder), mine, base in methods(board, here):
            for loss in board.losses:
                line = {"task": task, "model": model, "method": decoder, "points lost, at most": f"{loss:g}"}
                run, why = choose(found, validation, mine, base.run, loss)
                if run is None:
                    line["setting"] = why
                else:
                    row = mine[mine.run == run].iloc[0]
                    line |= {
                        "setting": row.label.removeprefix(decoder).strip() or "-",
                        "n": str(row.n),
                        "accuracy %": one_line(row, "accuracy", "{:.1f}", scale=100),
                        "against one token": one_line(row, "accuracy_difference", "{:+.1f}", scale=100),
                        **cost_cells(row, row.run in timed),
                    }
                if loss == board.losses[0] and not pd.isna(mine.aup.iloc[0]):  # of all settings of the method
                    line["AUP"] = one_line(mine.iloc[0], "aup", "{:.0f}")
                lines.append(line)
    return pd.DataFrame(lines).fillna("")


def methods(board: Board, here: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame, pd.Series]]:
    """((model, decoder), its settings, the run that its loss is counted against) of one task's rows.

    A method whose model has no such run is left out.
    """
    plain = here[here.plain.isin(board.one_token)]
    for (model, decoder), mine in here.groupby(["model", "decoder"], sort=False):
        base = plain[plain.model == board.parents.get(model, model)]
        if len(base):
            yield (model, decoder), mine, base.iloc[0]
