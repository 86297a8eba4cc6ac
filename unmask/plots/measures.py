"""What can be drawn of a run: the columns of a collection, with their labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Measure:
    """A number of a run. `scale` is for drawing only; `published` is its column in paper_figures.csv."""

    column: str
    label: str
    published: str | None = None
    scale: float = 1
    higher: bool = True  # is more better?
    time: bool = False  # read from a clock, so that it compares under conditions only (`comparable`)


MEASURES = {
    measure.column: measure
    for measure in (
        Measure("accuracy", "accuracy (%)", "accuracy", scale=100),
        Measure("tokens_per_step", "useful tokens per step", "tokens_per_step"),
        Measure("mean_useful_tokens", "useful tokens per answer", "generated_tokens"),
        Measure("positions_per_answer", "positions fed per answer", higher=False),
        Measure("positions_per_useful_token", "positions fed per useful token", higher=False),
        Measure("flops_per_useful_token", "estimated MFLOPs per useful token", scale=1e-6, higher=False),
        Measure("tokens_per_second", "useful tokens/s", "throughput_tok_s", time=True),
        Measure("latency_p50", "median latency (s)", "latency_s", higher=False, time=True),
    )
}


def comparable(rows: pd.DataFrame, interleaved: bool) -> tuple[np.ndarray, str | None]:
    """(which rows' times may stand side by side, why not all of them).

    They compare within one machine and one commit; on a CPU, whose speed drifts, only between settings that
    answered in turns: the figure's configuration says that they do (`interleaved`), and the records must not
    contradict it. A run that was over before another began took no turns with it (as where two figures
    share a run, which is made once).
    """
    nothing = np.zeros(len(rows), bool)
    machines, commits = every(rows.machines), every(rows.commits)
    if len(machines) > 1:
        return nothing, f"runs of several machines ({'; '.join(machines)})"
    if len(commits) > 1:
        return nothing, f"runs of several commits ({', '.join(commits)})"
    timed = rows.times_void.isna().to_numpy()
    if len(rows) == 1 or set(rows.device) == {"cuda"}:
        return timed, None if timed.all() else "runs whose times are void"
    if not interleaved:
        return nothing, "on a CPU they compare only between settings that answer in turns"
    together = timed & _together(rows)
    if together.sum() == 1:
        together = nothing
    return together, None if together.all() else "they did not answer in turns with the others of their panel"


def every(lists: pd.Series) -> list[str]:
    """What occurs in any of the lists, sorted."""
    return sorted({name for names in lists for name in names})


def _together(rows: pd.DataFrame) -> np.ndarray:
    """The most runs that were under way at one moment."""
    begun, ended = rows.begun.to_numpy(), rows.ended.to_numpy()
    return max(((begun <= moment) & (moment < ended) for moment in begun), key=np.sum)
