"""Left to right, K tokens a step: the marginals of the next K masks, taken as if independent (APD paper, sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.canvas import WindowedDenoiser, denoise
from decoding.generation import Decoder, Models, Observer, Role, Row, Stop
from decoding.sampling import Sampling, at_least_one, step_generator


def check_window(kv_window: int | None, max_lookahead: int | None) -> None:
    at_least_one(max_lookahead=max_lookahead)
    if kv_window is not None and (not isinstance(kv_window, int) or kv_window < 0):
        raise ValueError(f"kv_window={kv_window!r} must be a whole number, 0 or more (null recomputes every position)")


@dataclass(frozen=True)
class LeftRight(Decoder):
    """tokens_per_step: K, committed by every step (fewer at the end of the canvas, and never more than M).
    kv_window: W, positions whose keys and values are recomputed before the last step's tokens; None = all, exact.
    max_lookahead: M, masks that a forward sees; None = all up to the budget.
    temperature, top_p, top_k: see Sampling.
    """

    tokens_per_step: int = 1
    kv_window: int | None = None
    max_lookahead: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self):
        at_least_one(tokens_per_step=self.tokens_per_step)
        check_window(self.kv_window, self.max_lookahead)
        self.sampling  # noqa: B018  (validates)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k)

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        denoiser = Role("denoiser", models.main)
        if self.kv_window is None:
            self._together(models, denoiser, rows, stop, observer)
        else:  # each row has its own cache
            for row in rows:
                canvas = WindowedDenoiser(denoiser, row, models.mask_id, self.kv_window, self.max_lookahead)
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
        noise = self.sampling.noise(step_generator(row.seed, len(row.steps), logits.device), logits.shape)
        return self.sampling.pick(logits, noise)
