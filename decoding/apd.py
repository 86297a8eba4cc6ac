"""Adaptive parallel decoding (APD, arXiv 2506.00413, Algorithm 1): a small causal model judges a parallel draft."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from decoding.canvas import Windowed, crop
from decoding.generation import Models, Observer, Role, Row, Stop
from decoding.sampling import ban, step_generator

COUPLINGS = ("gumbel", "argmax")


@dataclass(frozen=True)
class APD(Windowed):
    """mixture_weight: R in [0, 1], the denoiser's weight in the judgement; 1 accepts the whole draft, higher is faster.
    coupling: "gumbel" judges with the draft's own noise (the paper). "argmax" does what the published code does: it
        drafts at temperature T^2, accepts while the draft is the argmax of the mixture, and filters the draft alone.
    kv_window (W), max_lookahead (M): see Windowed; M is also the length of a draft.
    temperature, top_p, top_k: see Sampling; with "gumbel" they apply to draft and judgement alike.
    """

    mixture_weight: float = 0.7
    coupling: str = "gumbel"
    needs_auxiliary = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.mixture_weight <= 1:
            raise ValueError(f"mixture_weight={self.mixture_weight} (R) must lie in [0, 1]")
        if self.coupling not in COUPLINGS:
            raise ValueError(f"coupling={self.coupling!r} must be one of {', '.join(COUPLINGS)}")

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        for row in rows:  # rows advance by what is accepted, each at its own pace
            self._decode(models, row, stop, observer)

    def _decode(self, models: Models, row: Row, stop: Stop, observer: Observer | None) -> None:
        canvas = self.canvas(Role("denoiser", models.main), row, models.mask_id)
        auxiliary = Role("auxiliary", models.auxiliary)
        cache = DynamicCache(config=models.auxiliary.config)
        # Both models must know a token to judge it: Dream has a few ids past Qwen's last one.
        shared = min(models.main.config.vocab_size, models.auxiliary.config.vocab_size)
        while not row.finished:
            denoiser_log = canvas()[:, :shared].log_softmax(-1)
            noise = self.noise(step_generator(row.seed, len(row.steps), models.device), denoiser_log.shape)
            draft = self.draft(denoiser_log, noise)
            accepted = draft[:1]
            if len(draft) > 1:  # the first token is accepted in any case
                auxiliary_log = self._judge(auxiliary, cache, row, draft)[:, :shared].log_softmax(-1)
                mixture = self.mixture_weight * denoiser_log + (1 - self.mixture_weight) * auxiliary_log
                agrees = self.verdict(ban(mixture, models.mask_id), noise) == draft
                # At least one, in one transfer from the device.
                accepted = torch.where(agrees.cumprod(0).bool(), draft, -1)
                accepted[0] = draft[0]
            ids = [i for i in accepted.tolist() if i >= 0]
            row.commit(range(row.prefix, row.prefix + len(ids)), ids, stop, observer)

    def draft(self, denoiser_log: Tensor, noise: Tensor | None) -> Tensor:
        """Independent samples of the denoiser's marginals, (m, V) -> (m,)."""
        if noise is not None and self.coupling == "argmax":
            noise = self.temperature * noise  # published: noise to the power T, on logits divided by T
        return self.pick(denoiser_log, noise)

    def verdict(self, mixture: Tensor, noise: Tensor | None) -> Tensor:
        """The tokens that the multiplicative mixture would have drawn with the same noise, (m, V) -> (m,)."""
        return mixture.argmax(-1) if self.coupling == "argmax" else self.pick(mixture, noise)

    def _judge(self, auxiliary: Role, cache: DynamicCache, row: Row, draft: Tensor) -> Tensor:
        """The auxiliary's logits of every drafted token given all before it, (m, V): one forward, committed ids cached."""
        known = len(row.prompt) + row.prefix
        committed = torch.tensor(row.canvas[: row.prefix], dtype=torch.long, device=draft.device)
        # The last known token is fed again: its output predicts the first drafted one.
        crop(cache, known - 1)
        ids = torch.cat((row.prompt, committed, draft[:-1]))[cache.get_seq_length() :]
        return auxiliary([row], ids[None], cache=cache, logits_to_keep=len(draft)).logits[0].float()
