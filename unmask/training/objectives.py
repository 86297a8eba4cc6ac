"""What a model is trained to do: the loss of one batch. Noise comes from a CPU generator."""

from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from unmask.training.data import Batch

MIN_NOISE = 0.05  # the smallest share of masked tokens: caps the weight 1/t at 20
NEAR, FALL = 4.0, 0.85  # weight of the first token after a cut, and what each further one keeps of it
BLOCKS = (1, 2, 4, 8, 16)  # block sizes that are drawn
QUIET = 8  # tokens of the silence after an answer that its blocks include


def autoregressive(model, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens given everything left of them. Causal models need no padding
    mask."""
    hidden = model.model(batch.ids[:, :-1]).last_hidden_state
    asked = batch.answer[:, 1:]
    return cross_entropy(model.lm_head(hidden[asked]), batch.ids[:, 1:][asked])


def masked_diffusion(
    model, batch: Batch, generator: torch.Generator, left_to_right: float = 0.0, blocks: float = 0.0
) -> torch.Tensor:
    """The masked-diffusion bound (LLaDA, arXiv 2502.09992, eq. 3; MDLM, arXiv 2406.07524) on the answer
    positions.

    Each row masks a share t of its answer and of the silence after it, t stratified over the batch;
    cross-entropy of the masked tokens weighted by 1/t and divided by the number of tokens that could be
    masked. So the model learns where text ends. Drills mask all their results: no line helps with another.

    Under such masks alone a small model learns to copy results from the text after them instead of
    calculating. So
    left_to_right: share of the rows that are masked from a cut on, as every semi-autoregressive decoder meets
    them, with weights that fall with the distance from the last clean token (compare Dream's context-adaptive
    noise, arXiv 2508.15487, sec. 3);
    blocks: share of the batches that train all blocks of the answer at once, see `block_diffusion`.
    """

    def uniform(*shape: int) -> torch.Tensor:  # drawn on the CPU: the same on every device
        return torch.rand(shape, generator=generator).to(batch.ids.device)

    if uniform(1) < blocks:
        size = BLOCKS[int(torch.randint(len(BLOCKS), (1,), generator=generator))]
        return block_diffusion(model, batch, size, int(torch.randint(size, (1,), generator=generator)))
    rows = batch.ids.size(0)
    asked = batch.answer | batch.silence
    t = (torch.randperm(rows, generator=generator).to(asked.device) + uniform(rows)) / rows
    t = MIN_NOISE + (1 - MIN_NOISE) * t[:, None]
    t = torch.where(batch.drill[:, None], 1.0, t)
    masked = asked & (uniform(*batch.ids.shape) < t)
    weight = 1 / t.expand(batch.ids.shape)

    cut = (uniform(rows) * batch.answer.sum(1)).long()  # tokens of the answer that stay
    beyond = asked.cumsum(1) - cut[:, None]  # 1 at the first masked token
    chosen = (uniform(rows) < left_to_right) & ~batch.drill
    masked = torch.where(chosen[:, None], asked & (beyond > 0), masked)
    weight = torch.where(chosen[:, None], NEAR * FALL ** (beyond - 1), weight)

    noisy = torch.where(masked, model.config.mask_token_id, batch.ids)
    logits = model(noisy, logits_to_keep=masked).logits
    loss = cross_entropy(logits, batch.ids[masked], reduction="none")
    return (loss * weight[masked]).sum() / asked.sum()


def block_diffusion(model, batch: Batch, size: int, offset: int = 0) -> torch.Tensor:
    """Every block of the answer predicted from the clean text left of it, in one forward (BD3-LM, arXiv
    2503.09573, sec. 3.2).

    A masked copy of the answer follows the clean text. Clean tokens see the prompt and the blocks up to their
    own; the copy of a block sees itself and the clean blocks before it. `size` 1 is next-token prediction.
    Blocks begin `offset` tokens early, so that their edges wander. Far tokens of a block weigh less, as in
    `masked_diffusion`.
    """
    asked = batch.answer | (batch.silence & (batch.silence.cumsum(1) <= QUIET))
    n = int(asked.any(0).nonzero().max()) + 1
    ids, asked, places = batch.ids[:, :n], asked[:, :n], torch.arange(n, device=asked.device)
    first = asked.int().argmax(1, keepdim=True)
    last = n - 1 - asked.flip(1).int().argmax(1, keepdim=True)
    inside = (places >= first) & (places <= last)
    block = torch.where(inside, (places - first + offset) // size + 1, 0)  # the prompt is block 0

    count = inside.sum(1, keepdim=True)
    steps = torch.arange(int(count.max()), device=asked.device)
    copy = (first + steps).clamp(max=n - 1)  # the place of every token of the copy
    copied = block.gather(1, copy)
    noisy = torch.where(asked, model.config.mask_token_id, ids).gather(1, copy)
    real = (places <= last)[:, None, :]
    sees = torch.cat(
        [
            torch.cat(
                [
                    (block[:, :, None] >= block[:, None, :]) & real,
                    (copied[:, :, None] > block[:, None, :]) & real,
                ],
                1,
            ),
            torch.cat(
                [
                    torch.zeros(len(ids), n, len(steps), dtype=torch.bool, device=asked.device),
                    (copied[:, :, None] == copied[:, None, :]) & (steps < count)[:, None, :],
                ],
                1,
            ),
        ],
        2,
    )
    hidden = model.model(
        input_ids=torch.cat([ids, noisy], 1),
        attention_mask=sees[:, None],
        position_ids=torch.cat([places.expand_as(ids), copy], 1),
        use_cache=False,
    ).last_hidden_state
    clean, hidden = hidden[:, :n], hidden[:, n:]
    if (
        model.lookback
    ):  # shifted: a token is predicted one place earlier, the first of a block by the clean token before it
        begins = torch.cat([torch.ones_like(copied[:, :1]), copied.diff(dim=1)], 1) > 0
        before = clean.gather(1, (copy - 1)[..., None].expand_as(hidden))
        hidden = torch.where(begins[..., None], before, hidden.roll(1, 1))
    target = asked.gather(1, copy) & (steps < count)
    loss = cross_entropy(model.lm_head(hidden[target]), ids.gather(1, copy)[target], reduction="none")
    weight = FALL ** ((copy - first + offset) % size)[target]
    return (loss * weight).sum() / weight.sum()


class Loss(torch.nn.Module):
    """A model and its objective as one module: what DistributedDataParallel wraps."""

    def __init__(self, model: torch.nn.Module, objective: Callable, options: dict):
        super().__init__()
        self.model, self.objective, self.options = model, objective, options

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return self.objective(self.model, batch, generator, **self.options)


OBJECTIVES = {"autoregressive": autoregressive, "masked_diffusion": masked_diffusion}
