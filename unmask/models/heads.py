"""The head of a large vocabulary on a CPU.

There MKL multiplies a few rows by the table two to four times slower than the table by the few rows, which is
the same product (docs/performance.md). A draft, a block, a verification are few rows.
"""

from types import MethodType

import torch
from torch import Tensor, nn

LARGE = 2**22  # numbers of a table that no cache holds
FEW = 8  # rows; from 12 on MKL is faster by itself


def use_row_products(model: nn.Module) -> None:
    """Let a model's head multiply the table by few rows, and not few rows by the table.

    Heads of small vocabularies stay as they are, and a drafter has none.
    """
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear) and head.bias is None and head.weight.numel() >= LARGE:
        head.forward = MethodType(_forward, head)


def _forward(head: nn.Linear, hidden: Tensor) -> Tensor:
    """(..., width) -> (..., vocabulary)."""
    rows = hidden.reshape(-1, hidden.size(-1))
    if not 1 < len(rows) <= FEW:
        return nn.functional.linear(hidden, head.weight)
    return torch.mm(head.weight, rows.t()).t().reshape(*hidden.shape[:-1], -1)
