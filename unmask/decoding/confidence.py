"""Most confident first: LLaDA's `low_confidence` (arXiv 2502.09992), Dream's `maskgit_plus` (arXiv
2202.04200)."""

from dataclasses import dataclass

from torch import Tensor

from unmask.decoding.unmasking import Unmasking


@dataclass(frozen=True)
class Confidence(Unmasking):
    """Ranks positions by the probability of the drawn token, after temperature and filters."""

    def rank(self, scores: Tensor, ids: Tensor) -> Tensor:
        return scores.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
