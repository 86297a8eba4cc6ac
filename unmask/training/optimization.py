"""How weights move: the learning rate over training, and which optimizer gets which parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from unmask.training.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """Learning rate over training: linear warm-up, plateau, linear decay towards zero.

    peak: of Muon and AdamW alike. warmup, decay: shares of all tokens. ValueError where one is out of range.
    """

    peak: float
    warmup: float = 0.02
    decay: float = 0.3

    def __post_init__(self):
        if not 0 < self.peak < float("inf"):
            raise ValueError(f"lr={self.peak} must be a positive number")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be from 0 to 1, a share of the tokens")

    def __call__(self, before: float, after: float) -> float:
        """The rate of a step: `before` and `after` it, these shares of all tokens are seen.

        The warm-up counts the step itself and the decay does not, so that no step has a rate of zero.
        """
        rise = min(1.0, after / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (1 - before) / self.decay) if self.decay else 1.0
        return self.peak * max(0.0, min(rise, fall))


def optimizers(trained: Mapping[str, nn.Parameter], weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, head, norms, biases and adapters."""
    matrices = {n for n, p in trained.items() if p.ndim == 2 and "layers" in n and "lora_" not in n}
    rest = [p for n, p in trained.items() if n not in matrices]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        found.append(Muon([p for n, p in trained.items() if n in matrices], weight_decay=weight_decay))
    if rest:
        found.append(torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0))
    return found
