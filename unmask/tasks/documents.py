"""Documents of the tasks: the `custom_dataset` functions that the YAML files name.

lm-eval calls each with the task manager's metadata, which `prepare` fills:

    data          a local file, taken as the wanted split; a folder with a file per split (test.jsonl,
                  train.jsonl); a folder of several data sets, see `_located`; or None: the Hub, or the
                  generator
    split         test | validation | train; not every task has each
    num_fewshot   worked examples that stand before every question
    shots         first | drawn | drawn_twice: which ones, see evaluation/prompts.py

It gets two lists: `documents`, the wanted split in order, and `shots`, which worked examples are taken from:
the first problems of the train split, or all of it where they are drawn, or the task's own. A document's
number is its index in its split, whatever else is asked for. Hub and file give the same columns, so the same
problem is the same document.

Two columns have a meaning: `template`, what a document was made from or belongs to, over which a draw is
balanced; and `earlier`, the questions of a conversation that were asked before this one.

Whatever is wrong with the documents is a ValueError that names the file, the Hub's dataset or the setting,
and what to change.
"""

import ast
import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache, partial, wraps
from importlib.resources import files
from itertools import islice
from pathlib import Path

import datasets
import pandas as pd
import yaml
from lm_eval.tasks.gpqa.generative.utils import preprocess

from unmask.paths import hub_reason
from unmask.tasks import problems, scoring

GPQA_COLUMNS = [
    "Question",
    "Correct Answer",
    "Incorrect Answer 1",
    "Incorrect Answer 2",
    "Incorrect Answer 3",
]
SUBJECTS = [  # of MATH, by the Hub's names, in lm-eval's order
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
]
LIVECODEBENCH = "https://huggingface.co/datasets/livecodebench/code_generation_lite/resolve/main/"
# Text stays text: no answer "NA" read as missing, no "1.50" as a number, no "2020-01-01" as a date.
READERS = {
    ".json": partial(pd.read_json, dtype=False),
    ".jsonl": partial(pd.read_json, dtype=False, lines=True),
    ".csv": partial(pd.read_csv, dtype=str, keep_default_na=False),
    ".parquet": pd.read_parquet,
}

Rows = Iterable[dict]

# What a column must hold, and what its values become.
TEXT, MAYBE_BLANK, NUMBER, TEXTS = "a text", "a text, or nothing", "a number", "a list of texts"
CHECKS: dict[str, Callable] = {
    TEXT: lambda value: value if isinstance(value, str) and value.strip() else None,
    MAYBE_BLANK: lambda value: value if isinstance(value, str) else _nothing(value),
    NUMBER: lambda value: str(value) if str(value).strip().lstrip("-").isdigit() else None,
    TEXTS: lambda value: list(value) if _is_texts(value) else None,
}


def _nothing(value: object) -> str | None:
    return "" if value is None or value != value else None  # pandas reads an absent text as nan


def _is_texts(value: object) -> bool:
    several = hasattr(value, "__iter__") and not isinstance(value, str | dict)  # a list; Parquet: an array
    return several and all(isinstance(text, str) for text in value)


def of_splits(*known: str, shots: Callable[[], Rows] | None = None, named: str | None = None) -> Callable:
    """Make `read(split, data, ...)`, which gives the rows of one split, the function that lm-eval calls.

    shots: the task's own worked examples, where it has some. named: the data set, a format of the task's
    options; None: it has the function's name; empty: there are no files of it.
    """
    own_shots = shots

    def decorate(read: Callable[..., Rows]) -> Callable[..., dict[str, datasets.Dataset]]:
        @wraps(read)
        def load(
            data: str | None = None,
            split: str = "test",
            num_fewshot: int = 0,
            shots: str = "first",
            **options,
        ):
            name = options.get("task", read.__name__)
            if split not in known:
                raise ValueError(f"task.split={split}: task {name} has {', '.join(known)} only")
            if own_shots and shots != "first":
                raise ValueError(f"task.shots={shots}: task {name} has its own examples; set it to first")
            if num_fewshot and not own_shots:
                _refuse_shots(name, known, split, num_fewshot)
            dataset = (read.__name__ if named is None else named).format(**options)

            def rows(split: str) -> Rows:
                return read(split, _located(data, split, dataset) if dataset else data, **options)

            documents = list(rows(split))
            if own_shots:
                pool = _taken(name, own_shots(), num_fewshot)
            else:
                pool = _shots(name, rows, split, num_fewshot, data, shots != "first")
            found = {"documents": documents, "shots": pool}
            return {key: datasets.Dataset.from_list(rows) for key, rows in found.items()}

        load.read = read
        load.reads_settings = True  # task.data, split and num_fewshot are honoured or refused here
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
            f"task.num_fewshot={num_fewshot}: worked examples are problems of the train split, and "
            "task.split=train asks these very questions; set task.num_fewshot=0 or another split"
        )


def _shots(
    name: str,
    read: Callable[[str], Rows],
    split: str,
    num_fewshot: int,
    data: str | None,
    every: bool,
) -> list[dict]:
    """The first `num_fewshot` worked examples that `read` gives, or every one."""
    if not num_fewshot:
        return []
    if data and not os.path.isdir(os.path.expanduser(data)):
        raise ValueError(
            f"task.num_fewshot={num_fewshot}: worked examples are of the train split, and task.data={data} "
            f"is one file; set it to a folder with train.jsonl and {split}.jsonl, or to null for the Hub"
        )
    return _taken(name, read("train"), num_fewshot, every)


def _taken(name: str, examples: Rows, num_fewshot: int, every: bool = False) -> list[dict]:
    """The first `num_fewshot` of the examples, or every one; ValueError where they are fewer."""
    taken = list(islice(examples, None if every else num_fewshot))
    if len(taken) < num_fewshot:
        raise ValueError(
            f"task.num_fewshot={num_fewshot}: there are {len(taken)} worked examples of {name} only"
        )
    return taken


# --- worked examples of lm-eval ---


def _lm_eval(path: str) -> str:
    return (files("lm_eval") / "tasks" / path).read_text()


def _samples_in(path: str) -> Rows:
    """The worked examples that a module of lm-eval holds, read from its text: to import these modules needs
    the network (mbpp) or another antlr (minerva_math)."""
    (function,) = (
        node
        for node in ast.parse(_lm_eval(path)).body
        if getattr(node, "name", None) == "list_fewshot_samples"
    )
    return ast.literal_eval(function.body[-1].value)


@cache
def gsm8k_cot_shots() -> Rows:
    """The eight examples of chain-of-thought prompting (Wei et al. 2022): question, target."""
    return yaml.safe_load(_lm_eval("gsm8k/gsm8k-cot.yaml"))["fewshot_config"]["samples"]


@cache
def minerva_shots() -> Rows:
    """Minerva's four examples (Lewkowycz et al. 2022): problem, solution.

    As in lm-eval 0.4.8, which made the published tables: the first problem ends in a stray brace, and a line
    of LaTeX in one backslash. Later versions mended both.
    """
    found = _samples_in("minerva_math/utils.py")
    shots = [{key: row[key].replace("\\\\\n", "\\\n") for key in ("problem", "solution")} for row in found]
    shots[0]["problem"] += "}"
    return shots


@cache
def mbpp_shots() -> Rows:
    """MBPP's problems 2 to 4: text, code, test_list."""
    wanted = ("text", "code", "test_list")
    return [{key: row[key] for key in wanted} for row in _samples_in("mbpp/utils.py")]


# --- documents ---


@of_splits("test", "validation", "train", named="")
def embedded(split: str, data: str | None, task: str, **_) -> Rows:
    """Generated problems: question, solution, answer, template. See problems.py for the splits."""
    if data:
        raise ValueError(f"task {task} is generated and reads no file, but data={data}: set data to null")
    return map(asdict, problems.training_split(task) if split == "train" else problems.held_out(task, split))


@of_splits("test", "train")
def gsm8k(split: str, data: str | None, **_) -> Rows:
    """GSM8K: question, answer (a worked solution that ends in "#### number")."""
    columns = ["question", "answer"]
    return _file(data, columns) if data else _hub("openai/gsm8k", "main", split, columns)


@of_splits("test", shots=gsm8k_cot_shots, named="gsm8k")
def gsm8k_cot(split: str, data: str | None, **_) -> Rows:
    """GSM8K's test split with worked examples of its own."""
    return gsm8k.read(split, data)


@of_splits("test", shots=minerva_shots, named="math")
def minerva_math(split: str, data: str | None, **_) -> Rows:
    """MATH, the 5,000 problems of all subjects: problem, solution, template (the subject)."""
    scoring.check_math_verify()
    if data:
        return _math_file(data)
    return [
        {"problem": row["problem"], "solution": row["solution"], "template": subject}
        for subject in SUBJECTS
        for row in _hub("EleutherAI/hendrycks_math", subject, split, ["problem", "solution"])
    ]


@of_splits("test", shots=minerva_shots)
def math500(split: str, data: str | None, **_) -> Rows:
    """MATH-500: problem, solution, template (the subject)."""
    scoring.check_math_verify()
    if data:
        return _math_file(data)
    rows = _hub("HuggingFaceH4/MATH-500", None, split, ["problem", "solution", "subject"])
    return [{"template": row.pop("subject")} | row for row in map(dict, rows)]


def _math_file(data: str) -> Rows:
    rows = _file(data, ["problem", "solution", "subject"], {"type": "subject"})
    return [{"template": row.pop("subject")} | row for row in rows]


@of_splits("test", "train")
def math(split: str, data: str | None, subject: str, **_) -> Rows:
    """One subject of MATH, by the Hub's name for it: problem, solution, answer.

    A file holds all subjects, told apart by a column `type` or `subject`: "Counting & Probability", or the
    Hub's counting_and_probability.
    """
    columns = ["problem", "solution"]
    if data:
        rows = _file(data, [*columns, "subject"], {"type": "subject"})
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
    # The Hub calls its only split "train".
    hub = ("Idavidrein/gpqa", "gpqa_main", "train", GPQA_COLUMNS)
    rows = _file(data, GPQA_COLUMNS) if data else _hub(*hub)
    for row in rows:
        question, *choices = (preprocess(row[c]) for c in GPQA_COLUMNS)
        order = random.Random(question).sample(range(4), 4)
        shuffled = {letter: choices[i] for letter, i in zip("ABCD", order, strict=True)}
        yield {"question": question} | shuffled | {"answer": f"({'ABCD'[order.index(0)]})"}


@of_splits("test")
def humaneval(split: str, data: str | None, **_) -> Rows:
    """HumanEval: task_id, prompt, entry_point, test."""
    columns = ["task_id", "prompt", "entry_point", "test"]
    return _file(data, columns) if data else _hub("openai/openai_humaneval", None, split, columns)


@of_splits("test")
def humaneval_plus(split: str, data: str | None, **_) -> Rows:
    """HumanEval+ (EvalPlus): HumanEval's columns, with more tests."""
    columns = ["task_id", "prompt", "entry_point", "test"]
    return _file(data, columns) if data else _hub("evalplus/humanevalplus", None, split, columns)


MBPP = {"text": TEXT, "code": TEXT, "test_list": TEXTS}


@of_splits("test", shots=mbpp_shots)
def mbpp(split: str, data: str | None, **_) -> Rows:
    """MBPP, the 500 test problems: text, code, test_list (three asserts)."""
    return _file(data, MBPP) if data else _hub("google-research-datasets/mbpp", "full", split, MBPP)


@of_splits("test", shots=mbpp_shots)
def mbpp_plus(split: str, data: str | None, **_) -> Rows:
    """MBPP+ (EvalPlus): MBPP's columns and `test`, a program that runs all of its tests."""
    columns = {"prompt": TEXT, "code": TEXT, "test_list": TEXTS, "test": TEXT}
    rows = _file(data, columns) if data else _hub("evalplus/mbppplus", None, split, columns)
    return [{"text": row.pop("prompt")} | row for row in map(dict, rows)]


@of_splits("test")
def mbpp_sanitized(split: str, data: str | None, **_) -> Rows:
    """MBPP (sanitized), 257 problems: prompt, code, test_imports, test_list."""
    columns = {"prompt": TEXT, "code": TEXT, "test_imports": TEXTS, "test_list": TEXTS}
    name = "google-research-datasets/mbpp"
    return _file(data, columns) if data else _hub(name, "sanitized", split, columns)


@of_splits("test", named="aime{year}")
def aime(split: str, data: str | None, year: int, **_) -> Rows:
    """The 30 problems of one year's AIME: problem, answer (a whole number)."""
    columns = {"problem": TEXT, "answer": NUMBER}
    name = {24: "HuggingFaceH4/aime_2024", 25: "MathArena/aime_2025"}[year]
    return _file(data, columns) if data else _hub(name, None, "train", columns)


@of_splits("test")
def livecodebench(split: str, data: str | None, **_) -> Rows:
    """LiveCodeBench, 1,055 problems: question_content, starter_code (may be blank)."""
    columns = {"question_content": TEXT, "starter_code": MAYBE_BLANK}
    if data:
        return _file(data, columns)
    urls = [f"{LIVECODEBENCH}test{part}.jsonl" for part in ("", *range(2, 7))]
    return _hub("json", None, split, columns, data_files={split: urls})


@of_splits("test")
def alpaca(split: str, data: str | None, **_) -> Rows:
    """Alpaca, 52,002 instructions: instruction, input (may be blank)."""
    columns = {"instruction": TEXT, "input": MAYBE_BLANK}
    return _file(data, columns) if data else _hub("tatsu-lab/alpaca", None, "train", columns)


@of_splits("test")
def mt_bench(split: str, data: str | None, **_) -> Rows:
    """MT-Bench, 80 conversations of two turns: question, earlier.

    Turn t of conversation c is document 2 c + t: it is asked after the model's own answer to turn t - 1.
    """
    if data:
        rows = _file(data, {"turns": TEXTS}, {"prompt": "turns"})
        conversations = [row["turns"] for row in rows]
    else:
        rows = _hub("HuggingFaceH4/mt_bench_prompts", None, "train", {"prompt": TEXTS})
        conversations = [row["prompt"] for row in rows]
    for conversation in conversations:
        if len(conversation) != 2:
            raise ValueError(f"mt_bench: a conversation has two turns, not {len(conversation)}")
        for turn, question in enumerate(conversation):
            yield {"question": question, "earlier": conversation[:turn]}


# --- where they lie ---


Columns = Mapping[str, str] | Iterable[str]  # name -> what it holds; names alone hold texts


def _hub(path: str, name: str | None, split: str, columns: Columns, **options) -> Rows:
    try:
        found = datasets.load_dataset(path, name, split=split, **options).select_columns(list(columns))
    except Exception as error:  # unreachable, gated, renamed: the hub client has a dozen kinds
        where = "livecodebench/code_generation_lite" if path == "json" else path
        reason = hub_reason(error, f"datasets/{where}")
        raise ValueError(
            f"{where}: cannot be read from the Hub ({reason}); set task.data to a local copy"
        ) from error
    return _checked(path, found, columns)


def _file(data: str, columns: Columns, aliases: dict[str, str] | None = None) -> list[dict]:
    """The rows of a local file, reduced to `columns`.

    `aliases`: other names that columns may have.
    """
    names = list(columns)
    path = _path(data, names)
    try:
        frame = READERS[_kind(path)](path)
    except Exception as error:  # every reader has its own kinds of errors
        raise ValueError(
            f"{path}: cannot be read as {_kind(path)} (wanted: {', '.join(names)}): {error}"
        ) from error
    frame = frame.rename(columns={old: new for old, new in (aliases or {}).items() if new not in frame})
    if frame.empty or not set(names) <= set(frame):
        found = f"{len(frame)} rows with {', '.join(map(str, frame)) or 'no columns'}"
        raise ValueError(f"{path}: needs rows with the columns {', '.join(names)}, but has {found}")
    return _checked(path, frame[names].to_dict("records"), columns)


def _checked(source: object, rows: Rows, columns: Columns) -> list[dict]:
    """The rows with values as CHECKS makes them; ValueError naming row and column where one is of another
    kind."""
    kinds = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, TEXT)
    found = []
    for number, row in enumerate(rows, start=1):
        made = {column: CHECKS[kind](row[column]) for column, kind in kinds.items()}
        for column, value in made.items():
            if value is None:
                raise ValueError(
                    f"{source}: row {number} has no {kinds[column].removeprefix('a ')} in column {column!r}, "
                    f"but {row[column]!r}"
                )
        found.append(made)
    return found


def _located(data: str | None, split: str, dataset: str) -> str | None:
    """The file that holds a split: `data` itself, or in the folder `data` the split's file (test.jsonl), or
    that of a folder of several data sets: math500/test.jsonl, math500_test.jsonl, or math500.jsonl, which is
    its test split. Capitals do not matter. None stays None.
    """
    if not data or not os.path.isdir(os.path.expanduser(data)):
        return data
    folder = Path(os.path.expanduser(data))
    several = [f"{dataset}/{split}", f"{dataset}_{split}", *([dataset] if split == "test" else [])]
    for stems in ([split], several):
        found = [path for path in _tables(folder) if _stem(path.relative_to(folder)) in stems]
        if len(found) == 1:
            return str(found[0])
        if found:
            names = ", ".join(str(path.relative_to(folder)) for path in found)
            raise ValueError(f"{data}: needs one file {' or '.join(stems)}.jsonl or alike, but has {names}")
    raise ValueError(
        f"{data}: needs one file {split}.jsonl or alike, but has none; or, as a folder of several data sets, "
        f"{' or '.join(f'{stem}.jsonl' for stem in several)} ({', '.join(READERS)}; text also as .gz)"
    )


def _tables(folder: Path) -> list[Path]:
    """The files that READERS know in a folder and in its folders, by name."""
    return [
        p for p in sorted([*folder.glob("*"), *folder.glob("*/*")]) if _kind(p) in READERS and p.is_file()
    ]


def _stem(path: Path) -> str:
    """The path without what names its kind, in small letters."""
    return str(path).removesuffix(".gz").removesuffix(_kind(path)).lower()


def _path(data: str, columns: list[str]) -> Path:
    """The file `data`; ValueError where it is none that READERS know."""
    path = Path(os.path.expanduser(data))
    if not os.path.isfile(path):
        wanted = f"wanted: {', '.join(READERS)} with the columns {', '.join(columns)}"
        raise ValueError(f"{data}: no such file ({wanted})")
    if _kind(path) not in READERS:
        raise ValueError(f"{data}: unknown kind of file (wanted: {', '.join(READERS)}; text also as .gz)")
    return path


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix
