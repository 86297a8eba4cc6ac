"""Which documents of a task a run answers, and how the documents of a group of tasks are numbered."""

import random
from collections.abc import Mapping

TASK_STRIDE = 100_000
"""Documents of the k-th task of a group are numbered from k * TASK_STRIDE."""


def chosen(documents: Mapping[str, int], limit: int | None, subset_seed: int | None) -> list[int]:
    """The numbers (doc_id) of the documents that a limit takes, in the order in which they are answered.

    documents: how many each task has, in task order. limit: per task at most; None takes all.
    subset_seed: None takes each task's first documents; a seed takes the first ones of a permutation that the
        seed and the task's name decide.

    A larger limit goes on where a smaller one ended, task by task. ValueError for a limit below 1, or a task
    of more than TASK_STRIDE documents.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: must be 1 or more, or null for all documents")
    found = []
    for place, (task, count) in enumerate(documents.items()):
        if count > TASK_STRIDE:
            raise ValueError(
                f"task {task}: has {count} documents, and a task of a group can have {TASK_STRIDE}"
            )
        numbers = list(range(count))
        if subset_seed is not None:
            random.Random(f"{subset_seed}/{task}").shuffle(numbers)
        found += [place * TASK_STRIDE + number for number in numbers[:limit]]
    return found
