"""Two runs against each other, in numbers: what is paired, document by document, is made here."""

from collections.abc import Sequence

import numpy as np

from unmask.records.files import RecordError
from unmask.records.reading import sample_key, some
from unmask.records.stats import Interval, bootstrap_speedup, paired_difference
from unmask.records.summary import Documents, ends, seconds_per_token, shared_clocks, the_metric, times_void

Pair = tuple[dict, dict]  # scored answers to one document: the baseline's, the other run's


def compare(baseline: Sequence[dict], other: Sequence[dict], in_turns: bool = True) -> dict:
    """`other` against `baseline`, from `Run.scored()`, paired over the documents that both have. Keys:

    n                                  common documents
    n_scored                           of these, with an answer that can be scored in both
    accuracy_difference, _interval     other - baseline; None where n_scored is 0, see below
    improved, worsened, p_value        documents that went up and down, McNemar's exact two-sided p, over all
                                       documents alike; None when n_scored is 0
    identical                          documents with the same useful ids in both
    tokens_per_step_ratio, _interval   useful tokens per forward of the step role, other's over the baseline's
    positions_ratio, _interval         positions fed (all roles) per useful token, in the same way
    speedup, speedup_interval          tokens/s (micro), in the same way; documents of one turn or batch are
                                       resampled together (`summary.shared_clocks`)
    speedup_unweighted                 mean over answers of seconds per id, the baseline's over the other's:
                                       DFlash's speed-up (`summary.seconds_per_token`)
    speedup_void                       why there is no speed-up, else None: times of either side are void,
                                       the baseline has no useful token, or they did not answer in the same
                                       sessions of turns; without in_turns (only a GPU's speed can do
                                       without), machines or commits differ

    Ratios have paired bootstrap intervals, and are None where a run has nothing to divide by.

    accuracy_difference of several tasks is the unweighted mean of the tasks' differences, with documents
    resampled within their task; it is None where a task has no document that can be scored in both.

    RecordError if the runs are of different tasks or metrics, or have no document in common.
    """
    if tasks := {s["task"] for s in baseline} ^ {s["task"] for s in other}:
        raise RecordError(f"runs of different tasks cannot be paired: {sorted(tasks)}")
    the_metric([*baseline, *other])
    base, new = map(Documents, common(baseline, other))
    void = _no_speedup(baseline, other, in_turns)
    if void is None and not base.useful.any():
        void = "the baseline has no useful token"
    seconds = base.useful, base.seconds, new.useful, new.seconds
    ratios = {
        "tokens_per_step_ratio": _ratio(base.useful, base.steps, new.useful, new.steps),
        "positions_ratio": _ratio(base.positions, base.useful, new.positions, new.useful),
        "speedup": None if void else _ratio(*seconds, groups=shared_clocks(base, new)),
    }
    result = {"n": base.ids.size} | _difference(base, new)
    result["identical"] = base.ids.size - len(_different(baseline, other))
    for name, ratio in ratios.items():
        result |= {name: ratio and ratio.value, f"{name}_interval": ratio and ends(ratio)}
    result["speedup_unweighted"] = None if void else _unweighted(baseline, other)
    return result | {"speedup_void": void}


def _unweighted(baseline: Sequence[dict], other: Sequence[dict]) -> float | None:
    ours, theirs = map(seconds_per_token, common(baseline, other))
    return ours / theirs if ours and theirs else None


def common(baseline: Sequence[dict], other: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """The samples of each run whose documents both have; RecordError without any."""
    ids = {sample["doc_id"] for sample in baseline} & {sample["doc_id"] for sample in other}
    if not ids:
        raise RecordError("the two runs have no document in common")
    first, second = ([sample for sample in scored if sample["doc_id"] in ids] for scored in (baseline, other))
    return first, second


def check_same_prompts(baseline: Sequence[dict], other: Sequence[dict]) -> None:
    """RecordError where a document of both runs did not have the same prompt ids."""
    pairs = _pairs(baseline, other)
    differing = [first["doc_id"] for first, second in pairs if first["prompt_hash"] != second["prompt_hash"]]
    if differing:
        raise RecordError(
            f"the prompts of {len(differing)} of {len(pairs)} common documents differ ({some(differing)}), "
            "so they are no pairs: compare runs of the same data, template, examples and tokenizer"
        )


def changed(baseline: Sequence[dict], other: Sequence[dict]) -> tuple[list[Pair], list[Pair]]:
    """(answers that the other run got better, answers that it got worse), each as (baseline's, other's)."""
    pairs = [pair for pair in _pairs(baseline, other) if None not in (pair[0]["correct"], pair[1]["correct"])]
    better = [(first, second) for first, second in pairs if first["correct"] < second["correct"]]
    worse = [(first, second) for first, second in pairs if first["correct"] > second["correct"]]
    return better, worse


def _pairs(baseline: Sequence[dict], other: Sequence[dict]) -> list[Pair]:
    """The answers to the same document and repeat, in the baseline's order."""
    theirs = {sample_key(sample): sample for sample in other}
    return [(ours, theirs[sample_key(ours)]) for ours in baseline if sample_key(ours) in theirs]


def _different(baseline: Sequence[dict], other: Sequence[dict]) -> set[int]:
    """The common documents that have not the same useful ids in both."""
    pairs = _pairs(baseline, other)
    return {a["doc_id"] for a, b in pairs if a["ids"][: a["useful"]] != b["ids"][: b["useful"]]}


def _ratio(
    base_top: np.ndarray,
    base_bottom: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    groups: np.ndarray | None = None,
) -> Interval | None:
    """A ratio of sums per document (n,) over the baseline's; None where there is nothing to divide by."""
    if not (base_top.any() and base_bottom.any() and bottom.any()):
        return None
    return bootstrap_speedup(base_top, base_bottom, top, bottom, groups=groups)


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
    ours, theirs = ({sample["session"] for sample in scored} for scored in (baseline, other))
    paired = all(a["session"] == b["session"] is not None for a, b in _pairs(baseline, other))
    if paired and ours == theirs:
        return None  # a session is of one machine and one commit
    for what in ("machine", "commit"):
        found = sorted({sample[what] or "unknown" for sample in [*baseline, *other]})
        if len(found) > 1:
            return f"different {what}s: {' and '.join(found)}"
    if in_turns and (ours != theirs or None in ours):
        return "they did not answer in turns"
    return None
