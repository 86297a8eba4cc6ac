"""One token a forward from a causal model with a KV cache: the baseline that parallel decoding has to
beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unmask.decoding.board import Board, Fed
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit
from unmask.decoding.sampling import ALL, Sampling
from unmask.decoding.visibility import causal


@dataclass(frozen=True)
class Autoregressive(Sampling, Decoder):
    """temperature, top_p, top_k: see Sampling."""

    roles: ClassVar = {"target": "causal"}
    sampling: ClassVar = ALL

    def step(self, board: Board) -> list[Commit]:
        fed = [range(v, row.first) for v, row in zip(board.valid("target"), board.rows, strict=True)]
        last = board.kept(fed, [[columns[-1]] for columns in fed])
        output = board.forward("target", Fed(fed, causal), cached=True, logits_to_keep=last)
        logits = output.logits.float()
        noise = self.gumbel([(row.seed, row.step) for row in board.rows], range(1), logits)
        ids = self.pick(logits, noise).tolist()
        return [([row.prefix], token) for row, token in zip(board.rows, ids, strict=True)]
