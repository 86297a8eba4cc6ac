"""What a figure shows, in a sentence computed from its records: a title that a referee can check."""

from collections.abc import Iterator

import numpy as np

from unmask.records.collection import Collection
from unmask.report import acceptance
from unmask.report.curves import Line, lines_of, symbol
from unmask.report.definition import Acceptance, Curve, Definition, Pareto
from unmask.report.measures import MEASURES, Measure, comparable

NEAR = 3  # points below the most accurate setting that count as near it


def message(definition: Definition, found: Collection) -> list[str]:
    """A line for each task, or each series; none for tables."""
    for kind, say in ((Pareto, _near_the_best), (Curve, _ends), (Acceptance, _lengths)):
        if isinstance(definition, kind):
            return list(say(definition, found))
    return []


def _near_the_best(pareto: Pareto, found: Collection) -> Iterator[str]:
    """The setting of least cost, by the figure's first measure that compares, near the most accurate one."""
    for task, here in found.rows.dropna(subset="accuracy").groupby("task", sort=False):
        timed = comparable(here)[0].all()
        measure = next((m for m in map(MEASURES.get, pareto.measures) if timed or not m.time), None)
        if measure is None:
            continue
        here = here.dropna(subset=measure.column)
        if here.empty:
            continue
        near = here[100 * here.accuracy >= 100 * here.accuracy.max() - NEAR - 1e-9]
        best = near.sort_values(measure.column, ascending=measure.higher).iloc[-1]
        yield (
            f"{task}, within {NEAR} points of the most accurate: {best.label} ({best.model}), "
            f"{short(measure.scale * best[measure.column])} {measure.label}"
        )


def _ends(curve: Curve, found: Collection) -> Iterator[str]:
    """The first two measures that are no times, at both ends of the x axis."""
    measures = [m for m in map(MEASURES.get, curve.measures) if not m.time][:2]
    for (model, _), here in found.rows.groupby(["model", "task"], sort=False):
        lines, ticks, _ = lines_of(curve, found, here)
        for line in lines:
            if len(line.rows) < 2:
                continue
            ends = " to ".join(ticks[place] for place in (line.places[0], line.places[-1]))
            changes = " and ".join(_change(line, measure) for measure in measures)
            name = f" ({line.name})" if len(lines) > 1 else ""
            yield f"{model}{name}, {symbol(curve)} = {ends}: {changes}"


def _change(line: Line, measure: Measure) -> str:
    first, last = (short(measure.scale * line.rows[measure.column].iloc[end]) for end in (0, -1))
    return f"{measure.label} {first} → {last}"


def short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _lengths(_: Acceptance, found: Collection) -> Iterator[str]:
    """The mean acceptance length of the setting that has most."""
    drafting = [row for _, row in found.rows.iterrows() if acceptance.drafts(row)]
    means = {row.label: np.concatenate(acceptance.taken(found, row)[1]).mean() for row in drafting}
    if means:
        best = max(means, key=means.get)
        yield f"{best} takes most, {means[best]:.2f} tokens a step"
