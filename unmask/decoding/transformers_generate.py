"""transformers' own `generate` as a decoder: the yardstick of the autoregressive one, in ids and in speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import GenerationConfig

from unmask.decoding.board import Board
from unmask.decoding.decoder import Decoder
from unmask.decoding.generation import Observer


@dataclass(frozen=True)
class TransformersGenerate(Decoder):
    """Greedy, with transformers' dynamic cache and left padding.

    The model's own generation_config is set aside: Qwen2.5-Instruct's has a repetition penalty, say.
    A batch runs until its last row has ended, and a finished row is fed padding until then: its forwards
    count.
    """

    roles: ClassVar = {"target": "causal"}
    lossless: ClassVar = True

    def run(self, board: Board, observer: Observer | None) -> None:
        rows, model, stop = board.rows, board.models["target"], board.stop
        width = max(len(row.prompt) for row in rows)
        pad = min(stop.ids, default=0)
        ids = torch.full((len(rows), width), pad, device=board.ids.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :], mask[i, width - len(row.prompt) :] = row.prompt, 1
        ends = {"eos_token_id": sorted(stop.ids)} if stop.ids else {}
        greedy = GenerationConfig(
            do_sample=False, max_new_tokens=len(rows[0].canvas), pad_token_id=pad, **ends
        )
        # What `greedy` leaves open, generate would take from the model's own.
        own, model.generation_config = model.generation_config, GenerationConfig()
        try:
            output = model.generate(ids, attention_mask=mask, generation_config=greedy)
        finally:
            model.generation_config = own
        written = output[:, width:].tolist()
        for row, tokens in zip(rows, written, strict=True):
            for forward in range(len(tokens)):
                row.count("target", 1 if forward else len(row.prompt))
            for token in tokens:
                row.commit(([row.prefix], [token]), stop, observer)
                if row.finished:
                    break
        board.rows = []
