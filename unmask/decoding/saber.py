"""Saber (arXiv 2510.18165): an adaptive threshold, and tokens whose position lost confidence are masked
again.

The threshold is the mean confidence of what was committed. After every step the positions whose confidence
fell most since the step before are masked again, in earlier blocks too: nothing is settled before the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from unmask.decoding.board import Board, Fed
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, divides

LONGEST = 1024  # steps of a block that may mask again, as published: then what is written stays


@dataclass
class Progress:
    """end: of the block at work. before: of each position, the confidence of the last step. scores: of every
    position that was ever committed, the confidence with which it last was. spent: steps in the block."""

    end: int
    before: list[float]
    scores: dict[int, float] = field(default_factory=dict)
    spent: int = 0


@dataclass(frozen=True)
class Saber(Decoder):
    """n: a step commits all masks above the threshold, at least the n surest; then it masks again
        max(n // 2, an eighth of what it committed), and always fewer than it committed.
    block_length: B; it must divide max_new_tokens. None = one block.

    Confidence is the probability of the position's likeliest token, which need not be the one that stands
    there (as published). Where a block has fewer than n masks they are all that is committed; the published
    code fills up with other positions.
    """

    revises: ClassVar = True

    n: int = 2
    block_length: int | None = None

    def __post_init__(self):
        at_least_one(block_length=self.block_length)
        at_least_one(needed=True, n=self.n)

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        divides(self.block_length, max_new_tokens)

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = Progress(self.block_length or len(row.canvas), [0.0] * len(row.canvas))
            row.patience = LONGEST + len(row.canvas)

    def step(self, board: Board) -> list[Commit]:
        marginals = board.denoise(Fed([range(row.columns) for row in board.rows]))
        wanted = [range(len(row.prompt), len(row.prompt) + row.state.end) for row in board.rows]
        found = marginals.likeliest(wanted)
        return [
            self._revise(row, *zip(*mine, strict=True)) for row, mine in zip(board.rows, found, strict=True)
        ]

    def _revise(self, row: Row, ids: Sequence[int], confidence: Sequence[float]) -> Commit:
        """What a step commits and masks again. ids, confidence: of the canvas up to the block's end."""
        state, end = row.state, row.state.end
        change = [now - before for now, before in zip(confidence, state.before, strict=False)]
        state.before = [*confidence, *[-math.inf] * (len(row.canvas) - end)]
        state.spent += 1
        chosen = self._chosen(row, confidence)
        state.scores |= {k: confidence[k] for k in chosen}
        tokens = [ids[k] for k in chosen]
        open_ = sum(row.canvas[k] is None for k in range(end)) - len(chosen)
        if not open_:
            row.revisable = None if end == len(row.canvas) else 0
            state.end = min(end + (self.block_length or end), len(row.canvas))
            state.spent = 0
            return chosen, tokens
        back = self._masked_again(row, chosen, change)
        return [*chosen, *back], [*tokens, *[None] * len(back)]

    def _chosen(self, row: Row, confidence: Sequence[float]) -> list[int]:
        """The masks left of the block's end that are committed."""
        scores = row.state.scores.values()
        threshold = sum(scores) / len(scores) if scores else 1
        masks = [k for k in range(row.state.end) if row.canvas[k] is None]
        above = [k for k in masks if confidence[k] > threshold]
        return above if len(above) >= self.n else sorted(masks, key=lambda k: -confidence[k])[: self.n]

    def _masked_again(self, row: Row, chosen: list[int], change: list[float]) -> list[int]:
        """The committed positions whose confidence fell most, what was committed just now included."""
        most = max(self.n, len(chosen))
        count = min(max(self.n // 2, -(-most // 8)), most - 1)
        if row.state.spent > LONGEST:
            return []
        there = [k for k in range(row.state.end) if row.canvas[k] is not None or k in chosen]
        # A position that a block has just brought in has no step before.
        there = [k for k in there if math.isfinite(change[k])]
        return sorted(there, key=lambda k: change[k])[:count]
