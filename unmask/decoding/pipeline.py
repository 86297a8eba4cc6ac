"""Several blocks at work at once, from the left: later ones begin before earlier ones are finished.

Block b of a row is the canvas positions from b * block_length on (D2F: counted as the model does, so block 0
may hold the end of the prompt); where block_length does not divide the max_new_tokens, the last one is
shorter. Before every forward, in this order:

1. a block is appended, if the last one is decoded to a share of at least `block_add_threshold`; at most one a
   step;
2. a block becomes full for good, if its left neighbour is decoded to a share of at least
   `decoded_token_threshold` (the prompt is, to block 0). A full block commits at least one token a step.

block_add_threshold = decoded_token_threshold = 1 is block by block. Sources: D2F (arXiv 2508.09192, sec.
4.3); d3LLM (its release).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unmask.decoding.board import Board, Fed, Marginals, to_lists
from unmask.decoding.decoder import Decoder
from unmask.decoding.ranks import RANKS
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import (
    ALL,
    Sampling,
    at_least_one,
    number,
    one_of,
    share,
    true_or_false,
)

FALLBACKS = {"default": "confidence", "neg_entropy": "entropy", "margin": "margin"}


@dataclass
class Blocks:
    """The blocks of a row that have been appended: of each, whether it is full."""

    full: list[bool]
    cached: int = 0  # multiblock: blocks whose keys and values are kept, the prompt being one
    shift: int = 0  # d2f: columns of the prompt that share the first block
    finished: dict[int, int] | None = None  # multiblock: block, the prompt being 0 -> the step that found it


@dataclass(frozen=True)
class Pipeline(Sampling, Decoder):
    """block_length: B. block_add_threshold, decoded_token_threshold: see above.
    after_end: none, decoding ends as soon as all left of an end token is committed; fill, it goes on until
        all that was begun is decoded, as the published decoders do.
    temperature, top_p, top_k: see Sampling.
    """

    block_length: int = 32
    block_add_threshold: float = 0.1
    decoded_token_threshold: float = 0.95
    after_end: str = "none"

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, block_length=self.block_length)
        share(
            block_add_threshold=self.block_add_threshold, decoded_token_threshold=self.decoded_token_threshold
        )
        one_of(("none", "fill"), after_end=self.after_end)

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = Blocks([])
            row.fills = self.after_end == "fill"

    def step(self, board: Board) -> list[Commit]:
        for row in board.rows:
            self._advance(row)
        masks = [self._masks(row, range(row.prefix, self._begun(row))) for row in board.rows]
        prompts = [len(row.prompt) for row in board.rows]
        columns = [[n + p for p in positions] for n, positions in zip(prompts, masks, strict=True)]

        def judge(part: range, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            ids = self._draw(board, masks, logits, part)
            return *self._judge(board, logits, ids), ids

        sure, order, ids = self._marginals(board).in_parts(columns, judge)
        return [
            self._end(board, row, self._commit(board, row, positions, *mine))
            for row, positions, *mine in zip(board.rows, masks, *to_lists(sure, order, ids), strict=True)
        ]

    def block_states(self, row: Row) -> str:
        """w: waiting, or given up. b: begun. f: full, it commits a token every step. d: decoded."""
        full, length = row.state.full, self.block_length
        starts = range(-row.state.shift, len(row.canvas), length)
        spans = [row.canvas[max(0, start) : start + length] for start in starts]
        return "".join(
            "d" if None not in span else "w" if block >= len(full) else "f" if full[block] else "b"
            for block, span in enumerate(spans)
        )

    def _draw(self, board: Board, masks: list[list[int]], logits: Tensor, part: range) -> Tensor:
        """A token of each mask of these rows, (rows, k)."""
        rows = [board.rows[i] for i in part]
        generators = self.generators(rows, board.ids.device)
        return self.draw(logits, generators, [len(masks[i]) for i in part])[1]

    def _commit(
        self,
        board: Board,
        row: Row,
        positions: list[int],
        sure: list[int],
        order: list[int],
        tokens: list[int],
    ) -> Commit:
        """The masks of a row that the step commits, from the left. What follows its masks is padding."""
        count = len(positions)
        chosen = self._choose(
            board, row, positions, [k for k in range(count) if sure[k]], [k for k in order if k < count]
        )
        return [positions[k] for k in sorted(chosen)], [tokens[k] for k in sorted(chosen)]

    # What the two decoders differ in

    def _marginals(self, board: Board) -> Marginals:
        """The step's forward."""
        raise NotImplementedError

    def _judge(self, board: Board, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens are sure enough, (rows, k) bool, and the order from the surest on, (rows, k).

        By the model's own probabilities: a low temperature or a filter would make all of them look sure.
        """
        raise NotImplementedError

    def _choose(
        self, board: Board, row: Row, positions: Sequence[int], sure: list[int], ranked: list[int]
    ) -> list[int]:
        """The masks to commit, as indices of `positions`: `sure` ones, and others by the rule of full
        blocks. `ranked`: all of them, the surest first."""
        raise NotImplementedError

    def _end(self, board: Board, row: Row, commit: Commit) -> Commit:
        """What is committed, if end tokens are among it."""
        raise NotImplementedError

    # What they share

    def _advance(self, row: Row) -> None:
        """Append a block and activate, by the rules above."""
        full = row.state.full
        if self._begun(row) < row.length and (not full or self._share(row, -1) >= self.block_add_threshold):
            full.append(False)
        for block in range(len(full)):
            full[block] = (
                full[block] or not block or self._share(row, block - 1) >= self.decoded_token_threshold
            )

    def _begun(self, row: Row) -> int:
        """Canvas positions in blocks that have been appended."""
        return max(0, min(len(row.state.full) * self.block_length - row.state.shift, row.length))

    def _block_of(self, row: Row, position: int) -> int:
        return (position + row.state.shift) // self.block_length

    def _positions(self, row: Row, block: int) -> range:
        start = range(len(row.state.full))[block] * self.block_length - row.state.shift
        return range(max(0, start), min(start + self.block_length, row.length))

    def _masks(self, row: Row, positions: range) -> list[int]:
        return [p for p in positions if row.canvas[p] is None]

    def _share(self, row: Row, block: int) -> float:
        """How much of a block is decoded."""
        positions = self._positions(row, block)
        return (len(positions) - len(self._masks(row, positions))) / len(positions)


@dataclass(frozen=True)
class D2F(Pipeline):
    """Discrete diffusion forcing (D2F, arXiv 2508.09192): a block-causal denoiser's blocks in a pipeline.

    A token sees the prompt and the blocks up to its own, so the keys and values of finished blocks are exact:
    one forward denoises the active blocks and writes those of the finished ones.

    skip_threshold: a mask is committed if its token is likelier than this.
    fallback: which mask a full block commits where none is: default, the likeliest; neg_entropy, that of the
        lowest entropy; margin, that of the largest lead.
    cache: exact, or off: the same ids from feeding everything.
    block_length, block_add_threshold, decoded_token_threshold, after_end: see Pipeline.

    Two things that the published code does not do: once an end token is committed, blocks right of its own
    are given up, since nothing left of them sees them (with after_end=fill they are decoded, as published);
    and max_new_tokens that B does not divide gets a shorter last block.
    """

    attention: ClassVar = "block_causal"
    block_origins: ClassVar = ("prompt", "column_0", "padded_prompt")
    skip_threshold: float = 0.9
    fallback: str = "default"
    cache: str = "exact"
    sampling: ClassVar = ALL

    def __post_init__(self):
        super().__post_init__()
        share(skip_threshold=self.skip_threshold)
        one_of(FALLBACKS, fallback=self.fallback)
        one_of(("exact", "off"), cache=self.cache)

    def begin(self, board: Board) -> None:
        super().begin(board)
        for row in board.rows:
            row.state.shift = board.shift("denoiser", row, self.block_length)

    def _marginals(self, board: Board) -> Marginals:
        cached = self.cache == "exact"
        # A token is predicted from the column before it (Dream), which must be fed in any case.
        lookback = board.models["denoiser"].lookback
        starts = [max(0, valid - lookback) for valid in board.valid("denoiser")] if cached else None
        fed = [
            range(starts[i] if cached else 0, len(row.prompt) + self._begun(row))
            for i, row in enumerate(board.rows)
        ]
        return board.denoise(Fed(fed, self.block_length), cached=cached)

    def _judge(self, board: Board, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        likely = RANKS["confidence"](logits, ids)
        sure = likely > (math.log(self.skip_threshold) if self.skip_threshold else -math.inf)
        rank = FALLBACKS[self.fallback]
        values = likely if rank == "confidence" else RANKS[rank](logits, ids)
        return sure, values.argsort(descending=True, stable=True)

    def _choose(self, board, row, positions, sure, ranked) -> list[int]:
        chosen = list(sure)
        served = {self._block_of(row, positions[k]) for k in sure}
        for k in ranked:
            block = self._block_of(row, positions[k])
            if row.state.full[block] and block not in served:
                chosen.append(k)
                served.add(block)
        return chosen

    def _end(self, board, row, commit) -> Commit:
        """Once an end token is among the committed ones, no block is appended any more."""
        ends = [p for p, token in zip(*commit, strict=True) if token in board.stop.ids]
        if not ends:
            return commit
        if not row.fills:
            del row.state.full[self._block_of(row, min(ends)) + 1 :]
        row.wanted = self._begun(row)
        kept = [k for k, p in enumerate(commit[0]) if p < row.wanted]
        return tuple([part[k] for k in kept] for part in commit)


@dataclass(frozen=True)
class MultiBlock(Pipeline):
    """d3LLM's multi-block decoding: a pipeline of blocks under full attention, by entropy.

    entropy_max: masks of begun blocks whose entropy is at most this, in nats, are committed. Of the first
        full block that has masks at least one is.
    rule: llada, the mask of the lowest entropy is committed whatever it is; dream, it is not (as published
        for each); None, by the model.
    cache: none, or delayed: keys and values of a finished block are kept from `cache_delay_iter` steps after
        it was found finished; stale, since what stands right of them changes. They are renewed when a block
        is about to be kept, and every `refresh_interval` steps.
    published_shift: under the cache, a model that looks back (Dream) predicts the first column fed from
        itself, as published, and not from the one before it.
    block_length, block_add_threshold, decoded_token_threshold, after_end: see Pipeline. With after_end=none
        all right of an end token becomes end tokens with it (published: in the next step, and masks that are
        filled may be chosen in between).
    """

    entropy_max: float = 0.5
    rule: str | None = None
    cache: str = "none"
    cache_delay_iter: int = 1
    refresh_interval: int | None = None
    published_shift: bool = False
    sampling: ClassVar = ALL

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, cache_delay_iter=self.cache_delay_iter)
        at_least_one(refresh_interval=self.refresh_interval)
        if not number(self.entropy_max) or not 0 <= self.entropy_max < math.inf:
            raise ValueError(f"entropy_max={self.entropy_max!r} must be a number, 0 or more")
        one_of(("llada", "dream", None), rule=self.rule)
        one_of(("delayed", "none"), cache=self.cache)
        true_or_false(published_shift=self.published_shift)

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        most = math.log(vocabulary) if vocabulary else math.inf
        if self.entropy_max > most:
            raise ValueError(
                f"entropy_max={self.entropy_max}: no entropy over {vocabulary} tokens is above {most:.2f}"
            )

    def _as_llada(self, board: Board) -> bool:
        return self.rule == "llada" or (self.rule is None and not board.models["denoiser"].lookback)

    def _marginals(self, board: Board) -> Marginals:
        lookback = 0 if self.published_shift else board.models["denoiser"].lookback
        cached, llada = self.cache == "delayed", self._as_llada(board)
        starts = [self._start(row, llada) if cached else 0 for row in board.rows]
        fed = [
            range(max(0, start - lookback), row.columns)
            for start, row in zip(starts, board.rows, strict=True)
        ]
        return board.denoise(Fed(fed), cached=cached)

    def _start(self, row: Row, llada: bool) -> int:
        """The first column to feed: all left of it is kept. Counts the blocks that are kept from now on."""
        state, n = row.state, row.step + 1
        state.finished = state.finished or {0: 0}
        kept, ready, waiting = state.cached, 0, False
        for block in range(kept, len(state.full) + 1):
            if block and self._share(row, block - 1) < 1:
                break
            waiting = n - state.finished.setdefault(block, n) < self.cache_delay_iter
            ready += not waiting
            if waiting and llada:
                break
        state.cached += ready
        renews = self.refresh_interval is not None and n % self.refresh_interval == 0
        if not kept or not (ready or not (waiting or renews)):
            return 0
        return len(row.prompt) + (kept - 1) * self.block_length

    def _judge(self, board: Board, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        values = RANKS["entropy"](logits, ids)
        return values >= -self.entropy_max, values.argsort(descending=True, stable=True)

    def _choose(self, board, row, positions, sure, ranked) -> list[int]:
        chosen = {*sure, *(ranked[:1] if self._as_llada(board) else ())}
        blocks = [p // self.block_length for p in positions]
        first = next((block for block in blocks if row.state.full[block]), None)
        if first is not None and not any(blocks[k] == first for k in chosen):
            chosen.add(next(k for k in ranked if blocks[k] == first))
        return list(chosen)

    def _end(self, board, row, commit) -> Commit:
        ends = [(p, token) for p, token in zip(*commit, strict=True) if token in board.stop.ids]
        if not ends or row.fills:
            return commit
        first, token = min(ends)
        kept = [k for k, p in enumerate(commit[0]) if p <= first]
        rest = range(first + 1, row.length)
        return [*(commit[0][k] for k in kept), *rest], [*(commit[1][k] for k in kept), *[token] * len(rest)]
