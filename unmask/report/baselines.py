"""What every setting of a figure is compared with: its baseline, paired by document and by turn."""

from dataclasses import replace

import pandas as pd

from unmask.records.collection import Collection
from unmask.records.comparing import compare
from unmask.records.files import RecordError
from unmask.report.definition import Board, Definition, Listing

CHANGES = ("accuracy_difference", "accuracy_difference_interval", "p_value")
CHANGES += ("speedup", "speedup_interval", "speedup_unweighted")


def with_changes(definition: Definition, found: Collection) -> Collection:
    """The collection with columns `baseline` (a run folder, None where there is none) and `CHANGES`, of
    `comparing.compare` against it. A baseline has ratio 1 and difference 0 to itself."""
    rows = found.rows.copy()
    base = baselines(definition, rows)
    changes = [_change(found, base.get(row.run), row) for row in rows.itertuples()]
    rows["baseline"] = [base.get(run) for run in rows.run]
    for name in CHANGES:
        rows[name] = pd.Series([change[name] for change in changes], rows.index, dtype=object)
    for name in ("accuracy_difference", "p_value", "speedup", "speedup_unweighted"):
        rows[name] = rows[name].astype(float)
    return replace(found, rows=rows)


def baselines(definition: Definition, rows: pd.DataFrame) -> dict[str, str]:
    """Run -> the run that it is compared with, of the same task and conditions.

    With `Definition.baseline_arm` it is that arm's setting on the same task, of the same conditions where
    there is one. Else it is the setting with the figure's baseline label, of the model itself, of its parent
    (`Board.parents`) or of `Listing.baseline_model`. In other figures, where these have none, the sweep's
    first one.
    """
    if definition.baseline_arm:
        return _of_the_arm(definition.baseline_arm, rows)
    labels, parents = definition.first_points
    strict = isinstance(definition, Board | Listing)
    found = {}
    for row in rows.itertuples():
        model = parents.get(row.model, row.model)
        model = (isinstance(definition, Listing) and definition.baseline_model) or model
        same = rows[(rows.task == row.task) & (rows.conditions == row.conditions) & rows.plain.isin(labels)]
        own = same[same.model == model]
        chosen = own if len(own) or strict else same
        if len(chosen):
            found[row.run] = chosen.run.iloc[0]
    return found


def _of_the_arm(name: str, rows: pd.DataFrame) -> dict[str, str]:
    found = {}
    for row in rows.itertuples():
        first = (row.arm or "").partition("_")[0]
        same = rows[(rows.task == row.task) & rows.arm.isin([name, f"{first}_{name}"])]
        alike = same[same.conditions == row.conditions]
        chosen = alike if len(alike) else same
        if len(chosen):
            found[row.run] = chosen.run.iloc[0]
    return found


def _change(found: Collection, base: str | None, row) -> dict:
    if base is None:
        return dict.fromkeys(CHANGES)
    if base == row.run:
        same = {"accuracy_difference": 0.0, "p_value": 1.0, "speedup": 1.0, "speedup_unweighted": 1.0}
        return dict.fromkeys(CHANGES) | same
    try:
        return compare(found.scored[base], found.scored[row.run], in_turns=row.device == "cpu")
    except RecordError:  # of another metric, or without a document in common
        return dict.fromkeys(CHANGES)
