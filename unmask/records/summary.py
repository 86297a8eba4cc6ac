"""The accounting: every number of a run that is printed or plotted is made here, from scored samples and
nothing else. Numbers of two runs are made in `comparing`.

With repeats, a document's answers are averaged and its costs added before anything is resampled, so that
documents are resampled, not repeats. For times, what is resampled is turns (`turn_of`): documents of one turn
share the state of the machine, those of one batch its clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite

import numpy as np

from unmask.records.files import RecordError
from unmask.records.flops import Shapes, flops_of
from unmask.records.sample import committed, step_role
from unmask.records.stats import (
    Difference,
    Interval,
    bootstrap_ratio,
    connected,
    unweighted_mean,
)

TURN = 5
"""Documents that one setting answers before the next one's turn (`evaluation.take_turns`)."""


def summarise(scored: Sequence[dict], shapes: Shapes | None = None, counts: Mapping | None = None) -> dict:
    """One run in numbers, from `Run.scored()`. shapes: of the models by role; counts: what the
    tokenizer knows; both from run.json, older ones of which lack counts. Keys:

    metric                        the metric and filter that decided what is correct
    n, samples                    documents, and generations (more than n when documents are repeated)
    n_scored                      documents with an answer that can be scored; accuracy is over these
    accuracy, accuracy_interval   0..1 with [low, high]; None when nothing can be scored, see below
    accuracy_per_task             task -> accuracy, None where nothing can be scored; None for a single task
    accuracy_pooled               over all documents alike; None for a single task
    extraction_failures           generations from which no answer could be read
    useful_tokens                 ids before the first stop
    wasted_tokens                 ids committed from the stop on (the stop itself included)
    mean_useful_tokens            per generation
    leftmost_share                of all committed ids, those written at the leftmost open position, tokens of
                                  one step taken from the left; None without ids
    all_slots                     published count: the whole canvas, as where every slot is filled (dParallel)
    non_eos_tokens                published count: all ids but the tokenizer's EOS, before the text is cut
                                  (Fast-dLLM and D2F on Dream); None where counts are missing
    retokenised_tokens            published count: of the text as it is scored, tokenised again (Fast-dLLM and
                                  D2F on LLaDA, d3LLM); None where counts are missing
    step_role                     whose forwards are the steps
    forwards, positions           role -> total
    forwards_per_answer           role -> mean per generation
    positions_per_answer          of all roles together, mean per generation
    tokens_per_step, _interval    useful tokens per forward of the step role; None without any
    acceptance_unweighted         mean over answers of an answer's mean tokens a step, without its first step,
                                  which reads the prompt (DFlash); None without a drafter or such a step
    flops_per_useful_token        estimated (`flops.flops_of`); None without shapes or useful tokens
    exact                         [checked, identical], see below; None where nothing is claimed or checked
    machines, commits             that made the samples, sorted; "unknown" for one without a commit
    sessions                      of turns, that the samples were made in; "alone" for none
    times_void                    why the times do not count, else None. All below are None then:
    seconds                       total
    tokens_per_second, _interval  useful tokens over seconds of the whole run (micro)
    tokens_per_second_macro       mean of the ratio per generation, which the APD paper plots
    seconds_per_token_unweighted  mean over answers of seconds per id, the stop included (DFlash; it leaves
                                  the first draft outside its clock, which records do not tell apart)
    latency_p50, latency_p90      seconds per generation at batch 1, else None

    accuracy of several tasks (the subjects of MATH) is the unweighted mean over them, which is the published
    statistic, with MOVER's interval (`stats.unweighted_mean`); it is None where nothing of one of them can be
    scored. For a single task the interval is Wilson's.

    revocations                   mean tokens taken back (masked again or rewritten) per answer, and
    writes_per_useful             tokens written, those taken back included, for every useful one; both of
                                  decoders that revise alone

    exact: answers of a decoder that claims to be lossless that were checked (`check_lossless`), and how many
    are the baseline's id for id.

    Intervals are [low, high] at 95 %, None where too few documents (for times: turns) leave nothing to
    resample. RecordError without samples, or where samples are of several metrics or roles.
    """
    metric = the_metric(scored)
    documents = Documents(scored)
    return (
        {"metric": metric, "n": documents.ids.size, "samples": len(scored)}
        | _accuracy(documents)
        | _tokens(scored)
        | _published_tokens(scored, counts or {})
        | _work(documents, shapes)
        | {
            "exact": _exact(scored),
            "machines": sorted({sample["machine"] for sample in scored}),
            "commits": sorted({sample["commit"] or "unknown" for sample in scored}),
            "sessions": _sessions(scored),
        }
        | _times(documents)
    )


def positions_per_useful_token(summary: Mapping) -> float | None:
    """Query positions fed, of all roles, for every useful token of a run; None without any."""
    useful = summary["useful_tokens"]
    return sum(summary["positions"].values()) / useful if useful else None


def times_void(scored: Iterable[dict]) -> str | None:
    """Why the seconds of these samples do not make one measurement, in a few words; None where they do.

    Answers of several machines or commits make one where settings took turns on each of them: these times
    are to be compared with those of the same sessions alone.
    """
    scored = list(scored)
    one = [("batch_size", "batch sizes")]
    if any(sample["session"] is None for sample in scored):
        one = [("machine", "machines"), ("commit", "commits"), *one]
    for field, many in one:
        if (several := len({sample[field] for sample in scored})) > 1:
            return f"documents of {several} {many}"
    if untimed := sum(sample["seconds"] is None for sample in scored):
        return f"{untimed} of {len(scored)} answers have no comparable time"
    return None


class Documents:
    """Samples gathered by document, in order of doc_id.

    ids (n,); tasks (n,) task of each; task_names in the order of their documents; useful, steps, positions
    (of all roles), seconds (n,) totals (seconds are nan where a time is missing); correct (n,) mean, nan
    where no repeat can be scored.
    """

    def __init__(self, scored: Sequence[dict]):
        if not scored:
            raise RecordError("no samples to summarise or no documents in common: generate some first")
        self.scored = scored
        self.ids, first, self.index = np.unique(
            [sample["doc_id"] for sample in scored], return_index=True, return_inverse=True
        )
        self.tasks = np.array([scored[i]["task"] for i in first])
        self.task_names = list(dict.fromkeys(self.tasks.tolist()))
        self.useful = self.total(lambda sample: sample["useful"])
        self.steps = self.total(lambda sample: sample["forwards"][step_role(sample)])
        self.positions = self.total(lambda sample: sum(sample["positions"].values()))
        self.seconds = self.total(lambda sample: np.nan if sample["seconds"] is None else sample["seconds"])
        answers = self.total(lambda sample: sample["correct"] is not None)
        points = self.total(lambda sample: sample["correct"] or 0)
        self.correct = np.where(answers > 0, points / np.maximum(answers, 1), np.nan)

    def total(self, value: Callable[[dict], float]) -> np.ndarray:
        """A value of each sample, (n,) added up by document."""
        return np.bincount(self.index, weights=[value(sample) for sample in self.scored])


def the_metric(scored: Sequence[dict]) -> str | None:
    """The one metric that these samples are scored by; RecordError where they are several."""
    metrics = sorted({sample["metric"] for sample in scored}, key=str)
    if len(metrics) > 1:
        raise RecordError(
            f"correct by {' and by '.join(map(str, metrics))}: take the rows of one metric (task.metric=NAME)"
        )
    return metrics[0] if metrics else None


def _accuracy(documents: Documents) -> dict:
    can = ~np.isnan(documents.correct)
    several = len(documents.task_names) > 1
    parts = [documents.correct[can & (documents.tasks == task)] for task in documents.task_names]
    every = np.concatenate(parts)
    accuracy = None
    if all(part.size for part in parts):
        accuracy = unweighted_mean([part.sum() for part in parts], [part.size for part in parts])
    per_task = {
        task: float(part.mean()) if part.size else None
        for task, part in zip(documents.task_names, parts, strict=True)
    }
    return {
        "n_scored": every.size,
        "accuracy": accuracy and accuracy.value,
        "accuracy_interval": accuracy and ends(accuracy),
        "accuracy_per_task": per_task if several else None,
        "accuracy_pooled": float(every.mean()) if several and every.size else None,
        "extraction_failures": sum(sample["extraction_failed"] for sample in documents.scored),
    }


def _tokens(scored: Sequence[dict]) -> dict:
    useful = sum(sample["useful"] for sample in scored)
    return {
        "useful_tokens": useful,
        "wasted_tokens": sum(len(sample["ids"]) for sample in scored) - useful,
        "mean_useful_tokens": useful / len(scored),
        "leftmost_share": _leftmost_share(scored),
        **_revisions(scored),
    }


def _revisions(scored: Sequence[dict]) -> dict:
    """Of decoders that revise; empty for all others."""
    if not all("lost" in sample for sample in scored):
        return {}
    lost, useful = sum(len(s["lost"]) for s in scored), sum(s["useful"] for s in scored)
    written = lost + sum(len(s["ids"]) for s in scored)
    return {"revocations": lost / len(scored), "writes_per_useful": written / useful if useful else None}


def _leftmost_share(scored: Sequence[dict]) -> float | None:
    every = leftmost = 0
    for sample in scored:
        steps = np.array([step if step >= 0 else np.inf for step in sample["commits"]])
        written = np.isfinite(steps)
        # All left of a position is there when it is written unless something left of it came later, or never.
        leftmost += int((written & (steps == np.maximum.accumulate(steps))).sum())
        every += int(written.sum())
    return leftmost / every if every else None


def _published_tokens(scored: Sequence[dict], counts: Mapping) -> dict:
    eos, tokens = counts.get("eos_id"), counts.get("retokenised", {})
    retokenised = [tokens.get(f"{sample['doc_id']}/{sample['repeat']}") for sample in scored]
    return {
        "all_slots": sum(sample["max_new_tokens"] for sample in scored),
        "non_eos_tokens": None if eos is None else sum(i != eos for s in scored for i in s["ids"]),
        "retokenised_tokens": None if None in retokenised else sum(retokenised),
        "acceptance_unweighted": _acceptance(scored),
    }


def _acceptance(scored: Sequence[dict]) -> float | None:
    if "drafter" not in scored[0]["forwards"]:
        return None
    means = [float(np.mean(taken)) for taken in (committed(sample)[1:] for sample in scored) if taken]
    return float(np.mean(means)) if means else None


def seconds_per_token(scored: Sequence[dict]) -> float | None:
    """Mean over answers, without weights, of seconds per id up to and with the stop; None where an answer has
    no id. All of them have a time."""
    ids = [sample["useful"] + (sample["useful"] < len(sample["ids"])) for sample in scored]
    if not all(ids):
        return None
    return float(np.mean([sample["seconds"] / n for sample, n in zip(scored, ids, strict=True)]))


def _work(documents: Documents, shapes: Shapes | None) -> dict:
    scored = documents.scored
    if len(roles := {tuple(sample["forwards"]) for sample in scored}) > 1:
        raise RecordError(f"samples of different roles make no common sum: {sorted(map(list, roles))}")
    forwards, positions = (_totals(scored, name) for name in ("forwards", "positions"))
    per_step = bootstrap_ratio(documents.useful, documents.steps) if documents.steps.any() else None
    useful = documents.useful.sum()
    flops = sum(flops_of(sample, shapes) for sample in scored) / useful if shapes and useful else None
    return {
        "step_role": step_role(scored[0]),
        "forwards": forwards,
        "positions": positions,
        "forwards_per_answer": {name: total / len(scored) for name, total in forwards.items()},
        "positions_per_answer": sum(positions.values()) / len(scored),
        "tokens_per_step": per_step and per_step.value,
        "tokens_per_step_interval": per_step and ends(per_step),
        "flops_per_useful_token": flops and float(flops),
    }


def _sessions(scored: Sequence[dict]) -> list[str]:
    """The sessions of turns; of several machines or commits with how many documents each, since their times
    compare only where each made the same share."""
    counts = Counter(sample["session"] or "alone" for sample in scored)
    one = all(len({sample[field] for sample in scored}) == 1 for field in ("machine", "commit"))
    return sorted(name if one else f"{name} x{count}" for name, count in counts.items())


def _exact(scored: Sequence[dict]) -> list[int] | None:
    claims = [sample["exact"] for sample in scored if sample["exact"] is not None]
    return [len(claims), sum(claims)] if claims else None


def _times(documents: Documents) -> dict:
    names = ["seconds", "tokens_per_second", "tokens_per_second_interval", "tokens_per_second_macro"]
    names += ["seconds_per_token_unweighted", "latency_p50", "latency_p90"]
    void = times_void(documents.scored)
    if void:
        return {"times_void": void} | dict.fromkeys(names)
    useful, seconds = (
        np.array([sample[name] for sample in documents.scored]) for name in ("useful", "seconds")
    )
    micro = bootstrap_ratio(documents.useful, documents.seconds, groups=shared_clocks(documents))
    alone = documents.scored[0]["batch_size"] == 1
    latency = np.percentile(seconds, [50, 90]).tolist() if alone else [None, None]
    values = [float(seconds.sum()), micro.value, ends(micro), float((useful / seconds).mean())]
    values += [seconds_per_token(documents.scored), *latency]
    return {"times_void": None} | dict(zip(names, values, strict=True))


def shared_clocks(*runs: Documents) -> np.ndarray:
    """A group per document (runs of the same documents): those that shared a turn or a batch in any of the
    runs, or are joined by others that did."""
    ids = [sample["doc_id"] for run in runs for sample in run.scored]
    batches = [f"{number}/{sample['batch']}" for number, run in enumerate(runs) for sample in run.scored]
    turns = [turn for number, run in enumerate(runs) for turn in turn_of(run.scored, alone=f"{number}")]
    groups = connected(ids, batches, turns)
    _, first = np.unique(ids, return_index=True)
    return groups[first]


def turn_of(scored: Sequence[Mapping], alone: str = "") -> list[str]:
    """The turn of each sample, a label.

    A session answers its documents in the order of their numbers, `TURN` at a time (whole batches), then the
    other settings have their turn. So the turn follows from a document's position within its session. A
    sample of no session has a turn of its own, named after `alone`.
    """
    sessions: dict[str, set[int]] = {}
    for sample in scored:
        sessions.setdefault(sample["session"], set()).add(sample["doc_id"])
    index = {(s, doc): i for s, docs in sessions.items() for i, doc in enumerate(sorted(docs))}
    found = []
    for number, sample in enumerate(scored):
        session, batch_size = sample["session"], sample["batch_size"]
        turn = -(-TURN // batch_size) * batch_size
        position = index[session, sample["doc_id"]]
        found.append(f"{alone}/{number}" if session is None else f"{session} {position // turn}")
    return found


def _totals(scored: Sequence[dict], name: str) -> dict[str, int]:
    totals = Counter()
    for sample in scored:
        totals.update(sample[name])  # unlike +, keeps a role that never ran
    return dict(totals)


def ends(interval: Interval | Difference) -> list[float] | None:
    """[low, high] as they are written; None where there was too little to resample."""
    ends = [interval.low, interval.high]
    return ends if all(map(isfinite, ends)) else None
