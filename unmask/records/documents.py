"""Which documents of a task a run answers, and how the documents of a group of tasks are numbered."""

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

TASK_STRIDE = 100_000
"""Documents of the k-th task of a group are numbered from k * TASK_STRIDE."""

PERMUTATION = "permutation"


def chosen(
    documents: Mapping[str, int],
    limit: int | None,
    subset_seed: int | None,
    templates: Mapping[str, Sequence[Hashable]] | None = None,
    listed: Sequence[int] | str | None = None,
) -> list[int]:
    """The numbers (doc_id) of the documents that a limit takes, in the order in which they are answered.

    documents: how many each task has, in task order. limit: per task at most; None takes all.
    subset_seed: None takes each task's first documents; a seed takes the first ones of a permutation that the
        seed and the task's name decide.
    templates: of tasks whose documents were made from templates, the template of each. A draw then holds
        every template in its share of the whole.
    listed: numbers to take instead, in this order; or "permutation", the order of `datasets.shuffle`
        (numpy's default_rng of subset_seed, 0 for None), as DFlash draws its prompts.

    A larger limit goes on where a smaller one ended, task by task. ValueError for a limit below 1, a listed
    number that no task has, or a task of more than TASK_STRIDE documents.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: must be 1 or more, or null for all documents")
    every = []
    for position, (task, count) in enumerate(documents.items()):
        if count > TASK_STRIDE:
            raise ValueError(
                f"task {task}: has {count} documents, and a task of a group can have {TASK_STRIDE}"
            )
        numbers = list(range(count))
        if listed == PERMUTATION:
            numbers = np.random.default_rng(subset_seed or 0).permutation(count).tolist()
        elif subset_seed is not None:
            numbers = _draw(numbers, (templates or {}).get(task), random.Random(f"{subset_seed}/{task}"))
        taken = None if isinstance(listed, Sequence) and listed != PERMUTATION else limit
        every += [position * TASK_STRIDE + number for number in numbers[:taken]]
    if listed is None or listed == PERMUTATION:
        return every
    if strange := [number for number in listed if number not in set(every)]:
        raise ValueError(f"task.documents: there is no document {strange[0]}")
    return list(listed)[:limit]


def _draw(numbers: list[int], templates: Sequence[Hashable] | None, rng: random.Random) -> list[int]:
    """All numbers in a random order. With templates, each one's documents are spread evenly over the order
    from a random start: document k of m stands at (k + start) / m of the whole."""
    rng.shuffle(numbers)
    if not templates:
        return numbers
    alike = defaultdict(list)
    for number in numbers:
        alike[templates[number]].append(number)
    at = {}
    for members in alike.values():
        start = rng.random()
        at |= {number: (rank + start) / len(members) for rank, number in enumerate(members)}
    return sorted(numbers, key=at.__getitem__)
