"""Kind `table`: a row per setting, as Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from unmask.records.collection import Collection
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
    lines = [f"| {' | '.join(map(markdown, line))} |\n" for line in cells]
    output.with_suffix(".md").write_text(f"{''.join(lines)}\n{markdown(note)}\n")
    latex = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    output.with_suffix(".tex").write_text(latex.to_latex(hrules=True))


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no cell ends, no tag opens, no line breaks in it."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def table_of(listing: Listing, found: Collection) -> pd.DataFrame:
    """The cells as text, in the order of the sweep.

    found: with `baselines.with_changes`: differences and ratios are paired with the baseline. A setting is on
    a front when no other of its model and task beats it in accuracy and in that cost.
    """
    lines = []
    rows = found.rows
    for _, here in rows.groupby(["model", "task"], sort=False):
        timed = set(here.run[comparable(here)[0]])
        fronts = _fronts(here.dropna(subset="accuracy"))
        for _, row in here.iterrows():
            line = {
                "model": row.model,
                "task": row.task,
                "setting": row.label,
                "n": row.n,
                "accuracy %": one_line(row, "accuracy", "{:.1f}", scale=100),
                f"difference to {listing.baseline_arm or listing.baseline}": _difference(row),
                **cost_cells(row, row.run in timed),
                **published_cells(row, row.run in timed),
                "no answer": row.extraction_failures,
                "on the front of": ", ".join(name for name, runs in fronts.items() if row.run in runs),
            }
            lines.append(line)
    return pd.DataFrame(lines)


def cost_cells(row: pd.Series, timed: bool) -> dict[str, str]:
    """What a setting cost, and whether its ids are the autoregressive ones, by column. timed: its times
    compare with others'."""
    return {
        "exact": exactness(row.exact),
        "tokens per step": one_line(row, "tokens_per_step", "{:.2f}"),
        "forwards per answer": forwards(row).replace("\n", ", "),
        "all committed per step": f"{_committed(row):.2f}",
        "positions per answer": f"{row.positions_per_answer:,.0f}",
        "MFLOPs per useful token": _number(row.flops_per_useful_token, "{:,.1f}", scale=1e-6),
        "times the baseline's tokens/s": one_line(row, "speedup", "{:.2f}") if timed else "-",
        "tokens/s": one_line(row, "tokens_per_second", "{:.0f}") if timed else "-",
        "latency p50 / p90 (s)": _latency(row) if timed else "-",
    }


def published_cells(row: pd.Series, timed: bool) -> dict[str, str]:
    """What published work counts (`summary.summarise`), per step, and DFlash's means over answers, by column;
    a dash for what a record does not tell."""
    steps = row.forwards[row.step_role]
    counts = [row[name] for name in ("all_slots", "non_eos_tokens", "retokenised_tokens")]
    per_step = [_number(None if n is None or not steps else n / steps, "{:.2f}") for n in counts]
    means = [row.acceptance_unweighted, row.speedup_unweighted if timed else None]
    return {
        "leftmost commits %": _number(row.leftmost_share, "{:.0f}", scale=100),
        "published per step: slots / non-EOS / re-tokenised": " / ".join(per_step),
        "unweighted acceptance / times the baseline": " / ".join(_number(n, "{:.2f}") for n in means),
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


def _difference(row: pd.Series) -> str:
    if row.baseline in (None, row.run):
        return ""
    return one_line(row, "accuracy_difference", "{:+.1f}", scale=100)


def one_line(summary, name: str, form: str, scale: float = 1) -> str:
    return with_interval(summary, name, form, form, scale=scale).replace("\n", " ")


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None or pd.isna(value) else form.format(scale * value)


def _latency(row: pd.Series) -> str:
    return " / ".join(_number(row[name], "{:.2f}") for name in ("latency_p50", "latency_p90"))
