"""Clearest lead first: Dream's `topk_margin` (arXiv 2508.15487; after arXiv 2502.06768)."""

from dataclasses import dataclass

from torch import Tensor

from unmask.decoding.unmasking import Unmasking


@dataclass(frozen=True)
class Margin(Unmasking):
    """Ranks positions by the difference between the two highest probabilities, after temperature and
    filters."""

    def rank(self, scores: Tensor, ids: Tensor) -> Tensor:
        first, second = scores.softmax(-1).topk(2, dim=-1).values.unbind(-1)
        return first - second
