"""Left to right, K tokens a step: the marginals of the next K masks, taken as if independent (APD paper, sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.canvas import Windowed, denoise
from decoding.generation import Models, Observer, Role, Row, Stop
from decoding.sampling import at_least_one, step_generator


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
        denoiser = Role("denoiser", models.main)
        if self.kv_window is None:
            self._together(models, denoiser, rows, stop, observer)
        else:  # each row has its own cache
            for row in rows:
                canvas = self.canvas(denoiser, row, models.mask_id)
                while not row.finished:
                    ids = self._pick(row, canvas(self.tokens_per_step)).tolist()
                    row.commit(range(row.prefix, row.prefix + len(ids)), ids, stop, observer)

    def _together(self, models, denoiser, rows, stop, observer) -> None:
        """Every unfinished row is at the same position, so one uncached forward serves them all."""
        while rows := [row for row in rows if not row.finished]:
            t, budget = rows[0].prefix, len(rows[0].canvas)
            end = budget if self.max_lookahead is None else min(budget, t + self.max_lookahead)
            count = min(self.tokens_per_step, end - t)
            logits = denoise(denoiser, rows, models.mask_id, end, [range(t, t + count)] * len(rows))
            picked = torch.stack([self._pick(row, scores) for row, scores in zip(rows, logits, strict=True)])
            for row, ids in zip(rows, picked.tolist(), strict=True):  # one transfer from the device a step
                row.commit(range(t, t + count), ids, stop, observer)

    def _pick(self, row: Row, logits: Tensor) -> Tensor:
        noise = self.noise(step_generator(row.seed, len(row.steps), logits.device), logits.shape)
        return self.pick(logits, noise)
