"""Left to right, K tokens a step: the marginals of the next K masks, taken as if independent (APD, section
3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unmask.decoding.board import Board, Fed, Marginals
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit
from unmask.decoding.sampling import ALL, Sampling, at_least_one


@dataclass(frozen=True, kw_only=True)
class Windowed(Sampling, Decoder):
    """What the decoders that go left to right have in common, besides Sampling:

    kv_window: W, columns recomputed: the k tokens of the last step and W - 1 older ones, the count of the
        published code; keys and values further left are kept as they are. None recomputes all, which is
        exact.
    max_lookahead: M, masks that a forward sees; None = all up to max_new_tokens.
    """

    kv_window: int | None = None
    max_lookahead: int | None = None

    def __post_init__(self):
        super().__post_init__()
        at_least_one(kv_window=self.kv_window, max_lookahead=self.max_lookahead)

    def denoise(self, board: Board) -> tuple[Marginals, list[range]]:
        """The step's forward, and the columns of the masks that each row has in it."""
        lookahead, window = self.max_lookahead, self.kv_window
        masks = [
            range(row.first, min(row.columns, row.first + (lookahead or row.columns))) for row in board.rows
        ]
        starts = [0] * len(masks)
        if window is not None:
            # What was valid ends at the masks of the last forward: right of it stand the tokens of the last
            # step. Dream predicts a token from the column before it, which must be fed in any case.
            lookback = board.models["denoiser"].lookback
            starts = [
                max(0, min(valid - (window - 1), columns.start - lookback))
                for valid, columns in zip(board.valid("denoiser"), masks, strict=True)
            ]
        fed = [range(start, columns.stop) for start, columns in zip(starts, masks, strict=True)]
        return board.denoise(Fed(fed), cached=window is not None), masks


@dataclass(frozen=True)
class LeftRight(Windowed):
    """tokens_per_step: K, committed by every step (fewer at the end of the canvas, and never more than M).
    kv_window (W), max_lookahead (M): see Windowed. temperature, top_p, top_k: see Sampling.
    """

    tokens_per_step: int = 1
    sampling: ClassVar = ALL

    def __post_init__(self):
        super().__post_init__()
        at_least_one(needed=True, tokens_per_step=self.tokens_per_step)

    def step(self, board: Board) -> list[Commit]:
        marginals, masks = self.denoise(board)
        logits = marginals.logits([columns[: self.tokens_per_step] for columns in masks])
        offsets = range(logits.size(1))
        noise = self.gumbel([(row.seed, row.step) for row in board.rows], offsets, logits)
        ids = self.pick(logits, noise).tolist()  # one transfer a step
        counts = [min(len(offsets), len(columns)) for columns in masks]
        return [
            (range(row.prefix, row.prefix + n), tokens[:n])
            for row, tokens, n in zip(board.rows, ids, counts, strict=True)
        ]
