"""The accounting: every number that is printed or plotted is made here, from scored samples and nothing else.

With repeats, a document's answers are averaged and its costs added before anything is resampled, so that
intervals never take two answers to one question for two questions.
"""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

import numpy as np

from unmask.records.files import RecordError
from unmask.records.stats import (
    Difference,
    Interval,
    bootstrap_ratio,
    bootstrap_speedup,
    paired_difference,
    wilson,
)


def summarise(scored: Sequence[dict]) -> dict:
    """One run in numbers, from `Run.scored()`. Keys:

    n, samples                    documents, and generations (more than n when documents are repeated)
    n_scored                      documents with an answer that can be scored; accuracy is over these
    accuracy, accuracy_interval   0..1 with Wilson's [low, high]; None when nothing can be scored
    extraction_failures           generations from which no answer could be read
    useful_tokens                 ids before the first stop
    wasted_tokens                 ids committed from the stop on (the stop itself included)
    mean_generated_tokens         useful and wasted, per generation
    forwards, positions           role -> total
    step_role                     whose forwards count as steps: denoiser, else the only role
    tokens_per_step, _interval    useful tokens per forward of that role
    seconds                       total
    tokens_per_second, _interval  useful tokens over seconds of the whole run (micro)
    tokens_per_second_macro       mean of the ratio per generation, which the APD paper plots
    latency_p50, latency_p90      seconds per generation at batch 1, else None

    Intervals are [low, high] at 95 %, None where too few documents leave nothing to resample.
    """
    documents = _Documents(scored)
    role = _step_role(scored)
    correct = documents.correct[~np.isnan(documents.correct)]
    accuracy = wilson(correct.sum(), correct.size) if correct.size else None
    per_step = bootstrap_ratio(documents.useful, documents.total(lambda s: s["forwards"].get(role, 0)))
    per_second = bootstrap_ratio(documents.useful, documents.seconds)
    useful, seconds = (np.array([sample[name] for sample in scored]) for name in ("useful", "seconds"))
    ids = np.array([len(sample["ids"]) for sample in scored])
    alone = all(sample["batch_size"] == 1 for sample in scored)
    return {
        "n": documents.ids.size,
        "samples": len(scored),
        "n_scored": correct.size,
        "accuracy": accuracy and float(accuracy.value),
        "accuracy_interval": accuracy and _ends(accuracy),
        "extraction_failures": sum(sample["extraction_failed"] for sample in scored),
        "useful_tokens": int(useful.sum()),
        "wasted_tokens": int((ids - useful).sum()),
        "mean_generated_tokens": float(ids.mean()),
        "forwards": _totals(scored, "forwards"),
        "positions": _totals(scored, "positions"),
        "step_role": role,
        "tokens_per_step": per_step.value,
        "tokens_per_step_interval": _ends(per_step),
        "seconds": float(seconds.sum()),
        "tokens_per_second": per_second.value,
        "tokens_per_second_interval": _ends(per_second),
        "tokens_per_second_macro": float((useful / seconds).mean()),
        "latency_p50": float(np.percentile(seconds, 50)) if alone else None,
        "latency_p90": float(np.percentile(seconds, 90)) if alone else None,
    }


def compare(baseline: Sequence[dict], other: Sequence[dict]) -> dict:
    """`other` against `baseline`, paired over the documents that both have. Keys:

    n                                  common documents
    n_scored                           of these, with an answer that can be scored in both
    accuracy_difference, _interval     other - baseline; None when n_scored is 0
    improved, worsened, p_value        documents that went up and down, McNemar's exact two-sided p
    speedup, speedup_interval          tokens/s of other over the baseline's, paired bootstrap; None when
                                       the baseline has no useful token

    RecordError if the runs are of different tasks or have no document in common.
    """
    if tasks := {s["task"] for s in baseline} ^ {s["task"] for s in other}:
        raise RecordError(f"runs of different tasks cannot be paired: {sorted(tasks)}")
    common = {s["doc_id"] for s in baseline} & {s["doc_id"] for s in other}
    base, new = (_Documents([s for s in scored if s["doc_id"] in common]) for scored in (baseline, other))
    both = ~np.isnan(base.correct) & ~np.isnan(new.correct)
    change = paired_difference(base.correct[both], new.correct[both]) if both.any() else None
    costs = base.useful, base.seconds, new.useful, new.seconds
    speedup = bootstrap_speedup(*costs) if base.useful.any() else None
    return {
        "n": len(common),
        "n_scored": int(both.sum()),
        "accuracy_difference": change and change.value,
        "accuracy_difference_interval": change and _ends(change),
        "improved": change and change.up,
        "worsened": change and change.down,
        "p_value": change and change.p,
        "speedup": speedup and speedup.value,
        "speedup_interval": speedup and _ends(speedup),
    }


class _Documents:
    """Samples gathered by document, in order of doc_id: total `useful` tokens and `seconds`, mean `correct`
    (nan where no repeat can be scored)."""

    def __init__(self, scored: Sequence[dict]):
        if not scored:
            raise RecordError("no samples to summarise or no documents in common: generate some first")
        self.scored = scored
        self.ids, self.index = np.unique([sample["doc_id"] for sample in scored], return_inverse=True)
        self.useful = self.total(lambda sample: sample["useful"])
        self.seconds = self.total(lambda sample: sample["seconds"])
        answers = self.total(lambda sample: sample["correct"] is not None)
        points = self.total(lambda sample: sample["correct"] or 0)
        self.correct = np.where(answers > 0, points / np.maximum(answers, 1), np.nan)

    def total(self, value) -> np.ndarray:
        return np.bincount(self.index, weights=[value(sample) for sample in self.scored])


def _step_role(scored: Sequence[dict]) -> str:
    roles = {role for sample in scored for role in sample["forwards"]}
    if "denoiser" in roles:
        return "denoiser"
    if len(roles) > 1:
        raise RecordError(f"tokens per step of which role? none of {sorted(roles)} is 'denoiser'")
    return roles.pop()


def _totals(scored: Sequence[dict], name: str) -> dict[str, int]:
    totals = Counter()
    for sample in scored:
        totals.update(sample[name])  # unlike +, keeps a role that never ran
    return dict(totals)


def _ends(interval: Interval | Difference) -> list[float] | None:
    ends = [interval.low, interval.high]
    return ends if all(map(isfinite, ends)) else None
