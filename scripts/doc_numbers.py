"""The numbers of README.md and docs/, from the reference run:  python -m scripts.doc_numbers [--write]

docs/numbers.yaml has the sentences and table rows of each page that hold numbers of the reference run. A
number is written as the measure that it is, and the run in the words of eval.py and report.py:

    - 'at R = 0 it commits {tokens_per_step: figure=fig3 arm=apd decoder.mixture_weight=0.0} tokens per step'
    - '{speedup: figure=dflash arm=dflash against figure=dflash arm=autoregressive} times'

Rows of a table that differ in a name and a run are written once. A cell may be empty on the page:

    - row: '| $name | {accuracy: $run} | {speedup: $run against figure=fig3 arm=one} |'
      runs: {R = 0: figure=fig3 arm=apd decoder.mixture_weight=0.0}

A measure of one run is a column of its figure's CSV (`records.summary`), one of two runs a key of
`records.comparing`. `forwards_per_useful_token` is of the step role; `auxiliary_per_step`, `drafter_per_step`
are forwards of another role for each step. Without `--write` the numbers are
checked: exit code 1 where one is another. Decimals, sign, % and interval stay as they are written.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from string import Template

import yaml

from unmask.configuration.sweeps import settings
from unmask.paths import ROOT
from unmask.records import find_runs
from unmask.records.comparing import compare
from unmask.report.lookup import REFERENCE, archived_settings, runs_with, the_run

SENTENCES = ROOT / "docs" / "numbers.yaml"
NUMBER = r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?"
VALUE = rf"(?<![\w.]){NUMBER}%?(?:\s\[{NUMBER},\s{NUMBER}\])?"
HOLE = re.compile(r"\{(\w+): ([^}]*)\}")  # {measure: settings}
PERCENT = ("accuracy", "accuracy_difference")  # written in points, kept from 0 to 1


def main(write: bool) -> int:
    """Check or rewrite all pages; returns how many numbers were others."""
    runs, problems = find_runs(REFERENCE)
    if problems:
        raise ValueError("; ".join(problems))
    look_up, wrong = reader(runs), 0
    for name, sentences in yaml.safe_load(SENTENCES.read_text()).items():
        page = ROOT / name
        text, changes = renewed(page.read_text(), sentences, look_up)
        for old, new, what in changes:
            print(f"{name}: {old} is {new} ({what})")
        wrong += len(changes)
        if write:
            page.write_text(text)
    return wrong


def renewed(text: str, sentences: list, look_up: Callable) -> tuple[str, list[tuple[str, str, str]]]:
    """The text with the numbers of its sentences as they should be, and (was, is, what it is) of those that
    were others. ValueError where a sentence is not in the text, or more than once."""
    changes = []
    for sentence in _one_by_one(sentences):
        holes = [hole.groups() for hole in HOLE.finditer(sentence)]
        found = list(_pattern(sentence).finditer(text))
        if len(found) != 1:
            raise ValueError(f"{len(found)} times in the text: {sentence}")
        pieces, end = [], 0
        for i, (measure, of) in enumerate(holes, 1):
            value, (start, stop) = found[0][i], found[0].span(i)
            if not value:  # an empty cell
                continue
            scale = 100 if measure in PERCENT else 1
            new = written_as(value, [scale * each for each in look_up(of, measure)])
            if new != value:
                changes.append((value, new, f"{of}: {measure}"))
            pieces += [text[end:start], new]
            end = stop
        text = "".join([*pieces, text[end:]])
    return text, changes


def _one_by_one(sentences: list) -> Iterator[str]:
    """The sentences, with a table's rows written out."""
    for each in sentences:
        if isinstance(each, str):
            yield each
        else:
            row = Template(each["row"])
            yield from (row.substitute(name=name, run=run) for name, run in each["runs"].items())


def _pattern(sentence: str) -> re.Pattern:
    """What finds the sentence on a page, wherever its lines end: a group for each number, empty for an empty
    cell."""
    between = [
        r"\s+".join(re.escape(word) for word in re.split(r"\s+", part)) for part in HOLE.split(sentence)[::3]
    ]
    if not sentence.startswith("|"):
        return re.compile(f"({VALUE})".join(between))
    return re.compile(
        rf"\s*({VALUE}|)\s*".join(part.removeprefix(r"\s+").removesuffix(r"\s+") for part in between)
    )


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
