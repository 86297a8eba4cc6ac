"""Results that were made elsewhere, judged:  python report.py check FOLDER

What can be known without running a model is computed anew from this project's own tasks and tokenizers, and
compared with what the records say. What cannot: ids that were made up whole, with all that follows from them;
a session of turns that two runs both claim. Those are seen by decoding again (eval.py, the same settings).
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from lm_eval.api.task import Task

from unmask.configuration.composition import composed
from unmask.configuration.schema import TaskConfig
from unmask.configuration.settings import typed
from unmask.configuration.sweeps import key_of
from unmask.decoding import Stop
from unmask.evaluation.lm import text_stop
from unmask.evaluation.prompts import PromptBuilder, text_ids
from unmask.models.loading import Source, identity_of_model
from unmask.output import print_json
from unmask.paths import ROOT
from unmask.records import Run, config_hash, find_runs
from unmask.records.documents import TASK_STRIDE, chosen
from unmask.records.files import RecordError
from unmask.records.identity import canonical, differences, prompt_hash
from unmask.records.reading import sample_key, score_key, some
from unmask.records.summary import times_void
from unmask.tasks import prepare, score_answers

Turns = dict[str | None, set[tuple[str, str, str | None]]]  # session -> (run, machine, commit)
FILES = "files"  # the first line of every run, and the one of what cannot be read


class Line(NamedTuple):
    """What was judged, in a word; whether it stands; why, or why not."""

    what: str
    stands: bool
    why: str


class Expected:
    """What the project's own tasks and tokenizers make of a run's config.

    sources: models by role. tasks: by name. prompts: ids by number of the document, before any turn of a
    conversation is answered. ValueError where something is not here.
    """

    def __init__(self, config: Mapping, words: Sequence[str]):
        cfg = composed("eval", words)
        self.sources = {}
        for role, model in config["models"].items():
            prefix = "model." if role == config["roles"][0] else f"{role}."
            own = [f"model.{w.removeprefix(prefix)}" for w in words if w.startswith(prefix)]
            self.sources[role] = Source(typed(composed("eval", [f"model={model['name']}", *own])).model)
        names = {field.name for field in fields(TaskConfig)}
        settings = {key: value for key, value in config["task"].items() if key != "prompts"}
        if unknown := settings.keys() - names:
            raise ValueError(f"task.{min(unknown)}: is no setting")
        self.settings = TaskConfig(**settings, data=cfg.task.data)
        task = self.settings
        asked = (task.name, task.data, cfg.allow_code_execution, task.split, task.num_fewshot, task.shots)
        _, self.tasks = prepare(*asked)
        main = self.sources[config["roles"][0]]
        self.tokenizer = main.tokenizer
        self.stop: Stop = text_stop(main.end_ids, task.stop, main.tokenizer)
        builder = PromptBuilder(task, main.tokenizer, main.settings.chat_options)
        self.prompt_of = {name: builder.prompts(each) for name, each in self.tasks.items()}
        self.prompts = {
            self.number(name, request.doc_id): self.ids(request.args[0])
            for name, each in self.tasks.items()
            for request in builder.requests(each)
        }

    def number(self, task: str, document: int) -> int:
        """A document's number in the record."""
        return list(self.tasks).index(task) * TASK_STRIDE + document

    def found(self, number: int) -> tuple[str, Task, int]:
        """(task, its name, document) of a number in the record."""
        name = list(self.tasks)[number // TASK_STRIDE]
        return name, self.tasks[name], number % TASK_STRIDE

    def ids(self, text: str) -> list[int]:
        return text_ids(self.tokenizer, text)


def check(folder: str, given: Sequence[str]) -> None:
    """Judge every run of a folder, line by line; exit code 1 unless everything stands.

    given: settings of eval.py that only say where things are here: model.path, task.data,
    task.subset_seed, allow_code_execution.
    """
    results = ROOT / folder
    if not results.exists():
        raise ValueError(f"check {folder[:100]}: is no folder of runs and no archive")
    runs, problems = find_runs(results)
    if not runs and not problems:
        raise ValueError(f"check {folder[:100]}: holds no runs")
    known: dict[str, Expected] = {}

    def expected(config: Mapping) -> Expected:
        name = canonical({key: config[key] for key in ("models", "roles", "task")})
        if name not in known:
            known[name] = Expected(config, given)
        return known[name]

    judged = {problem: [Line(FILES, False, problem)] for problem in problems}
    turns = turns_of(runs)
    for run in runs:
        found = judged[run.folder.name] = []
        try:
            found.extend(lines(run, turns, expected, given))
        except RecordError as error:
            found.append(Line(FILES, False, str(error)))
        except (LookupError, TypeError, AttributeError) as error:  # written by hand, or by another program
            found.append(Line("config", False, f"is of another form ({error!r})"))
    for name, found in judged.items():
        print(_plain(name) if name not in problems else "(cannot be read)")
        for line in found:
            stands = "stands" if line.stands else "DOES NOT STAND"
            print(f"  {stands:<16}{line.what}: {_plain(line.why)}")
    passed = [name for name, found in judged.items() if all(line.stands for line in found)]
    print(f"{len(passed)} of {len(judged)} runs stand in everything")
    print_json({"runs": len(judged), "stand": passed})
    if len(passed) < len(judged):
        sys.exit(1)


def _plain(text: str) -> str:
    """What a terminal may be told: no control characters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def turns_of(runs: Sequence[Run]) -> Turns:
    """Who answered in each session, on what and with which code."""
    found: Turns = defaultdict(set)
    for run in runs:
        for sample in run.samples():
            found[sample["session"]].add((run.folder.name, sample["machine"], sample["commit"]))
    return found


def lines(
    run: Run, turns: Turns, expected: Callable[[Mapping], Expected], given: Sequence[str]
) -> Iterator[Line]:
    """What stands of a run and what does not. turns: of its whole folder (`turns_of`)."""
    samples, status = run.samples(), run.info.get("status")
    metric, likelihoods = run.info.get("metric"), run.info.get("likelihoods")
    if likelihoods or status != "finished" or not samples:
        yield Line(FILES, False, "holds likelihoods" if likelihoods else f"is {status}, not finished")
        return
    yield Line(FILES, True, f"{len(samples)} answers of schema {run.info['schema']}, each adds up")
    try:
        here = expected(run.config)
    except ValueError as error:
        yield Line("config", False, f"cannot be judged here: {str(error)[:300]}")
        return
    yield _line("models", _models(run, here), "as configured here, the same weights and shapes")
    documents = list(_documents(run, here, samples, given))
    yield _line("documents", documents, "the task's own, the same prompts, none left out")
    if strange := {s["doc_id"] for s in samples} - here.prompts.keys():
        yield Line("tokens, answers", False, f"of documents that there are not: {some(sorted(strange))}")
        return
    yield _line("tokens", list(_tokens(run, here, samples)), "counted again from the ids, the same text")
    yield _line("answers", list(_scores(run, here, samples, metric)), "scored again, the same scores")
    yield _line("times", list(_times(run, samples, turns)), "of settings that took turns")


def _line(what: str, complaints: Sequence[str], why: str) -> Line:
    more = f" (and {len(complaints) - 3} more)" if len(complaints) > 3 else ""
    return Line(what, not complaints, "; ".join(complaints[:3]) + more if complaints else why)


def _models(run: Run, here: Expected) -> list[str]:
    found = []
    for role, source in here.sources.items():
        theirs, ours = run.config["models"][role], identity_of_model(source.settings)
        ours["weights"] = source.fingerprint
        for key, (there, own) in differences(theirs, ours).items():
            found.append(f"{theirs['name']}: {key} is {there} there, {own} here")
        if (run.info.get("shapes") or {}).get(role, source.shape) != source.shape:
            found.append(f"{theirs['name']}: its shape is not {source.shape}")
    return found


def _documents(run: Run, here: Expected, samples: Sequence[Mapping], given: Sequence[str]) -> Iterator[str]:
    if run.config["task"]["prompts"] != config_hash(here.prompts):
        yield "the prompts of the whole task are others"
    lengths = {name: len(task.eval_docs) for name, task in here.tasks.items()}
    if run.info.get("documents") != lengths:
        yield f"run.json says {run.info.get('documents')}, and there are {lengths}"
    texts = {sample_key(sample): sample["text"] for sample in samples}
    for sample in samples:
        number = sample["doc_id"]
        if number not in here.prompts:
            continue
        name, task, document = here.found(number)
        doc, ids = task.eval_docs[document], here.prompts[number]
        if turns := len(doc.get("earlier", ())):
            before = [texts.get((number - turns + turn, sample["repeat"]), "") for turn in range(turns)]
            ids = here.ids(here.prompt_of[name](document, doc, before))
        if (sample["prompt_hash"], sample["prompt_length"]) != (prompt_hash(ids), len(ids)):
            yield f"document {number} had another prompt"
    answered = {sample["doc_id"] for sample in samples}
    templates = {n: list(t.eval_docs["template"]) for n, t in here.tasks.items() if "template" in t.features}
    per_task = max(sum(n // TASK_STRIDE == k for n in answered) for k in range(len(lengths)))
    own = [word.partition("=")[2] for word in given if key_of(word) == "task.subset_seed"]
    seeds = [None if seed == "null" else int(seed) for seed in own] or [None, 0]
    draws = [set(chosen(lengths, per_task, seed, templates)) for seed in seeds]
    if answered not in draws:
        lacking = min((draw - answered for draw in draws), key=len)
        yield f"no limit draws just these documents: {some(sorted(lacking))} are left out"


def _tokens(run: Run, here: Expected, samples: Sequence[Mapping]) -> Iterator[str]:
    counts = run.info.get("counts") or {}
    retokenised = counts.get("retokenised") or {}
    if counts and counts.get("eos_id") != here.tokenizer.eos_token_id:
        yield f"counts.eos_id is {counts.get('eos_id')}, and the tokenizer's {here.tokenizer.eos_token_id}"
    for sample in samples:
        where, ids, key = f"document {sample['doc_id']}", sample["ids"], "{doc_id}/{repeat}".format(**sample)
        cut = here.stop.cut(ids)
        useful = len(ids) if cut is None else cut
        if useful != sample["useful"]:
            yield f"{where}: useful {sample['useful']}, counted {useful}"
        elif here.tokenizer.decode(ids[:useful], skip_special_tokens=True) != sample["text"]:
            yield f"{where}: its text is not that of its ids"
        elif key in retokenised and retokenised[key] != len(here.ids(sample["text"])):
            yield f"{where}: counts.retokenised {retokenised[key]}, counted {len(here.ids(sample['text']))}"


def _scores(run: Run, here: Expected, samples: Sequence[Mapping], metric: str | None) -> Iterator[str]:
    ours = {}
    for repeat in {sample["repeat"] for sample in samples}:
        for name, task in here.tasks.items():
            mine = [s for s in samples if s["repeat"] == repeat and here.found(s["doc_id"])[0] == name]
            texts = {here.found(sample["doc_id"])[2]: sample["text"] for sample in mine}
            for row in score_answers(task, texts):
                row |= {"doc_id": here.number(name, row["doc_id"]), "repeat": repeat}
                ours[score_key(row)] = row
    theirs = {score_key(row): row for row in run.every_score()}
    if metric is not None and metric not in {key[2] for key in ours}:
        yield f"the task has no metric {metric}"
    for key in sorted(ours.keys() | theirs.keys()):
        where = f"document {key[0]} by {key[2]}"
        if key not in theirs:
            yield f"{where}: has no score"
        elif key not in ours:
            yield f"{where}: nothing is scored by that"
        elif different := differences(theirs[key], ours[key]):
            name, (there, own) = next(iter(different.items()))
            yield f"{where}: {name} is {str(there)[:60]} there, {str(own)[:60]} here"


def _times(run: Run, samples: Sequence[Mapping], turns: Turns) -> Iterator[str]:
    """On a GPU, answers of one machine and one version of the code compare without turns, too."""
    if void := times_void(samples):
        yield void
        return
    sessions = {sample["session"] for sample in samples}
    alone = run.config["device"] != "cpu" and len({(s["machine"], s["commit"]) for s in samples}) == 1
    if None in sessions:
        if not alone:
            yield "answered alone, or some of its documents did"
        return
    for session in sorted(sessions):
        names, *circumstances = map(set, zip(*turns[session], strict=True))
        if len(names) == 1:
            yield f"nobody else answered in session {session}"
        for what, found in zip(("machine", "commit"), circumstances, strict=True):
            if len(found) > 1:
                yield f"session {session} is of {len(found)} {what}s"
