"""Tables from summaries (records.summary): the same columns and the same words wherever numbers are printed."""

from rich import box
from rich.table import Table


def summary_table(summaries: dict[str, dict]) -> Table:
    """One row a setting: how good the answers are, and what they cost. Intervals (95%) stand below their values."""
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
    return "\n".join(f"{role} {value}" for role, value in each.items()) if len(each) > 1 else next(iter(each.values()))


def with_interval(summary: dict, name: str, form: str, ends_form: str, scale: float = 1) -> str:
    """A number and, on a second line, its interval; a dash where there is none."""
    value, ends = summary[name], summary[f"{name}_interval"]
    if value is None:
        return "-"
    number = form.format(scale * value)
    return number if ends is None else f"{number}\n[{', '.join(ends_form.format(scale * end) for end in ends)}]"
