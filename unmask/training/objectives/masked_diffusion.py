"""Masked diffusion: predict what is masked from what is not, in any order or block by block."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unmask.decoding.visibility import attention_mask, block_causal
from unmask.training.data import Batch
from unmask.training.objectives.objective import Objective

MIN_NOISE = 0.05  # the smallest share of masked tokens: caps the weight 1/t at 20
NEAR, FALL = 4.0, 0.85  # weight of the first token after a cut, and what each further one keeps of it
QUIET = 8  # tokens of the silence after an answer that its blocks include


class MaskedDiffusion(Objective):
    """The masked-diffusion bound on the answer positions (LLaDA, arXiv 2502.09992, eq. 3; MDLM, arXiv
    2406.07524).

    Each row masks a share t of its answer and of the silence after it, t stratified over the batch;
    cross-entropy of the masked tokens weighted by 1/t and divided by the number of tokens that could be
    masked. So the model learns where text ends. Drills mask all their results: no line helps with another.

    Under such masks alone a small model learns to copy results from the text after them instead of
    calculating: the options are against that.
    """

    @dataclass(frozen=True)
    class Options:
        """left_to_right: share of the rows that are masked from a cut on, as every semi-autoregressive
            decoder meets them, with weights that fall with the distance from the last clean token (compare
            Dream's context-adaptive noise, arXiv 2508.15487, sec. 3).
        blocks: share of the batches that train all blocks of the answer at once (`block_diffusion`).
        whole_blocks: share of the blocks that are masked from end to end, in both of these. Each of the
            others has a mask ratio of its own, so that a model learns to go on from any part of a block, in
            any order.
        largest_block: block sizes are powers of two up to this one.
        """

        left_to_right: float = 0.0
        blocks: float = 0.0
        whole_blocks: float = 1.0
        largest_block: int = 16

        def __post_init__(self):
            for name in ("left_to_right", "blocks", "whole_blocks"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"objective_options.{name}={getattr(self, name)} must be from 0 to 1")
            if self.largest_block < 1:
                raise ValueError(f"objective_options.largest_block={self.largest_block} must be at least 1")

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        def uniform(*shape: int) -> Tensor:  # drawn on the CPU: the same on every device
            return torch.rand(shape, generator=generator).to(batch.ids.device)

        whole = self.options.whole_blocks
        if uniform(1) < self.options.blocks:
            size = self._block_size(generator)
            offset = int(torch.randint(size, (1,), generator=generator))
            return block_diffusion(self.student, batch, size, offset, whole, generator)

        rows = batch.ids.size(0)
        asked = batch.answer | batch.silence
        order = torch.randperm(rows, generator=generator).to(asked.device)
        t = (order + uniform(rows)) / rows
        t = MIN_NOISE + (1 - MIN_NOISE) * t[:, None]
        t = torch.where(batch.drill[:, None], 1.0, t)
        masked = asked & (uniform(*batch.ids.shape) < t)
        weight = 1 / t.expand(batch.ids.shape)

        cut = (uniform(rows) * batch.answer.sum(1)).long()  # tokens of the answer that stay
        beyond = asked.cumsum(1) - cut[:, None]  # 1 at the first masked token
        chosen = (uniform(rows) < self.options.left_to_right) & ~batch.drill
        hidden = asked & (beyond > 0)
        if whole < 1:  # the block at the cut is partly revealed; what follows it is not
            size = self._block_size(generator)
            block = hidden & (beyond <= size)
            hidden &= ~block | (uniform(*block.shape) < mask_ratios((rows, 1), size, whole, uniform))
        masked = torch.where(chosen[:, None], hidden, masked)
        weight = torch.where(chosen[:, None], NEAR * FALL ** (hidden.cumsum(1) - 1), weight)

        noisy = torch.where(masked, self.student.config.mask_token_id, batch.ids)
        logits = self.student(noisy, logits_to_keep=masked).logits
        loss = cross_entropy(logits, batch.ids[masked], reduction="none")
        return (loss * weight[masked]).sum() / asked.sum()

    def _block_size(self, generator: torch.Generator) -> int:
        powers = self.options.largest_block.bit_length()  # 1, 2, 4, ... up to the largest
        return 2 ** int(torch.randint(powers, (1,), generator=generator))


def mask_ratios(shape: tuple[int, ...], size: int, whole: float, uniform: Callable[..., Tensor]) -> Tensor:
    """The share of each block that is masked: 1 for a share `whole` of them, else evenly from 1/size to 1."""
    drawn = 1 / size + (1 - 1 / size) * uniform(*shape)
    return torch.where(uniform(*shape) < whole, 1.0, drawn)


class Blocks(NamedTuple):
    """The blocks of a batch of answers, and the copy of each answer that follows its text."""

    first: Tensor  # (rows, 1) column of the first asked token
    copy: Tensor  # (rows, m) column that each token of the copy is a copy of; clamped to the text
    real: Tensor  # (rows, m) bool: a token of this row's answer, and no padding
    sees: Tensor  # (rows, 1, n + m, n + m) bool: who attends to whom


def block_layout(asked: Tensor, size: int, offset: int) -> Blocks:
    """Blocks of `size` from the first asked token on, the first one cut short by `offset`: (rows, n) bool.

    A clean token sees the prompt and the blocks up to its own. The copy of a block sees itself and the clean
    blocks before it.
    """
    rows, n = asked.shape
    columns = torch.arange(n, device=asked.device)
    first = asked.int().argmax(1, keepdim=True)
    end = n - asked.flip(1).int().argmax(1, keepdim=True)  # of the answer
    shifted = (columns + offset).expand(rows, n)
    ends = block_causal(shifted, first[:, 0], size) - offset
    ends = torch.where(columns < first, first, ends).minimum(end)

    places = first + torch.arange(int((end - first).max()), device=asked.device)
    copy = places.clamp(max=n - 1)
    own = ends.gather(1, copy)
    # Where the block before ends: the first block is cut short, and the prompt is before it.
    before = (copy - (copy - first + offset) % size).maximum(first)

    clean = attention_mask(ends, columns)
    known = attention_mask(before, columns)
    itself = attention_mask(own, places) & ~attention_mask(before, places)
    nothing = torch.zeros_like(known.mT)
    sees = torch.cat((torch.cat((clean, nothing), -1), torch.cat((known, itself), -1)), -2)
    return Blocks(first, copy, places < end, sees)


def block_diffusion(
    model: nn.Module,
    batch: Batch,
    size: int,
    offset: int = 0,
    whole: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Every block of the answer predicted from the clean text left of it, in one forward (BD3-LM, arXiv
    2503.09573, sec. 3.2).

    A masked copy of the answer follows the clean text (`block_layout`). `size` 1 is next-token prediction.
    Blocks begin `offset` tokens early, so that their edges wander. All but a share `whole` of them are masked
    in part, each by its own ratio, drawn from `generator`; a clean token of the copy is seen by its block. A
    token weighs less by every masked one before it in its block.
    """
    asked = batch.answer | (batch.silence & (batch.silence.cumsum(1) <= QUIET))
    n = int(asked.any(0).nonzero().max()) + 1
    ids, asked = batch.ids[:, :n], asked[:, :n]
    blocks = block_layout(asked, size, offset)
    copy = blocks.copy

    places = copy - blocks.first + offset
    within = places % size  # places from the start of the block
    target = asked.gather(1, copy) & blocks.real
    if whole < 1:
        target &= partly_masked(places // size, size, whole, generator)
    noisy = torch.where(target, model.config.mask_token_id, ids.gather(1, copy))
    hidden = model.model(
        input_ids=torch.cat([ids, noisy], 1),
        attention_mask=blocks.sees,
        position_ids=torch.cat([torch.arange(n, device=ids.device).expand_as(ids), copy], 1),
        use_cache=False,
    ).last_hidden_state
    clean, hidden = hidden[:, :n], hidden[:, n:]
    if model.lookback:
        # Shifted: a token is predicted one place earlier, the first of a block by the clean token before it.
        begins = (within == 0) | (copy == blocks.first)
        before = clean.gather(1, (copy - 1)[..., None].expand_as(hidden))
        hidden = torch.where(begins[..., None], before, hidden.roll(1, 1))

    logits = model.lm_head(hidden[target])
    loss = cross_entropy(logits, ids.gather(1, copy)[target], reduction="none")
    weight = FALL ** masked_before(target, within)[target]
    return (loss * weight).sum() / weight.sum().clamp(min=1e-9)  # a small batch may have nothing masked


def partly_masked(block: Tensor, size: int, whole: float, generator: torch.Generator) -> Tensor:
    """Which tokens are masked when every block has its own ratio: (rows, m) numbers of blocks -> bool."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(block.device)

    ratios = mask_ratios((len(block), int(block.max()) + 1), size, whole, uniform)
    return uniform(*block.shape) < ratios.gather(1, block)


def masked_before(masked: Tensor, within: Tensor) -> Tensor:
    """How many masked tokens stand before each in its block; `within`: places from the block's start."""
    before = masked.cumsum(1) - masked.int()
    columns = torch.arange(masked.size(1), device=masked.device)
    return before - before.gather(1, (columns - within).clamp(min=0))
