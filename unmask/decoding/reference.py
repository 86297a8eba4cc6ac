"""transformers' own `generate` as a decoder: the yardstick of the autoregressive one (bench.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unmask.decoding.generation import Decoder, Models, Observer, Role, Row, Stop


@dataclass(frozen=True)
class TransformersGenerate(Decoder):
    """Greedy, with transformers' dynamic cache and left padding. A batch runs until its last row has
    ended."""

    causal = True

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        role, width, budget = (
            Role("autoregressive", models.main),
            max(len(row.prompt) for row in rows),
            len(rows[0].canvas),
        )
        pad = min(stop.ids, default=0)
        ids = torch.full((len(rows), width), pad, device=models.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :], mask[i, width - len(row.prompt) :] = row.prompt, 1
        ends = {"eos_token_id": sorted(stop.ids)} if stop.ids else {}
        output = models.main.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=budget, pad_token_id=pad, **ends
        )
        for row, tokens in zip(rows, output[:, width:].tolist(), strict=True):
            for token in tokens:
                row.forwards[role.name] += 1
                row.positions[role.name] += 1 if row.prefix else len(row.prompt)
                row.commit([row.prefix], [token], stop, observer)
                if row.finished:
                    break
