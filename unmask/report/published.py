"""What the papers published, and the table in which it stands beside ours.

published_points.csv: D2F, dParallel, DFlash, Fast-dLLM, d3LLM and others, with the source of every point.
paper_figures.csv: APD's figures, and table 1 of DFlash's paper.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from unmask.output import safe_in_csv
from unmask.records.collection import Collection
from unmask.records.identity import flatten
from unmask.report.definition import Beside, Definition
from unmask.report.listing import write
from unmask.report.measures import comparable

HERE = Path(__file__).parent
ALONE = "(not run)"
DRAWN = {  # figures that kinds draw in panels of their own -> (source, figures) of published_points.csv
    "d2f": ("D2F 2508.09192", ["fig 2"]),
    "dparallel_llada": ("dParallel 2509.26488", ["fig 4a", "fig 4b"]),
    "dparallel_dream": ("dParallel 2509.26488", ["fig 4c", "fig 4d"]),
}
AXES = {"tok/s": "tokens/s (A100)", "step ratio": "steps saved (tokens over steps)"}
COSTS = {  # x_name of a published point -> (ours, whether it is a time)
    "tok/s": ("tokens_per_second", True),
    "steps": ("steps", False),
    "step ratio": ("step_ratio", False),
    "speed-up over autoregressive": ("speedup", True),
    "acceptance length": ("tokens_per_step", False),
}
ACCURACY = "accuracy %"
COLUMNS = [  # of the table
    "table",
    "task",
    "method",
    "published with",
    "measure",
    "published",
    "ours",
    "difference",
    "in half intervals",
    "published cost",
    "our cost",
    "our setting",
    "n",
]
NEAREST = "No source states the settings of these points: ours is the run of the nearest cost. "
METHOD = 28  # characters that a method has on a terminal


@cache
def points() -> pd.DataFrame:
    """Every published point: source, figure, series, task, setting, x_name, x, accuracy (%), origin, notes.

    A point without accuracy is of the cost that x_name names.
    """
    found = pd.read_csv(HERE / "published_points.csv", dtype={"setting": str}, keep_default_na=False)
    found[["x", "accuracy"]] = found[["x", "accuracy"]].apply(pd.to_numeric)
    return pd.concat([found, _of_paper_figures()], ignore_index=True)


def _of_paper_figures() -> pd.DataFrame:
    rows = []
    for row in _paper_figures().itertuples():
        drafted = row.figure == "dflash"
        same = {
            "source": "DFlash 2602.06036" if drafted else "APD 2506.00413",
            "figure": "table 1" if drafted else f"fig {row.figure}",
            "series": row.series,
            "task": row.task,
            "setting": "" if pd.isna(row.x) or drafted else f"{row.x_name}={row.x}",
            "origin": "table" if drafted else "figure",
            "notes": "H200" if drafted else "RTX A5000",
        }
        if drafted:
            rows.append(same | {"x_name": "speed-up over autoregressive", "x": float(row.x)})
            rows.append(same | {"x_name": "acceptance length", "x": row.tokens_per_step})
        else:
            same |= {"x_name": "tok/s", "x": row.throughput_tok_s, "accuracy": round(100 * row.accuracy, 1)}
            rows.append(same)
    return pd.DataFrame(rows)


@cache
def _paper_figures() -> pd.DataFrame:
    return pd.read_csv(HERE / "paper_figures.csv", dtype={"figure": str, "x": str})


def points_of(figure: str | None) -> pd.DataFrame:
    """The points of a figure, or of several joined by commas, that panels are drawn from; no rows where
    there are none.

    Columns: figure, series, task, x_name, x (text), accuracy (a share), throughput_tok_s, latency_s,
    tokens_per_step, generated_tokens.
    """
    wanted = figure.split(",") if figure else []
    parts = [_paper_figures()[_paper_figures().figure.isin(wanted)]]
    for name in wanted:
        if name in DRAWN:
            source, figures = DRAWN[name]
            every = points()
            theirs = every[(every.source == source) & every.figure.isin(figures)]
            parts.append(
                pd.DataFrame(
                    {
                        "figure": name,
                        "series": theirs.series,
                        "task": theirs.task,
                        "x_name": theirs.x_name.map(AXES),
                        "x": theirs.x.astype(str),
                        "accuracy": theirs.accuracy / 100,
                        "throughput_tok_s": theirs.x.where(theirs.x_name == "tok/s"),
                    }
                )
            )
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


# --- the table ---


def table_of(definition: Definition, found: Collection) -> pd.DataFrame:
    """Every published row of `definition.beside`, ours beside it, and below those of ours that no row has.

    A difference is ours less theirs, in units of the measure (accuracy in percent, or where that was not
    published the cost), and in half widths of our 95% interval (beyond 1: not within it). found:
    `figures.prepared`, or without rows.
    """
    beside = Beside(**definition.beside)
    every = points()
    theirs = every[(every.source == beside.paper) & every.figure.isin(beside.tables)]
    theirs = theirs[theirs.task.isin(beside.tasks.values())] if beside.tasks else theirs
    if theirs.empty:
        raise ValueError(f"figure {definition.name}: draw.beside: no published point is of it")
    order = {task: i for i, task in enumerate(dict.fromkeys([*beside.tasks.values(), *theirs.task]))}
    tables = theirs.figure.map(beside.tables.index)
    theirs = theirs.assign(at=theirs.task.map(order), of=tables).sort_values(["at", "of"], kind="stable")
    ours = [row for _, row in found.rows.iterrows()]
    timed = dict(zip(found.rows.run, comparable(found.rows)[0], strict=True)) if ours else {}
    used, lines = set(), []
    for _, point in theirs.iterrows():
        fitting = [row for row in ours if _is_of(row, point, beside, found.configs[row.run])]
        if beside.nearest:
            fitting = _nearest(fitting, point)
        used.update(row.run for row in fitting)
        lines += [_line(point, row, timed) for row in fitting or [None]]
    for row in ours:
        if row.run not in used:
            lines.append(_line(None, row, timed) | {"task": beside.tasks.get(row.task, row.task)})
    return pd.DataFrame([dict.fromkeys(COLUMNS, "") | line for line in lines], columns=COLUMNS)


def _is_of(row: pd.Series, point: pd.Series, beside: Beside, config: Mapping) -> bool:
    """Whether a run of ours is what a published point was made with."""
    arm = row.arm or ""
    series = beside.series.get(arm, beside.series.get(arm.partition("_")[2]))
    if point.series != series or point.task != beside.tasks.get(row.task):
        return False
    flat = flatten(config)
    for key, pattern in beside.setting.items():
        if key in flat:
            said = re.search(pattern, point.setting)
            if not said or _value(said[1]) != flat[key]:
                return False
    return True


def _nearest(rows: list[pd.Series], point: pd.Series) -> list[pd.Series]:
    """Of runs the one whose cost is nearest to a published point's, in a list; none where none has that
    cost."""
    name, time = COSTS.get(point.x_name, (None, False))
    costs = [] if name is None or time else [(_ours(row, name)[0], row) for row in rows]
    costs = [(abs(cost - point.x), row) for cost, row in costs if cost is not None]
    return [min(costs, key=lambda one: one[0])[1]] if costs else []


def _value(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return None if text == "none" else text


def _line(point: pd.Series | None, row: pd.Series | None, timed: Mapping[str, bool]) -> dict:
    """A row of the table: of a published point, of a run of ours, or of both."""
    scored = point is None or pd.notna(point.accuracy)
    line = {"measure": ACCURACY if scored else point.x_name, "published": "-", "ours": ALONE}
    if point is not None:
        cost = f"{point.x:g} {point.x_name}" if pd.notna(point.x) else ""
        line |= {
            "table": point.figure,
            "task": point.task,
            "method": point.series,
            "published with": point.setting,
            "published": f"{point.accuracy:.1f}" if scored else f"{point.x:g}",
            "published cost": cost if scored else "",
        }
    if row is None:
        return line
    line |= {"our setting": f"{row.model}: {row.plain}", "n": str(row.n)}
    accuracy = _ours(row, "accuracy", 100)
    if point is None:
        return line | {"method": row.arm or row.label, "ours": _words(*accuracy, ".1f")}
    name, time = COSTS.get(point.x_name, (None, False))
    cost = (None, None) if name is None or (time and not timed[row.run]) else _ours(row, name)
    if not scored:
        return line | {"ours": _words(*cost, ".2f")} | _difference(*cost, point.x)
    line |= {"our cost": _words(cost[0], None, ".1f"), "ours": _words(*accuracy, ".1f")}
    return line | _difference(*accuracy, point.accuracy)


def _ours(row: pd.Series, name: str, scale: float = 1) -> tuple[float | None, list[float] | None]:
    """(a number of a run, its interval); None where it has none."""
    if name in ("steps", "step_ratio"):
        steps = row.forwards_per_answer[row.step_role]
        return (steps if name == "steps" else row.max_new_tokens / steps), None
    value, ends = row[name], row.get(f"{name}_interval")
    if value is None or pd.isna(value):
        return None, None
    return scale * value, [scale * end for end in ends] if isinstance(ends, list) else None


def _words(value: float | None, ends: list[float] | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value:{form}}" + (f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends else "")


def _difference(value: float | None, ends: list[float] | None, theirs: float) -> dict[str, str]:
    if value is None:
        return {}
    half = (ends[1] - ends[0]) / 2 if ends else 0
    said = {"difference": f"{value - theirs:+.1f}"}
    return said | ({"in half intervals": f"{(value - theirs) / half:+.1f}"} if half else {})


def write_beside(definition: Definition, found: Collection, output: Path) -> Path:
    """The table as Markdown, LaTeX and CSV, beside the figure; returns the Markdown's path."""
    table, path = table_of(definition, found), output.with_name(f"{output.name}_published")
    write(table, path, note_of(definition, table))
    table.map(safe_in_csv).to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".md")


def note_of(definition: Definition, table: pd.DataFrame) -> str:
    """What the table's words mean."""
    alone = int((table.ours == ALONE).sum())
    return (
        f"Published: {Beside(**definition.beside).paper}. Ours with 95% intervals over documents; a "
        "difference is ours less published, in units of the measure, and in half widths of our interval: "
        "between -1 and 1 the published number lies within it. "
        f"{NEAREST * Beside(**definition.beside).nearest}"
        f"{ALONE}: {alone} of {len(table)} rows have no run of ours."
    )


def for_terminal(definition: Definition, table: pd.DataFrame, width: int) -> Table:
    """The table's main columns for a terminal of `width` characters, a heading above each task.

    Costs are left out where a method would have fewer than METHOD characters; no number and no word breaks.
    """
    several = table.duplicated(["table", "task", "method", "measure"], keep=False)
    methods = [
        ", ".join(
            [line.method]
            + [line["published with"]] * bool(several[at] and line["published with"])
            + [line.measure] * (line.measure != ACCURACY)
        )
        for at, line in table.iterrows()
    ]
    halves = table["in half intervals"].map(lambda half: f" ({half})" if half else "")
    cells = {
        "published": table.published,
        "ours": table.ours,
        "difference\n(in half\nintervals)": table.difference + halves,
        "published\ncost": table["published cost"],
        "our\ncost": table["our cost"],
    }
    taken = {name: max(map(len, [*name.split("\n"), *texts])) for name, texts in cells.items()}
    wanted = METHOD + sum(taken.values()) + 2 * len(cells) + 3  # with the gaps
    costs = any(table["published cost"]) and wanted <= width
    names = list(cells)[: None if costs else 3]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.title = Text(f"Beside {Beside(**definition.beside).paper}")
    shown.add_column(Text("method"))
    for name in names:
        shown.add_column(Text(name), justify="right", no_wrap=True)
    for task, rows in table.groupby("task", sort=False):
        shown.add_row(Text(task, style="bold"))
        for at in rows.index:
            numbers = [str(cells[name][at]) for name in names]
            style = "dim" if table.ours[at] == ALONE else ""
            shown.add_row(*map(Text, [methods[at], *numbers]), style=style)
    left_out = "" if costs or not any(table["published cost"]) else f" Costs: in {wanted} columns."
    shown.caption = Text(note_of(definition, table) + left_out, justify="left")
    shown.caption_justify = "left"
    return shown
