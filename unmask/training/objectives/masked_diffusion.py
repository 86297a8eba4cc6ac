"""Masked diffusion: predict what is masked from what is not, in any order or block by block.

Letters of shapes: n columns of a text, m columns of the copy of its answer (`block_diffusion`).
"""

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
LEARNED_PADDING = 8  # tokens of the end padding after an answer that its blocks include


class MaskedDiffusion(Objective):
    """The masked-diffusion bound on the answer positions (LLaDA, arXiv 2502.09992, eq. 3; MDLM, arXiv
    2406.07524).

    Each row masks a share t of its answer and of the end padding after it, t stratified over the batch;
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
        whole_blocks: share of the blocks that are fully masked, in both of these; the others have a random
            mask ratio each, so that a model learns to go on from any part of a block, in any order.
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
        device, whole = batch.ids.device, self.options.whole_blocks
        if uniform((1,), generator, device) < self.options.blocks:
            size = self._block_size(generator)
            offset = int(torch.randint(size, (1,), generator=generator))
            return block_diffusion(self.student, batch, size, offset, whole, generator)

        rows = len(batch.ids)
        masked, weight = any_order(batch, generator)
        kept = (uniform((rows,), generator, device) * batch.answer.sum(1)).long()
        cut = (uniform((rows,), generator, device) < self.options.left_to_right) & ~batch.drill
        hidden = from_cut(batch.maskable, kept)
        if whole < 1:
            hidden &= ~revealed_at_cut(hidden, self._block_size(generator), whole, generator)
        masked = torch.where(cut[:, None], hidden, masked)
        weight = torch.where(cut[:, None], NEAR * FALL ** (hidden.cumsum(1) - 1), weight)

        noisy = torch.where(masked, self.student.config.mask_token_id, batch.ids)
        logits = self.student(noisy, logits_to_keep=masked).logits
        loss = cross_entropy(logits, batch.ids[masked], reduction="none")
        return (loss * weight[masked]).sum() / batch.maskable.sum()

    def _block_size(self, generator: torch.Generator) -> int:
        powers = self.options.largest_block.bit_length()  # 1, 2, 4, ... up to the largest
        return 2 ** int(torch.randint(powers, (1,), generator=generator))


# --- masks over a text ---


def any_order(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(masked, weight): (rows, n) bool and (rows, n). A share t of each row's maskable tokens, weight 1/t.

    One t from every 1/rows of the range, in random order (stratified); drills have t = 1.
    """
    rows, device = len(batch.ids), batch.ids.device
    order = torch.randperm(rows, generator=generator).to(device)
    t = (order + uniform((rows,), generator, device)) / rows
    t = MIN_NOISE + (1 - MIN_NOISE) * t[:, None]
    t = torch.where(batch.drill[:, None], 1.0, t)
    masked = batch.maskable & (uniform(batch.ids.shape, generator, device) < t)
    return masked, 1 / t.expand(batch.ids.shape)


def from_cut(maskable: Tensor, kept: Tensor) -> Tensor:
    """All maskable tokens of a row but its first `kept`: (rows, n) bool, (rows,) -> (rows, n) bool."""
    return maskable & (maskable.cumsum(1) > kept[:, None])


def revealed_at_cut(hidden: Tensor, size: int, whole: float, generator: torch.Generator) -> Tensor:
    """What is shown of the first `size` hidden tokens of each row, a block of its own mask ratio: (rows, n)
    bool -> (rows, n) bool. What follows that block stays hidden."""
    block = hidden & (hidden.cumsum(1) <= size)
    drawn = uniform(hidden.shape, generator, hidden.device)
    return block & (drawn >= mask_ratios((len(hidden), 1), size, whole, generator, hidden.device))


def mask_ratios(
    shape: tuple[int, ...], size: int, whole: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """The share of each block that is masked: 1 for a share `whole` of them, else evenly from 1/size to 1."""
    drawn = 1 / size + (1 - 1 / size) * uniform(shape, generator, device)
    return torch.where(uniform(shape, generator, device) < whole, 1.0, drawn)


def uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers from 0 to 1, drawn on the CPU: the same on every device."""
    return torch.rand(shape, generator=generator).to(device)


# --- all blocks of an answer in one forward ---


class Copy(NamedTuple):
    """The copy of a batch's answers that follows the text, cut into blocks of `size`.

    Blocks begin at the first maskable token of a row. The first one is cut short by `offset`.
    """

    columns: Tensor  # (rows, m): the column of the text that each token is a copy of, clamped to the text
    real: Tensor  # (rows, m) bool: a token of this row's answer; shorter rows are filled up
    block: Tensor  # (rows, m): number of the block, from 0
    within: Tensor  # (rows, m): index in the block, as if the first one were not cut short
    begins: Tensor  # (rows, m) bool: the first token of a block
    sees: Tensor  # (rows, 1, n + m, n + m) bool: who attends to whom, text first


def answer_span(maskable: Tensor) -> tuple[Tensor, Tensor]:
    """(first maskable column, column after the last one), each (rows, 1), of (rows, n) bool."""
    first = maskable.int().argmax(1, keepdim=True)
    return first, maskable.size(1) - maskable.flip(1).int().argmax(1, keepdim=True)


def block_ends(first: Tensor, end: Tensor, n: int, size: int, offset: int) -> Tensor:
    """How far right each column of a text sees: the end of its block, of a prompt's column the prompt's end.

    first, end: (rows, 1) of `answer_span` -> (rows, n). The first block ends `offset` columns early, the last
    one with the answer.
    """
    columns = torch.arange(n, device=first.device)
    ends = block_causal((columns + offset).expand(len(first), n), first[:, 0], size) - offset
    return torch.where(columns < first, first, ends).minimum(end)


def copy_of_answers(maskable: Tensor, size: int, offset: int) -> Copy:
    """The copy of each row's answer, in blocks: (rows, n) bool -> m columns, those of the longest answer.

    A column of the text sees the prompt and the blocks up to its own. A column of the copy sees the text left
    of its block, and its own block of the copy.
    """
    n = maskable.size(1)
    first, end = answer_span(maskable)
    ends = block_ends(first, end, n, size, offset)
    text = torch.arange(n, device=maskable.device)
    positions = first + torch.arange(
        int((end - first).max()), device=maskable.device
    )  # beyond a short row too
    columns = positions.clamp(max=n - 1)
    block, within = _numbered(columns - first + offset, size)
    left = (columns - within).maximum(first)  # where its block begins: the first one is cut short
    own = attention_mask(ends.gather(1, columns), positions) & ~attention_mask(left, positions)
    sees = _quadrants(attention_mask(ends, text), attention_mask(left, text), own)
    return Copy(columns, positions < end, block, within, (within == 0) | (columns == first), sees)


def _numbered(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(number of the block, index in it) of positions that count from the first block's beginning."""
    return positions // size, positions % size


def _quadrants(text: Tensor, copy_to_text: Tensor, copy: Tensor) -> Tensor:
    """One mask (rows, 1, n + m, n + m) of three: text to text (n, n), copy to text (m, n), copy to copy (m,
    m). The text sees nothing of the copy."""
    nothing = torch.zeros_like(copy_to_text.mT)
    return torch.cat((torch.cat((text, nothing), -1), torch.cat((copy_to_text, copy), -1)), -2)


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

    A masked copy of the answer follows the clean text (`copy_of_answers`). `size` 1 is next-token prediction.
    Blocks begin `offset` tokens early, so that their edges vary. A share `whole` of them is fully masked, the
    others have a random mask ratio each, drawn from `generator`; a clean token of the copy is seen by its
    block. A token's weight falls with every masked one before it in its block.
    """
    maskable = batch.answer | (batch.end_padding & (batch.end_padding.cumsum(1) <= LEARNED_PADDING))
    n = int(maskable.any(0).nonzero().max()) + 1
    ids, maskable = batch.ids[:, :n], maskable[:, :n]
    copy = copy_of_answers(maskable, size, offset)
    masked = maskable.gather(1, copy.columns) & copy.real
    if whole < 1:
        masked &= partly_masked(copy.block, size, whole, generator)

    wanted = ids.gather(1, copy.columns)
    noisy = torch.where(masked, model.config.mask_token_id, wanted)
    hidden = model.model(
        input_ids=torch.cat([ids, noisy], 1),
        attention_mask=copy.sees,
        position_ids=torch.cat([torch.arange(n, device=ids.device).expand_as(ids), copy.columns], 1),
        use_cache=False,
    ).last_hidden_state
    text, hidden = hidden[:, :n], hidden[:, n:]
    if model.lookback:
        hidden = one_earlier(text, hidden, copy)
    loss = cross_entropy(model.lm_head(hidden[masked]), wanted[masked], reduction="none")
    weight = FALL ** masked_before(masked, copy.within)[masked]
    return (loss * weight).sum() / weight.sum().clamp(min=1e-9)  # a small batch may have nothing masked


def one_earlier(text: Tensor, hidden: Tensor, copy: Copy) -> Tensor:
    """For a shifted model (Dream), which predicts a token one column earlier: (rows, m, d), of each token of
    the copy the state of the token before it, of the first of a block the clean text's.

    text: (rows, n, d). hidden: (rows, m, d).
    """
    before = text.gather(1, (copy.columns - 1)[..., None].expand_as(hidden))
    return torch.where(copy.begins[..., None], before, hidden.roll(1, 1))


def partly_masked(block: Tensor, size: int, whole: float, generator: torch.Generator) -> Tensor:
    """Which tokens are masked when every block has its own ratio: (rows, m) numbers of blocks -> bool."""
    ratios = mask_ratios((len(block), int(block.max()) + 1), size, whole, generator, block.device)
    return uniform(block.shape, generator, block.device) < ratios.gather(1, block)


def masked_before(masked: Tensor, within: Tensor) -> Tensor:
    """How many masked tokens stand before each in its block: (rows, m) bool, (rows, m) indices in the block
    -> (rows, m)."""
    before = masked.cumsum(1) - masked.int()
    columns = torch.arange(masked.size(1), device=masked.device)
    return before - before.gather(1, (columns - within).clamp(min=0))
