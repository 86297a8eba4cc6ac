"""Our lm-eval tasks: YAML files found by `TaskManager(include_path=...)`, their documents and their scoring.

    task                    documents    splits                   metrics
    gsm_symbolic, chain_sum generated    test, validation, train  exact_match,strict-match
                                                                  exact_match,flexible-extract
    several_kinds           generated    the same                 the same two
    line_*, latin_square,   generated    the same                 rule,answer
    sudoku
    gsm8k                   Hub or file  test, train              the same two
    gsm8k_cot, _zeroshot    Hub or file  test                     the same two
    math (seven math_*)     Hub or file  test, train              exact_match,boxed
    minerva_math, math500   Hub or file  test                     exact_match,final-answer
                                                                  math_verify,text
                                                                  math_verify_0.4.8,text
    aime24, aime25          Hub or file  test                     exact_match,none
    gpqa                    Hub or file  test                     exact_match,last-letter
    humaneval, _plain,      Hub or file  test                     pass@1,create_test
    _wrapped, _begun, _plus                                       pass@1,lenient
                                                                  pass@1,sanitised
    mbpp, _begun, _plus,    Hub or file  test                     pass@1,raw
    _sanitized                                                    pass@1,sanitised
    speed_*                 Hub or file  test                     none: answers are timed

A metric is "metric,filter", as in lm-eval's results and in score rows. A filter writes `scoring.INVALID`
("[invalid]") where it finds no answer, and that scores 0; those that take any answer as it is (create_test,
raw, text, none) never do.

    check_task(cfg.task)
    manager, tasks = prepare("gsm8k", data="gsm8k_test.jsonl")  # before any model is loaded
    simple_evaluate(lm, tasks=list(tasks.values()), task_manager=manager, ...)
"""

from collections.abc import Mapping
from typing import Any

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from unmask.paths import CONFIGURATIONS
from unmask.records.documents import PERMUTATION
from unmask.tasks import parallelbench
from unmask.tasks.problems import SPLITS
from unmask.tasks.scoring import INVALID

PROMPTS = ("chat", "one_turn", "text")
SHOTS = ("first", "drawn", "drawn_twice")


def check_task(task: Any) -> None:
    """ValueError naming the key of a TaskConfig whose value cannot be, whatever the task. Reads nothing."""
    for key in ("name", "split"):
        _text(key, getattr(task, key))
    for key in ("metric", "system_prompt", "data"):
        if getattr(task, key) is not None:
            _text(key, getattr(task, key))
    metric = task.metric
    if metric is not None and (metric.count(",") != 1 or not all(map(str.strip, metric.split(",")))):
        raise ValueError(
            f"task.metric={metric}: must be metric,filter, for example exact_match,flexible-extract; or null "
            "for a task without a score"
        )
    for key, known in (("split", SPLITS), ("prompt", PROMPTS), ("shots", SHOTS)):
        if getattr(task, key) not in known:
            raise ValueError(f"task.{key}={getattr(task, key)}: must be one of {', '.join(known)}")
    if type(task.bos) is not bool:
        raise ValueError(f"task.bos={task.bos!r}: must be true or false")
    if not isinstance(task.suffix, str):
        raise ValueError(f"task.suffix={task.suffix!r}: must be a text")
    if not isinstance(task.gen_prefix, str | None):
        raise ValueError(f"task.gen_prefix={task.gen_prefix!r}: must be a text or null")
    _documents(task.documents)
    _whole("max_new_tokens", task.max_new_tokens, 1)
    _whole("num_fewshot", task.num_fewshot, 0)
    _whole("shot_processes", task.shot_processes, 1)
    for key, least in (("limit", 1), ("subset_seed", 0)):
        if getattr(task, key) is not None:
            _whole(key, getattr(task, key), least)
    if not isinstance(task.stop, list):
        raise ValueError(
            f'task.stop={task.stop!r}: must be a list of strings, for example task.stop=["Question:"]'
        )
    for string in task.stop:
        if not isinstance(string, str) or not string:
            raise ValueError(f"task.stop={task.stop!r}: {string!r} is no string that an answer could stop at")


def _documents(value: Any) -> None:
    numbers = isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
    if value not in (None, PERMUTATION) and not (numbers and value and len(set(value)) == len(value)):
        raise ValueError(
            f"task.documents={value!r}: must be a list of different document numbers, {PERMUTATION}, or null"
        )


def _text(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"task.{key}={value!r}: must be a text")


def _whole(key: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:  # True is an int, and no number
        raise ValueError(f"task.{key}={value!r}: must be a whole number, {least} or more")


def prepare(
    name: str,
    data: str | None = None,
    allow_code_execution: bool = False,
    split: str = "test",
    num_fewshot: int = 0,
    shots: str = "first",
) -> tuple[TaskManager, dict[str, Task]]:
    """The task manager to hand to `simple_evaluate`, and its tasks by name, in the order of their group.

    data: a file, or a folder of one or several data sets (documents.py); None: the Hub, or the generator.
    split: whose documents are asked.
    num_fewshot: worked examples before each question. This is set in the tasks that are returned: give
        `simple_evaluate` these, and not their name.
    shots: "first" takes the first problems of the train split, or the task's own examples; else
        (evaluation/prompts.py) each document draws its own from the whole train split.

    ValueError that says what to change unless the task or group exists, has the split, its documents can be
    read, and its scorer may run code if it must.
    """
    # lm-eval's own tasks stay out: ours are named like some of them, and indexing thousands of files takes
    # seconds.
    folder = CONFIGURATIONS / "tasks"
    manager = TaskManager(
        include_path=folder,
        include_defaults=False,
        metadata={"data": data, "split": split, "num_fewshot": num_fewshot, "shots": shots},
    )
    wanted: str | dict = name
    if name in parallelbench.TASKS:  # one file for all of them
        shared = load_yaml(folder / "_parallelbench.yaml")
        wanted = {**shared, "task": name, "dataset_kwargs": {"task": name}}
    elif name not in manager.all_tasks:
        known = ", ".join([*manager.all_tasks, *parallelbench.TASKS])
        raise ValueError(f"unknown task {name!r}; there are {known}")
    elif manager.task_index[name].cfg.get("unsafe_code") and not allow_code_execution:
        raise ValueError(
            f"task {name} runs code that a model wrote, in a subprocess with limits on time and memory, "
            "which is no sandbox: set allow_code_execution=true on a machine where that is acceptable"
        )
    tasks = manager.load(wanted)["tasks"]
    for task in tasks.values():
        if not getattr(task.config.custom_dataset, "reads_settings", False):
            _check_foreign(task, data, split)
        task.set_config("num_fewshot", num_fewshot)
    return manager, tasks


def _check_foreign(task: Task, data: str | None, split: str) -> None:
    """ValueError where a setting has no effect on a task that finds its documents itself: one whose YAML
    names another `custom_dataset` than those of documents.py, or none.

    So what a record says of data and split is what was asked.
    """
    name = task.config.task
    of_ours = "has no custom_dataset of unmask.tasks.documents"
    if data:
        raise ValueError(f"task.data={data}: task {name} {of_ours} and would not read it; set it to null")
    own = task.config.test_split or task.config.validation_split
    if split != own:
        raise ValueError(f"task.split={split}: task {name} {of_ours} and always asks split {own}; set that")


def metrics_of(task: Task) -> list[str]:
    """Everything that a task is scored by, as "metric,filter": one score per document and entry.

    A metric whose entry names a `filter` is meant for that one. Empty for a task without a score.
    """
    return [
        f"{metric['metric']},{found['name']}"
        for found in task.config.filter_list or ()
        for metric in task.config.metric_list or ()
        if metric.get("filter", found["name"]) == found["name"]
    ]


def score_answers(task: Task, answers: Mapping[int, str]) -> list[dict]:
    """lm-eval's filters and scores on finished answers, by the numbers of their documents.

    Returns a row per document and metric, documents in order: doc_id, metric ("metric,filter"), correct
    (0 or 1), extraction_failed, extracted, target. `simple_evaluate(samples=...)` would do the same, but it
    numbers the documents of a subset anew, from 0.
    """
    if not answers:
        return []
    numbers = sorted(answers)
    task.build_all_requests(samples=numbers)
    for number, instance in zip(numbers, task.instances, strict=True):
        instance.resps = [answers[number]]
    task.apply_filters()
    rows = []
    for number, instance in zip(numbers, task.instances, strict=True):
        judged = {  # by filter: scores by metric
            name: task.process_results(instance.doc, [answer])
            for name, answer in instance.filtered_resps.items()
        }
        for metric in metrics_of(task):
            name, filtered_by = metric.split(",")
            extracted = instance.filtered_resps[filtered_by]
            rows.append(
                {
                    "doc_id": number,
                    "metric": metric,
                    "correct": float(judged[filtered_by][name]),
                    "extraction_failed": extracted == INVALID,
                    "extracted": str(extracted),
                    "target": str(task.doc_to_target(instance.doc)),
                }
            )
    return rows
