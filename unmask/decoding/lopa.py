"""LoPA (arXiv 2512.16229): D2F that looks one token ahead in several branches and goes on with the surest.

A round feeds every branch of a row in one forward. The anchor is what D2F would have committed; every other
branch holds one token more. The branch whose masks are surest wins: its token is committed, and what D2F
would commit by its predictions. The keys and values of finished blocks are kept as the winner had them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Marginals, Queries
from unmask.decoding.pipeline import D2F, FALLBACKS, Blocks
from unmask.decoding.ranks import RANKS
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, one_of, share
from unmask.decoding.visibility import block_causal, branches

SURE = 1.0  # the mean rank of a branch without masks; what the anchor was opened with


@dataclass
class Branch:
    """A version of a row: what Pipeline's rules read of a row, as if the token ahead were committed.

    full: of its blocks. ahead: canvas position and token beyond the anchor's; None for the anchor. opened:
    the rank that this token had when the branch was made.
    """

    full: list[bool]
    ahead: tuple[int, int] | None = None
    opened: float = SURE
    canvas: list[int | None] = field(default_factory=list)
    length: int = 0
    state: Blocks | None = None

    def renew(self, row: Row) -> None:
        """Stand on what the row has committed by now."""
        self.canvas, self.length = list(row.canvas), row.length
        self.state = Blocks(self.full, shift=row.state.shift)
        if self.ahead:
            self.canvas[self.ahead[0]] = self.ahead[1]


@dataclass
class Branches(Blocks):
    """A row's blocks as the last winner had them; its branches, the anchor last; the logits that the last
    cached column gave (a model that looks back predicts the next column by them)."""

    branches: list[Branch] = field(default_factory=list)
    edge: Tensor | None = None


@dataclass
class Round:
    """What a row is fed in a step: the columns of each branch, and its masks."""

    fed: list[range]
    masks: list[list[int]]

    def start(self, branch: int) -> int:
        """The first query of a branch."""
        return sum(map(len, self.fed[:branch]))


@dataclass(frozen=True)
class LoPA(D2F):
    """branches: k, look-ahead branches beside the anchor; 1 is none, which is D2F (as in the published code).
    branch_topp: the share of a branch's masks, the least sure ones, whose mean rank is its score.
    alpha: the weight, against that mean, of the rank that its token ahead had.
    visible: full, everything fed sees everything (the released default, on models trained block-causally,
        with a cache that goes stale), or block_causal.
    fallback: the rank, and D2F's: neg_entropy, margin, or default, the likeliest token's probability.
    block_length, block_add_threshold, decoded_token_threshold, skip_threshold, after_end: see D2F.

    Greedy. A round is one step and one forward, and feeds the positions of all branches.
    """

    sampling: ClassVar = ()

    fallback: str = "neg_entropy"
    branches: int = 3
    branch_topp: float = 1.0
    alpha: float = 0.0
    visible: str = "full"

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, branches=self.branches)
        share(branch_topp=self.branch_topp, alpha=self.alpha)
        one_of(("full", "block_causal"), visible=self.visible)
        if self.cache != "exact":
            raise ValueError(f"cache={self.cache!r}: LoPA keeps what the winners fed, cache=exact")

    def begin(self, board: Board) -> None:
        super().begin(board)
        for row in board.rows:
            row.state = Branches([], shift=row.state.shift, branches=[Branch([])])

    def step(self, board: Board) -> list[Commit]:
        valid = board.valid("denoiser")
        rounds = [self._round(board, row, start) for row, start in zip(board.rows, valid, strict=True)]
        marginals = board.denoise(self._queries(board, rounds), cached=True)
        logits = self._logits(board, marginals, rounds)
        likely, ids = logits.softmax(-1).max(-1)
        ranks = likely if self.fallback == "default" else RANKS[FALLBACKS[self.fallback]](logits, ids)
        judged = torch.stack((likely, ids.float(), ranks)).tolist()  # one transfer a step
        commits = []
        for i, (row, what, *mine) in enumerate(zip(board.rows, rounds, *judged, strict=True)):
            winner = self._winner(row, what, mine[2])
            self._keep(board, i, valid[i], winner, what, marginals)
            begin = sum(map(len, what.masks[:winner]))
            mine = [part[begin : begin + len(what.masks[winner])] for part in mine]
            commits.append(self._fill(board, row, row.state.branches[winner], what.masks[winner], *mine))
        return commits

    def _round(self, board: Board, row: Row, start: int) -> Round:
        """Let every branch append a block, and say what is fed."""
        what = Round([], [])
        for branch in row.state.branches:
            branch.renew(row)
            if branch.ahead and branch.ahead[1] in board.stop.ids:
                branch.length = self._begun(branch)
            self._advance(branch)
            begun = self._begun(branch)
            what.fed.append(range(start, len(row.prompt) + begun))
            what.masks.append(self._masks(branch, range(begun)))
        return what

    def _queries(self, board: Board, rounds: list[Round]) -> Queries:
        """All branches of every row, side by side."""
        columns, ids, among = [], [], []
        for row, line, what in zip(board.rows, board.ids, rounds, strict=True):
            columns.append([column for fed in what.fed for column in fed])
            versions = []
            for branch, fed in zip(row.state.branches, what.fed, strict=True):
                versions.append(line[fed.start : fed.stop].clone())
                if branch.ahead:
                    versions[-1][len(row.prompt) + branch.ahead[0] - fed.start] = branch.ahead[1]
            ids.append(torch.cat(versions))
            sees = branches(list(map(len, what.fed)))
            if self.visible == "block_causal":
                at = torch.tensor([columns[-1]])
                origin = torch.tensor([board.origin("denoiser", row, self.block_length)])
                sees &= at < block_causal(at, origin, self.block_length)[0, :, None]
            among.append(sees)
        kept = [[range(what.fed[0].start)] for what in rounds]
        return Queries(columns, ids, among, kept)

    def _logits(self, board: Board, marginals: Marginals, rounds: list[Round]) -> Tensor:
        """Of all masks of all branches, (rows, k, V)."""
        lookback = board.models["denoiser"].lookback
        wanted, edges = [], []
        for i, (row, what) in enumerate(zip(board.rows, rounds, strict=True)):
            mine = []
            for branch, (fed, masks) in enumerate(zip(what.fed, what.masks, strict=True)):
                for p in masks:
                    query = len(row.prompt) + p - fed.start - lookback
                    if query < 0:  # the column that predicts it is cached
                        edges.append((i, len(mine)))
                    mine.append(what.start(branch) + max(0, query))
            wanted.append(mine or [0])
        logits = marginals.logits(wanted)
        for i, k in edges:
            logits[i, k] = board.rows[i].state.edge
        return logits

    def _winner(self, row: Row, what: Round, ranks: list[float]) -> int:
        """The branch of the highest score, the first one of equals."""
        scores, begin = [], 0
        for branch, masks in zip(row.state.branches, what.masks, strict=True):
            mine = sorted(ranks[begin : begin + len(masks)])
            begin += len(masks)
            least = mine[: max(1, int(len(mine) * self.branch_topp))]
            mean = sum(least) / len(least) if least else SURE
            scores.append(self.alpha * branch.opened + (1 - self.alpha) * mean)
        return scores.index(max(scores))

    def _keep(self, board: Board, i: int, start: int, winner: int, what: Round, marginals: Marginals) -> None:
        """Keep the winner's keys and values of the prompt and of the blocks that the anchor has finished."""
        row, shift = board.rows[i], board.rows[i].state.shift
        finished = max(0, (row.prefix + shift) // self.block_length * self.block_length - shift)
        columns = range(start, len(row.prompt) + finished)
        if not columns:
            return
        first = what.start(winner)
        board.adopt("denoiser", i, range(first, first + len(columns)), columns)
        if board.models["denoiser"].lookback:
            row.state.edge = marginals.logits([[first + len(columns) - 1]], only=[i])[0, 0].clone()

    def _fill(
        self,
        board: Board,
        row: Row,
        winner: Branch,
        masks: list[int],
        likely: Sequence[float],
        ids: Sequence[float],
        ranks: Sequence[float],
    ) -> Commit:
        """Commit the winner's token ahead and what D2F would by its predictions, and make its children."""
        order = sorted(range(len(masks)), key=lambda k: -ranks[k])
        sure = [k for k in range(len(masks)) if likely[k] > self.skip_threshold]
        chosen = self._choose(board, winner, masks, sure, order)
        positions, tokens = [masks[k] for k in chosen], [int(ids[k]) for k in chosen]
        if winner.ahead:
            positions, tokens = [*positions, winner.ahead[0]], [*tokens, winner.ahead[1]]
        row.state.full = winner.full
        commit = self._end(board, row, (positions, tokens))
        begun, full = self._begun(row), row.state.full
        ahead = [k for k in order if k not in chosen and masks[k] < begun]
        ahead = ahead[: self.branches] if self.branches > 1 else []
        row.state.branches = [Branch(list(full), (masks[k], int(ids[k])), ranks[k]) for k in ahead]
        row.state.branches.append(Branch(list(full)))
        return commit
