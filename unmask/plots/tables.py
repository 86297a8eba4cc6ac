"""Tables from summaries (records.summary): the same columns and the same words wherever numbers are
printed."""

from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table

from unmask.plots.pareto import aups, front
from unmask.records.summary import compare
from unmask.records.table import one_token


def summary_table(summaries: dict[str, dict]) -> Table:
    """One row a setting: how good the answers are, and what they cost. Intervals (95%) stand below their
    values."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("setting", min_width=16)
    for name in ("n", "accuracy %", "no\nanswer", "tokens\nper step", "forwards\nper answer", "tokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, s in summaries.items():
        table.add_row(
            label,
            str(s["n"]),
            with_interval(s, "accuracy", "{:.1f}", "{:.0f}", scale=100),
            str(s["extraction_failures"]),
            with_interval(s, "tokens_per_step", "{:.2f}", "{:.2f}"),
            forwards(s),
            with_interval(s, "tokens_per_second", "{:.0f}", "{:.0f}"),
        )
    return table


def forwards(summary: dict) -> str:
    """Forwards per answer, a line a role; the role is named only where there are several."""
    each = {role: f"{total / summary['samples']:,.1f}" for role, total in summary["forwards"].items()}
    return (
        "\n".join(f"{role} {value}" for role, value in each.items())
        if len(each) > 1
        else next(iter(each.values()))
    )


def with_interval(summary: dict, name: str, form: str, ends_form: str, scale: float = 1) -> str:
    """A number and, on a second line, its interval; a dash where there is none."""
    value, ends = summary[name], summary[f"{name}_interval"]
    if value is None:
        return "-"
    number = form.format(scale * value)
    return (
        number if ends is None else f"{number}\n[{', '.join(ends_form.format(scale * end) for end in ends)}]"
    )


def speed_table(arms: dict[str, dict]) -> Table:
    """One row an arm (speed.timing): how fast, against the first, and the work per answer."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("arm", min_width=12)
    for name in (
        "tokens/s",
        "times\nthe first",
        "tokens\nper step",
        "forwards\nper answer",
        "positions\nper answer",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name, arm in arms.items():
        costs = {
            what: {
                key.removeprefix(what + " "): f"{value:,.1f}"
                for key, value in arm["per_answer"].items()
                if key.startswith(what) and value
            }
            for what in ("forwards", "positions")
        }
        table.add_row(
            name,
            _estimate(arm["tokens_per_second"], "{:.1f}"),
            _estimate(arm["ratio"], "{:.2f}"),
            f"{arm['tokens_per_step']:.2f}",
            *("\n".join(f"{role} {value}" for role, value in costs[what].items()) for what in costs),
        )
    return table


def _estimate(interval, form: str) -> str:
    value, low, high = map(form.format, interval)
    return value if low == "nan" else f"{value}\n[{low}, {high}]"


def anatomy_table(arms: dict[str, dict]) -> Table:
    """One row an arm (speed.anatomy): where its time, memory and arithmetic go."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("arm", min_width=12)
    for name in (
        "bodies %",
        "heads %",
        "everything\nelse %",
        "ceiling\ntokens/s",
        "head rows\nper step",
        "MFLOP per\nuseful token",
        "peak MB\n+ weights",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name, arm in arms.items():
        ceiling = arm["ceiling_tokens_per_second"]
        table.add_row(
            name,
            *(f"{100 * share:.1f}" for share in arm["shares"].values()),
            "-" if ceiling is None else f"{ceiling:.1f}",
            "\n".join(f"{role} {rows:.1f}" for role, rows in arm["head_rows_per_step"].items()),
            f"{arm['mflop_per_useful_token']:,.0f}",
            f"{arm['peak_mb']:,.1f} + {arm['weights_mb']:,.0f}",
        )
    return table


def report_table(rows: pd.DataFrame, samples: dict[str, list[dict]], runs: pd.DataFrame) -> pd.DataFrame:
    """The columns of the baseline table as text, one row a run, differences paired with K = 1 of the same
    model and task.

    runs: all that there are; AUP is of a decoder with all its settings.
    """
    lines, areas = [], aups(runs)
    for (model, task, hardware), group in rows.groupby(["model", "task", "hardware"], sort=False):
        group = group.sort_values("label")
        base = group[one_token(group)]
        on_front = front(group.tokens_per_second, group.accuracy)
        for (_, row), best in zip(group.iterrows(), on_front, strict=True):
            difference = ""
            if len(base) and row.run != base.run.iloc[0]:
                c = compare(samples[base.run.iloc[0]], samples[row.run])
                difference = with_interval(c, "accuracy_difference", "{:+.1f}", "{:+.1f}", scale=100).replace(
                    "\n", " "
                )
            lines.append(
                {
                    "model": model,
                    "task": task,
                    "setting": row.label,
                    "n": row.n,
                    "accuracy %": with_interval(row, "accuracy", "{:.1f}", "{:.1f}", scale=100).replace(
                        "\n", " "
                    ),
                    "difference to K = 1": difference,
                    "tokens per step": with_interval(row, "tokens_per_step", "{:.2f}", "{:.2f}").replace(
                        "\n", " "
                    ),
                    "forwards per answer": forwards(row).replace("\n", ", "),
                    "positions per answer": f"{sum(row.positions.values()) / row.samples:,.0f}",
                    "tokens/s": with_interval(row, "tokens_per_second", "{:.0f}", "{:.0f}").replace(
                        "\n", " "
                    ),
                    "mean of ratios": f"{row.tokens_per_second_macro:.0f}",
                    "latency p50 / p90 (s)": "-"
                    if pd.isna(row.latency_p50)
                    else f"{row.latency_p50:.2f} / {row.latency_p90:.2f}",
                    "no answer": row.extraction_failures,
                    "Pareto": "yes" if best else "",
                    "AUP": f"{areas[key]:.0f}"
                    if (key := (model, task, hardware, row.decoder)) in areas
                    else "",
                }
            )
    return pd.DataFrame(lines)


def write_tables(rows: pd.DataFrame, samples: dict[str, list[dict]], runs: pd.DataFrame, stem: Path) -> None:
    """The table as Markdown and LaTeX."""
    found = report_table(rows, samples, runs)
    stem.parent.mkdir(parents=True, exist_ok=True)
    cells = [list(found.columns), ["---"] * found.shape[1], *found.astype(str).to_numpy().tolist()]
    stem.with_suffix(".md").write_text("".join(f"| {' | '.join(line)} |\n" for line in cells))
    stem.with_suffix(".tex").write_text(
        found.style.hide(axis="index").format(escape="latex").to_latex(hrules=True)
    )
