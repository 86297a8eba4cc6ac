"""What a position may attend to: one number a column, and the masks that follow from it; and two masks that
no number tells.

Column c of a row attends to the columns [0, sees[c]). Decoding (`Board.forward`) and training (objectives)
build their attention masks with these functions and no others, so that a model decodes as it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def full(columns: Tensor, ends: Tensor) -> Tensor:
    """Every column sees all up to its row's end: (rows, n) columns, (rows,) ends -> (rows, n)."""
    return ends[:, None].expand_as(columns)


def causal(columns: Tensor) -> Tensor:
    """Every column sees itself and what stands left of it: (rows, n) -> (rows, n)."""
    return columns + 1


def block_causal(columns: Tensor, prompts: Tensor, block_length: int) -> Tensor:
    """Every column sees up to the end of its own block (D2F, arXiv 2508.09192): (rows, n) -> (rows, n).

    The first `prompts` (rows,) columns are block 0 (see `origin`); blocks of `block_length` follow it.
    """
    prompts = prompts[:, None]
    block = (columns - prompts).div(block_length, rounding_mode="floor") + 1
    return torch.where(columns < prompts, prompts, prompts + block * block_length)


def origin(blocks_from: str, prompt: int, block_length: int) -> int:
    """The column from which a row's blocks of `block_length` are counted; what is left of it is one block.

    blocks_from: as a layout declares it (Layout.blocks_from). prompt: its columns."""
    return {"prompt": prompt, "column_0": 0, "padded_prompt": prompt % block_length}[blocks_from]


def branches(lengths: Sequence[int]) -> Tensor:
    """(n, n) bool for branches of these lengths side by side, each of which sees itself alone."""
    branch = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return branch[:, None] == branch


def shadowed(columns: int, block: list[int]) -> Tensor:
    """(n, n) bool for `columns` and a shadow of each of the block's behind them (WINO, arXiv 2507.18578): a
    shadow sees all but its own column, and no column sees a shadow."""
    n = columns + len(block)
    sees = torch.ones(n, n, dtype=torch.bool)
    sees[:columns, columns:] = False
    sees[columns:, block] = ~torch.eye(len(block), dtype=torch.bool)
    return sees


def attention_mask(sees: Tensor, keys: Tensor) -> Tensor:
    """Boolean mask (rows, 1, n, m), True where attended: `sees` (rows, n), the columns `keys` (m,) or (rows,
    m)."""
    keys = keys if keys.ndim == 2 else keys[None]
    return (keys[:, None] < sees[..., None])[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as attention kernels add it: 0 where attended, -inf elsewhere. They would make it of a
    boolean one by themselves, but in every layer."""
    return torch.where(mask, torch.tensor(0.0, dtype=dtype), torch.tensor(-torch.inf, dtype=dtype))


def attended(mask: Tensor) -> Tensor:
    """A boolean mask of one of either kind."""
    return mask if mask.dtype == torch.bool else mask == 0
