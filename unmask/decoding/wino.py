"""WINO (arXiv 2507.18578): commit many tokens, judge each by all others, mask again those that fail.

A step feeds prompt and canvas, and a shadow block: a mask for every position of the block at work. A shadow
sees all columns but its own position's, so it says how likely the token there is given all the others. The
shadows add a block's length to the positions of every forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from unmask.decoding.board import Board, Queries, to_lists
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, divides, one_of, share
from unmask.decoding.visibility import shadowed
from unmask.models.layout import Layout

SHARE, FEWEST, MOST = 0.7, 5, 20  # of a block's masks that a step commits at most
FIRST = 30  # more than a step can commit: in a block's first step nothing is committed that could go


@dataclass
class Progress:
    """The block at work, and how many tokens the last step committed in it."""

    block: range
    last: int = FIRST


@dataclass(frozen=True)
class Wino(Decoder):
    """threshold: masks of the block that are likelier are committed: at most 70% of them and from 5 to 20, at
        least the likeliest.
    threshold_back: tokens of the block that are less likely, given all others, are masked again: fewer than
        the step before committed, so a block ends; none in a step that commits one.
    block_length: B; it must divide max_new_tokens. None = one block.
    after_end: none, decoding ends with the block that holds an end token; fill, the canvas is filled, as
        published.

    Published for LLaDA. In a model that looks back (Dream) a token and its shadow are predicted from other
    columns than their own, and no rule for that is published: such models are refused.
    """

    revises: ClassVar = True

    threshold: float = 0.6
    threshold_back: float = 0.9
    block_length: int | None = 128
    after_end: str = "none"

    def __post_init__(self):
        at_least_one(block_length=self.block_length)
        share(threshold=self.threshold, threshold_back=self.threshold_back)
        one_of(("none", "fill"), after_end=self.after_end)

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        divides(self.block_length, max_new_tokens)

    def check_layout(self, layout: Layout) -> None:
        if layout.lookback:
            raise ValueError(
                f"WINO is published for models that predict a token from its own column, and {layout.name} "
                "predicts it from the one before"
            )

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = Progress(range(self.block_length or len(row.canvas)))
            row.fills = self.after_end == "fill"

    def step(self, board: Board) -> list[Commit]:
        for row in board.rows:
            if row.settled >= row.state.block.stop:
                length = len(row.state.block)
                row.state = Progress(range(row.settled, row.settled + length))
        blocks = [[len(row.prompt) + p for p in row.state.block] for row in board.rows]
        shadows = [[row.columns + k for k in range(len(row.state.block))] for row in board.rows]
        marginals = board.denoise(self._queries(board, blocks))
        known = torch.stack([ids[b[0] : b[-1] + 1] for ids, b in zip(board.ids, blocks, strict=True)])
        masked = known == board.models.mask_id
        likely, ids = marginals.logits(blocks).softmax(-1).max(-1)
        likely, order = likely.where(masked, -1).sort(descending=True, stable=True)
        judged = marginals.logits(shadows).softmax(-1).gather(-1, known[..., None])[..., 0]
        judged, doubts = judged.where(~masked, 2).sort(stable=True)
        sure, doubted = ((likely > self.threshold).sum(-1), (judged < self.threshold_back).sum(-1))
        lists = to_lists(order, ids.gather(1, order), masked.sum(-1), sure, doubts, doubted)
        return [self._revise(row, *mine) for row, *mine in zip(board.rows, *lists, strict=True)]

    def _queries(self, board: Board, blocks: list[list[int]]) -> Queries:
        """Prompt, canvas and shadow block of every row."""
        columns = [[*range(row.columns), *block] for row, block in zip(board.rows, blocks, strict=True)]
        ids = [
            torch.cat((line[: row.columns], line.new_full((len(block),), board.models.mask_id)))
            for row, line, block in zip(board.rows, board.ids, blocks, strict=True)
        ]
        return Queries(
            columns,
            ids,
            [shadowed(row.columns, b) for row, b in zip(board.rows, blocks, strict=True)],
        )

    def _revise(
        self,
        row: Row,
        order: list[int],
        tokens: list[int],
        masks: int,
        sure: int,
        doubts: list[int],
        doubted: int,
    ) -> Commit:
        """What a step commits and masks again.

        order: of the block, the likeliest masks first, with their tokens. masks, sure: how many there are,
        and above the threshold. doubts: the least likely committed ones first; doubted: below theirs.
        """
        block, last = row.state.block, row.state.last
        count = max(1, min(sure, max(int(SHARE * masks), FEWEST), MOST))
        back = min(doubted, last - 1) if count > 1 else 0
        row.state.last = count
        row.revisable = block.stop if masks - count + back == 0 else block.start
        positions = [block.start + k for k in [*order[:count], *doubts[:back]]]
        return positions, [*tokens[:count], *[None] * back]
