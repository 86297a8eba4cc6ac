"""Adaptive parallel decoding (APD, arXiv 2506.00413, Algorithm 1): a small causal model judges a parallel
draft."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decoding.canvas import Board, Marginals, Windowed
from unmask.decoding.generation import Models, Observer, Role, Row, Stop
from unmask.decoding.sampling import at_least_one, ban

COUPLINGS = ("gumbel", "argmax")


@dataclass(frozen=True)
class APD(Windowed):
    """mixture_weight: R in [0, 1], the denoiser's weight in the judgement; 1 accepts the whole draft, higher
    is faster.
    coupling: "gumbel" judges with the draft's own noise (the paper). "argmax" does what the published code
        does: it drafts at temperature T^2, accepts while the draft is the argmax of the mixture, and filters
        the draft alone.
    chunk: positions that are drafted and judged at once; the next ones only while all is accepted. It changes
        the cost and no id: None does the whole draft.
    kv_window (W), max_lookahead (M): see Windowed; M is also the length of a draft.
    temperature, top_p, top_k: see Sampling; with "gumbel" they apply to draft and judgement alike.
    """

    mixture_weight: float = 0.7
    coupling: str = "gumbel"
    chunk: int | None = 8
    needs_auxiliary = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.mixture_weight <= 1:
            raise ValueError(f"mixture_weight={self.mixture_weight} (R) must lie in [0, 1]")
        if self.coupling not in COUPLINGS:
            raise ValueError(f"coupling={self.coupling!r} must be one of {', '.join(COUPLINGS)}")
        at_least_one(chunk=self.chunk)

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        denoiser, auxiliary = Role("denoiser", models.main), Role("auxiliary", models.auxiliary)
        board = Board(rows, models)
        while board.rows:
            marginals, masks = self.look(models, board, denoiser)
            accepted = self._accept(models, board, auxiliary, marginals, masks)
            positions = [
                range(row.prefix, row.prefix + len(ids))
                for row, ids in zip(board.rows, accepted, strict=True)
            ]
            for row, ids, columns in zip(board.rows, accepted, masks, strict=True):
                if auxiliary.name in row.cached:  # what it was fed beyond the accepted ids is void
                    # The last accepted one is fed again: what comes of it predicts the first drafted one.
                    row.cached[auxiliary.name] = min(row.cached[auxiliary.name], columns.start + len(ids) - 1)
            board.commit(positions, accepted, stop, observer)

    def _accept(
        self, models: Models, board: Board, auxiliary: Role, marginals: Marginals, masks: list[range]
    ) -> list[list[int]]:
        """Each row's accepted ids, at least one: drafted and judged chunk by chunk, as long as a row accepts
        all of a chunk."""
        # Both models must know a token to judge it: Dream has a few ids past Qwen's last one.
        shared = min(models.main.config.vocab_size, models.auxiliary.config.vocab_size)
        ids = board.ids.clone()  # with the drafts
        accepted = [[] for _ in masks]
        active, begin = list(range(len(masks))), 0
        while active:
            size = self.chunk or max(map(len, masks))
            wanted = [masks[i][begin : begin + size] for i in active]
            logits = marginals.logits(wanted, active)[..., :shared]
            noise = self.gumbel(
                [board.rows[i].moment for i in active], range(begin, begin + logits.size(1)), logits
            )
            draft = self.draft(logits, noise)
            for i, columns, tokens in zip(active, wanted, draft, strict=True):
                ids[i, columns.start : columns.stop] = tokens[: len(columns)]
            agrees = torch.zeros_like(draft, dtype=torch.bool)
            judged = [
                k for k, i in enumerate(active) if len(masks[i]) > 1
            ]  # a lone mask is accepted in any case
            if judged:
                beliefs = self._judge(
                    board, auxiliary, ids, [active[k] for k in judged], [wanted[k] for k in judged]
                )
                these = judged if len(judged) < len(active) else slice(None)
                mixture = torch.lerp(beliefs[..., :shared].float(), logits[these], self.mixture_weight)
                verdict = self.verdict(ban(mixture, models.mask_id), None if noise is None else noise[these])
                agrees[these] = verdict == draft[these]
            agreed = agrees.cumprod(-1).sum(-1, keepdim=True)
            going = []
            for i, columns, (*tokens, n) in zip(
                active, wanted, torch.cat((draft, agreed), -1).tolist(), strict=True
            ):
                # The first token is an exact sample of the denoiser: it needs no agreement.
                accepted[i] += tokens[: min(n, len(columns)) or (begin == 0)]
                if n >= len(columns) and columns.stop < masks[i].stop:
                    going.append(i)
            active, begin = going, begin + size
        return accepted

    def draft(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Independent samples of the denoiser's marginals, (..., m, V) -> (..., m)."""
        if noise is not None and self.coupling == "argmax":
            noise = self.temperature * noise  # published: noise to the power T, on logits divided by T
        return self.pick(logits, noise)

    def verdict(self, mixture: Tensor, noise: Tensor | None) -> Tensor:
        """The tokens that the multiplicative mixture would have drawn with the same noise, (..., m, V) ->
        (..., m)."""
        return mixture.argmax(-1) if self.coupling == "argmax" else self.pick(mixture, noise)

    def _judge(
        self, board: Board, auxiliary: Role, ids: Tensor, only: list[int], columns: list[range]
    ) -> Tensor:
        """The auxiliary's logits of each row's drafted columns given all before them, (rows, m, V): one
        forward, all earlier ids cached. Shorter rows repeat their last column."""
        rows = [board.rows[i] for i in only]
        starts = [row.cached.get(auxiliary.name, 0) for row in rows]
        ends = [
            wanted.stop - 1 for wanted in columns
        ]  # the last drafted token predicts nothing that is asked for
        most = max(map(len, columns))
        predictors = [
            [min(wanted.start - 1 + k, end - 1) - start for k in range(most)]
            for wanted, start, end in zip(columns, starts, ends, strict=True)
        ]
        for row, end in zip(rows, ends, strict=True):
            row.cached[auxiliary.name] = end
        return board.forward(
            auxiliary,
            starts,
            ends,
            cached=True,
            causal=True,
            only=only,
            ids=ids,
            logits_to_keep=board.tensor(predictors),
        ).logits
