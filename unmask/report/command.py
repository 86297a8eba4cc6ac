"""What report.py does: figures, the page, and two runs against each other."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console

from unmask.configuration.settings import check_effects
from unmask.configuration.sweeps import expand, figures_named, key_of
from unmask.output import print_json
from unmask.paths import ROOT, may_be_folder
from unmask.records import Run, find_runs
from unmask.records.collection import Collection, everything
from unmask.records.files import RecordError
from unmask.report.baselines import with_changes
from unmask.report.board import AUP_WORDS, CHOSEN, table_of
from unmask.report.choice import validation_of
from unmask.report.comparison import show
from unmask.report.definition import Board, Definition
from unmask.report.figures import draw, drawable, prepared
from unmask.report.lookup import (
    A_RUN,
    FIGURES,
    OF_A_FOLDER,
    OWN,
    REFERENCE,
    archived_settings,
    named_run,
    own_settings,
    results_of,
    run_of_settings,
    runs_of,
    scored_run,
)
from unmask.report.measures import every
from unmask.report.published import for_terminal, points
from unmask.report.published import table_of as table_of_published
from unmask.report.trace import animate

PUBLISHED = (
    "Numbers of others, as they were printed or read off their figures: other models, other hardware, other "
    "counting. Nothing here was run by this repository; no row is ranked, compared or joined with ours. The "
    "same as data: unmask/report/published_points.csv and paper_figures.csv."
)


def report(given: Sequence[str]) -> None:
    """Draw the figures that the words of a command name, or all that there are runs of."""
    cfg = own_settings(given)
    results = results_of(cfg)
    if cfg.pictures is not None and not may_be_folder(ROOT / cfg.pictures):
        raise ValueError(f"pictures={cfg.pictures[:100]}: is no folder, and none can be made there")
    if cfg.page:
        return page(cfg, given, results)
    wanted = figures_named(given)
    check_effects("report", [*given, *([] if wanted else [f"figure={','.join(FIGURES)}"])])
    given = [word for word in given if key_of(word) != "figure"]
    of_runs = [*archived_settings(results, given), *given]
    (runs, problems), drawn, refused = find_runs(results), {}, []
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    for name in wanted or FIGURES:
        try:
            found, definition = runs_of(name, of_runs, runs)
            alone = bool(wanted and definition.beside and cfg.published and found.rows.empty)
            if found.missing and not alone and not drawable(definition, found):
                print(none_of(name, found, cfg.results), file=sys.stderr)
                continue
            for label, why in found.missing:
                print(f"{name}: missing {label}: {why}", file=sys.stderr)
            validation = validation_of(runs) if isinstance(definition, Board) else None
            picture = draw(definition, found, pictures(cfg, given), cfg.published, validation)
        except ValueError as error:
            if wanted:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            refused.append(name)
            continue
        drawn[name] = os.path.relpath(picture)
        print(f"{name}: {drawn[name]} ({len(found.rows)} of {len(found.rows) + len(found.missing)} runs)")
        if definition.beside and cfg.published:
            show_beside(definition, found)
    if refused:
        raise ValueError(f"{', '.join(refused)}: not drawn, for the reasons above")
    if not drawn:
        raise ValueError(
            f"{cfg.results}: has no runs of {', '.join(wanted) or 'any figure'} with these settings"
        )
    print_json(drawn)


def show_beside(definition: Definition, found: Collection) -> None:
    """Print the published rows of a figure, ours beside them."""
    found = prepared(definition, found) if len(found.rows) else found
    console = Console()
    console.print(for_terminal(definition, table_of_published(definition, found), console.width))


def page(cfg: DictConfig, given: Sequence[str], results: Path) -> None:
    """Write the page; it shows all finished runs, so that settings which choose runs are refused."""
    if chosen := [word for word in given if key_of(word) not in OWN or key_of(word) == "figure"]:
        raise ValueError(f"page=true shows every finished run of results: leave out {' '.join(chosen)}")
    from unmask.page.build import write  # its libraries are for the page alone

    read = cache(find_runs)  # the board's best settings are of the same runs
    extra = best_settings(read(results)[0], archived_settings(results, given))
    extra += [published_rows()] if cfg.published else []
    file, count, left_out = write(results, pictures(cfg, given) / "page", extra, read)
    for why in left_out:
        print(f"left out: {why}", file=sys.stderr)
    print(f"page: {os.path.relpath(file)} ({count} runs, {file.stat().st_size / 1e6:.1f} MB)")
    print_json({"page": os.path.relpath(file)})


def best_settings(runs: list[Run], given: Sequence[str] = ()) -> list:
    """The board's table as a section of the page, where all its runs are there. given: settings of them."""
    from unmask.page.tables import Section

    if len(runs) < len(expand(["figure=board"])):
        return []
    try:
        found, definition = runs_of("board", given, runs)
    except RecordError:  # a setting has two runs, of other weights or prompts: the page may show both
        return []
    if found.missing:
        return []
    table = table_of(definition, prepared(definition, found), validation_of(runs))
    return [Section("Best settings", table, f"{CHOSEN} {AUP_WORDS}.")]


def published_rows():
    """What the papers published, as a section of the page: a row a point, in their order."""
    from unmask.page.tables import Section

    found = points()
    table = pd.DataFrame(
        {
            "source": found.source,
            "from its": found.figure,
            "method and model": found.series,
            "task": found.task,
            "setting": found.setting,
            "accuracy %": found.accuracy,
            "cost": found.x,
            "cost is": found.x_name,
            "read off": found.origin,
            "hardware and file": found.notes,
        }
    )
    return Section("Published by the papers", table, PUBLISHED)


def none_of(name: str, found: Collection, results: str) -> str:
    """Why there is nothing to draw."""
    reasons = "; ".join(f"{label}: {why}" for label, why in found.missing[:2])
    total = len(found.rows) + len(found.missing)
    return (
        f"{name}: {results} has {len(found.rows) or 'none'} of its {total} runs, too few to draw "
        f"({reasons}); scripts/figure.sh {name} makes them"
    )


def pictures(cfg: DictConfig, given: Sequence[str]) -> Path:
    """Where figures go: beside their runs. figures/ is of the reference run, as it is, alone."""
    if cfg.pictures:
        return ROOT / cfg.pictures
    results = (ROOT / cfg.results).resolve()
    changed = [word for word in given if key_of(word) not in OWN]
    return ROOT / "figures" if results == REFERENCE.resolve() and not changed else results / "figures"


def compare(sides: Sequence[str], given: Sequence[str]) -> None:
    """Print run B against run A: two words that name runs, then settings as for a figure."""
    if len(sides) < 2:
        raise ValueError(f"compare takes two runs, each {A_RUN}")
    cfg = own_settings(given)
    read = cache(find_runs)  # both may lie in one collection
    named = [named_run(word, ROOT / cfg.results, read) for word in sides]
    idle = {key_of(word) for word in given} - {"results", "changed", *OF_A_FOLDER}
    if idle and all(named):
        raise ValueError(f"{', '.join(sorted(idle))}: chooses no run, since both sides are folders")
    a, b = (
        scored_run(run, given) if run else run_of_settings(word, given, read)
        for word, run in zip(sides, named, strict=True)
    )
    print_json(show(a, b, cfg.changed))


def race(given: Sequence[str]) -> None:
    """Draw the answers of runs to one document as a GIF: words that name runs, then settings.

    Without names: the runs that the page begins with, of the task of most runs.
    """
    from unmask.page.answers import documents_of, replay, telling
    from unmask.page.boards import ONE_TOKEN, told_apart, worth_seeing

    names, words = ([word for word in given if ("=" in word) == setting] for setting in (False, True))
    if other := [word for word in words if key_of(word) not in ("results", "pictures", "document")]:
        raise ValueError(f"race takes names of runs, results=, pictures= and document=: leave out {other[0]}")
    cfg = own_settings(words)
    results, read = results_of(cfg), cache(find_runs)
    runs = {run.folder.name: run for run in map(lambda name: named_run(name, results, read), names)}
    runs = runs or {run.folder.name: run for run in read(results)[0]}
    found = everything(list(runs.values()))
    if found.rows.empty or (names and found.missing):
        raise ValueError("; ".join(why for _, why in found.missing[:2]) or f"{cfg.results}: has no runs")
    found.rows = told_apart(found)
    rows = found.rows[found.rows.task == found.rows.task.iloc[0]]
    if names and len(rows) < len(found.rows):
        raise ValueError(f"race takes runs of one task: {', '.join(dict.fromkeys(found.rows.task))}")
    chosen = list(runs)
    if not names:
        rows = with_changes(ONE_TOKEN, replace(found, rows=rows)).rows
        chosen = list(worth_seeing(rows)) or list(rows.run[:3])
    scored = [found.scored[run] for run in chosen]
    documents = documents_of(scored, [runs[run].traces() for run in chosen])
    document = telling(documents, scored) if cfg.document is None else cfg.document
    answers = [[s for s in each if s["doc_id"] == document and not s["repeat"]] for each in scored]
    if not all(answers):
        raise ValueError(f"document={document}: not all of {', '.join(chosen)} answered it")
    labels = {row.run: f"{row.label} on {row.model}" for row in rows.itertuples()}
    racers = [
        replay(answer, found.configs[run], labels[run])
        for run, (answer,) in zip(chosen, answers, strict=True)
    ]
    question = next((each["question"] for each in documents if each["id"] == document), None)
    note = f"{rows.task.iloc[0]}, document {document}. A frame is a forward of the first model: no seconds."
    output = pictures(cfg, words) / "race.gif"
    animate(racers, question or "", output, f"{note} unmask, code {', '.join(every(rows.commits))}")
    print(f"race: {os.path.relpath(output)} ({max(each.steps for each in racers)} forwards)")
    print_json({"race": os.path.relpath(output)})
