"""Lowest entropy first: Dream's `entropy` (arXiv 2508.15487)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decoding.unmasking import Unmasking


@dataclass(frozen=True)
class Entropy(Unmasking):
    """Ranks positions by the negative entropy of their distribution, after temperature and filters."""

    def rank(self, scores: Tensor, ids: Tensor) -> Tensor:
        return -torch.special.entr(scores.softmax(-1)).sum(-1)
