"""Tables of the page: a DataFrame as cells that sort by their value, and as CSV with every digit."""

from numbers import Integral, Number
from typing import NamedTuple

import pandas as pd

from unmask.output import NUMBER, safe_in_csv
from unmask.records.stats import Interval


class Section(NamedTuple):
    """A table of the page.

    table: a row per line. A cell is text, a number, a `stats.Interval`, a `Cell`, or None; the column `run`
        holds names of run folders, which link to their settings. Columns of few different texts are filtered
        by choice.
    note: a sentence or two below the title.
    """

    title: str
    table: pd.DataFrame
    note: str = ""


class Cell(NamedTuple):
    """text, and ends behind it ("[69.6, 81.4]"); order: what the cell sorts by, None for text."""

    text: str
    ends: str = ""
    order: float | None = None


def cell(value: object) -> Cell:
    """A value as it is shown: numbers with three digits, an en dash where there is none. A number that is
    text already, with an interval or without, stays as it was written; so does what is a Cell already."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, Interval):
        if value.low != value.low:  # nan: too few documents for an interval
            return cell(value.value)
        return Cell(number(value.value), f"[{number(value.low)}, {number(value.high)}]", float(value.value))
    if value is None or (isinstance(value, float) and value != value) or value == "":
        return Cell("–")
    if isinstance(value, Number):
        return Cell(number(value), "", float(value))
    if written := NUMBER.fullmatch(str(value)):
        return Cell(written[1], written[2] or "", float(written[1].replace(",", "")))
    return Cell(str(value))


def number(value: float) -> str:
    """Three significant digits; whole numbers, and numbers from 1000 on, without decimals."""
    if abs(value) >= 1000 or isinstance(value, Integral):
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def csv(table: pd.DataFrame) -> str:
    """The table with all digits; an interval fills two more columns, "X low" and "X high"."""
    columns = {}
    for name in table:
        values = list(table[name])
        intervals = [value for value in values if isinstance(value, Interval)]
        columns[name] = [_in_csv(value) for value in values]
        if intervals:
            for end in ("low", "high"):
                columns[f"{name} {end}"] = [getattr(value, end, None) for value in values]
    return pd.DataFrame(columns).map(safe_in_csv).to_csv(index=False)


def _in_csv(value: object) -> object:
    if isinstance(value, Cell):
        return value.text
    return value.value if isinstance(value, Interval) else value


def kinds(table: pd.DataFrame) -> list[str]:
    """How each column is filtered: "number", by "choice" of few texts that come again, or as "text"."""
    found = []
    for name in table:
        cells = [cell(value) for value in table[name]]
        if any(each.order is not None for each in cells):
            found.append("number")
        else:
            texts = len({each.text for each in cells})
            found.append("choice" if texts <= CHOICES and texts < len(cells) else "text")
    return found


CHOICES = 15  # texts that are ticked in a list; of more, one types a part
