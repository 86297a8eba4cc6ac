"""Joint threshold: block diffusion that commits what is sure and rewrites what it now sees otherwise.

LLaDA2.1's decoding (arXiv 2602.08676), also in SGLang. A finished block is never rewritten, so it is cached
exactly. It needs a model that was trained to correct itself.

| published | settings |
|---|---|
| LLaDA2.1's generate | store=fused, cache=none (the same ids as exact) |
| SGLang | store=separate: a block ends with a forward that changes nothing, which stores it |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.blocks import BlockProgress, Blocks
from unmask.decoding.board import Board, to_lists
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, number, share


@dataclass
class EditProgress(BlockProgress):
    """post: forwards since the block has no mask. stores: the next forward stores the block, which is fed as
    ever, and changes nothing. done: nothing in it changes any more."""

    post: int = 0
    stores: bool = False
    done: bool = False


@dataclass(frozen=True)
class JointThreshold(Blocks):
    """threshold: masks of the block that are likelier are committed; if those are fewer than `least`, the
        `least` likeliest masks.
    edit_threshold: a token of the block is rewritten where another one is the likeliest, and likelier than
        this. Edits go on while there are masks; 0 rewrites wherever another token is the likeliest.
    max_post_edit_steps: forwards of a block without masks that may still rewrite it. Two tokens may take
        turns for ever.
    penalty_lambda: taken from the logit of the token that stands one position to the left, in the block.
    block_length, cache, store, after_end: see Blocks. Greedy.
    """

    revises: ClassVar = True
    sampling: ClassVar = ()
    caches: ClassVar = ("exact", "none")

    threshold: float | None = 0.5
    quota: str = "dynamic"
    edit_threshold: float = 0.0
    max_post_edit_steps: int = 16
    penalty_lambda: float = 0.0
    least: int = 1

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, least=self.least)
        share(edit_threshold=self.edit_threshold)
        if not number(self.penalty_lambda) or not 0 <= self.penalty_lambda < float("inf"):
            raise ValueError(f"penalty_lambda={self.penalty_lambda!r} must be a number, 0 or more")
        if type(self.max_post_edit_steps) is not int or self.max_post_edit_steps < 0:
            raise ValueError(
                f"max_post_edit_steps={self.max_post_edit_steps!r} must be a whole number, 0 or more"
            )
        unused = {"rank": "confidence", "quota": "dynamic", "sub_block_length": None, "hand_over": False}
        for name, value in unused.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}={getattr(self, name)!r}: joint_threshold does not use {name}")

    def begin(self, board: Board) -> None:
        super().begin(board)
        for row in board.rows:
            row.state = EditProgress(range(0), shift=row.state.shift, done=True)
            row.patience = len(row.canvas) + self.max_post_edit_steps + 2

    def step(self, board: Board) -> list[Commit]:
        for row in board.rows:
            self._advance(row)
        spans = [
            range(len(row.prompt) + row.state.block.start, len(row.prompt) + row.state.block.stop)
            for row in board.rows
        ]
        marginals = self._forward(board)
        logits = self._penalised(board, spans, marginals.logits(spans))
        likely, ids = logits.softmax(-1).max(-1)
        order = likely.argsort(descending=True, stable=True)
        sure, edits = (likely > self.threshold), (likely > self.edit_threshold)
        lists = to_lists(order, ids, sure, edits)
        return [self._write(row, *mine) for row, *mine in zip(board.rows, *lists, strict=True)]

    def _write(self, row: Row, order: list[int], ids: list[int], sure: list[int], edits: list[int]) -> Commit:
        """What a step commits and rewrites. Lists may be longer than the block."""
        block, state = row.state.block, row.state
        if state.stores:
            state.done, row.revisable, row.owes = True, block.stop, False
            return [], []
        known = [row.canvas[p] for p in block]
        masks = [k for k in order if k < len(known) and known[k] is None]
        chosen = [k for k in masks if sure[k]]
        if len(chosen) < self.least:
            chosen = masks[: self.least]
        edited = [k for k, token in enumerate(known) if token not in (None, ids[k]) and edits[k]]
        written = sorted([*chosen, *edited])
        state.post += not masks
        if state.post > self.max_post_edit_steps:
            written = []  # the forward that only stores
        self._end_block(row, bool(written), len(masks) - len(chosen))
        return [block.start + k for k in written], [ids[k] for k in written]

    def _end_block(self, row: Row, wrote: bool, masks: int) -> None:
        """Notice whether the block is finished with this step, which wrote something or did not."""
        state, separate = row.state, self.store == "separate"
        spent = state.spent >= self.block_length + self.max_post_edit_steps
        if not separate:
            state.done = not wrote or (not masks and state.post >= self.max_post_edit_steps)
        else:
            state.done = not wrote
            state.stores = row.owes = wrote and not masks and spent
        row.revisable = state.block.stop if state.done else state.block.start

    def _advance(self, row: Row) -> None:
        if row.state.done:
            row.state = EditProgress(self._block(row), shift=row.state.shift)
        row.state.spent += 1

    def _sub_block(self, row: Row) -> range:
        return range(self._begin(row) - len(row.prompt), row.state.block.stop)

    def _penalised(self, board: Board, spans: list[range], logits: Tensor) -> Tensor:
        """Logits without the penalty of their left neighbour in the block."""
        if not self.penalty_lambda:
            return logits
        for i, (row, span) in enumerate(zip(board.rows, spans, strict=True)):
            first = span.start == self._begin(row)  # of the block, which may begin in the prompt
            queries = torch.arange(first, len(span), device=logits.device)
            logits[i, queries, board.ids[i, span.start + first - 1 : span.stop - 1]] -= self.penalty_lambda
        return logits
