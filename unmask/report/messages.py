"""What a figure shows, in a sentence computed from its records: a title that a referee can check.

Nothing is chosen: a title names the sweep's ends or counts settings, it names no winner. A difference is
paired by document and has its 95% interval; where that holds 0, the title says how large it can be at most.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from unmask.records.collection import Collection
from unmask.records.comparing import compare
from unmask.report import acceptance, rivals
from unmask.report.curves import Line, lines_of, symbol
from unmask.report.definition import Acceptance, Board, Curve, Definition, Pareto, Rivals

ALPHA = 0.05  # that any setting of a task is said to differ by chance (Bonferroni)
RATIOS = {  # measure -> (key of `compare`, its name)
    "tokens_per_step": ("tokens_per_step_ratio", "tokens per step"),
    "positions_per_useful_token": ("positions_ratio", "positions per useful token"),
}


def message(definition: Definition, found: Collection) -> list[str]:
    """A line for each task, or each series; none for tables. found: with `baselines.with_changes`."""
    kinds = ((Rivals, rivals.findings), (Pareto, _differences), (Curve, _ends), (Acceptance, _lengths))
    for kind, say in kinds:
        if isinstance(definition, kind):
            return list(say(definition, found))
    return []


def _differences(pareto: Pareto, found: Collection) -> Iterator[str]:
    """How many settings of each task lose or gain accuracy against their baseline."""
    base = "one token a step" if isinstance(pareto, Board) else pareto.baseline
    compared = found.rows[found.rows.run != found.rows.baseline].dropna(subset="accuracy_difference")
    for task, here in compared.groupby("task", sort=False):
        sure = here.p_value < ALPHA / len(here)
        counts = {
            "lose": (sure & (here.accuracy_difference < 0)).sum(),
            "gain": (sure & (here.accuracy_difference > 0)).sum(),
        }
        said = " and ".join(f"{count} {word}" for word, count in counts.items() if count)
        rest = _at_most(here[~sure])
        if not said:
            yield f"{task}: accuracy of {len(here)} settings, no difference to {base}{rest}"
        elif sure.all():
            yield f"{task}: of {len(here)} settings {said} accuracy against {base}"
        else:
            yield f"{task}: of {len(here)} settings {said} accuracy against {base}; no other difference{rest}"


def _at_most(rows: pd.DataFrame) -> str:
    ends = [end for pair in rows.accuracy_difference_interval if isinstance(pair, list) for end in pair]
    return f" larger than {100 * np.abs(ends).max():.1f} points" if ends else " is established"


def _ends(curve: Curve, found: Collection) -> Iterator[str]:
    """Accuracy, and the first ratio among the measures, of the right end of the x axis against the left."""
    ratios = [RATIOS[name] for name in curve.measures if name in RATIOS][:1]
    for (model, _), here in found.rows.groupby(["model", "task"], sort=False):
        lines, ticks, _ = lines_of(curve, found, here)
        for line in lines:
            if len(line.rows) < 2:
                continue
            ends = " to ".join(ticks[position] for position in (line.positions[0], line.positions[-1]))
            change = _between_ends(line, found)
            said = [accuracy_words(change), *(ratio_words(change, *ratio) for ratio in ratios)]
            name = f" ({line.name})" if len(lines) > 1 else ""
            yield f"{model}{name}, {symbol(curve)} = {ends}: {', '.join(said)}"


def _between_ends(line: Line, found: Collection) -> dict:
    first, last = (found.scored[line.rows.run.iloc[end]] for end in (0, -1))
    return compare(first, last)


def accuracy_words(change: Mapping) -> str:
    """A paired difference of accuracy (`comparing.compare`) with its interval, or how large it is at most."""
    value, ends = change["accuracy_difference"], change["accuracy_difference_interval"]
    if value is None:
        return "accuracy cannot be compared"
    if not change["improved"] and not change["worsened"]:
        return "the same documents right"
    if ends is None:
        return f"accuracy {100 * value:+.1f} points"
    if ends[0] <= 0 <= ends[1]:
        return f"no difference in accuracy larger than {100 * max(map(abs, ends)):.1f} points"
    return f"accuracy {100 * value:+.1f} points [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"


def ratio_words(change: Mapping, key: str, what: str) -> str:
    """A paired ratio of `comparing.compare` with its interval."""
    value, ends = change[key], change[f"{key}_interval"]
    if value is None:
        return f"{what} cannot be compared"
    return f"{value:.2f} times the {what}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _lengths(_: Acceptance, found: Collection) -> Iterator[str]:
    """Tokens a step of every drafting setting against the sweep's first one, paired."""
    drafting = [row for _, row in found.rows.iterrows() if acceptance.drafts(row)]
    if not drafting:
        return
    first, *others = drafting
    mean = acceptance.mean_length(acceptance.taken(found, first)[1])
    ends = "" if np.isnan(mean.low) else f" [{mean.low:.2f}, {mean.high:.2f}]"
    said = []
    for row in others:
        change = compare(found.scored[first.run], found.scored[row.run])
        value, pair = change["tokens_per_step_ratio"], change["tokens_per_step_ratio_interval"]
        if pair and pair[0] <= 1 <= pair[1]:
            said.append(f"{row.label}: no difference larger than {100 * max(abs(e - 1) for e in pair):.0f}%")
        else:
            said.append(
                f"{row.label}: {value:.2f} times" + (f" [{pair[0]:.2f}, {pair[1]:.2f}]" if pair else "")
            )
    against = f". Tokens a step against it: {'; '.join(said)}" if said else ""
    yield f"{first.label} takes {mean.value:.2f}{ends} tokens a step{against}"
