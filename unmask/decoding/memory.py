"""Unmasking with a memory: what earlier steps predicted for the masks of a block weighs in the choice.

Both keep one float32 number per block position and id, allocated once. The block's last forward is forgotten
with the block, but for what KLASS carries over its border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Marginals, padded
from unmask.decoding.quotas import Limit, Ranked, due
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, number, one_of
from unmask.decoding.unmasking import Candidates, Progress, Unmasking

SMALL = 1e-12  # is added to probabilities in KLASS's logarithms


@dataclass
class Memory(Progress):
    """seen: (B, V), of the block's positions: credits, or the last step's probabilities.
    drift: (B,), the last step's KL divergences. calm: (B,), how many steps on end they have been small.
    """

    seen: Tensor | None = None
    drift: Tensor | None = None
    calm: Tensor | None = None


class Remembering(Unmasking):
    """Rows have a Memory for their state."""

    def begin(self, board: Board) -> None:
        super().begin(board)
        for row in board.rows:
            row.state = Memory(row.state.block)

    def _enter(self, row: Row) -> Memory:
        return replace(row.state, block=self._block(row), spent=0)

    def _weigh(self, board: Board, part: range, rows: list[Candidates], logits: Tensor) -> Tensor:
        """Row by row, each with the indices of its candidates in its block."""
        weighed = logits.clone()
        for i, mine, ours, theirs in zip(part, rows, weighed, logits, strict=True):
            state, count = board.rows[i].state, len(mine.positions)
            if state.seen is None:
                state.seen = logits.new_zeros(len(state.block), logits.size(-1))
                state.drift, state.calm = state.seen.new_zeros(2, len(state.block))
            at = board.tensor([p - state.block.start for p in mine.positions])
            ours[:count] = self._remember(state, at, theirs[:count])
        return weighed

    def _remember(self, state: Memory, at: Tensor, logits: Tensor) -> Tensor:
        """Take note of a row's logits (k, V) at the block's positions `at` (k,).

        Returns those to decide by.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Credit(Remembering):
    """CreditDecoding (arXiv 2510.06133), as in dInfer: what was predicted before raises its logit.

    In every step the credits of a block are multiplied by `beta`, and every mask gives its likeliest token
    p ** `gamma` more, p being its probability; the step decides by logits + `alpha` * log(1 + credits).
    `alpha` = 0 is the quota alone.
    """

    quota: str = "near_ties"
    threshold: float | None = 0.9
    alpha: float = 0.7
    beta: float = 0.8
    gamma: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        for name in ("alpha", "beta", "gamma"):
            if not number(value := getattr(self, name)) or not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r} must be a number, 0 or more")

    def _enter(self, row: Row) -> Memory:
        if row.state.seen is not None:
            row.state.seen.zero_()
        return super()._enter(row)

    def _remember(self, state, at, logits):
        best, ids = logits.softmax(-1).max(-1)
        state.seen.mul_(self.beta)
        state.seen[at, ids] += best**self.gamma
        return logits + self.alpha * state.seen[at].log1p()


def stable(klass: Klass, ranked: Ranked) -> Tensor:
    """The masks that are sure and calm; where none is, those that the static schedule would commit."""
    columns = padded(
        [p - row.state.block.start for p in mine.positions]
        for row, mine in zip(ranked.board.rows, ranked.candidates, strict=True)
    )
    at = ranked.board.tensor(columns)
    drift, calm = (
        torch.stack([getattr(row.state, name)[mine] for row, mine in zip(ranked.board.rows, at, strict=True)])
        for name in ("drift", "calm")
    )
    ready = (ranked.values > klass.least(klass.threshold)) & ~ranked.padding
    ready &= calm.gather(1, ranked.order) >= klass.history_length
    if klass.unmask_strategy == "max_conf":
        ready &= ready.cumsum(-1) == 1
    elif klass.unmask_strategy == "min_kl":
        drift = drift.gather(1, ranked.order).masked_fill(~ready, torch.inf)
        ready &= ranked.nth - 1 == drift.argmin(-1, keepdim=True)
    return ready | (~ready.any(-1, keepdim=True) & due(klass, ranked))


@dataclass(frozen=True)
class Klass(Remembering):
    """KLASS (arXiv 2511.05664): commit what is sure and has not moved for a while.

    A mask is ready if its token is likelier than `threshold` and the KL divergences of its distribution from
    the step before were all below `kl_threshold` nats in the last `history_length` steps of the block. Before
    the first step it had no distribution (p = 0: about 27 nats); a later block's first step is compared with
    the last forward of the block before.
    unmask_strategy: of the ready ones a step commits all, the surest (max_conf), or the one that moved least
        (min_kl). Where none is ready: the surest, as many as the static schedule of `steps` says.
    """

    quota: str = "stable"
    threshold: float | None = 0.9
    kl_threshold: float = 0.01
    history_length: int = 2
    unmask_strategy: str = "all"
    caches: ClassVar = ("none",)  # the next block's first step is compared with this block's last
    quotas: ClassVar = ("stable",)
    limits: ClassVar = {
        "stable": Limit(
            stable,
            ("threshold",),
            scattered=True,
            rank="confidence",
            why="is about probabilities",
            scheduled=True,
        )
    }

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, history_length=self.history_length)
        if not number(self.kl_threshold) or not 0 <= self.kl_threshold < math.inf:
            raise ValueError(f"kl_threshold={self.kl_threshold!r} must be a number, 0 or more")
        one_of(("all", "max_conf", "min_kl"), unmask_strategy=self.unmask_strategy)

    def _remember(self, state, at, logits):
        now = logits.softmax(-1)
        state.drift[at] = (now * ((now + SMALL).log() - (state.seen[at] + SMALL).log())).sum(-1)
        state.calm[at] = (state.calm[at] + 1) * (state.drift[at] < self.kl_threshold)
        state.seen[at] = now
        return logits

    def _decide(self, board: Board, rows: list[Candidates], marginals: Marginals) -> list[Commit]:
        """As ever; a row that finishes its block keeps the probabilities of the next one."""
        commits = super()._decide(board, rows, marginals)
        for i, (row, mine, (positions, _)) in enumerate(zip(board.rows, rows, commits, strict=True)):
            state = row.state
            following = range(state.block.stop, min(state.block.stop + len(state.block), len(row.canvas)))
            if following and len(positions) == len(mine.positions):
                state.seen[:] = self._logits(board, marginals, [following], [i])[0].softmax(-1)
                state.calm.zero_()
        return commits
