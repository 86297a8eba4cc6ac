"""The numbers of README.md and docs/, from the reference run:  python -m scripts.doc_numbers [--write]

Numbers of the reference run are followed by a comment that says which they are, in the words of eval.py and
report.py and with a measure for each, the last numbers before it:

    | 85.5% [80.0, 89.7] | 0.92 <!-- figure=tab1 arm=llada_leftright: accuracy tokens_per_step --> |
    2.2 times <!-- figure=dflash arm=dflash8 against figure=dflash arm=autoregressive: speedup -->

A measure of one run is a column of its figure's CSV (`records.summary`), one of two runs a key of
`records.comparing`. `forwards_per_useful_token` is of the step role; `auxiliary_per_step`, `drafter_per_step`
are forwards of another role for each step. Without `--write` the numbers are
checked: exit code 1 where one is another. Decimals, sign, % and interval stay as they are written.
"""

import re
import sys
from collections.abc import Callable
from functools import cache

from unmask.configuration.sweeps import settings
from unmask.paths import ROOT
from unmask.records import find_runs
from unmask.records.comparing import compare
from unmask.report.lookup import REFERENCE, archived_settings, runs_with, the_run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/reference/README.md"]
NUMBER = r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?"
VALUE = re.compile(rf"(?<![\w.]){NUMBER}%?(?: \[{NUMBER}, {NUMBER}\])?")
MARK = re.compile(r"<!-- ([^>]+): (\w[\w ]*) -->")
PERCENT = ("accuracy", "accuracy_difference")  # written in points, kept from 0 to 1


def main(write: bool) -> int:
    """Check or rewrite all pages; returns how many numbers were others."""
    runs, problems = find_runs(REFERENCE)
    if problems:
        raise ValueError("; ".join(problems))
    look_up, wrong = reader(runs), 0
    for page in PAGES:
        text, changes = renewed(page.read_text(), look_up)
        for old, new, what in changes:
            print(f"{page.relative_to(ROOT)}: {old} is {new} ({what})")
        wrong += len(changes)
        if write:
            page.write_text(text)
    return wrong


def renewed(text: str, look_up: Callable) -> tuple[str, list[tuple[str, str, str]]]:
    """The text with its marked numbers as they should be, and (was, is, what it is) of those that were
    others."""
    pieces, changes, start = [], [], 0
    for mark in MARK.finditer(text):
        before, measures = text[start : mark.start()], mark[2].split()
        values, end = list(VALUE.finditer(before))[-len(measures) :], 0
        if len(values) < len(measures):
            raise ValueError(f"{mark[0]}: {len(measures)} measures, and {len(values)} numbers before it")
        for value, measure in zip(values, measures, strict=True):
            scale = 100 if measure in PERCENT else 1
            new = written_as(value[0], [scale * each for each in look_up(mark[1], measure)])
            if new != value[0]:
                changes.append((value[0], new, f"{mark[1]}: {measure}"))
            pieces += [before[end : value.start()], new]
            end = value.end()
        pieces += [before[end:], mark[0]]
        start = mark.end()
    return "".join([*pieces, text[start:]]), changes


def written_as(text: str, values: list[float]) -> str:
    """`values` (one, or with its ends) in the form of `text`; ValueError where `text` has an interval and
    they have none."""
    left = iter(values)

    def one(found: re.Match) -> str:
        decimals = len(found[0].partition(".")[2])
        sign, comma = "+" * (text[0] in "+-"), "," * ("," in found[0])
        try:
            return format(next(left), f"{sign}{comma}.{decimals}f")
        except StopIteration:
            raise ValueError(f"{text}: there is no interval") from None

    return re.sub(NUMBER, one, text)


def reader(runs: list) -> Callable:
    """(settings, measure) -> [value, and the ends of its interval if it has one]."""

    @cache
    def of_settings(words: str):
        configs = settings([*archived_settings(REFERENCE, ()), *words.split()], "report")
        found = runs_with(configs, runs, any_threads=False)
        return found, the_run(found, runs)[1]

    def look_up(words: str, measure: str) -> list[float]:
        first, against, second = words.partition(" against ")
        one, scored = of_settings(first)
        row = compare(of_settings(second)[1], scored) if against else one.rows.iloc[0]
        if measure == "forwards_per_useful_token":
            return [1 / row["tokens_per_step"]]
        if measure.endswith("_per_step") and (role := measure.removesuffix("_per_step")) in row["forwards"]:
            return [row["forwards"][role] / row["forwards"][row["step_role"]]]
        if measure not in row or row[measure] is None:
            raise ValueError(f"{words}: has no {measure}")
        ends = row.get(f"{measure}_interval")
        return [row[measure], *(ends if ends is not None else ())]

    return look_up


if __name__ == "__main__":
    given = sys.argv[1:]
    if given not in ([], ["--write"]):
        sys.exit(__doc__)
    wrong = main(write=bool(given))
    sys.exit(bool(wrong and not given))
