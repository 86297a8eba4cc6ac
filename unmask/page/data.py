"""What the page's script draws: charts, settings and answers, as plain data for JSON."""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from unmask.configuration.composition import composed
from unmask.configuration.settings import OFF, identity_of
from unmask.configuration.sweeps import as_word
from unmask.page.answers import Traces, answers_of, documents_of, telling
from unmask.page.boards import estimate, worth_seeing
from unmask.page.colours import on_both
from unmask.page.tables import cell
from unmask.paths import CONFIGURATIONS
from unmask.records.collection import Collection
from unmask.records.identity import ABSENT, differences, flatten
from unmask.records.stats import Interval
from unmask.report.fronts import front
from unmask.report.measures import MEASURES, comparable
from unmask.report.style import COLOURS, DECODERS, MARKERS

READ = 60  # characters of an answer, or of the wanted one, that a comparison shows

PLOTLY = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x")
SYMBOLS = dict(
    zip(MARKERS, zip(PLOTLY, "●■◆▲▼✚★✖", strict=True), strict=True)
)  # the figures' marks on the page
CIRCUMSTANCES = ("time", "git_commit", "git_dirty", "machine", "gpu", "platform", "packages")


def plain_data(found: Collection, infos: Mapping[str, Mapping], traces: Mapping[str, Traces]) -> dict:
    """All that the script draws, as JSON takes it.

    infos, traces: by run folder, its run.json and what `records.trace` holds of it.

    measures: name -> label, higher, time, of those that some run has. tasks: task -> {"documents": [...],
    "fronts": {measure: [run]}, "why": of times that are left out, "worth": the runs that answers begin with
    and why, "first": the document, "ids", "targets" and "subjects" of all documents}. runs: folder -> what is
    known of it, its numbers and its settings, and for each of "ids" see `by_document`. pieces: text of
    tokens and answers, which others name by number. answers: run -> document -> see `answers.answer`.
    """
    vocabulary: dict[str, int] = {}
    tasks, runs, answers = {}, {}, {}
    models = list(dict.fromkeys(found.rows.model))
    for task, rows in found.rows.groupby("task", sort=False):
        timed, reason = comparable(rows)
        documents = documents_of([found.scored[run] for run in rows.run], [traces[run] for run in rows.run])
        worth = worth_seeing(rows)
        every = {sample["doc_id"]: sample for run in rows.run for sample in found.scored[run]}
        ids = sorted(every)
        subjects = [every[document]["task"] for document in ids]
        tasks[task] = {
            "documents": documents,
            "fronts": _fronts(rows, timed),
            "why": reason,
            "worth": worth,
            "first": telling(documents, [found.scored[run] for run in worth]),
            "ids": ids,
            "targets": [_number(every[document]["target"], vocabulary) for document in ids],
            "subjects": subjects if len(set(subjects)) > 1 else None,
        }
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
                "settings": _settings(row, config, info),
                "command": command_of(config, int(row.n)),
                **by_document(scored, ids, vocabulary),
            }
            known = {document["id"] for document in documents}
            answers[row.run] = answers_of(scored, config, known, traces[row.run], vocabulary)
    return {
        "measures": {
            name: {"label": measure.label, "higher": measure.higher, "time": measure.time}
            for name, measure in MEASURES.items()
            if any(run["numbers"].get(name) for run in runs.values())
        },
        "colours": {name: on_both(DECODERS[name]) for name in dict.fromkeys(found.rows.decoder)},
        "marks": {model: SYMBOLS[MARKERS[i % len(MARKERS)]] for i, model in enumerate(models)},
        "steps": [on_both(colour) for colour in COLOURS[:-1]],
        "tasks": tasks,
        "runs": runs,
        "pieces": list(vocabulary),
        "answers": answers,
    }


def by_document(scored: Sequence[dict], ids: Sequence[int], vocabulary: dict[str, int]) -> dict[str, list]:
    """correct: of each document, the mean over its repeats; null where it cannot be scored, -1 where it was
    not answered. read: the number of what was read of its first answer, null where nothing was."""
    correct, read = defaultdict(list), {}
    for sample in scored:
        correct[sample["doc_id"]] += [] if sample["correct"] is None else [sample["correct"]]
        if not sample["repeat"] and not sample["extraction_failed"]:
            read[sample["doc_id"]] = _number(sample["extracted"], vocabulary)
    means = {document: sum(every) / len(every) if every else None for document, every in correct.items()}
    whole = {0.0: 0, 1.0: 1}  # shorter in JSON
    means = {document: whole.get(mean, mean) for document, mean in means.items()}
    return {"correct": [means.get(each, -1) for each in ids], "read": [read.get(each) for each in ids]}


def _number(text: str | None, vocabulary: dict[str, int]) -> int | None:
    """Of a text, cut where it is long."""
    if text is None:
        return None
    short = text if len(text) <= READ else f"{text[:READ]}…"
    return vocabulary.setdefault(short, len(vocabulary))


@cache
def _choices_by_task() -> dict[str, list[str]]:
    """The choices task=NAME of each task's name: of some there are several."""
    found = defaultdict(list)
    for file in sorted((CONFIGURATIONS / "task").glob("*.yaml")):
        found[OmegaConf.load(file).get("name")].append(file.stem)
    return found


def command_of(config: Mapping, documents: int) -> str | None:
    """The command that makes a run of this config, as it is typed; None where no choices give its models.

    documents: that it answered, of a single task.
    """
    role, *others = config["roles"]
    names = {role: model["name"] for role, model in config["models"].items()}
    words = [f"model={names[role]}", *(f"{other}={names[other]}" for other in others)]
    words.append(f"decoder={config['decoder']['name']}")
    changes = []
    try:
        for choice in _choices_by_task()[config["task"]["name"]]:
            mine = [*words, f"task={choice}"]
            found = differences(config, identity_of(composed("eval", mine)))
            found.pop("task.prompts", None)
            found = {key: there for key, (there, _) in found.items() if not key.endswith(".weights")}
            changes.append((len(found), mine, found))
        _, words, found = min(changes, key=lambda each: each[0])
    except ValueError:  # a model, a decoder or a task that is no choice here
        return None
    if any(key.startswith(("models", "roles")) for key in found):
        return None
    if found.get("threads", 1) is None:  # of a run on a GPU
        del found["threads"]
    words += [f"{key}={OFF if value == ABSENT else as_word(value)}" for key, value in found.items()]
    return shlex.join(["python", "eval.py", *words, f"limit={documents}"])


def _fronts(rows: pd.DataFrame, timed: np.ndarray) -> dict[str, list[str]]:
    """Measure -> the runs that no other beats in it and in accuracy; of times, among those that compare."""
    found = {}
    for measure in MEASURES.values():
        if measure.column == "accuracy":
            continue
        measured = (rows[timed] if measure.time else rows).dropna(subset=["accuracy", measure.column])
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


def _settings(row: pd.Series, config: Mapping, info: Mapping) -> dict[str, dict[str, str]]:
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
        "times": row.times_void or ("answered in turns" if row.sessions != ["alone"] else "answered alone"),
    }
    groups = {"Settings": flatten(config), "Results": results, "Made": circumstances}
    return {name: {key: _text(value) for key, value in group.items()} for name, group in groups.items()}


def _words(value: Interval | float | None) -> str:
    return " ".join(filter(None, cell(value)[:2]))


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
