"""Prophet (arXiv 2508.19982): once the answer is clear enough, commit all that is left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from unmask.decoding.board import Board, Marginals
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import number, true_or_false
from unmask.decoding.unmasking import Candidates, Unmasking

WINDOW = 5  # positions of the answer that are watched
PHASES = (0.33, 0.67)  # shares of the steps at which the limit changes


@dataclass(frozen=True)
class Prophet(Unmasking):
    """A schedule that ends early.

    After every forward, and before it commits: the mean lead of the largest logit over the second one, at the
    five canvas positions from `answer_start` on, committed ones included. If it is at least `early` (in the
    first 33% of the steps), `mid` (in the first 67%) or `late`, every mask of the canvas gets its token of
    this forward. The leads are of logits, so the limits belong to one model.

    answer_start: None never ends early. constraints: [positions, ids] of the canvas that are written before
        the first forward; they are counted with the first step.
    empty_steps: as published, a block that holds constraints gets the steps of a whole one, and the last of
        them commit nothing.
    """

    answer_start: int | None = None
    early: float = 7.5
    mid: float = 5.0
    late: float = 2.5
    constraints: list | None = None
    empty_steps: bool = False
    caches: ClassVar = ("none",)  # the answer must be fed in every step
    quotas: ClassVar = ("even", "dream")

    def __post_init__(self):
        super().__post_init__()
        for name in ("early", "mid", "late"):
            if not number(value := getattr(self, name)) or not math.isfinite(value):
                raise ValueError(f"{name}={value!r} must be a number: a difference of logits")
        start = self.answer_start
        if start is not None and (type(start) is not int or start < 0):
            raise ValueError(f"answer_start={start!r} must be a canvas position, 0 or more, or null")
        true_or_false(empty_steps=self.empty_steps)
        if self.constraints is not None:
            pair = self.constraints
            sound = isinstance(pair, list | tuple) and len(pair) == 2
            sound = sound and all(isinstance(part, list | tuple) and part for part in pair)
            sound = sound and all(type(n) is int and n >= 0 for part in pair for n in part)
            if not sound or len(set(pair[0])) < len(pair[0]) or len(pair[0]) != len(pair[1]):
                raise ValueError(
                    f"constraints={pair!r} must be two lists of whole numbers: canvas positions, none of "
                    "them twice, and as many ids"
                )

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        super().check(max_new_tokens, vocabulary)
        positions, ids = self.constraints or ((), ())
        if len(positions) >= max_new_tokens:
            raise ValueError(f"constraints={self.constraints} fill max_new_tokens={max_new_tokens}")
        for name, position in [("answer_start", self.answer_start), *(("constraints", p) for p in positions)]:
            if position is not None and position >= max_new_tokens:
                raise ValueError(f"{name}: {position} lies outside of max_new_tokens={max_new_tokens}")
        if vocabulary is not None and any(token >= vocabulary for token in ids):
            raise ValueError(f"constraints: {max(ids)} is no id of a vocabulary of {vocabulary}")

    def begin(self, board: Board) -> None:
        super().begin(board)
        for i, row in enumerate(board.rows):
            for position, token in zip(*(self.constraints or ((), ())), strict=True):
                row.canvas[position] = token
                board.ids[i, len(row.prompt) + position] = token
            row.prefix = row.canvas.index(None)
            row.state.block = self._block(row)

    def _advance(self, row: Row) -> None:
        if self._owes(row):
            row.state.spent += 1
        else:
            super()._advance(row)

    def _owes(self, row: Row) -> bool:
        """Whether its block has steps left that may commit nothing."""
        return self.empty_steps and row.state.spent < self.steps_left(row)[0]

    def _candidates(self, board: Board, row: Row) -> Candidates:
        if self._masks(row):
            return super()._candidates(board, row)
        (generator,) = self.generators([row], board.ids.device)
        return Candidates([row.state.block.start], 0, False, generator)

    def _decide(self, board: Board, rows: list[Candidates], marginals: Marginals) -> list[Commit]:
        commits = super()._decide(board, rows, marginals)
        leaving = self._leaving(board, marginals)
        if leaving:
            masks = [[p for p, t in enumerate(board.rows[i].canvas) if t is None] for i in leaving]
            logits = self._logits(board, marginals, masks, leaving)
            every = [
                Candidates(mine, len(mine), False, rows[i].generator)
                for i, mine in zip(leaving, masks, strict=True)
            ]
            tokens = self._draw(every, logits)[1].tolist()
            for i, mine, ids in zip(leaving, masks, tokens, strict=True):
                commits[i] = mine, ids[: len(mine)]
        for i, row in enumerate(board.rows):
            row.owes = row.fills and self._owes(row) and i not in leaving
            if row.step == 0 and self.constraints:
                commits[i] = [
                    [*given, *mine] for given, mine in zip(self.constraints, commits[i], strict=True)
                ]
        return commits

    def _leaving(self, board: Board, marginals: Marginals) -> list[int]:
        """The rows whose answer is clear enough, as indices."""
        if self.answer_start is None:
            return []
        ends = [min(self.answer_start + WINDOW, len(row.canvas)) for row in board.rows]
        logits = self._logits(board, marginals, [range(self.answer_start, end) for end in ends])
        first, second = logits.topk(2, dim=-1).values.unbind(-1)
        gaps = (first - second).mean(-1).tolist()
        return [i for i, row in enumerate(board.rows) if gaps[i] >= self._limit(row)]

    def _limit(self, row: Row) -> float:
        done = (row.step + 1) / (self.steps or len(row.canvas))
        return self.early if done < PHASES[0] else self.mid if done < PHASES[1] else self.late
