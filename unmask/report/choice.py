"""Settings are chosen on the validation split and reported on the test split.

The best of several settings looks better on the problems that chose it than on others. So a best setting is
always named from runs of `task.split=validation`.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from unmask.records import Run
from unmask.records.collection import Collection, everything
from unmask.records.comparing import compare
from unmask.records.identity import canonical, flatten

LEAST = 500  # documents of a validation run: n = 200 was seen to mislead by 12 points
NOT_CHOSEN = f"not chosen: needs task.split=validation, limit={LEAST}"
FREE = (
    "batch_size",
    "threads",
    "task.split",
    "task.prompts",
)  # in which the two runs of a setting may differ


def validation_of(runs: Sequence[Run]) -> Collection:
    """The finished runs on validation problems of a folder, from `find_runs`."""
    return everything([run for run in runs if run.config["task"].get("split") == "validation"])


def counterparts(found: Collection, validation: Collection) -> dict[str, str]:
    """Run -> the run of the same setting on validation problems, of at least `LEAST` documents.

    Same means: all settings and weights but batch size, threads, split and its prompts. Of several, the one
    of most documents.
    """
    by_setting: dict[str, tuple[int, str]] = {}
    for run, scored in validation.scored.items():
        size = len({sample["doc_id"] for sample in scored})
        if validation.configs[run]["task"].get("split") == "validation" and size >= LEAST:
            setting = _setting(validation.configs[run])
            by_setting[setting] = max((size, run), by_setting.get(setting, (0, "")))
    settings = {run: _setting(config) for run, config in found.configs.items()}
    return {run: by_setting[setting][1] for run, setting in settings.items() if setting in by_setting}


def _setting(config: Mapping) -> str:
    return canonical({key: value for key, value in flatten(config).items() if key not in FREE})


def choose(
    found: Collection, validation: Collection, rows: pd.DataFrame, base: str, loss: float
) -> tuple[str | None, str]:
    """(the run of `rows` whose setting makes most tokens a step on validation problems among those that lose
    at most `loss` points of accuracy there, why there is none).

    rows: a method's settings, of `found`. base: the run that losses are counted against, paired by document.
    A method of one setting leaves nothing to choose. Otherwise every setting needs its validation run.
    """
    if len(rows) == 1:
        return rows.run.iloc[0], ""
    pairs = counterparts(found, validation)
    without = [run for run in {*rows.run, base} if run not in pairs]
    if without:
        part = f" ({len(without)} of {len(rows.run) + (base not in set(rows.run))} settings lack it)"
        return None, NOT_CHOSEN + part * bool(pairs)
    good = {}
    for run in rows.run:
        change = compare(validation.scored[pairs[base]], validation.scored[pairs[run]])
        difference = change["accuracy_difference"]
        if difference is not None and 100 * difference >= -loss - 1e-9:
            good[run] = change["tokens_per_step_ratio"] or 0
    return (max(good, key=good.get), "") if good else (None, "none")
