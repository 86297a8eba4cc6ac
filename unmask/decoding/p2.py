"""P2, path planning (arXiv 2502.03540), as Open-dCoder decodes: every step keeps the surest positions of the
whole canvas, a fixed number of them, and masks the others again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy

from unmask.decoding.board import Board, Fed, to_lists
from unmask.decoding.decoder import Decoder
from unmask.decoding.ranks import confidence
from unmask.decoding.row import Commit
from unmask.decoding.sampling import ALL, Sampling, at_least_one


@dataclass(frozen=True)
class P2(Sampling, Decoder):
    """steps: T; after step i the share 1 - i / T of the canvas is masked. None = one for each token.
    temperature, top_p, top_k: see Sampling; they count in a token's confidence, too, as published.

    A committed token is kept as long as its position is sure: judged by the token that is drawn there now,
    which need not be it. Nothing is settled before the end.
    """

    revises: ClassVar = True
    sampling: ClassVar = ALL

    steps: int | None = None

    def __post_init__(self):
        super().__post_init__()
        at_least_one(steps=self.steps)

    def step(self, board: Board) -> list[Commit]:
        marginals = board.denoise(Fed([range(row.columns) for row in board.rows]))
        logits = marginals.logits([range(len(row.prompt), row.columns) for row in board.rows])
        generators = self.generators(board.rows, board.ids.device)
        scores, ids = self.draw(logits, generators, [len(row.canvas) for row in board.rows])
        order = confidence(scores, ids).argsort(stable=True)
        commits = []
        for row, least, tokens in zip(board.rows, *to_lists(order, ids), strict=True):
            masked = self._masked(len(row.canvas), row.step + 1)
            doubted = set(least[:masked])
            back = [p for p in sorted(doubted) if row.canvas[p] is not None]
            new = [p for p, known in enumerate(row.canvas) if known is None and p not in doubted]
            row.revisable = 0 if masked else None
            commits.append(([*new, *back], [*(tokens[p] for p in new), *[None] * len(back)]))
        return commits

    def _masked(self, canvas: int, step: int) -> int:
        """How many positions are masked after a step, counted from 1: a product in float32, as published."""
        steps = self.steps or canvas
        return int(numpy.float32(canvas) * numpy.float32(1 - step / steps))
