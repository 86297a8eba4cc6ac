"""One figure, whatever its kind: the picture or table, the CSV behind it, and what its caption says."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from unmask.records.collection import Collection
from unmask.records.recipe import flatten
from unmask.records.stats import Interval
from unmask.report import acceptance, board, curves, listing, pareto
from unmask.report.definition import Acceptance, Board, Curve, Definition, Listing, Pareto
from unmask.report.fronts import aups, pb
from unmask.report.measures import comparable, every
from unmask.report.messages import message

PUBLISHED = Path(__file__).with_name("paper_figures.csv")
NAMED = 4  # missing settings that a caption names


def draw(definition: Definition, found: Collection, folder: Path, with_published: bool = True) -> Path:
    """Draw a figure into a folder; returns the picture's path, or the table's.

    Beside it the rows as CSV. There must be rows. ValueError where they do not fit the definition.
    """
    output = folder / definition.name
    published = read_published(definition.published if with_published else None)
    definition = replace(definition, title="\n".join([definition.title, *message(definition, found)]))
    kinds = {Listing: listing, Pareto: pareto, Board: board, Acceptance: acceptance, Curve: curves}
    kind = kinds[type(definition)]
    areas = aups(found.rows, found.scored, *definition.first_points)
    found = with_areas(found, areas)
    kind.draw(definition, found, published, output, note(definition, found, areas, len(published) > 0))
    found.rows.to_csv(output.with_suffix(".csv"), index=False)
    return output.with_suffix(".md" if kind is listing else ".png")


def with_areas(found: Collection, areas: dict[tuple[str, str, str, str], Interval]) -> Collection:
    """The collection with columns aup and aup_interval; areas: of `aups`."""
    rows = found.rows.copy()
    keys = list(zip(rows.model, rows.task, rows.conditions, rows.decoder, strict=True))
    rows["aup"] = [areas[key].value if key in areas else None for key in keys]
    rows["aup_interval"] = [list(areas[key][1:]) if key in areas else None for key in keys]
    return replace(found, rows=rows)


def drawable(definition: Definition, found: Collection) -> bool:
    """Whether there is anything to see: for a curve, a run that has the setting on the x axis."""
    if isinstance(definition, Curve):
        return any(definition.x in flatten(config) for config in found.configs.values())
    return len(found.rows) > 0


def read_published(figure: str | None) -> pd.DataFrame:
    """The papers' points of a figure, or of several joined by commas; no rows where there are none."""
    points = pd.read_csv(PUBLISHED, dtype={"figure": str, "x": str})
    return points[points.figure.isin(figure.split(",") if figure else [])]


def note(definition: Definition, found: Collection, areas: dict, with_published: bool) -> str:
    """What was measured, on what, with which code; what is missing; what sums it up."""
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
        "bands, bars, brackets: 95% intervals",
    ]
    checks = [comparable(here) for here in _panels(definition, rows)]
    if isinstance(definition, Pareto):
        checks = [(pareto.drawn(definition, timed), reason) for timed, reason in checks]
    left = len(rows) - sum(timed.sum() for timed, _ in checks)
    reasons = dict.fromkeys(reason for _, reason in checks if reason)
    words += (
        [f"times of {left} of {len(rows)} settings are left out: {'; '.join(reasons)}"] if reasons else []
    )
    words += [_aup_words(areas)] if areas and not isinstance(definition, Board) else []  # in its table
    words += [_pb_words(definition, rows)] if definition.pb else []
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


def _aup_words(areas: dict) -> str:
    tasks = {task for _, task, _, _ in areas}
    words = []
    for (model, task, _, decoder), area in areas.items():
        place = f"{model}, {task}" if len(tasks) > 1 else model
        words.append(f"{decoder} on {place} {area.value:.0f} [{area.low:.0f}, {area.high:.0f}]")
    return f"AUP over this sweep: {'; '.join(words)}"


def _pb_words(definition: Definition, rows: pd.DataFrame) -> str:
    """The most tokens a step at an accuracy or more, by task."""
    words = []
    for least in definition.pb:
        found = []
        for task, here in rows.groupby("task", sort=False):
            best = pb(here.tokens_per_step, 100 * here.accuracy, least)
            found.append(f"{'none' if best is None else f'{best:.2f}'} on {task}")
        words.append(f"PB{least:g}: {', '.join(found)}")
    return "tokens a step at that accuracy or more, best setting: " + "; ".join(words)


def _spread(values: pd.Series) -> str:
    ends = sorted(set(values))
    return f"{ends[0]}" if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"
