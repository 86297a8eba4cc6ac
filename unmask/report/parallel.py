"""Kind `parallel`: ParallelBench's tasks, a panel each: accuracy over tokens a step, beside an ideal model's.

The dotted line of a decoder has its bounds (bounds.py) at the tokens a step that were measured: what it loses
to 1 is the decoder's, what the measured line loses to it is the model's.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder
from unmask.records.collection import Collection
from unmask.report.bounds import bound
from unmask.report.definition import Parallel
from unmask.report.fronts import fastest
from unmask.report.listing import write
from unmask.report.measures import MEASURES
from unmask.report.pareto import cost_bars, lines_of
from unmask.report.style import DECODERS, caption, headline, mark_of, plt, save
from unmask.tasks import parallelbench, problems

COLUMNS = 4  # of panels
ALL = "all tasks"
PB_WORDS = (
    "PBx: tokens a step of the fastest measured setting that is right in at least x percent, with that "
    "setting; a dash where none is. Over all tasks: plain means over tasks, of the settings that all have"
)
BOUND_WORDS = (
    "Dotted: what an ideal model scores under that setting, exact; a line is left out where none is known"
)


def with_bounds(found: Collection) -> Collection:
    """The collection with a column `bound`: the accuracy of an ideal model, None where none is known."""
    values = [_bound(found, row) for row in found.rows.itertuples()]
    return replace(found, rows=found.rows.assign(bound=pd.Series(values, found.rows.index, dtype=float)))


def _bound(found: Collection, row) -> float | None:
    config = found.configs[row.run]
    if row.task not in parallelbench.TASKS:
        return None
    documents = sorted(sample["doc_id"] for sample in found.scored[row.run])
    sizes = tuple(_templates(row.task, config["task"]["split"])[number] for number in documents)
    return _exact(tuple(sorted(config["decoder"].items())), row.task, sizes)


@cache
def _exact(decoder: tuple, task: str, sizes: tuple[int, ...]) -> float | None:
    return bound(decoder_of(dict(decoder)), task, sizes)  # shuffling six names takes seconds


def decoder_of(settings: dict):
    """The decoder that an identity names: what it leaves out is as in the YAML."""
    shipped = OmegaConf.to_container(composed("eval", [f"decoder={settings['name']}"]).decoder, resolve=True)
    return build_decoder(shipped | {key: value for key, value in settings.items() if key in shipped})


@cache
def _templates(task: str, split: str) -> list[int]:
    split_of = problems.training_split(task) if split == "train" else problems.held_out(task, split)
    return [int(problem.template) for problem in split_of]


def draw(definition: Parallel, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """The picture, rows of panels of one model below those of another, and the table of PB."""
    rows = found.rows.dropna(subset="accuracy")
    models = list(rows.groupby("model", sort=False))
    tasks = list(dict.fromkeys(rows.task))
    lines = -(-len(tasks) // COLUMNS)
    figure = plt.figure(figsize=(7, 1.35 * lines * len(models) + 1.3))
    parts = figure.subfigures(len(models) + 1, 1, height_ratios=[*[lines] * len(models), 0.55])
    for part, (model, here) in zip(parts, models, strict=False):
        grid = part.subplots(lines, COLUMNS, squeeze=False, sharey=True, sharex=True)
        for axes, task in zip(grid.flat, tasks, strict=False):
            axes.set_title(task)
            _panel(axes, here[here.task == task])
        for axes in grid.flat[len(tasks) :]:
            axes.set_axis_off()
        part.supxlabel(MEASURES["tokens_per_step"].label, fontsize=7)
        part.supylabel(f"{model}: accuracy (%)", fontsize=7)
    handles = [
        plt.Line2D([], [], color=DECODERS[d], marker=mark_of(d), label=d) for d in dict.fromkeys(rows.decoder)
    ]
    handles.append(plt.Line2D([], [], color="0.4", linestyle=":", label="an ideal model"))
    parts[-1].legend(handles=handles, loc="upper left", ncols=5, fontsize=7, frameon=False)
    headline(parts[0], definition.title)
    caption(parts[-1], f"{BOUND_WORDS}. {note}")
    save(figure, output)
    write(table_of(definition, found), output, f"{PB_WORDS}. {note}")


def _panel(axes, rows: pd.DataFrame) -> None:
    measure = MEASURES["tokens_per_step"]
    for (_, decoder), _, mine in lines_of(rows):
        mine = mine.sort_values(measure.column)
        x, y = mine[measure.column].astype(float), 100 * mine.accuracy
        low, high = 100 * np.array(mine.accuracy_interval.tolist()).T
        colour = DECODERS[decoder]
        bars = {"yerr": np.maximum([y - low, high - y], 0), "xerr": cost_bars(mine, measure)}
        axes.errorbar(x, y, **bars, color=colour, marker=mark_of(decoder), linewidth=0.9, elinewidth=0.5)
        axes.plot(x, 100 * mine.bound, color=colour, linestyle=":", linewidth=1.2)
    axes.set(ylim=(-4, 108), xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def table_of(definition: Parallel, found: Collection) -> pd.DataFrame:
    """A row per model, task and decoder, and one over all tasks: the most tokens a step at each level."""
    lines = []
    rows = found.rows.dropna(subset="accuracy")
    for (model, decoder), mine in rows.groupby(["model", "decoder"], sort=False):
        by_task = {
            task: dict(zip(here.plain, here.run, strict=True))
            for task, here in mine.groupby("task", sort=False)
        }
        shared = [p for p in dict.fromkeys(mine.plain) if all(p in here for here in by_task.values())]
        wanted = {task: {task: here} for task, here in by_task.items()}
        if len(by_task) > 1 and shared:
            wanted[ALL] = {task: {name: here[name] for name in shared} for task, here in by_task.items()}
        for task, here in wanted.items():
            scored = {t: {name: found.scored[run] for name, run in runs.items()} for t, runs in here.items()}
            line = {"model": model, "task": task, "decoder": decoder, "n": _documents(scored)}
            for level in definition.levels:
                best, value = fastest(scored, level)
                line[f"PB{level:g}"] = f"{_number(value)} ({_knobs(best, decoder)})" if best else "-"
            lines.append(line)
    order = [*dict.fromkeys(rows.task), ALL]
    return pd.DataFrame(sorted(lines, key=lambda line: (line["model"], order.index(line["task"]))))


def _documents(scored: dict) -> int:
    """Documents behind a cell, over its tasks."""
    return sum(len(next(iter(here.values()))) for here in scored.values())


def _number(value) -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _knobs(label: str, decoder: str) -> str:
    return label.removeprefix(decoder).strip() or "as shipped"
