"""Adaptive parallel decoding (APD, arXiv 2506.00413, Algorithm 1): a small causal model judges a parallel
draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Fed, Marginals, padded, to_lists
from unmask.decoding.leftright import Windowed
from unmask.decoding.row import Commit
from unmask.decoding.sampling import ALL, agreed, at_least_one, exclude, greatest, number, one_of
from unmask.decoding.visibility import causal

COUPLINGS = ("gumbel", "argmax")


@dataclass(frozen=True)
class Chunk:
    """Masks that are drafted and judged together.

    rows: those that have accepted all that was drafted before. columns: of each, its masks. begins: how many
        of the step's masks stand left of them.
    """

    rows: list[int]
    columns: list[range]
    begins: list[int]

    @property
    def unjudged(self) -> int:
        """Columns that need no judgement: the first one of a draft."""
        return int(not any(self.begins))


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
    chunk: positions drafted and judged at once, or up to twice as many after a step that accepted more; the
        next ones only while all is accepted. It changes the cost and no id: None does the whole draft.
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

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = 0  # tokens that its last step accepted

    def step(self, board: Board) -> list[Commit]:
        marginals, masks = self.denoise(board)
        ids = board.ids.clone()  # with the drafts written in
        accepted = [[] for _ in masks]
        chunk = self._chunk(board, masks, accepted, range(len(masks)))
        while chunk.rows:
            draft = self._draft(board, marginals, chunk, ids)
            judged = self._judge(board, chunk, draft, ids)
            going = self._accept(board, chunk, draft, judged, accepted)
            chunk = self._chunk(board, masks, accepted, going)
        for row, tokens in zip(board.rows, accepted, strict=True):
            row.state = len(tokens)
        return [
            (range(row.prefix, row.prefix + len(tokens)), tokens)
            for row, tokens in zip(board.rows, accepted, strict=True)
        ]

    def _chunk(
        self, board: Board, masks: list[range], accepted: list[list[int]], rows: Sequence[int]
    ) -> Chunk:
        """The next masks of those rows that have any: of each as many as its last step accepted, and the one
        that it did not, so that a step as lucky as the last one takes one chunk."""
        rows = [i for i in rows if len(accepted[i]) < len(masks[i])]
        begins = [len(accepted[i]) for i in rows]
        sizes = [
            len(masks[i])
            if self.chunk is None
            else min(max(self.chunk, board.rows[i].state + 1), 2 * self.chunk)
            for i in rows
        ]
        columns = [masks[i][begin : begin + size] for i, begin, size in zip(rows, begins, sizes, strict=True)]
        return Chunk(rows, columns, begins)

    def _draft(self, board: Board, marginals: Marginals, chunk: Chunk, ids: Tensor) -> Draft:
        """Draw the chunk from the denoiser's marginals, as if its tokens were independent, into `ids`."""
        logits = marginals.logits(chunk.columns, chunk.rows)[..., : self._shared(board)]
        streams = [(board.rows[i].seed, board.rows[i].step) for i in chunk.rows]
        offsets = [range(begin, begin + logits.size(1)) for begin in chunk.begins]
        noise = self.gumbel(streams, offsets, logits)
        tokens = self.draw_draft(logits, noise)
        board.write(ids, chunk.rows, chunk.columns, tokens)
        return Draft(tokens, logits, noise)

    def _judge(self, board: Board, chunk: Chunk, draft: Draft, ids: Tensor) -> Tensor:
        """The tokens that the mixture of both models draws with the same noise, (rows, n); the drafted ones
        where nothing is judged."""
        first = chunk.unjudged
        judged = [k for k, columns in enumerate(chunk.columns) if len(columns) > first]
        if self.accepts_everything or not judged:
            return draft.tokens
        rows, columns = [chunk.rows[k] for k in judged], [chunk.columns[k][first:] for k in judged]
        theirs = self._auxiliary_logits(board, rows, columns, ids)[..., : self._shared(board)].float()
        every = len(judged) == len(chunk.rows)
        # All rows as a slice: an index would be a copy, and a transfer to the device.
        picked = slice(None) if every else board.tensor(judged)
        part = picked, slice(first, first + theirs.size(1))
        mixture = exclude(torch.lerp(theirs, draft.logits[part], self.mixture_weight), board.models.mask_id)
        noise = None if draft.noise is None else draft.noise[part]
        tokens = self.draw_judgement(mixture, noise)
        if every:
            return torch.cat((draft.tokens[:, :first], tokens), 1) if first else tokens
        found = draft.tokens.clone()
        found[part] = tokens
        return found

    def _accept(
        self, board: Board, chunk: Chunk, draft: Draft, judged: Tensor, accepted: list[list[int]]
    ) -> list[int]:
        """Add each row's tokens up to the first disagreement to `accepted`; the rows that had none."""
        going = []
        for i, columns, tokens, theirs in zip(
            chunk.rows, chunk.columns, *to_lists(draft.tokens, judged), strict=True
        ):
            tokens = tokens[: len(columns)]  # what follows is padding
            count = agreed(tokens, theirs)
            accepted[i] += tokens[:count]
            row = board.rows[i]
            row.drafted, row.accepted = (*row.drafted, *tokens), len(accepted[i])
            if count == len(tokens):
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
        return greatest(mixture) if self.coupling == "argmax" else self.pick(mixture, noise)

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
        keep = board.kept(fed, padded([column - 1 for column in mine] for mine in columns))
        what = Fed(fed, causal, only=rows)
        return board.forward("auxiliary", what, cached=True, ids=ids, logits_to_keep=keep).logits
