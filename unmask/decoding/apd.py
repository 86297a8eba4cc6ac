"""Adaptive parallel decoding (APD, arXiv 2506.00413, Algorithm 1): a small causal model judges a parallel
draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Fed, Marginals, to_lists
from unmask.decoding.leftright import Windowed
from unmask.decoding.row import Commit
from unmask.decoding.sampling import ALL, at_least_one, exclude, number, one_of
from unmask.decoding.visibility import causal

COUPLINGS = ("gumbel", "argmax")


@dataclass(frozen=True)
class Chunk:
    """Masks that are drafted and judged together: those from the `begin`-th to the `begin + size`-th on.

    rows: those that have accepted all that was drafted before. columns: of each, its masks; the last chunk
        of a row may be shorter.
    """

    rows: list[int]
    columns: list[range]
    begin: int
    size: int


@dataclass(frozen=True)
class Draft:
    """tokens (rows, n) of a chunk, and the logits and the noise (rows, n, V) that they were drawn with."""

    tokens: Tensor
    logits: Tensor
    noise: Tensor | None


@dataclass(frozen=True)
class APD(Windowed):
    """mixture_weight: R in [0, 1], the denoiser's weight in the judgement; 1 accepts the whole draft, higher
        is faster.
    coupling: "gumbel" judges with the draft's own noise (the paper). "argmax" does what the published code
        does: it drafts at temperature T^2, accepts while the draft is the argmax of the mixture, and filters
        the draft alone.
    chunk: positions drafted and judged at once; the next ones only while all is accepted. It changes the cost
        and no id: None does the whole draft.
    kv_window (W), max_lookahead (M): see Windowed; M is also the length of a draft.
    temperature, top_p, top_k: see Sampling; with "gumbel" they apply to draft and judgement alike.

    A step commits the first drafted token unconditionally: of the joint that judges, its first factor is the
    denoiser's own. The second and the following ones are judged.
    """

    mixture_weight: float = 0.7
    coupling: str = "gumbel"
    chunk: int | None = 8
    roles: ClassVar = {"denoiser": "diffusion", "auxiliary": "causal"}
    sampling: ClassVar = ALL

    def __post_init__(self):
        super().__post_init__()
        if not number(self.mixture_weight) or not 0 <= self.mixture_weight <= 1:
            raise ValueError(f"mixture_weight={self.mixture_weight!r} (R) must lie in [0, 1]")
        one_of(COUPLINGS, coupling=self.coupling)
        at_least_one(chunk=self.chunk)

    @property
    def accepts_everything(self) -> bool:
        """Whether draft and judgement are the same by construction, so that the auxiliary need not run."""
        return self.mixture_weight == 1 and (self.coupling == "gumbel" or self.temperature == 0)

    def step(self, board: Board) -> list[Commit]:
        marginals, masks = self.denoise(board)
        ids = board.ids.clone()  # with the drafts written in
        accepted = [[] for _ in masks]
        chunk = self._chunk(masks, range(len(masks)), 0)
        while chunk.rows:
            draft = self._draft(board, marginals, chunk, ids)
            agrees = self._judge(board, chunk, draft, ids)
            going = self._accept(board, chunk, draft, agrees, accepted)
            end = chunk.begin + chunk.size
            chunk = self._chunk(masks, [i for i in going if len(masks[i]) > end], end)
        return [
            (range(row.prefix, row.prefix + len(tokens)), tokens)
            for row, tokens in zip(board.rows, accepted, strict=True)
        ]

    def _chunk(self, masks: list[range], rows: Sequence[int], begin: int) -> Chunk:
        """The next masks of these rows, from their `begin`-th on."""
        size = self.chunk or max(map(len, masks))
        return Chunk(list(rows), [masks[i][begin : begin + size] for i in rows], begin, size)

    def _draft(self, board: Board, marginals: Marginals, chunk: Chunk, ids: Tensor) -> Draft:
        """Draw the chunk from the denoiser's marginals, as if its tokens were independent, into `ids`."""
        logits = marginals.logits(chunk.columns, chunk.rows)[..., : self._shared(board)]
        streams = [(board.rows[i].seed, board.rows[i].step) for i in chunk.rows]
        offsets = range(chunk.begin, chunk.begin + logits.size(1))
        noise = self.gumbel(streams, offsets, logits)
        tokens = self.draw_draft(logits, noise)
        for i, columns, mine in zip(chunk.rows, chunk.columns, tokens, strict=True):
            ids[i, columns.start : columns.stop] = mine[: len(columns)]
        return Draft(tokens, logits, noise)

    def _judge(self, board: Board, chunk: Chunk, draft: Draft, ids: Tensor) -> Tensor:
        """Where the mixture of both models draws the drafted token too, with the same noise: (rows, n)."""
        agrees = torch.ones_like(draft.tokens, dtype=torch.bool)
        first = 1 if chunk.begin == 0 else 0  # the first token of a draft is not judged
        judged = [k for k, columns in enumerate(chunk.columns) if len(columns) > first]
        if self.accepts_everything or not judged:
            return agrees
        rows, columns = [chunk.rows[k] for k in judged], [chunk.columns[k][first:] for k in judged]
        theirs = self._auxiliary_logits(board, rows, columns, ids)[..., : self._shared(board)].float()
        # All rows as a slice: an index list would be a copy, and a transfer to the device.
        picked = judged if len(judged) < len(chunk.rows) else slice(None)
        part = picked, slice(first, first + theirs.size(1))
        mixture = exclude(torch.lerp(theirs, draft.logits[part], self.mixture_weight), board.models.mask_id)
        noise = None if draft.noise is None else draft.noise[part]
        agrees[part] = self.draw_judgement(mixture, noise) == draft.tokens[part]
        return agrees

    def _accept(
        self, board: Board, chunk: Chunk, draft: Draft, agrees: Tensor, accepted: list[list[int]]
    ) -> list[int]:
        """Add each row's tokens up to the first disagreement to `accepted`; the rows that had none."""
        counts = agrees.cumprod(-1).sum(-1)
        going = []
        for i, columns, tokens, count in zip(
            chunk.rows, chunk.columns, *to_lists(draft.tokens, counts), strict=True
        ):
            length = len(columns)  # what follows is padding
            accepted[i] += tokens[: min(count, length)]
            row = board.rows[i]
            row.drafted, row.accepted = (*row.drafted, *tokens[:length]), len(accepted[i])
            if count >= length:
                going.append(i)
        return going

    def draw_draft(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Independent samples of the denoiser's marginals, (..., n, V) -> (..., n)."""
        if noise is not None and self.coupling == "argmax":
            noise = self.temperature * noise  # published: noise to the power T, on logits divided by T
        return self.pick(logits, noise)

    def draw_judgement(self, mixture: Tensor, noise: Tensor | None) -> Tensor:
        """The tokens that the multiplicative mixture would have drawn with the same noise, (..., n, V) ->
        (..., n)."""
        return mixture.argmax(-1) if self.coupling == "argmax" else self.pick(mixture, noise)

    def _shared(self, board: Board) -> int:
        """How many ids both models know: Dream has a few past Qwen's last one."""
        return min(board.models[role].config.vocab_size for role in self.roles)

    def _auxiliary_logits(self, board: Board, rows: list[int], columns: list[range], ids: Tensor) -> Tensor:
        """The auxiliary's logits of these columns of the rows given all before them, (rows, n, V).

        One forward, all earlier ids cached. Shorter rows repeat their last column.
        """
        starts = board.valid("auxiliary", rows)
        # A column is predicted by the one before it, so the last one need not be fed.
        fed = [range(start, mine.stop - 1) for start, mine in zip(starts, columns, strict=True)]
        most = max(map(len, columns))
        predictors = [
            [min(mine.start - 1 + k, mine.stop - 2) - start for k in range(most)]
            for mine, start in zip(columns, starts, strict=True)
        ]
        keep = board.tensor(predictors)
        what = Fed(fed, causal, only=rows)
        return board.forward("auxiliary", what, cached=True, ids=ids, logits_to_keep=keep).logits
