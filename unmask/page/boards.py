"""The board of each task: a row per run, in the numbers of `records.summary`."""

from collections.abc import Mapping, Sequence

import pandas as pd

from unmask.page.tables import Section
from unmask.records.collection import Collection
from unmask.records.stats import Interval
from unmask.report.measures import MEASURES, comparable
from unmask.report.style import DECODERS
from unmask.report.tables import exactness, forwards


def told_apart(found: Collection) -> pd.DataFrame:
    """The rows in order, with models and tasks renamed where one name stands for several.

    A model's name is followed by its weights or prompts where these differ among the runs, a task's by the
    settings (split, examples, ...) in which its runs differ. A limit is no other task.
    """
    rows = found.rows.copy()
    configs = [found.configs[run] for run in rows.run]
    tasks = [{k: v for k, v in c["task"].items() if k not in ("prompts", "max_new_tokens")} for c in configs]
    rows["task"] = [task["name"] + _differing(task, _of_name(tasks, task)) for task in tasks]
    models = [
        {
            "name": model,
            "task": task,
            "weights": config["models"][config["roles"][0]]["weights"],
            "prompts": config["task"]["prompts"],
        }
        for model, task, config in zip(rows.model, rows.task, configs, strict=True)
    ]
    alike = [[other for other in models if other["task"] == model["task"]] for model in models]
    rows["model"] = [
        model["name"] + _differing(model, _of_name(others, model))
        for model, others in zip(models, alike, strict=True)
    ]
    return _in_order(rows)


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """The task of most runs first; then by model, decoder and setting."""
    counts, decoders = rows.task.value_counts(), list(DECODERS)

    def order_of(row) -> tuple:
        decoder = decoders.index(row.decoder) if row.decoder in decoders else len(decoders)
        return -counts[row.task], row.task, row.model, decoder, row.label

    order = sorted(range(len(rows)), key=lambda i: order_of(rows.iloc[i]))
    return rows.iloc[order].reset_index(drop=True)


def _of_name(facts: Sequence[Mapping], mine: Mapping) -> list[Mapping]:
    return [other for other in facts if other["name"] == mine["name"]]


def _differing(mine: Mapping, others: Sequence[Mapping]) -> str:
    keys = [key for key in mine if len({str(other.get(key)) for other in others}) > 1]
    return "".join(f", {key}={mine[key]}" for key in keys)


def boards(found: Collection) -> list[Section]:
    """A board for each task: a row per run. Columns that have no value in any row are left out."""
    sections = []
    for task, rows in found.rows.groupby("task", sort=False):
        timed, reason = comparable(rows)
        lines = [
            _line(row, found.scored[row.run], on_time)
            for (_, row), on_time in zip(rows.iterrows(), timed, strict=True)
        ]
        note = (
            f"Times of {len(rows) - timed.sum()} of {len(rows)} runs are left out: {reason}."
            if reason
            else ""
        )
        table = pd.DataFrame(lines).dropna(axis="columns", how="all")
        sections.append(Section(f"Board: {task}", table, note))
    return sections


def _line(row: pd.Series, scored: Sequence[dict], timed: bool) -> dict:
    return {
        "model": row.model,
        "method": row.decoder,
        "setting": row.label.removeprefix(row.decoder).lstrip(" ,"),
        "n": row.n,
        "accuracy %": estimate(row, "accuracy"),
        "useful tokens per step": estimate(row, "tokens_per_step"),
        "forwards per answer": forwards(row).replace("\n", ", "),
        "positions per useful token": estimate(row, "positions_per_useful_token"),
        "MFLOPs per useful token": estimate(row, "flops_per_useful_token"),
        "times one token's tokens/s": estimate(row, "speedup") if timed else None,
        "tokens/s": estimate(row, "tokens_per_second") if timed else None,
        "answers without end": sum(sample["finish"] == "length" for sample in scored),
        "exact": exactness(row.exact) or None,
        "task": row.task,
        "run": row.run,
    }


def estimate(row: pd.Series, name: str) -> Interval | float | None:
    """A measure of a run in its unit for drawing, with its interval if it has one."""
    scale, value, ends = MEASURES[name].scale, row.get(name), row.get(f"{name}_interval")
    if value is None or pd.isna(value):
        return None
    if not isinstance(ends, list):
        return scale * value
    return Interval(*(scale * each for each in (value, *ends)))
