"""FreeDave (arXiv 2510.00294): the next steps are drafted from the last one's predictions, and one forward
verifies all of them: lossless against the same decoder without drafts.

Draft j holds what j ordinary steps would write if the predictions did not change. A forward runs over all
drafts as branches of the row; a draft is right if an ordinary step from an earlier right one writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.decoding.board import Board, Fed, Queries
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, divides, one_of, share
from unmask.decoding.unmasking import Unmasking
from unmask.decoding.visibility import branches

Guesses = dict[int, tuple[int, float]]  # canvas position -> its likeliest token, and how likely that is


@dataclass
class Progress:
    """block: at work. guesses: of its masks; None before the block's first forward. late: that forward did
    not see the token that it committed, so the guesses are not those of an ordinary step."""

    block: range
    guesses: Guesses | None = None
    late: bool = False


@dataclass(frozen=True)
class FreeDave(Decoder):
    """draft_steps: the most drafts that a forward verifies; each feeds the block once (under cache=prefix,
        all right of it too).
    threshold: None, an ordinary step writes the surest mask; else all that are at least as sure, at least
        one, and then ids may differ from those without drafts: it is not lossless.
    cache: dual or prefix, as in Unmasking; block_length: B, which must divide max_new_tokens.
    after_end: none, decoding ends as soon as all left of an end token is committed; fill, the canvas is
        filled.

    Every block begins with a forward over everything, which fills the cache. In a model that looks back
    (Dream) it commits the block's first token. The last mask of a block needs no forward of its own.
    """

    draft_steps: int = 4
    threshold: float | None = None
    cache: str = "dual"
    block_length: int | None = 32
    after_end: str = "none"

    def __post_init__(self):
        at_least_one(block_length=self.block_length)
        at_least_one(needed=True, draft_steps=self.draft_steps)
        if self.threshold is not None:
            share(threshold=self.threshold)
        one_of(("dual", "prefix"), cache=self.cache)
        one_of(("none", "fill"), after_end=self.after_end)

    @property
    def lossless(self) -> bool:
        return self.threshold is None

    @property
    def baseline(self) -> Decoder:
        return Unmasking(block_length=self.block_length, cache=self.cache, after_end=self.after_end)

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        divides(self.block_length, max_new_tokens)

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = Progress(range(self.block_length or len(row.canvas)))
            row.fills = self.after_end == "fill"

    def step(self, board: Board) -> list[Commit]:
        for row in board.rows:
            if row.prefix >= row.state.block.stop:
                row.state = Progress(range(row.prefix, row.prefix + len(row.state.block)))
        commits: list[Commit] = [([], [])] * len(board.rows)
        begun = [i for i, row in enumerate(board.rows) if row.state.guesses is not None]
        new = [i for i, row in enumerate(board.rows) if row.state.guesses is None]
        for only, work in ((new, self._begin_blocks), (begun, self._verify)):
            for i, commit in zip(only, work(board, only) if only else (), strict=True):
                commits[i] = commit
        return commits

    # A block's first forward

    def _begin_blocks(self, board: Board, only: list[int]) -> list[Commit]:
        rows = [board.rows[i] for i in only]
        marginals = board.denoise(Fed([range(row.columns) for row in rows], only=only), cached=True)
        wanted = [[len(row.prompt) + p for p in row.state.block] for row in rows]
        looks_back = bool(board.models["denoiser"].lookback)
        return [
            self._begin_block(row, dict(zip(row.state.block, guesses, strict=True)), looks_back)
            for row, guesses in zip(rows, marginals.likeliest(wanted), strict=True)
        ]

    def _begin_block(self, row: Row, guesses: Guesses, looks_back: bool) -> Commit:
        state, first = row.state, []
        if looks_back:
            first = [state.block.start]
        tokens = [guesses.pop(p)[0] for p in first]
        state.guesses, state.late = guesses, looks_back
        return self._last(row, first, tokens)

    # Its other forwards

    def _verify(self, board: Board, only: list[int]) -> list[Commit]:
        rows = [board.rows[i] for i in only]
        drafts = [self._drafts(row) for row in rows]
        queries, wanted = self._queries(board, only, drafts)
        found = board.denoise(queries, cached=True).likeliest(wanted)
        return [self._accept(row, *mine) for row, *mine in zip(rows, drafts, found, strict=True)]

    def _drafts(self, row: Row) -> list[list[int]]:
        """The masks that each draft fills, the surest first; each draft continues the one before it."""
        guesses = row.state.guesses
        ranked = sorted(guesses, key=lambda p: -guesses[p][1])
        if row.state.late:
            return [ranked[:n] for n in range(min(self.draft_steps, len(ranked)))]
        first = len(self._ordinary(guesses))
        return [ranked[:n] for n in range(first, min(first + self.draft_steps, len(ranked) + 1))]

    def _ordinary(self, guesses: Guesses) -> list[int]:
        """The masks that an ordinary step writes."""
        least = 2 if self.threshold is None else self.threshold
        sure = [p for p, (_, likely) in guesses.items() if likely >= least]
        return sure or [max(guesses, key=lambda p: guesses[p][1])]

    def _queries(self, board: Board, only: list[int], drafts: list) -> tuple[Queries, list[list[int]]]:
        """All drafts of each row, and the queries that predict the block's masks in each of them."""
        lookback = board.models["denoiser"].lookback
        columns, ids, among, kept, wanted = [], [], [], [], []
        for i, mine in zip(only, drafts, strict=True):
            row, prompt = board.rows[i], len(board.rows[i].prompt)
            block = row.state.block
            stop = row.columns if self.cache == "prefix" else prompt + block.stop
            fed = range(prompt + block.start, stop)
            versions = board.ids[i, fed.start : fed.stop].repeat(len(mine), 1)
            written = [(j, p - block.start, row.state.guesses[p][0]) for j, d in enumerate(mine) for p in d]
            if written:
                j, p, tokens = board.tensor(written).T
                versions[j, p] = tokens
            columns.append([*fed] * len(mine))
            ids.append(versions.flatten())
            among.append(branches([len(fed)] * len(mine)))
            kept.append([range(fed.start), range(fed.stop, row.columns)])
            masks = [p - block.start - lookback for p in row.state.guesses]
            wanted.append([j * len(fed) + p for j in range(len(mine)) for p in masks])
        return Queries(columns, ids, among, kept, only), wanted

    def _accept(self, row: Row, drafts: list[list[int]], found: list[tuple[int, float]]) -> Commit:
        """found: of every draft, the guesses of all the block's masks."""
        before, masks = row.state.guesses, list(row.state.guesses)
        after = []  # each draft's guesses of what it leaves open
        for j, draft in enumerate(drafts):
            mine = dict(zip(masks, found[j * len(masks) :], strict=False))
            after.append({p: guess for p, guess in mine.items() if p not in draft})
        at = 0
        while at is not None:
            accepted, at = at, self._next(drafts, before, after, at)
        self.note(row, drafts, accepted)
        taken = drafts[accepted]
        row.state.guesses, row.state.late = after[accepted], False
        return self._last(row, taken, [before[p][0] for p in taken])

    def _next(self, drafts: list, before: Guesses, after: list[Guesses], at: int) -> int | None:
        """The longest draft that an ordinary step from draft `at` writes; None where it writes no other."""
        guesses = after[at]
        writes = {p: guesses[p][0] for p in self._ordinary(guesses)} if guesses else {}
        right = [
            j
            for j in range(at + 1, len(drafts))
            if all(writes.get(p) == before[p][0] for p in drafts[j][len(drafts[at]) :])
        ]
        return max(right, default=None)

    def note(self, row: Row, drafts: list[list[int]], accepted: int) -> None:
        """Note on the row what was drafted, and how much of it accepted."""
        guesses = row.state.guesses
        row.drafted = [guesses[p][0] for p in drafts[-1]]
        row.accepted = len(drafts[accepted])

    def _last(self, row: Row, positions: Sequence[int], tokens: list[int]) -> Commit:
        """What is committed, and with it the block's last mask, whose token is known."""
        state = row.state
        if len(state.guesses) == 1 and not state.late:
            ((position, (token, _)),) = state.guesses.items()
            return [*positions, position], [*tokens, token]
        return positions, tokens
