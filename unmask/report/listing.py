"""Kind `table`: a row per setting, as Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from unmask.records.collection import Collection
from unmask.records.comparing import compare
from unmask.report.definition import Listing
from unmask.report.fronts import front
from unmask.report.measures import MEASURES, comparable
from unmask.report.tables import exactness, forwards, with_interval

FRONTS = {"tokens_per_step": "tokens/step", "positions_per_useful_token": "positions"}


def draw(listing: Listing, found: Collection, published: pd.DataFrame, output: Path, note: str) -> None:
    """Write the table, the note below it. What was published (not in this form) is left out."""
    write(table_of(listing, found), output, note)


def write(table: pd.DataFrame, output: Path, note: str) -> None:
    """A table as Markdown, the note below it, and as LaTeX."""
    output.parent.mkdir(parents=True, exist_ok=True)
    cells = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    lines = [f"| {' | '.join(line)} |\n" for line in cells]
    output.with_suffix(".md").write_text(f"{''.join(lines)}\n{note}\n")
    latex = table.style.hide(axis="index").format(escape="latex").to_latex(hrules=True)
    output.with_suffix(".tex").write_text(latex)


def table_of(listing: Listing, found: Collection) -> pd.DataFrame:
    """The cells as text, in the order of the sweep.

    Differences are paired by document with the baseline of the same task and conditions, and of
    `baseline_model` or else the same model. A setting is
    on a front when no other of its model and task beats it in accuracy and in that cost.
    """
    lines = []
    rows = found.rows
    for (model, task), here in rows.groupby(["model", "task"], sort=False):
        rivals = rows[(rows.task == task) & (rows.model == (listing.baseline_model or model))]
        timed = set(here.run[comparable(here)[0]])
        fronts = _fronts(here.dropna(subset="accuracy"))
        for _, row in here.iterrows():
            line = {
                "model": row.model,
                "task": row.task,
                "setting": row.label,
                "n": row.n,
                "accuracy %": one_line(row, "accuracy", "{:.1f}", scale=100),
                f"difference to {listing.baseline}": _difference(row, rivals, found, listing.baseline),
                **cost_cells(row, row.run in timed),
                "no answer": row.extraction_failures,
                "on the front of": ", ".join(name for name, runs in fronts.items() if row.run in runs),
                "AUP": "" if pd.isna(row.aup) else one_line(row, "aup", "{:.0f}"),
            }
            lines.append(line)
    return pd.DataFrame(lines)


def cost_cells(row: pd.Series, timed: bool) -> dict[str, str]:
    """What a setting cost, and whether its ids are the autoregressive ones, by column. timed: its times
    compare with others'."""
    return {
        "exact": exactness(row.exact),
        "tokens per step": one_line(row, "tokens_per_step", "{:.2f}"),
        "all committed per step": f"{_committed(row):.2f}",
        "forwards per answer": forwards(row).replace("\n", ", "),
        "positions per answer": f"{row.positions_per_answer:,.0f}",
        "MFLOPs per useful token": _number(row.flops_per_useful_token, "{:,.1f}", scale=1e-6),
        "tokens/s": one_line(row, "tokens_per_second", "{:.0f}") if timed else "-",
        "latency p50 / p90 (s)": _latency(row) if timed else "-",
    }


def _fronts(rows: pd.DataFrame) -> dict[str, set[str]]:
    found = {}
    for column, name in FRONTS.items():
        measured = rows.dropna(subset=column)
        on = front(measured[column], measured.accuracy, MEASURES[column].higher)
        found[name] = set(measured.run[on])
    return found


def _committed(row: pd.Series) -> float:
    """Tokens per forward as published work counts them: what stands after the end is among them."""
    return (row.useful_tokens + row.wasted_tokens) / row.forwards[row.step_role]


def _difference(row: pd.Series, rivals: pd.DataFrame, found: Collection, baseline: str) -> str:
    base = rivals[(rivals.plain == baseline) & (rivals.conditions == row.conditions)]
    if base.empty or base.run.iloc[0] == row.run:
        return ""
    change = compare(found.scored[base.run.iloc[0]], found.scored[row.run])
    return one_line(change, "accuracy_difference", "{:+.1f}", scale=100)


def one_line(summary, name: str, form: str, scale: float = 1) -> str:
    return with_interval(summary, name, form, form, scale=scale).replace("\n", " ")


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None or pd.isna(value) else form.format(scale * value)


def _latency(row: pd.Series) -> str:
    return " / ".join(_number(row[name], "{:.2f}") for name in ("latency_p50", "latency_p90"))
