"""Two runs against each other, in numbers: what is paired, document by document, is made here."""

from collections.abc import Sequence

import numpy as np

from unmask.records.files import RecordError
from unmask.records.stats import bootstrap_speedup, paired_difference
from unmask.records.summary import Documents, ends, shared_clocks, the_metric, times_void


def compare(baseline: Sequence[dict], other: Sequence[dict], in_turns: bool = True) -> dict:
    """`other` against `baseline`, paired over the documents that both have. Keys:

    n                                  common documents
    n_scored                           of these, with an answer that can be scored in both
    accuracy_difference, _interval     other - baseline; None where n_scored is 0, see below
    improved, worsened, p_value        documents that went up and down, McNemar's exact two-sided p, over all
                                       documents alike; None when n_scored is 0
    speedup, speedup_interval          tokens/s (micro) of other over the baseline's, paired bootstrap;
                                       documents that shared a batch in either run are resampled together
    speedup_void                       why there is no speed-up, else None: times of either side are void,
                                       machines or commits differ, the baseline has no useful token, or
                                       they did not answer in turns (asked for by in_turns; only a GPU's
                                       speed can do without)

    accuracy_difference of several tasks is the unweighted mean of the tasks' differences, with documents
    resampled within their task; it is None where a task has no document that can be scored in both.

    RecordError if the runs are of different tasks or metrics, or have no document in common.
    """
    if tasks := {s["task"] for s in baseline} ^ {s["task"] for s in other}:
        raise RecordError(f"runs of different tasks cannot be paired: {sorted(tasks)}")
    the_metric([*baseline, *other])
    common = {s["doc_id"] for s in baseline} & {s["doc_id"] for s in other}
    base, new = (Documents([s for s in scored if s["doc_id"] in common]) for scored in (baseline, other))
    result = {"n": len(common)} | _difference(base, new)
    void = _no_speedup(baseline, other, in_turns)
    if void is None and not base.useful.any():
        void = "the baseline has no useful token"
    costs = base.useful, base.seconds, new.useful, new.seconds
    speedup = None if void else bootstrap_speedup(*costs, groups=shared_clocks(base, new))
    return result | {
        "speedup": speedup and speedup.value,
        "speedup_interval": speedup and ends(speedup),
        "speedup_void": void,
    }


def _difference(base: Documents, new: Documents) -> dict:
    both = ~np.isnan(base.correct) & ~np.isnan(new.correct)
    tasks = base.tasks[both]
    change = paired_difference(base.correct[both], new.correct[both], tasks=tasks) if both.any() else None
    whole = change is not None and set(tasks) == set(base.task_names)
    return {
        "n_scored": int(both.sum()),
        "accuracy_difference": change.value if whole else None,
        "accuracy_difference_interval": ends(change) if whole else None,
        "improved": change and change.up,
        "worsened": change and change.down,
        "p_value": change and change.p,
    }


def _no_speedup(baseline: Sequence[dict], other: Sequence[dict], in_turns: bool) -> str | None:
    for name, scored in (("the baseline", baseline), ("the other run", other)):
        if void := times_void(scored):
            return f"times of {name} are void: {void}"
    for what in ("machine", "commit"):
        found = sorted({sample[what] or "unknown" for sample in [*baseline, *other]})
        if len(found) > 1:
            return f"different {what}s: {' and '.join(found)}"
    ours, theirs = ({sample["turns"] for sample in scored} for scored in (baseline, other))
    if in_turns and (ours != theirs or None in ours):
        return "they did not answer in turns"
    return None
