"""The numbers of README.md and docs/, from the reference run:  python -m scripts.doc_numbers [--write]

A number of the reference run is followed by a comment that says which, in the words of eval.py and report.py:

    85.5% [80.0, 89.7]<!-- figure=tab1 arm=llada_apd: accuracy -->
    2.2<!-- figure=dflash arm=dflash8 against figure=dflash arm=autoregressive: speedup -->

A measure of one run is a column of its figure's CSV (`records.summary`), one of two runs a key of
`records.comparing`. Without `--write` the numbers are checked: exit code 1 where one is another. Decimals,
sign, % and interval stay as they are written.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache

from hydra import initialize_config_dir

import report
from unmask import sweeps
from unmask.config import ROOT
from unmask.records import find_runs
from unmask.records.comparing import compare

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/reference/README.md"]
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
MARKED = re.compile(rf"({NUMBER}%?(?: \[{NUMBER}, {NUMBER}\])?)<!-- ([^>]+): (\w+) -->")
PERCENT = ("accuracy", "accuracy_difference")  # written in points, kept from 0 to 1


def main(write: bool) -> int:
    """Check or rewrite all pages; returns how many numbers were others."""
    runs, problems = find_runs(report.REFERENCE)
    if problems:
        raise ValueError("; ".join(problems))
    look_up, wrong = reader(runs), 0
    with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
        for page in PAGES:
            text = page.read_text()
            for found, new in numbers(text, look_up):
                if new != found[1]:
                    wrong += 1
                    print(f"{page.relative_to(ROOT)}: {found[1]} is {new} ({found[2]}: {found[3]})")
                    text = text.replace(found[0], found[0].replace(found[1], new, 1))
            if write:
                page.write_text(text)
    return wrong


def numbers(text: str, look_up: Callable) -> Iterator[tuple[re.Match, str]]:
    """Every marked number of a text, and how it is to be written."""
    for found in MARKED.finditer(text):
        value, ends = look_up(found[2].strip(), found[3])
        scale = 100 if found[3] in PERCENT else 1
        yield found, written_as(found[1], [scale * each for each in (value, *(ends or ()))])


def written_as(text: str, values: list[float]) -> str:
    """`values` (one, or with its ends) in the form of `text`; ValueError where `text` has an interval and
    they have none."""
    left = iter(values)

    def one(found: re.Match) -> str:
        decimals = len(found[0].partition(".")[2])
        sign, comma = "+" * (text[0] in "+-" and found[0][0] in "+-"), "," * ("," in found[0])
        try:
            return format(next(left), f"{sign}{comma}.{decimals}f")
        except StopIteration:
            raise ValueError(f"{text}: there is no interval") from None

    return re.sub(NUMBER, one, text)


def reader(runs: list) -> Callable:
    """(settings, measure) -> (value, ends of its interval or None)."""

    @cache
    def the_run(words: str):
        found = report.runs_with(sweeps.settings(words.split(), "report"), runs)
        return found, report.the_run(found, runs)[1]

    def look_up(words: str, measure: str):
        first, against, second = words.partition(" against ")
        one, scored = the_run(first)
        row = compare(the_run(second)[1], scored) if against else one.rows.iloc[0]
        if measure not in row or row[measure] is None:
            raise ValueError(f"{words}: has no {measure}")
        return row[measure], row.get(f"{measure}_interval")

    return look_up


if __name__ == "__main__":
    given = sys.argv[1:]
    if given not in ([], ["--write"]):
        sys.exit(__doc__)
    wrong = main(write=bool(given))
    sys.exit(bool(wrong and not given))
