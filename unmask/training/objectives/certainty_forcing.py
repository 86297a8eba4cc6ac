"""Certainty-forcing distillation: a denoiser learns to be sure, in parallel, of answers that it gave itself
(dParallel, arXiv 2509.26488, sec. 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unmask.training.data import Batch
from unmask.training.objectives.objective import Objective


class CertaintyForcing(Objective):
    """Cross-entropy of masked tokens, and the entropy of those that are predicted right already.

    Of each row one block is at work, drawn evenly from the blocks that begin in its answer: what stands left
    of it is clean, what follows is masked and costs nothing (semi-autoregressive masking). Its tokens are
    masked by `mask_ratio`, and a second copy of the row masks the others (complementary masks): every token
    of the block is predicted once. Both terms are means over a row's tokens, then over rows.

    Train it on the student's own answers to the training split, the right ones of them (`correct:FOLDER`).
    The published code draws blocks in the padding after the answer too; decoding here never gets there.
    """

    @dataclass(frozen=True)
    class Options:
        """beta: weight of the entropy (published: 2 for LLaDA, 1 for Dream); 0 = no certainty loss.
        consistency: weight of the cross-entropy; 0 = no consistency loss.
        temperature: of the logits whose entropy is taken.
        mask_ratio: share of the block that is masked in the first copy; the second one masks the rest.
        block_length: null = the whole answer is one block (as published for Dream).
        """

        beta: float = 2.0
        consistency: float = 1.0
        temperature: float = 0.5
        mask_ratio: float = 0.5
        block_length: int | None = 32

        def __post_init__(self):
            for name in ("beta", "consistency"):
                if not getattr(self, name) >= 0:
                    raise ValueError(f"objective_options.{name}={getattr(self, name)} must be 0 or more")
            if not self.temperature > 0:
                raise ValueError(f"objective_options.temperature={self.temperature} must be above 0")
            if not 0 < self.mask_ratio <= 1:
                raise ValueError(
                    f"objective_options.mask_ratio={self.mask_ratio} must be above 0 and at most 1"
                )
            if self.block_length is not None and self.block_length < 1:
                raise ValueError(f"objective_options.block_length={self.block_length} must be at least 1")

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        maskable = batch.maskable
        block, after = chosen_block(maskable, batch.answer, self.options.block_length, generator)
        drawn = torch.rand(maskable.shape, generator=generator).to(maskable.device) < self.options.mask_ratio
        masked = torch.cat((block & drawn, block & ~drawn))  # the second half complements the first
        ids = batch.ids.repeat(2, 1)
        hidden = masked | after.repeat(2, 1)
        noisy = torch.where(hidden, self.student.config.mask_token_id, ids)
        logits = self.student(noisy, logits_to_keep=masked).logits
        wanted = ids[masked]
        consistency = row_means(cross_entropy(logits, wanted, reduction="none"), masked)
        right = logits.argmax(-1) == wanted
        certain = masked.clone()
        certain[masked] = right
        uncertainty = row_means(entropy(logits[right] / self.options.temperature), certain)
        # A row's two copies add up (eq. 8); rows average.
        return 2 * (self.options.consistency * consistency + self.options.beta * uncertainty)


def chosen_block(
    maskable: Tensor, answer: Tensor, length: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(the tokens of one block of each row, all maskable tokens after it): bool, of the shape of `maskable`.

    maskable, answer: (rows, n) bool, `maskable` the answer and the end padding after it. Blocks of `length`
    are counted from the first maskable token. None: the answer is one block.
    """
    number = maskable.cumsum(1) - 1  # of a maskable token among its row's
    tokens = answer.sum(1, keepdim=True)
    if length is None:
        return answer, maskable & (number >= tokens)
    blocks = (tokens + length - 1).div(length, rounding_mode="floor")
    draws = torch.rand((len(maskable), 1), generator=generator).to(maskable.device)
    begin = (draws * blocks).long() * length
    return maskable & (number >= begin) & (number < begin + length), maskable & (number >= begin + length)


def entropy(logits: Tensor) -> Tensor:
    """In nats: (..., V) -> (...)."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def row_means(values: Tensor, positions: Tensor) -> Tensor:
    """The mean of each row's values, averaged over all rows; a row without any counts as 0.

    values: one for each True of `positions` (rows, n), in order.
    """
    counts = positions.sum(1)
    weight = (1 / counts.clamp(min=1))[:, None].expand(positions.shape)[positions]
    return (values * weight).sum() / len(positions)
