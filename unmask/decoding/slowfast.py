"""SlowFast sampling (arXiv 2506.10848): explore how far the model is sure, then decode up to there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy
import torch

from unmask.decoding.board import Board, Fed, to_lists
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import (
    ALL,
    Sampling,
    at_least_one,
    divides,
    number,
    one_of,
    share,
    true_or_false,
)


@dataclass
class Cycle:
    """Where a row is. start, length: of its block, the positions that the cycle decodes fast.

    explored: slow forwards so far, of which `estimates` are the lengths. fast: fast ones.
    """

    block: range
    start: int = 0
    length: int = 0
    explored: int = 0
    estimates: list[int] = field(default_factory=list)
    fixed: bool = False
    fast: int = 0

    @property
    def stretch(self) -> range:
        """The canvas positions that the cycle decodes fast."""
        return self.block[self.start : self.length]


def masks_in(row: Row, positions: Sequence[int]) -> list[int]:
    return [p for p in positions if row.canvas[p] is None]


@dataclass(frozen=True)
class SlowFast(Sampling, Decoder):
    """Blocks from the left, each in cycles of two phases.

    Slow: `exploration_steps` forwards over everything. Each commits masks of the block from the cycle's start
    on, and estimates its length: up to the last mask that is at least `cycle_confidence` sure. The length is
    the last estimate, as soon as the standard deviation of the last `window` ones is below `std_dev`; else,
    at the end, their mean, rounded down. Fast: forwards until all up to that length is committed; what stands
    right of it is fed in the first one and no more. The next cycle starts there.

    A forward commits all masks of its phase that are at least `high_confidence` sure if they are two or more,
    else the surest one. Sure is the model's own probability of the drawn token.

    whole_exploration: as published, a block that is finished while it is explored gets the rest of its slow
        forwards; they commit nothing.
    block_length: None = one block; it must divide max_new_tokens. after_end: none, decoding ends as soon as
        all left of an end token is committed; fill, it goes on until every slot is filled, as published.
    temperature, top_p, top_k: see Sampling.
    """

    sampling: ClassVar = ALL
    block_length: int | None = None
    exploration_steps: int = 6
    cycle_confidence: float = 0.3
    window: int = 2
    std_dev: float = 1.0
    high_confidence: float = 0.9
    whole_exploration: bool = False
    after_end: str = "none"

    def __post_init__(self):
        super().__post_init__()
        at_least_one(block_length=self.block_length)
        at_least_one(needed=True, exploration_steps=self.exploration_steps, window=self.window)
        share(cycle_confidence=self.cycle_confidence, high_confidence=self.high_confidence)
        if not number(self.std_dev) or not self.std_dev >= 0:
            raise ValueError(f"std_dev={self.std_dev!r} must be a number of positions, 0 or more")
        if self.window > self.exploration_steps:
            raise ValueError(
                f"window={self.window} and exploration_steps={self.exploration_steps}: there is an estimate "
                "a step, so the window can be no longer"
            )
        true_or_false(whole_exploration=self.whole_exploration)
        one_of(("none", "fill"), after_end=self.after_end)

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        divides(self.block_length, max_new_tokens)

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = Cycle(range(self.block_length or len(row.canvas)))
            row.patience = len(row.canvas) + self.exploration_steps
            row.fills = self.after_end == "fill"

    def step(self, board: Board) -> list[Commit]:
        for row in board.rows:
            self._advance(row)
        masks = [self._masks(row) for row in board.rows]
        columns = [
            [len(row.prompt) + p for p in mine or row.state.block[:1]]
            for row, mine in zip(board.rows, masks, strict=True)
        ]
        logits = board.denoise(Fed([self._fed(row) for row in board.rows])).logits(columns)
        counts = list(map(len, columns))
        generators = self.generators(board.rows, board.ids.device)
        _, ids = self.draw(logits, generators, counts)
        likely = logits.softmax(-1).gather(-1, ids[..., None])[..., 0]
        behind = (
            torch.arange(ids.size(1), device=ids.device) >= board.tensor(list(map(len, columns)))[:, None]
        )
        likely = likely.masked_fill(behind, -1)  # padding
        surest = likely.sort(dim=1, descending=True, stable=True).indices[:, 0]  # the leftmost of equal ones
        found = to_lists(ids, likely >= self.high_confidence, likely >= self.cycle_confidence, surest)
        return [
            self._commit(row, mine, *theirs)
            for row, mine, *theirs in zip(board.rows, masks, *found, strict=True)
        ]

    def _advance(self, row: Row) -> None:
        """To the phase, the cycle and the block of the next forward."""
        state = row.state
        exploring = 0 < state.explored < self.exploration_steps
        if not masks_in(row, state.block) and not (exploring and self.whole_exploration):
            begin = state.block.stop
            state = row.state = Cycle(range(begin, begin + len(state.block)))
        elif state.explored == self.exploration_steps and not masks_in(row, state.stretch):
            state = row.state = Cycle(state.block, start=state.length)
        if state.explored < self.exploration_steps:
            state.explored += 1
        else:
            state.fast += 1

    def _masks(self, row: Row) -> list[int]:
        """Those that the phase may commit."""
        state = row.state
        return masks_in(row, state.stretch if state.fast else state.block[state.start :])

    def _fed(self, row: Row) -> range:
        state = row.state
        end = state.block.start + state.length if state.fast > 1 else len(row.canvas)
        return range(len(row.prompt) + end)

    def _commit(
        self, row: Row, masks: list[int], ids: list[int], high: list[int], cycle: list[int], surest: int
    ) -> Commit:
        """What a row commits; and in the slow phase, its estimate."""
        state = row.state
        sure = [k for k in range(len(masks)) if high[k]]
        chosen = sure if len(sure) > 1 else [surest][: len(masks)]
        if not state.fast:
            self._estimate(state, [p for p, reaches in zip(masks, cycle, strict=False) if reaches])
            finished = len(masks_in(row, state.block)) == len(chosen)
            more = self.whole_exploration and state.explored < self.exploration_steps
            row.owes = row.fills and finished and more
        return [masks[k] for k in chosen], [ids[k] for k in chosen]

    def _estimate(self, state: Cycle, sure: Sequence[int]) -> None:
        """The cycle's length after a slow forward. sure: masks that it may reach to."""
        reach = sure[-1] - state.block.start + 1 if sure else state.start + 1
        state.estimates.append(min(max(reach, 1), len(state.block)))
        recent = state.estimates[-self.window :]
        if state.fixed or len(recent) < self.window:
            return
        state.fixed = bool(numpy.std(recent) < self.std_dev)
        state.length = recent[-1] if state.fixed else int(numpy.mean(recent))
