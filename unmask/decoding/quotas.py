"""How many of its masks a step commits: one function a quota.

| quota | a step commits |
|---|---|
| even | masks spread evenly over the steps (LLaDA) |
| dream | floor(masks * (1 - s/t)), t falling evenly from 1 to 0.001, and the rest at the end (Dream) |
| static | B // T + (1 in the first B mod T steps) of a block of B and T steps (SDAR, LLaDA2) |
| linear | the share 1 / (steps left) of a block's masks, rounded in float32 as dllm does; no empty steps |
| origin | every mask with probability 1 - s/t, and the rest at the end (Dream's origin) |
| threshold | all at least as sure as `threshold`, at least one (Fast-dLLM; dParallel in nats) |
| dynamic | all surer than `threshold`, and at least as many as static does (SDAR, LLaDA2, Fast-dLLM v2) |
| factor | the n surest, n the largest with (k + 1)(1 - p_k) <= `factor` for all k from 2 to n (Fast-dLLM) |
| published_factor | the same, and the last mask of the block if it alone fails (as Fast-dLLM's code does) |
| entropy_bound | the n surest, n the largest with H_1 + ... + H_(n-1) <= `bound` nats (EB-Sampler) |
| entropy_sum | the n surest, n the largest with H_1 + ... + H_n < `bound` nats (SDAR, as its engine does) |
| hierarchy | of every run of masks the surest, if surer than `low_threshold`; all surer than `threshold` |
| near_ties | all at least as sure as `threshold`, or within 0.00001 of the surest (dInfer's threshold) |

hierarchy is dInfer's (arXiv 2510.08666): masks that stand apart depend less on one another. Either of its
limits may be None: every run's surest, none beside them.

A new schedule is a function of a row and a line in SCHEDULES, a new limit a function of ranks and a line in
LIMITS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unmask.decoding.board import Board, padded
from unmask.decoding.row import Row

if TYPE_CHECKING:
    from unmask.decoding.unmasking import Candidates, Unmasking


@dataclass(frozen=True)
class Ranked:
    """The candidates of a step, each row's from the surest on.

    values, order: (rows, k), how sure, and which candidate. Equal ones go left to right.
    padding: (rows, k) bool, behind those that a row has.
    """

    board: Board
    candidates: Sequence[Candidates]
    values: Tensor
    order: Tensor
    padding: Tensor

    @property
    def nth(self) -> Tensor:
        """(k,): 1 for the surest."""
        return torch.arange(1, self.values.size(1) + 1, device=self.values.device)


@dataclass(frozen=True)
class Limit:
    """A quota that looks at how sure the masks are.

    passes: (unmasking, ranked) -> (rows, k) bool. A step commits the surest, as long as they pass.
    needs: the settings that it compares with; they must be given. may: those that may be.
    scattered: it commits all that pass, whatever stands between them.
    rank: the only rank that it goes with, if any, and why.
    scheduled: whether it has a number of steps, too.
    """

    passes: Callable[[Unmasking, Ranked], Tensor]
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    scattered: bool = False
    rank: str | None = None
    why: str = ""
    scheduled: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        return self.needs + self.may

    def choose(self, unmasking: Unmasking, ranked: Ranked) -> tuple[Tensor, Tensor]:
        """The candidates, those first that the step commits, (rows, k), and how many it does, (rows,)."""
        passed = self.passes(unmasking, ranked) & ~ranked.padding
        passed[:, 0] |= True if not self.scattered else ~passed.any(-1)  # or decoding may never end
        if self.scattered:
            return ranked.order.gather(1, (~passed).long().argsort(stable=True)), passed.sum(-1)
        return ranked.order, passed.cumprod(-1).sum(-1)


@cache
def linear_counts(masks: int, steps: int) -> list[int]:
    """Masks that each step of a block commits under dllm's linear schedule (ZHZisZZ/dllm ca17675); no zeros.

    The share of the masks left is 1 / (steps left). Computed in float32 in the published order: where share
    times masks is half a token, rounding errors decide.
    """
    counts = []
    for left in range(steps, 0, -1):
        s, t = torch.tensor([left - 1, left], dtype=torch.float64).div(steps).float()
        share = float(1 - (1 - (1 - s)) / (1 - (1 - t)))
        counts.append(round((masks - sum(counts)) * share))
    return [count for count in counts if count]


# Schedules: how many of a row's masks


def even(unmasking: Unmasking, row: Row, masks: int) -> int:
    return -(-masks // unmasking.steps_left(row)[1])  # the earlier steps take the remainder


def dream_share(unmasking: Unmasking, row: Row) -> float:
    """The share of its masks that Dream unmasks in this step: 1 - s/t, and all of them in the last."""
    steps, left = unmasking.steps_left(row)
    times = torch.linspace(1, unmasking.epsilon, steps + 1)
    i = steps - left
    return 1.0 if left == 1 else float(1 - times[i + 1] / times[i])


def dream(unmasking: Unmasking, row: Row, masks: int) -> int:
    return int(masks * dream_share(unmasking, row))


def static(unmasking: Unmasking, row: Row, masks: int) -> int:
    steps, spent = unmasking.steps_of_block(row), row.state.spent - 1
    length = unmasking.block_length or len(row.canvas)
    return min(masks, max(1, length // steps + (spent < length % steps)))


def linear(unmasking: Unmasking, row: Row, masks: int) -> int:
    counts = linear_counts(len(row.state.block), unmasking.steps_of_block(row))
    spent = row.state.spent - 1
    return min(masks, counts[spent]) if spent < len(counts) else masks


SCHEDULES: dict[str, Callable[[Unmasking, Row, int], int]] = {
    "even": even,
    "dream": dream,
    "origin": dream,  # which draws them: see Unmasking
    "static": static,
    "linear": linear,
}


# Limits: which of the ranked masks


def threshold(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    return ranked.values >= unmasking.least(unmasking.threshold)


def due(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    """The masks that the static schedule would commit, (rows, k)."""
    pairs = zip(ranked.board.rows, ranked.candidates, strict=True)
    counts = [static(unmasking, row, len(mine.positions)) for row, mine in pairs]
    return ranked.nth <= ranked.board.tensor(counts)[:, None]


def dynamic(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    return due(unmasking, ranked) | (ranked.values > unmasking.least(unmasking.threshold))


def factor(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    return (ranked.nth + 1) * (1 - ranked.values.exp()) <= unmasking.factor


def published_factor(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    lengths = (~ranked.padding).sum(-1, keepdim=True)
    return factor(unmasking, ranked) | (ranked.nth == lengths)


def entropy_bound(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    entropies = -ranked.values.masked_fill(ranked.padding, 0)
    return entropies.cumsum(-1) - entropies <= unmasking.bound


def entropy_sum(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    return -ranked.values.masked_fill(ranked.padding, 0).cumsum(-1) < unmasking.bound


def near_ties(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    likely = ranked.values.exp()
    return likely >= (likely[:, :1] - 1e-5).clamp(max=unmasking.threshold)


def hierarchy(unmasking: Unmasking, ranked: Ranked) -> Tensor:
    positions = ranked.board.tensor(padded(mine.positions for mine in ranked.candidates))
    sure = torch.empty_like(ranked.values).scatter(1, ranked.order, ranked.values)  # from the left
    begins = positions.diff(prepend=positions[:, :1]) != 1
    run = begins.cumsum(-1) - 1
    best = torch.full_like(sure, -torch.inf).scatter_reduce(1, run, sure, "amax")
    chosen = sure == best.gather(1, run)
    if unmasking.low_threshold is not None:
        chosen &= sure > unmasking.least(unmasking.low_threshold)
    chosen = chosen.gather(1, ranked.order) | (ranked.nth == 1)
    if unmasking.threshold is not None:
        chosen |= ranked.values > unmasking.least(unmasking.threshold)
    return chosen


PROBABILITIES = {"rank": "confidence", "why": "is about probabilities"}
ENTROPIES = {"rank": "entropy", "why": "adds entropies"}
LIMITS = {
    "threshold": Limit(threshold, ("threshold",)),
    "dynamic": Limit(dynamic, ("threshold",), scheduled=True),
    "factor": Limit(factor, ("factor",), **PROBABILITIES),
    "published_factor": Limit(published_factor, ("factor",), **PROBABILITIES),
    "entropy_bound": Limit(entropy_bound, ("bound",), **ENTROPIES),
    "entropy_sum": Limit(entropy_sum, ("bound",), **ENTROPIES),
    "hierarchy": Limit(hierarchy, may=("threshold", "low_threshold"), scattered=True),
    "near_ties": Limit(near_ties, ("threshold",), **PROBABILITIES),
}
