"""The head of a large vocabulary on a CPU.

There MKL can multiply a few rows by the table several times slower than the table by the few rows, which is
the same product (docs/performance.md). A draft, a block, a verification are few rows. Up to how many rows
that is so differs between processors (8 on an AMD EPYC, 15 on an Intel Xeon), so it is measured when a model
is loaded; the logits differ by rounding alone.
"""

import time
from collections.abc import Callable
from functools import cache
from types import MethodType

import torch
from torch import Tensor, nn

LARGE = 2**22  # numbers of a table that no cache holds
TILE = 16  # rows that libraries multiply at once: from so many on, all are fast
CLEARLY = 1.2  # times faster: what is closer may differ from run to run


def use_row_products(model: nn.Module) -> None:
    """Let a model's head multiply the table by few rows, and not few rows by the table, where that is faster.

    Heads of small vocabularies stay as they are, and a drafter has none.
    """
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear) and head.bias is None and head.weight.numel() >= LARGE:
        head.few = few_rows(head.in_features, head.weight.dtype, torch.get_num_threads())
        head.forward = MethodType(_forward, head)


def _forward(head: nn.Linear, hidden: Tensor) -> Tensor:
    """(..., width) -> (..., vocabulary)."""
    rows = hidden.reshape(-1, hidden.size(-1))
    if not 1 < len(rows) <= head.few:
        return nn.functional.linear(hidden, head.weight)
    return table_times_rows(rows, head.weight).reshape(*hidden.shape[:-1], -1)


def table_times_rows(rows: Tensor, table: Tensor) -> Tensor:
    """(n, width) and (vocabulary, width) -> (n, vocabulary)."""
    return torch.mm(table, rows.t()).t()


@cache
def few_rows(width: int, dtype: torch.dtype, threads: int) -> int:
    """Up to how many rows of this width the table times the rows is clearly faster on this processor; 1 where
    it never is. threads: of torch."""
    table = torch.ones(-(-LARGE // width), width, dtype=dtype)
    for n in range(2, TILE):
        rows = torch.ones(n, width, dtype=dtype)
        if _seconds(nn.functional.linear, rows, table) < CLEARLY * _seconds(table_times_rows, rows, table):
            return n - 1
    return TILE - 1


def _seconds(product: Callable[[Tensor, Tensor], Tensor], rows: Tensor, table: Tensor) -> float:
    """The least of a few times: what else the machine does makes none shorter."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(rows, table)
        times.append(time.perf_counter() - start)
    return min(times)
