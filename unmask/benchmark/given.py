"""Acceptance that is given: a decoder whose every step commits so many tokens, whatever the models say.

Random weights agree on nothing, so a judged draft would end at its first token. All is computed as it would
be, the judgement included; only what it counts to is replaced. For costs alone: the ids mean nothing.
"""

from dataclasses import fields, replace

import torch
from torch import Tensor

from unmask.decoding import Decoder
from unmask.decoding.apd import APD
from unmask.decoding.cache import sent
from unmask.decoding.leftright import LeftRight
from unmask.decoding.speculative import Drafting
from unmask.decoding.unmasking import BLIND, Unmasking


class _Surest:
    def _surest(self, board, rows, values, ids) -> tuple[Tensor, Tensor]:
        order, counts = super()._surest(board, rows, values, ids)
        # From the left: random weights would scatter the tokens, and an answer ends where it has no gap.
        leftmost = torch.arange(order.size(1), device=order.device).expand_as(order)
        return leftmost, torch.full_like(counts, self.acceptance)


class _Judged:
    def _judge(self, board, chunk, draft, ids) -> Tensor:
        super()._judge(board, chunk, draft, ids)
        offsets = torch.arange(draft.tokens.size(1)) + torch.tensor(chunk.begins)[:, None]
        return draft.tokens.where(sent(offsets < self.acceptance, ids.device), -1)


class _Verified:
    def _commits(self, board, blocks, tokens, draft, accepted):
        return super()._commits(board, blocks, tokens, draft, torch.full_like(accepted, self.acceptance - 1))


GIVEN = {Unmasking: _Surest, APD: _Judged, Drafting: _Verified}


def given(decoder: Decoder, acceptance: int) -> Decoder:
    """The decoder with `acceptance` tokens committed by every step; fewer where a block or the canvas ends,
    and in a first step that only reads the prompt.

    ValueError for a decoder that accepts nothing: one of a fixed number of tokens, a pipeline, an order that
    does not depend on the model.
    """
    if isinstance(decoder, LeftRight):
        return replace(decoder, tokens_per_step=acceptance)
    for base, how in GIVEN.items():
        if isinstance(decoder, base) and getattr(decoder, "rank", None) not in BLIND:
            kind = type(type(decoder).__name__, (how, type(decoder)), {"acceptance": acceptance})
            return kind(**{field.name: getattr(decoder, field.name) for field in fields(decoder)})
    raise ValueError(
        f"acceptance={acceptance}: {type(decoder).__name__} has none that could be given; leftright, apd, "
        "dflash, speculative and the decoders that unmask the surest tokens have"
    )
