"""Our lm-eval tasks: YAML files found by `TaskManager(include_path=...)`, their documents and their scoring.

    task                    documents    splits                   metrics
    gsm_symbolic, chain_sum generated    test, validation, train  exact_match,strict-match
                                                                  exact_match,flexible-extract
    several_kinds           generated    the same                 the same two
    gsm8k                   Hub or file  test, train              the same two
    math (seven math_*)     Hub or file  test, train              exact_match,boxed
    gpqa                    Hub or file  test                     exact_match,last-letter
    humaneval               Hub or file  test                     pass@1,create_test
                                                                  pass@1,lenient

A metric is "metric,filter", as in lm-eval's results and in score rows. Every filter writes `scoring.INVALID`
("[invalid]") where it finds no answer, and that scores 0; only humaneval's create_test, lm-eval's own, takes
any answer.

    check_task(cfg.task)
    manager, tasks = prepare("gsm8k", data="gsm8k_test.jsonl")  # before any model is loaded
    simple_evaluate(lm, tasks=list(tasks.values()), task_manager=manager, ...)
"""

from collections.abc import Mapping
from typing import Any

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from unmask.paths import ROOT
from unmask.tasks.problems import SPLITS
from unmask.tasks.scoring import INVALID


def check_task(task: Any) -> None:
    """ValueError naming the key of a TaskConfig whose value cannot be, whatever the task. Reads nothing."""
    for key in ("name", "metric", "split"):
        _text(key, getattr(task, key))
    for key in ("system_prompt", "data"):
        if getattr(task, key) is not None:
            _text(key, getattr(task, key))
    if len([part for part in task.metric.split(",") if part.strip()]) != 2 or task.metric.count(",") != 1:
        raise ValueError(
            f"task.metric={task.metric}: must be metric,filter, for example exact_match,flexible-extract"
        )
    if task.split not in SPLITS:
        raise ValueError(f"task.split={task.split}: must be one of {', '.join(SPLITS)}")
    _whole("max_new_tokens", task.max_new_tokens, 1)
    _whole("num_fewshot", task.num_fewshot, 0)
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
) -> tuple[TaskManager, dict[str, Task]]:
    """The task manager to hand to `simple_evaluate`, and its tasks by name, in the order of their group.

    data: a file, or a folder with a file per split (documents.py); None: the Hub, or the generator.
    split: whose documents are asked.
    num_fewshot: worked examples before each question, as turns of the chat: the first problems of the train
        split, the same for every document. This is set in the tasks that are returned: give
        `simple_evaluate` these, and not their name.

    ValueError that says what to change unless the task or group exists, has the split, its documents can be
    read, and its scorer may run code if it must.
    """
    # lm-eval's own tasks stay out: ours are named like some of them, and indexing thousands of files takes
    # seconds.
    manager = TaskManager(
        include_path=ROOT / "eval_config" / "tasks",
        include_defaults=False,
        metadata={"data": data, "split": split, "num_fewshot": num_fewshot},
    )
    if name not in manager.all_tasks:
        raise ValueError(f"unknown task {name!r}; there are {', '.join(manager.all_tasks)}")
    if manager.task_index[name].cfg.get("unsafe_code") and not allow_code_execution:
        raise ValueError(
            f"task {name} runs code that a model wrote, in a subprocess with limits on time and memory, "
            "which is no sandbox: set allow_code_execution=true on a machine where that is acceptable"
        )
    tasks = manager.load(name)["tasks"]
    for task in tasks.values():
        task.set_config("num_fewshot", num_fewshot)
    return manager, tasks


def metrics_of(task: Task) -> list[str]:
    """Everything that a task is scored by, as "metric,filter": one score per document and entry."""
    return [
        f"{metric['metric']},{found['name']}"
        for found in task.config.filter_list
        for metric in task.config.metric_list
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
        for metric in metrics_of(task):
            name, filtered_by = metric.split(",")
            extracted = instance.filtered_resps[filtered_by]
            rows.append(
                {
                    "doc_id": number,
                    "metric": metric,
                    "correct": float(task.process_results(instance.doc, [extracted])[name]),
                    "extraction_failed": extracted == INVALID,
                    "extracted": str(extracted),
                    "target": str(task.doc_to_target(instance.doc)),
                }
            )
    return rows
