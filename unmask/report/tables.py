"""Tables for the terminal: the same columns and the same words wherever numbers are printed.

Labels are text, whatever they hold: nothing in them is read as rich's markup.
"""

from collections.abc import Mapping, Sequence
from math import isnan

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from unmask.records.comparing import compare
from unmask.report.measures import comparable_summaries

WRAPS = 18  # characters of a column of words, at least, where it has more


def summary_table(
    summaries: Mapping[str, Mapping],
    scored: Mapping[str, Sequence[dict]] | None = None,
    device: str = "cpu",
) -> Table:
    """One row a setting: how good the answers are, and what they cost. Intervals (95%) stand below their
    values; "exact" only where a lossless decoder is among them.

    Times stand only beside those that they compare with (`measures.comparable`); below the table, why others
    do not. scored: each setting's scored documents, of which speeds are given as ratios to the first setting
    of the same documents, paired by turn. device: the kind that made them.
    """
    timed, reason = comparable_summaries(summaries, device)
    lossless = any(s["exact"] for s in summaries.values())
    paired = scored is not None and sum(timed.values()) > 1
    names = ["n", "accuracy %", "no\nanswer", "tokens\nper step", "forwards\nper answer"]
    names += ["times\nthe first"] * paired + ["tokens/s"] + ["exact"] * lossless
    table = empty_table("setting", 16, names)
    first = _first_of_same_documents(scored) if paired else {}
    for label, s in summaries.items():
        cells = [
            str(s["n"]),
            with_interval(s, "accuracy", "{:.1f}", "{:.0f}", scale=100),
            str(s["extraction_failures"]),
            with_interval(s, "tokens_per_step", "{:.2f}", "{:.2f}"),
            forwards(s),
        ]
        if paired:
            both = timed[label] and timed[first[label]]
            cells.append(_times(scored[first[label]], scored[label], device) if both else "-")
        cells.append(with_interval(s, "tokens_per_second", "{:.0f}", "{:.0f}") if timed[label] else "-")
        add_row(table, label, *cells, *([exactness(s["exact"])] if lossless else []))
    if reason:
        left = len(timed) - sum(timed.values())
        table.caption = Text(f"Times of {left} of {len(timed)} settings are left out: {reason}.")
        table.caption_justify = "left"
    return table


def likelihood_table(summaries: Mapping[str, Mapping]) -> Table:
    """One row a setting and metric of `evaluation.choices`: value, 95% interval over documents, costs."""
    names = ["n", "metric", "value", "texts", "forwards\nper text", "positions\nper text", "± nats\na text"]
    table = empty_table("setting", 16, names)
    for label, s in summaries.items():
        for metric, found in s["metrics"].items():
            shown = {metric: found["value"], f"{metric}_interval": found["interval"]}
            add_row(
                table,
                label,
                str(s["n"]),
                metric,
                with_interval(shown, metric, "{:.3f}", "{:.3f}"),
                f"{s['texts']:,}",
                *(f"{s[name] / s['texts']:,.1f}" for name in ("forwards", "positions")),
                "-" if s["error"] is None else f"{s['error']:.2f}",
            )
    return table


def _first_of_same_documents(scored: Mapping[str, Sequence[dict]]) -> dict[str, str]:
    """Label -> the first label whose documents are the same."""
    documents = {label: {(s["task"], s["doc_id"]) for s in found} for label, found in scored.items()}
    return {label: next(o for o in documents if documents[o] == mine) for label, mine in documents.items()}


def _times(first: Sequence[dict], other: Sequence[dict], device: str) -> str:
    if other is first:
        return "1"
    return with_interval(compare(first, other, in_turns=device == "cpu"), "speedup", "{:.2f}", "{:.2f}")


def print_table(table: Table, console: Console | None = None, keep: int = 1) -> None:
    """Print a table; where the terminal is too narrow for it, its columns in several tables, each with the
    first `keep` columns."""
    console = console or Console()
    groups, used = [[]], 0
    room = console.width - 2 - sum(map(_width, table.columns[:keep]))
    for column in table.columns[keep:]:
        if used + _width(column) > room and groups[-1]:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += _width(column)
    if len(groups) == 1:
        console.print(table)
        return
    for group in groups:
        columns = [*table.columns[:keep], *group]
        part = Table(box=table.box, padding=table.padding, title=table.title if group is groups[0] else None)
        for column in columns:
            as_there = {
                name: getattr(column, name) for name in ("justify", "no_wrap", "min_width", "overflow")
            }
            part.add_column(column.header, **as_there)
        for row, *cells in zip(table.rows, *(column.cells for column in columns), strict=True):
            part.add_row(*cells, style=row.style)
        if group is groups[-1]:
            part.caption, part.caption_justify = table.caption, table.caption_justify
        console.print(part)


def _width(column: Column) -> int:
    """Characters that a column needs: its lines whole, or if it wraps, a reasonable part of them."""
    lines = [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
    longest = max(map(cell_len, lines))
    return 2 + (longest if column.no_wrap else min(longest, max(WRAPS, column.min_width or 0)))


def empty_table(first: str, width: int, names: Sequence[str]) -> Table:
    """An empty table: a column of labels at least `width` wide, then numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(Text(first), min_width=width)
    for name in names:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def add_row(table: Table, *cells: str) -> None:
    """A row of plain text: rich reads no markup in it."""
    table.add_row(*map(Text, cells))


def forwards(summary: Mapping) -> str:
    """Forwards per answer, a line a role; the role is named only where there are several."""
    each = {role: f"{mean:,.1f}" for role, mean in summary["forwards_per_answer"].items()}
    if len(each) == 1:
        return next(iter(each.values()))
    return "\n".join(f"{role} {value}" for role, value in each.items())


def exactness(exact: Sequence[int] | None) -> str:
    """Answers that are the baseline's id for id, of those of a lossless decoder that were checked; empty
    where none was. exact: (checked, identical)."""
    if exact is None:
        return ""
    claimed, identical = exact
    return f"{identical} of {claimed}"


def with_interval(summary: Mapping, name: str, form: str, ends_form: str, scale: float = 1) -> str:
    """A number and, on a second line, its interval; a dash where there is none."""
    value, ends = summary[name], summary[f"{name}_interval"]
    if value is None or isnan(value):
        return "-"
    number = form.format(scale * value)
    if ends is None:
        return number
    return f"{number}\n[{', '.join(ends_form.format(scale * end) for end in ends)}]"


def speed_table(arms: dict[str, dict]) -> Table:
    """One row an arm (benchmark.timing): how fast, against the first, and the work per answer."""
    names = [
        "times\nthe first",
        "tokens/s",
        "tokens\nper step",
        "forwards\nper answer",
        "positions\nper answer",
    ]
    table = empty_table("arm", 12, names)
    for name, arm in arms.items():
        costs = {
            what: {
                key.removeprefix(what + " "): f"{value:,.1f}"
                for key, value in arm["per_answer"].items()
                if key.startswith(what) and value
            }
            for what in ("forwards", "positions")
        }
        add_row(
            table,
            name,
            _estimate(arm["ratio"], "{:.2f}"),
            _estimate(arm["tokens_per_second"], "{:.1f}"),
            f"{arm['tokens_per_step']:.2f}",
            *("\n".join(f"{role} {value}" for role, value in costs[what].items()) for what in costs),
        )
    return table


def _estimate(interval, form: str) -> str:
    value, low, high = map(form.format, interval)
    return value if low == "nan" else f"{value}\n[{low}, {high}]"


def profile_table(arms: dict[str, dict]) -> Table:
    """One row an arm (benchmark.profile): where its time, memory and arithmetic go, or memory alone."""
    held = {name: f"{arm['peak_mb']:,.1f} + {arm['weights_mb']:,.0f}" for name, arm in arms.items()}
    if not all("shares" in arm for arm in arms.values()):
        table = empty_table("arm", 12, ["peak MB\n+ weights"])
        for row in held.items():
            add_row(table, *row)
        return table
    names = [
        "bodies %",
        "heads %",
        "everything\nelse %",
        "ceiling\ntokens/s",
        "head rows\nper step",
        "MFLOP per\nuseful token",
        "peak MB\n+ weights",
    ]
    table = empty_table("arm", 12, names)
    for name, arm in arms.items():
        ceiling = arm["ceiling_tokens_per_second"]
        add_row(
            table,
            name,
            *(f"{100 * share:.1f}" for share in arm["shares"].values()),
            "-" if ceiling is None else f"{ceiling:.1f}",
            "\n".join(f"{role} {rows:.1f}" for role, rows in arm["head_rows_per_step"].items()),
            f"{arm['mflop_per_useful_token']:,.0f}",
            held[name],
        )
    return table
