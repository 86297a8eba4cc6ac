"""Left to right, K tokens a step: the marginals of the next K masks, taken as if independent (APD paper, sec.
3)."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.decoding.canvas import Board, Windowed
from unmask.decoding.generation import Models, Observer, Role, Row, Stop
from unmask.decoding.sampling import at_least_one


@dataclass(frozen=True)
class LeftRight(Windowed):
    """tokens_per_step: K, committed by every step (fewer at the end of the canvas, and never more than M).
    kv_window (W), max_lookahead (M): see Windowed. temperature, top_p, top_k: see Sampling.
    """

    tokens_per_step: int = 1

    def __post_init__(self):
        super().__post_init__()
        at_least_one(tokens_per_step=self.tokens_per_step)

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        denoiser, board = Role("denoiser", models.main), Board(rows, models)
        while board.rows:
            marginals, masks = self.look(models, board, denoiser)
            logits = marginals.logits([columns[: self.tokens_per_step] for columns in masks])
            places = range(logits.size(1))
            noise = self.gumbel([row.moment for row in board.rows], places, logits)
            ids = self.pick(logits, noise).tolist()  # one transfer a step
            counts = [min(len(places), len(columns)) for columns in masks]
            positions = [range(row.prefix, row.prefix + n) for row, n in zip(board.rows, counts, strict=True)]
            board.commit(
                positions, [tokens[:n] for tokens, n in zip(ids, counts, strict=True)], stop, observer
            )
