"""One figure, whatever its kind: the picture or table, the CSV behind it, and what its caption says."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from unmask.output import safe_in_csv
from unmask.records.collection import Collection
from unmask.records.identity import flatten
from unmask.records.stats import Interval
from unmask.report import acceptance, board, curves, hero, listing, parallel, pareto, rivals
from unmask.report.baselines import with_changes
from unmask.report.choice import validation_of
from unmask.report.definition import (
    Acceptance,
    Board,
    Curve,
    Definition,
    Hero,
    Listing,
    Parallel,
    Pareto,
    Rivals,
)
from unmask.report.fronts import aups
from unmask.report.measures import comparable, every
from unmask.report.messages import message
from unmask.report.published import points_of, write_beside

NAMED = 4  # missing settings that a caption names


def draw(
    definition: Definition,
    found: Collection,
    folder: Path,
    with_published: bool = True,
    validation: Collection | None = None,
) -> Path:
    """Draw a figure into a folder; returns the picture's path, or the table's.

    Beside it the rows as CSV and, where the definition has a published table, that (NAME_published.md), which
    alone needs no rows. ValueError where they do not fit the definition.

    validation: the runs on validation problems that a board chooses by (`choice.validation_of`).
    """
    output = folder / definition.name
    if len(found.rows):
        found = prepared(definition, found)
    if definition.beside and with_published:
        table = write_beside(definition, found, output)
        if found.rows.empty:
            return table
    published = points_of(definition.published if with_published else None)
    definition = replace(definition, title="\n".join([definition.title, *message(definition, found)]))
    kinds = {
        Listing: listing,
        Pareto: pareto,
        Board: board,
        Rivals: rivals,
        Parallel: parallel,
        Acceptance: acceptance,
        Hero: hero,
        Curve: curves,
    }
    kind = kinds[type(definition)]
    draws = kind.draw
    if kind is board:
        draws = partial(board.draw, validation=validation or validation_of([]))
    draws(definition, found, published, output, note(definition, found, len(published) > 0))
    found.rows.map(safe_in_csv).to_csv(output.with_suffix(".csv"), index=False)
    return output.with_suffix(".md" if kind is listing else ".png")


def prepared(definition: Definition, found: Collection) -> Collection:
    """The collection with what each setting is against its baseline and, for a board, the methods' AUP, of
    ParallelBench's tasks what an ideal model scores."""
    found = with_changes(definition, found)
    if isinstance(definition, Board):
        found = with_areas(found, aups(found.rows, found.scored, *definition.first_points))
    if isinstance(definition, Parallel):
        found = parallel.with_bounds(found)
    return found


def with_areas(found: Collection, areas: dict[tuple[str, str, str, str], Interval]) -> Collection:
    """The collection with columns aup and aup_interval; areas: of `aups`."""
    rows = found.rows.copy()
    keys = list(zip(rows.model, rows.task, rows.conditions, rows.decoder, strict=True))
    rows["aup"] = [areas[key].value if key in areas else None for key in keys]
    rows["aup_interval"] = [list(areas[key][1:]) if key in areas else None for key in keys]
    return replace(found, rows=rows)


def drawable(definition: Definition, found: Collection) -> bool:
    """Whether there is anything of ours to see: for a curve, a run that has the setting on the x axis."""
    if isinstance(definition, Curve):
        return any(definition.x in flatten(config) for config in found.configs.values())
    return len(found.rows) > 0


def note(definition: Definition, found: Collection, with_published: bool) -> str:
    """What was measured, on what, with which code; what is missing. found: `prepared`."""
    rows = found.rows
    tiny = " (tiny stand-in family)" if any(name.startswith("tiny_") for name in rows.model) else ""
    machines, commits = every(rows.machines), every(rows.commits)
    threads = {f"{int(count)} threads" for count in rows.threads.dropna()}
    words = [
        f"n = {_spread(rows.n)}",
        f"tasks: {', '.join(dict.fromkeys(rows.task))}",
        f"models: {', '.join(dict.fromkeys(rows.model))}{tiny}",
        f"machine: {'; '.join(machines)}; {', '.join([*sorted(threads), *sorted(set(rows.dtype))])}",
        f"batch size {_spread(rows.batch_size)}",
        f"commit {', '.join(commits)}",
        "bands, bars, brackets: 95% intervals over documents, of times over turns",
        *_unit(definition, rows),
        *_beside_steps(rows),
    ]
    checks = [comparable(here) for here in _panels(definition, rows)]
    if isinstance(definition, Pareto):
        checks = [(pareto.drawn(definition, timed), reason) for timed, reason in checks]
    left = len(rows) - sum(timed.sum() for timed, _ in checks)
    reasons = dict.fromkeys(reason for _, reason in checks if reason)
    words += (
        [f"times of {left} of {len(rows)} settings are left out: {'; '.join(reasons)}"] if reasons else []
    )
    if found.missing:
        named = "; ".join(label for label, _ in found.missing[:NAMED])
        more = "; ..." if len(found.missing) > NAMED else ""
        total = len(found.missing) + len(rows)
        words.append(f"missing: {len(found.missing)} of {total} settings ({named}{more})")
    if with_published:
        sources = {"dparallel": "2509.26488", "d2f": "2508.09192, A100", "dflash": "2602.06036, H200"}
        named = [figure.split("_")[0] for figure in definition.published.split(",")]
        theirs = dict.fromkeys(sources.get(name, "2506.00413, RTX A5000") for name in named)
        words.append(f"published points: arXiv {'; '.join(theirs)}")
    return ". ".join(words) + "."


def _panels(definition: Definition, rows: pd.DataFrame) -> list[pd.DataFrame]:
    keys = "task" if isinstance(definition, Pareto) else ["model", "task"]
    return [here for _, here in rows.groupby(keys, sort=False)]


def _unit(definition: Definition, rows: pd.DataFrame) -> list[str]:
    """How fast the baselines are, of which the others' speeds are multiples."""
    if "speedup" not in definition.measures:
        return []
    base = rows[rows.run.isin(set(rows.baseline.dropna())) & rows.tokens_per_second.notna()]
    speeds = [
        f"{row.label} on {row.model}, {row.task}: {row.tokens_per_second:.0f}" for row in base.itertuples()
    ]
    return [f"the baseline's tokens/s: {'; '.join(speeds)}"] if speeds else []


def _beside_steps(rows: pd.DataFrame) -> list[str]:
    """What else runs: a step is a forward of the first model alone."""
    words = []
    for decoder, here in rows.groupby("decoder", sort=False):
        for role in dict.fromkeys(role for each in here.forwards for role in each):
            shares = [f[role] / f[r] for f, r in zip(here.forwards, here.step_role, strict=True) if role in f]
            if role not in set(here.step_role) and max(shares) > 0:
                spread = sorted({f"{min(shares):.1f}", f"{max(shares):.1f}"}, key=float)
                words.append(f"{decoder} {' to '.join(spread)} of its {role}")
    return [f"forwards beside each step: {', '.join(words)}"] if words else []


def _spread(values: pd.Series) -> str:
    ends = sorted(set(values))
    return f"{ends[0]}" if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"
