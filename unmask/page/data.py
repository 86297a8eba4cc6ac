"""What the page's script draws: charts, recipes and answers, as plain data for JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unmask.page import replay
from unmask.page.boards import estimate
from unmask.page.colours import on_both
from unmask.page.pieces import Decode, decode_of, pieces
from unmask.page.tables import cell
from unmask.plots.fronts import front
from unmask.plots.measures import MEASURES, comparable
from unmask.plots.style import COLOURS, DECODERS, GREY, MARKERS
from unmask.records.collection import Collection
from unmask.records.recipe import flatten
from unmask.records.stats import Interval

DOCUMENTS = 12  # of each task, whose answers the page replays
PLOTLY = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x")
SYMBOLS = dict(
    zip(MARKERS, zip(PLOTLY, "●■◆▲▼✚★✖", strict=True), strict=True)
)  # the figures' marks on the page
CIRCUMSTANCES = ("time", "git_commit", "git_dirty", "machine", "gpu", "platform", "packages")


def plain_data(found: Collection, infos: Mapping[str, Mapping]) -> dict:
    """All that the script draws, as JSON takes it.

    measures: name -> label, higher, time, of those that some run has. tasks: task -> {"documents": [...],
    "fronts": {measure: [run]}, "why": of times that are left out}. runs: folder -> what is known of it, its
    numbers and its recipe. pieces: text of tokens, which answers name by number. answers: run -> document ->
    see `answer`.
    """
    vocabulary: dict[str, int] = {}
    tasks, runs, answers = {}, {}, {}
    models = list(dict.fromkeys(found.rows.model))
    for task, rows in found.rows.groupby("task", sort=False):
        timed, reason = comparable(rows)
        documents = _documents([found.scored[run] for run in rows.run])
        tasks[task] = {"documents": documents, "fronts": _fronts(rows, timed), "why": reason}
        for (_, row), on_time in zip(rows.iterrows(), timed, strict=True):
            scored, config, info = found.scored[row.run], found.configs[row.run], infos[row.run]
            measures = [name for name in MEASURES if on_time or not MEASURES[name].time]
            numbers = {name: estimate(row, name) for name in measures}
            runs[row.run] = {
                "model": row.model,
                "decoder": row.decoder,
                "label": row.label,
                "task": task,
                "n": row.n,
                "numbers": {name: _rounded(value) for name, value in numbers.items()},
                "words": {name: _words(value) for name, value in numbers.items()},
                "recipe": _recipe(row, config, info),
            }
            decode = decode_of(config, scored[0])
            known = {document["id"] for document in documents}
            longest = max(max(replay.tokens(sample)) for sample in scored)
            answers[row.run] = {
                sample["doc_id"]: answer(sample, config, decode, longest, vocabulary)
                for sample in scored
                if sample["doc_id"] in known and sample["repeat"] == 0
            }
    return {
        "measures": {
            name: {"label": measure.label, "higher": measure.higher, "time": measure.time}
            for name, measure in MEASURES.items()
            if any(run["numbers"].get(name) for run in runs.values())
        },
        "colours": {name: on_both(DECODERS.get(name, GREY)) for name in dict.fromkeys(found.rows.decoder)},
        "marks": {model: SYMBOLS[MARKERS[i % len(MARKERS)]] for i, model in enumerate(models)},
        "steps": [on_both(colour) for colour in COLOURS[:-1]],
        "tasks": tasks,
        "runs": runs,
        "pieces": list(vocabulary),
        "answers": answers,
    }


def answer(
    sample: Mapping, config: Mapping, decode: Decode | None, longest: int, vocabulary: dict[str, int]
) -> dict:
    """An answer up to its end, as the page replays it.

    tokens: numbers of pieces, which `vocabulary` collects. steps: the step that committed each. taken: how
    many each step committed, those after the end included. after: how many stand after the end. The rest is
    of `sample`, `replay.drafts` and `replay.blocks`.
    """
    stop = sample["useful"] + (sample["finish"] == "stop")  # with the end token
    texts = pieces(sample["ids"][:stop], decode)
    found = {
        "tokens": [vocabulary.setdefault(text, len(vocabulary)) for text in texts],
        "steps": sample["commits"][:stop],
        "taken": replay.tokens(sample),
        "after": len(sample["ids"]) - stop,
        "useful": sample["useful"],
        "ended": sample["finish"] == "stop",
        "correct": sample["correct"],
        "answer": sample["extracted"],
        "forwards": sample["forwards"],
    }
    if (drafts := replay.drafts(sample, config, longest)) is not None:
        found["drafts"] = drafts
        found["own"] = "drafter" in config["roles"]  # the last token of a step is the target's own
    if (blocks := replay.blocks(sample, config)) is not None:
        found["blocks"] = blocks
    return found


def _documents(runs: Sequence[Sequence[dict]]) -> list[dict]:
    """The documents that most runs have, the first ones of these: their numbers and wanted answers."""
    counts = Counter(sample["doc_id"] for scored in runs for sample in scored if not sample["repeat"])
    chosen = sorted(counts, key=lambda document: (-counts[document], document))[:DOCUMENTS]
    targets = {sample["doc_id"]: sample["target"] for scored in runs for sample in scored}
    return [{"id": document, "target": targets[document]} for document in sorted(chosen)]


def _fronts(rows: pd.DataFrame, timed: np.ndarray) -> dict[str, list[str]]:
    """Measure -> the runs that no other beats in it and in accuracy; of times only where all compare."""
    found = {}
    for measure in MEASURES.values():
        if measure.column == "accuracy" or (measure.time and not timed.all()):
            continue
        measured = rows.dropna(subset=["accuracy", measure.column])
        if len(measured):
            found[measure.column] = measured.run[
                front(measured[measure.column], measured.accuracy, measure.higher)
            ].tolist()
    return found


def _rounded(value: Interval | float | None) -> list[float] | None:
    """[value] or [value, low, high] with six digits: enough for a chart."""
    if value is None:
        return None
    values = value if isinstance(value, Interval) else [value]
    return [float(f"{each:.6g}") for each in values]


def _recipe(row: pd.Series, config: Mapping, info: Mapping) -> dict[str, dict[str, str]]:
    """The identity of a run, where it was made, and what it gave, by group."""
    circumstances = flatten({key: info[key] for key in CIRCUMSTANCES if key in info})
    circumstances |= {"machines of all answers": row.machines, "commits of all answers": row.commits}
    results = {
        MEASURES[name].label: _words(estimate(row, name)) for name in MEASURES if not MEASURES[name].time
    }
    results |= {
        "metric": row.metric,
        "documents": row.n,
        "no answer could be read": row.extraction_failures,
        "useful tokens": row.useful_tokens,
        "tokens after the end": row.wasted_tokens,
        **{f"forwards of {role}": count for role, count in row.forwards.items()},
        **{f"positions fed to {role}": count for role, count in row.positions.items()},
        "times": row.times_void or ("answered in turns" if row.turns != ["alone"] else "answered alone"),
    }
    groups = {"Settings": flatten(config), "Results": results, "Made": circumstances}
    return {name: {key: _text(value) for key, value in group.items()} for name, group in groups.items()}


def _words(value: Interval | float | None) -> str:
    return " ".join(filter(None, cell(value)[:2]))


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
