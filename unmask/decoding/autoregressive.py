"""One token a forward from a causal model with a KV cache: the baseline that parallel decoding has to
beat."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.decoding.canvas import Board
from unmask.decoding.generation import Decoder, Models, Observer, Role, Row, Stop
from unmask.decoding.sampling import Sampling


@dataclass(frozen=True)
class Autoregressive(Sampling, Decoder):
    """temperature, top_p, top_k: see Sampling."""

    causal = True

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        role, board = Role("autoregressive", models.main), Board(rows, models)
        while board.rows:
            starts, ends = [row.cached.get(role.name, 0) for row in board.rows], board.known
            last = board.tensor([[end - start - 1] for start, end in zip(starts, ends, strict=True)])
            output = board.forward(role, starts, ends, cached=True, causal=True, logits_to_keep=last)
            logits = output.logits.float()
            noise = self.gumbel([row.moment for row in board.rows], range(1), logits)
            ids = self.pick(logits, noise).tolist()
            for row, end in zip(board.rows, ends, strict=True):
                row.cached[role.name] = end
            board.commit([[row.prefix] for row in board.rows], ids, stop, observer)
