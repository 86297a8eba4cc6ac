"""Random order: Dream's `origin` schedule and LLaDA's `random` remasking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decoding.unmasking import Unmasking, even


@dataclass(frozen=True)
class RandomOrder(Unmasking):
    """schedule_kind: "even" commits the same number of random positions in every step (LLaDA); "origin"
    commits each mask with probability 1 / (steps left) (Dream, arXiv 2508.15487, with its epsilon at 0). A
    step in which "origin" commits nothing costs no forward here: the canvas has not changed, so the forward
    would return what is known.
    """

    schedule_kind: str = "even"

    def __post_init__(self):
        super().__post_init__()
        if self.schedule_kind not in ("even", "origin"):
            raise ValueError(
                f"schedule_kind={self.schedule_kind!r} must be 'even' (LLaDA) or 'origin' (Dream)"
            )

    def candidates(self, masked: list[int], left: int, generator: torch.Generator) -> list[int]:
        """The order does not depend on the logits, so only the positions to be committed go through the
        head."""
        draws = torch.rand(len(masked), generator=generator, device=generator.device)
        if self.schedule_kind == "origin":
            return [i for i, draw in zip(masked, draws.tolist(), strict=True) if draw * left < 1]
        return sorted(masked[i] for i in draws.topk(even(len(masked), left)).indices.tolist())

    def choose(self, scores: Tensor, ids: Tensor, count: int) -> Tensor:
        return torch.arange(len(ids), device=ids.device)
