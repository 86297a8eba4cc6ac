"""The loop of the decoders that unmask in any order: whole canvas in every forward, a schedule, a choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decoding.canvas import Board, denoise
from unmask.decoding.generation import Decoder, Models, Observer, Role, Row, Stop
from unmask.decoding.sampling import Sampling, at_least_one, step_generator


@dataclass(frozen=True)
class Unmasking(Sampling, Decoder):
    """steps: T, forwards for a full canvas; None = one per token.
    block_length: B, the canvas is finished block by block from the left; None = one block. Must divide the
        budget.
    temperature, top_p, top_k: see Sampling.
    """

    steps: int | None = None
    block_length: int | None = None

    def __post_init__(self):
        at_least_one(steps=self.steps, block_length=self.block_length)
        super().__post_init__()

    def check(self, budget: int) -> None:
        block = self.block_length or budget
        if budget % block:
            raise ValueError(f"block_length={block} does not divide the budget of {budget} tokens")
        if self.steps is not None and self.steps < budget // block:
            raise ValueError(
                f"steps={self.steps} is less than one step for each of the {budget // block} blocks"
            )

    def schedule(self, budget: int) -> Iterator[tuple[range, int]]:
        """(block, steps left in it) for every step, the steps spread evenly over the blocks."""
        block = self.block_length or budget
        blocks, steps = budget // block, min(self.steps or budget, budget)
        for b in range(blocks):
            left = steps // blocks + (b < steps % blocks)
            yield from ((range(b * block, (b + 1) * block), i) for i in range(left, 0, -1))

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        denoiser, board, budget = Role("denoiser", models.main), Board(rows, models), len(rows[0].canvas)
        for step, (block, left) in enumerate(self.schedule(budget)):
            if not board.rows:
                return
            generators = [step_generator(row.seed, step, models.device) for row in board.rows]
            masked = [[i for i in block if row.canvas[i] is None] for row in board.rows]
            wanted = [self.candidates(m, left, g) for m, g in zip(masked, generators, strict=True)]
            active = [i for i, positions in enumerate(wanted) if positions]
            if not active:  # nobody commits in this step, so the next forward would see the same canvas
                continue
            ends = [len(board.rows[i].prompt) + budget for i in active]
            marginals = denoise(
                board, denoiser, models.mask_id, [0] * len(active), ends, cached=False, only=active
            )
            columns = [[len(board.rows[i].prompt) + p for p in wanted[i]] for i in active]
            picked = []
            for i, logits in zip(active, marginals.logits(columns), strict=True):
                scores = self.scores(logits[: len(wanted[i])])
                noise = self.noise(generators[i], scores.shape)
                ids = (scores if noise is None else scores + noise).argmax(-1)
                chosen = self.choose(scores, ids, even(len(masked[i]), left))
                picked.append(torch.stack((chosen, ids[chosen])))
            sizes = [pick.size(1) for pick in picked]
            positions, tokens = [[] for _ in board.rows], [[] for _ in board.rows]
            for i, pick in zip(
                active, torch.cat(picked, 1).cpu().split(sizes, 1), strict=True
            ):  # one transfer a step
                positions[i], tokens[i] = [wanted[i][k] for k in pick[0].tolist()], pick[1].tolist()
            board.commit(positions, tokens, stop, observer)

    def candidates(self, masked: list[int], left: int, generator: torch.Generator) -> list[int]:
        """Canvas positions whose logits this step needs: by default every mask of the block."""
        return masked

    def choose(self, scores: Tensor, ids: Tensor, count: int) -> Tensor:
        """Which of the k candidates to commit, from their scores (k, V) and drawn ids (k,): the `count`
        highest ranks.

        Equal ranks go left to right: a stable sort, where published code takes what topk happens to return.
        """
        return self.rank(scores, ids).sort(descending=True, stable=True).indices[:count]

    def rank(self, scores: Tensor, ids: Tensor) -> Tensor:
        """How sure the denoiser is of each candidate, (k,): higher is committed earlier."""
        raise NotImplementedError


def even(masked: int, steps_left: int) -> int:
    """LLaDA's even schedule: masks spread over the steps that are left, the earlier ones taking the
    remainder."""
    return -(-masked // steps_left)
