"""Documents of the tasks: the `custom_dataset` functions that the YAML files name.

lm-eval calls each with the task manager's metadata, which holds `data` (the path of a local file; None: the
Hub), and with the YAML's `dataset_kwargs`. Hub and file give the same columns, so the same problem is the
same document. Whatever is wrong with the documents is a ValueError that names the file, or the Hub's dataset,
and what is missing.
"""

import random
from dataclasses import asdict
from functools import partial
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


def embedded(task: str, data: str | None = None, **_) -> dict[str, datasets.Dataset]:
    """Generated problems: question, solution, answer."""
    if data:
        raise ValueError(f"task {task} is generated and reads no file, but data={data}: set data to null")
    return _test(map(asdict, problems.held_out(task, "test")))


def gsm8k(data: str | None = None, **_) -> dict[str, datasets.Dataset]:
    """GSM8K: question, answer (a worked solution that ends in "#### number")."""
    columns = ["question", "answer"]
    return _test(_file(data, columns) if data else _hub("openai/gsm8k", "main", "test", columns))


def math(subject: str, data: str | None = None, **_) -> dict[str, datasets.Dataset]:
    """One subject of MATH, by the Hub's name for it: problem, solution, answer. A file holds all subjects,
    told apart by a column `type` or `subject`: "Counting & Probability", or the Hub's
    counting_and_probability."""
    columns = ["problem", "solution"]
    if data:
        rows = _file(data, [*columns, "subject"], {"type": "subject"})
        rows = [
            row for row in rows if row["subject"].lower().replace("&", "and").replace(" ", "_") == subject
        ]
        if not rows:
            raise ValueError(f"{data}: no row is of the subject {subject} (column type or subject)")
    else:
        rows = _hub("EleutherAI/hendrycks_math", subject, "test", columns)
    docs = [{c: row[c] for c in columns} | {"answer": scoring.last_boxed(row["solution"])} for row in rows]
    for doc in docs:
        if doc["answer"] == scoring.INVALID:
            raise ValueError(
                f"{data or 'hendrycks_math'}: no \\boxed{{answer}} in the solution of: {doc['problem']}"
            )
    return _test(docs)


def gpqa(data: str | None = None, **_) -> dict[str, datasets.Dataset]:
    """GPQA: question, A, B, C, D, answer ("(A)"). The choices are shuffled by a generator seeded with the
    question: their order depends on nothing else."""
    rows = _file(data, GPQA_COLUMNS) if data else _hub("Idavidrein/gpqa", "gpqa_main", "train", GPQA_COLUMNS)
    docs = []
    for row in rows:
        question, *choices = (preprocess(row[c]) for c in GPQA_COLUMNS)
        order = random.Random(question).sample(range(4), 4)
        docs.append(
            {"question": question}
            | {letter: choices[i] for letter, i in zip("ABCD", order, strict=True)}
            | {"answer": f"({'ABCD'[order.index(0)]})"}
        )
    return _test(docs)


def humaneval(data: str | None = None, **_) -> dict[str, datasets.Dataset]:
    """HumanEval: task_id, prompt, entry_point, test."""
    columns = ["task_id", "prompt", "entry_point", "test"]
    return _test(_file(data, columns) if data else _hub("openai/openai_humaneval", None, "test", columns))


def _test(rows) -> dict[str, datasets.Dataset]:
    return {"test": datasets.Dataset.from_list(list(rows))}


def _hub(path: str, name: str | None, split: str, columns: list[str]) -> datasets.Dataset:
    try:
        return datasets.load_dataset(path, name, split=split).select_columns(columns)
    except Exception as error:  # unreachable, gated, renamed: the hub client has a dozen kinds
        raise ValueError(
            f"{path}: cannot be read from the Hub ({error}); set data to a local copy"
        ) from error


def _file(data: str, columns: list[str], aliases: dict[str, str] | None = None) -> list[dict[str, str]]:
    """The rows of a local file, reduced to `columns`. `aliases`: other names that columns may have."""
    path = Path(data).expanduser()
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if not path.is_file():
        raise ValueError(
            f"{data}: no such file (wanted: {', '.join(READERS)} with the columns {', '.join(columns)})"
        )
    if suffix not in READERS:
        raise ValueError(f"{data}: unknown kind of file (wanted: {', '.join(READERS)}; text also as .gz)")
    try:
        frame = READERS[suffix](path)
    except Exception as error:  # every reader has its own kinds of errors
        raise ValueError(
            f"{data}: cannot be read as {suffix} (wanted: {', '.join(columns)}): {error}"
        ) from error
    frame = frame.rename(columns={old: new for old, new in (aliases or {}).items() if new not in frame})
    if frame.empty or not set(columns) <= set(frame):
        found = f"{len(frame)} rows with {', '.join(map(str, frame)) or 'no columns'}"
        raise ValueError(f"{data}: needs rows with the columns {', '.join(columns)}, but has {found}")
    rows = frame[columns].to_dict("records")
    for number, row in enumerate(rows, start=1):
        for column, value in row.items():
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{data}: row {number} has no text in column {column!r}, but {value!r}")
    return rows
