"""Which masks are surest: one function a rank.

| rank | sure is | published as |
|---|---|---|
| confidence | the probability of the drawn token | LLaDA's low_confidence, Dream's maskgit_plus |
| margin | the lead over the second token | Dream's topk_margin |
| entropy | a low entropy | Dream's entropy, dParallel |
| random | drawn | LLaDA's random, Dream's origin |
| leftmost | the first one | SDAR's sequential |

A new one is a function and a line in RANKS.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def confidence(scores: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of the drawn token: (..., V), (...) -> (...)."""
    return scores.log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def margin(scores: Tensor, ids: Tensor) -> Tensor:
    """Difference between the two highest probabilities."""
    first, second = scores.softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return first - second


def negative_entropy(scores: Tensor, ids: Tensor) -> Tensor:
    """Minus the entropy in nats."""
    return -torch.special.entr(scores.softmax(-1)).sum(-1)


RANKS: dict[str, Callable] = {"confidence": confidence, "margin": margin, "entropy": negative_entropy}
BLIND = ("random", "leftmost")  # ranks that do not depend on the model
