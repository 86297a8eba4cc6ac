"""Discrete diffusion forcing: a denoiser learns to do without what stands right of its block (D2F, arXiv
2508.09192, sec. 4.2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unmask.decoding.visibility import attention_mask, block_causal
from unmask.training.data import Batch
from unmask.training.objectives.objective import STUDENT, Objective

NOISES, TARGETS = ("monotone", "random"), ("teacher", "data")


class D2F(Objective):
    """The same noisy text through a frozen teacher that sees all of it, and through a student that sees its
    prompt and the blocks up to its own: cross-entropy of the masked tokens against the teacher's
    distribution, weighted by 1/p of their block, a mean over the masked tokens (eq. 7).

    Blocks count from the end of the prompt, which is block 0; every block of a row has its own share p of
    masks. The end padding after an answer is masked and learned as well (upstream tried to leave it out, and
    took that back).
    """

    roles: ClassVar = {STUDENT: "diffusion", "teacher": "diffusion"}

    @dataclass(frozen=True)
    class Options:
        """block_length: of the blocks (published: 16).
        noise: monotone, p grows from block to block, as in a pipeline; random, each block draws its own.
        p_min, p_max: range of p (published: 0.2 to 0.7). A new block is decoded from all masks, p = 1.
        finished: in each row, what stands left of a block of its answer, drawn evenly, has no masks, as a
            pipeline has finished it; that block is the first of the noise. Published: false, and a student
            never sees a clean block of an answer.
        targets: teacher, its distribution; data, the text itself (no distillation).
        """

        block_length: int = 16
        noise: str = "monotone"
        p_min: float = 0.2
        p_max: float = 0.7
        finished: bool = False
        targets: str = "teacher"

        def __post_init__(self):
            if self.block_length < 1:
                raise ValueError(f"objective_options.block_length={self.block_length} must be at least 1")
            for name, known in (("noise", NOISES), ("targets", TARGETS)):
                if (value := getattr(self, name)) not in known:
                    raise ValueError(f"objective_options.{name}={value!r} is not one of {', '.join(known)}")
            if not 0 < self.p_min <= self.p_max <= 1:
                raise ValueError(
                    f"objective_options: p_min={self.p_min} and p_max={self.p_max} must be above 0 and at "
                    "most 1, the smaller one first"
                )

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        options, maskable = self.options, batch.maskable
        columns = torch.arange(maskable.size(1), device=maskable.device).expand_as(maskable)
        prompts = maskable.int().argmax(1)  # columns before the first maskable token
        block = (columns - prompts[:, None]).div(options.block_length, rounding_mode="floor").clamp(min=0)
        start = torch.zeros_like(prompts)
        if options.finished:
            answered = (block * batch.answer).amax(1).cpu() + 1
            start = (torch.rand(len(answered), generator=generator) * answered).long().to(maskable.device)
        blocks = block.amax(1) + 1 - start
        shares = block_shares(blocks, options.noise, options.p_min, options.p_max, generator)
        share = shares.to(maskable.device).gather(1, (block - start[:, None]).clamp(min=0))
        share = share * (block >= start[:, None])
        drawn = torch.rand(maskable.shape, generator=generator).to(maskable.device)
        masked = maskable & (drawn < share)
        noisy = torch.where(masked, self.student.config.mask_token_id, batch.ids)

        sees = block_causal(columns, prompts, options.block_length)
        student = self.student(
            noisy, attention_mask=attention_mask(sees, columns[0]), logits_to_keep=masked
        ).logits
        if options.targets == "data":
            wanted = batch.ids[masked]
        else:
            with self.frozen("teacher") as teacher:
                wanted = teacher(noisy, logits_to_keep=masked).logits.softmax(-1)
        loss = cross_entropy(student, wanted, reduction="none") / share[masked]
        return loss.sum() / max(1, len(loss))  # a small batch may have nothing masked


def block_shares(
    blocks: Tensor, noise: str, p_min: float, p_max: float, generator: torch.Generator
) -> Tensor:
    """The share of masks of every block, (rows, most blocks), on the CPU: `blocks` (rows,) of each row.

    monotone: p_1 is drawn evenly from the range, and each step up to the next is an even draw of what would
    reach p_max in equal steps.
    """
    blocks = blocks.cpu()[:, None]
    most = int(blocks.max())
    draws = torch.rand((len(blocks), most), generator=generator)
    if noise == "random":
        return p_min + (p_max - p_min) * draws
    first = p_min + (p_max - p_min) * draws[:, :1]
    steps = draws[:, 1:] * (p_max - first) / (blocks - 1).clamp(min=1)
    return torch.cat((first, first + steps.cumsum(1)), 1).clamp(max=p_max)
