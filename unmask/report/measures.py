"""What can be drawn of a run: the columns of a collection, with their labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Measure:
    """A number of a run. `scale` is for drawing only; `published` is its column in `published.points_of`."""

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
        Measure("leftmost_share", "commits at the leftmost mask (%)", scale=100),
        Measure("positions_per_answer", "positions fed per answer", higher=False),
        Measure("positions_per_useful_token", "positions fed per useful token", higher=False),
        Measure("flops_per_useful_token", "estimated MFLOPs per useful token", scale=1e-6, higher=False),
        Measure("speedup", "times the baseline's tokens/s", time=True),
        Measure("tokens_per_second", "useful tokens/s", "throughput_tok_s", time=True),
        Measure("latency_p50", "median latency (s)", "latency_s", higher=False, time=True),
    )
}


def comparable(rows: pd.DataFrame) -> tuple[np.ndarray, str | None]:
    """(which rows' times may stand side by side, why not all of them): the rule of every table and figure.

    rows: of a collection, or of summaries (`comparable_summaries`).

    They compare within one machine and one commit; on a CPU, whose speed drifts, and over several machines
    or commits, only between settings that answered in the same sessions of turns. Where rows differ in that,
    the largest group that agrees, and no row that has none to compare with.
    """
    timed = rows.times_void.isna().to_numpy()
    reasons = {"their times are void": ~timed}
    if len(rows) > 1:
        columns = {"machines": "runs of other machines", "commits": "runs of other commits"}
        several = any(len(names) > 1 for column in columns for names in rows[column])
        if several or "cpu" in set(rows.device):
            alone = timed & np.array(["alone" in sessions for sessions in rows.sessions])
            reasons["on a CPU they compare only between settings that answer in turns"] = alone
            timed = timed & ~alone
            columns["sessions"] = "they did not answer in turns with the others of their panel"
        for column, reason in columns.items():
            same = _largest_group(rows[column], timed)
            reasons[reason] = timed & ~same
            timed = same
        if timed.sum() == 1:
            reasons["there is none to compare with"] = timed
            timed = np.zeros(len(rows), bool)
    return timed, "; ".join(reason for reason, left_out in reasons.items() if left_out.any()) or None


def comparable_summaries(
    summaries: Mapping[str, Mapping], device: str = "cpu"
) -> tuple[dict[str, bool], str | None]:
    """(label -> whether its times may stand beside the others', why not all of them), of `summary.summarise`.

    device: the kind that made them.
    """
    timed, reason = comparable(pd.DataFrame(list(summaries.values())).assign(device=device))
    return dict(zip(summaries, timed.tolist(), strict=True)), reason


def every(lists: pd.Series) -> list[str]:
    """What occurs in any of the lists, sorted."""
    return sorted({name for names in lists for name in names})


def _largest_group(lists: pd.Series, among: np.ndarray) -> np.ndarray:
    """The most rows of `among` whose lists are equal; of equally many, the first."""
    keys = ["/".join(names) for names in lists]
    groups = [among & (np.array(keys) == key) for key in dict.fromkeys(keys)]
    return max(groups, key=np.sum)
