"""What a model is trained to do: the loss of one batch. Each objective returns (loss, number of tokens it is a mean of)."""

import torch
from torch.nn.functional import cross_entropy

from training.data import Batch

MIN_NOISE = 0.05  # the smallest share of masked tokens: caps the weight 1/t at 20


def autoregressive(model, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens given everything left of them. Causal models need no padding mask."""
    hidden = model.model(batch.ids[:, :-1]).last_hidden_state
    asked = batch.answer[:, 1:]
    return cross_entropy(model.lm_head(hidden[asked]), batch.ids[:, 1:][asked])


def masked_diffusion(model, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """The masked-diffusion bound (LLaDA, arXiv 2502.09992, eq. 3; MDLM, arXiv 2406.07524) on the answer positions.

    Each row masks a share t of its answer and of the silence after it, t stratified over the batch; cross-entropy of the masked
    tokens weighted by 1/t and divided by the number of tokens that could be masked. So the model learns where text ends.
    """
    rows = batch.ids.size(0)
    asked = batch.answer | batch.silence
    t = (torch.randperm(rows, generator=generator) + torch.rand(rows, generator=generator)) / rows
    t = MIN_NOISE + (1 - MIN_NOISE) * t[:, None]
    masked = asked & (torch.rand(batch.ids.shape, generator=generator) < t)
    noisy = torch.where(masked, model.config.mask_token_id, batch.ids)
    logits = model(noisy, logits_to_keep=masked).logits
    loss = cross_entropy(logits, batch.ids[masked], reduction="none")
    return (loss / t.expand_as(masked)[masked]).sum() / asked.sum()


OBJECTIVES = {"autoregressive": autoregressive, "masked_diffusion": masked_diffusion}
