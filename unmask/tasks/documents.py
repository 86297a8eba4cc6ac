"""Documents of the tasks: the `custom_dataset` functions that the YAML files name.

lm-eval calls each with the task manager's metadata, which `prepare` fills:

    data          a local file, taken as the wanted split; a folder with a file per split (test.jsonl,
                  train.jsonl); or None: the Hub, or the generator
    split         test | validation | train; not every task has each
    num_fewshot   worked examples that stand before every question

It gets two lists: `documents`, the wanted split in order, and `shots`, the first problems of the train split.
A document's number is its place in its split, whatever else is asked for. Hub and file give the same columns,
so the same problem is the same document.

Whatever is wrong with the documents is a ValueError that names the file, the Hub's dataset or the setting,
and what to change.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial, wraps
from itertools import islice
from pathlib import Path

import datasets
import pandas as pd
from lm_eval.tasks.gpqa.generative.utils import preprocess

from unmask.tasks import problems, scoring

GPQA_COLUMNS = [
    "Question",
    "Correct Answer",
    "Incorrect Answer 1",
    "Incorrect Answer 2",
    "Incorrect Answer 3",
]
# Text stays text: no answer "NA" read as missing, no "1.50" as a number, no "2020-01-01" as a date.
READERS = {
    ".json": partial(pd.read_json, dtype=False),
    ".jsonl": partial(pd.read_json, dtype=False, lines=True),
    ".csv": partial(pd.read_csv, dtype=str, keep_default_na=False),
    ".parquet": pd.read_parquet,
}

Rows = Iterable[dict[str, str]]


def of_splits(*known: str) -> Callable:
    """Make `read(split, data, ...)`, which gives the rows of one split, the function that lm-eval calls."""

    def decorate(read: Callable[..., Rows]) -> Callable[..., dict[str, datasets.Dataset]]:
        @wraps(read)
        def load(data: str | None = None, split: str = "test", num_fewshot: int = 0, **options):
            name = options.get("task", read.__name__)
            if split not in known:
                raise ValueError(f"task.split={split}: task {name} has {', '.join(known)} only")
            if num_fewshot:
                _refuse_shots(name, known, split, num_fewshot)
            documents = list(read(split, data, **options))
            shots = _shots(name, partial(read, data=data, **options), split, num_fewshot, data)
            found = {"documents": documents, "shots": shots}
            return {key: datasets.Dataset.from_list(rows) for key, rows in found.items()}

        return load

    return decorate


def _refuse_shots(name: str, known: tuple[str, ...], split: str, num_fewshot: int) -> None:
    if "train" not in known:
        raise ValueError(
            f"task.num_fewshot={num_fewshot}: task {name} has no train split to take worked examples from; "
            "set it to 0"
        )
    if split == "train":
        raise ValueError(
            f"task.num_fewshot={num_fewshot}: worked examples are the first problems of the train split, and "
            "task.split=train asks these very questions; set task.num_fewshot=0 or another split"
        )


def _shots(
    name: str, read: Callable[[str], Rows], split: str, num_fewshot: int, data: str | None
) -> list[dict[str, str]]:
    """The first `num_fewshot` problems of the train split."""
    if not num_fewshot:
        return []
    if data and not os.path.isdir(os.path.expanduser(data)):
        raise ValueError(
            f"task.num_fewshot={num_fewshot}: worked examples are of the train split, and task.data={data} "
            f"is one file; set it to a folder with train.jsonl and {split}.jsonl, or to null for the Hub"
        )
    shots = list(islice(read("train"), num_fewshot))
    if len(shots) < num_fewshot:
        raise ValueError(
            f"task.num_fewshot={num_fewshot}: the train split of {name} has {len(shots)} problems only"
        )
    return shots


@of_splits("test", "validation", "train")
def embedded(split: str, data: str | None, task: str, **_) -> Rows:
    """Generated problems: question, solution, answer. See problems.py for the splits."""
    if data:
        raise ValueError(f"task {task} is generated and reads no file, but data={data}: set data to null")
    return map(asdict, problems.training_split(task) if split == "train" else problems.held_out(task, split))


@of_splits("test", "train")
def gsm8k(split: str, data: str | None, **_) -> Rows:
    """GSM8K: question, answer (a worked solution that ends in "#### number")."""
    columns = ["question", "answer"]
    return _file(data, split, columns) if data else _hub("openai/gsm8k", "main", split, columns)


@of_splits("test", "train")
def math(split: str, data: str | None, subject: str, **_) -> Rows:
    """One subject of MATH, by the Hub's name for it: problem, solution, answer.

    A file holds all subjects, told apart by a column `type` or `subject`: "Counting & Probability", or the
    Hub's counting_and_probability.
    """
    columns = ["problem", "solution"]
    if data:
        rows = _file(data, split, [*columns, "subject"], {"type": "subject"})
        named = [row["subject"].lower().replace("&", "and").replace(" ", "_") for row in rows]
        rows = [row for row, name in zip(rows, named, strict=True) if name == subject]
        if not rows:
            raise ValueError(f"{data}: no row is of the subject {subject} (column type or subject)")
    else:
        rows = _hub("EleutherAI/hendrycks_math", subject, split, columns)
    docs = [{c: row[c] for c in columns} | {"answer": scoring.last_boxed(row["solution"])} for row in rows]
    for doc in docs:
        if doc["answer"] == scoring.INVALID:
            source = data or "hendrycks_math"
            raise ValueError(f"{source}: no \\boxed{{answer}} in the solution of: {doc['problem']}")
    return docs


@of_splits("test")
def gpqa(split: str, data: str | None, **_) -> Rows:
    """GPQA: question, A, B, C, D, answer ("(A)").

    The choices are shuffled by a generator seeded with the question: their order depends on nothing else.
    """
    if data:
        rows = _file(data, split, GPQA_COLUMNS)
    else:  # the Hub calls its only split "train"
        rows = _hub("Idavidrein/gpqa", "gpqa_main", "train", GPQA_COLUMNS)
    for row in rows:
        question, *choices = (preprocess(row[c]) for c in GPQA_COLUMNS)
        order = random.Random(question).sample(range(4), 4)
        shuffled = {letter: choices[i] for letter, i in zip("ABCD", order, strict=True)}
        yield {"question": question} | shuffled | {"answer": f"({'ABCD'[order.index(0)]})"}


@of_splits("test")
def humaneval(split: str, data: str | None, **_) -> Rows:
    """HumanEval: task_id, prompt, entry_point, test."""
    columns = ["task_id", "prompt", "entry_point", "test"]
    return _file(data, split, columns) if data else _hub("openai/openai_humaneval", None, split, columns)


def _hub(path: str, name: str | None, split: str, columns: list[str]) -> Rows:
    try:
        return datasets.load_dataset(path, name, split=split).select_columns(columns)
    except Exception as error:  # unreachable, gated, renamed: the hub client has a dozen kinds
        raise ValueError(
            f"{path}: cannot be read from the Hub ({error}); set data to a local copy"
        ) from error


def _file(
    data: str, split: str, columns: list[str], aliases: dict[str, str] | None = None
) -> list[dict[str, str]]:
    """The rows of a local file, or of a split's file in a local folder, reduced to `columns`.

    `aliases`: other names that columns may have.
    """
    path = _path(data, split, columns)
    try:
        frame = READERS[_kind(path)](path)
    except Exception as error:  # every reader has its own kinds of errors
        raise ValueError(
            f"{path}: cannot be read as {_kind(path)} (wanted: {', '.join(columns)}): {error}"
        ) from error
    frame = frame.rename(columns={old: new for old, new in (aliases or {}).items() if new not in frame})
    if frame.empty or not set(columns) <= set(frame):
        found = f"{len(frame)} rows with {', '.join(map(str, frame)) or 'no columns'}"
        raise ValueError(f"{path}: needs rows with the columns {', '.join(columns)}, but has {found}")
    rows = frame[columns].to_dict("records")
    for number, row in enumerate(rows, start=1):
        for column, value in row.items():
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{path}: row {number} has no text in column {column!r}, but {value!r}")
    return rows


def _path(data: str, split: str, columns: list[str]) -> Path:
    """The file that holds the split: `data` itself, or the one of that name in the folder `data`."""
    wanted = f"wanted: {', '.join(READERS)} with the columns {', '.join(columns)}"
    path = Path(os.path.expanduser(data))
    if os.path.isdir(path):
        found = [p for p in sorted(path.glob(f"{split}.*")) if _kind(p) in READERS]
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise ValueError(f"{data}: needs one file {split}.jsonl or alike, but has {names} ({wanted})")
        return found[0]
    if not os.path.isfile(path):
        raise ValueError(f"{data}: no such file ({wanted})")
    if _kind(path) not in READERS:
        raise ValueError(f"{data}: unknown kind of file (wanted: {', '.join(READERS)}; text also as .gz)")
    return path


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix
