"""Adaptive parallel decoding (APD, arXiv 2506.00413, Algorithm 1): a small causal model judges a parallel
draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Commit, Marginals
from unmask.decoding.leftright import Windowed
from unmask.decoding.sampling import at_least_one, ban, number
from unmask.decoding.visibility import causal

COUPLINGS = ("gumbel", "argmax")


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

    def __post_init__(self):
        super().__post_init__()
        if not number(self.mixture_weight) or not 0 <= self.mixture_weight <= 1:
            raise ValueError(f"mixture_weight={self.mixture_weight!r} (R) must lie in [0, 1]")
        if self.coupling not in COUPLINGS:
            raise ValueError(f"coupling={self.coupling!r} must be one of {', '.join(COUPLINGS)}")
        at_least_one(chunk=self.chunk)

    @property
    def accepts_everything(self) -> bool:
        """Whether draft and judgement are the same by construction, so that the auxiliary is not asked."""
        return self.mixture_weight == 1 and (self.coupling == "gumbel" or self.temperature == 0)

    def step(self, board: Board) -> list[Commit]:
        marginals, masks = self.look(board)
        accepted = [[] for _ in masks]
        drafted = board.ids.clone()
        going, begin = list(range(len(masks))), 0  # rows that have accepted all so far, and of how many
        while going:
            size = self.chunk or max(map(len, masks))
            chunk = [masks[i][begin : begin + size] for i in going]
            draft, agrees = self._judged_draft(board, marginals, going, chunk, drafted, first=begin == 0)
            agreed = agrees.cumprod(-1).sum(-1, keepdim=True)
            still = []
            packed = torch.cat((draft, agreed), -1).tolist()  # one transfer a chunk
            for i, columns, (*tokens, count) in zip(going, chunk, packed, strict=True):
                accepted[i] += tokens[: min(count, len(columns))]
                board.rows[i].drafted = (*board.rows[i].drafted, *tokens[: len(columns)])
                if count >= len(columns) and columns.stop < masks[i].stop:
                    still.append(i)
            going, begin = still, begin + size
        return [
            (range(row.prefix, row.prefix + len(tokens)), tokens)
            for row, tokens in zip(board.rows, accepted, strict=True)
        ]

    def _judged_draft(
        self,
        board: Board,
        marginals: Marginals,
        going: list[int],
        chunk: list[range],
        drafted: Tensor,
        first: bool,
    ) -> tuple[Tensor, Tensor]:
        """Draft a chunk of columns and judge it: ids and agreement, (rows, n) each. Writes into `drafted`."""
        models = board.models
        # Both models must know a token to judge it: Dream has a few ids past Qwen's last one.
        shared = min(models[role].config.vocab_size for role in self.roles)
        logits = marginals.logits(chunk, going)[..., :shared]
        streams = [(board.rows[i].seed, board.rows[i].step) for i in going]
        offset = chunk[0].start - board.rows[going[0]].first
        noise = self.gumbel(streams, range(offset, offset + logits.size(1)), logits)
        draft = self.draft(logits, noise)
        for i, columns, tokens in zip(going, chunk, draft, strict=True):
            drafted[i, columns.start : columns.stop] = tokens[: len(columns)]
        agrees = torch.ones_like(draft, dtype=torch.bool)
        lead = int(first)  # the first token of a draft is not judged
        asking = [k for k, columns in enumerate(chunk) if len(columns) > lead]
        if self.accepts_everything or not asking:
            return draft, agrees
        rows, columns = [going[k] for k in asking], [chunk[k][lead:] for k in asking]
        judgement = self._judge(board, rows, columns, drafted)[..., :shared]
        judged = (asking if len(asking) < len(going) else slice(None), slice(lead, lead + judgement.size(1)))
        mixture = torch.lerp(judgement.float(), logits[judged], self.mixture_weight)
        verdict = self.verdict(ban(mixture, models.mask_id), None if noise is None else noise[judged])
        agrees[judged] = verdict == draft[judged]
        return draft, agrees

    def draft(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Independent samples of the denoiser's marginals, (..., m, V) -> (..., m)."""
        if noise is not None and self.coupling == "argmax":
            noise = self.temperature * noise  # published: noise to the power T, on logits divided by T
        return self.pick(logits, noise)

    def verdict(self, mixture: Tensor, noise: Tensor | None) -> Tensor:
        """The tokens that the multiplicative mixture would have drawn with the same noise, (..., m, V) ->
        (..., m)."""
        return mixture.argmax(-1) if self.coupling == "argmax" else self.pick(mixture, noise)

    def _judge(self, board: Board, only: list[int], columns: list[range], drafted: Tensor) -> Tensor:
        """The auxiliary's logits of each row's drafted columns given all before them, (rows, m, V).

        One forward, all earlier ids cached. Shorter rows repeat their last column.
        """
        starts = board.valid("auxiliary", only)
        # The last drafted token predicts nothing that is asked for.
        fed = [range(start, wanted.stop - 1) for start, wanted in zip(starts, columns, strict=True)]
        most = max(map(len, columns))
        predictors = [
            [min(wanted.start - 1 + k, wanted.stop - 2) - start for k in range(most)]
            for wanted, start in zip(columns, starts, strict=True)
        ]
        output = board.forward(
            "auxiliary",
            fed,
            causal,
            cached=True,
            only=only,
            ids=drafted,
            logits_to_keep=board.tensor(predictors),
        )
        return output.logits
