"""Block diffusion: Unmasking on a block-causal model, one block after the other, with an exact cache.

A token sees the blocks up to its own, so keys and values of a finished block are exact: they are what
feeding everything would give. Where blocks are counted from is the model's (Layout.blocks_from); the first
one may hold the end of the prompt, the last one may be cut by max_new_tokens. It is D2F without a pipeline.

| published | settings |
|---|---|
| SDAR (arXiv 2510.06303) | static, dynamic, entropy_sum or rank=leftmost; store=separate, after_end=block |
| bd3lm of dllm (arXiv 2602.22661) | linear; store=separate, prefix=recomputed, after_end=block |
| LLaDA2.0 (arXiv 2512.15745) | dynamic; cache=none, after_end=block |
| Fast-dLLM v2 (arXiv 2509.26328) | dynamic, sub_block_length; store=separate, hand_over, cache=exact, block |

Not built: LLaDA2.1's edits, which write a committed token again; bd3lm's pads, which become invisible once
generated (where a pad is an end token, as in our presets, that matters under after_end=fill alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unmask.decoding.board import Board, Fed, Marginals
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one, one_of, true_or_false
from unmask.decoding.unmasking import Candidates, Progress, Unmasking
from unmask.models.layout import Layout


@dataclass
class BlockProgress(Progress):
    """stored: the forward that stores what stands left of the block has been done. storing: this step is that
    forward. filled: the block cache holds the block."""

    stored: bool = False
    storing: bool = False
    filled: bool = False


@dataclass(frozen=True)
class Blocks(Unmasking):
    """rank, quota, threshold, bound, factor, rank_tempered, temperature, top_p, top_k: see Unmasking.
    block_length: B, of the model.
    steps: T, forwards for a full canvas of one block after the other, ceil(T / ceil(n / B)) of them for each;
        None = one per token. steps_per_block: of a block, instead.
    sub_block_length: sub-blocks of a block are finished from the left; None = one.
    hand_over: the forward that stores a block commits the first token of the next one, which a model that
        looks back predicts there. It needs store=separate.
    cache: exact; none, everything is fed in every step, for the same ids; or block, Fast-dLLM v2's: a
        sub-block whose first token is committed is fed alone, and sees the block's other columns as they were
        last fed. An approximation: other tokens may come out.
    store: fused, a finished block is fed once more together with the next one, for the same ids; separate, in
        a forward of its own, which commits nothing (but see hand_over).
    prefix: kept, or recomputed: before each block all that stands left of it is fed again, for the same ids.
    after_end: none, decoding ends as soon as all left of an end token is committed; block, its block is
        finished (and stored, where a forward stores each), as published; fill, every slot is filled.
    """

    attention: ClassVar = "block_causal"
    block_origins: ClassVar = ("prompt", "column_0", "padded_prompt")
    after_ends: ClassVar = ("none", "block", "fill")
    caches: ClassVar = ("exact", "none", "block")

    block_length: int = 32
    quota: str = "static"
    cache: str = "exact"
    steps_per_block: int | None = None
    sub_block_length: int | None = None
    hand_over: bool = False
    store: str = "fused"
    prefix: str = "kept"

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, block_length=self.block_length)
        at_least_one(steps_per_block=self.steps_per_block, sub_block_length=self.sub_block_length)
        true_or_false(hand_over=self.hand_over)
        one_of(("fused", "separate"), store=self.store)
        one_of(("kept", "recomputed"), prefix=self.prefix)
        separate = self.store == "separate"
        if self.hand_over and not separate:
            raise ValueError("hand_over=true is done by the forward that stores a block: store=separate")
        if self.prefix == "recomputed" and (not separate or self.cache == "none"):
            raise ValueError("prefix=recomputed is a forward that fills a cache: store=separate, cache=exact")
        if separate and self.cache == "none" and not self.hand_over:
            raise ValueError("store=separate stores in a cache: not with cache=none")
        if self.steps is not None and self.steps_per_block is not None:
            raise ValueError(f"steps={self.steps} and steps_per_block={self.steps_per_block}: give one")
        if self.steps_per_block is not None and not self.scheduled:
            raise ValueError(
                f"steps_per_block={self.steps_per_block} is for schedules, not quota={self.quota}"
            )

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        self.check_threshold(vocabulary)

    def check_layout(self, layout: Layout) -> None:
        if self.hand_over and not layout.lookback:
            raise ValueError(
                f"hand_over=true is for models that predict the next token, and {layout.name} does not"
            )

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = BlockProgress(range(0), shift=board.shift("denoiser", row, self.block_length))
            row.fills = self.after_end == "fill"

    def step(self, board: Board) -> list[Commit]:
        commits = super().step(board)
        for row, (positions, _) in zip(board.rows, commits, strict=True):
            row.owes = self._stores_last and self._filled_by(row, positions)
        return commits

    @property
    def _stores_last(self) -> bool:
        """Whether a finished block is stored although no other follows."""
        each = self.store == "separate" and self.prefix == "kept" and self.cache != "none"
        return each and self.after_end != "none"

    def _filled_by(self, row: Row, positions) -> bool:
        """Whether a step that commits these positions finishes a block, and a whole one."""
        block = row.state.block
        masks = sum(row.canvas[p] is None for p in block)
        return 0 < masks == len(positions) and (block.stop + row.state.shift) % self.block_length == 0

    def _advance(self, row: Row) -> None:
        if row.prefix >= row.state.block.stop:
            row.state = BlockProgress(self._block(row), shift=row.state.shift)
        state = row.state
        if self.after_end == "block" and row.end is None:
            row.until = state.block.stop
        fills = self.cache != "none" and self._begin(row) > 0
        state.storing = self.store == "separate" and not state.stored and (fills or self._hands(row))
        state.stored = True
        state.spent += not state.storing

    def _begin(self, row: Row) -> int:
        """The first column of the block, which may be one of the prompt."""
        start = row.state.block.start
        return len(row.prompt) + (start or -row.state.shift)

    def _hands(self, row: Row) -> bool:
        """Whether the first token of the block comes from the one before it."""
        new = row.state.block and (row.state.block.start or not row.state.shift) and self._begin(row)
        return bool(self.hand_over and new and row.canvas[row.state.block.start] is None)

    def _candidates(self, board: Board, row: Row) -> Candidates:
        if not row.state.storing:
            return super()._candidates(board, row)
        hands, (generator,) = self._hands(row), self.generators([row], board.ids.device)
        return Candidates([min(row.state.block.start, len(row.canvas) - 1)], int(hands), hands, generator)

    def _masks(self, row: Row) -> list[int]:
        """Of the first sub-block that has any."""
        masks = super()._masks(row)
        return [p for p in masks if p < self._sub_block(row).stop]

    def _sub_block(self, row: Row) -> range:
        """The first sub-block that has masks, from the canvas' start: what is negative is of the prompt."""
        block, length = row.state.block, self.sub_block_length or self.block_length
        begin = self._begin(row) - len(row.prompt)
        begin += (row.prefix - begin) // length * length
        return range(begin, min(begin + length, block.stop))

    def _takes_one(self, board: Board, row: Row) -> bool:
        return False

    def _forward(self, board: Board) -> Marginals:
        # A token is predicted from the column before it (lookback), which the finished block has or has not
        # handed over.
        lookback = 0 if self.hand_over else board.models["denoiser"].lookback
        valid = board.valid("denoiser") if self.cache != "none" else [0] * len(board.rows)
        fed = [self._columns(row, start, lookback) for row, start in zip(board.rows, valid, strict=True)]
        ends = [
            columns.stop if row.state.storing else len(row.prompt) + row.state.block.stop
            for row, columns in zip(board.rows, fed, strict=True)
        ]
        return board.denoise(Fed(fed, self.block_length, ends), self.cache != "none", aligned=False)

    def _columns(self, row: Row, valid: int, lookback: int) -> range:
        """The columns that a step feeds; those before `valid` are kept."""
        prompt, state = len(row.prompt), row.state
        if state.storing:
            return range(0 if self.prefix == "recomputed" else valid, self._begin(row))
        sub = self._sub_block(row)
        begun = sub.start < 0 or row.canvas[sub.start] is not None
        if self.cache == "block" and state.filled and begun:
            return range(prompt + sub.start, prompt + sub.stop)
        state.filled = True
        return range(max(0, valid - lookback), prompt + state.block.stop)

    def steps_left(self, row: Row) -> tuple[int, int]:
        steps = self.steps_of_block(row)
        return steps, max(1, steps - row.state.spent + 1)

    def steps_of_block(self, row: Row) -> int:
        return self.steps_per_block or super().steps_of_block(row)
