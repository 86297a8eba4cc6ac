"""Tables from summaries (records.summary): the same columns and the same words wherever numbers are printed."""

from rich.table import Table


def interval(value: float | None, ends: list[float] | None, form: str) -> str:
    """A value with its interval, "81.0 [74.2, 86.4]"; a dash where there is none."""
    if value is None:
        return "-"
    return form.format(value) + (f" [{form.format(ends[0])}, {form.format(ends[1])}]" if ends else "")


def summary_table(summaries: dict[str, dict]) -> Table:
    """One row a setting: how good the answers are, and what they cost."""
    table = Table(title=None, caption="Intervals are 95%. tokens/step = useful tokens per forward of the main model; "
                  "forwards and positions per answer.", caption_justify="left")  # fmt: skip
    table.add_column("setting", no_wrap=True)
    for name in ("n", "accuracy %", "no answer", "tokens/step", "forwards", "positions", "tokens/s"):
        table.add_column(name, justify="right")
    for label, s in summaries.items():
        table.add_row(
            label,
            str(s["n"]),
            interval(percent(s["accuracy"]), percent(s["accuracy_interval"]), "{:.1f}"),
            str(s["extraction_failures"]),
            interval(s["tokens_per_step"], s["tokens_per_step_interval"], "{:.2f}"),
            per_role(s["forwards"], s["samples"]),
            per_role(s["positions"], s["samples"]),
            interval(s["tokens_per_second"], s["tokens_per_second_interval"], "{:.1f}"),
        )
    return table


def percent(value):
    if value is None:
        return None
    return [100 * v for v in value] if isinstance(value, list) else 100 * value


def per_role(totals: dict[str, int], samples: int) -> str:
    return "\n".join(f"{role} {total / samples:,.1f}" for role, total in totals.items())
