"""The board of each task: a row per run, in the numbers of `records.summary`."""

from collections.abc import Mapping, Sequence

import pandas as pd

from unmask.page.tables import Cell, Section
from unmask.records.collection import Collection
from unmask.records.comparing import changed
from unmask.records.stats import Interval, mcnemar
from unmask.report.definition import Board
from unmask.report.measures import MEASURES, comparable
from unmask.report.style import DECODERS
from unmask.report.tables import exactness, forwards

# Speeds are multiples of the same model's at one token a step.
ONE_TOKEN = Board(name="page", title="", measures=["tokens_per_step"])
ALPHA = 0.05  # over all rows of a board
FREE = "Most tokens a forward without a significant loss"
LOST = "The largest significant loss"
RANKED = "Runs that a paired test does not tell from the first of their group share its rank."


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
    """A board for each task: a row per run, ranked. Columns that have no value in any row are left out."""
    sections = []
    for task, rows in found.rows.groupby("task", sort=False):
        timed, reason = comparable(rows)
        on_time = dict(zip(rows.run, timed, strict=True))
        ranks = ranked(rows, found.scored)
        by_run = rows.set_index("run", drop=False)
        lines = [
            {"rank": rank} | _line(by_run.loc[run], found.scored[run], on_time[run])
            for run, rank in ranks.items()
        ]
        note = RANKED if len(rows) > 1 else ""
        if reason:
            left_out = len(rows) - timed.sum()
            note += f" Times of {left_out} of {len(rows)} runs are left out: {reason}."
        table = pd.DataFrame(lines).dropna(axis="columns", how="all")
        sections.append(Section(f"Board: {task}", table, note.strip()))
    return sections


def ranked(rows: pd.DataFrame, scored: Mapping[str, Sequence[dict]]) -> dict[str, int | None]:
    """Run -> rank, the most accurate first; None where nothing can be scored.

    Runs that a paired test does not tell from the first one of their group share its rank: McNemar's exact
    test over the documents that both answered, at 5% over all rows (Bonferroni).
    """
    order = rows.sort_values(["accuracy", "tokens_per_step"], ascending=False, na_position="last")
    ranks: dict[str, int | None] = {}
    first = None
    for place, (run, accuracy) in enumerate(zip(order.run, order.accuracy, strict=True), 1):
        if pd.isna(accuracy):
            ranks[run] = None
            continue
        if first is None or _p_value(scored[first], scored[run]) < ALPHA / max(len(rows) - 1, 1):
            first, rank = run, place
        ranks[run] = rank
    return ranks


def worth_seeing(rows: pd.DataFrame) -> dict[str, str]:
    """Three runs of a task that a newcomer should see -> why; fewer where there are none.

    One token a forward; of the settings compared with it (`baselines.with_changes`) the one of most tokens a
    forward whose loss McNemar's exact test does not see at 5%, and the one that loses most of those where it
    does. Of several models the one whose third setting loses most, so that all three are of one.
    """
    others = rows[rows.baseline.notna() & (rows.baseline != rows.run)]
    others = others.dropna(subset=["p_value", "accuracy_difference", "tokens_per_step"])
    found = []
    for base, here in others.groupby("baseline", sort=False):
        lost = (here.p_value < ALPHA) & (here.accuracy_difference < 0)
        best = here[~lost].nlargest(1, "tokens_per_step")
        worst = here[lost].nsmallest(1, "accuracy_difference")
        why = {base: "One token a forward."}
        why |= dict(zip(best.run, map(_change, [FREE], best.itertuples()), strict=True))
        why |= dict(zip(worst.run, map(_change, [LOST], worst.itertuples()), strict=True))
        found.append((len(why), -worst.accuracy_difference.sum(), why))
    return max(found, key=lambda each: each[:2])[2] if found else {}


def _change(what: str, row) -> str:
    return f"{what}: {100 * row.accuracy_difference:+.1f} points, p = {row.p_value:.2g}."


def _p_value(first: Sequence[dict], other: Sequence[dict]) -> float:
    """McNemar's exact test of two runs, over the documents that both answered."""
    return mcnemar(*map(len, changed(first, other)))


def _line(row: pd.Series, scored: Sequence[dict], timed: bool) -> dict:
    return {
        "method": row.decoder,
        "model": row.model,
        "setting": row.label.removeprefix(row.decoder).lstrip(" ,"),
        "n": row.n,
        "accuracy %": estimate(row, "accuracy"),
        "useful tokens per step": estimate(row, "tokens_per_step"),
        "forwards per answer": Cell(
            forwards(row).replace("\n", ", "), order=next(iter(row.forwards_per_answer.values()))
        ),
        "positions per useful token": estimate(row, "positions_per_useful_token"),
        "MFLOPs per useful token": estimate(row, "flops_per_useful_token"),
        "times one token's tokens/s": estimate(row, "speedup") if timed else None,
        "tokens/s": estimate(row, "tokens_per_second") if timed else None,
        "answers without end": sum(sample["finish"] == "length" for sample in scored),
        "exact": _exact(row.exact),
        "run": row.run,
    }


def _exact(exact: Sequence[int] | None) -> Cell | None:
    claimed, identical = exact or (0, 0)
    return Cell(exactness(exact), order=identical / claimed) if claimed else None


def estimate(row: pd.Series, name: str) -> Interval | float | None:
    """A measure of a run in its unit for drawing, with its interval if it has one."""
    scale, value, ends = MEASURES[name].scale, row.get(name), row.get(f"{name}_interval")
    if value is None or pd.isna(value):
        return None
    if not isinstance(ends, list):
        return scale * value
    return Interval(*(scale * each for each in (value, *ends)))
