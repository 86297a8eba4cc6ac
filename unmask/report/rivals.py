"""Kind `rivals`: is a decoder better than a plain one that costs as much? Paired by document, at equal tokens
a forward and at equal FLOPs, setting by setting."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.records.collection import Collection
from unmask.records.comparing import compare
from unmask.report import pareto
from unmask.report.definition import Rivals
from unmask.report.listing import one_line, write
from unmask.report.measures import MEASURES

ALPHA = 0.05  # that any setting of a task is called better or worse by chance (Bonferroni)
NAMES = {"tokens_per_step": "tokens a forward", "flops_per_useful_token": "FLOPs"}
WORDS = (
    "Every setting is paired with the plain decoder's setting of the nearest cost, over the same documents: "
    "difference of accuracy in points with its 95% interval. Better or worse: McNemar's exact test at 5% for "
    "all settings of the task together (Bonferroni); else the largest difference that the interval allows"
)


def draw(rivals: Rivals, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """The picture of all settings, and the table of pairs."""
    pareto.draw(rivals, found, published, output, note)
    write(table_of(rivals, found), output, f"{note} {WORDS}.")


def table_of(rivals: Rivals, found: Collection) -> pd.DataFrame:
    """A row per task and setting of the other decoders, as text, in the order of the sweep."""
    lines = []
    for task, row, duels in _duels(rivals, found):
        line = {
            "task": task,
            "model": row.model,
            "setting": row.label,
            "n": str(row.n),
            "accuracy %": one_line(row, "accuracy", "{:.1f}", scale=100),
            "tokens a forward": one_line(row, "tokens_per_step", "{:.2f}"),
        }
        if row.get("revocations") is not None and not pd.isna(row.get("revocations")):
            line["taken back"] = f"{row.revocations:.1f}"
        for cost, duel in duels.items():
            name = NAMES.get(cost, MEASURES[cost].label)
            line[f"at equal {name}"] = duel and duel["words"]
            line[f"rival ({name})"] = duel and f"{duel['rival'].label}: {duel['ratio']:.2f} times"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def findings(rivals: Rivals, found: Collection) -> Iterator[str]:
    """How many settings of each task are better or worse than their rivals."""
    counts: dict[tuple[str, str], list[str]] = {}
    for task, _, duels in _duels(rivals, found):
        for cost, duel in duels.items():
            if duel:
                counts.setdefault((task, cost), []).append(duel["verdict"])
    for (task, cost), verdicts in counts.items():
        better, worse = verdicts.count("better"), verdicts.count("worse")
        yield (
            f"{task}, at equal {NAMES.get(cost, MEASURES[cost].label)}: of {len(verdicts)} settings {better} "
            f"better than {' or '.join(rivals.plain)}, {worse} worse"
        )


def _duels(rivals: Rivals, found: Collection) -> Iterator[tuple[str, pd.Series, dict[str, dict | None]]]:
    """(task, a setting, by cost its duel with the rival; None where no rival costs as much)."""
    for task, here in found.rows.dropna(subset="accuracy").groupby("task", sort=False):
        plain = here[here.decoder.isin(rivals.plain)]
        others = here[~here.decoder.isin(rivals.plain)]
        for _, row in others.iterrows():
            same = plain[plain.model == row.model]
            yield (
                task,
                row,
                {cost: _duel(rivals, found, row, same, cost, len(others)) for cost in rivals.costs},
            )


def _duel(
    rivals: Rivals, found: Collection, row: pd.Series, plain: pd.DataFrame, cost: str, tests: int
) -> dict | None:
    column = MEASURES[cost].column
    plain = plain.dropna(subset=column)
    if plain.empty or pd.isna(row[column]):
        return None
    ratios = row[column] / plain[column].astype(float)
    nearest = np.abs(np.log(ratios)).idxmin()
    if abs(ratios[nearest] - 1) > rivals.within / 100:
        return None
    rival = plain.loc[nearest]
    change = compare(found.scored[rival.run], found.scored[row.run])
    gap, ends, p = (change[key] for key in ("accuracy_difference", "accuracy_difference_interval", "p_value"))
    if gap is None:
        return None
    verdict = "even" if p >= ALPHA / tests else "better" if gap > 0 else "worse"
    most = 100 * max(map(abs, ends or [gap]))
    said = verdict if verdict != "even" else f"no difference larger than {most:.1f}"
    interval = f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else ""
    words = f"{100 * gap:+.1f}{interval}: {said}"
    return {"rival": rival, "ratio": ratios[nearest], "verdict": verdict, "words": words}
